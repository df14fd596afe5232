//! Commands (RFC 5321 §4.1.1) and their parameters, parsed once and for all.

use super::{path::PathLine, xtext};
use crate::mail::{Address, AddressError, Notify, RecipientDsn, Ret, ReversePath};

/// A command that is right in itself; whether it comes at the right time is the session's matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// BDAT (RFC 3030 §2).
    Bdat(ChunkHeader),
    /// DATA (RFC 5321 §4.1.1.4).
    Data,
    /// EHLO with the client's name (RFC 5321 §4.1.1.1).
    Ehlo(String),
    /// EXPN (RFC 5321 §4.1.1.7).
    Expn,
    /// HELO with the client's name (RFC 5321 §4.1.1.1).
    Helo(String),
    /// HELP (RFC 5321 §4.1.1.8).
    Help,
    /// MAIL (RFC 5321 §4.1.1.2).
    Mail(Box<MailCommand>),
    /// NOOP (RFC 5321 §4.1.1.9).
    Noop,
    /// QUIT (RFC 5321 §4.1.1.10).
    Quit,
    /// RCPT (RFC 5321 §4.1.1.3).
    Rcpt(Box<RcptCommand>),
    /// RSET (RFC 5321 §4.1.1.5).
    Rset,
    /// STARTTLS (RFC 3207 §4).
    StartTls,
    /// VRFY (RFC 5321 §4.1.1.6).
    Vrfy,
}

/// What BDAT announces (RFC 3030 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkHeader {
    /// Octets that follow.
    pub size: u64,
    /// LAST: the message ends with them.
    pub last: bool,
}

/// MAIL, with the parameters known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailCommand {
    /// Reverse-path.
    pub sender: ReversePath,
    /// SIZE (RFC 1870 §3).
    pub declared_size: Option<u64>,
    /// BODY=8BITMIME (RFC 6152 §2).
    pub eight_bit: bool,
    /// SMTPUTF8 (RFC 6531 §3.4).
    pub smtputf8: bool,
    /// REQUIRETLS (RFC 8689 §2).
    pub require_tls: bool,
    /// RET (RFC 3461 §4.3).
    pub ret: Option<Ret>,
    /// ENVID, decoded (RFC 3461 §4.4).
    pub envelope_id: Option<String>,
    /// Any parameter was given: not after HELO (RFC 5321 §4.1.1.11).
    pub extended: bool,
}

/// RCPT, with the parameters known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RcptCommand {
    /// Forward-path.
    pub recipient: ForwardPath,
    /// NOTIFY and ORCPT.
    pub dsn: RecipientDsn,
    /// Path or ORCPT is not ASCII, so that MAIL must have said SMTPUTF8 (RFC 6531 §3.4, RFC 6533
    /// §3).
    pub non_ascii: bool,
    /// Any parameter was given: not after HELO (RFC 5321 §4.1.1.11).
    pub extended: bool,
}

/// Where a message goes (RFC 5321 §4.1.1.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardPath {
    /// `<postmaster>`, without a domain, in any case (RFC 5321 §4.5.1).
    Postmaster,
    /// A mailbox.
    Mailbox(Address),
}

