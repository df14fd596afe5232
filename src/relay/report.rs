//! Reports to senders (RFC 3461, RFC 3464): what failed, and what is late. A report has the null
//! reverse-path, and no report is made about mail that has one (RFC 5321 §4.5.5, §6.1).

use super::{
    Relay, bounded, later,
    outcome::{Fate, TEXT_MAX},
};
use crate::{
    mail::{
        Address, EnhancedStatus, QueueId,
        dsn::{Action, Dsn, DsnRecipient},
    },
    seal::{Class, MessageFacts, header::Needs},
    store::{Attempt, Claim, NewMessage, RecipientRow},
    vault::VaultError,
};
use jiff::Timestamp;

/// RFC 3463 §3.4: other or undefined mail system status; whose operator decided is said in words.
const REMOVED: EnhancedStatus = EnhancedStatus::permanent(3, 0);

/// A recipient's fate and the record of the attempt that decided it.
pub(super) type Decided = (Fate, Option<Attempt>);

impl Relay {
    /// The report that an operator removed these recipients; none where the sender is null or wants
    /// to hear of no failure (RFC 3461 §4.1), and none about mail of our own.
    ///
    /// # Errors
    /// [`VaultError`] if it cannot be sealed.
    pub fn removal(
        &self,
        about: &MessageFacts,
        recipients: &[RecipientRow],
    ) -> Result<Option<NewMessage>, VaultError> {
        let told = recipients.iter().filter(|row| !about.silence.failure.contains(&row.index));
        let removed: Vec<_> = told
            .map(|row| DsnRecipient {
                address: row.address.clone(),
                action: Action::Failed,
                status: REMOVED,
                remote_mta: None,
                diagnostic: "removed from the queue by its operator".to_owned(),
            })
            .collect();
        if about.class != Class::Protected || removed.is_empty() {
            return Ok(None);
        }
        report(self, about, removed, None, self.now())
    }
}

/// The reports of a claim's failures: one for all recipients that fail together.
pub(super) async fn failures(
    relay: &Relay,
    claim: &Claim,
    fates: &[Decided],
    now: Timestamp,
) -> Result<Vec<NewMessage>, VaultError> {
    let failed: Vec<DsnRecipient> = claim
        .recipients
        .iter()
        .zip(fates)
        .filter(|(row, _)| !claim.message.facts.silence.failure.contains(&row.index))
        .filter_map(|(row, decided)| failed(row, decided))
        .collect();
    let facts = &claim.message.facts;
    if failed.is_empty() {
        return Ok(Vec::new());
    }
    match facts.class {
        Class::Protected => Ok(report(relay, facts, failed, None, now)?.into_iter().collect()),
        Class::Notice => undeliverable_notice(relay, facts, failed, now).await,
        Class::Code | Class::Report => {
            tracing::warn!(id = %facts.id, "mail of our own could not be delivered; nobody is told");
            Ok(Vec::new())
        }
    }
}

/// The warning that recipients are late (`delivery.warn_after`), once for each.
pub(super) fn delays(
    relay: &Relay,
    claim: &Claim,
    fates: &[Decided],
    now: Timestamp,
) -> Result<Option<NewMessage>, VaultError> {
    let late: Vec<DsnRecipient> = claim
        .recipients
        .iter()
        .zip(fates)
        .filter(|(row, (fate, _))| warns(relay, claim, row, fate, now))
        .filter_map(|(row, decided)| delayed(row, decided))
        .collect();
    if late.is_empty() {
        return Ok(None);
    }
    let facts = &claim.message.facts;
    let until = later(facts.arrived, relay.settings().give_up);
    report(relay, facts, late, Some(until), now)
}

/// True if the sender is to hear now that this recipient is late.
pub(super) fn warns(
    relay: &Relay,
    claim: &Claim,
    row: &RecipientRow,
    fate: &Fate,
    now: Timestamp,
) -> bool {
    let facts = &claim.message.facts;
    facts.class == Class::Protected
        && facts.sender.is_some()
        && !row.warned
        && !facts.silence.delay.contains(&row.index)
        && matches!(fate, Fate::Deferred { .. })
        && now >= later(facts.arrived, relay.settings().warn_after)
}

