//! The second channel of pickup with real processes: phrases that senders give or are told, texts by
//! a real HTTP server, and a notice whose bounce is forged.

use crate::support::{
    gateway::Settings,
    house::{House, PARTNER_FILE, STRANGER, link_in},
    http::Visitor,
    sink::{Manner, Sink},
    smtp, wait_for,
};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{Arc, Mutex},
};

const PASSWORD: &str = "a long enough password";

fn message(field: &str) -> Vec<u8> {
    format!("From: a@example.org\r\nSubject: hidden\r\n{field}\r\nThe-secret\r\n").into_bytes()
}

/// Registers and is led to the proof; the place of the message.
fn led_to_proof(house: &House, reader: &mut Visitor) -> String {
    let notice = house.mail_to_stranger(1);
    let path = house.register(reader, &notice, PASSWORD);
    let page = reader.get(&path);
    assert_eq!((page.status, page.location()), (303, format!("{path}/prove")));
    let page = reader.get(&format!("{path}/prove"));
    assert_eq!(page.status, 200, "{}", page.text());
    assert!(!page.text().contains("The-secret"));
    path
}

#[test]
fn a_phrase_that_the_sender_gives_opens_and_never_leaves() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[PARTNER_FILE], |_| {});
    let manner = Manner { tls: Some(house.pki.leaf("mx.partner.test")), ..Manner::default() };
    let partner = Sink::start(house.partner_address(), manner);
    let letter = message("X-Restante-Pickup: phrase: blue steps seven\r\n");
    let to = ["b@partner.test", "c@stranger.test"];
    let id = smtp::send(house.gateway.smtp, "a@example.org", &to, &letter);
    let direct = wait_for("mail at the partner's", || partner.messages().pop());
    let direct = String::from_utf8(direct.content).expect("text");
    assert!(direct.ends_with("From: a@example.org\r\nSubject: hidden\r\n\r\nThe-secret\r\n"));

    let mut reader = Visitor::new(house.gateway.portal);
    let path = led_to_proof(&house, &mut reader);
    let wrong = reader.post(&format!("{path}/prove"), &[("phrase", "green steps seven")]);
    assert_eq!(wrong.status, 422);
    let right = reader.post(&format!("{path}/prove"), &[("phrase", "Blue Steps-Seven")]);
    assert_eq!((right.status, right.location()), (303, path.clone()));
    assert!(reader.get(&path).text().contains("The-secret"));
    let original = reader.get(&format!("{path}/original.eml")).text();
    assert!(!original.to_lowercase().contains("restante-pickup"), "{original}");

    let words = ["blue steps", "X-Restante-Pickup"];
    let seen = [house.stranger.bytes(), house.inside.bytes(), partner.bytes()].concat();
    let trace = house.gateway.json(&["trace", &id]).to_string();
    let seen = String::from_utf8_lossy(&seen).into_owned() + &trace;
    assert!(words.iter().all(|word| !seen.contains(word)), "{seen}");
    assert!(trace.contains("The reader needs the phrase"), "{trace}");
}

#[test]
fn a_rule_s_phrase_is_told_inside_and_opens() {
    let dir = tempfile::tempdir().expect("temp dir");
    let rules = (
        "rules.toml",
        "[[rule]]\nwhen = { subject = \"hidden\" }\naction = \"protect\"\npickup = \"phrase\"\n",
    );
    let house = House::open(dir.path(), &[rules], |_| {});
    smtp::send(house.gateway.smtp, "a@example.org", &["c@stranger.test"], &message(""));
    let report = wait_for("the sender's report", || house.inside.messages().pop());
    assert!(report.to[0].starts_with("<a@example.org>"), "{:?}", report.to);
    let text = String::from_utf8_lossy(&report.content).replace("=\r\n", "");
    let phrase = crate::matrix::phrase_in(&text);
    assert_eq!(phrase.split(' ').count(), 5, "{text}");
    let mut reader = Visitor::new(house.gateway.portal);
    let path = led_to_proof(&house, &mut reader);
    let right = reader.post(&format!("{path}/prove"), &[("phrase", &phrase)]);
    assert_eq!(right.status, 303, "{}", right.text());
    assert!(reader.get(&path).text().contains("The-secret"));
    assert!(!String::from_utf8_lossy(&house.stranger.bytes()).contains(&phrase));
}

