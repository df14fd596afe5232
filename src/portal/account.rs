//! The reader's own account: names, password, second factor, and where it is signed in.
use super::{
    Desk, Fault, codes,
    form::{AccountForm, Errors, Form, Secret, fault_of_name},
    pages::retry_after,
    passkey, password,
    session::{self, Visitor},
    show,
    throttle::keys_of,
};
use crate::{
    language::{Text, say},
    seal::TokenHash,
    store::{Account, Session},
    vault::Change,
};
use axum::{
    Extension,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use data_encoding::HEXLOWER;
use minijinja::{Value, context};
use serde::Deserialize;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Sessions listed at most.
const LISTED: usize = 100;

type Answer = Result<Response, Fault>;

/// What was done, to be said on the page that follows.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Done {
    done: String,
    /// `passkey`: the page that makes one.
    add: String,
}
impl Done {
    fn words(&self) -> Text {
        match self.done.as_str() {
            "profile" => say!("Your details are saved."),
            "password" => {
                say!("Your password is changed. All other devices are signed out.")
            }
            "sign-out" => say!("That device is signed out."),
            "passkey" => {
                say!("The passkey is added. It lets you in without your password.")
            }
            "passkey-off" => say!("The passkey is removed."),
            "second-off" => say!("Sign-in no longer asks for a code from your app."),
            _ => Text::default(),
        }
    }
}

/// The name by which a form points at a session: not its hash as a whole.
fn handle(session: &Session) -> String {
    HEXLOWER.encode(session.id.as_bytes().get(..8).unwrap_or_default())
}

