//! Which reports a sender gets, by what it asked and what became of the message (RFC 3461 §4.1, §5.2).

use super::*;
use crate::mail::{Notify, RecipientDsn, Ret};

const TO: &str = "bob@partner.example";

/// ORCPT that differs from the recipient, and NOTIFY.
fn asking(notify: &[&str], recipients: &[&str]) -> Wishes {
    let wish = |notify: &&str| RecipientDsn {
        notify: notify.parse::<Notify>().ok(),
        original: Some("rfc822;Original+@elsewhere.example".to_owned()),
    };
    let asked: Vec<_> = notify.iter().map(wish).collect();
    let recipients: Vec<_> = recipients.iter().map(|r| address(r)).collect();
    Wishes::new(Some(Ret::Full), &asked, &recipients)
}

impl House {
    async fn ask(&self, notify: &[&str], sender: Option<&str>, recipients: &[&str]) -> QueueId {
        let wishes = asking(notify, recipients);
        self.submit_asking(RuleVerdict::protected(), wishes, sender, recipients).await
    }

    /// Sends out what is queued, and returns the texts of the reports that came inside.
    async fn reports(&self) -> Vec<String> {
        self.net.taken.lock().unwrap().clear();
        self.wait(1);
        while self.pass().await > 0 {}
        let taken = self.taken().into_iter().filter(|t| t.host == "inside.example.org");
        taken.map(|t| String::from_utf8(t.content).unwrap()).collect()
    }
}

/// Every way a message can end or wait.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    ToDsnHost,
    ToPlainHost,
    Sealed,
    Failed,
    Late,
}

async fn brought_to(end: End, notify: &str) -> (House, QueueId) {
    let house = House::new();
    let to = if end == End::Sealed { "eve@stranger.example" } else { TO };
    let play = match end {
        End::ToDsnHost => Play::Dsn,
        End::ToPlainHost | End::Sealed => Play::Answers(vec![(250, "2.0.0 Ok")]),
        End::Failed => Play::Answers(vec![(550, "5.1.1 no such user")]),
        End::Late => Play::Answers(vec![(451, "4.3.0 later")]),
    };
    for host in ["mx1.partner.example", "mx2.partner.example"] {
        house.script(host, std::slice::from_ref(&play));
    }
    let id = house.ask(&[notify], Some("ann@example.org"), &[to]).await;
    if end == End::Late {
        house.wait(5 * 3600);
    }
    house.pass().await;
    (house, id)
}

#[tokio::test]
async fn each_notify_is_heeded_at_each_end() {
    use End::{Failed, Late, Sealed, ToDsnHost, ToPlainHost};
    let ends = [ToDsnHost, ToPlainHost, Sealed, Failed, Late];
    let table = [
        ("", ["", "", "", "failed", "delayed"], "left to us: failure and delay"),
        ("NEVER", ["", "", "", "", ""], "nothing at all"),
        ("SUCCESS", ["", "relayed", "relayed", "", ""], "a host with DSN reports itself"),
        ("FAILURE", ["", "", "", "failed", ""], "failure alone"),
        ("DELAY", ["", "", "", "", "delayed"], "delay alone"),
        ("SUCCESS,FAILURE", ["", "relayed", "relayed", "failed", ""], "two"),
        ("FAILURE,DELAY", ["", "", "", "failed", "delayed"], "the other two"),
        ("SUCCESS,DELAY", ["", "relayed", "relayed", "", "delayed"], "without failure"),
        ("SUCCESS,FAILURE,DELAY", ["", "relayed", "relayed", "failed", "delayed"], "all"),
    ];
    for (notify, expected, why) in table {
        for (end, action) in ends.into_iter().zip(expected) {
            let (house, _) = brought_to(end, notify).await;
            let reports = house.of_class(Class::Report).await.len();
            assert_eq!(reports, usize::from(!action.is_empty()), "{notify} {end:?}: {why}");
            let texts = house.reports().await;
            let Some(text) = texts.first() else { continue };
            for part in [
                format!("Action: {action}\r\n"),
                "Original-Envelope-Id: QQ314159\r\n".to_owned(),
                "Original-Recipient: rfc822; Original+@elsewhere.example\r\n".to_owned(),
                "Auto-Submitted: auto-replied\r\n".to_owned(),
            ] {
                assert!(text.contains(&part), "{notify} {end:?}: {part} in {text}");
            }
            assert!(!text.contains("MARKER"), "RET=FULL brings no content: {text}");
        }
    }
}

