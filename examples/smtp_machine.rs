//! Both SMTP machines in a conversation, without a socket: what one sends, the other receives.
//!
//! Run with `cargo run --example smtp_machine`. Nothing here is tokio, TLS or a clock: the machines
//! take bytes and say what is to be done, and the loops below are all that a driver is.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use restante::{
    mail::QueueId,
    smtp::{Action, Client, ClientAction, ClientTransaction, Server, ServerSettings},
};
use std::error::Error;

const MESSAGE: &str = "From: ann@example.org\r\nTo: bob@partner.example\r\nSubject: dots\r\n\r\n\
                       .a line that begins with a dot\r\n";

fn main() -> Result<(), Box<dyn Error>> {
    let mut server = Server::new(ServerSettings {
        hostname: "gw.example.org".parse()?,
        postmaster: "postmaster@example.org".parse()?,
        max_message_size: 1 << 20,
        max_recipients: 100,
        max_errors: 20,
        starttls: false,
        require_tls: false,
        may_relay: true,
        normalize: false,
    });
    let mut client = Client::new("mta.example.org".parse()?);
    let mut transaction = Some(ClientTransaction {
        sender: Some("ann@example.org".parse()?),
        recipients: vec!["bob@partner.example".parse()?, "cid@partner.example".parse()?],
        size: MESSAGE.len() as u64,
        eight_bit: false,
        smtputf8: false,
        require_tls: false,
        envelope_id: None,
        ret: None,
        recipient_dsn: Vec::new(),
    });
    let mut received = Vec::new();
    loop {
        let open = serve(&mut server, &mut client, &mut received);
        match client.poll() {
            Some(ClientAction::Send(bytes)) => say("C", &bytes, |bytes| server.receive(bytes)),
            Some(ClientAction::Ready) => {
                println!("-- the client may begin: {:?}", client.extensions());
                if let Some(transaction) = transaction.take() {
                    client.begin(transaction);
                }
            }
            Some(ClientAction::SendContent) => {
                let mut wire = Vec::new();
                client.content(MESSAGE.as_bytes(), &mut wire);
                client.content_end(&mut wire);
                say("C", &wire, |bytes| server.receive(bytes));
            }
            Some(ClientAction::Done(replies)) => {
                for (number, one) in replies.iter().enumerate() {
                    println!("-- recipient {number}: delivered {}, {}", one.delivered, one.reply);
                }
                client.quit();
            }
            Some(ClientAction::StartTls) => return Err("TLS was not asked for".into()),
            Some(ClientAction::Failed(error)) => return Err(error.into()),
            None if open => return Err("both wait for each other".into()),
            None => break,
        }
    }
    if received != MESSAGE.as_bytes() {
        return Err("the message changed on its way".into());
    }
    println!("-- {} octets arrived as they left", received.len());
    Ok(())
}

/// Does what the server machine asks; false once it has closed.
fn serve(server: &mut Server, client: &mut Client, received: &mut Vec<u8>) -> bool {
    let mut open = true;
    while let Some(action) = server.poll() {
        match action {
            Action::Send(bytes) => say("S", &bytes, |bytes| client.receive(bytes)),
            Action::Begin(transaction) => {
                println!(
                    "-- the gateway opens a deposit for {} recipients",
                    transaction.recipients.len()
                );
            }
            Action::Content(piece) => received.extend_from_slice(&piece),
            Action::End => {
                println!("-- the gateway has it on stable storage");
                server.accepted(QueueId::new(1_767_225_600_000, [7; 10]));
            }
            Action::Abort => received.clear(),
            Action::Close => open = false,
            Action::StartTls => {}
        }
    }
    open
}

/// Prints bytes as lines and hands them over.
fn say(who: &str, bytes: &[u8], mut hand_over: impl FnMut(&[u8])) {
    for line in String::from_utf8_lossy(bytes).lines() {
        println!("{who}: {line}");
    }
    hand_over(bytes);
}
