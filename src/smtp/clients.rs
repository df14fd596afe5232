//! What clients are held to, each for itself and all together: places at one time, and events a
//! minute. Pure: the time comes in with every question.
//!
//! A client is an IPv4 address or an IPv6 /64, the least that one customer has. However many come,
//! the memory of them is bounded: who has a place is remembered, and of the others at most
//! [`Clients::REMEMBERED`], those first who owe the most.

use jiff::{SignedDuration, Timestamp};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
};

/// Rates are by the minute, as Postfix's `anvil_rate_time_unit`.
const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// Who is counted as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Client {
    /// An IPv4 address, in IPv6 clothes too.
    Address(Ipv4Addr),
    /// The first 64 bits of an IPv6 address.
    Network(u64),
}

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::Address(v4),
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments().map(u64::from);
                Self::Network(a << 48 | b << 32 | c << 16 | d)
            }
        }
    }
}

/// The limits; 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientLimits {
    /// Connections at one time, of all clients.
    pub connections: usize,
    /// Connections at one time, of one client.
    pub connections_per_client: usize,
    /// Connections a minute, of one client.
    pub connection_rate: u32,
    /// MAIL commands a minute, of one client.
    pub message_rate: u32,
    /// RCPT commands a minute, of one client.
    pub recipient_rate: u32,
}

/// Why a client gets no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// All places are taken.
    Connections,
    /// All places of this client are taken.
    ClientConnections,
    /// The client comes too often.
    ConnectionRate,
}

/// What can be too much in a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// MAIL
    Message,
    /// RCPT
    Recipient,
}

/// All clients.
#[derive(Debug)]
pub struct Clients {
    limits: ClientLimits,
    open: usize,
    known: HashMap<Client, Known>,
}

/// What is remembered of one.
#[derive(Debug, Default)]
struct Known {
    open: usize,
    connections: Meter,
    messages: Meter,
    recipients: Meter,
}

/// A bucket of as many tokens as the limit, filled anew at an even pace within a minute. All that is
/// kept of it is when it will be full.
#[derive(Debug, Clone, Copy, Default)]
struct Meter {
    full: SignedDuration,
}

impl Meter {
    /// Takes a token, if there is one.
    fn take(&mut self, rate: u32, now: SignedDuration) -> bool {
        let Some(each) = MINUTE.checked_div(i32::try_from(rate).unwrap_or(i32::MAX)) else {
            return true;
        };
        // A clock that was set back must not make a client wait for longer than a minute.
        self.full = self.full.clamp(now, now.saturating_add(MINUTE));
        let full = self.full.saturating_add(each);
        let is_there = full.saturating_sub(now) <= MINUTE;
        if is_there {
            self.full = full;
        }
        is_there
    }
}

impl Known {
    /// When nothing of it will be worth remembering.
    fn settled(&self) -> SignedDuration {
        self.connections.full.max(self.messages.full).max(self.recipients.full)
    }
    fn is_needed(&self, now: SignedDuration) -> bool {
        self.open > 0 || self.settled() > now
    }
}

impl Clients {
    /// Clients without a place that are remembered at most.
    pub const REMEMBERED: usize = 10_000;

    /// Nobody yet.
    pub fn new(limits: ClientLimits) -> Self {
        Self { limits, open: 0, known: HashMap::new() }
    }

    /// Gives a client a place. One that is `exempt` is held to nothing but the places of all. Each
    /// place must be [given back](Self::leave).
    pub fn enter(&mut self, client: Client, exempt: bool, now: Timestamp) -> Result<(), Excess> {
        let (limits, now) = (self.limits, now.as_duration());
        if limits.connections > 0 && self.open >= limits.connections {
            return Err(Excess::Connections);
        }
        self.make_room(client, now);
        let known = self.known.entry(client).or_default();
        let most = limits.connections_per_client;
        if !exempt && most > 0 && known.open >= most {
            return Err(Excess::ClientConnections);
        }
        if !exempt && !known.connections.take(limits.connection_rate, now) {
            return Err(Excess::ConnectionRate);
        }
        known.open = known.open.saturating_add(1);
        self.open = self.open.saturating_add(1);
        Ok(())
    }

