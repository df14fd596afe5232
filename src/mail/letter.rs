//! A letter that somebody writes at the portal, as mail (RFC 5322, RFC 2045): made piece by piece,
//! so that what is attached streams through. Whatever was typed, no field gets out of its line.

use crate::mail::{Address, header::date, text::one_line};
use data_encoding::BASE64_MIME;
use jiff::Timestamp;
use mail_builder::{
    headers::{
        Header, address::Address as Mailbox, content_type::ContentType, message_id::MessageId,
        text::Text,
    },
    mime::MimePart,
};

/// Characters of a subject.
pub const MAX_SUBJECT: usize = 250;
/// Characters of a file's name.
const MAX_NAME: usize = 200;
/// Bytes in a line of base64 (RFC 2045 §6.8): 76 characters.
const LINE: usize = 57;
/// What mail programs of the world put before the subject of an answer.
const REPLY: [&str; 6] = ["re", "aw", "sv", "antw", "rif", "res"];
/// And of what they forward.
const FORWARD: [&str; 6] = ["fwd", "fw", "wg", "tr", "vs", "rv"];

/// How urgent its author finds it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Priority {
    /// Before others.
    High,
    /// Nothing is said of it.
    #[default]
    Normal,
    /// It can wait.
    Low,
}

/// Header of a letter.
#[derive(Debug)]
pub struct Letter<'a> {
    /// Whose it is: From and Reply-To.
    pub author: &'a Address,
    /// Their name.
    pub name: &'a str,
    /// Who sends it for them (Sender).
    pub sender: &'a Address,
    /// To.
    pub to: &'a [Address],
    /// Cc.
    pub cc: &'a [Address],
    /// Subject.
    pub subject: &'a str,
    /// Importance.
    pub priority: Priority,
    /// The conversation so far, in order; the last is what it answers. With angle brackets.
    pub references: &'a [String],
    /// Date.
    pub at: Timestamp,
    /// Letters and digits that nobody can guess: for Message-ID and boundary.
    pub id: &'a str,
}

impl Letter<'_> {
    /// A whole letter of text alone.
    pub fn plain(&self, text: &str) -> Vec<u8> {
        let mut out = self.head();
        write_text(text, &mut out);
        out
    }

    /// Header and text of a letter that other parts follow; [`Letter::end`] is its last piece.
    pub fn open(&self, text: &str) -> Vec<u8> {
        let mut out = self.head();
        let kind = ContentType::new("multipart/mixed").attribute("boundary", self.boundary());
        field("Content-Type", &kind, &mut out);
        // RFC 2045 §6.4: what is forwarded within may have any byte.
        out.extend_from_slice(b"Content-Transfer-Encoding: 8bit\r\n\r\n");
        out.extend_from_slice(format!("--{}\r\n", self.boundary()).as_bytes());
        write_text(text, &mut out);
        out
    }

    /// What stands before a file; its content follows as [`Base64Lines`].
    pub fn file(&self, name: &str, kind: &str) -> Vec<u8> {
        let mut out = self.part(name, kind);
        out.extend_from_slice(b"Content-Transfer-Encoding: base64\r\n\r\n");
        out
    }

    /// What stands before a whole message; it follows as it is (RFC 2046 §5.2.1: never encoded).
    pub fn message(&self, name: &str) -> Vec<u8> {
        let mut out = self.part(name, "message/rfc822");
        out.extend_from_slice(b"Content-Transfer-Encoding: 8bit\r\n\r\n");
        out
    }

    /// The end of a letter with parts.
    pub fn end(&self) -> Vec<u8> {
        format!("\r\n--{}--\r\n", self.boundary()).into_bytes()
    }

    /// `=_` stands in no base64 and no quoted-printable (RFC 2045 §6.7).
    fn boundary(&self) -> String {
        format!("=_{}", self.id)
    }

    fn part(&self, name: &str, kind: &str) -> Vec<u8> {
        let name = file_name(name);
        let mut out = format!("\r\n--{}\r\n", self.boundary()).into_bytes();
        let typed = ContentType::new(media_type(kind)).attribute("name", name.as_str());
        field("Content-Type", &typed, &mut out);
        let kept = ContentType::new("attachment").attribute("filename", name.as_str());
        field("Content-Disposition", &kept, &mut out);
        out
    }

    fn head(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let name = Some(one_line(self.name, 200)).filter(|name| !name.is_empty());
        let author = Mailbox::new_address(name, self.author.to_string());
        out.extend_from_slice(format!("Date: {}\r\n", date(self.at)).as_bytes());
        field("From", &author, &mut out);
        field("Sender", &mailbox(self.sender), &mut out);
        field("Reply-To", &author, &mut out);
        for (name, list) in [("To", self.to), ("Cc", self.cc)] {
            if !list.is_empty() {
                field(name, &Mailbox::new_list(list.iter().map(mailbox).collect()), &mut out);
            }
        }
        field("Subject", &Text::new(one_line(self.subject, MAX_SUBJECT)), &mut out);
        let id = MessageId::new(format!("{}@{}", self.id, self.sender.domain()));
        field("Message-ID", &id, &mut out);
        let ids: Vec<&str> = self.references.iter().map(|id| id.trim_matches(['<', '>'])).collect();
        if let Some(last) = ids.last() {
            field("In-Reply-To", &MessageId::new(*last), &mut out);
            field("References", &MessageId::new_list(ids.iter().copied()), &mut out);
        }
        out.extend_from_slice(match self.priority {
            Priority::High => b"Importance: high\r\nX-Priority: 1 (Highest)\r\n".as_slice(),
            Priority::Normal => b"",
            Priority::Low => b"Importance: low\r\nX-Priority: 5 (Lowest)\r\n",
        });
        out.extend_from_slice(b"MIME-Version: 1.0\r\n");
        out
    }
}

