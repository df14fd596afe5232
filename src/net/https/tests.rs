//! Against a TLS server that says what each row has it say.

use super::*;
use crate::{
    mail::Domain,
    net::testing::{Authority, server_config, today},
    policy::{Dane, MxFacts},
};
use std::sync::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

#[derive(Debug)]
struct Names(Addresses);
#[async_trait]
impl Resolver for Names {
    async fn mx(&self, _: &Domain) -> MxFacts {
        MxFacts::NoDomain
    }
    async fn addresses(&self, _: &str) -> Addresses {
        self.0.clone()
    }
    async fn tlsa(&self, _: &str, _: u16) -> Dane {
        Dane::NotAsked
    }
    async fn texts(&self, _: &str) -> crate::dns::Texts {
        crate::dns::Texts::None
    }
}
fn loopback() -> Addresses {
    Addresses::Found(vec![[127, 0, 0, 1].into()])
}

/// A server at `mta-sts.a.test` that answers each connection with `says` and keeps what it heard.
async fn server(says: Vec<u8>) -> (HttpsSettings, Arc<Mutex<Vec<u8>>>) {
    let authority = Authority::new();
    let leaf = authority.issue(&["mta-sts.a.test"], |_| {});
    let versions = &[&rustls::version::TLS13, &rustls::version::TLS12];
    let tls = TlsAcceptor::from(server_config(&leaf.der, &leaf.key, versions));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = tls.accept(stream).await else { continue };
            let mut buffer = [0; 4096];
            let mut text = Vec::new();
            while !complete(&text) {
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(n) => text.extend_from_slice(&buffer[..n]),
                }
            }
            kept.lock().unwrap().extend_from_slice(&text);
            drop(stream.write_all(&says).await);
            drop(stream.shutdown().await);
        }
    });
    let anchors = TrustAnchors::from_pem(authority.pem().as_bytes(), "test").unwrap();
    let settings = HttpsSettings {
        anchors,
        refuse_networks: Vec::new(),
        port,
        patience: Duration::from_secs(20),
    };
    (settings, heard)
}
/// A whole request: its head, and a body where it is a POST (of one known end).
fn complete(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let ended = text.contains("\r\n\r\n");
    if text.starts_with("POST") { text.ends_with("the end") } else { ended }
}
fn client(settings: HttpsSettings, found: Addresses) -> HttpsClient {
    HttpsClient::new(settings, Arc::new(Names(found)), today()).unwrap()
}
async fn get(says: &[u8]) -> Result<Page, WebError> {
    let (settings, _) = server(says.to_vec()).await;
    client(settings, loopback()).get("mta-sts.a.test", "/file").await
}

#[tokio::test]
async fn a_page_is_fetched_and_the_question_is_plain() {
    let says = b"HTTP/1.1 200 OK\r\nContent-Type: Text/Plain; charset=utf-8\r\n\r\nhello";
    let (settings, heard) = server(says.to_vec()).await;
    let page = client(settings, loopback()).get("mta-sts.a.test", "/file").await.unwrap();
    assert_eq!(page, Page { media_type: "text/plain".to_owned(), body: Bytes::from("hello") });
    let heard = String::from_utf8(heard.lock().unwrap().clone()).unwrap();
    assert!(heard.starts_with("GET /file HTTP/1.1\r\nhost: mta-sts.a.test\r\n"), "{heard}");
    assert!(!heard.to_ascii_lowercase().contains("cookie"), "{heard}");
}

