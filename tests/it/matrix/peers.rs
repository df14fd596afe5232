//! The peers of the table: one mail host a kind, each with its own oddity and address.

use crate::support::{
    pki::Pki,
    sink::{Manner, Offer, Sink},
    wait_for,
};
use data_encoding::HEXLOWER;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
    date_time_ymd,
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use sha2::{Digest, Sha256};
use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

/// Every kind, in the order of the table.
pub const KINDS: [&str; 25] = [
    "no-starttls",
    "refused",
    "refused-502",
    "stripped",
    "injected",
    "self-signed",
    "ca-leaf",
    "x509-v1",
    "cn-only",
    "wrong-name",
    "expired",
    "not-yet-valid",
    "missing-intermediate",
    "unordered",
    "wrong-key",
    "wrong-key-12",
    "tls11",
    "client-wanted",
    "client-wanted-12",
    "client-shown",
    "renewed",
    "tls12",
    "good",
    "away",
    "bogus",
];

/// The name that the kind's host has where it publishes TLSA records.
pub fn host(kind: &str) -> String {
    format!("{kind}.mx.matrix.test")
}

/// The name of the same host where it publishes nothing.
pub fn bare_host(kind: &str) -> String {
    format!("{kind}.bare.matrix.test")
}

/// The kind's address; loopback has room for all.
pub fn ip(kind: &str) -> IpAddr {
    let number = KINDS.iter().position(|k| *k == kind).expect("a kind");
    IpAddr::from([127, 0, 40, u8::try_from(number).expect("few") + 11])
}

/// A mail host of one kind.
#[derive(Debug)]
pub struct Peer {
    /// `None`: nobody is at home.
    pub sink: Option<Sink>,
    /// What it shows. Hosts without TLS have one too, for those who want to pin it.
    pub shown: Shown,
    /// What it showed when others noted it.
    noted: Option<Shown>,
    _tls: Option<OldTls>,
}

/// A certificate chain, leaf first, and a key.
#[derive(Debug)]
pub struct Shown {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// The certificate that vouches for the first, PEM.
    issuer: String,
}

