//! A run: hosts, clients, faults and ends of the process, all from one seed; and its judgement.

use super::{
    chance::{Chance, Trace, VirtualClock},
    client::{Client, Cut, Letter},
    faults::{Faults, Mode},
    gateway::{Ending, Gateway, relay_settings},
    host::{Act, Host, Openness, STAGES, Weather, Window, any_act},
    ledger::Ledger,
    network::{Network, Zone},
    pki,
    store::FaultyStore,
    talk::Surroundings,
};
use restante::{
    mail::QueueId,
    relay::RelaySettings,
    store::{QueueStore, RecipientRow, RecipientState},
};
use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::{sleep, sleep_until, timeout};

pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);
/// From that age on all trouble that is to pass has passed.
const HEAL: Duration = Duration::from_secs(5 * 3600);
/// Two times to give up (a message, then the report on it), leases that ran out, clocks set back.
const DEADLINE: Duration = Duration::from_secs(72 * 3600);

/// A run.
pub struct World {
    pub chance: Chance,
    pub trace: Arc<Trace>,
    pub ledger: Arc<Ledger>,
    pub network: Arc<Network>,
    pub faults: Arc<Faults>,
    pub gateway: Arc<Gateway>,
    clients: Arc<AtomicUsize>,
}

/// Runs it in virtual time: an hour takes no longer than what happens in it.
pub fn in_virtual_time<T>(run: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(run)
}

/// The hosts of the simulated world, all well.
pub fn hosts() -> Vec<Host> {
    let v4 = |n: u16| format!("192.0.2.{n}").parse::<IpAddr>().expect("an address");
    let v6 = |n: u16| format!("2001:db8::{n}").parse::<IpAddr>().expect("an address");
    vec![
        Host::new("mx1.plain.example", Openness::Open, vec![v6(1), v4(1)]),
        Host::new("mx2.plain.example", Openness::Open, vec![v4(2)]),
        Host::new("mx1.tls.example", Openness::Tls, vec![v4(3)]),
        Host::new("mx2.tls.example", Openness::Tls, vec![v4(4)]),
        Host::new("mx1.strict.example", Openness::Tls, vec![v6(5), v4(5)]),
        Host::new("mx1.dark.example", Openness::Open, vec![v4(6)]),
        Host::new("mx1.stranger.example", Openness::Own, vec![v4(7)]),
        Host::new("mx2.stranger.example", Openness::Own, vec![v6(8), v4(8)]),
        Host::new("inside.example.org", Openness::Own, vec![v4(9)]),
    ]
}

pub fn zones() -> Vec<Zone> {
    let zone = |domain, mx: &[&'static str]| Zone {
        domain,
        mx: mx.to_vec(),
        gone: false,
        trouble: Vec::new(),
    };
    vec![
        zone("plain.example", &["mx1.plain.example", "mx2.plain.example"]),
        zone("tls.example", &["mx1.tls.example", "mx2.tls.example"]),
        zone("strict.example", &["mx1.strict.example"]),
        zone("dark.example", &["mx1.dark.example"]),
        zone("stranger.example", &["mx1.stranger.example", "mx2.stranger.example"]),
        Zone { trouble: vec![(Duration::ZERO, Duration::MAX)], ..zone("doubt.example", &[]) },
        Zone { gone: true, ..zone("gone.example", &[]) },
    ]
}

