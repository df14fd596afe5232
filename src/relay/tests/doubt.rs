//! Lines in doubt: noted before the grant, ended by a proof, and never for plain strangers.

use super::*;
use crate::{
    mail::{MailData, Pickup},
    store::{NoteKind, NoteStore},
};

const TO: &str = "bob@partner.example";
const FROM: Option<&str> = Some("ann@example.org");

async fn doubt(house: &House) -> bool {
    let note = house.store.note(NoteKind::Doubt, "partner.example").await;
    note.unwrap().is_some()
}

async fn proof(house: &House, id: QueueId) -> Option<crate::store::Proof> {
    let RecipientState::Granted { grant, .. } = house.row(id).await.state else { return None };
    house.relay.ports().people.grant(grant).await.unwrap().unwrap().proof
}

/// Sealed because STARTTLS was stripped for as long as the partner is retried.
async fn stripped(house: &House) -> QueueId {
    for host in ["mx1.partner.example", "mx2.partner.example"] {
        house.script(host, &[Play::Trouble(Trouble::NoStartTls)]);
    }
    let id = house.submit(FROM, &[TO]).await;
    house.pass().await;
    assert!(!doubt(house).await, "while it is retried nothing is in doubt yet");
    house.wait(3600);
    house.pass().await;
    id
}

#[tokio::test]
async fn a_level_that_was_not_met_puts_the_line_in_doubt_before_there_is_a_grant() {
    let house = House::new();
    let id = stripped(&house).await;
    assert!(doubt(&house).await);
    let proof = proof(&house, id).await.expect("more than the mailbox is asked");
    assert_eq!(proof.doubt, Some(house.clock.now()));
    let why = house.row(id).await.why.unwrap();
    assert_eq!(why.reason, Reason::LevelNotMet);
    assert!(why.text.contains("The line is in doubt: the reader needs"), "{}", why.text);
}

#[tokio::test]
async fn a_plain_stranger_is_in_no_doubt() {
    let house = House::new();
    let id = house.submit(FROM, &["eve@stranger.example"]).await;
    house.pass().await;
    assert!(proof(&house, id).await.is_none());
    let notes = house.store.notes(NoteKind::Doubt, None, 10).await.unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    let why = house.row(id).await.why.unwrap();
    assert!(!why.text.contains("reader needs"), "{}", why.text);
}

#[tokio::test]
async fn only_a_delivery_that_proved_its_host_ends_the_doubt() {
    let house = House::new();
    stripped(&house).await;
    house.wait(1);
    // Level `encrypt` proves nothing: whoever stands in the way can take that mail too.
    house.net.plays.lock().unwrap().clear();
    let id = house.submit(FROM, &[TO]).await;
    house.pass().await;
    assert!(matches!(house.row(id).await.state, RecipientState::Delivered { .. }));
    assert!(doubt(&house).await);
}

#[tokio::test]
async fn a_delivery_that_proved_its_host_ends_the_doubt_and_no_grant_s() {
    let house = House::new();
    let hosts = ["mx1.pinned.example", "mx2.pinned.example"];
    hosts.iter().for_each(|host| house.script(host, &[Play::Trouble(Trouble::Handshake)]));
    let id = house.submit(FROM, &["bob@pinned.example"]).await;
    house.pass().await;
    house.wait(3600);
    house.pass().await;
    let vault = &house.relay.ports().vault;
    let domain = "pinned.example".parse().unwrap();
    assert!(vault.line_doubt(&domain).await.unwrap().is_some());
    house.wait(1);
    house.net.plays.lock().unwrap().clear();
    house.submit(FROM, &["bob@pinned.example"]).await;
    house.pass().await;
    assert_eq!(vault.line_doubt(&domain).await.unwrap(), None);
    assert!(proof(&house, id).await.is_some_and(|proof| proof.doubt.is_some()), "it stays");
}

#[tokio::test]
async fn a_rule_asks_for_a_second_channel_of_a_stranger() {
    let house = House::new();
    let rule = RuleVerdict { pickup: Pickup::Passkey, ..RuleVerdict::protected() };
    let id = house.submit_by(rule, FROM, &["eve@stranger.example"]).await;
    house.pass().await;
    let proof = proof(&house, id).await.expect("asked");
    assert_eq!((proof.kind, proof.doubt), (Pickup::Passkey, None));
    let why = house.row(id).await.why.unwrap();
    assert!(why.text.contains("The reader needs a passkey"), "{}", why.text);
}

#[tokio::test]
async fn a_report_for_inside_alone_never_leaves() {
    let house = House::new();
    for (to, leaves) in [("ann@example.org", true), ("ann@elsewhere.example", false)] {
        let before = house.taken().len();
        let id = house.relay.ports().clock.new_id();
        let mut facts = MessageFacts::own(id, Class::Report, house.clock.now(), Needs::default());
        facts.grant = Some(crate::mail::GrantId::from_bytes([1; 16]));
        let vault = &house.relay.ports().vault;
        let sealed = vault.seal_own(
            facts,
            vec![address(to)],
            &MailData::repaired(b"From: x\r\n\r\nphrase\r\n"),
        );
        house.store.accept(sealed.unwrap()).await.unwrap();
        house.pass().await;
        assert_eq!(house.taken().len() - before, usize::from(leaves), "{to}");
    }
}
