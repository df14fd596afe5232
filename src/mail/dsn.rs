//! Delivery status notifications (RFC 3461, RFC 3464). Headers only; never the Subject of protected
//! mail.

use crate::mail::{
    self, Domain, EnhancedStatus, MailData, QueueId, StatusClass,
    compose::MessageWriter,
    header::{date, fold},
    text::{beyond_ascii_escaped, printable},
};
use jiff::Timestamp;
use std::borrow::Cow;

/// What happened to a recipient (RFC 3464 §2.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Will not be delivered.
    Failed,
    /// Still tried (`warn_after`).
    Delayed,
    /// Handed to a host that does not report itself (RFC 3461 §5.2.2).
    Relayed,
    /// Sealed for pickup. For programs `relayed`: the message is where success is not reported, as
    /// nobody hears when it is read. `delivered` would say that it lies in the recipient's mailbox.
    Sealed,
}

impl Action {
    /// RFC 3464 §2.3.3
    const fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Relayed | Self::Sealed => "relayed",
        }
    }
}
/// One recipient of the report.
#[derive(Debug, Clone)]
pub struct DsnRecipient {
    /// The recipient as it came in.
    pub address: mail::Address,
    /// ORCPT (RFC 3461 §4.2): address type, semicolon, decoded address.
    pub original: Option<String>,
    /// What happened.
    pub action: Action,
    /// RFC 3463 status.
    pub status: EnhancedStatus,
    /// The remote host, if one answered.
    pub remote_mta: Option<String>,
    /// Its reply, or our own diagnostic; printable, bounded.
    pub diagnostic: String,
}
/// What the report is about.
#[derive(Debug, Clone)]
pub struct Dsn<'a> {
    /// Our host name (Reporting-MTA).
    pub reporting: &'a Domain,
    /// `From` of the report.
    pub from: &'a mail::Address,
    /// The original sender: where the report goes.
    pub to: &'a mail::Address,
    /// The queue id of the message reported on.
    pub about: QueueId,
    /// Its Message-ID, if it had one.
    pub message_id: Option<&'a str>,
    /// ENVID (RFC 3461 §4.4).
    pub envelope_id: Option<&'a str>,
    /// When it arrived.
    pub arrived: Timestamp,
    /// Now.
    pub at: Timestamp,
    /// When we stop trying, for delayed ones.
    pub until: Option<Timestamp>,
    /// Id of the report itself, for its Message-ID and boundaries.
    pub id: QueueId,
    /// Recipients reported.
    pub recipients: Vec<DsnRecipient>,
}
impl Dsn<'_> {
    /// The whole report as multipart/report (RFC 6522), CRLF line ends, 7bit (but for a UTF-8
    /// address of the sender itself, which only `To` can hold as it is).
    pub fn to_message(&self) -> MailData {
        let boundary = format!("report_{}", self.id);
        let mut out = MessageWriter::default();
        out.mailboxes("From", [("Mail Delivery System", self.from)]);
        out.mailboxes("To", [("", self.to)]);
        out.text("Subject", self.subject());
        out.words("Date", &date(self.at));
        out.ids("Message-ID", [format!("{}@{}", self.id, self.reporting).as_str()]);
        // RFC 3834 §5.
        out.words("Auto-Submitted", "auto-replied");
        out.words("MIME-Version", "1.0");
        out.multipart("multipart/report", &[("report-type", "delivery-status")], &boundary);
        out.text("Content-Description", "Notification");
        out.text_body("text/plain", &self.words());
        out.next_part(&boundary);
        out.text("Content-Description", "Delivery report");
        out.ascii_body("message/delivery-status", &self.status());
        // RFC 6522 §4: no more of the message than this, even where RET=FULL asks for all of it
        // (RFC 3461 §4.3 lets a server return less). Reports travel as any mail does, and what
        // was sealed, its Subject included, must not.
        out.next_part(&boundary);
        out.text("Content-Description", "Message headers");
        out.ascii_body("text/rfc822-headers", &self.headers());
        out.last_part(&boundary);
        out.finish()
    }

    fn has(&self, action: Action) -> bool {
        self.with_action(action).next().is_some()
    }

    fn with_action(&self, action: Action) -> impl Iterator<Item = &DsnRecipient> {
        self.recipients.iter().filter(move |r| r.action == action)
    }

    fn subject(&self) -> &'static str {
        if self.has(Action::Failed) {
            "Your message could not be delivered"
        } else if self.has(Action::Delayed) {
            "Your message has not been delivered yet"
        } else {
            "Your message has been passed on"
        }
    }

    /// The part for people.
    fn words(&self) -> String {
        let mut text = format!("This is the mail gateway {}.\r\n", self.reporting);
        if self.has(Action::Failed) {
            text.push_str("\r\nYour message could not be delivered to:\r\n");
            self.with_action(Action::Failed).for_each(|r| describe(r, &mut text));
            text.push_str(
                "\r\nIt will not be tried again. If it matters, ask the recipient another way.\r\n",
            );
        }
        if self.has(Action::Delayed) {
            text.push_str("\r\nYour message has not been delivered yet to:\r\n");
            self.with_action(Action::Delayed).for_each(|r| describe(r, &mut text));
            text.push_str("\r\nYou need not do anything, nor send it again: we keep trying");
            match self.until {
                Some(until) => text.push_str(&format!("\r\nuntil {}.\r\n", date(until))),
                None => text.push_str(".\r\n"),
            }
        }
        self.words_of_success(&mut text);
        text.push_str(&format!(
            "\r\nThe message arrived here on {}.\r\nIf you ask for help, name its number: {}\r\n",
            date(self.arrived),
            self.about
        ));
        text
    }

    fn words_of_success(&self, text: &mut String) {
        if self.has(Action::Relayed) {
            text.push_str("\r\nYour message has been handed to the mail server of:\r\n");
            self.with_action(Action::Relayed).for_each(|r| describe(r, text));
            text.push_str(
                "\r\nThat server sends no report when it puts a message into a mailbox, so this is\r\n\
                 the last that you hear of it unless delivery fails.\r\n",
            );
        }
        if self.has(Action::Sealed) {
            text.push_str("\r\nYour message has been sealed, and waits to be picked up by:\r\n");
            self.with_action(Action::Sealed)
                .for_each(|r| text.push_str(&format!("\r\n  {}\r\n", r.address)));
            text.push_str(
                "\r\nWho picks up is told by a notice and reads at our portal. You will not hear when\r\n\
                 that happens, only if the notice can't be delivered.\r\n",
            );
        }
    }

    /// RFC 3464 §2: the part for programs.
    fn status(&self) -> String {
        let mut text = String::new();
        if let Some(id) = self.envelope_id {
            field(&mut text, "Original-Envelope-Id", &printable(id, MAX_ID));
        }
        field(&mut text, "Reporting-MTA", &format!("dns; {}", self.reporting));
        field(&mut text, "Arrival-Date", &date(self.arrived));
        field(&mut text, "X-Queue-Id", &self.about.to_string());
        for recipient in &self.recipients {
            text.push_str("\r\n");
            if let Some(original) = recipient.original.as_deref().and_then(original_recipient) {
                field(&mut text, "Original-Recipient", &original);
            }
            field(&mut text, "Final-Recipient", &typed_address(&recipient.address));
            field(&mut text, "Action", recipient.action.word());
            field(&mut text, "Status", &recipient.status.to_string());
            if let Some(mta) = &recipient.remote_mta {
                field(&mut text, "Remote-MTA", &format!("dns; {}", printable(mta, MAX_ID)));
            }
            // RFC 3464 §2.3.6: `smtp` is for what a server answered.
            let kind = if recipient.remote_mta.is_some() { "smtp" } else { "x-restante" };
            field(&mut text, "Diagnostic-Code", &format!("{kind}; {}", diagnostic(recipient)));
            field(&mut text, "Last-Attempt-Date", &date(self.at));
            if let Some(until) = self.until.filter(|_| recipient.action == Action::Delayed) {
                field(&mut text, "Will-Retry-Until", &date(until));
            }
        }
        text
    }

    fn headers(&self) -> String {
        let mut text = String::new();
        if let Some(id) = self.message_id {
            field(&mut text, "Message-ID", &printable(id, MAX_ID));
        }
        field(&mut text, "Date", &date(self.arrived));
        text
    }
}

