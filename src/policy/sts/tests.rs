//! What records and policies say, a reason for each row.

use super::*;
use proptest::prelude::*;

fn texts(records: &[&str]) -> Vec<String> {
    records.iter().map(|&r| r.to_owned()).collect()
}

#[test]
fn records_that_announce_a_policy() {
    let longest = format!("v=STSv1; id={};", "a1".repeat(16));
    let rows: [(&str, &[&str], &str); 11] = [
        ("the RFC's own", &["v=STSv1; id=20160831085700Z;"], "20160831085700Z"),
        ("no ; at the end", &["v=STSv1; id=1"], "1"),
        ("no blanks", &["v=STSv1;id=1;"], "1"),
        ("blanks and tabs around every ;", &["v=STSv1 \t;\t id=1 ; "], "1"),
        ("the longest id", &[&longest], &"a1".repeat(16)),
        ("unknown fields, before and after", &["v=STSv1; a-b_c.d=x:y; id=1; z=2;"], "1"),
        ("letters of both cases", &["v=STSv1; id=aZ9"], "aZ9"),
        ("the first id counts", &["v=STSv1; id=1; id=2"], "1"),
        ("other records beside it", &["v=spf1 -all", "v=STSv1; id=1", "x"], "1"),
        ("a version that begins alike", &["v=STSv10; id=9", "v=STSv1; id=1"], "1"),
        ("a record in another case is another", &["V=STSV1; id=9", "v=STSv1; id=1"], "1"),
    ];
    for (reason, records, id) in rows {
        assert_eq!(record_id(&texts(records)), Ok(id.to_owned()), "{reason}");
    }
}

#[test]
fn records_that_announce_none() {
    let too_long = format!("v=STSv1; id={}", "a".repeat(33));
    let long_name = format!("v=STSv1; id=1; {}=x", "n".repeat(33));
    let rows: [(&str, &[&str]); 20] = [
        ("no record", &[]),
        ("another one", &["v=spf1 -all"]),
        ("two", &["v=STSv1; id=1", "v=STSv1; id=2"]),
        ("two that are the same", &["v=STSv1; id=1", "v=STSv1; id=1"]),
        ("a good and a malformed one are two", &["v=STSv1; id=1", "v=STSv1; x"]),
        ("no field", &["v=STSv1"]),
        ("no field after the ;", &["v=STSv1;"]),
        ("the version does not come first", &["id=1; v=STSv1"]),
        ("a blank before the version", &[" v=STSv1; id=1"]),
        ("a version of its own", &["v=STSv2; id=1"]),
        ("no id", &["v=STSv1; a=b"]),
        ("an empty id", &["v=STSv1; id=;"]),
        ("too long an id", &[&too_long]),
        ("an id with a hyphen", &["v=STSv1; id=2016-08-31"]),
        ("an id that is no ASCII", &["v=STSv1; id=\u{661}"]),
        ("a blank in the id's field", &["v=STSv1; id =1"]),
        ("an empty field in between", &["v=STSv1; ; id=1"]),
        ("a field without a value", &["v=STSv1; id=1; a"]),
        ("a field's value with =", &["v=STSv1; id=1; a=b=c"]),
        ("a field's name too long", &[&long_name]),
    ];
    for (reason, records) in rows {
        assert!(record_id(&texts(records)).is_err(), "{reason}");
    }
}

fn policy(mode: StsMode, mx: &[&str], max_age: u64) -> StsPolicy {
    let mx = mx.iter().map(|&m| m.to_owned()).collect();
    StsPolicy { id: "1".to_owned(), mode, mx, max_age }
}

/// A policy that holds; rows say what takes the place of what in it.
const GOOD: &str = "version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 1\n";

fn good() -> StsPolicy {
    policy(StsMode::Enforce, &["a.test"], 1)
}

