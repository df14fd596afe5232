//! Range requests (RFC 9110 section 14) for what has a length that is known beforehand.
use axum::http::{
    HeaderMap, HeaderValue, Method,
    header::{IF_RANGE, RANGE},
};
use http_range_header::{RangeUnsatisfiableError, parse_range_header};
use std::ops::Range;

/// What is asked of a resource.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// All of it.
    Whole,
    /// A part of it, by its offsets.
    Part(Range<u64>),
    /// Nothing that is there (section 15.5.17).
    Beyond,
}

/// What a request asks of a resource of that size and strong entity tag. A range that can't be read,
/// more than one, or one for another representation is as none (sections 13.1.5 and 14.2).
pub(super) fn asked(method: &Method, headers: &HeaderMap, tag: &HeaderValue, size: u64) -> Asked {
    let text = headers.get(RANGE).and_then(|value| value.to_str().ok());
    let same = headers.get(IF_RANGE).is_none_or(|wanted| wanted == tag);
    let Some(text) = text.filter(|_| *method == Method::GET && same) else { return Asked::Whole };
    let Ok(parsed) = parse_range_header(text) else { return Asked::Whole };
    if parsed.len() > 1 {
        return Asked::Whole;
    }
    match parsed.validate(size) {
        Ok(ranges) => match ranges.as_slice() {
            [range] => Asked::Part(*range.start()..range.end().saturating_add(1)),
            _ => Asked::Whole,
        },
        Err(RangeUnsatisfiableError::Unsatisfiable) => Asked::Beyond,
        Err(_) => Asked::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_ranges_are_answered_and_all_else_is_the_whole() {
        let rows = [
            ("bytes=0-", Asked::Part(0..100)),
            ("bytes=0-0", Asked::Part(0..1)),
            ("bytes=99-", Asked::Part(99..100)),
            ("bytes=10-19", Asked::Part(10..20)),
            ("bytes=90-1000", Asked::Part(90..100)),
            ("bytes=-1", Asked::Part(99..100)),
            ("bytes=-1000", Asked::Part(0..100)),
            ("bytes=100-", Asked::Beyond),
            ("bytes=100-200", Asked::Beyond),
            ("bytes=-0", Asked::Beyond),
            ("bytes=0-1,5-6", Asked::Whole),
            ("bytes=9-8", Asked::Whole),
            ("bytes=", Asked::Whole),
            ("bytes=a-b", Asked::Whole),
            ("bytes=99999999999999999999-", Asked::Beyond),
            ("lines=0-5", Asked::Whole),
            ("0-5", Asked::Whole),
        ];
        let tag = HeaderValue::from_static("\"a\"");
        for (text, expected) in rows {
            let headers = HeaderMap::from_iter([(RANGE, HeaderValue::from_static(text))]);
            assert_eq!(asked(&Method::GET, &headers, &tag, 100), expected, "{text}");
            assert_eq!(asked(&Method::HEAD, &headers, &tag, 100), Asked::Whole, "HEAD {text}");
        }
        for (wanted, expected) in [
            ("\"a\"", Asked::Part(10..20)),
            ("\"b\"", Asked::Whole),
            ("W/\"a\"", Asked::Whole),
            ("Tue, 01 Dec 2026 10:00:00 GMT", Asked::Whole),
        ] {
            let headers = HeaderMap::from_iter([
                (RANGE, HeaderValue::from_static("bytes=10-19")),
                (IF_RANGE, HeaderValue::from_static(wanted)),
            ]);
            assert_eq!(asked(&Method::GET, &headers, &tag, 100), expected, "If-Range: {wanted}");
        }
    }
}
