//! What the server says (RFC 5321 §4.2.3, RFC 3463 §3), each answer in one place.

use crate::{
    mail::{EnhancedStatus, QueueId},
    smtp::{
        Reply,
        command::CommandError,
        data::{Fault, MAX_TEXT_LINE},
        line::{LineFault, MAX_COMMAND_LINE},
        server::ServerSettings,
    },
};

const fn success(subject: u16, detail: u16) -> EnhancedStatus {
    EnhancedStatus::success(subject, detail)
}

const fn permanent(subject: u16, detail: u16) -> EnhancedStatus {
    EnhancedStatus::permanent(subject, detail)
}

const fn transient(subject: u16, detail: u16) -> EnhancedStatus {
    EnhancedStatus::transient(subject, detail)
}

/// RFC 5321 §4.3.1: the host's name first.
pub(super) fn greeting(settings: &ServerSettings) -> Reply {
    Reply::bare(220, vec![format!("{} ESMTP", settings.hostname)])
}

pub(super) fn helo(settings: &ServerSettings) -> Reply {
    Reply::bare(250, vec![settings.hostname.to_string()])
}

/// RFC 5321 §4.1.1.1: name, then one keyword a line.
pub(super) fn ehlo(settings: &ServerSettings, inside_tls: bool) -> Reply {
    let mut lines = vec![settings.hostname.to_string(), "PIPELINING".into()];
    lines.push(format!("SIZE {}", settings.max_message_size));
    let always = ["8BITMIME", "SMTPUTF8", "CHUNKING", "ENHANCEDSTATUSCODES", "DSN"];
    lines.extend(always.map(str::to_owned));
    // RFC 3207 §4.2: not again inside TLS. RFC 8689 §2: only there.
    if inside_tls {
        lines.push("REQUIRETLS".into());
    } else if settings.starttls {
        lines.push("STARTTLS".into());
    }
    Reply::bare(250, lines)
}

pub(super) fn ok() -> Reply {
    Reply::new(250, success(0, 0), "Ok")
}

pub(super) fn sender_ok() -> Reply {
    Reply::new(250, success(1, 0), "Ok")
}

pub(super) fn recipient_ok() -> Reply {
    Reply::new(250, success(1, 5), "Ok")
}

/// RFC 5321 §4.1.1.4.
pub(super) fn start_data() -> Reply {
    Reply::bare(354, vec!["End data with <CR><LF>.<CR><LF>".into()])
}

/// RFC 3030 §2: the reply to a chunk that isn't the last names its octets.
pub(super) fn chunk_ok(size: u64) -> Reply {
    Reply::new(250, success(0, 0), format!("{size} octets received"))
}

pub(super) fn queued(id: QueueId) -> Reply {
    Reply::new(250, success(0, 0), format!("Ok: queued as {id}"))
}

/// RFC 3207 §4.
pub(super) fn start_tls() -> Reply {
    Reply::new(220, success(0, 0), "Ready to start TLS")
}

pub(super) fn bye() -> Reply {
    Reply::new(221, success(0, 0), "Bye")
}

/// RFC 5321 §3.5.3: 252 neither confirms nor denies.
pub(super) fn vrfy() -> Reply {
    Reply::new(252, success(0, 0), "Cannot verify, but will take mail and try")
}

pub(super) fn help() -> Reply {
    Reply::new(
        214,
        success(0, 0),
        "EHLO HELO MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY HELP STARTTLS",
    )
}

/// RFC 5321 §4.2.4: known, but not done here.
pub(super) fn not_implemented() -> Reply {
    Reply::new(502, permanent(5, 1), "Command not implemented")
}

pub(super) fn bad_sequence(text: &str) -> Reply {
    Reply::new(503, permanent(5, 1), text)
}

pub(super) fn stranger() -> Reply {
    Reply::new(554, permanent(7, 1), "This host does not relay mail for you")
}

/// RFC 3207 §4.
pub(super) fn tls_required() -> Reply {
    Reply::new(530, permanent(7, 0), "Must issue a STARTTLS command first")
}

