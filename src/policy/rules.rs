//! `[[rule]]`: what must be protected. The first that matches decides; none: protected.
//!
//! All conditions of one `when` must hold. `reject` wins wherever it stands. A condition on the
//! recipient holds for `protect` and `reject` if it is true of any recipient, for `pass` only if it
//! is true of all: a message is one, and doubt seals.
use crate::{
    mail::{Address, Pickup, ReversePath, header::Fields},
    policy::{
        Code,
        read::{accept, domain_name, pickup},
        toml_source::{Entry, Section, choice, size},
    },
};
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuleAction {
    /// Goes out at level opportunistic where no partner entry stands.
    Pass,
    /// Must be protected.
    Protect,
    /// 550 5.7.1 at the end of DATA.
    Reject,
}
/// What the rules said of a message; kept with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleVerdict {
    /// What.
    pub action: RuleAction,
    /// File and line of the rule; `None`: no rule matched, protected.
    pub rule: Option<(String, u32)>,
    /// A tag to take out of the Subject (`strip = true`): the text as it stands there.
    pub strip: Option<String>,
    /// What the reader must prove beyond the mailbox where the message is sealed for pickup, as the
    /// rule or the sender's own field says.
    #[serde(default, skip_serializing_if = "Pickup::is_code")]
    pub pickup: Pickup,
}
/// What rules look at.
#[derive(Debug)]
pub struct RuleFacts<'a> {
    /// Reverse-path.
    pub sender: &'a ReversePath,
    /// Recipients.
    pub recipients: &'a [Address],
    /// Header fields.
    pub fields: &'a Fields,
    /// Content size.
    pub size: u64,
    /// Attachment names.
    pub attachments: &'a [String],
}
impl RuleVerdict {
    /// No rule matched.
    pub fn protected() -> Self {
        Self { action: RuleAction::Protect, rule: None, strip: None, pickup: Pickup::Code }
    }
}

const ACTIONS: [(&str, RuleAction); 3] =
    [("protect", RuleAction::Protect), ("pass", RuleAction::Pass), ("reject", RuleAction::Reject)];
pub(super) const WHEN: [&str; 8] = [
    "subject",
    "header",
    "sensitivity",
    "sender",
    "recipient",
    "size_over",
    "attachment",
    "detect",
];
/// RFC 4021 §2.1.55 and RFC 2156 §5.3.4.
const SENSITIVITIES: [&str; 3] = ["personal", "private", "company-confidential"];
/// Longest pattern of a rule, and the memory its compiled form may take.
const PATTERN_LIMIT: usize = 1000;
const REGEX_MEMORY: usize = 1 << 20;

/// A rule as read.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    /// File and line of its `[[rule]]`.
    pub(super) at: (String, u32),
    pub(super) action: RuleAction,
    when: When,
    strip: bool,
    pub(super) pickup: Pickup,
    /// Warnings that the admin has answered.
    pub(super) accept: Vec<Code>,
}

#[derive(Debug, Clone, Default)]
struct When {
    subject: Option<Regex>,
    header: Option<(String, Regex)>,
    sensitivity: Option<String>,
    sender: Option<Who>,
    recipient: Option<Who>,
    size_over: Option<u64>,
    attachment: Option<String>,
}

/// Whom a condition is about.
#[derive(Debug, Clone)]
enum Who {
    /// The null reverse-path, written `<>`.
    Null,
    Address(Address),
    /// A domain, or with a leading dot all below it.
    Domain(String),
}

impl Who {
    fn read(text: &str) -> Result<Self, String> {
        if text == "<>" {
            return Ok(Self::Null);
        }
        if !text.contains('@') {
            return domain_name(text).map(Self::Domain);
        }
        let address = text.trim_start_matches('<').trim_end_matches('>').parse();
        address.map(Self::Address).map_err(|e| {
            format!("`{text}` is no address ({e}): write \"a@b.example\", or a domain")
        })
    }

    /// True if everything that `other` is about is within this.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Address(_), Self::Address(found)) => self.is(Some(found)),
            (Self::Domain(_), Self::Address(found)) => self.is(Some(found)),
            (Self::Domain(wanted), Self::Domain(found)) => {
                wanted == found || wanted.starts_with('.') && found.ends_with(wanted)
            }
            (Self::Null, Self::Address(_) | Self::Domain(_))
            | (Self::Address(_), Self::Null | Self::Domain(_))
            | (Self::Domain(_), Self::Null) => false,
        }
    }

    fn is(&self, address: Option<&Address>) -> bool {
        match (self, address) {
            (Self::Null, found) => found.is_none(),
            (Self::Address(_) | Self::Domain(_), None) => false,
            // Local parts are compared without regard to case: a rule that misses by case protects
            // nobody.
            (Self::Address(wanted), Some(found)) => {
                wanted.domain() == found.domain()
                    && wanted.local().to_lowercase() == found.local().to_lowercase()
            }
            (Self::Domain(wanted), Some(found)) => match wanted.strip_prefix('.') {
                Some(parent) => found.domain().is_below(parent),
                None => found.domain().as_str() == wanted,
            },
        }
    }
}

