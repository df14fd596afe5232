//! Submission: letters that readers write go in by the door that all mail comes in by. No HTTP here:
//! the portal reads forms and shows pages, this service says who may write to whom, takes files in,
//! and writes the letter.
//!
//! 1. [`Submission::reply`], [`Submission::forward`] and [`Submission::compose`] make [`Recipients`];
//!    a letter goes to nobody else.
//! 2. [`Submission::admit`] counts the letter against the account's quota.
//! 3. Files come before the letter ([`Uploads`]) or with it ([`Enclosures`]); either way they are sealed
//!    aside until all have come.
//! 4. [`Submission::send`] writes the letter into the door, which commits it with the author's own copy.
//!    No client is waited for from here on.

mod enclosures;
mod flow;
mod quota;
mod recipients;
#[cfg(test)]
mod tests;
mod uploads;

pub use enclosures::{Enclosed, Enclosures};
pub use flow::{BrokenOff, LEAST_RATE, Paced};
pub use recipients::{Answered, MAX_RECIPIENTS, Recipients, RecipientsError, ReplyRecipients};
pub use uploads::{Appended, NewUpload, OWN_UPLOADS, Progress, Upload, UploadError, Uploads};

use crate::{
    intake::{Door, Envelope, Incoming, Refusal},
    language::{Languages, say},
    mail::{
        Address, Domain, GrantId, MailData, Wishes,
        data::LineEndRepair,
        letter::{Base64Lines, Letter, Priority, file_name},
    },
    policy::rules::glob_matches,
    seal::header::{ClientFacts, Needs},
    store::Account,
    vault::{Access, Vault, VaultError},
};
use flow::Flows;
use jiff::SignedDuration;
use quota::{Demand, Quota};
use std::{net::IpAddr, sync::Arc, time::Duration};
use tokio::{sync::Semaphore, time::timeout};
use zeroize::Zeroizing;

/// Files of a letter that come with its form.
const MAX_FILES: usize = 1_000;
/// Letters that are written into the door at one time, so that they never take all of its memory, and
/// how long one waits for that.
const SENDING: usize = 16;
const PATIENCE: Duration = Duration::from_secs(60);
/// Characters of an author's name.
const MAX_NAME: usize = 120;

/// What the service is to know of the house.
#[derive(Debug, Clone)]
pub struct SubmissionSettings {
    /// `organization.domains`
    pub domains: Vec<Domain>,
    /// `portal.max_reply_size`
    pub max_size: u64,
    /// `portal.refuse_files`: patterns, lower case.
    pub refuse_files: Vec<String>,
    /// Languages of the house; the usual one marks an author outside.
    pub languages: Arc<Languages>,
}

/// The service.
#[derive(Debug)]
pub struct Submission {
    settings: SubmissionSettings,
    vault: Vault,
    door: Door,
    quota: Quota,
    flows: Flows,
    uploads: Uploads,
    sending: Semaphore,
}

/// Who writes.
#[derive(Debug, Clone, Copy)]
pub struct Author<'a> {
    /// The account.
    pub account: &'a Account,
    /// Where the account's browser is.
    pub client: Option<IpAddr>,
}

/// A letter to be written.
#[derive(Debug)]
pub struct Draft<'a> {
    /// Its recipients.
    pub recipients: Recipients,
    /// Subject.
    pub subject: String,
    /// Text.
    pub text: String,
    /// Importance.
    pub priority: Priority,
    /// The conversation so far (RFC 5322 §3.6.4).
    pub references: Vec<String>,
    /// A message that goes with it.
    pub forwarded: Option<Forwarded<'a>>,
    /// Files that came before it.
    pub uploads: Vec<Upload>,
}

/// A message that is forwarded whole.
#[derive(Debug)]
pub struct Forwarded<'a> {
    /// The reader's access to it.
    pub access: &'a Access,
    /// Its octets.
    pub size: u64,
    /// The name of the attached file.
    pub name: String,
}

/// A letter that was counted against its account's quota, and may be sent.
#[derive(Debug)]
#[must_use]
pub struct Admission(());

