//! The answering side: reads rows. What changes any stands in [`super::orders`].

use super::{
    Answer, MAX_REQUEST, Page, Refusal, Request,
    view::{
        ClockConfirmed, ClockStatus, DecisionRecipient, DecisionView, DnsStatus, Failure,
        Listeners, PolicyStatus, ProviderView, QueueView, StatusView, TraceView, VaultView,
    },
};
use crate::{
    audit::Audit,
    clock::Clock,
    identity::Identity,
    mail::{Address, Domain, QueueId},
    oidc::Provider,
    probe::watch::Board,
    relay::Relay,
    seal::Class,
    store::{
        AuditKind, Filter, GrantState, Health, MessageRow, PeopleStore, QueueStore, RecipientRow,
        RecipientState, StoreError,
    },
    tlsrpt::TlsReports,
    vault::{KeyProgress, Vault},
};
use async_trait::async_trait;
use jiff::{Timestamp, civil::Date};
use serde::Serialize;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Messages looked at for the failures of `status`.
const FAILURES_FROM: usize = 1000;
/// Messages that one `trace` shows at most.
const TRACE_MAX: usize = 200;
/// Rows a page at most.
pub(super) const MAX_PAGE: usize = 1000;
/// Messages a page of decisions at most.
const DECISIONS_PAGE: usize = 50;
/// Bytes after which a page ends: a message may have a thousand recipients, each with its attempts.
const PAGE_BYTES: usize = 4 << 20;
/// A question must come, and its answer go, within this time.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// What the policies in force are; the root knows.
pub trait PolicyReport: Send + Sync + std::fmt::Debug {
    /// Now.
    fn report(&self) -> PolicyStatus;
}

/// Whether answers of DNS are checked; the root knows.
pub trait DnsReport: Send + Sync + std::fmt::Debug {
    /// Now.
    fn report(&self) -> DnsStatus;
}

/// Changes of the key ring; the root knows where it is kept.
#[async_trait]
pub trait KeyOrders: Send + Sync + std::fmt::Debug {
    /// Adds a key, which wraps what is new.
    ///
    /// # Errors
    /// A sentence that says why not; the ring stays as it was then.
    async fn rotate(&self) -> Result<KeyProgress, String>;
    /// Reads the ring again from where it is kept.
    ///
    /// # Errors
    /// As [`KeyOrders::rotate`].
    async fn reload(&self) -> Result<KeyProgress, String>;
}

/// Answers questions about one running server.
#[derive(Debug, Clone)]
pub struct Control {
    /// The queue.
    pub queue: Arc<dyn QueueStore>,
    /// Makes the reports of what is removed.
    pub relay: Relay,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Sealed messages, and mail of our own.
    pub vault: Vault,
    /// The audit trail.
    pub audit: Audit,
    /// Grants.
    pub people: Arc<dyn PeopleStore>,
    /// Accounts.
    pub identity: Identity,
    /// Policies.
    pub policies: Arc<dyn PolicyReport>,
    /// Warnings of the watch.
    pub watch: Board,
    /// DNS.
    pub dns: Arc<dyn DnsReport>,
    /// Counts of TLS sessions.
    pub reports: TlsReports,
    /// Addresses bound.
    pub listeners: Listeners,
    /// Where readers may sign in elsewhere.
    pub providers: Vec<Arc<Provider>>,
    /// The key ring.
    pub keys: Arc<dyn KeyOrders>,
}

fn provider_view(provider: &Provider) -> ProviderView {
    ProviderView {
        name: provider.name().to_owned(),
        issuer: provider.issuer().to_owned(),
        state: match provider.health() {
            None => "not asked yet".to_owned(),
            Some(Ok(())) => "ok".to_owned(),
            Some(Err(error)) => error.to_string(),
        },
    }
}

