//! A running gateway: listeners, relay and helpers as tasks, reload and drain.

use super::{
    StartError,
    descriptors::portal_share,
    parts::{Parts, gather, http1_tls, portal_tls},
    policies::LivePolicies,
    portal_threads::PortalThreads,
    probe::prober,
    rotation::Rotation,
};
use crate::{
    clock::{Clock, ClockGuard},
    config::{self, Config},
    control::{
        server::{Control, KeyOrders},
        view::Listeners,
    },
    intake::{Counts, Intake, IntakeSettings},
    net::{
        connect::{Dialer, DialerSettings, Timeouts},
        http::{self, Border, BorderSettings},
        listen, source_address,
        tls::TlsServer,
    },
    observe::metrics::Metrics,
    policies::{StsPolicies, TlsSessions},
    portal::Portal,
    probe::watch::{Board, Pace, Watch},
    relay::{Relay, RelayPorts, RelaySettings, Sweeper},
    store::sled::SledStore,
    sts::{Sts, StsPorts},
    tlsrpt::{ReportPorts, ReportSettings, TlsReports},
    wire::TlsAccept,
};
use axum_server::{
    Handle, Server,
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use hyper_util::rt::TokioTimer;
use jiff::SignedDuration;
use rustix::process::{Resource, getrlimit};
use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, UnixListener},
    task::JoinSet,
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

/// Deliveries at work at the same time.
const WORKERS: usize = 200;
/// How long a piece of work stays leased to this process.
const LEASE: SignedDuration = SignedDuration::from_hours(6);
/// How long running deliveries and sessions may go on after SIGTERM.
const DRAIN: Duration = Duration::from_secs(25);
/// How often sessions and budgets that are over are forgotten.
const IDENTITY_SWEEP: Duration = Duration::from_secs(600);
/// How often the vault ends what has expired.
const SWEEP: Duration = Duration::from_secs(60);
/// How often the store looks for bodies that no message owns.
const ORPHAN_SWEEP: Duration = Duration::from_secs(60 * 60);
/// Over how long the first look at all partners is spread.
const FIRST_LOOK: Duration = Duration::from_secs(5 * 60);

/// Seconds after the end of a day at which its reports on TLS begin to go, at random: ten minutes to
/// four hours (RFC 8460 §4.1).
const REPORT_DELAY: std::ops::RangeInclusive<i64> = 600..=14_400;

/// How long a browser may take for the head of a request, and leave a connection unused.
const HEAD_PATIENCE: Duration = Duration::from_secs(15);

/// Connections to the metrics' listener, and bytes a second that each must read.
const SCRAPERS: usize = 64;
const LEAST_SCRAPE_RATE: u64 = 1024;
/// Bytes of a request's head at most, and what a connection buffers of a body or an answer.
const HTTP_BUFFER: usize = 64 * 1024;

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    /// Addresses bound.
    pub listeners: Listeners,
    policies: Arc<LivePolicies>,
    watch: Board,
    smtp_tls: Option<Arc<TlsServer>>,
    portal_tls: Option<(RustlsConfig, config::KeyPair)>,
    reports: TlsReports,
    /// Ends listeners, relay and helpers.
    stop: CancellationToken,
    portal: Handle<SocketAddr>,
    portal_threads: PortalThreads,
    tasks: JoinSet<Ended>,
    socket: PathBuf,
    rotation: Rotation,
}

/// Sets bodies that no message owns aside, at the start and each hour, where the clock can be relied on.
async fn sweep_orphans(store: Arc<SledStore>, guard: Arc<ClockGuard>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(ORPHAN_SWEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let Ok(now) = guard.check() else { continue };
        if let Err(error) = store.set_orphans_aside(now).await {
            tracing::warn!(%error, "bodies that no message owns were not looked for");
        }
    }
}

/// How a task of the gateway ended.
#[derive(Debug)]
enum Ended {
    /// It was told to.
    Asked,
    /// It can't go on (a store that failed, a listener that died); the process must be started again.
    Failed(String),
}

