//! Enhanced mail system status codes (RFC 3463).

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The class of a status: an enum, so that "4xx 5.x.x" cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StatusClass {
    /// 2: done.
    Success,
    /// 4: may work later.
    Transient,
    /// 5: will not work.
    Permanent,
}

/// `class.subject.detail`, as `5.7.1`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EnhancedStatus {
    class: StatusClass,
    subject: u16,
    detail: u16,
}

impl EnhancedStatus {
    /// RFC 3463 §2: subject and detail have at most three digits.
    const fn build(class: StatusClass, subject: u16, detail: u16) -> Self {
        let subject = if subject > 999 { 999 } else { subject };
        let detail = if detail > 999 { 999 } else { detail };
        Self { class, subject, detail }
    }
    /// `2.subject.detail`
    pub const fn success(subject: u16, detail: u16) -> Self {
        Self::build(StatusClass::Success, subject, detail)
    }
    /// `4.subject.detail`
    pub const fn transient(subject: u16, detail: u16) -> Self {
        Self::build(StatusClass::Transient, subject, detail)
    }
    /// `5.subject.detail`
    pub const fn permanent(subject: u16, detail: u16) -> Self {
        Self::build(StatusClass::Permanent, subject, detail)
    }
    /// Its class.
    pub const fn class(self) -> StatusClass {
        self.class
    }
    /// The second number, what the status is about (RFC 3463 §3): 1 address, 2 mailbox, 3 system, 4
    /// network, 5 protocol, 6 content, 7 security.
    pub const fn subject(self) -> u16 {
        self.subject
    }
    /// The third number.
    pub const fn detail(self) -> u16 {
        self.detail
    }
    /// The same subject and detail in another class (a temporary failure that ran out of time).
    pub const fn with_class(self, class: StatusClass) -> Self {
        Self { class, ..self }
    }
}

/// A text that is no status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an enhanced status code (RFC 3463)")]
pub struct StatusError;

/// RFC 3463 §2: one to three digits, no leading zeros.
fn number(text: &str) -> Result<u16, StatusError> {
    let plain = matches!(text.len(), 1..=3) && text.bytes().all(|b| b.is_ascii_digit());
    if !plain || (text.len() > 1 && text.starts_with('0')) {
        return Err(StatusError);
    }
    text.parse().map_err(|_| StatusError)
}

impl FromStr for EnhancedStatus {
    type Err = StatusError;
    fn from_str(s: &str) -> Result<Self, StatusError> {
        let (class, rest) = s.split_once('.').ok_or(StatusError)?;
        let (subject, detail) = rest.split_once('.').ok_or(StatusError)?;
        let class = match class {
            "2" => StatusClass::Success,
            "4" => StatusClass::Transient,
            "5" => StatusClass::Permanent,
            _ => return Err(StatusError),
        };
        Ok(Self::build(class, number(subject)?, number(detail)?))
    }
}
impl TryFrom<String> for EnhancedStatus {
    type Error = StatusError;
    fn try_from(s: String) -> Result<Self, StatusError> {
        s.parse()
    }
}
impl From<EnhancedStatus> for String {
    fn from(s: EnhancedStatus) -> Self {
        s.to_string()
    }
}
impl fmt::Display for EnhancedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = match self.class {
            StatusClass::Success => '2',
            StatusClass::Transient => '4',
            StatusClass::Permanent => '5',
        };
        write!(f, "{class}.{}.{}", self.subject, self.detail)
    }
}
impl fmt::Debug for EnhancedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good() {
        for (text, status) in [
            ("2.0.0", EnhancedStatus::success(0, 0)),
            ("4.3.0", EnhancedStatus::transient(3, 0)),
            ("5.1.10", EnhancedStatus::permanent(1, 10)),
            ("5.999.999", EnhancedStatus::permanent(999, 999)),
            ("5.999.999", EnhancedStatus::permanent(1000, 65535)),
        ] {
            assert_eq!(text.parse(), Ok(status));
            assert_eq!(status.to_string(), text);
        }
    }

    #[test]
    fn bad() {
        for (text, why) in [
            ("", "empty"),
            ("5", "class alone"),
            ("5.7", "no detail"),
            ("5.7.", "empty detail"),
            ("5..1", "empty subject"),
            ("3.1.1", "3 is no class"),
            ("1.1.1", "1 is no class"),
            ("05.1.1", "leading zero in the class"),
            ("5.01.1", "leading zero in the subject"),
            ("5.1.1000", "four digits"),
            ("5.1.1.1", "four numbers"),
            ("5.+1.1", "a sign"),
            (" 5.1.1", "a space"),
            ("5.1.1\r\n", "line end"),
        ] {
            assert_eq!(text.parse::<EnhancedStatus>(), Err(StatusError), "{why}");
        }
    }

    #[test]
    fn class_changes_alone() {
        let ran_out = EnhancedStatus::transient(4, 7).with_class(StatusClass::Permanent);
        assert_eq!(ran_out, EnhancedStatus::permanent(4, 7));
        assert_eq!((ran_out.subject(), ran_out.detail()), (4, 7));
    }
}
