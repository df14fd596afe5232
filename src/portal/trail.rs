//! What readers do, told to the audit trail.
use super::{Desk, session::Visitor};
use crate::{
    store::{AuditDetail, AuditEvent, AuditKind},
    vault::{Access, VaultError},
};
use axum::http::Method;

impl Desk {
    /// An event that this visitor causes now.
    pub(super) fn event(&self, kind: AuditKind, visitor: &Visitor) -> AuditEvent {
        let mut event = self.audit.event(kind).client(visitor.client).agent(&visitor.agent);
        if let Some(account) = &visitor.account {
            event = event.account(&account.address);
        }
        if let Some(session) = &visitor.session {
            event = event.session(&session.id);
        }
        event
    }
    /// Content is about to be answered: the message counts as opened from the first time on, and the
    /// reading is recorded. A HEAD reads nothing.
    pub(super) async fn was_read(
        &self,
        (visitor, method): (&Visitor, &Method),
        access: &Access,
        kind: AuditKind,
        detail: Option<AuditDetail>,
    ) -> Result<(), VaultError> {
        if *method == Method::HEAD {
            return Ok(());
        }
        self.vault.opened(access).await?;
        let grant = access.grant();
        let event = self.event(kind, visitor).grant(grant.id).message(grant.message);
        self.audit.record(AuditEvent { detail, ..event }).await;
        Ok(())
    }
}
