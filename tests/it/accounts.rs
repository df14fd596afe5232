//! The help desk's hands at recipients' accounts, and the operator's at sealed messages.

use crate::support::{
    house::{House, code_in, link_in},
    http::Visitor,
    smtp, wait_for,
};
use serde_json::{Value, json};
use std::path::Path;

const MESSAGE: &[u8] = b"Subject: Your results\r\n\r\nAll is well.\r\n";
const ADA: &str = "ada@stranger.test";
const PASSWORD: &str = "correct horse battery";

/// A house with a message for Ada, who has registered and stands before it: queue id and page.
fn registered(dir: &Path) -> (House, Visitor, String, String) {
    let house = House::open(dir, &[], |_| {});
    let id = smtp::send(house.gateway.smtp, "doctor@example.org", &[ADA], MESSAGE);
    let notice = house.mail_to_stranger(1);
    let mut visitor = Visitor::new(house.gateway.portal);
    let page = house.register(&mut visitor, &notice, PASSWORD);
    (house, visitor, id, page)
}

/// Runs a command with `--json`: its exit code and its answer.
fn run(house: &House, words: &[&str]) -> (Option<i32>, Value) {
    let output = house.gateway.ask(&[words, &["--json"]].concat());
    let answer = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), answer)
}

fn sign_in(house: &House, password: &str) -> u16 {
    let mut visitor = Visitor::new(house.gateway.portal);
    visitor.post("/login", &[("email", ADA), ("password", password)]).status
}

#[test]
fn an_account_is_shown_locked_reset_and_removed() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (house, mut visitor, _, page) = registered(dir.path());
    let listed = house.gateway.json(&["account", "list"]);
    assert_eq!((&listed[0]["address"], &listed[0]["name"]), (&json!(ADA), &json!("Ada Reader")));
    for part in ["password", "locked", "second_factor"] {
        assert_eq!(listed[0][part], json!(part == "password"), "{part}");
    }
    let (code, shown) = run(&house, &["account", "show", "ADA@stranger.test"]);
    assert_eq!((code, &shown["waiting"], &shown["opened"]), (Some(0), &json!(1), &json!(0)));
    assert_eq!(shown["sessions"].as_array().map(Vec::len), Some(1));
    let text = house.gateway.ask(&["account", "show", ADA]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("messages: 1 not opened"));

    let changed = |changed: bool, sessions: u64| {
        (Some(0), json!({"address": ADA, "changed": changed, "sessions": sessions}))
    };
    assert_eq!(run(&house, &["account", "lock", ADA]), changed(true, 1));
    assert_eq!(visitor.get("/inbox").location(), "/login", "a lock ends sessions");
    assert_eq!(sign_in(&house, PASSWORD), 422);
    assert_eq!(run(&house, &["account", "lock", ADA]), changed(false, 0));
    assert_eq!(run(&house, &["account", "unlock", ADA]), changed(true, 0));
    assert_eq!(sign_in(&house, PASSWORD), 303);

    let before = house.stranger.messages().len();
    assert_eq!(run(&house, &["account", "reset", ADA]), changed(true, 1));
    assert_eq!(sign_in(&house, PASSWORD), 422);
    house.mail_saying(before, "Our helpdesk has reset the account");
    assert_eq!(house.gateway.json(&["account", "list"])[0]["password"], false);
    assert_eq!(visitor.post("/reset", &[("email", ADA)]).location(), "/reset");
    let code = code_in(&house.mail_saying(before, "Type it on the page").content);
    let new = "another good one";
    let form = [("code", code.as_str()), ("password", new), ("password_confirm", new)];
    assert_eq!(visitor.post("/reset", &form).location(), "/inbox");
    assert_eq!(visitor.get(&page).status, 200, "what was kept is kept");

    assert_eq!(run(&house, &["account", "remove", ADA]), changed(true, 1));
    assert_eq!(visitor.get(&page).location(), "/login");
    assert_eq!(house.gateway.json(&["account", "list"]), json!([]));
    for verb in ["show", "lock", "unlock", "reset", "remove"] {
        for unknown in [ADA, "nobody@else.test", "no address"] {
            assert_eq!(run(&house, &["account", verb, unknown]), (Some(1), Value::Null), "{verb}");
        }
    }
    assert_eq!(sign_in(&house, new), 422);
    assert_eq!(house.gateway.json(&["vault", "list"]), json!([]));
    for local_part in ["ada@", "Ada"] {
        assert!(!house.gateway.log_text().contains(local_part), "no names in the log");
    }
}

