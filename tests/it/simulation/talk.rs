//! A session of a next hop: speaks SMTP as RFC 5321 has it, and misbehaves by script. Written anew and
//! not with the gateway's own machines, so that one error is not made twice.

use super::{
    chance::Chance,
    host::{Act, Host, Openness, Script, Stage, Tls},
    ledger::Ledger,
};
use restante::wire::{Stream, TlsAccept};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep},
};

/// What all hosts have in common.
#[derive(Debug)]
pub struct Surroundings {
    pub ledger: Arc<Ledger>,
    pub chance: Chance,
    pub tls: Arc<dyn TlsAccept>,
}

/// One connection.
pub struct Talk {
    host: Arc<Host>,
    around: Arc<Surroundings>,
    stream: Box<dyn Stream>,
    script: Script,
    input: Vec<u8>,
    inside_tls: bool,
    greeted: bool,
    mail: bool,
    recipients: Vec<String>,
}

/// How a command was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Good,
    Other,
}

/// The session is over.
struct Over;

impl Talk {
    pub fn new(
        host: Arc<Host>,
        around: Arc<Surroundings>,
        stream: Box<dyn Stream>,
        script: Script,
    ) -> Self {
        Self {
            host,
            around,
            stream,
            script,
            input: Vec::new(),
            inside_tls: false,
            greeted: false,
            mail: false,
            recipients: Vec::new(),
        }
    }

    pub async fn run(mut self) {
        let greeting = format!("220 {} ESMTP", self.host.name);
        if self.answer(Stage::Greeting, &greeting).await.is_err() {
            return;
        }
        loop {
            let Ok(line) = self.line().await else { return };
            if self.command(&line).await.is_err() {
                return;
            }
        }
    }

