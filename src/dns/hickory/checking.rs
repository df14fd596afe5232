//! Whether answers can be checked at all. A name server that drops signatures would turn every
//! signed domain into a bogus one; so it is tried first, on the root, and while it does not do,
//! answers are taken as before and count as not checked.

use super::{
    HickoryResolver,
    anchors::Anchors,
    ask::{Answer, Asker, Voucher},
    config, link,
    link::Links,
    options,
};
use crate::policy::Dnssec;
use arc_swap::ArcSwapOption;
use hickory_resolver::{
    Resolver,
    config::NameServerConfig,
    proto::rr::{Name, RecordType},
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::Mutex, time::timeout};
use tokio_util::sync::CancellationToken;

/// One trial.
const TRIAL: Duration = Duration::from_secs(10);
/// Until the next one, while it fails.
const AGAIN: Duration = Duration::from_secs(60);
/// Until the next one, while it does not: the root's keys may have changed.
const REFRESH: Duration = Duration::from_secs(12 * 3600);

/// `dns.dnssec` and `dns.trust_anchor`.
#[derive(Debug, Clone)]
pub enum Validation {
    /// Nothing is checked.
    Off,
    /// The AD bit of a resolver on this host is believed.
    TrustAd,
    /// Signatures are checked here, from these anchors down.
    Validate(Anchors),
}

/// Whether answers are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// `dns.dnssec`
    pub dnssec: &'static str,
    /// Answers are checked.
    pub working: bool,
    /// In words: why not, or that they are.
    pub text: String,
}

pub(super) enum Verdict {
    Works(Asker),
    Fails(String),
}

pub(super) struct Checking {
    how: Validation,
    servers: Vec<NameServerConfig>,
    plain: Asker,
    verdict: ArcSwapOption<Verdict>,
    /// One trial at a time.
    turn: Mutex<()>,
}

impl Checking {
    /// `None`: nothing is to be checked.
    pub(super) fn new(
        how: Validation,
        servers: Vec<NameServerConfig>,
        plain: Asker,
    ) -> Option<Self> {
        if matches!(how, Validation::Off) {
            return None;
        }
        let verdict = ArcSwapOption::empty();
        Some(Self { how, servers, plain, verdict, turn: Mutex::new(()) })
    }

    /// The last verdict; the first one is waited for.
    pub(super) async fn verdict(&self) -> Arc<Verdict> {
        if let Some(verdict) = self.verdict.load_full() {
            return verdict;
        }
        let turn = self.turn.lock().await;
        let first = self.verdict.load_full();
        match first {
            Some(verdict) => verdict,
            None => self.try_it(&turn).await,
        }
    }

    /// Tries now, and says so in the log when the verdict changes.
    async fn try_it(&self, _turn: &tokio::sync::MutexGuard<'_, ()>) -> Arc<Verdict> {
        let tried = match timeout(TRIAL, self.trial()).await {
            Ok(tried) => tried,
            Err(_) => Err("no answer from the name servers in time".to_owned()),
        };
        let before = self.verdict.load_full();
        let worked = matches!(before.as_deref(), Some(Verdict::Works(_)));
        let verdict = Arc::new(match (tried, before) {
            (Ok(asker), _) => {
                if !worked {
                    tracing::info!(dnssec = self.word(), "answers of DNS are checked");
                }
                Verdict::Works(asker)
            }
            // It has worked: what fails now is the network, and bogus answers say so themselves.
            (Err(why), Some(before)) if worked => {
                tracing::warn!(%why, "DNSSEC could not be tried again");
                return before;
            }
            (Err(why), before) => {
                if before.is_none() {
                    tracing::error!(
                        dnssec = self.word(), %why, "DNSSEC can't be checked: {}", self.advice()
                    );
                }
                Verdict::Fails(why)
            }
        });
        self.verdict.store(Some(Arc::clone(&verdict)));
        verdict
    }

    /// Something that is there and something that is not, both of the root, must come with proof.
    async fn trial(&self) -> Result<Asker, String> {
        let asker = self.asker().await?;
        let root = Name::root();
        let (there, not_there) =
            tokio::join!(asker.ask(&root, RecordType::SOA), asker.ask(&root, RecordType::MX));
        match there {
            Answer::Found(found) if found.worth == Dnssec::Secure => {}
            Answer::Found(_) => return Err(self.unproved()),
            Answer::NoData(_) | Answer::NoName(_) => {
                return Err("the name server does not know the root".to_owned());
            }
            Answer::Trouble(text) => return Err(format!("the root's records: {text}")),
        }
        match not_there {
            Answer::NoData(Dnssec::Secure) => Ok(asker),
            Answer::Found(_) | Answer::NoData(_) | Answer::NoName(_) => Err(self.unproved()),
            Answer::Trouble(text) => Err(format!("a proof of absence from the root: {text}")),
        }
    }

