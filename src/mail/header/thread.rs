//! Whom a message names and what it answers, read from its header.

use super::Fields;
use crate::mail::Address;
use mail_parser::{HeaderValue, parsers::MessageStream};

/// Message-IDs of other messages that are kept of one.
const IDS: usize = 8;
/// Mailboxes read of one field.
const MAILBOXES: usize = 200;
/// Longest Message-ID (RFC 5322 §2.1.1 bounds the line).
const ID: usize = 256;

impl Fields {
    /// Message-IDs that the message answers or follows (In-Reply-To and References, RFC 5322
    /// §3.6.4), with their angle brackets: of many the first, where the conversation began, and the
    /// last.
    pub fn references(&self) -> Vec<String> {
        let mut all = Vec::new();
        for name in ["References", "In-Reply-To"] {
            for id in self.first_raw(name).map(ids).unwrap_or_default() {
                // The last word counts: what is answered stands last.
                all.retain(|other| *other != id);
                all.push(id);
            }
        }
        while all.len() > IDS {
            all.remove(1);
        }
        all
    }

    /// The mailboxes of a field, groups unfolded, without those that are no address of ours.
    pub fn mailboxes(&self, name: &str) -> Vec<Address> {
        let Some(raw) = self.first_raw(name) else { return Vec::new() };
        let mut line = raw.to_vec();
        line.push(b'\n');
        let HeaderValue::Address(list) = MessageStream::new(&line).parse_address() else {
            return Vec::new();
        };
        let texts = list.iter().filter_map(|mailbox| mailbox.address.as_deref());
        texts.take(MAILBOXES).filter_map(|text| text.parse().ok()).collect()
    }
}

/// Every `<id>` in a value.
fn ids(value: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = value;
    while let Some(from) = memchr::memchr(b'<', rest) {
        let Some(inner) = rest.get(from + 1..) else { break };
        let Some(to) = memchr::memchr2(b'>', b'<', inner) else { break };
        let (id, after) = inner.split_at(to);
        let sane = !id.is_empty() && id.len() + 2 <= ID && id.iter().all(u8::is_ascii_graphic);
        if sane && after.starts_with(b">") {
            found.push(format!("<{}>", String::from_utf8_lossy(id)));
        }
        rest = after;
        if let Some(next) = rest.strip_prefix(b">") {
            rest = next;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fields(header: &str) -> Fields {
        Fields::parse(header.as_bytes())
    }

    #[test]
    fn what_a_message_answers() {
        for (header, expected, why) in [
            ("Subject: x\r\n", &[][..], "nothing"),
            ("In-Reply-To: <a@b>\r\n", &["<a@b>"], "an answer"),
            (
                "References: <r@b>\r\n <a@b>\r\nIn-Reply-To: <a@b>\r\n",
                &["<r@b>", "<a@b>"],
                "folded",
            ),
            ("References: <r@b><a@b>\r\n", &["<r@b>", "<a@b>"], "no space between"),
            ("In-Reply-To: Your message of Monday <a@b> (x)\r\n", &["<a@b>"], "words (obsolete)"),
            ("References: <a b@c> <\u{e9}@b> <> <a@b\r\n", &[], "none of them an id"),
            ("References: <x <a@b>\r\n", &["<a@b>"], "one that was never closed"),
        ] {
            assert_eq!(fields(header).references(), expected, "{why}");
        }
        let many: Vec<String> = (0..50).map(|n| format!("<{n}@b>")).collect();
        let kept = fields(&format!("References: {}\r\n", many.join(" "))).references();
        assert_eq!(kept.len(), IDS);
        assert_eq!((kept[0].as_str(), kept[IDS - 1].as_str()), ("<0@b>", "<49@b>"));
        assert_eq!(kept[1], "<43@b>", "the first and the last seven");
    }

    #[test]
    fn whom_a_field_names() {
        let header = "To: \"Doe, Jane\" <jane@example.org>, bob@example.org, no address,\r\n \
            Team: <a@example.org>, b@example.org;\r\nCc:\r\n";
        let names: Vec<String> =
            fields(header).mailboxes("to").iter().map(ToString::to_string).collect();
        assert_eq!(
            names,
            ["jane@example.org", "bob@example.org", "a@example.org", "b@example.org"]
        );
        assert!(fields(header).mailboxes("Cc").is_empty());
        assert!(fields(header).mailboxes("Reply-To").is_empty());
    }

    proptest! {
        #[test]
        fn any_header_is_read(value in "([<>@ a-z]|\r\n |\\PC){0,200}") {
            let header = format!("References: {value}\r\nTo: {value}\r\n");
            let read = fields(&header);
            prop_assert!(read.references().len() <= IDS);
            read.mailboxes("To");
        }
    }
}
