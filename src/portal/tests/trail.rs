//! What readers do is in the audit trail, and counts as opened.
use super::{
    assert_whole_page,
    world::{Browser, Kept, PASSWORD, World, address},
};
use crate::store::{Account, AuditDetail, AuditEvent, AuditKind};
use jiff::SignedDuration;

const ANN: &str = "ann@clinic.example";
const MAIL: &[u8] =
    b"From: a@example.org\r\nSubject: Private\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
--b\r\nContent-Type: text/html\r\n\r\n<p>Hello</p>\r\n--b\r\nContent-Type: text/csv; name=x.csv\r\n\
Content-Disposition: attachment\r\n\r\n1,2\r\n--b--\r\n";

/// Events of readings and writings, oldest first.
async fn used(world: &World) -> Vec<AuditEvent> {
    let records = world.audit.records(0, 100).await.unwrap();
    let events = records.into_iter().map(|record| record.event);
    events.filter(|event| event.kind.class() == crate::store::AuditClass::Access).collect()
}
/// Follows what the answer leads to, for the frame.
async fn follow(browser: &mut Browser<'_>, path: &str) {
    let answer = browser.get(path).await;
    if let Some(next) = answer.header("location") {
        assert_eq!(browser.get(next).await.status, 200);
    }
}
async fn reader(world: &World) -> (Browser<'_>, Kept) {
    let kept = world.keep(ANN, MAIL).await;
    let browser = world.registered(ANN, &kept).await;
    (browser, kept)
}

#[tokio::test]
async fn every_way_to_read_content_is_recorded_and_counts_as_opened() {
    use AuditKind::{Downloaded, MessageRead};
    let ways: [(&str, AuditKind, Option<AuditDetail>); 7] = [
        ("", MessageRead, None),
        ("/print", MessageRead, Some(AuditDetail::Print)),
        ("/html", MessageRead, None),
        ("/attachments/1", Downloaded, Some(AuditDetail::Attachment(1))),
        ("/attachments.zip", Downloaded, Some(AuditDetail::AllAttachments)),
        ("/original.eml", Downloaded, Some(AuditDetail::Original)),
        ("/account/export.mbox", Downloaded, Some(AuditDetail::AllMessages)),
    ];
    for (way, kind, detail) in ways {
        let world = World::new();
        let (mut browser, kept) = reader(&world).await;
        let all = way.starts_with("/account");
        let path = if all { way.to_owned() } else { format!("{}{way}", kept.page()) };
        browser.send("HEAD", &path, &[], "").await;
        assert_eq!(used(&world).await, [], "{way}: a HEAD reads nothing");
        assert!(world.grant_row(&kept).await.opened.is_none(), "{way}");
        for _ in 0..2 {
            follow(&mut browser, &path).await;
        }
        let first = world.grant_row(&kept).await.opened;
        assert_eq!(first, Some(world.clock_now()), "{way}");
        let events = used(&world).await;
        assert_eq!(events.len(), 1, "{way}: one record of the same reading: {events:?}");
        let event = &events[0];
        assert_eq!((event.kind, &event.detail), (kind, &detail), "{way}");
        assert_eq!(event.account.as_ref().map(ToString::to_string).as_deref(), Some(ANN));
        assert_eq!(event.client, Some("192.0.2.1".parse().unwrap()), "{way}");
        assert!(event.session.as_ref().is_some_and(|session| session.len() == 16), "{way}");
        assert_eq!(event.grant, (!all).then_some(kept.grant), "{way}");
    }
}

#[tokio::test]
async fn an_opening_is_written_once_and_never_erased() {
    let world = World::new();
    let (mut browser, kept) = reader(&world).await;
    let stale = world.grant_row(&kept).await;
    browser.get(&kept.page()).await;
    let first = world.grant_row(&kept).await.opened;
    world.vault.people.update_grant(&stale).await.unwrap();
    assert_eq!(world.grant_row(&kept).await.opened, first, "by an order that read it before");
    world.clock.forward(SignedDuration::from_mins(30));
    browser.get(&kept.page()).await;
    assert_eq!(world.grant_row(&kept).await.opened, first, "by a second reading");
    assert_eq!(used(&world).await.len(), 2, "which is another event");
}

#[tokio::test]
async fn what_is_written_is_recorded_and_what_is_answered_was_opened() {
    let to = ("to", "nurse@example.org");
    let body = ("body", "Thank you");
    for (way, fields, kind) in [
        ("/reply", vec![body], AuditKind::Replied),
        ("/forward", vec![to, body], AuditKind::Forwarded),
        ("/compose", vec![to, ("subject", "Hello"), body], AuditKind::Composed),
    ] {
        let world = World::new();
        let (mut browser, kept) = reader(&world).await;
        let answers = kind != AuditKind::Composed;
        let path = if answers { format!("{}{way}", kept.page()) } else { way.to_owned() };
        let answer = browser.write(&path, &fields, &[]).await;
        assert_eq!(answer.status, 303, "{way}");
        let events = used(&world).await;
        assert_eq!(events.len(), 1, "{way}");
        assert_eq!(events[0].kind, kind);
        assert_eq!(events[0].grant == Some(kept.grant), answers, "{way}");
        assert_eq!(world.grant_row(&kept).await.opened.is_some(), answers, "{way}");
        let refused = browser.write(&path, &[("to", "nobody"), ("body", "")], &[]).await;
        assert_eq!(refused.status, 422, "{way}");
        assert_eq!(used(&world).await.len(), 1, "{way}: what is refused is not written");
    }
}

