//! The sealed stream: a prelude in the clear (magic, version, message id, wrapped key), then frames
//! under ChaCha20-Poly1305. A cut, swapped, moved or repeated frame does not open.
//!
//! # Format, version 1
//!
//! ```text
//! prelude   "RSTV"  version(1)=1  message id(16)  wrapped key(76; zeroes once destroyed)
//! frame     kind(1)  length(4, big-endian: ciphertext and tag)  ciphertext  tag(16)
//! nonce     kind(1)  zero(3)  number of the frame(8, big-endian, from 0)
//! associated data    version(1)  message id(16)  kind and length(5)
//! ```
//!
//! | kind | frame | how many |
//! |---|---|---|
//! | 1 | header | one, at most [`HEADER_MAX`] bytes |
//! | 2 | content, more follows | any number, exactly [`CHUNK`] bytes each |
//! | 3 | content, the last | one, at most [`CHUNK`] bytes; empty only if the content is |
//! | 4 | index, more follows | any number, exactly [`CHUNK`] bytes each |
//! | 5 | index, the last | one; at most [`INDEX_MAX`] bytes in all |
//!
//! Each message has its own key, so that numbers serve as nonces. Lengths are canonical: from the
//! header's and the content's length follows where every frame lies ([`offset_of`],
//! [`index_offset`]).

use crate::{
    mail::QueueId,
    seal::{DataKey, WrappedKey},
};
use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use std::fmt;
use zeroize::Zeroizing;

/// Plaintext per frame.
pub const CHUNK: usize = 64 * 1024;
/// The longest header that opens: a thousand recipients with the longest addresses, twice.
pub const HEADER_MAX: usize = 1024 * 1024;
/// The longest index that opens.
pub const INDEX_MAX: usize = 4 * 1024 * 1024;

pub(crate) const MAGIC: [u8; 4] = *b"RSTV";
pub(crate) const VERSION: u8 = 1;
const HEAD: usize = 5;
const TAG: usize = 16;
const OVERHEAD: u64 = (HEAD + TAG) as u64;

/// Why sealed bytes do not open.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum SealError {
    /// Not our magic or an unknown version.
    #[error("not a sealed body of a known version")]
    Format,
    /// Authentication failed.
    #[error("a frame does not open: damaged, moved, or another key")]
    DoesNotOpen,
    /// The end is missing.
    #[error("the sealed body is cut short")]
    Truncated,
    /// Bytes after the end.
    #[error("bytes follow the end of the sealed body")]
    Trailing,
}

/// Opened bytes; zeroed when they are dropped.
pub type Plain = Zeroizing<Vec<u8>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Header = 1,
    Content = 2,
    LastContent = 3,
    Index = 4,
    LastIndex = 5,
}

impl Kind {
    const fn of(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Header),
            2 => Some(Self::Content),
            3 => Some(Self::LastContent),
            4 => Some(Self::Index),
            5 => Some(Self::LastIndex),
            _ => None,
        }
    }
}

/// Cipher and count: what both directions share. The library zeroes its copy of the key when it is
/// dropped.
struct Frames {
    cipher: LessSafeKey,
    id: QueueId,
    number: u64,
}

