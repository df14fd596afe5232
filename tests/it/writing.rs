//! What people write at the portal reaches the inside host: as ordinary mail, over TLS, whatever its
//! size.

use crate::support::{
    free_port,
    house::{House, INSIDE},
    http::{File, Visitor},
    sink::{Manner, Received, Sink},
    smtp, wait_for, wait_minutes,
};
use mail_parser::{Message, MessageParser, MimeHeaders};
use std::{
    fs,
    io::{self, Read, Write},
    net::SocketAddr,
    path::Path,
};

const PASSWORD: &str = "a long enough password";
const ADA: &str = "ada@stranger.test";
const PATH: &str = "<ada@stranger.test>";
const MESSAGE: &str = "From: Doctor Example <doctor@example.org>\r\nTo: ada@stranger.test, nurse@example.org\r\n\
    Subject: Your appointment\r\nMessage-ID: <first@example.org>\r\n\r\nDear Ada, please come on Monday.\r\n";

/// The scene with an inside host that offers TLS, or behaves as `manner` says.
struct Scene {
    house: House,
    inside: Sink,
    reader: Visitor,
    /// The page of the message.
    page: String,
}

fn scene(dir: &Path, portal: &str, manner: Manner) -> Scene {
    let inside: SocketAddr = format!("{INSIDE}:{}", free_port(&[INSIDE])).parse().expect("address");
    let house = House::open(dir, &[], |s| {
        s.inside = Some(inside);
        s.portal = portal.to_owned();
    });
    let tls = Some(house.pki.leaf("mail.example.org"));
    let inside = Sink::start(inside, Manner { tls, ..manner });
    smtp::send(house.gateway.smtp, "doctor@example.org", &[ADA], MESSAGE.as_bytes());
    let notice = house.mail_to_stranger(1);
    let mut reader = Visitor::new(house.gateway.portal);
    let page = house.register(&mut reader, &notice, PASSWORD);
    assert!(reader.get(&page).text().contains("please come on Monday"));
    Scene { house, inside, reader, page }
}

impl Scene {
    fn mail_inside(&self, n: usize) -> Received {
        wait_for("mail inside", || self.inside.messages().get(n - 1).cloned())
    }
    /// Waits until a page of Sent says `words`.
    fn tells(&mut self, page: &str, words: &str) {
        wait_for(words, || self.reader.get(page).text().contains(words).then_some(()));
    }
}

fn parse(content: &[u8]) -> Message<'_> {
    MessageParser::new().parse(content).expect("a message")
}

/// Bytes in no order, with the marker in them.
fn bytes(length: u32, marker: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..length).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    bytes.extend_from_slice(marker.as_bytes());
    bytes
}

#[test]
fn a_reply_with_three_attachments_arrives_inside_over_tls() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut scene = scene(dir.path(), "", Manner::default());
    let form = scene.reader.get(&format!("{}/reply", scene.page)).text();
    assert!(form.contains("value=\"doctor@example.org\"") && form.contains("Re: Your appointment"));
    let contents = [bytes(2_000_000, "MARKER-ONE"), bytes(77, "MARKER-TWO"), Vec::new()];
    let names = ["scan 1.pdf", "Befund Grün.txt", "empty.bin"];
    let mut files: Vec<File<'_>> =
        names.iter().zip(&contents).map(|(name, bytes)| File::of(name, bytes)).collect();
    let fields = [
        ("to", "somebody@evil.test"),
        ("subject", "Re: Your appointment"),
        ("body", "I will come. MARKER-TEXT"),
        ("priority", "high"),
    ];
    let sent = scene.reader.upload(&format!("{}/reply", scene.page), &fields, &mut files);
    assert_eq!(sent.status, 303, "{}", sent.text());
    let copy = sent.location();

    let mail = scene.mail_inside(1);
    assert!(mail.over_tls);
    assert_eq!(
        (mail.from.as_str(), mail.to.as_slice()),
        (PATH, &["<doctor@example.org>".to_owned()][..])
    );
    let message = parse(&mail.content);
    let address = |list: Option<&mail_parser::Address<'_>>| {
        list.and_then(|l| l.first()).and_then(|a| a.address()).map(str::to_owned)
    };
    assert_eq!(address(message.from()).as_deref(), Some(ADA));
    assert_eq!(address(message.reply_to()).as_deref(), Some(ADA));
    assert_eq!(address(message.sender()).as_deref(), Some("secure@example.org"));
    assert_eq!(message.in_reply_to().as_text(), Some("first@example.org"));
    assert_eq!(message.references().as_text(), Some("first@example.org"));
    assert_eq!(message.header("Importance").and_then(|v| v.as_text()), Some("high"));
    assert_eq!(message.body_text(0).as_deref(), Some("I will come. MARKER-TEXT\r\n"));
    let parts: Vec<_> = message.attachments().collect();
    assert_eq!(parts.len(), 3);
    for ((part, name), content) in parts.iter().zip(names).zip(&contents) {
        assert_eq!(part.attachment_name(), Some(name));
        assert!(part.contents() == content, "{name}");
    }

    scene.tells(&copy, "delivered");
    scene.tells("/sent", "delivered");
    let mut own = Vec::new();
    scene.reader.download(&format!("{copy}/attachments/1"), &mut own);
    assert!(own == contents[0], "the copy in Sent has it too");
    scene.house.gateway.stop();
    no_marker_in(&dir.path().join("gateway/data"));
}

