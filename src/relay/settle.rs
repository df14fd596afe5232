//! Settling: fates become outcomes, and with the notices and reports they bring forth they go into
//! the queue in one commit.

use super::{
    Relay, bounded,
    deliver::Verdict,
    later, log,
    outcome::{self, Fate, TEXT_MAX, Unsettled},
    report,
    run::Lease,
};
use crate::{
    clock::TrustedTime,
    mail::{Domain, GrantId, Pickup, QueueId, StatusClass},
    policy::{Reason, Why},
    seal::Class,
    store::{
        Attempt, Claim, Grant, NewBody, NewMessage, Outcome, RecipientRow, RecipientState, Settle,
    },
    vault::{Channel, VaultError},
};
use jiff::{SignedDuration, Timestamp};
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

/// Times that outcomes are written before the lease is left to run out: some ten minutes, because
/// what has been delivered and is not written goes out again.
const TRIES: u32 = 28;
/// Of these, tries that a lost lease may cost: the claim that took it may be our own, of a clock that
/// jumped, and its token on the way to us.
const GRACES: u32 = 5;
/// Wait before the second try; doubles each time.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// The longest wait between tries.
const LAST_WAIT: Duration = Duration::from_secs(30);
/// Attempts in a row that may break off by a fault of the program before the recipient is held.
const FAULTS: u32 = 5;
/// Retry interval where the schedule is empty.
pub(super) const NO_SCHEDULE: SignedDuration = SignedDuration::from_mins(15);

impl Relay {
    /// Writes what became of a claim; true if it is written. Trouble with the store ends here: the
    /// claim's lease then runs out, and the work is claimed anew.
    pub(super) async fn settle(&self, claim: &Claim, lease: &Lease, verdict: Verdict) -> bool {
        let verdict = self.judge(claim, verdict);
        let (settle, fates) = self.compose(claim, lease, verdict).await;
        let written = self.write(lease, settle).await;
        if written {
            self.proved(claim, &fates).await;
            log::fates(claim, &fates, self.now());
        }
        written
    }

    /// Writes that a claim waits, and nothing else: no report whose making could break off again.
    pub(super) async fn put_back(&self, claim: &Claim, lease: &Lease, verdict: Verdict) {
        let rows = claim.recipients.iter().zip(verdict.fates);
        let outcomes = rows.map(|(row, (fate, _))| {
            let outcome = self.outcome(claim, row, fate, None, Vec::new(), row.warned);
            set_aside(claim, row, outcome)
        });
        let (token, id) = (lease.token(), claim.message.facts.id);
        let settle =
            Settle { token, id, outcomes: outcomes.collect(), spawn: Vec::new(), recall: None };
        self.write(lease, settle).await;
    }

    /// Who is still deferred when the time to deliver is over has failed (`delivery.give_up`). While
    /// the clock is in doubt nobody fails because of the time.
    fn judge(&self, claim: &Claim, mut verdict: Verdict) -> Verdict {
        let overdue = self.overdue(claim.message.facts.arrived);
        for (fate, _) in &mut verdict.fates {
            match overdue {
                Ok(Some(now)) => run_out(fate, now),
                Ok(None) => {}
                Err(_) => wait_for_clock(fate),
            }
        }
        verdict
    }

    async fn compose(
        &self,
        claim: &Claim,
        lease: &Lease,
        mut verdict: Verdict,
    ) -> (Settle, Vec<Entry>) {
        let now = self.now();
        // Grants first: what could not be sealed must not be reported as if it were.
        let mut grants = Vec::new();
        let mut spawn = Vec::new();
        for (row, (fate, _)) in claim.recipients.iter().zip(&mut verdict.fates) {
            let granted = self.seal(claim, row, fate).await;
            grants.push(granted.map(|(grant, mail)| {
                spawn.extend(mail);
                grant
            }));
        }
        let reported = match report::reports(self, claim, &verdict.fates, now).await {
            Ok(reports) => {
                spawn.extend(reports);
                true
            }
            Err(error) => {
                tracing::error!(id = %claim.message.facts.id, "no report could be made: {error}");
                // A failure nobody hears of would be a loss: it waits until its report can be made.
                // What was delivered stays so: a report of success is not worth a second copy.
                verdict.fates.iter_mut().for_each(|(fate, _)| unreported(fate));
                false
            }
        };
        let mut outcomes = Vec::new();
        let mut entries = Vec::new();
        let settled = claim.recipients.iter().zip(verdict.fates).zip(grants);
        for ((row, (fate, own)), grant) in settled {
            let warned = row.warned || (reported && report::warns(self, claim, row, &fate, now));
            let mut attempts = verdict.attempts.clone();
            attempts.extend(own);
            entries.push(Entry { fate: fate.clone(), last: attempts.last().cloned() });
            let outcome = self.outcome(claim, row, fate, grant, attempts, warned);
            let broke = verdict.broke;
            outcomes.push(if broke { set_aside(claim, row, outcome) } else { outcome });
        }
        let id = claim.message.facts.id;
        let recall = announced_in_vain(claim, &entries);
        (Settle { token: lease.token(), id, outcomes, spawn, recall }, entries)
    }

