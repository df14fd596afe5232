//! TLS as server: certificate and key from PEM files, reloaded without a stop.

use crate::{
    net::{provider, trust},
    wire::{Stream, TlsAccept},
};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::NoServerSessionStorage,
    sign::{CertifiedKey, SingleCertAndKey},
    version,
};
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

/// Certificate or key that cannot be used: which file, and what is expected there.
#[derive(Debug, thiserror::Error)]
pub enum TlsFileError {
    /// A file that cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file without what it should hold.
    #[error("{}: holds no {expected} in PEM form (\"-----BEGIN …\")", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// `certificate` or `private key`.
        expected: &'static str,
    },
    /// Certificate and key do not work together.
    #[error("{} and {}: {reason}", certificate.display(), key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Starts TLS on accepted connections (TLS 1.2 and 1.3, no resumption: no state of one session
/// reaches another).
pub struct TlsServer {
    config: ArcSwap<ServerConfig>,
    certificate: PathBuf,
    key: PathBuf,
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsServer").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl TlsServer {
    /// Reads a PEM chain (leaf first) and its key.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsFileError> {
        let config = read(certificate, key)?;
        Ok(Self {
            config: ArcSwap::from_pointee(config),
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        })
    }

    /// Reads both files again. On an error the pair in use stays in use.
    pub fn reload(&self) -> Result<(), TlsFileError> {
        self.config.store(Arc::new(read(&self.certificate, &self.key)?));
        Ok(())
    }
}

#[async_trait]
impl TlsAccept for TlsServer {
    async fn accept(&self, plain: Box<dyn Stream>) -> io::Result<(Box<dyn Stream>, String)> {
        let stream = TlsAcceptor::from(self.config.load_full()).accept(plain).await?;
        let description = trust::describe(stream.get_ref().1);
        Ok((Box::new(stream), description))
    }
}

fn read(certificate: &Path, key: &Path) -> Result<ServerConfig, TlsFileError> {
    let shown = pair(certificate, key)?;
    build(shown).map_err(|error| unfit(certificate, key, &error))
}

/// A PEM chain (leaf first) and its key.
pub(super) fn pair(certificate: &Path, key: &Path) -> Result<CertifiedKey, TlsFileError> {
    let missing =
        || TlsFileError::Missing { path: certificate.to_owned(), expected: "certificate" };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&bytes(certificate)?)
        .collect::<Result<_, _>>()
        .map_err(|_| missing())?;
    if chain.is_empty() {
        return Err(missing());
    }
    let private = PrivateKeyDer::from_pem_slice(&Zeroizing::new(bytes(key)?))
        .map_err(|_| TlsFileError::Missing { path: key.to_owned(), expected: "private key" })?;
    CertifiedKey::from_der(chain, private, &provider())
        .map_err(|error| unfit(certificate, key, &error))
}

fn build(shown: CertifiedKey) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    // A client that says which protocol it speaks, and it is not mail, was led astray (RFC 7301
    // §3.2). Who says nothing, as mail servers do, is let in.
    config.alpn_protocols = vec![b"smtp".to_vec(), b"esmtp".to_vec()];
    Ok(config)
}

fn unfit(certificate: &Path, key: &Path, error: &rustls::Error) -> TlsFileError {
    TlsFileError::Pair {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        reason: pair_reason(error),
    }
}

fn pair_reason(error: &rustls::Error) -> String {
    if matches!(error, rustls::Error::InconsistentKeys(_)) {
        "the key does not belong to the first certificate".into()
    } else {
        error.to_string()
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, TlsFileError> {
    fs::read(path).map_err(|source| TlsFileError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{Authority, today};
    use crate::net::trust::{Handshake, Terms, TrustAnchors};
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use tokio_rustls::TlsConnector;

    async fn names_shown(server: &TlsServer, anchors: &TrustAnchors) -> Vec<String> {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let anchors = anchors.clone();
        let terms = Terms { anchors, min_tls13: false, tlsa: None, identity: None };
        let handshake = Handshake::new(terms, today()).unwrap();
        let name = ServerName::try_from("gw.example.org").unwrap();
        let (client, accepted) =
            tokio::join!(handshake.run(Box::new(ours), name), server.accept(Box::new(theirs)));
        let description = accepted.unwrap().1;
        assert!(description.starts_with("TLSv1.3 TLS_AES_"), "{description}");
        // Post-quantum on both sides, and told of.
        assert!(description.ends_with(" X25519MLKEM768"), "{description}");
        client.unwrap().1.names
    }

    #[tokio::test]
    async fn a_reload_shows_the_new_certificate_and_a_bad_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let anchors = TrustAnchors::from_pem(authority.pem().as_bytes(), "test").unwrap();
        let (certificate, key) = authority.issue(&["one.test"], |_| {}).store(folder.path());
        let server = TlsServer::load(&certificate, &key).unwrap();
        assert_eq!(names_shown(&server, &anchors).await, ["one.test"]);
        authority.issue(&["two.test"], |_| {}).store(folder.path());
        assert_eq!(names_shown(&server, &anchors).await, ["one.test"]);
        server.reload().unwrap();
        assert_eq!(names_shown(&server, &anchors).await, ["two.test"]);
        fs::write(&certificate, "gone").unwrap();
        assert!(server.reload().is_err());
        assert_eq!(names_shown(&server, &anchors).await, ["two.test"]);
    }

    #[test]
    fn files_that_do_not_serve_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let (certificate, key) = authority.issue(&["one.test"], |_| {}).store(folder.path());
        let error = |c: &Path, k: &Path| TlsServer::load(c, k).unwrap_err().to_string();
        assert!(error(&key, &key).contains("key.pem: holds no certificate"));
        assert!(error(&certificate, &certificate).contains("cert.pem: holds no private key"));
        let missing = folder.path().join("none.pem");
        assert!(error(&missing, &key).contains("none.pem: cannot be read"));
        fs::write(&key, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let text = error(&certificate, &key);
        assert!(text.ends_with("the key does not belong to the first certificate"), "{text}");
    }

    /// A handshake with a client that says it speaks this.
    async fn speaks(server: &TlsServer, authority: &Authority, alpn: &[&[u8]]) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(authority.der()).unwrap();
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let name = ServerName::try_from("one.test").unwrap();
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, ours);
        let (client, accepted) = tokio::join!(connecting, server.accept(Box::new(theirs)));
        assert_eq!(client.is_ok(), accepted.is_ok());
        accepted.is_ok()
    }

    #[tokio::test]
    async fn who_means_another_protocol_is_not_let_in() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let leaf = authority.issue(&["one.test"], |p| {
            (p.not_before, p.not_after) =
                (rcgen::date_time_ymd(1990, 1, 1), rcgen::date_time_ymd(2190, 1, 1));
        });
        let (certificate, key) = leaf.store(folder.path());
        let server = TlsServer::load(&certificate, &key).unwrap();
        for (alpn, expected, why) in [
            (&[][..], true, "mail servers name no protocol"),
            (&[&b"smtp"[..]], true, "mail"),
            (&[b"h2", b"smtp"], true, "mail among others"),
            (&[b"http/1.1"], false, "a browser led astray"),
            (&[b"h2", b"http/1.1"], false, "the same"),
            (&[b"imap"], false, "a mail reader led astray"),
        ] {
            assert_eq!(speaks(&server, &authority, alpn).await, expected, "{why}");
        }
    }
}
