//! Brings back a lost or damaged book from the sealed bodies alone: each begins with its wrapped
//! key and, sealed, with its envelope. Every recipient of a message that comes back waits again: a
//! duplicate at worst, never a loss.

use super::{
    OpenError, Options,
    book::{self, Book, Changes},
    durability,
    journal::{self, Entry},
    layout::{Layout, make_dir},
    open_book, segments,
};
use crate::{
    mail::QueueId,
    seal::{Class, DataKey, Event, KeyRing, Opener, Prelude, Purpose, SealedHeader, SealedIndex},
    store::{Locator, MessageRow, RecipientRow, StoreError},
};
use jiff::Timestamp;
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Unreadable bodies named in a report; more are only counted.
const NAMED: usize = 1000;
/// Messages in one commit.
const GROUP: u64 = 64;
/// Bytes read at once.
const PIECE: usize = 256 * 1024;

/// What a rebuild found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RebuildReport {
    /// Where the old book lies now, if there was one.
    pub aside: Option<PathBuf>,
    /// Messages brought back.
    pub messages: u64,
    /// Their recipients: all of them wait.
    pub recipients: u64,
    /// Their content in bytes.
    pub bytes: u64,
    /// Notices and codes, which are not brought back: they come anew.
    pub own: u64,
    /// Bodies whose key had been destroyed.
    pub destroyed: u64,
    /// Bodies that do not open.
    pub unreadable: u64,
    /// Where (the first thousand of them), and why.
    pub named: Vec<(String, String)>,
}
/// Why nothing was rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The vault does not open, or another process has it open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// No body opens with this key ring; nothing was touched.
    #[error(
        "none of the {0} sealed messages opens with this key ring: is it the right \
         one? Nothing was changed"
    )]
    WrongRing(u64),
    /// The new book cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}
/// A sealed body where it lies.
struct Found<'a> {
    name: String,
    /// By its record or its file's name.
    id: QueueId,
    at: Locator,
    sealed: &'a mut dyn Read,
}
/// What a body turned out to be.
enum Verdict {
    Back(Box<(MessageRow, Vec<RecipientRow>)>),
    Own,
    Destroyed,
    Unreadable(String),
}

/// Recreates the book of the vault in `dir`, with the server stopped. The old book is moved aside,
/// never deleted. `progress` is called after every body.
pub fn rebuild(
    dir: &Path,
    ring: &KeyRing,
    now: Timestamp,
    progress: &mut dyn FnMut(&RebuildReport),
) -> Result<RebuildReport, RebuildError> {
    let layout = Layout::new(dir);
    // Held to the end.
    let _lock = layout.prepare()?;
    layout.mark_again()?;
    durability::install()?;
    durability::check()?;
    place_bodies(&layout).map_err(|e| OpenError::io(&layout.journal(), e))?;
    try_ring(&layout, ring)?;
    let aside = layout.set_book_aside(now).map_err(|e| OpenError::io(dir, e))?;
    let db = open_book(&layout, &Options::default())?;
    let report = RebuildReport { aside, ..RebuildReport::default() };
    let mut work = Work { book: Book::new(db), ring, now, report };
    each_body(&layout, &mut |found| {
        work.body(found).map_err(io::Error::other)?;
        progress(&work.report);
        Ok(())
    })
    .map_err(|e| StoreError::Fatal(e.to_string()))?;
    // Last: a rebuild that was cut short leaves no book.
    work.book.put_head()?;
    Ok(work.report)
}

/// Bodies that only the journal holds so far come into their segments; its rows are of the old book,
/// and are set aside with it.
fn place_bodies(layout: &Layout) -> io::Result<()> {
    for sheet in journal::read(layout)? {
        // Damage in the log takes no body that still reads.
        for entry in sheet.entries.into_iter().chain(sheet.behind.entries) {
            if let Entry::Write(segment, offset, bytes) = entry {
                segments::replay(layout, segment, offset, &bytes)?;
            }
        }
    }
    segments::sync(layout)
}

