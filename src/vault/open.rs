//! Opening: to a cleared connection, to the open channel (our own mail only), to a recipient.

use super::{
    Vault, VaultError,
    lease::{Lease, Reader},
};
use crate::{
    mail::{Address, GrantId, QueueId, parts::PartIndex},
    policy::Clearance,
    seal::{Class, DataKey, Event, Opener, Prelude, Purpose, RingError, SealError, SealedHeader},
    store::{
        Account, Grant, GrantKind, GrantState, Locator, MessageRow, Need, RecipientRow,
        SessionFacts, StoreError, body::BodyReader,
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
    /// The first piece, if it has been opened before it was asked for.
    first: Option<Bytes>,
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
    /// What the sealed header must agree to before the first byte comes out.
    claimed: Option<Claimed>,
}

/// What rows say of a message. They are not believed: a store that is not ours may add a recipient,
/// or call a protected message a notice. The sealed header decides.
struct Claimed {
    class: Class,
    recipients: Vec<Address>,
}

impl Claimed {
    fn of(message: &MessageRow, recipients: &[RecipientRow]) -> Self {
        let recipients = recipients.iter().map(|row| row.address.clone()).collect();
        Self { class: message.facts.class, recipients }
    }

    fn check(&self, header: &SealedHeader) -> Result<(), VaultError> {
        if header.facts.class != self.class {
            // The class says over which TLS it may go.
            return Err(VaultError::Refused("the row has another class than what was sealed"));
        }
        if !self.recipients.iter().all(|address| header.recipients.contains(address)) {
            return Err(VaultError::Refused("a row names a recipient that was not sealed"));
        }
        Ok(())
    }
}

/// A body whose key has been opened.
struct Unsealed {
    /// Where it lies now: it may have been moved since its row was read.
    at: Locator,
    prelude: Prelude,
    key: DataKey,
}

/// Its first bytes, and the reader behind them.
struct Begun {
    body: Unsealed,
    first: Bytes,
    reader: Box<dyn BodyReader>,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let want = self.stream.as_ref().map(|stream| &stream.want);
        f.debug_struct("Content").field("want", &want).finish_non_exhaustive()
    }
}

impl Vault {
    /// Content of a protected message for the wire, to those of its recipients. The clearance must be
    /// for `connection`.
    pub async fn open_cleared(
        &self,
        message: &MessageRow,
        recipients: &[RecipientRow],
        clearance: &Clearance,
        connection: u64,
    ) -> Result<Content, VaultError> {
        if clearance.connection() != connection {
            return Err(VaultError::Refused("the clearance is for another connection"));
        }
        self.open_whole(message, recipients).await
    }

    /// Content of a notice, code or report; refuses a protected message. The row's word for class and
    /// recipients is not enough: the sealed header must agree before the first byte comes out.
    pub async fn open_notice(
        &self,
        message: &MessageRow,
        recipients: &[RecipientRow],
    ) -> Result<Content, VaultError> {
        match message.facts.class {
            Class::Protected => Err(VaultError::Refused("a protected message needs a clearance")),
            Class::Notice | Class::Code | Class::Report | Class::TlsReport => {
                self.open_whole(message, recipients).await
            }
        }
    }

    /// A message that is kept for pickup, for an operator who has the right to the data directory: as
    /// it came in. The control socket is the one door to it, and its use is logged.
    pub async fn export(&self, message: &MessageRow) -> Result<Content, VaultError> {
        self.open_whole(message, &[]).await
    }

    pub(super) async fn open_whole(
        &self,
        message: &MessageRow,
        recipients: &[RecipientRow],
    ) -> Result<Content, VaultError> {
        let Begun { body, first, reader } = self.begin(message, u64::MAX).await?;
        let mut opener = Opener::new(body.prelude.format, &body.key, message.facts.id);
        opener.feed(&first);
        let claimed = Some(Claimed::of(message, recipients));
        Ok(Content::of(Stream { claimed, ..Stream::whole(reader, opener, message.size) }))
    }

    /// Begins to read a body up to that byte. Where it has been moved since its row was read, the row is
    /// read again.
    async fn begin(&self, row: &MessageRow, to: u64) -> Result<Begun, VaultError> {
        let begun = self.begin_at(row.facts.id, &row.body, to).await;
        let (Err(VaultError::Gone | VaultError::Store(StoreError::NotFound)), true) =
            (&begun, row.body != Locator::Gone)
        else {
            return begun;
        };
        let now = self.queue.message(row.facts.id).await?.map(|(row, _)| row.body);
        match now.filter(|now| *now != row.body) {
            Some(now) => self.begin_at(row.facts.id, &now, to).await,
            None => begun,
        }
    }

    /// The key comes out of the prelude: it is nowhere else.
    async fn begin_at(&self, id: QueueId, at: &Locator, to: u64) -> Result<Begun, VaultError> {
        let (prelude, first, reader) = self.prelude(id, at, to).await?;
        let key = self.key_of(&prelude)?;
        Ok(Begun { body: Unsealed { at: at.clone(), prelude, key }, first, reader })
    }

    /// The prelude of a body, read up to that byte; the bytes that were read with it, and the rest.
    pub(super) async fn prelude(
        &self,
        id: QueueId,
        at: &Locator,
        to: u64,
    ) -> Result<(Prelude, Bytes, Box<dyn BodyReader>), VaultError> {
        if *at == Locator::Gone {
            return Err(VaultError::Gone);
        }
        let mut reader = self.bodies.open(id, at, 0..to).await?;
        let mut first = reader.next().await?;
        let prelude = loop {
            match Prelude::parse(&first) {
                Err(SealError::Truncated) => {
                    let more = reader.next().await?;
                    if more.is_empty() {
                        return Err(SealError::Truncated.into());
                    }
                    first = [first, more].concat().into();
                }
                prelude => break prelude?,
            }
        };
        if prelude.id != id {
            return Err(SealError::DoesNotOpen.into());
        }
        Ok((prelude, first, reader))
    }

