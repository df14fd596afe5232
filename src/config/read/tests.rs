//! Configuration texts, good and bad, and what is said of them.

use super::*;

fn parse(text: &str) -> Result<Config, Vec<String>> {
    let parsed = read(text, Path::new("r.toml"), Path::new("/etc/restante"));
    parsed.map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

/// The whole of the manual's example, as an admin may copy it.
const MANUAL: &str = r#"
hostname   = "gw.example.org"
data_dir   = "data"
policy_dir = "policies"
[organization]
name       = "Example Health"
domains    = ["example.org"]
postmaster = "postmaster@example.org"
support    = "helpdesk@example.org"
[smtp]
listen           = ["127.0.0.1:2525"]
clients          = ["127.0.0.0/8", "::1/128"]
users            = ""
certificate      = ""
key              = ""
require_tls      = false
max_message_size = "50 MiB"
max_recipients   = 1000
max_connections  = 1000
max_connections_per_client = 500
max_connection_rate = 0
max_message_rate = 0
max_recipient_rate = 0
limit_exceptions = []
max_errors       = 20
idle_timeout     = "5m"
max_session_time = "1h"
normalize        = []
xclient          = []
[inside]
host = "127.0.0.1:25"
tls  = "opportunistic"
[dns]
nameservers = []
dnssec      = "validate"
trust_anchor = ""
[delivery]
port        = 25
trust_anchors = ""
retry       = ["1m", "5m", "15m", "30m", "1h", "2h", "4h"]
give_up     = "5d"
warn_after  = "4h"
connections_per_domain = 20
ipv6        = true
refuse_networks = ["127.0.0.0/8", "::1/128", "0.0.0.0/8", "169.254.0.0/16", "fe80::/10"]
watch       = "6h"
tls_reports = false
[notification]
from        = "secure@example.org"
subject     = "You have a secure message from {organization}"
template    = ""
level       = "published"
note        = ""
dkim        = []
[portal]
listen      = "127.0.0.1:8080"
url         = "http://127.0.0.1:8080"
certificate = ""
key         = ""
retention   = "30d"
max_reply_size = "50 MiB"
[vault]
store   = "sled"
objects = ""
keys    = ""
[metrics]
listen  = ""
[log]
format  = "text"
level   = "info"
"#;

#[test]
fn the_manual_holds_the_defaults() {
    let manual = parse(MANUAL).unwrap();
    let mut own = parse("hostname = \"gw.example.org\"\n").unwrap();
    // The only lines of the manual that name an organisation.
    own.organization = manual.organization.clone();
    own.notification.from = manual.notification.from.clone();
    assert_eq!(own.to_toml(), manual.to_toml());
    assert_eq!(own.to_json(), manual.to_json());
}

#[test]
fn without_a_word_everything_has_a_value() {
    let config = parse("").unwrap();
    let host = config.hostname.as_str();
    assert!(!host.is_empty());
    assert_eq!(config.organization.postmaster.to_string(), format!("postmaster@{host}"));
    assert_eq!(config.organization.support, format!("postmaster@{host}"));
    assert_eq!(config.notification.from.to_string(), format!("secure@{host}"));
    assert_eq!(config.data_dir, Path::new("/etc/restante/data"));
    assert_eq!(config.vault.keys, KeySource::File("/etc/restante/data/keys".into()));
    assert_eq!(config.inside.host.to_string(), "[127.0.0.1]:25");
    assert_eq!(config.smtp.listen, ["127.0.0.1:2525".parse().unwrap()]);
    assert_eq!(config.portal.url, "http://127.0.0.1:8080");
    assert_eq!(config.portal.max_reply_size, 50 << 20);
    assert!(config.portal.trusted_proxies.is_empty());
    assert_eq!(config.portal.max_connections, 2000);
    assert_eq!((config.portal.max_connections_per_client, config.portal.min_rate), (200, 1024));
    assert!(config.portal.refuse_files.contains(&"*.exe".to_owned()));
    assert_eq!(config.delivery.retry.len(), 7);
    assert_eq!(config.delivery.refuse_networks.len(), 5);
}

#[test]
fn values_arrive() {
    let text = r#"
data_dir = "/srv/mail"
[smtp]
listen = ["0.0.0.0:25", "[::]:25"]
clients = ["10.1.2.3", "2001:db8::/32"]
certificate = "tls/chain.pem"
key = "tls/key.pem"
require_tls = true
max_message_size = "2 GiB"
max_connections = 25
max_message_rate = 600
limit_exceptions = ["10.1.2.3"]
normalize = ["192.0.2.0/24"]
[inside]
host = "mail.example.org"
tls = "verify"
[dns]
nameservers = ["127.0.0.1:5353", "::1"]
dnssec = "off"
trust_anchor = "root.ds"
[delivery]
trust_anchors = "ca.pem"
retry = ["2s"]
refuse_networks = []
[portal]
url = "https://mail.example.org/secure/"
retention = "1w"
max_reply_size = "1 GiB"
refuse_files = ["*.EXE"]
[log]
format = "json"
"#;
    let config = parse(text).unwrap();
    let file = |name: &str| Path::new("/etc/restante").join(name);
    assert_eq!(config.vault.keys, KeySource::File("/srv/mail/keys".into()));
    assert_eq!(
        config.smtp.clients,
        [network("10.1.2.3/32").unwrap(), network("2001:db8::/32").unwrap()]
    );
    let (certificate, key) = (file("tls/chain.pem"), file("tls/key.pem"));
    assert_eq!(config.smtp.tls, Some(KeyPair { certificate, key }));
    assert!(config.smtp.require_tls && config.log.json);
    assert_eq!(config.smtp.max_message_size, 2 << 30);
    let limits = config.smtp.limits;
    assert_eq!((limits.connections, limits.connections_per_client), (25, 13), "half of them");
    assert_eq!((limits.connection_rate, limits.message_rate), (0, 600));
    assert_eq!(config.smtp.limit_exceptions, [network("10.1.2.3/32").unwrap()]);
    assert_eq!((config.inside.host.mx, config.inside.tls), (false, Level::Verify));
    assert_eq!(config.dns.nameservers.iter().map(SocketAddr::port).collect::<Vec<_>>(), [5353, 53]);
    assert_eq!(config.dns.dnssec, Dnssec::Off);
    assert_eq!(config.dns.trust_anchor, Some(file("root.ds")));
    assert_eq!(config.delivery.trust_anchors, Some(file("ca.pem")));
    assert_eq!(config.delivery.retry, [SignedDuration::from_secs(2)]);
    assert!(config.delivery.refuse_networks.is_empty());
    assert_eq!(config.portal.url, "https://mail.example.org/secure");
    assert_eq!(config.portal.retention, SignedDuration::from_hours(7 * 24));
    assert_eq!(config.portal.max_reply_size, 1 << 30);
    assert_eq!(config.portal.refuse_files, ["*.exe"]);
}

#[test]
fn a_provider_of_identities_arrives_and_is_shown() {
    let text = r#"
[[portal.oidc]]
name = "Clinic account"
issuer = "https://id.example.org/realms/a/"
client_id = "restante"
client_secret_file = "oidc.secret"
domains = ["Clinic.Example"]
"#;
    let config = parse(text).unwrap();
    let oidc = Oidc {
        name: "Clinic account".to_owned(),
        issuer: "https://id.example.org/realms/a/".to_owned(),
        client_id: "restante".to_owned(),
        client_secret_file: Path::new("/etc/restante/oidc.secret").to_owned(),
        domains: vec!["clinic.example".parse().unwrap()],
    };
    assert_eq!(config.portal.oidc, std::slice::from_ref(&oidc), "the issuer letter by letter");
    assert_eq!(parse(&config.to_toml()).unwrap().portal.oidc, [oidc], "as it is shown");
}

#[test]
fn providers_of_identities_are_named_whole_and_once() {
    let entry = |name: &str, issuer: &str| {
        format!(
            "[[portal.oidc]]\nname = {name:?}\nissuer = {issuer:?}\nclient_id = \"c\"\n\
             client_secret_file = \"s\"\n"
        )
    };
    let google = "https://accounts.google.com";
    assert_eq!(parse(&entry("Google", google)).unwrap().portal.oidc.len(), 1);
    let rows = [
        ("[[portal.oidc]]\nname = \"a\"".to_owned(), "`oidc` needs `issuer`"),
        (entry("", google), "`oidc` needs `name`"),
        (entry("Google", google).repeat(2), "two providers are called Google"),
        ((0..9).map(|n| entry(&n.to_string(), google)).collect(), "more than 8 providers"),
        (entry("a", "http://id.example.org"), "no issuer: write \"https://accounts.google.com\""),
        (entry("a", "id.example.org"), "no issuer"),
        (entry("a", "https://id.example.org?x=y"), "no issuer"),
        (entry("a", "https://login.microsoftonline.com/common/v2.0"), "that of one tenant"),
        (entry("a", "https://login.microsoftonline.com/{tenantid}/v2.0"), "that of one tenant"),
        ("[portal]\noidc = \"Google\"".to_owned(), "is a list of tables"),
    ];
    for (text, expected) in rows {
        let error = parse(&text).unwrap_err().join("\n");
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn reports_on_tls_are_sent_where_they_can_be_signed() {
    let key = "dkim = [{ domain = \"x.example\", selector = \"S1\", key = \"k.pem\" }]\n";
    let (dkim, below) = (
        &*format!("from = \"secure@x.example\"\n{key}"),
        &*format!("from = \"secure@gw.x.example\"\n{key}"),
    );
    for (delivery, dkim, sent, reason) in [
        ("", "", false, "RFC 8460 §3: a report by mail must be signed"),
        ("", dkim, true, "it can be"),
        ("", below, false, "a key signs for its own domain alone"),
        ("", key, false, "and the usual `from` is at the host's name"),
        ("tls_reports = false", dkim, false, "not wanted"),
        ("tls_reports = true", "", true, "wanted, by HTTPS"),
    ] {
        let text = format!("[delivery]\n{delivery}\n[notification]\n{dkim}");
        let config = parse(&text).unwrap();
        assert_eq!(config.delivery.tls_reports, sent, "{reason}");
        if let [entry] = config.notification.dkim.as_slice() {
            let key = Path::new("/etc/restante/k.pem").to_owned();
            let domain = "x.example".parse().unwrap();
            assert_eq!(*entry, Dkim { domain, selector: "s1".to_owned(), key });
        }
    }
}

#[test]
fn what_is_shown_reads_back() {
    for text in [
        "",
        MANUAL,
        "[smtp]\ncertificate = \"a\"\nkey = \"b\"\n[organization]\nname = 'O\"Neil \\ Söhne'\n",
        "[notification]\ndkim = [{ domain = \"x.example\", selector = \"s\", key = \"k.pem\" }]\n",
        "[portal]\nlisten = \"[::1]:9000\"\ncertificate = \"a\"\nkey = \"b\"\n[inside]\nhost = \"[2001:db8::1]:25\"\n",
    ] {
        let shown = parse(text).unwrap().to_toml();
        let again = parse(&shown).unwrap_or_else(|p| panic!("{p:#?}\n{shown}"));
        assert_eq!(again.to_toml(), shown);
    }
}

/// What an admin may get wrong, and what is said.
const WRONG: &[(&str, &str)] = &[
    ("hostnme = \"x\"", "r.toml:1:1: error: unknown key `hostnme`; did you mean `hostname`?"),
    ("[smpt]\nlisten = []", "r.toml:1:2: error: unknown key `smpt`; did you mean `smtp`?"),
    ("[smtp]\nlistn = []", "r.toml:2:1: error: unknown key `listn`; did you mean `listen`?"),
    ("hostname = 3", "r.toml:1:12: error: key `hostname`: a number where a text"),
    ("hostname = \"[192.0.2.1]\"", "is an address: write a name"),
    ("hostname = \"a b\"", "no domain"),
    ("hostname = ", "r.toml:1:12: error: not TOML"),
    ("smtp = 1", "r.toml:1:1: error: `smtp` is a table, not a number: write [smtp]"),
    ("[[smtp]]", "write [smtp]"),
    ("[smtp]\nlisten = []", "r.toml:2:10: error: key `listen`: an empty list"),
    (
        "[smtp]\nlisten = [\"2525\"]",
        "r.toml:2:11: error: key `listen`: `2525` is no address with a port",
    ),
    ("[smtp]\nlisten = \"127.0.0.1:25\"", "a text where a list"),
    ("[smtp]\nclients = [\"10.0.0.1/8\"]", "write \"10.0.0.0/8\" or \"10.0.0.1\""),
    ("[smtp]\nclients = [\"all\"]", "no network"),
    ("[smtp]\nrequire_tls = \"yes\"", "true or false belongs"),
    ("[smtp]\nrequire_tls = true", "nobody could send"),
    ("[smtp]\ncertificate = \"c.pem\"", "needs `key` beside it"),
    ("[portal]\nkey = \"k.pem\"", "needs `certificate` beside it"),
    (
        "[smtp]\nmax_message_size = \"3 GiB\"",
        "r.toml:2:20: error: key `max_message_size`: `3 GiB` is out of range",
    ),
    ("[smtp]\nmax_message_size = 52428800", "a number where a text"),
    ("[smtp]\nmax_recipients = 0", "write 1 to 100000"),
    ("[smtp]\nmax_errors = -1", "out of range"),
    ("[smtp]\nidle_timeout = \"0s\"", "no time at all"),
    ("[smtp]\nusers = \"users\"", "r.toml:2:1: error: key `users` is not yet supported"),
    ("[smtp]\nxclient = [\"10.0.0.0/8\"]", "key `xclient` is not yet"),
    ("[inside]\ntls = \"none\"", "not yet"),
    ("[inside]\ntls = \"dane\"", "`dane` is not known"),
    ("[inside]\nhost = \"a b\"", "no next hop"),
    ("[dns]\nnameservers = [\"localhost:53\"]", "no name server"),
    ("[dns]\ndnssec = \"yes\"", "known here: validate, trust-ad, off"),
    ("[dns]\ntrust_anchor = [\"root.key\"]", "a list where a text"),
    ("[delivery]\nport = 0", "write 1 to 65535"),
    ("[delivery]\nport = 65536", "write 1 to 65535"),
    ("[delivery]\nretry = []", "an empty list"),
    ("[delivery]\nretry = [\"1m\", \"0s\"]", "r.toml:2:16: error: key `retry`: `0s`"),
    ("[delivery]\ngive_up = \"5 days\"", "no time"),
    ("[delivery]\nwatch = \"30s\"", "too often: write at least \"1m\", or \"0s\" for never"),
    ("[notification]\nfrom = \"secure\"", "no address"),
    ("[notification]\nsubject = \"a\\nb\"", "one line"),
    ("[notification]\nsubject = \"\"", "empty"),
    ("[notification]\nlevel = \"envelope\"", "`envelope` is not known"),
    ("[inside]\ntls = \"published\"", "`published` is not known"),
    ("[notification]\nsms = \"http://sms.example.org/\"", "http is for a service on loopback"),
    ("[notification]\nsms = \"sms.example.org\"", "can't be where texts are sent from"),
    (
        "[notification]\nnote = \"Subject\"",
        "`Subject` is no field for a note, which goes out in the",
    ),
    ("[notification]\nnote = \"From\"", "that begins with X-, as in \"X-Secure-Note\""),
    ("[notification]\nnote = \"X-\"", "`X-` is no field for a note"),
    ("[notification]\nnote = \"X-Note:\"", "`X-Note:` is no field for a note"),
    (
        "[notification]\ndkim = [{ domain = \"x.example\", selector = \"s\" }]",
        "r.toml:2:9: error: `dkim` needs `key`",
    ),
    (
        "[notification]\ndkim = [{ domain = \"x.example\", selector = \"a b\", key = \"k\" }]",
        "key `selector`: `a b` is no selector",
    ),
    (
        "[notification]\ndkim = [{ domain = \"x.example\", selector = \"s\", key = \"k\", domian = 1 }]",
        "unknown key `domian`; did you mean `domain`?",
    ),
    ("[notification]\ndkim = \"k.pem\"", "is a list of tables: write [[notification.dkim]]"),
    ("[delivery]\ntls_reports = \"yes\"", "true or false belongs"),
    ("[portal]\nurl = \"http://mail.example.org\"", "write \"https://mail.example.org\""),
    ("[portal]\nurl = \"mail.example.org\"", "no address of a portal"),
    ("[portal]\nurl = \"ftp://mail.example.org\"", "no address of a portal"),
    ("[portal]\nurl = \"https://\"", "no address of a portal"),
    ("[portal]\nurl = \"https://a.example?x\"", "no address of a portal"),
    ("[portal]\nurl = \"https://u@a.example\"", "no address of a portal"),
    ("[portal]\nurl = \"http://127.0.0.1.evil.example\"", "would show links"),
    ("[portal]\nmax_reply_size = \"3 GiB\"", "2 GiB"),
    ("[portal]\ntrusted_proxies = [\"10.0.0.1/8\"]", "write \"10.0.0.0/8\""),
    ("[portal]\ntrusted_proxies = [\"proxy.example\"]", "no network"),
    ("[portal]\nmax_connections = 0", "1 to 100000"),
    ("[portal]\nmin_rate = \"2 MiB\"", "\"0 B\" to \"1 MiB\""),
    ("[portal]\nmin_rate = 1024", "min_rate"),
    ("[portal]\nmax_reply_size = \"1 B\"", "\"1 KiB\" to"),
    ("[portal]\nrefuse_files = [\"a/b\"]", "no file name pattern"),
    ("[vault]\nstore = \"postgres://h/db\"", "not yet"),
    ("[vault]\nstore = \"sqlite\"", "not a store"),
    ("[vault]\nkeys = \"credential:a/b\"", "has no slash"),
    ("[vault]\nkeys = \"credential:\"", "credential:keys"),
    ("[vault]\nkeys = \"command:kms get\"", "whole path"),
    ("[vault]\nobjects = \"s3://b/p\"", "not yet"),
    ("[metrics]\nlisten = \"9090\"", "r.toml:2:10: error: key `listen`"),
    ("[metrics]\nlisten = \"9091\"", "write \"127.0.0.1:9091\" or \"[::1]:9091\""),
    ("[metrics]\nlisten = \"localhost\"", "write \"127.0.0.1:9090\""),
    ("[portal]\nlisten = \":https\"", "write \"127.0.0.1:8080\""),
    ("[smtp]\nlisten = [\"*:25\"]", "write \"127.0.0.1:2525\""),
    ("[log]\nformat = \"xml\"", "known here: text, json"),
    ("[log]\nlevel = \"inf\"", "did you mean `info`"),
];

#[test]
fn what_is_wrong_is_named_with_its_place() {
    for (text, says) in WRONG {
        let found = parse(text).unwrap_err();
        assert_eq!(found.len(), 1, "{text:?}: {found:#?}");
        assert!(found[0].contains(says), "{text:?}: {says}\n{}", found[0]);
    }
}

#[test]
fn trust_ad_takes_no_name_server_that_is_elsewhere() {
    for (servers, places) in [
        ("[]", vec![]),
        ("[\"127.0.0.1\", \"127.9.9.9:5353\", \"[::1]:53\", \"[::ffff:127.0.0.1]:53\"]", vec![]),
        ("[\"192.0.2.53\"]", vec!["r.toml:3:16"]),
        ("[\"127.0.0.1\", \"[2001:db8::53]:53\"]", vec!["r.toml:3:29"]),
    ] {
        let text = |dnssec| format!("[dns]\ndnssec = \"{dnssec}\"\nnameservers = {servers}\n");
        let found = parse(&text("trust-ad")).err().unwrap_or_default();
        let at: Vec<_> = found.iter().map(|l| l.split(": ").next().unwrap()).collect();
        assert_eq!(at, places, "{servers}: {found:#?}");
        assert!(found.iter().all(|l| l.contains("or dnssec = \"validate\"")), "{found:#?}");
        for dnssec in ["validate", "off"] {
            assert!(parse(&text(dnssec)).is_ok(), "{dnssec}: {servers}");
        }
    }
}

#[test]
fn all_problems_are_shown_at_once() {
    let text = "hostnme = 1\n[smtp]\nlisten = 1\n[log]\nlevel = \"x\"\n";
    let lines: Vec<String> = parse(text).unwrap_err();
    let places: Vec<_> = lines.iter().map(|l| l.split(": ").next().unwrap()).collect();
    assert_eq!(places, ["r.toml:1:1", "r.toml:3:10", "r.toml:5:9"]);
}

#[test]
fn loopback_may_do_without_https() {
    for url in [
        "http://127.0.0.1:8080",
        "http://[::1]:8080/",
        "http://localhost",
        "http://127.9.9.9/mail",
        "https://mail.example.org",
        "https://mail.example.org:8443/a/b/",
    ] {
        let config = parse(&format!("[portal]\nurl = \"{url}\"\n")).unwrap();
        assert_eq!(config.portal.url, url.trim_end_matches('/'));
    }
}

#[test]
fn the_key_ring_is_a_file_a_credential_or_a_command() {
    let keys = |text: &str| parse(&format!("[vault]\nkeys = \"{text}\"")).unwrap().vault.keys;
    assert_eq!(keys("ring"), KeySource::File("/etc/restante/ring".into()));
    assert_eq!(keys("credential:ring"), KeySource::Credential("ring".to_owned()));
    let command = KeySource::Command(vec!["/bin/kms".to_owned(), "get".to_owned()]);
    assert_eq!(keys("command:/bin/kms  get"), command);
    assert_eq!(keys(&command.to_string()), command, "config show shows what may be written");
}
