//! `restante policy replay [DIR]`: what a changed policy folder would have done with the mail on
//! record. Pages come from the running server; the judging is done here, by the pure floor.

use super::{
    Exit,
    look::{each_page, time},
    out,
    policy::{load_set, there},
};
use crate::{
    clock::Clock,
    control::{
        Request,
        view::{DecisionRecipient, DecisionView},
    },
    mail::{Address, Domain, QueueId},
    policy::{
        Level, PeerFacts, RuleVerdict, StartTls, Trouble,
        replay::{Change, Forecast, Moved, Place, Seen, Stand, place},
    },
    store::{Attempt, RecipientState},
};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

/// Messages asked for at a time.
const PAGE: usize = 50;
/// Connections of a domain that are kept: the newest are what counts.
const SEEN_MAX: usize = 8;

/// What is to be replayed.
#[derive(Debug)]
pub struct Replay<'a> {
    /// Folder in force.
    pub live: &'a Path,
    /// Changed folder; `None`: the one in force, against decisions of earlier versions.
    pub dir: Option<&'a Path>,
    /// How far back.
    pub since: SignedDuration,
    /// Exit 1 where something would move.
    pub strict: bool,
    /// Print JSON.
    pub json: bool,
}

/// `restante policy replay`
pub fn replay(socket: &Path, asked: &Replay<'_>, clock: &dyn Clock) -> Exit {
    let now = clock.now();
    let dir = asked.dir.unwrap_or(asked.live);
    let new = match there(dir).and_then(|()| load_set(dir, now)) {
        Ok(set) => set,
        Err(exit) => return exit,
    };
    // Where the live folder does not read, every decision is made again.
    let old = asked.dir.and_then(|_| load_set(asked.live, now).ok());
    let since = now.checked_sub(asked.since).unwrap_or(Timestamp::MIN);
    let mut record = Record::default();
    let request = |after| Request::Decisions { since, after, max: PAGE };
    if let Err(exit) = each_page(socket, request, |view: DecisionView| record.take(view)) {
        return exit;
    }
    let change = Change { old: old.as_ref(), new: &new, now };
    let answer = Replayed { rules: rules_changed(asked), ..record.judge(&change, since) };
    answer.print(asked.json);
    if asked.strict && !answer.moved.is_empty() { Exit::No } else { Exit::Done }
}

/// True if the message rules differ between the folders: they judge on arrival, by what is not on
/// record.
fn rules_changed(asked: &Replay<'_>) -> bool {
    let read = |dir: &Path| std::fs::read_to_string(dir.join("rules.toml")).ok();
    asked.dir.is_some_and(|dir| read(dir) != read(asked.live))
}

/// One recipient's decision, as far as it is judged again.
struct Decided {
    id: QueueId,
    arrived: Timestamp,
    recipient: Address,
    rule: RuleVerdict,
    from: Place,
    seen: Vec<Seen>,
}

/// All that is on record.
#[derive(Default)]
struct Record {
    messages: u64,
    recipients: u64,
    decided: Vec<Decided>,
    /// The newest connections of each domain, for decisions that made none.
    domains: HashMap<Domain, Vec<Seen>>,
}

impl Record {
    fn take(&mut self, view: DecisionView) {
        self.messages = self.messages.saturating_add(1);
        for recipient in view.recipients {
            self.recipients = self.recipients.saturating_add(1);
            // At level `none` nobody looked at what the host offers.
            let blind = recipient.why.as_ref().is_some_and(|why| why.policy.level == Level::None);
            let newest = recipient.attempts.iter().rev().filter(|_| !blind);
            let seen: Vec<Seen> = newest.filter_map(seen).take(SEEN_MAX).collect();
            if !seen.is_empty() {
                self.domains.insert(recipient.address.domain().clone(), seen.clone());
            }
            let Some(from) = from(&recipient) else { continue };
            self.decided.push(Decided {
                id: view.id,
                arrived: view.arrived,
                recipient: recipient.address,
                rule: view.rule.clone(),
                from,
                seen,
            });
        }
    }

