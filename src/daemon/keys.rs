//! The key ring where it is kept: read with care, made at the first start only, and changed by a rotation
//! alone. Beside the data lies a mark that says which keys sealed it.

use super::StartError;
use crate::{
    config::{Config, KeySource},
    seal::{KeyId, KeyRing, RingError},
};
use data_encoding::HEXLOWER;
use std::{
    fmt::{Display, Write as _},
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};
use zeroize::Zeroizing;

/// Bytes of a ring's text at most.
const MAX_RING: u64 = 1024 * 1024;
/// How long a command may take for the ring.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked at whether a command has ended.
const LOOK: Duration = Duration::from_millis(10);
/// In the data directory: which keys sealed what lies here, a line each: number and hash. Earlier versions
/// wrote one hash over all keys.
const RING_MARK: &str = "keyring.id";

/// Any of these in the data directory: mail has been sealed here.
const DATA: [&str; 4] = [RING_MARK, "FORMAT", "meta", "body"];

/// The ring's place, and the data that it sealed.
#[derive(Debug, Clone)]
pub(super) struct RingKeeper {
    source: KeySource,
    data_dir: PathBuf,
}

impl RingKeeper {
    pub(super) fn new(config: &Config) -> Self {
        Self { source: config.vault.keys.clone(), data_dir: config.data_dir.clone() }
    }

    /// Reads the ring, or makes a file where neither ring nor data exist. Touches nothing where it
    /// refuses.
    pub(super) fn load(&self) -> Result<KeyRing, StartError> {
        match self.read_known()? {
            Some(ring) => Ok(ring),
            // Looked for once more: a server that starts beside us makes the ring before any data.
            None if DATA.iter().any(|name| self.data_dir.join(name).exists()) => {
                self.load_existing()
            }
            None => self.make(),
        }
    }

    /// Reads the ring; where there is none, none is made.
    pub(super) fn load_existing(&self) -> Result<KeyRing, StartError> {
        self.read_known()?.ok_or_else(|| {
            self.refuse(format_args!(
                "the key ring is missing, and without it nothing sealed in {} can be opened; put the \
                 ring back from its backup. Nothing was changed",
                self.data_dir.display()
            ))
        })
    }

    /// Notes that the keys of this ring seal what lies here from now on. Only who has the vault open may
    /// do so.
    pub(super) fn mark(&self, ring: &KeyRing) -> Result<(), StartError> {
        let (mark, text) = (self.mark_file(), mark_text(ring));
        if fs::read(&mark).is_ok_and(|old| old == text.as_bytes()) {
            return Ok(());
        }
        replace(&mark, text.as_bytes())
            .map_err(|e| StartError::TryAgain(format!("{}: {e}", mark.display())))
    }

    /// The ring with a new key, kept durably.
    ///
    /// # Errors
    /// [`StartError::Config`] where the ring does not come from a file: its keeper adds the key.
    pub(super) fn add_key(&self, ring: &KeyRing) -> Result<KeyRing, StartError> {
        let KeySource::File(file) = &self.source else {
            return Err(self.refuse(
                "the key ring is kept elsewhere: add a key there, with the next number, and run \
                 `restante keys reload`",
            ));
        };
        let ring = ring.with_key(Zeroizing::new(rand::random())).map_err(|e| self.refuse(e))?;
        // The ring before the mark: a ring may have more keys than are marked.
        replace(file, ring.to_text().as_bytes())
            .map_err(|e| StartError::TryAgain(format!("{}: {e}", file.display())))?;
        self.mark(&ring)?;
        Ok(ring)
    }

    /// The ring without keys that nothing needs any more, kept durably. Where it does not come from a
    /// file, its keeper takes them away.
    pub(super) fn retire(&self, ring: &KeyRing, old: &[KeyId]) -> Result<KeyRing, StartError> {
        let ring = ring.without(old);
        // The mark before the ring: a marked key must not be missing.
        self.mark(&ring)?;
        match &self.source {
            KeySource::File(file) => replace(file, ring.to_text().as_bytes())
                .map_err(|e| StartError::TryAgain(format!("{}: {e}", file.display())))?,
            KeySource::Credential(_) | KeySource::Command(_) => {
                tracing::warn!(source = %self.source, ?old, "these keys can be taken out of the key ring at its source");
            }
        }
        Ok(ring)
    }

    fn mark_file(&self) -> PathBuf {
        self.data_dir.join(RING_MARK)
    }

    fn refuse(&self, what: impl Display) -> StartError {
        StartError::Config(format!("{}: {what}", self.source))
    }

