//! One peer bears one load once.
//!
//! A timed pass touches nothing but clocks and the control group's counter. Memory and syncs are
//! counted in a pass of their own, whose times count for nothing.

use super::{
    RunArguments,
    peer::{Duty, Kind, Peer, Scene},
    process::{Group, Launch, Process, Watch, syncs},
    rows::Row,
};
use crate::Fault;
use serde_json::Value;
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// The longest that one load may take.
const MAX: Duration = Duration::from_secs(180);
/// Messages of a pass that counts syncs and memory.
const COUNTED: u64 = 1000;

/// What a timed pass gave.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sample {
    /// Messages per second; MB/s for big ones.
    pub(super) rate: f64,
    pub(super) cpu_per_10k: f64,
    pub(super) ack_p50_ms: f64,
    pub(super) ack_p99_ms: f64,
    pub(super) ack_max_ms: f64,
    /// Replies that were not those hoped for.
    pub(super) errors: u64,
    /// Messages that the sink was given more than once.
    pub(super) doubled: u64,
    /// Connections to the sink.
    pub(super) connections: u64,
    /// Handshakes at the sink.
    pub(super) handshakes: u64,
    /// Load average before it.
    pub(super) load: f64,
}

/// What the counting pass gave.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    /// MiB, most at once.
    pub(super) pss: f64,
    pub(super) syncs_per_message: Option<f64>,
}

/// Where everything of a run lies.
#[derive(Debug)]
pub(super) struct Bench<'a> {
    pub(super) arguments: &'a RunArguments,
    pub(super) launch: Launch,
    pub(super) dir: PathBuf,
    pub(super) certificates: PathBuf,
    pub(super) program: PathBuf,
    pub(super) restante: PathBuf,
    pub(super) group: Group,
}

/// A sink and a relay before it.
struct Stage {
    // In this order they end: the relay first.
    peer: Peer,
    sink: Process,
}

