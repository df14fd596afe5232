//! The journal: what a group of requests changes, rows and small bodies alike, is one write and one
//! sync. Segments and book get it later, off the path that senders wait on; much of it never, because
//! it has changed again by then.
//!
//! Two sheets take turns. A sheet is laid out with zeros, so that a sync has no metadata to write, and
//! is written from its beginning each time. A record is a head (magic, length, epoch, log, check),
//! then its entries; the epoch grows with every turn, so that what an earlier turn left behind it is
//! told from what belongs to this one. A record without entries is the mark of an epoch that has been
//! carried over: a sheet always begins with a head, so that one that was lost is told from an empty
//! one. The book knows the last epoch that is in it whole, and which log is its own.

use super::{
    book::Key,
    layout::{Layout, allocate, make_dir, private, sync_dir, write_zeros},
};
use crate::store::StoreError;
use bytes::Bytes;
use rustix::fs::FallocateFlags;
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::Arc,
};

/// Length of a sheet where the disk is not small. It bounds what waits in memory for book and segments.
pub(super) const SHEET: u64 = 8 * 1024 * 1024;
/// A sheet is laid out in strides of this length.
const STRIDE: u64 = 4 * 1024 * 1024;
const MAGIC: [u8; 4] = *b"RSJ2";
/// Of a log without marks, from before the first release.
const OLD_MAGIC: [u8; 4] = *b"RSJ1";
/// Magic, length, epoch, log, check.
const HEAD: usize = 4 + 4 + 8 + 8 + 16;
const PUT: u8 = 1;
const REMOVE: u8 = 2;
const WRITE: u8 = 3;

/// Tells a log from that of another vault, and from that of an earlier run: each start takes a new one.
pub(super) type LogId = [u8; 8];

/// Entries on their way to the journal.
#[derive(Debug, Default)]
pub(super) struct Entries(Vec<u8>);

impl Entries {
    /// A row is written or removed.
    pub(super) fn row(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.0.push(if value.is_some() { PUT } else { REMOVE });
        self.sized(key);
        if let Some(value) = value {
            self.sized(value);
        }
    }
    /// Bytes of a segment are written.
    pub(super) fn write(&mut self, segment: u32, offset: u64, parts: &[&[u8]]) {
        self.0.push(WRITE);
        self.0.extend_from_slice(&segment.to_be_bytes());
        self.0.extend_from_slice(&offset.to_be_bytes());
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.0.extend_from_slice(&(length as u64).to_be_bytes());
        parts.iter().for_each(|part| self.0.extend_from_slice(part));
    }
    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }
    fn sized(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        self.0.extend_from_slice(bytes);
    }
    fn clear(&mut self) {
        self.0.clear();
        self.0.shrink_to(64 * 1024);
    }
}

/// An entry read back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// See [`Entries::row`].
    Row(Key, Option<Vec<u8>>),
    /// See [`Entries::write`].
    Write(u32, u64, Bytes),
}
/// What a sheet holds.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) path: PathBuf,
    /// Its first head; `None` if there is none.
    first: Option<First>,
    /// It was written before there were marks.
    pub(super) old: bool,
    /// Of its records; 0: there is none.
    pub(super) epoch: u64,
    /// Something lies behind the first head.
    pub(super) used: bool,
    /// In the order in which they came.
    pub(super) entries: Vec<Entry>,
    /// Where something lies that is no record.
    torn: Option<usize>,
    /// The last record ends with the file.
    cut: bool,
    /// Records behind that place.
    pub(super) behind: Behind,
}
/// What a sheet begins with, whether it checks or not: a head is one sector of the disk.
#[derive(Debug, Clone, Copy)]
struct First {
    log: LogId,
    epoch: u64,
    /// The epoch has been carried over.
    mark: bool,
}
/// Records behind one that is damaged.
#[derive(Debug, Default)]
pub(super) struct Behind {
    /// The last epoch among them.
    epoch: u64,
    records: usize,
    pub(super) entries: Vec<Entry>,
}

