//! The one place that says what each failure means: for the recipient, the host or the message;
//! temporary or permanent; and its enhanced status (RFC 3463). Matches on our own types are
//! exhaustive, so that a new kind of failure does not compile until somebody has said here what it
//! means.

use super::{bounded, pace::Contact};
use crate::{
    mail::{EnhancedStatus, StatusClass},
    policy::{PolicyRef, Reason, Trouble, Why},
    smtp::{RecipientReply, Reply},
    store::StoreError,
    vault::VaultError,
    wire::SendError,
};

/// RFC 3463 §3.4: other or undefined mail system status.
pub(super) const OURS: EnhancedStatus = EnhancedStatus::transient(3, 0);
/// Texts of a record are bounded to this many bytes.
pub(super) const TEXT_MAX: usize = 512;

/// What one attempt means for one recipient.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fate {
    /// The next hop took it.
    Delivered {
        /// Why it could go.
        why: Why,
        /// The reply that took it.
        reply: String,
        /// It reports success and failure from here on (RFC 3461 §5.2.1).
        dsn: bool,
    },
    /// To be sealed for pickup.
    Sealed {
        /// Why.
        why: Why,
        /// A level was not met: the line to the domain is in doubt.
        doubt: bool,
    },
    /// To be tried again.
    Deferred {
        /// Why.
        why: Why,
        /// Class 4.
        status: EnhancedStatus,
    },
    /// Never to be tried again.
    Failed {
        /// Why.
        why: Why,
        /// Class 5.
        status: EnhancedStatus,
    },
}

impl Fate {
    /// The decision behind it.
    pub(super) fn why(&self) -> &Why {
        match self {
            Self::Delivered { why, .. }
            | Self::Sealed { why, .. }
            | Self::Deferred { why, .. }
            | Self::Failed { why, .. } => why,
        }
    }

    /// Our own trouble, never the recipient's: later again.
    pub(super) fn ours(policy: PolicyRef, text: impl Into<String>) -> Self {
        let why = Why { reason: Reason::Ours, text: bounded(text.into(), TEXT_MAX), policy };
        Self::Deferred { status: OURS, why }
    }
}

/// The peer's reply for one recipient, over a connection that was cleared: 2xx delivered, 4xx again
/// later, 5xx never (RFC 5321 §4.2.1). Anything else is a peer that does not speak SMTP: later
/// again.
pub(super) fn of_reply(reply: &RecipientReply, host: &str, cleared: &Why) -> Fate {
    let text = bounded(reply.reply.to_string(), TEXT_MAX);
    let because = |reason, verb: &str| Why {
        reason,
        text: bounded(format!("{host} {verb}: {text}"), TEXT_MAX),
        policy: cleared.policy.clone(),
    };
    if reply.delivered {
        return Fate::Delivered { why: cleared.clone(), reply: text, dsn: reply.dsn };
    }
    if reply.reply.code / 100 == 5 {
        let status = status_in(&reply.reply, StatusClass::Permanent);
        return Fate::Failed { why: because(Reason::PeerRefused, "refused"), status };
    }
    let status = status_in(&reply.reply, StatusClass::Transient);
    Fate::Deferred { why: because(Reason::PeerDeferred, "put it off"), status }
}

/// True if all recipients were put off (4xx): another host of the domain may take them, and RFC 5321
/// §5.1 has each tried until one does.
pub(super) fn all_put_off(replies: &[RecipientReply]) -> bool {
    !replies.is_empty() && replies.iter().all(|r| !r.delivered && r.reply.is_transient())
}

/// The reply's own status if its class is the code's, or else one from the code. The code's class
/// wins: a "450 5.1.1" is temporary (RFC 5321 §4.2.1 against RFC 2034 §4).
fn status_in(reply: &Reply, class: StatusClass) -> EnhancedStatus {
    match reply.status {
        Some(status) if status.class() == class => status,
        Some(_) | None => {
            let (subject, detail) = subject_and_detail(reply.code);
            EnhancedStatus::permanent(subject, detail).with_class(class)
        }
    }
}

/// Subject and detail for codes of RFC 5321 §4.2.3, RFC 7504, RFC 4954 and RFC 3207 that came
/// without a status.
fn subject_and_detail(code: u16) -> (u16, u16) {
    match code {
        421 | 521 => (3, 2),
        450 => (2, 0),
        451 => (3, 0),
        452 => (3, 1),
        454 | 530 => (7, 0),
        500 | 502 | 503 => (5, 1),
        501 | 504 | 555 => (5, 4),
        551 => (1, 6),
        552 => (2, 2),
        553 => (1, 3),
        556 => (1, 10),
        _ => (0, 0),
    }
}

