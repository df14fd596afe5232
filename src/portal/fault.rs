//! What ends a request early. Only the status reaches the visitor (as a plain page); detail goes to
//! the log.
use super::prove;
use crate::{
    identity::IdentityError,
    mail::{GrantId, notice::TemplateError},
    store::{Need, StoreError},
    vault::VaultError,
};
use axum::{
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};

/// Why a request is not answered with what it asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// An answer that is in order: not found, gone, not signed in.
    #[error("{0}")]
    Status(StatusCode),
    /// The message opens only once its reader has shown this: the visitor is led there.
    #[error("the reader must prove himself first")]
    Unproved(GrantId, Need),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The vault.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// A page could not be rendered.
    #[error("a page could not be rendered: {0}")]
    Page(#[from] minijinja::Error),
    /// The code mail could not be written.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// Work on another thread did not come back.
    #[error("{0}")]
    Work(&'static str),
}

impl From<IdentityError> for Fault {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::Store(error) => Self::Store(error),
            IdentityError::Vault(error) => Self::Vault(error),
            IdentityError::Busy => Self::Status(StatusCode::SERVICE_UNAVAILABLE),
            IdentityError::Work(what) => Self::Work(what),
        }
    }
}

/// On an answer: the sealed message that was asked for is damaged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Damaged;

impl Fault {
    /// True if the sealed message does not open, or is not there.
    pub(super) const fn is_damage(&self) -> bool {
        match self {
            Self::Vault(error) => match error {
                VaultError::Seal(_)
                | VaultError::Ring(_)
                | VaultError::Store(StoreError::NotFound | StoreError::Corrupt(_)) => true,
                VaultError::Store(StoreError::Full | StoreError::Busy)
                | VaultError::Store(StoreError::Fenced | StoreError::Fatal(_))
                | VaultError::Gone
                | VaultError::Ended
                | VaultError::Template(_)
                | VaultError::Busy
                | VaultError::Refused(_) => false,
            },
            Self::Status(_)
            | Self::Unproved(..)
            | Self::Store(_)
            | Self::Page(_)
            | Self::Template(_)
            | Self::Work(_) => false,
        }
    }
    fn status(&self) -> StatusCode {
        if self.is_damage() {
            return StatusCode::INTERNAL_SERVER_ERROR;
        }
        match self {
            Self::Status(status) => *status,
            Self::Unproved(..) => StatusCode::SEE_OTHER,
            Self::Store(error) | Self::Vault(VaultError::Store(error)) => of_store(error),
            Self::Vault(VaultError::Busy) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Vault(VaultError::Gone | VaultError::Ended) => StatusCode::GONE,
            Self::Vault(
                VaultError::Seal(_)
                | VaultError::Ring(_)
                | VaultError::Template(_)
                | VaultError::Refused(_),
            )
            | Self::Page(_)
            | Self::Template(_)
            | Self::Work(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

fn of_store(error: &StoreError) -> StatusCode {
    match error {
        StoreError::Full | StoreError::Busy => StatusCode::SERVICE_UNAVAILABLE,
        StoreError::NotFound => StatusCode::NOT_FOUND,
        StoreError::Corrupt(_) | StoreError::Fenced | StoreError::Fatal(_) => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        if let Self::Unproved(grant, _) = self {
            return Redirect::to(&prove::place(grant)).into_response();
        }
        let status = self.status();
        if status.is_server_error() {
            tracing::error!(error = %self, "portal: a request failed");
        }
        let mut response = status.into_response();
        if self.is_damage() {
            response.extensions_mut().insert(Damaged);
        }
        response
    }
}
