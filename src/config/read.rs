//! From the text of `restante.toml` to a [`Config`]: keys, types, ranges, and what is said when
//! they are wrong.

use super::{
    Config, Delivery, Dkim, Dns, Dnssec, Inside, KeyPair, KeySource, Log, Metrics, Notification,
    Oidc, Organization, Portal, Smtp, Vault,
};
use crate::{
    identity::SecondFactorRule,
    language::ENGLISH,
    mail::{Address, Domain},
    oidc::place_of,
    policy::{
        Code, Level, NextHop, Problem,
        rules::glob,
        toml_source::{Document, Entry, Section, choice, duration, show_size, size},
    },
    portal::Colour,
    seal::Suite,
    smtp::clients::ClientLimits,
};
use ipnet::IpNet;
use jiff::SignedDuration;
use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
};
use toml::de::{DeTable, DeValue};

const TOP: [&str; 13] = [
    "hostname",
    "data_dir",
    "policy_dir",
    "organization",
    "smtp",
    "inside",
    "dns",
    "delivery",
    "notification",
    "portal",
    "vault",
    "metrics",
    "log",
];
const ORGANIZATION: [&str; 7] =
    ["name", "domains", "postmaster", "support", "logo", "accent", "accent_dark"];
const SMTP: [&str; 19] = [
    "listen",
    "clients",
    "users",
    "certificate",
    "key",
    "require_tls",
    "max_message_size",
    "max_recipients",
    "max_connections",
    "max_connections_per_client",
    "max_connection_rate",
    "max_message_rate",
    "max_recipient_rate",
    "limit_exceptions",
    "max_errors",
    "idle_timeout",
    "max_session_time",
    "normalize",
    "xclient",
];
const INSIDE: [&str; 2] = ["host", "tls"];
const DNS: [&str; 3] = ["nameservers", "dnssec", "trust_anchor"];
const DELIVERY: [&str; 10] = [
    "port",
    "trust_anchors",
    "retry",
    "give_up",
    "warn_after",
    "connections_per_domain",
    "ipv6",
    "refuse_networks",
    "watch",
    "tls_reports",
];
const NOTIFICATION: [&str; 8] =
    ["from", "subject", "language", "template", "level", "note", "dkim", "sms"];
const DKIM: [&str; 3] = ["domain", "selector", "key"];
const PORTAL: [&str; 18] = [
    "listen",
    "url",
    "certificate",
    "key",
    "retention",
    "max_reply_size",
    "trusted_proxies",
    "max_connections",
    "max_connections_per_client",
    "min_rate",
    "refuse_files",
    "language",
    "languages",
    "second_factor",
    "code_sign_in",
    "terms_url",
    "privacy_url",
    "oidc",
];
/// Connections of one client to the portal: a clinic behind one address has many readers, and each
/// browser opens up to six.
const PLACES_PER_CLIENT: usize = 200;
/// Bytes a second, by default: the slowest mobile networks carry five times as much.
const LEAST_RATE: u64 = 1 << 10;
/// More a second is no least rate, but a ban of telephones.
const MOST_LEAST_RATE: u64 = 1 << 20;
const OIDC: [&str; 5] = ["name", "issuer", "client_id", "client_secret_file", "domains"];
/// Providers of identities at most: each is a button on the sign-in page.
const MOST_PROVIDERS: usize = 8;
/// Names of files that run when they are opened: hardly an inside host takes them, and its refusal
/// would come when the writer has left.
const REFUSED_FILES: [&str; 17] = [
    "*.bat", "*.cmd", "*.com", "*.cpl", "*.exe", "*.hta", "*.jar", "*.js", "*.jse", "*.lnk",
    "*.msi", "*.pif", "*.ps1", "*.scr", "*.vbe", "*.vbs", "*.wsf",
];
const VAULT: [&str; 4] = ["store", "objects", "keys", "suite"];
const METRICS: [&str; 1] = ["listen"];
const LOG: [&str; 2] = ["format", "level"];

const DNSSEC: [(&str, Dnssec); 3] =
    [("validate", Dnssec::Validate), ("trust-ad", Dnssec::TrustAd), ("off", Dnssec::Off)];
pub(super) const SUITES: [(&str, Suite); 2] =
    [("chacha20-poly1305", Suite::ChaCha20Poly1305), ("aes-256-gcm", Suite::Aes256Gcm)];
