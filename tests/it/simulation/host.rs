//! A next hop: where it is, and how it behaves, by script, by weather or by chance.

use super::chance::Chance;
use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::Mutex,
    time::Duration,
};
use tokio::time::Instant;

/// Where in a session something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Greeting,
    Ehlo,
    StartTls,
    /// The EHLO inside TLS.
    EhloInTls,
    Mail,
    Rcpt,
    Data,
    /// Once some of the content is here.
    Content,
    /// The final dot.
    Dot,
}

/// What is done there instead of the usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Another reply.
    Say(u16, &'static str),
    /// 421, and the connection is closed.
    Hangup,
    /// The connection is closed without a word.
    Drop,
    /// The message is taken, and the connection closed without a word.
    TakeAndDrop,
    /// Nothing for that long, then the usual.
    Slow(Duration),
}

/// How the host's address answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Link {
    #[default]
    Up,
    /// Connections are refused.
    Refused,
    /// Nothing answers.
    Dead,
}

/// What the host makes of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tls {
    #[default]
    Usual,
    NotOffered,
    /// Offered, and then no handshake.
    Broken,
}

/// How one connection goes.
#[derive(Debug, Clone, Default)]
pub struct Script {
    pub link: Link,
    pub tls: Tls,
    pub acts: Vec<(Stage, Act)>,
    /// EHLO is not known here (RFC 5321 §3.2: HELO then).
    pub old: bool,
}

impl Script {
    pub fn at(stage: Stage, act: Act) -> Self {
        Self { acts: vec![(stage, act)], ..Self::default() }
    }
    pub fn link(link: Link) -> Self {
        Self { link, ..Self::default() }
    }
    pub fn tls(tls: Tls) -> Self {
        Self { tls, ..Self::default() }
    }
}

/// How a host behaves for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    Refused,
    Dead,
    /// Cut off from us: new connections get no answer, and on old ones nothing moves.
    Cut,
    NoTls,
    BrokenTls,
    At(Stage, Act),
}

/// A while, by the age of the run.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub from: Duration,
    pub until: Duration,
    pub weather: Weather,
}

/// What of a customer's content may arrive at a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Openness {
    /// All of it, in the open too.
    Open,
    /// Inside TLS only.
    Tls,
    /// Never: mail of the gateway's own only.
    Own,
}

#[derive(Debug)]
pub struct Host {
    pub name: &'static str,
    /// In the order in which DNS gives them.
    pub addresses: Vec<IpAddr>,
    /// Addresses behind which nothing answers.
    pub deaf: Vec<IpAddr>,
    pub openness: Openness,
    pub tls: bool,
    pub pipelining: bool,
    /// Who is not known yet is put off for that long.
    pub greylist: Option<Duration>,
    pub weather: Vec<Window>,
    /// When its name can't be looked up.
    pub hidden: Vec<(Duration, Duration)>,
    /// One connection in so many has trouble of its own; 0: none.
    pub trouble_one_in: u64,
    /// By the connection, before the weather.
    pub scripts: Mutex<VecDeque<Script>>,
    pub known: Mutex<BTreeMap<String, Instant>>,
}

impl Host {
    pub fn new(name: &'static str, openness: Openness, addresses: Vec<IpAddr>) -> Self {
        Self {
            name,
            addresses,
            deaf: Vec::new(),
            openness,
            tls: openness == Openness::Tls,
            pipelining: true,
            greylist: None,
            weather: Vec::new(),
            hidden: Vec::new(),
            trouble_one_in: 0,
            scripts: Mutex::default(),
            known: Mutex::default(),
        }
    }
    pub fn domain(&self) -> &str {
        self.name.split_once('.').map_or(self.name, |(_, domain)| domain)
    }
    fn weather(&self, age: Duration) -> Option<&Window> {
        self.weather.iter().find(|w| w.from <= age && age < w.until)
    }
    /// How long it is cut off from now on.
    pub fn cut(&self, age: Duration) -> Option<Duration> {
        self.weather(age).filter(|w| w.weather == Weather::Cut).map(|w| w.until - age)
    }
    /// How the next connection goes.
    pub fn script(
        &self,
        address: IpAddr,
        age: Duration,
        heal: Duration,
        chance: &Chance,
    ) -> Script {
        if self.deaf.contains(&address) {
            return Script::link(Link::Dead);
        }
        if let Some(script) = self.scripts.lock().expect("unbroken").pop_front() {
            return script;
        }
        match self.weather(age).map(|w| w.weather) {
            Some(Weather::Refused) => Script::link(Link::Refused),
            Some(Weather::Dead | Weather::Cut) => Script::link(Link::Dead),
            Some(Weather::NoTls) => Script::tls(Tls::NotOffered),
            Some(Weather::BrokenTls) => Script::tls(Tls::Broken),
            Some(Weather::At(stage, act)) => Script::at(stage, act),
            None if self.trouble_one_in > 0 && age < heal && chance.one_in(self.trouble_one_in) => {
                Script::at(*chance.of(&STAGES), any_act(chance))
            }
            None => Script::default(),
        }
    }
}

pub const STAGES: [Stage; 8] = [
    Stage::Greeting,
    Stage::Ehlo,
    Stage::StartTls,
    Stage::Mail,
    Stage::Rcpt,
    Stage::Data,
    Stage::Content,
    Stage::Dot,
];

/// Trouble that is no refusal for good.
pub fn any_act(chance: &Chance) -> Act {
    match chance.below(6) {
        0 => Act::Say(451, "4.3.0 Not now"),
        1 => Act::Hangup,
        2 => Act::Drop,
        3 => Act::TakeAndDrop,
        4 => Act::Slow(chance.up_to(Duration::from_secs(240))),
        _ => Act::Slow(chance.up_to(Duration::from_secs(1500))),
    }
}
