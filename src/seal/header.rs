//! The self-describing header of a sealed body: enough to bring back queue and vault from the
//! bodies alone.

use crate::{
    mail::{Address, GrantId, QueueId, ReversePath, Wishes, parts::PartIndex},
    policy::RuleVerdict,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// What a sealed body is, and so which channel may carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// A customer's message: goes out with a clearance only.
    Protected,
    /// The notice of a waiting message, made by us: the open channel takes it.
    Notice,
    /// A mailed code, made by us.
    Code,
    /// A delivery status notification, made by us.
    Report,
    /// A report on TLS (RFC 8460), made by us. It holds nothing of any message.
    TlsReport,
}
/// What is known of a message when it has arrived; stands in its row and, sealed, before its body.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MessageFacts {
    /// Queue id.
    pub id: QueueId,
    /// Class.
    pub class: Class,
    /// Reverse-path.
    pub sender: ReversePath,
    /// Time of arrival.
    pub arrived: Timestamp,
    /// Message-ID, for `trace`.
    pub message_id: Option<String>,
    /// Client: EHLO name, address, protocol (`ESMTPS`) and inbound TLS (`TLSv1.3
    /// TLS13_AES_256_GCM_SHA384`).
    pub client: Option<ClientFacts>,
    /// MAIL parameters and what the content needs.
    pub needs: Needs,
    /// ENVID (RFC 3461), decoded.
    pub envelope_id: Option<String>,
    /// The name in the From field, for the notice.
    #[serde(default)]
    pub sender_name: Option<String>,
    /// The grant that a notice tells of.
    #[serde(default)]
    pub grant: Option<GrantId>,
    /// What the rules said on arrival.
    pub rule: RuleVerdict,
    /// Message-IDs that it answers or follows (In-Reply-To, References), for conversations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<String>,
    /// What its sender wants to hear of delivery.
    #[serde(default, skip_serializing_if = "Wishes::is_none")]
    pub wishes: Wishes,
}

impl MessageFacts {
    /// Facts of a message of our own: null reverse-path (RFC 3834 section 3.3: what answers by
    /// itself must not be answered), made here, judged by no rule.
    pub fn own(id: QueueId, class: Class, arrived: Timestamp, needs: Needs) -> Self {
        Self {
            id,
            class,
            sender: None,
            arrived,
            message_id: None,
            client: None,
            needs,
            envelope_id: None,
            sender_name: None,
            grant: None,
            rule: RuleVerdict::protected(),
            references: Vec::new(),
            wishes: Wishes::default(),
        }
    }
}
/// Who handed the message in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientFacts {
    /// EHLO argument.
    pub helo: String,
    /// Address.
    pub address: IpAddr,
    /// RFC 3848 protocol.
    pub with: String,
    /// Inbound TLS, if any.
    pub tls: Option<String>,
}
/// What a next hop must offer to carry the message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// BODY=8BITMIME was declared, or the content has bytes above 127.
    pub eight_bit: bool,
    /// SMTPUTF8 was declared.
    pub smtputf8: bool,
    /// REQUIRETLS (RFC 8689) was asked.
    pub require_tls: bool,
}
/// The header frame: what is known before the content has come, and so is sealed before it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SealedHeader {
    /// The message, as its envelope describes it. What the content tells is in [`SealedIndex`].
    pub facts: MessageFacts,
    /// Its recipients.
    pub recipients: Vec<Address>,
}
/// The index frame: what is known once the content has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SealedIndex {
    /// The message as its row has it: Message-ID, references, From name, rule verdict and needs with
    /// the rest. `None` in format 1.
    #[serde(default)]
    pub facts: Option<MessageFacts>,
    /// The parts of the content.
    #[serde(flatten)]
    pub parts: PartIndex,
}
