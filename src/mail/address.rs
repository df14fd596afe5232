//! Mailboxes and domains (RFC 5321 §4.1.2, RFC 6531).

use serde::{Deserialize, Serialize};
use std::{
    fmt::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// RFC 5321 §4.5.3.1.1, octets of the local part.
const MAX_LOCAL: usize = 64;
/// Octets of a domain. RFC 5321 §4.5.3.1.2 says 255, but that is the wire form of RFC 1035 §2.3.4
/// with its length octets: a longer text than 253 can't be looked up.
const MAX_DOMAIN: usize = 253;
/// RFC 5321 §4.5.3.1.3: a path has 256 octets with its angle brackets.
const MAX_ADDRESS: usize = 254;

/// A domain in A-label form, lower case, no trailing dot; or an address literal with its brackets.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Domain(String);

/// A mailbox: local part (unquoted form) and domain. `Display` re-quotes where RFC 5321 asks it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    local: String,
    domain: Domain,
}

/// RFC 5321 §4.1.1.2: `None` is the null reverse-path `<>`.
pub type ReversePath = Option<Address>;

/// Why a text is no address; says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AddressError(pub String);

fn refuse<T>(why: impl Into<String>) -> Result<T, AddressError> {
    Err(AddressError(why.into()))
}

impl Domain {
    /// The A-label text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// `[192.0.2.1]` or `[IPv6:…]`: the literal's address, if it is one.
    pub fn literal(&self) -> Option<IpAddr> {
        let inner = self.0.strip_prefix('[')?.strip_suffix(']')?;
        match inner.strip_prefix("IPv6:") {
            Some(six) => six.parse().ok().map(IpAddr::V6),
            None => inner.parse().ok().map(IpAddr::V4),
        }
    }
    /// True if `self` is strictly below `parent` (one or more labels more). `parent` in any case,
    /// with or without a leading dot.
    pub fn is_below(&self, parent: &str) -> bool {
        let parent = parent.strip_prefix('.').unwrap_or(parent).as_bytes();
        let own = self.0.as_bytes();
        let Some((head, tail)) =
            own.len().checked_sub(parent.len()).and_then(|at| own.split_at_checked(at))
        else {
            return false;
        };
        // A literal has no labels, though its dots look like them.
        let named = !parent.is_empty() && !self.0.starts_with('[');
        named && head.len() > 1 && head.ends_with(b".") && tail.eq_ignore_ascii_case(parent)
    }
    /// U-label form for people.
    pub fn to_unicode(&self) -> String {
        if !self.0.contains("xn--") {
            return self.0.clone();
        }
        match idna::domain_to_unicode(&self.0) {
            (text, Ok(())) => text,
            (_, Err(_)) => self.0.clone(),
        }
    }
}

/// RFC 5321 §4.1.3, in its one canonical spelling. General-address-literals have no registered tag
/// but `IPv6`.
fn parse_literal(inner: &str) -> Result<String, AddressError> {
    let tagged = inner.split_at_checked(5).filter(|(tag, _)| tag.eq_ignore_ascii_case("IPv6:"));
    if let Some((_, six)) = tagged {
        return match six.parse::<Ipv6Addr>() {
            Ok(ip) => Ok(format!("[IPv6:{ip}]")),
            Err(_) => refuse("not an IPv6 address: write it as [IPv6:2001:db8::1]"),
        };
    }
    match inner.parse::<Ipv4Addr>() {
        Ok(ip) => Ok(format!("[{ip}]")),
        Err(_) => refuse("not an address literal: write it as [192.0.2.1] or [IPv6:2001:db8::1]"),
    }
}

/// RFC 1035 §2.3.1 with the digits of RFC 1123 §2.1; underscores occur in real mail domains and are
/// let through.
fn check_label(label: &str) -> Result<(), AddressError> {
    if label.is_empty() {
        return refuse("an empty label: a domain has no two dots in a row and none at its start");
    }
    if label.len() > 63 {
        return refuse("a label of the domain is longer than 63 octets");
    }
    if label.starts_with('-') || label.ends_with('-') {
        return refuse("a label of the domain begins or ends with a hyphen");
    }
    match label.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))) {
        Some(c) => refuse(format!(
            "{c:?} does not belong in a domain: write letters, digits, hyphens and dots, as in example.org"
        )),
        None => Ok(()),
    }
}

