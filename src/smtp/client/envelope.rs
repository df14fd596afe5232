//! MAIL, RCPT and DATA of one transaction, in flights (RFC 5321 §3.3, RFC 2920).

use super::{Extensions, RecipientReply, Transaction};
use crate::{
    mail::{Address, RecipientDsn, text::beyond_ascii_escaped},
    smtp::{Reply, xtext},
};
use std::collections::VecDeque;

/// The most commands sent before their replies are read: less than any send buffer, so that neither
/// side waits for the other for ever (RFC 2920 §3.1).
const MAX_FLIGHT: usize = 100;

/// One command of the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Clears what an earlier transaction left open (RFC 5321 §4.1.1.5).
    Rset,
    Mail,
    Rcpt(usize),
    Data,
}

/// What is known of a recipient so far.
#[derive(Debug)]
enum Standing {
    Asked,
    Accepted,
    Refused(Reply),
}

/// The envelope under way.
#[derive(Debug)]
pub(super) struct Envelope {
    transaction: Transaction,
    parameters: String,
    /// What of DSN and SMTPUTF8 RCPT may use.
    extras: Extras,
    /// Commands sent at once: one, if PIPELINING isn't offered.
    flight: usize,
    to_send: VecDeque<Step>,
    awaited: VecDeque<Step>,
    refused: Option<Reply>,
    standings: Vec<Standing>,
}

/// Extensions that parameters of RCPT depend on.
#[derive(Debug, Clone, Copy)]
struct Extras {
    dsn: bool,
    smtputf8: bool,
}

/// Recipients that were accepted, beside those that were not; content decides for the former.
#[derive(Debug)]
pub(super) struct Decisions {
    refusals: Vec<Option<Reply>>,
    dsn: bool,
}

/// What a reply leads to.
#[derive(Debug)]
pub(super) enum Progress {
    /// More replies are awaited.
    Wait(Envelope),
    /// The next commands.
    Send(Envelope, Vec<u8>),
    /// 354, and somebody is there to receive.
    Content(Decisions),
    /// 354, but nobody was accepted: the lone dot is owed (RFC 2920 §3.1).
    LoneDot(Vec<RecipientReply>),
    /// It is over without content; the server may still have the transaction open.
    Over(Vec<RecipientReply>),
    /// A reply that makes no sense here.
    Nonsense(Reply),
}

impl Envelope {
    pub(super) fn new(transaction: Transaction, offered: &Extensions, reset_first: bool) -> Self {
        let recipients = transaction.recipients.len();
        let mut to_send = VecDeque::new();
        if reset_first {
            to_send.push_back(Step::Rset);
        }
        to_send.push_back(Step::Mail);
        to_send.extend((0..recipients).map(Step::Rcpt));
        to_send.push_back(Step::Data);
        Self {
            parameters: mail_parameters(&transaction, offered),
            extras: Extras { dsn: offered.dsn, smtputf8: offered.smtputf8 && transaction.smtputf8 },
            flight: if offered.pipelining { MAX_FLIGHT } else { 1 },
            to_send,
            awaited: VecDeque::new(),
            refused: None,
            standings: (0..recipients).map(|_| Standing::Asked).collect(),
            transaction,
        }
    }

    /// The next flight. DATA ends it (RFC 2920 §3.1); it goes along before the replies are known,
    /// which costs a lone dot if all are refused and saves a round trip otherwise.
    pub(super) fn send(mut self) -> Progress {
        let count = self.flight.min(self.to_send.len());
        let steps: Vec<Step> = self.to_send.drain(..count).collect();
        let mut wire = Vec::new();
        for &step in &steps {
            wire.extend(self.line(step).into_bytes().into_iter().map(harmless));
            wire.extend_from_slice(b"\r\n");
        }
        self.awaited.extend(steps);
        Progress::Send(self, wire)
    }

    fn line(&self, step: Step) -> String {
        match step {
            Step::Rset => "RSET".into(),
            // RFC 5321 §4.1.1.2, §4.5.5.
            Step::Mail => match &self.transaction.sender {
                Some(sender) => format!("MAIL FROM:<{sender}>{}", self.parameters),
                None => format!("MAIL FROM:<>{}", self.parameters),
            },
            Step::Rcpt(index) => match self.transaction.recipients.get(index) {
                Some(recipient) => self.rcpt(index, recipient),
                None => "NOOP".into(),
            },
            Step::Data => "DATA".into(),
        }
    }

    /// RFC 3461 §5.2.1: NOTIFY and ORCPT go on as they came, and none is added where none came.
    fn rcpt(&self, index: usize, recipient: &Address) -> String {
        let mut line = format!("RCPT TO:<{recipient}>");
        let asked = self.transaction.recipient_dsn.get(index).filter(|_| self.extras.dsn);
        let Some(RecipientDsn { notify, original }) = asked else { return line };
        if let Some(notify) = notify {
            line.push_str(&format!(" NOTIFY={notify}"));
        }
        let original = original.as_deref().and_then(|text| orcpt(text, self.extras.smtputf8));
        if let Some(original) = original {
            line.push_str(&format!(" ORCPT={original}"));
        }
        line
    }

