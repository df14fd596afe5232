//! What machines watch: `/metrics` for Prometheus, `/healthz`, `/readyz`. Values are taken afresh for
//! every scrape from what `status` shows. Labels are states, kinds and versions; never an address,
//! never a domain.

use crate::{
    audit::AuditCounts,
    clock::ClockGuard,
    control::{
        server::{DnsReport, PolicyReport},
        view::StatusView,
    },
    intake::Counts,
    net::http,
    probe::watch::{Board, Kind},
    store::{Health, QueueStore, StoreError, Totals},
};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::Registry,
};
use std::{sync::Arc, time::Duration};
use tokio::sync::Mutex;
use tower_http::timeout::TimeoutLayer;

/// How long a scrape may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// What Prometheus and its like read (`OpenMetrics` 1.0).
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Where the values come from.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// The queue, and the health of its store.
    pub queue: Arc<dyn QueueStore>,
    /// Whether the clock can be relied on.
    pub guard: Arc<ClockGuard>,
    /// Policies.
    pub policies: Arc<dyn PolicyReport>,
    /// DNS.
    pub dns: Arc<dyn DnsReport>,
    /// Warnings of the watch.
    pub watch: Board,
    /// What intake counts.
    pub intake: Arc<Counts>,
    /// What happened at the portal and at accounts.
    pub audit: Arc<AuditCounts>,
    /// What the portal's listener counts.
    pub portal: Arc<http::Counts>,
}

#[derive(Debug, Clone)]
struct Shared {
    metrics: Metrics,
    /// One scrape at a time, however many ask.
    turn: Arc<Mutex<()>>,
}

