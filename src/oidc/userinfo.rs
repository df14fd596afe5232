//! The userinfo endpoint (`OpenID` Connect Core 1.0, section 5.3): claims that a provider keeps out of
//! its ID tokens, as section 5.4 has it for the authorization code flow.

use super::token::PersonClaims;
use crate::wire::Page;
use serde::Deserialize;

/// Why an answer is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum InfoError {
    #[error("the answer is not JSON (a signed or encrypted one is not read)")]
    MediaType,
    #[error("the answer can't be read")]
    Shape,
    #[error("the answer is of another person than the token (sub)")]
    Subject,
}

#[derive(Deserialize)]
struct Info {
    sub: String,
    #[serde(flatten)]
    person: PersonClaims,
}

/// The claims of an answer. Without the token's own `sub` they are not used (section 5.3.2): an
/// access token may have been swapped.
pub(super) fn info_of(page: &Page, sub: &str) -> Result<PersonClaims, InfoError> {
    if page.media_type != "application/json" {
        return Err(InfoError::MediaType);
    }
    let info: Info = serde_json::from_slice(&page.body).map_err(|_| InfoError::Shape)?;
    if info.sub == sub { Ok(info.person) } else { Err(InfoError::Subject) }
}
