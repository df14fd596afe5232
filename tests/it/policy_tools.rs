//! `policy check`, `import-postfix` and `export-postfix` from outside: what they print, where, and
//! their exit codes. Postfix's own postmap says what its tables mean.

use crate::support::{
    gateway::{Gateway, Settings},
    house::PARTNER_FILE,
    pki::Pki,
    program,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

/// Runs the program in a folder, with no configuration about.
fn ask(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program());
    command.current_dir(dir).args(arguments).stdin(Stdio::null());
    command.output().expect("the program runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

/// A folder `policies` with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temp dir");
    fs::create_dir(dir.path().join("policies")).expect("made");
    for (name, text) in files {
        fs::write(dir.path().join("policies").join(name), text).expect("write");
    }
    dir
}

const NEAR_MISS: &str = "\
[[partner]]
domains = [\"partner.example\", \"partnre.example\"]
level = \"secure\"
";

#[test]
fn problems_are_lines_json_and_sarif_of_one_content() {
    let dir =
        folder(&[("a b.toml", NEAR_MISS), ("wrong.toml", "[[partner]]\nlevel = \"secur\"\n")]);
    let text = ask(dir.path(), &["policy", "check", "policies"]);
    assert_eq!(text.status.code(), Some(1));
    let lines: Vec<String> = stdout(&text).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert!(
        lines[0].starts_with("a b.toml:2:31: warning: `partnre.example` differs"),
        "{lines:#?}"
    );
    assert!(lines[2].starts_with("wrong.toml:2:9: error: key `level`: unknown"), "{lines:#?}");

    let json = ask(dir.path(), &["policy", "check", "policies", "--json"]);
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    let codes: Vec<_> = json.as_array().expect("an array").iter().map(|p| &p["code"]).collect();
    assert_eq!(codes, ["near-miss", "missing-key", "unknown-level"]);

    let sarif = ask(dir.path(), &["policy", "check", "./policies/", "--sarif"]);
    assert_eq!(sarif.status.code(), Some(1));
    let sarif: Value = serde_json::from_slice(&sarif.stdout).expect("JSON");
    assert_eq!(sarif["version"], "2.1.0");
    let results = sarif["runs"][0]["results"].as_array().expect("an array");
    for ((result, problem), line) in results.iter().zip(json.as_array().expect("same")).zip(&lines)
    {
        let place = &result["locations"][0]["physicalLocation"];
        let uri = place["artifactLocation"]["uri"].as_str().expect("a URI");
        let file = problem["file"].as_str().expect("a file");
        assert_eq!(uri, format!("policies/{}", file.replace(' ', "%20")));
        assert_eq!(result["ruleId"], problem["code"]);
        assert_eq!(result["level"], problem["severity"]);
        assert_eq!(place["region"]["startLine"], problem["line"]);
        assert_eq!(place["region"]["startColumn"], problem["column"]);
        assert!(line.ends_with(result["message"]["text"].as_str().expect("a text")), "{line}");
    }
    assert_eq!(results.len(), lines.len());

    // The folder itself may be the checkout.
    let sarif = ask(&dir.path().join("policies"), &["policy", "check", "--sarif", "."]);
    let sarif: Value = serde_json::from_slice(&sarif.stdout).expect("JSON");
    let place = &sarif["runs"][0]["results"][0]["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"], serde_json::json!({ "uri": "a%20b.toml" }));

    // A folder that is named absolutely is no place in a checkout.
    let policies = dir.path().join("policies").display().to_string();
    let sarif = ask(dir.path(), &["policy", "check", &policies, "--sarif"]);
    let sarif: Value = serde_json::from_slice(&sarif.stdout).expect("JSON");
    let place = &sarif["runs"][0]["results"][0]["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "a%20b.toml");
    assert_eq!(place["artifactLocation"]["uriBaseId"], "POLICIES");
    assert!(sarif["runs"][0]["originalUriBaseIds"]["POLICIES"].is_object());
}

#[test]
fn warnings_refuse_only_where_that_is_asked() {
    let dir = folder(&[("p.toml", NEAR_MISS)]);
    for (more, code) in [(&[][..], 0), (&["--sarif"], 0), (&["--strict"], 1)] {
        let output = ask(dir.path(), &[&["policy", "check", "policies"], more].concat());
        assert_eq!(output.status.code(), Some(code), "{more:?}");
        assert!(stdout(&output).contains("partnre.example"), "{more:?}");
    }
    let both = ask(dir.path(), &["policy", "check", "policies", "--sarif", "--json"]);
    assert_eq!(both.status.code(), Some(64), "one format at a time");
}

#[test]
fn files_that_can_not_be_read_are_problems_beside_the_others() {
    let dir = folder(&[
        ("p.toml", NEAR_MISS),
        ("default.toml", "[default]\nnever_direct = [\"l.toml\"]\n"),
    ]);
    let policies = dir.path().join("policies");
    fs::write(policies.join("l.toml"), b"domains = [\"\xff\"]").expect("write");
    fs::create_dir(policies.join("folder.toml")).expect("made");
    let output = ask(dir.path(), &["policy", "check", "policies", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let found: Vec<_> = json
        .as_array()
        .expect("an array")
        .iter()
        .map(|p| (p["file"].as_str().expect("a file"), p["code"].as_str().expect("a code")))
        .collect();
    assert_eq!(
        found,
        [
            ("default.toml", "missing-list"),
            ("folder.toml", "unreadable-file"),
            ("l.toml", "unreadable-file"),
            ("p.toml", "near-miss"),
        ]
    );
}

#[test]
fn files_that_entries_name_are_looked_into() {
    let keys = "ca_file = \"ca.pem\"\nclient_certificate = \"c.pem\"\nclient_key = \"k.pem\"\n";
    let text = format!("[[partner]]\ndomains = [\"partner.example\"]\nlevel = \"secure\"\n{keys}");
    let dir = folder(&[("p.toml", &text)]);
    let policies = dir.path().join("policies");
    let check = || {
        let output = ask(dir.path(), &["policy", "check", "policies", "--json"]);
        assert_eq!(output.status.code(), Some(0), "warnings: mail waits");
        let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let problems = json.as_array().expect("an array").clone();
        let codes = problems.iter().map(|p| p["code"].as_str().expect("a code").to_owned());
        codes.collect::<Vec<_>>()
    };
    assert_eq!(check(), ["missing-file", "missing-file", "missing-file"]);
    let pki = Pki::new(dir.path());
    let leaf = pki.leaf("client.example");
    for file in ["ca.pem", "c.pem", "k.pem"] {
        fs::write(policies.join(file), "no PEM\n").expect("write");
    }
    assert_eq!(check(), ["not-pem", "not-pem", "not-pem"]);
    fs::copy(&leaf.chain, policies.join("ca.pem")).expect("copied");
    fs::copy(&leaf.chain, policies.join("c.pem")).expect("copied");
    fs::copy(&leaf.chain, policies.join("k.pem")).expect("copied");
    assert_eq!(check(), ["not-pem"], "a certificate is no key");
    fs::copy(&leaf.key, policies.join("k.pem")).expect("copied");
    assert_eq!(check(), [""; 0]);
}

#[test]
fn missing_files_are_said_at_their_keys_and_only_where_they_are_used() {
    let pin = format!("fingerprints = [\"sha256:{}\"]", "0".repeat(64));
    let keys = "ca_file = \"ca.pem\"\nclient_certificate = \"c.pem\"\nclient_key = \"k.pem\"\n";
    for (level, wanted) in [
        ("secure", vec!["missing-file:4", "missing-file:5", "missing-file:6"]),
        ("fingerprint", vec!["no-effect:4", "missing-file:5", "missing-file:6"]),
        ("none", vec!["weak-level:3", "no-effect:4", "no-effect:5"]),
        ("sekure", vec!["unknown-level:3", "missing-file:4", "missing-file:5", "missing-file:6"]),
    ] {
        let pins = if level == "fingerprint" { pin.as_str() } else { "" };
        let text = format!(
            "[[partner]]\ndomains = [\"partner.example\"]\nlevel = \"{level}\"\n{keys}{pins}\n"
        );
        let dir = folder(&[("p.toml", &text)]);
        let output = ask(dir.path(), &["policy", "check", "policies", "--json"]);
        let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let found: Vec<_> = json
            .as_array()
            .expect("an array")
            .iter()
            .map(|p| format!("{}:{}", p["code"].as_str().expect("a code"), p["line"]))
            .collect();
        assert_eq!(found, wanted, "{level}");
    }
}

#[test]
fn the_check_knows_the_configuration() {
    // The settings of these tests say dnssec = "off", and example.org is ours.
    let dir = tempfile::tempdir().expect("temp dir");
    let entry = |domain: &str, level: &str| {
        format!("[[partner]]\ndomains = [\"{domain}\"]\nlevel = \"{level}\"\n")
    };
    let mut gateway = Gateway::prepare(dir.path(), &Settings::default(), &[PARTNER_FILE]);
    let file = dir.path().join("policies/new.toml");
    fs::write(&file, entry("example.org", "secure")).expect("write");
    let output = gateway.ask(&["policy", "check"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("new.toml:1:1: warning: `example.org` is one of our own"));

    for level in ["dane", "dane-only", "auto"] {
        fs::write(&file, entry("new.test", level)).expect("write");
        for arguments in [&["policy", "check"][..], &["policy", "check", "policies"]] {
            let output = gateway.ask(arguments);
            assert_eq!(output.status.code(), Some(1), "{level}");
            let says = format!("new.toml:1:1: error: level `{level}` rests on DNSSEC");
            assert!(stdout(&output).contains(&says), "{}", stdout(&output));
        }
        let output = gateway.ask(&["serve"]);
        assert_eq!(output.status.code(), Some(78), "{level}");
        assert!(stderr(&output).contains("rests on DNSSEC"), "{}", stderr(&output));
    }
    let alone = ask(
        Path::new("/"),
        &["policy", "check", &file.parent().expect("a folder").display().to_string()],
    );
    assert_eq!(alone.status.code(), Some(0), "without a configuration DNSSEC is on");

    // A running server keeps the last good set.
    fs::remove_file(&file).expect("removed");
    gateway.run();
    let good = gateway.json(&["status"])["policy"]["version"].clone();
    fs::write(&file, entry("new.test", "dane-only")).expect("write");
    gateway.signal("HUP");
    let policy = crate::support::wait_for("the reload", || {
        let policy = gateway.json(&["status"])["policy"].clone();
        policy["error"].is_string().then_some(policy)
    });
    assert_eq!(policy["version"], good);
    assert!(policy["error"].as_str().expect("said").contains("dane-only"));
    gateway.stop();
}

const TABLE: &str = "\
# partners
carecentrix.example   secure match=mx.carecentrix.example:.mail.carecentrix.example
.carecentrix.example  secure match=mx.carecentrix.example:.mail.carecentrix.example
[mail.provider.example]:587 secure match=nexthop
Pinned.Example        fingerprint
    match=01:23:45:67:89:AB:CD:EF:01:23:45:67:89:AB:CD:EF:01:23:45:67:89:AB:CD:EF:01:23:45:67:89:AB:CD:EF
# rolled over
    match=f123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
open.example          may, ciphers=high
new.example           encrypt protocols=>=TLSv1.3
";

#[test]
fn a_postfix_table_becomes_policy_files() {
    let dir = folder(&[]);
    fs::write(dir.path().join("tls_policy"), TABLE).expect("write");
    let output = ask(dir.path(), &["policy", "import-postfix", "tls_policy"]);
    assert_eq!(output.status.code(), Some(1), "one row has no counterpart");
    let said = stderr(&output);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("tls_policy:4: ") && said.contains("next_hop"), "{said}");
    fs::write(dir.path().join("policies/imported.toml"), &output.stdout).expect("write");
    let check = ask(dir.path(), &["policy", "check", "policies"]);
    assert_eq!(check.status.code(), Some(0), "{}", stdout(&check));
    for (address, level) in [
        ("a@carecentrix.example", "secure"),
        ("a@x.carecentrix.example", "secure"),
        ("a@pinned.example", "fingerprint"),
        ("a@open.example", "opportunistic"),
        ("a@new.example", "encrypt"),
        ("a@provider.example", "envelope"),
    ] {
        let output = ask(dir.path(), &["policy", "explain", address, "--json"]);
        let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(json["level"], level, "{address}");
    }

    let whole: String =
        TABLE.lines().filter(|l| !l.starts_with('[')).map(|l| format!("{l}\n")).collect();
    fs::write(dir.path().join("whole"), whole).expect("write");
    let output = ask(dir.path(), &["policy", "import-postfix", "hash:whole", "--out", "made"]);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    let made = stdout(&output);
    let names = ["carecentrix", "pinned", "open", "new"].map(|n| format!("made/{n}.example.toml"));
    assert_eq!(made.lines().collect::<Vec<_>>(), names);
    assert_eq!(ask(dir.path(), &["policy", "check", "made"]).status.code(), Some(0));

    // A second time nothing is overwritten, not even what is new.
    fs::write(dir.path().join("more"), "brand.new.example secure\nopen.example secure\n")
        .expect("write");
    let output = ask(dir.path(), &["policy", "import-postfix", "more", "--out", "made"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("made/open.example.toml"), "{}", stderr(&output));
    assert!(!dir.path().join("made/brand.new.example.toml").exists());
    let missing = ask(dir.path(), &["policy", "import-postfix", "no-such-file"]);
    assert_eq!(missing.status.code(), Some(65));
    assert!(stderr(&missing).contains("no-such-file"), "{}", stderr(&missing));
}

/// Postfix's own reading of a table: key and value of every row.
fn postmap(dir: &Path, file: &str) -> Vec<String> {
    fs::write(dir.join("main.cf"), "compatibility_level = 3.6\n").expect("write");
    let table = format!("texthash:{}", dir.join(file).display());
    let output = Command::new("postmap").arg("-c").arg(dir).args(["-s", &table]).output();
    let output = output.expect("postmap is installed (tests/run installs it)");
    assert!(output.status.success(), "{}", stderr(&output));
    let mut rows: Vec<String> = stdout(&output).lines().map(str::to_owned).collect();
    rows.sort();
    rows
}

#[test]
fn rows_are_read_as_postfix_reads_them() {
    let dir = folder(&[]);
    let odd = "\n  stray continuation\n\"quoted.example\" may\nLAST.example\tsecure\n\n  # a comment\n\
               \tmatch=a.example\n,\nlast.example none\n";
    for text in [TABLE, odd] {
        fs::write(dir.path().join("table"), text).expect("write");
        let rows = postmap(dir.path(), "table");
        fs::write(dir.path().join("dumped"), rows.join("\n") + "\n").expect("write");
        let ours = keys_by_domain(dir.path(), "table");
        assert_eq!(ours, keys_by_domain(dir.path(), "dumped"));
        assert!(ours.len() >= 2, "{ours:?}");
    }
}

/// What a table becomes: each domain with the other keys of its entry.
fn keys_by_domain(dir: &Path, table: &str) -> BTreeMap<String, toml::Table> {
    let output = ask(dir, &["policy", "import-postfix", table]);
    let file: toml::Table = toml::from_str(&stdout(&output)).expect("TOML");
    let mut found = BTreeMap::new();
    for entry in file["partner"].as_array().expect("entries") {
        let mut keys = entry.as_table().expect("a table").clone();
        let domains = keys.remove("domains").expect("domains");
        for domain in domains.as_array().expect("a list") {
            found.insert(domain.as_str().expect("a text").to_owned(), keys.clone());
        }
    }
    found
}

#[test]
fn partners_become_a_table_that_postfix_reads() {
    let dir = folder(&[
        (
            "a.toml",
            "[[partner]]\ndomains = [\"a.example\", \".a.example\"]\nlevel = \"secure\"\n\
             match = [\"mx.b.example\", \".c.example\"]\nmin_tls = \"1.3\"\nca_file = \"ca.pem\"\n",
        ),
        (
            "b.toml",
            "[[partner]]\ndomains = [\"b.example\"]\nlevel = \"fingerprint\"\nfingerprints = \
             [\"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"]\n",
        ),
    ]);
    let output = ask(dir.path(), &["policy", "export-postfix", "policies"]);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    fs::write(dir.path().join("table"), &output.stdout).expect("write");
    let ca = dir.path().canonicalize().expect("there").join("policies/ca.pem");
    let secure =
        format!("secure match=mx.b.example:.c.example protocols=>=TLSv1.3 tafile={}", ca.display());
    let pin = "01:23:45:67:89:AB:CD:EF:01:23:45:67:89:AB:CD:EF:\
               01:23:45:67:89:AB:CD:EF:01:23:45:67:89:AB:CD:EF";
    assert_eq!(
        postmap(dir.path(), "table"),
        [
            format!(".a.example\t{secure}"),
            format!("a.example\t{secure}"),
            format!("b.example\tfingerprint match={pin}"),
        ]
    );

    fs::write(
        dir.path().join("policies/c.toml"),
        "[[partner]]\ndomains = [\"c.example\"]\nlevel = \"mta-sts\"\n",
    )
    .expect("write");
    let output = ask(dir.path(), &["policy", "export-postfix", "policies"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("c.example: no row"), "{}", stderr(&output));
    assert!(stdout(&output).contains("# c.example: no row"), "{}", stdout(&output));
    let missing = ask(dir.path(), &["policy", "export-postfix", "no-such-folder"]);
    assert_eq!(missing.status.code(), Some(1));
}
