//! The gateway as one running whole: here adapters are named, rooms are put together, listeners
//! bound and signals heard.

mod descriptors;
mod error;
mod gateway;
mod keys;
mod parts;
mod policies;
mod portal_threads;
mod probe;
mod rebuild;
mod rotation;
mod serve;

pub use error::StartError;
pub use gateway::Gateway;
pub use parts::check;
pub use probe::probe;
pub use rebuild::rebuild;
pub use serve::{advice, serve};
