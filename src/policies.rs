//! The ports to policies: our own, and those that domains publish.
use crate::{
    mail::Domain,
    policy::{PolicySet, StsFacts, tlsrpt::SessionNote},
};
use async_trait::async_trait;
use std::sync::Arc;

/// Hands out the policy set in force.
pub trait Policies: Send + Sync + std::fmt::Debug {
    /// The set in force now; one attempt asks once and keeps it.
    fn current(&self) -> Arc<PolicySet>;
}

/// Knows what domains ask of those who send to them (MTA-STS, RFC 8461).
#[async_trait]
pub trait StsPolicies: Send + Sync + std::fmt::Debug {
    /// What the domain says: its policy as last fetched and still good, or fetched now.
    async fn policy(&self, domain: &Domain) -> StsFacts;
}

/// Is told how the TLS of sessions to outside hosts went (RFC 8460).
pub trait TlsSessions: Send + Sync + std::fmt::Debug {
    /// Counts one; returns at once.
    fn note(&self, note: SessionNote);
}
