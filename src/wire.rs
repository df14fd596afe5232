//! The ports to the network: what services ask of sockets and TLS. The adapter is `net`; tests
//! bring their own.
use crate::{
    policy::{HostTrouble, PeerFacts, Requirement},
    smtp::{ClientTransaction, RecipientReply},
    store::Attempt,
};
use async_trait::async_trait;
use bytes::Bytes;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};
use zeroize::Zeroizing;

/// A byte stream, plain or TLS.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Content to send, piece by piece; `None` at its authenticated end. An error means: do not
/// complete the transaction.
#[async_trait]
pub trait Source: Send {
    /// The next piece.
    async fn next(&mut self) -> Result<Option<Bytes>, String>;
}
/// Opens connections to next hops.
#[async_trait]
pub trait Connector: Send + Sync + std::fmt::Debug {
    /// Connects, greets, starts TLS as the requirement asks, greets again, and says what it saw.
    /// `if-offered` falls back to plaintext on a new connection by itself. Trouble comes with the
    /// attempt's record.
    async fn connect(
        &self,
        host: &str,
        address: SocketAddr,
        requirement: &Requirement,
    ) -> Result<Box<dyn Peer>, (HostTrouble, Box<Attempt>)>;
}
/// A connection ready for MAIL.
#[async_trait]
pub trait Peer: Send {
    /// What it proved.
    fn facts(&self) -> &PeerFacts;
    /// Carries a transaction out. `Err`: the connection was lost; the text says where,
    /// `after_content` if the whole content had been sent (the one case that may have delivered).
    async fn send(
        &mut self,
        transaction: ClientTransaction,
        content: &mut dyn Source,
    ) -> Result<Vec<RecipientReply>, SendError>;
    /// True if another transaction may begin: none is open, and the peer has neither closed nor said
    /// anything unasked.
    fn is_ready(&mut self) -> bool;
    /// QUIT and close.
    async fn quit(self: Box<Self>);
}
/// A lost transaction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct SendError {
    /// What happened.
    pub text: String,
    /// The final dot had been sent and no reply came.
    pub after_content: bool,
}
/// Starts TLS on an accepted connection.
#[async_trait]
pub trait TlsAccept: Send + Sync + std::fmt::Debug {
    /// Handshake as server; the stream and its description (`TLSv1.3 TLS_AES_256_GCM_SHA384
    /// X25519MLKEM768`).
    async fn accept(&self, plain: Box<dyn Stream>) -> std::io::Result<(Box<dyn Stream>, String)>;
}
/// Speaks HTTPS to hosts that proved their name by a chain to a trust anchor. No redirect is
/// followed, no cookie kept, no proxy asked, and plain HTTP never spoken; time and sizes are
/// bounded.
#[async_trait]
pub trait Web: Send + Sync + std::fmt::Debug {
    /// Fetches `https://HOST/PATH`; `path` begins with a slash. Anything but 200 is an error.
    async fn get(&self, host: &str, path: &str) -> Result<Page, WebError>;
    /// Posts `body`; the status, which is one of 2xx: anything else is an error. What the answer
    /// holds is not read.
    async fn post(&self, to: &WebPlace, content_type: &str, body: Bytes) -> Result<u16, WebError>;
}
/// Sends text messages to telephones.
#[async_trait]
pub trait Texts: Send + Sync + std::fmt::Debug {
    /// Hands a text to the service that sends it; `to` in the form of E.164. An error says nothing
    /// of number and text.
    async fn send(&self, to: &str, text: &str) -> Result<(), WebError>;
}
/// Asks services over HTTPS, on the same terms as [`Web`].
#[async_trait]
pub trait Api: Send + Sync + std::fmt::Debug {
    /// Puts a question; the page, whose status is 200: anything else is an error.
    async fn ask(&self, to: &WebPlace, question: Question) -> Result<Page, WebError>;
}
/// A question to a service. Says nothing of its secrets.
#[derive(Default)]
pub struct Question {
    /// Posted, in the form of `application/x-www-form-urlencoded`; without one the place is fetched.
    pub form: Option<Zeroizing<String>>,
    /// The `Authorization` field.
    pub authorization: Option<Zeroizing<String>>,
}
impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Question(..)")
    }
}
/// What a host served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Lower case, without its parameters; empty if it said none.
    pub media_type: String,
    /// The body.
    pub body: Bytes,
}
/// An `https` URL in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebPlace {
    /// Name or address.
    pub host: String,
    /// The one for HTTPS if none.
    pub port: Option<u16>,
    /// Path and query; begins with a slash.
    pub path: String,
}
/// Why HTTPS brought nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebError {
    /// The host has no address.
    #[error("{0}")]
    Dns(String),
    /// DNS could not say whether it has one.
    #[error("{0}")]
    Doubt(String),
    /// It has addresses only where the gateway must not go.
    #[error("{0}")]
    Refused(String),
    /// No connection, or it was lost.
    #[error("{0}")]
    Unreachable(String),
    /// The certificate does not prove the host.
    #[error("TLS: {0}")]
    Tls(String),
    /// The answer's status.
    #[error("the answer has status {0}")]
    Status(u16),
    /// The answer is no HTTP, or too large; or the question can't be put.
    #[error("{0}")]
    Answer(String),
    /// It took too long.
    #[error("no whole answer within {0} seconds")]
    TimedOut(u64),
}
