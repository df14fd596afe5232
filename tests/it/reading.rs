//! Reading in a real browser, with scripts and without: a message with its formatting in its frame,
//! pictures in the viewer, search. And all messages in one file, read by another program.

use crate::{
    browser::{click, field, picture, register, shows, text},
    support::{
        browser::Driver,
        house::{House, link_in},
        http::Visitor,
        smtp, wait_for,
    },
};
use data_encoding::BASE64;
use fantoccini::{Client, Locator, error::CmdError};
use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

const ADA: &str = "ada@stranger.test";

/// A PNG of one colour.
pub fn png(width: u32, height: u32, grey: u8) -> Vec<u8> {
    let chunk = |name: &[u8; 4], data: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(name);
        crc.update(data);
        let length = u32::try_from(data.len()).expect("short").to_be_bytes();
        [length.as_slice(), name, data, &crc.sum().to_be_bytes()].concat()
    };
    let row = [vec![0], vec![grey; width as usize]].concat();
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &row.repeat(height as usize)).expect("packed");
    let packed = packed.finish().expect("packed");
    let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
    let head = [size.as_slice(), &[8, 0, 0, 0, 0]].concat();
    [
        b"\x89PNG\r\n\x1a\n".as_slice(),
        &chunk(b"IHDR", &head),
        &chunk(b"IDAT", &packed),
        &chunk(b"IEND", b""),
    ]
    .concat()
}

/// Base64 in lines.
fn lines(bytes: &[u8]) -> String {
    let text = BASE64.encode(bytes);
    let all: Vec<_> =
        text.as_bytes().chunks(76).map(|l| std::str::from_utf8(l).expect("ASCII")).collect();
    all.join("\r\n")
}

fn message() -> String {
    let html = "<h1>Your X-rays</h1><p style=\"color:#135\">Dear Ada, here they are. <img src=\"cid:seal@example.org\" alt=\"our seal\" width=60></p>\
        <p>Pay at <a href=\"https://evil.example/pay\">https://clinic.example/pay</a> or \
        <a href=\"https://clinic.example/help\">read more</a>.</p>\
        <img src=\"https://tracker.example/pixel.gif\" alt=\"a pixel\">\
        <script>document.title='hacked'</script>";
    let part = |kind: &str, more: &str, bytes: &[u8]| {
        format!(
            "Content-Type: {kind}\r\n{more}Content-Transfer-Encoding: base64\r\n\r\n{}\r\n",
            lines(bytes)
        )
    };
    let named = |name: &str| format!("Content-Disposition: attachment; filename=\"{name}\"\r\n");
    format!(
        "From: Doctor Example <doctor@example.org>\r\nTo: {ADA}\r\nSubject: Your X-rays\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=m\r\n\r\n\
         --m\r\nContent-Type: multipart/related; boundary=r\r\n\r\n\
         --r\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{html}\r\n\
         --r\r\n{}--r--\r\n--m\r\n{}--m\r\n{}--m\r\n{}--m--\r\n",
        part(
            "image/png",
            "Content-ID: <seal@example.org>\r\nContent-Disposition: inline; filename=\"seal.png\"\r\n",
            &png(60, 60, 90)
        ),
        part("image/png", &named("left hand.png"), &png(2_400, 1_600, 200)),
        part("image/png", &named("right hand.png"), &png(800, 1_200, 120)),
        part("image/png", &named("damaged.png"), b"\x89PNG\r\n\x1a\nand no more"),
    )
}

#[test]
fn formatting_pictures_and_search_with_scripts() {
    walk(true);
}

#[test]
fn formatting_pictures_and_search_without_scripts() {
    walk(false);
}

