//! A recipient's way in a real browser: from the notice's link to the opened message and its
//! attachment, with scripts and without.

use crate::support::{
    browser::{Driver, PHONE, screen},
    house::{House, code_in, link_in},
    smtp, wait_for,
};
use fantoccini::{Client, Locator, elements::Element, error::CmdError};
use mail_parser::MimeHeaders;
use std::{
    fs,
    path::{Path, PathBuf},
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
const ADA: &str = "ada@stranger.test";
const PASSWORD: &str = "correct horse battery";

#[test]
fn from_the_link_to_the_attachment_with_scripts() {
    visit(true, None, walk);
}

#[test]
fn from_the_link_to_the_attachment_without_scripts() {
    visit(false, None, walk);
}

#[test]
fn a_reply_with_three_files_and_forwarding_with_scripts() {
    visit(true, None, write);
}

#[test]
fn a_reply_with_three_files_and_forwarding_without_scripts() {
    visit(false, None, write);
}

#[test]
fn the_first_visit_on_a_phone_with_scripts() {
    visit(true, Some(PHONE), on_a_phone);
}

#[test]
fn the_first_visit_on_a_phone_without_scripts() {
    visit(false, Some(PHONE), on_a_phone);
}

#[test]
fn a_wrong_code_then_the_right_one_with_scripts() {
    visit(true, None, wrong_code);
}

#[test]
fn a_wrong_code_then_the_right_one_without_scripts() {
    visit(false, None, wrong_code);
}

/// Somebody who has the notice of [`MESSAGE`] and no account yet.
struct Visit {
    house: House,
    browser: Client,
    /// In the notice.
    link: String,
    /// Where downloads go.
    downloads: PathBuf,
    /// The folder of all.
    dir: PathBuf,
}

fn visit(scripts: bool, width: Option<u32>, journey: impl AsyncFnOnce(&Visit)) {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[], |_| {});
    smtp::send(house.gateway.smtp, "doctor@example.org", &[ADA], MESSAGE.as_bytes());
    let notice = house.mail_to_stranger(1);
    let link = format!("http://{}{}", house.gateway.portal, link_in(&notice.content));
    let downloads = dir.path().join("downloads");
    fs::create_dir_all(&downloads).expect("folder");
    let driver = Driver::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let browser = driver.browser(scripts, &downloads).await;
        if let Some(width) = width {
            screen(&browser, width, 640).await;
        }
        let visit = Visit { house, browser, link, downloads, dir: dir.path().to_owned() };
        journey(&visit).await;
        visit.browser.close().await.expect("closed");
    });
}

async fn write(visit: &Visit) {
    let Visit { house, browser, link, .. } = visit;
    let files = files(&visit.dir, &["one.txt", "zwei ü.pdf", "three.bin"]);
    register(browser, house, link).await;
    shows(browser, "please come on Monday at nine.").await;
    answer(browser, &files).await;
    forward(browser, house, link).await;
    arrived(house, &files);
    let mail = wait_for("what was forwarded", || house.inside.messages().get(1).cloned());
    assert_eq!(mail.to, ["<nurse@example.org>"]);
}

/// Files of those names.
fn files(dir: &Path, names: &[&str]) -> Vec<PathBuf> {
    let made = names.iter().map(|name| {
        let path = dir.join(name);
        fs::write(&path, format!("content of {name}").repeat(5000)).expect("written");
        path
    });
    made.collect()
}

/// The reply with these files is the first mail inside.
fn arrived(house: &House, files: &[PathBuf]) {
    let mail = wait_for("the reply inside", || house.inside.messages().first().cloned());
    assert_eq!(
        (mail.from.as_str(), mail.to.as_slice()),
        ("<ada@stranger.test>", &["<doctor@example.org>".to_owned()][..])
    );
    let reply = mail_parser::MessageParser::new().parse(&mail.content).expect("a message");
    let parts: Vec<_> = reply.attachments().collect();
    assert_eq!(parts.len(), files.len());
    for (part, path) in parts.iter().zip(files) {
        assert_eq!(part.attachment_name(), path.file_name().and_then(|n| n.to_str()));
        assert!(part.contents() == fs::read(path).expect("the file"));
    }
}

/// Reply with files, then look at Sent.
async fn answer(browser: &Client, files: &[PathBuf]) {
    click(browser, "a[href$='/reply']").await;
    let subject = field(browser, "subject").await.prop("value").await.expect("value");
    assert_eq!(subject.as_deref(), Some("Re: Your appointment"));
    field(browser, "body").await.send_keys("I will be there.").await.expect("typed");
    let paths: Vec<_> = files.iter().map(|path| path.display().to_string()).collect();
    field(browser, "files").await.send_keys(&paths.join("\n")).await.expect("chosen");
    page(browser, "6-reply").await;
    submit(browser).await;
    shows(browser, "I will be there.").await;
    page(browser, "7-sent-message").await;
    click(browser, "a[href='/sent']").await;
    shows(browser, "Re: Your appointment").await;
    page(browser, "8-sent").await;
}

/// Forward to somebody outside, who is refused, then to one inside.
async fn forward(browser: &Client, house: &House, link: &str) {
    browser.goto(link).await.expect("the message opens again");
    shows(browser, "This conversation").await;
    page(browser, "9-conversation").await;
    click(browser, "a[href$='/forward']").await;
    field(browser, "to").await.send_keys("friend@else.test").await.expect("typed");
    field(browser, "body").await.send_keys("Please look at this.").await.expect("typed");
    press(browser, SEND).await;
    shows(browser, "friend@else.test is not an address of").await;
    page(browser, "10-refused").await;
    let kept = field(browser, "body").await.prop("value").await.expect("value");
    assert_eq!(kept.as_deref(), Some("Please look at this."));
    assert!(house.inside.messages().len() <= 1, "nothing went");
    let to = field(browser, "to").await;
    to.clear().await.expect("cleared");
    to.send_keys("nurse@example.org").await.expect("typed");
    submit(browser).await;
    shows(browser, "Please look at this.").await;
}

