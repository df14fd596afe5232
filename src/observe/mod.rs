//! The log: stderr, text or JSON. Messages are readable alone and carry fields; never a local part,
//! a subject, a token or any of a message's content.

pub mod metrics;

use tracing_subscriber::EnvFilter;

/// Starts logging. A second call does nothing (tests, demo).
pub fn start(json: bool, level: &str) {
    // Libraries speak only when something is wrong with them. A bogus answer is not: hickory would
    // print all of it, and what became of the mail is told where that is decided.
    let filter = EnvFilter::new(format!("warn,hickory_net=error,restante={level}"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false);
    let started = if json { log.json().try_init() } else { log.try_init() };
    drop(started);
}
