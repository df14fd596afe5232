//! Opening: to a cleared connection, to the open channel (our own mail only), to a recipient.

use super::{
    Vault, VaultError,
    lease::{Lease, Reader},
};
use crate::{
    mail::{GrantId, parts::PartIndex},
    policy::Clearance,
    seal::{
        Class, Event, Opener, SealError, SealedHeader,
        stream::{index_offset, offset_of},
    },
    store::{
        Account, Grant, GrantState, MessageRow, Need, SessionFacts, StoreError, body::BodyReader,
    },
    wire::Source,
};
use async_trait::async_trait;
use bytes::Bytes;
use std::{fmt, ops::Range, sync::Arc};

/// Leave to read for a signed-in recipient: only [`Vault::access`] makes it, after it has compared
/// grant and account, and seen that nothing more is to be proved.
///
/// ```compile_fail,E0451
/// use restante::{store::Grant, vault::Access};
/// fn forge(grant: Grant, access: Access) -> Access { Access { grant, ..access } }
/// ```
#[derive(Debug)]
pub struct Access {
    grant: Grant,
    lease: Arc<Lease>,
}

impl Access {
    /// The grant.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }
    /// The same leave, for as long as that reader lasts.
    #[must_use]
    pub fn held_by(self, reader: Arc<dyn Reader>) -> Self {
        Self { lease: Arc::new(self.lease.held_by(reader)), ..self }
    }
    /// Asks whether the leave still holds.
    ///
    /// # Errors
    /// [`VaultError::Ended`] if it does not.
    pub async fn renew(&self) -> Result<(), VaultError> {
        self.lease.renew().await
    }
}

/// Whether an account may read a grant's message.
#[expect(clippy::large_enum_variant, reason = "there is one for a request, seldom moved")]
#[derive(Debug)]
pub enum AccessAnswer {
    /// Yes.
    Granted(Access),
    /// It is this account's, and opens only once the reader has shown this.
    Unproved(Need),
    /// It was this account's, and is expired or recalled (410 at the portal).
    Over,
    /// There is no such grant, it is another's, or the account is locked (404).
    NotYours,
}

/// Plaintext of a message, chunk by chunk; each chunk is zeroed when its last user drops it.
pub struct Content {
    /// `None`: nothing (more) to yield.
    stream: Option<Stream>,
    /// What is read by a recipient's leave ends with it.
    lease: Option<Arc<Lease>>,
}

pub(super) struct Stream {
    reader: Box<dyn BodyReader>,
    opener: Opener,
    /// What to yield.
    want: Range<u64>,
    /// How far the content has been opened.
    seen: u64,
    /// The message's size as its row has it.
    size: u64,
    /// It goes out over the open channel as this: the sealed header must say the same.
    open_channel: Option<Class>,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let want = self.stream.as_ref().map(|stream| &stream.want);
        f.debug_struct("Content").field("want", &want).finish_non_exhaustive()
    }
}

impl Vault {
    /// Content of a protected message for the wire. The clearance must be for `connection`.
    pub async fn open_cleared(
        &self,
        message: &MessageRow,
        clearance: &Clearance,
        connection: u64,
    ) -> Result<Content, VaultError> {
        if clearance.connection() != connection {
            return Err(VaultError::Refused("the clearance is for another connection"));
        }
        self.open_whole(message, None).await
    }

    /// Content of a notice, code or report; refuses a protected message. The row's word for its
    /// class is not enough: the sealed header must agree before the first byte comes out.
    pub async fn open_notice(&self, message: &MessageRow) -> Result<Content, VaultError> {
        check_class(message.facts.class)?;
        self.open_whole(message, Some(message.facts.class)).await
    }

    /// A message that is kept for pickup, for an operator who has the right to the data directory: as
    /// it came in. The control socket is the one door to it, and its use is logged.
    pub async fn export(&self, message: &MessageRow) -> Result<Content, VaultError> {
        self.open_whole(message, None).await
    }

    pub(super) async fn open_whole(
        &self,
        message: &MessageRow,
        open_channel: Option<Class>,
    ) -> Result<Content, VaultError> {
        let id = message.facts.id;
        let opener = Opener::new(self.key_of(message)?, id);
        let reader = self.bodies.open(id, &message.body, 0).await?;
        Ok(Content::of(Stream { open_channel, ..Stream::whole(reader, opener, message.size) }))
    }

    /// Leave to read, or why not, in the portal's distinction.
    pub async fn access(
        &self,
        grant: GrantId,
        account: &Account,
        session: &SessionFacts,
    ) -> Result<AccessAnswer, VaultError> {
        let Some(grant) = self.people.grant(grant).await? else {
            return Ok(AccessAnswer::NotYours);
        };
        if !account.holds(&grant) || account.locked {
            return Ok(AccessAnswer::NotYours);
        }
        // The sweep may be late; the time that was promised is not.
        if grant.state != GrantState::Live || grant.expires <= self.clock.now() {
            return Ok(AccessAnswer::Over);
        }
        let need = grant.need(account, session);
        if need != Need::Nothing {
            return Ok(AccessAnswer::Unproved(need));
        }
        let lease = Arc::new(Lease::new(self, grant.id, account, *session));
        Ok(AccessAnswer::Granted(Access { grant, lease }))
    }

