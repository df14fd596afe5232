//! The places of a listener. Those of connections without a session are fewer, and the oldest of them
//! gives way to the newest: whoever holds connections open keeps nobody from signing in.

use super::BorderSettings;
use crate::{
    clock::Clock,
    smtp::clients::{Client, ClientLimits, Clients, Excess},
};
use jiff::{SignedDuration, Timestamp};
use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    io,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Refusals are logged at most this often, with their number.
const LOG_EVERY: SignedDuration = SignedDuration::from_secs(10);

/// Why a connection was refused or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// All places are taken by connections with a session.
    Connections,
    /// All places of one client are taken.
    ClientConnections,
    /// A connection without a session gave way to a newer one.
    WithoutSession,
    /// The peer read too slowly.
    Rate,
    /// A trusted proxy sent a malformed PROXY header, or none in time.
    ProxyHeader,
}

impl Refused {
    /// All kinds.
    pub const ALL: [Self; 5] = [
        Self::Connections,
        Self::ClientConnections,
        Self::WithoutSession,
        Self::Rate,
        Self::ProxyHeader,
    ];

    /// Its name in the metrics and in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ClientConnections => "client-connections",
            Self::WithoutSession => "without-session",
            Self::Rate => "rate",
            Self::ProxyHeader => "proxy-header",
        }
    }
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        Self::new(io::ErrorKind::ConnectionRefused, refused.as_str())
    }
}

/// What a listener counts, for the metrics.
#[derive(Debug, Default)]
pub struct Counts {
    open: AtomicU64,
    refused: [AtomicU64; Refused::ALL.len()],
}

impl Counts {
    /// Connections now.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// How many connections were refused or ended since the start, by kind.
    pub fn refused(&self) -> [(Refused, u64); Refused::ALL.len()] {
        Refused::ALL.map(|kind| {
            let count = self.refused.get(kind as usize);
            (kind, count.map_or(0, |count| count.load(Ordering::Relaxed)))
        })
    }
}

/// All places.
#[derive(Debug, Clone)]
pub(super) struct Places(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    listener: &'static str,
    /// Places for connections without a session.
    strangers: usize,
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct State {
    clients: Clients,
    next: u64,
    /// Connections without a session, oldest first.
    strangers: BTreeMap<u64, (Client, CancellationToken)>,
    /// Connections with one.
    readers: HashMap<u64, Client>,
    logged: Option<Timestamp>,
    unlogged: u64,
}

impl Places {
    pub(super) fn new(settings: &BorderSettings, clock: Arc<dyn Clock>) -> Self {
        let BorderSettings { listener, connections, connections_per_client, .. } = *settings;
        let limits = ClientLimits {
            connections,
            connections_per_client,
            connection_rate: 0,
            message_rate: 0,
            recipient_rate: 0,
        };
        let state = State {
            clients: Clients::new(limits),
            next: 0,
            strangers: BTreeMap::new(),
            readers: HashMap::new(),
            logged: None,
            unlogged: 0,
        };
        Self(Arc::new(Shared {
            listener,
            // A quarter is left to connections with a session.
            strangers: connections.saturating_sub(connections / 4),
            state: Mutex::new(state),
            clock,
            counts: Arc::default(),
        }))
    }

    pub(super) fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.0.counts)
    }

    /// A place for a client; `exempt`: however many it has.
    pub(super) fn enter(&self, address: IpAddr, exempt: bool) -> Result<Place, Refused> {
        let ended = CancellationToken::new();
        let (client, now) = (Client::from(address), self.0.clock.now());
        let mut state = self.0.state();
        while let Err(excess) = state.clients.enter(client, exempt, now) {
            let kind = kind_of(excess);
            if kind != Refused::Connections || !self.0.end_oldest(&mut state, address) {
                self.0.count(&mut state, kind, address);
                return Err(kind);
            }
        }
        let id = state.next;
        state.next = id.wrapping_add(1);
        state.strangers.insert(id, (client, ended.clone()));
        if state.strangers.len() > self.0.strangers {
            self.0.end_oldest(&mut state, address);
        }
        drop(state);
        self.0.counts.open.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::clone(&self.0);
        let waiting = Box::pin(ended.clone().cancelled_owned());
        Ok(Place { ticket: Ticket { id, shared }, address, ended, waiting })
    }
}

