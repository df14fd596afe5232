use super::*;
use PartRole::{Attachment, Container, Html, Text};
use proptest::prelude::*;

fn index(message: &[u8]) -> PartIndex {
    indexed(message, usize::MAX)
}
fn indexed(message: &[u8], portion: usize) -> PartIndex {
    let mut indexer = Indexer::default();
    message.chunks(portion).for_each(|chunk| indexer.feed(chunk));
    indexer.finish()
}
fn slice<'a>(message: &'a [u8], range: &Range<u64>) -> &'a [u8] {
    &message[range.start as usize..range.end as usize]
}
fn decoded(message: &[u8], part: &Part, portion: usize) -> Vec<u8> {
    let mut decoder = Decoder::new(part.encoding);
    let mut out = Vec::new();
    slice(message, &part.body).chunks(portion).for_each(|chunk| decoder.feed(chunk, &mut out));
    decoder.finish(&mut out);
    out
}
/// `depth role type body` of each part.
fn outline(message: &str) -> Vec<(u8, PartRole, String, String)> {
    let whole = index(message.as_bytes());
    for portion in [1, 2, 3, 11] {
        assert_eq!(indexed(message.as_bytes(), portion), whole, "portions of {portion}: {message}");
    }
    let text = |r: &Range<u64>| String::from_utf8(slice(message.as_bytes(), r).to_vec()).unwrap();
    whole.parts.iter().map(|p| (p.depth, p.role, p.content_type.clone(), text(&p.body))).collect()
}
fn expect(message: &str, parts: &[(u8, PartRole, &str, &str)]) {
    let got = outline(message);
    let got: Vec<_> = got.iter().map(|(d, r, t, b)| (*d, *r, t.as_str(), b.as_str())).collect();
    // A container's body is its parts with their delimiters: checked by theirs.
    let got: Vec<_> =
        got.into_iter().map(|p| if p.1 == Container { (p.0, p.1, p.2, "") } else { p }).collect();
    assert_eq!(got, parts, "{message}");
}

const MIXED: &str = "From: a@b\r\nContent-Type: multipart/mixed;\r\n boundary=\"=_x y\"\r\n\r\npreamble\r\n--=_x y\r\n\
    Content-Type: multipart/alternative; boundary=alt\r\n\r\n--alt\r\n\r\nplain\r\n--alt \t\r\n\
    Content-Type: text/html; charset=utf-8\r\n\r\n<p>\r\n\r\n--alt--\r\nepilogue\r\n--=_x y\r\n\
    Content-Type: application/pdf; name=a.pdf\r\nContent-Transfer-Encoding: BASE64\r\n\
    Content-Disposition: attachment\r\n\r\nAAEC\r\n/w==\r\n--=_x y--\r\nend\r\n";

#[test]
fn a_usual_message() {
    expect(
        MIXED,
        &[
            (0, Container, "multipart/mixed", ""),
            (1, Container, "multipart/alternative", ""),
            (2, Text, "text/plain", "plain"),
            (2, Html, "text/html", "<p>\r\n"),
            (1, Attachment, "application/pdf", "AAEC\r\n/w=="),
        ],
    );
    let whole = index(MIXED.as_bytes());
    assert!(!whole.truncated);
    assert_eq!(
        slice(MIXED.as_bytes(), &whole.header()).split(|b| *b == b'\n').count(),
        4,
        "no empty line"
    );
    assert_eq!(whole.text().unwrap().charset, None);
    assert_eq!(whole.html().unwrap().charset.as_deref(), Some("utf-8"));
    let pdf = whole.attachments().next().unwrap();
    assert_eq!(pdf.name.as_deref(), Some("a.pdf"));
    assert_eq!(decoded(MIXED.as_bytes(), pdf, 1), [0, 1, 2, 255]);
    let root = &whole.parts[0];
    assert_eq!(root.body.end as usize, MIXED.len());
    assert!(slice(MIXED.as_bytes(), &whole.parts[1].body).ends_with(b"--alt--\r\nepilogue"));
}

