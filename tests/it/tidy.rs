//! The house's own rules, checked on its own files.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Floor of each room: a room may import rooms of lower floors; of its own floor
/// only those named.
const FLOORS: &[(&str, u8, &[&str])] = &[
    ("language", 1, &[]),
    ("mail", 1, &["language"]),
    ("smtp", 1, &["mail"]),
    ("policy", 1, &["mail", "seal"]),
    ("seal", 1, &["mail", "policy"]),
    ("clock", 2, &[]),
    ("policies", 2, &[]),
    ("store", 2, &["store", "clock"]),
    ("dns", 2, &[]),
    ("wire", 2, &["store"]),
    ("store::memory", 3, &[]),
    ("store::sled", 3, &[]),
    ("dns::hickory", 3, &[]),
    ("net", 3, &[]),
    ("audit", 4, &[]),
    ("vault", 4, &[]),
    ("intake", 4, &["vault"]),
    ("relay", 4, &["vault"]),
    ("probe", 4, &[]),
    ("sts", 4, &[]),
    ("tlsrpt", 4, &["vault"]),
    ("submission", 4, &["vault", "intake"]),
    ("oidc", 4, &[]),
    ("identity", 4, &["vault", "audit"]),
    ("portal", 5, &[]),
    ("control", 5, &[]),
    ("observe", 5, &["control"]),
    ("cli", 5, &["control"]),
    ("config", 6, &[]),
    ("daemon", 6, &["config", "demo"]),
    ("demo", 6, &["config", "daemon"]),
    ("main", 6, &["config", "daemon", "demo"]),
];

/// Crates that only these rooms may name.
const KEPT: &[(&str, &[&str])] = &[
    ("sled", &["store::sled"]),
    ("seccompiler", &["store::sled"]),
    ("hickory_resolver", &["dns::hickory", "demo"]),
    ("tokio_rustls", &["net", "demo"]),
    ("rustls", &["net", "daemon", "demo", "vault::dkim"]),
    ("hyper", &["net"]),
    ("http_body_util", &["net"]),
    ("mail_auth", &["vault::dkim"]),
    ("encodify", &["mail::compose"]),
    ("webpki_roots", &["net"]),
    ("rustls_native_certs", &["net"]),
    ("aws_lc_rs", &["identity", "oidc", "seal::stream"]),
    ("axum", &["portal", "observe::metrics", "daemon"]),
    ("prometheus_client", &["observe::metrics"]),
    ("axum_server", &["daemon", "net::http"]),
    ("argon2", &["vault::argon", "portal::tests"]),
    ("governor", &["identity"]),
    ("unicode_normalization", &["identity", "portal::search"]),
    ("zxcvbn", &["identity"]),
    ("proxy_header", &["net::http"]),
    ("socket2", &["net::http"]),
    ("ammonia", &["portal::markup"]),
    ("html5ever", &["portal::markup"]),
    ("http_range_header", &["portal::range"]),
    ("image", &["portal::picture"]),
    ("clap", &["cli", "main"]),
    ("mimalloc", &["main"]),
];

/// Words that pure floors never say.
const NEVER_ON_FLOOR_1: &[&str] =
    &["tokio", "tracing", "std::fs", "std::net::Tcp", "rand::", "Timestamp::now"];

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    found
}

fn walk(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(dir).expect("folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).expect("readable");
            found.push((path, text));
        }
    }
}

/// Code without tests and comments.
fn code(text: &str) -> String {
    // A module of tests stands last in its file; `mod tests;` may stand first and ends nothing.
    let shipped = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = shipped.lines().map(|l| l.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

fn is_test_file(path: &Path) -> bool {
    path.file_stem().is_some_and(|s| s.to_string_lossy().contains("tests"))
}

/// The room that a file or an import belongs to: the longest name in the table.
fn room_of(path: &str) -> Option<&'static (&'static str, u8, &'static [&'static str])> {
    let inside = |room: &str| path == room || path.starts_with(&format!("{room}::"));
    FLOORS.iter().filter(|(room, _, _)| inside(room)).max_by_key(|(room, _, _)| room.len())
}

fn module_path(file: &Path) -> String {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let relative = file.strip_prefix(src).expect("below src").with_extension("");
    let parts = relative.iter().map(|p| p.to_string_lossy().into_owned());
    parts.filter(|p| p != "mod").collect::<Vec<_>>().join("::")
}

/// Every `crate::a::b` that is named, groups unfolded to their first two segments.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::").chain(code.match_indices("restante::")) {
        let rest = &code[at..];
        let rest = rest.split_once("::").expect("matched").1;
        if let Some(group) = rest.strip_prefix('{') {
            for item in top_level_items(group) {
                found.insert(two_segments(&item));
            }
        } else {
            found.insert(two_segments(rest));
        }
    }
    found
}

