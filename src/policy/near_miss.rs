//! Names that are nearly another: look-alikes, letters of several scripts, one letter too many.
//!
//! Look-alikes are found by the skeletons of UTS #39 §4, scripts by its §5.
use crate::{
    mail::Domain,
    policy::{Code, Problem, lint::is_name, read::Place, toml_source::Section},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};
use unicode_security::{MixedScript, confusable_detection::skeleton};

/// Shorter labels differ by a letter for good reasons.
const SHORTEST: usize = 6;
/// Names compared at most; who has more makes the files by program.
const MOST: usize = 50_000;
/// Names that share a part, and pairs that are said, at most.
const MOST_ALIKE: usize = 50;
const MOST_SAID: usize = 200;

/// How the names of a list are written.
pub(super) fn spelling(section: &Section<'_, '_>, key: &'static str) {
    let Some(entry) = section.get(key) else { return };
    for (at, text) in entry.texts() {
        if let Some(name) = text.strip_suffix('.') {
            let text =
                format!("`{text}` is taken as \"{name}\": write it without the dot at its end");
            entry.note_at(Code::TRAILING_DOT, at, text);
        }
        if let Some((code, text)) = foreign_letters(text) {
            entry.note_at(code, at, text);
        }
    }
}

/// Labels that imitate: letters of several scripts, or all of one script that look like Latin ones.
fn foreign_letters(text: &str) -> Option<(Code, String)> {
    let domain: Domain = text.trim_start_matches('.').parse().ok()?;
    let shown = domain.to_unicode();
    let label = shown.split('.').find(|l| !l.is_ascii() && !l.is_single_script());
    if let Some(label) = label {
        let text = format!(
            "`{label}` in {} mixes letters of several scripts, as imitations do: compare it \
             letter by letter",
            both(domain.as_str())
        );
        return Some((Code::MIXED_SCRIPTS, text));
    }
    let latin = |l: &&str| !l.is_ascii() && skeleton(l).all(|c| c.is_ascii());
    let label = shown.split('.').find(latin)?;
    let looks: String = skeleton(label).collect();
    let text = format!(
        "`{label}` in {} is not Latin and looks like `{looks}`: write that, if it is what was meant",
        both(domain.as_str())
    );
    Some((Code::HOMOGRAPH, text))
}

/// Names of `match` that miss one of the entry's own domains by a letter.
pub(super) fn names_of_match(section: &Section<'_, '_>, domains: &[(usize, String)]) {
    let Some(entry) = section.get("match") else { return };
    for (at, text) in entry.texts() {
        let Ok(name) = text.trim_start_matches('.').parse::<Domain>() else { continue };
        let missed = domains.iter().map(|(_, domain)| domain.trim_start_matches('.'));
        let mut missed = missed.filter(|domain| near_miss(tail(name.as_str(), domain), domain));
        if let Some(domain) = missed.next() {
            let text = format!(
                "`{text}` differs by one letter from the entry's own `{domain}`: is one of the two \
                 a slip?"
            );
            entry.note_at(Code::NEAR_MISS, at, text);
        }
    }
}

/// As many labels of the name's end as the domain has.
fn tail<'n>(name: &'n str, domain: &str) -> &'n str {
    let labels = domain.split('.').count();
    let dot = name.rmatch_indices('.').nth(labels - 1).map(|(at, _)| at + 1);
    dot.and_then(|at| name.get(at..)).unwrap_or(name)
}

/// Whether the entry of a name answers warnings of a kind.
type Accepts<'a> = &'a dyn Fn(&str, Code) -> bool;

/// A name without its leading dot: as it is kept, as people read it, what it looks like, and where
/// it was first written.
struct Written<'a> {
    name: &'a str,
    /// As it stands at its place.
    key: &'a str,
    shown: String,
    looks: String,
    place: &'a Place,
}

