//! Passwords: which are taken (length, not a common one, not the address; no rule of composition),
//! and Argon2id.
use super::IdentityError;
use crate::{
    language::{Text, say},
    mail::Address,
};
use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use std::sync::Arc;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
};
use zeroize::Zeroizing;

/// Shortest password, in characters.
pub const SHORTEST: usize = 12;
/// Longest password, in characters.
pub const LONGEST: usize = 256;
/// Argon2id runs at one time: each takes 19 MiB.
const RUNS: usize = 2;
/// Runs that wait for their turn; what comes beyond is put off at once.
const WAITING: usize = 64;
/// Memory in KiB, passes and lanes of Argon2id.
const COST: (u32, u32, u32) = (19 * 1024, 2, 1);
/// A hash that no password has: work for the sign-in of an address without an account.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRvZm5vYm9keQ\
                      $AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Hashes passwords, a few at a time.
#[derive(Debug)]
pub(super) struct Passwords {
    runs: Arc<Semaphore>,
    queue: Arc<Semaphore>,
}
impl Default for Passwords {
    fn default() -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self { runs: semaphore(RUNS), queue: semaphore(RUNS + WAITING) }
    }
}
impl Passwords {
    /// The PHC string of a new password.
    pub(super) async fn hash(&self, password: Zeroizing<String>) -> Result<String, IdentityError> {
        self.run(move || {
            let hash: PasswordHash =
                argon2()?.hash_password(password.as_bytes()).map_err(|_| BROKEN)?;
            Ok(hash.to_string())
        })
        .await
    }
    /// Whether the password is the one behind the hash. Without a hash the same work is done, and
    /// the answer is no.
    pub(super) async fn matches(
        &self,
        password: Zeroizing<String>,
        hash: Option<String>,
    ) -> Result<bool, IdentityError> {
        self.run(move || {
            // An operator's reset leaves no password behind.
            let hash = hash.filter(|hash| !hash.is_empty());
            let text = hash.as_deref().unwrap_or(NOBODY);
            let parsed = PasswordHash::new(text).map_err(|_| BROKEN)?;
            let same = argon2()?.verify_password(password.as_bytes(), &parsed).is_ok();
            Ok(same && hash.is_some())
        })
        .await
    }
    /// The places end with the work, also where the request that asked for it has gone away.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, &'static str> + Send + 'static,
    ) -> Result<T, IdentityError> {
        let place = Arc::clone(&self.queue).try_acquire_owned();
        let place = place.map_err(|_| IdentityError::Busy)?;
        let turn = Arc::clone(&self.runs).acquire_owned().await;
        let turn = turn.map_err(|_| IdentityError::Work(BROKEN))?;
        let places: [OwnedSemaphorePermit; 2] = [place, turn];
        let done = spawn_blocking(move || {
            let done = work();
            drop(places);
            done
        });
        done.await.map_err(|_| IdentityError::Work(BROKEN))?.map_err(IdentityError::Work)
    }
}

const BROKEN: &str = "a password could not be hashed";

