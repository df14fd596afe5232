//! Problems as SARIF 2.1.0 (OASIS, 2020), the format that code-review pipelines read.
use crate::policy::{Code, Problem, Severity};
use serde::Serialize;

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";
const VERSION: &str = "2.1.0";
/// What relative locations start from where the folder is not named relative to a checkout.
const BASE: &str = "POLICIES";

/// A log file (§3.13).
#[derive(Debug, Clone, Serialize)]
pub struct Log {
    #[serde(rename = "$schema")]
    schema: &'static str,
    version: &'static str,
    runs: [Run; 1],
}

/// §3.14
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    tool: Tool,
    /// Columns count characters (§3.14.17).
    column_kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_uri_base_ids: Option<Bases>,
    results: Vec<Finding>,
}

/// §3.14.14
#[derive(Debug, Clone, Serialize)]
struct Bases {
    #[serde(rename = "POLICIES")]
    policies: Base,
}

#[derive(Debug, Clone, Serialize)]
struct Base {
    description: Message,
}

/// §3.18
#[derive(Debug, Clone, Serialize)]
struct Tool {
    driver: Driver,
}

/// §3.19
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Driver {
    name: &'static str,
    version: &'static str,
    semantic_version: &'static str,
    rules: Vec<Descriptor>,
}

/// §3.49
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    id: Code,
    short_description: Message,
    default_configuration: Configuration,
}

/// §3.50
#[derive(Debug, Clone, Serialize)]
struct Configuration {
    level: Severity,
}

/// §3.27
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Finding {
    rule_id: Code,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule_index: Option<usize>,
    level: Severity,
    message: Message,
    locations: [Location; 1],
}

/// §3.11
#[derive(Debug, Clone, Serialize)]
struct Message {
    text: String,
}

/// §3.28
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Location {
    physical_location: PhysicalLocation,
}

/// §3.29
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct PhysicalLocation {
    artifact_location: ArtifactLocation,
    region: Region,
}

/// §3.4
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct ArtifactLocation {
    uri: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    uri_base_id: Option<&'static str>,
}

/// §3.30
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Region {
    start_line: u32,
    start_column: u32,
}

/// The problems of a folder. `folder` is its path relative to the checkout, where it has one; then
/// locations are relative to the checkout, as pipelines want them, else to the folder.
pub fn log(problems: &[Problem], folder: Option<&str>) -> Log {
    let descriptor = |code: &Code| Descriptor {
        id: *code,
        short_description: Message { text: code.meaning().to_owned() },
        default_configuration: Configuration { level: code.severity() },
    };
    let version = env!("CARGO_PKG_VERSION");
    let driver = Driver {
        name: "restante",
        version,
        semantic_version: version,
        rules: Code::ALL.iter().map(descriptor).collect(),
    };
    let base = || Bases {
        policies: Base {
            description: Message { text: "The folder of the policy files.".to_owned() },
        },
    };
    let run = Run {
        tool: Tool { driver },
        column_kind: "unicodeCodePoints",
        original_uri_base_ids: folder.is_none().then(base),
        results: problems.iter().map(|problem| finding(problem, folder)).collect(),
    };
    Log { schema: SCHEMA, version: VERSION, runs: [run] }
}

fn finding(problem: &Problem, folder: Option<&str>) -> Finding {
    let uri = match folder.map(|folder| folder.trim_end_matches('/')) {
        Some(folder) if !folder.is_empty() => format!("{folder}/{}", problem.file),
        Some(_) | None => problem.file.clone(),
    };
    Finding {
        rule_id: problem.code,
        rule_index: Code::ALL.iter().position(|code| *code == problem.code),
        level: problem.severity,
        message: Message { text: problem.text.clone() },
        locations: [Location {
            physical_location: PhysicalLocation {
                artifact_location: ArtifactLocation {
                    uri: reference(&uri),
                    uri_base_id: folder.is_none().then_some(BASE),
                },
                region: Region { start_line: problem.line, start_column: problem.column },
            },
        }],
    }
}

