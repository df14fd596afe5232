//! Which policy decides for an address, and why: without network, from the files of a folder.
//!
//! `cargo run --example explain_policy -- [FOLDER [ADDRESS…]]`; without arguments the folder is
//! `policies`.

use jiff::Timestamp;
use restante::{
    mail::Address,
    policy::{PolicySet, SourceFile, explain},
};
use std::{error::Error, fs, io::Write, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().unwrap_or_else(|| "policies".to_owned());
    let mut addresses: Vec<String> = arguments.collect();
    if addresses.is_empty() {
        addresses = vec!["nurse@partner.example".into(), "someone@stranger.example".into()];
    }
    // The library takes the time as an argument; entries may have expired.
    let now: Timestamp = "2026-11-22T12:00:00Z".parse()?;
    let mut out = std::io::stdout().lock();

    // A set is whole or refused: a broken file never leaves half of the rules in force.
    let (set, warnings) = match PolicySet::parse(&read(Path::new(&folder))?, now) {
        Ok(parsed) => parsed,
        Err(problems) => {
            for problem in problems {
                writeln!(out, "{problem}")?;
            }
            return Err(format!("the policies in {folder} have errors").into());
        }
    };
    for warning in warnings {
        writeln!(out, "{warning}")?;
    }
    for address in addresses {
        let explanation = explain(&set, &address.parse::<Address>()?, now);
        writeln!(out, "{address}: {} ({})", explanation.level, explanation.file)?;
        for sentence in explanation.text {
            writeln!(out, "  {sentence}")?;
        }
    }
    Ok(())
}

/// The policy files of a folder; reading them is no business of the policy room.
fn read(folder: &Path) -> std::io::Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.push(SourceFile { name, text: fs::read_to_string(&path)? });
        }
    }
    Ok(files)
}
