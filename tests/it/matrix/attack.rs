//! Whoever stands in the way of a partner, carried on to the end: STARTTLS is stripped or a
//! certificate of the attacker's own is shown, at every level and `otherwise`; then notice, link and
//! code are taken, and an account is registered. The message is not read.

use super::{
    dns,
    scene::{self, SECRET, Scene},
    table::{self, Cell},
};
use crate::support::{
    gateway::{Gateway, Settings},
    house::{code_in, link_in},
    http::Visitor,
    sink::Received,
    wait_for,
};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr};

/// The attacker's mail hosts: one strips STARTTLS, two show a certificate that proves nothing.
const ATTACKS: [&str; 3] = ["stripped", "self-signed", "renewed"];

/// Every meeting of an attack with a level that it makes unmet. Level `auto` at a domain that
/// publishes nothing is the case of a plain stranger, and of another test.
fn attacked() -> Vec<Cell> {
    let cells = table::cells().into_iter();
    let cells = cells.filter(|cell| ATTACKS.contains(&cell.kind));
    cells.filter(|cell| !cell.met() && cell.column.name != "auto-bare").collect()
}

struct Siege {
    scene: Scene,
    cells: Vec<Cell>,
    gateway: Gateway,
    lives: Vec<Value>,
    _names: (crate::support::nginx::Nginx, crate::support::signed::Signed),
}

/// All messages are sent, and have met the attacker once.
fn lay(dir: &std::path::Path, notification: &str) -> Siege {
    let scene = Scene::open(dir);
    let cells = attacked();
    let web = dns::address(443);
    let policies = dns::publish(dir, &scene, &cells, web);
    let signed = dns::sign(dir, &scene, &cells, web, "");
    let settings = Settings {
        nameserver: Some(signed.validating),
        notification: notification.to_owned(),
        ..scene.settings()
    };
    let policy: String = cells.iter().map(|cell| scene.entry(cell)).collect();
    let folder = dir.join("gateway");
    let gateway = scene::start(&folder, &settings, &[("matrix.toml", &policy)], "trust-ad");
    let recipients: Vec<String> = cells.iter().map(|cell| format!("r@{}", cell.domain())).collect();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    let lives = scene.send(&gateway, &recipients);
    Siege { scene, cells, gateway, lives, _names: (policies, signed) }
}

impl Siege {
    /// The meetings whose message waits at the portal, and what is on record of them.
    fn sealed(&self) -> impl Iterator<Item = (&Cell, &Value)> {
        let pairs = self.cells.iter().zip(&self.lives);
        pairs.filter(|(_, life)| life["outcome"] == "sealed")
    }

    /// What the attacker at the cell's host was given for its recipient, oldest first.
    fn taken(&self, cell: &Cell) -> Vec<Received> {
        let to = format!("<r@{}>", cell.domain());
        let sink = self.scene.peers[cell.kind].sink.as_ref().expect("a host");
        sink.messages().into_iter().filter(|m| m.to[0].starts_with(&to)).collect()
    }

    fn letters_inside(&self, cell: &Cell) -> Vec<String> {
        let about = format!("r@{}", cell.domain());
        let texts = self.scene.inside.messages();
        let texts = texts.iter().map(|m| String::from_utf8_lossy(&m.content).replace("=\r\n", ""));
        texts.filter(|text| text.contains(&about)).collect()
    }
}

