//! The shape of answers: JSON fields, made from rows. Their names do not change between versions.

use crate::{
    clock::ClockGuard,
    mail::{Address, Domain, Notify, QueueId, RecipientDsn, Ret},
    policy::{DaneVerdict, Level, RuleVerdict, Trouble, Why},
    probe::watch::Warned,
    seal::{Class, MessageFacts},
    store::{
        Account, Attempt, DnsRecord, Grant, GrantState, MessageRow, RecipientRow, RecipientState,
        SegmentBytes, Session, Totals,
    },
    vault::{Doubt, KeyProgress},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// `restante status`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// Program version.
    pub version: String,
    /// Addresses bound.
    pub listeners: Listeners,
    /// Recipients by state.
    pub queue: QueueCounts,
    /// What waits for pickup.
    pub vault: VaultCounts,
    /// Policies in force.
    pub policy: PolicyStatus,
    /// Whether answers of DNS are checked.
    pub dns: DnsStatus,
    /// Whether the clock can be relied on.
    pub clock: ClockStatus,
    /// The key ring, and how far its rotation is.
    pub keys: KeyProgress,
    /// How the store is: `ok`, `full`, or what broke.
    pub store: String,
    /// Rows of the store that can't be read; the log names them.
    #[serde(default)]
    pub unreadable: u64,
    /// The last failure of each domain that mail waits for.
    pub failures: Vec<Failure>,
    /// What the watch warns of.
    pub watch: Vec<Warned>,
    /// Where readers may sign in elsewhere (`portal.oidc`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sign_in: Vec<ProviderView>,
}

/// A provider of identities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderView {
    /// What its button says.
    pub name: String,
    /// Its issuer.
    pub issuer: String,
    /// How it was when it was last needed: `ok`, `not asked yet`, or what broke.
    pub state: String,
}

/// Addresses bound.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listeners {
    /// SMTP intake.
    pub smtp: Vec<SocketAddr>,
    /// Portal.
    pub portal: Vec<SocketAddr>,
    /// Metrics.
    pub metrics: Vec<SocketAddr>,
}

/// Recipients by state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueCounts {
    /// Never tried, or being tried.
    pub active: u64,
    /// Waiting after an attempt.
    pub deferred: u64,
    /// Held by an operator.
    pub held: u64,
    /// Arrival of the oldest message that waits.
    pub oldest: Option<Timestamp>,
}

/// What waits for pickup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultCounts {
    /// Messages with a live grant.
    pub messages: u64,
    /// Live grants.
    pub grants: u64,
    /// Sealed bytes kept for them.
    pub bytes: u64,
    /// What small sealed bodies of all mail take of the disk.
    pub segments: SegmentBytes,
}

/// Policies in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Hash of the set in force.
    pub version: String,
    /// When it was loaded.
    pub loaded: Timestamp,
    /// Why a newer set on disk is not in force.
    pub error: Option<String>,
}

/// Whether answers of DNS are checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsStatus {
    /// `dns.dnssec`
    pub dnssec: String,
    /// They are.
    pub working: bool,
    /// In words, and what to do if not.
    pub text: String,
}

/// Whether the clock can be relied on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockStatus {
    /// It can; if not, nothing expires.
    pub ok: bool,
    /// What it should say, if it cannot.
    pub expected: Option<Timestamp>,
    /// In words, and what to do if not.
    pub text: String,
}

impl ClockStatus {
    /// As the guard says.
    pub fn of(guard: &ClockGuard) -> Self {
        match guard.check() {
            Ok(_) => Self { ok: true, expected: None, text: "ok".to_owned() },
            Err(doubt) => {
                Self { ok: false, expected: Some(doubt.expected), text: doubt.to_string() }
            }
        }
    }
}

/// What `restante clock confirm` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockConfirmed {
    /// The time of the wall clock.
    pub clock: Timestamp,
    /// False if it was not in doubt.
    pub changed: bool,
}

/// The last failure of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Recipients' domain.
    pub domain: Domain,
    /// Reason code.
    pub reason: String,
    /// In words.
    pub text: String,
    /// Recipients that wait.
    pub waiting: u64,
}

