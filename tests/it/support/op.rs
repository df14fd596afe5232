//! A small provider of identities (`OpenID` Connect) with TLS: whoever presses its button signs in as
//! the one it knows.

use super::{pki::Leaf, sink::server_config};
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use data_encoding::BASE64URL_NOPAD;
use restante::clock::{Clock, SystemClock};
use rustls::{ServerConnection, StreamOwned};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

pub const CLIENT: &str = "restante";
pub const SECRET: &str = "a secret between two";

type Fields = BTreeMap<String, String>;

/// A running provider.
#[derive(Debug)]
pub struct Op {
    pub issuer: String,
    address: SocketAddr,
    busy: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}
struct Desk {
    issuer: String,
    busy: Arc<AtomicBool>,
    /// Who signs in here.
    email: String,
    key: EcdsaKeyPair,
    /// Codes handed out, each with what it was asked with.
    codes: Mutex<BTreeMap<String, Fields>>,
}

impl Op {
    /// One at that address, with a certificate for it.
    pub fn start(address: SocketAddr, leaf: &Leaf, email: &str) -> Self {
        let listener = TcpListener::bind(address).expect("bound");
        let issuer = format!("https://{address}");
        let busy = Arc::new(AtomicBool::new(false));
        let desk = Desk {
            issuer: issuer.clone(),
            busy: Arc::clone(&busy),
            email: email.to_owned(),
            key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"),
            codes: Mutex::default(),
        };
        let (config, ended) = (server_config(leaf), Arc::new(AtomicBool::new(false)));
        let (desk, over) = (Arc::new(desk), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let (desk, config) = (Arc::clone(&desk), Arc::clone(&config));
                // A browser may hold a connection open: each has its own thread.
                std::thread::spawn(move || {
                    let connection = ServerConnection::new(config).expect("TLS");
                    let mut stream = StreamOwned::new(connection, stream.expect("a connection"));
                    if let Some(request) = request(&mut stream) {
                        // A visitor that leaves early is no matter.
                        drop(stream.write_all(desk.answer(&request).as_bytes()));
                        stream.conn.send_close_notify();
                        drop(stream.flush());
                    }
                });
            }
        });
        Self { issuer, address, busy, ended, thread: Some(thread) }
    }
    /// Lines for `[portal]`; the secret is in a file of that folder.
    pub fn configuration(&self, dir: &std::path::Path) -> String {
        let file = dir.join("op.secret");
        std::fs::write(&file, format!("{SECRET}\n")).expect("written");
        format!(
            "[[portal.oidc]]\nname = \"Example ID\"\nissuer = {:?}\nclient_id = {CLIENT:?}\n\
             client_secret_file = {:?}\n",
            self.issuer,
            file.display().to_string()
        )
    }
    /// From now on it answers browsers without a page (RFC 9110, 15.3.5): they stay where they are.
    pub fn is_busy(&self) {
        self.busy.store(true, Ordering::Relaxed);
    }
    pub fn stop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the provider's thread");
        }
    }
}
impl Drop for Op {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Method, target, body.
fn request(stream: &mut impl Read) -> Option<(String, String, String)> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_ascii_lowercase();
            let length = length.split("content-length: ").nth(1).and_then(|l| l.lines().next());
            if body.len() >= length.map_or(0, |l| l.trim().parse().expect("a length")) {
                let mut words = head.split(' ');
                let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
                return Some((method, target, body.to_owned()));
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}

fn fields(text: &str) -> Fields {
    form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}
fn text(bytes: impl AsRef<[u8]>) -> String {
    BASE64URL_NOPAD.encode(bytes.as_ref())
}
fn says(status: &str, more: &str, kind: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{more}Content-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

impl Desk {
    fn answer(&self, (method, target, body): &(String, String, String)) -> String {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let json = |value: &Value| says("200 OK", "", "application/json", &value.to_string());
        match (method.as_str(), path) {
            ("GET", "/.well-known/openid-configuration") => json(&json!({
                "issuer": self.issuer,
                "authorization_endpoint": format!("{}/authorize", self.issuer),
                "token_endpoint": format!("{}/token", self.issuer),
                "jwks_uri": format!("{}/keys", self.issuer),
                "token_endpoint_auth_methods_supported": ["client_secret_post"],
            })),
            ("GET", "/keys") => {
                let point = self.key.public_key().as_ref();
                let (x, y) = (text(&point[1..33]), text(&point[33..65]));
                json(&json!({"keys": [
                    {"kty": "EC", "crv": "P-256", "kid": "1", "use": "sig", "x": x, "y": y},
                ]}))
            }
            ("GET", "/authorize") if self.busy.load(Ordering::Relaxed) => {
                says("204 No Content", "", "text/plain", "")
            }
            ("GET", "/authorize") => {
                let page = format!(
                    "<!DOCTYPE html><title>Example ID</title><main><h1>Example ID</h1>\
                     <form method=\"post\" action=\"/consent?{}\"><button>I am {}</button></form></main>",
                    query.replace('&', "&amp;"),
                    self.email
                );
                says("200 OK", "", "text/html", &page)
            }
            ("POST", "/consent") => {
                let asked = fields(query);
                let mut codes = self.codes.lock().expect("codes");
                let code = format!("code-{}", codes.len());
                let to = format!("{}?code={code}&state={}", asked["redirect_uri"], asked["state"]);
                codes.insert(code, asked);
                says("302 Found", &format!("Location: {to}\r\n"), "text/plain", "")
            }
            ("POST", "/token") => match self.token(&fields(body)) {
                Some(token) => json(&json!({"access_token": "x", "id_token": token})),
                None => {
                    says("400 Bad Request", "", "application/json", "{\"error\":\"invalid_grant\"}")
                }
            },
            _ => says("404 Not Found", "", "text/plain", ""),
        }
    }
    fn token(&self, form: &Fields) -> Option<String> {
        let asked = self.codes.lock().expect("codes").remove(form.get("code")?)?;
        let right = form.get("client_id")? == CLIENT
            && form.get("client_secret")? == SECRET
            && form.get("redirect_uri") == asked.get("redirect_uri")
            && text(Sha256::digest(form.get("code_verifier")?)) == *asked.get("code_challenge")?;
        let now = SystemClock.now().as_second();
        let header = json!({"alg": "ES256", "kid": "1"});
        let claims = json!({
            "iss": self.issuer, "sub": "17", "aud": CLIENT, "iat": now, "exp": now + 60,
            "nonce": asked.get("nonce")?, "email": self.email, "email_verified": true,
            "given_name": "Ada", "family_name": "Reader",
        });
        let message = format!("{}.{}", text(header.to_string()), text(claims.to_string()));
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes()).expect("signed");
        right.then(|| format!("{message}.{}", text(signature)))
    }
}
