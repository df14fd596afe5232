//! One certificate for all hosts, and who vouches for it; made once.

use crate::support::pki::Pki;
use restante::{
    net::{TlsServer, TrustAnchors},
    wire::TlsAccept,
};
use std::sync::{Arc, LazyLock};

static MADE: LazyLock<(Arc<TlsServer>, TrustAnchors)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a folder");
    let pki = Pki::new(dir.path());
    let leaf = pki.leaf("mx1.tls.example");
    let server = TlsServer::load(&leaf.chain, &leaf.key).expect("a certificate");
    (Arc::new(server), TrustAnchors::load(Some(&pki.anchors)).expect("anchors"))
});

pub fn server() -> Arc<dyn TlsAccept> {
    MADE.0.clone()
}

pub fn anchors() -> TrustAnchors {
    MADE.1.clone()
}
