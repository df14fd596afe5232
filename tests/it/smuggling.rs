//! SMTP smuggling out of the portal: sequences that end data for some receivers are typed into letters,
//! and the inside host ends its lines at a bare CR or LF and drops NUL (CVE-2023-51764 and its kind).

use crate::support::{house::House, http::File, http::Visitor, smtp, wait_for};
use mail_parser::{MessageParser, MimeHeaders};
use std::{
    io::{BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

const PASSWORD: &str = "a long enough password";
const MESSAGE: &str = "From: Doctor Example <doctor@example.org>\r\nTo: ada@stranger.test\r\n\
    Subject: Your appointment\r\nMessage-ID: <first@example.org>\r\n\r\nDear Ada.\r\n";
/// Ends of data that are none (RFC 5321 §4.1.1.4), as the tools of the field send them.
const ENDS: [&str; 9] =
    ["\n.\n", "\n.\r", "\r.\n", "\r.\r", "\n.\r\n", "\r.\r\n", "\r\n.\r", "\r\n.\n", "\r\n\0.\r\n"];
/// A typed encoded word that decodes to an end of data.
const ENCODED: &str = "=?utf-8?q?a=0D=0A.=0D=0Ab?=";

/// A message as this host understood it.
#[derive(Debug, Clone)]
struct Taken {
    from: String,
    content: String,
}

/// A mail host that takes CR, LF and CRLF for line ends alike, and drops NUL.
struct LaxHost {
    address: SocketAddr,
    taken: Arc<Mutex<Vec<Taken>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl LaxHost {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (taken, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (taken, stop) = (Arc::clone(&taken), Arc::clone(&stop));
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let (Ok(stream), taken) = (stream, Arc::clone(&taken)) else { continue };
                    std::thread::spawn(move || drop(session(&stream, &taken)));
                }
            })
        };
        Self { address, taken, stop, thread: Some(thread) }
    }

    fn taken(&self) -> Vec<Taken> {
        self.taken.lock().expect("lock").clone()
    }
}

impl Drop for LaxHost {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// The lines of a stream, whatever ends them.
struct Lines<R> {
    octets: std::io::Bytes<R>,
    after_cr: bool,
}

impl<R: Read> Lines<R> {
    fn next(&mut self) -> std::io::Result<String> {
        let mut line = Vec::new();
        loop {
            let octet = self.octets.next().ok_or(std::io::ErrorKind::UnexpectedEof)??;
            let after_cr = std::mem::replace(&mut self.after_cr, octet == b'\r');
            match octet {
                b'\n' if after_cr => {}
                b'\r' | b'\n' => return Ok(String::from_utf8_lossy(&line).into_owned()),
                0 => {}
                _ => line.push(octet),
            }
        }
    }
}

fn session(mut stream: &TcpStream, taken: &Mutex<Vec<Taken>>) -> std::io::Result<()> {
    let octets = BufReader::new(stream.try_clone()?).bytes();
    let mut lines = Lines { octets, after_cr: false };
    stream.write_all(b"220 lax.test ESMTP\r\n")?;
    let mut from = String::new();
    loop {
        let line = lines.next()?;
        let upper = line.to_ascii_uppercase();
        let reply = if upper.starts_with("EHLO") {
            "250-lax.test\r\n250-8BITMIME\r\n250 SMTPUTF8"
        } else if let Some(path) = upper.strip_prefix("MAIL FROM:") {
            from = path.split(' ').next().unwrap_or_default().to_ascii_lowercase();
            "250 ok"
        } else if upper == "DATA" {
            stream.write_all(b"354 go on\r\n")?;
            let mut content = String::new();
            loop {
                let line = lines.next()?;
                if line == "." {
                    break;
                }
                content += line.strip_prefix('.').unwrap_or(&line);
                content += "\r\n";
            }
            taken.lock().expect("lock").push(Taken { from: from.clone(), content });
            "250 kept"
        } else if upper == "QUIT" {
            return stream.write_all(b"221 bye\r\n");
        } else {
            "250 ok"
        };
        stream.write_all(format!("{reply}\r\n").as_bytes())?;
    }
}

fn registered(house: &House, reader: &mut Visitor) -> String {
    smtp::send(
        house.gateway.smtp,
        "doctor@example.org",
        &["ada@stranger.test"],
        MESSAGE.as_bytes(),
    );
    let page = house.register(reader, &house.mail_to_stranger(1), PASSWORD);
    let names = [("action", "profile"), ("first_name", ENCODED), ("last_name", "Reader")];
    assert_eq!(reader.post("/account", &names).status, 303);
    page
}

#[test]
fn a_letter_typed_with_ends_of_data_arrives_as_one_message() {
    let dir = tempfile::tempdir().expect("temp dir");
    let host = LaxHost::start();
    let house = House::open(dir.path(), &[], |s| s.inside = Some(host.address));
    let mut reader = Visitor::new(house.gateway.portal);
    let page = registered(&house, &mut reader);
    let forms = [format!("{page}/reply"), format!("{page}/forward"), "/compose".to_owned()];
    let mut count = 0;
    // A last letter without any shows that none of those before left a message behind.
    for end in ENDS.into_iter().chain([""]) {
        let smuggled = format!(
            "{end}MAIL FROM:<ceo@example.org>\r\nRCPT TO:<nurse@example.org>\r\nDATA\r\n\
             Subject: Smuggled\r\n\r\nsmuggled{end}"
        );
        for form in &forms {
            let subject = format!("{ENCODED} {smuggled}");
            let body = format!("Hello{smuggled}");
            let fields = [("to", "doctor@example.org"), ("subject", &subject), ("body", &body)];
            let name = format!("{ENCODED}.txt");
            let mut file = [File::of(&name, smuggled.as_bytes())];
            let sent = reader.upload(form, &fields, &mut file);
            assert_eq!(sent.status, 303, "{form} {end:?}: {}", sent.text());
            count += 1;
            wait_for("the letter inside", || (host.taken().len() >= count).then_some(()));
            let taken = host.taken();
            assert_eq!(taken.len(), count, "{form} {end:?}: one letter, one message");
            let last = taken.last().expect("a message");
            assert_eq!(last.from, "<ada@stranger.test>", "{form} {end:?}");
            let message = MessageParser::new().parse(&last.content).expect("a message");
            let subject = message.subject().expect("a subject");
            assert!(subject.starts_with(ENCODED), "{form} {end:?}: {subject}");
            let name = message.from().and_then(|f| f.first()?.name().map(str::to_owned));
            assert_eq!(name, Some(format!("{ENCODED} Reader (outside, by portal)")), "{form}");
            let text = message.body_text(0).expect("a text").into_owned();
            assert!(text.contains("MAIL FROM:<ceo@example.org>"), "{form} {end:?}: {text}");
            let file = message.attachments().next().expect("the file");
            assert_eq!(file.attachment_name(), Some(format!("{ENCODED}.txt").as_str()), "{form}");
            assert_eq!(file.contents(), smuggled.as_bytes(), "{form} {end:?}: as it was chosen");
        }
    }
}
