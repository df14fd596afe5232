//! The key ring rotates while the gateway runs: everything opens at any time, and in the end nothing does
//! by the old key.

use crate::support::{
    gateway::{Gateway, Settings},
    house::House,
    smtp, wait_for,
    wraps::{files, lying, wraps},
};
use restante::seal::WrappedKey;
use serde_json::{Value, json};
use std::{fs, path::Path, process::Output, thread, time::Duration};

const ADA: &str = "ada@stranger.test";

fn done(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
fn send(server: std::net::SocketAddr, n: usize, length: usize) -> (String, String) {
    let line = format!("a line of message {n}\r\n");
    let text = format!("Subject: x\r\n\r\n{}", line.repeat(length / line.len() + 1));
    let id = smtp::send(server, "doctor@example.org", &[ADA], text.as_bytes());
    (id, line)
}
/// Each opens, and is what it was.
fn assert_open(gateway: &Gateway, sent: &[(String, String)]) {
    for (id, line) in sent {
        let exported = gateway.ask(&["vault", "export", id]);
        done(&exported);
        assert!(String::from_utf8_lossy(&exported.stdout).ends_with(line.as_str()), "{id}");
    }
}
fn keys(gateway: &Gateway) -> Value {
    gateway.json(&["keys", "list"])
}
fn rotate(gateway: &Gateway) -> Value {
    gateway.json(&["keys", "rotate"])
}
/// Waits until one key is left; its number.
fn retired(gateway: &Gateway) -> u64 {
    wait_for("the older keys have left the ring", || {
        let list = keys(gateway);
        let one = list["keys"].as_array().is_some_and(|keys| keys.len() == 1);
        one.then(|| list["current"].as_u64()).flatten()
    })
}
/// The lines of the ring, without comments and title.
fn ring(gateway: &Gateway) -> Vec<String> {
    let text = fs::read_to_string(gateway.dir.join("data/keys")).expect("the ring");
    text.lines().filter(|l| l.starts_with(char::is_numeric)).map(str::to_owned).collect()
}
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else if path.is_file() {
            fs::copy(path, to).expect("copied");
        }
    }
}
fn old_wraps(gateway: &Gateway, sent: &[(String, String)]) -> Vec<WrappedKey> {
    sent.iter().flat_map(|(id, _)| wraps(&gateway.dir.join("data"), id)).collect()
}

#[test]
fn under_load_and_killed_again_and_again_a_rotation_comes_to_its_end() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut house = House::open(dir.path(), &[], |_| {});
    let server = house.gateway.smtp;
    let sizes = [100, 100_000, 600_000, 200, 90_000, 700_000];
    let mut sent: Vec<_> = (0..).zip(sizes).map(|(n, length)| send(server, n, length)).collect();
    let sealed = |gateway: &Gateway, count: usize| {
        wait_for("all sealed", || {
            let list = gateway.json(&["vault", "list"]);
            (list.as_array().is_some_and(|list| list.len() == count)).then_some(())
        });
    };
    sealed(&house.gateway, sent.len());
    house.gateway.stop();
    let before = tempfile::tempdir().expect("temp dir");
    let copied = Gateway::prepare(before.path(), &Settings::default(), &[]);
    copy(&house.gateway.dir.join("data"), &before.path().join("data"));
    house.gateway.run();
    let (first_ring, first) = (ring(&house.gateway), old_wraps(&house.gateway, &sent));
    assert_eq!((first_ring.len(), first.len()), (1, sent.len()));

    let server = house.gateway.smtp;
    let load = thread::spawn(move || (100..200).map(|n| send(server, n, 300)).collect::<Vec<_>>());
    let rotated = rotate(&house.gateway);
    assert_eq!((&rotated["current"], &rotated["keys"]), (&json!(2), &json!([1, 2])));
    sent.extend(load.join().expect("sent"));
    assert_eq!(retired(&house.gateway), 2);
    assert_eq!(lying(&house.gateway.dir.join("data"), &first), Vec::<String>::new());
    assert_open(&house.gateway, sent.get(..30).expect("so many"));
    sealed(&house.gateway, sent.len());

    for kill in 0..8 {
        rotate(&house.gateway);
        thread::park_timeout(Duration::from_millis(4 * kill));
        house.gateway.kill();
        house.gateway.run();
        thread::park_timeout(Duration::from_millis(3 * kill));
        house.gateway.kill();
        house.gateway.run();
        assert_open(&house.gateway, sent.get(..6).expect("so many"));
    }
    assert_eq!(retired(&house.gateway), 10);
    assert_open(&house.gateway, &sent);
    let status = house.gateway.json(&["status"]);
    assert_eq!(status["keys"]["keys"], json!([10]));
    let last = ring(&house.gateway);
    assert!(last.len() == 1 && last.iter().all(|line| line.starts_with("10 ")), "one key is left");
    let old = first_ring.first().and_then(|line| line.split_once(' ')).expect("a key").1;
    let holds = |bytes: &[u8]| memchr::memmem::find(bytes, old.as_bytes()).is_some();
    assert!(!files(dir.path()).iter().any(|(_, bytes)| holds(bytes)), "the old key is gone");
    for event in ["key-added", "keys-retired"] {
        let trail = house.gateway.json(&["audit", "search", "--event", event]);
        assert!(!trail.as_array().expect("a list").is_empty(), "{event}");
    }

    // A copy from before, with the ring of now.
    fs::copy(house.gateway.dir.join("data/keys"), before.path().join("data/keys")).expect("put");
    let refused = copied.ask(&["serve"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(78), "{told}");
    assert!(told.contains("not the key ring"), "{told}");
    fs::remove_file(before.path().join("data/keyring.id")).expect("removed");
    let refused = copied.ask(&["vault", "rebuild"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("none of the 6 sealed messages"), "{told}");
}

#[test]
fn a_key_added_by_hand_is_picked_up_by_a_reload() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[], |_| {});
    let sent = [send(house.gateway.smtp, 1, 100)];
    let path = house.gateway.dir.join("data/keys");
    let good = fs::read_to_string(&path).expect("the ring");
    fs::write(&path, format!("{good}2 {}\n", "5a".repeat(32))).expect("written");
    done(&house.gateway.ask(&["keys", "reload"]));
    assert_eq!(retired(&house.gateway), 2);
    assert_open(&house.gateway, &sent);

    fs::write(&path, "no ring").expect("written");
    let refused = house.gateway.ask(&["keys", "reload"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("keys:1:"));
    assert_open(&house.gateway, &sent);
}
