//! Whom a letter may go to: the organisation's own people, and for a new one whoever wrote first.

use super::Origin;
use crate::{
    language::{Text, say},
    mail::Address,
    portal::{Desk, Fault},
    store::{Account, GrantKind},
};
use std::collections::BTreeMap;

/// Recipients of a letter at most.
const RECIPIENTS: usize = 50;
/// Messages looked through for who wrote.
const LOOKED_AT: usize = 200;

/// Addresses as people type them: with names or without, apart by comma, semicolon or line.
pub(super) fn typed(text: &str) -> Result<Vec<Address>, Text> {
    let mut found: Vec<Address> = Vec::new();
    for word in text.split([',', ';', '\n', '\r']) {
        let word = word.trim();
        let inner = word.strip_suffix('>').and_then(|rest| rest.rsplit_once('<'));
        let bare = inner.map_or(word, |(_, address)| address).trim();
        if bare.is_empty() {
            continue;
        }
        let shown: String = bare.chars().take(100).collect();
        let address = bare.parse().map_err(|_| {
            say!("“{text}” is not an e-mail address. Write it like name@example.org.", text = shown)
        })?;
        if !found.contains(&address) {
            found.push(address);
        }
    }
    if found.len() > RECIPIENTS {
        return Err(say!("That is too many addresses: {count} at most.", count = RECIPIENTS));
    }
    Ok(found)
}

impl Desk {
    /// True if it is one of the organisation's own addresses.
    pub(super) fn inside(&self, address: &Address) -> bool {
        self.settings.domains.contains(address.domain())
    }

    /// Who wrote to this account lately, with the name they gave.
    pub(super) async fn writers(
        &self,
        account: &Account,
    ) -> Result<BTreeMap<Address, String>, Fault> {
        let grants = self.vault.people.grants(Some(&account.address), None, LOOKED_AT).await?;
        let mut writers = BTreeMap::new();
        for grant in grants {
            let Some((row, _)) = self.vault.queue.message(grant.message).await? else { continue };
            if let Some(sender) = row.facts.sender {
                let name = row.facts.sender_name.unwrap_or_default();
                writers.entry(sender).or_insert(name);
            }
        }
        Ok(writers)
    }

    /// Whom an answer goes to: the message's sender, and the others inside that it names. An own
    /// letter is followed up to those whom it went to.
    pub(in crate::portal) fn answered(
        &self,
        origin: &Origin,
        account: &Account,
    ) -> (Vec<Address>, Vec<Address>) {
        let named = |name: &str| origin.fields.mailboxes(name);
        if origin.grant().kind == GrantKind::Sent {
            return (named("To"), named("Cc"));
        }
        let me = |address: &Address| *address == account.address;
        let to = self.sender_of(origin).into_iter().filter(|address| !me(address));
        let to: Vec<Address> = to.collect();
        let mut others: Vec<Address> = Vec::new();
        for address in named("To").into_iter().chain(named("Cc")) {
            let new = !to.contains(&address) && !others.contains(&address) && !me(&address);
            if new && self.inside(&address) && others.len() < RECIPIENTS {
                others.push(address);
            }
        }
        (to, others)
    }

    /// Reply-To, From, the envelope's sender: the first that is inside. What a message's header says
    /// leads nobody outside; where all of them are, it is the one who handed the message in.
    fn sender_of(&self, origin: &Origin) -> Option<Address> {
        let envelope = origin.row.facts.sender.clone();
        let mut named = origin.fields.mailboxes("Reply-To");
        named.extend(origin.fields.mailboxes("From"));
        named.extend(envelope.clone());
        named.into_iter().find(|address| self.inside(address)).or(envelope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_type_them() {
        for (text, expected) in [
            ("", Ok(vec![])),
            ("a@b.example", Ok(vec!["a@b.example"])),
            (
                " a@b.example, c@d.example;\r\ne@f.example ,",
                Ok(vec!["a@b.example", "c@d.example", "e@f.example"]),
            ),
            ("Dr. Ann Ode <a@b.example>, a@b.example", Ok(vec!["a@b.example"])),
            ("ann", Err("“ann” is not")),
            ("a@b.example c@d.example", Err("is not an e-mail address")),
            ("\"a\r\nBcc: x\"@b.example", Err("is not")),
        ] {
            let read = typed(text);
            match (read, expected) {
                (Ok(read), Ok(expected)) => {
                    let read: Vec<_> = read.iter().map(ToString::to_string).collect();
                    assert_eq!(read, expected, "{text:?}");
                }
                (Err(said), Err(expected)) => {
                    assert!(said.to_string().contains(expected), "{said}")
                }
                (read, expected) => panic!("{text:?}: {read:?} / {expected:?}"),
            }
        }
        let many: Vec<_> = (0..51).map(|n| format!("a{n}@b.example")).collect();
        assert!(typed(&many.join(",")).unwrap_err().to_string().contains("50"));
    }
}
