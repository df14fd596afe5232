//! The client machine: delivery's side of SMTP (RFC 5321 §3, §4).

mod envelope;
mod extensions;
#[cfg(test)]
mod tests;

use super::{Reply, data::Stuffer, input::Input, reply::ReplyReader};
use crate::mail::{Address, Domain, RecipientDsn, Ret, ReversePath};
use envelope::{Decisions, Envelope, Progress};
pub use extensions::Extensions;
use std::collections::VecDeque;

/// A transaction to carry out.
#[derive(Debug, Clone)]
pub struct Transaction {
    /// Reverse-path.
    pub sender: ReversePath,
    /// Recipients of one domain.
    pub recipients: Vec<Address>,
    /// Size for SIZE=.
    pub size: u64,
    /// BODY=8BITMIME where offered.
    pub eight_bit: bool,
    /// SMTPUTF8.
    pub smtputf8: bool,
    /// REQUIRETLS.
    pub require_tls: bool,
    /// ENVID where DSN is offered.
    pub envelope_id: Option<String>,
    /// RET where DSN is offered.
    pub ret: Option<Ret>,
    /// NOTIFY and ORCPT of each recipient where DSN is offered, in the order of the recipients; may
    /// be shorter.
    pub recipient_dsn: Vec<RecipientDsn>,
}

/// Where the session failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Greeting other than 220.
    #[error("greeted with {0}")]
    Greeting(Reply),
    /// EHLO and HELO refused.
    #[error("EHLO refused with {0}")]
    Ehlo(Reply),
    /// STARTTLS refused.
    #[error("STARTTLS refused with {0}")]
    StartTls(Reply),
    /// Bytes after the 220 to STARTTLS, before the handshake: injection.
    #[error("plaintext follows the reply to STARTTLS")]
    Injection,
    /// Not SMTP.
    #[error("not an SMTP reply: {0}")]
    Protocol(String),
    /// 421 or the connection closed.
    #[error("the peer closed: {0}")]
    Closed(String),
}

/// The end of a transaction for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipientReply {
    /// The reply that decided: to RCPT, MAIL, DATA or the final dot.
    pub reply: Reply,
    /// True if the content was accepted for this recipient.
    pub delivered: bool,
    /// The server offers DSN: it knows what the sender wants to hear, and reports from here on (RFC
    /// 3461 §5.2.1).
    pub dsn: bool,
}

/// What the driver is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientAction {
    /// Write these bytes.
    Send(Vec<u8>),
    /// Greeting and EHLO are done (again after TLS): [`Client::extensions`] counts now.
    Ready,
    /// TLS handshake as client, then [`Client::tls_started`].
    StartTls,
    /// Content may be sent: feed it through [`Client::content`], then [`Client::content_end`].
    SendContent,
    /// The transaction has ended; a reply for each recipient in order. The session is ready for the
    /// next one, unless `Failed` follows (a 421 ended both).
    Done(Vec<RecipientReply>),
    /// The session is of no more use.
    Failed(ClientError),
}

/// What the wire is, so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    Plain,
    Tls,
}

/// Whether the server may still have an old transaction open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leftover {
    Nothing,
    Transaction,
}

#[derive(Debug)]
enum State {
    /// The 220 is awaited.
    Greeting,
    Ehlo,
    Helo,
    Ready(Leftover),
    /// The reply to STARTTLS is awaited.
    StartTls,
    /// `StartTls` was given.
    Handshake,
    Envelope(Box<Envelope>),
    /// `SendContent` was given.
    Content(Decisions, Stuffer),
    /// The reply to the final dot is awaited.
    Dot(Decisions),
    /// Nobody was accepted and an empty message was sent (RFC 2920 §3.1).
    LoneDot(Vec<RecipientReply>),
    /// Over: nothing is said or heard any more.
    Over,
}

/// Whether more bytes may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Open,
    Closed,
}

