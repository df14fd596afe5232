//! What a connection proved, held against what a level asks. Names are judged here and nowhere
//! else.
use crate::policy::{
    Level,
    facts::{PeerFacts, StartTls, TlsFacts, Trouble},
};
use std::net::IpAddr;

/// What a connection must prove.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// Level.
    pub(super) level: Level,
    /// The recipients' domain.
    pub(super) domain: &'a str,
    /// Names of the policy's `match`.
    pub(super) names: &'a [String],
    /// At least TLS 1.3.
    pub(super) min_tls13: bool,
}

/// `Ok` if the level is met, with a sentence that says by what; otherwise the trouble and its
/// detail.
pub(super) fn level(asked: &Asked<'_>, peer: &PeerFacts) -> Result<String, (Trouble, String)> {
    let host = &peer.host;
    match asked.level {
        Level::None => Ok(format!("level none sends to {host} without TLS")),
        Level::Opportunistic => Ok(match &peer.tls {
            StartTls::Done(tls) => format!("{host} offered TLS, and {} is up", tls.version),
            StartTls::NotOffered | StartTls::NotTried => {
                format!("{host} has no working TLS; level opportunistic sends without")
            }
        }),
        Level::Encrypt => {
            let tls = encrypted(asked, peer)?;
            Ok(format!("{} to {host} is up, as level encrypt asks", tls.version))
        }
        Level::Verify => {
            let own = [host.clone()];
            let wanted = if asked.names.is_empty() { own.as_slice() } else { asked.names };
            proven(asked, peer, wanted)
        }
        Level::Secure => {
            // INTERFACE section 7: the recipient domain, a name under it, or `match`; never the MX
            // host's name, which unsigned DNS gave.
            let own = [asked.domain.to_owned(), format!(".{}", asked.domain)];
            let wanted = if asked.names.is_empty() { own.as_slice() } else { asked.names };
            proven(asked, peer, wanted)
        }
        Level::Auto
        | Level::Dane
        | Level::DaneOnly
        | Level::Envelope
        | Level::Fingerprint
        | Level::MtaSts => {
            Err((Trouble::Unproven, format!("no connection can meet level {}", asked.level)))
        }
    }
}

fn encrypted<'p>(
    asked: &Asked<'_>,
    peer: &'p PeerFacts,
) -> Result<&'p TlsFacts, (Trouble, String)> {
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

fn proven(
    asked: &Asked<'_>,
    peer: &PeerFacts,
    wanted: &[String],
) -> Result<String, (Trouble, String)> {
    let tls = encrypted(asked, peer)?;
    if let Some(error) = &tls.chain_error {
        return Err((Trouble::Unproven, format!("certificate not trusted: {error}")));
    }
    let found = tls.names.iter().find(|name| wanted.iter().any(|w| name_matches(w, name)));
    let Some(name) = found else {
        let names = if tls.names.is_empty() { "no name".to_owned() } else { some(&tls.names) };
        let text = format!("the certificate bears {names}, wanted is {}", some(wanted));
        return Err((Trouble::Unproven, text));
    };
    Ok(format!(
        "{} to {} is up, and its trusted certificate bears {name}, as level {} asks",
        tls.version, peer.host, asked.level
    ))
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