    /// The grant and its mail for who is sealed for pickup; without them the fate is to wait. The
    /// note on a line in doubt comes first, so that no crash leaves such a grant without it.
    async fn seal(
        &self,
        claim: &Claim,
        row: &RecipientRow,
        fate: &mut Fate,
    ) -> Option<(Grant, Vec<NewMessage>)> {
        let Fate::Sealed { why, doubt } = fate else { return None };
        let vault = &self.ports().vault;
        let granted = async {
            let pickup = self.pickup(claim, row.address.domain());
            let doubt = self.doubt(row.address.domain(), *doubt, why).await?;
            vault.grant(&claim.message, &row.address, why, Channel { pickup, doubt }).await
        };
        match granted.await {
            Ok((grant, mail)) => {
                if let Some(proof) = &grant.proof {
                    why.text = bounded(format!("{} {}", why.text, proof.sentence()), TEXT_MAX);
                }
                Some((grant, mail))
            }
            Err(error) => {
                tracing::error!(id = %claim.message.facts.id, "no grant could be made: {error}");
                *fate = outcome::of_vault(&error, why.policy.clone());
                None
            }
        }
    }

    /// Since when the line is in doubt, noted now if this message shows it.
    async fn doubt(
        &self,
        domain: &Domain,
        shown: bool,
        why: &Why,
    ) -> Result<Option<Timestamp>, VaultError> {
        let vault = &self.ports().vault;
        if shown {
            return Ok(Some(vault.note_doubt(domain, why).await?.since));
        }
        Ok(vault.line_doubt(domain).await?.map(|doubt| doubt.since))
    }

    /// What the reader must prove beyond the mailbox: as the rule or the sender says, else as the
    /// policy does.
    fn pickup(&self, claim: &Claim, domain: &Domain) -> Pickup {
        match claim.message.facts.rule.pickup {
            Pickup::Code => self.ports().policies.current().lookup(domain, self.now()).pickup,
            asked @ (Pickup::Phrase | Pickup::Sms | Pickup::Passkey) => asked,
        }
    }

    /// A delivery that proved whose host it reached ends the doubt about the line.
    async fn proved(&self, claim: &Claim, entries: &[Entry]) {
        let proved = |entry: &Entry| match (&entry.fate, &entry.last) {
            (Fate::Delivered { .. }, Some(last)) if last.verified => Some(last.at),
            _ => None,
        };
        let Some(at) = entries.iter().find_map(proved) else { return };
        if let Err(error) = self.ports().vault.line_proved(&claim.domain, at).await {
            tracing::warn!(domain = %claim.domain, "the line stays in doubt: {error}");
        }
    }

    fn outcome(
        &self,
        claim: &Claim,
        row: &RecipientRow,
        fate: Fate,
        grant: Option<Grant>,
        attempts: Vec<Attempt>,
        warned: bool,
    ) -> Outcome {
        let at = self.now();
        let why = fate.why().clone();
        let mut first_failed = row.first_failed;
        let state = match (fate, &grant) {
            (Fate::Delivered { reply, .. }, _) => RecipientState::Delivered { at, reply },
            (Fate::Sealed { .. }, Some(grant)) => RecipientState::Granted { at, grant: grant.id },
            (Fate::Failed { .. }, _) if outcome::ran_out(why.reason) => {
                RecipientState::Expired { at }
            }
            (Fate::Failed { status, .. }, _) => RecipientState::Bounced { at, status },
            (Fate::Deferred { .. } | Fate::Sealed { .. }, _) => {
                if outcome::tried_the_way(why.reason) {
                    first_failed = first_failed.or(Some(at));
                }
                RecipientState::Waiting { next: self.next(claim, row, at) }
            }
        };
        let (index, why, faults) = (row.index, Some(why), 0);
        Outcome { index, state, why, attempts, first_failed, warned, faults, grant }
    }

    /// When to try again: by the schedule, a tenth more or less; and for the last time when the
    /// time to deliver is over.
    fn next(&self, claim: &Claim, row: &RecipientRow, now: Timestamp) -> Timestamp {
        let settings = self.settings();
        let step = usize::try_from(row.attempts).unwrap_or(usize::MAX);
        let wait = settings.retry.get(step).or_else(|| settings.retry.last()).copied();
        let wait = wait.unwrap_or(NO_SCHEDULE).as_millis_f64()
            * spread(claim.message.facts.id, row.attempts);
        let wait = SignedDuration::from_secs_f64((wait / 1000.0).clamp(0.0, 1e9));
        let next = later(now, wait);
        let end = later(claim.message.facts.arrived, settings.give_up);
        if now < end { next.min(end) } else { next }
    }

