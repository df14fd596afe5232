//! The generator: so many sessions, each sends its next message as soon as the last was answered.

use crate::{Fault, epoch_us, line, only_loopback, tls, wire::Wire};
use clap::Args;
use rustls::pki_types::ServerName;
use serde_json::json;
use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, task::LocalSet};
use tokio_rustls::TlsConnector;

/// Failures of one session in a row after which it gives up.
const FAILURES_MAX: u32 = 20;

#[derive(Debug, Clone, Args)]
pub(crate) struct LoadArguments {
    /// The relay, a loopback address
    #[arg(long)]
    to: SocketAddr,
    /// Sessions at the same time
    #[arg(long, default_value_t = 50)]
    sessions: usize,
    /// Messages that are to be taken, in all
    #[arg(long, default_value_t = 1000)]
    messages: u64,
    /// Bytes of a message
    #[arg(long, default_value_t = 4096)]
    size: usize,
    /// Recipients' domains, d0.sink.test and so on, taken in turn
    #[arg(long, default_value_t = 1)]
    domains: u64,
    /// What recipients' names begin with, a letter: the sink counts each letter by itself
    #[arg(long, default_value_t = 'm')]
    tag: char,
    /// STARTTLS; the relay's certificate must be of this authority (PEM)
    #[arg(long)]
    starttls: Option<PathBuf>,
    /// MAIL, RCPT and DATA in one write (RFC 2920)
    #[arg(long)]
    pipeline: bool,
    /// A new connection for each message
    #[arg(long)]
    reconnect: bool,
    /// The end, however far it got
    #[arg(long, default_value_t = 120)]
    max_seconds: u64,
}

/// What all sessions share.
struct Load {
    arguments: LoadArguments,
    tls: Option<TlsConnector>,
    /// Content behind its header, dot and all.
    body: Vec<u8>,
    /// Messages that may still begin.
    left: Cell<u64>,
    /// The number of the next recipient: none is used twice, also where a message was refused.
    next: Cell<u64>,
    connections: Cell<u64>,
    errors: Cell<u64>,
    first_error: RefCell<Option<String>>,
    /// Microseconds from the final dot to its reply.
    acks: RefCell<Vec<u64>>,
    last_us: Cell<u64>,
}

