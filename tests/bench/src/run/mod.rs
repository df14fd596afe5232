//! The driver: for each row, round by round, one relay after the other under the same load.

mod hostile;
mod machine;
mod measure;
mod peer;
mod process;
mod report;
mod rows;
mod soak;

use crate::{Fault, line, remark, tls};
use clap::Args;
pub(crate) use hostile::{HostileArguments, main as attack};
use measure::{Bench, Counts, Sample};
use peer::{Duty, Kind};
use process::{Group, Launch, Undo};
use rows::{ROWS, Row};
pub(crate) use soak::{SoakArguments, main as soak};
use std::{fs, path::PathBuf};

#[derive(Debug, Clone, Args)]
pub(crate) struct RunArguments {
    /// The program that is measured
    #[arg(long, default_value = "target/release/restante")]
    restante: PathBuf,
    /// Where queues lie: a folder on a real disk
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    /// Rows, by name, with commas between; all by default
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Relays that take part
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Kind::Restante, Kind::Postfix])]
    peer: Vec<Kind>,
    /// Rounds, each with every relay once
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Messages of a round
    #[arg(long, default_value_t = 4000)]
    messages: u64,
    /// Recipients' domains
    #[arg(long, default_value_t = 1)]
    domains: u64,
    /// The generator pipelines MAIL, RCPT and DATA
    #[arg(long)]
    pipeline: bool,
    /// Relay, generator and sink run at real-time priority (chrt --rr): for a machine that others use
    /// too
    #[arg(long)]
    rt: bool,
    /// Leaves out the pass that counts syncs and memory
    #[arg(long)]
    no_counts: bool,
    /// Records a profile of Restante's timed passes with perf, as `ROW.DUTY.perf` in the folder
    #[arg(long)]
    profile: bool,
    /// Where all figures go; by default `results.json` in the folder
    #[arg(long)]
    json: Option<PathBuf>,
}

/// One that bears a row's load, and what came of it.
#[derive(Debug)]
struct Contestant {
    kind: Kind,
    duty: Duty,
    samples: Vec<Sample>,
    counts: Option<Counts>,
}

impl Contestant {
    fn new(kind: Kind, duty: Duty) -> Self {
        Self { kind, duty, samples: Vec::new(), counts: None }
    }
}

/// Runs everything and prints the table.
pub(crate) fn main(arguments: &RunArguments) -> Result<(), Fault> {
    let rows = chosen(&arguments.rows)?;
    fs::create_dir_all(&arguments.dir)?;
    let dir = arguments.dir.canonicalize()?;
    let restante = arguments.restante.canonicalize();
    let restante = restante.map_err(|e| format!("{}: {e}", arguments.restante.display()))?;
    let machine = machine::facts(&dir, &restante)?;
    let certificates = dir.join("certificates");
    fs::create_dir_all(&certificates)?;
    tls::write_certificates(&certificates)?;

    let (undo, group) = (Undo::default(), Group::new());
    undo.later(&group);
    let program = std::env::current_exe()?;
    let launch = Launch { rt: arguments.rt };
    let bench = Bench { arguments, launch, dir, certificates, program, restante, group };
    let mut results = Vec::new();
    for row in rows {
        let contestants = contest(&bench, row)?;
        results.push((row, contestants));
    }
    let results =
        report::Results { arguments, machine, results, accounting: bench.group.describe() };
    let file = arguments.json.clone().unwrap_or_else(|| bench.dir.join("results.json"));
    fs::write(&file, format!("{:#}\n", results.json()))?;
    line(&results.markdown());
    remark(&format!("all figures: {}", file.display()));
    Ok(())
}

fn chosen(names: &[String]) -> Result<Vec<&'static Row>, Fault> {
    let unknown = names.iter().find(|name| ROWS.iter().all(|row| row.name != name.as_str()));
    if let Some(name) = unknown {
        let all: Vec<_> = ROWS.iter().map(|row| row.name).collect();
        return Err(format!("no row `{name}`; there are {}", all.join(", ")).into());
    }
    let wanted = |row: &&Row| names.is_empty() || names.iter().any(|name| name == row.name);
    Ok(ROWS.iter().filter(wanted).collect())
}

/// Who takes part in a row: Restante first, beside it whom its ratio is taken to.
fn contestants(row: &Row, peers: &[Kind]) -> Vec<Contestant> {
    let takes_part = |kind: Kind| peers.contains(&kind);
    let restante = Some(Contestant::new(Kind::Restante, row.duty));
    let restante = restante.filter(|_| takes_part(Kind::Restante));
    let beside = row.beside.filter(|(kind, _)| takes_part(*kind));
    let beside = beside.map(|(kind, duty)| Contestant::new(kind, duty));
    let shipped = row.beside.filter(|(kind, _)| *kind == Kind::Postfix);
    let shipped = shipped.filter(|_| takes_part(Kind::PostfixShipped));
    let shipped = shipped.map(|(_, duty)| Contestant::new(Kind::PostfixShipped, duty));
    [restante, beside, shipped].into_iter().flatten().collect()
}

fn contest(bench: &Bench<'_>, row: &Row) -> Result<Vec<Contestant>, Fault> {
    let arguments = bench.arguments;
    let mut contestants = contestants(row, &arguments.peer);
    let rounds = if row.sessions == 0 { 0 } else { arguments.rounds };
    for round in 1..=rounds {
        for contestant in &mut contestants {
            let (kind, duty) = (contestant.kind, contestant.duty);
            let sample = bench.time(row, kind, duty);
            let sample = sample.map_err(|e| format!("{}, {}: {e}", row.name, kind.name()))?;
            remark(&format!(
                "{} {round}/{rounds} {} ({}): {:.0}/s, {:.1} CPU-s per 10,000, ack p50 {:.1} p99 {:.1} ms, \
                 {} connections to the sink, {} errors, {} doubled, load {:.1}",
                row.name,
                kind.name(),
                duty.name(),
                sample.rate,
                sample.cpu_per_10k,
                sample.ack_p50_ms,
                sample.ack_p99_ms,
                sample.connections,
                sample.errors,
                sample.doubled,
                sample.load,
            ));
            contestant.samples.push(sample);
        }
    }
    for contestant in contestants.iter_mut().filter(|_| !arguments.no_counts) {
        let counts = bench.count(row, contestant.kind, contestant.duty);
        let counts =
            counts.map_err(|e| format!("{}, {}: {e}", row.name, contestant.kind.name()))?;
        contestant.counts = Some(counts);
    }
    Ok(contestants)
}