#[tokio::test]
async fn every_other_answer_is_an_error_that_says_why() {
    let body = |n: usize| "x".repeat(n);
    let chunked = |n: usize| {
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{n:x}\r\n{}\r\n0\r\n\r\n",
            body(n)
        )
    };
    let rows: [(&str, String, Option<&str>); 14] = [
        ("the largest", chunked(MAX_BODY), None),
        ("too large, in pieces", chunked(MAX_BODY + 1), Some("larger than")),
        (
            "too large, by its end",
            format!("HTTP/1.1 200 OK\r\n\r\n{}", body(MAX_BODY + 1)),
            Some("larger than"),
        ),
        (
            "too large, as said",
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\nx", MAX_BODY + 1),
            Some("larger than"),
        ),
        (
            "no number",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nx".to_owned(),
            Some("answer"),
        ),
        ("cut short", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx".to_owned(), Some("answer")),
        (
            "an endless head",
            format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", body(4 * MAX_HEAD)),
            Some("answer"),
        ),
        ("an empty 200", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(), None),
        ("another 2xx", "HTTP/1.1 204 No\r\n\r\n".to_owned(), Some("status 204")),
        (
            "a redirect",
            "HTTP/1.1 302 Go\r\nLocation: https://b.test/\r\nContent-Length: 0\r\n\r\n".to_owned(),
            Some("status 302"),
        ),
        (
            "not there",
            "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n".to_owned(),
            Some("status 404"),
        ),
        ("SMTP", "220 mx.a.test ESMTP\r\n".to_owned(), Some("answer")),
        ("HTTP/0.9", "version: STSv1\n".to_owned(), Some("answer")),
        ("silence", String::new(), Some("answer")),
    ];
    for (reason, says, error) in rows {
        match (get(says.as_bytes()).await, error) {
            (Ok(_), None) => {}
            (Err(found), Some(words)) => {
                assert!(found.to_string().contains(words), "{reason}: {found}");
            }
            (found, _) => panic!("{reason}: {:?}", found.map(|page| page.body.len())),
        }
    }
}

#[tokio::test]
async fn a_post_carries_its_body_and_wants_a_2xx() {
    for (says, outcome) in [
        ("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", Ok(201)),
        (
            "HTTP/1.1 307 Go\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
            Err(WebError::Status(307)),
        ),
        ("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", Err(WebError::Status(500))),
    ] {
        let (settings, heard) = server(says.as_bytes().to_vec()).await;
        let port = settings.port;
        let host = "mta-sts.a.test".to_owned();
        let to = WebPlace { host, port: Some(port), path: "/r?a=b".to_owned() };
        let client = client(HttpsSettings { port: 1, ..settings }, loopback());
        let body = Bytes::from("a report, and the end");
        assert_eq!(client.post(&to, "application/tlsrpt+gzip", body).await, outcome);
        let heard = String::from_utf8(heard.lock().unwrap().clone()).unwrap();
        assert!(heard.starts_with("POST /r?a=b HTTP/1.1\r\n"), "{heard}");
        let host = format!("\r\nhost: mta-sts.a.test:{port}\r\n");
        for part in [&host, "content-type: application/tlsrpt+gzip\r\n", "\r\n\r\na report"] {
            assert!(heard.contains(part), "{part} is not in {heard}");
        }
    }
}

#[tokio::test]
async fn a_question_is_put_with_its_secrets_and_follows_nothing() {
    for (says, outcome) in [
        ("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{}", Ok("{}")),
        (
            "HTTP/1.1 302 Go\r\nLocation: https://evil.test/\r\nContent-Length: 0\r\n\r\n",
            Err(WebError::Status(302)),
        ),
        ("HTTP/1.1 400 No\r\nContent-Length: 2\r\n\r\n{}", Err(WebError::Status(400))),
    ] {
        let (settings, heard) = server(says.as_bytes().to_vec()).await;
        let to = WebPlace {
            host: "mta-sts.a.test".to_owned(),
            port: Some(settings.port),
            path: "/token".to_owned(),
        };
        let secret = |text: &str| Some(Zeroizing::new(text.to_owned()));
        let question =
            Question { form: secret("code=a&b=the end"), authorization: secret("Basic eA==") };
        assert_eq!(format!("{question:?}"), "Question(..)");
        let page = Api::ask(&client(settings, loopback()), &to, question).await;
        assert_eq!(page.map(|page| page.body), outcome.map(Bytes::from));
        let heard = String::from_utf8(heard.lock().unwrap().clone()).unwrap();
        for part in [
            "POST /token HTTP/1.1\r\n",
            "\r\ncontent-type: application/x-www-form-urlencoded\r\n",
            "\r\naccept: application/json\r\n",
            "\r\nauthorization: Basic eA==\r\n",
            "\r\n\r\ncode=a&b=the end",
        ] {
            assert!(heard.contains(part), "{part} is not in {heard}");
        }
    }
}

