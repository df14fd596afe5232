//! Whoever stands in the way of a partner, carried on to the end: STARTTLS is stripped or refused in
//! the host's name, or a certificate of the attacker's own is shown, at every level and `otherwise`;
//! then notice, link and code are taken, the notice is refused in the recipient's name, and an account
//! is registered. The message is not read.

use super::{
    dns,
    peers::FORGED,
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

/// The attacker's mail hosts: one strips STARTTLS, one refuses it for good, two show a certificate that
/// proves nothing.
const ATTACKS: [&str; 4] = ["stripped", "refused-502", "self-signed", "renewed"];

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

    /// What the attacker at the cell's host was given for that recipient, oldest first.
    fn taken(&self, cell: &Cell, local: &str) -> Vec<Received> {
        let to = format!("<{local}@{}>", cell.domain());
        let sink = self.scene.peers[cell.kind].sink.as_ref().expect("a host");
        sink.messages().into_iter().filter(|m| m.to[0].starts_with(&to)).collect()
    }

    fn letters_inside(&self, cell: &Cell, local: &str) -> Vec<String> {
        let about = format!("{local}@{}", cell.domain());
        let texts = self.scene.inside.messages();
        let texts = texts.iter().map(|m| String::from_utf8_lossy(&m.content).replace("=\r\n", ""));
        texts.filter(|text| text.contains(&about)).collect()
    }

    /// The attacker, signed in by the notice and the code that came over the same line, does not
    /// read; and nothing that would help went that way.
    fn is_not_read(&self, cell: &Cell, attacker: &mut Visitor, message: &str, local: &str) {
        let domain = cell.domain();
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
        assert_eq!(attacker.get(message).status, 303, "{domain}");
        // The sender was told a phrase inside, and nothing of it went out.
        let told = wait_for("the sender's report", || {
            let mut letters = self.letters_inside(cell, local).into_iter();
            letters.find(|text| text.contains("asked for the phrase below"))
        });
        let phrase = phrase_in(&told);
        assert_eq!(phrase.split(' ').count(), 5, "{domain}: {told}");
        let seen = self.scene.peers[cell.kind].sink.as_ref().expect("a host").bytes();
        assert_eq!(scene::count(&seen, phrase.as_bytes()), 0, "{domain}");
        assert_eq!(scene::count(&seen, SECRET.as_bytes()), 0, "{domain}");
    }
}

/// A visitor from an address of its own: codes are few for one client.
fn visitor(siege: &Siege, number: u8) -> Visitor {
    let client = IpAddr::V4(Ipv4Addr::new(127, 0, 60, number));
    Visitor::from(siege.gateway.portal, client)
}

#[test]
fn who_takes_notice_link_and_code_does_not_read() {
    let dir = tempfile::tempdir().expect("temp dir");
    // The weakest that an operator can choose: notices and codes go to whoever answers.
    let siege = lay(dir.path(), "level = \"opportunistic\"");
    assert!(siege.sealed().count() >= 28, "{:?}", siege.lives);
    for (number, (cell, life)) in (1u8..).zip(siege.sealed()) {
        let domain = cell.domain();
        assert_eq!(cell.otherwise, "envelope", "{domain}: `defer` and `bounce` seal nothing");
        let why = life["why"].as_str().unwrap_or_default();
        assert!(why.contains("The line is in doubt"), "{domain}: {why}");
        let notice = wait_for("the notice", || siege.taken(cell, "r").into_iter().next());
        let mut attacker = visitor(&siege, number);
        let message = register(&siege, cell, &mut attacker, (&notice, "r"));
        siege.is_not_read(cell, &mut attacker, &message, "r");
    }
    // Where the level is not met and nothing is sealed, the attacker gets nothing.
    let unsealed = siege.cells.iter().filter(|cell| cell.otherwise != "envelope");
    for cell in unsealed {
        let taken = siege.taken(cell, "r");
        assert!(taken.is_empty(), "{}: {} letters", cell.domain(), taken.len());
    }
}

/// The attacker keeps the notice and refuses it in the recipient's name. The sender hears that it was
/// refused, and sends again; the attacker lets that notice pass, and registers by it.
#[test]
fn who_forges_the_bounce_of_a_notice_does_not_read() {
    let dir = tempfile::tempdir().expect("temp dir");
    let siege = lay(dir.path(), "level = \"opportunistic\"");
    let cells: Vec<&Cell> = siege.sealed().map(|(cell, _)| cell).collect();
    let to: Vec<String> = cells.iter().map(|c| format!("{FORGED}@{}", c.domain())).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    siege.scene.send(&siege.gateway, &to);
    for cell in &cells {
        wait_for("the sender hears of the refusal", || {
            let letters = siege.letters_inside(cell, FORGED);
            letters.iter().any(|text| text.contains("no such user")).then_some(())
        });
    }
    siege.scene.send(&siege.gateway, &to);
    for (number, cell) in (1u8..).zip(cells) {
        let taken = wait_for("both notices", || {
            let taken = siege.taken(cell, FORGED);
            (taken.len() >= 2).then_some(taken)
        });
        let [first, second] = &taken[..] else { panic!("{}: {}", cell.domain(), taken.len()) };
        let mut attacker = visitor(&siege, number);
        let refused = attacker.post("/register", &form(&token_in(first)));
        assert_eq!(refused.status, 410, "{}: its grant is over", cell.domain());
        let message = register(&siege, cell, &mut attacker, (second, FORGED));
        siege.is_not_read(cell, &mut attacker, &message, FORGED);
    }
}

fn token_in(notice: &Received) -> String {
    let link = link_in(&notice.content);
    link.rsplit('/').next().expect("a token").to_owned()
}

/// What is typed to register by a link.
fn form(token: &str) -> [(&str, &str); 6] {
    let password = "a long enough password";
    [
        ("token", token),
        ("first_name", "Eve"),
        ("last_name", "Dropper"),
        ("password", password),
        ("password_confirm", password),
        ("accept_terms", "on"),
    ]
}

/// Registers through the notice's link, by the code that comes over the same line.
fn register(
    siege: &Siege,
    cell: &Cell,
    attacker: &mut Visitor,
    (notice, local): (&Received, &str),
) -> String {
    let before = siege.taken(cell, local).len();
    let sent = attacker.post("/register", &form(&token_in(notice)));
    assert_eq!(sent.status, 303, "{}: {}", cell.domain(), sent.text());
    let mail = wait_for("the code", || siege.taken(cell, local).get(before).cloned());
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
        let taken = siege.taken(cell, "r");
        assert!(taken.is_empty(), "{}: {} letters", cell.domain(), taken.len());
    }
}
