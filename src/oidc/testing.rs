//! A provider of identities, made in the test: it signs with keys of its own, keeps to its codes,
//! and lies as it is told.

use super::{Provider, ProviderSettings};
use crate::wire::{Api, Page, Question, WebError, WebPlace};
use async_trait::async_trait;
use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
        RsaKeyPair,
    },
};
use bytes::Bytes;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use zeroize::Zeroizing;

pub(crate) const ISSUER: &str = "https://op.test/realm";
pub(crate) const CLIENT: &str = "restante at the clinic";
pub(crate) const SECRET: &str = "p\u{e4}ss: & word";

/// By what a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signer {
    Rsa,
    P256,
    Ed25519,
    /// A key of P-256 that is not in the set.
    Stranger,
    /// HMAC with a public key of the set as its secret.
    HmacOfPublicKey,
    Nobody,
}
/// What is changed of a token before it is signed: its header, and its claims.
pub(crate) type Bend = fn(&mut Value, &mut Value);
/// Where userinfo is.
pub(crate) const USERINFO: &str = "https://op.test/userinfo";
const ACCESS: &str = "an-access-token";

#[derive(Debug)]
struct Awaited {
    nonce: String,
    challenge: String,
    redirect: String,
}
struct State {
    signer: Signer,
    bend: Bend,
    metadata: Value,
    keys: Value,
    /// What the token endpoint says of its access token.
    token_type: &'static str,
    userinfo: Value,
    userinfo_type: &'static str,
    codes: BTreeMap<String, Awaited>,
    /// Places that do not answer.
    down: Vec<&'static str>,
    asked: Vec<String>,
    now: Timestamp,
}

/// The provider.
pub(crate) struct Op {
    rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    stranger: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
    state: Mutex<State>,
}
impl std::fmt::Debug for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Op")
    }
}

fn text(bytes: impl AsRef<[u8]>) -> String {
    BASE64URL_NOPAD.encode(bytes.as_ref())
}

