//! TLS of generator and sink, and a certificate authority that lives as long as a run.

use crate::Fault;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::NoServerSessionStorage,
};
use std::{fs, path::Path, sync::Arc};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What the sink's and the relay's certificate is for; recipient domains lie beneath it.
pub(crate) const DOMAIN: &str = "sink.test";

/// Writes `ca.pem`, `chain.pem` and `key.pem` (ECDSA P-256) into a folder.
pub(crate) fn write_certificates(dir: &Path) -> Result<(), Fault> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "Bench CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);

    let key = KeyPair::generate()?;
    let names = [DOMAIN.to_owned(), format!("*.{DOMAIN}"), "127.0.0.1".to_owned()];
    let mut leaf = CertificateParams::new(names)?;
    leaf.distinguished_name.push(DnType::CommonName, DOMAIN);
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let leaf = leaf.signed_by(&key, &issuer)?;

    fs::write(dir.join("ca.pem"), ca_certificate.pem())?;
    fs::write(dir.join("chain.pem"), leaf.pem())?;
    fs::write(dir.join("key.pem"), key.serialize_pem())?;
    Ok(())
}

/// The sink's side. Without tickets every connection costs a full handshake.
pub(crate) fn acceptor(dir: &Path, tickets: bool) -> Result<TlsAcceptor, Fault> {
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(dir.join("chain.pem"))?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem"))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    if !tickets {
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
    }
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The generator's side: trusts the run's authority alone, and begins every connection anew.
pub(crate) fn connector(ca: &Path) -> Result<TlsConnector, Fault> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?)?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}