const SECOND_FACTOR: [(&str, SecondFactorRule); 3] = [
    ("optional", SecondFactorRule::Optional),
    ("required", SecondFactorRule::Required),
    ("off", SecondFactorRule::Off),
];
const LOG_LEVELS: [(&str, &str); 5] = [
    ("error", "error"),
    ("warn", "warn"),
    ("info", "info"),
    ("debug", "debug"),
    ("trace", "trace"),
];
/// Levels of `inside.tls`: what needs no MX, no pins and no envelope.
const OWN_LEVELS: [(&str, Level); 4] = [
    ("opportunistic", Level::Opportunistic),
    ("encrypt", Level::Encrypt),
    ("verify", Level::Verify),
    ("secure", Level::Secure),
];
/// Levels of notices and codes: those of `inside.tls`, and what the recipient's domain publishes.
const NOTICE_LEVELS: [(&str, Level); 5] = {
    let [opportunistic, encrypt, verify, secure] = OWN_LEVELS;
    [("published", Level::Published), opportunistic, encrypt, verify, secure]
};
const LARGEST_MESSAGE: u64 = 2 << 30;
const RETRY: [&str; 7] = ["1m", "5m", "15m", "30m", "1h", "2h", "4h"];
const REFUSED: [&str; 5] = ["127.0.0.0/8", "::1/128", "0.0.0.0/8", "169.254.0.0/16", "fe80::/10"];

/// Reads the text; all problems at once.
pub(super) fn read(text: &str, path: &Path, base: &Path) -> Result<Config, Vec<Problem>> {
    let name = path.display().to_string();
    let doc = Document::new(&name, text);
    let Some(table) = doc.parse() else { return Err(doc.into_problems()) };
    let config = Reading { doc: &doc, table: &table, base }.config(path);
    if config.is_none() {
        doc.error(0, "this machine has no usable name: write hostname = \"gw.example.org\"");
    }
    let problems = doc.into_problems();
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        Some(_) | None => Err(problems),
    }
}

struct Reading<'d, 't> {
    doc: &'d Document<'t>,
    table: &'d DeTable<'t>,
    base: &'d Path,
}

/// A section that may be missing: then every key has its default.
type Keys<'d, 't> = Option<Section<'d, 't>>;

impl<'d, 't> Reading<'d, 't> {
    fn config(&self, path: &Path) -> Option<Config> {
        let top = Some(Section::new(self.doc, self.table, 0, &TOP));
        let hostname = get(&top, "hostname").and_then(|e| e.parse(host_name));
        let hostname = hostname.or_else(own_name)?;
        let data_dir = self.path(&top, "data_dir").unwrap_or_else(|| self.base.join("data"));
        let portal = self.portal(&top);
        let notification = self.notification(&top, &hostname, &portal.language)?;
        Some(Config {
            file: Some(path.to_path_buf()),
            policy_dir: self.path(&top, "policy_dir").unwrap_or_else(|| self.base.join("policies")),
            organization: self.organization(&top, &hostname)?,
            smtp: self.smtp(&top),
            inside: self.inside(&top),
            dns: self.dns(&top),
            delivery: self.delivery(&top, notification.is_signed()),
            notification,
            portal,
            vault: self.vault(&top, &data_dir),
            metrics: metrics(&top),
            log: self.log(&top),
            hostname,
            data_dir,
        })
    }

    fn organization(&self, top: &Keys<'d, 't>, hostname: &Domain) -> Option<Organization> {
        let keys = section(top, "organization", &ORGANIZATION);
        let given = get(&keys, "postmaster").and_then(|e| e.parse(address));
        let postmaster = given.or_else(|| mailbox("postmaster", hostname))?;
        let support = filled(&keys, "support").and_then(|e| e.line().map(str::to_owned));
        Some(Organization {
            name: text(&keys, "name", "Restante"),
            domains: list(&keys, "domains", domain).unwrap_or_default(),
            support: support.unwrap_or_else(|| postmaster.to_string()),
            logo: self.path(&keys, "logo"),
            accent: filled(&keys, "accent").and_then(|e| e.parse(Colour::for_light)),
            accent_dark: filled(&keys, "accent_dark").and_then(|e| e.parse(Colour::for_dark)),
            postmaster,
        })
    }

