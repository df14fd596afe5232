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

/// Reads the ring, or makes one where neither ring nor data exist. Touches nothing where it
/// refuses.
pub(super) fn load(ring_file: &Path, data_dir: &Path) -> Result<KeyRing, StartError> {
    let mark = data_dir.join(RING_MARK);
    match fs::metadata(ring_file) {
        Ok(meta) => {
            let ring = read(ring_file, &meta)?;
            check_mark(&ring, ring_file, &mark)?;
            Ok(ring)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if mark.exists() || data_dir.join("FORMAT").exists() {
                return Err(StartError::Config(format!(
                    "{}: the key ring is missing, but {} holds sealed mail; put the ring back from its backup. \
                     Nothing was changed",
                    ring_file.display(),
                    data_dir.display()
                )));
            }
            let ring = KeyRing::generate(Zeroizing::new(rand::random()));
            write_new(ring_file, &ring)
                .and_then(|()| write_mark(&ring, &mark))
                .map_err(|e| StartError::Config(format!("{}: {e}", ring_file.display())))?;
            tracing::info!(file = %ring_file.display(), "made a key ring; keep a backup of it apart from the data");
            Ok(ring)
        }
        Err(error) => Err(StartError::Config(format!("{}: {error}", ring_file.display()))),
    }
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
    match fs::read_to_string(mark) {
        Ok(known) if known.trim() == HEXLOWER.encode(&ring.fingerprint()) => Ok(()),
        Ok(_) => Err(StartError::Config(format!(
            "{}: this is not the key ring that sealed the mail in {}; put the right one back. Nothing was changed",
            ring_file.display(),
            mark.parent().unwrap_or(mark).display()
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            write_mark(ring, mark).map_err(told)
        }
        Err(error) => Err(told(error)),
    }
}

fn write_new(path: &Path, ring: &KeyRing) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(ring.to_text().as_bytes())?;
    file.sync_all()?;
    File::open(folder)?.sync_all()
}

fn write_mark(ring: &KeyRing, mark: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(mark)?;
    writeln!(file, "{}", HEXLOWER.encode(&ring.fingerprint()))?;
    file.sync_all()
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
        fs::write(dir.path().join("FORMAT"), "1").expect("write");
        let text = refusal(load(&dir.path().join("keys"), dir.path()));
        assert!(text.contains("missing"), "{text}");
        let names: Vec<_> = fs::read_dir(dir.path()).expect("list").collect();
        assert_eq!(names.len(), 1);
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
