//! Files that come ahead of their letter: stretch by stretch, to nobody but their owner, within bounds.
use super::{
    assert_whole_page,
    world::{Answer, Browser, Kept, MAX_REPLY, World},
};
use crate::store::Health;
use mail_parser::{MessageParser, MimeHeaders};
use serde_json::Value;
use std::time::Duration;

const ANN: &str = "ann@clinic.example";
const BOB: &str = "bob@else.example";
const MAIL: &[u8] =
    b"From: Nurse Joy <nurse@example.org>\r\nSubject: Your results\r\n\r\nAll is well.\r\n";

async fn opened<'a>(world: &'a World, who: &str) -> (Browser<'a>, Kept) {
    let kept = world.keep(who, MAIL).await;
    (world.registered(who, &kept).await, kept)
}
fn told(answer: &Answer) -> Value {
    assert_eq!(answer.header("content-type"), Some("application/json"), "{}", answer.text());
    serde_json::from_str(&answer.text()).unwrap()
}
async fn begin(browser: &mut Browser<'_>, name: &str, size: usize) -> Answer {
    let size = size.to_string();
    browser.post("/uploads", &[("name", name), ("type", "application/pdf"), ("size", &size)]).await
}
/// Uploads all of it at once; its path.
async fn upload(browser: &mut Browser<'_>, name: &str, content: &[u8]) -> String {
    let begun = begin(browser, name, content.len()).await;
    assert_eq!(begun.status, 201);
    let path = format!("/uploads/{}", told(&begun)["id"].as_str().unwrap());
    if !content.is_empty() {
        let answer = browser.stretch(&format!("{path}?offset=0"), content).await;
        assert_eq!(
            (answer.status, told(&answer)["offset"].as_u64()),
            (200, Some(content.len() as u64))
        );
    }
    path
}
fn id(path: &str) -> &str {
    path.strip_prefix("/uploads/").unwrap()
}