impl StatusView {
    /// Puts the counts in their places.
    pub fn counts(totals: &Totals) -> (QueueCounts, VaultCounts) {
        let queue = QueueCounts {
            active: totals.active,
            deferred: totals.deferred,
            held: totals.held,
            oldest: totals.oldest,
        };
        let vault = VaultCounts {
            messages: totals.vault_messages,
            grants: totals.grants,
            bytes: totals.vault_bytes,
            segments: totals.segments,
        };
        (queue, vault)
    }
}

/// An entry of `restante queue list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueView {
    /// Queue id.
    pub id: QueueId,
    /// Reverse-path, `null` for `<>`.
    pub sender: Option<Address>,
    /// Recipients.
    pub recipients: Vec<QueueRecipient>,
    /// Content size in bytes.
    pub size: u64,
    /// Time of arrival.
    pub arrived: Timestamp,
}

/// What an order of `restante queue hold|release|retry|remove` did, by the page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderView {
    /// Recipients whose state changed.
    pub changed: u64,
    /// Recipients that are being delivered now, and were left alone.
    pub busy: u64,
    /// Ids that no message has.
    pub unknown: Vec<String>,
    /// Ask on after this; `None` at the end.
    pub next: Option<QueueId>,
}

/// A recipient in the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRecipient {
    /// Address.
    pub address: Address,
    /// Outcome word.
    pub state: String,
    /// Attempts so far.
    pub attempts: u32,
    /// Next attempt.
    pub next: Option<Timestamp>,
    /// Why it waits, or came to its end.
    pub reason: Option<String>,
}

impl QueueView {
    /// From rows.
    pub fn new(message: &MessageRow, recipients: &[RecipientRow]) -> Self {
        Self {
            id: message.facts.id,
            sender: message.facts.sender.clone(),
            recipients: recipients.iter().map(QueueRecipient::new).collect(),
            size: message.size,
            arrived: message.facts.arrived,
        }
    }
}

impl QueueRecipient {
    fn new(row: &RecipientRow) -> Self {
        let next = match &row.state {
            RecipientState::Waiting { next } | RecipientState::Held { next } => Some(*next),
            RecipientState::Delivered { .. }
            | RecipientState::Granted { .. }
            | RecipientState::Bounced { .. }
            | RecipientState::Expired { .. }
            | RecipientState::Removed { .. } => None,
        };
        Self {
            address: row.address.clone(),
            state: outcome_word(row).to_owned(),
            attempts: row.attempts,
            next,
            reason: row.why.as_ref().map(|w| w.text.clone()),
        }
    }
}

/// `restante trace`, `restante queue show`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceView {
    /// Queue id.
    pub id: QueueId,
    /// Reverse-path.
    pub sender: Option<Address>,
    /// What it is: `protected`, `notice`, `code` or `report`.
    pub class: String,
    /// Message-ID.
    pub message_id: Option<String>,
    /// Content size.
    pub size: u64,
    /// Time of arrival.
    pub arrived: Timestamp,
    /// Who handed it in.
    pub client: Option<String>,
    /// TLS version, cipher suite and key exchange group of that connection, if it had TLS.
    pub client_tls: Option<String>,
    /// The message rule that judged it: file and line.
    pub rule: Option<String>,
    /// ENVID, if its sender gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope_id: Option<String>,
    /// RET, if its sender gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ret: Option<Ret>,
    /// Recipients.
    pub recipients: Vec<TraceRecipient>,
}

/// The life of one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceRecipient {
    /// Address.
    pub address: Address,
    /// `queued`, `delivered`, `sealed`, `deferred`, `bounced`, `expired`, `removed`.
    pub outcome: String,
    /// Where the last decision sent it: `direct`, `envelope`, `defer`, `reject`.
    pub route: Option<String>,
    /// Reason code of the last decision.
    pub reason: Option<String>,
    /// The last decision in words.
    pub why: Option<String>,
    /// The policy that decided.
    pub policy: Option<TracePolicy>,
    /// Next attempt.
    pub next: Option<Timestamp>,
    /// When the recipient first opened it at the portal.
    pub opened: Option<Timestamp>,
    /// NOTIFY, if its sender gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<Notify>,
    /// ORCPT, if its sender gave it: type and decoded address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orcpt: Option<String>,
    /// Attempts, oldest first.
    pub attempts: Vec<TraceAttempt>,
}

