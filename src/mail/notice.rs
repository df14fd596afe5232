//! What Restante itself writes to recipients: the notice of a message waiting, and mailed codes.
//! Rendered from templates (built in, overridable), with nothing of the message's content but what its
//! sender wrote for the notice.

use crate::{
    language::{ENGLISH, Language, Languages, Text, escaped, say, teach},
    mail::{
        Address, MailData, Pickup, QueueId,
        compose::MessageWriter,
        header::{Fields, date},
        text::one_line,
    },
};
use jiff::Timestamp;
use memchr::memmem;
use minijinja::{Environment, UndefinedBehavior, Value, context};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// Text and HTML templates of the notice and the code mail, strict about undefined names, in each
/// language.
#[derive(Debug)]
pub struct Templates {
    /// By the language's code.
    env: BTreeMap<String, Environment<'static>>,
    languages: Arc<Languages>,
}
/// A template that does not compile or render: its name and line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TemplateError(pub String);
/// Organisation-wide words.
#[derive(Debug, Clone)]
pub struct Letterhead {
    /// organization.name
    pub organization: String,
    /// organization.support
    pub support: String,
    /// notification.from
    pub from: Address,
    /// notification.subject, with `{organization}`; without it the notice has a subject in its own
    /// language.
    pub subject: Option<String>,
}
/// The notice of a message waiting at the portal.
pub struct Waiting<'a> {
    /// Who has mail.
    pub recipient: &'a Address,
    /// The code of the reader's language, if it is known.
    pub language: Option<&'a str>,
    /// Who wrote: the From name as given, if any.
    pub sender_name: Option<&'a str>,
    /// Who wrote: the address.
    pub sender: &'a Address,
    /// What the sender wrote for the notice itself, to be read by anybody on the way.
    pub note: Option<&'a str>,
    /// `{portal.url}/m/TOKEN`
    pub link: &'a str,
    /// The code by which the reader can ask the portal whether this notice is ours.
    pub check: &'a str,
    /// When key and body are destroyed.
    pub expires: Timestamp,
    /// What the reader will be asked for beyond the mailbox, if anything.
    pub asked: Option<Pickup>,
    /// Date of this notice.
    pub at: Timestamp,
    /// Its own id, for Message-ID and boundaries.
    pub id: QueueId,
}
/// A code to type at the portal; holds no link.
pub struct CodeMail<'a> {
    /// To whom.
    pub recipient: &'a Address,
    /// The code of the reader's language, if it is known.
    pub language: Option<&'a str>,
    /// Eight digits, or sixteen letters where the mailbox's budget of wrong codes is spent.
    pub code: &'a str,
    /// Of a long code: the page that it is typed at, with the code filled in.
    pub link: Option<&'a str>,
    /// Minutes it is valid.
    pub minutes: u32,
    /// Date.
    pub at: Timestamp,
    /// Its own id.
    pub id: QueueId,
}
/// Word to an account's mailbox that something about sign-in has changed; holds no link and no code.
pub struct ChangeMail<'a> {
    /// To whom.
    pub recipient: &'a Address,
    /// The code of the reader's language, if it is known.
    pub language: Option<&'a str>,
    /// What has happened, as a sentence: `The password was changed.`
    pub what: &'a Text,
    /// Date, and the time of the change.
    pub at: Timestamp,
    /// Its own id.
    pub id: QueueId,
}
/// Word to a sender inside of what the reader of a message will need. Never for the outside.
pub struct ToldMail<'a> {
    /// To whom.
    pub recipient: &'a Address,
    /// What is to be known, a paragraph each.
    pub lines: &'a [Text],
    /// The phrase to be told to the reader.
    pub phrase: Option<&'a str>,
    /// Date.
    pub at: Timestamp,
    /// Its own id.
    pub id: QueueId,
}
impl fmt::Debug for ToldMail<'_> {
    /// Without the phrase.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToldMail")
            .field("recipient", self.recipient)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
impl fmt::Debug for ChangeMail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeMail")
            .field("recipient", self.recipient)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
