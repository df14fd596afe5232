//! Mail comes in and goes out over TLS whose keys a quantum computer will not find.

use crate::support::{
    house::{House, PARTNER_FILE},
    pki::Pki,
    sink::{Manner, Sink},
    smtp::Conversation,
    wait_for,
};
use rustls::{
    ClientConfig, ClientConnection, NamedGroup, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use std::{
    io::{BufRead, BufReader, Write},
    sync::Arc,
};

type Secured = BufReader<StreamOwned<ClientConnection, std::net::TcpStream>>;

/// STARTTLS with what rustls offers by itself.
fn secured(house: &House) -> Secured {
    let mut plain = Conversation::open(house.gateway.smtp);
    plain.say("EHLO mta.example.org", "250");
    plain.say("STARTTLS", "220");
    let mut roots = RootCertStore::empty();
    for anchor in CertificateDer::pem_file_iter(&house.pki.anchors).expect("anchors") {
        roots.add(anchor.expect("a certificate")).expect("an anchor");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("gw.example.org").expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("TLS");
    BufReader::new(StreamOwned::new(connection, plain.into_stream()))
}

fn say(stream: &mut Secured, text: &str, expected: &str) -> String {
    stream.get_mut().write_all(text.as_bytes()).expect("written");
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).expect("a reply");
        assert!(line.starts_with(expected), "expected {expected}, got {line:?}");
        if line.as_bytes().get(3) != Some(&b'-') {
            return line;
        }
    }
}

#[test]
fn trace_shows_the_key_exchange_of_both_directions() {
    let dir = tempfile::tempdir().expect("temp dir");
    let own = dir.path().join("own");
    std::fs::create_dir(&own).expect("folder");
    let ours = Pki::new(&own);
    let leaf = ours.leaf("gw.example.org");
    let mut house = House::open(dir.path(), &[PARTNER_FILE], |settings| {
        settings.smtp = format!("certificate = {:?}\nkey = {:?}", leaf.chain, leaf.key);
    });
    let manner = Manner { tls: Some(house.pki.leaf("mx.partner.test")), ..Manner::default() };
    let partner = Sink::start(house.partner_address(), manner);
    house.pki = ours;
    let mut stream = secured(&house);
    say(&mut stream, "EHLO mta.example.org\r\n", "250");
    let group = stream.get_ref().conn.negotiated_key_exchange_group().map(|group| group.name());
    assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
    say(&mut stream, "MAIL FROM:<a@example.org>\r\n", "250");
    say(&mut stream, "RCPT TO:<b@partner.test>\r\n", "250");
    say(&mut stream, "DATA\r\n", "354");
    let reply = say(&mut stream, "Subject: x\r\n\r\nhello\r\n.\r\n", "250 2.0.0 Ok: queued as ");
    let id = reply.trim().rsplit(' ').next().expect("an id");
    let life = wait_for("delivery", || {
        let life = house.gateway.json(&["trace", id]);
        (life["recipients"][0]["outcome"] == "delivered").then_some(life)
    });
    let inbound = life["client_tls"].as_str().unwrap_or_default();
    assert!(inbound.starts_with("TLSv1.3 TLS_"), "{inbound}");
    assert!(inbound.ends_with(" X25519MLKEM768"), "{inbound}");
    assert_eq!(life["recipients"][0]["attempts"][0]["tls"]["group"], "X25519MLKEM768");
    // The one added field says it too, and is still one field.
    let content = partner.messages().first().expect("a message").content.clone();
    let content = String::from_utf8(content).expect("ASCII");
    let header: Vec<_> = content.lines().take_while(|line| !line.starts_with("Subject:")).collect();
    assert!(header.first().is_some_and(|line| line.starts_with("Received: from ")), "{header:?}");
    assert!(header.iter().skip(1).all(|line| line.starts_with('\t')), "{header:?}");
    assert!(header.concat().contains("X25519MLKEM768)"), "{header:?}");
}
