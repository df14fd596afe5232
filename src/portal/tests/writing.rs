//! What people write: where it may go, what it becomes, what is told of it.
use super::{
    assert_errors_are_bound, assert_whole_page,
    world::{Answer, Browser, Kept, MAX_REPLY, World, address},
};
use crate::{
    mail::{EnhancedStatus, QueueId, header::Fields},
    store::{Ask, Filter, Outcome, PeopleStore, QueueStore, RecipientState, Room, Settle},
};
use jiff::SignedDuration;
use mail_parser::{MessageParser, MimeHeaders};

const ANN: &str = "ann@clinic.example";
const MAIL: &[u8] = b"From: Nurse Joy <nurse@example.org>\r\nTo: ann@clinic.example, doctor@example.org\r\n\
    Cc: bob@else.example, team@example.org\r\nSubject: Your results\r\nMessage-ID: <one@example.org>\r\n\
    References: <zero@example.org>\r\n\r\nAll is well.\r\n\r\nSee you.\r\n";

async fn opened<'a>(world: &'a World, message: &[u8]) -> (Browser<'a>, Kept) {
    let kept = world.keep(ANN, message).await;
    let mut browser = world.registered(ANN, &kept).await;
    assert_eq!(browser.get(&kept.page()).await.status, 200);
    (browser, kept)
}

/// The letters that went in by the door, oldest first: id, reverse-path and recipients.
async fn letters(world: &World) -> Vec<(QueueId, Option<String>, Vec<String>)> {
    let filter = Filter { sender: Some(address(ANN)), ..Filter::default() };
    let all = world.store.list(&filter, None, 1000).await.unwrap();
    let names = |rows: &[crate::store::RecipientRow]| {
        rows.iter().map(|row| row.address.to_string()).collect()
    };
    all.iter()
        .map(|(row, to)| {
            (row.facts.id, row.facts.sender.as_ref().map(ToString::to_string), names(to))
        })
        .collect()
}

fn sent(answer: &Answer) -> String {
    assert_eq!(answer.status, 303, "{}", answer.text());
    answer.header("location").unwrap().to_owned()
}

/// The letter as its author's own copy has it.
async fn copy(browser: &mut Browser<'_>, page: &str) -> Vec<u8> {
    let answer = browser.get(&format!("{page}/original.eml")).await;
    assert_eq!(answer.status, 200);
    answer.body
}

fn assert_is_anns_reply(message: &[u8], files: &[(&str, &[u8])]) {
    let head = Fields::parse(message);
    for (name, value) in [
        ("From", "\"Ann Ode (outside, by portal)\" <ann@clinic.example>"),
        ("Reply-To", "\"Ann Ode (outside, by portal)\" <ann@clinic.example>"),
        ("Sender", "<secure@example.org>"),
        ("To", "<nurse@example.org>"),
        ("Subject", "Re: Your results"),
        ("In-Reply-To", "<one@example.org>"),
        ("References", "<zero@example.org> <one@example.org>"),
        ("Importance", "high"),
        ("X-Priority", "1 (Highest)"),
    ] {
        assert_eq!(head.all(name), [value], "{name}");
    }
    let parsed = MessageParser::new().parse(message).unwrap();
    assert_eq!(parsed.body_text(0).unwrap(), "Thank you!\r\n\r\nAnn\r\n");
    let parts: Vec<_> = parsed.attachments().collect();
    assert_eq!(parts.len(), 3);
    for (part, (name, bytes)) in parts.iter().zip(files) {
        assert_eq!(part.attachment_name(), Some(*name));
        assert!(part.contents() == *bytes, "{name}");
    }
}

