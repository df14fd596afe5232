//! The writing form: shown, filled in, checked, and sent.

use super::{
    Origin,
    upload::{Broken, Draft as Typed, Upload},
    uploads,
};
use crate::{
    intake::Refusal,
    language::{Text, say},
    mail::{
        Address, GrantId,
        header::Fields,
        letter::{MAX_SUBJECT, Priority, file_name, forward_subject, quoted, reply_subject},
    },
    portal::{Desk, Fault, form::Errors, pages::retry_after, session::Visitor, show},
    store::{Account, AuditKind},
    submission::{
        Author, Draft, Enclosed, Forwarded, MAX_RECIPIENTS, RecipientsError, SubmissionError,
    },
};
use axum::{
    Extension,
    extract::{Path, Query, Request, State},
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use minijinja::{Value, context};
use serde::Deserialize;
use std::sync::Arc;

type Answer = Result<Response, Fault>;

/// Characters of the original that are quoted.
const MAX_QUOTE: usize = 20_000;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Reply,
    Forward,
    Compose,
}

/// Why a form leads back to itself.
#[derive(Debug)]
enum Stop {
    /// Something in the form.
    Wrong(Errors),
    /// The form itself.
    Broken(Broken),
    /// The letter was not sent.
    Unsent(SubmissionError),
    /// Our own trouble.
    Fault(Fault),
}
impl From<Broken> for Stop {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}
impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}
impl From<SubmissionError> for Stop {
    fn from(error: SubmissionError) -> Self {
        match error {
            SubmissionError::Vault(error) => Self::Fault(error.into()),
            SubmissionError::TooLarge => Self::Broken(Broken::TooLarge),
            SubmissionError::Quota(_)
            | SubmissionError::Busy
            | SubmissionError::RefusedFile(_)
            | SubmissionError::UploadGone
            | SubmissionError::Refused(_) => Self::Unsent(error),
        }
    }
}

/// How a reply begins: `?all=yes` for one to all.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::portal) struct How {
    all: String,
}

/// `GET /inbox/ID/reply`
pub(in crate::portal) async fn reply_form(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    Query(how): Query<How>,
) -> Answer {
    let origin = desk.origin(desk.leave(&visitor, &id).await?).await?;
    let draft = Typed { all: !how.all.is_empty(), ..Typed::default() };
    desk.fresh_form(&visitor, Kind::Reply, Some(&origin), &draft).await
}

/// `GET /inbox/ID/forward`
pub(in crate::portal) async fn forward_form(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
) -> Answer {
    let origin = desk.origin(desk.leave(&visitor, &id).await?).await?;
    desk.fresh_form(&visitor, Kind::Forward, Some(&origin), &Typed::default()).await
}

/// `GET /compose`
pub(in crate::portal) async fn compose_form(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
) -> Answer {
    desk.fresh_form(&visitor, Kind::Compose, None, &Typed::default()).await
}

/// `POST /inbox/ID/reply`
pub(in crate::portal) async fn reply(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    request: Request,
) -> Answer {
    let origin = desk.origin(desk.leave(&visitor, &id).await?).await?;
    desk.written(&visitor, Kind::Reply, Some(&origin), request).await
}

/// `POST /inbox/ID/forward`
pub(in crate::portal) async fn forward(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    request: Request,
) -> Answer {
    let origin = desk.origin(desk.leave(&visitor, &id).await?).await?;
    desk.written(&visitor, Kind::Forward, Some(&origin), request).await
}

/// `POST /compose`
pub(in crate::portal) async fn compose(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    request: Request,
) -> Answer {
    desk.written(&visitor, Kind::Compose, None, request).await
}

/// A letter without a session: what was typed is given back, so that it is not lost. `request` brings no
/// more of it than is read without a session.
pub(in crate::portal) async fn given_back(
    desk: &Desk,
    visitor: &Visitor,
    request: Request,
) -> Answer {
    let mut upload = Upload::of(request, desk.settings.max_reply_size)?;
    // What does not come whole is given back as far as it came.
    let _ = upload.fields().await;
    if upload.draft.body.trim().is_empty() {
        return Err(Fault::Status(StatusCode::UNAUTHORIZED));
    }
    let (values, title) = (context! { body => &upload.draft.body }, say!("Please sign in again"));
    let status = StatusCode::UNAUTHORIZED;
    desk.pages.answer(status, "given-back.html", title, visitor, values)
}