impl Frames {
    #[expect(clippy::expect_used, reason = "a data key has the length of this cipher's keys")]
    fn new(key: &DataKey, id: QueueId, number: u64) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key.bytes()).expect("32 bytes");
        Self { cipher: LessSafeKey::new(key), id, number }
    }

    fn nonce(&self, kind: Kind) -> Nonce {
        let mut nonce = [0; 12];
        let (first, rest) = nonce.split_at_mut(4);
        first.copy_from_slice(&[kind as u8, 0, 0, 0]);
        rest.copy_from_slice(&self.number.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    fn associated(&self, head: [u8; HEAD]) -> Aad<[u8; 1 + 16 + HEAD]> {
        let mut data = [VERSION; 1 + 16 + HEAD];
        let (id, end) = data.split_at_mut(1).1.split_at_mut(16);
        id.copy_from_slice(self.id.as_bytes());
        end.copy_from_slice(&head);
        Aad::from(data)
    }

    /// Seals `plain` where it stands, appends the frame.
    #[expect(clippy::expect_used, reason = "a frame is bounded far below the cipher's 256 GiB")]
    fn seal(&mut self, kind: Kind, plain: &mut [u8], out: &mut Vec<u8>) {
        let length = u32::try_from(plain.len() + TAG).unwrap_or(u32::MAX).to_be_bytes();
        let mut head = [kind as u8; HEAD];
        head.split_at_mut(1).1.copy_from_slice(&length);
        let tag = self
            .cipher
            .seal_in_place_separate_tag(self.nonce(kind), self.associated(head), plain)
            .expect("shorter than the cipher's limit");
        out.reserve(HEAD + plain.len() + TAG);
        out.extend_from_slice(&head);
        out.extend_from_slice(plain);
        out.extend_from_slice(tag.as_ref());
        self.number += 1;
    }

    /// Opens a frame's ciphertext and tag.
    fn open(&self, kind: Kind, head: [u8; HEAD], sealed: &[u8]) -> Result<Plain, SealError> {
        let (text, tag) = sealed.split_last_chunk::<TAG>().ok_or(SealError::DoesNotOpen)?;
        let mut plain = Zeroizing::new(vec![0; text.len()]);
        let (nonce, associated) = (self.nonce(kind), self.associated(head));
        self.cipher
            .open_separate_gather(nonce, associated, text, tag, &mut plain)
            .map_err(|_| SealError::DoesNotOpen)?;
        Ok(plain)
    }
}

/// Seals while content streams in.
pub struct Sealer {
    frames: Frames,
    pending: Plain,
    size: u64,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("size", &self.size).finish_non_exhaustive()
    }
}

impl Sealer {
    /// Writes prelude and sealed header to `out`. The header must not be longer than
    /// [`HEADER_MAX`]: a longer one would not open.
    pub fn new(
        key: DataKey,
        id: QueueId,
        wrapped: &WrappedKey,
        header: &[u8],
        out: &mut Vec<u8>,
    ) -> Self {
        out.extend_from_slice(&MAGIC);
        out.push(VERSION);
        out.extend_from_slice(id.as_bytes());
        out.extend_from_slice(wrapped.as_bytes());
        let mut frames = Frames::new(&key, id, 0);
        frames.seal(Kind::Header, &mut Zeroizing::new(header.to_vec()), out);
        Self { frames, pending: Plain::default(), size: 0 }
    }

    /// Seals content; appends each frame that became full.
    pub fn feed(&mut self, content: &[u8], out: &mut Vec<u8>) {
        let mut rest = content;
        while !rest.is_empty() {
            // A full frame waits for one byte more: only then is it known not to be the last.
            if self.pending.len() == CHUNK {
                self.flush(Kind::Content, out);
            }
            let (now, later) = rest.split_at(rest.len().min(CHUNK - self.pending.len()));
            extend(&mut self.pending, now);
            rest = later;
        }
        self.size += content.len() as u64;
    }

    /// Content bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The content has ended: appends its last frame and the index, which must not be longer than
    /// [`INDEX_MAX`].
    pub fn finish(mut self, index: &[u8], out: &mut Vec<u8>) {
        self.flush(Kind::LastContent, out);
        let mut rest = index;
        while let Some((now, later)) = rest.split_at_checked(CHUNK).filter(|(_, l)| !l.is_empty()) {
            extend(&mut self.pending, now);
            self.flush(Kind::Index, out);
            rest = later;
        }
        extend(&mut self.pending, rest);
        self.flush(Kind::LastIndex, out);
    }

    fn flush(&mut self, kind: Kind, out: &mut Vec<u8>) {
        self.frames.seal(kind, &mut self.pending, out);
        self.pending.clear();
    }
}

/// Appends plaintext. What it grows out of is zeroed, and a small message has no large buffer to zero
/// in the end.
fn extend(plain: &mut Plain, more: &[u8]) {
    let length = plain.len() + more.len();
    if length > plain.capacity() {
        let mut larger = Plain::new(Vec::with_capacity(length.next_power_of_two().max(8 * 1024)));
        larger.extend_from_slice(plain);
        *plain = larger;
    }
    plain.extend_from_slice(more);
}

/// What opening yields, in order: `Header`, `Content`*, `Index`, `End`. `Debug` shows lengths only.
pub enum Event {
    /// The sealed header's plaintext.
    Header(Plain),
    /// A chunk of content; the offset of its first byte.
    Content(u64, Plain),
    /// The index's plaintext, whole.
    Index(Plain),
    /// Authenticated end.
    End,
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(h) => write!(f, "Header({} bytes)", h.len()),
            Self::Content(at, c) => write!(f, "Content({} bytes at {at})", c.len()),
            Self::Index(i) => write!(f, "Index({} bytes)", i.len()),
            Self::End => f.write_str("End"),
        }
    }
}

