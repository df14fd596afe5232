//! What the end-to-end tests share: a gateway process, a zone, mail hosts, a browser, all on
//! loopback and ended by handle.

pub mod browser;
pub mod disk;
pub mod dkim;
pub mod dns;
pub mod gateway;
pub mod house;
pub mod http;
pub mod ledger;
pub mod load;
pub mod nginx;
pub mod oidc_provider;
pub mod op;
pub mod pki;
pub mod postfix;
pub mod signed;
pub mod sink;
pub mod smtp;
pub mod wraps;

use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    path::PathBuf,
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

/// The program under test: the one that ships where `tests/run` built it, else this profile's.
pub fn program() -> PathBuf {
    std::env::var_os("RESTANTE_BIN")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_restante")), PathBuf::from)
}

/// A port that is free on all these addresses. Below the ports that the system hands to outgoing connections, and each
/// given out once: so nobody takes it before it is bound.
pub fn free_port(addresses: &[&str]) -> u16 {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let start = 12_000 + u16::try_from(std::process::id() % 100).expect("small") * 100;
    let free_on = |port: u16, address: &&str| {
        let ip: IpAddr = address.parse().expect("an address");
        TcpListener::bind(SocketAddr::new(ip, port)).is_ok()
    };
    (0..5000)
        .map(|_| start + GIVEN.fetch_add(1, Ordering::Relaxed) % 5000)
        .find(|&port| addresses.iter().all(|address| free_on(port, address)))
        .expect("a port that is free everywhere")
}

/// Waits until `probe` has an answer; fails the test with `what` after a minute.
pub fn wait_for<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    wait_minutes(1, what, probe)
}

/// Waits until `probe` has an answer; fails the test with `what` after so many minutes.
pub fn wait_minutes<T>(minutes: u64, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(60 * minutes);
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < end, "waited {minutes} min for {what}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// A number of the environment, or what CI has time for.
pub fn parameter(name: &str, usual: u64) -> u64 {
    let text = std::env::var_os(name).map(|text| text.into_string().expect(name));
    text.map_or(usual, |text| text.parse().expect(name))
}
