//! Files that are uploaded ahead of their letter, a stretch at a time: where a connection breaks, the
//! next one goes on from what is here. Only scripts use it; the form without them brings its files
//! along.
//!
//! What is here belongs to an account, in memory and bounded, its content sealed aside on the disk. It
//! goes with its letter, when it is removed, or when nothing has come for a while; a restart forgets
//! it.

use super::{
    send::{Attachment, Stop},
    upload::{Broken, SILENCE},
};
use crate::{
    intake::Incoming,
    language::{Text, say},
    mail::letter::file_name,
    portal::{
        Desk, Fault,
        form::{Errors, Form},
        pages,
        session::Visitor,
        show,
    },
    store::Account,
    vault::{Staged, Staging, VaultError},
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
use futures_util::StreamExt;
use minijinja::{Value, context};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until, timeout_at},
};

/// Files of one account.
const OWN: usize = 50;
/// Files of all, and how many of the largest letters they may be together, in bytes.
const ALL: usize = 500;
const ALL_LETTERS: u64 = 20;
/// How long a whole file waits for its letter.
const KEPT: Duration = Duration::from_secs(3600);
/// How long one that has begun waits for more of it.
const IDLE: Duration = Duration::from_secs(900);
/// Stretches on their way in at one time: of all, and of one account.
const PLACES: usize = 16;
const OWN_PLACES: usize = 2;
/// How long a stretch may take; what came of it stays.
const LONGEST: Duration = Duration::from_secs(600);
/// Content-Type of what scripts are told.
pub(in crate::portal) const JSON: &str = "application/json";
/// The writing form: our own script, which talks to us alone.
const CSP: &str = "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; \
     img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
/// Longest type of a file, and longest mark.
const MAX_KIND: usize = 200;
const MAX_MARK: usize = 100;

type Answer = Result<Response, Fault>;
type Id = String;
/// A file that belongs to a letter.
pub(super) type Ahead = (Id, Arc<Item>);

/// All files that wait.
#[derive(Debug)]
pub(in crate::portal) struct Stage {
    items: Arc<Mutex<HashMap<Id, Arc<Item>>>>,
    places: Semaphore,
}
impl Default for Stage {
    fn default() -> Self {
        Self { items: Arc::default(), places: Semaphore::new(PLACES) }
    }
}

/// One of them. What lies on the disk of it goes when it is dropped.
#[derive(Debug)]
pub(super) struct Item {
    /// The account's [`generation`](Account::generation).
    owner: [u8; 16],
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) size: u64,
    /// What the browser knows the file by, besides name and size, if by anything.
    mark: String,
    until: Mutex<Instant>,
    removed: AtomicBool,
    file: tokio::sync::Mutex<File>,
}
#[derive(Debug)]
enum File {
    Coming(Staging),
    Whole(Staged),
    /// It broke on its way to the store.
    Gone,
}

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
/// What is told of a file.
#[derive(Debug, Serialize)]
struct Told<'a> {
    id: &'a str,
    name: &'a str,
    size: u64,
    mark: &'a str,
    offset: u64,
}
/// Why a file can't be taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Full {
    /// It is larger than a letter may be.
    TooLarge,
    /// With what the account has here, it would be.
    TooMuch,
    /// The account has too many.
    TooMany,
    /// All together have.
    Everybody,
}

impl Item {
    fn new(account: &Account, name: String, begin: &Begin, file: File) -> Self {
        let now = Instant::now();
        Self {
            owner: account.generation,
            name,
            kind: begin.kind.chars().take(MAX_KIND).collect(),
            size: begin.size,
            mark: begin.mark.chars().take(MAX_MARK).collect(),
            until: Mutex::new(now + if begin.size == 0 { KEPT } else { IDLE }),
            removed: AtomicBool::new(false),
            file: tokio::sync::Mutex::new(file),
        }
    }
    fn keep(&self, time: Duration) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + time;
    }
    fn until(&self) -> Instant {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }
    /// The file, while nobody else has it in hand.
    fn file(&self) -> Option<tokio::sync::MutexGuard<'_, File>> {
        self.file.try_lock().ok()
    }
    fn told<'a>(&'a self, id: &'a str, file: &File) -> Told<'a> {
        let offset = match file {
            File::Coming(staging) => staging.size(),
            File::Whole(_) => self.size,
            File::Gone => 0,
        };
        Told { id, name: &self.name, size: self.size, mark: &self.mark, offset }
    }
}

