//! What the writing form sends, as it streams in: the typed fields first, then the files.

use super::multipart::{Event, Head, Malformed, Multipart};
use crate::{
    portal::Fault,
    submission::{BrokenOff, Paced},
};
use axum::{
    body::{Body, BodyDataStream},
    extract::Request,
    http::{
        StatusCode,
        header::{CONTENT_LENGTH, CONTENT_TYPE},
    },
    response::Response,
};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Bytes of all typed fields together.
const MAX_TYPED: usize = 512 * 1024;
/// What the form's own lines may add to its content.
const FRAME: u64 = 1024 * 1024;
/// Parts of a form.
const MAX_PARTS: usize = 1000;
/// What is read, to no use, of a form that was refused, and for how long: a browser shows the answer
/// only once it has sent everything.
const REST: u64 = 512 * 1024 * 1024;
const REST_TIME: Duration = Duration::from_secs(120);

/// What was typed.
#[derive(Debug, Clone, Default)]
pub(super) struct Draft {
    pub(super) to: String,
    /// `None`: the form has no such field.
    pub(super) subject: Option<String>,
    pub(super) body: String,
    pub(super) priority: String,
    pub(super) all: bool,
    pub(super) quote: bool,
    /// Files that were uploaded ahead.
    pub(super) uploads: Vec<String>,
}
/// A file whose content follows, in pieces.
#[derive(Debug)]
pub(super) struct File {
    pub(super) name: String,
    pub(super) kind: String,
}
/// Why a form can't be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// More than `portal.max_reply_size`.
    TooLarge,
    /// Typed fields behind the files: they would come too late.
    Late,
    /// Not what a form looks like.
    Malformed,
    /// The browser went away, or sent nothing for too long.
    Gone,
}

/// A form on its way in.
#[derive(Debug)]
pub(super) struct Upload {
    stream: Paced<BodyDataStream>,
    form: Option<Multipart>,
    /// What was typed, as far as it has been read.
    pub(super) draft: Draft,
    /// Content-Length, if given.
    declared: Option<u64>,
    limit: u64,
    content: u64,
    bytes: u64,
    parts: usize,
    typed: usize,
    /// A file that was met while fields were read.
    met: Option<File>,
    /// The first piece of the file that was met last.
    first: Option<Bytes>,
    ended: bool,
}

impl Upload {
    /// The form of a request; a Fault if it is none.
    pub(super) fn of(request: Request, limit: u64) -> Result<Self, Fault> {
        let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        let kind = text(CONTENT_TYPE).unwrap_or_default();
        let declared = text(CONTENT_LENGTH).and_then(|length| length.parse().ok());
        let form = Multipart::of(kind);
        let simple = kind.split(';').next().unwrap_or_default().trim();
        if form.is_none() && !simple.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Fault::Status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        Ok(Self {
            stream: Paced::new(request.into_body().into_data_stream()),
            form,
            draft: Draft::default(),
            declared,
            limit,
            content: 0,
            bytes: 0,
            parts: 0,
            typed: 0,
            met: None,
            first: None,
            ended: false,
        })
    }

    /// So much of what may be sent has come already.
    pub(super) const fn came_ahead(&mut self, bytes: u64) -> Result<(), Broken> {
        if bytes > self.limit {
            return Err(Broken::TooLarge);
        }
        self.limit -= bytes;
        Ok(())
    }

    /// Reads what was typed, up to the first file or the end; true if a file follows.
    pub(super) async fn fields(&mut self) -> Result<bool, Broken> {
        if self.form.is_none() {
            self.simple().await?;
            return Ok(false);
        }
        self.met = self.next_file(false).await?;
        if self.declared.is_some_and(|length| length > self.limit.saturating_add(FRAME)) {
            return Err(Broken::TooLarge);
        }
        Ok(self.met.is_some())
    }

    /// The next file, once the one before has been read; `None` at the end of the form.
    pub(super) async fn file(&mut self) -> Result<Option<File>, Broken> {
        match self.met.take() {
            Some(file) => Ok(Some(file)),
            None => self.next_file(true).await,
        }
    }

