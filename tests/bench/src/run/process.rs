//! Processes of a run: how they are started, what they cost, and that none outlives it.

use crate::Fault;
use std::{
    collections::HashSet,
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Clock ticks of a second in /proc (`USER_HZ`: the same on every Linux of today).
const TICKS: f64 = 100.0;
/// What control groups of runs are called, before the driver's process id.
const GROUP: &str = "restante-bench-";
/// Time between two looks at memory.
const LOOK: Duration = Duration::from_millis(50);
/// A peer that used less of the processor than this within [`CALM_OVER`] is at rest.
const CALM: f64 = 0.004;
const CALM_OVER: Duration = Duration::from_millis(200);
const CALM_MAX: Duration = Duration::from_secs(20);

/// How all programs of a run are started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Launch {
    /// As `SCHED_RR`, so that neighbours on the machine don't count.
    pub(super) rt: bool,
}

impl Launch {
    /// A command that ends with this process, however this process ends.
    pub(super) fn command(self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        if self.rt {
            command.args(["chrt", "--rr", "1"]);
        }
        command.arg(program);
        command
    }

    /// The same, within a group that is accounted, and under strace where syncs are counted.
    pub(super) fn accounted(
        self,
        program: impl AsRef<OsStr>,
        group: &Group,
        syncs: Option<&Path>,
    ) -> Command {
        let mut command = self.command("sh");
        let enter = "[ -z \"$0\" ] || echo $$ >\"$0\"/cgroup.procs || exit 1; exec \"$@\"";
        command.arg("-c").arg(enter).arg(group.path.clone().unwrap_or_default());
        if let Some(file) = syncs {
            command.args(["strace", "-D", "-f", "-q", "--seccomp-bpf", "-e", "signal=none"]);
            command.args(["-e", "trace=fsync,fdatasync,sync_file_range,msync,sync,syncfs", "-o"]);
            command.arg(file);
        }
        command.arg(program);
        command
    }
}

/// A child whose lines can be waited for. It ends with this value.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) child: Child,
    lines: Receiver<String>,
    name: String,
}

impl Process {
    pub(super) fn start(mut command: Command, name: &str) -> Result<Self, Fault> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|e| format!("{name} does not start: {e}"))?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let (said, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if said.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, lines, name: name.to_owned() })
    }

    /// The next line that it says.
    pub(super) fn line(&self, patience: Duration) -> Result<String, Fault> {
        self.lines.recv_timeout(patience).map_err(|error| {
            let what = match error {
                RecvTimeoutError::Timeout => "said nothing in time",
                RecvTimeoutError::Disconnected => "has ended",
            };
            format!("{} {what}", self.name).into()
        })
    }

    /// Says a line to it.
    pub(super) fn ask(&mut self, question: &str) -> Result<(), Fault> {
        let stdin = self.child.stdin.as_mut().ok_or("no stdin")?;
        Ok(writeln!(stdin, "{question}")?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The processes of one peer: a control group where this machine lets us make one, else the tree
/// below its first process.
#[derive(Debug, Clone)]
pub(super) struct Group {
    path: Option<PathBuf>,
    root: Option<u32>,
}

impl Group {
    /// An empty group.
    pub(super) fn new() -> Self {
        let name = format!("{GROUP}{}", std::process::id());
        let places = ["cpuacct", "cpu,cpuacct", "unified", ""];
        let places = places.iter().map(|place| Path::new("/sys/fs/cgroup").join(place));
        let mut paths = places.inspect(|place| sweep(place)).map(|place| place.join(&name));
        let path = paths.find(|path| {
            let made = path.is_dir() || fs::create_dir(path).is_ok();
            let usable = made && usage(path).is_some();
            if made && !usable {
                drop(fs::remove_dir(path));
            }
            usable
        });
        Self { path, root: None }
    }

    /// What stands for the way of accounting.
    pub(super) fn describe(&self) -> String {
        match &self.path {
            Some(path) => format!("control group below {}", parent(path)),
            None => "sums over /proc (children that ended are in them once waited for)".to_owned(),
        }
    }

    /// Without control groups: the first process.
    pub(super) fn rooted(&mut self, pid: u32) {
        self.root = Some(pid);
    }

    /// Its processes, without a tracer.
    pub(super) fn members(&self) -> Vec<u32> {
        let listed = match &self.path {
            Some(path) => fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default(),
            None => return self.root.map(tree).unwrap_or_default(),
        };
        let pids = listed.lines().filter_map(|line| line.parse().ok());
        pids.filter(|pid| !is_tracer(*pid)).collect()
    }

    /// Seconds of processor time so far, user and system, of children too.
    pub(super) fn cpu(&self) -> f64 {
        match &self.path {
            Some(path) => usage(path).unwrap_or(0.0),
            None => self.members().into_iter().map(cpu_of).sum(),
        }
    }

    /// KiB of memory, shared pages by share.
    pub(super) fn pss(&self) -> u64 {
        let of = |pid: u32| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        self.members().into_iter().filter_map(of).sum()
    }

    /// Waits until nothing more is done: what a peer puts off is work for the same messages.
    pub(super) fn calm(&self) {
        let begun = Instant::now();
        let mut before = self.cpu();
        while begun.elapsed() < CALM_MAX {
            thread::sleep(CALM_OVER);
            let now = self.cpu();
            if now - before < CALM {
                return;
            }
            before = now;
        }
    }

    /// Ends what is left. All of it was started here.
    pub(super) fn end(&self) {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(5) {
            let members = self.members();
            if members.is_empty() {
                return;
            }
            let pids = members.iter().map(ToString::to_string);
            drop(Command::new("kill").arg("-KILL").args(pids).stderr(Stdio::null()).status());
            thread::sleep(LOOK);
        }
    }

    /// Ends what is left, and the group.
    pub(super) fn close(&self) {
        self.end();
        if let Some(path) = &self.path {
            drop(fs::remove_dir(path));
        }
    }
}

/// Removes empty groups of runs that were killed.
fn sweep(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(GROUP));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            drop(fs::remove_dir(entry.path()));
        }
    }
}

