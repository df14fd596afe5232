//! Ways that people take.
use super::{
    assert_errors_are_bound, assert_whole_page,
    world::{PASSWORD, World, address, registration},
};
use crate::store::{GrantState, PeopleStore};
use jiff::SignedDuration;

const MAIL: &[u8] =
    b"From: Nurse Joy <nurse@example.org>\r\nSubject: Your results\r\n\r\nAll is well.\r\n";
const ANN: &str = "ann@clinic.example";

#[tokio::test]
async fn from_the_link_to_the_message_and_back_another_day() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut browser = world.browser();

    let form = browser.get(&kept.link()).await;
    assert_eq!(form.status, 200);
    assert_whole_page(&form.text(), false);
    assert!(form.text().contains(ANN) && form.text().contains("action=\"/register\""));
    assert!(!form.text().contains("Your results"), "the link alone shows nothing of the message");
    assert!(!form.text().contains("name=\"address\""), "the address is no input");

    let sent = browser.post("/register", &registration(&kept.token)).await;
    assert_eq!((sent.status, sent.header("location")), (303, Some("/verify")));
    assert!(world.store.account(&address(ANN)).await.unwrap().is_none(), "not before the code");
    let page = browser.get("/verify").await;
    assert_whole_page(&page.text(), false);
    let before = browser.cookies.clone();

    let code = world.mailed_code(ANN).await.unwrap();
    let (three, more) = code.split_at(3);
    let spaced = format!(" {three} {more} ");
    let done = browser.post("/verify", &[("code", &spaced)]).await;
    assert_eq!((done.status, done.header("location")), (303, Some(kept.page().as_str())));
    assert_ne!(browser.cookies, before, "a new cookie at sign-in");

    let message = browser.get(&kept.page()).await;
    assert_eq!(message.status, 200);
    assert_whole_page(&message.text(), true);
    let why = "The sender keeps every message to clinic.example locked";
    for part in ["Your results", "Nurse Joy", "All is well.", ANN, why] {
        assert!(message.text().contains(part), "{part}");
    }
    assert_eq!(browser.get(&kept.link()).await.header("location"), Some(kept.page().as_str()));

    let out = browser.post("/logout", &[]).await;
    assert_eq!((out.status, out.header("location")), (303, Some("/login")));
    assert!(!browser.cookies.contains_key("session"), "the device cookie alone is left");
    assert_eq!(browser.get(&kept.page()).await.header("location"), Some("/login"));

    let form = browser.get(&kept.link()).await;
    assert!(form.text().contains("action=\"/login\"") && form.text().contains(ANN));
    let sign_in = [("email", ANN), ("password", PASSWORD), ("token", kept.token.as_str())];
    let done = browser.post("/login", &sign_in).await;
    assert_eq!((done.status, done.header("location")), (303, Some(kept.page().as_str())));
    let inbox = browser.get("/inbox").await;
    assert_whole_page(&inbox.text(), true);
    assert!(inbox.text().contains("Your results") && inbox.text().contains(&kept.page()));
}

#[tokio::test]
async fn sign_out_ends_the_session_itself() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut browser = world.registered(ANN, &kept).await;
    let stolen = browser.cookies.clone();
    browser.post("/logout", &[]).await;
    browser.cookies = stolen;
    assert_eq!(browser.get("/inbox").await.header("location"), Some("/login"));
}

#[tokio::test]
async fn the_form_says_what_is_wrong_and_keeps_the_rest() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut browser = world.browser();
    let all = registration(&kept.token);
    let cases: &[(&str, &str, &[&str])] = &[
        ("first_name", " ", &["first_name"]),
        ("last_name", "a\u{0}b", &["last_name"]),
        ("password", "short", &["password"]),
        ("password", "password1234", &["password"]),
        ("password", ANN, &["password"]),
        ("password_confirm", "a heron sleeps", &["password_confirm"]),
        ("accept_terms", "", &["accept_terms"]),
    ];
    for (field, value, wrong) in cases {
        let form: Vec<_> =
            all.iter().map(|(n, v)| (*n, if n == field { *value } else { *v })).collect();
        let answer = browser.post("/register", &form).await;
        assert_eq!(answer.status, 422, "{field}");
        assert_whole_page(&answer.text(), false);
        assert_errors_are_bound(&answer.text(), wrong);
        assert!(!answer.text().contains(PASSWORD), "passwords are not sent back");
        let kept_name = if *field == "first_name" { "value=\"Ode\"" } else { "value=\"Ann\"" };
        assert!(answer.text().contains(kept_name), "{}", answer.text());
    }
    assert!(world.mailed_code(ANN).await.is_none(), "no code for a form in error");
    assert_eq!(browser.post("/register", &[]).await.status, 404, "no token");
}

