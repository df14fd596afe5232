//! SIGTERM: nothing new is taken, what runs comes to its end, the rest stays, and the exit is clean.

use crate::support::{
    house::{House, PARTNER_FILE},
    smtp::{self, Conversation},
    wait_for,
};
use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{Receiver, Sender, channel},
};

const MESSAGE: &[u8] = b"From: a@example.org\r\nSubject: x\r\n\r\nhello\r\n";

fn introduced(server: SocketAddr) -> Conversation {
    let mut conversation = Conversation::open(server);
    conversation.say("EHLO mta.example.org", "250");
    conversation
}

fn wait_until_nobody_listens(server: SocketAddr) {
    wait_for("a closed port", || TcpStream::connect(server).is_err().then_some(()));
}

#[test]
fn a_message_in_transfer_is_taken_and_everybody_else_is_told() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut house = House::open(dir.path(), &[PARTNER_FILE], |_| {});
    let server = house.gateway.smtp;
    let mut idle = introduced(server);
    let mut addressed = introduced(server);
    addressed.say("MAIL FROM:<a@example.org>", "250");
    addressed.say("RCPT TO:<b@partner.test>", "250");
    let mut busy = introduced(server);
    let mut chunked = introduced(server);
    for conversation in [&mut busy, &mut chunked] {
        conversation.say("MAIL FROM:<a@example.org>", "250");
        conversation.say("RCPT TO:<b@partner.test>", "250");
    }
    busy.say("DATA", "354");
    busy.raw(b"Subject: half\r\n");
    chunked.raw(b"BDAT 12\r\nSubject: a\r\n");
    chunked.expect("250");

    house.gateway.signal("TERM");
    idle.expect("421 4.3.2");
    wait_until_nobody_listens(server);
    // Without content there is nothing to lose: the client has it.
    addressed.expect("421");
    busy.raw(b"\r\nthe rest\r\n.\r\n");
    let reply = busy.expect("250 2.0.0 Ok: queued as ");
    busy.expect("421 4.3.2");
    chunked.raw(b"BDAT 8 LAST\r\n\r\nrest\r\n");
    chunked.expect("250 2.0.0 Ok: queued as ");
    chunked.expect("421 4.3.2");
    house.gateway.stop();

    house.gateway.run();
    let id = reply.trim_end().rsplit(' ').next().expect("an id");
    let listed = house.gateway.json(&["queue", "list"]);
    let listed = listed.as_array().expect("an array");
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert!(listed.iter().any(|message| message["id"] == id), "{listed:?}");
}

/// A mail host that says when it has a message, and answers it when it is told to.
fn slow_host(address: SocketAddr) -> (Receiver<()>, Sender<()>) {
    let listener = TcpListener::bind(address).expect("free");
    let (got, has) = channel();
    let (answer, may) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut lines = BufReader::new(stream.try_clone().expect("cloned")).lines();
            let mut say = |text: &str| stream.write_all(text.as_bytes()).is_ok();
            say("220 slow.test\r\n");
            let mut in_data = false;
            while let Some(Ok(line)) = lines.next() {
                if in_data && line != "." {
                    continue;
                }
                if in_data {
                    got.send(()).expect("the test listens");
                    if may.recv().is_err() {
                        return;
                    }
                }
                in_data = line == "DATA";
                say(if in_data { "354 go on\r\n" } else { "250 2.0.0 ok\r\n" });
            }
        }
    });
    (has, answer)
}

#[test]
fn a_running_delivery_comes_to_its_end_and_the_rest_stays_queued() {
    let dir = tempfile::tempdir().expect("temp dir");
    let policy = (
        "p.toml",
        "[[partner]]\ndomains = [\"partner.test\", \"away.test\"]\nlevel = \"opportunistic\"\n",
    );
    let mut house = House::open(dir.path(), &[policy], |settings| {
        settings.delivery = "retry = [\"1h\"]".to_owned();
    });
    house.zone.mail("away.test", &[(10, "mx.away.test", "127.0.20.77")]);
    let (has, answer) = slow_host(house.partner_address());
    let server = house.gateway.smtp;
    let waiting = smtp::send(server, "a@example.org", &["b@away.test"], MESSAGE);
    let running = smtp::send(server, "a@example.org", &["b@partner.test"], MESSAGE);
    has.recv().expect("the delivery runs");

    house.gateway.signal("TERM");
    wait_until_nobody_listens(server);
    answer.send(()).expect("the host waits");
    house.gateway.stop();

    house.gateway.run();
    let life = house.gateway.json(&["trace", &running]);
    assert_eq!(life["recipients"][0]["outcome"], "delivered", "{life}");
    let life = house.gateway.json(&["trace", &waiting]);
    assert_eq!(life["recipients"][0]["outcome"], "deferred", "{life}");
    assert!(has.try_recv().is_err(), "delivered once");
}