impl Control {
    /// Serves the socket until `stop`.
    pub async fn serve(self, listener: UnixListener, stop: CancellationToken) {
        let sessions = TaskTracker::new();
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            let Ok((stream, _)) = accepted else { continue };
            let control = self.clone();
            sessions.spawn(async move {
                if control.session(stream).await.is_err() {
                    tracing::debug!("a control session ended early");
                }
            });
        }
        sessions.close();
        sessions.wait().await;
    }

    async fn session(&self, stream: UnixStream) -> std::io::Result<()> {
        let user = stream.peer_cred()?.uid();
        let (read, mut write) = stream.into_split();
        let mut line = String::new();
        let mut lines = BufReader::new(read.take(MAX_REQUEST));
        timeout(PATIENCE, lines.read_line(&mut line)).await??;
        let answer = match serde_json::from_str(&line) {
            Ok(Request::VaultExport { id }) => return self.vault_export(&id, &mut write).await,
            Ok(request) => timeout(PATIENCE, self.answer(request, user)).await?,
            Err(error) => no(Refusal::Usage, format!("not a request of this version: {error}")),
        };
        say(&mut write, &answer).await?;
        write.shutdown().await
    }

    /// Answers one question of the user with that number.
    async fn answer(&self, request: Request, user: u32) -> Answer {
        let answered = match request {
            Request::Status => self.status().await,
            Request::QueueList { after, max } => self.queue_list(after, max).await,
            Request::QueueOrder(order) => self.order(&order).await,
            Request::QueueShow { id } => self.show(&id).await,
            Request::Trace { query } => self.trace(&query).await,
            Request::Decisions { since, after, max } => self.decisions(since, after, max).await,
            Request::VaultList { after, max } => self.vault_list(after, max).await,
            Request::VaultShow { id } => self.vault_show(&id).await,
            Request::VaultExtend { id, seconds } => self.vault_extend(&id, seconds).await,
            Request::VaultRecall { id, recipient } => {
                self.vault_recall(&id, recipient.as_deref()).await
            }
            Request::VaultDoubts { after, max } => self.vault_doubts(after, max).await,
            Request::VaultTrust { domain } => self.vault_trust(&domain, user).await,
            Request::VaultExport { .. } => {
                Err(no(Refusal::Usage, "a message is exported over the socket alone".to_owned()))
            }
            Request::AccountList { after, max } => self.account_list(after, max).await,
            Request::Account { order, address } => self.account(order, &address).await,
            Request::AccountMove { address, to } => self.account_move(&address, &to).await,
            Request::AuditRecords { query, after, max } => {
                self.audit_records(&query, after, max).await
            }
            Request::AuditVerify => self.audit_verify().await,
            Request::ClockConfirm => self.clock_confirm().await,
            Request::Keys => ok(&self.vault.key_progress()),
            Request::KeysRotate => key_answer(self.keys.rotate().await),
            Request::KeysReload => key_answer(self.keys.reload().await),
            Request::TlsReport { day, domain, after, max } => {
                self.tls_report(day, domain, after, max).await
            }
        };
        answered.unwrap_or_else(|refused| refused)
    }

    async fn status(&self) -> Result<Answer, Answer> {
        let totals = self.queue.totals().await.map_err(unavailable)?;
        let (queue, vault) = StatusView::counts(&totals);
        let open = Filter { open: true, ..Filter::default() };
        let waiting = self.queue.list(&open, None, FAILURES_FROM).await.map_err(unavailable)?;
        ok(&StatusView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            listeners: self.listeners.clone(),
            queue,
            vault,
            policy: self.policies.report(),
            dns: self.dns.report(),
            clock: ClockStatus::of(&self.vault.guard),
            keys: self.vault.key_progress(),
            store: match self.queue.health() {
                Health::Ok => "ok".to_owned(),
                Health::Full => "full".to_owned(),
                Health::Broken(why) => why,
            },
            unreadable: totals.unreadable,
            failures: failures(&waiting),
            watch: self.watch.warnings(),
            sign_in: self.providers.iter().map(|provider| provider_view(provider)).collect(),
        })
    }

    async fn clock_confirm(&self) -> Result<Answer, Answer> {
        let changed = self.vault.confirm_clock().await;
        let changed = changed.map_err(|error| no(Refusal::TryAgain, error.to_string()))?;
        if changed {
            self.audit.record(self.audit.event(AuditKind::ClockConfirmed)).await;
        }
        ok(&ClockConfirmed { clock: self.clock.now(), changed })
    }

    async fn queue_list(&self, after: Option<String>, max: usize) -> Result<Answer, Answer> {
        let open = Filter { open: true, ..Filter::default() };
        let after = after.map(|id| parse_id(&id)).transpose()?;
        let rows = self.queue.list(&open, after, max.min(MAX_PAGE)).await.map_err(unavailable)?;
        let mut page = PageBytes::default();
        for (message, recipients) in &rows {
            if page.is_full() {
                break;
            }
            page.push(&message.facts.id, Some(QueueView::new(message, recipients)))?;
        }
        ok(&page.page)
    }

    async fn show(&self, id: &str) -> Result<Answer, Answer> {
        let id = parse_id(id)?;
        match self.queue.message(id).await.map_err(unavailable)? {
            Some((message, recipients)) => ok(&self.life(&message, &recipients).await?),
            None => Err(no(Refusal::NotFound, format!("no message {id}"))),
        }
    }

    async fn trace(&self, query: &str) -> Result<Answer, Answer> {
        if query.parse::<QueueId>().is_ok() {
            return self.show(query).await;
        }
        let mut lives = Vec::new();
        for filter in filters(query) {
            for (m, r) in self.queue.list(&filter, None, TRACE_MAX).await.map_err(unavailable)? {
                lives.push(self.life(&m, &r).await?);
            }
        }
        lives.sort_by_key(|life| life.id);
        lives.dedup_by_key(|life| life.id);
        match lives.as_slice() {
            [] => Err(no(Refusal::NotFound, format!("nothing is known of {query}"))),
            [one] => ok(one),
            many => ok(&many),
        }
    }

    async fn life(
        &self,
        message: &MessageRow,
        recipients: &[RecipientRow],
    ) -> Result<TraceView, Answer> {
        let mut attempts = Vec::with_capacity(recipients.len());
        for row in recipients {
            let tries = self.queue.attempts(message.facts.id, row.index).await;
            attempts.push(tries.map_err(unavailable)?);
        }
        let mut life = TraceView::new(message, recipients, &attempts);
        for (view, row) in life.recipients.iter_mut().zip(recipients) {
            let RecipientState::Granted { grant, .. } = &row.state else { continue };
            if let Some(grant) = self.people.grant(*grant).await.map_err(unavailable)? {
                view.since_sealed(&grant);
            }
        }
        Ok(life)
    }

    async fn decisions(
        &self,
        since: Timestamp,
        after: Option<String>,
        max: usize,
    ) -> Result<Answer, Answer> {
        let after = match after {
            Some(id) => parse_id(&id)?,
            // Ids begin with the time of arrival.
            None => QueueId::new(u64::try_from(since.as_millisecond()).unwrap_or(0), [0; 10]),
        };
        let rows = self.queue.list(&Filter::default(), Some(after), max.min(DECISIONS_PAGE)).await;
        let rows = rows.map_err(unavailable)?;
        let mut page = PageBytes::default();
        for (message, recipients) in rows {
            if page.is_full() {
                break;
            }
            if message.facts.class != Class::Protected {
                page.push::<DecisionView>(&message.facts.id, None)?;
                continue;
            }
            let mut decided = Vec::with_capacity(recipients.len());
            for row in recipients {
                let attempts = self.queue.attempts(message.facts.id, row.index).await;
                let attempts = attempts.map_err(unavailable)?;
                decided.push(DecisionRecipient {
                    address: row.address,
                    state: row.state,
                    why: row.why,
                    attempts,
                });
            }
            let view = DecisionView {
                id: message.facts.id,
                arrived: message.facts.arrived,
                rule: message.facts.rule,
                recipients: decided,
            };
            page.push(&message.facts.id, Some(view))?;
        }
        ok(&page.page)
    }

    async fn vault_list(&self, after: Option<String>, max: usize) -> Result<Answer, Answer> {
        let after = after
            .map(|id| id.parse().map_err(|e| no(Refusal::Usage, format!("{id}: {e}"))))
            .transpose()?;
        let grants = self.people.grants(None, after, max.min(MAX_PAGE)).await;
        let grants = grants.map_err(unavailable)?;
        let next = grants.last().map(|g| g.id.to_string());
        let live = grants.iter().filter(|g| g.state == GrantState::Live);
        page(live.map(VaultView::from), next)
    }

    async fn tls_report(
        &self,
        day: Option<Date>,
        domain: Option<Domain>,
        after: Option<String>,
        max: usize,
    ) -> Result<Answer, Answer> {
        let max = max.min(MAX_PAGE);
        let reports = self.reports.reports(day, domain.as_ref(), after, max).await;
        let reports = reports.map_err(unavailable)?;
        let next = reports.last().filter(|_| reports.len() == max).map(|(key, _)| key.clone());
        page(reports.into_iter().map(|(_, report)| report), next)
    }
}