#[test]
fn what_happened_at_an_account_is_told_checked_and_exported() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (house, mut visitor, id, page) = registered(dir.path());
    visitor.get(&page);
    visitor.get(&format!("{page}/original.eml"));
    assert_eq!(run(&house, &["vault", "extend", &id, "1d"]).0, Some(0));
    assert_eq!(run(&house, &["account", "lock", ADA]).0, Some(0));

    let (code, log) = run(&house, &["account", "log", "ADA@stranger.test"]);
    let events = |log: &Value| -> Vec<String> {
        let records = log.as_array().expect("a list").iter();
        records.map(|r| r["event"].as_str().expect("a name").to_owned()).collect()
    };
    let newest = ["account-locked", "message-extended", "downloaded", "message-read"];
    assert_eq!((code, &events(&log)[..4]), (Some(0), &newest.map(str::to_owned)[..]));
    assert_eq!((&log[2]["detail"], &log[2]["client"]), (&json!("original"), &json!("127.0.0.1")));
    let one = run(&house, &["account", "log", ADA, "--limit", "1", "--since", "1h"]).1;
    assert_eq!(one.as_array().map(Vec::len), Some(1));
    let found = run(&house, &["audit", "search", "--event", "downloaded", "--message", &id]).1;
    assert_eq!(events(&found), ["downloaded"]);
    assert_eq!(run(&house, &["audit", "search", "--client", "192.0.2.1"]).1, json!([]));

    let (code, checked) = run(&house, &["audit", "verify"]);
    assert_eq!((code, &checked["faults"]), (Some(0), &json!([])));
    assert_eq!(checked["head"], log[0]["hash"], "the newest record is the head");
    let exported = house.gateway.ask(&["audit", "export"]).stdout;
    let exported = String::from_utf8(exported).expect("text");
    let mut prev = json!("0".repeat(64));
    for line in exported.lines() {
        let record: Value = serde_json::from_str(line).expect("a record a line");
        assert_eq!(record["prev"], prev);
        prev = record["hash"].clone();
    }
    assert_eq!(prev, checked["head"]);
    let log = house.gateway.log_text();
    assert!(log.contains("audit event=downloaded client=127.0.0.1 domain=stranger.test"), "{log}");
}

#[test]
fn an_account_gets_another_address_with_all_that_it_holds() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (house, mut visitor, _, page) = registered(dir.path());
    let (new, before) = ("ada.new@stranger.test", house.stranger.messages().len());
    let (code, moved) = run(&house, &["account", "move", ADA, new]);
    let expected = json!({"address": ADA, "to": new, "messages": 1, "sessions": 1});
    assert_eq!((code, moved), (Some(0), expected));
    assert_eq!(visitor.get("/inbox").location(), "/login", "sessions end");
    for number in [1, 2] {
        let told = house.mail_to_stranger(before + number);
        assert!(String::from_utf8_lossy(&told.content).contains("Our helpdesk has given"));
    }
    assert_eq!(sign_in(&house, PASSWORD), 422, "the old address lets nobody in");
    let form = [("email", new), ("password", PASSWORD)];
    assert_eq!(visitor.post("/login", &form).status, 303);
    assert!(visitor.get("/inbox").text().contains("Your results"));
    assert_eq!(visitor.get(&page).status, 200, "what it held it holds");
    assert!(visitor.get("/account/log").text().contains("changed the address of the account"));
    for (old, new) in [(ADA, "x@stranger.test"), (new, new), (new, "no address")] {
        let (code, answer) = run(&house, &["account", "move", old, new]);
        assert_ne!(code, Some(0), "{old} {new}: {answer}");
    }
}

