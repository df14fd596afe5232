//! What is allowed and yet seldom meant: keys without effect, levels that prove less than they seem
//! to, rows that can never apply.
use crate::{
    mail::Domain,
    policy::{
        Code, Level, Policy, PolicySet, Problem, RuleAction, TlsUse,
        decide::{shows_client, tls_use},
        file::NextHop,
        near_miss,
        read::{Broken, Place, filled},
        rules::Rule,
        toml_source::Section,
    },
};
use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
};

/// Second-level names under which strangers register theirs, below a country's two letters.
const SECOND_LEVEL: [&str; 16] = [
    "ac", "co", "com", "edu", "gob", "gov", "gouv", "gv", "ltd", "ne", "net", "nhs", "nom", "or",
    "org", "plc",
];
/// How mail hosts are called, digits left out.
const HOST_NAMES: [&str; 8] = ["imap", "mail", "mailgw", "mailhost", "mta", "mx", "relay", "smtp"];

/// The default.
pub(super) fn default(section: &Section<'_, '_>, level: Level) {
    weak_level(section, level);
    if level == Level::Fingerprint {
        section.doc().note(
            Code::MISSING_FINGERPRINT,
            section.at(),
            "level `fingerprint` needs pins, and [default] has none: write level = \"envelope\", \
             and a [[partner]] with fingerprints",
        );
    }
}

/// One entry at its level.
pub(super) fn level(section: &Section<'_, '_>, policy: &Policy, domains: &[(usize, String)]) {
    idle_keys(section, policy);
    weak_level(section, policy.level);
    // What could not be read is no missing key.
    let names = policy.names.is_empty() && filled(section, "match").is_some();
    let hop = policy.next_hop.is_none() && filled(section, "next_hop").is_some();
    if !names && !hop {
        host_name(section, policy, domains);
    }
    other_next_hop(section, policy);
}

/// What one entry says at any level.
pub(super) fn entry(section: &Section<'_, '_>, domains: &[(usize, String)]) {
    missing_dot(section, domains);
    near_miss::spelling(section, "domains");
    near_miss::spelling(section, "match");
    near_miss::names_of_match(section, domains);
}

/// Keys that do nothing at the entry's level.
fn idle_keys(section: &Section<'_, '_>, policy: &Policy) {
    let level = policy.level;
    let encrypted = tls_use(level) == TlsUse::Always && level != Level::Envelope;
    let idle = |key, useful: bool| {
        if let Some(entry) = filled(section, key).filter(|_| !useful) {
            entry.note(Code::NO_EFFECT, format_args!("has no effect at level `{level}`"));
        }
    };
    idle("match", matches!(level, Level::Secure | Level::Verify));
    idle("fingerprints", level == Level::Fingerprint);
    idle("ca_file", level.checks_chain());
    idle("client_certificate", shows_client(level));
    idle("min_tls", encrypted);
    idle("next_hop", level != Level::Envelope);
    idle("mark", level != Level::Envelope);
}

/// Levels at which nobody has proved who they are.
fn weak_level(section: &Section<'_, '_>, level: Level) {
    let Some(entry) = section.get("level") else { return };
    let text = match level {
        Level::None => "`none` sends content in plaintext: for a relay on the same host only",
        Level::Opportunistic => {
            "`opportunistic` sends content in plaintext where TLS is not offered, and proves \
             nothing where it is: write \"secure\""
        }
        Level::Encrypt => {
            "`encrypt` takes any certificate, also that of whoever stands between: write \"secure\""
        }
        Level::Dane => {
            "`dane` takes any certificate where the domain publishes no TLSA records: write \
             \"dane-only\" if it does"
        }
        Level::Auto
        | Level::DaneOnly
        | Level::Envelope
        | Level::Fingerprint
        | Level::MtaSts
        | Level::Published
        | Level::Secure
        | Level::Verify => return,
    };
    entry.note(Code::WEAK_LEVEL, text);
}

