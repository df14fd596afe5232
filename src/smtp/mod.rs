//! Both sides of SMTP (RFC 5321) as machines: bytes in, actions out. No sockets, no clock, no log.
//!
//! A driver owns the socket. It hands what it reads to `receive`, takes actions from `poll` until
//! there is none, does each, and only then reads on. That is the whole contract;
//! `examples/smtp_machine.rs` drives both machines against each other in a page.
//!
//! | file | what it knows |
//! |---|---|
//! | `line`, `path`, `command`, `xtext` | the grammar of what a client says |
//! | `data` | where content ends, what it may hold, how dots are stuffed |
//! | `reply` | what a server says, written and read |
//! | `server` | intake's side |
//! | `client` | delivery's side |
//! | `clients` | how much each client may send at a time |

pub mod client;
pub mod clients;
pub mod command;
pub mod data;
mod input;
pub mod line;
mod path;
pub mod reply;
pub mod server;
pub mod xtext;

#[cfg(test)]
mod pair;

pub use client::{
    Client, ClientAction, ClientError, Extensions, RecipientReply, Transaction as ClientTransaction,
};
pub use command::Command;
pub use reply::Reply;
pub use server::{Action, Server, ServerSettings, Transaction};
