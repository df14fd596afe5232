//! Sealed bodies too large for the queue's own commit: write-once, opaque.
use crate::{mail::QueueId, seal::WrappedKey, store::StoreError};
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Where a sealed body lies. Only its backend reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Locator {
    /// In memory (tests).
    Memory,
    /// In a segment file.
    Segment {
        /// Segment number.
        segment: u32,
        /// Offset.
        offset: u64,
        /// Length.
        length: u64,
    },
    /// A file of its own.
    File {
        /// Length.
        length: u64,
    },
    /// Destroyed.
    Gone,
}
/// Sealed bytes as they are read.
#[async_trait]
pub trait BodyReader: Send + Sync {
    /// The next bytes; empty at the end.
    async fn next(&mut self) -> Result<Bytes, StoreError>;
}
/// Keeps sealed bodies.
#[async_trait]
pub trait BodyStore: Send + Sync + std::fmt::Debug {
    /// Begins a large body.
    async fn create(&self, id: QueueId) -> Result<Box<dyn BodyWriter>, StoreError>;
    /// Reads those of its bytes, or as many of them as there are.
    async fn open(
        &self,
        id: QueueId,
        at: &Locator,
        range: Range<u64>,
    ) -> Result<Box<dyn BodyReader>, StoreError>;
    /// Begins a body that nothing tells of.
    async fn aside(&self, id: QueueId) -> Result<Box<dyn Aside>, StoreError>;
    /// Gives back to the disk what bodies that are gone have left between others. Returns the bytes of
    /// live bodies that were moved for it. Not to be called while keys are wrapped again: a moved body
    /// would take its old wrap along.
    async fn compact(&self) -> Result<u64, StoreError> {
        Ok(0)
    }
    /// Writes a wrapped key into that slot of the prelude (from 0) and empties all other slots. The new
    /// wrap is durable before another is emptied, and one that takes the place of the only wrap does so
    /// whole or not at all. False if the message has been destroyed: nothing is written then.
    /// [`StoreError::Corrupt`] if the prelude does not read, which it also does not while it is
    /// destroyed, has no such slot or one of another format.
    /// What was there is nowhere on the disk after a
    /// [`QueueStore::checkpoint`](crate::store::QueueStore::checkpoint).
    async fn rewrap(
        &self,
        id: QueueId,
        at: &Locator,
        slot: usize,
        key: &WrappedKey,
    ) -> Result<bool, StoreError>;
    /// Overwrites the wrapped keys in the prelude and syncs, then frees the bytes. Idempotent.
    async fn delete(&self, id: QueueId, at: &Locator) -> Result<(), StoreError>;
}
/// A large body being written. Dropping it before `seal` removes it.
#[async_trait]
pub trait BodyWriter: Send + Sync {
    /// Appends; awaiting it is the back pressure.
    async fn write(&mut self, sealed: Bytes) -> Result<(), StoreError>;
    /// Durable when it returns.
    async fn seal(self: Box<Self>) -> Result<Locator, StoreError>;
}
/// A body that nothing tells of: it lives as long as it is held, and no longer than the process.
#[async_trait]
pub trait Aside: Send + Sync {
    /// Appends; awaiting it is the back pressure. After an error there is nothing to go on with.
    async fn write(&mut self, sealed: Bytes) -> Result<(), StoreError>;
    /// Reads from that byte on.
    fn open(&self, from: u64) -> Result<Box<dyn BodyReader>, StoreError>;
}
