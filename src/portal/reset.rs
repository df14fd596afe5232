//! A forgotten password: a mailed code, then a new one. All other sessions end, and the mailbox is
//! told.
use super::{
    Desk, Fault,
    codes::{self, Asked, Redeemed},
    form::{Errors, Form, Reset},
    pages::retry_after,
    password,
    session::Visitor,
};
use crate::{
    language::say,
    mail::Address,
    store::{Account, Code, Purpose},
    vault::Change,
};
use axum::{
    Extension,
    extract::State,
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
        email: &str,
        errors: &Errors,
    ) -> Answer {
        let values = context! { errors => errors.to_value(), email => email };
        self.pages.answer(status, "reset.html", say!("Forgotten password"), visitor, values)
    }
    fn new_password_page(
        &self,
        status: StatusCode,
        visitor: &Visitor,
        code: &Code,
        typed: &str,
        errors: &Errors,
    ) -> Answer {
        let values = context! {
            errors => errors.to_value(), code => typed,
            address => code.account.address.to_string(), usable => codes::usable(code, self.now()),
        };
        self.pages.answer(status, "new-password.html", say!("A new password"), visitor, values)
    }
    /// The first step: who?
    async fn ask_reset(self: &Arc<Self>, visitor: &Visitor, email: &str) -> Answer {
        let email: String = email.trim().chars().take(320).collect();
        let again = |status, errors: &Errors| self.reset_page(status, visitor, &email, errors);
        let Ok(address) = email.parse::<Address>() else {
            let text = if email.is_empty() {
                say!("Type your e-mail address.")
            } else {
                say!("This is no e-mail address. Type it as in ann@example.org.")
            };
            return again(StatusCode::UNPROCESSABLE_ENTITY, &Errors::of("email", text));
        };
        match self.ask_code(visitor, address, Purpose::Reset, None).await? {
            Asked::Sent(answer) => Ok(answer),
            Asked::Wait(wait) => {
                let page = again(StatusCode::TOO_MANY_REQUESTS, &codes::many_codes(wait))?;
                Ok(retry_after(page, wait.as_secs()))
            }
        }
    }
    /// The second step: the code, and the new password twice.
    async fn redeem_reset(&self, visitor: &Visitor, form: Reset, awaited: &Code) -> Answer {
        let typed = form.code.clone().unwrap_or_default();
        let errors = faults_of(&form, &awaited.account.address);
        if !errors.none() {
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            return self.new_password_page(status, visitor, awaited, &typed, &errors);
        }
        match self.redeem(visitor, &typed, &[Purpose::Reset]).await? {
            Redeemed::Right(right) => {
                let (_, code) = *right;
                match self.owner_of(&code).await? {
                    Some(account) => self.renew(visitor, &code, account, form).await,
                    None => self.not_this(visitor, &code, &codes::not_the_code()),
                }
            }
            Redeemed::Wrong(code, errors) => self.not_this(visitor, &code, &errors),
            Redeemed::Wait(code, wait) => {
                let (status, errors) = (StatusCode::TOO_MANY_REQUESTS, codes::please_wait(wait));
                let page = self.new_password_page(status, visitor, &code, "", &errors)?;
                Ok(retry_after(page, wait.as_secs()))
            }
            Redeemed::None => Ok(Redirect::to("/reset").into_response()),
        }
    }
    fn not_this(&self, visitor: &Visitor, code: &Code, errors: &Errors) -> Answer {
        self.new_password_page(StatusCode::UNPROCESSABLE_ENTITY, visitor, code, "", errors)
    }
    async fn renew(&self, visitor: &Visitor, code: &Code, account: Account, form: Reset) -> Answer {
        let password = form.password.into_inner();
        let changed = self.renew_password(&account, password, None, Change::Reset).await?;
        let Some(account) = changed else { return self.ended("/login") };
        for typed in [&code.account.address, &account.address] {
            self.sign_ins.forgive(&format!("account {}", typed.to_string().to_lowercase()), &[]);
        }
        tracing::info!(domain = %account.address.domain(), "portal: a password was reset");
        self.enter(visitor, account, None).await
    }
}

fn faults_of(form: &Reset, address: &Address) -> Errors {
    let mut errors = Errors::default();
    let missing = form.code.as_deref().unwrap_or_default().trim().is_empty();
    errors.add_if("code", missing.then(|| say!("Type the code from the mail.")));
    password::judge(&mut errors, &form.password, &form.password_confirm, address);
    errors
}

/// `GET /reset`
pub(super) async fn form(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
) -> Answer {
    match awaited(&visitor) {
        Some(code) => {
            desk.new_password_page(StatusCode::OK, &visitor, code, "", &Errors::default())
        }
        None => {
            let own = visitor.name().unwrap_or_default();
            desk.reset_page(StatusCode::OK, &visitor, &own, &Errors::default())
        }
    }
}

/// `POST /reset`: with `code` the second step, without it the first.
pub(super) async fn reset(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Form(form): Form<Reset>,
) -> Answer {
    if form.code.is_none() {
        return desk.ask_reset(&visitor, &form.email).await;
    }
    match awaited(&visitor) {
        Some(code) => desk.redeem_reset(&visitor, form, code).await,
        None => {
            let text = say!("This browser awaits no code. Ask for one first.");
            let errors = Errors::of("email", text);
            desk.reset_page(StatusCode::UNPROCESSABLE_ENTITY, &visitor, &form.email, &errors)
        }
    }
}
