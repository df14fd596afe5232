//! Message content on the wire: found, unstuffed, checked (intake); stuffed (delivery).
//!
//! The end of DATA is CRLF `.` CRLF, byte by byte, and nothing like it (RFC 5321 §4.1.1.4, §4.5.2):
//! `LF . LF`, `LF . CRLF`, `CRLF . LF`, `CR . CR` and `CRLF . CR CR LF` are content. What else
//! differs between two servers' ideas of that end is a smuggled message.

use crate::mail::{MailData, data::LineEndRepair};
use memchr::memmem;

/// The longest piece of content that is given out at once.
pub const MAX_PIECE: usize = 64 * 1024;

/// The longest text line kept. RFC 5321 §4.5.3.1.6 guarantees 1000 octets and asks for no limit
/// where possible.
pub const MAX_TEXT_LINE: usize = 1024 * 1024;

/// The most that one byte of input can add to a piece: `.`, CRLF and itself.
const MARGIN: usize = 4;

/// Why content is refused. It is still read to its true end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A CR without LF (RFC 5321 §2.3.8).
    BareCr,
    /// A LF without CR (RFC 5321 §2.3.8).
    BareLf,
    /// A NUL (RFC 5321 §4.5.2 keeps to characters; RFC 5322 §2.2 has no NUL, BINARYMIME isn't
    /// offered).
    Nul,
    /// A line over [`MAX_TEXT_LINE`].
    LineTooLong,
    /// More than the limit announced by SIZE (RFC 1870 §6.1).
    TooBig,
}

/// How the end of content is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// DATA: dots are stuffed, a lone one ends (RFC 5321 §4.5.2).
    Dots,
    /// BDAT: octets are counted (RFC 3030 §2), a dot is a dot.
    Chunks,
}

/// What is done about bare CR and LF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineEnds {
    /// The content is refused.
    Strict,
    /// Each becomes CRLF, but never a part of the end of data.
    Repair,
}

/// Where in the text the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// After a true CRLF, or at the beginning.
    Start,
    /// After a line end that was repaired: dots are unstuffed, but can't end the data.
    RepairedStart,
    Text,
    /// After CR, which is not given out yet.
    Cr,
    /// After a dot that began a line.
    Dot,
    RepairedDot,
    DotCr,
    RepairedDotCr,
    /// Behind the end.
    End,
}

/// Reads content as it comes, in any pieces.
#[derive(Debug)]
pub(super) struct Framer {
    framing: Framing,
    ends: LineEnds,
    limit: u64,
    at: At,
    line: usize,
    total: u64,
    fault: Option<Fault>,
}

impl Framer {
    pub(super) fn new(framing: Framing, ends: LineEnds, limit: u64) -> Self {
        Self { framing, ends, limit, at: At::Start, line: 0, total: 0, fault: None }
    }

    /// Takes from `input` until its end, the content's end or a full piece; says how much it took.
    /// After a fault nothing is given out any more.
    pub(super) fn push(&mut self, input: &[u8], out: &mut MailData) -> usize {
        let mut rest = input;
        while self.at != At::End && out.len() + MARGIN <= MAX_PIECE {
            let room = MAX_PIECE - out.len();
            let run = if self.at == At::Text { run_length(rest).min(room) } else { 0 };
            if let Some((text, after)) = rest.split_at_checked(run).filter(|_| run > 0) {
                self.emit(text, out);
                rest = after;
            } else if let Some((&byte, after)) = rest.split_first() {
                self.at = self.step(byte, out);
                rest = after;
            } else {
                break;
            }
        }
        input.len() - rest.len()
    }

    /// The counted octets have all come (BDAT LAST).
    pub(super) fn finish(&mut self, out: &mut MailData) {
        if self.at == At::Cr {
            self.bare(Fault::BareCr, out);
        }
        self.at = At::End;
    }

