//! What a peer's certificate proves. The only maker of [`TlsFacts`].
//!
//! The handshake's signature is always verified: who is connected holds the key of the certificate
//! shown. Whether anybody vouches for that certificate is found out beside it and recorded, not
//! enforced: one level asks for a chain, another for a fingerprint, another for nothing, and policy
//! compares.

mod client;
mod dane;

pub(super) use client::{Identity, Ours};

use crate::{
    clock::Clock,
    net::provider,
    policy::{DaneVerdict, TlsFacts, TlsaSet},
    wire::Stream,
};
use dane::Chain;
use data_encoding::HEXLOWER;
use jiff::Timestamp;
use rustls::{
    CertificateError, ClientConfig, CommonState, DigitallySignedStruct, Error as TlsError,
    RootCertStore, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{
        WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
        verify_tls13_signature_with_raw_key,
    },
    pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime, pem::PemObject},
    server::ParsedCertificate,
    time_provider::TimeProvider,
    version,
};
use sha2::{Digest, Sha256};
use std::{
    fmt, fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Version};

/// Names of a certificate that are read; certificates of public authorities hold a hundred at most.
const MAX_NAMES: usize = 300;

/// Trust anchors that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file that cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file without certificates.
    #[error("{0}: holds no certificate in PEM form (\"-----BEGIN CERTIFICATE-----\")")]
    Empty(String),
    /// A certificate that cannot be an anchor.
    #[error("{source_name}: certificate {number} cannot be a trust anchor: {reason}")]
    Bad {
        /// The file.
        source_name: String,
        /// Which, from 1.
        number: usize,
        /// Why.
        reason: String,
    },
}

/// Certificates that we take as the end of a chain.
#[derive(Clone)]
pub struct TrustAnchors {
    roots: Arc<RootCertStore>,
    source: String,
}

impl fmt::Debug for TrustAnchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustAnchors({} from {})", self.roots.len(), self.source)
    }
}

impl TrustAnchors {
    /// Those of a PEM file; without one the system's; where it has none, Mozilla's as built in.
    pub fn load(path: Option<&Path>) -> Result<Self, TrustError> {
        if let Some(path) = path {
            let pem = fs::read(path)
                .map_err(|source| TrustError::Read { path: path.to_owned(), source })?;
            return Self::from_pem(&pem, &path.display().to_string());
        }
        let mut roots = RootCertStore::empty();
        let (found, _) =
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if found > 0 {
            return Ok(Self { roots: Arc::new(roots), source: "the system".into() });
        }
        let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
        Ok(Self { roots: Arc::new(roots), source: "the built-in Mozilla set".into() })
    }

    /// Those of a PEM text; every certificate in it must be usable.
    pub fn from_pem(pem: &[u8], source: &str) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        for (number, certificate) in (1..).zip(CertificateDer::pem_slice_iter(pem)) {
            let bad =
                |reason: String| TrustError::Bad { source_name: source.to_owned(), number, reason };
            let certificate = certificate.map_err(|e| bad(e.to_string()))?;
            roots.add(certificate).map_err(|e| bad(e.to_string()))?;
        }
        if roots.is_empty() {
            return Err(TrustError::Empty(source.to_owned()));
        }
        Ok(Self { roots: Arc::new(roots), source: source.to_owned() })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.roots.len()
    }
}

/// What a handshake is run with, and what the peer's certificate is held against.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    /// The only ones.
    pub(super) anchors: TrustAnchors,
    /// At least TLS 1.3.
    pub(super) min_tls13: bool,
    /// TLSA records.
    pub(super) tlsa: Option<TlsaSet>,
    /// Shown if the peer asks for it.
    pub(super) identity: Option<Identity>,
}

/// A handshake with one peer. Each has its own configuration, without resumption: a resumed session
/// would skip the judgement.
pub(super) struct Handshake {
    judge: Arc<Judge>,
    ours: Arc<Ours>,
    config: ClientConfig,
}

impl Handshake {
    pub(super) fn new(terms: Terms, clock: Arc<dyn Clock>) -> Result<Self, TlsError> {
        let provider = provider();
        let judge = Arc::new(Judge {
            roots: terms.anchors.roots,
            tlsa: terms.tlsa,
            algorithms: provider.signature_verification_algorithms,
            verdict: OnceLock::new(),
        });
        let ours = Arc::new(Ours::new(terms.identity));
        let verifier: Arc<dyn ServerCertVerifier> = judge.clone();
        let resolver: Arc<dyn ResolvesClientCert> = ours.clone();
        let versions: &[_] =
            if terms.min_tls13 { &[&version::TLS13] } else { &[&version::TLS13, &version::TLS12] };
        let mut config = ClientConfig::builder_with_details(provider, Arc::new(Now(clock)))
            .with_protocol_versions(versions)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(resolver);
        config.resumption = Resumption::disabled();
        Ok(Self { judge, ours, config })
    }

    /// Our side of mutual TLS, to be asked when the peer has broken off. In TLS 1.3 it judges our
    /// certificate after the handshake is done for us (RFC 8446 §4.4.2.4).
    pub(super) fn ours(&self) -> Arc<Ours> {
        Arc::clone(&self.ours)
    }

