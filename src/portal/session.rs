//! Sessions of browsers: a random cookie, kept here as its hash only.
use super::{Desk, Fault, tongue::Wish};
use crate::{
    language::{Language, Text, say},
    mail::Address,
    seal::LinkToken,
    store::{Account, Session, StoreError},
};
use axum::http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{COOKIE, SET_COOKIE, USER_AGENT},
};
use axum::response::{IntoResponse, Redirect, Response};
use jiff::{SignedDuration, Timestamp};
use std::{net::IpAddr, sync::Arc};
use zeroize::Zeroizing;

/// A session that nobody used for so long has ended.
const IDLE: SignedDuration = SignedDuration::from_mins(60);
/// A session ends after this in any case.
const LONGEST: SignedDuration = SignedDuration::from_hours(12);
/// The second factor must follow the first within this time.
const HALF: SignedDuration = SignedDuration::from_mins(15);
/// `seen` is written at most this often.
pub(super) const SEEN: SignedDuration = SignedDuration::from_mins(1);

/// Who makes a request.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    /// The browser's session, if it holds one that still runs.
    pub(super) session: Option<Session>,
    /// Who is signed in.
    pub(super) account: Option<Account>,
    /// Where the connection comes from, if the server told.
    pub(super) client: Option<IpAddr>,
    /// The browser in a few words.
    pub(super) agent: String,
    /// The language of what is answered.
    pub(super) language: Arc<Language>,
    /// The language that was chosen in the list at the foot of a page.
    pub(super) chosen: Option<String>,
    /// True if the address of this request shows a page, so that it can be asked for in another
    /// language.
    pub(super) page: bool,
    /// What the link that asks for it carries along of this request's query.
    pub(super) kept: String,
}
impl Visitor {
    /// Somebody of whom nothing is known but what the request says of languages.
    pub(super) fn stranger(wish: Wish) -> Self {
        Self {
            session: None,
            account: None,
            client: None,
            agent: String::new(),
            language: wish.language,
            chosen: wish.chosen,
            page: wish.page,
            kept: wish.kept,
        }
    }
    /// The address shown on every page of somebody signed in.
    pub(super) fn name(&self) -> Option<String> {
        self.account.as_ref().map(|account| account.address.to_string())
    }
    /// The account; 401 without one.
    pub(super) fn signed_in(&self) -> Result<&Account, Fault> {
        self.account.as_ref().ok_or(Fault::Status(StatusCode::UNAUTHORIZED))
    }
}

/// A session to be kept, with the cookie that leads to it.
pub(super) struct Fresh {
    token: LinkToken,
    pub(super) session: Session,
}

