//! Damage to each kind of file: the store refuses by name, or serves whatever is not damaged. Nothing
//! that was answered for is lost without a word.

use super::{
    sled_alone::{accept, copy, sealed},
    *,
};
use std::{
    fmt::Write as _,
    fs, io,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};
use tracing_subscriber::fmt::MakeWriter;

/// What is logged on this thread.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);
impl Log {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8(bytes.clone()).unwrap()
    }
}
impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
impl MakeWriter<'_> for Log {
    type Writer = Self;
    fn make_writer(&self) -> Self {
        self.clone()
    }
}

const LARGE: usize = 300_000;
/// The content of a message: every second is a large one.
fn content(n: u8) -> Vec<u8> {
    if n.is_multiple_of(2) { vec![n; LARGE] } else { vec![n; 2000] }
}
/// Opens the vault with its log.
fn look(dir: &Path) -> (Result<SledStore, OpenError>, String) {
    let log = Log::default();
    let lines = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .with_writer(log.clone())
        .finish();
    let opened = tracing::subscriber::with_default(lines, || SledStore::open(dir, options()));
    let text = log.text().replace(&format!("{}/", dir.display()), "");
    let said = opened.as_ref().err().map(ToString::to_string).unwrap_or_default();
    (opened, if said.is_empty() { text } else { said.replace(&format!("{}/", dir.display()), "") })
}

/// A vault as a crash leaves it: messages 1 and 2 are in the index, 3, 4 and 5 in the log alone.
struct Crashed {
    dir: tempfile::TempDir,
    /// The same before 3, 4 and 5.
    earlier: tempfile::TempDir,
}
impl Crashed {
    async fn make() -> Self {
        let [live, dir, earlier] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let store = open(live.path());
        for n in 1..=2 {
            accept(&store, n, Class::Protected, &content(n)).await;
        }
        drop(store);
        copy(live.path(), earlier.path());
        let store = open(live.path());
        for n in 3..=5 {
            accept(&store, n, Class::Protected, &content(n)).await;
        }
        copy(live.path(), dir.path());
        Self { dir, earlier }
    }
}
fn large_body(n: u8) -> String {
    let name = id(n).to_string();
    format!("body/msg/{}/{name}", &name[name.len() - 2..])
}
/// Each kind of file, and the messages that lie in it.
fn kinds(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let names = fs::read_dir(dir.join("meta")).unwrap();
    let mut names: Vec<_> =
        names.map(|file| file.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| dir.join("meta").join(name).is_file());
    names.sort();
    let index = names.into_iter().map(|name| (format!("meta/{name}"), Vec::new()));
    let rest: [(&str, Vec<u8>); 6] = [
        ("FORMAT", vec![]),
        ("lock", vec![]),
        ("journal/0", vec![]),
        ("journal/1", vec![]),
        ("body/seg/0000", vec![1]),
        ("body/seg/0001", vec![3, 5]),
    ];
    let rest = rest.into_iter().map(|(name, holds)| (name.to_owned(), holds));
    index.chain(rest).chain([2, 4].map(|n| (large_body(n), vec![n]))).collect()
}

type Damage = fn(&Path, &Path, &Path) -> bool;
fn flip(path: &Path, part: u64) -> bool {
    let bytes = fs::read(path).unwrap();
    let Some(used) = bytes.iter().rposition(|byte| *byte != 0) else { return false };
    let at = (used as u64 * part / 100) as usize;
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[bytes[at] ^ 0x10], at as u64).unwrap();
    true
}
fn put(path: &Path, from: &Path) -> bool {
    from.is_file() && fs::copy(from, path).is_ok()
}
fn cut(path: &Path, part: u64) -> bool {
    let bytes = fs::read(path).unwrap();
    let Some(used) = bytes.iter().rposition(|byte| *byte != 0) else { return false };
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(used as u64 * part / 100).unwrap();
    true
}
/// What happens to a file: it, the same of an earlier copy, the same of another vault. False: it can't.
const DAMAGES: [(&str, Damage); 11] = [
    ("a bit flipped at its beginning", |path, _, _| flip(path, 0)),
    ("a bit flipped at a tenth", |path, _, _| flip(path, 10)),
    ("a bit flipped in the middle", |path, _, _| flip(path, 50)),
    ("a bit flipped at its end", |path, _, _| flip(path, 100)),
    ("overwritten with zeroes", |path, _, _| {
        let length = fs::metadata(path).unwrap().len();
        length > 0 && fs::write(path, vec![0; length as usize]).is_ok()
    }),
    ("cut to a half", |path, _, _| cut(path, 50)),
    ("cut in its last tenth", |path, _, _| cut(path, 95)),
    ("emptied", |path, _, _| fs::write(path, b"").is_ok()),
    ("removed", |path, _, _| fs::remove_file(path).is_ok()),
    ("of an earlier copy", |path, earlier, _| put(path, earlier)),
    ("of another vault", |path, _, other| put(path, other)),
];

