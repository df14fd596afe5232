//! The gateway as its users run it: a process with a configuration file.

use super::program;
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

/// A folder with a configuration, and the server where it runs.
#[derive(Debug)]
pub struct Gateway {
    pub dir: PathBuf,
    pub smtp: SocketAddr,
    pub portal: SocketAddr,
    child: Option<Child>,
}

/// What a test sets; the rest are defaults that suit loopback.
#[derive(Debug, Clone)]
pub struct Settings {
    pub nameserver: Option<SocketAddr>,
    pub mx_port: u16,
    pub anchors: Option<PathBuf>,
    pub inside: Option<SocketAddr>,
    /// How often partners are looked at; mostly never, so that hosts see what a test sends alone.
    pub watch: &'static str,
    /// Host in `portal.url`: another name of loopback.
    pub portal_host: String,
    /// Lines put into `[dns]`.
    pub dns: String,
    /// Lines put into `[organization]`.
    pub organization: String,
    /// Lines put into `[smtp]`.
    pub smtp: String,
    /// Lines put into `[delivery]`.
    pub delivery: String,
    /// Lines put into `[notification]`.
    pub notification: String,
    pub log: &'static str,
    /// Lines put into `[portal]`.
    pub portal: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            nameserver: None,
            mx_port: 2500,
            anchors: None,
            inside: None,
            watch: "0s",
            portal_host: "127.0.0.1".to_owned(),
            dns: "dnssec = \"off\"".to_owned(),
            organization: String::new(),
            smtp: String::new(),
            delivery: String::new(),
            notification: String::new(),
            log: "debug",
            portal: String::new(),
        }
    }
}

impl Settings {
    /// The configuration file's text.
    pub fn text(&self) -> String {
        let nameservers = self.nameserver.map(|a| format!("{:?}", a.to_string()));
        let anchors = self.anchors.as_ref().map(|p| p.display().to_string()).unwrap_or_default();
        let inside = self.inside.map_or_else(|| "127.0.0.1:9".to_owned(), |a| a.to_string());
        format!(
            r#"
hostname   = "gw.example.org"
data_dir   = "data"
policy_dir = "policies"
[organization]
name       = "Example Health"
domains    = ["example.org"]
postmaster = "postmaster@example.org"
support    = "helpdesk@example.org"
{organization}
[smtp]
listen = ["127.0.0.1:0"]
{smtp}
[inside]
host = "{inside}"
[dns]
nameservers = [{nameservers}]
{dns}
[delivery]
port = {port}
trust_anchors = "{anchors}"
refuse_networks = []
watch = "{watch}"
{delivery}
[notification]
from = "secure@example.org"
{notification}
[portal]
listen = "127.0.0.1:{portal}"
url = "http://{portal_host}:{portal}"
{more}
[log]
level = "{log}"
"#,
            organization = self.organization,
            smtp = self.smtp,
            nameservers = nameservers.unwrap_or_default(),
            dns = self.dns,
            port = self.mx_port,
            watch = self.watch,
            delivery = self.delivery,
            notification = self.notification,
            log = self.log,
            portal_host = self.portal_host,
            portal = super::free_port(&["127.0.0.1"]),
            more = self.portal,
        )
    }
}

impl Gateway {
    /// Writes configuration and policies; does not start.
    pub fn prepare(dir: &Path, settings: &Settings, policies: &[(&str, &str)]) -> Self {
        fs::create_dir_all(dir.join("policies")).expect("folder");
        fs::write(dir.join("restante.toml"), settings.text()).expect("write");
        for (name, text) in policies {
            fs::write(dir.join("policies").join(name), text).expect("write");
        }
        let nowhere: SocketAddr = "127.0.0.1:0".parse().expect("address");
        Self { dir: dir.to_owned(), smtp: nowhere, portal: nowhere, child: None }
    }

    /// Prepares and starts.
    pub fn start(dir: &Path, settings: &Settings, policies: &[(&str, &str)]) -> Self {
        let mut gateway = Self::prepare(dir, settings, policies);
        gateway.run();
        gateway
    }

    /// Starts the server and waits for nothing. The log goes to `log` in the folder, appended.
    pub fn spawn(&self) -> Child {
        let log = fs::File::options().append(true).create(true).open(self.log()).expect("log");
        let mut command = self.command(&["serve"]);
        command.stdout(Stdio::piped()).stderr(log).spawn().expect("the program starts")
    }

    /// Starts the server and waits for its `ready` line.
    pub fn run(&mut self) {
        let mut child = self.spawn();
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let ready =
            line.strip_prefix("ready smtp=").and_then(|rest| rest.trim().split_once(" portal="));
        let Some((smtp, portal)) = ready else {
            drop(child.wait());
            panic!("no ready line but {line:?}; log:\n{}", self.log_text());
        };
        self.smtp = smtp.parse().expect("smtp address");
        self.portal = portal.parse().expect("portal address");
        self.child = Some(child);
    }

    /// A command of the program with this configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.current_dir(&self.dir).arg("--config").arg(self.dir.join("restante.toml"));
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn ask(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program runs")
    }

    /// Runs a command with `--json` and reads its answer.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.command(arguments).arg("--json").output().expect("the program runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {} {stderr}", output.status);
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    /// Highest resident memory so far, in KiB.
    pub fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("status");
        let line = status.lines().find(|l| l.starts_with("VmHWM:")).expect("VmHWM");
        line.split_whitespace().nth(1).expect("number").parse().expect("number")
    }

    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// SIGTERM, and waits for exit 0.
    pub fn stop(&mut self) {
        self.signal("TERM");
        let mut child = self.child.take().expect("running");
        let status = child.wait().expect("waited");
        assert!(status.success(), "ended with {status}; log:\n{}", self.log_text());
    }

    /// True while it has not ended.
    pub fn lives(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().expect("asked").is_none())
    }

    /// Waits until it ends by itself; its exit code.
    pub fn ended(&mut self) -> Option<i32> {
        let status = super::wait_for("the gateway's end", || {
            self.child.as_mut().expect("running").try_wait().expect("asked")
        });
        self.child = None;
        status.code()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub fn log_text(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() && self.child.is_some() {
            eprintln!("the gateway's log:\n{}", self.log_text());
        }
        self.kill();
    }
}
