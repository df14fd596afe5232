//! HTTPS as client, for the little that the gateway fetches and posts: one request a connection.

use crate::{
    clock::Clock,
    dns::{Addresses, Resolver},
    net::{
        bounded,
        trust::{TrustAnchors, https_config},
    },
    wire::{Api, Page, Question, Web, WebError, WebPlace},
};
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Incoming},
    client::conn::http1,
    header::{self, HeaderValue},
};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use rustls::{ClientConfig, Error as TlsError, pki_types::ServerName};
use std::{
    collections::VecDeque,
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use zeroize::Zeroizing;

/// Largest body that is read (RFC 8461 §3.3 suggests it for policies).
const MAX_BODY: usize = 64 * 1024;
/// Largest head of an answer.
const MAX_HEAD: usize = 32 * 1024;
/// Addresses of a host that are tried.
const ADDRESSES_MAX: u32 = 4;

/// What all requests have in common.
#[derive(Debug, Clone)]
pub struct HttpsSettings {
    /// `delivery.trust_anchors`
    pub anchors: TrustAnchors,
    /// `delivery.refuse_networks`
    pub refuse_networks: Vec<IpNet>,
    /// Where a URL names no port.
    pub port: u16,
    /// For everything from the look-up of the host to the last byte of the answer.
    pub patience: Duration,
}

impl HttpsSettings {
    /// Port 443, and a minute of patience (RFC 8461 §3.3).
    pub const fn new(anchors: TrustAnchors, refuse_networks: Vec<IpNet>) -> Self {
        Self { anchors, refuse_networks, port: 443, patience: Duration::from_secs(60) }
    }
}

/// Fetches and posts. What it knows of a host it learns anew for every request.
#[derive(Debug)]
pub struct HttpsClient {
    settings: HttpsSettings,
    resolver: Arc<dyn Resolver>,
    tls: Arc<ClientConfig>,
}

type Answer = Result<Response<Incoming>, WebError>;

impl HttpsClient {
    /// A client.
    ///
    /// # Errors
    /// The provider of ciphers can't do what is asked of it.
    pub fn new(
        settings: HttpsSettings,
        resolver: Arc<dyn Resolver>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, WebError> {
        let tls = https_config(&settings.anchors, clock);
        let tls = Arc::new(tls.map_err(|e| WebError::Tls(e.to_string()))?);
        Ok(Self { settings, resolver, tls })
    }

    /// Puts one question, and has `read` take what it wants of the answer, all within the time.
    async fn exchange<T>(
        &self,
        place: &WebPlace,
        request: Request<Full<Bytes>>,
        read: impl AsyncFnOnce(Response<Incoming>) -> Result<T, WebError>,
    ) -> Result<T, WebError> {
        let patience = self.settings.patience;
        let exchange = async {
            let stream = self.connect(place).await?;
            over(stream, request, read).await
        };
        let late = |_| WebError::TimedOut(patience.as_secs());
        timeout(patience, Box::pin(exchange)).await.map_err(late)?
    }

    /// TCP and TLS with the first address that gets so far. A certificate that does not prove the
    /// host ends the matter; all else may be this address's alone.
    async fn connect(&self, place: &WebPlace) -> Result<TlsStream<TcpStream>, WebError> {
        let name = ServerName::try_from(place.host.clone())
            .map_err(|_| WebError::Answer("the URL's host is no host name".to_owned()))?;
        let port = place.port.unwrap_or(self.settings.port);
        let mut trouble = WebError::Dns("the host has no address".to_owned());
        let mut left: VecDeque<IpAddr> = self.addresses(&place.host).await?.into();
        while let Some(ip) = left.pop_front() {
            if let Some(refused) = self.refused(ip) {
                trouble = refused;
                continue;
            }
            let address = SocketAddr::new(ip, port);
            // Nobody waits behind the last one.
            let parts = if left.is_empty() { 1 } else { ADDRESSES_MAX };
            let share = self.settings.patience / parts;
            trouble = match timeout(share, Box::pin(self.secured(address, name.clone()))).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(unproven @ WebError::Tls(_))) => return Err(unproven),
                Ok(Err(other)) => other,
                Err(_) => WebError::Unreachable(format!("{address}: no answer")),
            };
        }
        Err(trouble)
    }

    async fn secured(
        &self,
        address: SocketAddr,
        name: ServerName<'static>,
    ) -> Result<TlsStream<TcpStream>, WebError> {
        let lost = |what: &str, e: &std::io::Error| {
            WebError::Unreachable(format!("{address}: {what}{}", bounded(&e.to_string())))
        };
        let stream = TcpStream::connect(address).await.map_err(|e| lost("", &e))?;
        let tls = TlsConnector::from(Arc::clone(&self.tls));
        tls.connect(name, stream).await.map_err(|error| {
            if unproven(&error) {
                WebError::Tls(bounded(&error.to_string()))
            } else {
                lost("TLS handshake: ", &error)
            }
        })
    }

    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, WebError> {
        if let Ok(ip) = host.parse() {
            return Ok(vec![ip]);
        }
        match self.resolver.addresses(host).await {
            Addresses::Found(mut found) => {
                found.truncate(usize::try_from(ADDRESSES_MAX).unwrap_or(1));
                Ok(found)
            }
            Addresses::None => Err(WebError::Dns(format!("{host} has no address"))),
            Addresses::Trouble(why) => Err(WebError::Doubt(format!("{host}: {why}"))),
        }
    }

    /// A name that others publish must not lead the gateway into networks of its own.
    fn refused(&self, ip: IpAddr) -> Option<WebError> {
        let ip = ip.to_canonical();
        let network = self.settings.refuse_networks.iter().find(|network| network.contains(&ip))?;
        Some(WebError::Refused(format!("{ip} lies in {network} of delivery.refuse_networks")))
    }
}

