//! Files that a policy names: private trust anchors, our certificate and its key. Read when first
//! needed and again when they have changed. What can't be used proves nothing about anybody, so
//! the host that it is for stays unproven.

use crate::{
    net::{
        tls,
        trust::{Identity, TrustAnchors},
    },
    policy::file::ClientKey,
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

/// What tells that a file is another than before: its time of change and its length.
type Mark = (SystemTime, u64);

/// The policy folder's side files.
#[derive(Debug)]
pub(super) struct PolicyFiles {
    folder: PathBuf,
    anchors: Kept<TrustAnchors>,
    identities: Kept<Identity>,
}

impl PolicyFiles {
    /// `folder`: where relative paths begin.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, anchors: Kept::default(), identities: Kept::default() }
    }

    /// The anchors of a `ca_file`; an error names the file.
    pub(super) async fn anchors(&self, ca_file: &str) -> Result<TrustAnchors, String> {
        let path = self.folder.join(ca_file);
        let read = |paths: &[PathBuf; 1]| {
            let [path] = paths;
            TrustAnchors::load(Some(path)).map_err(|error| error.to_string())
        };
        self.anchors.get([path], read).await.map_err(|error| format!("ca_file {error}"))
    }

    /// Our certificate with its key; an error names the file, and nothing of what it holds.
    pub(super) async fn identity(&self, client: &ClientKey) -> Result<Identity, String> {
        let paths = [self.folder.join(&client.certificate), self.folder.join(&client.key)];
        let read = |paths: &[PathBuf; 2]| {
            let [certificate, key] = paths;
            tls::pair(certificate, key).map(Identity::from).map_err(|error| error.to_string())
        };
        let identity = self.identities.get(paths, read).await;
        identity.map_err(|error| format!("client_certificate and client_key: {error}"))
    }
}

/// Things made from files, with the files' marks.
#[derive(Debug)]
struct Kept<T>(Mutex<ByPaths<T>>);

type ByPaths<T> = HashMap<Vec<PathBuf>, (Vec<Mark>, T)>;

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Kept<T> {
    async fn get<const N: usize>(
        &self,
        paths: [PathBuf; N],
        read: impl Fn(&[PathBuf; N]) -> Result<T, String>,
    ) -> Result<T, String> {
        let mut marks = Vec::with_capacity(N);
        for path in &paths {
            marks.push(mark(path).await?);
        }
        let known = {
            let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.get(paths.as_slice()).filter(|(as_of, _)| *as_of == marks).map(|(_, t)| t.clone())
        };
        if let Some(known) = known {
            return Ok(known);
        }
        let made = read(&paths)?;
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(paths.to_vec(), (marks, made.clone()));
        Ok(made)
    }
}

async fn mark(path: &Path) -> Result<Mark, String> {
    let data = tokio::fs::metadata(path).await;
    let mark = data.and_then(|data| Ok((data.modified()?, data.len())));
    mark.map_err(|error| format!("{}: cannot be read: {error}", path.display()))
}
