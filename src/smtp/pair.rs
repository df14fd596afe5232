//! Both machines talking to each other, without a network.

use super::{
    Action, Client, ClientAction, ClientTransaction, RecipientReply, Server, ServerSettings,
};
use crate::mail::QueueId;
use proptest::prelude::*;

/// A client and a server, wired together with pieces of a given size.
struct Pair {
    client: Client,
    server: Server,
    piece: usize,
    received: Vec<Vec<u8>>,
}

impl Pair {
    fn new(piece: usize) -> Self {
        let settings = ServerSettings {
            hostname: "gw.example.org".parse().expect("a domain"),
            postmaster: "postmaster@example.org".parse().expect("an address"),
            max_message_size: 1 << 20,
            max_recipients: 2,
            max_errors: 20,
            starttls: true,
            require_tls: true,
            may_relay: true,
            normalize: false,
        };
        let client = Client::new("mta.example.org".parse().expect("a domain"));
        Self { client, server: Server::new(settings), piece, received: Vec::new() }
    }

    /// One message, from greeting to reply, through STARTTLS.
    fn deliver(&mut self, transaction: &ClientTransaction, content: &[u8]) -> Vec<RecipientReply> {
        let mut tls = false;
        loop {
            self.serve();
            match self.client.poll() {
                Some(ClientAction::Send(bytes)) => self.server_hears(&bytes),
                Some(ClientAction::Ready) if !tls => self.client.start_tls(),
                Some(ClientAction::Ready) => self.client.begin(transaction.clone()),
                Some(ClientAction::StartTls) => {
                    tls = true;
                    self.server.tls_started("TLSv1.3");
                    self.client.tls_started();
                }
                Some(ClientAction::SendContent) => self.send_content(content),
                Some(ClientAction::Done(replies)) => return replies,
                Some(ClientAction::Failed(error)) => panic!("{error}"),
                None => panic!("both wait"),
            }
        }
    }

    fn send_content(&mut self, content: &[u8]) {
        let mut wire = Vec::new();
        for piece in content.chunks(self.piece) {
            self.client.content(piece, &mut wire);
        }
        self.client.content_end(&mut wire);
        self.server_hears(&wire);
    }

    fn server_hears(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(self.piece) {
            self.server.receive(piece);
            self.serve();
        }
    }

    fn serve(&mut self) {
        while let Some(action) = self.server.poll() {
            match action {
                Action::Send(bytes) => {
                    bytes.chunks(self.piece).for_each(|piece| self.client.receive(piece))
                }
                Action::StartTls => break,
                Action::Begin(_) => self.received.push(Vec::new()),
                Action::Content(piece) => {
                    self.received.last_mut().expect("begun").extend_from_slice(&piece);
                }
                Action::End => self.server.accepted(QueueId::from_bytes([7; 16])),
                Action::Abort | Action::Close => panic!("{action:?}"),
            }
        }
    }
}

fn transaction(recipients: &[&str]) -> ClientTransaction {
    ClientTransaction {
        sender: None,
        recipients: recipients.iter().map(|text| text.parse().expect("an address")).collect(),
        size: 10,
        eight_bit: true,
        smtputf8: true,
        require_tls: true,
        envelope_id: Some("id 1".into()),
        ret: None,
        recipient_dsn: Vec::new(),
    }
}

#[test]
fn each_recipient_has_its_reply() {
    let mut pair = Pair::new(5);
    let recipients = ["a@x.example", "\"b c\"@x.example", "d@x.example"];
    let replies = pair.deliver(&transaction(&recipients), b"Subject: x\r\n\r\nhello\r\n");
    let seen: Vec<(u16, bool)> =
        replies.iter().map(|one| (one.reply.code, one.delivered)).collect();
    assert_eq!(seen, [(250, true), (250, true), (452, false)]);
    assert_eq!(pair.received, [b"Subject: x\r\n\r\nhello\r\n"]);
}

proptest! {
    /// What one machine sends the other receives, dots and all; the one thing added is a CRLF at an
    /// end that had none.
    #[test]
    fn content_arrives_as_it_left(
        lines in proptest::collection::vec("\\.{0,3}[ -~\u{e9}]{0,6}", 0..20),
        last in "[.a-z]{0,3}",
        piece in 1_usize..40,
    ) {
        let content = lines.iter().map(|line| format!("{line}\r\n")).collect::<String>() + &last;
        let mut pair = Pair::new(piece);
        let replies = pair.deliver(&transaction(&["a@x.example"]), content.as_bytes());
        prop_assert!(replies.iter().all(|one| one.delivered));
        let expected = if last.is_empty() { content } else { content + "\r\n" };
        prop_assert_eq!(&pair.received, &[expected.into_bytes()]);
    }
}