impl Shown {
    fn new(chain: Vec<CertificateDer<'static>>, key: &KeyPair, issuer: String) -> Self {
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("key");
        Self { chain, key, issuer }
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// SHA-256 of the certificate, hex.
    pub fn certificate_pin(&self) -> String {
        HEXLOWER.encode(&Sha256::digest(&self.chain[0]))
    }

    /// SHA-256 of its public key (SPKI), hex.
    pub fn key_pin(&self) -> String {
        key_pin(&self.chain[0])
    }

    /// The certificate, hex.
    pub fn certificate_hex(&self) -> String {
        HEXLOWER.encode(&self.chain[0])
    }

    pub fn issuer_pin(&self) -> String {
        key_pin(&CertificateDer::from_pem_slice(self.issuer.as_bytes()).expect("a certificate"))
    }
}

fn key_pin(certificate: &CertificateDer<'_>) -> String {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).expect("a certificate");
    HEXLOWER.encode(&Sha256::digest(parsed.tbs_certificate.subject_pki.raw))
}

impl Peer {
    /// Starts the kind's host at its address.
    pub fn start(dir: &Path, pki: &Pki, port: u16, kind: &'static str) -> Self {
        let shown = shown(dir, pki, kind);
        let mut tls = None;
        let with = |config: ServerConfig| Some(Offer::As(Arc::new(config)));
        let offer = match kind {
            "no-starttls" => None,
            "refused" => Some(Offer::Refused("454 4.7.0 TLS not available")),
            "refused-502" => Some(Offer::Refused("502 5.5.1 what is that")),
            "stripped" => Some(Offer::Stripped),
            "injected" => Some(Offer::Injected(Arc::new(config(&shown, &[&TLS12, &TLS13], None)))),
            "wrong-key-12" | "tls12" => with(config(&shown, &[&TLS12], None)),
            "client-wanted" | "client-shown" => with(config(&shown, &[&TLS12, &TLS13], Some(pki))),
            "client-wanted-12" => with(config(&shown, &[&TLS12], Some(pki))),
            "tls11" => {
                let old = OldTls::start(dir, &shown);
                let offer = Offer::By(old.address);
                tls = Some(old);
                Some(offer)
            }
            _ => with(config(&shown, &[&TLS12, &TLS13], None)),
        };
        let forge = Some(forged as fn(&str, usize) -> Option<&'static str>);
        let manner = Manner { starttls: offer, forge, ..Manner::default() };
        let at = SocketAddr::new(ip(kind), port);
        let noted = (kind == "renewed").then(|| self::shown(dir, pki, kind));
        let sink = (!matches!(kind, "away" | "bogus")).then(|| Sink::start(at, manner));
        Self { sink, shown, noted, _tls: tls }
    }

    /// What others pin.
    pub fn noted(&self) -> &Shown {
        self.noted.as_ref().unwrap_or(&self.shown)
    }

    /// The TLSA record that goes with it.
    pub fn tlsa(&self, kind: &str) -> String {
        match kind {
            "unordered" => format!("2 1 1 {}", self.shown.issuer_pin()),
            "expired" => format!("3 0 1 {}", self.shown.certificate_pin()),
            _ => format!("3 1 1 {}", self.noted().key_pin()),
        }
    }
}

/// The recipients whose first message each host keeps, and refuses in their name.
pub const FORGED: &str = "forged";

fn forged(to: &str, before: usize) -> Option<&'static str> {
    (to.starts_with("<forged@") && before == 0).then_some("550 5.1.1 no such user")
}

/// What the kind's host shows.
fn shown(dir: &Path, pki: &Pki, kind: &str) -> Shown {
    let key = KeyPair::generate().expect("key");
    let signed = |params: CertificateParams| {
        let leaf = params.signed_by(&key, pki.issuer()).expect("signed");
        Shown::new(vec![leaf.der().clone(), pki.issuer().der().clone()], &key, pki.issuer().pem())
    };
    let mut params = named(&[host(kind), bare_host(kind)]);
    match kind {
        "self-signed" => {
            let leaf = params.self_signed(&key).expect("signed");
            Shown::new(vec![leaf.der().clone()], &key, leaf.pem())
        }
        "ca-leaf" => {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            signed(params)
        }
        "x509-v1" => version_1(dir, pki, kind),
        "cn-only" => {
            params = CertificateParams::default();
            params.distinguished_name = common_name(&host(kind));
            signed(params)
        }
        "wrong-name" => signed(named(&["mx.elsewhere.test".to_owned()])),
        "expired" => {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
            signed(params)
        }
        "not-yet-valid" => {
            params.not_before = date_time_ymd(2090, 1, 1);
            params.not_after = date_time_ymd(2091, 1, 1);
            signed(params)
        }
        "missing-intermediate" => {
            let between = between(pki, "Between");
            let leaf = params.signed_by(&key, &between).expect("signed");
            Shown::new(vec![leaf.der().clone()], &key, between.pem())
        }
        "unordered" => {
            let upper = between(pki, "Upper");
            let lower = issuer_params("Lower");
            let lower = CertifiedIssuer::signed_by(lower, generated(), &upper).expect("signed");
            let leaf = params.signed_by(&key, &lower).expect("signed");
            let root = pki.issuer().der();
            let chain = [leaf.der(), root, upper.der(), lower.der()];
            Shown::new(chain.into_iter().cloned().collect(), &key, lower.pem())
        }
        // The certificate is public; the key that goes with it is not.
        "wrong-key" | "wrong-key-12" => {
            let right = signed(params);
            Shown { key: Shown::new(Vec::new(), &generated(), String::new()).key, ..right }
        }
        _ => signed(params),
    }
}

fn generated() -> KeyPair {
    KeyPair::generate().expect("key")
}

fn named(names: &[String]) -> CertificateParams {
    let mut params = CertificateParams::new(names.to_vec()).expect("names");
    params.distinguished_name = common_name(&names[0]);
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn issuer_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name = common_name(name);
    params
}

fn between(pki: &Pki, name: &str) -> CertifiedIssuer<'static, KeyPair> {
    CertifiedIssuer::signed_by(issuer_params(name), generated(), pki.issuer()).expect("signed")
}

