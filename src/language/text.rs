//! A text that knows what it says, but not yet in which language.

use super::Language;
use jiff::Timestamp;
use minijinja::value::{Object, ObjectRepr, Value};
use std::{fmt, sync::Arc};

/// Something to be said to a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// A message of the catalogue, with what stands in its `{places}`. Made by `say!`.
    Message(&'static str, Vec<(&'static str, Self)>),
    /// The same in every language: a name, an address.
    Verbatim(String),
    /// A number; one named `count` chooses between one and many.
    Count(u64),
    /// A day.
    Day(Timestamp),
    /// A day and a time, UTC.
    Moment(Timestamp),
    /// So many bytes.
    Size(u64),
    /// So many seconds to wait, told in minutes.
    Wait(i64),
}

/// A [`Text`] of the catalogue: `say!("Write to {address}.", address = support)`. A test looks for
/// these words in the catalogues.
macro_rules! say {
    ($key:literal $(, $name:ident = $value:expr)* $(,)?) => {
        $crate::language::Text::Message(
            $key,
            vec![$((stringify!($name), $crate::language::Text::from($value))),*],
        )
    };
}
pub(crate) use say;

impl Text {
    /// The same in every language.
    pub fn verbatim(text: impl Into<String>) -> Self {
        Self::Verbatim(text.into())
    }
    /// The number, if it is one.
    pub(super) const fn count(&self) -> Option<u64> {
        if let Self::Count(count) = self { Some(*count) } else { None }
    }
    /// True if nothing is said.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Verbatim(text) if text.is_empty())
    }
}
impl Default for Text {
    fn default() -> Self {
        Self::Verbatim(String::new())
    }
}
impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::Verbatim(text)
    }
}
impl From<u64> for Text {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}
impl From<usize> for Text {
    fn from(count: usize) -> Self {
        Self::Count(u64::try_from(count).unwrap_or(u64::MAX))
    }
}
impl From<Text> for Value {
    fn from(text: Text) -> Self {
        Self::from_object(text)
    }
}
/// In plain English, for who has no catalogue at hand.
impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Language::plain().say(self))
    }
}
/// Templates carry it as it is; what prints it knows the language.
impl Object for Text {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
    fn is_true(self: &Arc<Self>) -> bool {
        !self.is_empty()
    }
    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_ref(), f)
    }
}
