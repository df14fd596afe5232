//! What an operator orders at the queue: hold, release, retry, remove. An order takes effect only on
//! recipients that nobody is working on, so that each still comes to exactly one end.

use crate::{
    mail::QueueId,
    store::{RecipientRow, RecipientState, Spawn},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OrderKind {
    /// No more attempts until it is released.
    Hold,
    /// What was held goes on as it would have.
    Release,
    /// What waits is due now.
    Retry,
    /// What waits or is held ends here.
    Remove,
}
/// An order for recipients of one message.
#[derive(Debug)]
pub struct Order {
    /// Message.
    pub id: QueueId,
    /// Recipients.
    pub indexes: BTreeSet<u16>,
    /// What is to be done with them.
    pub kind: OrderKind,
    /// A report that speaks of all of them, if the sender is to hear of it. With a report the order
    /// is carried out for all its recipients or for none.
    pub spawn: Vec<Spawn>,
}
/// How it went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ordered {
    /// Recipients whose state changed.
    pub changed: Vec<u16>,
    /// Recipients that are being delivered now: they stay as they are.
    pub busy: Vec<u16>,
}

impl RecipientRow {
    /// The row as the order leaves it; `None` where the order does not concern it: who came to an
    /// end stays there.
    pub fn ordered(&self, kind: OrderKind, now: Timestamp) -> Option<Self> {
        let state = match (&self.state, kind) {
            (RecipientState::Waiting { next }, OrderKind::Hold) => {
                RecipientState::Held { next: *next }
            }
            (RecipientState::Held { next }, OrderKind::Release) => {
                RecipientState::Waiting { next: *next }
            }
            (RecipientState::Waiting { next }, OrderKind::Retry) => {
                RecipientState::Waiting { next: now.min(*next) }
            }
            (RecipientState::Waiting { .. } | RecipientState::Held { .. }, OrderKind::Remove) => {
                RecipientState::Removed { at: now }
            }
            (RecipientState::Waiting { .. }, OrderKind::Release)
            | (RecipientState::Held { .. }, OrderKind::Hold | OrderKind::Retry)
            | (
                RecipientState::Delivered { .. }
                | RecipientState::Granted { .. }
                | RecipientState::Bounced { .. }
                | RecipientState::Expired { .. }
                | RecipientState::Removed { .. },
                OrderKind::Hold | OrderKind::Release | OrderKind::Retry | OrderKind::Remove,
            ) => return None,
        };
        // Who is released begins anew, also after faults.
        let faults = if kind == OrderKind::Release { 0 } else { self.faults };
        Some(Self { state, faults, ..self.clone() })
    }
}
