//! The main job with real peers: a real Postfix hands in, a real Postfix with STARTTLS is the
//! partner, both found over a real name server.

use crate::support::{
    free_port,
    house::{House, PARTNER_FILE},
    http::Visitor,
    postfix::Postfix,
    wait_for,
};

const MESSAGE: &str = "From: Doctor <doctor@example.org>\r\nTo: all@example.org\r\nSubject: Findings\r\n\
    Message-ID: <findings-1@example.org>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n\
    The findings are good.\r\n.a line with a dot\r\n";

#[test]
fn postfix_hands_in_the_partner_gets_the_message_and_the_stranger_the_notice() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[PARTNER_FILE], |_| {});
    let settings = Postfix::mailbox_settings("partner.test");
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let leaf = house.pki.leaf("mx.partner.test");
    let partner =
        Postfix::start(dir.path(), house.partner_address(), "mx.partner.test", &leaf, &settings);
    let upstream = upstream(dir.path(), &house);

    upstream.sendmail(
        "doctor@example.org",
        &["nurse@partner.test", "patient@stranger.test"],
        MESSAGE.replace("\r\n", "\n").as_bytes(),
    );

    let delivered = wait_for("mail at the partner's", || partner.mailbox().pop());
    let delivered = String::from_utf8(delivered).expect("text").replace('\n', "\r\n");
    assert!(delivered.contains("The findings are good.\r\n.a line with a dot\r\n"), "{delivered}");
    assert!(delivered.contains("by gw.example.org"), "our Received is there: {delivered}");
    assert!(delivered.contains("using TLSv1.3"), "over TLS: {delivered}");

    let notice = house.mail_to_stranger(1);
    let text = String::from_utf8_lossy(&notice.content).into_owned();
    assert!(!text.contains("findings") && !text.contains("Findings"), "{text}");
    assert!(text.contains("Example Health"), "{text}");
    assert_eq!(house.stranger.messages().len(), 1);

    let mut reader = Visitor::new(house.gateway.portal);
    let message = house.register(&mut reader, &notice, "a long enough password");
    let page = reader.get(&message);
    assert_eq!(page.status, 200);
    assert!(page.text().contains("The findings are good."), "{}", page.text());

    let original = reader.get(&format!("{message}/original.eml"));
    let original = String::from_utf8(original.body).expect("text");
    // Byte-identical apart from one added Received: the partner's copy holds the original, whole.
    let (_, theirs) = delivered.split_once(&original).unwrap_or_else(|| {
        panic!("the partner's copy differs:\n{delivered}\nfrom the original:\n{original}")
    });
    assert_eq!(theirs, "");

    assert_trace(&house);
}

/// Both recipients' lives, as the help desk sees them.
fn assert_trace(house: &House) {
    let life = wait_for("both outcomes", || {
        let life = house.gateway.json(&["trace", "<findings-1@example.org>"]);
        let settled = life["recipients"].as_array()?.iter().all(|r| r["outcome"] != "queued");
        settled.then_some(life)
    });
    let of = |address: &str| {
        let recipients = life["recipients"].as_array().expect("recipients");
        let found = recipients.iter().find(|r| r["address"] == address);
        found.unwrap_or_else(|| panic!("no {address} in {life}")).clone()
    };
    let nurse = of("nurse@partner.test");
    assert_eq!(nurse["outcome"], "delivered");
    assert_eq!(nurse["policy"]["file"], "partner.toml");
    assert_eq!(nurse["policy"]["level"], "secure");
    let attempt = &nurse["attempts"][0];
    assert_eq!(attempt["mx"], "mx.partner.test");
    assert_eq!(attempt["tls"]["verified"], true);
    assert_eq!(attempt["tls"]["version"], "TLSv1.3");
    let patient = of("patient@stranger.test");
    assert_eq!(patient["outcome"], "sealed");
    assert_eq!(patient["policy"]["level"], "envelope");

    let vault = house.gateway.json(&["vault", "list"]);
    assert_eq!(vault[0]["recipient"], "patient@stranger.test");
    assert_ne!(vault[0]["opened"], serde_json::Value::Null);
    let status = house.gateway.json(&["status"]);
    assert_eq!(status["vault"]["grants"], 1);
    assert_eq!(status["queue"]["deferred"], 0);
}

/// A customer's MTA whose only way out is the gateway.
fn upstream(dir: &std::path::Path, house: &House) -> Postfix {
    let port = free_port(&["127.0.0.1"]);
    let relayhost = format!("relayhost = [127.0.0.1]:{}", house.gateway.smtp.port());
    let leaf = house.pki.leaf("mta.example.org");
    let address = format!("127.0.0.1:{port}").parse().expect("address");
    Postfix::start(dir, address, "mta.example.org", &leaf, &[&relayhost])
}
