//! A certificate authority made for one test.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::path::{Path, PathBuf};

/// A CA, and the folder that its files are written to.
#[derive(Debug)]
pub struct Pki {
    dir: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
    pub anchors: PathBuf,
}

/// A chain and its key, as files.
#[derive(Debug, Clone)]
pub struct Leaf {
    pub chain: PathBuf,
    pub key: PathBuf,
}

impl Pki {
    pub fn new(dir: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Test CA");
        let key = KeyPair::generate().expect("key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("CA");
        let anchors = dir.join("ca.pem");
        std::fs::write(&anchors, issuer.pem()).expect("write");
        Self { dir: dir.to_owned(), issuer, anchors }
    }

    /// A certificate for that host.
    pub fn leaf(&self, host: &str) -> Leaf {
        self.leaf_with(host, |_| {})
    }

    /// A certificate for that host, with something about it changed.
    pub fn leaf_with(&self, host: &str, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::new([host.to_owned()]).expect("params");
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let leaf = Leaf {
            chain: self.dir.join(format!("{host}.pem")),
            key: self.dir.join(format!("{host}.key")),
        };
        std::fs::write(&leaf.chain, certificate.pem() + &self.issuer.pem()).expect("write");
        std::fs::write(&leaf.key, key.serialize_pem()).expect("write");
        leaf
    }
}
