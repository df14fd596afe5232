//! What every request passes on its way in, and every answer on its way out.
use super::{
    Desk, Fault,
    client::ClientAddress,
    fault::Damaged,
    routes::{self, Access, Brings},
    session::Visitor,
    tongue::Wish,
    write,
};
use crate::net::http::{Connection, PacedBody};
use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{
        HeaderName, HeaderValue, Method, StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, ORIGIN, REFERRER_POLICY,
            STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_DNS_PREFETCH_CONTROL,
            X_FRAME_OPTIONS,
        },
    },
    middleware::Next,
    response::{IntoResponse, Redirect, Response},
};
use std::{any::Any, sync::Arc};
use tower_http::{
    csrf::CsrfLayer,
    set_header::{HeaderMetadata, response::SetMultipleResponseHeadersLayer},
};
use url::Url;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What a page may load and do: our own style sheet, our own forms, nothing else. Pages where scripts
/// stand (passkeys, files) bring a policy that adds our own files, and nothing inline.
const CSP: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
     frame-ancestors 'none'; base-uri 'none'; frame-src 'self'";

/// What the browser may not do for our pages: none of it is needed. Passkeys alone are.
const PERMISSIONS: &str = "accelerometer=(), autoplay=(), bluetooth=(), browsing-topics=(), \
     camera=(), clipboard-read=(), cross-origin-isolated=(), display-capture=(), \
     encrypted-media=(), geolocation=(), gyroscope=(), hid=(), idle-detection=(), \
     local-fonts=(), magnetometer=(), microphone=(), midi=(), payment=(), \
     publickey-credentials-create=(self), publickey-credentials-get=(self), \
     screen-wake-lock=(), serial=(), usb=(), web-share=(), xr-spatial-tracking=()";

/// Finds out who visits, and turns away who may not pass: to `/login` for a GET, with 401 for all
/// else.
pub(super) async fn guard(
    State(desk): State<Arc<Desk>>,
    mut request: Request,
    next: Next,
) -> Response {
    let client = ClientAddress::of(&request, &desk.settings.trusted_proxies);
    let pattern = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let access = routes::access(request.method(), request.uri().path(), pattern);
    let route = routes::route(request.method(), pattern);
    let letter = route.is_some_and(|route| route.brings == Brings::Letter);
    if access == Access::Ticket {
        // Nobody is behind such a request but the holder of the ticket.
        request.headers_mut().remove(COOKIE);
    }
    let known = request.extensions().get::<Wish>().cloned();
    let wish = known.unwrap_or_else(|| desk.wish(&request));
    let address = client.map(|ClientAddress(address)| address);
    let visitor = match desk.visitor(request.headers(), address, wish).await {
        Ok(visitor) => visitor,
        Err(error) => return Fault::from(error).into_response(),
    };
    if let Some(client) = client {
        request.extensions_mut().insert(client);
    }
    if visitor.account.is_some() {
        let enrolling = ["/account", "/logout"].contains(&request.uri().path());
        let signed_in = access == Access::SignedIn;
        if signed_in && !enrolling && desk.identity.must_enrol(&visitor.browser()) {
            return Redirect::to("/account").into_response();
        }
        if let Some(connection) = request.extensions().get::<Connection>() {
            connection.has_session();
        }
        let rate = desk.settings.min_rate;
        let request = request.map(|body| Body::new(PacedBody::new(body, rate)));
        return pass(visitor, request, next).await;
    }
    if access == Access::SignedIn && !letter {
        return turned_away(request.method());
    }
    without_session(&desk, visitor, letter, request, next).await
}

async fn pass(visitor: Visitor, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(visitor.clone());
    let mut response = next.run(request).await;
    response.extensions_mut().insert(visitor);
    response
}

/// Of a request without a session no more than [`super::body::Budget`] allows is read, whatever its route. A
/// letter is given back as far as it came.
async fn without_session(
    desk: &Desk,
    visitor: Visitor,
    letter: bool,
    request: Request,
    next: Next,
) -> Response {
    if *request.method() != Method::POST {
        return pass(visitor, request.map(|_| Body::empty()), next).await;
    }
    let (parts, body) = request.into_parts();
    let beginning = desk.strangers.read(body).await;
    let request = Request::from_parts(parts, Body::from(beginning.bytes.clone()));
    if letter {
        let page = write::given_back(desk, &visitor, request).await;
        return beginning.answered_by(page.unwrap_or_else(IntoResponse::into_response));
    }
    match beginning.broken {
        Some(status) => beginning.answered_by(status.into_response()),
        // The beginning holds its part of the budget until the answer is there.
        None => pass(visitor, request, next).await,
    }
}