/// A path as a URI reference (RFC 3986 §4.2): what is not plain is percent-encoded.
fn reference(path: &str) -> String {
    let mut uri = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/') {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{PolicySet, SourceFile};
    use serde_json::{Value, json};

    fn example(folder: Option<&str>) -> Value {
        let text = "[[partner]]\ndomains = [\"a.example\"]\nlevel = \"secur\"\n\
                    [[partner]]\ndomains = [\"bücher.example\", \".co.uk\"]\nlevel = \"secure\"\n";
        let file = SourceFile { name: "böse datei.toml".into(), text: text.into() };
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        let problems = PolicySet::parse(&[file], now).unwrap_err();
        serde_json::to_value(log(&problems, folder)).unwrap()
    }

    /// What the schema asks of the parts that are used: required members, enumerations, minima.
    fn assert_shape(log: &Value) {
        assert_eq!(log["version"], "2.1.0");
        let runs = log["runs"].as_array().expect("runs is an array");
        for run in runs {
            assert!(
                ["utf16CodeUnits", "unicodeCodePoints"].iter().any(|k| run["columnKind"] == *k)
            );
            let driver = &run["tool"]["driver"];
            assert!(driver["name"].as_str().is_some_and(|name| !name.is_empty()));
            let rules = driver["rules"].as_array().expect("rules is an array");
            let ids: std::collections::HashSet<_> =
                rules.iter().map(|r| r["id"].as_str().expect("an id is a text")).collect();
            assert_eq!(ids.len(), rules.len(), "ids are unique");
            for rule in rules {
                assert!(rule["shortDescription"]["text"].is_string());
                level(&rule["defaultConfiguration"]["level"]);
            }
            for result in run["results"].as_array().expect("results is an array") {
                level(&result["level"]);
                assert!(result["message"]["text"].is_string(), "message is required");
                let index = usize::try_from(result["ruleIndex"].as_u64().expect("a number"));
                assert_eq!(rules[index.expect("small")]["id"], result["ruleId"]);
                for location in result["locations"].as_array().expect("locations is an array") {
                    let place = &location["physicalLocation"];
                    let at = &place["artifactLocation"];
                    let uri = at["uri"].as_str().expect("a URI");
                    assert!(uri.is_ascii() && !uri.contains(' ') && !uri.starts_with('/'), "{uri}");
                    if let Some(base) = at["uriBaseId"].as_str() {
                        assert!(run["originalUriBaseIds"][base].is_object(), "{base} is declared");
                    }
                    for key in ["startLine", "startColumn"] {
                        assert!(place["region"][key].as_u64().is_some_and(|n| n >= 1), "{key}");
                    }
                }
            }
        }
    }

    fn level(level: &Value) {
        assert!(["none", "note", "warning", "error"].iter().any(|known| level == known), "{level}");
    }

    #[test]
    fn the_shape_is_the_schema_s() {
        for folder in [None, Some("conf/policies/"), Some("")] {
            assert_shape(&example(folder));
        }
        assert_shape(&serde_json::to_value(log(&[], None)).unwrap());
    }

    #[test]
    fn an_example_is_frozen() {
        let run = &example(Some("policies"))["runs"][0];
        let result = |code: &str, level: &str, line: u32, column: u32, text: &str| {
            let index = Code::ALL.iter().position(|c| c.as_str() == code).unwrap();
            json!({
                "ruleId": code,
                "ruleIndex": index,
                "level": level,
                "message": { "text": text },
                "locations": [{ "physicalLocation": {
                    "artifactLocation": { "uri": "policies/b%C3%B6se%20datei.toml" },
                    "region": { "startLine": line, "startColumn": column },
                }}],
            })
        };
        let wanted = json!([
            result(
                "unknown-level",
                "error",
                3,
                9,
                "key `level`: unknown level `secur`; did you mean `secure`?"
            ),
            result(
                "parent-not-covered",
                "warning",
                5,
                30,
                "`.co.uk` covers subdomains only: `co.uk` itself has no entry; add it if it is \
                 meant too"
            ),
            result(
                "whole-suffix",
                "warning",
                5,
                30,
                "`.co.uk` speaks for everybody who registers a name there: write the partner's own \
                 domain"
            ),
        ]);
        let mut found = run["results"].as_array().unwrap().clone();
        found.sort_by_key(|r| (r["level"] != "error", r["ruleId"].to_string()));
        assert_eq!(Value::from(found), wanted);
    }

    #[test]
    fn tool_rules_and_places_are_frozen() {
        let run = &example(Some("policies"))["runs"][0];
        assert_eq!(run["columnKind"], "unicodeCodePoints");
        let driver = &run["tool"]["driver"];
        assert_eq!(
            (&driver["name"], &driver["version"]),
            (&json!("restante"), &json!(env!("CARGO_PKG_VERSION")))
        );
        assert_eq!(
            driver["rules"][6],
            json!({
                "id": "unknown-level",
                "shortDescription": { "text": "No such level is known." },
                "defaultConfiguration": { "level": "error" },
            })
        );
        let beside = &example(None)["runs"][0]["results"][0]["locations"][0]["physicalLocation"];
        assert_eq!(
            beside["artifactLocation"],
            json!({ "uri": "b%C3%B6se%20datei.toml", "uriBaseId": "POLICIES" })
        );
    }
}
