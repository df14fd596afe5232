//! The second factor's pages.
use super::{Desk, Fault, codes, form::Errors, pages::retry_after, session::Visitor};
use crate::{
    identity::{Confirmed, Enrolment, SignIn},
    language::say,
    store::Account,
};
use axum::{
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use minijinja::{Value, context};
use qrcodegen::{QrCode, QrCodeEcc};
use std::fmt::Write;

/// Light modules around a QR code (ISO/IEC 18004 section 6.3.8).
const QUIET: i32 = 4;

type Answer = Result<Response, Fault>;

/// What an app needs to be set up: as a picture, and as text to type.
pub(super) fn shown(enrolment: Option<Enrolment>) -> Result<Value, Fault> {
    let Some(enrolment) = enrolment else {
        return Ok(context! { secret => "", url => "", path => "", size => 0 });
    };
    let code = QrCode::encode_text(&enrolment.url, QrCodeEcc::Medium)
        .map_err(|_| Fault::Work("a QR code could not be drawn"))?;
    Ok(context! {
        secret => in_groups(&enrolment.secret, " "), url => enrolment.url.as_str(),
        path => drawn(&code), size => code.size() + 2 * QUIET,
    })
}

impl Desk {
    /// Where the second factor is asked for: a code, or a passkey where the account has no app.
    pub(super) fn second_page(
        &self,
        status: StatusCode,
        visitor: &Visitor,
        account: &Account,
        errors: &Errors,
    ) -> Answer {
        if account.second_factor().is_none() {
            return self.second_passkey_page(status, visitor, errors);
        }
        let passkeys = !account.passkeys.is_empty();
        let values = context! { errors => errors.to_value(), passkeys => passkeys };
        self.pages.answer(status, "second.html", say!("One more step"), visitor, values)
    }
    /// `POST /login` after the first factor.
    pub(super) async fn second_step(
        &self,
        visitor: &Visitor,
        account: Account,
        typed: &str,
    ) -> Answer {
        let wrong = StatusCode::UNPROCESSABLE_ENTITY;
        if account.second_factor().is_none() {
            return self.second_page(wrong, visitor, &account, &Errors::default());
        }
        if typed.trim().is_empty() {
            let errors = Errors::of("code", say!("Type the code that your app shows."));
            return self.second_page(wrong, visitor, &account, &errors);
        }
        match self.identity.second_step(&visitor.browser(), account.clone(), typed).await? {
            SignIn::In(begun) | SignIn::Second(begun) => self.let_in(&begun),
            SignIn::Wait(wait) => {
                let (status, errors) = (StatusCode::TOO_MANY_REQUESTS, codes::please_wait(wait));
                let page = self.second_page(status, visitor, &account, &errors)?;
                Ok(retry_after(page, wait.as_secs()))
            }
            SignIn::Wrong => {
                let text =
                    say!("This is not the code, or it was used already. Wait for the next one.");
                let errors = Errors::of("code", text);
                self.second_page(wrong, visitor, &account, &errors)
            }
        }
    }
    /// The first code of an app. `None` if it is not right.
    pub(super) async fn confirm_second(
        &self,
        visitor: &Visitor,
        typed: &str,
    ) -> Result<Option<Response>, Fault> {
        match self.identity.confirm_second(&visitor.browser(), typed).await? {
            Confirmed::On(codes) => {
                let shown: Value = codes.iter().map(|code| in_groups(code, "-")).collect();
                let values = context! { codes => shown };
                let title = say!("Your recovery codes");
                self.pages.answer(StatusCode::OK, "recovery.html", title, visitor, values).map(Some)
            }
            Confirmed::Wrong => Ok(None),
            Confirmed::Nothing => Ok(Some(Redirect::to("/account#second").into_response())),
        }
    }
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
    fn codes_are_shown_in_groups() {
        assert_eq!(in_groups("abcdefghij", "-"), "abcd-efgh-ij");
    }
}
