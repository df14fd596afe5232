//! What the world outside knows: what was offered and acknowledged, what arrived where, and what the
//! gateway wrote down meanwhile. The gateway sees nothing of it.

use super::chance::Trace;
use restante::{
    mail::QueueId,
    store::{NewMessage, RecipientState, Settle},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

/// A message as a client offered it once. Who is put off offers another under another label, so a
/// label is one transaction.
#[derive(Debug, Clone)]
pub struct Offered {
    pub to: Vec<String>,
    pub content: Vec<u8>,
    /// The id in the 250 that the client has read.
    pub acknowledged: Option<String>,
}

/// In the order in which they happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A host has the whole message for this recipient.
    Taken { id: String, to: String, host: String, answered: bool },
    /// The store has written what became of the recipient.
    Settled { id: String, to: String, ended: bool },
    /// The gateway ended, with whatever it was doing.
    Broken,
}

#[derive(Debug, Clone, Default)]
pub struct Book {
    pub offered: BTreeMap<String, Offered>,
    /// What the store has taken: the id by label.
    pub stored: BTreeMap<String, QueueId>,
    /// Recipients of everything that the store has taken.
    pub recipients: BTreeMap<QueueId, Vec<String>>,
    pub events: Vec<Event>,
    /// Recipients that a host has refused for good.
    pub refused: BTreeSet<String>,
    /// Domains whose hosts showed bad TLS or none.
    pub unsafe_domains: BTreeSet<String>,
    /// Recipients that reports which arrived name as failed or delayed, by the report's id.
    pub failed: BTreeMap<String, BTreeSet<String>>,
    pub delayed: BTreeMap<String, BTreeSet<String>>,
    /// A report found the inside host shut until its time was over, which only a clock that is set
    /// can bring about.
    pub reports_expired: bool,
    pub wrong: Vec<String>,
}

#[derive(Debug)]
pub struct Ledger {
    pub trace: Arc<Trace>,
    book: Mutex<Book>,
}

impl Ledger {
    pub fn new(trace: Arc<Trace>) -> Self {
        Self { trace, book: Mutex::default() }
    }
    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("unbroken")
    }
    /// What must never happen has happened.
    pub fn wrong(&self, text: String) {
        self.trace.note(format_args!("WRONG: {text}"));
        self.book().wrong.push(text);
    }
    pub fn offer(&self, label: &str, offered: Offered) {
        self.trace.note(format_args!("offered {label} to {}", offered.to.join(" ")));
        self.book().offered.insert(label.to_owned(), offered);
    }
    pub fn acknowledged(&self, label: &str, id: &str) {
        self.trace.note(format_args!("acknowledged {label} as {id}"));
        if let Some(offered) = self.book().offered.get_mut(label) {
            offered.acknowledged = Some(id.to_owned());
        }
    }
    pub fn put_off(&self, label: &str, reply: &str) {
        self.trace.note(format_args!("{label} was put off: {reply}"));
    }
    /// The store has taken a message.
    pub fn stored(&self, id: QueueId, label: Option<String>, to: Vec<String>) {
        let mut book = self.book();
        if let Some(label) = label {
            book.stored.insert(label, id);
        }
        book.recipients.insert(id, to);
    }
    /// The store has written outcomes.
    pub fn settled(&self, settled: &Settled) {
        let Some(recipients) = self.book().recipients.get(&settled.id).cloned() else { return };
        let id = settled.id.to_string();
        for (index, state, ended) in &settled.outcomes {
            let to = recipients[usize::from(*index)].clone();
            self.trace.note(format_args!("settled {to} of {id}: {state}"));
            self.book().events.push(Event::Settled { id: id.clone(), to, ended: *ended });
        }
        for (id, label, to) in &settled.spawn {
            self.stored(*id, label.clone(), to.clone());
        }
    }
    /// A host has taken content for a recipient; the number is for [`Self::answered`].
    pub fn taken(&self, id: &str, to: &str, host: &str) -> usize {
        self.trace.note(format_args!("{host} has taken {id} for {to}"));
        let mut book = self.book();
        let (id, to, host) = (id.to_owned(), to.to_owned(), host.to_owned());
        book.events.push(Event::Taken { id, to, host, answered: false });
        book.events.len() - 1
    }
    /// The host's 250 is on its way.
    pub fn answered(&self, taken: &[usize]) {
        let mut book = self.book();
        for at in taken {
            if let Event::Taken { answered, .. } = &mut book.events[*at] {
                *answered = true;
            }
        }
    }
    pub fn broken(&self) {
        self.book().events.push(Event::Broken);
    }
    pub fn id_of(&self, label: &str) -> Option<String> {
        self.book().stored.get(label).map(ToString::to_string)
    }
    /// The notice for a recipient: the one message for it that no client has offered.
    pub fn notice_for(&self, to: &str) -> Option<String> {
        let book = self.book();
        let own = book.recipients.iter().filter(|(id, _)| !book.stored.values().any(|i| i == *id));
        own.into_iter().find(|(_, all)| *all == &[to]).map(|(id, _)| id.to_string())
    }
}

/// A settle in words, to be noted once the store has written it.
#[derive(Debug)]
pub struct Settled {
    id: QueueId,
    outcomes: Vec<(u16, String, bool)>,
    spawn: Vec<(QueueId, Option<String>, Vec<String>)>,
}

impl Settled {
    pub fn of(settle: &Settle) -> Self {
        let outcomes = settle.outcomes.iter().map(|o| {
            let why = o.why.as_ref().map(|why| format!("{:?}", why.reason)).unwrap_or_default();
            let state = match &o.state {
                RecipientState::Waiting { next } => format!("waits until {next}"),
                RecipientState::Held { .. } => "held".to_owned(),
                RecipientState::Delivered { .. } => "delivered".to_owned(),
                RecipientState::Granted { .. } => "granted".to_owned(),
                RecipientState::Bounced { status, .. } => format!("bounced {status}"),
                RecipientState::Expired { .. } => "expired".to_owned(),
                RecipientState::Removed { .. } => "removed".to_owned(),
            };
            (o.index, format!("{state} ({why})"), o.state.ended().is_some())
        });
        let spawn = settle.spawn.iter().map(named).collect();
        Self { id: settle.id, outcomes: outcomes.collect(), spawn }
    }
}

/// Id, label (of what a client offered) and recipients of a message.
pub fn named(message: &NewMessage) -> (QueueId, Option<String>, Vec<String>) {
    let message_id = message.facts.message_id.as_deref();
    let label = message_id.and_then(|id| id.trim_start_matches('<').split('@').next());
    let to = message.recipients.iter().map(ToString::to_string).collect();
    (message.facts.id, label.map(str::to_owned), to)
}