/// The policy that decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracePolicy {
    /// File.
    pub file: String,
    /// Line.
    pub line: u32,
    /// Level asked.
    pub level: Level,
    /// Hash of the set.
    pub version: String,
}

/// One attempt on one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceAttempt {
    /// When.
    pub at: Timestamp,
    /// MX host.
    pub mx: Option<String>,
    /// Address and port.
    pub address: Option<String>,
    /// TLS as seen.
    pub tls: Option<TraceTls>,
    /// Reply of the peer.
    pub reply: Option<String>,
    /// What kind of trouble it was.
    pub trouble: Option<Trouble>,
    /// What went wrong.
    pub error: Option<String>,
    /// What DNS said.
    pub dns: Option<DnsRecord>,
}

/// TLS as seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceTls {
    /// Protocol version.
    pub version: String,
    /// Cipher suite.
    pub cipher: String,
    /// Key exchange group.
    pub group: Option<String>,
    /// The level's demands on the certificate were met.
    pub verified: bool,
    /// Names the certificate bears.
    pub names: Vec<String>,
    /// SHA-256 of the certificate.
    pub fingerprint: String,
    /// SHA-256 of its public key.
    pub key_fingerprint: String,
    /// Why the chain does not lead to a trust anchor.
    pub chain_error: Option<String>,
    /// What the host's TLSA records say of it.
    pub dane: Option<DaneVerdict>,
}

impl TraceView {
    /// From rows; `attempts` belong to the recipients in order.
    pub fn new(
        message: &MessageRow,
        recipients: &[RecipientRow],
        attempts: &[Vec<Attempt>],
    ) -> Self {
        let facts = &message.facts;
        let lives = recipients.iter().zip(attempts);
        Self {
            id: facts.id,
            sender: facts.sender.clone(),
            class: word(&facts.class),
            message_id: facts.message_id.clone(),
            size: message.size,
            arrived: facts.arrived,
            client: facts.client.as_ref().map(|c| format!("{} [{}]", c.helo, c.address)),
            client_tls: facts.client.as_ref().and_then(|c| c.tls.clone()),
            rule: facts.rule.rule.as_ref().map(|(file, line)| format!("{file}:{line}")),
            envelope_id: facts.envelope_id.clone().filter(|_| facts.class == Class::Protected),
            ret: facts.wishes.ret(),
            recipients: lives.map(|(row, tries)| TraceRecipient::new(facts, row, tries)).collect(),
        }
    }
}

impl TraceRecipient {
    fn new(facts: &MessageFacts, row: &RecipientRow, attempts: &[Attempt]) -> Self {
        let queue = QueueRecipient::new(row);
        let RecipientDsn { notify, original } = facts.wishes.of(row.index, &row.address);
        let why: Option<&Why> = row.why.as_ref();
        Self {
            address: queue.address,
            outcome: queue.state,
            route: why.and_then(|_| route_word(&row.state)).map(str::to_owned),
            reason: why.map(|w| word(&w.reason)),
            why: queue.reason,
            policy: why.map(|w| TracePolicy {
                file: w.policy.file.clone(),
                line: w.policy.line,
                level: w.policy.level,
                version: w.policy.version.clone(),
            }),
            next: queue.next,
            opened: None,
            notify,
            orcpt: original,
            attempts: attempts.iter().map(TraceAttempt::new).collect(),
        }
    }
}

