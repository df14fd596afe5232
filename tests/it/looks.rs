//! How every page looks and is read out: axe-core finds nothing wrong with any page, with errors shown
//! and without, in light and dark, on a wide screen and at 320 pixels, where nothing scrolls sideways.
//! The same walk takes the pictures of the gallery:
//! `RESTANTE_GALLERY=docs/gallery cargo test --test it looks::gallery`, in another language with
//! `RESTANTE_GALLERY_LANGUAGE=de`.

use crate::{
    browser::{SEND, field},
    oidc,
    reading::png,
    support::{
        browser::{Cdp, Driver, Network, PHONE, screen},
        house::{House, code_in, link_in},
        smtp,
    },
};
use data_encoding::{BASE32_NOPAD, BASE64};
use fantoccini::Client;
use restante::clock::{Clock, SystemClock};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use totp_rs::Builder;

const AXE: &str = include_str!("../vendor/axe-core/axe.min.js");
/// WCAG up to 2.2 AA, and what axe-core holds for good practice besides.
const TAGS: [&str; 6] = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
const ADA: &str = "ada@stranger.test";
const PASSWORD: &str = "correct horse battery";
const MESSAGE: &str = "From: Doctor Example <doctor@example.org>\r\n\
    To: ada@stranger.test, Nurse Joy <nurse@example.org>\r\n\
    Subject: Your appointment on Monday, and what to bring\r\nMIME-Version: 1.0\r\n\
    Message-ID: <one@example.org>\r\n\
    X-Secure-Note: Please look before Monday: it is about your appointment.\r\n\
    Content-Type: multipart/mixed; boundary=b\r\n\r\n\
    --b\r\nContent-Type: multipart/alternative; boundary=a\r\n\r\n\
    --a\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nDear Ada,\r\n\r\n\
    please come on Monday at nine. You find the way here:\r\n\
    https://example.org/way/to/the/clinic/by/bus/and/by/train?from=the-station&to=the-clinic\r\n\r\n\
    Please bring your papers.\r\n\r\nKind regards\r\nDoctor Example\r\n\
    --a\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>Dear Ada,</p><p>please come on <b>Monday</b>.</p>\r\n\
    --a--\r\n\
    --b\r\nContent-Type: text/csv\r\n\
    Content-Disposition: attachment; filename=\"plan-of-the-clinic-with-all-of-its-buildings-and-floors.csv\"\r\n\r\n\
    day,hour\r\nMonday,9\r\n--b\r\nContent-Type: image/png; name=\"the-entrance.png\"\r\n\
    Content-Disposition: attachment\r\nContent-Transfer-Encoding: base64\r\n\r\n";

