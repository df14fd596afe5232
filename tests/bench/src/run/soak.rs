//! Intake beside a portal under attack: how much of its rate remains, and what memory it takes.
//!
//! One process of Restante, one load, three times in one run: alone, while thousands of hostile
//! connections hold the portal, and alone again. The ratio is taken to the mean of the first and the
//! last, so that a machine that slows down meanwhile does not count as an attack.

use super::{
    hostile::{self, KINDS},
    peer::{Duty, Kind, Peer, Scene},
    process::{Group, Launch, Process, Undo, Watch},
};
use crate::{Fault, line, remark, tls};
use clap::Args;
use serde_json::{Value, json};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Patience with a step.
const PATIENCE: Duration = Duration::from_secs(300);
/// Open files of the attackers, as the soft limit.
const OPEN_FILES: u32 = 16_384;
/// What intake keeps at least of its rate.
const LEAST_RATIO: f64 = 0.8;
/// Memory that the process takes at most.
const MOST_MIB: f64 = 300.0;

#[derive(Debug, Clone, Args)]
pub(crate) struct SoakArguments {
    /// The program that is measured
    #[arg(long, default_value = "target/release/restante")]
    restante: PathBuf,
    /// Where the queue lies: a folder on a real disk
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    /// Hostile connections at the same time
    #[arg(long, default_value_t = 5000)]
    connections: usize,
    /// Sessions that hand in mail
    #[arg(long, default_value_t = 50)]
    sessions: usize,
    /// Messages of each of the three loads
    #[arg(long, default_value_t = 20_000)]
    messages: u64,
}

/// Runs the three loads and prints what came out; an error where a target was missed.
pub(crate) fn main(arguments: &SoakArguments) -> Result<(), Fault> {
    let dir = arguments.dir.join("soak");
    drop(fs::remove_dir_all(&dir));
    fs::create_dir_all(&dir)?;
    let (dir, restante) = (dir.canonicalize()?, arguments.restante.canonicalize()?);
    tls::write_certificates(&dir)?;
    let (undo, group) = (Undo::default(), Group::new());
    undo.later(&group);
    let launch = Launch { rt: false };
    let program = std::env::current_exe()?;
    // Connections to it stand in the backlog and are never greeted: mail is taken, none delivered.
    let hop = std::net::TcpListener::bind("127.0.0.1:0")?;
    let own = dir.join("restante");
    let scene = Scene {
        launch,
        dir: &own,
        certificates: &dir,
        restante: &restante,
        duty: Duty::Accept,
        hop: hop.local_addr()?,
        portal_tls: true,
        syncs: None,
    };
    let peer = Peer::start(Kind::Restante, &scene, group)?;
    let watch = Watch::start(&peer.group);
    let loads = Loads { launch, program: &program, to: peer.smtp, arguments };
    loads.send('w', arguments.messages / 10)?;
    let before = loads.send('a', arguments.messages)?;
    let portal = peer.portal.ok_or("no portal")?;
    let attack = Attack::start(&loads, portal, &dir)?;
    let during = loads.send('b', arguments.messages)?;
    let attacked = attack.end()?;
    let after = loads.send('c', arguments.messages)?;
    let most = watch.most() as f64 / 1024.0;
    let ratio = during / f64::midpoint(before, after);
    line(&format!(
        "{:#}",
        json!({
            "connections": arguments.connections,
            "rate_before": before,
            "rate_during": during,
            "rate_after": after,
            "ratio": ratio,
            "peak_pss_mib": most,
            "attack": attacked,
        })
    ));
    if ratio < LEAST_RATIO || most > MOST_MIB {
        return Err(format!("missed: ratio {ratio:.2}, {most:.0} MiB").into());
    }
    Ok(())
}

/// The generator as it is started here.
struct Loads<'a> {
    launch: Launch,
    program: &'a Path,
    to: SocketAddr,
    arguments: &'a SoakArguments,
}

impl Loads<'_> {
    /// Hands in so many messages; how many a second were taken.
    fn send(&self, tag: char, messages: u64) -> Result<f64, Fault> {
        let mut command = self.launch.command(self.program);
        command.arg("load").args(["--to", &self.to.to_string()]);
        command.args(["--sessions", &self.arguments.sessions.to_string()]);
        command.args(["--messages", &messages.to_string(), "--tag", &tag.to_string()]);
        let output = command.stderr(Stdio::inherit()).output()?;
        let sent: Value = serde_json::from_slice(&output.stdout)?;
        let number = |key: &str| sent.get(key).and_then(Value::as_f64).unwrap_or(0.0);
        remark(&format!("{tag}: {:.0} messages/s", number("per_second")));
        Ok(number("per_second"))
    }
}

/// The attackers, a process of its own.
struct Attack(Process);

impl Attack {
    /// Starts them and waits until each connection has been made once.
    fn start(loads: &Loads<'_>, portal: SocketAddr, dir: &Path) -> Result<Self, Fault> {
        // Elsewhere attackers have processors of their own: these take what nobody else wants.
        let mut command: Command = loads.launch.command("nice");
        command.args(["-n", "19", "prlimit"]);
        command.arg(format!("--nofile={OPEN_FILES}:")).arg(loads.program);
        command.arg("hostile").args(["--to", &portal.to_string()]);
        command.args(["--connections", &loads.arguments.connections.to_string()]);
        command.arg("--ca").arg(dir.join("ca.pem"));
        let process = Process::start(command, "the attackers")?;
        let begun = Instant::now();
        let said = process.line(PATIENCE)?;
        remark(&format!(
            "attackers of {} kinds: {said} after {:.1} s",
            KINDS.len(),
            begun.elapsed().as_secs_f64()
        ));
        Ok(Self(process))
    }

    /// Ends them; what became of their connections.
    fn end(mut self) -> Result<Value, Fault> {
        self.0.ask(hostile::END)?;
        Ok(serde_json::from_str(&self.0.line(PATIENCE)?)?)
    }
}
