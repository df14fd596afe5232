//! A mail scanner: from the link in the notice on it fetches every link fifty times, and presses
//! every button of every page that it reaches. Nothing is changed by it, and the reader still comes
//! to the message in the ordinary way.
//!
//! "Nothing" is the vault, grants and their links, accounts, sessions that are signed in, and what
//! says that a message was opened. One thing a pressed button may do: have a code mailed to the
//! mailbox that the link is for, as the registration and sign-in forms say. That opens nothing, is
//! bounded (ten a quarter of an hour for each place that presses, thirty in all), and keeps nobody
//! out: whoever comes from elsewhere is mailed a code of their own.

use crate::support::{
    gateway::Gateway,
    house::{House, code_in, link_in},
    http::{Page, Visitor},
    smtp, wait_for,
};
use scraper::{ElementRef, Html, Selector};
use serde_json::Value;
use std::{
    collections::{BTreeSet, VecDeque},
    path::Path,
};

const MESSAGE: &[u8] = b"Subject: Your results\r\n\r\nAll is well.\r\n";
const ADA: &str = "ada@stranger.test";
const PASSWORD: &str = "correct horse battery";
/// How often each link is fetched, and each button pressed.
const FETCHES: usize = 50;
const PRESSES: usize = 12;
/// Codes mailed at most to one mailbox, whoever presses.
const MOST_CODES: usize = 30;

/// A form with one of its buttons.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Button {
    method: String,
    action: String,
    /// Name, value, and whether people would type it.
    fields: Vec<(String, String, bool)>,
}

fn all<'a>(page: &'a Html, css: &str) -> Vec<ElementRef<'a>> {
    page.select(&Selector::parse(css).expect("CSS")).collect()
}
fn attribute(element: &ElementRef<'_>, name: &str) -> String {
    element.attr(name).unwrap_or_default().to_owned()
}
/// Paths of this site that a page names.
fn links_of(page: &Html) -> Vec<String> {
    let named = all(page, "[href], [src]").into_iter().flat_map(|element| {
        ["href", "src"].map(|name| element.attr(name).map(ToOwned::to_owned)).into_iter().flatten()
    });
    let own = named.filter(|place| place.starts_with('/') && !place.starts_with("//"));
    own.map(|place| place.split('#').next().unwrap_or_default().to_owned()).collect()
}
fn buttons_of(page: &Html) -> Vec<Button> {
    let mut found = Vec::new();
    for form in all(page, "form") {
        let inside =
            |css: &str| form.select(&Selector::parse(css).expect("CSS")).collect::<Vec<_>>();
        let mut fields: Vec<_> = inside("input, textarea, select")
            .iter()
            .map(|input| {
                let typed = input.attr("type") != Some("hidden");
                (attribute(input, "name"), attribute(input, "value"), typed)
            })
            .collect();
        fields.retain(|(name, _, _)| !name.is_empty());
        for button in inside("button") {
            let mut fields = fields.clone();
            if let Some(name) = button.attr("name") {
                fields.push((name.to_owned(), attribute(&button, "value"), false));
            }
            let (method, action) = (attribute(&form, "method"), attribute(&form, "action"));
            found.push(Button { method, action, fields });
        }
    }
    found
}

/// What a scanner types into the fields of a form.
type Hand = fn(&str, &str, bool) -> String;
const HANDS: [(&str, Hand); 3] = [
    ("as it stands", |_, value, _| value.to_owned()),
    (
        "junk",
        |name, value, typed| {
            if typed { format!("junk of a scanner in {name}") } else { value.to_owned() }
        },
    ),
    // What is filled in stays, and the rest is filled in well: as good as junk can be.
    ("good junk", |name, value, typed| match (name, value) {
        ("code", "") => "123456".to_owned(),
        (_, "") if typed => "a scanner was here".to_owned(),
        _ => value.to_owned(),
    }),
];

