//! Recipients: grants (who may open what), accounts, codes, sessions. Tokens and passwords as
//! hashes only.
use crate::{
    mail::{Address, GrantId, QueueId},
    seal::TokenHash,
    store::StoreError,
};
use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

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
    /// The sender's side took it back.
    Recalled,
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
    /// The grant whose link led here; shown after sign-in.
    pub wants: Option<GrantId>,
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
    /// The account that comes into being (or gets this password) when the code is right.
    pub account: Account,
}
impl Account {
    /// Accounts named at most by [`PeopleStore::accounts_like`].
    pub const LIKE: usize = 2;
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
    /// True if it is of that mailbox: signed in, or waiting for a code that would make or change
    /// its account.
    pub fn is_of(&self, address: &Address) -> bool {
        let signed_in = self.account.as_ref().is_some_and(|(a, _)| a == address);
        signed_in || self.pending.as_ref().is_some_and(|code| code.account.address == *address)
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
    /// An account.
    async fn account(&self, address: &Address) -> Result<Option<Account>, StoreError>;
    /// Up to [`Account::LIKE`] accounts whose address reads the same when the case of its letters
    /// is left aside: for people who type theirs.
    async fn accounts_like(&self, address: &Address) -> Result<Vec<Account>, StoreError>;
    /// Creates or replaces an account.
    async fn put_account(&self, account: &Account) -> Result<(), StoreError>;
    /// Removes an account and its sessions. Its grants stay: a message is for a mailbox, and who
    /// registers that mailbox anew has proved to hold it, and finds what is still kept for it.
    async fn remove_account(&self, address: &Address) -> Result<(), StoreError>;
    /// Accounts after that address.
    async fn accounts(
        &self,
        after: Option<&Address>,
        max: usize,
    ) -> Result<Vec<Account>, StoreError>;
    /// A session.
    async fn session(&self, id: &TokenHash) -> Result<Option<Session>, StoreError>;
    /// Creates or replaces a session.
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
