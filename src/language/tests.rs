use super::{
    BUILT_IN, CatalogueFile, Language, Languages, Text, accept, say, teach, template::wrapped,
};
use minijinja::{AutoEscape, Environment, Value, context};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

fn built_in() -> Languages {
    Languages::new("en", &[]).unwrap()
}
fn language(code: &str) -> Arc<Language> {
    built_in().get(code).unwrap().clone()
}
fn file(name: &str, text: &str) -> CatalogueFile {
    CatalogueFile { name: name.to_owned(), text: text.to_owned() }
}

/// Files below `src` with one of these ends.
fn files(ends: &[&str]) -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, ends: &[&str], found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, ends, found);
            } else if ends.iter().any(|end| path.to_string_lossy().ends_with(end)) {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), ends, &mut found);
    found
}
fn templates() -> Vec<(PathBuf, String)> {
    let all = files(&[".html", ".txt"]);
    let found: Vec<_> = all
        .into_iter()
        .filter(|(path, _)| path.parent().is_some_and(|dir| dir.ends_with("templates")))
        .collect();
    assert!(found.len() > 20);
    found
}

/// The Rust string that begins after `text`'s first quote, as the compiler reads it.
fn literal(text: &str) -> String {
    let (mut out, mut chars) = (String::new(), text.chars());
    loop {
        match chars.next().expect("the literal ends") {
            '"' => return out,
            '\\' => match chars.next().expect("escaped") {
                '\n' => {
                    let rest = chars.as_str().trim_start();
                    chars = rest.chars();
                }
                'n' => out.push('\n'),
                c => out.push(c),
            },
            c => out.push(c),
        }
    }
}

/// Every text that pages, mails and code say.
fn said() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (_, text) in templates() {
        let pieces: Vec<_> = text.split("t(\"").collect();
        for (before, key) in pieces.iter().zip(pieces.iter().skip(1)) {
            if !before.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                found.insert(literal(key));
            }
        }
    }
    for (path, text) in files(&[".rs"]) {
        let name = path.file_name().unwrap().to_string_lossy();
        let shipped = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        if name == "tests.rs" || path.components().any(|c| c.as_os_str() == "tests") {
            continue;
        }
        let code: Vec<_> =
            shipped.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let code = code.join("\n");
        for rest in code.split("say!(").skip(1) {
            if let Some(rest) = rest.trim_start().strip_prefix('"') {
                found.insert(literal(rest));
            }
        }
    }
    assert!(found.len() > 300, "{}", found.len());
    found
}

#[test]
fn every_text_has_its_words_in_every_language_and_no_words_are_left_over() {
    let said = said();
    let english: BTreeSet<_> = language("en").keys().map(str::to_owned).collect();
    let missing: Vec<_> = said.difference(&english).collect();
    assert!(missing.is_empty(), "en.toml lacks {missing:#?}");
    let unused: Vec<_> = english.difference(&said).collect();
    assert!(unused.is_empty(), "nothing says {unused:#?}");
    for language in built_in().iter().skip(1) {
        let own: BTreeSet<_> = language.keys().map(str::to_owned).collect();
        let missing: Vec<_> = english.difference(&own).collect();
        assert!(missing.is_empty(), "{}.toml lacks {missing:#?}", language.code());
    }
}

/// What a template says itself: its text without what is filled in, and the words of attributes
/// that are shown or read out.
fn own_words(template: &str) -> Vec<String> {
    let mut plain = template.to_owned();
    for (begin, end) in [("{#", "#}"), ("{%", "%}"), ("{{", "}}")] {
        let mut pieces = plain.split(begin);
        let first = pieces.next().unwrap().to_owned();
        plain = pieces.fold(first, |kept, piece| kept + piece.split_once(end).unwrap().1);
    }
    let mut words = Vec::new();
    for piece in plain.split('<') {
        let (tag, text) = piece.split_once('>').unwrap_or(("", piece));
        words.push(text.to_owned());
        for attribute in ["aria-label=\"", "title=\"", "alt=\"", "placeholder=\""] {
            if let Some((_, value)) = tag.split_once(attribute) {
                words.push(value.split('"').next().unwrap().to_owned());
            }
        }
    }
    // A macro may write attributes that go into somebody else's tag.
    let attribute = |line: &str| line.trim_start().starts_with("aria-");
    let wordy = |line: &str| !attribute(line) && line.chars().any(char::is_alphabetic);
    words.retain(|text| text.lines().any(wordy));
    words
}

