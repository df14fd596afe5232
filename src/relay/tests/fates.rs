//! What becomes of a message: each way it can go, and what its sender hears.

use super::*;

#[tokio::test]
async fn a_partner_gets_the_message_byte_for_byte_behind_one_received_field() {
    let house = House::new();
    let id = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
    house.pass().await;
    let taken = house.taken();
    assert_eq!(taken.len(), 1);
    assert_eq!((taken[0].host.as_str(), taken[0].port), ("mx1.partner.example", 25));
    let (head, body) = taken[0].content.split_at(taken[0].content.len() - BODY.len());
    assert_eq!(body, BODY);
    let head = String::from_utf8(head.to_vec()).unwrap();
    assert!(head.starts_with("Received: ") && head.ends_with("\r\n"), "{head}");
    let fields = head.split("\r\n").filter(|l| !l.is_empty() && !l.starts_with([' ', '\t']));
    assert_eq!(fields.count(), 1, "{head}");
    assert_eq!(taken[0].transaction.size, taken[0].content.len() as u64);
    let row = house.row(id).await;
    assert!(matches!(row.state, RecipientState::Delivered { .. }), "{row:?}");
    assert_eq!(row.why.unwrap().reason, Reason::LevelMet);
    let attempts = house.store.attempts(id, 0).await.unwrap();
    assert_eq!(attempts.len(), 1);
    assert!(attempts[0].tls.is_some() && !attempts[0].verified);
}

#[tokio::test]
async fn policy_marks_and_rules_strip_and_nothing_else_changes() {
    let house = House::new();
    let rule = RuleVerdict { strip: Some("marker".to_owned()), ..RuleVerdict::protected() };
    house.submit_by(rule, Some("ann@example.org"), &["bob@marked.example"]).await;
    house.pass().await;
    let content = house.taken().remove(0).content;
    let subject = b"From: Ann <ann@example.org>\r\nSubject:";
    let at = content.windows(subject.len()).position(|w| w == subject).unwrap();
    assert!(content[..at].ends_with(b"\r\nSensitivity: company-confidential\r\n"));
    assert!(!content.windows(6).any(|w| w == b"MARKER"));
    assert!(content.ends_with(b"\r\n\r\n.dots\r\n\x00\xff and no end"));
}

#[tokio::test]
async fn a_stranger_gets_a_grant_and_one_notice_and_no_content() {
    let house = House::new();
    let id = house.submit(Some("ann@example.org"), &["eve@stranger.example"]).await;
    house.pass().await;
    assert!(house.taken().is_empty());
    let row = house.row(id).await;
    assert!(matches!(row.state, RecipientState::Granted { .. }), "{row:?}");
    assert_eq!(house.of_class(Class::Notice).await.len(), 1);
    assert_eq!(house.pass().await, 1);
    let taken = house.taken();
    assert_eq!(taken.len(), 1);
    assert!(taken[0].transaction.envelope_id.is_none());
    let text = String::from_utf8_lossy(&taken[0].content).into_owned();
    assert!(!text.contains("MARKER") && !text.starts_with("Received:"), "{text}");
    assert_eq!(house.pass().await, 0);
}

#[tokio::test]
async fn trouble_with_a_host_leads_to_the_next() {
    let first = [
        Play::Trouble(Trouble::Unreachable),
        Play::Trouble(Trouble::Handshake),
        Play::Trouble(Trouble::NoStartTls),
        Play::Lost(false),
        Play::Answers(vec![(421, "4.3.2 closing")]),
        Play::Answers(vec![(451, "4.7.1 greylisted")]),
    ];
    for play in first {
        let house = House::new();
        house.script("mx1.partner.example", std::slice::from_ref(&play));
        let id = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
        house.pass().await;
        let row = house.row(id).await;
        assert!(matches!(row.state, RecipientState::Delivered { .. }), "{play:?}: {row:?}");
        assert_eq!(house.taken()[0].host, "mx2.partner.example", "{play:?}");
        let attempts = house.store.attempts(id, 0).await.unwrap();
        assert_eq!(attempts.len(), 2, "{play:?}");
        assert!(attempts[0].error.is_some() && attempts[1].reply.is_some(), "{play:?}");
    }
}

#[tokio::test]
async fn where_no_host_takes_it_the_answer_of_the_last_one_that_spoke_counts() {
    let house = House::new();
    house.script("mx1.partner.example", &[Play::Answers(vec![(451, "4.7.1 greylisted")])]);
    house.script("mx2.partner.example", &[Play::Trouble(Trouble::Unreachable)]);
    let id = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
    house.pass().await;
    let row = house.row(id).await;
    assert!(matches!(row.state, RecipientState::Waiting { .. }), "{row:?}");
    let why = row.why.unwrap();
    assert_eq!(why.reason, Reason::PeerDeferred);
    assert!(why.text.contains("greylisted"), "{}", why.text);
    let attempts = house.store.attempts(id, 0).await.unwrap();
    let hosts: Vec<_> = attempts.iter().filter_map(|a| a.mx.as_deref()).collect();
    assert_eq!(hosts, ["mx2.partner.example", "mx1.partner.example"]);
    assert!(attempts[1].reply.as_deref().unwrap().contains("greylisted"));
}