#[derive(Debug)]
struct Sheet {
    path: PathBuf,
    file: Arc<File>,
    /// Blocks are reserved up to there.
    length: u64,
    /// Zeros are laid up to there.
    laid: u64,
    /// Where the next record goes.
    end: u64,
}

/// A sheet whose content is being carried over.
#[derive(Debug)]
pub(super) struct Carried {
    path: PathBuf,
    file: Arc<File>,
    used: u64,
    mark: [u8; HEAD],
}

impl Carried {
    /// Overwrites it with its mark and zeros, so that nothing of what is destroyed outlasts it here. To
    /// be called when its content is in segments and book, on the disk.
    pub(super) fn overwrite(&self) -> Result<(), StoreError> {
        let overwritten = overwrite(&self.file, &self.mark, self.used);
        overwritten.map_err(|e| StoreError::Fatal(format!("{}: {e}", self.path.display())))
    }
}

/// The journal, open.
#[derive(Debug)]
pub(super) struct Journal {
    log: LogId,
    length: u64,
    epoch: u64,
    /// The last epoch that was carried over and overwritten.
    carried: u64,
    writing: Sheet,
    resting: Sheet,
    buffer: Vec<u8>,
}

/// Reads what the last run left, the older sheet first.
pub(super) fn read(layout: &Layout) -> io::Result<Vec<Read>> {
    let mut sheets = Vec::new();
    for path in paths(layout) {
        let bytes = match std::fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        sheets.push(Read { path, ..parse(&bytes) });
    }
    sheets.sort_by_key(Read::newest);
    Ok(sheets)
}
/// Says why these are not the sheets of the log, of which the index holds everything up to the epoch
/// `carried`; names a torn end in the program's log. `logs` are the ids that the index knows.
pub(super) fn check(sheets: &[Read], carried: u64, logs: &[LogId]) -> Result<(), String> {
    if logs.is_empty() {
        return sheets.iter().try_for_each(|sheet| sheet.check_alone(carried));
    }
    for sheet in sheets {
        sheet.check(carried, logs)?;
    }
    let epochs = || sheets.iter().filter_map(|s| Some((s.first?.epoch, s.path.display())));
    let (last, path) = epochs().max_by_key(|(epoch, _)| *epoch).ok_or("there is no log")?;
    if last < carried {
        return Err(format!("{path} ends with epoch {last}, {}", other_day(carried)));
    }
    if let Some((epoch, path)) = epochs().find(|(epoch, _)| epoch.saturating_add(1) < carried) {
        return Err(format!("{path} holds epoch {epoch}, {}", other_day(carried)));
    }
    let torn = sheets.iter().filter_map(|s| Some((s.first?.epoch, s.torn?, s.path.display())));
    for (epoch, at, path) in torn {
        // A later epoch begins only when all of this one is on the disk.
        if epoch > carried && epoch < last {
            return Err(format!(
                "{path} is damaged: the record at byte {at} of epoch {epoch} does not check, and epoch \
                 {last} came after it"
            ));
        }
    }
    let mut next = carried.saturating_add(1);
    let mut newer: Vec<_> = epochs().filter(|(epoch, _)| *epoch > carried).collect();
    newer.sort_by_key(|(epoch, _)| *epoch);
    for (epoch, path) in newer {
        if epoch != next {
            return Err(format!(
                "{path} holds epoch {epoch}, and epoch {next} is missing, {}",
                other_day(carried)
            ));
        }
        next = next.saturating_add(1);
    }
    Ok(())
}
fn other_day(carried: u64) -> String {
    format!("while the index ends with epoch {carried}: index or log seems to be of another day")
}
impl Read {
    /// A sheet beside an index that knows of no log yet.
    fn check_alone(&self, carried: u64) -> Result<(), String> {
        match self.first {
            Some(First { epoch, mark, .. }) if !mark || epoch != carried => Err(format!(
                "{} holds epoch {epoch}, and the index knows of no log: it is not the one that \
                 belongs to it",
                self.path.display()
            )),
            Some(_) | None => Ok(()),
        }
    }
    /// The latest epoch of which something reads here.
    fn newest(&self) -> u64 {
        self.epoch.max(self.first.map_or(0, |first| first.epoch)).max(self.behind.epoch)
    }
    /// The log of its first record.
    pub(super) fn log(&self) -> Option<LogId> {
        self.first.map(|first| first.log)
    }
    fn check(&self, carried: u64, logs: &[LogId]) -> Result<(), String> {
        let path = self.path.display();
        if let (Some(at), Behind { epoch, records, .. }) = (self.torn, &self.behind)
            && *epoch > carried
        {
            return Err(format!(
                "{path} is damaged in the middle: the record at byte {at} does not check, and \
                 {records} behind it do"
            ));
        }
        let Some(first) = self.first else {
            return Err(format!(
                "{path} does not begin as a log does: it was removed, cut or overwritten"
            ));
        };
        if !logs.contains(&first.log) {
            return Err(format!("{path} is of another vault or of an earlier run"));
        }
        if first.mark && first.epoch > carried {
            let epoch = first.epoch;
            return Err(format!(
                "{path} says that epoch {epoch} was carried over, {}",
                other_day(carried)
            ));
        }
        if first.epoch > carried
            && let Some(at) = self.torn
        {
            tracing::warn!(
                file = %path, at,
                "the log ends in a record that is not whole, which is left out: a crash came before \
                 it was answered for, or it is damaged"
            );
        }
        if first.epoch > carried && self.cut {
            tracing::warn!(
                file = %path,
                "the log ends with its file: if that was cut, what lay behind is missing"
            );
        }
        Ok(())
    }
}
fn paths(layout: &Layout) -> [PathBuf; 2] {
    ["0", "1"].map(|name| layout.journal().join(name))
}

