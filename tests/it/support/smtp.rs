//! The smallest SMTP client that can hand in a message: the tests' MTA where no Postfix is needed.

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::Duration,
};

/// A conversation.
#[derive(Debug)]
pub struct Conversation<S: Read = TcpStream> {
    reader: BufReader<S>,
}

impl Conversation {
    /// Connects, and reads the greeting.
    pub fn open(server: SocketAddr) -> Self {
        let stream = TcpStream::connect(server).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(120))).expect("set");
        stream.set_nodelay(true).expect("set");
        let mut conversation = Self { reader: BufReader::new(stream) };
        conversation.expect("220");
        conversation
    }

    /// STARTTLS, with a server that proves that name to these anchors; EHLO is to follow.
    pub fn start_tls(
        mut self,
        name: &str,
        anchors: &Path,
    ) -> Conversation<StreamOwned<ClientConnection, TcpStream>> {
        self.say("STARTTLS", "220");
        let mut roots = RootCertStore::empty();
        for anchor in CertificateDer::pem_file_iter(anchors).expect("anchors") {
            roots.add(anchor.expect("PEM")).expect("an anchor");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let connection = ClientConnection::new(Arc::new(config), name).expect("TLS");
        let secured = StreamOwned::new(connection, self.reader.into_inner());
        Conversation { reader: BufReader::new(secured) }
    }
}

impl<S: Read + Write> Conversation<S> {
    /// Sends a line and expects a reply that begins so.
    pub fn say(&mut self, line: &str, expected: &str) -> String {
        self.raw(format!("{line}\r\n").as_bytes());
        self.expect(expected)
    }

    /// What it goes over.
    pub fn stream(&self) -> &S {
        self.reader.get_ref()
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        let stream = self.reader.get_mut();
        stream.write_all(bytes).and_then(|()| stream.flush()).expect("written");
    }

    /// Reads a whole reply; fails unless it begins with `expected`.
    pub fn expect(&mut self, expected: &str) -> String {
        let mut reply = String::new();
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line).expect("a reply");
            reply.push_str(&line);
            if line.as_bytes().get(3) != Some(&b'-') {
                break;
            }
        }
        assert!(reply.starts_with(expected), "expected {expected}, got {reply:?}");
        reply
    }
}

/// Hands a message in; returns its queue id.
pub fn send(server: SocketAddr, from: &str, to: &[&str], message: &[u8]) -> String {
    let mut whole = message;
    stream(server, from, to, &mut whole)
}

/// Hands in a message of any size; it must be CRLF-clean.
pub fn stream(server: SocketAddr, from: &str, to: &[&str], message: &mut dyn Read) -> String {
    let mut conversation = Conversation::open(server);
    conversation.say("EHLO mta.example.org", "250");
    conversation.say(&format!("MAIL FROM:<{from}>"), "250");
    for recipient in to {
        conversation.say(&format!("RCPT TO:<{recipient}>"), "250");
    }
    conversation.say("DATA", "354");
    let mut stuffed = Stuffing { at_line_start: true, out: &mut conversation };
    let mut piece = vec![0; 256 * 1024];
    loop {
        let length = message.read(&mut piece).expect("read");
        if length == 0 {
            break;
        }
        stuffed.write(&piece[..length]);
    }
    let end: &[u8] = if stuffed.at_line_start { b".\r\n" } else { b"\r\n.\r\n" };
    conversation.raw(end);
    let reply = conversation.expect("250 2.0.0 Ok: queued as ");
    conversation.say("QUIT", "221");
    reply.trim().rsplit(' ').next().expect("an id").to_owned()
}

/// RFC 5321 section 4.5.2.
struct Stuffing<'a> {
    at_line_start: bool,
    out: &'a mut Conversation,
}

impl Stuffing<'_> {
    fn write(&mut self, bytes: &[u8]) {
        let mut wire = Vec::with_capacity(bytes.len() + 64);
        for line in bytes.split_inclusive(|&b| b == b'\n') {
            if self.at_line_start && line.first() == Some(&b'.') {
                wire.push(b'.');
            }
            wire.extend_from_slice(line);
            self.at_line_start = line.last() == Some(&b'\n');
        }
        self.out.raw(&wire);
    }
}
