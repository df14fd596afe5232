//! A letter written at the portal, as mail (RFC 5322, RFC 2045): composed piece by piece, so that
//! attached files stream through. Fields and bodies are written by `mail::compose`.

use crate::mail::{
    Address, MailData,
    compose::{MessageWriter, base64},
    header::date,
    text::one_line,
};
use jiff::Timestamp;

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
    pub fn plain(&self, text: &str) -> MailData {
        let mut out = self.head();
        out.text_body("text/plain", without_blank_end(text));
        out.finish()
    }

    /// Header and text of a letter that other parts follow; [`Letter::end`] is its last piece.
    pub fn open(&self, text: &str) -> MailData {
        let mut out = self.head();
        // RFC 2045 §6.4: a forwarded message within may have 8-bit octets.
        out.words("Content-Transfer-Encoding", "8bit");
        out.multipart("multipart/mixed", &[], self.id);
        out.text_body("text/plain", without_blank_end(text));
        out.finish()
    }

    /// Header of a part for a file; its content follows as [`Base64Lines`].
    pub fn file(&self, name: &str, kind: &str) -> MailData {
        let mut out = self.part(name, &media_type(kind));
        out.encoding("base64");
        out.finish()
    }

    /// Header of a part for a whole message, which follows (RFC 2046 §5.2.1: never encoded).
    pub fn message(&self, name: &str) -> MailData {
        let mut out = self.part(name, "message/rfc822");
        out.encoding("8bit");
        out.finish()
    }

    /// The end of a letter with parts.
    pub fn end(&self) -> MailData {
        let mut out = MessageWriter::default();
        out.last_part(self.id);
        out.finish()
    }

    fn part(&self, name: &str, kind: &str) -> MessageWriter {
        let name = file_name(name);
        let mut out = MessageWriter::default();
        out.next_part(self.id);
        out.parameters("Content-Type", kind, &[("name", &name)]);
        out.parameters("Content-Disposition", "attachment", &[("filename", &name)]);
        out
    }

    fn head(&self) -> MessageWriter {
        let mut out = MessageWriter::default();
        let name = one_line(self.name, MAX_NAME);
        out.words("Date", &date(self.at));
        out.mailboxes("From", [(name.as_str(), self.author)]);
        out.mailboxes("Sender", [("", self.sender)]);
        out.mailboxes("Reply-To", [(name.as_str(), self.author)]);
        for (name, list) in [("To", self.to), ("Cc", self.cc)] {
            if !list.is_empty() {
                out.mailboxes(name, list.iter().map(|address| ("", address)));
            }
        }
        out.text("Subject", &one_line(self.subject, MAX_SUBJECT));
        out.ids("Message-ID", [format!("{}@{}", self.id, self.sender.domain()).as_str()]);
        if let Some(last) = self.references.last() {
            out.ids("In-Reply-To", [last.as_str()]);
            out.ids("References", self.references.iter().map(String::as_str));
        }
        let (importance, priority) = match self.priority {
            Priority::High => ("high", "1 (Highest)"),
            Priority::Normal => ("", ""),
            Priority::Low => ("low", "5 (Lowest)"),
        };
        if !importance.is_empty() {
            out.words("Importance", importance);
            out.words("X-Priority", priority);
        }
        out.words("MIME-Version", "1.0");
        out
    }
}

/// The text without empty lines at its end.
fn without_blank_end(text: &str) -> &str {
    text.trim_end_matches(['\r', '\n', ' ', '\t'])
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
    pub fn feed(&mut self, bytes: &[u8], out: &mut MailData) {
        let missing = if self.rest.is_empty() { 0 } else { LINE - self.rest.len() };
        let (first, bytes) = bytes.split_at(missing.min(bytes.len()));
        self.rest.extend_from_slice(first);
        if self.rest.len() == LINE {
            base64(&self.rest, out);
            self.rest.clear();
        }
        if self.rest.is_empty() {
            let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % LINE);
            base64(whole, out);
            self.rest.extend_from_slice(rest);
        }
    }

    /// The end of the file.
    pub fn finish(self, out: &mut MailData) {
        base64(&self.rest, out);
    }
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
