//! Search over one's own mail, and all of it in one file.
use super::{
    assert_whole_page,
    world::{Browser, Kept, World, address},
};
use crate::store::PeopleStore;
use axum::{Extension, extract::State, http::Method};
use futures_util::StreamExt;
use jiff::SignedDuration;
use std::collections::BTreeSet;

const ANN: &str = "ann@clinic.example";

fn mail(subject: &str, text: &str) -> Vec<u8> {
    format!(
        "From: Nurse Smith <nurse@example.org>\r\nTo: {ANN}\r\nSubject: {subject}\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n"
    )
    .into_bytes()
}
async fn keep(world: &World, message: &[u8]) -> Kept {
    world.clock.forward(SignedDuration::from_secs(1));
    world.keep(ANN, message).await
}
/// Subjects of the messages found, and the page.
async fn found(browser: &mut Browser<'_>, query: &str) -> (BTreeSet<String>, String) {
    let query: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
    let answer = browser.get(&format!("/inbox?q={query}")).await;
    assert_eq!(answer.status, 200);
    let page = answer.text();
    assert_whole_page(&page, true);
    (subjects(&page), page)
}
fn subjects(page: &str) -> BTreeSet<String> {
    let page = scraper::Html::parse_document(page);
    let links = scraper::Selector::parse("a.subject").unwrap();
    page.select(&links).map(|link| link.text().collect()).collect()
}

#[tokio::test]
async fn words_are_found_wherever_they_stand() {
    let world = World::new();
    let first =
        keep(&world, &mail("Your results", "Dear Ann, the Blutbild is in order. Grüße")).await;
    let mut browser = world.registered(ANN, &first).await;
    let file = "Subject: Papers\r\nFrom: Doctor Who <who@example.org>\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
        --b\r\n\r\nSee.\r\n--b\r\nContent-Type: application/pdf\r\n\
        Content-Disposition: attachment; filename=\"befund-märz.pdf\"\r\n\r\nSECRETWORD\r\n--b--\r\n";
    keep(&world, file.as_bytes()).await;
    keep(&world, b"From: x@else.example\r\nSubject: Formatted\r\nContent-Type: text/html\r\n\r\n<p>An <b>appoint</b>ment<script>hidden</script></p>\r\n").await;
    keep(&world, &mail("=?utf-8?B?w5xiZXJ3ZWlzdW5n?=", "x")).await;
    world.keep("bob@else.example", &mail("Another's results", "Blutbild")).await;
    let to = [
        ("to", "nurse@example.org"),
        ("subject", "A question"),
        ("body", "When is the operation?"),
    ];
    assert_eq!(browser.write("/compose", &to, &[]).await.status, 303);

    let cases: &[(&str, &[&str], &str)] = &[
        ("results", &["Your results"], "the subject, and nobody else's"),
        ("BLUTBILD", &["Your results"], "the text, in any case"),
        ("grusse ann", &["Your results"], "all words, without accents"),
        (
            "nurse",
            &["Your results", "Überweisung", "A question"],
            "senders, and recipients of what was sent",
        ),
        ("who", &["Papers"], "a sender's name"),
        ("befund-marz", &["Papers"], "a file's name"),
        ("secretword", &[], "what is in files is not searched"),
        ("appointment", &["Formatted"], "HTML as it reads"),
        ("hidden", &[], "and not as it is written"),
        ("uberweisung", &["Überweisung"], "a subject in its encoding"),
        ("operation", &["A question"], "what was sent"),
        ("results operation", &[], "not in one message"),
        ("<b>", &[], "no markup"),
        ("\"><script>alert(1)</script>", &[], "nothing acts"),
    ];
    for (query, expected, why) in cases {
        let (subjects, page) = found(&mut browser, query).await;
        let expected: BTreeSet<_> = expected.iter().map(|s| (*s).to_owned()).collect();
        assert_eq!(subjects, expected, "{why}: {query}");
        assert!(page.contains("Searched 5 of 5 messages"), "{page}");
        assert!(!page.contains("<script"));
        assert_eq!(page.contains("Nothing was found"), expected.is_empty(), "{why}");
    }
    let (_, page) = found(&mut browser, "befund-marz").await;
    assert!(page.contains("Found in: names of attachments"), "{page}");
    let inbox = browser.get("/inbox?q=%20").await.text();
    assert!(
        inbox.contains("<h1>Inbox</h1>") && inbox.contains("role=\"search\""),
        "nothing to search for"
    );
}

#[tokio::test]
async fn a_search_changes_nothing_and_finds_nothing_that_is_over() {
    let world = World::new();
    let kept = keep(&world, &mail("Your results", "text")).await;
    let mut browser = world.registered(ANN, &kept).await;
    let before = world.snapshot();
    assert_eq!(found(&mut browser, "results").await.0.len(), 1);
    assert_eq!(world.snapshot(), before, "not even opened");
    world.clock.forward(SignedDuration::from_hours(24 * 31));
    browser.post("/login", &[("email", ANN), ("password", super::world::PASSWORD)]).await;
    assert_eq!(found(&mut browser, "results").await.0.len(), 0);
}

