//! `restante queue hold`, `release`, `retry`, `remove`: the operator's hands.

use super::{Exit, args, look::ask, out};
use crate::{
    clock::Clock,
    control::{
        Request,
        orders::{QueueOrder, Which},
        view::OrderView,
    },
    store::OrderKind,
};
use jiff::SignedDuration;
use serde::Serialize;
use std::path::Path;

/// Messages asked for at a time.
const PAGE: usize = 500;
/// Ids named at a time: a request is small.
const IDS: usize = 200;

/// What became of it, over all pages.
#[derive(Debug, Default, Serialize)]
struct Total {
    changed: u64,
    busy: u64,
    unknown: Vec<String>,
}

/// Gives the order to the server, page after page.
pub fn order(
    socket: &Path,
    kind: OrderKind,
    report: bool,
    meant: args::Meant,
    clock: &dyn Clock,
) -> Exit {
    let json = meant.json;
    let mut total = Total::default();
    let sent = requests(meant, clock)
        .into_iter()
        .try_for_each(|which| pages(socket, kind, report, which, &mut total));
    if let Err(exit) = sent {
        out::complain(format_args!("broken off; {}", sentence(kind, total.changed)));
        return exit;
    }
    for id in &total.unknown {
        out::complain(format_args!("no message {id}"));
    }
    if json {
        out::json(&total);
    } else if total.changed > 0 {
        out::line(sentence(kind, total.changed));
    }
    verdict(kind, &total)
}

fn verdict(kind: OrderKind, total: &Total) -> Exit {
    if total.busy > 0 {
        let advice = match kind {
            OrderKind::Retry => "",
            OrderKind::Hold | OrderKind::Release | OrderKind::Remove => {
                " and stay as they are: try again"
            }
        };
        out::complain(format_args!("{} recipient(s) are being delivered now{advice}", total.busy));
    } else if total.changed == 0 && total.unknown.is_empty() {
        out::complain(format_args!("nothing to {}", verb(kind).0));
    }
    if !total.unknown.is_empty() || (total.changed == 0 && total.busy == 0) {
        Exit::No
    } else if total.busy > 0 && kind != OrderKind::Retry {
        Exit::TryAgain
    } else {
        Exit::Done
    }
}

fn requests(meant: args::Meant, clock: &dyn Clock) -> Vec<Which> {
    if !meant.ids.is_empty() {
        return meant.ids.chunks(IDS).map(|ids| Which::Ids(ids.to_vec())).collect();
    }
    let age = meant.older_than.unwrap_or(SignedDuration::ZERO);
    let arrived = clock.now().saturating_sub(age).unwrap_or(jiff::Timestamp::MIN);
    vec![Which::Matching { domain: meant.domain, sender: meant.sender, arrived }]
}

fn pages(
    socket: &Path,
    kind: OrderKind,
    report: bool,
    which: Which,
    total: &mut Total,
) -> Result<(), Exit> {
    let mut order = QueueOrder { kind, report, which, after: None, max: PAGE };
    loop {
        let value = ask(socket, &Request::QueueOrder(order.clone()))?;
        let view: OrderView =
            serde_json::from_value(value).map_err(|error| super::look::garbled(&error))?;
        total.changed = total.changed.saturating_add(view.changed);
        total.busy = total.busy.saturating_add(view.busy);
        total.unknown.extend(view.unknown);
        order.after = view.next;
        if order.after.is_none() {
            return Ok(());
        }
    }
}

fn sentence(kind: OrderKind, count: u64) -> String {
    format!("{count} recipient(s) {}", verb(kind).1)
}

const fn verb(kind: OrderKind) -> (&'static str, &'static str) {
    match kind {
        OrderKind::Hold => ("hold", "held"),
        OrderKind::Release => ("release", "released"),
        OrderKind::Retry => ("retry", "due now"),
        OrderKind::Remove => ("remove", "removed"),
    }
}
