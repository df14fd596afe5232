//! Runs each `tests/dialogues/*.smtp` against the server machine.
//!
//! A dialogue is text. Before the first line of talk come settings, one a line: `# normalize`, `#
//! stranger`, `# no-starttls`, `# require-tls`, `# max-size N`, `# max-recipients N`, `# max-errors
//! N`; any other line with `#` is a comment. Then:
//!
//! | line | meaning |
//! |---|---|
//! | `C: text` | the client sends this and CRLF |
//! | `R: text` | the client sends just this |
//! | `S: glob` | the next reply line begins so; `*` stands for anything |
//! | `A: abort` | the driver was told to discard; also `begin`, `end`, `starttls`, `close` |
//! | `D: text` | the whole content of the message, once `A: end` has come |
//! | `! word` | the driver speaks: `tls`, `accept`, `timeout`, `shutdown`, `refuse CODE STATUS text`, `pressure CODE STATUS text` |
//!
//! In C, R and D `\r`, `\n`, `\0`, `\\` and `\xNN` are escapes, and `\{N:text}` repeats text N
//! times. The driver accepts each `end` by itself unless the next line begins with `!`. What the
//! machine says or asks and the dialogue does not is a failure; `begin` need not be mentioned.

use restante::{
    mail::QueueId,
    smtp::{Action, Reply, Server, ServerSettings},
};
use std::{collections::VecDeque, path::Path};

#[test]
fn every_dialogue_runs_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues");
    let mut names: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder of dialogues")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "smtp"))
        .collect();
    names.sort();
    assert!(names.len() >= 10, "dialogues are missing from {}", folder.display());
    let failures: Vec<String> = names.iter().filter_map(|path| run(path).err()).collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

fn run(path: &Path) -> Result<(), String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut play = Play::new(settings(&text));
    let lines: Vec<&str> = text.lines().collect();
    for (number, line) in lines.iter().enumerate() {
        let driver_is_next = lines.get(number + 1).is_some_and(|next| next.starts_with('!'));
        play.line(line, driver_is_next)
            .map_err(|error| format!("{}:{}: {line}: {error}", path.display(), number + 1))?;
    }
    play.nothing_left().map_err(|error| format!("{}: at the end: {error}", path.display()))
}

fn settings(text: &str) -> ServerSettings {
    let mut settings = ServerSettings {
        hostname: "gw.example.org".parse().expect("a domain"),
        postmaster: "postmaster@example.org".parse().expect("an address"),
        max_message_size: 10_000_000,
        max_recipients: 100,
        max_errors: 20,
        starttls: true,
        require_tls: false,
        may_relay: true,
        normalize: false,
    };
    for line in text.lines().filter_map(|line| line.strip_prefix("# ")) {
        let (word, number) = line.split_once(' ').unwrap_or((line, ""));
        match (word, number.parse::<u32>()) {
            ("normalize", _) if number.is_empty() => settings.normalize = true,
            ("stranger", _) if number.is_empty() => settings.may_relay = false,
            ("no-starttls", _) if number.is_empty() => settings.starttls = false,
            ("require-tls", _) if number.is_empty() => settings.require_tls = true,
            ("max-size", Ok(number)) => settings.max_message_size = number.into(),
            ("max-recipients", Ok(number)) => settings.max_recipients = number as usize,
            ("max-errors", Ok(number)) => settings.max_errors = number,
            _ => {}
        }
    }
    settings
}

/// What the machine did and the dialogue has not looked at yet.
#[derive(Debug)]
enum Heard {
    Line(String),
    Asked(&'static str),
}

struct Play {
    server: Server,
    heard: VecDeque<Heard>,
    content: Vec<u8>,
}

impl Play {
    fn new(settings: ServerSettings) -> Self {
        let mut play =
            Self { server: Server::new(settings), heard: VecDeque::new(), content: Vec::new() };
        play.listen();
        play
    }

