//! In which language a visitor is answered: the account's, else the one chosen at the foot of a page,
//! else what the browser accepts, else the house's.
use super::{Desk, routes::piece_of_page};
use crate::language::Language;
use axum::{
    extract::Request,
    http::{
        HeaderMap, HeaderValue, Method,
        header::{ACCEPT_LANGUAGE, COOKIE, SET_COOKIE},
    },
    response::Response,
};
use std::sync::Arc;

/// The cookie of the choice: a preference, and no secret.
const COOKIE_NAME: &str = "language";
/// How long a browser keeps it: a year.
const KEPT: u32 = 365 * 24 * 60 * 60;

/// What a request says of languages.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    /// The language to answer in, as long as no account says otherwise.
    pub(super) language: Arc<Language>,
    /// The language chosen, by this request or one before.
    pub(super) chosen: Option<String>,
    /// True if the choice was made just now.
    fresh: bool,
    /// True if the address shows a page.
    pub(super) page: bool,
}

impl Wish {
    /// That language, of a page.
    pub(super) fn of(language: &Arc<Language>) -> Self {
        Self { language: Arc::clone(language), chosen: None, fresh: false, page: true }
    }
}

impl Desk {
    /// `?lang=` of a page, the cookie of an earlier one, `Accept-Language`.
    pub(super) fn wish(&self, request: &Request) -> Wish {
        let languages = &self.settings.languages;
        let page = matches!(*request.method(), Method::GET | Method::HEAD)
            && !piece_of_page(request.uri().path());
        let asked = request.uri().query().filter(|_| page).and_then(asked);
        let asked = asked.and_then(|code| languages.get(&code));
        let kept = || cookie(request.headers()).and_then(|code| languages.get(code));
        let chosen = asked.or_else(kept);
        let accepted = || {
            let header = request.headers().get(ACCEPT_LANGUAGE).and_then(|h| h.to_str().ok());
            header.map_or_else(|| languages.usual(), |header| languages.accepted(header))
        };
        Wish {
            language: Arc::clone(chosen.unwrap_or_else(accepted)),
            chosen: chosen.map(|language| language.code().to_owned()),
            fresh: asked.is_some(),
            page,
        }
    }
    /// Lets the browser keep a choice that was made just now. Nothing is kept here.
    pub(super) fn keep_choice(&self, wish: &Wish, response: &mut Response) {
        let Some(code) = wish.chosen.as_deref().filter(|_| wish.fresh) else { return };
        let secure = if self.https() { "; Secure" } else { "" };
        let text =
            format!("{COOKIE_NAME}={code}; Path=/; Max-Age={KEPT}; HttpOnly; SameSite=Lax{secure}");
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().append(SET_COOKIE, value);
        }
    }
}

fn asked(query: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(name, _)| name == "lang").map(|(_, code)| code.into_owned())
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|header| header.to_str().ok());
    let mut pairs =
        all.flat_map(|header| header.split(';')).filter_map(|p| p.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE_NAME).map(|(_, code)| code)
}