#[tokio::test]
async fn a_file_comes_in_stretches_and_goes_with_its_letter() {
    let world = World::new();
    let (mut browser, _) = opened(&world, ANN).await;
    let content: Vec<u8> =
        (0..300_001_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let begun = begin(&mut browser, "C:\\scans\\Befund Grün.pdf", content.len()).await;
    assert_eq!(begun.status, 201);
    let path = format!("/uploads/{}", told(&begun)["id"].as_str().unwrap());
    // (offset, bytes) -> status, where it goes on, why
    for (from, to, status, next, why) in [
        (0, 100_000, 200, 100_000, "the first stretch"),
        (0, 1_000, 409, 100_000, "once more: nothing is written twice"),
        (200_000, 201_000, 409, 100_000, "a gap"),
        (100_000, 100_000, 200, 100_000, "nothing came of it"),
        (100_000, 300_001, 200, 300_001, "the rest"),
        (300_001, 300_001, 409, 300_001, "it is whole"),
    ] {
        let piece = &content[from..to];
        let answer = browser.stretch(&format!("{path}?offset={from}"), piece).await;
        assert_eq!(
            (answer.status, told(&answer)["offset"].as_u64()),
            (status, Some(next)),
            "{why}"
        );
        let status = browser.get(&path).await;
        assert_eq!((status.status, told(&status)["offset"].as_u64()), (200, Some(next)), "{why}");
    }
    let empty = upload(&mut browser, "empty", b"").await;
    let list = told(&browser.get("/uploads").await);
    let names: Vec<_> = list.as_array().unwrap().iter().map(|one| one["name"].as_str()).collect();
    assert_eq!(names, [Some("Befund Grün.pdf"), Some("empty")]);

    let form = browser.get("/compose").await.text();
    assert_whole_page(&form, true);
    assert!(form.contains(id(&path)), "it is offered");
    assert!(!form.contains("checked"), "but not ticked: it may have been for another letter");
    let fields = [
        ("to", "nurse@example.org"),
        ("body", "Here it is."),
        ("upload", id(&path)),
        ("upload", id(&empty)),
    ];
    let sent = browser.write("/compose", &fields, &[("more.txt", b"and one more")]).await;
    assert_eq!(sent.status, 303, "{}", sent.text());
    let copy = browser.get(&format!("{}/original.eml", sent.header("location").unwrap())).await;
    let parsed = MessageParser::new().parse(&copy.body).unwrap();
    let parts: Vec<_> = parsed.attachments().collect();
    let all: &[(&str, &[u8])] =
        &[("more.txt", b"and one more"), ("Befund Grün.pdf", &content), ("empty", b"")];
    for (name, content) in all {
        let part = parts.iter().find(|part| part.attachment_name() == Some(*name));
        assert!(part.is_some_and(|part| part.contents() == *content), "{name}");
    }
    assert_eq!(parts.len(), 3);
    for path in [&path, &empty] {
        assert_eq!(browser.get(path).await.status, 404, "it went with the letter");
    }
}

#[tokio::test]
async fn nobody_else_sees_it_and_what_is_not_whole_goes_nowhere() {
    let world = World::new();
    let (mut ann, _) = opened(&world, ANN).await;
    let (mut bob, _) = opened(&world, BOB).await;
    let path = upload(&mut ann, "private.pdf", b"private").await;
    assert_eq!(told(&bob.get("/uploads").await), serde_json::json!([]));
    assert_eq!(bob.get(&path).await.status, 404);
    assert_eq!(bob.stretch(&format!("{path}?offset=7"), b"").await.status, 404);
    assert_eq!(bob.post(&format!("{path}/remove"), &[]).await.status, 404);
    assert!(!bob.get("/compose").await.text().contains("private.pdf"));
    let half = begin(&mut bob, "half.pdf", 10).await;
    let half = told(&half)["id"].as_str().unwrap().to_owned();
    for (upload, why) in [(id(&path), "another's"), ("0123", "nobody's"), (&half, "not whole")] {
        let fields = [("to", "nurse@example.org"), ("body", "x"), ("upload", upload)];
        let answer = bob.write("/compose", &fields, &[]).await;
        assert_eq!(answer.status, 422, "{why}");
        assert!(answer.text().contains("is no longer here"), "{why}");
    }
    let fields = [("to", "eve@evil.example"), ("upload", id(&path))];
    let again = ann.write("/compose", &fields, &[]).await;
    assert_eq!(again.status, 422);
    assert!(again.text().contains("checked"), "what belongs to this letter stays with it");
    assert_eq!(ann.get(&path).await.status, 200);
    for (back, place, why) in [
        ("/inbox/abc123/reply", "/inbox/abc123/reply", "back to the form"),
        ("https://evil.example/inbox/", "/compose", "nowhere else"),
        ("/inbox/../../evil", "/compose", "nor by another way"),
    ] {
        let other = upload(&mut ann, "other.pdf", b"other").await;
        let headers = [("sec-fetch-site", "same-origin"), ("accept", "text/html,*/*")];
        let form = format!("back={}", back.replace('/', "%2F"));
        let answer = ann.send("POST", &format!("{other}/remove"), &headers, &form).await;
        assert_eq!((answer.status, answer.header("location")), (303, Some(place)), "{why}");
        assert_eq!(ann.get(&other).await.status, 404, "{why}");
    }
    assert_eq!(ann.post(&format!("{path}/remove"), &[]).await.status, 204);
    assert_eq!(ann.get(&path).await.status, 404);
}

#[tokio::test]
async fn uploads_are_bounded() {
    let world = World::new();
    let (mut browser, _) = opened(&world, ANN).await;
    let most = MAX_REPLY as usize;
    assert_eq!(begin(&mut browser, "large.pdf", most + 1).await.status, 413, "more than a letter");
    let refused = begin(&mut browser, "run.EXE", 1).await;
    assert_eq!(refused.status, 422, "portal.refuse_files");
    assert!(told(&refused)["problem"].as_str().unwrap().contains("run.EXE"));
    let path = told(&begin(&mut browser, "a.pdf", 10).await)["id"].as_str().unwrap().to_owned();
    let path = format!("/uploads/{path}");
    let more = browser.stretch(&format!("{path}?offset=0"), &[0; 11]).await;
    assert_eq!(more.status, 413, "more than was announced");
    let all = begin(&mut browser, "b.pdf", most - 9).await;
    assert_eq!(all.status, 413, "all of an account's");
    assert!(told(&all)["problem"].as_str().unwrap().contains("the other files first"));
    assert_eq!(begin(&mut browser, "b.pdf", most - 10).await.status, 201);
    browser.post(&format!("{path}/remove"), &[]).await;
    for number in 0..49 {
        assert_eq!(begin(&mut browser, "tiny", 0).await.status, 201, "{number}");
    }
    let many = begin(&mut browser, "tiny", 0).await;
    assert_eq!(many.status, 413, "in number");
    assert!(told(&many)["problem"].as_str().unwrap().contains("50 at most"));
    let whole = vec![7; most / 2 + 1];
    let (mut other, _) = opened(&world, BOB).await;
    let path = upload(&mut other, "half.pdf", &whole).await;
    let fields = [("to", "nurse@example.org"), ("upload", id(&path))];
    let answer = other.write("/compose", &fields, &[("half.txt", &whole)]).await;
    assert_eq!(answer.status, 413, "ahead and along, together");
}

#[tokio::test]
async fn together_they_are_bounded_too_and_that_is_nobodys_fault() {
    let world = World::new();
    for number in 0..20 {
        let (mut browser, _) = opened(&world, &format!("reader{number}@clinic.example")).await;
        assert_eq!(begin(&mut browser, "large.pdf", MAX_REPLY as usize).await.status, 201);
    }
    let (mut browser, _) = opened(&world, ANN).await;
    let later = begin(&mut browser, "small.pdf", 1).await;
    assert_eq!(later.status, 503);
    assert!(told(&later)["problem"].as_str().unwrap().contains("try again in a few minutes"));
}

/// Three forms of each of six accounts hang in the middle of a file; a seventh's reply goes out.
#[tokio::test]
async fn slow_readers_stop_no_other_readers_letter() {
    let world = World::new();
    let mut hanging = Vec::new();
    for number in 0..6 {
        let (mut browser, kept) = opened(&world, &format!("slow{number}@clinic.example")).await;
        for _ in 0..3 {
            hanging.push(browser.hang(&format!("{}/reply", kept.page()), "slow.pdf").await);
        }
    }
    let (mut browser, kept) = opened(&world, ANN).await;
    let path = format!("{}/reply", kept.page());
    let sent = browser.write(&path, &[("body", "x")], &[("a.pdf", b"content")]).await;
    assert_eq!(sent.status, 303, "{}", sent.text());
    upload(&mut browser, "b.pdf", b"content").await;
    drop(hanging);
}

#[tokio::test]
async fn a_store_that_is_full_ends_the_upload_and_a_new_one_begins() {
    let world = World::new();
    let (mut browser, _) = opened(&world, ANN).await;
    let begun = begin(&mut browser, "a.pdf", 10).await;
    let path = format!("/uploads/{}", told(&begun)["id"].as_str().unwrap());
    world.store.set_health(Health::Full);
    assert_eq!(begin(&mut browser, "b.pdf", 10).await.status, 503);
    assert_eq!(browser.stretch(&format!("{path}?offset=0"), b"0123456789").await.status, 503);
    world.store.set_health(Health::Ok);
    assert_eq!(browser.get(&path).await.status, 404, "nothing stays in the way");
    upload(&mut browser, "a.pdf", b"0123456789").await;
}

#[tokio::test(start_paused = true)]
async fn what_nobody_sends_is_forgotten() {
    let world = World::new();
    let (mut browser, _) = opened(&world, ANN).await;
    let whole = upload(&mut browser, "a.pdf", b"content").await;
    let begun = begin(&mut browser, "b.pdf", 10).await;
    let half = format!("/uploads/{}", told(&begun)["id"].as_str().unwrap());
    tokio::time::sleep(Duration::from_secs(890)).await;
    assert_eq!(browser.stretch(&format!("{half}?offset=0"), b"01234").await.status, 200);
    tokio::time::sleep(Duration::from_secs(890)).await;
    assert_eq!(browser.get(&half).await.status, 200, "more has come of it");
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(browser.get(&half).await.status, 404, "a quarter of an hour without");
    assert_eq!(browser.get(&whole).await.status, 200);
    tokio::time::sleep(Duration::from_secs(1810)).await;
    assert_eq!(browser.get(&whole).await.status, 404, "an hour without a letter");
}
