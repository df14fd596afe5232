//! `/inbox/ID/prove`: what a reader must show beyond the mailbox before a message opens.
use super::{
    Desk, Fault,
    form::{Errors, Form, Secret},
    session::Visitor,
};
use crate::{
    language::{Text, say},
    mail::GrantId,
    store::{Account, AuditDetail, AuditKind, Need, Session, SessionFacts},
    vault::{Texting, Tried},
};
use axum::{
    Extension,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use minijinja::{Value, context};
use serde::Deserialize;
use std::sync::Arc;
use zeroize::Zeroizing;

type Answer = Result<Response, Fault>;

/// `POST /inbox/ID/prove`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Proving {
    phrase: Secret,
    code: Secret,
    /// Filled: a text message is asked for.
    send: String,
}

impl Visitor {
    /// What the vault is told of the session.
    pub(super) fn session_facts(&self) -> SessionFacts {
        let facts = self.session.as_ref().zip(self.account.as_ref());
        facts.map(|(session, account)| Self::facts_of(session, account)).unwrap_or_default()
    }

    /// The same of a session without its visitor.
    pub(super) fn facts_of(session: &Session, account: &Account) -> SessionFacts {
        let named = session.account.as_ref();
        named.map(|named| account.session_facts(named, session.id)).unwrap_or_default()
    }
}

/// Where a message asks for its proof.
pub(super) fn place(id: GrantId) -> String {
    format!("/inbox/{id}/prove")
}

/// `GET /inbox/ID/prove`
pub(super) async fn form(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
) -> Answer {
    match desk.unproved(&visitor, &id).await? {
        Some((id, need)) => {
            desk.prove_page(StatusCode::OK, &visitor, (id, need), &Errors::default(), None)
        }
        None => Ok(Redirect::to(&format!("/inbox/{id}")).into_response()),
    }
}

/// `POST /inbox/ID/prove`
pub(super) async fn prove(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    Form(form): Form<Proving>,
) -> Answer {
    let Some((grant, need)) = desk.unproved(&visitor, &id).await? else {
        return Ok(Redirect::to(&format!("/inbox/{id}")).into_response());
    };
    let (account, wrong) = (visitor.signed_in()?, StatusCode::UNPROCESSABLE_ENTITY);
    if !form.send.is_empty() {
        return desk.send_text_code(&visitor, account, (grant, need)).await;
    }
    let again =
        |need, errors: &Errors| desk.prove_page(wrong, &visitor, (grant, need), errors, None);
    let (field, detail, typed) = match need {
        Need::Text => ("code", AuditDetail::Sms, form.code.expose()),
        Need::Nothing | Need::Phrase { .. } | Need::Passkey | Need::Account | Need::Locked => {
            ("phrase", AuditDetail::Phrase, form.phrase.expose())
        }
    };
    match desk.tried(&visitor, (grant, detail), typed).await? {
        Tried::Proved => Ok(Redirect::to(&format!("/inbox/{grant}")).into_response()),
        Tried::Wrong { left } => {
            let text =
                say!("That is not right. Tries that are left: {count}.", count = u64::from(left));
            again(need, &Errors::of(field, text))
        }
        Tried::Locks | Tried::Locked => again(Need::Locked, &Errors::default()),
        Tried::Nothing => again(need, &Errors::default()),
    }
}

impl Desk {
    /// What must still be shown for a message of the visitor's; nothing: `None`.
    async fn unproved(
        &self,
        visitor: &Visitor,
        id: &str,
    ) -> Result<Option<(GrantId, Need)>, Fault> {
        match self.leave(visitor, id).await {
            Ok(_) => Ok(None),
            Err(Fault::Unproved(grant, need)) => Ok(Some((grant, need))),
            Err(other) => Err(other),
        }
    }

