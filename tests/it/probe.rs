//! `policy probe` and the watch, against real mail hosts.

use super::support::{
    dns::Records,
    free_port,
    gateway::{Gateway, Settings},
    house::{House, PARTNER, PARTNER_FILE},
    pki::{Leaf, Pki},
    signed::{Kind, Signed},
    sink::{Manner, Sink},
    wait_for,
};
use restante::clock::{Clock, SystemClock};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::process::Output;

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn level<'v>(report: &'v Value, name: &str) -> &'v Value {
    let levels = report["levels"].as_array().expect("levels");
    levels.iter().find(|level| level["level"] == name).expect("a level")
}

#[test]
fn a_partner_is_looked_at_and_its_entry_written() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut house = House::open(dir.path(), &[], |_| {});
    house.gateway.stop();
    let tls = Some(house.pki.leaf("mx.partner.test"));
    let partner = Sink::start(house.partner_address(), Manner { tls, ..Manner::default() });

    let output = house.gateway.ask(&["policy", "probe", "partner.test"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for line in ["mx.partner.test (preference 10)", "STARTTLS offered", "chain    trusted"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let block = &text[text.find("# partner.test, seen").expect("a block")..];
    assert!(block.contains("[[partner]]\ndomains = [\"partner.test\"]\nlevel = \"secure\"\n"));
    let policies = house.gateway.dir.join("policies");
    std::fs::write(policies.join("partner.toml"), block).expect("written");
    let checked = house.gateway.ask(&["policy", "check", "--strict"]);
    assert!(checked.status.success(), "{}", stdout(&checked));

    let report = house.gateway.json(&["policy", "probe", "partner.test"]);
    assert_eq!(report["answer"], "hosts");
    assert_eq!(report["policy"]["file"], "partner.toml");
    assert_eq!(report["policy"]["passes"], true);
    let address = &report["hosts"][0]["addresses"][0];
    assert_eq!(address["starttls"], true);
    assert_eq!(address["tls"]["names"][0], "mx.partner.test");
    assert_eq!(address["tls"]["chain_error"], Value::Null);
    assert_eq!(address["extensions"]["eight_bit"], true);
    for (name, passes) in [("encrypt", true), ("secure", true), ("dane-only", false)] {
        assert_eq!(level(&report, name)["passes"], passes, "{name}");
    }
    assert_eq!(report["suggestion"]["level"], "secure");

    let heard = String::from_utf8(partner.bytes()).expect("commands");
    assert!(heard.contains("QUIT") && !heard.contains("MAIL"), "{heard}");
}

#[test]
fn domains_that_nobody_would_be_proved_to() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut house = House::open(dir.path(), &[], |_| {});
    house.gateway.stop();
    let mx = |host: &str| Records { mx: vec![(0, host.to_owned())], ..Records::default() };
    house.zone.set("null.test", mx("."));
    house.zone.set("broken.test", Records { broken: true, ..Records::default() });
    house.zone.mail("away.test", &[(10, "mx.away.test", "127.0.20.99")]);
    for (domain, code, says, reason) in [
        ("stranger.test", 0, "does not offer STARTTLS", "no level that protects"),
        ("nowhere.test", 1, "does not exist", "NXDOMAIN"),
        ("null.test", 1, "takes no mail", "null MX"),
        ("broken.test", 75, "DNS could not say", "SERVFAIL"),
        ("away.test", 75, "not reachable", "nobody listens"),
        ("not a domain", 65, "", "no domain at all"),
    ] {
        let output = house.gateway.ask(&["policy", "probe", domain]);
        let text = stdout(&output);
        assert_eq!(output.status.code(), Some(code), "{reason}: {text}");
        assert!(text.contains(says), "{reason}: {text}");
        assert!(!text.contains("[[partner]]"), "{reason}: {text}");
    }
    let report = house.gateway.json(&["policy", "probe", "stranger.test"]);
    assert_eq!(level(&report, "encrypt")["passes"], false);
    assert_eq!(level(&report, "encrypt")["fails"][0]["host"], "mx.stranger.test");
    assert_eq!(report["suggestion"], Value::Null);
}

/// SHA-256 of a certificate's public key, as a TLSA record 3 1 1 has it.
fn key_hash(leaf: &Leaf) -> String {
    let pem = std::fs::read(&leaf.chain).expect("chain");
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).expect("PEM");
    let certificate = pem.parse_x509().expect("certificate");
    data_encoding::HEXLOWER.encode(&Sha256::digest(certificate.public_key().raw))
}

