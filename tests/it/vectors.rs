//! The sealed format by frozen vectors: see `tests/vectors/README.md`.

use data_encoding::HEXLOWER;
use restante::{
    mail::QueueId,
    seal::{
        DataKey, Event, Format, KeyRing, Opener, Prelude, Purpose, RingError, SealError, Sealer,
    },
};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    #[serde(skip)]
    folder: PathBuf,
    why: String,
    expect: String,
    ring: String,
    id: String,
    pieces: Vec<Piece>,
    #[serde(default)]
    patches: Vec<Patch>,
    opened: Option<Texts<Sum>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Piece {
    file: String,
    from: usize,
    to: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    at: usize,
    hex: String,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Texts<T> {
    header: T,
    content: T,
    index: T,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sum {
    length: usize,
    sha256: String,
}

/// Where the vectors of a version lie.
fn folder(version: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(version)
}

fn text(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).expect(name)
}

impl Case {
    fn read(version: &str, name: &str) -> Self {
        let folder = folder(version);
        let text = text(&folder, &format!("{}.toml", name.replace('_', "-")));
        Self { folder, ..toml::from_str(&text).expect(name) }
    }

    fn ring(&self) -> KeyRing {
        KeyRing::parse(&text(&self.folder, &self.ring)).expect("a frozen ring")
    }

    fn id(&self) -> QueueId {
        let bytes = HEXLOWER.decode(self.id.as_bytes()).expect("hex");
        QueueId::from_bytes(bytes.try_into().expect("16 bytes"))
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for Piece { file, from, to } in &self.pieces {
            let whole = fs::read(self.folder.join(file)).expect(file);
            bytes.extend_from_slice(&whole[*from..*to]);
        }
        for Patch { at, hex } in &self.patches {
            let patch = HEXLOWER.decode(hex.as_bytes()).expect("hex");
            let there = &mut bytes[*at..*at + patch.len()];
            assert_ne!(there, patch, "a patch that changes nothing");
            there.copy_from_slice(&patch);
        }
        bytes
    }
}

/// Opens as a vault does: prelude, ring, stream. The error by its name.
fn open(case: &Case, sealed: &[u8], portion: usize) -> Result<Texts<Vec<u8>>, &'static str> {
    let prelude = Prelude::parse(sealed).map_err(seal_error)?;
    let key = key(case, &prelude)?;
    gather(Opener::new(prelude.format, &key, case.id()), sealed, portion)
}

/// The data key, by the first wrapped key that opens.
fn key(case: &Case, prelude: &Prelude) -> Result<DataKey, &'static str> {
    let opened = prelude.wrapped().map(|w| case.ring().unwrap(w, Purpose::Message, prelude.id));
    opened.reduce(Result::or).ok_or("destroyed")?.map_err(ring_error)
}

fn gather(
    mut opener: Opener,
    sealed: &[u8],
    portion: usize,
) -> Result<Texts<Vec<u8>>, &'static str> {
    let mut texts = Texts::default();
    for piece in sealed.chunks(portion) {
        opener.feed(piece);
        while let Some(event) = opener.poll().map_err(seal_error)? {
            match event {
                Event::Header(header) => texts.header = header.to_vec(),
                Event::Content(_, content) => texts.content.extend_from_slice(&content),
                Event::Index(index) => texts.index = index.to_vec(),
                Event::End => {}
            }
        }
    }
    opener.finish().map_err(seal_error)?;
    Ok(texts)
}

fn seal_error(error: SealError) -> &'static str {
    match error {
        SealError::Format => "format",
        SealError::DoesNotOpen => "does-not-open",
        SealError::Truncated => "truncated",
        SealError::Trailing => "trailing",
    }
}

fn ring_error(error: RingError) -> &'static str {
    match error {
        RingError::Syntax { .. } => "syntax",
        RingError::NoSuchKey(_) => "no-such-key",
        RingError::DoesNotOpen => "key-does-not-open",
        RingError::Full => "full",
    }
}

fn sum(text: &[u8]) -> Sum {
    Sum { length: text.len(), sha256: HEXLOWER.encode(&Sha256::digest(text)) }
}

fn check(version: &str, name: &str) {
    let case = Case::read(version, name);
    let sealed = case.bytes();
    for portion in [usize::MAX, 4096, 7] {
        match (open(&case, &sealed, portion), &case.opened) {
            (Ok(texts), Some(want)) => {
                assert_eq!(case.expect, "opens", "{}", case.why);
                let Texts { header, content, index } = &texts;
                let found = Texts { header: sum(header), content: sum(content), index: sum(index) };
                assert_eq!(found, *want, "{}", case.why);
                if portion == usize::MAX {
                    check_sealer(&case, &texts, &sealed);
                    check_places(&case, &texts, &sealed);
                }
            }
            (Err(error), None) => assert_eq!(error, case.expect, "{}", case.why),
            (answer, want) => {
                panic!("{}: {want:?} but {:?}", case.why, answer.map(|t| t.content.len()))
            }
        }
    }
}