    /// Judges what was typed, and does what follows. It runs as a task: a client that hangs up must
    /// not keep grant, account, trail and sender from the outcome.
    async fn tried(
        self: &Arc<Self>,
        visitor: &Visitor,
        (grant, detail): (GrantId, AuditDetail),
        typed: &str,
    ) -> Result<Tried, Fault> {
        let (desk, visitor) = (Arc::clone(self), visitor.clone());
        let typed = Zeroizing::new(typed.to_owned());
        let task = tokio::spawn(async move {
            let (account, session) = (visitor.signed_in()?, visitor.session_facts());
            let event = |tried| {
                let (kind, detail) = match tried {
                    Tried::Proved => (AuditKind::ProofGiven, detail.clone()),
                    Tried::Wrong { .. } => (AuditKind::ProofFailed, detail.clone()),
                    Tried::Locks | Tried::Locked => (AuditKind::ProofFailed, AuditDetail::Locked),
                    Tried::Nothing => return None,
                };
                Some(desk.event(kind, &visitor).grant(grant).detail(detail))
            };
            let tried = desk.vault.prove(grant, account, &session, (&typed, event)).await?;
            match (tried, event(tried)) {
                (Tried::Locked, Some(event)) => desk.audit.record(event).await,
                (_, Some(event)) => desk.audit.committed(&event),
                (_, None) => {}
            }
            let named = visitor.session.as_ref().and_then(|session| session.account.as_ref());
            if let Some(named) = named.filter(|_| tried == Tried::Proved) {
                desk.identity.has_proved(account, named).await?;
            }
            Ok(tried)
        });
        task.await.map_err(|_| Fault::Work("a proof could not be judged"))?
    }

    /// Sends the code of a message as a text message, and says what came of it.
    async fn send_text_code(
        &self,
        visitor: &Visitor,
        account: &Account,
        (grant, need): (GrantId, Need),
    ) -> Answer {
        let (vault, account) = (self.vault.clone(), account.clone());
        let language = Arc::clone(&visitor.language);
        // A client that hangs up must not keep the sender from what is charged and failed.
        let texting =
            tokio::spawn(async move { vault.send_text_code(grant, &account, &language).await });
        let texting =
            texting.await.map_err(|_| Fault::Work("a text message could not be sent"))??;
        let (none, failed) = (Errors::default(), StatusCode::SERVICE_UNAVAILABLE);
        match texting {
            Texting::Sent => {
                let said = say!("A text message is on its way. Its code is good for 15 minutes.");
                self.prove_page(StatusCode::OK, visitor, (grant, need), &none, Some(said))
            }
            Texting::Nothing => {
                self.prove_page(StatusCode::OK, visitor, (grant, need), &none, None)
            }
            Texting::Replaced(told) => {
                let text = say!(
                    "The text message could not be sent. {address} has been told a phrase for you: \
                     please call there, and type the phrase here.",
                    address = told.to_string()
                );
                let need = Need::Phrase { account: false };
                self.prove_page(failed, visitor, (grant, need), &Errors::of("", text), None)
            }
            Texting::Failed => {
                let text = say!(
                    "The text message could not be sent. Please call the sender, who can send the \
                     message again, or ask {support} for help.",
                    support = self.vault.notices.head.support.clone()
                );
                self.prove_page(failed, visitor, (grant, need), &Errors::of("", text), None)
            }
        }
    }

    fn prove_page(
        &self,
        status: StatusCode,
        visitor: &Visitor,
        (grant, need): (GrantId, Need),
        errors: &Errors,
        said: Option<Text>,
    ) -> Answer {
        let values = context! {
            tab => "inbox",
            id => grant.to_string(),
            need => name(need),
            errors => errors.to_value(),
            said => Value::from(said.unwrap_or_default()),
        };
        self.pages.answer(status, "prove.html", say!("One more proof"), visitor, values)
    }
}

/// A need's name in the template.
const fn name(need: Need) -> &'static str {
    match need {
        Need::Nothing | Need::Phrase { account: false } => "phrase",
        Need::Phrase { account: true } => "either",
        Need::Text => "text",
        Need::Passkey => "passkey",
        Need::Account => "account",
        Need::Locked => "locked",
    }
}

/// Sample values for the template.
pub(super) fn samples(errors: &Value) -> impl Iterator<Item = Value> {
    let errors = errors.clone();
    ["phrase", "either", "text", "passkey", "account", "locked"].into_iter().map(move |need| {
        let said = if need == "text" { "sample" } else { "" };
        context! { tab => "inbox", id => "id", need => need, errors => &errors, said => said }
    })
}
