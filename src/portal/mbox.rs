//! All of one's mail in one file (RFC 4155), as a stream: whatever there is, one piece of one message
//! is in memory at a time.
//!
//! Lines end with LF, and a line that would begin a message in the file has a `>` before it (mboxrd),
//! so that what comes out of the file is what went in. A message that can't be read leaves a few words
//! in its place; anything else that fails breaks the connection off, so that a cut file is never taken
//! for a whole one. So does the end of the session or of its account, before the next message.

use super::{
    Desk, Fault, download::download, read::PAGE, reader::SessionReader, search::of_one_message,
    session::Visitor,
};
use crate::{
    language::{Language, Text, say},
    mail::GrantId,
    store::{Account, AuditDetail, AuditKind, Grant, SessionFacts},
    vault::{AccessAnswer, Content, Reader as _},
};
use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{Method, StatusCode},
    response::Response,
};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use jiff::Timestamp;
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::OwnedSemaphorePermit;

/// What begins a message in the file.
const BEGIN: &[u8] = b"From ";
/// A line that begins with more than so many `>` is no quoted beginning of a message.
const MAX_QUOTES: usize = 1_000;

/// `GET /account/export.mbox`
pub(super) async fn export(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    method: Method,
) -> Result<Response, Fault> {
    let (account, language) = (visitor.signed_in()?.clone(), Arc::clone(&visitor.language));
    let turn = match desk.download_turn(&visitor)? {
        Ok(turn) => turn,
        Err(busy) => return Ok(busy),
    };
    if method == Method::GET {
        let event = desk.event(AuditKind::Downloaded, &visitor).detail(AuditDetail::AllMessages);
        desk.audit.record(event).await;
    }
    let facts = visitor.session_facts();
    let (reader, folders) = (desk.reader(&visitor)?, FOLDERS.into());
    let (page, current) = (VecDeque::new(), None);
    let export =
        Export { desk, reader, account, facts, language, folders, page, current, _turn: turn };
    Ok(download(Body::from_stream(written(export)), "messages.mbox", "application/mbox"))
}

/// Where mail is kept, and where its list goes on.
#[derive(Debug, Clone, Copy)]
enum Folder {
    Received(Option<GrantId>),
    Sent(Option<GrantId>),
}
const FOLDERS: [Folder; 2] = [Folder::Received(None), Folder::Sent(None)];

/// Whose mail it was has it no longer.
const OVER: Fault = Fault::Status(StatusCode::UNAUTHORIZED);

struct Export {
    desk: Arc<Desk>,
    /// The session that asked for it.
    reader: Arc<SessionReader>,
    account: Account,
    facts: SessionFacts,
    language: Arc<Language>,
    /// Folders still to be listed, from where they are listed on.
    folders: VecDeque<Folder>,
    page: VecDeque<Grant>,
    /// The message that is being written.
    current: Option<(Content, Quoting, Timestamp)>,
    _turn: OwnedSemaphorePermit,
}

fn written(export: Export) -> impl Stream<Item = Result<Bytes, Fault>> + Send {
    stream::unfold(Some(export), |export| async move {
        let mut export = export?;
        loop {
            match export.next().await {
                Ok(Some(bytes)) if bytes.is_empty() => {}
                Ok(bytes) => return bytes.map(|bytes| (Ok(bytes.into()), Some(export))),
                Err(error) => {
                    tracing::error!(%error, "portal: a download broke off");
                    return Some((Err(error), None));
                }
            }
        }
    })
}

impl Export {
    /// Looks again who it is for: the session may have ended since, and the account may be locked,
    /// gone or another's.
    async fn look_again(&mut self) -> Result<(), Fault> {
        let reader = self.reader.account().await?;
        let same = |own: &Account| own.generation == self.account.generation;
        (self.account, self.facts) = reader.filter(|(own, _)| same(own)).ok_or(OVER)?;
        Ok(())
    }

