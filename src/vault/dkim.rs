//! DKIM (RFC 6376, RFC 8463): our own mail says for which domain it stands. A customer's message is
//! never signed here; what it bears of its own MTA goes on as it is.

use crate::mail::{Address, Domain, header::Fields};
use mail_auth::{
    common::{
        crypto::{Ed25519Key, RsaKey, Sha256},
        headers::HeaderWriter,
    },
    dkim::{DkimSigner, Done},
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use std::fmt;
use zeroize::Zeroize;

/// Fields that are signed. One that a message lacks is signed as lacking, so that nobody adds it
/// (RFC 6376 §5.4).
const FIELDS: [&str; 10] = [
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "MIME-Version",
    "Content-Type",
    "Auto-Submitted",
    "Reply-To",
    "Cc",
];

/// A key of `notification.dkim`, ready to sign.
pub struct DkimKey {
    domain: Domain,
    selector: String,
    signer: Signer,
}

enum Signer {
    Rsa(Box<DkimSigner<RsaKey<Sha256>, Done>>),
    Ed25519(Box<DkimSigner<Ed25519Key, Done>>),
}

/// A key that can't sign.
#[derive(Debug, thiserror::Error)]
pub enum DkimError {
    /// Not a private key in PEM form.
    #[error("holds no private key in PEM form: write the file of a key in PKCS#8")]
    NoKey,
    /// A key of a kind that DKIM has no use for, or too short.
    #[error(
        "holds no key that DKIM can use ({0}): make one by `openssl genpkey -algorithm RSA \
         -pkeyopt rsa_keygen_bits:2048`, or `-algorithm ed25519`"
    )]
    Unfit(String),
}

impl fmt::Debug for DkimKey {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DkimKey")
            .field("domain", &self.domain)
            .field("selector", &self.selector)
            .finish_non_exhaustive()
    }
}

impl DkimKey {
    /// The key in a PEM text, RSA (2048 bits and more) or Ed25519, for that domain and selector.
    ///
    /// # Errors
    /// [`DkimError`] says what the text holds instead.
    pub fn from_pem(domain: Domain, selector: &str, pem: &[u8]) -> Result<Self, DkimError> {
        let mut key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| DkimError::NoKey)?;
        let signer = Signer::new(&domain, selector, &key);
        // The signer has its own copy, which its library wipes.
        key.zeroize();
        Ok(Self { domain, selector: selector.to_owned(), signer: signer? })
    }

    /// What it signs for (`d=`).
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The `DKIM-Signature` field of a message, relaxed/relaxed, CRLF included.
    fn field(&self, message: &[u8]) -> Result<String, String> {
        let signed = match &self.signer {
            Signer::Rsa(signer) => signer.sign(message),
            Signer::Ed25519(signer) => signer.sign(message),
        };
        signed.map(|signature| signature.to_header()).map_err(|error| error.to_string())
    }
}

impl Signer {
    fn new(domain: &Domain, selector: &str, key: &PrivateKeyDer<'_>) -> Result<Self, DkimError> {
        let (domain, selector) = (domain.as_str().to_owned(), selector.to_owned());
        if let PrivateKeyDer::Pkcs8(der) = key
            && let Ok(key) = Ed25519Key::from_pkcs8_der(der.secret_pkcs8_der())
        {
            let signer = DkimSigner::from_key(key).domain(domain).selector(selector);
            return Ok(Self::Ed25519(Box::new(signer.headers(FIELDS))));
        }
        let key: PrivateKeyDer<'_> = match key {
            PrivateKeyDer::Pkcs8(der) => PrivatePkcs8KeyDer::from(der.secret_pkcs8_der()).into(),
            PrivateKeyDer::Pkcs1(der) => PrivatePkcs1KeyDer::from(der.secret_pkcs1_der()).into(),
            PrivateKeyDer::Sec1(_) | _ => {
                return Err(DkimError::Unfit("a key on an elliptic curve".to_owned()));
            }
        };
        let key = RsaKey::<Sha256>::from_key_der(key)
            .map_err(|_| DkimError::Unfit("neither Ed25519 nor RSA of 2048 to 8192 bits".into()))?;
        let signer = DkimSigner::from_key(key).domain(domain).selector(selector);
        Ok(Self::Rsa(Box::new(signer.headers(FIELDS))))
    }
}

/// The fields to stand before a message of ours: a signature by each key whose domain is that of
/// `From`, so that the two are aligned (RFC 7489 §3.1.1). None where no key is for that domain.
pub(super) fn signatures(keys: &[DkimKey], message: &[u8]) -> Result<String, String> {
    let Some(from) = from_domain(message) else { return Ok(String::new()) };
    keys.iter().filter(|key| key.domain == from).map(|key| key.field(message)).collect()
}

fn from_domain(message: &[u8]) -> Option<Domain> {
    let from = Fields::parse(message).first("From")?;
    let bare = from.rsplit_once('<').map_or(from.as_str(), |(_, address)| address);
    let address: Address = bare.trim_end_matches('>').trim().parse().ok()?;
    Some(address.domain().clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_hold_no_key_are_told_apart() {
        let domain: Domain = "example.org".parse().unwrap();
        let curve = rcgen::KeyPair::generate().unwrap().serialize_pem();
        for (pem, says, reason) in [
            ("", "holds no private key in PEM form", "an empty file"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "holds no private key in PEM form",
                "a certificate",
            ),
            (curve.as_str(), "holds no key that DKIM can use", "ECDSA has no place in RFC 6376"),
        ] {
            let error = DkimKey::from_pem(domain.clone(), "s", pem.as_bytes()).unwrap_err();
            assert!(error.to_string().starts_with(says), "{reason}: {error}");
        }
    }

    #[test]
    fn only_keys_of_the_from_domain_sign() {
        let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
        let key = |domain: &str| {
            DkimKey::from_pem(domain.parse().unwrap(), "s1", pem.as_bytes()).unwrap()
        };
        let keys = [key("example.org"), key("other.example"), key("example.org")];
        for (from, count, reason) in [
            ("\"Example, Health\" <secure@example.org>", 2, "one by each key of the domain"),
            ("secure@other.example", 1, "a bare address"),
            ("secure@mail.example.org", 0, "not the domain itself"),
            ("nobody", 0, "no address"),
        ] {
            let message = format!("From: {from}\r\nSubject: x\r\n\r\nbody\r\n");
            let fields = signatures(&keys, message.as_bytes()).unwrap();
            assert_eq!(fields.matches("DKIM-Signature: v=1; ").count(), count, "{reason}");
        }
        assert_eq!(
            format!("{:?}", keys[0]),
            "DkimKey { domain: example.org, selector: \"s1\", .. }"
        );
    }
}
