//! Disks that are full, that fail, and that lose their power under load.

use crate::{
    crash::until,
    support::{disk::Disk, ledger::Ledger, load::Scene, parameter, wait_for, wait_minutes},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{path::Path, time::Duration};

/// Cuts after which all is counted, and a new disk begun.
const STORE_CUTS: u64 = 25;

/// A scene whose gateway has its data on a disk of so many MiB.
fn on_disk(dir: &Path, mib: u64, ledger: Ledger) -> (Scene, Disk) {
    let scene = Scene::set(dir, ledger);
    let disk = Disk::make(&dir.join("image"), &scene.gateway.dir.join("data"), mib);
    (scene, disk)
}

fn refused(scene: &Scene, count: usize) {
    let mut seen = 0;
    wait_minutes(3, "refusals", || {
        let refusals = scene.ledger.refusals();
        let wrong = refusals.iter().find(|reply| !reply.starts_with("452 4.3.1"));
        assert!(wrong.is_none(), "{wrong:?}");
        seen += refusals.len();
        (seen >= count).then_some(())
    });
}

fn acknowledged(scene: &Scene, more: u64) {
    let before = scene.ledger.acknowledged();
    wait_minutes(3, "letters to be taken", || {
        (scene.ledger.acknowledged() >= before + more).then_some(())
    });
}

#[test]
fn a_disk_that_others_fill_stops_mail_and_not_the_gateway() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (mut scene, disk) = on_disk(dir.path(), 128, Ledger::new(rand::random()));
    scene.gateway.run();
    let load = scene.load(4);
    acknowledged(&scene, 50);

    // The reserve is for deliveries.
    disk.fill(1 << 20);
    refused(&scene, 20);
    assert!(!disk.mount.join("reserve").exists(), "given up");
    scene.drain();
    assert!(disk.free() < 16 << 20, "still full");

    // Not a block left: only reading goes on.
    disk.fill(0);
    scene.ledger.refusals();
    refused(&scene, 20);
    assert!(scene.gateway.lives());
    scene.gateway.json(&["vault", "list"]);

    disk.empty();
    acknowledged(&scene, 50);
    assert!(scene.gateway.lives(), "by itself, and by the same process");
    wait_for("a new reserve", || disk.mount.join("reserve").exists().then_some(()));

    // All at once, in the midst of everything.
    for _ in 0..3 {
        disk.fill(0);
        scene.ledger.refusals();
        refused(&scene, 10);
        disk.empty();
        acknowledged(&scene, 10);
    }
    load.end();
    scene.settle("a full disk");
    // What had been delivered when space ended was written down all the same: in the journal.
    let late = scene.gateway.log_text().matches("outcome not").count();
    assert_eq!(late, 0, "outcomes that waited for space");
    scene.gateway.stop();
}

#[test]
fn mail_alone_does_not_fill_a_disk_to_the_brim() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut ledger = Ledger::new(rand::random());
    ledger.small = 500_000;
    let (mut scene, disk) = on_disk(dir.path(), 40, ledger);
    scene.gateway.run();
    let load = scene.load(8);
    refused(&scene, 50);
    assert!(disk.free() > 1 << 20, "{} bytes are left", disk.free());
    assert!(disk.mount.join("reserve").exists(), "nobody needed it");
    load.end();
    scene.settle("filled by mail");
    scene.gateway.stop();
}

#[test]
fn on_a_full_disk_it_starts_by_its_reserve_and_without_one_it_says_so() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (mut scene, disk) = on_disk(dir.path(), 128, Ledger::new(rand::random()));
    scene.gateway.run();
    let load = scene.load(4);
    acknowledged(&scene, 50);
    scene.kill();
    load.end();
    disk.fill(0);
    scene.gateway.run();
    let load = scene.load(2);
    refused(&scene, 10);
    scene.drain();
    load.end();

    disk.fill(0);
    scene.kill();
    let refusal = scene.gateway.ask(&["serve"]);
    let said = String::from_utf8_lossy(&refusal.stderr).into_owned();
    assert_eq!(refusal.status.code(), Some(75), "{said}");
    assert!(said.contains("no space left"), "{said}");
    disk.empty();
    scene.gateway.run();
    let load = scene.load(4);
    acknowledged(&scene, 10);
    load.end();
    scene.settle("a start on a full disk");
    scene.gateway.stop();
}

#[test]
fn a_disk_that_fails_ends_the_gateway_in_order_and_loses_nothing() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (mut scene, mut disk) = on_disk(dir.path(), 128, Ledger::new(rand::random()));
    for _ in 0..3 {
        scene.gateway.run();
        let load = scene.load(4);
        acknowledged(&scene, 20);
        disk.fail();
        assert_eq!(scene.gateway.ended(), Some(75), "{}", scene.gateway.log_text());
        scene.ledger.killed();
        load.end();
        let refusals = scene.ledger.refusals();
        let in_order = |reply: &String| reply.starts_with("451 4.3.0") || reply.starts_with("421");
        assert!(refusals.iter().all(in_order), "{refusals:?}");
        // It looks read-only now, also to a start.
        assert_eq!(scene.gateway.ask(&["serve"]).status.code(), Some(75));
        disk.again();
    }
    disk.read_only(true);
    assert_eq!(scene.gateway.ask(&["serve"]).status.code(), Some(75));
    disk.read_only(false);
    scene.gateway.run();
    scene.settle("a failing disk");
    scene.gateway.stop();
}

/// `RESTANTE_CUTS` says how often, `RESTANTE_SEED` repeats a run as far as the machine lets it.
#[test]
fn a_power_cut_takes_nothing_that_was_acknowledged() {
    let cuts = parameter("RESTANTE_CUTS", 25);
    let seed = parameter("RESTANTE_SEED", rand::random());
    let context = format!("RESTANTE_SEED={seed} RESTANTE_CUTS={cuts}");
    println!("{context}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut left = cuts;
    while left > 0 {
        let dir = tempfile::tempdir().expect("temp dir");
        let (mut scene, mut disk) = on_disk(dir.path(), 1024, Ledger::new(random.random()));
        for _ in 0..left.min(STORE_CUTS) {
            lose_power(&mut scene, &mut disk, &mut random);
        }
        left = left.saturating_sub(STORE_CUTS);
        scene.gateway.run();
        let repeats = scene.settle(&context);
        println!("{} acknowledged, {repeats} copies excused", scene.ledger.acknowledged());
        scene.gateway.stop();
    }
}

/// One life under load, and its end.
fn lose_power(scene: &mut Scene, disk: &mut Disk, random: &mut StdRng) {
    scene.gateway.run();
    let load = scene.load(4);
    let target = scene.ledger.acknowledged() + random.random_range(0..40);
    until(|| scene.ledger.acknowledged() >= target);
    std::thread::park_timeout(Duration::from_micros(random.random_range(0..3000)));
    scene.gateway.signal("STOP");
    disk.cut(|| scene.kill());
    load.end();
}
