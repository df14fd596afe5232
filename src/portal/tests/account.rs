//! The account: forgotten passwords, codes in place of passwords, details, devices, identity.
use super::{
    assert_errors_are_bound, assert_whole_page,
    world::{Browser, PASSWORD, World, address, registration},
};
use crate::{
    identity::SecondFactorRule,
    store::{Account, AuditKind, Passkey, PeopleStore},
};
use jiff::SignedDuration;
use scraper::{Html, Selector};

const MAIL: &[u8] = b"From: nurse@example.org\r\nSubject: Your results\r\n\r\nAll is well.\r\n";
const ANN: &str = "ann@clinic.example";
const NEW: &str = "a stork stands still";

async fn enter(world: &World, password: &str) -> u16 {
    let mut browser = world.browser();
    browser.client = "192.0.2.77:1".into();
    browser.post("/login", &[("email", ANN), ("password", password)]).await.status
}
fn wrong(code: &str) -> &'static str {
    if code == "00000000" { "00000001" } else { "00000000" }
}
/// The first value of such an element on a page.
fn value(page: &str, css: &str) -> String {
    let page = Html::parse_document(page);
    let found = page.select(&Selector::parse(css).unwrap()).next();
    found.and_then(|element| element.attr("value")).unwrap_or_default().to_owned()
}
async fn reset_to(browser: &mut Browser<'_>, code: &str, password: &str) -> super::world::Answer {
    let form = [("code", code), ("password", password), ("password_confirm", password)];
    browser.post("/reset", &form).await
}

#[tokio::test]
async fn a_forgotten_password_is_set_anew() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut thief = world.registered(ANN, &kept).await;
    world.clock.forward(SignedDuration::from_secs(5));
    let mut browser = world.browser();
    let page = browser.get("/reset").await;
    assert_whole_page(&page.text(), false);
    let asked = browser.post("/reset", &[("email", " ANN@clinic.example ")]).await;
    assert_eq!((asked.status, asked.header("location")), (303, Some("/reset")));
    let page = browser.get("/reset").await;
    assert_whole_page(&page.text(), false);
    assert!(page.text().contains("name=\"password_confirm\""));
    let code = world.code_after(ANN).await.unwrap();

    let wrong = reset_to(&mut browser, wrong(&code), NEW).await;
    assert_eq!(wrong.status, 422);
    assert_errors_are_bound(&wrong.text(), &["code"]);
    let done = reset_to(&mut browser, &code, NEW).await;
    assert_eq!((done.status, done.header("location")), (303, Some("/inbox")));
    assert_eq!(browser.get(&kept.page()).await.status, 200, "signed in, and nothing is lost");
    assert_eq!(thief.get("/inbox").await.status, 303, "all other sessions have ended");
    assert_eq!((enter(&world, PASSWORD).await, enter(&world, NEW).await), (422, 303));
    let told = world.told(ANN).await;
    assert!(told.iter().any(|text| text.contains("A new password was set")), "{told:?}");
    let again = reset_to(&mut browser, &code, "a third good password").await;
    assert_eq!(again.status, 422, "a code is good once");
    assert_eq!(enter(&world, NEW).await, 303);
}

#[tokio::test]
async fn who_has_no_account_gets_the_same_answer_and_no_mail() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    world.keep("bob@else.example", MAIL).await;
    world.registered(ANN, &kept).await;
    let mut locked = Account::new(address("eve@clinic.example"), [9; 16], world.clock_now());
    locked.locked = true;
    world.put_account(locked.clone()).await;
    world.clock.forward(SignedDuration::from_secs(5));
    let others = ["nobody@else.example", "bob@else.example", "eve@clinic.example"];
    for (path, more) in [("/reset", None), ("/login", Some(("by", "code")))] {
        let mut pages = Vec::new();
        for email in [ANN].into_iter().chain(others) {
            let mut browser = world.browser();
            let form: Vec<_> = [("email", email)].into_iter().chain(more).collect();
            let asked = browser.post(path, &form).await;
            let next = asked.header("location").unwrap().to_owned();
            let shown = browser.get(&next).await.text().replace(email, "X");
            let form = [("code", "x"), ("password", NEW), ("password_confirm", NEW)];
            let refused = browser.post(&next, &form).await;
            let text = refused.text().replace(email, "X");
            pages.push((asked.status, next, shown, refused.status, text));
        }
        assert!(pages.iter().all(|page| *page == pages[0] && page.3 == 422), "{path}");
        assert!(world.code_after(ANN).await.is_some(), "{path}");
        for email in others {
            assert!(world.code_after(email).await.is_none(), "{path} {email}");
        }
    }
}

