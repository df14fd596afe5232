//! One line a recipient, as Postfix readers know it; local parts of addresses stand nowhere in it.

use super::{outcome::Fate, settle::Entry};
use crate::store::{Attempt, Claim};
use jiff::Timestamp;

/// Logs what became of each recipient of a claim.
pub(super) fn fates(claim: &Claim, entries: &[Entry], now: Timestamp) {
    for (row, entry) in claim.recipients.iter().zip(entries) {
        let line = line(claim, row.address.domain().as_str(), entry, now);
        match entry.fate {
            Fate::Delivered { .. } | Fate::Sealed { .. } => tracing::info!("{line}"),
            Fate::Deferred { .. } | Fate::Failed { .. } => tracing::warn!("{line}"),
        }
    }
}

fn line(claim: &Claim, domain: &str, entry: &Entry, now: Timestamp) -> String {
    let facts = &claim.message.facts;
    let delay = now.duration_since(facts.arrived).as_secs().max(0);
    let (status, dsn, text) = match &entry.fate {
        Fate::Delivered { reply, .. } => ("sent", None, reply),
        Fate::Sealed { why, .. } => ("sealed", None, &why.text),
        Fate::Deferred { why, status } => ("deferred", Some(status), &why.text),
        Fate::Failed { why, status } => ("bounced", Some(status), &why.text),
    };
    let dsn = dsn.map(|s| format!("dsn={s}, ")).unwrap_or_default();
    format!(
        "{}: to=<…@{domain}>, relay={}, delay={delay}, {dsn}status={status} ({}) policy={}:{}",
        facts.id,
        entry.last.as_ref().map_or_else(|| "none".to_owned(), relay),
        without_local_parts(text),
        entry.fate.why().policy.file,
        entry.fate.why().policy.line,
    )
}

/// `host[address]:port`
fn relay(attempt: &Attempt) -> String {
    let host = attempt.mx.as_deref().unwrap_or("none");
    let Some(address) = attempt.address.as_deref() else { return host.to_owned() };
    match address.parse::<std::net::SocketAddr>() {
        Ok(a) => format!("{host}[{}]:{}", a.ip(), a.port()),
        Err(_) => format!("{host}[{address}]"),
    }
}

/// The text with every local part taken out: peers like to repeat the address in their replies.
/// Control characters become spaces, so that a peer can't write lines of its own into the log.
pub(super) fn without_local_parts(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '@' {
            let keep = out.trim_end_matches(in_local_part).len();
            out.truncate(keep);
            out.push_str("…@");
        } else {
            out.push(if c.is_control() { ' ' } else { c });
        }
    }
    out
}

fn in_local_part(c: char) -> bool {
    !(c.is_whitespace() || matches!(c, '<' | '>' | '(' | ')' | '[' | ']' | ',' | ';' | ':' | '='))
}