impl Stage {
    fn all(&self) -> MutexGuard<'_, HashMap<Id, Arc<Item>>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// A file of the account.
    fn find(&self, account: &Account, id: &str) -> Option<Arc<Item>> {
        self.all().get(id).filter(|item| item.owner == account.generation).cloned()
    }
    /// All files of the account, by name.
    fn of(&self, owner: [u8; 16]) -> Vec<Ahead> {
        let all = self.all();
        let own = all.iter().filter(|(_, item)| item.owner == owner);
        let mut own: Vec<_> = own.map(|(id, item)| (id.clone(), Arc::clone(item))).collect();
        own.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
        own
    }
    /// Takes a new one in, if there is room.
    fn enter(&self, id: &str, item: &Arc<Item>, largest: u64) -> Result<(), Full> {
        let mut all = self.all();
        let (mut count, mut own, mut bytes) = (0, 0_u64, 0_u64);
        for other in all.values() {
            bytes = bytes.saturating_add(other.size);
            if other.owner == item.owner {
                count += 1;
                own = own.saturating_add(other.size);
            }
        }
        if item.size > largest {
            return Err(Full::TooLarge);
        }
        if own.saturating_add(item.size) > largest {
            return Err(Full::TooMuch);
        }
        if count >= OWN {
            return Err(Full::TooMany);
        }
        let bound = largest.saturating_mul(ALL_LETTERS);
        if all.len() >= ALL || bytes.saturating_add(item.size) > bound {
            return Err(Full::Everybody);
        }
        all.insert(id.to_owned(), Arc::clone(item));
        drop(all);
        self.watch(id.to_owned(), item);
        Ok(())
    }
    /// Who has it in hand drops it last.
    fn remove(&self, id: &str) {
        if let Some(item) = self.all().remove(id) {
            item.removed.store(true, Ordering::Release);
        }
    }
    /// Removes it once nothing has come of it for long enough.
    fn watch(&self, id: Id, item: &Arc<Item>) {
        let (items, item) = (Arc::clone(&self.items), Arc::downgrade(item));
        tokio::spawn(async move {
            while let Some(until) = item.upgrade().map(|item| item.until()) {
                if until <= Instant::now() {
                    items.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                    return;
                }
                sleep_until(until).await;
            }
        });
    }
}

/// `POST /uploads`: begins a file.
pub(in crate::portal) async fn begin(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Form(begin): Form<Begin>,
) -> Answer {
    let account = visitor.signed_in()?;
    let name = file_name(&begin.name);
    if desk.refused(&name) {
        let text = say!("Files like “{name}” can’t be sent here.", name = name);
        return problem(&visitor, StatusCode::UNPROCESSABLE_ENTITY, &text);
    }
    let staging = desk.vault.stage().await?;
    let file =
        if begin.size == 0 { File::Whole(staging.end().await?) } else { File::Coming(staging) };
    let item = Arc::new(Item::new(account, name, &begin, file));
    let id = format!("{:032x}", rand::random::<u128>());
    let largest = desk.settings.max_reply_size;
    match desk.stage.enter(&id, &item, largest) {
        Ok(()) => told(StatusCode::CREATED, &Told { offset: 0, ..item.told(&id, &File::Gone) }),
        Err(full) => {
            let (status, text) = words(full, largest);
            problem(&visitor, status, &text)
        }
    }
}

fn words(full: Full, largest: u64) -> (StatusCode, Text) {
    let size = Text::Size(largest);
    match full {
        Full::TooLarge => (
            StatusCode::PAYLOAD_TOO_LARGE,
            say!("That is too large: {size} at most, all files together.", size = size),
        ),
        Full::TooMuch => (
            StatusCode::PAYLOAD_TOO_LARGE,
            say!("That is too much for one message. Send or remove the other files first."),
        ),
        Full::TooMany => (
            StatusCode::PAYLOAD_TOO_LARGE,
            say!("That is too many files: {count} at most.", count = OWN),
        ),
        Full::Everybody => (
            StatusCode::SERVICE_UNAVAILABLE,
            say!("It could not be taken just now. Please try again in a few minutes."),
        ),
    }
}

/// `GET /uploads`: what has come so far, of every file.
pub(in crate::portal) async fn list(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
) -> Answer {
    let own = desk.stage.of(visitor.signed_in()?.generation);
    let all = own.iter().filter_map(|(id, item)| Some(item.told(id, &*item.file()?)));
    told(StatusCode::OK, &all.collect::<Vec<_>>())
}

/// `GET /uploads/ID`: what has come so far.
pub(in crate::portal) async fn status(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
) -> Answer {
    let item = desk.staged(&visitor, &id)?;
    let Some(file) = item.file() else { return Ok(StatusCode::CONFLICT.into_response()) };
    told(StatusCode::OK, &item.told(&id, &file))
}

/// `POST /uploads/ID?offset=N`: the next stretch. What came of it stays, even if the connection breaks.
pub(in crate::portal) async fn more(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    Query(place): Query<Where>,
    request: Request,
) -> Answer {
    let item = desk.staged(&visitor, &id)?;
    let offset = place.offset.ok_or(Fault::Status(StatusCode::BAD_REQUEST))?;
    // On a task of its own: a connection that breaks takes the handler with it, and must not take what
    // is on its way to the store.
    let stretch = stretch(Arc::clone(&desk), id, item, offset, request.into_body());
    let answer = tokio::spawn(stretch).await;
    answer.map_err(|_| Fault::Work("an upload broke off by a fault of the program"))?
}

