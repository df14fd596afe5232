//! A message in transfer: sealed, scanned and indexed as it passes.

use crate::{
    intake::{Intake, busy, limits::Refused, limits::weight, memory::Share, put_off},
    mail::{
        EnhancedStatus, QueueId, ReversePath, Wishes,
        header::HeaderScan,
        parts::{Indexer, PartIndex},
    },
    policy::{RuleAction, RuleFacts, RuleVerdict},
    seal::{
        header::{Class, ClientFacts, MessageFacts, Needs},
        stream::HEADER_MAX,
    },
    smtp::{
        Reply,
        server::{MAX_ENVELOPE, Transaction},
    },
    store::queue::SMALL,
    vault::{Deposit, VaultError},
};
use std::net::IpAddr;

/// RFC 5321 §6.3: more `Received` fields than this are a loop.
const MAX_HOPS: usize = 50;
/// Content read at once at first: a small message comes whole.
const PORTION: usize = 16 * 1024;
/// Content read at once of a large one.
const LARGE_PORTION: usize = 64 * 1024;
/// A portion is held so many times at most: as it was read, as it waits for the machine, as the
/// machine gives it.
const COPIES: usize = 3;
/// An envelope is held so many times: by the transaction, by the deposit, in the sealed header.
const ENVELOPES: usize = 3;

/// A message whose content is on its way.
pub(super) struct Incoming<'a> {
    intake: &'a Intake,
    id: QueueId,
    transaction: Transaction,
    client: IpAddr,
    deposit: Deposit,
    scan: HeaderScan,
    indexer: Indexer,
    high_bytes: bool,
    portion: usize,
    /// What its recipients weigh.
    envelope: usize,
    share: Share,
}

impl<'a> Incoming<'a> {
    /// Opens its deposit; `Err` is the reply that refuses it.
    pub(super) async fn begin(
        intake: &'a Intake,
        transaction: Transaction,
        client: IpAddr,
        tls: Option<&str>,
    ) -> Result<Self, Reply> {
        // What the machine accepted can be sealed, beside all that is known of the message.
        const { assert!(MAX_ENVELOPE + 256 * 1024 <= HEADER_MAX) };
        if let Some(reply) = intake.pressure() {
            return Err(reply);
        }
        let facts = facts(intake, &transaction, client, tls);
        let id = facts.id;
        let deposit = intake
            .vault
            .deposit(facts, transaction.recipients.clone())
            .map_err(|error| failed(id, &error))?;
        let recipients: usize = transaction.recipients.iter().map(weight).sum();
        let mut incoming = Self {
            intake,
            id,
            transaction,
            client,
            deposit,
            scan: HeaderScan::default(),
            indexer: Indexer::default(),
            high_bytes: false,
            portion: PORTION,
            envelope: recipients.saturating_mul(ENVELOPES),
            share: intake.memory.share(),
        };
        incoming.find_room().await?;
        Ok(incoming)
    }

    /// How much content is to be read at once.
    pub(super) fn portion(&self) -> usize {
        self.portion
    }

    /// The next piece of content.
    pub(super) async fn write(&mut self, content: &[u8]) -> Result<(), Reply> {
        self.scan.feed(content);
        self.indexer.feed(content);
        self.high_bytes |= !content.is_ascii();
        self.deposit.write(content).await.map_err(|error| failed(self.id, &error))?;
        if self.deposit.size() > PORTION as u64 && self.portion < LARGE_PORTION {
            let more = (LARGE_PORTION - PORTION).saturating_mul(COPIES);
            if self.share.fit_easily(self.held().saturating_add(more)) {
                self.portion = LARGE_PORTION;
            }
        }
        self.find_room().await
    }

    /// Bytes that the message takes here.
    fn held(&self) -> usize {
        let buffers = self.portion.saturating_mul(COPIES);
        let read = self.scan.held().saturating_add(self.indexer.held());
        buffers
            .saturating_add(self.envelope)
            .saturating_add(read)
            .saturating_add(self.deposit.held())
    }

