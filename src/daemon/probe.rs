//! `restante policy probe`, and what the watch is made of: the prober with its adapters.

use super::{
    StartError,
    parts::{Parts, resolver},
};
use crate::{
    cli::{self, Exit, out},
    clock::{Clock, SystemClock},
    config::Config,
    dns::Resolver,
    mail::Domain,
    net::{
        connect::{Dialer, DialerSettings, Timeouts},
        https::{HttpsClient, HttpsSettings},
        trust::TrustAnchors,
    },
    policies::StsPolicies,
    policy::{PolicySet, Problem},
    probe::{ProbePorts, Prober, Report},
    store::memory::MemoryStore,
    sts::{Sts, StsPorts},
};
use std::{sync::Arc, time::Duration};

/// Who only looks does not wait as long as a delivery does.
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(10),
    greeting: Duration::from_secs(60),
    handshake: Duration::from_secs(20),
    command: Duration::from_secs(30),
    block: Duration::from_secs(30),
    dot: Duration::from_secs(30),
    quit: Duration::from_secs(2),
};

/// Looks at a domain now. No server is needed and the data directory is left alone.
pub fn probe(config: &Config, domain: &str, json: bool) -> Exit {
    let domain: Domain = match domain.parse() {
        Ok(domain) => domain,
        Err(error) => {
            out::complain(format_args!("{domain}: {error}"));
            return Exit::Data;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            out::complain(error);
            return Exit::TryAgain;
        }
    };
    match runtime.block_on(look(config, &domain)) {
        Ok(report) => cli::probe::show(&report, json),
        Err(error) => {
            out::complain(&error);
            error.exit()
        }
    }
}

async fn look(config: &Config, domain: &Domain) -> Result<Report, StartError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let anchors = TrustAnchors::load(config.delivery.trust_anchors.as_deref());
    let anchors = anchors.map_err(|e| StartError::Config(e.to_string()))?;
    let resolver: Arc<dyn Resolver> = Arc::new(resolver(config)?);
    let web = HttpsClient::new(
        HttpsSettings::new(anchors.clone(), config.delivery.refuse_networks.clone()),
        Arc::clone(&resolver),
        Arc::clone(&clock),
    );
    // Nothing is kept: what the domain publishes now is what is asked for.
    let sts = Sts::patient(StsPorts {
        resolver: Arc::clone(&resolver),
        web: Arc::new(web.map_err(|e| StartError::Config(e.to_string()))?),
        notes: Arc::new(MemoryStore::new()),
        clock: Arc::clone(&clock),
    });
    let connector = Arc::new(dialer(config, anchors, &clock));
    let ports = ProbePorts { resolver, sts: Arc::new(sts), connector, clock: Arc::clone(&clock) };
    let set = policies(config, clock.as_ref());
    let policy = set.lookup(domain, clock.now());
    Ok(Prober::new(ports, config.delivery.port).probe(domain, Some(policy)).await)
}

/// The policies on disk. A set with an error in it says so and counts for nothing here: a look at
/// a domain needs no entry.
fn policies(config: &Config, clock: &dyn Clock) -> PolicySet {
    let dir = &config.policy_dir;
    let complain = |problems: Vec<Problem>| problems.iter().for_each(out::complain);
    match cli::policy::read_dir(dir) {
        Ok(files) => match PolicySet::parse(&files, clock.now()) {
            Ok((set, _)) => return set,
            Err(problems) => complain(problems),
        },
        Err(error) => out::complain(format_args!("{}: {error}", dir.display())),
    }
    out::complain("the policies are left out of account");
    PolicySet::default()
}

/// The prober of a running gateway.
pub(super) fn prober(config: &Config, parts: &Parts, sts: Arc<dyn StsPolicies>) -> Prober {
    let clock = &parts.vault.clock;
    let ports = ProbePorts {
        resolver: Arc::clone(&parts.resolver) as _,
        sts,
        connector: Arc::new(dialer(config, parts.anchors.clone(), clock)),
        clock: Arc::clone(clock),
    };
    Prober::new(ports, config.delivery.port)
}

fn dialer(config: &Config, anchors: TrustAnchors, clock: &Arc<dyn Clock>) -> Dialer {
    let settings = DialerSettings {
        hostname: config.hostname.clone(),
        anchors,
        timeouts: TIMEOUTS,
        refuse_networks: config.delivery.refuse_networks.clone(),
        ca_dir: config.policy_dir.clone(),
    };
    Dialer::new(settings, Arc::clone(clock))
}
