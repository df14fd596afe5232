//! A recipient's way in a real browser: from the notice's link to the opened message and its
//! attachment, with scripts and without.

use crate::support::{
    browser::Driver,
    house::{House, code_in, link_in},
    smtp, wait_for,
};
use fantoccini::{Client, Locator, elements::Element, error::CmdError};
use mail_parser::MimeHeaders;
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

const MESSAGE: &str = "From: Doctor Example <doctor@example.org>\r\nTo: ada@stranger.test\r\n\
    Subject: Your appointment\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
    --b\r\nContent-Type: multipart/alternative; boundary=a\r\n\r\n\
    --a\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nDear Ada,\r\n\r\nplease come on Monday at nine.\r\n\
    Directions: https://example.org/way\r\n\r\nKind regards\r\n\
    --a\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>Dear Ada,</p><p>please come on <b>Monday</b> at nine.</p>\
    <script>document.title='hacked'</script>\r\n--a--\r\n\
    --b\r\nContent-Type: text/csv\r\nContent-Disposition: attachment; filename=\"plan.csv\"\r\n\r\nday,hour\r\nMonday,9\r\n\
    --b--\r\n";
const PASSWORD: &str = "correct horse battery";

#[test]
fn from_the_link_to_the_attachment_with_scripts() {
    walk(true);
}

#[test]
fn from_the_link_to_the_attachment_without_scripts() {
    walk(false);
}

#[test]
fn a_reply_with_three_files_and_forwarding_with_scripts() {
    write(true);
}

#[test]
fn a_reply_with_three_files_and_forwarding_without_scripts() {
    write(false);
}

fn write(scripts: bool) {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[], |_| {});
    let to = "ada@stranger.test";
    smtp::send(house.gateway.smtp, "doctor@example.org", &[to], MESSAGE.as_bytes());
    let notice = house.mail_to_stranger(1);
    let downloads = dir.path().join("downloads");
    fs::create_dir_all(&downloads).expect("folder");
    let files: Vec<_> = ["one.txt", "zwei ü.pdf", "three.bin"]
        .iter()
        .map(|name| {
            let path = dir.path().join(name);
            fs::write(&path, format!("content of {name}").repeat(5000)).expect("written");
            path
        })
        .collect();
    let driver = Driver::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let browser = driver.browser(scripts, &downloads).await;
        let link = format!("http://{}{}", house.gateway.portal, link_in(&notice.content));
        register(&browser, &house, &link).await;
        shows(&browser, "please come on Monday at nine.").await;
        answer(&browser, &files).await;
        forward(&browser, &house, &link).await;
        browser.close().await.expect("closed");
    });
    let mail = wait_for("the reply inside", || house.inside.messages().first().cloned());
    assert_eq!(
        (mail.from.as_str(), mail.to.as_slice()),
        ("<ada@stranger.test>", &["<doctor@example.org>".to_owned()][..])
    );
    let reply = mail_parser::MessageParser::new().parse(&mail.content).expect("a message");
    let parts: Vec<_> = reply.attachments().collect();
    assert_eq!(parts.len(), 3);
    for (part, path) in parts.iter().zip(&files) {
        assert_eq!(part.attachment_name(), path.file_name().and_then(|n| n.to_str()));
        assert!(part.contents() == fs::read(path).expect("the file"));
    }
    let mail = wait_for("what was forwarded", || house.inside.messages().get(1).cloned());
    assert_eq!(mail.to, ["<nurse@example.org>"]);
}

/// Reply with files, then look at Sent.
async fn answer(browser: &Client, files: &[std::path::PathBuf]) {
    click(browser, "a[href$='/reply']").await;
    let subject = field(browser, "subject").await.prop("value").await.expect("value");
    assert_eq!(subject.as_deref(), Some("Re: Your appointment"));
    field(browser, "body").await.send_keys("I will be there.").await.expect("typed");
    let paths: Vec<_> = files.iter().map(|path| path.display().to_string()).collect();
    field(browser, "files").await.send_keys(&paths.join("\n")).await.expect("chosen");
    picture(browser, "6-reply").await;
    submit(browser).await;
    shows(browser, "I will be there.").await;
    picture(browser, "7-sent-message").await;
    click(browser, "a[href='/sent']").await;
    shows(browser, "Re: Your appointment").await;
    picture(browser, "8-sent").await;
}

/// Forward to somebody outside, who is refused, then to one inside.
async fn forward(browser: &Client, house: &House, link: &str) {
    browser.goto(link).await.expect("the message opens again");
    shows(browser, "This conversation").await;
    picture(browser, "9-conversation").await;
    click(browser, "a[href$='/forward']").await;
    field(browser, "to").await.send_keys("friend@else.test").await.expect("typed");
    field(browser, "body").await.send_keys("Please look at this.").await.expect("typed");
    browser
        .find(Locator::Css("main form button"))
        .await
        .expect("a button")
        .click()
        .await
        .expect("clicked");
    shows(browser, "friend@else.test is not an address of").await;
    picture(browser, "10-refused").await;
    let kept = field(browser, "body").await.prop("value").await.expect("value");
    assert_eq!(kept.as_deref(), Some("Please look at this."));
    assert!(house.inside.messages().len() <= 1, "nothing went");
    let to = field(browser, "to").await;
    to.clear().await.expect("cleared");
    to.send_keys("nurse@example.org").await.expect("typed");
    submit(browser).await;
    shows(browser, "Please look at this.").await;
}

