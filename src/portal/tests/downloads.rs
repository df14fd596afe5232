//! Downloads: how long they may go on, how many at a time, and which part of one.
use super::{
    super::{Desk, Fault, download, session::Visitor, tongue::Wish, workers::DOWNLOADS},
    assert_whole_page,
    world::{Browser, Kept, World, address},
};
use crate::{
    language::Languages,
    store::{GrantState, PeopleStore},
};
use axum::{
    Extension,
    extract::{Path, State},
    http::{HeaderMap, Method},
    response::Response,
};
use futures_util::StreamExt;
use jiff::SignedDuration;
use std::sync::Arc;

const ANN: &str = "ann@clinic.example";

/// A message with a file that is stored as it is, and one in base64.
fn message(bytes: usize) -> Vec<u8> {
    let line = "0123456789".repeat(7);
    let lines = bytes / 72 + 1;
    let plain = format!("{line}\r\n").repeat(lines);
    let encoded = format!("{}\r\n", data_encoding::BASE64.encode(&[7; 57])).repeat(lines);
    format!(
        "From: a@example.org\r\nSubject: Files\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=b\r\n\r\n\
         --b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nSee attached.\r\n\
         --b\r\nContent-Type: text/csv\r\nContent-Disposition: attachment; filename=\"a.csv\"\r\n\r\n\
         {plain}\
         --b\r\nContent-Type: image/x-scan\r\nContent-Disposition: attachment; filename=\"b.bin\"\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{encoded}--b--\r\n"
    )
    .into_bytes()
}

async fn visitor(desk: &Desk, browser: &Browser<'_>) -> Visitor {
    let mut headers = HeaderMap::new();
    headers.insert("cookie", format!("session={}", browser.cookies["session"]).parse().unwrap());
    let languages = Languages::new("en", &[]).unwrap();
    desk.visitor(&headers, None, Wish::of(languages.usual())).await.unwrap()
}
/// Begins a download without reading it.
async fn begin(
    desk: &Arc<Desk>,
    visitor: &Visitor,
    kept: &Kept,
    what: &str,
) -> Result<Response, Fault> {
    let (state, extension) = (State(Arc::clone(desk)), Extension(visitor.clone()));
    let (id, head) = (kept.grant.to_string(), HeaderMap::new());
    match what {
        "original" => download::original(state, extension, Path(id), Method::GET, head).await,
        "zip" => download::zip(state, extension, Path(id), Method::GET).await,
        number => {
            let path = Path((id, number.to_owned()));
            download::attachment(state, extension, path, Method::GET, head).await
        }
    }
}

#[tokio::test]
async fn a_download_under_way_ends_with_the_right_to_read() {
    for what in ["original", "1", "2", "zip"] {
        for ending in ["none", "recall", "expiry", "lock", "sign-out"] {
            let world = World::new();
            let kept = world.keep(ANN, &message(3 << 20)).await;
            let mut browser = world.registered(ANN, &kept).await;
            let desk = world.desk();
            let visitor = visitor(&desk, &browser).await;
            let mut grant = world.grant_row(&kept).await;
            grant.expires = world.clock_now() + SignedDuration::from_mins(5);
            world.store.update_grant(&grant).await.unwrap();
            let download = begin(&desk, &visitor, &kept, what).await.unwrap();
            let mut pieces = download.into_body().into_data_stream();
            pieces.next().await.unwrap().unwrap();
            match ending {
                "recall" => assert_eq!(world.vault.withdraw(&[kept.grant]).await.unwrap(), 1),
                "expiry" => world.clock.forward(SignedDuration::from_mins(6)),
                "lock" => {
                    let account = world.store.account(&address(ANN)).await.unwrap().unwrap();
                    let locked = crate::store::Account { locked: true, ..account };
                    world.put_account(locked.clone()).await;
                }
                "sign-out" => assert_eq!(browser.post("/logout", &[]).await.status, 303),
                _ => {}
            }
            let (mut more, mut broken) = (0, false);
            while let Some(piece) = pieces.next().await {
                match piece {
                    Ok(piece) => more += piece.len(),
                    Err(_) => broken = true,
                }
            }
            assert_eq!(broken, ending != "none", "{what}, {ending}");
            assert!(!broken || more <= 1 << 20, "{what}, {ending}: {more} bytes after the end");
        }
    }
}

