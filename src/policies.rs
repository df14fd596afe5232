//! The port to the policies in force.
use crate::policy::PolicySet;
use std::sync::Arc;

/// Hands out the policy set in force.
pub trait Policies: Send + Sync + std::fmt::Debug {
    /// The set in force now; one attempt asks once and keeps it.
    fn current(&self) -> Arc<PolicySet>;
}
