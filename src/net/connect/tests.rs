//! Against a small scripted server on loopback.

use super::*;
use crate::{
    net::testing::{Authority, chain_config, self_signed, server_config, today},
    policy::{DaneVerdict, Tlsa, TlsaSet},
    smtp::{ClientTransaction, RecipientReply},
    wire::{SendError, Source},
};
use bytes::Bytes;
use rustls::{ServerConfig, SupportedProtocolVersion, version};
use std::{collections::VecDeque, sync::Mutex};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

mod client_tests;

const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
const OLD: &[&SupportedProtocolVersion] = &[&version::TLS12];

/// What the server does after 354.
#[derive(Clone, Copy, PartialEq)]
enum Data {
    /// Reads to the final dot, answers this.
    Answer(&'static str),
    /// Reads a little, then closes.
    DropsEarly,
    /// Answers this without reading to the end, then closes.
    AnswersEarly(&'static str),
    /// Reads to the final dot, then closes.
    DropsAfterDot,
    /// Reads to the final dot and says nothing.
    Silent,
}

/// A server's behaviour.
#[derive(Clone)]
struct Script {
    greeting: &'static str,
    ehlo: &'static str,
    ehlo_inside: &'static str,
    starttls: &'static str,
    tls: Option<Arc<ServerConfig>>,
    data: Data,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            greeting: "220 mx.partner.test ESMTP\r\n",
            ehlo: "250-mx.partner.test\r\n250-8BITMIME\r\n250 STARTTLS\r\n",
            ehlo_inside: "250-mx.partner.test\r\n250-PIPELINING\r\n250 SIZE 1000000\r\n",
            starttls: "220 go ahead\r\n",
            tls: None,
            data: Data::Answer("250 2.0.0 taken\r\n"),
        }
    }
}

/// What a server saw.
#[derive(Default)]
struct Seen {
    connections: usize,
    lines: Vec<String>,
    content: Vec<Vec<u8>>,
}

struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Server {
    async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let log = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                log.lock().unwrap().connections += 1;
                let (script, log) = (script.clone(), Arc::clone(&log));
                tokio::spawn(async move { talk(stream, script, log).await });
            }
        });
        Self { address, seen }
    }

    fn lines(&self) -> Vec<String> {
        self.seen.lock().unwrap().lines.clone()
    }

    fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }

    /// The content that came, once the server has had all of it.
    async fn content(&self) -> Vec<u8> {
        let arrived = async {
            loop {
                if let Some(content) = self.seen.lock().unwrap().content.pop() {
                    return content;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(20), arrived).await.unwrap()
    }
}

async fn talk(stream: TcpStream, script: Script, seen: Arc<Mutex<Seen>>) -> Option<()> {
    let mut stream = BufReader::new(Box::new(stream) as Box<dyn Stream>);
    stream.write_all(script.greeting.as_bytes()).await.ok()?;
    let mut ehlo = script.ehlo;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_owned();
        seen.lock().unwrap().lines.push(line.clone());
        let verb = line.split(' ').next().unwrap_or_default().to_owned();
        let reply = match verb.as_str() {
            "EHLO" => ehlo,
            "STARTTLS" => {
                stream.write_all(script.starttls.as_bytes()).await.ok()?;
                if script.starttls.is_empty() || script.starttls.starts_with("421") {
                    return None;
                }
                if !script.starttls.starts_with("220") {
                    continue;
                }
                let Some(tls) = &script.tls else {
                    stream.read_u8().await.ok()?; // the ClientHello has come
                    stream.write_all(b"this is no TLS at all\r\n").await.ok()?;
                    return None;
                };
                let secured = TlsAcceptor::from(Arc::clone(tls)).accept(stream.into_inner()).await;
                stream = BufReader::new(Box::new(secured.ok()?));
                ehlo = script.ehlo_inside;
                continue;
            }
            "RCPT" if line.contains("<nobody@") => "550 5.1.1 no such user\r\n",
            "DATA" => {
                stream.write_all(b"354 go on\r\n").await.ok()?;
                data(&mut stream, script.data, &seen).await?;
                continue;
            }
            "QUIT" => {
                stream.write_all(b"221 bye\r\n").await.ok()?;
                return Some(());
            }
            _ => "250 2.0.0 fine\r\n",
        };
        stream.write_all(reply.as_bytes()).await.ok()?;
        if reply.is_empty() {
            return None;
        }
    }
}

