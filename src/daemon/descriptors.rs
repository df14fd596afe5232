//! File descriptors: one limit of the process for mail, the vault and the portal, mail first.

use crate::config::Config;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors beside the connections of both listeners: deliveries, bodies, the store.
const OTHERS: u64 = 1000;

/// Lets the process have as many descriptors as it may. A shell gives 1024 by habit: a thousand
/// connections would leave none for the bodies.
pub(super) fn raise() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files (RLIMIT_NOFILE) stays as it was");
    }
}

/// Connections that the portal takes where the process may have so many descriptors: what intake may
/// need and [`OTHERS`] are kept back, and a quarter is the portal's at least.
pub(super) fn portal_share(config: &Config, limit: Option<u64>) -> usize {
    let wanted = config.portal.max_connections;
    let Some(limit) = limit else { return wanted };
    let smtp = count(config.smtp.limits.connections);
    let left = limit.saturating_sub(smtp.saturating_add(OTHERS)).max(limit / 4);
    wanted.min(usize::try_from(left).unwrap_or(usize::MAX))
}

/// More connections than descriptors, by the limit that the service can have.
pub(super) fn advice(config: &Config) -> Option<String> {
    few(config, getrlimit(Resource::Nofile).maximum)
}

fn few(config: &Config, limit: Option<u64>) -> Option<String> {
    let limit = limit?;
    let (smtp, portal) = (config.smtp.limits.connections, config.portal.max_connections);
    let needed = count(smtp).saturating_add(count(portal)).saturating_add(OTHERS);
    (limit < needed).then(|| {
        format!(
            "this process may have {limit} files open, and smtp.max_connections = {smtp} with \
             portal.max_connections = {portal} may need {needed}: the portal will take {} \
             connections at most; raise LimitNOFILE (ulimit -n), or take fewer connections",
            portal_share(config, Some(limit))
        )
    })
}

fn count(connections: usize) -> u64 {
    u64::try_from(connections).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_portal_leaves_descriptors_to_mail() {
        for (smtp, portal, limit, share, told, reason) in [
            (1000, 2000, Some(65_536), 2000, false, "enough for both"),
            (1000, 2000, None, 2000, false, "no limit"),
            (1000, 2000, Some(4000), 2000, false, "just enough"),
            (1000, 2000, Some(3000), 1000, true, "what intake leaves"),
            (1000, 2000, Some(1024), 256, true, "a shell's habit: a quarter"),
            (100_000, 100, Some(65_536), 100, true, "intake alone is too much"),
        ] {
            let text =
                format!("[smtp]\nmax_connections = {smtp}\n[portal]\nmax_connections = {portal}\n");
            let config = Config::parse(&text, Path::new("r.toml"), Path::new("/")).expect("parses");
            assert_eq!(portal_share(&config, limit), share, "{reason}");
            assert_eq!(few(&config, limit).is_some(), told, "{reason}");
        }
    }
}