#[tokio::test]
async fn when_all_hosts_fail_the_schedule_says_when_again() {
    let house = House::new();
    for host in ["mx1.partner.example", "mx2.partner.example"] {
        house.script(host, &[Play::Trouble(Trouble::Unreachable)]);
    }
    let id = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
    for minutes in [1, 5, 15, 15] {
        assert_eq!(house.pass().await, 1);
        let row = house.row(id).await;
        let RecipientState::Waiting { next } = row.state else { panic!("{row:?}") };
        let wait = next.duration_since(house.clock.now()).as_secs();
        let asked = minutes * 60;
        assert!((asked * 9 / 10 - 1..=asked * 11 / 10 + 1).contains(&wait), "{minutes}: {wait}");
        assert_eq!(row.first_failed, Some(start()));
        assert_eq!(house.pass().await, 0, "not due yet");
        house.wait(wait + 1);
    }
    assert_eq!(house.reason(id).await, Reason::Unreachable);
}

#[tokio::test]
async fn a_5xx_over_a_cleared_connection_is_reported_to_the_sender_inside() {
    let house = House::new();
    house.script("mx1.partner.example", &[Play::Answers(vec![(550, "5.1.1 no such user")])]);
    let id = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
    house.pass().await;
    let row = house.row(id).await;
    let expected = EnhancedStatus::permanent(1, 1);
    assert!(
        matches!(row.state, RecipientState::Bounced { status, .. } if status == expected),
        "{row:?}"
    );
    assert!(house.taken().is_empty(), "the second host is not asked");
    house.pass().await;
    let taken = house.taken();
    assert_eq!(taken.len(), 1);
    assert_eq!((taken[0].host.as_str(), taken[0].port), ("inside.example.org", 2026));
    assert_eq!(taken[0].transaction.sender, None);
    assert_eq!(taken[0].transaction.recipients, [address("ann@example.org")]);
    let text = String::from_utf8_lossy(&taken[0].content).into_owned();
    assert!(text.contains("5.1.1") && text.contains("bob@partner.example"), "{text}");
    assert!(!text.contains("MARKER"), "{text}");
}

#[tokio::test]
async fn dns_trouble_is_neither_a_bounce_nor_an_envelope() {
    let house = House::new();
    let trouble = MxFacts::Trouble("SERVFAIL".to_owned());
    house.dns.0.lock().unwrap().insert("partner.example".to_owned(), trouble);
    let id = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
    for _ in 0..20 {
        house.pass().await;
        house.wait(1000);
    }
    let row = house.row(id).await;
    assert!(matches!(row.state, RecipientState::Waiting { .. }), "{row:?}");
    assert_eq!(row.first_failed, None, "otherwise_after has not begun");
    assert_eq!(row.why.unwrap().reason, Reason::DnsTrouble);
    assert!(!house.store.attempts(id, 0).await.unwrap().is_empty(), "trace shows the look-ups");
}

#[tokio::test]
async fn lost_after_the_final_dot_waits_and_does_not_go_to_the_next_host() {
    let house = House::new();
    house
        .script("mx1.partner.example", &[Play::Lost(true), Play::Answers(vec![(250, "2.0.0 Ok")])]);
    let id = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
    house.pass().await;
    let row = house.row(id).await;
    assert!(matches!(row.state, RecipientState::Waiting { .. }), "{row:?}");
    assert!(house.taken().iter().all(|t| t.host == "mx1.partner.example"));
    house.wait(100);
    house.pass().await;
    assert!(matches!(house.row(id).await.state, RecipientState::Delivered { .. }));
}

#[tokio::test]
async fn each_recipient_has_its_own_outcome() {
    let house = House::new();
    let answers = vec![(250, "2.0.0 Ok"), (450, "4.2.0 greylisted"), (550, "5.1.1 unknown")];
    house.script("mx1.partner.example", &[Play::Answers(answers)]);
    let to = ["a@partner.example", "b@partner.example", "c@partner.example"];
    let id = house.submit(Some("ann@example.org"), &to).await;
    house.pass().await;
    let rows = house.rows(id).await;
    assert!(matches!(rows[0].state, RecipientState::Delivered { .. }), "{:?}", rows[0]);
    assert!(matches!(rows[1].state, RecipientState::Waiting { .. }), "{:?}", rows[1]);
    assert!(matches!(rows[2].state, RecipientState::Bounced { .. }), "{:?}", rows[2]);
    assert_eq!(house.of_class(Class::Report).await.len(), 1);
    house.script("mx1.partner.example", &[Play::Answers(vec![(250, "2.0.0 Ok")])]);
    house.wait(100);
    house.pass().await;
    let second = house.taken().into_iter().rfind(|t| t.host == "mx1.partner.example").unwrap();
    assert_eq!(second.transaction.recipients, [address("b@partner.example")]);
}

