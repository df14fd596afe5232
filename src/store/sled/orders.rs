//! An operator's orders as changes to book, agenda and tally. Runs on the committer's thread; one
//! order is one message, so that many of them never hold up commits.

use super::{
    book::{self, Changes},
    committer::State,
};
use crate::store::{Order, Ordered, RecipientRow, StoreError};
use jiff::Timestamp;

impl State {
    pub(super) fn order(&mut self, order: Order, now: Timestamp) -> Result<Ordered, StoreError> {
        let Order { id, indexes, kind, spawn } = order;
        if !self.book.has(&book::message(id))? {
            return Err(StoreError::NotFound);
        }
        let mut done = Ordered::default();
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for index in &indexes {
            let row: Option<RecipientRow> = self.book.get(&book::recipient(id, *index))?;
            let Some(row) = row else { continue };
            let Some(changed) = row.ordered(kind, now) else { continue };
            if self.agenda.is_worked_on(id, row.address.domain(), *index) {
                done.busy.push(*index);
                continue;
            }
            done.changed.push(*index);
            before.push(row);
            after.push(changed);
        }
        if !spawn.is_empty() && after.len() < indexes.len() {
            return Ok(Ordered { changed: Vec::new(), ..done });
        }
        let mut changes = Changes::default();
        after.iter().try_for_each(|row| changes.put(book::recipient(id, row.index), row))?;
        let over = self.end(id, &after, &mut changes)?;
        let spawned = self.spawn(spawn, &mut changes)?;
        // From here on nothing fails.
        self.book.take(changes);
        for (before, after) in before.iter().zip(&after) {
            self.exchange(id, before, after);
        }
        if over {
            self.tally.end(id);
        }
        for ready in &spawned {
            self.enter(ready);
        }
        self.arrived |= !after.is_empty();
        Ok(done)
    }
}