    /// The ring, if there is one and it has the keys that sealed what lies here.
    fn read_known(&self) -> Result<Option<KeyRing>, StartError> {
        let text = match &self.source {
            KeySource::File(file) => self.read_file(file)?,
            KeySource::Credential(name) => {
                let dir = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                    self.refuse(
                        "$CREDENTIALS_DIRECTORY is not set: use LoadCredential= in the unit",
                    )
                })?;
                let file = Path::new(&dir).join(name);
                Some(read_text(&file).map_err(|e| self.refuse(e))?)
            }
            KeySource::Command(command) => Some(told(command).map_err(|e| self.refuse(e))?),
        };
        let Some(text) = text else { return Ok(None) };
        let ring = KeyRing::parse(&text).map_err(|error| match error {
            RingError::Syntax { line, what } => {
                StartError::Config(format!("{}:{line}: {what}", self.source))
            }
            other @ (RingError::NoSuchKey(_) | RingError::DoesNotOpen | RingError::Full) => {
                self.refuse(other)
            }
        })?;
        self.check_mark(&ring)?;
        Ok(Some(ring))
    }

    fn make(&self) -> Result<KeyRing, StartError> {
        // Only a file can be missing.
        let KeySource::File(file) = &self.source else { return self.load_existing() };
        let ring = KeyRing::generate(Zeroizing::new(rand::random()));
        match write_new(file, ring.to_text().as_bytes()) {
            // Another server at its first start was faster; the vault's lock says which of us may run.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return self.load_existing(),
            Err(e) => return Err(self.refuse(e)),
            Ok(()) => {}
        }
        tracing::info!(file = %file.display(), "made a key ring; keep a backup of it apart from the data");
        Ok(ring)
    }

    /// The text of a ring file; `None` if there is none.
    fn read_file(&self, file: &Path) -> Result<Option<Zeroizing<String>>, StartError> {
        let meta = match fs::metadata(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            meta => meta.map_err(|e| self.refuse(e))?,
        };
        if !meta.is_file() || meta.len() > MAX_RING {
            return Err(self.refuse("not a key-ring file"));
        }
        let mode = meta.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(self.refuse(format_args!(
                "the key ring is open to others (mode {mode:04o}); run: chmod 600 {}",
                file.display()
            )));
        }
        read_text(file).map(Some).map_err(|e| self.refuse(e))
    }

    /// A ring that lacks a key that sealed what lies here must not run: it could not open everything, and
    /// one that is another ring altogether would seal under keys that no backup of the right one holds.
    fn check_mark(&self, ring: &KeyRing) -> Result<(), StartError> {
        let mark = self.mark_file();
        let told = |e: &dyn Display| StartError::Config(format!("{}: {e}", mark.display()));
        let text = match fs::read_to_string(&mark) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            text => text.map_err(|e| told(&e))?,
        };
        let marked = parse_mark(&text).ok_or_else(|| told(&"not a mark of a key ring"))?;
        let hashes = ring.hashes();
        let known = match &marked {
            Mark::Ring(hash) => ring.began_as(hash),
            Mark::Keys(keys) => keys.iter().all(|key| hashes.contains(key)),
        };
        if known {
            return Ok(());
        }
        Err(self.refuse(format_args!(
            "this is not the key ring that sealed the mail in {}: a key is missing or another; put the \
             right ring back. Nothing was changed",
            self.data_dir.display()
        )))
    }
}

/// What a mark says.
#[derive(Debug, PartialEq, Eq)]
enum Mark {
    /// One hash over all keys.
    Ring([u8; 32]),
    /// Each key.
    Keys(Vec<(KeyId, [u8; 32])>),
}

fn mark_text(ring: &KeyRing) -> String {
    let mut text = String::new();
    for (id, hash) in ring.hashes() {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{} {}", id.0, HEXLOWER.encode(&hash));
    }
    text
}

fn parse_mark(text: &str) -> Option<Mark> {
    let hash = |hex: &str| HEXLOWER.decode(hex.as_bytes()).ok()?.try_into().ok();
    if let Some(ring) = hash(text.trim()) {
        return Some(Mark::Ring(ring));
    }
    let key = |line: &str| {
        let (number, hex) = line.split_once(' ')?;
        Some((KeyId(number.parse().ok()?), hash(hex)?))
    };
    let keys: Option<Vec<_>> = text.lines().map(key).collect();
    keys.filter(|keys| !keys.is_empty()).map(Mark::Keys)
}

/// A text that fits into the room made for it: growing would leave copies of keys behind.
fn read_all(source: impl Read) -> io::Result<Zeroizing<String>> {
    let room = usize::try_from(MAX_RING).unwrap_or(0) + 1;
    let mut text = Zeroizing::new(String::with_capacity(room));
    source.take(MAX_RING + 1).read_to_string(&mut text)?;
    if text.len() >= room {
        return Err(io::Error::other("too long for a key ring"));
    }
    Ok(text)
}

fn read_text(file: &Path) -> io::Result<Zeroizing<String>> {
    read_all(File::open(file)?)
}

