//! Sign-in by an account elsewhere, to the provider and back.
use super::{
    assert_whole_page,
    world::{Answer, Browser, Kept, PASSWORD, World, address, registration},
};
use crate::{
    oidc::testing::{Bend, ISSUER, Op, Signer},
    store::{AuditDetail, AuditKind, GrantState, PeopleStore, SecondFactor},
};
use jiff::SignedDuration;
use scraper::{Html, Selector};
use serde_json::{Value, json};
use std::sync::Arc;

const MAIL: &[u8] = b"From: nurse@example.org\r\nSubject: Your results\r\n\r\nAll is well.\r\n";
const ANN: &str = "ann@clinic.example";

fn world() -> (World, Arc<Op>) {
    let op = Op::new("2026-11-22T10:00:00Z".parse().unwrap());
    let world = World::with_providers("https://portal.test", vec![op.provider(&[])]);
    (world, op)
}
/// Sets out; where the browser is led to.
async fn set_out(browser: &mut Browser<'_>, kept: Option<&Kept>) -> String {
    let token = kept.map(|kept| kept.token.clone()).unwrap_or_default();
    let page = browser.post("/login/oidc", &[("provider", "Op"), ("token", &token)]).await;
    assert_eq!(page.status, 200, "{}", page.text());
    assert_whole_page(&page.text(), false);
    let cookie = page.header("set-cookie").unwrap();
    for part in ["__Host-oidc-", "; HttpOnly", "; Secure", "; SameSite=Lax", "; Max-Age=600"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let url = page.header("refresh").unwrap().strip_prefix("0; url=").unwrap().to_owned();
    let html = Html::parse_document(&page.text());
    let link = html.select(&Selector::parse("main a.button").unwrap()).next().unwrap();
    assert_eq!(link.attr("href"), Some(url.as_str()), "also for who follows nothing by itself");
    url
}
fn back(code: &str, state: &str) -> String {
    format!("/login/oidc/callback?code={}&state={state}", code.replace(' ', "+"))
}
/// There and back.
async fn whole_trip(op: &Op, browser: &mut Browser<'_>, kept: Option<&Kept>) -> Answer {
    let url = set_out(browser, kept).await;
    let (code, state) = op.signs_in(&url);
    let answer = browser.get(&back(&code, &state)).await;
    assert!(!browser.cookies.keys().any(|name| name.starts_with("__Host-oidc")), "it is over");
    answer
}

#[tokio::test]
async fn without_configuration_there_is_no_button() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    for path in ["/login".to_owned(), kept.link()] {
        let page = world.browser().get(&path).await.text();
        assert!(!page.contains("oidc") && !page.contains("elsewhere"), "{path}");
    }
    let none = world.browser().post("/login/oidc", &[("provider", "Op")]).await;
    assert_eq!(none.status, 404);
}

#[tokio::test]
async fn the_first_visit_makes_an_account_without_a_password_and_shows_the_message() {
    let (world, op) = world();
    let kept = world.keep(ANN, MAIL).await;
    let mut browser = world.browser();
    for path in ["/login".to_owned(), kept.link()] {
        let page = browser.get(&path).await.text();
        assert_whole_page(&page, false);
        assert!(page.contains("Sign in with Op"), "{path}");
    }
    let done = whole_trip(&op, &mut browser, Some(&kept)).await;
    assert_eq!((done.status, done.header("location")), (303, Some(kept.page().as_str())));
    assert!(browser.get(&kept.page()).await.text().contains("All is well"));
    let account = world.store.account(&address(ANN)).await.unwrap().unwrap();
    assert_eq!((account.first_name.as_str(), account.last_name.as_str()), ("Ann", "Ode"));
    assert_eq!(account.password, "");
    let trail = world.audit.records(0, 100).await.unwrap().into_iter();
    let trail: Vec<_> = trail.map(|record| record.event.kind).collect();
    assert_eq!(
        trail.get(..3),
        Some([AuditKind::Registered, AuditKind::SignIn, AuditKind::NewDevice].as_slice()),
        "{trail:?}"
    );
    assert!(world.told(ANN).await.is_empty(), "the owner's first browser is no news");
    let page = browser.get("/account").await.text();
    assert_whole_page(&page, true);
    assert!(page.contains("You have no password yet."), "{page}");
    assert!(page.contains("value=\"second-begin\""), "the sign-in itself was the proof");
    assert!(!page.contains("type=\"password\""), "nothing asks for what is not there");
    let reset = browser.get("/reset").await.text();
    assert!(reset.contains(&format!("value=\"{ANN}\"")), "the address is filled in: {reset}");
    let guess = world.browser().post("/login", &[("email", ANN), ("password", "")]).await;
    assert_eq!(guess.status, 422, "no password lets in where there is none");
    // Another day, from the sign-in page.
    let mut browser = world.browser();
    let done = whole_trip(&op, &mut browser, None).await;
    assert_eq!((done.status, done.header("location")), (303, Some("/inbox")));
    let again = world.store.account(&address(ANN)).await.unwrap().unwrap();
    assert_eq!(again.generation, account.generation, "the same account");
}

