//! What a reader must prove beyond the mailbox before a grant opens, and how far that has come.

use crate::{
    mail::Pickup,
    seal::TokenHash,
    store::{Account, Grant},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a grant asks beyond the mailbox. A grant without one opens for the mailbox's account.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The channel that policy or sender asked for.
    #[serde(default, skip_serializing_if = "Pickup::is_code")]
    pub kind: Pickup,
    /// Since when the way to the mailbox is in doubt: a level was not met, so whoever stands in the
    /// way may read what is mailed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<Timestamp>,
    /// Argon2id PHC string of the phrase, in the form in which phrases are compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phrase: Option<String>,
    /// The code of the last text message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub texted: Option<Texted>,
    /// Text messages sent so far.
    #[serde(default)]
    pub texts: u8,
    /// Wrong phrases and codes so far, those under examination included.
    #[serde(default)]
    pub wrong: u8,
    /// The identity that has proved itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proved: Option<Proved>,
}
/// A code in a text message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Texted {
    /// Hash of grant and code.
    pub hash: TokenHash,
    /// Valid until.
    pub until: Timestamp,
}
/// The identity that proved itself, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proved {
    /// Generation of the account.
    pub by: [u8; 16],
    /// When.
    pub at: Timestamp,
    /// In which session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<TokenHash>,
}
impl fmt::Debug for Proof {
    /// Without the hashes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proof")
            .field("kind", &self.kind)
            .field("doubt", &self.doubt)
            .field("wrong", &self.wrong)
            .field("proved", &self.proved)
            .finish_non_exhaustive()
    }
}

/// How a session was signed in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignedBy {
    /// By a mailed code alone, or in a way that is not known.
    #[default]
    Code,
    /// By the account's password.
    Password,
    /// By a passkey.
    Passkey,
    /// By password and second factor.
    SecondFactor,
    /// By a provider of identities (`OpenID` Connect).
    Oidc,
}
/// What is known of a reader's session beside its account. The default knows nothing, and opens
/// nothing whose line is in doubt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionFacts {
    /// How it was signed in.
    pub by: SignedBy,
    /// When the account's credentials were last established by a mailed code alone, if that is
    /// known.
    pub rooted: Option<Timestamp>,
    /// Which it is.
    pub session: Option<TokenHash>,
}
impl SessionFacts {
    /// True if it rests on the account's own credentials. A provider's word is worth as much as a
    /// mailed code: whoever reads the mailbox can make an account there.
    const fn by_credentials(&self) -> bool {
        match self.by {
            SignedBy::Code | SignedBy::Oidc => false,
            SignedBy::Password | SignedBy::Passkey | SignedBy::SecondFactor => true,
        }
    }
    /// True if the session rests on credentials from before `since`, and not on the mailbox alone.
    fn precedes(&self, since: Timestamp) -> bool {
        self.by_credentials() && self.rooted.is_some_and(|rooted| rooted < since)
    }
}

/// What a reader must still show before a grant opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Nothing,
    /// The phrase that its sender tells him.
    Phrase {
        /// Sign-in to an account from before the doubt, by password, passkey or second factor, does
        /// as well.
        account: bool,
    },
    /// The code of a text message.
    Text,
    /// Sign-in by a passkey that the account had before the message came.
    Passkey,
    /// Sign-in to an account from before the doubt; there is no phrase.
    Account,
    /// Too many wrong ones were typed: the message opens no more.
    Locked,
}

impl Proof {
    /// Wrong phrases and codes after which a grant opens no more.
    pub const TRIES: u8 = 10;
    /// Text messages for a grant at most.
    pub const TEXTS: u8 = 5;

    /// What must still be shown for a grant that was sealed at that time.
    fn need(&self, sealed: Timestamp, account: &Account, session: &SessionFacts) -> Need {
        // A proof is worth as much as the credentials of the account that gave it: new ones by a
        // mailed code alone may belong to another person, and so may another session without any.
        let stands = |proved: &Proved| {
            proved.by == account.generation
                && session.rooted.is_none_or(|rooted| rooted <= proved.at)
                && (session.by_credentials() || session.session == proved.session)
        };
        if self.proved.as_ref().is_some_and(stands) {
            return Need::Nothing;
        }
        let established = self.doubt.is_none_or(|since| session.precedes(since));
        let typed = |need| if self.wrong >= Self::TRIES { Need::Locked } else { need };
        match (self.kind, &self.phrase) {
            (Pickup::Code, _) if established => Need::Nothing,
            (Pickup::Passkey, None) if !established => Need::Account,
            (Pickup::Passkey, _) if established && self.by_passkey(sealed, account, session) => {
                Need::Nothing
            }
            (Pickup::Passkey, None) => Need::Passkey,
            (Pickup::Sms, _) => typed(Need::Text),
            (Pickup::Code, Some(_)) => typed(Need::Phrase { account: true }),
            (Pickup::Phrase | Pickup::Passkey, Some(_)) => typed(Need::Phrase { account: false }),
            (Pickup::Code | Pickup::Phrase, None) => Need::Account,
        }
    }

    /// True if the session was signed in by a passkey and one is older than the message.
    fn by_passkey(&self, sealed: Timestamp, account: &Account, session: &SessionFacts) -> bool {
        let before = self.doubt.map_or(sealed, |since| since.min(sealed));
        session.by == SignedBy::Passkey && account.passkeys.iter().any(|key| key.created < before)
    }
}

