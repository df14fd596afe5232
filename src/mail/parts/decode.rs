//! Content-Transfer-Encoding, undone as the body streams out (RFC 2045 §6.7, §6.8).

use super::TransferEncoding;

/// Decodes a part's body as it streams out; malformed input never fails, it is decoded as far as it
/// goes.
#[derive(Debug)]
pub struct Decoder {
    state: State,
}

#[derive(Debug)]
enum State {
    Identity,
    /// So many bits of a group, in the low end of the number.
    Base64(u32, u8),
    QuotedPrintable(Quoted),
}

#[derive(Debug, Default)]
struct Quoted {
    /// White space that counts only if the line goes on (RFC 2045 §6.7 rule 3).
    space: Vec<u8>,
    escape: Escape,
}

#[derive(Debug, Default, Clone, Copy)]
enum Escape {
    #[default]
    None,
    /// `=`
    Equals,
    /// `=` and one hexadecimal digit.
    Digit(u8),
    /// `=` and white space: a soft line break if the line ends here.
    Space,
    /// `=` and CR.
    Cr,
}

/// White space held at most: more of it is no trailing space of a text line (998 octets, RFC 5322
/// §2.1.1).
const MAX_SPACE: usize = 1024;

impl Decoder {
    /// A decoder for that encoding.
    pub fn new(encoding: TransferEncoding) -> Self {
        let state = match encoding {
            TransferEncoding::Identity => State::Identity,
            TransferEncoding::Base64 => State::Base64(0, 0),
            TransferEncoding::QuotedPrintable => State::QuotedPrintable(Quoted::default()),
        };
        Self { state }
    }

    /// Appends what `bytes` decode to.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        match &mut self.state {
            State::Identity => out.extend_from_slice(bytes),
            State::Base64(bits, count) => {
                out.reserve(bytes.len() / 4 * 3);
                for &byte in bytes {
                    (*bits, *count) = base64(*bits, *count, byte, out);
                }
            }
            State::QuotedPrintable(quoted) => bytes.iter().for_each(|&b| quoted.step(b, out)),
        }
    }

    /// The body has ended: appends what was held back.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        match &mut self.state {
            State::Identity => {}
            State::Base64(bits, count) => {
                flush(*bits, *count, out);
                (*bits, *count) = (0, 0);
            }
            State::QuotedPrintable(quoted) => {
                // White space and a `=` at the end stand before the boundary's line end: not part
                // of the text.
                if let Escape::Digit(digit) = quoted.escape {
                    out.extend_from_slice(&[b'=', digit]);
                }
                *quoted = Quoted::default();
            }
        }
    }
}

fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

/// One more byte of base64. What is outside the alphabet is passed over (RFC 2045 §6.8); `=` ends a
/// group, and what follows it is another encoding put behind the first.
fn base64(bits: u32, count: u8, byte: u8, out: &mut Vec<u8>) -> (u32, u8) {
    let Some(six) = sextet(byte) else {
        if byte == b'=' {
            flush(bits, count, out);
            return (0, 0);
        }
        return (bits, count);
    };
    let bits = bits << 6 | u32::from(six);
    if count == 18 {
        let [_, a, b, c] = bits.to_be_bytes();
        out.extend_from_slice(&[a, b, c]);
        return (0, 0);
    }
    (bits, count + 6)
}

/// The whole bytes of a group that was cut or padded.
fn flush(bits: u32, count: u8, out: &mut Vec<u8>) {
    match count {
        12 => {
            let [_, _, _, a] = (bits >> 4).to_be_bytes();
            out.push(a);
        }
        18 => {
            let [_, _, a, b] = (bits >> 2).to_be_bytes();
            out.extend_from_slice(&[a, b]);
        }
        _ => {}
    }
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

impl Quoted {
    fn step(&mut self, byte: u8, out: &mut Vec<u8>) {
        match (self.escape, byte) {
            (Escape::None, _) => self.plain(byte, out),
            (Escape::Equals | Escape::Space, b'\r') => self.soft_break(Escape::Cr),
            (Escape::Equals | Escape::Space | Escape::Cr, b'\n') => self.soft_break(Escape::None),
            (Escape::Equals | Escape::Space, b' ' | b'\t') if self.space.len() < MAX_SPACE => {
                self.space.push(byte);
                self.escape = Escape::Space;
            }
            (Escape::Equals, _) if hex(byte).is_some() => self.escape = Escape::Digit(byte),
            (Escape::Digit(high), _) => {
                self.escape = Escape::None;
                if let (Some(high), Some(low)) = (hex(high), hex(byte)) {
                    out.push(high << 4 | low);
                } else {
                    out.extend_from_slice(&[b'=', high]);
                    self.plain(byte, out);
                }
            }
            (Escape::Cr, _) => {
                self.escape = Escape::None;
                self.plain(byte, out);
            }
            (Escape::Equals | Escape::Space, _) => {
                // Not an encoding at all: kept as it stands (RFC 2045 §6.7, notes on robustness).
                self.escape = Escape::None;
                out.push(b'=');
                self.plain(byte, out);
            }
        }
    }

    fn soft_break(&mut self, next: Escape) {
        self.space.clear();
        self.escape = next;
    }

    fn plain(&mut self, byte: u8, out: &mut Vec<u8>) {
        match byte {
            b' ' | b'\t' => {
                if self.space.len() >= MAX_SPACE {
                    out.append(&mut self.space);
                }
                self.space.push(byte);
            }
            b'\r' | b'\n' => {
                self.space.clear();
                out.push(byte);
            }
            b'=' => {
                out.append(&mut self.space);
                self.escape = Escape::Equals;
            }
            _ => {
                out.append(&mut self.space);
                out.push(byte);
            }
        }
    }
}
