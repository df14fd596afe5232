//! Command lines: they end at CRLF and at nothing else (RFC 5321 §2.3.8).
//!
//! A line with a fault is one line: whatever follows the fault up to the CRLF is swallowed and
//! never read as a command, so that a lone LF or CR can't smuggle one in.

use super::input::Input;

/// The longest command line, CRLF included. RFC 5321 §4.5.3.1.4 asks for 512; the parameters of RFC
/// 1870, RFC 3461 and RFC 4954 §3 make it longer.
pub const MAX_COMMAND_LINE: usize = 4096;

/// Why a line can't be a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineFault {
    /// A CR that no LF follows (RFC 5321 §2.3.8); reported at once.
    BareCr,
    /// A LF that no CR precedes (RFC 5321 §2.3.8); reported at once.
    BareLf,
    /// A NUL (RFC 5321 §4.1.2 allows it nowhere); reported at once.
    Nul,
    /// Longer than [`MAX_COMMAND_LINE`]; reported at the line's end.
    TooLong,
}

#[derive(Debug)]
enum Reading {
    /// A line so far, with its CR if that was the last byte.
    Line(Vec<u8>),
    /// The rest of a faulty line, up to its CRLF.
    Swallow { last: u8, report: Option<LineFault> },
}

/// Cuts lines out of the input.
#[derive(Debug)]
pub(super) struct LineReader(Reading);

impl Default for LineReader {
    fn default() -> Self {
        Self(Reading::Line(Vec::new()))
    }
}

impl LineReader {
    /// The next line without its CRLF, or its fault; `None`: more bytes are needed.
    pub(super) fn next(&mut self, input: &mut Input) -> Option<Result<Vec<u8>, LineFault>> {
        while let Some(byte) = input.next_byte() {
            let reading = std::mem::replace(&mut self.0, Reading::Line(Vec::new()));
            match reading.take(byte) {
                Ok(reading) => self.0 = reading,
                Err((reading, line)) => {
                    self.0 = reading;
                    return Some(line);
                }
            }
        }
        None
    }
}

/// A line that has ended, with what is read after it.
type Ended = (Reading, Result<Vec<u8>, LineFault>);

impl Reading {
    /// Takes a byte in; `Err` when that ends or spoils a line.
    fn take(self, byte: u8) -> Result<Self, Ended> {
        match self {
            Self::Line(text) => Self::take_text(text, byte),
            Self::Swallow { last: b'\r', report } if byte == b'\n' => {
                let next = Self::Line(Vec::new());
                report.map_or(Ok(Self::Line(Vec::new())), |fault| Err((next, Err(fault))))
            }
            Self::Swallow { report, .. } => Ok(Self::Swallow { last: byte, report }),
        }
    }

    fn take_text(mut text: Vec<u8>, byte: u8) -> Result<Self, Ended> {
        let spoilt = |fault| Err((Self::Swallow { last: byte, report: None }, Err(fault)));
        match (text.last(), byte) {
            (Some(b'\r'), b'\n') => {
                text.pop();
                Err((Self::Line(Vec::new()), Ok(text)))
            }
            (Some(b'\r'), _) => spoilt(LineFault::BareCr),
            (_, b'\n') => spoilt(LineFault::BareLf),
            (_, 0) => spoilt(LineFault::Nul),
            _ if text.len() + 1 >= MAX_COMMAND_LINE => {
                Ok(Self::Swallow { last: byte, report: Some(LineFault::TooLong) })
            }
            _ => {
                text.push(byte);
                Ok(Self::Line(text))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Line = Result<Vec<u8>, LineFault>;

    fn read(bytes: &[u8]) -> Vec<Line> {
        let (mut input, mut lines) = (Input::default(), LineReader::default());
        input.push(bytes);
        std::iter::from_fn(|| lines.next(&mut input)).collect()
    }

    #[test]
    fn lines_end_at_crlf_only() {
        let ok = |text: &str| Ok(text.as_bytes().to_vec());
        let table: &[(&[u8], Vec<Line>, &str)] = &[
            (b"NOOP\r\nQUIT\r\n", vec![ok("NOOP"), ok("QUIT")], "two lines"),
            (b"NOOP\r", vec![], "not ended yet"),
            (b"\r\n", vec![ok("")], "an empty line"),
            (b"A\nB\r\nC\r\n", vec![Err(LineFault::BareLf), ok("C")], "B belongs to the line of A"),
            (b"A\rB\r\nC\r\n", vec![Err(LineFault::BareCr), ok("C")], "likewise for CR"),
            (b"A\r\r\nC\r\n", vec![Err(LineFault::BareCr), ok("C")], "CR CR LF ends the line"),
            (b"A\n\r\nC\r\n", vec![Err(LineFault::BareLf), ok("C")], "LF CR LF is one end"),
            (b"A\0B\r\nC\r\n", vec![Err(LineFault::Nul), ok("C")], "NUL"),
            (b"A\n\0\rB\nC\r\n", vec![Err(LineFault::BareLf)], "one report a line"),
        ];
        for (bytes, expected, why) in table {
            assert_eq!(&read(bytes), expected, "{why}");
        }
    }

    #[test]
    fn the_limit_counts_the_crlf() {
        let line = |length: usize| {
            let mut line = vec![b'x'; length];
            line.extend_from_slice(b"\r\nNOOP\r\n");
            read(&line)
        };
        assert_eq!(line(4094), [Ok(vec![b'x'; 4094]), Ok(b"NOOP".to_vec())]);
        assert_eq!(line(4095), [Err(LineFault::TooLong), Ok(b"NOOP".to_vec())]);
        assert_eq!(line(100_000), [Err(LineFault::TooLong), Ok(b"NOOP".to_vec())]);
    }
}