    pub(super) fn has_ended(&self) -> bool {
        self.at == At::End
    }

    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault
    }

    fn step(&mut self, byte: u8, out: &mut MailData) -> At {
        match (self.at, byte) {
            (At::Start, b'.') if self.framing == Framing::Dots => At::Dot,
            (At::RepairedStart, b'.') if self.framing == Framing::Dots => At::RepairedDot,
            (At::Dot, b'\r') => At::DotCr,
            (At::RepairedDot, b'\r') => At::RepairedDotCr,
            // RFC 5321 §4.1.1.4: the one end there is.
            (At::DotCr, b'\n') => At::End,
            // A dot that was not stuffed and ends nothing is text.
            (At::RepairedDotCr, b'\n') => {
                self.emit(b".", out);
                self.line_end(out)
            }
            (At::Dot | At::RepairedDot, b'\n') => {
                self.emit(b".", out);
                self.bare(Fault::BareLf, out)
            }
            (At::DotCr | At::RepairedDotCr, _) => {
                self.emit(b".", out);
                self.after_bare_cr(byte, out)
            }
            (At::Cr, b'\n') => self.line_end(out),
            (At::Cr, _) => self.after_bare_cr(byte, out),
            // RFC 5321 §4.5.2: the first dot of a line is dropped, what follows is text.
            (At::Start | At::RepairedStart | At::Text | At::Dot | At::RepairedDot | At::End, _) => {
                self.text(byte, out)
            }
        }
    }

    fn text(&mut self, byte: u8, out: &mut MailData) -> At {
        match byte {
            b'\r' => At::Cr,
            b'\n' => self.bare(Fault::BareLf, out),
            0 => {
                self.fault.get_or_insert(Fault::Nul);
                At::Text
            }
            _ => {
                self.emit(&[byte], out);
                At::Text
            }
        }
    }

    fn after_bare_cr(&mut self, byte: u8, out: &mut MailData) -> At {
        self.at = self.bare(Fault::BareCr, out);
        self.step(byte, out)
    }

    fn bare(&mut self, fault: Fault, out: &mut MailData) -> At {
        match self.ends {
            LineEnds::Strict => {
                self.fault.get_or_insert(fault);
                At::Text
            }
            LineEnds::Repair => {
                self.line_end(out);
                At::RepairedStart
            }
        }
    }

    fn line_end(&mut self, out: &mut MailData) -> At {
        self.line = 0;
        self.count(2);
        self.line = 0;
        if self.fault.is_none() {
            out.end_line();
        }
        At::Start
    }

    fn emit(&mut self, text: &[u8], out: &mut MailData) {
        self.count(text.len());
        if self.fault.is_none() && !out.push_text(text).is_empty() {
            // No caller brings a line end or a NUL as text; if one did, it must not be lost unseen.
            self.fault = Some(Fault::Nul);
        }
    }

    fn count(&mut self, octets: usize) {
        self.line = self.line.saturating_add(octets);
        self.total = self.total.saturating_add(octets as u64);
        if self.line > MAX_TEXT_LINE {
            self.fault.get_or_insert(Fault::LineTooLong);
        }
        // RFC 1870 §5: the size counts CRLFs, but no stuffed dots.
        if self.total > self.limit {
            self.fault.get_or_insert(Fault::TooBig);
        }
    }
}

/// How many bytes of plain text come first.
fn run_length(bytes: &[u8]) -> usize {
    memchr::memchr3(b'\r', b'\n', 0, bytes).unwrap_or(bytes.len())
}

/// Where the next byte of outbound content stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    LineStart,
    Line,
}

/// Writes outbound content: line ends repaired, dots stuffed (RFC 5321 §2.3.8, §4.5.2).
///
/// Content is mail data already (intake refuses any other, and all that is composed here is written
/// as such). It is repaired nevertheless, wherever it came from: what was stored by an older version
/// too can end no line, and so no transaction, by a bare CR or LF.
#[derive(Debug)]
pub(super) struct Stuffer {
    position: Position,
    repair: LineEndRepair,
    /// Repaired content of one call; kept for its space.
    clean: MailData,
}

