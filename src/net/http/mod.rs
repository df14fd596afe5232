//! The border of an HTTP listener: which connections are taken, how long they may stand still, and on
//! whose behalf they come.
//!
//! [`Border`] stands in front of TLS. It counts connections in all, by client and without a session,
//! reads the PROXY header that a trusted proxy sends first, and hands on a stream that ends where the
//! peer reads too slowly.

mod entrance;
mod pace;
mod places;
mod proxy;
#[cfg(test)]
mod tests;

pub use entrance::{Entered, Entrance};
use pace::Pace;
pub use pace::{PacedBody, PacedStream};
pub use places::{Counts, Refused};
use places::{Place, Places};

use crate::clock::Clock;
use axum_server::accept::Accept;
use ipnet::IpNet;
use socket2::SockRef;
use std::{future::Future, io, net::IpAddr, pin::Pin, sync::Arc};
use tokio::net::TcpStream;
use tower_http::add_extension::AddExtension;

/// Bytes that the kernel holds unsent for one connection (`TCP_NOTSENT_LOWAT`). More would hide from
/// us whether the peer reads, and 2,000 peers that do not would take gigabytes of its memory.
const UNSENT: u32 = 64 * 1024;

/// What a listener holds its clients to.
#[derive(Debug, Clone)]
pub struct BorderSettings {
    /// What listens, for the log.
    pub listener: &'static str,
    /// Networks whose PROXY header is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Connections at one time.
    pub connections: usize,
    /// Connections at one time of one client; 0: no limit.
    pub connections_per_client: usize,
    /// Bytes a second that a peer must read at least while it is written to; 0: no limit.
    pub min_rate: u64,
}

/// Takes the connections of one listener.
#[derive(Debug, Clone)]
pub struct Border {
    settings: Arc<BorderSettings>,
    places: Places,
}

/// One connection as the requests on it see it: an extension of each of them.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The peer's address, or the one that a trusted proxy's PROXY header names.
    pub peer: IpAddr,
    place: Option<places::Ticket>,
}

impl Connection {
    /// A connection that takes no place of a listener.
    pub const fn unlisted(peer: IpAddr) -> Self {
        Self { peer, place: None }
    }
    /// A session was shown on this connection: from now on it is not ended for the sake of newer ones.
    pub fn has_session(&self) {
        if let Some(place) = &self.place {
            place.has_session();
        }
    }
}

/// True if an address lies in one of the networks.
pub fn lies_in(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

impl Border {
    /// A border with all places free.
    pub fn new(settings: BorderSettings, clock: Arc<dyn Clock>) -> Self {
        let places = Places::new(&settings, clock);
        Self { settings: Arc::new(settings), places }
    }

    /// What is counted here.
    pub fn counts(&self) -> Arc<Counts> {
        self.places.counts()
    }

    /// A service behind this border, to be served with the border as its acceptor.
    pub fn before<S>(&self, service: S) -> Entrance<S> {
        Entrance::new(self.clone(), service)
    }

    /// A place for a connection from that address.
    fn enter(&self, peer: IpAddr) -> Result<Place, Refused> {
        let peer = peer.to_canonical();
        self.places.enter(peer, lies_in(&self.settings.trusted_proxies, peer))
    }

    /// Takes a connection that has a place, or says why not by the error's kind; the stream is closed
    /// then.
    async fn admit(
        self,
        mut stream: TcpStream,
        mut place: Place,
    ) -> io::Result<(PacedStream, Connection)> {
        let mut peer = place.address();
        let is_proxy = lies_in(&self.settings.trusted_proxies, peer);
        // Answers leave in one piece or in large ones: nothing is gained by waiting for more.
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT)?;
        let mut read_ahead = Vec::new();
        if is_proxy {
            let read = place.unless_ended(proxy::read(&mut stream, &mut read_ahead)).await?;
            let header = read.inspect_err(|_| place.count(Refused::ProxyHeader))?;
            if let Some(client) = header {
                peer = client;
                place.pass_to(client, lies_in(&self.settings.trusted_proxies, client))?;
            }
        }
        let connection = Connection { peer, place: Some(place.ticket()) };
        let pace = Pace::new(self.settings.min_rate);
        Ok((PacedStream::new(stream, read_ahead, pace, place), connection))
    }
}

impl<S: Send + 'static> Accept<TcpStream, Entered<S>> for Border {
    type Stream = PacedStream;
    type Service = AddExtension<S, Connection>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: TcpStream, entered: Entered<S>) -> Self::Future {
        let border = self.clone();
        Box::pin(async move {
            let (service, place) = entered.into_parts()?;
            let (stream, connection) = border.admit(stream, place).await?;
            Ok((stream, AddExtension::new(service, connection)))
        })
    }
}
