//! Intake: mail comes in over SMTP, is sealed as it streams, and is answered 250 only when it is
//! durable.
//!
//! 1. The client's address says whether it may relay, and whether there is a place for it: an excess
//!    of connections gets 421, one of mail 450. When the store is slow, sessions wait; what they hold
//!    meanwhile is bounded.
//! 2. With the first byte of content a deposit is opened; every piece is sealed at once, and read
//!    by the header scan and the part index in passing. Nothing is held whole.
//! 3. At the end of content: hop count, message rules, the deposit made durable, the row committed.
//!    Then 250.
//! 4. Whatever fails before that is answered 4xx, and nothing is kept; a client that goes away in
//!    the midst has said nothing.

mod door;
mod limits;
mod memory;
mod message;
mod session;

pub use door::{Door, Envelope, Incoming, Refusal};
pub use limits::{Counts, Refused};

use crate::{
    mail::{Address, Domain, EnhancedStatus},
    smtp::{Reply, Server, ServerSettings, clients::ClientLimits},
    wire::{Stream, TlsAccept},
};
use ipnet::IpNet;
use jiff::SignedDuration;
use limits::{Limits, Turnstile};
use session::Session;
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{io::AsyncWriteExt, sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;

/// Connections that are told 421 at one time; more are closed without a word.
const FAREWELLS: usize = 64;

/// The `[smtp]` table, as sessions need it.
#[derive(Debug, Clone)]
pub struct IntakeSettings {
    /// Name in the greeting and in Received.
    pub hostname: Domain,
    /// `organization.postmaster`
    pub postmaster: Address,
    /// Networks that may relay.
    pub clients: Vec<IpNet>,
    /// Networks whose bare CR or LF is repaired.
    pub normalize: Vec<IpNet>,
    /// Mail only over TLS.
    pub require_tls: bool,
    /// Largest message.
    pub max_message_size: u64,
    /// Recipients of a message.
    pub max_recipients: usize,
    /// Connections at one time, and what each client may do.
    pub limits: ClientLimits,
    /// Networks that are held to no limit of one client.
    pub limit_exceptions: Vec<IpNet>,
    /// Errors in a session.
    pub max_errors: u32,
    /// Silence before 421; the content of a message may take ten of them.
    pub idle_timeout: SignedDuration,
    /// How long a session may last; a transaction that is open then comes to its end.
    pub max_session_time: SignedDuration,
}

/// Takes mail in.
#[derive(Debug)]
pub struct Intake {
    settings: IntakeSettings,
    door: Door,
    limits: Arc<Limits>,
    farewells: Semaphore,
}

impl Intake {
    /// An intake whose mail goes in by this door.
    pub fn new(settings: IntakeSettings, door: Door) -> Self {
        let (clock, counts) = (Arc::clone(&door.vault.clock), Arc::clone(&door.counts));
        let limits = Arc::new(Limits::new(settings.limits, clock, counts));
        Self { settings, door, limits, farewells: Semaphore::new(FAREWELLS) }
    }

    /// What is counted, for the metrics.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.limits.counts)
    }

    /// One connection, from the greeting to the end. With `tls`, STARTTLS is offered. After `stop`
    /// the session ends as soon as no message is in transfer (421 4.3.2). To drop this future is to
    /// lose the connection: what was not answered with 250 is not kept.
    pub async fn serve(
        &self,
        stream: Box<dyn Stream>,
        peer: SocketAddr,
        tls: Option<Arc<dyn TlsAccept>>,
        stop: CancellationToken,
    ) {
        let client = peer.ip().to_canonical();
        let exempt = self.settings.limit_exceptions.iter().any(|n| n.contains(&client));
        let guest = match self.limits.admit(client, exempt) {
            Ok(guest) => guest,
            Err(why) => {
                tracing::warn!(%client, limit = why.as_str(), "a connection was turned away");
                return self.turn_away(stream, why, client).await;
            }
        };
        let gate = Box::new(Turnstile::new(guest, &self.door.memory));
        let server = Server::new(self.server_settings(client, tls.is_some())).with_gate(gate);
        Session::new(self, server, stream, client, tls).run(stop).await;
    }

    fn server_settings(&self, client: IpAddr, starttls: bool) -> ServerSettings {
        let lies_in = |networks: &[IpNet]| networks.iter().any(|n| n.contains(&client));
        ServerSettings {
            hostname: self.settings.hostname.clone(),
            postmaster: self.settings.postmaster.clone(),
            max_message_size: self.settings.max_message_size,
            max_recipients: self.settings.max_recipients,
            max_errors: self.settings.max_errors,
            starttls,
            require_tls: self.settings.require_tls,
            may_relay: lies_in(&self.settings.clients),
            normalize: lies_in(&self.settings.normalize),
        }
    }

    /// RFC 5321 §3.8: 421 in place of the greeting. In a flood the words are spared.
    async fn turn_away(&self, mut stream: Box<dyn Stream>, why: Refused, client: IpAddr) {
        let Ok(_turn) = self.farewells.try_acquire() else { return };
        let host = &self.settings.hostname;
        let text = match why {
            Refused::ClientConnections => format!("{host} has too many connections from {client}"),
            Refused::ConnectionRate => format!("{host} gets connections from {client} too fast"),
            Refused::Connections
            | Refused::MessageRate
            | Refused::RecipientRate
            | Refused::Memory => format!("{host} has too many connections"),
        };
        let text = format!("{text}, try again later");
        let reply = Reply::new(421, EnhancedStatus::transient(7, 0), text).to_wire();
        let farewell = async {
            let _ = stream.write_all(&reply).await;
            let _ = stream.shutdown().await;
        };
        let _ = timeout(Duration::from_secs(5), farewell).await;
    }
}

#[cfg(test)]
mod tests;
