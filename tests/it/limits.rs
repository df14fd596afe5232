//! Limits on clients, as a client and an operator meet them.

use crate::support::{
    free_port,
    gateway::{Gateway, Settings},
    http::Visitor,
    smtp::Conversation,
};
use std::{
    io::{BufRead, BufReader},
    net::TcpStream,
};

#[test]
fn what_is_too_much_is_put_off_and_counted() {
    let dir = tempfile::tempdir().expect("temp dir");
    let address = format!("127.0.0.1:{}", free_port(&["127.0.0.1"]));
    let settings = Settings {
        smtp: "max_connections_per_client = 2\nmax_message_rate = 2\nmax_recipient_rate = 3"
            .to_owned(),
        notification: format!("[metrics]\nlisten = \"{address}\""),
        ..Settings::default()
    };
    let gateway = Gateway::start(dir.path(), &settings, &[]);
    let mut one = Conversation::open(gateway.smtp);
    let mut two = Conversation::open(gateway.smtp);
    let mut line = String::new();
    let third = TcpStream::connect(gateway.smtp).expect("connects");
    BufReader::new(third).read_line(&mut line).expect("a line");
    let said = "421 4.7.0 gw.example.org has too many connections from 127.0.0.1, try again later";
    assert_eq!(line.trim_end(), said);

    one.say("EHLO mta.example.org", "250");
    two.say("EHLO mta.example.org", "250");
    one.say("MAIL FROM:<a@example.org>", "250");
    for number in 0..3 {
        one.say(&format!("RCPT TO:<r{number}@b.test>"), "250");
    }
    let said = "450 4.7.1 Too many recipients from 127.0.0.1 in a minute, try again later";
    one.say("RCPT TO:<r3@b.test>", said);
    one.say("RSET", "250");
    two.say("MAIL FROM:<a@example.org>", "250");
    two.say("RSET", "250");
    let said = "450 4.7.1 Too much mail from 127.0.0.1 in a minute, try again later";
    two.say("MAIL FROM:<a@example.org>", said);

    let page = Visitor::new(address.parse().expect("address")).get("/metrics");
    for line in [
        "restante_smtp_connections 2",
        "restante_smtp_refused_total{limit=\"client-connections\"} 1",
        "restante_smtp_refused_total{limit=\"message-rate\"} 1",
        "restante_smtp_refused_total{limit=\"recipient-rate\"} 1",
        "restante_smtp_refused_total{limit=\"memory\"} 0",
    ] {
        assert!(page.text().lines().any(|l| l == line), "{line}\n{}", page.text());
    }
}