impl Desk {
    async fn fresh_form(
        &self,
        visitor: &Visitor,
        kind: Kind,
        origin: Option<&Origin>,
        draft: &Typed,
    ) -> Answer {
        self.write_page(StatusCode::OK, visitor, kind, (origin, draft), &Errors::default()).await
    }

    /// Takes a form in. Whatever keeps it from being sent leads back to the form, as it was typed.
    async fn written(
        &self,
        visitor: &Visitor,
        kind: Kind,
        origin: Option<&Origin>,
        request: Request,
    ) -> Answer {
        let mut upload = Upload::of(request, self.settings.max_reply_size)?;
        match self.take(visitor, kind, origin, &mut upload).await {
            Ok(own) => Ok(Redirect::to(&format!("/inbox/{own}")).into_response()),
            Err(Stop::Fault(fault)) => Err(fault),
            Err(stop) => {
                let (status, errors, wait) = self.words(stop);
                let shown = (origin, &upload.draft);
                let mut page = self.write_page(status, visitor, kind, shown, &errors).await?;
                if let Some(seconds) = wait {
                    page = retry_after(page, seconds);
                }
                Ok(upload.answered_by(page))
            }
        }
    }

    async fn take(
        &self,
        visitor: &Visitor,
        kind: Kind,
        origin: Option<&Origin>,
        upload: &mut Upload,
    ) -> Result<GrantId, Stop> {
        let account = visitor.signed_in()?;
        let with_files = upload.fields().await?;
        let typed = upload.draft.clone();
        let mut draft = self.draft(account, kind, origin, &typed).await?;
        let ahead = self.uploads_of(account, &typed.uploads);
        draft.uploads = ahead.ok_or(SubmissionError::UploadGone)?;
        upload.came_ahead(draft.uploads.iter().map(|file| file.size()).sum())?;
        let bare = !with_files && draft.forwarded.is_none() && draft.uploads.is_empty();
        if bare && draft.text.trim().is_empty() {
            let text = say!("Write something, or choose a file.");
            return Err(Stop::Wrong(Errors::of("body", text)));
        }
        if let Some(origin) = origin {
            draft.text += &self.below(visitor, kind, origin, typed.quote).await?;
        }
        let admitted = self.submission.admit(&draft, account)?;
        let enclosed = if with_files { Some(self.enclosed(account, upload).await?) } else { None };
        let author = Author { account, client: visitor.client };
        let own = self.submission.send(admitted, author, &draft, enclosed).await?;
        self.wrote(visitor, kind, origin, own).await;
        Ok(own)
    }

    /// Records what was written. What is answered or forwarded was read. The letter has gone, so
    /// trouble here is logged only.
    async fn wrote(&self, visitor: &Visitor, kind: Kind, origin: Option<&Origin>, own: GrantId) {
        if let Some(origin) = origin
            && let Err(error) = self.vault.opened(&origin.access).await
        {
            tracing::error!(%error, "portal: an opening was not noted");
        }
        let kind = match kind {
            Kind::Reply => AuditKind::Replied,
            Kind::Forward => AuditKind::Forwarded,
            Kind::Compose => AuditKind::Composed,
        };
        let grant = origin.map_or(own, |origin| origin.grant().id);
        self.audit.record(self.event(kind, visitor).grant(grant)).await;
    }

    /// The files of a form, until it has ended.
    async fn enclosed(&self, account: &Account, upload: &mut Upload) -> Result<Enclosed, Stop> {
        let mut files = self.submission.enclose(account).await?;
        while let Some(file) = upload.file().await? {
            files.file(&file.name, &file.kind)?;
            while let Some(piece) = upload.piece().await? {
                files.write(&piece).await?;
            }
        }
        Ok(files.end().await?)
    }