    /// True if the outcomes are in the queue.
    async fn write(&self, lease: &Lease, mut settle: Settle) -> bool {
        let id = settle.id;
        let (mut wait, mut graces) = (FIRST_WAIT, GRACES);
        for _ in 0..TRIES {
            settle.token = lease.token();
            let Err(error) = self.ports().queue.settle(copy(&settle)).await else { return true };
            match outcome::of_settle(&error) {
                Unsettled::Again => tracing::warn!(%id, "outcome not yet written: {error}"),
                Unsettled::Drop if graces > 0 => graces -= 1,
                Unsettled::Drop => {
                    tracing::warn!(%id, "outcome dropped: {error}");
                    return false;
                }
                Unsettled::Leave => break,
            }
            tokio::time::sleep(wait).await;
            wait = wait.saturating_mul(2).min(LAST_WAIT);
        }
        tracing::error!(%id, "outcome not written; the message is taken up again after its lease");
        false
    }
}

/// From 0.9 to 1.1, by the message and the attempt: messages that failed together do not come back
/// together, and recipients of one message do, for they can share a transaction.
fn spread(id: QueueId, attempt: u32) -> f64 {
    let mut hasher = DefaultHasher::new();
    (id, attempt).hash(&mut hasher);
    let [high, low, ..] = hasher.finish().to_be_bytes();
    0.9 + 0.2 * f64::from(u16::from_be_bytes([high, low])) / f64::from(u16::MAX)
}

/// The grant of a notice that failed. It ends with the settle that says so: what is tried again may
/// arrive, and then the grant must be there.
fn announced_in_vain(claim: &Claim, entries: &[Entry]) -> Option<GrantId> {
    let facts = &claim.message.facts;
    let failed = entries.iter().any(|entry| matches!(entry.fate, Fate::Failed { .. }));
    let grant = facts.grant.filter(|_| failed && facts.class == Class::Notice)?;
    tracing::warn!(notice = %facts.id, "the notice failed; its grant ends, unless it was opened");
    Some(grant)
}

/// Counts an attempt that broke off. Who did so [`FAULTS`] times in a row waits no longer for the
/// next: it is held until an operator has looked.
fn set_aside(claim: &Claim, row: &RecipientRow, mut outcome: Outcome) -> Outcome {
    outcome.faults = row.faults.saturating_add(1);
    let RecipientState::Waiting { next } = outcome.state else { return outcome };
    if outcome.faults < FAULTS {
        return outcome;
    }
    let (id, domain) = (claim.message.facts.id, row.address.domain());
    let count = outcome.faults;
    outcome.state = RecipientState::Held { next };
    if let Some(why) = &mut outcome.why {
        let text = format!(
            "set aside after {count} attempts in a row that broke off; `restante queue release \
             {id}` tries again: {}",
            why.text
        );
        why.text = bounded(text, TEXT_MAX);
    }
    tracing::error!(%id, %domain, "set aside: {count} attempts in a row broke off");
    outcome
}

/// What the log says of a recipient.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) fate: Fate,
    pub(super) last: Option<Attempt>,
}

/// Only a time that can be relied on ends the time to deliver.
fn run_out(fate: &mut Fate, _now: TrustedTime) {
    if let Fate::Deferred { why, status } = fate {
        *fate = Fate::Failed {
            status: status.with_class(StatusClass::Permanent),
            why: Why {
                reason: Reason::GaveUp,
                text: bounded(format!("the time to deliver is over: {}", why.text), TEXT_MAX),
                policy: why.policy.clone(),
            },
        };
    }
}

/// A level that was not met for long enough (`otherwise = "bounce"`) is one thing that the time makes
/// fail.
fn wait_for_clock(fate: &mut Fate) {
    if let Fate::Failed { why, status } = fate
        && why.reason == Reason::LevelNotMet
    {
        let text = format!("waits while the clock is in doubt: {}", why.text);
        *fate = Fate::Deferred {
            status: status.with_class(StatusClass::Transient),
            why: Why { text: bounded(text, TEXT_MAX), ..why.clone() },
        };
    }
}

fn unreported(fate: &mut Fate) {
    if let Fate::Failed { why, .. } = fate {
        let text = format!("failed, and waits until it can be reported: {}", why.text);
        *fate = Fate::ours(why.policy.clone(), text);
    }
}

/// The same outcomes again, grants and ids included, so that a second try of a commit is no second
/// grant.
fn copy(settle: &Settle) -> Settle {
    Settle {
        token: settle.token,
        id: settle.id,
        outcomes: settle.outcomes.clone(),
        spawn: settle.spawn.iter().map(copy_message).collect(),
        recall: settle.recall,
    }
}

fn copy_message(message: &NewMessage) -> NewMessage {
    NewMessage {
        facts: message.facts.clone(),
        recipients: message.recipients.clone(),
        body: match &message.body {
            NewBody::Small(bytes) => NewBody::Small(bytes.clone()),
            NewBody::At(locator) => NewBody::At(locator.clone()),
        },
        size: message.size,
        header_len: message.header_len,
        due: message.due,
        copy: message.copy.clone(),
        ring: message.ring.clone(),
    }
}
