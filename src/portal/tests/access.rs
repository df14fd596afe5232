//! Who may go where; what a GET may not do; what every answer says to the browser.
use super::{
    super::routes::{Access, ROUTES, Route, Verb, access},
    assert_whole_page,
    world::{Kept, World},
};
use crate::{seal::LinkToken, store::PeopleStore};
use axum::http::Method;

const MAIL: &[u8] =
    b"From: a@example.org\r\nSubject: Private\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
--b\r\nContent-Type: text/html\r\n\r\n<p>Hello</p>\r\n--b\r\nContent-Type: image/png; name=x.png\r\n\
Content-Disposition: attachment\r\nContent-Transfer-Encoding: base64\r\n\r\n\
iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGMQ\
aEgAAAGUAPHREbpHAAAAAElFTkSuQmCC\r\n--b--\r\n";
const ANN: &str = "ann@clinic.example";

fn path_of(route: &Route, kept: &Kept) -> String {
    let id = kept.grant.to_string();
    route.path.replace("{token}", &kept.token).replace("{id}", &id).replace("{number}", "1")
}
const fn method(verb: Verb) -> &'static str {
    match verb {
        Verb::Get => "GET",
        Verb::Post => "POST",
    }
}

#[test]
fn the_table_opens_what_the_interface_opens_and_no_more() {
    let open = [
        "/",
        "/m/{token}",
        "/m/{token}/reset",
        "/login",
        "/login/oidc",
        "/login/oidc/callback",
        "/register",
        "/verify",
        "/reset",
        "/check",
    ];
    for route in ROUTES {
        let expected = if route.path == "/framed/{ticket}" {
            Access::Ticket
        } else if open.contains(&route.path) || route.path.starts_with("/assets/") {
            Access::Open
        } else {
            Access::SignedIn
        };
        assert_eq!(route.access, expected, "{}", route.path);
    }
    let unknown = [
        (Method::GET, "/admin", None),
        (Method::DELETE, "/login", Some("/login")),
        (Method::GET, "/register", Some("/register")),
        (Method::GET, "/inbox/x", Some("/inbox/{id}")),
    ];
    for (method, path, pattern) in unknown {
        assert_eq!(access(&method, path, pattern), Access::SignedIn, "{method} {path}");
    }
}

#[tokio::test]
async fn without_a_session_every_closed_route_leads_to_sign_in() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut lines: Vec<(&str, String, bool)> = ROUTES
        .iter()
        .map(|r| (method(r.verb), path_of(r, &kept), r.access != Access::SignedIn))
        .collect();
    for (method, path) in [
        ("GET", "/nowhere"),
        ("POST", "/nowhere"),
        ("DELETE", "/inbox"),
        ("PUT", "/login"),
        ("GET", "/register"),
    ] {
        lines.push((method, path.to_owned(), false));
    }
    lines.push(("GET", "/assets/nothing.css".to_owned(), true));
    for (method, path, open) in lines {
        for cookie in [None, Some("A".repeat(43)), Some("no token".to_owned())] {
            let mut browser = world.browser();
            browser.cookies.extend(cookie.map(|value| ("session".to_owned(), value)));
            let answer = browser.send(method, &path, &[], "").await;
            let turned_away = match method {
                "GET" => answer.status == 303 && answer.header("location") == Some("/login"),
                _ => answer.status == 401,
            };
            if path.starts_with("/framed/") {
                assert_eq!(answer.status, 410, "no ticket, no view: {path}");
                assert!(!answer.text().contains("Hello"));
            } else if open {
                assert_ne!(answer.status, 401, "{method} {path}");
            } else {
                assert!(turned_away, "{method} {path}: {}", answer.status);
            }
        }
    }
}

#[tokio::test]
async fn signed_in_unknown_paths_are_404_and_wrong_methods_405() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut browser = world.registered(ANN, &kept).await;
    let cases = [
        ("GET", "/nowhere", 404),
        ("POST", "/nowhere", 404),
        ("GET", "/inbox/nonsense", 404),
        ("GET", "/assets/nothing.css", 404),
        ("DELETE", "/inbox", 405),
        ("GET", "/logout", 405),
    ];
    for (method, path, status) in cases {
        let answer = browser.send(method, path, &[], "").await;
        assert_eq!(answer.status, status, "{method} {path}");
        if path != "/assets/nothing.css" {
            assert_whole_page(&answer.text(), true);
        }
    }
}

#[tokio::test]
async fn somebody_elses_message_is_404_on_every_route() {
    let world = World::new();
    let (mine, theirs) = (world.keep(ANN, MAIL).await, world.keep("bob@else.example", MAIL).await);
    let mut browser = world.registered(ANN, &mine).await;
    for route in ROUTES.iter().filter(|route| route.path.starts_with("/inbox/{id}")) {
        let own = browser.send(method(route.verb), &path_of(route, &mine), &[], "").await;
        let expected = match (route.verb, route.path) {
            (_, "/inbox/{id}/prove") => 303,
            (Verb::Post, _) => 422,
            (Verb::Get, "/inbox/{id}/html") => 303,
            (Verb::Get, _) => 200,
        };
        assert_eq!(own.status, expected, "{}", route.path);
        let other = browser.send(method(route.verb), &path_of(route, &theirs), &[], "").await;
        assert_eq!(other.status, 404, "{}", route.path);
        assert!(!other.text().contains("Private"));
    }
    let page = browser.get(&theirs.link()).await.text();
    assert!(page.contains("action=\"/register\""), "their link asks for their own registration");
    assert_eq!(browser.get(&format!("/m/{}", "x".repeat(43))).await.status, 404);
    assert_eq!(browser.get("/m/short").await.status, 404);
}

