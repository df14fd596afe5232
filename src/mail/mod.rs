//! The field's words as types: addresses, ids, statuses, headers, parts, reports and notices.
//!
//! Floor 1: no I/O, no clock, no randomness.

pub mod address;
pub(crate) mod compose;
pub mod data;
pub mod dsn;
pub mod header;
pub mod id;
pub mod letter;
pub mod notice;
pub mod parts;
pub mod pickup;
pub mod status;
pub(crate) mod text;
pub mod wishes;

pub use address::{Address, AddressError, Domain, ReversePath};
pub use data::MailData;
pub use id::{GrantId, QueueId};
pub use pickup::{Pickup, PickupWish};
pub use status::{EnhancedStatus, StatusClass};
pub use wishes::{Notify, RecipientDsn, Ret, Wishes};