#[test]
fn not_multipart() {
    expect("Subject: a\r\n\r\nb\r\n", &[(0, Text, "text/plain", "b\r\n")]);
    expect("Content-Type: TEXT/HTML\r\n\r\nb", &[(0, Html, "text/html", "b")]);
    expect("Content-Type: image/png\r\n\r\nb", &[(0, Attachment, "image/png", "b")]);
    expect(
        "Content-Type: text/plain\r\nContent-Disposition: attachment\r\n\r\nb",
        &[(0, Attachment, "text/plain", "b")],
    );
    expect("Content-Type: text\r\n\r\nb", &[(0, Text, "text/plain", "b")]);
    expect("Content-Type: no type\r\n\r\nb", &[(0, Attachment, "application/octet-stream", "b")]);
}

#[test]
fn cut_and_malformed() {
    let multipart = "Content-Type: multipart/mixed; boundary=b\r\n\r\n";
    expect("", &[(0, Text, "text/plain", "")]);
    expect("\r\n", &[(0, Text, "text/plain", "")]);
    expect("Subject: a", &[(0, Text, "text/plain", "")]);
    expect("Subject: a\r\n", &[(0, Text, "text/plain", "")]);
    expect("no header\r\nat: all\r\n", &[(0, Text, "text/plain", "no header\r\nat: all\r\n")]);
    expect("From me Sun Nov 22\r\nSubject: a\r\n\r\nb", &[(0, Text, "text/plain", "b")]);
    let root = (0, Container, "multipart/mixed", "");
    for (rest, parts, why) in [
        ("--b\r\n\r\nx", vec![root, (1, Text, "text/plain", "x")], "no close"),
        (
            "--b\r\n\r\nx\r\n--b--",
            vec![root, (1, Text, "text/plain", "x")],
            "no line end behind the close",
        ),
        ("--b\r\n\r\n--b--\r\n", vec![root, (1, Text, "text/plain", "")], "empty body"),
        ("--b\r\n--b--\r\n", vec![root, (1, Text, "text/plain", "")], "nothing at all"),
        ("--b\r\nX: y\r\n--b--\r\n", vec![root, (1, Text, "text/plain", "")], "header alone"),
        (
            "--b\r\nX: y\r\nno field\r\n--b--\r\n",
            vec![root, (1, Text, "text/plain", "no field")],
            "no empty line",
        ),
        ("--b\n\nx\n--b--\n", vec![root, (1, Text, "text/plain", "x")], "bare LF"),
        (
            "--b\r\n\r\nx\r\n--bb\r\n--c\r\n -- b\r\n--b--\r\n",
            vec![root, (1, Text, "text/plain", "x\r\n--bb\r\n--c\r\n -- b")],
            "not the boundary",
        ),
        (
            "--b\r\n\r\nx\r\n--b--\r\n--b\r\n\r\ny",
            vec![root, (1, Text, "text/plain", "x")],
            "behind the close",
        ),
        ("--b", vec![root, (1, Text, "text/plain", "")], "cut in the delimiter line"),
    ] {
        println!("{why}");
        expect(&format!("{multipart}{rest}"), &parts);
    }
    expect(&format!("{multipart}never"), &[(0, Attachment, "multipart/mixed", "never")]);
    expect(
        "Content-Type: multipart/mixed\r\n\r\n--b\r\n\r\nx",
        &[(0, Attachment, "multipart/mixed", "--b\r\n\r\nx")],
    );
    expect(
        "Content-Type: multipart/mixed; boundary=b\r\n--b\r\n\r\nx",
        &[root, (1, Text, "text/plain", "x")],
    );
}

#[test]
fn nested_boundaries_that_begin_alike() {
    for (outer, inner) in [("a", "ab"), ("ab", "a"), ("a", "a--")] {
        let message = format!(
            "Content-Type: multipart/mixed; boundary={outer}\r\n\r\n--{outer}\r\nContent-Type: multipart/mixed; \
             boundary={inner}\r\n\r\n--{inner}\r\n\r\none\r\n--{inner}\r\n\r\ntwo\r\n--{inner}--\r\n--{outer}\r\n\r\nthree\r\n--{outer}--\r\n"
        );
        expect(
            &message,
            &[
                (0, Container, "multipart/mixed", ""),
                (1, Container, "multipart/mixed", ""),
                (2, Text, "text/plain", "one"),
                (2, Attachment, "text/plain", "two"),
                (1, Attachment, "text/plain", "three"),
            ],
        );
    }
}

