//! `policy explain`: which file and rule decide, without network.
use crate::{
    mail::{Address, Pickup},
    policy::{
        Level, NoRequireTls, Otherwise, Policy, PolicySet,
        decide::shows_client,
        rules::{Rule, RuleAction},
        toml_source::show_duration,
    },
};
use jiff::Timestamp;
use serde::Serialize;

/// The answer.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// The recipient.
    pub address: Address,
    /// File that decides.
    pub file: String,
    /// Line.
    pub line: u32,
    /// Level asked.
    pub level: Level,
    /// When it can't be met.
    pub otherwise: Otherwise,
    /// What the reader of a sealed message must prove beyond the mailbox.
    pub pickup: Pickup,
    /// In plain words, a sentence a line.
    pub text: Vec<String>,
}

/// Explains the policy for an address.
pub fn explain(set: &PolicySet, address: &Address, now: Timestamp) -> Explanation {
    let domain = address.domain();
    let policy = set.lookup(domain, now);
    let mut text = vec![where_from(policy, domain.as_str()), asks(policy, domain.as_str())];
    if policy.level == Level::Auto && set.never_direct(domain) {
        text.push(format!(
            "{domain} is on a list that never_direct names: nothing goes there directly, every \
             message is sealed."
        ));
    }
    text.extend(way(policy));
    text.extend(fallback(policy));
    text.push(notices(policy, domain.as_str()));
    text.extend(pickup(policy));
    text.extend(set.rules.iter().filter_map(|rule| rule_says(rule, policy)));
    let notes = [("Contact", &policy.contact), ("Note", &policy.note)];
    text.extend(notes.into_iter().filter_map(|(k, v)| Some(format!("{k}: {}", v.as_ref()?))));
    Explanation {
        address: address.clone(),
        file: policy.at.file.clone(),
        line: policy.at.line,
        level: policy.level,
        otherwise: policy.otherwise,
        pickup: policy.pickup,
        text,
    }
}

fn where_from(policy: &Policy, domain: &str) -> String {
    let at = &policy.at;
    match (policy.partner, at.line) {
        (true, line) => format!("{domain} is a partner: the entry is {}:{line}.", at.file),
        (false, 0) => format!(
            "{domain} has no entry, and there is no default.toml: the built-in default applies."
        ),
        (false, line) => format!("{domain} has no entry: the default applies, {}:{line}.", at.file),
    }
}

fn asks(policy: &Policy, domain: &str) -> String {
    let wanted = if policy.names.is_empty() { None } else { Some(policy.names.join(" or ")) };
    let level = policy.level;
    let what = match level {
        Level::Envelope => {
            "every message is sealed, and its recipient gets a notification".to_owned()
        }
        Level::None => "messages go directly, without TLS".to_owned(),
        Level::Opportunistic => {
            "messages go directly, over TLS where it is offered, the certificate unchecked"
                .to_owned()
        }
        Level::Published => format!(
            "messages go directly as {domain} publishes, and where it publishes nothing as level \
             opportunistic says"
        ),
        Level::Encrypt => "messages go directly over TLS, the certificate unchecked".to_owned(),
        Level::Verify => format!(
            "messages go directly over TLS to a trusted certificate for {}",
            wanted.unwrap_or_else(|| "the MX host".to_owned())
        ),
        Level::Secure => format!(
            "messages go directly over TLS to a trusted certificate for {}",
            wanted.unwrap_or_else(|| format!("{domain} or a name under it"))
        ),
        Level::Fingerprint => format!(
            "messages go directly over TLS to a certificate or public key that is pinned ({})",
            match policy.pins.len() {
                1 => "1 pin".to_owned(),
                n => format!("{n} pins"),
            }
        ),
        Level::Dane => format!(
            "messages go directly over TLS to a certificate that the signed TLSA records of \
             {domain}'s mail host name, and where there are none over TLS, the certificate \
             unchecked"
        ),
        Level::DaneOnly => format!(
            "messages go directly over TLS to a certificate that the signed TLSA records of \
             {domain}'s mail host name"
        ),
        Level::MtaSts => format!(
            "messages go directly over TLS to a mail host that {domain}'s enforced MTA-STS policy \
             names, with a trusted certificate for it"
        ),
        Level::Auto => format!(
            "messages go directly as signed TLSA records or an enforced MTA-STS policy of {domain} \
             say"
        ),
    };
    format!("Level {level}: {what}.")
}