impl Stuffer {
    pub(super) fn new() -> Self {
        Self {
            position: Position::LineStart,
            repair: LineEndRepair::default(),
            clean: MailData::default(),
        }
    }

    pub(super) fn push(&mut self, content: &[u8], out: &mut Vec<u8>) {
        self.clean.clear();
        self.repair.push(content, &mut self.clean);
        self.stuff(out);
    }

    fn stuff(&mut self, out: &mut Vec<u8>) {
        let content = &*self.clean;
        out.reserve(content.len() + content.len() / 64);
        if self.position == Position::LineStart && content.starts_with(b".") {
            out.push(b'.');
        }
        // Few lines begin with a dot: what lies between them is copied in one piece.
        let mut rest = content;
        while let Some(end) = memmem::find(rest, b"\n.") {
            let (before, after) = rest.split_at(end + 1);
            out.extend_from_slice(before);
            out.push(b'.');
            rest = after;
        }
        out.extend_from_slice(rest);
        match content.last() {
            Some(b'\n') => self.position = Position::LineStart,
            Some(_) => self.position = Position::Line,
            None => {}
        }
    }

    /// The end of data (RFC 5321 §4.1.1.4); no empty line is added where content ended with CRLF.
    pub(super) fn end(mut self, out: &mut Vec<u8>) {
        self.clean.clear();
        std::mem::take(&mut self.repair).finish(&mut self.clean);
        self.stuff(out);
        match self.position {
            Position::LineStart => out.extend_from_slice(b".\r\n"),
            Position::Line => out.extend_from_slice(b"\r\n.\r\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, PartialEq, Eq)]
    enum Outcome {
        Unended,
        Refused(Fault),
        Content(Vec<u8>),
    }

    fn frame(ends: LineEnds, limit: u64, pieces: &[&[u8]]) -> (Outcome, Vec<u8>) {
        let mut framer = Framer::new(Framing::Dots, ends, limit);
        let (mut content, mut left) = (Vec::new(), Vec::new());
        for piece in pieces {
            let mut rest = *piece;
            while !framer.has_ended() && !rest.is_empty() {
                let mut out = MailData::default();
                let used = framer.push(rest, &mut out);
                assert!(out.len() <= MAX_PIECE);
                assert!(used > 0, "no progress");
                content.extend_from_slice(&out);
                rest = &rest[used..];
            }
            left.extend_from_slice(rest);
        }
        let outcome = match (framer.has_ended(), framer.fault()) {
            (false, _) => Outcome::Unended,
            (true, Some(fault)) => Outcome::Refused(fault),
            (true, None) => Outcome::Content(content),
        };
        (outcome, left)
    }

    /// The strict rules again, written for reading instead of streaming.
    fn reference(stream: &[u8]) -> (Outcome, Vec<u8>) {
        let mut all = b"\r\n".to_vec();
        all.extend_from_slice(stream);
        let Some(end) = all.windows(5).position(|five| five == b"\r\n.\r\n") else {
            return (Outcome::Unended, Vec::new());
        };
        let (before, left) = (&all[..end + 2], all[end + 5..].to_vec());
        for (index, &byte) in before.iter().enumerate() {
            let fault = match byte {
                0 => Fault::Nul,
                b'\r' if before.get(index + 1) != Some(&b'\n') => Fault::BareCr,
                b'\n' if before[index - 1] != b'\r' => Fault::BareLf,
                _ => continue,
            };
            return (Outcome::Refused(fault), left);
        }
        let text = String::from_utf8(before[2..].to_vec()).expect("the alphabet is ASCII");
        let lines = text.split_inclusive("\r\n");
        let unstuffed: String = lines.map(|line| line.strip_prefix('.').unwrap_or(line)).collect();
        (Outcome::Content(unstuffed.into_bytes()), left)
    }

    fn wire() -> impl Strategy<Value = Vec<u8>> {
        let atoms: &[&[u8]] =
            &[b"\r\n", b"\r", b"\n", b".", b"x", b"\0", b"\r\n.\r\n", b"\r\n.", b"ab"];
        proptest::collection::vec(proptest::sample::select(atoms.to_vec()), 0..14)
            .prop_map(|atoms| atoms.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn agrees_with_the_reference(stream in wire()) {
            let expected = reference(&stream);
            prop_assert_eq!(&frame(LineEnds::Strict, u64::MAX, &[&stream]), &expected);
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            prop_assert_eq!(&frame(LineEnds::Strict, u64::MAX, &bytes), &expected);
        }

        #[test]
        fn repaired_content_is_clean_and_ends_where_strict_content_does(stream in wire()) {
            let (strict, left) = frame(LineEnds::Strict, u64::MAX, &[&stream]);
            let (repaired, repaired_left) = frame(LineEnds::Repair, u64::MAX, &[&stream]);
            prop_assert_eq!(left, repaired_left);
            prop_assert_eq!(strict == Outcome::Unended, repaired == Outcome::Unended);
            if let Outcome::Content(content) = repaired {
                let text = String::from_utf8(content).expect("the alphabet is ASCII");
                prop_assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "{:?}", text);
            }
        }

        #[test]
        fn stuffing_is_undone(lines in proptest::collection::vec("\\.{0,3}[a-z]{0,3}", 0..9)) {
            let content = lines.iter().map(|line| format!("{line}\r\n")).collect::<String>();
            let (mut stuffer, mut wire) = (Stuffer::new(), Vec::new());
            content.as_bytes().chunks(2).for_each(|piece| stuffer.push(piece, &mut wire));
            stuffer.end(&mut wire);
            let (outcome, left) = frame(LineEnds::Strict, u64::MAX, &[&wire]);
            prop_assert_eq!(outcome, Outcome::Content(content.into_bytes()));
            prop_assert!(left.is_empty());
        }
    }

    /// Octets of any origin, with every kind of line end.
    fn stored() -> impl Strategy<Value = Vec<u8>> {
        wire().prop_map(|mut octets| {
            octets.extend_from_slice(b"\r.\rMAIL FROM:<ceo@example.org>\r\n");
            octets
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        /// Neither a strict receiver nor one that ends lines at a bare CR or LF and drops NUL finds an
        /// end of data before the true one.
        #[test]
        fn whatever_is_stored_is_sent_as_one_message(content in stored(), piece in 1_usize..5) {
            let (mut stuffer, mut wire) = (Stuffer::new(), Vec::new());
            content.chunks(piece).for_each(|piece| stuffer.push(piece, &mut wire));
            stuffer.end(&mut wire);
            let (outcome, left) = frame(LineEnds::Strict, u64::MAX, &[&wire]);
            let repaired = MailData::repaired(&content);
            prop_assert_eq!(outcome, Outcome::Content(repaired.to_vec()));
            prop_assert!(left.is_empty());
            wire.retain(|octet| *octet != 0);
            let lines: Vec<_> = wire.split(|octet| matches!(octet, b'\r' | b'\n')).collect();
            prop_assert_eq!(lines.iter().filter(|line| **line == b".").count(), 1);
        }
    }

    /// Known ways to end data for one server and not for another (CVE-2023-51764, -51765, -51766),
    /// each with a command behind.
    #[test]
    fn smuggling_forms_end_nothing() {
        use Fault::{BareCr, BareLf};
        let table: &[(&[u8], Fault)] = &[
            (b"a\n.\nMAIL\r\n.\r\n", BareLf),
            (b"a\n.\r\nMAIL\r\n.\r\n", BareLf),
            (b"a\r\n.\nMAIL\r\n.\r\n", BareLf),
            (b"a\r\n.\rMAIL\r\n.\r\n", BareCr),
            (b"a\r.\rMAIL\r\n.\r\n", BareCr),
            (b"a\r.\r\nMAIL\r\n.\r\n", BareCr),
            (b"a\r\n.\r\r\nMAIL\r\n.\r\n", BareCr),
            (b"a\r\r\n.\r\r\nMAIL\r\n.\r\n", BareCr),
            (b"a\n\n.\n\nMAIL\r\n.\r\n", BareLf),
            (b"a\r\n\0.\r\nMAIL\r\n.\r\n", Fault::Nul),
            (b"a\r\n.\0\r\nMAIL\r\n.\r\n", Fault::Nul),
        ];
        for (stream, fault) in table {
            let expected = (Outcome::Refused(*fault), Vec::new());
            assert_eq!(
                frame(LineEnds::Strict, 1000, &[stream]),
                expected,
                "{}",
                stream.escape_ascii()
            );
        }
    }

    #[test]
    fn repairs_without_ending_early() {
        let table: &[(&[u8], &[u8], &str)] = &[
            (b"a\nb\r\n.\r\n", b"a\r\nb\r\n", "LF becomes CRLF"),
            (b"a\rb\r\n.\r\n", b"a\r\nb\r\n", "CR becomes CRLF"),
            (b"a\n.\nb\r\n.\r\n", b"a\r\n.\r\nb\r\n", "LF.LF is a line with a dot"),
            (b"a\n.\r\nb\r\n.\r\n", b"a\r\n.\r\nb\r\n", "LF.CRLF too"),
            (b"a\r\n.\nb\r\n.\r\n", b"a\r\n.\r\nb\r\n", "CRLF.LF too"),
            (b"a\r\n.\r\r\nb\r\n.\r\n", b"a\r\n.\r\n\r\nb\r\n", "CRLF.CRCRLF too"),
            (b"a\n..b\r\n.\r\n", b"a\r\n.b\r\n", "dots are unstuffed after a repaired line end"),
            (b"a\r\n.\r\nb", b"a\r\n", "the true end is the end"),
        ];
        for (stream, content, why) in table {
            let (outcome, _) = frame(LineEnds::Repair, 1000, &[stream]);
            assert_eq!(outcome, Outcome::Content(content.to_vec()), "{why}");
        }
    }

    #[test]
    fn content_at_its_edges() {
        let table: [([&[u8]; 3], &str); 6] = [
            ([b".\r\nQUIT\r\n", b"", b"QUIT\r\n"], "empty content, and the next command untouched"),
            ([b"\r\n.\r\n", b"\r\n", b""], "one empty line"),
            ([b"..\r\n.\r\n", b".\r\n", b""], "a stuffed dot"),
            ([b"...\r\n.\r\n", b"..\r\n", b""], "two dots"),
            ([b".x\r\n.\r\n", b"x\r\n", b""], "RFC 5321 4.5.2: the first dot goes"),
            ([b"\xff\xfe\r\n.\r\n", b"\xff\xfe\r\n", b""], "eight bits pass"),
        ];
        for ([stream, content, left], why) in table {
            let expected = (Outcome::Content(content.to_vec()), left.to_vec());
            assert_eq!(frame(LineEnds::Strict, 1000, &[stream]), expected, "{why}");
        }
    }

    #[test]
    fn limits_are_exact() {
        let big = |length: usize, limit| {
            let mut stream = vec![b'x'; length];
            stream.extend_from_slice(b"\r\n.\r\n");
            frame(LineEnds::Strict, limit, &[&stream]).0
        };
        assert!(matches!(big(98, 100), Outcome::Content(_)));
        assert_eq!(big(99, 100), Outcome::Refused(Fault::TooBig));
        assert!(matches!(big(MAX_TEXT_LINE, u64::MAX), Outcome::Content(_)));
        assert_eq!(big(MAX_TEXT_LINE + 1, u64::MAX), Outcome::Refused(Fault::LineTooLong));
    }
}
