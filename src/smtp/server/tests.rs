//! The server machine in situations that need more than a dialogue (those are in
//! `tests/dialogues`).

use super::*;
use crate::mail::EnhancedStatus;
use proptest::prelude::*;

fn settings() -> ServerSettings {
    ServerSettings {
        hostname: "gw.example.org".parse().expect("a domain"),
        postmaster: "postmaster@example.org".parse().expect("an address"),
        max_message_size: 1_000_000,
        max_recipients: 3,
        max_errors: 20,
        starttls: true,
        require_tls: false,
        may_relay: true,
        normalize: false,
    }
}

fn full_disk() -> Reply {
    Reply::new(452, EnhancedStatus::transient(3, 1), "Disk full")
}

/// What a session did: its words, and each message's end.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    said: String,
    messages: Vec<Option<Vec<u8>>>,
    closed: bool,
}

/// Drives a machine with pieces of input; the driver accepts everything.
fn run(settings: ServerSettings, pieces: &[&[u8]]) -> Heard {
    let (mut server, mut heard, mut content) =
        (Server::new(settings), Heard::default(), Vec::new());
    for piece in std::iter::once(&b"".as_slice()).chain(pieces) {
        server.receive(piece);
        while let Some(action) = server.poll() {
            match action {
                Action::Send(bytes) => {
                    heard.said.push_str(&String::from_utf8(bytes).expect("ASCII"))
                }
                Action::StartTls => server.tls_started("TLSv1.3"),
                Action::Begin(_) => content.clear(),
                Action::Content(piece) => {
                    assert!(piece.len() <= crate::smtp::data::MAX_PIECE);
                    content.extend_from_slice(&piece);
                }
                Action::End => {
                    heard.messages.push(Some(content.clone()));
                    server.accepted(QueueId::from_bytes([0; 16]));
                }
                Action::Abort => heard.messages.push(None),
                Action::Close => heard.closed = true,
            }
        }
    }
    heard
}

const ENVELOPE: &str = "EHLO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n";

/// Reply codes, one a reply.
fn codes(heard: &Heard) -> Vec<&str> {
    let last = |line: &&str| line.as_bytes().get(3) != Some(&b'-');
    heard.said.lines().filter(last).filter_map(|line| line.get(..3)).collect()
}

#[test]
fn a_pipelined_session_in_one_piece() {
    let input = format!("{ENVELOPE}DATA\r\n..x\r\n.\r\nMAIL FROM:<>\r\nQUIT\r\n");
    let heard = run(settings(), &[input.as_bytes()]);
    assert_eq!(codes(&heard), ["220", "250", "250", "250", "354", "250", "250", "221"]);
    assert_eq!(heard.messages, [Some(b".x\r\n".to_vec())]);
    assert!(heard.closed);
}

#[test]
fn content_comes_in_bounded_pieces() {
    let body = "x".repeat(998) + "\r\n";
    let input = format!("{ENVELOPE}DATA\r\n{}.\r\n", body.repeat(400));
    let heard = run(settings(), &[input.as_bytes()]);
    assert_eq!(heard.messages, [Some(body.repeat(400).into_bytes())]);
}

#[test]
fn plaintext_behind_starttls_is_never_read() {
    let injected = run(settings(), &[b"EHLO c\r\nSTARTTLS\r\nMAIL FROM:<>\r\n"]);
    assert_eq!(codes(&injected), ["220", "250", "503"]);
    assert!(injected.closed);

    let mut server = Server::new(settings());
    server.receive(b"EHLO c\r\nSTARTTLS\r\n");
    while server.poll().is_some_and(|action| action != Action::StartTls) {}
    server.receive(b"RSET\r\n");
    assert_eq!(server.poll(), Some(Action::Close), "between the 220 and the handshake");
    server.tls_started("TLSv1.3");
    assert_eq!((server.poll(), server.tls()), (None, None));
}

#[test]
fn tls_starts_the_session_anew() {
    let pieces: [&[u8]; 3] =
        [b"EHLO c\r\nMAIL FROM:<>\r\n", b"STARTTLS\r\n", b"RCPT TO:<a@b.example>\r\n"];
    assert_eq!(codes(&run(settings(), &pieces)), ["220", "250", "250", "220", "503"]);
    let inside = run(settings(), &[b"STARTTLS\r\n", b"EHLO c\r\n"]).said;
    assert!(inside.contains("REQUIRETLS") && !inside.contains("250 STARTTLS"), "{inside}");
}

