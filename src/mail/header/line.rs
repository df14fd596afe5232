//! The field that a line of the header section begins, told byte by byte.

/// The line as far as it is known.
pub(in crate::mail) enum Begins {
    /// It begins the field that is looked for.
    Field,
    /// It ends the header section.
    EmptyLine,
    /// It begins another field, or none.
    Other,
    /// More bytes are needed.
    Unclear,
}

/// Judges the start of a line for a field `name`. At most `spaces` bytes of white space may stand
/// before its colon (RFC 5322 §4.5.8: the obsolete syntax allows them).
pub(in crate::mail) fn begins(line: &[u8], name: &str, spaces: usize) -> Begins {
    if matches!(line, b"\n" | b"\r\n") {
        return Begins::EmptyLine;
    }
    let name = name.as_bytes();
    let (start, rest) = line.split_at_checked(name.len()).unwrap_or((line, &[]));
    let fits = name.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start));
    match rest.split_last() {
        _ if line == b"\r" => Begins::Unclear,
        _ if !fits || rest.len() > spaces => Begins::Other,
        None | Some((b' ' | b'\t', _)) => Begins::Unclear,
        Some((b':', _)) => Begins::Field,
        Some(_) => Begins::Other,
    }
}
