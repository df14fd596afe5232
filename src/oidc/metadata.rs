//! What a provider announces of itself, and what is asked of it accordingly.

use super::Prompt;
use serde::Deserialize;

/// The `claims` parameter (Core 1.0, section 5.5): the address is asked for in the ID token, which
/// saves the userinfo request.
const CLAIMS: &str = "{\"id_token\":{\"email\":{\"essential\":true},\
     \"email_verified\":{\"essential\":true},\"given_name\":null,\"family_name\":null}}";

/// What a provider says of itself (Discovery 1.0, section 3).
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Metadata {
    pub(super) issuer: String,
    pub(super) authorization_endpoint: String,
    pub(super) token_endpoint: String,
    pub(super) jwks_uri: String,
    pub(super) userinfo_endpoint: Option<String>,
    #[serde(default)]
    pub(super) token_endpoint_auth_methods_supported: Vec<String>,
    #[serde(default)]
    claims_parameter_supported: bool,
    /// `OpenID` Connect "Initiating User Registration" 1.0; many providers do not announce it.
    prompt_values_supported: Option<Vec<String>>,
    /// RFC 9207 section 3.
    #[serde(default)]
    pub(super) authorization_response_iss_parameter_supported: bool,
}
impl Metadata {
    /// The value of `prompt`, if there is one that the provider takes.
    pub(super) fn prompt(&self, asked: Prompt) -> Option<&'static str> {
        let wishes: &[&'static str] = match asked {
            Prompt::SelectAccount => &["select_account", "login"],
            Prompt::Login => &["login"],
        };
        match &self.prompt_values_supported {
            None => wishes.first().copied(),
            Some(known) => wishes.iter().copied().find(|wish| known.iter().any(|k| k == wish)),
        }
    }
    /// The value of `claims`, if the provider takes one.
    pub(super) fn claims(&self) -> Option<&'static str> {
        self.claims_parameter_supported.then_some(CLAIMS)
    }
    /// The endpoints that are asked, or that browsers are led to.
    pub(super) fn places(&self) -> impl Iterator<Item = &String> {
        [&self.authorization_endpoint, &self.token_endpoint, &self.jwks_uri]
            .into_iter()
            .chain(&self.userinfo_endpoint)
    }
}
