//! What is counted of TLS, as an operator reads it and as the RFC's format has it.

use crate::support::{
    house::{House, PARTNER_FILE},
    sink::{Manner, Sink},
    smtp, wait_for,
};
use mail_auth::report::tlsrpt::{PolicyType, ResultType, TlsReport};

/// The reports, through a parser that is not ours.
fn reports(house: &House, arguments: &[&str]) -> Vec<TlsReport> {
    let mut command = vec!["tls-report"];
    command.extend(arguments);
    let answer = house.gateway.json(&command);
    let all = answer.as_array().expect("an array").iter();
    all.map(|report| TlsReport::parse_json(report.to_string().as_bytes()).expect("RFC 8460"))
        .collect()
}

#[test]
fn sessions_are_counted_shown_and_kept_over_a_restart() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut house = House::open(dir.path(), &[PARTNER_FILE], |_| {});
    assert!(reports(&house, &[]).is_empty());
    let wrong = Some(house.pki.leaf("elsewhere.test"));
    let _partner = Sink::start(house.partner_address(), Manner { tls: wrong, ..Manner::default() });
    let to = ["jane@partner.test", "ann@stranger.test", "bob@example.org"];
    smtp::send(house.gateway.smtp, "bob@example.org", &to, b"From: bob@example.org\r\n\r\nx\r\n");
    let found = wait_for("both domains", || {
        let found = reports(&house, &[]);
        (found.len() == 2).then_some(found)
    });
    // The gateway's own hosts are nobody's business.
    wait_for("mail inside", || house.inside.messages().first().cloned());
    house.gateway.stop();
    house.gateway.run();
    assert_eq!(reports(&house, &[]), found, "after a restart");

    let [partner, stranger] = found.try_into().expect("two");
    let sums = |report: &TlsReport| {
        let policy = &report.policies[0];
        (policy.summary.total_success, policy.summary.total_failure)
    };
    assert_eq!((sums(&partner), sums(&stranger)), ((0, 1), (0, 1)));
    let (theirs, details) = (&partner.policies[0].policy, &partner.policies[0].failure_details[0]);
    assert_eq!(theirs.policy_domain, "partner.test");
    assert_eq!(theirs.policy_type, PolicyType::NoPolicyFound, "the level asks for none");
    assert_eq!(details.result_type, ResultType::CertificateHostMismatch);
    assert_eq!(details.receiving_mx_hostname.as_deref(), Some("mx.partner.test"));
    let details = &stranger.policies[0].failure_details[0];
    assert_eq!(details.result_type, ResultType::StartTlsNotSupported);

    assert_eq!(reports(&house, &["--domain", "partner.test"]), [partner]);
    assert!(reports(&house, &["--day", "2020-01-01"]).is_empty());
    let table = house.gateway.ask(&["tls-report"]);
    let table = String::from_utf8(table.stdout).expect("text");
    assert!(
        table.contains("certificate-host-mismatch") && table.contains("mx.partner.test"),
        "{table}"
    );
    for wrong in [["--day", "yesterday"], ["--domain", "a b"]] {
        let output = house.gateway.ask(&[&["tls-report"][..], &wrong].concat());
        assert_eq!(output.status.code(), Some(64), "{wrong:?}");
    }
}