fn key_answer(done: Result<KeyProgress, String>) -> Result<Answer, Answer> {
    ok(&done.map_err(|text| no(Refusal::NotFound, text))?)
}

/// The ways in which a query may name messages: an address as sender or recipient, or a Message-ID
/// with or without its brackets.
fn filters(query: &str) -> Vec<Filter> {
    let mut ways = Vec::new();
    let bare = query.trim_start_matches('<').trim_end_matches('>');
    if let Ok(address) = bare.parse::<Address>() {
        ways.push(Filter { recipient: Some(address.clone()), ..Filter::default() });
        ways.push(Filter { sender: Some(address), ..Filter::default() });
    }
    ways.push(Filter { message_id: Some(format!("<{bare}>")), ..Filter::default() });
    ways
}

/// One line.
pub(super) async fn say(write: &mut OwnedWriteHalf, answer: &Answer) -> std::io::Result<()> {
    let mut bytes = serde_json::to_vec(answer)?;
    bytes.push(b'\n');
    timeout(PATIENCE, write.write_all(&bytes)).await?
}

fn failures(rows: &[(MessageRow, Vec<RecipientRow>)]) -> Vec<Failure> {
    let mut by_domain: BTreeMap<Domain, Failure> = BTreeMap::new();
    let waiting = rows.iter().flat_map(|(_, recipients)| recipients);
    for row in waiting.filter(|r| matches!(r.state, RecipientState::Waiting { .. })) {
        let Some(why) = &row.why else { continue };
        let domain = row.address.domain();
        let failure = by_domain.entry(domain.clone()).or_insert_with(|| Failure {
            domain: domain.clone(),
            reason: String::new(),
            text: String::new(),
            waiting: 0,
        });
        failure.reason = super::view::word(&why.reason);
        failure.text.clone_from(&why.text);
        failure.waiting = failure.waiting.saturating_add(1);
    }
    by_domain.into_values().collect()
}