/// X.509 version 1 has no extensions: a subject and a key. The crates that make certificates make
/// none of those.
fn version_1(dir: &Path, pki: &Pki, kind: &str) -> Shown {
    let at = |name: &str| dir.join(name).display().to_string();
    fs::write(dir.join("issuer.key"), pki.issuer().key().serialize_pem()).expect("write");
    let key = generated();
    fs::write(dir.join("v1.key"), key.serialize_pem()).expect("write");
    let subject = format!("/CN={}", host(kind));
    openssl(&["req", "-new", "-key", &at("v1.key"), "-subj", &subject, "-out", &at("v1.csr")]);
    let (csr, pem, issuer) = (at("v1.csr"), at("v1.pem"), at("issuer.key"));
    let ca = pki.anchors.display().to_string();
    openssl(&[
        "x509",
        "-req",
        "-in",
        &csr,
        "-CA",
        &ca,
        "-CAkey",
        &issuer,
        "-set_serial",
        "1",
        "-days",
        "30",
        "-out",
        &pem,
    ]);
    let leaf = CertificateDer::from_pem_file(pem).expect("a certificate");
    let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).expect("a certificate");
    assert_eq!(
        parsed.version(),
        x509_parser::x509::X509Version::V1,
        "openssl made another version"
    );
    Shown::new(vec![leaf.clone(), pki.issuer().der().clone()], &key, pki.issuer().pem())
}

fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output().expect("openssl is installed");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// TLS with that certificate, whether it fits its key or not.
fn config(
    shown: &Shown,
    versions: &[&'static rustls::SupportedProtocolVersion],
    asks: Option<&Pki>,
) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = provider.key_provider.load_private_key(shown.key.clone_key()).expect("a key");
    let shows = Arc::new(Always(Arc::new(CertifiedKey::new(shown.chain.clone(), key))));
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .expect("versions");
    let config = match asks {
        None => config.with_no_client_auth(),
        Some(pki) => {
            let mut roots = RootCertStore::empty();
            roots.add(pki.issuer().der().clone()).expect("an anchor");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            config.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
    };
    config.with_cert_resolver(shows)
}

/// Shows the same to everybody, without the look that rustls takes at a certificate and its key.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// OpenSSL's own server, which still speaks TLS 1.1 if one insists. What it is told it says backwards:
/// no SMTP.
#[derive(Debug)]
struct OldTls {
    address: SocketAddr,
    child: Child,
}

impl OldTls {
    fn start(dir: &Path, shown: &Shown) -> Self {
        let port = crate::support::free_port(&["127.0.0.1"]);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let (chain, key) = (dir.join("old.der"), dir.join("old.key.der"));
        fs::write(&chain, &shown.chain[0]).expect("write");
        fs::write(&key, shown.key.secret_der()).expect("write");
        let mut child = Command::new("openssl")
            .args(["s_server", "-rev", "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"])
            .args(["-certform", "DER", "-keyform", "DER", "-accept", &address.to_string()])
            .arg("-cert")
            .arg(chain)
            .arg("-key")
            .arg(key)
            // It would take the end of its input for the end of all.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.join("old.log")).expect("file"))
            .spawn()
            .expect("openssl is installed");
        wait_for("openssl s_server", || {
            if let Ok(Some(status)) = child.try_wait() {
                let log = fs::read_to_string(dir.join("old.log")).unwrap_or_default();
                panic!("openssl s_server ended with {status}: {log}");
            }
            TcpStream::connect(address).ok()
        });
        Self { address, child }
    }
}

impl Drop for OldTls {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
