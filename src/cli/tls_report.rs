//! `restante tls-report`: how TLS went, a line for each policy and each kind of failure.

use super::{
    Exit,
    look::{Paging, list},
};
use crate::{
    control::Request,
    mail::Domain,
    tlsrpt::{Failure, PolicyReport, Report},
};
use jiff::civil::Date;
use std::path::Path;

/// Shows what was counted.
pub fn show(socket: &Path, day: Option<Date>, domain: Option<&Domain>, json: bool) -> Exit {
    let request = |after, max| Request::TlsReport { day, domain: domain.cloned(), after, max };
    let names = ["DAY", "DOMAIN", "POLICY", "GOOD", "FAILED", "RESULT", "MX", "ADDRESS"];
    list(socket, json, Paging::default(), request, &names, lines)
}

fn lines(report: &Report) -> Vec<Vec<String>> {
    let day = report.date_range.start_datetime.strftime("%Y-%m-%d").to_string();
    let mut rows = Vec::new();
    for policy in &report.policies {
        rows.push(sums(&day, policy));
        rows.extend(policy.failure_details.iter().map(|failure| details(&day, policy, failure)));
    }
    rows
}

fn sums(day: &str, policy: &PolicyReport) -> Vec<String> {
    let mut row = begun(day, policy);
    row.push(policy.summary.total_successful_session_count.to_string());
    row.push(policy.summary.total_failure_session_count.to_string());
    row
}

fn details(day: &str, policy: &PolicyReport, failure: &Failure) -> Vec<String> {
    let mut row = begun(day, policy);
    let result = word(&failure.result_type);
    let code = failure.failure_reason_code.as_ref().map(|code| format!(" ({code})"));
    row.push(String::new());
    row.push(failure.failed_session_count.to_string());
    row.push(result + &code.unwrap_or_default());
    row.push(failure.receiving_mx_hostname.clone().unwrap_or_default());
    row.push(failure.receiving_ip.map(|ip| ip.to_string()).unwrap_or_default());
    row
}

fn begun(day: &str, policy: &PolicyReport) -> Vec<String> {
    let of = &policy.policy;
    vec![day.to_owned(), of.policy_domain.clone(), word(&of.policy_type)]
}

/// The word that stands in the JSON.
fn word<T: serde::Serialize>(value: &T) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_policy_and_each_failure() {
        let report = serde_json::json!([{
            "organization-name": "Example", "contact-info": "postmaster@example.org",
            "report-id": "1",
            "date-range": {
                "start-datetime": "2026-11-25T00:00:00Z", "end-datetime": "2026-11-25T23:59:59Z"
            },
            "policies": [{
                "policy": { "policy-type": "sts", "policy-domain": "a.example" },
                "summary": {
                    "total-successful-session-count": 7, "total-failure-session-count": 2
                },
                "failure-details": [{
                    "result-type": "validation-failure", "failed-session-count": 2,
                    "receiving-mx-hostname": "mx.a.example", "receiving-ip": "192.0.2.1",
                    "failure-reason-code": "handshake-failed"
                }]
            }]
        }]);
        let reports: Vec<Report> = serde_json::from_value(report).unwrap();
        let rows = lines(&reports[0]);
        assert_eq!(rows[0], ["2026-11-25", "a.example", "sts", "7", "2"]);
        assert_eq!(
            rows[1],
            [
                "2026-11-25",
                "a.example",
                "sts",
                "",
                "2",
                "validation-failure (handshake-failed)",
                "mx.a.example",
                "192.0.2.1"
            ]
        );
    }
}