/// Why a letter is not sent. Nothing of it is kept.
#[derive(Debug, thiserror::Error)]
pub enum SubmissionError {
    /// The account has sent much; so long to wait.
    #[error("the account's quota is used up")]
    Quota(SignedDuration),
    /// Too much is on its way at once, of this account or of all.
    #[error("too much at once")]
    Busy,
    /// More than `portal.max_reply_size`, or too many files.
    #[error("larger than a letter may be")]
    TooLarge,
    /// `portal.refuse_files`
    #[error("files of this name are refused")]
    RefusedFile(String),
    /// A file that came ahead is not here, or not whole.
    #[error("a file is not here any more")]
    UploadGone,
    /// The door.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The vault.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

impl Submission {
    /// A service that writes into this door.
    pub fn new(settings: SubmissionSettings, vault: Vault, door: Door) -> Self {
        let (flows, refused) = (Flows::default(), settings.refuse_files.clone());
        let uploads = Uploads::new(vault.clone(), flows.clone(), settings.max_size, refused);
        let (quota, sending) = (Quota::default(), Semaphore::new(SENDING));
        Self { settings, vault, door, quota, flows, uploads, sending }
    }

    /// The files that come before their letters.
    pub const fn uploads(&self) -> &Uploads {
        &self.uploads
    }

    /// Counts a letter against the quota of its author.
    ///
    /// # Errors
    /// [`SubmissionError::Quota`] says how long to wait.
    pub fn admit(
        &self,
        draft: &Draft<'_>,
        account: &Account,
    ) -> Result<Admission, SubmissionError> {
        let demand = Demand {
            account: &account.address,
            inside: self.is_inside(&account.address),
            recipients: draft.recipients.to.len().saturating_add(draft.recipients.cc.len()),
            largest: self.settings.max_size,
        };
        let admitted = self.quota.admit(demand, self.vault.clock.now());
        admitted.map(Admission).map_err(SubmissionError::Quota)
    }