#[test]
fn an_upload_goes_on_where_its_connection_broke() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut scene = scene(dir.path(), "", Manner::default());
    let content = bytes(3_000_000, "MARKER-ONE");
    let size = content.len() as u64;
    let text = size.to_string();
    let fields = [("name", "scan 1.pdf"), ("type", "application/pdf"), ("size", text.as_str())];
    let begun = scene.reader.post("/uploads", &fields);
    assert_eq!(begun.status, 201, "{}", begun.text());
    let told = |page: &crate::support::http::Page| -> serde_json::Value {
        serde_json::from_slice(&page.body).expect("JSON")
    };
    let id = told(&begun)["id"].as_str().expect("an id").to_owned();
    let path = format!("/uploads/{id}");
    let mut offset = 0;
    for broken_after in [1_200_000, 1_000_000] {
        let rest = &content[offset..];
        let none = scene.reader.stretch(
            &format!("{path}?offset={offset}"),
            &rest[..broken_after],
            rest.len() as u64,
        );
        assert!(none.is_none(), "the connection broke");
        // What was sent has come; the next stretch begins there.
        let came = offset + broken_after;
        wait_for("what came of it", || {
            let status = scene.reader.get(&path);
            (status.status == 200 && told(&status)["offset"] == came).then_some(())
        });
        offset = came;
    }
    let rest = &content[offset..];
    let whole = scene.reader.stretch(&format!("{path}?offset={offset}"), rest, rest.len() as u64);
    assert_eq!(told(&whole.expect("an answer"))["offset"], size);
    no_marker_in(&dir.path().join("gateway/data"));

    let fields = [("to", ""), ("body", "The scan."), ("upload", id.as_str())];
    let sent = scene.reader.upload(&format!("{}/reply", scene.page), &fields, &mut []);
    assert_eq!(sent.status, 303, "{}", sent.text());
    let mail = scene.mail_inside(1);
    let message = parse(&mail.content);
    let part = message.attachments().next().expect("an attachment");
    assert_eq!(part.attachment_name(), Some("scan 1.pdf"));
    assert!(part.contents() == content);
    assert_eq!(scene.reader.get(&path).status, 404);
    let messages = files_in(&dir.path().join("gateway/data/body/msg"));
    assert_eq!(messages.len(), 1, "the letter alone: {messages:?}");
    scene.house.gateway.stop();
    no_marker_in(&dir.path().join("gateway/data"));
}

fn files_in(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).expect("folder").map(|entry| entry.expect("entry").path());
    entries.flat_map(|path| if path.is_dir() { files_in(&path) } else { vec![path] }).collect()
}

fn no_marker_in(folder: &Path) {
    for entry in fs::read_dir(folder).expect("folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            no_marker_in(&path);
        } else {
            let bytes = fs::read(&path).unwrap_or_default();
            let found = ["MARKER-", "TUFSS0VS"]
                .iter()
                .any(|m| memchr::memmem::find(&bytes, m.as_bytes()).is_some());
            assert!(!found, "{} holds what was written", path.display());
        }
    }
}

#[test]
fn a_message_is_forwarded_inside_and_not_outside() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut scene = scene(dir.path(), "", Manner::default());
    let path = format!("{}/forward", scene.page);
    let outside = [("to", "friend@stranger.test"), ("subject", "Look"), ("body", "Kept text")];
    let refused = scene.reader.upload(&path, &outside, &mut [File::of("a.txt", b"a")]);
    assert_eq!(refused.status, 422);
    let page = refused.text();
    for kept in ["friend@stranger.test is not an address of", "Kept text", "value=\"Look\""] {
        assert!(page.contains(kept), "{kept}: {page}");
    }
    let inside =
        [("to", "nurse@example.org, team@example.org"), ("subject", "Look"), ("body", "See")];
    let sent = scene.reader.upload(&path, &inside, &mut []);
    assert_eq!(sent.status, 303, "{}", sent.text());
    let mail = scene.mail_inside(1);
    assert!(mail.over_tls);
    assert_eq!(mail.to, ["<nurse@example.org>", "<team@example.org>"]);
    let message = parse(&mail.content);
    let part = message.attachments().next().expect("the original");
    assert_eq!(part.message().expect("a message").raw_message(), MESSAGE.as_bytes());
}

