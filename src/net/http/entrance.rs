//! Places are given where connections are accepted, and so in the order in which they came: their
//! tasks begin in any order, and the newest connection of a burst would be taken for the oldest.

use super::{Border, places::Place};
use std::{
    future::{Ready, ready},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};
use tower_service::Service;

/// Makes the service of each connection that finds a place; another one is closed.
#[derive(Debug, Clone)]
pub struct Entrance<S> {
    border: Border,
    service: S,
}

impl<S> Entrance<S> {
    pub(super) const fn new(border: Border, service: S) -> Self {
        Self { border, service }
    }
}

impl<S: Clone> Service<SocketAddr> for Entrance<S> {
    type Response = Entered<S>;
    type Error = io::Error;
    type Future = Ready<io::Result<Entered<S>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, peer: SocketAddr) -> Self::Future {
        ready(self.border.enter(peer.ip()).map_err(io::Error::from).map(|place| Entered {
            service: self.service.clone(),
            place: Arc::new(Mutex::new(Some(place))),
        }))
    }
}

/// The service of a connection, and its place. The server wants a service that can be cloned; the
/// place is taken out once, by [`Border`].
#[derive(Debug, Clone)]
pub struct Entered<S> {
    service: S,
    place: Arc<Mutex<Option<Place>>>,
}

impl<S> Entered<S> {
    pub(super) fn into_parts(self) -> io::Result<(S, Place)> {
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner).take();
        let place = place.ok_or_else(|| io::Error::other("a place that was taken already"))?;
        Ok((self.service, place))
    }
}

impl<R, S: Service<R>> Service<R> for Entered<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }
    fn call(&mut self, request: R) -> S::Future {
        self.service.call(request)
    }
}
