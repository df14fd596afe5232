//! xtext, the coding of parameter values that may hold anything (RFC 3461 §4).

use std::fmt::Write;

/// Encodes: printable ASCII save `+` and `=` stands for itself, everything else is `+XX` (RFC 3461
/// §4).
pub fn encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut coded, byte| {
        if is_xchar(byte) {
            coded.push(char::from(byte));
        } else {
            // Writing to a String can't fail.
            let _ = write!(coded, "+{byte:02X}");
        }
        coded
    })
}

/// Decodes to printable ASCII; `None` for anything that is not xtext, or that decodes to more (RFC
/// 3461 §4.4: an envelope id is printable).
pub fn decode(coded: &str) -> Option<String> {
    let mut text = String::with_capacity(coded.len());
    let mut bytes = coded.bytes();
    while let Some(byte) = bytes.next() {
        let plain = match byte {
            b'+' => hex_digit(bytes.next()?)? * 16 + hex_digit(bytes.next()?)?,
            _ if is_xchar(byte) => byte,
            _ => return None,
        };
        if !matches!(plain, b' '..=b'~') {
            return None;
        }
        text.push(char::from(plain));
    }
    Some(text)
}

fn is_xchar(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'+' && byte != b'='
}

/// RFC 3461 §4: hexadecimal digits are upper case.
fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_good_and_refuses_bad() {
        let good = [("QQ314159", "QQ314159"), ("a+2Bb", "a+b"), ("x+3Dy+20z", "x=y z"), ("", "")];
        for (coded, text) in good {
            assert_eq!(decode(coded).as_deref(), Some(text), "{coded}");
        }
        let bad = [
            ("a=b", "bare ="),
            ("+2b", "lower-case hex"),
            ("+2", "cut"),
            ("+0D+0A", "a line end inside"),
            ("a b", "space"),
            ("+FF", "eight bits"),
        ];
        for (coded, why) in bad {
            assert_eq!(decode(coded), None, "{why}");
        }
    }

    #[test]
    fn encoded_text_holds_no_line_end() {
        assert_eq!(encode("a+b=c\r\nMAIL"), "a+2Bb+3Dc+0D+0AMAIL");
        assert_eq!(decode(&encode("id 7+8=15 ~")).as_deref(), Some("id 7+8=15 ~"));
    }
}
