//! What DNS says of a host and what a connection proved, held against what a level asks. Names are
//! judged here and nowhere else.
use crate::policy::{
    Dane, DaneVerdict, Level, StsFacts, StsMode, TlsaSet,
    facts::{Dnssec, HostFacts, PeerFacts, StartTls, TlsFacts, Trouble},
};
use std::net::IpAddr;

/// What is asked of a host and its connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// Level.
    pub(super) level: Level,
    /// The recipients' domain.
    pub(super) domain: &'a str,
    /// Names of the policy's `match`.
    pub(super) names: &'a [String],
    /// Pins: SHA-256 of certificate or public key, lower-case hex.
    pub(super) pins: &'a [String],
    /// At least TLS 1.3.
    pub(super) min_tls13: bool,
}

/// The level is met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Met {
    /// A sentence that says by what, without its full stop.
    pub(super) text: String,
    /// Something asked of the certificate was proved.
    pub(super) verified: bool,
}

type Unmet = (Trouble, String);

/// May a connection to this host be tried? Decided before anything is said to it.
pub(super) fn host(level: Level, host: &HostFacts, sts: Option<&StsFacts>) -> Result<(), Unmet> {
    match level {
        Level::Dane => published(&host.dane).map(drop),
        Level::DaneOnly => match published(&host.dane)? {
            Some(_) => Ok(()),
            None => Err((Trouble::NoDane, absent(host))),
        },
        // RFC 8461 §2: a host that publishes TLSA records is judged by them alone.
        Level::Auto => match published(&host.dane)? {
            Some(_) => Ok(()),
            None => enforced(host, sts).map_err(|(trouble, text)| {
                let neither = trouble != Trouble::Dns;
                let text = if neither { format!("{}, and {text}", absent(host)) } else { text };
                (trouble, text)
            }),
        },
        Level::MtaSts => enforced(host, sts),
        Level::Encrypt
        | Level::Envelope
        | Level::Fingerprint
        | Level::None
        | Level::Opportunistic
        | Level::Published
        | Level::Secure
        | Level::Verify => Ok(()),
    }
}

/// What level `published` asks of a host, as it and its domain publish. TLSA records come before
/// MTA-STS (RFC 8461 §2); records of no use still ask for TLS (RFC 7672 §2.2). A look-up in doubt is
/// asked as what it could be, and so stays in doubt. Where DNSSEC is not checked here, MTA-STS alone
/// counts.
pub(super) fn as_published(host: &HostFacts, sts: Option<&StsFacts>) -> Level {
    match &host.dane {
        Dane::Records(_) | Dane::Trouble(_) => Level::DaneOnly,
        Dane::Unusable(_) => Level::Encrypt,
        Dane::Absent(_) | Dane::NotAsked | Dane::Unchecked => match sts {
            Some(StsFacts::Policy(policy)) if policy.mode == StsMode::Enforce => Level::MtaSts,
            Some(StsFacts::Doubt(_)) => Level::MtaSts,
            Some(StsFacts::Policy(_) | StsFacts::Nothing | StsFacts::Unfetched(_)) | None => {
                Level::Opportunistic
            }
        },
    }
}

/// Usable TLSA records, or none. Doubt and unusable records are neither (RFC 7672 §2.1.1).
fn published(dane: &Dane) -> Result<Option<&TlsaSet>, Unmet> {
    match dane {
        Dane::Records(set) => Ok(Some(set)),
        Dane::Absent(_) | Dane::NotAsked => Ok(None),
        Dane::Unusable(why) => {
            Err((Trouble::NoDane, format!("its TLSA records are of no use: {why}")))
        }
        Dane::Unchecked => Err((Trouble::Dns, "DNSSEC is not checked here".to_owned())),
        Dane::Trouble(why) => Err((Trouble::Dns, format!("its TLSA records are not known: {why}"))),
    }
}

fn absent(host: &HostFacts) -> String {
    if let Dane::Absent(why) = &host.dane {
        return format!("{} has no TLSA records under DNSSEC ({why})", host.name);
    }
    format!("the MX record that names {} is not signed", host.name)
}

