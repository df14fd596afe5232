//! How many attempts run at a time for each domain: few at first, one more for each that was
//! answered, half as many after one that reached nobody. So a host in trouble is left in peace, and
//! one that keeps up gets what `delivery.connections_per_domain` allows.

use crate::{mail::Domain, store::Room};
use std::{collections::HashMap, time::Duration};
use tokio::time::Instant;

/// Attempts at a time for a domain of which nothing is known.
const FIRST: usize = 5;
/// What was learnt of a domain is forgotten after this long without an attempt.
const MEMORY: Duration = Duration::from_secs(60);
/// Domains remembered, at most; those that are at work are never forgotten.
const DOMAINS_MAX: usize = 10_000;

/// What an attempt learnt of the domain's hosts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Contact {
    /// No host was spoken to.
    #[default]
    None,
    /// One answered.
    Answered,
    /// None could be reached, or it had no time for us (421).
    Refused,
}

/// Windows by domain.
#[derive(Debug)]
pub(super) struct Paces {
    most: usize,
    domains: HashMap<Domain, Pace>,
}

#[derive(Debug)]
struct Pace {
    window: usize,
    running: usize,
    last: Instant,
}

impl Pace {
    const fn room(&self) -> usize {
        self.window.saturating_sub(self.running)
    }
}

impl Paces {
    /// No domain gets more than `most` attempts at a time.
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), domains: HashMap::new() }
    }

    fn first(&self) -> usize {
        FIRST.min(self.most)
    }

    /// What there is room for, of each domain.
    pub(super) fn room(&mut self) -> Room {
        self.forget();
        let named = self.domains.iter().map(|(domain, pace)| (domain.clone(), pace.room()));
        Room { named: named.collect(), others: self.first() }
    }

    /// An attempt begins.
    pub(super) fn begin(&mut self, domain: &Domain) {
        let window = self.first();
        let fresh = || Pace { window, running: 0, last: Instant::now() };
        let pace = self.domains.entry(domain.clone()).or_insert_with(fresh);
        pace.running = pace.running.saturating_add(1);
    }

    /// An attempt has ended; true if there was no room before and is now.
    pub(super) fn end(&mut self, domain: &Domain, contact: Contact) -> bool {
        let Some(pace) = self.domains.get_mut(domain) else { return false };
        let before = pace.room();
        pace.running = pace.running.saturating_sub(1);
        pace.last = Instant::now();
        pace.window = match contact {
            Contact::None => pace.window,
            Contact::Answered => pace.window.saturating_add(1).min(self.most),
            Contact::Refused => (pace.window / 2).max(1),
        };
        before == 0 && pace.room() > 0
    }

    fn forget(&mut self) {
        let (first, crowded) = (self.first(), self.domains.len() > DOMAINS_MAX);
        let known = |pace: &Pace| !crowded && pace.window != first && pace.last.elapsed() < MEMORY;
        self.domains.retain(|_, pace| pace.running > 0 || known(pace));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain() -> Domain {
        "a.example".parse().unwrap()
    }
    fn room(paces: &mut Paces) -> usize {
        paces.room().of(&domain())
    }

    #[tokio::test(start_paused = true)]
    async fn the_window_follows_what_attempts_learn() {
        let mut paces = Paces::new(8);
        for (ends, window, why) in [
            (&[][..], 5, "nothing is known"),
            (&[Contact::Answered], 6, "one more"),
            (&[Contact::Answered; 9], 8, "never more than allowed"),
            (&[Contact::None; 3], 8, "who spoke to nobody learnt nothing"),
            (&[Contact::Refused], 4, "half"),
            (&[Contact::Refused; 9], 1, "one goes on trying"),
            (&[Contact::Answered], 2, "and finds out when it is well again"),
        ] {
            for contact in ends {
                paces.begin(&domain());
                paces.end(&domain(), *contact);
            }
            assert_eq!(room(&mut paces), window, "{why}");
        }
        tokio::time::advance(MEMORY).await;
        assert_eq!(room(&mut paces), 5, "what was is forgotten");
        assert!(paces.domains.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_runs_takes_room_and_its_end_gives_it_back() {
        let mut paces = Paces::new(2);
        paces.begin(&domain());
        assert_eq!(room(&mut paces), 1);
        paces.begin(&domain());
        assert_eq!(room(&mut paces), 0);
        assert!(paces.end(&domain(), Contact::None), "there is room again");
        assert!(!paces.end(&domain(), Contact::None), "there was");
        paces.begin(&domain());
        paces.begin(&domain());
        assert!(!paces.end(&domain(), Contact::Refused), "the window shrank: none came free");
        tokio::time::advance(MEMORY * 2).await;
        assert_eq!(room(&mut paces), 0, "what is at work is not forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_of_domains_is_forgotten_sooner() {
        let mut paces = Paces::new(8);
        for n in 0..=DOMAINS_MAX {
            let domain = format!("d{n}.example").parse().unwrap();
            paces.begin(&domain);
            paces.end(&domain, Contact::Answered);
        }
        paces.begin(&domain());
        assert_eq!(paces.room().named.len(), 1, "the one at work");
    }
}