#[tokio::test]
async fn a_reply_with_files_goes_to_the_sender_and_into_sent() {
    let world = World::new();
    let (mut browser, kept) = opened(&world, MAIL).await;
    let page = browser.get(&kept.page()).await.text();
    for way in ["reply", "reply?all=yes", "forward", "print"] {
        assert!(page.contains(&format!("href=\"{}/{way}\"", kept.page())), "{way}");
    }
    let form = browser.get(&format!("{}/reply", kept.page())).await;
    assert_whole_page(&form.text(), true);
    for part in
        ["value=\"nurse@example.org\"", "value=\"Re: Your results\"", "multipart&#x2f;form-data"]
    {
        let part = part.replace("&#x2f;", "/");
        assert!(form.text().contains(&part), "{part}");
    }
    assert!(!form.text().contains("All is well"), "the original is not repeated unasked");

    let large: Vec<u8> =
        (0..300_001_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let files: [(&str, &[u8]); 3] = [("scan.pdf", &large), ("Grüße.txt", b"hello"), ("empty", b"")];
    let fields = [
        ("to", "eve@evil.example"),
        ("subject", "Re: Your results"),
        ("body", "Thank you!\r\n\r\nAnn"),
        ("priority", "high"),
    ];
    let answer = browser.write(&format!("{}/reply", kept.page()), &fields, &files).await;
    let own = sent(&answer);

    let went = letters(&world).await;
    assert_eq!(went.len(), 1);
    assert_eq!(went[0].1.as_deref(), Some(ANN), "reports go to its author");
    assert_eq!(went[0].2, ["nurse@example.org"], "whatever `to` says");
    assert_is_anns_reply(&copy(&mut browser, &own).await, &files);

    let page = browser.get(&own).await.text();
    assert_whole_page(&page, true);
    assert!(page.contains("on its way") && page.contains("Thank you!"), "{page}");
    let list = browser.get("/sent").await.text();
    assert_whole_page(&list, true);
    assert!(list.contains(&own) && list.contains("Re: Your results"), "{list}");
    assert!(!browser.get("/inbox").await.text().contains(&own), "not among what was received");
    for (page, other) in [(kept.page(), &own), (own.clone(), &kept.page())] {
        let text = browser.get(&page).await.text();
        assert!(text.contains("This conversation") && text.contains(other.as_str()), "{page}");
    }
}

/// Form, `to`, `all`: the recipients, or words of the refusal; why.
type Way = (
    &'static str,
    &'static str,
    &'static str,
    Result<&'static [&'static str], &'static str>,
    &'static str,
);
const WAYS: &[Way] = &[
    ("reply", "", "", Ok(&["nurse@example.org"]), "`to` is not asked"),
    ("reply", "eve@evil.example", "", Ok(&["nurse@example.org"]), "nor heard"),
    (
        "reply",
        "",
        "yes",
        Ok(&["nurse@example.org", "doctor@example.org", "team@example.org"]),
        "to all of them inside, and to nobody else",
    ),
    ("forward", "doctor@example.org", "", Ok(&["doctor@example.org"]), "inside"),
    ("forward", "bob@else.example", "", Err("bob@else.example is not an address of"), "outside"),
    ("forward", "bob@sub.example.org", "", Err("is not an address of"), "a name below is another"),
    ("forward", "doctor@example.org, bob@else.example", "", Err("bob@else.example"), "one of two"),
    ("forward", "ann@clinic.example", "", Err("is not an address of"), "not even to oneself"),
    ("forward", "", "", Err("Write whom it is for"), "nobody"),
    (
        "compose",
        "Team <team@example.org>; x@example.org",
        "",
        Ok(&["team@example.org", "x@example.org"]),
        "several",
    ),
    ("compose", "bob@else.example", "", Err("has not written to you"), "a stranger"),
    ("compose", "doctor", "", Err("is not an e-mail address"), "no address"),
    ("compose", " ,", "", Err("Write whom it is for"), "nobody"),
];

#[tokio::test]
async fn a_letter_goes_where_it_may_and_nowhere_else() {
    let world = World::new();
    let (mut browser, kept) = opened(&world, MAIL).await;
    let mut count = 0;
    for (form, to, all, expected, why) in WAYS {
        let path = match *form {
            "compose" => "/compose".to_owned(),
            form => format!("{}/{form}", kept.page()),
        };
        world.clock.forward(SignedDuration::from_mins(2));
        let fields =
            [("to", *to), ("all", *all), ("subject", "A <b>word</b>"), ("body", "Dear & all")];
        let answer = browser.write(&path, &fields, &[]).await;
        match expected {
            Ok(recipients) => {
                sent(&answer);
                count += 1;
                let went = letters(&world).await;
                assert_eq!(went.last().unwrap().2, *recipients, "{why}");
            }
            Err(words) => {
                assert_eq!(answer.status, 422, "{why}");
                let page = answer.text();
                assert_whole_page(&page, true);
                assert_errors_are_bound(&page, &["to"]);
                assert!(page.contains(words), "{why}: {page}");
                assert!(
                    page.contains("Dear &amp; all") && page.contains("A &lt;b&gt;word"),
                    "kept"
                );
                assert!(to.trim_matches([' ', ',']).is_empty() || page.contains(to), "{why}: kept");
            }
        }
        assert_eq!(letters(&world).await.len(), count, "{why}");
    }
}

