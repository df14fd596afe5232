//! Postfix's `smtp_tls_policy_maps`: read into partner entries, and written from them.
//!
//! The syntax is that of postconf(5) and of the text source of postmap(1). Where a row and an entry
//! can't mean the same, the stricter is taken and said, or nothing is taken and that is said: no row
//! becomes weaker on its way.

mod export;
mod import;
mod rows;

pub use export::{Export, export};
pub use import::{Import, Partner, Remark, import};

#[cfg(test)]
mod tests;
