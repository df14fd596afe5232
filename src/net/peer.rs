//! One SMTP session as client: drives [`Client`] over a stream, with the time-outs of RFC 5321
//! §4.5.3.2.

use crate::{
    net::{bounded, connect::Timeouts},
    policy::PeerFacts,
    smtp::{Client, ClientAction, ClientError, ClientTransaction, RecipientReply},
    wire::{Peer, SendError, Source, Stream},
};
use async_trait::async_trait;
use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadBuf},
    time::{Instant, timeout, timeout_at},
};

/// Content gathered before it is written.
const BLOCK: usize = 128 * 1024;
/// Replies are read in portions of this.
const PORTION: usize = 8 * 1024;
/// A step of several replies (pipelined recipients) may take this many of its time-outs, so that a
/// peer that sends a byte now and then does not hold us for ever.
const PATIENCE: u32 = 6;

/// Why a session goes no further.
#[derive(Debug)]
pub(super) enum Stop {
    /// The machine says so.
    Client(ClientError),
    /// The peer said nothing in time.
    TimedOut(&'static str),
    /// The machine asks for what has no place here.
    Unexpected,
}

impl Stop {
    fn closed() -> Self {
        Self::Client(ClientError::Closed("the connection ended".into()))
    }

    pub(super) fn text(&self) -> String {
        match self {
            Self::Client(error) => bounded(&error.to_string()),
            Self::TimedOut(phase) => format!("no reply in time ({phase})"),
            Self::Unexpected => "the session came out of step".into(),
        }
    }
}

/// An answer for each recipient that came before the end of the content.
type Early = Option<Vec<RecipientReply>>;

/// How far a write came.
struct Written {
    /// All of it was taken by the stream.
    whole: bool,
    trouble: Option<String>,
}

/// The stream and the machine.
pub(super) struct Session {
    pub(super) client: Client,
    stream: Box<dyn Stream>,
    timeouts: Timeouts,
    closed: bool,
    /// The stream's own error, once it broke.
    broken: Option<String>,
}

impl Session {
    pub(super) fn new(client: Client, stream: Box<dyn Stream>, timeouts: Timeouts) -> Self {
        Self { client, stream, timeouts, closed: false, broken: None }
    }

    /// What broke the stream, if it did not just end: inside TLS, the alert that came.
    pub(super) fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    fn note(&mut self, error: &io::Error) -> String {
        let text = bounded(&error.to_string());
        self.broken.get_or_insert_with(|| text.clone());
        text
    }

    pub(super) fn greeting_limit(&self) -> Duration {
        self.timeouts.greeting
    }

    /// The parts, for the handshake. The machine has seen to it that nothing is left unread.
    pub(super) fn into_parts(self) -> (Client, Box<dyn Stream>, Timeouts) {
        (self.client, self.stream, self.timeouts)
    }

    /// Goes on until the machine asks for something other than bytes.
    pub(super) async fn step(
        &mut self,
        each: Duration,
        phase: &'static str,
    ) -> Result<ClientAction, Stop> {
        let end = Instant::now() + each * PATIENCE;
        loop {
            match self.client.poll() {
                Some(ClientAction::Send(bytes)) => {
                    if let Some(text) = self.write(&bytes, each).await.trouble {
                        // A peer that closes often says why first.
                        return self.last_words(text).await.map(ClientAction::Done);
                    }
                }
                Some(ClientAction::Failed(error)) => return Err(Stop::Client(error)),
                Some(
                    action @ (ClientAction::Ready
                    | ClientAction::StartTls
                    | ClientAction::SendContent
                    | ClientAction::Done(_)),
                ) => return Ok(action),
                None if self.closed => return Err(Stop::closed()),
                None => {
                    let due = end.min(Instant::now() + each);
                    timeout_at(due, self.read()).await.map_err(|_| Stop::TimedOut(phase))?;
                }
            }
        }
    }

    /// Reads a portion into the machine; a closed connection is told to it too.
    async fn read(&mut self) {
        let mut buffer = [0; PORTION];
        match self.stream.read(&mut buffer).await {
            Ok(0) => self.end(),
            Err(error) => {
                self.note(&error);
                self.end();
            }
            Ok(length) => self.client.receive(buffer.get(..length).unwrap_or_default()),
        }
    }

