//! What may be typed.

use crate::{
    language,
    mail::{Address, Domain, QueueId},
    store::AuditKind,
};
use clap::{Args, Parser, Subcommand};
use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use std::{net::IpAddr, path::PathBuf};

const CONFIG_HELP: &str = "Configuration file; otherwise $RESTANTE_CONFIG, ./restante.toml, \
    /etc/restante/restante.toml, or defaults";
const EXIT_HELP: &str = "Exit codes: 0 done; 1 the answer is no, or problems were found; 64 usage; \
    65 bad data; 69 server not reachable, or a port is taken; 75 try again; 77 not permitted; \
    78 bad configuration.";

const ORDER_HELP: &str = "Exit codes: 0 done; 1 no such message, or nothing to do; 75 some recipients \
    are being delivered at this moment and stay as they are: try again.";

/// The smarthost for outbound mail that must not travel in the open.
///
/// Restante seals every message as it arrives. Recipients at a TLS partner get it directly, over a
/// connection that proved itself at the level their policy file asks; everyone else gets a
/// notification and reads it at the portal.
#[derive(Debug, Parser)]
#[command(name = "restante", version, propagate_version = true, max_term_width = 100)]
#[command(after_long_help = EXIT_HELP)]
pub struct Cli {
    /// Configuration file.
    #[arg(long, global = true, value_name = "FILE", help = CONFIG_HELP)]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway in the foreground
    ///
    /// Prints `ready smtp=ADDR portal=ADDR` once every listener is bound. SIGTERM or SIGINT drains
    /// and exits 0; SIGHUP reloads policies, certificates and key ring.
    Serve,
    /// Show the whole way of a message, on loopback, with nothing set up
    ///
    /// Starts a throwaway gateway with its own DNS, a TLS partner and a stranger; sends two real
    /// messages, shows what arrived where, and prints a pickup link to open in a browser.
    Demo {
        /// Check every claim, then exit: 0 if all hold
        #[arg(long)]
        once: bool,
    },
    /// Listeners, queue, vault, policies, last failures by domain
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// The queue
    #[command(subcommand)]
    Queue(Queue),
    /// The life of a message: every decision and every attempt
    Trace {
        /// A queue id, a Message-ID or an address
        query: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Sealed messages waiting for pickup
    #[command(subcommand)]
    Vault(Vault),
    /// Recipients' accounts at the portal
    #[command(subcommand)]
    Account(Account),
    /// The audit trail: what happened at accounts and with messages kept for pickup
    #[command(subcommand)]
    Audit(Audit),
    /// The clock that expiry goes by
    #[command(subcommand)]
    Clock(Clock),
    /// The key ring that every message is sealed under
    #[command(subcommand)]
    Keys(Keys),
    /// How TLS went with each domain, by day: what reports to them say (RFC 8460)
    #[command(name = "tls-report")]
    TlsReport {
        /// Of this day (UTC) only, as 2026-11-25
        #[arg(long, value_name = "DATE", value_parser = day)]
        day: Option<Date>,
        /// Of this domain only
        #[arg(long, value_parser = domain)]
        domain: Option<Domain>,
        /// Print JSON: the report of each domain and day
        #[arg(long)]
        json: bool,
    },
    /// Policy files
    #[command(subcommand)]
    Policy(Policy),
    /// The configuration
    #[command(subcommand)]
    Config(Config),
    /// Print a completion script
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
    /// Write the man pages into a folder
    Man {
        /// The folder
        dir: PathBuf,
    },
}

/// `restante queue`
#[derive(Debug, Subcommand)]
pub enum Queue {
    /// Messages with a recipient that still waits, in order of arrival
    List {
        /// Only those that arrived after this one
        #[arg(long, value_name = "ID")]
        after: Option<String>,
        /// So many messages at most
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// One message, recipient by recipient
    Show {
        /// Queue id
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Due now: try what waits at once
    ///
    /// What is held stays held: release it first.
    Retry(Meant),
    /// Set aside: no attempts until it is released
    ///
    /// Held mail does not expire and nobody is warned of it.
    Hold(Meant),
    /// Let what was held go on
    ///
    /// It is due when it would have been; `retry` tries it at once.
    Release(Meant),
    /// Take recipients out of the queue for good
    ///
    /// Nobody is told unless `--report` is given. What was sealed for pickup already is no more in
    /// the queue, and stays.
    Remove {
        /// Send the sender a failure report
        #[arg(long)]
        report: bool,
        /// Which
        #[command(flatten)]
        meant: Meant,
    },
}

/// Which recipients: those of the named messages, or those for whom every option holds.
#[derive(Debug, Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("meant").required(true).multiple(true))]
#[command(after_long_help = ORDER_HELP)]
pub struct Meant {
    /// Queue ids
    #[arg(value_name = "ID", group = "meant", conflicts_with_all = ["domain", "sender", "older_than", "all"])]
    pub ids: Vec<String>,
    /// Recipients in this domain
    #[arg(long, group = "meant")]
    pub domain: Option<Domain>,
    /// Recipients of mail from this sender
    #[arg(long, value_name = "ADDRESS", group = "meant")]
    pub sender: Option<Address>,
    /// Recipients of mail that arrived longer ago than this: 12h, 3d
    #[arg(long, value_name = "TIME", group = "meant", value_parser = time)]
    pub older_than: Option<SignedDuration>,
    /// All that have not come to an end
    #[arg(long, group = "meant", conflicts_with_all = ["domain", "sender"])]
    pub all: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `restante vault`
#[derive(Debug, Subcommand)]
pub enum Vault {
    /// Messages that wait for pickup, and whether they were opened
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// For whom one message is kept, until when, and whether it was opened
    Show {
        /// Queue id
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Keep a message longer
    ///
    /// The time is added to that of every recipient who may still open it.
    Extend {
        /// Queue id
        id: String,
        /// How much longer: 12h, 30d
        #[arg(value_name = "DURATION", value_parser = time)]
        by: SignedDuration,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take a message back: nobody can open it any more
    ///
    /// Its key is destroyed once no recipient is left who may open it. What was delivered directly,
    /// or was read and kept, can't be taken back.
    Recall {
        /// Queue id
        id: String,
        /// From this recipient only
        #[arg(long, value_name = "ADDRESS")]
        recipient: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write a message as it came in to stdout
    ///
    /// The log says that it was done.
    Export {
        /// Queue id
        id: String,
    },
    /// Domains whose line is in doubt: since when, and why
    ///
    /// There a level was not met, and no delivery has proved its host since: a mailed code neither
    /// signs in nor resets, and opens no message.
    Doubts {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// End the doubt about the line to a domain
    ///
    /// For a line that is sound again where no delivery will prove it, because the domain's policy
    /// entry was taken away for instance. Mailed codes sign in and reset there again. Messages that
    /// were sealed in the doubt go on asking for more, and a level that is not met later brings it
    /// back. The log says which user did it.
    Trust {
        /// The domain
        #[arg(value_parser = domain)]
        domain: Domain,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Recreate a lost or damaged book from the sealed bodies; the server must be stopped
    ///
    /// The old book is moved aside, never deleted. Every message that had not come to its end for
    /// all recipients is queued again: some recipients may get a second copy or a second notice,
    /// none is lost.
    Rebuild {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// `restante account`
#[derive(Debug, Subcommand)]
pub enum Account {
    /// All accounts
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// One account: its messages, and where its owner is signed in
    Show(Named),
    /// What happened at one account: sign-ins, failures, changes, readings; newest first
    ///
    /// Also of an address that has no account any more.
    Log(AccountLog),
    /// Let nobody sign in; sessions end at once
    Lock(Named),
    /// Let the owner sign in again
    Unlock(Named),
    /// For an owner who can't sign in: password and second factor count no more
    ///
    /// Sessions end. A mail tells the owner to choose "Forgot your password?" on the sign-in page;
    /// what is kept for them stays.
    Reset(Named),
    /// Give an account another address; everything that it holds stays with it
    ///
    /// Sessions end, and both mailboxes are told. Make sure on another way that the new mailbox is
    /// the owner's: a mailed code to it will let in. Refused if the new address has an account.
    Move {
        /// The address that the account has
        old: String,
        /// The address that it gets
        new: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove an account, and with it all that is kept for it
    ///
    /// Who registers the mailbox later is somebody else and sees nothing old. For a lost password
    /// use `reset`.
    Remove(Named),
}

/// `restante account log`
#[derive(Debug, Args)]
pub struct AccountLog {
    /// The recipient's address
    pub address: String,
    /// So many records at most
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Go on after the record of this number
    #[arg(long, value_name = "NUMBER")]
    pub after: Option<String>,
    /// Since then only: 3d, 2026-11-25 or 2026-11-25T10:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<Moment>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `restante clock`
#[derive(Debug, Subcommand)]
pub enum Clock {
    /// Say that the clock is right
    ///
    /// After the clock has jumped, or the machine was off for more than a week, nothing expires and no
    /// mail is given up until this command, or until the clock has gone steadily for a day. `status`
    /// shows both times. If the clock is wrong, set it instead: it is relied on again at once. What is
    /// over by a clock that is confirmed is destroyed.
    Confirm {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// `restante keys`
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Numbers of the keys, which one is current, and how far a rotation is
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Add a key that wraps what is new, and retire the older ones
    ///
    /// Messages whose keys an older key wrapped are wrapped again in the background, also after a
    /// restart; `status` shows how far it is. Then the older keys leave the key ring, and a copy of the
    /// data directory from before does not open with the new one. Back the key ring up as soon as this command has answered.
    /// Where `vault.keys` names a credential or a command, add the key there, with the next number, and
    /// use `reload`.
    Rotate {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Read the key ring again from where it is kept
    ///
    /// A key that was added there wraps what is new from then on, and the older ones retire. SIGHUP
    /// does the same.
    Reload {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// `restante audit`
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Records for which every option holds; newest first
    Search(AuditSearch),
    /// Check that no record was changed, replaced or cut out
    ///
    /// Says which, and exits 1, if any was. The head's hash is that of the newest record: kept
    /// elsewhere, it shows whether the whole trail was written anew.
    Verify {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print records as JSON, one a line, oldest first
    Export(AuditWhich),
}

/// `restante audit search`
#[derive(Debug, Args)]
pub struct AuditSearch {
    /// Which
    #[command(flatten)]
    pub which: AuditWhich,
    /// So many records at most
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Go on after the record of this number
    #[arg(long, value_name = "NUMBER")]
    pub after: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Which records of the trail.
#[derive(Debug, Args)]
pub struct AuditWhich {
    /// Of this account
    #[arg(long, value_name = "ADDRESS")]
    pub account: Option<Address>,
    /// Of this kind: sign-in, wrong-password, downloaded, …
    #[arg(long, value_name = "EVENT", value_parser = event)]
    pub event: Option<AuditKind>,
    /// From this client
    #[arg(long, value_name = "IP")]
    pub client: Option<IpAddr>,
    /// With this message
    #[arg(long, value_name = "ID")]
    pub message: Option<QueueId>,
    /// Since then only: 3d, 2026-11-25 or 2026-11-25T10:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<Moment>,
    /// Until then only
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<Moment>,
}

/// A time, or one so long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// That time.
    At(Timestamp),
    /// So long before now.
    Ago(SignedDuration),
}
impl Moment {
    /// The time, where it is now `now`.
    pub fn before(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => now.checked_sub(ago).unwrap_or(Timestamp::MIN),
        }
    }
}

/// An account by its address.
#[derive(Debug, Args)]
pub struct Named {
    /// The recipient's address
    pub address: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `restante policy`
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Parse and lint policy files; problems as `file:line:column`
    ///
    /// Where a configuration is found, what it says is held against the files: a level that rests on
    /// DNSSEC while `dns.dnssec` is off, an entry for a domain of our own.
    Check {
        /// The folder; otherwise the configuration's `policy_dir`
        dir: Option<PathBuf>,
        /// Exit 1 on warnings too
        #[arg(long)]
        strict: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Print SARIF 2.1.0, for code-review pipelines
        #[arg(long, conflicts_with = "json")]
        sarif: bool,
    },
    /// Look at a domain's mail hosts now: which levels would they pass?
    ///
    /// Looks up the mail hosts, connects to each, starts TLS and says QUIT; nothing is sent. Shows
    /// STARTTLS, certificate, DANE and MTA-STS, and ends with a policy entry to start from. Exits 1
    /// where the domain takes no mail, 75 where DNS or every host gave no answer.
    Probe {
        /// The domain
        domain: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Which recipients' mail would have moved under a changed policy folder, from where to where
    ///
    /// Judges the decisions on record again, by what DNS said and hosts proved at the time. What
    /// the record does not tell is said, never guessed. Rules count as they did on arrival.
    Replay {
        /// The changed folder; otherwise the one in force, against decisions of earlier versions
        dir: Option<PathBuf>,
        /// How far back: 12h, 30d
        #[arg(long, value_name = "TIME", default_value = "30d", value_parser = time)]
        since: SignedDuration,
        /// Exit 1 if anything would move
        #[arg(long)]
        strict: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Which file and rule decide for a recipient, and why, without network
    Explain {
        /// The recipient
        address: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write policy files from the source of a Postfix `smtp_tls_policy_maps` table
    ///
    /// Prints TOML. What can't be carried over is said on stderr, as `FILE:line: text`; then the
    /// exit code is 1, and what could be carried over is printed nevertheless. No row becomes weaker
    /// on its way.
    ImportPostfix {
        /// The table's text, as given to postmap; `hash:FILE` and the like name the same text
        file: PathBuf,
        /// Write a file for each domain into this folder; none that is there is overwritten
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Print the partner entries as the source of a Postfix `smtp_tls_policy_maps` table
    ///
    /// What Postfix can't express is named in comments and on stderr; then the exit code is 1.
    ExportPostfix {
        /// The folder; otherwise the configuration's `policy_dir`
        dir: Option<PathBuf>,
    },
}

/// `restante config`
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Validate the configuration
    Check {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the effective configuration as TOML, secrets masked
    Show {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a built-in catalogue of texts, to begin a translation with
    Catalogue {
        /// Its language
        #[arg(default_value = "en", value_parser = catalogue)]
        language: &'static str,
    },
}

/// The text of a built-in catalogue, by its language.
fn catalogue(code: &str) -> Result<&'static str, String> {
    let known = || language::built_in().map(|(code, _)| code).collect::<Vec<_>>().join(", ");
    let found = language::built_in().find(|(built_in, _)| *built_in == code);
    found.map(|(_, text)| text).ok_or_else(|| format!("built in are {}", known()))
}

/// A time as configuration files have it.
fn time(text: &str) -> Result<SignedDuration, String> {
    crate::policy::toml_source::duration(text)
}

/// A time, a day (its beginning, UTC), or how long ago.
fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(Moment::At(at));
    }
    if let Ok(day) = text.parse::<Date>() {
        let begin = day.to_zoned(TimeZone::UTC).map_err(|error| error.to_string())?;
        return Ok(Moment::At(begin.timestamp()));
    }
    let wrong = |_| "no time: write 3d, 2026-11-25 or 2026-11-25T10:00:00Z".to_owned();
    time(text).map(Moment::Ago).map_err(wrong)
}

/// A kind of event by its name.
fn event(text: &str) -> Result<AuditKind, String> {
    let known = || AuditKind::ALL.map(AuditKind::as_str).join(", ");
    let found = AuditKind::ALL.into_iter().find(|kind| kind.as_str() == text);
    found.ok_or_else(|| format!("there are {}", known()))
}

fn day(text: &str) -> Result<Date, String> {
    text.parse().map_err(|_| "not a day: write 2026-11-25".to_owned())
}

fn domain(text: &str) -> Result<Domain, String> {
    text.parse().map_err(|error| format!("no domain ({error}): write example.org"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_order_says_for_whom_it_is() {
        let rows: [(&str, bool, &str); 9] = [
            ("", false, "nobody is meant"),
            ("--json", false, "how to print is not whom"),
            ("A B", true, "ids"),
            ("A --domain a.example", false, "ids and more"),
            ("A --all", false, "ids and all"),
            ("--domain a.example --sender a@b.example --older-than 3d", true, "each narrows"),
            ("--all --domain a.example", false, "all and not all"),
            ("--all --older-than 3d", true, "all that are old"),
            ("--domain a..example", false, "no domain"),
        ];
        for (words, good, reason) in rows {
            for verb in ["hold", "release", "retry", "remove"] {
                let line = ["restante", "queue", verb].into_iter().chain(words.split_whitespace());
                assert_eq!(Cli::try_parse_from(line).is_ok(), good, "{verb} {words}: {reason}");
            }
        }
        assert!(Cli::try_parse_from(["restante", "queue", "hold", "--report", "A"]).is_err());
    }

    #[test]
    fn a_time_is_a_day_a_moment_or_so_long_ago() {
        let now: Timestamp = "2026-11-25T10:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("3d", Some("2026-11-22T10:00:00Z")),
            ("12h", Some("2026-11-24T22:00:00Z")),
            ("2026-11-25", Some("2026-11-25T00:00:00Z")),
            ("2026-11-25T09:00:00+01:00", Some("2026-11-25T08:00:00Z")),
            ("yesterday", None),
            ("2026-13-01", None),
        ] {
            let read = moment(text).ok().map(|moment| moment.before(now).to_string());
            assert_eq!(read.as_deref(), expected, "{text}");
        }
        let search = ["restante", "audit", "search", "--event"];
        assert!(Cli::try_parse_from(search.into_iter().chain(["downloaded"])).is_ok());
        assert!(Cli::try_parse_from(search.into_iter().chain(["loaded"])).is_err());
    }
    #[test]
    fn config_is_global() {
        let cli = Cli::try_parse_from(["restante", "status", "--json", "--config", "x.toml"]);
        assert_eq!(cli.expect("parses").config, Some(PathBuf::from("x.toml")));
    }
    #[test]
    fn what_a_report_on_tls_is_asked_for_is_read_before_anybody_is_asked() {
        let parsed = |words: &[&str]| {
            Cli::try_parse_from([&["restante", "tls-report"], words].concat()).is_ok()
        };
        for (words, fine) in [
            (["--day", "2026-11-25"], true),
            (["--day", "yesterday"], false),
            (["--day", "2026-11-31"], false),
            (["--domain", "Example.ORG"], true),
            (["--domain", "a b"], false),
        ] {
            assert_eq!(parsed(&words), fine, "{words:?}");
        }
    }
}
