//! Granting: a recipient gets leave to open, and a notice that says so.

use super::{Channel, Vault, VaultError, random_secret};
use crate::{
    mail::{
        Address, GrantId, QueueId,
        header::HeaderScan,
        notice::{Waiting, own_words},
    },
    policy::Why,
    seal::{Class, LinkToken, MessageFacts, header::Needs},
    store::{Grant, GrantKind, GrantState, Locator, MessageRow, NewMessage},
};
use jiff::Timestamp;
use zeroize::Zeroizing;

impl Vault {
    /// Grants a message to a recipient: the grant, and the sealed notice with what the sender must
    /// know of the second channel, to go into one `settle`. It takes the decision's reason because
    /// there is no grant without one; the reason itself is kept with the recipient's row.
    pub async fn grant(
        &self,
        message: &MessageRow,
        recipient: &Address,
        _why: &Why,
        channel: Channel,
    ) -> Result<(Grant, Vec<NewMessage>), VaultError> {
        if message.body == Locator::Gone {
            return Err(VaultError::Gone);
        }
        let now = self.clock.now();
        let asked = self.asked(message, recipient, channel).await?;
        let token = LinkToken::from_random(random_secret());
        let grant = Grant {
            id: self.new_grant_id(),
            message: message.facts.id,
            recipient: recipient.clone(),
            token: token.hash(),
            sealed: now,
            expires: self.end_of_retention(),
            opened: None,
            state: GrantState::Live,
            kind: GrantKind::Received,
            origin: None,
            moved: None,
            proof: asked.proof.clone(),
        };
        let language = self.language_of(recipient).await?;
        let note = self.note(message).await;
        let notice =
            self.notice(message, &grant, &token, (language.as_deref(), note.as_deref()))?;
        let mut mail = vec![notice];
        mail.extend(self.report(message, &grant, &asked)?);
        Ok((grant, mail))
    }

    /// The author's own copy of a message written at the portal, to go into its `accept`. Kept as
    /// long as what is sealed for recipients, and no longer than the message that it forwards, if
    /// any; the link that a token would open is given to nobody.
    pub fn copy_for(&self, message: QueueId, author: &Address, forwarded: Option<&Grant>) -> Grant {
        let now = self.clock.now();
        let mut copy = Grant {
            id: self.new_grant_id(),
            message,
            recipient: author.clone(),
            token: LinkToken::from_random(random_secret()).hash(),
            sealed: now,
            expires: self.end_of_retention(),
            opened: Some(now),
            state: GrantState::Live,
            kind: GrantKind::Sent,
            origin: forwarded.map(|grant| grant.id),
            moved: None,
            // It holds the message that it forwards, and so asks for the same.
            proof: forwarded.and_then(|grant| grant.proof.clone()),
        };
        if forwarded.is_some() {
            copy.bound_by(forwarded);
        }
        copy
    }

    /// When what is sealed now expires.
    fn end_of_retention(&self) -> Timestamp {
        self.guard.latest().checked_add(self.notices.retention).unwrap_or(Timestamp::MAX)
    }

    /// What the sender wrote for the notice itself, where the operator has named a field for that.
    /// It is read from the sealed message when it is needed, and kept nowhere else. A notice must
    /// arrive: where the message can't be read now it goes without, and the portal shows both.
    async fn note(&self, message: &MessageRow) -> Option<String> {
        let name = self.notices.note.as_deref()?;
        let header = async {
            let (mut scan, mut content) =
                (HeaderScan::default(), self.open_whole(message, &[]).await?);
            while let Some(piece) = content.next().await? {
                scan.feed(&piece);
                if scan.is_over() {
                    break;
                }
            }
            Ok::<_, VaultError>(scan.finish())
        };
        match header.await {
            Ok(fields) => own_words(&fields, name),
            Err(error) => {
                let id = message.facts.id;
                tracing::warn!(%id, %error, "a notice goes without its sender's own words");
                None
            }
        }
    }

    fn notice(
        &self,
        message: &MessageRow,
        grant: &Grant,
        token: &LinkToken,
        (language, note): (Option<&str>, Option<&str>),
    ) -> Result<NewMessage, VaultError> {
        let settings = &self.notices;
        let base = settings.portal_url.trim_end_matches('/');
        let link = Zeroizing::new(format!("{base}/m/{}", token.expose()));
        let id = self.new_id();
        let waiting = Waiting {
            recipient: &grant.recipient,
            language,
            sender_name: message.facts.sender_name.as_deref(),
            // A report has no sender to name: the house itself stands in.
            sender: message.facts.sender.as_ref().unwrap_or(&settings.head.from),
            note,
            link: &link,
            check: &grant.token.check_code(),
            expires: grant.expires,
            asked: grant.proof.as_ref().map(|proof| proof.announced()),
            at: grant.sealed,
            id,
        };
        let text = Zeroizing::new(settings.templates.waiting(&settings.head, &waiting)?);
        let needs = Needs {
            eight_bit: !text.is_ascii(),
            smtputf8: grant.recipient.needs_smtputf8(),
            require_tls: false,
        };
        let mut facts = MessageFacts::own(id, Class::Notice, self.guard.latest(), needs);
        facts.grant = Some(grant.id);
        self.seal_own(facts, vec![grant.recipient.clone()], &text)
    }

    /// Takes grants back whose notice was refused; returns how many were live until now. The next
    /// sweep destroys the keys of messages that nobody else may open.
    pub async fn recall(&self, grants: &[GrantId]) -> Result<usize, VaultError> {
        self.end_grants(grants, GrantState::Recalled).await
    }

    /// As [`Vault::recall`], for grants that the sender's side takes back.
    pub async fn withdraw(&self, grants: &[GrantId]) -> Result<usize, VaultError> {
        self.end_grants(grants, GrantState::Withdrawn).await
    }

    async fn end_grants(&self, grants: &[GrantId], end: GrantState) -> Result<usize, VaultError> {
        let mut ended = 0;
        for id in grants {
            let Some(mut grant) = self.people.grant(*id).await? else { continue };
            if grant.state == GrantState::Live {
                grant.state = end;
                self.people.update_grant(&grant).await?;
                ended += 1;
            }
        }
        Ok(ended)
    }
}