    /// The data key, by the first wrap of the prelude that opens.
    fn key_of(&self, prelude: &Prelude) -> Result<DataKey, VaultError> {
        let (ring, mut failed) = (self.keys.ring(), None::<RingError>);
        for wrapped in prelude.wrapped() {
            match ring.unwrap(wrapped, Purpose::Message, prelude.id) {
                Ok(key) => return Ok(key),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        Err(failed.map_or(VaultError::Gone, VaultError::Ring))
    }

    /// The sealed header, and what opens the rest of the body.
    async fn header(&self, row: &MessageRow) -> Result<(SealedHeader, Unsealed), VaultError> {
        let head = Prelude::head_length(row.header_len);
        let Begun { body, first, mut reader } = self.begin(row, head).await?;
        let mut opener = Opener::new(body.prelude.format, &body.key, row.facts.id);
        let mut sealed = first;
        while !sealed.is_empty() {
            opener.feed(&sealed);
            if let Some(Event::Header(text)) = opener.poll()? {
                return Ok((parse_header(&text)?, body));
            }
            sealed = reader.next().await?;
        }
        Err(SealError::Truncated.into())
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
        let (header, body) = self.header(&row).await?;
        check_reader(&header, &access.grant)?;
        let index = self.index_behind(&row, &body).await?;
        // What the sender asked for is no part of the message.
        Ok((row, PartIndex { pickup: None, ..index }))
    }

    pub(super) async fn index_of(&self, row: &MessageRow) -> Result<PartIndex, VaultError> {
        let Begun { body, .. } = self.begin(row, Prelude::MAX as u64).await?;
        self.index_behind(row, &body).await
    }

    async fn index_behind(
        &self,
        row: &MessageRow,
        Unsealed { at, prelude, key }: &Unsealed,
    ) -> Result<PartIndex, VaultError> {
        let from = prelude.index_offset(row.header_len, row.size);
        let mut reader = self.bodies.open(row.facts.id, at, from..u64::MAX).await?;
        let mut opener = Opener::from_index(prelude.format, key, row.facts.id, row.size);
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
        let (header, Unsealed { at, prelude, key }) = self.header(&row).await?;
        check_reader(&header, &access.grant)?;
        let (id, size) = (row.facts.id, row.size);
        let end = range.end.min(size);
        let want = range.start.min(end)..end;
        if want.is_empty() && size > 0 {
            return Ok(Content { stream: None, first: None, lease: None });
        }
        let from = prelude.offset_of(row.header_len, want.start);
        let reader = self.bodies.open(id, &at, from..u64::MAX).await?;
        let opener = Opener::from_content(prelude.format, &key, id, want.start);
        let (seen, claimed) = (0, None);
        let stream = Some(Stream { reader, opener, want, seen, size, claimed });
        Ok(Content { stream, first: None, lease: Some(Arc::clone(&access.lease)) })
    }

    async fn row(&self, access: &Access) -> Result<MessageRow, VaultError> {
        let found = self.queue.message(access.grant.message).await?;
        found.map(|(row, _)| row).ok_or(VaultError::Gone)
    }
}

impl Content {
    pub(super) const fn of(stream: Stream) -> Self {
        Self { stream: Some(stream), first: None, lease: None }
    }

    /// Opens the first piece now, so that damage there is known before anything is answered.
    ///
    /// # Errors
    /// [`VaultError`] if it does not open.
    pub async fn begun(mut self) -> Result<Self, VaultError> {
        self.first = self.next().await?;
        Ok(self)
    }

    /// The next piece; `None` at the authenticated end (or the end of the range).
    pub async fn next(&mut self) -> Result<Option<Bytes>, VaultError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
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
        Self { reader, opener, want: 0..size, seen: 0, size, claimed: None }
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
        match event {
            Event::Header(text) => {
                if let Some(claimed) = &self.claimed {
                    claimed.check(&parse_header(&text)?)?;
                }
                Ok(None)
            }
            Event::Content(at, plain) => {
                self.seen = at.saturating_add(plain.len() as u64);
                let within = |offset: u64| {
                    let offset = offset.saturating_sub(at);
                    usize::try_from(offset).unwrap_or(usize::MAX).min(plain.len())
                };
                let cut = within(self.want.start)..within(self.want.end);
                let piece = Bytes::from_owner(plain).slice(cut);
                Ok((!piece.is_empty()).then_some(piece))
            }
            Event::Index(_) | Event::End => Ok(None),
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

fn parse_header(text: &[u8]) -> Result<SealedHeader, StoreError> {
    serde_json::from_slice(text).map_err(|_| StoreError::Corrupt("no sealed header".to_owned()))
}

/// A grant opens a message for a mailbox that was sealed as a recipient's, or as its author's.
fn check_reader(header: &SealedHeader, grant: &Grant) -> Result<(), VaultError> {
    let of_grant = grant.recipient.mailbox();
    let is_named = match grant.kind {
        GrantKind::Received => header.recipients.iter().any(|named| named.mailbox() == of_grant),
        GrantKind::Sent => header.facts.sender.as_ref().is_some_and(|s| s.mailbox() == of_grant),
    };
    if is_named {
        Ok(())
    } else {
        Err(VaultError::Refused("a grant for a reader that was not sealed"))
    }
}