impl fmt::Debug for Waiting<'_> {
    /// Without the link, whose token is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting")
            .field("recipient", self.recipient)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
impl fmt::Debug for CodeMail<'_> {
    /// Without the code.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeMail")
            .field("recipient", self.recipient)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Name and text of each template as built in.
const BUILT_IN: [(&str, &str); 8] = [
    ("notice.txt", include_str!("templates/notice.txt")),
    ("notice.html", include_str!("templates/notice.html")),
    ("code.txt", include_str!("templates/code.txt")),
    ("code.html", include_str!("templates/code.html")),
    ("changed.txt", include_str!("templates/changed.txt")),
    ("changed.html", include_str!("templates/changed.html")),
    ("told.txt", include_str!("templates/told.txt")),
    ("told.html", include_str!("templates/told.html")),
];

/// Characters of a name that are shown.
const MAX_NAME: usize = 100;
/// Characters of a subject.
const MAX_SUBJECT: usize = 200;
/// Characters of the sender's own words.
const MAX_NOTE: usize = 300;

/// The sender's own words for the notice, from the field that `notification.note` names: one line,
/// without what breaks or reorders it, and an ellipsis where it is longer than a notice takes.
pub fn own_words(fields: &Fields, name: &str) -> Option<String> {
    let words = one_line(&fields.first(name)?, MAX_NOTE + 1);
    if words.chars().count() > MAX_NOTE {
        return Some(one_line(&words, MAX_NOTE - 1) + "…");
    }
    (!words.is_empty()).then_some(words)
}

impl Templates {
    /// Built-in templates with those in `overrides` (file name → text) in their place. Names:
    /// `notice.txt`, `notice.html`, `code.txt`, `code.html`, `changed.txt`, `changed.html`,
    /// `told.txt`, `told.html`. Every template is rendered once with sample values, so that a bad override is refused at start.
    ///
    /// Templates of the notice know `recipient`, `sender`, `sender_name` (empty if unknown), `note`
    /// (the sender's own words for the notice; empty if there are none),
    /// `link`, `site` (what the link begins with), `check` (what to type at `{{ site }}/check` to ask
    /// whether the notice is ours), `expires` and `asked` (what the reader will be asked for, as a
    /// sentence; empty if nothing); those of the code `recipient`,
    /// `code` and `minutes`; those that tell of a change at the account `recipient`, `what` and
    /// `when`; those that tell a sender what the reader will need `lines` and `phrase` (empty if none
    /// was made); all of them `organization` and `support`.
    /// They speak English, German, Spanish and French; who is not known gets English.
    pub fn new(overrides: &BTreeMap<String, String>) -> Result<Self, TemplateError> {
        let languages = Languages::new(ENGLISH, &[]).map_err(|e| TemplateError(e.to_string()))?;
        Self::speaking(Arc::new(languages), overrides)
    }

    /// As [`Templates::new`], in these languages.
    pub fn speaking(
        languages: Arc<Languages>,
        overrides: &BTreeMap<String, String>,
    ) -> Result<Self, TemplateError> {
        if let Some(name) = overrides.keys().find(|name| BUILT_IN.iter().all(|(n, _)| n != name)) {
            return Err(TemplateError(format!(
                "template `{name}`: there is no such template; the names are {}",
                BUILT_IN.map(|(n, _)| n).join(", ")
            )));
        }
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        for (name, built_in) in BUILT_IN {
            let text = overrides.get(name).cloned().unwrap_or_else(|| built_in.to_owned());
            env.add_template_owned(name, text).map_err(|e| explain(name, &e))?;
        }
        let in_its = |language: &Arc<Language>| {
            let mut own = env.clone();
            teach(&mut own, language);
            (language.code().to_owned(), own)
        };
        let templates = Self { env: languages.iter().map(in_its).collect(), languages };
        templates.try_all()?;
        Ok(templates)
    }