const fn kind_of(excess: Excess) -> Refused {
    match excess {
        Excess::Connections => Refused::Connections,
        Excess::ClientConnections | Excess::ConnectionRate => Refused::ClientConnections,
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the oldest connection without a session, to the good of the one from `newest`; false where
    /// all have one.
    fn end_oldest(&self, state: &mut State, newest: IpAddr) -> bool {
        let Some((_, (oldest, ended))) = state.strangers.pop_first() else { return false };
        state.clients.leave(oldest, self.clock.now());
        ended.cancel();
        self.count(state, Refused::WithoutSession, newest);
        true
    }

    /// Counts, and logs now and then. A flood must not become one of log lines.
    fn count(&self, state: &mut State, kind: Refused, address: IpAddr) {
        if let Some(count) = self.counts.refused.get(kind as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        state.unlogged = state.unlogged.saturating_add(1);
        let now = self.clock.now();
        let since = state.logged.map(|at| now.duration_since(at));
        if since.is_none_or(|since| since >= LOG_EVERY || since.is_negative()) {
            state.logged = Some(now);
            let connections = std::mem::take(&mut state.unlogged);
            let (listener, limit) = (self.listener, kind.as_str());
            tracing::warn!(listener, client = %address, limit, connections, "reject: connections");
        }
    }
}

/// The handle by which a request says that it has a session.
#[derive(Debug, Clone)]
pub(super) struct Ticket {
    id: u64,
    shared: Arc<Shared>,
}

impl Ticket {
    pub(super) fn has_session(&self) {
        let mut state = self.shared.state();
        if let Some((client, _)) = state.strangers.remove(&self.id) {
            state.readers.insert(self.id, client);
        }
    }
}

/// A place that is taken; dropping it frees it.
#[derive(Debug)]
pub(super) struct Place {
    ticket: Ticket,
    address: IpAddr,
    /// The place went to another connection.
    ended: CancellationToken,
    waiting: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Ticket { id, shared } = &self.ticket;
        let mut state = shared.state();
        let stranger = state.strangers.remove(id).map(|(client, _)| client);
        if let Some(client) = stranger.or_else(|| state.readers.remove(id)) {
            state.clients.leave(client, shared.clock.now());
        }
        drop(state);
        shared.counts.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Place {
    /// The client that it was given to.
    pub(super) const fn address(&self) -> IpAddr {
        self.address
    }

    pub(super) fn ticket(&self) -> Ticket {
        self.ticket.clone()
    }

    /// The connection turned out to be another client's: it is counted as that one's.
    pub(super) fn pass_to(&mut self, address: IpAddr, exempt: bool) -> Result<(), Refused> {
        let Ticket { id, shared } = &self.ticket;
        let (client, now) = (Client::from(address), shared.clock.now());
        let mut state = shared.state();
        let State { clients, strangers, .. } = &mut *state;
        let Some((held, _)) = strangers.get_mut(id) else { return Ok(()) };
        clients.leave(*held, now);
        if let Err(excess) = clients.enter(client, exempt, now) {
            strangers.remove(id);
            let kind = kind_of(excess);
            shared.count(&mut state, kind, address);
            return Err(kind);
        }
        *held = client;
        self.address = address;
        Ok(())
    }

    /// Counts what ended this connection.
    pub(super) fn count(&self, kind: Refused) {
        let shared = &self.ticket.shared;
        shared.count(&mut shared.state(), kind, self.address);
    }

    /// Runs something as long as the place is held.
    pub(super) async fn unless_ended<F: Future>(&self, work: F) -> io::Result<F::Output> {
        let done = self.ended.run_until_cancelled(work).await;
        done.ok_or_else(|| Refused::WithoutSession.into())
    }

    /// An error once the place has gone to another connection; wakes the task then.
    pub(super) fn poll_ended(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.waiting.as_mut().poll(context) {
            Poll::Ready(()) => Err(Refused::WithoutSession.into()),
            Poll::Pending => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::QueueId;

    #[derive(Debug)]
    struct Hands(Mutex<Timestamp>);
    impl Clock for Hands {
        fn now(&self) -> Timestamp {
            *self.0.lock().unwrap()
        }
        fn new_id(&self) -> QueueId {
            QueueId::new(0, [0; 10])
        }
    }
    fn places(connections: usize, per_client: usize) -> Places {
        let settings = BorderSettings {
            listener: "test",
            trusted_proxies: Vec::new(),
            connections,
            connections_per_client: per_client,
            min_rate: 0,
        };
        Places::new(&settings, Arc::new(Hands(Mutex::new(Timestamp::UNIX_EPOCH))))
    }
    fn from(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }
    fn refused(places: &Places, kind: Refused) -> u64 {
        places.counts().refused().into_iter().find(|(k, _)| *k == kind).unwrap().1
    }

    #[test]
    fn the_oldest_connection_without_a_session_gives_way() {
        let places = places(8, 0);
        let mut held: Vec<_> = (0..6).map(|n| places.enter(from(n), false).unwrap()).collect();
        assert!(held.iter().all(|place| !place.ended.is_cancelled()));
        held[0].ticket().has_session();
        let seventh = places.enter(from(7), false).unwrap();
        assert!(held.iter().all(|place| !place.ended.is_cancelled()), "five have none yet");
        let eighth = places.enter(from(8), false).unwrap();
        assert!(!held[0].ended.is_cancelled(), "its session was shown");
        assert!(held[1].ended.is_cancelled(), "the oldest without one");
        assert!(held[2..].iter().all(|place| !place.ended.is_cancelled()));
        assert_eq!(refused(&places, Refused::WithoutSession), 1);
        assert_eq!(places.counts().open(), 8, "the one that was ended is not closed yet");
        held.remove(1);
        assert_eq!(places.counts().open(), 7);
        drop((held, seventh, eighth));
        let state = places.0.state();
        assert_eq!((state.clients.open(), state.strangers.len(), state.readers.len()), (0, 0, 0));
    }

    #[test]
    fn readers_may_fill_all_places_and_then_the_next_is_refused() {
        let places = places(4, 0);
        let mut readers = Vec::new();
        for number in 0..4 {
            let place = places.enter(from(number), false).unwrap();
            place.ticket().has_session();
            readers.push(place);
        }
        assert_eq!(places.enter(from(9), true).err(), Some(Refused::Connections));
        readers.pop();
        let stranger = places.enter(from(9), false).unwrap();
        let next = places.enter(from(10), false).unwrap();
        assert!(stranger.ended.is_cancelled(), "all others have a session");
        assert!(!next.ended.is_cancelled());
    }

    #[test]
    fn a_client_has_so_many_and_a_proxy_s_clients_are_counted_one_by_one() {
        let places = places(100, 2);
        let held = [places.enter(from(1), false).unwrap(), places.enter(from(1), false).unwrap()];
        assert_eq!(places.enter(from(1), false).err(), Some(Refused::ClientConnections));
        assert!(places.enter(from(2), false).is_ok(), "another client");
        let mut through = Vec::new();
        for number in 0..10 {
            let mut place = places.enter(from(200), true).unwrap();
            place.pass_to(from(number + 10), false).unwrap();
            through.push(place);
        }
        let mut more = places.enter(from(200), true).unwrap();
        assert_eq!(more.pass_to(from(1), false), Err(Refused::ClientConnections));
        drop(more);
        drop(held);
        let mut more = places.enter(from(200), true).unwrap();
        assert_eq!(more.pass_to(from(1), false), Ok(()));
        drop((more, through));
        assert_eq!(places.0.state().clients.open(), 0, "each place is given back once");
        assert_eq!(places.counts().open(), 0);
    }
}
