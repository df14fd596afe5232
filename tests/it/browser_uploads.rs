//! Files that go ahead of their letter, in a real browser: their progress is shown, a lost connection is
//! waited for, and the letter follows by itself.

use crate::{
    browser::{click, field, picture, shows},
    support::{
        browser::{Driver, Network},
        house::House,
        http::Visitor,
        smtp, wait_for,
    },
};
use fantoccini::{Client, Locator};
use mail_parser::{MessageParser, MimeHeaders};
use std::{fs, path::Path};

const ADA: &str = "ada@stranger.test";
const PASSWORD: &str = "correct horse battery";
const MESSAGE: &[u8] = b"Subject: Your appointment\r\n\r\nPlease come on Monday.\r\n";

/// Bytes of the largest file, and how many of them go in a second.
const LARGE: usize = 6_000_000;
const SLOW: u64 = 2_000_000;

async fn sign_in(browser: &Client, base: &str) {
    browser.goto(&format!("{base}/login")).await.expect("the sign-in page");
    field(browser, "email").await.send_keys(ADA).await.expect("typed");
    field(browser, "password").await.send_keys(PASSWORD).await.expect("typed");
    click(browser, "main form button").await;
    shows(browser, "Your appointment").await;
}

async fn choose(browser: &Client, path: &Path) {
    let files = field(browser, "files").await;
    files.send_keys(&path.display().to_string()).await.expect("chosen");
}

#[test]
fn an_upload_waits_for_the_connection_and_the_letter_for_the_upload() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[], |_| {});
    smtp::send(house.gateway.smtp, "doctor@example.org", &[ADA], MESSAGE);
    let notice = house.mail_to_stranger(1);
    house.register(&mut Visitor::new(house.gateway.portal), &notice, PASSWORD);
    let content: Vec<u8> = (0..LARGE).map(|n| (n % 251) as u8).collect();
    let (large, small) = (dir.path().join("scan.bin"), dir.path().join("note.txt"));
    fs::write(&large, &content).expect("written");
    fs::write(&small, "a note").expect("written");
    let driver = Driver::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let browser = driver.browser(true, dir.path()).await;
        let base = format!("http://{}", house.gateway.portal);
        sign_in(&browser, &base).await;
        browser.goto(&format!("{base}/compose")).await.expect("the form");
        field(&browser, "to").await.send_keys("nurse@example.org").await.expect("typed");
        browser.issue_cmd(Network { offline: false, upload: Some(SLOW) }).await.expect("slow");
        choose(&browser, &large).await;
        choose(&browser, &small).await;
        shows(&browser, "Sending scan.bin").await;
        let look = "document.getElementById('files').scrollIntoView({block: 'center'})";
        browser.execute(look, vec![]).await.expect("scrolled");
        picture(&browser, "uploads-1-progress").await;
        browser.issue_cmd(Network { offline: true, upload: None }).await.expect("offline");
        shows(&browser, "No connection: scan.bin goes on by itself").await;
        picture(&browser, "uploads-2-no-connection").await;
        let send = browser.find(Locator::Css("main form button[type=submit]")).await;
        send.expect("a button").click().await.expect("pressed");
        shows(&browser, "as soon as all files have arrived").await;
        picture(&browser, "uploads-3-held").await;
        browser.issue_cmd(Network { offline: false, upload: None }).await.expect("online");
        shows(&browser, "What became of it").await;
        picture(&browser, "uploads-4-sent").await;
        browser.close().await.expect("closed");
    });
    let mail = wait_for("the letter", || house.inside.messages().first().cloned());
    let message = MessageParser::new().parse(&mail.content).expect("a message");
    let parts: Vec<_> = message.attachments().collect();
    let names: Vec<_> = parts.iter().map(|part| part.attachment_name()).collect();
    assert_eq!(names, [Some("scan.bin"), Some("note.txt")]);
    assert!(parts[0].contents() == content);
}
