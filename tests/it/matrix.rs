//! Every level against every kind of peer, with each `otherwise`: one gateway, a mail host a kind,
//! a recipient domain a cell. Postfix is asked about the same hosts, and must agree.

mod attack;
mod dns;
mod finger;
mod keys;
mod peers;
mod published;
mod rows;
mod scene;
mod table;

use crate::support::{
    gateway::Settings,
    sink::{Counted, Sink},
    wait_for,
};
pub use attack::phrase_in;
use finger::Finger;
use scene::{SECRET, Scene};
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Write, path::Path};
use table::Cell;

#[test]
fn every_level_meets_every_peer() {
    let dir = tempfile::tempdir().expect("temp dir");
    let scene = Scene::open(dir.path());
    let cells = table::cells();
    let web = dns::address(443);
    let _policies = dns::publish(dir.path(), &scene, &cells, web);
    let signed = dns::sign(dir.path(), &scene, &cells, web, "");
    let settings = Settings { nameserver: Some(signed.validating), ..scene.settings() };
    let policy: String = cells.iter().map(|cell| scene.entry(cell)).collect();
    let folder = dir.path().join("gateway");
    let gateway = scene::start(&folder, &settings, &[("matrix.toml", &policy)], "trust-ad");

    let oracle = Finger::new(dir.path(), &scene.pki, scene.port, signed.validating);
    let recipients: Vec<String> = cells.iter().map(|cell| format!("r@{}", cell.domain())).collect();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    let (mut wrong, lives) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask_postfix(&oracle, &scene));
        let lives = scene.send(&gateway, &recipients);
        (asking.join().expect("asked"), lives)
    });
    let expected = lives.iter().filter(|life| life["outcome"] == "bounced").count();
    let reports = wait_for("a report for every bounce", || {
        let reports = reports(&scene.inside);
        (reports.len() >= expected).then_some(reports)
    });
    for (cell, life) in cells.iter().zip(&lives) {
        assert_eq!(life["address"], format!("r@{}", cell.domain()).as_str());
        for fault in faults(cell, life, &reports) {
            writeln!(wrong, "{} ({}): {fault}", cell.domain(), cell.word).expect("written");
        }
    }
    wrong.push_str(&faults_of_content(&scene, &cells));
    assert!(wrong.is_empty(), "{wrong}");
}

/// What is not as the table says.
fn faults(cell: &Cell, life: &Value, reports: &BTreeMap<String, String>) -> Vec<String> {
    let (outcome, reason, status) = cell.expected();
    let mut faults = Vec::new();
    let mut same = |what: &str, is: &Value, wanted: &str| {
        if is != wanted {
            faults.push(format!("{what} is {is}, expected {wanted}"));
        }
    };
    same("outcome", &life["outcome"], outcome);
    same("reason", &life["reason"], reason);
    same("level", &life["policy"]["level"], cell.column.level);
    let reported = reports.get(life["address"].as_str().unwrap_or_default());
    same("status", &Value::from(reported.map_or("none", String::as_str)), status.unwrap_or("none"));
    let attempts = life["attempts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(last) = attempts.last() else {
        faults.push("no attempt is recorded".to_owned());
        return faults;
    };
    if !cell.met() {
        let error = last["error"].as_str().unwrap_or_default();
        if !cell.says.iter().any(|says| error.contains(says)) {
            faults.push(format!("the record says {error:?}, expected {:?}", cell.says));
        }
        return faults;
    }
    let tls = match (&last["tls"], last["tls"]["verified"] == true) {
        (Value::Null, _) => "clear",
        (_, false) => "tls",
        (_, true) => "proved",
    };
    if tls != cell.word {
        faults.push(format!("the record says {tls}: {last}"));
    }
    faults
}

