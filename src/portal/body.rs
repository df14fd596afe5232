//! Bodies of requests without a session: little of them is read, in a short time, and all of them
//! together hold a bounded part of memory.

use super::routes::MAX_FORM;
use axum::{
    body::{Body, BodyDataStream},
    http::StatusCode,
    response::Response,
};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

/// How long the body of a request without a session is waited for.
const TIME: Duration = Duration::from_secs(30);
/// Bytes of each such body that cost nothing of the budget: a form of ours has less, and the number of
/// connections bounds their sum. So long letters never keep anybody from signing in.
const FREE: usize = 4 * 1024;
/// Bytes that all such bodies may hold together beyond that.
const BUDGET: usize = 32 * 1024 * 1024;
/// What is taken out of the budget at least.
const UNIT: usize = 4 * 1024;

/// Memory for bodies of requests without a session.
#[derive(Debug)]
pub(super) struct Budget(Arc<Semaphore>);

impl Default for Budget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BUDGET / UNIT)))
    }
}

/// What came of a body within the bounds.
#[derive(Debug)]
pub(super) struct Beginning {
    pub(super) bytes: Bytes,
    /// Why that is not all of it.
    pub(super) broken: Option<StatusCode>,
    rest: BodyDataStream,
    until: Instant,
    /// Given back once the request has its answer.
    held: Option<OwnedSemaphorePermit>,
}

impl Budget {
    /// Reads a body, at most [`MAX_FORM`] bytes of it.
    pub(super) async fn read(&self, body: Body) -> Beginning {
        let until = Instant::now() + TIME;
        let (mut rest, mut held, mut bytes) = (body.into_data_stream(), None, Vec::new());
        let broken = loop {
            let data = match timeout_at(until, rest.next()).await {
                Ok(Some(Ok(data))) => data,
                Ok(None) => break None,
                Ok(Some(Err(_))) => break Some(StatusCode::BAD_REQUEST),
                Err(_) => break Some(StatusCode::REQUEST_TIMEOUT),
            };
            let fitting = data.len().min(MAX_FORM - bytes.len());
            if !self.holds(&mut held, bytes.len() + fitting) {
                break Some(StatusCode::SERVICE_UNAVAILABLE);
            }
            bytes.extend_from_slice(data.get(..fitting).unwrap_or_default());
            if fitting < data.len() {
                break Some(StatusCode::PAYLOAD_TOO_LARGE);
            }
        };
        Beginning { bytes: bytes.into(), broken, rest, until, held }
    }

    /// True if so many bytes may be held.
    fn holds(&self, held: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> bool {
        let have = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let units = bytes.saturating_sub(FREE).div_ceil(UNIT).saturating_sub(have);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let Ok(more) = Arc::clone(&self.0).try_acquire_many_owned(units) else { return false };
        match held {
            Some(held) => held.merge(more),
            none => *none = Some(more),
        }
        true
    }

    /// Takes all of it.
    #[cfg(test)]
    pub(super) fn exhaust(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.0).try_acquire_many_owned((BUDGET / UNIT) as u32).unwrap()
    }
}

impl Beginning {
    /// Answers at once and discards what still comes, within the time that the body has: a browser
    /// shows an answer only once it has sent everything, and would show none if the connection were
    /// reset meanwhile.
    pub(super) fn answered_by(self, page: Response) -> Response {
        let Self { mut rest, until, broken, held, .. } = self;
        drop(held);
        if broken != Some(StatusCode::PAYLOAD_TOO_LARGE) {
            return page;
        }
        let discarding = stream::once(async move {
            while matches!(timeout_at(until, rest.next()).await, Ok(Some(Ok(_)))) {}
            stream::empty()
        });
        let (parts, body) = page.into_parts();
        let body = body.into_data_stream().chain(discarding.flatten());
        Response::from_parts(parts, Body::from_stream(body))
    }
}
