//! What a decision is made from: whose mail, what the DNS said, what a host proved.

use crate::{
    mail::Domain,
    policy::{
        Level, NextHop, PolicySet, RuleVerdict,
        dane::{Dane, DaneVerdict},
        sts::StsFacts,
    },
    seal::header::Needs,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Whose mail is decided on.
#[derive(Debug, Clone, Copy)]
pub enum Question<'a> {
    /// A customer's message to an outside domain.
    Protected(&'a RuleVerdict),
    /// A notice or code of ours at `notification.level`: never an envelope.
    Notice(Level),
    /// Anything for our own domains: `inside.host` at `inside.tls`.
    Inside(&'a NextHop, Level),
}
/// What is known so far.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Whose mail.
    pub question: Question<'a>,
    /// The policies in force.
    pub set: &'a PolicySet,
    /// The recipients' domain.
    pub domain: &'a Domain,
    /// What the message needs of a next hop, and its size.
    pub needs: Needs,
    /// Size in bytes.
    pub size: u64,
    /// Now.
    pub now: Timestamp,
    /// When the direct way was first tried without success, if it was.
    pub first_failed: Option<Timestamp>,
    /// The time to deliver is over (`delivery.give_up`), by a clock that can be relied on.
    pub overdue: bool,
    /// The next hop's MX set, once looked up.
    pub mx: Option<&'a MxFacts>,
    /// What the domain says by MTA-STS, once looked up.
    pub sts: Option<&'a StsFacts>,
    /// The host that is next, once DNS was asked about it.
    pub host: Option<&'a HostFacts>,
    /// Hosts tried on this attempt without success, in order.
    pub tried: &'a [HostTrouble],
    /// The host on whose connection we stand, after the handshake and the second EHLO.
    pub peer: Option<&'a PeerFacts>,
    /// All hosts of the set have been tried.
    pub exhausted: bool,
}
/// The answer of the MX look-up (RFC 5321 §5.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MxFacts {
    /// Hosts in the order to try (preference, shuffled among equals; implicit MX included), and
    /// what the answer is worth.
    Hosts(Vec<MxHost>, Dnssec),
    /// The domain does not exist.
    NoDomain,
    /// It exists, without MX and address.
    NoHost,
    /// Null MX (RFC 7505).
    Null,
    /// SERVFAIL, time-out, refused, malformed: not known now.
    Trouble(String),
    /// Every host lies in `delivery.refuse_networks` or is no host.
    Refused(String),
}
/// What an answer of DNS is worth (RFC 4033 §5). A bogus one is trouble, and no answer at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dnssec {
    /// Signed, from the trust anchor down.
    Secure,
    /// Proved to lie in an unsigned zone.
    Insecure,
    /// Not checked: `dns.dnssec` is off, or no name server here can do it.
    Unchecked,
}
/// A mail host, and what DNS says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// Its name as in the MX record.
    pub name: String,
    /// What it publishes for DANE.
    pub dane: Dane,
}
/// One exchanger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MxHost {
    /// Its name as in the MX record (lower case, no trailing dot), or an address.
    pub name: String,
    /// Preference.
    pub preference: u16,
}
/// How the STARTTLS step ended.
#[expect(clippy::large_enum_variant, reason = "there is one for a connection, seldom moved")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StartTls {
    /// Level `none`: not tried.
    NotTried,
    /// EHLO did not offer it.
    NotOffered,
    /// Offered, and TLS is up.
    Done(TlsFacts),
}
/// What the handshake showed. The chain was judged without regard to the name; names are judged
/// here in policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsFacts {
    /// `TLSv1.3`
    pub version: String,
    /// Cipher suite.
    pub cipher: String,
    /// Key exchange group.
    pub group: Option<String>,
    /// `None`: the chain leads to a trust anchor, is in date and for servers. Otherwise why not.
    pub chain_error: Option<String>,
    /// DNS (and IP) names of the certificate's SAN, lower case.
    pub names: Vec<String>,
    /// SHA-256 of the certificate, hex.
    pub fingerprint: String,
    /// SHA-256 of its public key (SPKI), hex.
    pub key_fingerprint: String,
    /// End of validity.
    pub not_after: Option<Timestamp>,
    /// What the host's TLSA records say of the certificate, where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dane: Option<DaneVerdict>,
}
/// A connection ready for MAIL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerFacts {
    /// Number of the connection in this process: a clearance is good for this one only.
    pub connection: u64,
    /// MX host.
    pub host: String,
    /// Address connected to.
    pub address: SocketAddr,
    /// TLS.
    pub tls: StartTls,
    /// Offered in the EHLO that counts (the one inside TLS, where there is TLS).
    pub eight_bit: bool,
    /// SMTPUTF8.
    pub smtputf8: bool,
    /// REQUIRETLS.
    pub require_tls: bool,
    /// SIZE limit; `None`: not announced or 0.
    pub size: Option<u64>,
}
/// Why a host did not take part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostTrouble {
    /// MX host.
    pub host: String,
    /// What.
    pub trouble: Trouble,
    /// Detail for the record: reply or error text, bounded.
    pub detail: String,
}
/// Kinds of trouble with a host before content could move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trouble {
    /// Its address could not be looked up now.
    Dns,
    /// No address, or one in a refused network.
    NoAddress,
    /// Connection refused, timed out, dropped; greeting or EHLO refused.
    Unreachable,
    /// STARTTLS not offered.
    NoStartTls,
    /// STARTTLS refused with a reply.
    StartTlsRefused,
    /// The handshake failed.
    Handshake,
    /// The certificate or the TLS version does not meet the level.
    Unproven,
    /// No usable TLSA records under DNSSEC.
    NoDane,
    /// No enforced MTA-STS policy names this host.
    NoSts,
    /// The message can't be carried: SIZE.
    TooBig,
    /// The message can't be carried: 8BITMIME.
    EightBit,
    /// The message can't be carried: SMTPUTF8.
    Utf8,
    /// REQUIRETLS was asked and is not offered.
    NoRequireTls,
    /// A file of ours that the connection needs can't be used; the host was not asked.
    Ours,
}
