//! The audit trail: what happened at accounts and with messages kept for pickup. Append-only and
//! hash-chained, so that a record that was changed, replaced or cut out is found and located.
//!
//! # How another program checks the chain
//!
//! Each record is one JSON object. Its `hash` is the SHA-256, in lower-case hexadecimal, of the same
//! object without the member `hash` in the canonical form of RFC 8785 (members sorted by name, no
//! white space, UTF-8; all numbers are whole). `prev` is the `hash` of the record before, whose `seq`
//! is less by one; the very first record has 64 zeros. With jq and sha256sum, a record a line:
//!
//! ```sh
//! jq -cSj 'del(.hash)' | sha256sum
//! ```
//!
//! Records end by age, from the oldest on. Where they begin says the anchor: `seq` and `hash` of the
//! last one that was removed. Where they end says the head: `seq` and `hash` of the newest.
use crate::{
    clock::TrustedTime,
    mail::{Address, GrantId, QueueId},
    seal::TokenHash,
    store::StoreError,
};
use async_trait::async_trait;
use data_encoding::HEXLOWER;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fmt, net::IpAddr};

/// Characters of a browser's name that are kept.
const LONGEST_AGENT: usize = 100;

/// What an event is to whoever watches; it decides how the event is logged and bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditClass {
    /// An attempt that failed. Strangers cause it, so its records are bounded by client address.
    Failure,
    /// A sign-in or a change of credentials. Bounded by account.
    Security,
    /// Use of content. Bounded by account, and repeats by one session are one record.
    Access,
    /// An operator's order. Always recorded.
    Operator,
}

