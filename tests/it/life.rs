//! What becomes of messages when things go wrong: deferred, retried, bounced, restarted, rebuilt.

use crate::support::{
    dns::Records,
    house::{House, PARTNER_FILE},
    http::Visitor,
    sink::{Manner, Sink},
    smtp, wait_for,
};

const MESSAGE: &[u8] =
    b"From: a@example.org\r\nSubject: hidden\r\nMessage-ID: <m@example.org>\r\n\r\nhello\r\n";

fn outcome(house: &House, id: &str, word: &str) -> serde_json::Value {
    wait_for(&format!("outcome {word}"), || {
        let life = house.gateway.json(&["trace", id]);
        let all = life["recipients"].as_array()?.iter().all(|r| r["outcome"] == word);
        all.then_some(life)
    })
}

fn quick(settings: &mut crate::support::gateway::Settings) {
    settings.delivery = "retry = [\"1s\"]".to_owned();
}

#[test]
fn a_partner_whose_certificate_proves_nothing_gets_nothing() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[PARTNER_FILE], quick);
    let manner = Manner { tls: Some(house.pki.leaf("mx.elsewhere.test")), ..Manner::default() };
    let partner = Sink::start(house.partner_address(), manner);
    let id = smtp::send(house.gateway.smtp, "a@example.org", &["b@partner.test"], MESSAGE);
    let life = outcome(&house, &id, "deferred");
    let attempt = &life["recipients"][0]["attempts"][0];
    assert_eq!(attempt["tls"]["verified"], false);
    assert_eq!(attempt["tls"]["names"][0], "mx.elsewhere.test");
    assert!(partner.messages().is_empty());
    assert!(!String::from_utf8_lossy(&partner.bytes()).contains("MAIL"), "not even the envelope");
}

#[test]
fn a_partner_without_starttls_gets_nothing() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[PARTNER_FILE], quick);
    let partner = Sink::start(house.partner_address(), Manner::default());
    let id = smtp::send(house.gateway.smtp, "a@example.org", &["b@partner.test"], MESSAGE);
    outcome(&house, &id, "deferred");
    assert!(!String::from_utf8_lossy(&partner.bytes()).contains("MAIL"));
}

#[test]
fn the_envelope_follows_when_the_level_stays_unmet() {
    let dir = tempfile::tempdir().expect("temp dir");
    let policy = (
        "p.toml",
        "[[partner]]\ndomains = [\"stranger.test\"]\nlevel = \"encrypt\"\notherwise_after = \"2s\"\n",
    );
    let house = House::open(dir.path(), &[policy], quick);
    let id = smtp::send(house.gateway.smtp, "a@example.org", &["b@stranger.test"], MESSAGE);
    let life = outcome(&house, &id, "sealed");
    assert_eq!(life["recipients"][0]["reason"], "level-not-met");
    assert_eq!(house.mail_to_stranger(1).from, "<>");
}

#[test]
fn the_second_exchanger_takes_over() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[PARTNER_FILE], quick);
    let hosts = [(10, "mx1.partner.test", "127.0.20.12"), (20, "mx.partner.test", "127.0.20.11")];
    house.zone.mail("partner.test", &hosts);
    let manner = Manner { tls: Some(house.pki.leaf("mx.partner.test")), ..Manner::default() };
    let partner = Sink::start(house.partner_address(), manner);
    let id = smtp::send(house.gateway.smtp, "a@example.org", &["b@partner.test"], MESSAGE);
    let life = outcome(&house, &id, "delivered");
    let attempts = life["recipients"][0]["attempts"].as_array().expect("attempts");
    assert_eq!(attempts[0]["mx"], "mx1.partner.test");
    assert_eq!(attempts[1]["mx"], "mx.partner.test");
    assert_eq!(partner.messages().len(), 1);
}

