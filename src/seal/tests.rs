//! The stream against itself: round trips, random access, and everything an editor of the store
//! might try.

use super::{
    stream::{CHUNK, HEADER_MAX, INDEX_MAX},
    *,
};
use crate::mail::QueueId;
use proptest::prelude::*;
use zeroize::Zeroizing;

const ID: QueueId = QueueId::from_bytes([7; 16]);
const OTHER: QueueId = QueueId::from_bytes([8; 16]);
const HEADER: &[u8] = b"PLAINTEXT-MARKER header";
const INDEX: &[u8] = b"PLAINTEXT-MARKER index";
/// Head and tag of a frame.
const OVERHEAD: usize = 21;

fn key() -> DataKey {
    DataKey::from_random(Zeroizing::new([0xd5; 32]))
}

fn ring() -> KeyRing {
    KeyRing::generate(Zeroizing::new([0x11; 32]))
}

fn content(length: usize) -> Vec<u8> {
    let line = b"PLAINTEXT-MARKER in every line of the content\r\n";
    let mut text = line.repeat(length / line.len() + 1);
    text.truncate(length);
    text
}

const SUITE: Suite = Suite::ChaCha20Poly1305;
const FORMAT: Format = Format::V2(SUITE);
/// Length of the prelude of a body that is written now.
const PRELUDE: usize = 23 + 2 * WrappedKey::LEN;

fn wrapped(id: QueueId) -> WrappedKey {
    ring().wrap(&key(), Purpose::Message, id, [9; 24])
}

fn seal_with(id: QueueId, header: &[u8], content: &[u8], index: &[u8]) -> Vec<u8> {
    seal_by(SUITE, id, header, content, index)
}

fn seal_by(suite: Suite, id: QueueId, header: &[u8], content: &[u8], index: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut sealer = Sealer::new(suite, &key(), id, &wrapped(id), header, &mut out);
    sealer.feed(content, &mut out);
    assert_eq!(sealer.size(), content.len() as u64);
    sealer.finish(index, &mut out);
    out
}

fn seal(length: usize) -> Vec<u8> {
    seal_with(ID, HEADER, &content(length), INDEX)
}

#[derive(Debug, Default, PartialEq)]
struct Opened {
    header: Option<Vec<u8>>,
    content: Vec<u8>,
    index: Option<Vec<u8>>,
    ended: bool,
}

fn run<'a>(
    mut opener: Opener,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Opened, SealError> {
    let mut opened = Opened::default();
    let mut base = None;
    for piece in pieces {
        opener.feed(piece);
        while let Some(event) = opener.poll()? {
            match event {
                Event::Header(h) => opened.header = Some(h.to_vec()),
                Event::Content(at, c) => {
                    let base = *base.get_or_insert(at);
                    assert_eq!(at - base, opened.content.len() as u64);
                    opened.content.extend_from_slice(&c);
                }
                Event::Index(i) => opened.index = Some(i.to_vec()),
                Event::End => opened.ended = true,
            }
        }
    }
    opener.finish()?;
    Ok(opened)
}

fn open(sealed: &[u8]) -> Result<Opened, SealError> {
    run(Opener::new(FORMAT, &key(), ID), [sealed])
}

const SIZES: [usize; 9] =
    [0, 1, 998, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1, 1_000_000];

#[test]
fn what_was_sealed_opens() {
    for size in SIZES {
        let opened = open(&seal(size)).unwrap();
        let want = Opened {
            header: Some(HEADER.to_vec()),
            content: content(size),
            index: Some(INDEX.to_vec()),
            ended: true,
        };
        assert!(opened == want, "{size} bytes");
    }
}

#[test]
fn headers_and_indexes_of_every_length_open_up_to_their_bounds() {
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, HEADER_MAX] {
        let text = content(length);
        let opened = open(&seal_with(ID, &text, b"x", &text)).unwrap();
        assert!(opened.header.as_deref() == Some(&text), "header of {length}");
        assert!(opened.index.as_deref() == Some(&text), "index of {length}");
    }
    let most = content(INDEX_MAX);
    assert!(open(&seal_with(ID, b"", b"", &most)).unwrap().index == Some(most));
    let more = content(INDEX_MAX + 1);
    assert_eq!(open(&seal_with(ID, b"", b"", &more)), Err(SealError::DoesNotOpen));
    let more = content(HEADER_MAX + 1);
    assert_eq!(open(&seal_with(ID, &more, b"", b"")), Err(SealError::DoesNotOpen));
}

