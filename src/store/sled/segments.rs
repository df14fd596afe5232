//! Small sealed bodies, one after another in segment files. A body is in the journal first, and in
//! memory for its readers; its place in a segment is kept free for it until it is carried over. What
//! is erased before that never comes there.
//!
//! A record is a head (magic, length, message id, check), then the sealed body, which authenticates
//! itself. The first head that is none ends the walk. Each start begins a new file: what a crash tore
//! at the end of the last is never written over.

use super::{
    Options, files,
    journal::Entries,
    layout::{Layout, allocate, body_error, is_full, private, sync_dir, write_zeros},
};
use crate::{
    mail::QueueId,
    seal::stream::Prelude,
    store::{Locator, SegmentBytes, StoreError},
};
use bytes::Bytes;
use rustix::fs::FallocateFlags;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File},
    io::{self, BufReader, Read, Seek, SeekFrom},
    ops::Range,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

const MAGIC: [u8; 4] = *b"RSG1";
/// Magic, length, id, check.
pub(super) const HEAD: u64 = 4 + 4 + 16 + 4;
/// A file is laid out in strides of this length where the disk is not small.
pub(super) const STRIDE: u64 = 4 * 1024 * 1024;

/// Segments may waste a fifth of what lives in them, and half a segment.
const WASTE: u64 = 5;
/// A range that is shorter may hold no whole block of the disk.
const PUNCHED: u64 = 2 * 4096;

/// Where a body begins: segment, offset.
type Place = (u32, u64);

/// All segments, and what is yet to be written to them.
#[derive(Debug)]
pub(super) struct Segments {
    layout: Layout,
    dir: PathBuf,
    size: u64,
    stride: u64,
    /// Bodies that a row still speaks of.
    live: BTreeMap<u32, Live>,
    /// Bytes that each segment takes of the disk, about: its records without what was given back.
    taken: BTreeMap<u32, u64>,
    /// Found at the start: files in which nothing lives and some key is left.
    pub(super) stray: Vec<u32>,
    /// Files below this number stay, whatever is known of them.
    kept_below: u32,
    next: u32,
    active: Option<Active>,
    /// What the current group is about to write to the journal.
    pub(super) entries: Entries,
    /// Since the last turn of the journal.
    carriage: Carriage,
    /// Bodies in it that can still be left out.
    unwritten: HashMap<Place, usize>,
    /// Segments that something was erased in since the last turn.
    handles: HashMap<u32, Arc<File>>,
    /// Bodies in the carriage that is under way.
    frozen: Vec<Place>,
    fresh: Fresh,
}
/// The bodies of a segment that rows speak of.
#[derive(Debug, Clone, Default)]
pub(super) struct Live {
    offsets: HashSet<u64>,
    bytes: u64,
}
impl Live {
    pub(super) fn add(&mut self, offset: u64, length: u64) {
        if self.offsets.insert(offset) {
            self.bytes += HEAD + length;
        }
    }
    fn remove(&mut self, offset: u64, length: u64) {
        if self.offsets.remove(&offset) {
            self.bytes = self.bytes.saturating_sub(HEAD + length);
        }
    }
}
/// Bodies that are in no file yet, for readers.
#[derive(Debug, Clone, Default)]
pub(super) struct Fresh(Arc<Mutex<HashMap<Place, Bytes>>>);
impl Fresh {
    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// The sealed body that begins there.
    pub(super) fn get(&self, segment: u32, offset: u64) -> Option<Bytes> {
        self.lock().get(&(segment, offset)).cloned()
    }
}
#[derive(Debug)]
struct Active {
    number: u32,
    file: Arc<File>,
    end: u64,
    laid: u64,
}
/// What is to be carried from journal and memory into segment files.
#[derive(Debug, Default)]
pub(super) struct Carriage {
    writes: Vec<Write>,
    /// Files to be removed once no row speaks of them any more.
    dead: Vec<PathBuf>,
    /// Files of messages that were refused; no row has spoken of them.
    refused: Vec<PathBuf>,
}
#[derive(Debug)]
struct Write {
    path: PathBuf,
    file: Arc<File>,
    offset: u64,
    /// A body's, before its bytes.
    head: Option<[u8; HEAD as usize]>,
    bytes: Bytes,
    /// Bytes of the file that hold nothing any more: their blocks go back to the disk.
    free: Range<u64>,
}
impl Carriage {
    /// Writes and syncs everything. After an error nothing may be relied on.
    pub(super) fn write(&self) -> Result<(), StoreError> {
        let mut touched: BTreeMap<&Path, &File> = BTreeMap::new();
        for write in &self.writes {
            let mut offset = write.offset;
            for part in [write.head.as_ref().map_or(&[][..], |head| head), &write.bytes] {
                let written = write.file.write_all_at(part, offset);
                written.map_err(|e| fatal(&write.path, &e))?;
                offset += part.len() as u64;
            }
            punch(&write.file, &write.free).map_err(|e| fatal(&write.path, &e))?;
            touched.insert(&write.path, &write.file);
        }
        self.refused.iter().try_for_each(|path| files::destroy(path))?;
        touched.iter().try_for_each(|(path, file)| file.sync_data().map_err(|e| fatal(path, &e)))
    }
    /// Removes dead segments.
    pub(super) fn bury(&self) -> Result<(), StoreError> {
        for path in &self.dead {
            match fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fatal(path, &e)),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}
/// A record found by a walk.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) id: QueueId,
    pub(super) at: Locator,
    pub(super) sealed: Vec<u8>,
}

