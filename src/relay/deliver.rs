//! One attempt: the way is found, and where it is a cleared connection the content streams over it.
//! What arrives is the message as it came in, with one `Received` field before it, and nothing else
//! unless policy asks it (`mark`, `strip`).

use super::{
    Relay, bounded,
    outcome::{self, Fate, Lost, TEXT_MAX},
    pace::Contact,
    pool::Pooled,
    route::{Search, Way},
};
use crate::{
    mail::{
        EnhancedStatus,
        header::{Received, SubjectTagStrip},
    },
    policy::{Clearance, PeerFacts, Reason, Why},
    seal::Class,
    smtp::{ClientTransaction, RecipientReply},
    store::{Attempt, Claim, RecipientRow},
    vault::{Content, VaultError},
    wire::{SendError, Source},
};
use async_trait::async_trait;
use bytes::Bytes;

/// What an attempt came to.
#[derive(Debug)]
pub(super) struct Verdict {
    /// For each recipient of the claim, in order: its fate and the record of the attempt that
    /// decided it.
    pub(super) fates: Vec<(Fate, Option<Attempt>)>,
    /// Attempts before that, common to all.
    pub(super) attempts: Vec<Attempt>,
    /// The attempt broke off by a fault of the program.
    pub(super) broke: bool,
    /// What was learnt of the domain's hosts.
    pub(super) contact: Contact,
    /// The connection that brought the message. It carries no other before this one's outcome is
    /// written: so what a crash may repeat is one transaction of each connection.
    pub(super) used: Option<Box<Pooled>>,
}

impl Verdict {
    /// The same for every recipient.
    pub(super) fn all(claim: &Claim, fate: &Fate, attempts: Vec<Attempt>) -> Self {
        let fates = claim.recipients.iter().map(|_| (fate.clone(), None)).collect();
        Self { fates, attempts, broke: false, contact: Contact::None, used: None }
    }
}

/// Works one claim out: routes it, and delivers where that is the route.
pub(super) async fn attempt(relay: &Relay, claim: &Claim) -> Verdict {
    let received = received(relay, claim);
    let size = claim.message.size.saturating_add(u64::try_from(received.len()).unwrap_or(0));
    let mut search = Search::new(relay, claim, size);
    let (fates, attempts) = fates(relay, claim, &received, &mut search).await;
    search.leave_alone();
    Verdict { fates, attempts, broke: false, contact: search.contact, used: search.used }
}

/// A fate for each recipient, with the record of the attempt that decided it; and the attempts
/// before.
type Fates = (Vec<(Fate, Option<Attempt>)>, Vec<Attempt>);

async fn fates(relay: &Relay, claim: &Claim, received: &str, search: &mut Search<'_>) -> Fates {
    if let Some(fate) = for_inside_alone(relay, claim) {
        return (claim.recipients.iter().map(|_| (fate.clone(), None)).collect(), Vec::new());
    }
    let mut put_off: Option<PutOff> = None;
    loop {
        let way = search.way().await;
        // Where no host takes it, one that answered says more than those that could not be used.
        if let Some(answers) = put_off.take_if(|_| !matches!(way, Way::Direct(..))) {
            return answers.fates(std::mem::take(&mut search.attempts));
        }
        let fate = match way {
            Way::Direct(clearance, pooled) => {
                let shipment = Shipment { relay, claim, clearance: *clearance, received };
                match shipment.send(*pooled, search).await {
                    Sent::Done(fates) => return (fates, std::mem::take(&mut search.attempts)),
                    Sent::Onwards => continue,
                    Sent::PutOff(answers) => {
                        put_off = Some(answers);
                        continue;
                    }
                    Sent::All(fate) => fate,
                }
            }
            Way::Envelope(why) => sealed(claim, search.doubts_the_line(&why), why),
            Way::Defer(why, status) => Fate::Deferred { why, status },
            Way::Reject(why, status) => Fate::Failed { why, status },
        };
        let all = claim.recipients.iter().map(|_| (fate.clone(), None)).collect();
        return (all, std::mem::take(&mut search.attempts));
    }
}

/// Only a customer's message is sealed for pickup; a notice of a notice would be no help to
/// anybody.
fn sealed(claim: &Claim, doubt: bool, why: Why) -> Fate {
    match claim.message.facts.class {
        Class::Protected => Fate::Sealed { why, doubt },
        Class::Notice | Class::Code | Class::Report | Class::TlsReport => {
            Fate::ours(why.policy, "a message of our own was to be sealed for pickup")
        }
    }
}

