//! A house's own words and looks: templates from a folder take the place of the built-in ones, a file adds
//! a language, logo and colours are its own; what is wrong in any of them refuses to start.

use crate::support::{
    gateway::{Gateway, Settings},
    house::House,
    http::Visitor,
    smtp,
};
use std::fs;

const NOTICE: &str = "Moin {{ recipient }}, {{ organization }} has a letter for you: {{ link }}\n";
const FRONT: &str = "{% extends \"page.html\" %}{% block main %}<h1>Moin</h1>{% endblock %}";

fn with_templates(settings: &mut Settings, folder: &std::path::Path) {
    settings.notification = format!("template = \"{}\"", folder.display());
}

#[test]
fn templates_of_a_folder_take_the_place_of_the_built_in_ones() {
    let dir = tempfile::tempdir().expect("temp dir");
    let folder = dir.path().join("templates");
    fs::create_dir(&folder).expect("folder");
    fs::write(folder.join("notice.txt"), NOTICE).expect("written");
    fs::write(folder.join("front.html"), FRONT).expect("written");
    let house = House::open(dir.path(), &[], |s| with_templates(s, &folder));
    smtp::send(
        house.gateway.smtp,
        "a@example.org",
        &["b@stranger.test"],
        b"Subject: x\r\n\r\nx\r\n",
    );
    let notice = String::from_utf8(house.mail_to_stranger(1).content).expect("text");
    assert!(notice.contains("Moin b@stranger.test, Example Health has a letter"), "{notice}");
    let front = Visitor::new(house.gateway.portal).get("/");
    assert!(front.text().contains("<h1>Moin</h1>"), "{}", front.text());
}