#[test]
fn no_plaintext_in_any_sealed_byte() {
    let sealed = seal(200_000);
    for marker in [b"PLAINTEXT".as_slice(), b"MARKER"] {
        assert!(!sealed.windows(marker.len()).any(|w| w == marker));
    }
}

#[test]
fn offsets_say_where_frames_begin() {
    let header = u32::try_from(HEADER.len()).unwrap();
    for size in SIZES {
        let sealed = seal(size);
        let prelude = Prelude::parse(&sealed).unwrap();
        let end = prelude.index_offset(header, size as u64);
        let index =
            run(Opener::from_index(FORMAT, &key(), ID, size as u64), [&sealed[end as usize..]]);
        assert_eq!(index.unwrap().index.as_deref(), Some(INDEX), "{size}");
        for at in [0, 1, CHUNK - 1, CHUNK, 2 * CHUNK - 1, 2 * CHUNK, size.saturating_sub(1)] {
            if at < size || at == 0 {
                let from = prelude.offset_of(header, at as u64) as usize;
                let tail =
                    run(Opener::from_content(FORMAT, &key(), ID, at as u64), [&sealed[from..]]);
                assert!(
                    tail.unwrap().content == content(size)[at / CHUNK * CHUNK..],
                    "{at}/{size}"
                );
            }
        }
    }
    let prelude = Prelude::parse(&seal(0)).unwrap();
    assert_eq!(prelude.index_offset(u32::MAX, u64::MAX), u64::MAX, "saturates");
}

#[test]
fn random_access_at_the_wrong_place_does_not_open() {
    let header = u32::try_from(HEADER.len()).unwrap();
    let sealed = seal(3 * CHUNK);
    let prelude = Prelude::parse(&sealed).unwrap();
    let from = |at: u64| &sealed[prelude.offset_of(header, at) as usize..];
    let c = CHUNK as u64;
    for (opener, bytes, why) in [
        (Opener::from_content(FORMAT, &key(), ID, c), from(0), "an earlier frame"),
        (Opener::from_content(FORMAT, &key(), ID, 0), from(c), "a later frame"),
        (Opener::from_content(FORMAT, &key(), ID, 3 * c), from(3 * c), "behind the last"),
        (Opener::from_content(FORMAT, &key(), OTHER, 0), from(0), "another message"),
        (Opener::from_index(FORMAT, &key(), ID, 3 * c), from(0), "content as index"),
        (Opener::from_index(FORMAT, &key(), ID, 2 * c), from(3 * c), "another size"),
    ] {
        assert_eq!(run(opener, [bytes]), Err(SealError::DoesNotOpen), "{why}");
    }
}

#[test]
fn every_cut_is_noticed() {
    let sealed = seal(100);
    for length in 0..sealed.len() {
        assert_eq!(open(&sealed[..length]), Err(SealError::Truncated), "{length} bytes");
    }
    let long = seal(3 * CHUNK);
    let header = u32::try_from(HEADER.len()).unwrap();
    let prelude = Prelude::parse(&long).unwrap();
    for frame in 0..=3 {
        let at = prelude.offset_of(header, frame * CHUNK as u64) as usize;
        assert_eq!(open(&long[..at]), Err(SealError::Truncated), "before frame {frame}");
    }
}

#[test]
fn every_flipped_bit_is_noticed_outside_the_slots() {
    let sealed = seal(100);
    for at in 0..sealed.len() * 8 {
        let mut bad = sealed.clone();
        bad[at / 8] ^= 1 << (at % 8);
        let answer = open(&bad);
        // Each wrapped key is authenticated by itself: see the ring.
        if (23..PRELUDE).contains(&(at / 8)) {
            assert!(answer.is_ok(), "bit {at}");
            let opens = |wrapped| ring().unwrap(wrapped, Purpose::Message, ID).is_ok();
            let good = Prelude::parse(&bad).unwrap().wrapped().filter(|w| opens(w)).count();
            assert_eq!(good, usize::from(at / 8 >= 23 + WrappedKey::LEN), "bit {at}");
        } else {
            assert!(answer.is_err(), "bit {at}");
        }
    }
}

#[test]
fn each_suite_seals_and_opens_as_itself_alone() {
    let suites = [Suite::ChaCha20Poly1305, Suite::Aes256Gcm];
    for suite in suites {
        let sealed = seal_by(suite, ID, HEADER, &content(2 * CHUNK), INDEX);
        assert_eq!(Prelude::parse(&sealed).unwrap().format, Format::V2(suite));
        for other in suites {
            let opened = run(Opener::new(Format::V2(other), &key(), ID), [&sealed[..]]);
            assert_eq!(opened.is_ok(), other == suite, "{suite:?} as {other:?}");
            let mut relabelled = sealed.clone();
            relabelled[21] = other as u8;
            let opened = run(Opener::new(Format::V2(other), &key(), ID), [&relabelled[..]]);
            assert_eq!(opened.is_ok(), other == suite, "{suite:?} labelled {other:?}");
        }
    }
}