/// What recipients of one report weigh together at most, in bytes: so that a report is small
/// whatever it tells of.
const MAX_REPORT: usize = 128 * 1024;

/// Recipients by report: as few reports as their size allows, in the same order.
pub fn by_report(recipients: Vec<DsnRecipient>) -> Vec<Vec<DsnRecipient>> {
    let mut reports: Vec<Vec<DsnRecipient>> = Vec::new();
    let mut total = 0_usize;
    for recipient in recipients {
        let weight = weight(&recipient);
        total = total.saturating_add(weight);
        match reports.last_mut() {
            Some(report) if total <= MAX_REPORT => report.push(recipient),
            Some(_) | None => {
                total = weight;
                reports.push(vec![recipient]);
            }
        }
    }
    reports
}

/// What a recipient takes in both parts of a report, at most: an address may be escaped.
fn weight(recipient: &DsnRecipient) -> usize {
    const FIXED: usize = 600;
    let address = recipient.address.local().len() + recipient.address.domain().as_str().len();
    let original = recipient.original.as_ref().map_or(0, String::len);
    let said = recipient.diagnostic.len().min(MAX_DIAGNOSTIC);
    let mta = recipient.remote_mta.as_ref().map_or(0, |mta| mta.len().min(MAX_ID));
    FIXED + 6 * address + (4 * original).min(MAX_ORIGINAL) + 2 * (said + mta)
}

