//! The sink: a mail host that takes everything, keeps nothing, and knows what it was given twice.
//!
//! It is asked over stdin, a line each, and answers a line of JSON on stdout:
//! `wait TAG COUNT SECONDS` answers when so many different messages of this tag are here, or when the
//! time is over. Where stdin ends, it ends.

use crate::{Fault, epoch_us, line, only_loopback, tls, wire::Wire};
use clap::Args;
use serde_json::json;
use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    path::PathBuf,
    rc::Rc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Notify, mpsc},
    task::LocalSet,
};
use tokio_rustls::TlsAcceptor;

#[derive(Debug, Args)]
pub(crate) struct SinkArguments {
    /// A loopback address; port 0 takes a free one, and `ready ADDR` says which
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Offers STARTTLS with `chain.pem` and `key.pem` of this folder
    #[arg(long)]
    starttls: Option<PathBuf>,
    /// Refuses MAIL before STARTTLS
    #[arg(long, requires = "starttls")]
    require_tls: bool,
    /// Ends each connection after one message, and gives no tickets: a handshake per message
    #[arg(long)]
    once: bool,
    /// Takes connections and never greets: a next hop that hangs
    #[arg(long)]
    silent: bool,
    /// The end, asked or not
    #[arg(long, default_value_t = 600)]
    max_seconds: u64,
}

/// What came of one tag.
#[derive(Debug, Default)]
struct Tally {
    messages: u64,
    bytes: u64,
    names: HashSet<Vec<u8>>,
    first_us: u64,
    last_us: u64,
}

struct Sink {
    arguments: SinkArguments,
    tls: Option<TlsAcceptor>,
    tallies: RefCell<HashMap<u8, Tally>>,
    connections: Cell<u64>,
    handshakes: Cell<u64>,
    came: Notify,
}

/// Serves until it is told to stop.
pub(crate) fn main(arguments: SinkArguments) -> Result<(), Fault> {
    only_loopback(arguments.listen)?;
    let tls = arguments.starttls.as_deref().map(|dir| tls::acceptor(dir, !arguments.once));
    let patience = Duration::from_secs(arguments.max_seconds);
    let sink = Rc::new(Sink {
        tls: tls.transpose()?,
        arguments,
        tallies: RefCell::default(),
        connections: Cell::new(0),
        handshakes: Cell::new(0),
        came: Notify::new(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    runtime.block_on(local.run_until(async {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(sink.arguments.listen)?;
        let listener = socket.listen(4096)?;
        line(&format!("ready {}", listener.local_addr()?));
        tokio::select! {
            () = accept(&sink, listener) => {}
            () = answer(&sink) => {}
            () = tokio::time::sleep(patience) => {}
        }
        Ok(())
    }))
}

async fn accept(sink: &Rc<Sink>, listener: TcpListener) {
    let mut hung = Vec::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        sink.connections.set(sink.connections.get().saturating_add(1));
        if sink.arguments.silent {
            hung.push(stream);
            continue;
        }
        let sink = Rc::clone(sink);
        tokio::task::spawn_local(async move { drop(session(&sink, stream).await) });
    }
}

/// Answers what comes over stdin. A thread of its own reads it: stdin knows no other way.
async fn answer(sink: &Sink) {
    let (said, mut asked) = mpsc::unbounded_channel::<String>();
    std::thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            if said.send(line).is_err() {
                break;
            }
        }
    });
    while let Some(question) = asked.recv().await {
        let mut words = question.split_ascii_whitespace().skip(1);
        let tag = words.next().and_then(|w| w.bytes().next()).unwrap_or(b'm');
        let mut number = || words.next().and_then(|w| w.parse::<u64>().ok()).unwrap_or(0);
        let (count, seconds) = (number(), number());
        let enough = async {
            while sink.distinct(tag) < count {
                sink.came.notified().await;
            }
        };
        let done = tokio::time::timeout(Duration::from_secs(seconds), enough).await.is_ok();
        line(&sink.report(tag, done).to_string());
    }
}

/// What a session knows.
#[derive(Default)]
struct Session {
    under_tls: bool,
    /// The first recipient's name: tag and number.
    name: Option<Vec<u8>>,
    bdat: u64,
}

