//! The portal's border as strangers, proxies and their clients meet it: a real nginx before it, and
//! hostile connections of every kind while mail comes in.

use crate::support::{
    free_port,
    house::House,
    http::{File, Visitor},
    nginx::Nginx,
    parameter, smtp, wait_for,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    path::Path,
};
use tokio::net::TcpSocket;

const MESSAGE: &[u8] = b"Subject: Your results\r\n\r\nAll is well.\r\n";
const ADA: &str = "ada@stranger.test";
const PASSWORD: &str = "correct horse battery";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn connect(from: &str, to: SocketAddr) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let stream = runtime.expect("a runtime").block_on(async {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::new(ip(from), 0)).expect("bound");
        socket.connect(to).await.expect("connects").into_std().expect("a stream")
    });
    stream.set_nonblocking(false).expect("set");
    stream
}

fn registered(house: &House) -> (Visitor, String) {
    smtp::send(house.gateway.smtp, "doctor@example.org", &[ADA], MESSAGE);
    let mut reader = Visitor::new(house.gateway.portal);
    let page = house.register(&mut reader, &house.mail_to_stranger(1), PASSWORD);
    (reader, page)
}

/// The account page of a session that was begun with that field.
fn signed_in(mut visitor: Visitor, forwarded: &str) -> String {
    let form = [("email", ADA), ("password", PASSWORD)];
    let answer = visitor.post_with("/login", &[("X-Forwarded-For", forwarded)], &form);
    assert_eq!(answer.status, 303, "{}", answer.text());
    let page = visitor.get("/account");
    assert_eq!(page.status, 200);
    page.text()
}

/// Two proxies: the second asks the first, which asks the portal. Each appends to the field.
fn proxies(dir: &Path, portal: SocketAddr) -> (Nginx, [SocketAddr; 2]) {
    let (one, two) = ("127.0.40.1", "127.0.40.2");
    let port = free_port(&[one, two]);
    let at = [one, two].map(|address| SocketAddr::new(ip(address), port));
    let server = |own: &str, to: SocketAddr| {
        format!(
            "server {{ listen {own}:{port}; location / {{ proxy_pass http://{to}; \
             proxy_bind {own}; proxy_set_header Host $host; \
             proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }} }}"
        )
    };
    let servers = [server(one, portal), server(two, at[0])];
    (Nginx::start(dir, &servers, &at), at)
}

#[test]
fn behind_real_proxies_the_client_is_known_and_what_it_forged_is_not_believed() {
    let dir = tempfile::tempdir().expect("temp dir");
    let trusted = "trusted_proxies = [\"127.0.40.0/24\"]";
    let house = House::open(dir.path(), &[], |settings| settings.portal = trusted.to_owned());
    registered(&house);
    let (_nginx, [one, two]) = proxies(&dir.path().join("nginx"), house.gateway.portal);
    for (through, from, forged, why) in [
        (one, "127.0.50.1", "6.6.6.6", "one proxy"),
        (one, "127.0.50.2", "127.0.40.9", "a proxy's address, forged"),
        (two, "127.0.50.3", "6.6.6.6, 6.6.6.6", "two proxies"),
        (house.gateway.portal, "127.0.50.4", "6.6.6.6", "no proxy"),
    ] {
        let page = signed_in(Visitor::from(through, ip(from)), forged);
        assert!(page.contains(from), "{why}: {page}");
        assert!(!page.contains("6.6.6.6") && !page.contains("127.0.40."), "{why}: {page}");
    }
    for (from, told) in [("127.0.40.3", "HTTP/1.1 200 "), ("127.0.50.5", "HTTP/1.1 400 ")] {
        let mut stream = connect(from, house.gateway.portal);
        let request = "PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\nGET / HTTP/1.1\r\nHost: h\r\n\
                       Connection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with(told), "a PROXY header from {from}: {answer}");
    }
}

