//! The stage: a folder for a while, certificates, a name server, three mail hosts of others, and
//! the gateway.

use super::{
    dns::Zone,
    host::Host,
    scratch::Scratch,
    tell::{Failure, Told, within},
};
use crate::{
    clock::{Clock, SystemClock},
    config::Config,
    control::{Answer, Request, client, view::TraceView},
    daemon::{Gateway, StartError},
    mail::QueueId,
    net::{self, BindError, TlsServer, TrustAnchors},
};
use jiff::{ToSpan, Zoned, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, date_time_ymd,
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

/// The partner's mail host.
pub(super) const PARTNER_HOST: &str = "mx.clinic.example";
const PARTNER_IP: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);
const STRANGER_HOST: &str = "mail.stranger.example";
const STRANGER_IP: Ipv4Addr = Ipv4Addr::new(127, 0, 2, 1);
const INSIDE_HOST: &str = "inside.example.org";
const INSIDE_IP: Ipv4Addr = Ipv4Addr::new(127, 0, 3, 1);

const PARTNER_POLICY: &str =
    "# The clinic gets its mail directly, from a host that proves to be the clinic's.
[[partner]]
domains = [\"clinic.example\"]
level   = \"secure\"
";
const DEFAULT_POLICY: &str = "# Everybody else reads at the portal.
[default]
level = \"envelope\"
";

/// How often a port that somebody else took meanwhile is given another try.
const TRIES: usize = 20;
/// How often the gateway is asked whether a message has come to its end.
const PERIOD: Duration = Duration::from_millis(20);

/// All that takes part.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) partner: Host,
    pub(super) stranger: Host,
    /// Takes replies and bounces for our own domain.
    pub(super) inside: Host,
    pub(super) smtp: SocketAddr,
    pub(super) portal: SocketAddr,
    /// The demo's own certificate authority.
    pub(super) anchors: TrustAnchors,
    /// Where the gateway keeps everything.
    pub(super) data: PathBuf,
    gateway: Gateway,
    stop: CancellationToken,
    /// The last to go.
    _scratch: Scratch,
}

impl Stage {
    pub(super) async fn open() -> Told<Self> {
        let scratch = Scratch::make()?;
        let stop = CancellationToken::new();
        let certificates = Certificates::make(&scratch)?;
        let [partner, stranger, inside] = bind_hosts()?;
        let partner = Host::open(PARTNER_HOST, partner, Some(certificates.tls), stop.clone())?;
        let stranger = Host::open(STRANGER_HOST, stranger, None, stop.clone())?;
        let inside = Host::open(INSIDE_HOST, inside, None, stop.clone())?;
        let mut zone = Zone::default();
        zone.add("clinic.example", PARTNER_HOST, PARTNER_IP)?;
        zone.add("stranger.example", STRANGER_HOST, STRANGER_IP)?;
        let dns = zone.serve(stop.clone()).await?;
        scratch.write("policies/partner.toml", PARTNER_POLICY)?;
        scratch.write("policies/default.toml", DEFAULT_POLICY)?;
        let gateway = start(&scratch, dns, inside.address).await?;
        let first = |list: &[SocketAddr]| {
            list.first().copied().ok_or_else(|| Failure::new("the gateway listens nowhere"))
        };
        Ok(Self {
            smtp: first(&gateway.listeners.smtp)?,
            portal: first(&gateway.listeners.portal)?,
            anchors: certificates.anchors,
            data: scratch.path().join("data"),
            partner,
            stranger,
            inside,
            gateway,
            stop,
            _scratch: scratch,
        })
    }

    /// The gateway drains, the hosts end, the folder goes.
    pub(super) async fn close(self) {
        self.gateway.stop().await;
        self.stop.cancel();
    }

    /// The control socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.data.join("control.sock")
    }

    /// What `restante trace` knows of a message once each of its recipients has an outcome.
    pub(super) async fn trace(&self, id: QueueId) -> Told<TraceView> {
        let mut rhythm = interval(PERIOD);
        rhythm.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let settled = async {
            loop {
                rhythm.tick().await;
                let life = self.ask(id).await?;
                let open = |outcome: &str| ["queued", "deferred", "held"].contains(&outcome);
                if !life.recipients.iter().any(|r| open(&r.outcome)) {
                    return Ok(life);
                }
            }
        };
        within(&format!("the end of {id}"), settled).await?
    }

    async fn ask(&self, id: QueueId) -> Told<TraceView> {
        let wrong = |text: String| Failure::new(format!("trace {id}: {text}"));
        let (socket, request) = (self.socket(), Request::Trace { query: id.to_string() });
        let asked = tokio::task::spawn_blocking(move || client::ask(&socket, &request)).await;
        let answer = asked.map_err(|e| wrong(e.to_string()))?.map_err(|e| wrong(e.to_string()))?;
        match answer {
            Answer::Ok(life) => serde_json::from_value(life).map_err(|e| wrong(e.to_string())),
            Answer::No { text, .. } => Err(wrong(text)),
        }
    }
}