    fn judge(self, change: &Change<'_>, since: Timestamp) -> Replayed {
        let (messages, recipients) = (self.messages, self.recipients);
        let mut answer = Replayed {
            since,
            messages,
            recipients,
            rules: false,
            moved: Vec::new(),
            unknown: Vec::new(),
        };
        let mut unknown: BTreeMap<(String, String), u64> = BTreeMap::new();
        for decided in self.decided {
            let domain = decided.recipient.domain();
            if change.leaves(domain) {
                continue;
            }
            let of_domain = self.domains.get(domain).map(Vec::as_slice).unwrap_or_default();
            let seen = if decided.seen.is_empty() { of_domain } else { &decided.seen };
            match change.forecast(domain, &decided.rule, seen) {
                Forecast::Goes(to, _) | Forecast::Unmet(to, _) if to == decided.from => {}
                // It waits for its level now, and would wait for it then.
                Forecast::Unmet(..) if decided.from == Place::Defer => {}
                Forecast::Goes(to, why) | Forecast::Unmet(to, why) => {
                    let policy = change.policy(domain).at.clone();
                    let moved = Moved { from: decided.from, to, why, policy };
                    let Decided { id, arrived, recipient, .. } = decided;
                    answer.moved.push(Row { id, arrived, recipient, moved });
                }
                Forecast::Unknown(text) => {
                    let count = unknown.entry((domain.to_string(), text)).or_default();
                    *count = count.saturating_add(1);
                }
            }
        }
        answer.unknown = unknown
            .into_iter()
            .map(|((domain, text), recipients)| Unknown { domain, recipients, text })
            .collect();
        answer
    }
}

/// Where policy sent it; nothing where something else decided.
fn from(recipient: &DecisionRecipient) -> Option<Place> {
    let stand = match &recipient.state {
        RecipientState::Waiting { .. } | RecipientState::Held { .. } => Stand::Open,
        RecipientState::Delivered { .. } => Stand::Delivered,
        RecipientState::Granted { .. } => Stand::Sealed,
        RecipientState::Bounced { .. } | RecipientState::Expired { .. } => Stand::Failed,
        RecipientState::Removed { .. } => return None,
    };
    place(recipient.why.as_ref()?.reason, stand)
}

/// What an attempt's record tells of a host; nothing where no connection came about.
fn seen(attempt: &Attempt) -> Option<Seen> {
    let dns = attempt.dns.as_ref()?;
    let tls = match (&attempt.tls, attempt.trouble) {
        (Some(tls), _) => StartTls::Done(tls.clone()),
        (None, Some(Trouble::NoStartTls | Trouble::StartTlsRefused)) => StartTls::NotOffered,
        (None, _) if attempt.reply.is_some() => StartTls::NotOffered,
        (None, _) => return None,
    };
    Some(Seen {
        peer: PeerFacts {
            connection: 0,
            host: attempt.mx.clone()?,
            address: attempt.address.as_ref()?.parse().ok()?,
            tls,
            eight_bit: true,
            smtputf8: true,
            require_tls: true,
            size: None,
        },
        dnssec: dns.dnssec,
        dane: dns.dane.clone(),
        sts: dns.sts.clone(),
    })
}

/// The answer.
#[derive(Debug, Serialize)]
struct Replayed {
    since: Timestamp,
    messages: u64,
    recipients: u64,
    /// The message rules differ and were not replayed.
    #[serde(rename = "rules_changed")]
    rules: bool,
    moved: Vec<Row>,
    unknown: Vec<Unknown>,
}

#[derive(Debug, Serialize)]
struct Row {
    id: QueueId,
    arrived: Timestamp,
    recipient: Address,
    #[serde(flatten)]
    moved: Moved,
}

#[derive(Debug, Serialize)]
struct Unknown {
    domain: String,
    recipients: u64,
    text: String,
}

impl Replayed {
    fn print(&self, json: bool) {
        if json {
            out::json(self);
            return;
        }
        for Row { id, arrived, recipient, moved: m } in &self.moved {
            let (at, level) = (time(*arrived), m.policy.level);
            out::line(format_args!(
                "{id} {at} {recipient}: {} -> {} ({}:{} level {level}: {})",
                m.from, m.to, m.policy.file, m.policy.line, m.why
            ));
        }
        for unknown in &self.unknown {
            out::line(format_args!(
                "{}: {} recipient(s) can't be told: {}",
                unknown.domain, unknown.recipients, unknown.text
            ));
        }
        if self.rules {
            out::line("the message rules differ; they count here as they did on arrival");
        }
        let untold: u64 = self.unknown.iter().map(|u| u.recipients).sum();
        out::line(format_args!(
            "{} recipients of {} messages since {}: {} would have moved, {untold} can't be told",
            self.recipients,
            self.messages,
            time(self.since),
            self.moved.len(),
        ));
    }
}
