//! The port to DNS: what a look-up promises. The adapter is [`hickory`].
use crate::{
    mail::Domain,
    policy::{Dane, MxFacts},
};
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
/// TXT records of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Texts {
    /// Each record, its strings joined.
    Found(Vec<String>),
    /// There are none.
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
    /// What a host publishes for DANE on that port (RFC 7672 §2.2): TLSA records count only where
    /// the host's addresses are signed.
    async fn tlsa(&self, host: &str, port: u16) -> Dane;
    /// The TXT records of a name, the strings of each joined; CNAMEs followed.
    async fn texts(&self, name: &str) -> Texts;
}
