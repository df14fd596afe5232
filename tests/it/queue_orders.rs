//! The operator's hands at a running gateway: hold, release, retry, remove.

use crate::support::{
    house::{House, PARTNER_FILE},
    sink::{Manner, Sink},
    smtp, wait_for,
};
use restante::{
    control::{
        Answer, Request, client,
        orders::{QueueOrder, Which},
    },
    store::OrderKind,
};
use serde_json::{Value, json};
use std::{net::TcpListener, path::Path};

const MESSAGE: &[u8] = b"Subject: hidden\r\nMessage-ID: <m@example.org>\r\n\r\nhello\r\n";
const SILENT: &str = "127.0.20.51";
const POLICY: (&str, &str) =
    ("other.toml", "[[partner]]\ndomains = [\"other.test\"]\nlevel = \"encrypt\"\n");
const NOBODY: &str = "00000000000000000000000000";

/// A house where nothing is tried twice by itself.
fn patient(dir: &Path) -> House {
    let house = House::open(dir, &[PARTNER_FILE, POLICY], |settings| {
        settings.delivery = "retry = [\"12h\"]".to_owned();
    });
    house.zone.mail("other.test", &[(10, "mx.other.test", SILENT)]);
    house
}

fn send(house: &House, from: &str, to: &[&str]) -> String {
    smtp::send(house.gateway.smtp, from, to, MESSAGE)
}

/// Waits until the recipients' outcomes are these, in order.
fn outcomes(house: &House, id: &str, words: &[&str]) -> Value {
    wait_for(&format!("outcomes {words:?}"), || {
        let life = house.gateway.json(&["trace", id]);
        let now: Vec<_> =
            life["recipients"].as_array()?.iter().map(|r| r["outcome"].clone()).collect();
        (now == words).then_some(life)
    })
}

/// Gives an order; its exit code and its answer.
fn order(house: &House, words: &[&str]) -> (Option<i32>, Value) {
    let words = [&["queue"], words, &["--json"]].concat();
    let output = house.gateway.ask(&words);
    let answer = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), answer)
}

fn changed(count: u64) -> Value {
    json!({"changed": count, "busy": 0, "unknown": []})
}

#[test]
fn held_mail_rests_released_mail_goes_on_and_a_retry_delivers() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut house = patient(dir.path());
    let id = send(&house, "a@example.org", &["b@partner.test"]);
    outcomes(&house, &id, &["deferred"]);
    assert_eq!(order(&house, &["hold", &id]), (Some(0), changed(1)));
    let listed = house.gateway.json(&["queue", "list"]);
    assert_eq!(listed[0]["recipients"][0]["state"], "held");
    assert_eq!(house.gateway.json(&["status"])["queue"]["held"], 1);
    assert_eq!(order(&house, &["hold", &id]), (Some(1), changed(0)), "it is held already");
    assert_eq!(order(&house, &["retry", &id]), (Some(1), changed(0)), "held mail is not tried");

    house.gateway.stop();
    house.gateway.run();
    outcomes(&house, &id, &["held"]);

    let manner = Manner { tls: Some(house.pki.leaf("mx.partner.test")), ..Manner::default() };
    let partner = Sink::start(house.partner_address(), manner);
    assert_eq!(order(&house, &["release", &id]), (Some(0), changed(1)));
    outcomes(&house, &id, &["deferred"]);
    assert!(partner.messages().is_empty(), "released, and due in hours");
    assert_eq!(order(&house, &["retry", "--domain", "partner.test"]), (Some(0), changed(1)));
    let life = outcomes(&house, &id, &["delivered"]);
    assert_eq!(life["recipients"][0]["attempts"].as_array().map(Vec::len), Some(2));
    assert_eq!(partner.messages().len(), 1);
}

#[test]
fn recipients_are_removed_by_domain_sender_age_and_name() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = patient(dir.path());
    let both = send(&house, "a@example.org", &["b@partner.test", "c@other.test"]);
    let theirs = send(&house, "boss@example.org", &["b@partner.test"]);
    let sealed = send(&house, "a@example.org", &["ada@stranger.test"]);
    outcomes(&house, &both, &["deferred", "deferred"]);
    outcomes(&house, &theirs, &["deferred"]);
    outcomes(&house, &sealed, &["sealed"]);
    house.mail_to_stranger(1);

    let old = order(&house, &["remove", "--all", "--older-than", "1h"]);
    assert_eq!(old, (Some(1), changed(0)), "nothing is that old");
    assert_eq!(order(&house, &["remove", "--domain", "other.test"]), (Some(0), changed(1)));
    outcomes(&house, &both, &["deferred", "removed"]);
    assert_eq!(order(&house, &["remove", "--sender", "BOSS@example.org"]), (Some(0), changed(1)));
    outcomes(&house, &theirs, &["removed"]);
    let strict =
        order(&house, &["remove", "--domain", "partner.test", "--sender", "x@example.org"]);
    assert_eq!(strict, (Some(1), changed(0)), "both must hold");
    assert_eq!(order(&house, &["remove", &sealed]), (Some(1), changed(0)), "the vault's affair");
    assert_eq!(order(&house, &["remove", &both, &both]), (Some(0), changed(1)), "named twice");
    outcomes(&house, &both, &["removed", "removed"]);
    assert!(house.gateway.json(&["queue", "list"]).as_array().expect("an array").is_empty());
    assert_eq!(house.gateway.json(&["vault", "list"]).as_array().map(Vec::len), Some(1));
    assert!(house.inside.messages().is_empty(), "nobody asked for reports");
}

