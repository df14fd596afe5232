//! A real Postfix that lets nobody in without a certificate.

use crate::support::{
    house::{House, PARTNER_FILE},
    postfix::Postfix,
    smtp, wait_for,
};

const MESSAGE: &[u8] =
    b"From: a@example.org\r\nSubject: x\r\nMessage-ID: <m@example.org>\r\n\r\nhello\r\n";

#[test]
fn a_partner_that_asks_for_our_certificate_gets_the_one_its_policy_names() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[PARTNER_FILE], |settings| {
        settings.delivery = "retry = [\"1s\"]".to_owned();
    });
    let mut settings = Postfix::mailbox_settings("partner.test");
    settings.extend([
        "smtpd_tls_security_level = encrypt".to_owned(),
        "smtpd_tls_req_ccert = yes".to_owned(),
        format!("smtpd_tls_CAfile = {}", house.pki.anchors.display()),
    ]);
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let leaf = house.pki.leaf("mx.partner.test");
    let partner =
        Postfix::start(dir.path(), house.partner_address(), "mx.partner.test", &leaf, &settings);
    let id = smtp::send(house.gateway.smtp, "a@example.org", &["b@partner.test"], MESSAGE);
    let of = |outcome: &str| {
        wait_for(outcome, || {
            let life = house.gateway.json(&["trace", &id]);
            let found = life["recipients"][0].clone();
            (found["outcome"] == outcome).then_some(found)
        })
    };
    let error = of("deferred")["attempts"][0]["error"].to_string();
    assert!(error.contains("the host asked for our certificate"), "{error}");
    assert!(partner.mailbox().is_empty());

    let policies = house.gateway.dir.join("policies");
    let ours = house.pki.leaf("gw.example.org");
    std::fs::copy(&ours.chain, policies.join("our.pem")).expect("copied");
    std::fs::copy(&ours.key, policies.join("our.key")).expect("copied");
    let client = "client_certificate = \"our.pem\"\nclient_key = \"our.key\"\n";
    std::fs::write(policies.join("partner.toml"), PARTNER_FILE.1.to_owned() + client)
        .expect("written");
    let delivered = of("delivered");
    let last = delivered["attempts"].as_array().and_then(|all| all.last()).expect("an attempt");
    assert_eq!(last["tls"]["verified"], true);
    let message = wait_for("mail at the partner's", || partner.mailbox().pop());
    let message = String::from_utf8_lossy(&message).into_owned();
    assert!(message.contains("Client CN"), "Postfix saw our certificate: {message}");
}