#[tokio::test]
async fn the_reset_says_what_is_wrong_and_keeps_what_it_may() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    world.registered(ANN, &kept).await;
    let mut browser = world.browser();
    for email in ["", "no address"] {
        let answer = browser.post("/reset", &[("email", email)]).await;
        assert_eq!(answer.status, 422);
        assert_errors_are_bound(&answer.text(), &["email"]);
        assert_eq!(value(&answer.text(), "#email"), email);
    }
    let early = reset_to(&mut browser, "123456", NEW).await;
    assert_eq!(early.status, 422, "no code was asked for");
    browser.post("/reset", &[("email", ANN)]).await;
    let cases: &[(&str, &str, &str, &[&str], &str)] = &[
        ("", NEW, NEW, &["code"], "no code"),
        ("123456", "short", "short", &["password"], "a weak password"),
        ("123456", ANN, ANN, &["password"], "the address"),
        ("123456", NEW, "another", &["password_confirm"], "two passwords"),
    ];
    for (code, password, again, fields, why) in cases {
        let form = [("code", *code), ("password", *password), ("password_confirm", *again)];
        let answer = browser.post("/reset", &form).await;
        assert_eq!(answer.status, 422, "{why}");
        assert_whole_page(&answer.text(), false);
        assert_errors_are_bound(&answer.text(), fields);
        assert_eq!(value(&answer.text(), "#code"), *code, "{why}: the code is kept");
        assert!(!answer.text().contains(NEW), "{why}: passwords are not sent back");
    }
}

#[tokio::test]
async fn codes_for_an_account_are_few_and_guesses_slow_down() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut reader = world.registered(ANN, &kept).await;
    let mut guesser = world.browser();
    guesser.client = "192.0.2.66:1".into();
    guesser.post("/reset", &[("email", ANN)]).await;
    let code = world.code_after(ANN).await.unwrap();
    for _ in 0..10 {
        assert_eq!(reset_to(&mut guesser, wrong(&code), NEW).await.status, 422);
    }
    assert!(reset_to(&mut guesser, &code, NEW).await.text().contains("too many wrong tries"));
    // A new code does not buy new guesses, from wherever they come: there is nothing to guess at it.
    guesser.client = "192.0.2.67:1".into();
    guesser.post("/reset", &[("email", ANN)]).await;
    assert_eq!(world.code_after(ANN).await.map(|code| code.len()), Some(16));
    assert_eq!(reset_to(&mut guesser, "00000000", NEW).await.status, 422);
    assert_eq!(reader.get("/inbox").await.status, 200, "live sessions go on");
    assert_eq!(enter(&world, PASSWORD).await, 303, "and the password still lets in");
    for _ in 0..8 {
        assert_eq!(world.browser().post("/reset", &[("email", ANN)]).await.status, 303);
    }
    let many = world.browser().post("/reset", &[("email", "ANN@Clinic.example")]).await;
    assert_eq!(many.status, 429, "one mailbox, however it is typed");
    let owner = reader.post("/reset", &[("email", ANN)]).await;
    assert_eq!(owner.status, 303, "a browser that signed in before has a budget of its own");
    let mut link = world.browser();
    link.client = "192.0.2.68:1".into();
    let form = [("email", ANN), ("by", "code"), ("token", &kept.token)];
    assert_eq!(link.post("/login", &form).await.status, 303, "and so has the notice's link");
}