#[tokio::test]
async fn a_search_stops_at_its_bounds_and_goes_on() {
    let world = World::new();
    let first = keep(&world, &mail("needle 0", "x")).await;
    let mut browser = world.registered(ANN, &first).await;
    let straw = "straw ".repeat(160_000);
    for number in 1..=60 {
        let (subject, text) = if number % 2 == 0 {
            (format!("needle {number}"), "x")
        } else {
            (format!("straw {number}"), straw.as_str())
        };
        keep(&world, &mail(&subject, text)).await;
    }
    let (mut all, mut path) = (BTreeSet::new(), "/inbox?q=needle".to_owned());
    loop {
        let page = browser.get(&path).await.text();
        assert_whole_page(&page, true);
        let new = subjects(&page);
        assert!(all.is_disjoint(&new), "none twice");
        if all.is_empty() {
            assert!(page.contains("Searched 34 of 61 messages"), "16 MiB at one time: {page}");
            assert_eq!(new.len(), 17, "and not as many as a page shows");
        }
        all.extend(new);
        let Some((_, rest)) = page.split_once("<a class=\"button\" href=\"") else {
            assert!(page.contains("Searched 61 of 61 messages"), "{page}");
            break;
        };
        path = rest.split('"').next().unwrap().replace("&amp;", "&").replace("&#x2f;", "/");
    }
    assert_eq!(all.len(), 31);
}

#[tokio::test]
async fn everything_is_one_file() {
    let world = World::new();
    let first = keep(
        &world,
        b"From: a@example.org\r\nSubject: one\r\n\r\nFrom here on\r\n>From there\r\nlast",
    )
    .await;
    let mut browser = world.registered(ANN, &first).await;
    for number in 2..=30 {
        keep(&world, &mail(&format!("number {number}"), "x")).await;
    }
    world.keep("bob@else.example", &mail("Another's", "x")).await;
    let to = [("to", "nurse@example.org"), ("subject", "A question"), ("body", "Sent by me")];
    assert_eq!(browser.write("/compose", &to, &[]).await.status, 303);
    let answer = browser.get("/account/export.mbox").await;
    assert!(answer.whole && answer.status == 200);
    assert_eq!(answer.header("content-type"), Some("application/mbox"));
    assert!(answer.header("content-disposition").unwrap().contains("messages.mbox"));
    assert!(world.grant_row(&first).await.opened.is_some(), "what is in the file was opened");
    let text = answer.text();
    assert!(text.starts_with("From nurse@example.org Sun Nov 22 10:00:"), "{text}");
    assert_eq!(format!("\n{text}").matches("\nFrom ").count(), 31);
    assert!(text.contains("\n>From here on\n>>From there\nlast\n\n"), "{text}");
    assert!(text.contains("Sent by me") && !text.contains("Another's") && !text.contains('\r'));
}

#[tokio::test]
async fn a_file_under_way_breaks_off_when_its_reader_is_no_longer_in() {
    for ending in ["none", "sign-out", "lock", "removal", "another", "idle"] {
        let world = World::new();
        let first = keep(&world, &mail("first", "x")).await;
        let mut browser = world.registered(ANN, &first).await;
        let to = [("to", "nurse@example.org"), ("subject", "A question"), ("body", "mine")];
        assert_eq!(browser.write("/compose", &to, &[]).await.status, 303);
        keep(&world, &mail("second", "x")).await;
        let desk = world.desk();
        let mut headers = axum::http::HeaderMap::new();
        headers
            .insert("cookie", format!("session={}", browser.cookies["session"]).parse().unwrap());
        let languages = crate::language::Languages::new("en", &[]).unwrap();
        let wish = super::super::tongue::Wish::of(languages.usual());
        let visitor = desk.visitor(&headers, None, wish).await.unwrap();
        let export =
            super::super::mbox::export(State(desk), Extension(visitor), Method::GET).await.unwrap();
        let mut pieces = export.into_body().into_data_stream();
        let begun = pieces.next().await.unwrap().unwrap();
        assert!(begun.starts_with(b"From "));
        let mut account = world.store.account(&address(ANN)).await.unwrap().unwrap();
        match ending {
            "sign-out" => assert_eq!(browser.post("/logout", &[]).await.status, 303),
            "lock" => {
                account.locked = true;
                world.put_account(account.clone()).await;
            }
            "removal" => {
                world.store.remove_account(&address(ANN), world.clock_now()).await.unwrap();
            }
            "another" => {
                account.generation = [9; 16];
                world.put_account(account.clone()).await;
            }
            "idle" => world.clock.forward(SignedDuration::from_mins(61)),
            _ => {}
        }
        let (mut text, mut broken) = (String::new(), false);
        while let Some(piece) = pieces.next().await {
            match piece {
                Ok(piece) => text += std::str::from_utf8(&piece).unwrap(),
                Err(_) => broken = true,
            }
        }
        assert_eq!(broken, ending != "none", "{ending}");
        assert_eq!(text.matches("From ").count() > 1, ending == "none", "{ending}: {text}");
        assert_eq!(text.contains("A question"), ending == "none", "{ending}");
    }
}

#[tokio::test]
async fn a_message_that_cannot_be_read_leaves_its_place_and_the_others_follow() {
    let world = World::new();
    let first = keep(&world, &mail("first", "x")).await;
    let mut browser = world.registered(ANN, &first).await;
    let long = "all of it ".repeat(40_000);
    let (whole, torn) =
        (keep(&world, &mail("broken", "x")).await, keep(&world, &mail("torn", &long)).await);
    keep(&world, &mail("last", "x")).await;
    world.store.damage(world.grant_row(&whole).await.message, 50);
    world.store.damage(world.grant_row(&torn).await.message, 60);
    let answer = browser.get("/account/export.mbox").await;
    assert!(answer.whole, "the file goes on");
    let text = answer.text();
    for subject in ["Subject: first", "Subject: torn", "Subject: last"] {
        assert!(text.contains(subject), "{subject}: {}", text.len());
    }
    assert!(!text.contains("Subject: broken"));
    assert!(text.contains("The message that belongs here could not be read."));
    assert!(text.contains("The message before this one is not whole"));
    let (_, page) = found(&mut browser, "last").await;
    assert!(page.contains("Messages that could not be read: 2"), "{page}");
}
