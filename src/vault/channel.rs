//! The second channel of a grant: which one it gets, and what its sender is told of it.

use super::{Texting, Vault, VaultError, random_secret};
use crate::{
    language::{Text, say},
    mail::{Address, Domain, GrantId, Pickup, PickupWish, notice::ToldMail, pickup::comparable},
    seal::{Class, MessageFacts, header::Needs},
    store::{Account, Grant, MessageRow, NewMessage, Proof},
};
use jiff::Timestamp;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Words of a phrase that is made here: of 2,048 each, so 55 bits.
const WORDS: usize = 5;

/// Phrases that may be hashed or wait for it at a time, for grants: fewer than the relay has workers,
/// so that mail to other domains goes on.
pub(super) const PHRASES: usize = 128;

/// What a grant is to ask beyond the mailbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Channel {
    /// What the rule, the sender or the policy asks for.
    pub pickup: Pickup,
    /// Since when the line to the recipient's domain is in doubt.
    pub doubt: Option<Timestamp>,
}

/// Where the reports on second channels go.
#[derive(Debug)]
pub struct Insiders {
    /// `organization.domains`
    pub domains: Vec<Domain>,
    /// `organization.postmaster`: hears of messages whose sender is not inside.
    pub postmaster: Address,
}

/// A proof that is asked for, and the phrase that the sender must be told.
#[derive(Default)]
pub(super) struct Asked {
    pub(super) proof: Option<Proof>,
    phrase: Option<Zeroizing<String>>,
}

/// A report's first line.
fn waits(message: &MessageRow, grant: &Grant) -> Text {
    say!(
        "Your message to {address} of {date} waits for its reader on the protected page.",
        address = grant.recipient.to_string(),
        date = Text::Day(message.facts.arrived)
    )
}

/// A report's line before its phrase.
fn tell_the_phrase() -> Text {
    say!(
        "The reader is asked for the phrase below. Tell it by telephone or in person, and never by \
         e-mail."
    )
}

/// A phrase of English words, with a space between.
fn new_phrase() -> Zeroizing<String> {
    let (secret, list) = (random_secret(), bip39::Language::English.word_list());
    let mut phrase = Zeroizing::new(String::with_capacity(64));
    for pair in secret.chunks(2).take(WORDS) {
        let number = pair.iter().fold(0, |sum, byte| sum * 256 + usize::from(*byte));
        if !phrase.is_empty() {
            phrase.push(' ');
        }
        phrase.push_str(list.get(number % list.len()).copied().unwrap_or_default());
    }
    phrase
}

impl Proof {
    /// What the notice announces: the channel by which the reader proves himself first.
    pub(super) fn announced(&self) -> Pickup {
        if self.phrase.is_some() { Pickup::Phrase } else { self.kind }
    }

    /// What the reader will need, in a sentence for `trace` and delivery reports.
    pub(crate) fn sentence(&self) -> &'static str {
        match (self.kind, &self.phrase) {
            (Pickup::Code, Some(_)) => {
                "The line is in doubt: the reader needs the phrase that the sender was told, or an \
                 account from before the doubt, signed in without a mailed code."
            }
            (Pickup::Code, None) => {
                "The line is in doubt: the reader needs an account from before the doubt, signed in \
                 without a mailed code."
            }
            (Pickup::Phrase, _) => "The reader needs the phrase that the sender knows.",
            (Pickup::Sms, _) => "The reader needs a code that is sent by text message.",
            (Pickup::Passkey, Some(_)) => {
                "The reader needs the phrase that the sender was told, and a passkey from then on."
            }
            (Pickup::Passkey, None) => "The reader needs a passkey from before the message.",
        }
    }
}