#[tokio::test]
async fn a_reset_that_began_at_a_notice_s_link_has_the_link_s_budget() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let other = world.keep("bob@clinic.example", MAIL).await;
    world.registered(ANN, &kept).await;
    for n in 0..11 {
        let mut stranger = world.browser();
        stranger.client = format!("198.51.100.{n}:1");
        stranger.post("/reset", &[("email", ANN)]).await;
    }
    let mut owner = world.browser();
    owner.client = "192.0.2.68:1".into();
    let form = |token| [("email", ANN), ("token", token)];
    assert_eq!(owner.post("/reset", &form(&other.token)).await.status, 429, "another's link");
    let login = owner.get(&kept.link()).await.text();
    let forgotten = format!("{}/reset", kept.link());
    assert!(login.contains(&format!("href=\"{forgotten}\"")), "{login}");
    let page = owner.get(&forgotten).await.text();
    assert_whole_page(&page, false);
    let filled = (value(&page, "input[name='email']"), value(&page, "input[name='token']"));
    assert_eq!(filled, (ANN.to_owned(), kept.token.clone()));
    assert_eq!(owner.post("/reset", &form(&kept.token)).await.status, 303);
    // "Mail me a new code", on the page of the first one.
    assert_eq!(owner.post("/reset", &[("email", ANN)]).await.status, 303, "nor is it lost there");
    let code = world.code_after(ANN).await.unwrap();
    let done = reset_to(&mut owner, &code, NEW).await;
    let to = (done.status, done.header("location"));
    assert_eq!(to, (303, Some(kept.page().as_str())), "on to the message");
    assert_eq!(world.browser().get("/m/none/reset").await.status, 404);
}

#[tokio::test]
async fn a_code_is_for_its_purpose_its_browser_and_its_time() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    world.registered(ANN, &kept).await;
    world.clock.forward(SignedDuration::from_secs(5));
    let mut browser = world.browser();
    browser.post("/login", &[("email", ANN), ("by", "code")]).await;
    let code = world.code_after(ANN).await.unwrap();
    assert_eq!(reset_to(&mut browser, &code, NEW).await.status, 422, "not for a new password");
    let mut other = world.browser();
    other.post("/login", &[("email", ANN), ("by", "code")]).await;
    assert_eq!(other.post("/verify", &[("code", &code)]).await.status, 422, "another browser");
    world.clock.forward(SignedDuration::from_mins(15));
    let late = browser.post("/verify", &[("code", &code)]).await;
    assert!(late.status == 422 && late.text().contains("time for this code is over"));
    assert_whole_page(&late.text(), false);

    browser.post("/reset", &[("email", ANN)]).await;
    let code = world.code_after(ANN).await.unwrap();
    let answer = browser.post("/verify", &[("code", &code)]).await;
    assert_eq!((answer.status, answer.header("location")), (303, Some("/login")));
    let mut account = world.store.account(&address(ANN)).await.unwrap().unwrap();
    account.locked = true;
    world.put_account(account.clone()).await;
    assert_eq!(reset_to(&mut browser, &code, NEW).await.status, 422, "locked meanwhile");
}

#[tokio::test]
async fn sign_in_by_a_mailed_code_leads_to_the_message() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    world.registered(ANN, &kept).await;
    world.clock.forward(SignedDuration::from_secs(5));
    let mut browser = world.browser();
    assert!(browser.get(&kept.link()).await.text().contains("name=\"by\" value=\"code\""));
    let form = [("email", ANN), ("password", ""), ("token", &kept.token), ("by", "code")];
    let asked = browser.post("/login", &form).await;
    assert_eq!((asked.status, asked.header("location")), (303, Some("/verify")));
    assert_whole_page(&browser.get("/verify").await.text(), false);
    let code = world.code_after(ANN).await.unwrap();
    let done = browser.post("/verify", &[("code", &code)]).await;
    assert_eq!((done.status, done.header("location")), (303, Some(kept.page().as_str())));
    assert_eq!(browser.get(&kept.page()).await.status, 200);
    assert_eq!(enter(&world, PASSWORD).await, 303, "the password is as it was");
    let empty = world.browser().post("/login", &[("email", ""), ("by", "code")]).await;
    assert_eq!(empty.status, 422);
    assert_errors_are_bound(&empty.text(), &["email"]);
}