/// Whose name the certificate must bear, at the levels that ask for one.
fn host_name(section: &Section<'_, '_>, policy: &Policy, domains: &[(usize, String)]) {
    let Some(entry) = section.get("level").filter(|_| policy.names.is_empty()) else { return };
    let host = policy.next_hop.as_ref().filter(|hop| !hop.mx).map(|hop| hop.host.as_str());
    if policy.level == Level::Verify && host.is_none() {
        entry.note(
            Code::UNSIGNED_MX,
            "`verify` trusts unsigned DNS for the MX host's name: add `match`, or use `secure`",
        );
    }
    let under = |host: &str| {
        let covers = |(_, name): &(usize, String)| {
            let name = name.trim_start_matches('.');
            host == name || host.ends_with(&format!(".{name}"))
        };
        domains.iter().any(covers)
    };
    if policy.level == Level::Secure
        && let Some(host) = host.filter(|host| !under(host))
    {
        let text = format!(
            "`secure` without `match` wants the recipient's domain in the certificate of {host}: \
             add match = [\"{host}\"] if it bears that name"
        );
        entry.note(Code::NEXT_HOP_NAME, text);
    }
}

/// A next hop beside levels that look at what the recipient's domain publishes.
fn other_next_hop(section: &Section<'_, '_>, policy: &Policy) {
    let (Some(entry), Some(hop)) = (section.get("next_hop"), policy.next_hop.as_ref()) else {
        return;
    };
    let NextHop { host, mx, .. } = hop;
    if policy.level.asks_dane() && host.parse::<IpAddr>().is_ok() {
        let text = format!(
            "an address has no TLSA records, so that level `{}` finds none: write the host's name",
            policy.level
        );
        entry.note(Code::NEXT_HOP_NAME, text);
    } else if policy.level.asks_dane() && !mx {
        let text = format!(
            "level `{}` asks for the TLSA records of {host} then, not of the domain's MX hosts",
            policy.level
        );
        entry.note(Code::NEXT_HOP_NAME, text);
    }
    if policy.level.asks_sts() {
        let text = format!(
            "the MTA-STS policy asked is that of the recipient's domain: level `{}` is met only \
             if it names {}",
            policy.level,
            if *mx { format!("the MX hosts of {host}") } else { host.clone() }
        );
        entry.note(Code::NEXT_HOP_NAME, text);
    }
}

/// Subdomains that seem to be meant and are not covered: some stand beside the domain by their
/// names.
fn missing_dot(section: &Section<'_, '_>, domains: &[(usize, String)]) {
    let Some(entry) = section.get("domains") else { return };
    let listed: HashSet<&str> = domains.iter().map(|(_, name)| name.as_str()).collect();
    let mut said = HashSet::new();
    for (at, name) in domains {
        for suffix in wider(name) {
            let parent = suffix.trim_start_matches('.');
            if listed.contains(parent) && !listed.contains(suffix) && said.insert(parent) {
                let text = format!(
                    "`{name}` stands beside `{parent}`, while other subdomains have no entry: \
                     write \"{suffix}\" if all are meant"
                );
                entry.note_at(Code::MISSING_DOT, *at, text);
            }
        }
    }
}

/// What only the whole set shows.
pub(super) fn set(
    set: &PolicySet,
    places: &BTreeMap<String, Place>,
    broken: &Broken,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    // A condition that could not be read looks like none.
    if !broken.rules {
        problems.extend(unreachable_rules(&set.rules));
    }
    for (name, place) in places {
        let texts = [
            whole_suffix(name),
            uncovered_parent(name, places),
            host_as_domain(name, places),
            redundant(set, name, places, broken),
            never_direct(set, name),
        ];
        let (file, line, column) = place;
        let problem = |(code, text)| Problem::new(file, (*line, *column), code, text);
        let open = texts.into_iter().flatten().filter(|(code, _)| !set.accepts(name, *code));
        problems.extend(open.map(problem));
    }
    problems
}

type Found = Option<(Code, String)>;

/// `.com`, `.co.uk`: everybody may register below.
fn whole_suffix(name: &str) -> Found {
    let bare = name.strip_prefix('.').unwrap_or(name);
    let whole = match bare.split_once('.') {
        None => true,
        Some(_) => name.starts_with('.') && is_second_level(bare),
    };
    let text = format!(
        "`{name}` speaks for everybody who registers a name there: write the partner's own domain"
    );
    (whole && !bare.starts_with('[')).then_some((Code::WHOLE_SUFFIX, text))
}

/// `co.uk`
fn is_second_level(name: &str) -> bool {
    name.split_once('.').is_some_and(|(second, top)| {
        top.len() == 2 && !top.contains('.') && SECOND_LEVEL.contains(&second)
    })
}