#[tokio::test]
async fn no_report_goes_to_the_null_sender() {
    let house = House::new();
    house.script("mx1.partner.example", &[Play::Answers(vec![(550, "5.1.1 no such user")])]);
    let id = house.submit(None, &["bob@partner.example"]).await;
    house.pass().await;
    assert!(matches!(house.row(id).await.state, RecipientState::Bounced { .. }));
    assert!(house.of_class(Class::Report).await.is_empty());
}

#[tokio::test]
async fn when_time_is_over_the_sender_hears_of_it() {
    // Unreachable ends by the policy's decision, 4xx by ours.
    let plays = [Play::Trouble(Trouble::Dns), Play::Answers(vec![(451, "4.3.0 later")])];
    for play in plays {
        let house = House::new();
        for host in ["mx1.partner.example", "mx2.partner.example"] {
            house.script(host, std::slice::from_ref(&play));
        }
        let id = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
        house.pass().await;
        house.wait(120 * 3600 - 60);
        house.pass().await;
        let row = house.row(id).await;
        let RecipientState::Waiting { next } = row.state else { panic!("{play:?}: {row:?}") };
        assert_eq!(next, later(start(), SignedDuration::from_hours(120)), "once more at the end");
        let warnings = house.of_class(Class::Report).await.len();
        assert_eq!(warnings, 1, "{play:?}: late, and said so");
        house.wait(60);
        house.pass().await;
        let row = house.row(id).await;
        assert!(matches!(row.state, RecipientState::Expired { .. }), "{play:?}: {row:?}");
        assert_eq!(house.of_class(Class::Report).await.len(), 2, "{play:?}");
    }
}

#[tokio::test]
async fn while_the_clock_is_in_doubt_no_mail_is_given_up() {
    for (domain, play) in [
        ("partner.example", Play::Trouble(Trouble::Dns)),
        ("partner.example", Play::Answers(vec![(451, "4.3.0 later")])),
        ("bounced.example", Play::Trouble(Trouble::NoStartTls)),
    ] {
        let house = House::new();
        for host in ["mx1", "mx2"] {
            house.script(&format!("{host}.{domain}"), std::slice::from_ref(&play));
        }
        let to = format!("bob@{domain}");
        let id = house.submit(Some("ann@example.org"), &[&to]).await;
        house.pass().await;
        house.set_clock(SignedDuration::from_hours(60 * 24));
        for _ in 0..23 {
            house.pass().await;
            let row = house.row(id).await;
            assert!(matches!(row.state, RecipientState::Waiting { .. }), "{play:?}: {row:?}");
            house.wait(3600);
        }
        house.relay.ports().vault.confirm_clock().await.unwrap();
        house.pass().await;
        let row = house.row(id).await;
        assert!(!row.state.is_open(), "{play:?}: {row:?}");
    }
}

#[tokio::test]
async fn while_the_clock_is_in_doubt_mail_is_delivered() {
    let house = House::new();
    house.set_clock(SignedDuration::from_hours(60 * 24));
    let id = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
    let sealed = house.submit(Some("ann@example.org"), &["bob@stranger.example"]).await;
    house.pass().await;
    assert!(matches!(house.row(id).await.state, RecipientState::Delivered { .. }));
    assert!(matches!(house.row(sealed).await.state, RecipientState::Granted { .. }));
}

#[tokio::test]
async fn a_delay_is_reported_once() {
    let house = House::new();
    for host in ["mx1.partner.example", "mx2.partner.example"] {
        house.script(host, &[Play::Answers(vec![(451, "4.3.0 later")])]);
    }
    let id = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
    house.pass().await;
    assert!(!house.row(id).await.warned);
    for _ in 0..3 {
        house.wait(4 * 3600);
        house.pass().await;
    }
    assert!(house.row(id).await.warned);
    assert_eq!(house.of_class(Class::Report).await.len(), 1);
}

#[tokio::test]
async fn a_level_that_is_not_met_for_otherwise_after_ends_in_the_envelope() {
    let house = House::new();
    for host in ["mx1.partner.example", "mx2.partner.example"] {
        house.script(host, &[Play::Trouble(Trouble::NoStartTls)]);
    }
    let id = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
    house.pass().await;
    let row = house.row(id).await;
    assert!(matches!(row.state, RecipientState::Waiting { .. }), "{row:?}");
    house.wait(3700);
    house.pass().await;
    let row = house.row(id).await;
    assert!(matches!(row.state, RecipientState::Granted { .. }), "{row:?}");
    assert_eq!(row.why.unwrap().reason, Reason::LevelNotMet);
    assert!(house.taken().is_empty());
}

