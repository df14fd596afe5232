//! The one table of routes. The router is built from it, and the guard asks it: a route that is not
//! here does not exist, and a route without an access decision can't be written down.
use super::{
    Desk, account, brand, check, codes, download, frame, guard, mbox, oidc, passkey, picture,
    prove, read, reset, sign_in, write,
};
use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::Method,
    middleware::{from_fn, from_fn_with_state},
    routing::{MethodRouter, get, post},
};
use std::sync::Arc;
use tower_http::catch_panic::CatchPanicLayer;

/// Bytes of a form read at most.
const MAX_FORM: usize = 64 * 1024;

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
/// What stands behind a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    Front,
    Style,
    Script,
    Logo,
    Link,
    Register,
    VerifyForm,
    Verify,
    LoginForm,
    Login,
    OidcGo,
    OidcBack,
    ResetForm,
    Reset,
    Check,
    Logout,
    AccountForm,
    Account,
    Export,
    Inbox,
    Message,
    Html,
    Framed,
    Attachment,
    View,
    Picture,
    Thumbnail,
    Zip,
    Original,
    Print,
    ProveForm,
    Prove,
    ReplyForm,
    Reply,
    ForwardForm,
    Forward,
    ComposeForm,
    Compose,
    Sent,
    UploadScript,
    Uploads,
    UploadBegin,
    UploadStatus,
    UploadMore,
    UploadRemove,
}
/// Methods the portal knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    /// GET, and HEAD with it: never changes anything but "opened" on the message page, and who is
    /// signed in where a browser comes back from the sign-in elsewhere that it set out for.
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
    pub(super) page: Page,
}

const fn open(verb: Verb, path: &'static str, page: Page) -> Route {
    Route { verb, path, access: Access::Open, page }
}
const fn signed_in(verb: Verb, path: &'static str, page: Page) -> Route {
    Route { verb, path, access: Access::SignedIn, page }
}

/// Where stretches of a file come.
const UPLOAD: &str = "/uploads/{id}";
/// All routes.
pub(super) const ROUTES: &[Route] = &[
    open(Verb::Get, "/", Page::Front),
    open(Verb::Get, "/assets/style.css", Page::Style),
    open(Verb::Get, "/assets/passkey.js", Page::Script),
    open(Verb::Get, "/assets/logo", Page::Logo),
    open(Verb::Get, "/m/{token}", Page::Link),
    open(Verb::Post, "/register", Page::Register),
    open(Verb::Get, "/verify", Page::VerifyForm),
    open(Verb::Post, "/verify", Page::Verify),
    open(Verb::Get, "/login", Page::LoginForm),
    open(Verb::Post, "/login", Page::Login),
    open(Verb::Post, "/login/oidc", Page::OidcGo),
    open(Verb::Get, "/login/oidc/callback", Page::OidcBack),
    open(Verb::Get, "/reset", Page::ResetForm),
    open(Verb::Post, "/reset", Page::Reset),
    open(Verb::Get, "/check", Page::Check),
    signed_in(Verb::Post, "/logout", Page::Logout),
    signed_in(Verb::Get, "/account", Page::AccountForm),
    signed_in(Verb::Post, "/account", Page::Account),
    signed_in(Verb::Get, "/account/export.mbox", Page::Export),
    signed_in(Verb::Get, "/inbox", Page::Inbox),
    signed_in(Verb::Get, "/inbox/{id}", Page::Message),
    signed_in(Verb::Get, "/inbox/{id}/html", Page::Html),
    Route { verb: Verb::Get, path: "/framed/{ticket}", access: Access::Ticket, page: Page::Framed },
    signed_in(Verb::Get, "/inbox/{id}/attachments/{number}", Page::Attachment),
    signed_in(Verb::Get, "/inbox/{id}/attachments/{number}/view", Page::View),
    signed_in(Verb::Get, "/inbox/{id}/attachments/{number}/picture", Page::Picture),
    signed_in(Verb::Get, "/inbox/{id}/attachments/{number}/thumbnail", Page::Thumbnail),
    signed_in(Verb::Get, "/inbox/{id}/attachments.zip", Page::Zip),
    signed_in(Verb::Get, "/inbox/{id}/original.eml", Page::Original),
    signed_in(Verb::Get, "/inbox/{id}/print", Page::Print),
    signed_in(Verb::Get, "/inbox/{id}/prove", Page::ProveForm),
    signed_in(Verb::Post, "/inbox/{id}/prove", Page::Prove),
    signed_in(Verb::Get, "/inbox/{id}/reply", Page::ReplyForm),
    signed_in(Verb::Post, "/inbox/{id}/reply", Page::Reply),
    signed_in(Verb::Get, "/inbox/{id}/forward", Page::ForwardForm),
    signed_in(Verb::Post, "/inbox/{id}/forward", Page::Forward),
    signed_in(Verb::Get, "/compose", Page::ComposeForm),
    signed_in(Verb::Post, "/compose", Page::Compose),
    signed_in(Verb::Get, "/sent", Page::Sent),
    open(Verb::Get, "/assets/upload.js", Page::UploadScript),
    signed_in(Verb::Get, "/uploads", Page::Uploads),
    signed_in(Verb::Post, "/uploads", Page::UploadBegin),
    signed_in(Verb::Get, "/uploads/{id}", Page::UploadStatus),
    signed_in(Verb::Post, UPLOAD, Page::UploadMore),
    signed_in(Verb::Post, "/uploads/{id}/remove", Page::UploadRemove),
];

