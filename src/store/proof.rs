//! What a reader must prove beyond the mailbox before a grant opens, and how far that has come.

use crate::{
    mail::Pickup,
    seal::TokenHash,
    store::{Account, Assurance, Grant},
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
    /// True if the account's own credentials had signed that session in: then it counts in their
    /// other sessions too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_credentials: bool,
}
impl Proved {
    /// True if it counts in a session of that account. It is worth as much as the credentials that
    /// gave it: new ones by a mailed code alone may belong to another person, and so may those of a
    /// session that a mailed code alone had signed in.
    fn stands(&self, account: &Account, session: &SessionFacts) -> bool {
        self.by == account.generation
            && session.rooted.is_none_or(|rooted| rooted <= self.at)
            && (session.session == self.session
                || self.by_credentials && session.by.is_credentials())
    }
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
    /// By a mailed code, with a new password chosen in the same act: at registration, and at a reset.
    NewPassword,
    /// By the account's password.
    Password,
    /// By a passkey.
    Passkey,
    /// By password and second factor.
    SecondFactor,
    /// By a provider of identities (`OpenID` Connect).
    Oidc,
}
impl SignedBy {
    /// True for the account's own credentials. A provider's word is worth as much as a mailed code:
    /// whoever reads the mailbox can make an account there.
    pub const fn is_credentials(self) -> bool {
        match self {
            Self::Code | Self::Oidc => false,
            Self::NewPassword | Self::Password | Self::Passkey | Self::SecondFactor => true,
        }
    }
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
    /// When the passkey that signed it in was added, if that passkey proves more than the mailbox.
    pub passkey: Option<Timestamp>,
}
impl SessionFacts {
    /// True if the session rests on credentials from before `since`, and not on the mailbox alone.
    fn precedes(&self, since: Timestamp) -> bool {
        self.by.is_credentials() && self.rooted.is_some_and(|rooted| rooted < since)
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
    /// Sign-in by a proved passkey that the account had before the message came.
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

    /// What must be shown for a grant that was sealed at that time and is not proved.
    fn need(&self, sealed: Timestamp, session: &SessionFacts) -> Need {
        let established = self.doubt.is_none_or(|since| session.precedes(since));
        let typed = |need| if self.wrong >= Self::TRIES { Need::Locked } else { need };
        match (self.kind, &self.phrase) {
            (Pickup::Code, _) if established => Need::Nothing,
            // What proved the passkey did not go by the mailbox, so a doubt about that is no matter.
            (Pickup::Passkey, _) if session.passkey.is_some_and(|added| added < sealed) => {
                Need::Nothing
            }
            (Pickup::Passkey, None) => Need::Passkey,
            (Pickup::Sms, None) => typed(Need::Text),
            (Pickup::Code, Some(_)) => typed(Need::Phrase { account: true }),
            (Pickup::Phrase | Pickup::Sms | Pickup::Passkey, Some(_)) => {
                typed(Need::Phrase { account: false })
            }
            (Pickup::Code | Pickup::Phrase, None) => Need::Account,
        }
    }
}

impl Grant {
    /// What a session of that account must still show before the grant opens.
    pub fn need(&self, account: &Account, session: &SessionFacts) -> Need {
        let proof = self.proof.as_ref();
        let shown = proof.and_then(|proof| proof.proved.as_ref());
        if shown.is_some_and(|proved| proved.stands(account, session)) {
            return Need::Nothing;
        }
        let need = proof.map_or(Need::Nothing, |proof| proof.need(self.sealed, session));
        let doubted = account.assurance == Assurance::Doubted;
        if need == Need::Nothing && doubted { Need::Account } else { need }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn account() -> Account {
        Account::new("ann@a.example".parse().unwrap(), [7; 16], at(10))
    }

    fn hash(n: u8) -> TokenHash {
        TokenHash::from_bytes([n; 32])
    }

    fn session(by: SignedBy, rooted: i64) -> SessionFacts {
        SessionFacts { by, rooted: Some(at(rooted)), session: Some(hash(1)), passkey: None }
    }

    /// Signed in by a passkey that was added then, by an owner who had proved more than the mailbox.
    fn keyed(added: i64) -> SessionFacts {
        SessionFacts { passkey: Some(at(added)), ..session(SignedBy::Passkey, 10) }
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
        let unproved = session(SignedBy::Passkey, 10);
        let provided = session(SignedBy::Oidc, 10);
        let either = Need::Phrase { account: true };
        let phrase = Need::Phrase { account: false };
        for (proof, session, need, why) in [
            (proof(Code, None, false), unknown, Need::Nothing, "the default"),
            (proof(Code, Some(50), true), unknown, either, "nothing is known"),
            (proof(Code, Some(50), true), old, Need::Nothing, "an account from before"),
            (proof(Code, Some(50), true), new, either, "one made by code since"),
            (proof(Code, Some(50), true), coded, either, "signed in by code"),
            (proof(Code, Some(50), true), provided, either, "signed in by a provider"),
            (proof(Code, Some(50), false), new, Need::Account, "nobody was told a phrase"),
            (proof(Code, Some(50), false), old, Need::Nothing, "and the account does"),
            (proof(Phrase, None, true), old, phrase, "the sender asked for it"),
            (proof(Phrase, Some(50), true), old, phrase, "the same"),
            (proof(Sms, None, false), old, Need::Text, "a text"),
            (proof(Sms, Some(50), false), old, Need::Text, "the same"),
            (proof(Sms, None, true), old, phrase, "no text could be sent"),
            (proof(Passkey, None, false), keyed(20), Need::Nothing, "from before"),
            (proof(Passkey, None, false), keyed(120), Need::Passkey, "added since"),
            (proof(Passkey, None, false), unproved, Need::Passkey, "it proves the mailbox only"),
            (proof(Passkey, None, false), old, Need::Passkey, "signed in otherwise"),
            (proof(Passkey, Some(50), false), keyed(20), Need::Nothing, "before the doubt"),
            (proof(Passkey, Some(50), false), keyed(60), Need::Nothing, "in it, and proved"),
            (proof(Passkey, Some(50), false), coded, Need::Passkey, "by code, in doubt"),
            (proof(Passkey, None, true), old, phrase, "the first message"),
            (proof(Passkey, None, true), keyed(20), Need::Nothing, "the passkey does as well"),
        ] {
            assert_eq!(proof.need(at(100), &session), need, "{why}: {proof:?}");
        }
    }

    #[test]
    fn a_proof_lasts_as_long_as_the_credentials_that_gave_it() {
        let stands = |by: [u8; 16], by_credentials, session: &SessionFacts| {
            let proved = Proved { by, at: at(110), session: Some(hash(1)), by_credentials };
            proved.stands(&account(), session)
        };
        let other = |by| SessionFacts { session: Some(hash(2)), ..session(by, 100) };
        for (generation, by_credentials, session, right, why) in [
            ([7; 16], true, session(SignedBy::NewPassword, 100), true, "in this session"),
            ([7; 16], true, other(SignedBy::Code), false, "a later code proves the mailbox only"),
            ([7; 16], true, other(SignedBy::Oidc), false, "and so does a provider"),
            ([7; 16], true, other(SignedBy::Password), true, "by this identity"),
            ([8; 16], true, session(SignedBy::Password, 100), false, "by another identity"),
            ([7; 16], true, session(SignedBy::Password, 120), false, "reset by code since"),
            ([7; 16], false, session(SignedBy::Code, 100), true, "in the session of a code"),
            ([7; 16], false, other(SignedBy::Password), false, "the password may be another's"),
            ([7; 16], false, other(SignedBy::Passkey), false, "and so may a passkey"),
        ] {
            assert_eq!(stands(generation, by_credentials, &session), right, "{why}");
        }
    }

    #[test]
    fn too_many_wrong_ones_lock_what_is_typed_and_not_the_old_account() {
        let locked = |kind, doubt| Proof { wrong: 10, ..proof(kind, doubt, true) };
        let (old, unknown) = (session(SignedBy::Password, 10), SessionFacts::default());
        for (proof, session, need) in [
            (locked(Pickup::Phrase, None), old, Need::Locked),
            (locked(Pickup::Sms, None), old, Need::Locked),
            (Proof { phrase: None, ..locked(Pickup::Sms, None) }, old, Need::Locked),
            (locked(Pickup::Code, Some(50)), unknown, Need::Locked),
            (locked(Pickup::Code, Some(50)), old, Need::Nothing),
        ] {
            assert_eq!(proof.need(at(100), &session), need);
        }
    }
}
