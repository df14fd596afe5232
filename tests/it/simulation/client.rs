//! The customer's own mail server: hands messages in, and does so again when it is put off or does
//! not know what became of one.

use super::{
    chance::Chance,
    gateway::Gateway,
    ledger::{Ledger, Offered},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    time::{sleep, timeout},
};

/// A message that is to go out.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Its name; what a transaction is called begins with it.
    pub name: String,
    /// Domain of each recipient, and whether nobody is there by that name.
    pub to: Vec<(&'static str, bool)>,
    pub null_sender: bool,
    pub size: usize,
    /// When it is first offered.
    pub at: Duration,
    /// Commands go out together (RFC 2920).
    pub pipelined: bool,
    /// The first transaction breaks off there.
    pub cut: Option<Cut>,
}

/// Where a client goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    InContent,
    /// Without reading the answer.
    AfterDot,
}

/// How an offer ended.
enum Ended {
    Accepted(String),
    PutOff(String),
    Lost,
}

/// Offers a letter until it is acknowledged.
pub struct Client {
    pub gateway: Arc<Gateway>,
    pub ledger: Arc<Ledger>,
    pub chance: Chance,
}

impl Client {
    pub async fn send(self, letter: Letter) {
        sleep(letter.at).await;
        for attempt in 1.. {
            let cut = letter.cut.filter(|_| attempt == 1);
            let label = format!("{}-{attempt}", letter.name);
            let offered = offered(&letter, &label);
            let Some(stream) = self.gateway.connect() else {
                sleep(Duration::from_secs(10)).await;
                continue;
            };
            self.ledger.offer(&label, offered.clone());
            let mut session = Session { stream, input: Vec::new(), chance: &self.chance };
            let patience = Duration::from_secs(20 * 60);
            match timeout(patience, session.offer(&letter, &offered, cut)).await {
                Ok(Ended::Accepted(id)) => return self.ledger.acknowledged(&label, &id),
                Ok(Ended::PutOff(reply)) => self.ledger.put_off(&label, &reply),
                Ok(Ended::Lost) | Err(_) => {
                    self.ledger.trace.note(format_args!("{label} was lost on its way in"));
                }
            }
            sleep(Duration::from_secs(30) + self.chance.up_to(Duration::from_secs(300))).await;
        }
    }
}

fn offered(letter: &Letter, label: &str) -> Offered {
    let address = |(n, (domain, nobody)): (usize, &(&str, bool))| {
        format!("{label}r{n}{}@{domain}", if *nobody { "no" } else { "" })
    };
    let to: Vec<_> = letter.to.iter().enumerate().map(address).collect();
    let mut content = format!(
        "From: Ann <ann@example.org>\r\nTo: {}\r\nSubject: SECRET\r\n\
         Message-ID: <{label}@example.org>\r\nX-Label: {label}\r\n\r\n.SECRET of {label}\r\n",
        to.first().map_or("nobody", String::as_str)
    )
    .into_bytes();
    while content.len() < letter.size {
        content.extend_from_slice(b"SECRET and more of it, line by line until it is enough\r\n");
    }
    Offered { to, content, acknowledged: None }
}

struct Session<'a> {
    stream: DuplexStream,
    input: Vec<u8>,
    chance: &'a Chance,
}

impl Session<'_> {
    async fn offer(&mut self, letter: &Letter, offered: &Offered, cut: Option<Cut>) -> Ended {
        self.dialogue(letter, offered, cut).await.unwrap_or(Ended::Lost)
    }

    async fn dialogue(
        &mut self,
        letter: &Letter,
        offered: &Offered,
        cut: Option<Cut>,
    ) -> Option<Ended> {
        self.reply().await.filter(|r| r.starts_with('2'))?;
        let from = if letter.null_sender { "" } else { "ann@example.org" };
        let mut commands = vec!["EHLO mta.example.org".to_owned(), format!("MAIL FROM:<{from}>")];
        commands.extend(offered.to.iter().map(|to| format!("RCPT TO:<{to}>")));
        commands.push("DATA".to_owned());
        if letter.pipelined {
            // EHLO comes alone, for only its reply says that the rest may come together.
            self.say(&commands.remove(0)).await?;
            self.reply().await.filter(|r| r.starts_with('2'))?;
            self.say(&commands.join("\r\n")).await?;
        }
        let mut refused = None;
        for command in commands {
            if !letter.pipelined {
                self.say(&command).await?;
            }
            let reply = self.reply().await?;
            if !reply.starts_with(['2', '3']) {
                refused.get_or_insert(reply);
                if !letter.pipelined {
                    break;
                }
            }
        }
        if let Some(reply) = refused {
            return Some(Ended::PutOff(reply));
        }
        let mut wire = stuffed(&offered.content);
        if cut == Some(Cut::InContent) {
            wire.truncate(wire.len() / 2);
        }
        for piece in wire.chunks(16 * 1024) {
            sleep(self.chance.up_to(Duration::from_millis(20))).await;
            self.stream.write_all(piece).await.ok()?;
        }
        if cut.is_some() {
            return None;
        }
        let reply = self.reply().await?;
        Some(match reply.strip_prefix("250 2.0.0 Ok: queued as ") {
            Some(id) => Ended::Accepted(id.to_owned()),
            None => Ended::PutOff(reply),
        })
    }

    async fn say(&mut self, line: &str) -> Option<()> {
        sleep(self.chance.up_to(Duration::from_millis(20))).await;
        self.stream.write_all(format!("{line}\r\n").as_bytes()).await.ok()
    }

    /// The last line of the next reply.
    async fn reply(&mut self) -> Option<String> {
        loop {
            while let Some(at) = memchr::memmem::find(&self.input, b"\r\n") {
                let line: Vec<u8> = self.input.drain(..at + 2).take(at).collect();
                let line = String::from_utf8(line).ok()?;
                if line.as_bytes().get(3) != Some(&b'-') {
                    return Some(line);
                }
            }
            let mut buffer = [0; 1024];
            let length = self.stream.read(&mut buffer).await.ok().filter(|length| *length > 0)?;
            self.input.extend_from_slice(&buffer[..length]);
        }
    }
}

/// RFC 5321 §4.5.2, with the final dot.
fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(content.len() + 8);
    for line in content.split_inclusive(|b| *b == b'\n') {
        if line.starts_with(b".") {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
    }
    wire.extend_from_slice(b".\r\n");
    wire
}
