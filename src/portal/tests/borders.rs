//! What is taken of requests before anybody has signed in, from which site, and whose address counts.
use super::{
    super::{
        body::Budget,
        routes::{Access, Brings, ROUTES, Route, Verb},
    },
    assert_whole_page,
    world::{Browser, PASSWORD, World},
};
use tokio::time::{Duration, Instant};

const MAIL: &[u8] = b"From: a@example.org\r\nSubject: Private\r\n\r\nHello\r\n";
const ANN: &str = "ann@clinic.example";
const FORM: &str = "application/x-www-form-urlencoded";
const PARTS: &str = "multipart/form-data; boundary=limit";
const BODY: &str = "--limit\r\nContent-Disposition: form-data; name=\"body\"\r\n\r\n";

#[tokio::test]
async fn posts_from_elsewhere_are_told_apart() {
    type Headers = &'static [(&'static str, &'static str)];
    let cases: &[(Headers, bool, &str)] = &[
        (&[], true, "no browser"),
        (&[("sec-fetch-site", "same-origin")], true, "our form"),
        (&[("sec-fetch-site", "none")], true, "typed by the user"),
        (&[("sec-fetch-site", "cross-site")], false, "another site"),
        (&[("sec-fetch-site", "same-site")], false, "another host of the same domain"),
        (&[("sec-fetch-site", "same-origin"), ("origin", "null")], true, "no-referrer hides it"),
        (&[("origin", "https://portal.example")], true, "portal.url"),
        (&[("origin", "https://portal.example:444")], false, "another port"),
        (&[("origin", "http://portal.example")], false, "another scheme"),
        (&[("origin", "null")], false, "a sandboxed frame"),
        (&[("origin", "https://evil.example")], false, "another site"),
        (&[("origin", "http://portal.test")], true, "the Host asked for"),
    ];
    // A default port and letter case are not in the Origin that browsers send.
    for url in ["https://portal.example/x", "https://Portal.Example:443"] {
        let world = World::at(url);
        for (headers, passes, why) in cases {
            let answer = world.browser().send("POST", "/login", headers, "email=a").await;
            assert_eq!(answer.status != 403, *passes, "{url}: {why}: {}", answer.status);
        }
        let elsewhere = [("sec-fetch-site", "cross-site")];
        let answer = world.browser().send("GET", "/login", &elsewhere, "").await;
        assert_eq!(answer.status, 200, "links may come from anywhere");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_session_a_body_has_half_a_minute_on_every_route() {
    let world = World::new();
    for route in ROUTES.iter().filter(|route| route.verb == Verb::Post) {
        for kind in [FORM, PARTS] {
            let began = Instant::now();
            let answer = world.browser().break_off(route.path, kind, "a").await;
            let expected = if route.access == Access::Open { 408 } else { 401 };
            assert_eq!(answer.status, expected, "{}", route.path);
            assert_whole_page(&answer.text(), false);
            let waited = route.access == Access::Open || route.brings == Brings::Letter;
            let most = Duration::from_secs(if waited { 31 } else { 1 });
            assert!(began.elapsed() < most, "{}: {:?}", route.path, began.elapsed());
        }
    }
}

#[tokio::test]
async fn without_a_session_64_kib_of_a_body_are_taken_on_every_route() {
    let world = World::new();
    let long = format!("email=a&password={}", "a".repeat(64 * 1024));
    let read = |route: &&Route| route.access == Access::Open || route.brings == Brings::Letter;
    for route in ROUTES.iter().filter(|route| route.verb == Verb::Post).filter(read) {
        let answer = world.browser().send("POST", route.path, &[], &long).await;
        let expected = if route.access == Access::Open { 413 } else { 401 };
        assert_eq!(answer.status, expected, "{}", route.path);
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_letter_without_a_session_what_came_within_the_bounds_is_given_back() {
    let world = World::new();
    let given = |page: &str| {
        assert_whole_page(page, false);
        let text = page.split_once("readonly>\n").unwrap().1.split_once("</textarea>").unwrap().0;
        text.to_owned()
    };
    let (letter, file) = ("All is well. ".repeat(8000), vec![7; 3 << 20]);
    for path in ["/compose", "/inbox/x/reply", "/inbox/x/forward"] {
        let mut browser = world.browser();
        let answer = browser.write(path, &[("body", &letter)], &[("a.bin", &file)]).await;
        assert_eq!(answer.status, 401, "{path}");
        let text = given(&answer.text());
        assert!(letter.starts_with(&text) && text.len() > 60_000, "{path}: {}", text.len());
        let answer = browser.send("POST", path, &[], &format!("body={letter}")).await;
        let text = given(&answer.text());
        assert!(letter.starts_with(&text) && text.len() > 60_000, "{path}: {}", text.len());
        // What could be the beginning of a boundary is not text yet.
        let began = format!("{BODY}All is well, is it not?");
        let answer = browser.break_off(path, PARTS, &began).await;
        assert_eq!((answer.status, given(&answer.text()).as_str()), (401, "All is well, is"));
        let answer = browser.break_off(path, FORM, "body=All+is+w").await;
        assert_eq!((answer.status, given(&answer.text()).as_str()), (401, "All is w"));
    }
}

#[tokio::test]
async fn bodies_without_a_session_share_a_budget_and_sign_in_needs_none() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    world.registered(ANN, &kept).await;
    let desk = world.desk();
    let all = desk.strangers.exhaust();
    let long = format!("email={}", "a".repeat(5000));
    let answer = world.browser().send("POST", "/login", &[], &long).await;
    assert_eq!(answer.status, 503);
    let mut browser = world.browser();
    let answer = browser.post("/login", &[("email", ANN), ("password", PASSWORD)]).await;
    assert_eq!(answer.status, 303, "a form of ours is short");
    drop(all);
    assert_ne!(world.browser().send("POST", "/login", &[], &long).await.status, 503);
    drop(desk.strangers.exhaust());
}

#[tokio::test]
async fn the_budget_is_given_back_whatever_became_of_a_body() {
    let budget = Budget::default();
    for length in [0, 1, 5000, 65_536, 100_000] {
        let beginning = budget.read(vec![7; length].into()).await;
        assert_eq!(beginning.bytes.len(), length.min(65_536));
        assert_eq!(beginning.broken.is_some(), length > 65_536);
        drop(beginning);
        drop(budget.exhaust());
    }
}

async fn seen_as(browser: &mut Browser<'_>, forwarded: &str) -> String {
    let form = format!("email={ANN}&password={}", PASSWORD.replace(' ', "+"));
    let headers = [("x-forwarded-for", forwarded)];
    let answer = browser.send("POST", "/login", &headers, &form).await;
    assert_eq!(answer.status, 303);
    browser.get("/account").await.text()
}

#[tokio::test]
async fn the_client_of_a_session_is_who_a_trusted_proxy_says_it_is() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    world.registered(ANN, &kept).await;
    for (from, forwarded, shown, hidden) in [
        ("198.51.100.7:1", "6.6.6.6, 203.0.113.5", "203.0.113.5", "6.6.6.6"),
        ("198.51.100.7:1", "203.0.113.6, 198.51.100.8", "203.0.113.6", "198.51.100.8"),
        ("192.0.2.77:1", "203.0.113.7", "192.0.2.77", "203.0.113.7"),
    ] {
        let mut browser = world.browser();
        browser.client = from.to_owned();
        let page = seen_as(&mut browser, forwarded).await;
        assert!(page.contains(shown) && !page.contains(hidden), "{from} {forwarded}: {page}");
    }
}
