//! Listening: bound or a clear reason, then a task for each connection.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

/// How long accepting rests after an error of ours (no file descriptor left), so that it does not
/// spin.
const REST: Duration = Duration::from_millis(100);

/// An address that could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error("{0} is taken: another program listens there")]
    Taken(SocketAddr),
    /// No right to it.
    #[error("{0}: ports below 1024 need root or CAP_NET_BIND_SERVICE")]
    NotPermitted(SocketAddr),
    /// No such address here.
    #[error("{0} is no address of this machine")]
    NotHere(SocketAddr),
    /// Anything else.
    #[error("{0} cannot be listened on: {1}")]
    Other(SocketAddr, io::Error),
}

/// Connections that wait to be accepted; the kernel holds it to `net.core.somaxconn`. Where a crowd
/// comes at once, the first SYN of each for whom there is no room is lost, and a second with it.
const BACKLOG: u32 = 1024;

/// Binds an address.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    listener(address).map_err(|error| {
        let kind = error.kind();
        if kind == io::ErrorKind::AddrInUse {
            BindError::Taken(address)
        } else if kind == io::ErrorKind::PermissionDenied {
            BindError::NotPermitted(address)
        } else if kind == io::ErrorKind::AddrNotAvailable {
            BindError::NotHere(address)
        } else {
            BindError::Other(address, error)
        }
    })
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart does not wait for what the last run's connections left behind.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts until `stop`, a task for each connection; then closes the listener and returns when the
/// last connection has ended. A panic in one of them is logged and touches no other. Dropping the
/// future ends all of them.
pub async fn serve<H, F>(listener: TcpListener, handler: H, stop: CancellationToken)
where
    H: Fn(TcpStream, SocketAddr) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let handler = Arc::new(handler);
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = sessions.join_next() => report(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    // Replies are small and waited for: no delay for the sake of fuller segments.
                    let _ = stream.set_nodelay(true);
                    let handler = Arc::clone(&handler);
                    sessions.spawn(async move { handler(stream, peer).await });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(REST).await;
                }
            },
        }
    }
    drop(listener);
    while let Some(ended) = sessions.join_next().await {
        report(ended);
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a session ended by a fault of ours; the others go on");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_taken_address_says_so() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let error = bind(address).unwrap_err();
        assert!(matches!(error, BindError::Taken(a) if a == address));
        assert_eq!(error.to_string(), format!("{address} is taken: another program listens there"));
        let elsewhere = bind("192.0.2.1:0".parse().unwrap()).unwrap_err();
        assert!(matches!(elsewhere, BindError::NotHere(_)), "{elsewhere}");
    }

    #[tokio::test]
    async fn a_panic_stays_in_its_session_and_stop_waits_for_the_last() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let echo = |mut stream: TcpStream, _| async move {
            let mut byte = [0];
            while stream.read_exact(&mut byte).await.is_ok() {
                assert!(byte[0] != b'!', "a fault");
                stream.write_all(&byte).await.unwrap();
            }
        };
        let serving = tokio::spawn(serve(listener, echo, stop.clone()));
        let mut good = TcpStream::connect(address).await.unwrap();
        let mut byte = [0];
        good.write_all(b"a").await.unwrap();
        good.read_exact(&mut byte).await.unwrap();
        let mut bad = TcpStream::connect(address).await.unwrap();
        bad.write_all(b"!").await.unwrap();
        assert!(matches!(bad.read(&mut byte).await, Ok(0) | Err(_)));
        stop.cancel();
        good.write_all(b"b").await.unwrap();
        good.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte, *b"b");
        assert!(!serving.is_finished());
        drop(good);
        serving.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
