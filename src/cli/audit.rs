//! `restante audit` and `restante account log`: the audit trail.

use super::{
    Exit, args,
    look::{Paging, ask, each_page, list, time},
    out,
};
use crate::{
    audit::Verified,
    clock::Clock,
    control::{Request, audit::AuditQuery},
    mail::Address,
    store::AuditRecord,
};
use jiff::Timestamp;
use std::path::Path;

/// Records asked for at a time where all are wanted.
const PAGE: usize = 1000;

/// `restante account log ADDRESS`
pub fn account_log(socket: &Path, log: args::AccountLog, clock: &dyn Clock) -> Exit {
    let Ok(account) = log.address.parse::<Address>() else {
        out::complain(format!("no address: {}", log.address));
        return Exit::Usage;
    };
    let since = log.since.map(|since| since.before(clock.now()));
    let query = AuditQuery { account: Some(account), since, ..AuditQuery::default() };
    listed(socket, log.json, Paging { after: log.after, limit: log.limit }, query)
}

/// `restante audit search`
pub fn search(socket: &Path, search: args::AuditSearch, clock: &dyn Clock) -> Exit {
    let args::AuditSearch { which, limit, after, json } = search;
    listed(socket, json, Paging { after, limit }, query(which, clock.now()))
}

fn query(which: args::AuditWhich, now: Timestamp) -> AuditQuery {
    AuditQuery {
        account: which.account,
        event: which.event,
        client: which.client,
        message: which.message,
        since: which.since.map(|since| since.before(now)),
        until: which.until.map(|until| until.before(now)),
        forward: false,
    }
}

fn listed(socket: &Path, json: bool, paging: Paging, query: AuditQuery) -> Exit {
    let names = ["NUMBER", "TIME", "EVENT", "DETAIL", "ACCOUNT", "CLIENT", "BROWSER", "MESSAGE"];
    let request = |after, max| Request::AuditRecords { query: query.clone(), after, max };
    list(socket, json, paging, request, &names, |record: &AuditRecord| {
        let event = &record.event;
        let mut detail = event.detail.as_ref().map(|d| d.as_str().to_owned()).unwrap_or_default();
        if event.more > 0 {
            detail = format!("{} more", event.more);
        }
        let text = |value: Option<String>| value.unwrap_or_default();
        vec![vec![
            record.seq.to_string(),
            time(event.at),
            event.kind.to_string(),
            detail,
            text(event.account.as_ref().map(ToString::to_string)),
            text(event.client.map(|client| client.to_string())),
            event.agent.clone(),
            text(event.message.map(|message| message.to_string())),
        ]]
    })
}

/// `restante audit export`: a record a line, as JSON, in the order of the trail.
pub fn export(socket: &Path, which: args::AuditWhich, clock: &dyn Clock) -> Exit {
    let query = AuditQuery { forward: true, ..query(which, clock.now()) };
    let request = |after| Request::AuditRecords { query: query.clone(), after, max: PAGE };
    let line = |record: serde_json::Value| out::line(format_args!("{record}"));
    match each_page(socket, request, line) {
        Ok(()) => Exit::Done,
        Err(exit) => exit,
    }
}

/// `restante audit verify`
pub fn verify(socket: &Path, json: bool) -> Exit {
    let value = match ask(socket, &Request::AuditVerify) {
        Ok(value) => value,
        Err(exit) => return exit,
    };
    let found: Verified = match serde_json::from_value(value.clone()) {
        Ok(found) => found,
        Err(error) => {
            out::complain(error);
            return Exit::TryAgain;
        }
    };
    let exit = if found.faults.is_empty() { Exit::Done } else { Exit::No };
    if json {
        out::json(&value);
        return exit;
    }
    for fault in &found.faults {
        out::line(format_args!("{fault}"));
    }
    let Verified { first, last, head, faults } = found;
    if faults.is_empty() {
        let count = last.saturating_add(1).saturating_sub(first);
        out::line(format_args!("{count} records ({first} to {last}) are as they were written"));
        out::line(format_args!("head: {head}"));
    }
    exit
}