impl Op {
    pub(crate) fn new(now: Timestamp) -> Arc<Self> {
        let p256 = || EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let op = Self {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            p256: p256(),
            stranger: p256(),
            ed25519: Ed25519KeyPair::generate().unwrap(),
            state: Mutex::new(State {
                signer: Signer::P256,
                bend: |_, _| {},
                metadata: json!({
                    "issuer": ISSUER,
                    "authorization_endpoint": "https://op.test/authorize",
                    "token_endpoint": "https://op.test/token",
                    "jwks_uri": "https://op.test/keys",
                    "token_endpoint_auth_methods_supported":
                        ["client_secret_basic", "client_secret_post"],
                }),
                keys: Value::Null,
                token_type: "bearer",
                userinfo: json!({
                    "sub": "17", "email": "ann@clinic.example", "email_verified": true,
                    "given_name": "Ann", "family_name": "Ode",
                }),
                userinfo_type: "application/json",
                codes: BTreeMap::new(),
                down: Vec::new(),
                asked: Vec::new(),
                now,
            }),
        };
        op.state.lock().unwrap().keys = op.own_keys();
        Arc::new(op)
    }
    pub(crate) fn provider(self: &Arc<Self>, domains: &[&str]) -> Arc<Provider> {
        self.provider_of(ISSUER, domains)
    }
    pub(crate) fn provider_of(self: &Arc<Self>, issuer: &str, domains: &[&str]) -> Arc<Provider> {
        let settings = ProviderSettings {
            name: "Op".to_owned(),
            issuer: issuer.to_owned(),
            client_id: CLIENT.to_owned(),
            secret: Zeroizing::new(SECRET.to_owned()),
            domains: domains.iter().map(|domain| domain.parse().unwrap()).collect(),
        };
        self.state.lock().unwrap().metadata["issuer"] = json!(issuer);
        Arc::new(Provider::new(settings, Arc::clone(self) as _))
    }
    /// The set: a key of each kind, and what a client must leave out.
    pub(crate) fn own_keys(&self) -> Value {
        // RFC 8017 A.1.1: a key of 2048 bits and the usual exponent has its modulus here.
        let n = &self.rsa.public_key().as_ref()[9..265];
        let point = |key: &EcdsaKeyPair| {
            let bytes = key.public_key().as_ref();
            (text(&bytes[1..33]), text(&bytes[33..65]))
        };
        let (x, y) = point(&self.p256);
        json!({"keys": [
            {"kty": "RSA", "kid": "rsa", "use": "sig", "alg": "RS256", "n": text(n), "e": "AQAB"},
            {"kty": "EC", "kid": "p256", "crv": "P-256", "x": x, "y": y},
            {"kty": "OKP", "kid": "ed25519", "crv": "Ed25519", "x": text(self.ed25519.public_key())},
            {"kty": "RSA", "kid": "for-encryption", "use": "enc", "n": text(n), "e": "AQAB"},
            {"kty": "RSA", "kid": "for-pss", "use": "sig", "alg": "PS256", "n": text(n), "e": "AQAB"},
            {"kty": "EC", "kid": "off-curve", "crv": "P-256", "x": x, "y": x},
            {"kty": "oct", "kid": "oct", "k": "AAAA"},
            {"kty": 7},
        ]})
    }
    pub(crate) fn says(&self, signer: Signer, bend: Bend) {
        let mut state = self.state.lock().unwrap();
        (state.signer, state.bend) = (signer, bend);
    }
    pub(crate) fn set_metadata(&self, key: &str, value: Value) {
        self.state.lock().unwrap().metadata[key] = value;
    }
    pub(crate) fn set_keys(&self, keys: Value) {
        self.state.lock().unwrap().keys = keys;
    }
    /// What userinfo says, and of what media type and for which kind of token.
    pub(crate) fn set_userinfo(
        &self,
        info: Value,
        media_type: &'static str,
        token_type: &'static str,
    ) {
        let mut state = self.state.lock().unwrap();
        (state.userinfo, state.userinfo_type) = (info, media_type);
        state.token_type = token_type;
    }
    pub(crate) fn set_down(&self, down: &[&'static str]) {
        self.state.lock().unwrap().down = down.to_vec();
    }
    pub(crate) fn set_now(&self, now: Timestamp) {
        self.state.lock().unwrap().now = now;
    }
    /// Places asked so far, and forgets them.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }
    /// Somebody signs in at the place that a browser was led to; code and state that come back.
    pub(crate) fn signs_in(&self, url: &str) -> (String, String) {
        let query = url.strip_prefix("https://op.test/authorize?").unwrap();
        let asked: BTreeMap<_, _> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let of = |key: &str| asked.get(key).unwrap_or_else(|| panic!("no {key} in {url}")).clone();
        assert_eq!((of("response_type"), of("client_id")), ("code".to_owned(), CLIENT.to_owned()));
        assert_eq!(of("code_challenge_method"), "S256");
        assert!(of("scope").split(' ').any(|scope| scope == "openid"));
        let mut state = self.state.lock().unwrap();
        let code = format!("code {}", state.codes.len());
        let awaited = Awaited {
            nonce: of("nonce"),
            challenge: of("code_challenge"),
            redirect: of("redirect_uri"),
        };
        state.codes.insert(code.clone(), awaited);
        (code, of("state"))
    }
    fn token(&self, state: &State, nonce: &str) -> String {
        let (alg, kid) = match state.signer {
            Signer::Rsa => ("RS256", "rsa"),
            Signer::P256 | Signer::Stranger => ("ES256", "p256"),
            Signer::Ed25519 => ("EdDSA", "ed25519"),
            Signer::HmacOfPublicKey => ("HS256", "rsa"),
            Signer::Nobody => ("none", "p256"),
        };
        let now = state.now.as_second();
        let mut header = json!({"alg": alg, "kid": kid, "typ": "JWT"});
        let mut claims = json!({
            "iss": state.metadata["issuer"], "sub": "17", "aud": CLIENT, "exp": now + 300,
            "iat": now, "nonce": nonce, "email": "ann@clinic.example", "email_verified": true,
            "given_name": "Ann", "family_name": "Ode",
        });
        (state.bend)(&mut header, &mut claims);
        let message = format!("{}.{}", text(header.to_string()), text(claims.to_string()));
        format!("{message}.{}", text(self.signature(state.signer, message.as_bytes())))
    }
    fn signature(&self, signer: Signer, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match signer {
            Signer::Rsa => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                self.rsa.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Signer::P256 => self.p256.sign(&random, message).unwrap().as_ref().to_vec(),
            Signer::Stranger => self.stranger.sign(&random, message).unwrap().as_ref().to_vec(),
            Signer::Ed25519 => self.ed25519.sign(message).as_ref().to_vec(),
            Signer::HmacOfPublicKey => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, self.rsa.public_key().as_ref());
                hmac::sign(&key, message).as_ref().to_vec()
            }
            Signer::Nobody => Vec::new(),
        }
    }
    /// RFC 6749 section 4.1.3, RFC 7636 section 4.6.
    fn redeem(&self, state: &mut State, question: &Question) -> Option<Value> {
        let form = form_urlencoded::parse(question.form.as_ref()?.as_bytes()).into_owned();
        let form: BTreeMap<_, _> = form.collect();
        let of = |key: &str| form.get(key).map(String::as_str);
        let known = match &question.authorization {
            None => of("client_id") == Some(CLIENT) && of("client_secret") == Some(SECRET),
            Some(basic) => {
                let both = BASE64.decode(basic.strip_prefix("Basic ")?.as_bytes()).ok()?;
                both == b"restante+at+the+clinic:p%C3%A4ss%3A+%26+word"
            }
        };
        let awaited = state.codes.remove(of("code")?)?;
        let right = text(Sha256::digest(of("code_verifier")?)) == awaited.challenge
            && of("redirect_uri") == Some(&awaited.redirect)
            && of("grant_type") == Some("authorization_code");
        (known && right).then(|| {
            json!({
                "access_token": ACCESS, "token_type": state.token_type,
                "id_token": self.token(state, &awaited.nonce),
            })
        })
    }
}

#[async_trait]
impl Api for Op {
    async fn ask(&self, to: &WebPlace, question: Question) -> Result<Page, WebError> {
        let mut state = self.state.lock().unwrap();
        state.asked.push(to.path.clone());
        if state.down.contains(&to.path.as_str()) {
            return Err(WebError::Unreachable("no answer".to_owned()));
        }
        let bearer = question.authorization.as_ref().map(|field| field.as_str());
        let mut media_type = "application/json";
        let body = match (to.path.as_str(), question.form.is_some()) {
            // RFC 6750 section 2.1.
            ("/userinfo", false) if bearer == Some(&format!("Bearer {ACCESS}")) => {
                media_type = state.userinfo_type;
                state.userinfo.clone()
            }
            ("/userinfo", false) => return Err(WebError::Status(401)),
            ("/keys", false) => state.keys.clone(),
            ("/token", true) => self.redeem(&mut state, &question).ok_or(WebError::Status(400))?,
            (path, false) if path.ends_with("/.well-known/openid-configuration") => {
                state.metadata.clone()
            }
            _ => return Err(WebError::Status(404)),
        };
        Ok(Page { media_type: media_type.to_owned(), body: Bytes::from(body.to_string()) })
    }
}
