//! The gateway under test: the real intake, vault and relay over the ports of the simulation. It is
//! started, stopped, killed and started again; what lives on is the store alone.

use super::{chance::VirtualClock, ledger::Ledger, network::Network, pki, store::FaultyStore};
use jiff::SignedDuration;
use restante::{
    clock::{Clock, ClockGuard},
    intake::{self, Intake, IntakeSettings},
    mail::notice::{Letterhead, Templates},
    net::{Dialer, DialerSettings, Timeouts},
    policies::Policies,
    policy::{Level, NextHop, PolicySet, SourceFile},
    relay::{Relay, RelayPorts, RelaySettings, Sweeper},
    seal::KeyRing,
    smtp::clients::ClientLimits,
    store::StoreError,
    vault::{NoticeSettings, Vault},
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};
use tokio::{
    io::{DuplexStream, duplex},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// How long the relay may take to stop.
const DRAIN: Duration = Duration::from_secs(10);

const POLICY: &str = r#"
[[partner]]
domains = ["plain.example", "dark.example", "doubt.example", "gone.example"]
level = "none"

[[partner]]
domains = ["tls.example"]
level = "encrypt"
otherwise = "envelope"
otherwise_after = "1h"

[[partner]]
domains = ["strict.example"]
level = "encrypt"
otherwise = "defer"
"#;

#[derive(Debug)]
struct InForce(Arc<PolicySet>);
impl Policies for InForce {
    fn current(&self) -> Arc<PolicySet> {
        Arc::clone(&self.0)
    }
}

/// The policies: read once for all runs.
static POLICIES: LazyLock<Arc<PolicySet>> = LazyLock::new(|| {
    let file = SourceFile { name: "partners.toml".to_owned(), text: POLICY.to_owned() };
    let now = "2026-11-22T10:00:00Z".parse().expect("a time");
    Arc::new(PolicySet::parse(&[file], now).expect("policies").0)
});

/// What all incarnations of a gateway share.
#[derive(Debug)]
pub struct Gateway {
    pub clock: Arc<VirtualClock>,
    pub store: Arc<FaultyStore>,
    pub ledger: Arc<Ledger>,
    pub network: Arc<Network>,
    pub settings: RelaySettings,
    pub vault: Vault,
    door: Mutex<Option<Door>>,
}

/// Where clients come in, while the gateway runs.
#[derive(Debug)]
struct Door {
    intake: Arc<Intake>,
    stop: CancellationToken,
    sessions: JoinSet<()>,
}

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// SIGTERM: drains, then ends.
    Stop,
    /// kill -9.
    Kill,
}

/// A process.
pub struct Life {
    relay: JoinSet<Result<(), StoreError>>,
    sweeper: JoinSet<()>,
    stop: CancellationToken,
}

impl Gateway {
    pub fn new(
        clock: Arc<VirtualClock>,
        store: Arc<FaultyStore>,
        ledger: Arc<Ledger>,
        network: Arc<Network>,
        settings: RelaySettings,
    ) -> Self {
        let vault = vault(&store, &clock);
        Self { clock, store, ledger, network, settings, vault, door: Mutex::new(None) }
    }

    /// A client comes; `None` while nobody is there.
    pub fn connect(&self) -> Option<DuplexStream> {
        let mut door = self.door.lock().expect("unbroken");
        let Door { intake, stop, sessions } = door.as_mut()?;
        let (ours, theirs) = duplex(64 * 1024);
        let (intake, stop) = (Arc::clone(intake), stop.clone());
        let client = SocketAddr::from(([127, 0, 0, 1], 40_000));
        sessions.spawn(async move { intake.serve(Box::new(theirs), client, None, stop).await });
        Some(ours)
    }

    pub fn start(&self) -> Life {
        self.ledger.trace.note(format_args!("the gateway starts"));
        let policies = Arc::new(InForce(Arc::clone(&POLICIES)));
        let stop = CancellationToken::new();
        let vault = self.vault.clone();
        let door = intake::Door::new(vault.clone(), self.store.clone(), policies.clone());
        let intake = Intake::new(intake_settings(), door);
        let dialer = DialerSettings {
            hostname: "gw.example.org".parse().expect("a domain"),
            anchors: pki::anchors(),
            timeouts: Timeouts::default(),
            refuse_networks: Vec::new(),
            ca_dir: PathBuf::from("nowhere"),
        };
        let connector = Dialer::over(self.network.clone(), dialer, self.clock.clone());
        let ports = RelayPorts {
            queue: self.store.clone(),
            people: self.store.clone(),
            vault: vault.clone(),
            resolver: self.network.clone(),
            sts: self.network.clone(),
            connector: Arc::new(connector),
            policies,
            sessions: self.network.clone(),
            clock: self.clock.clone(),
        };
        let (relay, mut tasks) = (Relay::new(self.settings.clone(), ports), JoinSet::new());
        let stopping = stop.clone();
        tasks.spawn(async move { relay.run(stopping).await });
        let (sweeping, mut sweeper) = (stop.clone(), JoinSet::new());
        let rounds = Sweeper::new(vault, Duration::from_secs(600));
        sweeper.spawn(async move { rounds.run(sweeping).await });
        let (intake, sessions) = (Arc::new(intake), JoinSet::new());
        let door = Door { intake, stop: stop.clone(), sessions };
        *self.door.lock().expect("unbroken") = Some(door);
        Life { relay: tasks, sweeper, stop }
    }

