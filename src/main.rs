//! The program: parse, read the configuration, hand over.

use clap::Parser;
use restante::{
    cli::{self, Cli, Command, Exit, args, out},
    clock::SystemClock,
    config::Config,
    daemon,
};
use std::{path::Path, process::ExitCode};

fn main() -> ExitCode {
    let exit = match Cli::try_parse() {
        Ok(cli) => run(cli),
        Err(error) => {
            drop(error.print());
            if error.use_stderr() { Exit::Usage } else { Exit::Done }
        }
    };
    exit.into()
}

fn run(cli: Cli) -> Exit {
    let config = cli.config.as_deref();
    match cli.command {
        Command::Serve => with(config, |config| daemon::serve(&config)),
        Command::Demo { once } => restante::demo::run(once),
        Command::Status { json } => with(config, |c| cli::look::status(&socket(&c), json)),
        Command::Queue(args::Queue::List { json }) => {
            with(config, |c| cli::look::queue_list(&socket(&c), json))
        }
        Command::Queue(args::Queue::Show { id, json }) => {
            with(config, |c| cli::look::queue_show(&socket(&c), id, json))
        }
        Command::Trace { query, json } => {
            with(config, |c| cli::look::trace(&socket(&c), query, json))
        }
        Command::Vault(args::Vault::List { json }) => {
            with(config, |c| cli::look::vault_list(&socket(&c), json))
        }
        Command::Vault(args::Vault::Rebuild { json }) => {
            with(config, |c| daemon::rebuild(&c, json))
        }
        Command::TlsReport { day, domain, json } => {
            with(config, |c| cli::tls_report::show(&socket(&c), day, domain, json))
        }
        Command::Policy(policy) => run_policy(config, policy),
        Command::Config(args::Config::Check { json }) => check_config(config, json),
        Command::Config(args::Config::Show { json }) => with(config, |c| {
            if json {
                out::json(&c.to_json())
            } else {
                out::raw(c.to_toml())
            }
            Exit::Done
        }),
        Command::Completions { shell } => cli::manual::completions(shell),
        Command::Man { dir } => cli::manual::pages(&dir),
    }
}

fn run_policy(config: Option<&Path>, command: args::Policy) -> Exit {
    match command {
        args::Policy::Check { dir: Some(dir), strict, json } => {
            cli::policy::check(&dir, strict, json, &SystemClock)
        }
        args::Policy::Check { dir: None, strict, json } => {
            with(config, |c| cli::policy::check(&c.policy_dir, strict, json, &SystemClock))
        }
        args::Policy::Probe { domain, json } => with(config, |c| daemon::probe(&c, &domain, json)),
        args::Policy::Replay { dir, since, strict, json } => with(config, |c| {
            let (live, dir) = (c.policy_dir.as_path(), dir.as_deref());
            let asked = cli::replay::Replay { live, dir, since, strict, json };
            cli::replay::replay(&socket(&c), &asked, &SystemClock)
        }),
        args::Policy::Explain { address, json } => {
            with(config, |c| cli::policy::explain(&c.policy_dir, &address, json, &SystemClock))
        }
    }
}

/// Runs with the configuration; without a good one nothing is started.
fn with(file: Option<&Path>, then: impl FnOnce(Config) -> Exit) -> Exit {
    match Config::load(file) {
        Ok(config) => then(config),
        Err(error) => {
            out::complain(error);
            Exit::Config
        }
    }
}

fn check_config(file: Option<&Path>, json: bool) -> Exit {
    let problems: Vec<String> = match Config::load(file) {
        Ok(config) => daemon::check(&config),
        Err(error) => error.to_string().lines().map(str::to_owned).collect(),
    };
    if json {
        out::json(&problems);
    } else {
        problems.iter().for_each(out::line);
    }
    if problems.is_empty() { Exit::Done } else { Exit::Config }
}

fn socket(config: &Config) -> std::path::PathBuf {
    config.data_dir.join("control.sock")
}
