//! Files that are uploaded ahead of their letter, a stretch at a time: where a connection breaks, the
//! next one goes on from what is here. Only scripts use it; the form without them brings its files
//! along.
//!
//! What is here belongs to an account, in memory and bounded, its content sealed on the disk. It goes
//! with its letter, when it is removed, or when nothing has come for an hour; a restart forgets it.

use super::{
    send::Stop,
    upload::{Broken, SILENCE},
};
use crate::{
    intake::Incoming,
    language::say,
    mail::letter::{Base64Lines, file_name},
    portal::{
        Desk, Fault,
        form::{Errors, Form},
        session::Visitor,
        show,
    },
    store::Account,
    vault::{Staged, Staging, Vault, VaultError},
};
use axum::{
    Extension,
    body::Body,
    extract::{Path, Query, Request, State},
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;
use minijinja::{Value, context};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep_until, timeout};

/// Files of one account, and of all.
const OWN: usize = 50;
const ALL: usize = 500;
/// How long a file waits for more of it, or for its letter.
const IDLE: Duration = Duration::from_secs(3600);
/// Content-Type of what scripts are told.
pub(in crate::portal) const JSON: &str = "application/json";
/// The writing form: our own script, which talks to us alone.
const CSP: &str = "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; \
     img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
/// Longest type of a file.
const MAX_KIND: usize = 200;

type Answer = Result<Response, Fault>;
type Id = String;
/// A file that belongs to a letter.
pub(super) type Ahead = (Id, Arc<Item>);

/// All files that wait.
#[derive(Debug, Clone, Default)]
pub(in crate::portal) struct Stage(Arc<Mutex<HashMap<Id, Arc<Item>>>>);

/// One of them.
#[derive(Debug)]
pub(super) struct Item {
    /// The account's [`generation`](Account::generation).
    owner: [u8; 16],
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) size: u64,
    used: Mutex<Instant>,
    file: tokio::sync::Mutex<File>,
}
#[derive(Debug)]
enum File {
    Coming(Staging),
    Whole(Staged),
    /// Removed, gone with its letter, or broken on its way to the store.
    Gone,
}

/// `POST /uploads`
#[derive(Debug, Deserialize)]
pub(in crate::portal) struct Begin {
    name: String,
    #[serde(default, rename = "type")]
    kind: String,
    size: u64,
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
    offset: u64,
}

impl Item {
    fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
    fn until(&self) -> Instant {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) + IDLE
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
        Told { id, name: &self.name, size: self.size, offset }
    }
}