    /// Notes that the recipient has opened the message; only the first time counts.
    pub async fn opened(&self, access: &Access) -> Result<(), VaultError> {
        let grant = &access.grant;
        if grant.opened.is_some() {
            return Ok(());
        }
        match self.people.mark_opened(grant.id, self.clock.now()).await {
            Ok(true) => {
                tracing::info!(grant = %grant.id, "a message was opened by its recipient");
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(StoreError::NotFound) => Err(VaultError::Gone),
            // Reading goes on where the disk is full.
            Err(StoreError::Full) => {
                tracing::warn!(grant = %grant.id, "an opening was not noted: the store is full");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The part index of a granted message. Reads the index alone, whatever the message's size.
    pub async fn index(&self, access: &Access) -> Result<(MessageRow, PartIndex), VaultError> {
        let row = self.row(access).await?;
        // What the sender asked for is no part of the message.
        let index = PartIndex { pickup: None, ..self.index_of(&row).await? };
        Ok((row, index))
    }

    pub(super) async fn index_of(&self, row: &MessageRow) -> Result<PartIndex, VaultError> {
        let key = self.key_of(row)?;
        let from = index_offset(row.header_len, row.size);
        let mut reader = self.bodies.open(row.facts.id, &row.body, from).await?;
        let mut opener = Opener::from_index(key, row.facts.id, row.size);
        loop {
            while let Some(event) = opener.poll()? {
                if let Event::Index(text) = event {
                    let index = serde_json::from_slice(&text)
                        .map_err(|_| StoreError::Corrupt("no part index".to_owned()))?;
                    return Ok(index);
                }
            }
            let sealed = reader.next().await?;
            if sealed.is_empty() {
                return Err(SealError::Truncated.into());
            }
            opener.feed(&sealed);
        }
    }

    /// Content of a granted message from one offset to another; what lies behind its end is left
    /// out. A range that goes to the end also proves the end. It breaks off with
    /// [`VaultError::Ended`] soon after the right to read has ended.
    pub async fn read(&self, access: &Access, range: Range<u64>) -> Result<Content, VaultError> {
        let row = self.row(access).await?;
        let (key, id, size) = (self.key_of(&row)?, row.facts.id, row.size);
        let end = range.end.min(size);
        let want = range.start.min(end)..end;
        if want.is_empty() && size > 0 {
            return Ok(Content { stream: None, lease: None });
        }
        let from = offset_of(row.header_len, want.start);
        let reader = self.bodies.open(id, &row.body, from).await?;
        let opener = Opener::from_content(key, id, want.start);
        let (seen, open_channel) = (0, None);
        let stream = Some(Stream { reader, opener, want, seen, size, open_channel });
        Ok(Content { stream, lease: Some(Arc::clone(&access.lease)) })
    }

    async fn row(&self, access: &Access) -> Result<MessageRow, VaultError> {
        let found = self.queue.message(access.grant.message).await?;
        found.map(|(row, _)| row).ok_or(VaultError::Gone)
    }
}

impl Content {
    pub(super) const fn of(stream: Stream) -> Self {
        Self { stream: Some(stream), lease: None }
    }

    /// The next piece; `None` at the authenticated end (or the end of the range).
    pub async fn next(&mut self) -> Result<Option<Bytes>, VaultError> {
        let Some(stream) = &mut self.stream else { return Ok(None) };
        let piece = stream.next().await?;
        let Some(piece) = piece else {
            self.stream = None;
            return Ok(None);
        };
        if let Some(lease) = &self.lease
            && let Err(error) = lease.meter(piece.len()).await
        {
            self.stream = None;
            return Err(error);
        }
        Ok(Some(piece))
    }
}

#[async_trait]
impl Source for Content {
    async fn next(&mut self) -> Result<Option<Bytes>, String> {
        Self::next(self).await.map_err(|error| error.to_string())
    }
}

impl Stream {
    /// From the first byte to the last.
    pub(super) fn whole(reader: Box<dyn BodyReader>, opener: Opener, size: u64) -> Self {
        Self { reader, opener, want: 0..size, seen: 0, size, open_channel: None }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, VaultError> {
        loop {
            while let Some(event) = self.opener.poll()? {
                if let Some(piece) = self.take(event)? {
                    return Ok(Some(piece));
                }
            }
            if self.seen >= self.want.end && self.want.end < self.size {
                return Ok(None);
            }
            let sealed = self.reader.next().await?;
            if sealed.is_empty() {
                return self.end().map(|()| None);
            }
            self.opener.feed(&sealed);
        }
    }

    fn take(&mut self, event: Event) -> Result<Option<Bytes>, VaultError> {
        match (event, self.open_channel) {
            (Event::Header(text), Some(class)) => {
                let header: SealedHeader = serde_json::from_slice(&text)
                    .map_err(|_| StoreError::Corrupt("no sealed header".to_owned()))?;
                check_class(header.facts.class)?;
                if header.facts.class != class {
                    // The class says over which TLS it may go.
                    return Err(VaultError::Refused(
                        "the row has another class than what was sealed",
                    ));
                }
                Ok(None)
            }
            (Event::Content(at, plain), _) => {
                self.seen = at.saturating_add(plain.len() as u64);
                let within = |offset: u64| {
                    let offset = offset.saturating_sub(at);
                    usize::try_from(offset).unwrap_or(usize::MAX).min(plain.len())
                };
                let cut = within(self.want.start)..within(self.want.end);
                let piece = Bytes::from_owner(plain).slice(cut);
                Ok((!piece.is_empty()).then_some(piece))
            }
            (Event::Header(_), None) | (Event::Index(_) | Event::End, _) => Ok(None),
        }
    }

    /// The store has no more bytes: the body must be whole, and as long as its row says.
    fn end(&self) -> Result<(), VaultError> {
        self.opener.finish()?;
        if self.seen != self.size {
            return Err(StoreError::Corrupt("row and body differ in size".to_owned()).into());
        }
        Ok(())
    }
}

fn check_class(class: Class) -> Result<(), VaultError> {
    match class {
        Class::Protected => Err(VaultError::Refused("a protected message needs a clearance")),
        Class::Notice | Class::Code | Class::Report | Class::TlsReport => Ok(()),
    }
}
