//! The one decision: facts in, a route with its reason out.
//!
//! [`decide`] is asked again and again as facts come in: with none it may answer [`Route::Need`],
//! which says what to find out next (the MX set, a connection that meets a requirement). Content
//! moves only on [`Route::Direct`], whose [`Clearance`] nothing else can make.

use crate::{
    mail::{Domain, EnhancedStatus, StatusClass},
    policy::{
        Level, NoRequireTls, Otherwise, Policy, PolicyRef, PolicySet, RuleAction, RuleVerdict,
        file::NextHop,
        judge::{self, Asked},
    },
    seal::header::Needs,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Whose mail is decided on.
#[derive(Debug, Clone, Copy)]
pub enum Question<'a> {
    /// A customer's message to an outside domain.
    Protected(&'a RuleVerdict),
    /// A notice or code of ours at `notification.level`: never an envelope.
    Notice(Level),
    /// Anything for our own domains: `inside.host` at `inside.tls`.
    Inside(&'a NextHop, Level),
}
/// What is known so far.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Whose mail.
    pub question: Question<'a>,
    /// The policies in force.
    pub set: &'a PolicySet,
    /// The recipients' domain.
    pub domain: &'a Domain,
    /// What the message needs of a next hop, and its size.
    pub needs: Needs,
    /// Size in bytes.
    pub size: u64,
    /// Now.
    pub now: Timestamp,
    /// When the message arrived.
    pub arrived: Timestamp,
    /// When the direct way was first tried without success, if it was.
    pub first_failed: Option<Timestamp>,
    /// `delivery.give_up`.
    pub give_up: SignedDuration,
    /// The next hop's MX set, once looked up.
    pub mx: Option<&'a MxFacts>,
    /// Hosts tried on this attempt without success, in order.
    pub tried: &'a [HostTrouble],
    /// The host on whose connection we stand, after the handshake and the second EHLO.
    pub peer: Option<&'a PeerFacts>,
    /// All hosts of the set have been tried.
    pub exhausted: bool,
}
/// The answer of the MX look-up (RFC 5321 §5.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MxFacts {
    /// Hosts in the order to try (preference, shuffled among equals; implicit MX included).
    Hosts(Vec<MxHost>),
    /// The domain does not exist.
    NoDomain,
    /// It exists, without MX and address.
    NoHost,
    /// Null MX (RFC 7505).
    Null,
    /// SERVFAIL, time-out, refused, malformed: not known now.
    Trouble(String),
    /// Every host lies in `delivery.refuse_networks` or is no host.
    Refused(String),
}
/// One exchanger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MxHost {
    /// Its name as in the MX record (lower case, no trailing dot), or an address.
    pub name: String,
    /// Preference.
    pub preference: u16,
}
/// How the STARTTLS step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StartTls {
    /// Level `none`: not tried.
    NotTried,
    /// EHLO did not offer it.
    NotOffered,
    /// Offered, and TLS is up.
    Done(TlsFacts),
}
/// What the handshake showed. The chain was judged without regard to the name; names are judged
/// here in policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsFacts {
    /// `TLSv1.3`
    pub version: String,
    /// Cipher suite.
    pub cipher: String,
    /// Key exchange group.
    pub group: Option<String>,
    /// `None`: the chain leads to a trust anchor, is in date and for servers. Otherwise why not.
    pub chain_error: Option<String>,
    /// DNS (and IP) names of the certificate's SAN, lower case.
    pub names: Vec<String>,
    /// SHA-256 of the certificate, hex.
    pub fingerprint: String,
    /// SHA-256 of its public key (SPKI), hex.
    pub key_fingerprint: String,
    /// End of validity.
    pub not_after: Option<Timestamp>,
}
/// A connection ready for MAIL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerFacts {
    /// Number of the connection in this process: a clearance is good for this one only.
    pub connection: u64,
    /// MX host.
    pub host: String,
    /// Address connected to.
    pub address: SocketAddr,
    /// TLS.
    pub tls: StartTls,
    /// Offered in the EHLO that counts (the one inside TLS, where there is TLS).
    pub eight_bit: bool,
    /// SMTPUTF8.
    pub smtputf8: bool,
    /// REQUIRETLS.
    pub require_tls: bool,
    /// SIZE limit; `None`: not announced or 0.
    pub size: Option<u64>,
}
/// Why a host did not take part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostTrouble {
    /// MX host.
    pub host: String,
    /// What.
    pub trouble: Trouble,
    /// Detail for the record: reply or error text, bounded.
    pub detail: String,
}
/// Kinds of trouble with a host before content could move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trouble {
    /// Its address could not be looked up now.
    Dns,
    /// No address, or one in a refused network.
    NoAddress,
    /// Connection refused, timed out, dropped; greeting or EHLO refused.
    Unreachable,
    /// STARTTLS not offered.
    NoStartTls,
    /// STARTTLS refused with a reply.
    StartTlsRefused,
    /// The handshake failed.
    Handshake,
    /// The certificate or the TLS version does not meet the level.
    Unproven,
    /// The message can't be carried: SIZE.
    TooBig,
    /// The message can't be carried: 8BITMIME.
    EightBit,
    /// The message can't be carried: SMTPUTF8.
    Utf8,
    /// REQUIRETLS was asked and is not offered.
    NoRequireTls,
}
/// What connecting must do before facts about a peer are brought back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// Use STARTTLS: never, if offered, or always.
    pub tls: TlsUse,
    /// At least TLS 1.3.
    pub min_tls13: bool,
    /// Private trust anchors instead of `delivery.trust_anchors`: a path, absolute or relative to
    /// the policy directory.
    pub ca_file: Option<String>,
    /// Configuration itself names this host, no DNS answer led here: `delivery.refuse_networks` does
    /// not speak of it (an inside host or a relay on loopback).
    pub configured: bool,
}
/// When STARTTLS is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsUse {
    /// Not at all.
    Never,
    /// Where offered; on refusal or failure plaintext over a new connection.
    IfOffered,
    /// Always, or this host is no peer.
    Always,
}
/// What to find out next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// The MX set of the domain, or of this next hop.
    Mx(Option<NextHop>),
    /// A connection to the next untried host that meets this.
    Peer(Requirement),
    /// This host does not do: leave it (with this trouble on the record) and try the next.
    NextHost(Trouble, String),
}
/// Where mail goes.
#[derive(Debug)]
pub enum Route {
    /// More must be known.
    Need(Need),
    /// Over this connection.
    Direct(Clearance),
    /// Sealed for pickup.
    Envelope(Why),
    /// Not now.
    Defer(Why),
    /// Back to the sender.
    Reject(Why, EnhancedStatus),
}
/// The proof that content may go over one connection. Only [`decide`] makes it.
///
/// ```compile_fail,E0451
/// use restante::policy::{Clearance, Why};
/// fn forge(why: Why) -> Clearance { Clearance { connection: 1, why, mark: None } }
/// ```
#[derive(Debug)]
pub struct Clearance {
    connection: u64,
    why: Why,
    mark: Option<String>,
}
impl Clearance {
    /// The connection it is good for.
    pub fn connection(&self) -> u64 {
        self.connection
    }
    /// Why content may go.
    pub fn why(&self) -> &Why {
        &self.why
    }
    /// Header line to add (policy `mark`).
    pub fn mark(&self) -> Option<&str> {
        self.mark.as_deref()
    }
}
/// A reason: its code, a sentence for people, and the policy that decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// Code, stable.
    pub reason: Reason,
    /// A plain sentence.
    pub text: String,
    /// Policy.
    pub policy: PolicyRef,
}
/// Codes of reasons (kebab-case in JSON, metrics and log).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The level asked was met.
    LevelMet,
    /// A rule let it pass, opportunistic.
    RulePass,
    /// A notice of ours on the open channel.
    Notice,
    /// To our own inside host.
    Inside,
    /// Policy says always sealed.
    PolicyEnvelope,
    /// The level could not be met for `otherwise_after`.
    LevelNotMet,
    /// The next hop can't carry the message.
    CannotCarry,
    /// DNS did not answer.
    DnsTrouble,
    /// No such domain.
    NoSuchDomain,
    /// No mail host.
    NoMailHost,
    /// Null MX.
    NullMx,
    /// Hosts lie in refused networks.
    RefusedNetwork,
    /// No host could be reached.
    Unreachable,
    /// The peer answered 4xx.
    PeerDeferred,
    /// The peer answered 5xx.
    PeerRefused,
    /// The time to deliver ran out.
    GaveUp,
    /// Our own fault: store or key trouble.
    Ours,
}
/// Decides. Pure: the same facts give the same route.
pub fn decide(facts: &Facts<'_>) -> Route {
    match Plan::of(facts) {
        Ok(plan) => plan.route(facts),
        Err(why) => Route::Envelope(why),
    }
}

