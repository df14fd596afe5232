//! The embedded default: a book of rows in sled, sealed bodies as files beside it.
//!
//! sled holds only what is small: it would keep large values in memory, and does not sync values
//! that become blobs. One thread changes rows (`committer`), one writes them into sled (`carrier`), and
//! who only reads waits for neither (`snapshot`). The cure for sled's `flush()` is in [`durability`].

mod agenda;
mod audit;
mod book;
mod carrier;
mod committer;
mod compaction;
pub mod durability;
mod files;
mod journal;
mod layout;
mod notes;
mod orders;
mod orphans;
mod people;
mod queue;
pub mod rebuild;
mod segments;
mod snapshot;
mod space;
mod tally;

pub use rebuild::{RebuildError, RebuildReport, rebuild};

use crate::{
    clock::TrustedTime,
    mail::{Address, GrantId, QueueId},
    seal::{Prelude, TokenHash, WrappedKey},
    store::{
        Account, AccountChange, AccountMove, Announced, Ask, Attempt, AuditChain, AuditEvent,
        AuditRecord, AuditStore, BodyStore, BodyWriter, Claimed, Doomed, Filter, Grant, Health,
        Locator, MessageRow, Moved, NewBody, NewMessage, NoteKind, NoteStore, Order, Ordered,
        PeopleStore, ProofChange, QueueStore, RecipientRow, Session, Settle, StoreError, Totals,
        body::{Aside, BodyReader},
    },
};
use agenda::Agenda;
use async_trait::async_trait;
use book::{Book, Changes};
use committer::{Committer, Kind, State};
use files::{FileReader, FileWriter, MemoryReader};
use jiff::{SignedDuration, Timestamp};
use journal::{Entry, Journal, LogId, Read};
use layout::Layout;
use orphans::Ages;
use segments::{Fresh, Live, Segments};
use snapshot::Readers;
use space::{Room, Runway, Watch};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs::File,
    io,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tally::Tally;
use tokio::sync::Notify;

/// Recipients in one answer to a listing, about: it is held whole.
const LISTED: usize = 10_000;

/// Sizes and limits; the defaults suit a server.
#[derive(Debug, Clone)]
pub struct Options {
    /// Length of a segment of small bodies.
    pub segment_size: u64,
    /// Blocks laid aside to relieve a full disk, a tenth of it at most; 0: none.
    pub reserve: u64,
    /// No new mail below that much free space,
    pub min_free: u64,
    /// nor below that many hundredths of the disk;
    pub min_free_percent: u8,
    /// but a small disk need never have more free than that many hundredths.
    pub min_free_most_percent: u8,
    /// [`SledStore::set_orphans_aside`] sets bodies without a row aside that are older than this,
    pub orphan_age: Duration,
    /// and removes what was set aside so long ago.
    pub aside_age: Duration,
    /// sled's cache in bytes.
    pub cache: u64,
}
impl Default for Options {
    fn default() -> Self {
        Self {
            segment_size: 64 << 20,
            reserve: 64 << 20,
            min_free: 1 << 30,
            min_free_percent: 5,
            min_free_most_percent: 20,
            orphan_age: Duration::from_hours(1),
            aside_age: Duration::from_hours(30 * 24),
            // A target, not a bound: sled takes up to twice as much. More made nothing faster in a book
            // of a million rows.
            cache: 16 << 20,
        }
    }
}
/// Why a vault does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{}: another process has this vault open", .0.display())]
    Locked(PathBuf),
    /// What sled writes would not reach the disk.
    #[error(
        "the filter that makes the book durable (sync_file_range answers ENOSYS) is not in force: \
         {0}; run on a kernel with seccomp and let no sandbox forbid seccomp(2) or prctl(2)"
    )]
    NotDurable(String),
    /// Index or log cannot be read, or do not belong together. Nothing was changed.
    #[error(
        "the vault's index or log is damaged or lost ({0}); nothing was changed. If a file is of \
         another day, put back the one that belongs here; else run `restante vault rebuild`, with \
         the server stopped: the sealed messages are there"
    )]
    Damaged(String),
    /// Not a vault, or one of another version.
    #[error("{0}")]
    Format(String),
    /// sled needs space even to open.
    #[error("{}: no space left to open the vault", .0.display())]
    Full(PathBuf),
    /// A file.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}
