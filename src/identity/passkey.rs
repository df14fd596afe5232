//! What a device says of a passkey, held against what it was asked (Web Authentication Level 2,
//! sections 7.1 and 7.2, and what Level 3 adds to them). Attestation is not asked for: any device
//! will do, and what it says of its make is not looked at.
//!
//! A new key comes as the browser has turned it from COSE into `SubjectPublicKeyInfo`. Without
//! attestation nothing is signed when a key is made, so the copy inside the authenticator data would
//! prove no more than this one, and no CBOR of strangers is read here at all.
//!
//! That a credential id is at no other account (7.1 step 22) is not asked: who signs in is named by
//! the user handle, a random number of 128 bits, and the id is looked for among that account's
//! alone. A copy of somebody's id and key at another account lets nobody into either.
use crate::{seal::TokenHash, store::Passkey};
use aws_lc_rs::{
    hmac,
    rsa::PublicEncryptingKey,
    signature::{
        ECDSA_P256_SHA256_ASN1, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
        VerificationAlgorithm,
    },
};
use data_encoding::BASE64URL_NOPAD;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// A challenge is good for this long.
const PATIENCE: SignedDuration = SignedDuration::from_mins(15);
/// Used challenges remembered at most; beyond it none is taken until old ones are forgotten.
const MAX_USED: usize = 100_000;
/// Longest credential id (section 4).
const MAX_ID: usize = 1023;
/// Longest base64url text taken.
const MAX_TEXT: usize = 8 * 1024;
/// Fewest bits of an RSA key (RFC 8017 leaves it open, NIST SP 800-131A does not).
const MIN_RSA: usize = 2048;
/// Flags of authenticator data (section 6.1): the user is present, and verified; a key comes with
/// it.
const PRESENT: u8 = 0x01;
const VERIFIED: u8 = 0x04;
const KEY_COMES: u8 = 0x40;
/// Level 3, section 6.1.3: the key may be copied to other devices of its owner, and it is.
const COPYABLE: u8 = 0x08;
const COPIED: u8 = 0x10;

/// What a device says to sign in with a passkey, each in base64url.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Assertion {
    /// Credential id.
    pub credential: String,
    /// Client data as JSON.
    pub client_data: String,
    /// Authenticator data.
    pub authenticator_data: String,
    /// Signature over both.
    pub signature: String,
    /// The account's [`generation`](crate::store::Account::generation).
    pub user_handle: String,
}
/// What a device says of a new passkey, each in base64url but the COSE algorithm's number.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Attestation {
    /// Client data as JSON.
    pub client_data: String,
    /// Authenticator data.
    pub authenticator_data: String,
    /// `SubjectPublicKeyInfo`.
    pub public_key: String,
    /// COSE number of the algorithm.
    pub algorithm: String,
    /// What its owner calls it.
    pub name: String,
}

/// What a challenge was made for; it is good for nothing else.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// By whoever holds a passkey: before sign-in there is no session to bind it to. That a stranger's
    /// answer is not sent by the reader's browser, the origin of the form sees to.
    SignIn,
    /// By the session that adds it.
    Add(TokenHash),
}