/// Words in what is filled in, as the label of a field, that are not the key of a text.
fn bare_words(template: &str) -> Vec<String> {
    let mut found = Vec::new();
    for piece in template.split("{{").skip(1).chain(template.split("{%").skip(1)) {
        let piece = piece.split("}}").next().unwrap().split("%}").next().unwrap();
        let mut before = String::new();
        for (number, part) in piece.split('"').enumerate() {
            let wordy = part.contains(' ') || part.starts_with(char::is_uppercase);
            if number % 2 == 1 && wordy && !before.ends_with("t(") {
                found.push(part.to_owned());
            }
            before = part.to_owned();
        }
    }
    found
}

#[test]
fn no_template_holds_words_of_its_own() {
    for (path, text) in templates() {
        let (own, bare) = (own_words(&text), bare_words(&text));
        let own: Vec<_> = own.iter().filter(|word| word.trim() != "/check").collect();
        assert!(own.is_empty() && bare.is_empty(), "{}: {own:?} {bare:?}", path.display());
    }
}
#[test]
fn words_of_its_own_are_found() {
    for (template, found) in [
        ("<p>{{ t(\"Hello\") }} – {{ name }}</p>", 0),
        ("<p>Hello</p>", 1),
        ("<a aria-label=\"Back\">{{ x }}</a>", 1),
        ("<a aria-label=\"{{ t(\"Back\") }}\">{{ x }}</a>", 0),
        ("{{ input(\"email\", \"E-mail address\", email) }}", 1),
        ("{{ input(\"email\", t(\"E-mail address\"), email, type=\"email\") }}", 0),
        ("{% if a == \"b\" %}<b class=\"c\">{{ d }}</b>{% endif %}", 0),
    ] {
        let words = own_words(template).len() + bare_words(template).len();
        assert_eq!(words, found, "{template}");
    }
}

#[test]
fn translations_are_set_as_their_readers_expect() {
    for (name, text) in BUILT_IN.into_iter().skip(1) {
        let table: toml::Table = text.parse().unwrap();
        for (key, value) in table["messages"].as_table().unwrap() {
            let forms = value.as_table().map(|forms| forms.values().collect());
            let forms: Vec<&toml::Value> = forms.unwrap_or_else(|| vec![value]);
            let forms = forms.into_iter().map(|form| form.as_str().unwrap());
            for said in forms {
                let wrong = |what: &str| panic!("{name}: {key:?}: {said:?}: {what}");
                if said.trim() != said || said.contains("  ") || said.contains(['"', '\'']) {
                    wrong("stray spaces or straight quotes");
                }
                let count = |c: char| said.matches(c).count();
                match name {
                    "de.toml" if count('„') != count('“') || said.contains(['”', '«', '’']) => {
                        wrong("German quotes")
                    }
                    "es.toml" if count('¿') != count('?') || count('¡') != count('!') => {
                        wrong("¿ and ?")
                    }
                    "es.toml" if count('«') != count('»') || said.contains(['“', '”']) => {
                        wrong("Spanish quotes")
                    }
                    "fr.toml" => {
                        let after = said.chars().skip(1);
                        let bare =
                            |(before, c): (char, char)| "?!:;»".contains(c) && before != '\u{202f}';
                        if said.chars().zip(after).any(bare) {
                            wrong("a narrow no-break space is missing");
                        }
                        if said.contains(['“', '”']) || said.contains("« ") {
                            wrong("French quotes");
                        }
                    }
                    _ => {}
                }
                // What ends a sentence in the one ends it in the other.
                let end = |text: &str| text.chars().next_back().filter(|c| ".?!:".contains(*c));
                if end(key) != end(said) && key != "Hello," && !key.contains("{count}") {
                    wrong("another end");
                }
            }
        }
    }
}