fn mailbox(address: &Address) -> Mailbox<'static> {
    Mailbox::new_address(None::<String>, address.to_string())
}

fn field(name: &str, value: &impl Header, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    value.write_header(out, name.len() + 2);
}

/// The text as a part, line ends as mail has them.
fn write_text(text: &str, out: &mut Vec<u8>) {
    let mut lines: Vec<&str> = text.lines().map(|line| line.trim_end_matches('\r')).collect();
    while lines.last().is_some_and(|line| line.trim().is_empty()) {
        lines.pop();
    }
    let kind = ContentType::new("text/plain").attribute("charset", "utf-8");
    MimePart::new(kind, lines.join("\r\n") + "\r\n").write_part(out);
}

/// A name that leads nowhere: the last piece of a path, one line, never empty.
pub fn file_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let name = one_line(last, MAX_NAME);
    if name.trim_matches('.').is_empty() { "attachment".to_owned() } else { name }
}

/// A media type that can be carried as base64, or the general one: neither a container (RFC 2045
/// §6.4) nor anything that is no type at all.
fn media_type(kind: &str) -> String {
    const GENERAL: &str = "application/octet-stream";
    if kind == "message/rfc822" {
        return kind.to_owned();
    }
    let token = |text: &str| {
        let sane = |b: u8| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b);
        !text.is_empty() && text.len() <= 100 && text.bytes().all(sane)
    };
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.split_once('/') {
        Some(("multipart" | "message", _)) | None => GENERAL.to_owned(),
        Some((one, other)) if token(one) && token(other) => kind,
        Some(_) => GENERAL.to_owned(),
    }
}

/// A file as lines of base64, whatever the pieces it comes in.
#[derive(Debug, Default)]
pub struct Base64Lines {
    rest: Vec<u8>,
}

impl Base64Lines {
    /// More of the file; whole lines go out.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let missing = if self.rest.is_empty() { 0 } else { LINE - self.rest.len() };
        let (first, bytes) = bytes.split_at(missing.min(bytes.len()));
        self.rest.extend_from_slice(first);
        if self.rest.len() == LINE {
            encode(&self.rest, out);
            self.rest.clear();
        }
        if self.rest.is_empty() {
            let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % LINE);
            encode(whole, out);
            self.rest.extend_from_slice(rest);
        }
    }

    /// The end of the file.
    pub fn finish(self, out: &mut Vec<u8>) {
        encode(&self.rest, out);
    }
}

fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(BASE64_MIME.encode(bytes).as_bytes());
}

/// The subject of an answer.
pub fn reply_subject(subject: &str) -> String {
    if is_reply(subject) { subject.to_owned() } else { format!("Re: {subject}") }
}

/// The subject of what is forwarded.
pub fn forward_subject(subject: &str) -> String {
    format!("Fwd: {subject}")
}

/// True if the subject says that it answers.
pub fn is_reply(subject: &str) -> bool {
    prefix(subject).is_some_and(|(word, _)| REPLY.contains(&word.as_str()))
}

/// The subject without what answers and forwarding put before it, in lower case: what messages of
/// one conversation share (RFC 5256 §2.1).
pub fn base_subject(subject: &str) -> String {
    let mut rest = subject.trim();
    while let Some((_, after)) = prefix(rest) {
        rest = after.trim_start();
    }
    rest.to_lowercase()
}

/// `Re:` or its like, lower case, and what stands behind it. Some count: `Re[2]:`.
fn prefix(subject: &str) -> Option<(String, &str)> {
    let (word, rest) = subject.trim_start().split_once(':')?;
    let word = word.trim_end().to_ascii_lowercase();
    let word = word.split('[').next().unwrap_or_default().trim_end();
    (REPLY.contains(&word) || FORWARD.contains(&word)).then(|| (word.to_owned(), rest))
}

/// Text as it is quoted in an answer.
pub fn quoted(text: &str) -> String {
    let quote = |line: &str| {
        if line.starts_with('>') { format!(">{line}\n") } else { format!("> {line}\n") }
    };
    text.trim_end().lines().map(quote).collect()
}

#[cfg(test)]
mod tests;
