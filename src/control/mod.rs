//! The control socket: how the command line asks the running server.
//!
//! One Unix socket, `control.sock` in the data directory, mode 0600: whoever may open it may ask. A
//! request is one line of JSON, the answer is one line of JSON; both are bounded. The answers are
//! the very values that `--json` prints, so the two can't drift apart.

pub mod accounts;
pub mod audit;
pub mod client;
pub mod orders;
pub mod server;
pub mod vault;
pub mod view;

use crate::mail::Domain;
use jiff::{Timestamp, civil::Date};
use serde::{Deserialize, Serialize};

/// Bytes of a request line at most.
pub const MAX_REQUEST: u64 = 16 * 1024;
/// Bytes of an answer line at most.
pub const MAX_ANSWER: u64 = 64 * 1024 * 1024;

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Request {
    /// `restante status`
    Status,
    /// `restante queue list`: a page of messages with a recipient that waits or is held.
    QueueList {
        /// Continue after this id.
        after: Option<String>,
        /// Messages a page.
        max: usize,
    },
    /// `restante queue hold|release|retry|remove`: a page of the queue.
    QueueOrder(orders::QueueOrder),
    /// `restante queue show ID`
    QueueShow {
        /// Queue id.
        id: String,
    },
    /// `restante trace QUERY`
    Trace {
        /// A queue id, a Message-ID or an address.
        query: String,
    },
    /// `restante policy replay`: a page of customers' messages with their decisions and attempts.
    Decisions {
        /// Messages that arrived then or later.
        since: Timestamp,
        /// Continue after this id.
        after: Option<String>,
        /// Messages a page.
        max: usize,
    },
    /// `restante vault list`: a page of live grants.
    VaultList {
        /// Continue after this grant.
        after: Option<String>,
        /// Grants a page.
        max: usize,
    },
    /// `restante vault show ID`
    VaultShow {
        /// Queue id.
        id: String,
    },
    /// `restante vault extend ID DURATION`
    VaultExtend {
        /// Queue id.
        id: String,
        /// Seconds to add.
        seconds: i64,
    },
    /// `restante vault recall ID`
    VaultRecall {
        /// Queue id.
        id: String,
        /// Of this recipient only.
        recipient: Option<String>,
    },
    /// `restante vault export ID`: the answer says the size, and the message itself follows it.
    VaultExport {
        /// Queue id.
        id: String,
    },
    /// `restante vault doubts`: a page of domains whose line is in doubt.
    VaultDoubts {
        /// Continue after this domain.
        after: Option<String>,
        /// Domains a page.
        max: usize,
    },
    /// `restante vault trust DOMAIN`
    VaultTrust {
        /// The domain.
        domain: Domain,
    },
    /// `restante account list`: a page of accounts.
    AccountList {
        /// Continue after this address.
        after: Option<String>,
        /// Accounts a page.
        max: usize,
    },
    /// `restante account show|lock|unlock|reset|remove ADDRESS`
    Account {
        /// What is to be done.
        order: accounts::AccountOrder,
        /// Whose.
        address: String,
    },
    /// `restante account move OLD NEW`
    AccountMove {
        /// The account's address.
        address: String,
        /// Its new one.
        to: String,
    },
    /// `restante account log` and `restante audit search|export`: a page of records.
    AuditRecords {
        /// Which.
        query: audit::AuditQuery,
        /// Continue after this number.
        after: Option<String>,
        /// Records a page.
        max: usize,
    },
    /// `restante audit verify`
    AuditVerify,
    /// `restante clock confirm`
    ClockConfirm,
    /// `restante keys list`
    Keys,
    /// `restante keys rotate`
    KeysRotate,
    /// `restante keys reload`
    KeysReload,
    /// `restante tls-report`: a page of reports.
    TlsReport {
        /// Of this day (UTC).
        day: Option<Date>,
        /// Of this domain.
        domain: Option<Domain>,
        /// Continue after this one.
        after: Option<String>,
        /// Reports a page.
        max: usize,
    },
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// What `--json` prints.
    Ok(serde_json::Value),
    /// The answer is no, or it can't be given now.
    No {
        /// Why.
        why: Refusal,
        /// A sentence.
        text: String,
    },
}

/// Kinds of refusal; the command line makes exit codes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// Nothing by that name: exit 1.
    NotFound,
    /// The request itself is wrong: exit 64.
    Usage,
    /// The store can't answer now: exit 75.
    TryAgain,
}

/// A page of a long list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// Its rows.
    pub rows: Vec<serde_json::Value>,
    /// Ask on after this; `None` at the end.
    pub next: Option<String>,
}
