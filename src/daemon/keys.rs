//! The key-ring file: read with care, made at the first start only, never replaced.

use super::StartError;
use crate::seal::{KeyRing, RingError};
use data_encoding::HEXLOWER;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};
use zeroize::Zeroizing;

/// Bytes of a ring file at most.
const MAX_RING: u64 = 1024 * 1024;
/// In the data directory: which ring sealed what lies here (a hash, no key).
const RING_MARK: &str = "keyring.id";

/// Any of these in the data directory: mail has been sealed here.
const DATA: [&str; 4] = [RING_MARK, "FORMAT", "meta", "body"];

/// Reads the ring, or makes one where neither ring nor data exist. Touches nothing where it
/// refuses.
pub(super) fn load(ring_file: &Path, data_dir: &Path) -> Result<KeyRing, StartError> {
    match read_known(ring_file, data_dir)? {
        Some(ring) => Ok(ring),
        // Looked for once more: a server that starts beside us makes the ring before any data.
        None if DATA.iter().any(|name| data_dir.join(name).exists()) => {
            load_existing(ring_file, data_dir)
        }
        None => make(ring_file, data_dir),
    }
}

/// Reads the ring; where there is none, none is made.
pub(super) fn load_existing(ring_file: &Path, data_dir: &Path) -> Result<KeyRing, StartError> {
    read_known(ring_file, data_dir)?.ok_or_else(|| missing(ring_file, data_dir))
}

fn missing(ring_file: &Path, data_dir: &Path) -> StartError {
    StartError::Config(format!(
        "{}: the key ring is missing, and without it nothing sealed in {} can be opened; put the ring back from its \
         backup. Nothing was changed",
        ring_file.display(),
        data_dir.display()
    ))
}

/// The ring, if there is one and it is the one that sealed what lies here.
fn read_known(ring_file: &Path, data_dir: &Path) -> Result<Option<KeyRing>, StartError> {
    match fs::metadata(ring_file) {
        Ok(meta) => {
            let ring = read(ring_file, &meta)?;
            check_mark(&ring, ring_file, &data_dir.join(RING_MARK))?;
            Ok(Some(ring))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StartError::Config(format!("{}: {error}", ring_file.display()))),
    }
}

fn make(ring_file: &Path, data_dir: &Path) -> Result<KeyRing, StartError> {
    let ring = KeyRing::generate(Zeroizing::new(rand::random()));
    match write_new(ring_file, ring.to_text().as_bytes()) {
        // Another server at its first start was faster; the vault's lock says which of us may run.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            return load_existing(ring_file, data_dir);
        }
        Err(e) => return Err(StartError::Config(format!("{}: {e}", ring_file.display()))),
        Ok(()) => check_mark(&ring, ring_file, &data_dir.join(RING_MARK))?,
    }
    tracing::info!(file = %ring_file.display(), "made a key ring; keep a backup of it apart from the data");
    Ok(ring)
}

fn read(ring_file: &Path, meta: &fs::Metadata) -> Result<KeyRing, StartError> {
    let refuse = |text: String| StartError::Config(format!("{}: {text}", ring_file.display()));
    if !meta.is_file() || meta.len() > MAX_RING {
        return Err(refuse("not a key-ring file".to_owned()));
    }
    if meta.permissions().mode() & 0o077 != 0 {
        return Err(refuse(format!(
            "the key ring is open to others (mode {:04o}); run: chmod 600 {}",
            meta.permissions().mode() & 0o7777,
            ring_file.display()
        )));
    }
    let text = Zeroizing::new(fs::read_to_string(ring_file).map_err(|e| refuse(e.to_string()))?);
    KeyRing::parse(&text).map_err(|error| match error {
        RingError::Syntax { line, what } => {
            StartError::Config(format!("{}:{line}: {what}", ring_file.display()))
        }
        other @ (RingError::NoSuchKey(_) | RingError::DoesNotOpen) => refuse(other.to_string()),
    })
}

