//! What the end-to-end tests share: a gateway process, a zone, mail hosts, a browser, all on loopback and ended by
//! handle.

pub mod browser;
pub mod dns;
pub mod gateway;
pub mod house;
pub mod http;
pub mod pki;
pub mod postfix;
pub mod sink;
pub mod smtp;

use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    path::PathBuf,
    time::{Duration, Instant},
};

/// The program under test: the one that ships where `tests/run` built it, else this profile's.
pub fn program() -> PathBuf {
    std::env::var_os("RESTANTE_BIN")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_restante")), PathBuf::from)
}

/// A port that is free on all these addresses.
pub fn free_port(addresses: &[&str]) -> u16 {
    let free_on = |port: u16, address: &&str| {
        let ip: IpAddr = address.parse().expect("an address");
        TcpListener::bind(SocketAddr::new(ip, port)).is_ok()
    };
    (0..100)
        .map(|_| {
            let any = TcpListener::bind("127.0.0.1:0").expect("a free port");
            any.local_addr().expect("bound").port()
        })
        .find(|&port| addresses.iter().all(|address| free_on(port, address)))
        .expect("a port that is free everywhere")
}

/// Waits until `probe` has an answer; fails the test with `what` after a minute.
pub fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < end, "waited a minute for {what}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}