#[tokio::test]
async fn it_opens_the_account_of_that_mailbox_and_no_other() {
    let (world, op) = world();
    let bob = world.keep("bob@clinic.example", MAIL).await;
    world.registered("bob@clinic.example", &bob).await;
    let mut browser = world.browser();
    let nobody = whole_trip(&op, &mut browser, Some(&bob)).await;
    assert_eq!(nobody.status, 422, "nothing waits for the address that was proved");
    assert!(nobody.text().contains(ANN) && nobody.text().contains("href=\"/login\""));
    assert!(world.store.account(&address(ANN)).await.unwrap().is_none(), "no account is made");
    let last = world.audit.records(0, 100).await.unwrap().pop().unwrap().event;
    assert_eq!((last.kind, last.account), (AuditKind::OidcRefused, Some(address(ANN))));
    assert_eq!(last.detail, Some(AuditDetail::NoAccount));
    let other_case = world.keep("Ann@clinic.example", MAIL).await;
    let mut other = world.browser();
    let done = whole_trip(&op, &mut other, Some(&other_case)).await;
    assert_eq!(done.header("location"), Some(other_case.page().as_str()), "in any case");
    let kept = world.keep(ANN, MAIL).await;
    let done = whole_trip(&op, &mut browser, Some(&bob)).await;
    assert_eq!(done.header("location"), Some("/inbox"), "not to the other's message");
    assert_eq!(browser.get(&bob.page()).await.status, 404);
    assert_eq!(browser.get(&kept.page()).await.status, 200);
}

#[tokio::test]
async fn a_mailbox_belongs_to_an_identity_here_too() {
    let (world, op) = world();
    let old = world.keep(ANN, MAIL).await;
    world.registered(ANN, &old).await;
    world.clock.forward(SignedDuration::from_secs(5));
    world.store.remove_account(&address(ANN), world.clock_now()).await.unwrap();
    op.set_now(world.clock_now());
    let mut browser = world.browser();
    assert_eq!(whole_trip(&op, &mut browser, Some(&old)).await.status, 422, "only old ones wait");
    world.clock.forward(SignedDuration::from_secs(5));
    let new = world.keep(ANN, MAIL).await;
    let done = whole_trip(&op, &mut browser, Some(&old)).await;
    assert_eq!(done.header("location"), Some("/inbox"));
    assert_eq!(browser.get(&old.page()).await.status, 404, "the earlier holder's");
    assert_eq!(browser.get(&new.page()).await.status, 200);
    world.store.remove_account(&address(ANN), world.clock_now()).await.unwrap();
    world.clock.forward(SignedDuration::from_secs(5));
    let withdrawn = world.keep(ANN, MAIL).await;
    let mut over = world.grant_row(&withdrawn).await;
    over.state = GrantState::Withdrawn;
    world.store.update_grant(&over).await.unwrap();
    assert_eq!(whole_trip(&op, &mut browser, None).await.status, 422, "nor what was taken back");
}

#[tokio::test]
async fn the_second_factor_and_a_lock_hold() {
    let (world, op) = world();
    let kept = world.keep(ANN, MAIL).await;
    world.registered(ANN, &kept).await;
    let mut account = world.store.account(&address(ANN)).await.unwrap().unwrap();
    let (seed, _ring) = world.vault.new_seed(account.generation);
    account.second = Some(SecondFactor { seed, on: true, step: 0, recovery: vec![] });
    world.put_account(account.clone()).await;
    let mut browser = world.browser();
    let half = whole_trip(&op, &mut browser, Some(&kept)).await;
    assert_eq!((half.status, half.header("location")), (303, Some("/login")));
    assert_eq!(browser.get(&kept.page()).await.status, 303, "not in yet");
    assert!(browser.get("/login").await.text().contains("One more step"));
    account.locked = true;
    world.put_account(account.clone()).await;
    let mut browser = world.browser();
    let locked = whole_trip(&op, &mut browser, Some(&kept)).await;
    assert_eq!(locked.status, 403);
    assert_whole_page(&locked.text(), false);
    assert!(locked.text().contains("is locked") && !locked.text().contains("Nothing waits"));
    assert!(browser.cookies.is_empty());
    let last = world.audit.records(0, 100).await.unwrap().pop().unwrap().event;
    assert_eq!((last.kind, last.account), (AuditKind::OidcRefused, Some(address(ANN))));
    assert_eq!(last.detail, Some(AuditDetail::Locked));
}

