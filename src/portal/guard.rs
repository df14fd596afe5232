//! What every request passes on its way in, and every answer on its way out.
use super::{
    Desk, Fault,
    routes::{self, Access},
    session::Visitor,
    tongue::Wish,
    write,
};
use axum::{
    body::Body,
    extract::{ConnectInfo, MatchedPath, Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, HOST, ORIGIN,
            REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
            X_DNS_PREFETCH_CONTROL, X_FRAME_OPTIONS,
        },
    },
    middleware::Next,
    response::{IntoResponse, Redirect, Response},
};
use std::{any::Any, net::SocketAddr, sync::Arc, time::Duration};

/// How long a page may take until its first byte.
const PATIENCE: Duration = Duration::from_secs(60);

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
    let client = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let pattern = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let access = routes::access(request.method(), request.uri().path(), pattern);
    let letter = routes::letter(request.method(), pattern);
    if access == Access::Ticket {
        // Nobody is behind such a request but the holder of the ticket.
        request.headers_mut().remove(COOKIE);
    }
    let known = request.extensions().get::<Wish>().cloned();
    let wish = known.unwrap_or_else(|| desk.wish(&request));
    let visitor = match desk.visitor(request.headers(), client, wish).await {
        Ok(visitor) => visitor,
        Err(error) => return Fault::from(error).into_response(),
    };
    if access == Access::SignedIn && visitor.account.is_none() {
        if letter {
            let given = write::given_back(&desk, &visitor, request).await;
            return given.unwrap_or_else(IntoResponse::into_response);
        }
        return turned_away(request.method());
    }
    let enrolling = ["/account", "/logout"].contains(&request.uri().path());
    if access == Access::SignedIn && !enrolling && desk.identity.must_enrol(&visitor.browser()) {
        return Redirect::to("/account").into_response();
    }
    request.extensions_mut().insert(visitor.clone());
    let mut response = next.run(request).await;
    response.extensions_mut().insert(visitor);
    response
}

fn turned_away(method: &Method) -> Response {
    if *method == Method::GET || *method == Method::HEAD {
        Redirect::to("/login").into_response()
    } else {
        StatusCode::UNAUTHORIZED.into_response()
    }
}

/// Refuses what another site sent. Browsers say so in `Sec-Fetch-Site`; older ones name the
/// `Origin`.
pub(super) async fn same_site(
    State(desk): State<Arc<Desk>>,
    request: Request,
    next: Next,
) -> Response {
    let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if safe || ours(request.headers(), &desk.settings.url) {
        next.run(request).await
    } else {
        StatusCode::FORBIDDEN.into_response()
    }
}

/// A request without both headers comes from no browser, so no visitor's cookie was borrowed for
/// it.
fn ours(headers: &HeaderMap, url: &str) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return site == "same-origin" || site == "none";
    }
    let Some(origin) = headers.get(ORIGIN) else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    origin == origin_of(url) || (host.is_some() && authority(origin) == host)
}

/// Scheme and authority of a URL.
pub(super) fn origin_of(url: &str) -> &str {
    let after = url.find("://").map_or(0, |at| at + 3);
    let end = url.get(after..).and_then(|rest| rest.find('/')).map_or(url.len(), |at| after + at);
    url.get(..end).unwrap_or(url)
}
fn authority(origin: &str) -> Option<&str> {
    origin.split_once("://").map(|(_, authority)| authority)
}

/// Ends what takes too long until its first byte (a download may then run on). Forms that bring
/// files have a patience of their own, piece by piece.
pub(super) async fn patience(request: Request, next: Next) -> Response {
    let pattern = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    if routes::uploads(request.method(), pattern) {
        return next.run(request).await;
    }
    match tokio::time::timeout(PATIENCE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// A handler that panicked is our fault, and only that request's.
pub(super) fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    tracing::error!("portal: a handler panicked");
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

/// Gives every answer its headers, and every bare error a page.
pub(super) async fn dress(
    State(desk): State<Arc<Desk>>,
    mut request: Request,
    next: Next,
) -> Response {
    let asset = request.uri().path().starts_with("/assets/");
    if routes::piece_of_page(request.uri().path()) {
        request.headers_mut().remove(COOKIE);
    }
    let wish = desk.wish(&request);
    request.extensions_mut().insert(wish.clone());
    let mut response = explain(&desk, &wish, next.run(request).await);
    desk.keep_choice(&wish, &mut response);
    headers(response, asset, desk.https())
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
    let Ok(page) = desk.pages.problem(status, &visitor) else { return response };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(super::pages::HTML));
    response.headers_mut().remove("content-length");
    *response.body_mut() = Body::from(page);
    response
}

fn headers(mut response: Response, asset: bool, https: bool) -> Response {
    let headers = response.headers_mut();
    let mut default = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    default(CONTENT_SECURITY_POLICY, CSP);
    default(X_CONTENT_TYPE_OPTIONS, "nosniff");
    // Not "no-referrer": older browsers would name no origin with our own forms either.
    default(REFERRER_POLICY, "same-origin");
    default(X_FRAME_OPTIONS, "DENY");
    // The hosts of links in mail are nobody's business before a link is followed.
    default(X_DNS_PREFETCH_CONTROL, "off");
    default(CACHE_CONTROL, if asset { "public, max-age=3600" } else { "no-store" });
    default(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    default(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    default(HeaderName::from_static("cross-origin-embedder-policy"), "require-corp");
    default(HeaderName::from_static("permissions-policy"), PERMISSIONS);
    default(HeaderName::from_static("x-permitted-cross-domain-policies"), "none");
    // A browser that looks up the hosts of links in a message would tell that it was read.
    default(HeaderName::from_static("x-dns-prefetch-control"), "off");
    if https {
        default(STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn posts_from_elsewhere_are_told_apart() {
        type Headers = &'static [(&'static str, &'static str)];
        let cases: &[(Headers, bool, &str)] = &[
            (&[], true, "no browser"),
            (&[("sec-fetch-site", "same-origin")], true, "our form"),
            (&[("sec-fetch-site", "none")], true, "typed by the user"),
            (&[("sec-fetch-site", "cross-site")], false, "another site"),
            (&[("sec-fetch-site", "same-site")], false, "another host of the same domain"),
            (
                &[("sec-fetch-site", "same-origin"), ("origin", "null")],
                true,
                "no-referrer hides it",
            ),
            (&[("origin", "https://portal.example")], true, "portal.url"),
            (&[("origin", "https://portal.example:444")], false, "another port"),
            (&[("origin", "http://portal.example")], false, "another scheme"),
            (&[("origin", "null")], false, "a sandboxed frame"),
            (&[("origin", "https://evil.example")], false, "another site"),
            (&[("origin", "http://127.0.0.1:9"), ("host", "127.0.0.1:9")], true, "same host"),
            (&[("origin", "http://evil.example"), ("host", "127.0.0.1:9")], false, "other host"),
        ];
        for (headers, expected, why) in cases {
            let mut map = HeaderMap::new();
            for (name, value) in *headers {
                let name: HeaderName = name.parse().unwrap();
                map.insert(name, value.parse().unwrap());
            }
            assert_eq!(ours(&map, "https://portal.example/x"), *expected, "{why}");
        }
    }
}