/// Sends, and prints what was seen as one JSON object.
pub(crate) fn main(arguments: &LoadArguments) -> Result<(), Fault> {
    only_loopback(arguments.to)?;
    let load = Rc::new(Load {
        tls: arguments.starttls.as_deref().map(tls::connector).transpose()?,
        body: body(arguments.size),
        left: Cell::new(arguments.messages),
        next: Cell::new(0),
        connections: Cell::new(0),
        errors: Cell::new(0),
        first_error: RefCell::new(None),
        acks: RefCell::new(Vec::new()),
        last_us: Cell::new(0),
        arguments: arguments.clone(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    let (first_us, begun) = (epoch_us(), Instant::now());
    for _ in 0..arguments.sessions {
        local.spawn_local(session(Rc::clone(&load)));
    }
    let patience = Duration::from_secs(arguments.max_seconds);
    let ended = runtime.block_on(async { tokio::time::timeout(patience, local).await.is_ok() });
    line(&load.report(first_us, begun, ended).to_string());
    Ok(())
}

async fn session(load: Rc<Load>) {
    let mut wire = None;
    let mut failures = 0;
    while failures < FAILURES_MAX && load.begin() {
        match message(&load, &mut wire).await {
            Ok(()) => failures = 0,
            Err(error) => {
                wire = None;
                failures += 1;
                load.failed(&error);
            }
        }
    }
    if let Some(mut wire) = wire {
        drop(wire.send(b"QUIT\r\n").await);
        drop(wire.reply(&mut Vec::new()).await);
    }
}

/// One message, over the connection that stands or a new one.
async fn message(load: &Load, kept: &mut Option<Wire>) -> Result<(), Fault> {
    let mut text = Vec::new();
    let mut wire = match kept.take() {
        Some(wire) => wire,
        None => open(load).await?,
    };
    let number = load.next.replace(load.next.get().saturating_add(1));
    let (tag, domain) = (load.arguments.tag, number.checked_rem(load.arguments.domains));
    let (domain, sink) = (domain.unwrap_or(0), tls::DOMAIN);
    let commands = [
        format!("MAIL FROM:<load@source.test> SIZE={}\r\n", load.arguments.size),
        format!("RCPT TO:<{tag}{number}@d{domain}.{sink}>\r\n"),
        "DATA\r\n".to_owned(),
    ];
    if load.arguments.pipeline {
        wire.send(commands.concat().as_bytes()).await?;
    }
    for (command, code) in commands.iter().zip([250, 250, 354]) {
        if !load.arguments.pipeline {
            wire.send(command.as_bytes()).await?;
        }
        wire.expect(code, &mut text).await?;
    }
    let mut content = header(tag, number, domain).into_bytes();
    if load.body.len() < 1 << 18 {
        content.extend_from_slice(&load.body);
        wire.send(&content).await?;
    } else {
        wire.send(&content).await?;
        wire.send(&load.body).await?;
    }
    let dot = Instant::now();
    wire.expect(250, &mut text).await?;
    load.acknowledged(dot.elapsed());
    if load.arguments.reconnect {
        // The message is taken; how the session ends is no matter.
        drop(wire.send(b"QUIT\r\n").await);
        drop(wire.reply(&mut text).await);
    } else {
        *kept = Some(wire);
    }
    Ok(())
}

async fn open(load: &Load) -> Result<Wire, Fault> {
    let mut text = Vec::new();
    load.connections.set(load.connections.get().saturating_add(1));
    let mut wire = Wire::plain(TcpStream::connect(load.arguments.to).await?)?;
    wire.expect(220, &mut text).await?;
    wire.send(b"EHLO load.source.test\r\n").await?;
    wire.expect(250, &mut text).await?;
    if let Some(connector) = &load.tls {
        wire.send(b"STARTTLS\r\n").await?;
        wire.expect(220, &mut text).await?;
        let name = ServerName::try_from(tls::DOMAIN)?;
        wire = Wire::over(Box::new(connector.connect(name, wire.into_inner()?).await?));
        wire.send(b"EHLO load.source.test\r\n").await?;
        wire.expect(250, &mut text).await?;
    }
    Ok(wire)
}

impl Load {
    /// True if one more message is to be sent.
    fn begin(&self) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        left > 0
    }

    fn failed(&self, error: &Fault) {
        self.left.set(self.left.get().saturating_add(1));
        self.errors.set(self.errors.get().saturating_add(1));
        self.first_error.borrow_mut().get_or_insert_with(|| error.to_string());
    }

    fn acknowledged(&self, after: Duration) {
        let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        self.acks.borrow_mut().push(micros);
        self.last_us.set(epoch_us());
    }

    fn report(&self, first_us: u64, begun: Instant, ended: bool) -> serde_json::Value {
        let mut acks = self.acks.take();
        acks.sort_unstable();
        let last_us = self.last_us.get();
        let seconds = Duration::from_micros(last_us.saturating_sub(first_us)).as_secs_f64();
        json!({
            "messages": acks.len(),
            "errors": self.errors.get(),
            "first_error": *self.first_error.borrow(),
            "connections": self.connections.get(),
            "first_us": first_us,
            "last_us": last_us,
            "seconds": begun.elapsed().as_secs_f64(),
            "per_second": if seconds > 0.0 { acks.len() as f64 / seconds } else { 0.0 },
            "ack_p50_ms": quantile(&acks, 0.5),
            "ack_p99_ms": quantile(&acks, 0.99),
            "ack_max_ms": quantile(&acks, 1.0),
            "ended": ended,
        })
    }
}

/// A quantile of sorted microseconds, in milliseconds.
fn quantile(sorted: &[u64], q: f64) -> f64 {
    let at = (sorted.len().saturating_sub(1) as f64 * q).round() as usize;
    sorted.get(at).copied().unwrap_or(0) as f64 / 1000.0
}

/// A header of about 300 bytes, as a mail program writes it.
fn header(tag: char, number: u64, domain: u64) -> String {
    let sink = tls::DOMAIN;
    format!(
        "From: Load <load@source.test>\r\n\
         To: <{tag}{number}@d{domain}.{sink}>\r\n\
         Subject: message {number}\r\n\
         Date: Tue, 24 Nov 2026 12:00:00 +0000\r\n\
         Message-ID: <{tag}{number}.bench@source.test>\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=us-ascii\r\n\
         \r\n"
    )
}

/// Lines of text that together with a header make the size, and the final dot.
fn body(size: usize) -> Vec<u8> {
    const LINE: &[u8] =
        b"The quick brown fox jumps over the lazy dog, and the dog goes on to sleep.\r\n";
    let room = size.saturating_sub(header('m', 1000, 0).len());
    let mut body: Vec<u8> = LINE.iter().copied().cycle().take(room.saturating_sub(2)).collect();
    body.extend_from_slice(b"\r\n.\r\n");
    body
}