#[tokio::test]
async fn a_download_that_rests_asks_again_before_it_goes_on() {
    let world = World::new();
    let kept = world.keep(ANN, &message(300_000)).await;
    let browser = world.registered(ANN, &kept).await;
    let desk = world.desk();
    let visitor = visitor(&desk, &browser).await;
    let download = begin(&desk, &visitor, &kept, "original").await.unwrap();
    let mut pieces = download.into_body().into_data_stream();
    pieces.next().await.unwrap().unwrap();
    world.vault.withdraw(&[kept.grant]).await.unwrap();
    world.clock.forward(SignedDuration::from_secs(2));
    assert!(pieces.next().await.unwrap().is_err(), "not one piece more, however little was read");
}

#[tokio::test]
async fn each_file_of_a_zip_is_asked_for_anew() {
    let world = World::new();
    let kept = world.keep(ANN, &message(100)).await;
    let browser = world.registered(ANN, &kept).await;
    let desk = world.desk();
    let visitor = visitor(&desk, &browser).await;
    let download = begin(&desk, &visitor, &kept, "zip").await.unwrap();
    let mut pieces = download.into_body().into_data_stream();
    pieces.next().await.unwrap().unwrap();
    // The key stays: nothing has swept it, or another recipient still has it.
    world.vault.withdraw(&[kept.grant]).await.unwrap();
    let mut broken = false;
    while let Some(piece) = pieces.next().await {
        broken |= piece.is_err();
    }
    assert!(broken);
}

#[tokio::test]
async fn an_account_has_a_few_downloads_at_a_time() {
    let world = World::new();
    let kept = world.keep(ANN, &message(100)).await;
    let mut browser = world.registered(ANN, &kept).await;
    let bob = world.keep("bob@else.example", &message(100)).await;
    let mut other = world.registered("bob@else.example", &bob).await;
    let desk = world.desk();
    let visitor = visitor(&desk, &browser).await;
    let mut unread = Vec::new();
    for what in ["original", "1", "2", "zip"].iter().cycle().take(DOWNLOADS) {
        unread.push(begin(&desk, &visitor, &kept, what).await.unwrap());
    }
    let files = |kept: &Kept| {
        ["original.eml", "attachments/1", "attachments/2", "attachments.zip"]
            .map(|file| format!("{}/{file}", kept.page()))
    };
    for path in files(&kept).into_iter().chain(["/account/export.mbox".to_owned()]) {
        let busy = browser.get(&path).await;
        assert_eq!(busy.status, 429, "{path}");
        assert_whole_page(&busy.text(), true);
        assert!(busy.text().contains("downloads under way"), "{path}");
        assert!(busy.header("content-disposition").is_none());
    }
    assert_eq!(browser.get(&kept.page()).await.status, 200, "reading goes on");
    for path in files(&bob) {
        assert_eq!(other.get(&path).await.status, 200, "another's, {path}");
    }
    unread.pop();
    for path in files(&kept) {
        assert_eq!(browser.get(&path).await.status, 200, "one has ended: {path}");
        assert_eq!(browser.send("HEAD", &path, &[], "").await.status, 200);
    }
}