/// A letter to these domains, offered at once.
pub fn letter(name: &str, to: &[&'static str]) -> Letter {
    Letter {
        name: name.to_owned(),
        to: to.iter().map(|domain| (*domain, false)).collect(),
        null_sender: false,
        size: 0,
        at: Duration::ZERO,
        pipelined: false,
        cut: None,
    }
}

impl World {
    pub fn new(chance: Chance, hosts: Vec<Host>, zones: Vec<Zone>, mode: Mode) -> Self {
        Self::with(chance, hosts, zones, mode, relay_settings())
    }

    pub fn with(
        chance: Chance,
        hosts: Vec<Host>,
        zones: Vec<Zone>,
        mode: Mode,
        settings: RelaySettings,
    ) -> Self {
        let clock = Arc::new(VirtualClock::new(chance.fork()));
        let trace = Arc::new(Trace::new());
        let ledger = Arc::new(Ledger::new(trace.clone()));
        let around =
            Surroundings { ledger: ledger.clone(), chance: chance.fork(), tls: pki::server() };
        let network = Arc::new(Network {
            around: Arc::new(around),
            hosts: hosts.into_iter().map(Arc::new).collect(),
            zones,
            heal: HEAL,
            dialed: std::sync::Mutex::default(),
        });
        let faults = Arc::new(Faults::new(mode, clock.clone(), trace.clone()));
        let store = FaultyStore::new(faults.clone(), ledger.clone(), settings.give_up);
        let (store, shared) = (Arc::new(store), ledger.clone());
        let gateway = Gateway::new(clock, store, shared, network.clone(), settings);
        let gateway = Arc::new(gateway);
        let clients = Arc::default();
        Self { chance, trace, ledger, network, faults, gateway, clients }
    }

    /// A client that hands this in.
    pub fn send(&self, letter: Letter) {
        let client = Client {
            gateway: self.gateway.clone(),
            ledger: self.ledger.clone(),
            chance: self.chance.fork(),
        };
        let clients = self.clients.clone();
        clients.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            client.send(letter).await;
            clients.fetch_sub(1, Ordering::SeqCst);
        });
    }

    /// Lives until everything has come to an end. The process ends at these ages of the run, and is
    /// started again after a while.
    pub async fn live(&self, ends: &[(Duration, Ending)]) {
        let mut ends = ends.iter();
        loop {
            if self.life(ends.next()).await {
                return;
            }
            sleep(self.chance.up_to(5 * MINUTE)).await;
        }
    }

    /// One life of the process; true if all is quiet.
    async fn life(&self, end: Option<&(Duration, Ending)>) -> bool {
        let mut life = self.gateway.start();
        let rest = end.map_or(DEADLINE, |(at, _)| at.saturating_sub(self.trace.age()));
        let until = tokio::time::Instant::now() + rest.min(DEADLINE);
        let (mut quiet, mut ending) = (false, end.map_or(Ending::Kill, |(_, ending)| *ending));
        loop {
            tokio::select! {
                biased;
                () = self.faults.crash.notified() => {
                    ending = Ending::Kill;
                    break;
                }
                ended = life.ended() => {
                    if let Err(what) = ended {
                        self.ledger.wrong(what);
                        quiet = true;
                    }
                    ending = Ending::Kill;
                    break;
                }
                () = sleep_until(until) => break,
                () = sleep(5 * MINUTE) => {}
            }
            quiet = self.is_quiet().await;
            if !quiet && self.trace.age() > DEADLINE {
                self.ledger.wrong("something waits for ever".to_owned());
                quiet = true;
            }
            if quiet {
                ending = Ending::Stop;
                break;
            }
        }
        self.gateway.end(life, ending).await;
        if quiet {
            self.faults.cease();
            let swept = timeout(HOUR, self.gateway.vault.sweep()).await;
            self.trace.note(format_args!("all is quiet; last sweep: {}", swept.is_ok()));
        }
        quiet
    }

    async fn is_quiet(&self) -> bool {
        let totals = self.gateway.store.memory.totals().await.expect("memory");
        let waiting = totals.active + totals.deferred + totals.held;
        waiting == 0 && self.clients.load(Ordering::SeqCst) == 0
    }

    /// The row of a recipient of what was offered under that label.
    pub async fn row(&self, label: &str, index: usize) -> Option<RecipientRow> {
        let id = self.id(label)?;
        let (_, rows) = self.gateway.store.memory.message(id).await.expect("memory")?;
        rows.into_iter().nth(index)
    }

    /// What came of a recipient, in a word.
    pub async fn end_of(&self, label: &str, index: usize) -> &'static str {
        match self.row(label, index).await.expect("a recipient").state {
            RecipientState::Waiting { .. } => "waiting",
            RecipientState::Held { .. } => "held",
            RecipientState::Delivered { .. } => "delivered",
            RecipientState::Granted { .. } => "granted",
            RecipientState::Bounced { .. } => "bounced",
            RecipientState::Expired { .. } => "expired",
            RecipientState::Removed { .. } => "removed",
        }
    }

    pub fn id(&self, label: &str) -> Option<QueueId> {
        self.ledger.book().stored.get(label).copied()
    }
}

/// What a run came to.
pub struct Judgement {
    pub wrong: Vec<String>,
    pub hash: u64,
    pub tail: String,
    pub lines: Vec<String>,
}

