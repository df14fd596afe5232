//! The relays that are measured: how each is set up for a duty, started and ended.
//!
//! Both get the same next hop, the same authority to trust, and a fresh queue on the same disk.
//!
//! Where mail is to be taken and none delivered, the next hop takes connections and never greets. So
//! both do what they do behind a host that hangs: nothing more than wait. The other ways are worse:
//! a hop where nobody listens makes each of them try and settle every message; `defer_transports`,
//! which Postfix alone has, makes it log and move every message, and was no faster.

use super::process::{Group, Launch, Process};
use crate::{Fault, tls};
use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Patience with a start or a stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Kind {
    /// The release binary, with its defaults where a duty asks nothing else.
    Restante,
    /// So that nothing artificial bounds it.
    Postfix,
    /// As the package comes.
    PostfixShipped,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Restante => "Restante",
            Self::Postfix => "Postfix, tuned",
            Self::PostfixShipped => "Postfix, as shipped",
        }
    }
}

/// What is asked of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Duty {
    /// Take mail, deliver none.
    Accept,
    /// Deliver in clear.
    Plain,
    /// Deliver over TLS that verified chain and name; connections last.
    Tls,
    /// The same; the next hop ends each connection after a message.
    Handshake,
    /// Seal for pickup; the notice goes out over verified TLS. Restante alone can.
    Envelope,
}

impl Duty {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Plain => "plain",
            Self::Tls => "TLS",
            Self::Handshake => "TLS, each anew",
            Self::Envelope => "envelope",
        }
    }
}

/// Where and under what a relay runs.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub(super) launch: Launch,
    /// Its own folder, empty.
    pub(super) dir: &'a Path,
    /// `ca.pem`, `chain.pem`, `key.pem`.
    pub(super) certificates: &'a Path,
    pub(super) restante: &'a Path,
    pub(super) duty: Duty,
    pub(super) hop: SocketAddr,
    /// The portal speaks TLS with that certificate.
    pub(super) portal_tls: bool,
    /// Where strace writes, if it does.
    pub(super) syncs: Option<&'a Path>,
}

/// A running relay. It ends with this value.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) smtp: SocketAddr,
    /// Restante's portal.
    pub(super) portal: Option<SocketAddr>,
    pub(super) group: Group,
    /// Postfix is told to stop; Restante needs no more than its process' end.
    etc: Option<PathBuf>,
    process: Process,
}

