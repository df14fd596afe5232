//! Real Postfix instances: a customer's upstream MTA, a partner's mail host.

use super::{pki::Leaf, wait_for};
use std::{
    fs,
    net::{SocketAddr, TcpStream},
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// A running instance in a folder of its own.
#[derive(Debug)]
pub struct Postfix {
    dir: PathBuf,
    child: Child,
}

impl Postfix {
    /// Starts an instance that listens on `address` and calls itself `host`.
    pub fn start(dir: &Path, address: SocketAddr, host: &str, tls: &Leaf, more: &[&str]) -> Self {
        let dir = dir.join(format!("postfix-{host}"));
        for folder in ["etc", "spool", "data", "mail"] {
            fs::create_dir_all(dir.join(folder)).expect("folder");
        }
        configure(&dir, address, host, tls, more);
        let uid = id_of("-u");
        for folder in ["data", "mail"] {
            chown(dir.join(folder), Some(uid), None).expect("chown");
        }
        let child = Command::new("postfix")
            .arg("-c")
            .arg(dir.join("etc"))
            .arg("start-fg")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.join("stderr")).expect("file"))
            .spawn()
            .expect("postfix is installed (tests/run installs it)");
        let mut postfix = Self { dir, child };
        wait_for(&format!("Postfix {host}"), || {
            if let Ok(Some(status)) = postfix.child.try_wait() {
                panic!("Postfix {host} ended with {status}: {}", postfix.log());
            }
            TcpStream::connect(address).ok()
        });
        postfix
    }

    /// The messages in the catch-all mailbox.
    pub fn mailbox(&self) -> Vec<Vec<u8>> {
        let Ok(entries) = fs::read_dir(self.dir.join("mail/all/new")) else { return Vec::new() };
        entries.map(|e| fs::read(e.expect("entry").path()).expect("message")).collect()
    }

    /// Settings of an instance that keeps mail for a domain in one mailbox.
    pub fn mailbox_settings(domain: &str) -> Vec<String> {
        vec![
            format!("virtual_mailbox_domains = {domain}"),
            "virtual_mailbox_base = $data_directory/../mail".to_owned(),
            "virtual_mailbox_maps = static:all/".to_owned(),
            format!("virtual_uid_maps = static:{}", id_of("-u")),
            format!("virtual_gid_maps = static:{}", id_of("-g")),
            "virtual_mailbox_limit = 0".to_owned(),
        ]
    }

    /// Hands a message to the instance as a local user would.
    pub fn sendmail(&self, from: &str, to: &[&str], message: &[u8]) {
        use std::io::Write;
        let mut child = Command::new("sendmail")
            .arg("-C")
            .arg(self.dir.join("etc"))
            .args(["-i", "-f", from])
            .args(to)
            .stdin(Stdio::piped())
            .spawn()
            .expect("sendmail runs");
        child.stdin.take().expect("piped").write_all(message).expect("written");
        assert!(child.wait().expect("waited").success(), "sendmail: {}", self.log());
    }

    pub fn log(&self) -> String {
        let log = fs::read_to_string(self.dir.join("mail/log")).unwrap_or_default();
        let stderr = fs::read_to_string(self.dir.join("stderr")).unwrap_or_default();
        format!("{stderr}\n{log}")
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("Postfix's log:\n{}", self.log());
        }
        let stop = Command::new("postfix").arg("-c").arg(self.dir.join("etc")).arg("stop").output();
        drop(stop);
        drop(self.child.wait());
    }
}

fn configure(dir: &Path, address: SocketAddr, host: &str, tls: &Leaf, more: &[&str]) {
    let etc = dir.join("etc");
    for file in ["postfix-files", "dynamicmaps.cf"] {
        fs::copy(Path::new("/etc/postfix").join(file), etc.join(file)).expect("copied");
    }
    for folder in ["postfix-files.d", "dynamicmaps.cf.d"] {
        let from = Path::new("/etc/postfix").join(folder);
        let copied = Command::new("cp").arg("-r").arg(from).arg(&etc).status().expect("cp runs");
        assert!(copied.success());
    }
    let main = format!(
        "compatibility_level = 3.6\n\
         queue_directory = {dir}/spool\n\
         data_directory = {dir}/data\n\
         mail_owner = postfix\n\
         setgid_group = postdrop\n\
         multi_instance_enable = no\n\
         myhostname = {host}\n\
         mydestination =\n\
         inet_interfaces = all\n\
         inet_protocols = ipv4\n\
         mynetworks = 127.0.0.0/8\n\
         maillog_file = {dir}/mail/log\n\
         maillog_file_prefixes = {dir}\n\
         alias_maps =\n\
         alias_database =\n\
         message_size_limit = 0\n\
         mailbox_size_limit = 0\n\
         smtpd_tls_cert_file = {chain}\n\
         smtpd_tls_key_file = {key}\n\
         smtpd_tls_security_level = may\n\
         smtpd_tls_received_header = yes\n\
         smtpd_tls_loglevel = 1\n\
         {more}\n",
        dir = dir.display(),
        chain = tls.chain.display(),
        key = tls.key.display(),
        more = more.join("\n"),
    );
    fs::write(etc.join("main.cf"), main).expect("written");
    let proto = fs::read_to_string("/etc/postfix/master.cf.proto").expect("master.cf.proto");
    let master: String = proto.lines().map(|line| service(line, address) + "\n").collect();
    let log = "postlog unix-dgram n - n - 1 postlogd\n";
    let logged = master.lines().any(|l| l.starts_with("postlog"));
    fs::write(etc.join("master.cf"), master + if logged { "" } else { log }).expect("written");
}

/// A line of master.cf: our address for smtpd, and no chroot.
fn service(line: &str, address: SocketAddr) -> String {
    if line.starts_with('#') || line.starts_with(' ') || line.trim().is_empty() {
        return line.to_owned();
    }
    let mut fields: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    if let Some(chroot) = fields.get_mut(4) {
        *chroot = "n".to_owned();
    }
    if fields.first().is_some_and(|n| n == "smtp") && fields.get(1).is_some_and(|t| t == "inet") {
        fields[0] = address.to_string();
    }
    fields.join(" ")
}

fn id_of(flag: &str) -> u32 {
    let output = Command::new("id").args([flag, "postfix"]).output().expect("id runs");
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("user postfix exists")
}