/// What is wrong with what a store serves, beside that which lies in the damaged file.
async fn served(store: &SledStore, lost: &[u8], said: &str) -> String {
    let mut wrong = String::new();
    for n in 1..=5 {
        let want = sealed(n, Class::Protected, &content(n)).1;
        match store.message(id(n)).await {
            Ok(Some(_)) => match body(store, n, 0).await {
                Ok(found) if found == want => {}
                _ if lost.contains(&n) => {}
                other => writeln!(wrong, "body of {n}: {:?}", other.map(|b| b.len())).unwrap(),
            },
            // A loss is told.
            _ if !said.is_empty() => {}
            other => writeln!(wrong, "row of {n}: {other:?}").unwrap(),
        }
    }
    wrong
}

#[tokio::test]
async fn damage_to_any_file_is_named_and_the_rest_is_served() {
    let (crashed, other) = (Crashed::make().await, Crashed::make().await);
    let (mut table, mut wrong) = (Vec::new(), String::new());
    for (name, lost) in kinds(crashed.dir.path()) {
        for (what, damage) in DAMAGES {
            let dir = tempfile::tempdir().unwrap();
            copy(crashed.dir.path(), dir.path());
            let path = dir.path().join(&name);
            if !damage(&path, &crashed.earlier.path().join(&name), &other.dir.path().join(&name)) {
                continue;
            }
            let damaged = fs::read(&path).ok();
            let (opened, said) = look(dir.path());
            let result = match opened {
                Ok(store) => {
                    let bad = served(&store, &lost, &said).await;
                    if !bad.is_empty() {
                        writeln!(wrong, "{name}, {what}: {said}\n{bad}").unwrap();
                    }
                    "opens"
                }
                Err(error) => {
                    if name.starts_with("journal") && fs::read(&path).ok() != damaged {
                        writeln!(wrong, "{name}, {what}: changed though {error}").unwrap();
                    }
                    "refuses"
                }
            };
            table.push((name.clone(), what, result, said));
        }
    }
    assert_eq!(wrong, "");
    let manual = include_str!("../../../src/manual/operations.md");
    let missing: Vec<_> = in_words(&table).into_iter().filter(|l| !manual.contains(l)).collect();
    assert!(missing.is_empty(), "not in the manual:\n{}", missing.join("\n"));
}