#[tokio::test]
async fn details_are_kept_and_judged() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut browser = world.registered(ANN, &kept).await;
    let page = browser.get("/account").await;
    assert_eq!(page.status, 200);
    assert_whole_page(&page.text(), true);
    let cases: &[(&str, &str, &str, &[&str])] = &[
        ("", "Ode", "de", &["first_name"]),
        ("Anna", "\u{7}", "", &["last_name"]),
        ("Anna", "Oder", "tlh", &["language"]),
    ];
    for (first, last, language, fields) in cases {
        let form = [("first_name", *first), ("last_name", last), ("language", language)];
        let answer = browser.post("/account", &form).await;
        assert_eq!(answer.status, 422);
        assert_whole_page(&answer.text(), true);
        let named = if *fields == ["language"] { &[][..] } else { fields };
        if !named.is_empty() {
            assert_errors_are_bound(&answer.text(), named);
        }
        assert_eq!(value(&answer.text(), "#first_name"), *first, "what was typed stays");
    }
    let form = [("action", "profile"), ("first_name", " Anna "), ("last_name", "Oder")];
    let form: Vec<_> = form.into_iter().chain([("language", "de")]).collect();
    let saved = browser.post("/account", &form).await;
    assert_eq!((saved.status, saved.header("location")), (303, Some("/account?done=profile")));
    let page = browser.get("/account?done=profile").await.text();
    assert!(page.contains("<html lang=\"de\">"), "the language counts at once");
    assert!(page.contains("Ihre Angaben sind gespeichert.") && page.contains("value=\"Anna\""));
    assert!(page.contains("<option value=\"de\" lang=\"de\" selected>"));
    assert_eq!(browser.post("/account", &[("action", "nonsense")]).await.status, 422);
}

#[tokio::test]
async fn a_new_password_needs_the_old_one_and_ends_other_sessions() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut other = world.registered(ANN, &kept).await;
    let mut browser = world.browser();
    browser.post("/login", &[("email", ANN), ("password", PASSWORD)]).await;
    let cases: &[(&str, &str, &str, &[&str])] = &[
        ("", NEW, NEW, &["current_password"]),
        ("not the old one", NEW, NEW, &["current_password"]),
        (PASSWORD, "short", "short", &["password"]),
        (PASSWORD, NEW, "another", &["password_confirm"]),
    ];
    for (old, new, again, fields) in cases {
        let form = [("current_password", *old), ("password", *new), ("password_confirm", *again)];
        let answer = browser.post("/account", &form).await;
        assert_eq!(answer.status, 422, "{fields:?}");
        assert_whole_page(&answer.text(), true);
        assert_errors_are_bound(&answer.text(), fields);
        assert!(!answer.text().contains(NEW));
    }
    let said = |told: &[String]| told.iter().any(|text| text.contains("The password was changed."));
    assert!(!said(&world.told(ANN).await));
    let form = [("current_password", PASSWORD), ("password", NEW), ("password_confirm", NEW)];
    let done = browser.post("/account", &form).await;
    assert_eq!(done.header("location"), Some("/account?done=password"));
    assert_eq!(browser.get("/account").await.status, 200, "this one goes on");
    assert_eq!(other.get("/inbox").await.status, 303, "the other one has ended");
    assert_eq!((enter(&world, PASSWORD).await, enter(&world, NEW).await), (422, 303));
    assert!(said(&world.told(ANN).await));
}

