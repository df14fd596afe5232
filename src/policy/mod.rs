//! The rules of the house: partner files, message rules, levels, and the one decision.
//!
//! Floor 1: pure. Files are read and DNS is asked elsewhere; here texts and facts come in, reasons
//! go out.

pub mod check;
pub mod code;
pub mod dane;
pub mod decide;
pub mod explain;
pub mod facts;
pub mod file;
pub mod forecast;
mod judge;
pub mod level;
mod lint;
mod near_miss;
mod next_hop;
mod obstacle;
mod pin;
pub mod postfix;
mod read;
pub mod replay;
pub mod rules;
pub mod sarif;
pub mod sts;
#[cfg(test)]
mod tests;
pub mod tlsrpt;
pub(crate) mod toml_source;

pub use check::{Problem, Severity, SourceFile};
pub use code::Code;
pub use dane::{Dane, DaneVerdict, Tlsa, TlsaSet};
pub use decide::{Clearance, Need, Reason, Requirement, Route, TlsUse, Why, decide, line_in_doubt};
pub use explain::{Explanation, explain};
pub use facts::{
    Dnssec, Facts, HostFacts, HostTrouble, MxFacts, MxHost, PeerFacts, Question, StartTls,
    TlsFacts, Trouble,
};
pub use file::{NamedFile, NextHop, NoRequireTls, Otherwise, Policy, PolicyRef, PolicySet};
pub use forecast::{Wanted, would_pass};
pub use level::Level;
pub use rules::{RuleAction, RuleFacts, RuleVerdict};
pub use sts::{StsFacts, StsFault, StsFaultKind, StsMode, StsPolicy};