#[tokio::test]
async fn a_code_has_ten_tries_a_quarter_of_an_hour_and_one_browser() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut browser = world.browser();
    browser.post("/register", &registration(&kept.token)).await;
    let code = world.mailed_code(ANN).await.unwrap();

    let mut other = world.browser();
    let refused = other.post("/verify", &[("code", &code)]).await;
    assert_eq!(
        (refused.status, refused.header("location")),
        (303, Some("/login")),
        "another browser"
    );

    let wrong = if code == "00000000" { "00000001" } else { "00000000" };
    for _ in 0..9 {
        let answer = browser.post("/verify", &[("code", wrong)]).await;
        assert_eq!(answer.status, 422);
        assert_errors_are_bound(&answer.text(), &["code"]);
    }
    assert_eq!(browser.post("/verify", &[("code", "")]).await.status, 422, "the tenth");
    let late = browser.post("/verify", &[("code", &code)]).await;
    assert_eq!(late.status, 422);
    assert!(late.text().contains("too many"), "{}", late.text());
    assert!(world.store.account(&address(ANN)).await.unwrap().is_none());

    world.clock.forward(SignedDuration::from_secs(1));
    browser.post("/register", &registration(&kept.token)).await;
    world.clock.forward(SignedDuration::from_mins(15));
    let code = world.mailed_code(ANN).await.unwrap();
    assert_eq!(browser.post("/verify", &[("code", &code)]).await.status, 422, "too late");
    assert!(browser.get("/verify").await.text().contains("time for this code is over"));
}

#[tokio::test]
async fn parallel_guesses_cannot_share_a_try() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut browser = world.browser();
    browser.post("/register", &registration(&kept.token)).await;
    let code = world.mailed_code(ANN).await.unwrap();
    let wrong = if code == "00000000" { "00000001" } else { "00000000" };
    let guesses = (0..20).map(|_| {
        let mut tab = world.browser();
        tab.cookies.clone_from(&browser.cookies);
        async move { tab.post("/verify", &[("code", wrong)]).await.text() }
    });
    let pages = futures_util::future::join_all(guesses).await;
    let counted = pages.iter().filter(|page| page.contains("This is not the code")).count();
    assert_eq!(counted, 9, "nine are asked again, the tenth ends it");
}

#[tokio::test]
async fn codes_are_not_mailed_without_end() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut browser = world.browser();
    for _ in 0..10 {
        assert_eq!(browser.post("/register", &registration(&kept.token)).await.status, 303);
    }
    let answer = browser.post("/register", &registration(&kept.token)).await;
    assert_eq!(answer.status, 429);
    assert!(answer.header("retry-after").is_some());
    assert_whole_page(&answer.text(), false);
}

#[tokio::test]
async fn a_second_registration_leads_to_sign_in_and_takes_nothing_over() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut slow = world.browser();
    slow.post("/register", &registration(&kept.token)).await;
    let code = world.mailed_code(ANN).await.unwrap();
    world.clock.forward(SignedDuration::from_secs(5));
    world.registered(ANN, &kept).await;
    let account = world.store.account(&address(ANN)).await.unwrap();

    let answer = slow.post("/verify", &[("code", &code)]).await;
    assert_eq!((answer.status, answer.header("location")), (303, Some("/login")));
    let answer = slow.post("/register", &registration(&kept.token)).await;
    assert_eq!((answer.status, answer.header("location")), (303, Some(kept.link().as_str())));
    assert!(world.store.account(&address(ANN)).await.unwrap() == account, "untouched");
}

