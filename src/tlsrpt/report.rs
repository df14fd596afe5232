//! The report itself: JSON (RFC 8460 §4.4), compressed, and the mail that carries it (§5.3).

use super::{DayOf, ReportSettings, end_of, start_of};
use crate::{
    mail::{Address, MailData, QueueId, compose::MessageWriter, header::date},
    policy::tlsrpt::{Counts, FailureRow, PolicyCounts, PolicyType, ResultType},
};
use flate2::{Compression, write::GzEncoder};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::{io::Write, net::IpAddr};

/// What is sent (RFC 8460 §4.2): media type of the compressed report.
pub(super) const MEDIA_TYPE: &str = "application/tlsrpt+gzip";

/// A report object (RFC 8460 §4.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// Who reports.
    pub organization_name: String,
    /// The day.
    pub date_range: DateRange,
    /// Whom to ask.
    pub contact_info: String,
    /// Its name.
    pub report_id: String,
    /// Policies that were met with.
    pub policies: Vec<PolicyReport>,
}
/// First and last second of the day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DateRange {
    /// First.
    pub start_datetime: Timestamp,
    /// Last.
    pub end_datetime: Timestamp,
}
/// Sessions under one policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PolicyReport {
    /// The policy.
    pub policy: Policy,
    /// Sums.
    pub summary: Summary,
    /// What failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failure_details: Vec<Failure>,
}
/// A policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Policy {
    /// Its kind.
    pub policy_type: PolicyType,
    /// TLSA records, or lines of the MTA-STS policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_string: Vec<String>,
    /// Whose.
    pub policy_domain: String,
    /// The MTA-STS policy's patterns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mx_host: Vec<String>,
}
/// Sums of sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Summary {
    /// Good ones.
    pub total_successful_session_count: u64,
    /// Others.
    pub total_failure_session_count: u64,
}
/// Sessions that failed in one way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Failure {
    /// In which.
    pub result_type: ResultType,
    /// Our address, where it means something outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sending_mta_ip: Option<IpAddr>,
    /// MX host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receiving_mx_hostname: Option<String>,
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receiving_ip: Option<IpAddr>,
    /// How many.
    pub failed_session_count: u64,
    /// More, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_reason_code: Option<String>,
}

impl Report {
    pub(super) fn new(settings: &ReportSettings, key: &DayOf, counts: &Counts) -> Self {
        let last = end_of(key.day).checked_sub(SignedDuration::from_secs(1));
        Self {
            organization_name: settings.organization.clone(),
            date_range: DateRange {
                start_datetime: start_of(key.day),
                end_datetime: last.unwrap_or(Timestamp::MAX),
            },
            contact_info: settings.contact.to_string(),
            report_id: format!("{}.{}@{}", key.day, key.domain, settings.hostname),
            policies: counts.policies.iter().map(|counted| policy(key, counted)).collect(),
        }
    }

    /// JSON, compressed (RFC 8460 §5.2). The bytes of one report are the same each time.
    pub(super) fn compressed(&self) -> std::io::Result<Vec<u8>> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(&serde_json::to_vec(self)?)?;
        gzip.finish()
    }
}

fn policy(key: &DayOf, counted: &PolicyCounts) -> PolicyReport {
    PolicyReport {
        policy: Policy {
            policy_type: counted.policy.kind,
            policy_string: counted.policy.strings.clone(),
            policy_domain: key.domain.as_str().to_owned(),
            mx_host: counted.policy.mx.clone(),
        },
        summary: Summary {
            total_successful_session_count: counted.success,
            total_failure_session_count: counted.failure,
        },
        failure_details: counted.rows.iter().map(failure).collect(),
    }
}

fn failure(row: &FailureRow) -> Failure {
    Failure {
        result_type: row.result,
        sending_mta_ip: row.sending,
        receiving_mx_hostname: row.mx.clone(),
        receiving_ip: row.address,
        failed_session_count: row.count,
        failure_reason_code: row.code.clone(),
    }
}

/// The mail that carries a report (RFC 8460 §5.3). It is signed where it is sealed.
pub(super) struct ReportMail<'a> {
    pub(super) settings: &'a ReportSettings,
    pub(super) key: &'a DayOf,
    pub(super) report: &'a Report,
    pub(super) compressed: &'a [u8],
    pub(super) to: &'a Address,
    pub(super) at: Timestamp,
    pub(super) id: QueueId,
}

impl ReportMail<'_> {
    pub(super) fn to_message(&self) -> MailData {
        let (domain, submitter) = (self.key.domain.as_str(), self.settings.hostname.as_str());
        let report_id = &self.report.report_id;
        let boundary = format!("report_{}", self.id);
        let words = format!(
            "This is a report on the TLS of mail sent to {domain} on {}, UTC,\r\n\
             by {submitter} (RFC 8460).\r\n\r\nReport-ID: {report_id}\r\n",
            self.key.day
        );
        let mut out = MessageWriter::default();
        out.mailboxes("From", [("", &self.settings.from)]);
        out.mailboxes("To", [("", self.to)]);
        // RFC 8460 §5.3.
        let subject =
            format!("Report Domain: {domain} Submitter: {submitter} Report-ID: <{report_id}>");
        out.words("Subject", &subject);
        out.words("Date", &date(self.at));
        out.ids("Message-ID", [format!("{}@{submitter}", self.id).as_str()]);
        out.words("TLS-Report-Domain", domain);
        out.words("TLS-Report-Submitter", submitter);
        // RFC 3834 §5.
        out.words("Auto-Submitted", "auto-generated");
        out.words("MIME-Version", "1.0");
        out.multipart("multipart/report", &[("report-type", "tlsrpt")], &boundary);
        out.text_body("text/plain", &words);
        out.next_part(&boundary);
        out.file_body(MEDIA_TYPE, &self.file_name(), self.compressed);
        out.last_part(&boundary);
        out.finish()
    }

    /// RFC 8460 §5.1.
    fn file_name(&self) -> String {
        let DateRange { start_datetime, end_datetime } = &self.report.date_range;
        format!(
            "{}!{}!{}!{}.json.gz",
            self.settings.hostname,
            self.key.domain,
            start_datetime.as_second(),
            end_datetime.as_second()
        )
    }
}