/// Why a line is no command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandError {
    /// A verb that nobody knows.
    Unknown,
    /// Not UTF-8, or with control characters.
    NotText,
    /// MAIL without `FROM:`, RCPT without `TO:`.
    Keyword(&'static str),
    /// No `<path>`.
    NoBrackets,
    /// An argument or parameter value that is wrong; what is right.
    Argument(&'static str),
    /// A parameter that isn't known.
    Parameter(String),
    /// The reverse-path is no address.
    Sender(AddressError),
    /// The forward-path is no address.
    Recipient(AddressError),
    /// An address that is not ASCII without SMTPUTF8 (RFC 6531 §3.5).
    NonAscii,
    /// BDAT without a size: where its octets end can't be known.
    ChunkSize,
}

impl Command {
    /// Parses a line without its CRLF.
    pub fn parse(line: &[u8]) -> Result<Self, CommandError> {
        let line = std::str::from_utf8(line).map_err(|_| CommandError::NotText)?;
        if line.chars().any(|character| character.is_control() && character != '\t') {
            return Err(CommandError::NotText);
        }
        // RFC 5321 §4.1.1: trailing white space is tolerated.
        let line = line.trim_end_matches([' ', '\t']);
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        match verb.to_ascii_uppercase().as_str() {
            "BDAT" => chunk_header(argument).map(Self::Bdat),
            "DATA" => alone(argument, Self::Data),
            "EHLO" => name(argument).map(Self::Ehlo),
            "EXPN" => Ok(Self::Expn),
            "HELO" => name(argument).map(Self::Helo),
            "HELP" => Ok(Self::Help),
            "MAIL" => mail(argument).map(|mail| Self::Mail(Box::new(mail))),
            "NOOP" => Ok(Self::Noop),
            "QUIT" => alone(argument, Self::Quit),
            "RCPT" => rcpt(argument).map(|rcpt| Self::Rcpt(Box::new(rcpt))),
            "RSET" => alone(argument, Self::Rset),
            "STARTTLS" => alone(argument, Self::StartTls),
            "VRFY" => Ok(Self::Vrfy),
            _ => Err(CommandError::Unknown),
        }
    }
}

/// DATA, QUIT, RSET and STARTTLS take no argument (RFC 5321 §4.1.1, RFC 3207 §4).
fn alone(argument: &str, command: Command) -> Result<Command, CommandError> {
    if argument.is_empty() {
        Ok(command)
    } else {
        Err(CommandError::Argument("this command takes no argument"))
    }
}

/// RFC 5321 §4.1.1.1 wants a domain or a literal. Old devices say other things; what they say is
/// kept in a form that does no harm in a Received field.
fn name(argument: &str) -> Result<String, CommandError> {
    let argument = argument.trim();
    if argument.is_empty() || argument.len() > 255 {
        return Err(CommandError::Argument("a host name of at most 255 octets is expected"));
    }
    let harmless = |character: char| {
        character.is_ascii_graphic()
            && !matches!(character, '<' | '>' | '(' | ')' | '\\' | '"' | ';' | '@' | ',')
    };
    Ok(argument.chars().map(|c| if harmless(c) { c } else { '?' }).collect())
}

/// RFC 3030 §2: `BDAT size [LAST]`.
fn chunk_header(argument: &str) -> Result<ChunkHeader, CommandError> {
    let (size, last) = match argument.trim().split_once(' ') {
        None => (argument.trim(), false),
        Some((size, word)) if word.trim().eq_ignore_ascii_case("LAST") => (size, true),
        Some(_) => return Err(CommandError::ChunkSize),
    };
    let size = digits(size).ok_or(CommandError::ChunkSize)?;
    Ok(ChunkHeader { size, last })
}

/// Up to 20 digits (RFC 1870 §6), `None` for anything else or beyond 64 bits.
fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || text.len() > 20 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// What follows `FROM:` or `TO:`, in any case.
fn after_keyword<'a>(argument: &'a str, keyword: &'static str) -> Result<&'a str, CommandError> {
    let (word, rest) = argument.split_once(':').ok_or(CommandError::Keyword(keyword))?;
    if word.trim_end().eq_ignore_ascii_case(keyword) {
        Ok(rest)
    } else {
        Err(CommandError::Keyword(keyword))
    }
}

fn mail(argument: &str) -> Result<MailCommand, CommandError> {
    let line = PathLine::parse(after_keyword(argument, "FROM")?)?;
    let sender = match line.mailbox {
        // RFC 5321 §4.5.5: the null reverse-path of reports.
        "" => None,
        mailbox => Some(mailbox.parse().map_err(CommandError::Sender)?),
    };
    let mut mail = MailCommand {
        sender,
        declared_size: None,
        eight_bit: false,
        smtputf8: false,
        require_tls: false,
        ret: None,
        envelope_id: None,
        extended: !line.parameters.is_empty(),
    };
    for (keyword, value) in line.parameters {
        mail_parameter(&mut mail, keyword, value)?;
    }
    // RFC 6531 §3.4: an address outside ASCII needs the parameter.
    if !line.mailbox.is_ascii() && !mail.smtputf8 {
        return Err(CommandError::NonAscii);
    }
    Ok(mail)
}

fn mail_parameter(
    mail: &mut MailCommand,
    keyword: &str,
    value: Option<&str>,
) -> Result<(), CommandError> {
    match (keyword.to_ascii_uppercase().as_str(), value) {
        ("SIZE", Some(size)) => mail.declared_size = Some(declared_size(size)?),
        ("BODY", Some(body)) => mail.eight_bit = is_eight_bit(body)?,
        ("SMTPUTF8", None) => mail.smtputf8 = true,
        ("REQUIRETLS", None) => mail.require_tls = true,
        ("RET", Some(ret)) => mail.ret = Some(parse_ret(ret)?),
        ("ENVID", Some(id)) => mail.envelope_id = Some(envelope_id(id)?),
        // RFC 4954 §5: who first submitted; nobody here trusts it, which the RFC permits.
        ("AUTH", Some(mailbox)) if xtext::decode(mailbox).is_some() => {}
        ("SIZE" | "BODY" | "RET" | "ENVID" | "AUTH", _) => {
            return Err(CommandError::Argument("this parameter needs a right value"));
        }
        ("SMTPUTF8" | "REQUIRETLS", Some(_)) => {
            return Err(CommandError::Argument("this parameter takes no value"));
        }
        _ => return Err(CommandError::Parameter(keyword.to_ascii_uppercase())),
    }
    Ok(())
}

/// RFC 1870 §6: a size of 20 digits may exceed 64 bits; then it is too big in any case.
fn declared_size(text: &str) -> Result<u64, CommandError> {
    if text.len() > 20 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(CommandError::Argument("SIZE is up to 20 digits"));
    }
    Ok(text.parse().unwrap_or(u64::MAX))
}

