//! The one table of routes. The router is built from it, and the guard asks it: a route that is not
//! here does not exist, and a route without an access decision can't be written down.
use super::{
    Desk, account, brand, check, codes, download, frame, guard, log, mbox, oidc, passkey, picture,
    prove, read, reset, sign_in, write,
};
use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{HeaderValue, Method, StatusCode, header::CACHE_CONTROL},
    middleware::{from_fn, from_fn_with_state},
    routing::{MethodRouter, get, post},
};
use std::{sync::Arc, time::Duration};
use tower_http::{
    catch_panic::CatchPanicLayer, set_header::SetResponseHeaderLayer, timeout::TimeoutLayer,
};

/// Where scripts, styles and pictures of our own are.
const ASSETS: &str = "/assets/";
/// How long a page may take until its first byte; a download may then run on.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a form read at most.
pub(super) const MAX_FORM: usize = 64 * 1024;

/// Who may take a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody.
    Open,
    /// Those with a session; what belongs to somebody is compared with it by the vault.
    SignedIn,
    /// Whoever holds the ticket in its path. Cookies are taken off before anybody looks.
    Ticket,
}
/// What the requests of a route bring along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Brings {
    /// A form at most, and that soon.
    Form,
    /// A letter with its files, which may take hours.
    Letter,
    /// A stretch of a file, which may take hours.
    Stretch,
}
/// Methods the portal knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    /// GET, and HEAD with it: never changes anything but, where content is read, "opened" and the
    /// audit trail, and who is signed in where a browser comes back from the sign-in elsewhere that it set out for.
    Get,
    /// POST.
    Post,
}
/// One line of the table.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) verb: Verb,
    pub(super) path: &'static str,
    pub(super) access: Access,
    pub(super) brings: Brings,
    page: Page,
}

type Page = fn() -> MethodRouter<Arc<Desk>>;

const fn open(verb: Verb, path: &'static str, page: Page) -> Route {
    Route { verb, path, access: Access::Open, brings: Brings::Form, page }
}
const fn signed_in(verb: Verb, path: &'static str, page: Page) -> Route {
    Route { verb, path, access: Access::SignedIn, brings: Brings::Form, page }
}
const fn letter(path: &'static str, page: Page) -> Route {
    Route { brings: Brings::Letter, ..signed_in(Verb::Post, path, page) }
}
/// All routes.
pub(super) const ROUTES: &[Route] = &[
    open(Verb::Get, "/", || get(read::front)),
    open(Verb::Get, "/assets/style.css", || get(read::style)),
    open(Verb::Get, "/assets/passkey.js", || get(passkey::script)),
    open(Verb::Get, "/assets/logo", || get(brand::logo)),
    open(Verb::Get, "/m/{token}", || get(sign_in::link)),
    open(Verb::Get, "/m/{token}/reset", || get(reset::linked)),
    open(Verb::Post, "/register", || post(sign_in::register)),
    open(Verb::Get, "/verify", || get(codes::verify_form)),
    open(Verb::Post, "/verify", || post(codes::verify)),
    open(Verb::Get, "/login", || get(sign_in::login_form)),
    open(Verb::Post, "/login", || post(sign_in::login)),
    open(Verb::Post, "/login/oidc", || post(oidc::go)),
    open(Verb::Get, "/login/oidc/callback", || get(oidc::back)),
    open(Verb::Get, "/reset", || get(reset::form)),
    open(Verb::Post, "/reset", || post(reset::reset)),
    open(Verb::Get, "/check", || get(check::check)),
    signed_in(Verb::Post, "/logout", || post(sign_in::logout)),
    signed_in(Verb::Get, "/account", || get(account::form)),
    signed_in(Verb::Post, "/account", || post(account::change)),
    signed_in(Verb::Get, "/account/log", || get(log::log)),
    signed_in(Verb::Get, "/account/export.mbox", || get(mbox::export)),
    signed_in(Verb::Get, "/inbox", || get(read::inbox)),
    signed_in(Verb::Get, "/inbox/{id}", || get(read::message)),
    signed_in(Verb::Get, "/inbox/{id}/html", || get(frame::html)),
    Route { access: Access::Ticket, ..open(Verb::Get, "/framed/{ticket}", || get(frame::framed)) },
    signed_in(Verb::Get, "/inbox/{id}/attachments/{number}", || get(download::attachment)),
    signed_in(Verb::Get, "/inbox/{id}/attachments/{number}/view", || get(picture::view)),
    signed_in(Verb::Get, "/inbox/{id}/attachments/{number}/picture", || get(picture::picture)),
    signed_in(Verb::Get, "/inbox/{id}/attachments/{number}/thumbnail", || get(picture::thumbnail)),
    signed_in(Verb::Get, "/inbox/{id}/attachments.zip", || get(download::zip)),
    signed_in(Verb::Get, "/inbox/{id}/original.eml", || get(download::original)),
    signed_in(Verb::Get, "/inbox/{id}/print", || get(read::print)),
    signed_in(Verb::Get, "/inbox/{id}/prove", || get(prove::form)),
    signed_in(Verb::Post, "/inbox/{id}/prove", || post(prove::prove)),
    signed_in(Verb::Get, "/inbox/{id}/reply", || get(write::reply_form)),
    letter("/inbox/{id}/reply", || post(write::reply)),
    signed_in(Verb::Get, "/inbox/{id}/forward", || get(write::forward_form)),
    letter("/inbox/{id}/forward", || post(write::forward)),
    signed_in(Verb::Get, "/compose", || get(write::compose_form)),
    letter("/compose", || post(write::compose)),
    signed_in(Verb::Get, "/sent", || get(write::sent)),
    open(Verb::Get, "/assets/upload.js", || get(write::uploads::script)),
    signed_in(Verb::Get, "/uploads", || get(write::uploads::list)),
    signed_in(Verb::Post, "/uploads", || post(write::uploads::begin)),
    signed_in(Verb::Get, "/uploads/{id}", || get(write::uploads::status)),
    Route {
        brings: Brings::Stretch,
        ..signed_in(Verb::Post, "/uploads/{id}", || post(write::uploads::more))
    },
    signed_in(Verb::Post, "/uploads/{id}/remove", || post(write::uploads::remove)),
];

