//! Why a message waits at the portal, in words for its reader. The exact reason, with hosts and levels,
//! is the operator's: it stays with the record.
use crate::{
    language::{Text, say},
    mail::Domain,
    policy::Reason,
};

/// The reason in plain words; nothing where it says nothing to a reader.
pub(super) fn in_words(reason: Reason, domain: &Domain) -> Text {
    let domain = domain.to_string();
    match reason {
        Reason::PolicyEnvelope => say!(
            "The sender keeps every message to {domain} locked, and does not send it by ordinary \
             e-mail.",
            domain = domain
        ),
        Reason::LevelNotMet => say!(
            "The sender asks for a protected connection to the mail server of {domain}, and that \
             server could not prove itself.",
            domain = domain
        ),
        Reason::CannotCarry => say!(
            "The mail server of {domain} does not take a message of this size or kind.",
            domain = domain
        ),
        Reason::DnsTrouble
        | Reason::NoSuchDomain
        | Reason::NoMailHost
        | Reason::NullMx
        | Reason::RefusedNetwork
        | Reason::Unreachable
        | Reason::PeerDeferred
        | Reason::PeerRefused
        | Reason::GaveUp => {
            say!("The mail server of {domain} could not be reached safely.", domain = domain)
        }
        Reason::LevelMet | Reason::RulePass | Reason::Notice | Reason::Inside | Reason::Ours => {
            Text::default()
        }
    }
}