fn walk(scripts: bool) {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[], |_| {});
    smtp::send(house.gateway.smtp, "doctor@example.org", &[ADA], message().as_bytes());
    let notice = house.mail_to_stranger(1);
    let downloads = dir.path().join("downloads");
    fs::create_dir_all(&downloads).expect("folder");
    let driver = Driver::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let browser = driver.browser(scripts, &downloads).await;
        let link = format!("http://{}{}", house.gateway.portal, link_in(&notice.content));
        register(&browser, &house, &link).await;
        shows(&browser, "Dear Ada, here they are.").await;
        let said = text(&browser).await.expect("text");
        assert!(said.contains("https://clinic.example/pay <https://evil.example/pay>"), "{said}");
        frame(&browser).await;
        viewer(&browser).await;
        search(&browser).await;
        browser.close().await.expect("closed");
    });
}

/// How wide a picture is that the browser has drawn; it has none while it loads, and 0 for a broken
/// one (`alt` stands there then).
async fn drawn(browser: &Client, css: &str) -> u64 {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let image = browser.find(Locator::Css(css)).await.expect("a picture");
        // A property that is a number is no text, as the driver's client sees it.
        let width = match image.prop("naturalWidth").await {
            Err(CmdError::NotW3C(width)) => width.as_u64().unwrap_or_default(),
            other => panic!("no width: {other:?}"),
        };
        if width > 0 || Instant::now() > end {
            return width;
        }
    }
}

/// The frame: formatting, a picture of ours, labelled links, no scripts, no way out.
async fn frame(browser: &Client) {
    browser
        .find(Locator::Css("details.formatted summary"))
        .await
        .expect("a frame")
        .click()
        .await
        .expect("opened");
    let element = browser.find(Locator::Css("iframe")).await.expect("a frame");
    element.clone().enter_frame().await.expect("inside");
    let end = Instant::now() + Duration::from_secs(60);
    let body = loop {
        let found = browser.find(Locator::Css("body")).await;
        let body = match found {
            Ok(body) => body.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        };
        if body.contains("Dear Ada") {
            break body;
        }
        assert!(Instant::now() < end, "the frame stays empty: {body:?}");
    };
    assert!(body.contains("https://clinic.example/pay[evil.example]"), "{body}");
    assert!(body.contains("read more[clinic.example]"), "{body}");
    assert_eq!(drawn(browser, "img[alt='our seal']").await, 60);
    let pixel = browser.find(Locator::Css("img[alt='a pixel']")).await.expect("its words");
    assert_eq!(pixel.attr("src").await.expect("attribute"), None);
    browser.enter_parent_frame().await.expect("outside");
    assert!(browser.title().await.expect("title").starts_with("Your X-rays"));
    part(browser, "iframe", "20-formatted").await;
    // The frame has come into view by now, and is painted.
    picture(browser, "20-formatted").await;
}

/// From the small picture to the large one, to the next and back, and the download.
async fn viewer(browser: &Client) {
    let small = "a.thumbnail[href$='/attachments/2/view'] img";
    let image = browser.find(Locator::Css(small)).await.expect("a small picture");
    assert_eq!(image.attr("alt").await.expect("alt").as_deref(), Some("View left hand.png"));
    image.click().await.expect("clicked");
    shows(browser, "Picture 2 of 4").await;
    assert_eq!(drawn(browser, "figure img").await, 1_800, "made smaller");
    picture(browser, "21-picture").await;
    click(browser, "a[rel='next']").await;
    shows(browser, "Picture 3 of 4").await;
    assert_eq!(drawn(browser, "figure img").await, 800, "as it is");
    // By keyboard alone.
    let next = browser.find(Locator::Css("a[rel='next']")).await.expect("next");
    next.send_keys("\u{e007}").await.expect("Enter");
    shows(browser, "Picture 4 of 4").await;
    picture(browser, "22-damaged").await;
    assert!(browser.find(Locator::Css("a[rel='next']")).await.is_err(), "the last");
    click(browser, "a[rel='prev']").await;
    shows(browser, "right hand.png").await;
    click(browser, ".back a").await;
    shows(browser, "Dear Ada, here they are.").await;
    drawn(browser, small).await;
    part(browser, ".files", "23-thumbnails").await;
}

