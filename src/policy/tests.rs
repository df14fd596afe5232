//! The files that come with the program, and what `explain` says of them.
use super::*;
use jiff::Timestamp;

const SHIPPED: [(&str, &str); 4] = [
    WEBMAIL,
    ("default.toml", include_str!("../../policies/default.toml")),
    ("partner.example.toml", include_str!("../../policies/partner.example.toml")),
    ("rules.toml", include_str!("../../policies/rules.toml")),
];

const WEBMAIL: (&str, &str) =
    ("consumer-webmail.toml", include_str!("../../policies/consumer-webmail.toml"));

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
        let known = [
            "min_tls",
            "ca_file",
            "client_certificate",
            "client_key",
            "next_hop",
            "mark",
            "expires",
            "never_direct",
            "when",
            "action",
        ];
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
    assert!(policy.client.is_some());
    assert!(set.never_direct(&"gmail.com".parse().unwrap()), "the list is named");
}

#[test]
fn the_list_of_webmail_is_sorted_by_provider_and_names_nothing_twice() {
    let mut seen = std::collections::HashSet::new();
    let body = WEBMAIL.1.split_once("domains = [").unwrap().1;
    let groups = body.split("\n  # ").skip(1);
    for group in groups {
        let (provider, rest) = group.split_once('\n').unwrap();
        let names: Vec<_> = rest.split('"').skip(1).step_by(2).collect();
        assert!(names.is_sorted(), "{provider}: {names:?}");
        for name in names {
            let domain: crate::mail::Domain = name.parse().unwrap();
            assert_eq!(domain.as_str(), name, "as it is compared");
            assert!(seen.insert(name), "{name} stands twice");
        }
    }
    assert!(seen.len() >= 150);
    let (set, warnings) = parse(&[WEBMAIL]).unwrap();
    assert_eq!((set.partners(), warnings), (0, vec![]));
    assert!(!set.never_direct(&"gmail.com".parse().unwrap()), "off until it is named");
}

/// What the one decision says of a message to `address`, with nothing known yet.
fn decided(set: &PolicySet, address: &str) -> Route {
    let address: crate::mail::Address = address.parse().unwrap();
    let verdict = RuleVerdict::protected();
    decide(&Facts {
        question: Question::Protected(&verdict),
        set,
        domain: address.domain(),
        needs: crate::seal::header::Needs::default(),
        size: 1,
        now: now(),
        first_failed: None,
        overdue: false,
        mx: None,
        sts: None,
        host: None,
        tried: &[],
        peer: None,
        exhausted: false,
    })
}

#[test]
fn auto_keeps_from_listed_domains_and_says_so() {
    let default = |keys: &str| format!("[default]\nlevel = \"auto\"\n{keys}\n");
    let named = default("never_direct = [\"consumer-webmail.toml\"]");
    let partner = "[[partner]]\ndomains = [\"web.de\"]\nlevel = \"secure\"\n";
    let (set, _) = parse(&[WEBMAIL, ("default.toml", &named), ("web.toml", partner)]).unwrap();
    let route = decided(&set, "a@gmail.com");
    let Route::Envelope(why) = route else { panic!("{route:?}") };
    assert_eq!(why.reason, Reason::PolicyEnvelope, "{}", why.text);
    for (address, reason) in [
        ("a@business.example", "not listed"),
        ("a@web.de", "an entry of its own stays"),
        ("a@x.gmail.com", "a list without a dot names no subdomains"),
    ] {
        let route = decided(&set, address);
        assert!(matches!(route, Route::Need(_)), "{address}: {reason}: {route:?}");
    }
    let text = explain(&set, &"a@gmail.com".parse().unwrap(), now()).text.join("\n");
    assert!(text.contains("gmail.com is on a list that never_direct names"), "{text}");
    let (set, _) = parse(&[WEBMAIL, ("default.toml", &default(""))]).unwrap();
    assert!(matches!(decided(&set, "a@gmail.com"), Route::Need(_)), "off until it is named");
}

