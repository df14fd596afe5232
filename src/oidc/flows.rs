//! Sign-ins under way elsewhere: what binds one together, and which have ended.
use super::{LoginFlow, Prompt, Provider};
use crate::seal::LinkToken;
use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;
use jiff::{SignedDuration, Timestamp};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use zeroize::Zeroizing;

/// How long a sign-in elsewhere may take.
pub const PATIENCE: SignedDuration = SignedDuration::from_mins(10);
/// Login flows that came back, remembered at most. Beyond it the oldest are forgotten: a code is good once
/// at its provider anyhow, and a crowd must not end the sign-ins of all others.
const MAX_ENDED: usize = 10_000;
/// Login flows of one client within [`PATIENCE`] that asked a provider in vain: each costs a request there.
const MAX_IN_VAIN: usize = 30;

/// A client as tries are counted: one IPv6 customer has at least a /64.
pub fn client_key(client: IpAddr) -> String {
    match client.to_canonical() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("{:x}", u128::from(v6) >> 64),
    }
}

/// Sign-ins under way elsewhere, without a memory of those that do not come back: all that binds one
/// together is made from the browser's cookie and a secret of ours. Those that came back are
/// remembered until their time is over, so that each ends once.
pub struct LoginFlows {
    key: hmac::Key,
    ended: Mutex<BTreeMap<[u8; 32], Ended>>,
}
/// A login flow that came back.
struct Ended {
    /// When it began.
    at: Timestamp,
    /// The client that it counts against, as long as the provider has not answered for it.
    client: Option<String>,
}
impl Default for LoginFlows {
    fn default() -> Self {
        let secret: [u8; 32] = rand::random();
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &secret), ended: Mutex::default() }
    }
}
impl std::fmt::Debug for LoginFlows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LoginFlows(..)")
    }
}
impl LoginFlows {
    fn sealed(&self, what: &str, cookie: &str, provider: &Provider, second: i64) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        // Each part behind its length: none can run into the next.
        for part in [what, cookie, provider.issuer(), provider.name()] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        context.update(&second.to_be_bytes());
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        bytes
    }
    /// The login flow of a browser that sets out to a provider at that time.
    pub fn flow(
        &self,
        cookie: &str,
        provider: &Provider,
        at: Timestamp,
        redirect: &str,
    ) -> LoginFlow {
        let second = at.as_second();
        let text = |what| BASE64URL_NOPAD.encode(&self.sealed(what, cookie, provider, second));
        let state =
            [second.to_be_bytes().as_slice(), &self.sealed("state", cookie, provider, second)]
                .concat();
        LoginFlow {
            state: BASE64URL_NOPAD.encode(&state),
            nonce: text("nonce"),
            verifier: Zeroizing::new(text("verifier")),
            redirect: redirect.to_owned(),
            prompt: prompt_of(cookie),
        }
    }
    /// The login flow that this browser set out on, if it comes back in time; and to whom it went.
    pub fn found<'p>(
        &self,
        cookie: &str,
        state: &str,
        providers: &'p [Arc<Provider>],
        redirect: &str,
        now: Timestamp,
    ) -> Result<(&'p Arc<Provider>, LoginFlow, Return), &'static str> {
        let bytes = BASE64URL_NOPAD.decode(state.as_bytes()).map_err(|_| "no state of ours")?;
        let (second, seal) = bytes.split_first_chunk::<8>().ok_or("a short state")?;
        let seal = <[u8; 32]>::try_from(seal).map_err(|_| "a state of another length")?;
        let second = i64::from_be_bytes(*second);
        let same = |provider: &&Arc<Provider>| -> bool {
            let ours = self.sealed("state", cookie, provider, second);
            subtle::ConstantTimeEq::ct_eq(ours.as_slice(), &seal).into()
        };
        let provider = providers.iter().find(same).ok_or("a state of another browser, or none")?;
        let at = Timestamp::from_second(second).map_err(|_| "a state of no time")?;
        if now.duration_since(at) > PATIENCE {
            return Err("a sign-in whose time is over");
        }
        Ok((provider, self.flow(cookie, provider, at, redirect), Return { seal, at }))
    }
    /// Ends a login flow, which may then go on to an account: each does so once. `None`: it came back
    /// before; false: too many of that client were in vain.
    pub fn end(&self, back: &Return, client: Option<String>, now: Timestamp) -> Option<bool> {
        let mut ended = self.remembered();
        ended.retain(|_, flow| now.duration_since(flow.at) <= PATIENCE);
        if ended.contains_key(&back.seal) {
            return None;
        }
        let own = |flow: &&Ended| client.is_some() && flow.client == client;
        if ended.values().filter(own).count() >= MAX_IN_VAIN {
            return Some(false);
        }
        if ended.len() >= MAX_ENDED {
            let oldest = ended.iter().min_by_key(|(_, flow)| flow.at).map(|(seal, _)| *seal);
            oldest.and_then(|oldest| ended.remove(&oldest));
        }
        ended.insert(back.seal, Ended { at: back.at, client });
        Some(true)
    }
    /// A login flow was not in vain, or not by its client's fault.
    pub fn refund(&self, back: &Return) {
        if let Some(flow) = self.remembered().get_mut(&back.seal) {
            flow.client = None;
        }
    }
    fn remembered(&self) -> MutexGuard<'_, BTreeMap<[u8; 32], Ended>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// How many ended that are remembered.
    #[cfg(test)]
    pub(crate) fn ended(&self) -> usize {
        self.remembered().len()
    }
}

/// The value of a login flow's cookie: a secret, the token of the link that led here, and how the provider
/// is to prompt.
pub fn cookie_of(link: &str, prompt: Prompt) -> Zeroizing<String> {
    let mut secret = Zeroizing::new([0; 32]);
    rand::fill(secret.as_mut_slice());
    let secret = LinkToken::from_random(secret);
    let link = LinkToken::parse(link);
    let link = link.as_ref().map(LinkToken::expose).unwrap_or_default();
    let prompt = match prompt {
        Prompt::SelectAccount => "",
        Prompt::Login => ".login",
    };
    Zeroizing::new(format!("{}.{link}{prompt}", secret.expose()))
}
/// The token in a login flow's cookie; empty if no link led here.
pub fn link_of(cookie: &str) -> &str {
    cookie.split('.').nth(1).unwrap_or_default()
}
fn prompt_of(cookie: &str) -> Prompt {
    if cookie.ends_with(".login") { Prompt::Login } else { Prompt::SelectAccount }
}

/// By what a login flow that has ended is remembered, and when it began.
#[derive(Debug)]
pub struct Return {
    seal: [u8; 32],
    at: Timestamp,
}
