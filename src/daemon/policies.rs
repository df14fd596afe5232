//! The policies in force: one whole set at a time. A set with an error in it never comes into
//! force; the last good one stays, and the error is said in the log and in `status`.

use super::StartError;
use crate::{
    cli::policy::{missing_files, read_dir},
    clock::Clock,
    control::{server::PolicyReport, view::PolicyStatus},
    policies::Policies,
    policy::{PolicySet, Problem, SourceFile, check::with_dnssec_off},
};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};
use tokio_util::sync::CancellationToken;

/// How often the folder is looked at for changes.
const LOOK: Duration = Duration::from_secs(1);

/// The set in force and where it comes from.
#[derive(Debug)]
pub(super) struct LivePolicies {
    dir: PathBuf,
    /// Nobody checks DNSSEC: a set that rests on it is refused.
    dnssec_off: bool,
    clock: Arc<dyn Clock>,
    current: ArcSwap<PolicySet>,
    status: Mutex<(Timestamp, Option<String>)>,
    /// The folder as it was before the first set was read.
    first: Vec<Stamp>,
}

/// A file's name, size and time of change.
type Stamp = (PathBuf, u64, Option<SystemTime>);

impl LivePolicies {
    /// Loads the first set; with an error in it the server does not start.
    pub(super) fn load(
        dir: PathBuf,
        dnssec_off: bool,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StartError> {
        let now = clock.now();
        if !dir.is_dir() {
            tracing::warn!(dir = %dir.display(), "there is no policy folder: no partner is known");
        }
        // Before the files are read, so that an edit from then on is seen as one.
        let first = stamps(&dir);
        let set = parse(&dir, dnssec_off, now).map_err(StartError::Config)?;
        let status = Mutex::new((now, None));
        Ok(Self { dir, dnssec_off, clock, current: ArcSwap::from_pointee(set), status, first })
    }

    /// Reads the folder again; what is wrong leaves the set in force as it is.
    pub(super) fn reload(&self) {
        // One at a time: a set that was read earlier never follows one read later.
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        let read = self.there().and_then(|()| parse(&self.dir, self.dnssec_off, now));
        match read {
            Ok(set) => {
                tracing::info!(
                    version = set.version(),
                    partners = set.partners(),
                    "policies loaded"
                );
                self.current.store(Arc::new(set));
                *status = (now, None);
            }
            Err(error) => {
                tracing::error!(%error, "the changed policies are NOT in force; the last good set stays");
                status.1 = Some(error);
            }
        }
    }

    /// A folder that is gone (a mount, a checkout half done) does not say that no partner is left.
    fn there(&self) -> Result<(), String> {
        let had_files = self.current.load().version() != PolicySet::default().version();
        if had_files && !self.dir.is_dir() {
            return Err(format!("{}: the policy folder is gone", self.dir.display()));
        }
        Ok(())
    }

    /// Reloads whenever a file of the folder has changed, until `stop`.
    pub(super) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut seen = self.first.clone();
        let mut ticks = tokio::time::interval(LOOK);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let now = stamps(&self.dir);
            if now != seen {
                seen = now;
                self.reload();
            }
        }
    }
}

impl Policies for LivePolicies {
    fn current(&self) -> Arc<PolicySet> {
        self.current.load_full()
    }
}

impl PolicyReport for LivePolicies {
    fn report(&self) -> PolicyStatus {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let version = self.current.load().version().to_owned();
        PolicyStatus { version, loaded: status.0, error: status.1.clone() }
    }
}

/// Names, sizes and times of the folder's files.
fn stamps(dir: &Path) -> Vec<Stamp> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut stamps: Vec<_> = entries
        .filter_map(|entry| {
            let meta = entry.metadata().ok()?;
            Some((entry.path(), meta.len(), meta.modified().ok()))
        })
        .filter(|(path, _, _)| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    stamps.sort();
    stamps
}

/// The whole set, or every problem, a line each.
fn parse(dir: &Path, dnssec_off: bool, now: Timestamp) -> Result<PolicySet, String> {
    let files: Vec<SourceFile> =
        read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let lines = |problems: &[Problem]| {
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    match PolicySet::parse(&files, now) {
        Ok((set, warnings)) => {
            let refused = if dnssec_off { with_dnssec_off(&set) } else { Vec::new() };
            if !refused.is_empty() {
                return Err(lines(&refused));
            }
            for warning in warnings.iter().chain(&missing_files(&set, dir)) {
                tracing::warn!("{warning}");
            }
            Ok(set)
        }
        Err(problems) => Err(lines(&problems)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    #[test]
    fn a_broken_change_leaves_the_last_good_set() {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = dir.path().join("default.toml");
        std::fs::write(&file, "[default]\nlevel = \"envelope\"\n").expect("write");
        let live =
            LivePolicies::load(dir.path().to_owned(), false, Arc::new(SystemClock)).expect("good");
        let good = live.report().version;

        std::fs::write(&file, "[default]\nlevel = \"envelop\"\n").expect("write");
        live.reload();
        let report = live.report();
        assert_eq!(report.version, good);
        assert!(report.error.expect("said").contains("default.toml:2:"));

        std::fs::write(&file, "[default]\nlevel = \"opportunistic\"\n").expect("write");
        live.reload();
        let report = live.report();
        assert_ne!(report.version, good);
        assert_eq!(report.error, None);
    }

    #[test]
    fn a_folder_that_is_gone_leaves_the_last_good_set() {
        let dir = tempfile::tempdir().expect("temp dir");
        let folder = dir.path().join("policies");
        std::fs::create_dir(&folder).expect("made");
        std::fs::write(folder.join("default.toml"), "[default]\nlevel = \"envelope\"\n")
            .expect("write");
        let live = LivePolicies::load(folder.clone(), false, Arc::new(SystemClock)).expect("good");
        let good = live.report().version;
        std::fs::remove_dir_all(&folder).expect("removed");
        live.reload();
        let report = live.report();
        assert_eq!(report.version, good);
        assert!(report.error.expect("said").contains("is gone"));
        std::fs::create_dir(&folder).expect("made");
        live.reload();
        assert_eq!(live.report().error, None, "an empty folder means no partners");
    }

    #[test]
    fn levels_that_rest_on_dnssec_are_refused_without_it() {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = dir.path().join("p.toml");
        let entry =
            |level| format!("[[partner]]\ndomains = [\"a.example\"]\nlevel = \"{level}\"\n");
        let load = |off| LivePolicies::load(dir.path().to_owned(), off, Arc::new(SystemClock));
        for level in ["dane", "dane-only", "auto"] {
            std::fs::write(&file, entry(level)).expect("write");
            load(false).expect("DNSSEC is checked");
            let refused = load(true).expect_err("refused").to_string();
            assert!(refused.contains("p.toml:1:1: error: level `") && refused.contains(level));
        }
        std::fs::write(&file, entry("secure")).expect("write");
        let live = load(true).expect("rests on no DNSSEC");
        std::fs::write(&file, entry("dane-only")).expect("write");
        live.reload();
        assert!(live.report().error.expect("said").contains("dane-only"));
    }

    #[test]
    fn a_broken_set_does_not_start() {
        let dir = tempfile::tempdir().expect("temp dir");
        std::fs::write(dir.path().join("p.toml"), "[[partner]]\nlevel = 3\n").expect("write");
        let refused = LivePolicies::load(dir.path().to_owned(), false, Arc::new(SystemClock));
        assert!(refused.expect_err("refused").to_string().contains("p.toml:2:"));
    }
}
