//! Why the gateway does not start, and with which exit code it says so.

use crate::{cli::Exit, net::listen::BindError, store::sled::OpenError};
use rustix::io::Errno;

/// Why the gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Configuration, policies, certificates or key ring: exit 78.
    #[error("{0}")]
    Config(String),
    /// A port that is taken: exit 69.
    #[error("{0}")]
    Unavailable(String),
    /// Another server has the data, the disk is full or fails: exit 75.
    #[error("{0}")]
    TryAgain(String),
    /// The book is damaged: exit 65.
    #[error("{0}")]
    Damaged(String),
    /// No right to a port or a file: exit 77.
    #[error("{0}")]
    NotPermitted(String),
}

impl StartError {
    /// Its exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Config(_) => Exit::Config,
            Self::Unavailable(_) => Exit::Unavailable,
            Self::TryAgain(_) => Exit::TryAgain,
            Self::Damaged(_) => Exit::Data,
            Self::NotPermitted(_) => Exit::NotPermitted,
        }
    }
}

impl From<OpenError> for StartError {
    fn from(error: OpenError) -> Self {
        let text = error.to_string();
        match error {
            OpenError::Locked(_) | OpenError::Full(_) => Self::TryAgain(text),
            OpenError::Damaged(_) => Self::Damaged(text),
            OpenError::NotDurable(_) | OpenError::Format(_) => Self::Config(text),
            // A disk that fails is mounted again, or replaced; what we may not read stays so.
            OpenError::Io { source, .. } if disk_fails(&source) => Self::TryAgain(text),
            OpenError::Io { .. } => Self::NotPermitted(text),
        }
    }
}

/// A read-only file system (a failing disk makes it so), or an error of input or output.
fn disk_fails(error: &std::io::Error) -> bool {
    let known = Errno::from_io_error(error);
    matches!(known, Some(Errno::ROFS | Errno::IO))
}

impl From<BindError> for StartError {
    fn from(error: BindError) -> Self {
        let text = error.to_string();
        match error {
            BindError::NotPermitted(_) => Self::NotPermitted(text),
            BindError::NotHere(_) => Self::Config(text),
            BindError::Taken(_) | BindError::Other(..) => Self::Unavailable(text),
        }
    }
}