    /// The letter that a form describes, without its files; or what is wrong with it.
    async fn draft<'a>(
        &self,
        account: &Account,
        kind: Kind,
        origin: Option<&'a Origin>,
        typed: &Typed,
    ) -> Result<Draft<'a>, Stop> {
        let mut errors = Errors::default();
        let recipients = match (kind, origin) {
            (Kind::Reply, Some(origin)) => {
                self.submission.reply(account, &origin.answered()).into_recipients(typed.all)
            }
            (Kind::Forward, _) => self.submission.forward(&typed.to),
            (Kind::Reply | Kind::Compose, _) => {
                self.submission.compose(account, &typed.to).await.map_err(Fault::from)?
            }
        };
        let recipients = recipients.map_err(|error| {
            errors.add("to", self.words_of_recipients(kind, &error));
        });
        let filled = filled_subject(kind, origin);
        let subject = typed.subject.as_deref().map(str::trim).filter(|s| !s.is_empty());
        let subject = subject.map_or(filled, str::to_owned);
        if subject.chars().count() > MAX_SUBJECT {
            errors.add("subject", say!("Use at most {count} characters.", count = MAX_SUBJECT));
        }
        let recipients = match recipients {
            Ok(recipients) if errors.none() => recipients,
            Ok(_) | Err(()) => return Err(Stop::Wrong(errors)),
        };
        let forwarded = origin.filter(|_| kind == Kind::Forward).map(|origin| Forwarded {
            access: &origin.access,
            size: origin.row.size,
            name: file_of(origin),
        });
        Ok(Draft {
            recipients,
            subject,
            text: typed.body.clone(),
            priority: priority(&typed.priority),
            references: origin.map(references).unwrap_or_default(),
            forwarded,
            uploads: Vec::new(),
        })
    }

    fn words_of_recipients(&self, kind: Kind, error: &RecipientsError) -> Text {
        let organization = self.settings.organization.clone();
        let domains: Vec<_> = self.settings.domains.iter().map(|d| format!("@{d}")).collect();
        let domains = domains.join(", ");
        match error {
            RecipientsError::NoAddress(text) => say!(
                "“{text}” is not an e-mail address. Write it like name@example.org.",
                text = text.clone()
            ),
            RecipientsError::TooMany => {
                say!("That is too many addresses: {count} at most.", count = MAX_RECIPIENTS)
            }
            RecipientsError::Empty if kind == Kind::Reply => {
                say!("There is nobody who could get an answer to this message.")
            }
            RecipientsError::Empty => say!("Write whom it is for."),
            RecipientsError::Stranger(address) => say!(
                "{address} is not an address of {organization} ({domains}), and has not written \
                 to you. From here you can write only to them.",
                address = address.to_string(),
                organization = organization,
                domains = domains
            ),
            RecipientsError::NotInside(address) => say!(
                "{address} is not an address of {organization} ({domains}). This message can be \
                 forwarded only to their own people.",
                address = address.to_string(),
                organization = organization,
                domains = domains
            ),
        }
    }

    /// What stands below the typed text: a quotation where it was asked for; above what is
    /// forwarded, what it is.
    async fn below(
        &self,
        visitor: &Visitor,
        kind: Kind,
        origin: &Origin,
        quote: bool,
    ) -> Result<String, Fault> {
        let heading = origin.heading();
        let (language, date) = (&visitor.language, Text::Moment(origin.row.facts.arrived));
        let text = if quote {
            self.readable(&origin.access, &origin.index).await?.0
        } else {
            String::new()
        };
        let text: String = text.chars().take(MAX_QUOTE).collect();
        Ok(match kind {
            Kind::Reply | Kind::Compose if text.trim().is_empty() => String::new(),
            Kind::Reply | Kind::Compose => {
                let head = say!("On {date}, {name} wrote:", date = date, name = heading.from);
                format!("\n\n{}\n{}", language.say(&head), quoted(&text))
            }
            Kind::Forward => {
                let lines = [
                    say!("---------- Forwarded message ----------"),
                    say!("From: {name}", name = heading.from.clone()),
                    say!("Date: {date}", date = date),
                    say!("Subject: {subject}", subject = heading.shown()),
                    say!("To: {addresses}", addresses = origin.addressed()),
                ];
                let head = lines.map(|line| language.say(&line)).join("\n");
                let note = say!("The message itself is attached, with all of its files.");
                format!("\n\n{head}\n\n{}\n{}", language.say(&note), quoted(&text))
            }
        })
    }

    async fn write_page(
        &self,
        status: StatusCode,
        visitor: &Visitor,
        kind: Kind,
        (origin, draft): (Option<&Origin>, &Typed),
        errors: &Errors,
    ) -> Answer {
        let account = visitor.signed_in()?;
        let (title, action) = match (kind, origin) {
            (Kind::Reply, Some(origin)) => {
                (say!("Reply"), format!("/inbox/{}/reply", origin.grant().id))
            }
            (Kind::Forward, Some(origin)) => {
                (say!("Forward"), format!("/inbox/{}/forward", origin.grant().id))
            }
            (Kind::Reply | Kind::Forward | Kind::Compose, _) => {
                (say!("Write a message"), "/compose".to_owned())
            }
        };
        let (fixed, others) = match origin.filter(|_| kind == Kind::Reply) {
            Some(origin) => {
                let reply = self.submission.reply(account, &origin.answered());
                (reply.to, reply.others)
            }
            None => (Vec::new(), Vec::new()),
        };
        let suggestions = self.suggestions(account, kind).await?;
        let subject = draft.subject.clone().unwrap_or_else(|| filled_subject(kind, origin));
        let values = context! {
            tab => if kind == Kind::Compose { "compose" } else { "" },
            action => action,
            title => Value::from(title.clone()),
            fixed => kind == Kind::Reply,
            to => if kind == Kind::Reply { list(&fixed) } else { draft.to.clone() },
            others => list(&others),
            all => draft.all && !others.is_empty(),
            subject => subject,
            body => &draft.body,
            priority => draft.priority.as_str(),
            quote => draft.quote,
            can_quote => origin.is_some(),
            back => origin.map(|origin| origin.grant().id.to_string()).unwrap_or_default(),
            about => Value::from(origin.map(|o| o.heading().shown()).unwrap_or_default()),
            forwarding => kind == Kind::Forward,
            suggestions => suggestions,
            staged => self.waiting(account, &draft.uploads),
            limit => show::size(self.settings.max_reply_size),
            files_lost => status != StatusCode::OK,
            errors => errors.to_value(),
        };
        let page = self.pages.answer(status, "write.html", title, visitor, values)?;
        Ok(uploads::with_script(page))
    }

    /// Addresses that the form offers.
    async fn suggestions(&self, account: &Account, kind: Kind) -> Result<Value, Fault> {
        if kind == Kind::Reply {
            return Ok(Value::from(Vec::<Value>::new()));
        }
        let known = self.submission.correspondents(account).await?;
        let all = kind == Kind::Compose;
        let offered = known.into_iter().filter(|(a, _)| all || self.submission.is_inside(a));
        let line = |(address, name): (Address, String)| context! { address => address.to_string(), name => name };
        Ok(offered.map(line).collect())
    }

    /// Status, words and seconds to wait of what kept a letter from being sent.
    fn words(&self, stop: Stop) -> (StatusCode, Errors, Option<i64>) {
        let unprocessable = StatusCode::UNPROCESSABLE_ENTITY;
        let (status, field, text) = match stop {
            Stop::Wrong(errors) => return (unprocessable, errors, None),
            Stop::Unsent(error) => return words_of(error),
            Stop::Broken(Broken::TooLarge) => {
                let limit = Text::Size(self.settings.max_reply_size);
                let text =
                    say!("That is too large: {size} at most, all files together.", size = limit);
                return (StatusCode::PAYLOAD_TOO_LARGE, Errors::of("files", text), None);
            }
            Stop::Broken(Broken::Late) => (
                unprocessable,
                "files",
                say!("The files came before the text. Please send it again."),
            ),
            Stop::Broken(Broken::Malformed | Broken::Gone) => (
                StatusCode::BAD_REQUEST,
                "",
                say!("It did not arrive whole. Please send it again."),
            ),
            Stop::Fault(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "", say!("Please try again later."))
            }
        };
        (status, Errors::of(field, text), None)
    }
}