/// What hostile connections send before they fall silent; none of them reads.
fn openings(cookie: &str, download: &str) -> Vec<(&'static str, Vec<u8>)> {
    let post = |path: &str, kind: &str, length: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let form = "application/x-www-form-urlencoded";
    let letter = post("/compose", "multipart/form-data; boundary=b", 50_000_000)
        + "--b\r\nContent-Disposition: form-data; name=\"body\"\r\n\r\n"
        + &"a".repeat(100_000);
    let hello = [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(), &[7; 40]].concat();
    let unread = format!("GET {download} HTTP/1.1\r\nHost: h\r\nCookie: session={cookie}\r\n\r\n");
    vec![
        ("idle", Vec::new()),
        ("slow head", b"GET / HTTP/1.1\r\nHost: h\r\nX-Slow: ".to_vec()),
        ("slow body", (post("/login", form, 60_000) + "email=").into_bytes()),
        ("slow letter", letter.into_bytes()),
        ("pipelined", "GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(500).into_bytes()),
        ("half a handshake", hello),
        ("unread download", unread.into_bytes()),
    ]
}

/// Opens so many connections from several addresses; what they can't send at once is left out.
fn attack(portal: SocketAddr, number: u64, openings: &[(&str, Vec<u8>)]) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for at in 0..number {
        // One of them wants more than a client may have.
        let host = if at < 100 { 99 } else { 1 + at % 10 };
        let mut stream = connect(&format!("127.0.60.{host}"), portal);
        stream.set_nonblocking(true).expect("set");
        let (kind, bytes) = &openings[usize::try_from(at).expect("few") % openings.len()];
        match stream.write(bytes) {
            Ok(_) => {}
            Err(error) => {
                let ended = matches!(
                    error.kind(),
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::WouldBlock
                );
                assert!(ended, "{kind}: {error}");
            }
        }
        held.push(stream);
    }
    held
}

fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("raised");
}

#[test]
fn hostile_connections_leave_intake_readers_and_memory_alone() {
    raise_open_files();
    let number = parameter("RESTANTE_HOSTILE", 700);
    let dir = tempfile::tempdir().expect("temp dir");
    let metrics = SocketAddr::new(ip("127.0.0.1"), free_port(&["127.0.0.1"]));
    let house = House::open(dir.path(), &[], |settings| {
        settings.portal = "max_connections = 200\nmax_connections_per_client = 60".to_owned();
        settings.notification = format!("[metrics]\nlisten = \"{metrics}\"");
        settings.log = "info";
    });
    let (mut reader, page) = registered(&house);
    // A file of the reader's own, in a copy that lies in Sent: large enough that nobody's buffers
    // hold it.
    let file = vec![7; 8 << 20];
    let sent = reader.upload(
        &format!("{page}/reply"),
        &[("body", "Here it is.")],
        &mut [File::of("scan.bin", &file)],
    );
    assert_eq!(sent.status, 303, "{}", sent.text());
    let download = format!("{}/attachments/1", sent.location());
    let cookie = reader.cookie("session").expect("a cookie");
    let held = attack(house.gateway.portal, number, &openings(&cookie, &download));

    for message in 0..100 {
        let to = format!("r{message}@stranger.test");
        smtp::send(house.gateway.smtp, "doctor@example.org", &[&to], MESSAGE);
    }
    assert_eq!(reader.get("/inbox").status, 200, "whoever is signed in reads on");
    let mut other = Visitor::from(house.gateway.portal, ip("127.0.61.1"));
    let answer = other.post("/login", &[("email", ADA), ("password", PASSWORD)]);
    assert_eq!(answer.status, 303, "and others sign in");

    let value = |name: &str| {
        let text = Visitor::new(metrics).get("/metrics").text();
        let line = text.lines().find(|line| line.starts_with(name)).expect("a metric").to_owned();
        line.rsplit(' ').next().expect("a value").parse::<u64>().expect("a number")
    };
    wait_for("no more than max_connections", || {
        (value("restante_portal_connections") <= 200).then_some(())
    });
    assert!(value("restante_portal_refused_total{limit=\"without-session\"}") > 0);
    assert!(value("restante_portal_refused_total{limit=\"client-connections\"}") > 0);
    let log = house.gateway.log_text();
    let lines = log.lines().filter(|line| line.contains("reject: connections")).count();
    assert!((1..=30).contains(&lines), "{lines} lines for {number} connections");
    assert!(house.gateway.peak_memory() < 300 << 10, "{} KiB", house.gateway.peak_memory());
    drop(held);
}