/// One session.
#[derive(Debug)]
pub struct Client {
    hostname: Domain,
    layer: Layer,
    peer: Peer,
    extensions: Extensions,
    input: Input,
    replies: ReplyReader,
    state: State,
    actions: VecDeque<ClientAction>,
}

impl Client {
    /// A new session that will greet as `hostname`; waits for the greeting.
    pub fn new(hostname: Domain) -> Self {
        Self {
            hostname,
            layer: Layer::Plain,
            peer: Peer::Open,
            extensions: Extensions::default(),
            input: Input::default(),
            replies: ReplyReader::default(),
            state: State::Greeting,
            actions: VecDeque::new(),
        }
    }

    /// Bytes from the peer.
    pub fn receive(&mut self, bytes: &[u8]) {
        if !matches!(self.state, State::Over) {
            self.input.push(bytes);
        }
    }

    /// The connection was closed by the peer.
    pub fn closed(&mut self) {
        self.peer = Peer::Closed;
    }

    /// The next action, `None`: more bytes are needed.
    pub fn poll(&mut self) -> Option<ClientAction> {
        loop {
            if let Some(action) = self.actions.pop_front() {
                return Some(action);
            }
            match self.state {
                State::Over => return None,
                // RFC 3207 §4.2, CVE-2021-38371's kind: a reply from outside TLS must not be read
                // inside.
                State::Handshake if !self.input.is_empty() => self.fail(ClientError::Injection),
                State::Handshake if self.peer == Peer::Open => return None,
                State::Handshake => self.fail_closed(),
                State::Greeting
                | State::Ehlo
                | State::Helo
                | State::Ready(_)
                | State::StartTls
                | State::Envelope(_)
                | State::Content(..)
                | State::Dot(_)
                | State::LoneDot(_) => match self.replies.next(&mut self.input) {
                    Some(Ok(reply)) => self.heard(reply),
                    Some(Err(trouble)) => self.fail(ClientError::Protocol(trouble)),
                    None if self.peer == Peer::Closed => self.fail_closed(),
                    None => return None,
                },
            }
        }
    }

