//! Pins: how the SHA-256 of a certificate or of its public key is written, and what is said of
//! hashes that are written otherwise.

const EXAMPLE: &str = "write \"sha256:\" and 64 hex digits";
/// Hex digits of hashes that people paste instead.
const OTHERS: [(usize, &str); 5] =
    [(32, "MD5"), (40, "SHA-1"), (56, "SHA-224"), (96, "SHA-384"), (128, "SHA-512")];

/// `sha256:HEX`, the digits in any case, with or without colons between them; gives the digits,
/// lower case.
pub(super) fn pin(text: &str) -> Result<String, String> {
    let digits = text
        .get(..7)
        .filter(|name| name.eq_ignore_ascii_case("sha256:"))
        .and_then(|_| text.get(7..))
        .ok_or_else(|| unnamed(text))?;
    let hex = bare(digits);
    if let Some(right) = from_base64(digits.trim_start_matches(':')) {
        return Err(format!("`{text}` is Base64: write \"sha256:{right}\""));
    }
    if let Some(odd) = hex.chars().find(|c| !c.is_ascii_hexdigit()) {
        return Err(format!("`{text}` holds `{odd}`, which is no hex digit: {EXAMPLE}"));
    }
    if hex.len() != 64 {
        let as_other = other(hex.len()).map(|name| format!(" as {name} has,")).unwrap_or_default();
        return Err(format!(
            "`{text}` has {} hex digits,{as_other} SHA-256 has 64: {EXAMPLE}",
            hex.len()
        ));
    }
    Ok(hex)
}

/// 64 hex digits, with or without colons, as Postfix writes a SHA-256; or the name of the hash that
/// has this many.
pub(super) fn unprefixed(text: &str) -> Result<String, String> {
    let hex = bare(text);
    if hex.is_empty() || hex.chars().any(|c| !c.is_ascii_hexdigit()) {
        return Err(format!("`{text}` is no fingerprint: hex digits and colons belong there"));
    }
    match (hex.len(), other(hex.len())) {
        (64, _) => Ok(hex),
        (_, Some(name)) => Err(format!("`{text}` looks like {name}, only SHA-256 counts")),
        (n, None) => Err(format!("`{text}` has {n} hex digits, SHA-256 has 64")),
    }
}

fn bare(digits: &str) -> String {
    digits.chars().filter(|c| *c != ':').collect::<String>().to_ascii_lowercase()
}

fn other(digits: usize) -> Option<&'static str> {
    OTHERS.iter().find(|(length, _)| *length == digits).map(|(_, name)| *name)
}

/// A pin without `sha256:` before it.
fn unnamed(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let named = ["md5", "sha1", "sha-1", "sha224", "sha384", "sha512", "sha-512"];
    if let Some(name) = named.iter().find(|name| lower.starts_with(*name)) {
        return format!("`{text}` is by {}, only SHA-256 counts: {EXAMPLE}", name.to_uppercase());
    }
    // As curl, HPKP and Go write it.
    let after = lower.strip_prefix("sha256").and_then(|rest| text.get(text.len() - rest.len()..));
    if let Some(right) = after.and_then(|rest| from_base64(rest.trim_matches('/'))) {
        return format!("`{text}` is Base64: write \"sha256:{right}\"");
    }
    match unprefixed(text) {
        Ok(hex) => format!("`{text}` does not say its hash: write \"sha256:{hex}\""),
        Err(why) if text.is_ascii() && other(bare(text).len()).is_some() => {
            format!("{why}: {EXAMPLE}")
        }
        Err(_) => format!("`{text}` does not say its hash: {EXAMPLE}"),
    }
}

/// The hex digits of 32 bytes in Base64; SHA-256 in hex has 64 letters, in Base64 44.
fn from_base64(text: &str) -> Option<String> {
    let bytes = data_encoding::BASE64.decode(text.as_bytes()).ok()?;
    (bytes.len() == 32).then(|| data_encoding::HEXLOWER.encode(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many hex digits.
    fn hex(digits: usize) -> String {
        "0123456789abcdef".chars().cycle().take(digits).collect()
    }

    #[test]
    fn good() {
        let whole = hex(64);
        let colons = ["01:23:45:67:89:AB:CD:EF"; 4];
        for (text, reason) in [
            (format!("sha256:{whole}"), "as it is kept"),
            (format!("SHA256:{}", whole.to_uppercase()), "any case"),
            (format!("sha256:{}", colons.join(":")), "as openssl prints it"),
        ] {
            assert_eq!(pin(&text).as_ref(), Ok(&whole), "{reason}");
        }
    }

    #[test]
    fn bad_ones_say_what_they_are() {
        for (text, says) in [
            (hex(64), format!("write \"sha256:{}\"", hex(64))),
            (hex(32), "MD5".to_owned()),
            (hex(40), "SHA-1".to_owned()),
            (format!("sha1:{}", hex(40)), "SHA1, only SHA-256".to_owned()),
            (format!("md5:{}", hex(32)), "MD5, only SHA-256".to_owned()),
            (format!("sha512:{}", hex(128)), "SHA512, only SHA-256".to_owned()),
            (format!("sha256:{}", hex(40)), "40 hex digits, as SHA-1 has".to_owned()),
            (format!("sha256:{}", hex(63)), "has 63 hex digits, SHA-256".to_owned()),
            (format!("sha256:{}", hex(65)), "has 65 hex digits, SHA-256".to_owned()),
            (
                "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=".to_owned(),
                "write \"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\""
                    .to_owned(),
            ),
            (
                "sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=".to_owned(),
                "is Base64: write \"sha256:e3b0".to_owned(),
            ),
            ("sha256:0g".to_owned(), "`g`, which is no hex digit".to_owned()),
            (String::new(), "does not say its hash".to_owned()),
            ("é".repeat(20), "does not say its hash".to_owned()),
        ] {
            let error = pin(&text).unwrap_err();
            assert!(error.contains(&says), "{text}: {error}");
        }
    }
}