#[tokio::test]
async fn wrong_passwords_grow_a_delay_and_live_sessions_go_on() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut reader = world.registered(ANN, &kept).await;
    let mut guesser = world.browser();
    guesser.client = "192.0.2.66:1".into();
    for _ in 0..10 {
        let form = [("email", ANN), ("password", "a wrong password")];
        let answer = guesser.post("/login", &form).await;
        assert_eq!(answer.status, 422);
        assert_errors_are_bound(&answer.text(), &["password"]);
        assert!(answer.text().contains(ANN), "what was typed stays");
    }
    let right = [("email", ANN), ("password", PASSWORD)];
    let mut owner = world.browser();
    let refused = owner.post("/login", &right).await;
    assert_eq!(refused.status, 429, "per account, from any address");
    assert!(refused.header("retry-after").is_some());
    let other = [("email", "bob@clinic.example"), ("password", "a wrong password")];
    assert_eq!(guesser.post("/login", &other).await.status, 422, "one address may be a clinic's");
    assert_eq!(reader.get("/inbox").await.status, 200);
    reader.post("/logout", &[]).await;
    assert_eq!(reader.post("/login", &right).await.status, 303, "its owner's browser gets in");
    world.clock.forward(SignedDuration::from_mins(1));
    assert_eq!(owner.post("/login", &right).await.status, 303);
}

#[tokio::test]
async fn an_unknown_address_gets_the_same_answer() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    world.registered(ANN, &kept).await;
    let mut pages = Vec::new();
    for email in [ANN, "nobody@else.example", "no address"] {
        let form = [("email", email), ("password", "a wrong password")];
        let answer = world.browser().post("/login", &form).await;
        assert_eq!(answer.status, 422);
        pages.push(answer.text().replace(email, "X"));
    }
    assert!(pages.iter().all(|page| *page == pages[0]));
    let empty = world.browser().post("/login", &[("email", ""), ("password", "")]).await;
    assert_errors_are_bound(&empty.text(), &["email", "password"]);
    let capitals = [("email", "  Ann@Clinic.Example "), ("password", PASSWORD)];
    assert_eq!(world.browser().post("/login", &capitals).await.status, 303);
}

#[tokio::test]
async fn sign_in_finds_the_account_however_its_address_is_typed() {
    let world = World::new();
    let kept = world.keep("Ann.Ode@clinic.example", MAIL).await;
    world.registered("Ann.Ode@clinic.example", &kept).await;
    let enter = async |email: &str| {
        let form = [("email", email), ("password", PASSWORD)];
        world.browser().post("/login", &form).await.status
    };
    for email in ["Ann.Ode@clinic.example", "ann.ode@clinic.example", "ANN.ODE@CLINIC.EXAMPLE"] {
        assert_eq!(enter(email).await, 303, "{email}");
    }
    // A sender who spells it another way writes to the same reader.
    let other = world.keep("ann.ode@clinic.example", MAIL).await;
    let mut browser = world.browser();
    let page = browser.get(&other.link()).await.text();
    assert!(page.contains("action=\"/login\""), "no second registration: {page}");
    let form = [("email", "ann.ode@clinic.example"), ("password", PASSWORD)];
    browser.post("/login", &form).await;
    for message in [&kept, &other] {
        assert_eq!(browser.get(&message.page()).await.status, 200);
    }
    let inbox = browser.get("/inbox").await.text();
    assert!(inbox.contains(&kept.page()) && inbox.contains(&other.page()));
}

#[tokio::test]
async fn a_locked_account_is_out_at_once() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut browser = world.registered(ANN, &kept).await;
    let mut account = world.store.account(&address(ANN)).await.unwrap().unwrap();
    account.locked = true;
    world.put_account(account.clone()).await;
    assert_eq!(browser.get("/inbox").await.header("location"), Some("/login"));
    let form = [("email", ANN), ("password", PASSWORD)];
    assert_eq!(browser.post("/login", &form).await.status, 422);
}

