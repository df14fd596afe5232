//! `restante vault rebuild`: the book anew from the sealed bodies.

use super::{StartError, keys::RingKeeper};
use crate::{
    cli::{Exit, out},
    clock::{Clock, SystemClock},
    config::Config,
    store::{
        StoreError,
        sled::{RebuildError, RebuildReport, rebuild as from_bodies},
    },
};
use serde_json::json;

/// Progress is said every so many bodies.
const EVERY: u64 = 1000;

/// Rebuilds with the server stopped.
pub fn rebuild(config: &Config, json: bool) -> Exit {
    match run(config) {
        Ok(report) if json => out::json(&view(&report)),
        Ok(report) => tell(&report),
        Err(error) => {
            out::complain(&error);
            return error.exit();
        }
    }
    Exit::Done
}

fn run(config: &Config) -> Result<RebuildReport, StartError> {
    let ring = RingKeeper::new(config).load_existing()?;
    let mut seen = 0_u64;
    let mut progress = |report: &RebuildReport| {
        seen = seen.saturating_add(1);
        if seen.is_multiple_of(EVERY) {
            out::complain(format_args!("{seen} bodies read, {} messages back", report.messages));
        }
    };
    from_bodies(&config.data_dir, &ring, SystemClock.now(), &mut progress).map_err(StartError::from)
}

impl From<RebuildError> for StartError {
    fn from(error: RebuildError) -> Self {
        match error {
            RebuildError::Open(error) => error.into(),
            RebuildError::WrongRing(_) => Self::Config(error.to_string()),
            RebuildError::Store(StoreError::Full) => Self::TryAgain(error.to_string()),
            RebuildError::Store(_) => Self::Damaged(error.to_string()),
        }
    }
}

fn view(report: &RebuildReport) -> serde_json::Value {
    json!({
        "aside": report.aside,
        "messages": report.messages,
        "recipients": report.recipients,
        "bytes": report.bytes,
        "own": report.own,
        "destroyed": report.destroyed,
        "unreadable": report.unreadable,
        "named": report.named,
    })
}

fn tell(report: &RebuildReport) {
    out::line(format_args!(
        "{} messages for {} recipients ({} bytes) wait in the queue again",
        report.messages, report.recipients, report.bytes
    ));
    out::line(format_args!(
        "{} notices and codes of our own were left out, {} bodies had been destroyed",
        report.own, report.destroyed
    ));
    if let Some(aside) = &report.aside {
        out::line(format_args!("the old book lies in {}", aside.display()));
    }
    if report.unreadable > 0 {
        out::line(format_args!("{} bodies do not open:", report.unreadable));
        for (name, why) in &report.named {
            out::line(format_args!("  {name}: {why}"));
        }
    }
}
