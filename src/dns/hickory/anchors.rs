//! Trust anchors (RFC 4033 §2): the root's keys or their digests, built in or from
//! `dns.trust_anchor`.

use data_encoding::{BASE64, HEXUPPER_PERMISSIVE};
use hickory_resolver::proto::{
    dnssec::{
        Algorithm, DigestType, PublicKeyBuf, TrustAnchors,
        rdata::{DNSKEY, DNSSECRData, DS},
    },
    rr::{Name, RData},
};
use std::{fs, path::Path};

/// Bytes of an anchor file that are read; the root has two or three keys.
const MAX_FILE: usize = 64 * 1024;

/// The anchor file can't be used, and why.
#[derive(Debug, thiserror::Error)]
#[error("dns.trust_anchor: {0}")]
pub struct AnchorError(String);

/// What validation begins with.
#[derive(Clone)]
pub struct Anchors {
    /// Keys that are believed as they are.
    keys: TrustAnchors,
    /// Digests: a key of the root is believed if one of these is its own.
    digests: Vec<DS>,
}

impl std::fmt::Debug for Anchors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Anchors")
            .field("keys", &self.keys.len())
            .field("digests", &self.digests.len())
            .finish()
    }
}

/// The keys of IANA's root, as they are built in.
impl Default for Anchors {
    fn default() -> Self {
        Self { keys: TrustAnchors::default(), digests: Vec::new() }
    }
}

impl Anchors {
    /// Reads the file; none: IANA's root.
    ///
    /// # Errors
    /// [`AnchorError`] names file, line and what is wrong there.
    pub fn load(file: Option<&Path>) -> Result<Self, AnchorError> {
        let Some(file) = file else { return Ok(Self::default()) };
        let place = file.display();
        let text = fs::read_to_string(file).map_err(|e| AnchorError(format!("{place}: {e}")))?;
        if text.len() > MAX_FILE {
            return Err(AnchorError(format!("{place}: too long for a file of trust anchors")));
        }
        Self::parse(&text).map_err(|e| AnchorError(format!("{place}:{e}")))
    }

    /// Records as in a zone file (RFC 1035 §5.1), one after another.
    fn parse(text: &str) -> Result<Self, String> {
        let mut anchors = Self { keys: TrustAnchors::empty(), digests: Vec::new() };
        for (line, record) in records(text) {
            anchors.add(&record).map_err(|e| format!("{line}: {e}"))?;
        }
        if anchors.keys.is_empty() && anchors.digests.is_empty() {
            return Err("1: no DS or DNSKEY record stands in it".to_owned());
        }
        Ok(anchors)
    }

    fn add(&mut self, record: &[String]) -> Result<(), String> {
        let mut words = record.iter().map(String::as_str);
        // The chain is followed from the root down: an anchor below it would prove nothing.
        if words.next() != Some(".") {
            return Err("not a record of the root: its name is `.`".to_owned());
        }
        let is_ttl_or_class =
            |w: &&str| w.eq_ignore_ascii_case("IN") || w.bytes().all(|b| b.is_ascii_digit());
        let mut words = words.skip_while(is_ttl_or_class);
        match words.next().map(str::to_ascii_uppercase).as_deref() {
            Some("DS") => self.digests.push(ds(words).ok_or("not a DS record")?),
            Some("DNSKEY") => {
                let key = dnskey(words).ok_or("not a DNSKEY record")?;
                if key.zone_key() && !key.revoke() {
                    self.keys.insert(key.public_key());
                }
            }
            Some(other) => return Err(format!("{other}: write a DS or DNSKEY record")),
            None => return Err("no record: write a DS or DNSKEY record".to_owned()),
        }
        Ok(())
    }

    /// True if the root's keys are to be fetched before anything can be validated.
    pub(super) fn needs_keys(&self) -> bool {
        !self.digests.is_empty()
    }

    /// The keys to believe, those of `shown` included that a digest stands for. None: no anchor.
    pub(super) fn with(&self, shown: &[RData]) -> Option<TrustAnchors> {
        let mut keys = self.keys.clone();
        for data in shown {
            let RData::DNSSEC(DNSSECRData::DNSKEY(key)) = data else { continue };
            let meant = |ds: &DS| {
                key.calculate_key_tag().is_ok_and(|tag| tag == ds.key_tag())
                    && ds.covers(&Name::root(), key).unwrap_or(false)
            };
            if !key.revoke() && self.digests.iter().any(meant) {
                keys.insert(key.public_key());
            }
        }
        (!keys.is_empty()).then_some(keys)
    }
}