impl Journal {
    /// Begins anew after the last epoch that has been read; nothing of that is needed any more, and
    /// it is overwritten if anything was there.
    pub(super) fn open(
        layout: &Layout,
        log: LogId,
        length: u64,
        last: u64,
        used: bool,
    ) -> io::Result<Self> {
        make_dir(&layout.journal())?;
        let [one, other] = paths(layout);
        let (mut writing, mut resting) = (Sheet::open(one, length)?, Sheet::open(other, length)?);
        let epoch = last.saturating_add(1);
        let mark = head(log, last, 0, &[]).map_err(io::Error::other)?;
        for sheet in [&mut resting, &mut writing] {
            overwrite(&sheet.file, &mark, if used { sheet.laid } else { 0 })?;
            sheet.laid = sheet.laid.max(HEAD as u64);
        }
        sync_dir(&layout.journal())?;
        Ok(Self { log, length, epoch, carried: last, writing, resting, buffer: Vec::new() })
    }
    /// Bytes that one group had better not exceed.
    pub(super) fn portion(&self) -> usize {
        usize::try_from(self.length / 2).unwrap_or(usize::MAX)
    }
    /// The epoch of what is written now.
    pub(super) const fn epoch(&self) -> u64 {
        self.epoch
    }
    /// The last epoch that holds something: that of now, or the one before.
    pub(super) const fn last_epoch(&self) -> u64 {
        if self.is_empty() { self.epoch.saturating_sub(1) } else { self.epoch }
    }
    /// The last epoch that has been carried over and overwritten.
    pub(super) const fn carried(&self) -> u64 {
        self.carried
    }
    /// True if it is time to carry the sheet over, before there is no room left on it.
    pub(super) const fn is_half_full(&self) -> bool {
        self.writing.end > self.length / 2
    }
    /// True if there is no room left on the sheet for these.
    pub(super) fn is_full(&self, entries: &[&Entries]) -> bool {
        let length: usize = entries.iter().map(|e| e.len()).sum();
        self.writing.end > 0 && self.writing.end + (HEAD + length) as u64 > self.length
    }
    /// Bytes that the sheet can still take as one record.
    pub(super) fn left(&self) -> usize {
        let left = self.length.saturating_sub(self.writing.end + HEAD as u64);
        usize::try_from(left).unwrap_or(usize::MAX)
    }
    /// Nothing has been written since the turn.
    pub(super) const fn is_empty(&self) -> bool {
        self.writing.end == 0
    }
    /// Writes the entries as one record that is on the disk when this returns. After an error nothing
    /// may be relied on.
    pub(super) fn append(&mut self, entries: &mut [&mut Entries]) -> Result<(), StoreError> {
        let length: usize = entries.iter().map(|e| e.len()).sum();
        if length == 0 {
            return Ok(());
        }
        self.buffer.clear();
        self.buffer.resize(HEAD, 0);
        for part in entries {
            self.buffer.extend_from_slice(&part.0);
            part.clear();
        }
        let sheet = &mut self.writing;
        let body = self.buffer.get(HEAD..).unwrap_or_default();
        let head = head(self.log, self.epoch, sheet.end, body)?;
        self.buffer.iter_mut().zip(head).for_each(|(to, from)| *to = from);
        let written = sheet.append(&self.buffer);
        self.buffer.shrink_to(256 * 1024);
        written.map_err(|e| StoreError::Fatal(format!("{}: {e}", sheet.path.display())))
    }
    /// Turns to the other sheet, which has been carried over; what was written is to be carried over
    /// now. Where nothing was written the epoch stays.
    pub(super) fn turn(&mut self) -> Result<Carried, StoreError> {
        let mark = head(self.log, self.last_epoch(), 0, &[])?;
        self.epoch = self.last_epoch().saturating_add(1);
        std::mem::swap(&mut self.writing, &mut self.resting);
        self.writing.end = 0;
        let Sheet { path, file, end, .. } = &self.resting;
        Ok(Carried { path: path.clone(), file: Arc::clone(file), used: *end, mark })
    }
    /// All before the present epoch has been carried over and overwritten.
    pub(super) const fn carried_over(&mut self) {
        self.carried = self.epoch.saturating_sub(1);
    }
}

