//! What is made of the samples: medians with their spread, ratios, and how they stand to the
//! targets.

use super::{
    Contestant, RunArguments,
    measure::Sample,
    rows::{Figure, Row, Target},
};
use serde_json::{Value, json};
use std::fmt::Write;

/// A run's outcome.
pub(super) struct Results<'a> {
    pub(super) arguments: &'a RunArguments,
    pub(super) machine: Value,
    pub(super) results: Vec<(&'static Row, Vec<Contestant>)>,
    pub(super) accounting: String,
}

/// Median, least and most.
#[derive(Debug, Clone, Copy)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        let lower = if values.len().is_multiple_of(2) {
            *values.get(middle.checked_sub(1)?)?
        } else {
            upper
        };
        Some(Self { median: f64::midpoint(lower, upper), least, most })
    }

    fn json(self) -> Value {
        json!({ "median": self.median, "least": self.least, "most": self.most })
    }

    fn text(self, digits: usize) -> String {
        let Self { median, least, most } = self;
        format!("{median:.digits$} [{least:.digits$}..{most:.digits$}]")
    }
}

/// A column of the samples.
type Column = fn(&Sample) -> f64;

fn column(contestant: &Contestant, column: Column) -> Option<Spread> {
    Spread::of(contestant.samples.iter().map(column))
}

/// Of medians, with the least and the most of any pair of a round.
fn ratio(contestants: &[Contestant]) -> Option<Spread> {
    let [first, second, ..] = contestants else { return None };
    let rate: Column = |sample| sample.rate;
    let pairs = first.samples.iter().zip(&second.samples);
    let pairs = Spread::of(pairs.map(|(a, b)| a.rate / b.rate))?;
    let median = column(first, rate)?.median / column(second, rate)?.median;
    Some(Spread { median, ..pairs }).filter(|spread| spread.median.is_finite())
}

fn figure(contestants: &[Contestant], figure: Figure) -> Option<f64> {
    let first = contestants.first()?;
    match figure {
        Figure::Ratio => ratio(contestants).map(|spread| spread.median),
        Figure::Cpu => column(first, |s| s.cpu_per_10k).map(|spread| spread.median),
        Figure::Ack => column(first, |s| s.ack_p99_ms).map(|spread| spread.median),
        Figure::Pss => first.counts.map(|counts| counts.pss),
        Figure::Syncs => first.counts.and_then(|counts| counts.syncs_per_message),
    }
}

fn unit(figure: Figure) -> &'static str {
    match figure {
        Figure::Ratio => "x",
        Figure::Cpu => " CPU-s",
        Figure::Ack => " ms p99",
        Figure::Pss => " MiB",
        Figure::Syncs => " syncs",
    }
}

/// How a target was met; nothing where it was not measured.
fn verdict(contestants: &[Contestant], target: &Target) -> Option<(f64, &'static str)> {
    let got = figure(contestants, target.figure)?;
    let reaches = |aim: f64| match target.figure {
        Figure::Ratio => got >= aim,
        Figure::Cpu | Figure::Ack | Figure::Pss | Figure::Syncs => got <= aim,
    };
    let word = match target.stretch {
        Some(stretch) if reaches(stretch) => "met, stretch too",
        _ if reaches(target.aim) => "met",
        _ => "**missed**",
    };
    Some((got, word))
}

