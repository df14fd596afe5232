//! Reports on TLS (RFC 8460): sessions are counted by domain and UTC day, kept as notes, read by
//! `restante tls-report`, and sent to the domains that ask for them.
//!
//! 1. The relay tells of each session; it is counted in memory at once.
//! 2. Every minute, and at stop, what was counted is added to the day's note.
//! 3. Some time after the day has ended, `send` asks each domain where reports go, and sends one.
//!
//! What is counted since the last minute is lost in a crash: a report may then say a few sessions
//! too little, and no mail is the worse for it.

mod record;
mod report;
mod send;
#[cfg(test)]
mod tests;

pub use report::{DateRange, Failure, Policy, PolicyReport, Report, Summary};

use crate::{
    clock::Clock,
    dns::Resolver,
    mail::{Address, Domain},
    policies::TlsSessions,
    policy::tlsrpt::{Counts, SessionNote},
    store::{NoteKind, NoteStore, QueueStore, StoreError},
    vault::Vault,
    wire::Web,
};
use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Domains whose sessions are counted between two writes; more are not counted.
const DOMAINS_MAX: usize = 10_000;
/// How often what was counted is written down.
const FLUSH: Duration = Duration::from_secs(60);
/// How often days that have ended are looked through for reports to send, or to send again.
const ROUND: Duration = Duration::from_secs(30 * 60);
/// Notes read at a time.
const PAGE: usize = 100;

/// What reports are made with.
#[derive(Debug, Clone)]
pub struct ReportSettings {
    /// `delivery.tls_reports`: reports are sent; they can be read here in any case.
    pub send: bool,
    /// `hostname`: the submitter.
    pub hostname: Domain,
    /// `organization.name`
    pub organization: String,
    /// `organization.postmaster`: whom to ask about a report.
    pub contact: Address,
    /// `notification.from`: `From` of reports by mail.
    pub from: Address,
    /// How long after the end of a day its reports begin to go (RFC 8460 §4.1: some random time,
    /// so that not all the world reports at midnight).
    pub delay: SignedDuration,
    /// Which of our addresses stands towards that one.
    pub source: fn(IpAddr) -> Option<IpAddr>,
}

/// What reports are made from, and the ways that they go.
#[derive(Debug, Clone)]
pub struct ReportPorts {
    /// Counts.
    pub notes: Arc<dyn NoteStore>,
    /// Reports by mail.
    pub queue: Arc<dyn QueueStore>,
    /// Signs and seals them.
    pub vault: Vault,
    /// Where domains want them.
    pub resolver: Arc<dyn Resolver>,
    /// Reports by HTTPS.
    pub web: Arc<dyn Web>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// Counts sessions and sends reports. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct TlsReports {
    shared: Arc<Shared>,
}

struct Shared {
    settings: ReportSettings,
    ports: ReportPorts,
    /// Not written down yet.
    counted: Mutex<BTreeMap<DayOf, Counts>>,
    /// One at a time reads a note and writes it back.
    writing: tokio::sync::Mutex<()>,
}

/// A domain on a day: the key of a note.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct DayOf {
    day: Date,
    domain: Domain,
}

/// A day's note.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    counts: Counts,
    /// URIs where its report has still to go. The domain is asked for them once a day, so that a
    /// record which changes by the hour is not followed to ever new places.
    #[serde(default)]
    left: Option<Vec<String>>,
    /// Nothing is left to send.
    #[serde(default)]
    closed: bool,
}

impl fmt::Debug for TlsReports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsReports").finish_non_exhaustive()
    }
}

impl fmt::Display for DayOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.day, self.domain)
    }
}

impl DayOf {
    fn of_key(key: &str) -> Option<Self> {
        let (day, domain) = key.split_once('/')?;
        Some(Self { day: day.parse().ok()?, domain: domain.parse().ok()? })
    }
}

/// RFC 8460 §4.1: a report covers a day, UTC.
fn day_of(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}

/// When a day begins.
fn start_of(day: Date) -> Timestamp {
    day.to_zoned(TimeZone::UTC).map_or(Timestamp::MAX, |zoned| zoned.timestamp())
}

/// When the day after it begins.
fn end_of(day: Date) -> Timestamp {
    day.tomorrow().map_or(Timestamp::MAX, start_of)
}

fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

impl TlsSessions for TlsReports {
    fn note(&self, note: SessionNote) {
        // Only failures name addresses; and an address of the inside tells the receiver nothing.
        let sending = note.failure.and(note.address).and_then(self.shared.settings.source);
        let key = DayOf { day: day_of(note.at), domain: note.domain.clone() };
        let mut counted = self.counted();
        if counted.len() >= DOMAINS_MAX && !counted.contains_key(&key) {
            tracing::debug!("a session was not counted: too many domains in one minute");
            return;
        }
        counted.entry(key).or_default().add(note, sending.filter(|ip| is_public(*ip)));
    }
}

