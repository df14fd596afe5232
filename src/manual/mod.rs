//! The manual.
//!
//! | chapter | for |
//! |---|---|
//! | [`architecture`] | who reads or changes the code |
//! | [`threat_model`] | security teams |
//! | [`defaults`] | who asks why a default is what it is |
//! | [`rfcs`] | who must know what is met, partly met, not met |
//! | [`policies`] | who writes policy files |
//! | [`operations`] | who runs it |
//! | [`performance`] | who sizes a machine |

#[doc = include_str!("architecture.md")]
pub mod architecture {}
#[doc = include_str!("defaults.md")]
pub mod defaults {}
#[doc = include_str!("operations.md")]
pub mod operations {}
#[doc = include_str!("performance.md")]
pub mod performance {}
#[doc = include_str!("policies.md")]
pub mod policies {}
#[doc = include_str!("rfcs.md")]
pub mod rfcs {}
#[doc = include_str!("threat_model.md")]
pub mod threat_model {}
