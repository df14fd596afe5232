//! Notes in the book. A value may be larger than a row can be, so a note is a run of rows, a piece
//! each, written and removed together. Changes run on the committer's thread.

use super::{
    book::{self, Changes},
    committer::State,
    snapshot::Snapshot,
};
use crate::store::{
    NoteKind, StoreError,
    notes::{LARGEST_NOTE, check},
};

/// Bytes of a value in one row; with its key it stays below [`book::LARGEST`].
const PIECE: usize = 24 * 1024;
/// Rows of the largest note.
const PIECES: usize = LARGEST_NOTE.div_ceil(PIECE);

impl Snapshot {
    pub(super) fn note(&self, kind: NoteKind, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let pieces = self.page(book::under(book::note(kind, key)), false, PIECES)?;
        let whole = pieces.iter().flat_map(|(_, piece)| piece).copied().collect();
        Ok((!pieces.is_empty()).then_some(whole))
    }
    pub(super) fn notes(
        &self,
        kind: NoteKind,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let mut range = book::under(book::notes(kind));
        if let Some(key) = after {
            range.start = book::under(book::note(kind, key)).end;
        }
        let mut notes: Vec<(String, Vec<u8>)> = Vec::new();
        // As many rows hold the first `max` notes whole.
        for (key, piece) in self.page(range, false, max.saturating_mul(PIECES))? {
            let name = book::note_at(&key);
            let full = notes.len() == max;
            match notes.last_mut() {
                Some((last, value)) if *last == name => value.extend(piece),
                Some(_) | None if full => break,
                Some(_) | None => notes.push((name, piece)),
            }
        }
        Ok(notes)
    }
}
impl State {
    pub(super) fn put_note(
        &mut self,
        kind: NoteKind,
        key: &str,
        value: &[u8],
    ) -> Result<(), StoreError> {
        check(key, value)?;
        let mut changes = Changes::default();
        self.unwrite(kind, key, &mut changes)?;
        // An empty note has one empty piece.
        let pieces = value.chunks(PIECE).chain(value.is_empty().then_some(value));
        for (number, piece) in (0u8..).zip(pieces) {
            changes.put_raw(book::note_piece(kind, key, number), piece.to_vec())?;
        }
        self.book.take(changes);
        Ok(())
    }
    pub(super) fn remove_note(&mut self, kind: NoteKind, key: &str) -> Result<(), StoreError> {
        let mut changes = Changes::default();
        self.unwrite(kind, key, &mut changes)?;
        self.book.take(changes);
        Ok(())
    }
    /// All pieces go, for the new value may have fewer.
    fn unwrite(&self, kind: NoteKind, key: &str, changes: &mut Changes) -> Result<(), StoreError> {
        let pieces = self.book.page(book::under(book::note(kind, key)), false, PIECES)?;
        pieces.into_iter().for_each(|(key, _)| changes.remove(key));
        Ok(())
    }
}