impl Rule {
    pub(super) const KEYS: [&'static str; 5] = ["when", "action", "strip", "pickup", "accept"];

    /// Reads one `[[rule]]`; what is wrong has been noted.
    pub(super) fn read(section: &Section<'_, '_>) -> Option<Self> {
        let doc = section.doc();
        let accept = accept(section);
        doc.accept(&accept);
        let rule = Self::read_open(section);
        doc.accept(&[]);
        Some(Self { accept, ..rule? })
    }

    fn read_open(section: &Section<'_, '_>) -> Option<Self> {
        let doc = section.doc();
        let (line, _) = doc.position(section.at());
        let action = match section.get("action") {
            Some(entry) => entry.parse(|text| choice(text, &ACTIONS)),
            None => {
                let text =
                    "key `action` is missing: write action = \"protect\", \"pass\" or \"reject\"";
                doc.note(Code::MISSING_KEY, section.at(), text);
                None
            }
        };
        let when = When::read(section);
        let strip = section.get("strip").and_then(|e| e.boolean()).unwrap_or(false);
        if let Some(entry) = section.get("strip").filter(|_| strip) {
            match (&when, action) {
                (Some(when), _) if when.subject.is_none() => {
                    entry.fail("takes the subject's tag out: it needs a condition `subject`");
                }
                (_, Some(RuleAction::Reject)) => {
                    entry.note(Code::NO_EFFECT, "has no effect on what is rejected");
                }
                (_, Some(RuleAction::Pass | RuleAction::Protect) | None) => {}
            }
        }
        let pickup = pickup(section);
        if let (Some(entry), Some(RuleAction::Pass | RuleAction::Reject)) =
            (section.get("pickup").filter(|_| !pickup.is_code()), action)
        {
            entry.note(Code::NO_EFFECT, "has an effect on what is protected only");
        }
        let at = (doc.name().to_owned(), line);
        Some(Self { at, action: action?, when: when?, strip, pickup, accept: Vec::new() })
    }

    /// True if this rule is met by every message that meets `other`.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let (all, of_all) = (self.action == RuleAction::Pass, other.action == RuleAction::Pass);
        // A condition on every recipient is not met because one recipient meets it.
        let quantified = self.when.recipient.is_none() || !all || of_all;
        quantified && self.when.covers(&other.when)
    }

    fn matches(&self, facts: &RuleFacts<'_>) -> bool {
        self.when.holds(facts, self.action == RuleAction::Pass)
    }

    fn verdict(&self, facts: &RuleFacts<'_>) -> RuleVerdict {
        let strip = if self.strip { self.when.tag(facts) } else { None };
        RuleVerdict { action: self.action, rule: Some(self.at.clone()), strip, pickup: self.pickup }
    }
}

impl When {
    fn read(section: &Section<'_, '_>) -> Option<Self> {
        if section.get("when").is_none() {
            let text = "key `when` is missing: write when = { subject = \"[secure]\" }";
            section.doc().note(Code::MISSING_KEY, section.at(), text);
        }
        let when = section.section("when", &WHEN)?;
        if let Some(entry) = when.get("detect").filter(|e| !e.is_empty()) {
            entry.not_yet();
        }
        if WHEN.iter().all(|key| when.get(key).is_none()) {
            let text = "`when` holds no condition, so that every message would match: \
                        write one, as { subject = \"[secure]\" }";
            when.doc().note(Code::NO_CONDITION, when.at(), text);
            return None;
        }
        Some(Self {
            subject: when.get("subject").and_then(|e| e.parse(pattern)),
            header: when.get("header").and_then(|e| e.parse(header)),
            sensitivity: when.get("sensitivity").and_then(|e| sensitivity(&e)),
            sender: when.get("sender").and_then(|e| e.parse(Who::read)),
            recipient: when.get("recipient").and_then(|e| e.parse(Who::read)),
            size_over: when.get("size_over").and_then(|e| e.parse(size)),
            attachment: when.get("attachment").and_then(|e| e.parse(glob)),
        })
    }

