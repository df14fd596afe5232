//! The server machine: intake's side of SMTP (RFC 5321 §3, §4).

mod commands;
mod content;
mod replies;
#[cfg(test)]
mod tests;

use super::{
    Reply,
    command::ChunkHeader,
    data::{Framer, LineEnds},
    input::Input,
    line::LineReader,
};
use crate::mail::{Address, Domain, MailData, QueueId, RecipientDsn, Ret, ReversePath};
use std::collections::VecDeque;

/// Forward-paths of one transaction at most, in bytes as they are written later on: whatever
/// `max_recipients` says, what is accepted can be sealed and numbered.
pub const MAX_ENVELOPE: usize = 640 * 1024;

/// What a session is told at its beginning.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Name in greeting and EHLO.
    pub hostname: Domain,
    /// Whom `<postmaster>` without a domain means (RFC 5321 §4.5.1): `organization.postmaster`.
    pub postmaster: Address,
    /// `smtp.max_message_size`
    pub max_message_size: u64,
    /// `smtp.max_recipients`
    pub max_recipients: usize,
    /// `smtp.max_errors`
    pub max_errors: u32,
    /// STARTTLS is offered.
    pub starttls: bool,
    /// Mail only over TLS (530 5.7.0).
    pub require_tls: bool,
    /// The client lies in `smtp.clients`; a stranger gets 554 5.7.1 to MAIL and RCPT.
    pub may_relay: bool,
    /// The client lies in `smtp.normalize`: bare CR or LF in data is repaired to CRLF instead of
    /// refused.
    pub normalize: bool,
}

/// A transaction whose content begins: MAIL and at least one RCPT were accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// EHLO argument; characters that do harm in a Received field are `?`.
    pub helo: String,
    /// True after EHLO (ESMTP).
    pub esmtp: bool,
    /// Reverse-path.
    pub sender: ReversePath,
    /// Forward-paths, without repeats.
    pub recipients: Vec<Address>,
    /// NOTIFY and ORCPT of each recipient, in the same order.
    pub recipient_dsn: Vec<RecipientDsn>,
    /// What these weigh together.
    pub(super) dsn_weight: usize,
    /// What the forward-paths weigh together.
    pub(super) envelope_weight: usize,
    /// SIZE= as declared.
    pub declared_size: Option<u64>,
    /// BODY=8BITMIME (or BINARYMIME is refused).
    pub eight_bit: bool,
    /// SMTPUTF8.
    pub smtputf8: bool,
    /// REQUIRETLS (RFC 8689); offered inside TLS only.
    pub require_tls: bool,
    /// RET (RFC 3461 §4.3).
    pub ret: Option<Ret>,
    /// ENVID, decoded.
    pub envelope_id: Option<String>,
}

/// What the driver is to do, in order.
///
/// A message is `Begin`, any number of `Content`, then `End` or `Abort`. The driver may call
/// [`Server::refuse`] at any moment from `Begin` to its answer to `End`: it discards its deposit
/// itself, and neither `Content`, `End` nor `Abort` of that message follow.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Write these bytes. Several may follow each other (PIPELINING): write them together, before
    /// anything is read.
    Send(Vec<u8>),
    /// After everything written so far is flushed: TLS handshake as server, then call
    /// [`Server::tls_started`]. Bytes received in between close the session.
    StartTls,
    /// Content begins. The driver opens a deposit; if that fails it calls [`Server::refuse`] before
    /// it polls again. After DATA this comes before the 354, and a refusal is then the reply to
    /// DATA itself: no content comes (RFC 5321 §4.1.1.4). After BDAT the chunk is on its way: it is
    /// swallowed and then refused (RFC 3030 §2).
    Begin(Box<Transaction>),
    /// Content, dot-unstuffed, at most 64 KiB.
    Content(MailData),
    /// Content has ended well. The driver commits, then calls [`Server::accepted`] or
    /// [`Server::refuse`]; the machine gives nothing further before that.
    End,
    /// The transaction is dropped (a fault in the content, RSET, a new EHLO, QUIT): discard the
    /// deposit. The reply follows by itself, after the content's true end.
    Abort,
    /// Flush and close.
    Close,
}

/// A client that has said its name.
#[derive(Debug, Clone)]
struct Hello {
    name: String,
    esmtp: bool,
}

/// Whom the machine asks before it begins a transaction or takes a recipient: limits that lie beyond
/// one session.
pub trait Gate: Send + std::fmt::Debug {
    /// MAIL is about to be accepted; `Some` refuses it.
    fn mail(&mut self) -> Option<Reply>;
    /// A recipient is about to be accepted, which is kept until the content begins; `Some` refuses
    /// it.
    fn rcpt(&mut self, recipient: &Address) -> Option<Reply>;
    /// Nothing is kept any more of the recipients accepted: the transaction is over, or the driver
    /// has it.
    fn clear(&mut self);
}