/// RFC 8461 §5: an enforced policy, and the host named in it.
fn enforced(host: &HostFacts, sts: Option<&StsFacts>) -> Result<(), Unmet> {
    let policy = match sts {
        Some(StsFacts::Policy(policy)) => policy,
        Some(StsFacts::Doubt(why)) => {
            return Err((
                Trouble::Dns,
                format!("what the domain asks by MTA-STS is not known: {why}"),
            ));
        }
        Some(StsFacts::Unfetched(why)) => {
            let text = format!("the domain's MTA-STS policy could not be fetched: {why}");
            return Err((Trouble::NoSts, text));
        }
        Some(StsFacts::Nothing) | None => {
            return Err((Trouble::NoSts, "the domain publishes no MTA-STS policy".to_owned()));
        }
    };
    match policy.mode {
        StsMode::Enforce if policy.names(&host.name) => Ok(()),
        StsMode::Enforce => {
            let text = format!(
                "the domain's MTA-STS policy names {}, not {}",
                some(&policy.mx),
                host.name
            );
            Err((Trouble::NoSts, text))
        }
        StsMode::Testing | StsMode::None => {
            Err((Trouble::NoSts, "the domain's MTA-STS policy is not enforced".to_owned()))
        }
    }
}

/// `Ok` if the level is met; otherwise the trouble and its detail.
pub(super) fn level(
    asked: &Asked<'_>,
    host: Option<&HostFacts>,
    peer: &PeerFacts,
) -> Result<Met, Unmet> {
    let name = &peer.host;
    let records = host.and_then(|host| host.dane.records());
    match (asked.level, records) {
        (Level::None, _) => Ok(unproved(format!("level none sends to {name} without TLS"))),
        (Level::Opportunistic, _) => Ok(unproved(match &peer.tls {
            StartTls::Done(tls) => format!("{name} offered TLS, and {} is up", tls.version),
            StartTls::NotOffered | StartTls::NotTried => {
                format!("{name} has no working TLS; level opportunistic sends without")
            }
        })),
        (Level::Encrypt, _) | (Level::Dane, None) => {
            let tls = encrypted(asked, peer)?;
            let level = asked.level;
            Ok(unproved(format!("{} to {name} is up, as level {level} asks", tls.version)))
        }
        (Level::Fingerprint, _) => pinned(asked, peer),
        (Level::Verify, _) => proven(asked, peer, &or_own(asked.names, [name.clone()])),
        (Level::Secure, _) => proven(asked, peer, &or_own(asked.names, under(asked.domain))),
        (Level::Dane | Level::DaneOnly | Level::Auto, Some(set)) => by_dane(asked, peer, set),
        // RFC 8461 §4.2: the certificate is for the host, not for the pattern that names it.
        (Level::MtaSts | Level::Auto, _) => proven(asked, peer, std::slice::from_ref(name)),
        (Level::DaneOnly | Level::Envelope | Level::Published, _) => {
            Err((Trouble::Unproven, format!("no connection can meet level {}", asked.level)))
        }
    }
}

/// RFC 8689 §4.2.1: a message that asks REQUIRETLS goes only to a host that proved itself, by a
/// name that unsigned DNS did not give.
pub(super) fn require_tls(
    asked: &Asked<'_>,
    met: &Met,
    dnssec: Dnssec,
    peer: &PeerFacts,
) -> Result<(), String> {
    let by_dns_alone = asked.level == Level::Verify && asked.names.is_empty();
    if met.verified && !(by_dns_alone && dnssec != Dnssec::Secure) {
        return Ok(());
    }
    let mut wanted = under(asked.domain).to_vec();
    if dnssec == Dnssec::Secure {
        wanted.push(peer.host.clone());
    }
    proven(asked, peer, &wanted).map(drop).map_err(|(_, text)| text)
}