    fn smtp(&self, top: &Keys<'d, 't>) -> Smtp {
        let keys = section(top, "smtp", &SMTP);
        not_yet(&keys, "users");
        not_yet(&keys, "xclient");
        let tls = self.key_pair(&keys);
        let require_tls = boolean(&keys, "require_tls", false);
        if let Some(entry) = get(&keys, "require_tls").filter(|_| require_tls && tls.is_none()) {
            entry.fail("nobody could send, as STARTTLS needs `certificate` and `key`: write both");
        }
        let max_connections = count(&keys, "max_connections", 1..=100_000, 1000);
        // No client, however broken, takes the places of all others.
        let half = max_connections.div_ceil(2);
        Smtp {
            listen: filled_list(&keys, "listen", socket(2525))
                .unwrap_or_else(|| vec![SocketAddr::from(([127, 0, 0, 1], 2525))]),
            clients: list(&keys, "clients", network)
                .unwrap_or_else(|| networks(&["127.0.0.0/8", "::1/128"])),
            tls,
            require_tls,
            // RFC 5321 §4.5.3.1.7: a message of 64 KiB must be possible.
            max_message_size: bounded_size(&keys, "max_message_size", 64 << 10),
            max_recipients: count(&keys, "max_recipients", 1..=100_000, 1000),
            limits: ClientLimits {
                connections: max_connections,
                connections_per_client: count(
                    &keys,
                    "max_connections_per_client",
                    0..=100_000,
                    half,
                ),
                connection_rate: number(&keys, "max_connection_rate", 0..=1_000_000, 0),
                message_rate: number(&keys, "max_message_rate", 0..=1_000_000, 0),
                recipient_rate: number(&keys, "max_recipient_rate", 0..=1_000_000, 0),
            },
            limit_exceptions: list(&keys, "limit_exceptions", network).unwrap_or_default(),
            max_errors: number(&keys, "max_errors", 1..=10_000, 20),
            idle_timeout: time(&keys, "idle_timeout", SignedDuration::from_mins(5)),
            max_session_time: time(&keys, "max_session_time", SignedDuration::from_hours(1)),
            normalize: list(&keys, "normalize", network).unwrap_or_default(),
        }
    }

    fn inside(&self, top: &Keys<'d, 't>) -> Inside {
        let keys = section(top, "inside", &INSIDE);
        let host = get(&keys, "host").and_then(|e| e.parse(|text| text.parse::<NextHop>()));
        let own = || NextHop { host: "127.0.0.1".to_owned(), mx: false, port: Some(25) };
        Inside {
            // No MX look-up, with or without brackets.
            host: host.map_or_else(own, |hop| NextHop { mx: false, ..hop }),
            tls: own_level(&keys, "tls", &OWN_LEVELS),
        }
    }

    fn dns(&self, top: &Keys<'d, 't>) -> Dns {
        let keys = section(top, "dns", &DNS);
        let dnssec = get(&keys, "dnssec").and_then(|e| e.parse(|t| choice(t, &DNSSEC)));
        let dnssec = dnssec.unwrap_or(Dnssec::Validate);
        let servers = |entry: Entry<'d, 't>| {
            let servers = entry.list(name_server)?;
            if dnssec == Dnssec::TrustAd {
                not_here(entry, &servers);
            }
            Some(servers.into_iter().map(|(_, server)| server).collect())
        };
        Dns {
            nameservers: get(&keys, "nameservers").and_then(servers).unwrap_or_default(),
            dnssec,
            trust_anchor: self.path(&keys, "trust_anchor"),
        }
    }

    /// Reports by mail must be signed (RFC 8460 §3), so without a key of their `From` they are
    /// asked for or not sent.
    fn delivery(&self, top: &Keys<'d, 't>, signed: bool) -> Delivery {
        let keys = section(top, "delivery", &DELIVERY);
        let usual = || RETRY.iter().filter_map(|text| duration(text).ok()).collect();
        Delivery {
            port: number(&keys, "port", 1..=65_535, 25),
            trust_anchors: self.path(&keys, "trust_anchors"),
            retry: filled_list(&keys, "retry", some_time).unwrap_or_else(usual),
            give_up: time(&keys, "give_up", SignedDuration::from_hours(5 * 24)),
            warn_after: time(&keys, "warn_after", SignedDuration::from_hours(4)),
            connections_per_domain: count(&keys, "connections_per_domain", 1..=10_000, 20),
            ipv6: boolean(&keys, "ipv6", true),
            refuse_networks: list(&keys, "refuse_networks", network)
                .unwrap_or_else(|| networks(&REFUSED)),
            watch: get(&keys, "watch")
                .and_then(|entry| entry.parse(interval))
                .map_or(Some(SignedDuration::from_hours(6)), |time| {
                    Some(time).filter(|t| !t.is_zero())
                }),
            tls_reports: boolean(&keys, "tls_reports", signed),
        }
    }

