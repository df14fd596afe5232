//! Files in a real browser. With scripts they go ahead of their letter: their progress is shown, a lost
//! connection is waited for, and a page that was left is no loss. Without scripts the form brings them
//! along. Either way a gigabyte is nothing special.

use crate::{
    browser::{SEND, click, field, page, picture, press, shows, shows_within, submit},
    support::{
        browser::{Driver, Network},
        house::House,
        http::Visitor,
        parameter,
        sink::Manner,
        smtp, wait_for, wait_minutes,
    },
    writing::Pattern,
};
use fantoccini::{Client, Locator, wd::TimeoutConfiguration};
use mail_parser::{MessageParser, MimeHeaders};
use serde_json::Value;
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

const ADA: &str = "ada@stranger.test";
const PASSWORD: &str = "correct horse battery";
const MESSAGE: &[u8] = b"Subject: Your appointment\r\n\r\nPlease come on Monday.\r\n";

/// Bytes of the largest file, and how many of them go in a second.
const LARGE: usize = 6_000_000;
const SLOW: u64 = 500_000;

/// Ada, who has registered and will write.
struct Scene {
    house: House,
    visitor: Visitor,
    base: String,
    dir: PathBuf,
}

fn scene(dir: &Path, portal: &str, inside: Manner) -> Scene {
    let house = House::receiving(dir, inside, &[], |s| s.portal = portal.to_owned());
    smtp::send(house.gateway.smtp, "doctor@example.org", &[ADA], MESSAGE);
    let notice = house.mail_to_stranger(1);
    let mut visitor = Visitor::new(house.gateway.portal);
    house.register(&mut visitor, &notice, PASSWORD);
    let base = format!("http://{}", house.gateway.portal);
    Scene { house, visitor, base, dir: dir.to_owned() }
}

/// Runs a journey that begins at the writing form.
fn journey(scripts: bool, mut scene: Scene, walk: impl AsyncFnOnce(&mut Scene, &Client)) -> Scene {
    let driver = Driver::start();
    let downloads = scene.dir.join("downloads");
    fs::create_dir_all(&downloads).expect("folder");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let browser = driver.browser(scripts, &downloads).await;
        sign_in(&browser, &scene.base).await;
        compose(&browser, &scene.base).await;
        walk(&mut scene, &browser).await;
        browser.close().await.expect("closed");
    });
    scene
}

async fn compose(browser: &Client, base: &str) {
    browser.goto(&format!("{base}/compose")).await.expect("the form");
    field(browser, "to").await.send_keys("nurse@example.org").await.expect("typed");
}

/// Makes a file of that size; its content.
fn file(path: &Path, size: usize) -> Vec<u8> {
    let content: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
    fs::write(path, &content).expect("written");
    content
}

/// The first mail inside has these attachments.
fn arrived(house: &House, files: &[(&str, &[u8])]) {
    let mail = wait_for("the letter", || house.inside.messages().first().cloned());
    let message = MessageParser::new().parse(&mail.content).expect("a message");
    let parts: Vec<_> = message.attachments().collect();
    let names: Vec<_> = parts.iter().filter_map(|part| part.attachment_name()).collect();
    assert_eq!(names, files.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    for (part, (name, content)) in parts.iter().zip(files) {
        assert!(part.contents() == *content, "{name}");
    }
}

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
    let (large, small) = (dir.path().join("scan.bin"), dir.path().join("note.txt"));
    let (content, note) = (file(&large, LARGE), file(&small, 6));
    let scene = scene(dir.path(), "", Manner::default());
    let scene = journey(true, scene, async |_: &mut Scene, browser: &Client| {
        browser.issue_cmd(Network { offline: false, upload: Some(SLOW) }).await.expect("slow");
        choose(browser, &large).await;
        choose(browser, &small).await;
        shows(browser, "Sending scan.bin").await;
        let look = "document.getElementById('files').scrollIntoView({block: 'center'})";
        browser.execute(look, vec![]).await.expect("scrolled");
        picture(browser, "uploads-1-progress").await;
        browser.issue_cmd(Network { offline: true, upload: None }).await.expect("offline");
        shows(browser, "No connection: scan.bin goes on by itself").await;
        picture(browser, "uploads-2-no-connection").await;
        press(browser, SEND).await;
        shows(browser, "as soon as all files have arrived").await;
        picture(browser, "uploads-3-held").await;
        browser.issue_cmd(Network { offline: false, upload: None }).await.expect("online");
        shows(browser, "What became of it").await;
        picture(browser, "uploads-4-sent").await;
    });
    arrived(&scene.house, &[("scan.bin", &content), ("note.txt", &note)]);
}