#[test]
fn an_outer_delimiter_ends_what_is_inside() {
    expect(
        "Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: multipart/mixed; boundary=i\r\n\r\n--i\r\n\r\none\r\n--o\r\n\r\ntwo\r\n--o--",
        &[
            (0, Container, "multipart/mixed", ""),
            (1, Container, "multipart/mixed", ""),
            (2, Text, "text/plain", "one"),
            (1, Attachment, "text/plain", "two"),
        ],
    );
}

#[test]
fn messages_inside_are_attachments() {
    expect(
        "Content-Type: multipart/digest; boundary=o\r\n\r\n--o\r\n\r\nSubject: a\r\n\r\none\r\n--o\r\nContent-Type: message/rfc822\r\n\r\n\
         Content-Type: multipart/mixed; boundary=i\r\n\r\n--i\r\n\r\ntwo\r\n--i--\r\n--o--",
        &[
            (0, Container, "multipart/digest", ""),
            (1, Attachment, "message/rfc822", "Subject: a\r\n\r\none"),
            (
                1,
                Attachment,
                "message/rfc822",
                "Content-Type: multipart/mixed; boundary=i\r\n\r\n--i\r\n\r\ntwo\r\n--i--",
            ),
        ],
    );
}

#[test]
fn alternatives_beyond_text_are_attachments() {
    expect(
        "Content-Type: multipart/alternative; boundary=o\r\n\r\n--o\r\n\r\nhi\r\n--o\r\nContent-Type: text/calendar\r\n\r\nBEGIN\r\n--o--",
        &[
            (0, Container, "multipart/alternative", ""),
            (1, Text, "text/plain", "hi"),
            (1, Attachment, "text/calendar", "BEGIN"),
        ],
    );
}

#[test]
fn names() {
    for (fields, name, why) in [
        ("Content-Disposition: attachment; filename=\"a;b.txt\"", Some("a;b.txt"), "quoted"),
        (
            "Content-Disposition: attachment; filename=a b.txt ; size=3",
            Some("a b.txt"),
            "a space without quotes",
        ),
        (
            "Content-Disposition: attachment;\r\n\tfilename=\"a\\\"b.txt\"",
            Some("a\"b.txt"),
            "quoted pair",
        ),
        ("Content-Type: image/png; NAME=x.png", Some("x.png"), "Content-Type"),
        (
            "Content-Type: image/png; name=y.png\r\nContent-Disposition: inline; filename=x.png",
            Some("x.png"),
            "disposition first",
        ),
        (
            "Content-Disposition: attachment; filename*=UTF-8'de'Gr%C3%BC%C3%9Fe.txt; filename=no",
            Some("Gr\u{fc}\u{df}e.txt"),
            "RFC 2231",
        ),
        (
            "Content-Disposition: attachment; filename*=iso-8859-1''%FC.txt",
            Some("\u{fc}.txt"),
            "charset",
        ),
        (
            "Content-Disposition: attachment; filename*0*=UTF-8''a%20; filename*2=\".txt\"; filename*1=\"b%20\"",
            Some("a b%20.txt"),
            "continuations",
        ),
        (
            "Content-Disposition: attachment; filename*0=\"long\"; filename*1=er.txt",
            Some("longer.txt"),
            "plain continuations",
        ),
    ] {
        let whole = index(format!("{fields}\r\n\r\nx").as_bytes());
        assert_eq!(whole.parts[0].name.as_deref(), name, "{why}");
    }
}

#[test]
fn names_are_made_safe() {
    for (fields, name, why) in [
        (
            "Content-Disposition: attachment; filename=\"=?utf-8?B?w7wudHh0?=\"",
            Some("\u{fc}.txt"),
            "RFC 2047",
        ),
        (
            "Content-Disposition: attachment; filename=\"\u{fc}.txt\"",
            Some("\u{fc}.txt"),
            "raw UTF-8",
        ),
        (
            "Content-Disposition: attachment; filename=\"../../etc/pass\\\\wd\"",
            Some("....etcpasswd"),
            "separators",
        ),
        (
            "Content-Disposition: attachment; filename*=UTF-8''a%0D%0Ab%00%E2%80%AEgpj.exe",
            Some("abgpj.exe"),
            "controls and reordering",
        ),
        ("Content-Disposition: attachment; filename=\"..\"", None, "dots alone"),
        ("Content-Disposition: attachment; filename=\"\"", None, "empty"),
        ("Content-Disposition: attachment; filename*=%zz'", Some("%zz'"), "malformed"),
        ("Content-Disposition: attachment; filename", None, "no value"),
    ] {
        let whole = index(format!("{fields}\r\n\r\nx").as_bytes());
        assert_eq!(whole.parts[0].name.as_deref(), name, "{why}");
    }
    let long = format!("Content-Type: a/b; name={}\r\n\r\n", "\u{fc}".repeat(300));
    assert_eq!(index(long.as_bytes()).parts[0].name.as_ref().unwrap().chars().count(), 255);
}

