//! Entries that are allowed and seldom meant, and what is said of them; and those that look odd and
//! are right.
use super::*;
use crate::policy::SourceFile;
use jiff::Timestamp;

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn problems(list: &[(&str, &str)]) -> Vec<Problem> {
    let file =
        |(name, text): &(&str, &str)| SourceFile { name: (*name).into(), text: (*text).into() };
    match PolicySet::parse(&list.iter().map(file).collect::<Vec<_>>(), now()) {
        Ok((_, warnings)) => warnings,
        Err(problems) => problems,
    }
}

fn partner(domains: &str, keys: &str) -> String {
    format!("[[partner]]\ndomains = [{domains}]\n{keys}\n")
}

/// Code, line and column of each problem.
fn codes(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(|p| format!("{}:{}:{}", p.code, p.line, p.column)).collect()
}

#[test]
fn what_an_entry_asks() {
    let hop = |host: &str| format!("next_hop = \"{host}\"");
    for (level, keys, codes_wanted, reason) in [
        ("secure", String::new(), vec![], "clean"),
        ("none", String::new(), vec!["weak-level:3:1"], "plaintext"),
        ("opportunistic", String::new(), vec!["weak-level:3:1"], "plaintext where not offered"),
        ("encrypt", String::new(), vec!["weak-level:3:1"], "any certificate"),
        ("dane", String::new(), vec!["weak-level:3:1"], "as encrypt without TLSA"),
        ("dane-only", String::new(), vec![], "TLSA or nothing"),
        ("mta-sts", String::new(), vec![], "enforced or nothing"),
        ("verify", String::new(), vec!["unsigned-mx:3:1"], "MX from DNS"),
        ("verify", hop("[mx.a.example]"), vec![], "the host is given"),
        ("verify", "match = [\".a.example\"]".into(), vec![], "the name is given"),
        ("secure", hop("[mx.b.example]"), vec!["next-hop-name:3:1"], "another's certificate"),
        ("secure", hop("[mx.a.example]"), vec![], "a name under the domain"),
        ("dane-only", hop("[mx.b.example]"), vec!["next-hop-name:4:1"], "whose TLSA"),
        ("dane-only", hop("192.0.2.1"), vec!["next-hop-name:4:1"], "no TLSA at all"),
        ("dane-only", hop("b.example"), vec![], "its MX hosts have theirs"),
        ("mta-sts", hop("[mx.b.example]"), vec!["next-hop-name:4:1"], "whose policy"),
        (
            "auto",
            hop("192.0.2.1"),
            vec!["next-hop-name:4:1", "next-hop-name:4:1"],
            "neither can be met by an address",
        ),
        ("envelope", "mark = \"X-A: b\"".into(), vec!["no-effect:4:1"], "never added"),
        ("secure", "note = \"not its subdomains\"".into(), vec![], "a note is for people"),
    ] {
        let text = partner("\"a.example\"", &format!("level = \"{level}\"\n{keys}"));
        assert_eq!(
            codes(&problems(&[("p.toml", &text)])),
            codes_wanted,
            "{level} {keys}: {reason}"
        );
    }
}