fn words_of(error: SubmissionError) -> (StatusCode, Errors, Option<i64>) {
    let unprocessable = StatusCode::UNPROCESSABLE_ENTITY;
    let (status, field, text) = match error {
        SubmissionError::Quota(wait) => {
            let seconds = wait.as_secs().max(1);
            let text = say!(
                "You have sent a great deal. Please wait {wait}, then send this again.",
                wait = Text::Wait(seconds)
            );
            return (StatusCode::TOO_MANY_REQUESTS, Errors::of("", text), Some(seconds));
        }
        SubmissionError::RefusedFile(name) => {
            let name: String = file_name(&name).chars().take(100).collect();
            let text = say!(
                "Files like “{name}” can’t be sent here. Leave it out, and choose the others again.",
                name = name
            );
            (unprocessable, "files", text)
        }
        SubmissionError::UploadGone => (
            unprocessable,
            "files",
            say!("A file that you uploaded is no longer here. Please choose it again."),
        ),
        SubmissionError::Refused(Refusal::Rule | Refusal::Loop | Refusal::Pickup) => (
            unprocessable,
            "",
            say!(
                "This message is not allowed by the rules for messages here. Change it, or ask \
                 at the address below."
            ),
        ),
        SubmissionError::Busy
        | SubmissionError::TooLarge
        | SubmissionError::Vault(_)
        | SubmissionError::Refused(Refusal::Busy | Refusal::Full | Refusal::NotStored) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "",
            say!("It could not be taken just now. Please try again in a few minutes."),
        ),
    };
    (status, Errors::of(field, text), None)
}