impl Gateway {
    /// Reads, opens and binds everything, then sets it to work. What is wrong is found before a
    /// message is taken.
    ///
    /// # Errors
    /// [`StartError`] says what, with its exit code.
    pub async fn start(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        // The data before the ports: a second server on the same data is told so, and not that its
        // port is taken.
        let parts = gather(config, clock).await?;
        let smtp = bind_all(&config.smtp.listen)?;
        let portal_listener = listen::bind(config.portal.listen)?;
        let metrics = match config.metrics.listen {
            Some(address) => Some(listen::bind(address)?),
            None => None,
        };
        let listeners = Listeners {
            smtp: addresses(&smtp)?,
            portal: addresses(std::slice::from_ref(&portal_listener))?,
            metrics: addresses(metrics.as_slice())?,
        };
        let mut gateway = Self {
            listeners,
            policies: Arc::clone(&parts.policies),
            watch: Board::default(),
            smtp_tls: parts.smtp_tls.clone(),
            portal_tls: portal_tls(config).await?,
            reports: tls_reports(config, &parts),
            stop: CancellationToken::new(),
            portal: Handle::new(),
            portal_threads: PortalThreads::start()
                .map_err(|error| StartError::Unavailable(format!("threads: {error}")))?,
            tasks: JoinSet::new(),
            socket: config.data_dir.join("control.sock"),
            rotation: Rotation::new(config, &parts),
        };
        let border = Border::new(border_settings(config), Arc::clone(&parts.vault.clock));
        gateway.start_portal(&parts.portal, border.clone(), portal_listener)?;
        let sts = gateway.start_sts(&parts);
        let relay = gateway.relay(config, &parts, Arc::clone(&sts));
        gateway.start_control(&parts, relay.clone())?;
        let intake = intake(config, &parts);
        if let Some(listener) = metrics {
            gateway.start_metrics(&parts, (intake.counts(), border.counts()), listener)?;
        }
        gateway.start_relay(relay, &parts);
        gateway.start_watch(config, &parts, sts);
        gateway.start_intake(&Arc::new(intake), smtp);
        Ok(gateway)
    }

    fn start_intake(&mut self, intake: &Arc<Intake>, listeners: Vec<TcpListener>) {
        for listener in listeners {
            let (intake, stop) = (Arc::clone(intake), self.stop.clone());
            let tls = self.smtp_tls.clone().map(|tls| tls as Arc<dyn TlsAccept>);
            let session_stop = stop.clone();
            let session = move |stream, peer| {
                let (intake, tls, stop) = (Arc::clone(&intake), tls.clone(), session_stop.clone());
                async move { intake.serve(Box::new(stream), peer, tls, stop).await }
            };
            self.tasks.spawn(async move {
                listen::serve(listener, session, stop).await;
                Ended::Asked
            });
        }
    }

    fn relay(&mut self, config: &Config, parts: &Parts, sts: Arc<dyn StsPolicies>) -> Relay {
        let dialer = Dialer::new(
            DialerSettings {
                hostname: config.hostname.clone(),
                anchors: parts.anchors.clone(),
                timeouts: Timeouts::default(),
                refuse_networks: config.delivery.refuse_networks.clone(),
                ca_dir: config.policy_dir.clone(),
            },
            Arc::clone(&parts.vault.clock),
        );
        let ports = RelayPorts {
            queue: Arc::clone(&parts.vault.queue),
            people: Arc::clone(&parts.vault.people),
            vault: parts.vault.clone(),
            resolver: Arc::clone(&parts.resolver) as _,
            sts,
            connector: Arc::new(dialer),
            policies: Arc::clone(&parts.policies) as _,
            sessions: self.start_reports(),
            clock: Arc::clone(&parts.vault.clock),
        };
        Relay::new(relay_settings(config), ports)
    }

