//! Large sealed bodies: a file each, written as it comes in, in place only when it is whole and on
//! the disk. A file is locked while its keys are wrapped again and while it is destroyed: what is
//! destroyed gets no key any more.

use super::{
    layout::{Layout, body_error, is_full, make_dir, private, sync_dir},
    segments,
    space::Watch,
};
use crate::{
    mail::QueueId,
    seal::{WrappedKey, stream::Prelude},
    store::{
        BodyWriter, Health, Locator, StoreError,
        body::{Aside, BodyReader},
    },
};
use async_trait::async_trait;
use bytes::Bytes;
use rustix::{buffer::spare_capacity, io::Errno};
use std::{
    fs::{self, File},
    io::{self, Write},
    ops::Range,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Readers read as much at once.
const READ: usize = 256 * 1024;
/// The file is synced that often while it is written, so that the last sync, which a client waits
/// for, is short.
const SYNC_EVERY: u64 = 32 * 1024 * 1024;

/// Runs file work away from the tasks that wait for it.
pub(super) async fn off<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(StoreError::Fatal(format!("a worker thread ended: {e}"))),
    }
}

/// A file that does not open breaks nothing yet: there may be too many open ones.
fn open_error(path: &Path, e: &io::Error) -> StoreError {
    let error = body_error(path, e);
    if !matches!(error, StoreError::Fatal(_)) {
        return error;
    }
    tracing::warn!(%error, "a body's file does not open");
    StoreError::Busy
}

/// Whether bodies may be written now.
fn ready(watch: &Watch) -> Result<(), StoreError> {
    match watch.health() {
        Health::Ok => Ok(()),
        Health::Full => Err(StoreError::Full),
        Health::Broken(why) => Err(StoreError::Fatal(why)),
    }
}

/// A large body being written.
pub(super) struct FileWriter {
    id: QueueId,
    layout: Layout,
    watch: Arc<Watch>,
    /// `None` after an error: the rest is refused.
    open: Option<Unfinished>,
}
/// A file in `body/tmp`, removed unless it gets its place.
struct Unfinished {
    file: File,
    path: PathBuf,
    length: u64,
    unsynced: u64,
    placed: bool,
}
impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.placed {
            let _ = overwrite_keys(&self.file);
            let _ = fs::remove_file(&self.path);
        }
    }
}
impl Unfinished {
    fn begin(path: PathBuf) -> io::Result<Self> {
        let file = private().truncate(true).open(&path)?;
        Ok(Self { file, path, length: 0, unsynced: 0, placed: false })
    }
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_EVERY {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(())
    }
    /// Syncs it, moves it into its place and syncs that directory.
    fn place(&mut self, to: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        let dir = to.parent().ok_or(io::ErrorKind::InvalidInput)?;
        make_dir(dir)?;
        fs::rename(&self.path, to)?;
        self.placed = true;
        sync_dir(dir)
    }
}

impl FileWriter {
    pub(super) async fn begin(
        id: QueueId,
        layout: Layout,
        watch: Arc<Watch>,
    ) -> Result<Self, StoreError> {
        ready(&watch)?;
        let path = layout.tmp().join(id.to_string());
        let begun = off(move || Unfinished::begin(path.clone()).map_err(|e| open_error(&path, &e)));
        let open = Some(begun.await?);
        Ok(Self { id, layout, watch, open })
    }
    /// Does `work` on the file, which writes `more` bytes; after an error the file is gone.
    async fn step(
        &mut self,
        more: u64,
        work: impl FnOnce(&mut Unfinished) -> io::Result<()> + Send + 'static,
    ) -> Result<u64, StoreError> {
        let Some(mut open) = self.open.take() else {
            return Err(StoreError::Fatal("writing went on after an error".to_owned()));
        };
        let watch = Arc::clone(&self.watch);
        let open = off(move || {
            if !watch.takes_body(more) {
                watch.ran_full();
                return Err(StoreError::Full);
            }
            match work(&mut open) {
                Ok(()) => Ok(open),
                Err(e) => {
                    let error = body_error(&open.path, &e);
                    if is_full(&e) {
                        watch.ran_full();
                    } else {
                        watch.break_down(&error.to_string());
                    }
                    Err(error)
                }
            }
        });
        let open = open.await?;
        let length = open.length;
        self.open = Some(open);
        Ok(length)
    }
}
#[async_trait]
impl BodyWriter for FileWriter {
    async fn write(&mut self, sealed: Bytes) -> Result<(), StoreError> {
        let more = sealed.len() as u64;
        self.step(more, move |open| open.write(&sealed)).await.map(drop)
    }
    async fn seal(mut self: Box<Self>) -> Result<Locator, StoreError> {
        let place = self.layout.message(self.id);
        let length = self.step(0, move |open| open.place(&place)).await?;
        Ok(Locator::File { length })
    }
}

