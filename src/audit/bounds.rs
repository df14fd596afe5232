//! How much is recorded: what strangers, or one account, can cause in a while is bounded, and what
//! was left out is counted and recorded as one number. Pure: the time comes in with every question.
//!
//! | class | counted for | records in ten minutes |
//! |---|---|---|
//! | failure | the client (an IPv4 address or an IPv6 /64) | 10 of each kind, 200 of all clients; 10 lines of the log of each |
//! | security, access | the account | 300 of each kind |
//! | operator | (not counted) | all |

use crate::{
    smtp::clients::Client,
    store::{AuditClass, AuditDetail, AuditEvent, AuditKind},
};
use jiff::{SignedDuration, Timestamp};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

/// How long counts add up, and how long a repeated reading is the same one.
const WINDOW: SignedDuration = SignedDuration::from_mins(10);
/// Records and lines of failures of one kind from one client.
const OF_CLIENT: u32 = 10;
/// Records of failures from all clients.
const OF_ALL: u32 = 200;
/// Records of one kind of one account.
const OF_ACCOUNT: u32 = 300;
/// Clients and accounts that are told apart.
const SUBJECTS: usize = 10_000;
/// Records of what was left out; the rest is told in one for each kind.
const SUMMARIES: usize = 50;
/// Readings that are remembered.
const READINGS: usize = 10_000;

/// How an event is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Record, line and count.
    Recorded,
    /// Line and count. The record is left out.
    Logged,
    /// Only counted.
    LeftOut,
    /// The same session read the same a moment ago.
    Repeat,
}
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Subject {
    Client(Client),
    Account(String),
    /// All of whom neither is known, or who are too many to be told apart.
    Others,
}
#[derive(Debug)]
struct Tally {
    seen: u32,
    left_out: u64,
    last: AuditEvent,
}
/// A reading: kind, session, grant and what was read.
type Reading = (AuditKind, String, Option<[u8; 16]>, Option<AuditDetail>);