#[test]
fn who_takes_notice_link_and_code_does_not_read() {
    let dir = tempfile::tempdir().expect("temp dir");
    // The weakest that an operator can choose: notices and codes go to whoever answers.
    let siege = lay(dir.path(), "level = \"opportunistic\"");
    assert!(siege.sealed().count() >= 20, "{:?}", siege.lives);
    for (number, (cell, life)) in (1u8..).zip(siege.sealed()) {
        let domain = cell.domain();
        assert_eq!(cell.otherwise, "envelope", "{domain}: `defer` and `bounce` seal nothing");
        let why = life["why"].as_str().unwrap_or_default();
        assert!(why.contains("The line is in doubt"), "{domain}: {why}");
        let notice = wait_for("the notice", || siege.taken(cell).into_iter().next());
        // Each from an address of its own: codes are few for one client.
        let client = IpAddr::V4(Ipv4Addr::new(127, 0, 60, number));
        let mut attacker = Visitor::from(siege.gateway.portal, client);
        let message = register(&siege, cell, &mut attacker, &notice);
        for end in ["", "/original.eml", "/attachments.zip", "/reply", "/print", "/html"] {
            let page = attacker.get(&format!("{message}{end}"));
            assert_eq!(page.status, 303, "{domain}{end}");
            assert!(page.location().ends_with("/prove"), "{domain}{end}: {}", page.location());
        }
        let inbox = attacker.get("/inbox").text();
        assert!(!inbox.contains(SECRET), "{domain}");
        let guess = [("phrase", "abandon ability able about above")];
        let guessed = attacker.post(&format!("{message}/prove"), &guess);
        assert_eq!(guessed.status, 422, "{domain}: {}", guessed.text());
        assert_eq!(attacker.get(&message).status, 303, "{domain}");
        // The sender was told a phrase inside, and nothing of it went out.
        let told = wait_for("the sender's report", || {
            let reports = siege.letters_inside(cell).into_iter();
            reports.map(|text| phrase_in(&text)).find(|phrase| !phrase.is_empty())
        });
        let seen = siege.scene.peers[cell.kind].sink.as_ref().expect("a host").bytes();
        assert_eq!(scene::count(&seen, told.as_bytes()), 0, "{domain}");
        assert_eq!(scene::count(&seen, SECRET.as_bytes()), 0, "{domain}");
    }
}

/// Registers through the notice's link, by the code that comes over the same line.
fn register(siege: &Siege, cell: &Cell, attacker: &mut Visitor, notice: &Received) -> String {
    let link = link_in(&notice.content);
    let token = link.rsplit('/').next().expect("a token").to_owned();
    let password = "a long enough password";
    let form = [
        ("token", token.as_str()),
        ("first_name", "Eve"),
        ("last_name", "Dropper"),
        ("password", password),
        ("password_confirm", password),
        ("accept_terms", "on"),
    ];
    let before = siege.taken(cell).len();
    let sent = attacker.post("/register", &form);
    assert_eq!(sent.status, 303, "{}: {}", cell.domain(), sent.text());
    let mail = wait_for("the code", || siege.taken(cell).get(before).cloned());
    let shown = attacker.post("/verify", &[("code", &code_in(&mail.content))]);
    assert_eq!(shown.status, 303, "{}", shown.text());
    shown.location()
}

/// The phrase that a report holds: alone in its line, indented.
pub fn phrase_in(report: &str) -> String {
    let line = report.lines().find(|line| line.starts_with("    ") && line.trim().contains(' '));
    line.unwrap_or_default().trim().to_owned()
}

#[test]
fn what_goes_as_published_tells_whoever_stands_in_the_way_nothing() {
    let dir = tempfile::tempdir().expect("temp dir");
    let siege = lay(dir.path(), "");
    // An entry that asks for no proof counts as published only where its domain publishes something.
    let proves = |cell: &Cell| !matches!(cell.column.level, "encrypt");
    let kept: Vec<&Cell> = siege.sealed().map(|(cell, _)| cell).filter(|c| proves(c)).collect();
    assert!(kept.len() >= 15, "{:?}", siege.lives);
    wait_for("every notice was tried", || {
        let queued = siege.gateway.json(&["queue", "list"]);
        let waits = |cell: &&&Cell| {
            let to = format!("r@{}", cell.domain());
            let mine = |r: &Value| r["address"] == to.as_str() && r["attempts"] != 0;
            let all = queued.as_array().into_iter().flatten();
            all.flat_map(|m| m["recipients"].as_array().into_iter().flatten()).any(mine)
        };
        (kept.iter().filter(waits).count() == kept.len()).then_some(())
    });
    for cell in kept {
        let taken = siege.taken(cell);
        assert!(taken.is_empty(), "{}: {} letters", cell.domain(), taken.len());
    }
}
