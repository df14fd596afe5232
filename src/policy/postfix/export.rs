//! From partner entries to rows.
use crate::policy::{Level, Otherwise, Policy, PolicySet};
use jiff::Timestamp;
use std::{collections::BTreeMap, net::IpAddr};

/// A table, and what is not in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Text source of a `smtp_tls_policy_maps` table.
    pub text: String,
    /// What could not be carried over, `domain: why` a line.
    pub remarks: Vec<String>,
}

const HEAD: &str = "\
# smtp_tls_policy_maps, by restante policy export-postfix.
# main.cf needs smtp_tls_fingerprint_digest = sha256, and compatibility_level = 3.6 or later.
# Postfix knows no envelope: where a level is not met, mail waits and then goes back.
";

/// Writes the entries that hold now. Paths of `ca_file` are completed by `join`, as Postfix reads
/// them relative to its queue.
pub fn export(set: &PolicySet, now: Timestamp, join: impl Fn(&str) -> String) -> Export {
    let mut export = Export { text: HEAD.to_owned(), remarks: Vec::new() };
    if set.default.level != Level::Envelope {
        let level = set.default.level;
        export.remark(
            "(default)",
            &format!(
                "[default] has level {level}: set \
            smtp_tls_security_level in main.cf"
            ),
        );
    }
    // In the order of the files, of each entry the domain before its suffix.
    let mut names: BTreeMap<(usize, &str, bool), &str> = BTreeMap::new();
    for (name, index) in &set.names {
        names.insert((*index, name.trim_start_matches('.'), name.starts_with('.')), name);
    }
    for ((index, _, _), name) in names {
        let Some(policy) = set.policies.get(index) else { continue };
        if !policy.holds(now) {
            export.remark(name, "the entry has expired");
            continue;
        }
        match row(policy, &join) {
            Ok(row) => {
                for text in beside(policy) {
                    export.remark(name, &text);
                }
                export.text.push_str(&format!("{name} {row}\n"));
            }
            Err(why) => export.remark(name, &format!("no row: {why}")),
        }
    }
    export
}

impl Export {
    fn remark(&mut self, name: &str, text: &str) {
        self.text.push_str(&format!("# {name}: {text}\n"));
        self.remarks.push(format!("{name}: {text}"));
    }
}

/// Level and attributes, where a row can ask what the entry asks.
fn row(policy: &Policy, join: impl Fn(&str) -> String) -> Result<String, String> {
    if let Some(hop) = &policy.next_hop {
        return Err(format!(
            "next_hop = \"{hop}\" is a route: put it into transport_maps, and a row for {hop} here"
        ));
    }
    let mut row = match policy.level {
        Level::None => "none".to_owned(),
        Level::Opportunistic => "may".to_owned(),
        Level::Encrypt => "encrypt".to_owned(),
        Level::DaneOnly => "dane-only".to_owned(),
        Level::Verify if policy.names.is_empty() => "verify match=hostname".to_owned(),
        Level::Secure if policy.names.is_empty() => "secure match=nexthop:dot-nexthop".to_owned(),
        Level::Verify => format!("verify match={}", names(policy)?),
        Level::Secure => format!("secure match={}", names(policy)?),
        Level::Fingerprint => {
            let pins: Vec<String> = policy.pins.iter().map(|pin| colons(pin)).collect();
            format!("fingerprint match={}", pins.join("|"))
        }
        Level::Dane => {
            return Err("Postfix's `dane` falls to plaintext where there are no TLSA records; \
                        write level = \"dane-only\" to have a row"
                .to_owned());
        }
        Level::Auto | Level::Envelope | Level::MtaSts | Level::Published => {
            return Err(format!("Postfix knows no level `{}`", policy.level));
        }
    };
    let encrypted = !matches!(policy.level, Level::None | Level::Opportunistic);
    if policy.min_tls13 && encrypted {
        row.push_str(" protocols=>=TLSv1.3");
    }
    if let Some(file) = policy.ca_file.as_deref().filter(|_| policy.level.checks_chain()) {
        let path = join(file);
        if path.contains(|c: char| c.is_whitespace() || c.is_control() || ",{}".contains(c)) {
            return Err(format!("the path of ca_file, {path:?}, can't stand in a row"));
        }
        row.push_str(&format!(" tafile={path}"));
    }
    Ok(row)
}

/// The names of `match`; an address can't stand there, its colons least of all.
fn names(policy: &Policy) -> Result<String, String> {
    match policy.names.iter().find(|name| name.parse::<IpAddr>().is_ok()) {
        Some(address) => Err(format!("Postfix matches no address, as {address} of `match`")),
        None => Ok(policy.names.join(":")),
    }
}

/// `aa:bb:…`, as openssl prints it.
fn colons(hex: &str) -> String {
    let digits: Vec<char> = hex.to_ascii_uppercase().chars().collect();
    let pairs: Vec<String> = digits.chunks(2).map(|pair| pair.iter().collect()).collect();
    pairs.join(":")
}

/// What the entry says beside its row.
fn beside(policy: &Policy) -> Vec<String> {
    let client = policy.client.as_ref().map(|client| {
        format!(
            "client_certificate: Postfix shows one certificate to all, smtp_tls_cert_file = {}",
            client.certificate
        )
    });
    let mark = policy.mark.as_ref().map(|mark| format!("mark: \"{mark}\" is not added"));
    let bounce = (policy.otherwise == Otherwise::Bounce && policy.level != Level::None)
        .then(|| "otherwise = \"bounce\": mail waits for maximal_queue_lifetime first".to_owned());
    let ends = policy.ends.map(|ends| format!("expires: the row does not end by itself at {ends}"));
    [client, mark, bounce, ends].into_iter().flatten().collect()
}
