//! From the notice's link to a session: registration, sign-in, sign-out.
use super::{
    Desk, Fault, codes,
    form::{Errors, Form, Registration, SignIn, fault_of_name, judge},
    pages::retry_after,
    session::Visitor,
};
use crate::{
    identity::{Asked, Begun, Held, NewAccount, SignIn as Entered, Typed},
    language::say,
    mail::Address,
    seal::LinkToken,
    store::{Grant, GrantState, Purpose},
};
use axum::{
    Extension,
    extract::{Path, Query, State},
    http::{HeaderValue, StatusCode},
    response::{IntoResponse, Redirect, Response},
};
use jiff::{SignedDuration, Timestamp};
use minijinja::context;
use serde::Deserialize;
use std::sync::Arc;

type Answer = Result<Response, Fault>;

/// Whether a grant still opens.
pub(super) fn live(grant: &Grant, now: Timestamp) -> bool {
    grant.state == GrantState::Live && now < grant.expires
}

impl Desk {
    /// The grant of a link's token.
    pub(super) async fn grant_of(&self, token: &str) -> Result<Option<Grant>, Fault> {
        let Some(token) = LinkToken::parse(token) else { return Ok(None) };
        Ok(self.vault.people.grant_by_token(&token.hash()).await?)
    }
    pub(super) fn login_page(
        &self,
        status: StatusCode,
        visitor: &Visitor,
        form: &SignIn,
        errors: &Errors,
    ) -> Answer {
        let values = context! {
            errors => errors.to_value(), email => &form.email, token => form.token.expose(),
            by_code => self.identity.settings().code_sign_in,
        };
        self.pages.answer(status, "login.html", say!("Sign in"), visitor, values)
    }
    fn register_page(
        &self,
        status: StatusCode,
        visitor: &Visitor,
        (grant, form): (&Grant, &Registration),
        errors: &Errors,
    ) -> Answer {
        let values = context! {
            errors => errors.to_value(), address => grant.mailbox().to_string(),
            token => form.token.expose(),
            first_name => &form.first_name, last_name => &form.last_name,
            accept_terms => !form.accept_terms.is_empty(),
        };
        self.pages.answer(status, "register.html", say!("Open your message"), visitor, values)
    }
}

/// `GET /m/TOKEN`. Looks only: mail scanners fetch links too.
pub(super) async fn link(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Path(token): Path<String>,
) -> Answer {
    let Some(grant) = desk.grant_of(&token).await? else {
        return Err(Fault::Status(StatusCode::NOT_FOUND));
    };
    // Apart from "opened": a link may be fetched by a scanner.
    tracing::info!(grant = %grant.id, "portal: a link was fetched");
    let mine =
        visitor.account.as_ref().map(|account| account.address.same_mailbox(grant.mailbox()));
    let held = desk.identity.holder(&grant).await?;
    if held == Held::Former || !live(&grant, desk.now()) {
        let known = if mine == Some(false) { StatusCode::NOT_FOUND } else { StatusCode::GONE };
        return Err(Fault::Status(known));
    }
    if mine == Some(true) {
        return Ok(Redirect::to(&format!("/inbox/{}", grant.id)).into_response());
    }
    if matches!(held, Held::By(_)) {
        let email = grant.mailbox().to_string();
        let form = SignIn { email, token: token.into(), ..SignIn::default() };
        return desk.login_page(StatusCode::OK, &visitor, &form, &Errors::default());
    }
    let form = Registration { token: token.into(), ..Registration::default() };
    desk.register_page(StatusCode::OK, &visitor, (&grant, &form), &Errors::default())
}

/// `POST /register`. The address is the token's; the form has no say in it.
pub(super) async fn register(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Form(form): Form<Registration>,
) -> Answer {
    let Some(grant) = desk.grant_of(form.token.expose()).await? else {
        return Err(Fault::Status(StatusCode::NOT_FOUND));
    };
    match desk.identity.holder(&grant).await? {
        Held::Open(_) if live(&grant, desk.now()) => {}
        Held::By(_) if live(&grant, desk.now()) => {
            return Ok(Redirect::to(&format!("/m/{}", form.token.expose())).into_response());
        }
        Held::Open(_) | Held::By(_) | Held::Former => {
            return Err(Fault::Status(StatusCode::GONE));
        }
    }
    let errors = faults_of(&form, grant.mailbox(), &desk.settings.organization);
    if !errors.none() {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        return desk.register_page(status, &visitor, (&grant, &form), &errors);
    }
    let account = NewAccount {
        first_name: form.first_name.clone(),
        last_name: form.last_name.clone(),
        password: form.password.expose().to_owned().into(),
        language: visitor.chosen.clone(),
    };
    let browser = visitor.browser();
    match desk.identity.register(&browser, &grant, account, &visitor.language).await? {
        Asked::Sent(begun) => desk.begun(&begun, "/verify"),
        Asked::Wait(wait) => {
            let (status, errors) = (StatusCode::TOO_MANY_REQUESTS, codes::many_codes(wait));
            let page = desk.register_page(status, &visitor, (&grant, &form), &errors)?;
            Ok(retry_after(page, wait.as_secs()))
        }
        Asked::Doubt => {
            let (status, errors) = (StatusCode::UNPROCESSABLE_ENTITY, codes::doubt());
            desk.register_page(status, &visitor, (&grant, &form), &errors)
        }
        Asked::Registered => {
            Ok(Redirect::to(&format!("/m/{}", form.token.expose())).into_response())
        }
        Asked::Gone => Err(Fault::Status(StatusCode::GONE)),
    }
}

