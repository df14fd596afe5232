//! A house's own words: templates from a folder take the place of the built-in ones, and a bad one refuses to start.

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