impl Stage {
    fn all(&self) -> MutexGuard<'_, HashMap<Id, Arc<Item>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// A file of the account.
    pub(super) fn find(&self, account: &Account, id: &str) -> Option<Arc<Item>> {
        self.all().get(id).filter(|item| item.owner == account.generation).cloned()
    }
    /// All files of the account that nobody has in hand.
    pub(super) fn of(&self, account: &Account) -> Vec<(Id, Arc<Item>)> {
        let all = self.all();
        let own = all.iter().filter(|(_, item)| item.owner == account.generation);
        let mut own: Vec<_> = own.map(|(id, item)| (id.clone(), Arc::clone(item))).collect();
        own.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
        own
    }
    /// Takes a new one in, if there is room: in number, and with all others of the account within the
    /// size of one letter.
    fn enter(&self, id: &str, item: &Arc<Item>, largest: u64) -> bool {
        let mut all = self.all();
        let own = || all.values().filter(|other| other.owner == item.owner);
        let bytes: u64 = own().map(|other| other.size).sum();
        let fits = all.len() < ALL && own().count() < OWN;
        if !fits || bytes.saturating_add(item.size) > largest {
            return false;
        }
        all.insert(id.to_owned(), Arc::clone(item));
        true
    }
    /// Removes it; what is whole is destroyed.
    pub(super) async fn remove(&self, vault: &Vault, id: &str) -> Result<(), VaultError> {
        let Some(item) = self.all().remove(id) else { return Ok(()) };
        let file = std::mem::replace(&mut *item.file.lock().await, File::Gone);
        match file {
            File::Whole(staged) => vault.discard(staged).await,
            File::Coming(_) | File::Gone => Ok(()),
        }
    }
    /// Removes it once nothing has been heard of it for long enough.
    fn watch(&self, vault: Vault, id: Id, item: &Arc<Item>) {
        let (stage, item) = (self.clone(), Arc::downgrade(item));
        tokio::spawn(async move {
            while let Some(until) = item.upgrade().map(|item| item.until()) {
                if until <= Instant::now() {
                    if let Err(error) = stage.remove(&vault, &id).await {
                        tracing::warn!(%error, "an upload that nobody sent was not removed");
                    }
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
    let words = |text| visitor.language.say(&text);
    if desk.refused(&name) {
        let text = words(say!("Files like “{name}” can’t be sent here.", name = name));
        return told(StatusCode::UNPROCESSABLE_ENTITY, &json!({ "problem": text }));
    }
    let staging = desk.vault.stage()?;
    let file =
        if begin.size == 0 { File::Whole(staging.end().await?) } else { File::Coming(staging) };
    let item = Arc::new(Item {
        owner: account.generation,
        name,
        kind: begin.kind.chars().take(MAX_KIND).collect(),
        size: begin.size,
        used: Mutex::new(Instant::now()),
        file: tokio::sync::Mutex::new(file),
    });
    let id = format!("{:032x}", rand::random::<u128>());
    if !desk.stage.enter(&id, &item, desk.settings.max_reply_size) {
        let text =
            words(say!("That is too much for one message. Send or remove the other files first."));
        return told(StatusCode::PAYLOAD_TOO_LARGE, &json!({ "problem": text }));
    }
    desk.stage.watch(desk.vault.clone(), id.clone(), &item);
    told(StatusCode::CREATED, &Told { id: &id, name: &item.name, size: item.size, offset: 0 })
}

/// `GET /uploads`: what has come so far, of every file.
pub(in crate::portal) async fn list(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
) -> Answer {
    let own = desk.stage.of(visitor.signed_in()?);
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
    let Ok(_place) = desk.uploads.try_acquire() else {
        return Ok(StatusCode::SERVICE_UNAVAILABLE.into_response());
    };
    let Some(mut file) = item.file() else { return Ok(StatusCode::CONFLICT.into_response()) };
    let staging = match &mut *file {
        File::Coming(staging) if staging.size() == offset => staging,
        File::Coming(_) | File::Whole(_) | File::Gone => {
            return told(StatusCode::CONFLICT, &item.told(&id, &file));
        }
    };
    let came = append(&item, staging, body).await;
    let whole = staging.size() == item.size;
    if let Err(Stretch::Fault(error)) = came {
        drop(file);
        desk.stage.remove(&desk.vault, &id).await?;
        return Err(error.into());
    }
    if whole && let File::Coming(staging) = std::mem::replace(&mut *file, File::Gone) {
        *file = File::Whole(staging.end().await?);
    }
    let status = match came {
        Err(Stretch::Broken(Broken::TooLarge)) => StatusCode::PAYLOAD_TOO_LARGE,
        Ok(()) | Err(Stretch::Broken(_) | Stretch::Fault(_)) => StatusCode::OK,
    };
    told(status, &item.told(&id, &file))
}

/// `POST /uploads/ID/remove`
pub(in crate::portal) async fn remove(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
) -> Answer {
    desk.staged(&visitor, &id)?;
    desk.stage.remove(&desk.vault, &id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Why a stretch ended early.
enum Stretch {
    Broken(Broken),
    Fault(VaultError),
}

async fn append(item: &Item, staging: &mut Staging, body: Body) -> Result<(), Stretch> {
    let mut stream = body.into_data_stream();
    let ended = loop {
        let piece = match timeout(SILENCE, stream.next()).await {
            Ok(Some(Ok(piece))) => piece,
            Ok(None) => break Ok(()),
            Ok(Some(Err(_))) | Err(_) => break Err(Stretch::Broken(Broken::Gone)),
        };
        if staging.size().saturating_add(piece.len() as u64) > item.size {
            break Err(Stretch::Broken(Broken::TooLarge));
        }
        staging.write(&piece).await.map_err(Stretch::Fault)?;
        item.touch();
    };
    staging.rest().await.map_err(Stretch::Fault)?;
    ended
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
    let text = include_str!("../assets/upload.js");
    ([(CONTENT_TYPE, "text/javascript; charset=utf-8")], text).into_response()
}
/// The writing form may run our script, and that may talk to us.
pub(super) fn with_script(mut page: Response) -> Response {
    page.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(CSP));
    page
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
        item.touch();
        let (mut lines, mut out) = (Base64Lines::default(), Vec::new());
        let mut content = self.vault.read_staged(staged).await?;
        while let Some(piece) = content.next().await? {
            lines.feed(&piece, &mut out);
            incoming.write(&out).await?;
            out.clear();
        }
        lines.finish(&mut out);
        Ok(incoming.write(&out).await?)
    }
    /// They are in a letter now.
    pub(super) async fn used_up(&self, ahead: &[Ahead]) {
        for (id, _) in ahead {
            if let Err(error) = self.stage.remove(&self.vault, id).await {
                tracing::warn!(%error, "an upload that was sent was not removed");
            }
        }
    }
    /// Whole files of the account, as the form offers them. Only those that belong to this letter are
    /// ticked: another may have been begun and given up.
    pub(super) fn waiting(&self, account: &Account, ticked: &[Id]) -> Value {
        let own = self.stage.of(account).into_iter();
        let whole = own
            .filter(|(_, item)| item.file().is_some_and(|file| matches!(&*file, File::Whole(_))));
        let line = |(id, item): (Id, Arc<Item>)| {
            let size = show::size(item.size);
            context! { ticked => ticked.contains(&id), id => id, name => &item.name, size => size }
        };
        whole.map(line).collect()
    }
    fn staged(&self, visitor: &Visitor, id: &str) -> Result<Arc<Item>, Fault> {
        let found = self.stage.find(visitor.signed_in()?, id);
        let item = found.ok_or(Fault::Status(StatusCode::NOT_FOUND))?;
        item.touch();
        Ok(item)
    }
}
