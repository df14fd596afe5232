//! The invariants when all is quiet: nothing is acknowledged before it is durable, doubt becomes neither
//! plaintext nor a bounce, and each recipient has exactly one outcome.

use super::{
    ledger::{Book, Event},
    world::World,
};
use jiff::Timestamp;
use restante::{
    mail::{GrantId, QueueId},
    policy::Reason,
    seal::Class,
    store::{
        Account, Filter, GrantState, MessageRow, NoteKind, NoteStore, PeopleStore, QueueStore,
        RecipientRow, RecipientState, SessionFacts, SignedBy,
    },
    vault::AccessAnswer,
};
use std::collections::BTreeMap;

impl World {
    /// Everything that is wrong.
    pub async fn check(&self) -> Vec<String> {
        let memory = &self.gateway.store.memory;
        let messages = memory.list(&Filter::default(), None, 10_000).await.expect("memory");
        let mut book = self.ledger.book().clone();
        book.reports_expired = messages.iter().any(|(message, rows)| {
            message.facts.class == Class::Report
                && rows.iter().any(|row| matches!(row.state, RecipientState::Expired { .. }))
        });
        let mut wrong = book.wrong.clone();
        let notices = notices(&messages);
        for (label, offered) in &book.offered {
            let id = book.stored.get(label);
            if let Some(acknowledged) = &offered.acknowledged
                && id.map(ToString::to_string).as_ref() != Some(acknowledged)
            {
                wrong.push(format!("{label} was acknowledged as {acknowledged} and is {id:?}"));
            }
            let found = id.and_then(|id| messages.iter().find(|(m, _)| m.facts.id == *id));
            match found {
                Some((_, rows)) if rows.len() != offered.to.len() => {
                    wrong.push(format!("{label} has {} recipients", rows.len()));
                }
                Some((message, rows)) => {
                    for row in rows {
                        wrong.extend(self.outcome(&book, &notices, message, row).await);
                    }
                }
                None if id.is_some() => wrong.push(format!("{label} is gone from the store")),
                None => {}
            }
        }
        for (message, rows) in &messages {
            for row in rows {
                wrong.extend(once(&book, message.facts.id, row));
            }
            wrong.extend(self.remains(message, rows).await);
        }
        wrong
    }

    /// Each recipient of a customer's message: one end, and everybody was told of it who has to be.
    async fn outcome(
        &self,
        book: &Book,
        notices: &BTreeMap<GrantId, (QueueId, RecipientState)>,
        message: &MessageRow,
        row: &RecipientRow,
    ) -> Vec<String> {
        let to = row.address.to_string();
        let domain = row.address.domain().as_str();
        let mut wrong = Vec::new();
        let mut claim = |holds: bool, what: &str| {
            if !holds {
                wrong.push(format!("{to}: {what}: {row:?}"));
            }
        };
        let told = book.failed.values().filter(|failed| failed.contains(&to)).count();
        // A report that found the inside host shut until its own time was over is told to nobody.
        let shut = message.facts.sender.is_some() && book.reports_expired;
        let hears = usize::from(message.facts.sender.is_some());
        let heard = told == hears || shut && told == 0;
        let late = book.delayed.values().filter(|delayed| delayed.contains(&to)).count();
        claim(late <= hears, "more than one warning");
        let reason = row.why.as_ref().map(|why| why.reason);
        match &row.state {
            RecipientState::Delivered { .. } => {
                claim(told == 0, "delivered, and reported as failed");
                claim(!to.contains("no@"), "delivered to nobody");
            }
            RecipientState::Granted { grant, .. } => {
                let may = match domain {
                    "stranger.example" => reason == Some(Reason::PolicyEnvelope),
                    "tls.example" => {
                        reason == Some(Reason::LevelNotMet) && book.unsafe_domains.contains(domain)
                    }
                    _ => false,
                };
                claim(may, "sealed without cause");
                if reason == Some(Reason::LevelNotMet) {
                    claim(self.is_doubted(domain, *grant).await, "sealed, and no doubt noted");
                }
                match notices.get(grant) {
                    Some((_, RecipientState::Delivered { .. })) => {
                        claim(told == 0, "sealed and told so, and reported as failed");
                        let opened = self.open(message, row, *grant).await;
                        claim(opened.is_ok(), &format!("sealed, and does not open: {opened:?}"));
                    }
                    Some(_) => claim(heard, "no word of a notice that failed"),
                    None => claim(false, "sealed without a notice"),
                }
            }
            RecipientState::Bounced { .. } => {
                let may = domain == "gone.example"
                    || book.refused.contains(&to)
                    || book.refused.contains(&format!("@{domain}"));
                claim(may, "bounced, and nobody had refused it");
                claim(heard, "bounced: not one report");
            }
            RecipientState::Expired { .. } => {
                claim(reason == Some(Reason::GaveUp), "expired without a reason");
                claim(heard, "expired: not one report");
            }
            RecipientState::Waiting { .. }
            | RecipientState::Held { .. }
            | RecipientState::Removed { .. } => claim(false, "waits for ever"),
        }
        wrong
    }

