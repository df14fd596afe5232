//! The files that come with the program, and what `explain` says of them.
use super::*;
use jiff::Timestamp;

const SHIPPED: [(&str, &str); 3] = [
    ("default.toml", include_str!("../../policies/default.toml")),
    ("partner.example.toml", include_str!("../../policies/partner.example.toml")),
    ("rules.toml", include_str!("../../policies/rules.toml")),
];

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn parse(list: &[(&str, &str)]) -> Result<(PolicySet, Vec<Problem>), Vec<Problem>> {
    let file =
        |(name, text): &(&str, &str)| SourceFile { name: (*name).into(), text: (*text).into() };
    PolicySet::parse(&list.iter().map(file).collect::<Vec<_>>(), now())
}

/// Lines that are a key or a table behind `# `: what a reader may switch on.
fn uncommented(text: &str) -> String {
    let active = |line: &str| {
        let rest = line.strip_prefix("# ")?;
        let key = rest.split([' ', '=']).next()?;
        let known = ["min_tls", "ca_file", "next_hop", "mark", "expires", "when", "action"];
        (rest.starts_with("[[") || known.contains(&key)).then(|| rest.to_owned())
    };
    text.lines().map(|line| active(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
}

#[test]
fn shipped_files_are_clean_also_with_every_comment_switched_on() {
    let (set, warnings) = parse(&SHIPPED).unwrap();
    assert_eq!((set.partners(), warnings), (1, vec![]));
    let texts = SHIPPED.map(|(name, text)| (name, uncommented(text)));
    let all: Vec<_> = texts.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let (set, warnings) = parse(&all).unwrap();
    assert_eq!(warnings, vec![]);
    assert_eq!(set.rules.len(), 3, "the commented rules count");
    let domain = "partner.example".parse().unwrap();
    let policy = set.lookup(&domain, now());
    assert!(policy.min_tls13 && policy.mark.is_some() && policy.ends.is_some());
}

#[test]
fn the_schema_knows_the_same_keys() {
    let schema: serde_json::Value =
        serde_json::from_str(include_str!("../../policies/policy.schema.json")).unwrap();
    let keys = |path: &str| {
        let object = schema.pointer(path).unwrap().as_object().unwrap();
        object.keys().cloned().collect::<std::collections::BTreeSet<_>>()
    };
    let own = |list: &[&str]| list.iter().map(|k| (*k).to_owned()).collect();
    assert_eq!(keys("/$defs/partner/properties"), own(&read::PARTNER));
    assert_eq!(keys("/$defs/default/properties"), own(&read::DEFAULT));
    assert_eq!(keys("/$defs/rule/properties"), own(&rules::Rule::KEYS));
    assert_eq!(keys("/$defs/rule/properties/when/properties"), own(&rules::WHEN));
    let levels = schema.pointer("/$defs/level/enum").unwrap().as_array().unwrap();
    assert!(Level::ALL.iter().map(|l| l.as_str()).eq(levels.iter().map(|l| l.as_str().unwrap())));
}

#[test]
fn explanations_name_file_line_and_words() {
    let rules = "[[rule]]\nwhen = { sender = \"r@example.org\" }\naction = \"reject\"\n\
                 [[rule]]\nwhen = { recipient = \".n.example\" }\naction = \"pass\"\n";
    let (set, _) = parse(&[SHIPPED[0], SHIPPED[1], ("rules.toml", rules)]).unwrap();
    for (address, file, level, says, not) in [
        (
            "a@partner.example",
            "partner.example.toml",
            Level::Secure,
            "mx.partner.example",
            "rules.toml:4",
        ),
        (
            "a@x.partner.example",
            "partner.example.toml",
            Level::Secure,
            "for 1h, the message is sealed",
            "default",
        ),
        (
            "a@b.example",
            "default.toml",
            Level::Envelope,
            "rules.toml:4 lets what it matches pass",
            "can't be met",
        ),
        ("a@b.example", "default.toml", Level::Envelope, "rules.toml:1 rejects", "partner"),
    ] {
        let explanation = explain(&set, &address.parse().unwrap(), now());
        let text = explanation.text.join("\n");
        assert_eq!((explanation.file.as_str(), explanation.level), (file, level), "{address}");
        assert!(explanation.line > 0 && text.contains(says) && !text.contains(not), "{text}");
    }
    let built_in = explain(&PolicySet::default(), &"a@b.example".parse().unwrap(), now());
    assert_eq!((built_in.file.as_str(), built_in.line), ("(built-in)", 0));
    let json = serde_json::to_value(&built_in).unwrap();
    assert_eq!(json["otherwise"], "envelope");
}
