//! Routes of files that are uploaded before their letter, a stretch at a time. Only scripts use them;
//! the form without them brings its files along.

use crate::{
    language::{Text, say},
    portal::{Desk, Fault, form::Form, pages, session::Visitor, show},
    store::Account,
    submission::{Appended, NewUpload, OWN_UPLOADS, Progress, Upload, UploadError},
};
use axum::{
    Extension,
    body::Body,
    extract::{Path, Query, Request, State},
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, CONTENT_TYPE},
    },
    response::{IntoResponse, Redirect, Response},
};
use minijinja::{Value, context};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{collections::BTreeSet, sync::Arc};

/// Content-Type of what scripts are told.
pub(in crate::portal) const JSON: &str = "application/json";
/// The writing form: our own script, which talks to us alone.
const CSP: &str = "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; \
     img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

type Answer = Result<Response, Fault>;

/// `POST /uploads`
#[derive(Debug, Deserialize)]
pub(in crate::portal) struct Begin {
    name: String,
    #[serde(default, rename = "type")]
    kind: String,
    size: u64,
    #[serde(default)]
    mark: String,
}
/// Where a stretch begins.
#[derive(Debug, Deserialize)]
pub(in crate::portal) struct Where {
    offset: Option<u64>,
}
/// JSON of a file.
#[derive(Debug, Serialize)]
struct Told<'a> {
    id: &'a str,
    name: &'a str,
    size: u64,
    mark: &'a str,
    offset: u64,
}
impl<'a> Told<'a> {
    fn of(upload: &'a Upload, progress: Progress) -> Self {
        Self {
            id: upload.id(),
            name: upload.name(),
            size: upload.size(),
            mark: upload.mark(),
            offset: progress.offset,
        }
    }
}

/// `POST /uploads`: begins a file.
pub(in crate::portal) async fn begin(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Form(begin): Form<Begin>,
) -> Answer {
    let Begin { name, kind, size, mark } = &begin;
    let new = NewUpload { name, kind, size: *size, mark };
    match desk.submission.uploads().begin(visitor.signed_in()?, &new).await {
        Ok(upload) => {
            told(StatusCode::CREATED, &Told::of(&upload, Progress { offset: 0, whole: false }))
        }
        Err(UploadError::Vault(error)) => Err(error.into()),
        Err(
            error @ (UploadError::RefusedFile(_)
            | UploadError::TooLarge
            | UploadError::TooMuch
            | UploadError::TooMany
            | UploadError::Full),
        ) => {
            let (status, text) = words(error, desk.settings.max_reply_size);
            problem(&visitor, status, &text)
        }
    }
}

fn words(error: UploadError, largest: u64) -> (StatusCode, Text) {
    let text = match error {
        UploadError::RefusedFile(name) => {
            let text = say!("Files like “{name}” can’t be sent here.", name = name);
            return (StatusCode::UNPROCESSABLE_ENTITY, text);
        }
        UploadError::TooLarge => {
            let size = Text::Size(largest);
            say!("That is too large: {size} at most, all files together.", size = size)
        }
        UploadError::TooMuch => {
            say!("That is too much for one message. Send or remove the other files first.")
        }
        UploadError::TooMany => {
            say!("That is too many files: {count} at most.", count = OWN_UPLOADS)
        }
        UploadError::Full | UploadError::Vault(_) => {
            let text = say!("It could not be taken just now. Please try again in a few minutes.");
            return (StatusCode::SERVICE_UNAVAILABLE, text);
        }
    };
    (StatusCode::PAYLOAD_TOO_LARGE, text)
}

/// `GET /uploads`: how far every file has come.
pub(in crate::portal) async fn list(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
) -> Answer {
    let own = desk.submission.uploads().of(visitor.signed_in()?);
    let all = own.iter().filter_map(|upload| Some(Told::of(upload, upload.progress()?)));
    told(StatusCode::OK, &all.collect::<Vec<_>>())
}

/// `GET /uploads/ID`: how far it has come.
pub(in crate::portal) async fn status(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
) -> Answer {
    let upload = desk.upload(&visitor, &id)?;
    match upload.progress() {
        Some(progress) => told(StatusCode::OK, &Told::of(&upload, progress)),
        None => Ok(StatusCode::CONFLICT.into_response()),
    }
}