impl TlsReports {
    /// Counts from now on; [`TlsReports::run`] writes down and sends.
    pub fn new(settings: ReportSettings, ports: ReportPorts) -> Self {
        let (counted, writing) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { shared: Arc::new(Shared { settings, ports, counted, writing }) }
    }

    /// Writes counts down and sends what is due, until it is told to stop. What is counted after
    /// that is written down by another [`TlsReports::flush`].
    pub async fn run(&self, stop: CancellationToken) {
        // Side by side: a round may take long where hosts are slow.
        tokio::join!(self.keep_flushing(&stop), self.keep_sending(&stop));
        self.flush().await;
    }

    async fn keep_flushing(&self, stop: &CancellationToken) {
        let mut ticks = tokio::time::interval(FLUSH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.flush().await;
        }
    }

    async fn keep_sending(&self, stop: &CancellationToken) {
        let mut ticks = tokio::time::interval(ROUND);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Err(error) = self.round(self.shared.ports.clock.now(), stop).await {
                tracing::warn!("a round of reports on TLS did not finish: {error}");
            }
        }
    }

    fn counted(&self) -> std::sync::MutexGuard<'_, BTreeMap<DayOf, Counts>> {
        self.shared.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what was counted to the notes. What can't be written now is kept for the next time.
    pub async fn flush(&self) {
        let counted = std::mem::take(&mut *self.counted());
        if counted.is_empty() {
            return;
        }
        let _one = self.shared.writing.lock().await;
        for (key, counts) in counted {
            if let Err(error) = self.add(&key, counts.clone()).await {
                tracing::warn!(domain = %key.domain, "counts of TLS sessions were not written: {error}");
                let mut newer = self.counted();
                if newer.len() < DOMAINS_MAX || newer.contains_key(&key) {
                    newer.entry(key).or_default().merge(counts);
                }
            }
        }
    }

    async fn add(&self, key: &DayOf, counts: Counts) -> Result<(), StoreError> {
        let mut note = self.read(key).await?.unwrap_or_default();
        note.counts.merge(counts);
        self.write(key, &note).await
    }

    async fn read(&self, key: &DayOf) -> Result<Option<Note>, StoreError> {
        let bytes = self.shared.ports.notes.note(NoteKind::TlsReport, &key.to_string()).await?;
        Ok(bytes.and_then(|bytes| parsed(key, &bytes)))
    }

    async fn write(&self, key: &DayOf, note: &Note) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(note).map_err(|e| StoreError::Corrupt(e.to_string()))?;
        self.shared.ports.notes.put_note(NoteKind::TlsReport, &key.to_string(), bytes).await
    }

    /// A page of notes after that key, and where the next page begins.
    async fn page(
        &self,
        after: Option<&str>,
    ) -> Result<(Vec<(DayOf, Note)>, Option<String>), StoreError> {
        let rows = self.shared.ports.notes.notes(NoteKind::TlsReport, after, PAGE).await?;
        let next = rows.last().filter(|_| rows.len() == PAGE).map(|(key, _)| key.clone());
        let notes = rows.into_iter().filter_map(|(key, bytes)| {
            let key = DayOf::of_key(&key)?;
            let note = parsed(&key, &bytes)?;
            Some((key, note))
        });
        Ok((notes.collect(), next))
    }

    /// Reports as they stand, oldest first: at most `max` after that key, each with its key; of one
    /// day and one domain where they are given.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn reports(
        &self,
        day: Option<Date>,
        domain: Option<&Domain>,
        after: Option<String>,
        max: usize,
    ) -> Result<Vec<(String, Report)>, StoreError> {
        self.flush().await;
        let mut reports = Vec::new();
        // Keys begin with the day, and `.` comes right before the slash behind it.
        let mut after = after.or_else(|| day.map(|day| format!("{day}.")));
        loop {
            let (notes, next) = self.page(after.as_deref()).await?;
            for (key, note) in notes {
                if day.is_some_and(|day| key.day > day) || reports.len() >= max {
                    return Ok(reports);
                }
                if domain.is_none_or(|domain| *domain == key.domain) {
                    let report = Report::new(&self.shared.settings, &key, &note.counts);
                    reports.push((key.to_string(), report));
                }
            }
            after = next;
            if after.is_none() {
                return Ok(reports);
            }
        }
    }
}

/// A note that makes no sense begins anew.
fn parsed(key: &DayOf, bytes: &[u8]) -> Option<Note> {
    let note = serde_json::from_slice(bytes);
    note.map_err(|error| tracing::warn!(domain = %key.domain, "a note on TLS sessions makes no sense: {error}"))
        .ok()
}

/// An address that means something outside.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(ip) => {
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified())
        }
        IpAddr::V6(ip) => {
            let inside = ip.is_unique_local() || ip.is_unicast_link_local();
            !(inside || ip.is_loopback() || ip.is_unspecified())
        }
    }
}