#[tokio::test]
async fn a_client_whose_tries_are_spent_is_told_to_wait_here_too() {
    let (world, op) = world();
    let kept = world.keep(ANN, MAIL).await;
    world.registered(ANN, &kept).await;
    let mut browser = world.browser();
    let mut stopped = 422;
    for n in 0..101 {
        let form = [("email", format!("eve{n}@else.example")), ("password", "a guess".into())];
        let form = form.each_ref().map(|(name, value)| (*name, value.as_str()));
        stopped = browser.post("/login", &form).await.status;
    }
    assert_eq!(stopped, 429);
    let later = whole_trip(&op, &mut browser, Some(&kept)).await;
    assert_eq!(later.status, 429);
    assert!(later.header("retry-after").is_some_and(|seconds| seconds != "0"));
    assert!(!later.text().contains("Nothing waits"), "{}", later.text());
    let last = world.audit.records(0, 200).await.unwrap().pop().unwrap().event;
    let told = (last.kind, last.detail);
    assert_eq!(told, (AuditKind::SignInLocked, Some(AuditDetail::Provider)));
}

#[tokio::test]
async fn who_did_not_set_out_does_not_come_back() {
    let (world, op) = world();
    let kept = world.keep(ANN, MAIL).await;
    let mut browser = world.browser();
    let url = set_out(&mut browser, Some(&kept)).await;
    let (code, state) = op.signs_in(&url);
    let cookies = browser.cookies.clone();
    let before = world.snapshot();
    op.asked();
    let mut other = world.browser();
    let other_url = set_out(&mut other, None).await;
    let (_, other_state) = op.signs_in(&other_url);
    let short = state.get(..20).unwrap();
    let rows: [(&str, bool, String); 7] = [
        ("another browser (sign-in forced upon it)", false, back(&code, &state)),
        ("another trip's state", true, back(&code, &other_state)),
        ("no state", true, back(&code, "")),
        ("a short state", true, back(&code, short)),
        ("a made-up state", true, back(&code, &"A".repeat(54))),
        ("no state at all", true, "/login/oidc/callback?code=x".to_owned()),
        ("nothing", true, "/login/oidc/callback".to_owned()),
    ];
    for (at, (what, own, path)) in rows.into_iter().enumerate() {
        let mut guest = world.browser();
        guest.client = format!("192.0.2.{}:1", at + 10);
        if own {
            guest.cookies.clone_from(&cookies);
        }
        let held = guest.cookies.clone();
        let answer = guest.get(&path).await;
        assert_eq!(answer.status, 422, "{what}");
        assert_whole_page(&answer.text(), false);
        assert_eq!(guest.cookies, held, "{what}: no session, and the trip goes on");
        let head = guest.send("HEAD", &back(&code, &state), &[], "").await;
        assert_eq!(head.status, 422, "{what}: a HEAD ends no trip");
    }
    assert_eq!(world.snapshot(), before, "nothing is changed");
    assert!(op.asked().is_empty(), "and nobody asked");
    let mut slow = world.browser();
    slow.cookies.clone_from(&cookies);
    let done = browser.get(&back(&code, &state)).await;
    assert_eq!(done.header("location"), Some(kept.page().as_str()));
    assert_eq!(slow.get(&back(&code, &state)).await.status, 422, "each comes back once");
    let url = set_out(&mut slow, None).await;
    let (code, state) = op.signs_in(&url);
    world.clock.forward(SignedDuration::from_mins(10) + SignedDuration::from_secs(1));
    assert_eq!(slow.get(&back(&code, &state)).await.status, 422, "too late");
}

#[tokio::test]
async fn the_case_of_an_address_makes_no_other_mailbox() {
    let (world, op) = world();
    let kept = world.keep("Ann@Clinic.example", MAIL).await;
    let account = world.registered("Ann@Clinic.example", &kept).await;
    drop(account);
    let mut browser = world.browser();
    let done = whole_trip(&op, &mut browser, Some(&kept)).await;
    assert_eq!((done.status, done.header("location")), (303, Some(kept.page().as_str())));
    assert_eq!(browser.get(&kept.page()).await.status, 200);
}

