//! The frame with a message's own formatting: who may see it, how long, and with what in it.
use super::world::{Answer, Browser, Kept, World};
use crate::store::PeopleStore;
use data_encoding::BASE64;
use jiff::SignedDuration;

const ANN: &str = "ann@clinic.example";

/// The address of the frame on a message's page.
pub(super) async fn address_of(browser: &mut Browser<'_>, kept: &Kept) -> String {
    let page = browser.get(&kept.page()).await.text();
    let (_, from) = page.split_once("src=\"/framed/").unwrap();
    let (ticket, rest) = from.split_once('"').unwrap();
    let (tag, _) = rest.split_once('>').unwrap();
    assert!(tag.contains("sandbox=\"allow-popups allow-popups-to-escape-sandbox\""), "{tag}");
    assert!(tag.contains(" credentialless"), "{tag}");
    format!("/framed/{ticket}")
}
/// What the frame on a message's page shows, fetched by a browser without cookies.
pub(super) async fn framed(world: &World, browser: &mut Browser<'_>, kept: &Kept) -> Answer {
    let address = address_of(browser, kept).await;
    world.browser().get(&address).await
}
fn html(body: &str) -> Vec<u8> {
    format!("From: a@example.org\r\nSubject: s\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{body}\r\n").into_bytes()
}
async fn opened<'a>(world: &'a World, message: &[u8]) -> (Browser<'a>, Kept) {
    let kept = world.keep(ANN, message).await;
    (world.registered(ANN, &kept).await, kept)
}

#[tokio::test]
async fn a_ticket_shows_one_message_without_a_cookie_and_sets_none() {
    let world = World::new();
    let (mut browser, kept) = opened(&world, &html("<p>Shown</p>")).await;
    let address = address_of(&mut browser, &kept).await;
    let before = world.snapshot();
    let mut nobody = world.browser();
    let answer = nobody.get(&address).await;
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("<p>Shown</p>"));
    assert!(answer.header("set-cookie").is_none() && nobody.cookies.is_empty());
    let csp = answer.header("content-security-policy").unwrap();
    for part in [
        "sandbox allow-popups allow-popups-to-escape-sandbox;",
        "default-src 'none'",
        "img-src data:;",
    ] {
        assert!(csp.contains(part), "{csp}");
    }
    assert!(
        !csp.contains("allow-same-origin")
            && !csp.contains("allow-scripts")
            && !csp.contains("http")
    );
    // A cookie changes nothing: it is not looked at.
    let mut other = world.browser();
    other.cookies.insert("session".into(), "A".repeat(43));
    assert_eq!(other.get(&address).await.body, answer.body);
    assert_eq!(world.snapshot(), before, "nothing is changed");
    assert_eq!(nobody.send("POST", &address, &[], "").await.status, 401);
    // Nor does it lead anywhere else.
    for path in [kept.page(), format!("{}/original.eml", kept.page())] {
        assert_eq!(nobody.get(&path).await.status, 303, "{path}");
    }
}

#[tokio::test]
async fn a_ticket_ends_with_its_minutes_its_session_and_its_message() {
    let world = World::new();
    let (mut browser, kept) = opened(&world, &html("<p>Shown</p>")).await;
    let gone = |answer: Answer| {
        let framing = answer.header("x-frame-options").map(ToOwned::to_owned);
        (
            answer.status,
            framing.as_deref() == Some("SAMEORIGIN"),
            answer.text().contains("This view has ended"),
        )
    };
    let ended = (410, true, true);

    let address = address_of(&mut browser, &kept).await;
    world.clock.forward(SignedDuration::from_mins(14));
    assert_eq!(world.browser().get(&address).await.status, 200);
    world.clock.forward(SignedDuration::from_mins(2));
    assert_eq!(gone(world.browser().get(&address).await), ended, "its minutes");

    let address = address_of(&mut browser, &kept).await;
    for (why, spoiled) in [
        ("changed", format!("{}A", address.strip_suffix(|_| true).unwrap())),
        ("cut", address.strip_suffix(|_| true).unwrap().to_owned()),
        ("the id of the message", format!("/framed/{}", kept.grant)),
        ("the link of the notice", format!("/framed/{}", kept.token)),
    ] {
        if spoiled != address {
            assert_eq!(gone(world.browser().get(&spoiled).await), ended, "{why}");
        }
    }
    let other_world = World::new();
    assert_eq!(gone(other_world.browser().get(&address).await), ended, "another server's");

    assert_eq!(world.browser().get(&address).await.status, 200);
    browser.post("/logout", &[]).await;
    assert_eq!(gone(world.browser().get(&address).await), ended, "its session");

    browser.post("/login", &[("email", ANN), ("password", super::world::PASSWORD)]).await;
    let address = address_of(&mut browser, &kept).await;
    let mut grant = world.grant_row(&kept).await;
    grant.state = crate::store::GrantState::Withdrawn;
    world.store.update_grant(&grant).await.unwrap();
    assert_eq!(gone(world.browser().get(&address).await), ended, "its message");
}

#[tokio::test]
async fn the_address_that_was_leads_to_a_new_ticket() {
    let world = World::new();
    let (mut browser, kept) = opened(&world, &html("<p>Shown</p>")).await;
    let answer = browser.get(&format!("{}/html", kept.page())).await;
    let to = answer.header("location").unwrap().to_owned();
    assert_eq!(answer.status, 303);
    assert!(world.browser().get(&to).await.text().contains("<p>Shown</p>"));
    let plain = world.keep(ANN, b"Subject: s\r\n\r\nno HTML\r\n").await;
    assert_eq!(browser.get(&format!("{}/html", plain.page())).await.status, 404);
}