#[test]
fn other_fields() {
    let part = |fields: &str| index(format!("{fields}\r\n\r\nx").as_bytes()).parts.remove(0);
    assert_eq!(part("Content-ID: <a@b>").content_id.as_deref(), Some("a@b"));
    assert_eq!(part("Content-ID: <a b>").content_id, None);
    assert_eq!(
        part("Content-Type: text/plain; charset=us-ascii (plain)").charset.as_deref(),
        Some("us-ascii")
    );
    assert_eq!(
        part("Content-Type: text/plain (a comment); charset=\"x\"").content_type,
        "text/plain"
    );
    assert_eq!(
        part("Content-Transfer-Encoding: Quoted-Printable (x)").encoding,
        TransferEncoding::QuotedPrintable
    );
    assert_eq!(part("Content-Transfer-Encoding: x-uuencode").encoding, TransferEncoding::Identity);
    assert_eq!(part("Content-Disposition: unheard-of").role, Attachment);
}

#[test]
fn bounds() {
    let head = "Content-Type: multipart/mixed; boundary=b\r\n\r\n";
    let many = format!("{head}{}--b--\r\n", "--b\r\n\r\nx\r\n".repeat(3000));
    let whole = index(many.as_bytes());
    assert!(whole.truncated && whole.parts.len() == Indexer::MAX_PARTS);
    let last = whole.parts.last().unwrap();
    assert_eq!(slice(many.as_bytes(), &last.body), b"x", "the last one indexed ends where it ends");

    let deep: String = (0..100)
        .map(|n| format!("Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n"))
        .collect();
    let whole = index(deep.as_bytes());
    assert!(whole.truncated);
    let last = whole.parts.last().unwrap();
    assert_eq!((last.depth, last.role), (Indexer::MAX_DEPTH, Attachment));
    assert_eq!(last.body.end as usize, deep.len(), "what lies deeper is inside it");

    let mut indexer = Indexer::default();
    (0..5_000).for_each(|_| indexer.feed(&[b'x'; 1000]));
    indexer.feed(b": a\r\nX: ");
    (0..5_000).for_each(|_| {
        indexer.feed(b"X: y\r\n yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n")
    });
    let held = indexer.line.capacity() + indexer.header.as_ref().map_or(0, Vec::capacity);
    assert!(held < 256 * 1024, "{held} bytes held");
}

#[test]
fn decoders() {
    use TransferEncoding::{Base64, Identity, QuotedPrintable};
    for (encoding, encoded, plain, why) in [
        (Identity, "a=3D\r\n", "a=3D\r\n", "as it is"),
        (Base64, "aGk=", "hi", "padded"),
        (Base64, "aGk", "hi", "padding missing"),
        (Base64, "aGVs\r\nbG8=\r\n", "hello", "over lines"),
        (Base64, "a G*k\u{e9}=", "hi", "what is not in the alphabet"),
        (Base64, "aGk=aGk=", "hihi", "two encodings"),
        (Base64, "aGka", "hi\u{1a}", "whole group"),
        (Base64, "a", "", "half a byte"),
        (Base64, "", "", "nothing"),
        (QuotedPrintable, "a=3D=c3=A9", "a=\u{e9}", "either case"),
        (QuotedPrintable, "a=\r\nb=\nc", "abc", "soft breaks"),
        (QuotedPrintable, "a= \t\r\nb", "ab", "soft break with white space behind it"),
        (QuotedPrintable, "a \t\r\nb  ", "a\r\nb", "trailing white space"),
        (QuotedPrintable, "a b=20\r\n", "a b \r\n", "encoded space stays"),
        (QuotedPrintable, "a=ZZ=4x==41", "a=ZZ=4x=A", "malformed stays"),
        (QuotedPrintable, "a= b", "a= b", "malformed with a space stays"),
        (QuotedPrintable, "a=", "a", "soft break at the end"),
        (QuotedPrintable, "a=4", "a=4", "cut"),
    ] {
        for portion in 1..4 {
            let mut decoder = Decoder::new(encoding);
            let mut out = Vec::new();
            encoded.as_bytes().chunks(portion).for_each(|chunk| decoder.feed(chunk, &mut out));
            decoder.finish(&mut out);
            assert_eq!(String::from_utf8_lossy(&out), plain, "{why}");
        }
    }
}

