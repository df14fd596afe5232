//! Sealing: key ring, sealed stream, link tokens. The format is versioned and frozen by vectors
//! (`tests/vectors`).
//!
//! Keys zero themselves; their `Debug` prints nothing. Randomness comes in as an argument.

pub mod header;
pub mod link;
pub mod ring;
pub mod stream;
#[cfg(test)]
mod tests;
pub mod ticket;

pub use header::{Class, MessageFacts, SealedHeader, SealedIndex};
pub use link::{LinkToken, TokenHash};
pub use ring::{DataKey, KeyId, KeyRing, Purpose, RingError, WrappedKey};
pub use stream::{Event, Format, Opener, Prelude, SealError, Sealer, Suite};
pub use ticket::TicketKey;
