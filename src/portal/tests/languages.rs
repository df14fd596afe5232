//! Pages, errors and mails in the language of their reader.

use super::{
    assert_errors_are_bound,
    world::{Browser, PASSWORD, World, registration},
};
use jiff::SignedDuration;

const ANN: &str = "ann@clinic.example";
const MAIL: &[u8] =
    b"From: Nurse Joy <nurse@example.org>\r\nSubject: Your results\r\n\r\nAll is well.\r\n";

async fn page(browser: &mut Browser<'_>, path: &str, accept: &str) -> String {
    browser.send("GET", path, &[("accept-language", accept)], "").await.text()
}

#[tokio::test]
async fn a_page_comes_in_the_language_that_the_browser_accepts() {
    let world = World::new();
    let mut browser = world.browser();
    for (accept, lang, words) in [
        ("", "en", "Sign in"),
        ("de-CH, fr;q=0.7", "de", "Anmelden"),
        ("es", "es", "Iniciar sesión"),
        ("fr-CA, en;q=0.9", "fr", "Se connecter"),
        ("zh", "en", "Sign in"),
    ] {
        let text = page(&mut browser, "/login", accept).await;
        assert!(text.contains(&format!("<html lang=\"{lang}\">")), "{accept}: {text}");
        assert!(text.contains(&format!("<h1>{words}</h1>")), "{accept}: {text}");
        assert!(text.contains(&format!("lang=\"{lang}\" hreflang=\"{lang}\" aria-current")));
    }
}

#[tokio::test]
async fn a_choice_at_the_foot_of_a_page_stays_and_changes_nothing_here() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let before = world.snapshot();
    let mut browser = world.browser();
    let chosen = browser.get(&format!("{}?lang=de", kept.link())).await;
    assert!(chosen.text().contains("<h1>Öffnen Sie Ihre Nachricht</h1>"), "{}", chosen.text());
    let cookie = chosen.header("set-cookie").unwrap();
    for part in ["language=de; ", "Path=/", "Max-Age=31536000", "HttpOnly", "SameSite=Lax"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(page(&mut browser, "/login", "fr").await.contains("Anmelden"), "before the browser's");
    for nonsense in ["/login?lang=xx", "/login?lang=", "/login?lang=%22%3E"] {
        let answer = browser.get(nonsense).await;
        assert_eq!(answer.header("set-cookie"), None, "{nonsense}");
        assert!(answer.text().contains("Anmelden"), "{nonsense}: the earlier choice");
    }
    assert!(browser.get("/login?lang=es").await.text().contains("Iniciar sesión"));
    assert_eq!(world.snapshot(), before, "a GET changes nothing");
    let closed = browser.get("/inbox?lang=fr").await;
    assert_eq!(closed.header("location"), Some("/login"));
    assert!(browser.get("/login").await.text().contains("Se connecter"));
    let secure = World::at("https://portal.example");
    let answer = secure.browser().get("/?lang=de").await;
    let cookie = answer.header("set-cookie").unwrap();
    assert!(cookie.starts_with("__Host-language=de; Path=/; ") && cookie.ends_with("; Secure"));
    let mut browser = secure.browser();
    browser.cookies.insert("language".to_owned(), "fr".to_owned());
    assert!(!browser.get("/login").await.text().contains("Se connecter"), "another host's cookie");
    browser.cookies.insert("__Host-language".to_owned(), "fr".to_owned());
    assert!(browser.get("/login").await.text().contains("Se connecter"));
}

#[tokio::test]
async fn what_pages_are_made_of_knows_no_choice() {
    let world = World::new();
    let mut browser = world.browser();
    browser.get("/?lang=de").await;
    for path in [
        "/framed/none?lang=es",
        "/framed/none",
        "/assets/none?lang=es",
        "/assets/style.css?lang=es",
    ] {
        for accept in ["fr", "en"] {
            let with = browser.send("GET", path, &[("accept-language", accept)], "").await;
            assert!(with.header("set-cookie").is_none(), "{path}");
            let without =
                world.browser().send("GET", path, &[("accept-language", accept)], "").await;
            assert_eq!(with.text(), without.text(), "{path}: neither cookie nor query counts");
            let lang = format!("<html lang=\"{accept}\"");
            assert!(
                path.contains("style") || with.text().contains(&lang),
                "{path}: {}",
                with.text()
            );
        }
    }
    assert!(browser.get("/login").await.text().contains("Anmelden"), "the choice stays");
}

#[tokio::test]
async fn a_choice_carries_along_what_the_page_is_about_and_no_secret() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut browser = world.browser();
    for (path, link, why) in [
        ("/check?code=bcdf-ghjk-mnpr", "?code=bcdf-ghjk-mnpr&amp;lang=de", "what was asked"),
        ("/login?by=passkey", "?by=passkey&amp;lang=de", "the way in"),
        ("/login?by=passkey&lang=fr", "?by=passkey&amp;lang=de", "a second choice"),
        ("/login?token=AAAA&code=1", "?lang=de", "what the page does not know"),
        ("/login?by=%22%3E%3Cb%3E", "?by=%22%3E%3Cb%3E&amp;lang=de", "stays in its quotes"),
        (&format!("/check?code={}", "b".repeat(65)), "?lang=de", "too long"),
        (&kept.link(), "?lang=de", "the link is in the path"),
    ] {
        let text = browser.get(path).await.text();
        assert!(text.contains(&format!("href=\"{link}\"")), "{why}: {path}: {text}");
    }
}

