//! Mail comes in and goes out over TLS whose keys a quantum computer will not find.

use crate::support::{
    house::{House, PARTNER_FILE},
    pki::Pki,
    sink::{Manner, Sink},
    smtp::Conversation,
    wait_for,
};
use rustls::NamedGroup;

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
    // STARTTLS with what rustls offers by itself.
    let mut mta = Conversation::open(house.gateway.smtp);
    mta.say("EHLO mta.example.org", "250");
    let mut mta = mta.start_tls("gw.example.org", &house.pki.anchors);
    mta.say("EHLO mta.example.org", "250");
    let group = mta.stream().conn.negotiated_key_exchange_group().map(|group| group.name());
    assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
    mta.say("MAIL FROM:<a@example.org>", "250");
    mta.say("RCPT TO:<b@partner.test>", "250");
    mta.say("DATA", "354");
    mta.raw(b"Subject: x\r\n\r\nhello\r\n.\r\n");
    let reply = mta.expect("250 2.0.0 Ok: queued as ");
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