/// Makes the enum of kinds and its table in one place.
macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident, $name:literal, $class:ident, $result:expr;)+) => {
        /// What happened. The names are those of the log, the metrics, the command line and the
        /// stored records.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum AuditKind { $($(#[doc = $doc])+ $kind,)+ }
        impl AuditKind {
            /// All kinds.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$kind),+];
            /// The name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $name,)+ }
            }
            /// What it is to whoever watches.
            pub const fn class(self) -> AuditClass {
                match self { $(Self::$kind => AuditClass::$class,)+ }
            }
            /// Its label in `restante_sign_ins_total`, if it is the end of an attempt to sign in.
            pub const fn sign_in_result(self) -> Option<&'static str> {
                match self { $(Self::$kind => $result,)+ }
            }
        }
    };
}
kinds! {
    /// A reader signed in.
    SignIn, "sign-in", Security, Some("ok");
    /// A password was wrong, or there is no such account.
    WrongPassword, "wrong-password", Failure, Some("wrong-password");
    /// A mailed code was wrong or too old.
    WrongCode, "wrong-code", Failure, Some("wrong-code");
    /// The code of an authenticator app or a recovery code was wrong.
    WrongSecondFactor, "wrong-second-factor", Failure, Some("wrong-second-factor");
    /// A passkey's signature was wrong, or the passkey is not known.
    WrongPasskey, "wrong-passkey", Failure, Some("wrong-passkey");
    /// A provider of identities refused, or its answer was not accepted.
    OidcRefused, "oidc-refused", Failure, Some("oidc-refused");
    /// An attempt was refused unread because its budget is spent.
    SignInLocked, "sign-in-locked", Failure, Some("locked");
    /// The sign-in came from a browser that was not known.
    NewDevice, "new-device", Security, None;
    /// A code was mailed.
    CodeMailed, "code-mailed", Security, None;
    /// An account came into being.
    Registered, "registered", Security, None;
    /// A passkey or an authenticator app was added.
    FactorAdded, "factor-added", Security, None;
    /// A passkey or an authenticator app was removed.
    FactorRemoved, "factor-removed", Security, None;
    /// The owner changed the password.
    PasswordChanged, "password-changed", Security, None;
    /// A password was set by a mailed code.
    PasswordReset, "password-reset", Security, None;
    /// A session ended before its time.
    SessionEnded, "session-ended", Security, None;
    /// A reader proved more than the mailbox.
    ProofGiven, "proof-given", Security, None;
    /// A proof beyond the mailbox failed.
    ProofFailed, "proof-failed", Failure, None;
    /// A message was read.
    MessageRead, "message-read", Access, None;
    /// Content was downloaded.
    Downloaded, "downloaded", Access, None;
    /// A message was answered.
    Replied, "replied", Access, None;
    /// A message was forwarded.
    Forwarded, "forwarded", Access, None;
    /// A message was written.
    Composed, "composed", Access, None;
    /// An operator locked the account.
    AccountLocked, "account-locked", Operator, None;
    /// An operator unlocked the account.
    AccountUnlocked, "account-unlocked", Operator, None;
    /// An operator took all credentials off the account.
    AccountReset, "account-reset", Operator, None;
    /// The account got another address.
    AccountMoved, "account-moved", Operator, None;
    /// The account was removed.
    AccountRemoved, "account-removed", Operator, None;
    /// An operator had a message kept longer.
    MessageExtended, "message-extended", Operator, None;
    /// A message was taken back.
    MessageRecalled, "message-recalled", Operator, None;
    /// An operator wrote a message to a file.
    MessageExported, "message-exported", Operator, None;
    /// An operator said that the clock is right, so that what has expired ends.
    ClockConfirmed, "clock-confirmed", Operator, None;
    /// The key ring got another key, which wraps what is new.
    KeyAdded, "key-added", Operator, None;
    /// Older keys left the key ring: nothing is wrapped by them any more.
    KeysRetired, "keys-retired", Operator, None;
}
impl Serialize for AuditKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
impl<'de> Deserialize<'de> for AuditKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == name);
        found.ok_or_else(|| D::Error::custom("a kind of event of another version"))
    }
}
impl fmt::Display for AuditKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What more is known of an event. A closed set, so that neither a secret nor content can come in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuditDetail {
    /// By or of the password.
    Password,
    /// By a mailed code.
    MailedCode,
    /// By or of a passkey.
    Passkey,
    /// By or of an authenticator app.
    Authenticator,
    /// By a recovery code.
    RecoveryCode,
    /// By a provider of identities (`OpenID` Connect).
    Provider,
    /// By a phrase that sender and reader agreed on.
    Phrase,
    /// By a text to a telephone.
    Sms,
    /// For a registration.
    Registration,
    /// For a new password.
    Reset,
    /// For a sign-in.
    SignIn,
    /// The address has no account.
    NoAccount,
    /// The account is locked.
    Locked,
    /// What was shown is no longer valid.
    Expired,
    /// For the printer.
    Print,
    /// An attachment, shown as a picture, by its number.
    Picture(usize),
    /// An attachment by its number.
    Attachment(usize),
    /// All attachments in one file.
    AllAttachments,
    /// The message as it came.
    Original,
    /// All messages in one file.
    AllMessages,
    /// One session, by its owner.
    SignOut,
    /// All sessions.
    Everywhere,
    /// By an operator.
    Operator,
    /// From that address.
    From(Address),
    /// To that address.
    To(Address),
}
impl AuditDetail {
    /// Its name, without what varies.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::MailedCode => "mailed-code",
            Self::Passkey => "passkey",
            Self::Authenticator => "authenticator",
            Self::RecoveryCode => "recovery-code",
            Self::Provider => "provider",
            Self::Phrase => "phrase",
            Self::Sms => "sms",
            Self::Registration => "registration",
            Self::Reset => "reset",
            Self::SignIn => "sign-in",
            Self::NoAccount => "no-account",
            Self::Locked => "locked",
            Self::Expired => "expired",
            Self::Print => "print",
            Self::Picture(_) => "picture",
            Self::Attachment(_) => "attachment",
            Self::AllAttachments => "all-attachments",
            Self::Original => "original",
            Self::AllMessages => "all-messages",
            Self::SignOut => "sign-out",
            Self::Everywhere => "everywhere",
            Self::Operator => "operator",
            Self::From(_) => "from",
            Self::To(_) => "to",
        }
    }
}