/// Level `secure`: the recipient domain, or a name under it; never the MX
/// host's name, which unsigned DNS gave.
fn under(domain: &str) -> [String; 2] {
    [domain.to_owned(), format!(".{domain}")]
}

fn or_own<const N: usize>(names: &[String], own: [String; N]) -> Vec<String> {
    if names.is_empty() { own.to_vec() } else { names.to_vec() }
}

fn unproved(text: String) -> Met {
    Met { text, verified: false }
}

fn encrypted<'p>(asked: &Asked<'_>, peer: &'p PeerFacts) -> Result<&'p TlsFacts, Unmet> {
    match &peer.tls {
        StartTls::NotTried | StartTls::NotOffered => {
            Err((Trouble::NoStartTls, format!("{} does not offer STARTTLS", peer.host)))
        }
        StartTls::Done(tls) if asked.min_tls13 && tls.version != "TLSv1.3" => {
            Err((Trouble::Unproven, format!("{} where the policy asks TLS 1.3", tls.version)))
        }
        StartTls::Done(tls) => Ok(tls),
    }
}

/// The pin is the whole proof: no chain, no name, no date (level `fingerprint`).
fn pinned(asked: &Asked<'_>, peer: &PeerFacts) -> Result<Met, Unmet> {
    let tls = encrypted(asked, peer)?;
    let is = |print: &str| !print.is_empty() && asked.pins.iter().any(|pin| pin == print);
    let what = if is(&tls.fingerprint) {
        "certificate"
    } else if is(&tls.key_fingerprint) {
        "public key"
    } else {
        let text = format!(
            "neither the certificate (sha256:{}) nor its public key (sha256:{}) is pinned",
            tls.fingerprint, tls.key_fingerprint
        );
        return Err((Trouble::Unproven, text));
    };
    let text = format!("{} to {} is up, and its {what} is pinned", tls.version, peer.host);
    Ok(Met { text, verified: true })
}

/// RFC 7672 §3.1: with usage 3 the record is the whole proof; with usage 2 the certificate must
/// bear a name besides (§3.2.2): the TLSA base domain, the host, or the recipients' domain.
fn by_dane(asked: &Asked<'_>, peer: &PeerFacts, set: &TlsaSet) -> Result<Met, Unmet> {
    let tls = encrypted(asked, peer)?;
    let (record, usage) = match &tls.dane {
        Some(DaneVerdict::Met { record, usage }) => (record, *usage),
        Some(DaneVerdict::Unmet(why)) => {
            return Err((Trouble::Unproven, format!("no TLSA record is met: {why}")));
        }
        None => {
            let text = "the certificate was not held against the TLSA records";
            return Err((Trouble::Unproven, text.to_owned()));
        }
    };
    if usage != 3 {
        let wanted = [set.base.clone(), peer.host.clone(), asked.domain.to_owned()];
        borne(tls, &wanted)?;
    }
    let text = format!(
        "{} to {} is up, and its certificate meets the signed TLSA record {record}",
        tls.version, peer.host
    );
    Ok(Met { text, verified: true })
}

fn proven(asked: &Asked<'_>, peer: &PeerFacts, wanted: &[String]) -> Result<Met, Unmet> {
    let tls = encrypted(asked, peer)?;
    if let Some(error) = &tls.chain_error {
        return Err((Trouble::Unproven, format!("certificate not trusted: {error}")));
    }
    let name = borne(tls, wanted)?;
    let text = format!(
        "{} to {} is up, and its trusted certificate bears {name}, as level {} asks",
        tls.version, peer.host, asked.level
    );
    Ok(Met { text, verified: true })
}

/// The name of the certificate that serves for a wanted one.
fn borne<'t>(tls: &'t TlsFacts, wanted: &[String]) -> Result<&'t str, Unmet> {
    let found = tls.names.iter().find(|name| wanted.iter().any(|w| name_matches(w, name)));
    found.map(String::as_str).ok_or_else(|| {
        let names = if tls.names.is_empty() { "no name".to_owned() } else { some(&tls.names) };
        let text = format!("the certificate bears {names}, wanted is {}", some(wanted));
        (Trouble::Unproven, text)
    })
}