#[tokio::test]
async fn what_has_a_length_answers_ranges_and_what_has_none_says_so() {
    let world = World::new();
    let text = message(200_000);
    let kept = world.keep(ANN, &text).await;
    let mut browser = world.registered(ANN, &kept).await;
    let original = format!("{}/original.eml", kept.page());
    let whole = browser.get(&original).await;
    assert_eq!((whole.status, whole.header("accept-ranges")), (200, Some("bytes")));
    assert!(whole.body == text);
    let tag = whole.header("etag").unwrap().to_owned();
    assert!(tag.starts_with('"') && tag.ends_with('"'), "a strong one: {tag}");
    let size = text.len();
    let head = browser.send("HEAD", &original, &[("range", "bytes=5-9")], "").await;
    assert_eq!((head.status, head.header("content-length")), (200, Some(&*size.to_string())));
    assert!(head.body.is_empty() && head.header("content-range").is_none());
    for (range, part) in [
        ("bytes=0-0", 0..1),
        ("bytes=65530-131080", 65_530..131_081),
        ("bytes=190000-", 190_000..size),
        ("bytes=-7", size - 7..size),
    ] {
        let answer =
            browser.send("GET", &original, &[("range", range), ("if-range", &tag)], "").await;
        assert_eq!(answer.status, 206, "{range}");
        assert!(answer.body == text[part.clone()], "{range}");
        let expected = format!("bytes {}-{}/{size}", part.start, part.end - 1);
        assert_eq!(answer.header("content-range"), Some(expected.as_str()));
        assert_eq!(answer.header("content-length"), Some(&*part.len().to_string()));
        assert_eq!(answer.header("etag"), Some(tag.as_str()));
    }
    let other = [("range", "bytes=5-9"), ("if-range", "\"another\"")];
    assert!(browser.send("GET", &original, &other, "").await.body == text);
    let beyond = format!("bytes={size}-");
    let beyond = browser.send("GET", &original, &[("range", &beyond)], "").await;
    let expected = format!("bytes */{size}");
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some(expected.as_str())));
    assert!(beyond.header("content-disposition").is_none());

    let stored = format!("{}/attachments/1", kept.page());
    let whole = browser.get(&stored).await;
    assert_eq!(whole.header("content-length"), Some(&*whole.body.len().to_string()));
    assert_ne!(whole.header("etag"), Some(tag.as_str()));
    let part = browser.send("GET", &stored, &[("range", "bytes=10-79")], "").await;
    assert_eq!(part.status, 206);
    assert!(part.body == whole.body[10..80]);

    for file in ["attachments/2", "attachments.zip"] {
        let path = format!("{}/{file}", kept.page());
        let whole = browser.get(&path).await;
        let answer = browser.send("GET", &path, &[("range", "bytes=5-9")], "").await;
        assert_eq!((answer.status, answer.header("accept-ranges")), (200, Some("none")), "{file}");
        assert!(answer.whole && answer.body.len() == whole.body.len(), "{file}");
    }
}

#[tokio::test]
async fn a_forwards_own_copy_ends_with_its_original() {
    let world = World::new();
    let kept = world.keep(ANN, &message(100)).await;
    let mut browser = world.registered(ANN, &kept).await;
    let forward = async |browser: &mut Browser<'_>, page: &str| {
        let form = [("to", "nurse@example.org"), ("subject", "Fwd"), ("body", "See this.")];
        let answer = browser.write(&format!("{page}/forward"), &form, &[]).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
        answer.header("location").unwrap().to_owned()
    };
    world.clock.forward(SignedDuration::from_mins(30));
    let copy = forward(&mut browser, &kept.page()).await;
    let copy_of_copy = forward(&mut browser, &copy).await;
    let answer = browser.write(&format!("{}/reply", kept.page()), &[("body", "x")], &[]).await;
    let reply = answer.header("location").unwrap().to_owned();
    let origin = world.grant_row(&kept).await;
    for own in [&copy, &copy_of_copy] {
        assert_eq!(browser.get(own).await.status, 200);
        let id = own.rsplit('/').next().unwrap().parse().unwrap();
        let row = world.store.grant(id).await.unwrap().unwrap();
        assert_eq!(row.expires, origin.expires, "not thirty days anew");
    }
    world.vault.withdraw(&[kept.grant]).await.unwrap();
    for own in [&copy, &copy_of_copy] {
        for end in ["", "/original.eml"] {
            assert_eq!(browser.get(&format!("{own}{end}")).await.status, 410, "{own}{end}");
        }
        let id = own.rsplit('/').next().unwrap().parse().unwrap();
        let row = world.store.grant(id).await.unwrap().unwrap();
        assert_eq!(row.state, GrantState::Withdrawn);
    }
    assert_eq!(browser.get(&reply).await.status, 200, "what they wrote themselves stays");
}