/// Names of the whole set that are nearly each other.
pub(super) fn names(places: &BTreeMap<String, Place>, accepts: Accepts<'_>) -> Vec<Problem> {
    if places.len() > MOST {
        let text = format!(
            "{} names are too many to compare with each other (at most {MOST}): slips and \
             look-alikes among them are not shown",
            places.len()
        );
        return not_shown(places, accepts, text).into_iter().collect();
    }
    // Of a name and its suffix one is enough.
    let mut bare: BTreeMap<&str, (&Place, &str)> = BTreeMap::new();
    for (name, place) in places.iter().filter(|(name, _)| is_name(name)) {
        let first = bare.entry(name.trim_start_matches('.')).or_insert((place, name));
        *first = (*first).min((place, name));
    }
    let written = bare.into_iter().map(|(name, (place, key))| {
        let shown = name.parse::<Domain>().map_or_else(|_| name.to_owned(), |d| d.to_unicode());
        // Domains have no case, while a zero looks like a capital O.
        let looks = skeleton(&shown).collect::<String>().to_lowercase();
        Written { name, key, shown, looks, place }
    });
    let mut written: Vec<Written<'_>> = written.collect();
    // The stranger of two comes later: what is not ASCII, else what was written later.
    written.sort_by_key(|w| (!w.shown.is_ascii(), w.place));
    let mut problems = look_alikes(&written, accepts);
    let (said, more) = slips(&written, accepts);
    problems.extend(said);
    if more > 0 {
        let text = format!("{more} more pairs of names differ by one letter, and are not shown");
        problems.extend(not_shown(places, accepts, text));
    }
    problems
}

/// What is said last, where the last name stands.
fn not_shown(
    places: &BTreeMap<String, Place>,
    accepts: Accepts<'_>,
    text: String,
) -> Option<Problem> {
    let (name, (file, line, column)) = places.iter().max_by_key(|(_, place)| *place)?;
    let code = Code::NOT_SHOWN;
    (!accepts(name, code)).then(|| Problem::new(file, (*line, *column), code, text))
}

/// Names that look the same, said at the later one.
fn look_alikes(written: &[Written<'_>], accepts: Accepts<'_>) -> Vec<Problem> {
    let mut seen: HashMap<&str, &Written<'_>> = HashMap::new();
    let mut problems = Vec::new();
    for one in written {
        let Some(other) = seen.get(one.looks.as_str()) else {
            seen.insert(&one.looks, one);
            continue;
        };
        if accepts(one.key, Code::HOMOGRAPH) {
            continue;
        }
        let (file, line, column) = other.place;
        let text = format!(
            "{} looks like {} at {file}:{line}:{column}: is one of the two an imitation?",
            both(one.name),
            both(other.name),
        );
        problems.push(one.problem(Code::HOMOGRAPH, text));
    }
    problems
}

/// Names that differ by one letter, said at the later one, and how many more there are. Two such names share what is left of
/// them without that letter, so that no pair need be compared that has nothing in common.
fn slips(written: &[Written<'_>], accepts: Accepts<'_>) -> (Vec<Problem>, usize) {
    let mut parts: Vec<(u64, usize)> = Vec::new();
    for (n, one) in written.iter().enumerate() {
        parts.extend(shortened(&one.shown).into_iter().map(|hash| (hash, n)));
    }
    parts.sort_unstable();
    let mut pairs = BTreeSet::new();
    // Many names with one part were numbered by a program.
    for alike in parts.chunk_by(|a, b| a.0 == b.0).filter(|alike| alike.len() <= MOST_ALIKE) {
        for (n, (_, first)) in alike.iter().enumerate() {
            pairs.extend(alike.iter().skip(n + 1).map(|(_, later)| (*first, *later)));
        }
    }
    let problem = |(first, later): (usize, usize)| {
        let (first, later) = (written.get(first)?, written.get(later)?);
        let (file, line, column) = first.place;
        let text = format!(
            "{} differs by one letter from {} at {file}:{line}:{column}: is one of the two a slip?",
            both(later.name),
            both(first.name),
        );
        let open = first.looks != later.looks && !accepts(later.key, Code::NEAR_MISS);
        (open && near_miss(&first.shown, &later.shown))
            .then(|| later.problem(Code::NEAR_MISS, text))
    };
    let mut problems = pairs.into_iter().filter_map(problem);
    let said = problems.by_ref().take(MOST_SAID).collect();
    (said, problems.count())
}

impl Written<'_> {
    fn problem(&self, code: Code, text: String) -> Problem {
        let (file, line, column) = self.place;
        Problem::new(file, (*line, *column), code, text)
    }
}

/// Hashes of the name, and of the name with each one character of its long labels left out.
fn shortened(name: &str) -> Vec<u64> {
    let mut hashes = vec![hash(name.chars())];
    let mut start = 0;
    for label in name.split('.') {
        let length = label.chars().count();
        if length + 1 >= SHORTEST {
            let without = |skip: usize| {
                hash(name.chars().enumerate().filter(|(n, _)| *n != skip).map(|(_, c)| c))
            };
            hashes.extend((start..start + length).map(without));
        }
        start += length + 1;
    }
    hashes.sort_unstable();
    hashes.dedup();
    hashes
}

fn hash(text: impl Iterator<Item = char>) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.for_each(|c| c.hash(&mut hasher));
    hasher.finish()
}