#[test]
fn catalogues_are_refused_with_file_key_and_what_is_wrong() {
    let head = "code = \"pl\"\nname = \"Polski\"\n";
    let cases = [
        ("code = ", "pl.toml:1: "),
        ("name = \"Polski\"\n", "pl.toml: code: write the tag of the language, as in \"pl\""),
        ("code = \"Polski!\"\nname = \"Polski\"", "pl.toml: code: write the tag"),
        ("code = \"pl\"\n", "pl.toml: name: write a short text"),
        (&format!("{head}decimal = \";\"\n"), "pl.toml: decimal: write \".\" or \",\""),
        (&format!("{head}one = \"1\"\n"), "pl.toml: one: write the numbers"),
        (&format!("{head}colour = 1\n"), "pl.toml: colour: no such key; there are code, name"),
        (&format!("{head}messages = 1\n"), "pl.toml: messages: write a table"),
        (
            &format!("{head}[messages]\n\"Sing in\" = \"x\"\n"),
            "pl.toml: \"Sing in\": no page and no mail says this",
        ),
        (
            &format!("{head}[messages]\n\"Sign in\" = 1\n"),
            "pl.toml: \"Sign in\": write a text, or { one = …, other = … }",
        ),
        (
            &format!("{head}[messages]\n\"Sign in\" = {{ one = \"a\", other = \"b\" }}\n"),
            "pl.toml: \"Sign in\": nothing is counted here: write one text",
        ),
        (
            &format!("{head}[messages]\n\"When: {{date}}\" = \"Kiedy: {{data}}\"\n"),
            "pl.toml: \"When: {date}\": {data} is unknown in this text\n\
             pl.toml: \"When: {date}\": {date} is missing",
        ),
    ];
    for (text, expected) in cases {
        let error = Languages::new("en", &[file("pl.toml", text)]).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}\n{expected}");
    }
    let error = Languages::new("pl", &[]).unwrap_err().to_string();
    assert_eq!(error, "there is no language `pl`; there are en, de, es, fr");
    let large = "#".repeat(1 + (1 << 20));
    let error = Languages::new("en", &[file("pl.toml", &large)]).unwrap_err().to_string();
    assert_eq!(error, "pl.toml: larger than 1 MiB: no catalogue");
}

#[test]
fn a_file_adds_a_language_or_goes_before_a_built_in_one() {
    let polish = "code = \"pl\"\nname = \"Polski\"\n[messages]\n\"Sign in\" = \"Zaloguj się\"\n\
        \"Sent\" = \"\"\n\"{count} minutes\" = { one = \"minuta\", other = \"{count} min\" }\n";
    let own = "code = \"de\"\nname = \"Deutsch\"\n[messages]\n\"Sign in\" = \"Einloggen\"\n";
    let french =
        "code = \"fr\"\nname = \"Français\"\ndecimal = \".\"\n[messages]\n\"Sent\" = \"Parti\"\n";
    let own = [file("pl.toml", polish), file("own.toml", own), file("fr.toml", french)];
    let all = Languages::new("pl", &own).unwrap();
    let codes: Vec<_> = all.iter().map(|language| language.code()).collect();
    assert_eq!(codes, ["en", "de", "es", "fr", "pl"]);
    let (polish, german) = (all.usual(), all.get("de").unwrap());
    let french = all.get("fr").unwrap();
    let first = Text::Day("2027-01-01T00:00:00Z".parse().unwrap());
    for (language, text, expected) in [
        (polish, say!("Sign in"), "Zaloguj się"),
        (polish, say!("Sent"), "Sent"),
        (polish, say!("Inbox"), "Inbox"),
        (polish, Text::Wait(60), "minuta"),
        (polish, Text::Wait(61), "2 min"),
        (german, say!("Sign in"), "Einloggen"),
        (german, say!("Inbox"), "Posteingang"),
        (polish, Text::Size(1_500), "1.5 kB"),
        (german, Text::Size(1_500), "1,5 kB"),
        (french, say!("Sent"), "Parti"),
        (french, Text::Size(1_500), "1.5 ko"),
        (french, Text::Size(0), "0 octet"),
        (french, first, "1er janvier 2027"),
    ] {
        assert_eq!(language.say(&text), expected);
    }
    assert_eq!(all.or_usual(Some("fr")).name(), "Français");
    assert_eq!(all.or_usual(Some("xx")).code(), "pl");
    assert_eq!(all.or_usual(None).code(), "pl");
    assert_eq!(all.speaking_first("es").unwrap().or_usual(None).code(), "es");
}

