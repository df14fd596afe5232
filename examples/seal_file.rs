//! Seals and opens a file with the library, as the vault does.
//!
//! `seal_file` runs on a sample of its own; `seal_file seal IN OUT RING` and
//! `seal_file open IN OUT RING` work on files. A RING that does not exist is made when sealing.
#![expect(clippy::print_stdout, reason = "an example talks to who runs it")]

use restante::{
    mail::QueueId,
    seal::{DataKey, Event, KeyRing, Opener, Prelude, Purpose, Sealer, Suite},
};
use std::{
    error::Error,
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};
use zeroize::Zeroizing;

type Outcome<T> = Result<T, Box<dyn Error>>;
const PORTION: usize = 64 * 1024;

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => sample(),
        ["seal", from, to, ring] => seal(Path::new(from), Path::new(to), Path::new(ring)),
        ["open", from, to, ring] => open(Path::new(from), Path::new(to), Path::new(ring)),
        _ => Err("usage: seal_file [seal IN OUT RING | open IN OUT RING]".into()),
    }
}

fn sample() -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let [plain, sealed, opened, ring] =
        ["letter", "letter.sealed", "letter.opened", "ring"].map(|name| folder.path().join(name));
    let letter = "Dear reader,\r\nnobody on the way can read this.\r\n".repeat(5000);
    fs::write(&plain, &letter)?;
    seal(&plain, &sealed, &ring)?;
    open(&sealed, &opened, &ring)?;
    if fs::read(&opened)? != letter.as_bytes() {
        return Err("what came out is not what went in".into());
    }

    let mut damaged = fs::read(&sealed)?;
    if let Some(byte) = damaged.last_mut() {
        *byte ^= 1;
    }
    fs::write(&sealed, damaged)?;
    let error = open(&sealed, &opened, &ring).err().ok_or("a damaged file opened")?;
    println!("with one bit flipped: {error}");
    Ok(())
}

fn seal(from: &Path, to: &Path, ring: &Path) -> Outcome<()> {
    let ring = ring_for_sealing(ring)?;
    let id = QueueId::from_bytes(rand::random());
    let key = DataKey::from_random(secret());
    let wrapped = ring.wrap(&key, Purpose::Message, id, rand::random());
    let name = from.file_name().unwrap_or_default().as_encoded_bytes();
    let (mut input, mut output) = (File::open(from)?, File::create(to)?);
    let (mut plain, mut sealed) = (Zeroizing::new(vec![0; PORTION]), Vec::new());
    let mut sealer = Sealer::new(Suite::default(), &key, id, &wrapped, name, &mut sealed);
    loop {
        let length = input.read(&mut plain)?;
        sealer.feed(plain.get(..length).unwrap_or_default(), &mut sealed);
        output.write_all(&sealed)?;
        sealed.clear();
        if length == 0 {
            break;
        }
    }
    println!("sealed {} bytes under ring key {}", sealer.size(), ring.current().0);
    sealer.finish(b"", &mut sealed);
    output.write_all(&sealed)?;
    Ok(output.sync_all()?)
}

fn open(from: &Path, to: &Path, ring: &Path) -> Outcome<()> {
    let ring = KeyRing::parse(&Zeroizing::new(fs::read_to_string(ring)?))?;
    let (mut input, mut sealed) = (File::open(from)?, Vec::new());
    (&mut input).take(PORTION as u64).read_to_end(&mut sealed)?;
    let prelude = Prelude::parse(&sealed)?;
    let wrapped = prelude.wrapped().next().ok_or("its key has been destroyed")?;
    let key = ring.unwrap(wrapped, Purpose::Message, prelude.id)?;
    let mut opener = Opener::new(prelude.format, &key, prelude.id);
    let mut output =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(to)?;
    while !sealed.is_empty() {
        opener.feed(&sealed);
        while let Some(event) = opener.poll()? {
            match event {
                Event::Header(name) => println!("opening {}", String::from_utf8_lossy(&name)),
                Event::Content(_, plain) => output.write_all(&plain)?,
                Event::Index(_) => {}
                Event::End => println!("opened, whole and unchanged"),
            }
        }
        sealed.resize(PORTION, 0);
        let length = input.read(&mut sealed)?;
        sealed.truncate(length);
    }
    Ok(opener.finish()?)
}

fn ring_for_sealing(path: &Path) -> Outcome<KeyRing> {
    if path.exists() {
        return Ok(KeyRing::parse(&Zeroizing::new(fs::read_to_string(path)?))?);
    }
    let ring = KeyRing::generate(secret());
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(ring.to_text().as_bytes())?;
    Ok(ring)
}

fn secret() -> Zeroizing<[u8; 32]> {
    let mut bytes = Zeroizing::new([0; 32]);
    rand::fill(bytes.as_mut_slice());
    bytes
}