/// `.x` does not cover x itself: a frequent surprise, worth a word where no entry covers it.
fn uncovered_parent(name: &str, places: &BTreeMap<String, Place>) -> Found {
    let parent = name.strip_prefix('.').filter(|parent| !places.contains_key(*parent))?;
    let text = format!(
        "`{name}` covers subdomains only: `{parent}` itself has no entry; add it if it is meant too"
    );
    Some((Code::PARENT_NOT_COVERED, text))
}

/// `mail.partner.example` where people write to `partner.example`.
fn host_as_domain(name: &str, places: &BTreeMap<String, Place>) -> Found {
    let (first, rest) = name.split_once('.')?;
    let host = first.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
    let listed = places.contains_key(rest) || places.contains_key(&format!(".{rest}"));
    let text = format!(
        "`{name}` looks like a mail host; entries go by what stands behind the @: write \
         \"{rest}\" if that is meant"
    );
    let registered = !rest.contains('.') || is_second_level(rest);
    (HOST_NAMES.contains(&host) && !registered && !listed).then_some((Code::HOST_AS_DOMAIN, text))
}

/// A name whose row could go, as a wider one says the same.
fn redundant(
    set: &PolicySet,
    name: &str,
    places: &BTreeMap<String, Place>,
    broken: &Broken,
) -> Found {
    let own_index = set.names.get(name)?;
    let own = set.policies.get(*own_index)?;
    let (wider, index) = wider(name).find_map(|key| Some((key, set.names.get(key)?)))?;
    if [own_index, index].iter().any(|index| broken.entries.contains(index)) {
        return None;
    }
    let other = set.policies.get(*index)?;
    let (contact, note, accept) = (own.contact.clone(), own.note.clone(), own.accept.clone());
    let same = Policy { at: own.at.clone(), contact, note, accept, ..other.clone() } == *own;
    let (file, line, column) = places.get(wider)?;
    let text = format!(
        "`{wider}` at {file}:{line}:{column} covers `{name}` and says the same: leave this one out"
    );
    same.then_some((Code::REDUNDANT_NAME, text))
}

/// `auto` for a domain that `never_direct` keeps it from.
fn never_direct(set: &PolicySet, name: &str) -> Found {
    let policy = set.policies.get(*set.names.get(name)?)?;
    let listed = |key: &str| set.never_direct.contains(key);
    let text = format!(
        "level `auto` never delivers to `{name}`, which a list of never_direct names: leave it \
         out, or write another level"
    );
    (policy.level == Level::Auto && (listed(name) || wider(name).any(listed)))
        .then_some((Code::NEVER_DIRECT, text))
}

/// The `.suffix` names that cover this one, most specific first.
fn wider(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('.').map(|(dot, _)| dot).filter(|dot| *dot > 0).filter_map(|d| name.get(d..))
}

/// Rules that never decide, as another is met by all that they match and goes before: a `reject`
/// wherever it stands, the others in their order.
fn unreachable_rules(rules: &[Rule]) -> Vec<Problem> {
    let rejects = |rule: &Rule| rule.action == RuleAction::Reject;
    let mut problems = Vec::new();
    let open = |(_, rule): &(usize, &Rule)| !rule.accept.contains(&Code::UNREACHABLE_RULE);
    for (n, rule) in rules.iter().enumerate().filter(open) {
        let before = rules.iter().take(n).filter(|other| rejects(other) || !rejects(rule));
        let after = rules.iter().skip(n + 1).filter(|other| rejects(other) && !rejects(rule));
        if let Some(other) = before.chain(after).find(|other| other.covers(rule)) {
            let (file, line) = &rule.at;
            let text = format!(
                "this rule never decides: the one at {}:{} matches whatever it matches; leave it \
                 out, or move it up",
                other.at.0, other.at.1
            );
            problems.push(Problem::new(file, (*line, 1), Code::UNREACHABLE_RULE, text));
        }
    }
    problems
}

/// True for a name that is no address literal and no suffix of one.
pub(super) fn is_name(name: &str) -> bool {
    name.trim_start_matches('.').parse::<Domain>().is_ok_and(|domain| domain.literal().is_none())
}

#[cfg(test)]
mod tests;
