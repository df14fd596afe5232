//! Sign-in by an account elsewhere (`portal.oidc`): to the provider and back.
//!
//! The provider proves a mailbox, as a mailed code does: that opens the account of the mailbox (whose
//! second factor is asked for all the same), or makes one where a message waits.
use super::{
    Desk, Fault, codes,
    form::{Form, Secret, fault_of_name},
    pages::retry_after,
    session::Visitor,
};
use crate::{
    identity::{ByProvider, SignIn, Vouched},
    language::{Text, say},
    mail::GrantId,
    oidc::{
        LoginFlow, OidcError, PATIENCE, Person, Prompt, Provider, Return, client_key, cookie_of,
        link_of,
    },
    store::AuditKind,
};
use axum::{
    Extension,
    extract::{Query, State},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{COOKIE, REFRESH, SET_COOKIE},
    },
    response::Response,
};
use data_encoding::BASE64URL_NOPAD;
use minijinja::{Value, context};
use serde::Deserialize;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Login flows that a browser has under way, one cookie each; a further one ends the oldest.
const MAX_COOKIES: usize = 8;
/// Characters of a state that name the cookie of its login flow: the time, and a little of the seal.
const NAMING: usize = 20;
/// Longest code that a provider may send back.
const MAX_CODE: usize = 4096;

type Answer = Result<Response, Fault>;

/// `POST /login/oidc`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Chosen {
    provider: String,
    /// Of the link that led here.
    token: Secret,
}
/// `GET /login/oidc/callback`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Brought {
    code: Secret,
    state: Secret,
    error: String,
    /// RFC 9207: who answers.
    iss: Option<String>,
}

impl Brought {
    /// Whether the provider says that it has signed somebody in.
    fn judged(&self, provider: &Provider) -> Result<(), Text> {
        if !self.error.is_empty()
            || self.code.expose().is_empty()
            || self.code.expose().len() > MAX_CODE
        {
            let name = provider.name().to_owned();
            return Err(say!("You were not signed in at {name}.", name = name));
        }
        Ok(())
    }
    /// Whether the provider refused the `prompt` that it was asked for. Core 1.0, section 3.1.2.6,
    /// has no error of its own for that.
    fn refuses(&self, prompt: Prompt) -> bool {
        prompt == Prompt::SelectAccount && self.error == "invalid_request"
    }
}

/// `POST /login/oidc`: on to the provider.
pub(super) async fn go(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    headers: HeaderMap,
    Form(form): Form<Chosen>,
) -> Answer {
    let mut providers = desk.settings.providers.iter();
    let Some(provider) = providers.find(|provider| provider.name() == form.provider) else {
        return Err(Fault::Status(StatusCode::NOT_FOUND));
    };
    let cookie = cookie_of(form.token.expose(), Prompt::SelectAccount);
    desk.set_out(&visitor, provider, &headers, &cookie).await
}

/// `GET /login/oidc/callback`: back from the provider. Without the cookie of the browser that set
/// out, and the state that belongs to it, nothing happens, and nothing is counted.
pub(super) async fn back(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    method: Method,
    headers: HeaderMap,
    Query(brought): Query<Brought>,
) -> Answer {
    let (now, providers) = (desk.now(), &desk.settings.providers);
    let name = desk.flow_cookie_name(brought.state.expose()).filter(|_| method == Method::GET);
    let cookie = name.and_then(|name| cookie_in(&headers, &name));
    let flow = match &cookie {
        Some(cookie) => {
            desk.flows.found(cookie, brought.state.expose(), providers, &desk.way_back(), now)
        }
        None => Err("no sign-in is under way in this browser"),
    };
    let (provider, flow, ending) = match flow {
        Ok(found) => found,
        Err(why) => return desk.in_vain(&visitor, why),
    };
    let link = cookie.as_deref().map(|cookie| link_of(cookie)).unwrap_or_default();
    let mut answer = match provider.answered(brought.iss.as_deref(), now).await {
        Err(error) => desk.not_there(&visitor, provider, &error)?,
        Ok(false) => {
            let text = say!("Somebody else has answered. Please begin again.");
            desk.trouble(&visitor, StatusCode::UNPROCESSABLE_ENTITY, text)?
        }
        Ok(true) if brought.refuses(flow.prompt) => {
            let cookie = cookie_of(link, Prompt::Login);
            desk.set_out(&visitor, provider, &headers, &cookie).await?
        }
        Ok(true) => match brought.judged(provider) {
            Err(text) => desk.trouble(&visitor, StatusCode::UNPROCESSABLE_ENTITY, text)?,
            Ok(()) => {
                desk.arrived(&visitor, provider, (&flow, brought.code.expose(), ending), link)
                    .await?
            }
        },
    };
    answer.headers_mut().append(SET_COOKIE, desk.flow_cookie(brought.state.expose(), "", 0)?);
    Ok(answer)
}