    /// Ends the process; what it held of the store goes with it.
    pub async fn end(&self, mut life: Life, ending: Ending) {
        self.ledger.trace.note(format_args!("the gateway ends: {ending:?}"));
        let door = self.door.lock().expect("unbroken").take();
        if ending == Ending::Stop {
            life.stop.cancel();
            // Writing what was delivered may take as long as the store is slow.
            let limit = DRAIN + Duration::from_secs(600);
            let stopped = timeout(limit, life.relay.join_next());
            tokio::select! {
                biased;
                // Killed while it stops.
                () = self.store.faults.crash.notified() => {}
                stopped = stopped => match stopped {
                    Ok(Some(Err(error))) => self.ledger.wrong(format!("the relay broke: {error}")),
                    Ok(Some(Ok(_)) | None) => {}
                    Err(_) => self.ledger.wrong("the relay does not stop".to_owned()),
                },
            }
        }
        life.relay.shutdown().await;
        life.sweeper.shutdown().await;
        if let Some(mut door) = door {
            door.sessions.shutdown().await;
        }
        self.ledger.broken();
        self.store.reopen().await;
    }
}

impl Life {
    /// Resolves when the relay ends by itself.
    pub async fn ended(&mut self) -> Result<(), String> {
        match self.relay.join_next().await {
            Some(Ok(Err(StoreError::Fatal(_)))) => Ok(()),
            Some(other) => Err(format!("the relay ended: {other:?}")),
            None => std::future::pending().await,
        }
    }
}

fn vault(store: &Arc<FaultyStore>, clock: &Arc<VirtualClock>) -> Vault {
    let notices = NoticeSettings {
        head: Letterhead {
            organization: "Example Health".to_owned(),
            support: "help@example.org".to_owned(),
            from: "secure@example.org".parse().expect("an address"),
            subject: None,
        },
        templates: Templates::new(&BTreeMap::new()).expect("templates"),
        portal_url: "http://127.0.0.1:8080".to_owned(),
        retention: SignedDuration::from_hours(720),
        note: None,
    };
    let ring = KeyRing::generate(Zeroizing::new([7; 32]));
    let clock: Arc<dyn Clock> = clock.clone();
    let store = || store.clone();
    let guard = Arc::new(ClockGuard::new(clock, None));
    Vault::new(store(), store(), store(), store(), ring, guard, notices)
}

fn intake_settings() -> IntakeSettings {
    IntakeSettings {
        hostname: "gw.example.org".parse().expect("a domain"),
        postmaster: "postmaster@example.org".parse().expect("an address"),
        clients: vec!["127.0.0.0/8".parse().expect("a network")],
        normalize: Vec::new(),
        require_tls: false,
        max_message_size: 50 * 1024 * 1024,
        max_recipients: 100,
        limits: ClientLimits {
            connections: 100,
            connections_per_client: 100,
            connection_rate: 0,
            message_rate: 0,
            recipient_rate: 0,
        },
        limit_exceptions: Vec::new(),
        max_errors: 20,
        idle_timeout: SignedDuration::from_mins(5),
        max_session_time: SignedDuration::from_hours(24),
    }
}

pub fn relay_settings() -> RelaySettings {
    RelaySettings {
        hostname: "gw.example.org".parse().expect("a domain"),
        organization: vec!["example.org".parse().expect("a domain")],
        inside: NextHop { host: "inside.example.org".to_owned(), mx: false, port: Some(2026) },
        inside_level: Level::None,
        notification_level: Level::Opportunistic,
        port: 25,
        retry: [1, 5, 15, 30, 60].map(SignedDuration::from_mins).to_vec(),
        give_up: SignedDuration::from_hours(8),
        warn_after: SignedDuration::from_hours(2),
        connections_per_domain: 3,
        workers: 6,
        report_from: "postmaster@example.org".parse().expect("an address"),
        lease: SignedDuration::from_hours(6),
        drain: DRAIN,
    }
}