/// RFC 6152 §2; BINARYMIME (RFC 3030 §3) isn't offered, as content here has lines.
fn is_eight_bit(body: &str) -> Result<bool, CommandError> {
    match body.to_ascii_uppercase().as_str() {
        "7BIT" => Ok(false),
        "8BITMIME" => Ok(true),
        "BINARYMIME" => Err(CommandError::Parameter("BODY=BINARYMIME".into())),
        _ => Err(CommandError::Argument("BODY is 7BIT or 8BITMIME")),
    }
}

fn parse_ret(value: &str) -> Result<Ret, CommandError> {
    value.parse().map_err(|_| CommandError::Argument("RET is FULL or HDRS"))
}

/// RFC 3461 §4.4: up to 100 characters of xtext.
fn envelope_id(value: &str) -> Result<String, CommandError> {
    (value.len() <= 100)
        .then(|| xtext::decode(value))
        .flatten()
        .ok_or(CommandError::Argument("ENVID is up to 100 characters of xtext"))
}

fn rcpt(argument: &str) -> Result<RcptCommand, CommandError> {
    let line = PathLine::parse(after_keyword(argument, "TO")?)?;
    // RFC 5321 §4.5.1: the one address without a domain.
    let recipient = if line.mailbox.eq_ignore_ascii_case("postmaster") {
        ForwardPath::Postmaster
    } else {
        ForwardPath::Mailbox(line.mailbox.parse().map_err(CommandError::Recipient)?)
    };
    let mut dsn = RecipientDsn::default();
    for (keyword, value) in &line.parameters {
        rcpt_parameter(&mut dsn, keyword, *value)?;
    }
    let non_ascii =
        !line.mailbox.is_ascii() || dsn.original.as_ref().is_some_and(|text| !text.is_ascii());
    Ok(RcptCommand { recipient, dsn, non_ascii, extended: !line.parameters.is_empty() })
}

