//! DANE for a certificate that was shown (RFC 7672 §3): what the records say of it, and whether it
//! leads to the authority that a record of usage 2 names.

use super::{day, der_value, public_key, reason};
use crate::policy::{DaneVerdict, Tlsa, TlsaSet, dane::Shown};
use rustls::{
    CertificateError, Error as TlsError, RootCertStore,
    client::verify_server_cert_signed_by_trust_anchor,
    crypto::WebPkiSupportedAlgorithms,
    pki_types::{CertificateDer, Der, TrustAnchor, UnixTime},
    server::ParsedCertificate,
};
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

/// Certificates above the leaf that are looked at.
const MAX_ABOVE: usize = 16;

/// A chain as shown, and when.
pub(super) struct Chain<'a> {
    pub(super) leaf: &'a CertificateDer<'a>,
    pub(super) above: &'a [CertificateDer<'a>],
    pub(super) now: UnixTime,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl Chain<'_> {
    /// What the records say.
    pub(super) fn verdict(&self, set: &TlsaSet) -> DaneVerdict {
        let key = public_key(self.leaf).unwrap_or_default();
        let leaf = Shown { certificate: self.leaf, key: &key };
        set.verdict(leaf, |record| self.leads_to(record))
    }

    fn above(&self) -> &[CertificateDer<'_>] {
        self.above.get(..MAX_ABOVE).unwrap_or(self.above)
    }

    /// RFC 7671 §5.2: the authority is one that is shown; where the record holds it whole, it need
    /// not be.
    fn leads_to(&self, record: &Tlsa) -> Result<(), String> {
        let mut why = None;
        for shown in self.above() {
            let key = public_key(shown).unwrap_or_default();
            if record.matches(Shown { certificate: shown, key: &key }) {
                match self.below(shown) {
                    Ok(()) => return Ok(()),
                    Err(error) => why = Some(error),
                }
            }
        }
        if let Some(why) = why {
            // What is shown is judged by all that its certificate says, not by its key alone.
            return Err(why);
        }
        match (record.matching, record.selector) {
            (0, 0) => self.below(&CertificateDer::from(record.data.as_slice())),
            (0, 1) => self.below_key(&record.data),
            _ => Err("no such authority is shown".to_owned()),
        }
    }

    /// The leaf leads to this authority, the only one.
    fn below(&self, authority: &CertificateDer<'_>) -> Result<(), String> {
        let (_, parsed) = X509Certificate::from_der(authority)
            .map_err(|_| "the authority's certificate cannot be read")?;
        if parsed.version() == X509Version::V3 && !parsed.is_ca() {
            return Err("the certificate it names is no authority's (CA:FALSE)".to_owned());
        }
        self.in_date(&parsed)?;
        let mut only = RootCertStore::empty();
        only.add(authority.clone().into_owned())
            .map_err(|_| "the authority's certificate cannot be read")?;
        // RFC 5280 §4.2.1.9, for the end of the chain too: no more than so many stand between.
        let between = parsed.basic_constraints().ok().flatten();
        let between = between.and_then(|c| c.value.path_len_constraint);
        let between = between.map_or(MAX_ABOVE, |n| usize::try_from(n).unwrap_or(MAX_ABOVE));
        let others = self.above().iter().filter(|shown| *shown != authority);
        let others: Vec<_> = others.take(between).cloned().collect();
        self.verify(&only, &others)
    }

    fn in_date(&self, authority: &X509Certificate<'_>) -> Result<(), String> {
        let now = i64::try_from(self.now.as_secs()).unwrap_or(i64::MAX);
        let (from, until) = (authority.validity().not_before, authority.validity().not_after);
        if now > until.timestamp() {
            return Err(format!(
                "the authority's certificate expired on {}",
                day(until.timestamp())
            ));
        }
        if now < from.timestamp() {
            let from = day(from.timestamp());
            return Err(format!("the authority's certificate is not valid before {from}"));
        }
        Ok(())
    }

    /// The record holds a bare key (`2 1 0`), and no certificate with it is shown: the authority
    /// is whoever a certificate that is shown calls its issuer, if that key signed it.
    fn below_key(&self, key: &[u8]) -> Result<(), String> {
        let (key, _) = der_value(key, 0x30).ok_or("the record holds no public key")?;
        let mut only = RootCertStore::empty();
        for shown in std::iter::once(self.leaf).chain(self.above()) {
            let Ok((_, shown)) = X509Certificate::from_der(shown) else { continue };
            let Some((name, _)) = der_value(shown.issuer().as_raw(), 0x30) else { continue };
            only.roots.push(TrustAnchor {
                subject: Der::from(name.to_vec()),
                subject_public_key_info: Der::from(key.to_vec()),
                name_constraints: None,
            });
        }
        self.verify(&only, self.above())
    }

    /// Signatures, dates, path length, name constraints and extended key usage; no names (policy
    /// judges them).
    fn verify(&self, only: &RootCertStore, others: &[CertificateDer<'_>]) -> Result<(), String> {
        let verified = ParsedCertificate::try_from(self.leaf).and_then(|leaf| {
            let algorithms = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&leaf, only, others, self.now, algorithms)
        });
        verified.map_err(|error| {
            if matches!(error, TlsError::InvalidCertificate(CertificateError::UnknownIssuer)) {
                return "the certificate does not lead to that authority".to_owned();
            }
            reason(&error, self.leaf)
        })
    }
}

#[cfg(test)]
mod tests;
