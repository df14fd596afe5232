//! Single cases: a domain, its entry, what its DNS says, and what becomes of a message.

use super::scene::{self, SECRET, Scene};
use crate::support::gateway::Gateway;
use serde_json::Value;
use std::fmt::Write;

/// A case.
#[derive(Debug)]
pub struct Row {
    pub domain: &'static str,
    /// Where its mail leads, in the words of the test.
    pub dns: String,
    /// Lines of its entry; none: it has no entry.
    pub entry: String,
    /// `delivered` or the reason's code; part of the decision in words, or of an attempt's record.
    pub expected: (&'static str, &'static str),
    pub why: &'static str,
}

pub fn row(
    domain: &'static str,
    dns: impl Into<String>,
    entry: impl Into<String>,
    expected: (&'static str, &'static str),
    why: &'static str,
) -> Row {
    Row { domain, dns: dns.into(), entry: entry.into(), expected, why }
}

/// Delivered, because of this.
pub fn met(says: &'static str) -> (&'static str, &'static str) {
    ("delivered", says)
}

/// Sealed, because the level is not met.
pub fn unmet(says: &'static str) -> (&'static str, &'static str) {
    ("level-not-met", says)
}

/// Not now, because DNS does not say.
pub fn doubt(says: &'static str) -> (&'static str, &'static str) {
    ("dns-trouble", says)
}

/// Not now, because a file of ours can't be used.
pub fn ours(says: &'static str) -> (&'static str, &'static str) {
    ("ours", says)
}

/// The policy with their entries.
pub fn policy(rows: &[Row]) -> String {
    let with = rows.iter().filter(|row| !row.entry.is_empty());
    let entry = |row: &Row| {
        let Row { domain, entry, .. } = row;
        format!("[[partner]]\ndomains = [\"{domain}\"]\notherwise_after = \"0s\"\n{entry}\n")
    };
    with.map(entry).collect()
}

/// Sends to all of them, and holds what comes of it against the rows. No content is ever seen in the
/// clear.
pub fn hold(scene: &Scene, gateway: &Gateway, rows: &[Row]) {
    let before = secrets(scene);
    let to: Vec<String> = rows.iter().map(|row| format!("r@{}", row.domain)).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let mut wrong = String::new();
    for (row, life) in rows.iter().zip(scene.send(gateway, &to)) {
        let (wanted, says) = row.expected;
        let (outcome, reason) = match wanted {
            "delivered" => ("delivered", "level-met"),
            code @ ("dns-trouble" | "ours") => ("deferred", code),
            reason => ("sealed", reason),
        };
        let said = format!("{} {}", words(&life["why"]), errors(&life));
        let right = life["outcome"] == outcome && life["reason"] == reason;
        if !right || !said.contains(says) {
            writeln!(
                wrong,
                "{}: {} ({}): {said}\n    expected {outcome} ({reason}): {:?}: {}",
                row.domain, life["outcome"], life["reason"], says, row.why
            )
            .expect("written");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    let direct = rows.iter().filter(|row| row.expected.0 == "delivered").count();
    assert_eq!(secrets(scene) - before, direct, "the secret went where it may, and nowhere else");
    let clear = scene.sinks().map(|sink| sink.counted().clear).sum::<u64>();
    assert_eq!(clear, 0, "bytes of content in the clear");
}

fn secrets(scene: &Scene) -> usize {
    scene.sinks().map(|sink| scene::count(&sink.bytes(), SECRET.as_bytes())).sum()
}

fn words(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn errors(life: &Value) -> String {
    let attempts = life["attempts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let errors: Vec<&str> = attempts.iter().map(|attempt| words(&attempt["error"])).collect();
    errors.join("; ")
}