    /// Runs it. SNI is `name`; a host given by address gets none (RFC 6066 §3).
    pub(super) async fn run(
        self,
        plain: Box<dyn Stream>,
        name: ServerName<'static>,
    ) -> io::Result<(TlsStream<Box<dyn Stream>>, TlsFacts)> {
        let stream = TlsConnector::from(Arc::new(self.config)).connect(name, plain).await?;
        let facts = facts_of(stream.get_ref().1, self.judge.verdict.get());
        Ok((stream, facts))
    }
}

/// TLS for HTTPS: the certificate must chain to an anchor and bear the host's name, or there is no
/// connection. TLS 1.2 at least (RFC 8461 §3.3); no resumption.
pub(super) fn https_config(
    anchors: &TrustAnchors,
    clock: Arc<dyn Clock>,
) -> Result<ClientConfig, TlsError> {
    let mut config = ClientConfig::builder_with_details(provider(), Arc::new(Now(clock)))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
        .with_root_certificates(Arc::clone(&anchors.roots))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The clock, as rustls asks for it.
#[derive(Debug)]
struct Now(Arc<dyn Clock>);

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// Verifies the handshake, and notes what the chain is worth.
#[derive(Debug)]
struct Judge {
    roots: Arc<RootCertStore>,
    tlsa: Option<TlsaSet>,
    algorithms: WebPkiSupportedAlgorithms,
    verdict: OnceLock<Verdict>,
}

/// What the certificate is worth.
#[derive(Debug)]
struct Verdict {
    /// `None`: the chain is good.
    chain_error: Option<String>,
    /// By the TLSA records, where there are any.
    dane: Option<DaneVerdict>,
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let judged = ParsedCertificate::try_from(end_entity).and_then(|leaf| {
            verify_server_cert_signed_by_trust_anchor(
                &leaf,
                &self.roots,
                intermediates,
                now,
                self.algorithms.all,
            )
        });
        let chain =
            Chain { leaf: end_entity, above: intermediates, now, algorithms: self.algorithms };
        let _ = self.verdict.set(Verdict {
            chain_error: judged.err().map(|error| reason(&error, end_entity)),
            dane: self.tlsa.as_ref().map(|set| chain.verdict(set)),
        });
        // Not "trusted": policy reads the verdict before any content moves.
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        if ParsedCertificate::try_from(cert).is_ok() {
            return verify_tls12_signature(message, cert, dss, &self.algorithms);
        }
        let spki = public_key(cert).ok_or(CertificateError::BadEncoding)?;
        verify_tls12_by_key(message, &spki, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        if ParsedCertificate::try_from(cert).is_ok() {
            return verify_tls13_signature(message, cert, dss, &self.algorithms);
        }
        // A certificate that webpki does not read (X.509 version 1): its key alone.
        let spki =
            SubjectPublicKeyInfoDer::from(public_key(cert).ok_or(CertificateError::BadEncoding)?);
        verify_tls13_signature_with_raw_key(message, &spki, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn public_key(cert: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(cert).ok()?;
    Some(parsed.tbs_certificate.subject_pki.raw.to_vec())
}

/// TLS 1.2 does not bind a scheme to a key type (RFC 5246 §7.4.1.4.1): every algorithm of the
/// scheme whose key type is this key's is tried.
fn verify_tls12_by_key(
    message: &[u8],
    spki: &[u8],
    dss: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, TlsError> {
    let (identifier, key) = split_spki(spki).ok_or(CertificateError::BadEncoding)?;
    let candidates = algorithms.mapping.iter().filter(|(scheme, _)| *scheme == dss.scheme);
    for algorithm in candidates.flat_map(|(_, list)| list.iter()) {
        if algorithm.public_key_alg_id().as_ref() == identifier
            && algorithm.verify_signature(key, message, dss.signature()).is_ok()
        {
            return Ok(HandshakeSignatureValid::assertion());
        }
    }
    Err(CertificateError::BadSignature.into())
}

/// RFC 5280 §4.1: `SubjectPublicKeyInfo ::= SEQUENCE { algorithm SEQUENCE { … }, subjectPublicKey
/// BIT STRING }`; gives the inside of the algorithm and the key's bits.
fn split_spki(spki: &[u8]) -> Option<(&[u8], &[u8])> {
    let (inside, _) = der_value(spki, 0x30)?;
    let (identifier, rest) = der_value(inside, 0x30)?;
    let (bits, _) = der_value(rest, 0x03)?;
    let (unused, key) = bits.split_first()?;
    (*unused == 0).then_some((identifier, key))
}

/// The value of a DER element with that tag, and what follows it.
fn der_value(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match *first {
        short @ 0..0x80 => (usize::from(short), rest),
        0x81 => rest.split_first().map(|(a, rest)| (usize::from(*a), rest))?,
        0x82 => {
            let (two, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*two)), rest)
        }
        0x80 | 0x83.. => return None,
    };
    (*found == tag).then(|| rest.split_at_checked(length)).flatten()
}

/// What was negotiated and shown. Without a verdict the chain counts as unproven.
fn facts_of(connection: &CommonState, verdict: Option<&Verdict>) -> TlsFacts {
    let der: &[u8] = connection
        .peer_certificates()
        .and_then(|chain| chain.first())
        .map(CertificateDer::as_ref)
        .unwrap_or_default();
    let leaf = X509Certificate::from_der(der).ok().map(|(_, leaf)| leaf);
    TlsFacts {
        version: version_of(connection),
        cipher: cipher_of(connection),
        group: group_of(connection),
        chain_error: verdict
            .map_or_else(|| Some("no certificate was judged".into()), |v| v.chain_error.clone()),
        names: leaf.as_ref().map(names_of).unwrap_or_default(),
        fingerprint: sha256(der),
        key_fingerprint: leaf
            .as_ref()
            .map(|leaf| sha256(leaf.tbs_certificate.subject_pki.raw))
            .unwrap_or_default(),
        not_after: leaf
            .and_then(|leaf| Timestamp::from_second(leaf.validity().not_after.timestamp()).ok()),
        dane: verdict.and_then(|v| v.dane.clone()),
    }
}

/// `TLSv1.3 TLS_AES_256_GCM_SHA384 X25519MLKEM768`
pub(super) fn describe(connection: &CommonState) -> String {
    let words = [version_of(connection), cipher_of(connection)];
    let words: Vec<_> = words.into_iter().chain(group_of(connection)).collect();
    words.join(" ")
}

/// The name of the IANA registry for all groups that are offered here.
fn group_of(connection: &CommonState) -> Option<String> {
    connection.negotiated_key_exchange_group().map(|group| format!("{:?}", group.name()))
}

fn version_of(connection: &CommonState) -> String {
    let name = connection.protocol_version().map(|v| format!("{v:?}")).unwrap_or_default();
    name.replacen('_', ".", 1)
}

/// The name of RFC 8446 §B.4; rustls writes `TLS13_` for the suites of TLS 1.3.
fn cipher_of(connection: &CommonState) -> String {
    let name = connection
        .negotiated_cipher_suite()
        .map(|s| format!("{:?}", s.suite()))
        .unwrap_or_default();
    name.replacen("TLS13_", "TLS_", 1)
}

fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

/// DNS and IP names of the subjectAltName, lower case. The common name never counts (RFC 9525 §2).
fn names_of(leaf: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = leaf.subject_alternative_name() else { return Vec::new() };
    extension.value.general_names.iter().filter_map(name_of).take(MAX_NAMES).collect()
}

fn name_of(name: &GeneralName<'_>) -> Option<String> {
    if let GeneralName::DNSName(name) = name {
        let printable = name.len() <= 255 && name.bytes().all(|b| b.is_ascii_graphic());
        return printable.then(|| name.to_ascii_lowercase());
    }
    let GeneralName::IPAddress(bytes) = name else { return None };
    let v4 = <[u8; 4]>::try_from(*bytes).map(|b| IpAddr::from(Ipv4Addr::from(b)));
    let address =
        v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(|b| IpAddr::from(Ipv6Addr::from(b))));
    address.ok().map(|address| address.to_string())
}

/// Why a chain is not good, for people.
fn reason(error: &TlsError, leaf: &CertificateDer<'_>) -> String {
    let parsed = X509Certificate::from_der(leaf).ok().map(|(_, leaf)| leaf);
    if parsed.as_ref().is_some_and(|leaf| leaf.version() != X509Version::V3) {
        return "the certificate is of an X.509 version before 3".into();
    }
    let TlsError::InvalidCertificate(error) = error else { return error.to_string() };
    let self_signed = parsed.is_some_and(|leaf| leaf.subject() == leaf.issuer());
    if let CertificateError::ExpiredContext { not_after, .. } = error {
        return format!("certificate expired on {}", day_of(*not_after));
    }
    if let CertificateError::NotValidYetContext { not_before, .. } = error {
        return format!("certificate is not valid before {}", day_of(*not_before));
    }
    if matches!(error, CertificateError::UnknownIssuer) && self_signed {
        return "self-signed certificate".into();
    }
    if matches!(error, CertificateError::UnknownIssuer) {
        return "unknown issuer: no chain to a trust anchor".into();
    }
    if matches!(error, CertificateError::InvalidPurposeContext { .. }) {
        return "the certificate is not meant for servers (extended key usage)".into();
    }
    if matches!(error, CertificateError::BadSignature) {
        return "a signature in the chain is wrong".into();
    }
    let text = error.to_string();
    if text.contains("CaUsedAsEndEntity") {
        let kind = if self_signed { "self-signed CA certificate" } else { "CA certificate" };
        return format!("{kind} used as a leaf");
    }
    super::bounded(&text)
}

fn day_of(time: UnixTime) -> String {
    day(i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}

fn day(seconds: i64) -> String {
    Timestamp::from_second(seconds)
        .map_or_else(|_| "a day out of range".into(), |t| t.strftime("%Y-%m-%d").to_string())
}

#[cfg(test)]
mod tests;
