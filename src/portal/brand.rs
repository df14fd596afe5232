//! The house's own look: its logo, and its colour in the place of ours. A colour must be legible.
use super::{Desk, Fault};
use axum::{
    extract::State,
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use std::{fmt, str::FromStr, sync::Arc};

/// Contrast that text must have (WCAG 2.2, 1.4.3).
const LEGIBLE: f64 = 4.5;
/// What a colour stands on, in light and in dark; the same as in the style sheet.
const LIGHT: [Colour; 2] = [Colour(0xff, 0xff, 0xff), Colour(0xf4, 0xf5, 0xf2)];
const DARK: [Colour; 2] = [Colour(0x12, 0x18, 0x16), Colour(0x1b, 0x23, 0x20)];
/// What stands on a colour.
const INKS: [Colour; 2] = [Colour(0xff, 0xff, 0xff), Colour(0, 0, 0)];

/// Logo and colours of a house.
#[derive(Debug, Clone, Default)]
pub struct Brand {
    /// `organization.logo`
    pub logo: Option<Logo>,
    /// `organization.accent`
    pub accent: Option<Colour>,
    /// `organization.accent_dark`; without it, a lighter `accent`.
    pub accent_dark: Option<Colour>,
}

/// A colour of the house, `#rrggbb`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour(u8, u8, u8);

impl FromStr for Colour {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no colour: write \"#1b5e52\"");
        let digits = text.strip_prefix('#').filter(|d| d.len() == 6).ok_or_else(wrong)?;
        let part = |at: usize| {
            let hex = digits.get(at..at + 2).filter(|h| h.bytes().all(|b| b.is_ascii_hexdigit()));
            hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).ok_or_else(wrong)
        };
        Ok(Self(part(0)?, part(2)?, part(4)?))
    }
}
impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:02x}{:02x}{:02x}", self.0, self.1, self.2)
    }
}

impl Colour {
    /// A colour for light pages; one that is not legible there is refused, with one that is.
    pub fn for_light(text: &str) -> Result<Self, String> {
        Self::legible(text, &LIGHT, Self(0, 0, 0), "darker")
    }
    /// A colour for dark pages.
    pub fn for_dark(text: &str) -> Result<Self, String> {
        Self::legible(text, &DARK, Self(0xff, 0xff, 0xff), "lighter")
    }
    fn legible(text: &str, papers: &[Self], toward: Self, word: &str) -> Result<Self, String> {
        let colour: Self = text.parse()?;
        let contrast = colour.least(papers);
        if contrast >= LEGIBLE {
            return Ok(colour);
        }
        let better = colour.until(papers, toward);
        Err(format!(
            "`{text}` has a contrast of {contrast:.1} to the page, and text needs {LEGIBLE}: write \
             a {word} one, \"{better}\""
        ))
    }
    /// This one, moved towards another until it is legible.
    fn until(self, papers: &[Self], toward: Self) -> Self {
        (0..=20)
            .map(|step| self.mixed(toward, step))
            .find(|colour| colour.least(papers) >= LEGIBLE)
            .unwrap_or(toward)
    }
    /// So many twentieths of another.
    fn mixed(self, other: Self, step: u16) -> Self {
        let mix = |from: u8, to: u8| {
            let sum = u16::from(from) * (20 - step.min(20)) + u16::from(to) * step.min(20);
            u8::try_from(sum / 20).unwrap_or(u8::MAX)
        };
        Self(mix(self.0, other.0), mix(self.1, other.1), mix(self.2, other.2))
    }
    fn least(self, papers: &[Self]) -> f64 {
        papers.iter().map(|paper| self.contrast(*paper)).fold(f64::INFINITY, f64::min)
    }
    /// WCAG 2.2, "contrast ratio".
    pub(super) fn contrast(self, other: Self) -> f64 {
        let (one, two) = (self.luminance(), other.luminance());
        (one.max(two) + 0.05) / (one.min(two) + 0.05)
    }
    /// WCAG 2.2, "relative luminance".
    fn luminance(self) -> f64 {
        let linear = |part: u8| {
            let part = f64::from(part) / 255.0;
            if part <= 0.040_45 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(self.0) + 0.7152 * linear(self.1) + 0.0722 * linear(self.2)
    }
    /// Black or white, whichever is more legible on it.
    fn ink(self) -> Self {
        let [white, black] = INKS;
        if self.contrast(white) >= self.contrast(black) { white } else { black }
    }
}

/// A picture of the house.
#[derive(Debug, Clone)]
pub struct Logo {
    kind: &'static str,
    bytes: Bytes,
}
impl Logo {
    /// Bytes of a logo at most.
    pub const LARGEST: u64 = 256 * 1024;
    /// Recognises the picture by what it begins with.
    pub fn new(bytes: Vec<u8>) -> Result<Self, String> {
        if bytes.len() as u64 > Self::LARGEST {
            return Err("larger than 256 KiB: every page shows it, so make it smaller".to_owned());
        }
        let svg = || {
            std::str::from_utf8(&bytes).is_ok_and(|text| {
                let text = text.trim_start_matches('\u{feff}').trim_start();
                text.starts_with('<') && text.contains("<svg")
            })
        };
        let kind = if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            "image/png"
        } else if bytes.starts_with(b"\xff\xd8\xff") {
            "image/jpeg"
        } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP".as_slice()) {
            "image/webp"
        } else if svg() {
            "image/svg+xml"
        } else {
            return Err("no picture that browsers show: give a PNG, JPEG, WebP or SVG".to_owned());
        };
        Ok(Self { kind, bytes: bytes.into() })
    }
}

