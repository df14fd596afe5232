//! Where a domain wants reports: the TXT record `_smtp._tls.DOMAIN` (RFC 8460 §3).

use crate::{mail::Address, wire::WebPlace};

/// Places of one record that are used; domains name one or two. Whoever is named gets signed mail
/// from here, asked for or not.
const PLACES_MAX: usize = 4;
/// Longest URI that is looked at.
const LONGEST: usize = 1024;

/// Where a report goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// `mailto:`
    Mail(Address),
    /// `https:`
    Web(WebPlace),
}

/// The places in the one record among the TXT records, each once and with its URI. Records of other
/// kinds are passed over; where not exactly one is left, the domain asks for no reports.
pub(super) fn places(texts: &[String]) -> Vec<(String, Place)> {
    let mut records = texts.iter().filter_map(|text| {
        let rest = text.strip_prefix("v=TLSRPTv1")?;
        rest.trim_start_matches(BLANK).strip_prefix(';')
    });
    let (Some(fields), None) = (records.next(), records.next()) else { return Vec::new() };
    let rua = fields.split(';').find_map(|field| field.trim_matches(BLANK).strip_prefix("rua="));
    let uris = rua.unwrap_or_default().split(',').map(|uri| uri.trim_matches(BLANK));
    let mut found: Vec<(String, Place)> = Vec::new();
    for uri in uris {
        let Some(place) = place(uri) else { continue };
        if found.len() < PLACES_MAX && found.iter().all(|(_, other)| *other != place) {
            found.push((uri.to_owned(), place));
        }
    }
    found
}

const BLANK: [char; 2] = [' ', '\t'];

/// The place that a URI names, if a report can go there.
pub(super) fn place(uri: &str) -> Option<Place> {
    if uri.len() > LONGEST || uri.bytes().any(|b| !b.is_ascii_graphic()) {
        return None;
    }
    let (scheme, rest) = uri.split_once(':')?;
    match scheme.to_ascii_lowercase().as_str() {
        "mailto" => {
            // RFC 6068 §2: header fields may follow; they are nothing to a report.
            let address = rest.split('?').next().unwrap_or_default();
            Some(Place::Mail(unescaped(address)?.parse().ok()?))
        }
        "https" => web(rest.strip_prefix("//")?).map(Place::Web),
        _ => None,
    }
}

fn web(rest: &str) -> Option<WebPlace> {
    let rest = rest.split('#').next().unwrap_or_default();
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end)?;
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse().ok()?)),
        Some(_) | None => (authority, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    if host.is_empty() || host.contains('@') {
        return None;
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    Some(WebPlace { host, port, path: format!("{slash}{path}") })
}

/// RFC 3986 §2.1.
fn unescaped(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (hex, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(hex, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(address: &str) -> Place {
        Place::Mail(address.parse().unwrap())
    }

    fn web(host: &str, port: Option<u16>, path: &str) -> Place {
        Place::Web(WebPlace { host: host.to_owned(), port, path: path.to_owned() })
    }

    #[test]
    fn records_that_name_places() {
        for (texts, expected, reason) in [
            (
                vec!["v=TLSRPTv1; rua=mailto:reports@a.example"],
                vec![mail("reports@a.example")],
                "the RFC's own",
            ),
            (
                vec!["v=TLSRPTv1;rua=https://r.a.example/v1/tlsrpt?id=20,mailto:r@a.example;"],
                vec![web("r.a.example", None, "/v1/tlsrpt?id=20"), mail("r@a.example")],
                "two, and the query as it is",
            ),
            (
                vec![
                    "v=spf1 -all",
                    "v=TLSRPTv1; x=y; rua = z; rua=mailto:a%2Cb@a.example?subject=x",
                ],
                vec![],
                "a comma has no place outside quotes",
            ),
            (
                vec!["v=TLSRPTv1; rua=mailto:a%2Bb@a.example?subject=x"],
                vec![mail("a+b@a.example")],
                "escaped, with a field that means nothing",
            ),
            (
                vec!["v=TLSRPTv1 ; rua=HTTPS://R.Example:8443 , https://[2001:db8::1]/x#f"],
                vec![web("r.example", Some(8443), "/"), web("2001:db8::1", None, "/x")],
                "case, port, no path, a literal, a fragment",
            ),
            (
                vec!["v=TLSRPTv1; rua=ftp://a.example,mailto:r@a.example"],
                vec![mail("r@a.example")],
                "other schemes are passed over",
            ),
            (
                vec![
                    "v=TLSRPTv1; rua=mailto:r@a.example,MAILTO:%72@A.example?x,\
                     https://a.example,https://A.example/#x",
                ],
                vec![mail("r@a.example"), web("a.example", None, "/")],
                "each once, however it is written",
            ),
        ] {
            let texts: Vec<String> = texts.into_iter().map(str::to_owned).collect();
            let found: Vec<Place> = places(&texts).into_iter().map(|(_, place)| place).collect();
            assert_eq!(found, expected, "{reason}");
        }
    }

    #[test]
    fn records_that_name_none() {
        for (texts, reason) in [
            (vec![], "no record"),
            (vec!["v=spf1 -all"], "another kind"),
            (
                vec!["v=TLSRPTv1; rua=mailto:a@a.example", "v=TLSRPTv1; rua=mailto:b@a.example"],
                "two records are none (RFC 8460 §3)",
            ),
            (vec!["v=TLSRPTv1"], "no field"),
            (vec!["v=TLSRPTv10; rua=mailto:a@a.example"], "a version that begins alike"),
            (vec!["v=TLSRPTv1; rua=mailto:nobody"], "no address"),
            (vec!["v=TLSRPTv1; rua=http://a.example/"], "not in the open"),
            (vec!["v=TLSRPTv1; rua=https://u@a.example/"], "a user in the URL"),
            (vec!["v=TLSRPTv1; rua=https:///x"], "no host"),
            (vec!["v=TLSRPTv1; rua=https://a.example:x/"], "no port"),
            (vec!["v=TLSRPTv1; rua=mailto:a%0d%0aBcc:b@a.example"], "line breaks"),
        ] {
            let texts: Vec<String> = texts.into_iter().map(str::to_owned).collect();
            assert_eq!(places(&texts), [], "{reason}");
        }
        let many: Vec<String> = (0..50).map(|i| format!("mailto:r{i}@a.example")).collect();
        let record = format!("v=TLSRPTv1; rua={}", many.join(","));
        assert_eq!(places(&[record]).len(), PLACES_MAX);
    }
}