fn top_level_items(group: &str) -> Vec<String> {
    let (mut depth, mut items, mut item) = (0_u32, Vec::new(), String::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => items.push(std::mem::take(&mut item)),
            _ => {}
        }
        if c != ',' || depth > 0 {
            item.push(c);
        }
    }
    items.push(item);
    items
}

fn two_segments(path: &str) -> String {
    let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut segments = path.trim().split("::").map(|s| s.trim_start());
    let clean = |s: &str| s.chars().take_while(|&c| name(c)).collect::<String>();
    let first = clean(segments.next().unwrap_or_default());
    let second = clean(segments.next().unwrap_or_default());
    if second.is_empty() { first } else { format!("{first}::{second}") }
}

#[test]
fn no_room_imports_upward() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let module = module_path(&file);
        let Some((room, floor, friends)) = room_of(&module) else {
            assert!(
                ["lib", "manual"].contains(&module.split("::").next().unwrap_or_default()),
                "{module} stands on no floor"
            );
            continue;
        };
        if is_test_file(&file) {
            continue;
        }
        for import in imports(&code(&text)) {
            let Some((other, level, _)) = room_of(&import) else { continue };
            let family = other == room;
            if !(family || level < floor || level == floor && friends.contains(other)) {
                wrong.push(format!(
                    "{} ({room}, floor {floor}) imports {import} (floor {level})",
                    file.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn crates_stay_in_their_rooms() {
    let mut wrong = Vec::new();
    for (file, text) in sources().into_iter().filter(|(file, _)| !is_test_file(file)) {
        let module = module_path(&file);
        let code = code(&text);
        for (name, rooms) in KEPT {
            // `store::sled` is a room of ours; the crate is written `::sled` there.
            let bare = format!(" {name}::");
            let named = code.contains(&format!("use {name}::"))
                || code.contains(&format!("::{name}::").replacen("::", " ::", 1))
                || *name != "sled" && code.contains(&bare);
            let at_home =
                rooms.iter().any(|r| module == *r || module.starts_with(&format!("{r}::")));
            if named && !at_home {
                wrong.push(format!("{} names the crate {name}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_floors_know_no_io_clock_or_chance() {
    let mut wrong = Vec::new();
    for (file, text) in sources().into_iter().filter(|(file, _)| !is_test_file(file)) {
        let module = module_path(&file);
        if room_of(&module).is_none_or(|(_, floor, _)| *floor != 1) {
            continue;
        }
        let code = code(&text);
        for word in NEVER_ON_FLOOR_1 {
            if code.contains(word) {
                wrong.push(format!("{} says {word}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn facts_of_tls_are_made_in_one_place() {
    let makers = sources().into_iter().filter(|(file, text)| {
        !is_test_file(file)
            && code(text).contains("TlsFacts {")
            && !file.ends_with("policy/facts.rs")
    });
    let makers: Vec<_> = makers.map(|(file, _)| module_path(&file)).collect();
    assert!(makers.iter().all(|m| m.starts_with("net::trust")), "{makers:?}");
    assert!(!makers.is_empty());
}

/// A mailbox may have had another holder: readers' rooms list grants for an account, by the vault.
/// Before there is an account, `portal::oidc` asks whether anything waits for its address.
#[test]
fn grants_are_listed_for_an_account() {
    let readers = sources().into_iter().filter(|(file, _)| {
        let module = module_path(file);
        !is_test_file(file)
            && !module.starts_with("portal::tests")
            && module != "portal::oidc"
            && ["portal", "submission"].iter().any(|room| module.starts_with(room))
    });
    for (file, text) in readers {
        let code = code(&text).replace(char::is_whitespace, "");
        for name in ["people.grants(", "people.sent("] {
            assert!(!code.contains(name), "{} lists grants by address", file.display());
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    for (file, text) in sources() {
        assert!(
            text.starts_with("//!") || is_test_file(&file) || text.starts_with("#!"),
            "{} has no head",
            file.display()
        );
    }
}

#[test]
fn nothing_is_left_for_later() {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
    ];
    for (file, text) in sources() {
        for word in words {
            assert!(!text.contains(word), "{} holds {word}", file.display());
        }
    }
}

#[test]
fn no_private_key_is_in_the_tree() {
    let listed = std::process::Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("git runs");
    let marker = concat!("-----BEGIN ", "PRIVATE KEY");
    for name in String::from_utf8(listed.stdout).expect("names").split_terminator('\0') {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let bytes = fs::read(&path).unwrap_or_default();
        assert!(
            memchr::memmem::find(&bytes, marker.as_bytes()).is_none(),
            "{name} holds a private key"
        );
    }
}

#[test]
fn the_sample_policies_pass_the_check() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = std::process::Command::new(crate::support::program())
        .args(["policy", "check"])
        .arg(root.join("policies"))
        .output()
        .expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
