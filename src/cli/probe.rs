//! `restante policy probe` for people: a section a host, the levels, and a policy entry to start
//! from.

use super::{Exit, out};
use crate::{
    policy::{DaneVerdict, Dnssec, StsFacts, StsMode, TlsFacts},
    probe::{AddressReport, Answer, HostReport, LevelReport, Report},
};

/// Names of a certificate that are shown.
const NAMES: usize = 8;

/// Shows what was seen; the exit code says whether there was something to see.
pub fn show(report: &Report, json: bool) -> Exit {
    if json {
        out::json(report);
    } else {
        text(report).iter().for_each(|line| out::line(printable(line)));
    }
    exit(report)
}

/// A domain that takes no mail is a no; where nobody could say, it may be tried again.
fn exit(report: &Report) -> Exit {
    match report.answer {
        Answer::NoDomain | Answer::NoHost | Answer::NullMx | Answer::Refused => Exit::No,
        Answer::Trouble => Exit::TryAgain,
        Answer::Hosts => {
            let reached = |host: &HostReport| host.addresses.iter().any(|a| a.reachable);
            if report.hosts.iter().any(reached) { Exit::Done } else { Exit::TryAgain }
        }
    }
}

/// What a host or a certificate says must not move a terminal's cursor.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect()
}

fn text(report: &Report) -> Vec<String> {
    let mut lines = vec![format!("{} at {}", report.domain, report.at.strftime("%FT%TZ"))];
    if let Some(error) = &report.error {
        lines.push(format!("  {error}"));
    }
    if let Some(dnssec) = report.dnssec {
        let worth = match dnssec {
            Dnssec::Secure => "signed (DNSSEC)",
            Dnssec::Insecure => "not signed",
            Dnssec::Unchecked => "DNSSEC is not checked",
        };
        lines.push(format!("  MX       {} host(s), {worth}", report.mx.len()));
    }
    if let Some(sts) = &report.sts {
        lines.push(format!("  MTA-STS  {sts}"));
    }
    for host in &report.hosts {
        lines.push(String::new());
        lines.extend(host_text(host, report.sts_policy.as_ref()));
    }
    let left_out = report.mx.len().saturating_sub(report.hosts.len());
    if left_out > 0 {
        lines.push(format!("{left_out} more host(s) were not looked at"));
    }
    if !report.levels.is_empty() {
        lines.push(String::new());
        lines.push("Levels".to_owned());
        lines.extend(report.levels.iter().flat_map(level_text));
    }
    if let Some(policy) = &report.policy {
        lines.push(String::new());
        let met = if policy.verdict.passes { "is met" } else { "is NOT met" };
        let (file, line, level) = (&policy.file, policy.line, policy.verdict.level);
        lines.push(format!("{file}:{line} level {level} {met}: {}", policy.verdict.why));
    }
    if let Some(suggestion) = &report.suggestion {
        lines.push(String::new());
        lines.push(suggestion.toml.trim_end().to_owned());
    }
    lines
}

fn host_text(host: &HostReport, sts: Option<&StsFacts>) -> Vec<String> {
    let mut lines = vec![format!("{} (preference {})", host.name, host.preference)];
    if let Some(error) = &host.error {
        lines.push(format!("  {error}"));
    }
    lines.push(format!("  DANE     {}", host.dane.text));
    if let (Some(named), Some(StsFacts::Policy(policy))) = (host.sts, sts) {
        let named = if named { "named" } else { "NOT named" };
        let mode = match policy.mode {
            StsMode::Enforce => "enforced",
            StsMode::Testing => "testing",
            StsMode::None => "none",
        };
        lines.push(format!("  MTA-STS  {named} by the policy ({mode})"));
    }
    lines.extend(host.addresses.iter().flat_map(address_text));
    lines
}

fn address_text(a: &AddressReport) -> Vec<String> {
    let starttls = match (a.reachable, a.starttls) {
        (false, _) => "not reachable",
        (true, Some(true)) => "STARTTLS offered",
        (true, Some(false)) => "STARTTLS not offered",
        (true, None) => "reachable",
    };
    let mut lines = vec![format!("  {}: {starttls}", a.address)];
    if let Some(tls) = &a.tls {
        lines.extend(tls_text(tls));
    }
    match &a.dane {
        Some(DaneVerdict::Met { record, .. }) => {
            lines.push(format!("    DANE     met by {record}"));
        }
        Some(DaneVerdict::Unmet(why)) => lines.push(format!("    DANE     not met: {why}")),
        None => {}
    }
    if let Some(e) = &a.extensions {
        let size = e.size.map_or_else(|| "no SIZE".to_owned(), |limit| format!("SIZE {limit}"));
        let offered =
            [(e.eight_bit, "8BITMIME"), (e.smtputf8, "SMTPUTF8"), (e.require_tls, "REQUIRETLS")];
        let offered = offered
            .iter()
            .map(|(is, name)| if *is { (*name).to_owned() } else { format!("no {name}") });
        lines.push(format!("    takes    {size}, {}", offered.collect::<Vec<_>>().join(", ")));
    }
    if let Some(reply) = &a.reply {
        lines.push(format!("    reply    {reply}"));
    }
    if let Some(error) = &a.error {
        lines.push(format!("    error    {error}"));
    }
    lines
}

fn tls_text(tls: &TlsFacts) -> Vec<String> {
    let group = tls.group.as_deref().unwrap_or("");
    let shown: Vec<&str> = tls.names.iter().take(NAMES).map(String::as_str).collect();
    let more = tls.names.len().saturating_sub(NAMES);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let chain = match &tls.chain_error {
        None => "trusted".to_owned(),
        Some(why) => format!("not trusted: {why}"),
    };
    let ends = tls
        .not_after
        .map_or_else(String::new, |end| format!(", valid until {}", end.strftime("%F")));
    vec![
        format!("    TLS      {} {} {group}", tls.version, tls.cipher),
        format!("    names    {}{more}", shown.join(" ")),
        format!("    chain    {chain}{ends}"),
        format!("    pin      sha256:{} (public key)", tls.key_fingerprint),
        format!("             sha256:{} (certificate)", tls.fingerprint),
    ]
}

fn level_text(level: &LevelReport) -> Vec<String> {
    let name = level.level.as_str();
    if level.fails.is_empty() {
        let passes = if level.passes { "passes" } else { "fails " };
        return vec![format!("  {name:<13} {passes}  {}", level.why)];
    }
    let fails = level.fails.iter().enumerate().map(|(at, short)| {
        let (name, word) = if at == 0 { (name, "fails ") } else { ("", "") };
        format!("  {name:<13} {word:<6}  {} [{}]: {}", short.host, short.address, short.why)
    });
    fails.collect()
}