/// A report that names a grant may hold the phrase that opens it. Where its domain is not, or no
/// longer, one of our own, it goes nowhere.
fn for_inside_alone(relay: &Relay, claim: &Claim) -> Option<Fate> {
    let facts = &claim.message.facts;
    let secret = facts.class == Class::Report && facts.grant.is_some();
    let outside = secret && !relay.settings().organization.contains(&claim.domain);
    outside.then(|| {
        let set = relay.ports().policies.current();
        let policy = set.lookup(&claim.domain, relay.now()).at.clone();
        Fate::ours(policy, "a report for inside alone, and its domain is not one of our own")
    })
}

/// The one trace field that a relay adds (RFC 5321 §4.4). Mail of our own came from nobody, and
/// carries none. The recipient is named where this copy goes to one only, so that no copy tells of
/// another recipient.
fn received(relay: &Relay, claim: &Claim) -> String {
    let facts = &claim.message.facts;
    let Some(client) = &facts.client else { return String::new() };
    let recipient = match claim.recipients.as_slice() {
        [only] => Some(&only.address),
        _ => None,
    };
    Received {
        helo: &client.helo,
        client: client.address,
        by: &relay.settings().hostname,
        with: &client.with,
        tls: client.tls.as_deref(),
        id: facts.id,
        recipient,
        at: facts.arrived,
    }
    .to_field()
}

/// A host put all recipients off, and the next is tried (RFC 5321 §5.1).
struct PutOff {
    fates: Vec<(Fate, Option<Attempt>)>,
    /// Where the search recorded that it left this host.
    left: usize,
}

impl PutOff {
    /// Its own record goes with the fates.
    fn fates(self, mut attempts: Vec<Attempt>) -> Fates {
        if self.left < attempts.len() {
            attempts.remove(self.left);
        }
        (self.fates, attempts)
    }
}

enum Sent {
    /// The peer answered for each recipient.
    Done(Vec<(Fate, Option<Attempt>)>),
    /// The peer put every recipient off; another host may take them.
    PutOff(PutOff),
    /// The connection was lost before the host could have taken the message: there are others.
    Onwards,
    /// One fate for all.
    All(Fate),
}

/// A message with its clearance.
struct Shipment<'a> {
    relay: &'a Relay,
    claim: &'a Claim,
    clearance: Clearance,
    received: &'a str,
}

