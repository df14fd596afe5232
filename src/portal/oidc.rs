//! Sign-in by an account elsewhere (`portal.oidc`): to the provider and back.
//!
//! Who comes back has shown that a mailbox is theirs, as by a mailed code: it opens the account of
//! that mailbox (whose second factor is asked for all the same), or makes one where a message waits.
use super::{
    Desk, Fault,
    form::{Form, fault_of_name},
    session::Visitor,
};
use crate::{
    identity::{SignIn, Way},
    language::{Text, say},
    mail::GrantId,
    oidc::{OidcError, Person, Provider, Trip},
    seal::LinkToken,
    store::SignedBy,
};
use aws_lc_rs::hmac;
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
use jiff::{SignedDuration, Timestamp};
use minijinja::{Value, context};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};
use zeroize::Zeroizing;

/// How long a sign-in elsewhere may take.
const PATIENCE: SignedDuration = SignedDuration::from_mins(10);
/// Trips that came back, remembered at most; beyond it none ends until old ones are forgotten.
const MAX_USED: usize = 10_000;
/// Longest code that a provider may send back.
const MAX_CODE: usize = 4096;

type Answer = Result<Response, Fault>;

/// Sign-ins under way elsewhere, without a memory of those that do not come back: all that binds one
/// together is made from the browser's cookie and a secret of ours. Those that came back are
/// remembered until their time is over, so that each ends once.
pub(super) struct Trips {
    key: hmac::Key,
    used: Mutex<BTreeMap<[u8; 32], Timestamp>>,
}
impl Default for Trips {
    fn default() -> Self {
        let secret: [u8; 32] = rand::random();
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &secret), used: Mutex::default() }
    }
}
impl std::fmt::Debug for Trips {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Trips(..)")
    }
}
impl Trips {
    fn sealed(&self, what: &str, cookie: &str, provider: &Provider, second: i64) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        // Each part behind its length: none can run into the next.
        for part in [what, cookie, provider.issuer(), provider.name()] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        context.update(&second.to_be_bytes());
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        bytes
    }
    fn trip(&self, cookie: &str, provider: &Provider, at: Timestamp, redirect: &str) -> Trip {
        let second = at.as_second();
        let text = |what| BASE64URL_NOPAD.encode(&self.sealed(what, cookie, provider, second));
        let state =
            [second.to_be_bytes().as_slice(), &self.sealed("state", cookie, provider, second)]
                .concat();
        Trip {
            state: BASE64URL_NOPAD.encode(&state),
            nonce: text("nonce"),
            verifier: Zeroizing::new(text("verifier")),
            redirect: redirect.to_owned(),
        }
    }
    /// The trip that this browser set out on, if it comes back in time; and to whom it went.
    fn found<'p>(
        &self,
        cookie: &str,
        state: &str,
        providers: &'p [Arc<Provider>],
        redirect: &str,
        now: Timestamp,
    ) -> Result<(&'p Arc<Provider>, Trip, Return), &'static str> {
        let bytes = BASE64URL_NOPAD.decode(state.as_bytes()).map_err(|_| "no state of ours")?;
        let (second, seal) = bytes.split_first_chunk::<8>().ok_or("a short state")?;
        let seal = <[u8; 32]>::try_from(seal).map_err(|_| "a state of another length")?;
        let second = i64::from_be_bytes(*second);
        let same = |provider: &&Arc<Provider>| -> bool {
            let ours = self.sealed("state", cookie, provider, second);
            subtle::ConstantTimeEq::ct_eq(ours.as_slice(), &seal).into()
        };
        let provider = providers.iter().find(same).ok_or("a state of another browser, or none")?;
        let at = Timestamp::from_second(second).map_err(|_| "a state of no time")?;
        if now.duration_since(at) > PATIENCE {
            return Err("a sign-in whose time is over");
        }
        Ok((provider, self.trip(cookie, provider, at, redirect), Return { seal, at }))
    }
    /// Ends a trip, which may then go on to an account: each does so once.
    fn end(&self, back: Return, now: Timestamp) -> Result<(), &'static str> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.retain(|_, at| now.duration_since(*at) <= PATIENCE);
        if used.contains_key(&back.seal) {
            return Err("a sign-in that has come back already");
        }
        if used.len() >= MAX_USED {
            return Err("too many sign-ins at once");
        }
        used.insert(back.seal, back.at);
        Ok(())
    }
    /// How many ended that are remembered.
    #[cfg(test)]
    pub(super) fn ended(&self) -> usize {
        self.used.lock().unwrap().len()
    }
}