    /// True between transactions, with nothing unheard or unsaid.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready(_))
            && self.peer == Peer::Open
            && self.actions.is_empty()
            && self.input.is_empty()
            && !self.replies.is_within()
    }

    /// What the last EHLO offered. Facts from before TLS are forgotten at STARTTLS (RFC 3207 §4.2).
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// Ready: ask for TLS (RFC 3207 §4).
    pub fn start_tls(&mut self) {
        if !matches!(self.state, State::Ready(_)) || self.layer == Layer::Tls {
            return self.misused();
        }
        // A reply that came before its question was put there for the next one.
        if !self.input.is_empty() || self.replies.is_within() {
            return self.fail(ClientError::Injection);
        }
        self.send("STARTTLS");
        self.state = State::StartTls;
    }

    /// TLS is up: EHLO again (RFC 3207 §4.2).
    pub fn tls_started(&mut self) {
        if !matches!(self.state, State::Handshake) {
            return self.misused();
        }
        if !self.input.is_empty() {
            return self.fail(ClientError::Injection);
        }
        self.layer = Layer::Tls;
        self.extensions = Extensions::default();
        self.replies = ReplyReader::default();
        self.say_ehlo();
    }

    /// Ready: begin a transaction (pipelined where offered).
    pub fn begin(&mut self, transaction: Transaction) {
        let State::Ready(leftover) = self.state else { return self.misused() };
        if transaction.recipients.is_empty() {
            self.actions.push_back(ClientAction::Done(Vec::new()));
            return;
        }
        let reset_first = leftover == Leftover::Transaction;
        let envelope = Envelope::new(transaction, &self.extensions, reset_first);
        self.follow(envelope.send());
    }

    /// Dot-stuffs content; appends wire bytes to `out`, which have CRLF line ends and no NUL whatever
    /// the content has. If the session has failed meanwhile nothing is appended: poll.
    pub fn content(&mut self, content: &[u8], out: &mut Vec<u8>) {
        if let State::Content(_, stuffer) = &mut self.state {
            stuffer.push(content, out);
        }
    }

    /// Content has ended: appends the final dot (adding CRLF only if the content did not end with
    /// it).
    pub fn content_end(&mut self, out: &mut Vec<u8>) {
        self.state = match std::mem::replace(&mut self.state, State::Over) {
            State::Content(decisions, stuffer) => {
                stuffer.end(out);
                State::Dot(decisions)
            }
            other @ (State::Greeting
            | State::Ehlo
            | State::Helo
            | State::Ready(_)
            | State::StartTls
            | State::Handshake
            | State::Envelope(_)
            | State::Dot(_)
            | State::LoneDot(_)
            | State::Over) => other,
        };
    }

    /// Sending content has begun and can't be completed (our own trouble): nothing but closing is
    /// left, as any dot would deliver half a message (RFC 5321 §4.1.1.4).
    pub fn abandon(&mut self) {
        self.over();
    }

    /// Ready: RSET before the next transaction is not needed; QUIT (RFC 5321 §4.1.1.10). Its reply
    /// is not waited for. At any other time nothing is said and the session is over.
    pub fn quit(&mut self) {
        let polite = matches!(self.state, State::Ready(_)) && self.peer == Peer::Open;
        self.over();
        if polite {
            self.send("QUIT");
        }
    }

    fn heard(&mut self, reply: Reply) {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Greeting => self.greeted(reply),
            State::Ehlo => self.heard_ehlo(reply),
            State::Helo if reply.is_positive() => self.ready(Extensions::default()),
            State::Helo if reply.code == 421 => self.fail_with_421(&reply),
            State::Helo => self.fail(ClientError::Ehlo(reply)),
            State::StartTls => self.heard_start_tls(reply),
            State::Envelope(envelope) if reply.code == 421 => {
                self.done(envelope.decide(&reply), Leftover::Nothing);
                self.fail_with_421(&reply);
            }
            State::Envelope(envelope) => self.follow(envelope.reply(reply)),
            State::Content(decisions, _) => self.interrupted(decisions, &reply),
            State::Dot(decisions) => self.heard_verdict(decisions, &reply),
            State::LoneDot(replies) => {
                self.done(replies, Leftover::Transaction);
                if reply.code == 421 {
                    self.fail_with_421(&reply);
                }
            }
            // RFC 5321 §3.8: only a 421 may come unasked.
            State::Ready(_) if reply.code == 421 => self.fail_with_421(&reply),
            State::Ready(_) | State::Handshake | State::Over => self.nonsense(&reply),
        }
    }

    /// RFC 5321 §3.1, §4.3.2.
    fn greeted(&mut self, reply: Reply) {
        if reply.code == 220 {
            self.say_ehlo();
        } else {
            self.fail(ClientError::Greeting(reply));
        }
    }

    /// RFC 5321 §3.2: HELO for a server that does not know EHLO; never inside TLS, which only ESMTP
    /// could begin.
    fn heard_ehlo(&mut self, reply: Reply) {
        if reply.is_positive() {
            self.ready(Extensions::parse(&reply));
        } else if reply.code == 421 {
            self.fail_with_421(&reply);
        } else if reply.is_permanent() && self.layer == Layer::Plain {
            self.send(&format!("HELO {}", self.hostname));
            self.state = State::Helo;
        } else {
            self.fail(ClientError::Ehlo(reply));
        }
    }

    /// RFC 3207 §4: 220 and no other goes ahead.
    fn heard_start_tls(&mut self, reply: Reply) {
        if reply.code == 421 {
            self.fail_with_421(&reply);
        } else if reply.code != 220 {
            self.fail(ClientError::StartTls(reply));
        } else if !self.input.is_empty() {
            self.fail(ClientError::Injection);
        } else {
            self.actions.push_back(ClientAction::StartTls);
            self.state = State::Handshake;
        }
    }

    fn follow(&mut self, progress: Progress) {
        match progress {
            Progress::Wait(envelope) => self.state = State::Envelope(Box::new(envelope)),
            Progress::Send(envelope, wire) => {
                self.actions.push_back(ClientAction::Send(wire));
                self.state = State::Envelope(Box::new(envelope));
            }
            Progress::Content(decisions) => {
                self.actions.push_back(ClientAction::SendContent);
                self.state = State::Content(decisions, Stuffer::new());
            }
            Progress::LoneDot(replies) => {
                self.send(".");
                self.state = State::LoneDot(replies);
            }
            Progress::Over(replies) => self.done(replies, Leftover::Transaction),
            Progress::Nonsense(reply) => self.nonsense(&reply),
        }
    }

    /// A reply while content is on its way. A refusal counts, but content can't be ended half-way,
    /// so the session is over; an acceptance of what was not sent is an answer to nothing.
    fn interrupted(&mut self, decisions: Decisions, reply: &Reply) {
        if reply.is_transient() || reply.is_permanent() {
            self.done(decisions.decide(reply), Leftover::Nothing);
            self.fail(ClientError::Closed(format!("in the middle of content: {reply}")));
        } else {
            self.nonsense(reply);
        }
    }

    /// RFC 5321 §4.2.5: 2xx makes the server responsible; nothing else does.
    fn heard_verdict(&mut self, decisions: Decisions, reply: &Reply) {
        if reply.is_intermediate() {
            return self.nonsense(reply);
        }
        self.done(decisions.decide(reply), Leftover::Nothing);
        if reply.code == 421 {
            self.fail_with_421(reply);
        }
    }

    fn ready(&mut self, extensions: Extensions) {
        self.extensions = extensions;
        self.actions.push_back(ClientAction::Ready);
        self.state = State::Ready(Leftover::Nothing);
    }

    fn done(&mut self, replies: Vec<RecipientReply>, leftover: Leftover) {
        self.actions.push_back(ClientAction::Done(replies));
        self.state = State::Ready(leftover);
    }

    fn say_ehlo(&mut self) {
        self.send(&format!("EHLO {}", self.hostname));
        self.state = State::Ehlo;
    }

    fn send(&mut self, line: &str) {
        self.actions.push_back(ClientAction::Send(format!("{line}\r\n").into_bytes()));
    }

    fn fail(&mut self, error: ClientError) {
        self.over();
        self.actions.push_back(ClientAction::Failed(error));
    }

    fn fail_with_421(&mut self, reply: &Reply) {
        self.fail(ClientError::Closed(reply.to_string()));
    }

    fn fail_closed(&mut self) {
        let when =
            if self.replies.is_within() { "in the middle of a reply" } else { self.awaiting() };
        self.fail(ClientError::Closed(when.to_owned()));
    }

    fn nonsense(&mut self, reply: &Reply) {
        self.fail(ClientError::Protocol(format!("out of place: {reply}")));
    }

    fn misused(&mut self) {
        if !matches!(self.state, State::Over) {
            self.fail(ClientError::Protocol("the session was not ready for that".to_owned()));
        }
    }

    fn over(&mut self) {
        self.state = State::Over;
        self.input.clear();
    }

    /// What was going on, for the record of a lost connection.
    fn awaiting(&self) -> &'static str {
        match self.state {
            State::Greeting => "before the greeting",
            State::Ehlo | State::Helo => "after EHLO",
            State::Ready(_) => "between transactions",
            State::StartTls | State::Handshake => "after STARTTLS",
            State::Envelope(_) => "in the envelope",
            State::Content(..) => "in the middle of content",
            State::Dot(_) | State::LoneDot(_) => "after the final dot",
            State::Over => "after the end",
        }
    }
}
