//! Limits across sessions: who gets a place, how much a client may send in a minute, and what is
//! counted of refusals.

use super::memory::{Memory, OWN, Share};
use crate::{
    clock::Clock,
    mail::{Address, EnhancedStatus, RecipientDsn},
    smtp::{
        Reply,
        clients::{Client, ClientLimits, Clients, Event, Excess},
        server::Gate,
    },
};
use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Why something was refused that may be sent again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// `smtp.max_connections`
    Connections,
    /// `smtp.max_connections_per_client`
    ClientConnections,
    /// `smtp.max_connection_rate`
    ConnectionRate,
    /// `smtp.max_message_rate`
    MessageRate,
    /// `smtp.max_recipient_rate`
    RecipientRate,
    /// The memory that all messages on their way in share.
    Memory,
}

impl Refused {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::Connections,
        Self::ClientConnections,
        Self::ConnectionRate,
        Self::MessageRate,
        Self::RecipientRate,
        Self::Memory,
    ];

    /// Its name in the metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ClientConnections => "client-connections",
            Self::ConnectionRate => "connection-rate",
            Self::MessageRate => "message-rate",
            Self::RecipientRate => "recipient-rate",
            Self::Memory => "memory",
        }
    }
}

/// What intake counts, for the metrics.
#[derive(Debug, Default)]
pub struct Counts {
    connections: AtomicU64,
    refused: [AtomicU64; Refused::ALL.len()],
}

impl Counts {
    /// Connections now.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// How often something was refused since the start, by kind.
    pub fn refused(&self) -> [(Refused, u64); Refused::ALL.len()] {
        Refused::ALL.map(|kind| (kind, self.of(kind).map_or(0, |n| n.load(Ordering::Relaxed))))
    }

    fn of(&self, kind: Refused) -> Option<&AtomicU64> {
        self.refused.get(kind as usize)
    }

    pub(super) fn count(&self, kind: Refused) {
        if let Some(count) = self.of(kind) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// All clients and what they are held to.
#[derive(Debug)]
pub(super) struct Limits {
    clients: Mutex<Clients>,
    clock: Arc<dyn Clock>,
    pub(super) counts: Arc<Counts>,
}

impl Limits {
    pub(super) fn new(limits: ClientLimits, clock: Arc<dyn Clock>, counts: Arc<Counts>) -> Self {
        Self { clients: Mutex::new(Clients::new(limits)), clock, counts }
    }

    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for this client as long as the guest lives; `exempt`: whatever it has already.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr, exempt: bool) -> Result<Guest, Refused> {
        let client = Client::from(address);
        let entered = self.clients().enter(client, exempt, self.clock.now());
        let refused = entered.map_err(|excess| match excess {
            Excess::Connections => Refused::Connections,
            Excess::ClientConnections => Refused::ClientConnections,
            Excess::ConnectionRate => Refused::ConnectionRate,
        });
        refused.inspect_err(|kind| self.counts.count(*kind))?;
        self.counts.connections.fetch_add(1, Ordering::Relaxed);
        Ok(Guest { limits: Arc::clone(self), client, address, exempt })
    }
}

/// A client that has a place.
#[derive(Debug)]
pub(super) struct Guest {
    limits: Arc<Limits>,
    client: Client,
    address: IpAddr,
    exempt: bool,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.limits.clients().leave(self.client, self.limits.clock.now());
        self.limits.counts.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Guest {
    fn refuse(&self, event: Event) -> Option<Reply> {
        let now = self.limits.clock.now();
        if self.exempt || self.limits.clients().allow(self.client, event, now) {
            return None;
        }
        let (kind, what) = match event {
            Event::Message => (Refused::MessageRate, "Too much mail"),
            Event::Recipient => (Refused::RecipientRate, "Too many recipients"),
        };
        self.limits.counts.count(kind);
        tracing::warn!(client = %self.address, limit = kind.as_str(), "a client was slowed down");
        let text = format!("{what} from {} in a minute, try again later", self.address);
        Some(Reply::new(450, EnhancedStatus::transient(7, 1), text))
    }
}

/// Stands before a session's MAIL and RCPT.
#[derive(Debug)]
pub(super) struct Turnstile {
    guest: Guest,
    /// Memory for recipients before their message comes.
    share: Share,
    held: usize,
}

impl Turnstile {
    pub(super) fn new(guest: Guest, memory: &Memory) -> Self {
        Self { guest, share: memory.share(), held: 0 }
    }
}

/// What a recipient weighs in an envelope: the address, its wishes, and what the allocator adds.
pub(super) fn weight(recipient: &Address) -> usize {
    const FIXED: usize = size_of::<Address>() + size_of::<RecipientDsn>() + 32;
    FIXED + recipient.local().len() + recipient.domain().as_str().len()
}

impl Gate for Turnstile {
    fn mail(&mut self) -> Option<Reply> {
        self.guest.refuse(Event::Message)
    }

    fn rcpt(&mut self, recipient: &Address) -> Option<Reply> {
        if let Some(reply) = self.guest.refuse(Event::Recipient) {
            return Some(reply);
        }
        let held = self.held.saturating_add(weight(recipient));
        // A quarter of what is its own is left to the talk itself.
        if self.share.fit(held.saturating_add(OWN / 4)) {
            self.held = held;
            return None;
        }
        self.guest.limits.counts.count(Refused::Memory);
        // RFC 5321 §4.5.3.1.10: the client sends what it could hand over, and the others anew.
        let text = "Too many recipients at this time";
        Some(Reply::new(452, EnhancedStatus::transient(5, 3), text))
    }

    fn clear(&mut self) {
        self.held = 0;
        self.share.clear();
    }
}