    async fn command(&mut self, line: &str) -> Result<(), Over> {
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" => self.ehlo().await,
            "HELO" => {
                self.greeted = true;
                self.say(&format!("250 {}", self.host.name)).await
            }
            "STARTTLS" => self.start_tls().await,
            "MAIL" if !self.greeted => self.say("503 5.5.1 Who are you?").await,
            "MAIL" => {
                self.reset();
                // Whose mail it is, nobody has said yet.
                self.note_refusal(Stage::Mail, &[format!("@{}", self.host.domain())]);
                self.mail = self.answer(Stage::Mail, "250 2.1.0 Ok").await? == Answer::Good;
                Ok(())
            }
            "RCPT" => self.rcpt(line).await,
            "DATA" => self.data().await,
            "RSET" => {
                self.reset();
                self.say("250 2.0.0 Ok").await
            }
            "QUIT" => {
                self.say("221 2.0.0 Bye").await?;
                Err(Over)
            }
            _ => self.say("500 5.5.1 What?").await,
        }
    }

    fn reset(&mut self) {
        self.mail = false;
        self.recipients.clear();
    }

    async fn ehlo(&mut self) -> Result<(), Over> {
        if self.script.old {
            return self.say("502 5.5.1 What?").await;
        }
        let mut lines = vec![self.host.name.to_owned(), "8BITMIME".to_owned()];
        if self.host.pipelining {
            lines.push("PIPELINING".to_owned());
        }
        if self.host.tls && !self.inside_tls && self.script.tls != Tls::NotOffered {
            lines.push("STARTTLS".to_owned());
        } else if self.host.tls && !self.inside_tls {
            self.unsafe_now();
        }
        lines.push("SIZE 50000000".to_owned());
        let last = lines.pop().unwrap_or_default();
        let mut reply: String = lines.iter().map(|l| format!("250-{l}\r\n")).collect();
        reply.push_str(&format!("250 {last}"));
        let stage = if self.inside_tls { Stage::EhloInTls } else { Stage::Ehlo };
        self.greeted = self.answer(stage, &reply).await? == Answer::Good;
        Ok(())
    }

    fn unsafe_now(&self) {
        let domain = self.host.domain().to_owned();
        self.around.ledger.book().unsafe_domains.insert(domain);
    }

    async fn start_tls(&mut self) -> Result<(), Over> {
        if self.act(Stage::StartTls).is_some() || self.script.tls == Tls::Broken {
            self.unsafe_now();
        }
        if self.answer(Stage::StartTls, "220 2.0.0 Go ahead").await? != Answer::Good {
            return Ok(());
        }
        if self.script.tls == Tls::Broken {
            let _ = self.stream.write_all(b"no handshake at all\r\n").await;
            return Err(Over);
        }
        let nothing = Box::new(tokio::io::join(tokio::io::empty(), tokio::io::sink()));
        let plain = std::mem::replace(&mut self.stream, nothing);
        let (stream, _) = self.around.tls.accept(plain).await.map_err(|_| Over)?;
        self.stream = stream;
        self.inside_tls = true;
        self.greeted = false;
        self.reset();
        Ok(())
    }

    async fn rcpt(&mut self, line: &str) -> Result<(), Over> {
        if !self.mail {
            return self.say("503 5.5.1 MAIL first").await;
        }
        let to = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
        if to.split('@').next().is_some_and(|local| local.ends_with("no")) {
            self.around.ledger.book().refused.insert(to);
            return self.say("550 5.1.1 No such user").await;
        }
        if let Some(wait) = self.host.greylist {
            let now = Instant::now();
            let first = *self.host.known.lock().expect("unbroken").entry(to.clone()).or_insert(now);
            if now < first + wait {
                return self.say("450 4.7.1 Greylisted, come back later").await;
            }
        }
        self.note_refusal(Stage::Rcpt, std::slice::from_ref(&to));
        if self.answer(Stage::Rcpt, "250 2.1.5 Ok").await? == Answer::Good {
            self.recipients.push(to);
        }
        Ok(())
    }

    /// The script refuses these for good.
    fn note_refusal(&self, stage: Stage, recipients: &[String]) {
        if let Some(Act::Say(500..=599, _)) = self.act(stage) {
            self.around.ledger.book().refused.extend(recipients.iter().cloned());
        }
    }

    async fn data(&mut self) -> Result<(), Over> {
        if self.recipients.is_empty() {
            return self.say("554 5.5.1 No valid recipients").await;
        }
        self.note_refusal(Stage::Data, &self.recipients);
        if self.answer(Stage::Data, "354 Go ahead").await? != Answer::Good {
            return Ok(());
        }
        let content = self.content().await?;
        let recipients = std::mem::take(&mut self.recipients);
        self.reset();
        self.note_refusal(Stage::Dot, &recipients);
        match self.act(Stage::Dot) {
            Some(Act::Say(..) | Act::Hangup | Act::Drop) => {
                self.answer(Stage::Dot, "").await.map(|_| ())
            }
            Some(Act::TakeAndDrop) => {
                self.take(&content, &recipients);
                Err(Over)
            }
            Some(Act::Slow(_)) | None => {
                let taken = self.take(&content, &recipients);
                self.answer(Stage::Dot, "250 2.0.0 Ok, mine now").await?;
                self.around.ledger.answered(&taken);
                Ok(())
            }
        }
    }

    /// Content up to the final dot, dots unstuffed (RFC 5321 §4.5.2).
    async fn content(&mut self) -> Result<Vec<u8>, Over> {
        if let Some(act) = self.act(Stage::Content) {
            self.more().await?;
            self.look(&self.input);
            match act {
                Act::Slow(time) => sleep(time).await,
                Act::Hangup => {
                    self.say("421 4.3.2 Closing").await?;
                    return Err(Over);
                }
                // In the midst there is no turn to answer.
                Act::Say(..) | Act::Drop | Act::TakeAndDrop => return Err(Over),
            }
        }
        let end = loop {
            if self.input.starts_with(b".\r\n") {
                break 0;
            }
            if let Some(at) = memchr::memmem::find(&self.input, b"\r\n.\r\n") {
                break at + 2;
            }
            self.more().await.inspect_err(|_| self.look(&self.input))?;
        };
        let wire: Vec<u8> = self.input.drain(..end + 3).take(end).collect();
        let mut content = Vec::with_capacity(wire.len());
        for line in wire.split_inclusive(|b| *b == b'\n') {
            content.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
        }
        self.look(&content);
        Ok(content)
    }

    /// What came, whether taken or not: a customer's words must not be read here.
    fn look(&self, content: &[u8]) {
        let may = match self.host.openness {
            Openness::Open => true,
            Openness::Tls => self.inside_tls,
            Openness::Own => false,
        };
        if !may && memchr::memmem::find(content, b"SECRET").is_some() {
            self.around.ledger.wrong(format!(
                "{} read a message (inside TLS: {})",
                self.host.name, self.inside_tls
            ));
        }
    }

    /// Hands over what is taken to the ledger.
    fn take(&self, content: &[u8], recipients: &[String]) -> Vec<usize> {
        let text = String::from_utf8_lossy(content);
        let ledger = &self.around.ledger;
        let id = if let Some(label) = field(&text, "X-Label") {
            let offered = ledger.book().offered.get(label).map(|o| o.content.clone());
            if !offered.is_some_and(|offered| content.ends_with(&offered)) {
                ledger.wrong(format!("{label} did not arrive as it was sent"));
            }
            ledger.id_of(label)
        } else if text.contains("multipart/report") {
            let id = field(&text, "Message-ID").unwrap_or_default().trim_start_matches('<');
            let id = id.split('@').next().unwrap_or_default();
            report(ledger, id, &text);
            Some(id.to_owned())
        } else {
            // A notice says nothing of its id in the queue.
            recipients.first().and_then(|to| ledger.notice_for(to))
        };
        let id = id.unwrap_or_else(|| "of nobody".to_owned());
        recipients.iter().map(|to| ledger.taken(&id, to, self.host.name)).collect()
    }

    fn act(&self, stage: Stage) -> Option<Act> {
        self.script.acts.iter().find(|(at, _)| *at == stage).map(|(_, act)| *act)
    }

    /// The usual reply, or what the script has in its place.
    async fn answer(&mut self, stage: Stage, usual: &str) -> Result<Answer, Over> {
        match self.act(stage) {
            None => self.say(usual).await.map(|()| Answer::Good),
            Some(Act::Say(code, text)) => {
                self.say(&format!("{code} {text}")).await.map(|()| Answer::Other)
            }
            Some(Act::Hangup) => {
                self.say("421 4.3.2 Closing").await?;
                Err(Over)
            }
            Some(Act::Drop | Act::TakeAndDrop) => Err(Over),
            Some(Act::Slow(time)) => {
                sleep(time).await;
                self.say(usual).await.map(|()| Answer::Good)
            }
        }
    }

    async fn say(&mut self, line: &str) -> Result<(), Over> {
        sleep(self.around.chance.up_to(Duration::from_millis(80))).await;
        self.stand_still().await;
        let wire = format!("{line}\r\n");
        self.stream.write_all(wire.as_bytes()).await.map_err(|_| Over)?;
        self.stream.flush().await.map_err(|_| Over)
    }

    async fn line(&mut self) -> Result<String, Over> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.input, b"\r\n") {
                let line = self.input.drain(..at + 2).take(at).collect();
                return String::from_utf8(line).map_err(|_| Over);
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Result<(), Over> {
        let mut buffer = [0; 4096];
        let length = self.stream.read(&mut buffer).await.map_err(|_| Over)?;
        self.input.extend_from_slice(&buffer[..length]);
        self.stand_still().await;
        if length == 0 { Err(Over) } else { Ok(()) }
    }

    /// While the host is cut off nothing moves.
    async fn stand_still(&mut self) {
        while let Some(rest) = self.host.cut(self.around.ledger.trace.age()) {
            sleep(rest).await;
        }
    }
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let head = text.split("\r\n\r\n").next().unwrap_or_default();
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// RFC 3464: whom the report names, and as what.
fn report(ledger: &Ledger, id: &str, text: &str) {
    let (mut failed, mut delayed) = (BTreeSet::new(), BTreeSet::new());
    let mut to = String::new();
    for line in text.lines() {
        if let Some(address) = line.strip_prefix("Final-Recipient: ") {
            to = address.split(';').next_back().unwrap_or_default().trim().to_owned();
        } else if let Some(action) = line.strip_prefix("Action: ") {
            let named = if action.trim() == "failed" { &mut failed } else { &mut delayed };
            named.insert(to.clone());
        }
    }
    ledger.trace.note(format_args!("report {id}: failed {failed:?}, delayed {delayed:?}"));
    let mut book = ledger.book();
    book.failed.insert(id.to_owned(), failed);
    book.delayed.insert(id.to_owned(), delayed);
}