struct Scanner {
    visitor: Visitor,
    /// A sandbox keeps cookies; a mere fetcher keeps none.
    keeps_cookies: bool,
    left: VecDeque<String>,
    seen: BTreeSet<String>,
    pressed: BTreeSet<Button>,
}

impl Scanner {
    fn new(gateway: &Gateway, from: &str, keeps_cookies: bool, link: &str) -> Self {
        Self {
            visitor: Visitor::from(gateway.portal, from.parse().expect("an address")),
            keeps_cookies,
            left: VecDeque::from([link.to_owned()]),
            seen: BTreeSet::new(),
            pressed: BTreeSet::new(),
        }
    }
    /// Until there is nothing new.
    fn run(&mut self) {
        while let Some(path) = self.left.pop_front() {
            if !self.seen.insert(path.clone()) {
                continue;
            }
            let mut last = None;
            for _ in 0..FETCHES {
                for method in ["HEAD", "GET"] {
                    let page = self.visitor.send(method, &path);
                    assert!(page.status < 500, "{method} {path}: {}", page.status);
                    last = Some(page);
                    self.forget();
                }
            }
            self.look(&last.expect("fetched"));
        }
    }
    fn forget(&mut self) {
        if !self.keeps_cookies {
            self.visitor.forget();
        }
    }
    /// Follows what a page leads to, and presses what can be pressed.
    fn look(&mut self, page: &Page) {
        assert!(!page.text().contains("All is well"), "the message is not shown");
        assert!(!page.text().contains("Your results"), "nor its subject");
        if let Some(to) = page.headers.get("location") {
            self.left.push_back(to.clone());
        }
        let html = Html::parse_document(&page.text());
        self.left.extend(links_of(&html));
        for button in buttons_of(&html) {
            // The same button with other secrets (a passkey's challenge) is the same button.
            if self.pressed.insert(button.clone()) {
                self.press(&button);
            }
        }
    }
    fn press(&mut self, button: &Button) {
        for (how, hand) in HANDS {
            for _ in 0..PRESSES {
                let typed: Vec<_> =
                    button.fields.iter().map(|(n, v, t)| (n, hand(n, v, *t))).collect();
                let form: Vec<_> = typed.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                let page = if button.method == "post" {
                    self.visitor.post(&button.action, &form)
                } else {
                    let query = form.iter().map(|(n, v)| format!("{n}={}", v.replace(' ', "+")));
                    let query = query.collect::<Vec<_>>().join("&");
                    self.visitor.get(&format!("{}?{query}", button.action))
                };
                assert!(page.status < 500, "{} {how}: {}", button.action, page.status);
                self.look(&page);
                self.forget();
            }
        }
    }
}

/// All that must stay as it is.
fn state(house: &House, id: &str, accounts: &[&str]) -> Vec<Value> {
    let gateway = &house.gateway;
    let mut all = vec![
        gateway.json(&["vault", "list"]),
        gateway.json(&["vault", "show", id]),
        gateway.json(&["account", "list"]),
        gateway.json(&["trace", id])["recipients"].clone(),
    ];
    all.extend(accounts.iter().map(|who| gateway.json(&["account", "show", who])));
    all
}

/// Waits until all mail has left; checks that only codes went, to the reader, and not many. Gives
/// how many there are in all.
fn mailed(house: &House, before: usize) -> usize {
    wait_for("an empty queue", || {
        let queue = &house.gateway.json(&["status"])["queue"];
        (queue["active"] == 0 && queue["deferred"] == 0).then_some(())
    });
    let all = house.stranger.messages();
    let codes = all.get(before..).expect("mails");
    assert!(codes.len() <= MOST_CODES, "{} codes", codes.len());
    for mail in codes {
        assert_eq!(mail.to, [format!("<{ADA}>")]);
        code_in(&mail.content);
    }
    all.len()
}

