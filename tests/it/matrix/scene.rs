//! What the tests of the table share: all the peers, one port, one authority, one way to send.

use super::{
    peers::{self, KINDS, Peer},
    table::Cell,
};
use crate::support::{
    dns::Zone,
    free_port,
    gateway::{Gateway, Settings},
    pki::{Leaf, Pki},
    sink::{Manner, Sink},
    smtp, wait_for,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

const INSIDE: &str = "127.0.40.9";
/// Where this is seen, content was seen.
pub const SECRET: &str = "the-secret-of-the-letter";

/// All the peers, and what they have in common.
#[derive(Debug)]
pub struct Scene {
    pub peers: BTreeMap<&'static str, Peer>,
    pub inside: Sink,
    pub pki: Pki,
    /// Our own certificate, of the authority that hosts ask for.
    pub client: Leaf,
    /// Our own certificate, of nobody's authority.
    pub stranger: Leaf,
    pub port: u16,
    dir: PathBuf,
}

impl Scene {
    pub fn open(dir: &Path) -> Self {
        let addresses: Vec<String> = KINDS.iter().map(|kind| peers::ip(kind).to_string()).collect();
        let mut addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        addresses.push(INSIDE);
        let port = free_port(&addresses);
        let pki = Pki::new(dir);
        let peers = KINDS.map(|kind| (kind, Peer::start(dir, &pki, port, kind)));
        let client = pki.leaf("gw.example.org");
        let other = dir.join("other");
        fs::create_dir_all(&other).expect("folder");
        let stranger = Pki::new(&other).leaf("gw.example.org");
        let inside = SocketAddr::new(INSIDE.parse().expect("address"), port);
        let inside = Sink::start(inside, Manner::default());
        let peers = peers.into_iter().collect();
        Self { peers, inside, pki, client, stranger, port, dir: dir.to_owned() }
    }

    /// Settings for these peers; nothing is tried twice while the test looks.
    pub fn settings(&self) -> Settings {
        Settings {
            mx_port: self.port,
            anchors: Some(self.pki.anchors.clone()),
            inside: Some(self.inside.address),
            delivery: "retry = [\"1h\"]\ngive_up = \"5d\"".to_owned(),
            ..Settings::default()
        }
    }

    /// Every host that is at home.
    pub fn sinks(&self) -> impl Iterator<Item = &Sink> {
        self.peers.values().filter_map(|peer| peer.sink.as_ref())
    }

    /// A file with the certificate that vouches for the kind's: its issuer's, or its own.
    pub fn anchor(&self, kind: &str) -> PathBuf {
        let file = self.dir.join(format!("{kind}.anchor.pem"));
        fs::write(&file, self.peers[kind].shown.issuer()).expect("write");
        file
    }

    /// The letter to all of them; the life of each once it has been tried. So many policies are asked
    /// for at once that some are fetched while the mail is put off already: those get a letter more.
    pub fn send(&self, gateway: &Gateway, to: &[&str]) -> Vec<Value> {
        let mut lives = self.send_once(gateway, to);
        loop {
            let early: Vec<usize> = (0..lives.len()).filter(|at| is_early(&lives[*at])).collect();
            if early.is_empty() {
                return lives;
            }
            let again: Vec<&str> = early.iter().map(|at| to[*at]).collect();
            for (at, life) in early.into_iter().zip(self.send_once(gateway, &again)) {
                lives[at] = life;
            }
        }
    }

    fn send_once(&self, gateway: &Gateway, to: &[&str]) -> Vec<Value> {
        let some = |to: &[&str]| smtp::send(gateway.smtp, "a@example.org", to, letter().as_bytes());
        // As many as one message may have (`smtp.max_recipients`).
        let sent: Vec<String> = to.chunks(1000).map(some).collect();
        let lives = |id: String| {
            wait_for("the end of every first attempt", || {
                let lives = gateway.json(&["trace", &id])["recipients"].as_array()?.clone();
                lives.iter().all(|life| life["outcome"] != "queued").then_some(lives)
            })
        };
        let lives: Vec<Value> = sent.into_iter().flat_map(lives).collect();
        assert_eq!(lives.len(), to.len());
        lives
    }

    /// The policy's entry for a cell.
    pub fn entry(&self, cell: &Cell) -> String {
        let (domain, level, otherwise) = (cell.domain(), cell.column.level, cell.otherwise);
        let mut entry = format!(
            "[[partner]]\ndomains = [\"{domain}\"]\nlevel = \"{level}\"\notherwise = \"{otherwise}\"\n\
             otherwise_after = \"0s\"\n"
        );
        let mut line = |text: String| writeln!(entry, "{text}").expect("written");
        match level {
            "secure" => line(format!("match = [\"{}\"]", peers::host(cell.kind))),
            "fingerprint" => {
                let noted = self.peers[cell.kind].noted();
                let whole = cell.otherwise == "envelope";
                let pin = if whole { noted.certificate_pin() } else { noted.key_pin() };
                line(format!("fingerprints = [\"sha256:{pin}\"]"));
            }
            _ => {}
        }
        if cell.kind == "client-shown" && level != "none" {
            line(format!("client_certificate = \"{}\"", self.client.chain.display()));
            line(format!("client_key = \"{}\"", self.client.key.display()));
        }
        entry
    }
}

/// True if the last attempt came before the domain's policy had been fetched.
fn is_early(life: &Value) -> bool {
    let last = life["attempts"].as_array().and_then(|attempts| attempts.last());
    let error = last.and_then(|attempt| attempt["error"].as_str()).unwrap_or_default();
    life["outcome"] == "deferred" && error.contains("being fetched")
}

/// A gateway that learns of signatures in this way (`dns.dnssec`).
pub fn start(dir: &Path, settings: &Settings, policies: &[(&str, &str)], dnssec: &str) -> Gateway {
    let mut gateway = Gateway::prepare(dir, settings, policies);
    let file = dir.join("restante.toml");
    let text = fs::read_to_string(&file).expect("read");
    let text = text.replace("dnssec = \"off\"", &format!("dnssec = \"{dnssec}\""));
    fs::write(&file, text).expect("write");
    gateway.run();
    gateway
}

/// What is sent.
pub fn letter() -> String {
    format!("Subject: x\r\nMessage-ID: <x@example.org>\r\n\r\n{SECRET}\r\n")
}

/// The domain's mail goes to the kind's host.
pub fn mail(zone: &Zone, domain: &str, kind: &str) {
    zone.mail(domain, &[(10, &peers::bare_host(kind), &peers::ip(kind).to_string())]);
}

/// How often a text stands among those bytes.
pub fn count(bytes: &[u8], text: &[u8]) -> usize {
    bytes.windows(text.len()).filter(|window| *window == text).count()
}
