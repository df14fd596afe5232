//! What a sender wants to hear of delivery (RFC 3461 §4): RET, NOTIFY, ORCPT, and how they are kept
//! with a message.

use super::Address;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// How much of the message a DSN returns (RFC 3461 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ret {
    /// FULL.
    #[serde(rename = "FULL")]
    Full,
    /// HDRS.
    #[serde(rename = "HDRS")]
    Headers,
}

/// NOTIFY (RFC 3461 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Notify {
    /// NEVER, alone.
    Never,
    /// Any of the three.
    On {
        /// SUCCESS.
        success: bool,
        /// FAILURE.
        failure: bool,
        /// DELAY.
        delay: bool,
    },
}

/// What a recipient's sender wants to hear (RFC 3461 §4.1, §4.2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecipientDsn {
    /// NOTIFY; `None` leaves it to the server: failure, maybe delay.
    pub notify: Option<Notify>,
    /// ORCPT: address type and decoded address, as `rfc822;ann@example.org`.
    pub original: Option<String>,
}

/// A value that RFC 3461 does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a value of RFC 3461")]
pub struct WishError;

impl fmt::Display for Ret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "FULL",
            Self::Headers => "HDRS",
        })
    }
}

impl FromStr for Ret {
    type Err = WishError;
    fn from_str(text: &str) -> Result<Self, WishError> {
        match text.to_ascii_uppercase().as_str() {
            "FULL" => Ok(Self::Full),
            "HDRS" => Ok(Self::Headers),
            _ => Err(WishError),
        }
    }
}

impl Notify {
    /// Success is to be reported.
    pub const fn success(self) -> bool {
        matches!(self, Self::On { success: true, .. })
    }

    /// A failure is to be reported.
    pub const fn failure(self) -> bool {
        matches!(self, Self::On { failure: true, .. })
    }

    /// A delay may be reported.
    pub const fn delay(self) -> bool {
        matches!(self, Self::On { delay: true, .. })
    }
}

impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked =
            [(self.success(), "SUCCESS"), (self.failure(), "FAILURE"), (self.delay(), "DELAY")];
        let words: Vec<&str> = asked.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect();
        f.write_str(if words.is_empty() { "NEVER".to_owned() } else { words.join(",") }.as_str())
    }
}

/// NEVER stands alone, the others each at most once, in any order and case.
impl FromStr for Notify {
    type Err = WishError;
    fn from_str(text: &str) -> Result<Self, WishError> {
        if text.eq_ignore_ascii_case("NEVER") {
            return Ok(Self::Never);
        }
        let (mut success, mut failure, mut delay) = (false, false, false);
        for word in text.split(',') {
            let flag = match word.to_ascii_uppercase().as_str() {
                "SUCCESS" => &mut success,
                "FAILURE" => &mut failure,
                "DELAY" => &mut delay,
                _ => return Err(WishError),
            };
            if std::mem::replace(flag, true) {
                return Err(WishError);
            }
        }
        Ok(Self::On { success, failure, delay })
    }
}

impl TryFrom<String> for Notify {
    type Error = WishError;
    fn try_from(text: String) -> Result<Self, WishError> {
        text.parse()
    }
}

impl From<Notify> for String {
    fn from(notify: Notify) -> Self {
        notify.to_string()
    }
}

impl RecipientDsn {
    /// Bytes it takes among a message's [`Wishes`], at most.
    pub fn weight(&self, address: &Address) -> usize {
        // A recipient's number and its comma.
        const NUMBER: usize = 6;
        let notify = if self.notify.is_some() { NUMBER } else { 0 };
        let original = match &self.original {
            None => 0,
            Some(original) if is_same(original, address) => NUMBER,
            // Quotes and backslashes are written as two; then colon and quotes.
            Some(original) => {
                let doubled = original.bytes().filter(|b| matches!(b, b'"' | b'\\')).count();
                original.len() + doubled + NUMBER + 5
            }
        };
        notify + original
    }
}

/// Most senders name as original the recipient itself; that need not be kept twice.
fn is_same(original: &str, address: &Address) -> bool {
    original.strip_prefix("rfc822;").is_some_and(|rest| rest == address.to_string())
}

/// What a message's sender wants to hear, for recipients by their number in the message. It stands
/// in the message's row, so it is compact, and bounded by [`Wishes::ROOM`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wishes {
    /// RET.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ret: Option<Ret>,
    /// NOTIFY: who has which, in ascending order.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    notify: BTreeMap<Notify, Vec<u16>>,
    /// Whose ORCPT is `rfc822;` and the recipient's own address, in ascending order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    same: Vec<u16>,
    /// Every other ORCPT.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    original: BTreeMap<u16, String>,
}

impl Wishes {
    /// The most that the recipients of one message may weigh together: enough for a thousand that
    /// name NOTIFY and themselves as ORCPT, and half of what a row may hold.
    pub const ROOM: usize = 15_000;