/// An event, not yet part of the trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(rename = "event")]
    pub kind: AuditKind,
    /// The mailbox of the account concerned, also where an address was typed that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Address>,
    /// Address of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
    /// The session: the beginning of its cookie's hash, which leads back to neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The browser in a few words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub agent: String,
    /// The grant concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantId>,
    /// The message concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<QueueId>,
    /// What more is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<AuditDetail>,
    /// How many more events of this kind and client, or account, this record stands for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: u64,
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(n: &u64) -> bool {
    *n == 0
}
impl AuditEvent {
    /// An event of which only kind and time are known.
    pub const fn new(kind: AuditKind, at: Timestamp) -> Self {
        Self {
            at,
            kind,
            account: None,
            client: None,
            session: None,
            agent: String::new(),
            grant: None,
            message: None,
            detail: None,
            more: 0,
        }
    }
    /// At that account.
    #[must_use]
    pub fn account(self, address: &Address) -> Self {
        Self { account: Some(address.clone()), ..self }
    }
    /// From that client, where it is known.
    #[must_use]
    pub fn client(self, client: Option<IpAddr>) -> Self {
        Self { client: client.map(|client| client.to_canonical()), ..self }
    }
    /// By that browser, in a few words.
    #[must_use]
    pub fn agent(self, agent: &str) -> Self {
        Self { agent: agent.chars().take(LONGEST_AGENT).collect(), ..self }
    }
    /// In that session.
    #[must_use]
    pub fn session(self, id: &TokenHash) -> Self {
        let start = id.as_bytes().get(..8).unwrap_or_default();
        Self { session: Some(HEXLOWER.encode(start)), ..self }
    }
    /// With that grant.
    #[must_use]
    pub fn grant(self, grant: GrantId) -> Self {
        Self { grant: Some(grant), ..self }
    }
    /// With that message.
    #[must_use]
    pub fn message(self, message: QueueId) -> Self {
        Self { message: Some(message), ..self }
    }
    /// With more that is known.
    #[must_use]
    pub fn detail(self, detail: AuditDetail) -> Self {
        Self { detail: Some(detail), ..self }
    }
}

/// SHA-256 of a record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AuditHash([u8; 32]);
impl fmt::Display for AuditHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}
impl Serialize for AuditHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for AuditHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(D::Error::custom)?;
        bytes.try_into().map(Self).map_err(|_| D::Error::custom("not 64 hexadecimal digits"))
    }
}

/// A record of the trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// What happened.
    #[serde(flatten)]
    pub event: AuditEvent,
    /// Its number; the first is 1, and none is left out.
    pub seq: u64,
    /// Hash of the record before.
    pub prev: AuditHash,
    /// Its own hash; the module says of what.
    pub hash: AuditHash,
}
impl AuditRecord {
    /// The bytes that [`AuditRecord::hash`] is of.
    fn canonical(&self) -> Result<Vec<u8>, StoreError> {
        let wrong = |e: serde_json::Error| StoreError::Corrupt(format!("an audit record: {e}"));
        let value = serde_json::to_value(self).map_err(wrong)?;
        let members = value.as_object().into_iter().flatten();
        // Sorted here, whatever order the map of serde_json has.
        let sorted: BTreeMap<&str, &Value> =
            members.filter(|(name, _)| *name != "hash").map(|(n, v)| (n.as_str(), v)).collect();
        serde_json::to_vec(&sorted).map_err(wrong)
    }
    fn digest(&self) -> Result<AuditHash, StoreError> {
        Ok(AuditHash(Sha256::digest(self.canonical()?).into()))
    }
    fn link(&self) -> AuditLink {
        AuditLink { seq: self.seq, hash: self.hash }
    }
}

/// Number and hash of a record. That before the first is all zeros.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLink {
    /// Number.
    pub seq: u64,
    /// Hash.
    pub hash: AuditHash,
}
/// Where the kept records begin and end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditChain {
    /// The last record that was removed by age.
    pub anchor: AuditLink,
    /// The newest record.
    pub head: AuditLink,
}
impl AuditChain {
    /// Makes an event the next record.
    pub(super) fn append(&mut self, event: AuditEvent) -> Result<AuditRecord, StoreError> {
        let AuditLink { seq, hash: prev } = self.head;
        let seq = seq.saturating_add(1);
        let mut record = AuditRecord { event, seq, prev, hash: AuditHash::default() };
        record.hash = record.digest()?;
        self.head = record.link();
        Ok(record)
    }
    /// Notes that the oldest record is removed.
    pub(super) fn remove(&mut self, oldest: &AuditRecord) {
        self.anchor = oldest.link();
    }
    /// The chain that records speak of themselves, where its own row is lost.
    pub(super) fn of(first: &AuditRecord, last: &AuditRecord) -> Self {
        let anchor = AuditLink { seq: first.seq.saturating_sub(1), hash: first.prev };
        Self { anchor, head: last.link() }
    }
    /// True if it ends with that record.
    pub(super) fn ends_with(&self, last: Option<&AuditRecord>) -> bool {
        last.map_or(self.anchor == self.head, |last| last.link() == self.head)
    }
}

