//! Our own certificate, for a host that asks for it (mutual TLS), and whether one asked.

use rustls::{SignatureScheme, client::ResolvesClientCert, sign::CertifiedKey};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// A certificate chain and its key. Says nothing of the key.
#[derive(Clone)]
pub(in crate::net) struct Identity(Arc<CertifiedKey>);

impl From<CertifiedKey> for Identity {
    fn from(pair: CertifiedKey) -> Self {
        Self(Arc::new(pair))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// Shows what a policy names, if anything, and only when asked.
#[derive(Debug)]
pub(in crate::net) struct Ours {
    identity: Option<Identity>,
    asked: AtomicBool,
}

impl Ours {
    pub(super) fn new(identity: Option<Identity>) -> Self {
        Self { identity, asked: AtomicBool::new(false) }
    }

    /// What to add to the error of a host that broke off: it may have been for our certificate.
    pub(in crate::net) fn why_refused(&self) -> Option<&'static str> {
        let asked = self.asked.load(Ordering::Relaxed);
        asked.then_some(match self.identity {
            None => {
                "the host asked for our certificate and seems to insist on one; the policy names \
                 none (client_certificate, client_key)"
            }
            Some(_) => "the host asked for our certificate and seems not to take the one we show",
        })
    }
}

impl ResolvesClientCert for Ours {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.identity.as_ref().map(|identity| Arc::clone(&identity.0))
    }

    fn has_certs(&self) -> bool {
        self.identity.is_some()
    }
}