#[tokio::test]
async fn sign_ins_failures_and_changes_of_credentials_are_recorded_in_their_order() {
    use AuditKind::{
        CodeMailed, NewDevice, PasswordChanged, Registered, SessionEnded, SignIn, SignInLocked,
        WrongCode, WrongPassword,
    };
    let world = World::new();
    let (mut browser, _) = reader(&world).await;
    let wrong = [("email", ANN), ("password", "a guess")];
    browser.post("/logout", &[]).await;
    assert_eq!(browser.post("/login", &wrong).await.status, 422);
    browser.post("/login", &[("email", ANN), ("by", "code")]).await;
    world.written().await;
    assert_eq!(browser.post("/verify", &[("code", "00000000")]).await.status, 422);
    let right = [("email", ANN), ("password", PASSWORD)];
    assert_eq!(browser.post("/login", &right).await.status, 303);
    browser.prove().await;
    let new = "a stork stands still";
    let change = [
        ("action", "password"),
        ("current_password", PASSWORD),
        ("password", new),
        ("password_confirm", new),
    ];
    assert_eq!(browser.post("/account", &change).await.status, 303);
    let mut stranger = world.browser();
    stranger.client = "198.51.100.9:1".into();
    while stranger.post("/login", &wrong).await.status == 422 {}
    let events: Vec<_> =
        world.audit.records(0, 100).await.unwrap().into_iter().map(|row| row.event).collect();
    assert!(events.iter().all(|event| event.account == Some(address(ANN))), "{events:?}");
    let mut kinds: Vec<_> = events.into_iter().map(|event| event.kind).collect();
    kinds.dedup();
    let expected = [
        CodeMailed,
        Registered,
        SignIn,
        NewDevice,
        SessionEnded,
        WrongPassword,
        CodeMailed,
        WrongCode,
        SignIn,
        PasswordChanged,
        WrongPassword,
        SignInLocked,
    ];
    assert_eq!(kinds, expected);
}

#[tokio::test]
async fn readers_see_what_happened_at_their_own_account_and_at_no_other() {
    let world = World::new();
    let (mut browser, kept) = reader(&world).await;
    browser.get(&kept.page()).await;
    let (ann, bob) = (address(ANN), address("bob@else.example"));
    let client = Some("198.51.100.7".parse().unwrap());
    let wrong = world.audit.event(AuditKind::WrongPassword).client(client);
    world.audit.record(wrong.account(&ann).agent("Firefox on Windows")).await;
    world.audit.record(world.audit.event(AuditKind::Downloaded).account(&bob)).await;
    let page = browser.get("/account/log").await.text();
    assert_whole_page(&page, true);
    for shown in [
        "A wrong password was typed.",
        "198.51.100.7",
        "Firefox on Windows",
        "A message was read.",
        &format!("href=\"/inbox/{}\"", kept.grant),
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    assert!(!page.contains("downloaded"), "another's is not shown: {page}");
    assert!(browser.get("/account").await.text().contains("href=\"/account/log\""));
}

#[tokio::test]
async fn what_happened_is_shown_page_by_page() {
    let world = World::new();
    let (mut browser, _) = reader(&world).await;
    for number in 0..30_u8 {
        world.clock.forward(SignedDuration::from_secs(1));
        let client = Some([198, 51, 100, number].into());
        let event = world.audit.event(AuditKind::WrongCode).client(client);
        world.audit.record(event.account(&address(ANN))).await;
    }
    let first = browser.get("/account/log").await.text();
    let shown = |page: &str, n: u8| page.contains(&format!("198.51.100.{n}<"));
    assert!(shown(&first, 29) && shown(&first, 5) && !shown(&first, 4), "{first}");
    let next = first.split("/account/log?before=").nth(1).unwrap();
    let next = next.split('"').next().unwrap();
    let second = browser.get(&format!("/account/log?before={next}")).await.text();
    assert!(shown(&second, 4) && shown(&second, 0) && !shown(&second, 5), "{second}");
    assert!(!second.contains("?before="), "{second}");
    assert_eq!(browser.get("/account/log?before=nonsense").await.status, 200);
}

#[tokio::test]
async fn what_a_former_holder_of_the_mailbox_did_is_not_shown() {
    let world = World::new();
    let (mut browser, kept) = reader(&world).await;
    browser.get(&kept.page()).await;
    world.clock.forward(SignedDuration::from_secs(1));
    let account = world.vault.people.account(&address(ANN)).await.unwrap().unwrap();
    let since = Some(world.clock_now());
    world.put_account(Account { since, ..account }).await;
    let page = browser.get("/account/log").await.text();
    assert!(!page.contains("A message was read."), "{page}");
    assert_whole_page(&page, true);
}
