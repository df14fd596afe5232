//! What kinds of trouble with hosts mean for a decision, and the status that a report gives them.

use super::{HostTrouble, Level, TlsUse, Trouble, decide::tls_use};

/// What stands in the way when all hosts have been tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// DNS did not answer for some host: nobody knows what it could have done.
    Doubt,
    /// A file of ours can't be used: no host had a chance.
    Ours,
    /// Some host can't meet the level.
    Level,
    /// Some host could not be reached, and the others can't carry the message.
    Away,
    /// Every host refuses the size or 8-bit content.
    Carry,
    /// Every host lacks SMTPUTF8.
    Utf8,
    /// Every host lacks something, among it REQUIRETLS.
    RequireTls,
}

fn kind(trouble: Trouble, level: Level, require_tls: bool) -> Obstacle {
    match trouble {
        Trouble::Dns => Obstacle::Doubt,
        Trouble::Ours => Obstacle::Ours,
        Trouble::NoAddress | Trouble::Unreachable => Obstacle::Away,
        Trouble::NoDane | Trouble::NoSts => Obstacle::Level,
        Trouble::NoStartTls if require_tls && tls_use(level) != TlsUse::Always => {
            Obstacle::RequireTls
        }
        Trouble::NoStartTls | Trouble::StartTlsRefused | Trouble::Handshake | Trouble::Unproven => {
            // A level that asks nothing can't be missed: such a host just did not work.
            match tls_use(level) {
                TlsUse::Always => Obstacle::Level,
                TlsUse::IfOffered | TlsUse::Never => Obstacle::Away,
            }
        }
        Trouble::TooBig | Trouble::EightBit => Obstacle::Carry,
        Trouble::Utf8 => Obstacle::Utf8,
        Trouble::NoRequireTls => Obstacle::RequireTls,
    }
}

/// The obstacle that decides and the first host that showed it. Doubt and our own trouble come
/// first, then what a retry may mend, then what no retry mends.
pub(super) fn obstacle(
    tried: &[HostTrouble],
    level: Level,
    require_tls: bool,
) -> (Obstacle, Option<&HostTrouble>) {
    let first =
        |wanted: Obstacle| tried.iter().find(|t| kind(t.trouble, level, require_tls) == wanted);
    for wanted in
        [Obstacle::Doubt, Obstacle::Ours, Obstacle::Level, Obstacle::Away, Obstacle::RequireTls]
    {
        if let Some(trouble) = first(wanted) {
            return (wanted, Some(trouble));
        }
    }
    match (first(Obstacle::Carry), first(Obstacle::Utf8)) {
        (Some(trouble), _) => (Obstacle::Carry, Some(trouble)),
        (None, Some(trouble)) => (Obstacle::Utf8, Some(trouble)),
        (None, None) => (Obstacle::Away, None),
    }
}

pub(super) fn failing(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::NoStartTls => "does not offer TLS",
        Trouble::StartTlsRefused => "offers TLS and then refuses it",
        Trouble::Handshake => "could not agree on TLS",
        Trouble::Unproven => "could not prove who it is",
        Trouble::NoDane => "has no usable TLSA records under DNSSEC",
        Trouble::NoSts => "is not named by an enforced MTA-STS policy",
        Trouble::Dns
        | Trouble::NoAddress
        | Trouble::Unreachable
        | Trouble::TooBig
        | Trouble::EightBit
        | Trouble::Utf8
        | Trouble::NoRequireTls
        | Trouble::Ours => "could not be used",
    }
}

/// RFC 3463 §3.8: 7.4 security features not supported, 7.5 cryptographic failure.
pub(super) fn level_status(trouble: Trouble) -> (u16, u16) {
    match trouble {
        Trouble::NoStartTls | Trouble::StartTlsRefused => (7, 4),
        Trouble::Handshake
        | Trouble::Unproven
        | Trouble::NoDane
        | Trouble::NoSts
        | Trouble::Dns
        | Trouble::NoAddress
        | Trouble::Unreachable
        | Trouble::TooBig
        | Trouble::EightBit
        | Trouble::Utf8
        | Trouble::NoRequireTls
        | Trouble::Ours => (7, 5),
    }
}

/// RFC 3463 §3.5: 4.1 no answer from host, 4.4 unable to route.
pub(super) fn away_status(tried: &[HostTrouble]) -> (u16, u16) {
    let routed = tried.iter().any(|t| t.trouble != Trouble::NoAddress);
    if routed { (4, 1) } else { (4, 4) }
}
