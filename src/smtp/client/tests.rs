//! The client machine against scripted servers.

use super::*;

fn client() -> Client {
    Client::new("gw.example.org".parse().expect("a domain"))
}

fn transaction(recipients: &[&str]) -> Transaction {
    Transaction {
        sender: Some("ann@example.org".parse().expect("an address")),
        recipients: recipients.iter().map(|text| text.parse().expect("an address")).collect(),
        size: 1234,
        eight_bit: true,
        smtputf8: false,
        require_tls: true,
        envelope_id: Some("x=1".into()),
        ret: None,
        recipient_dsn: Vec::new(),
    }
}

/// Feeds text and returns the actions as text.
fn feed(client: &mut Client, text: &str) -> Vec<String> {
    client.receive(text.as_bytes());
    actions(client)
}

fn actions(client: &mut Client) -> Vec<String> {
    let show = |action| match action {
        ClientAction::Send(bytes) => String::from_utf8(bytes).expect("ASCII"),
        ClientAction::Done(replies) => {
            let one = |reply: &RecipientReply| format!("{} {}", reply.delivered, reply.reply);
            format!("done: {}", replies.iter().map(one).collect::<Vec<_>>().join("; "))
        }
        ClientAction::Failed(error) => format!("failed: {error}"),
        other @ (ClientAction::Ready | ClientAction::StartTls | ClientAction::SendContent) => {
            format!("{other:?}")
        }
    };
    std::iter::from_fn(|| client.poll()).map(show).collect()
}

fn ready(offers: &str) -> Client {
    let mut client = client();
    assert_eq!(feed(&mut client, "220 mx ESMTP\r\n"), ["EHLO gw.example.org\r\n"]);
    assert_eq!(feed(&mut client, &format!("250-mx\r\n{offers}250 HELP\r\n")), ["Ready"]);
    client
}

#[test]
fn greetings_and_ehlo() {
    let table: &[(&[&str], &str, &str)] = &[
        (&["220-a\r\n220 b\r\n", "250 mx\r\n"], "Ready", "several lines"),
        (&["554 5.7.1 no\r\n"], "failed: greeted with 554 5.7.1 no", "refused"),
        (&["421 busy\r\n"], "failed: greeted with 421 busy", "421"),
        (&["220 x\r\n", "502 what\r\n"], "HELO gw.example.org\r\n", "falls back to HELO"),
        (&["220 x\r\n", "502 what\r\n", "250 mx\r\n"], "Ready", "HELO does"),
        (
            &["220 x\r\n", "502 what\r\n", "550 no\r\n"],
            "failed: EHLO refused with 550 no",
            "neither does",
        ),
        (
            &["220 x\r\n", "451 later\r\n"],
            "failed: EHLO refused with 451 later",
            "a 4xx is no reason for HELO",
        ),
        (&["220 x\r\n", "421 bye\r\n"], "failed: the peer closed: 421 bye", "421 after EHLO"),
        (
            &["SSH-2.0-x\r\n"],
            "failed: not an SMTP reply: no reply code: \"SSH-2.0-x\"",
            "another protocol",
        ),
        (&["220 x\n"], "failed: not an SMTP reply: a bare CR or LF: \"220 x\"", "bare LF"),
    ];
    for (pieces, expected, why) in table {
        let mut client = client();
        let last = pieces.iter().map(|piece| feed(&mut client, piece)).last().expect("pieces");
        assert_eq!(last, [*expected], "{why}");
    }
}

#[test]
fn extensions_are_read_in_any_case_and_garbage_is_ignored() {
    let offers = "250-pipelining\r\n250-SIZE 0\r\n250-8bitMIME\r\n250-\r\n250-X-\u{fffd} y\r\n250-STARTTLS\r\n";
    let expected =
        Extensions { pipelining: true, eight_bit: true, starttls: true, ..Extensions::default() };
    assert_eq!(ready(offers).extensions(), &expected);
    assert_eq!(ready("250-SIZE 35882577\r\n").extensions().size, Some(35_882_577));
    assert_eq!(ready("250-SIZE lots\r\n").extensions().size, None);
}

