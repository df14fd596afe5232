//! Measures Restante beside Postfix: a load generator, a sink that counts, and the driver that runs
//! both relays in turn under the same load. All of it on loopback.

mod load;
mod run;
mod sink;
mod tls;
mod wire;

use clap::{Parser, Subcommand};
use std::{
    error::Error,
    io::{self, Write},
    net::SocketAddr,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

/// What can go wrong in a tool that only its user's eyes judge: a text is enough.
pub(crate) type Fault = Box<dyn Error + Send + Sync>;

#[derive(Debug, Parser)]
#[command(version, about, long_about = None)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sends messages as fast as they are taken, and prints rates and latencies as JSON
    Load(load::LoadArguments),
    /// Takes messages, counts them, and finds those that came twice
    Sink(sink::SinkArguments),
    /// Runs the relays in turn under the same load and prints what came out
    Run(run::RunArguments),
    /// Hands in mail while hostile connections hold the portal, and prints what is left of the rate
    Soak(run::SoakArguments),
    /// Holds hostile connections to a portal until a line comes in
    Hostile(run::HostileArguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Load(arguments) => load::main(&arguments),
        Command::Sink(arguments) => sink::main(arguments),
        Command::Run(arguments) => run::main(&arguments),
        Command::Soak(arguments) => run::soak(&arguments),
        Command::Hostile(arguments) => run::attack(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            remark(&format!("bench: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// A line to stdout. A reader that went away is no fault.
pub(crate) fn line(text: &str) {
    let mut out = io::stdout().lock();
    drop(writeln!(out, "{text}").and_then(|()| out.flush()));
}

/// A line to stderr.
pub(crate) fn remark(text: &str) {
    drop(writeln!(io::stderr(), "{text}"));
}

/// Microseconds of the wall clock: what generator and sink, two processes, have in common.
pub(crate) fn epoch_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// These tools load nothing but this machine.
pub(crate) fn only_loopback(address: SocketAddr) -> Result<(), Fault> {
    if address.ip().is_loopback() {
        Ok(())
    } else {
        Err(format!("{address} is not on loopback").into())
    }
}
