//! The service over a store in memory.
use super::*;
use crate::{
    mail::GrantId,
    store::{AuditDetail, memory::MemoryStore},
};
use jiff::Timestamp;
use regex::Regex;
use std::io;

/// A clock that tests move.
#[derive(Debug)]
struct Hands(Mutex<Timestamp>);
impl Hands {
    fn forward(&self, by: SignedDuration) {
        *self.0.lock().unwrap() += by;
    }
}
impl Clock for Hands {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}
const HISTORY: SignedDuration = SignedDuration::from_hours(24);

fn world() -> (Audit, MemoryStore, Arc<Hands>) {
    let clock = Arc::new(Hands(Mutex::new("2026-11-22T10:00:00Z".parse().unwrap())));
    let store = MemoryStore::new();
    (Audit::new(Arc::new(store.clone()), clock.clone(), HISTORY), store, clock)
}
fn trusted(clock: &Arc<Hands>) -> Option<TrustedTime> {
    ClockGuard::new(clock.clone(), None).check().ok()
}
fn wrong(audit: &Audit) -> AuditEvent {
    let event = audit.event(AuditKind::WrongPassword).detail(AuditDetail::NoAccount);
    let typed: Address = "ann.smith@clinic.example".parse().unwrap();
    event.account(&typed).client(Some("192.0.2.1".parse().unwrap()))
}

/// What a subscriber wrote.
#[derive(Debug, Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);
impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
/// The lines that the house's log has of these events.
fn logged(audit: &Audit, events: &[AuditEvent]) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_target(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(log, || events.iter().for_each(|e| audit.committed(e)));
    let bytes = lines.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn an_event_is_a_record_a_line_and_a_count() {
    let (audit, _, _) = world();
    audit.record(wrong(&audit)).await;
    let records = audit.events(None, None, 9).await.unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].event, wrong(&audit));
    let counts = audit.counts().all();
    let counted: Vec<_> = counts.iter().filter(|(_, n)| *n > 0).collect();
    assert_eq!(counted, [&(AuditKind::WrongPassword, 1)]);
}

#[tokio::test]
async fn the_log_names_the_client_and_of_the_account_only_the_domain() {
    let (audit, _, _) = world();
    let read = audit.event(AuditKind::MessageRead).grant(GrantId::from_bytes([7; 16]));
    let moved = audit.event(AuditKind::AccountMoved);
    let moved = moved.detail(AuditDetail::To("old.name@clinic.example".parse().unwrap()));
    let text = logged(&audit, &[wrong(&audit), read, moved]);
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines[0].ends_with(
            " WARN audit event=wrong-password client=192.0.2.1 domain=clinic.example \
             detail=no-account"
        ),
        "{text}"
    );
    assert!(lines[1].contains(" INFO audit event=message-read grant="), "{text}");
    assert!(!text.contains("ann.smith") && !text.contains("old.name"), "{text}");
}

#[test]
fn the_filter_for_fail2ban_in_the_manual_finds_each_failure_and_its_client() {
    let manual = include_str!("../manual/operations.md");
    let filter = manual.lines().find_map(|line| line.strip_prefix("failregex = ")).unwrap();
    // What fail2ban makes of its tag.
    let filter = Regex::new(&filter.replace("<ADDR>", "(?P<ip>[0-9a-fA-F.:]+)")).unwrap();
    let (audit, _, _) = world();
    for kind in AuditKind::ALL {
        for client in ["192.0.2.1", "2001:db8::1"] {
            let event = audit.event(kind).client(Some(client.parse().unwrap()));
            let text = logged(&audit, &[event]);
            let found = filter.captures(text.trim_end()).map(|c| c["ip"].to_owned());
            let expected = (kind.class() == AuditClass::Failure).then(|| client.to_owned());
            assert_eq!(found, expected, "{text}");
        }
        let text = logged(&audit, &[audit.event(kind)]);
        assert!(!filter.is_match(text.trim_end()), "without a client there is no line to act on");
    }
}

#[tokio::test]
async fn what_was_left_out_is_recorded_when_its_time_is_over() {
    let (audit, _, clock) = world();
    for _ in 0..100 {
        audit.record(wrong(&audit)).await;
    }
    assert_eq!(audit.events(None, None, 99).await.unwrap().len(), 10);
    clock.forward(SignedDuration::from_mins(10));
    audit.sweep(trusted(&clock)).await.unwrap();
    let records = audit.events(None, None, 99).await.unwrap();
    assert_eq!((records.len(), records[0].event.more), (11, 90));
    let counted = audit.counts().all().into_iter().map(|(_, n)| n).sum::<u64>();
    assert_eq!(counted, 100, "all are counted");
}

#[tokio::test]
async fn records_end_after_their_time_and_the_trail_stays_sound() {
    let (audit, _, clock) = world();
    for _ in 0..3 {
        audit.record(wrong(&audit)).await;
        clock.forward(SignedDuration::from_hours(10));
    }
    audit.sweep(None).await.unwrap();
    assert_eq!(audit.verify().await.unwrap().first, 1, "nothing ends by a clock in doubt");
    audit.sweep(trusted(&clock)).await.unwrap();
    let found = audit.verify().await.unwrap();
    assert_eq!((found.first, found.last, found.faults), (2, 3, vec![]));
}

#[tokio::test]
async fn a_check_locates_a_changed_and_a_missing_record() {
    let (audit, store, _) = world();
    for _ in 0..9 {
        audit.record(wrong(&audit)).await;
    }
    assert_eq!(audit.verify().await.unwrap().faults, []);
    store.tamper(3, |record| {
        let event = AuditEvent { client: None, ..record.event };
        Some(AuditRecord { event, ..record })
    });
    store.tamper(6, |_| None);
    store.tamper(7, |_| None);
    let found = audit.verify().await.unwrap();
    let missing = AuditFault::Missing { from: 6, to: 7 };
    assert_eq!(found.faults, [AuditFault::Changed { seq: 3 }, missing]);
    assert_eq!((found.first, found.last), (1, 9));
}

#[tokio::test]
async fn a_store_that_takes_nothing_stops_nobody() {
    let (audit, store, _) = world();
    store.set_health(crate::store::Health::Full);
    audit.record(wrong(&audit)).await;
    assert!(audit.events(None, None, 9).await.unwrap().is_empty());
    assert_eq!(audit.counts().all().into_iter().map(|(_, n)| n).sum::<u64>(), 1);
}
