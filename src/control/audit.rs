//! The audit trail, for the operator: look, check, export.

use super::{
    Answer, Refusal,
    server::{Control, MAX_PAGE, no, ok, page, unavailable},
};
use crate::{
    mail::{Address, QueueId},
    store::{AuditKind, AuditRecord},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Which records are asked for; what is not given does not count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditQuery {
    /// Of this mailbox.
    pub account: Option<Address>,
    /// Of this kind.
    pub event: Option<AuditKind>,
    /// From this client.
    pub client: Option<IpAddr>,
    /// With this message.
    pub message: Option<QueueId>,
    /// Then or later.
    pub since: Option<Timestamp>,
    /// Before then.
    pub until: Option<Timestamp>,
    /// In the order of the trail; otherwise the newest first.
    pub forward: bool,
}
impl AuditQuery {
    fn matches(&self, record: &AuditRecord) -> bool {
        let event = &record.event;
        let folded = |address: &Address| address.to_string().to_lowercase();
        let account = self.account.as_ref().map(folded);
        (account.is_none() || account == event.account.as_ref().map(folded))
            && self.event.is_none_or(|kind| kind == event.kind)
            && self.client.is_none_or(|client| Some(client.to_canonical()) == event.client)
            && self.message.is_none_or(|message| Some(message) == event.message)
            && self.since.is_none_or(|since| event.at >= since)
            && self.until.is_none_or(|until| event.at < until)
    }
}

impl Control {
    /// A page of records, and after which number the next one begins.
    pub(super) async fn audit_records(
        &self,
        query: &AuditQuery,
        after: Option<String>,
        max: usize,
    ) -> Result<Answer, Answer> {
        let max = max.clamp(1, MAX_PAGE);
        let after = after.map(|text| text.parse::<u64>()).transpose();
        let after = after.map_err(|e| no(Refusal::Usage, format!("no number of a record: {e}")))?;
        let records = if query.forward {
            self.audit.records(after.unwrap_or(0), MAX_PAGE).await
        } else {
            self.audit.events(query.account.as_ref(), after, MAX_PAGE).await
        };
        let records = records.map_err(unavailable)?;
        let mut next = records.last().map(|last| last.seq);
        let mut found = Vec::new();
        for record in records {
            if found.len() == max {
                break;
            }
            let seq = record.seq;
            if query.matches(&record) {
                found.push(record);
                if found.len() == max {
                    next = Some(seq);
                }
            }
        }
        page(found.into_iter(), next.map(|seq| seq.to_string()))
    }
    pub(super) async fn audit_verify(&self) -> Result<Answer, Answer> {
        ok(&self.audit.verify().await.map_err(unavailable)?)
    }
}