impl Vault {
    /// What a grant asks beyond the mailbox. Where a line is in doubt and nothing else is asked, or
    /// what is asked can't be had, it is a phrase made here, told to the sender inside.
    pub(super) async fn asked(
        &self,
        message: &MessageRow,
        recipient: &Address,
        channel: Channel,
    ) -> Result<Asked, VaultError> {
        let Channel { pickup, doubt } = channel;
        if pickup.is_code() && doubt.is_none() {
            return Ok(Asked::default());
        }
        let wish = self.wish(message).await?;
        let given = wish.filter(|wish| wish.kind == pickup).and_then(|mut w| w.secret.take());
        let plain = Proof { kind: pickup, doubt, ..Proof::default() };
        match (pickup, given) {
            (Pickup::Phrase, Some(phrase)) => {
                let phrase = Some(self.phrase_hash(Zeroizing::new(phrase)).await?);
                Ok(Asked { proof: Some(Proof { phrase, ..plain }), phrase: None })
            }
            (Pickup::Sms, Some(_)) if self.texts.is_some() => {
                Ok(Asked { proof: Some(plain), phrase: None })
            }
            (Pickup::Sms, _) => self.made(message, Proof { kind: Pickup::Phrase, ..plain }).await,
            (Pickup::Passkey, _) if self.has_passkey(recipient).await? => {
                Ok(Asked { proof: Some(plain), phrase: None })
            }
            (Pickup::Code | Pickup::Phrase | Pickup::Passkey, _) => self.made(message, plain).await,
        }
    }

    /// A phrase made here, where an address inside can be told of it.
    async fn made(&self, message: &MessageRow, proof: Proof) -> Result<Asked, VaultError> {
        if self.told(message).is_none() {
            let id = message.facts.id;
            tracing::error!(%id, "no address inside can be told a phrase: only an account from before the doubt opens");
            return Ok(Asked { proof: Some(proof), phrase: None });
        }
        let phrase = new_phrase();
        let hash = self.phrase_hash(comparable(&phrase)).await?;
        Ok(Asked { proof: Some(Proof { phrase: Some(hash), ..proof }), phrase: Some(phrase) })
    }

    /// Hashes the phrase of a grant; [`VaultError::Busy`] where too many wait for that already.
    async fn phrase_hash(&self, phrase: Zeroizing<String>) -> Result<String, VaultError> {
        let place = Arc::clone(&self.hashing).try_acquire_owned();
        let place = place.map_err(|_| VaultError::Busy)?;
        Ok(self.phrases.hash(phrase, place).await?)
    }

    /// What the sender's own field asked for, secret included. It lies sealed behind the message.
    pub(super) async fn wish(
        &self,
        message: &MessageRow,
    ) -> Result<Option<PickupWish>, VaultError> {
        if message.facts.rule.pickup.is_code() {
            return Ok(None);
        }
        Ok(self.index_of(message).await?.pickup)
    }

    async fn has_passkey(&self, recipient: &Address) -> Result<bool, VaultError> {
        let account = self.people.account(recipient).await?;
        let proved = |account: &Account| account.passkeys.iter().any(|key| key.proved);
        Ok(account.is_some_and(|account| !account.locked && proved(&account)))
    }

    /// The address inside that hears of a message: its sender's, or the postmaster's.
    fn told<'a>(&'a self, message: &'a MessageRow) -> Option<&'a Address> {
        let insiders = self.insiders.as_deref()?;
        let inside = |address: &&Address| insiders.domains.contains(address.domain());
        let sender = message.facts.sender.as_ref().filter(inside);
        sender.or_else(|| Some(&insiders.postmaster).filter(inside))
    }

    /// What the sender must know: the phrase, if one was made, and what else the reader will need.
    /// `None` where a sender knows already, having asked for it himself.
    pub(super) fn report(
        &self,
        message: &MessageRow,
        grant: &Grant,
        asked: &Asked,
    ) -> Result<Option<NewMessage>, VaultError> {
        let (Some(proof), Some(to)) = (&asked.proof, self.told(message)) else { return Ok(None) };
        if asked.phrase.is_none() && proof.doubt.is_none() {
            return Ok(None);
        }
        let lines = self.lines(message, grant, proof, asked.phrase.is_some());
        self.tell_inside(grant, to, &lines, asked.phrase.as_ref().map(|phrase| phrase.as_str()))
            .map(Some)
    }