impl Desk {
    async fn account_page(
        &self,
        status: StatusCode,
        visitor: &Visitor,
        form: Option<&AccountForm>,
        done: Text,
        errors: &Errors,
    ) -> Answer {
        let account = visitor.signed_in()?;
        let profile = form.filter(|form| form.verb() == "profile");
        let first = profile.map_or(&account.first_name, |form| &form.first_name);
        let last = profile.map_or(&account.last_name, |form| &form.last_name);
        let own = account.language.as_deref().unwrap_or_default();
        let language = profile.map_or(own, |form| &form.language);
        let languages = self.pages.languages();
        let values = context! {
            tab => "account", errors => errors.to_value(), done => Value::from(done),
            address => account.address.to_string(), has_password => !account.password.is_empty(),
            first_name => first, last_name => last, language => language, languages => languages,
            second => account.second_factor().is_some(),
            recovery => account.second_factor().map_or(0, |factor| factor.recovery.len()),
            enrolment => self.enrolment(account)?,
            sessions => self.sessions_of(visitor, account).await?,
            created => show::day(account.created), passkeys => passkey::listed(account),
            more_passkeys => account.passkeys.len() < passkey::MOST,
        };
        self.pages.answer(status, "account.html", say!("Your account"), visitor, values)
    }
    async fn sessions_of(&self, visitor: &Visitor, account: &Account) -> Result<Value, Fault> {
        let now = self.now();
        let mut sessions = self.vault.people.sessions(&account.address, LISTED).await?;
        sessions.retain(|session| session::runs(session, now));
        sessions.sort_by_key(|session| std::cmp::Reverse(session.created));
        let own = visitor.session.as_ref().map(|session| session.id);
        let line = |session: &Session| {
            context! {
                handle => handle(session),
                agent => Value::from(session::browser(&session.agent)),
                client => session.client.map(|client| client.to_string()).unwrap_or_default(),
                begun => show::moment(session.created),
                seen => show::moment(session.seen),
                own => own == Some(session.id),
            }
        };
        Ok(sessions.iter().map(line).collect())
    }
    async fn wrong(&self, visitor: &Visitor, form: &AccountForm, errors: &Errors) -> Answer {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        self.account_page(status, visitor, Some(form), Text::default(), errors).await
    }
    async fn set_profile(
        &self,
        visitor: &Visitor,
        account: &Account,
        form: &AccountForm,
    ) -> Answer {
        let mut errors = Errors::default();
        errors.add_if("first_name", fault_of_name(&form.first_name, say!("Type your first name.")));
        errors.add_if("last_name", fault_of_name(&form.last_name, say!("Type your last name.")));
        let known = self.settings.languages.get(&form.language).is_some();
        if !known && !form.language.is_empty() {
            errors.add("language", say!("Choose a language from the list."));
        }
        if !errors.none() {
            return self.wrong(visitor, form, &errors).await;
        }
        let set = |account: &mut Account| {
            form.first_name.trim().clone_into(&mut account.first_name);
            form.last_name.trim().clone_into(&mut account.last_name);
            account.language = known.then(|| form.language.clone());
            true
        };
        self.vault.change_account(&account.address, Some(account.generation), set).await?;
        Ok(Redirect::to("/account?done=profile").into_response())
    }
    /// Whether the current password was typed; if not, the page that says so. A session left open
    /// must not be enough to take an account over.
    pub(super) async fn proved(
        &self,
        visitor: &Visitor,
        account: &Account,
        form: &AccountForm,
        (field, typed): (&'static str, Secret),
    ) -> Result<Option<Response>, Fault> {
        let own = format!("account {}", account.address.to_string().to_lowercase());
        let (keys, now) = (keys_of(&own, visitor.client), self.now());
        if let Some(wait) = self.sign_ins.wait(&keys, now) {
            let (status, errors) = (StatusCode::TOO_MANY_REQUESTS, codes::please_wait(wait));
            let page =
                self.account_page(status, visitor, Some(form), Text::default(), &errors).await?;
            return Ok(Some(retry_after(page, wait.as_secs())));
        }
        self.sign_ins.count(&keys, now);
        let hash = Some(account.password.clone());
        if self.passwords.matches(typed.into_inner(), hash).await? {
            self.sign_ins.forgive(&own, &keys);
            return Ok(None);
        }
        let errors = Errors::of(field, say!("This is not your current password."));
        self.wrong(visitor, form, &errors).await.map(Some)
    }
    async fn set_password(
        &self,
        visitor: &Visitor,
        account: &Account,
        mut form: AccountForm,
    ) -> Answer {
        let mut errors = Errors::default();
        let missing = form.current_password.expose().is_empty();
        errors.add_if("current_password", missing.then(|| say!("Type your current password.")));
        password::judge(&mut errors, &form.password, &form.password_confirm, &account.address);
        if !errors.none() {
            return self.wrong(visitor, &form, &errors).await;
        }
        let current = ("current_password", std::mem::take(&mut form.current_password));
        if let Some(page) = self.proved(visitor, account, &form, current).await? {
            return Ok(page);
        }
        let keep = visitor.session.as_ref().map(|session| session.id);
        let password = form.password.into_inner();
        if self.renew_password(account, password, keep.as_ref(), Change::Password).await?.is_none()
        {
            return self.ended("/login");
        }
        Ok(Redirect::to("/account?done=password").into_response())
    }
    /// Sets a new password; all sessions but `keep` end, and the mailbox is told. `None` if the account
    /// was locked or removed while the password was being hashed.
    pub(super) async fn renew_password(
        &self,
        account: &Account,
        password: Zeroizing<String>,
        keep: Option<&TokenHash>,
        told: Change,
    ) -> Result<Option<Account>, Fault> {
        let hash = self.passwords.hash(password).await?;
        let set = |account: &mut Account| {
            account.password.clone_from(&hash);
            !account.locked
        };
        let changed = self.vault.change_account(&account.address, Some(account.generation), set);
        let Some(account) = changed.await? else { return Ok(None) };
        self.vault.people.remove_sessions(Some(&account.address), keep, None).await?;
        self.vault.tell(&account.address, told).await;
        Ok(Some(account))
    }
    /// The password first: then a passkey may be made for a while.
    async fn begin_passkey(
        &self,
        visitor: &Visitor,
        account: &Account,
        mut form: AccountForm,
    ) -> Answer {
        let current = ("passkey_password", std::mem::take(&mut form.passkey_password));
        if let Some(page) = self.proved(visitor, account, &form, current).await? {
            return Ok(page);
        }
        if let Some(session) = &visitor.session {
            let proved = Some(self.now());
            self.vault.people.put_session(&Session { proved, ..session.clone() }).await?;
        }
        Ok(Redirect::to("/account?add=passkey").into_response())
    }
    /// Signs one device out; what the form points at must be of this account.
    async fn sign_out(&self, visitor: &Visitor, account: &Account, named: &str) -> Answer {
        let sessions = self.vault.people.sessions(&account.address, LISTED).await?;
        let Some(session) = sessions.iter().find(|session| handle(session) == named) else {
            return Ok(Redirect::to("/account?done=sign-out").into_response());
        };
        self.vault.people.remove_session(&session.id).await?;
        if visitor.session.as_ref().is_some_and(|own| own.id == session.id) {
            return self.ended("/login");
        }
        Ok(Redirect::to("/account?done=sign-out").into_response())
    }
    async fn second(&self, visitor: &Visitor, account: &Account, mut form: AccountForm) -> Answer {
        if form.verb() == "second-confirm" {
            let done = self.confirm_second(visitor, account, &form.code).await?;
            let text = say!("This is not the code. Type the one that your app shows now.");
            return match done {
                Some(page) => Ok(page),
                None => self.wrong(visitor, &form, &Errors::of("code", text)).await,
            };
        }
        let current = ("second_password", std::mem::take(&mut form.second_password));
        match self.proved(visitor, account, &form, current).await? {
            Some(page) => Ok(page),
            None if form.verb() == "second-off" => self.end_second(account).await,
            None => self.begin_second(account).await,
        }
    }
}

/// `GET /account`
pub(super) async fn form(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Query(done): Query<Done>,
) -> Answer {
    let errors = Errors::default();
    if done.add == "passkey" {
        return desk.new_passkey_page(StatusCode::OK, &visitor, "", &errors);
    }
    desk.account_page(StatusCode::OK, &visitor, None, done.words(), &errors).await
}

/// `POST /account`: what is to be done says `action`.
pub(super) async fn change(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Form(form): Form<AccountForm>,
) -> Answer {
    let account = visitor.signed_in()?;
    match form.verb() {
        "profile" => desk.set_profile(&visitor, account, &form).await,
        "password" => desk.set_password(&visitor, account, form).await,
        "sign-out" => desk.sign_out(&visitor, account, &form.session).await,
        "sign-out-everywhere" => {
            desk.vault.people.remove_sessions(Some(&account.address), None, None).await?;
            desk.ended("/login")
        }
        "second-begin" | "second-confirm" | "second-off" => {
            desk.second(&visitor, account, form).await
        }
        "passkey-begin" => desk.begin_passkey(&visitor, account, form).await,
        "passkey-add" => desk.add_passkey(&visitor, account, &form.attestation).await,
        "passkey-off" => desk.remove_passkey(account, &form.passkey).await,
        _ => Err(Fault::Status(StatusCode::UNPROCESSABLE_ENTITY)),
    }
}
