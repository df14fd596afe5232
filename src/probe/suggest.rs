//! A policy entry to start from: the strongest level that passes now, as a `[[partner]]` block.

use super::report::{LevelReport, Seen, Suggestion};
use crate::policy::{Dane, Dnssec, Level, MxFacts, Wanted};
use jiff::Timestamp;

/// The entry, where some level passes that protects anything. What DNSSEC vouches for comes before
/// what a human must keep up; a pin proves much, and breaks when the partner changes its key. More
/// levels need no look: who passes `verify` or `mta-sts` passes `secure` with its hosts' names in
/// `match`, and whoever has TLS has a key to pin.
pub(super) fn suggest(
    seen: &Seen<'_>,
    levels: &[LevelReport],
    pins: &[String],
    at: Timestamp,
) -> Option<Suggestion> {
    let passes = |level: Level| levels.iter().any(|l| l.level == level && l.passes);
    let entry = |level, names: &Names, pins: &[String]| {
        let toml = block(seen, level, names, pins, at);
        Some(Suggestion { level, toml })
    };
    if passes(Level::DaneOnly) {
        return entry(Level::DaneOnly, &Names::default(), &[]);
    }
    if let Some(names) = names(seen, passes(Level::Secure)) {
        return entry(Level::Secure, &names, &[]);
    }
    if passes(Level::Fingerprint) && !contradicted(seen, levels) {
        return entry(Level::Fingerprint, &Names::default(), pins);
    }
    None
}

/// What `match` lists.
#[derive(Default)]
struct Names {
    list: Vec<String>,
    /// Only DNS without signatures says that they are the domain's.
    unsigned: bool,
}

/// Signed TLSA records name another key than the one that was shown: nothing to pin.
fn contradicted(seen: &Seen<'_>, levels: &[LevelReport]) -> bool {
    let fails = levels.iter().filter(|l| l.level == Level::DaneOnly).flat_map(|l| &l.fails);
    let named = |host: &str| {
        let mut hosts = seen.hosts.iter().map(|host| &host.facts);
        hosts.any(|facts| facts.name == host && matches!(facts.dane, Dane::Records(_)))
    };
    fails.into_iter().any(|short| named(&short.host))
}

/// Names for `match`, with which level `secure` passes: none where the certificates bear the domain
/// itself, otherwise the entry's, otherwise the names of the hosts that were seen. These are what
/// DNS says now. Where it is not signed, a forgery of today would be written down for good, so the
/// partner must be asked.
fn names(seen: &Seen<'_>, passes: bool) -> Option<Names> {
    let list = seen.policy.map(|policy| policy.names.clone()).unwrap_or_default();
    if passes {
        return Some(Names { list, unsigned: false });
    }
    let answers = seen.hosts.iter().filter(|host| host.visits.iter().any(|v| v.reached()));
    let list: Vec<String> = answers.map(|host| host.facts.name.clone()).collect();
    let wanted = Wanted { names: &list, ..Wanted::level(Level::Secure, seen.domain) };
    let unsigned = !matches!(seen.mx, MxFacts::Hosts(_, Dnssec::Secure));
    seen.judge(&wanted).passes.then_some(Names { list, unsigned })
}

fn block(seen: &Seen<'_>, level: Level, names: &Names, pins: &[String], at: Timestamp) -> String {
    let mut lines = Vec::new();
    let mut line = |text: String| lines.push(text);
    line(format!(
        "# {}, seen {}: `{level}` is the strongest level that passes now.",
        seen.domain,
        day(at)
    ));
    for host in seen.hosts {
        let ends = host.visits.iter().filter_map(|visit| visit.tls()?.not_after).min();
        if let Some(end) = ends {
            let name = plain(&host.facts.name);
            line(format!("# {name}: certificate valid until {}.", day(end)));
        }
    }
    if !pins.is_empty() {
        line("# Ask the partner whether these are its keys before you trust them.".to_owned());
    }
    if names.unsigned {
        let ask = "ask the partner whether these are its hosts";
        line(format!("# Names that DNS gave today, unsigned: {ask}."));
    }
    line("[[partner]]".to_owned());
    line(format!("domains = [{}]", quoted(seen.domain.as_str())));
    line(format!("level = {}", quoted(level.as_str())));
    if !names.list.is_empty() {
        line(format!("match = {}", list(names.list.iter().map(String::as_str))));
    }
    if !pins.is_empty() {
        let pins: Vec<String> = pins.iter().map(|pin| format!("sha256:{pin}")).collect();
        line(format!("fingerprints = {}", list(pins.iter().map(String::as_str))));
    }
    lines.extend(kept(seen, level));
    lines.push(String::new());
    lines.join("\n")
}

/// What the entry in force says besides, and the look relied on.
fn kept(seen: &Seen<'_>, level: Level) -> Vec<String> {
    let mut lines = Vec::new();
    let Some(policy) = seen.policy else { return lines };
    if let Some(file) = &policy.ca_file
        && level.checks_chain()
    {
        lines.push(format!("ca_file = {}", quoted(file)));
    }
    if let Some(client) = &policy.client {
        lines.push(format!("client_certificate = {}", quoted(&client.certificate)));
        lines.push(format!("client_key = {}", quoted(&client.key)));
    }
    if let Some(hop) = &policy.next_hop {
        lines.push(format!("next_hop = {}", quoted(&hop.to_string())));
    }
    lines
}

fn day(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

fn list<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = texts.map(quoted).collect();
    format!("[{}]", quoted.join(", "))
}

/// As TOML has it, whatever DNS or a certificate put into it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}