impl OpenError {
    fn io(path: &Path, source: io::Error) -> Self {
        if layout::is_full(&source) {
            Self::Full(path.to_owned())
        } else {
            Self::Io { path: path.to_owned(), source }
        }
    }
}

/// The embedded store: queue, bodies and people in one directory.
#[derive(Debug)]
pub struct SledStore {
    committer: Committer,
    readers: Readers,
    layout: Layout,
    fresh: Fresh,
    watch: Arc<Watch>,
    arrivals: Arc<Notify>,
    ages: Ages,
    endings: Arc<Notify>,
}
impl SledStore {
    /// Opens the vault in `dir`, or makes it. Installs [`durability`]'s filter and refuses to open
    /// where it is not in force. Blocks: call it before the first task runs, or off the runtime.
    pub fn open(dir: &Path, options: Options) -> Result<Self, OpenError> {
        let layout = Layout::new(dir);
        let watch = Arc::new(Watch::new(&layout, &options));
        let lock = layout.prepare()?;
        // Where the disk is full, the reserve goes before anything is written.
        watch.room(false);
        layout.mark()?;
        durability::install()?;
        durability::check()?;
        layout.empty_tmp().map_err(|e| OpenError::io(&layout.tmp(), e))?;
        let mut book = Book::new(open_book(&layout, &options)?);
        check_head(&mut book, &layout)?;
        let journal = replay(&mut book, &layout, &watch)?;
        let state = load(&layout, &options, book, lock, &watch)?;
        watch.lay_reserve();
        let (arrivals, endings) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let fresh = state.segments.fresh();
        let runway = Runway::new(&layout, Arc::clone(&watch));
        let committer =
            Committer::start(state, journal, runway, Arc::clone(&watch), [&arrivals, &endings]);
        let committer = committer.map_err(|e| OpenError::io(dir, e))?;
        let ages = Ages { orphan: options.orphan_age, aside: options.aside_age };
        let readers = committer.readers();
        Ok(Self { committer, readers, layout, fresh, watch, arrivals, endings, ages })
    }
}

