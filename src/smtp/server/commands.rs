//! What each command does to a session (RFC 5321 §4.1.1, order: §4.1.4).

use super::{
    Action, Chunk, Hello, MAX_ENVELOPE, Reply, Server, Session, State, Step, Transaction, replies,
};
use crate::{
    mail::{Address, Wishes},
    smtp::{
        Command,
        command::{ChunkHeader, CommandError, ForwardPath, MailCommand, RcptCommand},
    },
};

impl Server {
    pub(super) fn read_command(&mut self, session: Session) -> Step {
        let state = match self.lines.next(&mut self.input) {
            None => return Step::Waits(State::Command(session)),
            Some(Err(fault)) => self.object(&replies::line(fault), session),
            Some(Ok(line)) => match Command::parse(&line) {
                Ok(command) => self.execute(session, command),
                Err(error) => self.misunderstood(session, &error),
            },
        };
        let closed = matches!(state, State::Closed);
        if !closed && self.errors >= self.settings.max_errors {
            self.state = state;
            self.abort_open_deposit();
            self.farewell(&replies::too_many_errors());
            return Step::Done(State::Closed);
        }
        Step::Done(state)
    }

    fn execute(&mut self, session: Session, command: Command) -> State {
        match command {
            Command::Bdat(header) => self.bdat(session, header),
            Command::Data => self.data(session),
            Command::Ehlo(name) => self.hello(session, Hello { name, esmtp: true }),
            Command::Expn => self.object(&replies::not_implemented(), session),
            Command::Helo(name) => self.hello(session, Hello { name, esmtp: false }),
            Command::Help => self.answer(&replies::help(), session),
            Command::Mail(mail) => self.mail(session, *mail),
            Command::Noop => self.answer(&replies::ok(), session),
            Command::Quit => self.quit(session),
            Command::Rcpt(rcpt) => self.rcpt(session, *rcpt),
            Command::Rset => self.rset(session),
            Command::StartTls => self.start_tls(session),
            Command::Vrfy => self.answer(&replies::vrfy(), session),
        }
    }

    fn answer(&mut self, reply: &Reply, session: Session) -> State {
        self.say(reply);
        State::Command(session)
    }

    /// Answers what the client did wrong; too much of that ends the session.
    fn object(&mut self, reply: &Reply, session: Session) -> State {
        self.errors = self.errors.saturating_add(1);
        self.answer(reply, session)
    }

    fn misunderstood(&mut self, session: Session, error: &CommandError) -> State {
        let reply = replies::command(error);
        if *error == CommandError::ChunkSize {
            // RFC 3030 §2: octets follow and nobody knows how many; reading on would take content
            // for commands.
            self.drop_session(session);
            self.farewell(&reply);
            return State::Closed;
        }
        self.object(&reply, session)
    }

    /// The transaction of this session, if there is one, is over.
    fn drop_session(&mut self, session: Session) -> Option<Hello> {
        match session {
            Session::Anonymous => None,
            Session::Introduced(hello) => Some(hello),
            Session::Envelope(transaction) => {
                self.clear_gate();
                Some(hello_of(&transaction))
            }
            Session::Chunked(body) => {
                if body.is_open() {
                    self.actions.push_back(Action::Abort);
                }
                Some(body.hello)
            }
        }
    }

    /// RFC 5321 §4.1.4: EHLO in mid-session clears the buffers like RSET.
    fn hello(&mut self, session: Session, hello: Hello) -> State {
        self.drop_session(session);
        let reply = if hello.esmtp {
            replies::ehlo(&self.settings, self.tls.is_some())
        } else {
            replies::helo(&self.settings)
        };
        self.answer(&reply, Session::Introduced(hello))
    }

    /// RFC 5321 §4.1.1.5.
    fn rset(&mut self, session: Session) -> State {
        let session = self.drop_session(session).map_or(Session::Anonymous, Session::Introduced);
        self.answer(&replies::ok(), session)
    }