async fn data(
    stream: &mut BufReader<Box<dyn Stream>>,
    data: Data,
    seen: &Mutex<Seen>,
) -> Option<()> {
    let mut content = Vec::new();
    match data {
        Data::DropsEarly => {
            stream.read_u8().await.ok()?;
            return None;
        }
        Data::AnswersEarly(reply) => {
            stream.read_u8().await.ok()?;
            stream.write_all(reply.as_bytes()).await.ok()?;
            stream.flush().await.ok()?;
            stream.shutdown().await.ok()?;
            // Not closed with unread bytes, which would take the reply back (RST).
            while stream.read(&mut [0; 4096]).await.ok()? > 0 {}
            return None;
        }
        Data::Answer(_) | Data::DropsAfterDot | Data::Silent => {}
    }
    while !content.ends_with(b"\r\n.\r\n") && content != b".\r\n" {
        if !matches!(stream.read_until(b'\n', &mut content).await, Ok(1..)) {
            seen.lock().unwrap().content.push(content);
            return None;
        }
    }
    seen.lock().unwrap().content.push(content);
    match data {
        Data::Answer(reply) => stream.write_all(reply.as_bytes()).await.ok(),
        Data::Silent => std::future::pending().await,
        Data::DropsAfterDot | Data::DropsEarly | Data::AnswersEarly(_) => None,
    }
}

/// Pieces of content, or an error in their midst.
struct Pieces(VecDeque<Result<Bytes, String>>);

impl Pieces {
    fn of(text: &'static str) -> Self {
        Self([Ok(Bytes::from_static(text.as_bytes()))].into())
    }

    fn large(pieces: usize) -> Self {
        let line = format!("{}\r\n", "x".repeat(76));
        let piece = Bytes::from(line.repeat(800));
        Self((0..pieces).map(|_| Ok(piece.clone())).collect())
    }
}

#[async_trait]
impl Source for Pieces {
    async fn next(&mut self) -> Result<Option<Bytes>, String> {
        self.0.pop_front().transpose()
    }
}

fn dialer(anchors: TrustAnchors) -> Dialer {
    let short = Duration::from_secs(5);
    let timeouts = Timeouts {
        connect: short,
        greeting: short,
        handshake: short,
        command: short,
        block: short,
        dot: short,
        quit: Duration::from_secs(1),
    };
    let settings = DialerSettings {
        hostname: "gw.example.org".parse().unwrap(),
        anchors,
        timeouts,
        refuse_networks: vec!["127.0.0.9/32".parse().unwrap(), "169.254.0.0/16".parse().unwrap()],
        ca_dir: PathBuf::new(),
    };
    Dialer::new(settings, today())
}

fn need(tls: TlsUse) -> Requirement {
    Requirement { tls, ..Requirement::default() }
}

fn mail(recipients: &[&str]) -> ClientTransaction {
    ClientTransaction {
        sender: Some("a@example.org".parse().unwrap()),
        recipients: recipients.iter().map(|r| r.parse().unwrap()).collect(),
        size: 10,
        eight_bit: false,
        smtputf8: false,
        require_tls: false,
        envelope_id: None,
        ret: None,
        recipient_dsn: Vec::new(),
    }
}

