//! `restante demo --once` on this machine as it is: it checks its own claims, so what is checked
//! here is that it makes them, that it ends well, and that nothing stays behind.

use crate::support::program;
use std::{fs, process::Command};

#[test]
fn the_demo_keeps_all_of_its_promises() {
    let scratch = tempfile::tempdir().expect("a folder");
    let done = Command::new(program())
        .args(["demo", "--once"])
        .env("TMPDIR", scratch.path())
        .current_dir(scratch.path())
        .output()
        .expect("the program runs");
    let (told, errors) =
        (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{}\n{told}\n{errors}", done.status);
    assert_eq!(errors, "", "the demo has nothing to complain of\n{told}");
    for line in [
        "both letters, for ward@clinic.example alone, over TLSv1.3",
        "certificate for mx.clinic.example verified, as partner.toml:2 asks",
        "byte for byte as they went in, save one Received field on top",
        "two notices, and nothing else",
        "sealed for pickup, as default.toml:2 says",
        "none of the letters' words, plain or encoded",
        "came by mail to the box",
        "laboratory-results-okonkwo.csv comes down byte for byte",
        "All of this was checked, and holds.",
    ] {
        assert!(told.contains(line), "`{line}` is missing from\n{told}");
    }
    assert!(told.lines().count() <= 70, "it fits on a screen or two\n{told}");
    let left: Vec<_> = fs::read_dir(scratch.path()).expect("readable").collect();
    assert!(left.is_empty(), "{left:?} was left behind");
}
