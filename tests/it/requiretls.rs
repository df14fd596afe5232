//! What senders ask of TLS: REQUIRETLS holds on the whole way, and `TLS-Required: No` lowers nothing
//! (RFC 8689).

use crate::support::{
    house::{House, PARTNER_FILE},
    pki::Pki,
    sink::{Manner, Sink},
    smtp::{self, Conversation},
    wait_for,
};
use std::{fs, path::Path};

const MARKER: &str = "obsidianmarker";

/// The scene with a gateway that offers STARTTLS itself.
fn house(dir: &Path, partner: &str) -> (House, Pki) {
    let own = dir.join("own");
    fs::create_dir_all(&own).expect("folder");
    let pki = Pki::new(&own);
    let leaf = pki.leaf("gw.example.org");
    let house = House::open(dir, &[("partner.toml", partner)], |settings| {
        settings.smtp = format!(
            "certificate = {:?}\nkey = {:?}",
            leaf.chain.display().to_string(),
            leaf.key.display().to_string()
        );
    });
    (house, pki)
}

fn partner(house: &House, requiretls: bool) -> Sink {
    let tls = Some(house.pki.leaf("mx.partner.test"));
    Sink::start(house.partner_address(), Manner { tls, requiretls, ..Manner::default() })
}

/// Hands a message in that asks REQUIRETLS; returns its id.
fn hand_in(house: &House, pki: &Pki) -> String {
    let mut client = Conversation::open(house.gateway.smtp);
    client.say("EHLO mta.example.org", "250");
    let mut client = client.start_tls("gw.example.org", &pki.anchors);
    let offered = client.say("EHLO mta.example.org", "250");
    assert!(offered.contains("REQUIRETLS"), "{offered}");
    client.say("MAIL FROM:<bob@example.org> REQUIRETLS", "250");
    client.say("RCPT TO:<jane@partner.test>", "250");
    client.say("DATA", "354");
    client.raw(format!("From: bob@example.org\r\nSubject: x\r\n\r\n{MARKER}\r\n.\r\n").as_bytes());
    let reply = client.expect("250 2.0.0 Ok: queued as ");
    client.say("QUIT", "221");
    reply.trim().rsplit(' ').next().expect("an id").to_owned()
}

/// The recipient once it has come to an end, or waits after an attempt.
fn settled(house: &House, id: &str) -> serde_json::Value {
    wait_for("an outcome", || {
        let recipient = house.gateway.json(&["trace", id])["recipients"][0].clone();
        (recipient["outcome"] != "queued").then_some(recipient)
    })
}

fn holds_marker(sink: &Sink) -> bool {
    memchr::memmem::find(&sink.bytes(), MARKER.as_bytes()).is_some()
}

#[test]
fn a_next_hop_that_promises_it_is_asked_for_it() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (house, pki) = house(dir.path(), PARTNER_FILE.1);
    let partner = partner(&house, true);
    let id = hand_in(&house, &pki);
    let message = wait_for("mail at the partner's", || partner.messages().first().cloned());
    assert!(message.over_tls && message.from.starts_with("<bob@example.org>"), "{message:?}");
    let asked: Vec<_> = message.from.split(' ').filter(|word| *word == "REQUIRETLS").collect();
    assert_eq!(asked.len(), 1, "{}", message.from);
    assert_eq!(settled(&house, &id)["outcome"], "delivered");
}

#[test]
fn a_next_hop_that_does_not_is_sent_nothing_and_the_sender_hears_why() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (house, pki) = house(dir.path(), PARTNER_FILE.1);
    let partner = partner(&house, false);
    let id = hand_in(&house, &pki);
    let bounce = wait_for("the report", || house.inside.messages().first().cloned());
    let text = String::from_utf8_lossy(&bounce.content).into_owned();
    assert!(text.contains("Status: 5.7.30"), "{text}");
    assert!(!text.contains(MARKER), "headers alone: {text}");
    assert_eq!(settled(&house, &id)["outcome"], "bounced");
    assert!(partner.messages().is_empty() && !holds_marker(&partner));
}

#[test]
fn or_it_is_sealed_where_the_policy_says_so_and_the_notice_goes_as_always() {
    let dir = tempfile::tempdir().expect("temp dir");
    let policy = format!("{}requiretls = \"envelope\"\n", PARTNER_FILE.1);
    let (house, pki) = house(dir.path(), &policy);
    let partner = partner(&house, false);
    let id = hand_in(&house, &pki);
    // RFC 8689 §4.2.1 binds the message; the notice holds nothing of it.
    let notice = wait_for("the notice", || partner.messages().first().cloned());
    assert!(!notice.from.contains("REQUIRETLS"), "{}", notice.from);
    assert!(!holds_marker(&partner));
    let recipient = settled(&house, &id);
    assert_eq!(
        (&recipient["outcome"], &recipient["reason"]),
        (&"sealed".into(), &"cannot-carry".into())
    );
    assert!(house.inside.messages().is_empty());
}

#[test]
fn before_tls_it_is_neither_offered_nor_taken() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (house, _) = house(dir.path(), PARTNER_FILE.1);
    let mut client = Conversation::open(house.gateway.smtp);
    let offered = client.say("EHLO mta.example.org", "250");
    assert!(offered.contains("STARTTLS") && !offered.contains("REQUIRETLS"), "{offered}");
    client.say("MAIL FROM:<bob@example.org> REQUIRETLS", "555 5.5.4");
    client.say("MAIL FROM:<bob@example.org>", "250");
    client.say("QUIT", "221");
}

#[test]
fn tls_required_no_lowers_no_policy() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (house, _) = house(dir.path(), PARTNER_FILE.1);
    let wrong = Some(house.pki.leaf("elsewhere.test"));
    for (tls, reason) in [(wrong, "a certificate for another name"), (None, "no STARTTLS")] {
        let partner = Sink::start(house.partner_address(), Manner { tls, ..Manner::default() });
        let message =
            format!("From: bob@example.org\r\nTLS-Required: No\r\nSubject: x\r\n\r\n{MARKER}\r\n");
        let to = ["jane@partner.test", "ann@stranger.test"];
        let id = smtp::send(house.gateway.smtp, "bob@example.org", &to, message.as_bytes());
        let recipient = settled(&house, &id);
        assert_eq!(recipient["outcome"], "deferred", "{reason}: {recipient}");
        assert_eq!(recipient["reason"], "level-not-met", "{reason}: {recipient}");
        assert!(!holds_marker(&partner), "{reason}");
    }
    wait_for("both notices", || (house.stranger.messages().len() == 2).then_some(()));
    assert!(!holds_marker(&house.stranger), "nor does it open the envelope of a stranger");
}