fn scanned(house: &House, link: &str) {
    for (from, keeps_cookies) in [("127.0.0.2", false), ("127.0.0.3", true)] {
        let mut scanner = Scanner::new(&house.gateway, from, keeps_cookies, link);
        scanner.run();
        for path in ["/", "/login", "/reset", "/check", "/login?by=passkey"] {
            assert!(scanner.seen.contains(path), "{path} was not reached: {:?}", scanner.seen);
        }
        let actions: BTreeSet<_> = scanner.pressed.iter().map(|b| b.action.as_str()).collect();
        assert!(actions.is_superset(&["/check", "/login", "/reset"].into()), "{actions:?}");
        if keeps_cookies {
            assert!(actions.contains("/verify"), "a sandbox comes on to the code: {actions:?}");
        }
    }
}

fn scene(dir: &Path) -> (House, String, String) {
    let house = House::open(dir, &[], |_| {});
    let id = smtp::send(house.gateway.smtp, "doctor@example.org", &[ADA], MESSAGE);
    let link = link_in(&house.mail_to_stranger(1).content);
    (house, id, link)
}

#[test]
fn a_scanner_changes_nothing_before_the_first_visit() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (house, id, link) = scene(dir.path());
    let before = state(&house, &id, &[]);
    scanned(&house, &link);
    mailed(&house, 1);
    assert_eq!(state(&house, &id, &[]), before);
    let log = house.gateway.log_text();
    assert!(log.contains("a link was fetched"), "fetched is told");
    assert!(!log.contains("was opened by its recipient"), "apart from opened");

    let mut reader = Visitor::new(house.gateway.portal);
    let page = house.register(&mut reader, &house.mail_to_stranger(1), PASSWORD);
    assert!(reader.get(&page).text().contains("All is well"));
    let opened = house.gateway.json(&["vault", "show", &id]);
    assert_eq!(opened["recipients"][0]["state"], "opened");
    wait_for("the log", || {
        house.gateway.log_text().contains("was opened by its recipient").then_some(())
    });
}

#[test]
fn a_scanner_changes_nothing_for_a_reader_with_an_account() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (house, _, _) = scene(dir.path());
    let mut reader = Visitor::new(house.gateway.portal);
    house.register(&mut reader, &house.mail_to_stranger(1), PASSWORD);
    let so_far = house.stranger.messages().len();
    let id = smtp::send(house.gateway.smtp, "doctor@example.org", &[ADA], MESSAGE);
    let link = link_in(&house.mail_to_stranger(so_far + 1).content);
    let before = state(&house, &id, &[ADA]);
    scanned(&house, &link);
    let so_far = mailed(&house, so_far + 1);
    assert_eq!(state(&house, &id, &[ADA]), before);

    // Wrong passwords slow the account's password down, for half a minute at first; a mailed code
    // lets in at once, and a session that lives leads straight on.
    let mut other = Visitor::new(house.gateway.portal);
    let wrong = other.post("/login", &[("email", ADA), ("password", PASSWORD)]);
    let wait = wrong.headers.get("retry-after").map(|text| text.parse::<u32>().expect("seconds"));
    assert!(wrong.status == 303 || wait.is_some_and(|wait| wait <= 60), "{}", wrong.status);
    let token = link.rsplit('/').next().expect("a token");
    let asked = other.post("/login", &[("email", ADA), ("by", "code"), ("token", token)]);
    assert_eq!((asked.status, asked.location().as_str()), (303, "/verify"));
    let code = code_in(&house.mail_saying(so_far, "Your code for").content);
    let page = wait_for("the code's turn", || {
        // The sandbox has typed codes too: guesses at codes may have to wait a little.
        let answer = other.post("/verify", &[("code", &code)]);
        (answer.status == 303).then(|| answer.location())
    });
    assert!(other.get(&page).text().contains("All is well"));
    assert_eq!(reader.get(&link).location(), page);
    assert!(reader.get(&page).text().contains("All is well"));
}
