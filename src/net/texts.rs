//! Text messages by an HTTP service of the operator's: JSON with `to` and `text`, answered by 2xx.

use super::https::{HttpsClient, over, request, taken};
use crate::wire::{Texts, Web, WebError, WebPlace};
use async_trait::async_trait;
use bytes::Bytes;
use hyper::Method;
use serde::Serialize;
use std::{net::IpAddr, time::Duration};
use tokio::{net::TcpStream, time::timeout};

const JSON: &str = "application/json";
/// For the whole of an exchange on loopback.
const PATIENCE: Duration = Duration::from_secs(10);

/// The service of `notification.sms`.
#[derive(Debug)]
pub struct TextService {
    place: WebPlace,
    /// `None`: plain HTTP on loopback.
    https: Option<HttpsClient>,
}

#[derive(Serialize)]
struct Message<'a> {
    to: &'a str,
    text: &'a str,
}

impl TextService {
    /// A service at an `https` URL.
    pub const fn secured(place: WebPlace, https: HttpsClient) -> Self {
        Self { place, https: Some(https) }
    }

    /// A service on this host, spoken to in plain HTTP; `None` if the place is elsewhere.
    pub fn on_loopback(place: WebPlace) -> Option<Self> {
        let here = place.host == "localhost"
            || place.host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
        here.then_some(Self { place, https: None })
    }

    async fn post_plain(&self, body: Bytes) -> Result<(), WebError> {
        let (host, port) = (self.place.host.as_str(), self.place.port.unwrap_or(80));
        let question = request(Method::POST, &self.place, Some(JSON), body)?;
        let exchange = async {
            let lost = |e: std::io::Error| WebError::Unreachable(e.to_string());
            let stream = TcpStream::connect((host, port)).await.map_err(lost)?;
            over(stream, question, taken).await.map(drop)
        };
        let late = |_| WebError::TimedOut(PATIENCE.as_secs());
        timeout(PATIENCE, Box::pin(exchange)).await.map_err(late)?
    }
}

#[async_trait]
impl Texts for TextService {
    async fn send(&self, to: &str, text: &str) -> Result<(), WebError> {
        let body = serde_json::to_vec(&Message { to, text })
            .map_err(|_| WebError::Answer("a text can't be written as JSON".to_owned()))?;
        match &self.https {
            Some(https) => https.post(&self.place, JSON, Bytes::from(body)).await.map(drop),
            None => self.post_plain(Bytes::from(body)).await,
        }
    }
}