    /// True if each condition here is implied by one of `other`.
    fn covers(&self, other: &Self) -> bool {
        fn implied<T>(own: Option<&T>, other: Option<&T>, covers: impl Fn(&T, &T) -> bool) -> bool {
            own.is_none_or(|own| other.is_some_and(|other| covers(own, other)))
        }
        let same = |a: &Regex, b: &Regex| a.as_str() == b.as_str();
        let folded = |a: &String, b: &String| a.eq_ignore_ascii_case(b);
        implied(self.subject.as_ref(), other.subject.as_ref(), same)
            && implied(self.header.as_ref(), other.header.as_ref(), |a, b| {
                folded(&a.0, &b.0) && same(&a.1, &b.1)
            })
            && implied(self.sensitivity.as_ref(), other.sensitivity.as_ref(), folded)
            && implied(self.sender.as_ref(), other.sender.as_ref(), Who::covers)
            && implied(self.recipient.as_ref(), other.recipient.as_ref(), Who::covers)
            && implied(self.size_over.as_ref(), other.size_over.as_ref(), |a, b| a <= b)
            && implied(self.attachment.as_ref(), other.attachment.as_ref(), |a, b| {
                a == b || a == "*"
            })
    }

    fn holds(&self, facts: &RuleFacts<'_>, all_recipients: bool) -> bool {
        let fields = facts.fields;
        let any = |name: &str, wanted: &Regex| fields.all(name).iter().any(|v| wanted.is_match(v));
        self.subject.as_ref().is_none_or(|wanted| any("Subject", wanted))
            && self.header.as_ref().is_none_or(|(name, wanted)| any(name, wanted))
            && self.sensitivity.as_ref().is_none_or(|wanted| {
                fields.all("Sensitivity").iter().any(|v| v.trim().eq_ignore_ascii_case(wanted))
            })
            && self.sender.as_ref().is_none_or(|who| who.is(facts.sender.as_ref()))
            && self.recipient.as_ref().is_none_or(|who| {
                let mut found = facts.recipients.iter().map(|r| who.is(Some(r)));
                let some = !facts.recipients.is_empty();
                if all_recipients { some && found.all(|is| is) } else { found.any(|is| is) }
            })
            && self.size_over.is_none_or(|limit| facts.size > limit)
            && self.attachment.as_ref().is_none_or(|wanted| {
                facts.attachments.iter().any(|name| glob_matches(wanted, &name.to_lowercase()))
            })
    }

    /// The text of the subject that the condition met.
    fn tag(&self, facts: &RuleFacts<'_>) -> Option<String> {
        let wanted = self.subject.as_ref()?;
        let subjects = facts.fields.all("Subject");
        let tag = subjects.iter().find_map(|subject| wanted.find(subject))?.as_str();
        (!tag.is_empty()).then(|| tag.to_owned())
    }
}

/// Judges a message: a `reject` that matches wins, then the first that matches, then protected.
pub(super) fn judge(rules: &[Rule], facts: &RuleFacts<'_>) -> RuleVerdict {
    let matching = || rules.iter().filter(|rule| rule.matches(facts));
    let reject = matching().find(|rule| rule.action == RuleAction::Reject);
    let decides = reject.or_else(|| matching().next());
    decides.map_or_else(RuleVerdict::protected, |rule| rule.verdict(facts))
}

/// A plain text or a `/regex/`, both without regard to case. The engine is linear in time and
/// bounded in memory.
fn pattern(text: &str) -> Result<Regex, String> {
    if text.is_empty() || text.len() > PATTERN_LIMIT {
        return Err(format!("a text of 1 to {PATTERN_LIMIT} bytes belongs here"));
    }
    let inner = text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
    let source = inner.map_or_else(|| regex::escape(text), str::to_owned);
    let built = RegexBuilder::new(&source)
        .case_insensitive(true)
        .size_limit(REGEX_MEMORY)
        .dfa_size_limit(REGEX_MEMORY)
        .nest_limit(50)
        .build();
    built.map_err(|error| {
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default().trim();
        format!("not a regular expression: {}", last.trim_start_matches("error: "))
    })
}

/// `Name: text`; without a text the field need only be there.
fn header(text: &str) -> Result<(String, Regex), String> {
    let wrong = || format!("`{text}` is no header condition: write \"X-Class: confidential\"");
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(wrong());
    }
    let value = value.trim();
    let wanted = pattern(if value.is_empty() { "/^/" } else { value })?;
    Ok((name.to_owned(), wanted))
}