#[tokio::test]
async fn who_wrote_first_may_be_written_to_wherever_they_are() {
    let world = World::new();
    let (mut browser, kept) = opened(&world, MAIL).await;
    // The world's messages come from nurse@example.org; this one was handed in for somebody else.
    let outside = b"From: Bob <bob@else.example>\r\nSubject: x\r\n\r\nx\r\n";
    world.keep_from("bob@else.example", ANN, outside).await;
    let form = browser.get("/compose").await.text();
    for address in ["bob@else.example", "nurse@example.org"] {
        assert!(form.contains(&format!("<option value=\"{address}\">")), "{address}");
    }
    let form = browser.get(&format!("{}/forward", kept.page())).await.text();
    assert!(!form.contains("<option value=\"bob@else.example\">"), "forward inside only");
    let fields = [("to", "bob@else.example"), ("subject", "Hello"), ("body", "Hi")];
    sent(&browser.write("/compose", &fields, &[]).await);
    assert_eq!(letters(&world).await[0].2, ["bob@else.example"]);
}

/// A mailbox belongs to a person: correspondents are the account's, not the address's.
#[tokio::test]
async fn a_former_holders_correspondents_are_neither_offered_nor_written_to() {
    let world = World::new();
    drop(opened(&world, MAIL).await);
    let outside = b"From: Oncology <team@oncology.example>\r\nSubject: x\r\n\r\nx\r\n";
    world.keep_from("team@oncology.example", ANN, outside).await;
    world.store.remove_account(&address(ANN), world.clock_now()).await.unwrap();
    world.clock.forward(SignedDuration::from_mins(1));
    let newer = b"From: Bob <bob@else.example>\r\nSubject: y\r\n\r\ny\r\n";
    let newer = world.keep_from("bob@else.example", ANN, newer).await;
    let mut anew = world.registered(ANN, &newer).await;
    let form = anew.get("/compose").await.text();
    assert!(form.contains("<option value=\"bob@else.example\">"), "the account's own");
    for former in ["oncology.example", "Oncology", "nurse@example.org"] {
        assert!(!form.contains(former), "{former}");
    }
    let fields = [("to", "team@oncology.example"), ("body", "x")];
    let refused = anew.write("/compose", &fields, &[]).await;
    assert_eq!(refused.status, 422);
    assert!(refused.text().contains("has not written to you"));
}

#[tokio::test]
async fn what_a_message_says_of_itself_leads_no_reply_outside() {
    for (head, expected, why) in [
        (
            "From: a@example.org\r\nReply-To: eve@evil.example\r\n",
            "a@example.org",
            "Reply-To outside",
        ),
        ("From: a@example.org\r\nReply-To: desk@example.org\r\n", "desk@example.org", "inside"),
        ("From: eve@evil.example\r\n", "nurse@example.org", "From outside: who handed it in"),
        ("X: y\r\n", "nurse@example.org", "none: who handed it in"),
    ] {
        let world = World::new();
        let (mut browser, kept) = opened(&world, format!("{head}\r\nx\r\n").as_bytes()).await;
        sent(&browser.write(&format!("{}/reply", kept.page()), &[("body", "x")], &[]).await);
        assert_eq!(letters(&world).await[0].2, [expected], "{why}");
    }
}

#[tokio::test]
async fn what_is_forwarded_is_attached_as_it_came() {
    let world = World::new();
    let (mut browser, kept) = opened(&world, MAIL).await;
    let fields = [("to", "doctor@example.org"), ("body", "Please look."), ("quote", "yes")];
    let path = format!("{}/forward", kept.page());
    let own = sent(&browser.write(&path, &fields, &[("a.pdf", b"one")]).await);
    let message = copy(&mut browser, &own).await;
    let parsed = MessageParser::new().parse(&message).unwrap();
    assert_eq!(parsed.subject(), Some("Fwd: Your results"));
    let text = parsed.body_text(0).unwrap();
    for part in ["Please look.", "Forwarded message", "Nurse Joy", "> All is well."] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let parts: Vec<_> = parsed.attachments().collect();
    assert_eq!(parts[0].contents(), b"one");
    assert_eq!(parts[1].attachment_name(), Some("Your results.eml"));
    assert_eq!(parts[1].message().unwrap().raw_message(), MAIL);
}

