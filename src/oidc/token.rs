//! ID tokens: what a provider says of who has signed in, and whether it may be believed (`OpenID`
//! Connect Core 1.0, section 3.1.3.7; RFC 8725 for what goes wrong with such tokens).

use super::keys::{Algorithm, Key};
use crate::mail::Address;
use data_encoding::BASE64URL_NOPAD;
use jiff::Timestamp;
use serde::Deserialize;

/// Longest token.
const MAX_TOKEN: usize = 32 * 1024;
/// Seconds by which clocks may differ.
const LEEWAY: i64 = 60;
/// Seconds for which a token is fresh: it comes straight from the provider.
const FRESH: i64 = 15 * 60;

/// What a token must say.
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) client_id: &'a str,
    pub(super) nonce: &'a str,
    pub(super) now: Timestamp,
}

/// Why a token is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("it is no token")]
    Shape,
    #[error("its algorithm is not one that is taken")]
    Algorithm,
    #[error("it asks for something that is not known here (crit)")]
    Critical,
    #[error("its key is not among the provider's")]
    UnknownKey,
    #[error("its key is not of its algorithm")]
    OtherAlgorithm,
    #[error("it is not signed by the provider")]
    Signature,
    #[error("its claims can't be read")]
    Claims,
    #[error("it is from another issuer")]
    Issuer,
    #[error("it is for somebody else (aud, azp)")]
    Audience,
    #[error("its time is over")]
    Expired,
    #[error("it is from another time")]
    Time,
    #[error("it is for another sign-in (nonce)")]
    Nonce,
    #[error("it names nobody (sub)")]
    Subject,
    #[error("it has no e-mail address")]
    NoAddress,
    #[error("the provider has not verified the address, or does not say so")]
    Unverified,
    #[error("the provider may not speak for the address's domain")]
    Domain,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<serde_json::Value>,
}

/// One or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// The claims that are looked at.
#[derive(Deserialize)]
pub(super) struct Claims {
    iss: String,
    pub(super) sub: String,
    aud: Audience,
    azp: Option<String>,
    exp: f64,
    iat: f64,
    nbf: Option<f64>,
    nonce: Option<String>,
    #[serde(flatten)]
    pub(super) person: PersonClaims,
}

/// The claims about the person (Core 1.0, section 5.1), from an ID token or from userinfo. They are
/// never mixed: what one source says of an address is not said of the other's.
#[derive(Debug, Deserialize)]
pub(super) struct PersonClaims {
    pub(super) email: Option<String>,
    email_verified: Option<serde_json::Value>,
    /// Microsoft: the domain's owner has proved that the domain is theirs.
    xms_edov: Option<serde_json::Value>,
    /// Google: the organisation whose domain it is.
    pub(super) hd: Option<String>,
    pub(super) given_name: Option<String>,
    pub(super) family_name: Option<String>,
}

/// What a token says, if it is signed by one of these keys and for this sign-in.
pub(super) fn verified(
    token: &str,
    keys: &[Key],
    expected: &Expected<'_>,
) -> Result<Claims, Refusal> {
    let claims = signed(token, keys)?;
    judged(&claims, expected)?;
    Ok(claims)
}

fn signed(token: &str, keys: &[Key]) -> Result<Claims, Refusal> {
    if token.len() > MAX_TOKEN {
        return Err(Refusal::Shape);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(Refusal::Shape)?;
    let (header, claims) = message.split_once('.').ok_or(Refusal::Shape)?;
    let decoded = |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| Refusal::Shape);
    let (header, claims, signature) = (decoded(header)?, decoded(claims)?, decoded(signature)?);
    let header: Header = serde_json::from_slice(&header).map_err(|_| Refusal::Shape)?;
    if header.crit.is_some() {
        return Err(Refusal::Critical);
    }
    let algorithm = Algorithm::named(&header.alg).ok_or(Refusal::Algorithm)?;
    let key = match &header.kid {
        Some(id) => keys.iter().find(|key| key.id.as_ref() == Some(id)),
        // Without a name only the one that there is can be meant (Core 1.0, section 10.1).
        None => match keys {
            [only] => Some(only),
            _ => None,
        },
    };
    let key = key.ok_or(Refusal::UnknownKey)?;
    if key.algorithm() != algorithm {
        return Err(Refusal::OtherAlgorithm);
    }
    if !key.signed(message.as_bytes(), &signature) {
        return Err(Refusal::Signature);
    }
    serde_json::from_slice(&claims).map_err(|_| Refusal::Claims)
}

fn judged(claims: &Claims, expected: &Expected<'_>) -> Result<(), Refusal> {
    if claims.iss != expected.issuer {
        return Err(Refusal::Issuer);
    }
    // Of several audiences we know none but ourselves, so none other is trusted.
    let ours = match &claims.aud {
        Audience::One(one) => one == expected.client_id,
        Audience::Many(many) => matches!(many.as_slice(), [only] if only == expected.client_id),
    };
    let party = claims.azp.as_deref().is_none_or(|party| party == expected.client_id);
    if !ours || !party {
        return Err(Refusal::Audience);
    }
    let now = seconds(expected.now);
    let (leeway, fresh) = (seconds_of(LEEWAY), seconds_of(FRESH));
    if now >= claims.exp + leeway || !claims.exp.is_finite() {
        return Err(Refusal::Expired);
    }
    let late = now - claims.iat > fresh + leeway;
    if late || claims.iat > now + leeway || claims.nbf.is_some_and(|from| from > now + leeway) {
        return Err(Refusal::Time);
    }
    if claims.nonce.as_deref() != Some(expected.nonce) {
        return Err(Refusal::Nonce);
    }
    if claims.sub.is_empty() || claims.sub.len() > 255 {
        return Err(Refusal::Subject);
    }
    Ok(())
}

fn seconds(time: Timestamp) -> f64 {
    time.as_duration().as_secs_f64()
}
fn seconds_of(seconds: i64) -> f64 {
    jiff::SignedDuration::from_secs(seconds).as_secs_f64()
}

impl PersonClaims {
    /// The address that the provider says it has seen to be this person's.
    pub(super) fn address(&self, microsoft: bool) -> Result<Address, Refusal> {
        let text = self.email.as_deref().ok_or(Refusal::NoAddress)?;
        let address: Address = text.parse().map_err(|_| Refusal::NoAddress)?;
        // Microsoft says of no address that it is verified, but of its domain (as text or number,
        // as it pleases).
        let by_domain = microsoft
            && self
                .xms_edov
                .as_ref()
                .is_some_and(|said| *said == true || *said == 1 || *said == "1" || *said == "true");
        // The text "true" is not true: who writes so has not read the standard (section 5.1).
        let by_mail = self.email_verified.as_ref().is_some_and(|said| *said == true);
        if by_mail || by_domain { Ok(address) } else { Err(Refusal::Unverified) }
    }
}