fn damaged(e: StoreError) -> OpenError {
    OpenError::Damaged(e.to_string())
}
/// A new vault gets the head of its book; beside sealed bodies a book without one is a lost book.
fn check_head(book: &mut Book, layout: &Layout) -> Result<(), OpenError> {
    match book.get::<u32>(book::HEAD).map_err(damaged)? {
        Some(book::VERSION) => Ok(()),
        Some(version) => Err(OpenError::Format(format!(
            "{}: the book is of version {version}; this program reads version {}",
            layout.meta().display(),
            book::VERSION
        ))),
        None if layout.has_bodies().map_err(|e| OpenError::io(layout.root(), e))? => {
            Err(OpenError::Damaged("it is empty beside sealed messages".to_owned()))
        }
        None => book.put_head().map_err(damaged),
    }
}
/// Brings what the last run answered for, and did not carry over, into segments and book; then the
/// journal begins anew.
fn replay(book: &mut Book, layout: &Layout, watch: &Arc<Watch>) -> Result<Journal, OpenError> {
    let io = |e| OpenError::io(&layout.journal(), e);
    let carried = book.epoch().map_err(damaged)?;
    let logs = book.logs().map_err(damaged)?;
    let sheets = journal::read(layout).map_err(io)?;
    if let Some(sheet) = sheets.iter().find(|sheet| sheet.old && sheet.used) {
        return Err(OpenError::Format(format!(
            "{} was written by an earlier version: start and stop that one once more, then this one",
            sheet.path.display()
        )));
    }
    journal::check(&sheets, carried, &logs).map_err(OpenError::Damaged)?;
    let borne: Vec<LogId> = sheets.iter().filter_map(Read::log).collect();
    let (mut last, mut used) = (carried, false);
    for Read { epoch, used: marked, entries, .. } in sheets {
        used |= marked;
        if epoch <= carried {
            continue;
        }
        last = epoch;
        let mut changes = Changes::default();
        for entry in entries {
            match entry {
                Entry::Row(key, value) => changes.again(key, value),
                Entry::Write(segment, offset, bytes) => {
                    segments::replay(layout, segment, offset, &bytes).map_err(io)?;
                }
            }
        }
        book.take(changes);
    }
    if last > carried {
        segments::sync(layout).map_err(io)?;
        if !Runway::new(layout, Arc::clone(watch)).covers(book.pending_bytes()) {
            return Err(OpenError::Full(layout.root().to_owned()));
        }
        book.write_through_as(Some(last)).map_err(damaged)?;
    }
    let log = random().map_err(io)?;
    if !logs.is_empty() {
        // Until both sheets bear the new one.
        book.put_logs(&[borne, vec![log]].concat()).map_err(damaged)?;
    }
    let length = watch.portion(journal::SHEET);
    let journal = Journal::open(layout, log, length, last, used).map_err(io)?;
    // From now on a sheet that is missing, or of an earlier run, is noticed.
    book.put_logs(&[log]).map_err(damaged)?;
    Ok(journal)
}
fn random() -> io::Result<LogId> {
    let mut id = LogId::default();
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
    Ok(id)
}
/// Opens sled. A full disk gets one more try without the reserve.
fn open_book(layout: &Layout, options: &Options) -> Result<::sled::Db, OpenError> {
    match try_open_book(layout, options) {
        Err(OpenError::Full(path)) => {
            if std::fs::remove_file(layout.reserve()).is_err() {
                return Err(OpenError::Full(path));
            }
            try_open_book(layout, options)
        }
        other => other,
    }
}
fn try_open_book(layout: &Layout, options: &Options) -> Result<::sled::Db, OpenError> {
    let meta = layout.meta();
    let old = layout.book().exists();
    // sled would make it open to everybody; rows name senders and recipients.
    layout::make_dir(&meta).map_err(|e| OpenError::io(&meta, e))?;
    drop_unfinished(&meta).map_err(|e| OpenError::io(&meta, e))?;
    let config = ::sled::Config::new()
        .path(&meta)
        .segment_size(layout::BOOK_SEGMENT)
        .cache_capacity(options.cache)
        .flush_every_ms(Some(500));
    // sled panics on a damaged file.
    let opened = catch_unwind(AssertUnwindSafe(|| config.open()));
    let db = match opened {
        Ok(Ok(db)) => db,
        Ok(Err(::sled::Error::Io(e))) if layout::is_full(&e) => {
            return Err(OpenError::Full(meta));
        }
        Ok(Err(::sled::Error::Io(e))) if e.to_string().contains("could not acquire lock") => {
            return Err(OpenError::Locked(layout.root().to_owned()));
        }
        Ok(Err(e)) => return Err(OpenError::Damaged(e.to_string())),
        Err(_) => return Err(OpenError::Damaged("it cannot be read".to_owned())),
    };
    if !old {
        sync_new_book(layout).map_err(|e| OpenError::io(&meta, e))?;
    }
    Ok(db)
}
/// As it opens, sled writes a map of its pages beside them and gives it its name when it is whole.
/// One that a crash or a full disk left unfinished it takes for the newest, and then for damage:
/// the store would open no more. Without it, sled goes on from the last whole one.
fn drop_unfinished(meta: &Path) -> io::Result<()> {
    for file in std::fs::read_dir(meta)? {
        let path = file?.path();
        if path.extension().is_some_and(|end| end == "generating") {
            tracing::info!(file = %path.display(), "removing an unfinished map of the book");
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}
/// sled syncs neither its directories nor its configuration.
fn sync_new_book(layout: &Layout) -> io::Result<()> {
    let meta = layout.meta();
    for path in [layout.book(), meta.join("conf"), meta.join("blobs"), meta.clone()] {
        if path.exists() {
            File::open(&path)?.sync_all()?;
        }
    }
    layout::sync_dir(layout.root())
}
/// What the book tells at the start: what is due, what counts, which bodies live.
#[derive(Default)]
struct Found {
    tally: Tally,
    agenda: Agenda,
    live: BTreeMap<u32, Live>,
    files: HashSet<QueueId>,
    /// Rows that can't be read, and messages whose other rows are missing.
    unread: BTreeSet<book::Key>,
    /// Messages whose rows can't be read.
    unknown: HashSet<QueueId>,
}
impl Found {
    /// Reads the book once.
    fn read(book: &Book) -> Result<Self, StoreError> {
        let mut found = Self::default();
        let Self { tally, agenda, live, files, unread, unknown } = &mut found;
        unread.extend(book.each(book::MESSAGES, |_, row: MessageRow| {
            tally.keep(&row);
            match row.body {
                Locator::Segment { segment, offset, length } => {
                    live.entry(segment).or_default().add(offset, length);
                }
                Locator::File { .. } => {
                    files.insert(row.facts.id);
                }
                Locator::Memory | Locator::Gone => {}
            }
        })?);
        unknown.extend(unread.iter().filter_map(|key| book::message_of(key)));
        unread.extend(book.each(book::RECIPIENTS, |key, row: RecipientRow| {
            let Some(id) = book::message_of(key) else { return };
            tally.add(id, &row);
            if let Some(next) = row.state.due() {
                agenda.wait(id, row.address.domain(), row.index, next);
            }
        })?);
        let grants = book.each(book::GRANTS, |_, grant: Grant| tally.grant(&grant))?;
        if !grants.is_empty() {
            let ids: Vec<GrantId> = grants.iter().filter_map(|key| book::grant_at(key)).collect();
            book.messages_of(&ids)?.into_iter().for_each(|id| tally.doubt(id));
            unread.extend(grants);
        }
        for id in tally.stranded() {
            let known = unread.range(book::under(book::recipients(id))).next().is_some();
            if !known {
                let what = "recipients of a message are missing in the index; it is left as it is";
                tracing::error!(%id, what);
                unread.insert(book::message(id));
            }
        }
        Ok(found)
    }
}
fn load(
    layout: &Layout,
    options: &Options,
    book: Book,
    lock: File,
    watch: &Watch,
) -> Result<State, OpenError> {
    let found = Found::read(&book).map_err(damaged)?;
    let Found { tally, agenda, live, mut files, unread, unknown } = found;
    // Whether they have a file is not known; one that is there is theirs.
    files.extend(unknown.iter().filter(|id| layout.message(**id).exists()));
    let segments = Segments::open(layout, options, live).and_then(|mut segments| {
        if !unknown.is_empty() {
            segments = segments.keeping();
        }
        segments.sweep()?;
        tell_orphans(layout, files, &segments)?;
        Ok(segments.laid_by(watch.portion(segments::STRIDE)))
    });
    let segments = segments.map_err(|e| OpenError::io(layout.root(), e))?;
    let audit = audit::load_chain(&book).map_err(damaged)?;
    Ok(State {
        audit,
        book,
        agenda,
        tally,
        unread,
        segments,
        room: watch.room(false),
        left: 0,
        arrived: false,
        destroyed: false,
        _lock: lock,
    })
}
/// Names bodies that got no row, and messages that have lost their body.
fn tell_orphans(
    layout: &Layout,
    mut known: HashSet<QueueId>,
    segments: &Segments,
) -> io::Result<()> {
    for (id, path) in layout.message_files()? {
        if !known.remove(&id) {
            let what =
                "a sealed body has no message: a crash came before 250, or the index lost rows";
            tracing::warn!(%id, what);
        } else if path.metadata()?.len() == 0 {
            tracing::error!(%id, file = %path.display(), "the sealed body of a message is empty");
        }
    }
    for id in known {
        let file = layout.message(id);
        tracing::error!(%id, file = %file.display(), "the sealed body of a message is missing");
    }
    segments.tell_missing()
}

#[async_trait]
impl QueueStore for SledStore {
    async fn accept(&self, message: NewMessage) -> Result<(), StoreError> {
        let weight = weight(&message);
        self.committer
            .ask(Kind::Accept, weight, move |s| s.accept(message))
            .await
            .inspect_err(|e| self.note_trouble(e))
    }
    fn announce(&self) -> Announced {
        self.committer.announce()
    }
    async fn claim(&self, ask: Ask) -> Result<Claimed, StoreError> {
        self.committer.read(move |s| s.claim(ask)).await
    }
    fn arrivals(&self) -> Arc<Notify> {
        Arc::clone(&self.arrivals)
    }
    fn endings(&self) -> Arc<Notify> {
        Arc::clone(&self.endings)
    }
    async fn settle(&self, settle: Settle) -> Result<(), StoreError> {
        let rows: usize = settle.outcomes.iter().map(|outcome| outcome.attempts.len() + 2).sum();
        let weight = settle.spawn.iter().map(weight).sum::<usize>() + rows.saturating_mul(ROW);
        self.committer
            .ask(Kind::Settle, weight, move |s| s.settle(settle))
            .await
            .inspect_err(|e| self.note_trouble(e))
    }
    async fn release(&self, token: u64) -> Result<(), StoreError> {
        self.committer
            .run(0, move |s| {
                s.arrived |= s.agenda.release(token);
                Ok(())
            })
            .await
    }
    async fn order(&self, order: Order, now: Timestamp) -> Result<Ordered, StoreError> {
        let weight = order.spawn.iter().map(weight).sum();
        self.committer
            .write(weight, move |s| s.order(order, now))
            .await
            .inspect_err(|e| self.note_trouble(e))
    }
    async fn message(
        &self,
        id: QueueId,
    ) -> Result<Option<(MessageRow, Vec<RecipientRow>)>, StoreError> {
        self.readers.read(move |s| s.message(id)).await
    }
    async fn attempts(&self, id: QueueId, index: u16) -> Result<Vec<Attempt>, StoreError> {
        self.readers.read(move |s| s.attempts(id, index)).await
    }
    async fn list(
        &self,
        filter: &Filter,
        mut after: Option<QueueId>,
        max: usize,
    ) -> Result<Vec<(MessageRow, Vec<RecipientRow>)>, StoreError> {
        let mut found = Vec::<queue::Listed>::new();
        let mut rows = 0;
        while found.len() < max && rows < LISTED {
            let (filter, left) = (filter.clone(), max - found.len());
            let open = if filter.open {
                Some(self.committer.read(move |s| Ok(s.open_after(after))).await?)
            } else {
                None
            };
            let slice = self.readers.read(move |s| s.list(&filter, after, left, open));
            let (more, next) = slice.await?;
            rows += more.iter().map(|(_, recipients)| recipients.len()).sum::<usize>();
            found.extend(more);
            if next.is_none() {
                break;
            }
            after = next;
        }
        Ok(found)
    }
    async fn totals(&self) -> Result<Totals, StoreError> {
        self.committer.read(|s| s.totals()).await
    }
    async fn doomed(&self, now: Option<TrustedTime>, max: usize) -> Result<Doomed, StoreError> {
        self.committer.free(move |s| s.doomed(now, max)).await
    }
    async fn forget_body(&self, id: QueueId) -> Result<(), StoreError> {
        self.committer.free(move |s| s.forget_body(id)).await
    }
    async fn checkpoint(&self) -> Result<(), StoreError> {
        self.committer.checkpoint().await
    }
    async fn purge(
        &self,
        now: TrustedTime,
        age: SignedDuration,
        max: usize,
    ) -> Result<usize, StoreError> {
        self.committer.write(0, move |s| s.purge(now, age, max)).await
    }
    fn health(&self) -> Health {
        self.watch.health()
    }
}
impl SledStore {
    /// Mail is refused for a while after the disk was found full.
    fn note_trouble(&self, e: &StoreError) {
        match e {
            StoreError::Full => self.watch.ran_full(),
            StoreError::Busy
            | StoreError::NotFound
            | StoreError::Corrupt(_)
            | StoreError::Fenced
            | StoreError::Fatal(_) => {}
        }
    }
}
/// What a row weighs, roughly.
const ROW: usize = 512;
/// Sealed bytes that travel with a message, and its rows.
fn weight(message: &NewMessage) -> usize {
    let rows = message.recipients.len().saturating_add(1).saturating_mul(ROW);
    match &message.body {
        NewBody::Small(sealed) => sealed.len().saturating_add(rows),
        NewBody::At(_) => rows,
    }
}

#[async_trait]
impl BodyStore for SledStore {
    async fn aside(&self, id: QueueId) -> Result<Box<dyn Aside>, StoreError> {
        let writer = FileWriter::begin(id, self.layout.clone(), Arc::clone(&self.watch)).await?;
        Ok(Box::new(writer))
    }
    async fn create(&self, id: QueueId) -> Result<Box<dyn BodyWriter>, StoreError> {
        let writer = FileWriter::begin(id, self.layout.clone(), Arc::clone(&self.watch)).await?;
        Ok(Box::new(writer))
    }
    async fn open(
        &self,
        id: QueueId,
        at: &Locator,
        range: Range<u64>,
    ) -> Result<Box<dyn BodyReader>, StoreError> {
        if let Locator::Segment { segment, offset, .. } = at
            && let Some(sealed) = self.fresh.get(*segment, *offset)
        {
            return Ok(Box::new(MemoryReader::new(sealed, range)));
        }
        Ok(Box::new(FileReader::open(&self.layout, id, at, range).await?))
    }
    async fn compact(&self) -> Result<u64, StoreError> {
        compaction::run(&self.committer, &self.layout).await
    }
    async fn rewrap(
        &self,
        id: QueueId,
        at: &Locator,
        slot: usize,
        key: &WrappedKey,
    ) -> Result<bool, StoreError> {
        match at.clone() {
            Locator::Segment { segment, offset, .. } => {
                // What was destroyed before it came into its segment has no prelude there.
                if !self.committer.read(move |s| Ok(s.segments.lives(segment, offset))).await? {
                    return Ok(false);
                }
                let mut head = self.open(id, at, 0..Prelude::MAX as u64).await?;
                let path = segments::path(&self.layout.segments(), segment);
                let rekeyed = files::rekeyed(&path, &head.next().await?, slot, key)?;
                let Some((prelude, slots)) = rekeyed else { return Ok(false) };
                let (first, slots) = (prelude.slot_at(0), slots.into());
                let patch = move |s: &mut State| s.segments.patch(segment, offset, (first, &slots));
                self.committer.write(ROW, patch).await
            }
            Locator::File { .. } => {
                let (layout, key) = (self.layout.clone(), key.clone());
                files::off(move || files::rewrap(&layout, id, slot, &key)).await
            }
            Locator::Memory | Locator::Gone => Ok(false),
        }
    }
    async fn delete(&self, id: QueueId, at: &Locator) -> Result<(), StoreError> {
        match at.clone() {
            Locator::Segment { segment, offset, length } => {
                self.committer.write(0, move |s| s.segments.erase(segment, offset, length)).await
            }
            Locator::File { .. } => {
                let path = self.layout.message(id);
                files::off(move || files::destroy(&path)).await
            }
            Locator::Memory | Locator::Gone => Ok(()),
        }
    }
}

#[async_trait]
impl PeopleStore for SledStore {
    async fn grant_by_token(&self, token: &TokenHash) -> Result<Option<Grant>, StoreError> {
        let token = *token;
        self.readers.read(move |s| s.grant_by_token(&token)).await
    }
    async fn grants_by_hash(&self, start: [u8; 6], max: usize) -> Result<Vec<Grant>, StoreError> {
        self.readers.read(move |s| s.grants_by_hash(start, max)).await
    }
    async fn grant(&self, id: GrantId) -> Result<Option<Grant>, StoreError> {
        self.readers.read(move |s| s.grant(id)).await
    }
    async fn grants(
        &self,
        recipient: Option<&Address>,
        after: Option<GrantId>,
        max: usize,
    ) -> Result<Vec<Grant>, StoreError> {
        let recipient = recipient.cloned();
        self.readers.read(move |s| s.grants(recipient.as_ref(), after, max)).await
    }
    async fn sent(
        &self,
        author: &Address,
        after: Option<GrantId>,
        max: usize,
    ) -> Result<Vec<Grant>, StoreError> {
        let author = author.clone();
        self.readers.read(move |s| s.sent(&author, after, max)).await
    }
    async fn update_grant(&self, grant: &Grant) -> Result<(), StoreError> {
        let grant = grant.clone();
        self.committer.free(move |s| s.update_grant(&grant)).await
    }
    async fn mark_opened(&self, id: GrantId, at: Timestamp) -> Result<bool, StoreError> {
        self.committer.write(0, move |s| s.mark_opened(id, at)).await
    }
    async fn change_proof(&self, change: ProofChange) -> Result<bool, StoreError> {
        let weight = change.mail.iter().map(weight).sum();
        let changed = self.committer.write(weight, move |s| s.change_proof(change));
        changed.await.inspect_err(|e| self.note_trouble(e))
    }
    async fn account(&self, address: &Address) -> Result<Option<Account>, StoreError> {
        let address = address.clone();
        self.readers.read(move |s| s.account(&address)).await
    }
    async fn account_of(&self, generation: [u8; 16]) -> Result<Option<Account>, StoreError> {
        self.readers.read(move |s| s.account_of(generation)).await
    }
    async fn change_account(&self, change: AccountChange) -> Result<bool, StoreError> {
        let weight = change.mail.iter().map(weight).sum();
        self.committer
            .write(weight, move |s| s.change_account(change))
            .await
            .inspect_err(|e| self.note_trouble(e))
    }
    async fn move_account(&self, change: AccountMove) -> Result<Moved, StoreError> {
        let weight = change.mail.iter().map(weight).sum();
        let moved = self.committer.write(weight, move |s| s.move_account(change));
        moved.await.inspect_err(|e| self.note_trouble(e))
    }
    async fn remove_account(&self, address: &Address, at: Timestamp) -> Result<bool, StoreError> {
        let address = address.clone();
        self.committer.write(0, move |s| s.remove_account(&address, at)).await
    }
    async fn vacated(&self, address: &Address) -> Result<Option<Timestamp>, StoreError> {
        let address = address.clone();
        self.readers.read(move |s| s.vacated(&address)).await
    }
    async fn accounts(
        &self,
        after: Option<&Address>,
        max: usize,
    ) -> Result<Vec<Account>, StoreError> {
        let after = after.cloned();
        self.readers.read(move |s| s.accounts(after.as_ref(), max)).await
    }
    async fn session(&self, id: &TokenHash) -> Result<Option<Session>, StoreError> {
        let id = *id;
        self.readers.read(move |s| s.session(&id)).await
    }
    async fn sessions(&self, account: &Address) -> Result<Vec<Session>, StoreError> {
        let account = account.clone();
        self.readers.read(move |s| s.sessions(&account)).await
    }
    async fn put_session(&self, session: &Session) -> Result<(), StoreError> {
        let session = session.clone();
        self.committer.write(0, move |s| s.put_session(&session)).await
    }
    async fn change_session(&self, old: &Session, new: &Session) -> Result<bool, StoreError> {
        let (old, new) = (old.clone(), new.clone());
        self.committer.write(0, move |s| s.change_session(&old, &new)).await
    }
    async fn touch_session(&self, id: &TokenHash, seen: Timestamp) -> Result<(), StoreError> {
        let id = *id;
        self.committer
            .run(0, move |s| match s.room {
                Room::Enough | Room::Scarce => s.touch_session(&id, seen),
                // Reading goes on.
                Room::Gone => Ok(()),
            })
            .await
    }
    async fn remove_session(&self, id: &TokenHash) -> Result<(), StoreError> {
        let id = *id;
        self.committer.write(0, move |s| s.remove_session(&id)).await
    }
    async fn expire_sessions(
        &self,
        before: Timestamp,
        after: Option<TokenHash>,
        max: usize,
    ) -> Result<Option<TokenHash>, StoreError> {
        self.committer.write(0, move |s| s.expire_sessions(before, after, max)).await
    }
}

#[async_trait]
impl NoteStore for SledStore {
    async fn put_note(&self, kind: NoteKind, key: &str, value: Vec<u8>) -> Result<(), StoreError> {
        let (key, weight) = (key.to_owned(), value.len());
        let put = self.committer.write(weight, move |s| s.put_note(kind, &key, &value));
        put.await.inspect_err(|e| self.note_trouble(e))
    }
    async fn note(&self, kind: NoteKind, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let key = key.to_owned();
        self.readers.read(move |s| s.note(kind, &key)).await
    }
    async fn notes(
        &self,
        kind: NoteKind,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let after = after.map(str::to_owned);
        self.readers.read(move |s| s.notes(kind, after.as_deref(), max)).await
    }
    async fn remove_note(&self, kind: NoteKind, key: &str) -> Result<(), StoreError> {
        let key = key.to_owned();
        self.committer.write(0, move |s| s.remove_note(kind, &key)).await
    }
}

#[async_trait]
impl AuditStore for SledStore {
    async fn append(&self, events: Vec<AuditEvent>) -> Result<(), StoreError> {
        let weight = events.len().saturating_mul(ROW);
        self.committer.write(weight, move |s| s.append_audit(events)).await
    }
    async fn events(
        &self,
        of: Option<&Address>,
        before: Option<u64>,
        max: usize,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        let of = of.cloned();
        self.readers.read(move |s| s.audit_events(of.as_ref(), before, max)).await
    }
    async fn chain(&self) -> Result<AuditChain, StoreError> {
        self.committer.read(|s| Ok(s.audit)).await
    }
    async fn records(&self, after: u64, max: usize) -> Result<Vec<AuditRecord>, StoreError> {
        self.readers.read(move |s| s.audit_records(after, max)).await
    }
    async fn purge_events(
        &self,
        now: TrustedTime,
        age: SignedDuration,
        max: usize,
    ) -> Result<usize, StoreError> {
        self.committer.write(0, move |s| s.purge_audit(now, age, max)).await
    }
}