impl Results<'_> {
    /// Everything, for other programs.
    pub(super) fn json(&self) -> Value {
        let rows = self.results.iter().map(|(row, contestants)| {
            let targets = row.targets.iter().map(|target| {
                let verdict = verdict(contestants, target);
                json!({
                    "figure": unit(target.figure).trim(),
                    "target": target.aim,
                    "stretch": target.stretch,
                    "got": verdict.map(|(got, _)| got),
                    "met": verdict.map(|(_, word)| !word.contains("missed")),
                })
            });
            json!({
                "row": row.name,
                "what": row.what,
                "messages": row.messages(self.arguments.messages),
                "contestants": contestants.iter().map(contestant_json).collect::<Vec<_>>(),
                "ratio": ratio(contestants).map(Spread::json),
                "targets": targets.collect::<Vec<_>>(),
            })
        });
        json!({
            "machine": self.machine,
            "rounds": self.arguments.rounds,
            "real_time": self.arguments.rt,
            "domains": self.arguments.domains,
            "pipeline": self.arguments.pipeline,
            "accounting": self.accounting,
            "rows": rows.collect::<Vec<_>>(),
        })
    }

    /// Two tables and the facts they stand on.
    pub(super) fn markdown(&self) -> String {
        let mut out = self.facts();
        out += "\n| row | relay | rate/s (MB/s for `big`) | CPU-s per 10,000 | ack p50 / p99 / max ms | \
                syncs per message | peak PSS MiB | connections, handshakes | errors, doubled | load |\n\
                |---|---|---|---|---|---|---|---|---|---|\n";
        for (row, contestants) in &self.results {
            for contestant in contestants {
                out += &measured(row, contestant);
            }
        }
        out += "\n| row | what | ratio of medians [of any pair] | target | stretch | got | |\n\
                |---|---|---|---|---|---|---|\n";
        for (row, contestants) in &self.results {
            for (at, target) in row.targets.iter().enumerate() {
                let name = if at == 0 { row.name } else { "" };
                let what = if at == 0 { row.what } else { "" };
                let pairs = ratio(contestants).filter(|_| target.figure == Figure::Ratio);
                let pairs = pairs.map(|spread| spread.text(2)).unwrap_or_default();
                let unit = unit(target.figure);
                let stretch = target.stretch.map(|s| format!("{s}{unit}")).unwrap_or_default();
                let (got, word) = match verdict(contestants, target) {
                    Some((got, word)) => (format!("{got:.2}{unit}"), word),
                    None => ("-".to_owned(), "not measured"),
                };
                let aim = target.aim;
                let wrote = writeln!(
                    out,
                    "| {name} | {what} | {pairs} | {aim}{unit} | {stretch} | {got} | {word} |"
                );
                debug_assert!(wrote.is_ok(), "a String takes everything");
            }
        }
        out
    }

    fn facts(&self) -> String {
        let fact = |key: &str| match self.machine.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => "unknown".to_owned(),
            Some(other) => other.to_string(),
        };
        let yes = |flag: bool| if flag { "yes" } else { "no" };
        format!(
            "{processors} x {processor}, {memory} GiB, Linux {kernel}, {disk} with {fs} (cache: {cache}), \
             {rustc}.\n{restante} at {commit}, Postfix {postfix}. Sync on. {rounds} rounds, SCHED_RR: {rt}, \
             recipient domains: {domains}, generator pipelines: {pipeline}.\n\
             Processor time: {accounting}. Syncs and memory: a pass of their own, under strace with \
             seccomp-bpf (fsync, fdatasync, sync_file_range, msync, sync, syncfs that the kernel did).\n",
            processors = fact("processors"),
            processor = fact("processor"),
            memory = fact("memory_gib"),
            kernel = fact("kernel"),
            disk = fact("disk"),
            fs = fact("file_system"),
            cache = fact("write_cache"),
            rustc = fact("rustc"),
            restante = fact("restante"),
            commit = fact("commit"),
            postfix = fact("postfix"),
            rounds = self.arguments.rounds,
            rt = yes(self.arguments.rt),
            domains = self.arguments.domains,
            pipeline = yes(self.arguments.pipeline),
            accounting = self.accounting,
        )
    }
}

fn measured(row: &Row, contestant: &Contestant) -> String {
    let text = |c: Column, digits| column(contestant, c).map_or("-".to_owned(), |s| s.text(digits));
    let median = |c: Column| column(contestant, c).map_or(0.0, |spread| spread.median);
    let pss = contestant.counts.map_or("-".to_owned(), |counts| format!("{:.1}", counts.pss));
    let syncs = contestant.counts.and_then(|counts| counts.syncs_per_message);
    let syncs = syncs.map_or("-".to_owned(), |syncs| format!("{syncs:.3}"));
    let name = format!("{} ({})", contestant.kind.name(), contestant.duty.name());
    if row.sessions == 0 {
        return format!("| {} | {name} | - | - | - | - | {pss} | - | - | - |\n", row.name);
    }
    format!(
        "| {} | {name} | {} | {} | {:.1} / {:.1} / {:.0} | {syncs} | {pss} | {:.0}, {:.0} | {:.0}, {:.0} | {} |\n",
        row.name,
        text(|s| s.rate, 0),
        text(|s| s.cpu_per_10k, 1),
        median(|s| s.ack_p50_ms),
        median(|s| s.ack_p99_ms),
        column(contestant, |s| s.ack_max_ms).map_or(0.0, |spread| spread.most),
        median(|s| s.connections as f64),
        median(|s| s.handshakes as f64),
        contestant.samples.iter().map(|s| s.errors as f64).sum::<f64>(),
        contestant.samples.iter().map(|s| s.doubled as f64).sum::<f64>(),
        text(|s| s.load, 1),
    )
}

fn contestant_json(contestant: &Contestant) -> Value {
    let spread = |c: Column| column(contestant, c).map(Spread::json);
    let samples = contestant.samples.iter().map(|s| {
        json!({
            "rate": s.rate,
            "cpu_per_10k": s.cpu_per_10k,
            "ack_p50_ms": s.ack_p50_ms,
            "ack_p99_ms": s.ack_p99_ms,
            "ack_max_ms": s.ack_max_ms,
            "errors": s.errors,
            "doubled": s.doubled,
            "connections": s.connections,
            "handshakes": s.handshakes,
            "load": s.load,
        })
    });
    json!({
        "relay": contestant.kind.name(),
        "duty": contestant.duty.name(),
        "rate": spread(|s| s.rate),
        "cpu_per_10k": spread(|s| s.cpu_per_10k),
        "peak_pss_mib": contestant.counts.map(|counts| counts.pss),
        "syncs_per_message": contestant.counts.and_then(|counts| counts.syncs_per_message),
        "rounds": samples.collect::<Vec<_>>(),
    })
}