/// The route of a request, by the pattern that matched.
pub(super) fn route(method: &Method, pattern: Option<&str>) -> Option<&'static Route> {
    let verb = if *method == Method::GET || *method == Method::HEAD {
        Verb::Get
    } else if *method == Method::POST {
        Verb::Post
    } else {
        return None;
    };
    ROUTES.iter().find(|route| route.verb == verb && Some(route.path) == pattern)
}

/// What a request must show. Where no route matched, or the table does not name the method: a session.
pub(super) fn access(method: &Method, path: &str, pattern: Option<&str>) -> Access {
    if path.starts_with(ASSETS) {
        return Access::Open;
    }
    route(method, pattern).map_or(Access::SignedIn, |route| route.access)
}

/// True for what pages are made of and is none itself: nobody is behind a request for it, so neither a
/// cookie nor a choice of language is looked at, and none is set.
pub(super) fn piece_of_page(path: &str) -> bool {
    [ASSETS, "/framed/"].iter().any(|pieces| path.starts_with(pieces))
}

impl Route {
    fn handler(&self) -> MethodRouter<Arc<Desk>> {
        let mut page = (self.page)();
        if self.brings == Brings::Form {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            page = page.layer(TimeoutLayer::with_status_code(status, PATIENCE));
        }
        if self.path.starts_with(ASSETS) {
            let value = HeaderValue::from_static("public, max-age=3600");
            page = page.layer(SetResponseHeaderLayer::if_not_present(CACHE_CONTROL, value));
        }
        page
    }
}

/// The router with its guards, outermost last.
pub(super) fn router(desk: Arc<Desk>) -> Router {
    ROUTES
        .iter()
        .fold(Router::new(), |router, route| router.route(route.path, route.handler()))
        .layer(DefaultBodyLimit::max(MAX_FORM))
        .layer(from_fn_with_state(Arc::clone(&desk), guard::guard))
        .layer(guard::same_site(&desk.settings.url))
        .layer(from_fn(guard::fetch_site_decides))
        .layer(CatchPanicLayer::custom(guard::panicked))
        .layer(from_fn_with_state(Arc::clone(&desk), guard::dress))
        .layer(guard::headers(desk.https()))
        .with_state(desk)
}
