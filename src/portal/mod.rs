//! The portal: where people outside read what is kept for them (INTERFACE sections 6 and 7).
//!
//! Server-rendered pages that work without scripts; where those run, they add passkeys and send files
//! ahead of their letter. [`Portal::router`] is built from one table of routes,
//! each with its demand on the visitor; what the table does not name needs a session. The root
//! serves it; nothing here opens a socket. Reading goes through the vault alone.

mod account;
mod brand;
mod check;
mod codes;
mod download;
mod fault;
mod form;
mod frame;
mod guard;
mod markup;
mod mbox;
mod oidc;
mod pages;
mod passkey;
mod password;
mod picture;
mod prove;
mod read;
mod reset;
mod routes;
mod search;
mod second;
mod session;
mod show;
mod sign_in;
#[cfg(test)]
mod tests;
mod throttle;
mod tongue;
mod why;
mod workers;
mod write;

use crate::{
    intake::Door,
    language::Languages,
    mail::{Domain, notice::TemplateError},
    oidc::Provider,
    seal::TicketKey,
    vault::Vault,
};
use axum::Router;
pub use brand::{Brand, Colour, Logo};
use fault::Fault;
use jiff::Timestamp;
use std::{collections::BTreeMap, sync::Arc};

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
    /// `organization.logo`, `accent` and `accent_dark`
    pub brand: Brand,
    /// `portal.language` and `portal.languages`
    pub languages: Arc<Languages>,
    /// Templates that stand in for built-in ones: file name → text. [`Portal::template_names`]
    /// lists the names.
    pub overrides: BTreeMap<String, String>,
    /// `portal.oidc`: where readers may sign in instead.
    pub providers: Vec<Arc<Provider>>,
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
    /// Where letters go in.
    door: Door,
    pages: pages::Pages,
    passwords: password::Passwords,
    /// Wrong passwords, by account and by client address.
    sign_ins: throttle::Throttle,
    /// Codes mailed, by mailbox and by client address: each is worth ten guesses.
    codes: throttle::Throttle,
    /// Notices asked after that nobody knows, by client address.
    checks: throttle::Throttle,
    /// What passkeys are asked to sign.
    challenges: passkey::Challenges,
    /// Sign-ins that are under way elsewhere.
    trips: oidc::Trips,
    /// Mails on their way that no answer waits for.
    mailing: Arc<tokio::sync::Semaphore>,
    /// One code is checked at a time, so that parallel guesses can't share a try.
    verifying: tokio::sync::Mutex<()>,
    /// Letters sent, by account.
    quota: write::Quota,
    /// Files uploaded ahead of their letter.
    stage: write::Stage,
    /// Letters on their way in, so that they never take all of the door's memory.
    uploads: tokio::sync::Semaphore,
    /// What opens the frame of a message without a cookie.
    tickets: TicketKey,
    /// Where pictures are drawn.
    studio: picture::Studio,
    /// Who reads what is long to read.
    workers: workers::Workers,
}

/// Letters on their way in at one time.
const UPLOADS: usize = 16;

impl Portal {
    /// Checks the templates by rendering each of them with sample values, so that a bad override is
    /// found at start.
    pub fn new(settings: PortalSettings, vault: Vault, door: Door) -> Result<Self, TemplateError> {
        let pages = pages::Pages::new(&settings)?;
        let desk = Desk {
            settings,
            vault,
            door,
            pages,
            passwords: password::Passwords::default(),
            sign_ins: throttle::Throttle::default(),
            codes: throttle::Throttle::default(),
            checks: throttle::Throttle::default(),
            challenges: passkey::Challenges::default(),
            trips: oidc::Trips::default(),
            mailing: Arc::new(tokio::sync::Semaphore::new(codes::MAILS_AT_ONCE)),
            verifying: tokio::sync::Mutex::new(()),
            quota: write::Quota::default(),
            stage: write::Stage::default(),
            uploads: tokio::sync::Semaphore::new(UPLOADS),
            tickets: TicketKey::from_random(session::secret()),
            studio: picture::Studio::default(),
            workers: workers::Workers::default(),
        };
        Ok(Self { desk: Arc::new(desk) })
    }
    /// The routes with everything that stands before them. Serve it with
    /// `into_make_service_with_connect_info::<SocketAddr>()`, so that wrong passwords are counted
    /// by client address.
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
