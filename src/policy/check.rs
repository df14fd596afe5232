//! Problems of policy files, as people who edit files want them.
use serde::Serialize;
use std::fmt;

/// A policy file as read.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Name relative to the policy directory.
    pub name: String,
    /// Its text.
    pub text: String,
}
/// How bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The set is refused.
    Error,
    /// Worth a look.
    Warning,
}
/// One problem: `file:line:column: error: text`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// File.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
    /// Severity.
    pub severity: Severity,
    /// What is wrong and what to write instead.
    pub text: String,
}
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{}:{}:{}: {severity}: {}", self.file, self.line, self.column, self.text)
    }
}