#[test]
fn a_browsers_wishes_are_read_within_bounds() {
    let brazil = "code = \"pt-BR\"\nname = \"Português\"\n";
    let all = Languages::new("en", &[file("pt.toml", brazil)]).unwrap();
    let all: Vec<_> = all.iter().cloned().collect();
    let many = "xx,".repeat(30) + "de";
    let long = format!("{}de", "x".repeat(1001));
    let rows: [(&str, Option<&str>, &str); 17] = [
        ("", None, "nothing"),
        ("de", Some("de"), "one"),
        ("DE-at, en;q=0.8", Some("de"), "a country, in any case"),
        ("zh, fr;q=0.5, es;q=0.7", Some("es"), "by weight"),
        ("fr, es", Some("fr"), "the first of the same weight"),
        ("en;q=0.5, de;q=0.500", Some("en"), "the same weight, written otherwise"),
        ("de;q=0, fr;q=0.1", Some("fr"), "0 is: not this one"),
        ("*", None, "ours to choose"),
        ("zh-Hant-TW", None, "none of ours"),
        ("pt", Some("pt-BR"), "the beginning of one of ours"),
        ("pt-PT", Some("pt-BR"), "a sister is better than none"),
        ("de;q=2, es;q=1.5, fr;q=0.1", Some("fr"), "weights that are none"),
        ("de;q=0.1234, fr;q=0.1", Some("fr"), "too many digits"),
        ("de;level=1;q=0.3, fr;q=0.2", Some("de"), "another parameter"),
        (";;;,,q=1, de", Some("de"), "rubbish"),
        (&many, None, "beyond the thirtieth wish"),
        (&long, None, "beyond a thousand bytes"),
    ];
    for (header, expected, why) in rows {
        let found = accept::best(header, &all).map(|language| language.code());
        assert_eq!(found, expected, "{why}: {header}");
    }
}

#[test]
fn dates_sizes_and_waits_are_words_of_the_language() {
    let at = "2026-11-26T09:05:00Z".parse().unwrap();
    let first = "2027-01-01T00:00:00Z".parse().unwrap();
    let rows = [
        ("en", Text::Day(at), "26 November 2026"),
        ("de", Text::Day(at), "26. November 2026"),
        ("es", Text::Day(at), "26 de noviembre de 2026"),
        ("fr", Text::Day(at), "26 novembre 2026"),
        ("fr", Text::Day(first), "1er janvier 2027"),
        ("de", Text::Day(first), "1. Januar 2027"),
        ("en", Text::Moment(at), "26 November 2026, 09:05 UTC"),
        ("de", Text::Moment(at), "26. November 2026, 09:05 UTC"),
        ("en", Text::Size(0), "0 bytes"),
        ("fr", Text::Size(0), "0 octet"),
        ("en", Text::Size(1), "1 byte"),
        ("en", Text::Size(999), "999 bytes"),
        ("en", Text::Size(1_500), "1.5 kB"),
        ("de", Text::Size(1_500), "1,5 kB"),
        ("fr", Text::Size(1_500), "1,5 ko"),
        ("es", Text::Size(314_000_000), "314 MB"),
        ("en", Text::Size(2_147_483_648), "2.1 GB"),
        ("en", Text::Wait(0), "a minute"),
        ("en", Text::Wait(60), "a minute"),
        ("de", Text::Wait(61), "2 Minuten"),
        ("en", Text::Wait(900), "15 minutes"),
    ];
    for (code, text, expected) in rows {
        assert_eq!(language(code).say(&text), expected);
    }
}