    /// Sees to it that there is memory for what is held. Where there is none, sealed bytes leave for
    /// their file; what can't leave waits a while, so that many messages at once slow each other
    /// down rather than the machine.
    async fn find_room(&mut self) -> Result<(), Reply> {
        let large = self.deposit.size() > SMALL as u64;
        let held = self.held();
        let fits = if large { self.share.fit_easily(held) } else { self.share.fit(held) };
        if fits {
            return Ok(());
        }
        if self.deposit.size() > 0 {
            self.deposit.spill().await.map_err(|error| failed(self.id, &error))?;
        }
        if self.share.wait(self.held()).await {
            return Ok(());
        }
        self.intake.limits.counts.count(Refused::Memory);
        tracing::warn!(id = %self.id, "no memory is left for a message; it was put off");
        Err(busy())
    }

    /// The content has ended: judged, made durable, committed. Only then is there an id to answer
    /// with.
    pub(super) async fn commit(self) -> Result<QueueId, Reply> {
        // RFC 5321 §6.3
        if self.scan.received_count() > MAX_HOPS {
            let status = EnhancedStatus::permanent(4, 6);
            return Err(Reply::new(554, status, "Too many hops, this message is in a loop"));
        }
        let (id, size) = (self.id, self.deposit.size());
        let (index, fields) = (self.indexer.finish(), self.scan.finish());
        let rule = self.intake.policies.current().judge(&RuleFacts {
            sender: &self.transaction.sender,
            recipients: &self.transaction.recipients,
            fields: &fields,
            size,
            attachments: &attachment_names(&index),
        });
        if rule.action == RuleAction::Reject {
            let at = rule.rule.map(|(file, line)| format!("{file}:{line}"));
            tracing::info!(%id, client = %self.client, rule = at, "refused by a message rule");
            let status = EnhancedStatus::permanent(7, 1);
            return Err(Reply::new(550, status, "Message refused by local policy"));
        }
        let finished = self.deposit.finish(&index).await.map_err(|error| failed(id, &error))?;
        let mut message = finished.message;
        message.facts.message_id = fields.message_id();
        message.facts.sender_name = fields.from_name();
        message.facts.rule = rule;
        message.facts.needs.eight_bit |= self.high_bytes;
        let accepted = self.intake.queue.accept(message).await;
        accepted.map_err(|error| failed(id, &VaultError::Store(error)))?;
        log_accepted(id, &self.transaction, size, self.client);
        Ok(id)
    }
}

/// What is known before the content: sealed in front of it. The rules have not spoken yet, so it is
/// protected.
fn facts(
    intake: &Intake,
    transaction: &Transaction,
    client: IpAddr,
    tls: Option<&str>,
) -> MessageFacts {
    let now = intake.vault.clock.now();
    MessageFacts {
        id: intake.vault.clock.new_id(),
        class: Class::Protected,
        sender: transaction.sender.clone(),
        arrived: now,
        message_id: None,
        client: Some(ClientFacts {
            helo: transaction.helo.clone(),
            address: client,
            with: protocol(transaction, tls.is_some()).to_owned(),
            tls: tls.map(str::to_owned),
        }),
        needs: Needs {
            eight_bit: transaction.eight_bit,
            smtputf8: transaction.smtputf8,
            require_tls: transaction.require_tls,
        },
        envelope_id: transaction.envelope_id.clone(),
        sender_name: None,
        grant: None,
        rule: RuleVerdict::protected(),
        wishes: Wishes::new(transaction.ret, &transaction.recipient_dsn, &transaction.recipients),
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

fn attachment_names(index: &PartIndex) -> Vec<String> {
    index.attachments().filter_map(|part| part.name.clone()).collect()
}

/// A failure of ours: the log says what, the client only that it may try again.
fn failed(id: QueueId, error: &VaultError) -> Reply {
    tracing::error!(%id, %error, "a message could not be taken");
    put_off(error)
}

fn log_accepted(id: QueueId, transaction: &Transaction, size: u64, client: IpAddr) {
    let from = domain_only(&transaction.sender);
    let nrcpt = transaction.recipients.len();
    tracing::info!("{id}: from=<{from}>, size={size}, nrcpt={nrcpt}, client=[{client}]");
}

/// Local parts are people; the log does without.
fn domain_only(sender: &ReversePath) -> String {
    sender.as_ref().map(|address| format!("…@{}", address.domain())).unwrap_or_default()
}
