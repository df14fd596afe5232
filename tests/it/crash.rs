//! kill -9 under load, again and again: what was acknowledged arrives, and arrives once; and where a
//! level was not met, no message goes to pickup without the doubt about its line.

use crate::support::{
    gateway::{Gateway, Settings},
    house::{House, STRANGER},
    ledger::Ledger,
    load::Scene,
    parameter, smtp, wait_for,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    collections::BTreeSet,
    fmt::Write,
    io::{BufRead, BufReader, Read},
    process::Stdio,
    time::{Duration, Instant},
};

/// Kills after which all is counted, and a new store begun.
const STORE_LIVES: u64 = 100;

/// Waits until `reached`, without sleeping past it; no longer than a life may last.
pub fn until(mut reached: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(1);
    while !reached() && Instant::now() < end {
        std::thread::park_timeout(Duration::from_micros(200));
    }
}

/// `RESTANTE_CRASHES` says how often (thousands take an hour), `RESTANTE_SEED` repeats a run's
/// letters and moments, as far as the machine lets it.
#[test]
fn killed_again_and_again_it_loses_nothing_and_doubles_nothing() {
    let kills = parameter("RESTANTE_CRASHES", 200);
    let seed = parameter("RESTANTE_SEED", rand::random());
    let context = format!("RESTANTE_SEED={seed} RESTANTE_CRASHES={kills}");
    println!("{context}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut left = kills;
    while left > 0 {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut scene = Scene::set(dir.path(), Ledger::new(random.random()));
        for _ in 0..left.min(STORE_LIVES) {
            life(&mut scene, &mut random);
        }
        left = left.saturating_sub(STORE_LIVES);
        scene.gateway.run();
        let repeats = scene.settle(&context);
        println!("{} acknowledged, {repeats} copies excused", scene.ledger.acknowledged());
        scene.gateway.stop();
    }
}

/// One life: killed before it was ready, or when so many letters were acknowledged or had arrived
/// somewhere since it was.
fn life(scene: &mut Scene, random: &mut StdRng) {
    if random.random_ratio(1, 10) {
        let mut child = scene.gateway.spawn();
        std::thread::park_timeout(Duration::from_micros(random.random_range(0..60_000)));
        drop(child.kill());
        drop(child.wait());
        scene.ledger.killed();
        return;
    }
    scene.gateway.run();
    let (acknowledged, arrived) = (scene.ledger.acknowledged(), scene.arrived());
    let load = scene.load(4);
    let count = random.random_range(0..25);
    if random.random() {
        until(|| scene.ledger.acknowledged() >= acknowledged + count);
    } else {
        until(|| scene.arrived() >= arrived + count);
    }
    // Anywhere on the way from one event to the next.
    std::thread::park_timeout(Duration::from_micros(random.random_range(0..3000)));
    scene.kill();
    load.end();
    // Until the next start it stays killed; a host may read what had been sent only now.
    scene.ledger.killed();
}

/// Both begin at the same moment, at the first start too: one serves, the other says so and leaves
/// everything as it is.
#[test]
fn of_two_that_start_on_one_directory_one_serves() {
    let dir = tempfile::tempdir().expect("temp dir");
    for round in 0..10 {
        let gateway = Gateway::prepare(&dir.path().join("g"), &Settings::default(), &[]);
        if round % 2 == 0 {
            drop(std::fs::remove_dir_all(gateway.dir.join("data")));
        }
        let start = || {
            let mut command = gateway.command(&["serve"]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts")
        };
        let mut children = [start(), start()];
        let ready = children.each_mut().map(|child| {
            let mut line = String::new();
            let stdout = child.stdout.take().expect("piped");
            BufReader::new(stdout).read_line(&mut line).expect("read");
            line.starts_with("ready ")
        });
        for (child, ready) in children.iter_mut().zip(ready) {
            if ready {
                child.kill().expect("killed");
            }
            let status = child.wait().expect("ended");
            let mut log = String::new();
            child.stderr.take().expect("piped").read_to_string(&mut log).expect("read");
            assert!(ready || status.code() == Some(75), "round {round}: {status}: {log}");
            assert!(ready || log.contains("another process has this vault open"), "{log}");
        }
        assert!(ready[0] != ready[1], "round {round}: one of two serves: {ready:?}");
        // The ring that it sealed with is the one that lies there.
        let mut next = Gateway::prepare(&gateway.dir, &Settings::default(), &[]);
        next.run();
        next.stop();
    }
}

/// What a list holds under that name: domains, or addresses of which the domain counts.
fn domains(gateway: &Gateway, what: &str, name: &str) -> BTreeSet<String> {
    let rows = gateway.json(&["vault", what]);
    let rows = rows.as_array().expect("a list").iter();
    let texts = rows.map(|row| row[name].as_str().expect("text"));
    texts.map(|text| text.rsplit('@').next().expect("a domain").to_owned()).collect()
}

/// The process is killed when it has said that a line is in doubt, until that was at least once before
/// the message was granted.
#[test]
fn killed_between_the_doubt_and_the_grant_it_grants_nothing_without_the_doubt() {
    const LIVES: usize = 40;
    let dir = tempfile::tempdir().expect("temp dir");
    let mut policy =
        "[[partner]]\nlevel = \"secure\"\notherwise_after = \"0s\"\ndomains = [".to_owned();
    let names: Vec<String> = (0..LIVES).map(|n| format!("d{n}.test")).collect();
    names.iter().for_each(|name| write!(policy, "\"{name}\", ").expect("written"));
    let mut house = House::open(dir.path(), &[("p.toml", &(policy + "]\n"))], |_| {});
    names.iter().for_each(|name| house.zone.mail(name, &[(10, "mx.stranger.test", STRANGER)]));
    let mut between = false;
    for (number, name) in names.iter().enumerate() {
        let (to, letter) = (format!("r@{name}"), b"Subject: x\r\n\r\nx\r\n");
        smtp::send(house.gateway.smtp, "a@example.org", &[to.as_str()], letter);
        wait_for("the line is in doubt", || {
            let log = house.gateway.log_text();
            let said = |line: &str| line.contains("the line is in doubt") && line.contains(name);
            log.lines().any(said).then_some(())
        });
        house.gateway.kill();
        let log = house.gateway.log_text();
        between = !log.lines().any(|line| line.contains("status=sealed") && line.contains(name));
        house.gateway.run();
        // Grants first: what is granted meanwhile has its doubt too.
        let granted = domains(&house.gateway, "list", "recipient");
        let doubted = domains(&house.gateway, "doubts", "domain");
        assert!(granted.is_subset(&doubted), "{granted:?} in doubt: {doubted:?}");
        assert!(doubted.contains(name), "what was said is noted: {doubted:?}");
        if between && number >= 4 {
            break;
        }
    }
    assert!(between, "in {LIVES} lives every message was granted before the process was killed");
    wait_for("every message waits for pickup", || {
        let doubted = domains(&house.gateway, "doubts", "domain");
        (domains(&house.gateway, "list", "recipient") == doubted).then_some(())
    });
}