/// An authority, and a script whose server shows a certificate of it.
fn good() -> (TrustAnchors, Script) {
    let authority = Authority::new();
    let leaf = authority.issue(&["mx.partner.test"], |_| {});
    let tls = server_config(&leaf.der, &leaf.key, &[&version::TLS13, &version::TLS12]);
    let anchors = TrustAnchors::from_pem(authority.pem().as_bytes(), "test").unwrap();
    (anchors, Script { tls: Some(tls), ..Script::default() })
}

async fn connect(
    dialer: &Dialer,
    server: &Server,
    tls: TlsUse,
) -> Result<Box<dyn Peer>, (HostTrouble, Box<Attempt>)> {
    dialer.connect("mx.partner.test", server.address, &need(tls)).await
}

async fn trouble(dialer: &Dialer, server: &Server, tls: TlsUse) -> (Trouble, Attempt) {
    match connect(dialer, server, tls).await {
        Ok(peer) => panic!("connected: {:?}", peer.facts()),
        Err((trouble, attempt)) => {
            assert_eq!(Some(&trouble.detail), attempt.error.as_ref());
            (trouble.trouble, *attempt)
        }
    }
}

#[tokio::test]
async fn content_goes_over_tls_and_facts_come_from_inside() {
    let (anchors, script) = good();
    let server = Server::start(script).await;
    let mut peer = connect(&dialer(anchors), &server, TlsUse::Always).await.ok().unwrap();
    let facts = peer.facts().clone();
    assert_eq!((facts.connection, facts.host.as_str()), (1, "mx.partner.test"));
    // 8BITMIME was offered outside only, SIZE inside only.
    assert_eq!((facts.eight_bit, facts.size), (false, Some(1_000_000)));
    let StartTls::Done(tls) = facts.tls else { panic!("no TLS") };
    assert_eq!(tls.chain_error, None);
    assert_eq!(tls.names, ["mx.partner.test"]);
    let recipients = mail(&["b@partner.test", "nobody@partner.test"]);
    let replies = peer.send(recipients, &mut Pieces::of("A: b\r\n\r\n.hidden\r\n")).await.unwrap();
    let outcome: Vec<_> = replies.iter().map(|r| (r.delivered, r.reply.code)).collect();
    assert_eq!(outcome, [(true, 250), (false, 550)]);
    assert_eq!(server.content().await, b"A: b\r\n\r\n..hidden\r\n.\r\n");
    // The connection serves a second message.
    let replies = peer.send(mail(&["c@partner.test"]), &mut Pieces::of("x")).await.unwrap();
    assert!(replies[0].delivered);
    assert_eq!(server.content().await, b"x\r\n.\r\n");
    peer.quit().await;
    assert_eq!(server.lines().last().unwrap(), "QUIT");
}

#[tokio::test]
async fn much_content_arrives_whole() {
    let (anchors, script) = good();
    let server = Server::start(script).await;
    let mut peer = connect(&dialer(anchors), &server, TlsUse::Always).await.ok().unwrap();
    let replies = peer.send(mail(&["b@partner.test"]), &mut Pieces::large(100)).await.unwrap();
    assert!(replies[0].delivered);
    assert_eq!(server.content().await.len(), 100 * 800 * 78 + 3);
}

#[tokio::test]
async fn a_certificate_of_nobody_is_a_fact_and_no_failure() {
    let (anchors, script) = good();
    let leaf = self_signed(&["elsewhere.test"], |_| {});
    let tls = server_config(&leaf.der, &leaf.key, &[&version::TLS13]);
    let server = Server::start(Script { tls: Some(tls), ..script }).await;
    let peer = connect(&dialer(anchors), &server, TlsUse::Always).await.ok().unwrap();
    let StartTls::Done(tls) = &peer.facts().tls else { panic!("no TLS") };
    assert_eq!(tls.chain_error.as_deref(), Some("self-signed certificate"));
    assert_eq!(tls.names, ["elsewhere.test"]);
}

