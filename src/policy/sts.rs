//! MTA-STS (RFC 8461): what a domain asks of those who send to it, and how its words are read.

use crate::mail::{Domain, text::cut_to};
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, fmt};

/// Longest id (RFC 8461 §3.1).
const LONGEST_ID: usize = 32;
/// Longest name of a field (RFC 8461 §3.1, §3.2).
const LONGEST_NAME: usize = 32;
/// The most that `max_age` counts for: a year (RFC 8461 §3.2).
pub const LONGEST_AGE: u64 = 31_557_600;
/// Patterns of hosts in one policy; domains have a handful.
const MX_MAX: usize = 500;

/// What a domain says by MTA-STS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StsFacts {
    /// Nothing.
    Nothing,
    /// A policy, fetched or kept from an earlier fetch and still good.
    Policy(StsPolicy),
    /// It announces a policy that could not be fetched, and none is kept; why.
    Unfetched(StsFault),
    /// DNS could not say, and no policy is kept; why.
    Doubt(String),
}

/// Why a policy that is announced could not be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StsFault {
    /// Its kind.
    pub kind: StsFaultKind,
    /// In words.
    pub text: String,
}

/// Kinds of such faults, as reports tell them apart (RFC 8460 §4.3.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StsFaultKind {
    /// It could not be fetched.
    Fetch,
    /// The host's certificate proves nothing.
    Webpki,
    /// What was fetched is no policy.
    Invalid,
}

impl fmt::Display for StsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
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
        let short = |text: &String| cut_to(text, bytes);
        match self {
            Self::Nothing => Self::Nothing,
            Self::Policy(policy) => {
                let mx = policy.mx.iter().take(patterns).cloned().collect();
                Self::Policy(StsPolicy { mx, ..policy.clone() })
            }
            Self::Unfetched(fault) => {
                Self::Unfetched(StsFault { kind: fault.kind, text: short(&fault.text) })
            }
            Self::Doubt(why) => Self::Doubt(short(why)),
        }
    }
}

/// The id of the one MTA-STS record among the TXT records of `_mta-sts.DOMAIN` (RFC 8461 §3.1). The
/// error says why there is none; to senders all of them mean: the domain publishes no policy.
pub fn record_id(texts: &[String]) -> Result<String, String> {
    let mut records = texts.iter().filter_map(|text| {
        let rest = text.strip_prefix("v=STSv1")?;
        rest.trim_start_matches([' ', '\t']).strip_prefix(';')
    });
    match (records.next(), records.next()) {
        (None, _) => Err("no TXT record begins with \"v=STSv1;\"".to_owned()),
        (Some(fields), None) => id_of(fields),
        (Some(_), Some(_)) => Err("there is more than one MTA-STS record".to_owned()),
    }
}

/// Fields after the version; one `;` may end them.
fn id_of(fields: &str) -> Result<String, String> {
    let blank = [' ', '\t'];
    let fields = fields.trim_matches(blank);
    let mut id = None;
    for field in fields.strip_suffix(';').unwrap_or(fields).split(';') {
        let Some((name, value)) = field.trim_matches(blank).split_once('=') else {
            return Err("a field of the MTA-STS record has no \"=\"".to_owned());
        };
        // Of a repeated field the first counts, as in the policy.
        if name == "id" {
            id = id.or(Some(value));
        } else if !is_name(name) || !is_value(value) {
            return Err("a field of the MTA-STS record is malformed".to_owned());
        }
    }
    let id = id.ok_or_else(|| "the MTA-STS record has no id".to_owned())?;
    let good = id.bytes().all(|b| b.is_ascii_alphanumeric());
    if id.is_empty() || id.len() > LONGEST_ID || !good {
        return Err(format!(
            "the MTA-STS record's id is not of 1 to {LONGEST_ID} letters and digits"
        ));
    }
    Ok(id.to_owned())
}

/// `sts-ext-name` of RFC 8461 §3.1.
fn is_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    first && name.len() <= LONGEST_NAME && name.bytes().all(inner)
}

/// `sts-ext-value` of RFC 8461 §3.1: no `=`, `;`, blank or control.
fn is_value(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'=' | b';'))
}

impl StsPolicy {
    /// Reads the policy that a domain serves (RFC 8461 §3.2), fetched under the record's `id`. The
    /// error says what is wrong with it; such a policy counts as not fetched.
    pub fn parse(id: &str, body: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(body).map_err(|_| "it is not UTF-8 text".to_owned())?;
        let (mut once, mut mx) = (HashMap::new(), Vec::new());
        for (number, line) in (1..).zip(text.split('\n')) {
            let line = line.strip_suffix('\r').unwrap_or(line).trim_matches([' ', '\t']);
            if line.is_empty() {
                continue;
            }
            let Some((key, value)) = line.split_once(':') else {
                return Err(format!("line {number} is not \"key: value\""));
            };
            let value = value.trim_start_matches([' ', '\t']);
            match key {
                "mx" if mx.len() == MX_MAX => {
                    return Err(format!("it names more than {MX_MAX} hosts"));
                }
                "mx" => mx.push(pattern(value).map_err(|why| format!("line {number}: {why}"))?),
                // Of a repeated key the first counts (RFC 8461 §3.2).
                "version" | "mode" | "max_age" => drop(once.entry(key).or_insert(value)),
                key if is_name(key) => {}
                _ => return Err(format!("line {number} does not begin with a key")),
            }
        }
        let must = |key: &str| once.get(key).copied().ok_or_else(|| format!("it has no {key}"));
        if must("version")? != "STSv1" {
            return Err("its version is not STSv1".to_owned());
        }
        let mode = mode(must("mode")?)?;
        let max_age = age(must("max_age")?)?;
        if mx.is_empty() && mode != StsMode::None {
            return Err("it names no mx".to_owned());
        }
        Ok(Self { id: id.to_owned(), mode, mx, max_age })
    }
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

fn mode(value: &str) -> Result<StsMode, String> {
    match value {
        "enforce" => Ok(StsMode::Enforce),
        "testing" => Ok(StsMode::Testing),
        "none" => Ok(StsMode::None),
        _ => Err("its mode is none of enforce, testing, none".to_owned()),
    }
}

/// 1 to 10 digits; more than a year counts as a year.
fn age(value: &str) -> Result<u64, String> {
    let digits = (1..=10).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit());
    match value.parse::<u64>() {
        Ok(age) if digits => Ok(age.min(LONGEST_AGE)),
        Ok(_) | Err(_) => Err("its max_age is no number of seconds".to_owned()),
    }
}

/// A host, or `*.` and a domain; lower case A-labels.
fn pattern(value: &str) -> Result<String, &'static str> {
    const WRONG: &str = "mx is neither a host nor \"*.\" and a domain";
    let (star, name) = match value.strip_prefix("*.") {
        Some(base) => ("*.", base),
        None => ("", value),
    };
    match name.parse::<Domain>() {
        Ok(domain) if domain.literal().is_none() => Ok(format!("{star}{}", domain.as_str())),
        Ok(_) | Err(_) => Err(WRONG),
    }
}

#[cfg(test)]
mod tests;