impl Desk {
    fn way_back(&self) -> String {
        format!("{}/login/oidc/callback", self.settings.url.trim_end_matches('/'))
    }
    fn flow_cookie_prefix(&self) -> &'static str {
        if self.https() { "__Host-oidc-" } else { "oidc-" }
    }
    /// Each login flow has its own cookie, so that two tabs don't end each other's.
    fn flow_cookie_name(&self, state: &str) -> Option<String> {
        Some(format!("{}{}", self.flow_cookie_prefix(), state.get(..NAMING)?))
    }
    /// Lax: the answer comes from the provider's site.
    fn flow_cookie(&self, state: &str, value: &str, seconds: i64) -> Result<HeaderValue, Fault> {
        let strange = Fault::Work("a cookie of strange characters");
        let Some(name) = self.flow_cookie_name(state) else { return Err(strange) };
        let secure = if self.https() { "; Secure" } else { "" };
        let text =
            format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}; Max-Age={seconds}");
        let mut cookie = HeaderValue::from_str(&text).map_err(|_| strange)?;
        cookie.set_sensitive(true);
        Ok(cookie)
    }
    /// States' beginnings of the oldest login flows of a browser, beyond those that it may have when one
    /// more begins.
    fn outdated<'h>(&self, headers: &'h HeaderMap) -> Vec<&'h str> {
        let prefix = self.flow_cookie_prefix();
        let names = pairs_in(headers).filter_map(|(name, _)| name.strip_prefix(prefix));
        let mut under_way: Vec<(Vec<u8>, &str)> = names
            .filter(|state| state.len() == NAMING)
            .filter_map(|state| Some((BASE64URL_NOPAD.decode(state.as_bytes()).ok()?, state)))
            .collect();
        // A state begins with its time.
        under_way.sort_unstable();
        let over = (under_way.len() + 1).saturating_sub(MAX_COOKIES);
        under_way.into_iter().take(over).map(|(_, state)| state).collect()
    }
    /// Leads the browser on to a provider.
    ///
    /// By a page that goes on by itself and not by a redirect: `form-action` of our own pages would
    /// have to name every host that a provider leads through.
    async fn set_out(
        &self,
        visitor: &Visitor,
        provider: &Provider,
        headers: &HeaderMap,
        cookie: &str,
    ) -> Answer {
        let now = self.now();
        let flow = self.flows.flow(cookie, provider, now, &self.way_back());
        let url = match provider.leading(&flow, now).await {
            Ok(url) => url,
            Err(error) => return self.not_there(visitor, provider, &error),
        };
        let title = say!("On to {name}", name = provider.name().to_owned());
        let values = context! { name => provider.name(), url => &url, text => "" };
        let mut page = self.pages.answer(StatusCode::OK, "oidc.html", title, visitor, values)?;
        let refresh = HeaderValue::from_str(&format!("0; url={url}"))
            .map_err(|_| Fault::Work("a provider's URL of strange characters"))?;
        page.headers_mut().insert(REFRESH, refresh);
        let set = self.flow_cookie(&flow.state, cookie, PATIENCE.as_secs())?;
        page.headers_mut().append(SET_COOKIE, set);
        for state in self.outdated(headers) {
            page.headers_mut().append(SET_COOKIE, self.flow_cookie(state, "", 0)?);
        }
        Ok(page)
    }
    fn trouble(&self, visitor: &Visitor, status: StatusCode, text: Text) -> Answer {
        let values = context! { name => "", url => "", text => Value::from(text) };
        let title = say!("That sign-in did not work");
        self.pages.answer(status, "oidc.html", title, visitor, values)
    }
    fn in_vain(&self, visitor: &Visitor, why: &str) -> Answer {
        tracing::info!(why, "portal: a sign-in elsewhere came back in vain");
        let text = say!(
            "This browser has not set out for that sign-in, or it took too long. Please begin \
             again."
        );
        self.trouble(visitor, StatusCode::UNPROCESSABLE_ENTITY, text)
    }
    fn not_there(&self, visitor: &Visitor, provider: &Provider, error: &OidcError) -> Answer {
        let name = provider.name();
        match error {
            OidcError::Down(why) => {
                tracing::error!(provider = name, why, "portal: a provider can't be asked");
                let text = say!("{name} can’t be reached at the moment.", name = name.to_owned());
                self.trouble(visitor, StatusCode::SERVICE_UNAVAILABLE, text)
            }
            OidcError::Refused(why) => {
                tracing::warn!(provider = name, why, "portal: what a provider says is not taken");
                let text = say!(
                    "What {name} says of you is not enough to sign in here.",
                    name = name.to_owned()
                );
                self.trouble(visitor, StatusCode::UNPROCESSABLE_ENTITY, text)
            }
        }
    }
    async fn arrived(
        &self,
        visitor: &Visitor,
        provider: &Provider,
        (flow, code, ending): (&LoginFlow, &str, Return),
        link: &str,
    ) -> Answer {
        let now = self.now();
        match self.flows.end(&ending, visitor.client.map(client_key), now) {
            None => return self.in_vain(visitor, "a sign-in that has come back already"),
            Some(false) => {
                let text = codes::wait_words(PATIENCE);
                let page = self.trouble(visitor, StatusCode::TOO_MANY_REQUESTS, text)?;
                return Ok(retry_after(page, PATIENCE.as_secs()));
            }
            Some(true) => {}
        }
        let person = provider.person(code, flow, now).await;
        if !matches!(person, Err(OidcError::Refused(_))) {
            self.flows.refund(&ending);
        }
        let person = match person {
            Ok(person) => person,
            Err(error) => {
                if matches!(error, OidcError::Refused(_)) {
                    self.audit.record(self.event(AuditKind::OidcRefused, visitor)).await;
                }
                return self.not_there(visitor, provider, &error);
            }
        };
        let wants = self.grant_of(link).await?.map(|grant| grant.id);
        self.let_person_in(visitor, person, wants).await
    }
    async fn let_person_in(
        &self,
        visitor: &Visitor,
        person: Person,
        wants: Option<GrantId>,
    ) -> Answer {
        let address = person.address.to_string();
        let person = Vouched {
            first_name: name_of(&person.first_name)
                .unwrap_or_else(|| person.address.local().to_owned()),
            last_name: name_of(&person.last_name).unwrap_or_default(),
            address: person.address,
        };
        let browser = visitor.browser();
        match self.identity.sign_in_by_provider(&browser, person, wants).await? {
            ByProvider::Entered(SignIn::In(begun)) => self.let_in(&begun),
            ByProvider::Entered(SignIn::Second(begun)) => self.begun(&begun, "/login"),
            ByProvider::Entered(SignIn::Wait(wait)) => {
                let (status, text) = (StatusCode::TOO_MANY_REQUESTS, codes::wait_words(wait));
                Ok(retry_after(self.trouble(visitor, status, text)?, wait.as_secs()))
            }
            ByProvider::Entered(SignIn::Wrong) => {
                self.in_vain(visitor, "the account was changed meanwhile")
            }
            ByProvider::Locked => {
                let text = say!(
                    "The account of {address} is locked. Please write to {support}.",
                    address = address,
                    support = self.settings.support.clone()
                );
                self.trouble(visitor, StatusCode::FORBIDDEN, text)
            }
            ByProvider::Nothing => {
                let text = say!(
                    "Nothing waits here for {address}. If a notice was sent to another address of \
                     yours, sign in with that one.",
                    address = address
                );
                self.trouble(visitor, StatusCode::UNPROCESSABLE_ENTITY, text)
            }
        }
    }
}

fn name_of(name: &str) -> Option<String> {
    fault_of_name(name, Text::default()).is_none().then(|| name.trim().to_owned())
}

fn pairs_in(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let fields = headers.get_all(COOKIE).iter().filter_map(|field| field.to_str().ok());
    fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.trim().split_once('='))
}
fn cookie_in(headers: &HeaderMap, name: &str) -> Option<Zeroizing<String>> {
    let (_, value) = pairs_in(headers).find(|(key, value)| *key == name && value.len() <= 128)?;
    Some(Zeroizing::new(value.to_owned()))
}