fn parse_name(text: &str) -> Result<String, AddressError> {
    // Bounds the work of the IDNA mapping; no U-label name that fits is so long.
    if text.len() > 4 * MAX_DOMAIN {
        return refuse("the domain is longer than 253 octets");
    }
    let folded = if text.is_ascii() {
        text.to_ascii_lowercase()
    } else {
        match idna::domain_to_ascii(text) {
            Ok(name) => name,
            Err(_) => {
                return refuse("the domain has characters that no domain name may hold (IDNA)");
            }
        }
    };
    let name = folded.strip_suffix('.').unwrap_or(&folded);
    if name.is_empty() {
        return refuse("the domain is missing: write an address as name@example.org");
    }
    if name.len() > MAX_DOMAIN {
        return refuse("the domain is longer than 253 octets");
    }
    name.split('.').try_for_each(check_label)?;
    // No top-level domain is numeric (RFC 3696 §2), so this is an IP address without its brackets.
    if name.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit())) {
        return refuse("a domain does not end in a number: write an IP address as [192.0.2.1]");
    }
    Ok(name.to_owned())
}

impl FromStr for Domain {
    type Err = AddressError;
    fn from_str(s: &str) -> Result<Self, AddressError> {
        match s.strip_prefix('[') {
            Some(rest) => match rest.strip_suffix(']') {
                Some(inner) => parse_literal(inner).map(Self),
                None => refuse("an address literal ends with a bracket: write it as [192.0.2.1]"),
            },
            None => parse_name(s).map(Self),
        }
    }
}

impl Address {
    /// Local part, unquoted.
    pub fn local(&self) -> &str {
        &self.local
    }
    /// Domain.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }
    /// True if the local part is not ASCII, so that the next hop must offer SMTPUTF8 (RFC 6531).
    pub fn needs_smtputf8(&self) -> bool {
        !self.local.is_ascii()
    }
    /// The mailbox as accounts are kept by: without the case of its letters, for no mail system in
    /// use tells local parts apart by it.
    pub fn mailbox(&self) -> String {
        self.to_string().to_lowercase()
    }
    /// True if both name one mailbox, in whatever case.
    pub fn same_mailbox(&self, other: &Self) -> bool {
        self.domain == other.domain && self.local.to_lowercase() == other.local.to_lowercase()
    }
    /// Checks the lengths of the form that goes over the wire.
    fn build(local: String, domain: Domain) -> Result<Self, AddressError> {
        let address = Self { local, domain };
        let octets = address.to_string().len();
        if octets.saturating_sub(address.domain.0.len() + 1) > MAX_LOCAL {
            return refuse("the part before the @ is longer than 64 octets");
        }
        if octets > MAX_ADDRESS {
            return refuse("the address is longer than 254 octets");
        }
        Ok(address)
    }
}

/// RFC 5322 §3.2.3, with UTF8-non-ascii of RFC 6531 §3.3.
fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || is_utf8_text(c)
}

/// Not ASCII, and nothing that breaks or reorders a line where an address is shown.
fn is_utf8_text(c: char) -> bool {
    let reorders =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !c.is_ascii() && !c.is_control() && !reorders
}

/// RFC 5321 §4.1.2 Dot-string.
fn is_dot_string(local: &str) -> bool {
    local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

/// RFC 5321 §4.1.2 Quoted-string, after its opening quote: the unquoted text and what follows the
/// closing quote.
fn unquote(text: &str) -> Result<(String, &str), AddressError> {
    let mut local = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let c = match c {
            '"' => return Ok((local, chars.as_str())),
            '\\' => match chars.next() {
                Some(c @ ' '..='~') => c,
                _ => return refuse("a backslash in quotes is followed by one printable character"),
            },
            c => c,
        };
        if !(matches!(c, ' '..='~') || is_utf8_text(c)) {
            return refuse("the quoted part before the @ has a control character");
        }
        local.push(c);
    }
    refuse("the closing quote is missing: write \"first last\"@example.org")
}

impl FromStr for Address {
    type Err = AddressError;
    fn from_str(s: &str) -> Result<Self, AddressError> {
        // Four octets at most for each that fits: bounds the work, the exact check is in `build`.
        if s.len() > 8 * MAX_ADDRESS {
            return refuse("the address is longer than 254 octets");
        }
        if let Some(quoted) = s.strip_prefix('"') {
            let (local, rest) = unquote(quoted)?;
            return match rest.strip_prefix('@') {
                Some(domain) => Self::build(local, domain.parse()?),
                None => {
                    refuse("after the closing quote comes the @: write \"first last\"@example.org")
                }
            };
        }
        if s.starts_with('<') || s.ends_with('>') {
            return refuse("write the address alone, without angle brackets: name@example.org");
        }
        let Some((local, domain)) = s.split_once('@') else {
            return refuse("the @ is missing: write an address as name@example.org");
        };
        if local.is_empty() {
            return refuse(
                "the part before the @ is missing: write an address as name@example.org",
            );
        }
        if !is_dot_string(local) {
            return refuse(
                "the part before the @ has a space, a control character, two dots in a row or a character that \
                 must be quoted: write \"first last\"@example.org",
            );
        }
        Self::build(local.to_owned(), domain.parse()?)
    }
}

