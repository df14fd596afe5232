//! Recipients of a letter: the organisation's own addresses, and for a new letter whoever wrote first.
//! A list is made by these rules alone.

use super::Submission;
use crate::{
    mail::{Address, header::Fields},
    store::{Account, Grant, GrantKind, StoreError},
};
use std::collections::BTreeMap;

/// Recipients of a letter at most.
pub const MAX_RECIPIENTS: usize = 50;
/// Messages that are read for their senders.
const LOOKED_AT: usize = 200;

/// Addresses that a letter may go to, without repeats.
#[derive(Debug)]
pub struct Recipients {
    pub(super) to: Vec<Address>,
    pub(super) cc: Vec<Address>,
}

/// The recipients of an answer.
#[derive(Debug)]
pub struct ReplyRecipients {
    /// The message's sender. Of the author's own letter: those to whom it went.
    pub to: Vec<Address>,
    /// The others inside whom the message names.
    pub others: Vec<Address>,
}

/// A message that is answered.
#[derive(Debug, Clone, Copy)]
pub struct Answered<'a> {
    /// The account's grant of it.
    pub grant: &'a Grant,
    /// Its reverse-path.
    pub sender: Option<&'a Address>,
    /// Its header.
    pub fields: &'a Fields,
}

/// Why a list is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecipientsError {
    /// A word of the list is no address.
    #[error("{0:?} is no address")]
    NoAddress(String),
    /// More than [`MAX_RECIPIENTS`].
    #[error("more than {MAX_RECIPIENTS} recipients")]
    TooMany,
    /// The list is empty.
    #[error("no recipient")]
    Empty,
    /// The address is not inside.
    #[error("{0} is not inside")]
    NotInside(Address),
    /// The address is not inside, and nothing came from it.
    #[error("{0} is not inside and has not written first")]
    Stranger(Address),
}

impl ReplyRecipients {
    /// The recipients of an answer to the sender alone, or to all.
    ///
    /// # Errors
    /// [`RecipientsError::Empty`] where nobody can be answered.
    pub fn into_recipients(self, all: bool) -> Result<Recipients, RecipientsError> {
        if self.to.is_empty() {
            return Err(RecipientsError::Empty);
        }
        Ok(Recipients { to: self.to, cc: if all { self.others } else { Vec::new() } })
    }
}

impl Submission {
    /// True if it is one of the organisation's own addresses.
    pub fn is_inside(&self, address: &Address) -> bool {
        self.settings.domains.contains(address.domain())
    }

    /// The senders of what this account received lately, with the name that each gave.
    pub async fn correspondents(
        &self,
        account: &Account,
    ) -> Result<BTreeMap<Address, String>, StoreError> {
        let mut found = BTreeMap::new();
        for grant in self.vault.received(account, None, LOOKED_AT).await? {
            let Some((row, _)) = self.vault.queue.message(grant.message).await? else { continue };
            if let Some(sender) = row.facts.sender {
                let name = row.facts.sender_name.unwrap_or_default();
                found.entry(sender).or_insert(name);
            }
        }
        Ok(found)
    }

    /// The recipients of an answer: the message's sender, and the others inside whom it names. The
    /// author's own letter is followed up to those to whom it went.
    pub fn reply(&self, account: &Account, answered: &Answered<'_>) -> ReplyRecipients {
        let named = |name: &str| answered.fields.mailboxes(name);
        if answered.grant.kind == GrantKind::Sent {
            return ReplyRecipients { to: named("To"), others: named("Cc") };
        }
        let own = |address: &Address| *address == account.address;
        let to = self.sender_of(answered).into_iter().filter(|address| !own(address));
        let to: Vec<Address> = to.collect();
        let mut others: Vec<Address> = Vec::new();
        for address in named("To").into_iter().chain(named("Cc")) {
            let new = !to.contains(&address) && !others.contains(&address) && !own(&address);
            if new && self.is_inside(&address) && others.len() < MAX_RECIPIENTS {
                others.push(address);
            }
        }
        ReplyRecipients { to, others }
    }

