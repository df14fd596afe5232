//! What happened at the reader's own account, as the audit trail has it.
use super::{
    Desk, Fault,
    read::PAGE,
    session::{self, Visitor},
    show,
};
use crate::{
    language::{Text, say},
    store::{AuditDetail, AuditEvent, AuditKind, AuditRecord},
};
use axum::{
    Extension,
    extract::{Query, State},
    http::StatusCode,
    response::Response,
};
use minijinja::{Value, context};
use serde::Deserialize;
use std::sync::Arc;

/// Where the list goes on.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Earlier {
    before: Option<String>,
}

/// `GET /account/log`
pub(super) async fn log(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Query(earlier): Query<Earlier>,
) -> Result<Response, Fault> {
    let account = visitor.signed_in()?;
    let before = earlier.before.and_then(|seq| seq.parse::<u64>().ok());
    let mut records = desk.audit.events(Some(&account.address), before, PAGE + 1).await?;
    // What an earlier identity of the mailbox did is not for this one.
    records.retain(|record| account.since.is_none_or(|since| record.event.at > since));
    let more = records.len() > PAGE;
    records.truncate(PAGE);
    let next = records.last().filter(|_| more).map(|record| record.seq.to_string());
    let events: Value = records.iter().map(line).collect();
    let values = context! {
        tab => "account", events => events, before => next.unwrap_or_default(),
    };
    let title = say!("What happened at your account");
    desk.pages.answer(StatusCode::OK, "log.html", title, &visitor, values)
}

fn line(record: &AuditRecord) -> Value {
    let event = &record.event;
    let grant = event.grant.map(|grant| grant.to_string());
    context! {
        what => Value::from(words(event)),
        message => grant.unwrap_or_default(),
        browser => if event.agent.is_empty() { Value::from("") } else {
            Value::from(session::browser(&event.agent))
        },
        client => event.client.map(|client| client.to_string()).unwrap_or_default(),
        stamp => event.at.to_string(),
        date => show::moment(event.at),
        more => event.more,
    }
}

fn words(event: &AuditEvent) -> Text {
    let detail = event.detail.as_ref();
    match event.kind {
        AuditKind::SignIn => signed_in(detail),
        AuditKind::WrongPassword => say!("A wrong password was typed."),
        AuditKind::WrongCode => say!("A wrong code was typed."),
        AuditKind::WrongSecondFactor => say!("The second step of a sign-in failed."),
        AuditKind::WrongPasskey => say!("A passkey was not accepted."),
        AuditKind::OidcRefused => say!("A sign-in by another account was not accepted."),
        AuditKind::SignInLocked => say!("A sign-in was refused after too many failures."),
        AuditKind::NewDevice => say!("The sign-in came from a browser that was new here."),
        AuditKind::CodeMailed => say!("A code was mailed to you."),
        AuditKind::Registered => say!("The account was set up."),
        AuditKind::FactorAdded => match detail {
            Some(AuditDetail::Passkey) => say!("A passkey was added."),
            Some(_) | None => say!("The second factor was turned on."),
        },
        AuditKind::FactorRemoved => match detail {
            Some(AuditDetail::Passkey) => say!("A passkey was removed."),
            Some(_) | None => say!("The second factor was turned off."),
        },
        AuditKind::PasswordChanged => say!("The password was changed."),
        AuditKind::PasswordReset => say!("A new password was set with a mailed code."),
        AuditKind::SessionEnded => match detail {
            Some(AuditDetail::Everywhere) => say!("All devices were signed out."),
            Some(_) | None => say!("A device was signed out."),
        },
        AuditKind::ProofGiven => say!("The additional proof for a message was given."),
        AuditKind::ProofFailed => say!("The additional proof for a message was wrong."),
        AuditKind::MessageRead => match detail {
            Some(AuditDetail::Print) => say!("A message was shown for printing."),
            Some(AuditDetail::Picture(_)) => say!("A picture was looked at."),
            Some(_) | None => say!("A message was read."),
        },
        AuditKind::Downloaded => downloaded(detail),
        AuditKind::Replied => say!("A message was answered."),
        AuditKind::Forwarded => say!("A message was forwarded."),
        AuditKind::Composed => say!("A message was written."),
        AuditKind::AccountLocked => say!("Our helpdesk locked the account."),
        AuditKind::AccountUnlocked => say!("Our helpdesk unlocked the account."),
        AuditKind::AccountReset => say!("Our helpdesk reset the account."),
        AuditKind::AccountMoved => say!("Our helpdesk changed the address of the account."),
        AuditKind::AccountRemoved => say!("The account was removed."),
        AuditKind::MessageExtended => say!("A message is kept longer."),
        AuditKind::MessageRecalled => say!("A message was taken back."),
        AuditKind::MessageExported => say!("Our helpdesk saved a message to a file."),
        AuditKind::ClockConfirmed => say!("Our helpdesk confirmed the clock."),
        AuditKind::KeyAdded => say!("The key ring got a new key."),
        AuditKind::KeysRetired => say!("Older keys left the key ring."),
    }
}
fn signed_in(by: Option<&AuditDetail>) -> Text {
    match by {
        Some(AuditDetail::Password) => say!("Signed in with the password."),
        Some(AuditDetail::MailedCode) => say!("Signed in with a mailed code."),
        Some(AuditDetail::Passkey) => say!("Signed in with a passkey."),
        Some(AuditDetail::RecoveryCode) => say!("Signed in with a recovery code."),
        Some(AuditDetail::Provider) => say!("Signed in by another account."),
        Some(_) | None => say!("Signed in."),
    }
}
fn downloaded(what: Option<&AuditDetail>) -> Text {
    match what {
        Some(AuditDetail::Attachment(_)) => say!("An attachment was downloaded."),
        Some(AuditDetail::AllAttachments) => say!("All attachments of a message were downloaded."),
        Some(AuditDetail::AllMessages) => say!("All messages were downloaded."),
        Some(_) | None => say!("A message was downloaded."),
    }
}

/// Sample values of the page.
pub(super) fn samples() -> [Value; 2] {
    let line = |some: bool| {
        let text = |text: &'static str| if some { text } else { "" };
        context! {
            what => "sample", message => text("id"), browser => text("Firefox on Linux"),
            client => text("192.0.2.1"), stamp => "2026-11-22", date => "22 November 2026",
            more => u64::from(some),
        }
    };
    let events: Value = [line(true), line(false)].into_iter().collect();
    let none: Value = Vec::<Value>::new().into_iter().collect();
    [context! { events => events, before => "1" }, context! { events => none, before => "" }]
}