fn rcpt_parameter(
    dsn: &mut RecipientDsn,
    keyword: &str,
    value: Option<&str>,
) -> Result<(), CommandError> {
    match (keyword.to_ascii_uppercase().as_str(), value) {
        ("NOTIFY", Some(value)) => dsn.notify = Some(parse_notify(value)?),
        ("ORCPT", Some(value)) => dsn.original = Some(original_recipient(value)?),
        ("NOTIFY" | "ORCPT", None) => {
            return Err(CommandError::Argument("this parameter needs a value"));
        }
        _ => return Err(CommandError::Parameter(keyword.to_ascii_uppercase())),
    }
    Ok(())
}

fn parse_notify(value: &str) -> Result<Notify, CommandError> {
    let right = "NOTIFY is NEVER, or some of SUCCESS,FAILURE,DELAY";
    value.parse().map_err(|_| CommandError::Argument(right))
}

/// RFC 3461 §4.2: type, semicolon, xtext; up to 500 characters. RFC 6533 §3: type `utf-8` has a
/// coding of its own, which is kept as it is; beyond ASCII it needs SMTPUTF8, as an address does.
fn original_recipient(value: &str) -> Result<String, CommandError> {
    const RIGHT: &str = "ORCPT is up to 500 characters: type;xtext";
    let wrong = || CommandError::Argument(RIGHT);
    let (kind, address) = value.split_once(';').ok_or_else(wrong)?;
    let atom = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if value.len() > 500 || kind.is_empty() || !kind.bytes().all(atom) || address.is_empty() {
        return Err(wrong());
    }
    if kind.eq_ignore_ascii_case("utf-8") {
        return if address.chars().any(char::is_control) { Err(wrong()) } else { Ok(value.into()) };
    }
    let address = xtext::decode(address).ok_or_else(wrong)?;
    Ok(format!("{kind};{address}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, CommandError> {
        Command::parse(line.as_bytes())
    }

    #[test]
    fn good_commands() {
        let table = [
            ("ehlo Mail.Example", Command::Ehlo("Mail.Example".into())),
            ("HELO [192.0.2.1]", Command::Helo("[192.0.2.1]".into())),
            ("EHLO a(b)c <d>", Command::Ehlo("a?b?c??d?".into())),
            ("noop whatever", Command::Noop),
            ("QUIT ", Command::Quit),
            ("vrfy ann", Command::Vrfy),
            ("BDAT 0 LAST", Command::Bdat(ChunkHeader { size: 0, last: true })),
            ("bdat 86", Command::Bdat(ChunkHeader { size: 86, last: false })),
        ];
        for (line, expected) in table {
            assert_eq!(parse(line), Ok(expected), "{line}");
        }
    }

    #[test]
    fn bad_commands() {
        use CommandError::*;
        let table = [
            ("", Unknown, "an empty line"),
            (" QUIT", Unknown, "leading space"),
            ("GET / HTTP/1.1", Unknown, "another protocol"),
            ("EHLO", Argument("a host name of at most 255 octets is expected"), "no name"),
            ("DATA x", Argument("this command takes no argument"), "RFC 5321 4.1.1.4"),
            ("STARTTLS foo", Argument("this command takes no argument"), "RFC 3207 4"),
            ("MAIL <a@b.example>", Keyword("FROM"), "no FROM:"),
            ("RCPT FROM:<a@b.example>", Keyword("TO"), "FROM in place of TO"),
            ("MAIL FROM:a@b.example", NoBrackets, "no brackets"),
            ("BDAT", ChunkSize, "no size"),
            ("BDAT -1", ChunkSize, "a sign"),
            ("BDAT 1 LAST x", ChunkSize, "text behind LAST"),
            ("BDAT 99999999999999999999", ChunkSize, "beyond 64 bits"),
            ("MAIL FROM:<> FOO=1", Parameter("FOO".into()), "unknown parameter"),
            ("MAIL FROM:<> BODY=BINARYMIME", Parameter("BODY=BINARYMIME".into()), "not offered"),
            ("MAIL FROM:<jos\u{e9}@b.example>", NonAscii, "no SMTPUTF8"),
            ("NOOP \u{7}", NotText, "control character"),
        ];
        for (line, expected, why) in table {
            assert_eq!(parse(line), Err(expected), "{why}");
        }
        assert_eq!(Command::parse(b"NOOP \xff"), Err(NotText), "not UTF-8");
        assert!(matches!(parse("MAIL FROM:<a b>"), Err(Sender(_))));
        assert!(matches!(parse("RCPT TO:<>"), Err(Recipient(_))));
    }

    #[test]
    fn mail_parameters() {
        let line = "MAIL FROM:<a@b.example> SIZE=12 BODY=8bitmime SMTPUTF8 RET=HDRS ENVID=x+2B1 AUTH=<> REQUIRETLS";
        let Ok(Command::Mail(mail)) = parse(line) else { panic!("{line}") };
        let expected = MailCommand {
            sender: Some("a@b.example".parse().expect("an address")),
            declared_size: Some(12),
            eight_bit: true,
            smtputf8: true,
            require_tls: true,
            ret: Some(Ret::Headers),
            envelope_id: Some("x+1".into()),
            extended: true,
        };
        assert_eq!(*mail, expected);
        let bad = [
            "SIZE",
            "SIZE=x",
            "SIZE=1 SIZE=1",
            "BODY=9BIT",
            "SMTPUTF8=1",
            "RET=ALL",
            "ENVID=+0A",
            "REQUIRETLS=1",
        ];
        for parameters in bad {
            let line = format!("MAIL FROM:<> {parameters}");
            assert!(matches!(parse(&line), Err(CommandError::Argument(_))), "{line}");
        }
        let Ok(Command::Mail(huge)) = parse("MAIL FROM:<> SIZE=99999999999999999999") else {
            panic!()
        };
        assert_eq!(huge.declared_size, Some(u64::MAX));
    }

    #[test]
    fn rcpt_parameters() {
        let line = "RCPT TO:<a@b.example> NOTIFY=success,DELAY ORCPT=rfc822;Ann+2Bx@b.example";
        let Ok(Command::Rcpt(rcpt)) = parse(line) else { panic!("{line}") };
        let notify = Notify::On { success: true, failure: false, delay: true };
        assert_eq!(rcpt.dsn.notify, Some(notify));
        assert_eq!(rcpt.dsn.original.as_deref(), Some("rfc822;Ann+x@b.example"));
        let long = format!("ORCPT=rfc822;{}", "a".repeat(494));
        let bad = [
            "NOTIFY=NEVER,SUCCESS",
            "NOTIFY=DELAY,DELAY",
            "NOTIFY",
            "ORCPT",
            "ORCPT=x",
            "ORCPT=rfc822;",
            "ORCPT=;x",
            "ORCPT=rfc822;a+0Db",
            "ORCPT=rfc822;\u{fc}",
            &long,
        ];
        for parameters in bad {
            let line = format!("RCPT TO:<a@b.example> {parameters}");
            assert!(matches!(parse(&line), Err(CommandError::Argument(_))), "{line}");
        }
        for (original, non_ascii) in [("utf-8;\\x{FC}@x", false), ("utf-8;\u{fc}@x", true)] {
            let Ok(Command::Rcpt(rcpt)) = parse(&format!("RCPT TO:<a@b.example> ORCPT={original}"))
            else {
                panic!("{original}")
            };
            assert_eq!(rcpt.dsn.original.as_deref(), Some(original), "its own coding");
            assert_eq!(rcpt.non_ascii, non_ascii, "{original} needs SMTPUTF8 (RFC 6533 3)");
        }
        let Ok(Command::Rcpt(rcpt)) = parse("RCPT TO:<PostMaster>") else { panic!() };
        assert_eq!(rcpt.recipient, ForwardPath::Postmaster);
    }
}
