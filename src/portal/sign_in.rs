//! From the notice's link to a session: registration, sign-in, sign-out.
use super::{
    Desk, Fault,
    codes::{self, Asked},
    form::{Errors, Form, Registration, SignIn, fault_of_name},
    pages::retry_after,
    password,
    session::Visitor,
    throttle::{keys_of, mailbox_keys},
};
use crate::{
    language::say,
    mail::{Address, GrantId},
    seal::LinkToken,
    store::{Account, Grant, GrantState, Purpose},
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
use zeroize::Zeroizing;

type Answer = Result<Response, Fault>;

/// Whether a grant still opens.
pub(super) fn live(grant: &Grant, now: Timestamp) -> bool {
    grant.state == GrantState::Live && now < grant.expires
}
fn to_message(grant: &Grant) -> String {
    format!("/inbox/{}", grant.id)
}

impl Desk {
    /// The grant of a link's token.
    pub(super) async fn grant_of(&self, token: &str) -> Result<Option<Grant>, Fault> {
        let Some(token) = LinkToken::parse(token) else { return Ok(None) };
        Ok(self.vault.people.grant_by_token(&token.hash()).await?)
    }
    fn login_page(
        &self,
        status: StatusCode,
        visitor: &Visitor,
        form: &SignIn,
        errors: &Errors,
    ) -> Answer {
        let values =
            context! { errors => errors.to_value(), email => &form.email, token => &form.token };
        self.pages.answer(status, "login.html", say!("Sign in"), visitor, values)
    }
    fn register_page(
        &self,
        status: StatusCode,
        visitor: &Visitor,
        address: &Address,
        form: &Registration,
        errors: &Errors,
    ) -> Answer {
        let values = context! {
            errors => errors.to_value(), address => address.to_string(), token => &form.token,
            first_name => &form.first_name, last_name => &form.last_name,
            accept_terms => !form.accept_terms.is_empty(),
        };
        self.pages.answer(status, "register.html", say!("Open your message"), visitor, values)
    }
    /// Whose a grant is: the account, if there is one, and since when the mailbox is its present
    /// holder's; `None` if it was for somebody who held the mailbox before.
    async fn holder(
        &self,
        grant: &Grant,
    ) -> Result<Option<(Option<Account>, Option<Timestamp>)>, Fault> {
        let people = &self.vault.people;
        if let Some(account) = people.account(&grant.recipient).await? {
            let since = account.since;
            return Ok(account.holds(grant).then_some((Some(account), since)));
        }
        let since = people.vacated(&grant.recipient).await?;
        let held = since.is_none_or(|since| grant.sealed > since);
        Ok(held.then_some((None, since)))
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
    // Apart from "opened": who fetches a link may be a scanner.
    tracing::info!(grant = %grant.id, "portal: a link was fetched");
    let mine = visitor.account.as_ref().map(|account| account.address == grant.recipient);
    let holder = desk.holder(&grant).await?.filter(|_| live(&grant, desk.now()));
    let Some((account, _)) = holder else {
        let known = if mine == Some(false) { StatusCode::NOT_FOUND } else { StatusCode::GONE };
        return Err(Fault::Status(known));
    };
    if mine == Some(true) {
        return Ok(Redirect::to(&to_message(&grant)).into_response());
    }
    if account.is_some() {
        let form = SignIn { email: grant.recipient.to_string(), token, ..SignIn::default() };
        return desk.login_page(StatusCode::OK, &visitor, &form, &Errors::default());
    }
    let form = Registration { token, ..Registration::default() };
    desk.register_page(StatusCode::OK, &visitor, &grant.recipient, &form, &Errors::default())
}

/// `POST /register`. The address is the token's; the form has no say in it.
pub(super) async fn register(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Form(form): Form<Registration>,
) -> Answer {
    let Some(grant) = desk.grant_of(&form.token).await? else {
        return Err(Fault::Status(StatusCode::NOT_FOUND));
    };
    let now = desk.now();
    let Some((account, since)) = desk.holder(&grant).await?.filter(|_| live(&grant, now)) else {
        return Err(Fault::Status(StatusCode::GONE));
    };
    if account.is_some() {
        return Ok(Redirect::to(&format!("/m/{}", form.token)).into_response());
    }
    let errors = faults_of(&form, &grant.recipient);
    let again = |status, errors: &Errors| {
        desk.register_page(status, &visitor, &grant.recipient, &form, errors)
    };
    if !errors.none() {
        return again(StatusCode::UNPROCESSABLE_ENTITY, &errors);
    }
    if let Some(wait) = desk.many_codes(&visitor, &grant.recipient) {
        let page = again(StatusCode::TOO_MANY_REQUESTS, &codes::many_codes(wait))?;
        return Ok(retry_after(page, wait.as_secs()));
    }
    desk.send_code(&visitor, &grant, form, since).await
}

fn faults_of(form: &Registration, address: &Address) -> Errors {
    let mut errors = Errors::default();
    errors.add_if("first_name", fault_of_name(&form.first_name, say!("Type your first name.")));
    errors.add_if("last_name", fault_of_name(&form.last_name, say!("Type your last name.")));
    password::judge(&mut errors, &form.password, &form.password_confirm, address);
    if form.accept_terms.is_empty() {
        errors.add("accept_terms", say!("Accept the terms of use to go on."));
    }
    errors
}

impl Desk {
    /// Counts a code to be mailed; how long to wait for one, if there were too many.
    fn many_codes(&self, visitor: &Visitor, address: &Address) -> Option<SignedDuration> {
        let keys = mailbox_keys(&codes::code_key(address), visitor.client);
        let now = self.now();
        let wait = self.codes.wait(&keys, now);
        if wait.is_none() {
            self.codes.count(&keys, now);
        }
        wait
    }
    /// Another code for who has filled in the form of registration: as long as the link that led
    /// there would still lead there.
    pub(super) async fn register_again(
        &self,
        visitor: &Visitor,
        account: &Account,
        wants: Option<GrantId>,
    ) -> Result<Asked, Fault> {
        let grant = match wants {
            Some(id) => self.vault.people.grant(id).await?,
            None => None,
        };
        let mine = |grant: &Grant| live(grant, self.now()) && grant.recipient == account.address;
        let Some(grant) = grant.filter(mine) else { return Err(Fault::Status(StatusCode::GONE)) };
        match self.holder(&grant).await? {
            None => return Err(Fault::Status(StatusCode::GONE)),
            // Another browser was faster; that account stands.
            Some((Some(_), _)) => return Ok(Asked::Sent(Redirect::to("/login").into_response())),
            Some((None, _)) => {}
        }
        if let Some(wait) = self.many_codes(visitor, &account.address) {
            return Ok(Asked::Wait(wait));
        }
        self.mail_code_to(visitor, &grant, account.clone()).await.map(Asked::Sent)
    }
    async fn send_code(
        &self,
        visitor: &Visitor,
        grant: &Grant,
        form: Registration,
        since: Option<Timestamp>,
    ) -> Answer {
        let account = Account {
            first_name: form.first_name.trim().to_owned(),
            last_name: form.last_name.trim().to_owned(),
            password: self.passwords.hash(form.password.into_inner()).await?,
            since,
            language: visitor.chosen.clone(),
            ..Account::new(grant.recipient.clone(), rand::random(), self.now())
        };
        self.mail_code_to(visitor, grant, account).await
    }
    /// Mails the code and begins the one session that may type it. No account is written before the
    /// mailbox has proved to be the visitor's.
    async fn mail_code_to(&self, visitor: &Visitor, grant: &Grant, account: Account) -> Answer {
        let mut fresh = self.fresh(visitor);
        fresh.session.wants = Some(grant.id);
        let code = self.await_code(&mut fresh.session, account, Purpose::Register);
        let id = self.vault.mail_code(&grant.recipient, &code, &visitor.language).await?;
        tracing::info!(%id, "portal: a registration code was mailed");
        self.begin(fresh, visitor.session.as_ref(), "/verify").await
    }
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
    if again.by == "passkey" {
        return desk.passkey_page(StatusCode::OK, &visitor, &Errors::default());
    }
    if again.other.is_none() && desk.half_in(&visitor).await?.is_some() {
        return desk.second_page(StatusCode::OK, &visitor, &Errors::default());
    }
    desk.login_page(StatusCode::OK, &visitor, &SignIn::default(), &Errors::default())
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
        && let Some(account) = desk.half_in(&visitor).await?
    {
        return desk.second_step(&visitor, account, &form.code).await;
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
    let own = account_key(&form.email);
    let (keys, now) = (keys_of(&own, visitor.client), desk.now());
    if let Some(wait) = desk.sign_ins.wait(&keys, now) {
        return desk.login_later(&visitor, &form, wait, &codes::please_wait(wait));
    }
    desk.sign_ins.count(&keys, now);
    let password = std::mem::take(&mut form.password).into_inner();
    match desk.recognised(&form.email, password).await? {
        Some(account) => {
            desk.sign_ins.forgive(&own, &keys);
            let wants = desk.grant_of(&form.token).await?.map(|grant| grant.id);
            desk.enter(&visitor, account, wants).await
        }
        None => {
            let text = say!("The address and the password do not belong together. Check both.");
            let errors = Errors::of("password", text);
            desk.login_page(StatusCode::UNPROCESSABLE_ENTITY, &visitor, &form, &errors)
        }
    }
}

/// By mailbox: however its address is typed, there are no more tries.
fn account_key(typed: &str) -> String {
    let address = typed.parse::<Address>().map_or_else(|_| typed.to_owned(), |a| a.to_string());
    format!("account {}", address.to_lowercase())
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
    async fn login_by_code(self: &Arc<Self>, visitor: &Visitor, form: &SignIn) -> Answer {
        let Ok(address) = form.email.parse::<Address>() else {
            let text = say!("Type your e-mail address, as in ann@example.org.");
            let errors = Errors::of("email", text);
            return self.login_page(StatusCode::UNPROCESSABLE_ENTITY, visitor, form, &errors);
        };
        let wants = self.grant_of(&form.token).await?.map(|grant| grant.id);
        match self.ask_code(visitor, address, Purpose::SignIn, wants).await? {
            Asked::Sent(answer) => Ok(answer),
            Asked::Wait(wait) => self.login_later(visitor, form, wait, &codes::many_codes(wait)),
        }
    }
    /// The account, if address and password belong together. The same work is done where there is
    /// no account.
    async fn recognised(
        &self,
        email: &str,
        password: Zeroizing<String>,
    ) -> Result<Option<Account>, Fault> {
        let account = self.account_as_typed(email).await?;
        let hash = account.as_ref().map(|account| account.password.clone());
        let same = self.passwords.matches(password, hash).await?;
        Ok(account.filter(|account| same && !account.locked))
    }
    /// People type their address with capitals or without; the account has it as the sender wrote
    /// it. As typed comes first; else the one account that it can mean.
    pub(super) async fn account_as_typed(&self, email: &str) -> Result<Option<Account>, Fault> {
        let Ok(address) = email.parse::<Address>() else { return Ok(None) };
        let exact = self.vault.people.account(&address).await?;
        if exact.is_some() {
            return Ok(exact);
        }
        let mut alike = self.vault.people.accounts_like(&address).await?;
        Ok(if alike.len() == 1 { alike.pop() } else { None })
    }
    /// The first factor was right: signed in, or asked for the second.
    pub(super) async fn enter(
        &self,
        visitor: &Visitor,
        account: Account,
        wants: Option<GrantId>,
    ) -> Answer {
        if account.second_factor().is_none() {
            return self.let_in(visitor, account, wants).await;
        }
        let mut fresh = self.fresh(visitor);
        fresh.session.half = Some((account.address, account.generation));
        fresh.session.wants = wants;
        self.begin(fresh, visitor.session.as_ref(), "/login").await
    }
    /// Signs in; on to the message whose link led here, if it is this account's.
    pub(super) async fn let_in(
        &self,
        visitor: &Visitor,
        account: Account,
        wants: Option<GrantId>,
    ) -> Answer {
        let wanted = match wants {
            Some(id) => self.vault.people.grant(id).await?.filter(|grant| account.holds(grant)),
            None => None,
        };
        let to = wanted.as_ref().map_or_else(|| "/inbox".to_owned(), to_message);
        let mut fresh = self.fresh(visitor);
        fresh.session.account = Some((account.address, account.generation));
        self.begin(fresh, visitor.session.as_ref(), &to).await
    }
}

/// `POST /logout`
pub(super) async fn logout(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
) -> Answer {
    if let Some(session) = &visitor.session {
        desk.vault.people.remove_session(&session.id).await?;
    }
    let mut answer = desk.ended("/login")?;
    // Nor does the way back show what was read: pages that the browser holds in memory end too.
    answer
        .headers_mut()
        .insert("clear-site-data", HeaderValue::from_static("\"cache\", \"storage\""));
    Ok(answer)
}