    /// The next piece of a file; `None` at its end.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, Broken> {
        match self.first.take() {
            // The end of an empty file was met with it.
            Some(first) if first.is_empty() => Ok(None),
            Some(first) => Ok(Some(first)),
            None => self.content().await,
        }
    }

    async fn content(&mut self) -> Result<Option<Bytes>, Broken> {
        match self.event().await? {
            Event::Data(data) => Ok(Some(data)),
            Event::End => Ok(None),
            Event::Part(_) | Event::Done => Err(Broken::Malformed),
        }
    }

    async fn next_file(&mut self, late: bool) -> Result<Option<File>, Broken> {
        loop {
            let head = match self.event().await? {
                Event::Part(head) => head,
                Event::Done => return Ok(None),
                Event::Data(_) | Event::End => return Err(Broken::Malformed),
            };
            let Head { name, file: Some(file), kind } = head else {
                self.field(&head.name, late).await?;
                continue;
            };
            drop(name);
            let first = self.content().await?;
            // A field for files in which none was chosen comes as one without name and content.
            if !file.is_empty() || first.is_some() {
                self.first = Some(first.unwrap_or_default());
                return Ok(Some(File { name: file, kind }));
            }
        }
    }

    async fn field(&mut self, name: &str, late: bool) -> Result<(), Broken> {
        let mut bytes = Vec::new();
        let whole = self.typed(&mut bytes).await;
        // A field that breaks off is kept as far as it came, so that it can be given back.
        let known = self.take(name, String::from_utf8_lossy(&bytes).into_owned());
        whole?;
        if known && late { Err(Broken::Late) } else { Ok(()) }
    }

    async fn typed(&mut self, bytes: &mut Vec<u8>) -> Result<(), Broken> {
        while let Some(data) = self.content().await? {
            self.typed = self.typed.saturating_add(data.len());
            if self.typed > MAX_TYPED {
                return Err(Broken::TooLarge);
            }
            bytes.extend_from_slice(&data);
        }
        Ok(())
    }

    /// A form without files, as simple programs send it.
    async fn simple(&mut self) -> Result<(), Broken> {
        let mut bytes = Vec::new();
        while let Some(data) = self.more().await? {
            if bytes.len() + data.len() > MAX_TYPED {
                return Err(Broken::TooLarge);
            }
            bytes.extend_from_slice(&data);
        }
        for (name, value) in form_urlencoded::parse(&bytes) {
            self.take(&name, value.into_owned());
        }
        Ok(())
    }

    /// True if it is a field that decides where the letter goes or what it says.
    fn take(&mut self, name: &str, value: String) -> bool {
        let ticked = !matches!(value.as_str(), "" | "0" | "no" | "false" | "off");
        match name {
            "to" => self.draft.to = value,
            "subject" => self.draft.subject = Some(value),
            "body" => self.draft.body = value,
            "priority" => self.draft.priority = value,
            "all" => self.draft.all = ticked,
            "quote" => self.draft.quote = ticked,
            "upload" => self.draft.uploads.push(value),
            _ => return false,
        }
        true
    }

    async fn event(&mut self) -> Result<Event, Broken> {
        loop {
            let form = self.form.as_mut().ok_or(Broken::Malformed)?;
            match form.poll().map_err(|Malformed| Broken::Malformed)? {
                Some(event) => return self.counted(event),
                None => {
                    let data = self.more().await?.ok_or(Broken::Gone)?;
                    if let Some(form) = &mut self.form {
                        form.feed(&data);
                    }
                }
            }
        }
    }

    fn counted(&mut self, event: Event) -> Result<Event, Broken> {
        match &event {
            Event::Part(_) => self.parts = self.parts.saturating_add(1),
            Event::Data(data) => self.content = self.content.saturating_add(data.len() as u64),
            Event::End | Event::Done => {}
        }
        let large = self.content > self.limit
            || self.bytes > self.limit.saturating_add(FRAME)
            || self.parts > MAX_PARTS;
        if large { Err(Broken::TooLarge) } else { Ok(event) }
    }

    /// The next bytes of the body.
    async fn more(&mut self) -> Result<Option<Bytes>, Broken> {
        let next = self.stream.next().await;
        if let Ok(Some(data)) = next {
            self.bytes = self.bytes.saturating_add(data.len() as u64);
            return Ok(Some(data));
        }
        self.ended = true;
        next.map_err(|BrokenOff| Broken::Gone)
    }

    /// The answer to a form that was not read to its end: the page goes out at once, and what still
    /// comes is read to no use meanwhile. Without that the connection would be reset under the
    /// browser's hands, and the page never shown.
    pub(super) fn answered_by(self, page: Response) -> Response {
        if self.ended {
            return page;
        }
        let (parts, body) = page.into_parts();
        let (until, bounds) = (Instant::now() + REST_TIME, self.bytes.saturating_add(REST));
        let rest = stream::unfold(self, move |mut upload| async move {
            let reading = async {
                while upload.bytes < bounds && matches!(upload.more().await, Ok(Some(_))) {}
            };
            // Late or not, the answer has gone out.
            let _ = timeout_at(until, reading).await;
            None::<(Result<Bytes, axum::Error>, Self)>
        });
        Response::from_parts(parts, Body::from_stream(body.into_data_stream().chain(rest)))
    }
}
