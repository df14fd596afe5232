//! A mail host of somebody else: takes mail for anybody, over STARTTLS where it has a certificate,
//! and keeps it in memory with every byte that was said to it.

use super::tell::{Failure, Told, within};
use crate::{
    clock::{Clock, SystemClock},
    mail::{
        Address, QueueId,
        parts::{Decoder, Indexer, decode_charset},
    },
    net::listen,
    smtp::{Action, Server, ServerSettings},
    wire::{Stream, TlsAccept},
};
use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::watch,
};
use tokio_util::sync::CancellationToken;

/// Nothing in the demo comes near it.
const LARGEST_MESSAGE: u64 = 10 << 20;

/// A message that has arrived.
#[derive(Debug, Clone)]
pub(super) struct Mail {
    /// Forward-paths.
    pub(super) recipients: Vec<Address>,
    /// TLS version and cipher; `None`: it came in the open.
    pub(super) tls: Option<String>,
    /// What came after DATA.
    pub(super) content: Vec<u8>,
}

impl Mail {
    /// Its text, decoded.
    pub(super) fn text(&self) -> Told<String> {
        let mut indexer = Indexer::default();
        indexer.feed(&self.content);
        let index = indexer.finish();
        let none = || Failure::new("a mail without a text part arrived where a notice should");
        let part = index.text().ok_or_else(none)?;
        let bounds = (usize::try_from(part.body.start), usize::try_from(part.body.end));
        let (Ok(start), Ok(end)) = bounds else { return Err(none()) };
        let body = self.content.get(start..end).ok_or_else(none)?;
        let (mut decoder, mut text) = (Decoder::new(part.encoding), Vec::new());
        decoder.feed(body, &mut text);
        decoder.finish(&mut text);
        Ok(decode_charset(part.charset.as_deref(), &text))
    }

    /// Sent to this address alone.
    pub(super) fn is_for(&self, address: &str) -> bool {
        matches!(self.recipients.as_slice(), [only] if only.to_string() == address)
    }

    /// The code in it, if it is a code mail: eight digits alone on a line.
    pub(super) fn code(&self) -> Option<String> {
        let text = self.text().ok()?;
        let is_code = |line: &&str| line.len() == 8 && line.bytes().all(|b| b.is_ascii_digit());
        text.lines().map(str::trim).find(is_code).map(str::to_owned)
    }
}

/// A running host. It ends with the `stop` it was opened with.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Debug)]
struct Seen {
    mails: watch::Sender<Vec<Mail>>,
    /// What came over the wire; inside TLS, what was inside.
    heard: Mutex<Vec<u8>>,
}

impl Host {
    pub(super) fn open(
        name: &'static str,
        listener: TcpListener,
        tls: Option<Arc<dyn TlsAccept>>,
        stop: CancellationToken,
    ) -> Told<Self> {
        let address = listener.local_addr().map_err(Failure::at(name))?;
        let settings = ServerSettings {
            hostname: name.parse().map_err(Failure::at(name))?,
            postmaster: format!("postmaster@{name}").parse().map_err(Failure::at(name))?,
            max_message_size: LARGEST_MESSAGE,
            max_recipients: 100,
            max_errors: 20,
            starttls: tls.is_some(),
            require_tls: false,
            may_relay: true,
            normalize: false,
        };
        let seen = Arc::new(Seen { mails: watch::Sender::default(), heard: Mutex::default() });
        let keeper = Arc::clone(&seen);
        let session = move |stream, _| {
            let (server, tls) = (Server::new(settings.clone()), tls.clone());
            let session = Session { server, tls, seen: Arc::clone(&keeper), mail: None };
            // A connection that breaks is the gateway's to notice.
            async move { drop(session.run(Box::new(stream)).await) }
        };
        tokio::spawn(listen::serve(listener, session, stop));
        Ok(Self { name, address, seen })
    }

    /// Waits until it has this many mails; all that it has then.
    pub(super) async fn mails(&self, at_least: usize, what: &str) -> Told<Vec<Mail>> {
        let mut mails = self.seen.mails.subscribe();
        let what = format!("{what} at {}", self.name);
        let arrived = within(&what, mails.wait_for(|mails| mails.len() >= at_least)).await?;
        Ok(arrived.map_err(Failure::at(what))?.clone())
    }

    /// The mails so far, and a way to wait for more.
    pub(super) fn watch(&self) -> watch::Receiver<Vec<Mail>> {
        self.seen.mails.subscribe()
    }

    /// Every byte that was said to it.
    pub(super) fn heard(&self) -> Vec<u8> {
        self.seen.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One connection.
struct Session {
    server: Server,
    tls: Option<Arc<dyn TlsAccept>>,
    seen: Arc<Seen>,
    mail: Option<Mail>,
}

/// What is to be done with the connection.
enum Next {
    Read,
    Secure,
    Close,
}

impl Session {
    async fn run(mut self, mut stream: Box<dyn Stream>) -> io::Result<()> {
        let mut portion = vec![0; 16 * 1024];
        loop {
            match self.act(&mut stream).await? {
                Next::Read => {
                    let length = stream.read(&mut portion).await?;
                    if length == 0 {
                        return Ok(());
                    }
                    let bytes = portion.get(..length).unwrap_or_default();
                    let mut heard = self.seen.heard.lock().unwrap_or_else(PoisonError::into_inner);
                    heard.extend_from_slice(bytes);
                    drop(heard);
                    self.server.receive(bytes);
                }
                Next::Secure => {
                    let Some(tls) = &self.tls else { return Ok(()) };
                    let (secured, description) = tls.accept(stream).await?;
                    stream = secured;
                    self.server.tls_started(&description);
                }
                Next::Close => return stream.shutdown().await,
            }
        }
    }

    /// Does what the machine asks until it needs bytes, TLS or an end.
    async fn act(&mut self, stream: &mut Box<dyn Stream>) -> io::Result<Next> {
        while let Some(action) = self.server.poll() {
            match action {
                Action::Send(bytes) => stream.write_all(&bytes).await?,
                Action::Begin(transaction) => {
                    let tls = self.server.tls().map(str::to_owned);
                    let recipients = transaction.recipients;
                    self.mail = Some(Mail { recipients, tls, content: Vec::new() });
                }
                Action::Content(piece) => {
                    if let Some(mail) = &mut self.mail {
                        mail.content.extend_from_slice(&piece);
                    }
                }
                Action::End => self.keep(),
                Action::Abort => self.mail = None,
                Action::StartTls => {
                    stream.flush().await?;
                    return Ok(Next::Secure);
                }
                Action::Close => {
                    stream.flush().await?;
                    return Ok(Next::Close);
                }
            }
        }
        stream.flush().await?;
        Ok(Next::Read)
    }

    fn keep(&mut self) {
        if let Some(mail) = self.mail.take() {
            self.seen.mails.send_modify(|mails| mails.push(mail));
        }
        let millis = u64::try_from(SystemClock.now().as_millisecond()).unwrap_or_default();
        self.server.accepted(QueueId::new(millis, rand::random()));
    }
}