    /// RFC 5321 §4.1.1.10.
    fn quit(&mut self, session: Session) -> State {
        self.drop_session(session);
        self.farewell(&replies::bye());
        State::Closed
    }

    /// RFC 3207 §4. STARTTLS is the last command of its group (RFC 3207 §4, RFC 2920 §3.1):
    /// whatever came with it is either a broken client or somebody who wants plaintext to be taken
    /// for a part of the TLS session (CVE-2011-0411). It is not read, the session ends, and no
    /// handshake begins.
    fn start_tls(&mut self, session: Session) -> State {
        if self.tls.is_some() {
            return self.object(&replies::bad_sequence("TLS is already in use"), session);
        }
        if !self.settings.starttls {
            return self.object(&replies::not_implemented(), session);
        }
        self.drop_session(session);
        if !self.input.is_empty() {
            self.farewell(&replies::bad_sequence("STARTTLS ends its group of commands"));
            return State::Closed;
        }
        self.say(&replies::start_tls());
        self.actions.push_back(Action::StartTls);
        State::Handshake
    }

    /// RFC 5321 §4.1.1.2.
    fn mail(&mut self, session: Session, mail: MailCommand) -> State {
        if let Some(reply) = self.barrier() {
            return self.object(&reply, session);
        }
        let Session::Introduced(hello) = session else {
            let text = match &session {
                Session::Anonymous => "Say EHLO first",
                Session::Introduced(_) | Session::Envelope(_) | Session::Chunked(_) => {
                    "A transaction is already open"
                }
            };
            return self.object(&replies::bad_sequence(text), session);
        };
        if let Some(reply) = self.mail_objection(&hello, &mail) {
            return self.object(&reply, Session::Introduced(hello));
        }
        if let Some(reply) = self.pressure.clone() {
            return self.answer(&reply, Session::Introduced(hello));
        }
        if let Some(reply) = self.gate.as_mut().and_then(|gate| gate.mail()) {
            return self.answer(&reply, Session::Introduced(hello));
        }
        self.answer(&replies::sender_ok(), Session::Envelope(Box::new(envelope(hello, mail))))
    }

    /// What stands before every MAIL and RCPT.
    fn barrier(&self) -> Option<Reply> {
        if !self.settings.may_relay {
            Some(replies::stranger())
        } else if self.settings.require_tls && self.tls.is_none() {
            Some(replies::tls_required())
        } else {
            None
        }
    }

    fn mail_objection(&self, hello: &Hello, mail: &MailCommand) -> Option<Reply> {
        // RFC 5321 §4.1.1.11: parameters are for extensions, and HELO offered none.
        if mail.extended && !hello.esmtp {
            return Some(replies::unknown_parameter("after HELO there are none"));
        }
        // RFC 8689 §2: offered inside TLS only.
        if mail.require_tls && self.tls.is_none() {
            return Some(replies::unknown_parameter("REQUIRETLS"));
        }
        // RFC 1870 §6.1: better now than after the content.
        let too_big = mail.declared_size.is_some_and(|size| size > self.settings.max_message_size);
        too_big.then(|| replies::too_big(&self.settings))
    }

    /// RFC 5321 §4.1.1.3.
    fn rcpt(&mut self, session: Session, rcpt: RcptCommand) -> State {
        if let Some(reply) = self.barrier() {
            return self.object(&reply, session);
        }
        let Session::Envelope(mut transaction) = session else {
            return self.object(&replies::bad_sequence("MAIL comes first"), session);
        };
        if let Some(reply) = rcpt_objection(&transaction, &rcpt) {
            return self.object(&reply, Session::Envelope(transaction));
        }
        let recipient = match rcpt.recipient {
            ForwardPath::Mailbox(address) => address,
            ForwardPath::Postmaster => self.settings.postmaster.clone(),
        };
        // Sent twice is sent once: one message has one outcome for a recipient.
        if !transaction.recipients.contains(&recipient) {
            let weight = transaction.dsn_weight.saturating_add(rcpt.dsn.weight(&recipient));
            let envelope = transaction.envelope_weight.saturating_add(written(&recipient));
            let full = transaction.recipients.len() >= self.settings.max_recipients
                || envelope > MAX_ENVELOPE;
            // What is asked for one recipient always has room, so the client gets on.
            if full || weight > Wishes::ROOM {
                return self
                    .answer(&replies::too_many_recipients(), Session::Envelope(transaction));
            }
            if let Some(reply) = self.gate.as_mut().and_then(|gate| gate.rcpt(&recipient)) {
                return self.answer(&reply, Session::Envelope(transaction));
            }
            (transaction.dsn_weight, transaction.envelope_weight) = (weight, envelope);
            transaction.recipients.push(recipient);
            transaction.recipient_dsn.push(rcpt.dsn);
        }
        self.answer(&replies::recipient_ok(), Session::Envelope(transaction))
    }