fn turned_away(method: &Method) -> Response {
    if *method == Method::GET || *method == Method::HEAD {
        Redirect::to("/login").into_response()
    } else {
        StatusCode::UNAUTHORIZED.into_response()
    }
}

/// Refuses what another site sent (`Sec-Fetch-Site`, `Origin`) with 403. A request with neither header
/// comes from no browser, so no visitor's cookie was borrowed for it.
pub(super) fn same_site(url: &str) -> CsrfLayer {
    // A proxy may have changed the Host that an Origin is compared with; `portal.url` stays. Where that
    // is no origin, the comparison with Host alone remains.
    CsrfLayer::new().add_trusted_origin(origin_of(url)).unwrap_or_default()
}

/// `Sec-Fetch-Site` alone decides where it is there: [`CsrfLayer`] would take a request that names
/// `portal.url` as its origin even beside `cross-site`.
pub(super) async fn fetch_site_decides(mut request: Request, next: Next) -> Response {
    if request.headers().contains_key(SEC_FETCH_SITE) {
        request.headers_mut().remove(ORIGIN);
    }
    next.run(request).await
}

/// The origin of a URL as browsers write it (RFC 6454 section 6.2).
pub(super) fn origin_of(url: &str) -> String {
    Url::parse(url).map(|url| url.origin().ascii_serialization()).unwrap_or_default()
}

/// A handler that panicked is our fault, and only that request's.
pub(super) fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    tracing::error!("portal: a handler panicked");
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

/// Gives every bare error a page, and keeps a choice of language.
pub(super) async fn dress(
    State(desk): State<Arc<Desk>>,
    mut request: Request,
    next: Next,
) -> Response {
    if routes::piece_of_page(request.uri().path()) {
        request.headers_mut().remove(COOKIE);
    }
    let wish = desk.wish(&request);
    request.extensions_mut().insert(wish.clone());
    let mut response = explain(&desk, &wish, next.run(request).await);
    desk.keep_choice(&wish, &mut response);
    response
}

/// An error without words becomes a plain page.
fn explain(desk: &Desk, wish: &Wish, mut response: Response) -> Response {
    let status = response.status();
    let error = status.is_client_error() || status.is_server_error();
    let kind = response.headers().get(CONTENT_TYPE);
    let worded =
        kind.is_some_and(|kind| kind == super::pages::HTML || kind == write::uploads::JSON);
    if !error || worded {
        return response;
    }
    let known = response.extensions().get::<Visitor>().cloned();
    let visitor = known.unwrap_or_else(|| Visitor::stranger(wish.clone()));
    let damaged = response.extensions().get::<Damaged>().is_some();
    let page =
        if damaged { desk.pages.damage(&visitor) } else { desk.pages.problem(status, &visitor) };
    let Ok(page) = page else { return response };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(super::pages::HTML));
    response.headers_mut().remove("content-length");
    *response.body_mut() = Body::from(page);
    response
}

/// Headers of every answer that has none of its own of that name.
pub(super) fn headers(https: bool) -> SetMultipleResponseHeadersLayer<Response> {
    let fixed = |name: HeaderName, value: &'static str| {
        HeaderMetadata::from((name, HeaderValue::from_static(value)))
    };
    let mut all = vec![
        fixed(CONTENT_SECURITY_POLICY, CSP),
        fixed(X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Not "no-referrer": older browsers would name no origin with our own forms either.
        fixed(REFERRER_POLICY, "same-origin"),
        fixed(X_FRAME_OPTIONS, "DENY"),
        // A browser that looks up the hosts of links in a message would tell that it was read.
        fixed(X_DNS_PREFETCH_CONTROL, "off"),
        fixed(CACHE_CONTROL, "no-store"),
        fixed(HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        fixed(HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        fixed(HeaderName::from_static("cross-origin-embedder-policy"), "require-corp"),
        fixed(HeaderName::from_static("permissions-policy"), PERMISSIONS),
        fixed(HeaderName::from_static("x-permitted-cross-domain-policies"), "none"),
    ];
    if https {
        all.push(fixed(STRICT_TRANSPORT_SECURITY, "max-age=31536000"));
    }
    SetMultipleResponseHeadersLayer::if_not_present(all)
}