impl Bench<'_> {
    /// Times a load.
    pub(super) fn time(&self, row: &Row, kind: Kind, duty: Duty) -> Result<Sample, Fault> {
        let load = load_average();
        let mut stage = self.stage(kind, duty, None)?;
        let before = self.warm_up(&mut stage, row, duty)?;
        let messages = row.messages(self.arguments.messages);
        let profile = self.profile(row, kind, duty, &stage.peer)?;
        let cpu = stage.peer.group.cpu();
        let sent = self.load(stage.peer.smtp, row, 'm', messages)?;
        stage.sink_has('m', if duty == Duty::Accept { 0 } else { messages })?;
        if let Some(mut perf) = profile {
            let pid = perf.id().to_string();
            drop(Command::new("kill").args(["-INT", &pid]).status());
            drop(perf.wait());
        }
        stage.peer.group.calm();
        let cpu = stage.peer.group.cpu() - cpu;
        let took = stage.sink_has('m', 0)?;
        let accepted = messages as f64;
        let per_second = if duty == Duty::Accept {
            number(&sent, "per_second")
        } else {
            let micros = number(&took, "last_us") - number(&sent, "first_us");
            accepted / (micros / 1e6)
        };
        let unit = if row.is_big() { row.size as f64 / 1e6 } else { 1.0 };
        let since = |key: &str| (number(&took, key) - number(&before, key)) as u64;
        Ok(Sample {
            rate: per_second * unit,
            cpu_per_10k: cpu / accepted * 10_000.0,
            ack_p50_ms: number(&sent, "ack_p50_ms"),
            ack_p99_ms: number(&sent, "ack_p99_ms"),
            ack_max_ms: number(&sent, "ack_max_ms"),
            errors: number(&sent, "errors") as u64,
            doubled: (number(&took, "messages") - number(&took, "distinct")) as u64,
            connections: since("connections"),
            handshakes: since("handshakes"),
            load,
        })
    }

    /// Counts syncs and watches memory under a shorter load.
    pub(super) fn count(&self, row: &Row, kind: Kind, duty: Duty) -> Result<Counts, Fault> {
        let file = self.dir.join("syncs");
        let idle = row.sessions == 0;
        let mut stage =
            self.stage(kind, duty, Some(&file).filter(|_| !idle).map(PathBuf::as_path))?;
        if idle {
            stage.peer.group.calm();
            let pss = stage.peer.group.pss() as f64 / 1024.0;
            return Ok(Counts { pss, syncs_per_message: None });
        }
        self.warm_up(&mut stage, row, duty)?;
        let messages = row.messages(self.arguments.messages).min(COUNTED);
        let before = syncs(&file);
        let watch = Watch::start(&stage.peer.group);
        self.load(stage.peer.smtp, row, 'm', messages)?;
        stage.sink_has('m', if duty == Duty::Accept { 0 } else { messages })?;
        stage.peer.group.calm();
        let pss = watch.most() as f64 / 1024.0;
        let counted = syncs(&file).saturating_sub(before) as f64;
        Ok(Counts { pss, syncs_per_message: Some(counted / messages as f64) })
    }

    fn stage(&self, kind: Kind, duty: Duty, syncs: Option<&Path>) -> Result<Stage, Fault> {
        let dir = self.dir.join("peer");
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(&dir)?;
        if let Some(file) = syncs.filter(|file| file.exists()) {
            fs::remove_file(file)?;
        }
        let mut command = self.launch.command(&self.program);
        command.args(["sink", "--max-seconds", "900"]);
        match duty {
            Duty::Accept => drop(command.arg("--silent")),
            Duty::Plain => {}
            Duty::Tls | Duty::Envelope | Duty::Handshake => {
                command.arg("--require-tls").arg("--starttls").arg(&self.certificates);
                command.args(Some("--once").filter(|_| duty == Duty::Handshake));
            }
        }
        let sink = Process::start(command, "the sink")?;
        let ready = sink.line(Duration::from_secs(10))?;
        let hop = ready.strip_prefix("ready ").ok_or("no ready line of the sink")?.parse()?;
        let scene = Scene {
            launch: self.launch,
            dir: &dir,
            certificates: &self.certificates,
            restante: &self.restante,
            duty,
            hop,
            portal_tls: false,
            syncs,
        };
        Ok(Stage { peer: Peer::start(kind, &scene, self.group.clone())?, sink })
    }

    /// Processes are there, connections stand, pages are mapped: what a relay does once is not
    /// measured as if it did it for each message.
    fn warm_up(&self, stage: &mut Stage, row: &Row, duty: Duty) -> Result<Value, Fault> {
        let messages = if row.is_big() { 4 } else { (row.sessions as u64 * 2).max(100) };
        self.load(stage.peer.smtp, row, 'w', messages)?;
        let seen = stage.sink_has('w', if duty == Duty::Accept { 0 } else { messages })?;
        stage.peer.group.calm();
        Ok(seen)
    }

    fn load(&self, to: SocketAddr, row: &Row, tag: char, messages: u64) -> Result<Value, Fault> {
        let mut command = self.launch.command(&self.program);
        command.arg("load").args(["--to", &to.to_string()]);
        command.args(["--sessions", &row.sessions.to_string()]);
        command.args(["--messages", &messages.to_string(), "--size", &row.size.to_string()]);
        command.args(["--tag", &tag.to_string()]);
        command.args(["--domains", &self.arguments.domains.to_string()]);
        command.args(["--max-seconds", &MAX.as_secs().to_string()]);
        command.args(Some("--pipeline").filter(|_| self.arguments.pipeline));
        let output = command.stderr(Stdio::inherit()).output()?;
        let sent: Value = serde_json::from_slice(&output.stdout)?;
        let taken = number(&sent, "messages");
        if taken < messages as f64 {
            let error = sent.get("first_error").and_then(Value::as_str).unwrap_or("too slow");
            return Err(format!("{taken} of {messages} messages were taken: {error}").into());
        }
        Ok(sent)
    }

    /// `perf record` beside the timed pass, where it is asked for.
    fn profile(
        &self,
        row: &Row,
        kind: Kind,
        duty: Duty,
        peer: &Peer,
    ) -> Result<Option<std::process::Child>, Fault> {
        if !self.arguments.profile || kind != Kind::Restante {
            return Ok(None);
        }
        let pids: Vec<_> = peer.group.members().iter().map(ToString::to_string).collect();
        let mut command = self.launch.command("perf");
        command.args(["record", "-q", "-F", "997", "-g", "-p", &pids.join(","), "-o"]);
        // `envelope` times two duties.
        let file = format!("{}.{}.perf", row.name, duty.name().replace([' ', ','], ""));
        command.arg(self.dir.join(file)).stderr(Stdio::null());
        Ok(Some(command.spawn()?))
    }
}

impl Stage {
    /// Waits until the sink has so many different messages of a tag; what it has then.
    fn sink_has(&mut self, tag: char, messages: u64) -> Result<Value, Fault> {
        self.sink.ask(&format!("wait {tag} {messages} {}", MAX.as_secs()))?;
        let answer = self.sink.line(MAX + Duration::from_secs(10))?;
        let seen: Value = serde_json::from_str(&answer)?;
        if number(&seen, "distinct") < messages as f64 {
            return Err(format!("the sink has {} of {messages}", number(&seen, "distinct")).into());
        }
        Ok(seen)
    }
}

fn number(value: &Value, key: &str) -> f64 {
    value.get(key).and_then(Value::as_f64).unwrap_or(0.0)
}

/// Of the last minute.
pub(super) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}