/// Domains of an entry, what is said of them, and why.
type Row = (&'static str, &'static [&'static str], &'static str);

fn assert_said(rows: &[Row]) {
    for (domains, wanted, reason) in rows {
        let text = partner(domains, "level = \"secure\"");
        let mut found = codes(&problems(&[("p.toml", &text)]));
        found.sort();
        let mut wanted = wanted.to_vec();
        wanted.sort_unstable();
        assert_eq!(found, wanted, "{domains}: {reason}");
    }
}

#[test]
fn names_that_are_hardly_meant() {
    assert_said(&[
        (r#""a.example", ".a.example""#, &[], "the usual pair"),
        (r#"".a.example""#, &["parent-not-covered:2:12"], "subdomains alone"),
        (r#""com""#, &["whole-suffix:2:12"], "a top-level domain"),
        (r#"".de", "de""#, &["whole-suffix:2:12", "whole-suffix:2:19"], "all of a country"),
        (r#"".co.uk", "co.uk""#, &["whole-suffix:2:12"], "where companies register"),
        (r#"".co.example", "co.example""#, &[], "not a country"),
        (r#""[192.0.2.1]""#, &[], "an address literal has no suffix"),
        (r#""mail.a.example""#, &["host-as-domain:2:12"], "a host"),
        (r#""mx-02.a.example""#, &["host-as-domain:2:12"], "a numbered host"),
        (
            r#""mail.a.example", "a.example", ".a.example""#,
            &["redundant-name:2:12"],
            "the domain is there too",
        ),
        (r#""mail.example""#, &[], "a registered name"),
        (r#""relay.org.uk""#, &[], "registered under a country's second level"),
        (r#""mx.relay.org.uk""#, &["host-as-domain:2:12"], "a host below it"),
        (r#""a.example.""#, &["trailing-dot:2:12"], "folded"),
        (
            r#"".a.example", "x.a.example", "a.example""#,
            &["redundant-name:2:26"],
            "covered with the same settings",
        ),
        (
            r#"".x.a.example", "x.a.example", ".a.example", "a.example""#,
            &["redundant-name:2:12", "redundant-name:2:28"],
            "both covered",
        ),
    ]);
}

#[test]
fn names_that_are_nearly_another() {
    assert_said(&[
        (r#""partner.example", "partnre.example""#, &["near-miss:2:31"], "letters swapped"),
        (
            r#""partner.example", ".partnre.example""#,
            &["near-miss:2:31", "parent-not-covered:2:31"],
            "swapped in the suffix",
        ),
        (r#""branch-01.example", "branch-02.example""#, &[], "numbered"),
        ("\"p\u{0430}rtner.example\"", &["mixed-scripts:2:12"], "one letter is Cyrillic"),
        (
            "\"\u{0430}\u{0440}\u{0440}\u{04cf}\u{0435}.example\"",
            &["homograph:2:12"],
            "all letters are Cyrillic",
        ),
        (
            "\"p\u{0430}rtner.example\", \"partner.example\"",
            &["homograph:2:12", "mixed-scripts:2:12"],
            "beside the one that it imitates",
        ),
        (r#""corner.example", "comer.example""#, &["homograph:2:30"], "rn and m"),
        (r#""g0ogle.example", "google.example""#, &["homograph:2:30"], "a zero and an o"),
        (r#""partner1.example", "partnerl.example""#, &["homograph:2:32"], "a one and an l"),
        (r#""bücher.example", "bucher.example""#, &["near-miss:2:12"], "without its dots"),
        (r#""bücher.example""#, &[], "Latin letters"),
        (r#""a.example", "x.a.example""#, &["missing-dot:2:25"], "one subdomain beside the domain"),
        ("\"\u{4f8b}\u{3048}.example\"", &[], "Japanese is written in several scripts"),
        ("\"\u{043f}\u{043e}\u{0447}\u{0442}\u{0430}.example\"", &[], "Russian looks like Russian"),
    ]);
}

#[test]
fn homographs_show_both_forms() {
    let text = partner("\"xn--prtner-3nf.example\", \"partner.example\"", "level = \"secure\"");
    let problems = problems(&[("p.toml", &text)]);
    let all = problems.iter().map(|p| p.text.clone()).collect::<Vec<_>>().join("\n");
    assert!(all.contains("`p\u{0430}rtner.example` (xn--prtner-3nf.example) looks like"), "{all}");
    assert!(all.contains("p.toml:2:38"), "{all}");
}

#[test]
fn names_of_match_are_held_against_the_domains() {
    for (name, wanted) in [
        ("mx.partnre.example", vec!["near-miss:4:10"]),
        (".pantner.example", vec!["near-miss:4:10"]),
        ("mx.partner.example", vec![]),
        ("mx.provider.example", vec![]),
        ("mx.p\u{0430}rtner.example", vec!["mixed-scripts:4:10"]),
        ("mx.partner.example.", vec!["trailing-dot:4:10"]),
    ] {
        let text =
            partner("\"partner.example\"", &format!("level = \"secure\"\nmatch = [\"{name}\"]"));
        assert_eq!(codes(&problems(&[("p.toml", &text)])), wanted, "{name}");
    }
}

#[test]
fn next_hops_are_no_domains() {
    for (name, hop) in [
        ("[mail.a.example]:587", "[mail.a.example]:587"),
        ("[mail.a.example]", "[mail.a.example]"),
        ("mail.a.example:25", "mail.a.example:25"),
        ("192.0.2.1:25", "[192.0.2.1]:25"),
    ] {
        let text = partner(&format!("\"{name}\""), "level = \"secure\"");
        let found = problems(&[("p.toml", &text)]);
        assert_eq!(codes(&found), ["invalid-domain:2:12"], "{name}");
        assert!(found[0].text.contains(&format!("next_hop = \"{hop}\"")), "{found:?}");
    }
}

#[test]
fn an_expired_entry_and_its_parent_are_different_rows() {
    let text = partner("\"x.a.example\"", "level = \"secure\"\nexpires = \"2027-06-01\"")
        + &partner("\".a.example\", \"a.example\"", "level = \"secure\"");
    assert_eq!(codes(&problems(&[("p.toml", &text)])), [""; 0]);
}

#[test]
fn entries_that_never_direct_overrides() {
    let default = ("default.toml", "[default]\nnever_direct = [\"webmail.toml\"]\n");
    let list = ("webmail.toml", "domains = [\"mail.example\", \".free.example\"]\n");
    for (domains, level, wanted) in [
        ("\"mail.example\"", "auto", vec!["never-direct:2:12"]),
        ("\"x.free.example\"", "auto", vec!["never-direct:2:12"]),
        ("\"free.example\"", "auto", vec![]),
        ("\"mail.example\"", "secure", vec![]),
    ] {
        let text = partner(domains, &format!("level = \"{level}\""));
        let found = problems(&[default, list, ("p.toml", &text)]);
        assert_eq!(codes(&found), wanted, "{domains} {level}");
    }
}

#[test]
fn the_default_is_looked_at_too() {
    for (level, wanted) in [
        ("encrypt", vec!["weak-level:2:1"]),
        ("none", vec!["weak-level:2:1"]),
        ("fingerprint", vec!["missing-fingerprint:1:2"]),
        ("auto", vec![]),
    ] {
        let text = format!("[default]\nlevel = \"{level}\"\n");
        assert_eq!(codes(&problems(&[("default.toml", &text)])), wanted, "{level}");
    }
}

fn rule(when: &str, action: &str) -> String {
    format!("[[rule]]\nwhen = {{ {when} }}\naction = \"{action}\"\n")
}

#[test]
fn rules_that_never_decide() {
    let robot = "sender = \"robot@example.org\"";
    for (first, second, unreachable, reason) in [
        ((robot, "pass"), (robot, "protect"), vec![4], "the same condition"),
        ((robot, "pass"), ("sender = \"Robot@Example.org\"", "pass"), vec![4], "but for case"),
        ((robot, "pass"), (robot, "reject"), vec![1], "reject wins from below"),
        ((robot, "reject"), (robot, "pass"), vec![4], "reject wins from above"),
        (
            ("sender = \"example.org\"", "pass"),
            (robot, "protect"),
            vec![4],
            "the domain covers its address",
        ),
        ((robot, "pass"), ("sender = \"example.org\"", "protect"), vec![], "the narrower first"),
        (
            ("sender = \".example.org\"", "pass"),
            ("sender = \"a.example.org\"", "pass"),
            vec![4],
            "a suffix covers",
        ),
        (
            ("size_over = \"1 MiB\"", "protect"),
            ("size_over = \"2 MiB\", subject = \"x\"", "pass"),
            vec![4],
            "bigger, and more conditions",
        ),
        (
            ("size_over = \"2 MiB\"", "protect"),
            ("size_over = \"1 MiB\"", "pass"),
            vec![],
            "some are smaller",
        ),
        (
            ("subject = \"x\", size_over = \"1 MiB\"", "pass"),
            ("subject = \"x\"", "protect"),
            vec![],
            "fewer conditions meet more",
        ),
        (
            ("attachment = \"*\"", "protect"),
            ("attachment = \"*.dcm\"", "pass"),
            vec![4],
            "any file",
        ),
        (("header = \"X-A:\"", "protect"), ("header = \"x-a:\"", "pass"), vec![4], "field names"),
        (("sender = \"<>\"", "pass"), ("sender = \"<>\"", "protect"), vec![4], "bounces"),
    ] {
        let text = rule(first.0, first.1) + &rule(second.0, second.1);
        let found = problems(&[("rules.toml", &text)]);
        let lines: Vec<_> = found.iter().map(|p| (p.code, p.line)).collect();
        let wanted: Vec<_> = unreachable.iter().map(|l| (Code::UNREACHABLE_RULE, *l)).collect();
        assert_eq!(lines, wanted, "{reason}: {found:?}");
    }
}

#[test]
fn pass_asks_its_condition_of_every_recipient() {
    let newsletter = "recipient = \".newsletter.example\"";
    for (first, second, unreachable) in
        [("pass", "protect", vec![]), ("protect", "pass", vec![4]), ("pass", "pass", vec![4])]
    {
        // `pass` asks it of every recipient, the others of one.
        let text = rule(newsletter, first) + &rule(newsletter, second);
        let found = problems(&[("rules.toml", &text)]);
        assert_eq!(found.iter().map(|p| p.line).collect::<Vec<_>>(), unreachable, "{first}");
    }
}

#[test]
fn what_the_configuration_adds() {
    let text = partner("\"a.example\"", "level = \"dane-only\"")
        + &partner("\"example.org\", \"b.example\"", "level = \"secure\"")
        + &partner("\"c.example\"", "level = \"auto\"");
    let file = SourceFile { name: "p.toml".into(), text };
    let default =
        SourceFile { name: "default.toml".into(), text: "[default]\nlevel = \"dane\"\n".into() };
    let (set, _) = PolicySet::parse(&[file, default], now()).unwrap();
    let found = crate::policy::check::with_dnssec_off(&set);
    let places: Vec<_> =
        found.iter().map(|p| format!("{}:{}:{}", p.file, p.line, p.code)).collect();
    assert_eq!(places, ["p.toml:1:dnssec-off", "p.toml:7:dnssec-off", "default.toml:1:dnssec-off"]);
    let own = ["example.org".parse().unwrap(), "example.net".parse().unwrap()];
    let found = crate::policy::check::with_own_domains(&set, &own);
    assert_eq!(codes(&found), ["own-domain:4:1"]);
}

#[test]
fn beside_a_broken_rule_no_rule_is_called_unreachable() {
    let good = rule("sender = \"example.org\"", "protect");
    for broken in [
        rule("sender = \"@\"", "pass"),
        rule("subject = \"/[/\"", "reject"),
        rule("size_over = \"5\"", "protect"),
        rule("sendr = \"a.example\"", "pass"),
        rule("sender = \"a.example\"", "pas"),
    ] {
        let found = problems(&[("rules.toml", &(broken.clone() + &good + &good))]);
        let codes: Vec<_> = found.iter().map(|p| p.code.as_str()).collect();
        assert!(!codes.contains(&"unreachable-rule") && !codes.is_empty(), "{broken}: {found:?}");
    }
}

#[test]
fn an_error_in_an_entry_hides_no_other_problem_of_it() {
    let keys = "level = \"sekure\"\nmatch = [\"mx.partnre.example\"]";
    let text = partner("\"p\u{0430}rtner.example\", \"partner.example.\"", keys);
    assert_eq!(
        codes(&problems(&[("p.toml", &text)])),
        [
            "mixed-scripts:2:12",
            "homograph:2:12",
            "trailing-dot:2:31",
            "unknown-level:3:9",
            "near-miss:4:10"
        ]
    );
}

#[test]
fn what_could_not_be_read_is_not_taken_for_missing() {
    for (keys, wanted) in [
        ("level = \"verify\"\nmatch = [\"*.a.example\"]", vec!["invalid-domain:4:10"]),
        ("level = \"verify\"\nnext_hop = \"[x\"", vec!["invalid-value:4:12"]),
        ("level = \"secure\"\nmark = \"nocolon\"", vec!["invalid-value:4:8"]),
        ("level = \"secure\"\nmrak = \"X-A: b\"", vec!["unknown-key:4:1"]),
    ] {
        let text = partner("\"x.a.example\"", keys);
        let wider = partner("\"a.example\", \".a.example\"", "level = \"secure\"");
        assert_eq!(codes(&problems(&[("p.toml", &text), ("w.toml", &wider)])), wanted, "{keys}");
    }
}

#[test]
fn accepted_warnings_are_said_no_more_of_the_entry() {
    let entry =
        |domains: &str, keys: &str| partner(domains, &format!("level = \"secure\"\n{keys}"));
    for (domains, keys, code) in [
        (r#""partner.example", "partnre.example""#, "", "near-miss"),
        (r#""corner.example", "comer.example""#, "", "homograph"),
        (r#"".a.example""#, "", "parent-not-covered"),
        (r#""com""#, "", "whole-suffix"),
        (r#""mail.a.example""#, "", "host-as-domain"),
        (r#""a.example.""#, "", "trailing-dot"),
        (r#""a.example", "x.a.example""#, "", "missing-dot"),
        (r#""x.a.example", ".a.example", "a.example""#, "", "redundant-name"),
        (r#""a.example""#, "next_hop = \"[mx.b.example]\"", "next-hop-name"),
        (r#""a.example""#, "expires = \"2026-11-21\"", "expired"),
        ("\"p\u{0430}rtner.example\"", "", "mixed-scripts"),
    ] {
        let found = problems(&[("p.toml", &entry(domains, keys))]);
        assert_eq!(found.iter().map(|p| p.code.as_str()).collect::<Vec<_>>(), [code]);
        let said = |accept: &str| {
            let text = entry(domains, &format!("{keys}\naccept = [\"{accept}\"]"));
            problems(&[("p.toml", &text)]).len()
        };
        assert_eq!((said(code), said("never-direct")), (0, 1), "{code}");
    }
    // The next entry answers for itself.
    let text = entry("\"com\"", "accept = [\"whole-suffix\"]") + &entry("\"net\"", "");
    assert_eq!(codes(&problems(&[("p.toml", &text)])), ["whole-suffix:6:12"]);
}

#[test]
fn the_default_and_rules_accept_too() {
    let default = "[default]\nlevel = \"encrypt\"\naccept = [\"weak-level\"]\n";
    let rule = rule("sender = \"example.org\"", "pass");
    let rules = rule.clone() + &rule + "accept = [\"unreachable-rule\"]\n" + &rule;
    let found = problems(&[("default.toml", default), ("rules.toml", &rules)]);
    assert_eq!(codes(&found), ["unreachable-rule:8:1"]);
}

#[test]
fn only_known_warnings_can_be_accepted() {
    for (code, says) in [
        ("near-mis", "did you mean `near-miss`"),
        ("syntax", "`syntax` is an error: only warnings"),
        ("zzz", "unknown code `zzz`: write one"),
    ] {
        let text = partner("\"a.example\"", &format!("level = \"secure\"\naccept = [\"{code}\"]"));
        let found = problems(&[("p.toml", &text)]);
        assert_eq!(codes(&found), ["invalid-value:4:11"], "{code}");
        assert!(found[0].text.contains(says), "{found:?}");
    }
}

#[test]
fn what_is_not_shown_is_counted() {
    // Each letter beside each other one: 26 names of one word, 25 pairs for each.
    let word = |w: &str| ('a'..='z').map(|c| format!("\"{w}{c}.example\"")).collect::<Vec<_>>();
    let text = partner(&word("wordof").join(", "), "level = \"secure\"");
    let found = problems(&[("p.toml", &text)]);
    let slips = found.iter().filter(|p| p.code == Code::NEAR_MISS).count();
    assert_eq!(slips, 200);
    let last = found.last().unwrap();
    assert!(last.code == Code::NOT_SHOWN && last.text.contains(" more pairs"), "{last:?}");
    let (said, _) = last.text.split_once(' ').unwrap();
    let alike = found.iter().filter(|p| p.code == Code::HOMOGRAPH).count();
    assert!(alike <= 3 && said.parse::<usize>().unwrap() + 200 + alike >= 26 * 25 / 2, "{last:?}");

    let one = "[[partner]]\ndomains = [\"a.example\"]\nlevel = \"encrypt\"\n";
    let mut text = String::new();
    for n in 0..205 {
        text += &one.replace("a.example", &format!("d{n}.example"));
    }
    text += "[[partner]]\ndomains = [\"b.example\"]\nlevel = \"sekure\"\n";
    let found = problems(&[("p.toml", &text)]);
    assert_eq!(found.len(), 202);
    assert_eq!(
        found.iter().filter(|p| p.code == Code::UNKNOWN_LEVEL).count(),
        1,
        "an error counts"
    );
    assert!(found[201].text.starts_with("5 more problems of this file"), "{:?}", found[201]);
}

#[test]
fn too_many_names_are_not_compared_and_that_is_said() {
    let names = (0..50_001).map(|n| format!("\"d{n}.example\"")).collect::<Vec<_>>().join(",\n");
    for (accept, wanted) in [("", 1), ("accept = [\"not-shown\"]", 0)] {
        let text = partner(&names, &format!("level = \"secure\"\n{accept}"));
        let found = problems(&[("p.toml", &text)]);
        assert_eq!(found.len(), wanted, "{found:?}");
        assert!(found.iter().all(|p| p.text.starts_with("50001 names are too many")), "{found:?}");
    }
}
