//! On whose behalf a request comes, where proxies stand before the portal.

use crate::net::http::{Connection, lies_in};
use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName},
};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The client's address that is believed: an extension of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientAddress(pub(super) IpAddr);

impl ClientAddress {
    /// The address of a request's client; `None` where the listener told none.
    pub(super) fn of(request: &Request, trusted_proxies: &[IpNet]) -> Option<Self> {
        let connection = request.extensions().get::<Connection>()?;
        Some(Self(last_untrusted(connection.peer, request.headers(), trusted_proxies)))
    }
}

/// Walks from the peer towards the client. Every proxy appends the address that it was reached from,
/// so an entry is believed only if the hop behind it is trusted; what a client wrote itself stands
/// further to the left and is never reached.
fn last_untrusted(peer: IpAddr, headers: &HeaderMap, trusted_proxies: &[IpNet]) -> IpAddr {
    let mut client = peer.to_canonical();
    let lines = headers.get_all(FORWARDED_FOR).iter().rev();
    let hops = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    for hop in hops {
        if !lies_in(trusted_proxies, client) {
            break;
        }
        let Some(address) = address(hop) else { break };
        client = address;
    }
    client
}

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:4711`
fn address(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let v6 = || bare?.parse().ok().map(IpAddr::V6);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    text.parse().ok().or_else(v6).or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_untrusted_hop_is_the_client_and_garbage_is_not_believed() {
        let trusted: Vec<IpNet> =
            ["10.0.0.0/8", "2001:db8:1::/48"].map(|net| net.parse().unwrap()).to_vec();
        let cases: &[(&str, &[&str], &str, &str)] = &[
            ("192.0.2.9", &["203.0.113.1"], "192.0.2.9", "from elsewhere it is ignored"),
            ("10.0.0.1", &[], "10.0.0.1", "the proxy itself asks"),
            ("10.0.0.1", &["203.0.113.1"], "203.0.113.1", "one proxy"),
            ("::ffff:10.0.0.1", &["203.0.113.1"], "203.0.113.1", "mapped into IPv6"),
            ("10.0.0.1", &["127.0.0.1, 203.0.113.1"], "203.0.113.1", "forged by the client"),
            ("10.0.0.1", &["10.9.9.9, 203.0.113.1"], "203.0.113.1", "a proxy's own, forged"),
            ("10.0.0.1", &["203.0.113.1, 10.0.0.2"], "203.0.113.1", "two proxies"),
            ("10.0.0.1", &["6.6.6.6, 203.0.113.1 , 10.0.0.2,10.0.0.3"], "203.0.113.1", "three"),
            ("10.0.0.1", &["6.6.6.6", "203.0.113.1, 10.0.0.2"], "203.0.113.1", "two lines"),
            ("10.0.0.1", &["6.6.6.6, 203.0.113.1", "10.0.0.2"], "203.0.113.1", "two lines"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3", "all of them are proxies"),
            ("10.0.0.1", &["2001:db8::7"], "2001:db8::7", "IPv6"),
            ("10.0.0.1", &["[2001:db8::7]"], "2001:db8::7", "in brackets"),
            ("10.0.0.1", &["[2001:db8::7]:4711"], "2001:db8::7", "with a port"),
            ("10.0.0.1", &["203.0.113.1:4711"], "203.0.113.1", "with a port"),
            ("10.0.0.1", &["::ffff:203.0.113.1"], "203.0.113.1", "mapped"),
            ("2001:db8:1::1", &["6.6.6.6, 2001:db8::7"], "2001:db8::7", "a proxy with IPv6"),
            ("10.0.0.1", &["203.0.113.1, unknown"], "10.0.0.1", "nothing left of garbage"),
            ("10.0.0.1", &["203.0.113.1, unknown, 10.0.0.2"], "10.0.0.2", "nothing left of it"),
            ("10.0.0.1", &["203.0.113.1,"], "10.0.0.1", "an empty entry"),
            ("10.0.0.1", &[""], "10.0.0.1", "an empty line"),
            ("10.0.0.1", &["203.0.113.1", "\u{fe}"], "10.0.0.1", "no text"),
            ("10.0.0.1", &["203.0.113.1.5"], "10.0.0.1", "no address"),
            ("10.0.0.1", &["[203.0.113.1]"], "10.0.0.1", "brackets are IPv6's"),
            ("10.0.0.1", &["fe80::1%eth0"], "10.0.0.1", "a zone says nothing here"),
        ];
        for (peer, lines, expected, why) in cases {
            let mut headers = HeaderMap::new();
            for line in *lines {
                headers.append(FORWARDED_FOR, line.as_bytes().try_into().unwrap());
            }
            let client = last_untrusted(peer.parse().unwrap(), &headers, &trusted);
            assert_eq!(client.to_string(), *expected, "{lines:?}: {why}");
        }
        let none = last_untrusted([10, 0, 0, 1].into(), &HeaderMap::new(), &[]);
        assert_eq!(none, IpAddr::from([10, 0, 0, 1]), "no proxy is trusted");
    }
}
