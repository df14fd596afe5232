//! The vault's directory: where what lies, its format mark, its lock, and files that reach the
//! disk.
//!
//! ```text
//! FORMAT      version, segment size of the book lock     held while open
//! meta/       the book (sled)                   reserve  blocks to give up when the disk is full
//! body/seg/   segments of small sealed bodies   body/msg/ab/ID  a file for each larger one
//! body/tmp/   bodies being written; emptied at start
//! journal/    what has been answered for and is not in book and segments yet
//! aside/      sealed bodies that no message owns; a name begins with the second when it was set aside
//! ```

use super::{OpenError, files};
use crate::{clock::TrustedTime, mail::QueueId, store::StoreError};
use jiff::Timestamp;
use rustix::{fs::FallocateFlags, io::Errno};
use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// sled's segments: 2 MiB, so that no leaf of rows ever becomes a blob, which sled does not sync.
pub(super) const BOOK_SEGMENT: usize = 2 * 1024 * 1024;
const FORMAT: &str = "restante vault 2\nbook sled 0.34 segment_size 2097152\n";
/// A vault from before there was a journal: opening it makes it one with an empty journal.
const FORMAT_1: &str = "restante vault 1\nbook sled 0.34 segment_size 2097152\n";

/// Paths under the vault's directory.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: PathBuf,
}
impl Layout {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }
    pub(super) fn root(&self) -> &Path {
        &self.root
    }
    pub(super) fn meta(&self) -> PathBuf {
        self.root.join("meta")
    }
    /// sled's own file.
    pub(super) fn book(&self) -> PathBuf {
        self.meta().join("db")
    }
    pub(super) fn format(&self) -> PathBuf {
        self.root.join("FORMAT")
    }
    pub(super) fn segments(&self) -> PathBuf {
        self.root.join("body/seg")
    }
    pub(super) fn messages(&self) -> PathBuf {
        self.root.join("body/msg")
    }
    pub(super) fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }
    pub(super) fn tmp(&self) -> PathBuf {
        self.root.join("body/tmp")
    }
    fn aside(&self) -> PathBuf {
        self.root.join("aside")
    }
    /// Moves a file to where what no message owns lies, under this name.
    pub(super) fn set_aside(
        &self,
        path: &Path,
        name: &str,
        now: TrustedTime,
    ) -> io::Result<PathBuf> {
        let to = self.aside().join(format!("{}-{name}", now.get().as_second()));
        make_dir(&self.aside())?;
        if to.exists() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        fs::rename(path, &to)?;
        sync_dir(&self.aside())?;
        path.parent().map_or(Ok(()), sync_dir)?;
        Ok(to)
    }
    /// What lies there, and the second since when.
    pub(super) fn lying_aside(&self) -> io::Result<Vec<(PathBuf, i64)>> {
        let files = match fs::read_dir(self.aside()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            files => files?,
        };
        let mut found = Vec::new();
        for file in files {
            let path = file?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let since = name.and_then(|name| name.split_once('-')?.0.parse().ok());
            found.extend(since.map(|since| (path, since)));
        }
        Ok(found)
    }
    pub(super) fn reserve(&self) -> PathBuf {
        self.root.join("reserve")
    }
    /// The file of a large body. Its folder is named by the id's last two characters: they are
    /// random, the first are the time.
    pub(super) fn message(&self, id: QueueId) -> PathBuf {
        let name = id.to_string();
        let folder = name.get(name.len().saturating_sub(2)..).unwrap_or("00").to_owned();
        self.messages().join(folder).join(name)
    }

    /// Makes the directories and takes the lock, which lasts as long as the file returned.
    pub(super) fn prepare(&self) -> Result<File, OpenError> {
        for dir in [self.root.clone(), self.segments(), self.messages(), self.tmp()] {
            make_dir(&dir).map_err(|e| OpenError::io(&dir, e))?;
        }
        let path = self.root.join("lock");
        let lock = private().truncate(false).open(&path).map_err(|e| OpenError::io(&path, e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(self.root.clone())),
            Err(TryLockError::Error(e)) => return Err(OpenError::io(&path, e)),
        }
        Ok(lock)
    }
    /// Writes the format mark of a new vault, or reads it in an old one.
    pub(super) fn mark(&self) -> Result<(), OpenError> {
        let path = self.format();
        match fs::read_to_string(&path) {
            Ok(text) if text == FORMAT => Ok(()),
            Ok(text) if text == FORMAT_1 => {
                write_durably(&path, FORMAT.as_bytes()).map_err(|e| OpenError::io(&path, e))
            }
            Ok(text) => Err(OpenError::Format(format!(
                "{} says {:?}; this version reads {:?}",
                path.display(),
                text.lines().next().unwrap_or_default(),
                FORMAT.lines().next().unwrap_or_default()
            ))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if self.meta().exists() || self.has_bodies().map_err(|e| OpenError::io(&path, e))? {
                    return Err(OpenError::Format(format!(
                        "{} is missing beside data; put the file back from a backup, or take \
                         another directory",
                        path.display()
                    )));
                }
                write_durably(&path, FORMAT.as_bytes()).map_err(|e| OpenError::io(&path, e))
            }
            Err(e) => Err(OpenError::io(&path, e)),
        }
    }
    /// As [`Layout::mark`], but data without a mark gets one: they are about to be read with every
    /// doubt.
    pub(super) fn mark_again(&self) -> Result<(), OpenError> {
        let path = self.format();
        if path.exists() {
            return self.mark();
        }
        write_durably(&path, FORMAT.as_bytes()).map_err(|e| OpenError::io(&path, e))
    }
    /// Moves the book aside, with the journal that goes with it, under a name that tells when; `None`
    /// if there is none.
    pub(super) fn set_book_aside(&self, now: Timestamp) -> io::Result<Option<PathBuf>> {
        if !self.meta().exists() && !self.journal().exists() {
            return Ok(None);
        }
        make_dir(&self.meta())?;
        let stem = format!("meta.damaged-{}", now.strftime("%Y%m%dT%H%M%SZ"));
        let names = (0..).map(|n| if n == 0 { stem.clone() } else { format!("{stem}-{n}") });
        let Some(aside) = names.map(|n| self.root.join(n)).find(|path| !path.exists()) else {
            return Ok(None);
        };
        fs::rename(self.meta(), &aside)?;
        if self.journal().exists() {
            fs::rename(self.journal(), aside.join("journal"))?;
        }
        sync_dir(&self.root)?;
        Ok(Some(aside))
    }
    /// True if a sealed body lies here.
    pub(super) fn has_bodies(&self) -> io::Result<bool> {
        if fs::read_dir(self.segments())?.next().is_some() {
            return Ok(true);
        }
        for folder in fs::read_dir(self.messages())? {
            if fs::read_dir(folder?.path())?.next().is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
    /// Removes bodies that nobody finished writing, with their keys.
    pub(super) fn empty_tmp(&self) -> io::Result<()> {
        for file in fs::read_dir(self.tmp())? {
            files::destroy(&file?.path()).map_err(io::Error::other)?;
        }
        Ok(())
    }
    /// True if that much is laid aside already.
    pub(super) fn has_reserve(&self, size: u64) -> bool {
        fs::metadata(self.reserve()).is_ok_and(|m| m.len() == size)
    }
    /// Lays real blocks aside, so that a full disk can be relieved by giving them up.
    pub(super) fn lay_reserve(&self, size: u64) -> io::Result<()> {
        let path = self.reserve();
        let mut file = private().truncate(true).open(&path)?;
        let laid = match allocate(&file, FallocateFlags::empty(), 0, size) {
            Ok(false) => write_zeros(&mut file, size).and_then(|()| file.sync_all()),
            other => other.map(drop),
        };
        if laid.is_err() {
            let _ = fs::remove_file(&path);
        }
        laid
    }
    /// Large bodies, in no order.
    pub(super) fn message_files(&self) -> io::Result<Vec<(QueueId, PathBuf)>> {
        let mut files = Vec::new();
        for folder in fs::read_dir(self.messages())? {
            for file in fs::read_dir(folder?.path())? {
                let path = file?.path();
                let name = path.file_name().and_then(|n| n.to_str());
                if let Some(id) = name.and_then(|n| n.parse().ok()) {
                    files.push((id, path));
                }
            }
        }
        Ok(files)
    }
}

/// A file for us alone, made if missing.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    options
}
/// Makes a directory for us alone, with its parents, and makes each new one durable.
pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = match dir.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    };
    make_dir(parent)?;
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        Ok(()) | Err(_) => {}
    }
    sync_dir(parent)
}
/// A directory's entries reach the disk only when the directory itself is synced.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
/// Writes a small file so that it is there whole or not at all.
fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let tmp = path.with_extension("tmp");
    let mut file = private().truncate(true).open(&tmp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&tmp, path)?;
    path.parent().map_or(Ok(()), sync_dir)
}
/// Reserves blocks for that part of a file; false where the file system does not know how.
pub(super) fn allocate(
    file: &File,
    flags: FallocateFlags,
    from: u64,
    length: u64,
) -> io::Result<bool> {
    match rustix::fs::fallocate(file, flags, from, length) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        other => Ok(other.map(|()| true)?),
    }
}
/// Writes that many zeros at the file's position.
pub(super) fn write_zeros(file: &mut impl Write, mut count: u64) -> io::Result<()> {
    let zeros = vec![0; 256 * 1024];
    while count > 0 {
        let step = usize::try_from(count).map_or(zeros.len(), |n| n.min(zeros.len()));
        file.write_all(zeros.get(..step).unwrap_or_default())?;
        count -= step as u64;
    }
    Ok(())
}
/// True if the disk had no room.
pub(super) fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
/// What an error on a body's file means for its caller.
pub(super) fn body_error(path: &Path, e: &io::Error) -> StoreError {
    if is_full(e) {
        StoreError::Full
    } else if e.kind() == io::ErrorKind::NotFound {
        StoreError::NotFound
    } else {
        StoreError::Fatal(format!("{}: {e}", path.display()))
    }
}

/// True if a file was last written that long ago.
pub(super) fn is_old(path: &Path, now: TrustedTime, age: Duration) -> io::Result<bool> {
    let written = fs::metadata(path)?.modified()?;
    Ok(SystemTime::from(now.get()).duration_since(written).is_ok_and(|since| since >= age))
}