#[tokio::test]
async fn guessing_the_old_password_slows_down() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut browser = world.registered(ANN, &kept).await;
    let form = [("current_password", "a guess"), ("password", NEW), ("password_confirm", NEW)];
    for _ in 0..10 {
        assert_eq!(browser.post("/account", &form).await.status, 422);
    }
    let later = browser.post("/account", &form).await;
    assert_eq!(later.status, 429);
    assert_whole_page(&later.text(), true);
}

#[tokio::test]
async fn devices_are_listed_and_signed_out() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut here = world.registered(ANN, &kept).await;
    world.clock.forward(SignedDuration::from_secs(5));
    let mut phone = world.browser();
    phone.agent = "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0) Version/19.0 Safari/604.1".into();
    phone.client = "192.0.2.99:1".into();
    phone.post("/login", &[("email", ANN), ("password", PASSWORD)]).await;
    let bob = world.keep("bob@else.example", MAIL).await;
    let mut stranger = world.registered("bob@else.example", &bob).await;

    let page = here.get("/account").await.text();
    for part in ["Safari on iPhone", "From 192.0.2.99", "(this browser)"] {
        assert!(page.contains(part), "{part}");
    }
    assert_eq!(page.matches("value=\"sign-out\"").count(), 2, "nobody else's");
    let named = value(&page, "input[name=session]");
    let form = [("action", "sign-out"), ("session", named.as_str())];
    stranger.post("/account", &form).await;
    assert_eq!(phone.get("/inbox").await.status, 200, "a stranger can't");
    here.post("/account", &form).await;
    assert_eq!(phone.get("/inbox").await.status, 303, "the newest stands first");
    assert_eq!(here.get("/inbox").await.status, 200);

    phone.post("/login", &[("email", ANN), ("password", PASSWORD)]).await;
    let out = here.post("/account", &[("action", "sign-out-everywhere")]).await;
    assert_eq!(out.header("location"), Some("/login"));
    assert_eq!((here.get("/inbox").await.status, phone.get("/inbox").await.status), (303, 303));
    assert_eq!(stranger.get("/inbox").await.status, 200);
}

#[tokio::test]
async fn who_comes_after_a_removed_account_sees_nothing_old() {
    let world = World::new();
    let (read, unread) = (world.keep(ANN, MAIL).await, world.keep(ANN, MAIL).await);
    let mut first = world.registered(ANN, &read).await;
    first.get(&read.page()).await;
    world.clock.forward(SignedDuration::from_secs(5));
    assert!(world.store.remove_account(&address(ANN), world.clock_now()).await.unwrap());
    assert_eq!(first.get("/inbox").await.status, 303, "the session has ended");
    let mut browser = world.browser();
    for kept in [&read, &unread] {
        assert_eq!(browser.get(&kept.link()).await.status, 410, "nobody's link any more");
        assert_eq!(browser.post("/register", &registration(&kept.token)).await.status, 410);
    }
    world.clock.forward(SignedDuration::from_secs(5));
    let fresh =
        world.keep(ANN, b"From: nurse@example.org\r\nSubject: Welcome\r\n\r\nHello\r\n").await;
    let mut second = world.registered(ANN, &fresh).await;
    let inbox = second.get("/inbox").await.text();
    assert!(inbox.contains("Welcome") && !inbox.contains("Your results"), "{inbox}");
    for kept in [&read, &unread] {
        assert_eq!(second.get(&kept.page()).await.status, 404);
        assert_eq!(second.get(&format!("{}/original.eml", kept.page())).await.status, 404);
        assert_eq!(second.get(&kept.link()).await.status, 410);
    }
}

