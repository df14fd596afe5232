//! The second factor: codes by time (RFC 6238) from an app, and recovery codes for when the app is
//! lost.
use super::{
    Desk, Fault, codes, form::Errors, pages::retry_after, session::Visitor, throttle::keys_of,
};
use crate::{
    language::say,
    seal::TokenHash,
    store::{Account, SecondFactor},
    vault::Change,
};
use axum::{
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use data_encoding::BASE32_NOPAD;
use minijinja::{Value, context};
use qrcodegen::{QrCode, QrCodeEcc};
use std::fmt::Write;
use totp_rs::{Builder, Secret, Totp};

/// Recovery codes of an account.
const RECOVERY: usize = 10;
/// Light modules around a QR code (ISO/IEC 18004 section 6.3.8).
const QUIET: i32 = 4;

type Answer = Result<Response, Fault>;

impl Desk {
    fn totp(&self, factor: &SecondFactor, account: &Account) -> Result<Totp, Fault> {
        let secret = self.vault.secret_of(&factor.seed, account.generation)?;
        // A colon parts issuer and account in what apps read.
        let plain = |text: &str| text.replace(':', " ");
        Builder::new()
            .with_secret(Secret::new_stack(*secret))
            .with_issuer(Some(plain(&self.settings.organization)))
            .with_account_name(plain(&account.address.to_string()))
            .build()
            .map_err(|_| Fault::Work("a second factor could not be set up"))
    }
    /// What an app needs to be set up: as a picture, and as text to type.
    pub(super) fn enrolment(&self, account: &Account) -> Result<Value, Fault> {
        let Some(factor) = account.second.as_ref().filter(|factor| !factor.on) else {
            return Ok(context! { secret => "", url => "", path => "", size => 0 });
        };
        let broken = || Fault::Work("a QR code could not be drawn");
        let totp = self.totp(factor, account)?;
        let url = totp.to_url().map_err(|_| broken())?;
        let code = QrCode::encode_text(&url, QrCodeEcc::Medium).map_err(|_| broken())?;
        let secret = BASE32_NOPAD.encode(totp.secret().as_bytes());
        Ok(context! {
            secret => in_groups(&secret, " "), url => url, path => drawn(&code),
            size => code.size() + 2 * QUIET,
        })
    }
    /// The time step of a code that is right now.
    pub(super) fn step_of(
        &self,
        factor: &SecondFactor,
        account: &Account,
        typed: &str,
    ) -> Result<Option<u64>, Fault> {
        let seconds = u64::try_from(self.now().as_second()).unwrap_or_default();
        Ok(self.totp(factor, account)?.check(typed, seconds))
    }
    /// The account after a code for its second factor; `None` if the code is not right, or was used
    /// before.
    async fn second_shown(&self, account: &Account, typed: &str) -> Result<Option<Account>, Fault> {
        let Some(factor) = account.second_factor() else { return Ok(None) };
        let typed: String =
            typed.chars().filter(char::is_ascii_alphanumeric).take(64).collect::<String>();
        let by_app = self.step_of(factor, account, &typed)?;
        let hash = recovery_hash(&typed.to_lowercase(), account);
        let generation = Some(account.generation);
        let changed = self.vault.change_account(&account.address, generation, |account| {
            let Some(factor) = account.second.as_mut().filter(|_| !account.locked) else {
                return false;
            };
            match by_app {
                Some(step) => {
                    let fresh = step > factor.step;
                    factor.step = step;
                    fresh
                }
                None => {
                    let before = factor.recovery.len();
                    factor.recovery.retain(|kept| !kept.same(&hash));
                    factor.recovery.len() < before
                }
            }
        });
        let changed = changed.await?;
        if changed.is_some() && by_app.is_none() {
            self.vault.tell(&account.address, Change::Recovered).await;
        }
        Ok(changed)
    }
    pub(super) fn second_page(
        &self,
        status: StatusCode,
        visitor: &Visitor,
        errors: &Errors,
    ) -> Answer {
        let values = context! { errors => errors.to_value() };
        self.pages.answer(status, "second.html", say!("One more step"), visitor, values)
    }
    /// `POST /login` of who has shown the first factor.
    pub(super) async fn second_step(
        &self,
        visitor: &Visitor,
        account: Account,
        typed: &str,
    ) -> Answer {
        if typed.trim().is_empty() {
            let errors = Errors::of("code", say!("Type the code that your app shows."));
            return self.second_page(StatusCode::UNPROCESSABLE_ENTITY, visitor, &errors);
        }
        let own = format!("second {}", account.address);
        let (keys, now) = (keys_of(&own, visitor.client), self.now());
        if let Some(wait) = self.sign_ins.wait(&keys, now) {
            let (status, errors) = (StatusCode::TOO_MANY_REQUESTS, codes::please_wait(wait));
            let page = self.second_page(status, visitor, &errors)?;
            return Ok(retry_after(page, wait.as_secs()));
        }
        self.sign_ins.count(&keys, now);
        let Some(account) = self.second_shown(&account, typed).await? else {
            let text = say!("This is not the code, or it was used already. Wait for the next one.");
            let errors = Errors::of("code", text);
            return self.second_page(StatusCode::UNPROCESSABLE_ENTITY, visitor, &errors);
        };
        self.sign_ins.forgive(&own, &keys);
        let wants = visitor.session.as_ref().and_then(|session| session.wants);
        self.let_in(visitor, account, wants).await
    }
    /// Sets a second factor up; it counts once a code from the app has proved it.
    pub(super) async fn begin_second(&self, account: &Account) -> Answer {
        let seed = self.vault.new_seed(account.generation);
        let set = |account: &mut Account| {
            let begun = SecondFactor { seed: seed.clone(), on: false, step: 0, recovery: vec![] };
            let free = account.second_factor().is_none();
            if free {
                account.second = Some(begun);
            }
            free
        };
        self.vault.change_account(&account.address, Some(account.generation), set).await?;
        Ok(Redirect::to("/account#second").into_response())
    }
    /// The app has shown a right code: from now on it is asked for. `None` if the code is not right.
    pub(super) async fn confirm_second(
        &self,
        visitor: &Visitor,
        account: &Account,
        typed: &str,
    ) -> Result<Option<Response>, Fault> {
        let Some(factor) = account.second.as_ref().filter(|factor| !factor.on) else {
            return Ok(Some(Redirect::to("/account#second").into_response()));
        };
        let typed: String = typed.chars().filter(char::is_ascii_digit).collect();
        let Some(step) = self.step_of(factor, account, &typed)? else { return Ok(None) };
        let codes: Vec<String> = (0..RECOVERY).map(|_| recovery_code()).collect();
        let recovery: Vec<_> = codes.iter().map(|code| recovery_hash(code, account)).collect();
        let seed = factor.seed.clone();
        let set = |account: &mut Account| {
            let on =
                SecondFactor { seed: seed.clone(), on: true, step, recovery: recovery.clone() };
            let same = account.second.as_ref().is_some_and(|s| !s.on && s.seed == seed);
            account.second = Some(on);
            same
        };
        let done =
            self.vault.change_account(&account.address, Some(account.generation), set).await?;
        if done.is_none() {
            return Ok(Some(Redirect::to("/account#second").into_response()));
        }
        self.vault.tell(&account.address, Change::SecondOn).await;
        let shown: Value = codes.iter().map(|code| in_groups(code, "-")).collect();
        let values = context! { codes => shown };
        let title = say!("Your recovery codes");
        self.pages.answer(StatusCode::OK, "recovery.html", title, visitor, values).map(Some)
    }
    /// The second factor is asked for no more.
    pub(super) async fn end_second(&self, account: &Account) -> Answer {
        let end = |account: &mut Account| account.second.take().is_some();
        let ended =
            self.vault.change_account(&account.address, Some(account.generation), end).await?;
        if ended.is_some() && account.second_factor().is_some() {
            self.vault.tell(&account.address, Change::SecondOff).await;
        }
        Ok(Redirect::to("/account?done=second-off").into_response())
    }
}

/// 80 random bits as sixteen letters and digits.
fn recovery_code() -> String {
    BASE32_NOPAD.encode(&rand::random::<[u8; 10]>()).to_lowercase()
}
fn recovery_hash(code: &str, account: &Account) -> TokenHash {
    TokenHash::of_code(code, &account.generation)
}
fn in_groups(text: &str, between: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let groups: Vec<String> = letters.chunks(4).map(|group| group.iter().collect()).collect();
    groups.join(between)
}
/// Dark modules as a path: one box for each run in a row.
fn drawn(code: &QrCode) -> String {
    let mut path = String::new();
    for y in 0..code.size() {
        let mut x = 0;
        while x < code.size() {
            let mut end = x;
            while code.get_module(end, y) {
                end += 1;
            }
            if end > x {
                // Writing to a String does not fail.
                let (left, top, length) = (x + QUIET, y + QUIET, end - x);
                let _ = write!(path, "M{left} {top}h{length}v1h-{length}z");
            }
            x = end + 1;
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qr_code_is_drawn_as_it_is() {
        let code = QrCode::encode_text("otpauth://totp/x", QrCodeEcc::Medium).unwrap();
        let mut dark = std::collections::BTreeSet::new();
        for run in drawn(&code).split('M').skip(1) {
            let (left, rest) = run.split_once(' ').unwrap();
            let (top, rest) = rest.split_once('h').unwrap();
            let length: i32 = rest.split('v').next().unwrap().parse().unwrap();
            for x in 0..length {
                let x = left.parse::<i32>().unwrap() + x;
                dark.insert((x - QUIET, top.parse::<i32>().unwrap() - QUIET));
            }
        }
        for (x, y) in (0..code.size()).flat_map(|x| (0..code.size()).map(move |y| (x, y))) {
            assert_eq!(dark.contains(&(x, y)), code.get_module(x, y), "{x} {y}");
        }
    }
    #[test]
    fn recovery_codes_are_long_and_differ() {
        let (one, other) = (recovery_code(), recovery_code());
        assert!(one != other && one.len() == 16);
        assert_eq!(in_groups("abcdefghij", "-"), "abcd-efgh-ij");
    }
}
