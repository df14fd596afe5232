//! The one decision: facts in, a route with its reason out.
//!
//! [`decide`] is asked again and again as facts come in: with none it may answer [`Route::Need`],
//! which says what to find out next (the MX set, a connection that meets a requirement). Content
//! moves only on [`Route::Direct`], whose [`Clearance`] nothing else can make.

use crate::{
    mail::{Domain, EnhancedStatus, StatusClass},
    policy::{
        Dnssec, Facts, HostFacts, HostTrouble, Level, MxFacts, NoRequireTls, Otherwise, PeerFacts,
        Policy, PolicyRef, Question, RuleAction, RuleVerdict, StartTls, StsFacts, StsMode, TlsaSet,
        Trouble,
        file::{ClientKey, NextHop},
        judge::{self, Asked, Met},
        obstacle::{Obstacle, away_status, failing, level_status, obstacle},
    },
};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

/// What connecting must do before facts about a peer are brought back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Requirement {
    /// Use STARTTLS: never, if offered, or always.
    pub tls: TlsUse,
    /// At least TLS 1.3.
    pub min_tls13: bool,
    /// Private trust anchors instead of `delivery.trust_anchors`: a path, absolute or relative to
    /// the policy directory.
    pub ca_file: Option<String>,
    /// What we show a host that asks for our certificate.
    pub client: Option<ClientKey>,
    /// The certificate is held against these records, and SNI is their base.
    pub tlsa: Option<TlsaSet>,
    /// Configuration itself names this host, no DNS answer led here: `delivery.refuse_networks` does
    /// not speak of it (an inside host or a relay on loopback).
    pub configured: bool,
}
/// When STARTTLS is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsUse {
    /// Not at all.
    Never,
    /// Where offered; on refusal or failure plaintext over a new connection.
    IfOffered,
    /// Always, or this host is no peer.
    #[default]
    Always,
}
/// What to find out next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// The MX set of the domain, or of this next hop.
    Mx(Option<NextHop>),
    /// What this domain says by MTA-STS.
    Sts(String),
    /// The next untried host: its addresses, and with `tlsa` its TLSA records too.
    Host {
        /// TLSA records are asked for.
        tlsa: bool,
    },
    /// A connection to the next untried address of the host, as this says.
    Peer(Requirement),
    /// This host, or the connection to it, does not do: leave it (with this trouble on the record)
    /// and try the next.
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
    /// Not now; the status says why (class 4).
    Defer(Why, EnhancedStatus),
    /// Back to the sender.
    Reject(Why, EnhancedStatus),
}
/// The proof that content may go over one connection. Only [`decide`] makes it.
///
/// ```compile_fail,E0451
/// use restante::policy::{Clearance, Why};
/// fn forge(why: Why) -> Clearance {
///     Clearance { connection: 1, why, verified: true, mark: None }
/// }
/// ```
#[derive(Debug)]
pub struct Clearance {
    connection: u64,
    why: Why,
    verified: bool,
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
    /// True if something asked of the certificate was proved.
    pub fn verified(&self) -> bool {
        self.verified
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

/// True if a message sealed for this reason shows that the line to the domain can't be trusted: it
/// could have met the level, as far as is known, and did not. Level `auto` at a domain that
/// publishes nothing (`sts`, and `dane` where no host has TLSA records) is no such case, nor is one
/// that policy seals without asking.
pub fn line_in_doubt(why: &Why, sts: Option<&StsFacts>, dane: bool, require_tls: bool) -> bool {
    match why.reason {
        Reason::LevelNotMet if why.policy.level == Level::Auto => {
            dane || match sts {
                // A policy that is announced and can't be had may be kept back by whoever stands in
                // the way.
                Some(StsFacts::Unfetched(_) | StsFacts::Doubt(_)) => true,
                Some(StsFacts::Policy(policy)) => policy.mode == StsMode::Enforce,
                Some(StsFacts::Nothing) | None => false,
            }
        }
        Reason::LevelNotMet => true,
        // RFC 8689 §4.2.1: no host both promises TLS on the whole way and proves itself. At a level
        // that proves, it is the promise alone that is missing.
        Reason::CannotCarry => require_tls && !why.policy.level.proves(),
        Reason::LevelMet
        | Reason::RulePass
        | Reason::Notice
        | Reason::Inside
        | Reason::PolicyEnvelope
        | Reason::DnsTrouble
        | Reason::NoSuchDomain
        | Reason::NoMailHost
        | Reason::NullMx
        | Reason::RefusedNetwork
        | Reason::Unreachable
        | Reason::PeerDeferred
        | Reason::PeerRefused
        | Reason::GaveUp
        | Reason::Ours => false,
    }
}

/// What is asked of the direct way, and what happens where it fails.
struct Plan<'a> {
    asked: Asked<'a>,
    at: PolicyRef,
    hop: Option<&'a NextHop>,
    ca_file: Option<&'a str>,
    client: Option<&'a ClientKey>,
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
            Question::Notice(level) => Ok(Self::notice(facts, policy, level)),
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
        if at.level == Level::Auto && facts.set.never_direct(facts.domain) {
            let text = format!(
                "{} is on the list of domains that nobody vouches for (never_direct), so the \
                 message is kept sealed for pickup.",
                facts.domain
            );
            return Err(Why { reason: Reason::PolicyEnvelope, text, policy: at });
        }
        let (success, preface) = if passes {
            (Reason::RulePass, "A rule lets the message pass: ".to_owned())
        } else {
            (Reason::LevelMet, String::new())
        };
        Ok(Self {
            asked: asked(facts, policy, at.level),
            at,
            hop: policy.next_hop.as_ref(),
            ca_file: policy.ca_file.as_deref(),
            client: policy.client.as_ref(),
            mark: policy.mark.as_deref(),
            success,
            preface,
            otherwise: policy.otherwise,
            otherwise_after: policy.otherwise_after,
            cannot_carry: policy.otherwise,
            no_require_tls: policy.no_require_tls,
        })
    }