#[tokio::test]
async fn errors_and_problems_speak_the_language_too() {
    let world = World::new();
    let mut browser = world.browser();
    browser.get("/?lang=de").await;
    let refused = browser.post("/login", &[("email", ""), ("password", "")]).await;
    assert_eq!(refused.status, 422);
    assert!(refused.text().contains("Geben Sie Ihr Passwort ein."), "{}", refused.text());
    assert_errors_are_bound(&refused.text(), &["email", "password"]);
    assert!(!refused.text().contains("?lang="), "a form that was sent can't be asked for again");
    let other = [("sec-fetch-site", "cross-site"), ("accept-language", "fr")];
    for (method, path, headers, status, words) in [
        ("GET", "/m/none", &[][..], 404, "Hier ist nichts"),
        ("POST", "/inbox/x/reply", &[][..], 401, "Bitte melden Sie sich an"),
        ("POST", "/login", &other[..], 403, "Das kam nicht von dieser Seite"),
    ] {
        let answer = browser.send(method, path, headers, "").await;
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.text().contains(words), "{path}: {}", answer.text());
    }
    for wrong in 0..11 {
        let answer = browser.post("/login", &[("email", ANN), ("password", "wrong")]).await;
        let words = if wrong < 10 {
            "Adresse und Passwort passen nicht zusammen."
        } else {
            "Bitte warten Sie eine Minute, und versuchen Sie es dann noch einmal."
        };
        assert!(answer.text().contains(words), "{wrong}: {}", answer.text());
    }
}

#[tokio::test]
async fn who_chose_a_language_gets_pages_and_mails_in_it() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut browser = world.browser();
    browser.get("/?lang=de").await;
    browser.post("/register", &registration(&kept.token)).await;
    let code = world.mailed_code(ANN).await.unwrap();
    browser.post("/verify", &[("code", &code)]).await;
    let text = page(&mut browser, &kept.page(), "fr").await;
    for words in ["Zurück zum Posteingang", "22. November 2026, 10:00 UTC", "hält alle Nachrichten"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("?lang="), "the account has the choice now");
    // Another browser, another language: the account's counts once it is known.
    let mut other = world.browser();
    let sign_in = [("email", ANN), ("password", PASSWORD)];
    other.post("/login", &sign_in).await;
    assert!(page(&mut other, "/inbox?lang=es", "es").await.contains("<h1>Posteingang</h1>"));
    let new = [("current_password", PASSWORD), ("password", "an owl sleeps by day")];
    let form: Vec<_> = new
        .into_iter()
        .chain([("action", "password"), ("password_confirm", "an owl sleeps by day")])
        .collect();
    other.post("/account", &form).await;
    let told = world.told(ANN).await;
    let told = told.last().expect("a mail");
    assert!(told.contains("Ihr Konto bei Example Health wurde ge"), "{told}");
    let form =
        [("action", "profile"), ("first_name", "Ann"), ("last_name", "Ode"), ("language", "")];
    other.post("/account", &form).await;
    let text = page(&mut other, "/inbox", "fr").await;
    assert!(text.contains("<html lang=\"es\">"), "no choice in the account, but one here: {text}");
}

#[tokio::test]
async fn a_code_comes_in_the_language_of_who_asks_for_it() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    world.registered(ANN, &kept).await;
    let mut browser = world.browser();
    browser.get("/?lang=fr").await;
    // The newest mail is known by its time.
    world.clock.forward(SignedDuration::from_mins(1));
    let sent = browser.post("/reset", &[("email", ANN)]).await;
    assert_eq!(sent.status, 303);
    assert!(world.code_after(ANN).await.is_some());
    let mail = world.newest_mail(ANN).await;
    assert!(mail.replace("=3D", "=").contains("<html lang=\"fr\">"), "{mail}");
}

#[tokio::test]
async fn what_is_quoted_is_introduced_in_the_writers_language() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut browser = world.registered(ANN, &kept).await;
    let form = [("first_name", "Ann"), ("last_name", "Ode"), ("language", "de")];
    browser.post("/account", &form).await;
    let path = format!("{}/reply", kept.page());
    let sent = browser.write(&path, &[("body", "Danke."), ("quote", "yes")], &[]).await;
    assert_eq!(sent.status, 303, "{}", sent.text());
    let own = browser.get(sent.header("location").unwrap()).await.text();
    assert!(own.contains("Am 22. November 2026, 10:00 UTC schrieb Nurse Joy"), "{own}");
    assert!(own.contains("Was daraus geworden ist") && own.contains("unterwegs"), "{own}");
}