/// The sealer writes the frozen bytes, from the same key and nonce.
fn check_sealer(case: &Case, texts: &Texts<Vec<u8>>, sealed: &[u8]) {
    let prelude = Prelude::parse(sealed).expect("a prelude");
    let Format::V2(suite) = prelude.format else { return };
    let (ring, id, key) = (case.ring(), case.id(), key(case, &prelude).expect("it opened before"));
    let [Some(slot), None] = prelude.slots.as_slice() else { return };
    if slot.key() == ring.current() {
        let nonce = slot.to_bytes()[5..29].try_into().expect("24 bytes");
        let again = ring.wrap(&key, Purpose::Message, id, nonce);
        assert!(again == *slot, "{}: wrapping again", case.why);
    }
    let mut again = Vec::new();
    let mut sealer = Sealer::new(suite, &key, id, slot, &texts.header, &mut again);
    sealer.feed(&texts.content, &mut again);
    sealer.finish(&texts.index, &mut again);
    assert!(again == sealed, "{}: sealing again", case.why);
}

/// Content and index lie where the offsets say.
fn check_places(case: &Case, texts: &Texts<Vec<u8>>, sealed: &[u8]) {
    let prelude = Prelude::parse(sealed).expect("a prelude");
    let (format, id) = (prelude.format, case.id());
    let key = key(case, &prelude).expect("it opened before");
    let header = u32::try_from(texts.header.len()).expect("short");
    let size = texts.content.len() as u64;
    let last = size.saturating_sub(1);
    let tail = &sealed[usize::try_from(prelude.offset_of(header, last)).expect("short")..];
    let opened = gather(Opener::from_content(format, &key, id, last), tail, usize::MAX);
    let opened = opened.expect("from the last content frame on");
    assert!(texts.content.ends_with(&opened.content) && opened.index == texts.index);
    assert_eq!(opened.content.is_empty(), size == 0);
    let tail = &sealed[usize::try_from(prelude.index_offset(header, size)).expect("short")..];
    let opened = gather(Opener::from_index(format, &key, id, size), tail, usize::MAX);
    assert!(opened.expect("from the index on").index == texts.index);
}

macro_rules! vectors {
    ($folder:ident: $version:literal, $($name:ident,)*) => {
        mod $folder {
            $(#[test]
            fn $name() {
                super::check($version, stringify!($name));
            })*

            #[test]
            fn no_vector_is_left_out() {
                super::check_names($version, &[$(stringify!($name)),*]);
            }
        }
    };
}

vectors! {
    v1: "seal-v1",
    absurd_length,
    cut_after_prelude,
    cut_before_index,
    cut_between_frames,
    cut_in_frame,
    cut_in_head,
    cut_in_prelude,
    cut_last_byte,
    cut_to_nothing,
    destroyed_slot,
    empty,
    flipped_content,
    flipped_header,
    flipped_id,
    flipped_key,
    flipped_key_nonce,
    flipped_key_number,
    flipped_length,
    flipped_tag,
    frame_of_another_message,
    header_of_another_message,
    key_of_another_message,
    kind_changed,
    last_flag_added,
    last_flag_removed,
    length_below_tag,
    missing_content,
    missing_frame,
    missing_header,
    no_such_key,
    old_key,
    other_message,
    repeated_frame,
    short,
    swapped_frames,
    swapped_index,
    three_frames,
    trailing_body,
    trailing_byte,
    trailing_frame,
    unknown_kind,
    unknown_magic,
    unknown_version,
    version_zero,
    whole_frame,
    wrong_id,
    wrong_ring,
}

vectors! {
    v2: "seal-v2",
    absurd_length,
    aes,
    aes_three_frames,
    both_slots,
    cut_after_prelude,
    cut_before_index,
    cut_between_frames,
    cut_in_frame,
    cut_in_head,
    cut_in_prelude,
    cut_last_byte,
    cut_to_nothing,
    destroyed_slot,
    empty,
    first_slot_damaged,
    flipped_content,
    flipped_header,
    flipped_id,
    flipped_key,
    flipped_key_nonce,
    flipped_key_number,
    flipped_length,
    flipped_tag,
    frame_of_another_message,
    header_of_another_message,
    key_of_another_message,
    key_of_another_purpose,
    kind_changed,
    last_flag_added,
    last_flag_removed,
    length_below_tag,
    missing_content,
    missing_frame,
    missing_header,
    no_slots,
    no_such_key,
    old_key,
    one_slot,
    other_message,
    purpose_changed,
    repeated_frame,
    second_slot,
    short,
    slots_changed,
    suite_changed,
    suite_zero,
    swapped_frames,
    swapped_index,
    three_frames,
    too_many_slots,
    trailing_body,
    trailing_byte,
    trailing_frame,
    unknown_kind,
    unknown_magic,
    unknown_suite,
    unknown_version,
    version_zero,
    whole_frame,
    wrong_id,
    wrong_ring,
}

fn check_names(version: &str, names: &[&str]) {
    let files: BTreeSet<String> = fs::read_dir(folder(version))
        .expect("the folder")
        .filter_map(|entry| entry.expect("an entry").file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".toml").map(|name| name.replace('-', "_")))
        .collect();
    assert_eq!(files, names.iter().map(|name| (*name).to_owned()).collect());
}