    /// A place is free again.
    pub fn leave(&mut self, client: Client, now: Timestamp) {
        self.open = self.open.saturating_sub(1);
        let Some(known) = self.known.get_mut(&client) else { return };
        known.open = known.open.saturating_sub(1);
        if !known.is_needed(now.as_duration()) {
            self.known.remove(&client);
        }
    }

    /// Counts an event of a client that has a place; false if it is one too many.
    pub fn allow(&mut self, client: Client, event: Event, now: Timestamp) -> bool {
        let (limits, now) = (self.limits, now.as_duration());
        let Some(known) = self.known.get_mut(&client) else { return true };
        match event {
            Event::Message => known.messages.take(limits.message_rate, now),
            Event::Recipient => known.recipients.take(limits.recipient_rate, now),
        }
    }

    /// Places taken.
    pub const fn open(&self) -> usize {
        self.open
    }

    /// Before another is remembered, those go of whom nothing need be known; if that is not enough,
    /// a quarter of those without a place: who owes least loses least by being forgotten.
    fn make_room(&mut self, client: Client, now: SignedDuration) {
        let most = Self::REMEMBERED.saturating_add(self.open);
        if self.known.len() < most || self.known.contains_key(&client) {
            return;
        }
        self.known.retain(|_, known| known.is_needed(now));
        if self.known.len() < most {
            return;
        }
        let absent = self.known.iter().filter(|(_, known)| known.open == 0);
        let mut absent: Vec<_> = absent.map(|(client, k)| (k.settled(), *client)).collect();
        absent.sort_unstable();
        for (_, client) in absent.iter().take(Self::REMEMBERED / 4) {
            self.known.remove(client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: ClientLimits = ClientLimits {
        connections: 0,
        connections_per_client: 0,
        connection_rate: 0,
        message_rate: 0,
        recipient_rate: 0,
    };

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + millis).unwrap()
    }
    fn client(text: &str) -> Client {
        Client::from(text.parse::<IpAddr>().unwrap())
    }
    fn numbered(number: u32) -> Client {
        Client::Address(Ipv4Addr::from_bits(number))
    }

    #[test]
    fn who_is_one_client() {
        let rows = [
            ("192.0.2.1", "192.0.2.1", true, "itself"),
            ("192.0.2.1", "192.0.2.2", false, "a neighbour"),
            ("192.0.2.1", "::ffff:192.0.2.1", true, "in IPv6 clothes"),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true, "one /64 is one customer"),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false, "another /64"),
            ("::1", "0.0.0.1", false, "numbers alike, families not"),
        ];
        for (one, other, same, reason) in rows {
            assert_eq!(client(one) == client(other), same, "{reason}");
        }
    }

    #[test]
    fn places() {
        let limits = ClientLimits { connections: 4, connections_per_client: 2, ..NONE };
        let mut clients = Clients::new(limits);
        // (client, exempt, comes or goes, expected)
        let (a, b, c) = (numbered(1), numbered(2), numbered(3));
        let in_ = |clients: &mut Clients, who, exempt| clients.enter(who, exempt, at(0));
        assert_eq!(in_(&mut clients, a, false), Ok(()));
        assert_eq!(in_(&mut clients, a, false), Ok(()));
        assert_eq!(in_(&mut clients, a, false), Err(Excess::ClientConnections));
        assert_eq!(in_(&mut clients, b, false), Ok(()), "another has its own places");
        assert_eq!(in_(&mut clients, a, true), Ok(()), "exempt from the limit of one client");
        assert_eq!(in_(&mut clients, c, true), Err(Excess::Connections), "but not from all");
        clients.leave(b, at(0));
        assert_eq!((clients.open(), clients.known.len()), (3, 1), "nothing is left of who is gone");
        assert_eq!(in_(&mut clients, c, false), Ok(()));
        for _ in 0..3 {
            clients.leave(a, at(0));
        }
        clients.leave(c, at(0));
        assert_eq!((clients.open(), clients.known.len()), (0, 0));
    }

    #[test]
    fn tokens_come_back_at_an_even_pace() {
        // 6 a minute: one each ten seconds, six of them in store.
        let rows = [
            (0, 7, 6, "a burst of a whole minute's"),
            (9_999, 1, 0, "not yet ten seconds"),
            (10_000, 2, 1, "one came back"),
            (40_000, 9, 3, "three more"),
            (39_000, 1, 0, "a clock set back a little"),
            (50_000, 1, 1, "the next is due as it was"),
            (500_000, 9, 6, "no more than a minute's is saved up"),
            (0, 1, 0, "a clock set far back"),
            (10_000, 1, 1, "costs ten seconds, not an hour"),
            (70_000, 9, 6, "and a minute later it is as it was"),
        ];
        let mut meter = Meter::default();
        for (millis, tries, expected, reason) in rows {
            let now = at(millis).as_duration();
            let taken = (0..tries).filter(|_| meter.take(6, now)).count();
            assert_eq!(taken, expected, "{reason}");
        }
        for rate in [1, 7, 60_000, 1_000_000] {
            let (mut meter, now) = (Meter::default(), at(0).as_duration());
            let most = rate as usize + 10;
            let taken = (0..most).filter(|_| meter.take(rate, now)).count();
            assert_eq!(taken, rate as usize, "as many at once as in a minute");
        }
        let mut none = Meter::default();
        assert!((0..100_000).all(|_| none.take(0, at(0).as_duration())), "0 is no limit");
    }

    #[test]
    fn each_event_has_its_own_rate_and_each_client_its_own_count() {
        let limits =
            ClientLimits { connection_rate: 2, message_rate: 3, recipient_rate: 5, ..NONE };
        let mut clients = Clients::new(limits);
        for who in [numbered(1), numbered(2)] {
            assert_eq!(clients.enter(who, false, at(0)), Ok(()));
            let mut count = |event| (0..9).filter(|_| clients.allow(who, event, at(0))).count();
            assert_eq!((count(Event::Message), count(Event::Recipient)), (3, 5));
            // Coming anew does not make it forgotten.
            clients.leave(who, at(0));
            assert_eq!(clients.enter(who, false, at(0)), Ok(()));
            assert!(!clients.allow(who, Event::Message, at(0)));
            clients.leave(who, at(0));
            assert_eq!(clients.enter(who, false, at(0)), Err(Excess::ConnectionRate));
            assert_eq!(clients.enter(who, true, at(0)), Ok(()), "exempt");
            clients.leave(who, at(0));
        }
        assert_eq!(clients.enter(numbered(1), false, at(61_000)), Ok(()));
        clients.leave(numbered(1), at(122_000));
        assert_eq!(clients.known.len(), 1, "a minute later nothing is known of it");
    }

    #[test]
    fn memory_is_bounded_and_who_owes_most_is_remembered() {
        let limits = ClientLimits { connection_rate: 10, ..NONE };
        let mut clients = Clients::new(limits);
        let busy = numbered(1);
        for _ in 0..10 {
            clients.enter(busy, false, at(0)).unwrap();
            clients.leave(busy, at(0));
        }
        let stays = numbered(2);
        clients.enter(stays, false, at(0)).unwrap();
        for number in 0..200_000 {
            let who = numbered(1000 + number);
            clients.enter(who, false, at(1)).unwrap();
            clients.leave(who, at(1));
            assert!(clients.known.len() <= Clients::REMEMBERED + 1, "{number}");
        }
        assert_eq!(clients.enter(busy, false, at(1)), Err(Excess::ConnectionRate));
        assert!(clients.known.contains_key(&stays), "who has a place is never forgotten");
        clients.enter(numbered(3), false, at(120_000)).unwrap();
        for number in 0..20_000 {
            clients.enter(numbered(500_000 + number), false, at(120_000)).unwrap();
        }
        assert!(clients.known.len() <= 20_002 + Clients::REMEMBERED, "as many as have a place");
    }
}
