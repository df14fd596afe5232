//! The pages: templates built into the program, each of which may be replaced.
use super::{Fault, PortalSettings, form::Errors, session::Visitor, tongue::Wish};
use crate::{
    language::{Language, Languages, Text, say, teach},
    mail::{Address, notice::TemplateError},
    store::Account,
};
use axum::{
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, context};
use std::{collections::BTreeMap, sync::Arc};

/// Content-Type of every page.
pub(super) const HTML: &str = "text/html; charset=utf-8";
/// Name of the style sheet among the overrides.
pub(super) const STYLE: &str = "style.css";
/// Built-in templates.
pub(super) const TEMPLATES: &[(&str, &str)] = &[
    ("page.html", include_str!("templates/page.html")),
    ("form.html", include_str!("templates/form.html")),
    ("providers.html", include_str!("templates/providers.html")),
    ("oidc.html", include_str!("templates/oidc.html")),
    ("front.html", include_str!("templates/front.html")),
    ("login.html", include_str!("templates/login.html")),
    ("register.html", include_str!("templates/register.html")),
    ("verify.html", include_str!("templates/verify.html")),
    ("second.html", include_str!("templates/second.html")),
    ("reset.html", include_str!("templates/reset.html")),
    ("new-password.html", include_str!("templates/new-password.html")),
    ("passkey.html", include_str!("templates/passkey.html")),
    ("new-passkey.html", include_str!("templates/new-passkey.html")),
    ("account.html", include_str!("templates/account.html")),
    ("log.html", include_str!("templates/log.html")),
    ("recovery.html", include_str!("templates/recovery.html")),
    ("check.html", include_str!("templates/check.html")),
    ("inbox.html", include_str!("templates/inbox.html")),
    ("search-form.html", include_str!("templates/search-form.html")),
    ("search.html", include_str!("templates/search.html")),
    ("message.html", include_str!("templates/message.html")),
    ("picture.html", include_str!("templates/picture.html")),
    ("print.html", include_str!("templates/print.html")),
    ("prove.html", include_str!("templates/prove.html")),
    ("write.html", include_str!("templates/write.html")),
    ("sent.html", include_str!("templates/sent.html")),
    ("given-back.html", include_str!("templates/given-back.html")),
    ("plain.html", include_str!("templates/plain.html")),
];

/// All pages, ready to be filled.
#[derive(Debug)]
pub(super) struct Pages {
    /// The same templates in each language, by its code.
    templates: BTreeMap<String, Environment<'static>>,
    languages: Arc<Languages>,
    organization: String,
    support: String,
    style: String,
    /// Whether the house has a logo of its own.
    logo: bool,
    terms_url: String,
    privacy_url: String,
    /// Names of `portal.oidc`.
    providers: Vec<String>,
}