/// What a lost connection means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// The content was not complete: the next host may have it at once.
    NextHost,
    /// The final dot was sent and not answered: the peer may have taken it. Only later again, so
    /// that what may repeat is one transaction (RFC 5321 §4.5.3.2.6), not one a host.
    Later,
}

/// A connection lost in a transaction is the host's trouble, never the recipient's.
pub(super) fn of_lost(error: &SendError) -> (Lost, Trouble) {
    let lost = if error.after_content { Lost::Later } else { Lost::NextHost };
    (lost, Trouble::Unreachable)
}

/// True if a connection that had carried mail before was at its end, not the host: it was lost
/// before the whole content was out, or the host closes it (421, RFC 5321 §3.8).
pub(super) fn of_old_connection(sent: &Result<Vec<RecipientReply>, SendError>) -> bool {
    match sent {
        Ok(replies) => is_closing(replies),
        Err(error) => !error.after_content,
    }
}

/// What a transaction says of the host beside its answers: one that is lost, or closes with 421, has
/// too much to do.
pub(super) fn of_contact(sent: &Result<Vec<RecipientReply>, SendError>) -> Contact {
    match sent {
        Ok(replies) if is_closing(replies) => Contact::Refused,
        Ok(_) => Contact::Answered,
        Err(_) => Contact::Refused,
    }
}

fn is_closing(replies: &[RecipientReply]) -> bool {
    !replies.is_empty() && replies.iter().all(|r| !r.delivered && r.reply.code == 421)
}

/// True if this reason shows that the direct way was really tried, so that `otherwise_after` begins
/// to run. DNS that does not answer and our own trouble say nothing of the partner.
pub(super) fn tried_the_way(reason: Reason) -> bool {
    match reason {
        Reason::DnsTrouble | Reason::Ours => false,
        Reason::LevelMet
        | Reason::RulePass
        | Reason::Notice
        | Reason::Inside
        | Reason::PolicyEnvelope
        | Reason::LevelNotMet
        | Reason::CannotCarry
        | Reason::NoSuchDomain
        | Reason::NoMailHost
        | Reason::NullMx
        | Reason::RefusedNetwork
        | Reason::Unreachable
        | Reason::PeerDeferred
        | Reason::PeerRefused
        | Reason::GaveUp => true,
    }
}

/// True if a recipient ended because time ran out, not because somebody said no.
pub(super) fn ran_out(reason: Reason) -> bool {
    match reason {
        Reason::GaveUp => true,
        Reason::LevelMet
        | Reason::RulePass
        | Reason::Notice
        | Reason::Inside
        | Reason::PolicyEnvelope
        | Reason::LevelNotMet
        | Reason::CannotCarry
        | Reason::DnsTrouble
        | Reason::NoSuchDomain
        | Reason::NoMailHost
        | Reason::NullMx
        | Reason::RefusedNetwork
        | Reason::Unreachable
        | Reason::PeerDeferred
        | Reason::PeerRefused
        | Reason::Ours => false,
    }
}

/// The vault could not do its part: whatever it was, the message is kept and tried again. The text
/// is for the record, so it holds no more than the kind of trouble.
pub(super) fn of_vault(error: &VaultError, policy: PolicyRef) -> Fate {
    let text = match error {
        VaultError::Store(e) => format!("the store did not give the message: {e}"),
        VaultError::Seal(e) => format!("the sealed message does not open: {e}"),
        VaultError::Ring(e) => format!("the message's key does not open: {e}"),
        VaultError::Gone => "the message's key has been destroyed".to_owned(),
        VaultError::Ended => "the right to read the message has ended".to_owned(),
        VaultError::Template(e) => format!("the notice could not be written: {e}"),
        VaultError::Busy => "too many phrases are being made at this time".to_owned(),
        VaultError::Refused(what) => format!("the vault refused to open the message: {what}"),
    };
    Fate::ours(policy, text)
}

/// What to do when outcomes could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsettled {
    /// Write them again in a moment: what was delivered must not go out twice.
    Again,
    /// The claim is somebody else's, or the message is gone: nothing is left to do.
    Drop,
    /// The lease runs out by itself; then the work is claimed anew.
    Leave,
}

/// What a store error at settling means.
pub(super) fn of_settle(error: &StoreError) -> Unsettled {
    match error {
        StoreError::Busy | StoreError::Full => Unsettled::Again,
        StoreError::Fenced | StoreError::NotFound => Unsettled::Drop,
        StoreError::Corrupt(_) | StoreError::Fatal(_) => Unsettled::Leave,
    }
}
