//! The sealed stream: a prelude in the clear (magic, version, message id, suite, wrapped keys), then
//! frames under an authenticated cipher. A cut, swapped, moved or repeated frame does not open.
//!
//! # Format, version 2
//!
//! ```text
//! prelude   "RSTV"  version(1)=2  message id(16)  suite(1)  slots(1)  slot(77) for each
//! slot      a wrapped key, or zeroes
//! frame     kind(1)  length(4, big-endian: ciphertext and tag)  ciphertext  tag(16)
//! nonce     kind(1)  zero(3)  number of the frame(8, big-endian, from 0)
//! associated data    version(1)  message id(16)  kind and length(5)  suite(1)
//! ```
//!
//! | suite | cipher |
//! |---|---|
//! | 1 | ChaCha20-Poly1305 (RFC 8439) |
//! | 2 | AES-256-GCM (NIST SP 800-38D) |
//!
//! A body is written with two slots, the second empty: a key ring that rotates writes the new wrap
//! there before it overwrites the old one. At most [`Prelude::SLOTS_MAX`] slots are read. A message is
//! destroyed by zeroes over [`Prelude::KEYED`], whatever the version: no wrap is anywhere else.
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
//! prelude, the header's and the content's length follows where every frame lies
//! ([`Prelude::offset_of`], [`Prelude::index_offset`]).
//!
//! # Format, version 1
//!
//! Is read, and no longer written. The prelude ends in one wrapped key of format 1 (76 bytes) in place
//! of suite and slots, the suite is ChaCha20-Poly1305, and the associated data of a frame ends before
//! the suite.

use crate::{
    mail::QueueId,
    seal::{DataKey, WrappedKey},
};
use aws_lc_rs::aead::{
    AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use std::{fmt, ops::Range};
use zeroize::Zeroizing;

/// Plaintext per frame.
pub const CHUNK: usize = 64 * 1024;
/// The longest header that opens: a thousand recipients with the longest addresses, twice.
pub const HEADER_MAX: usize = 1024 * 1024;
/// The longest index that opens.
pub const INDEX_MAX: usize = 4 * 1024 * 1024;

pub(crate) const MAGIC: [u8; 4] = *b"RSTV";
const HEAD: usize = 5;
const TAG: usize = 16;
const OVERHEAD: u64 = (HEAD + TAG) as u64;

/// The cipher of a body's frames; the data key has 256 bits in both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Suite {
    /// ChaCha20-Poly1305 (RFC 8439).
    #[default]
    ChaCha20Poly1305 = 1,
    /// AES-256-GCM (NIST SP 800-38D).
    Aes256Gcm = 2,
}

impl Suite {
    const fn of(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::ChaCha20Poly1305),
            2 => Some(Self::Aes256Gcm),
            _ => None,
        }
    }

    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            Self::Aes256Gcm => &AES_256_GCM,
        }
    }
}

/// How a body's frames are sealed: what its prelude says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Version 1.
    V1,
    /// Version 2, with its suite.
    V2(Suite),
}

impl Format {
    const fn version(self) -> u8 {
        match self {
            Self::V1 => 1,
            Self::V2(_) => 2,
        }
    }

    const fn suite(self) -> Suite {
        match self {
            Self::V1 => Suite::ChaCha20Poly1305,
            Self::V2(suite) => suite,
        }
    }
}

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
    format: Format,
    id: QueueId,
    number: u64,
}

impl Frames {
    #[expect(clippy::expect_used, reason = "a data key has the length of each suite's keys")]
    fn new(format: Format, key: &DataKey, id: QueueId, number: u64) -> Self {
        let key = UnboundKey::new(format.suite().algorithm(), key.bytes()).expect("32 bytes");
        Self { cipher: LessSafeKey::new(key), format, id, number }
    }