/// Characters of a diagnostic and of an id that are passed on.
const MAX_DIAGNOSTIC: usize = 500;
const MAX_ID: usize = 256;
/// Characters of an original recipient: below what a line may hold (RFC 5322 §2.1.1).
const MAX_ORIGINAL: usize = 900;

fn field(text: &mut String, name: &str, value: &str) {
    let words: Vec<Cow<'_, str>> = value.split_whitespace().map(Cow::from).collect();
    text.push_str(&fold(&format!("{name}:"), &words));
}

fn diagnostic(recipient: &DsnRecipient) -> String {
    printable(recipient.diagnostic.trim(), MAX_DIAGNOSTIC)
}

/// RFC 3464 §2.3.1: what ORCPT said, in ASCII (RFC 6533 §4). One too long for a line is left out;
/// half an address would be another.
fn original_recipient(original: &str) -> Option<String> {
    let (kind, address) = original.split_once(';')?;
    let text = beyond_ascii_escaped(&format!("{kind}; {address}"));
    (text.len() <= MAX_ORIGINAL).then(|| printable(&text, MAX_ORIGINAL))
}

/// RFC 3464 §2.3.2; an address with UTF-8 in the 7bit form of RFC 6533 §3.
fn typed_address(address: &mail::Address) -> String {
    if !address.needs_smtputf8() {
        return format!("rfc822; {address}");
    }
    let plain = address.to_string().replace('\\', "\\x{5C}");
    format!("utf-8; {}", beyond_ascii_escaped(&plain))
}

fn describe(recipient: &DsnRecipient, text: &mut String) {
    text.push_str(&format!("\r\n  {}\r\n", recipient.address));
    if recipient.status.class() != StatusClass::Success {
        text.push_str(&format!("    {}\r\n", meaning(recipient.status)));
    }
    let said = match &recipient.remote_mta {
        Some(mta) => format!("What {} answered:", printable(mta, MAX_ID)),
        None => "In detail:".to_owned(),
    };
    let detail = diagnostic(recipient);
    let words: Vec<Cow<'_, str>> = detail.split_whitespace().map(Cow::from).collect();
    let folded = fold(&format!("    {said}"), &words).replace("\r\n\t", "\r\n      ");
    text.push_str(&folded);
}