impl Segments {
    /// Takes over what lies there. `live` holds the bodies that rows speak of.
    pub(super) fn open(
        layout: &Layout,
        options: &Options,
        live: BTreeMap<u32, Live>,
    ) -> io::Result<Self> {
        let dir = layout.segments();
        let mut taken = BTreeMap::new();
        for number in numbers(&dir)? {
            let blocks = fs::metadata(path(&dir, number))?.blocks();
            taken.insert(number, blocks.saturating_mul(512));
        }
        let last = taken.last_key_value().map(|(n, _)| *n);
        let last = last.max(live.last_key_value().map(|(n, _)| *n));
        let next = last.map_or(0, |n| n.saturating_add(1));
        let size = options.segment_size;
        Ok(Self {
            layout: layout.clone(),
            dir,
            size,
            stride: STRIDE,
            live,
            taken,
            stray: Vec::new(),
            kept_below: 0,
            next,
            active: None,
            entries: Entries::default(),
            carriage: Carriage::default(),
            unwritten: HashMap::new(),
            handles: HashMap::new(),
            frozen: Vec::new(),
            fresh: Fresh::default(),
        })
    }
    /// Files are laid out in strides of that length.
    pub(super) const fn laid_by(mut self, stride: u64) -> Self {
        self.stride = stride;
        self
    }
    /// No file that is there is removed while a key in it is left: a row that can't be read may speak of
    /// it.
    pub(super) const fn keeping(mut self) -> Self {
        self.kept_below = self.next;
        self
    }
    /// Bodies that are in no file yet.
    pub(super) fn fresh(&self) -> Fresh {
        self.fresh.clone()
    }
    /// What has come since the last turn: who gets it carries it over. Until [`Segments::thaw`] its
    /// bodies are read from memory.
    pub(super) fn freeze(&mut self) -> Carriage {
        self.frozen = std::mem::take(&mut self.unwritten).into_keys().collect();
        self.handles.clear();
        std::mem::take(&mut self.carriage)
    }
    /// What was frozen is in its files.
    pub(super) fn thaw(&mut self) {
        let mut fresh = self.fresh.lock();
        for place in std::mem::take(&mut self.frozen) {
            fresh.remove(&place);
        }
    }
    /// Removes files in which nothing lives any more once every key in them is destroyed. What remains
    /// loses the zeros laid out behind its end: else a server that starts and dies, again and again,
    /// would fill the disk with them.
    pub(super) fn sweep(&mut self) -> io::Result<()> {
        for number in numbers(&self.dir)? {
            let (path, lives) = (path(&self.dir, number), self.live.contains_key(&number));
            if lives && !ends_in_zeros(&path)? {
                continue;
            }
            let rest = survey(&path)?;
            if rest.erased && !lives {
                fs::remove_file(&path)?;
                continue;
            }
            if !lives {
                tracing::warn!(file = %path.display(), "no message owns what lies in a segment");
                self.stray.push(number);
            }
            if rest.zeros {
                private().open(&path)?.set_len(rest.end)?;
            }
        }
        Ok(())
    }
    /// Names segments that are missing, or too short for what lies in them.
    pub(super) fn tell_missing(&self) -> io::Result<()> {
        for (number, live) in &self.live {
            let path = path(&self.dir, *number);
            let length = match fs::metadata(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
                found => found?.len(),
            };
            let messages = live.offsets.iter().filter(|offset| **offset >= length).count();
            if messages > 0 {
                let what = "a segment is missing or cut, with the bodies of messages";
                tracing::error!(file = %path.display(), messages, what);
            }
        }
        Ok(())
    }
    /// Finds a place for a sealed body, and readies it for the journal.
    pub(super) fn append(&mut self, id: QueueId, sealed: &Bytes) -> Result<Locator, StoreError> {
        let length = sealed.len() as u64;
        let head = head(id, length)?;
        let active = self.room(HEAD + length)?;
        let (number, start, file) = (active.number, active.end, Arc::clone(&active.file));
        let offset = start + HEAD;
        active.end = offset + length;
        self.entries.write(number, start, &[&head, sealed]);
        let path = path(&self.dir, number);
        let (head, bytes) = (Some(head), sealed.clone());
        let write = Write { path, file, offset: start, head, bytes, free: 0..0 };
        self.unwritten.insert((number, offset), self.carriage.writes.len());
        self.carriage.writes.push(write);
        self.fresh.lock().insert((number, offset), sealed.clone());
        self.live.entry(number).or_default().add(offset, length);
        *self.taken.entry(number).or_default() += HEAD + length;
        Ok(Locator::Segment { segment: number, offset, length })
    }
    /// The active segment, with that much room laid out.
    fn room(&mut self, length: u64) -> Result<&mut Active, StoreError> {
        let fits = self.active.as_ref().is_some_and(|a| a.end == 0 || a.end + length <= self.size);
        if !fits {
            let opened = self.begin()?;
            if let Some(old) = self.active.replace(opened) {
                self.bury(old.number);
            }
        }
        let dir = &self.dir;
        let active = self.active.as_mut().ok_or(StoreError::Busy)?;
        active
            .lay(length, self.stride, self.size)
            .map_err(|e| body_error(&path(dir, active.number), &e))?;
        Ok(active)
    }
    fn begin(&mut self) -> Result<Active, StoreError> {
        let number = self.next;
        let path = path(&self.dir, number);
        let begun = private().create_new(true).open(&path).and_then(|file| {
            sync_dir(&self.dir)?;
            Ok(file)
        });
        let file = Arc::new(begun.map_err(|e| body_error(&path, &e))?);
        self.next = number.checked_add(1).ok_or(StoreError::Full)?;
        Ok(Active { number, file, end: 0, laid: 0 })
    }
    /// Overwrites the wrapped keys in a body's prelude and counts the body out. Again: nothing happens.
    pub(super) fn erase(
        &mut self,
        number: u32,
        offset: u64,
        length: u64,
    ) -> Result<(), StoreError> {
        if !self.lives(number, offset) {
            return Ok(());
        }
        let free = offset + files::keyed(length).end as u64..offset + length;
        self.overwrite(number, (offset, length), free)
    }
    /// As [`Segments::erase`], for a body that has been copied to another place: who reads it here reads
    /// on, as long as the file is there.
    pub(super) fn leave(
        &mut self,
        number: u32,
        offset: u64,
        length: u64,
    ) -> Result<(), StoreError> {
        self.overwrite(number, (offset, length), 0..0)
    }
    /// Overwrites the keys of a body, gives back `free` and counts the body out.
    fn overwrite(
        &mut self,
        number: u32,
        (offset, length): (u64, u64),
        free: Range<u64>,
    ) -> Result<(), StoreError> {
        let keyed = files::keyed(length);
        let bytes = vec![0; keyed.len()];
        let keys_at = offset + keyed.start as u64;
        let given_back = free.end.saturating_sub(free.start);
        let place = (number, offset);
        self.fresh.lock().remove(&place);
        if let Some(at) = self.unwritten.remove(&place) {
            // Its head comes into the file, so that a walk finds its way past the gap, and the prelude
            // that says that it was destroyed.
            if let Some(write) = self.carriage.writes.get_mut(at) {
                write.bytes = destroyed(&write.bytes);
                write.free = free;
            }
            self.entries.write(number, keys_at, &[&bytes]);
        } else {
            // Before anything changes: who is refused here asks again.
            let Some(file) = self.handle(number)? else { return Ok(()) };
            let path = path(&self.dir, number);
            self.entries.write(number, keys_at, &[&bytes]);
            let (head, offset) = (None, keys_at);
            let bytes = bytes.into();
            self.carriage.writes.push(Write { path, file, offset, head, bytes, free });
        }
        if let Some(live) = self.live.get_mut(&number) {
            live.remove(offset, length);
        }
        if let Some(taken) = self.taken.get_mut(&number).filter(|_| given_back >= PUNCHED) {
            *taken = taken.saturating_sub(given_back);
        }
        self.bury(number);
        Ok(())
    }
    /// False if a body has been erased.
    pub(super) fn lives(&self, number: u32, offset: u64) -> bool {
        self.live.get(&number).is_some_and(|live| live.offsets.contains(&offset))
    }
    /// Writes these bytes into the prelude of a body, at that offset in it. False if it has been erased.
    pub(super) fn patch(
        &mut self,
        number: u32,
        offset: u64,
        (at, bytes): (usize, &Bytes),
    ) -> Result<bool, StoreError> {
        if !self.lives(number, offset) {
            return Ok(false);
        }
        let (place, start) = ((number, offset), offset + at as u64);
        if let Some(write) = self.unwritten.get(&place) {
            if let Some(write) = self.carriage.writes.get_mut(*write) {
                write.bytes = patched(&write.bytes, at, bytes);
            }
        } else {
            let Some(file) = self.handle(number)? else { return Ok(false) };
            let (path, bytes) = (path(&self.dir, number), bytes.clone());
            self.carriage.writes.push(Write {
                path,
                file,
                offset: start,
                head: None,
                bytes,
                free: 0..0,
            });
        }
        self.entries.write(number, start, &[bytes]);
        if let Some(sealed) = self.fresh.lock().get_mut(&place) {
            *sealed = patched(sealed, at, bytes);
        }
        Ok(true)
    }
    /// Opens a segment, so that what is written into it next does not fail for want of a handle.
    pub(super) fn reach(&mut self, number: u32) -> Result<(), StoreError> {
        self.handle(number).map(drop)
    }
    /// An open segment: one handle for all that is erased in it between two turns. `None`: it is gone.
    fn handle(&mut self, number: u32) -> Result<Option<Arc<File>>, StoreError> {
        if let Some(file) = self.handles.get(&number) {
            return Ok(Some(Arc::clone(file)));
        }
        let path = path(&self.dir, number);
        match private().create(false).open(&path) {
            Ok(file) => {
                let file = Arc::new(file);
                self.handles.insert(number, Arc::clone(&file));
                Ok(Some(file))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(body_error(&path, &e)),
        }
    }
    /// What all segments take.
    pub(super) fn bytes(&self) -> SegmentBytes {
        let live = self.live.values().map(|live| live.bytes).sum();
        SegmentBytes { taken: self.taken.values().sum(), live }
    }
    /// The segment that wastes most, with the places of its live bodies; `None` while all of them together
    /// waste little. The one that is being written is left alone.
    pub(super) fn wasteful(&self) -> Option<(u32, HashSet<u64>)> {
        let SegmentBytes { taken, live } = self.bytes();
        if taken <= live + live / WASTE + self.size / 2 {
            return None;
        }
        let active = self.active.as_ref().map(|active| active.number);
        let waste = |number: &u32, live: &Live| {
            let taken = self.taken.get(number).copied().unwrap_or_default();
            taken.saturating_sub(live.bytes)
        };
        let others = self.live.iter().filter(|(number, _)| Some(**number) != active);
        let (number, live) = others.max_by_key(|(number, live)| waste(number, live))?;
        (waste(number, live) >= live.bytes / WASTE).then(|| (*number, live.offsets.clone()))
    }
    /// True if the file of a large body is in its place.
    pub(super) fn has_file(&self, id: QueueId) -> bool {
        self.layout.message(id).is_file()
    }
    /// Removes the file of a large body that was refused, with the next flush.
    pub(super) fn discard_file(&mut self, id: QueueId) {
        self.carriage.refused.push(self.layout.message(id));
    }
    /// Marks a segment for removal if nothing lives in it.
    fn bury(&mut self, number: u32) {
        let active = self.active.as_ref().is_some_and(|a| a.number == number);
        if !active && self.live.get(&number).is_none_or(|live| live.offsets.is_empty()) {
            self.live.remove(&number);
            self.taken.remove(&number);
            if number >= self.kept_below {
                self.carriage.dead.push(path(&self.dir, number));
            }
        }
    }
}
/// The same bytes with others in their place from there on.
pub(super) fn patched(whole: &[u8], at: usize, bytes: &[u8]) -> Bytes {
    let mut patched = whole.to_vec();
    patched.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
    patched.into()
}
/// The prelude of a body, without its keys.
fn destroyed(sealed: &[u8]) -> Bytes {
    let keyed = files::keyed(sealed.len() as u64);
    let mut prelude = sealed.get(..keyed.start.min(sealed.len())).unwrap_or_default().to_vec();
    prelude.resize(keyed.end.min(sealed.len()), 0);
    prelude.into()
}
/// Brings a body, or the zeros over its key, from the journal into its segment after a crash. A
/// segment that is gone needs it no more.
pub(super) fn replay(layout: &Layout, number: u32, offset: u64, bytes: &[u8]) -> io::Result<()> {
    match private().create(false).open(path(&layout.segments(), number)) {
        Ok(file) => file.write_all_at(bytes, offset),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}
/// Syncs all segments.
pub(super) fn sync(layout: &Layout) -> io::Result<()> {
    let dir = layout.segments();
    numbers(&dir)?.into_iter().try_for_each(|number| File::open(path(&dir, number))?.sync_data())
}
impl Active {
    /// Lays blocks ahead, for `length` more bytes at least: once a body has been answered for, there
    /// is room for it.
    fn lay(&mut self, length: u64, stride: u64, size: u64) -> io::Result<()> {
        let need = self.end + length;
        if need <= self.laid {
            return Ok(());
        }
        let ahead = need.max((self.laid + stride).min(size));
        // Where the disk has no whole stride left, what is needed now may still fit.
        self.lay_to(ahead).or_else(|e| if is_full(&e) { self.lay_to(need) } else { Err(e) })
    }
    fn lay_to(&mut self, goal: u64) -> io::Result<()> {
        if let Err(e) = lay(&self.file, self.laid, goal) {
            self.file.set_len(self.laid)?;
            return Err(e);
        }
        self.laid = goal;
        Ok(())
    }
}
fn lay(mut file: &File, from: u64, to: u64) -> io::Result<()> {
    if allocate(file, FallocateFlags::empty(), from, to - from)? {
        return Ok(());
    }
    file.seek(SeekFrom::Start(from))?;
    write_zeros(&mut file, to - from)
}

/// Gives the blocks of a range back to the disk. It reads as zeroes then. Where the file system can't,
/// the range stays as it is.
fn punch(file: &File, range: &Range<u64>) -> io::Result<()> {
    let length = range.end.saturating_sub(range.start);
    if length < PUNCHED {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    allocate(file, flags, range.start, length).map(drop)
}

/// A failed write or sync is the end: the kernel may have dropped what it could not write.
fn fatal(path: &Path, e: &io::Error) -> StoreError {
    StoreError::Fatal(format!("{}: {e}", path.display()))
}
pub(super) fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:04}"))
}
/// Numbers of the segments there, in order.
pub(super) fn numbers(dir: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for file in fs::read_dir(dir)? {
        numbers.extend(file?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}
fn head(id: QueueId, length: u64) -> Result<[u8; HEAD as usize], StoreError> {
    let length =
        u32::try_from(length).map_err(|_| StoreError::Corrupt("no small body".to_owned()))?;
    let parts: [&[u8]; 3] = [&MAGIC, &length.to_be_bytes(), id.as_bytes()];
    let mut head = [0; HEAD as usize];
    let check = Sha256::digest(parts.concat());
    for (to, from) in head.iter_mut().zip(parts.concat().iter().chain(check.iter())) {
        *to = *from;
    }
    Ok(head)
}
/// Reads a head; `None` where none is.
fn parse_head(bytes: &[u8; HEAD as usize]) -> Option<(QueueId, u64)> {
    let length = u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?);
    let id = QueueId::from_bytes(bytes.get(8..24)?.try_into().ok()?);
    (head(id, u64::from(length)).ok()? == *bytes).then_some((id, u64::from(length)))
}
/// What the heads of a segment tell.
struct Survey {
    /// Where its last record ends.
    end: u64,
    /// Behind that lie zeros, and nothing else.
    zeros: bool,
    /// No record's key is left.
    erased: bool,
}
/// True if there may be a tail to cut off: a sealed body does not end so.
fn ends_in_zeros(path: &Path) -> io::Result<bool> {
    let file = File::open(path)?;
    let mut end = [0; 8];
    let Some(at) = file.metadata()?.len().checked_sub(end.len() as u64) else { return Ok(true) };
    file.read_exact_at(&mut end, at)?;
    Ok(end == [0; 8])
}
/// Goes from head to head, without reading bodies.
fn survey(path: &Path) -> io::Result<Survey> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let (mut end, mut erased) = (0, true);
    while end + HEAD <= size {
        let mut bytes = [0; HEAD as usize];
        file.read_exact_at(&mut bytes, end)?;
        let Some((_, length)) = parse_head(&bytes).filter(|(_, l)| end + HEAD + l <= size) else {
            break;
        };
        let mut prelude = vec![0; files::keyed(length).end];
        file.read_exact_at(&mut prelude, end + HEAD)?;
        erased &= prelude.iter().skip(Prelude::KEYED.start).all(|byte| *byte == 0)
            || Prelude::parse(&prelude).is_ok_and(|prelude| prelude.wrapped().count() == 0);
        end += HEAD + length;
    }
    // More than was laid out ahead is no such tail; it is left as it is.
    let mut tail = Vec::new();
    if end < size && size - end <= 2 * STRIDE {
        let mut behind = &file;
        behind.seek(SeekFrom::Start(end))?;
        behind.read_to_end(&mut tail)?;
    }
    let zeros = !tail.is_empty() && tail.iter().all(|byte| *byte == 0);
    Ok(Survey { end, zeros, erased: erased && (zeros || end == size) })
}
/// The records at those places, from the head at `from` on, and where the next begins; `None` at the
/// end. No more once they hold `most` bytes.
pub(super) fn records(
    dir: &Path,
    segment: u32,
    offsets: &HashSet<u64>,
    (from, most): (u64, usize),
) -> io::Result<(Vec<Record>, Option<u64>)> {
    let file = File::open(path(dir, segment))?;
    let size = file.metadata()?.len();
    let (mut records, mut held, mut at) = (Vec::new(), 0, from);
    while at + HEAD <= size {
        if held >= most {
            return Ok((records, Some(at)));
        }
        let mut bytes = [0; HEAD as usize];
        file.read_exact_at(&mut bytes, at)?;
        let offset = at + HEAD;
        let Some((id, length)) = parse_head(&bytes).filter(|(_, l)| offset + l <= size) else {
            break;
        };
        if offsets.contains(&offset) {
            let mut sealed = vec![0; usize::try_from(length).unwrap_or(0)];
            file.read_exact_at(&mut sealed, offset)?;
            held += sealed.len();
            records.push(Record { id, at: Locator::Segment { segment, offset, length }, sealed });
        }
        at = offset + length;
    }
    Ok((records, None))
}
/// Goes through the records of a segment up to its end or to where it is torn.
pub(super) fn walk(
    dir: &Path,
    segment: u32,
    mut visit: impl FnMut(Record) -> io::Result<()>,
) -> io::Result<()> {
    let file = File::open(path(dir, segment))?;
    let size = file.metadata()?.len();
    let mut file = BufReader::with_capacity(256 * 1024, file);
    let mut offset = HEAD;
    while offset <= size {
        let mut bytes = [0; HEAD as usize];
        file.read_exact(&mut bytes)?;
        let Some((id, length)) = parse_head(&bytes).filter(|(_, length)| offset + length <= size)
        else {
            return Ok(());
        };
        let mut sealed = vec![0; usize::try_from(length).unwrap_or(0)];
        file.read_exact(&mut sealed)?;
        visit(Record { id, at: Locator::Segment { segment, offset, length }, sealed })?;
        offset += length + HEAD;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> QueueId {
        QueueId::from_bytes([n; 16])
    }
    fn open(dir: &Path, size: u64) -> Segments {
        let layout = Layout::new(dir);
        for dir in [layout.segments(), layout.messages()] {
            super::super::layout::make_dir(&dir).unwrap();
        }
        let options = Options { segment_size: size, ..Options::default() };
        Segments::open(&layout, &options, BTreeMap::new()).unwrap()
    }
    impl Segments {
        /// Carries over what there is.
        fn carry(&mut self) {
            let carriage = self.freeze();
            carriage.write().unwrap();
            carriage.bury().unwrap();
            self.thaw();
            assert!(self.fresh.lock().is_empty());
        }
    }
    fn walked(s: &Segments, number: u32) -> Vec<(QueueId, usize)> {
        let mut found = Vec::new();
        let mut visit = |r: Record| {
            found.push((r.id, r.sealed.len()));
            Ok(())
        };
        walk(&s.dir, number, &mut visit).unwrap();
        found
    }
    #[test]
    fn a_walk_finds_what_was_committed_and_stops_where_it_is_torn() {
        let dir = tempfile::tempdir().unwrap();
        let mut s = open(dir.path(), 1 << 20);
        for n in 1..=3 {
            s.append(id(n), &Bytes::from(vec![n; 300 * usize::from(n)])).unwrap();
        }
        s.carry();
        assert_eq!(walked(&s, 0), [(id(1), 300), (id(2), 600), (id(3), 900)]);
        let file = fs::OpenOptions::new().write(true).open(path(&s.dir, 0)).unwrap();
        file.write_all_at(b"X", HEAD + 300 + HEAD + 600 + 5).unwrap();
        assert_eq!(walked(&s, 0), [(id(1), 300), (id(2), 600)], "a torn head");
        file.set_len(HEAD + 300 + HEAD + 599).unwrap();
        assert_eq!(walked(&s, 0), [(id(1), 300)], "a torn body");
        file.set_len(10).unwrap();
        assert_eq!(walked(&s, 0), [], "a torn first head");
    }
    #[test]
    fn a_segment_goes_when_nothing_lives_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut s = open(dir.path(), 1000);
        let mut at = Vec::new();
        for n in 1..=3 {
            let Locator::Segment { segment, offset, length } =
                s.append(id(n), &Bytes::from(vec![n; 400])).unwrap()
            else {
                panic!("not in a segment")
            };
            at.push((segment, offset, length));
        }
        s.carry();
        assert_eq!(at.iter().map(|(s, ..)| *s).collect::<Vec<_>>(), [0, 0, 1]);
        s.erase(at[0].0, at[0].1, at[0].2).unwrap();
        s.carry();
        assert!(path(&s.dir, 0).exists(), "the second still lives");
        let mut slot = [9; Prelude::KEYED.end];
        File::open(path(&s.dir, 0)).unwrap().read_exact_at(&mut slot, HEAD).unwrap();
        assert!(slot[Prelude::KEYED].iter().all(|b| *b == 0), "the key is gone");
        assert!(slot[..Prelude::KEYED.start].iter().all(|b| *b == 1), "and nothing before it");
        for _ in 0..2 {
            s.erase(at[1].0, at[1].1, at[1].2).unwrap();
            s.erase(at[2].0, at[2].1, at[2].2).unwrap();
            s.carry();
        }
        assert!(!path(&s.dir, 0).exists());
        assert!(path(&s.dir, 1).exists(), "the active one stays");
    }
    #[test]
    fn what_is_erased_before_it_is_written_never_comes_to_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let mut s = open(dir.path(), 1 << 20);
        let place = |at| {
            let Locator::Segment { segment, offset, length } = at else { panic!("{at:?}") };
            (segment, offset, length)
        };
        let [a, b, c] =
            [1, 2, 3].map(|n| place(s.append(id(n), &Bytes::from(vec![n; 600])).unwrap()));
        assert_eq!(s.fresh().get(b.0, b.1).unwrap(), vec![2; 600], "read from memory");
        s.erase(b.0, b.1, b.2).unwrap();
        assert_eq!(s.fresh().get(b.0, b.1), None);
        let carriage = s.freeze();
        s.erase(c.0, c.1, c.2).unwrap();
        carriage.write().unwrap();
        s.thaw();
        s.carry();
        let bytes = fs::read(path(&s.dir, 0)).unwrap();
        let of = |(_, offset, length): (u32, u64, u64)| {
            &bytes[usize::try_from(offset).unwrap()..][..usize::try_from(length).unwrap()]
        };
        assert_eq!(of(a), [1; 600]);
        assert!(of(b)[Prelude::KEYED].iter().all(|b| *b == 0), "erased before");
        assert!(of(b)[Prelude::KEYED.end..].iter().all(|b| *b == 0), "nothing else of it either");
        assert!(of(b)[..Prelude::KEYED.start].iter().all(|b| *b == 2), "but what it was");
        assert!(of(c)[Prelude::KEYED].iter().all(|b| *b == 0), "erased while it was under way");
        assert_eq!(walked(&s, 0).len(), 3, "a walk finds its way past the gap");
    }
    #[test]
    fn a_start_leaves_nothing_of_what_is_erased_and_no_zeros_behind_what_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let mut s = open(dir.path(), 1 << 20);
        let mut at = Vec::new();
        for n in 1..=2 {
            at.push(s.append(id(n), &Bytes::from(vec![n; 400])).unwrap());
        }
        s.carry();
        let file = path(&s.dir, 0);
        let length = || fs::metadata(&file).map(|meta| meta.len()).ok();
        assert_eq!(length(), Some(1 << 20), "laid out");
        open(dir.path(), 1 << 20).sweep().unwrap();
        assert_eq!(length(), Some(2 * (HEAD + 400)), "no row, but a key: a rebuild may want it");
        for at in at {
            let Locator::Segment { segment, offset, length } = at else { panic!("no segment") };
            s.erase(segment, offset, length).unwrap();
        }
        s.carry();
        let live = BTreeMap::from([(0, Live { offsets: HashSet::from([HEAD]), bytes: 400 })]);
        let options = Options { segment_size: 1 << 20, ..Options::default() };
        Segments::open(&layout, &options, live).unwrap().sweep().unwrap();
        assert!(length().is_some(), "a row speaks of it");
        open(dir.path(), 1 << 20).sweep().unwrap();
        assert_eq!(length(), None);
    }
    #[test]
    fn a_torn_tail_is_left_for_those_who_look() {
        let dir = tempfile::tempdir().unwrap();
        let mut s = open(dir.path(), 1 << 20);
        s.append(id(1), &Bytes::from(vec![1; 400])).unwrap();
        s.carry();
        let file = fs::OpenOptions::new().write(true).open(path(&s.dir, 0)).unwrap();
        file.write_all_at(b"X", HEAD + 400 + 100).unwrap();
        open(dir.path(), 1 << 20).sweep().unwrap();
        assert_eq!(file.metadata().unwrap().len(), 1 << 20);
    }
    #[test]
    fn every_start_begins_a_new_segment() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..3 {
            let mut s = open(dir.path(), 1000);
            s.append(id(1), &Bytes::from_static(b"sealed")).unwrap();
            s.carry();
            assert_eq!(numbers(&s.dir).unwrap().len(), n + 1);
        }
    }
}
