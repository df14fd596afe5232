//! A message with a 300 MB attachment through both paths, in bounded memory. The largest message that
//! can be configured has one of `RESTANTE_LARGE=1569300000` bytes.

use crate::support::{
    house::{House, PARTNER_FILE},
    http::Visitor,
    parameter,
    sink::{Manner, Sink},
    smtp, wait_minutes,
};
use std::io::{self, Read, Write};

/// Bytes of the attachment.
fn attachment() -> u64 {
    parameter("RESTANTE_LARGE", 300_000_000)
}

const HEAD: &[u8] = b"From: doctor@example.org\r\nSubject: A scan\r\nMIME-Version: 1.0\r\n\
    Content-Type: multipart/mixed; boundary=scan\r\n\r\n--scan\r\nContent-Type: text/plain\r\n\r\nSee the scan.\r\n\
    --scan\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\
    Content-Disposition: attachment; filename=scan.bin\r\n\r\n";
const TAIL: &[u8] = b"--scan--\r\n";
/// 57 bytes in base64: one line of 76 characters.
const LINE: &[u8] =
    b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4\r\n";
const LINE_BYTES: u64 = 57;

/// The message, made while it is read.
fn message() -> impl Read {
    let lines = attachment() / LINE_BYTES;
    let body = Repeat { left: lines, at: 0 };
    HEAD.chain(body).chain(TAIL)
}

struct Repeat {
    left: u64,
    at: usize,
}

impl Read for Repeat {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < out.len() && self.left > 0 {
            let n = (LINE.len() - self.at).min(out.len() - filled);
            out[filled..filled + n].copy_from_slice(&LINE[self.at..self.at + n]);
            filled += n;
            self.at += n;
            if self.at == LINE.len() {
                self.at = 0;
                self.left -= 1;
            }
        }
        Ok(filled)
    }
}

/// Counts a download and compares it with what was attached.
#[derive(Default)]
struct Compare {
    count: u64,
}

impl Write for Compare {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for &byte in bytes {
            if u64::from(byte) != self.count % LINE_BYTES {
                return Err(io::Error::other(format!("wrong byte at {}", self.count)));
            }
            self.count += 1;
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_300_mb_attachment_goes_both_ways_in_under_100_mib() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[PARTNER_FILE], |s| {
        s.smtp = "max_message_size = \"2 GiB\"".to_owned();
    });
    let leaf = house.pki.leaf("mx.partner.test");
    let manner = Manner { tls: Some(leaf), count_only: true, ..Manner::default() };
    let partner = Sink::start(house.partner_address(), manner);

    let to = ["nurse@partner.test", "ada@stranger.test"];
    smtp::stream(house.gateway.smtp, "doctor@example.org", &to, &mut message());

    let lines = attachment() / LINE_BYTES;
    let size = HEAD.len() as u64 + lines * LINE.len() as u64 + TAIL.len() as u64;
    // A slow machine takes its time for so much, unoptimised.
    let delivered = wait_minutes(15, "the scan at the partner's", || partner.messages().pop());
    let added = delivered.size - size;
    assert!(delivered.over_tls && (50..600).contains(&added), "one Received, not {added} bytes");

    let notice = house.mail_to_stranger(1);
    let mut reader = Visitor::new(house.gateway.portal);
    let path = house.register(&mut reader, &notice, "a long enough password");
    assert!(reader.get(&path).text().contains("See the scan."));
    let mut compare = Compare::default();
    let page = reader.download(&format!("{path}/attachments/1"), &mut compare);
    assert_eq!(page.status, 200);
    assert_eq!(compare.count, lines * LINE_BYTES);

    let peak = house.gateway.peak_memory();
    println!("a message of {size} bytes, peak memory {} MiB", peak / 1024);
    assert!(peak < 100 * 1024, "peak memory {peak} KiB");
}