/// Challenges without a memory of those that nobody answered: each bears its time and a seal, so
/// that looking at a page stores nothing. Used ones are remembered until their time is over.
#[derive(Debug)]
pub(super) struct Challenges {
    key: hmac::Key,
    used: Mutex<BTreeMap<[u8; 16], Timestamp>>,
}
impl Default for Challenges {
    fn default() -> Self {
        let secret: [u8; 32] = rand::random();
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &secret), used: Mutex::default() }
    }
}
impl Challenges {
    /// A new challenge, base64url.
    pub(super) fn ask(&self, purpose: &Purpose, now: Timestamp) -> String {
        let nonce: [u8; 16] = rand::random();
        let bytes = self.sealed(nonce, now.as_second(), purpose);
        BASE64URL_NOPAD.encode(&bytes)
    }
    fn sealed(&self, nonce: [u8; 16], second: i64, purpose: &Purpose) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&nonce);
        context.update(&second.to_be_bytes());
        match purpose {
            Purpose::SignIn => context.update(b"sign in"),
            Purpose::Add(session) => {
                context.update(b"add");
                context.update(session.as_bytes());
            }
        }
        [&nonce, second.to_be_bytes().as_slice(), context.sign().as_ref()].concat()
    }
    /// Takes a challenge that came back, once.
    fn take(&self, text: &str, purpose: &Purpose, now: Timestamp) -> Result<(), &'static str> {
        let bytes = decoded(text)?;
        let (nonce, rest) = bytes.split_first_chunk::<16>().ok_or("a short challenge")?;
        let (second, _) = rest.split_first_chunk::<8>().ok_or("a short challenge")?;
        let second = i64::from_be_bytes(*second);
        let ours: bool =
            subtle::ConstantTimeEq::ct_eq(self.sealed(*nonce, second, purpose).as_slice(), &bytes)
                .into();
        if !ours {
            return Err("a challenge that is not ours, or for something else");
        }
        let asked = Timestamp::from_second(second).map_err(|_| "a challenge of no time")?;
        if now.duration_since(asked) > PATIENCE {
            return Err("a challenge whose time is over");
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.retain(|_, at| now.duration_since(*at) <= PATIENCE);
        if used.len() >= MAX_USED {
            return Err("too many passkeys at once");
        }
        match used.insert(*nonce, asked) {
            None => Ok(()),
            Some(_) => Err("a challenge that was used already"),
        }
    }
}

/// Who asks: the portal at its own address.
#[derive(Debug)]
pub(super) struct Party {
    origin: String,
    /// The host of that address (section 5.1.2: the relying party's id).
    pub(super) id: String,
}
impl Party {
    /// From scheme and authority as they were configured; a browser says both in lower case, and the
    /// usual port not at all (RFC 6454 section 6.2).
    pub(super) fn new(origin: &str) -> Self {
        let lower = origin.to_ascii_lowercase();
        let usual = if lower.starts_with("https://") { ":443" } else { ":80" };
        let origin = lower.strip_suffix(usual).unwrap_or(&lower).to_owned();
        let authority = origin.split_once("://").map_or(origin.as_str(), |(_, rest)| rest);
        let host = authority.rsplit_once(':').filter(|(_, port)| !port.contains(']'));
        let id = host.map_or(authority, |(host, _)| host).to_owned();
        Self { origin, id }
    }
}

/// A passkey that was just made.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) id: Vec<u8>,
    pub(super) key: Vec<u8>,
    pub(super) algorithm: i32,
    pub(super) counter: u32,
    pub(super) copyable: bool,
}

/// Client data (section 5.8.1).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientData {
    #[serde(rename = "type")]
    kind: String,
    challenge: String,
    origin: String,
    #[serde(default)]
    cross_origin: bool,
    /// Level 3: the page around a frame. Ours stand in no frame, so it is never there.
    #[serde(default)]
    top_origin: Option<String>,
}
/// The head of authenticator data (section 6.1), and what follows.
struct DeviceData<'a> {
    flags: u8,
    counter: u32,
    rest: &'a [u8],
}

/// A new passkey (section 7.1).
pub(super) fn made(
    party: &Party,
    challenges: &Challenges,
    purpose: &Purpose,
    said: &Attestation,
    now: Timestamp,
) -> Result<Made, &'static str> {
    let client = decoded(&said.client_data)?;
    let challenge = judged(&client, "webauthn.create", party)?;
    let device = decoded(&said.authenticator_data)?;
    let head = head_of(&device, party)?;
    if head.flags & KEY_COMES == 0 {
        return Err("no key came");
    }
    // Section 6.5.1: make of the device, length of the id, id. The key that follows in COSE form is
    // the one that the browser has turned into `key`.
    let (_make, rest) = head.rest.split_first_chunk::<16>().ok_or("a short key")?;
    let (length, rest) = rest.split_first_chunk::<2>().ok_or("a short key")?;
    let length = usize::from(u16::from_be_bytes(*length));
    let id = rest.get(..length).ok_or("a short credential id")?;
    if id.is_empty() || id.len() > MAX_ID {
        return Err("a credential id of no good length");
    }
    let key = decoded(&said.public_key)?;
    let algorithm = said.algorithm.parse().map_err(|_| "no algorithm")?;
    parsed(algorithm, &key)?;
    challenges.take(&challenge, purpose, now)?;
    let copyable = head.flags & COPYABLE != 0;
    Ok(Made { id: id.to_owned(), key, algorithm, counter: head.counter, copyable })
}