pub(super) fn unknown_parameter(keyword: &str) -> Reply {
    Reply::new(555, permanent(5, 4), format!("Unsupported parameter: {keyword}"))
}

/// RFC 6531 §3.5.
pub(super) fn non_ascii() -> Reply {
    Reply::new(553, permanent(6, 7), "An address outside ASCII needs SMTPUTF8 on MAIL")
}

/// RFC 1870 §6.1.
pub(super) fn too_big(settings: &ServerSettings) -> Reply {
    let text = format!("Message is larger than {} octets", settings.max_message_size);
    Reply::new(552, permanent(3, 4), text)
}

/// RFC 5321 §4.5.3.1.10: 452, so that the client sends the rest in another transaction.
pub(super) fn too_many_recipients() -> Reply {
    Reply::new(452, transient(5, 3), "Too many recipients")
}

pub(super) fn too_many_errors() -> Reply {
    Reply::new(421, transient(7, 0), "Too many errors")
}

/// RFC 5321 §4.5.3.2.7.
pub(super) fn timed_out() -> Reply {
    Reply::new(421, transient(4, 2), "Idle for too long")
}

/// RFC 5321 §3.8.
pub(super) fn shutting_down() -> Reply {
    Reply::new(421, transient(3, 2), "Shutting down")
}

/// The service goes on, and a new session begins at once.
pub(super) fn session_over() -> Reply {
    Reply::new(421, transient(7, 0), "This session has lasted long enough, connect again")
}

pub(super) fn line(fault: LineFault) -> Reply {
    match fault {
        LineFault::BareCr => Reply::new(500, permanent(5, 2), "Bare CR: a command ends in CRLF"),
        LineFault::BareLf => Reply::new(500, permanent(5, 2), "Bare LF: a command ends in CRLF"),
        LineFault::Nul => Reply::new(500, permanent(5, 2), "NUL in a command"),
        LineFault::TooLong => {
            let text = format!("Command line is longer than {MAX_COMMAND_LINE} octets");
            Reply::new(500, permanent(5, 6), text)
        }
    }
}

pub(super) fn content(fault: Fault, settings: &ServerSettings) -> Reply {
    match fault {
        Fault::BareCr => {
            Reply::new(550, permanent(5, 2), "Bare CR in the message: lines end in CRLF")
        }
        Fault::BareLf => {
            Reply::new(550, permanent(5, 2), "Bare LF in the message: lines end in CRLF")
        }
        Fault::Nul => Reply::new(550, permanent(5, 2), "NUL in the message"),
        Fault::LineTooLong => {
            let text = format!("A line of the message is longer than {MAX_TEXT_LINE} octets");
            Reply::new(550, permanent(5, 2), text)
        }
        Fault::TooBig => too_big(settings),
    }
}

pub(super) fn command(error: &CommandError) -> Reply {
    match error {
        CommandError::Unknown => Reply::new(500, permanent(5, 1), "Command not known"),
        CommandError::NotText => {
            Reply::new(500, permanent(5, 2), "A command is UTF-8 without controls")
        }
        CommandError::Keyword(keyword) => {
            Reply::new(501, permanent(5, 2), format!("{keyword}:<address> is expected"))
        }
        CommandError::NoBrackets => {
            Reply::new(501, permanent(5, 2), "The address stands in angle brackets: <name@domain>")
        }
        CommandError::Argument(right) => Reply::new(501, permanent(5, 4), *right),
        CommandError::Parameter(keyword) => unknown_parameter(keyword),
        CommandError::Sender(error) => Reply::new(501, permanent(1, 7), format!("Sender: {error}")),
        CommandError::Recipient(error) => {
            Reply::new(501, permanent(1, 3), format!("Recipient: {error}"))
        }
        CommandError::NonAscii => non_ascii(),
        CommandError::ChunkSize => Reply::new(501, permanent(5, 4), "BDAT size [LAST] is expected"),
    }
}