impl TraceRecipient {
    /// What has become of the leave to open a sealed message.
    pub(super) fn since_sealed(&mut self, grant: &Grant) {
        self.opened = grant.opened;
        match grant.state {
            GrantState::Live => {}
            GrantState::Expired => "expired".clone_into(&mut self.outcome),
            GrantState::Withdrawn => {
                "removed".clone_into(&mut self.outcome);
                self.route = None;
                self.reason = Some("recalled".to_owned());
                self.why = Some("It was taken back before its time was over.".to_owned());
            }
            // The sender has a report.
            GrantState::Recalled => {
                "bounced".clone_into(&mut self.outcome);
                self.route = Some("reject".to_owned());
                self.reason = Some("notice-refused".to_owned());
                self.why = Some("The notice was refused, so nobody can pick it up.".to_owned());
            }
        }
    }
}

impl TraceAttempt {
    fn new(a: &Attempt) -> Self {
        Self {
            at: a.at,
            mx: a.mx.clone(),
            address: a.address.clone(),
            tls: a.tls.as_ref().map(|t| TraceTls {
                version: t.version.clone(),
                cipher: t.cipher.clone(),
                group: t.group.clone(),
                verified: a.verified,
                names: t.names.clone(),
                fingerprint: t.fingerprint.clone(),
                key_fingerprint: t.key_fingerprint.clone(),
                chain_error: t.chain_error.clone(),
                dane: t.dane.clone(),
            }),
            reply: a.reply.clone(),
            trouble: a.trouble,
            error: a.error.clone(),
            dns: a.dns.clone(),
        }
    }
}

/// A customer's message with its decisions, for `restante policy replay`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionView {
    /// Queue id.
    pub id: QueueId,
    /// Time of arrival.
    pub arrived: Timestamp,
    /// What the message rules said on arrival.
    pub rule: RuleVerdict,
    /// Recipients.
    pub recipients: Vec<DecisionRecipient>,
}

/// What was decided about one recipient, and what was seen on the way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionRecipient {
    /// Address.
    pub address: Address,
    /// How it stands.
    pub state: RecipientState,
    /// The last decision.
    pub why: Option<Why>,
    /// Attempts, oldest first.
    pub attempts: Vec<Attempt>,
}

/// An entry of `restante vault list`: one recipient's leave to open one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultView {
    /// Queue id of the message.
    pub id: QueueId,
    /// Recipient.
    pub recipient: Address,
    /// When it was sealed for pickup.
    pub sealed: Timestamp,
    /// When key and body are destroyed.
    pub expires: Timestamp,
    /// When it was first opened.
    pub opened: Option<Timestamp>,
}

impl From<&Grant> for VaultView {
    fn from(g: &Grant) -> Self {
        Self {
            id: g.message,
            recipient: g.recipient.clone(),
            sealed: g.sealed,
            expires: g.expires,
            opened: g.opened,
        }
    }
}

/// An entry of `restante vault doubts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoubtView {
    /// The domain.
    pub domain: String,
    /// Since when, and why; `None` if its note can't be read.
    #[serde(flatten)]
    pub doubt: Option<Doubt>,
}

/// What `restante vault trust` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trusted {
    /// The domain whose line is no longer in doubt.
    pub domain: Domain,
}

/// An entry of `restante account list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountView {
    /// The mailbox.
    pub address: Address,
    /// First and last name.
    pub name: String,
    /// When the mailbox proved itself.
    pub created: Timestamp,
    /// Nobody signs in.
    pub locked: bool,
    /// A password is set; otherwise only a mailed code lets in.
    pub password: bool,
    /// Sign-in asks for a code from an app.
    pub second_factor: bool,
    /// Passkeys that let in.
    pub passkeys: usize,
}

impl From<&Account> for AccountView {
    fn from(a: &Account) -> Self {
        Self {
            address: a.address.clone(),
            name: format!("{} {}", a.first_name, a.last_name).trim().to_owned(),
            created: a.created,
            locked: a.locked,
            password: !a.password.is_empty(),
            second_factor: a.second_factor().is_some(),
            passkeys: a.passkeys.len(),
        }
    }
}

