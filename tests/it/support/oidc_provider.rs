//! The real `oidc-provider` of npm, run by Node.js (`tests/run` installs it).

use super::{free_port, op::SECRET, pki::Leaf, wait_for};
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

/// A running provider.
#[derive(Debug)]
pub struct OidcProvider {
    child: Child,
    issuer: String,
    /// Paths asked.
    paths: Arc<Mutex<Vec<String>>>,
    reading: Option<JoinHandle<()>>,
}

impl OidcProvider {
    /// One that behaves as `mode` says (see `tests/oidc-provider/provider.mjs`), and knows a person
    /// of that address.
    pub fn start(mode: &str, leaf: &Leaf, email: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let port = free_port(&["127.0.0.1"]);
        let mut child = Command::new("node")
            .arg(root.join("tests/oidc-provider/provider.mjs"))
            .arg(root.join("target/oidc-provider"))
            .arg(port.to_string())
            .args([&leaf.chain, &leaf.key])
            .args([mode, email, SECRET])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Node.js is installed (tests/run installs it)");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let paths = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&paths);
        let reading = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                told.lock().expect("paths").push(line);
            }
        });
        let mut provider = Self {
            child,
            issuer: format!("https://127.0.0.1:{port}"),
            paths,
            reading: Some(reading),
        };
        wait_for("oidc-provider", || {
            let ended = provider.child.try_wait().expect("a child");
            assert!(ended.is_none(), "oidc-provider is not installed: tests/run does that");
            (provider.asked("up") > 0).then_some(())
        });
        provider
    }

    /// An entry of `portal.oidc`; its secret is in a file of that folder.
    pub fn configuration(&self, name: &str, dir: &Path) -> String {
        let file = dir.join("provider.secret");
        std::fs::write(&file, SECRET).expect("written");
        format!(
            "[[portal.oidc]]\nname = {name:?}\nissuer = {:?}\nclient_id = \"restante\"\n\
             client_secret_file = {:?}\n",
            self.issuer,
            file.display().to_string()
        )
    }

    /// How often that path was asked.
    pub fn asked(&self, path: &str) -> usize {
        self.paths.lock().expect("paths").iter().filter(|asked| *asked == path).count()
    }
}

impl Drop for OidcProvider {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if let Some(reading) = self.reading.take() {
            drop(reading.join());
        }
    }
}