/// A service that sends texts: keeps what it is posted, and answers with that status.
fn telephone(status: &'static str) -> (SocketAddr, Arc<Mutex<Vec<Value>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let kept: Arc<Mutex<Vec<Value>>> = Arc::default();
    let posted = Arc::clone(&kept);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { break };
            let mut reader = BufReader::new(stream.try_clone().expect("a handle"));
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && reader.read_until(b'\n', &mut head).is_ok() {}
            let head = String::from_utf8(head).expect("text").to_ascii_lowercase();
            assert!(head.starts_with("post /send http/1.1"), "{head}");
            assert!(head.contains("content-type: application/json"), "{head}");
            let length = head.split("content-length: ").nth(1).expect("a length");
            let length = length.split("\r\n").next().expect("a line").parse().expect("a number");
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("a body");
            posted.lock().expect("lock").push(serde_json::from_slice(&body).expect("JSON"));
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).expect("answered");
        }
    });
    (address, kept)
}

/// A house that sends texts by that service, and a reader before a message that asks for one.
fn texted(dir: &Path, service: SocketAddr) -> (House, Visitor, String) {
    let house = House::open(dir, &[], |settings: &mut Settings| {
        settings.notification = format!("sms = \"http://{service}/send\"");
    });
    let letter = message("X-Restante-Pickup: sms: +41 79 555 01 02\r\n");
    smtp::send(house.gateway.smtp, "a@example.org", &["c@stranger.test"], &letter);
    let mut reader = Visitor::new(house.gateway.portal);
    let path = led_to_proof(&house, &mut reader);
    (house, reader, path)
}

#[test]
fn a_code_by_text_message_opens() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (service, texts) = telephone("204 No Content");
    let (house, mut reader, path) = texted(dir.path(), service);
    let place = format!("{path}/prove");
    assert!(texts.lock().expect("lock").is_empty(), "none is sent unasked");
    let sent = reader.post(&place, &[("send", "yes")]);
    assert_eq!(sent.status, 200, "{}", sent.text());
    let text = wait_for("a text", || texts.lock().expect("lock").pop());
    assert_eq!(text["to"], "+41795550102");
    let text = text["text"].as_str().expect("text").to_owned();
    assert!(!text.contains("/m/") && !text.contains("http"), "{text}");
    let code: String = text.chars().take_while(char::is_ascii_digit).collect();
    assert_eq!(code.len(), 8, "{text}");
    let (first, last) = code.split_at(4);
    let right = reader.post(&place, &[("code", &format!("{first} {last}"))]);
    assert_eq!(right.status, 303, "{}", right.text());
    assert!(reader.get(&path).text().contains("The-secret"));
    let seen = [house.stranger.bytes(), house.inside.bytes()].concat();
    let seen = String::from_utf8_lossy(&seen);
    assert!(!seen.contains("5550102") && !seen.contains("555 01 02"), "{seen}");
}

#[test]
fn a_text_that_can_not_be_sent_becomes_a_phrase_that_the_sender_tells() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (service, texts) = telephone("503 Service Unavailable");
    let (house, mut reader, path) = texted(dir.path(), service);
    let place = format!("{path}/prove");
    let failed = reader.post(&place, &[("send", "yes")]);
    assert_eq!(failed.status, 503);
    let page = failed.text();
    assert!(page.contains("could not be sent") && page.contains("a@example.org"), "{page}");
    assert_eq!(texts.lock().expect("lock").len(), 2, "tried once more");
    assert_eq!(reader.get(&path).status, 303);
    let report = wait_for("the sender's report", || {
        let reports = house.inside.messages().into_iter();
        let reports = reports.map(|m| String::from_utf8_lossy(&m.content).replace("=\r\n", ""));
        reports.rev().find(|text| text.contains("could not be sent"))
    });
    let phrase = crate::matrix::phrase_in(&report);
    assert_eq!(phrase.split(' ').count(), 5, "{report}");
    let right = reader.post(&place, &[("phrase", &phrase)]);
    assert_eq!(right.status, 303, "{}", right.text());
    assert!(reader.get(&path).text().contains("The-secret"));
    assert!(!String::from_utf8_lossy(&house.stranger.bytes()).contains(&phrase));
}