#[test]
fn policies_that_hold() {
    use StsMode::{None, Testing};
    let year = policy(StsMode::Enforce, &["a.test"], 31_557_600);
    let rows: [(&str, &str, &str, StsPolicy); 13] = [
        ("as it is", "", "", good()),
        ("CRLF", "\n", "\r\n", good()),
        ("both ends of line", "enforce\n", "enforce\r\n", good()),
        ("no blank", ": ", ":", good()),
        ("blanks and tabs after the colon and at the end", ": ", ": \t ", good()),
        ("blanks at the end", "\n", " \t\r\n", good()),
        ("empty lines", "\n", "\n\r\n\n", good()),
        ("unknown keys", "mode:", "x-new.key_1: any: thing \u{e9}\nmode:", good()),
        ("testing", "enforce", "testing", policy(Testing, &["a.test"], 1)),
        ("none, with mx", "enforce", "none", policy(None, &["a.test"], 1)),
        ("none, without mx", "enforce\nmx: a.test", "none", policy(None, &[], 1)),
        ("max_age of a year", ": 1\n", ": 31557600\n", year.clone()),
        ("more than a year counts as one", ": 1\n", ": 9999999999\n", year),
    ];
    for (reason, from, to, expected) in rows {
        let text = if from.is_empty() { GOOD.to_owned() } else { GOOD.replace(from, to) };
        assert_eq!(StsPolicy::parse("1", text.as_bytes()), Ok(expected), "{reason}");
    }
    assert_eq!(StsPolicy::parse("1", GOOD.trim_end().as_bytes()), Ok(good()), "no last LF");
    let backwards: Vec<_> = GOOD.lines().rev().collect();
    let backwards = backwards.join("\n");
    assert_eq!(StsPolicy::parse("1", backwards.as_bytes()), Ok(good()), "any order");
    let twice = format!("{GOOD}version: STSv2\nmode: none\nmax_age: 2\n");
    assert_eq!(StsPolicy::parse("1", twice.as_bytes()), Ok(good()), "the first of a repeated key");
    assert_eq!(StsPolicy::parse("1", GOOD.replace(": 1", ": 0").as_bytes()).unwrap().max_age, 0);
}

#[test]
fn hosts_of_a_policy_are_folded() {
    // RFC 8461 §3.2, its own example.
    let text = "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\n\
                mx: *.example.net\r\nmx: backupmx.example.com\r\nmax_age: 604800\r\n";
    let hosts = ["mail.example.com", "*.example.net", "backupmx.example.com"];
    let expected = policy(StsMode::Enforce, &hosts, 604_800);
    assert_eq!(StsPolicy::parse("1", text.as_bytes()), Ok(expected));
    for (written, read) in [
        ("MX.A.Test", "mx.a.test"),
        ("*.A.TEST", "*.a.test"),
        ("mx.a.test.", "mx.a.test"),
        ("*.b\u{fc}cher.test", "*.xn--bcher-kva.test"),
        ("*.test", "*.test"),
    ] {
        let policy = StsPolicy::parse("1", GOOD.replace("a.test", written).as_bytes()).unwrap();
        assert_eq!(policy.mx, [read], "{written}");
    }
}