/// A ring that opens nothing is the wrong one; better to find out before anything is moved.
fn try_ring(layout: &Layout, ring: &KeyRing) -> Result<(), RebuildError> {
    let (mut good, mut bad) = (0u64, 0u64);
    let tried = each_body(layout, &mut |found| {
        let mut bytes = Vec::new();
        if (&mut *found.sealed).take(Prelude::MAX as u64).read_to_end(&mut bytes).is_err() {
            return Ok(());
        }
        if let Ok(prelude) = Prelude::parse(&bytes)
            && prelude.wrapped().count() > 0
        {
            *(if unwrap(ring, &prelude).is_ok() { &mut good } else { &mut bad }) += 1;
        }
        Ok(())
    });
    tried.map_err(|e| OpenError::io(layout.root(), e))?;
    if good == 0 && bad > 0 { Err(RebuildError::WrongRing(bad)) } else { Ok(()) }
}
/// The data key, by the first wrap that opens.
fn unwrap(ring: &KeyRing, prelude: &Prelude) -> Result<DataKey, String> {
    let mut why = "its key has been destroyed".to_owned();
    for wrapped in prelude.wrapped() {
        match ring.unwrap(wrapped, Purpose::Message, prelude.id) {
            Ok(key) => return Ok(key),
            Err(e) => why = e.to_string(),
        }
    }
    Err(why)
}
/// Visits all bodies: segments first, then files.
fn each_body(
    layout: &Layout,
    visit: &mut dyn FnMut(Found<'_>) -> io::Result<()>,
) -> io::Result<()> {
    make_dir(&layout.segments())?;
    for number in segments::numbers(&layout.segments())? {
        segments::walk(&layout.segments(), number, |record| {
            let name = format!("body/seg/{number:04}: {}", record.id);
            let mut sealed = record.sealed.as_slice();
            visit(Found { name, id: record.id, at: record.at, sealed: &mut sealed })
        })?;
    }
    for (id, path) in layout.message_files()? {
        let mut file = File::open(&path)?;
        let at = Locator::File { length: file.metadata()?.len() };
        visit(Found { name: path.display().to_string(), id, at, sealed: &mut file })?;
    }
    Ok(())
}

struct Work<'a> {
    book: Book,
    ring: &'a KeyRing,
    now: Timestamp,
    report: RebuildReport,
}
impl Work<'_> {
    fn body(&mut self, mut found: Found<'_>) -> Result<(), StoreError> {
        match self.judge(&mut found) {
            Verdict::Back(rows) => return self.enter(&rows.0, &rows.1),
            Verdict::Own => self.report.own += 1,
            Verdict::Destroyed => self.report.destroyed += 1,
            Verdict::Unreadable(why) => {
                self.report.unreadable += 1;
                if self.report.named.len() < NAMED {
                    self.report.named.push((found.name, why));
                }
            }
        }
        Ok(())
    }
    fn enter(&mut self, row: &MessageRow, recipients: &[RecipientRow]) -> Result<(), StoreError> {
        let id = row.facts.id;
        if self.book.has(&book::message(id))? {
            return Ok(());
        }
        let mut changes = Changes::default();
        changes.put(book::message(id), row)?;
        for recipient in recipients {
            changes.put(book::recipient(id, recipient.index), recipient)?;
        }
        self.book.take(changes);
        self.report.messages += 1;
        self.report.recipients += recipients.len() as u64;
        self.report.bytes += row.size;
        if self.report.messages.is_multiple_of(GROUP) { self.book.write_through() } else { Ok(()) }
    }
    fn judge(&self, found: &mut Found<'_>) -> Verdict {
        let mut bytes = Vec::new();
        if let Err(e) = (&mut *found.sealed).take(PIECE as u64).read_to_end(&mut bytes) {
            return Verdict::Unreadable(e.to_string());
        }
        let prelude = match Prelude::parse(&bytes) {
            Err(e) => return Verdict::Unreadable(e.to_string()),
            Ok(prelude) if prelude.wrapped().count() == 0 => return Verdict::Destroyed,
            Ok(prelude) => prelude,
        };
        if prelude.id != found.id {
            return Verdict::Unreadable(format!("it says that it is {}", prelude.id));
        }
        self.open(found, bytes, &prelude).unwrap_or_else(Verdict::Unreadable)
    }
    /// Opens the body to its end, so that nothing comes back that could not be delivered.
    fn open(
        &self,
        found: &mut Found<'_>,
        mut bytes: Vec<u8>,
        prelude: &Prelude,
    ) -> Result<Verdict, String> {
        let key = unwrap(self.ring, prelude)?;
        let mut opener = Opener::new(prelude.format, &key, found.id);
        let (mut header, mut size, mut index) = (None, 0, None);
        while !bytes.is_empty() {
            opener.feed(&bytes);
            while let Some(event) = opener.poll().map_err(|e| e.to_string())? {
                match event {
                    Event::Header(text) => {
                        let parsed: SealedHeader = serde_json::from_slice(&text)
                            .map_err(|e| format!("its envelope cannot be read: {e}"))?;
                        let length = u32::try_from(text.len()).map_err(|e| e.to_string())?;
                        header = Some((parsed, length));
                    }
                    Event::Content(offset, chunk) => size = offset + chunk.len() as u64,
                    // An index that does not read takes nothing from the message.
                    Event::Index(text) => index = serde_json::from_slice::<SealedIndex>(&text).ok(),
                    Event::End => {}
                }
            }
            bytes.clear();
            let mut piece = found.sealed.take(PIECE as u64);
            piece.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        }
        opener.finish().map_err(|e| e.to_string())?;
        let (SealedHeader { mut facts, recipients }, header_len) =
            header.ok_or("it has no envelope")?;
        if let Some(SealedIndex { facts: complete, parts }) = index {
            facts = complete.unwrap_or(facts);
            facts.rule.pickup = parts.pickup.map(|wish| wish.kind).unwrap_or(facts.rule.pickup);
        }
        let body = found.at.clone();
        let row = MessageRow { facts, size, header_len, body, done: None };
        Ok(self.verdict(found.id, row, recipients))
    }
    fn verdict(
        &self,
        id: QueueId,
        row: MessageRow,
        recipients: Vec<crate::mail::Address>,
    ) -> Verdict {
        if row.facts.id != id {
            return Verdict::Unreadable("its envelope is of another message".to_owned());
        }
        match row.facts.class {
            Class::Notice | Class::Code => Verdict::Own,
            Class::Protected | Class::Report | Class::TlsReport => {
                let numbered = (0..=u16::MAX).zip(recipients);
                let wait = |(index, address)| RecipientRow::new(index, address, self.now);
                Verdict::Back(Box::new((row, numbered.map(wait).collect())))
            }
        }
    }
}
