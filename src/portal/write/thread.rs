//! The conversation that a message is part of, own letters included.

use super::Origin;
use crate::{
    language::say,
    mail::{
        Address,
        letter::{base_subject, is_reply},
    },
    portal::{Desk, Fault, session::Visitor, show},
    store::{Grant, GrantKind, MessageRow, RecipientRow},
    vault::AccessAnswer,
};
use minijinja::{Value, context};
use std::collections::BTreeSet;

/// Messages looked through in either direction.
const LOOKED_AT: usize = 100;
/// Messages of the same people whose subjects are compared.
const COMPARED: usize = 20;
/// Messages listed.
const LISTED: usize = 30;

/// A message that may belong to it.
struct Other {
    grant: Grant,
    row: MessageRow,
    recipients: Vec<RecipientRow>,
}

impl Other {
    fn ids(&self) -> impl Iterator<Item = &String> {
        ids(&self.row)
    }
    /// True if it went between the account and that person.
    fn is_with(&self, person: &Address) -> bool {
        match self.grant.kind {
            GrantKind::Received => self.row.facts.sender.as_ref() == Some(person),
            GrantKind::Sent => self.recipients.iter().any(|row| row.address == *person),
        }
    }
}

fn ids(row: &MessageRow) -> impl Iterator<Item = &String> {
    row.facts.references.iter().chain(&row.facts.message_id)
}

impl Desk {
    /// The messages of a conversation, oldest first, this one among them; none where it is alone.
    /// Those belong to it that name each other (References, In-Reply-To), and those between the same
    /// two with the same subject, if one of them says that it answers.
    pub(in crate::portal) async fn conversation(
        &self,
        visitor: &Visitor,
        origin: &Origin,
    ) -> Result<Value, Fault> {
        let (mut joined, mut rest) = (Vec::new(), self.others(visitor, origin).await?);
        let mut known: BTreeSet<String> = ids(&origin.row).cloned().collect();
        loop {
            let (new, apart): (Vec<_>, Vec<_>) =
                rest.into_iter().partition(|other| other.ids().any(|id| known.contains(id)));
            rest = apart;
            if new.is_empty() {
                break;
            }
            known.extend(new.iter().flat_map(Other::ids).cloned());
            joined.extend(new);
        }
        self.join_by_subject(visitor, origin, rest, &mut joined).await?;
        self.listed(visitor, origin, joined).await
    }

    /// Live messages of the account but this one, the newest of both directions.
    async fn others(&self, visitor: &Visitor, origin: &Origin) -> Result<Vec<Other>, Fault> {
        let account = visitor.signed_in()?;
        let mut grants = self.vault.received(account, None, LOOKED_AT).await?;
        grants.extend(self.vault.sent(account, None, LOOKED_AT).await?);
        let mut others = Vec::new();
        for grant in grants.into_iter().filter(|grant| grant.id != origin.grant().id) {
            if let Some((row, recipients)) = self.vault.queue.message(grant.message).await? {
                others.push(Other { grant, row, recipients });
            }
        }
        Ok(others)
    }

    /// Mail programs that leave out what they answer still write `Re:`.
    async fn join_by_subject(
        &self,
        visitor: &Visitor,
        origin: &Origin,
        rest: Vec<Other>,
        joined: &mut Vec<Other>,
    ) -> Result<(), Fault> {
        let subject = origin.heading().subject;
        let base = base_subject(&subject);
        let people: Vec<Address> = match origin.grant().kind {
            GrantKind::Received => origin.row.facts.sender.iter().cloned().collect(),
            GrantKind::Sent => origin.recipients.iter().map(|row| row.address.clone()).collect(),
        };
        let with = |other: &Other| people.iter().any(|person| other.is_with(person));
        if base.is_empty() {
            return Ok(());
        }
        for other in rest.into_iter().filter(with).take(COMPARED) {
            let Some(theirs) = self.origin_of(visitor, &other.grant).await? else { continue };
            let theirs = theirs.heading().subject;
            if base_subject(&theirs) == base && (is_reply(&theirs) || is_reply(&subject)) {
                joined.push(other);
            }
        }
        Ok(())
    }

    async fn listed(
        &self,
        visitor: &Visitor,
        origin: &Origin,
        mut joined: Vec<Other>,
    ) -> Result<Value, Fault> {
        joined.sort_by_key(|other| (other.grant.sealed, other.grant.id));
        let surplus = joined.len().saturating_sub(LISTED);
        let mut lines = Vec::new();
        for other in joined.into_iter().skip(surplus) {
            if let Some(theirs) = self.origin_of(visitor, &other.grant).await? {
                lines.push((other.grant.sealed, line(&theirs, false)));
            }
        }
        if !lines.is_empty() {
            lines.push((origin.grant().sealed, line(origin, true)));
            lines.sort_by_key(|(at, _)| *at);
        }
        Ok(lines.into_iter().map(|(_, line)| line).collect())
    }

    /// A message of the account by its grant, if it still opens.
    async fn origin_of(&self, visitor: &Visitor, grant: &Grant) -> Result<Option<Origin>, Fault> {
        let facts = visitor.session_facts();
        match self.vault.access(grant.id, visitor.signed_in()?, &facts).await? {
            AccessAnswer::Granted(access) => match self.origin(access).await {
                // One damaged message does not hide the others.
                Err(fault) if fault.is_damage() => {
                    tracing::error!(grant = %grant.id, error = %fault, "a message can't be opened");
                    Ok(None)
                }
                found => found.map(Some),
            },
            AccessAnswer::Unproved(_) | AccessAnswer::Over | AccessAnswer::NotYours => Ok(None),
        }
    }
}

fn line(origin: &Origin, here: bool) -> Value {
    let heading = origin.heading();
    let mine = origin.grant().kind == GrantKind::Sent;
    let at = origin.row.facts.arrived;
    context! {
        id => origin.grant().id.to_string(),
        subject => Value::from(heading.shown()),
        who => Value::from(if mine { say!("You") } else { heading.from.into() }),
        stamp => at.to_string(),
        date => show::moment(at),
        here => here,
    }
}
