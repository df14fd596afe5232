//! What is destroyed is gone: no file of the data directory holds bytes from which the key ring opens
//! the message, once it was recalled, removed or delivered to its last recipient.

use crate::support::{
    house::{House, PARTNER_FILE},
    sink::{Manner, Sink},
    smtp, wait_for,
    wraps::{lying, wraps},
};
use restante::seal::WrappedKey;
use std::{net::SocketAddr, process::Output, thread};

const ADA: &str = "ada@stranger.test";
const BOB: &str = "bob@stranger.test";
const NURSE: &str = "nurse@partner.test";

struct Kept<'a> {
    house: &'a House,
    id: String,
    keys: Vec<WrappedKey>,
}
impl<'a> Kept<'a> {
    /// A message that is sent, and its wrapped keys where they lie while it waits.
    fn send(house: &'a House, to: &[&str], length: usize) -> Self {
        let text = format!("Subject: x\r\n\r\n{}", "a line of it\r\n".repeat(length / 14 + 1));
        let id = smtp::send(house.gateway.smtp, "doctor@example.org", to, text.as_bytes());
        let keys = wraps(&data(house), &id);
        assert_eq!(keys.len(), 1, "a message has one key");
        assert!(!lying(&data(house), &keys).is_empty(), "the search finds what is there");
        Self { house, id, keys }
    }
    fn outcome(&self, recipient: usize) -> String {
        let life = self.house.gateway.json(&["trace", &self.id]);
        life["recipients"][recipient]["outcome"].as_str().unwrap_or_default().to_owned()
    }
    fn ends_as(self, recipients: usize, outcome: &str) -> Self {
        let as_it = |n| self.outcome(n) == outcome;
        wait_for(outcome, || (0..recipients).all(as_it).then_some(()));
        self
    }
    fn lies(&self) -> Vec<String> {
        lying(&data(self.house), &self.keys)
    }
    fn assert_gone(&self, when: &str) {
        assert_eq!(self.lies(), Vec::<String>::new(), "{when}");
    }
    fn wait_until_gone(&self, when: &str) {
        wait_for(when, || self.lies().is_empty().then_some(()));
    }
}

fn data(house: &House) -> std::path::PathBuf {
    house.gateway.dir.join("data")
}
fn done(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn after_a_recall_no_file_opens_the_message() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[], |_| {});
    let recall = |more: &[&str]| done(&house.gateway.ask(&[&["vault", "recall"], more].concat()));
    for (length, what) in [(100, "small"), (100_000, "in a segment"), (600_000, "large")] {
        let kept = Kept::send(&house, &[ADA], length).ends_as(1, "sealed");
        recall(&[&kept.id]);
        kept.assert_gone(what);
        let both = Kept::send(&house, &[ADA, BOB], length).ends_as(2, "sealed");
        recall(&[&both.id, "--recipient", ADA]);
        assert!(!both.lies().is_empty(), "{what}: the other reader's grant lives");
        recall(&[&both.id, "--recipient", BOB]);
        both.assert_gone(what);
    }
    let removed = Kept::send(&house, &[ADA], 100).ends_as(1, "sealed");
    recall(&[&removed.id]);
    removed.assert_gone("again");
}

#[test]
fn after_delivery_removal_and_a_kill_no_file_opens_the_message() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut house = House::open(dir.path(), &[PARTNER_FILE], |s| {
        s.delivery = "retry = [\"1s\"]".to_owned();
    });
    let waits = |length| Kept::send(&house, &[NURSE], length).ends_as(1, "deferred");
    let removed = [waits(100), waits(600_000)];
    for kept in &removed {
        done(&house.gateway.ask(&["queue", "remove", &kept.id]));
    }
    for kept in &removed {
        kept.wait_until_gone("removed");
    }
    let delivered = [waits(100), waits(100_000), waits(600_000)];
    let partner = partner(&house);
    wait_for("all delivered", || (partner.count() == 3).then_some(()));
    for kept in &delivered {
        kept.wait_until_gone("delivered");
    }
    drop(partner);

    // Killed as soon as they were delivered: whatever was written by then, the next start ends it.
    for _ in 0..5 {
        let waits = |length| Kept::send(&house, &[NURSE], length).ends_as(1, "deferred");
        let keys: Vec<_> = [waits(100), waits(600_000)].into_iter().flat_map(|k| k.keys).collect();
        let again = self::partner(&house);
        wait_for("both delivered", || (again.count() == 2).then_some(()));
        house.gateway.kill();
        house.gateway.run();
        wait_for("a start after a kill", || lying(&data(&house), &keys).is_empty().then_some(()));
    }
}

#[test]
fn after_a_recall_under_load_no_file_opens_the_message() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[PARTNER_FILE], |_| {});
    let _partner = partner(&house);
    let server = house.gateway.smtp;
    for round in 0..5 {
        let kept = Kept::send(&house, &[ADA], 100 + 20_000 * round).ends_as(1, "sealed");
        let load: Vec<_> = (0..4).map(|_| thread::spawn(move || load(server))).collect();
        done(&house.gateway.ask(&["vault", "recall", &kept.id]));
        kept.assert_gone("under load");
        load.into_iter().for_each(|sender| sender.join().expect("sent"));
    }
}

fn load(server: SocketAddr) {
    for _ in 0..50 {
        smtp::send(server, "doctor@example.org", &[NURSE], b"Subject: x\r\n\r\nload\r\n");
    }
}

fn partner(house: &House) -> Sink {
    let leaf = house.pki.leaf("mx.partner.test");
    Sink::start(house.partner_address(), Manner { tls: Some(leaf), ..Manner::default() })
}