/// The partner's certificate, and who vouches for it.
struct Certificates {
    anchors: TrustAnchors,
    tls: Arc<TlsServer>,
}

impl Certificates {
    /// Good for yesterday, today and tomorrow.
    fn make(scratch: &Scratch) -> Told<Self> {
        let wrong = Failure::at::<rcgen::Error>;
        let mut params = CertificateParams::new(Vec::new()).map_err(wrong("CA"))?;
        params.distinguished_name.push(DnType::CommonName, "Restante demo, a throw-away CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        short_lived(&mut params)?;
        let key = KeyPair::generate().map_err(wrong("CA"))?;
        let ca = CertifiedIssuer::self_signed(params, key).map_err(wrong("CA"))?;
        let names = vec![PARTNER_HOST.to_owned()];
        let mut params = CertificateParams::new(names).map_err(wrong(PARTNER_HOST))?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        short_lived(&mut params)?;
        let key = KeyPair::generate().map_err(wrong(PARTNER_HOST))?;
        let leaf = params.signed_by(&key, &ca).map_err(wrong(PARTNER_HOST))?;
        scratch.write("ca.pem", &ca.pem())?;
        let certificate = scratch.write("partner.pem", &leaf.pem())?;
        let key = scratch.write("partner.key", &key.serialize_pem())?;
        Ok(Self {
            anchors: TrustAnchors::from_pem(ca.pem().as_bytes(), "ca.pem")
                .map_err(Failure::at("CA"))?,
            tls: Arc::new(TlsServer::load(&certificate, &key).map_err(Failure::at("partner"))?),
        })
    }
}

fn short_lived(params: &mut CertificateParams) -> Told {
    let today = Zoned::new(SystemClock.now(), TimeZone::UTC).date();
    let day = |offset: i8| {
        let date = today.checked_add(offset.days()).map_err(Failure::at("the clock"))?;
        let field = |value: i8| u8::try_from(value).map_err(Failure::at("the clock"));
        Ok(date_time_ymd(date.year().into(), field(date.month())?, field(date.day())?))
    };
    (params.not_before, params.not_after) = (day(-1)?, day(2)?);
    Ok(())
}

/// The hosts have an address each and one port in common, as port 25 is elsewhere.
fn bind_hosts() -> Told<[TcpListener; 3]> {
    let wrong = |error: BindError| {
        Failure::new(format!("{error}; the demo needs all of 127.0.0.0/8, as Linux has it"))
    };
    for _ in 0..TRIES {
        let partner = net::bind((PARTNER_IP, 0).into()).map_err(wrong)?;
        let port = partner.local_addr().map_err(Failure::at(PARTNER_HOST))?.port();
        let stranger = net::bind((STRANGER_IP, port).into());
        let inside = net::bind((INSIDE_IP, port).into());
        match (stranger, inside) {
            (Ok(stranger), Ok(inside)) => return Ok([partner, stranger, inside]),
            (Err(BindError::Taken(_)), _) | (_, Err(BindError::Taken(_))) => {}
            (Err(error), _) | (_, Err(error)) => return Err(wrong(error)),
        }
    }
    Err(Failure::new("no port is free on 127.0.1.1, 127.0.2.1 and 127.0.3.1 alike"))
}

/// Starts the gateway. Links need the portal's port beforehand, so it is a free one that may be
/// taken a moment later.
async fn start(scratch: &Scratch, dns: SocketAddr, inside: SocketAddr) -> Told<Gateway> {
    let mut taken = String::new();
    for _ in 0..TRIES {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let portal = free.and_then(|l| l.local_addr()).map_err(Failure::at("the portal's port"))?;
        let path = scratch.write("restante.toml", &configuration(dns, inside, portal))?;
        let config = Config::load(Some(&path)).map_err(Failure::at("the demo's configuration"))?;
        match Box::pin(Gateway::start(&config, Arc::new(SystemClock))).await {
            Ok(gateway) => return Ok(gateway),
            Err(StartError::Unavailable(text)) => taken = text,
            Err(error) => return Err(Failure::new(format!("the gateway does not start: {error}"))),
        }
    }
    Err(Failure::new(format!("the gateway does not start: {taken}")))
}

fn configuration(dns: SocketAddr, inside: SocketAddr, portal: SocketAddr) -> String {
    let port = inside.port();
    format!(
        r#"hostname   = "gw.example.org"
data_dir   = "data"
policy_dir = "policies"
[organization]
name       = "Example Health"
domains    = ["example.org"]
postmaster = "postmaster@example.org"
support    = "helpdesk@example.org"
[smtp]
listen = ["127.0.0.1:0"]
[inside]
host = "{inside}"
[dns]
nameservers = ["{dns}"]
dnssec      = "off"
[delivery]
port            = {port}
trust_anchors   = "ca.pem"
ipv6            = false
refuse_networks = []
watch           = "0s"
[notification]
from = "secure@example.org"
[portal]
listen = "{portal}"
url    = "http://{portal}"
[log]
level = "error"
"#
    )
}
