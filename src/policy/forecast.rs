//! A level judged apart from a delivery: what `policy probe`, the watch and `policy replay` ask. The
//! judge is the one that deliveries have; no [`Clearance`](crate::policy::Clearance) comes of it.

use crate::{
    mail::Domain,
    policy::{
        HostFacts, Level, PeerFacts, Policy, StsFacts,
        judge::{self, Asked},
    },
};

/// What a policy entry asks of a host, or would ask.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Level.
    pub level: Level,
    /// The recipients' domain.
    pub domain: &'a Domain,
    /// Names of the policy's `match`.
    pub names: &'a [String],
    /// Pins: SHA-256 of certificate or public key, lower-case hex.
    pub pins: &'a [String],
    /// `min_tls = "1.3"`.
    pub min_tls13: bool,
}

impl<'a> Wanted<'a> {
    /// What an entry asks for this domain.
    pub fn of(policy: &'a Policy, domain: &'a Domain) -> Self {
        Self {
            level: policy.level,
            domain,
            names: &policy.names,
            pins: &policy.pins,
            min_tls13: policy.min_tls13,
        }
    }

    /// A level alone, with nothing else said.
    pub const fn level(level: Level, domain: &'a Domain) -> Self {
        Self { level, domain, names: &[], pins: &[], min_tls13: false }
    }
}

/// Would mail go to this host over this connection? By what, or why not: a sentence without its
/// full stop. `sts` is what the domain says by MTA-STS, where it was asked.
pub fn would_pass(
    wanted: &Wanted<'_>,
    host: &HostFacts,
    sts: Option<&StsFacts>,
    peer: &PeerFacts,
) -> Result<String, String> {
    let asked = Asked {
        level: wanted.level,
        domain: wanted.domain.as_str(),
        names: wanted.names,
        pins: wanted.pins,
        min_tls13: wanted.min_tls13,
    };
    judge::host(wanted.level, host, sts).map_err(|(_, text)| text)?;
    judge::level(&asked, Some(host), peer).map(|met| met.text).map_err(|(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Dane, DaneVerdict, StartTls, StsMode, StsPolicy, TlsFacts, Tlsa, TlsaSet};

    fn peer(tls: StartTls) -> PeerFacts {
        PeerFacts {
            connection: 1,
            host: "mx.a.example".into(),
            address: "192.0.2.1:25".parse().unwrap(),
            tls,
            eight_bit: true,
            smtputf8: true,
            require_tls: false,
            size: None,
        }
    }

    fn tls(names: &[&str], chain_error: Option<&str>, dane: Option<DaneVerdict>) -> StartTls {
        StartTls::Done(TlsFacts {
            version: "TLSv1.2".into(),
            cipher: "C".into(),
            group: None,
            chain_error: chain_error.map(str::to_owned),
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            fingerprint: "aa".into(),
            key_fingerprint: "bb".into(),
            not_after: None,
            dane,
        })
    }

    fn passing(dane: Dane, sts: Option<&StsFacts>, tls: StartTls) -> Vec<&'static str> {
        let domain: Domain = "a.example".parse().unwrap();
        let host = HostFacts { name: "mx.a.example".into(), dane };
        let pins = ["bb".to_owned()];
        let peer = peer(tls);
        let passes = |level: &Level| {
            let wanted = Wanted { pins: &pins, ..Wanted::level(*level, &domain) };
            would_pass(&wanted, &host, sts, &peer).is_ok()
        };
        Level::ALL.into_iter().filter(passes).map(Level::as_str).collect()
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one table")]
    fn levels_pass_as_they_would_in_a_delivery() {
        let absent = || Dane::Absent("the zone is not signed".into());
        let record = Tlsa { usage: 3, selector: 1, matching: 1, data: vec![7; 32] };
        let records = || {
            Dane::Records(TlsaSet { base: "mx.a.example".into(), records: vec![record.clone()] })
        };
        let met = || Some(DaneVerdict::Met { record: "3 1 1 07…".into(), usage: 3 });
        let named = StsFacts::Policy(StsPolicy {
            id: "1".into(),
            mode: StsMode::Enforce,
            mx: vec!["*.a.example".into()],
            max_age: 86400,
        });
        let any = ["none", "opportunistic"];
        let tls_alone = ["none", "opportunistic", "encrypt", "fingerprint", "dane"];
        let own = ["mx.a.example"];
        for (dane, sts, tls, expected, reason) in [
            (absent(), None, StartTls::NotOffered, any.to_vec(), "no STARTTLS"),
            (
                absent(),
                None,
                tls(&own, Some("unknown issuer"), None),
                tls_alone.to_vec(),
                "private",
            ),
            (
                absent(),
                None,
                tls(&["mx.b.example"], None, None),
                tls_alone.to_vec(),
                "trusted, another's name",
            ),
            (
                absent(),
                Some(&named),
                tls(&own, None, None),
                vec![
                    "none",
                    "opportunistic",
                    "encrypt",
                    "fingerprint",
                    "verify",
                    "secure",
                    "dane",
                    "mta-sts",
                    "auto",
                ],
                "trusted, enforced by MTA-STS",
            ),
            (
                records(),
                None,
                tls(&[], Some("self-signed"), met()),
                vec![
                    "none",
                    "opportunistic",
                    "encrypt",
                    "fingerprint",
                    "dane",
                    "dane-only",
                    "auto",
                ],
                "DANE is the whole proof",
            ),
            (
                records(),
                None,
                tls(&own, None, Some(DaneVerdict::Unmet("another key".into()))),
                vec!["none", "opportunistic", "encrypt", "fingerprint", "verify", "secure"],
                "a key that the records do not name",
            ),
        ] {
            assert_eq!(passing(dane, sts, tls), expected, "{reason}");
        }
    }
}