/// The hosts say what they saw: content only where the table has it, in the clear only where the
/// table has that, and the secret nowhere else among all their bytes.
fn faults_of_content(scene: &Scene, cells: &[Cell]) -> String {
    let mut faults = String::new();
    for (kind, peer) in &scene.peers {
        let Some(sink) = &peer.sink else { continue };
        let theirs =
            |word: &str| cells.iter().filter(|c| c.kind == *kind && c.word == word).count();
        let (clear, over_tls) = (theirs("clear"), theirs("tls") + theirs("proved"));
        let letters: Vec<_> = sink.messages().into_iter().filter(|m| m.from != "<>").collect();
        let seen = letters.iter().filter(|m| m.over_tls).count();
        if (letters.len() - seen, seen) != (clear, over_tls) {
            let clear_seen = letters.len() - seen;
            writeln!(
                faults,
                "{kind}: {clear_seen} in the clear, {seen} over TLS; expected {clear}, {over_tls}"
            )
            .expect("written");
        }
        for cell in cells.iter().filter(|cell| cell.kind == *kind && cell.met()) {
            let address = format!("<r@{}>", cell.domain());
            let got: Vec<bool> = letters
                .iter()
                .filter(|m| m.to[0].starts_with(&address))
                .map(|m| m.over_tls)
                .collect();
            if got != [cell.word != "clear"] {
                writeln!(faults, "{}: arrived (over TLS): {got:?}", cell.domain())
                    .expect("written");
            }
        }
        let sizes = |clear: bool| -> u64 {
            letters.iter().filter(|m| !clear || !m.over_tls).map(|m| m.size).sum()
        };
        let counted = Counted { bytes: sizes(false), clear: sizes(true) };
        if sink.counted() != counted {
            writeln!(faults, "{kind}: parts of content: {:?}, whole: {counted:?}", sink.counted())
                .expect("written");
        }
        assert!(
            letters.iter().all(|m| m.size > scene::letter().len() as u64),
            "the letter and a Received"
        );
        let found = scene::count(&sink.bytes(), SECRET.as_bytes());
        if found != clear + over_tls {
            writeln!(faults, "{kind}: the secret was seen {found} times").expect("written");
        }
    }
    faults
}

/// Status by recipient, from the reports that came inside.
fn reports(inside: &Sink) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for report in inside.messages() {
        let text = String::from_utf8_lossy(&report.content).replace("\r\n\t", "");
        assert!(!text.contains(SECRET), "{text}");
        let mut recipient = None;
        for line in text.lines() {
            if let Some(address) = line.strip_prefix("Final-Recipient: rfc822;") {
                recipient = Some(address.trim().to_owned());
            }
            if let (Some(status), Some(recipient)) = (line.strip_prefix("Status: "), &recipient) {
                found.insert(recipient.clone(), status.trim().to_owned());
            }
        }
    }
    found
}

/// Where Postfix has an answer, it is the one of the table, or the table says why not.
fn ask_postfix(oracle: &Finger, scene: &Scene) -> String {
    let mut wrong = String::new();
    let both = scene_file(scene);
    for cell in table::rows().into_iter().filter(finger::expressible) {
        let peer = &scene.peers[cell.kind];
        let client = (cell.kind == "client-shown").then_some(both.as_path());
        let (word, said) = oracle.word(&cell, peer, client);
        let ours = if cell.met() { cell.word } else { "unmet" };
        match finger::difference(&cell) {
            None if word != ours => {
                writeln!(
                    wrong,
                    "{}/{}: Postfix says {word}, the table {ours}: {said}",
                    cell.kind, cell.column.name
                )
                .expect("written");
            }
            Some(why) if word == ours => {
                writeln!(
                    wrong,
                    "{}/{}: Postfix agrees ({word}), so this is no reason: {why}",
                    cell.kind, cell.column.name
                )
                .expect("written");
            }
            None | Some(_) => {}
        }
    }
    wrong
}

/// Postfix wants the client's certificate and key in one file.
fn scene_file(scene: &Scene) -> std::path::PathBuf {
    let both = scene.client.chain.with_extension("both.pem");
    let read = |path: &Path| std::fs::read_to_string(path).expect("read");
    std::fs::write(&both, read(&scene.client.key) + &read(&scene.client.chain)).expect("write");
    both
}
