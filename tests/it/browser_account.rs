//! The account in a real browser: a forgotten password, a second factor, a passkey.

use crate::{
    browser::{click, field, picture, press, shows, submit},
    support::{
        browser::Driver,
        gateway::Settings,
        house::{House, code_in},
        http::Visitor,
        smtp,
    },
};
use axum::http::Method;
use data_encoding::BASE32_NOPAD;
use fantoccini::{Client, Locator, wd::WebDriverCompatibleCommand};
use restante::clock::{Clock, SystemClock};
use serde_json::json;
use std::path::Path;
use totp_rs::Builder;
use url::{ParseError, Url};

const MESSAGE: &[u8] = b"Subject: Your appointment\r\n\r\nPlease come on Monday.\r\n";
const ADA: &str = "ada@stranger.test";
const PASSWORD: &str = "correct horse battery";
const NEW: &str = "a heron sleeps upright";

/// Ada has registered and read; the browser knows nothing of her yet.
fn scene(dir: &Path, adjust: impl FnOnce(&mut Settings)) -> House {
    let house = House::open(dir, &[], adjust);
    smtp::send(house.gateway.smtp, "doctor@example.org", &[ADA], MESSAGE);
    let notice = house.mail_to_stranger(1);
    house.register(&mut Visitor::new(house.gateway.portal), &notice, PASSWORD);
    house
}

/// Runs a journey in a browser at `http://HOST:PORT`.
fn journey(scripts: bool, host: &str, walk: impl AsyncFnOnce(&House, &Client, &str)) {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = scene(dir.path(), |settings| settings.portal_host = host.to_owned());
    let downloads = dir.path().join("downloads");
    std::fs::create_dir_all(&downloads).expect("folder");
    let driver = Driver::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let browser = driver.browser(scripts, &downloads).await;
        let base = format!("http://{host}:{}", house.gateway.portal.port());
        walk(&house, &browser, &base).await;
        browser.close().await.expect("closed");
    });
}

/// What a mail with a code says.
const CODE: &str = "Type it on the page";

async fn fill(browser: &Client, fields: &[(&str, &str)]) {
    for (name, text) in fields {
        let field = field(browser, name).await;
        field.clear().await.expect("cleared");
        field.send_keys(text).await.expect("typed");
    }
}

async fn sign_in(browser: &Client, base: &str, password: &str) {
    browser.goto(&format!("{base}/login")).await.expect("the sign-in page");
    fill(browser, &[("email", ADA), ("password", password)]).await;
}

async fn sign_out(browser: &Client) {
    click(browser, "form[action='/logout'] button").await;
}

#[test]
fn a_forgotten_password_with_scripts() {
    journey(true, "127.0.0.1", forgotten);
}
#[test]
fn a_forgotten_password_without_scripts() {
    journey(false, "127.0.0.1", forgotten);
}

async fn forgotten(house: &House, browser: &Client, base: &str) {
    sign_in(browser, base, "I do not know any more").await;
    press(browser, "main form button[type='submit']").await;
    shows(browser, "do not belong together").await;
    click(browser, "a[href='/reset']").await;
    fill(browser, &[("email", ADA)]).await;
    press(browser, "main form button[type='submit']").await;
    shows(browser, "A new password").await;
    picture(browser, "account-1-new-password").await;
    let code = code_in(&house.mail_saying(2, CODE).content);
    let wrong = if code == "00000000" { "00000001" } else { "00000000" };
    for (code, words) in [(wrong, "This is not the code."), (code.as_str(), "Your appointment")] {
        fill(browser, &[("code", code), ("password", NEW), ("password_confirm", NEW)]).await;
        press(browser, "main form button[type='submit']").await;
        shows(browser, words).await;
    }
    house.mail_saying(3, "A new password was set");
    sign_out(browser).await;
    sign_in(browser, base, NEW).await;
    submit(browser).await;
    shows(browser, "Your appointment").await;
    sign_out(browser).await;

    // Without any password: the second button of the sign-in form.
    sign_in(browser, base, "").await;
    click(browser, "button[name='by'][value='code']").await;
    fill(browser, &[("code", &code_in(&house.mail_saying(4, CODE).content))]).await;
    submit(browser).await;
    shows(browser, "Your appointment").await;
}

#[test]
fn a_second_factor_with_scripts() {
    journey(true, "127.0.0.1", second_factor);
}
#[test]
fn a_second_factor_without_scripts() {
    journey(false, "127.0.0.1", second_factor);
}

