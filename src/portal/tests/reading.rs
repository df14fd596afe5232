//! What a message looks like, and what comes out of it.
use super::{
    assert_whole_page,
    world::{Browser, Kept, World},
};
use crate::{
    policy::RuleVerdict,
    store::{BodyStore, QueueStore},
};
use data_encoding::BASE64;
use scraper::{Html, Selector};
use std::io::{Cursor, Read};

const ANN: &str = "ann@clinic.example";

async fn opened<'a>(world: &'a World, message: &[u8]) -> (Browser<'a>, Kept) {
    let kept = world.keep(ANN, message).await;
    (world.registered(ANN, &kept).await, kept)
}
/// Lines of 76 characters, as mail programs write them.
fn base64(bytes: &[u8]) -> String {
    let text = BASE64.encode(bytes);
    let lines: Vec<_> =
        text.as_bytes().chunks(76).map(|l| std::str::from_utf8(l).unwrap()).collect();
    lines.join("\r\n")
}
fn with_files(files: &[(&str, &[u8])]) -> String {
    let mut text = "From: a@example.org\r\nSubject: Files\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=b\r\n\r\n\
         --b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nSee attached.\r\n"
        .to_owned();
    for (name, bytes) in files {
        let named = if name.is_empty() { String::new() } else { format!("; filename=\"{name}\"") };
        text += &format!(
            "--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment{named}\r\n\
             Content-Transfer-Encoding: base64\r\n\r\n{}\r\n",
            base64(bytes)
        );
    }
    text + "--b--\r\n"
}

#[tokio::test]
async fn nothing_in_a_message_acts_on_the_page() {
    let world = World::new();
    let evil = "From: \"<script>alert(1)</script>\" <x@example.org>\r\n\
        Subject: </title><script>alert(2)</script><img src=x onerror=alert(3)>\r\n\
        MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
        --b\r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n\
        --c\r\nContent-Type: text/plain\r\n\r\n<script>alert(4)</script> https://a.example/\"onmouseover=\"alert(5)\r\n\
        javascript:alert(6) {{ organization }} {% raw %}\r\n\
        --c\r\nContent-Type: text/html\r\n\r\n<script>alert(7)</script><p onclick=alert(8)>Shown</p>\
        <img src=\"https://track.example/x.gif\"><a href=\"javascript:alert(9)\">x</a>\r\n--c--\r\n\
        --b\r\nContent-Type: text/html; name=\"<b>x.html\"\r\nContent-Disposition: attachment; filename=\"<b onclick=alert(10)>.html\"\r\n\r\n<script>alert(11)</script>\r\n--b--\r\n";
    let (mut browser, kept) = opened(&world, evil.as_bytes()).await;
    for path in ["/inbox".to_owned(), kept.page()] {
        let page = browser.get(&path).await.text();
        assert_whole_page(&page, true);
        for never in ["<script", "<img", "<b onclick", "\"onmouseover=", "href=\"javascript"] {
            assert!(!page.contains(never), "{path}: {never}");
        }
    }
    let page = browser.get(&kept.page()).await.text();
    assert!(page.contains("{{ organization }}"), "a message is no template");
    let link =
        "href=\"https:&#x2f;&#x2f;a.example&#x2f;\" target=\"_blank\" rel=\"noopener noreferrer\"";
    assert!(page.contains(link), "{page}");

    let frame = super::frame::framed(&world, &mut browser, &kept).await;
    assert!(frame.header("content-security-policy").unwrap().starts_with("sandbox"));
    let html = frame.text();
    assert!(html.contains("Shown"));
    for never in ["<script", "alert(", "onclick", "track.example", "javascript:"] {
        assert!(!html.contains(never), "{never}: {html}");
    }
    let file = browser.get(&format!("{}/attachments/1", kept.page())).await;
    assert!(file.header("content-disposition").unwrap().starts_with("attachment; "));
    assert_eq!(file.header("content-type"), Some("application/octet-stream"));
    assert_eq!(file.text(), "<script>alert(11)</script>");
}