#[test]
fn who_registers_a_removed_mailbox_sees_nothing_old() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (mut house, mut visitor, _, page) = registered(dir.path());
    assert_eq!(visitor.get(&page).status, 200);
    let old = link_in(&house.mail_to_stranger(1).content);
    assert_eq!(run(&house, &["account", "remove", ADA]).0, Some(0));
    house.gateway.stop();
    house.gateway.run();
    let mut visitor = Visitor::new(house.gateway.portal);
    assert_eq!(visitor.get(&old).status, 410, "also after a restart");
    let before = house.stranger.messages().len();
    smtp::send(house.gateway.smtp, "doctor@example.org", &[ADA], b"Subject: New\r\n\r\nHi\r\n");
    let notice = house.mail_to_stranger(before + 1);
    house.register(&mut visitor, &notice, PASSWORD);
    let inbox = visitor.get("/inbox").text();
    assert!(inbox.contains("New") && !inbox.contains("Your results"), "{inbox}");
    assert_eq!(visitor.get(&page).status, 404);
}

#[test]
fn a_recall_reaches_the_authors_copy_of_a_forward() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (house, mut visitor, id, page) = registered(dir.path());
    let fields = [("to", "doctor@example.org"), ("subject", "Fwd"), ("body", "See this.")];
    let copy = visitor.upload(&format!("{page}/forward"), &fields, &mut []).location();
    wait_for("the forward inside", || house.inside.messages().first().map(|_| ()));
    assert_eq!(visitor.get(&copy).status, 200);
    assert_eq!(run(&house, &["vault", "recall", &id]).0, Some(0));
    for path in [page, copy.clone(), format!("{copy}/original.eml")] {
        assert_eq!(visitor.get(&path).status, 410, "{path}");
    }
    // With the last grant the keys go, that of the forward too.
    wait_for("an empty vault", || {
        let vault = house.gateway.json(&["status"])["vault"].clone();
        (vault["messages"] == 0).then_some(())
    });
}

#[test]
fn a_sealed_message_is_shown_extended_exported_and_recalled() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (house, mut visitor, id, page) = registered(dir.path());
    let kept = house.gateway.json(&["vault", "show", &id]);
    assert_eq!((&kept["id"], &kept["sender"]), (&json!(id), &json!("doctor@example.org")));
    let state = |view: &Value| view["recipients"][0]["state"].clone();
    assert_eq!(
        (state(&kept), &kept["recipients"][0]["recipient"]),
        (json!("waiting"), &json!(ADA))
    );
    assert_eq!(visitor.get(&page).status, 200);
    let opened = house.gateway.json(&["vault", "show", &id]);
    assert_eq!(state(&opened), "opened");

    let expires = |view: &Value| -> jiff::Timestamp {
        view["recipients"][0]["expires"].as_str().expect("a time").parse().expect("a time")
    };
    let (code, longer) = run(&house, &["vault", "extend", &id, "10d"]);
    assert_eq!(code, Some(0));
    let more = expires(&longer).duration_since(expires(&opened));
    assert_eq!(more.as_hours(), 240);
    assert_eq!(run(&house, &["vault", "extend", &id, "ages"]).0, Some(64), "no time");

    let exported = house.gateway.ask(&["vault", "export", &id]);
    assert_eq!(exported.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&exported.stdout), String::from_utf8_lossy(MESSAGE));
    wait_for("the export in the log", || {
        house.gateway.log_text().contains("audit event=message-exported").then_some(())
    });

    let other = run(&house, &["vault", "recall", &id, "--recipient", "bob@stranger.test"]);
    assert_eq!(other, (Some(1), Value::Null), "it was not for him");
    let (code, recalled) = run(&house, &["vault", "recall", &id, "--recipient", ADA]);
    assert_eq!((code, state(&recalled)), (Some(0), json!("recalled")));
    assert_eq!(visitor.get(&page).status, 410);
    assert_eq!(house.gateway.json(&["trace", &id])["recipients"][0]["outcome"], "removed");
    assert_eq!(run(&house, &["vault", "recall", &id]).0, Some(1), "nothing is left to recall");
    assert_eq!(run(&house, &["vault", "extend", &id, "1d"]).0, Some(1), "nor to extend");
    for verb in ["show", "export", "recall"] {
        let none = house.gateway.ask(&["vault", verb, "00000000000000000000000000"]);
        assert_eq!((none.status.code(), none.stdout.len()), (Some(1), 0), "{verb}");
    }
}