#[test]
fn explanations_count_pins_and_name_our_certificate() {
    let pin = format!("\"sha256:{}\"", "0".repeat(64));
    let other = pin.replace('0', "1");
    for (pins, says) in [(pin.clone(), "(1 pin)"), (format!("{pin}, {other}"), "(2 pins)")] {
        let text = format!(
            "[[partner]]\ndomains = [\"a.example\"]\nlevel = \"fingerprint\"\n\
             fingerprints = [{pins}]\nclient_certificate = \"c.pem\"\nclient_key = \"k.pem\"\n"
        );
        let (set, _) = parse(&[("p.toml", &text)]).unwrap();
        let text = explain(&set, &"u@a.example".parse().unwrap(), now()).text.join("\n");
        assert!(text.contains(says) && text.contains("is shown c.pem"), "{text}");
    }
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
    let codes = schema.pointer("/$defs/accept/items/enum").unwrap().as_array().unwrap();
    let warnings = Code::ALL.iter().filter(|code| code.severity() == Severity::Warning);
    assert!(warnings.map(|c| c.as_str()).eq(codes.iter().map(|c| c.as_str().unwrap())));
    let levels = schema.pointer("/$defs/level/enum").unwrap().as_array().unwrap();
    assert!(Level::ALL.iter().map(|l| l.as_str()).eq(levels.iter().map(|l| l.as_str().unwrap())));
}

#[test]
fn explanations_name_file_line_and_words() {
    let rules = "[[rule]]\nwhen = { sender = \"r@example.org\" }\naction = \"reject\"\n\
                 [[rule]]\nwhen = { recipient = \".n.example\" }\naction = \"pass\"\n";
    let (set, _) = parse(&[SHIPPED[1], SHIPPED[2], ("rules.toml", rules)]).unwrap();
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

#[test]
fn explanations_say_what_the_reader_will_need_and_how_notices_go() {
    let code = "registers with a code";
    for (keys, says, not) in [
        ("level = \"secure\"", "a mailed code is not enough", "publishes nothing"),
        ("level = \"secure\"\notherwise = \"defer\"", code, "is not enough"),
        ("level = \"secure\"", "go at level secure as well", "publishes nothing"),
        ("level = \"auto\"", "go as it publishes", "go at level auto"),
        ("level = \"envelope\"", code, "is not enough"),
        ("level = \"envelope\"\npickup = \"phrase\"", "needs a phrase", code),
        ("level = \"secure\"\npickup = \"sms\"", "by text message", "is not enough"),
    ] {
        let text = format!("[[partner]]\ndomains = [\"a.example\"]\n{keys}\n");
        let (set, _) = parse(&[("p.toml", &text)]).unwrap();
        let text = explain(&set, &"u@a.example".parse().unwrap(), now()).text.join("\n");
        assert!(text.contains(says) && !text.contains(not), "{keys}: {text}");
    }
    let rule = "[[rule]]\nwhen = { subject = \"x\" }\naction = \"protect\"\npickup = \"passkey\"\n";
    let (set, _) = parse(&[("rules.toml", rule)]).unwrap();
    let text = explain(&set, &"u@a.example".parse().unwrap(), now()).text.join("\n");
    assert!(text.contains("Rule rules.toml:1 asks the reader"), "{text}");
}

#[test]
fn a_second_channel_is_one_of_four_and_for_what_is_protected() {
    for (file, text, says) in [
        (
            "p.toml",
            "[[partner]]\ndomains = [\"a.example\"]\nlevel = \"secure\"\npickup = \"fax\"\n",
            "`fax` is not known",
        ),
        ("default.toml", "[default]\npickup = \"text\"\n", "`text` is not known"),
    ] {
        let problems = parse(&[(file, text)]).unwrap_err();
        assert!(problems[0].text.contains(says), "{problems:?}");
    }
    let rule = "[[rule]]\nwhen = { subject = \"x\" }\naction = \"pass\"\npickup = \"phrase\"\n";
    let (_, warnings) = parse(&[("rules.toml", rule)]).unwrap();
    assert_eq!(warnings.iter().map(|w| w.code).collect::<Vec<_>>(), [Code::NO_EFFECT]);
}