fn failed(row: &RecipientRow, (fate, attempt): &Decided) -> Option<DsnRecipient> {
    match fate {
        Fate::Failed { status, .. } => {
            Some(recipient(row, Action::Failed, *status, fate, attempt.as_ref()))
        }
        Fate::Delivered { .. } | Fate::Sealed { .. } | Fate::Deferred { .. } => None,
    }
}

fn delayed(row: &RecipientRow, (fate, attempt): &Decided) -> Option<DsnRecipient> {
    match fate {
        Fate::Deferred { status, .. } => {
            Some(recipient(row, Action::Delayed, *status, fate, attempt.as_ref()))
        }
        Fate::Delivered { .. } | Fate::Sealed { .. } | Fate::Failed { .. } => None,
    }
}

fn recipient(
    row: &RecipientRow,
    action: Action,
    status: EnhancedStatus,
    fate: &Fate,
    attempt: Option<&Attempt>,
) -> DsnRecipient {
    let reply = attempt.and_then(|a| a.reply.clone());
    DsnRecipient {
        address: row.address.clone(),
        action,
        status,
        remote_mta: reply.is_some().then(|| attempt.and_then(|a| a.mx.clone())).flatten(),
        diagnostic: bounded(reply.unwrap_or_else(|| fate.why().text.clone()), TEXT_MAX),
    }
}

/// The report itself, sealed; none where the sender is null.
fn report(
    relay: &Relay,
    about: &MessageFacts,
    recipients: Vec<DsnRecipient>,
    until: Option<Timestamp>,
    now: Timestamp,
) -> Result<Option<NewMessage>, VaultError> {
    let Some(to) = &about.sender else { return Ok(None) };
    let millis = u64::try_from(now.as_millisecond()).unwrap_or(0);
    let id = QueueId::new(millis, rand::random());
    let message = Dsn {
        reporting: &relay.settings().hostname,
        from: &relay.settings().report_from,
        to,
        about: about.id,
        message_id: about.message_id.as_deref(),
        envelope_id: about.envelope_id.as_deref(),
        arrived: about.arrived,
        at: now,
        until,
        id,
        recipients,
    }
    .to_message();
    let facts = facts_of_report(id, to, now);
    relay.ports().vault.seal_own(facts, vec![to.clone()], &message).map(Some)
}

fn facts_of_report(id: QueueId, to: &Address, now: Timestamp) -> MessageFacts {
    let needs = Needs { smtputf8: to.needs_smtputf8(), ..Needs::default() };
    MessageFacts::own(id, Class::Report, now, needs)
}

/// A recipient whose mailbox refuses even the notice will never read the message: the grant ends,
/// and the sender of the message hears of it.
async fn undeliverable_notice(
    relay: &Relay,
    notice: &MessageFacts,
    failed: Vec<DsnRecipient>,
    now: Timestamp,
) -> Result<Vec<NewMessage>, VaultError> {
    let Some(grant) = notice.grant else {
        tracing::warn!(id = %notice.id, "a notice that says not what it announces was refused");
        return Ok(Vec::new());
    };
    let Some(grant) = relay.ports().people.grant(grant).await? else { return Ok(Vec::new()) };
    if grant.opened.is_some() {
        return Ok(Vec::new());
    }
    // Before the settle, and idempotent: after a crash in between the notice is refused again, and
    // the report is made then.
    relay.ports().vault.recall(&[grant.id]).await?;
    let Some((original, rows)) = relay.ports().queue.message(grant.message).await? else {
        return Ok(Vec::new());
    };
    tracing::warn!(id = %grant.message, notice = %notice.id, "the notice was refused; the grant has ended");
    let silent = |address: &Address| {
        let number = rows.iter().find(|row| row.address == *address).map(|row| row.index);
        number.is_some_and(|number| original.facts.silence.failure.contains(&number))
    };
    let failed: Vec<_> = failed.into_iter().filter(|r| !silent(&r.address)).collect();
    if failed.is_empty() {
        return Ok(Vec::new());
    }
    Ok(report(relay, &original.facts, failed, None, now)?.into_iter().collect())
}