/// The rows of the manual's table: damages of one file that come to the same stand together.
fn in_words(table: &[(String, &str, &str, String)]) -> Vec<String> {
    let mut rows: Vec<(String, Vec<&str>, String)> = Vec::new();
    for (name, what, result, said) in table {
        // What sled says depends on where its rows lie; the second large body is as the first.
        if name.starts_with("meta/") || *name == large_body(4) {
            continue;
        }
        let name = if *name == large_body(2) { "body/msg/../ID" } else { name };
        let said = match said.split_once("damaged or lost (") {
            Some((_, why)) => without_place(why.split("); nothing").next().unwrap_or_default()),
            None if name == "FORMAT" && said.contains("says") => "FORMAT says …".to_owned(),
            None => said.lines().next().map(plain).unwrap_or_default(),
        };
        let said = if said.is_empty() { (*result).to_owned() } else { format!("{result}: {said}") };
        match rows.iter_mut().find(|(n, _, s)| n == name && *s == said) {
            Some((_, all, _)) => all.push(what),
            None => rows.push((name.to_owned(), vec![what], said)),
        }
    }
    let row = |(name, what, said): &(String, Vec<&str>, String)| {
        format!("| `{name}` | {} | {said} |", what.join(", "))
    };
    rows.iter().map(row).collect()
}
/// Without the number of a byte, which grows with the rows.
fn without_place(why: &str) -> String {
    match why.split_once("at byte ") {
        Some((before, rest)) => {
            format!("{before}at byte N{}", rest.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        None => why.to_owned(),
    }
}
/// A line of the log without its fields.
fn plain(line: &str) -> String {
    let line = line.trim_start().trim_start_matches("WARN ").trim_start_matches("ERROR ");
    let quoted = line.split("what=\"").nth(1).and_then(|rest| rest.split('"').next());
    let words = quoted.unwrap_or(line);
    let end = [" file=", " id="].iter().filter_map(|field| words.find(field)).min();
    format!("\"{}\"", &words[..end.unwrap_or(words.len())])
}

/// Writes past the store, which is closed.
fn tamper(dir: &Path, kind: u8, key: &[u8], change: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let config = ::sled::Config::new().path(dir.join("meta")).segment_size(2 << 20);
    let db = config.open().unwrap();
    let key = [&[kind], key].concat();
    let row = db.get(&key).unwrap().unwrap().to_vec();
    db.insert(key, change(&row)).unwrap();
    db.flush().unwrap();
    row
}
fn unreadable(_: &[u8]) -> Vec<u8> {
    b"\x01{".to_vec()
}
async fn unread(s: &SledStore) -> u64 {
    s.totals().await.unwrap().unreadable
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_counted_and_the_rest_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for n in 1..=3 {
        accept(&store, n, Class::Protected, &content(n)).await;
    }
    assert_eq!(unread(&store).await, 0);
    drop(store);
    let row = tamper(dir.path(), b'm', id(1).as_bytes(), unreadable);
    let (store, said) = look(dir.path());
    let store = store.unwrap();
    assert!(said.contains(&format!("row=message {}", id(1))), "{said}");
    assert_eq!(unread(&store).await, 1);
    let all = store.list(&Filter::default(), None, 99).await.unwrap();
    assert_eq!(all.iter().map(|(row, _)| row.facts.id).collect::<Vec<_>>(), [2, 3].map(id));
    // All others end; what lies beside them stays, however old it is.
    for c in store.claim(ask(1, 99)).await.unwrap().claims {
        assert_ne!(c.message.facts.id, id(1));
        let end = outcome(c.recipients[0].index, delivered());
        store.settle(settle(&c, vec![end])).await.unwrap();
    }
    assert_eq!(unread(&store).await, 1, "counted once");
    assert_eq!(gone(&store, 2).await, [2, 3]);
    store.set_orphans_aside(trusted(100 * 24 * 3600)).await.unwrap();
    assert!(store.claim(ask(15 * 60, 99)).await.unwrap().claims.is_empty(), "not yet");
    assert!(store.claim(ask(15 * 60 + 1, 99)).await.unwrap().claims.is_empty(), "still unread");
    drop(store);
    tamper(dir.path(), b'm', id(1).as_bytes(), |_| row.clone());
    let store = open(dir.path());
    assert_eq!(unread(&store).await, 0);
    assert_eq!(store.claim(ask(1, 99)).await.unwrap().claims.len(), 2, "two domains");
    assert!(body(&store, 1, 0).await.unwrap() == sealed(1, Class::Protected, &content(1)).1);
}

#[tokio::test]
async fn a_recipient_that_cannot_be_read_keeps_its_message_and_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    accept(&store, 1, Class::Protected, &content(1)).await;
    drop(store);
    let second = [id(1).as_bytes(), &[0, 1][..]].concat();
    tamper(dir.path(), b'r', &second, unreadable);
    let store = open(dir.path());
    assert_eq!(unread(&store).await, 1);
    let claim = claim_one(&store, 1).await;
    store.settle(settle(&claim, vec![outcome(0, delivered())])).await.unwrap();
    assert!(gone(&store, 2).await.is_empty());
    drop(store);
    let store = open(dir.path());
    assert_eq!(unread(&store).await, 1);
    assert!(gone(&store, 2).await.is_empty(), "the other recipient still waits");
}

#[tokio::test]
async fn a_grant_that_cannot_be_read_keeps_its_message() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    finish(&store, 1, "a@a.example", granted(0, grant(9, 1, "a@a.example"))).await;
    drop(store);
    tamper(dir.path(), b'g', GrantId::from_bytes([9; 16]).as_bytes(), unreadable);
    let store = open(dir.path());
    assert_eq!(unread(&store).await, 1);
    assert!(gone(&store, 2).await.is_empty());
    assert!(body(&store, 1, 0).await.is_ok());
}