/// What is asked of the direct way, and what happens where it fails.
struct Plan<'a> {
    asked: Asked<'a>,
    at: PolicyRef,
    hop: Option<&'a NextHop>,
    ca_file: Option<&'a str>,
    mark: Option<&'a str>,
    /// What success is called, and the words before it.
    success: Reason,
    preface: String,
    /// When the level can't be met for `otherwise_after`.
    otherwise: Otherwise,
    otherwise_after: SignedDuration,
    /// When no next hop can carry the message.
    cannot_carry: Otherwise,
    no_require_tls: NoRequireTls,
}

impl<'a> Plan<'a> {
    /// The plan, or why the message is sealed without asking anybody.
    fn of(facts: &Facts<'a>) -> Result<Self, Why> {
        let policy = facts.set.lookup(facts.domain, facts.now);
        match facts.question {
            Question::Protected(verdict) => Self::protected(facts, policy, verdict),
            // Where a partner's mail goes is no matter of secrecy: notices take the same next hop.
            Question::Notice(level) => {
                Ok(Self::own(facts, policy.next_hop.as_ref(), level, Reason::Notice))
            }
            Question::Inside(hop, level) => Ok(Self::own(facts, Some(hop), level, Reason::Inside)),
        }
    }

    fn protected(
        facts: &Facts<'a>,
        policy: &'a Policy,
        verdict: &RuleVerdict,
    ) -> Result<Self, Why> {
        // An entry stays the floor: a rule lifts only what no entry speaks of. `reject` was
        // answered at the end of DATA; where such a message stands in the queue nevertheless, it is
        // protected.
        let passes = match verdict.action {
            RuleAction::Pass => !policy.partner,
            RuleAction::Protect | RuleAction::Reject => false,
        };
        let at = if passes { rule_ref(policy, verdict) } else { policy.at.clone() };
        if at.level == Level::Envelope {
            let text = sealed_by(policy, facts.domain);
            return Err(Why { reason: Reason::PolicyEnvelope, text, policy: at });
        }
        let (success, preface) = if passes {
            (Reason::RulePass, "A rule lets the message pass: ".to_owned())
        } else {
            (Reason::LevelMet, String::new())
        };
        Ok(Self {
            asked: Asked {
                level: at.level,
                domain: facts.domain.as_str(),
                names: &policy.names,
                min_tls13: policy.min_tls13,
            },
            at,
            hop: policy.next_hop.as_ref(),
            ca_file: policy.ca_file.as_deref(),
            mark: policy.mark.as_deref(),
            success,
            preface,
            otherwise: policy.otherwise,
            otherwise_after: policy.otherwise_after,
            cannot_carry: policy.otherwise,
            no_require_tls: policy.no_require_tls,
        })
    }