#[tokio::test]
async fn two_tabs_each_come_back_from_their_own_trip() {
    let (world, op) = world();
    let kept = [world.keep(ANN, MAIL).await, world.keep(ANN, MAIL).await];
    let mut browser = world.browser();
    let mut answers = Vec::new();
    for kept in &kept {
        let url = set_out(&mut browser, Some(kept)).await;
        answers.push(op.signs_in(&url));
    }
    for ((code, state), kept) in answers.iter().zip(&kept) {
        let done = browser.get(&back(code, state)).await;
        assert_eq!((done.status, done.header("location")), (303, Some(kept.page().as_str())));
    }
    // Login flows that are never finished do not pile up in the browser.
    let mut browser = world.browser();
    let mut states = Vec::new();
    for _ in 0..12 {
        world.clock.forward(SignedDuration::from_secs(1));
        states.push(op.signs_in(&set_out(&mut browser, None).await));
    }
    let trips = browser.cookies.keys().filter(|name| name.starts_with("__Host-oidc")).count();
    assert_eq!(trips, 8);
    op.set_now(world.clock_now());
    let (code, state) = &states[0];
    assert_eq!(browser.get(&back(code, state)).await.status, 422, "the oldest was given up");
    let (code, state) = &states[11];
    assert_eq!(browser.get(&back(code, state)).await.status, 303);
}

#[tokio::test]
async fn a_callback_that_no_trip_belongs_to_counts_against_no_sign_in() {
    let (world, op) = world();
    let kept = world.keep(ANN, MAIL).await;
    world.registered(ANN, &kept).await;
    // Pictures of a page elsewhere, loaded by a browser behind the clinic's one address.
    let mut browser = world.browser();
    for _ in 0..40 {
        assert_eq!(browser.get("/login/oidc/callback?1").await.status, 422);
    }
    // Nor do answers without a code, or that say no.
    for answer in ["code=", "error=access_denied"].iter().cycle().take(40) {
        let url = set_out(&mut browser, None).await;
        let (_, state) = op.signs_in(&url);
        let path = format!("/login/oidc/callback?{answer}&state={state}");
        assert_eq!(browser.get(&path).await.status, 422, "{answer}");
    }
    assert_eq!(world.desk().flows.ended(), 0, "nothing of it is remembered");
    let form = [("email", ANN), ("password", PASSWORD)];
    assert_eq!(world.browser().post("/login", &form).await.status, 303, "passwords still count");
    assert_eq!(whole_trip(&op, &mut browser, Some(&kept)).await.status, 303);
}

#[tokio::test]
async fn codes_that_the_provider_refuses_cost_their_sender_alone() {
    let (world, op) = world();
    let kept = world.keep(ANN, MAIL).await;
    let mut browser = world.browser();
    browser.client = "192.0.2.66:1".into();
    let mut made_up = async || {
        let url = set_out(&mut browser, None).await;
        let (_, state) = op.signs_in(&url);
        browser.get(&back("made-up", &state)).await
    };
    for _ in 0..30 {
        assert_eq!(made_up().await.status, 422);
    }
    op.asked();
    let stopped = made_up().await;
    assert_eq!((stopped.status, stopped.header("retry-after")), (429, Some("600")));
    assert!(!op.asked().contains(&"/token".to_owned()), "the provider is not asked any more");
    for _ in 0..40 {
        let done = whole_trip(&op, &mut world.browser(), Some(&kept)).await;
        assert_eq!(done.status, 303, "right ones are free");
    }
    world.clock.forward(SignedDuration::from_mins(11));
    op.set_now(world.clock_now());
    browser.cookies.clear();
    assert_eq!(whole_trip(&op, &mut browser, Some(&kept)).await.status, 303, "it is over");
}

