//! Fetching a policy (RFC 8461 §3.3), and leaving a host alone that did not serve one.

use super::{
    FETCHES, Inner,
    kept::{Kept, later},
    locked,
};
use crate::{
    mail::Domain,
    policy::{StsFault, StsFaultKind, StsPolicy},
    wire::{Page, WebError},
};
use jiff::Timestamp;
use std::collections::HashMap;
use tokio::time::timeout;

/// Where a policy lies on the host `mta-sts.DOMAIN` (RFC 8461 §3.3).
const PATH: &str = "/.well-known/mta-sts.txt";
/// How long no other fetch is tried for the same domain and id, in seconds (RFC 8461 §3.3: five
/// minutes or more).
const BACK_OFF: u64 = 300;
/// Failures remembered.
const FAILURES: usize = 10_000;

/// The last failure of each domain.
#[derive(Debug, Default)]
pub(super) struct Failures(HashMap<Domain, Failure>);
#[derive(Debug)]
struct Failure {
    id: String,
    until: Timestamp,
    why: StsFault,
}

/// Why there is no policy to be had now.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotFetched {
    /// The domain's host does not serve one.
    #[error("{0}")]
    Fault(StsFault),
    /// Nobody knows what it serves: DNS did not say where it is, or it could not be asked.
    #[error("{0}")]
    Doubt(String),
}

impl Failures {
    /// Why that policy was not to be had the last time, however long ago.
    pub(super) fn last(&self, domain: &Domain, id: &str) -> Option<StsFault> {
        self.0.get(domain).filter(|failure| failure.id == id).map(|failure| failure.why.clone())
    }

    /// Why that policy is not to be fetched now.
    fn of(&self, domain: &Domain, id: &str, now: Timestamp) -> Option<StsFault> {
        let failure = self.0.get(domain)?;
        let rests = failure.id == id && now < failure.until;
        let text = || format!("{}; the next try comes after {}", failure.why, failure.until);
        rests.then(|| StsFault { kind: failure.why.kind, text: text() })
    }

    fn note(&mut self, domain: &Domain, failure: Failure, now: Timestamp) {
        if self.0.len() >= FAILURES && !self.0.contains_key(domain) {
            self.0.retain(|_, failure| now < failure.until);
        }
        if self.0.len() >= FAILURES {
            let first = self.0.iter().min_by_key(|(_, failure)| failure.until);
            let first = first.map(|(domain, _)| domain.clone());
            first.and_then(|first| self.0.remove(&first));
        }
        self.0.insert(domain.clone(), failure);
    }
}

impl Inner {
    /// Fetches the policy announced under that id, and keeps it.
    pub(super) async fn fetch(&self, domain: &Domain, id: &str) -> Result<StsPolicy, NotFetched> {
        let before = self.ports.clock.now();
        if let Some(why) = locked(&self.failures).of(domain, id, before) {
            return Err(NotFetched::Fault(why));
        }
        let fetched = self.fetch_now(domain, id).await;
        let now = self.ports.clock.now();
        match fetched {
            Ok(policy) => {
                locked(&self.failures).0.remove(domain);
                tracing::info!(%domain, id, mode = ?policy.mode, max_age = policy.max_age,
                    "MTA-STS policy fetched");
                self.keep(domain.as_str(), &Kept::new(policy.clone(), now)).await;
                Ok(policy)
            }
            Err(error) => {
                tracing::warn!(%domain, id, %error, "MTA-STS policy not fetched");
                // Who was not asked did not fail.
                if let NotFetched::Fault(why) = &error {
                    let until = later(now, BACK_OFF);
                    let failure = Failure { id: id.to_owned(), until, why: why.clone() };
                    locked(&self.failures).note(domain, failure, now);
                }
                Err(error)
            }
        }
    }

    async fn fetch_now(&self, domain: &Domain, id: &str) -> Result<StsPolicy, NotFetched> {
        let host = format!("mta-sts.{domain}");
        let fault = |kind, text| NotFetched::Fault(StsFault { kind, text });
        let Ok(Ok(_permit)) = timeout(self.waits.turn, self.fetches.acquire()).await else {
            let text = format!("{FETCHES} other MTA-STS policies are being fetched");
            return Err(NotFetched::Doubt(text));
        };
        let page = self.ports.web.get(&host, PATH).await;
        let Page { media_type, body } = page.map_err(|e| {
            let text = format!("https://{host}{PATH}: {e}");
            // "No address" is an answer, and DNS that does not answer is none.
            match kind_of(&e) {
                Some(kind) => fault(kind, text),
                None => NotFetched::Doubt(text),
            }
        })?;
        // What is no text was not meant as a policy: a page that welcomes or excuses itself.
        if media_type != "text/plain" {
            let text = format!("https://{host}{PATH} is not text/plain");
            return Err(fault(StsFaultKind::Invalid, text));
        }
        StsPolicy::parse(id, &body).map_err(|why| {
            fault(StsFaultKind::Invalid, format!("the policy of {host} is no good: {why}"))
        })
    }
}

/// Whose fault it is; `None`: nobody's that is known.
fn kind_of(error: &WebError) -> Option<StsFaultKind> {
    match error {
        WebError::Tls(_) => Some(StsFaultKind::Webpki),
        WebError::Dns(_)
        | WebError::Refused(_)
        | WebError::Unreachable(_)
        | WebError::Status(_)
        | WebError::Answer(_)
        | WebError::TimedOut(_) => Some(StsFaultKind::Fetch),
        WebError::Doubt(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_bounded_and_the_oldest_goes_first() {
        let mut failures = Failures::default();
        let at = |n: usize| Timestamp::from_second(i64::try_from(n).unwrap()).unwrap();
        let name = |n: usize| format!("d{n}.test").parse::<Domain>().unwrap();
        let failure = |until| {
            let why = StsFault { kind: StsFaultKind::Fetch, text: "no".to_owned() };
            Failure { id: "1".to_owned(), until, why }
        };
        for n in 0..FAILURES + 5 {
            failures.note(&name(n), failure(at(n + 20_000)), at(0));
        }
        assert_eq!(failures.0.len(), FAILURES);
        assert!(failures.of(&name(4), "1", at(0)).is_none());
        assert!(failures.of(&name(5), "1", at(0)).is_some());
        failures.note(&name(1), failure(at(90_000)), at(80_000));
        assert_eq!(failures.0.len(), 1, "what is over makes room");
    }
}