#[tokio::test]
async fn where_it_goes_is_guarded() {
    let (settings, heard) = server(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()).await;
    let guarded =
        HttpsSettings { refuse_networks: vec!["127.0.0.0/8".parse().unwrap()], ..settings.clone() };
    let mapped = Addresses::Found(vec!["::ffff:127.0.0.1".parse().unwrap()]);
    let rows: [(&str, &HttpsSettings, Addresses, &str, &str); 6] = [
        ("a refused network", &guarded, loopback(), "mta-sts.a.test", "refuse_networks"),
        ("one in disguise", &guarded, mapped, "mta-sts.a.test", "refuse_networks"),
        ("an address for a name", &guarded, Addresses::None, "127.0.0.1", "refuse_networks"),
        ("no address", &settings, Addresses::None, "mta-sts.a.test", "has no address"),
        ("trouble", &settings, Addresses::Trouble("SERVFAIL".to_owned()), "x.test", "SERVFAIL"),
        ("another name", &settings, loopback(), "mta-sts.b.test", "TLS: "),
    ];
    for (reason, settings, found, host, words) in rows {
        let error = client(settings.clone(), found).get(host, "/").await.unwrap_err();
        assert!(error.to_string().contains(words), "{reason}: {error}");
    }
    assert!(heard.lock().unwrap().is_empty(), "nothing was asked of anybody");
    let trouble = client(settings.clone(), Addresses::Trouble("SERVFAIL".to_owned()));
    let error = trouble.get("x.test", "/").await.unwrap_err();
    assert_eq!(error, WebError::Doubt("x.test: SERVFAIL".to_owned()), "not as if it had none");
    let open = HttpsSettings { port: 1, ..settings };
    let error = client(open, loopback()).get("mta-sts.a.test", "/").await.unwrap_err();
    assert!(matches!(error, WebError::Unreachable(_)), "{error}");
}

#[tokio::test]
async fn a_host_that_says_nothing_costs_its_time_only() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (settings, _) = server(Vec::new()).await;
    let settings = HttpsSettings {
        port: listener.local_addr().unwrap().port(),
        patience: Duration::from_millis(300),
        ..settings
    };
    let error = client(settings, loopback()).get("mta-sts.a.test", "/").await.unwrap_err();
    assert!(matches!(error, WebError::TimedOut(0) | WebError::Unreachable(_)), "{error}");
}

/// What the address before the good one does.
#[derive(Debug, Clone, Copy)]
enum Bad {
    Closes,
    Resets,
    SpeaksSmtp,
    IsSilent,
}

/// A second host on the port of the first, at another address.
async fn bad(port: u16, does: Bad) {
    let listener = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            match does {
                // Unread bytes make a reset of the end.
                Bad::Resets => drop(stream.peek(&mut [0; 1]).await),
                Bad::Closes => drop(stream.read(&mut [0; 4096]).await),
                Bad::SpeaksSmtp => drop(stream.write_all(b"220 mx.a.test ESMTP\r\n").await),
                Bad::IsSilent => held.push(stream),
            }
        }
    });
}

#[tokio::test]
async fn a_handshake_that_breaks_off_is_no_bad_certificate_and_the_next_address_is_tried() {
    for does in [Bad::Closes, Bad::Resets, Bad::SpeaksSmtp, Bad::IsSilent] {
        let says = b"HTTP/1.1 200 OK\r\n\r\nhello";
        let (settings, _) = server(says.to_vec()).await;
        bad(settings.port, does).await;
        let settings = HttpsSettings { patience: Duration::from_secs(8), ..settings };
        let first = [127, 0, 0, 2].into();
        let alone = client(settings.clone(), Addresses::Found(vec![first]));
        let error = alone.get("mta-sts.a.test", "/").await.unwrap_err();
        let late = matches!(error, WebError::TimedOut(_)) && matches!(does, Bad::IsSilent);
        assert!(late || matches!(error, WebError::Unreachable(_)), "{does:?}: {error:?}");
        let both = Addresses::Found(vec![first, [127, 0, 0, 1].into()]);
        let page = client(settings, both).get("mta-sts.a.test", "/").await.unwrap();
        assert_eq!(page.body, "hello", "{does:?}");
    }
}