#[test]
fn a_refused_begin_answers_data_itself() {
    let mut server = Server::new(settings());
    server.receive(format!("{ENVELOPE}DATA\r\nNOOP\r\n").as_bytes());
    let mut said = String::new();
    while let Some(action) = server.poll() {
        match action {
            Action::Begin(_) => server.refuse(full_disk()),
            Action::Send(bytes) => said.push_str(&String::from_utf8(bytes).expect("ASCII")),
            Action::StartTls | Action::Content(_) | Action::End | Action::Abort | Action::Close => {
                panic!("{action:?}")
            }
        }
    }
    assert!(said.ends_with("452 4.3.1 Disk full\r\n250 2.0.0 Ok\r\n"), "{said}");
}

#[test]
fn a_message_refused_in_the_middle_is_heard_of_no_more() {
    for (start, end) in [("DATA\r\n", ".\r\n"), ("BDAT 7 LAST\r\n", "")] {
        let mut server = Server::new(settings());
        server.receive(format!("{ENVELOPE}{start}hello\r\n{end}NOOP\r\n").as_bytes());
        let mut said = String::new();
        while let Some(action) = server.poll() {
            match action {
                Action::Begin(_) => {}
                Action::Content(_) => server.refuse(full_disk()),
                Action::Send(bytes) => said.push_str(&String::from_utf8(bytes).expect("ASCII")),
                Action::StartTls | Action::End | Action::Abort | Action::Close => {
                    panic!("{start}: {action:?}")
                }
            }
        }
        assert!(said.ends_with("452 4.3.1 Disk full\r\n250 2.0.0 Ok\r\n"), "{start}: {said}");
    }
}

#[test]
fn nothing_is_given_while_a_verdict_is_due() {
    let mut server = Server::new(settings());
    server.receive(format!("{ENVELOPE}DATA\r\n.\r\nNOOP\r\n").as_bytes());
    while server.poll().is_some_and(|action| action != Action::End) {}
    assert_eq!(server.poll(), None);
    server.refuse(full_disk());
    assert_eq!(server.poll(), Some(Action::Send(b"452 4.3.1 Disk full\r\n".to_vec())));
    assert_eq!(server.poll(), Some(Action::Send(b"250 2.0.0 Ok\r\n".to_vec())));
}

#[test]
fn time_out_discards_an_open_deposit() {
    let mut server = Server::new(settings());
    server.receive(format!("{ENVELOPE}DATA\r\nhalf").as_bytes());
    while server.poll().is_some() {}
    server.timed_out();
    assert_eq!(server.poll(), Some(Action::Abort));
    assert_eq!(server.poll(), Some(Action::Send(b"421 4.4.2 Idle for too long\r\n".to_vec())));
    assert_eq!((server.poll(), server.poll()), (Some(Action::Close), None));
}

#[test]
fn shutting_down_lets_a_transaction_end() {
    let mut server = Server::new(settings());
    server.receive(ENVELOPE.as_bytes());
    while server.poll().is_some() {}
    server.shut_down();
    assert_eq!(server.poll(), None);
    server.receive(b"DATA\r\nx\r\n.\r\n");
    while server.poll().is_some_and(|action| action != Action::End) {}
    server.accepted(QueueId::from_bytes([0; 16]));
    assert!(
        matches!(server.poll(), Some(Action::Send(queued)) if queued.starts_with(b"250 2.0.0 Ok: queued as "))
    );
    assert_eq!(server.poll(), Some(Action::Send(b"421 4.3.2 Shutting down\r\n".to_vec())));
    assert_eq!(server.poll(), Some(Action::Close));
}

#[test]
fn pressure_holds_mail_off_and_ends() {
    let mut server = Server::new(settings());
    server.set_pressure(Some(full_disk()));
    server.receive(b"EHLO c\r\nMAIL FROM:<>\r\n");
    let mut last = Vec::new();
    let mut drain = |server: &mut Server| {
        while let Some(Action::Send(bytes)) = server.poll() {
            last = bytes;
        }
        last.clone()
    };
    assert_eq!(drain(&mut server), b"452 4.3.1 Disk full\r\n");
    server.set_pressure(None);
    server.receive(b"MAIL FROM:<>\r\n");
    assert_eq!(drain(&mut server), b"250 2.1.0 Ok\r\n");
}

