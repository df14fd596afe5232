//! What the operator does with sealed messages: look, extend, take back, export.

use super::{
    Answer, Refusal,
    server::{Control, MAX_PAGE, PATIENCE, no, ok, page, parse_id, unavailable},
    view::{DoubtView, Exported, Trusted, VaultDone, VaultLife, VaultRecipient},
};
use crate::{
    mail::{Address, Domain},
    store::{AuditKind, Grant, GrantState, MessageRow, RecipientState},
    vault::VaultError,
};
use jiff::SignedDuration;
use tokio::{io::AsyncWriteExt, net::unix::OwnedWriteHalf, time::timeout};

#[expect(clippy::needless_pass_by_value, reason = "map_err passes a value")]
fn not_now(error: VaultError) -> Answer {
    no(Refusal::TryAgain, error.to_string())
}

impl Control {
    /// A message and its grants; without a grant there is nothing of it in the vault.
    async fn kept(&self, id: &str) -> Result<(MessageRow, Vec<Grant>), Answer> {
        let id = parse_id(id)?;
        let found = self.queue.message(id).await.map_err(unavailable)?;
        let none = || no(Refusal::NotFound, format!("no message {id} waits for pickup"));
        let (message, rows) = found.ok_or_else(none)?;
        let mut grants = Vec::new();
        for row in rows {
            let RecipientState::Granted { grant, .. } = row.state else { continue };
            grants.extend(self.people.grant(grant).await.map_err(unavailable)?);
        }
        if grants.is_empty() { Err(none()) } else { Ok((message, grants)) }
    }

    pub(super) async fn vault_show(&self, id: &str) -> Result<Answer, Answer> {
        let (message, grants) = self.kept(id).await?;
        ok(&VaultLife {
            id: message.facts.id,
            sender: message.facts.sender.clone(),
            arrived: message.facts.arrived,
            size: message.size,
            recipients: grants.iter().map(VaultRecipient::from).collect(),
        })
    }

    pub(super) async fn vault_extend(&self, id: &str, seconds: i64) -> Result<Answer, Answer> {
        if seconds <= 0 {
            return Err(no(Refusal::Usage, "a time to add is longer than nothing".to_owned()));
        }
        let (message, grants) = self.kept(id).await?;
        let mut changed = Vec::new();
        for mut grant in grants.into_iter().filter(|grant| grant.state == GrantState::Live) {
            let later = grant.expires.checked_add(SignedDuration::from_secs(seconds));
            grant.expires = later.map_err(|error| no(Refusal::Usage, error.to_string()))?;
            self.people.update_grant(&grant).await.map_err(unavailable)?;
            changed.push(grant);
        }
        self.record_grants(AuditKind::MessageExtended, &changed).await;
        self.vault_done(&message, &changed, "has no live recipient any more: nothing to extend")
    }

    pub(super) async fn vault_recall(
        &self,
        id: &str,
        recipient: Option<&str>,
    ) -> Result<Answer, Answer> {
        let (message, mut grants) = self.kept(id).await?;
        if let Some(text) = recipient {
            let address = text.parse::<Address>().ok();
            grants.retain(|grant| address.as_ref() == Some(&grant.recipient));
            if grants.is_empty() {
                return Err(no(Refusal::NotFound, format!("{id} is not kept for {text}")));
            }
        }
        grants.retain(|grant| grant.state == GrantState::Live);
        let ids: Vec<_> = grants.iter().map(|grant| grant.id).collect();
        let withdrawn = self.vault.withdraw(&ids).await;
        withdrawn.map_err(not_now)?;
        // Only then is the answer true: what the store kept of it opens no more.
        self.vault.destroy_ended().await.map_err(unavailable)?;
        self.queue.checkpoint().await.map_err(unavailable)?;
        for grant in &mut grants {
            grant.state = GrantState::Withdrawn;
        }
        self.record_grants(AuditKind::MessageRecalled, &grants).await;
        self.vault_done(&message, &grants, "can be opened by nobody any more: nothing to recall")
    }

    pub(super) async fn vault_doubts(
        &self,
        after: Option<String>,
        max: usize,
    ) -> Result<Answer, Answer> {
        let max = max.clamp(1, MAX_PAGE);
        let doubts = self.vault.doubts(after.as_deref(), max).await.map_err(not_now)?;
        let next = doubts.last().filter(|_| doubts.len() == max);
        let next = next.map(|(domain, _)| domain.clone());
        page(doubts.into_iter().map(|(domain, doubt)| DoubtView { domain, doubt }), next)
    }

    pub(super) async fn vault_trust(&self, domain: &Domain, user: u32) -> Result<Answer, Answer> {
        if !self.vault.end_doubt(domain).await.map_err(not_now)? {
            return Err(no(Refusal::NotFound, format!("the line to {domain} is not in doubt")));
        }
        tracing::warn!(%domain, user, "the line is no longer in doubt, by the operator");
        ok(&Trusted { domain: domain.clone() })
    }

    /// One event for each grant.
    async fn record_grants(&self, kind: AuditKind, grants: &[Grant]) {
        for grant in grants {
            let event = self.audit.event(kind).account(&grant.recipient);
            self.audit.record(event.grant(grant.id).message(grant.message)).await;
        }
    }

    fn vault_done(
        &self,
        message: &MessageRow,
        changed: &[Grant],
        nothing: &str,
    ) -> Result<Answer, Answer> {
        let id = message.facts.id;
        if changed.is_empty() {
            return Err(no(Refusal::NotFound, format!("{id} {nothing}")));
        }
        ok(&VaultDone { id, recipients: changed.iter().map(VaultRecipient::from).collect() })
    }

    /// Answers with the size, then the message as it came in.
    pub(super) async fn vault_export(
        &self,
        id: &str,
        write: &mut OwnedWriteHalf,
    ) -> std::io::Result<()> {
        let opened = match self.kept(id).await {
            Ok((message, _)) => match self.vault.export(&message).await {
                Ok(content) => Ok((message, content)),
                Err(error) => Err(no(Refusal::NotFound, format!("{id}: {error}"))),
            },
            Err(refused) => Err(refused),
        };
        let (message, mut content) = match opened {
            Ok(opened) => opened,
            Err(refused) => return super::server::say(write, &refused).await,
        };
        let event = self.audit.event(AuditKind::MessageExported).message(message.facts.id);
        self.audit.record(event).await;
        let size = Exported { size: message.size };
        super::server::say(write, &ok(&size).unwrap_or_else(|refused| refused)).await?;
        loop {
            // Who gets too little sees it: the size was said before.
            let piece = content.next().await.map_err(std::io::Error::other)?;
            let Some(piece) = piece else { break };
            timeout(PATIENCE, write.write_all(&piece)).await??;
        }
        write.shutdown().await
    }
}