/// Where an opener stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Prelude,
    Header,
    Content(u64),
    Index,
    Closing,
    Ended,
    Failed(SealError),
}

/// Opens as sealed bytes stream in. Sans-I/O. After each `feed`, poll until `None`: then at most
/// one frame is held.
pub struct Opener {
    frames: Frames,
    state: State,
    held: Vec<u8>,
    start: usize,
    index: Vec<Plain>,
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").field("state", &self.state).finish_non_exhaustive()
    }
}

/// Prelude of a sealed body, readable without a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prelude {
    /// Message id.
    pub id: QueueId,
    /// Copy of the wrapped key, `None` once it was destroyed (zeroed).
    pub wrapped: Option<WrappedKey>,
}

impl Prelude {
    /// Length in bytes.
    pub const LEN: usize = 5 + 16 + WrappedKey::LEN;
    /// Offset and length of the wrapped key's slot, for destroying it in place.
    pub const SLOT: std::ops::Range<usize> = 21..21 + WrappedKey::LEN;

    /// Reads it from the first [`Prelude::LEN`] bytes; what follows them is not looked at.
    pub fn parse(bytes: &[u8]) -> Result<Self, SealError> {
        let (magic, rest) = bytes.split_first_chunk::<4>().ok_or(SealError::Truncated)?;
        let (version, rest) = rest.split_first().ok_or(SealError::Truncated)?;
        if *magic != MAGIC || *version != VERSION {
            return Err(SealError::Format);
        }
        let (id, rest) = rest.split_first_chunk::<16>().ok_or(SealError::Truncated)?;
        let slot = rest.get(..WrappedKey::LEN).ok_or(SealError::Truncated)?;
        Ok(Self { id: QueueId::from_bytes(*id), wrapped: WrappedKey::from_bytes(slot) })
    }
}

impl Opener {
    /// Opens a body from its first byte.
    pub fn new(key: DataKey, id: QueueId) -> Self {
        Self::at(&key, id, 0, State::Prelude)
    }

    /// Opens from a content frame on: the sealed bytes fed must begin at [`offset_of`] that content
    /// offset. The first content event begins at the frame's first byte, that is, at or before the
    /// offset.
    pub fn from_content(key: DataKey, id: QueueId, content_offset: u64) -> Self {
        let frame = content_offset / CHUNK as u64;
        Self::at(&key, id, 1 + frame, State::Content(frame * CHUNK as u64))
    }

    /// Opens from the index on: the sealed bytes fed must begin at [`index_offset`] of that content
    /// size.
    pub fn from_index(key: DataKey, id: QueueId, content_size: u64) -> Self {
        Self::at(&key, id, 1 + content_frames(content_size), State::Index)
    }

    fn at(key: &DataKey, id: QueueId, number: u64, state: State) -> Self {
        let frames = Frames::new(key, id, number);
        Self { frames, state, held: Vec::new(), start: 0, index: Vec::new() }
    }

    /// Feeds sealed bytes.
    pub fn feed(&mut self, sealed: &[u8]) {
        self.held.drain(..self.start);
        self.start = 0;
        self.held.extend_from_slice(sealed);
    }

    /// The next event, `None` if more bytes are needed. An error stays.
    pub fn poll(&mut self) -> Result<Option<Event>, SealError> {
        let answer = self.step();
        if let Err(error) = answer {
            self.state = State::Failed(error);
            self.held = Vec::new();
            self.start = 0;
        }
        answer
    }

    /// The sealed bytes have ended: an error unless [`Event::End`] was reached.
    pub fn finish(&self) -> Result<(), SealError> {
        match self.state {
            State::Ended if self.rest().is_empty() => Ok(()),
            State::Ended => Err(SealError::Trailing),
            State::Failed(error) => Err(error),
            State::Prelude | State::Header | State::Content(_) | State::Index | State::Closing => {
                Err(SealError::Truncated)
            }
        }
    }

    fn rest(&self) -> &[u8] {
        self.held.get(self.start..).unwrap_or_default()
    }