    /// Renders everything with sample values.
    fn try_all(&self) -> Result<(), TemplateError> {
        let sample = |text: &str| text.parse::<Address>().map_err(|e| TemplateError(e.to_string()));
        let (from, recipient) = (sample("secure@example.org")?, sample("jane@partner.example")?);
        let (at, id) = (Timestamp::UNIX_EPOCH, QueueId::from_bytes([0; 16]));
        let head = Letterhead {
            organization: "Example".to_owned(),
            support: "helpdesk@example.org".to_owned(),
            from: from.clone(),
            subject: None,
        };
        let link = "https://mail.example.org/m/sample";
        // Both with and without a name and a note: a template may treat them apart.
        for (sender_name, note, asked) in
            [(Some("Bob Sample"), None, None), (None, Some("sample"), Some(Pickup::Phrase))]
        {
            let waiting = Waiting {
                recipient: &recipient,
                language: None,
                sender_name,
                sender: &from,
                note,
                link,
                check: "bcdf-ghjk-mnpr",
                expires: at,
                asked,
                at,
                id,
            };
            self.waiting(&head, &waiting)?;
        }
        let code = CodeMail {
            recipient: &recipient,
            language: None,
            code: "12345678",
            link: None,
            minutes: 15,
            at,
            id,
        };
        self.code(&head, &code)?;
        let what = &say!("A passkey was removed: it no longer lets in.");
        let change = ChangeMail { recipient: &recipient, language: None, what, at, id };
        self.changed(&head, &change)?;
        for phrase in [None, Some("sample of a phrase")] {
            let lines = std::slice::from_ref(what);
            let told = ToldMail { recipient: &recipient, lines, phrase, at, id };
            self.told(&head, &told)?;
        }
        Ok(())
    }