    /// RFC 5321 §4.1.1.4. The driver comes first: the 354 is given once it can take content.
    fn data(&mut self, session: Session) -> State {
        let transaction = match self.addressed(session) {
            Ok(transaction) => transaction,
            Err((reply, session)) => return self.object(&reply, session),
        };
        let hello = hello_of(&transaction);
        self.begin(transaction);
        State::Opening(hello)
    }

    fn begin(&mut self, transaction: Box<Transaction>) {
        self.clear_gate();
        self.actions.push_back(Action::Begin(transaction));
    }

    /// RFC 3030 §2.
    fn bdat(&mut self, session: Session, header: ChunkHeader) -> State {
        let chunk = Chunk { remaining: header.size, header };
        if let Session::Chunked(body) = session {
            return State::Chunk(body, chunk);
        }
        match self.addressed(session) {
            Ok(transaction) => {
                let body = self.chunked_body(hello_of(&transaction));
                self.begin(transaction);
                State::Chunk(body, chunk)
            }
            Err((reply, then)) => {
                self.errors = self.errors.saturating_add(1);
                State::Skip { remaining: header.size, reply, then }
            }
        }
    }

    /// The transaction, if it has recipients; RFC 3030 §2: DATA and BDAT don't mix.
    fn addressed(&self, session: Session) -> Result<Box<Transaction>, (Reply, Session)> {
        match session {
            Session::Envelope(transaction) if !transaction.recipients.is_empty() => Ok(transaction),
            Session::Envelope(_) => Err((replies::bad_sequence("No valid recipients"), session)),
            Session::Chunked(_) => {
                Err((replies::bad_sequence("DATA can't follow BDAT in one transaction"), session))
            }
            Session::Anonymous | Session::Introduced(_) => {
                Err((replies::bad_sequence("MAIL and RCPT come first"), session))
            }
        }
    }
}

fn rcpt_objection(transaction: &Transaction, rcpt: &RcptCommand) -> Option<Reply> {
    if rcpt.extended && !transaction.esmtp {
        return Some(replies::unknown_parameter("after HELO there are none"));
    }
    // RFC 6531 §3.5.
    (rcpt.non_ascii && !transaction.smtputf8).then(replies::non_ascii)
}

/// Bytes of an address as JSON at most: quoted twice, a character of the local part takes four.
fn written(address: &Address) -> usize {
    address.local().len().saturating_mul(4) + address.domain().as_str().len() + 8
}

fn hello_of(transaction: &Transaction) -> Hello {
    Hello { name: transaction.helo.clone(), esmtp: transaction.esmtp }
}

fn envelope(hello: Hello, mail: MailCommand) -> Transaction {
    Transaction {
        helo: hello.name,
        esmtp: hello.esmtp,
        sender: mail.sender,
        recipients: Vec::new(),
        recipient_dsn: Vec::new(),
        dsn_weight: 0,
        envelope_weight: 0,
        declared_size: mail.declared_size,
        eight_bit: mail.eight_bit,
        smtputf8: mail.smtputf8,
        require_tls: mail.require_tls,
        ret: mail.ret,
        envelope_id: mail.envelope_id,
    }
}