#[test]
fn a_removal_is_reported_where_the_operator_says_so_and_the_sender_wants_it() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = patient(dir.path());
    let mut conversation = smtp::Conversation::open(house.gateway.smtp);
    conversation.say("EHLO mta.example.org", "250");
    conversation.say("MAIL FROM:<a@example.org>", "250");
    conversation.say("RCPT TO:<loud@partner.test>", "250");
    conversation.say("RCPT TO:<quiet@partner.test> NOTIFY=NEVER", "250");
    conversation.say("DATA", "354");
    conversation.raw(MESSAGE);
    conversation.raw(b".\r\n");
    conversation.expect("250 2.0.0 Ok: queued as ");
    let id = wait_for("the deferred message", || {
        let listed = house.gateway.json(&["queue", "list"]);
        let all = listed[0]["recipients"].as_array()?.iter().all(|r| r["state"] == "deferred");
        all.then(|| listed[0]["id"].as_str().expect("an id").to_owned())
    });
    assert_eq!(order(&house, &["remove", "--all", "--report"]), (Some(0), changed(2)));
    outcomes(&house, &id, &["removed", "removed"]);
    let report = wait_for("the report", || house.inside.messages().pop());
    assert_eq!((report.from.as_str(), report.to[0].as_str()), ("<>", "<a@example.org>"));
    let text = String::from_utf8_lossy(&report.content).into_owned();
    assert!(text.contains("Action: failed") && text.contains("Status: 5.3.0"), "{text}");
    assert!(text.contains("loud@partner.test") && !text.contains("quiet@"), "{text}");
    assert!(!text.contains("hidden") && !text.contains("hello"), "{text}");
}

#[test]
fn an_order_that_cannot_be_carried_out_says_why() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = patient(dir.path());
    let id = send(&house, "a@example.org", &["b@partner.test"]);
    outcomes(&house, &id, &["deferred"]);
    let rows: [(&[&str], i32, &str); 6] = [
        (&["hold"], 64, "nobody is meant"),
        (&["remove", "--all", "--domain", "partner.test"], 64, "all and not all"),
        (&["remove", "--older-than", "soon"], 64, "no time"),
        (&["hold", "--domain", "nowhere.test"], 1, "nothing matches"),
        (&["hold", NOBODY], 1, "no such message"),
        (&["hold", "nonsense"], 1, "no id"),
    ];
    for (words, code, reason) in rows {
        assert_eq!(order(&house, words).0, Some(code), "{words:?}: {reason}");
    }
    let some = order(&house, &["hold", NOBODY, &id]);
    let answer = json!({"changed": 1, "busy": 0, "unknown": [NOBODY]});
    assert_eq!(some, (Some(1), answer), "the others are held nevertheless");
    outcomes(&house, &id, &["held"]);
}

#[test]
fn who_is_being_delivered_is_left_alone() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = patient(dir.path());
    // It takes connections and says nothing: the attempt waits for its greeting.
    let silent = TcpListener::bind(format!("{SILENT}:{}", house.port)).expect("free");
    let id = send(&house, "a@example.org", &["c@other.test"]);
    let (_waiting, _) = silent.accept().expect("the gateway comes");
    let busy = json!({"changed": 0, "busy": 1, "unknown": []});
    for verb in ["hold", "remove"] {
        assert_eq!(order(&house, &[verb, &id]), (Some(75), busy.clone()), "{verb}");
    }
    assert_eq!(order(&house, &["retry", &id]), (Some(0), busy), "it is being tried");
    let life = house.gateway.json(&["trace", &id]);
    assert_eq!(life["recipients"][0]["outcome"], "queued");
}

#[test]
fn a_large_queue_is_worked_page_by_page() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = patient(dir.path());
    let ids: Vec<_> = (0..7).map(|_| send(&house, "a@example.org", &["b@partner.test"])).collect();
    for id in &ids {
        outcomes(&house, id, &["deferred"]);
    }
    let socket = house.gateway.dir.join("data/control.sock");
    let which = Which::Matching { domain: None, sender: None, arrived: jiff::Timestamp::MAX };
    let mut order = QueueOrder { kind: OrderKind::Hold, report: false, which, after: None, max: 3 };
    let mut pages = Vec::new();
    loop {
        let answer = client::ask(&socket, &Request::QueueOrder(order.clone())).expect("an answer");
        let Answer::Ok(view) = answer else { panic!("{answer:?}") };
        pages.push(view["changed"].as_u64().expect("a count"));
        let Some(next) = view["next"].as_str() else { break };
        order.after = Some(next.parse().expect("an id"));
    }
    assert_eq!(pages, [3, 3, 1, 0]);
    assert_eq!(house.gateway.json(&["status"])["queue"]["held"], 7);
}
