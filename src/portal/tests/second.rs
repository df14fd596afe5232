//! The second factor, from the picture to the recovery code.
use super::{
    assert_errors_are_bound, assert_whole_page,
    world::{Browser, PASSWORD, World, address},
};
use crate::store::PeopleStore;
use data_encoding::BASE32_NOPAD;
use jiff::SignedDuration;
use scraper::{Html, Selector};
use totp_rs::{Builder, Totp};

const MAIL: &[u8] = b"From: nurse@example.org\r\nSubject: Your results\r\n\r\nAll is well.\r\n";
const ANN: &str = "ann@clinic.example";
const STEP: SignedDuration = SignedDuration::from_secs(30);

fn texts(page: &str, css: &str) -> Vec<String> {
    let page = Html::parse_document(page);
    page.select(&Selector::parse(css).unwrap()).map(|e| e.text().collect()).collect()
}
/// An app that was given the secret as text.
fn app(page: &str) -> Totp {
    let secret = texts(page, "#secret").remove(0).replace(' ', "");
    let secret = BASE32_NOPAD.decode(secret.as_bytes()).unwrap();
    Builder::new().with_secret(secret.into_boxed_slice()).build().unwrap()
}
fn shown(app: &Totp, world: &World) -> String {
    app.generate(u64::try_from(world.clock_now().as_second()).unwrap()).to_string()
}
/// Turns the second factor on; gives the app and the recovery codes.
async fn turned_on(world: &World, browser: &mut Browser<'_>) -> (Totp, Vec<String>) {
    browser.prove().await;
    let begin = [("action", "second-begin")];
    let begun = browser.post("/account", &begin).await;
    assert_eq!((begun.status, begun.header("location")), (303, Some("/account#second")));
    let page = browser.get("/account").await.text();
    assert_whole_page(&page, true);
    assert!(page.contains("<svg class=\"qr\" role=\"img\""));
    let app = app(&page);
    let wrong = browser.post("/account", &[("action", "second-confirm"), ("code", "12")]).await;
    assert_eq!(wrong.status, 422);
    assert_errors_are_bound(&wrong.text(), &["code"]);
    let code = shown(&app, world);
    let on = browser.post("/account", &[("action", "second-confirm"), ("code", &code)]).await;
    assert_eq!(on.status, 200);
    assert_whole_page(&on.text(), true);
    let codes = texts(&on.text(), ".codes code");
    assert_eq!(codes.len(), 10);
    (app, codes)
}
async fn half_in<'a>(world: &'a World) -> Browser<'a> {
    let mut browser = world.browser();
    let half = browser.post("/login", &[("email", ANN), ("password", PASSWORD)]).await;
    assert_eq!((half.status, half.header("location")), (303, Some("/login")));
    assert_eq!(browser.get("/inbox").await.status, 303, "not in yet");
    let page = browser.get("/login").await.text();
    assert_whole_page(&page, false);
    assert!(page.contains("name=\"code\"") && !page.contains("name=\"password\""));
    browser
}
async fn type_code(browser: &mut Browser<'_>, code: &str) -> u16 {
    browser.post("/login", &[("code", code)]).await.status
}

#[tokio::test]
async fn sign_in_asks_for_the_app_once_it_is_set_up() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut browser = world.registered(ANN, &kept).await;
    let refused = browser.post("/account", &[("action", "second-begin")]).await;
    assert_errors_are_bound(&refused.text(), &["proof_password"]);
    assert!(world.told(ANN).await.is_empty());
    let (app, _) = turned_on(&world, &mut browser).await;
    assert!(world.told(ANN).await.iter().any(|text| text.contains("now asks for a code")));
    assert_eq!(browser.get("/inbox").await.status, 200, "live sessions go on");
    let page = browser.get("/account").await.text();
    assert!(page.contains("10 recovery codes are left") && !page.contains("id=\"secret\""));

    let mut other = half_in(&world).await;
    assert_eq!(type_code(&mut other, &shown(&app, &world)).await, 422, "used to set it up");
    world.clock.forward(STEP);
    let empty = other.post("/login", &[("code", " ")]).await;
    assert_errors_are_bound(&empty.text(), &["code"]);
    let code = shown(&app, &world);
    let (three, more) = code.split_at(3);
    let spaced = format!("{three} {more}");
    assert_eq!(type_code(&mut other, &spaced).await, 303);
    assert_eq!(other.get("/inbox").await.status, 200);
    let mut replay = half_in(&world).await;
    assert_eq!(type_code(&mut replay, &code).await, 422, "each code is good once");
    world.clock.forward(STEP);
    assert_eq!(type_code(&mut replay, &shown(&app, &world)).await, 303);

    let off = [("action", "second-off")];
    assert_eq!(browser.post("/account", &off).await.status, 303);
    let told = world.told(ANN).await;
    assert!(told.iter().any(|text| text.contains("no longer asks for a code")), "{told:?}");
    let form = [("email", ANN), ("password", PASSWORD)];
    assert_eq!(world.browser().post("/login", &form).await.header("location"), Some("/inbox"));
}

