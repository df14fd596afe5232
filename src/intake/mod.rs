//! Intake: mail comes in over SMTP, is sealed as it streams, and is answered 250 only when it is
//! durable.
//!
//! 1. The client's address says whether it may relay. An excess of connections gets 421, one of
//!    content waits.
//! 2. With the first byte of content a deposit is opened; every piece is sealed at once, and read
//!    by the header scan and the part index in passing. Nothing is held whole.
//! 3. At the end of content: hop count, message rules, the deposit made durable, the row committed.
//!    Then 250.
//! 4. Whatever fails before that is answered 4xx, and nothing is kept; a client that goes away in
//!    the midst has said nothing.

mod door;
mod message;
mod session;

pub use door::{Door, Envelope, Incoming, Refusal};

use crate::{
    mail::{Address, Domain, EnhancedStatus},
    smtp::{Reply, Server, ServerSettings},
    wire::{Stream, TlsAccept},
};
use ipnet::IpNet;
use jiff::SignedDuration;
use session::Session;
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{io::AsyncWriteExt, sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;

/// Memory that content on its way in may take at one time, in units of [`UNIT`].
const BUDGET: usize = 128;
/// What a small message takes at most: headers kept for the rules, sealed bytes not yet written.
const UNIT: u64 = 512 * 1024;
/// Units that a message of unknown or large size takes.
const LARGE: u32 = 4;
/// How long content waits for memory before its transaction is put off.
const WAIT: Duration = Duration::from_secs(30);

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
    /// Connections at one time.
    pub max_connections: usize,
    /// Errors in a session.
    pub max_errors: u32,
    /// Silence before 421; the content of a message may take ten of them.
    pub idle_timeout: SignedDuration,
}

/// Takes mail in.
#[derive(Debug)]
pub struct Intake {
    settings: IntakeSettings,
    door: Door,
    connections: Semaphore,
}

impl Intake {
    /// An intake whose mail goes in by this door.
    pub fn new(settings: IntakeSettings, door: Door) -> Self {
        let connections = Semaphore::new(settings.max_connections.min(Semaphore::MAX_PERMITS));
        Self { settings, door, connections }
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
        let Ok(_place) = self.connections.try_acquire() else {
            tracing::warn!(client = %client, "too many connections");
            return self.turn_away(stream).await;
        };
        let server = Server::new(self.server_settings(client, tls.is_some()));
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

    /// RFC 5321 §3.8: 421 in place of the greeting.
    async fn turn_away(&self, mut stream: Box<dyn Stream>) {
        let text = format!("{} has too many connections, try again later", self.settings.hostname);
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
