//! How the demo speaks: chapters, facts, and claims that are printed only if they hold.

use crate::cli::out;
use std::{fmt::Display, future::poll_fn, task::Poll, time::Duration};
use tokio::signal::unix::{SignalKind, signal};

/// Longer than anything here takes on a slow machine; who waits that long waits for nothing.
const PATIENCE: Duration = Duration::from_secs(30);

/// A claim that does not hold, or a part that does not come up.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Failure(String);

/// What a step of the demo brings.
pub(super) type Told<T = ()> = Result<T, Failure>;

impl Failure {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// For `map_err`: what was tried, and what came of it.
    pub(super) fn at<E: Display>(what: impl Display) -> impl FnOnce(E) -> Self {
        move |error| Self(format!("{what}: {error}"))
    }
}

/// A heading.
pub(super) fn chapter(title: impl Display) {
    out::line(format_args!("\n{title}"));
}

/// A name and what there is to say of it.
pub(super) fn fact(name: &str, text: impl Display) {
    out::line(format_args!("  {name:<10}{text}"));
}

/// A line of somebody else's text.
pub(super) fn quote(text: &str) {
    out::line(format_args!("      | {text}").to_string().trim_end());
}

/// Says that something is so, or that it is not and the demo has failed.
pub(super) fn claim(holds: bool, text: impl Display) -> Told {
    if !holds {
        return Err(Failure(format!("this does not hold: {text}")));
    }
    out::line(format_args!("  ok  {text}"));
    Ok(())
}

/// Waits, but not for ever.
pub(super) async fn within<T>(what: &str, coming: impl Future<Output = T>) -> Told<T> {
    let seconds = PATIENCE.as_secs();
    tokio::time::timeout(PATIENCE, coming)
        .await
        .map_err(|_| Failure(format!("waited {seconds} s for {what}, and it did not come")))
}

/// The user's wish to end: Ctrl-C or SIGTERM.
pub(super) async fn interrupted() -> Told {
    let listen = |kind| signal(kind).map_err(Failure::at("signals"));
    let (mut interrupt, mut terminate) =
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    poll_fn(|cx| match (interrupt.poll_recv(cx), terminate.poll_recv(cx)) {
        (Poll::Pending, Poll::Pending) => Poll::Pending,
        (Poll::Ready(_), _) | (_, Poll::Ready(_)) => Poll::Ready(()),
    })
    .await;
    Ok(())
}
