//! A mail host that keeps every byte it was sent, in the clear: what an eavesdropper at a
//! stranger's server would see. It can offer STARTTLS, refuse, and count.

use super::pki::Leaf;
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How it behaves.
#[derive(Debug, Clone, Default)]
pub struct Manner {
    /// Offers STARTTLS with this certificate.
    pub tls: Option<Leaf>,
    /// Offers STARTTLS in a way of its own.
    pub starttls: Option<Offer>,
    /// Answers RCPT with this instead of 250.
    pub rcpt: Option<String>,
    /// Counts content instead of keeping it.
    pub count_only: bool,
    /// Offers REQUIRETLS, inside TLS.
    pub requiretls: bool,
    /// What it does after it has taken a message.
    pub after: After,
    /// Says of each recipient, and of how often it was named before, with what RCPT is answered
    /// instead of 250. A host with such a judge keeps messages, and no bytes beside them.
    pub judge: Option<fn(&str, u32) -> Option<&'static str>>,
    /// Says of a message's first recipient, and of how many messages it was sent before, with what
    /// the content is answered instead of 250. It is kept all the same.
    pub forge: Option<fn(&str, usize) -> Option<&'static str>>,
}

/// What a host does with a connection that has brought a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum After {
    /// Takes the next.
    #[default]
    Stays,
    /// Answers the next command with 421 and closes.
    Closes,
    /// Closes without a word.
    Vanishes,
}

/// Ways to offer STARTTLS.
#[derive(Debug, Clone)]
pub enum Offer {
    /// With this configuration of TLS.
    As(Arc<ServerConfig>),
    /// Offers it, and answers STARTTLS with this.
    Refused(&'static str),
    /// A middlebox has crossed the keyword out, and answers STARTTLS for the host (RFC 3207 §6 tells
    /// of this attack).
    Stripped,
    /// Somebody else at this address speaks TLS for it.
    By(SocketAddr),
    /// Somebody on the way adds words to the reply that opens TLS (CVE-2011-0411, seen from the other
    /// side).
    Injected(Arc<ServerConfig>),
}

/// Content of other people's mail that it saw: lines after DATA, whole messages or not. Notices (from
/// nobody) are no such content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// Bytes in all.
    pub bytes: u64,
    /// Bytes that anybody on the way could read.
    pub clear: u64,
}

/// A message it was given.
#[derive(Debug, Clone)]
pub struct Received {
    pub from: String,
    pub to: Vec<String>,
    pub content: Vec<u8>,
    pub over_tls: bool,
    pub size: u64,
    /// Which connection of this host it came over, counted from 0.
    pub connection: u64,
    /// When it was whole, just before the reply.
    pub at: Instant,
}

#[derive(Debug, Default)]
struct Kept {
    messages: Mutex<Vec<Received>>,
    bytes: Mutex<Vec<u8>>,
    counted: Mutex<Counted>,
    streams: Mutex<Vec<TcpStream>>,
    /// How often each recipient was named.
    named: Mutex<HashMap<String, u32>>,
    connections: AtomicU64,
    whole: AtomicU64,
}