/// Between commands.
#[derive(Debug)]
enum Session {
    /// No EHLO yet, or none since TLS began (RFC 3207 §4.2).
    Anonymous,
    /// EHLO or HELO; no transaction.
    Introduced(Hello),
    /// MAIL was accepted; RCPT may have been.
    Envelope(Box<Transaction>),
    /// BDAT without LAST: more chunks are to come.
    Chunked(Box<Body>),
}

/// The machine's state.
#[derive(Debug)]
enum State {
    /// Nothing was said yet.
    Connected,
    /// A command may come.
    Command(Session),
    /// DATA: the driver has its `Begin`, the 354 is due.
    Opening(Hello),
    /// After 354.
    Data(Box<Body>),
    /// Inside a chunk.
    Chunk(Box<Body>, Chunk),
    /// A chunk that belongs to nothing: its octets are skipped, then it gets its reply.
    Skip { remaining: u64, reply: Reply, then: Session },
    /// `End` was given; the driver commits.
    Verdict(Hello),
    /// `StartTls` was given.
    Handshake,
    /// Over.
    Closed,
}

/// Content that is coming in.
#[derive(Debug)]
struct Body {
    hello: Hello,
    framer: Framer,
    deposit: Deposit,
}

/// What became of the driver's deposit.
#[derive(Debug)]
enum Deposit {
    Open,
    /// The content is at fault; `Abort` was given.
    Faulty(Reply),
    /// The driver refused.
    Refused(Reply),
}

/// Octets of a chunk yet to come.
#[derive(Debug)]
struct Chunk {
    remaining: u64,
    header: ChunkHeader,
}

/// One session.
#[derive(Debug)]
pub struct Server {
    settings: ServerSettings,
    tls: Option<String>,
    pressure: Option<Reply>,
    errors: u32,
    gate: Option<Box<dyn Gate>>,
    /// What is said between transactions in place of an answer, once the session is to end.
    ending: Option<Reply>,
    input: Input,
    lines: LineReader,
    state: State,
    actions: VecDeque<Action>,
}

/// Whether a step has changed anything.
enum Step {
    Done(State),
    /// More bytes, or the driver's answer, are needed.
    Waits(State),
}

impl Server {
    /// A new session; the greeting is its first action. Strangers are greeted too, and told at MAIL
    /// (RFC 5321 §3.1 would permit 554 here, but then nobody reads why).
    pub fn new(settings: ServerSettings) -> Self {
        Self {
            settings,
            tls: None,
            pressure: None,
            errors: 0,
            gate: None,
            ending: None,
            input: Input::default(),
            lines: LineReader::default(),
            state: State::Connected,
            actions: VecDeque::new(),
        }
    }

    /// Before MAIL and RCPT are accepted, `gate` is asked.
    #[must_use]
    pub fn with_gate(self, gate: Box<dyn Gate>) -> Self {
        Self { gate: Some(gate), ..self }
    }

    /// Bytes from the client. What is kept is what the driver gave and the machine has not
    /// consumed: a driver that polls until `None` before it reads on, and reads nothing while its
    /// own answer is due, bounds it by its read buffer.
    pub fn receive(&mut self, bytes: &[u8]) {
        match self.state {
            State::Closed => {}
            // RFC 3207 §4.2 and CVE-2011-0411: plaintext where the handshake should be.
            State::Handshake if !bytes.is_empty() => self.close(),
            State::Handshake
            | State::Connected
            | State::Command(_)
            | State::Opening(_)
            | State::Data(_)
            | State::Chunk(..)
            | State::Skip { .. }
            | State::Verdict(_) => self.input.push(bytes),
        }
    }

    /// The next action; `None`: more bytes are needed (or an answer to `End`). Bytes received are
    /// consumed lazily so that at most one 64 KiB piece of content is held.
    pub fn poll(&mut self) -> Option<Action> {
        loop {
            if let Some(action) = self.actions.pop_front() {
                return Some(action);
            }
            let state = std::mem::replace(&mut self.state, State::Closed);
            match self.step(state) {
                Step::Done(state) => self.state = state,
                Step::Waits(state) => {
                    self.state = state;
                    return None;
                }
            }
        }
    }

