//! Sending: after a day has ended, its reports go where the domains want them.

use super::{
    DayOf, Note, TlsReports, day_of, end_of, later,
    record::{Place, place, places},
    report::{MEDIA_TYPE, Report, ReportMail},
};
use crate::{
    dns::Texts,
    mail::{Address, QueueId},
    seal::{Class, MessageFacts, header::Needs},
    store::{NoteKind, StoreError},
    wire::WebPlace,
};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp, civil::Date};
use tokio_util::sync::CancellationToken;

/// How long a report that could not be sent is tried again (RFC 8460 §5.4 gives a day).
const TRIED_FOR: SignedDuration = SignedDuration::from_hours(24);
/// Days that counts are kept.
const KEPT: i64 = 14;

/// How a place took its report.
enum Sent {
    /// It is done with, also where nothing could be sent.
    Done,
    /// Not now.
    Later(String),
}

impl TlsReports {
    /// Every day that has ended: reports that have not gone yet are sent, and old counts forgotten.
    pub(super) async fn round(
        &self,
        now: Timestamp,
        stop: &CancellationToken,
    ) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let (notes, next) = self.page(after.as_deref()).await?;
            for (key, note) in notes {
                if key.day >= day_of(now) || stop.is_cancelled() {
                    return Ok(());
                }
                // One domain's trouble is not the next one's.
                if let Err(error) = self.visit(&key, note, now, stop).await {
                    tracing::warn!(domain = %key.domain, day = %key.day,
                        "a report on TLS could not be seen to: {error}");
                }
            }
            after = next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn visit(
        &self,
        key: &DayOf,
        mut note: Note,
        now: Timestamp,
        stop: &CancellationToken,
    ) -> Result<(), StoreError> {
        if is_old(key.day, now) {
            let notes = &self.shared.ports.notes;
            return notes.remove_note(NoteKind::TlsReport, &key.to_string()).await;
        }
        let begins = later(end_of(key.day), self.shared.settings.delay);
        if note.closed || !self.shared.settings.send || now < begins {
            return Ok(());
        }
        if note.left.is_none() {
            note.left = self.ask(key, stop).await;
            if note.left.is_some() {
                // Before anything goes: what can't be written down would go again each round.
                self.keep(key, &note).await?;
            }
        }
        if let Some(left) = note.left.take() {
            note.left = Some(self.send(key, &note, left, now, stop).await);
        }
        let all_done = note.left.as_ref().is_some_and(Vec::is_empty);
        let given_up = !all_done && now >= later(begins, TRIED_FOR);
        if given_up {
            tracing::warn!(domain = %key.domain, day = %key.day, "a report on TLS was given up");
        }
        note.closed = all_done || given_up;
        self.keep(key, &note).await
    }

    /// What was counted meanwhile stays.
    async fn keep(&self, key: &DayOf, note: &Note) -> Result<(), StoreError> {
        let _one = self.shared.writing.lock().await;
        let counts = self.read(key).await?.unwrap_or_default().counts;
        self.write(key, &Note { counts, ..note.clone() }).await
    }

    /// The URIs where the domain wants the day's report, few and none twice; nothing where DNS
    /// can't say now.
    async fn ask(&self, key: &DayOf, stop: &CancellationToken) -> Option<Vec<String>> {
        let name = format!("_smtp._tls.{}", key.domain);
        match stop.run_until_cancelled(self.shared.ports.resolver.texts(&name)).await? {
            Texts::Found(texts) => Some(places(&texts).into_iter().map(|(uri, _)| uri).collect()),
            Texts::None => Some(Vec::new()),
            Texts::Trouble(why) => {
                tracing::debug!(domain = %key.domain, why, "where reports on TLS go is not known");
                None
            }
        }
    }

    /// Tries each place that has no report yet; those that are to be tried again.
    async fn send(
        &self,
        key: &DayOf,
        note: &Note,
        left: Vec<String>,
        now: Timestamp,
        stop: &CancellationToken,
    ) -> Vec<String> {
        if left.is_empty() {
            return left;
        }
        let report = Report::new(&self.shared.settings, key, &note.counts);
        let compressed = match report.compressed() {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) => {
                tracing::error!(domain = %key.domain, "a report on TLS was not written: {error}");
                return Vec::new();
            }
        };
        let mut again = Vec::new();
        for uri in left {
            let sent = match place(&uri) {
                Some(Place::Mail(to)) => self.mail(key, &report, &compressed, &to, now).await,
                Some(Place::Web(to)) => {
                    let posting = self.post(key, &to, compressed.clone());
                    let posted = stop.run_until_cancelled(posting).await;
                    posted.unwrap_or_else(|| Sent::Later("the gateway stops".to_owned()))
                }
                None => Sent::Done,
            };
            if let Sent::Later(why) = sent {
                tracing::info!(domain = %key.domain, why, "a report on TLS is tried again later");
                again.push(uri);
            }
        }
        again
    }

    async fn post(&self, key: &DayOf, to: &WebPlace, report: Bytes) -> Sent {
        match self.shared.ports.web.post(to, MEDIA_TYPE, report).await {
            Ok(status) => {
                tracing::info!(domain = %key.domain, day = %key.day, host = to.host, status,
                    "a report on TLS was posted");
                Sent::Done
            }
            Err(error) => Sent::Later(format!("{}: {error}", to.host)),
        }
    }

    /// Into the queue, which tries on from there.
    async fn mail(
        &self,
        key: &DayOf,
        report: &Report,
        compressed: &[u8],
        to: &Address,
        now: Timestamp,
    ) -> Sent {
        let ports = &self.shared.ports;
        let settings = &self.shared.settings;
        if !ports.vault.signs_for(settings.from.domain()) {
            tracing::info!(domain = %key.domain,
                "no report on TLS by mail: notification.dkim has no key for notification.from, \
                 and RFC 8460 asks for a signature");
            return Sent::Done;
        }
        let millis = u64::try_from(now.as_millisecond()).unwrap_or_default();
        let id = QueueId::new(millis, rand::random());
        let message =
            ReportMail { settings, key, report, compressed, to, at: now, id }.to_message();
        let needs = Needs { smtputf8: to.needs_smtputf8(), ..Needs::default() };
        let facts = MessageFacts::own(id, Class::TlsReport, ports.vault.guard.latest(), needs);
        let sealed = match ports.vault.seal_own(facts, vec![to.clone()], &message) {
            Ok(sealed) => sealed,
            Err(error) => return Sent::Later(error.to_string()),
        };
        match ports.queue.accept(sealed).await {
            Ok(()) => {
                tracing::info!(%id, domain = %key.domain, day = %key.day,
                    "a report on TLS was queued");
                Sent::Done
            }
            Err(error) => Sent::Later(error.to_string()),
        }
    }
}

fn is_old(day: Date, now: Timestamp) -> bool {
    let kept = SignedDuration::from_hours(24 * KEPT);
    later(end_of(day), kept) <= now
}