#[tokio::test]
async fn why_it_came_stands_in_a_box_and_files_have_buttons_that_name_them() {
    let world = World::new();
    let message = with_files(&[("a report.pdf", b"x"), ("", b"y")]);
    let (mut browser, kept) = opened(&world, message.as_bytes()).await;
    let text = browser.get(&kept.page()).await.text();
    assert_whole_page(&text, true);
    let page = Html::parse_document(&text);
    let all = |css: &str| page.select(&Selector::parse(css).unwrap()).collect::<Vec<_>>();
    let words = |css: &str| all(css).into_iter().flat_map(|e| e.text()).collect::<String>();
    assert_eq!(words("aside[aria-labelledby='why-title'] h2"), "Why this message waited here");
    assert!(words("aside.why p").contains("keeps every message to clinic.example locked"));
    assert_eq!(all("aside.why ~ section [id='text-title']").len(), 1);
    for (number, name) in [(1, "a report.pdf"), (2, "attachment-2")] {
        let button = format!("a.button[download][href$='/attachments/{number}']");
        let [button] = all(&button)[..] else { panic!("{text}") };
        assert_eq!(button.attr("aria-label"), Some(format!("Download {name}").as_str()));
        assert_eq!(button.text().collect::<String>(), "Download", "the name begins with it");
    }
    assert_eq!(all("header nav[aria-label='Main']").len(), 1);
}

#[tokio::test]
async fn html_alone_is_read_as_text_and_long_text_is_cut() {
    let world = World::new();
    let html =
        "Subject: s\r\nContent-Type: text/html\r\n\r\n<p>One &amp; two</p><style>p{}</style>\r\n";
    let (mut browser, kept) = opened(&world, html.as_bytes()).await;
    let page = browser.get(&kept.page()).await.text();
    assert!(page.contains("One &amp; two") && page.contains("<iframe"), "{page}");
    assert!(!page.contains("p{}"));
    browser.post("/logout", &[]).await;

    let mut long = "Subject: s\r\nContent-Type: text/plain\r\n\r\n".to_owned();
    long += &"all work and no play\r\n".repeat(55_000);
    let kept = world.keep(ANN, long.as_bytes()).await;
    let form =
        [("email", ANN), ("password", super::world::PASSWORD), ("token", kept.token.as_str())];
    browser.post("/login", &form).await;
    let page = browser.get(&kept.page()).await;
    assert!(page.text().contains("longer than what is shown"));
    assert!(page.body.len() < 1_200_000, "{}", page.body.len());
    assert!(!page.text().contains("<iframe"), "no HTML, no frame");
    assert_eq!(browser.get(&format!("{}/html", kept.page())).await.status, 404);
    assert_eq!(browser.get(&format!("{}/attachments.zip", kept.page())).await.status, 404);
}