/// A screen: its name, width, and whether it is dark.
type Screen = (&'static str, u32, bool);
const SCREENS: [Screen; 4] = [
    ("wide", 1000, false),
    ("phone", PHONE, false),
    ("wide-dark", 1000, true),
    ("phone-dark", PHONE, true),
];
/// Pages that the gallery shows in the dark too.
const DARK: [&str; 3] = ["sign-in-refused", "inbox", "message"];

/// One walk through all pages.
struct Walk {
    house: House,
    browser: Client,
    base: String,
    language: &'static str,
    gallery: Option<PathBuf>,
    seen: Vec<&'static str>,
    wrong: Vec<String>,
}

impl Walk {
    async fn cdp(&self, command: &'static str, values: Value) -> Value {
        self.browser.issue_cmd(Cdp(command, values)).await.expect("a command of the browser")
    }
    async fn screen(&self, (_, width, dark): Screen, height: u32) {
        screen(&self.browser, width, height).await;
        self.cdp("Emulation.setScrollbarsHidden", json!({ "hidden": true })).await;
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.cdp("Emulation.setEmulatedMedia", media).await;
    }
    async fn run(&self, script: &str, values: Vec<Value>) -> Value {
        self.browser.execute(script, values).await.expect("a script")
    }
    async fn goto(&self, path: &str) {
        self.browser.goto(&format!("{}{path}", self.base)).await.expect("a page");
    }
    /// Does what leads to another page, and waits for it.
    async fn act(&self, script: &str) {
        self.run(&format!("window.before = true; {script}"), vec![]).await;
        self.until("!window.before && document.readyState === 'complete'").await;
    }
    /// Waits until the page says yes to that.
    async fn until(&self, condition: &str) {
        let script = format!("return Boolean({condition})");
        let end = Instant::now() + Duration::from_secs(60);
        while !self.browser.execute(&script, vec![]).await.is_ok_and(|answer| answer == true) {
            assert!(Instant::now() < end, "waited for {condition}");
            tokio::task::yield_now().await;
        }
    }
    /// Presses a button, whatever the browser thinks of the form.
    async fn press(&self, css: &str) {
        let script = format!(
            "const button = document.querySelector({css:?}); button.form.noValidate = true; button.click();"
        );
        self.act(&script).await;
    }
    async fn fill(&self, fields: &[(&str, &str)]) {
        for (name, text) in fields {
            let script = "document.querySelector(`[name='${arguments[0]}']`).value = arguments[1]";
            self.run(script, vec![json!(name), json!(text)]).await;
        }
    }
    async fn submit(&self) {
        self.press(SEND).await;
    }
    async fn code(&self, number: usize) -> String {
        code_in(&self.house.mail_to_stranger(number).content)
    }
    /// Looks at the page on every screen.
    async fn look(&mut self, name: &'static str) {
        self.seen.push(name);
        if self.gallery.is_some() {
            return self.take_pictures(name).await;
        }
        let language = self.run("return document.documentElement.lang", vec![]).await;
        assert_eq!(language, self.language, "{name}");
        self.run(AXE, vec![]).await;
        for screen in SCREENS {
            self.screen(screen, 900).await;
            self.judge(name, screen).await;
        }
    }
    async fn judge(&mut self, name: &str, (screen, width, _): Screen) {
        let script = "const done = arguments[arguments.length - 1];
            axe.run(document, { runOnly: { type: 'tag', values: arguments[0] } }).then(
              found => done(found.passes.length < 10 ? ['axe-core saw hardly anything'] :
                found.violations.map(v =>
                  `${v.id}: ${v.nodes.map(n => n.target + ' ' + n.failureSummary).join(' | ')}`)),
              error => done([String(error)]));";
        let found = self.browser.execute_async(script, vec![json!(TAGS)]).await.expect("axe-core");
        let page = format!("{name} ({}, {screen})", self.language);
        for violation in found.as_array().expect("a list") {
            self.wrong.push(format!("{page}: {}", violation.as_str().unwrap_or_default()));
        }
        let script =
            "return Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)";
        let wide = self.run(script, vec![]).await.as_u64().expect("a width");
        if wide > u64::from(width) {
            self.wrong.push(format!("{page}: {wide} pixels wide"));
        }
    }
    async fn take_pictures(&self, name: &str) {
        let Some(folder) = &self.gallery else { return };
        for (file, screen) in pictures(name) {
            self.screen(screen, 600).await;
            let script = "return document.documentElement.scrollHeight";
            let height = self.run(script, vec![]).await.as_u64().expect("a height");
            let height = u32::try_from(height.clamp(400, 4000)).expect("bounded");
            self.screen(screen, height).await;
            let wanted = json!({ "format": "webp", "quality": 60 });
            let picture = self.cdp("Page.captureScreenshot", wanted).await;
            let data = picture["data"].as_str().expect("a picture");
            fs::write(folder.join(file), BASE64.decode(data.as_bytes()).expect("base64"))
                .expect("written");
        }
    }

    /// What everybody sees.
    async fn outside(&mut self, notice: &[u8]) {
        self.goto(&format!("/?lang={}", self.language)).await;
        self.look("front").await;
        self.goto("/login").await;
        self.look("sign-in").await;
        self.submit().await;
        self.look("sign-in-refused").await;
        self.goto("/login?by=passkey").await;
        self.look("passkey").await;
        self.goto("/login/oidc/callback").await;
        self.look("sign-in-elsewhere-refused").await;
        self.goto("/check").await;
        self.look("check").await;
        self.goto("/check?code=bcdf").await;
        self.look("check-refused").await;
        self.goto(&format!("/check?code={}", check_code(notice))).await;
        self.look("check-genuine").await;
        self.goto("/reset").await;
        self.look("reset").await;
        self.submit().await;
        self.look("reset-refused").await;
        self.fill(&[("email", "nobody@stranger.test")]).await;
        self.submit().await;
        self.look("new-password").await;
        self.submit().await;
        self.look("new-password-refused").await;
    }
    async fn register(&mut self, link: &str) {
        self.goto(link).await;
        self.look("register").await;
        self.submit().await;
        self.look("register-refused").await;
        let names = [("first_name", "Ada"), ("last_name", "Reader")];
        let passwords = [("password", PASSWORD), ("password_confirm", PASSWORD)];
        self.fill(&names).await;
        self.fill(&passwords).await;
        self.run("document.getElementById('accept_terms').checked = true", vec![]).await;
        self.submit().await;
        let code = self.code(2).await;
        self.look("code").await;
        self.fill(&[("code", "000000")]).await;
        self.submit().await;
        self.look("code-refused").await;
        self.fill(&[("code", &code)]).await;
        self.submit().await;
    }
    async fn messages(&mut self) {
        self.look("message").await;
        let message = self.run("return location.pathname", vec![]).await;
        let message = message.as_str().expect("a path").to_owned();
        self.goto(&format!("{message}/attachments/2/view")).await;
        self.look("picture").await;
        self.goto("/sent").await;
        self.look("sent-nothing").await;
        for (page, name, refused) in [
            (format!("{message}/reply?all=yes"), "reply", "reply-refused"),
            (format!("{message}/forward"), "forward", "forward-refused"),
            ("/compose".to_owned(), "write", "write-refused"),
        ] {
            self.goto(&page).await;
            self.look(name).await;
            self.submit().await;
            self.look(refused).await;
        }
        self.files_ahead().await;
        self.goto(&format!("{message}/reply")).await;
        self.fill(&[("body", "Thank you, I will be there.")]).await;
        self.submit().await;
        self.look("message-sent").await;
        self.goto(&message).await;
        self.look("conversation").await;
        self.goto(&format!("{message}/print")).await;
        self.look("print").await;
        self.goto("/sent").await;
        self.look("sent").await;
        self.goto("/inbox").await;
        self.look("inbox").await;
        self.goto("/inbox?q=monday+nurse").await;
        self.look("search").await;
        self.goto("/inbox?q=zebra").await;
        self.look("search-nothing").await;
        self.goto("/inbox/nothing").await;
        self.look("nothing-here").await;
        self.proof().await;
    }
    /// A message that asks for a phrase.
    async fn proof(&mut self) {
        let letter = b"Subject: x\r\nX-Restante-Pickup: phrase: blue steps seven\r\n\r\nx\r\n";
        let before = self.house.stranger.messages().len();
        smtp::send(self.house.gateway.smtp, "doctor@example.org", &[ADA], letter);
        self.house.mail_to_stranger(before + 1);
        self.goto("/inbox").await;
        let newest = "return document.querySelector('.item a.subject').getAttribute('href')";
        let place = self.run(newest, vec![]).await;
        self.goto(place.as_str().expect("a link")).await;
        self.look("prove").await;
        self.fill(&[("phrase", "green steps seven")]).await;
        self.press("form:has(#phrase) button").await;
        self.look("prove-refused").await;
    }
    /// The writing form with a file that has arrived, one on its way, and one that is not taken.
    async fn files_ahead(&mut self) {
        self.goto("/compose").await;
        let files: Vec<_> = ["papers.txt", "program.exe", "scan.pdf"]
            .iter()
            .map(|name| {
                let path = self.house.gateway.dir.join(name);
                fs::write(&path, "x".repeat(200_000)).expect("written");
                path.display().to_string()
            })
            .collect();
        let choose = field(&self.browser, "files").await;
        let [papers, program, scan] = files.as_slice() else { unreachable!("three files") };
        choose.send_keys(&format!("{papers}\n{program}")).await.expect("chosen");
        self.until("document.querySelector('[name=upload]')").await;
        self.until("document.querySelector('.uploads .wrong')").await;
        let slow = Network { offline: false, upload: Some(1000) };
        self.browser.issue_cmd(slow).await.expect("slow");
        choose.send_keys(scan).await.expect("chosen");
        self.until("document.querySelectorAll('.uploads progress').length === 3").await;
        self.look("write-files").await;
        let fast = Network { offline: false, upload: None };
        self.browser.issue_cmd(fast).await.expect("fast");
        self.goto("/compose").await;
        self.look("write-with-files").await;
    }
    /// Where people may sign in with an account elsewhere.
    async fn elsewhere(&mut self, link: &str) {
        self.goto(&format!("{link}?lang={}", self.language)).await;
        self.look("register-or-sign-in-elsewhere").await;
        self.goto("/login").await;
        self.look("sign-in-or-elsewhere").await;
        self.press("form[action='/login/oidc'] button").await;
        self.look("sign-in-elsewhere").await;
    }
    async fn account(&mut self) {
        self.goto("/account").await;
        self.look("account").await;
        self.fill(&[("first_name", "")]).await;
        self.press("form:has(#first_name) button").await;
        self.look("account-refused").await;
        self.fill(&[("proof_password", PASSWORD)]).await;
        self.press("form:has(#proof_password) button").await;
        self.look("account-confirmed").await;
        self.press("button[value='passkey-begin']").await;
        self.look("new-passkey").await;
        self.goto("/account").await;
        self.press("button[value='second-begin']").await;
        self.look("second-factor-set-up").await;
        let secret = self.run("return document.getElementById('secret').textContent", vec![]).await;
        let secret = secret.as_str().expect("a secret").replace(' ', "");
        self.fill(&[("code", &shown_by_app(&secret))]).await;
        self.press("form:has(#code) button").await;
        self.look("recovery-codes").await;
        self.goto("/account").await;
        self.look("account-with-second-factor").await;
        self.goto("/account/log").await;
        self.look("account-log").await;
    }
    async fn again(&mut self) {
        self.goto("/compose").await;
        self.fill(&[("body", "A letter that took its time.")]).await;
        self.cdp("Network.deleteCookies", json!({ "name": "session", "url": self.base })).await;
        self.submit().await;
        self.look("given-back").await;
        self.goto("/login").await;
        self.fill(&[("email", ADA), ("password", PASSWORD)]).await;
        self.submit().await;
        self.look("second-step").await;
        self.submit().await;
        self.look("second-step-refused").await;
        self.goto("/login?other").await;
        self.fill(&[("email", ADA)]).await;
        self.press("button[value='code']").await;
        self.look("code-to-sign-in").await;
    }
}

/// The code by which a notice can be checked.
fn check_code(notice: &[u8]) -> String {
    let text = String::from_utf8_lossy(notice).replace("=\r\n", "");
    let letters = |word: &&str| {
        word.len() == 14
            && word.split('-').count() == 3
            && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
    };
    let mut words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.find(letters).expect("a code").to_owned()
}

fn shown_by_app(secret: &str) -> String {
    let secret = BASE32_NOPAD.decode(secret.as_bytes()).expect("base32");
    let app = Builder::new().with_secret(secret.into_boxed_slice()).build().expect("an app");
    let now = u64::try_from(SystemClock.now().as_second()).expect("after 1970");
    app.generate(now).to_string()
}

/// Every page, in one language.
fn walk(language: &'static str, gallery: Option<PathBuf>) -> Vec<&'static str> {
    let dir = tempfile::tempdir().expect("temp dir");
    let house = House::open(dir.path(), &[], |settings| {
        settings.notification = "note = \"X-Secure-Note\"".to_owned();
    });
    let picture = BASE64.encode(&png(420, 260, 140));
    let lines = picture.as_bytes().chunks(76).map(String::from_utf8_lossy);
    let picture = lines.collect::<Vec<_>>().join("\r\n");
    let message = format!("{MESSAGE}{picture}\r\n--b--\r\n");
    smtp::send(house.gateway.smtp, "doctor@example.org", &[ADA], message.as_bytes());
    let notice = house.mail_to_stranger(1).content;
    let (downloads, elsewhere) = (dir.path().join("downloads"), dir.path().join("elsewhere"));
    for folder in [&downloads, &elsewhere] {
        fs::create_dir_all(folder).expect("folder");
    }
    let driver = Driver::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let base = format!("http://{}", house.gateway.portal);
    let (seen, wrong) = runtime.expect("a runtime").block_on(async {
        let browser = driver.browser(true, &downloads).await;
        let (seen, wrong) = (Vec::new(), Vec::new());
        let mut walk = Walk { house, browser, base, language, gallery, seen, wrong };
        walk.outside(&notice).await;
        walk.register(&link_in(&notice)).await;
        walk.messages().await;
        walk.account().await;
        walk.again().await;
        let (house, provider, link) = oidc::scene(&elsewhere);
        provider.is_busy();
        walk.base = format!("http://{}", house.gateway.portal);
        walk.house = house;
        walk.elsewhere(&link).await;
        walk.browser.close().await.expect("closed");
        (walk.seen, walk.wrong)
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let stop = |template: &str| PAGES.iter().find(|(name, _)| *name == template).map(|(_, s)| *s);
    for template in templates() {
        let stop = stop(&template).unwrap_or_else(|| panic!("{template} has no stop in PAGES"));
        assert!(seen.contains(&stop), "the walk does not come by {stop}: {seen:?}");
    }
    seen
}

/// A stop of the walk for each template.
const PAGES: [(&str, &str); 24] = [
    ("account.html", "account"),
    ("check.html", "check"),
    ("front.html", "front"),
    ("given-back.html", "given-back"),
    ("inbox.html", "inbox"),
    ("log.html", "account-log"),
    ("login.html", "sign-in"),
    ("message.html", "message"),
    ("new-passkey.html", "new-passkey"),
    ("new-password.html", "new-password"),
    ("oidc.html", "sign-in-elsewhere"),
    ("passkey.html", "passkey"),
    ("picture.html", "picture"),
    ("plain.html", "nothing-here"),
    ("print.html", "print"),
    ("prove.html", "prove"),
    ("recovery.html", "recovery-codes"),
    ("register.html", "register"),
    ("reset.html", "reset"),
    ("search.html", "search"),
    ("second.html", "second-step"),
    ("sent.html", "sent"),
    ("verify.html", "code"),
    ("write.html", "write"),
];

/// The portal's templates, but for those that are parts of others.
fn templates() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/portal/templates");
    let files = fs::read_dir(folder).expect("the templates");
    let names =
        files.map(|entry| entry.expect("a file").file_name().to_string_lossy().into_owned());
    let parts = ["page.html", "form.html", "providers.html", "search-form.html"];
    names.filter(|name| !parts.contains(&name.as_str())).collect()
}

/// Where its pictures are.
fn pictures(name: &str) -> impl Iterator<Item = (String, Screen)> {
    let dark = DARK.contains(&name);
    let screens = SCREENS.into_iter().filter(move |screen| !screen.2 || dark);
    screens.map(move |screen| (format!("{name}-{}.webp", screen.0), screen))
}

/// The walk in English is the one whose pictures are kept: the gallery has each of its pages, and none
/// that is there no more.
#[test]
fn axe_finds_nothing_wrong_with_any_page_in_english() {
    let seen = walk("en", None);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/gallery");
    let kept = fs::read_dir(&folder).expect("the gallery").map(|entry| entry.expect("a file"));
    let kept: BTreeSet<_> =
        kept.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    let wanted = seen.iter().flat_map(|name| pictures(name)).map(|(file, _)| file);
    let wanted: BTreeSet<_> = wanted.chain(["README.md".to_owned()]).collect();
    let (missing, stale): (Vec<_>, Vec<_>) =
        (wanted.difference(&kept).collect(), kept.difference(&wanted).collect());
    let list = fs::read_to_string(folder.join("README.md")).expect("the gallery's page");
    assert!(
        missing.is_empty() && stale.is_empty() && list == gallery_page(&seen),
        "take the gallery again (docs/gallery/README.md says how): without {missing:?}, with {stale:?}"
    );
}

#[test]
fn axe_finds_nothing_wrong_with_any_page_in_german() {
    walk("de", None);
}

/// Takes the pictures if it is told where to; the pages themselves are judged above.
#[test]
fn gallery() {
    let Some(folder) = std::env::var_os("RESTANTE_GALLERY").map(PathBuf::from) else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).expect("folder");
    let german = std::env::var_os("RESTANTE_GALLERY_LANGUAGE").is_some_and(|code| code == "de");
    let seen = walk(if german { "de" } else { "en" }, Some(folder.clone()));
    fs::write(folder.join("README.md"), gallery_page(&seen)).expect("written");
}

fn gallery_page(seen: &[&'static str]) -> String {
    let mut list =
        "# The portal, page by page\n\nTaken by `RESTANTE_GALLERY=docs/gallery cargo test \
        --test it looks::gallery`: wide, and on a phone of 320 pixels.\n"
            .to_owned();
    for name in seen {
        let title = name.replace('-', " ");
        let _ = write!(list, "\n## {title}\n\n");
        for (file, (screen, width, _)) in pictures(name) {
            let shown = width * 6 / 10;
            let _ =
                writeln!(list, "<img src=\"{file}\" width=\"{shown}\" alt=\"{title}, {screen}\">");
        }
    }
    list
}
