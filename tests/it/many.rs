//! A message to a thousand recipients, and a queue of very many messages.

use crate::support::{
    gateway::{Gateway, Settings},
    house::House,
    parameter, program,
    sink::{Manner, Sink},
    smtp::Conversation,
    wait_minutes,
};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use restante::{
    clock::{Clock, SystemClock},
    mail::{QueueId, Wishes},
    policy::RuleVerdict,
    seal::{Class, MessageFacts, header::Needs},
    store::{
        NewBody, NewMessage, QueueStore,
        sled::{Options, SledStore},
    },
};
use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Output},
    time::Instant,
};

const RECIPIENTS: usize = 1000;

/// Hands a message to so many recipients in; returns its queue id.
fn hand_in(house: &House, recipients: &[String]) -> String {
    let mut conversation = Conversation::open(house.gateway.smtp);
    conversation.say("EHLO mta.example.org", "250");
    conversation.say("MAIL FROM:<a@example.org>", "250");
    let commands: String = recipients.iter().map(|r| format!("RCPT TO:<{r}>\r\n")).collect();
    conversation.raw(commands.as_bytes());
    for _ in recipients {
        conversation.expect("250 2.1.5");
    }
    conversation.say("DATA", "354");
    conversation.raw(b"Subject: to many\r\n\r\nhello\r\n.\r\n");
    let reply = conversation.expect("250 2.0.0 Ok: queued as ");
    reply.trim_end().rsplit(' ').next().expect("an id").to_owned()
}

/// Waits until all of its recipients have come to that outcome.
fn wait_for_all(house: &House, id: &str, outcome: &str) {
    wait_minutes(5, &format!("{outcome} for all"), || {
        let life = house.gateway.json(&["trace", id]);
        let all = life["recipients"].as_array()?;
        assert_eq!(all.len(), RECIPIENTS);
        all.iter().all(|r| r["outcome"] == outcome).then_some(())
    });
}

fn policy() -> (&'static str, &'static str) {
    (
        "p.toml",
        "[[partner]]\ndomains = [\"partner.test\", \".many.test\", \"full.test\"]\nlevel = \"opportunistic\"\n",
    )
}

/// How often each recipient was named to a host.
fn named(sink: &Sink) -> BTreeMap<String, usize> {
    let mut named = BTreeMap::new();
    for recipient in sink.messages().into_iter().flat_map(|message| message.to) {
        *named.entry(recipient).or_default() += 1;
    }
    named
}

#[test]
fn a_thousand_recipients_in_one_domain_and_in_many() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[policy()], |_| {});
    let partner = Sink::start(house.partner_address(), Manner::default());
    for domain in 0..RECIPIENTS / 10 {
        house.zone.mail(&format!("d{domain}.many.test"), &[(10, "mx.partner.test", "127.0.20.11")]);
    }
    let local = "a-rather-long-name".repeat(3);
    let one = |number| format!("{local}{number}@partner.test");
    let many = |number| format!("{local}{number}@d{}.many.test", number / 10);
    let one: Vec<String> = (0..RECIPIENTS).map(one).collect();
    let many: Vec<String> = (0..RECIPIENTS).map(many).collect();
    for recipients in [&one, &many] {
        let id = hand_in(&house, recipients);
        wait_for_all(&house, &id, "delivered");
    }
    let named = named(&partner);
    assert_eq!(named.len(), 2 * RECIPIENTS);
    assert!(named.values().all(|count| *count == 1), "each once");
    let peak = house.gateway.peak_memory();
    println!("peak memory {} MiB", peak / 1024);
    assert!(peak < 100 * 1024, "peak memory {peak} KiB");
}

/// A report has its bounds, too: a thousand failures are told of in more than one.
#[test]
fn a_thousand_failures_are_all_reported() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[policy()], |_| {});
    house.zone.mail("full.test", &[(10, "mx.full.test", "127.0.20.41")]);
    let address = format!("127.0.20.41:{}", house.port).parse().expect("address");
    let refusal = format!("550 5.1.1 no such user{}", " here".repeat(40));
    let manner = Manner { rcpt: Some(refusal), ..Manner::default() };
    let _refusing = Sink::start(address, manner);
    let recipients: Vec<String> = (0..RECIPIENTS).map(|n| format!("r{n}@full.test")).collect();
    let id = hand_in(&house, &recipients);
    wait_for_all(&house, &id, "bounced");
    wait_minutes(2, "reports of all", || {
        let reports = house.inside.messages();
        let told = |report: &str| report.matches("Final-Recipient: rfc822; r").count();
        let told = reports.iter().map(|r| told(&String::from_utf8_lossy(&r.content)));
        (told.sum::<usize>() == RECIPIENTS).then_some(())
    });
}

#[test]
fn a_thousand_strangers_are_each_told_once() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[], |_| {});
    let recipients: Vec<String> = (0..RECIPIENTS).map(|n| format!("r{n}@stranger.test")).collect();
    let id = hand_in(&house, &recipients);
    wait_for_all(&house, &id, "sealed");
    wait_minutes(5, "a notice for each", || {
        (house.stranger.messages().len() == RECIPIENTS).then_some(())
    });
    let named = named(&house.stranger);
    assert_eq!(named.len(), RECIPIENTS);
    let vault = house.gateway.json(&["status"]);
    assert_eq!((&vault["vault"]["messages"], &vault["vault"]["grants"]), (&1.into(), &1000.into()));
}

