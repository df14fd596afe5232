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

pub use header::{Class, MessageFacts, SealedHeader};
pub use link::{LinkToken, TokenHash};
pub use ring::{DataKey, KeyId, KeyRing, RingError, WrappedKey};
pub use stream::{Event, Opener, SealError, Sealer};
pub use ticket::TicketKey;
