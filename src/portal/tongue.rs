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

/// The cookie of the choice: a preference, and no secret. The prefix keeps other hosts of our domain
/// from setting it (RFC 6265bis section 4.1.3.2); browsers take it over https alone.
const fn cookie_name(https: bool) -> &'static str {
    if https { "__Host-language" } else { "language" }
}
/// How long a browser keeps it: a year.
const KEPT: u32 = 365 * 24 * 60 * 60;
/// Bytes of a value that a choice of language carries along.
const MOST_CARRIED: usize = 64;

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
    /// What of the address's query a choice of language carries along, up to its `&`.
    pub(super) kept: String,
}

impl Wish {
    /// That language, of a page.
    pub(super) fn of(language: &Arc<Language>) -> Self {
        Self {
            language: Arc::clone(language),
            chosen: None,
            fresh: false,
            page: true,
            kept: String::new(),
        }
    }
}

impl Desk {
    /// `?lang=` of a page, the cookie of an earlier one, `Accept-Language`.
    pub(super) fn wish(&self, request: &Request) -> Wish {
        let languages = &self.settings.languages;
        let page = matches!(*request.method(), Method::GET | Method::HEAD)
            && !piece_of_page(request.uri().path());
        let query = request.uri().query().filter(|_| page);
        let asked = query.and_then(asked);
        let asked = asked.and_then(|code| languages.get(&code));
        let kept = || {
            cookie(request.headers(), cookie_name(self.https()))
                .and_then(|code| languages.get(code))
        };
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
            kept: query.map(|query| carried(request.uri().path(), query)).unwrap_or_default(),
        }
    }
    /// Lets the browser keep a choice that was made just now. Nothing is kept here.
    pub(super) fn keep_choice(&self, wish: &Wish, response: &mut Response) {
        let Some(code) = wish.chosen.as_deref().filter(|_| wish.fresh) else { return };
        let name = cookie_name(self.https());
        let secure = if self.https() { "; Secure" } else { "" };
        let text = format!("{name}={code}; Path=/; Max-Age={KEPT}; HttpOnly; SameSite=Lax{secure}");
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().append(SET_COOKIE, value);
        }
    }
}

fn asked(query: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(name, _)| name == "lang").map(|(_, code)| code.into_owned())
}

/// What the same page in another language needs of its query. Only what is named here, so that neither
/// a secret nor somebody else's words get into a link.
fn carried(path: &str, query: &str) -> String {
    let names: &[&str] = match path {
        "/check" => &["code"],
        "/login" => &["by", "other"],
        _ => return String::new(),
    };
    let pairs = form_urlencoded::parse(query.as_bytes());
    let some =
        pairs.filter(|(name, value)| names.contains(&name.as_ref()) && value.len() <= MOST_CARRIED);
    let text = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(some.take(names.len()))
        .finish();
    if text.is_empty() { text } else { text + "&" }
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|header| header.to_str().ok());
    let mut pairs =
        all.flat_map(|header| header.split(';')).filter_map(|p| p.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, code)| code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_page_is_known_to_need_is_carried() {
        for (path, query, kept, why) in [
            ("/check", "code=bcdf", "code=bcdf&", "the code asked after"),
            ("/login", "lang=de&by=passkey", "by=passkey&", "the way in"),
            ("/login", "other=yes", "other=yes&", "the whole sign-in"),
            ("/login", "code=1&token=AAAA", "", "no page of ours makes such an address"),
            ("/login/oidc/callback", "code=AAAA&state=BBBB", "", "secrets of a sign-in elsewhere"),
            ("/check", "code=%22%26%3D", "code=%22%26%3D&", "encoded anew"),
            ("/check", "code=1&code=2", "code=1&", "once"),
        ] {
            assert_eq!(carried(path, query), kept, "{why}");
        }
    }
}