/// What has come ahead: `GET /uploads`.
fn ahead(visitor: &mut Visitor) -> Vec<Value> {
    let page = visitor.get("/uploads");
    assert_eq!(page.status, 200, "{}", page.text());
    serde_json::from_slice(&page.body).expect("a list")
}

/// Begins a file, leaves the page half-way, comes back and chooses a file of that name and size: the
/// same, or one with another byte at that place and so many seconds younger.
fn chosen_again(another: Option<(usize, u64)>) {
    let dir = tempfile::tempdir().expect("temp dir");
    let (left, again) = (dir.path().join("scan.bin"), dir.path().join("again/scan.bin"));
    let mut content = file(&left, LARGE);
    let (same, (place, seconds)) = (another.is_none(), another.unwrap_or_default());
    if !same {
        content[place] ^= 1;
    }
    fs::create_dir_all(dir.path().join("again")).expect("folder");
    fs::write(&again, &content).expect("written");
    let changed = fs::metadata(&left).and_then(|file| file.modified()).expect("a time");
    let copy = fs::File::options().write(true).open(&again).expect("the file");
    copy.set_modified(changed + Duration::from_secs(seconds)).expect("a time");
    let scene = scene(dir.path(), "", Manner::default());
    let scene = journey(true, scene, async |scene: &mut Scene, browser: &Client| {
        browser.issue_cmd(Network { offline: false, upload: Some(SLOW) }).await.expect("slow");
        choose(browser, &left).await;
        let script =
            "const bar = document.querySelector('#uploads progress'); return bar ? bar.value : 0";
        let come = async || browser.execute(script, vec![]).await.expect("a script").as_f64();
        while come().await.expect("a number") < 500_000.0 {
            shows(browser, "Sending scan.bin").await;
        }
        browser.goto(&format!("{}/inbox", scene.base)).await.expect("the page is left");
        browser.issue_cmd(Network { offline: false, upload: None }).await.expect("fast");
        let half = wait_for("half a file", || ahead(&mut scene.visitor).pop());
        let offset = half["offset"].as_u64().expect("a number");
        assert!(offset > 0 && offset < LARGE as u64, "{half}");

        compose(browser, &scene.base).await;
        choose(browser, &again).await;
        shows(browser, "scan.bin has arrived").await;
        let whole = ahead(&mut scene.visitor);
        let whole: Vec<_> = whole.iter().filter(|one| one["offset"] == LARGE).collect();
        assert_eq!(whole.len(), 1, "{whole:?}");
        assert_eq!(whole[0]["id"] == half["id"], same, "went on: {half}, {whole:?}");
        page(browser, "uploads-5-chosen-again").await;
        submit(browser).await;
        shows(browser, "What became of it").await;
    });
    arrived(&scene.house, &[("scan.bin", &content)]);
}

#[test]
fn a_file_that_is_chosen_again_after_the_page_was_left_goes_on() {
    chosen_again(None);
}

#[test]
fn another_file_of_the_same_name_size_and_time_begins_anew() {
    chosen_again(Some((0, 0)));
}

#[test]
fn a_file_that_was_changed_in_its_middle_meanwhile_begins_anew() {
    chosen_again(Some((LARGE / 2, 1)));
}

