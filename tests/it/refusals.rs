//! Bad input gets a clear error and nothing is lost: configuration, policies, key ring, ports,
//! commands.

use crate::support::{
    gateway::{Gateway, Settings},
    house::{House, PARTNER_FILE},
    smtp, wait_for,
};
use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Output,
    time::Duration,
};

fn prepared(dir: &Path) -> Gateway {
    Gateway::prepare(dir, &Settings::default(), &[PARTNER_FILE])
}

fn assert_refused(output: &Output, code: i32, says: &[&str]) {
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(code), "{text}");
    for word in says {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

/// Name and size of every file below a folder.
fn contents(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else if path.file_name().is_none_or(|n| n != "log") {
            found.push((path.clone(), fs::read(path).unwrap_or_default()));
        }
    }
    found.sort();
    found
}

#[test]
fn a_wrong_configuration_key_names_place_and_the_nearest_right_one() {
    let dir = tempfile::tempdir().expect("temp dir");
    let gateway = prepared(dir.path());
    let file = dir.path().join("restante.toml");
    let text = fs::read_to_string(&file).expect("read").replace("postmaster =", "postmastr =");
    fs::write(&file, &text).expect("write");
    let line = text.lines().position(|l| l.starts_with("postmastr")).expect("there") + 1;
    let place = format!("restante.toml:{line}:1");
    for command in [&["serve"][..], &["config", "check"]] {
        assert_refused(&gateway.ask(command), 78, &[&place, "postmastr", "postmaster"]);
    }
    assert!(!dir.path().join("data").exists(), "nothing was started");
}

#[test]
fn trust_ad_with_a_name_server_elsewhere_is_refused_before_mail_waits_for_it() {
    let dir = tempfile::tempdir().expect("temp dir");
    let file = dir.path().join("restante.toml");
    fs::write(&file, "[dns]\nnameservers = [\"192.0.2.53\"]\ndnssec = \"trust-ad\"\n")
        .expect("write");
    for command in [&["serve"][..], &["config", "check"]] {
        let mut program = std::process::Command::new(crate::support::program());
        let output = program.arg("--config").arg(&file).args(command).output().expect("runs");
        assert_refused(&output, 78, &["restante.toml:2:16: error", "192.0.2.53", "validate"]);
    }
}

#[test]
fn config_show_round_trips() {
    let dir = tempfile::tempdir().expect("temp dir");
    let gateway = prepared(dir.path());
    let first = gateway.ask(&["config", "show"]);
    assert!(first.status.success());
    fs::write(dir.path().join("restante.toml"), &first.stdout).expect("write");
    let second = gateway.ask(&["config", "show"]);
    assert_eq!(first.stdout, second.stdout);
    let json = gateway.json(&["config", "show"]);
    assert_eq!(json["hostname"], "gw.example.org");
}

#[test]
fn config_show_names_the_same_folders_wherever_it_is_kept() {
    let dir = tempfile::tempdir().expect("temp dir");
    let gateway = prepared(dir.path());
    let mut beside = gateway.command(&["config", "show"]);
    let shown = beside.current_dir(dir.path().parent().expect("a parent")).output().expect("runs");
    let elsewhere = tempfile::tempdir().expect("temp dir");
    fs::write(elsewhere.path().join("copy.toml"), &shown.stdout).expect("write");
    let mut again = std::process::Command::new(crate::support::program());
    let again =
        again.current_dir(elsewhere.path()).args(["--config", "copy.toml", "config", "show"]);
    assert_eq!(again.output().expect("runs").stdout, shown.stdout);
    let data = dir.path().join("data");
    assert!(String::from_utf8_lossy(&shown.stdout).contains(&data.display().to_string()));
}

#[test]
fn config_check_reads_the_files_that_the_configuration_names() {
    let dir = tempfile::tempdir().expect("temp dir");
    let pair = "certificate = \"no.pem\"\nkey = \"no.key\"".to_owned();
    let settings = Settings { smtp: pair, ..Settings::default() };
    let gateway = Gateway::prepare(dir.path(), &settings, &[]);
    assert_refused(&gateway.ask(&["config", "check"]), 78, &["no.pem", "cannot be read"]);
}