/// True if exactly one label differs, is long, and differs by one letter: changed, left out, put in
/// or swapped with its neighbour. Numbers differ for good reasons, and so do letters that number.
fn near_miss(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    let mut missed = 0;
    loop {
        match (one.next(), other.next()) {
            (None, None) => return missed == 1,
            (Some(a), Some(b)) if a == b => {}
            (Some(a), Some(b)) if slip(a, b) => missed += 1,
            (Some(_) | None, Some(_) | None) => return false,
        }
    }
}

fn slip(one: &str, other: &str) -> bool {
    let letters = |label: &str| label.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    let numbered = letters(one) == letters(other);
    let long = one.chars().count().max(other.chars().count()) >= SHORTEST;
    long && !numbered && !lettered(one, other) && strsim::damerau_levenshtein(one, other) == 1
}

/// True for `clinic-a` and `clinic-b`: what differs stands alone between hyphens, and is one letter
/// beside digits at most.
fn lettered(one: &str, other: &str) -> bool {
    let short = |part: &str| part.chars().filter(|c| !c.is_ascii_digit()).count() <= 1;
    let (mut one, mut other) = (one.split('-'), other.split('-'));
    loop {
        match (one.next(), other.next()) {
            (None, None) => return true,
            (Some(a), Some(b)) if a == b || short(a) && short(b) => {}
            (Some(_) | None, Some(_) | None) => return false,
        }
    }
}

/// A name as people read it, beside the one that goes over the wire.
fn both(name: &str) -> String {
    let shown = name.parse::<Domain>().map_or_else(|_| name.to_owned(), |d| d.to_unicode());
    if shown == name { format!("`{name}`") } else { format!("`{shown}` ({name})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_letter() {
        for (one, other, is, reason) in [
            ("partner.example", "partnre.example", true, "swapped"),
            ("partner.example", "partnr.example", true, "left out"),
            ("partner.example", "parttner.example", true, "put in"),
            ("partner.example", "pantner.example", true, "changed"),
            ("mail.partner.example", "mail.pantner.example", true, "in a middle label"),
            ("partner.example", "partner.exampel", true, "in the last label"),
            ("partner.example", "partner.example", false, "the same"),
            ("abcde.example", "abcdf.example", false, "short labels"),
            ("branch1.example", "branch2.example", false, "numbers"),
            ("branch.example", "branch2.example", false, "a number put in"),
            ("clinic-a.example", "clinic-b.example", false, "letters that number"),
            ("x-clinic.example", "y-clinic.example", false, "in front"),
            ("site-a-north.example", "site-b-north.example", false, "in the middle"),
            ("clinic-a1.example", "clinic-b1.example", false, "a letter and a number"),
            ("clinic-1.example", "clinic-a.example", false, "a letter or a number"),
            ("clinic-aa.example", "clinic-ab.example", true, "two letters are a word"),
            ("clinica.example", "clinicb.example", true, "no hyphen between"),
            ("clinic-a.example", "clinik-a.example", true, "the word differs"),
            ("partner.example", "partner.com", false, "another top-level domain"),
            ("partner.example", "a.partner.example", false, "more labels"),
            ("partner1.example", "pantner.example", false, "two letters"),
        ] {
            assert_eq!(near_miss(one, other), is, "{one} {other}: {reason}");
            assert_eq!(near_miss(other, one), is, "{other} {one}: {reason}");
            if is {
                let other = shortened(other);
                assert!(shortened(one).iter().any(|h| other.contains(h)), "{one}: {reason}");
            }
        }
    }

    #[test]
    fn the_end_of_a_name() {
        for (name, domain, end) in [
            ("mx.a.example", "b.example", "a.example"),
            ("a.example", "b.example", "a.example"),
            ("example", "b.example", "example"),
        ] {
            assert_eq!(tail(name, domain), end);
        }
    }
}
