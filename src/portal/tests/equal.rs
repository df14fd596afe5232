//! Whoever asks at the door learns of no address whether it has an account: the same answers, the
//! same delays, the same work.
use super::world::{Answer, PASSWORD, World, address};
use crate::store::PeopleStore;

const MAIL: &[u8] = b"From: nurse@example.org\r\nSubject: Your results\r\n\r\nAll is well.\r\n";
const KNOWN: &str = "ann@clinic.example";
const LOCKED: &str = "bob@clinic.example";
const UNKNOWN: &str = "eve@clinic.example";

/// What an answer shows, but for what was typed and what is random.
fn shown(answer: &Answer, email: &str) -> String {
    let kept = ["location", "retry-after", "content-type"];
    let headers = answer.headers.iter().filter(|(name, _)| kept.contains(&name.as_str()));
    let headers: Vec<_> = headers.map(|(name, value)| format!("{name}: {value}")).collect();
    let cookies = answer.headers.iter().filter(|(name, _)| name == "set-cookie").count();
    let body = answer.text().replace(email, "ADDRESS");
    let body = match body.split_once("data-challenge=\"") {
        Some((head, tail)) => format!("{head}{}", tail.split_once('"').unwrap().1),
        None => body,
    };
    format!("{} {} {cookies} cookies\n{body}", answer.status, headers.join(", "))
}

/// A way to the door: the form's place, its fields but the address, how often it is sent before
/// delays begin, and what it looks at.
type Way = (&'static str, &'static [(&'static str, &'static str)], u16, &'static str);
const WAYS: &[Way] = &[
    ("/login", &[("password", "a wrong password")], 422, "a password"),
    ("/login", &[("by", "code")], 303, "a code in place of a password"),
    (
        "/login",
        &[("by", "passkey"), ("credential", "AAAA"), ("user_handle", "AAAA")],
        422,
        "a passkey",
    ),
    ("/reset", &[], 303, "a forgotten password"),
    ("/register", &[("token", "AAAA"), ("first_name", "A")], 404, "registration without a link"),
];

#[tokio::test]
async fn known_locked_and_unknown_addresses_get_the_same_answers_and_delays() {
    for (path, fields, expected, what) in WAYS {
        let world = World::new();
        for who in [KNOWN, LOCKED] {
            let kept = world.keep(who, MAIL).await;
            let mut browser = world.registered(who, &kept).await;
            browser.post("/logout", &[]).await;
        }
        let mut locked = world.store.account(&address(LOCKED)).await.unwrap().unwrap();
        locked.locked = true;
        world.put_account(locked.clone()).await;
        // A clean slate: registration itself has counted.
        world.clock.forward(jiff::SignedDuration::from_mins(40));
        let mut seen = Vec::new();
        for (number, email) in (10..).zip([KNOWN, LOCKED, UNKNOWN]) {
            let mut browser = world.browser();
            browser.client = format!("192.0.2.{number}:1");
            let form: Vec<_> =
                [("email", email)].into_iter().chain(fields.iter().copied()).collect();
            let mut answers = Vec::new();
            for _ in 0..12 {
                let answer = browser.post(path, &form).await;
                answers.push(shown(&answer, email));
                let next = browser.get("/verify").await;
                answers.push(shown(&next, email));
                let page = browser.get(path).await;
                answers.push(shown(&page, email));
                browser.cookies.clear();
            }
            world.written().await;
            assert!(answers[0].starts_with(&expected.to_string()), "{what}: {}", answers[0]);
            let slowed = answers.iter().any(|answer| answer.starts_with("429"));
            let guessed = *path != "/register" && *what != "a passkey";
            assert_eq!(slowed, guessed, "{what}: delays grow where something can be guessed");
            seen.push(answers);
        }
        for (number, (known, unknown)) in seen[0].iter().zip(&seen[2]).enumerate() {
            assert_eq!(known, unknown, "{what}: answer {number}");
        }
        assert_eq!(seen[0], seen[1], "{what}: a locked account");
    }
}

#[tokio::test]
async fn a_guessed_code_says_nothing_of_the_address() {
    let mut seen = Vec::new();
    for email in [KNOWN, UNKNOWN] {
        let world = World::new();
        let kept = world.keep(KNOWN, MAIL).await;
        world.registered(KNOWN, &kept).await;
        let mut answers = Vec::new();
        for path in ["/login", "/reset"] {
            let mut browser = world.browser();
            browser.client = "192.0.2.9:1".into();
            browser.post(path, &[("email", email), ("by", "code")]).await;
            world.written().await;
            for _ in 0..11 {
                let form =
                    [("code", "no code"), ("password", PASSWORD), ("password_confirm", PASSWORD)];
                let to = if path == "/login" { "/verify" } else { "/reset" };
                answers.push(shown(&browser.post(to, &form).await, email));
            }
        }
        seen.push(answers);
    }
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn an_address_buys_no_more_tries_by_being_typed_another_way() {
    let world = World::new();
    let kept = world.keep(KNOWN, MAIL).await;
    world.registered(KNOWN, &kept).await;
    let ways = [KNOWN, "ANN@clinic.example", "\"ann\"@clinic.example", "ann@ｃｌｉｎｉｃ.example"];
    for (number, email) in (1..=10).zip(ways.into_iter().cycle()) {
        let mut browser = world.browser();
        browser.client = format!("198.51.100.{number}:1");
        let form = [("email", email), ("password", "a wrong password")];
        assert_eq!(browser.post("/login", &form).await.status, 422, "{email}");
    }
    for email in ways {
        let form = [("email", email), ("password", PASSWORD)];
        assert_eq!(world.browser().post("/login", &form).await.status, 429, "{email}");
    }
}