/// Puts one question over a connection, and has `read` take what it wants of the answer.
pub(super) async fn over<T>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Full<Bytes>>,
    read: impl AsyncFnOnce(Response<Incoming>) -> Result<T, WebError>,
) -> Result<T, WebError> {
    let mut http = http1::Builder::new();
    http.max_buf_size(MAX_HEAD);
    let (mut sender, connection) =
        http.handshake(TokioIo::new(stream)).await.map_err(|e| lost(&e))?;
    // The connection moves the bytes; how it ends is told where the answer is read.
    let moving = Box::pin(async {
        drop(connection.await);
        std::future::pending::<Infallible>().await
    });
    let answer = async {
        let answer: Answer = sender.send_request(request).await.map_err(|e| lost(&e));
        read(answer?).await
    };
    tokio::select! {
        answer = answer => answer,
        never = moving => match never {},
    }
}

/// The status of an answer that took what was posted: one of 2xx.
pub(super) async fn taken(answer: Response<Incoming>) -> Result<u16, WebError> {
    match answer.status() {
        status if status.is_success() => Ok(status.as_u16()),
        status => Err(WebError::Status(status.as_u16())),
    }
}

/// True if the host showed a certificate that proves nothing, or none; a handshake that breaks off
/// says nothing of any certificate.
fn unproven(error: &std::io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<TlsError>());
    matches!(error, Some(TlsError::InvalidCertificate(_) | TlsError::NoCertificatesPresented))
}

fn lost(error: &hyper::Error) -> WebError {
    let text = bounded(&format!("the answer: {error}"));
    if error.is_parse() || error.is_parse_too_large() {
        WebError::Answer(text)
    } else {
        WebError::Unreachable(text)
    }
}

pub(super) fn request(
    method: Method,
    place: &WebPlace,
    content_type: Option<&str>,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, WebError> {
    let host =
        if place.host.contains(':') { format!("[{}]", place.host) } else { place.host.clone() };
    let host = place.port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
    let mut request = Request::builder()
        .method(method)
        .uri(place.path.as_str())
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("restante/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close");
    if let Some(content_type) = content_type {
        request = request.header(header::CONTENT_TYPE, content_type);
    }
    request.body(Full::new(body)).map_err(|e| WebError::Answer(format!("the URL: {e}")))
}

/// The body, up to its bound.
async fn page(answer: Response<Incoming>) -> Result<Page, WebError> {
    // Not even another 2xx, and no redirect (RFC 8461 §3.3).
    if answer.status() != StatusCode::OK {
        return Err(WebError::Status(answer.status().as_u16()));
    }
    let said = answer.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let media_type = said.unwrap_or_default().split(';').next().unwrap_or_default();
    let media_type = media_type.trim().to_ascii_lowercase();
    let too_large = || WebError::Answer(format!("the answer is larger than {MAX_BODY} bytes"));
    if usize::try_from(answer.body().size_hint().lower()).map_or(true, |least| least > MAX_BODY) {
        return Err(too_large());
    }
    match Limited::new(answer.into_body(), MAX_BODY).collect().await {
        Ok(body) => Ok(Page { media_type, body: body.to_bytes() }),
        Err(error) => match error.downcast_ref::<hyper::Error>() {
            Some(error) => Err(lost(error)),
            None => Err(too_large()),
        },
    }
}

#[async_trait]
impl Web for HttpsClient {
    async fn get(&self, host: &str, path: &str) -> Result<Page, WebError> {
        let place = WebPlace { host: host.to_owned(), port: None, path: path.to_owned() };
        let request = request(Method::GET, &place, None, Bytes::new())?;
        self.exchange(&place, request, page).await
    }

    async fn post(&self, to: &WebPlace, content_type: &str, body: Bytes) -> Result<u16, WebError> {
        let request = request(Method::POST, to, Some(content_type), body)?;
        self.exchange(to, request, taken).await
    }
}

#[async_trait]
impl Api for HttpsClient {
    async fn ask(&self, to: &WebPlace, question: Question) -> Result<Page, WebError> {
        let mut asked = match question.form {
            Some(form) => {
                // Zeroed once it is sent.
                let body = Bytes::from_owner(Secret(form));
                request(Method::POST, to, Some("application/x-www-form-urlencoded"), body)?
            }
            None => request(Method::GET, to, None, Bytes::new())?,
        };
        let headers = asked.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(authorization) = question.authorization {
            let mut value = HeaderValue::from_str(&authorization)
                .map_err(|_| WebError::Answer("a secret of strange characters".to_owned()))?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        self.exchange(to, asked, page).await
    }
}

/// Text that is zeroed after use.
struct Secret(Zeroizing<String>);
impl AsRef<[u8]> for Secret {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

#[cfg(test)]
mod tests;
