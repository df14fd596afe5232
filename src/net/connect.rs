//! Connecting to a next hop: TCP, greeting, STARTTLS as the requirement asks, the second EHLO, and
//! what was seen.

use crate::{
    clock::Clock,
    mail::Domain,
    net::{
        bounded,
        files::PolicyFiles,
        peer::{Link, Session, Stop},
        trust::{Handshake, Ours, Terms, TrustAnchors},
    },
    policy::{HostTrouble, PeerFacts, Requirement, StartTls, TlsFacts, Trouble, decide::TlsUse},
    smtp::{Client, ClientAction, ClientError},
    store::Attempt,
    wire::{Connector, Peer, Stream},
};
use async_trait::async_trait;
use ipnet::IpNet;
use rustls::pki_types::ServerName;
use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpStream, time::timeout};

/// How long each step may take (RFC 5321 §4.5.3.2 gives the least).
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// TCP connection.
    pub connect: Duration,
    /// Greeting and EHLO.
    pub greeting: Duration,
    /// TLS handshake.
    pub handshake: Duration,
    /// Reply to MAIL, RCPT and DATA (sent together where PIPELINING is offered).
    pub command: Duration,
    /// A block of content.
    pub block: Duration,
    /// Reply to the final dot. Too short a wait makes duplicates (RFC 1047).
    pub dot: Duration,
    /// QUIT.
    pub quit: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            greeting: Duration::from_secs(300),
            handshake: Duration::from_secs(60),
            command: Duration::from_secs(300),
            block: Duration::from_secs(180),
            dot: Duration::from_secs(600),
            quit: Duration::from_secs(5),
        }
    }
}

/// What every connection has in common.
#[derive(Debug, Clone)]
pub struct DialerSettings {
    /// Name in EHLO.
    pub hostname: Domain,
    /// `delivery.trust_anchors`
    pub anchors: TrustAnchors,
    /// Time-outs.
    pub timeouts: Timeouts,
    /// `delivery.refuse_networks`
    pub refuse_networks: Vec<IpNet>,
    /// Where a policy's relative `ca_file`, `client_certificate` and `client_key` lie: the policy
    /// folder.
    pub ca_dir: PathBuf,
}

/// What connections go over.
#[async_trait]
pub trait Transport: Send + Sync + std::fmt::Debug {
    /// A byte stream to that address.
    async fn open(&self, address: SocketAddr) -> io::Result<Box<dyn Stream>>;
}

/// The network of this machine.
#[derive(Debug)]
struct Tcp;

#[async_trait]
impl Transport for Tcp {
    async fn open(&self, address: SocketAddr) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(address).await?;
        let _ = stream.set_nodelay(true);
        Ok(Box::new(stream))
    }
}

/// Opens connections.
#[derive(Debug)]
pub struct Dialer {
    settings: DialerSettings,
    clock: Arc<dyn Clock>,
    transport: Arc<dyn Transport>,
    last: AtomicU64,
    files: PolicyFiles,
}

/// Why a host did not come to be a peer.
struct Failure {
    trouble: Trouble,
    detail: String,
    reply: Option<String>,
    tls: Option<TlsFacts>,
    /// TLS was refused or failed: `if-offered` may try plaintext on a new connection.
    fall_back: bool,
}

impl Failure {
    fn new(trouble: Trouble, detail: impl AsRef<str>) -> Self {
        let detail = bounded(detail.as_ref());
        Self { trouble, detail, reply: None, tls: None, fall_back: false }
    }

    fn or_plaintext(self) -> Self {
        Self { fall_back: true, ..self }
    }
}

/// A stop before TLS, or after it: the host is out of reach.
impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        let text = stop.text();
        match stop {
            Stop::Client(ClientError::Greeting(reply) | ClientError::Ehlo(reply)) => {
                let reply = Some(bounded(&reply.to_string()));
                Self { reply, ..Self::new(Trouble::Unreachable, text) }
            }
            Stop::Client(ClientError::StartTls(reply)) => {
                let reply = Some(bounded(&reply.to_string()));
                Self { reply, ..Self::new(Trouble::StartTlsRefused, text) }.or_plaintext()
            }
            // Somebody put words into the plaintext: nothing more goes to this host now, in no way.
            Stop::Client(ClientError::Injection) => Self::new(Trouble::Handshake, text),
            Stop::Client(ClientError::Protocol(_) | ClientError::Closed(_))
            | Stop::TimedOut(_)
            | Stop::Unexpected => Self::new(Trouble::Unreachable, text),
        }
    }
}

impl Dialer {
    /// A dialer; connections are numbered from 1.
    pub fn new(settings: DialerSettings, clock: Arc<dyn Clock>) -> Self {
        Self::over(Arc::new(Tcp), settings, clock)
    }

