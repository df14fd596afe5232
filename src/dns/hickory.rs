//! Look-ups by hickory-resolver: the machine's or configured name servers, absolute names only.
//!
//! Doubt never becomes an answer: only NXDOMAIN and an empty NOERROR from a server say that
//! something does not exist. SERVFAIL, REFUSED, a time-out, a referral, a loop of aliases or bytes
//! that make no sense are trouble, and trouble defers.

use crate::{
    dns::{Addresses, Resolver, Texts},
    mail::Domain,
    policy::{Dane, Dnssec, MxFacts, MxHost},
};
use async_trait::async_trait;
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{DnsError, NetError, NoRecords, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, RecordType},
    },
    system_conf::read_system_conf,
};
use rand::seq::SliceRandom;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::time::timeout;

/// Exchangers of a domain that are used; a longer set is cut after sorting.
const MAX_HOSTS: usize = 20;
/// Addresses of a host that are used.
const MAX_ADDRESSES: usize = 8;
/// Aliases followed before a chain counts as a loop.
const MAX_ALIASES: usize = 8;
/// Answers kept in memory.
const CACHED_ANSWERS: u64 = 8192;
/// The longest that an answer is believed, whatever its TTL: changes show within the hour.
const KEEP: Duration = Duration::from_secs(3600);
/// The longest that "does not exist" is believed (RFC 2308 §5 allows hours; fresh domains deserve
/// less).
const KEEP_NEGATIVE: Duration = Duration::from_secs(300);
/// One try at one name server.
const TRY: Duration = Duration::from_secs(3);
/// One whole look-up.
const WHOLE: Duration = Duration::from_secs(10);

/// The name servers could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("name servers: {0}")]
pub struct ResolverError(String);

/// Asks the name servers given, or the system's.
pub struct HickoryResolver {
    resolver: TokioResolver,
    ipv6: bool,
    whole: Duration,
}

impl fmt::Debug for HickoryResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HickoryResolver").field("ipv6", &self.ipv6).finish_non_exhaustive()
    }
}

/// What one question brought.
enum Answer<T> {
    Found(T),
    /// NOERROR without such a record.
    NoData,
    /// NXDOMAIN.
    NoName,
    Trouble(String),
}