impl Pages {
    /// Takes overrides in, and renders every template once.
    pub(super) fn new(settings: &PortalSettings) -> Result<Self, TemplateError> {
        let names: Vec<_> = super::Portal::template_names().collect();
        if let Some(name) = settings.overrides.keys().find(|name| !names.contains(&name.as_str())) {
            let known = names.join(", ");
            return Err(TemplateError(format!(
                "{name}: the portal has no such template; it has {known}"
            )));
        }
        let chosen = |name: &str, text: &'static str| {
            settings.overrides.get(name).cloned().unwrap_or_else(|| text.to_owned())
        };
        let mut templates = Environment::new();
        templates.set_undefined_behavior(UndefinedBehavior::Strict);
        templates.set_auto_escape_callback(|_| AutoEscape::Html);
        for (name, text) in TEMPLATES {
            templates.add_template_owned(*name, chosen(name, text)).map_err(|e| bad(&e))?;
        }
        let in_its = |language: &Arc<Language>| {
            let mut own = templates.clone();
            teach(&mut own, language);
            (language.code().to_owned(), own)
        };
        let mut pages = Self {
            templates: settings.languages.iter().map(in_its).collect(),
            languages: Arc::clone(&settings.languages),
            organization: settings.organization.clone(),
            support: settings.support.clone(),
            style: chosen(STYLE, include_str!("assets/style.css")) + &settings.brand.style(),
            logo: settings.brand.logo.is_some(),
            terms_url: settings.terms_url.clone(),
            privacy_url: settings.privacy_url.clone(),
            providers: vec!["sample".to_owned()],
        };
        pages.try_all()?;
        let providers = settings.providers.iter().map(|provider| provider.name().to_owned());
        pages.providers = providers.collect();
        Ok(pages)
    }
    /// The style sheet.
    pub(super) fn style(&self) -> &str {
        &self.style
    }
    /// Languages to choose from, each in its own words.
    pub(super) fn languages(&self) -> Value {
        let line = |l: &Arc<Language>| context! { code => l.code(), name => l.name() };
        self.languages.iter().map(line).collect()
    }
    /// One page as text, in the visitor's language. Who is signed in chooses it in the account; all
    /// others at the foot of the page.
    pub(super) fn text(
        &self,
        name: &str,
        title: Text,
        visitor: &Visitor,
        values: Value,
    ) -> Result<String, minijinja::Error> {
        let me = visitor.name();
        let choice = me.is_none() && visitor.page;
        let frame = context! {
            organization => &self.organization,
            support => &self.support,
            logo => self.logo,
            terms_url => &self.terms_url,
            privacy_url => &self.privacy_url,
            title => Value::from(title),
            me => me.unwrap_or_default(),
            tongues => if choice { self.languages() } else { Value::from(Vec::<Value>::new()) },
            providers => &self.providers,
            kept => &visitor.kept,
        };
        let usual = self.languages.usual().code();
        let templates = self.templates.get(visitor.language.code());
        let templates = templates.or_else(|| self.templates.get(usual));
        let Some(templates) = templates else {
            return Err(minijinja::Error::new(
                minijinja::ErrorKind::TemplateNotFound,
                "no language",
            ));
        };
        templates.get_template(name)?.render(context! { ..frame, ..values })
    }
    /// One page as an answer.
    pub(super) fn answer(
        &self,
        status: StatusCode,
        name: &str,
        title: Text,
        visitor: &Visitor,
        values: Value,
    ) -> Result<Response, Fault> {
        Ok(html(status, self.text(name, title, visitor, values)?))
    }
    /// A plain page with a few words.
    pub(super) fn plain(
        &self,
        title: Text,
        text: Text,
        visitor: &Visitor,
    ) -> Result<String, minijinja::Error> {
        self.text("plain.html", title, visitor, context! { text => Value::from(text) })
    }
    /// The page of an error.
    pub(super) fn problem(
        &self,
        status: StatusCode,
        visitor: &Visitor,
    ) -> Result<String, minijinja::Error> {
        let (title, text) = words(status);
        self.plain(title, text, visitor)
    }
    /// The page of a sealed message that does not open.
    pub(super) fn damage(&self, visitor: &Visitor) -> Result<String, minijinja::Error> {
        let text = say!(
            "The message lies here, but its stored copy is damaged and can’t be opened. It will not \
             help to try again. Please write to {desk}, or ask the sender to send it again.",
            desk = self.support.clone()
        );
        self.plain(say!("This message can’t be opened"), text, visitor)
    }
    /// Renders each template with every branch that values open.
    fn try_all(&self) -> Result<(), TemplateError> {
        for (name, title, values) in samples() {
            for visitor in sample_visitors(self.languages.usual()).map_err(TemplateError)? {
                let title = Text::verbatim(title);
                self.text(name, title, &visitor, values.clone()).map_err(|e| bad(&e))?;
            }
        }
        Ok(())
    }
}

/// An answer of HTML.
pub(super) fn html(status: StatusCode, text: String) -> Response {
    let mut response = (status, text).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(HTML));
    response
}
/// An answer that is a script of ours.
pub(super) fn script(text: &'static str) -> Response {
    ([(CONTENT_TYPE, "text/javascript; charset=utf-8")], text).into_response()
}
/// A page with a policy of its own (CSP): it runs a script of ours.
pub(super) fn with_policy(mut page: Response, policy: &'static str) -> Response {
    page.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    page
}
/// Says when to come back.
pub(super) fn retry_after(mut response: Response, seconds: i64) -> Response {
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.unsigned_abs()));
    response
}