    fn end(&mut self) {
        self.closed = true;
        self.client.closed();
    }

    /// After a failed write: what the peer had said before it closed, which may be an answer for
    /// each recipient.
    async fn last_words(&mut self, text: String) -> Result<Vec<RecipientReply>, Stop> {
        let limit = self.timeouts.quit;
        let listening = async {
            loop {
                match self.client.poll() {
                    Some(ClientAction::Done(replies)) => return Ok(replies),
                    Some(ClientAction::Failed(error)) => return Err(Stop::Client(error)),
                    Some(ClientAction::Send(_)) => {}
                    Some(
                        ClientAction::Ready | ClientAction::StartTls | ClientAction::SendContent,
                    ) => return Err(Stop::Unexpected),
                    None if self.closed => return Err(Stop::closed()),
                    None => self.read().await,
                }
            }
        };
        let said = timeout(limit, listening).await;
        said.unwrap_or(Err(Stop::Client(ClientError::Closed(text))))
    }

    async fn write(&mut self, bytes: &[u8], limit: Duration) -> Written {
        let mut done = 0;
        let outcome = timeout(limit, write_watching(&mut *self.stream, bytes, &mut done)).await;
        let whole = done == bytes.len();
        match outcome {
            Ok(Ok(early)) => {
                if !early.is_empty() {
                    self.client.receive(&early);
                }
                Written { whole, trouble: None }
            }
            Ok(Err((early, error))) => {
                self.client.receive(&early);
                Written { whole, trouble: Some(self.note(&error)) }
            }
            Err(_) => Written { whole, trouble: Some("the peer takes no more bytes".into()) },
        }
    }

    /// Sends the content, blocks gathered, the final dot in the last of them. `Some`: the peer
    /// answered for all recipients before the end.
    async fn content(&mut self, content: &mut dyn Source) -> Result<Early, SendError> {
        let mut out = Vec::new();
        loop {
            match content.next().await {
                Ok(Some(piece)) => self.client.content(&piece, &mut out),
                Ok(None) => break,
                Err(text) => {
                    // Without the final dot the peer must drop what it has (RFC 5321 §4.1.1.4).
                    self.client.abandon();
                    return Err(SendError { text: bounded(&text), after_content: false });
                }
            }
            if out.len() >= BLOCK {
                let early = self.block(&out).await?;
                out.clear();
                if early.is_some() {
                    return Ok(early);
                }
            }
        }
        self.client.content_end(&mut out);
        self.last_block(&out).await
    }

    async fn block(&mut self, bytes: &[u8]) -> Result<Early, SendError> {
        let lost = |text: String| SendError { text, after_content: false };
        let written = self.write(bytes, self.timeouts.block).await;
        if let Some(text) = written.trouble {
            return self.last_words(text).await.map(Some).map_err(|stop| lost(stop.text()));
        }
        match self.client.poll() {
            None => Ok(None),
            Some(ClientAction::Done(replies)) => Ok(Some(replies)),
            Some(ClientAction::Failed(error)) => Err(lost(Stop::Client(error).text())),
            Some(
                ClientAction::Ready
                | ClientAction::StartTls
                | ClientAction::SendContent
                | ClientAction::Send(_),
            ) => Err(lost(Stop::Unexpected.text())),
        }
    }

    async fn last_block(&mut self, bytes: &[u8]) -> Result<Early, SendError> {
        let written = self.write(bytes, self.timeouts.block).await;
        let Some(text) = written.trouble else { return Ok(None) };
        let lost = |text: String| SendError { text, after_content: written.whole };
        let replies = self.last_words(text.clone()).await.map_err(|stop| lost(stop.text()))?;
        // Nobody can have taken a message whose end was not sent.
        if !written.whole && replies.iter().any(|reply| reply.delivered) {
            return Err(lost(text));
        }
        Ok(Some(replies))
    }