#[test]
fn one_command_at_a_time_without_pipelining() {
    let mut client = ready("");
    client.begin(transaction(&["bob@b.example", "cid@b.example"]));
    assert_eq!(actions(&mut client), ["MAIL FROM:<ann@example.org>\r\n"]);
    assert_eq!(feed(&mut client, "250 ok\r\n"), ["RCPT TO:<bob@b.example>\r\n"]);
    assert_eq!(feed(&mut client, "550 5.1.1 no Bob\r\n"), ["RCPT TO:<cid@b.example>\r\n"]);
    assert_eq!(feed(&mut client, "250 ok\r\n"), ["DATA\r\n"]);
    assert_eq!(feed(&mut client, "354 go\r\n"), ["SendContent"]);
    let mut wire = Vec::new();
    client.content(b".a\r\n.", &mut wire);
    client.content(b"b", &mut wire);
    client.content_end(&mut wire);
    assert_eq!(wire, b"..a\r\n..b\r\n.\r\n");
    assert_eq!(
        feed(&mut client, "250 2.0.0 mine\r\n"),
        ["done: false 550 5.1.1 no Bob; true 250 2.0.0 mine"]
    );
    client.quit();
    assert_eq!(actions(&mut client), ["QUIT\r\n"]);
    client.closed();
    assert_eq!(actions(&mut client), [""; 0]);
}

#[test]
fn parameters_only_where_offered() {
    let mut client =
        ready("250-PIPELINING\r\n250-SIZE 9\r\n250-8BITMIME\r\n250-DSN\r\n250-REQUIRETLS\r\n");
    client.begin(transaction(&["\"b b\"@b.example"]));
    let expected = "MAIL FROM:<ann@example.org> SIZE=1234 BODY=8BITMIME REQUIRETLS ENVID=x+3D1\r\n\
                    RCPT TO:<\"b b\"@b.example>\r\nDATA\r\n";
    assert_eq!(actions(&mut client), [expected]);
}

/// RFC 3461 §5.2.1, §5.2.2; RFC 6533 §3.
#[test]
fn what_senders_want_to_hear_goes_to_whom_offers_dsn() {
    let wish = |notify: &str, original: &str| RecipientDsn {
        notify: notify.parse().ok(),
        original: Some(original.to_owned()).filter(|text| !text.is_empty()),
    };
    let asked = |smtputf8| Transaction {
        ret: Some(Ret::Full),
        smtputf8,
        require_tls: false,
        eight_bit: false,
        recipient_dsn: vec![
            wish("SUCCESS,DELAY", "rfc822;Bob+=@B.example"),
            wish("NEVER", ""),
            wish("", "utf-8;\u{fc}@b.example"),
        ],
        ..transaction(&["a@b.example", "b@b.example", "c@b.example", "d@b.example"])
    };
    let bare = "RCPT TO:<a@b.example>\r\nRCPT TO:<b@b.example>\r\nRCPT TO:<c@b.example>\r\n\
                RCPT TO:<d@b.example>\r\nDATA\r\n";
    let told = |mail: &str, original: &str| {
        format!(
            "MAIL FROM:<ann@example.org>{mail} RET=FULL ENVID=x+3D1\r\n\
             RCPT TO:<a@b.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob+2B+3D@B.example\r\n\
             RCPT TO:<b@b.example> NOTIFY=NEVER\r\nRCPT TO:<c@b.example> ORCPT={original}\r\n\
             RCPT TO:<d@b.example>\r\nDATA\r\n"
        )
    };
    let table = [
        ("", false, format!("MAIL FROM:<ann@example.org>\r\n{bare}"), "not offered"),
        ("250-DSN\r\n", false, told("", "utf-8;\\x{FC}@b.example"), "offered, ASCII alone"),
        (
            "250-DSN\r\n250-SMTPUTF8\r\n",
            true,
            told(" SMTPUTF8", "utf-8;\u{fc}@b.example"),
            "offered, and SMTPUTF8 is in use",
        ),
    ];
    for (offers, smtputf8, expected, why) in table {
        let mut client = ready(&format!("250-PIPELINING\r\n{offers}"));
        client.begin(asked(smtputf8));
        assert_eq!(actions(&mut client), [expected], "{why}");
    }
}

