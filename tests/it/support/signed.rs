//! A signed tree of its own: a root, `test.`, and mail domains below it, served by Knot, and two
//! Unbounds in front of it: one validates, one hands signatures on.

use super::{free_port, wait_for};
use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// What is done to a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Signed, with a DS record in `test.`.
    Signed,
    /// Not signed.
    Unsigned,
    /// Signed, and the DS record in `test.` is of another key.
    WrongKey,
    /// Signed; after that, the first text was replaced by the second.
    Doctored(&'static str, &'static str),
    /// Signed for one second, once.
    Expired,
    /// Signed, with names hashed more often than anyone should follow (RFC 9276 §3.2).
    Overhashed,
}

/// Name of a zone below `test.`, what is done to it, its records as in a zone file (SOA and NS are
/// added).
pub type ZoneOf<'a> = (&'a str, Kind, &'a str);

/// The running tree.
#[derive(Debug)]
pub struct Signed {
    /// A resolver that validates, and says AD.
    pub validating: SocketAddr,
    /// A resolver that does not, and hands on signatures.
    pub iterating: SocketAddr,
    /// The root's DS records, for `dns.trust_anchor`.
    pub anchor: PathBuf,
    /// The same as DNSKEY record.
    pub anchor_key: PathBuf,
    dir: PathBuf,
    knot: Daemon,
    unbounds: Vec<Daemon>,
}

/// A process that ends with its owner.
#[derive(Debug)]
struct Daemon(Child);

