//! The usual scene: a gateway, its zone, a stranger's mail host, an inside host.

use super::{
    dns::Zone,
    free_port,
    gateway::{Gateway, Settings},
    http::Visitor,
    pki::Pki,
    sink::{Manner, Received, Sink},
    wait_for,
};
use std::path::Path;

/// Addresses of loopback on which mail hosts of one port live.
pub const PARTNER: &str = "127.0.20.11";
pub const STRANGER: &str = "127.0.20.21";
pub const INSIDE: &str = "127.0.20.31";

/// A partner at level `secure`; everybody else gets an envelope.
pub const PARTNER_FILE: (&str, &str) = (
    "partner.toml",
    "[[partner]]\ndomains = [\"partner.test\"]\nlevel = \"secure\"\nmatch = [\"mx.partner.test\"]\n",
);

/// The scene. The partner's host is the test's own affair.
#[derive(Debug)]
pub struct House {
    pub gateway: Gateway,
    pub zone: Zone,
    pub stranger: Sink,
    pub inside: Sink,
    pub pki: Pki,
    pub port: u16,
}

impl House {
    /// Starts everything in `dir`; `adjust` may change the settings first.
    pub fn open(dir: &Path, policies: &[(&str, &str)], adjust: impl FnOnce(&mut Settings)) -> Self {
        Self::receiving(dir, Manner::default(), policies, adjust)
    }

    /// The same with an inside host of another manner.
    pub fn receiving(
        dir: &Path,
        manner: Manner,
        policies: &[(&str, &str)],
        adjust: impl FnOnce(&mut Settings),
    ) -> Self {
        let port = free_port(&[PARTNER, STRANGER, INSIDE]);
        let at = |host: &str| format!("{host}:{port}").parse().expect("address");
        let pki = Pki::new(dir);
        let zone = Zone::start();
        zone.mail("partner.test", &[(10, "mx.partner.test", PARTNER)]);
        zone.mail("stranger.test", &[(10, "mx.stranger.test", STRANGER)]);
        let stranger = Sink::start(at(STRANGER), Manner::default());
        let inside = Sink::start(at(INSIDE), manner);
        let mut settings = Settings {
            nameserver: Some(zone.address),
            mx_port: port,
            anchors: Some(pki.anchors.clone()),
            inside: Some(inside.address),
            ..Settings::default()
        };
        adjust(&mut settings);
        let gateway = Gateway::start(&dir.join("gateway"), &settings, policies);
        Self { gateway, zone, stranger, inside, pki, port }
    }

    pub fn partner_address(&self) -> std::net::SocketAddr {
        format!("{PARTNER}:{}", self.port).parse().expect("address")
    }

    /// Waits for the stranger's `n`th mail.
    pub fn mail_to_stranger(&self, n: usize) -> Received {
        wait_for("mail at the stranger's", || self.stranger.messages().get(n - 1).cloned())
    }

    /// Waits for a mail to the stranger that comes after the first `seen` and says this.
    pub fn mail_saying(&self, seen: usize, words: &str) -> Received {
        wait_for(words, || {
            let mails = self.stranger.messages();
            let said = |mail: &&Received| unfold_quoted_printable(&mail.content).contains(words);
            mails.iter().skip(seen).find(said).cloned()
        })
    }

    /// Registers through the notice's link; the visitor ends up signed in. Returns the message's
    /// path.
    pub fn register(&self, visitor: &mut Visitor, notice: &Received, password: &str) -> String {
        let link = link_in(&notice.content);
        let token = link.rsplit('/').next().expect("a token").to_owned();
        assert_eq!(visitor.get(&format!("/m/{token}")).status, 200);
        let before = self.stranger.messages().len();
        let sent = visitor.post(
            "/register",
            &[
                ("token", &token),
                ("first_name", "Ada"),
                ("last_name", "Reader"),
                ("password", password),
                ("password_confirm", password),
                ("accept_terms", "on"),
            ],
        );
        assert_eq!(sent.status, 303, "{}", sent.text());
        let mail = self.mail_to_stranger(before + 1);
        let shown = visitor.post("/verify", &[("code", &code_in(&mail.content))]);
        assert_eq!(shown.status, 303, "{}", shown.text());
        shown.location()
    }
}

/// The path of the pickup link in a notice.
pub fn link_in(notice: &[u8]) -> String {
    let text = unfold_quoted_printable(notice);
    let at = text.find("/m/").unwrap_or_else(|| panic!("no link in {text}"));
    let token: String = text[at + 3..]
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        .collect();
    assert_eq!(token.len(), 43, "a token of 43 characters in {text}");
    format!("/m/{token}")
}

/// The code of a code mail: eight digits, or where many wrong ones were typed a long one.
pub fn code_in(mail: &[u8]) -> String {
    let text = unfold_quoted_printable(mail);
    let body = text.split_once("\r\n\r\n").expect("a body").1;
    assert!(!text.contains("/m/"), "a code mail holds no link");
    let long = |line: &str| line.len() == 16 && line.bytes().all(|b| b.is_ascii_alphanumeric());
    let short = |line: &str| line.len() == 8 && line.bytes().all(|b| b.is_ascii_digit());
    let mut codes = body.lines().map(str::trim).filter(|line| short(line) || long(line));
    codes.next().unwrap_or_else(|| panic!("no code in {body}")).to_owned()
}

fn unfold_quoted_printable(mail: &[u8]) -> String {
    String::from_utf8_lossy(mail).replace("=\r\n", "").replace("=3D", "=")
}