#[tokio::test]
async fn a_refused_notice_ends_the_grant_and_is_reported() {
    let house = House::new();
    house.script("mx1.stranger.example", &[Play::Answers(vec![(550, "5.1.1 no such user")])]);
    let id = house.submit(Some("ann@example.org"), &["eve@stranger.example"]).await;
    house.pass().await;
    house.pass().await;
    let RecipientState::Granted { grant, .. } = house.row(id).await.state else { panic!() };
    let grant = house.relay.ports().people.grant(grant).await.unwrap().unwrap();
    assert_eq!(grant.state, GrantState::Recalled);
    let reports = house.of_class(Class::Report).await;
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].1[0].address, address("ann@example.org"));
}

#[tokio::test]
async fn mail_for_our_own_domain_goes_inside() {
    let house = House::new();
    let id = house.submit(Some("eve@stranger.example"), &["ann@example.org"]).await;
    house.pass().await;
    assert!(matches!(house.row(id).await.state, RecipientState::Delivered { .. }));
    assert_eq!(house.reason(id).await, Reason::Inside);
    let taken = house.taken();
    assert_eq!((taken[0].host.as_str(), taken[0].port), ("inside.example.org", 2026));
}

#[tokio::test]
async fn how_tls_went_is_told_of_outside_hosts_alone() {
    let house = House::new();
    house.script("mx1.partner.example", &[Play::Trouble(Trouble::NoStartTls)]);
    house.script("mx1.lost.example", &[Play::Trouble(Trouble::Unreachable)]);
    let to = ["bob@partner.example", "ann@example.org", "eve@stranger.example"];
    house.submit(Some("ann@example.org"), &to).await;
    house.pass().await;
    // The stranger's notice: no TLS there, and the level does not ask for it.
    house.pass().await;
    let told: Vec<_> = house.dns.1.lock().unwrap().iter().map(summary).collect();
    let mut sorted = told.clone();
    sorted.sort();
    assert_eq!(
        sorted,
        [
            "partner.example mx1.partner.example Some(StarttlsNotSupported)",
            "partner.example mx2.partner.example None",
            "stranger.example mx1.stranger.example Some(StarttlsNotSupported)",
        ],
        "nothing of the inside host"
    );
    house.dns.1.lock().unwrap().clear();
    house.submit(Some("ann@example.org"), &["eve@lost.example"]).await;
    house.pass().await;
    house.pass().await;
    let told: Vec<_> = house.dns.1.lock().unwrap().iter().map(summary).collect();
    assert_eq!(
        told,
        ["lost.example mx2.lost.example Some(StarttlsNotSupported)"],
        "a host that can't be reached says nothing of TLS"
    );
}

#[tokio::test]
async fn the_sessions_of_reports_are_not_told() {
    let house = House::new();
    let sender = "ann@elsewhere.example";
    house.script("mx1.partner.example", &[Play::Answers(vec![(550, "5.1.1 no")])]);
    house.submit(Some(sender), &["bob@partner.example"]).await;
    house.pass().await;
    house.dns.1.lock().unwrap().clear();
    house.pass().await;
    assert_eq!(house.taken().last().map(|t| t.host.as_str()), Some("mx1.elsewhere.example"));
    assert_eq!(house.dns.1.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn a_report_on_tls_goes_even_where_tls_fails() {
    for (class, goes) in [
        (Class::Notice, false),
        (Class::Code, false),
        (Class::Report, false),
        (Class::TlsReport, true),
    ] {
        let strict = RelaySettings { notification_level: Level::Encrypt, ..settings() };
        let house = House::with(0, strict);
        for host in ["mx1.lost.example", "mx2.lost.example"] {
            house.script(host, &[Play::Plaintext]);
        }
        let id = QueueId::new(1, [1; 10]);
        let facts = MessageFacts::own(id, class, start(), Needs::default());
        let vault = &house.relay.ports().vault;
        let sealed = vault.seal_own(
            facts,
            vec![address("tls@lost.example")],
            &MailData::repaired(b"From: x\r\n\r\n"),
        );
        house.store.accept(sealed.unwrap()).await.unwrap();
        house.pass().await;
        assert_eq!(house.taken().len(), usize::from(goes), "{class:?}");
        let told = house.dns.1.lock().unwrap().len();
        assert_eq!(told == 0, matches!(class, Class::Report | Class::TlsReport), "{class:?}");
    }
}

fn summary(note: &SessionNote) -> String {
    let result: Option<ResultType> = note.failure.map(|failure| failure.result);
    format!("{} {} {result:?}", note.domain, note.mx.as_deref().unwrap_or("-"))
}