impl Desk {
    const fn cookie_name(https: bool) -> &'static str {
        if https { "__Host-session" } else { "session" }
    }
    /// The visitor behind a request's cookie.
    pub(super) async fn visitor(
        &self,
        headers: &HeaderMap,
        client: Option<IpAddr>,
        wish: Wish,
    ) -> Result<Visitor, StoreError> {
        let agent = agent_of(headers);
        let mut visitor = Visitor { client, agent, ..Visitor::stranger(wish) };
        let Some(token) = cookie(headers, Self::cookie_name(self.https())) else {
            return Ok(visitor);
        };
        let now = self.now();
        let session = self.vault.people.session(&token.hash()).await?;
        let Some(session) = session.filter(|s| runs(s, now)) else { return Ok(visitor) };
        visitor.account = self.account_of(&session).await?;
        if visitor.account.is_some() && now.duration_since(session.seen) >= SEEN {
            self.vault.people.touch_session(&session.id, now).await?;
        }
        visitor.session = Some(session);
        let own = visitor.account.as_ref().and_then(|account| account.language.as_deref());
        if let Some(own) = own.and_then(|code| self.settings.languages.get(code)) {
            visitor.language = Arc::clone(own);
        }
        Ok(visitor)
    }
    /// The account of a session: still there, still the same person, not locked.
    pub(super) async fn account_of(
        &self,
        session: &Session,
    ) -> Result<Option<Account>, StoreError> {
        self.account_named(session.account.as_ref()).await
    }
    /// Who has shown the first factor a moment ago, and must show the second.
    pub(super) async fn half_in(&self, visitor: &Visitor) -> Result<Option<Account>, StoreError> {
        let now = self.now();
        let recent = |s: &&Session| now.duration_since(s.created) <= HALF;
        let half = visitor.session.as_ref().filter(recent).and_then(|s| s.half.as_ref());
        self.account_named(half).await
    }
    async fn account_named(
        &self,
        named: Option<&(Address, [u8; 16])>,
    ) -> Result<Option<Account>, StoreError> {
        let Some((address, generation)) = named else { return Ok(None) };
        let account = self.vault.people.account(address).await?;
        Ok(account.filter(|account| account.generation == *generation && !account.locked))
    }
    /// A session with a cookie of its own, not yet kept.
    pub(super) fn fresh(&self, visitor: &Visitor) -> Fresh {
        let token = LinkToken::from_random(secret());
        let session = Session {
            agent: visitor.agent.clone(),
            client: visitor.client,
            ..Session::new(token.hash(), self.now())
        };
        Fresh { token, session }
    }
    /// Keeps a session in place of the one the browser had, and leads on with its cookie. A new
    /// cookie at each sign-in means that one planted before is worth nothing.
    pub(super) async fn begin(
        &self,
        fresh: Fresh,
        old: Option<&Session>,
        to: &str,
    ) -> Result<Response, Fault> {
        self.vault.people.put_session(&fresh.session).await?;
        if let Some(old) = old {
            self.vault.people.remove_session(&old.id).await?;
        }
        self.leading(to, fresh.token.expose(), "")
    }
    /// Leads on and takes the cookie away.
    pub(super) fn ended(&self, to: &str) -> Result<Response, Fault> {
        self.leading(to, "", "; Max-Age=0")
    }
    fn leading(&self, to: &str, value: &str, more: &str) -> Result<Response, Fault> {
        let https = self.https();
        let name = Self::cookie_name(https);
        let secure = if https { "; Secure" } else { "" };
        let text = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}{more}");
        let mut cookie = HeaderValue::from_str(&text)
            .map_err(|_| Fault::Work("a cookie of strange characters"))?;
        cookie.set_sensitive(true);
        let mut response = Redirect::to(to).into_response();
        response.headers_mut().insert(SET_COOKIE, cookie);
        Ok(response)
    }
}

/// 32 bytes that nobody can guess.
pub(super) fn secret() -> Zeroizing<[u8; 32]> {
    let mut secret = Zeroizing::new([0; 32]);
    rand::fill(secret.as_mut_slice());
    secret
}

/// True if a session has not ended by idleness or age.
pub(super) fn runs(session: &Session, now: Timestamp) -> bool {
    now.duration_since(session.seen) <= IDLE && now.duration_since(session.created) <= LONGEST
}

/// A browser as it was kept, in words.
pub(super) fn browser(agent: &str) -> Text {
    match agent.split_once(" on ") {
        Some(("A browser", system)) => say!("A browser on {system}", system = system.to_owned()),
        Some((browser, system)) => {
            say!("{browser} on {system}", browser = browser.to_owned(), system = system.to_owned())
        }
        None if agent.is_empty() || agent == "A browser" => say!("A browser"),
        None => Text::verbatim(agent),
    }
}

/// What the browser says of itself, as its owner would: `Firefox on Windows`.
fn agent_of(headers: &HeaderMap) -> String {
    // The more special name first: most browsers also name those that they resemble.
    const BROWSERS: [(&str, &str); 7] = [
        ("Edg", "Edge"),
        ("OPR/", "Opera"),
        ("SamsungBrowser/", "Samsung Internet"),
        ("Firefox/", "Firefox"),
        ("FxiOS/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
    ];
    const SYSTEMS: [(&str, &str); 7] = [
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Windows", "Windows"),
        ("Mac OS X", "Mac"),
        ("CrOS", "ChromeOS"),
        ("Linux", "Linux"),
    ];
    let text = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let named = |names: &[(&str, &'static str)]| {
        names.iter().find(|(mark, _)| text.contains(mark)).map(|(_, name)| *name)
    };
    match (named(&BROWSERS), named(&SYSTEMS)) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(browser), None) => browser.to_owned(),
        (None, Some(system)) => format!("A browser on {system}"),
        (None, None) => "A browser".to_owned(),
    }
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<LinkToken> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|header| header.to_str().ok())
        .flat_map(|header| header.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(key, _)| *key == name)
        .find_map(|(_, value)| LinkToken::parse(value))
}