    /// `usual`: the portal's language.
    fn notification(
        &self,
        top: &Keys<'d, 't>,
        hostname: &Domain,
        usual: &str,
    ) -> Option<Notification> {
        let keys = section(top, "notification", &NOTIFICATION);
        let dkim = keys.as_ref().map(|keys| keys.sections("dkim", &DKIM)).unwrap_or_default();
        let from = get(&keys, "from").and_then(|e| e.parse(address));
        Some(Notification {
            from: from.or_else(|| mailbox("secure", hostname))?,
            subject: text(&keys, "subject", Notification::SUBJECT),
            language: text(&keys, "language", usual),
            template: self.path(&keys, "template"),
            level: own_level(&keys, "level", &NOTICE_LEVELS),
            note: filled(&keys, "note").and_then(|e| e.parse(note_field)),
            dkim: dkim.into_iter().filter_map(|entry| self.dkim(entry)).collect(),
            sms: filled(&keys, "sms").and_then(|e| e.parse(sms_url)),
        })
    }

    fn dkim(&self, entry: Section<'d, 't>) -> Option<Dkim> {
        for key in DKIM {
            if entry.get(key).is_none_or(|entry| entry.is_empty()) {
                let text = format!("`dkim` needs `{key}`: write {{ domain, selector, key }}");
                entry.doc().error(entry.at(), text);
            }
        }
        let keys = Some(entry);
        Some(Dkim {
            domain: filled(&keys, "domain")?.parse(host_name)?,
            selector: filled(&keys, "selector")?.parse(selector)?,
            key: self.path(&keys, "key")?,
        })
    }