impl Sheet {
    fn open(path: PathBuf, length: u64) -> io::Result<Self> {
        let file = private().truncate(false).open(&path)?;
        let mut laid = file.metadata()?.len();
        if laid > length {
            // What is cut off may hold keys of messages that are destroyed later.
            zero(&file, length, laid - length)?;
            file.sync_data()?;
            file.set_len(length)?;
            laid = length;
        }
        // Blocks for the whole sheet now: later is no time to find the disk full.
        if laid < length && allocate(&file, FallocateFlags::KEEP_SIZE, 0, length).is_err() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(Self { path, file: Arc::new(file), length, laid, end: 0 })
    }
    fn append(&mut self, record: &[u8]) -> io::Result<()> {
        let end = self.end.saturating_add(record.len() as u64);
        if end > self.laid {
            let stride = self.laid.saturating_add(STRIDE).min(self.length);
            let goal = end.max(stride);
            zero(&self.file, self.laid, goal - self.laid)?;
            self.file.sync_all()?;
            self.laid = goal;
        }
        self.file.write_all_at(record, self.end)?;
        self.file.sync_data()?;
        self.end = end;
        Ok(())
    }
}
fn zero(mut file: &File, from: u64, length: u64) -> io::Result<()> {
    file.seek(SeekFrom::Start(from))?;
    write_zeros(&mut file, length)
}
/// Overwrites a sheet up to there with a mark and zeros, and syncs it. Its first sector holds a head all
/// the time.
fn overwrite(file: &File, mark: &[u8; HEAD], used: u64) -> io::Result<()> {
    file.write_all_at(mark, 0)?;
    zero(file, HEAD as u64, used.saturating_sub(HEAD as u64))?;
    file.sync_all()
}
/// A record's place counts too: one that an earlier turn left at another is none.
fn head(log: LogId, epoch: u64, offset: u64, body: &[u8]) -> Result<[u8; HEAD], StoreError> {
    let length = u32::try_from(body.len())
        .map_err(|_| StoreError::Corrupt("too much for one record of the journal".to_owned()))?;
    let check = Sha256::new()
        .chain_update(log)
        .chain_update(epoch.to_be_bytes())
        .chain_update(offset.to_be_bytes())
        .chain_update(body)
        .finalize();
    let mut head = [0; HEAD];
    let parts: [&[u8]; 5] = [&MAGIC, &length.to_be_bytes(), &epoch.to_be_bytes(), &log, &check];
    head.iter_mut().zip(parts.concat()).for_each(|(to, from)| *to = from);
    Ok(head)
}