    /// The line is in doubt (level `encrypt` proves nothing that would end it), and the grant says so.
    async fn is_doubted(&self, domain: &str, grant: GrantId) -> bool {
        let memory = &self.gateway.store.memory;
        let noted = memory.note(NoteKind::Doubt, domain).await.expect("memory").is_some();
        let proof = memory.grant(grant).await.expect("memory").and_then(|grant| grant.proof);
        noted && proof.is_some_and(|proof| proof.doubt.is_some())
    }

    /// The recipient reads the message at the portal.
    async fn open(
        &self,
        message: &MessageRow,
        row: &RecipientRow,
        grant: GrantId,
    ) -> Result<(), String> {
        let account = Account::new(row.address.clone(), [1; 16], message.facts.arrived);
        let vault = &self.gateway.vault;
        // The account is older than any doubt about a line.
        let rooted = Some(Timestamp::UNIX_EPOCH);
        let session = SessionFacts { by: SignedBy::Password, rooted, ..SessionFacts::default() };
        let access = vault.access(grant, &account, &session).await;
        let access = match access.map_err(|e| e.to_string())? {
            AccessAnswer::Granted(access) => access,
            other @ (AccessAnswer::Unproved(_) | AccessAnswer::Over | AccessAnswer::NotYours) => {
                return Err(format!("{other:?}"));
            }
        };
        let content = vault.read(&access, 0..u64::MAX).await;
        let (mut content, mut length) = (content.map_err(|e| e.to_string())?, 0);
        while let Some(piece) = content.next().await.map_err(|e| e.to_string())? {
            length += piece.len() as u64;
        }
        if length == message.size { Ok(()) } else { Err(format!("{length} bytes")) }
    }

    /// What is over leaves no bytes behind, and what may still be read keeps them.
    async fn remains(&self, message: &MessageRow, rows: &[RecipientRow]) -> Option<String> {
        let memory = &self.gateway.store.memory;
        let mut live = 0;
        for row in rows {
            if let RecipientState::Granted { grant, .. } = row.state {
                let grant = memory.grant(grant).await.expect("memory");
                live += usize::from(grant.is_some_and(|g| g.state == GrantState::Live));
            }
        }
        let (id, kept) = (message.facts.id, memory.sealed_bytes(message.facts.id).is_some());
        let open = rows.iter().any(|row| row.state.is_open());
        (!open && kept != (live > 0))
            .then(|| format!("{id}: {live} live grants, sealed bytes kept: {kept}"))
    }
}

/// What became of each notice, by the grant it tells of.
fn notices(
    messages: &[(MessageRow, Vec<RecipientRow>)],
) -> BTreeMap<GrantId, (QueueId, RecipientState)> {
    let notices = messages.iter().filter(|(m, _)| m.facts.class == Class::Notice);
    let of = |(m, rows): &(MessageRow, Vec<RecipientRow>)| {
        Some((m.facts.grant?, (m.facts.id, rows.first()?.state.clone())))
    };
    notices.filter_map(of).collect()
}

/// What a recipient got, against what was written: more than once only where no answer came, or
/// where the process ended before it could be written.
fn once(book: &Book, id: QueueId, row: &RecipientRow) -> Option<String> {
    let (id, to) = (id.to_string(), row.address.to_string());
    let (mut answered, mut counted, mut ended, mut after) = (0, 0, 0, 0);
    for event in &book.events {
        match event {
            Event::Taken { id: i, to: t, answered: yes, .. } if *i == id && *t == to => {
                answered += usize::from(*yes);
                // An unanswered one may have been long on its way.
                after += ended * usize::from(*yes);
            }
            Event::Settled { id: i, to: t, ended: yes } if *i == id && *t == to => {
                ended += usize::from(*yes);
                counted += std::mem::take(&mut answered);
            }
            Event::Taken { .. } | Event::Settled { .. } => {}
            Event::Broken => answered = 0,
        }
    }
    counted += answered;
    let delivered = matches!(row.state, RecipientState::Delivered { .. });
    let fine = counted == usize::from(delivered)
        && ended == usize::from(!row.state.is_open())
        && after == 0;
    (!fine).then(|| {
        format!(
            "{to} of {id}: taken and answered {counted} times, {after} of them after its end; \
             {ended} ends; {:?}",
            row.state
        )
    })
}
