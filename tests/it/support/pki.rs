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

    /// Who signs.
    pub fn issuer(&self) -> &CertifiedIssuer<'static, KeyPair> {
        &self.issuer
    }

    /// A certificate for that host.
    pub fn leaf(&self, host: &str) -> Leaf {
        self.odd_leaf(host, &[host], |_| {})
    }

    /// A certificate for these names, changed by `odd`; its files begin with `file`.
    pub fn odd_leaf(
        &self,
        file: &str,
        names: &[&str],
        odd: impl FnOnce(&mut CertificateParams),
    ) -> Leaf {
        let key = KeyPair::generate().expect("key");
        let certificate = params(names, odd).signed_by(&key, &self.issuer).expect("signed");
        self.write(file, &(certificate.pem() + &self.issuer.pem()), &key)
    }

    /// A certificate for that host that nobody vouches for.
    pub fn self_signed(&self, host: &str) -> Leaf {
        let key = KeyPair::generate().expect("key");
        let certificate = params(&[host], |_| {}).self_signed(&key).expect("signed");
        self.write(host, &certificate.pem(), &key)
    }

    fn write(&self, file: &str, chain: &str, key: &KeyPair) -> Leaf {
        let leaf = Leaf {
            chain: self.dir.join(format!("{file}.pem")),
            key: self.dir.join(format!("{file}.key")),
        };
        std::fs::write(&leaf.chain, chain).expect("write");
        std::fs::write(&leaf.key, key.serialize_pem()).expect("write");
        leaf
    }
}

fn params(names: &[&str], odd: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("params");
    odd(&mut params);
    params
}
