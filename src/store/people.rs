//! Recipients: grants (who may open what), accounts, codes, sessions. Tokens and passwords as
//! hashes only.
use crate::{
    mail::{Address, GrantId, QueueId},
    seal::{TokenHash, WrappedKey},
    store::{AuditEvent, NewMessage, Proof, SessionFacts, SignedBy, StoreError},
};
use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Leave to open one message at the portal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Its id, the one in `/inbox/ID`.
    pub id: GrantId,
    /// The message.
    pub message: QueueId,
    /// Whose.
    pub recipient: Address,
    /// Hash of the link's token.
    pub token: TokenHash,
    /// When it was sealed.
    pub sealed: Timestamp,
    /// When key and body are destroyed.
    pub expires: Timestamp,
    /// First opened.
    pub opened: Option<Timestamp>,
    /// State.
    pub state: GrantState,
    /// What it is to its owner.
    #[serde(default)]
    pub kind: GrantKind,
    /// The grant whose message this one's holds: an author's copy of what was forwarded. It ends
    /// with that grant, and no later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<GrantId>,
    /// Where its account got another address: that address, and when. The recipient stays the mailbox
    /// that it was sealed for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<Box<(Address, Timestamp)>>,
    /// What its reader must prove beyond the mailbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
}
/// What a message is to the owner of its grant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GrantKind {
    /// It was sealed for them.
    #[default]
    Received,
    /// They wrote it at the portal, and this is their own copy. No link leads to it.
    Sent,
}
/// Whether a grant still opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GrantState {
    /// It opens.
    Live,
    /// Its time is over.
    Expired,
    /// Its notice was refused for good, so nobody can come for it.
    Recalled,
    /// The sender's side took it back.
    Withdrawn,
}
/// A recipient's account. Written only once the mailbox has proved itself.
///
/// One mailbox has one account, however the case of its letters is typed: no mail system in use
/// tells `Ann@x` and `ann@x` apart, though RFC 5321 §2.4 would let it. Mail keeps the spelling that
/// it was sent with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The mailbox.
    pub address: Address,
    /// Random number of this identity: an address that is removed and registered again is another
    /// one.
    pub generation: [u8; 16],
    /// Counts changes of credentials. A session of an older epoch has ended, whatever was in flight
    /// when the epoch began.
    #[serde(default)]
    pub epoch: u64,
    /// When that epoch began. A code that was asked for before does not sign in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch_since: Option<Timestamp>,
    /// When its credentials were last established by a mailed code alone: at registration, and at
    /// each reset. They prove no more than the mailbox did at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rooted: Option<Timestamp>,
    /// What those who have its credentials have proved.
    #[serde(default, skip_serializing_if = "Assurance::is_mailbox")]
    pub assurance: Assurance,
    /// Browsers that have signed in, the latest last; at most [`Account::DEVICES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// First name.
    pub first_name: String,
    /// Last name.
    pub last_name: String,
    /// Argon2id PHC string.
    pub password: String,
    /// When.
    pub created: Timestamp,
    /// Locked by the help desk.
    pub locked: bool,
    /// Its owner has deleted it, and knows: what is kept for it and the account itself are still to be
    /// removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// The mailbox had another identity until then: what was sealed for it up to that time is not
    /// this one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Language that the reader likes best.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Second factor, also one that is still being set up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<SecondFactor>,
    /// Passkeys (`WebAuthn`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passkeys: Vec<Passkey>,
}
/// What those who have an account's credentials have proved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Assurance {
    /// That they read the mailbox.
    #[default]
    Mailbox,
    /// Less: it was registered by a mailed code while the line to its mailbox was in doubt. Such an
    /// account opens nothing by itself.
    Doubted,
    /// More: a phrase or a code by text message was typed in a session that these credentials signed
    /// in.
    Proved,
}
impl Assurance {
    /// True for the default, which is not stored.
    pub const fn is_mailbox(&self) -> bool {
        matches!(self, Self::Mailbox)
    }
}
/// A browser that has signed in at an account: it has a budget of wrong tries of its own, so that
/// strangers who try passwords do not lock it out (OWASP, device cookies).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Hash of its cookie.
    pub id: TokenHash,
    /// When it last signed in.
    pub used: Timestamp,
}
/// A passkey: a public key whose other half never leaves the reader's device.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passkey {
    /// Credential id, base64url.
    pub id: String,
    /// Public key, `SubjectPublicKeyInfo` in DER, base64url.
    pub key: String,
    /// COSE algorithm of its signatures.
    pub algorithm: i32,
    /// Signatures that its device has counted; 0 if it does not count.
    pub counter: u32,
    /// Whether its device may copy it to others of its owner; unknown of keys from before this was
    /// noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copyable: Option<bool>,
    /// What its owner calls it.
    pub name: String,
    /// When it was added.
    pub created: Timestamp,
    /// True if it was added to an account of [`Assurance::Proved`], or signed in the session that
    /// proved it. Others prove no more than the mailbox did.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub proved: bool,
    /// When it last let somebody in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Timestamp>,
}
/// Time-based one-time passwords (RFC 6238) of an account.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecondFactor {
    /// What the secret is made from, sealed.
    pub seed: WrappedKey,
    /// True once a code has proved that the reader's app has the secret; asked for from then on.
    pub on: bool,
    /// The last time step that was used: each code is good once (RFC 6238 §5.2).
    pub step: u64,
    /// Hashes of recovery codes that are left.
    pub recovery: Vec<TokenHash>,
}
/// A browser's session; kept under the hash of its cookie.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Hash of the cookie.
    pub id: TokenHash,
    /// The account that is signed in.
    pub account: Option<SignedIn>,
    /// Registration, sign-in or reset that waits for its code in this browser.
    pub pending: Option<Code>,
    /// The account whose first factor was shown, and whose second must follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half: Option<SignedIn>,
    /// The grant whose link led here; shown after sign-in.
    pub wants: Option<GrantId>,
    /// When the password was last typed, for what asks for it anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proved: Option<Timestamp>,
    /// The browser, in a few words, for its owner to know it again.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub agent: String,
    /// Where it was when it signed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
    /// Begun.
    pub created: Timestamp,
    /// Last used (written at most once a minute).
    pub seen: Timestamp,
}
/// An account as a session names it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedIn {
    /// The mailbox.
    pub address: Address,
    /// See [`Account::generation`].
    pub generation: [u8; 16],
    /// See [`Account::epoch`].
    pub epoch: u64,
    /// How it was proved.
    pub by: SignedBy,
    /// The credential id of the passkey that signed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passkey: Option<String>,
}
/// A mailed code that is awaited.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    /// Hash of code and session.
    pub hash: TokenHash,
    /// Valid until.
    pub until: Timestamp,
    /// Tries left.
    pub tries: u8,
    /// The account that comes into being when the code is right. For another purpose only its
    /// address counts, as it was typed: there may be no such account.
    pub account: Account,
    /// What the code is for.
    #[serde(default)]
    pub purpose: Purpose,
}
/// What a mailed code is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// The mailbox proves itself, and its account comes into being.
    #[default]
    Register,
    /// A new password.
    Reset,
    /// Sign-in without a password.
    SignIn,
}
impl Account {
    /// Browsers remembered.
    pub const DEVICES: usize = 16;
    /// Sessions that it has at a time; a further one ends the oldest.
    pub const SESSIONS: usize = 20;
    /// A new identity of a mailbox: no names, and no way in yet.
    pub const fn new(address: Address, generation: [u8; 16], created: Timestamp) -> Self {
        Self {
            address,
            generation,
            epoch: 0,
            epoch_since: None,
            rooted: None,
            assurance: Assurance::Mailbox,
            deleted: false,
            devices: Vec::new(),
            first_name: String::new(),
            last_name: String::new(),
            password: String::new(),
            created,
            locked: false,
            since: None,
            language: None,
            second: None,
            passkeys: Vec::new(),
        }
    }
    /// True if a grant is for this identity: for its mailbox, and not from a time when the mailbox
    /// was somebody else's.
    pub fn holds(&self, grant: &Grant) -> bool {
        let from = grant.moved.as_ref().map_or(grant.sealed, |moved| moved.1);
        let mailbox = grant.mailbox();
        mailbox.same_mailbox(&self.address) && self.since.is_none_or(|since| from > since)
    }
    /// As a session names it.
    pub fn signed_in(&self, by: SignedBy) -> SignedIn {
        let (address, generation, epoch) = (self.address.clone(), self.generation, self.epoch);
        SignedIn { address, generation, epoch, by, passkey: None }
    }
    /// What is known of a session that is signed in so: its credentials are as old as the account,
    /// or as the last mailed code that alone established them.
    pub fn session_facts(&self, named: &SignedIn, session: TokenHash) -> SessionFacts {
        let rooted = Some(self.rooted.unwrap_or(self.created));
        let mut keys = self.passkeys.iter().filter(|key| key.proved);
        let key = keys.find(|key| named.passkey.as_ref() == Some(&key.id));
        let passkey = key.map(|key| key.created);
        SessionFacts { by: named.by, rooted, session: Some(session), passkey }
    }
    /// True if a session that names it so is still its own: the same identity, no change of
    /// credentials since, not locked.
    pub fn is(&self, named: &SignedIn) -> bool {
        self.generation == named.generation && self.epoch == named.epoch && !self.locked
    }
    /// The second factor, if it is in use.
    pub fn second_factor(&self) -> Option<&SecondFactor> {
        self.second.as_ref().filter(|second| second.on)
    }
}
impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Device(..)")
    }
}
impl std::fmt::Debug for SignedIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SignedIn({}, {:?})", self.address, self.by)
    }
}
impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Account({})", self.address)
    }
}
impl std::fmt::Debug for Passkey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passkey(..)")
    }
}
impl std::fmt::Debug for SecondFactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecondFactor(..)")
    }
}
impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session(..)")
    }
}
impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Code(..)")
    }
}
impl Grant {
    /// The mailbox whose account may hold it.
    pub fn mailbox(&self) -> &Address {
        self.moved.as_ref().map_or(&self.recipient, |moved| &moved.0)
    }
    /// True if it lives and nobody has opened it.
    pub fn can_be_recalled(&self) -> bool {
        self.state == GrantState::Live && self.opened.is_none()
    }
    /// Takes over what may change of a grant: `opened`, `expires`, `state`. What was opened stays so
    /// since the first time. A grant that has ended stays ended, with its time, for its key may be destroyed already.
    pub const fn update(&mut self, new: &Self) {
        if self.opened.is_none() {
            self.opened = new.opened;
        }
        if matches!(self.state, GrantState::Live) {
            self.expires = new.expires;
            self.state = new.state;
        }
    }
    /// Ends no later than the grant that it comes from, and with it; `None`: that one is no longer
    /// on record. True if anything changed.
    pub fn bound_by(&mut self, origin: Option<&Self>) -> bool {
        if self.state != GrantState::Live {
            return false;
        }
        let (state, expires) =
            origin.map_or((GrantState::Expired, self.expires), |o| (o.state, o.expires));
        let changed = state != GrantState::Live || expires < self.expires;
        (self.state, self.expires) = (state, self.expires.min(expires));
        changed
    }
}
impl Session {
    /// A session of nobody yet.
    pub const fn new(id: TokenHash, now: Timestamp) -> Self {
        Self {
            id,
            account: None,
            pending: None,
            half: None,
            wants: None,
            proved: None,
            agent: String::new(),
            client: None,
            created: now,
            seen: now,
        }
    }
    /// The mailbox that it is signed in at, or on the way to, or whose code it awaits.
    pub fn mailbox(&self) -> Option<&Address> {
        let named = self.account.as_ref().or(self.half.as_ref()).map(|named| &named.address);
        named.or_else(|| self.pending.as_ref().map(|code| &code.account.address))
    }
}
/// A change of an account with all that follows from it: one commit, of which no half is ever seen.
#[derive(Debug)]
pub struct AccountChange {
    /// The account as it was read; `None`: there is none yet.
    pub old: Option<Account>,
    /// As it is from now on; of the same mailbox.
    pub new: Account,
    /// The session of the browser that asks for the change, as it goes on.
    pub session: Option<Session>,
    /// The session that it takes the place of.
    pub ends: Option<TokenHash>,
    /// Mail that tells the owner.
    pub mail: Vec<NewMessage>,
    /// Records of it.
    pub events: Vec<AuditEvent>,
}
impl AccountChange {
    /// A change that brings nothing else.
    pub const fn new(old: Option<Account>, new: Account) -> Self {
        Self { old, new, session: None, ends: None, mail: Vec::new(), events: Vec::new() }
    }
}
/// A change of what a grant asks beyond the mailbox, with all that follows from it: one commit.
#[derive(Debug)]
pub struct ProofChange {
    /// The grant.
    pub grant: GrantId,
    /// The proof as it was read.
    pub old: Option<Proof>,
    /// As it is from now on.
    pub new: Proof,
    /// Mail that tells of it.
    pub mail: Vec<NewMessage>,
    /// Records of it.
    pub events: Vec<AuditEvent>,
}
impl ProofChange {
    /// A change that brings nothing else.
    pub const fn new(grant: GrantId, old: Option<Proof>, new: Proof) -> Self {
        Self { grant, old, new, mail: Vec::new(), events: Vec::new() }
    }
}
/// An account gets another address, and keeps everything else.
#[derive(Debug)]
pub struct AccountMove {
    /// The account as it was read.
    pub account: Account,
    /// Its new address.
    pub to: Address,
    /// When.
    pub at: Timestamp,
    /// Mail that tells of it.
    pub mail: Vec<NewMessage>,
    /// Records of it.
    pub events: Vec<AuditEvent>,
}
impl AccountMove {
    /// Grants of each kind that one commit takes along.
    pub const GRANTS: usize = 5_000;
    /// The account as it becomes, where the address had its last account removed then.
    pub(super) fn moved(&self, vacated: Option<Timestamp>) -> Account {
        Account {
            address: self.to.clone(),
            since: vacated,
            epoch: self.account.epoch.saturating_add(1),
            epoch_since: Some(self.at),
            ..self.account.clone()
        }
    }
}
/// What became of [`PeopleStore::move_account`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// It has the new address.
    Done {
        /// Grants that it holds there.
        grants: usize,
        /// Sessions that ended.
        sessions: usize,
    },
    /// The account is not as it was read; nothing is changed.
    Changed,
    /// The new address has an account; nothing is changed.
    Taken,
    /// It holds more than [`AccountMove::GRANTS`]; nothing is changed.
    TooMany,
}
/// People and their grants. Grants come into being in `QueueStore::settle`, an author's own copy in
/// `QueueStore::accept`.
#[async_trait]
pub trait PeopleStore: Send + Sync + std::fmt::Debug {
    /// The grant of a link.
    async fn grant_by_token(&self, token: &TokenHash) -> Result<Option<Grant>, StoreError>;
    /// Up to `max` grants whose token's hash begins with these bytes.
    async fn grants_by_hash(&self, start: [u8; 6], max: usize) -> Result<Vec<Grant>, StoreError>;
    /// A grant.
    async fn grant(&self, id: GrantId) -> Result<Option<Grant>, StoreError>;
    /// Grants of messages received, newest first, of one recipient or of all, after that one.
    async fn grants(
        &self,
        recipient: Option<&Address>,
        after: Option<GrantId>,
        max: usize,
    ) -> Result<Vec<Grant>, StoreError>;
    /// Grants of messages that somebody wrote at the portal, newest first, after that one.
    async fn sent(
        &self,
        author: &Address,
        after: Option<GrantId>,
        max: usize,
    ) -> Result<Vec<Grant>, StoreError>;
    /// Writes a grant's `opened`, `expires` or `state`; the grant must exist. Copies that come from it
    /// ([`Grant::origin`]), and copies of those, end with it in the same commit.
    async fn update_grant(&self, grant: &Grant) -> Result<(), StoreError>;
    /// Notes that the message of a grant was opened then, if the grant lives and was not opened
    /// before; true if that was noted now. The grant must exist.
    async fn mark_opened(&self, id: GrantId, at: Timestamp) -> Result<bool, StoreError>;
    /// Writes a grant's `proof` together with all that follows from it, in one commit. False, and
    /// nothing is written, if it is not any more what `old` says: no try is lost among others at the
    /// same time. The grant must exist.
    async fn change_proof(&self, change: ProofChange) -> Result<bool, StoreError>;
    /// An account.
    async fn account(&self, address: &Address) -> Result<Option<Account>, StoreError>;
    /// The account of that identity.
    async fn account_of(&self, generation: [u8; 16]) -> Result<Option<Account>, StoreError>;
    /// Writes an account together with all that follows from it, in one commit. False, and nothing
    /// is written, if the account is not any more what `old` says: two changes at a time never undo
    /// each other. Where the epoch changes, all sessions of older epochs end in the same commit. The
    /// mail of it is taken also while space is short ([`Health::Full`](crate::store::Health)).
    async fn change_account(&self, change: AccountChange) -> Result<bool, StoreError>;
    /// Gives an account another address, in one commit with the mail and the records of it. What it
    /// holds it holds there; its sessions end; the old address is vacated.
    async fn move_account(&self, change: AccountMove) -> Result<Moved, StoreError>;
    /// Removes an account and its sessions; false if there was none. A mailbox belongs to a person
    /// and not to a string: what was sealed for it so far is not for its next holder, and
    /// [`PeopleStore::vacated`] says so from then on.
    async fn remove_account(&self, address: &Address, at: Timestamp) -> Result<bool, StoreError>;
    /// When the last account of that address was removed.
    async fn vacated(&self, address: &Address) -> Result<Option<Timestamp>, StoreError>;
    /// Accounts after that address.
    async fn accounts(
        &self,
        after: Option<&Address>,
        max: usize,
    ) -> Result<Vec<Account>, StoreError>;
    /// A session.
    async fn session(&self, id: &TokenHash) -> Result<Option<Session>, StoreError>;
    /// All sessions that are signed in at that account, in no order: at most
    /// [`Account::SESSIONS`].
    async fn sessions(&self, account: &Address) -> Result<Vec<Session>, StoreError>;
    /// Creates a session that is signed in nowhere, or replaces one whose `account` stays as it was.
    /// [`PeopleStore::change_account`] signs in.
    async fn put_session(&self, session: &Session) -> Result<(), StoreError>;
    /// Replaces a session if it is still there and still what it was; false if not. A request that
    /// runs beside a sign-out must not bring a session back, and two never spend one try.
    async fn change_session(&self, old: &Session, new: &Session) -> Result<bool, StoreError>;
    /// Notes that a session was used. One that has ended meanwhile stays ended.
    async fn touch_session(&self, id: &TokenHash, seen: Timestamp) -> Result<(), StoreError>;
    /// Ends a session.
    async fn remove_session(&self, id: &TokenHash) -> Result<(), StoreError>;
    /// Ends sessions unseen since `before`: looks at up to `max` after that one, and says which was
    /// the last if there are more.
    async fn expire_sessions(
        &self,
        before: Timestamp,
        after: Option<TokenHash>,
        max: usize,
    ) -> Result<Option<TokenHash>, StoreError>;
}
