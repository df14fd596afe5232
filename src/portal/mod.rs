//! The portal: where people outside read what is kept for them.
//!
//! Server-rendered pages that work without scripts; where those run, they add passkeys and send files
//! ahead of their letter. [`Portal::router`] is built from one table of routes,
//! each with its demand on the visitor; what the table does not name needs a session. The root
//! serves it; nothing here opens a socket. Reading goes through the vault alone.

mod account;
mod body;
mod brand;
mod check;
mod client;
mod codes;
mod download;
mod fault;
mod form;
mod frame;
mod guard;
mod log;
mod markup;
mod mbox;
mod oidc;
mod pages;
mod passkey;
mod picture;
mod prove;
mod range;
mod read;
mod reader;
mod reset;
mod routes;
mod search;
mod second;
mod session;
mod show;
mod sign_in;
#[cfg(test)]
mod tests;
mod tongue;
mod trail;
mod why;
mod workers;
mod write;

use crate::{
    audit::Audit,
    identity::Identity,
    intake::Door,
    language::Languages,
    mail::{Domain, notice::TemplateError},
    oidc::{LoginFlows, Provider},
    seal::TicketKey,
    submission::{Submission, SubmissionSettings},
    vault::Vault,
};
use axum::Router;
pub use brand::{Brand, Colour, Logo};
use fault::Fault;
use ipnet::IpNet;
use jiff::Timestamp;
use std::{collections::BTreeMap, sync::Arc};
use zeroize::Zeroizing;

/// What the portal shows and how it is reached.
#[derive(Debug, Clone)]
pub struct PortalSettings {
    /// `organization.name`
    pub organization: String,
    /// `organization.support`
    pub support: String,
    /// `portal.url`: what links start with. With `https` cookies are `Secure`, and browsers are
    /// told to stay with it.
    pub url: String,
    /// `organization.domains`: whom messages may be forwarded to.
    pub domains: Vec<Domain>,
    /// `portal.max_reply_size`
    pub max_reply_size: u64,
    /// `portal.refuse_files`: patterns, lower case.
    pub refuse_files: Vec<String>,
    /// `portal.trusted_proxies`: networks whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// `portal.min_rate`: bytes a second that a body must bring at least; 0: no limit.
    pub min_rate: u64,
    /// `organization.logo`, `accent` and `accent_dark`
    pub brand: Brand,
    /// `portal.terms_url`, or empty.
    pub terms_url: String,
    /// `portal.privacy_url`, or empty.
    pub privacy_url: String,
    /// `portal.language` and `portal.languages`
    pub languages: Arc<Languages>,
    /// Templates that stand in for built-in ones: file name → text. [`Portal::template_names`]
    /// lists the names.
    pub overrides: BTreeMap<String, String>,
    /// `portal.oidc`: where readers may sign in instead.
    pub providers: Vec<Arc<Provider>>,
}

impl PortalSettings {
    fn of_submission(&self) -> SubmissionSettings {
        SubmissionSettings {
            domains: self.domains.clone(),
            max_size: self.max_reply_size,
            refuse_files: self.refuse_files.clone(),
            languages: Arc::clone(&self.languages),
        }
    }
}

/// The portal, ready to be served.
#[derive(Debug, Clone)]
pub struct Portal {
    desk: Arc<Desk>,
}

/// What every handler works with.
#[derive(Debug)]
struct Desk {
    settings: PortalSettings,
    vault: Vault,
    /// What happens here is told to it.
    audit: Audit,
    /// Letters on their way in.
    submission: Submission,
    pages: pages::Pages,
    /// Sign-in, sessions, credentials.
    identity: Identity,
    /// Sign-ins that are under way elsewhere.
    flows: LoginFlows,
    /// Memory for what requests without a session bring.
    strangers: body::Budget,
    /// What opens the frame of a message without a cookie.
    tickets: TicketKey,
    /// Where pictures are drawn.
    studio: picture::Studio,
    /// Who reads what is long to read.
    workers: workers::Workers,
}

impl Portal {
    /// Checks the templates by rendering each of them with sample values, so that a bad override is
    /// found at start.
    pub fn new(
        settings: PortalSettings,
        vault: Vault,
        identity: Identity,
        door: Door,
        audit: Audit,
    ) -> Result<Self, TemplateError> {
        let pages = pages::Pages::new(&settings)?;
        let desk = Desk {
            submission: Submission::new(settings.of_submission(), vault.clone(), door),
            settings,
            vault,
            audit,
            pages,
            identity,
            flows: LoginFlows::default(),
            strangers: body::Budget::default(),
            tickets: TicketKey::from_random(Zeroizing::new(rand::random())),
            studio: picture::Studio::default(),
            workers: workers::Workers::default(),
        };
        Ok(Self { desk: Arc::new(desk) })
    }
    /// The routes with everything that stands before them. The client's address comes from the
    /// [`Connection`](crate::net::http::Connection) that a [`Border`](crate::net::http::Border) puts
    /// into each request.
    pub fn router(&self) -> Router {
        routes::router(Arc::clone(&self.desk))
    }
    /// Names that [`PortalSettings::overrides`] may hold.
    pub fn template_names() -> impl Iterator<Item = &'static str> {
        pages::TEMPLATES.iter().map(|(name, _)| *name).chain([pages::STYLE])
    }
}
impl Desk {
    fn now(&self) -> Timestamp {
        self.vault.clock.now()
    }
    fn https(&self) -> bool {
        self.settings.url.starts_with("https://")
    }
}
