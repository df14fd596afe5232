//! A browser without a screen: cookies, forms, no scripts. Plain HTTP on loopback.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

/// One visitor.
#[derive(Debug)]
pub struct Visitor {
    portal: SocketAddr,
    /// Where it comes from.
    from: IpAddr,
    cookies: BTreeMap<String, String>,
}

/// A file to send.
pub struct File<'a> {
    pub name: &'a str,
    pub content: Box<dyn Read + 'a>,
    pub size: u64,
}

impl<'a> File<'a> {
    pub fn of(name: &'a str, bytes: &'a [u8]) -> Self {
        Self { name, content: Box::new(bytes), size: bytes.len() as u64 }
    }
}

/// An answer.
#[derive(Debug)]
pub struct Page {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Page {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    pub fn location(&self) -> String {
        self.headers.get("location").cloned().unwrap_or_else(|| panic!("no Location: {self:?}"))
    }
}

impl Visitor {
    pub fn new(portal: SocketAddr) -> Self {
        Self::from(portal, portal.ip())
    }

    /// A visitor that comes from that address of loopback.
    pub fn from(portal: SocketAddr, from: IpAddr) -> Self {
        Self { portal, from, cookies: BTreeMap::new() }
    }

    /// Forgets all cookies.
    pub fn forget(&mut self) {
        self.cookies.clear();
    }

    /// A request of any method without content.
    pub fn send(&mut self, method: &str, path: &str) -> Page {
        self.request(method, path, &[], &[], None)
    }

    /// What the portal keeps in this visitor's browser under that name.
    pub fn cookie(&self, name: &str) -> Option<String> {
        self.cookies.get(name).cloned()
    }

    pub fn get(&mut self, path: &str) -> Page {
        self.request("GET", path, &[], &[], None)
    }

    /// GET whose body goes to `sink`.
    pub fn download(&mut self, path: &str, sink: &mut dyn Write) -> Page {
        self.request("GET", path, &[], &[], Some(sink))
    }

    pub fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Page {
        self.post_with(path, &[], fields)
    }

    pub fn post_with(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        fields: &[(&str, &str)],
    ) -> Page {
        let pairs = fields.iter().map(|(k, v)| format!("{}={}", encode(k), encode(v)));
        let body = pairs.collect::<Vec<_>>().join("&");
        self.request("POST", path, headers, body.as_bytes(), None)
    }

    /// Sends a form with files, as long as they are.
    pub fn upload(&mut self, path: &str, fields: &[(&str, &str)], files: &mut [File<'_>]) -> Page {
        const LIMIT: &str = "----restante-test-limit";
        let mut heads = Vec::new();
        for (name, value) in fields {
            heads.push(format!(
                "--{LIMIT}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            ));
        }
        let typed = heads.concat();
        let head = |name: &str| {
            format!(
                "--{LIMIT}\r\nContent-Disposition: form-data; name=\"files\"; filename=\"{name}\"\r\n\
                 Content-Type: application/octet-stream\r\n\r\n"
            )
        };
        let end = format!("--{LIMIT}--\r\n");
        let in_files = files.iter().map(|f| head(f.name).len() as u64 + f.size + 2).sum::<u64>();
        let length = typed.len() as u64 + in_files + end.len() as u64;
        let kind = format!("multipart/form-data; boundary={LIMIT}");
        let mut stream = self.begin("POST", path, &[], Some((&kind, length)));
        stream.write_all(typed.as_bytes()).expect("written");
        for file in files {
            stream.write_all(head(file.name).as_bytes()).expect("written");
            let copied = std::io::copy(&mut file.content, &mut stream).expect("a file is sent");
            assert_eq!(copied, file.size, "{}", file.name);
            stream.write_all(b"\r\n").expect("written");
        }
        stream.write_all(end.as_bytes()).expect("written");
        self.answer(BufReader::new(stream), None)
    }

    /// Sends a stretch of an upload that is announced as `length` bytes, and breaks the connection off if
    /// `content` is less.
    pub fn stretch(&mut self, path: &str, content: &[u8], length: u64) -> Option<Page> {
        let kind = "application/octet-stream";
        let mut stream = self.begin("POST", path, &[], Some((kind, length)));
        stream.write_all(content).expect("written");
        (content.len() as u64 == length).then(|| self.answer(BufReader::new(stream), None))
    }

    fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        sink: Option<&mut dyn Write>,
    ) -> Page {
        let kind = "application/x-www-form-urlencoded";
        let content = (method == "POST").then_some((kind, body.len() as u64));
        let mut stream = self.begin(method, path, headers, content);
        stream.write_all(body).expect("written");
        self.answer(BufReader::new(stream), sink)
    }

    /// A connection that has sent the head of a request, with type and length of its content.
    fn begin(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        content: Option<(&str, u64)>,
    ) -> TcpStream {
        let mut stream = self.connect();
        stream.set_read_timeout(Some(Duration::from_secs(120))).expect("set");
        let cookies: Vec<_> = self.cookies.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.portal);
        if !cookies.is_empty() {
            head += &format!("Cookie: {}\r\n", cookies.join("; "));
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if let Some((kind, length)) = content {
            head += &format!("Content-Type: {kind}\r\nContent-Length: {length}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).expect("written");
        stream
    }

    fn connect(&self) -> TcpStream {
        if self.from == self.portal.ip() {
            return TcpStream::connect(self.portal).expect("connects");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let stream = runtime.expect("a runtime").block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
            socket.bind(SocketAddr::new(self.from, 0)).expect("bound");
            socket.connect(self.portal).await.expect("connects").into_std().expect("a stream")
        });
        stream.set_nonblocking(false).expect("set");
        stream
    }

    fn answer(&mut self, mut reader: BufReader<TcpStream>, sink: Option<&mut dyn Write>) -> Page {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a status line");
        let status = line.split(' ').nth(1).and_then(|s| s.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status in {line:?}"));
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).expect("a header line");
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            if name.eq_ignore_ascii_case("set-cookie") {
                self.keep(value);
            }
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let mut body = Vec::new();
        let out: &mut dyn Write = match sink {
            Some(sink) => sink,
            None => &mut body,
        };
        if headers.get("transfer-encoding").is_some_and(|v| v == "chunked") {
            unchunk(&mut reader, out);
        } else {
            std::io::copy(&mut reader, out).expect("a body");
        }
        Page { status, headers, body }
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

fn unchunk(reader: &mut impl BufRead, out: &mut dyn Write) {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a chunk size");
        let size = u64::from_str_radix(line.trim(), 16)
            .unwrap_or_else(|_| panic!("the stream broke off: chunk size {line:?}"));
        let copied = std::io::copy(&mut reader.by_ref().take(size), out).expect("a chunk");
        assert_eq!(copied, size, "the stream broke off inside a chunk");
        reader.read_line(&mut String::new()).expect("a chunk's end");
        if size == 0 {
            return;
        }
    }
}

fn encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    text.bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}
