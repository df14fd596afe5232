//! Passwords: which are taken (length, not easy to guess by leaked passwords, words and names that
//! others know; no rule of composition, NIST SP 800-63B, section 3.1.1.2), and Argon2id.
use super::IdentityError;
use crate::{
    language::{Text, say},
    mail::Address,
    vault::argon::{Hasher, RUNS},
};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;
use zxcvbn::zxcvbn;

/// Shortest password, in characters.
pub const SHORTEST: usize = 12;
/// Longest password, in characters.
pub const LONGEST: usize = 256;
/// Decimal logarithm of the guesses that a password must withstand, by zxcvbn's estimate.
const GUESSES: f64 = 8.5;
/// Passphrases that are quoted everywhere, and so are tried first.
const QUOTED: [&str; 2] = ["correcthorsebatterystaple", "correct horse battery staple"];
/// Runs that wait for their turn; what comes beyond is put off at once.
const WAITING: usize = 64;
/// A hash that no password has: work for the sign-in of an address without an account.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRvZm5vYm9keQ\
                      $AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Hashes passwords, a few at a time.
#[derive(Debug)]
pub(super) struct Passwords {
    hasher: Hasher,
    queue: Arc<Semaphore>,
}
impl Default for Passwords {
    fn default() -> Self {
        Self { hasher: Hasher::default(), queue: Arc::new(Semaphore::new(RUNS + WAITING)) }
    }
}
impl Passwords {
    /// The PHC string of a new password.
    pub(super) async fn hash(&self, password: Zeroizing<String>) -> Result<String, IdentityError> {
        let place = self.place()?;
        Ok(self.hasher.hash(normalized(&password), place).await?)
    }
    /// Whether the password is the one behind the hash. Without a hash the same work is done, and
    /// the answer is no.
    pub(super) async fn matches(
        &self,
        password: Zeroizing<String>,
        hash: Option<String>,
    ) -> Result<bool, IdentityError> {
        let place = self.place()?;
        // An operator's reset leaves no password behind.
        let hash = hash.filter(|hash| !hash.is_empty());
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| NOBODY.to_owned());
        Ok(self.hasher.matches(normalized(&password), hash, place).await? && known)
    }
    /// A place in the queue.
    fn place(&self) -> Result<OwnedSemaphorePermit, IdentityError> {
        Arc::clone(&self.queue).try_acquire_owned().map_err(|_| IdentityError::Busy)
    }
}

/// In Unicode's form NFC (RFC 8265, section 4.2.2), so that a password is the same from every keyboard.
fn normalized(password: &str) -> Zeroizing<String> {
    // NFC is at most three times as long in UTF-8: no copy is left behind by growing.
    let mut text = Zeroizing::new(String::with_capacity(password.len().saturating_mul(3)));
    text.extend(password.nfc());
    text
}

/// What is wrong with a new password, in words for its owner. `names` are those that others may know:
/// the owner's and the organisation's.
pub fn fault_of(password: &str, address: &Address, names: &[&str]) -> Option<Text> {
    let password = normalized(password);
    let length = password.chars().count();
    if length < SHORTEST {
        return Some(say!("Choose a password of at least {count} characters.", count = SHORTEST));
    }
    if length > LONGEST {
        return Some(say!("Choose a password of at most {count} characters.", count = LONGEST));
    }
    let (whole, domain) = (address.to_string(), address.domain().to_string());
    let words = names.iter().copied().chain([&*whole, address.local(), &*domain]);
    let parts = words.clone().flat_map(|name| name.split(|c: char| !c.is_alphanumeric()));
    let known = words.chain(parts).chain(QUOTED).filter(|word| word.chars().count() > 2);
    let known: Vec<&str> = known.collect();
    (zxcvbn(&password, &known).guesses_log10() < GUESSES).then(|| {
        say!(
            "This password is easy to guess: many people use it, or it is made of names that others \
             know. Choose another."
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 4] = ["Ann", "Ode", "Example Health", "example.org"];

    #[test]
    fn passwords_are_judged() {
        let address: Address = "ann.long-name@clinic.example".parse().unwrap();
        let bad = [
            ("short", "too short"),
            ("elevenchars", "eleven characters"),
            ("password1234", "word and digits"),
            ("Password-2026!", "word, digits and signs"),
            ("P@ssw0rd12345", "letters as digits"),
            ("passwordpassword", "a word twice"),
            ("Welcome12345!", "word and digits"),
            ("administrator", "on the list"),
            ("correcthorsebatterystaple", "on the list"),
            ("aaaaaaaaaaaa", "one character"),
            ("abcabcabcabc", "a unit again and again"),
            ("123456789012", "numbers"),
            ("098765432109", "numbers backwards"),
            ("qwertyuiopas", "along the keyboard"),
            ("1q2w3e4r5t6y", "along the keyboard"),
            ("abcdefghijklm", "alphabet"),
            ("ann.long-name@clinic.example", "the address"),
            ("Ann.Long-Name@Clinic.Example", "the address in capitals"),
            ("ann.long-name", "the local part"),
            ("Example Health 2026", "the organisation"),
            ("exampleorg2026", "the organisation's domain"),
            ("Clinic.Ann2026", "the reader's name and domain"),
            ("liverpoolfc12", "leaked often"),
            ("1qaz2wsx3edc", "leaked often"),
        ];
        for (password, why) in bad {
            assert!(fault_of(password, &address, &NAMES).is_some(), "{password}: {why}");
        }
        assert!(fault_of(&"ü".repeat(257), &address, &NAMES).is_some(), "too long");
        let good = [
            "a heron sleeps upright",
            "Tr0ub4dor&3-and-more",
            "twelve chars",
            "ключ от старой двери",
        ];
        for password in good {
            assert_eq!(fault_of(password, &address, &NAMES), None, "{password}");
        }
        let longest: String = ('a'..='z').cycle().step_by(3).take(256).collect();
        assert_eq!(fault_of(&longest, &address, &NAMES), None);
    }

    #[tokio::test]
    async fn a_hash_knows_its_password_and_nobody_has_none() {
        let passwords = Passwords::default();
        let say = |text: &str| Zeroizing::new(text.to_owned());
        let hash = passwords.hash(say("a heron sleeps upright")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(
            passwords.matches(say("a heron sleeps upright"), Some(hash.clone())).await.unwrap()
        );
        assert!(!passwords.matches(say("a heron sleeps"), Some(hash)).await.unwrap());
        let composed = passwords.hash(say("Gr\u{fc}\u{df}e aus der K\u{fc}che")).await.unwrap();
        let decomposed = say("Gru\u{308}\u{df}e aus der Ku\u{308}che");
        assert!(passwords.matches(decomposed, Some(composed)).await.unwrap(), "NFC");
        for none in [None, Some(String::new())] {
            assert!(!passwords.matches(say(""), none).await.unwrap());
        }
    }
}
