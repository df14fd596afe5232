//! Search over one's own mail.
//!
//! What is kept is sealed, and no index of it lies anywhere: to search is to open one's own messages
//! again, newest first, so many bytes and seconds a request. The page says how far it has come, and
//! goes on from there.

use super::{Desk, Fault, read::attachment_name, session::Visitor, show, write::Origin};
use crate::{
    language::{Text, say},
    mail::GrantId,
    store::{Account, Grant, GrantKind, StoreError},
    vault::{AccessAnswer, VaultError},
};
use axum::{http::StatusCode, response::Response};
use minijinja::{Value, context};
use std::time::Instant;
use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

/// Characters of what is searched for.
const MAX_QUERY: usize = 200;
/// Words of it.
const MAX_WORDS: usize = 10;
/// Messages searched of those received, and of those sent.
const LISTED: usize = 2_000;
/// Messages shown on a page.
const HITS: usize = 25;
/// Bytes of text that a request opens before it stops.
const MAX_BYTES: usize = 16 << 20;
/// What a message weighs at least: its index and its header are opened.
const LEAST: usize = 16 << 10;

/// Words as they are compared: without case, accents and marks, spaces alike.
fn folded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.nfkd().filter(|c| !is_combining_mark(*c)).flat_map(char::to_lowercase) {
        match c {
            'ß' => out.push_str("ss"),
            'æ' => out.push_str("ae"),
            'œ' => out.push_str("oe"),
            'ø' => out.push('o'),
            'ł' => out.push('l'),
            'đ' => out.push('d'),
            'ı' => out.push('i'),
            // Marks that are not seen.
            '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{feff}' => {}
            c if c.is_whitespace() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// What is searched for: each of these words, anywhere in a message.
#[derive(Debug)]
struct Sought(Vec<String>);
impl Sought {
    fn of(query: &str) -> Self {
        let query: String = query.chars().take(MAX_QUERY).collect();
        let mut words: Vec<String> = Vec::new();
        for word in folded(&query).split_whitespace() {
            if words.len() < MAX_WORDS && !words.iter().any(|known| known == word) {
                words.push(word.to_owned());
            }
        }
        Self(words)
    }
    /// Takes out the words that a text holds; true if it held any.
    fn strike(&mut self, text: &str) -> bool {
        let (folded, before) = (folded(text), self.0.len());
        self.0.retain(|word| !folded.contains(word.as_str()));
        self.0.len() < before
    }
}

/// Where the words were found.
#[derive(Debug, Default)]
struct Places(Vec<Text>);

/// True for a fault of one message, which the others do not share.
pub(super) fn of_one_message(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::Vault(
            VaultError::Gone
                | VaultError::Ended
                | VaultError::Seal(_)
                | VaultError::Ring(_)
                | VaultError::Store(StoreError::Corrupt(_) | StoreError::NotFound)
        ) | Fault::Store(StoreError::Corrupt(_) | StoreError::NotFound)
    )
}

impl Desk {
    /// Messages of an account, received and sent, newest first; and whether there are more.
    async fn everything(&self, account: &Account) -> Result<(Vec<Grant>, bool), Fault> {
        let mut all = self.vault.received(account, None, LISTED + 1).await?;
        let mut sent = self.vault.sent(account, None, LISTED + 1).await?;
        let more = all.len() > LISTED || sent.len() > LISTED;
        all.truncate(LISTED);
        sent.truncate(LISTED);
        all.append(&mut sent);
        all.sort_by_key(|grant| (std::cmp::Reverse(grant.sealed), grant.id));
        Ok((all, more))
    }

    /// `GET /inbox?q=`
    pub(super) async fn search(
        &self,
        visitor: &Visitor,
        query: &str,
        after: Option<GrantId>,
    ) -> Result<Response, Fault> {
        let account = visitor.signed_in()?;
        let _one = self.workers.search(account.generation).await?;
        let (all, more) = self.everything(account).await?;
        let begin = all.iter().position(|grant| Some(grant.id) == after).map_or(0, |at| at + 1);
        let (begun, mut bytes, mut unread) = (Instant::now(), 0, 0);
        let (mut hits, mut looked, mut last) = (Vec::new(), begin, None);
        for grant in all.iter().skip(begin) {
            let late = begun.elapsed() > self.workers.reading;
            if hits.len() == HITS || bytes >= MAX_BYTES || late {
                break;
            }
            match self.hit(visitor, grant, query, &mut bytes).await {
                Ok(hit) => hits.extend(hit),
                Err(fault) if of_one_message(&fault) => unread += 1,
                Err(fault) => return Err(fault),
            }
            (looked, last) = (looked + 1, Some(grant.id));
        }
        let query: String = query.chars().take(MAX_QUERY).collect();
        let on = last.filter(|_| looked < all.len()).map(|last| {
            let words: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
            format!("/inbox?q={words}&after={last}")
        });
        let values = context! {
            tab => "inbox",
            query => &query,
            hits => Value::from_iter(hits),
            looked => looked,
            total => all.len(),
            more => more && on.is_none(),
            unread => unread,
            on => on.unwrap_or_default(),
            first => begin == 0,
        };
        self.pages.answer(StatusCode::OK, "search.html", say!("Search"), visitor, values)
    }

    /// A message's line, if it holds all words.
    async fn hit(
        &self,
        visitor: &Visitor,
        grant: &Grant,
        query: &str,
        bytes: &mut usize,
    ) -> Result<Option<Value>, Fault> {
        let AccessAnswer::Granted(access) =
            self.vault.access(grant.id, visitor.signed_in()?, &visitor.session_facts()).await?
        else {
            return Ok(None);
        };
        *bytes += LEAST;
        let origin = self.origin(access).await?;
        let (mut sought, mut places) = (Sought::of(query), Places::default());
        look_outside(&origin, &mut sought, &mut places);
        if !sought.0.is_empty() {
            let (text, _) = self.readable(&origin.access, &origin.index).await?;
            *bytes += text.len();
            let strike = move || {
                let found = sought.strike(&text);
                (sought, found)
            };
            let (left, found) = self.workers.run(strike).await?;
            sought = left;
            places.0.extend(found.then(|| say!("text")));
        }
        Ok(sought.0.is_empty().then(|| line(&origin, &places)))
    }
}

/// Looks at what stands above a message, and at the names of its attachments.
fn look_outside(origin: &Origin, sought: &mut Sought, places: &mut Places) {
    let heading = origin.heading();
    let names: Vec<_> =
        (1..).zip(origin.index.attachments()).map(|(n, part)| attachment_name(part, n)).collect();
    let sent = origin.grant().kind == GrantKind::Sent;
    let person = if sent { origin.addressed() } else { heading.from };
    for (place, text) in [
        (say!("subject"), heading.subject),
        (if sent { say!("recipients") } else { say!("sender") }, person),
        (say!("names of attachments"), names.join("\n")),
    ] {
        if sought.strike(&text) {
            places.0.push(place);
        }
    }
}

fn line(origin: &Origin, places: &Places) -> Value {
    let (grant, heading) = (origin.grant(), origin.heading());
    let sent = grant.kind == GrantKind::Sent;
    context! {
        id => grant.id.to_string(),
        subject => Value::from(heading.shown()),
        who => if sent { origin.addressed() } else { heading.from },
        sent => sent,
        stamp => grant.sealed.to_string(),
        date => show::moment(grant.sealed),
        places => places.0.iter().cloned().map(Value::from).collect::<Value>(),
    }
}

/// Sample values of the page.
pub(super) fn samples() -> [Value; 2] {
    let hit = |sent: bool| {
        context! {
            id => "id", subject => "sample", who => "sample", sent => sent, stamp => "2026-11-22",
            date => "22 November 2026", places => Value::from_iter(["subject", "text"]),
        }
    };
    let of = |hits: Vec<Value>, on: &str| {
        context! {
            query => "sample", looked => 1, total => 2, more => on.is_empty(), unread => hits.len(),
            first => on.is_empty(), hits => Value::from_iter(hits), on => on,
        }
    };
    [of(vec![hit(true), hit(false)], "id"), of(vec![], "")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_compared_without_case_accents_and_marks() {
        for (query, text, found) in [
            ("befund", "Ihr BEFUND ist da", true),
            ("muller", "Müller", true),
            ("Müller", "MULLER", true),
            ("müller", "mu\u{308}ller", true),
            ("strasse", "Straße", true),
            ("STRASSE", "straße", true),
            ("resultats ete", "Résultats de l'été", true),
            ("lodz", "Łódź", true),
            ("oresund", "Øresund", true),
            ("appointment", "appoint\u{ad}ment", true),
            ("ﬁle", "file", true),
            ("a b", "b then a", true),
            ("a missing", "a", false),
            ("результат", "Результаты", true),
            ("a%_.*", "abc", false),
        ] {
            let mut sought = Sought::of(query);
            sought.strike(text);
            assert_eq!(sought.0.is_empty(), found, "{query:?} in {text:?}");
        }
    }
    #[test]
    fn what_is_searched_for_is_bounded() {
        let long = "x".repeat(10_000);
        assert_eq!(Sought::of(&long).0, ["x".repeat(MAX_QUERY)]);
        let many: String = ('a'..='z').map(|c| format!("{c} ")).collect();
        assert_eq!(Sought::of(&many).0.len(), MAX_WORDS);
        assert_eq!(Sought::of("a A á").0, ["a"]);
    }
}