#[tokio::test]
async fn without_starttls_only_those_who_may_go_on() {
    let (anchors, script) = good();
    let server = Server::start(Script { ehlo: "250 mx.partner.test\r\n", ..script }).await;
    let dialer = dialer(anchors);
    for (tls, expected) in
        [(TlsUse::Never, StartTls::NotTried), (TlsUse::IfOffered, StartTls::NotOffered)]
    {
        let peer = connect(&dialer, &server, tls).await.ok().unwrap();
        assert_eq!(peer.facts().tls, expected);
    }
    assert_eq!(trouble(&dialer, &server, TlsUse::Always).await.0, Trouble::NoStartTls);
}

#[tokio::test]
async fn starttls_that_fails_falls_back_on_a_new_connection_or_not_at_all() {
    let (anchors, script) = good();
    let dialer = dialer(anchors);
    let refused = Script { starttls: "454 4.7.0 not now\r\n", ..script.clone() };
    let closing = Script { starttls: "421 4.3.2 bye\r\n", ..script.clone() };
    let mute = Script { starttls: "", ..script.clone() };
    let broken = Script { tls: None, ..script };
    for (script, expected) in [
        (refused, Trouble::StartTlsRefused),
        (broken, Trouble::Handshake),
        (closing, Trouble::Handshake),
        (mute, Trouble::Handshake),
    ] {
        let server = Server::start(script).await;
        let (found, attempt) = trouble(&dialer, &server, TlsUse::Always).await;
        assert_eq!(found, expected);
        assert_eq!(attempt.reply.is_some(), expected == Trouble::StartTlsRefused);
        assert_eq!(server.connections(), 1);
        let peer = connect(&dialer, &server, TlsUse::IfOffered).await.ok().unwrap();
        assert_eq!(peer.facts().tls, StartTls::NotTried);
        assert_eq!(server.connections(), 3);
    }
}

#[tokio::test]
async fn words_put_before_the_handshake_end_it_for_every_level() {
    let (anchors, script) = good();
    let injected = Script { starttls: "220 go ahead\r\n250 injected\r\n", ..script };
    let server = Server::start(injected).await;
    let dialer = dialer(anchors);
    for (count, tls) in [(1, TlsUse::Always), (2, TlsUse::IfOffered)] {
        assert_eq!(trouble(&dialer, &server, tls).await.0, Trouble::Handshake);
        assert_eq!(server.connections(), count);
    }
}

#[tokio::test]
async fn what_breaks_inside_tls_is_no_reason_for_plaintext() {
    let (anchors, script) = good();
    let server = Server::start(Script { ehlo_inside: "", ..script }).await;
    let (found, attempt) = trouble(&dialer(anchors), &server, TlsUse::IfOffered).await;
    assert_eq!((found, server.connections()), (Trouble::Unreachable, 1));
    assert!(attempt.tls.is_some());
}

#[tokio::test]
async fn tls_1_3_can_be_demanded() {
    let (anchors, script) = good();
    let leaf = self_signed(&["mx.partner.test"], |_| {});
    let tls = server_config(&leaf.der, &leaf.key, &[&version::TLS12]);
    let server = Server::start(Script { tls: Some(tls), ..script }).await;
    let requirement = Requirement { min_tls13: true, ..need(TlsUse::Always) };
    let dialer = dialer(anchors);
    let outcome = dialer.connect("mx.partner.test", server.address, &requirement).await;
    assert_eq!(outcome.err().unwrap().0.trouble, Trouble::Handshake);
}

#[tokio::test]
async fn a_policys_own_anchors_replace_the_common_ones() {
    let (anchors, script) = good();
    let server = Server::start(script).await;
    let dialer = dialer(anchors);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let requirement =
        Requirement { ca_file: Some(path.display().to_string()), ..need(TlsUse::Always) };
    let missing = dialer.connect("mx.partner.test", server.address, &requirement).await;
    let (trouble, _) = missing.err().unwrap();
    assert_eq!(trouble.trouble, Trouble::Ours);
    assert!(trouble.detail.contains("ca.pem"), "{}", trouble.detail);
    assert_eq!(server.connections(), 0, "no host is troubled with it");
    std::fs::write(&path, Authority::named("Private").pem()).unwrap();
    let peer = dialer.connect("mx.partner.test", server.address, &requirement).await;
    let peer = peer.ok().unwrap();
    let StartTls::Done(tls) = &peer.facts().tls else { panic!("no TLS") };
    assert!(tls.chain_error.is_some());
}

