//! The upload store: files that come before their letter, a stretch at a time. Where a connection
//! breaks, the next one goes on from what has come.
//!
//! A file belongs to an account; its content is sealed aside on the disk, its row is in memory. It goes
//! with its letter, when it is removed, or when nothing has come for a while; a restart forgets it.

use super::{
    flow::{Flows, Paced},
    refuses_file,
};
use crate::{
    mail::letter::file_name,
    store::Account,
    vault::{Staged, Staging, Vault, VaultError},
};
use bytes::Bytes;
use futures_util::stream::Stream;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep_until};

/// Files of one account.
pub const OWN_UPLOADS: usize = 50;
/// Files of all, and how many of the largest letters they may be together, in octets.
const ALL: usize = 500;
const ALL_LETTERS: u64 = 20;
/// How long a whole file waits for its letter.
const KEPT: Duration = Duration::from_secs(3600);
/// How long one that has begun waits for more of it.
const IDLE: Duration = Duration::from_secs(900);
/// Longest type of a file, and longest mark.
const MAX_KIND: usize = 200;
const MAX_MARK: usize = 100;

type Items = Arc<Mutex<HashMap<String, Arc<Item>>>>;

/// All files that wait.
#[derive(Debug)]
pub struct Uploads {
    vault: Vault,
    flows: Flows,
    /// Octets of the largest letter.
    largest: u64,
    refused: Vec<String>,
    items: Items,
}

/// A file to begin.
#[derive(Debug)]
pub struct NewUpload<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its media type.
    pub kind: &'a str,
    /// Its octets.
    pub size: u64,
    /// What a client knows it by, besides name and size; may be empty.
    pub mark: &'a str,
}

/// One file that waits.
#[derive(Debug, Clone)]
pub struct Upload {
    id: String,
    item: Arc<Item>,
}

/// How far a file has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Octets.
    pub offset: u64,
    /// All of it is here.
    pub whole: bool,
}

/// Why a file is not begun.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// `portal.refuse_files`
    #[error("files of this name are refused")]
    RefusedFile(String),
    /// It is larger than a letter may be.
    #[error("larger than a letter")]
    TooLarge,
    /// With what the account has here, it would be.
    #[error("larger than a letter, with the account's other files")]
    TooMuch,
    /// The account has [`OWN_UPLOADS`].
    #[error("too many files")]
    TooMany,
    /// The store has as many as it may.
    #[error("the upload store is full")]
    Full,
    /// The vault.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// What a stretch came to.
#[derive(Debug)]
pub enum Appended {
    /// It ended, or broke off: what came of it stays.
    Taken(Progress),
    /// It brought more than was announced; nothing is taken beyond that.
    TooLarge(Progress),
    /// The file goes on elsewhere than at the stretch's offset.
    Elsewhere(Progress),
    /// Another stretch of the file is on its way.
    InUse,
    /// The account has as many flows as it may.
    Busy,
    /// The file is not here any more.
    Gone,
}

/// A file's row. What lies on the disk of it goes when it is dropped.
#[derive(Debug)]
struct Item {
    /// The account's [`generation`](Account::generation).
    owner: [u8; 16],
    name: String,
    kind: String,
    size: u64,
    mark: String,
    until: Mutex<Instant>,
    removed: AtomicBool,
    file: tokio::sync::Mutex<File>,
}

#[derive(Debug)]
enum File {
    Coming(Staging),
    Whole(Staged),
    /// It broke on its way to the store.
    Gone,
}

impl Item {
    fn new(owner: [u8; 16], name: String, new: &NewUpload<'_>, file: File) -> Self {
        let kept = if new.size == 0 { KEPT } else { IDLE };
        Self {
            owner,
            name,
            kind: new.kind.chars().take(MAX_KIND).collect(),
            size: new.size,
            mark: new.mark.chars().take(MAX_MARK).collect(),
            until: Mutex::new(Instant::now() + kept),
            removed: AtomicBool::new(false),
            file: tokio::sync::Mutex::new(file),
        }
    }

    fn keep(&self, time: Duration) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + time;
    }

    fn until(&self) -> Instant {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self, file: &File) -> Progress {
        let (offset, whole) = match file {
            File::Coming(staging) => (staging.size(), false),
            File::Whole(_) => (self.size, true),
            File::Gone => (0, false),
        };
        Progress { offset, whole }
    }
}

impl Upload {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }
    /// Its name, which leads nowhere.
    pub fn name(&self) -> &str {
        &self.item.name
    }
    /// Its media type, as it was announced.
    pub fn kind(&self) -> &str {
        &self.item.kind
    }
    /// The octets announced.
    pub fn size(&self) -> u64 {
        self.item.size
    }
    /// What a client knows it by.
    pub fn mark(&self) -> &str {
        &self.item.mark
    }
    /// How far it has come; `None` while a stretch is on its way.
    pub fn progress(&self) -> Option<Progress> {
        self.item.file.try_lock().ok().map(|file| self.item.progress(&file))
    }

    /// Its content, if it is whole.
    pub(super) fn content(
        &self,
        vault: &Vault,
    ) -> Result<Option<crate::vault::Content>, VaultError> {
        match self.item.file.try_lock().as_deref() {
            Ok(File::Whole(staged)) => vault.read_staged(staged).map(Some),
            Ok(File::Coming(_) | File::Gone) | Err(_) => Ok(None),
        }
    }

    /// Takes what comes, up to the file's announced end.
    async fn take<S, E>(
        &self,
        staging: &mut Staging,
        flow: &super::flow::Flow,
        octets: S,
    ) -> Result<bool, VaultError>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
    {
        let (item, mut paced) = (&self.item, Paced::new(octets));
        while let Ok(Some(piece)) = paced.next().await {
            if item.removed.load(Ordering::Acquire) {
                break;
            }
            if staging.size().saturating_add(piece.len() as u64) > item.size {
                return Ok(false);
            }
            let _place = flow.place().await;
            staging.write(&piece).await?;
            // Nothing but an unfinished frame is held while the client is waited for.
            staging.rest().await?;
            item.keep(IDLE);
        }
        Ok(true)
    }
}

