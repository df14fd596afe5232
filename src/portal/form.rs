//! What forms send, and what is wrong with it.
use super::Fault;
use crate::{
    identity::{Assertion, Attestation, password},
    language::{Text, say},
    mail::Address,
};
use axum::{
    extract::{FromRequest, Request},
    response::IntoResponse,
};
use minijinja::{Value, context};
use serde::{Deserialize, de::DeserializeOwned};
use zeroize::Zeroizing;

/// Longest code that a link fills in.
const LONGEST_CODE: usize = 32;

/// A form of ours. What is none ends with the status that says why, as a plain page.
#[derive(Debug)]
pub(super) struct Form<T>(pub(super) T);
impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Form<T> {
    type Rejection = Fault;
    async fn from_request(request: Request, state: &S) -> Result<Self, Fault> {
        match axum::Form::<T>::from_request(request, state).await {
            Ok(axum::Form(form)) => Ok(Self(form)),
            Err(rejection) => Err(Fault::Status(rejection.into_response().status())),
        }
    }
}

/// A password, code or token as it was sent; zeroed after use.
#[derive(Default, Deserialize)]
#[serde(from = "String")]
pub(super) struct Secret(Zeroizing<String>);
impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}
impl Secret {
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
    /// A code as a link fills it in, of letters and digits alone.
    pub(super) fn filled(&self) -> Zeroizing<String> {
        let letters = self.expose().chars().filter(char::is_ascii_alphanumeric);
        let mut filled = Zeroizing::new(String::with_capacity(LONGEST_CODE));
        filled.extend(letters.take(LONGEST_CODE));
        filled
    }
    pub(super) fn into_inner(self) -> Zeroizing<String> {
        self.0
    }
}
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// `POST /register`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Registration {
    pub(super) token: Secret,
    pub(super) first_name: String,
    pub(super) last_name: String,
    pub(super) password: Secret,
    pub(super) password_confirm: Secret,
    pub(super) accept_terms: String,
}
/// `POST /login`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SignIn {
    pub(super) email: String,
    pub(super) password: Secret,
    pub(super) token: Secret,
    /// `code`: mail one instead of asking for the password.
    pub(super) by: String,
    /// The second factor, of who has shown the first.
    pub(super) code: Secret,
    #[serde(flatten)]
    pub(super) passkey: Assertion,
}
/// `POST /reset`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Reset {
    pub(super) email: String,
    /// Of the notice's link that led here.
    pub(super) token: Secret,
    pub(super) code: Option<Secret>,
    pub(super) password: Secret,
    pub(super) password_confirm: Secret,
    /// Filled: passkeys stay.
    pub(super) keep_passkeys: String,
}
/// `POST /account`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AccountForm {
    pub(super) action: String,
    pub(super) first_name: String,
    pub(super) last_name: String,
    pub(super) language: String,
    pub(super) current_password: Secret,
    pub(super) password: Secret,
    pub(super) password_confirm: Secret,
    /// The present password, to show that it is the owner.
    pub(super) proof_password: Secret,
    pub(super) code: Secret,
    pub(super) session: String,
    pub(super) passkey: String,
    /// Filled: the owner means it.
    pub(super) sure: String,
    pub(super) credential: String,
    pub(super) signature: String,
    pub(super) user_handle: String,
    #[serde(flatten)]
    pub(super) attestation: Attestation,
}
impl AccountForm {
    /// What a device said to show that it is the owner's.
    pub(super) fn assertion(&self) -> Assertion {
        Assertion {
            credential: self.credential.clone(),
            client_data: self.attestation.client_data.clone(),
            authenticator_data: self.attestation.authenticator_data.clone(),
            signature: self.signature.clone(),
            user_handle: self.user_handle.clone(),
        }
    }
    /// What is to be done. A form that does not say it means what it brings.
    pub(super) fn verb(&self) -> &str {
        match self.action.as_str() {
            "" if self.password.expose().is_empty() => "profile",
            "" => "password",
            other => other,
        }
    }
}
/// `POST /verify`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Typed {
    pub(super) code: Secret,
    /// Filled: another code is asked for.
    pub(super) again: String,
}

/// What is wrong, in the order of the form: field (empty: the form as a whole) and words.
#[derive(Debug, Default)]
pub(super) struct Errors(Vec<(&'static str, Text)>);
impl Errors {
    pub(super) fn of(field: &'static str, text: Text) -> Self {
        let mut errors = Self::default();
        errors.add(field, text);
        errors
    }
    pub(super) fn add(&mut self, field: &'static str, text: Text) {
        self.0.push((field, text));
    }
    pub(super) fn add_if(&mut self, field: &'static str, text: Option<Text>) {
        if let Some(text) = text {
            self.add(field, text);
        }
    }
    pub(super) const fn none(&self) -> bool {
        self.0.is_empty()
    }
    pub(super) fn to_value(&self) -> Value {
        let line = |(field, text): &(&'static str, Text)| {
            context! { field => *field, text => Value::from(text.clone()) }
        };
        self.0.iter().map(line).collect()
    }
}

/// Longest name, in characters.
const MAX_NAME: usize = 100;

/// What is wrong with a first or last name.
pub(super) fn fault_of_name(name: &str, missing: Text) -> Option<Text> {
    let name = name.trim();
    if name.is_empty() {
        Some(missing)
    } else if name.chars().count() > MAX_NAME {
        Some(say!("Use at most {count} characters for a name.", count = MAX_NAME))
    } else if name.chars().any(char::is_control) {
        Some(say!("Use letters only, please: there is a character in it that can’t be shown."))
    } else {
        None
    }
}

/// Judges a new password that was typed twice. `names` are those that it must not be made of.
pub(super) fn judge(
    errors: &mut Errors,
    (password, again): (&Secret, &Secret),
    address: &Address,
    names: &[&str],
) {
    let weak = password::fault_of(password.expose(), address, names);
    let strong = weak.is_none();
    errors.add_if("password", weak);
    if strong && password.expose() != again.expose() {
        errors
            .add("password_confirm", say!("The two passwords are not the same. Type both again."));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fmt::Debug;

    #[test]
    fn no_secret_of_a_form_is_kept_as_plain_text() {
        fn shown<T: DeserializeOwned + Debug>() -> String {
            let secrets = ["token", "code", "password", "password_confirm", "state"];
            let more = ["current_password", "proof_password", "phrase"];
            let all = secrets.iter().chain(&more).map(|name| (*name, json!("top-secret")));
            let form: T = serde_json::from_value(all.collect()).unwrap();
            format!("{form:?}")
        }
        for form in [
            shown::<Registration>(),
            shown::<SignIn>(),
            shown::<Reset>(),
            shown::<AccountForm>(),
            shown::<Typed>(),
            shown::<crate::portal::oidc::Chosen>(),
            shown::<crate::portal::oidc::Brought>(),
            shown::<crate::portal::codes::Filled>(),
            shown::<crate::portal::prove::Proving>(),
        ] {
            assert!(form.contains("Secret(..)") && !form.contains("top-secret"), "{form}");
        }
    }
}
