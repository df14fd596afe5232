//! Sign-in by an account elsewhere: a client of `OpenID` Connect (Core 1.0, Discovery 1.0), by the
//! authorization code flow with PKCE (RFC 7636).
//!
//! What comes of it is one thing only: that whoever sits at this browser has a mailbox, as the
//! provider says. It proves the address just as a mailed code does, and no more.

mod keys;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod token;

use crate::{
    mail::{Address, Domain},
    wire::{Api, Page, Question, WebError, WebPlace},
};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use form_urlencoded::{Serializer, byte_serialize};
use jiff::{SignedDuration, Timestamp};
use keys::{Key, keys_of};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::{fmt, sync::Arc};
use token::{Claims, Expected, Refusal, verified};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

/// Where a provider says what it has (Discovery 1.0, section 4).
const WELL_KNOWN: &str = "/.well-known/openid-configuration";
/// What a provider says of itself, and its keys, are kept for so long.
const KEPT: SignedDuration = SignedDuration::from_hours(1);
/// For so long it is not asked again after it could not be had; nor its keys for one that is not
/// among them.
const REST: SignedDuration = SignedDuration::from_secs(30);
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
pub struct Trip {
    /// Comes back with the answer.
    pub state: String,
    /// Comes back inside the token.
    pub nonce: String,
    /// Whoever brings the code must know it.
    pub verifier: Zeroizing<String>,
    /// Where the answer comes to.
    pub redirect: String,
}
impl fmt::Debug for Trip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trip(..)")
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

/// What a provider says of itself (Discovery 1.0, section 3).
#[derive(Debug, Clone, Deserialize)]
struct Metadata {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Vec<String>,
}
/// What the token endpoint answers; access tokens are of no use here.
#[derive(Deserialize)]
struct Tokens {
    id_token: String,
}

/// Something fetched, or why it could not be; and when.
#[derive(Debug)]
struct Kept<T>(Option<(Timestamp, Result<T, OidcError>)>);
impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(None)
    }
}
impl<T: Clone> Kept<T> {
    fn good(&self, now: Timestamp) -> Option<Result<T, OidcError>> {
        let (at, what) = self.0.as_ref()?;
        let time = if what.is_ok() { KEPT } else { REST };
        (now.duration_since(*at) < time).then(|| what.clone())
    }
}

/// A provider of identities.
#[derive(Debug)]
pub struct Provider {
    settings: ProviderSettings,
    api: Arc<dyn Api>,
    metadata: Mutex<Kept<Metadata>>,
    keys: Mutex<Kept<Arc<[Key]>>>,
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
        let down = |error: &OidcError| Some(Err(error.clone()));
        let metadata = self.metadata.try_lock().ok()?;
        let (_, said) = metadata.0.as_ref()?;
        if let Err(error) = said {
            return down(error);
        }
        let keys = self.keys.try_lock().ok()?;
        match keys.0.as_ref() {
            Some((_, Err(error))) => down(error),
            Some((_, Ok(_))) | None => Some(Ok(())),
        }
    }

    /// Where a browser goes to sign in (Core 1.0, section 3.1.2.1).
    ///
    /// # Errors
    /// The provider does not say where.
    pub async fn leading(&self, trip: &Trip, now: Timestamp) -> Result<String, OidcError> {
        let metadata = self.metadata(now).await?;
        let challenge = BASE64URL_NOPAD.encode(&Sha256::digest(trip.verifier.as_bytes()));
        let query = Serializer::new(String::new())
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.settings.client_id)
            .append_pair("redirect_uri", &trip.redirect)
            .append_pair("scope", "openid email profile")
            .append_pair("state", &trip.state)
            .append_pair("nonce", &trip.nonce)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256")
            .finish();
        let place = &metadata.authorization_endpoint;
        let between = if place.contains('?') { '&' } else { '?' };
        Ok(format!("{place}{between}{query}"))
    }

    /// Who has signed in, for the code that the browser has brought back (sections 3.1.3.1 and
    /// 3.1.3.7).
    ///
    /// # Errors
    /// The provider can't be asked, or what it says is not taken.
    pub async fn person(
        &self,
        code: &str,
        trip: &Trip,
        now: Timestamp,
    ) -> Result<Person, OidcError> {
        let metadata = self.metadata(now).await?;
        let tokens = self.redeemed(&metadata, code, trip).await?;
        let expected = Expected {
            issuer: &self.settings.issuer,
            client_id: &self.settings.client_id,
            nonce: &trip.nonce,
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
        let address = self.address_in(&claims)?;
        Ok(Person {
            address,
            first_name: claims.given_name.unwrap_or_default(),
            last_name: claims.family_name.unwrap_or_default(),
        })
    }

    fn address_in(&self, claims: &Claims) -> Result<Address, Refusal> {
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
        if let Some(good) = kept.good(now) {
            return good;
        }
        let fetched = self.fetch_metadata().await;
        kept.0 = Some((now, fetched.clone()));
        fetched
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
        let places =
            [&metadata.authorization_endpoint, &metadata.token_endpoint, &metadata.jwks_uri];
        if places.iter().any(|place| place_of(place).is_none()) {
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
        let mut kept = self.keys.lock().await;
        let recent = kept.0.as_ref().is_some_and(|(at, _)| now.duration_since(*at) < REST);
        if let Some(good) = kept.good(now).filter(|_| recent || !anew) {
            return good;
        }
        let fetched = self.asked(&metadata.jwks_uri, Question::default()).await.and_then(|page| {
            let keys = keys_of(&page.body).ok_or_else(|| {
                OidcError::Down(format!("{}: these are no keys (JWKS)", metadata.jwks_uri))
            })?;
            Ok(Arc::from(keys))
        });
        kept.0 = Some((now, fetched.clone()));
        fetched
    }

    async fn redeemed(
        &self,
        metadata: &Metadata,
        code: &str,
        trip: &Trip,
    ) -> Result<Tokens, OidcError> {
        let place = &metadata.token_endpoint;
        let page = self.asked(place, self.redemption(metadata, code, trip)).await?;
        serde_json::from_slice(&page.body)
            .map_err(|_| OidcError::Refused(format!("{place}: the answer has no ID token")))
    }
    /// The code for a token (RFC 6749 section 4.1.3), with our own secret as the provider takes it.
    fn redemption(&self, metadata: &Metadata, code: &str, trip: &Trip) -> Question {
        let settings = &self.settings;
        let methods = &metadata.token_endpoint_auth_methods_supported;
        let in_form = methods.iter().any(|method| method == "client_secret_post");
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "authorization_code")
            .append_pair("code", code)
            .append_pair("redirect_uri", &trip.redirect)
            .append_pair("code_verifier", &trip.verifier);
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
