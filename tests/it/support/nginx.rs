//! A real web server with the hosts that a test wants, ended by handle.

use super::{pki::Leaf, wait_for};
use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
};

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    child: Child,
}

impl Nginx {
    /// Starts one in `dir` with these `server` blocks, and waits until it listens.
    pub fn start(dir: &Path, servers: &[String], listening: &[SocketAddr]) -> Self {
        fs::create_dir_all(dir).expect("folder");
        let here = dir.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {here}/{kind};\n"))
            .concat();
        let text = format!(
            "user root;\ndaemon off;\nmaster_process off;\npid {here}/pid;\n\
             error_log {here}/error.log info;\nevents {{ }}\n\
             http {{\naccess_log {here}/access.log;\ntypes {{ }}\n{temporary}{}\n}}\n",
            servers.join("\n")
        );
        let file = dir.join("nginx.conf");
        fs::write(&file, text).expect("written");
        let mut child = Command::new("nginx")
            .arg("-c")
            .arg(&file)
            .arg("-p")
            .arg(dir)
            .arg("-e")
            .arg(dir.join("error.log"))
            .stdin(Stdio::null())
            .spawn()
            .expect("nginx is installed");
        for address in listening {
            wait_for("nginx", || {
                let ended = child.try_wait().expect("waited");
                assert!(
                    ended.is_none(),
                    "nginx ended: {:?}",
                    fs::read_to_string(dir.join("error.log"))
                );
                TcpStream::connect(address).ok()
            });
        }
        Self { child }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A host that speaks HTTPS and serves its MTA-STS policy as `location` says; `more` are lines of
/// its own.
pub fn policy_host(at: SocketAddr, host: &str, leaf: &Leaf, location: &str, more: &str) -> String {
    format!(
        "server {{ listen {at} ssl; server_name {host}; ssl_certificate {}; \
         ssl_certificate_key {}; default_type text/plain; {more}\n\
         location = /.well-known/mta-sts.txt {{ {location} }} }}",
        leaf.chain.display(),
        leaf.key.display(),
    )
}

/// A location's line that serves this text.
pub fn text(text: &str) -> String {
    format!("return 200 \"{}\";", text.replace('\r', "\\r").replace('\n', "\\n"))
}