#[tokio::test]
async fn what_the_sender_asked_goes_to_the_next_host() {
    let (house, _) = brought_to(End::ToDsnHost, "SUCCESS,FAILURE").await;
    let transaction = house.taken().remove(0).transaction;
    assert_eq!(transaction.ret, Some(Ret::Full));
    assert_eq!(transaction.envelope_id.as_deref(), Some("QQ314159"));
    assert_eq!(
        transaction.recipient_dsn,
        [asking(&["SUCCESS,FAILURE"], &[TO]).of(0, &address(TO))]
    );
}

#[tokio::test]
async fn notices_and_reports_ask_nothing_of_their_own_hosts() {
    let (house, _) = brought_to(End::Sealed, "SUCCESS").await;
    assert_eq!(house.pass().await, 2, "the notice and the report");
    for taken in house.taken() {
        let transaction = taken.transaction;
        assert!(transaction.sender.is_none() && transaction.recipient_dsn.is_empty());
        assert!(transaction.ret.is_none() && transaction.envelope_id.is_none());
    }
    assert_eq!(house.pass().await, 0, "and nothing is said of them");
}

#[tokio::test]
async fn one_report_tells_of_all_that_settle_together_and_each_has_its_own_wish() {
    let house = House::new();
    let answers =
        vec![(250, "2.0.0 Ok"), (550, "5.1.1 unknown"), (250, "2.0.0 Ok"), (550, "5.1.1")];
    house.script("mx1.partner.example", &[Play::Answers(answers)]);
    let to = ["a@partner.example", "b@partner.example", "c@partner.example", "d@partner.example"];
    let asked = ["SUCCESS", "FAILURE", "FAILURE", "NEVER"];
    house.ask(&asked, Some("ann@example.org"), &to).await;
    house.pass().await;
    let reports = house.reports().await;
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].matches("\r\nFinal-Recipient:").count(), 2, "{}", reports[0]);
    for (who, action) in [("a", "relayed"), ("b", "failed")] {
        let part =
            format!("Final-Recipient: rfc822; {who}@partner.example\r\nAction: {action}\r\n");
        assert!(reports[0].contains(&part), "{part} in {}", reports[0]);
    }
}

/// The store was busy: the report of the second try is the report of the first.
#[tokio::test]
async fn success_is_reported_once_though_the_store_was_busy() {
    let house = House::busy(2);
    house.ask(&["SUCCESS"], Some("ann@example.org"), &[TO]).await;
    house.pass().await;
    assert_eq!(house.of_class(Class::Report).await.len(), 1);
    house.wait(24 * 3600);
    assert_eq!(house.reports().await.len(), 1);
    assert_eq!(house.of_class(Class::Report).await.len(), 1);
}

#[tokio::test]
async fn nobody_is_told_where_the_sender_is_null_and_reports_have_no_reports() {
    let house = House::new();
    house.ask(&["SUCCESS"], None, &[TO]).await;
    house.pass().await;
    assert!(house.of_class(Class::Report).await.is_empty());

    let (house, _) = brought_to(End::ToPlainHost, "SUCCESS").await;
    house.script("inside.example.org", &[Play::Answers(vec![(550, "5.1.1 no such user")])]);
    while house.pass().await > 0 {}
    assert_eq!(house.of_class(Class::Report).await.len(), 1, "the one that failed");
}

#[tokio::test]
async fn a_refused_notice_is_a_failure_of_the_message_it_announces() {
    for (notify, count) in [("SUCCESS", 0), ("NEVER", 0), ("FAILURE", 1), ("", 1)] {
        let house = House::new();
        house.script("mx1.stranger.example", &[Play::Answers(vec![(550, "5.1.1 no such user")])]);
        let to = ["eve@stranger.example"];
        house.ask(&[notify], Some("ann@example.org"), &to).await;
        house.pass().await;
        let texts = house.reports().await;
        let failed: Vec<_> = texts.iter().filter(|t| t.contains("Action: failed")).collect();
        assert_eq!(failed.len(), count, "{notify}");
        let original = "Original-Recipient: rfc822; Original+@elsewhere.example\r\n";
        assert!(failed.iter().all(|t| t.contains(original)), "{notify}");
    }
}