impl Peer {
    pub(super) fn start(kind: Kind, scene: &Scene<'_>, group: Group) -> Result<Self, Fault> {
        match kind {
            Kind::Restante => restante(scene, group),
            Kind::Postfix => postfix(scene, group, true),
            Kind::PostfixShipped => postfix(scene, group, false),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(etc) = &self.etc {
            drop(Command::new("postfix").arg("-c").arg(etc).arg("stop").output());
        }
        self.group.end();
    }
}

fn restante(scene: &Scene<'_>, mut group: Group) -> Result<Peer, Fault> {
    let dir = scene.dir;
    fs::create_dir_all(dir.join("policies"))?;
    fs::write(dir.join("restante.toml"), configuration(scene))?;
    fs::write(dir.join("policies/partner.toml"), partner(scene))?;
    fs::write(dir.join("policies/default.toml"), "[default]\nlevel = \"envelope\"\n")?;
    let mut command = scene.launch.accounted(scene.restante, &group, scene.syncs);
    command.arg("--config").arg(dir.join("restante.toml")).arg("serve");
    command.stderr(fs::File::create(dir.join("log"))?);
    let process = Process::start(command, "restante")?;
    group.rooted(process.child.id());
    let ready = process.line(PATIENCE).map_err(|e| format!("{e}; see {}/log", dir.display()))?;
    let listening = ready.strip_prefix("ready smtp=").and_then(|rest| rest.split_once(" portal="));
    let (smtp, portal) = listening.ok_or_else(|| format!("no ready line: {ready}"))?;
    Ok(Peer { smtp: smtp.parse()?, portal: Some(portal.parse()?), group, etc: None, process })
}

/// As many connections to the next hop as Postfix is given: 50.
fn configuration(scene: &Scene<'_>) -> String {
    let certificates = scene.certificates.display();
    let pair =
        format!("certificate = \"{certificates}/chain.pem\"\nkey = \"{certificates}/key.pem\"\n");
    format!(
        r#"hostname   = "gw.source.test"
data_dir   = "data"
policy_dir = "policies"
[organization]
name       = "Bench"
domains    = ["source.test"]
postmaster = "postmaster@source.test"
support    = "help@source.test"
[smtp]
listen      = ["127.0.0.1:0"]
certificate = "{certificates}/chain.pem"
key         = "{certificates}/key.pem"
[inside]
host = "127.0.0.1:9"
[dns]
nameservers = ["127.0.0.1:9"]
dnssec      = "off"
[delivery]
trust_anchors          = "{certificates}/ca.pem"
refuse_networks        = []
watch                  = "0s"
connections_per_domain = 50
[notification]
from  = "secure@source.test"
level = "secure"
[portal]
listen = "127.0.0.1:0"
url    = "http://127.0.0.1:8080"
{portal}"#,
        portal = if scene.portal_tls { pair.as_str() } else { "" },
    )
}

fn partner(scene: &Scene<'_>) -> String {
    let level = match scene.duty {
        Duty::Accept | Duty::Plain => "none",
        Duty::Tls | Duty::Handshake => "secure",
        Duty::Envelope => "envelope",
    };
    let authority = format!("ca_file = \"{}/ca.pem\"\n", scene.certificates.display());
    format!(
        "[[partner]]\ndomains = [\"{domain}\", \".{domain}\"]\nlevel = \"{level}\"\n\
         next_hop = \"[127.0.0.1]:{port}\"\n{authority}",
        domain = tls::DOMAIN,
        port = scene.hop.port(),
        authority = if level == "secure" { &authority } else { "" },
    )
}

fn postfix(scene: &Scene<'_>, mut group: Group, tuned: bool) -> Result<Peer, Fault> {
    let dir = scene.dir;
    for folder in ["etc", "spool", "data", "log"] {
        fs::create_dir_all(dir.join(folder))?;
    }
    let etc = dir.join("etc");
    for file in ["postfix-files", "dynamicmaps.cf"] {
        fs::copy(Path::new("/etc/postfix").join(file), etc.join(file))?;
    }
    for folder in ["postfix-files.d", "dynamicmaps.cf.d"] {
        let from = Path::new("/etc/postfix").join(folder);
        Command::new("cp").arg("-r").arg(from).arg(&etc).status()?;
    }
    fs::write(etc.join("main.cf"), main_cf(scene, tuned))?;
    for folder in ["data", "log"] {
        chown(dir.join(folder), Some(postfix_uid()?), None)?;
    }
    for smtp in free_ports() {
        fs::write(etc.join("master.cf"), master_cf(smtp)?)?;
        let mut command = scene.launch.accounted("postfix", &group, scene.syncs);
        command.arg("-c").arg(&etc).arg("start-fg").stderr(fs::File::create(dir.join("stderr"))?);
        let process = Process::start(command, "postfix")?;
        group.rooted(process.child.id());
        let (etc, group) = (Some(etc.clone()), group.clone());
        let mut peer = Peer { smtp, portal: None, group, etc, process };
        if peer.listens(&dir.join("log/mail"))? {
            return Ok(peer);
        }
    }
    Err(format!("postfix does not start; see {}/log", dir.display()).into())
}

/// Ports that nobody holds now, beneath those that the kernel gives away by itself; but somebody may
/// be faster.
fn free_ports() -> impl Iterator<Item = SocketAddr> {
    let first = 20_000 + u16::try_from(std::process::id() % 8_000).unwrap_or(0);
    let ports = (first..30_000).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    ports.filter(|address| TcpListener::bind(address).is_ok()).take(5)
}

impl Peer {
    /// Waits until Postfix's own log says that it runs; false where it ended instead. To try its port
    /// would start a process that is measured later.
    fn listens(&mut self, log: &Path) -> Result<bool, Fault> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let said = fs::read_to_string(log).unwrap_or_default();
            if said.contains(": daemon started") {
                return Ok(true);
            }
            if self.process.child.try_wait()?.is_some() {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(50));
        }
        Err("postfix has not started in time".into())
    }
}