#[test]
fn who_cannot_be_reached_is_told_of_in_sent_and_by_mail() {
    let dir = tempfile::tempdir().expect("temp dir");
    let rcpt = Some("550 5.1.1 no such user".to_owned());
    let mut scene = scene(dir.path(), "", Manner { rcpt, ..Manner::default() });
    let before = scene.house.stranger.messages().len();
    let sent =
        scene.reader.upload(&format!("{}/reply", scene.page), &[("body", "PRIVATE")], &mut []);
    assert_eq!(sent.status, 303, "{}", sent.text());
    scene.tells(&sent.location(), "could not be delivered");
    scene.tells("/sent", "could not be delivered");
    let report = scene.house.mail_to_stranger(before + 1);
    let text = String::from_utf8_lossy(&report.content).into_owned();
    assert!(report.from == "<>" && text.contains("multipart/report"), "{text}");
    assert!(!text.contains("PRIVATE") && !text.contains("Your appointment"), "{text}");
}

#[test]
fn what_is_too_large_is_said_and_not_sent() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut scene = scene(dir.path(), "max_reply_size = \"1 MiB\"", Manner::default());
    let path = format!("{}/reply", scene.page);
    for size in [(1 << 20) + 1, 30 << 20] {
        let large = vec![b'x'; size];
        let fields = [("body", "Kept text")];
        let page = scene.reader.upload(&path, &fields, &mut [File::of("a.bin", &large)]);
        assert_eq!(page.status, 413, "{size}");
        assert!(page.text().contains("Kept text") && page.text().contains("too large"), "{size}");
    }
    let fits = vec![b'x'; 1_000_000];
    let page = scene.reader.upload(&path, &[("body", "x")], &mut [File::of("a.bin", &fits)]);
    assert_eq!(page.status, 303, "{}", page.text());
    assert_eq!(scene.mail_inside(1).to, ["<doctor@example.org>"], "this one, and no other");
    assert_eq!(scene.inside.messages().len(), 1);
}

/// Bytes that tell their place, made while they are read; or compared while they are written.
pub struct Pattern {
    at: u64,
    size: u64,
}

impl Pattern {
    pub const fn of(size: u64) -> Self {
        Self { at: 0, size }
    }

    /// All of it was read or compared.
    pub const fn is_whole(&self) -> bool {
        self.at == self.size
    }
}

const fn byte_at(at: u64) -> u8 {
    (at ^ (at >> 8) ^ (at >> 19)).to_le_bytes()[0]
}

impl Read for Pattern {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size - self.at).unwrap_or(usize::MAX);
        let length = left.min(out.len());
        for byte in &mut out[..length] {
            *byte = byte_at(self.at);
            self.at += 1;
        }
        Ok(length)
    }
}

impl Write for Pattern {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for &byte in bytes {
            if byte != byte_at(self.at) {
                return Err(io::Error::other(format!("wrong byte at {}", self.at)));
            }
            self.at += 1;
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `RESTANTE_UPLOAD_MB` sets another size: 1000 for a gigabyte (with a release build in `RESTANTE_BIN`:
/// unoptimised it takes its time).
#[test]
fn a_large_upload_is_sent_and_kept_in_flat_memory() {
    let dir = tempfile::tempdir().expect("temp dir");
    let set = std::env::var_os("RESTANTE_UPLOAD_MB");
    let set = set.and_then(|text| text.to_str()?.parse::<u64>().ok());
    let size = set.unwrap_or(120) * 1_000_000;
    let manner = Manner { count_only: true, ..Manner::default() };
    let mut scene = scene(dir.path(), "max_reply_size = \"2 GiB\"", manner);
    let before = scene.house.gateway.peak_memory();
    let content = Box::new(Pattern::of(size));
    let mut files = [File { name: "scan.bin", content, size }, File::of("small.txt", b"small")];
    let path = format!("{}/reply", scene.page);
    let sent = scene.reader.upload(&path, &[("body", "The scan.")], &mut files);
    assert_eq!(sent.status, 303, "{}", sent.text());
    let mail =
        wait_minutes(10 + size / 50_000_000, "the scan inside", || scene.inside.messages().pop());
    let encoded = size / 57 * 78;
    assert!(mail.over_tls && (encoded..encoded + 5000).contains(&mail.size), "{}", mail.size);
    let mut compare = Pattern::of(size);
    let copy = format!("{}/attachments/1", sent.location());
    assert_eq!(scene.reader.download(&copy, &mut compare).status, 200);
    assert!(compare.is_whole());
    let peak = scene.house.gateway.peak_memory();
    println!("peak memory {} MiB, {} before", peak / 1024, before / 1024);
    assert!(peak < 100 * 1024, "peak memory {peak} KiB");
}