impl HickoryResolver {
    /// Asks `nameservers`; empty: those of `/etc/resolv.conf`, and as resolv.conf(5) has it the one
    /// on this machine where it names none. Of that file only the servers count: no search list, no
    /// `ndots`, no hosts file.
    pub fn new(nameservers: &[SocketAddr], ipv6: bool) -> Result<Self, ResolverError> {
        let servers = if nameservers.is_empty() {
            system_servers()
        } else {
            nameservers.iter().map(|address| server(*address)).collect()
        };
        let config = ResolverConfig::from_name_servers(servers);
        let resolver = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options())
            .build()
            .map_err(|e| ResolverError(e.to_string()))?;
        Ok(Self { resolver, ipv6, whole: WHOLE })
    }

    async fn ask(&self, name: &Name, record: RecordType) -> Answer<Vec<RData>> {
        match self.resolver.lookup(name.clone(), record).await {
            Ok(lookup) => {
                let found: Vec<RData> = lookup
                    .answers()
                    .iter()
                    .filter(|r| r.record_type() == record)
                    .map(|r| r.data.clone())
                    .collect();
                if found.is_empty() { Answer::NoData } else { Answer::Found(found) }
            }
            Err(error) => self.negative(name, &error).await,
        }
    }

    /// An empty answer counts only if it is one: no referral, no odd code, and no loop of aliases
    /// behind it.
    async fn negative<T>(&self, name: &Name, error: &NetError) -> Answer<T> {
        let NetError::Dns(DnsError::NoRecordsFound(none)) = error else {
            return Answer::Trouble(describe(name, error));
        };
        if let Some(trouble) = not_an_answer(name, none) {
            return Answer::Trouble(trouble);
        }
        // hickory gives up on a long chain of aliases with an empty answer that has no SOA.
        if none.soa.is_none() && self.aliases_loop(name).await {
            return Answer::Trouble(format!("{name}: aliases (CNAME) lead in a circle"));
        }
        if none.response_code == ResponseCode::NXDomain { Answer::NoName } else { Answer::NoData }
    }

    async fn aliases_loop(&self, name: &Name) -> bool {
        let mut name = name.clone();
        for _ in 0..MAX_ALIASES {
            let Ok(lookup) = self.resolver.lookup(name, RecordType::CNAME).await else {
                return false;
            };
            let next = lookup.answers().iter().find_map(|r| match_cname(&r.data));
            let Some(next) = next else { return false };
            name = next;
        }
        true
    }

    async fn mx_of(&self, domain: &str) -> MxFacts {
        let Some(name) = absolute(domain) else {
            return MxFacts::Trouble(format!("{domain} is no name that DNS can be asked for"));
        };
        match self.ask(&name, RecordType::MX).await {
            Answer::Found(records) => exchangers(domain, &records),
            // Some servers answer NXDOMAIN for a name that has an address: the address is asked in
            // both cases.
            Answer::NoData => self.implicit(domain, &name, false).await,
            Answer::NoName => self.implicit(domain, &name, true).await,
            Answer::Trouble(text) => MxFacts::Trouble(text),
        }
    }

    /// RFC 5321 §5.1: without MX, the domain itself is the exchanger, if it has an address.
    async fn implicit(&self, domain: &str, name: &Name, no_name: bool) -> MxFacts {
        let (v4, v6) =
            tokio::join!(self.ask(name, RecordType::A), self.ask(name, RecordType::AAAA));
        match (v4, v6) {
            (Answer::Found(_), _) | (_, Answer::Found(_)) => MxFacts::Hosts(
                vec![MxHost { name: domain.to_owned(), preference: 0 }],
                Dnssec::Unchecked,
            ),
            (Answer::Trouble(text), _) | (_, Answer::Trouble(text)) => MxFacts::Trouble(text),
            (Answer::NoName, Answer::NoName) if no_name => MxFacts::NoDomain,
            (Answer::NoData | Answer::NoName, Answer::NoData | Answer::NoName) => MxFacts::NoHost,
        }
    }

    async fn addresses_of(&self, host: &str) -> Addresses {
        let Some(name) = absolute(host) else { return Addresses::None };
        let (v4, v6) =
            tokio::join!(self.ask(&name, RecordType::A), self.ask(&name, RecordType::AAAA));
        let (v4, trouble4) = split(v4);
        let (v6, trouble6) = split(v6);
        let hidden = !self.ipv6 && v4.is_empty() && !v6.is_empty();
        let found = interleave(v4, if self.ipv6 { v6 } else { Vec::new() });
        match trouble4.or(trouble6) {
            _ if !found.is_empty() => Addresses::Found(found),
            Some(text) => Addresses::Trouble(text),
            // The host exists; that we do not use IPv6 is no reason to return mail for it.
            None if hidden => Addresses::Trouble(format!(
                "{host} has IPv6 addresses only, and delivery.ipv6 is off"
            )),
            None => Addresses::None,
        }
    }
}

#[async_trait]
impl Resolver for HickoryResolver {
    async fn mx(&self, domain: &Domain) -> MxFacts {
        // RFC 5321 §4.1.3: an address literal names its host.
        if let Some(address) = domain.literal() {
            return MxFacts::Hosts(
                vec![MxHost { name: address.to_string(), preference: 0 }],
                Dnssec::Unchecked,
            );
        }
        match timeout(self.whole, self.mx_of(domain.as_str())).await {
            Ok(facts) => facts,
            Err(_) => MxFacts::Trouble(format!("{domain} MX: no answer in time")),
        }
    }

    async fn addresses(&self, host: &str) -> Addresses {
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Addresses::Found(vec![address]);
        }
        match timeout(self.whole, self.addresses_of(host)).await {
            Ok(addresses) => addresses,
            Err(_) => Addresses::Trouble(format!("{host} A/AAAA: no answer in time")),
        }
    }

    async fn tlsa(&self, _host: &str, _port: u16) -> Dane {
        Dane::Unchecked
    }

    async fn texts(&self, name: &str) -> Texts {
        let Some(name) = absolute(name) else { return Texts::None };
        match self.ask(&name, RecordType::TXT).await {
            Answer::Found(records) => Texts::Found(
                records
                    .iter()
                    .filter_map(|data| {
                        let RData::TXT(text) = data else { return None };
                        let joined = text.txt_data.concat();
                        Some(String::from_utf8_lossy(&joined).into_owned())
                    })
                    .collect(),
            ),
            Answer::NoData | Answer::NoName => Texts::None,
            Answer::Trouble(text) => Texts::Trouble(text),
        }
    }
}