#[tokio::test]
async fn a_notice_can_be_asked_after() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let code = world.grant_row(&kept).await.token.check_code();
    let mut browser = world.browser();
    assert_whole_page(&browser.get("/check").await.text(), false);
    let before = world.snapshot();
    let typed = code.to_uppercase().replace('-', "+");
    let page = browser.get(&format!("/check?code={typed}")).await;
    assert_eq!(page.status, 200);
    assert_whole_page(&page.text(), false);
    for part in ["This notice is ours", "22 November 2026, 10:00 UTC", "a…@clinic.example"] {
        assert!(page.text().contains(part), "{part}");
    }
    for never in ["nurse", "Your results", ANN] {
        assert!(!page.text().contains(never), "{never}");
    }
    for wrong in ["", "hello", "bbbb-bbbb-bbbb"] {
        let page = browser.get(&format!("/check?code={wrong}")).await;
        assert_eq!(page.status, 422, "{wrong}");
        assert_errors_are_bound(&page.text(), &["code"]);
    }
    assert_eq!(world.snapshot(), before);
    for _ in 0..9 {
        browser.get("/check?code=bbbb-bbbb-bbbb").await;
    }
    let later = browser.get(&format!("/check?code={code}")).await;
    assert_eq!(later.status, 429, "guesses slow down");
    browser.client = "192.0.2.5:1".into();
    assert_eq!(browser.get(&format!("/check?code={code}")).await.status, 200);
}

#[tokio::test]
async fn passkeys_have_pages_of_their_own_after_the_password() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut browser = world.registered(ANN, &kept).await;
    let page = world.browser().get("/login?by=passkey").await;
    assert_eq!(page.status, 200);
    assert_whole_page(&page.text(), false);
    let csp = page.header("content-security-policy").unwrap();
    assert!(csp.contains("script-src 'self';") && !csp.contains("unsafe"), "{csp}");
    let early = browser.get("/account?add=passkey").await;
    assert_eq!(early.header("location"), Some("/account#passkeys"), "the password first");
    let add = [("action", "passkey-add"), ("client_data", "AA")];
    assert_eq!(browser.post("/account", &add).await.status, 303);
    let begin = [("action", "passkey-begin")];
    let early = browser.post("/account", &begin).await;
    assert_errors_are_bound(&early.text(), &["proof_password"]);
    let guess = [("action", "prove"), ("proof_password", "a guess")];
    let refused = browser.post("/account", &guess).await;
    assert_errors_are_bound(&refused.text(), &["proof_password"]);
    browser.prove().await;
    let begun = browser.post("/account", &begin).await;
    assert_eq!(begun.header("location"), Some("/account?add=passkey"));
    let page = browser.get("/account?add=passkey").await;
    assert_eq!(page.status, 200);
    assert_whole_page(&page.text(), true);
    let broken = browser.post("/account", &add).await;
    assert_eq!(broken.status, 422);
    assert_whole_page(&broken.text(), true);
    world.clock.forward(SignedDuration::from_mins(16));
    assert_eq!(browser.get("/account?add=passkey").await.status, 303, "only for a while");
    assert!(world.told(ANN).await.is_empty());

    let recorded = world.audit.records(0, 100).await.unwrap().len();
    for credential in ["", "AAAA"] {
        let form = [("by", "passkey"), ("credential", credential), ("user_handle", "AAAA")];
        let refused = world.browser().post("/login", &form).await;
        assert_eq!(refused.status, 422);
        assert_whole_page(&refused.text(), false);
    }
    let tries = world.audit.records(0, 100).await.unwrap().split_off(recorded);
    let tries: Vec<_> = tries.into_iter().map(|tried| tried.event.kind).collect();
    assert_eq!(tries, [AuditKind::WrongPasskey; 2], "what was tried is in the trail");
}

#[tokio::test]
async fn password_managers_learn_whose_password_it_is() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let register = world.browser().get(&kept.link()).await.text();
    let mut browser = world.registered(ANN, &kept).await;
    let account = browser.get("/account").await.text();
    browser.post("/reset", &[("email", ANN)]).await;
    let reset = browser.get("/reset").await.text();
    for (page, action) in [(register, "/register"), (account, "/account"), (reset, "/reset")] {
        let parsed = Html::parse_document(&page);
        let field = format!("form[action='{action}'] input[autocomplete='username'][readonly]");
        let field = Selector::parse(&field).unwrap();
        let fields: Vec<_> = parsed.select(&field).collect();
        assert!(!fields.is_empty(), "{page}");
        for field in fields {
            let shown = (field.attr("value"), field.attr("name"));
            assert_eq!(shown, (Some(ANN), None), "shown, not sent");
        }
    }
}