    fn step(&mut self) -> Result<Option<Event>, SealError> {
        if self.state == State::Prelude && !self.prelude()? {
            return Ok(None);
        }
        match self.state {
            State::Failed(error) => return Err(error),
            State::Closing | State::Ended if !self.rest().is_empty() => {
                return Err(SealError::Trailing);
            }
            State::Closing => {
                self.state = State::Ended;
                return Ok(Some(Event::End));
            }
            State::Ended => return Ok(None),
            State::Prelude | State::Header | State::Content(_) | State::Index => {}
        }
        while let Some((kind, plain)) = self.frame()? {
            if let Some(event) = self.advance(kind, plain) {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// True once the prelude is behind us. Another message's body is refused here already.
    fn prelude(&mut self) -> Result<bool, SealError> {
        let Some(bytes) = self.rest().get(..Prelude::LEN) else { return Ok(false) };
        if Prelude::parse(bytes)?.id != self.frames.id {
            return Err(SealError::DoesNotOpen);
        }
        self.start += Prelude::LEN;
        self.state = State::Header;
        Ok(true)
    }

    /// The next whole frame, opened. Its head is judged before its body is awaited.
    fn frame(&mut self) -> Result<Option<(Kind, Plain)>, SealError> {
        let Some((head, rest)) = self.rest().split_first_chunk::<HEAD>() else { return Ok(None) };
        let [kind, length @ ..] = *head;
        let kind = Kind::of(kind).ok_or(SealError::DoesNotOpen)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        let plain = length.checked_sub(TAG).ok_or(SealError::DoesNotOpen)?;
        if !self.expects(kind, plain) {
            return Err(SealError::DoesNotOpen);
        }
        let Some(sealed) = rest.get(..length) else { return Ok(None) };
        let plain = self.frames.open(kind, *head, sealed)?;
        self.frames.number += 1;
        self.start += HEAD + length;
        Ok(Some((kind, plain)))
    }

    fn expects(&self, kind: Kind, plain: usize) -> bool {
        let indexed = self.index.len() * CHUNK;
        match (self.state, kind) {
            (State::Header, Kind::Header) => plain <= HEADER_MAX,
            (State::Content(_), Kind::Content) => plain == CHUNK,
            (State::Content(at), Kind::LastContent) => plain <= CHUNK && (plain > 0 || at == 0),
            (State::Index, Kind::Index) => plain == CHUNK && indexed + CHUNK <= INDEX_MAX,
            (State::Index, Kind::LastIndex) => {
                plain <= CHUNK && (plain > 0 || indexed == 0) && indexed + plain <= INDEX_MAX
            }
            (
                State::Prelude
                | State::Header
                | State::Content(_)
                | State::Index
                | State::Closing
                | State::Ended
                | State::Failed(_),
                Kind::Header | Kind::Content | Kind::LastContent | Kind::Index | Kind::LastIndex,
            ) => false,
        }
    }

    fn advance(&mut self, kind: Kind, plain: Plain) -> Option<Event> {
        match kind {
            Kind::Header => {
                self.state = State::Content(0);
                Some(Event::Header(plain))
            }
            Kind::Content | Kind::LastContent => {
                let State::Content(at) = self.state else { return None };
                self.state = if kind == Kind::LastContent {
                    State::Index
                } else {
                    State::Content(at + plain.len() as u64)
                };
                Some(Event::Content(at, plain))
            }
            Kind::Index => {
                self.index.push(plain);
                None
            }
            Kind::LastIndex => {
                self.state = State::Closing;
                Some(Event::Index(self.gather(plain)))
            }
        }
    }

    /// The index in one piece; room is made once, so that no copy stays behind unzeroed.
    fn gather(&mut self, last: Plain) -> Plain {
        self.index.push(last);
        let length = self.index.iter().map(|piece| piece.len()).sum();
        let mut whole = Zeroizing::new(Vec::with_capacity(length));
        for piece in self.index.drain(..) {
            whole.extend_from_slice(&piece);
        }
        whole
    }
}

/// Where in the sealed bytes the frame with that content offset begins (header plaintext length
/// given).
pub fn offset_of(header_len: u32, content_offset: u64) -> u64 {
    let first = Prelude::LEN as u64 + OVERHEAD + u64::from(header_len);
    (content_offset / CHUNK as u64).saturating_mul(CHUNK as u64 + OVERHEAD).saturating_add(first)
}

/// Where the index's first frame begins, for content of that size.
pub fn index_offset(header_len: u32, content_size: u64) -> u64 {
    content_frames(content_size)
        .saturating_mul(OVERHEAD)
        .saturating_add(content_size)
        .saturating_add(offset_of(header_len, 0))
}

/// Empty content has one frame too: the one that says it is the last.
fn content_frames(size: u64) -> u64 {
    size.div_ceil(CHUNK as u64).max(1)
}
