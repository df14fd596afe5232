use super::*;
use crate::net::testing::{Authority, Leaf, pem, self_signed, server_config, today};
use rcgen::{
    BasicConstraints, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use rustls::{ServerConfig, SupportedProtocolVersion};
use tokio_rustls::TlsAcceptor;

pub(super) const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
pub(super) const OLD: &[&SupportedProtocolVersion] = &[&version::TLS12];

pub(super) fn anchors(authority: &Authority) -> TrustAnchors {
    TrustAnchors::from_pem(authority.pem().as_bytes(), "test").unwrap()
}

async fn shake(
    anchors: &TrustAnchors,
    leaf: &CertificateDer<'static>,
    key: &KeyPair,
    versions: &[&'static SupportedProtocolVersion],
    min_tls13: bool,
) -> io::Result<TlsFacts> {
    let terms = Terms { min_tls13, ..plain(anchors) };
    run(terms, server_config(leaf, key, versions)).await
}

pub(super) fn plain(anchors: &TrustAnchors) -> Terms {
    Terms { anchors: anchors.clone(), min_tls13: false, tlsa: None, identity: None }
}

pub(super) async fn run(terms: Terms, server: Arc<ServerConfig>) -> io::Result<TlsFacts> {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let acceptor = TlsAcceptor::from(server);
    let server = tokio::spawn(async move { acceptor.accept(theirs).await.map(drop) });
    let handshake = Handshake::new(terms, today()).unwrap();
    let name = ServerName::try_from("mx.partner.test").unwrap();
    let outcome = handshake.run(Box::new(ours), name).await.map(|(_, facts)| facts);
    server.abort();
    outcome
}

async fn facts(anchors: &TrustAnchors, leaf: &Leaf) -> TlsFacts {
    shake(anchors, &leaf.der, &leaf.key, BOTH, false).await.unwrap()
}

#[tokio::test]
async fn a_good_chain_and_all_that_was_seen() {
    let authority = Authority::new();
    let names = ["MX.Partner.test", "*.mail.partner.test", "192.0.2.7", "2001:db8::7"];
    let leaf = authority.issue(&names, |_| {});
    let facts = facts(&anchors(&authority), &leaf).await;
    assert_eq!(facts.chain_error, None);
    assert_eq!(facts.version, "TLSv1.3");
    assert!(facts.cipher.starts_with("TLS_AES_"), "{}", facts.cipher);
    assert_eq!(facts.group.as_deref(), Some("X25519MLKEM768"));
    assert_eq!(facts.names, ["mx.partner.test", "*.mail.partner.test", "192.0.2.7", "2001:db8::7"]);
    assert_eq!(facts.fingerprint, sha256(&leaf.der));
    assert_eq!(facts.key_fingerprint, sha256(&public_key(&leaf.der).unwrap()));
    assert_eq!(facts.not_after, Some("2027-01-01T00:00:00Z".parse().unwrap()));
}

#[tokio::test]
async fn tls_1_2_is_named_as_it_is_and_refused_where_1_3_is_asked() {
    let authority = Authority::new();
    let leaf = authority.issue(&["mx.partner.test"], |_| {});
    let anchors = anchors(&authority);
    let facts = shake(&anchors, &leaf.der, &leaf.key, OLD, false).await.unwrap();
    assert_eq!((facts.version.as_str(), facts.chain_error), ("TLSv1.2", None));
    assert!(facts.cipher.starts_with("TLS_ECDHE_ECDSA_WITH_"), "{}", facts.cipher);
    assert!(shake(&anchors, &leaf.der, &leaf.key, OLD, true).await.is_err());
    assert!(shake(&anchors, &leaf.der, &leaf.key, BOTH, true).await.is_ok());
}

#[tokio::test]
async fn a_chain_that_is_not_good_is_recorded_with_its_reason() {
    let authority = Authority::new();
    let ours = anchors(&authority);
    let names = &["mx.partner.test"];
    let rows = [
        (
            "certificate expired on 2026-01-02",
            authority.issue(names, |p| p.not_after = date_time_ymd(2026, 1, 2)),
        ),
        (
            "certificate is not valid before 2026-12-01",
            authority.issue(names, |p| p.not_before = date_time_ymd(2026, 12, 1)),
        ),
        (
            "the certificate is not meant for servers (extended key usage)",
            authority.issue(names, |p| {
                p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }),
        ),
        (
            "unknown issuer: no chain to a trust anchor",
            Authority::named("Other").issue(names, |_| {}),
        ),
        ("a signature in the chain is wrong", Authority::new().issue(names, |_| {})), // a namesake
        ("self-signed certificate", self_signed(names, |_| {})),
        (
            "self-signed CA certificate used as a leaf",
            self_signed(names, |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        ),
    ];
    for (reason, leaf) in rows {
        assert_eq!(facts(&ours, &leaf).await.chain_error.as_deref(), Some(reason));
    }
}

#[tokio::test]
async fn a_self_signed_certificate_named_as_anchor_is_good() {
    let leaf = self_signed(&["mx.partner.test"], |_| {});
    let anchors = TrustAnchors::from_pem(pem(&leaf.der).as_bytes(), "partner.pem").unwrap();
    assert_eq!(facts(&anchors, &leaf).await.chain_error, None);
}

#[tokio::test]
async fn who_shows_a_certificate_without_its_key_is_not_let_in() {
    let authority = Authority::new();
    let leaf = authority.issue(&["mx.partner.test"], |_| {});
    let other = KeyPair::generate().unwrap();
    let v1 = version_1(&leaf.key);
    for versions in [BOTH, OLD] {
        for shown in [&leaf.der, &v1] {
            let outcome = shake(&anchors(&authority), shown, &other, versions, false).await;
            assert!(outcome.is_err());
        }
    }
}

#[tokio::test]
async fn a_version_1_certificate_connects_by_its_key_and_proves_no_chain() {
    let anchors = anchors(&Authority::new());
    let key = KeyPair::generate().unwrap();
    let shown = version_1(&key);
    for versions in [BOTH, OLD] {
        let facts = shake(&anchors, &shown, &key, versions, false).await.unwrap();
        assert_eq!(
            facts.chain_error.as_deref(),
            Some("the certificate is of an X.509 version before 3")
        );
        assert_eq!(facts.key_fingerprint, sha256(&public_key(&shown).unwrap()));
        assert!(facts.names.is_empty());
    }
}

#[tokio::test]
async fn odd_certificates_connect_and_show_what_a_pin_is_held_against() {
    let authority = Authority::new();
    let ours = anchors(&authority);
    let names = &["mx.partner.test"];
    let key = KeyPair::generate().unwrap();
    let rows = [
        ("self-signed", self_signed(names, |_| {}), 1),
        (
            "CA:TRUE as a leaf",
            self_signed(names, |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            1,
        ),
        (
            "common name only",
            authority.issue(&[], |p| {
                p.distinguished_name = DistinguishedName::new();
                p.distinguished_name.push(DnType::CommonName, "mx.partner.test");
            }),
            0,
        ),
        ("expired", authority.issue(names, |p| p.not_after = date_time_ymd(2026, 1, 2)), 1),
        ("not yet", authority.issue(names, |p| p.not_before = date_time_ymd(2026, 12, 1)), 1),
        ("X.509 version 1", Leaf { der: version_1(&key), key }, 0),
    ];
    for (why, leaf, names) in rows {
        for versions in [BOTH, OLD] {
            let facts = shake(&ours, &leaf.der, &leaf.key, versions, false).await.unwrap();
            let key = rcgen::PublicKeyData::subject_public_key_info(&leaf.key);
            assert_eq!(facts.fingerprint, sha256(&leaf.der), "{why}");
            assert_eq!(facts.key_fingerprint, sha256(&key), "{why}");
            assert_eq!((facts.names.len(), facts.dane), (names, None), "{why}");
        }
    }
}

/// A DER element; lengths below 65,536.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let value = parts.concat();
    let length = u16::try_from(value.len()).unwrap();
    let mut out = vec![tag];
    match length {
        0..0x80 => out.push(length as u8),
        0x80..0x100 => out.extend([0x81, length as u8]),
        0x100.. => {
            out.push(0x82);
            out.extend(length.to_be_bytes());
        }
    }
    out.extend(value);
    out
}

/// A certificate without version and extensions (X.509 version 1). Its own signature is never
/// looked at.
pub(super) fn version_1(key: &KeyPair) -> CertificateDer<'static> {
    let ecdsa_sha256 = der(0x30, &[&der(0x06, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]])]);
    let common = der(0x30, &[&der(0x06, &[&[0x55, 4, 3]]), &der(0x0c, &[b"old.partner.test"])]);
    let name = der(0x30, &[&der(0x31, &[&common])]);
    let dates = der(0x30, &[&der(0x17, &[b"200101000000Z"]), &der(0x17, &[b"300101000000Z"])]);
    let spki = rcgen::PublicKeyData::subject_public_key_info(key);
    let serial = der(0x02, &[&[1]]);
    let body = der(0x30, &[&serial, &ecdsa_sha256, &name, &dates, &name, &spki]);
    der(0x30, &[&body, &ecdsa_sha256, &der(0x03, &[&[0, 1, 2, 3]])]).into()
}