/// What is wrong with the trail, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case", tag = "fault")]
pub enum AuditFault {
    /// A record is not what its hash is of.
    #[error("record {seq} was changed")]
    Changed {
        /// Its number.
        seq: u64,
    },
    /// The next record, or the head, names another one in its place.
    #[error("record {seq} was replaced by another")]
    Replaced {
        /// Its number.
        seq: u64,
    },
    /// Records are not there or can't be read.
    #[error("records {from} to {to} are missing")]
    Missing {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
}
/// Checks records in their order against the chain.
#[derive(Debug)]
pub struct AuditCheck {
    head: AuditLink,
    last: AuditLink,
}
impl AuditCheck {
    /// Begins where the chain begins.
    pub const fn new(chain: AuditChain) -> Self {
        Self { head: chain.head, last: chain.anchor }
    }
    /// The next record; [`AuditFault`] if it does not follow. What comes after is checked from it on.
    pub fn next(&mut self, record: &AuditRecord) -> Result<(), AuditFault> {
        let before = std::mem::replace(&mut self.last, record.link());
        let expected = before.seq.saturating_add(1);
        if record.digest().ok() != Some(record.hash) {
            // The one that should follow it names the hash that it had.
            return Err(AuditFault::Changed { seq: record.seq });
        }
        if record.seq != expected {
            return Err(AuditFault::Missing { from: expected, to: record.seq.saturating_sub(1) });
        }
        if record.prev != before.hash {
            return Err(AuditFault::Replaced { seq: before.seq });
        }
        Ok(())
    }
    /// After the last record.
    pub fn end(self) -> Result<(), AuditFault> {
        let Self { head, last } = self;
        if last.seq < head.seq {
            return Err(AuditFault::Missing { from: last.seq.saturating_add(1), to: head.seq });
        }
        if last.seq == head.seq && last.hash != head.hash {
            return Err(AuditFault::Replaced { seq: head.seq });
        }
        Ok(())
    }
}

/// Finds how many of the oldest records have had their time.
#[derive(Debug)]
pub(super) struct AuditAges {
    now: Timestamp,
    /// What is older goes; `None`: nothing is.
    before: Option<Timestamp>,
    seen: usize,
    over: usize,
}
impl AuditAges {
    /// Records that are older than `age` have had their time.
    pub(super) fn new(now: TrustedTime, age: SignedDuration) -> Self {
        Self { now: now.get(), before: now.ago(age), seen: 0, over: 0 }
    }
    /// The next record, from the oldest on. False if neither it nor one after it goes.
    pub(super) fn next(&mut self, record: &AuditRecord) -> bool {
        let at = record.event.at;
        let old = self.before.is_some_and(|before| at < before);
        self.seen = self.seen.saturating_add(1);
        if old {
            self.over = self.seen;
        }
        // How old a record from the future is, the ones after it tell.
        old || at > self.now && self.before.is_some()
    }
    /// How many of them have had their time.
    pub(super) const fn over(&self) -> usize {
        self.over
    }
}

/// The trail. Records are never changed; they end by age, from the oldest on.
#[async_trait]
pub trait AuditStore: Send + Sync + fmt::Debug {
    /// Appends events as records, in this order; durable on return, all or none.
    async fn append(&self, events: Vec<AuditEvent>) -> Result<(), StoreError>;
    /// Up to `max` records, newest first: of one mailbox, whatever the case of its letters, or of all;
    /// those before that number, if one is given. What can't be read is left out.
    async fn events(
        &self,
        of: Option<&Address>,
        before: Option<u64>,
        max: usize,
    ) -> Result<Vec<AuditRecord>, StoreError>;
    /// Where the records begin and end.
    async fn chain(&self) -> Result<AuditChain, StoreError>;
    /// Up to `max` records after that number in their order. What can't be read is left out, so that
    /// [`AuditCheck`] finds it missing.
    async fn records(&self, after: u64, max: usize) -> Result<Vec<AuditRecord>, StoreError>;
    /// Removes up to `max` records from the oldest end, as far as they are older than `age`; the anchor
    /// moves with them. Returns how many. A record from the future, of a time when the clock was ahead,
    /// goes with the next one that is not.
    async fn purge_events(
        &self,
        now: TrustedTime,
        age: SignedDuration,
        max: usize,
    ) -> Result<usize, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(second: i64) -> AuditEvent {
        AuditEvent::new(AuditKind::WrongPassword, Timestamp::from_second(second).unwrap())
            .account(&"Ann@Clinic.example".parse().unwrap())
            .client(Some("2001:db8::1".parse().unwrap()))
            .agent("Firefox on Linux")
            .detail(AuditDetail::NoAccount)
    }
    fn trail(records: i64) -> (AuditChain, Vec<AuditRecord>) {
        let mut chain = AuditChain::default();
        let records = (0..records).map(|n| chain.append(event(n)).unwrap()).collect();
        (chain, records)
    }
    fn faults(chain: AuditChain, records: &[AuditRecord]) -> Vec<AuditFault> {
        let mut check = AuditCheck::new(chain);
        let mut found: Vec<_> = records.iter().filter_map(|r| check.next(r).err()).collect();
        found.extend(check.end().err());
        found
    }

