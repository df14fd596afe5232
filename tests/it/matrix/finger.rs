//! Postfix as the oracle: what `posttls-finger` says of the same hosts.

use super::{
    dns::Port53,
    peers::{self, Peer, host},
    table::Cell,
};
use crate::support::pki::Pki;
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Where Restante differs from Postfix on purpose: kind, levels, and why.
const DIFFERENCES: [(&str, &[&str], &str); 6] = [
    (
        "cn-only",
        &["verify", "secure"],
        "Postfix takes the CN where there is no SAN; RFC 9525 §2 ended that",
    ),
    (
        "x509-v1",
        &["verify", "secure"],
        "the same, and without extensions nobody can say what the key is for",
    ),
    (
        "ca-leaf",
        &["verify", "secure"],
        "a CA's certificate vouches for others and is no host's (RFC 5280 §4.2.1.9)",
    ),
    (
        "client-wanted",
        &["opportunistic", "encrypt", "fingerprint", "verify", "secure", "dane", "dane-only"],
        "in TLS 1.3 the host says only after the handshake that it wants a certificate; the finger has left by then",
    ),
    (
        "injected",
        &["opportunistic", "encrypt", "fingerprint", "verify", "secure", "dane", "dane-only"],
        "Postfix throws the words away and goes on; here somebody on the way is reason enough to stop",
    ),
    ("tls11", &["opportunistic", "encrypt"], "Postfix speaks TLS 1.1; RFC 8996 ended that"),
];

/// The oracle, with a configuration that names nothing of this machine.
#[derive(Debug)]
pub struct Finger {
    etc: PathBuf,
    anchors: PathBuf,
    port: u16,
    _names: Port53,
}

impl Finger {
    pub fn new(dir: &Path, pki: &Pki, port: u16, resolver: SocketAddr) -> Self {
        let etc = dir.join("finger");
        fs::create_dir_all(&etc).expect("folder");
        let main = format!(
            "compatibility_level = 3.6\nqueue_directory = {0}\ndata_directory = {0}\n\
             multi_instance_enable = no\nmyhostname = finger.test\ninet_protocols = ipv4\n",
            etc.display()
        );
        fs::write(etc.join("main.cf"), main).expect("write");
        let names = Port53::start(resolver);
        fs::write(etc.join("resolv.conf"), format!("nameserver {}\n", names.address.ip()))
            .expect("write");
        Self { etc, anchors: pki.anchors.clone(), port, _names: names }
    }

    /// The program, where `resolv.conf` names our resolver: in a mount namespace of its own.
    fn command(&self) -> Command {
        let mount = "mount --bind \"$1\" /etc/resolv.conf && shift && exec posttls-finger \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", mount, "sh"]).arg(self.etc.join("resolv.conf"));
        command
    }

    /// What Postfix would have done in this cell: `clear`, `tls`, `proved`, or `unmet`.
    pub fn word(&self, cell: &Cell, peer: &Peer, client: Option<&Path>) -> (&'static str, String) {
        let level = match cell.column.level {
            "opportunistic" => "may",
            level => level,
        };
        let mut command = self.command();
        command.env("MAIL_CONFIG", &self.etc).args(["-c", "-L", "summary", "-d", "sha256"]);
        command.arg("-l").arg(level).arg("-F").arg(&self.anchors);
        if let Some(client) = client {
            command.arg("-k").arg(client);
        }
        let place =
            if cell.column.tlsa { host(cell.kind) } else { peers::ip(cell.kind).to_string() };
        command.arg(format!("[{place}]:{}", self.port));
        match level {
            "verify" | "secure" => drop(command.arg(host(cell.kind))),
            "fingerprint" => drop(command.arg(colons(&peer.noted().key_pin()))),
            _ => {}
        }
        let output = command.stdin(Stdio::null()).output().expect("posttls-finger is installed");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let tls = said.contains("TLS connection established");
        let proved = said.contains("Verified TLS connection established");
        let word = match level {
            _ if said.contains("Failed to establish session") => "unmet",
            "none" => "clear",
            "may" if !tls => "clear",
            "may" | "encrypt" if tls => "tls",
            "fingerprint" | "verify" | "secure" | "dane" | "dane-only" if proved => "proved",
            _ => "unmet",
        };
        assert!(level != "none" || !tls, "{said}");
        (word, said)
    }
}

/// True if Postfix has such a level, and this tool judges by it: without TLSA records it would take
/// another.
pub fn expressible(cell: &Cell) -> bool {
    cell.kind != "bogus"
        && matches!(
            cell.column.name,
            "none"
                | "opportunistic"
                | "encrypt"
                | "fingerprint"
                | "verify"
                | "secure"
                | "dane"
                | "dane-only"
        )
}

/// Says whether the table may differ from Postfix here, and why.
pub fn difference(cell: &Cell) -> Option<&'static str> {
    let of = |(kind, levels, _): &&(&str, &[&str], &str)| {
        *kind == cell.kind && levels.contains(&cell.column.name)
    };
    DIFFERENCES.iter().find(of).map(|(_, _, why)| *why)
}

/// Postfix writes digests with colons.
fn colons(hex: &str) -> String {
    let pairs: Vec<&str> =
        hex.as_bytes().chunks(2).filter_map(|p| std::str::from_utf8(p).ok()).collect();
    pairs.join(":").to_ascii_uppercase()
}
