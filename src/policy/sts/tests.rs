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

#[test]
fn policies_that_hold() {
    use StsMode::{Enforce, None, Testing};
    let rows: [(&str, &str, StsPolicy); 15] = [
        (
            "the RFC's own",
            "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmx: backupmx.example.com\r\nmax_age: 604800\r\n",
            policy(
                Enforce,
                &["mail.example.com", "*.example.net", "backupmx.example.com"],
                604_800,
            ),
        ),
        (
            "LF, and none at the end",
            "version:STSv1\nmode:testing\nmx:a.test\nmax_age:1",
            policy(Testing, &["a.test"], 1),
        ),
        (
            "both ends of line",
            "version: STSv1\nmode: enforce\r\nmx: a.test\nmax_age: 1\r\n",
            policy(Enforce, &["a.test"], 1),
        ),
        (
            "any order",
            "max_age: 1\nmx: a.test\nmode: enforce\nversion: STSv1\n",
            policy(Enforce, &["a.test"], 1),
        ),
        (
            "blanks and tabs after the colon and at the end",
            "version: \tSTSv1 \nmode:  enforce\t\nmx: a.test \nmax_age: 1 \n",
            policy(Enforce, &["a.test"], 1),
        ),
        (
            "empty lines",
            "version: STSv1\n\nmode: enforce\nmx: a.test\n\r\nmax_age: 1\n\n",
            policy(Enforce, &["a.test"], 1),
        ),
        (
            "unknown keys",
            "version: STSv1\nmode: enforce\nx-new.key_1: any: thing \u{e9}\nmx: a.test\nmax_age: 1\n",
            policy(Enforce, &["a.test"], 1),
        ),
        (
            "the first of a repeated key",
            "version: STSv1\nversion: STSv2\nmode: testing\nmode: enforce\nmx: a.test\nmax_age: 1\nmax_age: 2\n",
            policy(Testing, &["a.test"], 1),
        ),
        ("no mx for none", "version: STSv1\nmode: none\nmax_age: 1\n", policy(None, &[], 1)),
        (
            "an mx for none",
            "version: STSv1\nmode: none\nmx: a.test\nmax_age: 1\n",
            policy(None, &["a.test"], 1),
        ),
        (
            "max_age 0",
            "version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 0\n",
            policy(Enforce, &["a.test"], 0),
        ),
        (
            "a year",
            "version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 31557600\n",
            policy(Enforce, &["a.test"], 31_557_600),
        ),
        (
            "more than a year counts as one",
            "version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 9999999999\n",
            policy(Enforce, &["a.test"], 31_557_600),
        ),
        (
            "capitals and a last dot",
            "version: STSv1\nmode: enforce\nmx: MX.A.Test.\nmx: *.A.TEST\nmax_age: 1\n",
            policy(Enforce, &["mx.a.test", "*.a.test"], 1),
        ),
        (
            "U-labels become A-labels",
            "version: STSv1\nmode: enforce\nmx: *.b\u{fc}cher.test\nmax_age: 1\n",
            policy(Enforce, &["*.xn--bcher-kva.test"], 1),
        ),
    ];
    for (reason, text, expected) in rows {
        assert_eq!(StsPolicy::parse("1", text.as_bytes()), Ok(expected), "{reason}");
    }
}

#[test]
fn policies_that_do_not() {
    let many = format!("version: STSv1\nmode: enforce\nmax_age: 1\n{}", "mx: a.test\n".repeat(501));
    let rows: [(&str, &str, &str); 25] = [
        ("nothing", "", "no version"),
        ("HTML", "<!doctype html>\n<title>Hello</title>\n", "line 1"),
        ("HTML with a colon", "<a href=\"https://a.test\">\n", "line 1"),
        ("no version", "mode: enforce\nmx: a.test\nmax_age: 1\n", "no version"),
        (
            "another version",
            "version: STSv2\nmode: enforce\nmx: a.test\nmax_age: 1\n",
            "version is not",
        ),
        (
            "a version in small letters",
            "version: stsv1\nmode: enforce\nmx: a.test\nmax_age: 1\n",
            "version is not",
        ),
        (
            "a key in capitals is another key",
            "Version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 1\n",
            "no version",
        ),
        ("no mode", "version: STSv1\nmx: a.test\nmax_age: 1\n", "no mode"),
        (
            "an unknown mode",
            "version: STSv1\nmode: report\nmx: a.test\nmax_age: 1\n",
            "mode is none of",
        ),
        (
            "a mode in capitals",
            "version: STSv1\nmode: Enforce\nmx: a.test\nmax_age: 1\n",
            "mode is none of",
        ),
        ("no mode's value", "version: STSv1\nmode:\nmx: a.test\nmax_age: 1\n", "mode is none of"),
        ("no max_age", "version: STSv1\nmode: enforce\nmx: a.test\n", "no max_age"),
        (
            "max_age in words",
            "version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 1d\n",
            "max_age is no",
        ),
        (
            "max_age below nothing",
            "version: STSv1\nmode: enforce\nmx: a.test\nmax_age: -1\n",
            "max_age is no",
        ),
        (
            "max_age with a sign",
            "version: STSv1\nmode: enforce\nmx: a.test\nmax_age: +1\n",
            "max_age is no",
        ),
        (
            "max_age of 11 digits",
            "version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 00000000001\n",
            "max_age is no",
        ),
        ("no mx", "version: STSv1\nmode: enforce\nmax_age: 1\n", "no mx"),
        ("no mx for testing", "version: STSv1\nmode: testing\nmax_age: 1\n", "no mx"),
        ("an empty mx", "version: STSv1\nmode: enforce\nmx:\nmax_age: 1\n", "line 3"),
        ("a star alone", "version: STSv1\nmode: enforce\nmx: *\nmax_age: 1\n", "line 3"),
        ("a star inside", "version: STSv1\nmode: enforce\nmx: mx.*.a.test\nmax_age: 1\n", "line 3"),
        ("an address", "version: STSv1\nmode: enforce\nmx: [192.0.2.1]\nmax_age: 1\n", "line 3"),
        (
            "two hosts in a line",
            "version: STSv1\nmode: enforce\nmx: a.test b.test\nmax_age: 1\n",
            "line 3",
        ),
        (
            "a line that is no field",
            "version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 1\nbye\n",
            "line 5",
        ),
        ("hosts without end", &many, "more than 500"),
    ];
    for (reason, text, words) in rows {
        let error = StsPolicy::parse("1", text.as_bytes()).expect_err(reason);
        assert!(error.contains(words), "{reason}: {error}");
    }
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