/// A running mail host.
#[derive(Debug)]
pub struct Sink {
    pub address: SocketAddr,
    kept: Arc<Kept>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    pub fn start(address: SocketAddr, manner: Manner) -> Self {
        let listener = TcpListener::bind(address).expect("the sink's address is free");
        let address = listener.local_addr().expect("bound");
        let kept = Arc::new(Kept::default());
        let stop = Arc::new(AtomicBool::new(false));
        let offer = manner.tls.as_ref().map(|leaf| Offer::As(server_config(leaf)));
        let offer = manner.starttls.clone().or(offer);
        let thread = {
            let (kept, stop) = (Arc::clone(&kept), Arc::clone(&stop));
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let Ok(stream) = stream else { continue };
                    let clone = stream.try_clone().expect("a handle");
                    kept.streams.lock().expect("lock").push(clone);
                    let (kept, manner, offer) = (Arc::clone(&kept), manner.clone(), offer.clone());
                    std::thread::spawn(move || {
                        let end = stream.try_clone().expect("a handle");
                        drop(session(stream, &kept, &manner, offer.as_ref()));
                        drop(end.shutdown(Shutdown::Both));
                    });
                }
            })
        };
        Self { address, kept, stop, thread: Some(thread) }
    }

    pub fn messages(&self) -> Vec<Received> {
        self.kept.messages.lock().expect("lock").clone()
    }

    /// How many messages it was given.
    pub fn count(&self) -> u64 {
        self.kept.whole.load(Ordering::Relaxed)
    }

    /// Every byte that reached it, TLS taken off.
    pub fn bytes(&self) -> Vec<u8> {
        self.kept.bytes.lock().expect("lock").clone()
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.kept.streams.lock().expect("lock").len()
    }

    /// How much content it saw.
    pub fn counted(&self) -> Counted {
        *self.kept.counted.lock().expect("lock")
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
        // A host that is gone takes nothing more over its old connections either.
        for stream in self.kept.streams.lock().expect("lock").iter() {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

pub fn server_config(leaf: &Leaf) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(&leaf.chain).expect("chain");
    let chain: Vec<_> = chain.collect::<Result<_, _>>().expect("chain");
    let key = PrivateKeyDer::from_pem_file(&leaf.key).expect("key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("certificate");
    Arc::new(config)
}

fn session(
    stream: TcpStream,
    kept: &Kept,
    manner: &Manner,
    offer: Option<&Offer>,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    let mut plain = stream.try_clone()?;
    plain.write_all(b"220 sink.test ESMTP\r\n")?;
    let mut reader = BufReader::new(stream);
    let kept = Visit { kept, connection: kept.connections.fetch_add(1, Ordering::Relaxed) };
    if !talk(&mut reader, &mut plain, kept, manner, offer, false)? {
        return Ok(());
    }
    match offer {
        Some(Offer::As(config) | Offer::Injected(config)) => {
            let connection = ServerConnection::new(Arc::clone(config)).expect("TLS");
            let shared = Shared(Arc::new(Mutex::new(StreamOwned::new(connection, plain))));
            let mut reader = BufReader::new(shared.clone());
            let mut writer = shared;
            talk(&mut reader, &mut writer, kept, manner, None, true).map(drop)
        }
        Some(Offer::By(address)) => pass_on(&plain, *address),
        Some(Offer::Refused(_) | Offer::Stripped) | None => Ok(()),
    }
}

/// Passes bytes on in both directions until one side ends.
fn pass_on(peer: &TcpStream, other: SocketAddr) -> std::io::Result<()> {
    let other = TcpStream::connect(other)?;
    let (mut from, mut to) = (peer.try_clone()?, other.try_clone()?);
    let there = std::thread::spawn(move || {
        drop(std::io::copy(&mut from, &mut to));
        drop(to.shutdown(Shutdown::Write));
    });
    drop(std::io::copy(&mut &other, &mut &*peer));
    drop(peer.shutdown(Shutdown::Both));
    drop(there.join());
    Ok(())
}

/// One connection's view of what is kept.
#[derive(Clone, Copy)]
struct Visit<'a> {
    kept: &'a Kept,
    connection: u64,
}

impl Visit<'_> {
    fn bytes(&self, manner: &Manner, bytes: &[u8]) {
        if manner.judge.is_none() {
            self.kept.bytes.lock().expect("lock").extend_from_slice(bytes);
        }
    }

    /// The reply to RCPT, if it is not 250.
    fn judged(&self, manner: &Manner, path: &str) -> Option<String> {
        let Some(judge) = manner.judge else { return manner.rcpt.clone() };
        let address = path.split(['<', '>']).nth(1).unwrap_or(path);
        let mut named = self.kept.named.lock().expect("lock");
        let before = named.entry(address.to_owned()).or_default();
        *before += 1;
        judge(address, *before - 1).map(str::to_owned)
    }

    /// Keeps a message; the reply to its content.
    fn message(&self, manner: &Manner, message: Received) -> &'static str {
        let mut kept = self.kept.messages.lock().expect("lock");
        let to = message.to.first();
        let forged = manner.forge.zip(to).and_then(|(forge, to)| {
            let before = kept.iter().filter(|m| m.to.first() == Some(to)).count();
            forge(to, before)
        });
        kept.push(message);
        self.kept.whole.fetch_add(1, Ordering::Relaxed);
        forged.unwrap_or("250 2.0.0 kept")
    }
}

/// Both directions of a TLS stream; the dialogue is strictly in turn.
#[derive(Clone)]
struct Shared(Arc<Mutex<StreamOwned<ServerConnection, TcpStream>>>);

impl Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.lock().expect("lock").read(buffer)
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("lock").write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.0.lock().expect("lock").flush()
    }
}