    /// The whole notice, CRLF, ready to be sealed and queued.
    pub fn waiting(&self, head: &Letterhead, w: &Waiting<'_>) -> Result<MailData, TemplateError> {
        let language = self.languages.or_usual(w.language);
        let site = w.link.split_once("/m/").map_or(w.link, |(site, _)| site);
        let name = w.sender_name.map(|name| one_line(name, MAX_NAME)).unwrap_or_default();
        let note = w.note.map(|note| one_line(note, MAX_NOTE)).unwrap_or_default();
        let [organization, support] =
            [&head.organization, &head.support].map(|text| Value::from(one_line(text, MAX_NAME)));
        let [recipient, sender] = [w.recipient, w.sender].map(|who| Value::from(who.to_string()));
        let [name, note, check] = [name.as_str(), note.as_str(), w.check].map(Value::from);
        let expires = Value::from(Text::Day(w.expires));
        let asked = Value::from(asked_for(w.asked));
        let render = |file: &'static str, text: fn(&str) -> Value| {
            let shown = self.render(
                language,
                file,
                context! {
                    organization => organization.clone(),
                    support => support.clone(),
                    recipient => recipient.clone(),
                    sender => sender.clone(),
                    sender_name => name.clone(),
                    note => note.clone(),
                    link => text(w.link),
                    site => text(site),
                    check => check.clone(),
                    expires => expires.clone(),
                    asked => asked.clone(),
                },
            )?;
            require(file, &shown, &text(w.link).to_string(), "{{ link }}").map(|()| shown)
        };
        let (text, html) =
            (render("notice.txt", |text| Value::from(text))?, render("notice.html", html_text)?);
        let subject = match &head.subject {
            Some(own) => own.replace("{organization}", &head.organization),
            None => {
                let organization = head.organization.clone();
                language.say(&say!(
                    "You have a secure message from {organization}",
                    organization = organization
                ))
            }
        };
        Ok(message(head, w.recipient, &subject, (w.at, w.id), &text, &html))
    }

    /// The whole code mail.
    pub fn code(&self, head: &Letterhead, c: &CodeMail<'_>) -> Result<MailData, TemplateError> {
        let language = self.languages.or_usual(c.language);
        let render = |file: &'static str| {
            let shown = self.render(
                language,
                file,
                context! {
                    organization => one_line(&head.organization, MAX_NAME),
                    support => one_line(&head.support, MAX_NAME),
                    recipient => c.recipient.to_string(),
                    code => c.code,
                    link => c.link.unwrap_or_default(),
                    minutes => c.minutes,
                },
            )?;
            require(file, &shown, c.code, "{{ code }}")?;
            // Who reads this mail must not come by the message with it: the link is in the notice
            // alone.
            if shown.contains("/m/") {
                return Err(TemplateError(format!(
                    "template `{file}`: a code mail holds no link (`/m/`)"
                )));
            }
            Ok(shown)
        };
        let (text, html) = (render("code.txt")?, render("code.html")?);
        // Not the code: subjects are shown on locked screens.
        let organization = head.organization.clone();
        let subject =
            language.say(&say!("Your code from {organization}", organization = organization));
        Ok(message(head, c.recipient, &subject, (c.at, c.id), &text, &html))
    }

    /// The whole mail that tells of a change at the account.
    pub fn changed(
        &self,
        head: &Letterhead,
        c: &ChangeMail<'_>,
    ) -> Result<MailData, TemplateError> {
        let language = self.languages.or_usual(c.language);
        let what = language.say(c.what);
        let render = |file: &'static str, text: fn(&str) -> Value| {
            let shown = self.render(
                language,
                file,
                context! {
                    organization => one_line(&head.organization, MAX_NAME),
                    support => one_line(&head.support, MAX_NAME),
                    recipient => c.recipient.to_string(),
                    what => text(&what),
                    when => Value::from(Text::Moment(c.at)),
                },
            )?;
            require(file, &shown, &text(&what).to_string(), "{{ what }}").map(|()| shown)
        };
        let (text, html) =
            (render("changed.txt", |text| Value::from(text))?, render("changed.html", html_text)?);
        let organization = head.organization.clone();
        let subject = language
            .say(&say!("Your account at {organization} has changed", organization = organization));
        Ok(message(head, c.recipient, &subject, (c.at, c.id), &text, &html))
    }

    /// The whole mail that tells a sender inside what the reader will need.
    pub fn told(&self, head: &Letterhead, t: &ToldMail<'_>) -> Result<MailData, TemplateError> {
        let language = self.languages.or_usual(None);
        let lines: Vec<String> = t.lines.iter().map(|line| language.say(line)).collect();
        let phrase = t.phrase.unwrap_or_default();
        let render = |file: &'static str, text: fn(&str) -> Value| {
            let shown = self.render(
                language,
                file,
                context! {
                    organization => one_line(&head.organization, MAX_NAME),
                    support => one_line(&head.support, MAX_NAME),
                    lines => lines.iter().map(|line| text(line)).collect::<Vec<_>>(),
                    phrase => phrase,
                },
            )?;
            require(file, &shown, phrase, "{{ phrase }}").map(|()| shown)
        };
        let (text, html) =
            (render("told.txt", |text| Value::from(text))?, render("told.html", html_text)?);
        let subject = language.say(&say!("What the reader of your message will need"));
        Ok(message(head, t.recipient, &subject, (t.at, t.id), &text, &html))
    }

    fn render(
        &self,
        language: &Language,
        file: &str,
        values: Value,
    ) -> Result<String, TemplateError> {
        let Some(env) = self.env.get(language.code()) else {
            return Err(TemplateError(format!("template `{file}`: not in {}", language.code())));
        };
        let template = env.get_template(file).map_err(|e| explain(file, &e))?;
        template.render(values).map_err(|e| explain(file, &e))
    }
}

/// What the reader will be asked for. No hint at the phrase itself.
fn asked_for(channel: Option<Pickup>) -> Text {
    match channel {
        Some(Pickup::Phrase) => say!(
            "To read it you will be asked for a phrase that the sender tells you, by telephone for \
             instance."
        ),
        Some(Pickup::Sms) => {
            say!("To read it you will be asked for a code that comes by text message.")
        }
        Some(Pickup::Passkey) => {
            say!("To read it, sign in with the passkey that you have set up here.")
        }
        Some(Pickup::Code) | None => Text::default(),
    }
}

