//! Certificates and a clock for the tests of this room.

use crate::{clock::Clock, net::provider};
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};
use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{ResolvesServerCert, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

#[derive(Debug)]
pub(crate) struct At(pub(crate) &'static str);

impl Clock for At {
    fn now(&self) -> Timestamp {
        self.0.parse().unwrap()
    }
}

/// The day of all tests here.
pub(crate) fn today() -> Arc<dyn Clock> {
    Arc::new(At("2026-11-22T12:00:00Z"))
}

/// A certificate authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        Self::named("Test Authority")
    }

    pub(crate) fn named(name: &str) -> Self {
        Self::odd(name, |_| {})
    }

    /// One at the top, changed by `odd`.
    pub(crate) fn odd(name: &str, odd: impl FnOnce(&mut CertificateParams)) -> Self {
        let params = authority(name, odd);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// One under this one, changed by `odd`.
    pub(crate) fn below(&self, name: &str, odd: impl FnOnce(&mut CertificateParams)) -> Self {
        let (params, key) = (authority(name, odd), KeyPair::generate().unwrap());
        Self(CertifiedIssuer::signed_by(params, key, &self.0).unwrap())
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server certificate for these names, changed by `odd`.
    pub(crate) fn issue(&self, names: &[&str], odd: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let params = params(names, odd);
        Leaf { der: params.signed_by(&key, &self.0).unwrap().der().clone(), key }
    }
}

fn authority(name: &str, odd: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    odd(&mut params);
    params
}

/// A certificate with its key.
pub(crate) struct Leaf {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) key: KeyPair,
}

fn params(names: &[&str], odd: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2027, 1, 1);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    odd(&mut params);
    params
}

pub(crate) fn self_signed(names: &[&str], odd: impl FnOnce(&mut CertificateParams)) -> Leaf {
    let key = KeyPair::generate().unwrap();
    let der = params(names, odd).self_signed(&key).unwrap().der().clone();
    Leaf { der, key }
}

impl Leaf {
    /// Certificate and key as PEM files in that folder.
    pub(crate) fn store(&self, folder: &Path) -> (PathBuf, PathBuf) {
        let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        std::fs::write(&certificate, pem(&self.der)).unwrap();
        std::fs::write(&key, self.key.serialize_pem()).unwrap();
        (certificate, key)
    }
}

pub(crate) fn pem(der: &CertificateDer<'_>) -> String {
    let body = data_encoding::BASE64.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}

/// Names that clients sent by SNI.
pub(crate) type Called = Arc<Mutex<Vec<Option<String>>>>;

/// Shows a certificate as it is, sensible or not.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>, Called);

impl ResolvesServerCert for Shows {
    fn resolve(&self, hello: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.1.lock().unwrap().push(hello.server_name().map(str::to_owned));
        Some(Arc::clone(&self.0))
    }
}

/// A TLS server that shows `der` and signs with `key`.
pub(crate) fn server_config(
    der: &CertificateDer<'static>,
    key: &KeyPair,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ServerConfig> {
    Arc::new(server_of(vec![der.clone()], key, versions, None).0)
}

/// The same with a chain; also what it is called by.
pub(crate) fn chain_config(
    chain: Vec<CertificateDer<'static>>,
    key: &KeyPair,
    versions: &[&'static SupportedProtocolVersion],
) -> (Arc<ServerConfig>, Called) {
    let (config, called) = server_of(chain, key, versions, None);
    (Arc::new(config), called)
}

/// A TLS server that asks for a certificate of `clients`; `insists`: and lets nobody in without.
pub(crate) fn asking_config(
    leaf: &Leaf,
    clients: &Authority,
    insists: bool,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ServerConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(clients.der()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let verifier = if insists { verifier } else { verifier.allow_unauthenticated() };
    let verifier = verifier.build().unwrap();
    Arc::new(server_of(vec![leaf.der.clone()], &leaf.key, versions, Some(verifier)).0)
}

fn server_of(
    chain: Vec<CertificateDer<'static>>,
    key: &KeyPair,
    versions: &[&'static SupportedProtocolVersion],
    clients: Option<Arc<dyn ClientCertVerifier>>,
) -> (ServerConfig, Called) {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let key = provider().key_provider.load_private_key(key).unwrap();
    let (shown, called) = (Arc::new(CertifiedKey::new(chain, key)), Called::default());
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_client_cert_verifier(clients.unwrap_or_else(WebPkiClientVerifier::no_client_auth))
        .with_cert_resolver(Arc::new(Shows(shown, Arc::clone(&called))));
    (config, called)
}