impl Grant {
    /// What a session of that account must still show before the grant opens.
    pub fn need(&self, account: &Account, session: &SessionFacts) -> Need {
        let Some(proof) = &self.proof else {
            return if account.unproved { Need::Account } else { Need::Nothing };
        };
        let shown = proof.proved.as_ref().is_some_and(|proved| proved.by == account.generation);
        let need = proof.need(self.sealed, account, session);
        if need == Need::Nothing && account.unproved && !shown { Need::Account } else { need }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Passkey;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn account(passkey: Option<i64>) -> Account {
        let mut account = Account::new("ann@a.example".parse().unwrap(), [7; 16], at(10));
        account.passkeys = passkey
            .map(|created| Passkey {
                id: String::new(),
                key: String::new(),
                algorithm: -7,
                counter: 0,
                copyable: None,
                name: String::new(),
                created: at(created),
                used: None,
            })
            .into_iter()
            .collect();
        account
    }

    fn hash(n: u8) -> TokenHash {
        TokenHash::from_bytes([n; 32])
    }

    fn session(by: SignedBy, rooted: i64) -> SessionFacts {
        SessionFacts { by, rooted: Some(at(rooted)), session: Some(hash(1)) }
    }

    fn proof(kind: Pickup, doubt: Option<i64>, phrase: bool) -> Proof {
        let phrase = phrase.then(String::new);
        Proof { kind, doubt: doubt.map(at), phrase, ..Proof::default() }
    }

    #[test]
    fn what_each_channel_asks_of_each_session() {
        use Pickup::{Code, Passkey, Phrase, Sms};
        let unknown = SessionFacts::default();
        let old = session(SignedBy::Password, 10);
        let new = session(SignedBy::Password, 60);
        let coded = session(SignedBy::Code, 10);
        let keyed = session(SignedBy::Passkey, 10);
        let provided = session(SignedBy::Oidc, 10);
        let either = Need::Phrase { account: true };
        let phrase = Need::Phrase { account: false };
        for (proof, passkey, session, need, why) in [
            (proof(Code, None, false), None, unknown, Need::Nothing, "the default"),
            (proof(Code, Some(50), true), None, unknown, either, "nothing is known"),
            (proof(Code, Some(50), true), None, old, Need::Nothing, "an account from before"),
            (proof(Code, Some(50), true), None, new, either, "one made by code since"),
            (proof(Code, Some(50), true), None, coded, either, "signed in by code"),
            (proof(Code, Some(50), true), None, provided, either, "signed in by a provider"),
            (proof(Code, Some(50), false), None, new, Need::Account, "nobody was told a phrase"),
            (proof(Code, Some(50), false), None, old, Need::Nothing, "and the account does"),
            (proof(Phrase, None, true), None, old, phrase, "the sender asked for it"),
            (proof(Phrase, Some(50), true), None, old, phrase, "the same"),
            (proof(Sms, None, false), None, old, Need::Text, "a text"),
            (proof(Sms, Some(50), false), None, old, Need::Text, "the same"),
            (proof(Passkey, None, false), Some(20), keyed, Need::Nothing, "from before"),
            (proof(Passkey, None, false), Some(120), keyed, Need::Passkey, "added since"),
            (proof(Passkey, None, false), Some(20), old, Need::Passkey, "signed in otherwise"),
            (proof(Passkey, Some(50), false), Some(20), keyed, Need::Nothing, "before the doubt"),
            (proof(Passkey, Some(50), false), Some(60), keyed, Need::Passkey, "since the doubt"),
            (proof(Passkey, Some(50), false), Some(20), coded, Need::Account, "by code, in doubt"),
            (proof(Passkey, None, true), None, old, phrase, "the first message"),
        ] {
            assert_eq!(proof.need(at(100), &account(passkey), &session), need, "{why}: {proof:?}");
        }
    }

    #[test]
    fn a_proof_lasts_as_long_as_the_credentials_that_gave_it() {
        let proved = |by| Proof {
            proved: Some(Proved { by, at: at(110), session: Some(hash(1)) }),
            ..proof(Pickup::Phrase, Some(50), true)
        };
        let phrase = Need::Phrase { account: false };
        let other = |by| SessionFacts { session: Some(hash(2)), ..session(by, 100) };
        for (proof, session, need, why) in [
            (proved([7; 16]), session(SignedBy::Code, 100), Need::Nothing, "in this session"),
            (
                proved([7; 16]),
                other(SignedBy::Code),
                phrase,
                "a later code proves the mailbox only",
            ),
            (proved([7; 16]), other(SignedBy::Oidc), phrase, "and so does a provider"),
            (proved([7; 16]), other(SignedBy::Password), Need::Nothing, "by this identity"),
            (proved([8; 16]), session(SignedBy::Password, 100), phrase, "by another identity"),
            (proved([7; 16]), session(SignedBy::Password, 120), phrase, "reset by code since"),
        ] {
            assert_eq!(proof.need(at(100), &account(None), &session), need, "{why}");
        }
    }

    #[test]
    fn too_many_wrong_ones_lock_what_is_typed_and_not_the_old_account() {
        let locked = |kind, doubt| Proof { wrong: 10, ..proof(kind, doubt, true) };
        let (old, unknown) = (session(SignedBy::Password, 10), SessionFacts::default());
        for (proof, session, need) in [
            (locked(Pickup::Phrase, None), old, Need::Locked),
            (locked(Pickup::Sms, None), old, Need::Locked),
            (locked(Pickup::Code, Some(50)), unknown, Need::Locked),
            (locked(Pickup::Code, Some(50)), old, Need::Nothing),
        ] {
            assert_eq!(proof.need(at(100), &account(None), &session), need);
        }
    }
}
