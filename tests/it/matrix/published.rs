//! What domains publish under DNSSEC, at the gateway: with its own validation, with a resolver that
//! it trusts, and with one that can't do it.

use super::{
    peers::{bare_host, host, ip},
    rows::{self, Row, doubt, met, row, unmet},
    scene::{self, Scene},
};
use crate::support::{
    gateway::Settings,
    signed::{Kind, Signed},
};
use std::fs;

const ONLY: &str = "level = \"dane-only\"";
const DANE: &str = "level = \"dane\"";
/// Default for everybody; some mailboxes nobody vouches for.
const DEFAULT: &str = "[default]\nlevel = \"auto\"\nnever_direct = [\"webmail.toml\"]\n";
const WEBMAIL: &str = "domains = [\"webmail.matrix.test\", \"agreed.matrix.test\"]\n";

/// `@` is the domain, `P` the port; all names are whole.
fn rows(scene: &Scene) -> Vec<Row> {
    [records(scene), hosts(), zones(), defaults()].into_iter().flatten().collect()
}

/// A host there, found by the domain's MX record.
fn at(host: &str) -> String {
    format!("@ MX 10 {host}.\n")
}

/// A host of the domain's own, at the good peer's address, with these TLSA records.
fn own(tlsa: &[&str]) -> String {
    let tlsa: String = tlsa.iter().map(|data| format!("_P._tcp.h.@ TLSA {data}\n")).collect();
    format!("@ MX 10 h.@\nh.@ A {}\n{tlsa}", ip("good"))
}

/// Records of all kinds.
fn records(scene: &Scene) -> Vec<Row> {
    let good = &scene.peers["good"].shown;
    let whole = format!("3 0 0 {}", good.certificate_hex());
    let useless = format!("1 1 1 {}", good.key_pin());
    let right = format!("3 1 1 {}", good.key_pin());
    let wrong = format!("3 1 1 {}", scene.peers["tls12"].shown.key_pin());
    vec![
        row(
            "roll.matrix.test",
            own(&[&wrong, &right]),
            ONLY,
            met("signed TLSA record"),
            "a roll-over: one of two records",
        ),
        row(
            "whole.matrix.test",
            own(&[&whole]),
            ONLY,
            met("signed TLSA record"),
            "the certificate itself is the record",
        ),
        row(
            "false.matrix.test",
            own(&[&wrong]),
            DANE,
            unmet("no TLSA record is met"),
            "another key",
        ),
        row(
            "useless.matrix.test",
            own(&[&useless]),
            DANE,
            unmet("of no use"),
            "usage 1 is none for SMTP (RFC 7672 §3.1.3), and a partner is not unauthenticated",
        ),
        row(
            "authority.matrix.test",
            at("good.ta.matrix.test"),
            ONLY,
            unmet("wanted is"),
            "usage 2 wants a name besides",
        ),
        row(
            "named.matrix.test",
            at("unordered.mx.matrix.test"),
            ONLY,
            met("signed TLSA record 2 1 1"),
            "usage 2 by an intermediate that was sent",
        ),
        row(
            "late.matrix.test",
            at("expired.ta.matrix.test"),
            ONLY,
            unmet("certificate expired"),
            "usage 2 wants valid dates",
        ),
    ]
}

/// Several hosts, and other names of one.
fn hosts() -> Vec<Row> {
    let (mx, bare) = (host("good"), bare_host("good"));
    vec![
        row(
            "alias.matrix.test",
            format!("@ MX 10 h.@\nh.@ CNAME {mx}.\n"),
            ONLY,
            met("signed TLSA record"),
            "the TLSA base is where the alias leads",
        ),
        row(
            "second.matrix.test",
            format!("{}@ MX 20 {mx}.\n", at(&host("renewed"))),
            ONLY,
            met("signed TLSA record"),
            "the first host fails its record, the second meets its own",
        ),
        row(
            "half.matrix.test",
            format!("{}@ MX 20 {mx}.\n", at(&bare)),
            ONLY,
            met("signed TLSA record"),
            "the first host has no record",
        ),
    ]
}

/// What is signed, what is not, and what nobody can check.
fn zones() -> Vec<Row> {
    let mx = at(&host("good"));
    vec![
        row(
            "away-signed.matrix.test",
            at("good.open.test"),
            DANE,
            met("TLSv1.3"),
            "the host's zone is not signed: as `encrypt`",
        ),
        row(
            "away-only.matrix.test",
            at("good.open.test"),
            ONLY,
            unmet("no TLSA records under DNSSEC"),
            "the same is not enough here",
        ),
        row(
            "plain.open.test",
            mx.as_str(),
            DANE,
            met("TLSv1.3"),
            "the MX record is not signed: as `encrypt`",
        ),
        row(
            "plain-only.open.test",
            mx.as_str(),
            ONLY,
            unmet("is not signed"),
            "anybody could have named that host",
        ),
        row(
            "rotten.matrix.test",
            format!("{}_P._tcp.h.@ CNAME tlsa.bogus.test.\n", own(&[])),
            ONLY,
            doubt("its TLSA records are not known"),
            "records that can't be checked are no absent ones",
        ),
        row(
            "rotten-dane.matrix.test",
            format!("{}_P._tcp.h.@ CNAME tlsa.bogus.test.\n", own(&[])),
            DANE,
            doubt("its TLSA records are not known"),
            "nor are they for the softer level",
        ),
        row(
            "rotten.bogus.test",
            mx.as_str(),
            "level = \"encrypt\"",
            doubt("could not be looked up"),
            "a forged MX record is no way",
        ),
    ]
}