/// What an older version stored with a bare CR does not leave as it is.
#[tokio::test]
async fn line_ends_of_an_old_message_are_repaired_where_it_is_forwarded() {
    let world = World::new();
    let old =
        b"From: nurse@example.org\r\nSubject: Old\r\n\r\nx\r.\rMAIL FROM:<ceo@example.org>\r\n\0\n";
    let (mut browser, kept) = opened(&world, old).await;
    let fields = [("to", "doctor@example.org"), ("body", "See\r.\r\0this.")];
    let path = format!("{}/forward", kept.page());
    let own = sent(&browser.write(&path, &fields, &[]).await);
    let message = copy(&mut browser, &own).await;
    assert!(crate::mail::data::is_mail_data(&message), "{}", message.escape_ascii());
    let parsed = MessageParser::new().parse(&message).unwrap();
    let original = parsed.attachments().next().unwrap().message().unwrap().raw_message();
    assert!(original.ends_with(b"x\r\n.\r\nMAIL FROM:<ceo@example.org>\r\n?\r\n"));
}

#[tokio::test]
async fn the_text_below_is_repeated_only_when_asked() {
    let world = World::new();
    let (mut browser, kept) = opened(&world, MAIL).await;
    let path = format!("{}/reply", kept.page());
    for (quote, low) in [("", "normal"), ("yes", "low")] {
        let fields = [("body", "Thanks"), ("quote", quote), ("priority", low)];
        // As simple programs send it.
        let answer = browser.post(&path, &fields).await;
        let message = copy(&mut browser, &sent(&answer)).await;
        let parsed = MessageParser::new().parse(&message).unwrap();
        let text = parsed.body_text(0).unwrap();
        assert!(text.starts_with("Thanks\r\n"));
        assert_eq!(text.contains("> All is well.\r\n> \r\n> See you."), quote == "yes", "{text}");
        assert_eq!(Fields::parse(&message).first("Importance").is_some(), low == "low");
        assert_eq!(parsed.attachment_count(), 0);
    }
}

#[tokio::test]
async fn a_refused_form_says_why_and_sends_nothing() {
    let world = World::new();
    let (mut browser, kept) = opened(&world, MAIL).await;
    let path = format!("{}/reply", kept.page());
    let typed: &[(&str, &str)] = &[("subject", "Kept subject"), ("body", "Kept text")];
    let (large, half) = (vec![0; MAX_REPLY as usize + 1], vec![0; MAX_REPLY as usize / 2]);
    let long = "x".repeat(251);
    type Fields<'a> = &'a [(&'a str, &'a str)];
    type Files<'a> = &'a [(&'a str, &'a [u8])];
    type Case<'a> = (Fields<'a>, Files<'a>, u16, &'a str, &'a str);
    let cases: &[Case<'_>] = &[
        (&[("subject", "Kept subject")], &[], 422, "body", "nothing written, no file"),
        (&[("subject", &long), ("body", "Kept text")], &[], 422, "subject", "a long subject"),
        (typed, &[("a.pdf", b"x"), ("tool.EXE", b"MZ")], 422, "files", "a type that is refused"),
        (typed, &[("tool.exe. ", b"MZ")], 422, "files", "and its disguise"),
        (typed, &[("big.bin", &large)], 413, "files", "too large"),
        (typed, &[("a", &half), ("b", &half), ("c", b"x")], 413, "files", "too large together"),
        (&[("subject", "forbidden"), ("body", "Kept text")], &[], 422, "", "a message rule"),
        (typed, &[("a", b"x"), ("b", b"x")], 303, "", "and in the end it goes"),
    ];
    for (fields, files, status, field, why) in cases {
        let answer = browser.write(&path, fields, files).await;
        assert_eq!(answer.status, *status, "{why}");
        let went = letters(&world).await.len();
        if *status == 303 {
            assert_eq!(went, 1, "{why}");
            continue;
        }
        assert_eq!(went, 0, "{why}");
        let page = answer.text();
        assert!(answer.whole, "{why}");
        assert_whole_page(&page, true);
        if !field.is_empty() {
            assert_errors_are_bound(&page, &[field]);
        }
        for (_, value) in *fields {
            assert!(page.contains(value), "{why}: {value} is kept");
        }
        assert!(page.contains("If you had chosen files, choose them again"), "{why}");
    }
}

