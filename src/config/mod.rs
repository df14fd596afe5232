//! `restante.toml`, parsed once into values that are right.

mod read;
mod show;

use crate::{
    identity::SecondFactorRule,
    mail::{Address, Domain},
    policy::{Level, NextHop, Problem},
    portal::Colour,
    seal::Suite,
    smtp::clients::ClientLimits,
};
use ipnet::IpNet;
use jiff::SignedDuration;
use std::{
    fmt,
    fs::File,
    io::{self, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// No configuration is longer than this; what is, is some other file.
const MAX_BYTES: u64 = 1 << 20;

/// The whole configuration. Paths are absolute or relative to the current directory already.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it was read from; `None`: there was none, defaults apply.
    pub file: Option<PathBuf>,
    /// `hostname`
    pub hostname: Domain,
    /// `data_dir`
    pub data_dir: PathBuf,
    /// `policy_dir`
    pub policy_dir: PathBuf,
    /// `[organization]`
    pub organization: Organization,
    /// `[smtp]`
    pub smtp: Smtp,
    /// `[inside]`
    pub inside: Inside,
    /// `[dns]`
    pub dns: Dns,
    /// `[delivery]`
    pub delivery: Delivery,
    /// `[notification]`
    pub notification: Notification,
    /// `[portal]`
    pub portal: Portal,
    /// `[vault]`
    pub vault: Vault,
    /// `[metrics]`
    pub metrics: Metrics,
    /// `[log]`
    pub log: Log,
}
/// `[organization]`
#[derive(Debug, Clone)]
pub struct Organization {
    /// `name`
    pub name: String,
    /// `domains`
    pub domains: Vec<Domain>,
    /// `postmaster`
    pub postmaster: Address,
    /// `support`
    pub support: String,
    /// `logo`: a picture file.
    pub logo: Option<PathBuf>,
    /// `accent`: the colour of links and buttons.
    pub accent: Option<Colour>,
    /// `accent_dark`: the same on dark pages.
    pub accent_dark: Option<Colour>,
}
/// PEM chain and key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// `certificate`
    pub certificate: PathBuf,
    /// `key`
    pub key: PathBuf,
}
/// `[smtp]`
#[derive(Debug, Clone)]
pub struct Smtp {
    /// `listen`
    pub listen: Vec<SocketAddr>,
    /// `clients`
    pub clients: Vec<IpNet>,
    /// `certificate` and `key`
    pub tls: Option<KeyPair>,
    /// `require_tls`
    pub require_tls: bool,
    /// `max_message_size`
    pub max_message_size: u64,
    /// `max_recipients`
    pub max_recipients: usize,
    /// `max_connections`, `max_connections_per_client`, `max_connection_rate`, `max_message_rate`,
    /// `max_recipient_rate`
    pub limits: ClientLimits,
    /// `limit_exceptions`
    pub limit_exceptions: Vec<IpNet>,
    /// `max_errors`
    pub max_errors: u32,
    /// `idle_timeout`
    pub idle_timeout: SignedDuration,
    /// `max_session_time`
    pub max_session_time: SignedDuration,
    /// `normalize`
    pub normalize: Vec<IpNet>,
}
/// `[inside]`
#[derive(Debug, Clone)]
pub struct Inside {
    /// `host`
    pub host: NextHop,
    /// `tls`
    pub tls: Level,
}
/// How DNSSEC is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dnssec {
    /// Not at all.
    Off,
    /// By a validating resolver on this host, whose AD bit is believed.
    TrustAd,
    /// Here.
    Validate,
}
/// `[dns]`
#[derive(Debug, Clone)]
pub struct Dns {
    /// `nameservers`
    pub nameservers: Vec<SocketAddr>,
    /// `dnssec`
    pub dnssec: Dnssec,
    /// `trust_anchor`
    pub trust_anchor: Option<PathBuf>,
}
/// `[delivery]`
#[derive(Debug, Clone)]
pub struct Delivery {
    /// `port`
    pub port: u16,
    /// `trust_anchors`
    pub trust_anchors: Option<PathBuf>,
    /// `retry`
    pub retry: Vec<SignedDuration>,
    /// `give_up`
    pub give_up: SignedDuration,
    /// `warn_after`
    pub warn_after: SignedDuration,
    /// `connections_per_domain`
    pub connections_per_domain: usize,
    /// `ipv6`
    pub ipv6: bool,
    /// `refuse_networks`
    pub refuse_networks: Vec<IpNet>,
    /// `watch`; `None`: off
    pub watch: Option<SignedDuration>,
    /// `tls_reports`; where it is not given: whether such reports can be signed.
    pub tls_reports: bool,
}
/// `[notification]`
#[derive(Debug, Clone)]
pub struct Notification {
    /// `from`
    pub from: Address,
    /// `subject`; as long as it is [`Notification::SUBJECT`], it is in the notice's own language.
    pub subject: String,
    /// `language`: of notices to those whose own is not known; where it is not given, the portal's.
    pub language: String,
    /// `template`
    pub template: Option<PathBuf>,
    /// `level`
    pub level: Level,
    /// `note`: the field with the sender's own words for the notice, which travel in the clear.
    pub note: Option<String>,
    /// `dkim`
    pub dkim: Vec<Dkim>,
    /// `sms`: the service that sends text messages.
    pub sms: Option<String>,
}