    fn portal(&self, top: &Keys<'d, 't>) -> Portal {
        let keys = section(top, "portal", &PORTAL);
        let listen = get(&keys, "listen").and_then(|e| e.parse(socket(8080)));
        let listen = listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080)));
        let tls = self.key_pair(&keys);
        let url = get(&keys, "url").and_then(|e| e.parse(portal_url));
        let oidc = keys.as_ref().map(|keys| keys.sections("oidc", &OIDC)).unwrap_or_default();
        let max_connections = count(&keys, "max_connections", 1..=100_000, 2000);
        Portal {
            listen,
            url: url.unwrap_or_else(|| own_url(listen, tls.is_some())),
            tls,
            retention: time(&keys, "retention", SignedDuration::from_hours(30 * 24)),
            max_reply_size: bounded_size(&keys, "max_reply_size", 1 << 10),
            trusted_proxies: list(&keys, "trusted_proxies", network).unwrap_or_default(),
            max_connections,
            max_connections_per_client: count(
                &keys,
                "max_connections_per_client",
                0..=100_000,
                max_connections.min(PLACES_PER_CLIENT),
            ),
            min_rate: get(&keys, "min_rate").and_then(|e| e.parse(rate)).unwrap_or(LEAST_RATE),
            refuse_files: list(&keys, "refuse_files", glob)
                .unwrap_or_else(|| REFUSED_FILES.map(str::to_owned).to_vec()),
            language: text(&keys, "language", ENGLISH),
            languages: self.paths(&keys, "languages"),
            second_factor: get(&keys, "second_factor")
                .and_then(|e| e.parse(|t| choice(t, &SECOND_FACTOR)))
                .unwrap_or_default(),
            code_sign_in: boolean(&keys, "code_sign_in", true),
            terms_url: page_url(&keys, "terms_url"),
            privacy_url: page_url(&keys, "privacy_url"),
            oidc: self.providers(&keys, oidc),
        }
    }

    fn providers(&self, keys: &Keys<'d, 't>, entries: Vec<Section<'d, 't>>) -> Vec<Oidc> {
        if entries.len() > MOST_PROVIDERS {
            missing(keys, "oidc", "more than 8 providers: each is a button, write fewer");
        }
        let mut providers: Vec<Oidc> = Vec::new();
        for entry in entries.into_iter().take(MOST_PROVIDERS) {
            let at = entry.at();
            let Some(provider) = self.provider(entry) else { continue };
            if providers.iter().any(|other| other.name == provider.name) {
                let text = format!("two providers are called {}: write two names", provider.name);
                self.doc.error(at, text);
            }
            providers.push(provider);
        }
        providers
    }

    fn provider(&self, entry: Section<'d, 't>) -> Option<Oidc> {
        let (needed, _) = OIDC.split_at_checked(4)?;
        for &key in needed {
            if entry.get(key).is_none_or(|entry| entry.is_empty()) {
                let text = format!(
                    "`oidc` needs `{key}`: write name, issuer, client_id and client_secret_file"
                );
                entry.doc().error(entry.at(), text);
            }
        }
        let keys = Some(entry);
        Some(Oidc {
            name: filled(&keys, "name")?.parse(provider_name)?,
            issuer: filled(&keys, "issuer")?.parse(issuer)?,
            client_id: filled(&keys, "client_id")?.line()?.to_owned(),
            client_secret_file: self.path(&keys, "client_secret_file")?,
            domains: list(&keys, "domains", domain).unwrap_or_default(),
        })
    }

    fn vault(&self, top: &Keys<'d, 't>, data_dir: &Path) -> Vault {
        let keys = section(top, "vault", &VAULT);
        not_yet(&keys, "objects");
        if let Some(entry) = get(&keys, "store") {
            entry.parse(|text| match text {
                "sled" => Ok(()),
                _ if text.starts_with("postgres://") => {
                    Err("a PostgreSQL store is not yet supported: write \"sled\"".to_owned())
                }
                _ => Err("not a store: write \"sled\"".to_owned()),
            });
        }
        let suite = get(&keys, "suite").and_then(|e| e.parse(|t| choice(t, &SUITES)));
        Vault {
            keys: self.key_source(&keys).unwrap_or_else(|| KeySource::File(data_dir.join("keys"))),
            suite: suite.unwrap_or_default(),
        }
    }

    fn key_source(&self, keys: &Keys<'d, 't>) -> Option<KeySource> {
        let entry = get(keys, "keys")?;
        if entry.line()?.is_empty() {
            return None;
        }
        entry.parse(|text| key_source(text, self.base))
    }

    fn log(&self, top: &Keys<'d, 't>) -> Log {
        let keys = section(top, "log", &LOG);
        let formats = [("text", false), ("json", true)];
        let json = get(&keys, "format").and_then(|e| e.parse(|t| choice(t, &formats)));
        let level = get(&keys, "level").and_then(|e| e.parse(|t| choice(t, &LOG_LEVELS)));
        Log { json: json.unwrap_or(false), level: level.unwrap_or("info").to_owned() }
    }

    /// A path relative to the file; empty is none.
    fn path(&self, keys: &Keys<'d, 't>, key: &'static str) -> Option<PathBuf> {
        let entry = get(keys, key)?;
        let text = entry.line()?;
        (!text.is_empty()).then(|| self.base.join(text))
    }

    /// Paths relative to the file.
    fn paths(&self, keys: &Keys<'d, 't>, key: &'static str) -> Vec<PathBuf> {
        let some = |text: &str| {
            if text.trim().is_empty() {
                return Err("an empty path: write the name of a file".to_owned());
            }
            Ok(self.base.join(text))
        };
        list(keys, key, some).unwrap_or_default()
    }

    fn key_pair(&self, keys: &Keys<'d, 't>) -> Option<KeyPair> {
        let (certificate, key) = (self.path(keys, "certificate"), self.path(keys, "key"));
        match (certificate, key) {
            (Some(certificate), Some(key)) => Some(KeyPair { certificate, key }),
            (Some(_), None) => {
                missing(keys, "certificate", "needs `key` beside it: write the file of its key");
                None
            }
            (None, Some(_)) => {
                missing(keys, "key", "needs `certificate` beside it: write the file of its chain");
                None
            }
            (None, None) => None,
        }
    }
}

fn section<'d, 't>(top: &Keys<'d, 't>, key: &'static str, known: &[&str]) -> Keys<'d, 't> {
    top.as_ref()?.section(key, known)
}

fn get<'d, 't>(keys: &Keys<'d, 't>, key: &'static str) -> Option<Entry<'d, 't>> {
    keys.as_ref()?.get(key)
}

fn filled<'d, 't>(keys: &Keys<'d, 't>, key: &'static str) -> Option<Entry<'d, 't>> {
    get(keys, key).filter(|entry| !entry.is_empty())
}

/// A key of a later version: its empty default is fine, of a text or a list; anything more is
/// refused.
fn not_yet(keys: &Keys<'_, '_>, key: &'static str) {
    if let Some(entry) = filled(keys, key) {
        match entry.value() {
            DeValue::String(_) | DeValue::Array(_) => entry.not_yet(),
            DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Table(_) => entry.fail("not a text or list, and not yet supported"),
        }
    }
}

