//! The PROXY protocol, versions 1 and 2, as `HAProxy` defines it: what a trusted proxy may send before
//! anything else.

use proxy_header::{Error, ParseConfig, Protocol, ProxyHeader};
use std::{io, net::IpAddr, time::Duration};
use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

/// Bytes of a header, its extensions included: the specification asks for 536 at least.
const LARGEST: usize = 4096;
/// How long its first byte, or that of the request, may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// What a header of version 2 begins with.
const SIGNATURE: &[u8] = b"\r\n\r\n\x00\r\nQUIT\n";
/// What a header of version 1 begins with.
const WORD: &[u8] = b"PROXY ";

const PARSING: ParseConfig = ParseConfig { include_tlvs: false, allow_v1: true, allow_v2: true };

/// Reads the header, if there is one, and gives the client's address that it names. What was read
/// behind the header, or in its place, is left in `ahead`.
pub(super) async fn read(
    stream: &mut TcpStream,
    ahead: &mut Vec<u8>,
) -> io::Result<Option<IpAddr>> {
    timeout(PATIENCE, read_on(stream, ahead)).await.map_err(|_| io::ErrorKind::TimedOut)?
}

async fn read_on(stream: &mut TcpStream, ahead: &mut Vec<u8>) -> io::Result<Option<IpAddr>> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "a malformed PROXY header");
    loop {
        let mut limited = (&mut *stream).take((LARGEST - ahead.len()) as u64);
        if limited.read_buf(ahead).await? == 0 {
            // The peer left, or sent more than a header may have.
            return if ahead.is_empty() { Ok(None) } else { Err(malformed()) };
        }
        match found(ahead) {
            Found::Nothing => return Ok(None),
            Found::Part => {}
            Found::Header(client, length) => {
                ahead.drain(..length);
                return Ok(client);
            }
            Found::Malformed => return Err(malformed()),
        }
    }
}

/// What stands at the beginning of a connection.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// No header.
    Nothing,
    /// A header that is not complete yet.
    Part,
    /// A header of that length. Without an address it speaks of the proxy itself (LOCAL, UNKNOWN), as
    /// health checks do.
    Header(Option<IpAddr>, usize),
    /// What can't be believed.
    Malformed,
}

fn found(bytes: &[u8]) -> Found {
    let begins = |mark: &[u8]| mark.iter().zip(bytes).all(|(a, b)| a == b);
    if !begins(WORD) && !begins(SIGNATURE) {
        return Found::Nothing;
    }
    match ProxyHeader::parse(bytes, PARSING) {
        Ok((header, length)) => match header.proxied_address() {
            Some(address) if address.protocol == Protocol::Stream => {
                Found::Header(Some(address.source.ip().to_canonical()), length)
            }
            Some(_) => Found::Malformed,
            None => Found::Header(None, length),
        },
        Err(Error::BufferTooShort) => Found::Part,
        Err(
            Error::Invalid
            | Error::AddressFamilyMismatch
            | Error::HeaderTooBig
            | Error::V1UnsupportedTlv
            | Error::V1UnsupportedProtocol,
        ) => Found::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, body].concat()
    }

    #[test]
    fn headers_are_read_and_nothing_else_is_taken_for_one() {
        let client = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let v4 = b"\xc0\x00\x02\x07\x7f\x00\x00\x01\x10\x00\x1f\x90";
        let v6 =
            [&[0x20, 1, 0x0d, 0xb8][..], &[0; 11], &[7], &[0; 15], &[1, 16, 0, 31, 144]].concat();
        let cases: &[(&[u8], Found, &str)] = &[
            (
                b"PROXY TCP4 192.0.2.7 127.0.0.1 4096 8080\r\nGET / HTTP/1.1\r\n",
                Found::Header(client("192.0.2.7"), 42),
                "version 1",
            ),
            (
                b"PROXY TCP6 2001:db8::7 ::1 4096 8080\r\n",
                Found::Header(client("2001:db8::7"), 38),
                "IPv6",
            ),
            (
                b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n",
                Found::Header(client("192.0.2.7"), 37),
                "IPv4 mapped into IPv6",
            ),
            (b"PROXY UNKNOWN\r\n", Found::Header(None, 15), "a health check"),
            (&v2(0x21, 0x11, v4), Found::Header(client("192.0.2.7"), 28), "version 2"),
            (&v2(0x21, 0x21, &v6), Found::Header(client("2001:db8::7"), 52), "with IPv6"),
            (
                &v2(0x21, 0x11, &[&v4[..], b"\x04\x00\x01\x00"].concat()),
                Found::Header(client("192.0.2.7"), 32),
                "with an extension",
            ),
            (&v2(0x20, 0x00, b""), Found::Header(None, 16), "LOCAL"),
            (&v2(0x20, 0x11, v4), Found::Header(None, 28), "LOCAL: the addresses say nothing"),
            (b"PRO", Found::Part, "the rest is on its way"),
            (b"PROXY TCP4 192.0.2.7", Found::Part, "the rest is on its way"),
            (b"\r\n\r\n\x00", Found::Part, "the rest is on its way"),
            (&v2(0x21, 0x11, v4)[..27], Found::Part, "one byte is missing"),
            (b"GET / HTTP/1.1\r\n", Found::Nothing, "a request"),
            (b"POST / HTTP/1.1\r\n", Found::Nothing, "a request with the same first letter"),
            (b"\x16\x03\x01\x02\x00\x01", Found::Nothing, "a TLS handshake"),
            (b"\r\nGET / HTTP/1.1\r\n", Found::Nothing, "an empty line before a request"),
            (b"PROXY TCP4 192.0.2.300 127.0.0.1 1 2\r\n", Found::Malformed, "no address"),
            (b"PROXY TCP4 192.0.2.7 127.0.0.1 1 2 3\r\n", Found::Malformed, "no port"),
            (b"PROXY UDP4 192.0.2.7 127.0.0.1 1 2\r\n", Found::Malformed, "no TCP"),
            (&v2(0x21, 0x12, v4), Found::Malformed, "datagrams"),
            (&v2(0x31, 0x11, v4), Found::Malformed, "a version that is not known"),
            (&v2(0x21, 0x11, &v4[..4]), Found::Part, "shorter than its own addresses"),
        ];
        for (bytes, expected, why) in cases {
            assert_eq!(found(bytes), *expected, "{why}");
        }
        let long = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
        assert_eq!(found(&long), Found::Malformed, "version 1 has 107 bytes at most");
    }
}
