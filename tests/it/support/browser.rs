//! A real browser: headless Chromium through its `WebDriver`.

use super::{free_port, wait_for};
use axum::http::Method;
use fantoccini::{Client, ClientBuilder, wd::WebDriverCompatibleCommand};
use serde_json::{Map, Value, json};
use std::{
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};
use url::{ParseError, Url};

/// A running chromedriver.
#[derive(Debug)]
pub struct Driver {
    child: Child,
    url: String,
}

impl Driver {
    pub fn start() -> Self {
        let port = free_port(&["127.0.0.1"]);
        let child = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("chromedriver is installed (tests/run installs it)");
        let address: SocketAddr = format!("127.0.0.1:{port}").parse().expect("address");
        wait_for("chromedriver", || TcpStream::connect(address).ok());
        Self { child, url: format!("http://{address}") }
    }

    /// A fresh browser; downloads go to `downloads`.
    pub async fn browser(&self, scripts: bool, downloads: &Path) -> Client {
        let profile = downloads.join(format!("profile-{scripts}"));
        let mut prefs = json!({
            "download.default_directory": downloads.display().to_string(),
            "download.prompt_for_download": false,
        });
        if !scripts {
            prefs["profile.managed_default_content_settings.javascript"] = json!(2);
        }
        let options = json!({
            "args": [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-dev-shm-usage", "--disable-background-networking",
                "--disable-component-update", "--disable-sync", "--window-size=1000,900",
                format!("--user-data-dir={}", profile.display()),
            ],
            "prefs": prefs,
        });
        let mut capabilities = Map::new();
        capabilities.insert("goog:chromeOptions".to_owned(), options);
        capabilities.insert("browserName".to_owned(), Value::from("chrome"));
        // Hosts of a test have certificates of the test.
        capabilities.insert("acceptInsecureCerts".to_owned(), Value::from(true));
        ClientBuilder::rustls()
            .expect("TLS")
            .capabilities(capabilities)
            .connect(&self.url)
            .await
            .expect("a browser session")
    }
}

impl Drop for Driver {
    /// With its browsers, which a test that failed has not closed: they are of its process group.
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        drop(Command::new("kill").args(["-s", "KILL", "--", &group]).status());
        drop(self.child.wait());
    }
}

/// A command of the browser's own protocol.
#[derive(Debug)]
pub struct Cdp(pub &'static str, pub Value);
impl WebDriverCompatibleCommand for Cdp {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/goog/cdp/execute", session.unwrap_or_default()))
    }
    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(json!({ "cmd": self.0, "params": self.1 }).to_string()))
    }
}

/// The width of a small phone, in CSS pixels: the least that WCAG 2.2, 1.4.10, asks for.
pub const PHONE: u32 = 320;

/// Gives the browser a screen of that size; a narrow one is a phone's.
pub async fn screen(browser: &Client, width: u32, height: u32) {
    let metrics = json!({
        "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500,
    });
    let command = Cdp("Emulation.setDeviceMetricsOverride", metrics);
    browser.issue_cmd(command).await.expect("a screen");
}

/// The browser's network, as chromedriver can change it.
#[derive(Debug)]
pub struct Network {
    pub offline: bool,
    /// Bytes that go out in a second.
    pub upload: Option<u64>,
}
impl WebDriverCompatibleCommand for Network {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/chromium/network_conditions", session.unwrap_or_default()))
    }
    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        let upload = self.upload.map_or_else(|| json!(-1), Value::from);
        let conditions = json!({
            "offline": self.offline, "latency": 0,
            "upload_throughput": upload, "download_throughput": -1,
        });
        (Method::POST, Some(json!({ "network_conditions": conditions }).to_string()))
    }
}
