//! Wrapped keys, wherever they lie on the disk.

use data_encoding::{BASE64, HEXLOWER};
use restante::{
    mail::QueueId,
    seal::{Prelude, WrappedKey},
};
use std::{fs, path::Path};

/// All files below a folder, whole. A file may go while we look: then it holds nothing.
pub fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.is_file() {
            found.push((path.display().to_string(), fs::read(&path).unwrap_or_default()));
        }
    }
    found
}

/// The wrapped keys of a message as its preludes have them, wherever a prelude lies.
pub fn wraps(dir: &Path, id: &str) -> Vec<WrappedKey> {
    let id: QueueId = id.parse().expect("a queue id");
    let start = [b"RSTV\x02".as_slice(), id.as_bytes()].concat();
    let mut found: Vec<WrappedKey> = Vec::new();
    for (_, bytes) in files(dir) {
        for at in memchr::memmem::find_iter(&bytes, &start) {
            let prelude = Prelude::parse(&bytes[at..]).expect("a prelude");
            found.extend(
                prelude.wrapped().filter(|w| !found.contains(w)).cloned().collect::<Vec<_>>(),
            );
        }
    }
    found
}

/// A wrapped key in each form that a file could hold it in: as it is, and as hexadecimal digits, base64
/// at each alignment and numbers of JSON. The purpose may be apart from it.
fn forms(wrapped: &WrappedKey) -> Vec<Vec<u8>> {
    let stored = wrapped.to_bytes();
    let bytes = &stored[1..];
    let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
    let mut forms = vec![
        bytes.to_vec(),
        HEXLOWER.encode(bytes).into_bytes(),
        HEXLOWER.encode(bytes).to_ascii_uppercase().into_bytes(),
        numbers.join(",").into_bytes(),
        numbers.join(", ").into_bytes(),
    ];
    for shift in 0..3 {
        let shifted = BASE64.encode(&[&vec![0; shift], bytes].concat());
        // What depends on the neighbours is cut off at both ends.
        forms.push(shifted.as_bytes()[4..shifted.len() - 4].to_vec());
    }
    forms
}

/// Where any of the keys still lies.
pub fn lying(dir: &Path, keys: &[WrappedKey]) -> Vec<String> {
    let all = files(dir);
    let holds = |bytes: &[u8]| {
        let mut forms = keys.iter().flat_map(forms);
        forms.any(|form| memchr::memmem::find(bytes, &form).is_some())
    };
    all.into_iter().filter(|(_, bytes)| holds(bytes)).map(|(path, _)| path).collect()
}
