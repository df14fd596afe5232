//! Passkeys' pages. They are the one thing here that needs a script, on pages of their own.
use super::{
    Desk, Fault, codes,
    form::Errors,
    pages::{self, retry_after},
    session::{self, Visitor},
    show,
};
use crate::{
    identity::{Assertion, Attestation, NewPasskey, SignIn},
    language::{Text, say},
    store::{Account, Passkey},
};
use axum::{
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use data_encoding::BASE64URL_NOPAD;
use minijinja::{Value, context};

/// The pages that talk to the device: our own script, and that is all.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

type Answer = Result<Response, Fault>;

/// `GET /assets/passkey.js`
pub(super) async fn script() -> Response {
    pages::script(include_str!("assets/passkey.js"))
}

/// An account's passkeys as its page shows them.
pub(super) fn listed(account: &Account) -> Value {
    let line = |passkey: &Passkey| {
        context! {
            id => &passkey.id, name => &passkey.name, created => show::day(passkey.created),
            used => passkey.used.map_or_else(|| Value::from(""), show::moment),
        }
    };
    account.passkeys.iter().map(line).collect()
}

fn with_script(page: Response) -> Response {
    pages::with_policy(page, CSP)
}

impl Desk {
    /// Where a passkey signs in: by itself, or as the second factor of a browser that has shown the
    /// first.
    pub(super) async fn passkey_page(
        &self,
        status: StatusCode,
        visitor: &Visitor,
        errors: &Errors,
    ) -> Answer {
        if self.identity.half_in(&visitor.browser()).await?.is_some() {
            return self.second_passkey_page(status, visitor, errors);
        }
        let title = say!("Sign in with a passkey");
        self.assertion_page(status, visitor, (title, "sign-in"), errors)
    }
    /// Where a passkey is the second factor of a sign-in.
    pub(super) fn second_passkey_page(
        &self,
        status: StatusCode,
        visitor: &Visitor,
        errors: &Errors,
    ) -> Answer {
        self.assertion_page(status, visitor, (say!("One more step"), "second"), errors)
    }
    /// Where a passkey shows that a signed-in browser is its owner's.
    pub(super) fn proof_page(
        &self,
        status: StatusCode,
        visitor: &Visitor,
        errors: &Errors,
    ) -> Answer {
        let title = say!("Confirm with a passkey");
        self.assertion_page(status, visitor, (title, "proof"), errors)
    }
    fn assertion_page(
        &self,
        status: StatusCode,
        visitor: &Visitor,
        (title, asks): (Text, &str),
        errors: &Errors,
    ) -> Answer {
        let values = context! {
            errors => errors.to_value(), party => self.identity.relying_party(),
            challenge => self.identity.challenge(), asks => asks,
        };
        self.pages.answer(status, "passkey.html", title, visitor, values).map(with_script)
    }
    /// Where a passkey is made; only for a while after the owner has shown to be present.
    pub(super) fn new_passkey_page(
        &self,
        status: StatusCode,
        visitor: &Visitor,
        name: &str,
        errors: &Errors,
    ) -> Answer {
        let account = visitor.signed_in()?;
        let Some(challenge) = self.identity.new_passkey_challenge(&visitor.browser()) else {
            return Ok(Redirect::to("/account#passkeys").into_response());
        };
        let known: Vec<&str> = account.passkeys.iter().map(|key| key.id.as_str()).collect();
        let values = context! {
            errors => errors.to_value(), party => self.identity.relying_party(), name => name,
            challenge => challenge, user => BASE64URL_NOPAD.encode(&account.generation),
            address => account.address.to_string(), known => known.join(" "),
        };
        let title = say!("A new passkey");
        self.pages.answer(status, "new-passkey.html", title, visitor, values).map(with_script)
    }
    /// Keeps what the device has made.
    pub(super) async fn add_passkey(&self, visitor: &Visitor, made: &Attestation) -> Answer {
        let again = |text: Text| {
            let errors = Errors::of("", text);
            self.new_passkey_page(StatusCode::UNPROCESSABLE_ENTITY, visitor, &made.name, &errors)
        };
        let name = visitor.language.say(&session::browser(&visitor.agent));
        match self.identity.add_passkey(&visitor.browser(), made, &name).await? {
            NewPasskey::Added => Ok(Redirect::to("/account?done=passkey").into_response()),
            NewPasskey::NotProved => Ok(Redirect::to("/account#passkeys").into_response()),
            NewPasskey::Refused => again(say!("The passkey could not be added. Please try again.")),
            NewPasskey::Known => again(say!("This device has a passkey for your account already.")),
        }
    }
    /// `POST /login` of a device that has signed.
    pub(super) async fn login_by_passkey(&self, visitor: &Visitor, said: &Assertion) -> Answer {
        match self.identity.sign_in_by_passkey(&visitor.browser(), said).await? {
            SignIn::In(begun) | SignIn::Second(begun) => self.let_in(&begun),
            SignIn::Wait(wait) => {
                let (status, errors) = (StatusCode::TOO_MANY_REQUESTS, codes::please_wait(wait));
                let page = self.passkey_page(status, visitor, &errors).await?;
                Ok(retry_after(page, wait.as_secs()))
            }
            SignIn::Wrong => {
                let text =
                    say!("This passkey does not let you in here. Sign in another way, please.");
                let errors = Errors::of("", text);
                self.passkey_page(StatusCode::UNPROCESSABLE_ENTITY, visitor, &errors).await
            }
        }
    }
}