/// A ring that did not seal what lies here must not run: it could open nothing and would seal under
/// keys that the backup of the right ring does not hold.
fn check_mark(ring: &KeyRing, ring_file: &Path, mark: &Path) -> Result<(), StartError> {
    let told = |e: io::Error| StartError::Config(format!("{}: {e}", mark.display()));
    match known_mark(ring, mark) {
        Ok(known) if known.trim() == HEXLOWER.encode(&ring.fingerprint()) => Ok(()),
        Ok(_) => Err(StartError::Config(format!(
            "{}: this is not the key ring that sealed the mail in {}; put the right one back. Nothing was changed",
            ring_file.display(),
            mark.parent().unwrap_or(mark).display()
        ))),
        Err(error) => Err(told(error)),
    }
}

/// What the mark says; where there is none, it says that it was this ring.
fn known_mark(ring: &KeyRing, mark: &Path) -> io::Result<String> {
    match fs::read_to_string(mark) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        read => return read,
    }
    let text = format!("{}\n", HEXLOWER.encode(&ring.fingerprint()));
    match write_new(mark, text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => fs::read_to_string(mark),
    }
}

/// Writes a new file for us alone, there whole or not at all whenever the power goes; never in place
/// of another.
fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        Some(_) | None => Path::new("."),
    };
    fs::create_dir_all(folder)?;
    let mut making = path.as_os_str().to_owned();
    making.push(".making");
    let making = Path::new(&making);
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(making)?;
    // A second server at the same point waits here, and then finds the file made.
    file.lock()?;
    let placed = write_and_link(&file, text, making, path);
    match fs::remove_file(making) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    placed?;
    File::open(folder)?.sync_all()
}

fn write_and_link(mut file: &File, text: &[u8], making: &Path, path: &Path) -> io::Result<()> {
    if path.exists() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    file.set_len(0)?;
    file.write_all(text)?;
    file.sync_all()?;
    // A link, unlike a rename, fails where there is a file already.
    fs::hard_link(making, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(result: Result<KeyRing, StartError>) -> String {
        result.expect_err("must be refused").to_string()
    }

    #[test]
    fn the_first_start_makes_a_ring_and_the_second_reads_it() {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = dir.path().join("keys");
        let made = load(&file, dir.path()).expect("made");
        let mode = fs::metadata(&file).expect("exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let read = load(&file, dir.path()).expect("read");
        assert_eq!(made.fingerprint(), read.fingerprint());
    }

    #[test]
    fn a_missing_ring_beside_data_refuses_and_touches_nothing() {
        let dir = tempfile::tempdir().expect("temp dir");
        for name in DATA {
            let path = dir.path().join(name);
            fs::create_dir(&path).expect("make");
            let text = refusal(load(&dir.path().join("keys"), dir.path()));
            assert!(text.contains("missing"), "{name}: {text}");
            let names: Vec<_> = fs::read_dir(dir.path()).expect("list").collect();
            assert_eq!(names.len(), 1, "{name}");
            fs::remove_dir(&path).expect("remove");
        }
    }

    #[test]
    fn what_only_reads_makes_no_ring() {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = dir.path().join("keys");
        assert!(refusal(load_existing(&file, dir.path())).contains("missing"));
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 0);
        let made = load(&file, dir.path()).expect("made");
        let read = load_existing(&file, dir.path()).expect("read");
        assert_eq!(made.fingerprint(), read.fingerprint());
    }

    #[test]
    fn a_ring_that_came_into_being_meanwhile_is_never_replaced() {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = dir.path().join("keys");
        write_new(&file, b"first").expect("written");
        assert!(write_new(&file, b"second").is_err());
        assert_eq!(fs::read(&file).expect("read"), b"first");
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1, "nothing is left over");
    }

    #[test]
    fn another_ring_refuses() {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = dir.path().join("keys");
        load(&file, dir.path()).expect("made");
        let other = KeyRing::generate(Zeroizing::new([9; 32]));
        fs::write(&file, other.to_text().as_bytes()).expect("write");
        let text = refusal(load(&file, dir.path()));
        assert!(text.contains("not the key ring"), "{text}");
    }

    #[test]
    fn a_ring_that_others_may_read_refuses() {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = dir.path().join("keys");
        load(&file, dir.path()).expect("made");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("chmod");
        assert!(refusal(load(&file, dir.path())).contains("chmod 600"));
    }

    #[test]
    fn a_garbled_ring_names_its_line() {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = dir.path().join("keys");
        load(&file, dir.path()).expect("made");
        fs::write(&file, "no ring at all\n").expect("write");
        assert!(refusal(load(&file, dir.path())).contains("keys:1:"));
    }
}
