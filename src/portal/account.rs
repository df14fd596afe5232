//! The reader's own account: names, password, second factor, and where it is signed in.
use super::{
    Desk, Fault, codes,
    form::{AccountForm, Errors, Form, Secret, fault_of_name, judge},
    pages::retry_after,
    passkey, second,
    session::{self, Visitor},
    show,
};
use crate::{
    identity::{MOST_PASSKEYS, SecondFactorRule, limits::Wait},
    language::{Text, say},
    store::{Account, Session},
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

type Answer = Result<Response, Fault>;

/// What was done, to be said on the page that follows.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Done {
    done: String,
    /// `passkey`: the page that makes one.
    add: String,
    /// `passkey`: the page where one shows that it is the owner.
    prove: String,
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
            "proved" => say!("Thank you. For the next 15 minutes you can change how you sign in."),
            "reset" => {
                say!("Your new password is set. Check below what else lets into your account.")
            }
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
        let browser = visitor.browser();
        let values = context! {
            tab => "account", errors => errors.to_value(), done => Value::from(done),
            address => account.address.to_string(), has_password => !account.password.is_empty(),
            first_name => first, last_name => last, language => language, languages => languages,
            second => account.second_factor().is_some(),
            recovery => account.second_factor().map_or(0, |factor| factor.recovery.len()),
            enrolment => second::shown(self.identity.enrolment(&browser)?)?,
            proved => self.identity.proved(&browser), must_enrol => self.identity.must_enrol(&browser),
            offers_second => self.identity.settings().second_factor != SecondFactorRule::Off,
            sessions => self.sessions_of(visitor, account).await?,
            created => show::day(account.created), passkeys => passkey::listed(account),
            more_passkeys => account.passkeys.len() < MOST_PASSKEYS,
        };
        self.pages.answer(status, "account.html", say!("Your account"), visitor, values)
    }
    async fn sessions_of(&self, visitor: &Visitor, account: &Account) -> Result<Value, Fault> {
        let sessions = self.identity.sessions_of(account).await?;
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
        self.identity.update(account, set).await?;
        Ok(Redirect::to("/account?done=profile").into_response())
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
        let names = [&*account.first_name, &*account.last_name, &*self.settings.organization];
        judge(&mut errors, (&form.password, &form.password_confirm), &account.address, &names);
        if !errors.none() {
            return self.wrong(visitor, &form, &errors).await;
        }
        let current = ("current_password", std::mem::take(&mut form.current_password));
        if let Some(page) = self.prove_password(visitor, &form, current).await? {
            return Ok(page);
        }
        let password = form.password.into_inner();
        if !self.identity.change_password(&visitor.browser(), password).await? {
            return self.ended("/login");
        }
        Ok(Redirect::to("/account?done=password").into_response())
    }
    /// Whether the present password was typed; if not, the page that says so.
    async fn prove_password(
        &self,
        visitor: &Visitor,
        form: &AccountForm,
        (field, typed): (&'static str, Secret),
    ) -> Result<Option<Response>, Fault> {
        let proved = self.identity.prove_password(&visitor.browser(), typed.into_inner()).await?;
        match proved {
            Ok(true) => Ok(None),
            Ok(false) => {
                let errors = Errors::of(field, say!("This is not your current password."));
                self.wrong(visitor, form, &errors).await.map(Some)
            }
            Err(Wait(wait)) => {
                let (status, errors) = (StatusCode::TOO_MANY_REQUESTS, codes::please_wait(wait));
                let page = self.account_page(status, visitor, Some(form), Text::default(), &errors);
                Ok(Some(retry_after(page.await?, wait.as_secs())))
            }
        }
    }
    /// The owner shows to be present: by the password, or by a passkey.
    async fn prove(&self, visitor: &Visitor, mut form: AccountForm) -> Answer {
        let there = || Redirect::to("/account?done=proved#second").into_response();
        if !form.credential.is_empty() {
            let proved = self.identity.prove_passkey(&visitor.browser(), &form.assertion()).await?;
            if proved {
                return Ok(there());
            }
            let text = say!("This passkey is not one of your account. Please take another way.");
            let (status, errors) = (StatusCode::UNPROCESSABLE_ENTITY, Errors::of("", text));
            return self.proof_page(status, visitor, &errors);
        }
        let current = ("proof_password", std::mem::take(&mut form.proof_password));
        Ok(self.prove_password(visitor, &form, current).await?.unwrap_or_else(there))
    }
    /// Signs one device out; what the form points at must be of this account.
    async fn sign_out(&self, visitor: &Visitor, account: &Account, named: &str) -> Answer {
        let sessions = self.identity.sessions_of(account).await?;
        let Some(session) = sessions.iter().find(|session| handle(session) == named) else {
            return Ok(Redirect::to("/account?done=sign-out").into_response());
        };
        self.identity.end_session(&visitor.browser(), &session.id).await?;
        if visitor.session.as_ref().is_some_and(|own| own.id == session.id) {
            return self.ended("/login");
        }
        Ok(Redirect::to("/account?done=sign-out").into_response())
    }
    /// A change of factors. It takes an owner who has shown to be present.
    async fn factor(&self, visitor: &Visitor, form: &AccountForm) -> Answer {
        let browser = visitor.browser();
        if !self.identity.proved(&browser) {
            let text = say!("Confirm first that it is you, then choose again.");
            return self.wrong(visitor, form, &Errors::of("proof_password", text)).await;
        }
        let to = match form.verb() {
            "second-begin" => {
                self.identity.begin_second(&browser).await?;
                "/account#second"
            }
            "second-off" => {
                self.identity.end_second(&browser).await?;
                "/account?done=second-off"
            }
            "passkey-begin" => "/account?add=passkey",
            "passkey-off" => {
                self.identity.remove_passkey(&browser, &form.passkey).await?;
                "/account?done=passkey-off"
            }
            _ => {
                let text = say!("This is not the code. Type the one that your app shows now.");
                let errors = Errors::of("code", text);
                return match self.confirm_second(visitor, form.code.expose()).await? {
                    Some(page) => Ok(page),
                    None => self.wrong(visitor, form, &errors).await,
                };
            }
        };
        Ok(Redirect::to(to).into_response())
    }
    /// Deletes the account at its owner's wish.
    async fn delete(&self, visitor: &Visitor, form: &AccountForm) -> Answer {
        if !self.identity.proved(&visitor.browser()) {
            let text = say!("Confirm first that it is you, then choose again.");
            return self.wrong(visitor, form, &Errors::of("proof_password", text)).await;
        }
        if form.sure.is_empty() {
            let text = say!("Tick the box if you want to delete your account.");
            return self.wrong(visitor, form, &Errors::of("sure", text)).await;
        }
        self.identity.delete(&visitor.browser()).await?;
        self.ended("/login?done=deleted")
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
    if done.prove == "passkey" {
        return desk.proof_page(StatusCode::OK, &visitor, &errors);
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
            desk.identity.sign_out_everywhere(&visitor.browser()).await?;
            desk.ended("/login")
        }
        "prove" => desk.prove(&visitor, form).await,
        "second-begin" | "second-confirm" | "second-off" | "passkey-begin" | "passkey-off" => {
            desk.factor(&visitor, &form).await
        }
        "passkey-add" => desk.add_passkey(&visitor, &form.attestation).await,
        "delete" => desk.delete(&visitor, &form).await,
        _ => Err(Fault::Status(StatusCode::UNPROCESSABLE_ENTITY)),
    }
}
