//! Writing: answers, forwarding, new letters, and what becomes of them.
//!
//! Forms and pages alone: where a letter may go, its files and its way in are `submission`'s. The form
//! works without scripts; refused, it comes back with what was typed.

mod form;
mod multipart;
mod sent;
mod thread;
mod upload;
pub(super) mod uploads;

pub(super) use form::{
    compose, compose_form, forward, forward_form, given_back, reply, reply_form, samples,
};
pub(super) use sent::{fates, list as sent};

use super::{
    Desk, Fault,
    read::{Heading, bounded, gather},
};
use crate::{
    mail::{
        header::{Fields, HeaderScan},
        notice::own_words,
        parts::{PartIndex, TransferEncoding},
    },
    store::{Grant, GrantKind, MessageRow, RecipientRow},
    submission::Answered,
    vault::Access,
};

/// A message that is read, answered or forwarded, with what stands above it.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) access: Access,
    pub(super) row: MessageRow,
    pub(super) recipients: Vec<RecipientRow>,
    pub(super) index: PartIndex,
    pub(super) fields: Fields,
}

impl Origin {
    pub(super) fn grant(&self) -> &Grant {
        self.access.grant()
    }
    pub(super) fn heading(&self) -> Heading {
        Heading::of(&self.row, &self.fields)
    }
    /// As the message that an answer goes to.
    pub(super) fn answered(&self) -> Answered<'_> {
        Answered {
            grant: self.grant(),
            sender: self.row.facts.sender.as_ref(),
            fields: &self.fields,
        }
    }
    /// What its sender wrote for the notice, in the field of that name.
    pub(super) fn note(&self, field: Option<&str>) -> String {
        field.and_then(|name| own_words(&self.fields, name)).unwrap_or_default()
    }
    /// To and Cc as it says.
    pub(super) fn addressed(&self) -> String {
        if self.grant().kind == GrantKind::Sent {
            let all = ["To", "Cc"].into_iter().flat_map(|name| self.fields.mailboxes(name));
            return all.map(|address| address.to_string()).collect::<Vec<_>>().join(", ");
        }
        let all: Vec<String> = ["To", "Cc"]
            .iter()
            .filter_map(|name| self.fields.first(name))
            .filter(|value| !value.trim().is_empty())
            .collect();
        all.join(", ").chars().take(1000).collect()
    }
}

impl Desk {
    /// Reads what stands above a message.
    pub(super) async fn origin(&self, access: Access) -> Result<Origin, Fault> {
        let (row, index) = self.vault.index(&access).await?;
        let header = bounded(&index.header(), HeaderScan::LIMIT);
        let content = self.vault.read(&access, header).await?;
        let (bytes, _) = gather(content, TransferEncoding::Identity, HeaderScan::LIMIT).await?;
        let found = self.vault.queue.message(row.facts.id).await?;
        let recipients = found.map(|(_, recipients)| recipients).unwrap_or_default();
        Ok(Origin { fields: Fields::parse(&bytes), access, row, recipients, index })
    }
}
