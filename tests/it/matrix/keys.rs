//! What an entry may say beside its level: a row a key, against the same real peers.

use super::{
    attack::phrase_in,
    peers::bare_host,
    rows::{self, Row, met, ours, row, unmet},
    scene::{self, Scene},
};
use crate::support::{
    dns::Zone,
    gateway::{Gateway, Settings},
    house::House,
    http::Visitor,
    sink::{Manner, Sink},
    smtp, wait_for,
};

/// A message with all that a careless hand would mend.
const ODD: &[u8] = b"From: a@example.org\r\nSubject: odd \r\n\tand folded  \r\nX-Empty:\r\n\r\n\
    trailing  \r\n.\r\n..\r\n\ttab\r\n\xc3\xa9\r\n\r\n\r\n";
const MARK: &str = "Sensitivity: company-confidential";

#[test]
fn a_mark_is_added_to_what_goes_directly_and_nothing_else_is_touched() {
    let dir = tempfile::tempdir().expect("temp dir");
    let entry = |domain: &str, more: &str| {
        format!("[[partner]]\ndomains = [\"{domain}\"]\notherwise_after = \"0s\"\n{more}\n")
    };
    let mark = format!("mark = \"{MARK}\"");
    let policy = [
        entry("partner.test", &format!("level = \"verify\"\n{mark}")),
        entry("plain.test", "level = \"verify\""),
        entry("stranger.test", &format!("level = \"encrypt\"\n{mark}")),
    ];
    let house = House::open(dir.path(), &[("p.toml", &policy.concat())], |_| {});
    house.zone.mail("plain.test", &[(10, "mx.partner.test", crate::support::house::PARTNER)]);
    let manner = Manner { tls: Some(house.pki.leaf("mx.partner.test")), ..Manner::default() };
    let partner = Sink::start(house.partner_address(), manner);
    let to = ["ada@partner.test", "ada@plain.test", "ada@stranger.test"];
    smtp::send(house.gateway.smtp, "a@example.org", &to, ODD);

    let arrived = wait_for("both", || (partner.messages().len() == 2).then(|| partner.messages()));
    for message in arrived {
        let rest = without_received(&message.content);
        if message.to[0].contains("@partner.test") {
            assert_eq!(rest, [MARK.as_bytes(), b"\r\n", ODD].concat());
        } else {
            assert_eq!(rest, ODD, "byte for byte");
        }
    }
    let notice = house.mail_to_stranger(1);
    assert!(!String::from_utf8_lossy(&notice.content).contains(MARK));
    let mut reader = Visitor::new(house.gateway.portal);
    let path = house.register(&mut reader, &notice, "a long enough password");
    // Its level was not met: the reader needs the phrase that the sender was told.
    let report = wait_for("the sender's report", || house.inside.messages().pop());
    let phrase = phrase_in(&String::from_utf8_lossy(&report.content));
    let proved = reader.post(&format!("{path}/prove"), &[("phrase", &phrase)]);
    assert_eq!(proved.status, 303, "{}", proved.text());
    assert_eq!(reader.get(&format!("{path}/original.eml")).body, ODD, "sealed as it came");
}

/// The message without the one trace field before it.
fn without_received(content: &[u8]) -> &[u8] {
    assert!(content.starts_with(b"Received: "));
    let mut end = 0;
    for line in content.split_inclusive(|&b| b == b'\n') {
        if end > 0 && !matches!(line.first(), Some(b' ' | b'\t')) {
            break;
        }
        end += line.len();
    }
    &content[end..]
}

fn rows(scene: &Scene) -> Vec<Row> {
    let all = [versions(), anchors(scene), pins(scene), names(), ways(scene), certificates(scene)];
    all.into_iter().flatten().chain(times()).collect()
}

const VERIFY: &str = "level = \"verify\"\n";

/// `min_tls`
fn versions() -> Vec<Row> {
    vec![
        row(
            "tls13.test",
            "tls12",
            "level = \"encrypt\"\nmin_tls = \"1.3\"",
            unmet("TLS handshake: received fatal alert: ProtocolVersion"),
            "a host of TLS 1.2 alone",
        ),
        row(
            "tls13-good.test",
            "good",
            "level = \"encrypt\"\nmin_tls = \"1.3\"",
            met("TLSv1.3"),
            "it has both",
        ),
        row(
            "tls12.test",
            "tls12",
            "level = \"encrypt\"\nmin_tls = \"1.2\"",
            met("TLSv1.2"),
            "1.2 is enough",
        ),
    ]
}

/// `ca_file`
fn anchors(scene: &Scene) -> Vec<Row> {
    let file = |kind: &str| format!("{VERIFY}ca_file = \"{}\"", scene.anchor(kind).display());
    vec![
        row(
            "ca-other.test",
            "good",
            file("self-signed"),
            unmet("unknown issuer"),
            "private anchors replace the usual ones, they add nothing",
        ),
        row(
            "ca-own.test",
            "self-signed",
            file("self-signed"),
            met("trusted certificate bears"),
            "a certificate that vouches for itself is the anchor",
        ),
        row(
            "ca-between.test",
            "missing-intermediate",
            file("missing-intermediate"),
            met("trusted certificate bears"),
            "the intermediate that the host forgets is the anchor",
        ),
        row(
            "ca-gone.test",
            "good",
            format!("{VERIFY}ca_file = \"gone.pem\""),
            ours("gone.pem: cannot be read"),
            "a missing file is our fault, so nothing is sealed or bounced for it",
        ),
    ]
}

