//! The portal as visitors meet it: a served router, browsers with cookies, a vault in memory. No
//! sockets.
mod access;
mod account;
mod authorisation;
mod borders;
mod downloads;
mod equal;
mod frame;
mod headers;
mod journeys;
mod languages;
mod oidc;
mod pictures;
mod prove;
mod reading;
mod search;
mod second;
mod trail;
mod uploads;
mod world;
mod writing;

use scraper::{Html, Selector};
use std::collections::BTreeSet;

/// What every page has: language, title, one h1, landmarks, a skip link, labels, no stray scripts;
/// somebody signed in can always sign out.
pub(super) fn assert_whole_page(text: &str, signed_in: bool) {
    let page = Html::parse_document(text);
    let all = |css: &str| page.select(&Selector::parse(css).unwrap()).collect::<Vec<_>>();
    assert_eq!(all("html[lang='en']").len(), 1);
    assert!(!all("title")[0].text().collect::<String>().trim().is_empty());
    for (css, count) in [
        ("h1", 1),
        ("main", 1),
        ("header", 1),
        ("footer", 1),
        ("a.skip[href='#main']", 1),
        ("script:not([src='/assets/passkey.js'], [src='/assets/upload.js'])", 0),
        ("form[action='/logout']", usize::from(signed_in)),
    ] {
        assert_eq!(all(css).len(), count, "{css} in {text}");
    }
    // Scripts stand where passkeys are made and used, and where files are sent, and nowhere else.
    let script = all("script[src='/assets/passkey.js']").len();
    assert_eq!(script, all("form#passkey-form").len(), "{text}");
    assert_eq!(script, all("noscript").len(), "and what to do without it is said");
    assert_eq!(all("script[src='/assets/upload.js']").len(), all("input[type=file]").len());
    let ids: Vec<_> = all("[id]").into_iter().filter_map(|element| element.attr("id")).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "an id twice: {ids:?}");
    for input in all("input:not([type=hidden]), textarea, select") {
        let id = input.attr("id").unwrap();
        assert_eq!(all(&format!("label[for='{id}']")).len(), 1, "{id} has no label");
        for by in input.attr("aria-describedby").unwrap_or_default().split_whitespace() {
            assert!(ids.contains(&by), "{by} is not there");
        }
    }
}
/// Each error of the summary leads to its field, and the field points back at its words.
fn assert_errors_are_bound(text: &str, fields: &[&str]) {
    let page = Html::parse_document(text);
    let all = |css: &str| page.select(&Selector::parse(css).unwrap()).collect::<Vec<_>>();
    let named: Vec<_> = all(".summary a").iter().filter_map(|a| a.attr("href")).collect();
    assert_eq!(named, fields.iter().map(|field| format!("#{field}")).collect::<Vec<_>>(), "{text}");
    for field in fields {
        let input = all(&format!("[id='{field}'][aria-invalid='true']"));
        let described = input.first().unwrap().attr("aria-describedby").unwrap();
        assert!(described.contains(&format!("{field}-error")), "{described}");
    }
}
