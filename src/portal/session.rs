//! Sessions of browsers: a random cookie, kept here as its hash only.
use super::{Desk, Fault};
use crate::{
    seal::LinkToken,
    store::{Account, Session, StoreError},
};
use axum::http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{COOKIE, SET_COOKIE},
};
use axum::response::{IntoResponse, Redirect, Response};
use jiff::SignedDuration;
use std::net::IpAddr;
use zeroize::Zeroizing;

/// A session that nobody used for so long has ended.
const IDLE: SignedDuration = SignedDuration::from_mins(60);
/// A session ends after this in any case.
const LONGEST: SignedDuration = SignedDuration::from_hours(12);
/// `seen` is written at most this often.
const SEEN: SignedDuration = SignedDuration::from_mins(1);

/// Who makes a request.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    /// The browser's session, if it holds one that still runs.
    pub(super) session: Option<Session>,
    /// Who is signed in.
    pub(super) account: Option<Account>,
    /// Where the connection comes from, if the server told.
    pub(super) client: Option<IpAddr>,
}
impl Visitor {
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
    ) -> Result<Visitor, StoreError> {
        let mut visitor = Visitor { session: None, account: None, client };
        let Some(token) = cookie(headers, Self::cookie_name(self.https())) else {
            return Ok(visitor);
        };
        let now = self.now();
        let session = self.vault.people.session(&token.hash()).await?;
        let runs = |s: &Session| {
            now.duration_since(s.seen) <= IDLE && now.duration_since(s.created) <= LONGEST
        };
        let Some(session) = session.filter(runs) else { return Ok(visitor) };
        visitor.account = self.account_of(&session).await?;
        if visitor.account.is_some() && now.duration_since(session.seen) >= SEEN {
            self.vault.people.touch_session(&session.id, now).await?;
        }
        visitor.session = Some(session);
        Ok(visitor)
    }
    /// The account of a session: still there, still the same person, not locked.
    async fn account_of(&self, session: &Session) -> Result<Option<Account>, StoreError> {
        let Some((address, generation)) = &session.account else { return Ok(None) };
        let account = self.vault.people.account(address).await?;
        Ok(account.filter(|account| account.generation == *generation && !account.locked))
    }
    /// A session with a cookie of its own, not yet kept.
    pub(super) fn fresh(&self) -> Fresh {
        let mut secret = Zeroizing::new([0; 32]);
        rand::fill(secret.as_mut_slice());
        let token = LinkToken::from_random(secret);
        let now = self.now();
        let id = token.hash();
        let session =
            Session { id, account: None, pending: None, wants: None, created: now, seen: now };
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