    fn start_relay(&mut self, relay: Relay, parts: &Parts) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            match relay.run(stop).await {
                Ok(()) => Ended::Asked,
                Err(error) => Ended::Failed(error.to_string()),
            }
        });
        let (identity, stop) = (parts.identity.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            identity.sweep_every(IDENTITY_SWEEP, stop).await;
            Ended::Asked
        });
        let (sweeper, stop) = (Sweeper::new(parts.vault.clone(), SWEEP), self.stop.clone());
        self.tasks.spawn(async move {
            sweeper.run(stop).await;
            Ended::Asked
        });
        let orphans = sweep_orphans(
            Arc::clone(&parts.store),
            Arc::clone(&parts.vault.guard),
            self.stop.clone(),
        );
        self.tasks.spawn(async move {
            orphans.await;
            Ended::Asked
        });
        let (audit, stop) = (parts.audit.clone(), self.stop.clone());
        let guard = Arc::clone(&parts.vault.guard);
        self.tasks.spawn(async move {
            audit.run(&guard, SWEEP, stop).await;
            Ended::Asked
        });
        let (rotation, stop) = (self.rotation.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            stop.run_until_cancelled(rotation.run()).await;
            Ended::Asked
        });
        let (resolver, stop) = (Arc::clone(&parts.resolver), self.stop.clone());
        self.tasks.spawn(async move {
            resolver.watch(stop).await;
            Ended::Asked
        });
        let (policies, stop) = (Arc::clone(&parts.policies), self.stop.clone());
        self.tasks.spawn(async move {
            policies.watch(stop).await;
            Ended::Asked
        });
    }

    /// Looks at partners on a schedule, unless that is turned off.
    fn start_watch(&mut self, config: &Config, parts: &Parts, sts: Arc<dyn StsPolicies>) {
        let Some(every) = config.delivery.watch else { return };
        let watch = Watch::new(
            prober(config, parts, sts),
            Arc::clone(&parts.policies) as _,
            Arc::clone(&parts.notes),
            Arc::clone(&parts.vault.clock),
            self.watch.clone(),
        );
        let pace = Pace { first: FIRST_LOOK, every: every.unsigned_abs() };
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            watch.run(pace, stop).await;
            Ended::Asked
        });
    }

    /// Reports on TLS; what it gives is told of sessions.
    fn start_reports(&mut self) -> Arc<dyn TlsSessions> {
        let (reports, stop) = (self.reports.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            reports.run(stop).await;
            Ended::Asked
        });
        Arc::new(self.reports.clone())
    }

    /// Policies that domains publish, and the task that keeps them fresh.
    fn start_sts(&mut self, parts: &Parts) -> Arc<dyn StsPolicies> {
        let sts = Arc::new(Sts::new(StsPorts {
            resolver: Arc::clone(&parts.resolver) as _,
            web: Arc::clone(&parts.web),
            notes: Arc::clone(&parts.notes),
            clock: Arc::clone(&parts.vault.clock),
        }));
        let (fresh, stop) = (Arc::clone(&sts), self.stop.clone());
        self.tasks.spawn(async move {
            fresh.run(stop).await;
            Ended::Asked
        });
        sts
    }

    fn start_control(&mut self, parts: &Parts, relay: Relay) -> Result<(), StartError> {
        let control = Control {
            queue: Arc::clone(&parts.vault.queue),
            relay,
            clock: Arc::clone(&parts.vault.clock),
            vault: parts.vault.clone(),
            identity: parts.identity.clone(),
            audit: parts.audit.clone(),
            people: Arc::clone(&parts.vault.people),
            policies: Arc::clone(&parts.policies) as _,
            watch: self.watch.clone(),
            dns: Arc::clone(&parts.resolver) as _,
            reports: self.reports.clone(),
            listeners: self.listeners.clone(),
            providers: parts.providers.clone(),
            keys: Arc::new(self.rotation.clone()),
        };
        let listener = bind_socket(&self.socket).map_err(|error| {
            StartError::NotPermitted(format!("{}: {error}", self.socket.display()))
        })?;
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            control.serve(listener, stop).await;
            Ended::Asked
        });
        Ok(())
    }

    /// Numbers for machines, over plain HTTP; who drains no longer answers.
    fn start_metrics(
        &mut self,
        parts: &Parts,
        (intake, portal): (Arc<Counts>, Arc<http::Counts>),
        listener: TcpListener,
    ) -> Result<(), StartError> {
        let metrics = Metrics {
            intake,
            audit: parts.audit.counts(),
            portal,
            queue: Arc::clone(&parts.vault.queue),
            guard: Arc::clone(&parts.vault.guard),
            policies: Arc::clone(&parts.policies) as _,
            dns: Arc::clone(&parts.resolver) as _,
            watch: self.watch.clone(),
        };
        let unusable = |error: std::io::Error| StartError::Unavailable(format!("metrics: {error}"));
        let listener = listener.into_std().map_err(unusable)?;
        let border = BorderSettings {
            listener: "metrics",
            trusted_proxies: Vec::new(),
            connections: SCRAPERS,
            connections_per_client: 0,
            min_rate: LEAST_SCRAPE_RATE,
        };
        let border = Border::new(border, Arc::clone(&parts.vault.clock));
        let server = axum_server::from_tcp(listener).map_err(unusable)?;
        let (service, stop) = (border.before(metrics.router()), self.stop.clone());
        let server = impatient(server.acceptor(border));
        self.tasks.spawn(async move {
            match stop.run_until_cancelled(server.serve(service)).await {
                Some(Err(error)) => Ended::Failed(format!("the metrics' listener failed: {error}")),
                Some(Ok(())) | None => Ended::Asked,
            }
        });
        Ok(())
    }

    fn start_portal(
        &mut self,
        portal: &Portal,
        border: Border,
        listener: TcpListener,
    ) -> Result<(), StartError> {
        let service = border.before(portal.router());
        let unusable = |error: std::io::Error| StartError::Unavailable(format!("portal: {error}"));
        let listener = listener.into_std().map_err(unusable)?;
        let threads = self.portal_threads.handle();
        let entered = threads.enter();
        let server = axum_server::from_tcp(listener).map_err(unusable)?;
        drop(entered);
        let server = server.handle(self.portal.clone());
        match &self.portal_tls {
            None => {
                let server = impatient(server.acceptor(border));
                let serving = async move { portal_ended(server.serve(service).await) };
                self.tasks.spawn_on(serving, threads);
            }
            Some((tls, _)) => {
                let acceptor = RustlsAcceptor::new(tls.clone()).acceptor(border);
                let server = impatient(server.acceptor(acceptor));
                let serving = async move { portal_ended(server.serve(service).await) };
                self.tasks.spawn_on(serving, threads);
            }
        }
        Ok(())
    }

    /// Reads policies, certificates and key ring again (SIGHUP). What is wrong stays as it was, and is
    /// said in the log.
    pub async fn reload(&self) {
        self.policies.reload();
        if let Err(error) = self.rotation.reload().await {
            tracing::error!(%error, "the key ring was not reloaded; the old one stays");
        }
        if let Some(tls) = &self.smtp_tls
            && let Err(error) = tls.reload()
        {
            tracing::error!(%error, "the SMTP certificate was not reloaded; the old one stays");
        }
        if let Some((tls, pair)) = &self.portal_tls {
            match http1_tls(pair).await {
                Ok(new) => tls.reload_from_config(new.get_inner()),
                Err(error) => tracing::error!(
                    %error,
                    "the portal's certificate was not reloaded; the old one stays"
                ),
            }
        }
    }

    /// Waits for a fault that ends the gateway.
    pub(super) async fn failed(&mut self) -> String {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(Ended::Failed(why))) => return why,
                Some(Ok(Ended::Asked)) => {}
                Some(Err(error)) => return format!("a part of the gateway broke down: {error}"),
                None => std::future::pending().await,
            }
        }
    }

    /// Drains: no new connections, running sessions and deliveries come to their end, the rest
    /// stays in the queue.
    pub async fn stop(mut self) {
        self.stop.cancel();
        self.portal.graceful_shutdown(Some(DRAIN));
        let drained = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN + Duration::from_secs(5), drained).await.is_err() {
            tracing::warn!("some sessions did not end in time");
        }
        self.tasks.shutdown().await;
        // The last deliveries may have come to their end after the reports' own.
        self.reports.flush().await;
        drop(fs::remove_file(&self.socket));
    }
}

