//! Man pages and completions, made from the parser's own definitions.

use super::{Cli, Exit, out};
use clap::CommandFactory;
use std::{io, path::Path};

/// `restante completions SHELL`
pub fn completions(shell: clap_complete::Shell) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "restante", &mut script);
    out::raw(script);
    Exit::Done
}

/// `restante man DIR`: one page a command.
pub fn pages(dir: &Path) -> Exit {
    let written = std::fs::create_dir_all(dir).and_then(|()| generate(dir));
    match written {
        Ok(()) => Exit::Done,
        Err(error) => {
            out::complain(format_args!("{}: {error}", dir.display()));
            Exit::NotPermitted
        }
    }
}

fn generate(dir: &Path) -> io::Result<()> {
    clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), dir)
}