#[test]
fn a_template_that_names_what_is_not_there_refuses_to_start() {
    let dir = tempfile::tempdir().expect("temp dir");
    let folder = dir.path().join("templates");
    fs::create_dir(&folder).expect("folder");
    fs::write(folder.join("notice.txt"), format!("{NOTICE}{{{{ subject }}}}\n")).expect("written");
    let mut settings = Settings::default();
    with_templates(&mut settings, &folder);
    let gateway = Gateway::prepare(&dir.path().join("gateway"), &settings, &[]);
    let refused = gateway.ask(&["serve"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(78), "{text}");
    assert!(text.contains("notice.txt"), "{text}");
}

const POLISH: &str =
    "code = \"pl\"\nname = \"Polski\"\n[messages]\n\"Sign in\" = \"Zaloguj się\"\n";

#[test]
fn a_file_adds_a_language_and_notices_have_one_of_their_own() {
    let dir = tempfile::tempdir().expect("temp dir");
    let file = dir.path().join("pl.toml");
    fs::write(&file, POLISH).expect("written");
    let house = House::open(dir.path(), &[], |settings| {
        settings.portal = format!("language = \"pl\"\nlanguages = [\"{}\"]", file.display());
        settings.notification = "language = \"de\"".to_owned();
    });
    let text = Visitor::new(house.gateway.portal).get("/login").text();
    for part in ["<html lang=\"pl\">", "<h1>Zaloguj się</h1>", "Forgot your password?", "?lang=pl"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    smtp::send(
        house.gateway.smtp,
        "a@example.org",
        &["b@stranger.test"],
        b"Subject: x\r\n\r\nx\r\n",
    );
    let notice = String::from_utf8(house.mail_to_stranger(1).content).expect("text");
    let subject = "Subject: Sie haben eine sichere Nachricht von Example Health\r\n";
    assert!(notice.contains(subject), "{notice}");
}

#[test]
fn the_check_finds_every_fault_of_languages_and_looks() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (file, logo) = (dir.path().join("pl.toml"), dir.path().join("logo.svg"));
    fs::write(&logo, "<html>").expect("written");
    let languages = format!("languages = [\"{}\"]", file.display());
    let cases = [
        (POLISH, "", "language = \"xx\"", "portal.language: there is no language `xx`"),
        ("code = 1", "", &languages, "pl.toml: code: write the tag of the language"),
        (
            "code = \"pl\"\nname = \"P\"\n[messages]\n\"Sing in\" = \"x\"\n",
            "",
            &languages,
            "pl.toml: \"Sing in\": no page and no mail says this",
        ),
        (POLISH, "accent = \"#ffcc00\"", "", "`#ffcc00` has a contrast of 1.4 to the page"),
        (POLISH, "accent = \"yellow\"", "", "`yellow` is no colour: write \"#1b5e52\""),
        (POLISH, &format!("logo = \"{}\"", logo.display()), "", "no picture that browsers show"),
        (POLISH, "logo = \"none.png\"", "", "none.png: "),
    ];
    for (number, (catalogue, organization, portal, expected)) in cases.into_iter().enumerate() {
        fs::write(&file, catalogue).expect("written");
        let settings = Settings {
            organization: organization.to_owned(),
            portal: portal.to_owned(),
            ..Settings::default()
        };
        let folder = dir.path().join(number.to_string());
        let gateway = Gateway::prepare(&folder, &settings, &[]);
        for command in [&["config", "check"][..], &["serve"]] {
            let refused = gateway.ask(command);
            let text = String::from_utf8_lossy(&refused.stderr).into_owned()
                + &String::from_utf8_lossy(&refused.stdout);
            assert_eq!(refused.status.code(), Some(78), "{command:?}: {text}");
            assert!(text.contains(expected), "{command:?}: {expected}: {text}");
        }
    }
}

#[test]
fn a_catalogue_to_begin_with_is_printed_and_is_none_wrong() {
    let dir = tempfile::tempdir().expect("temp dir");
    let gateway = Gateway::prepare(dir.path(), &Settings::default(), &[]);
    let printed = gateway.ask(&["config", "catalogue"]);
    let text = String::from_utf8(printed.stdout).expect("text");
    assert!(text.contains("\"Sign in\" = \"\""), "{text}");
    let file = dir.path().join("mine.toml");
    fs::write(&file, text.replace("\"en\"", "\"pl\"").replace("English\"", "Polski\""))
        .expect("written");
    let portal = format!("language = \"pl\"\nlanguages = [\"{}\"]", file.display());
    let settings = Settings { portal, ..Settings::default() };
    let gateway = Gateway::prepare(&dir.path().join("own"), &settings, &[]);
    let checked = gateway.ask(&["config", "check"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    assert_eq!(gateway.ask(&["config", "catalogue", "xx"]).status.code(), Some(64));
}

#[test]
fn logo_and_colours_are_the_houses_own() {
    let dir = tempfile::tempdir().expect("temp dir");
    let logo = dir.path().join("logo.svg");
    let picture = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 1 1\"/>";
    fs::write(&logo, picture).expect("written");
    let settings = Settings {
        organization: format!("logo = \"{}\"\naccent = \"#7a1f4b\"", logo.display()),
        ..Settings::default()
    };
    let gateway = Gateway::start(&dir.path().join("gateway"), &settings, &[]);
    let mut visitor = Visitor::new(gateway.portal);
    let front = visitor.get("/").text();
    assert!(front.contains("<img class=\"logo\" src=\"/assets/logo\" alt=\"\">"), "{front}");
    let shown = visitor.get("/assets/logo");
    assert_eq!((shown.status, shown.text().as_str()), (200, picture));
    assert_eq!(shown.headers["content-type"], "image/svg+xml");
    assert!(shown.headers["content-security-policy"].ends_with("sandbox"));
    let style = visitor.get("/assets/style.css").text();
    assert!(style.contains("--accent: #7a1f4b; --on-accent: #ffffff;"), "{style}");
    let plain = Gateway::start(&dir.path().join("plain"), &Settings::default(), &[]);
    let mut visitor = Visitor::new(plain.portal);
    assert_eq!(visitor.get("/assets/logo").status, 404);
    assert!(!visitor.get("/").text().contains("class=\"logo\""));
}

const NOTED: &[u8] =
    b"From: Doctor <doctor@example.org>\r\nX-Secure-Note: =?utf-8?q?Ihre_Werte_sind_da,_\
    gr=C3=BC=C3=9Fe?=\r\nSubject: Findings\r\n\r\nThe findings are good.\r\n";

#[test]
fn the_senders_own_words_stand_in_the_notice_and_above_the_message() {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[], |settings| {
        settings.notification = "note = \"X-Secure-Note\"".to_owned();
    });
    let words = "Ihre Werte sind da, grüße";
    smtp::send(house.gateway.smtp, "doctor@example.org", &["b@stranger.test"], NOTED);
    let notice = house.mail_to_stranger(1);
    let text = text_of(&notice.content);
    assert!(text.contains(&format!("Doctor writes: {words}")), "{text}");
    assert!(!text.contains("indings"), "nothing else of the message: {text}");

    let mut reader = Visitor::new(house.gateway.portal);
    let message = house.register(&mut reader, &notice, "a long enough password");
    let page = reader.get(&message).text();
    let (note, sealed) = (page.find(words), page.find("The findings are good."));
    assert!(note.is_some_and(|note| sealed.is_some_and(|sealed| note < sealed)), "{page}");
    let log = house.gateway.log_text();
    assert!(log.contains("…@example.org") && !log.contains("Ihre Werte"), "{log}");
}

/// A mail's text part, its quoted-printable undone.
fn text_of(mail: &[u8]) -> String {
    let mail = mail_parser::MessageParser::default().parse(mail).expect("a mail");
    mail.body_text(0).expect("text").into_owned()
}

#[test]
fn a_field_that_belongs_to_the_sealed_part_is_no_note() {
    let dir = tempfile::tempdir().expect("temp dir");
    let settings =
        Settings { notification: "note = \"Subject\"".to_owned(), ..Settings::default() };
    let gateway = Gateway::prepare(dir.path(), &settings, &[]);
    let refused = gateway.ask(&["serve"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(78), "{text}");
    assert!(text.contains("as in \"X-Secure-Note\""), "{text}");
}