async fn stretch(desk: Arc<Desk>, id: Id, item: Arc<Item>, offset: u64, body: Body) -> Answer {
    let busy = || Ok(StatusCode::SERVICE_UNAVAILABLE.into_response());
    let Ok(_place) = desk.stage.places.try_acquire() else { return busy() };
    let Some(mut file) = item.file() else { return Ok(StatusCode::CONFLICT.into_response()) };
    let own = desk.stage.of(item.owner);
    if own.iter().filter(|(_, other)| other.file().is_none()).count() > OWN_PLACES {
        return busy();
    }
    let staging = match &mut *file {
        File::Coming(staging) if staging.size() == offset => staging,
        File::Coming(_) | File::Whole(_) => {
            return told(StatusCode::CONFLICT, &item.told(&id, &file));
        }
        File::Gone => return Err(Fault::Status(StatusCode::NOT_FOUND)),
    };
    let mut came = append(&item, staging, body).await;
    if came.is_ok() && staging.size() == item.size {
        item.keep(KEPT);
        came = end(&mut file).await.map(|()| None);
    }
    match came {
        Ok(None) => told(StatusCode::OK, &item.told(&id, &file)),
        Ok(Some(Broken::TooLarge)) => told(StatusCode::PAYLOAD_TOO_LARGE, &item.told(&id, &file)),
        Ok(Some(Broken::Late | Broken::Malformed | Broken::Gone)) => {
            told(StatusCode::OK, &item.told(&id, &file))
        }
        // There is nothing to go on with: the browser begins anew.
        Err(error) => {
            *file = File::Gone;
            desk.stage.remove(&id);
            Err(error.into())
        }
    }
}

async fn end(file: &mut File) -> Result<(), VaultError> {
    if let File::Coming(staging) = std::mem::replace(file, File::Gone) {
        *file = File::Whole(staging.end().await?);
    }
    Ok(())
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
    desk.staged(&visitor, &id)?;
    desk.stage.remove(&id);
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

/// Takes what comes, up to the file's end; what broke it off, if anything did.
async fn append(
    item: &Item,
    staging: &mut Staging,
    body: Body,
) -> Result<Option<Broken>, VaultError> {
    let (mut stream, until) = (body.into_data_stream(), Instant::now() + LONGEST);
    let broken = loop {
        let silence = Instant::now() + SILENCE;
        let piece = match timeout_at(silence.min(until), stream.next()).await {
            Ok(Some(Ok(piece))) => piece,
            Ok(None) => break None,
            Ok(Some(Err(_))) | Err(_) => break Some(Broken::Gone),
        };
        if item.is_removed() {
            break Some(Broken::Gone);
        }
        if staging.size().saturating_add(piece.len() as u64) > item.size {
            break Some(Broken::TooLarge);
        }
        staging.write(&piece).await?;
        item.keep(IDLE);
    };
    staging.rest().await?;
    Ok(broken)
}

fn not_here() -> Stop {
    let text = say!("A file that you uploaded is no longer here. Please choose it again.");
    Stop::Wrong(Errors::of("files", text))
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
    /// Files that came ahead of a letter.
    pub(super) fn ahead(&self, visitor: &Visitor, ids: &[Id]) -> Result<Vec<Ahead>, Stop> {
        let account = visitor.signed_in().map_err(Stop::Fault)?;
        let mut seen = BTreeSet::new();
        let once = ids.iter().filter(|id| seen.insert(*id));
        let found: Option<Vec<_>> =
            once.map(|id| Some((id.clone(), self.stage.find(account, id)?))).collect();
        found.ok_or_else(not_here)
    }
    /// Writes one of them into the letter.
    pub(super) async fn attach_staged(
        &self,
        incoming: &mut Incoming,
        item: &Item,
    ) -> Result<(), Stop> {
        let Some(file) = item.file() else { return Err(not_here()) };
        let File::Whole(staged) = &*file else { return Err(not_here()) };
        let mut attachment = Attachment::to(incoming);
        let mut content = self.vault.read_staged(staged)?;
        while let Some(piece) = content.next().await? {
            attachment.write(&piece).await?;
        }
        Ok(attachment.end().await?)
    }
    /// They are in a letter now.
    pub(super) fn used_up(&self, ahead: &[Ahead]) {
        ahead.iter().for_each(|(id, _)| self.stage.remove(id));
    }
    /// Files of the account that are here, as the form offers them. Only those that belong to this
    /// letter are ticked: another may have been begun and given up.
    pub(super) fn waiting(&self, account: &Account, ticked: &[Id]) -> Value {
        let line = |(id, item): Ahead| {
            let whole = item.file().is_some_and(|file| matches!(&*file, File::Whole(_)));
            context! {
                ticked => whole && ticked.contains(&id),
                whole => whole,
                id => id,
                name => &item.name,
                size => show::size(item.size),
            }
        };
        self.stage.of(account.generation).into_iter().map(line).collect()
    }
    fn staged(&self, visitor: &Visitor, id: &str) -> Result<Arc<Item>, Fault> {
        let found = self.stage.find(visitor.signed_in()?, id);
        found.ok_or(Fault::Status(StatusCode::NOT_FOUND))
    }
}
