//! Connections that carry several messages to a partner, and what happens when the partner ends them.

use crate::support::{
    house::{House, PARTNER_FILE},
    sink::{After, Manner, Sink},
    smtp::{Conversation, send},
    wait_for,
};
use std::collections::HashSet;

const COUNT: usize = 60;

fn message(n: usize) -> Vec<u8> {
    format!("From: a@example.org\r\nSubject: {n}\r\n\r\nhello {n}\r\n").into_bytes()
}

/// Sends all of them over one session, as an MTA does.
fn send_all(house: &House) -> Vec<String> {
    let mut mta = Conversation::open(house.gateway.smtp);
    mta.say("EHLO mta.example.org", "250");
    let mut ids = Vec::new();
    for n in 0..COUNT {
        mta.say("MAIL FROM:<a@example.org>", "250");
        mta.say("RCPT TO:<b@partner.test>", "250");
        mta.say("DATA", "354");
        mta.raw(&message(n));
        let reply = mta.say(".", "250");
        ids.push(reply.trim_end().rsplit(' ').next().expect("an id").to_owned());
    }
    ids
}

#[test]
fn a_partner_gets_each_message_once_however_it_treats_connections() {
    for (after, most) in [(After::Stays, 20), (After::Closes, COUNT), (After::Vanishes, COUNT)] {
        let dir = tempfile::tempdir().expect("temp dir");
        let house = House::open(dir.path(), &[PARTNER_FILE], |_| {});
        let tls = Some(house.pki.leaf("mx.partner.test"));
        let partner =
            Sink::start(house.partner_address(), Manner { tls, after, ..Manner::default() });
        let ids = send_all(&house);
        wait_for("all of them", || (partner.messages().len() >= COUNT).then_some(()));
        for id in &ids {
            let life = wait_for("its end", || {
                let life = house.gateway.json(&["trace", id]);
                (life["recipients"][0]["outcome"] == "delivered").then_some(life)
            });
            let attempts = life["recipients"][0]["attempts"].as_array().expect("attempts");
            assert_eq!(attempts.len(), 1, "{after:?}: a connection's end is nobody's failure");
            assert_eq!(attempts[0]["tls"]["verified"], true, "{after:?}");
        }
        let messages = partner.messages();
        let distinct: HashSet<_> = messages.iter().map(|m| m.content.clone()).collect();
        assert_eq!((messages.len(), distinct.len()), (COUNT, COUNT), "{after:?}");
        assert!(messages.iter().all(|m| m.over_tls), "{after:?}");
        let connections = partner.connections();
        assert!(connections <= most, "{after:?}: {connections} connections");
        assert!(after == After::Stays || connections == COUNT, "{after:?}: {connections}");
    }
}

#[test]
fn a_kept_connection_does_not_outlive_the_policy_it_was_made_for() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[PARTNER_FILE], |_| {});
    let tls = Some(house.pki.leaf("mx.partner.test"));
    let partner = Sink::start(house.partner_address(), Manner { tls, ..Manner::default() });
    let deliver = |n| {
        let id = send(house.gateway.smtp, "a@example.org", &["b@partner.test"], &message(n));
        wait_for("delivery", || {
            let life = house.gateway.json(&["trace", &id]);
            (life["recipients"][0]["outcome"] == "delivered").then_some(())
        });
    };
    deliver(1);
    deliver(2);
    let before = partner.connections();
    let version = || house.gateway.json(&["status"])["policy"]["version"].clone();
    let old = version();
    let file = dir.path().join("gateway/policies").join(PARTNER_FILE.0);
    let text = std::fs::read_to_string(&file).expect("policy");
    std::fs::write(&file, format!("{text}\nnote = \"changed\"\n")).expect("written");
    house.gateway.signal("HUP");
    wait_for("the new policy", || (version() != old).then_some(()));
    deliver(3);
    assert_eq!(partner.connections(), before + 1, "an old one is no good for it");
}