/// Notes what an entry lacks beside it, unless it is wrong itself already.
fn missing(keys: &Keys<'_, '_>, key: &'static str, says: &str) {
    if let Some(entry) = get(keys, key) {
        entry.fail(says);
    }
}

fn metrics(top: &Keys<'_, '_>) -> Metrics {
    let keys = section(top, "metrics", &METRICS);
    Metrics { listen: filled(&keys, "listen").and_then(|entry| entry.parse(socket(9090))) }
}

fn text(keys: &Keys<'_, '_>, key: &'static str, default: &str) -> String {
    let Some(entry) = get(keys, key) else { return default.to_owned() };
    let text = entry.line().map(str::trim);
    if text == Some("") {
        entry.fail("empty: write a text, or leave the key out");
    }
    text.unwrap_or(default).to_owned()
}

fn boolean(keys: &Keys<'_, '_>, key: &'static str, default: bool) -> bool {
    get(keys, key).and_then(|entry| entry.boolean()).unwrap_or(default)
}

/// A whole number; `range` lies within the type.
fn number<T: TryFrom<u64>>(
    keys: &Keys<'_, '_>,
    key: &'static str,
    range: RangeInclusive<u64>,
    default: T,
) -> T {
    let value = get(keys, key).and_then(|entry| entry.integer(range));
    value.and_then(|n| n.try_into().ok()).unwrap_or(default)
}

fn count(
    keys: &Keys<'_, '_>,
    key: &'static str,
    range: RangeInclusive<u64>,
    default: usize,
) -> usize {
    number(keys, key, range, default)
}

fn time(keys: &Keys<'_, '_>, key: &'static str, default: SignedDuration) -> SignedDuration {
    get(keys, key).and_then(|entry| entry.parse(some_time)).unwrap_or(default)
}

/// A time that is not zero.
fn some_time(text: &str) -> Result<SignedDuration, String> {
    let time = duration(text)?;
    if time.is_zero() {
        return Err(format!("`{text}` is no time at all: write at least \"1s\""));
    }
    Ok(time)
}

/// How often partners are looked at: not at all, or at a pace that is no burden to them.
fn interval(text: &str) -> Result<SignedDuration, String> {
    let time = duration(text)?;
    if time.is_zero() || time >= SignedDuration::from_mins(1) {
        return Ok(time);
    }
    Err(format!("`{text}` is too often: write at least \"1m\", or \"0s\" for never"))
}

/// A size of at least `least`, up to the largest message.
fn bounded_size(keys: &Keys<'_, '_>, key: &'static str, least: u64) -> u64 {
    let within = |text: &str| {
        let bytes = size(text)?;
        if (least..=LARGEST_MESSAGE).contains(&bytes) {
            return Ok(bytes);
        }
        let least = show_size(least);
        Err(format!("`{text}` is out of range: write \"{least}\" to \"2 GiB\""))
    };
    get(keys, key).and_then(|e| e.parse(within)).unwrap_or(50 << 20)
}

/// A least rate; 0 is none.
fn rate(text: &str) -> Result<u64, String> {
    let bytes = size(text)?;
    if bytes > MOST_LEAST_RATE {
        return Err(format!("`{text}` a second is out of range: write \"0 B\" to \"1 MiB\""));
    }
    Ok(bytes)
}

fn list<T>(
    keys: &Keys<'_, '_>,
    key: &'static str,
    parser: impl Fn(&str) -> Result<T, String>,
) -> Option<Vec<T>> {
    let values = get(keys, key)?.list(parser)?;
    Some(values.into_iter().map(|(_, value)| value).collect())
}

fn filled_list<T>(
    keys: &Keys<'_, '_>,
    key: &'static str,
    parser: impl Fn(&str) -> Result<T, String>,
) -> Option<Vec<T>> {
    let values = list(keys, key, parser)?;
    if values.is_empty() {
        missing(keys, key, "an empty list: write at least one, or leave the key out");
    }
    Some(values)
}

/// One of `levels`; the first where the key is not there.
fn own_level<const N: usize>(
    keys: &Keys<'_, '_>,
    key: &'static str,
    levels: &'static [(&str, Level); N],
) -> Level {
    let level = |text: &str| {
        if text == "none" || text == "fingerprint" {
            return Err(format!("level `{text}` is not yet supported here"));
        }
        choice(text, levels)
    };
    let default = levels.first().map_or(Level::Opportunistic, |(_, level)| *level);
    get(keys, key).and_then(|e| e.parse(level)).unwrap_or(default)
}

