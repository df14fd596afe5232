//! Files that a policy names: private trust anchors, our certificate and its key. Read when first
//! needed and again when they have changed. What can't be used says nothing of the host that
//! it is for: mail waits until it is put right.

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
use tokio::task::spawn_blocking;

/// What tells that a file is another than before: its time of change and its length.
type Mark = (SystemTime, u64);
/// Files kept as read. Policies that come and go leave some that nobody needs any more.
const KEPT_MOST: usize = 500;

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

impl<T: Clone + Send + 'static> Kept<T> {
    async fn get<const N: usize>(
        &self,
        paths: [PathBuf; N],
        read: impl FnOnce(&[PathBuf; N]) -> Result<T, String> + Send + 'static,
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
        let key = paths.to_vec();
        // A slow disk must not hold up the connections that share this thread.
        let made = spawn_blocking(move || read(&paths)).await.map_err(|e| e.to_string())??;
        self.keep(key, marks, made.clone());
        Ok(made)
    }

    /// When there are too many, all of them are read anew as they are needed.
    fn keep(&self, key: Vec<PathBuf>, marks: Vec<Mark>, made: T) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MOST && !kept.contains_key(&key) {
            kept.clear();
        }
        kept.insert(key, (marks, made));
    }
}

async fn mark(path: &Path) -> Result<Mark, String> {
    let data = tokio::fs::metadata(path).await;
    let mark = data.and_then(|data| Ok((data.modified()?, data.len())));
    mark.map_err(|error| format!("{}: cannot be read: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_that_are_kept_are_bounded_and_a_changed_one_is_read_anew() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::default();
        let read = |paths: &[PathBuf; 1]| {
            std::fs::read_to_string(&paths[0]).map_err(|error| error.to_string())
        };
        let path = |n: usize| folder.path().join(format!("{n}.pem"));
        for n in 0..=KEPT_MOST {
            std::fs::write(path(n), n.to_string()).unwrap();
            assert_eq!(kept.get([path(n)], read).await.unwrap(), n.to_string());
        }
        assert_eq!(kept.0.lock().unwrap().len(), 1, "room was made");
        for (text, n) in [("changed", KEPT_MOST), ("0", 0)] {
            if n == KEPT_MOST {
                std::fs::write(path(n), text).unwrap();
            }
            assert_eq!(kept.get([path(n)], read).await.unwrap(), text);
        }
        std::fs::remove_file(path(0)).unwrap();
        let error = kept.get([path(0)], read).await.unwrap_err();
        assert!(error.contains("0.pem: cannot be read"), "{error}");
    }
}