impl Notification {
    /// The default of `subject`.
    pub const SUBJECT: &str = "You have a secure message from {organization}";
    /// The subject that the operator wrote.
    pub fn own_subject(&self) -> Option<&str> {
        Some(self.subject.as_str()).filter(|subject| *subject != Self::SUBJECT)
    }
    /// True if mail from `from` leaves signed: only a key of that very domain does it.
    pub fn is_signed(&self) -> bool {
        self.dkim.iter().any(|key| key.domain == *self.from.domain())
    }
}
/// An entry of `notification.dkim`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dkim {
    /// `domain`
    pub domain: Domain,
    /// `selector`
    pub selector: String,
    /// `key`: a PEM file.
    pub key: PathBuf,
}
/// `[portal]`
#[derive(Debug, Clone)]
pub struct Portal {
    /// `listen`
    pub listen: SocketAddr,
    /// `url`, without a trailing slash
    pub url: String,
    /// `certificate` and `key`
    pub tls: Option<KeyPair>,
    /// `retention`
    pub retention: SignedDuration,
    /// `max_reply_size`
    pub max_reply_size: u64,
    /// `trusted_proxies`
    pub trusted_proxies: Vec<IpNet>,
    /// `max_connections`
    pub max_connections: usize,
    /// `max_connections_per_client`; 0: no limit
    pub max_connections_per_client: usize,
    /// `min_rate`: bytes a second; 0: no limit
    pub min_rate: u64,
    /// `refuse_files`: patterns, lower case.
    pub refuse_files: Vec<String>,
    /// `language`: of who asks for none.
    pub language: String,
    /// `languages`: catalogues besides the built-in ones.
    pub languages: Vec<PathBuf>,
    /// `second_factor`
    pub second_factor: SecondFactorRule,
    /// `code_sign_in`: a mailed code alone signs in.
    pub code_sign_in: bool,
    /// `terms_url`, empty: none.
    pub terms_url: String,
    /// `privacy_url`, empty: none.
    pub privacy_url: String,
    /// `oidc`
    pub oidc: Vec<Oidc>,
}
/// An entry of `portal.oidc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oidc {
    /// `name`: what the button says.
    pub name: String,
    /// `issuer`, letter by letter
    pub issuer: String,
    /// `client_id`
    pub client_id: String,
    /// `client_secret_file`
    pub client_secret_file: PathBuf,
    /// `domains`: whose addresses it may speak for; empty: any that it has verified.
    pub domains: Vec<Domain>,
}
/// `[vault]`
#[derive(Debug, Clone)]
pub struct Vault {
    /// Where the key ring comes from.
    pub keys: KeySource,
    /// What new bodies are sealed with.
    pub suite: Suite,
}
/// `vault.keys`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A file.
    File(PathBuf),
    /// `credential:NAME`: a file of that name in systemd's `$CREDENTIALS_DIRECTORY`.
    Credential(String),
    /// `command:/PATH ARGUMENT…`: what that program prints.
    Command(Vec<String>),
}
impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Credential(name) => write!(f, "credential:{name}"),
            Self::Command(words) => write!(f, "command:{}", words.join(" ")),
        }
    }
}
/// `[metrics]`
#[derive(Debug, Clone)]
pub struct Metrics {
    /// `listen`
    pub listen: Option<SocketAddr>,
}
/// `[log]`
#[derive(Debug, Clone)]
pub struct Log {
    /// `format = "json"`
    pub json: bool,
    /// `level`
    pub level: String,
}