/// `fingerprints`
fn pins(scene: &Scene) -> Vec<Row> {
    let pin = |kind: &str| scene.peers[kind].shown.key_pin();
    let loud = pin("good").to_ascii_uppercase();
    let loud: Vec<&str> = (0..32).map(|at| &loud[2 * at..2 * at + 2]).collect();
    let pins = |pins: &str| format!("level = \"fingerprint\"\nfingerprints = [{pins}]");
    vec![
        row(
            "pin-other.test",
            "good",
            pins(&format!("\"sha256:{}\"", pin("tls12"))),
            unmet("is pinned"),
            "somebody else's pin",
        ),
        row(
            "pin-second.test",
            "good",
            pins(&format!("\"sha256:{}\", \"sha256:{}\"", pin("tls12"), pin("good"))),
            met("public key is pinned"),
            "one of two, as in a roll-over",
        ),
        row(
            "pin-loud.test",
            "good",
            pins(&format!("\"sha256:{}\"", loud.join(":"))),
            met("public key is pinned"),
            "capitals and colons do not count",
        ),
    ]
}

/// `match`
fn names() -> Vec<Row> {
    vec![
        row(
            "secure-own.test",
            "good",
            "level = \"secure\"",
            unmet("wanted is secure-own.test, .secure-own.test"),
            "the MX host's own name is no proof",
        ),
        row(
            "match-other.test",
            "good",
            "level = \"verify\"\nmatch = [\"mx.elsewhere.test\"]",
            unmet("wanted is mx.elsewhere.test"),
            "`match` replaces the MX host's name",
        ),
        row(
            "match.test",
            "wrong-name",
            "level = \"secure\"\nmatch = [\".elsewhere.test\"]",
            met("bears mx.elsewhere.test"),
            "a name that the policy gave",
        ),
    ]
}

/// `next_hop`
fn ways(scene: &Scene) -> Vec<Row> {
    let hop = |kind: &str| format!("next_hop = \"[{}]:{}\"", bare_host(kind), scene.port);
    vec![
        row(
            "hop.test",
            "away",
            format!("{VERIFY}{}", hop("good")),
            met("trusted certificate bears"),
            "not where the MX leads",
        ),
        row(
            "hop-mx.test",
            "away",
            format!("{VERIFY}next_hop = \"relay.test\""),
            met("trusted certificate bears"),
            "the MX of the next hop's domain",
        ),
        row(
            "hop-secure.test",
            "good",
            format!("level = \"secure\"\n{}", hop("good")),
            unmet("wanted is hop-secure.test"),
            "a next hop is a way and no proof",
        ),
        row(
            "hop-plain.test",
            "good",
            format!("{VERIFY}{}", hop("stripped")),
            unmet("STARTTLS is not offered"),
            "the level holds at the next hop",
        ),
    ]
}

/// `client_certificate`
fn certificates(scene: &Scene) -> Vec<Row> {
    let (chain, key) = (scene.stranger.chain.display(), scene.stranger.key.display());
    let ours =
        format!("level = \"encrypt\"\nclient_certificate = \"{chain}\"\nclient_key = \"{key}\"");
    vec![
        row(
            "client-unknown.test",
            "client-shown",
            ours.as_str(),
            unmet("TLS handshake: received fatal alert"),
            "a certificate of ours that the host does not take",
        ),
        row("client-useless.test", "good", ours.as_str(), met("TLSv1.3"), "nobody asks for it"),
    ]
}

/// `expires`, and no entry at all.
fn times() -> Vec<Row> {
    vec![
        row(
            "over.test",
            "good",
            "level = \"none\"\nexpires = \"2020-01-01\"",
            ("policy-envelope", "over.test is no partner"),
            "what has expired does not count",
        ),
        row(
            "lasting.test",
            "good",
            format!("{VERIFY}expires = \"2999-01-01\""),
            met("trusted certificate bears"),
            "what has not does",
        ),
        row(
            "nobody.test",
            "good",
            "",
            ("policy-envelope", "nobody.test is no partner"),
            "perfect TLS makes no partner",
        ),
    ]
}

#[test]
fn what_an_entry_asks_beside_its_level_is_held() {
    let dir = tempfile::tempdir().expect("temp dir");
    let scene = Scene::open(dir.path());
    let zone = Zone::start();
    let rows = rows(&scene);
    for row in &rows {
        scene::mail(&zone, row.domain, &row.dns);
    }
    scene::mail(&zone, "relay.test", "good");
    scene::mail(&zone, "stripped.test", "stripped");
    let settings = Settings { nameserver: Some(zone.address), ..scene.settings() };
    let gateway =
        Gateway::start(&dir.path().join("gateway"), &settings, &[("p.toml", &rows::policy(&rows))]);
    rows::hold(&scene, &gateway, &rows);
}
