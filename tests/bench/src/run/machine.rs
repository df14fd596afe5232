//! The machine that figures belong to.

use crate::Fault;
use serde_json::{Value, json};
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// File systems that are memory: a sync on them says nothing.
const MEMORY: &[&str] = &["tmpfs", "ramfs", "rootfs"];

/// What is told of the machine and the programs on it.
pub(super) fn facts(dir: &Path, restante: &Path) -> Result<Value, Fault> {
    let (device, kind) = file_system(dir)?;
    if MEMORY.contains(&kind.as_str()) {
        return Err(
            format!("{} lies in memory ({kind}): name a folder on a disk", dir.display()).into()
        );
    }
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.lines().find_map(|l| l.strip_prefix("MemTotal:")).unwrap_or_default();
    let kib: f64 = memory.trim().trim_end_matches(" kB").parse().unwrap_or(0.0);
    let head =
        first_line("git", [OsStr::new("rev-parse"), OsStr::new("--short=12"), OsStr::new("HEAD")]);
    Ok(json!({
        "processor": model.map(|(_, name)| name),
        "processors": cpus.lines().filter(|line| line.starts_with("processor")).count(),
        "memory_gib": (kib / f64::from(1 << 20) * 10.0).round() / 10.0,
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "disk": device,
        "file_system": kind,
        "write_cache": write_cache(&device),
        "rustc": first_line("rustc", ["-V"]),
        "restante": first_line(restante, ["--version"]),
        "commit": head,
        "postfix": first_line("postconf", ["-d", "-h", "mail_version"]),
    }))
}

/// Device and kind of the file system that a folder lies in.
fn file_system(dir: &Path) -> Result<(String, String), Fault> {
    let dir = dir.canonicalize()?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut best: Option<(PathBuf, String, String)> = None;
    for line in mounts.lines() {
        let mut words = line.split(' ').map(str::to_owned);
        let (Some(device), Some(at), Some(kind)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let deeper = best.as_ref().is_none_or(|(b, _, _)| Path::new(&at).starts_with(b));
        if dir.starts_with(&at) && deeper {
            best = Some((at.into(), device, kind));
        }
    }
    best.map(|(_, device, kind)| (device, kind)).ok_or_else(|| "no file system".into())
}

fn write_cache(device: &str) -> Option<String> {
    let name = Path::new(device).file_name()?;
    let file = Path::new("/sys/class/block").join(name).join("queue/write_cache");
    Some(fs::read_to_string(file).ok()?.trim().to_owned())
}

fn first_line<A: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = A>,
) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next()?.to_owned())
}
