//! What a server offers (RFC 5321 §4.1.1.1, §2.2).

use crate::smtp::Reply;

/// What the EHLO reply offers (RFC 5321 §4.1.1.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extensions {
    /// STARTTLS.
    pub starttls: bool,
    /// PIPELINING.
    pub pipelining: bool,
    /// 8BITMIME.
    pub eight_bit: bool,
    /// SMTPUTF8.
    pub smtputf8: bool,
    /// CHUNKING.
    pub chunking: bool,
    /// DSN.
    pub dsn: bool,
    /// REQUIRETLS.
    pub require_tls: bool,
    /// SIZE: limit, `None` if not offered or 0.
    pub size: Option<u64>,
}

impl Extensions {
    /// Reads the lines after the first, which is the server's name. Keywords in any case; what
    /// isn't known is ignored (RFC 5321 §4.1.1.1).
    pub(super) fn parse(reply: &Reply) -> Self {
        let mut offered = Self::default();
        for line in reply.lines.iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
            match keyword.as_str() {
                "STARTTLS" => offered.starttls = true,
                "PIPELINING" => offered.pipelining = true,
                "8BITMIME" => offered.eight_bit = true,
                "SMTPUTF8" => offered.smtputf8 = true,
                "CHUNKING" => offered.chunking = true,
                "DSN" => offered.dsn = true,
                "REQUIRETLS" => offered.require_tls = true,
                // RFC 1870 §4: zero or nothing means that no limit is known.
                "SIZE" => {
                    offered.size = words.next().and_then(|n| n.parse().ok()).filter(|&n| n > 0);
                }
                _ => {}
            }
        }
        offered
    }
}
