//! What senders want to hear of delivery (RFC 3461), on the whole way: a real Postfix as a partner
//! that offers DSN, and hosts that do not.

use crate::support::{
    house::{House, PARTNER_FILE},
    postfix::Postfix,
    sink::{Manner, Sink},
    smtp::Conversation,
    wait_for,
};

const MARKER: &str = "obsidianmarker";

/// Hands a message in that asks for every report; returns its id.
fn hand_in(house: &House, to: &str, notify: &str) -> String {
    let mut client = Conversation::open(house.gateway.smtp);
    let offered = client.say("EHLO mta.example.org", "250");
    assert!(offered.contains("DSN\r\n"), "{offered}");
    client.say("MAIL FROM:<bob@example.org> RET=HDRS ENVID=QQ+2B314159", "250");
    let rcpt = format!("RCPT TO:<{to}> NOTIFY={notify} ORCPT=rfc822;First+2BName@elsewhere.test");
    client.say(&rcpt, "250");
    client.say("DATA", "354");
    let message = format!("From: bob@example.org\r\nSubject: {MARKER}\r\n\r\n{MARKER}\r\n.\r\n");
    client.raw(message.as_bytes());
    let reply = client.expect("250 2.0.0 Ok: queued as ");
    client.say("QUIT", "221");
    reply.trim().rsplit(' ').next().expect("an id").to_owned()
}

fn settled(house: &House, id: &str) -> serde_json::Value {
    wait_for("an outcome", || {
        let life = house.gateway.json(&["trace", id]);
        (life["recipients"][0]["outcome"] != "queued").then_some(life)
    })
}

/// The first mail that the inside host got.
fn report(house: &House) -> String {
    let report = wait_for("a report inside", || house.inside.messages().first().cloned());
    assert!(report.from.starts_with("<>"), "{}", report.from);
    assert!(report.to[0].starts_with("<bob@example.org>"), "{:?}", report.to);
    String::from_utf8_lossy(&report.content).into_owned()
}

#[test]
fn a_partner_that_offers_dsn_is_told_and_reports_itself() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[PARTNER_FILE], |_| {});
    let mut settings = Postfix::mailbox_settings("partner.test");
    // Its reports go to the inside host, as the world's DNS would have it.
    let inside = house.inside.address;
    settings.push(format!("relayhost = [{}]:{}", inside.ip(), inside.port()));
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let leaf = house.pki.leaf("mx.partner.test");
    let partner =
        Postfix::start(dir.path(), house.partner_address(), "mx.partner.test", &leaf, &settings);
    let id = hand_in(&house, "nurse@partner.test", "SUCCESS,FAILURE");
    wait_for("mail at the partner's", || partner.mailbox().pop());

    let text = report(&house);
    for part in [
        "Reporting-MTA: dns; mx.partner.test",
        "Original-Envelope-Id: QQ+314159",
        "Original-Recipient: rfc822;First+Name@elsewhere.test",
        "Action: delivered",
    ] {
        assert!(text.contains(part), "{part}: Postfix heard it of us, and wrote {text}");
    }
    assert_eq!(settled(&house, &id)["recipients"][0]["outcome"], "delivered");
    assert_eq!(house.inside.messages().len(), 1, "no report of ours beside it");
}

#[test]
fn where_a_partner_does_not_the_gateway_says_relayed() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[PARTNER_FILE], |_| {});
    let tls = Some(house.pki.leaf("mx.partner.test"));
    let partner = Sink::start(house.partner_address(), Manner { tls, ..Manner::default() });
    let id = hand_in(&house, "nurse@partner.test", "SUCCESS,FAILURE");
    let text = report(&house);
    for part in [
        "Reporting-MTA: dns; gw.example.org\r\n",
        "Original-Envelope-Id: QQ+314159\r\n",
        "Original-Recipient: rfc822; First+Name@elsewhere.test\r\n",
        "Final-Recipient: rfc822; nurse@partner.test\r\nAction: relayed\r\nStatus: 2.0.0\r\n",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains(MARKER), "{text}");
    let message = partner.messages().remove(0);
    assert!(!message.from.contains("ENVID") && !message.from.contains("RET="), "{}", message.from);
    assert_eq!(message.to, ["<nurse@partner.test>"], "nothing that was not offered");

    let life = settled(&house, &id);
    assert_eq!((&life["envelope_id"], &life["ret"]), (&"QQ+314159".into(), &"HDRS".into()));
    let nurse = &life["recipients"][0];
    assert_eq!(nurse["outcome"], "delivered");
    assert_eq!(nurse["notify"], "SUCCESS,FAILURE");
    assert_eq!(nurse["orcpt"], "rfc822;First+Name@elsewhere.test");
}

#[test]
fn sealed_for_pickup_is_relayed_and_said_so() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[PARTNER_FILE], |_| {});
    hand_in(&house, "patient@stranger.test", "SUCCESS");
    let text = report(&house);
    assert!(text.contains("Action: relayed\r\n") && text.contains("picked up by"), "{text}");
    assert!(!text.contains(MARKER) && !text.contains("/m/"), "no content, no link: {text}");
    let notice = house.mail_to_stranger(1);
    assert_eq!(notice.to, ["<patient@stranger.test>"], "a notice asks for no reports");
}
