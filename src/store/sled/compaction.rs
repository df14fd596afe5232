//! Compaction: the live bodies of a segment that wastes the disk are copied to the end of the log of
//! bodies, and its file goes. What direct mail leaves behind would otherwise stay as long as one
//! sealed message lies between.

use super::{
    book::{self, Changes},
    committer::{Committer, State},
    files,
    layout::Layout,
    segments::{self, Record},
};
use crate::store::{Locator, MessageRow, StoreError};
use bytes::Bytes;
use std::{collections::HashSet, io, sync::Arc};

/// Sealed bytes that are copied with one request.
const BATCH: usize = 1024 * 1024;

/// Compacts segments while they waste more than they may. Returns the bytes that were copied. Preludes
/// must not be written meanwhile.
///
/// # Errors
/// [`StoreError`] if a segment can't be read or the store takes no more; what was copied stays copied.
pub(super) async fn run(committer: &Committer, layout: &Layout) -> Result<u64, StoreError> {
    let mut copied = 0;
    while let Some((segment, offsets)) = committer.read(|s| Ok(s.segments.wasteful())).await? {
        // What was written into preludes is in the files then, and every body too.
        committer.checkpoint().await?;
        let (before, offsets) = (copied, Arc::new(offsets));
        let mut next = Some(0);
        while let Some(from) = next {
            let (records, then) = read(layout, segment, &offsets, from).await?;
            let weight = records.iter().map(|record| record.sealed.len()).sum();
            copied += committer.write(weight, move |s| s.relocate(records)).await?;
            next = then;
        }
        if copied == before {
            // What lives there is damaged: this is no way to get rid of it.
            break;
        }
    }
    Ok(copied)
}

/// Live records of a segment, and where the next ones are.
async fn read(
    layout: &Layout,
    segment: u32,
    offsets: &Arc<HashSet<u64>>,
    from: u64,
) -> Result<(Vec<Record>, Option<u64>), StoreError> {
    let (dir, offsets) = (layout.segments(), Arc::clone(offsets));
    files::off(move || match segments::records(&dir, segment, &offsets, (from, BATCH)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok((Vec::new(), None)),
        Err(e) => Err(StoreError::Corrupt(format!("segment {segment}: {e}"))),
        Ok(records) => Ok(records),
    })
    .await
}

impl State {
    /// Gives bodies a new place, if their rows still name the old one. Returns their bytes.
    fn relocate(&mut self, records: Vec<Record>) -> Result<u64, StoreError> {
        let mut copied = 0;
        for Record { id, at, sealed } in records {
            let row: Option<MessageRow> = self.book.get(&book::message(id))?;
            let Some(mut row) = row.filter(|row| row.body == at) else { continue };
            let Locator::Segment { segment, offset, length } = at else { continue };
            // Opened before the copy is made: `leave` does not fail then, and no second copy stays.
            self.segments.reach(segment)?;
            row.body = self.segments.append(id, &Bytes::from(sealed))?;
            let mut changes = Changes::default();
            if let Err(e) = changes.put(book::message(id), &row) {
                self.discard(id, &row.body)?;
                return Err(e);
            }
            self.segments.leave(segment, offset, length)?;
            self.book.take(changes);
            copied += length;
        }
        Ok(copied)
    }
}