/// Ends connections that send no whole request head in time, or that nobody uses any more: without a timer they would
/// stay for ever. HTTP/1.1 alone, because the wait for a first byte that tells the version has no end.
fn impatient<A>(server: Server<SocketAddr, A>) -> Server<SocketAddr, A> {
    let mut server = server.http1_only();
    let mut builder = server.http_builder().http1();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE).max_buf_size(HTTP_BUFFER);
    server
}

fn portal_ended(served: std::io::Result<()>) -> Ended {
    match served {
        Ok(()) => Ended::Asked,
        Err(error) => Ended::Failed(format!("the portal's listener failed: {error}")),
    }
}

fn bind_all(wanted: &[SocketAddr]) -> Result<Vec<TcpListener>, StartError> {
    wanted.iter().map(|address| Ok(listen::bind(*address)?)).collect()
}

fn addresses(listeners: &[TcpListener]) -> Result<Vec<SocketAddr>, StartError> {
    let bound: Result<_, std::io::Error> = listeners.iter().map(TcpListener::local_addr).collect();
    bound.map_err(|error| StartError::Unavailable(error.to_string()))
}

/// Binds the control socket, open to nobody else from its first moment on: it comes into being
/// under another name and is moved into place once its mode is set.
fn bind_socket(path: &Path) -> std::io::Result<UnixListener> {
    let making = path.with_extension("making");
    match fs::remove_file(&making) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&making)?;
    fs::set_permissions(&making, fs::Permissions::from_mode(0o600))?;
    fs::rename(&making, path)?;
    Ok(listener)
}

