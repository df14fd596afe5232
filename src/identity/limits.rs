//! Budgets of tries: GCRA ([`governor`]), charged before a try and refunded by its success, so that
//! parallel tries can't slip by and a right password never costs anything.
//!
//! Three budgets bound what strangers can do, and none lets them lock an owner out: a browser that
//! signed in before, and the holder of a notice's link, have budgets of their own
//! ([`Standing`]; OWASP, device cookies). The client's address is a coarse brake only, since many
//! people share one.

use crate::{clock::Clock, mail::GrantId, seal::TokenHash};
use governor::{
    Quota, RateLimiter, clock as gcra, clock::Reference, middleware::NoOpMiddleware, nanos::Nanos,
    state::StateStore,
};
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    net::IpAddr,
    num::NonZeroU32,
    ops::Add,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Keys that a limiter remembers at most.
const MAX_KEYS: usize = 100_000;

/// By what tries are counted: a hash, so that long names take no more memory than short ones.
type Key = [u8; 32];

/// What is known of the browser that makes a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It signed in at this account before: it holds a device cookie that the account knows.
    Device(TokenHash),
    /// It holds the link of a notice to this mailbox.
    Link(GrantId),
    /// Nothing.
    Stranger,
}

/// What tries are made at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Passwords.
    Password,
    /// Codes of an authenticator app, after a right first factor.
    SecondFactor,
    /// Mailed codes to be sent, whatever becomes of them.
    Mail,
    /// Questions whether a notice is genuine.
    Check,
    /// Passkeys and sign-ins elsewhere. They can't be guessed: the client's brake alone.
    Proof,
}

/// How long to wait until a try is free again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait(pub SignedDuration);

/// All budgets. In memory and bounded: a restart refills them. The budget of wrong codes, which must
/// hold for days, is kept in the store (`super::budget`).
#[derive(Debug)]
pub struct Limits {
    password: Limiter,
    second: Limiter,
    mail: Limiter,
    /// Codes mailed by one link, whichever clients ask.
    link_mail: Limiter,
    check: Limiter,
    /// By the client's address: a host or /64, its /56, its /48.
    clients: [Limiter; 3],
}

/// A try that is under way. It has failed unless [`Attempt::succeed`] says otherwise: whoever breaks
/// off pays.
#[derive(Debug)]
#[must_use = "a try that does not succeed has failed"]
pub struct Attempt<'l> {
    charged: Vec<(&'l Limiter, Key)>,
}
impl Attempt<'_> {
    /// The try was right: nothing of it counts.
    pub fn succeed(self) {
        for (limiter, key) in self.charged {
            limiter.refund(&key);
        }
    }
    /// Closes a try that failed; nothing is left to do.
    pub fn fail(self) {
        drop(self);
    }
}

impl Limits {
    /// Full budgets.
    pub fn new(clock: &Arc<dyn Clock>) -> Self {
        let limiter = |burst, every| Limiter::new(burst, every, Arc::clone(clock));
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        Self {
            password: limiter(10, minutes(1)),
            // A code of six digits: 24 tries a day, and the owner is told.
            second: limiter(5, minutes(60)),
            mail: limiter(10, minutes(45)),
            link_mail: limiter(40, minutes(15)),
            check: limiter(10, Duration::from_secs(90)),
            clients: [
                limiter(100, Duration::from_secs(9)),
                limiter(300, Duration::from_secs(3)),
                limiter(1_000, Duration::from_secs(1)),
            ],
        }
    }

    /// Begins a try at a mailbox (in lower case), or at nothing in particular.
    ///
    /// # Errors
    /// [`Wait`] if a budget is spent; nothing was charged then.
    pub fn begin(
        &self,
        kind: Kind,
        mailbox: Option<&str>,
        standing: Standing,
        client: Option<IpAddr>,
    ) -> Result<Attempt<'_>, Wait> {
        let own = match kind {
            Kind::Password => Some(&self.password),
            Kind::SecondFactor => Some(&self.second),
            Kind::Mail => Some(&self.mail),
            Kind::Check => Some(&self.check),
            Kind::Proof => None,
        };
        let mut attempt = Attempt { charged: Vec::new() };
        let key = mailbox.map(|mailbox| key_of(mailbox, standing));
        // Scanners press a link's buttons before its reader does: each client has its own share.
        let shared = kind == Kind::Mail && matches!(standing, Standing::Link(_));
        let in_all = key.filter(|_| shared).map(|key| (&self.link_mail, key));
        let own_key = match (key, client_keys(client).first()) {
            (Some(key), Some(client)) if shared => {
                Some(Sha256::new_with_prefix(key).chain_update(client).finalize().into())
            }
            (key, _) => key,
        };
        let subject = own.zip(own_key);
        // Without a mailbox the client stands in for it.
        let client_alone = own.filter(|_| mailbox.is_none());
        let client_alone = client_alone.and_then(|own| Some((own, *client_keys(client).first()?)));
        // A browser that signed in before is not stopped by its neighbours behind one address.
        let known = matches!(standing, Standing::Device(_));
        let brakes = self.clients.iter().zip(client_keys(client)).filter(|_| !known);
        for (limiter, key) in subject.into_iter().chain(in_all).chain(client_alone).chain(brakes) {
            if let Err(wait) = limiter.charge(&key) {
                attempt.succeed();
                return Err(wait);
            }
            attempt.charged.push((limiter, key));
        }
        Ok(attempt)
    }
}

