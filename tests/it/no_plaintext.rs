//! No plaintext of a message is ever on disk, in a log, in a notice, or on a stranger's wire.

use crate::support::{
    house::{House, PARTNER_FILE, link_in},
    http::Visitor,
    sink::{Manner, Sink},
    smtp, wait_for,
};
use data_encoding::BASE64;
use std::{fs, path::Path};

const SUBJECT: &str = "zephyrsubjectmarker";
const BODY: &str = "quagmirebodymarker";
const ATTACHMENT: &str = "obsidianattachmentmarker";
const NAME: &str = "marigoldnamemarker";
const MARKERS: [&str; 4] = [SUBJECT, BODY, ATTACHMENT, NAME];

fn message() -> Vec<u8> {
    // Padding makes the body longer than one frame, and the attachment longer than a segment record
    // may be.
    let padding = "padding padding padding padding padding padding padding\r\n".repeat(8000);
    let attachment = BASE64.encode(format!("{ATTACHMENT}{}", "x".repeat(300_000)).as_bytes());
    let lines: Vec<_> = attachment.as_bytes().chunks(76).map(String::from_utf8_lossy).collect();
    format!(
        "From: Doctor <doctor@example.org>\r\nSubject: {SUBJECT}\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=b\r\n\r\n\
         --b\r\nContent-Type: text/plain\r\n\r\n{BODY}\r\n{padding}\
         --b\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\
         Content-Disposition: attachment; filename=\"{NAME}.pdf\"\r\n\r\n{}\r\n--b--\r\n",
        lines.join("\r\n")
    )
    .into_bytes()
}

/// The forms in which a marker could lie about: itself, and its base64 at each of the three
/// alignments.
fn forms(marker: &str) -> Vec<Vec<u8>> {
    let mut forms = vec![marker.as_bytes().to_vec(), quoted(marker)];
    for shift in 0..3 {
        let shifted = BASE64.encode(format!("{}{marker}", "-".repeat(shift)).as_bytes());
        // What depends on the neighbours is cut off at both ends.
        let inner = &shifted[4..shifted.len() - 4];
        forms.push(inner.as_bytes().to_vec());
    }
    forms
}

/// Every character in quoted-printable.
fn quoted(marker: &str) -> Vec<u8> {
    marker.bytes().map(|b| format!("={b:02X}")).collect::<String>().into_bytes()
}

fn assert_absent(markers: &[&str], place: &str, bytes: &[u8]) {
    for marker in markers {
        for form in forms(marker) {
            let found = memchr::memmem::find(bytes, &form);
            assert!(found.is_none(), "{marker} lies in {place} at {found:?}");
        }
    }
}

fn assert_absent_below(markers: &[&str], dir: &Path) -> usize {
    let mut files = 0;
    for entry in fs::read_dir(dir).expect("folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            files += assert_absent_below(markers, &path);
        } else if path.is_file() {
            // A file may go while we look: then it holds nothing.
            let bytes = fs::read(&path).unwrap_or_default();
            assert_absent(markers, &path.display().to_string(), &bytes);
            files += 1;
        }
    }
    files
}

#[test]
fn markers_planted_in_a_message_are_nowhere_but_at_the_reader_and_the_partner() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[PARTNER_FILE], |s| {
        s.delivery = "retry = [\"1s\"]".to_owned();
    });
    let everything = dir.path().join("gateway");
    let small: Vec<u8> = format!(
        "From: doctor@example.org\r\nSubject: {SUBJECT}\r\n\r\n{BODY} small {ATTACHMENT} {NAME}\r\n"
    )
    .into_bytes();

    // Queued: the partner's host is down, so its mail waits.
    let id =
        smtp::send(house.gateway.smtp, "doctor@example.org", &["nurse@partner.test"], &message());
    smtp::send(house.gateway.smtp, "doctor@example.org", &["nurse@partner.test"], &small);
    wait_for("a deferred recipient", || {
        let life = house.gateway.json(&["trace", &id]);
        (life["recipients"][0]["outcome"] == "deferred").then_some(())
    });
    assert!(assert_absent_below(&MARKERS, &everything) > 3);

    // Sealed: the stranger gets a notice each.
    for message in [&message(), &small] {
        smtp::send(house.gateway.smtp, "doctor@example.org", &["ada@stranger.test"], message);
    }
    let notice = house.mail_to_stranger(1);
    house.mail_to_stranger(2);
    assert_absent_below(&MARKERS, &everything);

    // Read: at the portal, in every way that there is.
    let mut reader = Visitor::new(house.gateway.portal);
    let path = house.register(&mut reader, &notice, "a long enough password");
    let page = reader.get(&path).text();
    assert!(page.contains(SUBJECT) && page.contains(BODY), "the reader reads it");
    reader.get("/inbox");
    reader.get(&format!("{path}/original.eml"));
    reader.get(&format!("{path}/attachments.zip"));

    // Delivered: the partner's host comes up, with a certificate that proves it.
    let leaf = house.pki.leaf("mx.partner.test");
    let manner = Manner { tls: Some(leaf), ..Manner::default() };
    let partner = Sink::start(house.partner_address(), manner);
    wait_for("both at the partner's", || (partner.messages().len() == 2).then_some(()));
    assert!(partner.messages().iter().all(|m| m.over_tls));
    assert!(memchr::memmem::find(&partner.bytes(), BODY.as_bytes()).is_some());

    assert_absent_below(&MARKERS, &everything);
    assert_absent(&MARKERS, "the log", house.gateway.log_text().as_bytes());
    assert_absent(&MARKERS, "the stranger's server", &house.stranger.bytes());
    assert_absent(&MARKERS, "the inside host", &house.inside.bytes());
}

/// The store and the log see hashes of tokens and passwords only.
#[test]
fn link_tokens_passwords_and_cookies_are_kept_as_hashes_only() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[], |_| {});
    smtp::send(
        house.gateway.smtp,
        "a@example.org",
        &["ada@stranger.test"],
        b"Subject: x\r\n\r\nx\r\n",
    );
    let notice = house.mail_to_stranger(1);
    let token = link_in(&notice.content).replace("/m/", "");
    let password = "wisteria granite lantern";
    let mut reader = Visitor::new(house.gateway.portal);
    house.register(&mut reader, &notice, password);
    let cookie = reader.cookie("session").expect("signed in");
    let secrets = [token.as_str(), password, cookie.as_str()];
    assert!(assert_absent_below(&secrets, &dir.path().join("gateway")) > 3);
    assert_absent(&secrets, "the log", house.gateway.log_text().as_bytes());
}