#[async_trait]
impl Aside for FileWriter {
    async fn write(&mut self, sealed: Bytes) -> Result<(), StoreError> {
        BodyWriter::write(self, sealed).await
    }
    fn open(&self, from: u64) -> Result<Box<dyn BodyReader>, StoreError> {
        let gone = || StoreError::Corrupt("a body is read that broke off".to_owned());
        let Unfinished { file, path, length, .. } = self.open.as_ref().ok_or_else(gone)?;
        let file = file.try_clone().map_err(|e| open_error(path, &e))?;
        let (at, end) = (from.min(*length), *length);
        let (file, path, first) = (Arc::new(file), path.clone(), Bytes::new());
        Ok(Box::new(FileReader { file, path, at, end, first }))
    }
}

/// A body being read, from a file of its own or out of a segment.
#[derive(Debug)]
pub(super) struct FileReader {
    file: Arc<File>,
    path: PathBuf,
    at: u64,
    end: u64,
    /// What was read as it was opened.
    first: Bytes,
}
/// Reads what lies there, [`READ`] bytes at most.
fn read(file: &File, path: &Path, at: u64, end: u64) -> Result<Bytes, StoreError> {
    let length = usize::try_from(end.saturating_sub(at)).map_or(READ, |rest| rest.min(READ));
    let corrupt = |e: io::Error| StoreError::Corrupt(format!("{}: {e}", path.display()));
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let from = at.saturating_add(bytes.len() as u64);
        match rustix::io::pread(file, spare_capacity(&mut bytes), from) {
            Ok(0) => return Err(corrupt(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(corrupt(e.into())),
        }
    }
    bytes.truncate(length);
    Ok(Bytes::from(bytes))
}
impl FileReader {
    pub(super) async fn open(
        layout: &Layout,
        id: QueueId,
        at: &Locator,
        range: Range<u64>,
    ) -> Result<Self, StoreError> {
        let (path, start, length) = match at {
            Locator::Segment { segment, offset, length } => {
                (segments::path(&layout.segments(), *segment), *offset, *length)
            }
            Locator::File { length } => (layout.message(id), 0, *length),
            Locator::Gone => return Err(StoreError::NotFound),
            Locator::Memory => {
                return Err(StoreError::Corrupt("a locator of another store".to_owned()));
            }
        };
        let end = start.saturating_add(length.min(range.end));
        let at = start.saturating_add(range.start).min(end);
        // A small body is whole then.
        let opened = off(move || {
            loop {
                let file = File::open(&path).map_err(|e| open_error(&path, &e))?;
                let first = read(&file, &path, at, end)?;
                // One that another took the place of may have lost its keys before they were read.
                if file.metadata().is_ok_and(|meta| meta.nlink() > 0) {
                    let at = at + first.len() as u64;
                    return Ok(Self { file: Arc::new(file), path, at, end, first });
                }
            }
        });
        opened.await
    }
}
#[async_trait]
impl BodyReader for FileReader {
    async fn next(&mut self) -> Result<Bytes, StoreError> {
        let first = std::mem::take(&mut self.first);
        if !first.is_empty() || self.at >= self.end {
            return Ok(first);
        }
        let (file, path, at, end) = (Arc::clone(&self.file), self.path.clone(), self.at, self.end);
        let bytes = off(move || read(&file, &path, at, end)).await?;
        self.at += bytes.len() as u64;
        Ok(bytes)
    }
}

/// A body that is in no file yet.
pub(super) struct MemoryReader(Bytes);
impl MemoryReader {
    pub(super) fn new(sealed: Bytes, range: Range<u64>) -> Self {
        let within = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(sealed.len());
        let (from, to) = (within(range.start), within(range.end));
        Self(sealed.slice(from.min(to)..to))
    }
}
#[async_trait]
impl BodyReader for MemoryReader {
    async fn next(&mut self) -> Result<Bytes, StoreError> {
        Ok(std::mem::take(&mut self.0))
    }
}

/// Overwrites the wrapped keys in a body's prelude, then removes its file. Again: nothing happens.
pub(super) fn destroy(path: &Path) -> Result<(), StoreError> {
    let zeroed = || -> io::Result<()> {
        let file = locked(path)?;
        overwrite_keys(&file)?;
        file.sync_data()?;
        fs::remove_file(path)
    };
    match zeroed() {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(body_error(path, &e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Opens and locks the file that has that name.
fn locked(path: &Path) -> io::Result<File> {
    loop {
        let file = private().create(false).open(path)?;
        file.lock()?;
        // While the lock was waited for, it may have been removed or replaced.
        if file.metadata()?.nlink() > 0 {
            return Ok(file);
        }
    }
}

/// Leaves this wrapped key in that slot of a body's prelude, and none in the others. False if the body
/// is gone.
pub(super) fn rewrap(
    layout: &Layout,
    id: QueueId,
    slot: usize,
    key: &WrappedKey,
) -> Result<bool, StoreError> {
    let path = layout.message(id);
    let failed = |e: io::Error| body_error(&path, &e);
    let file = match locked(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file.map_err(failed)?,
    };
    let length = file.metadata().map_err(failed)?.len();
    let head = read(&file, &path, 0, length.min(Prelude::MAX as u64))?;
    let Some((prelude, slots)) = rekeyed(&path, &head, slot, key)? else { return Ok(false) };
    let first = prelude.slot_at(0);
    if prelude.slots.len() == 1 {
        replace(layout, id, &file, (first, &slots)).map_err(failed)?;
        return Ok(true);
    }
    let written = file
        .write_all_at(&key.to_bytes(), prelude.slot_at(slot) as u64)
        .and_then(|()| file.sync_data())
        .and_then(|()| file.write_all_at(&slots, first as u64))
        .and_then(|()| file.sync_data());
    written.map_err(failed)?;
    Ok(true)
}
/// The prelude that begins these bytes, and the bytes of its slots where that one alone holds the key.
/// `None` if it has been destroyed.
pub(super) fn rekeyed(
    path: &Path,
    head: &[u8],
    slot: usize,
    key: &WrappedKey,
) -> Result<Option<(Prelude, Vec<u8>)>, StoreError> {
    let corrupt = |what: &str| StoreError::Corrupt(format!("{}: {what}", path.display()));
    let prelude = Prelude::parse(head).map_err(|e| corrupt(&e.to_string()))?;
    if prelude.wrapped().next().is_none() {
        return Ok(None);
    }
    let slots =
        prelude.keyed_by(slot, key).ok_or_else(|| corrupt("it has no slot for that key"))?;
    Ok(Some((prelude, slots)))
}
/// Puts a copy with these bytes in its prelude in the place of a body, then overwrites the old keys.
fn replace(
    layout: &Layout,
    id: QueueId,
    old: &File,
    (at, slots): (usize, &[u8]),
) -> io::Result<()> {
    let to = layout.message(id);
    let mut copy = Unfinished::begin(layout.tmp().join(format!("{id}.rewrap")))?;
    io::copy(&mut &*old, &mut copy.file)?;
    copy.file.write_all_at(slots, at as u64)?;
    copy.place(&to)?;
    overwrite_keys(old)?;
    old.sync_data()
}

fn overwrite_keys(file: &File) -> io::Result<()> {
    let zeros = keyed(file.metadata()?.len());
    file.write_all_at(&vec![0; zeros.len()], Prelude::KEYED.start as u64)
}
/// Where wrapped keys may lie in a body of that length.
pub(super) fn keyed(length: u64) -> Range<usize> {
    let Range { start, end } = Prelude::KEYED;
    start..usize::try_from(length).unwrap_or(usize::MAX).clamp(start, end)
}
