//! TLS levels, as policy files name them.
use crate::policy::toml_source::{choice, hint};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a connection must prove before content goes over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// The best of `dane-only` and `mta-sts` that the domain publishes.
    Auto,
    /// Usable TLSA records match; none published: as `encrypt`.
    Dane,
    /// Usable TLSA records match.
    DaneOnly,
    /// TLS, certificate unchecked.
    Encrypt,
    /// Never directly.
    Envelope,
    /// A pinned certificate or public key.
    Fingerprint,
    /// An enforced MTA-STS policy.
    MtaSts,
    /// Plaintext, always.
    None,
    /// TLS where offered.
    Opportunistic,
    /// For mail of our own only: as the domain's signed TLSA records or its enforced MTA-STS policy
    /// say; it publishes neither: as `opportunistic`. No policy file can ask for it.
    Published,
    /// Chain and a name that unsigned DNS did not give.
    Secure,
    /// Chain and the MX host's name.
    Verify,
}

impl Level {
    /// Every level of policy files, in the order of the manual.
    pub const ALL: [Self; 11] = [
        Self::Envelope,
        Self::None,
        Self::Opportunistic,
        Self::Encrypt,
        Self::Fingerprint,
        Self::Verify,
        Self::Secure,
        Self::Dane,
        Self::DaneOnly,
        Self::MtaSts,
        Self::Auto,
    ];

    /// Its name in policy files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Dane => "dane",
            Self::DaneOnly => "dane-only",
            Self::Encrypt => "encrypt",
            Self::Envelope => "envelope",
            Self::Fingerprint => "fingerprint",
            Self::MtaSts => "mta-sts",
            Self::None => "none",
            Self::Opportunistic => "opportunistic",
            Self::Published => "published",
            Self::Secure => "secure",
            Self::Verify => "verify",
        }
    }

    /// True if names and trust anchors matter: somebody must vouch for the certificate.
    pub const fn checks_chain(self) -> bool {
        match self {
            Self::Auto | Self::MtaSts | Self::Published | Self::Secure | Self::Verify => true,
            Self::Dane
            | Self::DaneOnly
            | Self::Encrypt
            | Self::Envelope
            | Self::Fingerprint
            | Self::None
            | Self::Opportunistic => false,
        }
    }

    /// True if mail goes also where TLS does not come about.
    pub const fn allows_plaintext(self) -> bool {
        match self {
            Self::None | Self::Opportunistic | Self::Published => true,
            Self::Auto
            | Self::Dane
            | Self::DaneOnly
            | Self::Encrypt
            | Self::Envelope
            | Self::Fingerprint
            | Self::MtaSts
            | Self::Secure
            | Self::Verify => false,
        }
    }

    /// True if signed TLSA records may be the proof (RFC 7672).
    pub const fn asks_dane(self) -> bool {
        match self {
            Self::Auto | Self::Dane | Self::DaneOnly | Self::Published => true,
            Self::Encrypt
            | Self::Envelope
            | Self::Fingerprint
            | Self::MtaSts
            | Self::None
            | Self::Opportunistic
            | Self::Secure
            | Self::Verify => false,
        }
    }

    /// True if the domain's MTA-STS policy may be the proof (RFC 8461).
    pub const fn asks_sts(self) -> bool {
        match self {
            Self::Auto | Self::MtaSts | Self::Published => true,
            Self::Dane
            | Self::DaneOnly
            | Self::Encrypt
            | Self::Envelope
            | Self::Fingerprint
            | Self::None
            | Self::Opportunistic
            | Self::Secure
            | Self::Verify => false,
        }
    }

    /// True if a delivery at this level proves whose host it reached: by a pin, by a chain and a
    /// name, or by what the domain publishes.
    pub const fn proves(self) -> bool {
        match self {
            Self::Auto
            | Self::Dane
            | Self::DaneOnly
            | Self::Fingerprint
            | Self::MtaSts
            | Self::Secure
            | Self::Verify => true,
            Self::Encrypt | Self::Envelope | Self::None | Self::Opportunistic | Self::Published => {
                false
            }
        }
    }

    /// Reads a level; the error says what to write instead.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let names = Self::ALL.map(|level| (level.as_str(), level));
        choice(text, &names)
            .map_err(|_| format!("unknown level `{text}`{}", hint(text, &names.map(|n| n.0))))
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_agree_with_json() {
        for level in Level::ALL {
            let json = serde_json::to_string(&level).unwrap();
            assert_eq!(json, format!("\"{level}\""));
        }
    }

    #[test]
    fn no_policy_file_asks_for_the_level_of_our_own_mail() {
        let json = serde_json::to_string(&Level::Published).unwrap();
        assert_eq!(json, "\"published\"");
        assert!(Level::read("published").is_err());
        assert!(!Level::ALL.contains(&Level::Published));
    }

    #[test]
    fn levels_are_read_as_they_are_written() {
        for level in Level::ALL {
            assert_eq!(Level::read(level.as_str()), Ok(level));
        }
        for (wrong, near) in [("verfy", "verify"), ("Secure", "secure"), ("may", "known here")] {
            assert!(Level::read(wrong).unwrap_err().contains(near), "{wrong}");
        }
    }
}