/// Why there is no configuration: exit 78.
#[derive(Debug)]
pub enum ConfigError {
    /// The file can't be read.
    Unreadable(PathBuf, io::Error),
    /// What is wrong in it, each with file, line and column.
    Problems(Vec<Problem>),
}
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => write!(f, "{}: error: {error}", path.display()),
            Self::Problems(problems) => {
                let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
        }
    }
}
impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable(_, error) => Some(error),
            Self::Problems(_) => None,
        }
    }
}

impl Config {
    /// Reads the configuration: the file given, else `$RESTANTE_CONFIG`, else `./restante.toml`,
    /// else `/etc/restante/restante.toml`, else the defaults. A file that was named must be there.
    pub fn load(explicit: Option<&Path>) -> Result<Self, ConfigError> {
        let named = std::env::var_os("RESTANTE_CONFIG").filter(|v| !v.is_empty());
        let named = explicit.map(Path::to_path_buf).or_else(|| named.map(PathBuf::from));
        Self::find(named, &["restante.toml", "/etc/restante/restante.toml"].map(PathBuf::from))
    }

    fn find(named: Option<PathBuf>, usual: &[PathBuf]) -> Result<Self, ConfigError> {
        if let Some(path) = named {
            return Self::open(&path);
        }
        for path in usual {
            match Self::open(path) {
                Err(ConfigError::Unreadable(_, error))
                    if error.kind() == io::ErrorKind::NotFound => {}
                found => return found,
            }
        }
        Self::parse("", Path::new("(defaults)"), Path::new(""))
            .map(|config| Self { file: None, ..config })
    }

    fn open(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |error| ConfigError::Unreadable(path.to_path_buf(), error);
        let mut text = String::new();
        let file = File::open(path).map_err(unreadable)?;
        file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > MAX_BYTES {
            return Err(unreadable(io::Error::other("larger than 1 MiB: no configuration")));
        }
        let base = path.parent().unwrap_or_else(|| Path::new(""));
        Self::parse(&text, path, base)
    }

    /// Parses a configuration text. `path` names it in problems; relative paths in it stand
    /// relative to `base`. Besides the text it reads this machine's name, for `hostname`.
    pub fn parse(text: &str, path: &Path, base: &Path) -> Result<Self, ConfigError> {
        read::read(text, path, base).map_err(ConfigError::Problems)
    }

    /// The effective configuration as `restante.toml`; it reads back to the same.
    pub fn to_toml(&self) -> String {
        show::to_toml(self)
    }

    /// The effective configuration as JSON, with the names of `restante.toml`.
    pub fn to_json(&self) -> serde_json::Value {
        show::to_json(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_must_be_there_and_usual_ones_need_not() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("none.toml");
        let error = Config::find(Some(missing.clone()), &[]).unwrap_err();
        assert!(error.to_string().starts_with(&format!("{}: error: ", missing.display())));
        let config = Config::find(None, &[missing]).unwrap();
        assert_eq!((config.file, config.data_dir), (None, PathBuf::from("data")));
    }

    #[test]
    fn the_first_usual_file_counts_and_its_paths_stand_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = ["a.toml", "b.toml"].map(|name| folder.path().join(name));
        std::fs::write(&first, "data_dir = \"d\"\n[vault]\nkeys = \"k/ring\"\n").unwrap();
        std::fs::write(&second, "zzz = 1\n").unwrap();
        let usual = [first.clone(), second.clone()];
        let config = Config::find(None, &usual).unwrap();
        assert_eq!(config.file, Some(first));
        assert_eq!(config.data_dir, folder.path().join("d"));
        assert_eq!(config.vault.keys, KeySource::File(folder.path().join("k/ring")));
        let error = Config::find(Some(second.clone()), &usual).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}:1:1: error: unknown key `zzz`", second.display())));
    }

    #[test]
    fn a_file_beyond_bounds_or_not_text_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in [("big", vec![b'#'; 1 + (1 << 20)]), ("binary", vec![0xff, 0xfe])] {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let error = Config::find(Some(path), &[]).unwrap_err();
            assert!(matches!(error, ConfigError::Unreadable(..)), "{name}");
        }
    }
}