#[tokio::test]
async fn pictures_of_the_text_are_drawn_anew_and_nobody_elses_are_fetched() {
    let world = World::new();
    let (mut png, jpeg) = (super::super::picture::png(30, 20), super::super::picture::file("jpeg"));
    png.extend(b"<script>behind</script>");
    let page = format!(
        "<p>See</p><img src=\"cid:scan%40example.org\" alt=scan><img src=cid:broken alt=broken>\
         <img src=cid:nowhere alt=nowhere><img src=https://evil.example/x.png alt=pixel>\
         <img src=\"data:image/jpeg;base64,{}\" alt=inside>",
        BASE64.encode(&jpeg)
    );
    let message = format!(
        "Subject: s\r\nContent-Type: multipart/related; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n{page}\r\n\
         --b\r\nContent-Type: image/png\r\nContent-ID: <scan@example.org>\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n\
         --b\r\nContent-Type: image/png\r\nContent-ID: <broken>\r\n\r\nno picture\r\n--b--\r\n",
        BASE64.encode(&png)
    );
    let (mut browser, kept) = opened(&world, message.as_bytes()).await;
    let shown = framed(&world, &mut browser, &kept).await.text();
    assert_eq!(shown.matches("src=\"data:image/png;base64,").count(), 1, "{shown}");
    assert_eq!(shown.matches("src=\"data:image/jpeg;base64,").count(), 1, "{shown}");
    assert!(!shown.contains(&BASE64.encode(&jpeg)), "the bytes are ours");
    let (_, data) = shown.split_once("data:image/png;base64,").unwrap();
    let drawn = BASE64.decode(data.split('"').next().unwrap().as_bytes()).unwrap();
    assert!(!drawn.windows(6).any(|w| w == b"behind"));
    for name in ["broken", "nowhere", "pixel"] {
        assert!(
            shown.contains(&format!("<img alt=\"{name}\">")),
            "its words stand for it: {shown}"
        );
    }
    assert!(!shown.contains("evil.example"));
}

#[tokio::test]
async fn links_tell_where_they_lead_in_the_text_and_in_the_frame() {
    let world = World::new();
    let mail = html("<p>Look <a href=\"https://evil.example/x\">https://clinic.example/</a></p>");
    let (mut browser, kept) = opened(&world, &mail).await;
    let page = browser.get(&kept.page()).await.text();
    assert!(page.contains("&lt;<a href=\"https:&#x2f;&#x2f;evil.example&#x2f;x\""), "{page}");
    let shown = framed(&world, &mut browser, &kept).await.text();
    assert!(
        shown.contains(
            ">https://clinic.example/</a><bdi class=\"target\" dir=\"ltr\">[evil.example]</bdi>"
        ),
        "{shown}"
    );

    let plain = world
        .keep(
            ANN,
            b"Subject: s\r\n\r\nhttps://clinic.example@evil.example/x https://clinic.example/y\r\n",
        )
        .await;
    let page = browser.get(&plain.page()).await.text();
    assert!(page.contains("</a> [evil.example]"), "{page}");
    assert!(!page.contains("[clinic.example]"), "{page}");
}

#[tokio::test]
async fn what_is_longer_than_the_frame_says_so() {
    let world = World::new();
    let (mut browser, kept) = opened(&world, &html(&"<p>more</p>\r\n".repeat(400_000))).await;
    let shown = framed(&world, &mut browser, &kept).await.text();
    assert!(shown.contains("<p>The message is longer than what is shown here.</p>"));
    let kept =
        world.keep(ANN, &html(&format!("{}the end", "<p>more</p>\r\n".repeat(100_000)))).await;
    let shown = framed(&world, &mut browser, &kept).await.text();
    assert!(shown.contains("the end") && !shown.contains("longer than what is shown"));
}

#[tokio::test]
async fn so_many_are_read_at_one_time_and_others_wait_their_turn() {
    let world = World::new();
    let (mut browser, kept) = opened(&world, &html("<p>Shown</p>")).await;
    let address = address_of(&mut browser, &kept).await;
    let desk = world.desk();
    let all = desk.workers.all_turns().await;
    tokio::time::pause();
    assert_eq!(world.browser().get(&address).await.status, 503);
    assert_eq!(browser.get(&kept.page()).await.status, 503, "its text is read out of the HTML");
    drop(all);
    assert_eq!(world.browser().get(&address).await.status, 200);
    let account = world.store.account(&super::world::address(ANN)).await.unwrap().unwrap();
    let search = desk.workers.search(account.generation).await.unwrap();
    assert_eq!(browser.get("/inbox?q=shown").await.status, 503, "one search at a time");
    drop(search);
    assert!(browser.get("/inbox?q=shown").await.text().contains("Searched 1 of 1"));
}

#[tokio::test]
async fn a_message_written_to_exhaust_is_shown_within_bounds() {
    let world = World::new();
    let mut body: String = (0..20_000).map(|n| format!("<font color={n}>\r\n")).collect();
    body += &"<p>x\r\n".repeat(60_000);
    let (mut browser, kept) = opened(&world, &html(&body)).await;
    let shown = framed(&world, &mut browser, &kept).await;
    assert_eq!(shown.status, 200);
    assert!(shown.body.len() < 3_000_000, "{}", shown.body.len());
    assert_eq!(browser.get(&kept.page()).await.status, 200);
}