fn bad(error: &minijinja::Error) -> TemplateError {
    let place = match (error.name(), error.line()) {
        (Some(name), Some(line)) => format!("{name}:{line}: "),
        (Some(name), None) => format!("{name}: "),
        (None, _) => String::new(),
    };
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    TemplateError(format!("{place}{}{detail}", error.kind()))
}

/// Title and words of an error's page.
fn words(status: StatusCode) -> (Text, Text) {
    match status {
        StatusCode::UNAUTHORIZED => {
            (say!("Please sign in"), say!("Sign in first, then try again."))
        }
        StatusCode::FORBIDDEN => (
            say!("That did not come from this site"),
            say!(
                "For your safety we only take what was sent from our own pages. Please go back to \
                 this site and try again there."
            ),
        ),
        StatusCode::NOT_FOUND => (
            say!("Nothing is here"),
            say!(
                "There is no such page, or it is not meant for you. Please check the address, or \
                 open the link in the notice again."
            ),
        ),
        StatusCode::METHOD_NOT_ALLOWED => {
            (say!("That can’t be done here"), say!("Please go back and try another way."))
        }
        StatusCode::GONE => (
            say!("This message is no longer available"),
            say!(
                "Its time is over, or its sender has taken it back. Please ask the sender if you \
                 still need it."
            ),
        ),
        StatusCode::PAYLOAD_TOO_LARGE => {
            (say!("That was too much"), say!("Please send less at one time."))
        }
        StatusCode::TOO_MANY_REQUESTS => {
            (say!("Too many tries"), say!("Please wait a little, then try again."))
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            (say!("We are very busy"), say!("Please try again in a few minutes. Nothing is lost."))
        }
        other if other.is_server_error() => (
            say!("Something went wrong on our side"),
            say!(
                "Please try again in a few minutes. If it happens again, write to the address below."
            ),
        ),
        _ => (say!("We did not understand that"), say!("Please go back and try again.")),
    }
}

/// Nobody, and somebody signed in.
fn sample_visitors(language: &Arc<Language>) -> Result<[Visitor; 2], String> {
    let wish = Wish::of(language);
    let ann = "ann@clinic.example".parse::<Address>().map_err(|error| error.to_string())?;
    let account = Account::new(ann, [0; 16], Timestamp::UNIX_EPOCH);
    let known = Visitor { account: Some(account), ..Visitor::stranger(wish.clone()) };
    Ok([Visitor::stranger(wish), known])
}

/// Fields that can be wrong.
const SAMPLE_FIELDS: [&str; 9] = [
    "email",
    "password",
    "first_name",
    "language",
    "accept_terms",
    "proof_password",
    "sure",
    "code",
    "phrase",
];