fn sensitivity(entry: &Entry<'_, '_>) -> Option<String> {
    let text = entry.line()?.trim();
    if text.is_empty() {
        entry.fail("empty: write \"company-confidential\"");
        return None;
    }
    if !SENSITIVITIES.contains(&text.to_lowercase().as_str()) {
        let text = format!("mail programs write one of {}", SENSITIVITIES.join(", "));
        entry.note(Code::UNUSUAL_VALUE, text);
    }
    Some(text.to_owned())
}

/// A pattern of file names, lower case: `*` is any text, `?` any one character.
///
/// # Errors
/// What to write instead.
pub fn glob(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > PATTERN_LIMIT || text.contains('/') {
        return Err(format!("`{text}` is no file name pattern: write \"*.dcm\""));
    }
    Ok(text.to_lowercase())
}

/// True if a name, lower case, is as a [`glob`] says. Time is the product of the lengths at most.
pub fn glob_matches(pattern: &str, name: &str) -> bool {
    let mut reach = vec![true];
    let name: Vec<char> = name.chars().collect();
    reach.resize(name.len() + 1, false);
    for wanted in pattern.chars() {
        reach = glob_step(wanted, &reach, &name);
    }
    reach.last().copied().unwrap_or(false)
}

/// `reach` says which beginnings of the name the pattern has met so far; one more character of the
/// pattern.
fn glob_step(wanted: char, reach: &[bool], name: &[char]) -> Vec<bool> {
    if wanted == '*' {
        let mut met = false;
        return reach
            .iter()
            .map(|now| {
                met |= *now;
                met
            })
            .collect();
    }
    let stepped = reach.iter().zip(name).map(|(met, c)| *met && (wanted == '?' || wanted == *c));
    std::iter::once(false).chain(stepped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{PolicySet, SourceFile};
    use jiff::Timestamp;

    fn parse(text: &str) -> Result<PolicySet, Vec<String>> {
        let file = SourceFile { name: "rules.toml".into(), text: text.into() };
        let parsed = PolicySet::parse(&[file], Timestamp::UNIX_EPOCH);
        parsed.map(|(set, _)| set).map_err(|p| p.iter().map(ToString::to_string).collect())
    }

    fn rule(when: &str, action: &str) -> String {
        format!("[[rule]]\nwhen = {{ {when} }}\naction = \"{action}\"\n")
    }

    const HEADER: &[u8] = b"From: a@example.org\r\nSubject: Report [Secure] of May\r\n\
        Sensitivity: Company-Confidential\r\nX-Class: Very Secret\r\n\r\n";

    fn judged(rules: &str, recipients: &[&str]) -> RuleVerdict {
        let sender = Some("robot@example.org".parse().unwrap());
        let recipients: Vec<Address> = recipients.iter().map(|r| r.parse().unwrap()).collect();
        let attachments = ["Scan.DCM".to_owned(), "notes.txt".to_owned()];
        let facts = RuleFacts {
            sender: &sender,
            recipients: &recipients,
            fields: &Fields::parse(HEADER),
            size: 1_000_000,
            attachments: &attachments,
        };
        parse(rules).unwrap().judge(&facts)
    }

    #[test]
    fn conditions() {
        for (when, matches) in [
            ("subject = \"[secure]\"", true),
            ("subject = \"[sealed]\"", false),
            ("subject = \"/report.*may$/\"", true),
            ("subject = \"/^of May/\"", false),
            ("header = \"x-class: secret\"", true),
            ("header = \"X-Class:\"", true),
            ("header = \"X-Class: /^secret/\"", false),
            ("header = \"X-Other:\"", false),
            ("sensitivity = \"company-confidential\"", true),
            ("sensitivity = \"private\"", false),
            ("sender = \"Robot@example.org\"", true),
            ("sender = \"example.org\"", true),
            ("sender = \".example.org\"", false),
            ("sender = \"<>\"", false),
            ("recipient = \".newsletter.example\"", true),
            ("recipient = \"newsletter.example\"", false),
            ("size_over = \"1 MB\"", false),
            ("size_over = \"999 kB\"", true),
            ("attachment = \"*.dcm\"", true),
            ("attachment = \"*.dc\"", false),
            ("attachment = \"sc?n.*\"", true),
            ("subject = \"[secure]\", attachment = \"*.pdf\"", false),
            ("subject = \"[secure]\", attachment = \"*.dcm\"", true),
        ] {
            let verdict = judged(&rule(when, "pass"), &["a@x.newsletter.example"]);
            assert_eq!(verdict.action == RuleAction::Pass, matches, "{when}");
        }
    }

    #[test]
    fn reject_wins_then_the_first_then_protected() {
        let pass = rule("size_over = \"1 B\"", "pass");
        let protect = rule("subject = \"[secure]\"", "protect");
        let reject = rule("sender = \"robot@example.org\"", "reject");
        for (rules, action, line) in [
            (format!("{pass}{protect}{reject}"), RuleAction::Reject, Some(7)),
            (format!("{pass}{protect}"), RuleAction::Pass, Some(1)),
            (format!("{protect}{pass}"), RuleAction::Protect, Some(1)),
            (rule("size_over = \"1 GiB\"", "pass"), RuleAction::Protect, None),
            (String::new(), RuleAction::Protect, None),
        ] {
            let verdict = judged(&rules, &["a@b.example"]);
            assert_eq!(verdict.action, action, "{rules}");
            assert_eq!(verdict.rule, line.map(|l| ("rules.toml".to_owned(), l)), "{rules}");
        }
    }

    #[test]
    fn pass_by_recipient_must_hold_for_all() {
        let when = "recipient = \"n.example\"";
        for (recipients, any, all) in [
            (&["a@n.example"][..], true, true),
            (&["a@n.example", "b@n.example"], true, true),
            (&["a@n.example", "b@other.example"], true, false),
            (&["b@other.example"], false, false),
            (&[], false, false),
        ] {
            let reject = judged(&rule(when, "reject"), recipients).action == RuleAction::Reject;
            let pass = judged(&rule(when, "pass"), recipients).action == RuleAction::Pass;
            assert_eq!((reject, pass), (any, all), "{recipients:?}");
        }
    }

    #[test]
    fn strip_names_the_tag_as_it_stands() {
        let rules = format!("{}strip = true\n", rule("subject = \"[secure]\"", "protect"));
        assert_eq!(judged(&rules, &["a@b.example"]).strip.as_deref(), Some("[Secure]"));
        let kept = rule("subject = \"[secure]\"", "protect");
        assert_eq!(judged(&kept, &["a@b.example"]).strip, None);
    }

    #[test]
    fn bad_rules_say_what_to_write() {
        for (text, says) in [
            (
                rule("subjct = \"x\"", "protect"),
                "rules.toml:2:10: error: unknown key `subjct`; did you mean `subject`?",
            ),
            (
                rule("subject = \"/[/\"", "protect"),
                "rules.toml:2:20: error: key `subject`: not a regular expression",
            ),
            (rule("subject = \"\"", "protect"), "a text of 1 to"),
            (rule("subject = \"/(a{1000}){1000}/\"", "protect"), "not a regular expression"),
            (rule("header = \"X-Class\"", "protect"), "no header condition"),
            (rule("sender = \"a@\"", "protect"), "no address"),
            (rule("recipient = \"*.x.example\"", "pass"), "write \".x.example\""),
            (rule("size_over = 10", "protect"), "a number where a text"),
            (rule("size_over = \"10\"", "protect"), "no size"),
            (rule("attachment = \"a/b\"", "protect"), "no file name pattern"),
            (rule("detect = [\"ssn\"]", "protect"), "not yet"),
            (rule("", "pass"), "holds no condition"),
            (
                rule("subject = \"x\"", "allow"),
                "rules.toml:3:10: error: key `action`: `allow` is not known",
            ),
            ("[[rule]]\naction = \"pass\"\n".into(), "`when` is missing"),
            ("[[rule]]\nwhen = { subject = \"x\" }\n".into(), "`action` is missing"),
            (
                format!("{}strip = true\n", rule("size_over = \"1 B\"", "protect")),
                "needs a condition `subject`",
            ),
            (format!("{}strip = 1\n", rule("subject = \"x\"", "protect")), "true or false"),
        ] {
            let found = parse(&text).unwrap_err();
            assert!(found.iter().any(|p| p.contains(says)), "{text}: {says}\n{found:#?}");
        }
    }

    #[test]
    fn globs() {
        for (pattern, name, matches) in [
            ("*.dcm", "a.dcm", true),
            ("*.dcm", ".dcm", true),
            ("*.dcm", "a.dcm.txt", false),
            ("*", "", true),
            ("?", "", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "acb", false),
            ("ü?", "üx", true),
            ("****************a", "bbbbbbbbbbbbbbbbbbbbbbbbbbbb", false),
        ] {
            assert_eq!(glob_matches(pattern, name), matches, "{pattern} / {name}");
        }
    }
}