/// The frames of a sealed body, by following the heads.
fn frames(sealed: &[u8]) -> Vec<&[u8]> {
    let (prelude, mut rest) = sealed.split_at(PRELUDE);
    let mut frames = vec![prelude];
    while !rest.is_empty() {
        let length = 5 + u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
        frames.push(&rest[..length]);
        rest = &rest[length..];
    }
    frames
}

#[test]
fn frames_left_out_repeated_or_exchanged_are_noticed() {
    // Prelude, header, three content frames, three index frames.
    let sealed = seal_with(ID, HEADER, &content(3 * CHUNK), &content(3 * CHUNK));
    let whole = frames(&sealed);
    assert_eq!(whole.len(), 8);
    for a in 1..whole.len() {
        let mut less = whole.clone();
        less.remove(a);
        assert!(open(&less.concat()).is_err(), "without frame {a}");
        for b in 1..=whole.len() {
            let mut more = whole.clone();
            more.insert(b, whole[a]);
            assert!(open(&more.concat()).is_err(), "frame {a} again at {b}");
        }
        for b in 1..a {
            let mut swapped = whole.clone();
            swapped.swap(a, b);
            assert!(open(&swapped.concat()).is_err(), "frames {a} and {b} exchanged");
        }
    }
}

#[test]
fn frames_of_another_message_are_noticed_even_under_the_same_key() {
    let (ours, theirs) = (seal(2 * CHUNK), seal_with(OTHER, HEADER, &content(2 * CHUNK), INDEX));
    assert_eq!(open(&theirs), Err(SealError::DoesNotOpen), "the whole body");
    let (ours, theirs) = (frames(&ours), frames(&theirs));
    for at in 1..ours.len() {
        let mut mixed = ours.clone();
        mixed[at] = theirs[at];
        assert_eq!(open(&mixed.concat()), Err(SealError::DoesNotOpen), "frame {at}");
    }
    let wrong = DataKey::from_random(Zeroizing::new([0xd6; 32]));
    let sealed = seal(100);
    assert_eq!(run(Opener::new(FORMAT, &wrong, ID), [&sealed[..]]), Err(SealError::DoesNotOpen));
}

#[test]
fn bytes_behind_the_end_are_noticed() {
    let mut sealed = seal(100);
    let length = sealed.len();
    sealed.push(0);
    assert_eq!(open(&sealed), Err(SealError::Trailing), "in one piece");
    let (body, more) = sealed.split_at(length);
    assert_eq!(
        run(Opener::new(FORMAT, &key(), ID), [body, more]),
        Err(SealError::Trailing),
        "later"
    );
    let twice = [body, body].concat();
    assert_eq!(open(&twice), Err(SealError::Trailing), "the body again");
}

#[test]
fn heads_are_judged_before_a_body_is_awaited() {
    let sealed = seal(CHUNK + 1);
    let starts = frames(&sealed);
    let first = starts[0].len();
    let second = first + starts[1].len();
    for (at, head, why) in [
        (first, [1, 0xff, 0xff, 0xff, 0xff], "a header of 4 GiB"),
        (first, [1, 0, 0x10, 0, 0x11], "a header one byte too long"),
        (first, [1, 0, 0, 0, 15], "shorter than a tag"),
        (first, [3, 0, 0, 0, 16], "content where the header is due"),
        (first, [0, 0, 0, 0, 16], "kind 0"),
        (first, [6, 0, 0, 0, 16], "kind 6"),
        (second, [2, 0, 1, 0, 0x11], "a chunk one byte too long"),
        (second, [2, 0, 1, 0, 0x0f], "a chunk one byte too short, more to follow"),
        (second, [3, 0, 1, 0, 0x11], "a last chunk one byte too long"),
        (second, [1, 0, 0, 0, 16], "a second header"),
        (second, [5, 0, 0, 0, 16], "the index without content"),
    ] {
        let mut opener = Opener::new(FORMAT, &key(), ID);
        opener.feed(&sealed[..at]);
        while opener.poll().unwrap().is_some() {}
        opener.feed(&head);
        assert_eq!(opener.poll().err(), Some(SealError::DoesNotOpen), "{why}");
        assert_eq!(opener.poll().err(), Some(SealError::DoesNotOpen), "{why}: it stays");
        assert_eq!(opener.finish(), Err(SealError::DoesNotOpen), "{why}: to the end");
    }
}

