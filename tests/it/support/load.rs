//! A gateway under load: hosts that keep count, clients that do not mind when it dies, and the
//! ledger of what it promised them.

use super::{
    dns::Zone,
    free_port,
    gateway::{Gateway, Settings},
    ledger::{self, Ledger, Letter, SENDER},
    pki::Pki,
    sink::{Manner, Sink},
};
use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

const PARTNER: &str = "127.0.21.11";
const PLAIN: &str = "127.0.21.12";
const STRANGER: &str = "127.0.21.21";
const INSIDE: &str = "127.0.21.31";

const POLICIES: &[(&str, &str)] = &[(
    "partners.toml",
    "[[partner]]\ndomains = [\"partner.test\"]\nlevel = \"secure\"\nmatch = [\"mx.partner.test\"]\n\
     [[partner]]\ndomains = [\"plain.test\"]\nlevel = \"none\"\n",
)];

/// Gateway, hosts and ledger.
#[derive(Debug)]
pub struct Scene {
    pub gateway: Gateway,
    pub ledger: Arc<Ledger>,
    partner: Sink,
    plain: Sink,
    stranger: Sink,
    inside: Sink,
    _zone: Zone,
}

impl Scene {
    /// Everything but the gateway runs; the gateway's files lie in `dir/gateway`.
    pub fn set(dir: &Path, ledger: Ledger) -> Self {
        let port = free_port(&[PARTNER, PLAIN, STRANGER, INSIDE]);
        let pki = Pki::new(dir);
        let zone = Zone::start();
        let host = |domain: &str, address: &str, tls| {
            zone.mail(domain, &[(10, &format!("mx.{domain}"), address)]);
            let address = format!("{address}:{port}").parse().expect("address");
            Sink::start(address, Manner { tls, judge: Some(ledger::judge), ..Manner::default() })
        };
        let partner = host("partner.test", PARTNER, Some(pki.leaf("mx.partner.test")));
        let plain = host("plain.test", PLAIN, None);
        let stranger = host("stranger.test", STRANGER, None);
        let inside = host("inside.test", INSIDE, None);
        let settings = Settings {
            nameserver: Some(zone.address),
            mx_port: port,
            anchors: Some(pki.anchors),
            inside: Some(inside.address),
            delivery: "retry = [\"1s\"]".to_owned(),
            log: "info",
            ..Settings::default()
        };
        let gateway = Gateway::prepare(&dir.join("gateway"), &settings, POLICIES);
        let ledger = Arc::new(ledger);
        Self { gateway, ledger, partner, plain, stranger, inside, _zone: zone }
    }

    fn hosts(&self) -> [(&'static str, &Sink); 4] {
        [
            ("partner", &self.partner),
            ("plain", &self.plain),
            ("stranger", &self.stranger),
            ("inside", &self.inside),
        ]
    }

    /// Messages that arrived anywhere so far.
    pub fn arrived(&self) -> u64 {
        self.hosts().iter().map(|(_, sink)| sink.count()).sum()
    }

    /// Clients that hand in letters until the gateway dies or they are stopped.
    pub fn load(&self, sessions: usize) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..sessions).map(|_| {
            let (server, ledger, stop) =
                (self.gateway.smtp, Arc::clone(&self.ledger), Arc::clone(&stop));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) && session(server, &ledger, &stop).is_ok() {}
            })
        });
        let threads = threads.collect();
        Load { stop, threads }
    }

    pub fn kill(&mut self) {
        self.gateway.kill();
        self.ledger.killed();
    }

    /// Waits until nothing is left to do.
    pub fn drain(&self) {
        super::wait_minutes(5, "an empty queue", || {
            let queue = self.gateway.json(&["queue", "list"]);
            queue.as_array()?.is_empty().then_some(())
        });
    }

    /// Waits until nothing is left to do, and compares what arrived with the ledger. Returns how
    /// many copies were excused by a kill.
    pub fn settle(&self, context: &str) -> u64 {
        self.drain();
        let boxes = self.hosts().map(|(host, sink)| (host, sink.messages()));
        let boxes: Vec<_> =
            boxes.iter().map(|(host, messages)| ledger::Box { host, messages }).collect();
        let (mut faults, repeats) = self.ledger.faults(&boxes, &self.gateway.log_text());
        self.grants(&mut faults);
        let shown: Vec<_> = faults.iter().take(20).collect();
        assert!(faults.is_empty(), "{context}: {} faults, the first: {shown:#?}", faults.len());
        repeats
    }

    /// One grant for each recipient that was to get a notice.
    fn grants(&self, faults: &mut Vec<String>) {
        let mut grants = HashMap::<String, u32>::new();
        for grant in self.gateway.json(&["vault", "list"]).as_array().expect("an array") {
            let recipient = grant["recipient"].as_str().expect("a recipient").to_owned();
            *grants.entry(recipient).or_default() += 1;
        }
        let (promised, perhaps) = self.ledger.noticed();
        for address in &promised {
            if !grants.contains_key(address) {
                faults.push(format!("no grant for {address}"));
            }
        }
        for (address, count) in grants {
            if count != 1 || !(promised.contains(&address) || perhaps.contains(&address)) {
                faults.push(format!("{count} grants for {address}"));
            }
        }
    }
}

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Lets each client finish its letter.
    pub fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a client");
        }
    }
}

/// Up to ten letters over one connection.
fn session(server: SocketAddr, ledger: &Ledger, stop: &AtomicBool) -> io::Result<()> {
    let mut client = Client::open(server)?;
    for _ in 0..10 {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let letter = ledger.write();
        match client.hand_in(&letter)? {
            Ok(id) => ledger.acknowledge(letter.number, &id),
            Err(reply) => {
                ledger.refuse(letter.number, reply);
                std::thread::park_timeout(Duration::from_millis(20));
            }
        }
    }
    client.ask("QUIT").map(drop)
}

/// A client to whom a dead server is no surprise.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    pub fn open(server: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(server)?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        stream.set_nodelay(true)?;
        let mut client = Self { reader: BufReader::new(stream) };
        client.reply()?;
        client.ask("EHLO mta.example.org")?;
        Ok(client)
    }

    /// Hands a letter in: its queue id, or the reply that refused it.
    pub fn hand_in(&mut self, letter: &Letter) -> io::Result<Result<String, String>> {
        let mut commands = vec![format!("MAIL FROM:<{SENDER}>")];
        commands.extend(letter.to.iter().map(|to| format!("RCPT TO:<{to}>")));
        commands.push("DATA".to_owned());
        for command in &commands {
            let reply = self.ask(command)?;
            if !reply.starts_with(['2', '3']) {
                self.ask("RSET")?;
                return Ok(Err(reply));
            }
        }
        let mut content = letter.content.clone();
        content.extend_from_slice(b".\r\n");
        self.reader.get_mut().write_all(&content)?;
        let reply = self.reply()?;
        Ok(match reply.strip_prefix("250 2.0.0 Ok: queued as ") {
            Some(id) => Ok(id.trim().to_owned()),
            None => Err(reply),
        })
    }

    pub fn ask(&mut self, command: &str) -> io::Result<String> {
        self.reader.get_mut().write_all(format!("{command}\r\n").as_bytes())?;
        self.reply()
    }

    fn reply(&mut self) -> io::Result<String> {
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(line.trim_end().to_owned());
            }
        }
    }
}