    /// No text message can be sent for a grant, or none arrives: a phrase made here takes its place,
    /// and its sender is told it, once. A caller that may be cut off runs it as a task.
    pub(super) async fn replace_text(
        &self,
        message: &MessageRow,
        grant: GrantId,
    ) -> Result<Texting, VaultError> {
        let _turn = self.replacing.lock().await;
        let Some(grant) = self.people.grant(grant).await? else { return Ok(Texting::Nothing) };
        let Some(to) = self.told(message) else {
            tracing::error!(grant = %grant.id, "no address inside can be told that no text was sent");
            return Ok(Texting::Failed);
        };
        let replaced = Texting::Replaced(to.clone());
        let free = |proof: &Proof| proof.phrase.is_none() && proof.wrong < Proof::TRIES;
        if !grant.proof.as_ref().is_some_and(free) {
            return Ok(replaced);
        }
        let phrase = new_phrase();
        let hash = self.phrases.hash(comparable(&phrase), ()).await?;
        let lines = [
            waits(message, &grant),
            say!(
                "The code by text message could not be sent, or did not arrive at the number that you \
                 gave."
            ),
            tell_the_phrase(),
        ];
        // The report goes first: a phrase that no one was told would open the message to no one.
        self.queue.accept(self.tell_inside(&grant, to, &lines, Some(&phrase))?).await?;
        let set = |proof: &mut Proof| {
            let free = free(proof);
            (proof.phrase, proof.texted) = (Some(hash.clone()), None);
            free
        };
        self.change_proof(grant.id, set).await?;
        tracing::warn!(grant = %grant.id, "a phrase takes the place of a text message that failed");
        Ok(replaced)
    }

    /// What tells the sender that a message is locked, because too many wrong phrases or codes were
    /// typed; `None` where nobody inside can be told.
    pub(super) async fn locked_report(
        &self,
        grant: &Grant,
    ) -> Result<Option<NewMessage>, VaultError> {
        let Some((message, _)) = self.queue.message(grant.message).await? else { return Ok(None) };
        let Some(to) = self.told(&message) else { return Ok(None) };
        let lines = [say!(
            "Your message to {address} of {date} is locked: {count} wrong phrases or codes were \
             typed for it. If it is still wanted, send it again.",
            address = grant.recipient.to_string(),
            date = Text::Day(message.facts.arrived),
            count = u64::from(Proof::TRIES)
        )];
        self.tell_inside(grant, to, &lines, None).map(Some)
    }

    fn lines(&self, message: &MessageRow, grant: &Grant, proof: &Proof, made: bool) -> Vec<Text> {
        let mut lines = vec![waits(message, grant)];
        if let Some(since) = proof.doubt {
            lines.push(say!(
                "The mail server of {domain} did not prove itself as the policy asks. Until that is \
                 mended, whoever stands in the way may read what is mailed there, so a code by mail \
                 alone does not open this message.",
                domain = grant.recipient.domain().to_string()
            ));
            if proof.kind.is_code() {
                lines.push(say!(
                    "A reader whose account is older than {date}, and who signs in with a password, \
                     a passkey or a second factor, can read it as always.",
                    date = Text::Moment(since)
                ));
            }
        }
        lines.push(match proof.kind {
            Pickup::Sms => say!("The reader gets a code by text message, at the number you gave."),
            Pickup::Passkey if !made => {
                say!("The reader signs in with a passkey that the account had before.")
            }
            Pickup::Phrase if !made => say!("The reader is asked for the phrase that you gave."),
            Pickup::Code | Pickup::Phrase | Pickup::Passkey if made => tell_the_phrase(),
            Pickup::Code | Pickup::Phrase | Pickup::Passkey => Text::default(),
        });
        lines.retain(|line| !line.is_empty());
        lines
    }

    /// A report that is for inside alone, for it may hold a phrase: the relay carries it nowhere
    /// else.
    fn tell_inside(
        &self,
        grant: &Grant,
        to: &Address,
        lines: &[Text],
        phrase: Option<&str>,
    ) -> Result<NewMessage, VaultError> {
        let (id, at) = (self.new_id(), self.clock.now());
        let mail = ToldMail { recipient: to, lines, phrase, at, id };
        let text = Zeroizing::new(self.notices.templates.told(&self.notices.head, &mail)?);
        let needs = Needs {
            eight_bit: !text.is_ascii(),
            smtputf8: to.needs_smtputf8(),
            require_tls: false,
        };
        let mut facts = MessageFacts::own(id, Class::Report, self.guard.latest(), needs);
        facts.grant = Some(grant.id);
        self.seal_own(facts, vec![to.clone()], &text)
    }
}
