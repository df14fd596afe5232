//! The browser behind a request, and the cookies that it keeps.
use super::{Desk, Fault, tongue::Wish};
use crate::{
    identity::{Begun, Browser},
    language::{Language, Text, say},
    seal::{LinkToken, TokenHash},
    store::{Account, Session, StoreError},
};
use axum::http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{COOKIE, SET_COOKIE, USER_AGENT},
};
use axum::response::{IntoResponse, Redirect, Response};
use std::{net::IpAddr, sync::Arc};

/// How long a browser keeps its device cookie: a year.
const DEVICE_KEPT: u32 = 365 * 24 * 60 * 60;

/// The maker of a request.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    /// The browser's session, if it holds one that still runs.
    pub(super) session: Option<Session>,
    /// The account that is signed in.
    pub(super) account: Option<Account>,
    /// Where the connection comes from, if the server told.
    pub(super) client: Option<IpAddr>,
    /// The browser in a few words.
    pub(super) agent: String,
    /// Its device cookie.
    pub(super) device: Option<TokenHash>,
    /// The language of the answer.
    pub(super) language: Arc<Language>,
    /// The language that was chosen in the list at the foot of a page.
    pub(super) chosen: Option<String>,
    /// True if the address of this request shows a page, so that it can be asked for in another
    /// language.
    pub(super) page: bool,
    /// The part of this request's query that the link to another language carries along.
    pub(super) kept: String,
}
impl Visitor {
    /// A browser of which nothing is known but what the request says of languages.
    pub(super) fn stranger(wish: Wish) -> Self {
        Self {
            session: None,
            account: None,
            client: None,
            agent: String::new(),
            device: None,
            language: wish.language,
            chosen: wish.chosen,
            page: wish.page,
            kept: wish.kept,
        }
    }
    /// The address shown on every page of a signed-in reader.
    pub(super) fn name(&self) -> Option<String> {
        self.account.as_ref().map(|account| account.address.to_string())
    }
    /// The account; 401 without one.
    pub(super) fn signed_in(&self) -> Result<&Account, Fault> {
        self.account.as_ref().ok_or(Fault::Status(StatusCode::UNAUTHORIZED))
    }
    /// As `identity` knows it.
    pub(super) fn browser(&self) -> Browser {
        Browser {
            session: self.session.clone(),
            account: self.account.clone(),
            device: self.device,
            client: self.client,
            agent: self.agent.clone(),
            language: self.language.code().to_owned(),
        }
    }
}

impl Desk {
    fn cookie_names(&self) -> (&'static str, &'static str) {
        if self.https() { ("__Host-session", "__Host-device") } else { ("session", "device") }
    }
    /// The visitor behind a request's cookies.
    pub(super) async fn visitor(
        &self,
        headers: &HeaderMap,
        client: Option<IpAddr>,
        wish: Wish,
    ) -> Result<Visitor, StoreError> {
        let (session, device) = self.cookie_names();
        let device = cookie(headers, device).map(|token| token.hash());
        let agent = agent_of(headers);
        let mut visitor = Visitor { client, agent, device, ..Visitor::stranger(wish) };
        let Some(token) = cookie(headers, session) else { return Ok(visitor) };
        (visitor.session, visitor.account) = self.identity.recognise(&token).await?;
        let own = visitor.account.as_ref().and_then(|account| account.language.as_deref());
        if let Some(own) = own.and_then(|code| self.settings.languages.get(code)) {
            visitor.language = Arc::clone(own);
        }
        Ok(visitor)
    }
    /// The account of a session: still there, still the same identity and epoch, not locked.
    pub(super) async fn account_of(
        &self,
        session: &Session,
    ) -> Result<Option<Account>, StoreError> {
        self.identity.named(session.account.as_ref()).await
    }
    /// Leads on with the cookies of a session that has begun.
    pub(super) fn begun(&self, begun: &Begun, to: &str) -> Result<Response, Fault> {
        let (session, device) = self.cookie_names();
        let mut response = Redirect::to(to).into_response();
        self.give(&mut response, session, begun.session.expose(), "")?;
        if let Some(token) = &begun.device {
            let kept = format!("; Max-Age={DEVICE_KEPT}");
            self.give(&mut response, device, token.expose(), &kept)?;
        }
        Ok(response)
    }
    /// Leads on and takes the session's cookie away.
    pub(super) fn ended(&self, to: &str) -> Result<Response, Fault> {
        let mut response = Redirect::to(to).into_response();
        self.give(&mut response, self.cookie_names().0, "", "; Max-Age=0")?;
        Ok(response)
    }
    fn give(
        &self,
        response: &mut Response,
        name: &str,
        value: &str,
        more: &str,
    ) -> Result<(), Fault> {
        let secure = if self.https() { "; Secure" } else { "" };
        let text = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}{more}");
        let mut cookie = HeaderValue::from_str(&text)
            .map_err(|_| Fault::Work("a cookie of strange characters"))?;
        cookie.set_sensitive(true);
        response.headers_mut().append(SET_COOKIE, cookie);
        Ok(())
    }
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
