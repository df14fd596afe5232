//! MTA-STS (RFC 8461): what a domain asks of those who send to it.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What a domain says by MTA-STS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StsFacts {
    /// Nothing.
    Nothing,
    /// A policy, fetched or kept from an earlier fetch and still good.
    Policy(StsPolicy),
    /// It announces a policy that could not be fetched, and none is kept; why.
    Unfetched(String),
    /// DNS could not say, and no policy is kept; why.
    Doubt(String),
}

/// A policy (RFC 8461 §3.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StsPolicy {
    /// Of the TXT record under which it was fetched (RFC 8461 §3.1).
    pub id: String,
    /// Mode.
    pub mode: StsMode,
    /// Patterns of hosts, lower case A-labels; `*.x` covers one label.
    pub mx: Vec<String>,
    /// How long it may be kept, in seconds.
    pub max_age: u64,
}

/// What is asked (RFC 8461 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StsMode {
    /// Deliver only to hosts named, over TLS that proves itself.
    Enforce,
    /// Deliver as always, and report.
    Testing,
    /// No policy.
    None,
}

/// For the record.
impl fmt::Display for StsFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("no policy"),
            Self::Policy(policy) => {
                let mode = match policy.mode {
                    StsMode::Enforce => "enforce",
                    StsMode::Testing => "testing",
                    StsMode::None => "none",
                };
                write!(f, "{mode}, id {}, mx {}", policy.id, policy.mx.join(" "))
            }
            Self::Unfetched(why) => write!(f, "not fetched: {why}"),
            Self::Doubt(why) => write!(f, "not known: {why}"),
        }
    }
}

impl StsFacts {
    /// The same with at most so many patterns, and texts of at most so many bytes: for the record.
    pub fn bounded(&self, patterns: usize, bytes: usize) -> Self {
        let short = |text: &String| {
            text.get(..text.floor_char_boundary(bytes)).unwrap_or_default().to_owned()
        };
        match self {
            Self::Nothing => Self::Nothing,
            Self::Policy(policy) => {
                let mx = policy.mx.iter().take(patterns).cloned().collect();
                Self::Policy(StsPolicy { mx, ..policy.clone() })
            }
            Self::Unfetched(why) => Self::Unfetched(short(why)),
            Self::Doubt(why) => Self::Doubt(short(why)),
        }
    }
}

impl StsPolicy {
    /// True if a pattern names the host (RFC 8461 §4.1).
    pub fn names(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.mx.iter().any(|pattern| match pattern.strip_prefix("*.") {
            Some(base) => {
                host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == base)
            }
            None => *pattern == host,
        })
    }
}
