//! What was promised, and what arrived: who is to get what, and how often, whatever became of the
//! gateway in between.

use super::sink::Received;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

pub const SENDER: &str = "sender@example.org";

/// Kinds of recipients: the first part of the address says how their host answers (see [`judge`]),
/// the last where they are.
const KINDS: &[(&str, Fate)] = &[
    ("ok@partner.test", Fate::Delivered),
    ("late@partner.test", Fate::Delivered),
    ("no@partner.test", Fate::Reported),
    ("ok@plain.test", Fate::Delivered),
    ("late@plain.test", Fate::Delivered),
    ("ok@stranger.test", Fate::Noticed),
    ("late@stranger.test", Fate::Noticed),
    ("no@stranger.test", Fate::Reported),
];

/// How hosts answer RCPT: `no-…` is refused for good, `late-…` is put off once.
pub fn judge(address: &str, before: u32) -> Option<&'static str> {
    if address.starts_with("no-") {
        return Some("550 5.1.1 nobody here");
    }
    (address.starts_with("late-") && before == 0).then_some("451 4.2.0 come again")
}

/// What is to become of a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fate {
    /// The message, once.
    Delivered,
    /// A notice of it, once.
    Noticed,
    /// A report to the sender, once.
    Reported,
}

/// A message to hand in.
#[derive(Debug)]
pub struct Letter {
    pub number: u64,
    pub to: Vec<String>,
    pub content: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    to: Vec<(String, Fate)>,
    /// Its queue id, once it was acknowledged.
    id: Option<String>,
    /// There was no room for it: nothing of it may ever be seen.
    refused: bool,
}

/// The book of promises.
#[derive(Debug)]
pub struct Ledger {
    seed: u64,
    /// Most bytes of a letter but for a few large ones.
    pub small: usize,
    next: AtomicU64,
    acknowledged: AtomicU64,
    entries: Mutex<BTreeMap<u64, Entry>>,
    refusals: Mutex<Vec<String>>,
    /// When the gateway was killed.
    kills: Mutex<Vec<Instant>>,
}

/// What a host received.
#[derive(Debug)]
pub struct Box<'a> {
    pub host: &'static str,
    pub messages: &'a [Received],
}

/// A whole message as a host took it.
#[derive(Debug, Clone, Copy)]
struct Copy {
    host: usize,
    connection: u64,
    at: Instant,
}