    /// The same over another transport than TCP.
    pub fn over(
        transport: Arc<dyn Transport>,
        settings: DialerSettings,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let files = PolicyFiles::new(settings.ca_dir.clone());
        Self { settings, clock, transport, last: AtomicU64::new(0), files }
    }

    async fn dial(
        &self,
        host: &str,
        address: SocketAddr,
        requirement: &Requirement,
    ) -> Result<Link, Failure> {
        if !requirement.configured
            && let Some(failure) = self.refused(address.ip())
        {
            return Err(failure);
        }
        // Our own files come before the first word to the host: it is not to blame for them.
        let terms = match requirement.tls {
            TlsUse::Never => None,
            TlsUse::IfOffered | TlsUse::Always => Some(self.terms(requirement).await?),
        };
        match self.once(host, address, requirement, terms).await {
            Err(failure) if failure.fall_back && requirement.tls == TlsUse::IfOffered => {
                tracing::info!(host, %address, error = failure.detail,
                    "TLS failed; plaintext on a new connection, as the level allows");
                self.once(host, address, requirement, None).await
            }
            outcome => outcome,
        }
    }

    /// `delivery.refuse_networks` keeps the gateway off this address.
    fn refused(&self, ip: IpAddr) -> Option<Failure> {
        let ip = ip.to_canonical();
        let network = self.settings.refuse_networks.iter().find(|network| network.contains(&ip))?;
        Some(Failure::new(
            Trouble::NoAddress,
            format!("{ip} lies in {network} of delivery.refuse_networks"),
        ))
    }