/// What a command prints, if it ends well and in time. What it says on stderr is kept nowhere.
fn told(command: &[String]) -> io::Result<Zeroizing<String>> {
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let (answer, answered) = mpsc::channel();
    let stdout = child.stdout.take();
    let until = Instant::now() + PATIENCE;
    thread::spawn(move || {
        // Without a listener the time is over.
        let _ = answer.send(stdout.map_or_else(|| Err(io::ErrorKind::BrokenPipe.into()), read_all));
    });
    let text = answered.recv_timeout(PATIENCE);
    let status = ended(&mut child, until);
    let text = text.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    match status? {
        status if status.success() => Ok(text),
        status => Err(io::Error::other(format!("the command failed ({status})"))),
    }
}

/// Waits for the end of a command, and kills it when its time is over.
fn ended(child: &mut Child, until: Instant) -> io::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= until {
            child.kill()?;
            return child.wait();
        }
        thread::park_timeout(LOOK);
    }
}

/// Puts a new file in the place of another, there whole or not at all whenever the power goes. What the old
/// one held is overwritten then.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let folder = folder(path);
    let making = making(path);
    let old = OpenOptions::new().write(true).open(path);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&making)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&making, path)?;
    File::open(folder)?.sync_all()?;
    if let Ok(old) = old {
        let length = usize::try_from(old.metadata()?.len().min(MAX_RING)).unwrap_or(0);
        old.write_all_at(&vec![0; length], 0)?;
        old.sync_data()?;
    }
    Ok(())
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        Some(_) | None => Path::new("."),
    }
}

fn making(path: &Path) -> PathBuf {
    let mut making = path.as_os_str().to_owned();
    making.push(".making");
    making.into()
}

