//! The program: parse, read the configuration, hand over.

use clap::Parser;
use restante::{
    cli::{self, Cli, Command, Exit, args, out},
    clock::SystemClock,
    config::{Config, Dnssec},
    control::{Request, accounts::AccountOrder},
    daemon,
    store::OrderKind,
};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// What one thread allocates another often frees here (requests to the committer and their answers);
/// the C library's allocator spent a tenth of all processor time on waiting for its own locks.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
        Command::Clock(args::Clock::Confirm { json }) => {
            with(config, |c| cli::look::clock_confirm(&socket(&c), json))
        }
        Command::Keys(keys) => with(config, |c| run_keys(&socket(&c), &keys)),
        Command::Status { json } => with(config, |c| cli::look::status(&socket(&c), json)),
        Command::Queue(queue) => with(config, |c| run_queue(&socket(&c), queue)),
        Command::Trace { query, json } => {
            with(config, |c| cli::look::trace(&socket(&c), query, json))
        }
        Command::Vault(vault) => with(config, |c| run_vault(&c, vault)),
        Command::Account(account) => with(config, |c| run_account(&socket(&c), account)),
        Command::Audit(audit) => with(config, |c| run_audit(&socket(&c), audit)),
        Command::TlsReport { day, domain, json } => {
            with(config, |c| cli::tls_report::show(&socket(&c), day, domain.as_ref(), json))
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
        Command::Config(args::Config::Catalogue { language }) => {
            out::raw(language);
            Exit::Done
        }
        Command::Completions { shell } => cli::manual::completions(shell),
        Command::Man { dir } => cli::manual::pages(&dir),
    }
}

fn run_queue(socket: &Path, command: args::Queue) -> Exit {
    let order = |kind, report, meant| cli::queue::order(socket, kind, report, meant, &SystemClock);
    match command {
        args::Queue::List { after, limit, json } => {
            cli::look::queue_list(socket, json, cli::look::Paging { after, limit })
        }
        args::Queue::Show { id, json } => cli::look::queue_show(socket, id, json),
        args::Queue::Retry(meant) => order(OrderKind::Retry, false, meant),
        args::Queue::Hold(meant) => order(OrderKind::Hold, false, meant),
        args::Queue::Release(meant) => order(OrderKind::Release, false, meant),
        args::Queue::Remove { report, meant } => order(OrderKind::Remove, report, meant),
    }
}

fn run_vault(config: &Config, command: args::Vault) -> Exit {
    let socket = socket(config);
    match command {
        args::Vault::List { json } => cli::vault::listed(&socket, json),
        args::Vault::Show { id, json } => cli::vault::shown(&socket, id, json),
        args::Vault::Extend { id, by, json } => cli::vault::extend(&socket, id, by, json),
        args::Vault::Recall { id, recipient, json } => {
            cli::vault::recall(&socket, id, recipient, json)
        }
        args::Vault::Export { id } => cli::vault::export(&socket, id),
        args::Vault::Doubts { json } => cli::vault::doubts(&socket, json),
        args::Vault::Trust { domain, json } => cli::vault::trust(&socket, domain, json),
        args::Vault::Rebuild { json } => daemon::rebuild(config, json),
    }
}

fn run_keys(socket: &Path, command: &args::Keys) -> Exit {
    let (request, json) = match command {
        args::Keys::List { json } => (Request::Keys, json),
        args::Keys::Rotate { json } => (Request::KeysRotate, json),
        args::Keys::Reload { json } => (Request::KeysReload, json),
    };
    cli::look::keys(socket, &request, *json)
}

fn run_account(socket: &Path, command: args::Account) -> Exit {
    let order = |order, named| cli::account::order(socket, order, named);
    match command {
        args::Account::List { json } => cli::account::listed(socket, json),
        args::Account::Show(named) => cli::account::shown(socket, named),
        args::Account::Log(log) => cli::audit::account_log(socket, log, &SystemClock),
        args::Account::Lock(named) => order(AccountOrder::Lock, named),
        args::Account::Unlock(named) => order(AccountOrder::Unlock, named),
        args::Account::Reset(named) => order(AccountOrder::Reset, named),
        args::Account::Move { old, new, json } => cli::account::moved(socket, old, new, json),
        args::Account::Remove(named) => order(AccountOrder::Remove, named),
    }
}

fn run_audit(socket: &Path, command: args::Audit) -> Exit {
    match command {
        args::Audit::Search(search) => cli::audit::search(socket, search, &SystemClock),
        args::Audit::Verify { json } => cli::audit::verify(socket, json),
        args::Audit::Export(which) => cli::audit::export(socket, which, &SystemClock),
    }
}

fn run_policy(config: Option<&Path>, command: args::Policy) -> Exit {
    match command {
        args::Policy::Check { dir, strict, json, sarif } => {
            let answer = match (sarif, json) {
                (true, _) => cli::policy::Answer::Sarif,
                (false, true) => cli::policy::Answer::Json,
                (false, false) => cli::policy::Answer::Text,
            };
            check_policies(config, dir, strict, answer)
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
        args::Policy::ImportPostfix { file, out } => cli::postfix::import(&file, out.as_deref()),
        args::Policy::ExportPostfix { dir: Some(dir) } => cli::postfix::export(&dir, &SystemClock),
        args::Policy::ExportPostfix { dir: None } => {
            with(config, |c| cli::postfix::export(&c.policy_dir, &SystemClock))
        }
    }
}

/// A folder that is named is checked also beside a configuration that is wrong.
fn check_policies(
    config: Option<&Path>,
    dir: Option<PathBuf>,
    strict: bool,
    answer: cli::policy::Answer,
) -> Exit {
    let (dir, config) = match (dir, Config::load(config)) {
        (None, Ok(config)) => (config.policy_dir.clone(), Some(config)),
        (Some(dir), Ok(config)) => (dir, Some(config)),
        (None, Err(error)) => {
            out::complain(error);
            return Exit::Config;
        }
        (Some(dir), Err(error)) => {
            out::complain(format_args!("checked without the configuration: {error}"));
            (dir, None)
        }
    };
    let beside = config.map_or_else(cli::policy::Beside::default, |config| cli::policy::Beside {
        dnssec_off: config.dns.dnssec == Dnssec::Off,
        own_domains: config.organization.domains,
    });
    cli::policy::check(&dir, &beside, strict, answer, &SystemClock)
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
    let (problems, advice): (Vec<String>, Vec<String>) = match Config::load(file) {
        Ok(config) => (daemon::check(&config), daemon::advice(&config)),
        Err(error) => (error.to_string().lines().map(str::to_owned).collect(), Vec::new()),
    };
    let exit = if problems.is_empty() { Exit::Done } else { Exit::Config };
    let warnings = advice.into_iter().map(|text| format!("warning: {text}"));
    let said: Vec<String> = problems.into_iter().chain(warnings).collect();
    if json {
        out::json(&said);
    } else {
        said.iter().for_each(out::line);
    }
    exit
}

fn socket(config: &Config) -> PathBuf {
    config.data_dir.join("control.sock")
}