fn key_of(mailbox: &str, standing: Standing) -> Key {
    let mut hash = Sha256::new_with_prefix(mailbox.as_bytes());
    match standing {
        Standing::Device(id) => hash.update([b"\0d".as_slice(), id.as_bytes()].concat()),
        Standing::Link(id) => hash.update([b"\0l".as_slice(), id.as_bytes()].concat()),
        Standing::Stranger => hash.update(b"\0s"),
    }
    hash.finalize().into()
}

/// A client's keys, the narrowest first: one customer has at least a /64 of IPv6, often a /56, a
/// site a /48.
fn client_keys(client: Option<IpAddr>) -> Vec<Key> {
    let key = |text: String| Sha256::digest(text).into();
    match client.map(|client| client.to_canonical()) {
        None => Vec::new(),
        Some(IpAddr::V4(v4)) => vec![key(format!("client {v4}"))],
        Some(IpAddr::V6(v6)) => {
            let bits = u128::from(v6);
            [64, 56, 48].map(|prefix| key(format!("{prefix} {:x}", bits >> (128 - prefix)))).into()
        }
    }
}

/// One budget for each key: `burst` tries at once, then one `every` so long.
#[derive(Debug)]
struct Limiter {
    rate: RateLimiter<Key, Cells, Watch, NoOpMiddleware<Instant>>,
    cells: Cells,
    every: Nanos,
}
impl Limiter {
    fn new(burst: u32, every: Duration, clock: Arc<dyn Clock>) -> Self {
        let watch = Watch(clock);
        let start = gcra::Clock::now(&watch);
        let cells = Cells { at: Arc::default(), watch: watch.clone(), start };
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        // `with_period` is None for a period of zero alone.
        let quota = Quota::with_period(every).unwrap_or(Quota::per_second(NonZeroU32::MIN));
        let rate = RateLimiter::new(quota.allow_burst(burst), cells.clone(), watch);
        Self { rate, cells, every: every.into() }
    }
    fn charge(&self, key: &Key) -> Result<(), Wait> {
        let spent = match self.rate.check_key(key) {
            Ok(()) => return Ok(()),
            Err(spent) => spent,
        };
        let wait = spent.wait_time_from(gcra::Clock::now(gcra_clock(&self.rate)));
        // Never "0 seconds": the answer says when to come back.
        let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
        Err(Wait(wait.max(SignedDuration::from_secs(1))))
    }
    fn refund(&self, key: &Key) {
        let mut cells = self.cells.cells();
        if let Some(at) = cells.get_mut(key) {
            *at = at.saturating_sub(self.every.as_u64());
        }
    }
}
fn gcra_clock<S: StateStore<Key = Key>>(
    rate: &RateLimiter<Key, S, Watch, NoOpMiddleware<Instant>>,
) -> &Watch {
    rate.clock()
}

/// The theoretical arrival time of each key's next try, in nanoseconds since the limiter began.
#[derive(Debug, Clone)]
struct Cells {
    at: Arc<Mutex<HashMap<Key, u64>>>,
    watch: Watch,
    start: Instant,
}
impl Cells {
    fn cells(&self) -> MutexGuard<'_, HashMap<Key, u64>> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// A key whose time has come says nothing any more; of the rest those with the most tries left
    /// lose least by being forgotten.
    fn make_room(&self, cells: &mut HashMap<Key, u64>) {
        let now = gcra::Clock::now(&self.watch).duration_since(self.start).as_u64();
        cells.retain(|_, at| *at > now);
        if cells.len() >= MAX_KEYS {
            let mut times: Vec<u64> = cells.values().copied().collect();
            let (_, median, _) = times.select_nth_unstable(MAX_KEYS / 2);
            let median = *median;
            cells.retain(|_, at| *at > median);
        }
    }
}
impl StateStore for Cells {
    type Key = Key;
    fn measure_and_replace<T, F, E>(&self, key: &Key, judge: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut cells = self.cells();
        let (answer, next) = judge(cells.get(key).copied().map(Nanos::from))?;
        if cells.len() >= MAX_KEYS && !cells.contains_key(key) {
            self.make_room(&mut cells);
        }
        cells.insert(*key, next.as_u64());
        Ok(answer)
    }
}

/// The house's clock, as the limiter reads it.
#[derive(Debug, Clone)]
struct Watch(Arc<dyn Clock>);
impl gcra::Clock for Watch {
    type Instant = Instant;
    fn now(&self) -> Instant {
        Instant(self.0.now())
    }
}
/// A moment of that clock. One that goes back counts as standing still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Instant(Timestamp);
impl Add<Nanos> for Instant {
    type Output = Self;
    fn add(self, nanos: Nanos) -> Self {
        let nanos = SignedDuration::from_nanos(i64::try_from(nanos.as_u64()).unwrap_or(i64::MAX));
        Self(self.0.checked_add(nanos).unwrap_or(Timestamp::MAX))
    }
}
impl Reference for Instant {
    fn duration_since(&self, earlier: Self) -> Nanos {
        let nanos = self.0.duration_since(earlier.0).as_nanos();
        Nanos::from(u64::try_from(nanos).unwrap_or_default())
    }
    fn saturating_sub(&self, nanos: Nanos) -> Self {
        let nanos = SignedDuration::from_nanos(i64::try_from(nanos.as_u64()).unwrap_or(i64::MAX));
        Self(self.0.checked_sub(nanos).unwrap_or(self.0))
    }
}
