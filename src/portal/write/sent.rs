//! Letters written here: the list of them, and what became of each.

use super::Origin;
use crate::{
    language::{Text, say},
    mail::GrantId,
    portal::{
        Desk, Fault,
        read::{From, PAGE, page_of},
        session::Visitor,
        show,
    },
    store::{Grant, RecipientRow, RecipientState},
    vault::AccessAnswer,
};
use axum::{
    Extension,
    extract::{Query, State},
    http::StatusCode,
    response::Response,
};
use minijinja::{Value, context};
use std::sync::Arc;

/// What became of a letter, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Delivered,
    Kept,
    OnItsWay,
    Failed,
}

impl Fate {
    const fn of(state: &RecipientState) -> Self {
        match state {
            RecipientState::Waiting { .. } | RecipientState::Held { .. } => Self::OnItsWay,
            RecipientState::Delivered { .. } => Self::Delivered,
            RecipientState::Granted { .. } => Self::Kept,
            RecipientState::Bounced { .. }
            | RecipientState::Expired { .. }
            | RecipientState::Removed { .. } => Self::Failed,
        }
    }
    fn words(self) -> Text {
        match self {
            Self::Delivered => say!("delivered"),
            Self::Kept => say!("kept here for its reader"),
            Self::OnItsWay => say!("on its way"),
            Self::Failed => say!("could not be delivered"),
        }
    }
}

/// `GET /sent`
pub(in crate::portal) async fn list(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Query(from): Query<From>,
) -> Result<Response, Fault> {
    let account = visitor.signed_in()?;
    let after = from.after.and_then(|id| id.parse::<GrantId>().ok());
    let grants = desk.vault.sent(account, after, PAGE + 1).await?;
    let (grants, older) = page_of(grants);
    let mut rows = Vec::new();
    for grant in &grants {
        rows.push(desk.sent_row(&visitor, grant).await?);
    }
    let messages: Value = rows.into_iter().collect();
    let values = context! { tab => "sent", messages => messages, older => older };
    desk.pages.answer(StatusCode::OK, "sent.html", say!("Sent"), &visitor, values)
}

impl Desk {
    async fn sent_row(&self, visitor: &Visitor, grant: &Grant) -> Result<Value, Fault> {
        let facts = visitor.session_facts();
        let origin = match self.vault.access(grant.id, visitor.signed_in()?, &facts).await? {
            AccessAnswer::Granted(access) => Some(self.origin(access).await?),
            AccessAnswer::Unproved(_) | AccessAnswer::Over | AccessAnswer::NotYours => None,
        };
        let fate = origin.as_ref().and_then(fate);
        Ok(context! {
            id => grant.id.to_string(),
            live => origin.is_some(),
            subject => Value::from(origin.as_ref().map(|o| o.heading().shown())
                .unwrap_or_else(|| say!("A message that is gone"))),
            to => origin.as_ref().map(Origin::addressed).unwrap_or_default(),
            stamp => grant.sealed.to_string(),
            date => show::moment(grant.sealed),
            expires => show::day(grant.expires),
            failed => fate == Some(Fate::Failed),
            fate => Value::from(fate.map(Fate::words).unwrap_or_default()),
        })
    }
}

/// The worst that became of any recipient.
fn fate(origin: &Origin) -> Option<Fate> {
    origin.recipients.iter().map(|row| Fate::of(&row.state)).max()
}

/// A line for each recipient.
pub(in crate::portal) fn fates(recipients: &[RecipientRow]) -> Value {
    let line = |row: &RecipientRow| {
        let fate = Fate::of(&row.state);
        context! {
            address => row.address.to_string(), words => Value::from(fate.words()), failed => fate == Fate::Failed,
        }
    };
    recipients.iter().map(line).collect()
}
