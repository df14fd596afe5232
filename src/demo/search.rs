//! Looking for a message's words where they must not be: as they are, in base64 at each of its
//! three alignments, and over the line breaks that the two encodings put in.

use super::tell::{Failure, Told};
use data_encoding::BASE64_NOPAD;
use regex::bytes::{Regex, RegexBuilder};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

/// Blocks of nothing but zeros (space that the store keeps in reserve) are passed over.
const BLOCK: usize = 4096;

/// The words that are looked for.
#[derive(Debug)]
pub(super) struct Search {
    pattern: Regex,
    /// Each form of each phrase, to its phrase.
    forms: BTreeMap<Vec<u8>, &'static str>,
}

/// What a search has come by.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    pub(super) files: usize,
    pub(super) bytes: usize,
    pub(super) found: BTreeSet<&'static str>,
}

impl Search {
    /// Phrases of ASCII without `=`, so that quoted-printable does not change them but for its line
    /// breaks.
    pub(super) fn new(phrases: impl IntoIterator<Item = &'static str>) -> Told<Self> {
        let mut forms = BTreeMap::new();
        for phrase in phrases {
            forms.insert(phrase.as_bytes().to_vec(), phrase);
            for shift in 0..3 {
                forms.insert(base64(phrase, shift), phrase);
            }
        }
        let text = |form: &Vec<u8>| regex::escape(&String::from_utf8_lossy(form));
        let pattern: Vec<String> = forms.keys().map(text).collect();
        let pattern = RegexBuilder::new(&pattern.join("|")).unicode(false).build();
        Ok(Self { pattern: pattern.map_err(Failure::at("the words to look for"))?, forms })
    }

    /// The phrases that these bytes hold, in any form.
    pub(super) fn within(&self, bytes: &[u8]) -> BTreeSet<&'static str> {
        let joined: Vec<u8> = bytes.iter().copied().filter(|b| !b"=\r\n".contains(b)).collect();
        let hits = self.pattern.find_iter(bytes).chain(self.pattern.find_iter(&joined));
        hits.filter_map(|hit| self.forms.get(hit.as_bytes()).copied()).collect()
    }

    /// Searches every file below a folder, their names too.
    pub(super) fn below(&self, folder: &Path) -> Told<Sweep> {
        let mut sweep = Sweep::default();
        self.folder(folder, &mut sweep).map_err(Failure::at(folder.display()))?;
        Ok(sweep)
    }

    fn folder(&self, folder: &Path, sweep: &mut Sweep) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            sweep.found.extend(self.within(entry.file_name().as_encoded_bytes()));
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.folder(&entry.path(), sweep)?;
            } else if kind.is_file() {
                let bytes = fs::read(entry.path())?;
                sweep.files = sweep.files.saturating_add(1);
                sweep.bytes = sweep.bytes.saturating_add(bytes.len());
                let used = bytes.chunks(BLOCK).filter(|block| *block != [0; BLOCK]);
                sweep.found.extend(self.within(&used.flatten().copied().collect::<Vec<u8>>()));
            }
        }
        Ok(())
    }
}

/// What stands in base64 for a phrase that begins `shift` bytes into a group of three, without the
/// letters at its ends that depend on its neighbours.
fn base64(phrase: &str, shift: usize) -> Vec<u8> {
    let bytes: Vec<u8> = std::iter::repeat_n(0, shift).chain(phrase.bytes()).collect();
    let mut form = BASE64_NOPAD.encode(&bytes);
    if !bytes.len().is_multiple_of(3) {
        form.pop();
    }
    let before = if shift == 0 { 0 } else { shift + 1 };
    form.into_bytes().split_off(before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::BASE64;

    const PHRASE: &str = "haemoglobin of the patient";

    fn holds(bytes: &[u8]) -> bool {
        Search::new([PHRASE]).unwrap().within(bytes).contains(PHRASE)
    }

    #[test]
    fn a_phrase_is_found_in_every_form() {
        assert!(holds(format!("the {PHRASE} was").as_bytes()), "as it is");
        assert!(holds(b"the haemoglobin of=\r\n the patient was"), "quoted-printable");
        for before in ["", "a", "ab", "abc"] {
            let encoded = BASE64.encode(format!("{before}{PHRASE}, then more").as_bytes());
            assert!(holds(encoded.as_bytes()), "base64 after {before:?}");
            let (left, right) = encoded.split_at(16);
            assert!(holds(format!("{left}\r\n{right}").as_bytes()), "wrapped after {before:?}");
        }
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        for text in ["haemoglobin of the patien", "HAEMOGLOBIN", ""] {
            assert!(!holds(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn folders_are_searched_with_names_and_all() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("deep")).unwrap();
        let mut bytes = vec![0; 3 * BLOCK];
        bytes.extend_from_slice(PHRASE.as_bytes());
        fs::write(folder.path().join("deep/file"), &bytes).unwrap();
        fs::write(folder.path().join("another phrase"), "").unwrap();
        let sweep = Search::new([PHRASE, "another phrase", "a third"]).unwrap();
        let sweep = sweep.below(folder.path()).unwrap();
        assert_eq!((sweep.files, sweep.bytes), (2, bytes.len()));
        assert_eq!(sweep.found, BTreeSet::from([PHRASE, "another phrase"]));
    }
}