/// By what a trip that has ended is remembered, and when it began.
struct Return {
    seal: [u8; 32],
    at: Timestamp,
}

/// `POST /login/oidc`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Chosen {
    provider: String,
    /// Of the link that led here.
    token: String,
}
/// `GET /login/oidc/callback`
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Brought {
    code: String,
    state: String,
    error: String,
    /// RFC 9207: who answers.
    iss: Option<String>,
}

impl Brought {
    /// Whether it may be an answer of that provider that somebody was signed in there.
    fn judged(&self, provider: &Provider) -> Result<(), Text> {
        if self.iss.as_ref().is_some_and(|issuer| issuer != provider.issuer()) {
            return Err(say!("Somebody else has answered. Please begin again."));
        }
        if !self.error.is_empty() || self.code.is_empty() || self.code.len() > MAX_CODE {
            let name = provider.name().to_owned();
            return Err(say!("You were not signed in at {name}.", name = name));
        }
        Ok(())
    }
}

/// `POST /login/oidc`: on to the provider.
///
/// By a page that goes on by itself and not by a redirect: `form-action` of our own pages would have
/// to name every host that a provider leads through.
pub(super) async fn go(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Form(form): Form<Chosen>,
) -> Answer {
    let mut providers = desk.settings.providers.iter();
    let Some(provider) = providers.find(|provider| provider.name() == form.provider) else {
        return Err(Fault::Status(StatusCode::NOT_FOUND));
    };
    let mut secret = Zeroizing::new([0; 32]);
    rand::fill(secret.as_mut_slice());
    let secret = LinkToken::from_random(secret);
    let link = LinkToken::parse(&form.token);
    let link = link.as_ref().map(LinkToken::expose).unwrap_or_default();
    let cookie = Zeroizing::new(format!("{}.{link}", secret.expose()));
    let now = desk.now();
    let trip = desk.trips.trip(&cookie, provider, now, &desk.way_back());
    let url = match provider.leading(&trip, now).await {
        Ok(url) => url,
        Err(error) => return desk.not_there(&visitor, provider, &error),
    };
    let title = say!("On to {name}", name = provider.name().to_owned());
    let values = context! { name => provider.name(), url => &url, text => "" };
    let mut page = desk.pages.answer(StatusCode::OK, "oidc.html", title, &visitor, values)?;
    let refresh = HeaderValue::from_str(&format!("0; url={url}"))
        .map_err(|_| Fault::Work("a provider's URL of strange characters"))?;
    page.headers_mut().insert(REFRESH, refresh);
    page.headers_mut().append(SET_COOKIE, desk.trip_cookie(&cookie, PATIENCE.as_secs())?);
    Ok(page)
}

