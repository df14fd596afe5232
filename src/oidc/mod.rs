//! Sign-in by an account elsewhere: a client of `OpenID` Connect (Core 1.0, Discovery 1.0), by the
//! authorization code flow with PKCE (RFC 7636).
//!
//! What comes of it is one thing only: that whoever sits at this browser has a mailbox, as the
//! provider says. It proves the address just as a mailed code does, and no more.

mod cache;
mod flows;
mod keys;
mod metadata;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod token;
mod userinfo;

use crate::{
    mail::{Address, Domain},
    wire::{Api, Page, Question, WebError, WebPlace},
};
use cache::{Kept, KeyCache};
use data_encoding::{BASE64, BASE64URL_NOPAD};
pub use flows::{LoginFlows, PATIENCE, Return, client_key, cookie_of, link_of};
use form_urlencoded::{Serializer, byte_serialize};
use jiff::Timestamp;
use keys::{Key, keys_of};
use metadata::Metadata;
use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};
use std::{fmt, sync::Arc};
use token::{Expected, PersonClaims, Refusal, verified};
use tokio::sync::Mutex;
use userinfo::info_of;
use zeroize::Zeroizing;

/// Where a provider says what it has (Discovery 1.0, section 4).
const WELL_KNOWN: &str = "/.well-known/openid-configuration";
/// Google's issuer. It says "verified" of addresses at other hosts too, once seen and perhaps not
/// theirs any more; it is authoritative for its own and for organisations' (`hd`).
const GOOGLE: &str = "https://accounts.google.com";
const MICROSOFT: &str = "https://login.microsoftonline.com/";

/// An entry of `portal.oidc`.
#[derive(Clone)]
pub struct ProviderSettings {
    /// `name`: what the button says.
    pub name: String,
    /// `issuer`
    pub issuer: String,
    /// `client_id`
    pub client_id: String,
    /// What is in `client_secret_file`.
    pub secret: Zeroizing<String>,
    /// `domains`: whose addresses it may speak for; empty: any that it says it has verified.
    pub domains: Vec<Domain>,
}
impl fmt::Debug for ProviderSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderSettings")
            .field("name", &self.name)
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

/// What binds one sign-in together, from the button to the answer.
pub struct LoginFlow {
    /// Comes back with the answer.
    pub state: String,
    /// Comes back inside the token.
    pub nonce: String,
    /// Whoever brings the code must know it.
    pub verifier: Zeroizing<String>,
    /// Where the answer comes to.
    pub redirect: String,
    /// How the provider is to make sure who sits there.
    pub prompt: Prompt,
}
/// The `prompt` parameter (Core 1.0, section 3.1.2.1). Without one the session that a former user
/// of the browser left at the provider would sign in the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prompt {
    /// `select_account`, or what the provider announces in its place.
    SelectAccount,
    /// `login`, for providers that refuse `select_account`.
    Login,
}
impl fmt::Debug for LoginFlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoginFlow(..)")
    }
}

/// Who has signed in there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The mailbox that is theirs.
    pub address: Address,
    /// As the provider has it; may be empty.
    pub first_name: String,
    /// As the provider has it; may be empty.
    pub last_name: String,
}

/// Why nobody was signed in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OidcError {
    /// The provider can't be asked now.
    #[error("{0}")]
    Down(String),
    /// What it says is not taken.
    #[error("{0}")]
    Refused(String),
}
impl From<Refusal> for OidcError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(format!("the token: {refusal}"))
    }
}

/// What the token endpoint answers (Core 1.0, section 3.1.3.3).
#[derive(Deserialize)]
struct Tokens {
    id_token: String,
    #[serde(default, deserialize_with = "zeroed")]
    access_token: Zeroizing<String>,
    #[serde(default)]
    token_type: String,
}
fn zeroed<'de, D: Deserializer<'de>>(text: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(text).map(Zeroizing::new)
}

/// A provider of identities.
#[derive(Debug)]
pub struct Provider {
    settings: ProviderSettings,
    api: Arc<dyn Api>,
    metadata: Mutex<Kept<Metadata>>,
    keys: Mutex<KeyCache>,
}

impl Provider {
    /// A provider that is asked when somebody wants to sign in there, not before.
    pub fn new(settings: ProviderSettings, api: Arc<dyn Api>) -> Self {
        Self { settings, api, metadata: Mutex::default(), keys: Mutex::default() }
    }
    /// What its button says.
    pub fn name(&self) -> &str {
        &self.settings.name
    }
    /// Who it is.
    pub fn issuer(&self) -> &str {
        &self.settings.issuer
    }
    /// How it was when it was last needed; `None`: it was not, or is being asked just now.
    pub fn health(&self) -> Option<Result<(), OidcError>> {
        let metadata = self.metadata.try_lock().ok()?.last()?;
        let keys = self.keys.try_lock().ok()?.failure();
        Some(metadata.and_then(|()| keys.map_or(Ok(()), Err)))
    }

