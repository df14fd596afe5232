//! Restante, the smarthost for outbound mail that must not travel in the open.
//!
//! It seals every message as it arrives, then decides per recipient: a TLS partner gets it directly
//! over a connection that proved itself; everyone else gets a notification and reads the message at
//! the portal. The [`manual`] tells the whole; this is the map.
//!
//! | floor | rooms |
//! |---|---|
//! | 1 pure | [`language`] languages, [`mail`] words, [`smtp`] both machines, [`policy`] decisions, [`seal`] the sealed format |
//! | 2 ports | [`store`], [`dns`], [`wire`], [`policies`], [`clock`] |
//! | 3 adapters | [`store::memory`], [`store::sled`], [`dns::hickory`], [`net`] |
//! | 4 services | [`audit`], [`intake`], [`relay`], [`identity`], [`submission`], [`sts`], [`tlsrpt`], [`vault`], [`probe`], [`oidc`] |
//! | 5 surfaces | [`portal`], [`control`], [`cli`], [`observe`] |
//! | 6 root | [`config`], [`daemon`], [`demo`] |

pub mod audit;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod daemon;
pub mod demo;
pub mod dns;
pub mod identity;
pub mod intake;
pub mod language;
pub mod mail;
pub mod manual;
pub mod net;
pub mod observe;
pub mod oidc;
pub mod policies;
pub mod policy;
pub mod portal;
pub mod probe;
pub mod relay;
pub mod seal;
pub mod smtp;
pub mod store;
pub mod sts;
pub mod submission;
pub mod tlsrpt;
pub mod vault;
pub mod wire;