#[derive(Debug)]
pub(super) struct Bounds {
    begun: Timestamp,
    failures: u32,
    tallies: HashMap<(Subject, AuditKind), Tally>,
    readings: HashMap<Reading, Timestamp>,
}
impl Bounds {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { begun: now, failures: 0, tallies: HashMap::new(), readings: HashMap::new() }
    }
    pub(super) fn admit(&mut self, event: &AuditEvent, now: Timestamp) -> Admission {
        let most = match event.kind.class() {
            AuditClass::Operator => return Admission::Recorded,
            AuditClass::Failure => OF_CLIENT,
            AuditClass::Security => OF_ACCOUNT,
            AuditClass::Access if self.is_repeat(event, now) => return Admission::Repeat,
            AuditClass::Access => OF_ACCOUNT,
        };
        let failure = event.kind.class() == AuditClass::Failure;
        let full = failure && self.failures >= OF_ALL;
        let tally = self.tally(subject(event), event);
        tally.seen = tally.seen.saturating_add(1);
        if tally.seen > most {
            tally.left_out = tally.left_out.saturating_add(1);
            tally.last.clone_from(event);
            return Admission::LeftOut;
        }
        if full {
            tally.left_out = tally.left_out.saturating_add(1);
            return Admission::Logged;
        }
        self.failures = self.failures.saturating_add(u32::from(failure));
        Admission::Recorded
    }
    /// Where the time is over, the records of what was left out in it; a new time begins. A clock that
    /// went back begins one too.
    pub(super) fn close(&mut self, now: Timestamp) -> Vec<AuditEvent> {
        let age = now.duration_since(self.begun);
        if age < WINDOW && !age.is_negative() {
            return Vec::new();
        }
        self.begun = now;
        self.failures = 0;
        self.readings.retain(|_, at| is_recent(*at, now));
        let tallies = std::mem::take(&mut self.tallies).into_iter();
        let mut short: Vec<_> = tallies.filter(|(_, tally)| tally.left_out > 0).collect();
        short.sort_by_key(|((_, kind), tally)| (Reverse(tally.left_out), *kind));
        let rest = short.split_off(short.len().min(SUMMARIES));
        let mut others: BTreeMap<AuditKind, u64> = BTreeMap::new();
        for ((_, kind), tally) in rest {
            let count = others.entry(kind).or_default();
            *count = count.saturating_add(tally.left_out);
        }
        let named = short.into_iter().map(|((subject, kind), Tally { left_out, last, .. })| {
            let event = match subject {
                Subject::Client(_) => AuditEvent::new(kind, now).client(last.client),
                Subject::Account(_) => {
                    AuditEvent { account: last.account, ..AuditEvent::new(kind, now) }
                }
                Subject::Others => AuditEvent::new(kind, now),
            };
            AuditEvent { more: left_out, ..event }
        });
        let others = others
            .into_iter()
            .map(|(kind, more)| AuditEvent { more, ..AuditEvent::new(kind, now) });
        named.chain(others).collect()
    }

    fn tally(&mut self, subject: Subject, event: &AuditEvent) -> &mut Tally {
        let key = (subject, event.kind);
        let key = if self.tallies.len() < SUBJECTS || self.tallies.contains_key(&key) {
            key
        } else {
            (Subject::Others, event.kind)
        };
        let fresh = || Tally { seen: 0, left_out: 0, last: event.clone() };
        self.tallies.entry(key).or_insert_with(fresh)
    }
    fn is_repeat(&mut self, event: &AuditEvent, now: Timestamp) -> bool {
        let Some(session) = event.session.clone() else { return false };
        let grant = event.grant.map(|grant| *grant.as_bytes());
        let reading = (event.kind, session, grant, event.detail.clone());
        // Two letters are two events, also where they answer the same message.
        let again = matches!(event.kind, AuditKind::MessageRead | AuditKind::Downloaded);
        if !again {
            return false;
        }
        if self.readings.get(&reading).is_some_and(|at| is_recent(*at, now)) {
            return true;
        }
        if self.readings.len() >= READINGS {
            self.readings.retain(|_, at| is_recent(*at, now));
        }
        if self.readings.len() < READINGS {
            self.readings.insert(reading, now);
        }
        false
    }
}