    /// Our own mail is never sealed: what can't go now waits, what can't go at all goes back.
    fn own(facts: &Facts<'a>, hop: Option<&'a NextHop>, level: Level, success: Reason) -> Self {
        let file = "restante.toml".to_owned();
        let version = facts.set.version().to_owned();
        let domain = facts.domain.as_str();
        Self {
            asked: Asked { level, domain, names: &[], min_tls13: false },
            at: PolicyRef { file, line: 0, level, version },
            hop,
            ca_file: None,
            mark: None,
            success,
            preface: String::new(),
            otherwise: Otherwise::Defer,
            otherwise_after: SignedDuration::ZERO,
            cannot_carry: Otherwise::Bounce,
            no_require_tls: NoRequireTls::Bounce,
        }
    }

    fn route(&self, facts: &Facts<'_>) -> Route {
        match (facts.peer, facts.mx) {
            (Some(peer), _) => self.judge(facts, peer),
            (None, _) if facts.exhausted => self.exhausted(facts),
            (None, None) => Route::Need(Need::Mx(self.hop.cloned())),
            (None, Some(mx)) => self.mail_hosts(facts, mx),
        }
    }

    /// RFC 5321 §5.1: which answers of DNS end the matter, and which leave it open.
    fn mail_hosts(&self, facts: &Facts<'_>, mx: &MxFacts) -> Route {
        let place = self.place(facts);
        match mx {
            MxFacts::Hosts(_) => Route::Need(Need::Peer(self.requirement())),
            MxFacts::NoDomain => {
                let text = format!("The domain {place} does not exist.");
                self.no_way(facts, Reason::NoSuchDomain, (1, 2), text)
            }
            MxFacts::NoHost => {
                let text = format!("{place} exists, but has no mail host and no address.");
                self.no_way(facts, Reason::NoMailHost, (4, 4), text)
            }
            // RFC 7505 §4.1 names 5.1.10 for it.
            MxFacts::Null => {
                let text = format!("{place} says that it takes no mail (null MX).");
                self.no_way(facts, Reason::NullMx, (1, 10), text)
            }
            MxFacts::Trouble(_) => {
                let text = format!("The mail hosts of {place} could not be looked up.");
                self.wait(facts, Reason::DnsTrouble, (4, 3), text)
            }
            MxFacts::Refused(_) => {
                let text = format!("The mail hosts of {place} lie where none may lie.");
                self.wait(facts, Reason::RefusedNetwork, (4, 4), text)
            }
        }
    }

    /// A permanent answer of DNS. About a next hop that our own configuration names, it says that
    /// the configuration is wrong, not the recipient's address: that waits to be put right.
    fn no_way(&self, facts: &Facts<'_>, reason: Reason, status: (u16, u16), text: String) -> Route {
        if self.hop.is_some() {
            return self.wait(facts, reason, status, text);
        }
        Route::Reject(self.why(reason, text), EnhancedStatus::permanent(status.0, status.1))
    }

    fn requirement(&self) -> Requirement {
        Requirement {
            tls: tls_use(self.asked.level),
            min_tls13: self.asked.min_tls13 && tls_use(self.asked.level) == TlsUse::Always,
            ca_file: self.ca_file.map(str::to_owned),
            configured: self.hop.is_some_and(|hop| !hop.mx),
        }
    }

    fn judge(&self, facts: &Facts<'_>, peer: &PeerFacts) -> Route {
        let met = match judge::level(&self.asked, peer) {
            Ok(met) => met,
            Err((trouble, detail)) => return Route::Need(Need::NextHost(trouble, detail)),
        };
        if let Some((trouble, detail)) = cannot_carry(facts, peer) {
            return Route::Need(Need::NextHost(trouble, detail));
        }
        Route::Direct(Clearance {
            connection: peer.connection,
            why: self.why(self.success, format!("{}{met}.", self.preface)),
            mark: self.mark.map(str::to_owned),
        })
    }

    /// All hosts were tried: what stands in the way, and is it time for something else?
    fn exhausted(&self, facts: &Facts<'_>) -> Route {
        let (obstacle, trouble) = obstacle(facts.tried, self.asked.level);
        let place = self.place(facts);
        let host = trouble.map_or(place.as_str(), |t| t.host.as_str());
        match obstacle {
            Obstacle::Doubt => {
                let text = format!("The address of {host} could not be looked up.");
                self.wait(facts, Reason::DnsTrouble, (4, 3), text)
            }
            Obstacle::Away => {
                let text = format!("No mail host of {place} could be reached.");
                self.wait(facts, Reason::Unreachable, away_status(facts.tried), text)
            }
            Obstacle::Level => self.level_not_met(facts, trouble, host),
            Obstacle::Carry => self.too_much(facts, trouble, &place),
            Obstacle::Utf8 => {
                let text = format!("No mail host of {place} takes addresses beyond ASCII.");
                let why = self.why(Reason::CannotCarry, text);
                Route::Reject(why, EnhancedStatus::permanent(6, 7))
            }
            Obstacle::RequireTls => {
                let text = format!(
                    "The message asks for TLS on the whole way (REQUIRETLS), and no mail host of \
                     {place} promises that."
                );
                let why = self.why(Reason::CannotCarry, text);
                match self.no_require_tls {
                    // RFC 8689 §5: 5.7.30, "REQUIRETLS support required".
                    NoRequireTls::Bounce => Route::Reject(why, EnhancedStatus::permanent(7, 30)),
                    NoRequireTls::Envelope => Route::Envelope(why),
                }
            }
        }
    }

    fn level_not_met(&self, facts: &Facts<'_>, trouble: Option<&HostTrouble>, host: &str) -> Route {
        let what = trouble.map_or("gave no proof", |t| failing(t.trouble));
        let text = format!("Level {} can't be met: {host} {what}.", self.asked.level);
        let status = trouble.map_or((7, 5), |t| level_status(t.trouble));
        let failing_since = facts.first_failed.unwrap_or(facts.now);
        let patient = facts.now.duration_since(failing_since) < self.otherwise_after;
        if patient && !gave_up(facts) {
            return Route::Defer(self.why(Reason::LevelNotMet, text));
        }
        match self.otherwise {
            Otherwise::Envelope => Route::Envelope(self.why(Reason::LevelNotMet, text)),
            Otherwise::Defer => self.wait(facts, Reason::LevelNotMet, status, text),
            Otherwise::Bounce => Route::Reject(
                self.why(Reason::LevelNotMet, text),
                EnhancedStatus::permanent(status.0, status.1),
            ),
        }
    }