    #[test]
    fn the_canonical_form_is_that_of_rfc_8785() {
        let (_, records) = trail(1);
        let text = String::from_utf8(records[0].canonical().unwrap()).unwrap();
        let zeros = "0".repeat(64);
        assert_eq!(
            text,
            format!(
                "{{\"account\":\"Ann@clinic.example\",\"agent\":\"Firefox on Linux\",\
                 \"at\":\"1970-01-01T00:00:00Z\",\"client\":\"2001:db8::1\",\
                 \"detail\":\"no-account\",\"event\":\"wrong-password\",\"prev\":\"{zeros}\",\
                 \"seq\":1}}"
            )
        );
        // The record as it is printed, its hash taken off, by the means of another program.
        let printed = serde_json::to_string(&records[0]).unwrap();
        let members: BTreeMap<String, Value> = serde_json::from_str(&printed).unwrap();
        let hash = members["hash"].as_str().unwrap().to_owned();
        let rest: BTreeMap<_, _> = members.into_iter().filter(|(n, _)| n != "hash").collect();
        let outside = Sha256::digest(serde_json::to_vec(&rest).unwrap());
        assert_eq!(HEXLOWER.encode(&outside), hash);
    }

    #[test]
    fn a_changed_cut_or_missing_record_is_located() {
        let (chain, sound) = trail(9);
        assert_eq!(faults(chain, &sound), []);
        let with = |change: &dyn Fn(&mut Vec<AuditRecord>)| {
            let mut records = sound.clone();
            change(&mut records);
            faults(chain, &records)
        };
        let changed = with(&|r| r[4].event.client = None);
        assert_eq!(changed, [AuditFault::Changed { seq: 5 }]);
        let replaced = with(&|r| {
            r[4].event.client = None;
            r[4].hash = r[4].digest().unwrap();
        });
        assert_eq!(replaced, [AuditFault::Replaced { seq: 5 }]);
        let last = with(&|r| {
            r[8].event.more = 1;
            r[8].hash = r[8].digest().unwrap();
        });
        assert_eq!(last, [AuditFault::Replaced { seq: 9 }]);
        for (cut, from, to) in [(0..1, 1, 1), (3..5, 4, 5), (7..9, 8, 9), (0..9, 1, 9)] {
            let missing = with(&|r| drop(r.drain(cut.clone())));
            assert_eq!(missing, [AuditFault::Missing { from, to }]);
        }
    }

    #[test]
    fn a_trail_that_has_ended_in_part_is_sound_from_its_anchor() {
        let (mut chain, mut records) = trail(5);
        chain.remove(&records.remove(0));
        chain.remove(&records.remove(0));
        assert_eq!(faults(chain, &records), []);
        assert_eq!(AuditChain::of(&records[0], &records[2]), chain);
        records.remove(0);
        assert_eq!(faults(chain, &records), [AuditFault::Missing { from: 3, to: 3 }]);
    }

    #[test]
    fn names_are_kebab_case_and_told_apart() {
        for kind in AuditKind::ALL {
            let text = serde_json::to_string(&kind).unwrap();
            assert_eq!(serde_json::from_str::<AuditKind>(&text).unwrap(), kind);
            assert!(kind.as_str().chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{kind}");
        }
        let names: std::collections::BTreeSet<_> = AuditKind::ALL.map(AuditKind::as_str).into();
        assert_eq!(names.len(), AuditKind::ALL.len());
        let detail = serde_json::to_string(&AuditDetail::Attachment(2)).unwrap();
        assert_eq!(detail, "{\"attachment\":2}");
    }
}
