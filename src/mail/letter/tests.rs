//! Letters read back by another reader than the one that wrote them.
use super::*;
use crate::mail::header::Fields;
use data_encoding::BASE64;
use mail_parser::{MessageParser, MimeHeaders};
use proptest::prelude::*;

const ID: &str = "c0ffee";

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

/// A letter with these words typed by its author.
fn with<T>(subject: &str, name: &str, make: impl FnOnce(&Letter<'_>) -> T) -> T {
    let (author, sender) = (address("ada@stranger.test"), address("secure@example.org"));
    let to = [address("doctor@example.org"), address("nurse@example.org")];
    let references = ["<first@example.org>".to_owned(), "<last@example.org>".to_owned()];
    make(&Letter {
        author: &author,
        name,
        sender: &sender,
        to: &to[..1],
        cc: &to[1..],
        subject,
        priority: Priority::High,
        references: &references,
        at: "2026-11-22T10:00:00Z".parse().unwrap(),
        id: ID,
    })
}

/// RFC 5322 §2.1.1 and §2.3: lines of 998 characters at most, CR and LF together only.
fn assert_lines(message: &[u8]) {
    let text = String::from_utf8_lossy(message);
    for line in text.split("\r\n") {
        assert!(line.len() <= 998, "a line of {}", line.len());
        assert!(!line.contains(['\r', '\n', '\0']), "{line:?}");
    }
    assert!(text.ends_with("\r\n"));
}

#[test]
fn what_its_header_says() {
    let message = with("Grüße & Fragen", "Ada Reader", |letter| letter.plain("Hello\nthere\n\n"));
    assert_lines(&message);
    let fields = Fields::parse(&message);
    for (name, value) in [
        ("From", "\"Ada Reader\" <ada@stranger.test>"),
        ("Reply-To", "\"Ada Reader\" <ada@stranger.test>"),
        ("Sender", "<secure@example.org>"),
        ("To", "<doctor@example.org>"),
        ("Cc", "<nurse@example.org>"),
        ("Subject", "Grüße & Fragen"),
        ("Message-ID", "<c0ffee@example.org>"),
        ("In-Reply-To", "<last@example.org>"),
        ("References", "<first@example.org> <last@example.org>"),
        ("Importance", "high"),
        ("X-Priority", "1 (Highest)"),
        ("Date", "Sun, 22 Nov 2026 10:00:00 +0000"),
    ] {
        let read = fields.all(name).join("|");
        assert_eq!(read.replace("\"", ""), value.replace("\"", ""), "{name}");
    }
    let parsed = MessageParser::new().parse(&*message).unwrap();
    assert_eq!(parsed.body_text(0).unwrap(), "Hello\r\nthere\r\n");
}

#[test]
fn files_come_out_as_they_went_in() {
    let bytes: Vec<u8> =
        (0..100_003_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let names = [
        "scan.pdf",
        "Jahresabschluß \"2024\".pdf",
        "../../etc/passwd",
        "C:\\x\\y.txt",
        "..",
        "a\r\nX: y",
    ];
    let original = b"From: a@b\r\nSubject: \xc3\xbc\r\n\r\nThe original\r\n";
    let message = with("s", "Ada", |letter| {
        let mut out = letter.open("See the files.");
        for name in names {
            out.push(&letter.file(name, "application/pdf"));
            let (mut lines, mut file) = (Base64Lines::default(), MailData::default());
            bytes.chunks(1000).for_each(|piece| lines.feed(piece, &mut file));
            lines.finish(&mut file);
            out.push(&file);
        }
        out.push(&letter.message("Original.eml"));
        out.push(original);
        out.push(&letter.end());
        out
    });
    assert_lines(&message);
    let parsed = MessageParser::new().parse(&*message).unwrap();
    assert_eq!(parsed.body_text(0).unwrap(), "See the files.\r\n");
    let files: Vec<_> = parsed.attachments().collect();
    let read: Vec<_> = files.iter().map(|part| part.attachment_name().unwrap()).collect();
    let expected =
        ["scan.pdf", names[1], "passwd", "y.txt", "attachment", "a X: y", "Original.eml"];
    assert_eq!(read, expected);
    assert!(files[..6].iter().all(|part| part.contents() == bytes));
    assert_eq!(files[6].message().unwrap().raw_message(), original);
}

#[test]
fn types_that_are_none_or_cannot_be_encoded_become_the_general_one() {
    for (kind, expected) in [
        ("image/PNG", "image/png"),
        ("text/plain; charset=utf-8", "text/plain"),
        ("multipart/mixed", "application/octet-stream"),
        ("message/partial", "application/octet-stream"),
        ("", "application/octet-stream"),
        ("a/b\r\nX: y", "application/octet-stream"),
        ("a/\"b\"", "application/octet-stream"),
    ] {
        assert_eq!(media_type(kind), expected, "{kind:?}");
    }
}

#[test]
fn subjects() {
    for (subject, reply, base) in [
        ("Your results", "Re: Your results", "your results"),
        ("Re: Your results", "Re: Your results", "your results"),
        ("AW: Re: Fwd: x", "AW: Re: Fwd: x", "x"),
        ("RE[2]: x", "RE[2]: x", "x"),
        ("Fwd: x", "Re: Fwd: x", "x"),
        ("Result: fine", "Re: Result: fine", "result: fine"),
        ("", "Re: ", ""),
        ("re:", "re:", ""),
    ] {
        assert_eq!(
            (reply_subject(subject), base_subject(subject)),
            (reply.to_owned(), base.to_owned())
        );
    }
    assert_eq!(quoted("a\n> b\n\n"), "> a\n>> b\n");
}

proptest! {
    #[test]
    fn nothing_typed_makes_a_field(subject in "(?s:.{0,400})", name in "(?s:.{0,200})", text in "(?s:.{0,2000})", file in "(?s:.{0,300})") {
        let (plain, mixed) = with(&subject, &name, |letter| {
            let mut mixed = letter.open(&text);
            mixed.push(&letter.file(&file, &subject));
            mixed.push(&letter.end());
            (letter.plain(&text), mixed)
        });
        assert_lines(&plain);
        assert_lines(&mixed);
        prop_assert_eq!(Fields::parse(&plain).iter().count(), 15);
        prop_assert_eq!(Fields::parse(&mixed).iter().count(), 15);
        let parsed = MessageParser::new().parse(&*mixed).unwrap();
        prop_assert_eq!(parsed.attachments().count(), 1);
    }
    #[test]
    fn pieces_do_not_matter(bytes in prop::collection::vec(any::<u8>(), 0..400), cuts in prop::collection::vec(0usize..90, 0..9)) {
        let mut out = MailData::default();
        let mut lines = Base64Lines::default();
        let mut rest = bytes.as_slice();
        for cut in cuts {
            let (piece, tail) = rest.split_at(cut.min(rest.len()));
            lines.feed(piece, &mut out);
            rest = tail;
        }
        lines.feed(rest, &mut out);
        lines.finish(&mut out);
        let text = String::from_utf8(out.into()).unwrap();
        prop_assert!(text.lines().all(|line| line.len() <= 76));
        prop_assert_eq!(BASE64.decode(text.replace("\r\n", "").as_bytes()).unwrap(), bytes);
    }
}
