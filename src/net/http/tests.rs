//! The border before a server, over real sockets.

use super::*;
use crate::{
    clock::SystemClock,
    net::{
        provider,
        testing::{self, Authority},
    },
};
use axum::{
    Extension, Router,
    body::Body,
    routing::{get, post},
};
use axum_server::{
    Handle,
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use bytes::Bytes;
use futures_util::stream;
use std::{convert::Infallible, net::SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    sync::mpsc,
};

fn settings(trusted: &str) -> BorderSettings {
    BorderSettings {
        listener: "test",
        trusted_proxies: vec![trusted.parse().unwrap()],
        connections: 8,
        connections_per_client: 4,
        min_rate: 1000,
    }
}

struct Scene {
    border: Border,
    address: SocketAddr,
    handle: Handle<SocketAddr>,
    /// Ends when the endless answer is dropped.
    endless: mpsc::Receiver<()>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.handle.shutdown();
    }
}

/// A server that tells its peers' addresses, and has an answer without end.
async fn scene(settings: BorderSettings, tls: Option<RustlsConfig>) -> Scene {
    let border = Border::new(settings, Arc::new(SystemClock));
    let (held, endless) = mpsc::channel::<()>(1);
    let without_end = move || {
        let held = held.clone();
        async move {
            Body::from_stream(stream::repeat_with(move || {
                let _held = &held;
                Ok::<_, Infallible>(Bytes::from_static(&[7; 4096]))
            }))
        }
    };
    let whoami =
        |Extension(connection): Extension<Connection>| async move { connection.peer.to_string() };
    let sign_in = |Extension(connection): Extension<Connection>| async move {
        connection.has_session();
    };
    let router = Router::new()
        .route("/", get(whoami))
        .route("/", post(sign_in))
        .route("/endless", get(without_end));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let (address, handle) = (listener.local_addr().unwrap(), Handle::new());
    let server = axum_server::from_tcp(listener).unwrap().handle(handle.clone());
    let service = border.before(router);
    match tls {
        None => {
            tokio::spawn(server.acceptor(border.clone()).http1_only().serve(service));
        }
        Some(tls) => {
            let acceptor = RustlsAcceptor::new(tls).acceptor(border.clone());
            tokio::spawn(server.acceptor(acceptor).http1_only().serve(service));
        }
    }
    Scene { border, address, handle, endless }
}

impl Scene {
    async fn connect(&self, from: &str) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
        socket.connect(self.address).await.unwrap()
    }
    /// Sends all of that and reads to the end.
    async fn ask(&self, from: &str, bytes: &[u8]) -> String {
        let mut stream = self.connect(from).await;
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        String::from_utf8_lossy(&answer).into_owned()
    }
    fn refused(&self, kind: Refused) -> u64 {
        let all = self.border.counts().refused();
        all.into_iter().find(|(k, _)| *k == kind).unwrap().1
    }
}

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
const V1: &str = "PROXY TCP4 192.0.2.7 127.0.0.1 4096 8080\r\n";

fn v2() -> Vec<u8> {
    let addresses = b"\xc0\x00\x02\x08\x7f\x00\x00\x01\x10\x00\x1f\x90";
    [&b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"[..], addresses].concat()
}

#[tokio::test]
async fn a_proxy_header_is_believed_from_trusted_networks_and_an_error_from_others() {
    let scene = scene(settings("127.0.1.0/24"), None).await;
    let with = |header: &[u8]| [header, REQUEST.as_bytes()].concat();
    for (from, bytes, ends, why) in [
        ("127.0.1.1", with(V1.as_bytes()), "192.0.2.7", "version 1"),
        ("127.0.1.1", with(&v2()), "192.0.2.8", "version 2"),
        ("127.0.1.1", with(b""), "127.0.1.1", "a proxy that sends none"),
        ("127.0.1.1", with(b"PROXY UNKNOWN\r\n"), "127.0.1.1", "a health check"),
        ("127.0.0.1", with(b""), "127.0.0.1", "no proxy"),
    ] {
        let answer = scene.ask(from, &bytes).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(ends), "{why}: {answer}");
    }
    for (from, bytes, why) in [
        ("127.0.0.1", with(V1.as_bytes()), "version 1 from elsewhere"),
        ("127.0.0.1", with(&v2()), "version 2 from elsewhere"),
        ("127.0.1.1", with(&[V1.as_bytes(), V1.as_bytes()].concat()), "a second one"),
        ("127.0.1.1", with(b"PROXY TCP4 nonsense\r\n"), "a malformed one"),
    ] {
        let answer = scene.ask(from, &bytes).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{why}: {answer}");
    }
    assert_eq!(scene.refused(Refused::ProxyHeader), 1);
}