impl TryFrom<String> for Domain {
    type Error = AddressError;
    fn try_from(s: String) -> Result<Self, AddressError> {
        s.parse()
    }
}
impl TryFrom<String> for Address {
    type Error = AddressError;
    fn try_from(s: String) -> Result<Self, AddressError> {
        s.parse()
    }
}
impl From<Domain> for String {
    fn from(d: Domain) -> Self {
        d.0
    }
}
impl From<Address> for String {
    fn from(a: Address) -> Self {
        a.to_string()
    }
}
impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(self.local.len() + self.domain.0.len() + 3);
        if is_dot_string(&self.local) {
            text.push_str(&self.local);
        } else {
            text.push('"');
            for c in self.local.chars() {
                if matches!(c, '"' | '\\') {
                    text.push('\\');
                }
                text.push(c);
            }
            text.push('"');
        }
        write!(text, "@{}", self.domain.0)?;
        f.pad(&text)
    }
}
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn good_addresses() {
        let long_local = format!("{}@example.org", "a".repeat(64));
        for (text, local, shown, why) in [
            ("a@example.org", "a", "a@example.org", "plain"),
            (
                "First.Last@Example.ORG.",
                "First.Last",
                "First.Last@example.org",
                "domain folds, local stays",
            ),
            ("a+b=c/d@x", "a+b=c/d", "a+b=c/d@x", "atext, single label"),
            ("\"first last\"@x.org", "first last", "\"first last\"@x.org", "quotes needed"),
            ("\"plain\"@x.org", "plain", "plain@x.org", "quotes not needed"),
            ("\"\\p\\l\"@x.org", "pl", "pl@x.org", "needless quoted pairs"),
            (r#""a\"b\\c"@x.org"#, r#"a"b\c"#, r#""a\"b\\c"@x.org"#, "quote and backslash"),
            ("\"a@b\"@x.org", "a@b", "\"a@b\"@x.org", "an @ in quotes"),
            ("\"a..b\"@x.org", "a..b", "\"a..b\"@x.org", "two dots need quotes"),
            ("\"\"@x.org", "", "\"\"@x.org", "empty quoted string is in the grammar"),
            ("用户@例え.jp", "用户", "用户@xn--r8jz45g.jp", "RFC 6531"),
            ("a@bücher.example", "a", "a@xn--bcher-kva.example", "U-label folds to A-label"),
            ("a@BÜCHER.example", "a", "a@xn--bcher-kva.example", "in any case"),
            ("a@_spf.ex_ample.org", "a", "a@_spf.ex_ample.org", "underscores"),
            ("a@[192.0.2.1]", "a", "a@[192.0.2.1]", "IPv4 literal"),
            ("a@[ipv6:2001:DB8:0::1]", "a", "a@[IPv6:2001:db8::1]", "IPv6 literal, canonical"),
            (&long_local, &"a".repeat(64), &long_local, "64 octets"),
        ] {
            let address: Address = text.parse().unwrap_or_else(|e| panic!("{why}: {e}"));
            assert_eq!(address.local(), local, "{why}");
            assert_eq!(address.to_string(), shown, "{why}");
        }
    }

    #[test]
    fn bad_addresses() {
        let long = [
            format!("{}@x.org", "a".repeat(65)),
            format!("\"{}\"@x.org", " ".repeat(63)),
            format!("a@{}.org", "b".repeat(64)),
            format!("{}@{}org", "a".repeat(60), "bcdefghij.".repeat(20)),
            format!("a@{}org", "bcdefghij.".repeat(26)),
        ];
        let why =
            ["65 octets", "65 octets with quotes", "label of 64", "263 octets", "domain of 263"];
        for (text, why) in long.iter().map(String::as_str).zip(why).chain([
            ("", "empty"),
            ("postmaster", "no domain; the command parser knows this one"),
            ("@x.org", "no local part"),
            ("a@", "no domain"),
            ("a@.", "no domain but a dot"),
            ("a@x.org..", "two trailing dots"),
            ("a@.x.org", "leading dot"),
            ("a@x..org", "two dots"),
            ("a@-x.org", "leading hyphen"),
            ("a@x-.org", "trailing hyphen"),
            ("a@x y.org", "space in domain"),
            ("a@b@x.org", "two @"),
            (".a@x.org", "leading dot in local"),
            ("a.@x.org", "trailing dot in local"),
            ("a..b@x.org", "two dots in local"),
            ("a b@x.org", "space unquoted"),
            ("<a@x.org>", "angle brackets"),
            (" a@x.org", "leading space"),
            ("a@x.org ", "trailing space"),
            ("a@x.org\r\n", "line end"),
            ("\"a\r\nb\"@x.org", "line end in quotes"),
            ("\"a\tb\"@x.org", "tab in quotes"),
            ("\"a\\\r\"@x.org", "quoted CR"),
            ("\"a\\é\"@x.org", "quoted pair of a non-ASCII character"),
            ("\"a@x.org", "no closing quote"),
            ("\"a\"b@x.org", "text after the quote"),
            ("a\u{85}b@x.org", "C1 control"),
            ("a\u{202e}b@x.org", "reorders the line"),
            ("a\0b@x.org", "NUL"),
            ("a@x\0.org", "NUL in domain"),
            ("a@192.0.2.1", "address without brackets"),
            ("a@[192.0.2]", "short literal"),
            ("a@[192.0.2.1", "open literal"),
            ("a@[2001:db8::1]", "IPv6 without its tag"),
            ("a@[IPv6:192.0.2.1]", "IPv4 with the tag"),
            ("a@[tag:x]", "general literal"),
            ("a@xn--\u{ff3b}.org", "full-width bracket"),
        ]) {
            let refused = text.parse::<Address>().expect_err(why);
            assert!(!refused.to_string().contains(['\r', '\n']), "{why}");
        }
    }

    #[test]
    fn domains() {
        let d = |s: &str| s.parse::<Domain>().unwrap();
        assert!(
            d("mx.a.example").is_below("a.example") && d("mx.a.example").is_below(".A.Example")
        );
        assert!(d("1.mx.a.example").is_below("a.example"), "any depth");
        for (domain, parent, why) in [
            ("a.example", "a.example", "itself"),
            ("ba.example", "a.example", "no label border"),
            ("a.example", "mx.a.example", "the other way round"),
            ("a.example", "", "the root is no parent here"),
            ("[192.0.2.1]", "2.1]", "a literal"),
        ] {
            assert!(!d(domain).is_below(parent), "{why}");
        }
        assert_eq!(d("[IPv6:::1]").literal(), Some("::1".parse().unwrap()));
        assert_eq!(d("[192.0.2.1]").literal(), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(d("a.example").literal(), None);
        assert_eq!(d("xn--bcher-kva.example").to_unicode(), "bücher.example");
        assert_eq!(
            d("xn--a-99999999.example").to_unicode(),
            "xn--a-99999999.example",
            "no punycode"
        );
        assert_eq!(d("Example.ORG."), d("example.org"));
    }

    #[test]
    fn equality_keeps_case_of_local() {
        let a = |s: &str| s.parse::<Address>().unwrap();
        assert_eq!(a("A@X.org"), a("A@x.ORG"));
        assert_ne!(a("A@x.org"), a("a@x.org"));
        assert!(a("é@x.org").needs_smtputf8() && !a("e@bücher.example").needs_smtputf8());
    }

    #[test]
    fn serde_goes_through_the_parser() {
        assert_eq!(serde_json::from_str::<Domain>("\"X.Org\"").unwrap().as_str(), "x.org");
        assert!(serde_json::from_str::<Address>("\"no address\"").is_err());
    }

    proptest! {
        #[test]
        fn shown_parses_to_the_same(local in "[ -~éü用]{0,20}", domain in "[a-zA-Z0-9_.-]{1,30}|bü[a-z]{1,5}\\.例え") {
            let quoted = local.replace('\\', "\\\\").replace('"', "\\\"");
            if let Ok(address) = format!("\"{quoted}\"@{domain}").parse::<Address>() {
                prop_assert_eq!(address.local(), &local);
                prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address));
            }
        }
        #[test]
        fn whatever_parses_is_one_line(text in "\\PC{0,12}|(?s:.{0,12})@(?s:.{0,12})|\"(?s:.{0,8})\"@[a-z。．]{1,9}") {
            if let Ok(address) = text.parse::<Address>() {
                let shown = address.to_string();
                prop_assert!(!shown.chars().any(char::is_control), "{shown:?}");
                prop_assert!(shown.len() <= 254);
                prop_assert_eq!(shown.parse::<Address>(), Ok(address));
            }
        }
    }
}