/// Sample values for each template, so that no branch waits for a recipient to find its mistake.
fn samples() -> Vec<(&'static str, &'static str, Value)> {
    let sample = || Text::verbatim("sample");
    let mut errors = Errors::of("", sample());
    for field in SAMPLE_FIELDS {
        errors.add(field, sample());
    }
    let mut all = Vec::new();
    for errors in [Errors::default().to_value(), errors.to_value()] {
        for token in ["", "token"] {
            let values = context! {
                errors => &errors, token => token, email => "ann@clinic.example",
                by_code => token.is_empty(),
            };
            all.push(("login.html", "Sign in", values));
        }
        let names = context! { first_name => "Ann", last_name => "Ode", accept_terms => true };
        let values = context! {
            errors => &errors, token => "token", address => "ann@clinic.example",
        };
        all.push(("register.html", "Register", context! { ..values, ..names }));
        all.extend(sample_codes(&errors));
        all.extend(sample_passkeys(&errors));
        all.extend(sample_accounts(&errors).map(|values| ("account.html", "Account", values)));
        all.extend(super::prove::samples(&errors).map(|values| ("prove.html", "Proof", values)));
        for date in ["", "22 November 2026"] {
            let values = context! {
                errors => &errors, code => "", date => date, to => "a…@clinic.example",
                url => "https://portal.example",
            };
            all.push(("check.html", "Genuine?", values));
        }
    }
    for (url, text) in [("https://provider.example/?a=b", ""), ("", "sample")] {
        let values = context! { name => "sample", url => url, text => text };
        all.push(("oidc.html", "Sample", values));
    }
    let codes: Value = ["abcd-efgh"].into_iter().collect();
    all.push(("recovery.html", "Recovery codes", context! { codes => codes }));
    all.push(("front.html", "Welcome", context! {}));
    all.push(("plain.html", "Sample", context! { text => "sample" }));
    all.extend(sample_inboxes().into_iter().map(|values| ("inbox.html", "Inbox", values)));
    for values in sample_messages() {
        all.push(("print.html", "Sample", values.clone()));
        all.push(("message.html", "Sample", values));
    }
    all.extend(super::log::samples().map(|values| ("log.html", "Sample", values)));
    all.extend(super::search::samples().map(|values| ("search.html", "Search", values)));
    all.extend(super::picture::samples().map(|values| ("picture.html", "Sample", values)));
    all.extend(super::write::samples());
    all
}
fn sample_codes(errors: &Value) -> Vec<(&'static str, &'static str, Value)> {
    let mut all = Vec::new();
    for usable in [false, true] {
        let values = context! {
            errors => errors, address => "ann@clinic.example", usable => usable, code => "",
            register => usable,
        };
        all.push(("verify.html", "Code", values.clone()));
        for keeps_factors in [false, true] {
            let values = context! { keeps_factors => keeps_factors, ..values.clone() };
            all.push(("new-password.html", "A new password", values));
        }
    }
    for token in ["", "token"] {
        let values = context! { errors => errors, email => "ann@clinic.example", token => token };
        all.push(("reset.html", "Forgotten password", values));
    }
    for passkeys in [false, true] {
        let values = context! { errors => errors, passkeys => passkeys };
        all.push(("second.html", "One more step", values));
    }
    all
}
fn sample_passkeys(errors: &Value) -> [(&'static str, &'static str, Value); 4] {
    let values = context! {
        errors => errors, party => "portal.example", challenge => "AA", user => "AA",
        address => "ann@clinic.example", known => "AA AB", name => "my phone",
    };
    let asking = |asks: &str| context! { asks => asks, ..values.clone() };
    [
        ("passkey.html", "Passkey", asking("sign-in")),
        ("passkey.html", "Passkey", asking("second")),
        ("passkey.html", "Passkey", asking("proof")),
        ("new-passkey.html", "A new passkey", values),
    ]
}
fn sample_accounts(errors: &Value) -> impl Iterator<Item = Value> {
    let errors = errors.clone();
    let session = |own: bool| {
        context! {
            handle => if own { "a" } else { "b" }, agent => "Firefox on Linux",
            client => if own { "192.0.2.1" } else { "" }, begun => "22 November 2026",
            seen => "22 November 2026", own => own,
        }
    };
    let sessions: Value = [session(true), session(false)].into_iter().collect();
    let passkey = |used: &str| {
        context! { id => "AA", name => "my phone", created => "22 November 2026", used => used }
    };
    let passkeys: Value = [passkey(""), passkey("22 November 2026")].into_iter().collect();
    let none: Value = Vec::<Value>::new().into_iter().collect();
    let languages: Value = [context! { code => "en", name => "English" }].into_iter().collect();
    [(false, ""), (false, "ABCD"), (true, "")].into_iter().map(move |(second, secret)| {
        context! {
            errors => &errors, done => if second { "Saved." } else { "" },
            address => "ann@clinic.example", first_name => "Ann", last_name => "Ode",
            language => "en", languages => &languages, second => second, recovery => 9,
            enrolment => context! { secret => secret, url => "otpauth://x", path => "M0 0h1v1h-1z",
                size => 29 },
            sessions => &sessions, created => "22 November 2026",
            has_password => second || secret.is_empty(),
            passkeys => if second { passkeys.clone() } else { none.clone() },
            more_passkeys => !second, proved => !second, must_enrol => second,
            offers_second => !second,
        }
    })
}
fn sample_inboxes() -> [Value; 2] {
    let row = |live: bool, opened: bool| {
        context! {
            id => "id", subject => "sample", sender => "sample", stamp => "2026-11-22",
            date => "22 November 2026", expires => "1 January 2027", live => live, opened => opened,
        }
    };
    let rows: Value = [row(true, true), row(true, false), row(false, true)].into_iter().collect();
    let none: Value = Vec::<Value>::new().into_iter().collect();
    [
        context! { messages => rows, older => "id", query => "" },
        context! { messages => none, older => "", query => "" },
    ]
}
fn sample_messages() -> [Value; 2] {
    let of = |rich: bool| {
        let some = |value: Value| -> Value { rich.then_some(value).into_iter().collect() };
        context! {
            id => "id", subject => "sample", from => "sample", to => "sample", stamp => "2026-11-22",
            date => "22 November 2026", size => "1 kB", expires => "1 January 2027",
            note => if rich { "sample" } else { "" },
            segments => some(context! { text => "sample", href => "https://example.org/" }),
            cut => rich, html => if rich { "ticket" } else { "" }, why => if rich { "sample" } else { "" },
            attachments => some(context! { number => 1, name => "sample", size => "1 kB", picture => rich }),
            own => rich, can_reply => rich, can_all => rich, tab => if rich { "sent" } else { "inbox" },
            fates => some(context! { address => "sample", words => "sample", failed => true }),
            thread => some(context! {
                id => "id", subject => "sample", who => "sample", stamp => "2026-11-22",
                date => "22 November 2026", here => rich,
            }),
        }
    };
    [of(true), of(false)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn settings(overrides: &[(&str, &str)]) -> PortalSettings {
        let overrides = overrides
            .iter()
            .map(|(n, t)| ((*n).to_owned(), (*t).to_owned()))
            .collect::<BTreeMap<_, _>>();
        PortalSettings {
            trusted_proxies: Vec::new(),
            min_rate: 0,
            providers: Vec::new(),
            organization: "Example <Health>".into(),
            support: "help@example.org".into(),
            url: "https://portal.example".into(),
            overrides,
            domains: Vec::new(),
            max_reply_size: 0,
            refuse_files: Vec::new(),
            brand: super::super::Brand::default(),
            languages: languages(),
            terms_url: String::new(),
            privacy_url: String::new(),
        }
    }
    fn languages() -> Arc<Languages> {
        Arc::new(Languages::new("en", &[]).unwrap())
    }
    fn visitors() -> [Visitor; 2] {
        sample_visitors(languages().usual()).unwrap()
    }

    #[test]
    fn every_template_has_a_sample_and_renders_as_a_whole_page() {
        let pages = Pages::new(&settings(&[])).unwrap();
        let sampled: BTreeSet<_> = samples().iter().map(|(name, _, _)| *name).collect();
        let parts =
            BTreeSet::from(["page.html", "form.html", "providers.html", "search-form.html"]);
        let all: BTreeSet<_> = TEMPLATES.iter().map(|(name, _)| *name).collect();
        assert_eq!(&all - &parts, sampled);
        for (name, title, values) in samples() {
            for visitor in visitors() {
                let title = Text::verbatim(title);
                let text = pages.text(name, title, &visitor, values.clone()).unwrap();
                super::super::tests::assert_whole_page(&text, visitor.account.is_some());
                assert!(text.contains("Example &lt;Health&gt;"), "{name} escapes");
            }
        }
    }
    #[test]
    fn an_override_takes_the_place_of_the_built_in_one() {
        let own = "{% extends \"page.html\" %}{% block main %}<h1>Ours {{ organization }}</h1>{% endblock %}";
        let pages = Pages::new(&settings(&[("front.html", own), ("style.css", "p{}")])).unwrap();
        let text =
            pages.text("front.html", Text::verbatim("t"), &visitors()[0], context! {}).unwrap();
        assert!(text.contains("<h1>Ours Example &lt;Health&gt;</h1>"));
        assert_eq!(pages.style(), "p{}");
    }
    #[test]
    fn bad_overrides_are_refused_with_their_place() {
        let cases = [
            ("front.html", "a\n{{ nowhere }}", "front.html:2"),
            ("login.html", "{% if %}", "login.html:1"),
            ("frnt.html", "", "frnt.html: the portal has no such template; it has page.html"),
        ];
        for (name, text, expected) in cases {
            let error = Pages::new(&settings(&[(name, text)])).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