#[test]
fn a_forged_bounce_of_the_notice_opens_nothing_and_is_told() {
    let dir = tempfile::tempdir().expect("temp dir");
    let policy = (
        "p.toml",
        "[[partner]]\ndomains = [\"partner.test\"]\nlevel = \"secure\"\notherwise_after = \"0s\"\n",
    );
    let house = House::open(dir.path(), &[policy], |settings| {
        settings.notification = "level = \"opportunistic\"".to_owned();
    });
    // He strips STARTTLS, looks at the notice, and refuses it in the partner's name.
    let manner = Manner { rcpt: Some("550 5.1.1 no such user".to_owned()), ..Manner::default() };
    let attacker = Sink::start(house.partner_address(), manner);
    let letter = message("");
    let id = smtp::send(house.gateway.smtp, "a@example.org", &["b@partner.test"], &letter);
    wait_for("the sender hears of it", || {
        let reports = house.inside.messages();
        let refused = |m: &crate::support::sink::Received| {
            String::from_utf8_lossy(&m.content).contains("no such user")
        };
        reports.iter().any(refused).then_some(())
    });
    assert!(!String::from_utf8_lossy(&attacker.bytes()).contains("The-secret"));
    let live = house.gateway.json(&["vault", "list"]);
    assert!(!live.to_string().contains(&id), "its grant is over: {live}");
    assert!(attacker.messages().is_empty(), "refused before its content");
    drop(attacker);
    // The same with the content taken first: he has the link, and the grant asks for the phrase.
    let taken = Sink::start(house.partner_address(), Manner::default());
    smtp::send(house.gateway.smtp, "a@example.org", &["b@partner.test"], &letter);
    let notice = wait_for("the notice", || taken.messages().pop());
    let mut visitor = Visitor::new(house.gateway.portal);
    let page = visitor.get(&link_in(&notice.content));
    assert!(page.status == 200 && !page.text().contains("The-secret"));
}

#[test]
fn a_partner_that_is_mended_gets_the_notice_that_waited_and_the_phrase_opens() {
    let dir = tempfile::tempdir().expect("temp dir");
    let policy = (
        "p.toml",
        "[[partner]]\ndomains = [\"stranger.test\"]\nlevel = \"secure\"\notherwise_after = \"0s\"\n",
    );
    let mut house = House::open(dir.path(), &[policy], |settings| {
        settings.delivery = "retry = [\"1s\"]".to_owned();
    });
    smtp::send(house.gateway.smtp, "a@example.org", &["c@stranger.test"], &message(""));
    let report = wait_for("the sender's report", || house.inside.messages().pop());
    let phrase = crate::matrix::phrase_in(&String::from_utf8_lossy(&report.content));
    wait_for("the notice was tried", || {
        let queued = house.gateway.json(&["queue", "list"]);
        let waits = |m: &Value| {
            let mut recipients = m["recipients"].as_array().into_iter().flatten();
            recipients.any(|r| r["address"] == "c@stranger.test" && r["attempts"] != 0)
        };
        queued.as_array().into_iter().flatten().any(waits).then_some(())
    });
    assert!(house.stranger.messages().is_empty(), "STARTTLS is stripped: it waits");
    let nowhere = Sink::start("127.0.0.1:0".parse().expect("address"), Manner::default());
    drop(std::mem::replace(&mut house.stranger, nowhere));
    let address = format!("{STRANGER}:{}", house.port).parse().expect("address");
    let tls = Some(house.pki.leaf("mx.stranger.test"));
    house.stranger = Sink::start(address, Manner { tls, ..Manner::default() });
    let mut reader = Visitor::new(house.gateway.portal);
    let path = led_to_proof(&house, &mut reader);
    let right = reader.post(&format!("{path}/prove"), &[("phrase", &phrase)]);
    assert_eq!(right.status, 303, "{}", right.text());
    assert!(reader.get(&path).text().contains("The-secret"));
    assert!(house.stranger.messages().iter().all(|mail| mail.over_tls), "notice and code");
    // The line is proved: the next message goes directly.
    smtp::send(house.gateway.smtp, "a@example.org", &["c@stranger.test"], &message(""));
    wait_for("mail itself", || {
        let mail = house.stranger.messages();
        mail.iter().any(|m| m.content.ends_with(b"The-secret\r\n")).then_some(())
    });
}