/// The first few names; a certificate may bear a thousand.
fn some(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(5).map(String::as_str).collect();
    let more = names.len().saturating_sub(5);
    let rest = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{rest}", shown.join(", "))
}

/// True if a name of the certificate serves for a wanted one (RFC 6125 §6.4, RFC 9525 §6.3). `.x`
/// wants any name under x. A wildcard is one whole left-most label, and what it covers must have
/// two labels more.
fn name_matches(wanted: &str, bears: &str) -> bool {
    let wanted = wanted.trim_end_matches('.').to_ascii_lowercase();
    let bears = bears.trim_end_matches('.').to_ascii_lowercase();
    if bears.is_empty() || bears == "." {
        return false;
    }
    if let Ok(address) = wanted.parse::<IpAddr>() {
        return bears.parse() == Ok(address);
    }
    let Some(base) = bears.strip_prefix("*.") else {
        return !bears.contains('*') && plain_matches(&wanted, &bears);
    };
    if base.contains('*') || !base.contains('.') || base.starts_with('.') {
        return false;
    }
    match wanted.strip_prefix('.') {
        // All names that the wildcard covers lie under x if its base is x or lies under x.
        Some(x) => base == x || is_under(base, x),
        None => {
            wanted.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == base)
        }
    }
}

fn plain_matches(wanted: &str, bears: &str) -> bool {
    wanted.strip_prefix('.').map_or_else(|| wanted == bears, |x| is_under(bears, x))
}

fn is_under(name: &str, parent: &str) -> bool {
    !parent.is_empty()
        && name
            .strip_suffix(parent)
            .and_then(|rest| rest.strip_suffix('.'))
            .is_some_and(|labels| labels.split('.').all(|label| !label.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_serve() {
        for (wanted, bears, reason) in [
            ("mx.a.example", "mx.a.example", "the name itself"),
            ("mx.a.example", "MX.A.Example.", "case and trailing dot do not count"),
            ("mx.a.example", "*.a.example", "a wildcard covers one label"),
            (".a.example", "mx.a.example", "a name under it"),
            (".a.example", "x.y.z.a.example", "any depth"),
            (".a.example", "*.a.example", "a wildcard whose names all lie under it"),
            (".a.example", "*.mail.a.example", "the same, deeper"),
            ("192.0.2.1", "192.0.2.1", "an IP address of the SAN"),
            ("2001:db8::1", "2001:DB8:0::1", "another spelling of the same address"),
        ] {
            assert!(name_matches(wanted, bears), "{wanted} / {bears}: {reason}");
        }
    }

    #[test]
    fn names_that_do_not() {
        for (wanted, bears, reason) in [
            ("a.example", "b.example", "another name"),
            ("mx.a.example", "a.example", "the parent"),
            ("a.example", "mx.a.example", "a child is no proof of the parent"),
            ("x.mx.a.example", "*.a.example", "a wildcard covers one label only"),
            ("a.example", "*.a.example", "a wildcard does not cover its base"),
            ("a.example", "*.example", "a wildcard over a whole top level"),
            ("mx.a.example", "m*.a.example", "part of a label"),
            ("mx.a.example", "mx.*.example", "not the left-most"),
            ("x.y.a.example", "*.*.a.example", "two wildcards"),
            ("mx.a.example", "*", "a bare star"),
            ("mx.a.example", "*.", "a star and a dot"),
            ("mx.a.example", "", "nothing"),
            (".a.example", "a.example", "the base of a suffix"),
            (".a.example", "bada.example", "not at a label"),
            (".a.example", ".a.example", "an empty label"),
            (".mail.a.example", "*.a.example", "covers names beside the suffix"),
            ("192.0.2.1", "*.0.2.1", "no wildcards over addresses"),
            ("", "", "nothing wanted"),
            (".", "a.example", "no domain"),
        ] {
            assert!(!name_matches(wanted, bears), "{wanted} / {bears}: {reason}");
        }
    }
}
