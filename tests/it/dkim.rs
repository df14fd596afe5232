//! Mail of our own is signed (DKIM), as a verifier that shares nothing with the signer judges.

use crate::support::{
    dkim::{Keys, verify},
    gateway::{Gateway, Settings},
    house::House,
    smtp,
};
use std::fs;

#[test]
fn a_notice_is_signed_by_each_key_and_what_is_changed_on_the_way_shows() {
    let dir = tempfile::tempdir().expect("temp dir");
    let keys = Keys::new(dir.path(), "example.org");
    let house = House::open(dir.path(), &[], |settings| settings.notification = keys.setting());
    let message = b"From: bob@example.org\r\nSubject: hello\r\n\r\nbody\r\n";
    smtp::send(house.gateway.smtp, "bob@example.org", &["jane@stranger.test"], message);
    let notice = house.mail_to_stranger(1).content;
    assert_eq!(verify(dir.path(), &notice, &keys), ["valid", "valid"]);

    let text = String::from_utf8(notice).expect("text");
    for (was, becomes, reason) in [
        ("\r\nSubject: ", "\r\nSubject: Re: ", "a signed field"),
        ("\r\nDate: ", "\r\nReply-To: eve@stranger.test\r\nDate: ", "a field signed as lacking"),
        ("\r\n\r\n--", "\r\n\r\nMore.\r\n--", "the body"),
    ] {
        let changed = text.replacen(was, becomes, 1);
        assert_ne!(changed, text, "{reason}");
        let judged = verify(dir.path(), changed.as_bytes(), &keys);
        assert_eq!(judged, ["invalid", "invalid"], "{reason}");
    }
}

#[test]
fn a_key_that_cannot_sign_keeps_the_gateway_from_starting() {
    let dir = tempfile::tempdir().expect("temp dir");
    let key = dir.path().join("dkim.key");
    let settings = Settings {
        notification: format!(
            "dkim = [{{ domain = \"example.org\", selector = \"s\", key = {:?} }}]",
            key.display().to_string()
        ),
        ..Settings::default()
    };
    let gateway = Gateway::prepare(&dir.path().join("gateway"), &settings, &[]);
    for (text, says, reason) in [
        (None, "No such file", "no file"),
        (Some("secret\n"), "holds no private key in PEM form", "another file"),
    ] {
        if let Some(text) = text {
            fs::write(&key, text).expect("write");
        }
        let output = gateway.ask(&["serve"]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{reason}: {stderr}");
        assert!(stderr.contains(&*key.to_string_lossy()) && stderr.contains(says), "{stderr}");
        assert!(!stderr.contains("secret"), "{stderr}");
        let check = gateway.ask(&["config", "check"]);
        assert_eq!(check.status.code(), Some(78), "{reason}");
        assert!(String::from_utf8_lossy(&check.stdout).contains(says), "{reason}");
    }
}

#[test]
fn a_key_of_another_domain_than_from_is_warned_of_and_nothing_is_refused() {
    let dir = tempfile::tempdir().expect("temp dir");
    let keys = Keys::new(dir.path(), "elsewhere.test");
    let settings = Settings { notification: keys.setting(), ..Settings::default() };
    let gateway = Gateway::start(&dir.path().join("gateway"), &settings, &[]);
    let says = "notification.dkim has no key of";
    let check = gateway.ask(&["config", "check"]);
    assert_eq!(check.status.code(), Some(0));
    let text = String::from_utf8(check.stdout).expect("text");
    assert!(text.starts_with("warning: ") && text.contains(says), "{text}");
    let warned = gateway.json(&["config", "check"]);
    assert_eq!(warned.as_array().map(Vec::len), Some(1), "{warned}");
    assert!(gateway.log_text().contains(says), "at the start too");
    let shown = gateway.json(&["config", "show"]);
    assert_eq!(shown["delivery"]["tls_reports"], false, "{shown}");
}
