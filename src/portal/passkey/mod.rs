//! Passkeys: sign-in by a key pair whose secret half stays in the reader's device (Web
//! Authentication Level 2). The device asks its owner for a finger, a face or a PIN, so a passkey
//! stands for both factors.
//!
//! It is the one thing here that needs a script, on two pages of their own.
mod verify;

use super::{
    Desk, Fault, codes,
    form::{Assertion, Attestation, Errors},
    guard::origin_of,
    pages::{self, retry_after},
    session::{self, Visitor},
    show,
    throttle::keys_of,
};
use crate::{
    language::{Text, say},
    store::{Account, Passkey},
    vault::Change,
};
use axum::{
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use data_encoding::BASE64URL_NOPAD;
use jiff::SignedDuration;
use minijinja::{Value, context};
pub(super) use verify::Challenges;
use verify::{Party, Purpose};

/// Passkeys of an account.
pub(super) const MOST: usize = 10;
/// How long after the password was typed a passkey may be made.
const PROVED: SignedDuration = SignedDuration::from_mins(15);
/// Longest name of a passkey, in characters.
const MAX_NAME: usize = 60;
/// The pages that talk to the device: our own script, and that is all.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

type Answer = Result<Response, Fault>;

/// `GET /assets/passkey.js`
pub(super) async fn script() -> Response {
    pages::script(include_str!("../assets/passkey.js"))
}

/// An account's passkeys as its page shows them.
pub(super) fn listed(account: &Account) -> Value {
    let line = |passkey: &Passkey| {
        context! {
            id => &passkey.id, name => &passkey.name, created => show::day(passkey.created),
            used => passkey.used.map_or_else(|| Value::from(""), show::moment),
        }
    };
    account.passkeys.iter().map(line).collect()
}

fn with_script(page: Response) -> Response {
    pages::with_policy(page, CSP)
}

impl Desk {
    fn party(&self) -> Party {
        Party::new(&origin_of(&self.settings.url))
    }
    /// Where a passkey signs in.
    pub(super) fn passkey_page(
        &self,
        status: StatusCode,
        visitor: &Visitor,
        errors: &Errors,
    ) -> Answer {
        let values = context! {
            errors => errors.to_value(), party => self.party().id,
            challenge => self.challenges.ask(&Purpose::SignIn, self.now()),
        };
        let title = say!("Sign in with a passkey");
        self.pages.answer(status, "passkey.html", title, visitor, values).map(with_script)
    }
    /// Where a passkey is made; only for a while after the password was typed.
    pub(super) fn new_passkey_page(
        &self,
        status: StatusCode,
        visitor: &Visitor,
        name: &str,
        errors: &Errors,
    ) -> Answer {
        let account = visitor.signed_in()?;
        let Some(session) = visitor.session.as_ref().filter(|_| self.may_add(visitor)) else {
            return Ok(Redirect::to("/account#passkeys").into_response());
        };
        let known: Vec<&str> = account.passkeys.iter().map(|key| key.id.as_str()).collect();
        let purpose = Purpose::Add(session.id);
        let values = context! {
            errors => errors.to_value(), party => self.party().id, name => name,
            challenge => self.challenges.ask(&purpose, self.now()),
            user => BASE64URL_NOPAD.encode(&account.generation),
            address => account.address.to_string(), known => known.join(" "),
        };
        let title = say!("A new passkey");
        self.pages.answer(status, "new-passkey.html", title, visitor, values).map(with_script)
    }
    fn may_add(&self, visitor: &Visitor) -> bool {
        let proved = visitor.session.as_ref().and_then(|session| session.proved);
        let room = visitor.account.as_ref().is_some_and(|a| a.passkeys.len() < MOST);
        room && proved.is_some_and(|at| self.now().duration_since(at) <= PROVED)
    }
    /// Keeps what the device has made.
    pub(super) async fn add_passkey(
        &self,
        visitor: &Visitor,
        account: &Account,
        made: &Attestation,
    ) -> Answer {
        let Some(session) = visitor.session.as_ref().filter(|_| self.may_add(visitor)) else {
            return Ok(Redirect::to("/account#passkeys").into_response());
        };
        let name: String = made.name.trim().chars().filter(|c| !c.is_control()).collect();
        let name: String = name.chars().take(MAX_NAME).collect();
        let again = |text: Text| {
            let errors = Errors::of("", text);
            self.new_passkey_page(StatusCode::UNPROCESSABLE_ENTITY, visitor, &name, &errors)
        };
        let (now, purpose) = (self.now(), Purpose::Add(session.id));
        let verified = verify::made(&self.party(), &self.challenges, &purpose, made, now);
        let fresh = match verified {
            Ok(fresh) => fresh,
            Err(why) => {
                tracing::info!(why, "portal: a new passkey was not taken");
                return again(say!("The passkey could not be added. Please try again."));
            }
        };
        let own_name = || visitor.language.say(&session::browser(&visitor.agent));
        let passkey = Passkey {
            id: BASE64URL_NOPAD.encode(&fresh.id),
            key: BASE64URL_NOPAD.encode(&fresh.key),
            algorithm: fresh.algorithm,
            counter: fresh.counter,
            copyable: Some(fresh.copyable),
            name: if name.is_empty() { own_name() } else { name.clone() },
            created: now,
            used: None,
        };
        let add = |account: &mut Account| {
            let known = account.passkeys.iter().any(|key| key.id == passkey.id);
            let room = account.passkeys.len() < MOST && !known && !account.locked;
            if room {
                account.passkeys.push(passkey.clone());
            }
            room
        };
        let added =
            self.vault.change_account(&account.address, Some(account.generation), add).await?;
        if added.is_none() {
            return again(say!("This device has a passkey for your account already."));
        }
        self.vault.tell(&account.address, Change::PasskeyOn).await;
        Ok(Redirect::to("/account?done=passkey").into_response())
    }
    /// A passkey lets in no more.
    pub(super) async fn remove_passkey(&self, account: &Account, id: &str) -> Answer {
        let remove = |account: &mut Account| {
            let before = account.passkeys.len();
            account.passkeys.retain(|passkey| passkey.id != id);
            account.passkeys.len() < before
        };
        let removed =
            self.vault.change_account(&account.address, Some(account.generation), remove).await?;
        if removed.is_some() {
            self.vault.tell(&account.address, Change::PasskeyOff).await;
        }
        Ok(Redirect::to("/account?done=passkey-off").into_response())
    }
    /// `POST /login` of a device that has signed.
    pub(super) async fn login_by_passkey(&self, visitor: &Visitor, said: &Assertion) -> Answer {
        let (keys, now) = (keys_of("passkey", visitor.client), self.now());
        // By client address alone: a key can't be guessed, and no account is aimed at.
        let keys = keys.get(1..).unwrap_or_default();
        if let Some(wait) = self.sign_ins.wait(keys, now) {
            let errors = codes::please_wait(wait);
            let page = self.passkey_page(StatusCode::TOO_MANY_REQUESTS, visitor, &errors)?;
            return Ok(retry_after(page, wait.as_secs()));
        }
        self.sign_ins.count(keys, now);
        match self.owner_of_passkey(said).await? {
            Ok(account) => {
                self.sign_ins.forgive("", keys);
                self.let_in(visitor, account, None).await
            }
            Err(why) => {
                tracing::info!(why, "portal: a passkey did not let in");
                let text =
                    say!("This passkey does not let you in here. Sign in another way, please.");
                let errors = Errors::of("", text);
                self.passkey_page(StatusCode::UNPROCESSABLE_ENTITY, visitor, &errors)
            }
        }
    }
    async fn owner_of_passkey(
        &self,
        said: &Assertion,
    ) -> Result<Result<Account, &'static str>, Fault> {
        let handle = BASE64URL_NOPAD.decode(said.user_handle.as_bytes()).unwrap_or_default();
        let Ok(generation) = <[u8; 16]>::try_from(handle.as_slice()) else {
            return Ok(Err("no user handle of ours"));
        };
        let account = self.vault.people.account_of(generation).await?;
        let Some(account) = account.filter(|account| !account.locked) else {
            return Ok(Err("no such account, or it is locked"));
        };
        let Some(passkey) = account.passkeys.iter().find(|key| key.id == said.credential) else {
            return Ok(Err("no such passkey at this account"));
        };
        let now = self.now();
        let counter = match verify::said(&self.party(), &self.challenges, passkey, said, now) {
            Ok(counter) => counter,
            Err(why) => return Ok(Err(why)),
        };
        let used = |account: &mut Account| {
            let own = account.passkeys.iter_mut().find(|key| key.id == said.credential);
            let Some(passkey) = own else { return false };
            // Level 2, 7.2 step 21: a device that counts has counted on, or there are two of it.
            let counted = counter > passkey.counter || (counter == 0 && passkey.counter == 0);
            passkey.counter = counter;
            passkey.used = Some(now);
            counted && !account.locked
        };
        let changed = self.vault.change_account(&account.address, Some(generation), used).await?;
        Ok(changed.ok_or("its count of signatures went back"))
    }
}
