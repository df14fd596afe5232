//! Recipients: grants (who may open what), accounts, codes, sessions. Tokens and passwords as
//! hashes only.
use crate::{
    mail::{Address, GrantId, QueueId},
    seal::{TokenHash, WrappedKey},
    store::{Proof, StoreError},
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
/// A recipient's account. Written only once the mailbox has proved itself by a code.
///
/// `Ann@x` and `ann@x` are two mailboxes with an account each (RFC 5321 §2.4: only the host that
/// has the mailbox knows whether case counts there): what was sealed for one is never shown to the
/// other.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The mailbox.
    pub address: Address,
    /// Random number of this identity: an address that is removed and registered again is somebody
    /// new.
    pub generation: [u8; 16],
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
    /// Who is signed in, if anybody: address and generation.
    pub account: Option<(Address, [u8; 16])>,
    /// Registration or reset that waits for its code in this browser.
    pub pending: Option<Code>,
    /// Who has shown the first factor, and must show the second before being signed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half: Option<(Address, [u8; 16])>,
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
    /// Accounts named at most by [`PeopleStore::accounts_like`].
    pub const LIKE: usize = 2;
    /// A new identity of a mailbox: no names, and no way in yet.
    pub const fn new(address: Address, generation: [u8; 16], created: Timestamp) -> Self {
        Self {
            address,
            generation,
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
        grant.recipient == self.address && self.since.is_none_or(|since| grant.sealed > since)
    }
    /// The second factor, if it is in use.
    pub fn second_factor(&self) -> Option<&SecondFactor> {
        self.second.as_ref().filter(|second| second.on)
    }
}
/// An address without the case of its letters.
pub(super) fn without_case(address: &Address) -> String {
    address.to_string().to_lowercase()
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
    /// True if it lives and nobody has opened it.
    pub fn can_be_recalled(&self) -> bool {
        self.state == GrantState::Live && self.opened.is_none()
    }
    /// Takes over what may change of a grant: `opened`, `expires`, `state`. A grant that has ended
    /// stays ended, with its time, for its key may be destroyed already.
    pub const fn update(&mut self, new: &Self) {
        self.opened = new.opened;
        if matches!(self.state, GrantState::Live) {
            self.expires = new.expires;
            self.state = new.state;
        }
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
    /// True if it is of that mailbox: signed in or on the way there, or waiting for a code that
    /// would make or change its account.
    pub fn is_of(&self, address: &Address) -> bool {
        let in_or_half = self.account.iter().chain(&self.half).any(|(a, _)| a == address);
        in_or_half || self.pending.as_ref().is_some_and(|code| code.account.address == *address)
    }
    /// True if [`PeopleStore::remove_sessions`] with these arguments ends it, `keep` apart.
    pub fn ends_with(&self, account: Option<&Address>, before: Option<Timestamp>) -> bool {
        account.map_or_else(|| before.is_some_and(|t| self.seen < t), |a| self.is_of(a))
    }
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
    /// Writes a grant's `opened`, `expires` or `state`; the grant must exist.
    async fn update_grant(&self, grant: &Grant) -> Result<(), StoreError>;
    /// Writes a grant's `proof` if it still is `old`. False, and nothing is changed, if it is not:
    /// no try is lost among others at the same time. The grant must exist.
    async fn change_proof(
        &self,
        grant: GrantId,
        old: Option<&Proof>,
        new: &Proof,
    ) -> Result<bool, StoreError>;
    /// An account.
    async fn account(&self, address: &Address) -> Result<Option<Account>, StoreError>;
    /// Up to [`Account::LIKE`] accounts whose address reads the same when the case of its letters
    /// is left aside: for people who type theirs.
    async fn accounts_like(&self, address: &Address) -> Result<Vec<Account>, StoreError>;
    /// The account of that identity.
    async fn account_of(&self, generation: [u8; 16]) -> Result<Option<Account>, StoreError>;
    /// Creates or replaces an account.
    async fn put_account(&self, account: &Account) -> Result<(), StoreError>;
    /// Creates an account where there is none (`old` is `None`), or replaces it if it still is what
    /// it was. False, and nothing is changed, if it is not: two changes at a time never undo each
    /// other.
    async fn change_account(
        &self,
        old: Option<&Account>,
        new: &Account,
    ) -> Result<bool, StoreError>;
    /// Removes an account and its sessions; false if there was none. A mailbox belongs to a person
    /// and not to a string: what was sealed for it so far is for nobody who registers it anew, and
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
    /// Up to `max` sessions that are signed in at that account, in no order.
    async fn sessions(&self, account: &Address, max: usize) -> Result<Vec<Session>, StoreError>;
    /// Creates or replaces a session. Who is signed in never changes.
    async fn put_session(&self, session: &Session) -> Result<(), StoreError>;
    /// Notes that a session was used. One that has ended meanwhile stays ended: a request that runs
    /// beside a sign-out must not bring it back.
    async fn touch_session(&self, id: &TokenHash, seen: Timestamp) -> Result<(), StoreError>;
    /// Ends a session.
    async fn remove_session(&self, id: &TokenHash) -> Result<(), StoreError>;
    /// Ends all sessions of an account but `keep`; and, with no account given, those unseen since
    /// `before`.
    async fn remove_sessions(
        &self,
        account: Option<&Address>,
        keep: Option<&TokenHash>,
        before: Option<Timestamp>,
    ) -> Result<usize, StoreError>;
}