fn faults_of(form: &Registration, address: &Address, organization: &str) -> Errors {
    let mut errors = Errors::default();
    errors.add_if("first_name", fault_of_name(&form.first_name, say!("Type your first name.")));
    errors.add_if("last_name", fault_of_name(&form.last_name, say!("Type your last name.")));
    let names = [&*form.first_name, &*form.last_name, organization];
    judge(&mut errors, (&form.password, &form.password_confirm), address, &names);
    if form.accept_terms.is_empty() {
        errors.add("accept_terms", say!("Accept the terms of use to go on."));
    }
    errors
}

/// `GET /login`
pub(super) async fn login_form(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Query(again): Query<Again>,
) -> Answer {
    if visitor.account.is_some() {
        return Ok(Redirect::to("/inbox").into_response());
    }
    let none = Errors::default();
    if again.by == "passkey" {
        return desk.passkey_page(StatusCode::OK, &visitor, &none).await;
    }
    if again.other.is_none()
        && let Some(account) = desk.identity.half_in(&visitor.browser()).await?
    {
        return desk.second_page(StatusCode::OK, &visitor, &account, &none);
    }
    desk.login_page(StatusCode::OK, &visitor, &SignIn::default(), &none)
}

/// Asks for the whole sign-in, though a half of it was done.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Again {
    other: Option<String>,
    /// `passkey`: asks for one.
    by: String,
}

/// `POST /login`
pub(super) async fn login(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Form(mut form): Form<SignIn>,
) -> Answer {
    form.email = form.email.trim().chars().take(320).collect();
    if form.by == "passkey" {
        return desk.login_by_passkey(&visitor, &form.passkey).await;
    }
    if form.email.is_empty()
        && let Some(account) = desk.identity.half_in(&visitor.browser()).await?
    {
        return desk.second_step(&visitor, account, form.code.expose()).await;
    }
    if form.by == "code" {
        return desk.login_by_code(&visitor, &form).await;
    }
    let mut errors = Errors::default();
    errors.add_if("email", form.email.is_empty().then(|| say!("Type your e-mail address.")));
    let missing = form.password.expose().is_empty();
    errors.add_if("password", missing.then(|| say!("Type your password.")));
    if !errors.none() {
        return desk.login_page(StatusCode::UNPROCESSABLE_ENTITY, &visitor, &form, &errors);
    }
    let typed = Typed {
        email: form.email.clone(),
        password: std::mem::take(&mut form.password).into_inner(),
        link: desk.grant_of(form.token.expose()).await?.map(|grant| grant.id),
    };
    match desk.identity.sign_in(&visitor.browser(), typed).await? {
        Entered::Wrong => {
            let text = say!("The address and the password do not belong together. Check both.");
            let errors = Errors::of("password", text);
            desk.login_page(StatusCode::UNPROCESSABLE_ENTITY, &visitor, &form, &errors)
        }
        Entered::Wait(wait) => desk.login_later(&visitor, &form, wait, &codes::please_wait(wait)),
        Entered::In(begun) => desk.let_in(&begun),
        Entered::Second(begun) => desk.begun(&begun, "/login"),
    }
}

impl Desk {
    fn login_later(
        &self,
        visitor: &Visitor,
        form: &SignIn,
        wait: SignedDuration,
        errors: &Errors,
    ) -> Answer {
        let page = self.login_page(StatusCode::TOO_MANY_REQUESTS, visitor, form, errors)?;
        Ok(retry_after(page, wait.as_secs()))
    }
    /// Sign-in without a password: a code is mailed, if the address has an account.
    async fn login_by_code(&self, visitor: &Visitor, form: &SignIn) -> Answer {
        let Ok(address) = form.email.parse::<Address>() else {
            let text = say!("Type your e-mail address, as in ann@example.org.");
            let errors = Errors::of("email", text);
            return self.login_page(StatusCode::UNPROCESSABLE_ENTITY, visitor, form, &errors);
        };
        let link = self.grant_of(form.token.expose()).await?.map(|grant| grant.id);
        let way = (link, &visitor.language);
        let browser = visitor.browser();
        match self.identity.ask_code(&browser, address, Purpose::SignIn, way).await? {
            Asked::Sent(begun) => self.begun(&begun, "/verify"),
            Asked::Wait(wait) => self.login_later(visitor, form, wait, &codes::many_codes(wait)),
            Asked::Doubt => {
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                self.login_page(status, visitor, form, &codes::doubt())
            }
            Asked::Gone | Asked::Registered => Ok(Redirect::to("/login").into_response()),
        }
    }
    /// Signed in: on to the message whose link led here.
    pub(super) fn let_in(&self, begun: &Begun) -> Answer {
        let to = begun.wants.map_or_else(|| "/inbox".to_owned(), |id| format!("/inbox/{id}"));
        self.begun(begun, &to)
    }
}

/// `POST /logout`
pub(super) async fn logout(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
) -> Answer {
    desk.identity.sign_out(&visitor.browser()).await?;
    let mut answer = desk.ended("/login")?;
    // Nor does the way back show what was read: pages that the browser holds in memory end too.
    answer
        .headers_mut()
        .insert("clear-site-data", HeaderValue::from_static("\"cache\", \"storage\""));
    Ok(answer)
}