#[tokio::test]
async fn a_house_that_demands_a_second_factor_lets_nobody_further_without_one() {
    let world = World::of_house(SecondFactorRule::Required, false);
    let kept = world.keep(ANN, MAIL).await;
    let mut browser = world.registered(ANN, &kept).await;
    for path in ["/inbox".to_owned(), kept.page(), format!("{}/original.eml", kept.page())] {
        assert_eq!(browser.get(&path).await.header("location"), Some("/account"), "{path}");
    }
    let page = browser.get("/account").await;
    assert_whole_page(&page.text(), true);
    assert!(page.text().contains("asks for a second factor"));
    let login = world.browser().get("/login").await.text();
    assert!(login.contains("Let me try again by a mailed code"), "{login}");
    assert!(!login.contains("Mail me a code instead"));
    assert_eq!(browser.post("/logout", &[]).await.status, 303);
}

#[tokio::test]
async fn a_house_that_demands_a_second_factor_asks_for_the_passkey_after_the_password() {
    let world = World::of_house(SecondFactorRule::Required, true);
    let kept = world.keep(ANN, MAIL).await;
    world.registered(ANN, &kept).await;
    let account = world.store.account(&address(ANN)).await.unwrap().unwrap();
    let passkey = Passkey {
        id: "id".into(),
        key: "key".into(),
        algorithm: -7,
        counter: 0,
        copyable: None,
        name: "phone".into(),
        created: world.clock_now(),
        proved: false,
        used: None,
    };
    world.put_account(Account { passkeys: vec![passkey], ..account }).await;
    let mut browser = world.browser();
    let form = [("email", ANN), ("password", PASSWORD)];
    let half = browser.post("/login", &form).await;
    assert_eq!((half.status, half.header("location")), (303, Some("/login")));
    assert_eq!(browser.get("/inbox").await.header("location"), Some("/login"), "not in yet");
    for path in ["/login", "/login?by=passkey"] {
        let page = browser.get(path).await.text();
        assert_whole_page(&page, false);
        assert!(page.contains("asks for one of its passkeys"), "{page}");
        assert!(page.contains("action=\"/login\"") && !page.contains("name=\"code\""));
    }
    let code = browser.post("/login", &[("code", "123456")]).await;
    assert_eq!(code.status, 422);
    let refused = browser.post("/login", &[("by", "passkey"), ("user_handle", "AAAA")]).await;
    assert!(refused.text().contains("asks for one of its passkeys"), "{}", refused.text());
    assert!(code.text().contains("asks for one of its passkeys"), "there is no code");
    assert!(browser.get("/login?other").await.text().contains("name=\"password\""));
    let mut browser = world.browser();
    browser.post("/reset", &[("email", ANN)]).await;
    let page = browser.get("/reset").await.text();
    assert!(page.contains("second factor stays") && !page.contains("keep_passkeys"), "{page}");
}

#[tokio::test]
async fn an_account_is_deleted_by_its_owner() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut browser = world.registered(ANN, &kept).await;
    let early = browser.post("/account", &[("action", "delete"), ("sure", "yes")]).await;
    assert_errors_are_bound(&early.text(), &["proof_password"]);
    browser.prove().await;
    let unsure = browser.post("/account", &[("action", "delete")]).await;
    assert_errors_are_bound(&unsure.text(), &["sure"]);
    let done = browser.post("/account", &[("action", "delete"), ("sure", "yes")]).await;
    assert_eq!(done.status, 303);
    assert!(world.store.account(&address(ANN)).await.unwrap().is_none());
    assert_eq!(browser.get(&kept.page()).await.status, 303, "signed out");
    assert_eq!(world.browser().get(&kept.link()).await.status, 410, "what was kept is over");
    assert!(world.told(ANN).await.iter().any(|text| text.contains("The account was deleted")));
}