#[test]
fn files_that_came_ahead_can_be_unticked_without_scripts() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut scene = scene(dir.path(), "", Manner::default());
    let files: [(&str, &[u8]); 3] =
        [("a.txt", b"first"), ("b.txt", b"second"), ("c.txt", b"third")];
    for (name, content) in files {
        let size = content.len().to_string();
        let begun = scene.visitor.post("/uploads", &[("name", name), ("size", &size)]);
        let told: Value = serde_json::from_slice(&begun.body).expect("JSON");
        let path = format!("/uploads/{}?offset=0", told["id"].as_str().expect("an id"));
        let whole = scene.visitor.stretch(&path, content, content.len() as u64);
        assert_eq!(whole.expect("an answer").status, 200);
    }
    let scene = journey(false, scene, async |_: &mut Scene, browser: &Client| {
        shows(browser, "Files that are here already").await;
        assert_eq!(ticks(browser).await, [false; 3], "they may be of another letter");
        tick(browser, 0).await;
        tick(browser, 1).await;
        let to = field(browser, "to").await;
        to.clear().await.expect("cleared");
        to.send_keys("friend@else.test").await.expect("typed");
        press(browser, SEND).await;
        shows(browser, "friend@else.test is not an address of").await;
        page(browser, "uploads-6-ticked").await;
        assert_eq!(ticks(browser).await, [true, true, false], "as they were");
        tick(browser, 0).await;
        let to = field(browser, "to").await;
        to.clear().await.expect("cleared");
        to.send_keys("nurse@example.org").await.expect("typed");
        submit(browser).await;
        shows(browser, "What became of it").await;
    });
    arrived(&scene.house, &[("b.txt", b"second")]);
    let mut visitor = scene.visitor;
    let left: Vec<_> = ahead(&mut visitor).iter().map(|one| one["name"].clone()).collect();
    assert_eq!(left, ["a.txt", "c.txt"], "what was not sent is still here");
}

async fn boxes(browser: &Client) -> Vec<fantoccini::elements::Element> {
    browser.find_all(Locator::Css("#staged input[name='upload']")).await.expect("boxes")
}

async fn ticks(browser: &Client) -> Vec<bool> {
    let mut ticks = Vec::new();
    for one in boxes(browser).await {
        ticks.push(one.is_selected().await.expect("asked"));
    }
    ticks
}

async fn tick(browser: &Client, which: usize) {
    boxes(browser).await[which].click().await.expect("ticked or unticked");
}

/// `RESTANTE_UPLOAD_MB=1000` makes it a gigabyte (with a release build in `RESTANTE_BIN`: unoptimised it
/// takes its time).
fn large(scripts: bool) {
    let size = parameter("RESTANTE_UPLOAD_MB", 30) * 1_000_000;
    let minutes = 5 + size / 50_000_000;
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("scan.bin");
    let mut out = fs::File::create(&path).expect("a file");
    io::copy(&mut io::BufReader::new(Pattern::of(size)), &mut out).expect("written");
    let manner = Manner { count_only: true, ..Manner::default() };
    let scene = scene(dir.path(), "max_reply_size = \"2 GiB\"", manner);
    let scene = journey(scripts, scene, async |scene: &mut Scene, browser: &Client| {
        let patience = Duration::from_secs(60 * minutes);
        let patience = TimeoutConfiguration::new(None, Some(patience), None);
        browser.update_timeouts(patience).await.expect("patience");
        choose(browser, &path).await;
        press(browser, SEND).await;
        shows_within(browser, minutes, "What became of it").await;
        press(browser, "a[href$='/attachments/1']").await;
        let copy = scene.dir.join("downloads/scan.bin");
        let length = || fs::metadata(&copy).ok().map(|file| file.len());
        let length = wait_minutes(minutes, "the download", || length().filter(|&n| n > 0));
        assert_eq!(length, size);
        let mut compare = Pattern::of(size);
        let mut copy = fs::File::open(&copy).expect("the copy");
        io::copy(&mut copy, &mut compare).expect("the same bytes");
        assert!(compare.is_whole());
    });
    let inside = &scene.house.inside;
    let mail = wait_minutes(minutes, "the letter inside", || inside.messages().pop());
    let encoded = size / 57 * 78;
    assert!((encoded..encoded + 5000).contains(&mail.size), "{} of {encoded}", mail.size);
    assert_eq!(mail.to, ["<nurse@example.org>"]);
    let peak = scene.house.gateway.peak_memory();
    println!("peak memory {} MiB", peak / 1024);
    assert!(peak < 100 * 1024, "peak memory {peak} KiB");
}

#[test]
fn a_large_file_goes_up_and_comes_down_with_scripts() {
    large(true);
}

#[test]
fn a_large_file_goes_up_and_comes_down_without_scripts() {
    large(false);
}