    /// As they came with MAIL and, in the same order as the recipients, with RCPT.
    pub fn new(ret: Option<Ret>, asked: &[RecipientDsn], recipients: &[Address]) -> Self {
        let mut wishes = Self { ret, ..Self::default() };
        for (number, (dsn, address)) in (0..=u16::MAX).zip(asked.iter().zip(recipients)) {
            if let Some(notify) = dsn.notify {
                wishes.notify.entry(notify).or_default().push(number);
            }
            match &dsn.original {
                Some(original) if is_same(original, address) => wishes.same.push(number),
                Some(original) => drop(wishes.original.insert(number, original.clone())),
                None => {}
            }
        }
        wishes
    }

    /// Nothing was asked.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// RET.
    pub const fn ret(&self) -> Option<Ret> {
        self.ret
    }

    /// NOTIFY of a recipient.
    pub fn notify(&self, number: u16) -> Option<Notify> {
        let has = |numbers: &Vec<u16>| numbers.binary_search(&number).is_ok();
        self.notify.iter().find(|(_, numbers)| has(numbers)).map(|(notify, _)| *notify)
    }

    /// NOTIFY and ORCPT of a recipient, as they came.
    pub fn of(&self, number: u16, address: &Address) -> RecipientDsn {
        let original = if self.same.binary_search(&number).is_ok() {
            Some(format!("rfc822;{address}"))
        } else {
            self.original.get(&number).cloned()
        };
        RecipientDsn { notify: self.notify(number), original }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notify_is_read_and_written() {
        let table = [
            ("never", "NEVER"),
            ("delay,SUCCESS", "SUCCESS,DELAY"),
            ("FAILURE", "FAILURE"),
            ("SUCCESS,FAILURE,DELAY", "SUCCESS,FAILURE,DELAY"),
        ];
        for (given, written) in table {
            assert_eq!(given.parse::<Notify>().unwrap().to_string(), written);
        }
        for bad in ["", "NEVER,SUCCESS", "DELAY,DELAY", "SUCCESS,", "ALWAYS", "SUCCESS, DELAY"] {
            assert_eq!(bad.parse::<Notify>(), Err(WishError), "{bad:?}");
        }
        assert_eq!("hdrs".parse::<Ret>().unwrap().to_string(), "HDRS");
        assert!("ALL".parse::<Ret>().is_err());
    }

    fn wish(notify: &str, original: &str) -> RecipientDsn {
        RecipientDsn {
            notify: notify.parse().ok(),
            original: Some(original.to_owned()).filter(|o| !o.is_empty()),
        }
    }

    #[test]
    fn wishes_are_kept_as_they_came() {
        let addresses: Vec<Address> = ["a@x.example", "b@x.example", "c@x.example", "d@x.example"]
            .map(|a| a.parse().unwrap())
            .to_vec();
        let asked = [
            wish("SUCCESS,FAILURE", "rfc822;a@x.example"),
            wish("", ""),
            wish("NEVER", "rfc822;C@elsewhere.example"),
            wish("SUCCESS,FAILURE", "utf-8;\\x{FC}@x.example"),
        ];
        let wishes = Wishes::new(Some(Ret::Headers), &asked, &addresses);
        for (number, (asked, address)) in (0..).zip(asked.iter().zip(&addresses)) {
            assert_eq!(wishes.of(number, address), *asked);
        }
        let json = serde_json::to_string(&wishes).unwrap();
        assert_eq!(
            json,
            r#"{"ret":"HDRS","notify":{"NEVER":[2],"SUCCESS,FAILURE":[0,3]},"same":[0],"original":{"2":"rfc822;C@elsewhere.example","3":"utf-8;\\x{FC}@x.example"}}"#
        );
        assert_eq!(serde_json::from_str::<Wishes>(&json).unwrap(), wishes);
        assert!(serde_json::from_str::<Wishes>("{}").unwrap().is_none(), "older messages");
        assert!(!wishes.is_none());
    }

    #[test]
    fn what_fits_the_room_fits_the_row() {
        let address: Address = "\"a\\\"b\"@x.example".parse().unwrap();
        let kinds = [
            (wish("SUCCESS,FAILURE,DELAY", &format!("rfc822;{address}")), "the same"),
            (wish("DELAY", "x-y;\"\\\"\\\"\\"), "escaped"),
            (wish("", &format!("rfc822;{}", "a".repeat(490))), "as long as may be"),
            (wish("NEVER", ""), "NOTIFY alone"),
        ];
        for (dsn, why) in kinds {
            let count = Wishes::ROOM / dsn.weight(&address);
            assert!(count <= usize::from(u16::MAX));
            let wishes = Wishes::new(None, &vec![dsn; count], &vec![address.clone(); count]);
            let length = serde_json::to_vec(&wishes).unwrap().len();
            assert!(length <= Wishes::ROOM + 200, "{why}: {length} bytes");
        }
        let plain = wish("SUCCESS,FAILURE,DELAY", &format!("rfc822;{address}"));
        assert!(1000 * plain.weight(&address) <= Wishes::ROOM, "a thousand of the usual kind");
    }
}