#[test]
fn a_reply_says_whether_the_server_reports_itself() {
    for (offers, dsn) in [("250-DSN\r\n", true), ("", false)] {
        let mut client = ready(&format!("250-PIPELINING\r\n{offers}"));
        client.begin(transaction(&["bob@b.example"]));
        actions(&mut client);
        client.receive(b"250 a\r\n250 b\r\n354 c\r\n");
        assert_eq!(client.poll(), Some(ClientAction::SendContent));
        client.content_end(&mut Vec::new());
        client.receive(b"250 mine\r\n");
        let Some(ClientAction::Done(replies)) = client.poll() else { panic!("not done") };
        assert_eq!((replies[0].delivered, replies[0].dsn), (true, dsn));
    }
}

/// Replies to a pipelined MAIL, RCPT, RCPT, DATA and what comes of them.
#[test]
fn refusals_in_a_pipelined_envelope() {
    let table = [
        ("250 a\r\n250 b\r\n250 c\r\n354 d\r\n", vec!["SendContent"], "all well"),
        ("250 a\r\n550 b\r\n250 c\r\n354 d\r\n", vec!["SendContent"], "one refused"),
        (
            "250 a\r\n550 b\r\n450 c\r\n354 d\r\n",
            vec![".\r\n"],
            "all refused, 354 all the same (RFC 2920 3.1)",
        ),
        (
            "250 a\r\n550 b\r\n450 c\r\n503 d\r\n",
            vec!["done: false 550 b; false 450 c"],
            "all refused",
        ),
        (
            "550 a\r\n503 b\r\n503 c\r\n503 d\r\n",
            vec!["done: false 550 a; false 550 a"],
            "MAIL refused",
        ),
        ("450 a\r\n503 b\r\n503 c\r\n354 d\r\n", vec![".\r\n"], "MAIL refused, 354 all the same"),
        (
            "250 a\r\n250 b\r\n550 c\r\n451 d\r\n",
            vec!["done: false 451 d; false 550 c"],
            "DATA refused",
        ),
        (
            "250 a\r\n250 b\r\n250 c\r\n250 d\r\n",
            vec!["failed: not an SMTP reply: out of place: 250 d"],
            "2xx to DATA",
        ),
        ("354 a\r\n", vec!["failed: not an SMTP reply: out of place: 354 a"], "3xx to MAIL"),
        (
            "250 a\r\n550 b\r\n421 c\r\n",
            vec!["done: false 550 b; false 421 c", "failed: the peer closed: 421 c"],
            "421 ends it",
        ),
    ];
    for (replies, expected, why) in table {
        let mut client = ready("250-PIPELINING\r\n");
        client.begin(transaction(&["bob@b.example", "cid@b.example"]));
        assert_eq!(actions(&mut client).len(), 1);
        assert_eq!(feed(&mut client, replies), expected, "{why}");
    }
}

#[test]
fn the_session_goes_on_after_a_refusal() {
    let mut client = ready("250-PIPELINING\r\n");
    client.begin(transaction(&["bob@b.example"]));
    actions(&mut client);
    assert_eq!(feed(&mut client, "250 a\r\n550 b\r\n354 c\r\n"), [".\r\n"]);
    assert_eq!(feed(&mut client, "554 no recipients\r\n"), ["done: false 550 b"]);
    client.begin(transaction(&["cid@b.example"]));
    let sent = actions(&mut client).concat();
    assert!(sent.starts_with("RSET\r\nMAIL FROM:"), "{sent}");
    assert_eq!(feed(&mut client, "250 r\r\n250 a\r\n250 b\r\n354 c\r\n"), ["SendContent"]);
}