    /// What comes next, if only a little; nothing more: `None`.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        let mut out = Vec::new();
        if self.current.is_none() {
            self.look_again().await?;
        }
        if let Some((mut content, mut quoting, arrived)) = self.current.take() {
            match content.next().await.map_err(Fault::from) {
                Ok(Some(piece)) => {
                    quoting.feed(&piece, &mut out);
                    self.current = Some((content, quoting, arrived));
                }
                Ok(None) => quoting.finish(&mut out),
                Err(fault) if of_one_message(&fault) => {
                    tracing::error!(error = %fault, "portal: a message in a download broke off");
                    quoting.finish(&mut out);
                    self.instead(
                        arrived,
                        &say!(
                            "The message before this one is not whole: its end could not be read."
                        ),
                        &mut out,
                    );
                }
                Err(fault) => return Err(fault),
            }
        } else if let Some(grant) = self.page.pop_front() {
            match self.begin(&grant, &mut out).await {
                Ok(current) => self.current = current,
                Err(fault) if of_one_message(&fault) => {
                    tracing::error!(error = %fault, "portal: a message is missing in a download");
                    out.clear();
                    self.instead(
                        grant.sealed,
                        &say!("The message that belongs here could not be read."),
                        &mut out,
                    );
                }
                Err(fault) => return Err(fault),
            }
        } else if !self.list().await? {
            return Ok(None);
        }
        Ok(Some(out))
    }

    /// Lists on; false at the end of it all.
    async fn list(&mut self) -> Result<bool, Fault> {
        let Some(folder) = self.folders.pop_front() else { return Ok(false) };
        let (vault, account) = (&self.desk.vault, &self.account);
        let grants = match folder {
            Folder::Received(after) => vault.received(account, after, PAGE).await?,
            Folder::Sent(after) => vault.sent(account, after, PAGE).await?,
        };
        if let Some(last) = grants.last() {
            let after = Some(last.id);
            self.folders.push_front(match folder {
                Folder::Received(_) => Folder::Received(after),
                Folder::Sent(_) => Folder::Sent(after),
            });
        }
        self.page = grants.into();
        Ok(true)
    }

    /// Begins a message: its first piece is opened before anything of it is written. What is over has
    /// nothing to be written.
    async fn begin(
        &self,
        grant: &Grant,
        out: &mut Vec<u8>,
    ) -> Result<Option<(Content, Quoting, Timestamp)>, Fault> {
        let vault = &self.desk.vault;
        let AccessAnswer::Granted(access) =
            vault.access(grant.id, &self.account, &self.facts).await?
        else {
            return Ok(None);
        };
        let Some((row, _)) = vault.queue.message(grant.message).await? else { return Ok(None) };
        let reader = Arc::clone(&self.reader);
        let access = access.held_by(reader);
        let mut content = vault.read(&access, 0..row.size).await?;
        let first = content.next().await?;
        vault.opened(&access).await?;
        let sender = row.facts.sender.as_ref().map(ToString::to_string);
        from_line(sender.as_deref(), row.facts.arrived, out);
        let mut quoting = Quoting::default();
        quoting.feed(&first.unwrap_or_default(), out);
        Ok(Some((content, quoting, row.facts.arrived)))
    }

    /// A message of ours in the place of one, or behind it, that says what is wrong.
    fn instead(&self, at: Timestamp, words: &Text, out: &mut Vec<u8>) {
        from_line(None, at, out);
        let from = &self.desk.vault.notices.head.from;
        let date = at.strftime("%a, %d %b %Y %H:%M:%S +0000");
        let support = self.desk.settings.support.clone();
        let (words, came, help) = (
            self.language.say(words),
            self.language.say(&say!("It came on {date}.", date = Text::Moment(at))),
            self.language.say(&say!("Please ask {address} for help.", address = support)),
        );
        let text = format!(
            "From: {from}\r\nDate: {date}\r\nSubject: A message is missing or not whole\r\nMIME-Version: 1.0\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\r\n{words} {came}\r\n{help}\r\n"
        );
        let mut quoting = Quoting::default();
        quoting.feed(text.as_bytes(), out);
        quoting.finish(out);
    }
}

/// RFC 4155, appendix A: who it came from, and when, as `asctime` writes it, in UTC.
fn from_line(sender: Option<&str>, at: Timestamp, out: &mut Vec<u8>) {
    let word = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    let sender = sender.filter(word).unwrap_or("MAILER-DAEMON");
    let line = format!("From {sender} {}\n", at.strftime("%a %b %e %H:%M:%S %Y"));
    out.extend_from_slice(line.as_bytes());
}

/// Writes a message's lines for the file, in whatever pieces they come.
#[derive(Debug, Default)]
struct Quoting {
    at: At,
    /// A CR that a LF may follow.
    cr: bool,
    /// The last byte written ended a line, or none was written.
    inside: bool,
}
/// Where in a line.
#[derive(Debug, Clone, Copy)]
enum At {
    /// Behind so many `>` and so many bytes of [`BEGIN`], none of which is written yet.
    Start(usize, usize),
    Rest,
}
impl Default for At {
    fn default() -> Self {
        Self::Start(0, 0)
    }
}