async fn second_factor(_: &House, browser: &Client, base: &str) {
    sign_in(browser, base, PASSWORD).await;
    submit(browser).await;
    browser.goto(&format!("{base}/account")).await.expect("the account");
    press(browser, "button[value='second-begin']").await;
    shows(browser, "Scan this picture").await;
    picture(browser, "account-2-second-factor").await;
    let secret = browser.find(Locator::Id("secret")).await.expect("the secret").text().await;
    let secret = secret.expect("text").replace(' ', "");
    let secret = BASE32_NOPAD.decode(secret.as_bytes()).expect("base32");
    let app = Builder::new().with_secret(secret.into_boxed_slice()).build().expect("an app");
    // The app's clock runs `ahead`: a code is good once, and the next one need not be waited for.
    let shown = |ahead: u64| {
        let now = u64::try_from(SystemClock.now().as_second()).expect("after 1970");
        app.generate(now + ahead).to_string()
    };
    fill(browser, &[("code", &shown(0))]).await;
    press(browser, "form:has(#code) button").await;
    shows(browser, "Your recovery codes").await;
    picture(browser, "account-3-recovery-codes").await;
    let codes = browser.find_all(Locator::Css(".codes code")).await.expect("codes");
    let recovery = codes[0].text().await.expect("text");
    for (wrong, right) in [("12345", shown(30)), ("no-such-code", recovery)] {
        sign_out(browser).await;
        sign_in(browser, base, PASSWORD).await;
        press(browser, "main form button[type='submit']").await;
        shows(browser, "One more step").await;
        picture(browser, "account-4-second-step").await;
        fill(browser, &[("code", wrong)]).await;
        press(browser, "main form button[type='submit']").await;
        shows(browser, "This is not the code").await;
        fill(browser, &[("code", &right)]).await;
        submit(browser).await;
        shows(browser, "Your appointment").await;
    }
    browser.goto(&format!("{base}/account")).await.expect("the account");
    shows(browser, "9 recovery codes are left").await;
    picture(browser, "account-5-account").await;
    press(browser, "button[value='sign-out-everywhere']").await;
    shows(browser, "Sign in to read").await;
}

/// W3C Web Authentication Level 2, section 11.5: an authenticator that is none, with its user always
/// there.
#[derive(Debug)]
struct VirtualAuthenticator;
impl WebDriverCompatibleCommand for VirtualAuthenticator {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/webauthn/authenticator", session.unwrap_or_default()))
    }
    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        let body = json!({
            "protocol": "ctap2", "transport": "internal", "hasResidentKey": true,
            "hasUserVerification": true, "isUserVerified": true, "isUserConsenting": true,
        });
        (Method::POST, Some(body.to_string()))
    }
}

#[test]
fn a_passkey_is_added_and_lets_in() {
    journey(true, "localhost", async |house: &House, browser: &Client, base: &str| {
        browser.issue_cmd(VirtualAuthenticator).await.expect("a virtual authenticator");
        sign_in(browser, base, PASSWORD).await;
        submit(browser).await;
        browser.goto(&format!("{base}/account")).await.expect("the account");
        press(browser, "button[value='passkey-begin']").await;
        shows(browser, "A new passkey").await;
        fill(browser, &[("name", "my phone")]).await;
        press(browser, "#passkey-start").await;
        shows(browser, "The passkey is added").await;
        picture(browser, "account-6-passkeys").await;
        house.mail_saying(2, "A passkey was added");

        // The same device a second time.
        press(browser, "button[value='passkey-begin']").await;
        shows(browser, "A new passkey").await;
        press(browser, "#passkey-start").await;
        shows(browser, "has a passkey for your account already").await;

        for _ in 0..2 {
            sign_out(browser).await;
            browser.goto(&format!("{base}/login?by=passkey")).await.expect("the page");
            press(browser, "#passkey-start").await;
            shows(browser, "Your appointment").await;
        }
        browser.goto(&format!("{base}/account")).await.expect("the account");
        shows(browser, "my phone").await;
        press(browser, "button[value='passkey-off']").await;
        shows(browser, "The passkey is removed").await;
        sign_out(browser).await;
        browser.goto(&format!("{base}/login?by=passkey")).await.expect("the page");
        press(browser, "#passkey-start").await;
        shows(browser, "does not let you in here").await;
    });
}

#[test]
fn without_scripts_the_passkey_page_says_what_else_there_is() {
    journey(false, "127.0.0.1", async |_: &House, browser: &Client, base: &str| {
        browser.goto(&format!("{base}/login?by=passkey")).await.expect("the page");
        shows(browser, "Passkeys need JavaScript").await;
        picture(browser, "account-7-passkey-without-scripts").await;
        click(browser, "main a[href='/login']").await;
        shows(browser, "Mail me a code instead").await;
    });
}