    async fn asker(&self) -> Result<Asker, String> {
        let ad = match &self.how {
            Validation::Off | Validation::Validate(_) => false,
            Validation::TrustAd => {
                self.somebody_here()?;
                true
            }
        };
        let builder = Resolver::builder_with_config(config(&self.servers), Links::new(ad));
        let mut builder = builder.with_options(options());
        let mut voucher = Voucher::Resolver;
        if let Validation::Validate(anchors) = &self.how {
            voucher = Voucher::Signatures;
            let shown = match anchors.needs_keys() {
                true => self.plain.ask(&Name::root(), RecordType::DNSKEY).await,
                false => Answer::NoData(Dnssec::Unchecked),
            };
            let shown = match shown {
                Answer::Found(found) => found.records,
                Answer::NoData(_) | Answer::NoName(_) => Vec::new(),
                Answer::Trouble(text) => return Err(format!("the root's keys: {text}")),
            };
            let keys = anchors.with(&shown).ok_or(
                "the name server shows no key of the root that dns.trust_anchor stands for",
            )?;
            builder = builder.with_trust_anchor(Arc::new(keys));
        }
        let resolver = builder.build().map_err(|e| e.to_string())?;
        Ok(Asker { resolver, voucher })
    }

    /// AD is worth nothing from a name server elsewhere: whoever is on the way can set it.
    fn somebody_here(&self) -> Result<(), String> {
        let elsewhere: Vec<String> = self
            .servers
            .iter()
            .filter(|server| !link::is_here(server.ip))
            .map(|server| server.ip.to_string())
            .collect();
        if elsewhere.is_empty() {
            return Ok(());
        }
        Err(format!(
            "trust-ad believes a resolver on this host alone, and {} is not",
            elsewhere.join(", ")
        ))
    }

    fn unproved(&self) -> String {
        match self.how {
            Validation::TrustAd => "the resolver does not validate (its answers bear no AD bit)",
            Validation::Off | Validation::Validate(_) => {
                "the root's records come without proof from the name server"
            }
        }
        .to_owned()
    }

    fn word(&self) -> &'static str {
        match self.how {
            Validation::Off => "off",
            Validation::TrustAd => "trust-ad",
            Validation::Validate(_) => "validate",
        }
    }

    fn advice(&self) -> &'static str {
        match self.how {
            Validation::Off => "",
            Validation::TrustAd => {
                "mail at levels dane, dane-only and auto waits; name a validating resolver on this \
                 host in dns.nameservers, or set dns.dnssec = \"validate\""
            }
            Validation::Validate(_) => {
                "mail at levels dane, dane-only and auto waits; name a resolver in dns.nameservers \
                 that hands on signatures (Unbound, BIND, Knot Resolver), see that \
                 dns.trust_anchor is the root's, or set dns.dnssec = \"off\""
            }
        }
    }
}

impl HickoryResolver {
    /// Tries whether answers can be checked, at once and again: often while they can't, rarely while
    /// they can.
    pub async fn watch(&self, stop: CancellationToken) {
        if self.checking.is_none() {
            return;
        }
        loop {
            let tried = stop.run_until_cancelled(self.check_now()).await;
            let Some(health) = tried else { return };
            let pause = if health.working { REFRESH } else { AGAIN };
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Tries now whether answers can be checked.
    pub async fn check_now(&self) -> Health {
        if let Some(checking) = &self.checking {
            let turn = checking.turn.lock().await;
            checking.try_it(&turn).await;
        }
        self.health()
    }

    /// Whether answers are checked.
    pub fn health(&self) -> Health {
        let Some(checking) = &self.checking else {
            let text = "answers are not checked".to_owned();
            return Health { dnssec: "off", working: false, text };
        };
        let (working, text) = match checking.verdict.load().as_deref() {
            Some(Verdict::Works(_)) => (true, "answers are checked".to_owned()),
            Some(Verdict::Fails(why)) => (false, format!("{why}: {}", checking.advice())),
            None => (false, "not tried yet".to_owned()),
        };
        Health { dnssec: checking.word(), working, text }
    }
}