    fn too_much(&self, facts: &Facts<'_>, trouble: Option<&HostTrouble>, place: &str) -> Route {
        let big = trouble.is_none_or(|t| t.trouble == Trouble::TooBig);
        // RFC 3463 §3.4 and §3.7: message too big, conversion required but not supported.
        let (status, what) =
            if big { ((3, 4), "a message of this size") } else { ((6, 3), "8-bit content") };
        let text = format!("No mail host of {place} takes {what}.");
        match self.cannot_carry {
            Otherwise::Envelope => Route::Envelope(self.why(Reason::CannotCarry, text)),
            Otherwise::Defer => self.wait(facts, Reason::CannotCarry, status, text),
            Otherwise::Bounce => Route::Reject(
                self.why(Reason::CannotCarry, text),
                EnhancedStatus::permanent(status.0, status.1),
            ),
        }
    }

    /// Not now; after `give_up` no more.
    fn wait(&self, facts: &Facts<'_>, reason: Reason, status: (u16, u16), text: String) -> Route {
        if !gave_up(facts) {
            return Route::Defer(self.why(reason, text));
        }
        let text = format!("{text} The time to deliver it has run out.");
        let status = EnhancedStatus::transient(status.0, status.1);
        Route::Reject(self.why(Reason::GaveUp, text), status.with_class(StatusClass::Permanent))
    }

    fn why(&self, reason: Reason, text: String) -> Why {
        Why { reason, text, policy: self.at.clone() }
    }

    /// What was looked up: the next hop of the configuration, or the recipients' domain.
    fn place(&self, facts: &Facts<'_>) -> String {
        self.hop.map_or_else(|| facts.domain.as_str().to_owned(), |hop| hop.host.clone())
    }
}

fn gave_up(facts: &Facts<'_>) -> bool {
    facts.now.duration_since(facts.arrived) >= facts.give_up
}

/// The rule that lets a message pass decides, and is named.
fn rule_ref(policy: &Policy, verdict: &RuleVerdict) -> PolicyRef {
    let (file, line) =
        verdict.rule.clone().unwrap_or_else(|| (policy.at.file.clone(), policy.at.line));
    PolicyRef { file, line, level: Level::Opportunistic, version: policy.at.version.clone() }
}

fn sealed_by(policy: &Policy, domain: &Domain) -> String {
    if policy.partner {
        format!("The policy for {domain} keeps every message sealed for pickup.")
    } else {
        format!("{domain} is no partner, so the message is kept sealed for pickup.")
    }
}

fn tls_use(level: Level) -> TlsUse {
    match level {
        Level::None => TlsUse::Never,
        Level::Opportunistic => TlsUse::IfOffered,
        Level::Auto
        | Level::Dane
        | Level::DaneOnly
        | Level::Encrypt
        | Level::Envelope
        | Level::Fingerprint
        | Level::MtaSts
        | Level::Secure
        | Level::Verify => TlsUse::Always,
    }
}

/// What the message needs and the peer does not offer.
fn cannot_carry(facts: &Facts<'_>, peer: &PeerFacts) -> Option<(Trouble, String)> {
    let host = &peer.host;
    if let Some(limit) = peer.size.filter(|limit| facts.size > *limit) {
        let text = format!("{host} takes {limit} bytes, the message has {}", facts.size);
        return Some((Trouble::TooBig, text));
    }
    let needs = facts.needs;
    // RFC 8689 §2: REQUIRETLS counts only where it is offered inside TLS.
    let require_tls = peer.require_tls && matches!(peer.tls, StartTls::Done(_));
    let wants = [
        // First what no envelope mends: a message that needs SMTPUTF8 mostly has 8-bit content too.
        (needs.smtputf8 && !peer.smtputf8, Trouble::Utf8, "SMTPUTF8"),
        (needs.eight_bit && !peer.eight_bit, Trouble::EightBit, "8BITMIME"),
        (needs.require_tls && !require_tls, Trouble::NoRequireTls, "REQUIRETLS"),
    ];
    let (_, trouble, name) = wants.into_iter().find(|(missing, _, _)| *missing)?;
    Some((trouble, format!("{host} does not offer {name}")))
}

/// What stands in the way when all hosts have been tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Obstacle {
    /// DNS did not answer for some host: nobody knows what it could have done.
    Doubt,
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