#[tokio::test]
async fn forms_in_another_order_or_of_another_kind() {
    let world = World::new();
    let (mut browser, kept) = opened(&world, MAIL).await;
    let path = format!("{}/reply", kept.page());
    let late: [(&str, Option<&str>, &[u8]); 2] =
        [("files", Some("a"), b"x"), ("body", None, b"Kept text")];
    let answer = browser.post_parts(&path, &late).await;
    assert_eq!(answer.status, 422, "the text comes too late to stand before the file");
    assert!(answer.text().contains("Kept text"));
    let none: [(&str, Option<&str>, &[u8]); 4] = [
        ("body", None, b"With nothing chosen"),
        ("files", Some(""), b""),
        ("files", None, b""),
        ("unknown", None, b"x"),
    ];
    let own = sent(&browser.post_parts(&path, &none).await);
    let message = copy(&mut browser, &own).await;
    assert_eq!(MessageParser::new().parse(&message).unwrap().attachment_count(), 0);
    for (kind, body, status) in [
        ("text/plain", "body=x", 415),
        ("multipart/form-data; boundary=b", "--b\r\nnonsense", 400),
        ("multipart/form-data; boundary=b", "", 400),
    ] {
        let answer = browser.deliver_as("POST", &path, kind, body).await;
        assert_eq!(answer.status, status, "{kind} {body}");
        assert_whole_page(&answer.text(), true);
    }
    assert_eq!(letters(&world).await.len(), 1);
}

#[tokio::test]
async fn an_account_may_send_sixty_letters_in_an_hour() {
    let world = World::new();
    let (mut browser, kept) = opened(&world, MAIL).await;
    let path = format!("{}/reply", kept.page());
    for _ in 0..60 {
        sent(&browser.write(&path, &[("body", "x")], &[]).await);
    }
    let answer = browser.write(&path, &[("body", "Kept text")], &[("a", b"x")]).await;
    assert_eq!(answer.status, 429);
    assert!(answer.header("retry-after").is_some() && answer.text().contains("Kept text"));
    world.clock.forward(SignedDuration::from_mins(59));
    browser.get("/inbox").await;
    world.clock.forward(SignedDuration::from_mins(2));
    sent(&browser.write(&path, &[("body", "x")], &[]).await);
}

/// Settles the newest letter as the relay would.
async fn settle(world: &World, state: RecipientState) {
    let (now, lease) = (world.clock_now(), SignedDuration::from_mins(5));
    let claimed = world.store.claim(Ask { now, max: 100, lease, room: Room::endless() }).await;
    let mut claims = claimed.unwrap().claims.into_iter();
    let claim = claims.find(|claim| claim.message.facts.sender.is_some()).unwrap();
    let outcomes = claim.recipients.iter().map(|row| Outcome {
        index: row.index,
        state: state.clone(),
        why: None,
        attempts: vec![],
        first_failed: None,
        warned: false,
        faults: 0,
        grant: None,
    });
    let outcomes = outcomes.collect();
    let settle = Settle {
        token: claim.token,
        id: claim.message.facts.id,
        outcomes,
        spawn: vec![],
        recall: None,
    };
    world.store.settle(settle).await.unwrap();
}

#[tokio::test]
async fn sent_tells_what_became_of_a_letter() {
    let world = World::new();
    let (mut browser, kept) = opened(&world, MAIL).await;
    let path = format!("{}/reply", kept.page());
    let at = world.vault.clock.now();
    for (state, words) in [
        (RecipientState::Delivered { at, reply: "250 2.0.0 Ok".into() }, "delivered"),
        (
            RecipientState::Bounced { at, status: EnhancedStatus::permanent(1, 1) },
            "could not be delivered",
        ),
        (RecipientState::Expired { at }, "could not be delivered"),
    ] {
        let own = sent(&browser.write(&path, &[("body", "x")], &[]).await);
        assert!(browser.get(&own).await.text().contains("on its way"));
        settle(&world, state).await;
        for page in [&own, "/sent"] {
            let text = browser.get(page).await.text();
            assert!(text.contains(words), "{page}: {text}");
        }
    }
    // The copy has the same end as everything here: its time.
    let own = sent(&browser.write(&path, &[("body", "x")], &[]).await);
    world.clock.forward(SignedDuration::from_hours(31 * 24));
    let sign_in = [("email", ANN), ("password", super::world::PASSWORD)];
    browser.post("/login", &sign_in).await;
    assert_eq!(browser.get(&own).await.status, 410);
    assert!(browser.get("/sent").await.text().contains("A message that is gone"));
}

