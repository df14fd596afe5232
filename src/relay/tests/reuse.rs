//! Connections that carry more than one message, and addresses that are left alone for a while.

use super::*;
use crate::store::NewBody;

const ANN: Option<&str> = Some("ann@example.org");

fn house() -> House {
    let house = House::new();
    house.net.stays.store(true, Ordering::SeqCst);
    house
}

impl House {
    /// Connections made so far.
    fn connections(&self) -> u64 {
        self.net.connections.load(Ordering::SeqCst) - 1
    }

    async fn send(&self, to: &[&str]) -> QueueId {
        let id = self.submit(ANN, to).await;
        self.pass().await;
        id
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_carries_the_next_message_of_its_purpose_and_no_other() {
    let house = house();
    for (to, connections, why) in [
        ("bob@partner.example", 1, "the first"),
        ("bob@partner.example", 1, "the same way"),
        ("bea@partner.example", 1, "another mailbox there"),
        ("bob@marked.example", 2, "another policy entry"),
        ("ann@example.org", 3, "inside"),
        ("bob@partner.example", 3, "still there"),
    ] {
        let id = house.send(&[to]).await;
        assert!(matches!(house.row(id).await.state, RecipientState::Delivered { .. }), "{why}");
        assert_eq!(house.connections(), connections, "{why}");
        let attempts = house.store.attempts(id, 0).await.unwrap();
        assert_eq!(attempts.len(), 1, "{why}");
        assert!(attempts[0].address.is_some(), "{why}: {attempts:?}");
    }
    assert_eq!(house.taken().len(), 6);
    tokio::time::advance(pool::IDLE).await;
    house.send(&["bob@partner.example"]).await;
    assert_eq!(house.connections(), 4, "it had waited long enough");
    house.relay.pool().close().await;
    assert_eq!(house.net.quits.load(Ordering::SeqCst), 4, "each ends with QUIT");
    assert_eq!(house.net.open.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_notice_and_protected_mail_never_share_a_connection() {
    let house = house();
    house.script("mx1.elsewhere.example", &[Play::Plaintext]);
    // Two notices to the same host, and between them nothing that may go in the open.
    for (to, connections) in [("x@elsewhere.example", 1), ("y@elsewhere.example", 1)] {
        house.send(&[to]).await;
        house.pass().await;
        assert_eq!(house.connections(), connections);
    }
    let purpose = |protected| pool::Purpose {
        protected,
        policy: house
            .relay
            .ports()
            .policies
            .current()
            .lookup(&"x.example".parse().unwrap(), start())
            .at
            .clone(),
        host: "mx1.elsewhere.example".to_owned(),
        address: "192.0.2.1:25".parse().unwrap(),
        requirement: Requirement::default(),
    };
    assert_ne!(purpose(true), purpose(false));
    assert!(house.relay.pool().take(&purpose(true)).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_kept_connection_that_is_lost_says_nothing_of_the_host() {
    for (then, why) in [
        (Play::Lost(false), "closed while it waited"),
        (Play::Answers(vec![(421, "4.3.2 closing")]), "the host closes it"),
    ] {
        let house = house();
        let first = Play::Then(Box::new(then));
        house.script("mx1.partner.example", &[first, Play::Answers(vec![(250, "2.0.0 Ok")])]);
        house.send(&["bob@partner.example"]).await;
        let id = house.send(&["bob@partner.example"]).await;
        assert!(matches!(house.row(id).await.state, RecipientState::Delivered { .. }), "{why}");
        assert_eq!(house.connections(), 2, "{why}: the same host over a new one");
        assert_eq!(house.taken()[1].host, "mx1.partner.example", "{why}");
        assert_eq!(house.store.attempts(id, 0).await.unwrap().len(), 1, "{why}: nobody is blamed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_kept_connection_that_is_lost_after_the_final_dot_is_not_tried_again_at_once() {
    let house = house();
    house.script("mx1.partner.example", &[Play::Then(Box::new(Play::Lost(true)))]);
    house.send(&["bob@partner.example"]).await;
    let id = house.send(&["bob@partner.example"]).await;
    assert!(matches!(house.row(id).await.state, RecipientState::Waiting { .. }));
    assert_eq!(house.taken().len(), 2, "one of them without an answer, and no third");
}

#[tokio::test(start_paused = true)]
async fn an_address_out_of_reach_is_left_alone_for_a_while() {
    let house = house();
    for n in [1, 2] {
        let host = format!("mx{n}.partner.example");
        house.script(&host, &[Play::Trouble(Trouble::Unreachable)]);
    }
    let tried = |text: &str| !text.starts_with("not tried again so soon");
    for (advance, really, why) in [
        (0, true, "nothing is known"),
        (0, false, "a moment ago"),
        (29, false, "not yet half a minute"),
        (2, true, "it may be back"),
    ] {
        tokio::time::advance(Duration::from_secs(advance)).await;
        let id = house.send(&["bob@partner.example"]).await;
        let texts = house.store.attempts(id, 0).await.unwrap();
        let text = texts[0].error.clone().unwrap();
        assert_eq!(tried(&text), really, "{why}: {text}");
        assert_eq!(house.reason(id).await, Reason::Unreachable, "{why}");
    }
    house.relay.forgive();
    let id = house.send(&["bob@partner.example"]).await;
    let texts = house.store.attempts(id, 0).await.unwrap();
    assert!(tried(texts[0].error.as_deref().unwrap()), "an operator asked for it");
}

#[tokio::test(start_paused = true)]
async fn a_domain_of_hosts_that_never_answer_is_not_waited_for_by_each_message() {
    let house = house();
    for n in [1, 2] {
        let host = format!("mx{n}.partner.example");
        house.script(&host, &[Play::Slow(Trouble::Unreachable)]);
    }
    for really in [true, false, false] {
        let begun = tokio::time::Instant::now();
        house.send(&["bob@partner.example"]).await;
        assert_eq!(begun.elapsed() > Duration::from_secs(1), really, "{:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_messages_to_a_dead_domain_hold_up_nobody() {
    const DEAD: usize = 10_000;
    let house = house();
    for n in [1, 2] {
        house.script(&format!("mx{n}.dead.example"), &[Play::Hangs]);
    }
    // Nobody opens them: they may be of one body.
    let first = house.submit(ANN, &["eve@dead.example"]).await;
    let (row, _) = house.store.message(first).await.unwrap().unwrap();
    for n in 1..DEAD {
        let mut serial = *first.as_bytes();
        serial[8..].copy_from_slice(&n.to_be_bytes());
        let id = QueueId::from_bytes(serial);
        let message = NewMessage {
            facts: MessageFacts { id, ..row.facts.clone() },
            recipients: vec![address("eve@dead.example")],
            body: NewBody::Small(bytes::Bytes::from_static(b"sealed")),
            size: row.size,
            header_len: row.header_len,
            due: start(),
            copy: None,
            ring: None,
        };
        house.store.accept(message).await.unwrap();
    }
    let live = house.submit(ANN, &["bob@partner.example", "x@example.org"]).await;
    let running = house.run();
    until(|| house.taken().len() == 2).await;
    for row in house.rows(live).await {
        assert!(matches!(row.state, RecipientState::Delivered { .. }), "{row:?}");
    }
    let totals = house.store.totals().await.unwrap();
    assert_eq!(totals.active, DEAD as u64, "the others wait");
    running.end().await;
}
