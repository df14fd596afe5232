//! What a device says of a passkey, held against what it was asked (Web Authentication Level 2,
//! sections 7.1 and 7.2). Attestation is not asked for: any device will do, and what it says of its
//! make is not looked at.
use super::super::form::{Assertion, Attestation};
use crate::{seal::TokenHash, store::Passkey};
use aws_lc_rs::{
    hmac,
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
/// Flags of authenticator data (section 6.1): the user is present, and verified; a key comes with
/// it.
const PRESENT: u8 = 0x01;
const VERIFIED: u8 = 0x04;
const KEY_COMES: u8 = 0x40;

/// What a challenge was made for; it is good for nothing else.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    SignIn,
    /// By the session that adds it.
    Add(TokenHash),
}

/// Challenges without a memory of those that nobody answered: each bears its time and a seal, so
/// that looking at a page stores nothing. Used ones are remembered until their time is over.
#[derive(Debug)]
pub(in super::super) struct Challenges {
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
pub(super) struct Party<'a> {
    origin: &'a str,
    /// The host of that address (section 5.1.2: the relying party's id).
    pub(super) id: &'a str,
}
impl<'a> Party<'a> {
    pub(super) fn new(origin: &'a str) -> Self {
        let authority = origin.split_once("://").map_or(origin, |(_, rest)| rest);
        let host = authority.rsplit_once(':').filter(|(_, port)| !port.contains(']'));
        Self { origin, id: host.map_or(authority, |(host, _)| host) }
    }
}

/// A passkey that was just made.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) id: Vec<u8>,
    pub(super) key: Vec<u8>,
    pub(super) algorithm: i32,
    pub(super) counter: u32,
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
}
/// The head of authenticator data (section 6.1), and what follows.
struct DeviceData<'a> {
    flags: u8,
    counter: u32,
    rest: &'a [u8],
}

/// A new passkey (section 7.1).
pub(super) fn made(
    party: &Party<'_>,
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
    Ok(Made { id: id.to_owned(), key, algorithm, counter: head.counter })
}

/// A sign-in (section 7.2); the device's count of signatures.
pub(super) fn said(
    party: &Party<'_>,
    challenges: &Challenges,
    passkey: &Passkey,
    said: &Assertion,
    now: Timestamp,
) -> Result<u32, &'static str> {
    let client = decoded(&said.client_data)?;
    let challenge = judged(&client, "webauthn.get", party)?;
    let device = decoded(&said.authenticator_data)?;
    let head = head_of(&device, party)?;
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
fn judged(client: &[u8], kind: &str, party: &Party<'_>) -> Result<String, &'static str> {
    let data: ClientData = serde_json::from_slice(client).map_err(|_| "no client data")?;
    if data.kind != kind {
        return Err("made for something else");
    }
    if data.origin != party.origin || data.cross_origin {
        return Err("made at another site");
    }
    Ok(data.challenge)
}

fn head_of<'a>(device: &'a [u8], party: &Party<'_>) -> Result<DeviceData<'a>, &'static str> {
    let short = "short authenticator data";
    let (site, rest) = device.split_first_chunk::<32>().ok_or(short)?;
    let (flags, rest) = rest.split_first().ok_or(short)?;
    let (counter, rest) = rest.split_first_chunk::<4>().ok_or(short)?;
    if *site != <[u8; 32]>::from(Sha256::digest(party.id)) {
        return Err("a passkey of another site");
    }
    if flags & PRESENT == 0 || flags & VERIFIED == 0 {
        return Err("the device did not make sure who uses it");
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
    ParsedPublicKey::new(by, key).map_err(|_| "no public key of its algorithm")
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::{
        encoding::AsDer,
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
    };

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
                name: String::new(),
                created: at(0),
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
    }
}
