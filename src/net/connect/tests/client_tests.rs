//! Mutual TLS: what we show, to whom, and what happens without.

use super::*;
use crate::{
    net::testing::{Leaf, asking_config},
    policy::file::ClientKey,
};
use rcgen::date_time_ymd;
use std::path::Path;

/// A certificate for us that is good on any day: servers of these tests look at the real clock.
fn our_certificate(authority: &Authority) -> Leaf {
    authority.issue(&["gw.example.org"], |params| {
        params.not_before = date_time_ymd(1990, 1, 1);
        params.not_after = date_time_ymd(2190, 1, 1);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    })
}

/// A host that asks for a certificate of that authority.
async fn asking(clients: &Authority, insists: bool, tls_1_2: bool) -> Server {
    let leaf = self_signed(&["mx.partner.test"], |_| {});
    let versions = if tls_1_2 { OLD } else { BOTH };
    let tls = asking_config(&leaf, clients, insists, versions);
    Server::start(Script { tls: Some(tls), ..Script::default() }).await
}

fn shows(folder: &Path) -> Requirement {
    let path = |name: &str| folder.join(name).display().to_string();
    let client = ClientKey { certificate: path("cert.pem"), key: path("key.pem") };
    Requirement { client: Some(client), ..need(TlsUse::Always) }
}

#[tokio::test]
async fn our_certificate_is_shown_to_a_host_that_asks() {
    let (clients, strangers) = (Authority::named("Clients"), Authority::named("Strangers"));
    let folder = tempfile::tempdir().unwrap();
    let dialer = dialer(good().0);
    let requirement = shows(folder.path());
    for tls_1_2 in [false, true] {
        our_certificate(&clients).store(folder.path());
        for insists in [false, true] {
            let server = asking(&clients, insists, tls_1_2).await;
            tls_of(&dialer, &server, &requirement).await;
        }
        // Nobody asked, nothing shown.
        tls_of(&dialer, &Server::start(good().1).await, &requirement).await;
        // The files changed: now it is one that the host does not know.
        our_certificate(&strangers).store(folder.path());
        let server = asking(&clients, true, tls_1_2).await;
        let (trouble, detail) = failure(&dialer, &server, &requirement).await;
        assert_eq!(trouble, Trouble::Handshake, "{detail}");
        assert!(detail.ends_with("seems not to take the one we show"), "{detail}");
    }
}

#[tokio::test]
async fn a_host_that_insists_on_our_certificate_is_told_from_one_that_is_away() {
    let clients = Authority::named("Clients");
    let dialer = dialer(good().0);
    for tls_1_2 in [false, true] {
        let server = asking(&clients, true, tls_1_2).await;
        let (trouble, detail) = failure(&dialer, &server, &need(TlsUse::Always)).await;
        assert_eq!(trouble, Trouble::Handshake, "{detail}");
        assert!(detail.contains("the host asked for our certificate and seems to insist"));
        assert!(detail.contains("client_certificate"), "{detail}");
        // Where TLS is a favour, its failure is no hindrance, early or late.
        let peer = connect(&dialer, &server, TlsUse::IfOffered).await.ok().unwrap();
        assert_eq!(peer.facts().tls, StartTls::NotTried);
        // Who only asks gets on without.
        let server = asking(&clients, false, tls_1_2).await;
        tls_of(&dialer, &server, &need(TlsUse::Always)).await;
    }
}

#[tokio::test]
async fn a_certificate_of_ours_that_cannot_be_used_is_named_without_its_secret() {
    let clients = Authority::named("Clients");
    let server = asking(&clients, true, false).await;
    let folder = tempfile::tempdir().unwrap();
    let mut dialer = dialer(good().0);
    dialer.files = PolicyFiles::new(folder.path().to_owned());
    let client = ClientKey { certificate: "cert.pem".to_owned(), key: "key.pem".to_owned() };
    let requirement = Requirement { client: Some(client), ..need(TlsUse::Always) };
    let ours = our_certificate(&clients);
    let secret = ours.key.serialize_pem();
    let (certificate, key) = ours.store(folder.path());
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let rows = [
        ("key.pem: holds no private key", &key, Some("-----BEGIN nothing")),
        ("the key does not belong to the first certificate", &key, Some(other.as_str())),
        ("key.pem: cannot be read", &key, None),
        ("cert.pem: holds no certificate", &certificate, Some(secret.as_str())),
        ("cert.pem: cannot be read", &certificate, None),
    ];
    for (expected, path, text) in rows {
        ours.store(folder.path());
        tls_of(&dialer, &server, &requirement).await;
        match text {
            Some(text) => std::fs::write(path, text).unwrap(),
            None => std::fs::remove_file(path).unwrap(),
        }
        let seen = server.connections();
        let (trouble, detail) = failure(&dialer, &server, &requirement).await;
        assert_eq!(trouble, Trouble::Ours, "{detail}");
        assert!(detail.starts_with("client_certificate and client_key: "), "{detail}");
        assert!(detail.contains(expected), "{detail}");
        assert!(!detail.contains("BEGIN PRIVATE"), "{detail}");
        assert_eq!(server.connections(), seen, "no host is troubled with it");
    }
    let shown = format!("{dialer:?}");
    assert!(shown.contains("Identity") && !shown.contains("PRIVATE"), "{shown}");
    assert!(!shown.contains(&format!("{:?}", ours.key.serialize_der())), "{shown}");
}