fn subject(event: &AuditEvent) -> Subject {
    let client = || event.client.map(|client| Subject::Client(client.into()));
    let account = event.account.as_ref().map(|a| Subject::Account(a.to_string().to_lowercase()));
    match event.kind.class() {
        AuditClass::Failure => client().unwrap_or(Subject::Others),
        AuditClass::Security | AuditClass::Access | AuditClass::Operator => {
            account.or_else(client).unwrap_or(Subject::Others)
        }
    }
}
fn is_recent(at: Timestamp, now: Timestamp) -> bool {
    let age = now.duration_since(at);
    age < WINDOW && !age.is_negative()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{mail::GrantId, seal::TokenHash};
    use std::net::{IpAddr, Ipv4Addr};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }
    fn failure(client: IpAddr) -> AuditEvent {
        AuditEvent::new(AuditKind::WrongPassword, at(0)).client(Some(client))
    }
    fn client(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 + n).into()
    }
    fn admitted(bounds: &mut Bounds, events: impl Iterator<Item = AuditEvent>) -> [usize; 4] {
        let mut counts = [0; 4];
        events.for_each(|event| counts[bounds.admit(&event, at(1)) as usize] += 1);
        counts
    }

    #[test]
    fn a_flood_of_one_client_is_ten_records_and_one_number() {
        let mut bounds = Bounds::new(at(0));
        let flood = || (0..1000).map(|_| failure(client(1)));
        assert_eq!(admitted(&mut bounds, flood()), [10, 0, 990, 0]);
        assert_eq!(admitted(&mut bounds, [failure(client(2))].into_iter()), [1, 0, 0, 0]);
        assert!(bounds.close(at(599)).is_empty());
        let over = bounds.close(at(600));
        let expected = AuditEvent::new(AuditKind::WrongPassword, at(600)).client(Some(client(1)));
        assert_eq!(over, [AuditEvent { more: 990, ..expected }]);
        assert_eq!(admitted(&mut bounds, flood()), [10, 0, 990, 0], "and anew");
    }

    #[test]
    fn a_flood_of_many_clients_is_bounded_and_nothing_of_it_is_forgotten() {
        let mut bounds = Bounds::new(at(0));
        let flood = (0..30_000).map(|n| failure(client(n)));
        let [recorded, logged, left_out, _] = admitted(&mut bounds, flood);
        assert_eq!(recorded, 200);
        assert!(logged <= SUBJECTS, "fail2ban reads of as many clients as are told apart");
        assert!(bounds.tallies.len() <= SUBJECTS + 1);
        let over = bounds.close(at(600));
        assert!(over.len() <= SUMMARIES + 1, "{}", over.len());
        let told: u64 = over.iter().map(|event| event.more).sum();
        assert_eq!(told, (logged + left_out) as u64);
    }

    #[test]
    fn an_ipv6_customer_is_one_client() {
        let mut bounds = Bounds::new(at(0));
        let flood = (0..100_u128)
            .map(|n| failure(std::net::Ipv6Addr::from_bits(0x2001_0db8 << 96 | n).into()));
        assert_eq!(admitted(&mut bounds, flood), [10, 0, 90, 0]);
    }

    #[test]
    fn the_same_reading_is_one_record_and_another_is_another() {
        let mut bounds = Bounds::new(at(0));
        let ann = "ann@a.example".parse().unwrap();
        let read = |kind, session: u8, grant: u8, detail| {
            AuditEvent::new(kind, at(0))
                .account(&ann)
                .session(&TokenHash::from_bytes([session; 32]))
                .grant(GrantId::from_bytes([grant; 16]))
                .detail(detail)
        };
        let one = || AuditDetail::Attachment(1);
        let first = read(AuditKind::Downloaded, 1, 1, one());
        assert_eq!(bounds.admit(&first, at(0)), Admission::Recorded);
        assert_eq!(bounds.admit(&first, at(599)), Admission::Repeat);
        assert_eq!(bounds.admit(&first, at(601)), Admission::Recorded, "later is again");
        for other in [
            read(AuditKind::Downloaded, 2, 1, one()),
            read(AuditKind::Downloaded, 1, 2, one()),
            read(AuditKind::Downloaded, 1, 1, AuditDetail::Attachment(2)),
            read(AuditKind::MessageRead, 1, 1, one()),
        ] {
            assert_eq!(bounds.admit(&other, at(601)), Admission::Recorded, "{other:?}");
        }
        let reply = read(AuditKind::Replied, 1, 1, one());
        assert_eq!(bounds.admit(&reply, at(601)), Admission::Recorded);
        assert_eq!(bounds.admit(&reply, at(601)), Admission::Recorded, "two answers are two");
    }

    #[test]
    fn an_account_that_reads_without_end_is_bounded_and_orders_are_not() {
        let mut bounds = Bounds::new(at(0));
        let ann = "ann@a.example".parse().unwrap();
        let session = TokenHash::from_bytes([1; 32]);
        let readings = (0..500).map(|n| {
            let event = AuditEvent::new(AuditKind::Downloaded, at(0)).account(&ann);
            event.session(&session).detail(AuditDetail::Attachment(n))
        });
        assert_eq!(admitted(&mut bounds, readings), [300, 0, 200, 0]);
        let orders = (0..500).map(|_| AuditEvent::new(AuditKind::MessageExported, at(0)));
        assert_eq!(admitted(&mut bounds, orders), [500, 0, 0, 0]);
    }
}