    /// A notice, a code or a report for the outside. At level `published` an entry that asks for
    /// proof counts as published: the link goes as the message would have gone.
    fn notice(facts: &Facts<'a>, policy: &'a Policy, level: Level) -> Self {
        let own = Self::own(facts, policy.next_hop.as_ref(), level, Reason::Notice);
        if level != Level::Published || !policy.partner {
            return own;
        }
        let own = Self { ca_file: policy.ca_file.as_deref(), ..own };
        // Level `auto` asks for what is published; an entry without proof asks for less than that.
        if !policy.level.proves() || policy.level == Level::Auto {
            return own;
        }
        Self {
            asked: asked(facts, policy, policy.level),
            at: policy.at.clone(),
            client: policy.client.as_ref(),
            ..own
        }
    }

    /// Our own mail is never sealed: what can't go now waits, what can't go at all goes back.
    fn own(facts: &Facts<'a>, hop: Option<&'a NextHop>, level: Level, success: Reason) -> Self {
        let file = "restante.toml".to_owned();
        let version = facts.set.version().to_owned();
        let domain = facts.domain.as_str();
        Self {
            asked: Asked { level, domain, names: &[], pins: &[], min_tls13: false },
            at: PolicyRef { file, line: 0, level, version },
            hop,
            ca_file: None,
            client: None,
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
            MxFacts::Hosts(_, dnssec) => self.host(facts, self.trust(*dnssec)),
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

    /// What the name of a mail host is worth. One that configuration names needs no signature.
    fn trust(&self, dnssec: Dnssec) -> Dnssec {
        if self.hop.is_some_and(|hop| !hop.mx) { Dnssec::Secure } else { dnssec }
    }

    /// What the domain and its hosts publish comes before the first connection.
    fn host(&self, facts: &Facts<'_>, dnssec: Dnssec) -> Route {
        let level = self.asked.level;
        let published = level == Level::Published;
        if level.asks_dane() && !published && dnssec == Dnssec::Unchecked {
            let text = format!("Level {level} needs DNSSEC, which is not checked here.");
            return self.wait(facts, Reason::DnsTrouble, (7, 5), text);
        }
        let tlsa = level.asks_dane() && dnssec == Dnssec::Secure;
        if level.asks_sts() {
            let Some(sts) = facts.sts else { return Route::Need(Need::Sts(self.place(facts))) };
            let nothing = self.nothing_published(sts, tlsa, &self.place(facts));
            if let Some(text) = nothing.filter(|_| !published) {
                return self.unmet(facts, text, (7, 5));
            }
        }
        let Some(host) = facts.host else { return Route::Need(Need::Host { tlsa }) };
        match judge::host(self.asked_of(facts, host).level, host, facts.sts) {
            Ok(()) => Route::Need(Need::Peer(self.requirement(facts, host))),
            Err((trouble, detail)) => Route::Need(Need::NextHost(trouble, detail)),
        }
    }

    /// What is asked of this host: of level `published` what it and its domain publish.
    fn asked_of(&self, facts: &Facts<'_>, host: &HostFacts) -> Asked<'a> {
        match self.asked.level {
            Level::Published => Asked { level: judge::as_published(host, facts.sts), ..self.asked },
            Level::Auto
            | Level::Dane
            | Level::DaneOnly
            | Level::Encrypt
            | Level::Envelope
            | Level::Fingerprint
            | Level::MtaSts
            | Level::None
            | Level::Opportunistic
            | Level::Secure
            | Level::Verify => self.asked,
        }
    }

    /// Where neither TLSA records nor an enforced policy can be, no host need be asked.
    fn nothing_published(&self, sts: &StsFacts, tlsa: bool, place: &str) -> Option<String> {
        let says = match sts {
            StsFacts::Nothing => "publishes no MTA-STS policy".to_owned(),
            StsFacts::Unfetched(why) => {
                format!("announces an MTA-STS policy that could not be fetched ({why})")
            }
            StsFacts::Policy(policy) if policy.mode != StsMode::Enforce => {
                "has an MTA-STS policy that is not enforced".to_owned()
            }
            StsFacts::Policy(_) | StsFacts::Doubt(_) => return None,
        };
        let level = self.asked.level;
        if level != Level::Auto {
            return Some(format!("Level {level} can't be met: {place} {says}."));
        }
        // A host may still have signed TLSA records.
        (!tlsa).then(|| {
            format!(
                "Level {level} can't be met: the MX records of {place} are not signed, and it {says}."
            )
        })
    }

    /// A permanent answer of DNS. About a next hop that our own configuration names, it says that
    /// the configuration is wrong, not the recipient's address: that waits to be put right.
    fn no_way(&self, facts: &Facts<'_>, reason: Reason, status: (u16, u16), text: String) -> Route {
        if self.hop.is_some() {
            return self.wait(facts, reason, status, text);
        }
        Route::Reject(self.why(reason, text), EnhancedStatus::permanent(status.0, status.1))
    }

    /// What the level has no use for is left out: a file that is not there must not stop what
    /// never needed it. A message that asks REQUIRETLS wants TLS and a proof at every level (RFC
    /// 8689 §4.2.1).
    fn requirement(&self, facts: &Facts<'_>, host: &HostFacts) -> Requirement {
        let level = self.asked_of(facts, host).level;
        let chain = level.checks_chain() || facts.needs.require_tls;
        let asked = tls_use(level);
        let must = facts.needs.require_tls && asked == TlsUse::IfOffered;
        let tls = if must { TlsUse::Always } else { asked };
        Requirement {
            tls,
            min_tls13: self.asked.min_tls13 && asked == TlsUse::Always,
            ca_file: self.ca_file.filter(|_| chain).map(str::to_owned),
            client: self.client.filter(|_| shows_client(level)).cloned(),
            tlsa: host.dane.records().cloned(),
            configured: self.hop.is_some_and(|hop| !hop.mx),
        }
    }

    fn judge(&self, facts: &Facts<'_>, peer: &PeerFacts) -> Route {
        let asked = facts.host.map_or(self.asked, |host| self.asked_of(facts, host));
        let met = match judge::level(&asked, facts.host, peer) {
            Ok(met) => met,
            Err((trouble, detail)) => return Route::Need(Need::NextHost(trouble, detail)),
        };
        if let Some((trouble, detail)) = self.cannot_carry(facts, &met, peer) {
            return Route::Need(Need::NextHost(trouble, detail));
        }
        Route::Direct(Clearance {
            connection: peer.connection,
            why: self.why(self.success, format!("{}{}.", self.preface, met.text)),
            verified: met.verified,
            mark: self.mark.map(str::to_owned),
        })
    }

    /// What the message needs and the peer does not offer.
    fn cannot_carry(
        &self,
        facts: &Facts<'_>,
        met: &Met,
        peer: &PeerFacts,
    ) -> Option<(Trouble, String)> {
        let host = &peer.host;
        let mark = self.mark.map_or(0, |mark| mark.len().saturating_add(2));
        let size = facts.size.saturating_add(u64::try_from(mark).unwrap_or(0));
        if let Some(limit) = peer.size.filter(|limit| size > *limit) {
            let text = format!("{host} takes {limit} bytes, the message has {size}");
            return Some((Trouble::TooBig, text));
        }
        let needs = facts.needs;
        // RFC 8689 §2: REQUIRETLS counts only where it is offered inside TLS.
        let require_tls = peer.require_tls && matches!(peer.tls, StartTls::Done(_));
        let wants = [
            // First what no envelope mends: a message that needs SMTPUTF8 mostly has 8-bit content
            // too.
            (needs.smtputf8 && !peer.smtputf8, Trouble::Utf8, "SMTPUTF8"),
            (needs.eight_bit && !peer.eight_bit, Trouble::EightBit, "8BITMIME"),
            (needs.require_tls && !require_tls, Trouble::NoRequireTls, "REQUIRETLS"),
        ];
        if let Some((_, trouble, name)) = wants.into_iter().find(|(missing, _, _)| *missing) {
            return Some((trouble, format!("{host} does not offer {name}")));
        }
        if !needs.require_tls {
            return None;
        }
        let dnssec = if let Some(MxFacts::Hosts(_, dnssec)) = facts.mx {
            self.trust(*dnssec)
        } else {
            Dnssec::Unchecked
        };
        let unproved = judge::require_tls(&self.asked, met, dnssec, peer).err()?;
        let text = format!("REQUIRETLS asks that {host} proves itself: {unproved}");
        Some((Trouble::NoRequireTls, text))
    }

    /// All hosts were tried: what stands in the way, and is it time for something else?
    fn exhausted(&self, facts: &Facts<'_>) -> Route {
        let (obstacle, trouble) = obstacle(facts.tried, self.asked.level, facts.needs.require_tls);
        let place = self.place(facts);
        let host = trouble.map_or(place.as_str(), |t| t.host.as_str());
        match obstacle {
            Obstacle::Doubt => {
                let text = format!("What must be known of {host} could not be looked up.");
                self.wait(facts, Reason::DnsTrouble, (4, 3), text)
            }
            Obstacle::Ours => {
                let text = format!("A file that the policy for {place} names can't be used.");
                self.wait(facts, Reason::Ours, (3, 5), text)
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
                     {place} both promises that and proves itself."
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
        self.unmet(facts, text, trouble.map_or((7, 5), |t| level_status(t.trouble)))
    }

    /// The level can't be met now: patience for `otherwise_after`, then `otherwise`.
    fn unmet(&self, facts: &Facts<'_>, text: String, status: (u16, u16)) -> Route {
        let failing_since = facts.first_failed.unwrap_or(facts.now);
        let patient = facts.now.duration_since(failing_since) < self.otherwise_after;
        if patient && !facts.overdue {
            let status = EnhancedStatus::transient(status.0, status.1);
            return Route::Defer(self.why(Reason::LevelNotMet, text), status);
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

    /// Not now; no more once the time to deliver is over.
    fn wait(&self, facts: &Facts<'_>, reason: Reason, status: (u16, u16), text: String) -> Route {
        let status = EnhancedStatus::transient(status.0, status.1);
        if !facts.overdue {
            return Route::Defer(self.why(reason, text), status);
        }
        let text = format!("{text} The time to deliver it has run out.");
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

/// An entry's conditions at that level.
fn asked<'a>(facts: &Facts<'a>, policy: &'a Policy, level: Level) -> Asked<'a> {
    Asked {
        level,
        domain: facts.domain.as_str(),
        names: &policy.names,
        pins: &policy.pins,
        min_tls13: policy.min_tls13,
    }
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

/// True if a handshake may come about in which our certificate is asked for.
pub(super) fn shows_client(level: Level) -> bool {
    level != Level::Envelope && tls_use(level) != TlsUse::Never
}

pub(super) fn tls_use(level: Level) -> TlsUse {
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
        // Of a host that publishes nothing it asks no more than level `opportunistic`.
        | Level::Published
        | Level::Secure
        | Level::Verify => TlsUse::Always,
    }
}

#[cfg(test)]
mod tests;
