//! Commands that ask the running server: `status`, `queue`, `trace`.

use super::{Exit, out};
use crate::{
    control::{
        Answer, Page, Refusal, Request,
        client::{self, ClientError},
        view::{
            ClockConfirmed, QueueRecipient, QueueView, StatusView, TraceAttempt, TraceRecipient,
            TraceView,
        },
    },
    policy::{DaneVerdict, Dnssec},
    store::DnsRecord,
    vault::KeyProgress,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::path::Path;

/// Rows asked for at a time.
const PAGE: usize = 500;

/// `restante status`
pub fn status(socket: &Path, json: bool) -> Exit {
    show(socket, &Request::Status, json, |view: &StatusView| status_text(view))
}

/// `restante keys list|rotate|reload`
pub fn keys(socket: &Path, request: &Request, json: bool) -> Exit {
    show(socket, request, json, |keys: &KeyProgress| out::line(keys_text(keys)))
}

fn keys_text(keys: &KeyProgress) -> String {
    let KeyProgress { current, keys, rewrapped, remaining, unreadable } = keys;
    let older: Vec<_> =
        keys.iter().filter(|key| *key != current).map(|k| k.0.to_string()).collect();
    let mut text = format!("{} current", current.0);
    if !older.is_empty() {
        text.push_str(&format!(
            ", {} being retired: {rewrapped} wrapped again, {remaining} to look at",
            older.join(" ")
        ));
    }
    if *unreadable > 0 {
        text.push_str(&format!(", {unreadable} do not open"));
    }
    text
}

/// `restante clock confirm`
pub fn clock_confirm(socket: &Path, json: bool) -> Exit {
    show(socket, &Request::ClockConfirm, json, |done: &ClockConfirmed| {
        let clock = time(done.clock);
        if done.changed {
            out::line(format_args!("{clock} is taken as right: what is over by it ends"));
        } else {
            out::line(format_args!("{clock} was not in doubt: nothing to confirm"));
        }
    })
}

/// `restante queue show ID`
pub fn queue_show(socket: &Path, id: String, json: bool) -> Exit {
    show(socket, &Request::QueueShow { id }, json, trace_text)
}

/// `restante trace QUERY`
pub fn trace(socket: &Path, query: String, json: bool) -> Exit {
    let value = match ask(socket, &Request::Trace { query }) {
        Ok(value) => value,
        Err(exit) => return exit,
    };
    if json {
        out::json(&value);
        return Exit::Done;
    }
    let lives = if let Value::Array(lives) = value { lives } else { vec![value] };
    for life in lives {
        match serde_json::from_value(life) {
            Ok(view) => trace_text(&view),
            Err(error) => return garbled(&error),
        }
    }
    Exit::Done
}

/// `restante queue list`
pub fn queue_list(socket: &Path, json: bool, paging: Paging) -> Exit {
    let names = ["ID", "ARRIVED", "SIZE", "SENDER", "RECIPIENT", "STATE", "NEXT", "REASON"];
    let request = |after, max| Request::QueueList { after, max };
    list(socket, json, paging, request, &names, |view: &QueueView| {
        let row = |r: &QueueRecipient| {
            vec![
                view.id.to_string(),
                time(view.arrived),
                view.size.to_string(),
                path(view.sender.as_ref()),
                r.address.to_string(),
                format!("{} ({})", r.state, r.attempts),
                r.next.map(time).unwrap_or_default(),
                r.reason.clone().unwrap_or_default(),
            ]
        };
        view.recipients.iter().map(row).collect()
    })
}

pub(super) fn show<T: DeserializeOwned>(
    socket: &Path,
    request: &Request,
    json: bool,
    text: impl Fn(&T),
) -> Exit {
    let value = match ask(socket, request) {
        Ok(value) => value,
        Err(exit) => return exit,
    };
    if json {
        out::json(&value);
        return Exit::Done;
    }
    match serde_json::from_value(value) {
        Ok(view) => text(&view),
        Err(error) => return garbled(&error),
    }
    Exit::Done
}

/// Which part of a long list is asked for.
#[derive(Debug, Default)]
pub struct Paging {
    /// What comes after this one.
    pub after: Option<String>,
    /// So many at most.
    pub limit: Option<usize>,
}

/// Fetches page after page and prints each as it comes, so that a list may be of any length. JSON is
/// one array over all of them.
pub(super) fn list<T: DeserializeOwned + Serialize>(
    socket: &Path,
    json: bool,
    paging: Paging,
    request: impl Fn(Option<String>, usize) -> Request,
    names: &[&str],
    lines: impl Fn(&T) -> Vec<Vec<String>>,
) -> Exit {
    let (mut table, mut array) = (out::Table::default(), out::Array::default());
    let (mut left, mut after) = (paging.limit, paging.after);
    let mut heading = Some(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
    loop {
        let max = left.map_or(PAGE, |left| left.min(PAGE));
        let (rows, next) = match page::<T>(socket, &request(after, max)) {
            Ok(page) => page,
            Err(exit) => return exit,
        };
        let read = if json {
            array.print(&rows)
        } else {
            let first = heading.take();
            table.print(&first.into_iter().chain(rows.iter().flat_map(&lines)).collect::<Vec<_>>())
        };
        left = left.map(|left| left.saturating_sub(rows.len()));
        after = next.filter(|_| read);
        match (&after, left) {
            (None, _) => break,
            (Some(last), Some(0)) => {
                out::remark(format_args!("go on with --after {last}"));
                break;
            }
            (Some(_), _) => {}
        }
    }
    if json {
        array.end();
    }
    Exit::Done
}

/// Fetches page after page, and hands over each row.
pub(super) fn each_page<T: DeserializeOwned>(
    socket: &Path,
    request: impl Fn(Option<String>) -> Request,
    mut take: impl FnMut(T),
) -> Result<(), Exit> {
    let mut after = None;
    loop {
        let (rows, next) = page(socket, &request(after))?;
        rows.into_iter().for_each(&mut take);
        after = next;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// One page: its rows, and where to go on.
fn page<T: DeserializeOwned>(
    socket: &Path,
    request: &Request,
) -> Result<(Vec<T>, Option<String>), Exit> {
    let page: Page =
        serde_json::from_value(ask(socket, request)?).map_err(|error| garbled(&error))?;
    let rows = page.rows.into_iter().map(serde_json::from_value);
    let rows = rows.collect::<Result<_, _>>().map_err(|error| garbled(&error))?;
    Ok((rows, page.next))
}

pub(super) fn ask(socket: &Path, request: &Request) -> Result<Value, Exit> {
    answered(client::ask(socket, request))
}

/// The answer's value; for a no, and for no answer at all, what is to be said and the exit code.
pub(super) fn answered(answer: Result<Answer, ClientError>) -> Result<Value, Exit> {
    match answer {
        Ok(Answer::Ok(value)) => Ok(value),
        Ok(Answer::No { why, text }) => {
            out::complain(text);
            Err(match why {
                Refusal::NotFound => Exit::No,
                Refusal::Usage => Exit::Usage,
                Refusal::TryAgain => Exit::TryAgain,
            })
        }
        Err(error) => {
            out::complain(&error);
            Err(match error {
                ClientError::NotReachable { .. } => Exit::Unavailable,
                ClientError::NotPermitted { .. } => Exit::NotPermitted,
                ClientError::Garbled(_) => Exit::TryAgain,
            })
        }
    }
}

pub(super) fn garbled(error: &serde_json::Error) -> Exit {
    out::complain(format_args!("the server's answer makes no sense: {error}"));
    Exit::TryAgain
}

fn status_text(view: &StatusView) {
    let addresses = |list: &[std::net::SocketAddr]| {
        list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    out::line(format_args!("restante {}", view.version));
    out::line(format_args!("smtp      {}", addresses(&view.listeners.smtp)));
    out::line(format_args!("portal    {}", addresses(&view.listeners.portal)));
    if !view.listeners.metrics.is_empty() {
        out::line(format_args!("metrics   {}", addresses(&view.listeners.metrics)));
    }
    let q = &view.queue;
    let oldest = q.oldest.map_or_else(String::new, |at| format!(", oldest from {}", time(at)));
    out::line(format_args!(
        "queue     {} active, {} deferred, {} held{oldest}",
        q.active, q.deferred, q.held
    ));
    let v = &view.vault;
    out::line(format_args!(
        "vault     {} messages, {} grants, {} bytes",
        v.messages, v.grants, v.bytes
    ));
    out::line(format_args!(
        "store     {}; segments take {} bytes, {} of them live",
        view.store, v.segments.taken, v.segments.live
    ));
    if view.unreadable > 0 {
        let what = "rows can't be read and are left as they are: the log names them";
        out::line(format_args!("          {} {what}", view.unreadable));
    }
    out::line(format_args!("clock     {}", view.clock.text));
    out::line(format_args!("keys      {}", keys_text(&view.keys)));
    out::line(format_args!(
        "policies  {} loaded {}",
        view.policy.version,
        time(view.policy.loaded)
    ));
    if let Some(error) = &view.policy.error {
        out::line(format_args!("          a newer set on disk is NOT in force: {error}"));
    }
    out::line(format_args!("dnssec    {}: {}", view.dns.dnssec, view.dns.text));
    for p in &view.sign_in {
        out::line(format_args!("sign-in   {} ({}): {}", p.name, p.issuer, p.state));
    }
    for f in &view.failures {
        out::line(format_args!(
            "waiting   {}: {} recipient(s), {}: {}",
            f.domain, f.waiting, f.reason, f.text
        ));
    }
    for w in &view.watch {
        let kind = w.kind.as_str();
        out::line(format_args!(
            "watch     {}: {kind} since {}: {}",
            w.domain,
            time(w.since),
            w.text
        ));
    }
}

fn trace_text(view: &TraceView) {
    out::line(format_args!(
        "{} {} from {} arrived {} ({} bytes)",
        view.id,
        view.class,
        path(view.sender.as_ref()),
        time(view.arrived),
        view.size
    ));
    if let Some(message_id) = &view.message_id {
        out::line(format_args!("  Message-ID {message_id}"));
    }
    if let Some(client) = &view.client {
        let tls = view.client_tls.as_deref().unwrap_or("no TLS");
        out::line(format_args!("  handed in by {client}, {tls}"));
    }
    if let Some(rule) = &view.rule {
        out::line(format_args!("  judged by the rule at {rule}"));
    }
    view.recipients.iter().for_each(recipient_text);
}

fn recipient_text(r: &TraceRecipient) {
    out::line(format_args!("  to {}: {}", r.address, r.outcome));
    if let (Some(why), Some(reason)) = (&r.why, &r.reason) {
        out::line(format_args!("    why: {why} ({reason})"));
    }
    if let Some(p) = &r.policy {
        let level = serde_json::to_value(p.level).unwrap_or_default();
        let level = level.as_str().unwrap_or_default();
        // Line 0: what decided is built in or configured, and stands in no policy file.
        let line = if p.line == 0 { String::new() } else { format!(":{}", p.line) };
        out::line(format_args!("    policy: {}{line} level {level} (set {})", p.file, p.version));
    }
    if let Some(next) = r.next {
        out::line(format_args!("    next attempt {}", time(next)));
    }
    if let Some(opened) = r.opened {
        out::line(format_args!("    opened at the portal {}", time(opened)));
    }
    r.attempts.iter().for_each(attempt_text);
}

fn attempt_text(a: &TraceAttempt) {
    let host = a.mx.as_deref().unwrap_or("-");
    let address = a.address.as_deref().unwrap_or("-");
    out::line(format_args!("    {} {host} [{address}]", time(a.at)));
    if let Some(dns) = &a.dns {
        dns_text(dns);
    }
    if let Some(t) = &a.tls {
        let verified = if t.verified { "verified" } else { "not verified" };
        let group = t.group.as_deref().unwrap_or("-");
        out::line(format_args!(
            "      TLS {} {} {group}, {verified}, names {}, sha256:{}",
            t.version,
            t.cipher,
            t.names.join(" "),
            t.fingerprint
        ));
        if let Some(error) = &t.chain_error {
            out::line(format_args!("      certificate: {error}"));
        }
        match &t.dane {
            Some(DaneVerdict::Met { record, .. }) => {
                out::line(format_args!("      DANE: meets {record}"));
            }
            Some(DaneVerdict::Unmet(why)) => out::line(format_args!("      DANE: not met: {why}")),
            None => {}
        }
    }
    if let Some(reply) = &a.reply {
        out::line(format_args!("      reply {reply}"));
    }
    if let Some(error) = &a.error {
        out::line(format_args!("      error {error}"));
    }
}

fn dns_text(dns: &DnsRecord) {
    let worth = match dns.dnssec {
        Dnssec::Secure => "signed",
        Dnssec::Insecure => "not signed",
        Dnssec::Unchecked => "not checked",
    };
    out::line(format_args!("      MX {} (DNSSEC: {worth})", dns.mx.join(" ")));
    if let Some(dane) = &dns.dane {
        out::line(format_args!("      TLSA {dane}"));
    }
    if let Some(sts) = &dns.sts {
        out::line(format_args!("      MTA-STS {sts}"));
    }
}

pub(super) fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub(super) fn path(sender: Option<&crate::mail::Address>) -> String {
    sender.map_or_else(|| "<>".to_owned(), ToString::to_string)
}
