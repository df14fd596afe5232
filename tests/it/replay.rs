//! `restante policy replay`: a changed folder against the decisions on record.

use crate::support::{
    gateway::{Gateway, Settings},
    house::{House, PARTNER_FILE},
    sink::{Manner, Sink},
    smtp, wait_for,
};
use serde_json::Value;
use std::{collections::BTreeSet, fs};

const MESSAGE: &[u8] = b"From: Doctor <doctor@example.org>\r\nSubject: MARKER\r\n\r\nDear Ada\r\n";

#[test]
fn a_changed_folder_tells_whose_mail_would_have_moved() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[PARTNER_FILE], |_| {});
    let tls = Some(house.pki.leaf("mx.partner.test"));
    let partner = Sink::start(house.partner_address(), Manner { tls, ..Manner::default() });
    let to = ["ann@partner.test", "ada@stranger.test"];
    smtp::send(house.gateway.smtp, "doctor@example.org", &to, MESSAGE);
    wait_for("the partner's copy", || partner.messages().first().cloned());
    house.mail_to_stranger(1);
    wait_for("both settled", || {
        let open = house.gateway.json(&["queue", "list"]);
        open.as_array().is_some_and(Vec::is_empty).then_some(())
    });

    let changed = dir.path().join("changed");
    let replay = |file: &str| {
        fs::create_dir_all(&changed).expect("folder");
        fs::write(changed.join("p.toml"), file).expect("written");
        house.gateway.json(&["policy", "replay", changed.to_str().expect("a path")])
    };
    let entry =
        |domain: &str, keys: &str| format!("[[partner]]\ndomains = [\"{domain}\"]\n{keys}\n");
    let secure = "level = \"secure\"\nmatch = [\"mx.partner.test\"]";
    let moves = |answer: &Value| -> BTreeSet<String> {
        let rows = answer["moved"].as_array().expect("rows").iter();
        rows.map(|r| format!("{} {} {}", r["recipient"], r["from"], r["to"]).replace('"', ""))
            .collect()
    };
    let set = |rows: &[&str]| rows.iter().map(|r| (*r).to_owned()).collect::<BTreeSet<_>>();

    let same = replay(&entry("partner.test", secure));
    assert_eq!((moves(&same), same["recipients"].as_u64()), (set(&[]), Some(2)), "{same}");

    let gone = replay("");
    assert_eq!(moves(&gone), set(&["ann@partner.test direct envelope"]), "{gone}");

    let stricter = replay(&entry(
        "partner.test",
        "level = \"secure\"\nmatch = [\"mx.other.test\"]\notherwise = \"bounce\"",
    ));
    assert_eq!(moves(&stricter), set(&["ann@partner.test direct bounce"]), "{stricter}");

    let both = entry("partner.test", secure) + &entry("stranger.test", "level = \"secure\"");
    let wider = replay(&both);
    assert_eq!(moves(&wider), set(&[]), "{wider}");
    assert_eq!(wider["unknown"][0]["domain"], "stranger.test", "{wider}");

    let open = entry("partner.test", secure) + &entry("stranger.test", "level = \"opportunistic\"");
    let open = replay(&open);
    assert_eq!(moves(&open), set(&["ada@stranger.test envelope direct"]), "{open}");

    let strict =
        house.gateway.ask(&["policy", "replay", "--strict", changed.to_str().expect("path")]);
    assert_eq!(strict.status.code(), Some(1));
    let text = String::from_utf8(strict.stdout).expect("text");
    assert!(text.contains("ada@stranger.test: envelope -> direct (p.toml:5"), "{text}");
    assert!(text.contains("1 would have moved, 0 can't be told"), "{text}");

    fs::write(
        changed.join("rules.toml"),
        "[[rule]]\nwhen = { subject = \"x\" }\naction = \"protect\"\n",
    )
    .expect("written");
    let rules = house.gateway.json(&["policy", "replay", changed.to_str().expect("a path")]);
    assert_eq!(rules["rules_changed"], true, "{rules}");

    fs::write(changed.join("p.toml"), "[[partner]]\n").expect("written");
    let broken = house.gateway.ask(&["policy", "replay", changed.to_str().expect("path")]);
    assert_eq!(broken.status.code(), Some(78));
}

#[test]
fn a_folder_that_is_not_there_is_no_empty_set() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = Gateway::start(dir.path(), &Settings::default(), &[PARTNER_FILE]);
    let gone = dir.path().join("polices");
    let output = house.ask(&["policy", "replay", gone.to_str().expect("a path")]);
    assert_eq!(output.status.code(), Some(1), "as `policy check` has it");
    assert_eq!(output.stdout, b"", "nothing is judged");
    let says = String::from_utf8_lossy(&output.stderr);
    assert!(says.contains("polices: no such folder"), "{says}");

    fs::rename(dir.path().join("policies"), dir.path().join("moved")).expect("renamed");
    let output = house.ask(&["policy", "replay"]);
    assert_eq!(output.status.code(), Some(1), "nor is the one in force");
}