fn list(addresses: &[Address]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn priority(text: &str) -> Priority {
    match text.trim().to_ascii_lowercase().as_str() {
        "high" | "1" | "urgent" => Priority::High,
        "low" | "5" => Priority::Low,
        _ => Priority::Normal,
    }
}

/// The subject that the form is filled in with.
fn filled_subject(kind: Kind, origin: Option<&Origin>) -> String {
    let Some(origin) = origin else { return String::new() };
    let subject = origin.heading().subject;
    let subject = match kind {
        Kind::Reply => reply_subject(&subject),
        Kind::Forward => forward_subject(&subject),
        Kind::Compose => String::new(),
    };
    subject.chars().take(MAX_SUBJECT).collect()
}

/// RFC 5322 §3.6.4: what the original answers, and itself last.
fn references(origin: &Origin) -> Vec<String> {
    references_of(&origin.fields)
}
fn references_of(fields: &Fields) -> Vec<String> {
    let Some(id) = fields.message_id() else { return Vec::new() };
    let mut all = fields.references();
    all.retain(|other| *other != id);
    all.push(id);
    all
}

/// The name under which a forwarded message is attached.
fn file_of(origin: &Origin) -> String {
    let subject = origin.heading().subject;
    let subject = if subject.is_empty() { "message" } else { &subject };
    let subject: String = subject.chars().take(60).collect();
    let bad = |c: char| matches!(c, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|');
    let name: String = subject.chars().map(|c| if bad(c) { '_' } else { c }).collect();
    file_name(&format!("{}.eml", name.trim()))
}

/// Sample values of the pages for writing.
pub(in crate::portal) fn samples() -> Vec<(&'static str, &'static str, Value)> {
    let sample = || Text::verbatim("sample");
    let mut wrong = Errors::of("", sample());
    for field in ["to", "subject", "body", "files"] {
        wrong.add(field, sample());
    }
    let mut all = Vec::new();
    for (errors, full) in [(Errors::default(), false), (wrong, true)] {
        let some = |value: Value| -> Value { full.then_some(value).into_iter().collect() };
        let text = if full { "sample" } else { "" };
        let fixed = if full { Errors::default() } else { Errors::of("to", sample()) };
        let values = context! {
            action => "/compose", title => "Write", to => text, others => text, all => full,
            subject => text, body => text, priority => if full { "high" } else { "" },
            quote => full, can_quote => full, back => text, about => text, forwarding => full,
            suggestions => some(context! { address => "a@b.example", name => "Ann" }),
            staged => some(context! {
                id => "id", name => "sample", size => "1 MB", ticked => full, whole => full,
            }),
            limit => "50 MB", files_lost => full, tab => "compose",
        };
        let errors = errors.to_value();
        all.push((
            "write.html",
            "Write",
            context! { fixed => false, errors => errors, ..values.clone() },
        ));
        all.push((
            "write.html",
            "Reply",
            context! { fixed => true, errors => fixed.to_value(), ..values },
        ));
        let row = |live: bool, failed: bool| {
            context! {
                id => "id", live => live, subject => "sample", to => "sample", failed => failed,
                stamp => "2026-11-22", date => "22 November 2026", expires => "1 January 2027",
                fate => text,
            }
        };
        all.push(("given-back.html", "Sign in", context! { body => text }));
        let rows: Value = some(row(true, full));
        all.push((
            "sent.html",
            "Sent",
            context! { messages => rows, older => text, tab => "sent" },
        ));
    }
    all
}