#[test]
fn policies_that_do_not() {
    let rows: [(&str, &str, &str, &str); 22] = [
        ("nothing", GOOD, "", "no version"),
        ("HTML", GOOD, "<!doctype html>\n<title>Hello</title>\n", "line 1"),
        ("HTML with a colon", GOOD, "<a href=\"https://a.test\">\n", "line 1"),
        ("no version", "version: STSv1\n", "", "no version"),
        ("another version", "STSv1", "STSv2", "version is not"),
        ("a version in small letters", "STSv1", "stsv1", "version is not"),
        ("a key in capitals is another key", "version", "Version", "no version"),
        ("no mode", "mode: enforce\n", "", "no mode"),
        ("an unknown mode", "enforce", "report", "mode is none of"),
        ("a mode in capitals", "enforce", "Enforce", "mode is none of"),
        ("an empty mode", "enforce", "", "mode is none of"),
        ("no max_age", "max_age: 1\n", "", "no max_age"),
        ("max_age in words", ": 1\n", ": 1d\n", "max_age is no"),
        ("max_age below nothing", ": 1\n", ": -1\n", "max_age is no"),
        ("max_age with a sign", ": 1\n", ": +1\n", "max_age is no"),
        ("max_age of 11 digits", ": 1\n", ": 00000000001\n", "max_age is no"),
        ("an empty max_age", ": 1\n", ":\n", "max_age is no"),
        ("no mx", "mx: a.test\n", "", "no mx"),
        ("no mx for testing", "enforce\nmx: a.test", "testing", "no mx"),
        ("a line that is no field", "mode:", "bye\nmode:", "line 2"),
        ("a key that is none", "mode:", "-x: y\nmode:", "line 2"),
        ("a bad mx for none, too", "enforce\nmx: a.test", "none\nmx: *", "line 3"),
    ];
    for (reason, from, to, words) in rows {
        let error = StsPolicy::parse("1", GOOD.replace(from, to).as_bytes()).expect_err(reason);
        assert!(error.contains(words), "{reason}: {error}");
    }
    for mx in ["", "*", "*.", "mx.*.a.test", "*a.test", "**.a.test", "[192.0.2.1]", "a.test b.test"]
    {
        let text = GOOD.replace("a.test", mx);
        assert!(StsPolicy::parse("1", text.as_bytes()).unwrap_err().contains("line 3"), "{mx}");
    }
    let many = format!("{GOOD}{}", "mx: a.test\n".repeat(500));
    assert!(StsPolicy::parse("1", many.as_bytes()).unwrap_err().contains("more than 500"));
    assert!(StsPolicy::parse("1", b"version: STSv1\nx: \xff\n").unwrap_err().contains("UTF-8"));
}

#[test]
fn patterns_name_hosts() {
    let rows: [(&str, &str, &str, bool); 13] = [
        ("itself", "mx.a.test", "mx.a.test", true),
        ("in capitals, with a last dot", "mx.a.test", "MX.A.test.", true),
        ("a host below", "a.test", "mx.a.test", false),
        ("a host above", "mx.a.test", "a.test", false),
        ("a name that ends alike", "a.test", "xa.test", false),
        ("one label", "*.a.test", "mx.a.test", true),
        ("one label in capitals", "*.a.test", "MX.a.TEST", true),
        ("no label", "*.a.test", "a.test", false),
        ("an empty label", "*.a.test", ".a.test", false),
        ("two labels", "*.a.test", "mx.b.a.test", false),
        ("another domain", "*.a.test", "mx.a.test.b.test", false),
        ("a star is no letter of a name", "*.a.test", "*", false),
        ("nothing", "*.a.test", "", false),
    ];
    for (reason, pattern, host, named) in rows {
        let policy = policy(StsMode::Enforce, &["other.test", pattern], 1);
        assert_eq!(policy.names(host), named, "{reason}");
    }
    assert!(!policy(StsMode::Enforce, &[], 1).names("a.test"));
}

/// Text that is nearly right, and bytes that are not.
fn nearly() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        proptest::sample::select(vec![
            "version", "STSv1", "mode", "enforce", "none", "mx", "max_age", ":", ": ", "\n",
            "\r\n", "*.", "a.test", "1", "v=STSv1", ";", "id", "=", " ", "\t", "\u{e9}", "\0",
        ])
        .prop_map(str::to_owned),
        ".{0,3}",
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}
proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn reading_never_panics_and_keeps_its_bounds(text in nearly(), bytes: Vec<u8>) {
        for body in [text.as_bytes(), &bytes] {
            if let Ok(policy) = StsPolicy::parse("1", body) {
                prop_assert!(policy.max_age <= LONGEST_AGE && policy.mx.len() <= MX_MAX);
                prop_assert!(policy.mode == StsMode::None || !policy.mx.is_empty());
                policy.names(&text);
            }
        }
        if let Ok(id) = record_id(&[text]) {
            prop_assert!((1..=32).contains(&id.len()));
        }
    }
}
