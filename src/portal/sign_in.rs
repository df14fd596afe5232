//! From the notice's link to a session: registration, the mailed code, sign-in, sign-out.
use super::{
    Desk, Fault,
    form::{Errors, Form, Registration, SignIn, Typed, fault_of_name},
    pages::retry_after,
    password,
    session::Visitor,
    show,
    throttle::client_key,
};
use crate::{
    mail::{Address, QueueId, notice::CodeMail},
    seal::{Class, LinkToken, MessageFacts, TokenHash, header::Needs},
    store::{Account, Code, Grant, GrantState, Session},
};
use axum::{
    Extension,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use jiff::{SignedDuration, Timestamp};
use minijinja::context;
use std::sync::Arc;
use zeroize::Zeroizing;

/// A mailed code's minutes.
const CODE_MINUTES: u32 = 15;
/// Its tries.
const CODE_TRIES: u8 = 10;

type Answer = Result<Response, Fault>;

/// Whether a grant still opens.
fn live(grant: &Grant, now: Timestamp) -> bool {
    grant.state == GrantState::Live && now < grant.expires
}
fn to_message(grant: &Grant) -> String {
    format!("/inbox/{}", grant.id)
}

impl Desk {
    /// The grant of a link's token.
    async fn grant_of(&self, token: &str) -> Result<Option<Grant>, Fault> {
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
        self.pages.answer(status, "login.html", "Sign in", visitor.name().as_deref(), values)
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
        let me = visitor.name();
        self.pages.answer(status, "register.html", "Open your message", me.as_deref(), values)
    }
    fn verify_page(&self, status: StatusCode, code: &Code, errors: &Errors) -> Answer {
        let address = code.account.address.to_string();
        let usable = code.tries > 0 && self.now() < code.until;
        let values = context! { errors => errors.to_value(), address => address, usable => usable };
        self.pages.answer(status, "verify.html", "Check your mail", None, values)
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
    let mine = visitor.account.as_ref().map(|account| account.address == grant.recipient);
    if !live(&grant, desk.now()) {
        let known = if mine == Some(false) { StatusCode::NOT_FOUND } else { StatusCode::GONE };
        return Err(Fault::Status(known));
    }
    if mine == Some(true) {
        return Ok(Redirect::to(&to_message(&grant)).into_response());
    }
    if desk.vault.people.account(&grant.recipient).await?.is_some() {
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
    if !live(&grant, now) {
        return Err(Fault::Status(StatusCode::GONE));
    }
    if desk.vault.people.account(&grant.recipient).await?.is_some() {
        return Ok(Redirect::to(&format!("/m/{}", form.token)).into_response());
    }
    let errors = faults_of(&form, &grant.recipient);
    let again = |status, errors: &Errors| {
        desk.register_page(status, &visitor, &grant.recipient, &form, errors)
    };
    if !errors.none() {
        return again(StatusCode::UNPROCESSABLE_ENTITY, &errors);
    }
    let keys = [format!("code {}", grant.recipient)];
    if let Some(wait) = desk.codes.wait(&keys, now) {
        let text = format!(
            "Many codes have been mailed to you already. Please wait {} and try again.",
            show::wait(wait.as_secs())
        );
        let page = again(StatusCode::TOO_MANY_REQUESTS, &Errors::of("", text))?;
        return Ok(retry_after(page, wait.as_secs()));
    }
    desk.codes.count(&keys, now);
    desk.send_code(&visitor, &grant, form).await
}

fn faults_of(form: &Registration, address: &Address) -> Errors {
    let mut errors = Errors::default();
    errors.add_if("first_name", fault_of_name(&form.first_name, "Type your first name."));
    errors.add_if("last_name", fault_of_name(&form.last_name, "Type your last name."));
    let weak = password::fault_of(form.password.expose(), address);
    errors.add_if("password", weak);
    if weak.is_none() && form.password.expose() != form.password_confirm.expose() {
        errors.add("password_confirm", "The two passwords are not the same. Type both again.");
    }
    if form.accept_terms.is_empty() {
        errors.add("accept_terms", "Accept the terms of use to go on.");
    }
    errors
}

impl Desk {
    /// Mails the code and begins the one session that may type it. No account is written before the
    /// mailbox has proved to be the visitor's.
    async fn send_code(&self, visitor: &Visitor, grant: &Grant, form: Registration) -> Answer {
        let now = self.now();
        let account = Account {
            address: grant.recipient.clone(),
            generation: rand::random(),
            first_name: form.first_name.trim().to_owned(),
            last_name: form.last_name.trim().to_owned(),
            password: self.passwords.hash(form.password.into_inner()).await?,
            created: now,
            locked: false,
        };
        let code = Zeroizing::new(format!("{:06}", rand::random_range(0..1_000_000_u32)));
        let mut fresh = self.fresh();
        fresh.session.wants = Some(grant.id);
        fresh.session.pending = Some(Code {
            hash: TokenHash::of_code(&code, fresh.session.id.as_bytes()),
            until: now + SignedDuration::from_mins(CODE_MINUTES.into()),
            tries: CODE_TRIES,
            account,
        });
        self.mail_code(&grant.recipient, &code).await?;
        self.begin(fresh, visitor.session.as_ref(), "/verify").await
    }
    async fn mail_code(&self, recipient: &Address, code: &str) -> Result<(), Fault> {
        let at = self.now();
        let millis = u64::try_from(at.as_millisecond()).unwrap_or_default();
        let id = QueueId::new(millis, rand::random());
        let notices = &self.vault.notices;
        let mail = CodeMail { recipient, code, minutes: CODE_MINUTES, at, id };
        let message = Zeroizing::new(notices.templates.code(&notices.head, &mail)?);
        let needs = Needs {
            eight_bit: !message.is_ascii(),
            smtputf8: recipient.needs_smtputf8(),
            require_tls: false,
        };
        let facts = MessageFacts::own(id, Class::Code, at, needs);
        let sealed = self.vault.seal_own(facts, vec![recipient.clone()], &message)?;
        self.vault.queue.accept(sealed).await?;
        tracing::info!(%id, "portal: a registration code was mailed");
        Ok(())
    }
}

/// `GET /verify`
pub(super) async fn verify_form(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
) -> Answer {
    let Some(code) = visitor.session.as_ref().and_then(|session| session.pending.as_ref()) else {
        let to = if visitor.account.is_some() { "/inbox" } else { "/login" };
        return Ok(Redirect::to(to).into_response());
    };
    let errors = over(code, desk.now()).unwrap_or_default();
    desk.verify_page(StatusCode::OK, code, &errors)
}

/// What to say of a code that can't be used any more.
fn over(code: &Code, now: Timestamp) -> Option<Errors> {
    let text = if code.tries == 0 {
        "There were too many wrong tries. Open the link in the notice again to get a new code."
    } else if now >= code.until {
        "The time for this code is over. Open the link in the notice again to get a new one."
    } else {
        return None;
    };
    Some(Errors::of("", text))
}

/// `POST /verify`
pub(super) async fn verify(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Form(form): Form<Typed>,
) -> Answer {
    let Some(id) = visitor.session.as_ref().map(|session| session.id) else {
        return Ok(Redirect::to("/login").into_response());
    };
    let _turn = desk.verifying.lock().await;
    // Read again now that it is our turn: another request may just have used up a try.
    let mut session = desk.vault.people.session(&id).await?;
    let Some((session, mut code)) = session.take().and_then(|mut session| {
        let code = session.pending.take()?;
        Some((session, code))
    }) else {
        return Ok(Redirect::to("/login").into_response());
    };
    if let Some(errors) = over(&code, desk.now()) {
        return desk.verify_page(StatusCode::UNPROCESSABLE_ENTITY, &code, &errors);
    }
    let typed: String = form.code.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
    let hash = TokenHash::of_code(&typed, session.id.as_bytes());
    if hash.same(&code.hash) {
        return desk.admit(&session, code.account).await;
    }
    code.tries = code.tries.saturating_sub(1);
    let errors = over(&code, desk.now())
        .unwrap_or_else(|| Errors::of("code", "This is not the code. Look at the newest mail."));
    let page = desk.verify_page(StatusCode::UNPROCESSABLE_ENTITY, &code, &errors);
    desk.vault.people.put_session(&Session { pending: Some(code), ..session }).await?;
    page
}

impl Desk {
    /// The mailbox has proved itself: the account comes into being and is signed in.
    async fn admit(&self, session: &Session, account: Account) -> Answer {
        if self.vault.people.account(&account.address).await?.is_some() {
            // Another browser was faster; that account stands.
            self.vault.people.remove_session(&session.id).await?;
            return self.ended("/login");
        }
        self.vault.people.put_account(&account).await?;
        tracing::info!(account = %account.address, "portal: an account was registered");
        let to = session.wants.map_or_else(|| "/inbox".to_owned(), |id| format!("/inbox/{id}"));
        let mut fresh = self.fresh();
        fresh.session.account = Some((account.address, account.generation));
        self.begin(fresh, Some(session), &to).await
    }
}

/// `GET /login`
pub(super) async fn login_form(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
) -> Answer {
    if visitor.account.is_some() {
        return Ok(Redirect::to("/inbox").into_response());
    }
    desk.login_page(StatusCode::OK, &visitor, &SignIn::default(), &Errors::default())
}

/// `POST /login`
pub(super) async fn login(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Form(mut form): Form<SignIn>,
) -> Answer {
    form.email = form.email.trim().chars().take(320).collect();
    let mut errors = Errors::default();
    errors.add_if("email", form.email.is_empty().then_some("Type your e-mail address."));
    let missing = form.password.expose().is_empty();
    errors.add_if("password", missing.then_some("Type your password."));
    if !errors.none() {
        return desk.login_page(StatusCode::UNPROCESSABLE_ENTITY, &visitor, &form, &errors);
    }
    let own = format!("account {}", form.email.to_lowercase());
    let keys: Vec<String> =
        std::iter::once(own.clone()).chain(visitor.client.map(client_key)).collect();
    let now = desk.now();
    if let Some(wait) = desk.sign_ins.wait(&keys, now) {
        return desk.please_wait(&visitor, &form, wait);
    }
    desk.sign_ins.count(&keys, now);
    let password = std::mem::take(&mut form.password).into_inner();
    match desk.recognised(&form.email, password).await? {
        Some(account) => {
            desk.sign_ins.forgive(&own, &keys);
            desk.signed_in(&visitor, account, &form.token).await
        }
        None => {
            let text = "The address and the password do not belong together. Check both.";
            let errors = Errors::of("password", text);
            desk.login_page(StatusCode::UNPROCESSABLE_ENTITY, &visitor, &form, &errors)
        }
    }
}

impl Desk {
    fn please_wait(&self, visitor: &Visitor, form: &SignIn, wait: SignedDuration) -> Answer {
        let seconds = wait.as_secs();
        let text = format!(
            "There were too many wrong tries. Please wait {} and try again.",
            show::wait(seconds)
        );
        let errors = Errors::of("", text);
        let page = self.login_page(StatusCode::TOO_MANY_REQUESTS, visitor, form, &errors)?;
        Ok(retry_after(page, seconds))
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
    async fn account_as_typed(&self, email: &str) -> Result<Option<Account>, Fault> {
        let Ok(address) = email.parse::<Address>() else { return Ok(None) };
        let exact = self.vault.people.account(&address).await?;
        if exact.is_some() {
            return Ok(exact);
        }
        let mut alike = self.vault.people.accounts_like(&address).await?;
        Ok(if alike.len() == 1 { alike.pop() } else { None })
    }
    async fn signed_in(&self, visitor: &Visitor, account: Account, token: &str) -> Answer {
        let wanted = self.grant_of(token).await?.filter(|g| g.recipient == account.address);
        let to = wanted.as_ref().map_or_else(|| "/inbox".to_owned(), to_message);
        let mut fresh = self.fresh();
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
    desk.ended("/login")
}