impl Brand {
    /// What is put below the style sheet.
    pub(super) fn style(&self) -> String {
        let Some(accent) = self.accent.or(self.accent_dark) else { return String::new() };
        let light = self.accent.unwrap_or_else(|| accent.until(&LIGHT, Colour(0, 0, 0)));
        let dark =
            self.accent_dark.unwrap_or_else(|| accent.until(&DARK, Colour(0xff, 0xff, 0xff)));
        let vars = |colour: Colour| format!("--accent: {colour}; --on-accent: {};", colour.ink());
        format!(
            "\n:root {{ {} }}\n@media (prefers-color-scheme: dark) {{\n  :root {{ {} }}\n}}\n",
            vars(light),
            vars(dark)
        )
    }
}

/// `GET /assets/logo`
pub(super) async fn logo(State(desk): State<Arc<Desk>>) -> Result<Response, Fault> {
    let Some(logo) = &desk.settings.brand.logo else {
        return Err(Fault::Status(StatusCode::NOT_FOUND));
    };
    let mut response = logo.bytes.clone().into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(logo.kind));
    // An SVG can hold scripts; opened by itself it may do nothing.
    let csp = "default-src 'none'; style-src 'unsafe-inline'; sandbox";
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(csp));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_that_nobody_could_read_are_refused_with_one_that_can_be_read() {
        for (text, light, dark) in [
            ("#1b5e52", Ok("#1b5e52"), Err("contrast of 2.1 to the page, and text needs 4.5")),
            ("#1B5E52", Ok("#1b5e52"), Err("write a lighter one, \"#")),
            ("#ffcc00", Err("write a darker one, \"#"), Ok("#ffcc00")),
            ("#777777", Err("contrast of 4.1"), Err("contrast of 3.6")),
            ("red", Err("`red` is no colour: write \"#1b5e52\""), Err("is no colour")),
            ("#1b5e5", Err("is no colour"), Err("is no colour")),
            ("#+1b5e5", Err("is no colour"), Err("is no colour")),
            ("#ääa", Err("is no colour"), Err("is no colour")),
        ] {
            for (found, expected) in
                [(Colour::for_light(text), light), (Colour::for_dark(text), dark)]
            {
                match (found, expected) {
                    (Ok(found), Ok(expected)) => assert_eq!(found.to_string(), expected),
                    (Err(said), Err(expected)) => assert!(said.contains(expected), "{said}"),
                    (found, expected) => panic!("{text}: {found:?} / {expected:?}"),
                }
            }
        }
    }
    #[test]
    fn what_is_derived_is_legible() {
        let steps = [0_u8, 51, 102, 153, 204, 255];
        for (r, (g, b)) in steps.iter().flat_map(|r| {
            steps.iter().flat_map(|g| steps.iter().map(move |b| (g, b))).map(move |gb| (r, gb))
        }) {
            let colour = Colour(*r, *g, *b);
            let light = colour.until(&LIGHT, Colour(0, 0, 0));
            let dark = colour.until(&DARK, Colour(0xff, 0xff, 0xff));
            assert!(light.least(&LIGHT) >= LEGIBLE && dark.least(&DARK) >= LEGIBLE, "{colour}");
            assert!(colour.contrast(colour.ink()) >= LEGIBLE, "{colour}");
        }
    }
    #[test]
    fn a_brand_without_colours_leaves_the_style_alone() {
        assert_eq!(Brand::default().style(), "");
        let brand = Brand { accent: Some(Colour(0x80, 0, 0x40)), ..Brand::default() };
        let style = brand.style();
        assert!(style.contains(":root { --accent: #800040; --on-accent: #ffffff; }"), "{style}");
        assert!(style.contains("@media (prefers-color-scheme: dark)"), "{style}");
    }
    #[test]
    fn pictures_are_known_by_what_they_begin_with() {
        let cases: &[(&[u8], Option<&str>)] = &[
            (b"\x89PNG\r\n\x1a\n...", Some("image/png")),
            (b"\xff\xd8\xff\xe0", Some("image/jpeg")),
            (b"RIFF\0\0\0\0WEBPVP8 ", Some("image/webp")),
            (b"<?xml version=\"1.0\"?>\n<svg xmlns=\"x\"/>", Some("image/svg+xml")),
            (b"<html></html>", None),
            (b"GIF89a", None),
            (b"", None),
        ];
        for (bytes, kind) in cases {
            assert_eq!(Logo::new(bytes.to_vec()).ok().map(|logo| logo.kind), *kind);
        }
        assert!(Logo::new(vec![0; 256 * 1024 + 1]).unwrap_err().starts_with("larger"));
    }
    /// The two colours of a variable, light and dark.
    fn variable(name: &str) -> [Colour; 2] {
        let style = include_str!("assets/style.css");
        let (light, dark) = style.split_once("@media (prefers-color-scheme: dark)").unwrap();
        let dark = dark.split_once("\n}").unwrap().0;
        [light, dark].map(|part| {
            let (_, rest) = part.split_once(&format!("--{name}: ")).unwrap();
            rest.split_once(';').unwrap().0.parse().unwrap()
        })
    }
    /// WCAG 2.2, 1.4.3 for text, 1.4.11 for the edges of fields and the focus mark.
    #[test]
    fn the_style_sheets_colours_have_their_contrast_in_light_and_dark() {
        let rows: &[(&str, &[&str], f64)] = &[
            ("ink", &["paper", "card", "wrong-paper"], 7.0),
            ("soft", &["paper", "card"], 4.5),
            ("accent", &["paper", "card"], 4.5),
            ("on-accent", &["accent"], 4.5),
            ("wrong", &["card", "paper", "wrong-paper"], 4.5),
            ("edge", &["paper", "card"], 3.0),
            ("focus", &["paper", "card"], 3.0),
        ];
        for (front, backs, least) in rows {
            for back in *backs {
                for (front_colour, back_colour) in variable(front).into_iter().zip(variable(back)) {
                    let contrast = front_colour.contrast(back_colour);
                    assert!(
                        contrast >= *least,
                        "--{front} {front_colour} on --{back} {back_colour}: {contrast:.2}"
                    );
                }
            }
        }
        assert_eq!([variable("card")[0], variable("paper")[0]], LIGHT);
        assert_eq!([variable("paper")[1], variable("card")[1]], DARK);
    }
}