impl Ledger {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            small: 8 * 1024,
            next: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            entries: Mutex::default(),
            refusals: Mutex::default(),
            kills: Mutex::default(),
        }
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<u64, Entry>> {
        self.entries.lock().expect("lock")
    }

    /// The next letter; it is in the ledger before anybody has seen it.
    pub fn write(&self) -> Letter {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut random = StdRng::seed_from_u64(self.seed ^ number.rotate_left(32));
        let count = random.random_range(1..=4);
        let kinds: BTreeSet<usize> =
            (0..count).map(|_| random.random_range(0..KINDS.len())).collect();
        let to = kinds.into_iter().map(|kind| {
            let (address, fate) = KINDS[kind];
            (address.replace('@', &format!("-{number}@")), fate)
        });
        let to: Vec<_> = to.collect();
        let content = self.content(number);
        let letter = Letter { number, to: to.iter().map(|(a, _)| a.clone()).collect(), content };
        self.entries().insert(number, Entry { to, id: None, refused: false });
        letter
    }

    /// Small ones mostly, and some that the store keeps in files of their own.
    fn content(&self, number: u64) -> Vec<u8> {
        let mut random = StdRng::seed_from_u64(!self.seed ^ number);
        let size = if number % 20 == 7 { 300_000 } else { random.random_range(1..=self.small) };
        let mut text = format!("From: {SENDER}\r\nSubject: letter {number}\r\n\r\n").into_bytes();
        while text.len() < size {
            let words = format!("{number} {:016x} ", random.random::<u64>());
            let count = (size - text.len()).div_ceil(words.len()).min(40);
            text.extend_from_slice(words.repeat(count).as_bytes());
            text.extend_from_slice(b"\r\n");
        }
        text
    }

    pub fn acknowledge(&self, number: u64, id: &str) {
        self.entries().get_mut(&number).expect("written").id = Some(id.to_owned());
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    pub fn refuse(&self, number: u64, reply: String) {
        if reply.starts_with("452") {
            self.entries().get_mut(&number).expect("written").refused = true;
        }
        self.refusals.lock().expect("lock").push(reply);
    }

    /// Replies that refused a letter, since they were last asked for.
    pub fn refusals(&self) -> Vec<String> {
        std::mem::take(&mut *self.refusals.lock().expect("lock"))
    }

    /// The gateway has just been killed.
    pub fn killed(&self) {
        self.kills.lock().expect("lock").push(Instant::now());
    }

    /// Recipients whose one notice is in the vault: those acknowledged, and the others.
    pub fn noticed(&self) -> (HashSet<String>, HashSet<String>) {
        let mut sets = (HashSet::new(), HashSet::new());
        for entry in self.entries().values() {
            let noticed = entry.to.iter().filter(|(_, fate)| *fate == Fate::Noticed);
            let noticed = noticed.map(|(address, _)| address.clone());
            if entry.id.is_some() { sets.0.extend(noticed) } else { sets.1.extend(noticed) }
        }
        sets
    }

    /// Everything that is wrong about what arrived once all is delivered; nothing may be. `log` is
    /// the gateway's.
    ///
    /// What may arrive again, and why: a transaction whose content had gone over when the gateway
    /// was killed, and of which the queue did not yet know. A gateway writes down what became of a
    /// transaction before it begins another on the same connection, so it is the last one of its
    /// connection; the copies have a kill between them; and what the log once called settled (it
    /// does so after the commit) never goes out again.
    pub fn faults(&self, boxes: &[Box<'_>], log: &str) -> (Vec<String>, u64) {
        let mut faults = Vec::new();
        let copies = self.copies(boxes, &mut faults);
        let entries = self.entries();
        for entry in entries.values() {
            let arrived = |to: &&(String, Fate)| copies.contains_key(*to);
            let missing: Vec<_> = entry.to.iter().filter(|to| !arrived(to)).collect();
            if entry.refused && missing.len() < entry.to.len() {
                faults.push(format!("refused and yet sent: {:?}", entry.to));
            }
            if !missing.is_empty() && entry.id.is_some() {
                faults.push(format!("acknowledged and lost: {:?} {missing:?}", entry.id));
            } else if !missing.is_empty() && missing.len() < entry.to.len() {
                faults.push(format!("half of a message: {:?} without {missing:?}", entry.to));
            }
        }
        drop(entries);
        Settled::read(log).twice(&mut faults);
        let last = last_of_connections(boxes);
        let mut repeats = 0;
        for (key, copies) in &copies {
            for pair in copies.windows(2) {
                repeats += 1;
                if let Some(why) = self.repeat(&pair[0], &pair[1], &last) {
                    faults.push(format!("{key:?} arrived again: {why}"));
                }
            }
        }
        (faults, repeats)
    }

    /// Why a second copy should not be; `None` if a kill excuses it.
    fn repeat(
        &self,
        first: &Copy,
        second: &Copy,
        last: &HashMap<(usize, u64), Instant>,
    ) -> Option<String> {
        let kills = self.kills.lock().expect("lock");
        if !kills.iter().any(|kill| first.at < *kill && *kill < second.at) {
            return Some("nobody was killed in between".to_owned());
        }
        let end = last.get(&(first.host, first.connection));
        (end != Some(&first.at)).then(|| "its connection went on to another message".to_owned())
    }

    /// Who got what, in order of time; what nobody was promised is a fault.
    fn copies(
        &self,
        boxes: &[Box<'_>],
        faults: &mut Vec<String>,
    ) -> BTreeMap<(String, Fate), Vec<Copy>> {
        let promised: HashMap<String, (u64, Fate)> = self
            .entries()
            .iter()
            .flat_map(|(n, entry)| entry.to.iter().map(|(a, fate)| (a.clone(), (*n, *fate))))
            .collect();
        let mut copies: BTreeMap<_, Vec<Copy>> = BTreeMap::new();
        let mut marks = HashMap::new();
        for (host, mailbox) in boxes.iter().enumerate() {
            for message in mailbox.messages {
                let copy = Copy { host, connection: message.connection, at: message.at };
                for (address, fate) in told(mailbox.host, message) {
                    let Some((number, due)) = promised.get(&address) else {
                        faults.push(format!("{}: nobody was promised {address}", mailbox.host));
                        continue;
                    };
                    if *due != fate {
                        faults.push(format!("{address} is {fate:?} and was to be {due:?}"));
                    }
                    if fate == Fate::Delivered && !message.content.ends_with(&self.content(*number))
                    {
                        faults.push(format!("{address} got something else"));
                    }
                    // Two notices or reports of one recipient are copies of one message.
                    let mark = message_id(&message.content);
                    let known =
                        marks.entry((address.clone(), fate)).or_insert_with(|| mark.clone());
                    if fate != Fate::Delivered && *known != mark {
                        faults.push(format!("two for {address}, {fate:?}: {known} {mark}"));
                    }
                    copies.entry((address, fate)).or_default().push(copy);
                }
            }
        }
        copies.values_mut().for_each(|copies| copies.sort_by_key(|copy| copy.at));
        copies
    }
}

/// The last message of each connection of each host.
fn last_of_connections(boxes: &[Box<'_>]) -> HashMap<(usize, u64), Instant> {
    let mut last = HashMap::new();
    for (host, mailbox) in boxes.iter().enumerate() {
        for message in mailbox.messages {
            let end = last.entry((host, message.connection)).or_insert(message.at);
            *end = message.at.max(*end);
        }
    }
    last
}

/// Of whom a message speaks: those it was delivered to, whose notice it is, or of whom it reports.
fn told(host: &str, message: &Received) -> Vec<(String, Fate)> {
    let to = message.to.iter().map(|path| path.split(['<', '>']).nth(1).unwrap_or(path).to_owned());
    match host {
        "inside" => {
            let text = String::from_utf8_lossy(&message.content);
            let fields = text.lines().filter_map(|l| l.strip_prefix("Final-Recipient: rfc822; "));
            fields.map(|address| (address.trim().to_owned(), Fate::Reported)).collect()
        }
        "stranger" => to.map(|address| (address, Fate::Noticed)).collect(),
        _ => to.map(|address| (address, Fate::Delivered)).collect(),
    }
}

fn message_id(content: &[u8]) -> String {
    let head = String::from_utf8_lossy(&content[..content.len().min(4096)]).into_owned();
    let field = head.lines().find_map(|line| line.strip_prefix("Message-ID: "));
    field.unwrap_or_default().trim().to_owned()
}

/// Outcomes that the log tells of, each after its commit: id, domain, word, and how many.
#[derive(Debug, Default)]
struct Settled<'a>(HashMap<(&'a str, &'a str, &'static str), usize>);

impl<'a> Settled<'a> {
    fn read(log: &'a str) -> Self {
        let mut settled = HashMap::new();
        for line in log.lines() {
            let Some((before, after)) = line.split_once(": to=<…@") else { continue };
            let id = before.split_whitespace().last();
            let (Some(id), Some((domain, rest))) = (id, after.split_once('>')) else { continue };
            for word in ["sent", "sealed", "bounced"] {
                if rest.contains(&format!("status={word} ")) {
                    *settled.entry((id, domain, word)).or_default() += 1;
                }
            }
        }
        Self(settled)
    }

    /// No recipient comes to an end twice. A letter has up to so many recipients at a domain; mail
    /// of the gateway's own has one.
    fn twice(&self, faults: &mut Vec<String>) {
        for ((id, domain, word), count) in &self.0 {
            let most = match (*domain, *word) {
                ("partner.test", "bounced") => 1,
                ("partner.test" | "plain.test", _) => 2,
                ("stranger.test", "sealed") => 3,
                _ => 1,
            };
            if *count > most {
                faults.push(format!("{id} at {domain} was {word} {count} times"));
            }
        }
    }
}