    fn line(&mut self, line: &str, driver_is_next: bool) -> Result<(), String> {
        let (kind, text) = line.split_at_checked(2).unwrap_or((line, ""));
        let text = text.strip_prefix(' ').unwrap_or(text);
        match kind {
            "" | "# " | "#" => Ok(()),
            "C:" => self.send(&[unescape(text)?, b"\r\n".to_vec()].concat()),
            "R:" => self.send(&unescape(text)?),
            "S:" => self.expect_line(text),
            "A:" => self.expect_action(text, driver_is_next),
            "D:" => self.expect_content(&unescape(text)?),
            "! " => self.drive(text),
            _ => Err("not a line of a dialogue".into()),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.nothing_left()?;
        self.server.receive(bytes);
        self.listen();
        Ok(())
    }

    fn listen(&mut self) {
        while let Some(action) = self.server.poll() {
            match action {
                Action::Send(bytes) => {
                    let text = String::from_utf8(bytes).expect("replies are ASCII");
                    assert!(text.ends_with("\r\n"), "{text:?}");
                    assert!(text.lines().all(|line| line.len() <= 510), "{text:?}");
                    self.heard.extend(text.lines().map(|line| Heard::Line(line.to_owned())));
                }
                Action::Begin(_) => self.content.clear(),
                Action::Content(piece) => self.content.extend_from_slice(&piece),
                Action::StartTls => self.heard.push_back(Heard::Asked("starttls")),
                Action::End => self.heard.push_back(Heard::Asked("end")),
                Action::Abort => self.heard.push_back(Heard::Asked("abort")),
                Action::Close => self.heard.push_back(Heard::Asked("close")),
            }
        }
    }

    fn expect_line(&mut self, glob: &str) -> Result<(), String> {
        match self.heard.pop_front() {
            Some(Heard::Line(line)) if matches_glob(glob, &line) => Ok(()),
            other => Err(format!("heard {other:?}")),
        }
    }

    fn expect_action(&mut self, action: &str, driver_is_next: bool) -> Result<(), String> {
        match self.heard.pop_front() {
            Some(Heard::Asked(asked)) if asked == action => {}
            other => return Err(format!("heard {other:?}")),
        }
        if action == "end" && !driver_is_next {
            self.accept();
        }
        Ok(())
    }

    fn expect_content(&self, expected: &[u8]) -> Result<(), String> {
        if self.content == expected {
            return Ok(());
        }
        Err(format!("the content is {}", self.content.escape_ascii()))
    }

    fn accept(&mut self) {
        self.server.accepted(QueueId::from_bytes([0; 16]));
        self.listen();
    }

    fn drive(&mut self, text: &str) -> Result<(), String> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match word {
            "accept" => self.accept(),
            "tls" => self.server.tls_started("TLSv1.3"),
            "timeout" => self.server.timed_out(),
            "shutdown" => self.server.shut_down(),
            "refuse" => self.server.refuse(reply(rest)?),
            "pressure" if rest.is_empty() => self.server.set_pressure(None),
            "pressure" => self.server.set_pressure(Some(reply(rest)?)),
            _ => return Err("the driver can't do that".into()),
        }
        self.listen();
        Ok(())
    }

    fn nothing_left(&self) -> Result<(), String> {
        match self.heard.front() {
            None => Ok(()),
            Some(_) => Err(format!("not expected: {:?}", self.heard)),
        }
    }
}

fn reply(text: &str) -> Result<Reply, String> {
    let mut words = text.splitn(3, ' ');
    let code = words.next().and_then(|word| word.parse().ok()).ok_or("no code")?;
    let status = words.next().and_then(|word| word.parse().ok()).ok_or("no status")?;
    Ok(Reply::new(code, status, words.next().unwrap_or_default()))
}

/// True if the line begins as the glob says.
fn matches_glob(glob: &str, line: &str) -> bool {
    let mut parts = glob.split('*');
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let kind = escape.chars().next().ok_or("a lone backslash")?;
        rest = &escape[kind.len_utf8()..];
        match kind {
            'r' => bytes.push(b'\r'),
            'n' => bytes.push(b'\n'),
            '0' => bytes.push(0),
            '\\' => bytes.push(b'\\'),
            'x' => {
                let (digits, after) = rest.split_at_checked(2).ok_or("\\x wants two digits")?;
                bytes.push(u8::from_str_radix(digits, 16).map_err(|error| error.to_string())?);
                rest = after;
            }
            '{' => {
                let (inner, after) = rest.split_once('}').ok_or("\\{ wants }")?;
                let (count, what) = inner.split_once(':').ok_or("\\{N:text}")?;
                let count = count.parse().map_err(|_| "\\{N:text}")?;
                bytes.extend(unescape(what)?.repeat(count));
                rest = after;
            }
            _ => return Err(format!("unknown escape \\{kind}")),
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}
