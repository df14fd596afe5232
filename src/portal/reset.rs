//! A forgotten password: a mailed code, then a new one.
use super::{
    Desk, Fault, codes,
    form::{Errors, Form, Reset, Secret, judge},
    pages::retry_after,
    session::Visitor,
};
use crate::{
    identity::{Asked, ResetForm, SignIn},
    language::say,
    mail::Address,
    store::{Code, Purpose},
};
use axum::{
    Extension,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use minijinja::context;
use std::sync::Arc;

type Answer = Result<Response, Fault>;

/// The code that this browser awaits for a new password.
fn awaited(visitor: &Visitor) -> Option<&Code> {
    let pending = visitor.session.as_ref().and_then(|session| session.pending.as_ref());
    pending.filter(|code| code.purpose == Purpose::Reset)
}

impl Desk {
    fn reset_page(
        &self,
        status: StatusCode,
        visitor: &Visitor,
        (email, token): (&str, &str),
        errors: &Errors,
    ) -> Answer {
        let values = context! { errors => errors.to_value(), email => email, token => token };
        self.pages.answer(status, "reset.html", say!("Forgotten password"), visitor, values)
    }
    fn new_password_page(
        &self,
        status: StatusCode,
        visitor: &Visitor,
        (code, typed): (&Code, &str),
        errors: &Errors,
    ) -> Answer {
        let values = context! {
            errors => errors.to_value(), code => typed,
            address => code.account.address.to_string(), usable => codes::usable(code, self.now()),
            keeps_factors => self.identity.second_required(),
        };
        self.pages.answer(status, "new-password.html", say!("A new password"), visitor, values)
    }
    /// The first step: which address?
    async fn ask_reset(&self, visitor: &Visitor, form: &Reset) -> Answer {
        let email: String = form.email.trim().chars().take(320).collect();
        let filled = (email.as_str(), form.token.expose());
        let again = |status, errors: &Errors| self.reset_page(status, visitor, filled, errors);
        let Ok(address) = email.parse::<Address>() else {
            let text = if email.is_empty() {
                say!("Type your e-mail address.")
            } else {
                say!("This is no e-mail address. Type it as in ann@example.org.")
            };
            return again(StatusCode::UNPROCESSABLE_ENTITY, &Errors::of("email", text));
        };
        // Another code is asked for on the way that the first one was.
        let earlier = || awaited(visitor).and(visitor.session.as_ref()?.wants);
        let link = self.grant_of(form.token.expose()).await?.map(|grant| grant.id).or_else(earlier);
        let (browser, way) = (visitor.browser(), (link, &visitor.language));
        match self.identity.ask_code(&browser, address, Purpose::Reset, way).await? {
            Asked::Sent(begun) => self.begun(&begun, "/reset"),
            Asked::Wait(wait) => {
                let page = again(StatusCode::TOO_MANY_REQUESTS, &codes::many_codes(wait))?;
                Ok(retry_after(page, wait.as_secs()))
            }
            Asked::Doubt => again(StatusCode::UNPROCESSABLE_ENTITY, &codes::doubt()),
            Asked::Gone | Asked::Registered => Ok(Redirect::to("/reset").into_response()),
        }
    }
    /// The second step: the code, and the new password twice.
    async fn redeem_reset(&self, visitor: &Visitor, form: Reset, awaited: &Code) -> Answer {
        let errors = faults_of(&form, &awaited.account.address, &self.settings.organization);
        let (wrong, later) = (StatusCode::UNPROCESSABLE_ENTITY, StatusCode::TOO_MANY_REQUESTS);
        if !errors.none() {
            let typed = form.code.as_ref().map(Secret::expose).unwrap_or_default();
            return self.new_password_page(wrong, visitor, (awaited, typed), &errors);
        }
        let kept = !form.keep_passkeys.is_empty();
        let form = ResetForm {
            code: form.code.unwrap_or_default().into_inner(),
            password: form.password.into_inner(),
            keep_passkeys: kept,
        };
        match self.identity.reset(&visitor.browser(), form).await? {
            // What else lets in is listed there.
            Ok(SignIn::In(begun)) if kept => self.begun(&begun, "/account?done=reset"),
            Ok(SignIn::In(begun)) => self.let_in(&begun),
            Ok(SignIn::Second(begun)) => self.begun(&begun, "/login"),
            Ok(SignIn::Wrong) => self.ended("/login"),
            Ok(SignIn::Wait(wait)) => {
                let errors = codes::please_wait(wait);
                let page = self.new_password_page(later, visitor, (awaited, ""), &errors)?;
                Ok(retry_after(page, wait.as_secs()))
            }
            Err(state) => {
                let errors = codes::not_this(state);
                self.new_password_page(wrong, visitor, (awaited, ""), &errors)
            }
        }
    }
}

fn faults_of(form: &Reset, address: &Address, organization: &str) -> Errors {
    let mut errors = Errors::default();
    let missing = form.code.as_ref().map(Secret::expose).unwrap_or_default().trim().is_empty();
    errors.add_if("code", missing.then(|| say!("Type the code from the mail.")));
    judge(&mut errors, (&form.password, &form.password_confirm), address, &[organization]);
    errors
}

/// `GET /reset`
pub(super) async fn form(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Query(filled): Query<Reset>,
) -> Answer {
    match awaited(&visitor) {
        Some(code) => {
            let filled = filled.code.unwrap_or_default().filled();
            desk.new_password_page(StatusCode::OK, &visitor, (code, &filled), &Errors::default())
        }
        None => {
            let own = visitor.name().unwrap_or_default();
            desk.reset_page(StatusCode::OK, &visitor, (&own, ""), &Errors::default())
        }
    }
}

/// `GET /m/TOKEN/reset`: the same of whoever came by a notice's link, which has a budget of its own.
pub(super) async fn linked(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Path(token): Path<String>,
) -> Answer {
    let Some(grant) = desk.grant_of(&token).await? else {
        return Err(Fault::Status(StatusCode::NOT_FOUND));
    };
    let filled = (&*grant.mailbox().to_string(), &*token);
    desk.reset_page(StatusCode::OK, &visitor, filled, &Errors::default())
}

/// `POST /reset`: with `code` the second step, without it the first.
pub(super) async fn reset(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Form(form): Form<Reset>,
) -> Answer {
    if form.code.is_none() {
        return desk.ask_reset(&visitor, &form).await;
    }
    match awaited(&visitor) {
        Some(code) => desk.redeem_reset(&visitor, form, code).await,
        None => {
            let text = say!("This browser awaits no code. Ask for one first.");
            let errors = Errors::of("email", text);
            let filled = (&*form.email, "");
            desk.reset_page(StatusCode::UNPROCESSABLE_ENTITY, &visitor, filled, &errors)
        }
    }
}
