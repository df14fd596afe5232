//! A browser without a screen: forms, cookies, plain HTTP/1.1 on loopback. No scripts, as the
//! portal needs none.

use super::tell::{Failure, Told, within};
use std::{collections::BTreeMap, net::SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The longest answer that is read.
const LARGEST: u64 = 16 << 20;

/// One visitor of the portal.
#[derive(Debug)]
pub(super) struct Reader {
    portal: SocketAddr,
    pub(super) cookies: BTreeMap<String, String>,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) status: u16,
    /// Names in small letters.
    head: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Page {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.head.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Where it leads on.
    pub(super) fn location(&self) -> Told<&str> {
        let lost = || Failure::new(format!("the portal answered {} and led nowhere", self.status));
        self.field("location").ok_or_else(lost)
    }
}

impl Reader {
    pub(super) fn new(portal: SocketAddr) -> Self {
        Self { portal, cookies: BTreeMap::new() }
    }

    pub(super) async fn get(&mut self, path: &str) -> Told<Page> {
        self.request("GET", path, "").await
    }

    pub(super) async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Told<Page> {
        let pairs: Vec<String> =
            fields.iter().map(|(name, value)| format!("{}={}", form(name), form(value))).collect();
        self.request("POST", path, &pairs.join("&")).await
    }

    async fn request(&mut self, method: &str, path: &str, body: &str) -> Told<Page> {
        let cookies: Vec<String> = self.cookies.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nCookie: {}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            self.portal,
            cookies.join("; "),
            body.len()
        );
        let mut answer = Vec::new();
        let exchange = async {
            let mut stream = TcpStream::connect(self.portal).await?;
            stream.write_all(request.as_bytes()).await?;
            stream.take(LARGEST).read_to_end(&mut answer).await
        };
        let what = format!("{method} {path} at the portal");
        within(&what, exchange).await?.map_err(Failure::at(&what))?;
        let page = parse(&answer).ok_or_else(|| Failure::new(format!("{what}: no HTTP answer")))?;
        for (_, cookie) in page.head.iter().filter(|(name, _)| name == "set-cookie") {
            self.keep(cookie);
        }
        Ok(page)
    }

    fn keep(&mut self, cookie: &str) {
        let pair = cookie.split(';').next().unwrap_or_default();
        if let Some((name, value)) = pair.split_once('=') {
            if value.is_empty() || cookie.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }
}

fn parse(answer: &[u8]) -> Option<Page> {
    let end = memchr::memmem::find(answer, b"\r\n\r\n")?;
    let (head, body) = answer.split_at_checked(end)?;
    let body = body.get(4..)?;
    let head = std::str::from_utf8(head).ok()?;
    let (status_line, fields) = head.split_once("\r\n")?;
    let status = status_line.split(' ').nth(1)?.parse().ok()?;
    let field = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    let head = fields.split("\r\n").filter_map(field).collect();
    let page = Page { status, head, body: Vec::new() };
    let body = match page.field("transfer-encoding") {
        Some(_) => unchunk(body)?,
        None => body.to_vec(),
    };
    Some(Page { body, ..page })
}

/// RFC 9112 §7.1; a body that breaks off is none.
fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = memchr::memmem::find(rest, b"\r\n")?;
        let (size, chunks) = rest.split_at_checked(end)?;
        let size = usize::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        let (chunk, after) = chunks.get(2..)?.split_at_checked(size)?;
        body.extend_from_slice(chunk);
        rest = after.get(2..)?;
    }
}

/// A word as `application/x-www-form-urlencoded` writes it.
fn form(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let letter = |b: u8| {
        if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }
    };
    text.bytes().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        let plain = parse(b"HTTP/1.1 303 See Other\r\nLocation: /verify\r\n\r\nbody").unwrap();
        assert_eq!(
            (plain.status, plain.location().unwrap(), &*plain.body),
            (303, "/verify", &b"body"[..])
        );
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let page = |chunks: &str| parse(format!("{head}{chunks}").as_bytes());
        assert_eq!(
            page("3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n").unwrap().text(),
            "abc0123456789"
        );
        for broken in ["", "3\r\nab", "3\r\nabc\r\n", "x\r\n", "ffffffffffffffff\r\nabc\r\n"] {
            assert!(page(broken).is_none(), "{broken:?}");
        }
        assert!(parse(b"HTTP/1.1 200 OK\r\n").is_none(), "no end of the head");
    }

    #[test]
    fn forms_are_written_as_browsers_do() {
        assert_eq!(form("a-Z_0.9"), "a-Z_0.9");
        assert_eq!(form("a b&c=d+é"), "a%20b%26c%3Dd%2B%C3%A9");
    }

    #[test]
    fn cookies_come_and_go() {
        let mut reader = Reader::new("127.0.0.1:1".parse().unwrap());
        reader.keep("session=abc; HttpOnly; SameSite=Lax");
        assert_eq!(reader.cookies.get("session").map(String::as_str), Some("abc"));
        reader.keep("session=; Max-Age=0");
        assert!(reader.cookies.is_empty());
    }
}