#[test]
fn what_the_sender_asked_for_outlives_a_rebuilt_index() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut house = House::open(dir.path(), &[], |_| {});
    let letter = message("X-Restante-Pickup: phrase: blue steps seven\r\n");
    smtp::send(house.gateway.smtp, "a@example.org", &["c@stranger.test"], &letter);
    house.mail_to_stranger(1);
    house.gateway.stop();
    let rebuilt = house.gateway.ask(&["vault", "rebuild"]);
    assert!(rebuilt.status.success(), "{}", String::from_utf8_lossy(&rebuilt.stderr));
    house.gateway.run();
    let notice = house.mail_to_stranger(2);
    let mut reader = Visitor::new(house.gateway.portal);
    let path = house.register(&mut reader, &notice, PASSWORD);
    assert_eq!(reader.get(&path).location(), format!("{path}/prove"));
    let right = reader.post(&format!("{path}/prove"), &[("phrase", "blue steps seven")]);
    assert_eq!(right.status, 303, "{}", right.text());
    assert!(reader.get(&path).text().contains("The-secret"));
}

/// A line in doubt: mailed codes are refused. An operator sees why, and ends it.
#[test]
fn an_operator_ends_a_doubt_and_the_log_says_who_did_it() {
    let dir = tempfile::tempdir().expect("temp dir");
    let policy = (
        "p.toml",
        "[[partner]]\ndomains = [\"stranger.test\"]\nlevel = \"secure\"\notherwise_after = \"0s\"\n",
    );
    let house = House::open(dir.path(), &[policy], |settings| {
        settings.notification = "level = \"opportunistic\"".to_owned();
    });
    assert_eq!(house.gateway.json(&["vault", "doubts"]), Value::Array(Vec::new()));
    smtp::send(house.gateway.smtp, "a@example.org", &["c@stranger.test"], &message(""));
    let mut reader = Visitor::new(house.gateway.portal);
    let path = led_to_proof(&house, &mut reader);
    let doubts = house.gateway.json(&["vault", "doubts"]);
    let [doubt] = doubts.as_array().expect("a list").as_slice() else { panic!("{doubts}") };
    assert_eq!((&doubt["domain"], &doubt["level"]), (&"stranger.test".into(), &"secure".into()));
    let why = doubt["reason"].as_str().expect("words");
    assert!(why.contains("Level secure can't be met") && doubt["since"].is_string(), "{doubt}");
    let table = String::from_utf8(house.gateway.ask(&["vault", "doubts"]).stdout).expect("text");
    assert!(table.contains("stranger.test") && table.contains("secure"), "{table}");

    let ask = || {
        let form = [("email", "c@stranger.test"), ("by", "code")];
        Visitor::new(house.gateway.portal).post("/login", &form)
    };
    assert_eq!(ask().status, 422, "a mailed code proves nothing there");
    let trusted = house.gateway.json(&["vault", "trust", "stranger.test"]);
    assert_eq!(trusted["domain"], "stranger.test");
    assert_eq!(house.gateway.json(&["vault", "doubts"]), Value::Array(Vec::new()));
    assert_eq!(ask().status, 303, "a code is mailed again");
    assert_eq!(reader.get(&path).status, 303, "the message goes on asking for more");
    let user = std::os::unix::fs::MetadataExt::uid(&dir.path().metadata().expect("a folder"));
    let log = house.gateway.log_text();
    let line = log.lines().find(|line| line.contains("by the operator")).expect("a line");
    assert!(line.contains("stranger.test") && line.contains(&format!("user={user}")), "{line}");
    let again = house.gateway.ask(&["vault", "trust", "stranger.test"]);
    assert_eq!(again.status.code(), Some(1), "there is none");
}
