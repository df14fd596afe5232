//! What was fetched of a provider, and for how long it is good.

use super::{OidcError, keys::Key};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;

/// Metadata and keys are kept for so long.
const KEPT: SignedDuration = SignedDuration::from_hours(1);
/// For so long nothing is fetched again after a fetch has failed, nor keys for one that is not among
/// those that were fetched.
pub(super) const REST: SignedDuration = SignedDuration::from_secs(30);

fn within(at: Timestamp, time: SignedDuration, now: Timestamp) -> bool {
    now.duration_since(at) < time
}

/// The answer of the last fetch.
#[derive(Debug)]
pub(super) struct Kept<T>(Option<(Timestamp, Result<T, OidcError>)>);
impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(None)
    }
}
impl<T: Clone> Kept<T> {
    /// The answer, as long as it is not to be fetched again.
    pub(super) fn fresh(&self, now: Timestamp) -> Option<Result<T, OidcError>> {
        let (at, answer) = self.0.as_ref()?;
        let time = if answer.is_ok() { KEPT } else { REST };
        within(*at, time, now).then(|| answer.clone())
    }
    /// Keeps an answer.
    pub(super) fn put(
        &mut self,
        now: Timestamp,
        answer: Result<T, OidcError>,
    ) -> Result<T, OidcError> {
        self.0 = Some((now, answer.clone()));
        answer
    }
    /// Whether the last fetch brought something; `None`: there was none.
    pub(super) fn last(&self) -> Option<Result<(), OidcError>> {
        let (_, answer) = self.0.as_ref()?;
        Some(answer.as_ref().map(|_| ()).map_err(Clone::clone))
    }
}

/// A provider's keys. A fetch that fails leaves those that are good in their place: an unknown `kid`
/// in one token must not end the sign-ins of all others.
#[derive(Debug, Default)]
pub(super) struct KeyCache {
    good: Option<(Timestamp, Arc<[Key]>)>,
    /// The last fetch, if it failed.
    failed: Option<(Timestamp, OidcError)>,
}
impl KeyCache {
    /// The keys, or why there are none, as long as they are not to be fetched; `anew` if a key was
    /// not among them.
    pub(super) fn fresh(
        &self,
        now: Timestamp,
        anew: bool,
    ) -> Option<Result<Arc<[Key]>, OidcError>> {
        let good = self.good.as_ref().filter(|(at, _)| within(*at, KEPT, now));
        let failed = self.failed.as_ref().filter(|(at, _)| within(*at, REST, now));
        match (good, failed) {
            (Some((_, keys)), _) if !anew => Some(Ok(Arc::clone(keys))),
            (_, Some((_, error))) => Some(Err(error.clone())),
            (Some((at, keys)), None) => within(*at, REST, now).then(|| Ok(Arc::clone(keys))),
            (None, None) => None,
        }
    }
    /// Keeps what a fetch brought.
    pub(super) fn put(
        &mut self,
        now: Timestamp,
        fetched: Result<Arc<[Key]>, OidcError>,
    ) -> Result<Arc<[Key]>, OidcError> {
        match &fetched {
            Ok(keys) => (self.good, self.failed) = (Some((now, Arc::clone(keys))), None),
            Err(error) => self.failed = Some((now, error.clone())),
        }
        fetched
    }
    /// Why the last fetch failed, if it did.
    pub(super) fn failure(&self) -> Option<OidcError> {
        self.failed.as_ref().map(|(_, error)| error.clone())
    }
}
