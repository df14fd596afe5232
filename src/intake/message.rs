//! What an SMTP transaction means at the [door](super::door), and what the door's answer is in SMTP.

use crate::{
    intake::door::{Envelope, Refusal},
    mail::{EnhancedStatus, Wishes},
    seal::{
        header::{ClientFacts, Needs},
        stream::HEADER_MAX,
    },
    smtp::{
        Reply,
        server::{MAX_ENVELOPE, Transaction},
    },
};
use std::net::IpAddr;

/// The envelope of a transaction, from that client over that TLS.
pub(super) fn envelope(transaction: Transaction, client: IpAddr, tls: Option<&str>) -> Envelope {
    // What the machine accepted can be sealed, beside all that is known of the message.
    const { assert!(MAX_ENVELOPE + 256 * 1024 <= HEADER_MAX) };
    let with = protocol(&transaction, tls.is_some()).to_owned();
    let wishes = Wishes::new(transaction.ret, &transaction.recipient_dsn, &transaction.recipients);
    let (helo, tls) = (transaction.helo, tls.map(str::to_owned));
    Envelope {
        sender: transaction.sender,
        recipients: transaction.recipients,
        client: Some(ClientFacts { helo, address: client, with, tls }),
        needs: Needs {
            eight_bit: transaction.eight_bit,
            smtputf8: transaction.smtputf8,
            require_tls: transaction.require_tls,
        },
        envelope_id: transaction.envelope_id,
        wishes,
    }
}

/// RFC 3848, RFC 6531 §4.3: the `with` of the Received field.
fn protocol(transaction: &Transaction, tls: bool) -> &'static str {
    match (transaction.smtputf8, transaction.esmtp, tls) {
        (true, _, true) => "UTF8SMTPS",
        (true, _, false) => "UTF8SMTP",
        (false, true, true) => "ESMTPS",
        (false, true, false) => "ESMTP",
        (false, false, _) => "SMTP",
    }
}

/// The reply that refuses.
pub(super) fn reply(refusal: Refusal) -> Reply {
    match refusal {
        Refusal::Full => {
            Reply::new(452, EnhancedStatus::transient(3, 1), "Insufficient system storage")
        }
        Refusal::NotStored => Reply::new(
            451,
            EnhancedStatus::transient(3, 0),
            "The message could not be stored, try again later",
        ),
        Refusal::Busy => Reply::new(
            451,
            EnhancedStatus::transient(3, 2),
            "Too much mail at once, try again later",
        ),
        // RFC 5321 §6.3
        Refusal::Loop => Reply::new(
            554,
            EnhancedStatus::permanent(4, 6),
            "Too many hops, this message is in a loop",
        ),
        Refusal::Rule => {
            Reply::new(550, EnhancedStatus::permanent(7, 1), "Message refused by local policy")
        }
        // RFC 3463 §3.7: other or undefined media error.
        Refusal::Pickup => Reply::new(
            550,
            EnhancedStatus::permanent(6, 0),
            "The field X-Restante-Pickup is not understood",
        ),
    }
}
