//! A least rate. Time counts only while the peer is waited for.

use super::{Refused, places::Place};
use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame, SizeHint};
use std::{
    error::Error,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

/// How long a peer may stand still. Bytes that move earn time back, up to this.
const GRACE: Duration = Duration::from_secs(60);

/// Whether bytes move at a least rate: a bucket of time that waiting drains and bytes fill.
#[derive(Debug)]
pub(super) struct Pace {
    rate: u64,
    left: Duration,
    waiting_since: Option<Instant>,
    /// Made at the first wait: most connections never wait.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// Bytes a second; 0: any pace will do.
    pub(super) const fn new(rate: u64) -> Self {
        Self { rate, left: GRACE, waiting_since: None, alarm: None }
    }

    /// So many bytes have moved.
    pub(super) fn moved(&mut self, bytes: usize) {
        if let Some(since) = self.waiting_since.take() {
            self.left = self.left.saturating_sub(since.elapsed());
        }
        let millis = (bytes as u64).saturating_mul(1000).checked_div(self.rate);
        let earned = millis.map_or(GRACE, Duration::from_millis);
        self.left = self.left.saturating_add(earned).min(GRACE);
    }

    /// Asked while nothing moves: ready once that has taken too long.
    pub(super) fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.rate == 0 {
            return Poll::Pending;
        }
        let left = self.left;
        let is_new = self.waiting_since.is_none();
        let until = *self.waiting_since.get_or_insert_with(Instant::now) + left;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if is_new {
            alarm.as_mut().reset(until);
        }
        alarm.as_mut().poll(context)
    }
}

/// A connection that ends where its peer reads too slowly, or where its place is needed. What was read
/// ahead of it comes first.
#[derive(Debug)]
pub struct PacedStream {
    stream: TcpStream,
    read_ahead: Bytes,
    writing: Pace,
    place: Place,
}

impl PacedStream {
    pub(super) fn new(stream: TcpStream, read_ahead: Vec<u8>, writing: Pace, place: Place) -> Self {
        Self { stream, read_ahead: read_ahead.into(), writing, place }
    }

    /// What became of a write.
    fn paced(
        &mut self,
        wrote: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match &wrote {
            Poll::Ready(Ok(bytes)) => self.writing.moved(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                ready!(self.writing.poll_late(context));
                self.place.count(Refused::Rate);
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        wrote
    }
}

impl AsyncRead for PacedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.place.poll_ended(context)?;
        if !self.read_ahead.is_empty() {
            let bytes = self.read_ahead.len().min(into.remaining());
            into.put_slice(&self.read_ahead.split_to(bytes));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for PacedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.place.poll_ended(context)?;
        let wrote = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.paced(wrote, context)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.place.poll_ended(context)?;
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.paced(wrote, context)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A body that breaks off where it comes too slowly.
#[derive(Debug)]
pub struct PacedBody<B> {
    body: B,
    pace: Pace,
}

impl<B> PacedBody<B> {
    /// `rate`: bytes a second; 0: any pace will do.
    pub const fn new(body: B, rate: u64) -> Self {
        Self { body, pace: Pace::new(rate) }
    }
}

impl<B> Body for PacedBody<B>
where
    B: Body + Unpin,
    B::Error: Error + Send + Sync + 'static,
{
    type Data = B::Data;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.pace.moved(frame.data_ref().map_or(0, Buf::remaining));
        }
        if polled.is_pending() {
            ready!(self.pace.poll_late(context));
            let late = io::Error::from(io::ErrorKind::TimedOut);
            return Poll::Ready(Some(Err(late.into())));
        }
        polled.map_err(Into::into)
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, StreamBody};
    use std::{convert::Infallible, future::poll_fn};
    use tokio::time::{advance, timeout};

    async fn is_late(pace: &mut Pace, within: u64) -> bool {
        timeout(Duration::from_secs(within), poll_fn(|cx| pace.poll_late(cx))).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn standing_still_has_an_end_and_bytes_earn_time() {
        let mut pace = Pace::new(1000);
        assert!(!is_late(&mut pace, 59).await, "a minute is given in advance");
        assert!(is_late(&mut pace, 2).await);

        let mut pace = Pace::new(1000);
        for _ in 0..100 {
            assert!(!is_late(&mut pace, 10).await);
            pace.moved(10_000);
        }
        assert!(!is_late(&mut pace, 59).await, "exactly the least rate costs nothing");

        let mut pace = Pace::new(1000);
        let mut seconds = 0;
        while !is_late(&mut pace, 10).await {
            pace.moved(5000);
            seconds += 10;
        }
        assert!(
            (100..=130).contains(&seconds),
            "half the rate: the minute lasts two, not {seconds}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_waits_for_the_peer_is_free() {
        let mut pace = Pace::new(1000);
        for _ in 0..10 {
            assert!(!is_late(&mut pace, 1).await);
            pace.moved(1000);
            advance(Duration::from_secs(600)).await;
        }
        pace.moved(usize::MAX);
        assert!(!is_late(&mut pace, 59).await);
        assert!(is_late(&mut pace, 2).await, "no more than a minute is saved up");
        assert!(!is_late(&mut Pace::new(0), 1_000_000).await, "0 is no limit");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_breaks_off_and_a_slow_one_does_not() {
        for (bytes, pieces, is_whole) in [(100, 100, false), (10_000, 100, true), (100, 5, true)] {
            let trickle = futures_util::stream::unfold(0, move |sent| async move {
                tokio::time::sleep(Duration::from_secs(10)).await;
                let piece = Frame::data(Bytes::from(vec![0; bytes]));
                (sent < pieces).then_some((Ok::<_, Infallible>(piece), sent + 1))
            });
            let body = PacedBody::new(Box::pin(StreamBody::new(trickle)), 1000);
            assert_eq!(body.collect().await.is_ok(), is_whole, "{bytes} bytes in ten seconds");
        }
    }
}