#[tokio::test]
async fn every_first_factor_is_followed_by_the_second_and_the_message_is_not_forgotten() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut browser = world.registered(ANN, &kept).await;
    let (app, _) = turned_on(&world, &mut browser).await;
    for way in ["password", "code", "reset"] {
        world.clock.forward(STEP);
        let mut browser = world.browser();
        let form = [("email", ANN), ("token", &kept.token)];
        let half = match way {
            "password" => {
                let form: Vec<_> = form.into_iter().chain([("password", PASSWORD)]).collect();
                browser.post("/login", &form).await
            }
            "code" => {
                let form: Vec<_> = form.into_iter().chain([("by", "code")]).collect();
                browser.post("/login", &form).await;
                let code = world.code_after(ANN).await.unwrap();
                browser.post("/verify", &[("code", &code)]).await
            }
            _ => {
                browser.post("/reset", &form[..1]).await;
                let code = world.code_after(ANN).await.unwrap();
                let new = [
                    ("code", code.as_str()),
                    ("password", PASSWORD),
                    ("password_confirm", PASSWORD),
                ];
                browser.post("/reset", &new).await
            }
        };
        assert_eq!((half.status, half.header("location")), (303, Some("/login")), "{way}");
        assert_eq!(browser.get(&kept.page()).await.status, 303, "{way}: not in yet");
        let done = browser.post("/login", &[("code", &shown(&app, &world))]).await;
        let to = if way == "reset" { "/inbox".to_owned() } else { kept.page() };
        assert_eq!((done.status, done.header("location")), (303, Some(to.as_str())), "{way}");
    }
}

#[tokio::test]
async fn a_recovery_code_lets_in_once_and_its_owner_hears_of_it() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut browser = world.registered(ANN, &kept).await;
    let (_, codes) = turned_on(&world, &mut browser).await;
    let mut other = half_in(&world).await;
    assert_eq!(type_code(&mut other, &codes[3].to_uppercase()).await, 303);
    assert!(other.get("/account").await.text().contains("9 recovery codes are left"));
    assert!(world.told(ANN).await.iter().any(|text| text.contains("with a recovery code")));
    let mut again = half_in(&world).await;
    assert_eq!(type_code(&mut again, &codes[3]).await, 422);
    assert_eq!(type_code(&mut again, &codes[4]).await, 303);
    let row = format!("{:?}", world.store);
    assert!(codes.iter().all(|code| !row.contains(code.as_str())), "hashes only");
}

#[tokio::test]
async fn guesses_at_the_second_factor_slow_down_and_half_a_sign_in_ends() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut browser = world.registered(ANN, &kept).await;
    let (app, _) = turned_on(&world, &mut browser).await;
    world.clock.forward(STEP);
    let right = shown(&app, &world);
    let wrong = if right == "000000" { "000001" } else { "000000" };
    let mut guesser = half_in(&world).await;
    guesser.client = "192.0.2.66:1".into();
    for _ in 0..5 {
        assert_eq!(type_code(&mut guesser, wrong).await, 422);
    }
    let told = world.told(ANN).await;
    assert!(told.iter().any(|text| text.contains("several wrong codes")), "{told:?}");
    let later = guesser.post("/login", &[("code", &right)]).await;
    assert_eq!(later.status, 429);
    assert_whole_page(&later.text(), false);
    let mut elsewhere = half_in(&world).await;
    assert_eq!(type_code(&mut elsewhere, &right).await, 429, "from anywhere");
    let whole = elsewhere.get("/login?other").await.text();
    assert!(whole.contains("name=\"password\""), "there is a way back");

    world.clock.forward(SignedDuration::from_mins(16));
    let late = elsewhere.post("/login", &[("code", &shown(&app, &world))]).await;
    assert_eq!(late.status, 422, "the first factor was too long ago");
    assert!(late.text().contains("name=\"password\""));
    let mut half = half_in(&world).await;
    let account = world.store.account(&address(ANN)).await.unwrap().unwrap();
    world.desk().identity.set_locked(&account, true).await.unwrap();
    assert_eq!(type_code(&mut half, &shown(&app, &world)).await, 422, "ended by a lock");
}
