//! The audit trail.

use super::{Store, address, at, trusted};
use jiff::SignedDuration;
use restante::store::{AuditCheck, AuditDetail, AuditEvent, AuditKind, AuditRecord};

fn event(second: i64, account: &str) -> AuditEvent {
    let event = AuditEvent::new(AuditKind::SignIn, at(second)).detail(AuditDetail::Password);
    if account.is_empty() { event } else { event.account(&address(account)) }
}
const fn secs(age: i64) -> SignedDuration {
    SignedDuration::from_secs(age)
}
fn numbers(records: &[AuditRecord]) -> Vec<u64> {
    records.iter().map(|record| record.seq).collect()
}
/// Reads the whole trail page by page and checks it.
async fn sound(s: &impl Store) -> usize {
    let chain = s.chain().await.unwrap();
    let (mut check, mut after, mut count) = (AuditCheck::new(chain), chain.anchor.seq, 0);
    loop {
        let page = s.records(after, 3).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.seq;
        count += page.len();
        page.iter().for_each(|record| check.next(record).unwrap());
    }
    check.end().unwrap();
    count
}

pub(super) async fn audit_records_are_listed_newest_first_and_by_mailbox(s: &impl Store) {
    assert!(s.events(None, None, 9).await.unwrap().is_empty());
    assert_eq!(sound(s).await, 0);
    s.append(Vec::new()).await.unwrap();
    let (ann, bob) = ("Ann@a.example", "bob@a.example");
    s.append(vec![event(1, ann), event(2, bob), event(3, "")]).await.unwrap();
    s.append(vec![event(4, "ann@a.example"), event(5, "ann@a.example.org")]).await.unwrap();
    let list = async |of: Option<&str>, before, max| {
        let of = of.map(address);
        numbers(&s.events(of.as_ref(), before, max).await.unwrap())
    };
    assert_eq!(list(None, None, 9).await, [5, 4, 3, 2, 1]);
    assert_eq!(list(None, None, 2).await, [5, 4]);
    assert_eq!(list(None, Some(4), 2).await, [3, 2]);
    assert_eq!(list(Some("ANN@a.example"), None, 9).await, [4, 1], "case counts for nothing");
    assert_eq!(list(Some(ann), Some(4), 9).await, [1]);
    assert_eq!(list(Some(ann), Some(1), 9).await, [0; 0]);
    assert_eq!(list(Some("nn@a.example"), None, 9).await, [0; 0]);
    let records = s.events(Some(&address(bob)), None, 9).await.unwrap();
    assert_eq!(records[0].event, event(2, bob), "it comes back as it went in");
    assert_eq!(sound(s).await, 5);
}
pub(super) async fn audit_records_end_from_the_oldest_on(s: &impl Store) {
    // The clock once went back: what is younger keeps what comes after it.
    let times = [10, 20, 50, 30, 60];
    s.append(times.into_iter().map(|t| event(t, "a@a.example")).collect()).await.unwrap();
    assert_eq!(s.purge_events(trusted(60), secs(50), 9).await.unwrap(), 0);
    assert_eq!(s.purge_events(trusted(60), secs(20), 1).await.unwrap(), 1);
    assert_eq!(s.chain().await.unwrap().anchor.seq, 1);
    assert_eq!(sound(s).await, 4);
    assert_eq!(s.purge_events(trusted(60), secs(20), 9).await.unwrap(), 1);
    assert_eq!(numbers(&s.events(None, None, 9).await.unwrap()), [5, 4, 3]);
    let own = s.events(Some(&address("a@a.example")), None, 9).await.unwrap();
    assert_eq!(numbers(&own), [5, 4, 3]);
    assert_eq!(s.purge_events(trusted(99), secs(0), 9).await.unwrap(), 3);
    assert_eq!(sound(s).await, 0);
    s.append(vec![event(99, "a@a.example")]).await.unwrap();
    assert_eq!(numbers(&s.records(0, 9).await.unwrap()), [6], "numbers are never used again");
    assert_eq!(sound(s).await, 1);
}
pub(super) async fn audit_records_from_the_future_go_with_what_follows(s: &impl Store) {
    // For a while the clock was far ahead; of the record after the first two nothing is known yet.
    let ahead = 9_000_000_000;
    let times = [10, ahead, ahead + 1, 20, ahead + 2, 60];
    s.append(times.into_iter().map(|t| event(t, "a@a.example")).collect()).await.unwrap();
    assert_eq!(s.purge_events(trusted(60), secs(45), 9).await.unwrap(), 1, "20 is young");
    assert_eq!(s.purge_events(trusted(60), secs(30), 1).await.unwrap(), 1, "no more than asked");
    assert_eq!(s.purge_events(trusted(60), secs(30), 1).await.unwrap(), 1);
    assert_eq!(s.purge_events(trusted(60), secs(30), 9).await.unwrap(), 1, "60 is young");
    assert_eq!(sound(s).await, 2);
    assert_eq!(s.purge_events(trusted(99), secs(30), 1).await.unwrap(), 1);
    assert_eq!(s.purge_events(trusted(99), secs(30), 1).await.unwrap(), 1);
    s.append(vec![event(ahead, "a@a.example")]).await.unwrap();
    assert_eq!(s.purge_events(trusted(99), secs(30), 9).await.unwrap(), 0, "nothing follows it");
    assert_eq!(sound(s).await, 1);
}
pub(super) async fn the_audit_trail_is_one_chain_whoever_appends(s: &impl Store) {
    let append = |n: i64| s.append(vec![event(n, "a@a.example"), event(n, "")]);
    futures_util::future::join_all((0..20).map(append)).await.into_iter().for_each(Result::unwrap);
    assert_eq!(sound(s).await, 40);
}