fn domain(text: &str) -> Result<Domain, String> {
    text.parse().map_err(|error| format!("`{text}` is no domain ({error}): write \"example.org\""))
}

fn host_name(text: &str) -> Result<Domain, String> {
    let name = domain(text)?;
    if name.literal().is_some() {
        return Err(format!("`{text}` is an address: write a name, \"gw.example.org\""));
    }
    Ok(name)
}

/// RFC 6376 §3.1: what stands before `._domainkey.` in DNS.
fn selector(text: &str) -> Result<String, String> {
    match text.parse::<Domain>() {
        Ok(name) if name.literal().is_none() => Ok(name.as_str().to_owned()),
        Ok(_) | Err(_) => Err(format!("`{text}` is no selector: write \"gw2026\"")),
    }
}

/// A field whose words are shown in the clear: one that nobody fills but for this (RFC 5322 §2.2 has
/// what may stand in a name).
fn note_field(text: &str) -> Result<String, String> {
    let own = text.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("X-"));
    let sane = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    if own && (3..=64).contains(&text.len()) && text.bytes().all(sane) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "`{text}` is no field for a note, which goes out in the clear: write the name of a field of \
         your own that begins with X-, as in \"X-Secure-Note\""
    ))
}

fn address(text: &str) -> Result<Address, String> {
    text.parse().map_err(|error| {
        format!("`{text}` is no address ({error}): write \"postmaster@example.org\"")
    })
}

/// An address with a port; where only a port is given, it is kept in what is said.
fn socket(usual: u16) -> impl Fn(&str) -> Result<SocketAddr, String> {
    move |text| {
        text.parse().map_err(|_| {
            let port = text.trim_start_matches(':').parse().unwrap_or(usual);
            format!(
                "`{text}` is no address with a port: write \"127.0.0.1:{port}\" or \"[::1]:{port}\""
            )
        })
    }
}

/// `ADDR:PORT`; without a port it is 53.
fn name_server(text: &str) -> Result<SocketAddr, String> {
    let bare = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
    bare.or_else(|_| text.parse())
        .map_err(|_| format!("`{text}` is no name server: write \"127.0.0.1:53\" or \"[::1]:53\""))
}

/// AD is worth nothing from a name server elsewhere (RFC 6840 §5.8): whoever is on the way can set
/// it, so such levels would wait for ever.
fn not_here(entry: Entry<'_, '_>, servers: &[(usize, SocketAddr)]) {
    for (at, server) in servers.iter().filter(|(_, s)| !s.ip().to_canonical().is_loopback()) {
        let text = format!(
            "dnssec = \"trust-ad\" believes a resolver on this host alone, and {server} is not: \
             write \"127.0.0.1:53\" for a validating resolver here, or dnssec = \"validate\""
        );
        entry.note_at(Code::INVALID_VALUE, *at, text);
    }
}

/// A network, or one address. Bits beyond the prefix mean that one of the two was meant: say which.
fn network(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    let net: IpNet = text.parse().map_err(|_| {
        format!("`{text}` is no network: write \"10.0.0.0/8\" or \"2001:db8::/32\"")
    })?;
    if net.trunc() == net {
        return Ok(net);
    }
    Err(format!(
        "`{text}` has bits beyond its prefix: write \"{}\" or \"{}\"",
        net.trunc(),
        net.addr()
    ))
}