fn argon2() -> Result<Argon2<'static>, &'static str> {
    let (memory, passes, lanes) = COST;
    let params = Params::new(memory, passes, lanes, None).map_err(|_| BROKEN)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// What is wrong with a new password, in words for its owner.
pub fn fault_of(password: &str, address: &Address) -> Option<Text> {
    let length = password.chars().count();
    if length < SHORTEST {
        return Some(say!("Choose a password of at least {count} characters.", count = SHORTEST));
    }
    if length > LONGEST {
        return Some(say!("Choose a password of at most {count} characters.", count = LONGEST));
    }
    let lower = password.to_lowercase();
    if lower == address.to_string().to_lowercase() || lower == address.local().to_lowercase() {
        return Some(say!("Your address is easy to guess. Choose another password."));
    }
    common(&lower)
        .then(|| say!("Many people use this password, so it is easy to guess. Choose another."))
}

/// A common password: a word of the list with digits or signs around it, a unit said again and
/// again, or a walk along the keyboard, the alphabet or the numbers.
fn common(lower: &str) -> bool {
    let core = lower.trim_matches(|c: char| !c.is_alphabetic());
    let plain = |text: &str| -> String { text.chars().map(unleet).collect() };
    let forms = [lower, core, &plain(lower), &plain(core)];
    forms.iter().any(|form| listed(form)) || repeated(lower) || walked(lower)
}

fn listed(word: &str) -> bool {
    COMMON.split_ascii_whitespace().any(|common| common == word)
}

fn unleet(c: char) -> char {
    match c {
        '0' => 'o',
        '1' | '!' => 'i',
        '3' => 'e',
        '4' | '@' => 'a',
        '5' | '$' => 's',
        '7' => 't',
        other => other,
    }
}

fn repeated(text: &str) -> bool {
    let chars: Vec<char> = text.chars().collect();
    (1..=chars.len() / 2).any(|unit| {
        let again = chars.iter().zip(chars.iter().skip(unit)).all(|(a, b)| a == b);
        let word: String = chars.iter().take(unit).collect();
        again
            && (unit <= 4
                || listed(word.trim_matches(|c: char| !c.is_alphabetic()))
                || walked(&word))
    })
}

fn walked(text: &str) -> bool {
    const WALKS: [&str; 7] = [
        "0123456789",
        "1234567890",
        "abcdefghijklmnopqrstuvwxyz",
        "qwertyuiopasdfghjklzxcvbnm",
        "qazwsxedcrfvtgbyhnujmikolp",
        "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p",
        "1q2w3e4r5t6y7u8i9o0p",
    ];
    let backward: String = text.chars().rev().collect();
    text.chars().count() >= 4
        && WALKS.iter().any(|walk| {
            let rounds = walk.repeat(text.len() / walk.len() + 2);
            rounds.contains(text) || rounds.contains(&backward)
        })
}

/// Words that people take for passwords, alone or with digits and signs around them.
const COMMON: &str = "
password passwort passwords passw passwd pass password1password mypassword yourpassword
thepassword newpassword oldpassword nopassword securepassword strongpassword goodpassword
password123password temppassword temporary temporarypassword changeme changemenow changeit
changethis letmein letmeinnow letmeinplease pleaseletmein welcome welcomehome welcomeback
welcometo admin administrator adminadmin administrators administration root rootroot superuser
superman superadmin sysadmin systemadmin master masterkey mastermaster default defaultpassword
guest guestguest login loginlogin secret topsecret secretpassword mysecret secretsecret test
testtest testing testpassword testtesttest tester demo demodemo example sample user username
useruser myusername qwerty qwertz azerty qwertyqwerty qwertyuiop qwertypassword asdfgh asdfghjkl
asdfasdf asdfasdfasdf zxcvbn zxcvbnm iloveyou iloveyousomuch iloveyoubaby iloveyouforever
ilovemyself ilovemylife ilovejesus iloveme ilovegod loveyou loveyouforever lovelove loveme
ihateyou sunshine sunshines mysunshine princess princesses prettyprincess babygirl babygirls
babyboy sweetheart sweetie sweetness beautiful butterfly butterflies dragon dragons blackdragon
monkey monkeys football footballs soccer soccerball baseball basketball hockey icehockey golf
golfer tennis shadow shadows batman spiderman superstar supernova starwars startrek pokemon
pokemons minecraft fortnite naruto nintendo playstation xbox whatever whatevers freedom forever
foreveryoung trustno trustnoone trustnobody computer computers mycomputer internet
internetexplorer michael jennifer jessica michelle christopher christian elizabeth alexander
alexandra stephanie veronica anthony jonathan charlie chocolate chocolates strawberry blueberry
cheesecake cookie cookies cookiemonster hellokitty kitty kitties pussycat puppy puppies doggy
mydog mycat hello hellohello helloworld helloworlds hellothere goodmorning goodnight goodluck
happybirthday happy happiness happyhappy happyday blessed blessings jesuschrist jesus jesuslovesme
jesusislord godisgood godislove godbless angel angels angelface guardianangel heaven mustang
mercedes mercedesbenz ferrari porsche corvette harleydavidson liverpool liverpoolfc manchester
manchesterunited arsenal chelsea chelseafc realmadrid barcelona barcelonafc juventus newyork
newyorkcity california losangeles london england america australia germany deutschland frankreich
france canada brasil mexico winter winterwinter spring summer summertime summersummer autumn
january february march april june july august september october november december monday tuesday
wednesday thursday friday saturday sunday diamond diamonds purple purplerain orange yellow rainbow
rainbows flower flowers samsung samsunggalaxy iphone apple google facebook microsoft windows
linkedin instagram youtube amazon netflix twitter company corporate business office outlook
exchange hospital healthcare patient doctor medical nurse nursing medicine
correcthorsebatterystaple thequickbrownfox loremipsum opensesame abracadabra openup access
accessgranted accessdenied nothing nothingtosee unknown undefined nobody somebody everybody
anything everything something abcabc abcdef abcdefg abcdefgh abcd abc
";

#[cfg(test)]
mod tests {
    use super::*;

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
        ];
        for (password, why) in bad {
            assert!(fault_of(password, &address).is_some(), "{password}: {why}");
        }
        assert!(fault_of(&"ü".repeat(257), &address).is_some(), "too long");
        let good = [
            "a heron sleeps upright",
            "Tr0ub4dor&3-and-more",
            "twelve chars",
            "ключ от старой двери",
        ];
        for password in good {
            assert_eq!(fault_of(password, &address), None, "{password}");
        }
        let longest: String = ('a'..='z').cycle().step_by(3).take(256).collect();
        assert_eq!(fault_of(&longest, &address), None);
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
        for none in [None, Some(String::new())] {
            assert!(!passwords.matches(say(""), none).await.unwrap());
        }
    }
}