/// A whole run by its seed.
pub fn run(seed: u64) -> Judgement {
    in_virtual_time(async {
        let chance = Chance::new(seed);
        let with_tls = chance.one_in(4);
        let (mut hosts, mut zones) = (hosts(), zones());
        for host in &mut hosts {
            trouble(host, &chance.fork());
        }
        for zone in zones.iter_mut().filter(|zone| zone.trouble.is_empty()) {
            if chance.one_in(5) {
                zone.trouble = vec![window(&chance)];
            }
        }
        let mode = if chance.one_in(2) { Mode::Storm(chance.fork(), HEAL) } else { Mode::Never };
        let world = World::new(chance.fork(), hosts, zones, mode);
        if chance.one_in(4) {
            world.faults.allow_jumps();
        }
        for n in 0..2 + chance.below(4) {
            world.send(any_letter(&format!("m{n}"), with_tls, &chance));
        }
        let mut ends: Vec<_> = (0..chance.below(4))
            .map(|_| {
                // Where most happens the process ends most.
                let most = *chance.of(&[MINUTE, 10 * MINUTE, HOUR, HEAL]);
                (chance.up_to(most), *chance.of(&[Ending::Kill, Ending::Kill, Ending::Stop]))
            })
            .collect();
        ends.sort_by_key(|(at, _)| *at);
        world.live(&ends).await;
        let wrong = world.check().await;
        let (hash, tail) = (world.trace.hash(), world.trace.tail(120));
        Judgement { wrong, hash, tail, lines: world.trace.lines() }
    })
}

fn window(chance: &Chance) -> (Duration, Duration) {
    let from = chance.up_to(*chance.of(&[MINUTE, 30 * MINUTE, 2 * HOUR]));
    let length = chance.up_to(*chance.of(&[2 * MINUTE, 20 * MINUTE, 3 * HOUR]));
    (from, (from + length).min(HEAL))
}

/// What the host will do to us.
fn trouble(host: &mut Host, chance: &Chance) {
    host.pipelining = !chance.one_in(4);
    host.trouble_one_in = if chance.one_in(3) { 0 } else { 2 + chance.below(8) };
    if host.name == "mx1.dark.example" {
        let (from, until) = (Duration::ZERO, Duration::MAX);
        host.weather = vec![Window { from, until, weather: Weather::Dead }];
        return;
    }
    if chance.one_in(4) {
        host.greylist = Some(chance.up_to(20 * MINUTE));
    }
    if chance.one_in(6) {
        host.hidden = vec![window(chance)];
    }
    for _ in 0..chance.below(4) {
        let (from, until) = window(chance);
        let weather = match chance.below(8) {
            0 => Weather::Refused,
            1 => Weather::Dead,
            2 | 3 => Weather::Cut,
            4 if host.tls => Weather::NoTls,
            5 if host.tls => Weather::BrokenTls,
            6 if host.openness != Openness::Own => {
                let stage = *chance.of(&[STAGES[3], STAGES[4], STAGES[5], STAGES[7]]);
                Weather::At(stage, Act::Say(554, "5.7.1 Not you"))
            }
            _ => Weather::At(*chance.of(&STAGES), any_act(chance)),
        };
        host.weather.push(Window { from, until, weather });
    }
}

fn any_letter(name: &str, with_tls: bool, chance: &Chance) -> Letter {
    let open = ["plain.example", "plain.example", "stranger.example"];
    let tls = ["tls.example", "strict.example", "tls.example"];
    let rare = ["dark.example", "doubt.example", "gone.example"];
    let mut to = Vec::new();
    for _ in 0..=chance.below(4) {
        let domain = match chance.below(16) {
            0 => *chance.of(&rare),
            1..9 if with_tls => *chance.of(&tls),
            _ => *chance.of(&open),
        };
        let nobody = domain != "gone.example" && chance.one_in(10);
        to.push((domain, nobody));
    }
    Letter {
        name: name.to_owned(),
        to,
        null_sender: chance.one_in(8),
        size: if chance.one_in(400) { 300 * 1024 } else { 0 },
        at: chance.up_to(*chance.of(&[Duration::from_secs(1), MINUTE, HOUR])),
        pipelined: chance.one_in(2),
        cut: match chance.below(8) {
            0 => Some(Cut::InContent),
            1 => Some(Cut::AfterDot),
            _ => None,
        },
    }
}