#[test]
fn trouble_in_the_dns_defers_and_a_missing_domain_bounces_by_the_inside_host() {
    let dir = tempfile::tempdir().expect("temp dir");
    let policy = (
        "p.toml",
        "[[partner]]\ndomains = [\"broken.test\", \"gone.test\", \"null.test\"]\nlevel = \"encrypt\"\n",
    );
    let house = House::open(dir.path(), &[policy], quick);
    house.zone.set("broken.test", Records { broken: true, ..Records::default() });
    house.zone.set("null.test", Records { mx: vec![(0, String::new())], ..Records::default() });
    let broken = smtp::send(house.gateway.smtp, "a@example.org", &["b@broken.test"], MESSAGE);
    let life = outcome(&house, &broken, "deferred");
    assert_eq!(life["recipients"][0]["reason"], "dns-trouble");

    let gone = smtp::send(house.gateway.smtp, "a@example.org", &["b@gone.test"], MESSAGE);
    outcome(&house, &gone, "bounced");
    let null = smtp::send(house.gateway.smtp, "a@example.org", &["b@null.test"], MESSAGE);
    outcome(&house, &null, "bounced");
    let reports = wait_for("two reports", || {
        let reports = house.inside.messages();
        (reports.len() == 2).then_some(reports)
    });
    for (report, status) in reports.iter().zip(["5.1.2", "5.1.10"]) {
        assert_eq!((report.from.as_str(), report.to[0].as_str()), ("<>", "<a@example.org>"));
        let text = String::from_utf8_lossy(&report.content);
        assert!(text.contains(&format!("Status: {status}")), "{text}");
        assert!(text.contains("<m@example.org>") && !text.contains("hidden"), "{text}");
        assert!(!text.contains("hello"), "{text}");
    }
}

#[test]
fn a_refused_recipient_is_reported_and_the_vault_keeps_nothing_of_an_undeliverable_one() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[], quick);
    house.zone.mail("full.test", &[(10, "mx.full.test", "127.0.20.41")]);
    let address = format!("127.0.20.41:{}", house.port).parse().expect("address");
    let manner = Manner { rcpt: Some("550 5.1.1 no such user".to_owned()), ..Manner::default() };
    let _refusing = Sink::start(address, manner);
    let id = smtp::send(house.gateway.smtp, "a@example.org", &["nobody@full.test"], MESSAGE);
    let report = wait_for("the report", || house.inside.messages().pop());
    let text = String::from_utf8_lossy(&report.content).into_owned();
    assert!(text.contains("nobody@full.test") && text.contains("5.1.1"), "{text}");
    wait_for("an empty vault", || {
        let vault = house.gateway.json(&["vault", "list"]);
        vault.as_array()?.is_empty().then_some(())
    });
    let life = outcome(&house, &id, "bounced");
    assert_eq!(life["recipients"][0]["reason"], "notice-refused", "not sealed: nobody has it");
    let asked = house.gateway.ask(&["trace", "NoBody@FULL.test"]);
    assert!(asked.status.success(), "an address in any case");
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut house = House::open(dir.path(), &[PARTNER_FILE], quick);
    let ids: Vec<_> = (0..20)
        .map(|n| {
            let message = format!("Subject: {n}\r\n\r\nnumber {n}\r\n");
            smtp::send(house.gateway.smtp, "a@example.org", &["b@partner.test"], message.as_bytes())
        })
        .collect();
    house.gateway.kill();
    house.gateway.run();
    let listed = house.gateway.json(&["queue", "list"]);
    let listed: Vec<_> =
        listed.as_array().expect("an array").iter().map(|m| m["id"].clone()).collect();
    assert!(ids.iter().all(|id| listed.contains(&id.as_str().into())), "{listed:?}");
    let manner = Manner { tls: Some(house.pki.leaf("mx.partner.test")), ..Manner::default() };
    let partner = Sink::start(house.partner_address(), manner);
    wait_for("all of them", || (partner.messages().len() == 20).then_some(()));
}

#[test]
fn a_lost_book_is_rebuilt_from_the_bodies() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut house = House::open(dir.path(), &[PARTNER_FILE], quick);
    let waiting = smtp::send(house.gateway.smtp, "a@example.org", &["b@partner.test"], MESSAGE);
    let large = [MESSAGE, "a long line of words\r\n".repeat(30_000).as_bytes()].concat();
    smtp::send(house.gateway.smtp, "a@example.org", &["ada@stranger.test"], &large);
    house.mail_to_stranger(1);
    let refused = house.gateway.ask(&["vault", "rebuild"]);
    assert_eq!(refused.status.code(), Some(75), "not beside a running server");
    house.gateway.stop();

    let data = house.gateway.dir.join("data");
    std::fs::write(data.join("meta/db"), b"damaged").expect("damaged");
    let rebuilt = house.gateway.ask(&["vault", "rebuild"]);
    assert!(rebuilt.status.success(), "{}", String::from_utf8_lossy(&rebuilt.stderr));
    let aside = std::fs::read_dir(&data).expect("folder").any(|entry| {
        entry.expect("entry").file_name().to_string_lossy().starts_with("meta.damaged")
    });
    assert!(aside, "the old book is moved aside");

    house.gateway.run();
    outcome(&house, &waiting, "deferred");
    let notice = house.mail_to_stranger(2);
    let mut reader = Visitor::new(house.gateway.portal);
    let path = house.register(&mut reader, &notice, "a long enough password");
    let original = reader.get(&format!("{path}/original.eml"));
    assert_eq!(original.body, large);
}