/// The words of each record and the line it begins on. Comments go, brackets join lines.
fn records(text: &str) -> Vec<(usize, Vec<String>)> {
    let (mut found, mut open) = (Vec::<(usize, Vec<String>)>::new(), false);
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.split(';').next().unwrap_or_default();
        let goes_on = open;
        open = (open || text.contains('(')) && !text.contains(')');
        let text = text.replace(['(', ')'], " ");
        let words = text.split_ascii_whitespace().map(str::to_owned);
        match found.last_mut().filter(|_| goes_on) {
            Some((_, record)) => record.extend(words),
            None => found.push((line, words.collect())),
        }
    }
    found.retain(|(_, record)| !record.is_empty());
    found
}

/// RFC 4034 §5.3: key tag, algorithm, digest type, digest.
fn ds<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<DS> {
    let tag = words.next()?.parse().ok()?;
    let algorithm = Algorithm::from_u8(words.next()?.parse().ok()?);
    let kind = DigestType::from(words.next()?.parse::<u8>().ok()?);
    let digest = HEXUPPER_PERMISSIVE.decode(words.collect::<String>().as_bytes()).ok()?;
    (!digest.is_empty()).then(|| DS::new(tag, algorithm, kind, digest))
}

/// RFC 4034 §2.2: flags, protocol 3, algorithm, public key.
fn dnskey<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<DNSKEY> {
    let flags = words.next()?.parse().ok()?;
    if words.next()? != "3" {
        return None;
    }
    let algorithm = Algorithm::from_u8(words.next()?.parse().ok()?);
    let key = BASE64.decode(words.collect::<String>().as_bytes()).ok()?;
    (!key.is_empty()).then(|| DNSKEY::with_flags(flags, PublicKeyBuf::new(key, algorithm)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AwEAAaz/tAm8yTn4Mfeh5eyI96WSVexTBAvkMgJzkKTOiW1vkIbzxeF3\
                       +/4RgWOq7HrxRixHlFlExOLAJr5emLvN7SWXgnLh4+B5xQlNVz8Og8kv\
                       ArMtNROxVQuCaSnIDdD5LKyWbRd2n9WGe2R8PzgCmr3EgVLrjyBxWezF\
                       0jLHwVN8efS3rCj/EWgvIWgb9tarpVUDK/b58Da+sqqls3eNbuv7pr+e\
                       oZG+SrDK6nWeL3c6H5Apxz7LjVc1uTIdsIXxuOLYA4/ilBmSVIzuDWfd\
                       RUfhHdY6+cn8HFRm+2hM8AnXGXws9555KrUB5qihylGa8subX2Nn6UwN\
                       R1AkUTV74bU=";
    const DIGEST: &str =
        "20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D";

    fn root_key() -> RData {
        let key = dnskey(["257", "3", "8", KEY].into_iter()).unwrap();
        RData::DNSSEC(DNSSECRData::DNSKEY(key))
    }

    #[test]
    fn files_as_others_write_them() {
        for (text, keys, digests) in [
            (format!(". IN DS {DIGEST}\n"), 0, 1),
            (format!("; note\n.\t172800\tIN\tDNSKEY\t257 3 8 {KEY} ;{{id = 20326}}\n"), 1, 0),
            (format!(". DNSKEY (257 3 8\n  {KEY} ; spread\n)\n. ds {DIGEST}\n"), 1, 1),
            (format!(". DNSKEY 385 3 8 {KEY}\n. DS {DIGEST}\n"), 0, 1), // a revoked key is none
        ] {
            let anchors = Anchors::parse(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((anchors.keys.len(), anchors.digests.len()), (keys, digests), "{text}");
        }
    }

    #[test]
    fn what_is_no_anchor_is_named_with_its_line() {
        for (text, says) in [
            ("", "1: no DS"),
            ("; nothing\n\n", "1: no DS"),
            ("\nexample. DS 1 8 2 AA\n", "2: not a record of the root"),
            (". IN A 192.0.2.1\n", "1: A: write a DS"),
            (". IN\n", "1: no record"),
            (". DS 1 8 2 XY\n", "1: not a DS"),
            (". DS 1 8\n", "1: not a DS"),
            (". DNSKEY 257 2 8 AAAA\n", "1: not a DNSKEY"),
            (". DNSKEY 257 3 8 ====\n", "1: not a DNSKEY"),
        ] {
            let error = Anchors::parse(text).unwrap_err();
            assert!(error.starts_with(says), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_digest_stands_for_its_key_alone() {
        let anchors = Anchors::parse(&format!(". DS {DIGEST}\n")).unwrap();
        assert!(anchors.needs_keys());
        assert_eq!(anchors.with(&[root_key()]).map(|keys| keys.len()), Some(1));
        assert!(anchors.with(&[]).is_none());
        let other = Anchors::parse(&format!(". DS {}\n", DIGEST.replace("E06D", "E06E"))).unwrap();
        assert!(other.with(&[root_key()]).is_none());
        assert!(!Anchors::default().needs_keys());
    }
}