/// `restante account show`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountLife {
    /// As in the list.
    #[serde(flatten)]
    pub account: AccountView,
    /// Recovery codes that are left.
    pub recovery_codes: usize,
    /// Messages that wait and were not opened.
    pub waiting: u64,
    /// Messages that were opened and are still kept.
    pub opened: u64,
    /// Where its owner is signed in.
    pub sessions: Vec<SessionView>,
}

/// A browser that is signed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionView {
    /// The browser in a few words.
    pub agent: String,
    /// Where it signed in from.
    pub client: Option<IpAddr>,
    /// When.
    pub begun: Timestamp,
    /// Last used.
    pub seen: Timestamp,
}

impl From<&Session> for SessionView {
    fn from(s: &Session) -> Self {
        Self { agent: s.agent.clone(), client: s.client, begun: s.created, seen: s.seen }
    }
}

/// What `restante account lock|unlock|reset|remove` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountDone {
    /// Whose account.
    pub address: Address,
    /// False if there was nothing to change.
    pub changed: bool,
    /// Sessions that ended.
    pub sessions: u64,
}

/// What `restante account move` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountMoved {
    /// The address that the account had.
    pub address: Address,
    /// The address that it has.
    pub to: Address,
    /// Messages that it holds there, received and sent.
    pub messages: usize,
    /// Sessions that ended.
    pub sessions: usize,
}

/// `restante vault show`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultLife {
    /// Queue id.
    pub id: QueueId,
    /// Reverse-path.
    pub sender: Option<Address>,
    /// Time of arrival.
    pub arrived: Timestamp,
    /// Content size in bytes.
    pub size: u64,
    /// For whom it is or was kept.
    pub recipients: Vec<VaultRecipient>,
}

/// One recipient's leave to open a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultRecipient {
    /// Whose.
    pub recipient: Address,
    /// `waiting`, `opened`, `expired`, `recalled` or `refused` (its notice).
    pub state: String,
    /// When it was sealed for pickup.
    pub sealed: Timestamp,
    /// When key and body are destroyed.
    pub expires: Timestamp,
    /// When it was first opened.
    pub opened: Option<Timestamp>,
}

impl From<&Grant> for VaultRecipient {
    fn from(g: &Grant) -> Self {
        let state = match g.state {
            GrantState::Live if g.opened.is_some() => "opened",
            GrantState::Live => "waiting",
            GrantState::Expired => "expired",
            GrantState::Withdrawn => "recalled",
            GrantState::Recalled => "refused",
        };
        Self {
            recipient: g.recipient.clone(),
            state: state.to_owned(),
            sealed: g.sealed,
            expires: g.expires,
            opened: g.opened,
        }
    }
}

/// What `restante vault extend|recall` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultDone {
    /// Queue id.
    pub id: QueueId,
    /// For whom, and how it stands now.
    pub recipients: Vec<VaultRecipient>,
}

/// What comes before an exported message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// Bytes that follow.
    pub size: u64,
}

/// The outcome as one word, which does not change between versions.
pub fn outcome_word(row: &RecipientRow) -> &'static str {
    match &row.state {
        RecipientState::Waiting { .. } if row.attempts == 0 && row.why.is_none() => "queued",
        RecipientState::Waiting { .. } => "deferred",
        RecipientState::Held { .. } => "held",
        RecipientState::Delivered { .. } => "delivered",
        RecipientState::Granted { .. } => "sealed",
        RecipientState::Bounced { .. } => "bounced",
        RecipientState::Expired { .. } => "expired",
        RecipientState::Removed { .. } => "removed",
    }
}

fn route_word(state: &RecipientState) -> Option<&'static str> {
    match state {
        RecipientState::Waiting { .. } | RecipientState::Held { .. } => Some("defer"),
        RecipientState::Delivered { .. } => Some("direct"),
        RecipientState::Granted { .. } => Some("envelope"),
        RecipientState::Bounced { .. } | RecipientState::Expired { .. } => Some("reject"),
        RecipientState::Removed { .. } => None,
    }
}

/// The kebab-case word by which a unit variant is serialised.
pub(super) fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(error) => error.to_string(),
    }
}