#[tokio::test]
async fn gets_change_nothing_but_opened() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let before = world.snapshot();
    for _ in 0..3 {
        let mut scanner = world.browser();
        for route in ROUTES.iter().filter(|route| route.verb == Verb::Get) {
            for method in ["GET", "HEAD", "OPTIONS"] {
                scanner.send(method, &path_of(route, &kept), &[], "").await;
            }
        }
        assert!(scanner.cookies.is_empty(), "no session from looking");
    }
    assert_eq!(world.snapshot(), before);

    let mut browser = world.registered(ANN, &kept).await;
    let before = world.snapshot();
    for route in ROUTES.iter().filter(|route| route.verb == Verb::Get) {
        browser.send("HEAD", &path_of(route, &kept), &[], "").await;
        if !reads(route.path) {
            browser.get(&path_of(route, &kept)).await;
        }
    }
    assert_eq!(world.snapshot(), before);
    assert!(world.grant_row(&kept).await.opened.is_none());
    browser.get(&kept.page()).await;
    assert!(world.grant_row(&kept).await.opened.is_some());
}
/// True for a route that answers with a message's content.
fn reads(path: &str) -> bool {
    let forms = ["/reply", "/forward", "/view", "/html"];
    let form = forms.iter().any(|end| path.ends_with(end));
    path == "/account/export.mbox" || path.starts_with("/inbox/{id}") && !form
}

#[tokio::test]
async fn posts_from_another_site_are_refused() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut browser = world.registered(ANN, &kept).await;
    for route in ROUTES.iter().filter(|route| route.verb == Verb::Post) {
        for header in [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")] {
            let answer = browser.send("POST", route.path, &[header], "").await;
            assert_eq!(answer.status, 403, "{} {header:?}", route.path);
            assert_whole_page(&answer.text(), false);
        }
    }
    assert_eq!(browser.get("/inbox").await.status, 200, "still signed in");
}

#[tokio::test]
async fn forms_are_bounded_and_strange_bodies_refused() {
    let world = World::new();
    let mut browser = world.browser();
    let long = format!("email={}", "a".repeat(70_000));
    assert_eq!(browser.send("POST", "/login", &[], &long).await.status, 413);
    let answer = browser.send("POST", "/login", &[], "email=%ff%fe&password=x").await;
    assert!(matches!(answer.status, 400 | 422), "{}", answer.status);
    assert_whole_page(&answer.text(), false);
}

#[tokio::test]
async fn every_answer_tells_the_browser_what_it_may_do() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut browser = world.registered(ANN, &kept).await;
    for route in ROUTES {
        let answer = browser.send(method(route.verb), &path_of(route, &kept), &[], "").await;
        let path = route.path;
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("referrer-policy"), Some("same-origin"), "{path}");
        assert_eq!(answer.header("cross-origin-opener-policy"), Some("same-origin"), "{path}");
        assert!(answer.header("permissions-policy").is_some(), "{path}");
        assert_eq!(answer.header("x-dns-prefetch-control"), Some("off"), "{path}");
        let csp = answer.header("content-security-policy").unwrap();
        let writes = ["reply", "forward", "compose"].iter().any(|end| path.ends_with(end));
        assert!(csp.contains("default-src 'none'"), "{path}: {csp}");
        assert_eq!(csp.contains("script"), writes, "{path}: {csp}");
        assert_eq!(answer.text_if_any().contains("<script"), writes, "{path}");
        let download =
            path.contains("attachments") || path.ends_with(".eml") || path.ends_with(".mbox");
        let boxed = download && !path.ends_with("/view") || path.starts_with("/framed/");
        assert_eq!(csp.starts_with("sandbox"), boxed, "{path}: {csp}");
        let framed = if path.starts_with("/framed/") { "SAMEORIGIN" } else { "DENY" };
        assert_eq!(answer.header("x-frame-options"), Some(framed), "{path}");
        let cache = if path.starts_with("/assets/") { "public, max-age=3600" } else { "no-store" };
        assert_eq!(answer.header("cache-control"), Some(cache), "{path}");
        assert_eq!(answer.header("strict-transport-security"), None, "{path}: no https here");
        if path == "/logout" {
            browser = world.browser();
            browser.post("/login", &[("email", ANN), ("password", super::world::PASSWORD)]).await;
        }
    }
}

#[tokio::test]
async fn cookies_are_for_us_alone() {
    for (url, name, secure) in [
        ("http://127.0.0.1:8080", "session", false),
        ("https://portal.example", "__Host-session", true),
    ] {
        let world = World::at(url);
        let kept = world.keep(ANN, MAIL).await;
        let mut browser = world.browser();
        let form = super::world::registration(&kept.token);
        let answer = browser.post("/register", &form).await;
        let cookie = answer.header("set-cookie").unwrap();
        assert!(cookie.starts_with(&format!("{name}=")), "{cookie}");
        for part in ["; Path=/", "; HttpOnly", "; SameSite=Lax"] {
            assert!(cookie.contains(part), "{cookie}");
        }
        assert_eq!(cookie.contains("; Secure"), secure);
        assert_eq!(answer.header("strict-transport-security").is_some(), secure);
        let token = LinkToken::parse(&browser.cookies[name]).unwrap();
        assert!(world.store.session(&token.hash()).await.unwrap().is_some(), "kept by its hash");
    }
}