#[tokio::test]
async fn attachments_come_out_whole_one_by_one_and_together() {
    let world = World::new();
    let large: Vec<u8> =
        (0..200_001_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let files: [(&str, &[u8]); 5] = [
        ("scan.pdf", &large),
        ("SCAN.pdf", b"two"),
        ("", b"three"),
        ("scan.pdf", b"four"),
        ("leer", b""),
    ];
    let message = with_files(&files);
    let (mut browser, kept) = opened(&world, message.as_bytes()).await;
    let page = browser.get(&kept.page()).await.text();
    for name in
        ["scan.pdf", "SCAN.pdf", "attachment-3", "leer", "/attachments/5\"", "attachments.zip"]
    {
        assert!(page.contains(name), "{name}");
    }
    for (number, (_, bytes)) in (1..).zip(files) {
        let answer = browser.get(&format!("{}/attachments/{number}", kept.page())).await;
        assert!(answer.whole && answer.body == bytes, "attachment {number}");
    }
    for number in ["0", "6", "-1", "x", "99999999999999999999"] {
        let answer = browser.get(&format!("{}/attachments/{number}", kept.page())).await;
        assert_eq!(answer.status, 404, "{number}");
    }
    let answer = browser.get(&format!("{}/attachments.zip", kept.page())).await;
    assert!(answer.whole);
    assert_eq!(answer.header("content-type"), Some("application/zip"));
    let mut zip = zip::ZipArchive::new(Cursor::new(&answer.body)).unwrap();
    let names = ["scan.pdf", "SCAN (2).pdf", "attachment-3", "scan (3).pdf", "leer"];
    assert_eq!(zip.len(), names.len());
    for (at, (name, (_, bytes))) in names.iter().zip(files).enumerate() {
        let mut file = zip.by_index(at).unwrap();
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        assert_eq!(file.name(), *name);
        assert!(content == bytes, "{name}");
    }
}

#[tokio::test]
async fn the_original_is_byte_identical() {
    let world = World::new();
    let mut message = with_files(&[("a.bin", &[7; 300_000])]).into_bytes();
    message.extend_from_slice(b"trailing \xff bytes after the end");
    let (mut browser, kept) = opened(&world, &message).await;
    let answer = browser.get(&format!("{}/original.eml", kept.page())).await;
    assert!(answer.body == message);
    assert_eq!(answer.header("content-length"), Some(message.len().to_string().as_str()));
    assert!(answer.header("content-disposition").unwrap().contains("message.eml"));
}

#[tokio::test]
async fn the_inbox_goes_on_over_pages() {
    let world = World::new();
    let first = world.keep(ANN, b"Subject: number 0\r\n\r\n\r\n").await;
    let mut browser = world.registered(ANN, &first).await;
    for number in 1..30 {
        world.clock.forward(jiff::SignedDuration::from_secs(1));
        world.keep(ANN, format!("Subject: number {number}\r\n\r\n\r\n").as_bytes()).await;
    }
    let page = browser.get("/inbox").await.text();
    assert!(
        page.contains("number 29") && page.contains("number 5<") && !page.contains("number 4<")
    );
    let (_, after) = page.split_once("/inbox?after=").unwrap();
    let (after, _) = after.split_at(26);
    let older = browser.get(&format!("/inbox?after={after}")).await.text();
    assert!(
        older.contains("number 4<") && older.contains("number 0<") && !older.contains("number 5<")
    );
    assert!(!older.contains("?after="), "the end");
    assert_eq!(browser.get("/inbox?after=nonsense").await.status, 200);
}

#[tokio::test]
async fn the_tag_that_a_rule_takes_out_is_shown_nowhere() {
    let world = World::new();
    let rule = RuleVerdict { strip: Some("[secure]".to_owned()), ..RuleVerdict::protected() };
    // "[secure] Results" as an encoded word.
    let mail = b"From: a@example.org\r\nSubject: =?utf-8?B?W3NlY3VyZV0gUmVzdWx0cw==?=\r\n\r\nx\r\n";
    let kept = world.keep_by(rule, ANN, mail).await;
    let mut browser = world.registered(ANN, &kept).await;
    for path in ["/inbox".to_owned(), kept.page()] {
        let page = browser.get(&path).await.text();
        assert!(page.contains("Results") && !page.contains("[secure]"), "{path}: {page}");
    }
}

/// Changes the sealed body of a message where it lies; an empty one is missing.
async fn damage(world: &World, kept: &Kept, change: impl Fn(&mut Vec<u8>)) {
    let id = world.grant_row(kept).await.message;
    let (row, _) = world.store.message(id).await.unwrap().unwrap();
    let mut reader = world.store.open(id, &row.body, 0..u64::MAX).await.unwrap();
    let mut sealed = Vec::new();
    while let piece = reader.next().await.unwrap()
        && !piece.is_empty()
    {
        sealed.extend_from_slice(&piece);
    }
    change(&mut sealed);
    world.store.delete(id, &row.body).await.unwrap();
    if !sealed.is_empty() {
        let mut writer = world.store.create(id).await.unwrap();
        writer.write(sealed.into()).await.unwrap();
        writer.seal().await.unwrap();
    }
}

#[tokio::test]
async fn a_damaged_message_has_a_page_that_says_so_and_the_others_are_shown() {
    let world = World::new();
    let message = with_files(&[("a.bin", &[7; 200_000])]);
    let (mut browser, _good) =
        opened(&world, b"From: a@example.org\r\nSubject: Good\r\n\r\nx\r\n").await;
    type Change = fn(&mut Vec<u8>);
    let cases: [(&str, Change); 4] = [
        ("a bit flipped in the content", |sealed| sealed[1000] ^= 1),
        ("a bit flipped at the beginning", |sealed| sealed[60] ^= 1),
        ("cut", |sealed| sealed.truncate(sealed.len() / 2)),
        ("missing", Vec::clear),
    ];
    for (what, change) in cases {
        let kept = world.keep(ANN, message.as_bytes()).await;
        browser.post("/login", &[("email", ANN), ("password", super::world::PASSWORD)]).await;
        damage(&world, &kept, change).await;
        for path in ["", "/original.eml", "/attachments.zip"] {
            let path = format!("{}{path}", kept.page());
            let answer = browser.get(&path).await;
            let in_front = answer.text();
            assert_eq!(answer.status, 500, "{what}: {path}");
            assert_whole_page(&in_front, true);
            for words in ["This message can’t be opened", "helpdesk@example.org"] {
                assert!(in_front.contains(words), "{what}: {path}: {in_front}");
            }
        }
        let inbox = browser.get("/inbox").await;
        assert_eq!(inbox.status, 200, "{what}");
        let page = inbox.text();
        assert!(page.contains("Good") && page.contains("This message can’t be opened"), "{page}");
    }
}
