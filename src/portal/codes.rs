//! Mailed codes: six digits, for one browser session, a quarter of an hour and ten tries.
//!
//! Whether an address has an account shows in no answer and in no answer's time: who asks for a code
//! is answered before anybody looks.
use super::{
    Desk, Fault,
    form::{Errors, Form, Typed},
    pages::retry_after,
    session::{Fresh, Visitor},
    throttle::{client_key, keys_of, mailbox_keys},
};
use crate::{
    language::{Language, Text, say},
    mail::{Address, GrantId},
    seal::TokenHash,
    store::{Account, Code, Purpose, Session},
    vault::CODE_MINUTES,
};
use axum::{
    Extension,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use jiff::{SignedDuration, Timestamp};
use minijinja::context;
use std::sync::Arc;
use zeroize::Zeroizing;

/// A code's tries.
const TRIES: u8 = 10;
/// Mails that are being written while their askers have their answer already.
pub(super) const MAILS_AT_ONCE: usize = 64;

type Answer = Result<Response, Fault>;

/// What became of a typed code.
pub(super) enum Redeemed {
    /// It is the one; it is used up now.
    Right(Box<(Session, Code)>),
    /// It is not, or no more; with what to say.
    Wrong(Box<Code>, Errors),
    /// Too many wrong ones: for so long none is looked at.
    Wait(Box<Code>, SignedDuration),
    /// This browser awaits no code.
    None,
}
/// What became of the wish for a code.
pub(super) enum Asked {
    /// The session that may type it has begun.
    Sent(Response),
    /// Too many were asked for.
    Wait(SignedDuration),
}

/// What to say of a code that can't be used any more.
fn over(code: &Code, now: Timestamp) -> Option<Errors> {
    let text = match (code.tries, now >= code.until) {
        (0, _) => say!("There were too many wrong tries. Ask for a new code."),
        (_, true) => say!("The time for this code is over. Ask for a new one."),
        (_, false) => return None,
    };
    Some(Errors::of("", text))
}

impl Desk {
    /// A new code that this session awaits.
    pub(super) fn await_code(
        &self,
        session: &mut Session,
        account: Account,
        purpose: Purpose,
    ) -> Zeroizing<String> {
        let code = Zeroizing::new(format!("{:06}", rand::random_range(0..1_000_000_u32)));
        session.pending = Some(Code {
            hash: TokenHash::of_code(&code, session.id.as_bytes()),
            until: self.now() + SignedDuration::from_mins(CODE_MINUTES.into()),
            tries: TRIES,
            account,
            purpose,
        });
        code
    }
    /// Begins the session that may type a code, and mails one if the address has an account. The
    /// answer neither knows nor waits for the second.
    pub(super) async fn ask_code(
        self: &Arc<Self>,
        visitor: &Visitor,
        address: Address,
        purpose: Purpose,
        wants: Option<GrantId>,
    ) -> Result<Asked, Fault> {
        let now = self.now();
        let mut keys = mailbox_keys(&code_key(&address), visitor.client);
        keys.extend(visitor.client.map(client_key));
        if let Some(wait) = self.codes.wait(&keys, now) {
            return Ok(Asked::Wait(wait));
        }
        self.codes.count(&keys, now);
        let Ok(permit) = Arc::clone(&self.mailing).try_acquire_owned() else {
            return Err(Fault::Status(StatusCode::SERVICE_UNAVAILABLE));
        };
        let mut fresh = self.fresh(visitor);
        fresh.session.wants = wants;
        let nobody = Account::new(address.clone(), rand::random(), now);
        let code = self.await_code(&mut fresh.session, nobody, purpose);
        let to = if purpose == Purpose::Reset { "/reset" } else { "/verify" };
        let answer = self.begin(fresh, visitor.session.as_ref(), to).await?;
        let desk = Arc::clone(self);
        let language = Arc::clone(&visitor.language);
        tokio::spawn(async move {
            if let Err(error) = desk.mail_to_owner(&address, &code, &language).await {
                tracing::error!(%error, "portal: a code could not be mailed");
            }
            drop(permit);
        });
        Ok(Asked::Sent(answer))
    }
    async fn mail_to_owner(
        &self,
        typed: &Address,
        code: &str,
        language: &Language,
    ) -> Result<(), Fault> {
        let account = self.account_as_typed(&typed.to_string()).await?;
        if let Some(account) = account.filter(|account| !account.locked) {
            let id = self.vault.mail_code(&account.address, code, language).await?;
            tracing::info!(%id, "portal: a code was mailed");
        }
        Ok(())
    }
    /// Holds a typed code against the one that this browser awaits. A right one is used up, a wrong
    /// one costs a try.
    pub(super) async fn redeem(
        &self,
        visitor: &Visitor,
        typed: &str,
        purposes: &[Purpose],
    ) -> Result<Redeemed, Fault> {
        let Some(id) = visitor.session.as_ref().map(|session| session.id) else {
            return Ok(Redeemed::None);
        };
        let _turn = self.verifying.lock().await;
        // Read again now that it is our turn: another request may just have used up a try.
        let Some(mut session) = self.vault.people.session(&id).await? else {
            return Ok(Redeemed::None);
        };
        let pending = session.pending.take().filter(|code| purposes.contains(&code.purpose));
        let Some(mut code) = pending else { return Ok(Redeemed::None) };
        let now = self.now();
        if let Some(errors) = over(&code, now) {
            return Ok(Redeemed::Wrong(Box::new(code), errors));
        }
        // One that would make an account has none to guess at yet.
        let guessing = code.purpose != Purpose::Register;
        let own = format!("guess {}", code.account.address.to_string().to_lowercase());
        let keys = keys_of(&own, visitor.client);
        if guessing {
            if let Some(wait) = self.sign_ins.wait(&keys, now) {
                return Ok(Redeemed::Wait(Box::new(code), wait));
            }
            self.sign_ins.count(&keys, now);
        }
        let typed: String = typed.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
        if TokenHash::of_code(&typed, session.id.as_bytes()).same(&code.hash) {
            if guessing {
                self.sign_ins.forgive(&own, &keys);
                let mut keys = mailbox_keys(&code_key(&code.account.address), visitor.client);
                keys.extend(visitor.client.map(client_key));
                if let Some(own) = keys.first() {
                    self.codes.forgive(own, &keys);
                }
                self.vault.people.put_session(&session).await?;
            }
            return Ok(Redeemed::Right(Box::new((session, code))));
        }
        code.tries = code.tries.saturating_sub(1);
        let errors = over(&code, now).unwrap_or_else(not_the_code);
        let kept = Session { pending: Some(code.clone()), ..session };
        self.vault.people.put_session(&kept).await?;
        Ok(Redeemed::Wrong(Box::new(code), errors))
    }
    /// The account that a right code was mailed to. Who guessed the code of an address without one
    /// learns nothing: it is wrong like any other.
    pub(super) async fn owner_of(&self, code: &Code) -> Result<Option<Account>, Fault> {
        let account = self.account_as_typed(&code.account.address.to_string()).await?;
        Ok(account.filter(|account| !account.locked))
    }
    fn verify_page(
        &self,
        status: StatusCode,
        visitor: &Visitor,
        code: &Code,
        errors: &Errors,
    ) -> Answer {
        let values = context! {
            errors => errors.to_value(),
            address => code.account.address.to_string(),
            usable => usable(code, self.now()),
            register => code.purpose == Purpose::Register,
        };
        self.pages.answer(status, "verify.html", say!("Check your mail"), visitor, values)
    }
    /// Another code in place of the one that this browser awaits, which is void then.
    async fn another_code(self: &Arc<Self>, visitor: &Visitor) -> Answer {
        let waiting = visitor.session.as_ref().and_then(|s| Some((s, s.pending.as_ref()?)));
        let Some((session, code)) = waiting else {
            return Ok(Redirect::to("/login").into_response());
        };
        let (account, wants) = (&code.account, session.wants);
        let asked = match code.purpose {
            Purpose::Register => self.register_again(visitor, account, wants).await?,
            Purpose::SignIn => {
                self.ask_code(visitor, account.address.clone(), Purpose::SignIn, wants).await?
            }
            Purpose::Reset => return Ok(Redirect::to("/reset").into_response()),
        };
        match asked {
            Asked::Sent(answer) => Ok(answer),
            Asked::Wait(wait) => {
                let status = StatusCode::TOO_MANY_REQUESTS;
                let page = self.verify_page(status, visitor, code, &many_codes(wait))?;
                Ok(retry_after(page, wait.as_secs()))
            }
        }
    }
    async fn sign_in_by_code(&self, visitor: &Visitor, session: Session, code: Code) -> Answer {
        match self.owner_of(&code).await? {
            Some(account) => self.enter(visitor, account, session.wants).await,
            None => {
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                self.verify_page(status, visitor, &code, &not_the_code())
            }
        }
    }
    /// The mailbox has proved itself: the account comes into being and is signed in.
    async fn admit(&self, visitor: &Visitor, session: &Session, account: Account) -> Answer {
        if !self.vault.people.change_account(None, &account).await? {
            // Another browser was faster; that account stands.
            self.vault.people.remove_session(&session.id).await?;
            return self.ended("/login");
        }
        let domain = account.address.domain();
        tracing::info!(%domain, "portal: an account was registered");
        let to = session.wants.map_or_else(|| "/inbox".to_owned(), |id| format!("/inbox/{id}"));
        let mut fresh: Fresh = self.fresh(visitor);
        fresh.session.account = Some((account.address, account.generation));
        self.begin(fresh, Some(session), &to).await
    }
}

/// By mailbox: however its address is typed, it gets no more codes.
pub(super) fn code_key(address: &Address) -> String {
    format!("code {}", address.to_string().to_lowercase())
}
pub(super) fn usable(code: &Code, now: Timestamp) -> bool {
    code.tries > 0 && now < code.until
}
pub(super) fn not_the_code() -> Errors {
    Errors::of("code", say!("This is not the code. Look at the newest mail."))
}
/// What to say to whom a delay has caught.
pub(super) fn please_wait(wait: SignedDuration) -> Errors {
    let wait = Text::Wait(wait.as_secs());
    let text =
        say!("There were too many wrong tries. Please wait {wait} and try again.", wait = wait);
    Errors::of("", text)
}
pub(super) fn many_codes(wait: SignedDuration) -> Errors {
    let wait = Text::Wait(wait.as_secs());
    let text = say!(
        "Many codes have been mailed to you already. Please wait {wait} and try again.",
        wait = wait
    );
    Errors::of("", text)
}

/// `GET /verify`
pub(super) async fn verify_form(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
) -> Answer {
    let pending = visitor.session.as_ref().and_then(|session| session.pending.as_ref());
    match pending.map(|code| (code, code.purpose)) {
        Some((code, Purpose::Register | Purpose::SignIn)) => {
            let errors = over(code, desk.now()).unwrap_or_default();
            desk.verify_page(StatusCode::OK, &visitor, code, &errors)
        }
        Some((_, Purpose::Reset)) => Ok(Redirect::to("/reset").into_response()),
        None if visitor.account.is_some() => Ok(Redirect::to("/inbox").into_response()),
        None => Ok(Redirect::to("/login").into_response()),
    }
}

/// `POST /verify`: with `again` another code is mailed.
pub(super) async fn verify(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Form(form): Form<Typed>,
) -> Answer {
    if !form.again.is_empty() {
        return desk.another_code(&visitor).await;
    }
    let purposes = [Purpose::Register, Purpose::SignIn];
    match desk.redeem(&visitor, &form.code, &purposes).await? {
        Redeemed::Right(right) => {
            let (session, code) = *right;
            match code.purpose {
                Purpose::Register => desk.admit(&visitor, &session, code.account).await,
                Purpose::SignIn | Purpose::Reset => {
                    desk.sign_in_by_code(&visitor, session, code).await
                }
            }
        }
        Redeemed::Wrong(code, errors) => {
            desk.verify_page(StatusCode::UNPROCESSABLE_ENTITY, &visitor, &code, &errors)
        }
        Redeemed::Wait(code, wait) => {
            let status = StatusCode::TOO_MANY_REQUESTS;
            let page = desk.verify_page(status, &visitor, &code, &please_wait(wait))?;
            Ok(retry_after(page, wait.as_secs()))
        }
        Redeemed::None => Ok(Redirect::to("/login").into_response()),
    }
}