fn line() -> impl Strategy<Value = &'static [u8]> {
    let lines: &[&[u8]] = &[
        b"EHLO c\r\n",
        b"HELO c\r\n",
        b"MAIL FROM:<a@b.example>\r\n",
        b"RCPT TO:<c@d.example>\r\n",
        b"DATA\r\n",
        b"..text\r\n",
        b".\r\n",
        b"BDAT 4\r\n",
        b"BDAT 9 LAST\r\n",
        b"a\r\nb",
        b"RSET\r\n",
        b"NOOP\n",
        b"\r",
        b"\0",
        b"QUIT\r\n",
        b"VRFY x\r\n",
        b"BDAT x\r\n",
        b"\r\n.\r\n",
    ];
    proptest::sample::select(lines.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// However the network cuts the bytes, the session is the same.
    #[test]
    fn pieces_do_not_matter(
        greet in proptest::bool::ANY,
        lines in proptest::collection::vec(line(), 0..14),
        normalize in proptest::bool::ANY,
    ) {
        let opening = if greet { ENVELOPE } else { "" };
        let input = [opening.as_bytes(), &lines.concat()].concat();
        let settings = ServerSettings { normalize, ..settings() };
        let whole = run(settings.clone(), &[&input]);
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        prop_assert_eq!(run(settings.clone(), &bytes), run(settings, &input.chunks(3).collect::<Vec<_>>()));
        let bytes = run(ServerSettings { normalize, ..self::settings() }, &bytes);
        prop_assert_eq!(whole, bytes);
    }
}

/// RFC 5321 §4.5.1: the address without a domain reaches the people who run the house.
#[test]
fn postmaster_alone_means_the_houses_own() {
    let mut server = Server::new(settings());
    server
        .receive(b"EHLO c.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<PostMaster>\r\nDATA\r\n");
    let begun = std::iter::from_fn(|| server.poll()).find_map(|action| {
        let Action::Begin(transaction) = action else { return None };
        Some(transaction.recipients)
    });
    let postmaster = "postmaster@example.org".parse().expect("an address");
    assert_eq!(begun, Some(vec![postmaster]));
}

/// What is asked for all recipients together is bounded; the client sends the rest anew.
#[test]
fn orcpt_has_room_for_so_many_and_then_it_is_another_transaction() {
    let mut server = Server::new(ServerSettings { max_recipients: 1000, ..settings() });
    server.receive(b"EHLO c\r\nMAIL FROM:<a@b.example>\r\n");
    while server.poll().is_some() {}
    let mut ask = |number: usize, original: &str| {
        let line =
            format!("RCPT TO:<r{number}@b.example> NOTIFY=DELAY ORCPT=rfc822;{original}\r\n");
        server.receive(line.as_bytes());
        let Some(Action::Send(reply)) = server.poll() else { panic!("no reply") };
        String::from_utf8(reply).expect("ASCII")
    };
    let long = "x".repeat(490);
    let room = (0..100).take_while(|&number| ask(number, &long).starts_with("250")).count();
    assert!((20..40).contains(&room), "{room}");
    assert!(ask(room, &long).starts_with("452 4.5.3"), "and it stays so");
    let own = format!("r{room}@b.example");
    assert!(ask(room, &own).starts_with("250"), "what needs no room is still taken");
}

#[test]
fn a_thousand_recipients_of_the_usual_kind_have_room() {
    let mut server = Server::new(ServerSettings { max_recipients: 1000, ..settings() });
    server.receive(b"EHLO c\r\nMAIL FROM:<a@b.example>\r\n");
    while server.poll().is_some() {}
    for number in 0..1000 {
        let address = format!("r{number}@b.example");
        let line = format!("RCPT TO:<{address}> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;{address}\r\n");
        server.receive(line.as_bytes());
        let Some(Action::Send(reply)) = server.poll() else { panic!("no reply") };
        assert!(reply.starts_with(b"250"), "{number}: {}", reply.escape_ascii());
    }
}

/// What was asked of it, by word.
#[derive(Debug, Default)]
struct Asked {
    words: std::sync::Arc<std::sync::Mutex<Vec<&'static str>>>,
    refuses: &'static str,
}
impl Asked {
    fn note(&self, word: &'static str) -> Option<Reply> {
        self.words.lock().expect("unpoisoned").push(word);
        (self.refuses == word).then(|| Reply::new(450, EnhancedStatus::transient(7, 1), "Too much"))
    }
}
impl Gate for Asked {
    fn mail(&mut self) -> Option<Reply> {
        self.note("mail")
    }
    fn rcpt(&mut self, _: &Address) -> Option<Reply> {
        self.note("rcpt")
    }
    fn clear(&mut self) {
        self.note("clear");
    }
}

