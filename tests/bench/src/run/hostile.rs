//! Hostile connections to a portal with TLS, of every kind at once. Each holds its connection as long
//! as it is let; one that was ended comes again after a while.

use crate::{Fault, line, only_loopback, tls, wire::Duplex};
use clap::Args;
use rustls::pki_types::ServerName;
use serde_json::json;
use std::{
    cell::Cell,
    io::{self, BufRead},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    rc::Rc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::mpsc,
    task::LocalSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;

/// The line that ends an attack.
pub(super) const END: &str = "end";
/// How long one that was ended waits before it comes again.
const PAUSE: Duration = Duration::from_secs(10);
/// Time between two bytes of those that send slowly.
const DRIP: Duration = Duration::from_secs(5);
/// Addresses that the connections come from: 127.0.64.1 and on. One alone would be held to
/// `max_connections_per_client`.
const ADDRESSES: usize = 200;
/// Connections that are begun at one time, so that the backlog holds them.
const AT_ONCE: usize = 256;

/// What a connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HostileKind {
    /// Nothing at all, not even TLS.
    Idle,
    /// The first bytes of a handshake.
    HalfHandshake,
    /// A head that never ends.
    SlowHead,
    /// The body of a sign-in, byte by byte.
    SlowBody,
    /// A letter without a session, as fast as it is taken.
    Letter,
    /// Requests without end, whose answers are not read.
    Pipelined,
    /// A file that is asked for again and again and not read.
    Unread,
}

pub(super) const KINDS: [HostileKind; 7] = [
    HostileKind::Idle,
    HostileKind::HalfHandshake,
    HostileKind::SlowHead,
    HostileKind::SlowBody,
    HostileKind::Letter,
    HostileKind::Pipelined,
    HostileKind::Unread,
];

#[derive(Debug, Clone, Args)]
pub(crate) struct HostileArguments {
    /// The portal, a loopback address
    #[arg(long)]
    to: SocketAddr,
    /// Its authority (PEM)
    #[arg(long)]
    ca: PathBuf,
    /// Connections at the same time
    #[arg(long)]
    connections: usize,
}

struct Attackers {
    to: SocketAddr,
    tls: TlsConnector,
    /// Connections that stand now, have been made, and have ended.
    standing: Cell<u64>,
    made: Cell<u64>,
    ended: Cell<u64>,
    most: Cell<u64>,
    begun: tokio::sync::Semaphore,
}