#[test]
fn flights_are_bounded() {
    let many: Vec<String> = (0..250).map(|n| format!("u{n}@b.example")).collect();
    let mut client = ready("250-PIPELINING\r\n");
    client.begin(transaction(&many.iter().map(String::as_str).collect::<Vec<_>>()));
    for expected in [100, 100, 52] {
        let sent = actions(&mut client).concat();
        assert_eq!(sent.lines().count(), expected);
        client.receive("250 ok\r\n".repeat(expected - 1).as_bytes());
        client.receive(if expected == 52 { b"354 go\r\n" } else { b"250 ok\r\n" });
    }
    assert_eq!(actions(&mut client), ["SendContent"]);
}

#[test]
fn starttls_forgets_and_greets_again() {
    let mut client = ready("250-STARTTLS\r\n250-DSN\r\n");
    client.start_tls();
    assert_eq!(actions(&mut client), ["STARTTLS\r\n"]);
    assert_eq!(feed(&mut client, "220 go\r\n"), ["StartTls"]);
    client.tls_started();
    assert_eq!(client.extensions(), &Extensions::default());
    assert_eq!(actions(&mut client), ["EHLO gw.example.org\r\n"]);
    let mut refused = client;
    assert_eq!(
        feed(&mut refused, "502 what\r\n"),
        ["failed: EHLO refused with 502 what"],
        "no HELO inside TLS"
    );
}

#[test]
fn injected_replies_end_the_session() {
    let injection = ["failed: plaintext follows the reply to STARTTLS"];
    let mut client = ready("250-STARTTLS\r\n");
    client.start_tls();
    actions(&mut client);
    assert_eq!(feed(&mut client, "220 go\r\n250-mx\r\n250 DSN\r\n"), injection, "in one piece");

    let mut client = ready("250-STARTTLS\r\n");
    client.start_tls();
    actions(&mut client);
    assert_eq!(feed(&mut client, "220 go\r\n"), ["StartTls"]);
    assert_eq!(feed(&mut client, "2"), injection, "before the handshake");

    let mut client = ready("250-STARTTLS\r\n");
    client.receive(b"220 go\r\n");
    client.start_tls();
    assert_eq!(actions(&mut client), injection, "before the question");
}

#[test]
fn replies_out_of_turn() {
    let content = || {
        let mut client = ready("250-PIPELINING\r\n");
        client.begin(transaction(&["bob@b.example"]));
        actions(&mut client);
        assert_eq!(feed(&mut client, "250 a\r\n250 b\r\n354 c\r\n"), ["SendContent"]);
        client
    };
    let interrupted = "failed: the peer closed: in the middle of content: 452 full";
    assert_eq!(feed(&mut content(), "452 full\r\n"), ["done: false 452 full", interrupted]);
    let early = "failed: not an SMTP reply: out of place: 250 thanks";
    assert_eq!(feed(&mut content(), "250 thanks\r\n"), [early], "an acceptance of nothing");
    assert_eq!(feed(&mut ready(""), "421 idle\r\n"), ["failed: the peer closed: 421 idle"]);

    let mut lost = content();
    lost.content_end(&mut Vec::new());
    lost.receive(b"250-half");
    lost.closed();
    assert_eq!(actions(&mut lost), ["failed: the peer closed: after the final dot"]);

    let mut last = content();
    last.content_end(&mut Vec::new());
    let expected = ["done: false 421 later", "failed: the peer closed: 421 later"];
    assert_eq!(feed(&mut last, "421 later\r\n"), expected);

    let mut given_up = content();
    given_up.abandon();
    assert_eq!(feed(&mut given_up, "250 thanks\r\n"), [""; 0]);
    let mut out = Vec::new();
    given_up.content_end(&mut out);
    assert!(out.is_empty(), "no dot after giving up");
}