fn options() -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.ndots = 0;
    options.timeout = TRY;
    options.attempts = 2;
    options.use_hosts_file = ResolveHosts::Never;
    options.cache_size = CACHED_ANSWERS;
    options.positive_max_ttl = Some(KEEP);
    options.negative_max_ttl = Some(KEEP_NEGATIVE);
    options.max_active_requests = 512;
    options
}

fn server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.to_vec())
}

fn system_servers() -> Vec<NameServerConfig> {
    match read_system_conf() {
        Ok((config, _)) if !config.name_servers.is_empty() => config.name_servers,
        Ok(_) => vec![local_server()],
        Err(error) => {
            tracing::warn!(%error, "no name server in /etc/resolv.conf; asking 127.0.0.1:53");
            vec![local_server()]
        }
    }
}

fn local_server() -> NameServerConfig {
    server((Ipv4Addr::LOCALHOST, 53).into())
}

/// The absolute form, so that no search list is tried.
fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

fn match_cname(data: &RData) -> Option<Name> {
    if let RData::CNAME(target) = data { Some(target.0.clone()) } else { None }
}

/// Why an empty answer says nothing about the name.
fn not_an_answer(name: &Name, none: &NoRecords) -> Option<String> {
    // RFC 2308 §2.2: name servers without SOA in an empty answer are a referral, not "no data".
    if none.soa.is_none() && none.ns.is_some() {
        return Some(format!("{name}: the name server refers to others instead of answering"));
    }
    let answered = matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError);
    (!answered).then(|| format!("{name}: {}", none.response_code))
}

fn describe(name: &Name, error: &NetError) -> String {
    let mut text = format!("{name}: {error}");
    text.truncate(text.floor_char_boundary(300));
    text
}

/// RFC 5321 §5.1: by preference, equals shuffled; RFC 7505: a lone `.` takes no mail.
fn exchangers(domain: &str, records: &[RData]) -> MxFacts {
    let mut hosts = Vec::new();
    for data in records {
        let RData::MX(mx) = data else { continue };
        if mx.exchange.is_root() && records.len() == 1 {
            return MxFacts::Null;
        }
        if let Some(name) = host_name(&mx.exchange) {
            hosts.push(MxHost { name, preference: mx.preference });
        }
    }
    if hosts.is_empty() {
        return MxFacts::Refused(format!("no MX record of {domain} names a host"));
    }
    hosts.shuffle(&mut rand::rng());
    hosts.sort_by_key(|host| host.preference);
    hosts.truncate(MAX_HOSTS);
    MxFacts::Hosts(hosts, Dnssec::Unchecked)
}

/// The exchanger's name, lower case, without its dot; `None` for the root, an address written as a
/// name, and what no host is called.
fn host_name(exchange: &Name) -> Option<String> {
    let text = exchange.to_ascii().to_ascii_lowercase();
    let name = text.strip_suffix('.').unwrap_or(&text);
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    let host = !name.is_empty() && plain && name.parse::<IpAddr>().is_err();
    host.then(|| name.to_owned())
}

fn split(answer: Answer<Vec<RData>>) -> (Vec<IpAddr>, Option<String>) {
    match answer {
        Answer::Found(records) => (records.iter().filter_map(RData::ip_addr).collect(), None),
        Answer::NoData | Answer::NoName => (Vec::new(), None),
        Answer::Trouble(text) => (Vec::new(), Some(text)),
    }
}

/// RFC 5321 §5.1 leaves the order open: shuffled within a family, families in turn, so that a
/// broken one costs one time-out and not all.
fn interleave(mut v4: Vec<IpAddr>, mut v6: Vec<IpAddr>) -> Vec<IpAddr> {
    v4.shuffle(&mut rand::rng());
    v6.shuffle(&mut rand::rng());
    let (mut v4, mut v6) = (v4.into_iter(), v6.into_iter());
    let mut all = Vec::new();
    while all.len() < MAX_ADDRESSES {
        let pair = [v6.next(), v4.next()];
        if pair.iter().all(Option::is_none) {
            break;
        }
        all.extend(pair.into_iter().flatten());
    }
    all
}

#[cfg(test)]
mod tests;
