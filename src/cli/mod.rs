//! The command line: one definition of every command, from which parser, man pages and completions
//! are made.

pub mod account;
pub mod args;
pub mod audit;
pub mod exit;
pub mod look;
pub mod manual;
pub mod out;
pub mod policy;
pub mod postfix;
pub mod probe;
pub mod queue;
pub mod replay;
pub mod tls_report;
pub mod vault;

pub use args::{Cli, Command};
pub use exit::Exit;
