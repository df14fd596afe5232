//! Attachments and the original, as streams: whatever the size, one piece is in memory at a time.
//!
//! What leaves as it is stored has a length and answers ranges. What is decoded on its way (base64,
//! quoted-printable, the zip) has a length that only its end tells: it goes in chunks, and says that
//! it has no ranges.
use super::{
    Desk, Fault,
    range::{self, Asked},
    read::attachment_name,
    session::Visitor,
    workers::DOWNLOADS,
};
use crate::{
    language::say,
    mail::parts::{Decoder, Part, TransferEncoding},
    store::{AuditDetail, AuditKind},
    vault::{Access, Content, Vault, VaultError},
};
use axum::{
    Extension,
    body::Body,
    extract::{Path, State},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{
            ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE,
            CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
        },
    },
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use minijinja::{Value, context};
use std::{
    collections::{HashSet, VecDeque},
    fmt::Write as _,
    io::{self, Write},
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::OwnedSemaphorePermit;
use zip::{
    CompressionMethod, ZipWriter,
    write::{SimpleFileOptions, StreamWriter},
};

type Answer = Result<Response, Fault>;

/// `GET /inbox/ID/attachments/N`
pub(super) async fn attachment(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Path((id, number)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Answer {
    let access = desk.leave(&visitor, &id).await?;
    let (_, index) = desk.vault.index(&access).await?;
    let none = Fault::Status(StatusCode::NOT_FOUND);
    let Some(number) = number.parse::<usize>().ok().filter(|number| *number > 0) else {
        return Err(none);
    };
    let Some(part) = index.attachments().nth(number - 1) else { return Err(none) };
    let turn = match desk.download_turn(&visitor)? {
        Ok(turn) => turn,
        Err(busy) => return Ok(busy),
    };
    let detail = Some(AuditDetail::Attachment(number));
    desk.was_read((&visitor, &method), &access, AuditKind::Downloaded, detail).await?;
    let name = attachment_name(part, number);
    let kind = "application/octet-stream";
    if part.encoding == TransferEncoding::Identity {
        let file = StoredFile { tag: format!("{id}-{number}"), content: part.body.clone() };
        let body = desk.stored(&access, &file, turn, (&method, &headers)).await?;
        return Ok(saved(body, &name, kind));
    }
    let content = desk.vault.read(&access, part.body.clone()).await?.begun().await?;
    let body = Body::from_stream(decoded(content, Some(Decoder::new(part.encoding)), turn));
    Ok(download(body, &name, kind))
}

/// `GET /inbox/ID/original.eml`: the message as it came, byte for byte.
pub(super) async fn original(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Answer {
    let access = desk.leave(&visitor, &id).await?;
    let (row, _) = desk.vault.index(&access).await?;
    let turn = match desk.download_turn(&visitor)? {
        Ok(turn) => turn,
        Err(busy) => return Ok(busy),
    };
    let detail = Some(AuditDetail::Original);
    desk.was_read((&visitor, &method), &access, AuditKind::Downloaded, detail).await?;
    let file = StoredFile { tag: id, content: 0..row.size };
    let body = desk.stored(&access, &file, turn, (&method, &headers)).await?;
    Ok(saved(body, "message.eml", "message/rfc822"))
}

/// `GET /inbox/ID/attachments.zip`
pub(super) async fn zip(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    method: Method,
) -> Answer {
    let access = desk.leave(&visitor, &id).await?;
    let (_, index) = desk.vault.index(&access).await?;
    let mut taken = HashSet::new();
    let waiting: VecDeque<(String, Part)> = (1..)
        .zip(index.attachments())
        .map(|(number, part)| (unique(&attachment_name(part, number), &mut taken), part.clone()))
        .collect();
    if waiting.is_empty() {
        return Err(Fault::Status(StatusCode::NOT_FOUND));
    }
    let turn = match desk.download_turn(&visitor)? {
        Ok(turn) => turn,
        Err(busy) => return Ok(busy),
    };
    let detail = Some(AuditDetail::AllAttachments);
    desk.was_read((&visitor, &method), &access, AuditKind::Downloaded, detail).await?;
    if let Some((_, part)) = waiting.front() {
        desk.vault.read(&access, part.body.clone()).await?.begun().await?;
    }
    let packer = Packer::new(desk.vault.clone(), access, waiting, turn);
    Ok(download(Body::from_stream(packed(packer)), "attachments.zip", "application/zip"))
}

/// Bytes of a message that leave as they are stored.
struct StoredFile {
    /// What names them among all others, for ever: a message never changes.
    tag: String,
    content: Range<u64>,
}

impl Desk {
    /// A turn to download, or the page that says that all are taken.
    pub(super) fn download_turn(
        &self,
        visitor: &Visitor,
    ) -> Result<Result<OwnedSemaphorePermit, Response>, Fault> {
        let account = visitor.signed_in()?;
        if let Some(turn) = self.workers.download(account.generation) {
            return Ok(Ok(turn));
        }
        let text = say!(
            "You have {count} downloads under way. Please wait until one of them has ended, then \
             try again.",
            count = DOWNLOADS
        );
        let (status, title) =
            (StatusCode::TOO_MANY_REQUESTS, say!("Too many downloads at the same time"));
        let values = context! { text => Value::from(text) };
        self.pages.answer(status, "plain.html", title, visitor, values).map(Err)
    }
    /// All of it, or the part that is asked for.
    async fn stored(
        &self,
        access: &Access,
        file: &StoredFile,
        turn: OwnedSemaphorePermit,
        (method, headers): (&Method, &HeaderMap),
    ) -> Answer {
        let tag = HeaderValue::from_str(&format!("\"{}\"", file.tag))
            .map_err(|_| Fault::Work("an entity tag of strange characters"))?;
        let Range { start, end } = file.content;
        let size = end.saturating_sub(start);
        let (status, part) = match range::asked(method, headers, &tag, size) {
            Asked::Whole => (StatusCode::OK, 0..size),
            Asked::Part(part) => (StatusCode::PARTIAL_CONTENT, part),
            Asked::Beyond => {
                let mut response = StatusCode::RANGE_NOT_SATISFIABLE.into_response();
                response.headers_mut().insert(CONTENT_RANGE, text_of(&format!("bytes */{size}"))?);
                return Ok(response);
            }
        };
        let within = |offset: u64| start.saturating_add(offset);
        let content = self.vault.read(access, within(part.start)..within(part.end)).await?;
        // Damage at its beginning gets a page; later it can only cut the answer off.
        let content = content.begun().await?;
        let mut response = Body::from_stream(decoded(content, None, turn)).into_response();
        *response.status_mut() = status;
        let fields = response.headers_mut();
        fields.insert(CONTENT_LENGTH, HeaderValue::from(part.end.saturating_sub(part.start)));
        fields.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        fields.insert(ETAG, tag);
        if status == StatusCode::PARTIAL_CONTENT {
            let last = part.end.saturating_sub(1);
            let text = format!("bytes {}-{last}/{size}", part.start);
            fields.insert(CONTENT_RANGE, text_of(&text)?);
        }
        Ok(response)
    }
}

fn text_of(text: &str) -> Result<HeaderValue, Fault> {
    HeaderValue::from_str(text).map_err(|_| Fault::Work("a header of strange characters"))
}

/// A download of unknown length.
pub(super) fn download(body: Body, name: &str, kind: &'static str) -> Response {
    let mut response = body.into_response();
    response.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("none"));
    saved(response, name, kind)
}

/// Never shown in place: saved under its name, and sandboxed should a browser show it all the same.
fn saved(mut response: Response, name: &str, kind: &'static str) -> Response {
    if !response.status().is_success() {
        return response;
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    let sandbox = HeaderValue::from_static("sandbox; default-src 'none'; frame-ancestors 'none'");
    headers.insert(CONTENT_SECURITY_POLICY, sandbox);
    let disposition = HeaderValue::from_str(&disposition(name))
        .unwrap_or_else(|_| HeaderValue::from_static("attachment"));
    headers.insert(CONTENT_DISPOSITION, disposition);
    response
}

/// RFC 6266: a plain name for everybody, and the true one in UTF-8 (RFC 8187).
fn disposition(name: &str) -> String {
    let plain: String =
        name.chars()
            .map(|c| {
                if matches!(c, ' '..='~') && !matches!(c, '"' | '\\' | '%' | '/') { c } else { '_' }
            })
            .collect();
    let mut text = format!("attachment; filename=\"{plain}\"; filename*=UTF-8''");
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a String can't fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// Pieces as they come out of the vault, decoded where there is a decoder. An error ends the
/// connection, so that a cut download is never taken for a whole one.
fn decoded(
    content: Content,
    decoder: Option<Decoder>,
    turn: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Bytes, VaultError>> + Send {
    stream::unfold(Some((content, decoder, turn)), |state| async move {
        let (mut content, mut decoder, turn) = state?;
        loop {
            let piece = match content.next().await {
                Ok(piece) => piece,
                Err(error) => {
                    broke_off(&error);
                    return Some((Err(error), None));
                }
            };
            let ended = piece.is_none();
            let out = match (piece, decoder.as_mut()) {
                (Some(piece), None) => piece,
                (None, None) => Bytes::new(),
                (piece, Some(decoder)) => decode(decoder, piece),
            };
            if ended {
                return (!out.is_empty()).then_some((Ok(out), None));
            }
            if !out.is_empty() {
                return Some((Ok(out), Some((content, decoder, turn))));
            }
        }
    })
}

fn broke_off(error: &VaultError) {
    if matches!(error, VaultError::Ended) {
        tracing::info!("portal: a download ended with the right to read");
    } else {
        tracing::error!(%error, "portal: a download broke off");
    }
}

/// What a piece (or the end) decodes to.
fn decode(decoder: &mut Decoder, piece: Option<Bytes>) -> Bytes {
    let mut out = Vec::new();
    match piece {
        Some(piece) => decoder.feed(&piece, &mut out),
        None => decoder.finish(&mut out),
    }
    out.into()
}

/// A name that no other file of the zip has, whatever the case, and that every system can write.
fn unique(name: &str, taken: &mut HashSet<String>) -> String {
    let bad = |c: char| {
        c.is_control() || matches!(c, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|')
    };
    let name: String = name.chars().map(|c| if bad(c) { '_' } else { c }).collect();
    let (stem, end) = match name.rsplit_once('.') {
        Some((stem, end)) if !stem.is_empty() => (stem.to_owned(), format!(".{end}")),
        Some(_) | None => (name.clone(), String::new()),
    };
    let others = (2_u32..).map(|number| format!("{stem} ({number}){end}"));
    let free = std::iter::once(name.clone())
        .chain(others)
        .find(|candidate| taken.insert(candidate.to_lowercase()));
    free.unwrap_or(name)
}

/// Where the zip's bytes gather until they are sent.
#[derive(Debug, Clone, Default)]
struct Outbox(Arc<Mutex<Vec<u8>>>);
impl Outbox {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
impl Write for Outbox {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why a zip broke off.
#[derive(Debug, thiserror::Error)]
enum PackError {
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Zip(#[from] zip::result::ZipError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Packs attachments one piece at a time, as fast as they are fetched.
struct Packer {
    vault: Vault,
    access: Access,
    waiting: VecDeque<(String, Part)>,
    current: Option<(Content, Decoder)>,
    writer: Option<ZipWriter<StreamWriter<Outbox>>>,
    outbox: Outbox,
    _turn: OwnedSemaphorePermit,
}
impl Packer {
    fn new(
        vault: Vault,
        access: Access,
        waiting: VecDeque<(String, Part)>,
        turn: OwnedSemaphorePermit,
    ) -> Self {
        let outbox = Outbox::default();
        let writer = Some(ZipWriter::new_stream(outbox.clone()));
        Self { vault, access, waiting, current: None, writer, outbox, _turn: turn }
    }
    /// Goes on until there is something to send; nothing more: `None`.
    async fn next(&mut self) -> Result<Option<Bytes>, PackError> {
        loop {
            let ended = !self.step().await?;
            let bytes = self.outbox.take();
            if !bytes.is_empty() {
                return Ok(Some(bytes.into()));
            }
            if ended {
                return Ok(None);
            }
        }
    }
    /// One piece, one new file, or the end; false once the end has been written.
    async fn step(&mut self) -> Result<bool, PackError> {
        let Some(mut writer) = self.writer.take() else { return Ok(false) };
        if let Some((mut content, mut decoder)) = self.current.take() {
            let piece = content.next().await?;
            let more = piece.is_some();
            writer.write_all(&decode(&mut decoder, piece))?;
            self.current = more.then_some((content, decoder));
        } else if let Some((name, part)) = self.waiting.pop_front() {
            let options = SimpleFileOptions::default()
                .compression_method(CompressionMethod::Deflated)
                .compression_level(Some(1));
            writer.start_file(name, options)?;
            // Another recipient may keep the key alive.
            self.access.renew().await?;
            let content = self.vault.read(&self.access, part.body.clone()).await?;
            self.current = Some((content, Decoder::new(part.encoding)));
        } else {
            writer.finish()?;
            return Ok(true);
        }
        self.writer = Some(writer);
        Ok(true)
    }
}

fn packed(packer: Packer) -> impl Stream<Item = Result<Bytes, PackError>> + Send {
    stream::unfold(Some(packer), |packer| async move {
        let mut packer = packer?;
        match packer.next().await {
            Ok(bytes) => bytes.map(|bytes| (Ok(bytes), Some(packer))),
            Err(error) => {
                match &error {
                    PackError::Vault(error) => broke_off(error),
                    PackError::Zip(_) | PackError::Io(_) => {
                        tracing::error!(%error, "portal: a download broke off");
                    }
                }
                Some((Err(error), None))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_travel_in_both_forms_and_break_no_header() {
        let cases = [
            ("a.pdf", "attachment; filename=\"a.pdf\"; filename*=UTF-8''a.pdf"),
            ("a b.pdf", "attachment; filename=\"a b.pdf\"; filename*=UTF-8''a%20b.pdf"),
            ("ü\".pdf", "attachment; filename=\"__.pdf\"; filename*=UTF-8''%C3%BC%22.pdf"),
            ("a\r\nX: y", "attachment; filename=\"a__X: y\"; filename*=UTF-8''a%0D%0AX%3A%20y"),
            (
                "100%;'.txt",
                "attachment; filename=\"100_;'.txt\"; filename*=UTF-8''100%25%3B%27.txt",
            ),
        ];
        for (name, expected) in cases {
            assert_eq!(disposition(name), expected);
        }
    }
    #[test]
    fn names_in_the_zip_are_unique_whatever_the_case() {
        let mut taken = HashSet::new();
        let names =
            ["a.pdf", "A.PDF", "a.pdf", "a (2).pdf", "noend", "noend", ".hidden", "../x", "c:\\y"];
        let made: Vec<_> = names.iter().map(|name| unique(name, &mut taken)).collect();
        let expected = [
            "a.pdf",
            "A (2).PDF",
            "a (3).pdf",
            "a (2) (2).pdf",
            "noend",
            "noend (2)",
            ".hidden",
            ".._x",
            "c__y",
        ];
        assert_eq!(made, expected);
    }
}