#[tokio::test]
async fn a_proxy_header_comes_before_tls() {
    let authority = Authority::new();
    let leaf = authority.issue(&["portal.example"], |params| {
        params.not_after = rcgen::date_time_ymd(2100, 1, 1);
    });
    let config = testing::server_config(&leaf.der, &leaf.key, &[&rustls::version::TLS13]);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Arc::new(client);
    let scene = scene(settings("127.0.1.0/24"), Some(RustlsConfig::from_config(config))).await;
    for (from, header, expected) in [
        ("127.0.1.1", V1.as_bytes().to_vec(), Some("192.0.2.7")),
        ("127.0.1.1", v2(), Some("192.0.2.8")),
        ("127.0.1.1", Vec::new(), Some("127.0.1.1")),
        ("127.0.0.1", V1.as_bytes().to_vec(), None),
    ] {
        let mut stream = scene.connect(from).await;
        stream.write_all(&header).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&client));
        let name = "portal.example".try_into().unwrap();
        let connected = connector.connect(name, stream).await;
        let Some(expected) = expected else {
            assert!(connected.is_err(), "a header from elsewhere is no handshake");
            continue;
        };
        let mut stream = connected.unwrap();
        stream.write_all(REQUEST.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with(expected), "{answer}");
    }
}

#[tokio::test]
async fn one_client_has_so_many_connections_and_a_proxy_s_clients_are_counted_each() {
    let scene = scene(settings("127.0.1.0/24"), None).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(scene.connect("127.0.0.1").await);
        let stream = held.last_mut().unwrap();
        stream.write_all(REQUEST.replace("close", "keep-alive").as_bytes()).await.unwrap();
        stream.read_u8().await.unwrap();
    }
    assert_eq!(scene.ask("127.0.0.1", REQUEST.as_bytes()).await, "", "a fifth");
    assert_eq!(scene.refused(Refused::ClientConnections), 1);
    let through =
        |client: &str| format!("PROXY TCP4 {client} 127.0.0.1 1 2\r\n{REQUEST}").into_bytes();
    assert_eq!(scene.ask("127.0.1.1", &through("127.0.0.1")).await, "", "a fifth, by a proxy");
    for client in ["192.0.2.1", "192.0.2.2"] {
        assert!(scene.ask("127.0.1.1", &through(client)).await.ends_with(client));
    }
}

#[tokio::test]
async fn whoever_holds_connections_open_keeps_nobody_out() {
    let scene = scene(BorderSettings { connections_per_client: 0, ..settings("::1/128") }, None);
    let scene = scene.await;
    let mut reader = scene.connect("127.0.0.1").await;
    let sign_in = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n";
    reader.write_all(sign_in.as_bytes()).await.unwrap();
    reader.read_u8().await.unwrap();
    let mut idle = Vec::new();
    for number in 0..20 {
        idle.push(scene.connect("127.0.0.1").await);
        let answer = scene.ask("127.0.0.1", REQUEST.as_bytes()).await;
        assert!(answer.ends_with("127.0.0.1"), "{number}: {answer}");
    }
    assert!(scene.border.counts().open() <= 9);
    assert!(scene.refused(Refused::WithoutSession) >= 14);
    let mut byte = [0];
    assert!(matches!(idle[0].read(&mut byte).await, Ok(0) | Err(_)), "the oldest was ended");
    reader.write_all(REQUEST.as_bytes()).await.unwrap();
    let mut answer = String::new();
    reader.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("127.0.0.1"), "a connection with a session stays: {answer}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_read_is_cut_off() {
    let mut scene = scene(settings("::1/128"), None).await;
    let mut stream = scene.connect("127.0.0.1").await;
    stream.write_all(b"GET /endless HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    // All that the sockets hold is taken by the kernel; from then on only time passes.
    while scene.refused(Refused::Rate) == 0 {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    assert_eq!(scene.refused(Refused::Rate), 1);
    scene.endless.close();
    let mut rest = Vec::new();
    drop(stream.read_to_end(&mut rest).await);
    assert!(rest.starts_with(b"HTTP/1.1 200 "));
}

#[tokio::test(start_paused = true)]
async fn pipelined_requests_whose_answers_are_not_read_are_cut_off() {
    let scene = scene(settings("::1/128"), None).await;
    let stream = scene.connect("127.0.0.1").await;
    let (_reading, mut writing) = stream.into_split();
    let requests = "GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(1000);
    while writing.write_all(requests.as_bytes()).await.is_ok() {}
    assert_eq!(scene.refused(Refused::Rate), 1);
}
