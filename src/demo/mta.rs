//! The organisation's own mail server: hands letters to the gateway, as Postfix would with
//! `relayhost`.

use super::{
    letters::{Letter, PARTNER, SENDER, STRANGER},
    tell::{Failure, Told, within},
};
use crate::{
    clock::SystemClock,
    mail::QueueId,
    net::{Dialer, DialerSettings, Timeouts, TrustAnchors},
    policy::{Requirement, TlsUse},
    smtp::ClientTransaction,
    wire::{Connector, Source},
};
use async_trait::async_trait;
use bytes::Bytes;
use std::{net::SocketAddr, path::PathBuf, sync::Arc};

/// Content in one piece.
struct Whole(Option<Bytes>);

#[async_trait]
impl Source for Whole {
    async fn next(&mut self) -> Result<Option<Bytes>, String> {
        Ok(self.0.take())
    }
}

/// Hands one letter in, for both recipients; the queue id from the reply.
pub(super) async fn hand_in(
    gateway: SocketAddr,
    anchors: &TrustAnchors,
    letter: &Letter,
) -> Told<QueueId> {
    let wrong = |text: &str| Failure::new(format!("the gateway did not take a letter: {text}"));
    let address = |text: &str| text.parse().map_err(Failure::at(text));
    let settings = DialerSettings {
        hostname: "mta.example.org".parse().map_err(Failure::at("mta.example.org"))?,
        anchors: anchors.clone(),
        timeouts: Timeouts::default(),
        refuse_networks: Vec::new(),
        ca_dir: PathBuf::new(),
    };
    let transaction = ClientTransaction {
        sender: Some(address(SENDER)?),
        recipients: vec![address(PARTNER)?, address(STRANGER)?],
        size: u64::try_from(letter.content.len()).unwrap_or(u64::MAX),
        eight_bit: false,
        smtputf8: false,
        require_tls: false,
        envelope_id: None,
        ret: None,
        recipient_dsn: Vec::new(),
    };
    let mut content = Whole(Some(Bytes::copy_from_slice(&letter.content)));
    let dialer = Dialer::new(settings, Arc::new(SystemClock));
    let in_the_open = Requirement { tls: TlsUse::Never, ..Requirement::default() };
    let sending = async {
        let connected = dialer.connect("gw.example.org", gateway, &in_the_open).await;
        let mut peer = connected.map_err(|(trouble, _)| wrong(&trouble.detail))?;
        let replies = peer.send(transaction, &mut content).await;
        peer.quit().await;
        replies.map_err(|error| wrong(&error.text))
    };
    let replies = within("the gateway's reply to a letter", sending).await??;
    let refused = replies.iter().find(|reply| !reply.delivered);
    match (refused, replies.first()) {
        (None, Some(first)) => queue_id(&first.reply.to_string()),
        (Some(refused), _) => Err(wrong(&refused.reply.to_string())),
        (None, None) => Err(wrong("no reply")),
    }
}

/// The ID of `250 2.0.0 Ok: queued as ID`.
fn queue_id(reply: &str) -> Told<QueueId> {
    let id = reply.rsplit_once("queued as ").map(|(_, id)| id.trim());
    let id = id.ok_or_else(|| Failure::new(format!("no queue id in the reply `{reply}`")))?;
    id.parse().map_err(Failure::at(reply))
}