fn networks(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// What links start with: https, save on loopback; no query, no fragment, no trailing slash.
fn portal_url(text: &str) -> Result<String, String> {
    let wrong =
        || format!("`{text}` is no address of a portal: write \"https://mail.example.org\"");
    let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
    let authority = rest.split('/').next().unwrap_or_default();
    let bad = |c: char| !c.is_ascii_graphic() || "?#@\\\"<>`{}|^".contains(c);
    if rest.contains(bad) || authority.is_empty() {
        return Err(wrong());
    }
    let host = url_host(authority).ok_or_else(wrong)?;
    match scheme {
        "https" => {}
        "http" if is_loopback(host) => {}
        "http" => {
            return Err(format!(
                "`{text}` would show links to everybody: write \"https://{rest}\""
            ));
        }
        _ => return Err(wrong()),
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// A page of the house that the portal links to; empty: none.
fn page_url(keys: &Keys<'_, '_>, key: &'static str) -> String {
    let Some(entry) = get(keys, key) else { return String::new() };
    let parse = |text: &str| match url::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "https" | "http") => Ok(url.to_string()),
        _ if text.is_empty() => Ok(String::new()),
        _ => Err(format!(
            "`{text}` is no address of a page: write \"https://www.example.org/terms\""
        )),
    };
    entry.parse(parse).unwrap_or_default()
}

/// Where text messages are handed in: https, save on loopback.
fn sms_url(text: &str) -> Result<String, String> {
    let example = "write \"https://sms.example.org/send\"; http is for a service on loopback";
    portal_url(text).map_err(|_| format!("`{text}` can't be where texts are sent from: {example}"))
}

/// What a button says.
fn provider_name(text: &str) -> Result<String, String> {
    let name = text.trim();
    if name.is_empty() || name.chars().count() > 40 || name.chars().any(char::is_control) {
        return Err(format!("`{text}` is no name for a button: write \"Google\""));
    }
    Ok(name.to_owned())
}

/// An issuer as it stands in its tokens (`OpenID` Connect Discovery 1.0, section 3): https, no
/// query, no fragment; kept letter by letter, for it is compared so.
fn issuer(text: &str) -> Result<String, String> {
    // Microsoft's shared addresses issue nothing themselves: tokens come from a tenant's, and
    // whoever makes a tenant may say in it what they like.
    let shared = ["/common", "/organizations", "/consumers", "{"];
    if text.contains("login.microsoftonline.com") && shared.iter().any(|part| text.contains(part)) {
        return Err(format!(
            "`{text}` stands for many issuers: write that of one tenant, \
             \"https://login.microsoftonline.com/TENANT-ID/v2.0\""
        ));
    }
    match place_of(text) {
        Some(_) if !text.contains(['?', '{']) => Ok(text.to_owned()),
        Some(_) | None => {
            Err(format!("`{text}` is no issuer: write \"https://accounts.google.com\""))
        }
    }
}

/// The host of `host`, `host:port` or `[v6]:port`, if host and port can be such.
fn url_host(authority: &str) -> Option<&str> {
    let port_is_fine = |rest: &str| {
        rest.is_empty() || rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
    };
    if let Some(inner) = authority.strip_prefix('[') {
        let (host, rest) = inner.split_once(']')?;
        return (host.parse::<std::net::Ipv6Addr>().is_ok() && port_is_fine(rest)).then_some(host);
    }
    let end = authority.find(':').unwrap_or(authority.len());
    let (host, rest) = authority.split_at_checked(end)?;
    let named = host.parse::<IpAddr>().is_ok() || host.parse::<Domain>().is_ok();
    (named && port_is_fine(rest)).then_some(host)
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Where no url is given, links lead to the listener itself; beyond loopback nobody could know its
/// name.
fn own_url(listen: SocketAddr, tls: bool) -> String {
    let scheme = if tls { "https" } else { "http" };
    if listen.ip().is_loopback() {
        format!("{scheme}://{listen}")
    } else {
        format!("{scheme}://127.0.0.1:{}", listen.port())
    }
}

/// A mailbox of our own, for keys that name none.
fn mailbox(local: &str, hostname: &Domain) -> Option<Address> {
    format!("{local}@{hostname}").parse().ok()
}

/// The machine's own name.
fn own_name() -> Option<Domain> {
    let system = rustix::system::uname();
    let name = system.nodename().to_str().ok().and_then(|name| host_name(name).ok());
    name.or_else(|| host_name("localhost.localdomain").ok())
}

/// A file, or where else the key ring comes from.
fn key_source(text: &str, base: &Path) -> Result<KeySource, String> {
    if let Some(name) = text.strip_prefix("credential:") {
        let sound = !name.is_empty() && !name.contains('/') && !name.starts_with('.');
        let wrong = || "a credential's name, as in \"credential:keys\", has no slash".to_owned();
        return sound.then(|| KeySource::Credential(name.to_owned())).ok_or_else(wrong);
    }
    let Some(command) = text.strip_prefix("command:") else {
        return Ok(KeySource::File(base.join(text)));
    };
    let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
    if words.first().is_some_and(|program| program.starts_with('/')) {
        return Ok(KeySource::Command(words));
    }
    Err("a command begins with a whole path: write \"command:/usr/bin/PROGRAM ARGUMENT\""
        .to_owned())
}

#[cfg(test)]
mod tests;