#[tokio::test]
async fn a_partner_of_a_private_authority_is_proved_by_its_file_alone() {
    let authority = Authority::named("Private");
    let leaf = authority.issue(&["mx.partner.test"], |_| {});
    let tls = server_config(&leaf.der, &leaf.key, BOTH);
    let server = Server::start(Script { tls: Some(tls), ..Script::default() }).await;
    let dialer = dialer(good().0);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, authority.pem()).unwrap();
    for (ca_file, proved) in [(None, false), (Some(path.display().to_string()), true)] {
        let requirement = Requirement { ca_file, ..need(TlsUse::Always) };
        let tls = tls_of(&dialer, &server, &requirement).await;
        assert_eq!(tls.chain_error.is_none(), proved, "{:?}", requirement.ca_file);
    }
}

async fn tls_of(dialer: &Dialer, server: &Server, requirement: &Requirement) -> TlsFacts {
    let peer = dialer.connect("mx.partner.test", server.address, requirement).await;
    let peer = peer.unwrap_or_else(|(trouble, _)| panic!("{trouble:?}"));
    let StartTls::Done(tls) = &peer.facts().tls else { panic!("no TLS") };
    tls.clone()
}

async fn failure(dialer: &Dialer, server: &Server, requirement: &Requirement) -> (Trouble, String) {
    let outcome = dialer.connect("mx.partner.test", server.address, requirement).await;
    let (trouble, attempt) = outcome.err().unwrap();
    assert_eq!(Some(&trouble.detail), attempt.error.as_ref());
    (trouble.trouble, trouble.detail)
}

#[tokio::test]
async fn tlsa_records_are_answered_and_their_base_is_called() {
    let leaf = self_signed(&["elsewhere.test"], |_| {});
    let (tls, called) = chain_config(vec![leaf.der.clone()], &leaf.key, BOTH);
    let server = Server::start(Script { tls: Some(tls), ..Script::default() }).await;
    let dialer = dialer(good().0);
    let right = Tlsa { usage: 3, selector: 0, matching: 0, data: leaf.der.to_vec() };
    let wrong = Tlsa { data: b"another".to_vec(), ..right.clone() };
    for (record, met) in [(right, true), (wrong, false)] {
        // The MX host is an alias, and the records lie at what it stands for (RFC 7672 §2.2.2).
        let set = TlsaSet { base: "host.provider.test".to_owned(), records: vec![record] };
        let requirement = Requirement { tlsa: Some(set), ..need(TlsUse::Always) };
        let dane = tls_of(&dialer, &server, &requirement).await.dane;
        assert_eq!(matches!(dane, Some(DaneVerdict::Met { usage: 3, .. })), met, "{dane:?}");
    }
    assert_eq!(tls_of(&dialer, &server, &need(TlsUse::Always)).await.dane, None);
    let called = called.lock().unwrap().clone();
    let called: Vec<_> = called.iter().flatten().map(String::as_str).collect();
    assert_eq!(called, ["host.provider.test", "host.provider.test", "mx.partner.test"]);
}