fn way(policy: &Policy) -> Vec<String> {
    let tls13 = policy.min_tls13.then(|| "At least TLS 1.3 is asked.".to_owned());
    let hop = policy
        .next_hop
        .as_ref()
        .map(|hop| format!("The next hop is {hop} instead of the domain's MX."));
    let anchor = policy.ca_file.as_ref().filter(|_| policy.level.checks_chain());
    let anchor = anchor.map(|file| format!("Trusted are only the certificates of {file}."));
    let client = policy
        .client
        .as_ref()
        .filter(|_| shows_client(policy.level))
        .map(|c| format!("A host that asks for our certificate is shown {}.", c.certificate));
    let mark = policy.mark.as_ref().map(|mark| format!("The header \"{mark}\" is added."));
    [hop, tls13, anchor, client, mark].into_iter().flatten().collect()
}

fn fallback(policy: &Policy) -> Vec<String> {
    if policy.level == Level::Envelope {
        return Vec::new();
    }
    let then = match policy.otherwise {
        Otherwise::Envelope => "the message is sealed for pickup",
        Otherwise::Defer => "the message waits until delivery.give_up",
        Otherwise::Bounce => "the message goes back to its sender",
    };
    let when = if policy.otherwise_after.is_zero() {
        "Where that can't be met".to_owned()
    } else {
        format!("Where that can't be met for {}", show_duration(policy.otherwise_after))
    };
    let require_tls = match policy.no_require_tls {
        NoRequireTls::Bounce => "goes back to its sender",
        NoRequireTls::Envelope => "is sealed",
    };
    vec![
        format!("{when}, {then}."),
        format!(
            "A message that asks REQUIRETLS {require_tls} where the next hop does not offer it."
        ),
    ]
}

/// At `notification.level = "published"`, which is the default.
fn notices(policy: &Policy, domain: &str) -> String {
    if policy.partner && policy.level.proves() && policy.level != Level::Auto {
        return format!(
            "Notices and codes to {domain} go at level {} as well, and wait where it is not met \
             (notification.level \"published\").",
            policy.level
        );
    }
    format!(
        "Notices and codes to {domain} go as it publishes (signed TLSA records, an enforced \
         MTA-STS policy), and where it publishes nothing at level opportunistic \
         (notification.level \"published\")."
    )
}

/// What the reader of a sealed message will need.
fn pickup(policy: &Policy) -> Vec<String> {
    let asked = match policy.pickup {
        Pickup::Code => {
            "The reader of a sealed message registers with a code that is mailed to him, and reads."
        }
        Pickup::Phrase => {
            "The reader of a sealed message needs a phrase that its sender gives, or is told in a \
             report."
        }
        Pickup::Sms => {
            "The reader of a sealed message needs a code by text message, at the number that its \
             sender gives; without one a phrase."
        }
        Pickup::Passkey => {
            "The reader of a sealed message needs a passkey from before it came; for the first a \
             phrase that its sender is told in a report."
        }
    };
    let mut said = vec![asked.to_owned()];
    // A level that is missed there is one that the domain could have met.
    let missed = !matches!(policy.level, Level::Envelope | Level::None | Level::Opportunistic);
    if missed && policy.otherwise == Otherwise::Envelope && policy.pickup.is_code() {
        said.push(
            "Where it is sealed because that was not met, a mailed code is not enough: the reader \
             needs a phrase that the sender is told in a report, or an account from before."
                .to_owned(),
        );
    }
    said
}

/// Rules look at the message, which is not here: said is what they could change.
fn rule_says(rule: &Rule, policy: &Policy) -> Option<String> {
    let (file, line) = &rule.at;
    match rule.action {
        RuleAction::Reject => Some(format!("Rule {file}:{line} rejects what it matches.")),
        RuleAction::Pass if !policy.partner => {
            Some(format!("Rule {file}:{line} lets what it matches pass at level opportunistic."))
        }
        RuleAction::Protect if !rule.pickup.is_code() => Some(format!(
            "Rule {file}:{line} asks the reader of what it matches for more than a mailed code \
             (pickup)."
        )),
        RuleAction::Pass | RuleAction::Protect => None,
    }
}