    fn nonce(&self, kind: Kind) -> Nonce {
        let mut nonce = [0; 12];
        let (first, rest) = nonce.split_at_mut(4);
        first.copy_from_slice(&[kind as u8, 0, 0, 0]);
        rest.copy_from_slice(&self.number.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    fn associated(&self, head: [u8; HEAD]) -> Aad<Vec<u8>> {
        let version = [self.format.version()];
        let mut data = [version.as_slice(), self.id.as_bytes(), &head].concat();
        match self.format {
            Format::V1 => {}
            Format::V2(suite) => data.push(suite as u8),
        }
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
        suite: Suite,
        key: &DataKey,
        id: QueueId,
        wrapped: &WrappedKey,
        header: &[u8],
        out: &mut Vec<u8>,
    ) -> Self {
        let format = Format::V2(suite);
        out.extend_from_slice(&MAGIC);
        out.push(format.version());
        out.extend_from_slice(id.as_bytes());
        out.extend_from_slice(&[suite as u8, Prelude::SLOTS]);
        out.extend_from_slice(&wrapped.to_bytes());
        out.extend_from_slice(&[0; WrappedKey::LEN]);
        let mut frames = Frames::new(format, key, id, 0);
        frames.seal(Kind::Header, &mut Zeroizing::new(header.to_vec()), out);
        Self { frames, pending: Plain::default(), size: 0 }
    }

    /// Seals content that nothing finds but those who hold its key: without prelude and header.
    pub fn bare(suite: Suite, key: &DataKey, id: QueueId) -> Self {
        let frames = Frames::new(Format::V2(suite), key, id, 1);
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
    /// How the frames behind it are sealed.
    pub format: Format,
    /// Message id.
    pub id: QueueId,
    /// Wrapped keys by slot, `None` where the slot is empty; none at all once the message has been
    /// destroyed.
    pub slots: Vec<Option<WrappedKey>>,
}

impl Prelude {
    /// Slots that a new body has.
    const SLOTS: u8 = 2;
    /// Slots at most.
    pub const SLOTS_MAX: usize = 4;
    /// Bytes before the part that differs between the versions.
    const COMMON: usize = 4 + 1 + 16;
    /// Offset of the first slot.
    const FIRST: usize = Self::COMMON + 2;
    /// Length at most, in any version: so many bytes are enough to read it.
    pub const MAX: usize = Self::FIRST + Self::SLOTS_MAX * WrappedKey::LEN;
    /// Where wrapped keys may lie, in any version. Zeroes from its start to its end, or to the end of
    /// a shorter body, destroy the message.
    pub const KEYED: Range<usize> = Self::COMMON..Self::MAX;

    /// Reads it from the first bytes of a body; what follows it is not looked at.
    pub fn parse(bytes: &[u8]) -> Result<Self, SealError> {
        let (magic, rest) = bytes.split_first_chunk::<4>().ok_or(SealError::Truncated)?;
        let (version, rest) = rest.split_first().ok_or(SealError::Truncated)?;
        if *magic != MAGIC || !(1..=2).contains(version) {
            return Err(SealError::Format);
        }
        let (id, rest) = rest.split_first_chunk::<16>().ok_or(SealError::Truncated)?;
        let id = QueueId::from_bytes(*id);
        if *version == 1 {
            let slot = rest.get(..WrappedKey::LEN_1).ok_or(SealError::Truncated)?;
            let slots = vec![WrappedKey::from_bytes(slot)];
            return Ok(Self { format: Format::V1, id, slots });
        }
        let ([suite, count], rest) = rest.split_first_chunk().ok_or(SealError::Truncated)?;
        if (*suite, *count) == (0, 0) && rest.iter().take(WrappedKey::LEN).all(|byte| *byte == 0) {
            return Ok(Self { format: Format::V2(Suite::default()), id, slots: Vec::new() });
        }
        let suite = Suite::of(*suite).ok_or(SealError::Format)?;
        let count = usize::from(*count);
        if count == 0 || count > Self::SLOTS_MAX {
            return Err(SealError::Format);
        }
        let slots = rest.get(..count * WrappedKey::LEN).ok_or(SealError::Truncated)?;
        let slots = slots.chunks(WrappedKey::LEN).map(WrappedKey::from_bytes).collect();
        Ok(Self { format: Format::V2(suite), id, slots })
    }

    /// The wrapped keys that are there.
    pub fn wrapped(&self) -> impl Iterator<Item = &WrappedKey> {
        self.slots.iter().flatten()
    }

    /// Offset of a slot in the body.
    pub const fn slot_at(&self, slot: usize) -> usize {
        match self.format {
            Format::V1 => Self::COMMON,
            Format::V2(_) => Self::FIRST + slot * WrappedKey::LEN,
        }
    }

    /// The bytes of all slots, from [`Prelude::slot_at`] of the first on, where that one alone holds a
    /// key. `None` without such a slot, or where the key is wrapped in another format.
    pub fn keyed_by(&self, slot: usize, key: &WrappedKey) -> Option<Vec<u8>> {
        let (key, first) = (key.to_bytes(), self.slot_at(0));
        let mut bytes = vec![0; self.length().checked_sub(first)?];
        let at = self.slot_at(slot).checked_sub(first)?;
        let place = bytes.get_mut(at..)?.get_mut(..key.len())?;
        let fits = match self.format {
            Format::V1 => slot == 0 && key.len() == WrappedKey::LEN_1,
            Format::V2(_) => key.len() == WrappedKey::LEN,
        };
        place.copy_from_slice(&key);
        fits.then_some(bytes)
    }

    /// Its length in bytes, in a body that has not been destroyed.
    pub fn length(&self) -> usize {
        match self.format {
            Format::V1 => Self::COMMON + WrappedKey::LEN_1,
            Format::V2(_) => self.slot_at(self.slots.len()),
        }
    }

    /// Where in the sealed bytes the frame with that content offset begins (header plaintext length
    /// given).
    pub fn offset_of(&self, header_len: u32, content_offset: u64) -> u64 {
        let first = self.length() as u64 + OVERHEAD + u64::from(header_len);
        (content_offset / CHUNK as u64)
            .saturating_mul(CHUNK as u64 + OVERHEAD)
            .saturating_add(first)
    }

    /// Where the index's first frame begins, for content of that size.
    pub fn index_offset(&self, header_len: u32, content_size: u64) -> u64 {
        content_frames(content_size)
            .saturating_mul(OVERHEAD)
            .saturating_add(content_size)
            .saturating_add(self.offset_of(header_len, 0))
    }

    /// So many bytes of a body hold its prelude, of any version, and its header.
    pub fn head_length(header_len: u32) -> u64 {
        Self::MAX as u64 + OVERHEAD + u64::from(header_len)
    }
}

impl Opener {
    /// Opens a body from its first byte.
    pub fn new(format: Format, key: &DataKey, id: QueueId) -> Self {
        Self::at(format, key, id, 0, State::Prelude)
    }

    /// Opens from a content frame on: the sealed bytes fed must begin at [`Prelude::offset_of`] that
    /// content offset. The first content event begins at the frame's first byte, that is, at or before
    /// the offset.
    pub fn from_content(format: Format, key: &DataKey, id: QueueId, content_offset: u64) -> Self {
        let frame = content_offset / CHUNK as u64;
        Self::at(format, key, id, 1 + frame, State::Content(frame * CHUNK as u64))
    }

    /// Opens from the index on: the sealed bytes fed must begin at [`Prelude::index_offset`] of that
    /// content size.
    pub fn from_index(format: Format, key: &DataKey, id: QueueId, content_size: u64) -> Self {
        Self::at(format, key, id, 1 + content_frames(content_size), State::Index)
    }

    fn at(format: Format, key: &DataKey, id: QueueId, number: u64, state: State) -> Self {
        let frames = Frames::new(format, key, id, number);
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
        let prelude = match Prelude::parse(self.rest()) {
            Err(SealError::Truncated) => return Ok(false),
            prelude => prelude?,
        };
        if prelude.id != self.frames.id || prelude.format != self.frames.format {
            return Err(SealError::DoesNotOpen);
        }
        self.start += prelude.length();
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

/// Empty content has one frame too: the one that says it is the last.
fn content_frames(size: u64) -> u64 {
    size.div_ceil(CHUNK as u64).max(1)
}