#[tokio::test]
async fn hosts_that_take_no_part() {
    let (anchors, script) = good();
    let dialer = dialer(anchors);
    let busy = Script { greeting: "554 5.7.1 go away\r\n", ..script.clone() };
    let server = Server::start(busy).await;
    let (found, attempt) = trouble(&dialer, &server, TlsUse::Never).await;
    assert_eq!(found, Trouble::Unreachable);
    assert!(attempt.reply.unwrap().contains("go away"));
    let noise = Server::start(Script { greeting: "HTTP/1.1 400\r\n", ..script }).await;
    assert_eq!(trouble(&dialer, &noise, TlsUse::Never).await.0, Trouble::Unreachable);
    for (address, expected) in [
        ("127.0.0.9:25", Trouble::NoAddress),
        ("[::ffff:127.0.0.9]:25", Trouble::NoAddress), // the same, in IPv6 clothes
        ("169.254.1.1:25", Trouble::NoAddress),
        ("127.0.0.1:1", Trouble::Unreachable),
    ] {
        let address = address.parse().unwrap();
        let outcome = dialer.connect("mx.partner.test", address, &need(TlsUse::Never)).await;
        let (trouble, attempt) = outcome.err().unwrap();
        assert_eq!(trouble.trouble, expected, "{address}");
        assert_eq!(attempt.address, Some(address.to_string()));
    }
}

#[tokio::test]
async fn a_host_that_configuration_names_may_lie_in_a_refused_network() {
    let (anchors, script) = good();
    let server = Server::start(script).await;
    let mut dialer = dialer(anchors);
    dialer.settings.refuse_networks = vec!["127.0.0.0/8".parse().unwrap()];
    assert_eq!(trouble(&dialer, &server, TlsUse::IfOffered).await.0, Trouble::NoAddress);
    let requirement = Requirement { configured: true, ..need(TlsUse::IfOffered) };
    assert!(dialer.connect("127.0.0.1", server.address, &requirement).await.is_ok());
}

#[tokio::test]
async fn a_silent_host_is_left_in_time() {
    let (anchors, script) = good();
    let server = Server::start(Script { greeting: "", ..script }).await;
    let mut dialer = dialer(anchors);
    dialer.settings.timeouts.greeting = Duration::from_millis(50);
    let (found, attempt) = trouble(&dialer, &server, TlsUse::Never).await;
    assert_eq!(found, Trouble::Unreachable);
    assert!(attempt.error.unwrap().contains("in time"));
}

async fn send(
    data: Data,
    content: &mut Pieces,
) -> (Result<Vec<RecipientReply>, SendError>, Server) {
    let (anchors, script) = good();
    let server = Server::start(Script { data, ..script }).await;
    let mut dialer = dialer(anchors);
    dialer.settings.timeouts.dot = Duration::from_millis(300);
    let mut peer = connect(&dialer, &server, TlsUse::Always).await.ok().unwrap();
    (peer.send(mail(&["b@partner.test"]), content).await, server)
}

#[tokio::test]
async fn a_loss_says_whether_the_content_had_gone() {
    for (data, mut content, after_content, why) in [
        (Data::DropsEarly, Pieces::large(400), false, "closed in the midst"),
        (Data::DropsAfterDot, Pieces::of("x\r\n"), true, "closed after the dot"),
        (Data::Silent, Pieces::of("x\r\n"), true, "no reply to the dot"),
    ] {
        let error = send(data, &mut content).await.0.unwrap_err();
        assert_eq!(error.after_content, after_content, "{why}: {error}");
    }
}

#[tokio::test]
async fn a_refusal_in_the_midst_of_content_is_the_answer() {
    let early = Data::AnswersEarly("421 4.3.2 enough\r\n");
    let replies = send(early, &mut Pieces::large(400)).await.0.unwrap();
    assert_eq!((replies[0].reply.code, replies[0].delivered), (421, false));
}

#[tokio::test]
async fn content_that_breaks_off_gets_no_final_dot() {
    let mut broken = Pieces::large(10);
    broken.0.push_back(Err("the body is damaged".into()));
    let answer = Data::Answer("250 2.0.0 taken\r\n");
    let (outcome, server) = send(answer, &mut broken).await;
    let error = outcome.unwrap_err();
    assert_eq!((error.text.as_str(), error.after_content), ("the body is damaged", false));
    assert!(!server.content().await.ends_with(b"\r\n.\r\n"));
}