    /// TLS is up: the session starts anew (RFC 3207 §4.2); plaintext bytes that were buffered
    /// before it are an attack and have closed the session instead. `description` is for the
    /// Received field.
    pub fn tls_started(&mut self, description: &str) {
        if matches!(self.state, State::Handshake) {
            self.tls = Some(description.to_owned());
            self.input.clear();
            self.lines = LineReader::default();
            self.state = State::Command(Session::Anonymous);
        }
    }

    /// Inbound TLS description.
    pub fn tls(&self) -> Option<&str> {
        self.tls.as_deref()
    }

    /// New mail can't be taken now: MAIL is answered with this until `None`.
    pub fn set_pressure(&mut self, reply: Option<Reply>) {
        self.pressure = reply;
    }

    /// Answer to `End`: durable; 250 2.0.0 Ok: queued as ID. At any other time it does nothing.
    pub fn accepted(&mut self, id: QueueId) {
        if let State::Verdict(hello) = &self.state {
            self.state = State::Command(Session::Introduced(hello.clone()));
            self.say(&replies::queued(id));
        }
    }

    /// Answer to `Begin`, `Content` or `End`: this transaction fails with that reply; the session
    /// goes on. At any other time it does nothing.
    pub fn refuse(&mut self, reply: Reply) {
        match &mut self.state {
            State::Opening(hello) | State::Verdict(hello) => {
                self.state = State::Command(Session::Introduced(hello.clone()));
                self.say(&reply);
            }
            State::Data(body) | State::Chunk(body, _) | State::Command(Session::Chunked(body)) => {
                body.refuse(reply)
            }
            State::Connected
            | State::Command(Session::Anonymous | Session::Introduced(_) | Session::Envelope(_))
            | State::Skip { .. }
            | State::Handshake
            | State::Closed => {}
        }
    }

    /// Idle for too long: 421 4.4.2 (RFC 5321 §4.5.3.2.7).
    pub fn timed_out(&mut self) {
        if !matches!(self.state, State::Closed) {
            self.abort_open_deposit();
            self.farewell(&replies::timed_out());
        }
    }

    /// Shutting down: 421 4.3.2 at the next chance between transactions (RFC 5321 §3.8).
    pub fn shut_down(&mut self) {
        self.ending = Some(replies::shutting_down());
    }

    /// The session has lasted for as long as one may: 421 4.7.0 at the next chance between
    /// transactions. The client may come anew.
    pub fn retire(&mut self) {
        self.ending.get_or_insert_with(replies::session_over);
    }

    fn step(&mut self, state: State) -> Step {
        if let State::Connected | State::Command(Session::Anonymous | Session::Introduced(_)) =
            &state
            && let Some(reply) = self.ending.clone()
        {
            self.farewell(&reply);
            return Step::Done(State::Closed);
        }
        match state {
            State::Connected => {
                self.say(&replies::greeting(&self.settings));
                Step::Done(State::Command(Session::Anonymous))
            }
            State::Command(session) => self.read_command(session),
            State::Opening(hello) => {
                self.say(&replies::start_data());
                Step::Done(State::Data(self.data_body(hello)))
            }
            State::Data(body) => self.read_data(body),
            State::Chunk(body, chunk) => self.read_chunk(body, chunk),
            State::Skip { remaining, reply, then } => self.skip(remaining, reply, then),
            State::Verdict(_) | State::Handshake | State::Closed => Step::Waits(state),
        }
    }

    fn say(&mut self, reply: &Reply) {
        self.actions.push_back(Action::Send(reply.to_wire()));
    }

    fn farewell(&mut self, reply: &Reply) {
        self.say(reply);
        self.close();
    }

    fn close(&mut self) {
        self.actions.push_back(Action::Close);
        self.input.clear();
        self.state = State::Closed;
    }

    /// RFC 5321 §4.1.1.10, §4.1.4: what ends a transaction leaves nothing of it.
    fn abort_open_deposit(&mut self) {
        let open = match &self.state {
            State::Opening(_) => true,
            State::Data(body) | State::Chunk(body, _) | State::Command(Session::Chunked(body)) => {
                body.is_open()
            }
            State::Connected
            | State::Command(Session::Anonymous | Session::Introduced(_) | Session::Envelope(_))
            | State::Skip { .. }
            | State::Verdict(_)
            | State::Handshake
            | State::Closed => false,
        };
        if open {
            self.actions.push_back(Action::Abort);
        }
    }

    fn clear_gate(&mut self) {
        if let Some(gate) = &mut self.gate {
            gate.clear();
        }
    }

    fn line_ends(&self) -> LineEnds {
        if self.settings.normalize { LineEnds::Repair } else { LineEnds::Strict }
    }
}
