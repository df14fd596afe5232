//! A provider's public keys (RFC 7517), each for the one algorithm that it is made for.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;

/// Keys looked at in one set.
const MAX_KEYS: usize = 100;
/// Longest member of a key: the modulus of 8192 bits has 1366 characters.
const MAX_MEMBER: usize = 2048;

/// Algorithms that are taken (RFC 7518 section 3.1, RFC 8037). None is symmetric, and `none` is no
/// algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Es256,
    EdDsa,
}
impl Algorithm {
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "ES256" => Some(Self::Es256),
            "EdDSA" | "Ed25519" => Some(Self::EdDsa),
            _ => None,
        }
    }
}

/// A public key. Its kind alone says which algorithm it is for: what a token says of itself never
/// chooses how it is checked.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) id: Option<String>,
    material: Material,
}
#[derive(Debug, Clone)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point of P-256.
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl Key {
    pub(super) const fn algorithm(&self) -> Algorithm {
        match self.material {
            Material::Rsa { .. } => Algorithm::Rs256,
            Material::P256(_) => Algorithm::Es256,
            Material::Ed25519(_) => Algorithm::EdDsa,
        }
    }
    /// True if the signature is this key's over the message.
    pub(super) fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let done = match &self.material {
            Material::Rsa { n, e } => RsaPublicKeyComponents { n, e }.verify(
                &RSA_PKCS1_2048_8192_SHA256,
                message,
                signature,
            ),
            Material::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            Material::Ed25519(x) => UnparsedPublicKey::new(&ED25519, x).verify(message, signature),
        };
        done.is_ok()
    }
}

/// A set of keys as it is served.
#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// The keys of a set that can sign for us. What is of another kind or purpose, or broken, is left
/// out (RFC 7517 section 5); `None` if it is no set.
pub(super) fn keys_of(json: &[u8]) -> Option<Vec<Key>> {
    let set: Set = serde_json::from_slice(json).ok()?;
    let keys = set.keys.into_iter().take(MAX_KEYS);
    Some(keys.filter_map(|key| key_of(serde_json::from_value(key).ok()?)).collect())
}

fn key_of(jwk: Jwk) -> Option<Key> {
    if jwk.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    let material = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => Material::Rsa { n: member(jwk.n.as_deref())?, e: member(jwk.e.as_deref())? },
        ("EC", Some("P-256")) => {
            let (x, y) = (member(jwk.x.as_deref())?, member(jwk.y.as_deref())?);
            // RFC 7518 section 6.2.1.2: each as long as the field.
            let whole = x.len() == 32 && y.len() == 32;
            let point = whole.then(|| [&[4], x.as_slice(), &y].concat())?;
            // On the curve, or no key.
            ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point).ok()?;
            Material::P256(point)
        }
        ("OKP", Some("Ed25519")) => {
            let x = member(jwk.x.as_deref())?;
            (x.len() == 32).then_some(Material::Ed25519(x))?
        }
        _ => return None,
    };
    let key = Key { id: jwk.kid, material };
    let said = jwk.alg.as_deref().map(Algorithm::named);
    said.is_none_or(|said| said == Some(key.algorithm())).then_some(key)
}

fn member(text: Option<&str>) -> Option<Vec<u8>> {
    let text = text.filter(|text| text.len() <= MAX_MEMBER)?;
    BASE64URL_NOPAD.decode(text.as_bytes()).ok()
}