/// A picture of a part of the page, for people to look at.
async fn part(browser: &Client, css: &str, name: &str) {
    if let Some(folder) = std::env::var_os("RESTANTE_PICTURES") {
        let element = browser.find(Locator::Css(css)).await.expect("a part");
        let png = element.screenshot().await.expect("a picture");
        fs::create_dir_all(&folder).expect("folder");
        fs::write(std::path::Path::new(&folder).join(format!("{name}.png")), png).expect("written");
    }
}

async fn search(browser: &Client) {
    click(browser, "nav a[href='/inbox']").await;
    picture(browser, "24-inbox").await;
    field(browser, "q").await.send_keys("x-rays hand\u{e007}").await.expect("typed");
    shows(browser, "Searched 1 of 1 messages").await;
    shows(browser, "Found in: subject, names of attachments").await;
    picture(browser, "25-search").await;
    click(browser, "a.subject").await;
    shows(browser, "Dear Ada, here they are.").await;
    click(browser, "nav a[href='/account']").await;
    shows(browser, "Your messages as a file").await;
}

#[test]
fn all_messages_in_one_file_as_another_program_reads_it() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[], |_| {});
    let long = "From the start\r\n>From within\r\n".repeat(30_000);
    let mails = [
        "From: Doctor <doctor@example.org>\r\nSubject: one\r\n\r\nFrom here on\r\n>From there\r\n\r\nFrom\r\n".to_owned(),
        format!("From: Doctor <doctor@example.org>\r\nSubject: two\r\n\r\n{long}no end"),
        message(),
    ];
    smtp::send(house.gateway.smtp, "doctor@example.org", &[ADA], mails[0].as_bytes());
    let notice = house.mail_to_stranger(1);
    let mut visitor = Visitor::new(house.gateway.portal);
    house.register(&mut visitor, &notice, "a long enough password");
    for (n, mail) in mails.iter().enumerate().skip(1) {
        smtp::send(house.gateway.smtp, "doctor@example.org", &[ADA], mail.as_bytes());
        house.mail_to_stranger(n + 2);
    }
    let letter = [("to", "doctor@example.org"), ("subject", "four"), ("body", "From me\nto you")];
    assert_eq!(visitor.upload("/compose", &letter, &mut []).status, 303);
    let file = dir.path().join("messages.mbox");
    let mut sink = fs::File::create(&file).expect("created");
    assert_eq!(visitor.download("/account/export.mbox", &mut sink).status, 200);
    // The module splits at the lines before messages, and knows nothing of quoting: what it finds is
    // unquoted here as mboxrd says.
    let program = "import mailbox, re, sys, json\n\
        box, out = mailbox.mbox(sys.argv[1]), []\n\
        for key in box.keys():\n\
        \x20   raw = re.sub(rb'(?m)^>(>*From )', rb'\\1', box.get_bytes(key))\n\
        \x20   out.append([box[key]['Subject'], box[key].get_from(), raw.decode('utf-8')])\n\
        print(json.dumps(out))\n";
    let read = Command::new("/usr/bin/python3")
        .args(["-c", program])
        .arg(&file)
        .output()
        .expect("python3");
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let found: Vec<(String, String, String)> = serde_json::from_slice(&read.stdout).expect("JSON");
    let subjects: Vec<_> = found.iter().map(|(subject, _, _)| subject.as_str()).collect();
    assert_eq!(
        subjects,
        ["Your X-rays", "two", "one", "four"],
        "the newest first, then what was sent"
    );
    for (_, from, _) in &found[..3] {
        assert!(from.starts_with("doctor@example.org "), "{from}");
    }
    for (mail, (subject, _, content)) in mails.iter().rev().zip(&found) {
        let (_, body) = mail.split_once("\r\n\r\n").expect("a body");
        let (_, came) = content.split_once("\n\n").expect("a body");
        let whole = body.replace("\r\n", "\n");
        assert!(
            came.trim_end_matches('\n') == whole.trim_end_matches('\n'),
            "{subject}: {}",
            came.len()
        );
    }
    assert!(found[3].2.contains("From me\nto you"), "{}", found[3].2);
    let inbox = wait_for("the inbox", || Some(visitor.get("/inbox").text()));
    assert!(!inbox.contains("not yet opened"), "what is in the file was opened");
}
