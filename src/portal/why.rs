//! Why a message waits at the portal, in words for its reader. The exact reason, with hosts and levels,
//! is the operator's: it stays with the record.
use crate::{
    language::{Text, say},
    mail::Domain,
    policy::{Reason, Trouble},
    store::Attempt,
};

/// The reason in plain words; nothing where it says nothing to a reader. `attempts`: what was tried
/// before, the last one last.
pub(super) fn in_words(reason: Reason, domain: &Domain, attempts: &[Attempt]) -> Text {
    let domain = domain.to_string();
    if reason == Reason::LevelNotMet
        && let Some(known) = attempts.iter().rev().find_map(|attempt| shortcoming(attempt, &domain))
    {
        return known;
    }
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

/// What a mail host lacked, where a reader can make something of it: to pass it on to whoever runs it.
fn shortcoming(attempt: &Attempt, domain: &str) -> Option<Text> {
    let domain = domain.to_owned();
    match attempt.trouble? {
        Trouble::NoStartTls => Some(say!(
            "The mail server of {domain} offers no encryption, and the sender asks for it.",
            domain = domain
        )),
        Trouble::Unproven => {
            let ended = attempt.tls.as_ref()?.not_after.filter(|end| *end <= attempt.at)?;
            Some(say!(
                "The certificate of the mail server of {domain} ended on {date}, so that it could \
                 not prove itself.",
                domain = domain,
                date = Text::Day(ended)
            ))
        }
        Trouble::Dns
        | Trouble::NoAddress
        | Trouble::Unreachable
        | Trouble::StartTlsRefused
        | Trouble::Handshake
        | Trouble::NoDane
        | Trouble::NoSts
        | Trouble::TooBig
        | Trouble::EightBit
        | Trouble::Utf8
        | Trouble::NoRequireTls
        | Trouble::Ours => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::TlsFacts;
    use jiff::{SignedDuration, Timestamp};

    #[test]
    fn what_the_host_lacked_is_said_where_a_reader_can_make_something_of_it() {
        let at = Timestamp::from_second(1_795_341_600).unwrap();
        let tls = |days: i64| TlsFacts {
            version: "TLSv1.3".into(),
            cipher: String::new(),
            group: None,
            chain_error: Some("any".into()),
            names: Vec::new(),
            fingerprint: String::new(),
            key_fingerprint: String::new(),
            not_after: Some(at + SignedDuration::from_hours(24 * days)),
            dane: None,
        };
        let attempt = |trouble, tls| Attempt {
            at,
            mx: None,
            address: None,
            tls,
            verified: false,
            reply: None,
            trouble,
            error: None,
            dns: None,
        };
        let unproven = |days| vec![attempt(Some(Trouble::Unproven), Some(tls(days)))];
        let ended = "The certificate of the mail server of a.example ended on 20 November 2026";
        let no_proof = "could not prove itself.";
        for (attempts, expected, why) in [
            (unproven(-2), ended, "it ended"),
            (unproven(2), no_proof, "in date: another fault"),
            (vec![], no_proof, "no record"),
            (vec![attempt(Some(Trouble::NoStartTls), None)], "offers no encryption", "no STARTTLS"),
            (
                [unproven(-2), vec![attempt(Some(Trouble::Unreachable), None)]].concat(),
                ended,
                "the last that says something",
            ),
        ] {
            let domain = "a.example".parse().unwrap();
            let said = in_words(Reason::LevelNotMet, &domain, &attempts).to_string();
            assert!(said.contains(expected), "{why}: {said}");
            let other = in_words(Reason::PolicyEnvelope, &domain, &attempts).to_string();
            assert!(other.contains("keeps every message"), "{why}: {other}");
        }
    }
}