/// Reads records until one is none, or of another turn: the end, or where a crash tore the last, or
/// damage. Records behind that are looked for.
fn parse(sheet: &[u8]) -> Read {
    let used = sheet.iter().skip(HEAD).any(|byte| *byte != 0);
    let first = first(sheet);
    let mut found = Read { used, first, old: sheet.starts_with(&OLD_MAGIC), ..Read::default() };
    // What lies behind a mark is what an overwriting that was cut short has left.
    if record(sheet, 0).is_some_and(|(_, body, _)| body.is_empty()) {
        return found;
    }
    let mut rest = sheet;
    while let Some((epoch, body, after)) = record(rest, sheet.len() - rest.len()) {
        let begun = found.epoch == 0;
        if !begun && epoch != found.epoch {
            break;
        }
        let Some(entries) = entries(body) else { break };
        found.epoch = epoch;
        found.entries.extend(entries);
        rest = after;
    }
    found.cut = rest.is_empty() && found.epoch > 0;
    if rest.iter().any(|byte| *byte != 0) {
        let at = sheet.len() - rest.len();
        found.torn = Some(at);
        found.behind = behind(sheet, at);
    }
    found
}
/// The records behind that place, wherever they begin.
fn behind(sheet: &[u8], torn: usize) -> Behind {
    let (mut found, mut from) = (Behind::default(), torn.saturating_add(1));
    while let Some(rest) = sheet.get(from..)
        && let Some(at) = rest.windows(MAGIC.len()).position(|bytes| bytes == MAGIC)
    {
        let at = from.saturating_add(at);
        from = at.saturating_add(1);
        let Some((epoch, body, after)) = sheet.get(at..).and_then(|rest| record(rest, at)) else {
            continue;
        };
        if let Some(entries) = entries(body) {
            found.epoch = found.epoch.max(epoch);
            found.records += 1;
            found.entries.extend(entries);
            from = sheet.len() - after.len();
        }
    }
    found
}
fn first(bytes: &[u8]) -> Option<First> {
    let found = bytes.get(..HEAD).filter(|head| head.starts_with(&MAGIC))?;
    let epoch = u64::from_be_bytes(found.get(8..16)?.try_into().ok()?);
    let log = found.get(16..24)?.try_into().ok()?;
    let mark = record(bytes, 0).is_some_and(|(_, body, _)| body.is_empty());
    Some(First { log, epoch, mark })
}
fn record(bytes: &[u8], offset: usize) -> Option<(u64, &[u8], &[u8])> {
    let (found, rest) = bytes.split_at_checked(HEAD)?;
    let length = u32::from_be_bytes(found.get(4..8)?.try_into().ok()?);
    let epoch = u64::from_be_bytes(found.get(8..16)?.try_into().ok()?);
    let log = found.get(16..24)?.try_into().ok()?;
    let (body, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    (head(log, epoch, offset as u64, body).ok()? == *found).then_some((epoch, body, after))
}
fn entries(mut bytes: &[u8]) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    while let Some((tag, rest)) = bytes.split_first() {
        bytes = rest;
        entries.push(match *tag {
            PUT => {
                let key = sized(&mut bytes)?.to_vec();
                Entry::Row(key, Some(sized(&mut bytes)?.to_vec()))
            }
            REMOVE => Entry::Row(sized(&mut bytes)?.to_vec(), None),
            WRITE => {
                let segment = u32::from_be_bytes(*bytes.split_off(..4)?.as_array()?);
                let offset = u64::from_be_bytes(*bytes.split_off(..8)?.as_array()?);
                Entry::Write(segment, offset, Bytes::copy_from_slice(sized(&mut bytes)?))
            }
            _ => return None,
        });
    }
    Some(entries)
}
fn sized<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u64::from_be_bytes(bytes.split_off(..8)?.try_into().ok()?);
    bytes.split_off(..usize::try_from(length).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogId = *b"this log";

    fn journal(dir: &std::path::Path, last: u64) -> Journal {
        Journal::open(&Layout::new(dir), LOG, SHEET, last, false).unwrap()
    }
    fn put(journal: &mut Journal, key: &str) {
        let (mut one, mut other) = (Entries::default(), Entries::default());
        one.write(3, 77, &[b"head", key.as_bytes()]);
        other.row(key.as_bytes(), Some(b"value"));
        other.row(b"gone", None);
        journal.append(&mut [&mut one, &mut other]).unwrap();
        assert!(one.0.is_empty() && other.0.is_empty(), "taken");
    }
    /// Epochs and the keys of rows put, as they are read back.
    fn found(dir: &std::path::Path) -> Vec<(u64, String)> {
        let sheets = read(&Layout::new(dir)).unwrap();
        let keys = |sheet: &Read| {
            let keys = sheet.entries.iter().filter_map(|entry| match entry {
                Entry::Row(key, Some(_)) => Some(String::from_utf8_lossy(key).into_owned()),
                Entry::Row(_, None) | Entry::Write(..) => None,
            });
            keys.collect::<Vec<_>>().join(" ")
        };
        sheets.iter().filter(|s| s.epoch > 0).map(|s| (s.epoch, keys(s))).collect()
    }

    #[test]
    fn what_was_appended_is_read_back_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = journal(dir.path(), 4);
        assert!(journal.is_empty());
        put(&mut journal, "a");
        put(&mut journal, "b");
        let sheet = read(&Layout::new(dir.path())).unwrap().pop().unwrap();
        let want = |key: &str| {
            [
                Entry::Write(3, 77, Bytes::from(format!("head{key}"))),
                Entry::Row(key.into(), Some(b"value".to_vec())),
                Entry::Row(b"gone".to_vec(), None),
            ]
        };
        assert_eq!(sheet.entries, want("a").into_iter().chain(want("b")).collect::<Vec<_>>());
        assert_eq!(sheet.epoch, 5);
    }
    #[test]
    fn each_turn_begins_anew_and_what_an_earlier_one_left_behind_it_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = journal(dir.path(), 0);
        ["a", "b", "c"].iter().for_each(|key| put(&mut journal, key));
        let first = journal.turn().unwrap();
        assert_eq!(found(dir.path()), [(1, "a b c".to_owned())]);
        put(&mut journal, "d");
        assert_eq!(found(dir.path()), [(1, "a b c".to_owned()), (2, "d".to_owned())]);
        assert_eq!((journal.last_epoch(), journal.carried()), (2, 0));
        first.overwrite().unwrap();
        journal.carried_over();
        assert_eq!(found(dir.path()), [(2, "d".to_owned())]);
        let bytes = std::fs::read(&paths(&Layout::new(dir.path()))[0]).unwrap();
        assert_eq!(bytes[..HEAD], head(LOG, 1, 0, &[]).unwrap(), "its mark");
        assert!(bytes[HEAD..].iter().all(|byte| *byte == 0), "nothing of it stays");
        journal.turn().unwrap();
        assert_eq!((journal.last_epoch(), journal.carried()), (2, 1));
        put(&mut journal, "e");
        assert_eq!(found(dir.path()), [(2, "d".to_owned()), (3, "e".to_owned())]);
        assert_eq!(journal.last_epoch(), 3);
    }
    #[test]
    fn a_wipe_that_a_crash_cut_short_is_known_by_what_it_left() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = journal(dir.path(), 0);
        let used = || {
            let sheets = read(&Layout::new(dir.path())).unwrap();
            sheets.iter().map(|sheet| (sheet.epoch, sheet.used)).collect::<Vec<_>>()
        };
        assert_eq!(used(), [(0, false), (0, false)], "new");
        ["a", "b"].iter().for_each(|key| put(&mut journal, key));
        assert_eq!(used(), [(0, false), (1, true)]);
        // The mark is there, and not all zeros are; the second record is still there to be read.
        journal.writing.file.write_all_at(&head(LOG, 1, 0, &[]).unwrap(), 0).unwrap();
        assert_eq!(used(), [(0, false), (0, true)]);
        assert_eq!(doubts(dir.path(), 1), "", "the epoch is in the index");
        drop(Journal::open(&Layout::new(dir.path()), LOG, SHEET, 1, true).unwrap());
        assert_eq!(used(), [(0, false), (0, false)]);
    }
    /// Why the sheets are not those of the log, where the index ends with that epoch.
    fn doubts(dir: &std::path::Path, carried: u64) -> String {
        let sheets = read(&Layout::new(dir)).unwrap();
        let doubt = check(&sheets, carried, &[LOG]).err().unwrap_or_default();
        doubt.replace(&dir.display().to_string(), "")
    }
    #[test]
    fn a_gap_between_the_index_and_the_log_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = journal(dir.path(), 4);
        let of_day = |end: u64| {
            format!(
                "while the index ends with epoch {end}: index or log seems to be of another day"
            )
        };
        assert_eq!(doubts(dir.path(), 4), "");
        put(&mut journal, "a");
        let first = journal.turn().unwrap();
        put(&mut journal, "b");
        for carried in [4, 5, 6] {
            assert_eq!(doubts(dir.path(), carried), "", "{carried}");
        }
        let missing = "/journal/0 holds epoch 5, and epoch 4 is missing, ";
        assert_eq!(doubts(dir.path(), 3), format!("{missing}{}", of_day(3)));
        assert_eq!(doubts(dir.path(), 7), format!("/journal/1 ends with epoch 6, {}", of_day(7)));
        first.overwrite().unwrap();
        assert_eq!(doubts(dir.path(), 5), "");
        let carried = "/journal/0 says that epoch 5 was carried over, ";
        assert_eq!(doubts(dir.path(), 4), format!("{carried}{}", of_day(4)));
        let earlier = std::fs::read(&paths(&Layout::new(dir.path()))[0]).unwrap();
        journal.carried_over();
        for _ in 0..3 {
            put(&mut journal, "c");
            journal.turn().unwrap().overwrite().unwrap();
            journal.carried_over();
        }
        assert_eq!(doubts(dir.path(), 8), "");
        std::fs::write(&paths(&Layout::new(dir.path()))[0], earlier).unwrap();
        assert_eq!(doubts(dir.path(), 8), format!("/journal/0 holds epoch 5, {}", of_day(8)));
    }
    #[test]
    fn a_turn_without_records_leaves_no_gap() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = journal(dir.path(), 4);
        journal.turn().unwrap().overwrite().unwrap();
        assert_eq!((journal.epoch(), doubts(dir.path(), 4).as_str()), (5, ""));
        put(&mut journal, "a");
        assert_eq!(found(dir.path()), [(5, "a".to_owned())]);
        assert_eq!(doubts(dir.path(), 4), "");
    }
    #[test]
    fn a_sheet_that_was_lost_or_is_of_another_vault_is_named() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut journal = journal(dir.path(), 4);
        put(&mut journal, "a");
        drop(Journal::open(&Layout::new(other.path()), *b"another.", SHEET, 4, false).unwrap());
        let lost = "does not begin as a log does: it was removed, cut or overwritten";
        for (n, path) in paths(&Layout::new(dir.path())).into_iter().enumerate() {
            let whole = std::fs::read(&path).unwrap();
            for left in [vec![0; whole.len()], Vec::new(), whole[..HEAD - 1].to_vec()] {
                std::fs::write(&path, left).unwrap();
                assert_eq!(doubts(dir.path(), 4), format!("/journal/{n} {lost}"));
            }
            std::fs::remove_file(&path).unwrap();
            assert_eq!(doubts(dir.path(), 4), format!("/journal/{n} {lost}"));
            std::fs::copy(&paths(&Layout::new(other.path()))[n], &path).unwrap();
            assert_eq!(
                doubts(dir.path(), 4),
                format!("/journal/{n} is of another vault or of an earlier run")
            );
            std::fs::write(&path, whole).unwrap();
        }
        let sheets = read(&Layout::new(dir.path())).unwrap();
        assert!(check(&sheets, 4, &[]).unwrap_err().contains("the index knows of no log"));
    }
    #[test]
    fn damage_in_the_middle_is_told_from_a_torn_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = journal(dir.path(), 0);
        let mut ends = vec![0];
        for key in ["a", "b", "c"] {
            put(&mut journal, key);
            ends.push(usize::try_from(journal.writing.end).unwrap());
        }
        let path = &paths(&Layout::new(dir.path()))[0];
        let whole = std::fs::read(path).unwrap();
        for (at, bad, behind) in [(0, 0, 2), (30, 0, 2), (HEAD, 0, 2), (ends[1] + 5, 1, 1)] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(path, &damaged).unwrap();
            let want = format!(
                "/journal/0 is damaged in the middle: the record at byte {} does not check, and \
                 {behind} behind it do",
                ends[bad]
            );
            assert_eq!(doubts(dir.path(), 0), want, "byte {at}");
            assert_eq!(std::fs::read(path).unwrap(), damaged, "untouched");
            let read = read(&Layout::new(dir.path())).unwrap();
            let rows: usize = read.iter().map(|s| s.entries.len() + s.behind.entries.len()).sum();
            assert_eq!(rows, 2 * 3, "the others are read");
            let carried = doubts(dir.path(), 1);
            assert!(!carried.contains("in the middle"), "what is in the index is needed no more");
        }
        let mut torn = whole;
        torn[ends[2] + 5] ^= 1;
        std::fs::write(path, &torn).unwrap();
        assert_eq!(doubts(dir.path(), 0), "");
        // A later epoch begins only when all of this one is on the disk.
        journal.turn().unwrap();
        put(&mut journal, "d");
        let doubt = doubts(dir.path(), 0);
        assert!(doubt.contains("epoch 1 does not check, and epoch 2 came after it"), "{doubt}");
        assert_eq!(doubts(dir.path(), 1), "", "it is needed no more");
    }
    #[test]
    fn reading_ends_where_a_crash_tore_the_last_record() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = journal(dir.path(), 0);
        put(&mut journal, "a");
        let first = usize::try_from(journal.writing.end).unwrap();
        put(&mut journal, "b");
        let last = usize::try_from(journal.writing.end).unwrap();
        let path = &paths(&Layout::new(dir.path()))[0];
        let whole = std::fs::read(path).unwrap();
        for at in [first, first + 5, first + HEAD, last - 1] {
            let mut torn = whole.clone();
            torn[at] ^= 1;
            std::fs::write(path, &torn).unwrap();
            assert_eq!(found(dir.path()), [(1, "a".to_owned())], "byte {at}");
            std::fs::write(path, &whole[..at]).unwrap();
            assert_eq!(found(dir.path()), [(1, "a".to_owned())], "cut at {at}");
        }
        let mut moved = whole[..first].to_vec();
        moved.extend_from_slice(&whole[..first]);
        std::fs::write(path, &moved).unwrap();
        assert_eq!(found(dir.path()), [(1, "a".to_owned())], "a record counts at its place only");
        std::fs::write(path, [0; 10]).unwrap();
        assert_eq!(found(dir.path()), []);
    }
    #[test]
    fn a_sheet_is_full_before_it_grows() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = journal(dir.path(), 0);
        let mut large = Entries::default();
        let mut fill = |journal: &mut Journal| {
            large.write(1, 1, &[&vec![7; 3 << 20]]);
            let full = journal.is_full(&[&large]);
            journal.append(&mut [&mut large]).unwrap();
            (full, journal.is_half_full())
        };
        assert_eq!(fill(&mut journal), (false, false));
        assert_eq!(fill(&mut journal), (false, true));
        assert_eq!(fill(&mut journal), (true, true), "written all the same: nothing is lost");
        assert_eq!(read(&Layout::new(dir.path())).unwrap().pop().unwrap().entries.len(), 3);
    }
}