impl Shipment<'_> {
    async fn send(self, mut pooled: Pooled, search: &mut Search<'_>) -> Sent {
        let facts = pooled.peer.facts().clone();
        let content = match self.open(&facts).await {
            Ok(content) => content,
            Err(error) => {
                self.relay.pool().part(pooled);
                return Sent::All(self.vault_trouble(&error));
            }
        };
        let head = self.head();
        let transaction = self.transaction(&head);
        let strip = self.claim.message.facts.rule.strip.as_deref();
        let mut wire = Wire::new(head, content, strip);
        let sent = pooled.peer.send(transaction, &mut wire).await;
        // Content that does not open is our trouble: the next host would not fare better.
        if let Some(error) = wire.trouble {
            return Sent::All(self.vault_trouble(&error));
        }
        if pooled.used && outcome::of_old_connection(&sent) {
            search.again(&pooled);
            return Sent::Onwards;
        }
        search.contact = outcome::of_contact(&sent);
        match sent {
            Ok(replies) => {
                let sent = self.answered(&facts, &replies, search);
                match sent {
                    Sent::Done(_) => search.used = Some(Box::new(pooled)),
                    Sent::PutOff(_) | Sent::Onwards | Sent::All(_) => {
                        self.relay.pool().keep(pooled)
                    }
                }
                sent
            }
            Err(error) => self.lost(&facts, &error, search),
        }
    }

    /// Protected content opens for this clearance and this connection only; mail of our own by the
    /// other door.
    async fn open(&self, peer: &PeerFacts) -> Result<Content, VaultError> {
        let (message, to) = (&self.claim.message, &self.claim.recipients);
        let vault = &self.relay.ports().vault;
        match message.facts.class {
            Class::Protected => {
                vault.open_cleared(message, to, &self.clearance, peer.connection).await
            }
            Class::Notice | Class::Code | Class::Report | Class::TlsReport => {
                vault.open_notice(message, to).await
            }
        }
    }

    /// What goes before the content: the trace field, and the policy's mark.
    fn head(&self) -> Bytes {
        let mut head = self.received.to_owned();
        if let Some(mark) = self.clearance.mark() {
            head.push_str(mark);
            head.push_str("\r\n");
        }
        Bytes::from(head)
    }

    fn transaction(&self, head: &Bytes) -> ClientTransaction {
        let message = &self.claim.message;
        let facts = &message.facts;
        let recipients = &self.claim.recipients;
        // ENVID, RET, NOTIFY and ORCPT are the sender's (RFC 3461 §4); what stands there in mail of
        // our own is our own note.
        let (envelope_id, ret, recipient_dsn) = match facts.class {
            Class::Protected => {
                let of = |row: &RecipientRow| facts.wishes.of(row.index, &row.address);
                let dsn = recipients.iter().map(of).collect();
                (facts.envelope_id.clone(), facts.wishes.ret(), dsn)
            }
            Class::Notice | Class::Code | Class::Report | Class::TlsReport => {
                (None, None, Vec::new())
            }
        };
        ClientTransaction {
            sender: facts.sender.clone(),
            recipients: recipients.iter().map(|r| r.address.clone()).collect(),
            size: message.size.saturating_add(u64::try_from(head.len()).unwrap_or(0)),
            eight_bit: facts.needs.eight_bit,
            smtputf8: facts.needs.smtputf8,
            require_tls: facts.needs.require_tls,
            envelope_id,
            ret,
            recipient_dsn,
        }
    }

    fn vault_trouble(&self, error: &VaultError) -> Fate {
        tracing::error!(id = %self.claim.message.facts.id, "message can't be opened: {error}");
        outcome::of_vault(error, self.clearance.why().policy.clone())
    }

    fn answered(
        &self,
        peer: &PeerFacts,
        replies: &[RecipientReply],
        search: &mut Search<'_>,
    ) -> Sent {
        let why = self.clearance.why();
        let base = search.record(peer, self.clearance.verified());
        let fates = (0..self.claim.recipients.len()).map(|i| match replies.get(i) {
            Some(reply) => {
                let text = bounded(reply.reply.to_string(), TEXT_MAX);
                let attempt = Attempt { reply: Some(text), ..base.clone() };
                (outcome::of_reply(reply, &peer.host, why), Some(attempt))
            }
            None => {
                let text = "the session ended without an answer for this recipient";
                let attempt = Attempt { error: Some(text.to_owned()), ..base.clone() };
                (Fate::ours(why.policy.clone(), text), Some(attempt))
            }
        });
        let fates: Vec<_> = fates.collect();
        if !outcome::all_put_off(replies) {
            return Sent::Done(fates);
        }
        let left = search.attempts.len();
        let text = replies.first().map(|r| r.reply.to_string()).unwrap_or_default();
        search.leave(peer, crate::policy::Trouble::Unreachable, text);
        Sent::PutOff(PutOff { fates, left })
    }

    fn lost(&self, peer: &PeerFacts, error: &SendError, search: &mut Search<'_>) -> Sent {
        let (lost, trouble) = outcome::of_lost(error);
        search.leave(peer, trouble, error.text.clone());
        match lost {
            Lost::NextHost => Sent::Onwards,
            Lost::Later => {
                let text = format!(
                    "{} did not answer after the whole message; it may arrive twice: {}",
                    peer.host, error.text
                );
                let why = Why {
                    reason: Reason::Unreachable,
                    text: bounded(text, TEXT_MAX),
                    policy: self.clearance.why().policy.clone(),
                };
                // RFC 3463 §3.5: bad connection.
                Sent::All(Fate::Deferred { why, status: EnhancedStatus::transient(4, 2) })
            }
        }
    }
}

/// The wire's content: what goes before, then the opened message, without a rule's tag in its
/// Subject where the rule asks that.
struct Wire {
    head: Option<Bytes>,
    content: Content,
    strip: Option<SubjectTagStrip>,
    ended: bool,
    trouble: Option<VaultError>,
}

impl Wire {
    fn new(head: Bytes, content: Content, tag: Option<&str>) -> Self {
        let head = Some(head).filter(|h| !h.is_empty());
        Self { head, content, strip: tag.map(SubjectTagStrip::new), ended: false, trouble: None }
    }

    /// The next piece; empty where the filter holds everything back for now.
    async fn piece(&mut self) -> Result<Option<Bytes>, VaultError> {
        if self.ended {
            return Ok(None);
        }
        let Some(piece) = self.content.next().await? else {
            self.ended = true;
            return Ok(self.strip.take().map(|strip| {
                let mut rest = Vec::new();
                strip.finish(&mut rest);
                rest.into()
            }));
        };
        let Some(strip) = &mut self.strip else { return Ok(Some(piece)) };
        let mut kept = Vec::with_capacity(piece.len());
        strip.feed(&piece, &mut kept);
        Ok(Some(kept.into()))
    }
}

#[async_trait]
impl Source for Wire {
    async fn next(&mut self) -> Result<Option<Bytes>, String> {
        if let Some(head) = self.head.take() {
            return Ok(Some(head));
        }
        loop {
            match self.piece().await {
                Ok(Some(piece)) if piece.is_empty() => {}
                Ok(piece) => return Ok(piece),
                Err(error) => {
                    let text = error.to_string();
                    self.trouble = Some(error);
                    return Err(text);
                }
            }
        }
    }
}