/// Which template, which line, what.
fn explain(file: &str, error: &minijinja::Error) -> TemplateError {
    let name = error.name().unwrap_or(file);
    let line = error.line().map(|line| format!(", line {line}")).unwrap_or_default();
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    TemplateError(format!("template `{name}`{line}: {what}"))
}

fn require(file: &str, shown: &str, value: &str, name: &str) -> Result<(), TemplateError> {
    // A paragraph may have been broken into lines.
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    if memmem::find(shown.as_bytes(), value.as_bytes()).is_some()
        || plain(shown).contains(&plain(value))
    {
        return Ok(());
    }
    Err(TemplateError(format!(
        "template `{file}`: it does not show {name}: the mail would be of no use"
    )))
}

fn html_text(text: &str) -> Value {
    Value::from_safe_string(escaped(text).into_owned())
}

/// An id in letters alone: digits in Message-ID or boundary could be taken for the code.
fn letters(id: QueueId) -> String {
    let nibbles = id.as_bytes().iter().flat_map(|b| [b >> 4, b & 0x0f]);
    nibbles.map(|n| char::from(b'a' + n)).collect()
}

fn message(
    head: &Letterhead,
    to: &Address,
    subject: &str,
    (at, id): (Timestamp, QueueId),
    text: &str,
    html: &str,
) -> MailData {
    let name = one_line(&head.organization, MAX_NAME);
    let (id, mut out) = (letters(id), MessageWriter::default());
    let boundary = format!("alternative_{id}");
    out.mailboxes("From", [(name.as_str(), &head.from)]);
    out.mailboxes("To", [("", to)]);
    out.text("Subject", &one_line(subject, MAX_SUBJECT));
    out.words("Date", &date(at));
    out.ids("Message-ID", [format!("{id}@{}", head.from.domain()).as_str()]);
    // RFC 3834 §5: no vacation message answers it.
    out.words("Auto-Submitted", "auto-generated");
    out.words("MIME-Version", "1.0");
    out.multipart("multipart/alternative", &[], &boundary);
    out.text_body("text/plain", text);
    out.next_part(&boundary);
    out.text_body("text/html", html);
    out.last_part(&boundary);
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::parts::{Decoder, Indexer, Part, decode_charset};
    use proptest::prelude::*;

    const LINK: &str = "https://mail.example.org/m/AbCdEfGhIjKlMnOpQrStUvWxYz0123456789-_AbCdE";

    fn head(organization: &str) -> Letterhead {
        Letterhead {
            organization: organization.to_owned(),
            support: "helpdesk@example.org".to_owned(),
            from: "secure@example.org".parse().unwrap(),
            subject: Some("You have a secure message from {organization}".to_owned()),
        }
    }

    fn notice(templates: &Templates, head: &Letterhead, sender_name: Option<&str>) -> MailData {
        noted(templates, head, sender_name, None)
    }

    fn noted(
        templates: &Templates,
        head: &Letterhead,
        sender_name: Option<&str>,
        note: Option<&str>,
    ) -> MailData {
        let waiting = Waiting {
            recipient: &"jane@partner.example".parse().unwrap(),
            language: None,
            sender_name,
            sender: &"bob@example.org".parse().unwrap(),
            note,
            link: LINK,
            check: "bcdf-ghjk-mnpr",
            expires: "2026-12-22T01:02:03Z".parse().unwrap(),
            asked: None,
            at: "2026-11-22T01:02:03Z".parse().unwrap(),
            id: QueueId::from_bytes([0x12; 16]),
        };
        templates.waiting(head, &waiting).unwrap()
    }

    fn code(templates: &Templates, head: &Letterhead) -> MailData {
        let code = CodeMail {
            recipient: &"jane@partner.example".parse().unwrap(),
            language: None,
            code: "31415926",
            link: None,
            minutes: 15,
            at: "2026-11-22T01:02:03Z".parse().unwrap(),
            id: QueueId::from_bytes([0x12; 16]),
        };
        templates.code(head, &code).unwrap()
    }

    /// Text and HTML, decoded.
    fn bodies(message: &[u8]) -> (String, String) {
        let mut indexer = Indexer::default();
        indexer.feed(message);
        let index = indexer.finish();
        let types: Vec<_> = index.parts.iter().map(|p| p.content_type.as_str()).collect();
        assert_eq!(types, ["multipart/alternative", "text/plain", "text/html"]);
        let body = |part: &Part| {
            let mut out = Vec::new();
            let mut decoder = Decoder::new(part.encoding);
            decoder.feed(&message[part.body.start as usize..part.body.end as usize], &mut out);
            decoder.finish(&mut out);
            decode_charset(part.charset.as_deref(), &out)
        };
        (body(index.text().unwrap()), body(index.html().unwrap()))
    }

    #[test]
    fn word_of_a_change() {
        let change = ChangeMail {
            recipient: &"jane@partner.example".parse().unwrap(),
            language: None,
            what: &Text::verbatim("The password was changed: \"Forgot it\" & <more>."),
            at: "2026-11-22T01:02:03Z".parse().unwrap(),
            id: QueueId::from_bytes([0x12; 16]),
        };
        let message = built_in().changed(&head("Example Health"), &change).unwrap();
        check_lines(&message);
        let (text, html) = bodies(&message);
        assert!(text.contains(&change.what.to_string()), "{text}");
        assert!(html.contains("&quot;Forgot it&quot; &amp; &lt;more&gt;"), "{html}");
        for body in [&text, &html] {
            for word in ["jane@partner.example", "22 November 2026, 01:02 UTC", "helpdesk@"] {
                assert!(body.contains(word), "{word}");
            }
            assert!(!body.contains("http"), "no link");
        }
    }

    #[test]
    fn mails_speak_every_language() {
        let recipient: &Address = &"jane@partner.example".parse().unwrap();
        let at: Timestamp = "2026-11-22T01:02:03Z".parse().unwrap();
        let id = QueueId::from_bytes([0x12; 16]);
        let (templates, head) =
            (built_in(), Letterhead { subject: None, ..head("Example Health") });
        for (lang, subject, notice, mailed, changed) in [
            ("en", "You have a secure message", "22 December 2026", "Your code", "has changed"),
            ("de", "Sie haben eine sichere", "22. Dezember 2026", "Ihr Code", "wurde geändert"),
            (
                "es",
                "Tiene un mensaje seguro",
                "22 de diciembre de 2026",
                "Su código",
                "ha cambiado",
            ),
            ("fr", "Vous avez un message", "22 décembre 2026", "Votre code", "a changé"),
        ] {
            let language = Some(lang);
            let sender = &"bob@example.org".parse().unwrap();
            let waiting = Waiting {
                recipient,
                language,
                sender_name: Some("Bob"),
                sender,
                note: None,
                link: LINK,
                check: "bcdf-ghjk-mnpr",
                expires: "2026-12-22T01:02:03Z".parse().unwrap(),
                asked: None,
                at,
                id,
            };
            let waiting = templates.waiting(&head, &waiting).unwrap();
            let code =
                CodeMail { recipient, language, code: "31415926", link: None, minutes: 15, at, id };
            let code = templates.code(&head, &code).unwrap();
            let what = &say!("A passkey was added: it lets in without the password.");
            let change = ChangeMail { recipient, language, what, at, id };
            let change = templates.changed(&head, &change).unwrap();
            let subject_of = |mail: &[u8]| Fields::parse(mail).first("Subject").unwrap();
            assert!(subject_of(&waiting).starts_with(subject), "{}", subject_of(&waiting));
            for (mail, words) in [(&waiting, notice), (&code, mailed), (&change, changed)] {
                check_lines(mail);
                let (text, html) = bodies(mail);
                assert!(html.contains(words), "{html}");
                assert!(html.contains(&format!("<html lang=\"{}\">", lang)), "{html}");
                let short = |line: &str| line.chars().count() <= 78 || !line.trim().contains(' ');
                assert!(text.lines().all(short), "{text}");
            }
        }
    }

    fn built_in() -> Templates {
        Templates::new(&BTreeMap::new()).unwrap()
    }

    fn check_lines(message: &[u8]) {
        for line in std::str::from_utf8(message).unwrap().split("\r\n") {
            assert!(line.len() < 998 && !line.contains(['\r', '\n']), "{line:?}");
        }
    }

    #[test]
    fn a_notice() {
        let message = notice(&built_in(), &head("Example Health"), Some("Bob Example"));
        assert_eq!(
            message,
            notice(&built_in(), &head("Example Health"), Some("Bob Example")),
            "the same each time"
        );
        check_lines(&message);
        let fields = Fields::parse(&message);
        for (name, value) in [
            ("From", "\"Example Health\" <secure@example.org>"),
            ("To", "<jane@partner.example>"),
            ("Subject", "You have a secure message from Example Health"),
            ("Date", "Sun, 22 Nov 2026 01:02:03 +0000"),
            ("Message-ID", "<bcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbc@example.org>"),
            ("Auto-Submitted", "auto-generated"),
            ("MIME-Version", "1.0"),
        ] {
            assert_eq!(fields.all(name), [value], "{name}");
        }
        assert_eq!(fields.iter().count(), 8, "and Content-Type, no Reply-To");
        let (text, html) = bodies(&message);
        for body in [&text, &html] {
            for word in
                [LINK, "Bob Example", "bob@example.org", "22 December 2026", "helpdesk@example.org"]
            {
                assert!(body.contains(word), "{word}");
            }
        }
        let nameless = bodies(&notice(&built_in(), &head("Example Health"), None));
        assert!(nameless.0.contains("bob@example.org") && !nameless.0.contains("()"));
    }

    #[test]
    fn the_senders_own_words_are_one_line_of_text() {
        let (long, full) = ("é".repeat(400), "é".repeat(300));
        for (field, words, why) in [
            ("X-Note: Your results are in.", Some("Your results are in."), "as it is"),
            ("x-note:  =?utf-8?q?Gr=C3=BC=C3=9Fe?=", Some("Grüße"), "encoded, in any case"),
            ("X-Note: =?utf-8?q?a=0D=0ABcc:_x?=", Some("a Bcc: x"), "one line"),
            ("X-Note: two\r\n lines", Some("two lines"), "folded"),
            ("X-Note: gpj\u{202e}.exe", Some("gpj .exe"), "nothing turns it round"),
            ("X-Note: one\r\nX-Note: two", Some("one"), "the first"),
            (&format!("X-Note: {full}"), Some(full.as_str()), "as long as may be"),
            (&format!("X-Note: {long}"), Some(&("é".repeat(299) + "…")), "cut"),
            ("X-Note:  ", None, "empty"),
            ("Subject: x", None, "none"),
        ] {
            let fields = Fields::parse(field.as_bytes());
            assert_eq!(own_words(&fields, "X-Note").as_deref(), words, "{why}");
        }
    }

    #[test]
    fn the_senders_own_words_stand_in_the_notice() {
        let words = "Read <b>it</b> & call: https://evil.example/ {{ link }}";
        let message = noted(&built_in(), &head("Example"), Some("Bob Example"), Some(words));
        check_lines(&message);
        let (text, html) = bodies(&message);
        let unwrapped = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(unwrapped.contains(&format!("Bob Example writes: {words}")), "{text}");
        let escaped = "<strong>Bob Example</strong> writes: Read &lt;b&gt;it&lt;/b&gt; &amp; call";
        assert!(html.contains(escaped), "{html}");
        assert_eq!(html.matches("<a href=").count(), 1, "no link is made of it");
        let nameless = bodies(&noted(&built_in(), &head("Example"), None, Some("Hello.")));
        assert!(nameless.0.contains("bob@example.org writes: Hello."), "{}", nameless.0);
        let (text, html) = bodies(&notice(&built_in(), &head("Example"), None));
        assert!(!text.contains("writes:") && !html.contains("writes:"), "nothing without words");
    }

    #[test]
    fn a_code_stands_alone() {
        let message = code(&built_in(), &head("Example Health"));
        check_lines(&message);
        let (text, html) = bodies(&message);
        assert!(
            text.contains("\n31415926")
                && html.contains("\n31415926")
                && text.contains("15 minutes")
        );
        let whole = String::from_utf8(message.into()).unwrap();
        assert!(!whole.contains("/m/") && !whole.contains("http"));
        let digits: Vec<&str> =
            whole.split(|c: char| !c.is_ascii_digit()).filter(|run| run.len() >= 6).collect();
        assert_eq!(digits, ["31415926", "31415926"], "no other number could be taken for it");
        assert!(!Fields::parse(whole.as_bytes()).first("Subject").unwrap().contains("31415926"));
    }

    #[test]
    fn nothing_remote_in_html() {
        for (_, html) in [
            bodies(&notice(&built_in(), &head("Example"), None)),
            bodies(&code(&built_in(), &head("Example"))),
        ] {
            let html = html.replace(LINK, "").replace("https://mail.example.org", "");
            for word in ["http", "src=", "url(", "<img", "<script", "<link", "@import"] {
                assert!(!html.contains(word), "{word}");
            }
            assert!(html.contains("<html lang=\"en\">") && html.contains("<title>"));
            assert_eq!(html.matches("<h1").count(), 1);
        }
    }

    #[test]
    fn names_are_text() {
        let evil = "<b>\"A\"\r\nBcc: x@y\u{202e}</b>";
        let message = notice(&built_in(), &head(evil), Some(evil));
        let fields = Fields::parse(&message);
        assert_eq!(fields.first("Bcc"), None);
        assert_eq!(fields.from_name().unwrap(), "<b>\"A\" Bcc: x@y </b>");
        let (text, html) = bodies(&message);
        assert!(!html.contains("<b>") && html.contains("&lt;b&gt;") && !text.contains('\u{202e}'));
        assert!(text.contains("<b>\"A\" Bcc: x@y </b>"), "text is not escaped");
    }

    #[test]
    fn overrides() {
        let one = |name: &str, text: &str| {
            Templates::new(&BTreeMap::from([(name.to_owned(), text.to_owned())]))
        };
        let templates =
            one("notice.txt", "Look: {{ link }} by {{ sender_name or sender }}").unwrap();
        assert!(bodies(&notice(&templates, &head("E"), None)).0.contains("by bob@example.org"));
        for (name, text, said, why) in [
            ("notice.txt", "a\n{{ link", "`notice.txt`, line 2", "syntax"),
            (
                "notice.html",
                "a\n\n{{ lnk }}{{ link }}",
                "`notice.html`, line 3",
                "an undefined name",
            ),
            (
                "notice.txt",
                "{% if sender_name %}{{ link }}{% else %}{{ x }}{% endif %}",
                "line 1",
                "in one branch",
            ),
            ("notice.html", "hello", "{{ link }}", "no link"),
            ("code.txt", "hello", "{{ code }}", "no code"),
            ("code.html", "{{ code }} <a href='/m/x'>", "/m/", "a link beside the code"),
            ("code.txt", "{{ code }} {{ token }}", "line 1", "the link is not known there"),
            ("notice.htm", "", "notice.html", "a wrong file name"),
        ] {
            let error = one(name, text).expect_err(why).to_string();
            assert!(error.contains(said), "{why}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_field_is_injected(name in "(?s:.{0,150})", subject in "(?s:.{0,300})") {
            let head = Letterhead { subject: Some(subject), ..head(&name) };
            let message = notice(&built_in(), &head, Some(&name));
            check_lines(&message);
            prop_assert_eq!(Fields::parse(&message).iter().count(), 8);
            bodies(&message);
        }
    }
}