fn parent(path: &Path) -> String {
    path.parent().unwrap_or(path).display().to_string()
}

/// Seconds that a control group has used, of version 1 or 2.
fn usage(group: &Path) -> Option<f64> {
    if let Ok(nanos) = fs::read_to_string(group.join("cpuacct.usage")) {
        return nanos.trim().parse::<f64>().ok().map(|n| n / 1e9);
    }
    let stat = fs::read_to_string(group.join("cpu.stat")).ok()?;
    let micros = stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
    micros.parse::<f64>().ok().map(|n| n / 1e6)
}

/// Fields of /proc/PID/stat behind the name, which may hold anything.
fn stat(pid: u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = text.rsplit_once(") ").map(|(_, fields)| fields).unwrap_or_default();
    fields.split_whitespace().map(str::to_owned).collect()
}

fn cpu_of(pid: u32) -> f64 {
    // utime, stime, cutime, cstime: fields 14 to 17 of the whole line.
    let fields = stat(pid);
    let ticks = fields.iter().skip(11).take(4).filter_map(|f| f.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS
}

fn is_tracer(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "strace")
}

/// A process and all below it.
fn tree(root: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> =
        pids.filter_map(|pid| Some((pid, stat(pid).get(1)?.parse().ok()?))).collect();
    let mut found = HashSet::from([root]);
    loop {
        let known = found.len();
        found.extend(
            parents
                .iter()
                .filter(|(_, up)| found.contains(up))
                .map(|(pid, _)| *pid)
                .collect::<Vec<_>>(),
        );
        if found.len() == known {
            return found.into_iter().filter(|pid| !is_tracer(*pid)).collect();
        }
    }
}

/// Looks at a group's memory until it is asked for the most.
#[derive(Debug)]
pub(super) struct Watch {
    most: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(super) fn start(group: &Group) -> Self {
        let (most, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (group, seen, over) = (group.clone(), Arc::clone(&most), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                seen.fetch_max(group.pss(), Ordering::Relaxed);
                thread::sleep(LOOK);
            }
        });
        Self { most, stop, thread: Some(thread) }
    }

    /// The most that was seen, in KiB.
    pub(super) fn most(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
        self.most.load(Ordering::Relaxed)
    }
}

/// Syncs in what strace has written so far: those that the kernel did.
pub(super) fn syncs(file: &Path) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().filter(|line| line.trim_end().ends_with("= 0")).count() as u64
}

/// What is to be undone at the end, also where the run broke off.
#[derive(Debug, Default)]
pub(super) struct Undo(Mutex<Vec<Group>>);

impl Undo {
    pub(super) fn later(&self, group: &Group) {
        if let Ok(mut groups) = self.0.lock() {
            groups.push(group.clone());
        }
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Ok(groups) = self.0.lock() {
            groups.iter().for_each(Group::close);
        }
    }
}
