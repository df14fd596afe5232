//! Policies change while the gateway runs: each message is judged by one whole set, and its record
//! names that set.

use crate::support::{
    house::{House, PARTNER_FILE},
    sink::{Manner, Sink},
    smtp, wait_for,
};
use serde_json::Value;
use std::fs;

const MESSAGE: &[u8] = b"From: Doctor <doctor@example.org>\r\nSubject: MARKER\r\n\r\nDear Ann\r\n";

/// Sends a message to the partner and waits for its outcome: the outcome, the policy's file, and the
/// set's version.
fn judged(house: &House) -> (String, String, String) {
    let id = smtp::send(house.gateway.smtp, "doctor@example.org", &["ann@partner.test"], MESSAGE);
    let recipient = wait_for("an outcome", || {
        let life = house.gateway.json(&["trace", &id]);
        let recipient = life["recipients"][0].clone();
        (recipient["outcome"] != "queued").then_some(recipient)
    });
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let policy = &recipient["policy"];
    (word(&recipient["outcome"]), word(&policy["file"]), word(&policy["version"]))
}

fn version(house: &House) -> String {
    let status = house.gateway.json(&["status"]);
    status["policy"]["version"].as_str().expect("a version").to_owned()
}

/// Waits until another set than `old` is in force.
fn changed(house: &House, old: &str) -> String {
    wait_for("another set", || Some(version(house)).filter(|now| now != old))
}

#[test]
fn an_edit_counts_for_what_comes_after_it_and_every_record_names_its_set() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[], |_| {});
    let tls = Some(house.pki.leaf("mx.partner.test"));
    let partner = Sink::start(house.partner_address(), Manner { tls, ..Manner::default() });
    let file = house.gateway.dir.join("policies").join(PARTNER_FILE.0);

    let none = version(&house);
    assert_eq!(judged(&house), ("sealed".into(), "(built-in)".into(), none.clone()));

    // The folder is watched.
    fs::write(&file, PARTNER_FILE.1).expect("written");
    let first = changed(&house, &none);
    assert_eq!(judged(&house), ("delivered".into(), PARTNER_FILE.0.into(), first.clone()));

    // SIGHUP says the same at once.
    fs::write(&file, "[[partner]]\ndomains = [\"partner.test\"]\nlevel = \"envelope\"\n")
        .expect("written");
    house.gateway.signal("HUP");
    let second = changed(&house, &first);
    assert_eq!(judged(&house), ("sealed".into(), PARTNER_FILE.0.into(), second.clone()));

    // An error leaves the last good set, and says so.
    fs::write(&file, "[[partner]]\ndomains = [\"partner.test\"]\nlevel = \"secret\"\n")
        .expect("written");
    let error = wait_for("the error", || {
        house.gateway.json(&["status"])["policy"]["error"].as_str().map(str::to_owned)
    });
    assert!(error.contains("partner.toml:3:9"), "{error}");
    assert_eq!(judged(&house), ("sealed".into(), PARTNER_FILE.0.into(), second));
    let own = |content: &[u8]| content.windows(6).any(|w| w == b"MARKER");
    let direct = partner.messages().iter().filter(|m| own(&m.content)).count();
    assert_eq!(direct, 1, "the others were notices");
}