    /// Reply-To, From, the reverse-path: the first that is inside. A header leads no answer outside;
    /// where all of them are outside, it goes to the reverse-path.
    fn sender_of(&self, answered: &Answered<'_>) -> Option<Address> {
        let mut named = answered.fields.mailboxes("Reply-To");
        named.extend(answered.fields.mailboxes("From"));
        named.extend(answered.sender.cloned());
        let inside = named.into_iter().find(|address| self.is_inside(address));
        inside.or_else(|| answered.sender.cloned())
    }

    /// The recipients of a message that is forwarded: inside alone.
    ///
    /// # Errors
    /// [`RecipientsError`] says what is wrong with the list.
    pub fn forward(&self, list: &str) -> Result<Recipients, RecipientsError> {
        let to = addresses(list)?;
        match to.iter().find(|address| !self.is_inside(address)) {
            Some(outside) => Err(RecipientsError::NotInside(outside.clone())),
            None => Ok(Recipients { to, cc: Vec::new() }),
        }
    }

    /// The recipients of a new letter: inside, or correspondents of its author.
    ///
    /// # Errors
    /// [`StoreError`], or [`RecipientsError`] says what is wrong with the list.
    pub async fn compose(
        &self,
        account: &Account,
        list: &str,
    ) -> Result<Result<Recipients, RecipientsError>, StoreError> {
        let to = match addresses(list) {
            Ok(to) => to,
            Err(error) => return Ok(Err(error)),
        };
        let outside: Vec<&Address> = to.iter().filter(|address| !self.is_inside(address)).collect();
        if !outside.is_empty() {
            let known = self.correspondents(account).await?;
            if let Some(stranger) = outside.into_iter().find(|a| !known.contains_key(*a)) {
                return Ok(Err(RecipientsError::Stranger(stranger.clone())));
            }
        }
        Ok(Ok(Recipients { to, cc: Vec::new() }))
    }
}

/// Addresses as people type them: with names or without, apart by comma, semicolon or line.
fn addresses(text: &str) -> Result<Vec<Address>, RecipientsError> {
    let mut found: Vec<Address> = Vec::new();
    for word in text.split([',', ';', '\n', '\r']) {
        let word = word.trim();
        let inner = word.strip_suffix('>').and_then(|rest| rest.rsplit_once('<'));
        let bare = inner.map_or(word, |(_, address)| address).trim();
        if bare.is_empty() {
            continue;
        }
        let address = bare
            .parse()
            .map_err(|_| RecipientsError::NoAddress(bare.chars().take(100).collect()))?;
        if !found.contains(&address) {
            found.push(address);
        }
    }
    match found.len() {
        0 => Err(RecipientsError::Empty),
        1..=MAX_RECIPIENTS => Ok(found),
        _ => Err(RecipientsError::TooMany),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_type_them() {
        let no = |text: &str| Err(RecipientsError::NoAddress(text.to_owned()));
        for (text, expected) in [
            ("", Err(RecipientsError::Empty)),
            (" ,;", Err(RecipientsError::Empty)),
            ("a@b.example", Ok(vec!["a@b.example"])),
            (
                " a@b.example, c@d.example;\r\ne@f.example ,",
                Ok(vec!["a@b.example", "c@d.example", "e@f.example"]),
            ),
            ("Dr. Ann Ode <a@b.example>, a@b.example", Ok(vec!["a@b.example"])),
            ("ann", no("ann")),
            ("a@b.example c@d.example", no("a@b.example c@d.example")),
            ("\"a\r\nBcc: x\"@b.example", no("\"a")),
        ] {
            let read = addresses(text);
            let read = read.map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>());
            let expected = expected.map(|all| all.into_iter().map(str::to_owned).collect());
            assert_eq!(read, expected, "{text:?}");
        }
        let many = |count| (0..count).map(|n| format!("a{n}@b.example,")).collect::<String>();
        assert_eq!(addresses(&many(50)).unwrap().len(), 50);
        assert_eq!(addresses(&many(51)), Err(RecipientsError::TooMany));
    }
}