/// A sign-in (section 7.2); the device's count of signatures.
pub(super) fn said(
    party: &Party,
    challenges: &Challenges,
    passkey: &Passkey,
    said: &Assertion,
    now: Timestamp,
) -> Result<u32, &'static str> {
    let client = decoded(&said.client_data)?;
    let challenge = judged(&client, "webauthn.get", party)?;
    let device = decoded(&said.authenticator_data)?;
    let head = head_of(&device, party)?;
    // Level 3, 7.2 step 18: whether a key can be copied never changes. Keys kept before it was noted
    // say nothing of it.
    if passkey.copyable.is_some_and(|kept| kept != (head.flags & COPYABLE != 0)) {
        return Err("a key that could not be copied can, or the other way round");
    }
    let key = decoded(&passkey.key)?;
    let message = [device.as_slice(), Sha256::digest(&client).as_slice()].concat();
    parsed(passkey.algorithm, &key)?
        .verify_sig(&message, &decoded(&said.signature)?)
        .map_err(|_| "a signature by another key")?;
    challenges.take(&challenge, &Purpose::SignIn, now)?;
    Ok(head.counter)
}

fn decoded(text: &str) -> Result<Vec<u8>, &'static str> {
    if text.len() > MAX_TEXT {
        return Err("too long");
    }
    BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| "no base64url")
}

/// The challenge in client data that are for us.
fn judged(client: &[u8], kind: &str, party: &Party) -> Result<String, &'static str> {
    let data: ClientData = serde_json::from_slice(client).map_err(|_| "no client data")?;
    if data.kind != kind {
        return Err("made for something else");
    }
    if data.origin != party.origin || data.cross_origin || data.top_origin.is_some() {
        return Err("made at another site");
    }
    Ok(data.challenge)
}

fn head_of<'a>(device: &'a [u8], party: &Party) -> Result<DeviceData<'a>, &'static str> {
    let short = "short authenticator data";
    let (site, rest) = device.split_first_chunk::<32>().ok_or(short)?;
    let (flags, rest) = rest.split_first().ok_or(short)?;
    let (counter, rest) = rest.split_first_chunk::<4>().ok_or(short)?;
    if *site != <[u8; 32]>::from(Sha256::digest(&party.id)) {
        return Err("a passkey of another site");
    }
    if flags & PRESENT == 0 || flags & VERIFIED == 0 {
        return Err("the device did not make sure who uses it");
    }
    // Level 3, 7.1 step 17 and 7.2 step 17.
    if flags & COPYABLE == 0 && flags & COPIED != 0 {
        return Err("a copy of a key that can't be copied");
    }
    Ok(DeviceData { flags: *flags, counter: u32::from_be_bytes(*counter), rest })
}