    /// Opens a flow for files that come with the form.
    ///
    /// # Errors
    /// [`SubmissionError::Busy`] where the account has as many flows as it may.
    pub async fn enclose<'a>(
        &'a self,
        account: &'a Account,
    ) -> Result<Enclosures<'a>, SubmissionError> {
        Enclosures::begin(self, &self.flows, account).await
    }

    /// Sends a letter; the author's own copy is the answer.
    ///
    /// # Errors
    /// [`SubmissionError`] says why it is not sent.
    pub async fn send(
        &self,
        _admitted: Admission,
        author: Author<'_>,
        draft: &Draft<'_>,
        enclosed: Option<Enclosed>,
    ) -> Result<GrantId, SubmissionError> {
        let place = timeout(PATIENCE, self.sending.acquire()).await;
        let Ok(Ok(_place)) = place else { return Err(SubmissionError::Busy) };
        let mut incoming = self.door.begin(self.envelope(author, draft)).await?;
        let (name, id) =
            (self.name_of(author.account), GrantId::from_bytes(rand::random()).to_string());
        let letter = Letter {
            author: &author.account.address,
            name: &name,
            sender: &self.vault.notices.head.from,
            to: &draft.recipients.to,
            cc: &draft.recipients.cc,
            subject: &draft.subject,
            priority: draft.priority,
            references: &draft.references,
            at: self.vault.clock.now(),
            id: &id,
        };
        if enclosed.is_none() && draft.forwarded.is_none() && draft.uploads.is_empty() {
            incoming.write(&Zeroizing::new(letter.plain(&draft.text))).await?;
        } else {
            incoming.write(&Zeroizing::new(letter.open(&draft.text))).await?;
            self.parts(&letter, draft, enclosed, &mut incoming).await?;
            incoming.write(&letter.end()).await?;
        }
        let ahead: u64 = draft.uploads.iter().map(Upload::size).sum();
        self.quota.count(&author.account.address, ahead);
        let forwarded = draft.forwarded.as_ref().map(|forwarded| forwarded.access.grant());
        let copy = self.vault.copy_for(incoming.id(), &author.account.address, forwarded);
        let own = copy.id;
        incoming.commit(Some(copy)).await?;
        draft.uploads.iter().for_each(|upload| self.uploads.remove(upload));
        Ok(own)
    }

    /// Reports about the letter go to its author: the reverse-path is theirs.
    fn envelope(&self, author: Author<'_>, draft: &Draft<'_>) -> Envelope {
        let Recipients { to, cc } = &draft.recipients;
        let mut recipients = to.clone();
        recipients.extend(cc.iter().filter(|cc| !to.contains(cc)).cloned());
        let named = [&author.account.address, &self.vault.notices.head.from];
        let smtputf8 = recipients.iter().chain(named).any(Address::needs_smtputf8);
        let client = author.client.map(|address| ClientFacts {
            helo: "portal".to_owned(),
            address,
            with: "HTTP".to_owned(),
            tls: None,
        });
        Envelope {
            sender: Some(author.account.address.clone()),
            recipients,
            client,
            needs: Needs { smtputf8, ..Needs::default() },
            envelope_id: None,
            wishes: Wishes::default(),
        }
    }

    /// The name of an author, as typed at registration. One outside is marked: a name of choice beside
    /// the house's own Sender must not pass for one of the house.
    fn name_of(&self, account: &Account) -> String {
        let name = format!("{} {}", account.first_name, account.last_name);
        let name = name.trim().chars().take(MAX_NAME).collect::<String>();
        if self.is_inside(&account.address) {
            return name;
        }
        let marked = say!("{name} (outside, by portal)", name = name);
        self.settings.languages.usual().say(&marked).trim().to_owned()
    }

    async fn parts(
        &self,
        letter: &Letter<'_>,
        draft: &Draft<'_>,
        enclosed: Option<Enclosed>,
        incoming: &mut Incoming,
    ) -> Result<(), SubmissionError> {
        if let Some(enclosed) = enclosed {
            self.attach_enclosed(letter, &enclosed, incoming).await?;
        }
        for upload in &draft.uploads {
            let content = upload.content(&self.vault)?;
            let Some(mut content) = content else { return Err(SubmissionError::UploadGone) };
            incoming.write(&letter.file(upload.name(), upload.kind())).await?;
            let mut attachment = Attachment::to(incoming);
            while let Some(piece) = content.next().await? {
                attachment.write(&piece).await?;
            }
            attachment.end().await?;
        }
        match &draft.forwarded {
            Some(forwarded) => self.attach_message(letter, forwarded, incoming).await,
            None => Ok(()),
        }
    }

    async fn attach_enclosed(
        &self,
        letter: &Letter<'_>,
        enclosed: &Enclosed,
        incoming: &mut Incoming,
    ) -> Result<(), SubmissionError> {
        let mut content = enclosed.content(&self.vault)?;
        for file in &enclosed.files {
            incoming.write(&letter.file(&file.name, &file.kind)).await?;
            let (mut attachment, mut left) = (Attachment::to(incoming), file.size);
            while left > 0 {
                let Some(piece) = content.next(left).await? else {
                    return Err(SubmissionError::UploadGone);
                };
                left = left.saturating_sub(piece.len() as u64);
                attachment.write(&piece).await?;
            }
            attachment.end().await?;
        }
        Ok(())
    }

    async fn attach_message(
        &self,
        letter: &Letter<'_>,
        forwarded: &Forwarded<'_>,
        incoming: &mut Incoming,
    ) -> Result<(), SubmissionError> {
        incoming.write(&letter.message(&forwarded.name)).await?;
        let mut content = self.vault.read(forwarded.access, 0..forwarded.size).await?;
        // It came in as mail data; what an older version stored may be none.
        let (mut repair, mut data) =
            (LineEndRepair::default(), Zeroizing::new(MailData::default()));
        while let Some(piece) = content.next().await? {
            data.clear();
            repair.push(&piece, &mut data);
            incoming.write(&data).await?;
        }
        data.clear();
        repair.finish(&mut data);
        Ok(incoming.write(&data).await?)
    }
}

/// `portal.refuse_files`. Dots and spaces at the end count for nothing where such files run.
fn refuses_file(patterns: &[String], name: &str) -> bool {
    let name = file_name(name).to_lowercase();
    let name = name.trim_end_matches(['.', ' ']);
    patterns.iter().any(|pattern| glob_matches(pattern, name))
}

/// A file on its way into a letter, in lines of base64.
struct Attachment<'a> {
    incoming: &'a mut Incoming,
    lines: Base64Lines,
    out: MailData,
}

impl<'a> Attachment<'a> {
    fn to(incoming: &'a mut Incoming) -> Self {
        Self { incoming, lines: Base64Lines::default(), out: MailData::default() }
    }

    async fn write(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        self.lines.feed(piece, &mut self.out);
        self.incoming.write(&self.out).await?;
        self.out.clear();
        Ok(())
    }

    async fn end(mut self) -> Result<(), Refusal> {
        self.lines.finish(&mut self.out);
        self.incoming.write(&self.out).await
    }
}
