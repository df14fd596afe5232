//! `Accept-Language` (RFC 9110 §12.5.4), within bounds: it comes from anybody.

use super::Language;
use std::{cmp::Reverse, sync::Arc};

/// Bytes of the header that are read.
const MAX_BYTES: usize = 1000;
/// Wishes that are read.
const MAX_WISHES: usize = 30;

/// The language that the header likes best of all there are; the first of several liked the same.
pub(super) fn best<'a>(header: &str, all: &'a [Arc<Language>]) -> Option<&'a Arc<Language>> {
    let header = header.get(..MAX_BYTES).unwrap_or(header);
    let mut wishes: Vec<(u16, &str)> =
        header.split(',').take(MAX_WISHES).filter_map(wish).collect();
    wishes.retain(|(weight, _)| *weight > 0);
    // Stable: what stands first goes first.
    wishes.sort_by_key(|(weight, _)| Reverse(*weight));
    wishes.into_iter().find_map(|(_, range)| found(range, all))
}

/// A range and its weight in thousandths.
fn wish(item: &str) -> Option<(u16, &str)> {
    let mut parts = item.split(';').map(str::trim);
    let range = parts.next().filter(|range| !range.is_empty())?;
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    Some((weight.map_or(Some(1000), thousandths)?, range))
}

/// `0`, `1`, `0.5`, with at most three digits; `None` for what is no weight.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let fraction = format!("{fraction:0<3}").parse::<u16>().ok()?;
    match whole {
        "0" => Some(fraction),
        "1" if fraction == 0 => Some(1000),
        _ => None,
    }
}

/// RFC 4647 §3.4, look-up: the range itself, then what it begins with; also a language of which the
/// range is the beginning. `*` leaves the choice to us.
fn found<'a>(range: &str, all: &'a [Arc<Language>]) -> Option<&'a Arc<Language>> {
    let is = |code: &str, wanted: &str| code.eq_ignore_ascii_case(wanted);
    let mut wanted = range;
    loop {
        if let Some(exact) = all.iter().find(|language| is(language.code(), wanted)) {
            return Some(exact);
        }
        match wanted.rsplit_once('-') {
            Some((shorter, _)) => wanted = shorter,
            None => break,
        }
    }
    let primary = |language: &Arc<Language>| {
        language.code().split('-').next().is_some_and(|primary| is(primary, wanted))
    };
    all.iter().find(|language| primary(language))
}
