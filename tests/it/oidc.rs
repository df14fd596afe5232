//! Sign-in by an account elsewhere, through the whole gateway and a real browser.

use crate::{
    browser::{click, picture, shows},
    support::{
        browser::Driver,
        free_port,
        house::{House, link_in},
        http::Visitor,
        op::{Op, SECRET},
        smtp,
    },
};
use std::path::Path;

const MESSAGE: &[u8] = b"Subject: Your appointment\r\n\r\nPlease come on Monday.\r\n";
const ADA: &str = "ada@stranger.test";

/// A message for Ada, who has no account yet, and a provider that knows her; its link.
pub fn scene(dir: &Path) -> (House, Op, String) {
    std::fs::create_dir_all(dir.join("op")).expect("folder");
    let mut op = None;
    let house = House::open(dir, &[], |settings| {
        let anchors = settings.anchors.clone().expect("anchors");
        let pki = crate::support::pki::Pki::new(&dir.join("op"));
        // The house's own authority, and the provider's.
        let both =
            [anchors.clone(), pki.anchors.clone()].map(|file| std::fs::read(file).expect("PEM"));
        std::fs::write(&anchors, both.concat()).expect("written");
        let at = format!("127.0.0.1:{}", free_port(&["127.0.0.1"])).parse().expect("address");
        let started = Op::start(at, &pki.leaf("127.0.0.1"), ADA);
        settings.portal = started.configuration(dir);
        op = Some(started);
    });
    smtp::send(house.gateway.smtp, "doctor@example.org", &[ADA], MESSAGE);
    let link = link_in(&house.mail_to_stranger(1).content);
    (house, op.expect("a provider"), link)
}

fn journey(scripts: bool) {
    let dir = tempfile::tempdir().expect("temp dir");
    let (house, mut op, link) = scene(dir.path());
    let downloads = dir.path().join("downloads");
    std::fs::create_dir_all(&downloads).expect("folder");
    let driver = Driver::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let browser = driver.browser(scripts, &downloads).await;
        let base = format!("http://{}", house.gateway.portal);
        // The first visit, from the link in the notice.
        browser.goto(&format!("{base}{link}")).await.expect("the link");
        shows(&browser, "Sign in with Example ID").await;
        picture(&browser, "oidc-1-first-visit").await;
        click(&browser, "form[action='/login/oidc'] button").await;
        shows(&browser, &format!("I am {ADA}")).await;
        click(&browser, "button").await;
        shows(&browser, "Please come on Monday").await;
        click(&browser, "form[action='/logout'] button").await;
        // The second, from the sign-in page.
        shows(&browser, "Sign in with Example ID").await;
        picture(&browser, "oidc-2-sign-in").await;
        click(&browser, "form[action='/login/oidc'] button").await;
        shows(&browser, &format!("I am {ADA}")).await;
        click(&browser, "button").await;
        shows(&browser, "Your appointment").await;
        // An answer of the provider that this browser has used already.
        browser
            .goto(&format!("{base}/login/oidc/callback?code=code-0&state=x"))
            .await
            .expect("a page");
        shows(&browser, "Sign in another way").await;
        picture(&browser, "oidc-3-in-vain").await;
        browser.close().await.expect("closed");
    });
    let log = house.gateway.log_text();
    assert!(!log.contains(SECRET) && !log.contains("ada@"), "neither secrets nor names");
    let shown = house.gateway.ask(&["config", "show"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("op.secret"));
    assert!(!String::from_utf8_lossy(&shown.stdout).contains(SECRET));
    let accounts = house.gateway.json(&["account", "list"]);
    assert_eq!(
        (&accounts[0]["name"], &accounts[0]["password"]),
        (&"Ada Reader".into(), &false.into())
    );
    op.stop();
}

#[test]
fn an_account_elsewhere_with_scripts() {
    journey(true);
}
#[test]
fn an_account_elsewhere_without_scripts() {
    journey(false);
}

#[test]
fn a_provider_that_is_down_leaves_the_other_ways_and_a_missing_secret_is_found() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (house, mut op, link) = scene(dir.path());
    let state = || house.gateway.json(&["status"])["sign_in"][0]["state"].clone();
    assert_eq!(state(), "not asked yet");
    op.stop();
    let mut visitor = Visitor::new(house.gateway.portal);
    let down = visitor.post("/login/oidc", &[("provider", "Example ID")]);
    assert_eq!(down.status, 503);
    assert!(down.text().contains("Sign in another way"), "{}", down.text());
    assert!(state().to_string().contains("127.0.0.1"), "{}", state());
    assert_eq!(visitor.get(&link).status, 200, "all else goes on");
    std::fs::write(dir.path().join("op.secret"), "\n").expect("written");
    let check = house.gateway.ask(&["config", "check"]);
    assert_eq!(check.status.code(), Some(78));
    let said = [check.stdout, check.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("op.secret: no client secret"), "{said}");
}