/// `POST /uploads/ID?offset=N`: the next stretch. What came of it stays, even if the connection breaks.
pub(in crate::portal) async fn more(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    Query(place): Query<Where>,
    request: Request,
) -> Answer {
    let upload = desk.upload(&visitor, &id)?;
    let offset = place.offset.ok_or(Fault::Status(StatusCode::BAD_REQUEST))?;
    // On a task of its own: a connection that breaks takes the handler with it, and must not take what
    // is on its way to the store.
    let stretch = stretch(Arc::clone(&desk), upload, offset, request.into_body());
    let answer = tokio::spawn(stretch).await;
    answer.map_err(|_| Fault::Work("an upload broke off by a fault of the program"))?
}

async fn stretch(desk: Arc<Desk>, upload: Upload, offset: u64, body: Body) -> Answer {
    let uploads = desk.submission.uploads();
    match uploads.append(&upload, offset, body.into_data_stream()).await? {
        Appended::Taken(progress) => told(StatusCode::OK, &Told::of(&upload, progress)),
        Appended::TooLarge(progress) => {
            told(StatusCode::PAYLOAD_TOO_LARGE, &Told::of(&upload, progress))
        }
        Appended::Elsewhere(progress) => told(StatusCode::CONFLICT, &Told::of(&upload, progress)),
        Appended::InUse => Ok(StatusCode::CONFLICT.into_response()),
        Appended::Busy => Ok(StatusCode::SERVICE_UNAVAILABLE.into_response()),
        Appended::Gone => Err(Fault::Status(StatusCode::NOT_FOUND)),
    }
}

/// Where a form without scripts goes on.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::portal) struct Back {
    back: String,
}

/// `POST /uploads/ID/remove`
pub(in crate::portal) async fn remove(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Form(form): Form<Back>,
) -> Answer {
    let upload = desk.upload(&visitor, &id)?;
    desk.submission.uploads().remove(&upload);
    let page = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    if !page.is_some_and(|accept| accept.contains("text/html")) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let known = form
        .back
        .strip_prefix("/inbox/")
        .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'/'));
    let back = if known { form.back.as_str() } else { "/compose" };
    Ok(Redirect::to(back).into_response())
}

fn told(status: StatusCode, value: &impl Serialize) -> Answer {
    let text = serde_json::to_string(value).map_err(|_| Fault::Work("no JSON"))?;
    Ok((status, [(CONTENT_TYPE, JSON)], text).into_response())
}

/// `GET /assets/upload.js`
pub(in crate::portal) async fn script() -> Response {
    pages::script(include_str!("../assets/upload.js"))
}
/// The writing form may run our script, and that may talk to us.
pub(super) fn with_script(page: Response) -> Response {
    pages::with_policy(page, CSP)
}

fn problem(visitor: &Visitor, status: StatusCode, text: &Text) -> Answer {
    told(status, &json!({ "problem": visitor.language.say(text) }))
}

impl Desk {
    /// Files of the account by these ids, each once; `None` if one is not here.
    pub(super) fn uploads_of(&self, account: &Account, ids: &[String]) -> Option<Vec<Upload>> {
        let mut seen = BTreeSet::new();
        let once = ids.iter().filter(|id| seen.insert(*id));
        once.map(|id| self.submission.uploads().find(account, id)).collect()
    }
    /// Files of the account that are here, as the form offers them. Only those that belong to this
    /// letter are ticked: another may have been begun and given up.
    pub(super) fn waiting(&self, account: &Account, ticked: &[String]) -> Value {
        let line = |upload: Upload| {
            let whole = upload.progress().is_some_and(|progress| progress.whole);
            context! {
                ticked => whole && ticked.iter().any(|id| id == upload.id()),
                whole => whole,
                id => upload.id(),
                name => upload.name(),
                size => show::size(upload.size()),
            }
        };
        self.submission.uploads().of(account).into_iter().map(line).collect()
    }
    fn upload(&self, visitor: &Visitor, id: &str) -> Result<Upload, Fault> {
        let found = self.submission.uploads().find(visitor.signed_in()?, id);
        found.ok_or(Fault::Status(StatusCode::NOT_FOUND))
    }
}
