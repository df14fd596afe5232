//! The front page, the inbox and the message.
use super::{
    Desk, Fault,
    frame::levelled,
    markup, picture,
    reader::SessionReader,
    session::Visitor,
    show, why,
    write::{Origin, fates},
};
use crate::{
    language::{Text, say},
    mail::{
        GrantId,
        header::Fields,
        parts::{Decoder, Part, PartIndex, TransferEncoding, decode_charset},
    },
    store::{AuditDetail, AuditKind, Grant, GrantKind, MessageRow},
    vault::{Access, AccessAnswer, Content, VaultError},
};
use axum::{
    Extension,
    extract::{Path, Query, State},
    http::{Method, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use minijinja::{Value, context};
use serde::Deserialize;
use std::{ops::Range, sync::Arc};

/// Decoded text shown at most.
const MAX_TEXT: usize = 1024 * 1024;
/// Messages on one page of a list.
pub(super) const PAGE: usize = 25;
type Answer = Result<Response, Fault>;

/// `GET /`
pub(super) async fn front(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
) -> Answer {
    desk.pages.answer(StatusCode::OK, "front.html", say!("Welcome"), &visitor, context! {})
}

/// `GET /assets/style.css`
pub(super) async fn style(State(desk): State<Arc<Desk>>) -> Response {
    let text = desk.pages.style().to_owned();
    ([(CONTENT_TYPE, "text/css; charset=utf-8")], text).into_response()
}

/// Where the inbox goes on.
#[derive(Debug, Default, Deserialize)]
pub(super) struct From {
    pub(super) after: Option<String>,
    /// What is searched for, in the inbox.
    pub(super) q: Option<String>,
}

/// A page of an account's grants, newest first, of which one more than a page was asked for; and where
/// the next page begins, if there is one.
pub(super) fn page_of(mut grants: Vec<Grant>) -> (Vec<Grant>, String) {
    let more = grants.len() > PAGE;
    grants.truncate(PAGE);
    let older = grants.last().filter(|_| more).map(|grant| grant.id.to_string());
    (grants, older.unwrap_or_default())
}

/// `GET /inbox`
pub(super) async fn inbox(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Query(from): Query<From>,
) -> Answer {
    let account = visitor.signed_in()?;
    let after = from.after.and_then(|id| id.parse::<GrantId>().ok());
    let query = from.q.as_deref().unwrap_or_default().trim();
    if !query.is_empty() {
        return desk.search(&visitor, query, after).await;
    }
    let grants = desk.vault.received(account, after, PAGE + 1).await?;
    let (grants, older) = page_of(grants);
    let mut rows = Vec::new();
    for grant in &grants {
        rows.push(desk.row(&visitor, grant).await?);
    }
    let messages: Value = rows.into_iter().collect();
    let values = context! { tab => "inbox", messages => messages, older => older, query => "" };
    desk.pages.answer(StatusCode::OK, "inbox.html", say!("Inbox"), &visitor, values)
}

impl Desk {
    /// One line of the inbox. What is gone shows that it was there, and no more.
    async fn row(&self, visitor: &Visitor, grant: &Grant) -> Result<Value, Fault> {
        let (live, subject, from) = match self.leave(visitor, &grant.id.to_string()).await {
            Ok(access) => match self.origin(access).await {
                Ok(origin) => {
                    let heading = origin.heading();
                    (true, heading.shown(), heading.from)
                }
                // One damaged message does not hide the others.
                Err(fault) if fault.is_damage() => {
                    tracing::error!(grant = %grant.id, error = %fault, "a message can't be opened");
                    (true, say!("This message can’t be opened"), String::new())
                }
                Err(other) => return Err(other),
            },
            Err(Fault::Unproved(..)) => {
                (true, say!("A message that asks for one more proof"), String::new())
            }
            Err(Fault::Status(_)) => (false, say!("A message that is gone"), String::new()),
            Err(other) => return Err(other),
        };
        Ok(context! {
            id => grant.id.to_string(),
            subject => Value::from(subject),
            sender => from,
            stamp => grant.sealed.to_string(),
            date => show::moment(grant.sealed),
            expires => show::day(grant.expires),
            live => live,
            opened => grant.opened.is_some(),
        })
    }
    /// Who reads, for as long as the session lasts.
    pub(super) fn reader(&self, visitor: &Visitor) -> Result<Arc<SessionReader>, Fault> {
        let session = visitor.session.as_ref().ok_or(Fault::Status(StatusCode::UNAUTHORIZED))?.id;
        Ok(Arc::new(SessionReader { identity: self.identity.clone(), session }))
    }
    /// Leave to read: 404 for what is not there or another's, 410 for the owner of what is over.
    pub(super) async fn leave(&self, visitor: &Visitor, id: &str) -> Result<Access, Fault> {
        let account = visitor.signed_in()?;
        let none = Fault::Status(StatusCode::NOT_FOUND);
        let Ok(id) = id.parse::<GrantId>() else { return Err(none) };
        match self.vault.access(id, account, &visitor.session_facts()).await? {
            AccessAnswer::Granted(access) => Ok(access.held_by(self.reader(visitor)?)),
            AccessAnswer::Unproved(need) => Err(Fault::Unproved(id, need)),
            AccessAnswer::Over => Err(Fault::Status(StatusCode::GONE)),
            AccessAnswer::NotYours => Err(none),
        }
    }
    /// A text part, decoded as far as is shown, and whether more follows.
    pub(super) async fn text_of(
        &self,
        access: &Access,
        part: &Part,
        most: usize,
    ) -> Result<(String, bool), Fault> {
        // Encoded text is at most three times (and a little for line ends) as long as what it says.
        let range = bounded(&part.body, most * 4);
        let short = range.end < part.body.end;
        let content = self.vault.read(access, range).await?;
        let (bytes, cut) = gather(content, part.encoding, most).await?;
        Ok((decode_charset(part.charset.as_deref(), &bytes), cut || short))
    }
    /// The message as text: its own, or else what its HTML says.
    pub(super) async fn readable(
        &self,
        access: &Access,
        index: &PartIndex,
    ) -> Result<(String, bool), Fault> {
        if let Some(part) = index.text() {
            let (text, cut) = self.text_of(access, part, MAX_TEXT).await?;
            if cut || !text.trim().is_empty() || index.html().is_none() {
                return Ok((text, cut));
            }
        }
        let Some(part) = index.html() else { return Ok((String::new(), false)) };
        let (turn, patience) = (self.workers.turn().await?, self.workers.reading);
        let (html, cut) = self.text_of(access, part, MAX_TEXT).await?;
        let text = turn.run(move || levelled(&html, patience).map(|level| markup::text(&level)));
        let text = text.await?;
        Ok((text.unwrap_or_default(), cut))
    }
    /// The plain reason why the message came here, if its record still says so.
    async fn why(&self, grant: &Grant) -> Result<Text, Fault> {
        let record = self.vault.queue.message(grant.message).await?;
        let rows = record.map(|(_, rows)| rows).unwrap_or_default();
        let own = rows.into_iter().find(|row| row.address == grant.recipient);
        let Some((index, why)) = own.and_then(|row| Some((row.index, row.why?))) else {
            return Ok(Text::default());
        };
        let attempts = self.vault.queue.attempts(grant.message, index).await?;
        Ok(why::in_words(why.reason, grant.recipient.domain(), &attempts))
    }
}

/// A subject without the tag by which a rule knew the message (`strip`), in any ASCII case.
fn without_tag(subject: &str, tag: &str) -> String {
    let (lower, tag) = (subject.to_ascii_lowercase(), tag.to_ascii_lowercase());
    if tag.is_empty() || !lower.contains(&tag) {
        return subject.to_owned();
    }
    // Lowered in ASCII alone, both have their bytes at the same places.
    let mut from = 0;
    let mut words = Vec::new();
    for (at, found) in lower.match_indices(&tag) {
        words.push(subject.get(from..at).unwrap_or_default().trim());
        from = at + found.len();
    }
    words.push(subject.get(from..).unwrap_or_default().trim());
    words.retain(|word| !word.is_empty());
    words.join(" ")
}

/// Subject (or nothing) and sender, as the message itself has them (but for a rule's tag).
pub(super) struct Heading {
    pub(super) subject: String,
    pub(super) from: String,
}
impl Heading {
    /// The subject as it is shown.
    pub(super) fn shown(&self) -> Text {
        if self.subject.is_empty() { say!("(no subject)") } else { Text::verbatim(&self.subject) }
    }
    pub(super) fn of(row: &MessageRow, fields: &Fields) -> Self {
        let some =
            |name: &str| fields.first(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let sender = || row.facts.sender.as_ref().map(ToString::to_string).unwrap_or_default();
        let tag = row.facts.rule.strip.as_deref().unwrap_or_default();
        let subject = some("Subject").map(|subject| without_tag(&subject, tag));
        Self { subject: subject.unwrap_or_default(), from: some("From").unwrap_or_else(sender) }
    }
}

/// `GET /inbox/ID`
pub(super) async fn message(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    method: Method,
) -> Answer {
    let origin = desk.origin(desk.leave(&visitor, &id).await?).await?;
    let reply = desk.submission.reply(visitor.signed_in()?, &origin.answered());
    let own = origin.grant().kind == GrantKind::Sent;
    let values = context! {
        tab => if own { "sent" } else { "inbox" },
        own => own,
        fates => if own { fates(&origin.recipients) } else { Vec::<Value>::new().into() },
        can_reply => !reply.to.is_empty(),
        can_all => !reply.to.is_empty() && !reply.others.is_empty(),
        thread => desk.conversation(&visitor, &origin).await?,
        why => Value::from(desk.why(origin.grant()).await?),
    };
    let page = desk.shown(&visitor, "message.html", &origin, values).await?;
    let kind = AuditKind::MessageRead;
    desk.was_read((&visitor, &method), &origin.access, kind, None).await?;
    Ok(page)
}

/// `GET /inbox/ID/print`: the message alone.
pub(super) async fn print(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    method: Method,
) -> Answer {
    let origin = desk.origin(desk.leave(&visitor, &id).await?).await?;
    let page = desk.shown(&visitor, "print.html", &origin, context! {}).await?;
    let (kind, detail) = (AuditKind::MessageRead, Some(AuditDetail::Print));
    desk.was_read((&visitor, &method), &origin.access, kind, detail).await?;
    Ok(page)
}

impl Desk {
    /// A page that shows a message.
    async fn shown(&self, visitor: &Visitor, page: &str, origin: &Origin, more: Value) -> Answer {
        let (text, cut) = self.readable(&origin.access, &origin.index).await?;
        let (heading, grant, row) = (origin.heading(), origin.grant(), &origin.row);
        let to = Some(origin.addressed()).filter(|to| !to.is_empty());
        let html = match origin.index.html() {
            Some(_) => self.ticket(visitor, grant.id)?,
            None => String::new(),
        };
        let values = context! {
            id => grant.id.to_string(),
            subject => Value::from(heading.shown()),
            from => &heading.from,
            to => to.unwrap_or_else(|| grant.recipient.to_string()),
            stamp => row.facts.arrived.to_string(),
            date => show::moment(row.facts.arrived),
            size => show::size(row.size),
            expires => show::day(grant.expires),
            note => origin.note(self.vault.notices.note.as_deref()),
            segments => segments(&text),
            cut => cut,
            html => html,
            attachments => attachments(&origin.index),
        };
        let values = context! { ..values, ..more };
        self.pages.answer(StatusCode::OK, page, heading.shown(), visitor, values)
    }
}

fn segments(text: &str) -> Value {
    let mut values = Vec::new();
    for segment in show::segments(text.trim_end()) {
        let href = if segment.link { segment.text } else { "" };
        values.push(context! { text => segment.text, href => href });
        // What is no host but looks like one stands before the real one, or in another script.
        if let Some(shown) = markup::shown_target(href, Some(segment.text)) {
            values.push(context! { text => format!(" [{}]", shown.short), href => "" });
        }
    }
    values.into_iter().collect()
}
fn attachments(index: &PartIndex) -> Value {
    let mut pictures = 0;
    let line = |(number, part): (usize, &Part)| {
        let (name, size) = (attachment_name(part, number), show::size(decoded_size(part)));
        let picture = picture::is_picture(part) && pictures < picture::MAX_THUMBNAILS;
        pictures += usize::from(picture);
        context! { number => number, name => name, size => size, picture => picture }
    };
    (1..).zip(index.attachments()).map(line).collect()
}
/// An attachment's name; `attachment-N` for one without.
pub(super) fn attachment_name(part: &Part, number: usize) -> String {
    let name = part.name.as_deref().map(str::trim).filter(|n| !n.trim_matches('.').is_empty());
    name.map_or_else(|| format!("attachment-{number}"), ToOwned::to_owned)
}
/// What a part will be when decoded, roughly: base64 has 57 bytes in a line of 76 and its CRLF (RFC
/// 2045 §6.8).
pub(super) fn decoded_size(part: &Part) -> u64 {
    let encoded = part.body.end.saturating_sub(part.body.start);
    match part.encoding {
        TransferEncoding::Identity | TransferEncoding::QuotedPrintable => encoded,
        TransferEncoding::Base64 => encoded / 78 * 57 + encoded % 78 * 57 / 78,
    }
}

pub(super) fn bounded(range: &Range<u64>, most: usize) -> Range<u64> {
    let most = u64::try_from(most).unwrap_or(u64::MAX);
    range.start..range.end.min(range.start.saturating_add(most))
}

/// Decoded content up to `most` bytes, and whether more would follow.
pub(super) async fn gather(
    mut content: Content,
    encoding: TransferEncoding,
    most: usize,
) -> Result<(Vec<u8>, bool), VaultError> {
    let mut decoder = Decoder::new(encoding);
    let mut bytes = Vec::new();
    while bytes.len() <= most {
        let Some(piece) = content.next().await? else {
            decoder.finish(&mut bytes);
            break;
        };
        decoder.feed(&piece, &mut bytes);
    }
    let cut = bytes.len() > most;
    bytes.truncate(most);
    Ok((bytes, cut))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rules_tag_is_no_part_of_the_subject_shown() {
        for (subject, tag, shown) in [
            ("[secure] Your results", "[secure]", "Your results"),
            ("Re: [SECURE] Your results", "[Secure]", "Re: Your results"),
            ("Your results [secure]", "[secure]", "Your results"),
            ("[secure] a [secure]", "[secure]", "a"),
            ("[secure]", "[secure]", ""),
            ("\u{130}\u{df} [secure] \u{e9}", "[secure]", "\u{130}\u{df} \u{e9}"),
            ("Your  results", "[secure]", "Your  results"),
            ("Your results", "", "Your results"),
        ] {
            assert_eq!(without_tag(subject, tag), shown, "{subject}");
        }
    }
}