fn border_settings(config: &Config) -> BorderSettings {
    let portal = &config.portal;
    BorderSettings {
        listener: "portal",
        trusted_proxies: portal.trusted_proxies.clone(),
        connections: portal_share(config, getrlimit(Resource::Nofile).current),
        connections_per_client: portal.max_connections_per_client,
        min_rate: portal.min_rate,
    }
}

fn intake(config: &Config, parts: &Parts) -> Intake {
    Intake::new(intake_settings(config), parts.door.clone())
}

fn intake_settings(config: &Config) -> IntakeSettings {
    let smtp = &config.smtp;
    IntakeSettings {
        hostname: config.hostname.clone(),
        postmaster: config.organization.postmaster.clone(),
        clients: smtp.clients.clone(),
        normalize: smtp.normalize.clone(),
        require_tls: smtp.require_tls,
        max_message_size: smtp.max_message_size,
        max_recipients: smtp.max_recipients,
        limits: smtp.limits,
        limit_exceptions: smtp.limit_exceptions.clone(),
        max_errors: smtp.max_errors,
        idle_timeout: smtp.idle_timeout,
        max_session_time: smtp.max_session_time,
    }
}

fn tls_reports(config: &Config, parts: &Parts) -> TlsReports {
    let settings = ReportSettings {
        send: config.delivery.tls_reports,
        hostname: config.hostname.clone(),
        organization: config.organization.name.clone(),
        contact: config.organization.postmaster.clone(),
        from: config.notification.from.clone(),
        delay: SignedDuration::from_secs(rand::random_range(REPORT_DELAY)),
        source: source_address,
    };
    let ports = ReportPorts {
        notes: Arc::clone(&parts.notes),
        queue: Arc::clone(&parts.vault.queue),
        vault: parts.vault.clone(),
        resolver: Arc::clone(&parts.resolver) as _,
        web: Arc::clone(&parts.web),
        clock: Arc::clone(&parts.vault.clock),
    };
    TlsReports::new(settings, ports)
}

fn relay_settings(config: &Config) -> RelaySettings {
    let delivery = &config.delivery;
    RelaySettings {
        hostname: config.hostname.clone(),
        organization: config.organization.domains.clone(),
        inside: config.inside.host.clone(),
        inside_level: config.inside.tls,
        notification_level: config.notification.level,
        port: delivery.port,
        retry: delivery.retry.clone(),
        give_up: delivery.give_up,
        warn_after: delivery.warn_after,
        connections_per_domain: delivery.connections_per_domain,
        workers: WORKERS,
        report_from: config.organization.postmaster.clone(),
        lease: LEASE,
        drain: DRAIN,
    }
}
