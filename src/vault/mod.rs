//! The verbs of sealed mail: deposit, open, grant, expire. The only room that joins keys and stored
//! bytes.
//!
//! Content comes out by five doors and no other: [`Vault::open_cleared`] takes a proven
//! connection, [`Vault::read`] a recipient's proven access, [`Vault::open_notice`] gives only what we
//! wrote ourselves, [`Vault::export`] serves the operator at the control socket, and
//! [`Vault::read_staged`] gives a file that was uploaded ahead of its letter to whoever holds it. One
//! line of a message's header goes further: what its sender wrote for the notice, in the field that
//! `notification.note` names, if any.

pub mod argon;
mod channel;
mod deposit;
mod dkim;
mod doubt;
mod expire;
mod grant;
mod lease;
mod mailbox;
mod open;
mod people;
mod prove;
mod rewrap;
mod stage;
#[cfg(test)]
mod tests;
mod time;

pub use channel::{Channel, Insiders};
pub use deposit::{Deposit, Finished};
pub use dkim::{DkimError, DkimKey};
pub use doubt::Doubt;
pub use expire::HISTORY;
pub use lease::Reader;
pub use open::{Access, AccessAnswer, Content};
pub use people::CODE_MINUTES;
pub use prove::{Texting, Tried};
pub use rewrap::{KeyProgress, KeyRound};
pub use stage::{Staged, Staging};
pub use time::clock_guard;

use argon::{HashError, Hasher};
use rewrap::Keys;

use crate::{
    clock::{Clock, ClockGuard},
    mail::{
        Domain, GrantId, QueueId,
        notice::{Letterhead, Templates},
    },
    seal::{KeyRing, RingError, SealError, Suite},
    store::{BodyStore, NoteStore, PeopleStore, QueueStore, StoreError},
    wire::Texts,
};
use jiff::SignedDuration;
use std::sync::Arc;
use tokio::sync::{Mutex, Semaphore};
use zeroize::Zeroizing;

/// Words and times of notices.
#[derive(Debug)]
pub struct NoticeSettings {
    /// Letterhead.
    pub head: Letterhead,
    /// Templates.
    pub templates: Templates,
    /// `portal.url`
    pub portal_url: String,
    /// `portal.retention`
    pub retention: SignedDuration,
    /// `notification.note`
    pub note: Option<String>,
}

/// The vault. Ring and sealed bodies are its own: nobody who holds a vault can bring the two
/// together but by its doors.
///
/// ```compile_fail,E0616
/// fn take(vault: &restante::vault::Vault) { let _keys = &vault.keys; }
/// ```
#[derive(Debug, Clone)]
pub struct Vault {
    /// Rows.
    pub queue: Arc<dyn QueueStore>,
    /// Sealed bodies.
    bodies: Arc<dyn BodyStore>,
    /// Grants and accounts.
    pub people: Arc<dyn PeopleStore>,
    /// What is known of domains.
    notes: Arc<dyn NoteStore>,
    /// Notes on lines in doubt are changed one at a time.
    doubts: Arc<Mutex<()>>,
    /// What wraps the data keys.
    keys: Arc<Keys>,
    /// `vault.suite`
    suite: Suite,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Whether the time can be relied on.
    pub guard: Arc<ClockGuard>,
    /// Words and times of notices.
    pub notices: Arc<NoticeSettings>,
    /// `notification.dkim`
    dkim: Arc<[DkimKey]>,
    /// Phrases take the place of text messages one at a time.
    replacing: Arc<Mutex<()>>,
    /// Bodies are moved by compaction, or their keys wrapped again: one of both at a time.
    moving: Arc<Mutex<()>>,
    /// Hashes phrases.
    phrases: Hasher,
    /// Grants whose phrase may be hashed or wait for it.
    hashing: Arc<Semaphore>,
    /// Addresses inside, which may be told of a second channel.
    insiders: Option<Arc<Insiders>>,
    /// `notification.sms`
    texts: Option<Arc<dyn Texts>>,
}

/// What the vault can answer instead.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Sealed bytes do not open.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The key does not open.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// Key destroyed: expired, recalled or delivered to all.
    #[error("the message's key has been destroyed")]
    Gone,
    /// The right to read ended while the message was being read.
    #[error("the right to read it has ended")]
    Ended,
    /// A notice could not be written.
    #[error(transparent)]
    Template(#[from] crate::mail::notice::TemplateError),
    /// Too many phrases are being made: later.
    #[error("too many phrases are being made at this time")]
    Busy,
    /// A body asked for through the wrong door: a protected one over the open channel, or a
    /// clearance for another connection. Also a message whose envelope can't be sealed.
    #[error("refused: {0}")]
    Refused(&'static str),
}

impl From<HashError> for VaultError {
    fn from(_: HashError) -> Self {
        Self::Refused("a phrase could not be hashed")
    }
}

impl Vault {
    /// A vault over these stores, under this ring, by the clock of this guard.
    pub fn new(
        queue: Arc<dyn QueueStore>,
        bodies: Arc<dyn BodyStore>,
        people: Arc<dyn PeopleStore>,
        notes: Arc<dyn NoteStore>,
        ring: KeyRing,
        guard: Arc<ClockGuard>,
        notices: NoticeSettings,
    ) -> Self {
        let (keys, notices, dkim) = (Arc::new(Keys::new(ring)), Arc::new(notices), Arc::new([]));
        let clock = Arc::clone(guard.clock());
        let (suite, doubts, replacing, moving, phrases, insiders, texts) = Default::default();
        Self {
            queue,
            bodies,
            people,
            notes,
            doubts,
            keys,
            suite,
            clock,
            guard,
            notices,
            dkim,
            replacing,
            moving,
            phrases,
            hashing: Arc::new(Semaphore::new(channel::PHRASES)),
            insiders,
            texts,
        }
    }

    /// The same vault, which tells senders inside what their readers will need.
    #[must_use]
    pub fn telling(self, insiders: Insiders) -> Self {
        Self { insiders: Some(Arc::new(insiders)), ..self }
    }

    /// The same vault, which sends codes by text message.
    #[must_use]
    pub fn texting(self, texts: Option<Arc<dyn Texts>>) -> Self {
        Self { texts, ..self }
    }

    /// The same vault, which seals new bodies with this suite.
    #[must_use]
    pub fn sealing(self, suite: Suite) -> Self {
        Self { suite, ..self }
    }

    /// The same vault, which signs mail of our own with these keys.
    #[must_use]
    pub fn signing(self, keys: Vec<DkimKey>) -> Self {
        Self { dkim: keys.into(), ..self }
    }

    /// True if mail of our own from that domain leaves signed.
    pub fn signs_for(&self, domain: &Domain) -> bool {
        self.dkim.iter().any(|key| key.domain() == domain)
    }

    /// An id for a message that comes into being now.
    pub(crate) fn new_id(&self) -> QueueId {
        self.clock.new_id()
    }

    /// An id for a grant that comes into being now.
    fn new_grant_id(&self) -> GrantId {
        GrantId::from_bytes(*self.clock.new_id().as_bytes())
    }
}

/// 32 bytes for a key or a token, from a generator fit for it.
fn random_secret() -> Zeroizing<[u8; 32]> {
    let mut bytes = Zeroizing::new([0; 32]);
    rand::fill(bytes.as_mut_slice());
    bytes
}
