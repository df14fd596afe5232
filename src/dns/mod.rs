//! The port to DNS: what a look-up promises. The adapter is [`hickory`].
use crate::{mail::Domain, policy::MxFacts};
use async_trait::async_trait;
use std::net::IpAddr;

pub mod hickory;

/// Addresses of a host, or why there are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addresses {
    /// A and AAAA, in the order to try.
    Found(Vec<IpAddr>),
    /// The host does not exist or has no address.
    None,
    /// Not known now.
    Trouble(String),
}
/// Looks names up.
#[async_trait]
pub trait Resolver: Send + Sync + std::fmt::Debug {
    /// MX set of a domain (RFC 5321 §5.1): ordered, equals shuffled, implicit MX, null MX (RFC
    /// 7505).
    async fn mx(&self, domain: &Domain) -> MxFacts;
    /// Addresses of a host; CNAMEs followed.
    async fn addresses(&self, host: &str) -> Addresses;
}
