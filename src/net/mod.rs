//! Sockets and TLS: the adapter of the ports in [`crate::wire`].
//!
//! What a peer proved is known here alone: [`trust`] is the only maker of
//! [`crate::policy::TlsFacts`]. What the proof is worth is policy's business, so a handshake with a
//! certificate that nobody vouches for succeeds here, and says so.

pub mod connect;
mod files;
pub mod http;
pub mod https;
pub mod listen;
mod peer;
mod source;
#[cfg(test)]
mod testing;
pub mod texts;
pub mod tls;
pub mod trust;

pub use connect::{Dialer, DialerSettings, Timeouts, Transport};
pub use https::{HttpsClient, HttpsSettings};
pub use listen::{BindError, bind, serve};
pub use source::source_address;
pub use texts::TextService;
pub use tls::{TlsFileError, TlsServer};
pub use trust::{TrustAnchors, TrustError};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use std::sync::Arc;

/// The one provider of ciphers, named where it is used so that nothing depends on a process-wide
/// default.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Text of others for a record: one line, printable, at most 512 bytes.
fn bounded(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.truncate(line.floor_char_boundary(512));
    line
}