impl Metrics {
    /// The routes.
    pub fn router(self) -> Router {
        let shared = Shared { metrics: self, turn: Arc::default() };
        Router::new()
            .route("/metrics", get(scrape))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, PATIENCE))
            .with_state(shared)
    }

    async fn text(&self) -> Result<String, StoreError> {
        let totals = self.queue.totals().await?;
        let mut text = String::new();
        let encoded = encode(&mut text, &self.registry(&totals));
        encoded.map_err(|error| StoreError::Corrupt(error.to_string()))?;
        Ok(text)
    }

    fn registry(&self, totals: &Totals) -> Registry {
        let mut registry = Registry::with_prefix("restante");
        let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The program", version);
        let (queue, vault) = StatusView::counts(totals);
        let states = [("active", queue.active), ("deferred", queue.deferred), ("held", queue.held)];
        let help = "Recipients that wait, by state";
        family(&mut registry, "queue_recipients", help, "state", &states);
        let oldest = queue.oldest.map_or(0, jiff::Timestamp::as_second);
        let help = "Arrival of the oldest message that waits, Unix time; 0: none";
        gauge(&mut registry, "queue_oldest_timestamp_seconds", help, oldest);
        let help = "Messages that wait for pickup";
        gauge(&mut registry, "vault_messages", help, whole(vault.messages));
        let help = "Recipients who may pick a message up";
        gauge(&mut registry, "vault_grants", help, whole(vault.grants));
        let help = "Sealed bytes kept for pickup";
        gauge(&mut registry, "vault_bytes", help, whole(vault.bytes));
        let help = "Disk that segments of small sealed bodies take";
        gauge(&mut registry, "segment_bytes", help, whole(vault.segments.taken));
        let help = "Bytes in segments that messages still need";
        gauge(&mut registry, "segment_live_bytes", help, whole(vault.segments.live));
        let ok = self.queue.health() == Health::Ok;
        gauge(&mut registry, "store_ok", "The store takes new mail", ok.into());
        let help = "Rows of the store that can't be read; the log names them";
        gauge(&mut registry, "store_unreadable_rows", help, whole(totals.unreadable));
        let relied = self.guard.check().is_ok();
        let help = "The clock is where it should be; otherwise nothing expires";
        gauge(&mut registry, "clock_ok", help, relied.into());
        self.policies(&mut registry);
        let working = self.dns.report().working;
        let help = "Answers of DNS are checked (DNSSEC)";
        gauge(&mut registry, "dnssec_working", help, working.into());
        self.warnings(&mut registry);
        self.intake(&mut registry);
        self.audit(&mut registry);
        self.portal(&mut registry);
        registry
    }

    fn intake(&self, registry: &mut Registry) {
        let open = whole(self.intake.connections());
        gauge(registry, "smtp_connections", "Connections to intake", open);
        let family = Family::<Vec<(&'static str, &'static str)>, Counter>::default();
        for (kind, count) in self.intake.refused() {
            family.get_or_create(&vec![("limit", kind.as_str())]).inc_by(count);
        }
        registry.register("smtp_refused", "What intake put off, by limit", family);
    }

    /// Every kind, so that an alert has something to compare with.
    fn audit(&self, registry: &mut Registry) {
        let sign_ins = Family::<Vec<(&'static str, &'static str)>, Counter>::default();
        let events = Family::<Vec<(&'static str, &'static str)>, Counter>::default();
        for (kind, count) in self.audit.all() {
            events.get_or_create(&vec![("event", kind.as_str())]).inc_by(count);
            if let Some(result) = kind.sign_in_result() {
                sign_ins.get_or_create(&vec![("result", result)]).inc_by(count);
            }
        }
        registry.register("sign_ins", "Attempts to sign in, by result", sign_ins);
        registry.register("portal_events", "Events of the audit trail, by kind", events);
    }

    fn portal(&self, registry: &mut Registry) {
        let open = whole(self.portal.open());
        gauge(registry, "portal_connections", "Connections to the portal", open);
        let family = Family::<Vec<(&'static str, &'static str)>, Counter>::default();
        for (kind, count) in self.portal.refused() {
            family.get_or_create(&vec![("limit", kind.as_str())]).inc_by(count);
        }
        let help = "Connections that the portal refused or ended, by limit";
        registry.register("portal_refused", help, family);
    }

    fn policies(&self, registry: &mut Registry) {
        let policy = self.policies.report();
        let version = Info::new(vec![("version", policy.version)]);
        registry.register("policy_version", "The policies in force", version);
        let help = "When the policies in force were loaded, Unix time";
        gauge(registry, "policy_loaded_timestamp_seconds", help, policy.loaded.as_second());
        let help = "A newer set of policies on disk is not in force";
        gauge(registry, "policy_reload_error", help, policy.error.is_some().into());
    }

    /// Every kind, so that an alert has something to compare with.
    fn warnings(&self, registry: &mut Registry) {
        let warnings = self.watch.warnings();
        let count = |kind: Kind| {
            let of_kind = warnings.iter().filter(|warned| warned.kind == kind).count();
            (kind.as_str(), u64::try_from(of_kind).unwrap_or(u64::MAX))
        };
        let help = "Partners that the watch warns of, by kind";
        family(registry, "watch_warnings", help, "kind", &Kind::ALL.map(count));
    }
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: i64) {
    let gauge = Gauge::<i64>::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

fn family(
    registry: &mut Registry,
    name: &str,
    help: &str,
    label: &'static str,
    values: &[(&'static str, u64)],
) {
    let family = Family::<Vec<(&'static str, &'static str)>, Gauge>::default();
    for (of, value) in values {
        family.get_or_create(&vec![(label, *of)]).set(whole(*value));
    }
    registry.register(name, help, family);
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

async fn scrape(State(shared): State<Shared>) -> Response {
    let _turn = shared.turn.lock().await;
    match shared.metrics.text().await {
        Ok(text) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

/// Ready to take mail, also while the clock is in doubt. While the server drains, nobody answers here
/// any more.
async fn ready(State(shared): State<Shared>) -> Response {
    match shared.metrics.queue.health() {
        Health::Ok => match shared.metrics.guard.check() {
            Ok(_) => "ready\n".into_response(),
            Err(doubt) => format!("ready\n{doubt}\n").into_response(),
        },
        Health::Full => (StatusCode::SERVICE_UNAVAILABLE, "the store is full\n").into_response(),
        Health::Broken(why) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::SystemClock,
        control::view::{DnsStatus, PolicyStatus},
        store::memory::MemoryStore,
    };
    use jiff::Timestamp;

    #[derive(Debug)]
    struct Says {
        error: Option<String>,
        working: bool,
    }
    impl PolicyReport for Says {
        fn report(&self) -> PolicyStatus {
            let loaded = Timestamp::UNIX_EPOCH;
            PolicyStatus { version: "0123456789abcdef".into(), loaded, error: self.error.clone() }
        }
    }
    impl DnsReport for Says {
        fn report(&self) -> DnsStatus {
            DnsStatus { dnssec: "validate".into(), working: self.working, text: String::new() }
        }
    }

    fn metrics(error: Option<&str>, working: bool) -> Metrics {
        let says = Arc::new(Says { error: error.map(str::to_owned), working });
        Metrics {
            queue: Arc::new(MemoryStore::new()),
            guard: Arc::new(ClockGuard::new(Arc::new(SystemClock), None)),
            policies: Arc::clone(&says) as _,
            dns: says,
            watch: Board::default(),
            intake: Arc::default(),
            audit: Arc::default(),
            portal: Arc::default(),
        }
    }

    #[tokio::test]
    async fn values_are_told_by_name() {
        let text = metrics(None, true).text().await.unwrap();
        for line in [
            "restante_queue_recipients{state=\"active\"} 0",
            "restante_vault_bytes 0",
            "restante_segment_bytes 0",
            "restante_segment_live_bytes 0",
            "restante_store_ok 1",
            "restante_store_unreadable_rows 0",
            "restante_clock_ok 1",
            "restante_policy_version_info{version=\"0123456789abcdef\"} 1",
            "restante_policy_reload_error 0",
            "restante_dnssec_working 1",
            "restante_watch_warnings{kind=\"certificate-ends\"} 0",
            "restante_watch_warnings{kind=\"unreachable\"} 0",
            "restante_smtp_connections 0",
            "restante_smtp_refused_total{limit=\"message-rate\"} 0",
            "restante_sign_ins_total{result=\"ok\"} 0",
            "restante_sign_ins_total{result=\"wrong-password\"} 0",
            "restante_portal_events_total{event=\"downloaded\"} 0",
            "restante_portal_connections 0",
            "restante_portal_refused_total{limit=\"without-session\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        let text = metrics(Some("p.toml:1:1: error"), false).text().await.unwrap();
        for line in ["restante_policy_reload_error 1", "restante_dnssec_working 0"] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(!text.contains("p.toml"), "what is wrong stands in the log");
    }
}
