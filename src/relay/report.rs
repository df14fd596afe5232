//! Reports to senders (RFC 3461, RFC 3464): what failed, what is late, and where success was asked
//! for, what went where nobody else reports it. A report has the null reverse-path, and no report is
//! made about mail that has one (RFC 5321 §4.5.5, §6.1; RFC 3461 §6.1): so loops end.

use super::{
    Relay, bounded, later,
    outcome::{Fate, TEXT_MAX},
};
use crate::{
    mail::{
        Address, EnhancedStatus, Notify, QueueId,
        dsn::{Action, Dsn, DsnRecipient, by_report},
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
    /// The reports that an operator removed these recipients; none where the sender is null or wants
    /// to hear of no failure (RFC 3461 §4.1), and none about mail of our own.
    ///
    /// # Errors
    /// [`VaultError`] if it cannot be sealed.
    pub fn removal(
        &self,
        about: &MessageFacts,
        recipients: &[RecipientRow],
    ) -> Result<Vec<NewMessage>, VaultError> {
        let wishes = &about.wishes;
        let told =
            recipients.iter().filter(|row| wishes.notify(row.index).is_none_or(Notify::failure));
        let removed: Vec<_> = told
            .map(|row| DsnRecipient {
                address: row.address.clone(),
                original: wishes.of(row.index, &row.address).original,
                action: Action::Failed,
                status: REMOVED,
                remote_mta: None,
                diagnostic: "removed from the queue by its operator".to_owned(),
            })
            .collect();
        if about.class != Class::Protected || removed.is_empty() {
            return Ok(Vec::new());
        }
        in_parts(self, about, removed, self.now())
    }
}

/// The report of what a settled claim means for its recipients, one for as many as it has room for;
/// each by its own NOTIFY. It goes into the queue in the commit of the outcomes, so it is made exactly once.
pub(super) async fn reports(
    relay: &Relay,
    claim: &Claim,
    fates: &[Decided],
    now: Timestamp,
) -> Result<Vec<NewMessage>, VaultError> {
    let facts = &claim.message.facts;
    let pairs = claim.recipients.iter().zip(fates);
    match facts.class {
        Class::Protected => {
            let told = pairs.filter_map(|(row, decided)| told(relay, claim, row, decided, now));
            in_parts(relay, facts, told.collect(), now)
        }
        Class::Notice => {
            let failed = pairs.filter_map(|(row, decided)| failed(row, decided)).collect();
            undeliverable_notice(relay, facts, failed, now).await
        }
        Class::Code | Class::Report | Class::TlsReport => {
            if pairs.filter_map(|(row, decided)| failed(row, decided)).next().is_some() {
                tracing::warn!(id = %facts.id, "mail of our own could not be delivered; nobody is told");
            }
            Ok(Vec::new())
        }
    }
}

/// What the sender is told of a recipient now, if anything (RFC 3461 §4.1, §5.2).
fn told(
    relay: &Relay,
    claim: &Claim,
    row: &RecipientRow,
    (fate, attempt): &Decided,
    now: Timestamp,
) -> Option<DsnRecipient> {
    let wishes = &claim.message.facts.wishes;
    let notify = wishes.notify(row.index);
    let done = EnhancedStatus::success(0, 0);
    let (action, status) = match fate {
        // Without NOTIFY a sender hears of failure and delay.
        Fate::Failed { status, .. } if notify.is_none_or(Notify::failure) => {
            (Action::Failed, *status)
        }
        Fate::Deferred { status, .. } if warns(relay, claim, row, fate, now) => {
            (Action::Delayed, *status)
        }
        // RFC 3461 §5.2.2; a host that offers DSN reports itself (§5.2.1).
        Fate::Delivered { dsn: false, .. } if notify.is_some_and(Notify::success) => {
            (Action::Relayed, done)
        }
        Fate::Sealed { .. } if notify.is_some_and(Notify::success) => (Action::Sealed, done),
        Fate::Failed { .. }
        | Fate::Deferred { .. }
        | Fate::Delivered { .. }
        | Fate::Sealed { .. } => return None,
    };
    let original = wishes.of(row.index, &row.address).original;
    Some(recipient(row, original, action, status, fate, attempt.as_ref()))
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
        && facts.wishes.notify(row.index).is_none_or(Notify::delay)
        && matches!(fate, Fate::Deferred { .. })
        && now >= later(facts.arrived, relay.settings().warn_after)
}

/// A message of our own that failed.
fn failed(row: &RecipientRow, (fate, attempt): &Decided) -> Option<DsnRecipient> {
    match fate {
        Fate::Failed { status, .. } => {
            Some(recipient(row, None, Action::Failed, *status, fate, attempt.as_ref()))
        }
        Fate::Delivered { .. } | Fate::Sealed { .. } | Fate::Deferred { .. } => None,
    }
}

fn recipient(
    row: &RecipientRow,
    original: Option<String>,
    action: Action,
    status: EnhancedStatus,
    fate: &Fate,
    attempt: Option<&Attempt>,
) -> DsnRecipient {
    let reply = attempt.and_then(|a| a.reply.clone());
    DsnRecipient {
        address: row.address.clone(),
        original,
        action,
        status,
        remote_mta: reply.is_some().then(|| attempt.and_then(|a| a.mx.clone())).flatten(),
        diagnostic: bounded(reply.unwrap_or_else(|| fate.why().text.clone()), TEXT_MAX),
    }
}

/// The reports: mail of our own is small, and a message may have any number of recipients.
fn in_parts(
    relay: &Relay,
    about: &MessageFacts,
    recipients: Vec<DsnRecipient>,
    now: Timestamp,
) -> Result<Vec<NewMessage>, VaultError> {
    let mut made = Vec::new();
    for recipients in by_report(recipients) {
        made.extend(report(relay, about, recipients, now)?);
    }
    Ok(made)
}

/// One report, sealed; none where nothing is to be told or the sender is null.
fn report(
    relay: &Relay,
    about: &MessageFacts,
    recipients: Vec<DsnRecipient>,
    now: Timestamp,
) -> Result<Option<NewMessage>, VaultError> {
    let Some(to) = about.sender.as_ref().filter(|_| !recipients.is_empty()) else {
        return Ok(None);
    };
    let id = relay.ports().clock.new_id();
    let message = Dsn {
        reporting: &relay.settings().hostname,
        from: &relay.settings().report_from,
        to,
        about: about.id,
        message_id: about.message_id.as_deref(),
        envelope_id: about.envelope_id.as_deref(),
        arrived: about.arrived,
        at: now,
        until: Some(later(about.arrived, relay.settings().give_up)),
        id,
        recipients,
    }
    .to_message();
    let facts = facts_of_report(id, to, relay.ports().vault.guard.latest());
    relay.ports().vault.seal_own(facts, vec![to.clone()], &message).map(Some)
}

fn facts_of_report(id: QueueId, to: &Address, made: Timestamp) -> MessageFacts {
    let needs = Needs { smtputf8: to.needs_smtputf8(), ..Needs::default() };
    MessageFacts::own(id, Class::Report, made, needs)
}

/// A recipient whose mailbox refuses even the notice will never read the message: the sender hears
/// of it, and the grant ends with the settle.
async fn undeliverable_notice(
    relay: &Relay,
    notice: &MessageFacts,
    failed: Vec<DsnRecipient>,
    now: Timestamp,
) -> Result<Vec<NewMessage>, VaultError> {
    if failed.is_empty() {
        return Ok(Vec::new());
    }
    let Some(grant) = notice.grant else {
        tracing::warn!(id = %notice.id, "a notice that says not what it announces was refused");
        return Ok(Vec::new());
    };
    let Some(grant) = relay.ports().people.grant(grant).await? else { return Ok(Vec::new()) };
    if grant.opened.is_some() {
        return Ok(Vec::new());
    }
    let Some((original, rows)) = relay.ports().queue.message(grant.message).await? else {
        return Ok(Vec::new());
    };
    let wishes = &original.facts.wishes;
    let told = failed.into_iter().filter_map(|failed| {
        let row = rows.iter().find(|row| row.address == failed.address);
        let asked = row.map(|row| wishes.of(row.index, &row.address)).unwrap_or_default();
        let wanted = asked.notify.is_none_or(Notify::failure);
        wanted.then_some(DsnRecipient { original: asked.original, ..failed })
    });
    in_parts(relay, &original.facts, told.collect(), now)
}
