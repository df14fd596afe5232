//! Sealed bodies that no row speaks of: a crash came before their message was answered for, or the
//! index lost rows. They are set aside, never removed at once; those set aside end after a while.

use super::{
    SledStore, book,
    committer::State,
    files,
    layout::{self, Layout},
    segments,
};
use crate::{
    clock::TrustedTime,
    mail::QueueId,
    store::{Locator, MessageRow, StoreError},
};
use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// Bodies looked at by one request, so that many do not hold up commits.
const AT_ONCE: usize = 64;

/// Ages, by a clock that can be relied on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ages {
    /// A body without a row that is older is set aside.
    pub(super) orphan: Duration,
    /// What was set aside so long ago is removed.
    pub(super) aside: Duration,
}

impl SledStore {
    /// Sets bodies without a row aside that are older than
    /// [`Options::orphan_age`](super::Options::orphan_age), and removes what was set aside
    /// [`Options::aside_age`](super::Options::aside_age) ago. The log names each. What can't be moved
    /// or removed stays.
    ///
    /// # Errors
    /// [`StoreError`] if the store does not answer.
    pub async fn set_orphans_aside(&self, now: TrustedTime) -> Result<(), StoreError> {
        let (layout, ages) = (self.layout.clone(), self.ages);
        let old = files::off(move || Ok(told(old_files(&layout, now, ages.orphan)))).await?;
        for some in old.chunks(AT_ONCE) {
            let (layout, some) = (self.layout.clone(), some.to_vec());
            let look = move |state: &mut State| state.set_files_aside(&layout, &some, now);
            self.committer.read(look).await?;
        }
        let layout = self.layout.clone();
        let look = move |state: &mut State| state.set_segments_aside(&layout, now, ages.orphan);
        self.committer.read(look).await?;
        let layout = self.layout.clone();
        let end = move || {
            told(end_aside(&layout, now, ages.aside));
            Ok(())
        };
        files::off(end).await
    }
}
/// What could be done; the log says why the rest was not.
fn told<T: Default>(done: io::Result<T>) -> T {
    done.unwrap_or_else(|error| {
        tracing::warn!(%error, "sealed bodies without a message stay where they are");
        T::default()
    })
}
fn old_files(
    layout: &Layout,
    now: TrustedTime,
    age: Duration,
) -> io::Result<Vec<(QueueId, PathBuf)>> {
    let mut old = layout.message_files()?;
    // One that has gone meanwhile is none of them.
    old.retain(|(_, path)| layout::is_old(path, now, age).unwrap_or(false));
    Ok(old)
}
/// Removes what was set aside that long ago.
fn end_aside(layout: &Layout, now: TrustedTime, age: Duration) -> io::Result<()> {
    for (path, since) in layout.lying_aside()? {
        let lain = now.get().as_second().saturating_sub(since);
        if lain >= i64::try_from(age.as_secs()).unwrap_or(i64::MAX) {
            files::destroy(&path).map_err(io::Error::other)?;
            tracing::warn!(file = %path.display(), "what was set aside long ago has been removed");
        }
    }
    Ok(())
}

impl State {
    /// On this thread no row comes in meanwhile; a message whose file is gone is not accepted.
    fn set_files_aside(
        &self,
        layout: &Layout,
        files: &[(QueueId, PathBuf)],
        now: TrustedTime,
    ) -> Result<(), StoreError> {
        for (id, path) in files {
            match self.book.raw(&book::message(*id))?.map(|row| book::decode::<MessageRow>(&row)) {
                None => told(set_aside(layout, path, &id.to_string(), now)),
                Some(Ok(MessageRow { body: Locator::Gone, .. })) => {
                    tracing::warn!(%id, "the body of a destroyed message was there again");
                    told(files::destroy(path).map_err(io::Error::other));
                }
                // A row that can't be read owns its body all the same.
                Some(_) => {}
            }
        }
        Ok(())
    }
    /// Segments that no row spoke of at the start. Where a message's row can't be read it may be the
    /// one.
    fn set_segments_aside(
        &mut self,
        layout: &Layout,
        now: TrustedTime,
        age: Duration,
    ) -> Result<(), StoreError> {
        if self.unread.iter().any(|key| key.first() == Some(&book::MESSAGES)) {
            return Ok(());
        }
        let dir = layout.segments();
        self.segments.stray.retain(|number| {
            let path = segments::path(&dir, *number);
            let old = layout::is_old(&path, now, age);
            let gone = old.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
            let moved = old.and_then(|old| {
                if old {
                    set_aside(layout, &path, &format!("segment-{number:04}"), now)?;
                }
                Ok(old)
            });
            !gone && !told(moved)
        });
        Ok(())
    }
}
fn set_aside(layout: &Layout, path: &Path, name: &str, now: TrustedTime) -> io::Result<()> {
    let size = path.metadata()?.len();
    let to = layout.set_aside(path, name, now)?;
    tracing::warn!(
        file = %path.display(), size, to = %to.display(),
        "a sealed body has no message: a crash came before 250, or the index lost rows; it is set aside"
    );
    Ok(())
}