async fn walk(visit: &Visit) {
    register(&visit.browser, &visit.house, &visit.link).await;
    read(&visit.browser, &visit.downloads).await;
    sign_out_and_in(&visit.browser, ADA, &visit.link).await;
}

async fn on_a_phone(visit: &Visit) {
    let Visit { house, browser, link, downloads, .. } = visit;
    register(browser, house, link).await;
    let width = browser.execute("return document.documentElement.clientWidth", vec![]).await;
    assert_eq!(width.expect("a width"), PHONE);
    read(browser, downloads).await;
    let files = files(&visit.dir, &["a-picture-of-my-papers-with-quite-a-long-name.txt"]);
    answer(browser, &files).await;
    arrived(house, &files);
}

async fn wrong_code(visit: &Visit) {
    let Visit { house, browser, link, .. } = visit;
    let code = sign_up(browser, house, link).await;
    let wrong = if code == "000000" { "000001" } else { "000000" };
    for wrong in [wrong, "12345"] {
        field(browser, "code").await.send_keys(wrong).await.expect("typed");
        press(browser, SEND).await;
        shows(browser, "This is not the code.").await;
        let again = field(browser, "code").await;
        assert_eq!(again.attr("aria-invalid").await.expect("asked").as_deref(), Some("true"));
        let typed = again.prop("value").await.expect("value");
        assert_eq!(typed.as_deref(), Some(""), "room for the right one");
    }
    page(browser, "11-wrong-code").await;
    assert_eq!(house.stranger.messages().len(), 2, "no other code was mailed");
    field(browser, "code").await.send_keys(&code).await.expect("typed");
    submit(browser).await;
    shows(browser, "please come on Monday at nine.").await;
}

pub async fn register(browser: &Client, house: &House, link: &str) {
    let code = sign_up(browser, house, link).await;
    field(browser, "code").await.send_keys(&code).await.expect("typed");
    submit(browser).await;
}

/// From the link to the page that asks for a code; the code that was mailed.
async fn sign_up(browser: &Client, house: &House, link: &str) -> String {
    browser.goto(link).await.expect("the link opens");
    page(browser, "1-register").await;
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
    page(browser, "2-code").await;
    code_in(&mail.content)
}

async fn read(browser: &Client, downloads: &Path) {
    shows(browser, "please come on Monday at nine.").await;
    let title = browser.title().await.expect("title");
    assert!(title.contains("Your appointment"), "{title}");
    page(browser, "3-message").await;
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
    page(browser, "4-sign-in").await;
    field(browser, "password").await.send_keys(PASSWORD).await.expect("typed");
    submit(browser).await;
    shows(browser, "please come on Monday at nine.").await;
    let base = link.split("/m/").next().expect("a base").to_owned();
    browser.goto(&format!("{base}/inbox")).await.expect("the inbox");
    shows(browser, "Your appointment").await;
    page(browser, "5-inbox").await;
}

pub async fn field(browser: &Client, name: &str) -> Element {
    let found = browser.wait().for_element(Locator::Css(&format!("[name='{name}']"))).await;
    found.unwrap_or_else(|e| panic!("no field {name}: {e}"))
}

/// The button that sends the page's form: not one of a form beside it.
pub const SEND: &str = "main form button:not([form], [type='button'])";

pub async fn submit(browser: &Client) {
    click(browser, SEND).await;
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

/// Presses a button whose page may have the same address as this one.
pub async fn press(browser: &Client, css: &str) {
    browser.find(Locator::Css(css)).await.expect("a button").click().await.expect("pressed");
}

/// Waits until the page's main part says `words`.
pub async fn shows(browser: &Client, words: &str) {
    shows_within(browser, 1, words).await;
}

/// Waits so many minutes for it.
pub async fn shows_within(browser: &Client, minutes: u64, words: &str) {
    let end = Instant::now() + Duration::from_secs(60 * minutes);
    loop {
        let shown = text(browser).await;
        if shown.as_ref().is_ok_and(|shown| shown.contains(words)) {
            return;
        }
        assert!(Instant::now() < end, "{words:?} is not in {shown:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A page that is looked at fits its screen (WCAG 2.2, 1.4.10 and 2.5.8): nothing scrolls sideways, and
/// what is pressed or filled in is 24 pixels wide and high, a box to tick together with its label.
pub async fn page(browser: &Client, name: &str) {
    picture(browser, name).await;
    let script = "const root = document.documentElement;
        const wide = Math.max(root.scrollWidth, document.body.scrollWidth);
        const target = (e) => (e.type === 'checkbox' ? e.labels[0] : e).getBoundingClientRect();
        const parts = 'button, a.button, summary, select, textarea, input:not([type=hidden])';
        const small = [...document.querySelectorAll(parts)].map((e) => [e.outerHTML, target(e)])
          .filter(([, box]) => box.width > 0 && Math.min(box.width, box.height) < 24)
          .map(([html, box]) => `${html} has ${box.width} by ${box.height}`);
        return wide > root.clientWidth ? [`${wide} pixels of ${root.clientWidth}`, ...small] : small;";
    let wrong = browser.execute(script, vec![]).await.expect("a script");
    assert_eq!(wrong, serde_json::json!([]), "{name}");
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
