//! A letter goes out by the door that all mail comes in by: sealed as it streams, committed with its
//! author's own copy, then relayed.

use super::{
    Origin,
    quota::Turn,
    stage::Ahead,
    upload::{Broken, File, Upload},
};
use crate::{
    intake::{Envelope, Incoming, Refusal},
    language::{Text, say},
    mail::{
        Address, GrantId, MailData, Wishes,
        data::LineEndRepair,
        letter::{Base64Lines, Letter, Priority, file_name},
    },
    policy::rules::glob_matches,
    portal::{Desk, Fault, form::Errors, session::Visitor},
    seal::header::{ClientFacts, Needs},
    store::Account,
    vault::VaultError,
};
use jiff::SignedDuration;
use zeroize::Zeroizing;

/// A letter that may be sent.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) to: Vec<Address>,
    pub(super) cc: Vec<Address>,
    pub(super) subject: String,
    pub(super) text: String,
    pub(super) priority: Priority,
    pub(super) references: Vec<String>,
    /// The message that is forwarded, and its file name.
    pub(super) original: Option<(&'a Origin, String)>,
    /// Files that were uploaded ahead.
    pub(super) ahead: Vec<Ahead>,
}

/// Why a letter was not sent.
#[derive(Debug)]
pub(super) enum Stop {
    /// Something in the form.
    Wrong(Errors),
    /// The form itself.
    Broken(Broken),
    /// The door.
    Refused(Refusal),
    /// The account has sent much; so long to wait.
    Wait(SignedDuration),
    /// Our own trouble.
    Fault(Fault),
}
impl From<Broken> for Stop {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}
impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
impl From<VaultError> for Stop {
    fn from(error: VaultError) -> Self {
        Self::Fault(error.into())
    }
}

impl Desk {
    /// Sends a letter with the files that follow; the author's own copy is the answer.
    pub(super) async fn send(
        &self,
        visitor: &Visitor,
        plan: &Plan<'_>,
        upload: &mut Upload,
        first: Option<File>,
    ) -> Result<GrantId, Stop> {
        let account = visitor.signed_in().map_err(Stop::Fault)?;
        let turn = self.turn(account)?;
        let Ok(_place) = self.uploads.try_acquire() else {
            return Err(Stop::Refused(Refusal::Busy));
        };
        let mut incoming = self.door.begin(self.envelope(visitor, account, plan)).await?;
        let (name, id) = (name_of(account), GrantId::from_bytes(rand::random()).to_string());
        let letter = Letter {
            author: &account.address,
            name: &name,
            sender: &self.vault.notices.head.from,
            to: &plan.to,
            cc: &plan.cc,
            subject: &plan.subject,
            priority: plan.priority,
            references: &plan.references,
            at: self.now(),
            id: &id,
        };
        if first.is_none() && plan.original.is_none() && plan.ahead.is_empty() {
            incoming.write(&Zeroizing::new(letter.plain(&plan.text))).await?;
        } else {
            incoming.write(&Zeroizing::new(letter.open(&plan.text))).await?;
            self.parts(&letter, plan, &mut incoming, upload, first).await?;
            incoming.write(&letter.end()).await?;
        }
        let ahead: u64 = plan.ahead.iter().map(|(_, item)| item.size).sum();
        turn.count(upload.size().saturating_add(ahead));
        let copy = self.vault.copy_for(incoming.id(), &account.address);
        let own = copy.id;
        incoming.commit(Some(copy)).await?;
        self.used_up(&plan.ahead);
        Ok(own)
    }

    fn turn(&self, account: &Account) -> Result<Turn, Stop> {
        let largest = self.settings.max_reply_size;
        self.quota.turn(&account.address, self.now(), largest).map_err(Stop::Wait)
    }

    /// Reports about the letter go to its author: the reverse-path is theirs.
    fn envelope(&self, visitor: &Visitor, account: &Account, plan: &Plan<'_>) -> Envelope {
        let mut recipients = plan.to.clone();
        recipients.extend(plan.cc.iter().filter(|cc| !plan.to.contains(cc)).cloned());
        let named = [&account.address, &self.vault.notices.head.from];
        let smtputf8 = recipients.iter().chain(named).any(Address::needs_smtputf8);
        let needs = Needs { smtputf8, ..Needs::default() };
        let client = visitor.client.map(|address| ClientFacts {
            helo: "portal".to_owned(),
            address,
            with: "HTTP".to_owned(),
            tls: None,
        });
        Envelope {
            sender: Some(account.address.clone()),
            recipients,
            client,
            needs,
            envelope_id: None,
            wishes: Wishes::default(),
        }
    }

    /// Files as they come, and the message that is forwarded.
    async fn parts(
        &self,
        letter: &Letter<'_>,
        plan: &Plan<'_>,
        incoming: &mut Incoming,
        upload: &mut Upload,
        first: Option<File>,
    ) -> Result<(), Stop> {
        let mut next = first;
        while let Some(file) = next {
            if self.refused(&file.name) {
                return Err(Stop::Wrong(Errors::of("files", refused_words(&file.name))));
            }
            incoming.write(&letter.file(&file.name, &file.kind)).await?;
            attach(incoming, upload, file).await?;
            next = upload.file().await?;
        }
        for (_, item) in &plan.ahead {
            incoming.write(&letter.file(&item.name, &item.kind)).await?;
            self.attach_staged(incoming, item).await?;
        }
        let Some((origin, name)) = &plan.original else { return Ok(()) };
        incoming.write(&letter.message(name)).await?;
        let mut content = self.vault.read(&origin.access, 0..origin.row.size).await?;
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

    /// `portal.refuse_files`. Dots and spaces at the end count for nothing where such files run.
    pub(super) fn refused(&self, name: &str) -> bool {
        let name = file_name(name).to_lowercase();
        let name = name.trim_end_matches(['.', ' ']);
        self.settings.refuse_files.iter().any(|pattern| glob_matches(pattern, name))
    }
}

/// Nobody is asked for a name that was typed at registration.
fn name_of(account: &Account) -> String {
    format!("{} {}", account.first_name, account.last_name)
}

fn refused_words(name: &str) -> Text {
    let name: String = file_name(name).chars().take(100).collect();
    say!(
        "Files like “{name}” can’t be sent here. Leave it out, and choose the others again.",
        name = name
    )
}

/// A file on its way into a letter, in lines of base64.
pub(super) struct Attachment<'a> {
    incoming: &'a mut Incoming,
    lines: Base64Lines,
    out: MailData,
}
impl<'a> Attachment<'a> {
    pub(super) fn to(incoming: &'a mut Incoming) -> Self {
        Self { incoming, lines: Base64Lines::default(), out: MailData::default() }
    }
    pub(super) async fn write(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        self.lines.feed(piece, &mut self.out);
        self.incoming.write(&self.out).await?;
        self.out.clear();
        Ok(())
    }
    pub(super) async fn end(mut self) -> Result<(), Refusal> {
        self.lines.finish(&mut self.out);
        self.incoming.write(&self.out).await
    }
}

/// One file, a piece at a time.
async fn attach(incoming: &mut Incoming, upload: &mut Upload, file: File) -> Result<(), Stop> {
    let mut attachment = Attachment::to(incoming);
    attachment.write(&file.first).await?;
    if !file.whole {
        while let Some(piece) = upload.piece().await? {
            attachment.write(&piece).await?;
        }
    }
    Ok(attachment.end().await?)
}