fn postfix_uid() -> Result<u32, Fault> {
    let output = Command::new("id").args(["-u", "postfix"]).stderr(Stdio::null()).output()?;
    let text = String::from_utf8(output.stdout)?;
    text.trim().parse().map_err(|_| "there is no user postfix: install postfix".into())
}

fn main_cf(scene: &Scene<'_>, tuned: bool) -> String {
    let mut lines = vec![
        "compatibility_level = 3.6".to_owned(),
        format!("queue_directory = {}/spool", scene.dir.display()),
        format!("data_directory = {}/data", scene.dir.display()),
        format!("maillog_file = {}/log/mail", scene.dir.display()),
        format!("maillog_file_prefixes = {}", scene.dir.display()),
        "mail_owner = postfix".to_owned(),
        "setgid_group = postdrop".to_owned(),
        "multi_instance_enable = no".to_owned(),
        "myhostname = gw.source.test".to_owned(),
        "mydestination =".to_owned(),
        "inet_interfaces = all".to_owned(),
        "inet_protocols = ipv4".to_owned(),
        "mynetworks = 127.0.0.0/8".to_owned(),
        "alias_maps =".to_owned(),
        "alias_database =".to_owned(),
        "message_size_limit = 52428800".to_owned(),
        "smtp_host_lookup = native".to_owned(),
        format!("relayhost = [127.0.0.1]:{}", scene.hop.port()),
        format!("smtpd_tls_chain_files = {0}/key.pem, {0}/chain.pem", scene.certificates.display()),
        "smtpd_tls_security_level = may".to_owned(),
    ];
    if matches!(scene.duty, Duty::Tls | Duty::Handshake) {
        lines.push("smtp_tls_security_level = secure".to_owned());
        lines.push(format!("smtp_tls_secure_cert_match = {}", tls::DOMAIN));
        lines.push(format!("smtp_tls_CAfile = {}/ca.pem", scene.certificates.display()));
    }
    if tuned {
        lines.extend(tuning(scene).into_iter().map(str::to_owned));
    }
    lines.join("\n") + "\n"
}

/// What takes Postfix's own brakes off. Where the next hop ends every connection, looking for one
/// that still stands would only cost.
fn tuning(scene: &Scene<'_>) -> Vec<&'static str> {
    let mut lines = vec![
        "default_process_limit = 300",
        "in_flow_delay = 0",
        "default_destination_concurrency_limit = 50",
        "initial_destination_concurrency = 50",
        "smtp_destination_concurrency_limit = 50",
    ];
    match scene.duty {
        Duty::Accept | Duty::Envelope => {}
        Duty::Plain => lines.push("smtp_connection_cache_destinations = static:all"),
        Duty::Tls => lines.extend([
            "smtp_connection_cache_destinations = static:all",
            "smtp_tls_connection_reuse = yes",
            "smtp_tls_session_cache_database = btree:$data_directory/smtp_scache",
        ]),
        Duty::Handshake => lines.push("smtp_connection_cache_on_demand = no"),
    }
    lines
}

/// The package's services without chroot, smtpd at our address.
fn master_cf(smtp: SocketAddr) -> Result<String, Fault> {
    let proto = fs::read_to_string("/etc/postfix/master.cf.proto")?;
    let mut lines = Vec::new();
    for line in proto.lines() {
        let mut fields: Vec<&str> = line.split_whitespace().collect();
        let service = !line.starts_with(['#', ' ']) && fields.len() > 7;
        if !service {
            continue;
        }
        if let Some(chroot) = fields.get_mut(4) {
            *chroot = "n";
        }
        let address = smtp.to_string();
        if fields.starts_with(&["smtp", "inet"])
            && let Some(name) = fields.get_mut(0)
        {
            *name = &address;
        }
        lines.push(fields.join(" "));
    }
    // The second keeps TLS connections for the next message; the package has it commented out.
    for more in ["postlog unix-dgram n - n - 1 postlogd", "tlsproxy unix - - n - 0 tlsproxy"] {
        let name = more.split(' ').next();
        if !lines.iter().any(|line| line.split(' ').next() == name) {
            lines.push(more.to_owned());
        }
    }
    Ok(lines.join("\n") + "\n")
}