impl Daemon {
    fn start(command: &mut Command, log: &Path) -> Self {
        let log = fs::File::options().append(true).create(true).open(log).expect("log");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("log")).stderr(log);
        Self(command.spawn().expect("installed (tests/run installs it)"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Signed {
    /// Signs and serves these zones in a folder of their own below `dir`.
    pub fn start(dir: &Path, zones: &[ZoneOf<'_>]) -> Self {
        let dir = dir.join("dns");
        for folder in ["knot/db", "zones", "dump", "unbound"] {
            fs::create_dir_all(dir.join(folder)).expect("folder");
        }
        let port = free_port(&["127.0.0.1"]);
        let mut all: Vec<(String, Kind)> = vec![(".".into(), Kind::Signed)];
        all.push(("test".into(), Kind::Signed));
        all.extend(zones.iter().map(|(name, kind, _)| ((*name).to_owned(), *kind)));
        configure_knot(&dir, port, &all, false);
        for (name, _) in all.iter().filter(|(_, kind)| *kind != Kind::Unsigned) {
            let key = ["generate", "algorithm=ECDSAP256SHA256", "ksk=yes", "zsk=yes"];
            keymgr(&dir, name, &key);
        }
        let mut delegations = "ns A 127.0.0.1\n".to_owned();
        for (name, kind, records) in zones {
            write_zone(&dir, name, records);
            writeln!(delegations, "{name}. NS ns.test.").expect("written");
            match kind {
                Kind::Unsigned => {}
                Kind::WrongKey => {
                    delegations += &ds(&dir, "test").replacen("test.", &format!("{name}."), 1)
                }
                Kind::Signed | Kind::Doctored(..) | Kind::Expired | Kind::Overhashed => {
                    delegations += &ds(&dir, name)
                }
            }
        }
        write_zone(&dir, "test", &delegations);
        write_zone(
            &dir,
            ".",
            &format!("test. NS ns.test.\nns.test. A 127.0.0.1\n{}", ds(&dir, "test")),
        );
        let frozen = |kind: &Kind| matches!(kind, Kind::Doctored(..) | Kind::Expired);
        if all.iter().any(|(_, kind)| frozen(kind)) {
            freeze(&dir, port, &all);
        }
        configure_knot(&dir, port, &all, true);
        let knot = start_knot(&dir, port, &all);
        let anchor = dir.join("root.ds");
        fs::write(&anchor, ds(&dir, ".")).expect("write");
        let anchor_key = dir.join("root.key");
        fs::write(&anchor_key, keymgr(&dir, ".", &["dnskey"])).expect("write");
        let (validating, first) = start_unbound(&dir, port, &all, "validator iterator");
        let (iterating, second) = start_unbound(&dir, port, &all, "iterator");
        let unbounds = vec![first, second];
        for (name, _) in all.iter().filter(|(_, kind)| *kind == Kind::Expired) {
            let old = || (!answers(validating.port(), name, false)).then_some(());
            wait_for(&format!("the signatures of {name} to expire"), old);
        }
        Self { validating, iterating, anchor, anchor_key, dir, knot, unbounds }
    }

    /// Records of a mail domain with one host, and the host's TLSA records at that port.
    pub fn mail(host: &str, address: &str, port: u16, tlsa: &[&str]) -> String {
        let mut records = format!("@ MX 10 {host}\n{host} A {address}\n");
        for data in tlsa {
            writeln!(records, "_{port}._tcp.{host} TLSA {data}").expect("written");
        }
        records
    }

    /// Other records for a zone that is signed or not signed; signed again.
    pub fn change(&self, zone: &str, records: &str) {
        write_zone(&self.dir, zone, records);
        let done = knotc(&self.dir).args(["-b", "zone-reload", zone]).status().expect("knotc runs");
        assert!(done.success(), "{zone} was not loaded again");
    }

    /// Ends the resolvers: nobody answers any more.
    pub fn stop_resolvers(&mut self) {
        self.unbounds.clear();
    }

    /// Ends the servers behind the resolvers.
    pub fn stop_servers(&mut self) {
        drop(self.knot.0.kill());
        drop(self.knot.0.wait());
    }
}

fn configure_knot(dir: &Path, port: u16, zones: &[(String, Kind)], last: bool) {
    let d = dir.display();
    let mut text = format!(
        "server:\n  rundir: {d}/knot\n  listen: 127.0.0.1@{port}\n\
         log:\n  - target: stderr\n    any: info\n\
         database:\n  storage: {d}/knot/db\n"
    );
    text += "policy:\n";
    // As out there: the root with NSEC, the zone of many delegations with NSEC3 and opt-out, others
    // with NSEC3 as RFC 9276 asks for it.
    let nsec3 = "nsec3: on\n    nsec3-iterations: 0\n    nsec3-salt-length: 0";
    let opt_out = format!("{nsec3}\n    nsec3-opt-out: on");
    let short = format!(
        "{nsec3}\n    rrsig-lifetime: 3s\n    rrsig-refresh: 2s\n    rrsig-pre-refresh: 0s\n    \
         propagation-delay: 0\n    zone-max-ttl: 1"
    );
    let often = nsec3.replace("iterations: 0", "iterations: 151");
    for (id, more) in [
        ("root", "nsec3: off"),
        ("many", &opt_out),
        ("usual", nsec3),
        ("short", &short),
        ("often", &often),
    ] {
        text += &format!("  - id: {id}\n    manual: on\n    single-type-signing: on\n    {more}\n");
    }
    text += "zone:\n";
    for (name, kind) in zones {
        let (folder, policy) = match kind {
            Kind::Doctored(..) | Kind::Expired if last => ("dump", None),
            Kind::Unsigned => ("zones", None),
            Kind::Expired => ("zones", Some("short")),
            Kind::Overhashed => ("zones", Some("often")),
            Kind::Signed if name == "." => ("zones", Some("root")),
            Kind::Signed if name == "test" => ("zones", Some("many")),
            Kind::Signed | Kind::WrongKey | Kind::Doctored(..) => ("zones", Some("usual")),
        };
        let file = file_of(name);
        writeln!(text, "  - domain: {name}\n    file: {d}/{folder}/{file}\n    zonefile-sync: -1")
            .expect("written");
        text += &match policy {
            Some(policy) => format!(
                "    zonefile-load: difference-no-serial\n    journal-content: all\n    \
                 dnssec-signing: on\n    dnssec-policy: {policy}\n"
            ),
            None => "    zonefile-load: whole\n    journal-content: none\n".to_owned(),
        };
    }
    fs::write(dir.join("knot.conf"), text).expect("write");
}

fn file_of(zone: &str) -> String {
    if zone == "." { "root.zone".to_owned() } else { format!("{zone}.zone") }
}

/// SOA with a serial that rises with every writing.
fn write_zone(dir: &Path, name: &str, records: &str) {
    let file = dir.join("zones").join(file_of(name));
    let before = fs::read_to_string(&file).unwrap_or_default();
    let serial = before.split_whitespace().nth(8).and_then(|s| s.parse::<u32>().ok());
    let serial = serial.unwrap_or_default() + 1;
    let origin = format!("{}.", name.trim_end_matches('.'));
    let head =
        format!("$TTL 1\n@ SOA ns.test. hostmaster.test. {serial} 5 5 500 1\n@ NS ns.test.\n");
    fs::write(file, format!("$ORIGIN {origin}\n{head}{records}\n")).expect("write");
}

fn keymgr(dir: &Path, zone: &str, arguments: &[&str]) -> String {
    let mut command = Command::new("keymgr");
    let output = command.arg("-c").arg(dir.join("knot.conf")).arg(zone).args(arguments).output();
    let output = output.expect("keymgr is installed (tests/run installs it)");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "keymgr {zone} {arguments:?}: {stderr}");
    String::from_utf8(output.stdout).expect("text")
}

/// The zone's DS record with SHA-256.
fn ds(dir: &Path, zone: &str) -> String {
    let all = keymgr(dir, zone, &["ds"]);
    let line = all.lines().find(|line| line.contains(" 13 2 ")).expect("a DS record");
    format!("{line}\n")
}

fn start_knot(dir: &Path, port: u16, zones: &[(String, Kind)]) -> Daemon {
    let mut command = Command::new("knotd");
    let log = dir.join("knot.log");
    let mut knot = Daemon::start(command.arg("-c").arg(dir.join("knot.conf")), &log);
    for (zone, _) in zones {
        wait_for(&format!("Knot with {zone}"), || {
            if let Ok(Some(status)) = knot.0.try_wait() {
                panic!("Knot ended with {status}: {}", fs::read_to_string(&log).expect("log"));
            }
            answers(port, zone, true).then_some(())
        });
    }
    knot
}

/// True if there is an answer for the zone's SOA, checked or not.
fn answers(port: u16, zone: &str, unchecked: bool) -> bool {
    let cd = if unchecked { "+cd" } else { "+nocd" };
    let port = port.to_string();
    let asked = ["+short", "+time=1", "+retry=0", cd, "@127.0.0.1", "-p", &port, zone, "SOA"];
    let output = Command::new("kdig").args(asked).output();
    let output = output.expect("kdig is installed (tests/run installs it)");
    output.status.success() && String::from_utf8_lossy(&output.stdout).contains("hostmaster")
}

/// Signs once, writes the signed zones to files and lets them rot there.
fn freeze(dir: &Path, port: u16, zones: &[(String, Kind)]) {
    let _knot = start_knot(dir, port, zones);
    for (name, kind) in zones {
        if !matches!(kind, Kind::Doctored(..) | Kind::Expired) {
            continue;
        }
        let out = dir.join("dump");
        let file = out.join(file_of(name));
        let flush = ["-b", "zone-flush", "+outdir"];
        let done = knotc(dir).args(flush).arg(&out).arg(name).status().expect("knotc runs");
        assert!(done.success(), "{name} was not written");
        let text = fs::read_to_string(&file).expect("the signed zone");
        if let Kind::Doctored(from, to) = kind {
            assert!(text.contains(from), "{from:?} is not in {name}");
            fs::write(&file, text.replace(from, to)).expect("write");
        }
    }
}

fn knotc(dir: &Path) -> Command {
    let mut command = Command::new("knotc");
    command.arg("-c").arg(dir.join("knot.conf")).stdout(Stdio::null());
    command
}

fn start_unbound(
    dir: &Path,
    knot: u16,
    zones: &[(String, Kind)],
    modules: &str,
) -> (SocketAddr, Daemon) {
    let port = free_port(&["127.0.0.1"]);
    let d = dir.display();
    let mut text = format!(
        "server:\n directory: \"{d}/unbound\"\n chroot: \"\"\n username: \"\"\n pidfile: \"\"\n \
         use-syslog: no\n logfile: \"\"\n num-threads: 1\n interface: 127.0.0.1@{port}\n \
         access-control: 127.0.0.0/8 allow\n do-not-query-localhost: no\n do-ip6: no\n \
         local-zone: \"test.\" nodefault\n module-config: \"{modules}\"\n \
         trust-anchor-file: \"{d}/root.ds\"\n cache-max-ttl: 0\n cache-max-negative-ttl: 0\n \
         val-bogus-ttl: 0\n val-sig-skew-min: 0\n val-sig-skew-max: 0\n val-log-level: 2\n qname-minimisation: no\n\
         remote-control:\n control-enable: no\n"
    );
    for (name, _) in zones {
        writeln!(text, "stub-zone:\n name: \"{name}\"\n stub-addr: 127.0.0.1@{knot}")
            .expect("written");
    }
    let file = dir.join(format!("unbound-{port}.conf"));
    fs::write(&file, text).expect("write");
    let log = dir.join(format!("unbound-{port}.log"));
    let mut unbound = Daemon::start(Command::new("unbound").arg("-d").arg("-c").arg(file), &log);
    wait_for("Unbound", || {
        if let Ok(Some(status)) = unbound.0.try_wait() {
            panic!("Unbound ended with {status}: {}", fs::read_to_string(&log).expect("log"));
        }
        answers(port, ".", false).then_some(())
    });
    (SocketAddr::from(([127, 0, 0, 1], port)), unbound)
}