/// What a request must show. `pattern` is the route that matched; none, or a method the table does
/// not name: a session.
pub(super) fn access(method: &Method, path: &str, pattern: Option<&str>) -> Access {
    if path.starts_with("/assets/") {
        return Access::Open;
    }
    let verb = if *method == Method::GET || *method == Method::HEAD {
        Verb::Get
    } else if *method == Method::POST {
        Verb::Post
    } else {
        return Access::SignedIn;
    };
    ROUTES
        .iter()
        .find(|route| route.verb == verb && Some(route.path) == pattern)
        .map_or(Access::SignedIn, |route| route.access)
}

/// True for what pages are made of and is none itself: nobody is behind a request for it, so neither a
/// cookie nor a choice of language is looked at, and none is set.
pub(super) fn piece_of_page(path: &str) -> bool {
    ["/assets/", "/framed/"].iter().any(|pieces| path.starts_with(pieces))
}

/// True for a request that brings a letter.
pub(super) fn letter(method: &Method, pattern: Option<&str>) -> bool {
    *method == Method::POST
        && ROUTES.iter().any(|route| {
            route.verb == Verb::Post
                && Some(route.path) == pattern
                && matches!(route.page, Page::Reply | Page::Forward | Page::Compose)
        })
}

/// True for a request that may bring files, and so take its time.
pub(super) fn uploads(method: &Method, pattern: Option<&str>) -> bool {
    letter(method, pattern) || (*method == Method::POST && pattern == Some(UPLOAD))
}

fn handler(page: Page) -> MethodRouter<Arc<Desk>> {
    match page {
        Page::Front => get(read::front),
        Page::Style => get(read::style),
        Page::Script => get(passkey::script),
        Page::Logo => get(brand::logo),
        Page::Link => get(sign_in::link),
        Page::Register => post(sign_in::register),
        Page::VerifyForm => get(codes::verify_form),
        Page::Verify => post(codes::verify),
        Page::LoginForm => get(sign_in::login_form),
        Page::Login => post(sign_in::login),
        Page::OidcGo => post(oidc::go),
        Page::OidcBack => get(oidc::back),
        Page::ResetForm => get(reset::form),
        Page::Reset => post(reset::reset),
        Page::Check => get(check::check),
        Page::Logout => post(sign_in::logout),
        Page::AccountForm => get(account::form),
        Page::Account => post(account::change),
        Page::Export => get(mbox::export),
        Page::Inbox => get(read::inbox),
        Page::Message => get(read::message),
        Page::Html => get(frame::html),
        Page::Framed => get(frame::framed),
        Page::Attachment => get(download::attachment),
        Page::View => get(picture::view),
        Page::Picture => get(picture::picture),
        Page::Thumbnail => get(picture::thumbnail),
        Page::Zip => get(download::zip),
        Page::Original => get(download::original),
        Page::Print => get(read::print),
        Page::ProveForm => get(prove::form),
        Page::Prove => post(prove::prove),
        Page::ReplyForm => get(write::reply_form),
        Page::Reply => post(write::reply),
        Page::ForwardForm => get(write::forward_form),
        Page::Forward => post(write::forward),
        Page::ComposeForm => get(write::compose_form),
        Page::Compose => post(write::compose),
        Page::Sent => get(write::sent),
        Page::UploadScript => get(write::stage::script),
        Page::Uploads => get(write::stage::list),
        Page::UploadBegin => post(write::stage::begin),
        Page::UploadStatus => get(write::stage::status),
        Page::UploadMore => post(write::stage::more),
        Page::UploadRemove => post(write::stage::remove),
    }
}

/// The router with its guards, outermost last.
pub(super) fn router(desk: Arc<Desk>) -> Router {
    ROUTES
        .iter()
        .fold(Router::new(), |router, route| router.route(route.path, handler(route.page)))
        .layer(DefaultBodyLimit::max(MAX_FORM))
        .layer(from_fn_with_state(Arc::clone(&desk), guard::guard))
        .layer(from_fn_with_state(Arc::clone(&desk), guard::same_site))
        .layer(from_fn(guard::patience))
        .layer(CatchPanicLayer::custom(guard::panicked))
        .layer(from_fn_with_state(Arc::clone(&desk), guard::dress))
        .with_state(desk)
}