#[tokio::test]
async fn sessions_end_by_idleness_and_by_age() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut idle = world.registered(ANN, &kept).await;
    let mut busy = world.browser();
    busy.post("/login", &[("email", ANN), ("password", PASSWORD)]).await;
    for _ in 0..14 {
        assert_eq!(busy.get("/inbox").await.status, 200);
        world.clock.forward(SignedDuration::from_mins(50));
    }
    assert_eq!(idle.get("/inbox").await.status, 303, "an hour unused");
    assert_eq!(busy.get("/inbox").await.status, 200, "used all along");
    world.clock.forward(SignedDuration::from_mins(30));
    assert_eq!(busy.get("/inbox").await.status, 303, "older than twelve hours");
}

#[tokio::test]
async fn what_is_over_is_410_to_its_owner_and_404_to_others() {
    let world = World::new();
    let (ann, bob) = (world.keep(ANN, MAIL).await, world.keep("bob@else.example", MAIL).await);
    let mut owner = world.registered(ANN, &ann).await;
    let mut other = world.registered("bob@else.example", &bob).await;
    let mut grant = world.grant_row(&ann).await;
    grant.state = GrantState::Recalled;
    world.store.update_grant(&grant).await.unwrap();
    for path in [ann.page(), format!("{}/original.eml", ann.page()), ann.link()] {
        let gone = owner.get(&path).await;
        assert_eq!(gone.status, 410, "{path}");
        assert_whole_page(&gone.text(), true);
        assert_eq!(other.get(&path).await.status, 404, "{path}");
    }
    let list = owner.get("/inbox").await.text();
    assert!(list.contains("no longer available") && !list.contains("Your results"));

    world.clock.forward(SignedDuration::from_hours(30 * 24));
    let mut owner = world.browser();
    owner.post("/login", &[("email", "bob@else.example"), ("password", PASSWORD)]).await;
    assert_eq!(owner.get(&bob.page()).await.status, 410, "expired, though nothing was swept yet");
}

#[tokio::test]
async fn another_code_can_be_had_where_the_first_is_awaited() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut browser = world.browser();
    let again = [("again", "yes")];
    let stranger = browser.post("/verify", &again).await;
    assert_eq!(stranger.header("location"), Some("/login"), "a browser that awaits none");
    assert!(world.mailed_code(ANN).await.is_none());

    browser.post("/register", &registration(&kept.token)).await;
    let first = world.mailed_code(ANN).await.unwrap();
    let page = browser.get("/verify").await.text();
    assert!(page.contains("Mail me a new code"), "{page}");
    assert_eq!(browser.post("/verify", &again).await.header("location"), Some("/verify"));
    let second = world.mailed_code(ANN).await.unwrap();
    if first != second {
        assert_eq!(browser.post("/verify", &[("code", &first)]).await.status, 422, "void");
    }
    let done = browser.post("/verify", &[("code", &second)]).await;
    assert_eq!(done.header("location"), Some(kept.page().as_str()));
    let account = world.store.account(&address(ANN)).await.unwrap().unwrap();
    assert_eq!(account.first_name, "Ann", "what was typed before is kept");
    let enter = [("email", ANN), ("password", PASSWORD)];
    assert_eq!(world.browser().post("/login", &enter).await.status, 303, "and so the password");
}

#[tokio::test]
async fn other_codes_end_with_the_link_and_are_counted() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let again = [("again", "yes")];
    let mut browser = world.browser();
    browser.post("/register", &registration(&kept.token)).await;
    let mut sent = 1;
    let refused = loop {
        let answer = browser.post("/verify", &again).await;
        if answer.status != 303 {
            break answer;
        }
        sent += 1;
        assert!(sent < 20, "as many as one likes");
    };
    assert_eq!((sent, refused.status), (10, 429), "as many as through the link");
    assert!(refused.header("retry-after").is_some());
    assert!(refused.text().contains("Many codes have been mailed"), "{}", refused.text());

    let other = world.keep("bob@clinic.example", MAIL).await;
    let mut browser = world.browser();
    browser.client = "192.0.2.7:999".into();
    browser.post("/register", &registration(&other.token)).await;
    let mut grant = world.grant_row(&other).await;
    grant.state = GrantState::Recalled;
    world.store.update_grant(&grant).await.unwrap();
    assert_eq!(browser.post("/verify", &again).await.status, 410, "taken back meanwhile");
}
