//! Mailed codes, as they are typed at `/verify`.
use super::{
    Desk, Fault,
    form::{Errors, Form, Secret, Typed},
    pages::retry_after,
    session::Visitor,
};
use crate::{
    identity::{Asked, CodeState, SignIn, Verified},
    language::{Text, say},
    store::{Code, Purpose},
};
use axum::{
    Extension,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use jiff::{SignedDuration, Timestamp};
use minijinja::context;
use serde::Deserialize;
use std::sync::Arc;

type Answer = Result<Response, Fault>;

/// `GET /verify`: a link in the mail of a long code fills it in.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Filled {
    code: Secret,
}

impl Desk {
    fn verify_page(
        &self,
        status: StatusCode,
        visitor: &Visitor,
        (code, filled): (&Code, &str),
        errors: &Errors,
    ) -> Answer {
        let values = context! {
            errors => errors.to_value(), code => filled,
            address => code.account.address.to_string(),
            usable => usable(code, self.now()),
            register => code.purpose == Purpose::Register,
        };
        self.pages.answer(status, "verify.html", say!("Check your mail"), visitor, values)
    }
    /// What becomes of a code that does not let in.
    async fn verify_again(&self, visitor: &Visitor, status: StatusCode, errors: &Errors) -> Answer {
        // As it is now: the try has cost one.
        let session = match &visitor.session {
            Some(session) => self.vault.people.session(&session.id).await?,
            None => None,
        };
        match session.and_then(|session| session.pending) {
            Some(code) => self.verify_page(status, visitor, (&code, ""), errors),
            None => Ok(Redirect::to("/login").into_response()),
        }
    }
    /// Another code in place of the one that this browser awaits, which is void then.
    async fn another_code(&self, visitor: &Visitor) -> Answer {
        match self.identity.another_code(&visitor.browser(), &visitor.language).await? {
            Some(Asked::Sent(begun)) => self.begun(&begun, "/verify"),
            Some(Asked::Wait(wait)) => {
                let (status, errors) = (StatusCode::TOO_MANY_REQUESTS, many_codes(wait));
                let page = self.verify_again(visitor, status, &errors).await?;
                Ok(retry_after(page, wait.as_secs()))
            }
            Some(Asked::Gone) => Err(Fault::Status(StatusCode::GONE)),
            Some(Asked::Doubt) => {
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                self.verify_again(visitor, status, &doubt()).await
            }
            Some(Asked::Registered) | None => Ok(Redirect::to("/login").into_response()),
        }
    }
}

/// Why a code can't be used any more.
fn over(state: CodeState) -> Option<Errors> {
    let text = match state {
        CodeState::Awaited => return None,
        CodeState::Spent => say!("There were too many wrong tries. Ask for a new code."),
        CodeState::Late => say!("The time for this code is over. Ask for a new one."),
        CodeState::Doubt => return Some(doubt()),
    };
    Some(Errors::of("", text))
}
/// What to say where a mailed code proves nothing.
pub(super) fn doubt() -> Errors {
    let text = say!(
        "At the moment mail to your address may be read on its way, so a mailed code is not enough. \
         Sign in with your password or a passkey, or ask the sender or our helpdesk."
    );
    Errors::of("", text)
}
/// What to say of a code that is not the one.
pub(super) fn not_this(state: CodeState) -> Errors {
    over(state).unwrap_or_else(|| {
        Errors::of(
            "code",
            say!("This is not the code. Look at the newest mail, or ask for a new one."),
        )
    })
}
pub(super) fn usable(code: &Code, now: Timestamp) -> bool {
    CodeState::of(code, now) == CodeState::Awaited
}
/// What to say to a visitor whom a budget has caught.
pub(super) fn please_wait(wait: SignedDuration) -> Errors {
    Errors::of("", wait_words(wait))
}
pub(super) fn wait_words(wait: SignedDuration) -> Text {
    let wait = Text::Wait(wait.as_secs());
    say!("There were too many wrong tries. Please wait {wait} and try again.", wait = wait)
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
    Query(filled): Query<Filled>,
) -> Answer {
    let pending = visitor.session.as_ref().and_then(|session| session.pending.as_ref());
    let filled = filled.code.filled();
    match pending.map(|code| (code, code.purpose)) {
        Some((code, Purpose::Register | Purpose::SignIn)) => {
            let errors = over(CodeState::of(code, desk.now())).unwrap_or_default();
            desk.verify_page(StatusCode::OK, &visitor, (code, &filled), &errors)
        }
        Some((_, Purpose::Reset)) => {
            let to = if filled.is_empty() {
                "/reset".to_owned()
            } else {
                format!("/reset?code={}", *filled)
            };
            Ok(Redirect::to(&to).into_response())
        }
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
    let (later, wrong) = (StatusCode::TOO_MANY_REQUESTS, StatusCode::UNPROCESSABLE_ENTITY);
    match desk.identity.verify(&visitor.browser(), form.code.expose()).await? {
        Verified::In(SignIn::In(begun)) => desk.let_in(&begun),
        Verified::In(SignIn::Second(begun)) | Verified::Known(begun) => {
            desk.begun(&begun, "/login")
        }
        Verified::Wrong(CodeState::Doubt) => {
            let form = super::form::SignIn::default();
            desk.login_page(wrong, &visitor, &form, &doubt())
        }
        Verified::Wrong(state) => desk.verify_again(&visitor, wrong, &not_this(state)).await,
        Verified::In(SignIn::Wait(wait)) | Verified::Wait(wait) => {
            let page = desk.verify_again(&visitor, later, &please_wait(wait)).await?;
            Ok(retry_after(page, wait.as_secs()))
        }
        Verified::In(SignIn::Wrong) => desk.ended("/login"),
        Verified::None => Ok(Redirect::to("/login").into_response()),
    }
}