/// Attacks until a line comes in; says `ready` once each connection was tried once, and at the end what
/// became of them.
pub(crate) fn main(arguments: &HostileArguments) -> Result<(), Fault> {
    only_loopback(arguments.to)?;
    let attackers = Rc::new(Attackers {
        to: arguments.to,
        tls: tls::connector(&arguments.ca)?,
        standing: Cell::new(0),
        made: Cell::new(0),
        ended: Cell::new(0),
        most: Cell::new(0),
        begun: tokio::sync::Semaphore::new(AT_ONCE),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    let (first, mut firsts) = mpsc::channel(arguments.connections.max(1));
    for (number, kind) in KINDS.iter().cycle().take(arguments.connections).enumerate() {
        local.spawn_local(attacker(Rc::clone(&attackers), number, *kind, first.clone()));
    }
    drop(first);
    let (end, mut ended) = mpsc::channel::<()>(1);
    std::thread::spawn(move || {
        let mut text = String::new();
        drop(io::stdin().lock().read_line(&mut text));
        drop(end);
    });
    local.block_on(&runtime, async {
        while firsts.recv().await.is_some() {}
        line(&format!("ready, {} stand", attackers.standing.get()));
        ended.recv().await;
    });
    let said = json!({
        "made": attackers.made.get(), "ended": attackers.ended.get(), "most": attackers.most.get(),
        "standing": attackers.standing.get(),
    });
    line(&said.to_string());
    Ok(())
}

async fn attacker(
    attackers: Rc<Attackers>,
    number: usize,
    kind: HostileKind,
    first: mpsc::Sender<()>,
) {
    let host = u8::try_from(number % ADDRESSES).unwrap_or_default().saturating_add(1);
    let from = IpAddr::V4(Ipv4Addr::new(127, 0, 64, host));
    let mut first = Some(first);
    loop {
        let turn = attackers.begun.acquire().await;
        // A portal that does not answer is as good as one that refuses.
        let opened = timeout(PAUSE, attackers.open(from, kind)).await;
        drop(turn);
        first.take();
        if let Ok(Ok(stream)) = opened {
            attackers.count(&attackers.made, 1);
            attackers.count(&attackers.standing, 1);
            attackers.most.set(attackers.most.get().max(attackers.standing.get()));
            drop(hold(stream, kind).await);
            attackers.standing.set(attackers.standing.get().saturating_sub(1));
        }
        attackers.count(&attackers.ended, 1);
        sleep(PAUSE).await;
    }
}

impl Attackers {
    fn count(&self, cell: &Cell<u64>, by: u64) {
        cell.set(cell.get().saturating_add(by));
    }

    async fn open(&self, from: IpAddr, kind: HostileKind) -> Result<Box<dyn Duplex>, Fault> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(from, 0))?;
        let stream: TcpStream = socket.connect(self.to).await?;
        match kind {
            HostileKind::Idle | HostileKind::HalfHandshake => Ok(Box::new(stream)),
            HostileKind::SlowHead
            | HostileKind::SlowBody
            | HostileKind::Letter
            | HostileKind::Pipelined
            | HostileKind::Unread => {
                let name = ServerName::try_from(tls::DOMAIN)?;
                Ok(Box::new(self.tls.connect(name, stream).await?))
            }
        }
    }
}

/// Holds a connection until the other side ends it.
async fn hold(mut stream: Box<dyn Duplex>, kind: HostileKind) -> io::Result<()> {
    let head = "POST /login HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-www-form-urlencoded\r\n\
                Content-Length: 60000\r\n\r\n";
    let letter = "POST /compose HTTP/1.1\r\nHost: h\r\nContent-Type: multipart/form-data; boundary=b\r\n\
                  Content-Length: 50000000\r\n\r\n--b\r\nContent-Disposition: form-data; \
                  name=\"body\"\r\n\r\n";
    match kind {
        HostileKind::Idle => to_the_end(&mut stream).await,
        HostileKind::HalfHandshake => {
            stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await?;
            to_the_end(&mut stream).await
        }
        HostileKind::SlowHead => drip(&mut stream, "GET / HTTP/1.1\r\nHost: h\r\nX: ").await,
        HostileKind::SlowBody => drip(&mut stream, head).await,
        HostileKind::Letter => {
            stream.write_all(letter.as_bytes()).await?;
            stream.write_all(&vec![b'a'; 60_000]).await?;
            stream.flush().await?;
            drip(&mut stream, "").await
        }
        HostileKind::Pipelined => unread(&mut stream, "/").await,
        HostileKind::Unread => unread(&mut stream, "/assets/style.css").await,
    }
}

/// Waits for the other side's end.
async fn to_the_end(stream: &mut Box<dyn Duplex>) -> io::Result<()> {
    while stream.read(&mut [0; 512]).await? > 0 {}
    Ok(())
}

/// A byte now and then; a connection that was ended refuses the next but one.
async fn drip(stream: &mut Box<dyn Duplex>, beginning: &str) -> io::Result<()> {
    stream.write_all(beginning.as_bytes()).await?;
    loop {
        stream.write_all(b"a").await?;
        stream.flush().await?;
        sleep(DRIP).await;
    }
}

/// Asks without reading.
async fn unread(stream: &mut Box<dyn Duplex>, path: &str) -> io::Result<()> {
    let requests = format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").repeat(100);
    loop {
        stream.write_all(requests.as_bytes()).await?;
        stream.flush().await?;
    }
}