#[test]
fn strangers_to_the_network_may_not_relay() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house =
        House::open(dir.path(), &[], |s| s.smtp = "clients = [\"192.0.2.0/24\"]".to_owned());
    let mut conversation = smtp::Conversation::open(house.gateway.smtp);
    conversation.say("EHLO somebody.test", "250");
    conversation.say("MAIL FROM:<a@example.org>", "554 5.7.1");
}

#[test]
fn a_rule_rejects_at_the_end_of_data_and_another_lets_pass() {
    let dir = tempfile::tempdir().expect("temp dir");
    let rules = (
        "rules.toml",
        "[[rule]]\nwhen = { sender = \"robot@example.org\" }\naction = \"reject\"\n\
         [[rule]]\nwhen = { recipient = \"stranger.test\" }\naction = \"pass\"\n",
    );
    let house = House::open(dir.path(), &[rules], quick);
    let mut conversation = smtp::Conversation::open(house.gateway.smtp);
    conversation.say("EHLO mta.example.org", "250");
    conversation.say("MAIL FROM:<robot@example.org>", "250");
    conversation.say("RCPT TO:<b@stranger.test>", "250");
    conversation.say("DATA", "354");
    conversation.raw(b"Subject: x\r\n\r\nx\r\n.\r\n");
    conversation.expect("550 5.7.1");

    smtp::send(house.gateway.smtp, "a@example.org", &["b@stranger.test"], MESSAGE);
    let passed = house.mail_to_stranger(1);
    assert!(String::from_utf8_lossy(&passed.content).contains("hello"));
    assert!(house.gateway.json(&["vault", "list"]).as_array().expect("an array").is_empty());
}

#[test]
fn a_sender_who_wants_no_report_gets_none() {
    let dir = tempfile::tempdir().expect("temp dir");
    let policy = ("p.toml", "[[partner]]\ndomains = [\"full.test\"]\nlevel = \"opportunistic\"\n");
    let house = House::open(dir.path(), &[policy], quick);
    for domain in ["full.test", "sealed.test"] {
        house.zone.mail(domain, &[(10, "mx.full.test", "127.0.20.41")]);
    }
    let address = format!("127.0.20.41:{}", house.port).parse().expect("address");
    let manner = Manner { rcpt: Some("550 5.1.1 no such user".to_owned()), ..Manner::default() };
    let _refusing = Sink::start(address, manner);
    let mut conversation = smtp::Conversation::open(house.gateway.smtp);
    conversation.say("EHLO mta.example.org", "250");
    conversation.say("MAIL FROM:<a@example.org>", "250");
    for domain in ["full.test", "sealed.test"] {
        conversation.say(&format!("RCPT TO:<quiet@{domain}> NOTIFY=NEVER"), "250");
        conversation.say(&format!("RCPT TO:<late@{domain}> NOTIFY=DELAY"), "250");
        conversation.say(&format!("RCPT TO:<loud@{domain}> NOTIFY=FAILURE"), "250");
    }
    conversation.say("DATA", "354");
    conversation.raw(MESSAGE);
    conversation.raw(b".\r\n");
    conversation.expect("250 2.0.0 Ok: queued as ");
    let reports = wait_for("two reports, and nothing left to do", || {
        let done = house.gateway.json(&["queue", "list"]).as_array()?.is_empty()
            && house.gateway.json(&["vault", "list"]).as_array()?.is_empty();
        let reports = house.inside.messages();
        (done && reports.len() >= 2).then_some(reports)
    });
    assert_eq!(reports.len(), 2);
    for report in reports {
        let text = String::from_utf8_lossy(&report.content).into_owned();
        assert!(text.contains("loud@"), "{text}");
        assert!(!text.contains("quiet@") && !text.contains("late@"), "{text}");
    }
}
