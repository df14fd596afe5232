//! Languages: every text that a recipient sees, in the recipient's own words.
//!
//! The English text is the key, in templates as in the program: `t("Sign in")` in a template,
//! `say!("Sign in")` in the code. A catalogue says what each of them is in another language; what it
//! leaves out stays English. A [`Text`] is made where something is known, and becomes words only at
//! the border, where the reader is known.

mod accept;
mod catalogue;
mod template;
#[cfg(test)]
mod tests;
mod text;

pub use catalogue::{CatalogueError, CatalogueFile, Language};
pub(crate) use template::{escaped, teach};
pub use text::Text;
pub(crate) use text::say;

use std::sync::Arc;

/// The language in which the texts are written down.
pub const ENGLISH: &str = "en";
/// Languages of an own catalogue at most.
const MAX_OWN: usize = 100;
/// Catalogues that are built in. The first has every key there is, and is what a translator begins
/// with.
const BUILT_IN: [(&str, &str); 4] = [
    ("en.toml", include_str!("catalogues/en.toml")),
    ("de.toml", include_str!("catalogues/de.toml")),
    ("es.toml", include_str!("catalogues/es.toml")),
    ("fr.toml", include_str!("catalogues/fr.toml")),
];

/// Built-in catalogues: the language's code, and the file.
pub fn built_in() -> impl Iterator<Item = (&'static str, &'static str)> {
    BUILT_IN.into_iter().map(|(file, text)| (file.trim_end_matches(".toml"), text))
}

/// The languages of this house.
#[derive(Debug, Clone)]
pub struct Languages {
    all: Vec<Arc<Language>>,
    usual: Arc<Language>,
}

impl Languages {
    /// The built-in ones and those of the files, in this order; a file of a language that is there
    /// already goes before it, text by text. `usual` is the language of who asks for none.
    pub fn new(usual: &str, files: &[CatalogueFile]) -> Result<Self, CatalogueError> {
        if files.len() > MAX_OWN {
            return Err(CatalogueError(format!("too many languages: {MAX_OWN} files at most")));
        }
        let [first, others @ ..] = BUILT_IN;
        let english = Language::parse(first.0, first.1, None)?;
        let mut all = vec![Arc::new(english)];
        let own = files.iter().map(|file| (file.name.as_str(), file.text.as_str()));
        for (name, text) in others.into_iter().chain(own) {
            let Some(english) = all.first() else { break };
            let language = Language::parse(name, text, Some(english))?;
            match all.iter_mut().find(|known| known.code() == language.code()) {
                Some(known) => *known = Arc::new(language.before(known)),
                None => all.push(Arc::new(language)),
            }
        }
        let usual = chosen(&all, usual)?;
        Ok(Self { all, usual })
    }
    /// The same ones, of which another is the usual one.
    pub fn speaking_first(&self, usual: &str) -> Result<Self, CatalogueError> {
        Ok(Self { all: self.all.clone(), usual: chosen(&self.all, usual)? })
    }
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Language>> {
        self.all.iter()
    }
    /// The language of who asks for none.
    pub const fn usual(&self) -> &Arc<Language> {
        &self.usual
    }
    /// The language of that code.
    pub fn get(&self, code: &str) -> Option<&Arc<Language>> {
        self.all.iter().find(|language| language.code() == code)
    }
    /// The language of that code; the usual one if none is named or there is no such.
    pub fn or_usual(&self, code: Option<&str>) -> &Arc<Language> {
        code.and_then(|code| self.get(code)).unwrap_or(&self.usual)
    }
    /// What a browser's `Accept-Language` likes best (RFC 9110 §12.5.4).
    pub fn accepted(&self, header: &str) -> &Arc<Language> {
        accept::best(header, &self.all).unwrap_or(&self.usual)
    }
}

fn chosen(all: &[Arc<Language>], code: &str) -> Result<Arc<Language>, CatalogueError> {
    let found = all.iter().find(|language| language.code() == code).cloned();
    found.ok_or_else(|| {
        let known: Vec<_> = all.iter().map(|language| language.code()).collect();
        CatalogueError(format!("there is no language `{code}`; there are {}", known.join(", ")))
    })
}
