//! Where a link really leads, in a few characters.

use url::Url;

/// A link's target for people.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::portal) struct Shown {
    /// The host, or the mailbox, or the number.
    pub(in crate::portal) short: String,
    /// All of it, in characters that mean one thing only.
    pub(in crate::portal) whole: String,
}

/// Characters of a mailbox or a number shown.
const MAX_SHORT: usize = 254;

/// What to show beside a link; `None` where its words say the same. `words` are the link's, if it is
/// made of nothing but words.
pub(in crate::portal) fn shown_target(href: &str, words: Option<&str>) -> Option<Shown> {
    let scheme = href.split_once(':').map(|(scheme, _)| scheme.trim().to_ascii_lowercase());
    // All else is no link for us: it is taken out of the frame, and never followed from text.
    scheme.filter(|s| matches!(s.as_str(), "http" | "https" | "mailto" | "tel"))?;
    let words = words.map(str::trim);
    let Ok(url) = Url::parse(href) else {
        let short = "unknown".to_owned();
        return Some(Shown { whole: short.clone(), short });
    };
    if let Some(host) = host_of(&url) {
        let told = words.and_then(named).as_deref().map(without_www) == Some(without_www(&host));
        return (!told).then(|| Shown { short: host, whole: url.to_string() });
    }
    let short: String = url.path().chars().take(MAX_SHORT).collect();
    let same = |words: &str| {
        let sign = |c: &char| !c.is_whitespace() && !matches!(c, '-' | '/' | '(' | ')');
        let bare = |text: &str| text.chars().filter(sign).collect::<String>().to_lowercase();
        bare(words) == bare(&short)
    };
    // A mailbox may bring a subject and a text along: only its plain form is told by its words.
    let told = url.query().is_none() && words.is_some_and(same);
    (!told).then(|| Shown { whole: short.clone(), short })
}

/// The host of a web address, with its port where that is not the usual one.
fn host_of(url: &Url) -> Option<String> {
    let host = url.host_str().filter(|_| matches!(url.scheme(), "http" | "https"))?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

/// The host that words name, if they are a web address and nothing else.
fn named(words: &str) -> Option<String> {
    let rest = words.split_once("://").map_or(words, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    // Letters of other scripts can look like these; such a name is better told twice.
    let plain = authority.contains('.') && authority.bytes().all(|b| b.is_ascii_graphic());
    if !plain || words.chars().any(char::is_whitespace) {
        return None;
    }
    let url = if rest.len() < words.len() {
        Url::parse(words).ok()?
    } else {
        Url::parse(&format!("http://{words}")).ok()?
    };
    let alone = url.username().is_empty() && url.password().is_none();
    host_of(&url).filter(|_| alone)
}

fn without_www(host: &str) -> &str {
    host.strip_prefix("www.").unwrap_or(host)
}
