//! How a next hop is written: `[mail.partner.example]:587`, `partner.example`, `[192.0.2.1]`,
//! `127.0.0.1:25`.
use crate::{mail::Domain, policy::file::NextHop};
use std::{fmt, net::IpAddr, str::FromStr};

const EXAMPLE: &str =
    "write \"[mail.partner.example]:587\" for a host, or \"partner.example\" for its MX";

impl FromStr for NextHop {
    type Err = String;

    /// Brackets say: this host, no MX. An address needs no brackets, save IPv6 with a port.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no next hop: {EXAMPLE}");
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self { host: address.to_string(), mx: false, port: None });
        }
        let (host, rest, bracketed) = match text.strip_prefix('[') {
            Some(inner) => {
                let (host, rest) = inner.split_once(']').ok_or_else(wrong)?;
                (host, rest, true)
            }
            None => {
                let end = text.find(':').unwrap_or(text.len());
                let (host, rest) = text.split_at_checked(end).ok_or_else(wrong)?;
                (host, rest, false)
            }
        };
        let port = port(rest).map_err(|()| wrong())?;
        if let Some(address) = address(host) {
            return Ok(Self { host: address.to_string(), mx: false, port });
        }
        let domain: Domain = host.parse().map_err(|_| wrong())?;
        Ok(Self { host: domain.as_str().to_owned(), mx: !bracketed, port })
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.mx {
            f.write_str(&self.host)?
        } else {
            write!(f, "[{}]", self.host)?
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

fn address(host: &str) -> Option<IpAddr> {
    let tag = host.get(..5).is_some_and(|t| t.eq_ignore_ascii_case("IPv6:"));
    let bare = if tag { host.get(5..)? } else { host };
    bare.parse().ok()
}

fn port(rest: &str) -> Result<Option<u16>, ()> {
    if rest.is_empty() {
        return Ok(None);
    }
    let number = rest.strip_prefix(':').and_then(|p| p.parse().ok()).filter(|p| *p != 0);
    number.map(Some).ok_or(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good() {
        for (text, host, mx, port) in [
            ("[mail.partner.example]:587", "mail.partner.example", false, Some(587)),
            ("[Mail.Partner.Example]", "mail.partner.example", false, None),
            ("partner.example", "partner.example", true, None),
            ("partner.example:2525", "partner.example", true, Some(2525)),
            ("127.0.0.1:25", "127.0.0.1", false, Some(25)),
            ("192.0.2.1", "192.0.2.1", false, None),
            ("[192.0.2.1]:25", "192.0.2.1", false, Some(25)),
            ("[IPv6:2001:db8::1]:25", "2001:db8::1", false, Some(25)),
            ("[::1]", "::1", false, None),
            ("::1", "::1", false, None),
        ] {
            let hop: NextHop = text.parse().unwrap();
            assert_eq!(hop, NextHop { host: host.into(), mx, port }, "{text}");
            assert_eq!(hop.to_string().parse(), Ok(hop), "{text} reads back");
        }
    }

    #[test]
    fn bad() {
        for (text, reason) in [
            ("", "empty"),
            ("[]", "no host"),
            ("[a.example", "open bracket"),
            ("[a.example]587", "no colon"),
            ("a.example:", "no port"),
            ("a.example:0", "port 0"),
            ("a.example:65536", "port too big"),
            ("a.example:smtp", "service names are not ports"),
            ("user@a.example", "an address"),
            ("a b", "a space"),
        ] {
            assert!(text.parse::<NextHop>().is_err(), "{text}: {reason}");
        }
    }
}
