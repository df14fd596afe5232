//! Is this notice ours? The code in each notice can be asked after here: at an address that the
//! reader types, not one that a mail leads to.
use super::{Desk, Fault, codes, form::Errors, pages::retry_after, session::Visitor};
use crate::{
    identity::limits::{Kind, Standing, Wait},
    language::{Text, say},
    mail::Address,
    seal::TokenHash,
    store::Grant,
};
use axum::{
    Extension,
    extract::{Query, State},
    http::StatusCode,
    response::Response,
};
use minijinja::{Value, context};
use serde::Deserialize;
use std::sync::Arc;

/// `GET /check`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    code: Option<String>,
}

/// What there is to say.
enum Verdict {
    Nothing,
    Ours { date: Text, to: String },
}

/// `GET /check`, with the code in `code`: changes nothing, and says no more than when, and to whom
/// about.
pub(super) async fn check(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Query(asked): Query<Asked>,
) -> Result<Response, Fault> {
    let answer = |status, typed: &str, verdict: Verdict, errors: &Errors| {
        let (date, to) = match verdict {
            Verdict::Nothing => (Text::default(), String::new()),
            Verdict::Ours { date, to } => (date, to),
        };
        let typed: String = typed.chars().take(64).collect();
        let values = context! {
            errors => errors.to_value(), code => typed, date => Value::from(date), to => to,
            url => desk.settings.url.trim_end_matches('/'),
        };
        desk.pages.answer(status, "check.html", say!("Is this notice genuine?"), &visitor, values)
    };
    let Some(typed) = asked.code else {
        return answer(StatusCode::OK, "", Verdict::Nothing, &Errors::default());
    };
    let wrong = |text| (StatusCode::UNPROCESSABLE_ENTITY, Errors::of("code", text));
    let Some(start) = TokenHash::parse_check_code(&typed) else {
        let (status, errors) =
            wrong(say!("This is no code of ours: each has twelve letters, as in bcdf-ghjk-mnpr."));
        return answer(status, &typed, Verdict::Nothing, &errors);
    };
    let begun = desk.identity.limits().begin(Kind::Check, None, Standing::Stranger, visitor.client);
    let attempt = match begun {
        Ok(attempt) => attempt,
        Err(Wait(wait)) => {
            let errors = codes::please_wait(wait);
            let page = answer(StatusCode::TOO_MANY_REQUESTS, &typed, Verdict::Nothing, &errors)?;
            return Ok(retry_after(page, wait.as_secs()));
        }
    };
    // Two of one code, by a chance of one in 2^48: then it says nothing for sure.
    let found = desk.vault.people.grants_by_hash(start, 2).await?;
    let [Grant { recipient, sealed, .. }] = found.as_slice() else {
        let (status, errors) = wrong(say!(
            "We have sent no notice with this code. Do not follow its link, and do not type a \
             password where it leads."
        ));
        return answer(status, &typed, Verdict::Nothing, &errors);
    };
    attempt.succeed();
    let ours = Verdict::Ours { date: Text::Moment(*sealed), to: masked(recipient) };
    answer(StatusCode::OK, &typed, ours, &Errors::default())
}

/// Enough for its owner to know it again.
fn masked(address: &Address) -> String {
    let first: String = address.local().trim_start_matches('"').chars().take(1).collect();
    format!("{first}…@{}", address.domain())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_masked() {
        for (address, shown) in [
            ("ann@clinic.example", "a…@clinic.example"),
            ("a@clinic.example", "a…@clinic.example"),
            ("\"ann ode\"@clinic.example", "a…@clinic.example"),
        ] {
            assert_eq!(masked(&address.parse().unwrap()), shown);
        }
    }
}