impl Uploads {
    pub(super) fn new(vault: Vault, flows: Flows, largest: u64, refused: Vec<String>) -> Self {
        Self { vault, flows, largest, refused, items: Items::default() }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Arc<Item>>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a file of that account.
    ///
    /// # Errors
    /// [`UploadError`] says why not.
    pub async fn begin(
        &self,
        account: &Account,
        new: &NewUpload<'_>,
    ) -> Result<Upload, UploadError> {
        let name = file_name(new.name);
        if refuses_file(&self.refused, &name) {
            return Err(UploadError::RefusedFile(name));
        }
        let staging = self.vault.stage().await?;
        let file =
            if new.size == 0 { File::Whole(staging.end().await?) } else { File::Coming(staging) };
        let id = format!("{:032x}", rand::random::<u128>());
        let upload = Upload { id, item: Arc::new(Item::new(account.generation, name, new, file)) };
        self.enter(&upload)?;
        self.expire(upload.id.clone(), &upload.item);
        Ok(upload)
    }

    fn enter(&self, upload: &Upload) -> Result<(), UploadError> {
        let mut all = self.all();
        let (mut count, mut own, mut octets) = (0, 0_u64, 0_u64);
        for other in all.values() {
            octets = octets.saturating_add(other.size);
            if other.owner == upload.item.owner {
                count += 1;
                own = own.saturating_add(other.size);
            }
        }
        let size = upload.item.size;
        if size > self.largest {
            return Err(UploadError::TooLarge);
        }
        if own.saturating_add(size) > self.largest {
            return Err(UploadError::TooMuch);
        }
        if count >= OWN_UPLOADS {
            return Err(UploadError::TooMany);
        }
        let most = self.largest.saturating_mul(ALL_LETTERS);
        if all.len() >= ALL || octets.saturating_add(size) > most {
            return Err(UploadError::Full);
        }
        all.insert(upload.id.clone(), Arc::clone(&upload.item));
        Ok(())
    }

    /// Removes a file once nothing has come of it for long enough.
    fn expire(&self, id: String, item: &Arc<Item>) {
        let (items, item) = (Arc::clone(&self.items), Arc::downgrade(item));
        tokio::spawn(async move {
            while let Some(until) = item.upgrade().map(|item| item.until()) {
                if until <= Instant::now() {
                    items.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                    return;
                }
                sleep_until(until).await;
            }
        });
    }

    /// A file of that account.
    pub fn find(&self, account: &Account, id: &str) -> Option<Upload> {
        let item = self.all().get(id).filter(|i| i.owner == account.generation).cloned()?;
        Some(Upload { id: id.to_owned(), item })
    }

    /// All files of that account, by name.
    pub fn of(&self, account: &Account) -> Vec<Upload> {
        let all = self.all();
        let own = all.iter().filter(|(_, item)| item.owner == account.generation);
        let mut own: Vec<_> =
            own.map(|(id, item)| Upload { id: id.clone(), item: Arc::clone(item) }).collect();
        own.sort_by(|a, b| a.item.name.cmp(&b.item.name));
        own
    }

    /// Removes a file. A stretch that is on its way ends with its next piece.
    pub fn remove(&self, upload: &Upload) {
        if let Some(item) = self.all().remove(&upload.id) {
            item.removed.store(true, Ordering::Release);
        }
    }

    /// Takes a stretch that begins at `offset`.
    ///
    /// # Errors
    /// [`VaultError`] where it can't be written down: the file is removed then.
    pub async fn append<S, E>(
        &self,
        upload: &Upload,
        offset: u64,
        octets: S,
    ) -> Result<Appended, VaultError>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
    {
        let item = &upload.item;
        let Ok(mut file) = item.file.try_lock() else { return Ok(Appended::InUse) };
        let Some(flow) = self.flows.begin(item.owner) else { return Ok(Appended::Busy) };
        let staging = match &mut *file {
            File::Coming(staging) if staging.size() == offset => staging,
            File::Coming(_) | File::Whole(_) => {
                return Ok(Appended::Elsewhere(item.progress(&file)));
            }
            File::Gone => return Ok(Appended::Gone),
        };
        let mut taken = upload.take(staging, &flow, octets).await;
        if taken.is_ok() && staging.size() == item.size {
            item.keep(KEPT);
            if let Err(error) = end(&mut file).await {
                taken = Err(error);
            }
        }
        match taken {
            Ok(true) => Ok(Appended::Taken(item.progress(&file))),
            Ok(false) => Ok(Appended::TooLarge(item.progress(&file))),
            // There is nothing to go on with: the client begins anew.
            Err(error) => {
                *file = File::Gone;
                self.remove(upload);
                Err(error)
            }
        }
    }
}

async fn end(file: &mut File) -> Result<(), VaultError> {
    if let File::Coming(staging) = std::mem::replace(file, File::Gone) {
        *file = File::Whole(staging.end().await?);
    }
    Ok(())
}