/// Speaks until QUIT, the end, or STARTTLS (then true).
fn talk(
    reader: &mut impl BufRead,
    writer: &mut impl Write,
    kept: Visit<'_>,
    manner: &Manner,
    offer: Option<&Offer>,
    over_tls: bool,
) -> std::io::Result<bool> {
    let (mut from, mut to, mut after) = (String::new(), Vec::new(), After::Stays);
    loop {
        let mut line = String::new();
        if after == After::Vanishes {
            return Ok(false);
        }
        if reader.read_line(&mut line)? == 0 {
            return Ok(false);
        }
        kept.bytes(manner, line.as_bytes());
        let upper = line.trim_end().to_ascii_uppercase();
        if after == After::Closes {
            writer.write_all(b"421 4.3.2 one is enough\r\n")?;
            writer.flush()?;
            return Ok(false);
        }
        let reply: String = if upper.starts_with("EHLO") {
            offers(offer, over_tls && manner.requiretls)
        } else if upper == "STARTTLS" {
            let (reply, ahead) = starttls(offer);
            if ahead {
                writer.write_all(reply.as_bytes())?;
                return Ok(true);
            }
            reply
        } else if upper.starts_with("MAIL FROM:") {
            from = line[10..].trim().to_owned();
            to.clear();
            "250 2.1.0 ok\r\n".to_owned()
        } else if upper.starts_with("RCPT TO:") {
            let path = line[8..].trim();
            match kept.judged(manner, path) {
                Some(reply) => format!("{reply}\r\n"),
                None => {
                    to.push(path.to_owned());
                    "250 2.1.5 ok\r\n".to_owned()
                }
            }
        } else if upper == "DATA" {
            if to.is_empty() {
                "554 5.5.1 no valid recipients\r\n".to_owned()
            } else {
                writer.write_all(b"354 go on\r\n")?;
                let theirs = from != "<>" && !from.starts_with("<> ");
                let (content, size) = content(reader, kept, manner, theirs, over_tls)?;
                let to = std::mem::take(&mut to);
                let (from, connection, at) = (from.clone(), kept.connection, Instant::now());
                let message = Received { from, to, content, over_tls, size, connection, at };
                after = manner.after;
                format!("{}\r\n", kept.message(manner, message))
            }
        } else if upper == "QUIT" {
            writer.write_all(b"221 2.0.0 bye\r\n")?;
            return Ok(false);
        } else {
            "250 2.0.0 ok\r\n".to_owned()
        };
        writer.write_all(reply.as_bytes())?;
        writer.flush()?;
    }
}

/// The reply to STARTTLS, and whether TLS follows.
fn starttls(offer: Option<&Offer>) -> (String, bool) {
    match offer {
        Some(Offer::As(_) | Offer::By(_)) => ("220 2.0.0 go ahead\r\n".to_owned(), true),
        Some(Offer::Injected(_)) => {
            ("220 2.0.0 go ahead\r\n250 2.0.0 and more\r\n".to_owned(), true)
        }
        Some(Offer::Refused(reply)) => (format!("{reply}\r\n"), false),
        Some(Offer::Stripped) | None => ("500 5.5.1 command unrecognized\r\n".to_owned(), false),
    }
}

/// The reply to EHLO.
fn offers(offer: Option<&Offer>, requiretls: bool) -> String {
    let starttls = match offer {
        Some(Offer::As(_) | Offer::By(_) | Offer::Injected(_) | Offer::Refused(_)) => {
            "250-STARTTLS\r\n"
        }
        Some(Offer::Stripped) => "250-XXXXXXXX\r\n",
        None => "",
    };
    let require = if requiretls { "250-REQUIRETLS\r\n" } else { "" };
    format!(
        "250-sink.test\r\n{starttls}{require}250-8BITMIME\r\n250-SMTPUTF8\r\n250 PIPELINING\r\n"
    )
}

fn content(
    reader: &mut impl BufRead,
    kept: Visit<'_>,
    manner: &Manner,
    theirs: bool,
    over_tls: bool,
) -> std::io::Result<(Vec<u8>, u64)> {
    let (mut content, mut size) = (Vec::new(), 0);
    loop {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Err(std::io::Error::other("the connection ended inside the content"));
        }
        if line == b".\r\n" {
            return Ok((content, size));
        }
        let line = line.strip_prefix(b".").unwrap_or(&line);
        size += line.len() as u64;
        if theirs {
            let mut counted = kept.kept.counted.lock().expect("lock");
            counted.bytes += line.len() as u64;
            counted.clear += if over_tls { 0 } else { line.len() as u64 };
        }
        if !manner.count_only {
            kept.bytes(manner, line);
            content.extend_from_slice(line);
        }
    }
}
