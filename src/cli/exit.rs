//! Exit codes (sysexits.h).

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: the answer is no, or problems were found.
    No,
    /// 64 `EX_USAGE`
    Usage,
    /// 65 `EX_DATAERR`: bad data.
    Data,
    /// 69 `EX_UNAVAILABLE`: server not reachable; a port that is taken.
    Unavailable,
    /// 75 `EX_TEMPFAIL`: try again.
    TryAgain,
    /// 77 `EX_NOPERM`
    NotPermitted,
    /// 78 `EX_CONFIG`: bad configuration.
    Config,
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::No => 1,
            Self::Usage => 64,
            Self::Data => 65,
            Self::Unavailable => 69,
            Self::TryAgain => 75,
            Self::NotPermitted => 77,
            Self::Config => 78,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