/// `GET /login/oidc/callback`: back from the provider. Without the cookie of the browser that set
/// out, and the state that belongs to it, nothing happens.
pub(super) async fn back(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    method: Method,
    headers: HeaderMap,
    Query(brought): Query<Brought>,
) -> Answer {
    let (now, providers) = (desk.now(), &desk.settings.providers);
    let cookie = cookie_in(&headers, desk.trip_cookie_name());
    let trip = match cookie.as_deref().filter(|_| method == Method::GET) {
        Some(cookie) => desk.trips.found(cookie, &brought.state, providers, &desk.way_back(), now),
        None => Err("no sign-in is under way in this browser"),
    };
    let (provider, trip, ending) = match trip {
        Ok(found) => found,
        Err(why) => return desk.in_vain(&visitor, why),
    };
    if let Err(text) = brought.judged(provider) {
        let mut answer = desk.trouble(&visitor, StatusCode::UNPROCESSABLE_ENTITY, text)?;
        answer.headers_mut().append(SET_COOKIE, desk.trip_cookie("", 0)?);
        return Ok(answer);
    }
    if let Err(why) = desk.trips.end(ending, now) {
        return desk.in_vain(&visitor, why);
    }
    let link = cookie.as_deref().and_then(|cookie| cookie.split_once('.')).map(|(_, link)| link);
    let mut answer = desk.arrived(&visitor, provider, (&trip, &brought.code), link).await?;
    answer.headers_mut().append(SET_COOKIE, desk.trip_cookie("", 0)?);
    Ok(answer)
}

impl Desk {
    fn way_back(&self) -> String {
        format!("{}/login/oidc/callback", self.settings.url.trim_end_matches('/'))
    }
    fn trip_cookie_name(&self) -> &'static str {
        if self.https() { "__Host-oidc" } else { "oidc" }
    }
    /// Lax: the answer comes from the provider's site.
    fn trip_cookie(&self, value: &str, seconds: i64) -> Result<HeaderValue, Fault> {
        let (name, secure) = (self.trip_cookie_name(), if self.https() { "; Secure" } else { "" });
        let text =
            format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}; Max-Age={seconds}");
        let mut cookie = HeaderValue::from_str(&text)
            .map_err(|_| Fault::Work("a cookie of strange characters"))?;
        cookie.set_sensitive(true);
        Ok(cookie)
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
        (trip, code): (&Trip, &str),
        link: Option<&str>,
    ) -> Answer {
        let person = provider.person(code, trip, self.now()).await;
        let person = match person {
            Ok(person) => person,
            Err(error) => return self.not_there(visitor, provider, &error),
        };
        let wants = match link {
            Some(link) => self.grant_of(link).await?.map(|grant| grant.id),
            None => None,
        };
        self.let_person_in(visitor, person, wants).await
    }
    async fn let_person_in(
        &self,
        visitor: &Visitor,
        person: Person,
        wants: Option<GrantId>,
    ) -> Answer {
        let names = (
            name_of(&person.first_name).unwrap_or_else(|| person.address.local().to_owned()),
            name_of(&person.last_name).unwrap_or_default(),
        );
        let account = self.identity.account_of_person(&person.address, names).await?;
        let way = Way::new(SignedBy::Oidc, wants);
        let entered = match account {
            Some(account) => self.identity.first_shown(&visitor.browser(), account, way).await?,
            None => SignIn::Wrong,
        };
        match entered {
            SignIn::In(begun) => self.let_in(&begun),
            SignIn::Second(begun) => self.begun(&begun, "/login"),
            SignIn::Wrong | SignIn::Wait(_) => {
                let text = say!(
                    "Nothing waits here for {address}. If a notice was sent to another address of \
                     yours, sign in with that one.",
                    address = person.address.to_string()
                );
                self.trouble(visitor, StatusCode::UNPROCESSABLE_ENTITY, text)
            }
        }
    }
}

fn name_of(name: &str) -> Option<String> {
    fault_of_name(name, Text::default()).is_none().then(|| name.trim().to_owned())
}

fn cookie_in(headers: &HeaderMap, name: &str) -> Option<Zeroizing<String>> {
    let fields = headers.get_all(COOKIE).iter().filter_map(|field| field.to_str().ok());
    let mut pairs =
        fields.flat_map(|field| field.split(';')).filter_map(|p| p.trim().split_once('='));
    let (_, value) = pairs.find(|(key, value)| *key == name && value.len() <= 128)?;
    Some(Zeroizing::new(value.to_owned()))
}