impl Quoting {
    fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for &byte in bytes {
            if std::mem::take(&mut self.cr) && byte != b'\n' {
                self.byte(b'\r', out);
            }
            if byte == b'\r' {
                self.cr = true;
            } else {
                self.byte(byte, out);
            }
        }
    }
    /// The message has ended: so does its last line, and an empty one follows.
    fn finish(mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.cr) {
            self.byte(b'\r', out);
        }
        if let At::Start(quotes, matched) = self.at {
            self.release(quotes, matched, out);
        }
        if self.inside {
            out.push(b'\n');
        }
        out.push(b'\n');
    }
    fn byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        if let At::Start(quotes, matched) = self.at {
            if matched == 0 && byte == b'>' && quotes < MAX_QUOTES {
                self.at = At::Start(quotes + 1, 0);
                return;
            }
            if BEGIN.get(matched) == Some(&byte) {
                self.at = At::Start(quotes, matched + 1);
                if matched + 1 < BEGIN.len() {
                    return;
                }
                self.release(quotes + 1, matched + 1, out);
                self.at = At::Rest;
                return;
            }
            self.release(quotes, matched, out);
        }
        out.push(byte);
        self.inside = byte != b'\n';
        self.at = if self.inside { At::Rest } else { At::default() };
    }
    fn release(&mut self, quotes: usize, matched: usize, out: &mut Vec<u8>) {
        out.extend(std::iter::repeat_n(b'>', quotes));
        out.extend_from_slice(BEGIN.get(..matched).unwrap_or_default());
        self.inside |= quotes + matched > 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn quoted(message: &[u8], step: usize) -> Vec<u8> {
        let (mut out, mut quoting) = (Vec::new(), Quoting::default());
        message.chunks(step.max(1)).for_each(|piece| quoting.feed(piece, &mut out));
        quoting.finish(&mut out);
        out
    }

    #[test]
    fn lines_that_would_begin_a_message_are_quoted() {
        let cases: [(&str, &str, &str); 12] = [
            ("a: b\r\n\r\nc\r\n", "a: b\n\nc\n\n", "line ends become LF"),
            ("From x\r\n", ">From x\n\n", "at the start"),
            ("a\r\nFrom x\r\n", "a\n>From x\n\n", "in the middle"),
            ("a\r\n>From x\r\n", "a\n>>From x\n\n", "quoted once"),
            ("a\r\n>>>From x\r\n", "a\n>>>>From x\n\n", "and more often"),
            ("a\r\nFrom: x\r\n>Fro\r\n", "a\nFrom: x\n>Fro\n\n", "what only looks so"),
            ("a\r\n From x\r\nfrom x\r\n", "a\n From x\nfrom x\n\n", "space and case"),
            ("no end", "no end\n\n", "a last line without its end"),
            ("From ", ">From \n\n", "nothing behind"),
            ("a\r\n>>Fro", "a\n>>Fro\n\n", "cut within"),
            ("a\rb\r\r\n", "a\rb\r\n\n", "bare CR stays"),
            ("", "\n", "nothing"),
        ];
        for (message, expected, why) in cases {
            for step in 1..=message.len().max(1) {
                let out = quoted(message.as_bytes(), step);
                assert_eq!(String::from_utf8(out).unwrap(), expected, "{why}, {step} at a time");
            }
        }
        let long = ">".repeat(5_000) + "From x\r\n";
        assert_eq!(quoted(long.as_bytes(), 7).len(), long.len(), "passed on, not gathered");
    }

    proptest! {
        #[test]
        fn what_comes_out_is_what_went_in(
            message in "([>From \r\nab]|>|From |\r\n){0,60}", step in 1_usize..20,
        ) {
            let out = quoted(message.as_bytes(), step);
            let text = String::from_utf8(out).unwrap();
            let lines = text.strip_suffix('\n').unwrap();
            prop_assert!(lines.split('\n').all(|line| !line.starts_with("From ")));
            let unquoted: Vec<&str> = lines.split('\n').map(|line| {
                let quoted = line.trim_start_matches('>').starts_with("From ");
                line.strip_prefix('>').filter(|_| quoted).unwrap_or(line)
            }).collect();
            let mut expected = message.replace("\r\n", "\n");
            if !expected.is_empty() && !expected.ends_with('\n') {
                expected.push('\n');
            }
            prop_assert_eq!(unquoted.join("\n"), expected);
        }
    }

    #[test]
    fn the_line_before_a_message_has_one_form() {
        let at = "2026-11-02T03:04:05Z".parse().unwrap();
        for (sender, expected) in [
            (Some("a@example.org"), "From a@example.org Mon Nov  2 03:04:05 2026\n"),
            (None, "From MAILER-DAEMON Mon Nov  2 03:04:05 2026\n"),
            (Some("\"a b\"@example.org"), "From MAILER-DAEMON Mon Nov  2 03:04:05 2026\n"),
            (Some("ä@example.org"), "From MAILER-DAEMON Mon Nov  2 03:04:05 2026\n"),
        ] {
            let mut out = Vec::new();
            from_line(sender, at, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