#[test]
fn the_gate_is_asked_for_what_would_be_accepted_and_told_when_it_is_over() {
    let rows: [(&str, &str, &[&str], &str, &str); 9] = [
        ("", "RSET\r\n", &["mail", "rcpt", "clear"], "250250250", "RSET ends it"),
        ("", "EHLO c\r\n", &["mail", "rcpt", "clear"], "250250250", "so does EHLO"),
        ("", "QUIT\r\n", &["mail", "rcpt", "clear"], "250250221", "and QUIT"),
        ("", "DATA\r\n", &["mail", "rcpt", "clear"], "250250354", "the driver has it"),
        ("", "BDAT 1 LAST\r\nx", &["mail", "rcpt", "clear"], "250250250", "here too"),
        ("", "RCPT TO:<c@d.example>\r\n", &["mail", "rcpt"], "250250250", "a repeat is free"),
        ("", "RCPT TO:<x>\r\n", &["mail", "rcpt"], "250250501", "what is wrong is not asked"),
        ("rcpt", "DATA\r\n", &["mail", "rcpt"], "250450503", "no recipient is left"),
        ("mail", "DATA\r\n", &["mail"], "450503503", "there is no transaction"),
    ];
    for (refuses, last, expected, said, reason) in rows {
        let gate = Asked { refuses, ..Asked::default() };
        let words = std::sync::Arc::clone(&gate.words);
        let mut server = Server::new(settings()).with_gate(Box::new(gate));
        server.receive(b"EHLO c\r\n");
        while server.poll().is_some() {}
        server.receive(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n");
        server.receive(last.as_bytes());
        let mut heard = String::new();
        while let Some(action) = server.poll() {
            match action {
                Action::Send(bytes) => heard.push_str(&String::from_utf8_lossy(&bytes[..3])),
                Action::End => server.accepted(QueueId::from_bytes([0; 16])),
                Action::Begin(_) | Action::Content(_) | Action::Close => {}
                Action::StartTls | Action::Abort => panic!("{reason}: {action:?}"),
            }
        }
        assert_eq!(heard, said, "{reason}");
        assert_eq!(*words.lock().expect("unpoisoned"), expected, "{reason}");
    }
}

#[test]
fn a_session_that_is_over_says_so_between_transactions() {
    let mut server = Server::new(settings());
    server.receive(ENVELOPE.as_bytes());
    while server.poll().is_some() {}
    server.retire();
    assert_eq!(server.poll(), None, "a transaction is open");
    server.receive(b"RSET\r\nNOOP\r\n");
    assert_eq!(server.poll(), Some(Action::Send(b"250 2.0.0 Ok\r\n".to_vec())));
    let Some(Action::Send(reply)) = server.poll() else { panic!("no reply") };
    assert!(reply.starts_with(b"421 4.7.0 "));
    assert_eq!((server.poll(), server.poll()), (Some(Action::Close), None));
}

/// A configuration may allow more recipients than can be sealed together.
#[test]
fn an_envelope_is_bounded_whatever_is_configured() {
    let mut server = Server::new(ServerSettings { max_recipients: 100_000, ..settings() });
    server.receive(b"EHLO c\r\nMAIL FROM:<a@b.example>\r\n");
    while server.poll().is_some() {}
    let local = "x".repeat(50);
    let mut taken = 0;
    loop {
        server.receive(format!("RCPT TO:<{local}{taken}@b.example>\r\n").as_bytes());
        let Some(Action::Send(reply)) = server.poll() else { panic!("no reply") };
        if !reply.starts_with(b"250") {
            assert!(reply.starts_with(b"452 4.5.3"), "{}", reply.escape_ascii());
            break;
        }
        taken += 1;
    }
    assert!((2_000..65_000).contains(&taken), "{taken}");
    server.receive(b"DATA\r\n");
    let begun = std::iter::from_fn(|| server.poll()).find_map(|action| match action {
        Action::Begin(transaction) => Some(transaction.recipients.len()),
        Action::Send(_)
        | Action::StartTls
        | Action::Content(_)
        | Action::End
        | Action::Abort
        | Action::Close => None,
    });
    assert_eq!(begun, Some(taken));
}

/// RFC 1870 §6.1, at the largest size that can be configured and beyond what 32 bits hold.
#[test]
fn sizes_beyond_31_bits_are_told_apart() {
    let most = 2 << 30;
    let mut server = Server::new(ServerSettings { max_message_size: most, ..settings() });
    server.receive(b"EHLO c\r\n");
    let mut said = Vec::new();
    while let Some(Action::Send(bytes)) = server.poll() {
        said.extend(bytes);
    }
    assert!(said.escape_ascii().to_string().contains("250-SIZE 2147483648\\r\\n"));
    for (size, code) in [
        (most, "250"),
        (most + 1, "552"),
        (1 << 32, "552"),
        ((1 << 32) + 5, "552"),
        (u64::MAX, "552"),
    ] {
        server.receive(format!("MAIL FROM:<a@b.example> SIZE={size}\r\nRSET\r\n").as_bytes());
        let Some(Action::Send(reply)) = server.poll() else { panic!("no reply") };
        assert!(reply.starts_with(code.as_bytes()), "{size}: {}", reply.escape_ascii());
        while server.poll().is_some() {}
    }
}