/// A status (RFC 3463 §3) in the words of somebody who sent a letter.
fn meaning(status: EnhancedStatus) -> &'static str {
    match (status.subject(), status.detail()) {
        (1, 2) => "There is no such mail domain. Check what stands behind the @.",
        (1, 10) => "This domain takes no mail at all. Check what stands behind the @.",
        (1, _) => "The address is not known there. Check its spelling.",
        (2, 2) => "The recipient's mailbox is full.",
        (2 | 3, 3 | 4) => "The message is too large for the recipient's server.",
        (2, _) => "The recipient's mailbox does not take the message.",
        (4, _) => "The recipient's server could not be reached.",
        (6, 7) => "The recipient's server can't handle an address with letters beyond ASCII.",
        (6, _) => "The recipient's server can't handle a message of this kind.",
        (7, _) => "The message was refused, or the protection it needs could not be had.",
        _ => "The recipient's server did not take the message.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{
        header::Fields,
        parts::{Indexer, PartIndex},
    };
    use proptest::prelude::*;

    /// Whatever a thousand recipients bring: each stands in one report, and each report is small.
    #[test]
    fn a_thousand_recipients_are_told_of_in_reports_that_are_small() {
        let domain = format!("{}.example", ["d".repeat(60), "e".repeat(60)].join("."));
        type Row<'a> = (&'a str, String, String, Option<String>, usize, &'static str);
        let rows: [Row<'_>; 4] = [
            ("a", "b.example".into(), "no such user".into(), None, 10, "the usual kind"),
            (&"a".repeat(58), domain.clone(), "x ".repeat(250), None, 30, "long words"),
            (&"é".repeat(29), domain, "x".repeat(500), None, 40, "letters that are escaped"),
            ("a", "b.example".into(), "é".repeat(400), Some("ü".repeat(250)), 40, "an original"),
        ];
        for (local, domain, diagnostic, original, most, reason) in rows {
            let recipients = (0..1000).map(|number| DsnRecipient {
                address: format!("{local}{number}@{domain}").parse().unwrap(),
                original: original.as_ref().map(|o| format!("utf-8;{o}")),
                action: Action::Failed,
                status: EnhancedStatus::permanent(1, 1),
                remote_mta: Some("mx.".to_owned() + &"m".repeat(200)),
                diagnostic: diagnostic.clone(),
            });
            let reports = by_report(recipients.collect());
            assert!(reports.len() <= most, "{reason}: {}", reports.len());
            assert_eq!(reports.iter().map(Vec::len).sum::<usize>(), 1000, "{reason}");
            for recipients in reports {
                let message = report(recipients, None, None);
                assert!(message.len() < 200 * 1024, "{reason}: {} bytes", message.len());
            }
        }
        assert!(by_report(Vec::new()).is_empty());
    }

    fn index(message: &[u8]) -> PartIndex {
        let mut indexer = Indexer::default();
        indexer.feed(message);
        indexer.finish()
    }

    fn report(
        recipients: Vec<DsnRecipient>,
        message_id: Option<&str>,
        envelope_id: Option<&str>,
    ) -> String {
        let dsn = Dsn {
            reporting: &"gw.example.org".parse().unwrap(),
            from: &"postmaster@example.org".parse().unwrap(),
            to: &"jane@example.org".parse().unwrap(),
            about: QueueId::from_bytes([1; 16]),
            message_id,
            envelope_id,
            arrived: "2026-11-22T01:02:03Z".parse().unwrap(),
            at: "2026-11-22T05:02:03Z".parse().unwrap(),
            until: Some("2026-11-27T01:02:03Z".parse().unwrap()),
            id: QueueId::from_bytes([2; 16]),
            recipients,
        };
        assert_eq!(dsn.to_message(), dsn.to_message(), "the same each time");
        String::from_utf8(dsn.to_message().into()).unwrap()
    }

    fn recipient(
        address: &str,
        action: Action,
        remote: Option<&str>,
        diagnostic: &str,
    ) -> DsnRecipient {
        DsnRecipient {
            address: address.parse().unwrap(),
            original: None,
            action,
            status: EnhancedStatus::permanent(1, 1),
            remote_mta: remote.map(str::to_owned),
            diagnostic: diagnostic.to_owned(),
        }
    }

    fn check_lines(message: &str) {
        for line in message.split("\r\n") {
            assert!(line.len() < 998 && !line.contains(['\r', '\n']), "{line:?}");
        }
    }

    #[test]
    fn a_report() {
        let message = report(
            vec![
                recipient(
                    "bob@partner.example",
                    Action::Failed,
                    Some("mx.partner.example"),
                    "550 5.1.1 no such user",
                ),
                recipient("eve@far.example", Action::Delayed, None, "connection timed out"),
            ],
            Some("<orig@example.org>"),
            Some("QQ314159"),
        );
        check_lines(&message);
        assert!(message.is_ascii());
        let fields = Fields::parse(message.as_bytes());
        assert_eq!(fields.first("Auto-Submitted").unwrap(), "auto-replied");
        assert_eq!(fields.first("Date").unwrap(), "Sun, 22 Nov 2026 05:02:03 +0000");
        assert!(fields.first("To").unwrap().contains("jane@example.org"));
        assert!(fields.message_id().is_some());
        assert!(fields.first("Content-Type").unwrap().contains("report-type"));
        let index = index(message.as_bytes());
        let types: Vec<_> = index.parts.iter().map(|p| p.content_type.as_str()).collect();
        assert_eq!(
            types,
            ["multipart/report", "text/plain", "message/delivery-status", "text/rfc822-headers"]
        );
        let body = |i: usize| {
            let body = &index.parts[i].body;
            message.get(body.start as usize..body.end as usize).unwrap()
        };
        assert_eq!(
            body(2).trim_end(),
            "Original-Envelope-Id: QQ314159\r\nReporting-MTA: dns; gw.example.org\r\n\
             Arrival-Date: Sun, 22 Nov 2026 01:02:03 +0000\r\nX-Queue-Id: 040g2081040g2081040g208104\r\n\r\n\
             Final-Recipient: rfc822; bob@partner.example\r\nAction: failed\r\nStatus: 5.1.1\r\n\
             Remote-MTA: dns; mx.partner.example\r\nDiagnostic-Code: smtp; 550 5.1.1 no such user\r\n\
             Last-Attempt-Date: Sun, 22 Nov 2026 05:02:03 +0000\r\n\r\n\
             Final-Recipient: rfc822; eve@far.example\r\nAction: delayed\r\nStatus: 5.1.1\r\n\
             Diagnostic-Code: x-restante; connection timed out\r\n\
             Last-Attempt-Date: Sun, 22 Nov 2026 05:02:03 +0000\r\n\
             Will-Retry-Until: Fri, 27 Nov 2026 01:02:03 +0000"
        );
        assert_eq!(
            body(3).trim_end(),
            "Message-ID: <orig@example.org>\r\nDate: Sun, 22 Nov 2026 01:02:03 +0000"
        );
        for word in
            ["bob@partner.example", "Check its spelling", "550 5.1.1 no such user", "keep trying"]
        {
            assert!(body(1).contains(word), "{word}");
        }
    }

    #[test]
    fn addresses_beyond_ascii() {
        let message = report(
            vec![recipient("\u{fc}@b\u{fc}cher.example", Action::Failed, None, "x")],
            None,
            None,
        );
        assert!(message.contains("Final-Recipient: utf-8; \\x{FC}@xn--bcher-kva.example\r\n"));
        assert!(message.is_ascii(), "the words are encoded");
    }

    #[test]
    fn success_is_relayed_for_programs_and_told_apart_for_people() {
        let good = |address, action, original: &str| DsnRecipient {
            status: EnhancedStatus::success(0, 0),
            original: Some(original.to_owned()),
            ..recipient(address, action, Some("mx.partner.example"), "250 2.0.0 kept")
        };
        let long = format!("utf-8;{}@x.example", "\u{fc}".repeat(240));
        let message = report(
            vec![
                good("bob@partner.example", Action::Relayed, "rfc822;Bob+@elsewhere.example"),
                good("eve@far.example", Action::Sealed, "utf-8;\u{fc}@x.example"),
                good("dan@far.example", Action::Sealed, &long),
            ],
            None,
            None,
        );
        check_lines(&message);
        let fields = Fields::parse(message.as_bytes());
        assert_eq!(fields.first("Subject").unwrap(), "Your message has been passed on");
        for text in [
            "Original-Recipient: rfc822; Bob+@elsewhere.example\r\n\
             Final-Recipient: rfc822; bob@partner.example\r\nAction: relayed\r\nStatus: 2.0.0\r\n\
             Remote-MTA: dns; mx.partner.example\r\nDiagnostic-Code: smtp; 250 2.0.0 kept\r\n",
            "Original-Recipient: utf-8; \\x{FC}@x.example\r\n\
             Final-Recipient: rfc822; eve@far.example\r\nAction: relayed\r\nStatus: 2.0.0\r\n",
            "handed to the mail server of:\r\n\r\n  bob@partner.example\r\n    What",
            "waits to be picked up by:\r\n\r\n  eve@far.example\r\n\r\n  dan@far.example\r\n",
        ] {
            assert!(message.contains(text), "{text} in {message}");
        }
        assert_eq!(message.matches("Original-Recipient").count(), 2, "no half address");
        for wrong in ["could not", "not been delivered yet", "Will-Retry-Until"] {
            assert!(!message.contains(wrong), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn nothing_gets_out_of_its_field(evil in "(?s:.{0,700})", remote in "(?s:.{0,300})") {
            let original = Some(format!("x;{evil}"));
            let one = DsnRecipient {
                original,
                ..recipient("bob@partner.example", Action::Failed, Some(&remote), &evil)
            };
            let message = report(vec![one], Some(&evil), Some(&evil));
            check_lines(&message);
            prop_assert!(message.is_ascii());
            prop_assert_eq!(index(message.as_bytes()).parts.len(), 4);
            prop_assert_eq!(message.matches("\r\nDiagnostic-Code:").count(), 1);
        }
    }
}