#[test]
fn what_is_filled_in_is_not_read_again() {
    let text = say!("Write to {address}.", address = "{address}{name}".to_owned());
    assert_eq!(text.to_string(), "Write to {address}{name}.");
    let nested = say!("On {date}, {name} wrote:", date = say!("May"), name = String::from("A"));
    assert_eq!(language("fr").say(&nested), "Le mai, A a écrit\u{202f}:");
}

fn rendered(code: &str, name: &'static str, template: &'static str, values: Value) -> String {
    let mut env = Environment::new();
    env.set_auto_escape_callback(|name| {
        if name.ends_with(".html") { AutoEscape::Html } else { AutoEscape::None }
    });
    env.add_template(name, template).unwrap();
    let language = language(code);
    teach(&mut env, &language);
    env.get_template(name).unwrap().render(values).unwrap()
}

#[test]
fn templates_speak_and_escape() {
    let values = || {
        let text = Value::from(say!("Write to {address}.", address = "<b>".to_owned()));
        let none = Value::from(Text::default());
        context! { who => "<Ann> & Co", n => 1, many => 2, text => text, none => none }
    };
    for (code, name, template, expected) in [
        ("de", "a.html", "{{ lang }} {{ t(\"Sign in\") }}", "de Anmelden"),
        ("de", "a.html", "{{ t(\"When: {date}\", date=who) }}", "Zeitpunkt: &lt;Ann&gt; &amp; Co"),
        ("de", "a.txt", "{{ t(\"When: {date}\", date=who) }}", "Zeitpunkt: <Ann> & Co"),
        (
            "en",
            "a.html",
            "{% set w %}<b>{{ who }}</b>{% endset %}{{ t(\"When: {date}\", date=w) }}",
            "When: <b>&lt;Ann&gt; &amp; Co</b>",
        ),
        ("en", "a.html", "{{ text }}|{{ t(text) }}", "Write to &lt;b&gt;.|Write to &lt;b&gt;."),
        ("en", "a.html", "{% if none %}a{% else %}b{% endif %}{% if text %}c{% endif %}", "bc"),
        (
            "de",
            "a.html",
            "{{ t(\"{count} recovery codes are left.\", count=n) }} \
             {{ t(\"{count} recovery codes are left.\", count=many) }}",
            "Sie haben noch 1 Ersatzcode. Sie haben noch 2 Ersatzcodes.",
        ),
        ("de", "a.html", "{{ t(\"What nobody says\") }}", "What nobody says"),
    ] {
        assert_eq!(rendered(code, name, template, values()), expected, "{template}");
    }
}

#[test]
fn paragraphs_are_broken_where_mail_programs_would_cut() {
    let text = wrapped(&format!("{} {} end", "word ".repeat(30), "x".repeat(100)), None);
    assert!(text.lines().all(|line| line.len() <= 72 || !line.contains(' ')), "{text}");
    assert_eq!(text.split_whitespace().count(), 32);
    assert_eq!(wrapped("a\u{202f}: b", None), "a\u{202f}: b");
    let all: BTreeMap<&str, &str> = BTreeMap::from([("", ""), ("a  b\nc", "a b c")]);
    for (text, expected) in all {
        assert_eq!(wrapped(text, None), expected);
    }
    let item = wrapped(&"word ".repeat(20), Some(2));
    assert_eq!(item.split_once('\n').unwrap().1, "  word word word word word word", "{item}");
}