async fn session(sink: &Sink, stream: TcpStream) -> Result<(), Fault> {
    let mut wire = Wire::plain(stream)?;
    wire.send(b"220 sink.test ESMTP\r\n").await?;
    let (mut state, mut line, mut out) = (Session::default(), Vec::new(), Vec::new());
    loop {
        // Replies to pipelined commands go out together.
        if !out.is_empty() && !wire.has_more() {
            wire.send(&out).await?;
            out.clear();
        }
        if !wire.line(&mut line).await? {
            return Ok(());
        }
        line.make_ascii_uppercase();
        let verb = line.get(..4).unwrap_or_default();
        match verb {
            b"DATA" if state.name.is_some() => {
                out.extend_from_slice(b"354 go on\r\n");
                wire.send(&out).await?;
                out.clear();
                let Some(size) = wire.content().await? else { return Ok(()) };
                sink.got(state.name.take(), size);
                out.extend_from_slice(b"250 2.0.0 ok\r\n");
            }
            b"BDAT" => {
                if !bdat(sink, &mut wire, &mut state, &line).await? {
                    return Ok(());
                }
                out.extend_from_slice(b"250 2.0.0 ok\r\n");
            }
            b"STAR" => {
                let Some(tls) = &sink.tls else { return Ok(()) };
                wire.send(b"220 2.0.0 go on\r\n").await?;
                sink.handshakes.set(sink.handshakes.get().saturating_add(1));
                wire = Wire::over(Box::new(tls.accept(wire.into_inner()?).await?));
                state = Session { under_tls: true, ..Session::default() };
                continue;
            }
            b"QUIT" => {
                out.extend_from_slice(b"221 2.0.0 bye\r\n");
                wire.send(&out).await?;
                return Ok(wire.shutdown().await?);
            }
            _ => out.extend_from_slice(sink.simple(&mut state, &line)),
        }
        let whole = verb == b"DATA" || verb == b"BDAT" && state.name.is_none();
        if whole && sink.arguments.once && out.starts_with(b"250") {
            wire.send(&out).await?;
            return Ok(wire.shutdown().await?);
        }
    }
}

/// A chunk (RFC 3030); false where the stream ended.
async fn bdat(
    sink: &Sink,
    wire: &mut Wire,
    state: &mut Session,
    line: &[u8],
) -> Result<bool, Fault> {
    let text = std::str::from_utf8(line)?;
    let mut words = text.split_ascii_whitespace().skip(1);
    let size = words.next().and_then(|w| w.parse().ok()).unwrap_or(0);
    if !wire.skip(size).await? {
        return Ok(false);
    }
    state.bdat = state.bdat.saturating_add(size);
    if words.next() == Some("LAST") {
        sink.got(state.name.take(), std::mem::take(&mut state.bdat));
    }
    Ok(true)
}

impl Sink {
    /// Commands that one reply answers. The line is in upper case.
    fn simple(&self, state: &mut Session, line: &[u8]) -> &'static [u8] {
        match line.get(..4).unwrap_or_default() {
            b"EHLO" if self.tls.is_some() && !state.under_tls => {
                b"250-sink.test\r\n250-PIPELINING\r\n250-SIZE\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n\
                  250-CHUNKING\r\n250-STARTTLS\r\n250 ENHANCEDSTATUSCODES\r\n"
            }
            b"EHLO" => {
                b"250-sink.test\r\n250-PIPELINING\r\n250-SIZE\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n\
                  250-CHUNKING\r\n250 ENHANCEDSTATUSCODES\r\n"
            }
            b"MAIL" if self.arguments.require_tls && !state.under_tls => {
                b"530 5.7.0 STARTTLS first\r\n"
            }
            b"RCPT" => {
                if state.name.is_none() {
                    let after = line.splitn(2, |b| *b == b'<').nth(1).unwrap_or_default();
                    state.name = after.split(|b| *b == b'@').next().map(<[u8]>::to_vec);
                }
                b"250 2.1.5 ok\r\n"
            }
            b"MAIL" | b"RSET" => {
                state.name = None;
                b"250 2.0.0 ok\r\n"
            }
            b"HELO" | b"NOOP" => b"250 2.0.0 ok\r\n",
            _ => b"503 5.5.1 not here\r\n",
        }
    }

    fn got(&self, name: Option<Vec<u8>>, bytes: u64) {
        let name = name.unwrap_or_default();
        let tag = name.first().copied().unwrap_or_default().to_ascii_lowercase();
        let mut tallies = self.tallies.borrow_mut();
        let tally = tallies.entry(tag).or_default();
        tally.messages = tally.messages.saturating_add(1);
        tally.bytes = tally.bytes.saturating_add(bytes);
        if tally.names.insert(name) {
            tally.last_us = epoch_us();
            if tally.first_us == 0 {
                tally.first_us = tally.last_us;
            }
        }
        self.came.notify_one();
    }

    fn distinct(&self, tag: u8) -> u64 {
        self.tallies.borrow().get(&tag).map_or(0, |tally| tally.names.len() as u64)
    }

    fn report(&self, tag: u8, done: bool) -> serde_json::Value {
        let tallies = self.tallies.borrow();
        let none = Tally::default();
        let tally = tallies.get(&tag).unwrap_or(&none);
        json!({
            "done": done,
            "messages": tally.messages,
            "distinct": tally.names.len(),
            "bytes": tally.bytes,
            "first_us": tally.first_us,
            "last_us": tally.last_us,
            "connections": self.connections.get(),
            "handshakes": self.handshakes.get(),
        })
    }
}
