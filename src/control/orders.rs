//! What the operator's hands do at the queue: hold, release, retry, remove.

use super::{
    Answer, Refusal,
    server::{Control, MAX_PAGE, no, ok, unavailable},
    view::OrderView,
};
use crate::{
    mail::{Address, Domain, QueueId},
    seal::MessageFacts,
    store::{Filter, MessageRow, Order, OrderKind, Ordered, RecipientRow, StoreError},
};
use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Orders handed to the store at a time: it writes what comes together with one sync.
const AT_ONCE: usize = 64;
/// Times that a removal with a report is tried anew without those who turned out to be busy.
const ROUNDS: usize = 3;

/// An order for one page of the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueOrder {
    /// What is to be done.
    pub kind: OrderKind,
    /// With [`OrderKind::Remove`]: the sender gets a failure report.
    pub report: bool,
    /// With whom.
    pub which: Which,
    /// Continue after this id.
    pub after: Option<QueueId>,
    /// Messages a page.
    pub max: usize,
}

/// Which recipients are meant; only such as have not come to an end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Which {
    /// All of these messages.
    Ids(Vec<String>),
    /// All for whom everything holds that is said here.
    Matching {
        /// Their domain.
        domain: Option<Domain>,
        /// The message's sender.
        sender: Option<Address>,
        /// The message had arrived then. Without it an order for all would go on to the very reports
        /// that it brings forth.
        arrived: Timestamp,
    },
}

impl Which {
    fn domain(&self) -> Option<&Domain> {
        match self {
            Self::Ids(_) => None,
            Self::Matching { domain, .. } => domain.as_ref(),
        }
    }
}

type Listed = (MessageRow, Vec<RecipientRow>);

impl Control {
    pub(super) async fn order(&self, order: &QueueOrder) -> Result<Answer, Answer> {
        let mut view = OrderView::default();
        if matches!(order.kind, OrderKind::Retry | OrderKind::Release) {
            self.relay.forgive();
        }
        let listed = match &order.which {
            Which::Ids(ids) => self.named(ids, &mut view).await.map_err(unavailable)?,
            Which::Matching { sender, arrived, .. } => {
                let open = Filter { open: true, ..Filter::default() };
                let page = self.queue.list(&open, order.after, order.max.clamp(1, MAX_PAGE)).await;
                let page = page.map_err(unavailable)?;
                view.next = page.last().map(|(message, _)| message.facts.id);
                let meant = Filter { sender: sender.clone(), ..Filter::default() };
                let old = |m: &MessageRow| m.facts.arrived <= *arrived;
                page.into_iter().filter(|(m, r)| old(m) && meant.matches(m, r)).collect()
            }
        };
        let orders = listed.into_iter().map(|listed| self.carry_out(order, listed));
        let mut done = stream::iter(orders).buffer_unordered(AT_ONCE);
        while let Some(result) = done.next().await {
            let (changed, busy) = result?;
            view.changed = view.changed.saturating_add(changed);
            view.busy = view.busy.saturating_add(busy);
        }
        ok(&view)
    }

    /// The messages of these names; names of none go into the answer.
    async fn named(&self, ids: &[String], view: &mut OrderView) -> Result<Vec<Listed>, StoreError> {
        let (mut listed, mut seen) = (Vec::new(), BTreeSet::new());
        for text in ids.iter().take(MAX_PAGE) {
            let id = text.parse::<QueueId>().ok();
            let found = match id {
                Some(id) => self.queue.message(id).await?,
                None => None,
            };
            match found {
                Some((message, _)) if !seen.insert(message.facts.id) => {}
                Some(found) => listed.push(found),
                None => view.unknown.push(text.clone()),
            }
        }
        Ok(listed)
    }

    /// Carries an order out at one message; says how many recipients it changed and how many are
    /// being delivered.
    async fn carry_out(
        &self,
        order: &QueueOrder,
        (message, mut recipients): Listed,
    ) -> Result<(u64, u64), Answer> {
        let facts = &message.facts;
        let mut busy = BTreeSet::new();
        let mut changed = 0;
        for _ in 0..ROUNDS {
            recipients.retain(|row| self.is_meant(order, row) && !busy.contains(&row.index));
            if recipients.is_empty() {
                break;
            }
            let (ordered, whole) = self.give(order, facts, &recipients).await?;
            busy.extend(ordered.busy);
            changed = ordered.changed.len();
            if !whole || changed > 0 {
                break;
            }
            // Somebody began to work on one of them, or ended: the report is for the others.
            let now = self.queue.message(facts.id).await.map_err(unavailable)?;
            recipients = now.map(|(_, rows)| rows).unwrap_or_default();
        }
        if changed > 0 {
            let what = super::view::word(&order.kind);
            tracing::info!(id = %facts.id, "{what}: {changed} recipient(s), by the operator");
        }
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        Ok((count(changed), count(busy.len())))
    }

    fn is_meant(&self, order: &QueueOrder, row: &RecipientRow) -> bool {
        row.ordered(order.kind, self.clock.now()).is_some()
            && order.which.domain().is_none_or(|domain| row.address.domain() == domain)
    }

    /// Gives the store one order; true if it is for all of its recipients or none.
    async fn give(
        &self,
        order: &QueueOrder,
        facts: &MessageFacts,
        recipients: &[RecipientRow],
    ) -> Result<(Ordered, bool), Answer> {
        let mut spawn = Vec::new();
        if order.report && order.kind == OrderKind::Remove {
            let reports = self.relay.removal(facts, recipients);
            let failed = |e| no(Refusal::TryAgain, format!("no report could be made: {e}"));
            spawn.extend(reports.map_err(failed)?);
        }
        let whole = !spawn.is_empty();
        let indexes = recipients.iter().map(|row| row.index).collect();
        let given = Order { id: facts.id, indexes, kind: order.kind, spawn };
        match self.queue.order(given, self.clock.now()).await {
            Ok(ordered) => Ok((ordered, whole)),
            Err(StoreError::NotFound) => Ok((Ordered::default(), false)),
            Err(error) => Err(unavailable(error)),
        }
    }
}
