//! Keys for DKIM, and `dkimpy` as the verifier: another implementation in another language.

use data_encoding::BASE64;
use rcgen::{KeyPair, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// An RSA and an Ed25519 key of one domain, as files and as TXT records.
#[derive(Debug)]
pub struct Keys {
    domain: String,
    keys: Vec<(&'static str, PathBuf, String)>,
}

impl Keys {
    pub fn new(dir: &Path, domain: &str) -> Self {
        let rsa = KeyPair::generate_for(&PKCS_RSA_SHA256).expect("RSA key");
        let edwards = KeyPair::generate_for(&PKCS_ED25519).expect("Ed25519 key");
        let public = [
            ("rsa1", &rsa, format!("k=rsa; p={}", BASE64.encode(&rsa.subject_public_key_info()))),
            ("ed1", &edwards, format!("k=ed25519; p={}", BASE64.encode(edwards.public_key_raw()))),
        ];
        let keys = public.map(|(selector, key, record)| {
            let file = dir.join(format!("{selector}.key"));
            fs::write(&file, key.serialize_pem()).expect("write");
            (selector, file, format!("v=DKIM1; {record}"))
        });
        Self { domain: domain.to_owned(), keys: keys.to_vec() }
    }

    /// Selectors and key files.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        self.keys.iter().map(|(selector, file, _)| (*selector, file.as_path()))
    }

    /// The line for `[notification]`.
    pub fn setting(&self) -> String {
        let entries = self.keys.iter().map(|(selector, file, _)| {
            let (domain, file) = (&self.domain, file.display().to_string());
            format!("{{ domain = {domain:?}, selector = {selector:?}, key = {file:?} }}")
        });
        format!("dkim = [{}]", entries.collect::<Vec<_>>().join(", "))
    }
}

/// Judges each signature of a message with the records given; nothing is looked up.
const SCRIPT: &str = r#"
import dkim, json, sys
job = json.load(sys.stdin)
message = open(job["message"], "rb").read()
def txt(name, timeout=5):
    return job["records"].get(name.decode().rstrip(".")).encode()
judge = dkim.DKIM(message)
count = sum(1 for name, _ in judge.headers if name.lower() == b"dkim-signature")
for i in range(count):
    try:
        good = dkim.DKIM(message).verify(idx=i, dnsfunc=txt)
    except dkim.DKIMException:
        good = False
    print("valid" if good else "invalid")
"#;

/// `valid` or `invalid` for each signature.
pub fn verify(dir: &Path, message: &[u8], keys: &Keys) -> Vec<String> {
    let file = dir.join("judged.eml");
    fs::write(&file, message).expect("write");
    let records: serde_json::Map<_, _> = keys
        .keys
        .iter()
        .map(|(selector, _, record)| {
            (format!("{selector}._domainkey.{}", keys.domain), json!(record))
        })
        .collect();
    let job = dir.join("job.json");
    fs::write(&job, json!({ "message": file, "records": records }).to_string()).expect("write");
    // The system's own Python: that is where Debian's package is.
    let output = Command::new("/usr/bin/python3")
        .args(["-c", SCRIPT])
        .stdin(fs::File::open(&job).expect("job"))
        .output()
        .expect("python3-dkim is installed (tests/run installs it)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(str::to_owned).collect()
}
