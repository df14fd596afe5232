//! Lines, replies and content of SMTP over a stream, in clear or under TLS.

use crate::Fault;
use memchr::{memchr, memmem};
use std::io;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
};

/// A stream of bytes in both directions.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Bytes read at once.
const PORTION: usize = 64 * 1024;
/// A line longer than this is no command and no reply.
const LINE_MAX: usize = 64 * 1024;
/// What ends content (RFC 5321 §4.1.1.4).
const END: &[u8] = b"\r\n.\r\n";

/// One end of a session.
pub(crate) struct Wire {
    io: BufReader<Box<dyn Duplex>>,
}

impl Wire {
    /// In clear, without Nagle's delay.
    pub(crate) fn plain(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self::over(Box::new(stream)))
    }

    pub(crate) fn over(stream: Box<dyn Duplex>) -> Self {
        Self { io: BufReader::with_capacity(PORTION, stream) }
    }

    /// The stream beneath, for the handshake. Nothing that was said in clear goes on (RFC 3207 §4.2).
    pub(crate) fn into_inner(self) -> Result<Box<dyn Duplex>, Fault> {
        if self.io.buffer().is_empty() {
            Ok(self.io.into_inner())
        } else {
            Err("bytes in clear behind STARTTLS".into())
        }
    }

    /// True if the other side has more to say already: a pipelined reply can wait.
    pub(crate) fn has_more(&self) -> bool {
        !self.io.buffer().is_empty()
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.io.write_all(bytes).await?;
        self.io.flush().await
    }

    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        self.io.shutdown().await
    }

    /// The next line without its end; false where the stream ended.
    pub(crate) async fn line(&mut self, line: &mut Vec<u8>) -> Result<bool, Fault> {
        line.clear();
        loop {
            let have = self.io.fill_buf().await?;
            if have.is_empty() {
                return Ok(false);
            }
            let (part, used) = match memchr(b'\n', have) {
                Some(at) => (have.get(..at), at.saturating_add(1)),
                None => (Some(have), have.len()),
            };
            let ended = part.is_some_and(|p| p.len() < used);
            line.extend_from_slice(part.unwrap_or_default());
            self.io.consume(used);
            if ended {
                line.pop_if(|last| *last == b'\r');
                return Ok(true);
            }
            if line.len() > LINE_MAX {
                return Err("a line beyond all bounds".into());
            }
        }
    }

    /// A whole reply: its code, and its lines in `text`.
    pub(crate) async fn reply(&mut self, text: &mut Vec<u8>) -> Result<u16, Fault> {
        text.clear();
        let mut line = Vec::new();
        loop {
            if !self.line(&mut line).await? {
                return Err("the session ended without a reply".into());
            }
            text.extend_from_slice(&line);
            text.push(b'\n');
            if line.get(3) != Some(&b'-') {
                let code = line.get(..3).and_then(|code| std::str::from_utf8(code).ok());
                let code = code.and_then(|code| code.parse().ok());
                return code.ok_or_else(|| lossy("no reply", &line));
            }
        }
    }

    /// Reads a reply that must have this code.
    pub(crate) async fn expect(&mut self, code: u16, text: &mut Vec<u8>) -> Result<(), Fault> {
        if self.reply(text).await? == code { Ok(()) } else { Err(lossy("refused", text)) }
    }

    /// Reads content up to its final dot; its size, or nothing where the stream ended before.
    pub(crate) async fn content(&mut self) -> io::Result<Option<u64>> {
        let finder = memmem::Finder::new(END);
        // The line end of DATA itself: a dot right behind it ends empty content.
        let mut tail: Vec<u8> = b"\r\n".to_vec();
        let mut size = 0_u64;
        loop {
            let have = self.io.fill_buf().await?;
            if have.is_empty() {
                return Ok(None);
            }
            // The end may lie across two portions.
            let before = tail.len();
            tail.extend(have.iter().take(END.len().saturating_sub(1)));
            let across = finder.find(&tail).map(|at| (at + END.len()).saturating_sub(before));
            let end = across.or_else(|| finder.find(have).map(|at| at + END.len()));
            let used = end.unwrap_or(have.len());
            if end.is_none() && have.len() >= END.len() {
                tail.clear();
                tail.extend(have.iter().skip(have.len() - (END.len() - 1)));
            }
            let surplus = tail.len().saturating_sub(END.len() - 1);
            tail.drain(..surplus);
            self.io.consume(used);
            size = size.saturating_add(used as u64);
            if end.is_some() {
                return Ok(Some(size));
            }
        }
    }

    /// Reads exactly so many bytes (BDAT); false where the stream ended before.
    pub(crate) async fn skip(&mut self, mut bytes: u64) -> io::Result<bool> {
        while bytes > 0 {
            let have = self.io.fill_buf().await?.len();
            if have == 0 {
                return Ok(false);
            }
            let used = usize::try_from(bytes).unwrap_or(usize::MAX).min(have);
            self.io.consume(used);
            bytes = bytes.saturating_sub(used as u64);
        }
        Ok(true)
    }
}

fn lossy(what: &str, text: &[u8]) -> Fault {
    format!("{what}: {}", String::from_utf8_lossy(text).trim_end()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(content: &[u8], portion: usize) -> Option<u64> {
        let (near, mut far) = tokio::io::duplex(portion);
        let mut wire = Wire::over(Box::new(near));
        let content = content.to_vec();
        let sending = tokio::spawn(async move { far.write_all(&content).await });
        let size = wire.content().await.unwrap();
        drop(wire);
        drop(sending.await.unwrap());
        size
    }

    #[tokio::test]
    async fn content_ends_at_the_dot_however_it_is_cut() {
        for portion in 1..9 {
            for (content, size, why) in [
                (&b".\r\n"[..], Some(3), "empty"),
                (b"a\r\n.\r\n", Some(6), "one line"),
                (b"..\r\n\r\n.\r\nMAIL", Some(9), "a stuffed dot, and a command behind"),
                (b"a\n.\n\r\n.\r\n", Some(9), "a bare line feed ends nothing"),
                (b"abc\r\n.\r", None, "cut off"),
            ] {
                assert_eq!(read(content, portion).await, size, "{why}, portion {portion}");
            }
        }
    }
}