#[test]
fn what_the_server_makes_is_ours_alone_in_a_folder_that_others_may_list() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("temp dir");
    let data = dir.path().join("data");
    fs::create_dir(&data).expect("made");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).expect("chmod");
    let gateway = Gateway::start(dir.path(), &Settings::default(), &[]);
    for entry in fs::read_dir(gateway.dir.join("data")).expect("listed") {
        let entry = entry.expect("entry");
        let mode = entry.metadata().expect("metadata").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", entry.path().display());
    }
}

#[test]
fn a_broken_policy_refuses_to_start() {
    let dir = tempfile::tempdir().expect("temp dir");
    let gateway = prepared(dir.path());
    fs::write(
        dir.path().join("policies/bad.toml"),
        "[[partner]]\ndomains = [\"x.test\"]\nlevel = \"secur\"\n",
    )
    .expect("write");
    assert_refused(&gateway.ask(&["serve"]), 78, &["bad.toml:3:9", "secur", "secure"]);
    assert_refused(&gateway.ask(&["policy", "check"]), 1, &["bad.toml:3:9: error:"]);
}

#[test]
fn policy_check_tells_of_files_that_are_not_there_or_no_text() {
    let dir = tempfile::tempdir().expect("temp dir");
    let gateway = prepared(dir.path());
    let file = dir.path().join("policies/ca.toml");
    let text = "[[partner]]\ndomains = [\"x.test\"]\nlevel = \"secure\"\nca_file = \"no.pem\"\n";
    fs::write(&file, text).expect("write");
    let says = ["ca.toml:4:1: warning: key `ca_file`: no.pem"];
    assert_refused(&gateway.ask(&["policy", "check"]), 0, &says);
    assert_refused(&gateway.ask(&["policy", "check", "--strict"]), 1, &says);
    fs::write(&file, [0xff, 0xfe]).expect("write");
    assert_refused(&gateway.ask(&["policy", "check"]), 1, &["ca.toml", "not UTF-8 text"]);
}

#[test]
fn a_broken_policy_on_reload_leaves_the_last_good_set() {
    let dir = tempfile::tempdir().expect("temp dir");
    let settings = Settings::default();
    let mut gateway = Gateway::start(dir.path(), &settings, &[PARTNER_FILE]);
    let good = gateway.json(&["status"])["policy"]["version"].clone();
    let file = dir.path().join("policies/partner.toml");
    fs::write(&file, "[[partner]]\nlevel = \"secure\"\n").expect("write");
    gateway.signal("HUP");
    let status = wait_for("the error in status", || {
        let status = gateway.json(&["status"]);
        status["policy"]["error"].is_string().then_some(status)
    });
    assert_eq!(status["policy"]["version"], good);
    assert!(status["policy"]["error"].as_str().expect("text").contains("partner.toml:"));

    fs::write(&file, "[[partner]]\ndomains = [\"other.test\"]\nlevel = \"encrypt\"\n")
        .expect("write");
    wait_for("the new set, without a signal", || {
        let status = gateway.json(&["status"]);
        (status["policy"]["version"] != good && status["policy"]["error"].is_null()).then_some(())
    });
    gateway.stop();
}