    /// Where a browser goes to sign in (Core 1.0, section 3.1.2.1).
    ///
    /// # Errors
    /// The provider does not say where.
    pub async fn leading(&self, flow: &LoginFlow, now: Timestamp) -> Result<String, OidcError> {
        let metadata = self.metadata(now).await?;
        let challenge = BASE64URL_NOPAD.encode(&Sha256::digest(flow.verifier.as_bytes()));
        let mut query = Serializer::new(String::new());
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.settings.client_id)
            .append_pair("redirect_uri", &flow.redirect)
            .append_pair("scope", "openid email profile")
            .append_pair("state", &flow.state)
            .append_pair("nonce", &flow.nonce)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        if let Some(prompt) = metadata.prompt(flow.prompt) {
            query.append_pair("prompt", prompt);
        }
        if let Some(claims) = metadata.claims() {
            query.append_pair("claims", claims);
        }
        let query = query.finish();
        let place = &metadata.authorization_endpoint;
        let between = if place.contains('?') { '&' } else { '?' };
        Ok(format!("{place}{between}{query}"))
    }

    /// True if an authorization response may be this provider's, by its `iss` parameter (RFC 9207
    /// section 2.4): it must be there where the provider announces it, and be right in any case.
    ///
    /// # Errors
    /// The provider does not say whether it sends one.
    pub async fn answered(&self, iss: Option<&str>, now: Timestamp) -> Result<bool, OidcError> {
        match iss {
            Some(iss) => Ok(iss == self.settings.issuer),
            None => {
                let metadata = self.metadata(now).await?;
                Ok(!metadata.authorization_response_iss_parameter_supported)
            }
        }
    }

    /// Who has signed in, for the code that the browser has brought back (sections 3.1.3.1 and
    /// 3.1.3.7).
    ///
    /// # Errors
    /// The provider can't be asked, or what it says is not taken.
    pub async fn person(
        &self,
        code: &str,
        flow: &LoginFlow,
        now: Timestamp,
    ) -> Result<Person, OidcError> {
        let metadata = self.metadata(now).await?;
        let tokens = self.redeemed(&metadata, code, flow).await?;
        let expected = Expected {
            issuer: &self.settings.issuer,
            client_id: &self.settings.client_id,
            nonce: &flow.nonce,
            now,
        };
        let keys = self.keys(&metadata, now, false).await?;
        let claims = match verified(&tokens.id_token, &keys, &expected) {
            // It may have new keys.
            Err(Refusal::UnknownKey) => {
                let keys = self.keys(&metadata, now, true).await?;
                verified(&tokens.id_token, &keys, &expected)?
            }
            other => other?,
        };
        // What says who it is comes from one source as a whole.
        let person = match (&claims.person.email, &metadata.userinfo_endpoint) {
            (None, Some(place)) => self.userinfo(place, &tokens, &claims.sub).await?,
            (Some(_), _) | (None, None) => claims.person,
        };
        let address = self.address_in(&person)?;
        Ok(Person {
            address,
            first_name: person.given_name.unwrap_or_default(),
            last_name: person.family_name.unwrap_or_default(),
        })
    }

    /// The claims that the provider keeps out of its ID tokens (Core 1.0, section 5.3).
    async fn userinfo(
        &self,
        place: &str,
        tokens: &Tokens,
        sub: &str,
    ) -> Result<PersonClaims, OidcError> {
        if !tokens.token_type.eq_ignore_ascii_case("Bearer") || tokens.access_token.is_empty() {
            return Err(OidcError::Refused("the access token is no bearer token".to_owned()));
        }
        let bearer = Zeroizing::new(format!("Bearer {}", *tokens.access_token));
        let question = Question { form: None, authorization: Some(bearer) };
        let page = self.asked(place, question).await?;
        info_of(&page, sub).map_err(|error| OidcError::Refused(format!("{place}: {error}")))
    }

    fn address_in(&self, claims: &PersonClaims) -> Result<Address, Refusal> {
        let address = claims.address(self.settings.issuer.starts_with(MICROSOFT))?;
        let domain = address.domain();
        let domains = &self.settings.domains;
        let own = |domain: &Domain| ["gmail.com", "googlemail.com"].contains(&domain.as_str());
        let may = if !domains.is_empty() {
            domains.contains(domain)
        } else if self.settings.issuer == GOOGLE {
            own(domain) || claims.hd.is_some()
        } else {
            true
        };
        if may { Ok(address) } else { Err(Refusal::Domain) }
    }

    async fn metadata(&self, now: Timestamp) -> Result<Metadata, OidcError> {
        let mut kept = self.metadata.lock().await;
        match kept.fresh(now) {
            Some(fresh) => fresh,
            None => kept.put(now, self.fetch_metadata().await),
        }
    }
    async fn fetch_metadata(&self) -> Result<Metadata, OidcError> {
        let issuer = &self.settings.issuer;
        let place = format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/'));
        let page = self.asked(&place, Question::default()).await?;
        let wrong = |what: &str| OidcError::Down(format!("{place}: {what}"));
        let metadata: Metadata = serde_json::from_slice(&page.body)
            .map_err(|_| wrong("this is no configuration of an OpenID provider"))?;
        // Discovery 1.0, section 4.3: exactly, or anybody could speak for somebody else.
        if metadata.issuer != *issuer {
            return Err(wrong("it names another issuer; portal.oidc must name exactly that one"));
        }
        if metadata.places().any(|place| place_of(place).is_none()) {
            return Err(wrong("it names a place without https"));
        }
        Ok(metadata)
    }

    /// The provider's keys; `anew` if one was not among them.
    async fn keys(
        &self,
        metadata: &Metadata,
        now: Timestamp,
        anew: bool,
    ) -> Result<Arc<[Key]>, OidcError> {
        let mut cache = self.keys.lock().await;
        match cache.fresh(now, anew) {
            Some(fresh) => fresh,
            None => cache.put(now, self.fetch_keys(&metadata.jwks_uri).await),
        }
    }
    async fn fetch_keys(&self, place: &str) -> Result<Arc<[Key]>, OidcError> {
        let page = self.asked(place, Question::default()).await?;
        let keys = keys_of(&page.body)
            .ok_or_else(|| OidcError::Down(format!("{place}: these are no keys (JWKS)")))?;
        Ok(Arc::from(keys))
    }

    async fn redeemed(
        &self,
        metadata: &Metadata,
        code: &str,
        flow: &LoginFlow,
    ) -> Result<Tokens, OidcError> {
        let place = &metadata.token_endpoint;
        let page = self.asked(place, self.redemption(metadata, code, flow)).await?;
        serde_json::from_slice(&page.body)
            .map_err(|_| OidcError::Refused(format!("{place}: the answer has no ID token")))
    }
    /// The code for a token (RFC 6749 section 4.1.3), with our own secret as the provider takes it.
    fn redemption(&self, metadata: &Metadata, code: &str, flow: &LoginFlow) -> Question {
        let settings = &self.settings;
        let methods = &metadata.token_endpoint_auth_methods_supported;
        let in_form = methods.iter().any(|method| method == "client_secret_post");
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "authorization_code")
            .append_pair("code", code)
            .append_pair("redirect_uri", &flow.redirect)
            .append_pair("code_verifier", &flow.verifier);
        if in_form {
            form.append_pair("client_id", &settings.client_id)
                .append_pair("client_secret", &settings.secret);
        }
        Question {
            form: Some(Zeroizing::new(form.finish())),
            authorization: (!in_form).then(|| basic(&settings.client_id, &settings.secret)),
        }
    }

    async fn asked(&self, place: &str, question: Question) -> Result<Page, OidcError> {
        let Some(to) = place_of(place) else {
            return Err(OidcError::Down(format!("{place} is no https URL")));
        };
        self.api.ask(&to, question).await.map_err(|error| match error {
            // RFC 6749 section 5.2: the code was not taken (it was used before, perhaps), or our
            // own secret.
            WebError::Status(400 | 401 | 403) => {
                OidcError::Refused(format!("{}{}: {error}", to.host, to.path))
            }
            WebError::Dns(_)
            | WebError::Doubt(_)
            | WebError::Refused(_)
            | WebError::Unreachable(_)
            | WebError::Tls(_)
            | WebError::Status(_)
            | WebError::Answer(_)
            | WebError::TimedOut(_) => OidcError::Down(format!("{}: {error}", to.host)),
        })
    }
}

/// RFC 6749 section 2.3.1: each part form-encoded first.
fn basic(id: &str, secret: &str) -> Zeroizing<String> {
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let (id, secret) = (encoded(id), Zeroizing::new(encoded(secret)));
    let both = Zeroizing::new(format!("{id}:{}", *secret));
    Zeroizing::new(format!("Basic {}", BASE64.encode(both.as_bytes())))
}

/// An `https` URL in its parts; `None` for any other, and for one that holds what no URL of a
/// provider needs.
pub fn place_of(url: &str) -> Option<WebPlace> {
    let rest = url.strip_prefix("https://")?;
    let plain = |c: char| c.is_ascii_graphic() && !"#@\\\"<>`{}|^".contains(c);
    if url.len() > 2048 || !rest.chars().all(plain) {
        return None;
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end)?;
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse().ok()?)),
        Some(_) | None => (authority, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let slash = if path.starts_with('/') { "" } else { "/" };
    (!host.is_empty()).then(|| WebPlace { host, port, path: format!("{slash}{path}") })
}
