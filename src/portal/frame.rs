//! The frame that shows a message with its formatting, from a path that knows no cookies.
//!
//! The page of a message puts a ticket into the frame's address: sealed, for that message and that
//! session, for a few minutes. Cookies are taken off a request to this path before anybody looks at
//! it, and none is set: the frame's document shows the message to whoever holds the ticket while the
//! session runs, and can do nothing in anybody's name.

use super::{
    Desk, Fault, markup,
    pages::html as html_answer,
    picture::{MAX_FILE, Size},
    session::Visitor,
};
use crate::{
    identity,
    language::say,
    mail::{
        GrantId,
        parts::{Part, PartIndex},
    },
    seal::TokenHash,
    store::AuditKind,
    vault::{Access, AccessAnswer},
};
use axum::{
    Extension,
    extract::{Path, State},
    http::{
        HeaderValue, Method, StatusCode,
        header::{CONTENT_SECURITY_POLICY, X_FRAME_OPTIONS},
    },
    response::{IntoResponse, Redirect, Response},
};
use data_encoding::BASE64;
use jiff::{SignedDuration, Timestamp};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a ticket is good.
const LIFE: SignedDuration = SignedDuration::from_mins(15);
/// Bytes of a message's HTML shown at most. Some carry their pictures in it.
const MAX_HTML: usize = 4 << 20;
/// Pictures in a message's text at most.
const MAX_PICTURES: usize = 40;
/// Bytes of all of them at most, as they are sent.
const MAX_PICTURE_BYTES: usize = 16 << 20;
/// How long they may take together.
const PICTURE_PATIENCE: Duration = Duration::from_secs(30);

/// The message's own HTML may do nothing but look. Links open elsewhere.
const CSP: &str = "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; \
     style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'; \
     frame-ancestors 'self'";

type Answer = Result<Response, Fault>;

/// What a ticket lets its holder see: the HTML of one message.
#[derive(Debug, PartialEq, Eq)]
struct Ticket {
    until: Timestamp,
    grant: GrantId,
    session: TokenHash,
}
impl Ticket {
    fn to_bytes(&self) -> Vec<u8> {
        let until = self.until.as_second().to_be_bytes();
        [until.as_slice(), self.grant.as_bytes(), self.session.as_bytes()].concat()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (until, rest) = bytes.split_first_chunk::<8>()?;
        let (grant, session) = rest.split_first_chunk::<16>()?;
        Some(Self {
            until: Timestamp::from_second(i64::from_be_bytes(*until)).ok()?,
            grant: GrantId::from_bytes(*grant),
            session: TokenHash::from_bytes(session.try_into().ok()?),
        })
    }
}

impl Desk {
    /// A ticket to the HTML of a message, for the visitor's session.
    pub(super) fn ticket(&self, visitor: &Visitor, grant: GrantId) -> Result<String, Fault> {
        let session = visitor.session.as_ref().ok_or(Fault::Status(StatusCode::UNAUTHORIZED))?;
        let until = self.now() + LIFE;
        let ticket = Ticket { until, grant, session: session.id };
        let sealed = self.tickets.seal(rand::random(), &ticket.to_bytes());
        sealed.ok_or(Fault::Work("a ticket could not be sealed"))
    }

    /// Leave to read by a ticket, while it and its session last and the message is there; with it, who
    /// the visitor is.
    async fn ticket_access(
        &self,
        visitor: Visitor,
        text: &str,
    ) -> Result<Option<(Access, Visitor)>, Fault> {
        let ticket = self.tickets.open(text).and_then(|bytes| Ticket::from_bytes(&bytes));
        let now = self.now();
        let Some(ticket) = ticket.filter(|ticket| ticket.until > now) else { return Ok(None) };
        let session = self.vault.people.session(&ticket.session).await?;
        let Some(session) = session.filter(|session| identity::runs(session, now)) else {
            return Ok(None);
        };
        let Some(account) = self.account_of(&session).await? else { return Ok(None) };
        let facts = Visitor::facts_of(&session, &account);
        match self.vault.access(ticket.grant, &account, &facts).await? {
            AccessAnswer::Granted(access) => {
                let (session, account) = (Some(session), Some(account));
                Ok(Some((access, Visitor { session, account, ..visitor })))
            }
            AccessAnswer::Unproved(_) | AccessAnswer::Over | AccessAnswer::NotYours => Ok(None),
        }
    }

    /// Pictures of a message's text as they may stand in it, by what names them there.
    async fn inline_pictures(
        &self,
        access: &Access,
        index: &PartIndex,
        sources: Vec<String>,
    ) -> Result<BTreeMap<String, String>, Fault> {
        let (begun, mut bytes, mut pictures) = (Instant::now(), 0, BTreeMap::new());
        for source in sources {
            if begun.elapsed() > PICTURE_PATIENCE || bytes > MAX_PICTURE_BYTES {
                break;
            }
            let drawn = match (part_of(index, &source), bytes_of(&source)) {
                (Some(part), _) => self.picture_of(access, part, Size::Inline).await,
                (None, Some(bytes)) => self.drawn(Size::Inline, async { Ok(bytes) }).await,
                (None, None) => continue,
            };
            match drawn {
                Ok(picture) => {
                    let data = BASE64.encode(&picture.bytes);
                    bytes += data.len();
                    pictures.insert(source, format!("data:{};base64,{data}", picture.kind));
                }
                // One that can't be shown leaves its place to its words.
                Err(Fault::Status(_)) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(pictures)
    }
}

/// The part that `cid:` names (RFC 2392).
fn part_of<'i>(index: &'i PartIndex, source: &str) -> Option<&'i Part> {
    let (scheme, id) = source.trim().split_once(':')?;
    let named = Some(id).filter(|_| scheme.eq_ignore_ascii_case("cid"))?;
    // Percent-decoding alone: these have a meaning of their own in a query.
    let id = named.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    let (id, _) = form_urlencoded::parse(id.as_bytes()).next()?;
    index.parts.iter().find(|part| part.content_id.as_deref() == Some(&id))
}