fn walk(scripts: bool) {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[], |_| {});
    let to = "ada@stranger.test";
    smtp::send(house.gateway.smtp, "doctor@example.org", &[to], MESSAGE.as_bytes());
    let notice = house.mail_to_stranger(1);
    let downloads = dir.path().join("downloads");
    fs::create_dir_all(&downloads).expect("folder");
    let driver = Driver::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let browser = driver.browser(scripts, &downloads).await;
        let link = format!("http://{}{}", house.gateway.portal, link_in(&notice.content));
        register(&browser, &house, &link).await;
        read(&browser, &downloads).await;
        sign_out_and_in(&browser, to, &link).await;
        browser.close().await.expect("closed");
    });
}

pub async fn register(browser: &Client, house: &House, link: &str) {
    browser.goto(link).await.expect("the link opens");
    picture(browser, "1-register").await;
    for (name, text) in [
        ("first_name", "Ada"),
        ("last_name", "Reader"),
        ("password", PASSWORD),
        ("password_confirm", PASSWORD),
    ] {
        field(browser, name).await.send_keys(text).await.expect("typed");
    }
    field(browser, "accept_terms").await.click().await.expect("ticked");
    submit(browser).await;
    let mail = house.mail_to_stranger(2);
    picture(browser, "2-code").await;
    field(browser, "code").await.send_keys(&code_in(&mail.content)).await.expect("typed");
    submit(browser).await;
}

async fn read(browser: &Client, downloads: &Path) {
    shows(browser, "please come on Monday at nine.").await;
    let title = browser.title().await.expect("title");
    assert!(title.contains("Your appointment"), "{title}");
    picture(browser, "3-message").await;
    let link = Locator::Css("a[href$='/attachments/1']");
    browser.find(link).await.expect("the attachment").click().await.expect("clicked");
    let file = downloads.join("plan.csv");
    let content =
        wait_for("the download", || fs::read_to_string(&file).ok().filter(|text| !text.is_empty()));
    assert_eq!(content, "day,hour\r\nMonday,9");
}

async fn sign_out_and_in(browser: &Client, address: &str, link: &str) {
    click(browser, "form[action='/logout'] button").await;
    browser.goto(link).await.expect("the link opens again");
    let filled = field(browser, "email").await.prop("value").await.expect("value");
    assert_eq!(filled.as_deref(), Some(address));
    picture(browser, "4-sign-in").await;
    field(browser, "password").await.send_keys(PASSWORD).await.expect("typed");
    submit(browser).await;
    shows(browser, "please come on Monday at nine.").await;
    let base = link.split("/m/").next().expect("a base").to_owned();
    browser.goto(&format!("{base}/inbox")).await.expect("the inbox");
    shows(browser, "Your appointment").await;
    picture(browser, "5-inbox").await;
}

pub async fn field(browser: &Client, name: &str) -> Element {
    let found = browser.wait().for_element(Locator::Css(&format!("[name='{name}']"))).await;
    found.unwrap_or_else(|e| panic!("no field {name}: {e}"))
}

pub async fn submit(browser: &Client) {
    click(browser, "main form button[type='submit'], main form button:not([type])").await;
}

/// Presses a button and waits for the page that it leads to: the driver may answer before that.
pub async fn click(browser: &Client, css: &str) {
    let before = browser.current_url().await.expect("url");
    browser.find(Locator::Css(css)).await.expect("a button").click().await.expect("clicked");
    let end = Instant::now() + Duration::from_secs(60);
    while browser.current_url().await.expect("url") == before {
        assert!(Instant::now() < end, "{css} led nowhere: {:?}", text(browser).await);
        tokio::task::yield_now().await;
    }
}

/// Waits until the page's main part says `words`.
pub async fn shows(browser: &Client, words: &str) {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let shown = text(browser).await;
        if shown.as_ref().is_ok_and(|shown| shown.contains(words)) {
            return;
        }
        assert!(Instant::now() < end, "{words:?} is not in {shown:?}");
    }
}

/// The words of the page's main part; an error while another page takes its place.
pub async fn text(browser: &Client) -> Result<String, CmdError> {
    browser.find(Locator::Css("main")).await?.text().await
}

/// Pictures of the pages go where `RESTANTE_PICTURES` points, for people to look at.
pub async fn picture(browser: &Client, name: &str) {
    if let Some(folder) = std::env::var_os("RESTANTE_PICTURES") {
        let png = browser.screenshot().await.expect("a picture");
        fs::create_dir_all(&folder).expect("folder");
        fs::write(Path::new(&folder).join(format!("{name}.png")), png).expect("written");
    }
}