#[test]
fn a_key_ring_that_is_missing_wrong_or_open_to_others_refuses_and_touches_nothing() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[PARTNER_FILE], |_| {});
    let House { mut gateway, inside, zone, stranger, .. } = house;
    smtp::send(gateway.smtp, "a@example.org", &["b@partner.test"], b"Subject: x\r\n\r\nx\r\n");
    gateway.stop();
    let ring = gateway.dir.join("data/keys");
    let right = fs::read(&ring).expect("the ring");

    fs::remove_file(&ring).expect("removed");
    let before = contents(&gateway.dir.join("data"));
    assert_refused(&gateway.ask(&["serve"]), 78, &["key ring", "missing"]);
    assert_eq!(before, contents(&gateway.dir.join("data")));

    let other = tempfile::tempdir().expect("temp dir");
    let mut stranger_gateway = Gateway::start(other.path(), &Settings::default(), &[]);
    stranger_gateway.stop();
    fs::copy(other.path().join("data/keys"), &ring).expect("copied");
    let before = contents(&gateway.dir.join("data"));
    assert_refused(&gateway.ask(&["serve"]), 78, &["not the key ring"]);
    assert_eq!(before, contents(&gateway.dir.join("data")));

    fs::write(&ring, &right).expect("put back");
    gateway.run();
    assert_eq!(gateway.json(&["queue", "list"]).as_array().expect("an array").len(), 1);
    gateway.stop();
    drop((inside, zone, stranger));
}

#[test]
fn a_taken_port_and_a_second_server_have_their_exit_codes() {
    let dir = tempfile::tempdir().expect("temp dir");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let gateway = prepared(dir.path());
    let file = dir.path().join("restante.toml");
    let text = fs::read_to_string(&file).expect("read");
    fs::write(
        &file,
        text.replace("listen = [\"127.0.0.1:0\"]", &format!("listen = [\"127.0.0.1:{port}\"]")),
    )
    .expect("write");
    assert_refused(&gateway.ask(&["serve"]), 69, &[&port.to_string()]);
    drop(gateway);

    let dir = tempfile::tempdir().expect("temp dir");
    let first = Gateway::start(dir.path(), &Settings::default(), &[]);
    assert_refused(&first.ask(&["serve"]), 75, &["data"]);
}

#[test]
fn commands_without_a_server_say_so() {
    let dir = tempfile::tempdir().expect("temp dir");
    let gateway = prepared(dir.path());
    assert_refused(&gateway.ask(&["status"]), 69, &["restante serve"]);
    assert_refused(&gateway.ask(&["no-such-command"]), 64, &[]);
    assert_refused(&gateway.ask(&["--help"]), 0, &["Usage"]);
}

#[test]
fn unknown_ids_and_addresses_are_a_no() {
    let dir = tempfile::tempdir().expect("temp dir");
    let gateway = Gateway::start(dir.path(), &Settings::default(), &[]);
    assert_refused(&gateway.ask(&["trace", "nobody@nowhere.test"]), 1, &["nobody@nowhere.test"]);
    assert_refused(&gateway.ask(&["queue", "show", "00000000000000000000000000"]), 1, &[]);
    assert_refused(&gateway.ask(&["queue", "show", "x"]), 1, &[]);
    let explained = gateway.json(&["policy", "explain", "someone@anywhere.test"]);
    assert_eq!(explained["level"], "envelope");
    assert_eq!(explained["otherwise"], "envelope");
}

#[test]
fn the_control_socket_is_ours_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("temp dir");
    let gateway = Gateway::start(dir.path(), &Settings::default(), &[]);
    let socket = fs::metadata(gateway.dir.join("data/control.sock")).expect("the socket");
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
}

#[test]
fn the_portal_lets_go_of_connections_that_say_nothing() {
    let dir = tempfile::tempdir().expect("temp dir");
    let gateway = Gateway::start(dir.path(), &Settings::default(), &[]);
    let mut open = Vec::new();
    // Nothing, half a head, and a connection kept after its answer.
    for said in ["", "GET / HTTP/1.1\r\nHost: x\r\n", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut connection = TcpStream::connect(gateway.portal).expect("connect");
        connection.write_all(said.as_bytes()).expect("write");
        connection.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
        open.push((said, connection));
    }
    for (said, mut connection) in open {
        let mut answer = Vec::new();
        let ended = connection.read_to_end(&mut answer);
        assert!(ended.is_ok(), "still open a minute after {said:?}: {ended:?}");
        let page = answer.starts_with(b"HTTP/1.1 200");
        assert_eq!(page, said.ends_with("\r\n\r\n"), "{said:?}");
    }
}