fn kind(trouble: Trouble, level: Level) -> Obstacle {
    match trouble {
        Trouble::Dns => Obstacle::Doubt,
        Trouble::NoAddress | Trouble::Unreachable => Obstacle::Away,
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

/// The obstacle that decides and the first host that showed it. Doubt comes first, then what a
/// retry may mend, then what no retry mends.
fn obstacle(tried: &[HostTrouble], level: Level) -> (Obstacle, Option<&HostTrouble>) {
    let first = |wanted: Obstacle| tried.iter().find(|t| kind(t.trouble, level) == wanted);
    for wanted in [Obstacle::Doubt, Obstacle::Level, Obstacle::Away, Obstacle::RequireTls] {
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

fn failing(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::NoStartTls => "does not offer TLS",
        Trouble::StartTlsRefused => "offers TLS and then refuses it",
        Trouble::Handshake => "could not agree on TLS",
        Trouble::Unproven => "could not prove who it is",
        Trouble::Dns
        | Trouble::NoAddress
        | Trouble::Unreachable
        | Trouble::TooBig
        | Trouble::EightBit
        | Trouble::Utf8
        | Trouble::NoRequireTls => "could not be used",
    }
}

/// RFC 3463 §3.8: 7.4 security features not supported, 7.5 cryptographic failure.
fn level_status(trouble: Trouble) -> (u16, u16) {
    match trouble {
        Trouble::NoStartTls | Trouble::StartTlsRefused => (7, 4),
        Trouble::Handshake
        | Trouble::Unproven
        | Trouble::Dns
        | Trouble::NoAddress
        | Trouble::Unreachable
        | Trouble::TooBig
        | Trouble::EightBit
        | Trouble::Utf8
        | Trouble::NoRequireTls => (7, 5),
    }
}

/// RFC 3463 §3.5: 4.1 no answer from host, 4.4 unable to route.
fn away_status(tried: &[HostTrouble]) -> (u16, u16) {
    let routed = tried.iter().any(|t| t.trouble != Trouble::NoAddress);
    if routed { (4, 1) } else { (4, 4) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::SourceFile;

    const NOW: &str = "2026-11-22T12:00:00Z";
    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    /// The facts of a case; each test changes what it is about.
    struct Case {
        set: PolicySet,
        rule: RuleVerdict,
        question: Ask,
        mx: Option<MxFacts>,
        tried: Vec<HostTrouble>,
        peer: Option<PeerFacts>,
        exhausted: bool,
        needs: Needs,
        size: u64,
        /// How long ago it arrived, and since when the direct way fails.
        age: SignedDuration,
        failing: Option<SignedDuration>,
    }
    #[derive(Clone, Copy)]
    enum Ask {
        Protected,
        Notice(Level),
        Inside(Level),
    }

    fn set(partner: &str, default: &str) -> PolicySet {
        let mut files = Vec::new();
        if !partner.is_empty() {
            let text = format!("[[partner]]\ndomains = [\"a.example\"]\n{partner}\n");
            files.push(SourceFile { name: "a.toml".into(), text });
        }
        files.push(SourceFile { name: "default.toml".into(), text: default.into() });
        PolicySet::parse(&files, NOW.parse().unwrap()).unwrap().0
    }

    fn case(partner: &str) -> Case {
        Case {
            set: set(partner, ""),
            rule: RuleVerdict::protected(),
            question: Ask::Protected,
            mx: Some(hosts()),
            tried: Vec::new(),
            peer: None,
            exhausted: false,
            needs: Needs::default(),
            size: 1000,
            age: SignedDuration::ZERO,
            failing: None,
        }
    }

    fn hosts() -> MxFacts {
        let host = |name: &str, preference| MxHost { name: name.into(), preference };
        MxFacts::Hosts(vec![host("mx1.a.example", 10), host("mx2.a.example", 20)])
    }

    fn passing() -> RuleVerdict {
        let rule = Some(("rules.toml".to_owned(), 7));
        RuleVerdict { action: RuleAction::Pass, rule, strip: None }
    }

    fn tls(names: &[&str]) -> TlsFacts {
        TlsFacts {
            version: "TLSv1.3".into(),
            cipher: "TLS13_AES_256_GCM_SHA384".into(),
            group: None,
            chain_error: None,
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            fingerprint: String::new(),
            key_fingerprint: String::new(),
            not_after: None,
        }
    }

    fn peer(tls: StartTls) -> PeerFacts {
        PeerFacts {
            connection: 7,
            host: "mx1.a.example".into(),
            address: "192.0.2.1:25".parse().unwrap(),
            tls,
            eight_bit: true,
            smtputf8: true,
            require_tls: true,
            size: None,
        }
    }

    fn good_peer() -> PeerFacts {
        peer(StartTls::Done(tls(&["mx1.a.example"])))
    }

    fn failed(troubles: &[Trouble]) -> Vec<HostTrouble> {
        let host = |(n, trouble): (usize, &Trouble)| HostTrouble {
            host: format!("mx{}.a.example", n + 1),
            trouble: *trouble,
            detail: "secret detail".into(),
        };
        troubles.iter().enumerate().map(host).collect()
    }

    impl Case {
        fn route(&self) -> Route {
            let hop: NextHop = "[10.0.0.1]:25".parse().unwrap();
            let now: Timestamp = NOW.parse().unwrap();
            decide(&Facts {
                question: match self.question {
                    Ask::Protected => Question::Protected(&self.rule),
                    Ask::Notice(level) => Question::Notice(level),
                    Ask::Inside(level) => Question::Inside(&hop, level),
                },
                set: &self.set,
                domain: &"a.example".parse().unwrap(),
                needs: self.needs,
                size: self.size,
                now,
                arrived: now - self.age,
                first_failed: self.failing.map(|since| now - since),
                give_up: SignedDuration::from_hours(120),
                mx: self.mx.as_ref(),
                tried: &self.tried,
                peer: self.peer.as_ref(),
                exhausted: self.exhausted,
            })
        }

        /// The route in one line.
        fn short(&self) -> String {
            match self.route() {
                Route::Need(Need::Mx(hop)) => {
                    format!("mx {}", hop.map_or_else(|| "domain".into(), |h| h.to_string()))
                }
                Route::Need(Need::Peer(r)) => format!("peer {:?}", r.tls),
                Route::Need(Need::NextHost(trouble, _)) => format!("next {trouble:?}"),
                Route::Direct(c) => format!("direct {:?}", c.why.reason),
                Route::Envelope(why) => format!("envelope {:?}", why.reason),
                Route::Defer(why) => format!("defer {:?}", why.reason),
                Route::Reject(why, status) => format!("reject {:?} {status}", why.reason),
            }
        }
    }

    #[test]
    fn what_is_sealed_without_asking() {
        for (partner, default, rule, expected) in [
            ("", "", RuleVerdict::protected(), "envelope PolicyEnvelope"),
            (
                "",
                "[default]\nlevel = \"envelope\"",
                RuleVerdict::protected(),
                "envelope PolicyEnvelope",
            ),
            ("level = \"envelope\"", "", RuleVerdict::protected(), "envelope PolicyEnvelope"),
            ("level = \"envelope\"", "", passing(), "envelope PolicyEnvelope"),
            ("", "", passing(), "mx domain"),
            ("", "[default]\nlevel = \"encrypt\"", RuleVerdict::protected(), "mx domain"),
            ("level = \"secure\"", "", RuleVerdict::protected(), "mx domain"),
            (
                "level = \"secure\"\nnext_hop = \"[mx.a.example]:587\"",
                "",
                RuleVerdict::protected(),
                "mx [mx.a.example]:587",
            ),
        ] {
            let case = Case { set: set(partner, default), rule, mx: None, ..case("") };
            assert_eq!(case.short(), expected, "{partner:?} {default:?}");
        }
    }

    #[test]
    fn a_rejected_message_in_the_queue_is_protected() {
        let rule = RuleVerdict { action: RuleAction::Reject, ..passing() };
        assert_eq!(Case { rule, mx: None, ..case("") }.short(), "envelope PolicyEnvelope");
    }

    #[test]
    fn what_connecting_must_do() {
        for (partner, rule, expected) in [
            ("level = \"opportunistic\"", RuleVerdict::protected(), "peer IfOffered"),
            ("level = \"encrypt\"", RuleVerdict::protected(), "peer Always"),
            ("level = \"verify\"", RuleVerdict::protected(), "peer Always"),
            ("level = \"secure\"", passing(), "peer Always"),
            ("", passing(), "peer IfOffered"),
        ] {
            assert_eq!(Case { rule, ..case(partner) }.short(), expected, "{partner:?}");
        }
        let keys = "level = \"secure\"\nmin_tls = \"1.3\"\nca_file = \"ca.pem\"";
        let Route::Need(Need::Peer(requirement)) = case(keys).route() else { panic!("no peer") };
        assert!(requirement.min_tls13);
        assert_eq!(requirement.ca_file.as_deref(), Some("ca.pem"));
    }

    #[test]
    fn refused_networks_speak_of_mx_hosts_and_not_of_hosts_that_configuration_names() {
        let hop = |hop: &str| case(&format!("level = \"secure\"\nnext_hop = \"{hop}\""));
        let inside = || Case { question: Ask::Inside(Level::Opportunistic), ..case("") };
        for (case, expected, why) in [
            (case("level = \"secure\""), false, "the domain's MX"),
            (hop("b.example"), false, "the MX of a next hop"),
            (hop("[mx.b.example]"), true, "a host by name"),
            (hop("[127.0.0.1]:2525"), true, "a host by address"),
            (inside(), true, "the inside host"),
        ] {
            let Route::Need(Need::Peer(requirement)) = case.route() else { panic!("{why}") };
            assert_eq!(requirement.configured, expected, "{why}");
        }
    }

    #[test]
    fn answers_of_dns() {
        let trouble = || MxFacts::Trouble("SERVFAIL".into());
        let refused = || MxFacts::Refused("loopback".into());
        let late = HOUR * 120;
        let hop = "level = \"secure\"\nnext_hop = \"[mx.a.example]\"";
        let plain = "level = \"secure\"";
        let bounce = "level = \"secure\"\notherwise = \"bounce\"\notherwise_after = \"0s\"";
        for (partner, mx, age, expected) in [
            (plain, MxFacts::NoDomain, SignedDuration::ZERO, "reject NoSuchDomain 5.1.2"),
            (plain, MxFacts::Null, SignedDuration::ZERO, "reject NullMx 5.1.10"),
            (plain, MxFacts::NoHost, SignedDuration::ZERO, "reject NoMailHost 5.4.4"),
            (plain, trouble(), SignedDuration::ZERO, "defer DnsTrouble"),
            (bounce, trouble(), HOUR * 119, "defer DnsTrouble"),
            (plain, trouble(), late, "reject GaveUp 5.4.3"),
            (plain, refused(), SignedDuration::ZERO, "defer RefusedNetwork"),
            (plain, refused(), late, "reject GaveUp 5.4.4"),
            (hop, MxFacts::NoDomain, SignedDuration::ZERO, "defer NoSuchDomain"),
            (hop, MxFacts::NoDomain, late, "reject GaveUp 5.1.2"),
        ] {
            let case = Case { mx: Some(mx.clone()), age, ..case(partner) };
            assert_eq!(case.short(), expected, "{partner:?} {mx:?} {age:?}");
        }
    }

    #[test]
    fn what_a_peer_must_prove() {
        let done = |names: &[&str]| StartTls::Done(tls(names));
        let untrusted = || {
            let error = Some("unknown issuer".to_owned());
            StartTls::Done(TlsFacts { chain_error: error, ..tls(&["mx1.a.example"]) })
        };
        let old =
            || StartTls::Done(TlsFacts { version: "TLSv1.2".into(), ..tls(&["mx1.a.example"]) });
        for (partner, tls, expected) in [
            ("level = \"opportunistic\"", StartTls::NotOffered, "direct LevelMet"),
            ("level = \"opportunistic\"", untrusted(), "direct LevelMet"),
            ("level = \"encrypt\"", StartTls::NotOffered, "next NoStartTls"),
            ("level = \"encrypt\"", StartTls::NotTried, "next NoStartTls"),
            ("level = \"encrypt\"", untrusted(), "direct LevelMet"),
            ("level = \"encrypt\"\nmin_tls = \"1.3\"", old(), "next Unproven"),
            ("level = \"verify\"", StartTls::NotOffered, "next NoStartTls"),
            ("level = \"verify\"", untrusted(), "next Unproven"),
            ("level = \"verify\"", done(&["mx1.a.example"]), "direct LevelMet"),
            ("level = \"verify\"", done(&["mx2.a.example"]), "next Unproven"),
            ("level = \"verify\"", done(&["a.example"]), "next Unproven"),
            ("level = \"verify\"", done(&[]), "next Unproven"),
            (
                "level = \"verify\"\nmatch = [\"mx.b.example\"]",
                done(&["mx1.a.example"]),
                "next Unproven",
            ),
            (
                "level = \"verify\"\nmatch = [\"mx.b.example\"]",
                done(&["mx.b.example"]),
                "direct LevelMet",
            ),
            ("level = \"secure\"", StartTls::NotOffered, "next NoStartTls"),
            ("level = \"secure\"", untrusted(), "next Unproven"),
            ("level = \"secure\"", old(), "direct LevelMet"),
            ("level = \"secure\"\nmin_tls = \"1.3\"", old(), "next Unproven"),
            ("level = \"secure\"", done(&["a.example"]), "direct LevelMet"),
            ("level = \"secure\"", done(&["other.example", "x.y.a.example"]), "direct LevelMet"),
            ("level = \"secure\"", done(&["*.a.example"]), "direct LevelMet"),
            ("level = \"secure\"", done(&["mx.host.example"]), "next Unproven"),
            (
                "level = \"secure\"\nmatch = [\".host.example\"]",
                done(&["mx.host.example"]),
                "direct LevelMet",
            ),
            (
                "level = \"secure\"\nmatch = [\".host.example\"]",
                done(&["a.example"]),
                "next Unproven",
            ),
        ] {
            let case = Case { peer: Some(peer(tls.clone())), ..case(partner) };
            assert_eq!(case.short(), expected, "{partner:?} {tls:?}");
        }
    }

    #[test]
    fn secure_takes_no_name_that_only_dns_gave() {
        let mut from_dns = peer(StartTls::Done(tls(&["mx.evil.example"])));
        from_dns.host = "mx.evil.example".into();
        let verify = Case { peer: Some(from_dns.clone()), ..case("level = \"verify\"") };
        assert_eq!(verify.short(), "direct LevelMet");
        let secure = Case { peer: Some(from_dns), ..case("level = \"secure\"") };
        assert_eq!(secure.short(), "next Unproven");
    }

    #[test]
    fn what_a_peer_must_carry() {
        let yes = |f: fn(&mut Needs)| {
            let mut needs = Needs::default();
            f(&mut needs);
            needs
        };
        let bare =
            || PeerFacts { eight_bit: false, smtputf8: false, require_tls: false, ..good_peer() };
        let plain = || PeerFacts { tls: StartTls::NotOffered, ..good_peer() };
        for (level, peer, needs, size, expected) in [
            (
                "secure",
                PeerFacts { size: Some(1000), ..good_peer() },
                Needs::default(),
                1000,
                "direct LevelMet",
            ),
            (
                "secure",
                PeerFacts { size: Some(1000), ..good_peer() },
                Needs::default(),
                1001,
                "next TooBig",
            ),
            ("secure", bare(), Needs::default(), 1, "direct LevelMet"),
            ("secure", bare(), yes(|n| n.eight_bit = true), 1, "next EightBit"),
            ("secure", bare(), yes(|n| n.smtputf8 = true), 1, "next Utf8"),
            (
                "secure",
                bare(),
                Needs { eight_bit: true, smtputf8: true, ..Needs::default() },
                1,
                "next Utf8",
            ),
            ("secure", bare(), yes(|n| n.require_tls = true), 1, "next NoRequireTls"),
            ("secure", good_peer(), yes(|n| n.require_tls = true), 1, "direct LevelMet"),
            ("opportunistic", plain(), yes(|n| n.require_tls = true), 1, "next NoRequireTls"),
        ] {
            let case =
                Case { peer: Some(peer), needs, size, ..case(&format!("level = \"{level}\"")) };
            assert_eq!(case.short(), expected, "{needs:?} {size}");
        }
    }

    #[test]
    fn all_hosts_tried() {
        use Trouble::*;
        let zero = SignedDuration::ZERO;
        let (seal, wait, bounce) = (
            "level = \"secure\"",
            "level = \"secure\"\notherwise = \"defer\"",
            "level = \"secure\"\notherwise = \"bounce\"",
        );
        let require = "level = \"secure\"\nrequiretls = \"envelope\"";
        let at_once = "level = \"secure\"\notherwise_after = \"0s\"";
        for (partner, tried, failing, age, expected) in [
            // A level that can't be met: patience, then `otherwise`.
            (seal, &[NoStartTls, Unproven][..], None, zero, "defer LevelNotMet"),
            (
                seal,
                &[NoStartTls],
                Some(HOUR - SignedDuration::from_secs(1)),
                HOUR,
                "defer LevelNotMet",
            ),
            (seal, &[NoStartTls], Some(HOUR), HOUR, "envelope LevelNotMet"),
            (at_once, &[Handshake], None, zero, "envelope LevelNotMet"),
            (wait, &[Unproven], Some(HOUR * 100), HOUR * 100, "defer LevelNotMet"),
            (wait, &[Unproven], Some(HOUR * 120), HOUR * 120, "reject GaveUp 5.7.5"),
            (bounce, &[Handshake], None, zero, "defer LevelNotMet"),
            (bounce, &[StartTlsRefused], Some(HOUR), HOUR, "reject LevelNotMet 5.7.4"),
            (seal, &[Unproven], None, HOUR * 200, "envelope LevelNotMet"),
            // One host is away, the other can't meet the level: the level stands in the way.
            (seal, &[Unreachable, NoStartTls], Some(HOUR), HOUR, "envelope LevelNotMet"),
            (seal, &[TooBig, NoStartTls], Some(HOUR), HOUR, "envelope LevelNotMet"),
            // Away: until give_up, whatever `otherwise` says.
            (bounce, &[Unreachable, NoAddress], Some(HOUR * 99), HOUR * 99, "defer Unreachable"),
            (seal, &[Unreachable], Some(HOUR * 120), HOUR * 120, "reject GaveUp 5.4.1"),
            (seal, &[NoAddress], Some(HOUR * 120), HOUR * 120, "reject GaveUp 5.4.4"),
            (seal, &[], None, zero, "defer Unreachable"),
            (seal, &[TooBig, Unreachable], Some(HOUR), HOUR, "defer Unreachable"),
            // Doubt: until give_up, whatever else is known.
            (bounce, &[NoStartTls, Dns], Some(HOUR * 99), HOUR * 99, "defer DnsTrouble"),
            (seal, &[TooBig, Dns], None, zero, "defer DnsTrouble"),
            (seal, &[Dns], Some(HOUR * 120), HOUR * 120, "reject GaveUp 5.4.3"),
            // What can't be carried: at once.
            (seal, &[TooBig, EightBit], None, zero, "envelope CannotCarry"),
            (wait, &[TooBig], None, zero, "defer CannotCarry"),
            (bounce, &[TooBig], None, zero, "reject CannotCarry 5.3.4"),
            (bounce, &[EightBit], None, zero, "reject CannotCarry 5.6.3"),
            (seal, &[Utf8, Utf8], None, zero, "reject CannotCarry 5.6.7"),
            (seal, &[Utf8, TooBig], None, zero, "envelope CannotCarry"),
            (seal, &[NoRequireTls], None, zero, "reject CannotCarry 5.7.30"),
            (require, &[NoRequireTls, TooBig], None, zero, "envelope CannotCarry"),
            (seal, &[NoRequireTls, Unreachable], None, zero, "defer Unreachable"),
        ] {
            let tried = failed(tried);
            let case = Case { tried, failing, age, exhausted: true, ..case(partner) };
            assert_eq!(case.short(), expected, "{partner:?} {:?} {failing:?}", case.tried);
        }
    }

    #[test]
    fn without_an_entry_the_envelope_comes_at_once() {
        let set = set("", "[default]\nlevel = \"secure\"");
        let tried = failed(&[Trouble::NoStartTls]);
        let case = Case { set, tried, exhausted: true, ..case("") };
        assert_eq!(case.short(), "envelope LevelNotMet");
    }

    #[test]
    fn a_rule_lets_pass_and_is_named() {
        let case = Case { rule: passing(), peer: Some(peer(StartTls::NotOffered)), ..case("") };
        let Route::Direct(clearance) = case.route() else { panic!("not direct") };
        let why = clearance.why();
        assert_eq!(why.reason, Reason::RulePass);
        assert_eq!((why.policy.file.as_str(), why.policy.line), ("rules.toml", 7));
        assert_eq!(why.policy.level, Level::Opportunistic);
    }

    #[test]
    fn a_clearance_is_for_one_connection() {
        let keys = "level = \"secure\"\nmark = \"X-Via: gateway\"";
        let case = Case { peer: Some(good_peer()), ..case(keys) };
        let Route::Direct(clearance) = case.route() else { panic!("not direct") };
        assert_eq!(clearance.connection(), 7);
        assert_eq!(clearance.mark(), Some("X-Via: gateway"));
        let at = &clearance.why().policy;
        assert_eq!((at.file.as_str(), at.line, at.level), ("a.toml", 1, Level::Secure));
        assert_eq!(at.version, case.set.version());
    }

    #[test]
    fn our_own_mail_is_never_sealed() {
        let notice = |level| Ask::Notice(level);
        let (zero, late) = (SignedDuration::ZERO, HOUR * 120);
        for (question, tried, age, expected) in [
            (notice(Level::Opportunistic), Trouble::Unreachable, zero, "defer Unreachable"),
            (notice(Level::Opportunistic), Trouble::Handshake, zero, "defer Unreachable"),
            (notice(Level::Encrypt), Trouble::NoStartTls, HOUR, "defer LevelNotMet"),
            (notice(Level::Encrypt), Trouble::NoStartTls, late, "reject GaveUp 5.7.4"),
            (notice(Level::Opportunistic), Trouble::TooBig, zero, "reject CannotCarry 5.3.4"),
            (Ask::Inside(Level::Verify), Trouble::Unproven, zero, "defer LevelNotMet"),
            (Ask::Inside(Level::Opportunistic), Trouble::Unreachable, late, "reject GaveUp 5.4.1"),
            (
                Ask::Inside(Level::Opportunistic),
                Trouble::NoRequireTls,
                zero,
                "reject CannotCarry 5.7.30",
            ),
        ] {
            let tried = failed(&[tried]);
            let case = Case { question, tried, age, exhausted: true, ..case("") };
            assert_eq!(case.short(), expected);
        }
        for (question, mx, peer, expected) in [
            (notice(Level::Opportunistic), None, None, "mx domain"),
            (
                notice(Level::Opportunistic),
                Some(MxFacts::NoDomain),
                None,
                "reject NoSuchDomain 5.1.2",
            ),
            (
                notice(Level::Opportunistic),
                Some(hosts()),
                Some(StartTls::NotOffered),
                "direct Notice",
            ),
            (notice(Level::Encrypt), Some(hosts()), Some(StartTls::NotOffered), "next NoStartTls"),
            (Ask::Inside(Level::Opportunistic), None, None, "mx [10.0.0.1]:25"),
            (
                Ask::Inside(Level::Opportunistic),
                Some(MxFacts::NoDomain),
                None,
                "defer NoSuchDomain",
            ),
            (
                Ask::Inside(Level::Opportunistic),
                Some(hosts()),
                Some(StartTls::NotOffered),
                "direct Inside",
            ),
        ] {
            let case = Case { question, mx, peer: peer.map(self::peer), ..case("") };
            assert_eq!(case.short(), expected);
        }
    }

    #[test]
    fn notices_to_a_partner_take_its_next_hop() {
        let keys = "level = \"envelope\"\nnext_hop = \"[mx.a.example]:587\"";
        let case = Case { question: Ask::Notice(Level::Opportunistic), mx: None, ..case(keys) };
        assert_eq!(case.short(), "mx [mx.a.example]:587");
    }

    #[test]
    fn reasons_hold_no_text_of_the_peer() {
        let troubles = [Trouble::Unproven, Trouble::Unreachable, Trouble::Dns, Trouble::TooBig];
        for trouble in troubles {
            let case =
                Case { tried: failed(&[trouble]), exhausted: true, ..case("level = \"secure\"") };
            let (Route::Envelope(why) | Route::Defer(why) | Route::Reject(why, _)) = case.route()
            else {
                panic!("{trouble:?} decides nothing")
            };
            assert!(!why.text.contains("secret detail") && why.text.ends_with('.'), "{}", why.text);
        }
    }
}
