//! One session: drives the server machine over a stream.

use crate::{
    intake::{Incoming, Intake, Refusal, message},
    mail::MailData,
    smtp::{Action, Server, server::Transaction},
    wire::{Stream, TlsAccept},
};
use std::{io, net::IpAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// Read at once while commands come: sessions mostly wait, and should weigh little.
const COMMANDS: usize = 4 * 1024;
/// The content of a message may take this many idle time-outs.
const PATIENCE: u32 = 10;

/// How long a client may be silent before its content once the gateway is to stop.
const FAREWELL: Duration = Duration::from_secs(2);

/// Whether the session goes on.
#[derive(PartialEq)]
enum Flow {
    On,
    Over,
}

/// What waiting brought.
enum Heard {
    Bytes(usize),
    Closed,
    Nothing,
    /// The session has lasted long enough.
    Old,
    Stop,
}

pub(super) struct Session<'a> {
    intake: &'a Intake,
    server: Server,
    stream: Box<dyn Stream>,
    client: IpAddr,
    tls: Option<Arc<dyn TlsAccept>>,
    idle: Duration,
    /// When the session is to end, unless a transaction is open.
    end: Instant,
    retired: bool,
    /// The message in transfer, and when its time is over.
    message: Option<(Incoming, Instant)>,
    replies: Vec<u8>,
    buffer: Vec<u8>,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        intake: &'a Intake,
        server: Server,
        stream: Box<dyn Stream>,
        client: IpAddr,
        tls: Option<Arc<dyn TlsAccept>>,
    ) -> Self {
        let idle = intake.settings.idle_timeout.unsigned_abs();
        let end = Instant::now() + intake.settings.max_session_time.unsigned_abs();
        Self {
            intake,
            server,
            stream,
            client,
            tls,
            idle,
            end,
            retired: false,
            message: None,
            replies: Vec::new(),
            buffer: Vec::new(),
        }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut stopping = false;
        loop {
            self.server.set_pressure(self.intake.door.pressure().map(message::reply));
            if !self.retired && Instant::now() >= self.end {
                self.retire();
            }
            match self.act().await {
                Ok(Flow::On) => {}
                Ok(Flow::Over) => return,
                Err(error) => {
                    tracing::debug!(client = %self.client, %error, "connection lost");
                    return;
                }
            }
            match self.listen(&stop, stopping).await {
                Heard::Bytes(length) => {
                    self.server.receive(self.buffer.get(..length).unwrap_or_default());
                }
                Heard::Closed => return,
                Heard::Nothing => self.server.timed_out(),
                Heard::Old => self.retire(),
                Heard::Stop => {
                    stopping = true;
                    self.server.shut_down();
                }
            }
        }
    }

    fn retire(&mut self) {
        self.retired = true;
        self.server.retire();
    }

    /// Does what the machine asks until it needs more bytes; what it says goes out together (RFC
    /// 2920 §3.2).
    async fn act(&mut self) -> io::Result<Flow> {
        while let Some(action) = self.server.poll() {
            match action {
                Action::Send(bytes) => self.replies.extend_from_slice(&bytes),
                Action::StartTls => {
                    self.flush().await?;
                    self.start_tls().await?;
                }
                Action::Begin(transaction) => self.begin(*transaction).await,
                Action::Content(content) => self.content(&content).await,
                Action::End => self.end().await,
                Action::Abort => self.message = None,
                Action::Close => {
                    self.flush().await?;
                    let _ = timeout(self.idle, self.stream.shutdown()).await;
                    return Ok(Flow::Over);
                }
            }
        }
        self.flush().await?;
        Ok(Flow::On)
    }

    async fn listen(&mut self, stop: &CancellationToken, stopping: bool) -> Heard {
        let size = self.message.as_ref().map_or(COMMANDS, |(incoming, _)| incoming.portion());
        if self.buffer.len() != size {
            self.buffer = vec![0; size];
        }
        let idle = match self.message {
            None if stopping => self.idle.min(FAREWELL),
            None | Some(_) => self.idle,
        };
        let silence = Instant::now() + idle;
        let due = match &self.message {
            Some((_, end)) => silence.min(*end),
            None if self.retired => silence,
            None => silence.min(self.end),
        };
        tokio::select! {
            biased;
            () = stop.cancelled(), if !stopping => Heard::Stop,
            read = timeout_at(due, self.stream.read(&mut self.buffer)) => match read {
                Ok(Ok(0) | Err(_)) => Heard::Closed,
                Ok(Ok(length)) => Heard::Bytes(length),
                Err(_) if due < silence && self.message.is_none() => Heard::Old,
                Err(_) => Heard::Nothing,
            },
        }
    }

    /// Writes the replies gathered. A client that takes none of them is lost.
    async fn flush(&mut self) -> io::Result<()> {
        if self.replies.is_empty() {
            return Ok(());
        }
        let writing = async {
            self.stream.write_all(&self.replies).await?;
            self.stream.flush().await
        };
        timeout(self.idle, writing).await.map_err(|_| io::ErrorKind::TimedOut)??;
        self.replies.clear();
        Ok(())
    }

    /// RFC 3207 §4.2: what was known of the client before is forgotten, by the machine.
    async fn start_tls(&mut self) -> io::Result<()> {
        let Some(tls) = self.tls.clone() else {
            return Err(io::Error::other("STARTTLS was not offered"));
        };
        // A stream that says nothing stands in while the real one is in the handshake.
        let plain = std::mem::replace(
            &mut self.stream,
            Box::new(tokio::io::join(tokio::io::empty(), tokio::io::sink())),
        );
        let accepted = timeout(self.idle, tls.accept(plain)).await;
        let (stream, description) = accepted.map_err(|_| io::ErrorKind::TimedOut)??;
        self.stream = stream;
        self.server.tls_started(&description);
        Ok(())
    }

    async fn begin(&mut self, transaction: Transaction) {
        let tls = self.server.tls().map(str::to_owned);
        let envelope = message::envelope(transaction, self.client, tls.as_deref());
        match self.intake.door.begin(envelope).await {
            Ok(incoming) => {
                let end = Instant::now() + self.idle * PATIENCE;
                self.message = Some((incoming, end));
            }
            Err(refusal) => self.server.refuse(message::reply(refusal)),
        }
    }

    async fn content(&mut self, content: &MailData) {
        let Some((incoming, _)) = &mut self.message else { return };
        if let Err(refusal) = incoming.write(content).await {
            self.message = None;
            self.server.refuse(message::reply(refusal));
        }
    }

    async fn end(&mut self) {
        let Some((incoming, _)) = self.message.take() else {
            return self.server.refuse(message::reply(Refusal::NotStored));
        };
        // While it waits for the disk, nothing is read.
        self.buffer = Vec::new();
        match incoming.commit(None).await {
            Ok(id) => self.server.accepted(id),
            Err(refusal) => self.server.refuse(message::reply(refusal)),
        }
    }
}
