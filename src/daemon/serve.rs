//! `restante serve`: start, say so, wait for signals, drain.

use super::{Gateway, StartError, descriptors};
use crate::{
    cli::{Exit, out},
    clock::SystemClock,
    config::Config,
    observe,
};
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Runs the gateway until it is told to end.
pub fn serve(config: &Config) -> Exit {
    observe::start(config.log.json, &config.log.level);
    descriptors::raise();
    // Whatever is made from here on is ours alone, also in a data directory that others may list.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            out::complain(error);
            return Exit::TryAgain;
        }
    };
    runtime.block_on(async {
        match run(config).await {
            Ok(exit) => exit,
            Err(error) => {
                out::complain(&error);
                error.exit()
            }
        }
    })
}

async fn run(config: &Config) -> Result<Exit, StartError> {
    let mut signals = Signals::new()?;
    let mut gateway = Gateway::start(config, Arc::new(SystemClock)).await?;
    for advice in advice(config) {
        tracing::warn!("{advice}");
    }
    announce(&gateway);
    let exit = loop {
        tokio::select! {
            why = gateway.failed() => {
                tracing::error!(%why, "the gateway cannot go on; nothing acknowledged is lost, start it again");
                break Exit::TryAgain;
            }
            heard = signals.next() => match heard {
                Heard::End => {
                    tracing::info!("draining");
                    break Exit::Done;
                }
                Heard::HangUp => gateway.reload().await,
            },
        }
    };
    gateway.stop().await;
    Ok(exit)
}

/// What is allowed and seldom meant.
pub fn advice(config: &Config) -> Vec<String> {
    let all = [unreachable_links(config), unsigned_mail(config), descriptors::advice(config)];
    all.into_iter().flatten().collect()
}

/// Keys that sign nothing that comes from `notification.from`.
fn unsigned_mail(config: &Config) -> Option<String> {
    let (from, keys) = (config.notification.from.domain(), &config.notification.dkim);
    let first = keys.first().filter(|_| !config.notification.is_signed())?;
    Some(format!(
        "notification.dkim has no key of {from}, the domain of notification.from: notices and codes \
         go unsigned, and reports on TLS not by mail at all; set notification.from to an address at \
         {}, or name a key with domain = \"{from}\"",
        first.domain
    ))
}

/// A portal that others reach, and links that only this machine could follow.
fn unreachable_links(config: &Config) -> Option<String> {
    let url = &config.portal.url;
    let inside = url.starts_with("http://127.") || url.starts_with("https://127.");
    (inside && !config.portal.listen.ip().is_loopback())
        .then(|| format!("notices link to {url}, which only this machine can open: set portal.url"))
}

fn announce(gateway: &Gateway) {
    let first = |list: &[std::net::SocketAddr]| list.first().map(ToString::to_string);
    let smtp = first(&gateway.listeners.smtp).unwrap_or_default();
    let portal = first(&gateway.listeners.portal).unwrap_or_default();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), smtp, portal, "ready");
    out::line(format_args!("ready smtp={smtp} portal={portal}"));
}

enum Heard {
    /// SIGTERM, SIGINT
    End,
    /// SIGHUP
    HangUp,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> Result<Self, StartError> {
        let listen =
            |kind| signal(kind).map_err(|error| StartError::NotPermitted(error.to_string()));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Heard {
        tokio::select! {
            _ = self.terminate.recv() => Heard::End,
            _ = self.interrupt.recv() => Heard::End,
            _ = self.hang_up.recv() => Heard::HangUp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn links_that_nobody_can_follow_are_told() {
        for (text, told) in [
            ("", false),
            ("[portal]\nlisten = \"0.0.0.0:8080\"\n", true),
            ("[portal]\nlisten = \"0.0.0.0:8080\"\nurl = \"https://mail.example.org\"\n", false),
        ] {
            let config = Config::parse(text, Path::new("r.toml"), Path::new("/")).expect("parses");
            assert_eq!(unreachable_links(&config).is_some(), told, "{text:?}");
        }
    }
    #[test]
    fn keys_that_sign_nothing_from_our_address_are_told() {
        let key = |domain: &str| {
            format!("{{ domain = \"{domain}\", selector = \"s\", key = \"k.pem\" }}")
        };
        let (own, below, other) = (key("x.example"), key("gw.x.example"), key("y.example"));
        for (keys, told, reason) in [
            (String::new(), false, "none: nobody expects a signature"),
            (own.clone(), false, "a key of that domain"),
            (format!("{other}, {own}"), false, "one of them is"),
            (other.clone(), true, "another domain's"),
            (format!("{below}, {other}"), true, "a sub-domain is another domain"),
        ] {
            let text = format!("[notification]\nfrom = \"secure@x.example\"\ndkim = [{keys}]\n");
            let config = Config::parse(&text, Path::new("r.toml"), Path::new("/")).expect("parses");
            let advice = advice(&config);
            assert_eq!(advice.len(), usize::from(told), "{reason}: {advice:?}");
            assert!(advice.iter().all(|a| a.contains("domain = \"x.example\"")), "{advice:?}");
        }
    }
}