#[test]
fn charsets() {
    for (charset, bytes, text) in [
        (None, &b"\xc3\xbc"[..], "\u{fc}"),
        (Some("UTF-8"), b"\xc3\xbc\xff", "\u{fc}\u{fffd}"),
        (Some("iso-8859-1"), b"\xfc", "\u{fc}"),
        (Some("us-ascii"), b"\xc3\xbc", "\u{fc}"),
        (Some("Shift_JIS"), b"\x93\xfa", "\u{65e5}"),
        (Some("unheard-of"), b"a\xff", "a\u{fffd}"),
        (Some(""), b"a", "a"),
        (None, b"\xfc", "\u{fffd}"),
    ] {
        assert_eq!(decode_charset(charset, bytes), text, "{charset:?}");
    }
}

fn encode(bytes: &[u8], encoding: TransferEncoding) -> String {
    match encoding {
        TransferEncoding::Base64 => {
            let text = data_encoding::BASE64.encode(bytes);
            text.as_bytes()
                .chunks(76)
                .map(|l| format!("{}\r\n", std::str::from_utf8(l).unwrap()))
                .collect()
        }
        TransferEncoding::QuotedPrintable => {
            let hex: Vec<String> = bytes.iter().map(|b| format!("={b:02X}")).collect();
            hex.chunks(25).map(<[String]>::concat).collect::<Vec<_>>().join("=\r\n")
        }
        TransferEncoding::Identity => String::from_utf8_lossy(bytes).into_owned(),
    }
}

proptest! {
    #[test]
    fn portions_do_not_matter(
        text in "(Content-Type: multipart/mixed; boundary=b\r\n|Content-Type: multipart/digest; boundary=bb\r\n|\
            X: y\r\n|\r\n|\n|\r|--b|--bb|--| |z){0,24}",
        portion in 1usize..20,
    ) {
        let whole = index(text.as_bytes());
        prop_assert_eq!(&indexed(text.as_bytes(), portion), &whole);
        for part in &whole.parts {
            let (h, b) = (&part.header, &part.body);
            prop_assert!(h.start <= h.end && h.end <= b.start && b.start <= b.end && b.end as usize <= text.len());
        }
    }

    #[test]
    fn attachments_come_back_exactly(
        one: Vec<u8>, two in prop::collection::vec(any::<u8>(), 0..300), portion in 1usize..90, quoted: bool,
    ) {
        let encoding = if quoted { TransferEncoding::QuotedPrintable } else { TransferEncoding::Base64 };
        let label = if quoted { "quoted-printable" } else { "base64" };
        let parts: String = [&one, &two].iter().map(|bytes| format!(
            "--b\r\nContent-Type: a/b\r\nContent-Transfer-Encoding: {label}\r\n\r\n{}\r\n", encode(bytes, encoding)
        )).collect();
        let message = format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{parts}--b--\r\n");
        let whole = indexed(message.as_bytes(), portion);
        let back: Vec<_> = whole.attachments().map(|p| decoded(message.as_bytes(), p, portion)).collect();
        prop_assert_eq!(back, [one, two]);
    }

    #[test]
    fn any_bytes(bytes: Vec<u8>, fields in "Content-[A-Za-z-]{2,12}: (?s:.{0,60})\r\n") {
        let message = [fields.as_bytes(), b"\r\n", &bytes].concat();
        for part in index(&message).parts {
            decoded(&message, &part, 7);
        }
    }
}