#[tokio::test]
async fn a_provider_that_refuses_to_let_accounts_be_chosen_is_asked_to_sign_in_anew() {
    let (world, op) = world();
    let kept = world.keep(ANN, MAIL).await;
    let mut browser = world.browser();
    let url = set_out(&mut browser, Some(&kept)).await;
    assert!(url.contains("&prompt=select_account"), "{url}");
    let (_, state) = op.signs_in(&url);
    let refused = format!("/login/oidc/callback?error=invalid_request&state={state}");
    let on = browser.get(&refused).await;
    let url = on.header("refresh").unwrap().strip_prefix("0; url=").unwrap().to_owned();
    assert!(on.status == 200 && url.contains("&prompt=login"), "{url}");
    assert_eq!(browser.get(&refused).await.status, 422, "the first trip is over");
    let (code, state) = op.signs_in(&url);
    let again = world.browser().get(&refused).await;
    assert_eq!(again.status, 422, "nor does another browser set out by it");
    let done = browser.get(&back(&code, &state)).await;
    assert_eq!((done.status, done.header("location")), (303, Some(kept.page().as_str())));
    // A provider that refuses this too is not asked for ever.
    let mut browser = world.browser();
    let url = set_out(&mut browser, None).await;
    let (_, state) = op.signs_in(&url);
    let refused = |state: &str| format!("/login/oidc/callback?error=invalid_request&state={state}");
    let on = browser.get(&refused(&state)).await;
    let url = on.header("refresh").unwrap().strip_prefix("0; url=").unwrap().to_owned();
    let (_, state) = op.signs_in(&url);
    assert_eq!(browser.get(&refused(&state)).await.status, 422);
}

#[tokio::test]
async fn a_provider_that_is_down_or_says_no_leaves_the_other_ways() {
    let (world, op) = world();
    let kept = world.keep(ANN, MAIL).await;
    let before = world.snapshot();
    let mut browser = world.browser();
    op.set_down(&["/realm/.well-known/openid-configuration"]);
    let down = browser.post("/login/oidc", &[("provider", "Op")]).await;
    assert_eq!(down.status, 503);
    assert_whole_page(&down.text(), false);
    assert!(down.text().contains("Sign in another way") && browser.cookies.is_empty());
    op.set_down(&["/token"]);
    world.clock.forward(SignedDuration::from_mins(1));
    op.set_now(world.clock_now());
    assert_eq!(whole_trip(&op, &mut browser, None).await.status, 503);
    op.set_down(&[]);
    for extra in ["error=access_denied", "error=x&code=y", "iss=https%3A%2F%2Fevil.test&code=y", ""]
    {
        let url = set_out(&mut browser, None).await;
        let (_, state) = op.signs_in(&url);
        let answer = browser.get(&format!("/login/oidc/callback?state={state}&{extra}")).await;
        assert_eq!(answer.status, 422, "{extra}");
        assert_whole_page(&answer.text(), false);
    }
    assert_eq!(world.snapshot(), before);
    let lies: [(&str, Bend); 2] = [
        ("another person's nonce", |_, c| c["nonce"] = json!("x")),
        ("an address that is not verified", |_, c| c["email_verified"] = Value::Null),
    ];
    for (what, bend) in lies {
        op.says(Signer::P256, bend);
        let answer = whole_trip(&op, &mut browser, Some(&kept)).await;
        assert_eq!(answer.status, 422, "{what}");
        assert!(answer.text().contains("not enough to sign in"), "{what}");
    }
    assert!(browser.cookies.is_empty());
    let recorded = world.audit.records(0, 100).await.unwrap().into_iter();
    let recorded: Vec<_> = recorded.map(|record| record.event.kind).collect();
    assert_eq!(recorded, [AuditKind::OidcRefused; 2], "the lies, and nothing else");
    op.says(Signer::Rsa, |_, _| {});
    let url = set_out(&mut browser, Some(&kept)).await;
    let (code, state) = op.signs_in(&url);
    let issuer = ISSUER.replace(':', "%3A").replace('/', "%2F");
    let done = browser.get(&format!("{}&iss={issuer}", back(&code, &state))).await;
    assert_eq!(done.status, 303, "the right issuer may say that it is (RFC 9207)");
    op.set_metadata("authorization_response_iss_parameter_supported", json!(true));
    world.clock.forward(SignedDuration::from_hours(1));
    op.set_now(world.clock_now());
    for (extra, status) in [(String::new(), 422), (format!("&iss={issuer}"), 303)] {
        let mut browser = world.browser();
        let url = set_out(&mut browser, Some(&kept)).await;
        let (code, state) = op.signs_in(&url);
        let answer = browser.get(&format!("{}{extra}", back(&code, &state))).await;
        assert_eq!(answer.status, status, "it must, where it has announced that it does: {extra}");
    }
    let other = world.keep(ANN, MAIL).await;
    assert_eq!(world.browser().post("/register", &registration(&other.token)).await.status, 303);
}