#[tokio::test]
async fn a_message_that_lost_its_recipients_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.accept(message(1, &["a@a.example"])).await.unwrap();
    drop(store);
    let key = [b"r", &id(1).as_bytes()[..], &[0, 0]].concat();
    let config = ::sled::Config::new().path(dir.path().join("meta")).segment_size(2 << 20);
    let db = config.open().unwrap();
    assert!(db.remove(key).unwrap().is_some());
    db.flush().unwrap();
    drop(db);
    let (store, said) = look(dir.path());
    assert!(said.contains("recipients of a message are missing"), "{said}");
    assert_eq!(unread(&store.unwrap()).await, 1);
}

fn aside(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir.join("aside")).into_iter().flatten();
    files.map(|file| file.unwrap().path()).collect()
}
/// That many hours after a file was written.
fn after(path: &Path, hours: i64) -> TrustedTime {
    let written = Timestamp::try_from(fs::metadata(path).unwrap().modified().unwrap()).unwrap();
    let now = Still(written + SignedDuration::from_hours(hours));
    ClockGuard::new(Arc::new(now), None).check().unwrap()
}

#[tokio::test]
async fn a_body_without_a_row_is_set_aside_for_thirty_days() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    accept(&store, 2, Class::Protected, &content(2)).await;
    let mut writer = store.create(id(9)).await.unwrap();
    writer.write(Bytes::from(sealed(9, Class::Protected, b"never answered for").1)).await.unwrap();
    let at = writer.seal().await.unwrap();
    let orphan = dir.path().join(large_body(9));
    let bytes = fs::read(&orphan).unwrap();
    let hour = |hours| after(&dir.path().join(large_body(2)), hours);
    store.set_orphans_aside(hour(0)).await.unwrap();
    assert!(orphan.exists(), "it may be on its way in");
    store.set_orphans_aside(hour(2)).await.unwrap();
    assert!(!orphan.exists());
    let [kept] = &aside(dir.path())[..] else { panic!("one is set aside") };
    assert!(kept.to_string_lossy().ends_with(&id(9).to_string()), "{kept:?}");
    assert_eq!(fs::read(kept).unwrap(), bytes);
    // Its message is not taken any more: it would have no body.
    let late = NewMessage { body: NewBody::At(at), ..message(9, &["a@a.example"]) };
    assert!(matches!(store.accept(late).await, Err(StoreError::NotFound)));
    store.set_orphans_aside(hour(2 + 30 * 24 - 1)).await.unwrap();
    assert_eq!(aside(dir.path()).len(), 1);
    store.set_orphans_aside(hour(2 + 30 * 24)).await.unwrap();
    assert!(aside(dir.path()).is_empty());
    assert!(body(&store, 2, 0).await.is_ok(), "what has a row stays in its place");
}

#[tokio::test]
async fn a_body_that_comes_back_after_its_message_was_destroyed_is_destroyed_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    accept(&store, 2, Class::Protected, &content(2)).await;
    let path = dir.path().join(large_body(2));
    let bytes = fs::read(&path).unwrap();
    for c in store.claim(ask(1, 99)).await.unwrap().claims {
        let end = outcome(c.recipients[0].index, delivered());
        store.settle(settle(&c, vec![end])).await.unwrap();
    }
    assert_eq!(gone(&store, 2).await, [2]);
    assert!(!path.exists());
    fs::write(&path, bytes).unwrap();
    store.set_orphans_aside(after(&path, 2)).await.unwrap();
    assert!(!path.exists() && aside(dir.path()).is_empty());
}

#[tokio::test]
async fn a_segment_without_a_row_is_set_aside_with_its_keys() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    accept(&store, 1, Class::Protected, &content(1)).await;
    drop(store);
    let segment = dir.path().join("body/seg/0000");
    let config = ::sled::Config::new().path(dir.path().join("meta")).segment_size(2 << 20);
    let db = config.open().unwrap();
    db.remove([b"m", &id(1).as_bytes()[..]].concat()).unwrap();
    db.flush().unwrap();
    drop(db);
    let store = open(dir.path());
    let bytes = fs::read(&segment).unwrap();
    store.set_orphans_aside(after(&segment, 2)).await.unwrap();
    assert!(!segment.exists());
    let [kept] = &aside(dir.path())[..] else { panic!("one is set aside") };
    assert!(kept.to_string_lossy().ends_with("-segment-0000"), "{kept:?}");
    assert_eq!(fs::read(kept).unwrap(), bytes);
}
