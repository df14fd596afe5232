//! A folder for a while: open to nobody else, and gone at the end.

use super::tell::{Failure, Told};
use crate::cli::out;
use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// The folder; dropping it removes it.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn make() -> Told<Self> {
        let path = std::env::temp_dir();
        let path = path.join(format!("restante-demo-{:016x}", rand::random::<u64>()));
        // Fails where the name exists: nobody can have laid a trap there.
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(Failure::at(path.display()))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file, and the folders that lead to it.
    pub(super) fn write(&self, name: &str, text: &str) -> Told<PathBuf> {
        let path = self.0.join(name);
        let write = || {
            fs::create_dir_all(path.parent().unwrap_or(&self.0))?;
            fs::write(&path, text)
        };
        write().map_err(Failure::at(path.display()))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => out::complain(format_args!(
                "{}: {error}; please remove it yourself",
                self.0.display()
            )),
            Ok(()) | Err(_) => {}
        }
    }
}