/// The bytes that `data:` carries (RFC 2397), in base64.
fn bytes_of(source: &str) -> Option<Vec<u8>> {
    let (kind, data) = source.trim().split_once(',')?;
    let kind = kind.to_ascii_lowercase();
    if !kind.starts_with("data:image/") || !kind.ends_with(";base64") {
        return None;
    }
    let data: Vec<u8> = data.bytes().filter(|b| !b.is_ascii_whitespace() && *b != b'=').collect();
    let bytes = data_encoding::BASE64_NOPAD.decode(&data).ok()?;
    (bytes.len() <= MAX_FILE).then_some(bytes)
}

/// `GET /inbox/ID/html`: leads to the frame's document with a new ticket.
pub(super) async fn html(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
) -> Answer {
    let access = desk.leave(&visitor, &id).await?;
    let (_, index) = desk.vault.index(&access).await?;
    if index.html().is_none() {
        return Err(Fault::Status(StatusCode::NOT_FOUND));
    }
    let ticket = desk.ticket(&visitor, access.grant().id)?;
    Ok(Redirect::to(&format!("/framed/{ticket}")).into_response())
}

/// `GET /framed/TICKET`: the document in the frame. Whatever is wrong with a ticket, the answer is
/// the same.
pub(super) async fn framed(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Path(ticket): Path<String>,
    method: Method,
) -> Answer {
    let language = Arc::clone(&visitor.language);
    let note = |status, words| dressed(status, markup::note(&words, &language));
    let ended = || {
        let words = say!("This view has ended. Please load the page of the message again.");
        note(StatusCode::GONE, words)
    };
    let Some((access, visitor)) = desk.ticket_access(visitor, &ticket).await? else {
        return Ok(ended());
    };
    let (_, index) = desk.vault.index(&access).await?;
    let Some(part) = index.html() else { return Ok(ended()) };
    let (turn, patience) = (desk.workers.turn().await?, desk.workers.reading);
    let (text, cut) = desk.text_of(&access, part, MAX_HTML).await?;
    let clean = turn.run(move || levelled(&text, patience).and_then(|level| markup::clean(&level)));
    let Some(clean) = clean.await? else {
        let words = say!("This message is too tangled to be shown with its formatting.");
        return Ok(note(StatusCode::OK, words));
    };
    let sources = markup::sources(&clean, MAX_PICTURES);
    let pictures = desk.inline_pictures(&access, &index, sources).await?;
    let picture = move |source: &str| pictures.get(source).cloned();
    let page = desk.workers.run(move || markup::framed(&clean, cut, &picture, &language)).await?;
    // The frame comes with the message's page, and counts as the reading of that.
    desk.was_read((&visitor, &method), &access, AuditKind::MessageRead, None).await?;
    Ok(dressed(StatusCode::OK, page))
}

/// Level HTML, unless it takes too long: such was written for that.
pub(super) fn levelled(html: &str, patience: Duration) -> Option<String> {
    let begun = Instant::now();
    markup::level(html, &|| begun.elapsed() < patience)
}

fn dressed(status: StatusCode, page: String) -> Response {
    let mut response = html_answer(status, page);
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(CSP));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_comes_back_as_it_went_out() {
        let ticket = Ticket {
            until: Timestamp::from_second(1_795_000_000).unwrap(),
            grant: GrantId::from_bytes([3; 16]),
            session: TokenHash::from_bytes([4; 32]),
        };
        let bytes = ticket.to_bytes();
        assert_eq!(Ticket::from_bytes(&bytes), Some(ticket));
        assert_eq!(Ticket::from_bytes(&bytes[..55]), None);
        assert_eq!(Ticket::from_bytes(&[bytes, vec![0]].concat()), None);
    }
    #[test]
    fn bytes_in_place_are_those_of_pictures_in_base64() {
        let cases: &[(&str, Option<&[u8]>)] = &[
            ("data:image/png;base64,AAEC", Some(&[0, 1, 2])),
            ("DATA:IMAGE/PNG;BASE64,AA EC", Some(&[0, 1, 2])),
            ("data:image/png;base64,AA==", Some(&[0])),
            ("data:image/png,AAEC", None),
            ("data:text/html;base64,AAEC", None),
            ("data:image/png;base64,<svg>", None),
            ("https://evil.example/x.png", None),
        ];
        for (source, expected) in cases {
            assert_eq!(bytes_of(source).as_deref(), *expected, "{source}");
        }
    }
}