/// Writes a new file for us alone, there whole or not at all whenever the power goes; never in place
/// of another.
fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    let folder = folder(path);
    fs::create_dir_all(folder)?;
    let making = making(path);
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&making)?;
    // A second server at the same point waits here, and then finds the file made.
    file.lock()?;
    let placed = write_and_link(&file, text, &making, path);
    match fs::remove_file(&making) {
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

    fn keeper(dir: &Path) -> RingKeeper {
        let source = KeySource::File(dir.join("keys"));
        RingKeeper { source, data_dir: dir.to_owned() }
    }
    /// As a start does it.
    fn start(keeper: &RingKeeper) -> Result<KeyRing, StartError> {
        let ring = keeper.load()?;
        keeper.mark(&ring)?;
        Ok(ring)
    }
    fn refusal(result: Result<KeyRing, StartError>) -> String {
        result.expect_err("must be refused").to_string()
    }

    #[test]
    fn the_first_start_makes_a_ring_and_the_second_reads_it() {
        let dir = tempfile::tempdir().expect("temp dir");
        let keeper = keeper(dir.path());
        let made = start(&keeper).expect("made");
        let mode = fs::metadata(dir.path().join("keys")).expect("exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let read = start(&keeper).expect("read");
        assert_eq!(made.hashes(), read.hashes());
    }

    #[test]
    fn a_missing_ring_beside_data_refuses_and_touches_nothing() {
        let dir = tempfile::tempdir().expect("temp dir");
        for name in DATA {
            let path = dir.path().join(name);
            fs::create_dir(&path).expect("make");
            let text = refusal(keeper(dir.path()).load());
            assert!(text.contains("missing"), "{name}: {text}");
            let names: Vec<_> = fs::read_dir(dir.path()).expect("list").collect();
            assert_eq!(names.len(), 1, "{name}");
            fs::remove_dir(&path).expect("remove");
        }
    }

    #[test]
    fn what_only_reads_makes_no_ring() {
        let dir = tempfile::tempdir().expect("temp dir");
        let keeper = keeper(dir.path());
        assert!(refusal(keeper.load_existing()).contains("missing"));
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 0);
        let made = keeper.load().expect("made");
        let read = keeper.load_existing().expect("read");
        assert_eq!(made.hashes(), read.hashes());
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
    fn a_ring_that_lacks_a_key_refuses_and_one_with_more_does_not() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (keeper, file) = (keeper(dir.path()), dir.path().join("keys"));
        let first = start(&keeper).expect("made");
        let other = KeyRing::generate(Zeroizing::new([9; 32]));
        fs::write(&file, other.to_text().as_bytes()).expect("write");
        let text = refusal(keeper.load());
        assert!(text.contains("not the key ring"), "{text}");
        let more = first.with_key(Zeroizing::new([9; 32])).expect("added");
        fs::write(&file, more.to_text().as_bytes()).expect("write");
        assert_eq!(start(&keeper).expect("known").hashes(), more.hashes());
        fs::write(&file, first.to_text().as_bytes()).expect("write");
        assert!(refusal(keeper.load()).contains("not the key ring"), "the second has sealed too");
    }

    #[test]
    fn a_mark_of_earlier_versions_is_known_and_replaced() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (keeper, file, mark) =
            (keeper(dir.path()), dir.path().join("keys"), dir.path().join(RING_MARK));
        let eleven = "11".repeat(32);
        fs::write(&file, format!("restante-keys 1\n1 {eleven}\n")).expect("write");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("chmod");
        // Made by the version before: SHA-256 over "restante key ring", the number and the key's hash.
        let old = "f6adee7f57f2bd45e93c10c58d4c5d6cf3bfda4740c142a509870491345e9a7d\n";
        fs::write(&mark, old).expect("write");
        let ring = keeper.load().expect("known");
        assert_eq!(fs::read_to_string(&mark).expect("read"), old, "reading changes nothing");
        keeper.mark(&ring).expect("marked");
        assert_eq!(fs::read_to_string(&mark).expect("read"), mark_text(&ring));
        fs::write(&mark, "00".repeat(32)).expect("write");
        assert!(refusal(keeper.load()).contains("not the key ring"));
        fs::write(&mark, "no mark").expect("write");
        assert!(refusal(keeper.load()).contains("not a mark"));
    }

    #[test]
    fn a_crash_between_ring_and_mark_leaves_a_ring_that_is_known() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (keeper, file, mark) =
            (keeper(dir.path()), dir.path().join("keys"), dir.path().join(RING_MARK));
        let first = start(&keeper).expect("made");
        let (ring_1, mark_1) = (fs::read(&file).expect("read"), fs::read(&mark).expect("read"));
        let both = keeper.add_key(&first).expect("added");
        assert_eq!(both.older(), [KeyId(1)]);
        let (ring_2, mark_2) = (fs::read(&file).expect("read"), fs::read(&mark).expect("read"));
        fs::write(&mark, &mark_1).expect("write");
        assert_eq!(keeper.load().expect("added, not marked").hashes(), both.hashes());
        fs::write(&mark, &mark_2).expect("write");
        let last = keeper.retire(&both, &[KeyId(1)]).expect("retired");
        assert_eq!((last.current(), last.older()), (KeyId(2), vec![]));
        assert_eq!(keeper.load().expect("retired").hashes(), last.hashes());
        fs::write(&file, &ring_2).expect("write");
        assert_eq!(start(&keeper).expect("marked, not retired").hashes(), both.hashes());
        fs::write(&file, &ring_1).expect("write");
        assert!(refusal(keeper.load()).contains("not the key ring"));
        let mode = fs::metadata(&file).expect("exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_ring_that_others_may_read_refuses() {
        let dir = tempfile::tempdir().expect("temp dir");
        let keeper = keeper(dir.path());
        keeper.load().expect("made");
        let open = fs::Permissions::from_mode(0o644);
        fs::set_permissions(dir.path().join("keys"), open).expect("chmod");
        assert!(refusal(keeper.load()).contains("chmod 600"));
    }

    #[test]
    fn a_garbled_ring_names_its_line() {
        let dir = tempfile::tempdir().expect("temp dir");
        let keeper = keeper(dir.path());
        keeper.load().expect("made");
        fs::write(dir.path().join("keys"), "no ring at all\n").expect("write");
        assert!(refusal(keeper.load()).contains("keys:1:"));
    }

    #[test]
    fn a_ring_comes_from_a_command_that_ends_well() {
        let dir = tempfile::tempdir().expect("temp dir");
        let text = format!("restante-keys 1\n1 {}\n2 {}\n", "11".repeat(32), "22".repeat(32));
        fs::write(dir.path().join("kms"), &text).expect("write");
        let kms = dir.path().join("kms").display().to_string();
        let asks = |command: &[&str]| RingKeeper {
            source: KeySource::Command(command.iter().map(|&word| word.to_owned()).collect()),
            data_dir: dir.path().to_owned(),
        };
        let keeper = asks(&["/bin/cat", &kms]);
        let ring = start(&keeper).expect("told");
        assert_eq!(ring.older(), [KeyId(1)]);
        let text = keeper.add_key(&ring).expect_err("not ours to change").to_string();
        assert!(text.contains("keys reload"), "{text}");
        let last = keeper.retire(&ring, &[KeyId(1)]).expect("marked");
        assert_eq!(fs::read_to_string(dir.path().join(RING_MARK)).unwrap(), mark_text(&last));
        let failing = asks(&["/bin/sh", "-c", "cat \"$0\"; exit 3", &kms]);
        let text = refusal(failing.load());
        assert!(text.contains("failed") && !text.contains("1111"), "{text}");
        assert!(refusal(asks(&["/bin/cat", "/dev/zero"]).load()).contains("too long"));
    }
}