    /// Takes the reply to the oldest command that has none yet.
    pub(super) fn reply(mut self, reply: Reply) -> Progress {
        match self.awaited.pop_front() {
            None => return Progress::Nonsense(reply),
            Some(Step::Data) => return self.reply_to_data(reply),
            Some(_) if !is_answer(&reply) => return Progress::Nonsense(reply),
            // Whatever is said to RSET, the reply to MAIL shows whether it helped.
            Some(Step::Rset) => {}
            Some(Step::Mail) if reply.is_positive() => {}
            Some(Step::Mail) => self.refused = Some(reply),
            Some(Step::Rcpt(index)) => {
                let accepted = reply.is_positive();
                if let Some(standing) = self.standings.get_mut(index) {
                    *standing =
                        if accepted { Standing::Accepted } else { Standing::Refused(reply) };
                }
            }
        }
        if !self.awaited.is_empty() {
            return Progress::Wait(self);
        }
        let data_is_next = self.to_send.front() == Some(&Step::Data);
        match self.refused.clone() {
            Some(reply) => Progress::Over(self.decide(&reply)),
            // RFC 5321 §3.3: DATA without a recipient is never sent knowingly; every standing is a
            // refusal here.
            None if data_is_next && !self.anyone_accepted() => {
                let unasked = Reply::bare(503, Vec::new());
                Progress::Over(self.decide(&unasked))
            }
            None => self.send(),
        }
    }

    fn reply_to_data(self, reply: Reply) -> Progress {
        // RFC 5321 §4.1.1.4: 354 and no other goes ahead; a refusal is 4xx or 5xx.
        let go_ahead = reply.code == 354;
        if !go_ahead && !reply.is_transient() && !reply.is_permanent() {
            return Progress::Nonsense(reply);
        }
        let refusal = self.refused.clone();
        match (go_ahead, refusal) {
            (true, None) if self.anyone_accepted() => Progress::Content(self.decisions()),
            (true, refusal) => Progress::LoneDot(self.decide(&refusal.unwrap_or(reply))),
            (false, refusal) => Progress::Over(self.decide(&refusal.unwrap_or(reply))),
        }
    }

    fn anyone_accepted(&self) -> bool {
        self.standings.iter().any(|standing| matches!(standing, Standing::Accepted))
    }

    fn decisions(self) -> Decisions {
        let refusal = |standing| match standing {
            Standing::Refused(reply) => Some(reply),
            Standing::Accepted | Standing::Asked => None,
        };
        let refusals = self.standings.into_iter().map(refusal).collect();
        Decisions { refusals, dsn: self.extras.dsn }
    }

    /// The end without content: `reply` for all who weren't refused by themselves. A refused MAIL
    /// is the reason for every refusal after it.
    pub(super) fn decide(self, reply: &Reply) -> Vec<RecipientReply> {
        match self.refused.clone() {
            Some(refused) => {
                let all = self.standings.iter().map(|_| None).collect();
                Decisions { refusals: all, dsn: self.extras.dsn }.decide(&refused)
            }
            None => self.decisions().decide(reply),
        }
    }
}

impl Decisions {
    /// The reply to the final dot is everybody's who was accepted (RFC 5321 §4.2.5).
    pub(super) fn decide(self, reply: &Reply) -> Vec<RecipientReply> {
        let dsn = self.dsn;
        let one = |refusal: Option<Reply>| match refusal {
            Some(reply) => RecipientReply { reply, delivered: false, dsn },
            None => RecipientReply { reply: reply.clone(), delivered: reply.is_positive(), dsn },
        };
        self.refusals.into_iter().map(one).collect()
    }
}

/// 2xx, 4xx, 5xx (RFC 5321 §4.2.1); 3xx belongs to DATA.
fn is_answer(reply: &Reply) -> bool {
    !reply.is_intermediate()
}

/// Addresses and xtext hold no controls; should one ever, it ends no line (CVE-2020-7247's kind).
fn harmless(byte: u8) -> u8 {
    if byte.is_ascii_control() { b'?' } else { byte }
}

/// Parameters of MAIL, each only where it was offered (RFC 5321 §2.2.1).
fn mail_parameters(transaction: &Transaction, offered: &Extensions) -> String {
    let mut parameters = String::new();
    if offered.size.is_some() {
        parameters.push_str(&format!(" SIZE={}", transaction.size));
    }
    if offered.eight_bit && transaction.eight_bit {
        parameters.push_str(" BODY=8BITMIME");
    }
    if offered.smtputf8 && transaction.smtputf8 {
        parameters.push_str(" SMTPUTF8");
    }
    if offered.require_tls && transaction.require_tls {
        parameters.push_str(" REQUIRETLS");
    }
    if let Some(ret) = transaction.ret.filter(|_| offered.dsn) {
        parameters.push_str(&format!(" RET={ret}"));
    }
    if let Some(id) = transaction.envelope_id.as_deref().filter(|_| offered.dsn) {
        // RFC 3461 §4.4, §5.2.1: passed on as it came.
        parameters.push_str(&format!(" ENVID={}", xtext::encode(id)));
    }
    parameters
}

/// ORCPT on the wire (RFC 3461 §4.2). Type `utf-8` has its own coding, and where SMTPUTF8 is not in
/// use it is ASCII (RFC 6533 §3). What would be too long is better not said.
fn orcpt(original: &str, smtputf8: bool) -> Option<String> {
    let (kind, address) = original.split_once(';')?;
    let value = match (kind.eq_ignore_ascii_case("utf-8"), smtputf8) {
        (true, true) => original.to_owned(),
        (true, false) => beyond_ascii_escaped(original),
        (false, _) => format!("{kind};{}", xtext::encode(address)),
    };
    (value.len() <= 500).then_some(value)
}