    async fn open(&self, address: SocketAddr) -> Result<Box<dyn Stream>, Failure> {
        let limit = self.settings.timeouts.connect;
        let why = match timeout(limit, self.transport.open(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no connection in time".to_owned(),
        };
        Err(Failure::new(Trouble::Unreachable, format!("{address}: {why}")))
    }

    /// `terms`: of TLS, where it is used.
    async fn once(
        &self,
        host: &str,
        address: SocketAddr,
        requirement: &Requirement,
        terms: Option<Terms>,
    ) -> Result<Link, Failure> {
        let stream = self.open(address).await?;
        let client = Client::new(self.settings.hostname.clone());
        let mut session = Session::new(client, stream, self.settings.timeouts);
        ready(&mut session).await?;
        let offered = session.client.extensions().starttls;
        let (session, tls) = match terms {
            None => (session, StartTls::NotTried),
            Some(terms) if offered => {
                let name = server_name(sni(host, requirement), address);
                self.secure(session, name, terms).await?
            }
            Some(_) if requirement.tls == TlsUse::Always => {
                session.quit().await;
                return Err(Failure::new(Trouble::NoStartTls, "STARTTLS is not offered"));
            }
            Some(_) => (session, StartTls::NotOffered),
        };
        let facts = self.facts(&session, host, address, tls);
        Ok(Link { session, facts })
    }

    /// RFC 3207: STARTTLS, the handshake, and all that was said before it forgotten.
    async fn secure(
        &self,
        mut session: Session,
        name: ServerName<'static>,
        terms: Terms,
    ) -> Result<(Session, StartTls), Failure> {
        let handshake = Handshake::new(terms, Arc::clone(&self.clock))
            .map_err(|error| Failure::new(Trouble::Handshake, error.to_string()))?;
        session.client.start_tls();
        let answer = session.step(self.settings.timeouts.command, "STARTTLS").await;
        match answer.map_err(no_start_tls)? {
            ClientAction::StartTls => {}
            ClientAction::Ready
            | ClientAction::Send(_)
            | ClientAction::SendContent
            | ClientAction::Done(_)
            | ClientAction::Failed(_) => return Err(Stop::Unexpected.into()),
        }
        let (client, plain, timeouts) = session.into_parts();
        let ours = handshake.ours();
        let running = handshake.run(plain, name);
        let (stream, facts) = match timeout(timeouts.handshake, running).await {
            Ok(Ok(secured)) => secured,
            Ok(Err(error)) => return Err(no_handshake(&error.to_string(), &ours)),
            Err(_) => {
                let detail = "TLS handshake: no answer in time";
                return Err(Failure::new(Trouble::Handshake, detail).or_plaintext());
            }
        };
        let mut session = Session::new(client, Box::new(stream), timeouts);
        session.client.tls_started();
        if let Err(stop) = ready(&mut session).await {
            let failure = broken_off(stop, &session, &ours);
            return Err(Failure { tls: Some(facts), ..failure });
        }
        Ok((session, StartTls::Done(facts)))
    }

    async fn terms(&self, requirement: &Requirement) -> Result<Terms, Failure> {
        let unusable = |error: String| Failure::new(Trouble::Ours, error);
        // A policy's anchors replace the common ones, and never add to them.
        let anchors = match &requirement.ca_file {
            Some(path) => self.files.anchors(path).await.map_err(unusable)?,
            None => self.settings.anchors.clone(),
        };
        let identity = match &requirement.client {
            Some(client) => Some(self.files.identity(client).await.map_err(unusable)?),
            None => None,
        };
        let (min_tls13, tlsa) = (requirement.min_tls13, requirement.tlsa.clone());
        Ok(Terms { anchors, min_tls13, tlsa, identity })
    }

    fn facts(
        &self,
        session: &Session,
        host: &str,
        address: SocketAddr,
        tls: StartTls,
    ) -> PeerFacts {
        let offered = session.client.extensions();
        PeerFacts {
            connection: self.last.fetch_add(1, Ordering::Relaxed) + 1,
            host: host.to_owned(),
            address,
            tls,
            eight_bit: offered.eight_bit,
            smtputf8: offered.smtputf8,
            require_tls: offered.require_tls,
            size: offered.size,
        }
    }
}

#[async_trait]
impl Connector for Dialer {
    async fn connect(
        &self,
        host: &str,
        address: SocketAddr,
        requirement: &Requirement,
    ) -> Result<Box<dyn Peer>, (HostTrouble, Box<Attempt>)> {
        let at = self.clock.now();
        match self.dial(host, address, requirement).await {
            Ok(link) => Ok(Box::new(link)),
            Err(failure) => {
                let attempt = Attempt {
                    at,
                    mx: Some(host.to_owned()),
                    address: Some(address.to_string()),
                    tls: failure.tls,
                    verified: false,
                    reply: failure.reply,
                    trouble: Some(failure.trouble),
                    error: Some(failure.detail.clone()),
                    dns: None,
                };
                let trouble = HostTrouble {
                    host: host.to_owned(),
                    trouble: failure.trouble,
                    detail: failure.detail,
                };
                Err((trouble, Box::new(attempt)))
            }
        }
    }
}

/// What came in place of the 220 to STARTTLS. However a peer fails there, it is its TLS that failed;
/// only words put into the plaintext lead nowhere.
fn no_start_tls(stop: Stop) -> Failure {
    let injected = matches!(stop, Stop::Client(ClientError::Injection));
    let failure = Failure::from(stop);
    if injected || failure.fall_back {
        return failure;
    }
    Failure { trouble: Trouble::Handshake, ..failure }.or_plaintext()
}

fn no_handshake(error: &str, ours: &Ours) -> Failure {
    let why = ours.why_refused().map(|why| format!("; {why}")).unwrap_or_default();
    Failure::new(Trouble::Handshake, format!("TLS handshake: {error}{why}")).or_plaintext()
}

/// What broke inside TLS. It stood, so this is no reason for plaintext; but a host that asked for
/// our certificate and breaks off before the first reply refuses the handshake: TLS 1.3 lets it say
/// so only after our side is done.
fn broken_off(stop: Stop, session: &Session, ours: &Ours) -> Failure {
    match &stop {
        Stop::Client(ClientError::Closed(text)) if ours.why_refused().is_some() => {
            no_handshake(session.broken().unwrap_or(text), ours)
        }
        Stop::Client(_) | Stop::TimedOut(_) | Stop::Unexpected => {
            Failure { fall_back: false, ..Failure::from(stop) }
        }
    }
}

/// Greeting and EHLO are done, or the EHLO inside TLS.
async fn ready(session: &mut Session) -> Result<(), Stop> {
    let limit = session.greeting_limit();
    match session.step(limit, "greeting or EHLO").await? {
        ClientAction::Ready => Ok(()),
        ClientAction::StartTls
        | ClientAction::Send(_)
        | ClientAction::SendContent
        | ClientAction::Done(_)
        | ClientAction::Failed(_) => Err(Stop::Unexpected),
    }
}

/// RFC 7672 §8.1: with TLSA records SNI is their base domain.
fn sni<'a>(host: &'a str, requirement: &'a Requirement) -> &'a str {
    requirement.tlsa.as_ref().map_or(host, |set| set.base.trim_end_matches('.'))
}

/// The name for SNI; a host that is an address, or no DNS name, gets none.
fn server_name(host: &str, address: SocketAddr) -> ServerName<'static> {
    match ServerName::try_from(host.to_owned()) {
        Ok(name) => name,
        Err(_) => ServerName::from(address.ip()),
    }
}

#[cfg(test)]
mod tests;