#[test]
fn a_signed_partner_is_looked_at_under_dnssec() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (pki, port) = (Pki::new(dir.path()), free_port(&[PARTNER]));
    let leaf = pki.self_signed("mx.partner.test");
    let tlsa = format!("3 1 1 {}", key_hash(&leaf));
    let zone = Signed::mail("mx", PARTNER, port, &[&tlsa]);
    let stale = Signed::mail("mx", PARTNER, port, &[&format!("3 1 1 {}", "00".repeat(32))]);
    let zones = [
        ("partner.test", Kind::Signed, zone.as_str()),
        ("stale.test", Kind::Signed, stale.as_str()),
    ];
    let signed = Signed::start(dir.path(), &zones);
    let address = format!("{PARTNER}:{port}").parse().expect("address");
    let _partner = Sink::start(address, Manner { tls: Some(leaf), ..Manner::default() });
    let settings = Settings {
        nameserver: Some(signed.iterating),
        dns: format!("dnssec = \"validate\"\ntrust_anchor = {:?}", signed.anchor),
        mx_port: port,
        anchors: Some(pki.anchors.clone()),
        ..Settings::default()
    };
    let gateway = Gateway::prepare(&dir.path().join("gateway"), &settings, &[]);

    let report = gateway.json(&["policy", "probe", "partner.test"]);
    assert_eq!(report["dnssec"], "secure", "{report:#}");
    let host = &report["hosts"][0];
    assert_eq!(host["dane"]["state"], "records");
    assert_eq!(host["addresses"][0]["dane"]["met"]["usage"], 3);
    for (name, passes) in [("verify", false), ("dane", true), ("dane-only", true), ("auto", true)] {
        assert_eq!(level(&report, name)["passes"], passes, "{name}");
    }
    let toml = report["suggestion"]["toml"].as_str().expect("a block");
    assert!(toml.contains("level = \"dane-only\""), "{toml}");

    let report = gateway.json(&["policy", "probe", "stale.test"]);
    let why = level(&report, "dane-only")["why"].as_str().expect("why");
    assert!(why.contains("another public key is shown"), "{why}");
    assert_eq!(report["suggestion"], Value::Null, "no key that signed records contradict");
}

/// Kinds of the warnings in `status`.
fn kinds(gateway: &Gateway) -> Vec<String> {
    let status = gateway.json(&["status"]);
    let watch = status["watch"].as_array().expect("watch").clone();
    watch.iter().map(|w| w["kind"].as_str().expect("kind").to_owned()).collect()
}

fn wait_for_kinds(gateway: &Gateway, wanted: &[&str]) {
    wait_for(&format!("{wanted:?}"), || (kinds(gateway) == wanted).then_some(()));
}

#[test]
fn what_the_watch_sees_is_in_status_and_survives_a_restart() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut house = House::open(dir.path(), &[PARTNER_FILE], |settings| settings.watch = "6h");
    wait_for_kinds(&house.gateway, &["unreachable"]);
    house.gateway.stop();

    let soon = SystemClock.now() + jiff::SignedDuration::from_hours(10 * 24);
    let end = soon.to_zoned(jiff::tz::TimeZone::UTC).date();
    let tls = house.pki.odd_leaf("mx.partner.test", &["mx.partner.test"], |params| {
        let month = u8::try_from(end.month()).expect("month");
        let day = u8::try_from(end.day()).expect("day");
        params.not_after = rcgen::date_time_ymd(i32::from(end.year()), month, day);
    });
    let partner =
        Sink::start(house.partner_address(), Manner { tls: Some(tls), ..Manner::default() });
    house.gateway.run();
    wait_for_kinds(&house.gateway, &["certificate-ends"]);
    let status = house.gateway.json(&["status"]);
    assert_eq!(status["watch"][0]["domain"], "partner.test");
    let text = format!("the certificate of mx.partner.test ends {end}");
    assert_eq!(status["watch"][0]["text"], text.as_str());
    house.gateway.stop();
    drop(partner);

    let _partner = Sink::start(house.partner_address(), Manner::default());
    house.gateway.run();
    wait_for_kinds(&house.gateway, &["starttls-gone", "level-not-met"]);
    let text = stdout(&house.gateway.ask(&["status"]));
    let line = "mx.partner.test no longer offers STARTTLS";
    assert!(text.contains("watch     partner.test: starttls-gone since 20"), "{text}");
    assert!(text.contains(line), "{text}");
    let log = house.gateway.log_text();
    assert_eq!(log.matches(line).count(), 1, "{log}");
    assert_eq!(log.matches("certificate-ends is over").count(), 1, "{log}");
}