#[test]
fn anchors_come_from_the_file_or_from_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let load = |text: &str| {
        fs::write(&path, text).unwrap();
        TrustAnchors::load(Some(&path)).map(|a| a.count()).map_err(|e| {
            let text = e.to_string();
            text.replace(&path.display().to_string(), "FILE")
        })
    };
    let two = Authority::new().pem() + &Authority::new().pem();
    assert_eq!(load(&two), Ok(2));
    let none = "FILE: holds no certificate in PEM form (\"-----BEGIN CERTIFICATE-----\")";
    assert_eq!(load("nothing here"), Err(none.into()));
    let broken = two + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(load(&broken).unwrap_err().starts_with("FILE: certificate 3 cannot be"));
    fs::remove_file(&path).unwrap();
    let error = TrustAnchors::load(Some(&path)).unwrap_err().to_string();
    assert!(error.contains("ca.pem: cannot be read"), "{error}");
    assert!(TrustAnchors::load(None).unwrap().count() > 10);
}

#[test]
fn der_elements_that_lie_are_refused() {
    for (bytes, why) in [
        (&[][..], "empty"),
        (&[0x30], "no length"),
        (&[0x30, 2, 0], "cut"),
        (&[0x30, 0x80, 0, 0], "indefinite length"),
        (&[0x30, 0x83, 0, 0, 0], "longer than any key"),
        (&[0x31, 0], "another tag"),
    ] {
        assert_eq!(der_value(bytes, 0x30), None, "{why}");
    }
    assert_eq!(der_value(&[0x30, 1, 9, 8], 0x30), Some((&[9][..], &[8][..])));
}
