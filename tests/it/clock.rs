//! A machine whose clock is months ahead of what the data directory knows.

use super::support::{free_port, gateway::Gateway, house::House, http::Visitor, smtp, wait_for};
use jiff::{SignedDuration, Timestamp};
use restante::{
    clock::KeptTime,
    store::{
        Grant, GrantState, NoteKind, NoteStore, PeopleStore,
        sled::{Options, SledStore},
    },
};
use std::{fs, os::unix::fs::MetadataExt};

const EXPIRED: &str = "ada@stranger.test";
const RECALLED: &str = "ben@stranger.test";

fn message(house: &House, to: &str) -> String {
    smtp::send(house.gateway.smtp, "doctor@example.org", &[to], b"Subject: s\r\n\r\nt\r\n")
}

/// While nobody serves it: one message is past its time, the other recalled, and the last time seen
/// is long ago.
async fn prepare(gateway: &Gateway, seen: Timestamp) {
    let store = SledStore::open(&gateway.dir.join("data"), Options::default()).expect("opens");
    for grant in store.grants(None, None, 9).await.expect("grants") {
        let grant = match grant.recipient.to_string().as_str() {
            EXPIRED => Grant { expires: seen + SignedDuration::from_hours(24), ..grant },
            _ => Grant { state: GrantState::Withdrawn, ..grant },
        };
        store.update_grant(&grant).await.expect("written");
    }
    let note = serde_json::to_vec(&KeptTime { seen, doubt: None }).expect("JSON");
    store.put_note(NoteKind::Clock, "seen", note).await.expect("written");
    drop(store);
    // A program that another test starts holds the lock too, until it is that program.
    let lock = fs::metadata(gateway.dir.join("data/lock")).expect("a lock").ino();
    wait_for("the vault's lock", || {
        let held = fs::read_to_string("/proc/locks").expect("locks");
        (!held.contains(&format!(":{lock} "))).then_some(())
    });
}

fn opens(gateway: &Gateway, id: &str) -> bool {
    gateway.ask(&["vault", "export", id]).status.success()
}

#[test]
fn after_a_jump_nothing_expires_until_an_operator_confirms_the_clock() {
    let dir = tempfile::tempdir().expect("temp dir");
    let metrics = format!("127.0.0.1:{}", free_port(&["127.0.0.1"]));
    let mut house = House::open(dir.path(), &[], |settings| {
        settings.notification = format!("[metrics]\nlisten = \"{metrics}\"");
    });
    assert_eq!(house.gateway.json(&["status"])["clock"]["ok"], true);
    let (expired, recalled) = (message(&house, EXPIRED), message(&house, RECALLED));
    house.mail_to_stranger(2);
    house.gateway.stop();
    let seen: Timestamp = "2026-01-02T03:04:05Z".parse().expect("a time");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(prepare(&house.gateway, seen));

    house.gateway.run();
    wait_for("the recalled message's end", || (!opens(&house.gateway, &recalled)).then_some(()));
    assert!(opens(&house.gateway, &expired), "the same sweep keeps it");
    let clock = house.gateway.json(&["status"])["clock"].clone();
    let text = clock["text"].as_str().expect("text");
    assert_eq!(clock["ok"], false);
    assert!(clock["expected"].as_str().expect("a time").starts_with("2026-01-02T03:0"), "{clock}");
    assert!(
        text.contains("2026-01-02T03:0") && text.contains("`restante clock confirm`"),
        "{text}"
    );
    let told = house.gateway.ask(&["status"]).stdout;
    assert!(String::from_utf8_lossy(&told).contains("\nclock     the clock says "));
    let mut visitor = Visitor::new(metrics.parse().expect("address"));
    let ready = visitor.get("/readyz");
    assert_eq!(ready.status, 200, "mail is taken");
    let second = ready.text().lines().nth(1).map(str::to_owned);
    assert!(second.is_some_and(|line| line.contains("2026-01-02T03:0")), "{}", ready.text());
    assert!(visitor.get("/metrics").text().contains("\nrestante_clock_ok 0\n"));
    assert!(house.gateway.log_text().contains("nothing expires"));

    assert_eq!(house.gateway.json(&["clock", "confirm"])["changed"], true);
    assert_eq!(house.gateway.json(&["clock", "confirm"])["changed"], false);
    assert_eq!(house.gateway.json(&["status"])["clock"]["ok"], true);
    assert_eq!(visitor.get("/readyz").text(), "ready\n");
    let trail = house.gateway.json(&["audit", "search", "--event", "clock-confirmed"]);
    assert_eq!(trail.as_array().map(Vec::len), Some(1), "{trail}");
    // A start sweeps at once.
    house.gateway.stop();
    house.gateway.run();
    wait_for("the expired message's end", || (!opens(&house.gateway, &expired)).then_some(()));
}