/// The key, if it is of a kind that is asked for (COSE numbers of RFC 9053 and RFC 8812).
fn parsed(algorithm: i32, key: &[u8]) -> Result<ParsedPublicKey, &'static str> {
    let by: &'static dyn VerificationAlgorithm = match algorithm {
        -7 => &ECDSA_P256_SHA256_ASN1,
        -8 => &ED25519,
        -257 => &RSA_PKCS1_2048_8192_SHA256,
        _ => return Err("an algorithm that was not asked for"),
    };
    // A shorter key is parsed, and would never verify.
    let long = |key| PublicEncryptingKey::from_der(key).is_ok_and(|k| k.key_size_bits() >= MIN_RSA);
    if algorithm == -257 && !long(key) {
        return Err("an RSA key of fewer than 2048 bits");
    }
    ParsedPublicKey::new(by, key).map_err(|_| "no public key of its algorithm")
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::{
        encoding::AsDer,
        rand::SystemRandom,
        rsa::{KeySize, PrivateDecryptingKey},
        signature::{
            ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair,
            Ed25519KeyPair, KeyPair,
        },
    };
    use proptest::prelude::*;

    const ORIGIN: &str = "https://portal.example";

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }
    /// A device of one key, that can be made to lie.
    struct Device {
        key: EcdsaKeyPair,
    }
    #[derive(Clone, Copy)]
    struct Saying<'a> {
        kind: &'a str,
        origin: &'a str,
        more: &'a str,
        site: &'a str,
        flags: u8,
        algorithm: &'a str,
    }
    const HONEST: Saying<'static> = Saying {
        kind: "",
        origin: ORIGIN,
        more: "",
        site: "portal.example",
        flags: PRESENT | VERIFIED,
        algorithm: "-7",
    };
    impl Device {
        fn new() -> Self {
            Self { key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap() }
        }
        fn data(saying: Saying<'_>, challenge: &str, usual: &str, flags: u8) -> (String, Vec<u8>) {
            let kind = if saying.kind.is_empty() { usual } else { saying.kind };
            let (origin, more) = (saying.origin, saying.more);
            let client = format!(
                "{{\"type\":\"{kind}\",\"challenge\":\"{challenge}\",\"origin\":\"{origin}\"{more}}}"
            );
            let site = Sha256::digest(saying.site);
            let head = [site.as_slice(), &[saying.flags | flags], &7_u32.to_be_bytes()].concat();
            (client, head)
        }
        fn make(&self, saying: Saying<'_>, challenge: &str) -> Attestation {
            let (client, mut data) = Self::data(saying, challenge, "webauthn.create", KEY_COMES);
            data.extend_from_slice(&[[0; 16].as_slice(), &3_u16.to_be_bytes(), b"abc"].concat());
            let key = self.key.public_key();
            Attestation {
                client_data: BASE64URL_NOPAD.encode(client.as_bytes()),
                authenticator_data: BASE64URL_NOPAD.encode(&data),
                public_key: BASE64URL_NOPAD.encode(key.as_der().unwrap().as_ref()),
                algorithm: saying.algorithm.to_owned(),
                name: String::new(),
            }
        }
        fn sign(&self, saying: Saying<'_>, challenge: &str) -> Assertion {
            let (client, data) = Self::data(saying, challenge, "webauthn.get", 0);
            let message = [data.as_slice(), Sha256::digest(&client).as_slice()].concat();
            let signature = self.key.sign(&SystemRandom::new(), &message).unwrap();
            Assertion {
                credential: "YWJj".to_owned(),
                client_data: BASE64URL_NOPAD.encode(client.as_bytes()),
                authenticator_data: BASE64URL_NOPAD.encode(&data),
                signature: BASE64URL_NOPAD.encode(signature.as_ref()),
                user_handle: String::new(),
            }
        }
        fn kept(&self) -> Passkey {
            Passkey {
                id: "YWJj".to_owned(),
                key: BASE64URL_NOPAD.encode(self.key.public_key().as_der().unwrap().as_ref()),
                algorithm: -7,
                counter: 0,
                copyable: Some(false),
                name: String::new(),
                created: at(0),
                proved: false,
                used: None,
            }
        }
    }
    fn lies() -> Vec<(Saying<'static>, &'static str)> {
        vec![
            (Saying { kind: "payment.get", ..HONEST }, "made for something else"),
            (Saying { origin: "https://evil.example", ..HONEST }, "made at another site"),
            (Saying { origin: "https://portal.example:444", ..HONEST }, "made at another site"),
            (Saying { more: ",\"crossOrigin\":true", ..HONEST }, "made at another site"),
            (Saying { site: "evil.example", ..HONEST }, "a passkey of another site"),
            (Saying { flags: PRESENT, ..HONEST }, "the device did not make sure who uses it"),
            (Saying { flags: VERIFIED, ..HONEST }, "the device did not make sure who uses it"),
            (
                Saying { more: ",\"topOrigin\":\"https://a.example\"", ..HONEST },
                "made at another site",
            ),
            (
                Saying { flags: HONEST.flags | COPIED, ..HONEST },
                "a copy of a key that can't be copied",
            ),
            (Saying { more: ",\"challenge\":\"AA\"", ..HONEST }, "no client data"),
            (Saying { more: ",\"crossOrigin\":\"no\"", ..HONEST }, "no client data"),
        ]
    }

    #[test]
    fn a_passkey_is_made_once_by_the_session_that_asked() {
        let (device, challenges, party) =
            (Device::new(), Challenges::default(), Party::new(ORIGIN));
        let own = Purpose::Add(TokenHash::from_bytes([1; 32]));
        let take = |said: &Attestation, purpose: &Purpose, now| {
            made(&party, &challenges, purpose, said, at(now))
        };
        let fresh = challenges.ask(&own, at(0));
        let said = device.make(HONEST, &fresh);
        let other = Purpose::Add(TokenHash::from_bytes([2; 32]));
        for purpose in [other, Purpose::SignIn] {
            assert!(take(&said, &purpose, 1).unwrap_err().contains("not ours"));
        }
        let kept = take(&said, &own, 1).unwrap();
        assert_eq!((kept.id.as_slice(), kept.algorithm, kept.counter), (b"abc".as_slice(), -7, 7));
        assert_eq!(BASE64URL_NOPAD.encode(&kept.key), device.kept().key);
        assert!(take(&said, &own, 2).unwrap_err().contains("used already"));
        let late = device.make(HONEST, &challenges.ask(&own, at(0)));
        assert!(take(&late, &own, 15 * 60 + 1).unwrap_err().contains("time is over"));
        for (saying, why) in lies().into_iter().chain([
            (Saying { algorithm: "-65535", ..HONEST }, "an algorithm that was not asked for"),
            (Saying { algorithm: "-8", ..HONEST }, "no public key of its algorithm"),
        ]) {
            let said = device.make(saying, &challenges.ask(&own, at(0)));
            assert_eq!(take(&said, &own, 1).unwrap_err(), why);
        }
    }
    #[test]
    fn a_sign_in_is_signed_by_the_kept_key_over_our_challenge() {
        let (device, challenges, party) =
            (Device::new(), Challenges::default(), Party::new(ORIGIN));
        let sign_in =
            |assertion: &Assertion| said(&party, &challenges, &device.kept(), assertion, at(1));
        let ask = || challenges.ask(&Purpose::SignIn, at(0));
        let good = device.sign(HONEST, &ask());
        assert_eq!(sign_in(&good), Ok(7));
        assert!(sign_in(&good).unwrap_err().contains("used already"));
        let other = Device::new().sign(HONEST, &ask());
        assert_eq!(sign_in(&other), Err("a signature by another key"));
        let mut moved = device.sign(HONEST, &ask());
        moved.client_data = device.sign(HONEST, &ask()).client_data;
        assert_eq!(sign_in(&moved), Err("a signature by another key"));
        let foreign = Challenges::default().ask(&Purpose::SignIn, at(0));
        assert!(sign_in(&device.sign(HONEST, &foreign)).unwrap_err().contains("not ours"));
        for (saying, why) in lies() {
            assert_eq!(sign_in(&device.sign(saying, &ask())), Err(why));
        }
        for empty in ["", "AA", "not base64!"] {
            let broken = Assertion { authenticator_data: empty.to_owned(), ..good.clone() };
            assert!(sign_in(&broken).is_err(), "{empty}");
        }
    }
    #[test]
    fn the_site_is_the_host_of_the_portals_address() {
        for (origin, id) in [
            ("https://portal.example", "portal.example"),
            ("http://localhost:8080", "localhost"),
            ("http://[::1]:8080", "[::1]"),
            ("http://[::1]", "[::1]"),
        ] {
            assert_eq!(Party::new(origin).id, id);
        }
        for (configured, said) in [
            ("https://Portal.Example", "https://portal.example"),
            ("https://portal.example:443", "https://portal.example"),
            ("https://portal.example:4443", "https://portal.example:4443"),
            ("http://localhost:80", "http://localhost"),
        ] {
            assert_eq!(Party::new(configured).origin, said, "as browsers say it");
        }
    }
    #[test]
    fn a_key_is_of_its_algorithm_and_on_its_curve() {
        let p256 = Device::new().key.public_key().as_der().unwrap().as_ref().to_vec();
        let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).unwrap();
        let p384 = p384.public_key().as_der().unwrap().as_ref().to_vec();
        let edwards = Ed25519KeyPair::generate().unwrap();
        let edwards = edwards.public_key().as_der().unwrap().as_ref().to_vec();
        let mut off_curve = p256.clone();
        *off_curve.last_mut().unwrap() ^= 1;
        let mut nowhere = p256.clone();
        nowhere.truncate(nowhere.len() - 65);
        nowhere.push(0);
        let cases: [(i32, &[u8], bool, &str); 11] = [
            (-7, &p256, true, "P-256"),
            (-8, &edwards, true, "Ed25519"),
            (-7, &p384, false, "P-384 for ES256"),
            (-7, &edwards, false, "Ed25519 for ES256"),
            (-8, &p256, false, "P-256 for EdDSA"),
            (-257, &p256, false, "P-256 for RS256"),
            (-7, &off_curve, false, "a point that is not on the curve"),
            (-7, &nowhere, false, "the point at infinity"),
            (-7, &[], false, "nothing"),
            (-35, &p384, false, "ES384 was not asked for"),
            (0, &p256, false, "no algorithm"),
        ];
        for (algorithm, key, good, what) in cases {
            assert_eq!(parsed(algorithm, key).is_ok(), good, "{what}");
        }
    }
    #[test]
    fn an_rsa_key_under_2048_bits_makes_no_passkey() {
        // No library that signs makes one so short any more; this is of openssl's.
        let short = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC6xJJyIBJyGIp0Xn84Rq4wlwr5mOExk4dzIClzHeMa4-skIoqkgZnWxW8j_sC1SwIOWdV-kweyTrz8Pw7a3z8KpAOFx_ZkAjk-MbRVgH7B2P_OmB4F7_nHs5RZLT-d0iM7iyQTfpJcaG3J4JHtkogLBhQ7fxYjmW5uFkj5JlSAiwIDAQAB";
        let long = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap().public_key();
        let long = BASE64URL_NOPAD.encode(AsDer::as_der(&long).unwrap().as_ref());
        let own = Purpose::Add(TokenHash::from_bytes([1; 32]));
        let (challenges, party) = (Challenges::default(), Party::new(ORIGIN));
        for (key, good) in [(short, false), (long.as_str(), true)] {
            let attestation = Attestation {
                public_key: key.to_owned(),
                algorithm: "-257".to_owned(),
                ..Device::new().make(HONEST, &challenges.ask(&own, at(0)))
            };
            let taken = made(&party, &challenges, &own, &attestation, at(1));
            assert_eq!(taken.is_ok(), good, "{taken:?}");
        }
    }
    #[test]
    fn whether_a_key_can_be_copied_never_changes() {
        let (device, challenges, party) =
            (Device::new(), Challenges::default(), Party::new(ORIGIN));
        let copyable = Saying { flags: HONEST.flags | COPYABLE, ..HONEST };
        let copied = Saying { flags: copyable.flags | COPIED, ..HONEST };
        let rows = [
            (Some(false), HONEST, true),
            (Some(false), copyable, false),
            (Some(true), copyable, true),
            (Some(true), copied, true),
            (Some(true), HONEST, false),
            (None, HONEST, true),
            (None, copied, true),
        ];
        for (kept, saying, good) in rows {
            let passkey = Passkey { copyable: kept, ..device.kept() };
            let assertion = device.sign(saying, &challenges.ask(&Purpose::SignIn, at(0)));
            let taken = said(&party, &challenges, &passkey, &assertion, at(1));
            assert_eq!(taken.is_ok(), good, "{kept:?} {:x}: {taken:?}", saying.flags);
        }
        let own = Purpose::Add(TokenHash::from_bytes([1; 32]));
        for (saying, expected) in [(HONEST, false), (copied, true)] {
            let attestation = device.make(saying, &challenges.ask(&own, at(0)));
            let made = made(&party, &challenges, &own, &attestation, at(1)).unwrap();
            assert_eq!(made.copyable, expected);
        }
    }
    #[test]
    fn a_credential_id_has_a_length_that_fits() {
        let (device, challenges, party) =
            (Device::new(), Challenges::default(), Party::new(ORIGIN));
        let own = Purpose::Add(TokenHash::from_bytes([1; 32]));
        let head = |length: u16| {
            let (_, head) = Device::data(HONEST, "", "", KEY_COMES);
            [head.as_slice(), &[0; 16], &length.to_be_bytes()].concat()
        };
        for (length, comes, good) in [
            (0, 0, false),
            (1, 0, false),
            (1023, 1023, true),
            (1024, 1024, false),
            (0xffff, 9, false),
        ] {
            let data = [head(length), vec![7; comes]].concat();
            let said = Attestation {
                authenticator_data: BASE64URL_NOPAD.encode(&data),
                ..device.make(HONEST, &challenges.ask(&own, at(0)))
            };
            let taken = made(&party, &challenges, &own, &said, at(1));
            assert_eq!(taken.is_ok(), good, "{length}, {comes}: {taken:?}");
        }
    }

    proptest! {
        /// Nothing that comes in makes the verifier panic, nor lets anybody in.
        #[test]
        fn no_input_panics_it(
            client in prop_oneof![any::<String>(), "[A-Za-z0-9_-]{0,200}"],
            json in ".{0,60}",
            data in proptest::collection::vec(any::<u8>(), 0..300),
            key in proptest::collection::vec(any::<u8>(), 0..200),
            algorithm in prop_oneof![any::<i32>(), Just(-7), Just(-8), Just(-257)],
        ) {
            let (challenges, party) = (Challenges::default(), Party::new(ORIGIN));
            let client_data = [
                client,
                BASE64URL_NOPAD.encode(json.as_bytes()),
                BASE64URL_NOPAD.encode(format!(
                    "{{\"type\":\"webauthn.get\",\"challenge\":{json:?},\"origin\":\"{ORIGIN}\"}}"
                ).as_bytes()),
            ];
            let site = Sha256::digest(&party.id);
            let devices = [data.clone(), [site.as_slice(), &[0xff], &data].concat()];
            for client_data in client_data {
                for device in &devices {
                    let passkey = Passkey { key: BASE64URL_NOPAD.encode(&key), algorithm,
                        ..Device::new().kept() };
                    let assertion = Assertion {
                        client_data: client_data.clone(),
                        authenticator_data: BASE64URL_NOPAD.encode(device),
                        signature: BASE64URL_NOPAD.encode(&data),
                        ..Assertion::default()
                    };
                    prop_assert!(said(&party, &challenges, &passkey, &assertion, at(0)).is_err());
                    let attestation = Attestation {
                        client_data: client_data.replace("ZXQ", "Y3Jl"),
                        authenticator_data: BASE64URL_NOPAD.encode(device),
                        public_key: passkey.key.clone(),
                        algorithm: algorithm.to_string(),
                        name: String::new(),
                    };
                    prop_assert!(
                        made(&party, &challenges, &Purpose::SignIn, &attestation, at(0)).is_err()
                    );
                }
            }
        }
        /// One changed byte of what a device has signed is one too many.
        #[test]
        fn no_byte_can_be_changed(at_byte in any::<prop::sample::Index>(), bit in 0..8_u32) {
            let (device, challenges, party) =
                (Device::new(), Challenges::default(), Party::new(ORIGIN));
            let good = device.sign(HONEST, &challenges.ask(&Purpose::SignIn, at(0)));
            let changed = |text: &str| {
                let mut bytes = BASE64URL_NOPAD.decode(text.as_bytes()).unwrap();
                let at_byte = at_byte.index(bytes.len());
                bytes[at_byte] ^= 1 << bit;
                BASE64URL_NOPAD.encode(&bytes)
            };
            for lie in [
                Assertion { client_data: changed(&good.client_data), ..good.clone() },
                Assertion { authenticator_data: changed(&good.authenticator_data), ..good.clone() },
                Assertion { signature: changed(&good.signature), ..good.clone() },
            ] {
                prop_assert!(said(&party, &challenges, &device.kept(), &lie, at(1)).is_err());
            }
            prop_assert!(said(&party, &challenges, &device.kept(), &good, at(1)).is_ok());
        }
    }
}