/// How many messages wait: `RESTANTE_MANY=1000000` for the chapter on performance.
fn many() -> usize {
    usize::try_from(parameter("RESTANTE_MANY", 20_000)).expect("a number")
}

/// A message to one recipient at one of a thousand domains, due in an hour.
fn waiting(number: usize, now: Timestamp) -> NewMessage {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&(number as u64).to_be_bytes());
    let id = QueueId::new(u64::try_from(now.as_millisecond()).expect("after 1970"), random);
    let facts = MessageFacts {
        id,
        class: Class::Protected,
        sender: Some("somebody@example.org".parse().expect("an address")),
        arrived: now,
        message_id: Some(format!("<{number}.20261125@mail.example.org>")),
        client: None,
        needs: Needs::default(),
        envelope_id: None,
        sender_name: None,
        grant: None,
        rule: RuleVerdict::protected(),
        references: Vec::new(),
        wishes: Wishes::default(),
    };
    let recipient = format!("recipient{number}@domain{}.example", number % 1000);
    NewMessage {
        facts,
        recipients: vec![recipient.parse().expect("an address")],
        body: NewBody::Small(Bytes::from_static(&[0; 200])),
        size: 100,
        header_len: 50,
        due: now + SignedDuration::from_hours(1),
        copy: None,
        ring: None,
    }
}

/// Lays messages down as intake does, many at a time.
fn fill(data: &Path, count: usize, now: Timestamp) {
    let store = SledStore::open(data, Options::default()).expect("opens");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let accepts = stream::iter((0..count).map(|number| store.accept(waiting(number, now))));
    let accepted = accepts.buffer_unordered(512).try_for_each(|()| async { Ok(()) });
    runtime.block_on(accepted).expect("accepted");
}

/// A command of the program that may take so much memory (KiB of address space) and no more.
fn within(gateway: &Gateway, kib: u32, arguments: &str) -> Output {
    let script = format!("ulimit -v {kib}; exec \"$0\" --config \"$1\" {arguments}");
    let config = gateway.dir.join("restante.toml");
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).arg(program()).arg(config);
    let output = shell.output().expect("runs");
    assert!(output.status.success(), "{arguments}: {output:?}");
    output
}

#[test]
fn a_long_queue_is_opened_by_one_scan_and_listed_page_by_page() {
    let count = many();
    let dir = tempfile::tempdir().expect("temp dir");
    let mut gateway = Gateway::start(dir.path(), &Settings::default(), &[]);
    let bare = gateway.peak_memory();
    gateway.stop();
    let (now, begun) = (SystemClock.now(), Instant::now());
    fill(&gateway.dir.join("data"), count, now);
    println!("{count} messages laid down in {:?}", begun.elapsed());

    let begun = Instant::now();
    gateway.run();
    println!("ready after {:?}", begun.elapsed());
    let opened = gateway.peak_memory();
    let more = opened.saturating_sub(bare);
    println!("memory {bare} KiB without, {more} KiB more with them");
    // The book's cache, and what is known of each.
    let bound = 48 * 1024 + count as u64 * 1200 / 1024;
    assert!(more < bound, "{more} KiB for {count} messages, {bound} at most");

    let begun = Instant::now();
    let status = gateway.json(&["status"]);
    println!("status after {:?}", begun.elapsed());
    assert_eq!(status["queue"]["active"], count);
    let page = within(&gateway, 300_000, "queue list --limit 10 --json");
    let page: serde_json::Value = serde_json::from_slice(&page.stdout).expect("JSON");
    let page = page.as_array().expect("an array");
    assert_eq!(page.len(), 10);
    let last = page[9]["id"].as_str().expect("an id");
    let next = within(&gateway, 300_000, &format!("queue list --after {last} --limit 1 --json"));
    let next: serde_json::Value = serde_json::from_slice(&next.stdout).expect("JSON");
    assert_eq!(next[0]["recipients"][0]["address"], "recipient10@domain10.example");

    let begun = Instant::now();
    let all = within(&gateway, 300_000, "queue list");
    let lines = all.stdout.split(|&b| b == b'\n').filter(|line| !line.is_empty()).count();
    assert_eq!(lines, count + 1, "and a heading");
    println!("listed after {:?}", begun.elapsed());
    let listed = gateway.peak_memory();
    println!("memory {listed} KiB after that");
    assert!(listed < opened + 64 * 1024, "from {opened} to {listed} KiB");
    gateway.stop();
}

/// Recipients that were put off together come up again one by one, as their times differ. None is
/// forgotten because another of the same message and domain is at work just then.
#[test]
fn recipients_put_off_together_all_come_up_again() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[policy()], |settings| {
        settings.delivery = "retry = [\"2s\"]".to_owned();
    });
    let recipients: Vec<String> = (0..RECIPIENTS).map(|n| format!("r{n}@partner.test")).collect();
    let id = hand_in(&house, &recipients);
    wait_for_all(&house, &id, "deferred");
    let partner = Sink::start(house.partner_address(), Manner::default());
    wait_for_all(&house, &id, "delivered");
    assert!(named(&partner).values().all(|count| *count == 1), "each once");
}
