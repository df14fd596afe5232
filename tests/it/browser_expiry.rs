//! A message whose time is over, or that its sender has taken back, in a real browser.

use crate::{
    browser::{page, register, shows, text},
    support::{
        browser::Driver,
        house::{House, link_in},
        smtp,
    },
};
use fantoccini::{Client, Locator};
use std::{
    fs,
    time::{Duration, Instant},
};

const ADA: &str = "ada@stranger.test";
const GONE: &str = "This message is no longer available";

fn message(house: &House, subject: &str) -> String {
    let text = format!("Subject: {subject}\r\n\r\nThe text of {subject}.\r\n");
    smtp::send(house.gateway.smtp, "doctor@example.org", &[ADA], text.as_bytes())
}

/// Opens the link until the message is gone: it may be there at first.
async fn opens_in_vain(browser: &Client, link: &str) {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        browser.goto(link).await.expect("a page");
        let shown = text(browser).await.expect("words");
        if shown.contains(GONE) {
            assert!(shown.contains("Please ask the sender if you still need it."), "{shown}");
            assert!(!shown.contains("The text of"), "{shown}");
            return;
        }
        assert!(Instant::now() < end, "still there: {shown:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn subjects(browser: &Client, base: &str) -> Vec<String> {
    browser.goto(&format!("{base}/inbox")).await.expect("the inbox");
    let mut subjects = Vec::new();
    for link in browser.find_all(Locator::Css("a.subject")).await.expect("links") {
        subjects.push(link.text().await.expect("text"));
    }
    subjects
}

fn journey(scripts: bool) {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut house = House::open(dir.path(), &[], |_| {});
    let base = format!("http://{}", house.gateway.portal);
    let link = |house: &House, n| format!("{base}{}", link_in(&house.mail_to_stranger(n).content));
    let kept = message(&house, "one to keep");
    let first = link(&house, 1);
    let downloads = dir.path().join("downloads");
    fs::create_dir_all(&downloads).expect("folder");
    let driver = Driver::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let browser = driver.browser(scripts, &downloads).await;
        register(&browser, &house, &first).await;
        shows(&browser, "The text of one to keep.").await;

        let back = message(&house, "one taken back");
        let link_back = link(&house, 3);
        browser.goto(&link_back).await.expect("the message");
        shows(&browser, "The text of one taken back.").await;
        assert_eq!(subjects(&browser, &base).await, ["one taken back", "one to keep"]);
        assert!(house.gateway.ask(&["vault", "recall", &back]).status.success());
        opens_in_vain(&browser, &link_back).await;
        assert_eq!(subjects(&browser, &base).await, ["one to keep"]);

        // From now on messages are kept for a moment.
        let file = house.gateway.dir.join("restante.toml");
        let text = fs::read_to_string(&file).expect("the configuration");
        let text = text.replace("[portal]\n", "[portal]\nretention = \"1s\"\n");
        fs::write(&file, text).expect("written");
        house.gateway.stop();
        house.gateway.run();
        message(&house, "one of a moment");
        let late = link(&house, 4);
        opens_in_vain(&browser, &late).await;
        page(&browser, "expiry-1-gone").await;
        assert_eq!(subjects(&browser, &base).await, ["one to keep"]);
        let inbox = text_of(&browser).await;
        assert!(!inbox.contains("one of a moment") && inbox.contains("no longer available"));
        page(&browser, "expiry-2-inbox").await;

        // Whoever is not signed in reads the same; what is kept is kept.
        browser.delete_all_cookies().await.expect("forgotten");
        opens_in_vain(&browser, &late).await;
        browser.goto(&first).await.expect("the link");
        shows(&browser, "Sign in to read").await;
        browser.close().await.expect("closed");
    });
    assert_eq!(house.gateway.json(&["vault", "show", &kept])["recipients"][0]["state"], "opened");
}

async fn text_of(browser: &Client) -> String {
    text(browser).await.expect("words")
}

#[test]
fn what_is_over_says_so_with_scripts() {
    journey(true);
}

#[test]
fn what_is_over_says_so_without_scripts() {
    journey(false);
}