#[test]
fn an_empty_chunk_after_content_is_no_end() {
    // Sealed under the right key at the right place, but no sealer writes it: one text, one form.
    let long = seal(CHUNK + 1);
    assert_eq!(frames(&long)[3].len(), OVERHEAD + 1);
    let mut opener = Opener::new(FORMAT, &key(), ID);
    opener.feed(&frames(&long)[..3].concat());
    while opener.poll().unwrap().is_some() {}
    opener.feed(&[3, 0, 0, 0, 16]);
    assert_eq!(opener.poll().err(), Some(SealError::DoesNotOpen));
}

#[test]
fn the_prelude_reads_without_a_key() {
    let mut sealed = seal(10);
    let prelude = Prelude::parse(&sealed).unwrap();
    assert_eq!((prelude.format, prelude.id, prelude.length()), (FORMAT, ID, PRELUDE));
    assert_eq!(prelude.slots, [Some(wrapped(ID)), None], "and room for another");
    let opened = ring().unwrap(prelude.wrapped().next().unwrap(), Purpose::Message, ID).unwrap();
    assert_eq!(opened.bytes(), key().bytes());

    for (at, byte, why) in [
        (4, 0, "version 0"),
        (4, 3, "version 3"),
        (21, 0, "suite 0"),
        (21, 3, "suite 3"),
        (22, 0, "no slot"),
        (22, 5, "five slots"),
        (0, b'r', "magic"),
    ] {
        let mut bad = sealed.clone();
        bad[at] = byte;
        assert_eq!(Prelude::parse(&bad).err(), Some(SealError::Format), "{why}");
        assert_eq!(open(&bad), Err(SealError::Format), "{why}");
    }
    assert_eq!(Prelude::parse(&sealed[..PRELUDE - 1]).err(), Some(SealError::Truncated));
    let end = Prelude::KEYED.end.min(sealed.len());
    sealed[Prelude::KEYED.start..end].fill(0);
    assert_eq!(Prelude::parse(&sealed).unwrap().wrapped().count(), 0, "destroyed");
}

#[test]
fn debug_prints_no_plaintext() {
    let sealed = seal(10);
    let mut opener = Opener::new(FORMAT, &key(), ID);
    opener.feed(&sealed);
    let mut seen = format!("{opener:?}");
    while let Some(event) = opener.poll().unwrap() {
        seen += &format!("{event:?} {opener:?}");
    }
    let mut out = Vec::new();
    let mut sealer = Sealer::new(SUITE, &key(), ID, &wrapped(ID), HEADER, &mut out);
    sealer.feed(b"PLAINTEXT-MARKER", &mut out);
    seen += &format!("{sealer:?}");
    assert!(seen.contains("Header(23 bytes)") && seen.contains("Content(10 bytes at 0)"), "{seen}");
    // Neither as text nor as a list of numbers ("PL" is 80, 76; the key's bytes are 213).
    assert!(
        !seen.contains("MARKER") && !seen.contains("80, 76") && !seen.contains("213"),
        "{seen}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn portions_do_not_matter(
        size in 0..3 * CHUNK,
        writes in prop::collection::vec(1..CHUNK + 9, 1..9),
        reads in prop::collection::vec(1..CHUNK + 9, 1..9),
    ) {
        let text = content(size);
        let mut out = Vec::new();
        let mut sealer = Sealer::new(SUITE, &key(), ID, &wrapped(ID), HEADER, &mut out);
        for piece in pieces(&text, &writes) {
            sealer.feed(piece, &mut out);
        }
        sealer.finish(INDEX, &mut out);
        prop_assert!(out == seal(size));
        let opened = run(Opener::new(FORMAT, &key(), ID), pieces(&out, &reads)).unwrap();
        prop_assert!(opened.content == text && opened.ended);
    }

    #[test]
    fn noise_never_opens(noise in prop::collection::vec(any::<u8>(), 0..400)) {
        let body = [&seal(0)[..PRELUDE], &noise].concat();
        prop_assert!(open(&body).is_err());
        prop_assert!(open(&noise).is_err());
    }
}

fn pieces<'a>(mut bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for size in sizes.iter().cycle() {
        if bytes.is_empty() {
            break;
        }
        let (now, rest) = bytes.split_at(bytes.len().min(*size));
        pieces.push(now);
        bytes = rest;
    }
    pieces
}
