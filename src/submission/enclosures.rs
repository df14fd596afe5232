//! Files that come with the form of their letter. They are sealed aside, one behind the other, until
//! the form has ended; only then is the letter written. So the way in by the door is never held by a
//! client's slowness.

use super::{
    MAX_FILES, Submission, SubmissionError,
    flow::{Flow, Flows},
    quota::Quota,
    refuses_file,
};
use crate::{
    mail::{Address, letter::file_name},
    store::Account,
    vault::{Content, Staged, Staging, Vault, VaultError},
};
use bytes::Bytes;

/// Longest type of a file.
const MAX_KIND: usize = 200;

/// Files on their way in.
#[derive(Debug)]
pub struct Enclosures<'a> {
    submission: &'a Submission,
    account: &'a Address,
    flow: Flow,
    staging: Staging,
    files: Vec<Enclosure>,
}

/// Files that have come.
#[derive(Debug)]
pub struct Enclosed {
    staged: Staged,
    pub(super) files: Vec<Enclosure>,
}

/// One of them: its place is behind those before it.
#[derive(Debug)]
pub(super) struct Enclosure {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) size: u64,
}

impl<'a> Enclosures<'a> {
    pub(super) async fn begin(
        submission: &'a Submission,
        flows: &Flows,
        account: &'a Account,
    ) -> Result<Self, SubmissionError> {
        let flow = flows.begin(account.generation).ok_or(SubmissionError::Busy)?;
        let staging = submission.vault.stage().await?;
        Ok(Self { submission, account: &account.address, flow, staging, files: Vec::new() })
    }

    fn quota(&self) -> &Quota {
        &self.submission.quota
    }

    /// The next file begins.
    ///
    /// # Errors
    /// [`SubmissionError::RefusedFile`], [`SubmissionError::TooLarge`].
    pub fn file(&mut self, name: &str, kind: &str) -> Result<(), SubmissionError> {
        let name = file_name(name);
        if refuses_file(&self.submission.settings.refuse_files, &name) {
            return Err(SubmissionError::RefusedFile(name));
        }
        if self.files.len() >= MAX_FILES {
            return Err(SubmissionError::TooLarge);
        }
        let kind = kind.chars().take(MAX_KIND).collect();
        self.files.push(Enclosure { name, kind, size: 0 });
        Ok(())
    }

    /// The next octets of the file.
    ///
    /// # Errors
    /// [`SubmissionError::TooLarge`], or the store's trouble.
    pub async fn write(&mut self, octets: &[u8]) -> Result<(), SubmissionError> {
        let size = self.staging.size().saturating_add(octets.len() as u64);
        if size > self.submission.settings.max_size {
            return Err(SubmissionError::TooLarge);
        }
        let _place = self.flow.place().await;
        self.staging.write(octets).await?;
        // Nothing but an unfinished frame is held while the client is waited for.
        self.staging.rest().await?;
        self.quota().count(self.account, octets.len() as u64);
        if let Some(file) = self.files.last_mut() {
            file.size = file.size.saturating_add(octets.len() as u64);
        }
        Ok(())
    }

    /// The form has ended.
    ///
    /// # Errors
    /// The store's trouble.
    pub async fn end(self) -> Result<Enclosed, SubmissionError> {
        Ok(Enclosed { staged: self.staging.end().await?, files: self.files })
    }
}

impl Enclosed {
    /// The content of all files.
    pub(super) fn content(&self, vault: &Vault) -> Result<EnclosedContent, VaultError> {
        Ok(EnclosedContent { content: vault.read_staged(&self.staged)?, rest: Bytes::new() })
    }
}

/// The content of files that lie one behind the other.
#[derive(Debug)]
pub(super) struct EnclosedContent {
    content: Content,
    rest: Bytes,
}

impl EnclosedContent {
    /// At most so many octets more; `None` at the end of all.
    pub(super) async fn next(&mut self, most: u64) -> Result<Option<Bytes>, VaultError> {
        if self.rest.is_empty() {
            match self.content.next().await? {
                Some(piece) => self.rest = piece,
                None => return Ok(None),
            }
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(self.rest.len());
        Ok(Some(self.rest.split_to(most)))
    }
}