pub(super) fn parse_id(text: &str) -> Result<QueueId, Answer> {
    text.parse().map_err(|e| no(Refusal::NotFound, format!("{text}: {e}")))
}

/// A page that ends where it becomes too long.
#[derive(Debug)]
struct PageBytes {
    page: Page,
    bytes: usize,
}

impl Default for PageBytes {
    fn default() -> Self {
        Self { page: Page { rows: Vec::new(), next: None }, bytes: 0 }
    }
}

impl PageBytes {
    fn is_full(&self) -> bool {
        self.bytes >= PAGE_BYTES
    }

    /// The next message, and what is shown of it.
    fn push<T: Serialize>(&mut self, id: &QueueId, row: Option<T>) -> Result<(), Answer> {
        let failed = |error: serde_json::Error| no(Refusal::TryAgain, error.to_string());
        if let Some(row) = row {
            let text = serde_json::to_string(&row).map_err(failed)?;
            self.bytes = self.bytes.saturating_add(text.len());
            self.page.rows.push(serde_json::from_str(&text).map_err(failed)?);
        }
        self.page.next = Some(id.to_string());
        Ok(())
    }
}

pub(super) fn page<T: Serialize>(
    rows: impl Iterator<Item = T>,
    next: Option<String>,
) -> Result<Answer, Answer> {
    let rows: Result<_, _> = rows.map(|row| serde_json::to_value(row)).collect();
    let rows = rows.map_err(|error| no(Refusal::TryAgain, error.to_string()))?;
    ok(&Page { rows, next })
}

pub(super) fn ok<T: Serialize>(value: &T) -> Result<Answer, Answer> {
    serde_json::to_value(value)
        .map(Answer::Ok)
        .map_err(|error| no(Refusal::TryAgain, error.to_string()))
}

pub(super) fn no(why: Refusal, text: String) -> Answer {
    Answer::No { why, text }
}

pub(super) fn unavailable(error: StoreError) -> Answer {
    no(Refusal::TryAgain, error.to_string())
}