    async fn transaction(
        &mut self,
        transaction: ClientTransaction,
        content: &mut dyn Source,
    ) -> Result<Vec<RecipientReply>, SendError> {
        self.client.begin(transaction);
        let mut sent = false;
        loop {
            let (limit, phase) = if sent {
                (self.timeouts.dot, "the end of data")
            } else {
                (self.timeouts.command, "MAIL, RCPT or DATA")
            };
            let lost = |stop: &Stop| SendError { text: stop.text(), after_content: sent };
            match self.step(limit, phase).await.map_err(|stop| lost(&stop))? {
                ClientAction::SendContent if !sent => {
                    if let Some(replies) = self.content(content).await? {
                        return Ok(replies);
                    }
                    sent = true;
                }
                ClientAction::Done(replies) => return Ok(replies),
                ClientAction::Ready
                | ClientAction::StartTls
                | ClientAction::SendContent
                | ClientAction::Send(_)
                | ClientAction::Failed(_) => return Err(lost(&Stop::Unexpected)),
            }
        }
    }

    /// True if nothing is open or unheard: looks without waiting.
    fn is_ready(&mut self) -> bool {
        let mut space = [0; 512];
        let mut space = ReadBuf::new(&mut space);
        let mut context = Context::from_waker(Waker::noop());
        match Pin::new(&mut *self.stream).poll_read(&mut context, &mut space) {
            Poll::Pending => {}
            // Closed, broken, or a word that nobody asked for (RFC 5321 §3.8: a 421).
            Poll::Ready(_) => self.end(),
        }
        !self.closed && self.client.is_ready()
    }

    /// QUIT, its reply if it comes soon, and the end.
    pub(super) async fn quit(mut self) {
        let limit = self.timeouts.quit;
        self.client.quit();
        let farewell = async {
            while let Some(ClientAction::Send(bytes)) = self.client.poll() {
                if self.stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            let _ = self.stream.flush().await;
            let mut reply = [0; 512];
            let _ = self.stream.read(&mut reply).await;
            let _ = self.stream.shutdown().await;
        };
        let _ = timeout(limit, farewell).await;
    }
}

/// Writes and flushes, and looks at what the peer says meanwhile: an early reply or a close is
/// noticed, and neither side waits for the other to read. `done` counts what the stream took, also
/// when it fails.
async fn write_watching(
    stream: &mut dyn Stream,
    bytes: &[u8],
    done: &mut usize,
) -> Result<Vec<u8>, (Vec<u8>, io::Error)> {
    let mut early = Vec::new();
    let outcome = poll_fn(|cx| {
        let flushed = match poll_write_all(stream, cx, bytes, done) {
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => true,
            Poll::Pending => false,
        };
        match poll_listen(stream, cx, &mut early) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending if flushed => Poll::Ready(Ok(())),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    })
    .await;
    match outcome {
        Ok(()) => Ok(early),
        Err(error) => Err((early, error)),
    }
}

fn poll_write_all(
    stream: &mut dyn Stream,
    cx: &mut Context<'_>,
    bytes: &[u8],
    done: &mut usize,
) -> Poll<io::Result<()>> {
    let mut stream = Pin::new(stream);
    loop {
        let rest = bytes.get(*done..).unwrap_or_default();
        if rest.is_empty() {
            return stream.poll_flush(cx);
        }
        match ready!(stream.as_mut().poll_write(cx, rest))? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            length => *done += length,
        }
    }
}

/// Takes what is there, up to a portion; a closed connection is an error.
fn poll_listen(
    stream: &mut dyn Stream,
    cx: &mut Context<'_>,
    early: &mut Vec<u8>,
) -> Poll<io::Result<()>> {
    let mut stream = Pin::new(stream);
    while early.len() < PORTION {
        let mut space = [0; 1024];
        let mut space = ReadBuf::new(&mut space);
        ready!(stream.as_mut().poll_read(cx, &mut space))?;
        if space.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        early.extend_from_slice(space.filled());
    }
    Poll::Ready(Ok(()))
}

/// A connection ready for MAIL.
pub(super) struct Link {
    pub(super) session: Session,
    pub(super) facts: PeerFacts,
}

#[async_trait]
impl Peer for Link {
    fn facts(&self) -> &PeerFacts {
        &self.facts
    }

    async fn send(
        &mut self,
        transaction: ClientTransaction,
        content: &mut dyn Source,
    ) -> Result<Vec<RecipientReply>, SendError> {
        self.session.transaction(transaction, content).await
    }

    fn is_ready(&mut self) -> bool {
        self.session.is_ready()
    }

    async fn quit(self: Box<Self>) {
        self.session.quit().await;
    }
}