#[tokio::test]
async fn a_copy_is_its_authors_alone() {
    let world = World::new();
    let (mut browser, kept) = opened(&world, MAIL).await;
    let own = sent(&browser.write(&format!("{}/reply", kept.page()), &[("body", "x")], &[]).await);
    let bob = world.keep("bob@else.example", MAIL).await;
    let mut other = world.registered("bob@else.example", &bob).await;
    for end in ["", "/original.eml", "/reply", "/print"] {
        assert_eq!(other.get(&format!("{own}{end}")).await.status, 404, "{end}");
    }
    assert!(!other.get("/sent").await.text().contains(&own));

    world.store.remove_account(&address(ANN), world.clock_now()).await.unwrap();
    world.clock.forward(SignedDuration::from_mins(1));
    let newer = world.keep(ANN, MAIL).await;
    let mut anew = world.registered(ANN, &newer).await;
    assert_eq!(anew.get(&own).await.status, 404, "who has the mailbox now did not write it");
    assert!(!anew.get("/sent").await.text().contains(&own));
}

#[tokio::test]
async fn a_conversation_holds_what_belongs_together() {
    let world = World::new();
    let (mut browser, first) = opened(&world, MAIL).await;
    let own = sent(&browser.write(&format!("{}/reply", first.page()), &[("body", "x")], &[]).await);
    let mine = String::from_utf8(copy(&mut browser, &own).await).unwrap();
    let mine = Fields::parse(mine.as_bytes()).message_id().unwrap();
    let mut keep = Vec::new();
    for (head, belongs, why) in [
        (format!("Subject: Other words\r\nIn-Reply-To: {mine}\r\n"), true, "answers mine"),
        ("Subject: Re: your RESULTS\r\n".to_owned(), true, "the same subject, and says Re"),
        ("Subject: Your results\r\n".to_owned(), false, "the same subject, but a new matter"),
        ("Subject: Re: Something else\r\n".to_owned(), false, "another subject"),
        ("References: <other@example.org>\r\n".to_owned(), false, "another thread"),
    ] {
        world.clock.forward(SignedDuration::from_secs(1));
        let message = format!("From: nurse@example.org\r\n{head}\r\nx\r\n");
        let kept = world.keep_through_the_door(ANN, message.as_bytes()).await;
        keep.push((kept, belongs, why));
    }
    world.clock.forward(SignedDuration::from_secs(1));
    let page = browser.get(&first.page()).await.text();
    let (_, thread) = page.split_once("This conversation").unwrap();
    assert!(thread.contains(&own) && thread.contains("You"));
    for (kept, belongs, why) in &keep {
        assert_eq!(thread.contains(&kept.page()), *belongs, "{why}");
    }
    let alone = browser.get(&keep[4].0.page()).await.text();
    assert!(!alone.contains("This conversation"), "no conversation with itself");
}

#[tokio::test]
async fn a_message_is_printed_alone() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut browser = world.registered(ANN, &kept).await;
    let print = format!("{}/print", kept.page());
    let page = browser.get(&print).await;
    assert_whole_page(&page.text(), true);
    assert!(page.text().contains("All is well.") && !page.text().contains("/reply\""));
}

#[tokio::test]
async fn what_was_typed_when_the_session_ended_is_given_back() {
    let world = World::new();
    let (mut browser, kept) = opened(&world, MAIL).await;
    browser.get("/compose").await;
    browser.cookies.clear();
    let path = format!("{}/reply", kept.page());
    let body = "A long letter.\r\n<b>With</b> a tag.";
    let answer = browser.write(&path, &[("body", body)], &[("a.txt", b"a file")]).await;
    assert_eq!(answer.status, 401);
    let page = answer.text();
    assert_whole_page(&page, false);
    assert!(page.contains("A long letter.\r\n&lt;b&gt;With&lt;&#x2f;b&gt; a tag."), "{page}");
    assert_eq!(letters(&world).await.len(), 0);
    let nothing = browser.write(&path, &[("body", " ")], &[]).await;
    assert_eq!(nothing.status, 401);
    assert!(!nothing.text().contains("textarea"), "there is nothing to give back");
}
