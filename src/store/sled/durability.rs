//! The cure for sled's `flush()`, which on Linux reaches the disk's queue but not the disk.
//!
//! sled 0.34 calls `sync_file_range(2)`, which neither empties the drive's cache nor writes the
//! metadata of a file that has grown. Only where the kernel answers `ENOSYS` does it fall back to
//! `fsync(2)`. So a seccomp filter gives that answer, on every thread, before a store is opened;
//! and opening asks again whether it is in force.

use super::OpenError;

#[cfg(target_os = "linux")]
pub use linux::{check, install};

/// sled calls `fsync` by itself everywhere but on Linux: nothing to install.
#[cfg(not(target_os = "linux"))]
pub const fn install() -> Result<(), OpenError> {
    Ok(())
}
/// sled calls `fsync` by itself everywhere but on Linux: nothing to check.
#[cfg(not(target_os = "linux"))]
pub const fn check() -> Result<(), OpenError> {
    Ok(())
}

#[cfg(target_os = "linux")]
mod linux {
    use super::OpenError;
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
    use std::{
        collections::BTreeMap,
        fs, io,
        path::Path,
        sync::{Mutex, PoisonError},
    };

    /// Number of `sync_file_range(2)`: x86-64 has a table of its own.
    const SYNC_FILE_RANGE: i64 = if cfg!(target_arch = "x86_64") { 277 } else { 84 };
    /// `ENOSYS`, the same number on every architecture that seccompiler knows.
    const ENOSYS: u32 = 38;

    static INSTALLED: Mutex<bool> = Mutex::new(false);

    /// Installs the filter on all threads of this process, once; threads begun later inherit it. It
    /// cannot be taken off again, and touches no other system call.
    pub fn install() -> Result<(), OpenError> {
        let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        if !*installed {
            let program = filter().map_err(|e| refuse(&e.to_string()))?;
            seccompiler::apply_filter_all_threads(&program).map_err(|e| refuse(&e.to_string()))?;
            *installed = true;
        }
        Ok(())
    }
    fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
        let arch = TargetArch::try_from(std::env::consts::ARCH)?;
        let rules = BTreeMap::from([(SYNC_FILE_RANGE, Vec::new())]);
        let (others, ours) = (SeccompAction::Allow, SeccompAction::Errno(ENOSYS));
        SeccompFilter::new(rules, others, ours, arch)?.try_into()
    }
    /// True evidence, from the kernel: every thread of this process runs under a filter.
    pub fn check() -> Result<(), OpenError> {
        if !*INSTALLED.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(refuse("it was not installed"));
        }
        let tasks = fs::read_dir("/proc/self/task");
        for task in tasks.map_err(|e| refuse(&format!("/proc/self/task: {e}")))? {
            let path = task.map_err(|e| refuse(&e.to_string()))?.path().join("status");
            if !filtered(&path).map_err(|e| refuse(&format!("{}: {e}", path.display())))? {
                return Err(refuse(&format!("{} shows a thread without it", path.display())));
            }
        }
        Ok(())
    }
    /// `Seccomp: 2` is `SECCOMP_MODE_FILTER` (`proc_pid_status(5)`). A thread that ended meanwhile
    /// writes nothing.
    fn filtered(status: &Path) -> io::Result<bool> {
        match fs::read_to_string(status) {
            Ok(text) => Ok(mode_is_filter(&text)),
            Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(3) => {
                Ok(true)
            }
            Err(e) => Err(e),
        }
    }
    fn mode_is_filter(status: &str) -> bool {
        let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
        mode.is_some_and(|mode| mode.trim() == "2")
    }
    fn refuse(what: &str) -> OpenError {
        OpenError::NotDurable(what.to_owned())
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn reads_the_kernels_word() {
            assert!(mode_is_filter("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n"));
            assert!(!mode_is_filter("Name:\tx\nSeccomp:\t0\nSeccomp_filters:\t2\n"), "no filter");
            assert!(!mode_is_filter("Name:\tx\n"), "a kernel without seccomp");
        }
        #[test]
        fn is_in_force_on_old_and_new_threads() {
            let (begin, wait) = std::sync::mpsc::channel::<()>();
            let old = std::thread::spawn(move || {
                let _ = wait.recv();
                filtered(Path::new("/proc/thread-self/status")).unwrap()
            });
            install().unwrap();
            check().unwrap();
            install().unwrap();
            drop(begin);
            assert!(old.join().unwrap());
            let new = std::thread::spawn(|| filtered(Path::new("/proc/thread-self/status")));
            assert!(new.join().unwrap().unwrap());
        }
    }
}