/// Domains that the default speaks of.
fn defaults() -> Vec<Row> {
    let (mx, bare) = (at(&host("good")), at(&bare_host("good")));
    vec![
        row(
            "open-vouched.matrix.test",
            mx.as_str(),
            "",
            met("signed TLSA record"),
            "the default is `auto`",
        ),
        row(
            "open-bare.matrix.test",
            bare.as_str(),
            "",
            ("level-not-met", "publishes no MTA-STS policy"),
            "nothing published: sealed at once",
        ),
        row(
            "webmail.matrix.test",
            mx.as_str(),
            "",
            ("policy-envelope", "never_direct"),
            "published, and still nobody vouches for its mailboxes",
        ),
        row(
            "agreed.matrix.test",
            mx.as_str(),
            ONLY,
            met("signed TLSA record"),
            "an entry is an agreement; the list speaks of `auto` alone",
        ),
        row(
            "agreed-auto.matrix.test",
            mx.as_str(),
            "level = \"auto\"",
            met("signed TLSA record"),
            "`auto` in an entry",
        ),
    ]
}

/// Their zones.
fn sign(dir: &std::path::Path, scene: &Scene, rows: &[Row]) -> Signed {
    let zone = |name: &str| -> String {
        let here = rows.iter().filter(|row| row.domain.ends_with(name));
        here.map(|row| {
            let records = row.dns.replace('@', &format!("{}.", row.domain));
            records.replace("_P.", &format!("_{}.", scene.port)) + "\n"
        })
        .collect()
    };
    let port = scene.port;
    let ca = scene.peers["good"].shown.issuer_pin();
    let mut hosts = super::dns::hosts(&scene.peers, port);
    for kind in ["good", "expired"] {
        let ip = ip(kind);
        hosts += &format!("{kind}.ta A {ip}\n_{port}._tcp.{kind}.ta TLSA 2 1 1 {ca}\n");
    }
    let (key, at) = (scene.peers["good"].shown.key_pin(), ip("good"));
    let open = format!("good A {at}\n_{port}._tcp.good TLSA 3 1 1 {key}\n");
    let zones = [
        ("matrix.test", Kind::Signed, hosts + &zone(".matrix.test")),
        ("open.test", Kind::Unsigned, open + &zone(".open.test")),
        ("bogus.test", Kind::WrongKey, format!("tlsa TLSA 3 1 1 {key}\n{}", zone(".bogus.test"))),
    ];
    let zones: Vec<_> =
        zones.iter().map(|(name, kind, text)| (*name, *kind, text.as_str())).collect();
    Signed::start(dir, &zones)
}

#[test]
fn what_dnssec_vouches_for_counts_and_what_it_does_not_waits() {
    let dir = tempfile::tempdir().expect("temp dir");
    let scene = Scene::open(dir.path());
    let rows = rows(&scene);
    let signed = sign(dir.path(), &scene, &rows);
    let policy = rows::policy(&rows);
    let files = [("p.toml", policy.as_str()), ("default.toml", DEFAULT), ("webmail.toml", WEBMAIL)];
    let anchor = format!("validate\"\ntrust_anchor = \"{}", signed.anchor.display());
    let ways = [("trust-ad", signed.validating, "trust-ad"), ("own", signed.iterating, &anchor)];
    for (name, nameserver, dnssec) in ways {
        let settings = Settings { nameserver: Some(nameserver), ..scene.settings() };
        let mut gateway = scene::start(&dir.path().join(name), &settings, &files, dnssec);
        rows::hold(&scene, &gateway, &rows);
        gateway.stop();
    }
    // A resolver that leaves out what it should have checked: nothing is known, nothing is guessed.
    let settings = Settings { nameserver: Some(signed.iterating), ..scene.settings() };
    let gateway = scene::start(&dir.path().join("blind"), &settings, &files, "trust-ad");
    let rows: Vec<Row> = rows
        .into_iter()
        .filter(|row| row.entry == ONLY || row.entry == DANE)
        .map(|row| Row { expected: doubt("DNSSEC"), ..row })
        .collect();
    rows::hold(&scene, &gateway, &rows);
    let log = fs::read_to_string(gateway.log()).expect("log");
    assert!(log.contains("DNSSEC"), "said at start");
}
