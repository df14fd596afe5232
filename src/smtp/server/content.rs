//! Content: after 354 up to the lone dot (RFC 5321 §4.1.1.4), or in counted chunks (RFC 3030 §2).

use super::{Action, Body, Chunk, Deposit, Hello, Reply, Server, Session, State, Step, replies};
use crate::{
    mail::MailData,
    smtp::data::{Fault, Framer, Framing, MAX_PIECE},
};

impl Body {
    pub(super) fn is_open(&self) -> bool {
        matches!(self.deposit, Deposit::Open)
    }

    pub(super) fn refuse(&mut self, reply: Reply) {
        if self.is_open() {
            self.deposit = Deposit::Refused(reply);
        }
    }
}

impl Server {
    pub(super) fn data_body(&self, hello: Hello) -> Box<Body> {
        self.body(hello, Framing::Dots)
    }

    pub(super) fn chunked_body(&self, hello: Hello) -> Box<Body> {
        self.body(hello, Framing::Chunks)
    }

    fn body(&self, hello: Hello, framing: Framing) -> Box<Body> {
        let framer = Framer::new(framing, self.line_ends(), self.settings.max_message_size);
        Box::new(Body { hello, framer, deposit: Deposit::Open })
    }

    pub(super) fn read_data(&mut self, mut body: Box<Body>) -> Step {
        // The end is noticed in a step of its own, so that a driver may still refuse on what came
        // with it.
        if body.framer.has_ended() {
            return Step::Done(self.end_of_content(*body));
        }
        if self.input.is_empty() {
            return Step::Waits(State::Data(body));
        }
        self.take_content(&mut body, usize::MAX);
        Step::Done(State::Data(body))
    }

    pub(super) fn read_chunk(&mut self, mut body: Box<Body>, mut chunk: Chunk) -> Step {
        if chunk.remaining == 0 {
            return self.end_of_chunk(body, chunk);
        }
        if self.input.is_empty() {
            return Step::Waits(State::Chunk(body, chunk));
        }
        let most = usize::try_from(chunk.remaining).unwrap_or(usize::MAX);
        let used = self.take_content(&mut body, most);
        chunk.remaining = chunk.remaining.saturating_sub(used as u64);
        Step::Done(State::Chunk(body, chunk))
    }

    /// Passes one piece on; says how many bytes of input it took.
    fn take_content(&mut self, body: &mut Body, most: usize) -> usize {
        let rest = self.input.rest();
        let input = rest.get(..most).unwrap_or(rest);
        let mut out = MailData::with_capacity(input.len().min(MAX_PIECE));
        let used = body.framer.push(input, &mut out);
        self.input.consume(used);
        self.pass_on(body, out);
        used
    }

    fn pass_on(&mut self, body: &mut Body, out: MailData) {
        if !body.is_open() {
            return;
        }
        if let Some(fault) = body.framer.fault() {
            self.actions.push_back(Action::Abort);
            body.deposit = Deposit::Faulty(replies::content(fault, &self.settings));
        } else if !out.is_empty() {
            self.actions.push_back(Action::Content(out));
        }
    }

    fn end_of_content(&mut self, body: Body) -> State {
        match body.deposit {
            Deposit::Open => {
                self.actions.push_back(Action::End);
                State::Verdict(body.hello)
            }
            Deposit::Faulty(reply) | Deposit::Refused(reply) => {
                self.say(&reply);
                State::Command(Session::Introduced(body.hello))
            }
        }
    }

    fn end_of_chunk(&mut self, mut body: Box<Body>, chunk: Chunk) -> Step {
        if chunk.header.last {
            if body.framer.has_ended() {
                return Step::Done(self.end_of_content(*body));
            }
            let mut out = MailData::default();
            body.framer.finish(&mut out);
            self.pass_on(&mut body, out);
            return Step::Done(State::Chunk(body, chunk));
        }
        // RFC 3030 §2: a failed chunk fails the message, and says so at once where more would only
        // be thrown away. Bare CR and LF wait for LAST, as in DATA for the true end.
        let hopeless = body.framer.fault() == Some(Fault::TooBig);
        let state = match body.deposit {
            Deposit::Refused(_) => self.end_of_content(*body),
            Deposit::Faulty(_) if hopeless => self.end_of_content(*body),
            Deposit::Faulty(_) | Deposit::Open => {
                self.say(&replies::chunk_ok(chunk.header.size));
                State::Command(Session::Chunked(body))
            }
        };
        Step::Done(state)
    }

    /// RFC 3030 §2: the octets come, whatever the reply will be.
    pub(super) fn skip(&mut self, remaining: u64, reply: Reply, then: Session) -> Step {
        let here = self.input.rest().len();
        let used = usize::try_from(remaining).map_or(here, |most| here.min(most));
        self.input.consume(used);
        let remaining = remaining.saturating_sub(used as u64);
        if remaining == 0 {
            self.say(&reply);
            Step::Done(State::Command(then))
        } else {
            Step::Waits(State::Skip { remaining, reply, then })
        }
    }
}
