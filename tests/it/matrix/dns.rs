//! The table's names: a really signed zone with all its domains and hosts, one that nobody can
//! check, and the policies that MTA-STS publishes.

use super::{
    peers::{self, Peer},
    scene::Scene,
    table::Cell,
};
use crate::support::{
    nginx::{Nginx, policy_host, text},
    signed::{Kind, Signed},
};
use std::{
    collections::BTreeMap,
    fmt::Write,
    net::{SocketAddr, TcpListener, UdpSocket},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

const STS: &str = "version: STSv1\r\nmode: enforce\r\nmx: *.mx.matrix.test\r\nmx: *.bare.matrix.test\r\n\
     max_age: 86400\r\n";

/// The zones of all cells; `more` are other records of `matrix.test`.
pub fn sign(dir: &Path, scene: &Scene, cells: &[Cell], web: SocketAddr, more: &str) -> Signed {
    let mut matrix = hosts(&scene.peers, scene.port) + more;
    let mut bogus = String::new();
    for cell in cells {
        let host =
            if cell.column.tlsa { peers::host(cell.kind) } else { peers::bare_host(cell.kind) };
        let zone = if cell.kind == "bogus" { &mut bogus } else { &mut matrix };
        writeln!(zone, "{}. MX 10 {host}.", cell.domain()).expect("written");
        if cell.column.sts {
            writeln!(
                zone,
                "_mta-sts.{0}. TXT \"v=STSv1; id=1;\"\nmta-sts.{0}. A {1}",
                cell.domain(),
                web.ip()
            )
            .expect("written");
        }
    }
    let zones =
        [("matrix.test", Kind::Signed, matrix.as_str()), ("bogus.test", Kind::WrongKey, &bogus)];
    Signed::start(dir, &zones)
}

/// Every host under both of its names.
pub fn hosts(peers: &BTreeMap<&'static str, Peer>, port: u16) -> String {
    let mut records = String::new();
    for (kind, peer) in peers {
        let (ip, host, bare) = (peers::ip(kind), peers::host(kind), peers::bare_host(kind));
        let tlsa = peer.tlsa(kind);
        writeln!(records, "{host}. A {ip}\n{bare}. A {ip}\n_{port}._tcp.{host}. TLSA {tlsa}")
            .expect("written");
    }
    records
}

/// The web server of all policies.
pub fn publish(dir: &Path, scene: &Scene, cells: &[Cell], web: SocketAddr) -> Nginx {
    let with = cells.iter().filter(|cell| cell.column.sts);
    let names: Vec<String> = with.map(|cell| format!("mta-sts.{}", cell.domain())).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let leaf = scene.pki.odd_leaf("policies", &names, |_| {});
    let host = policy_host(web, "_", &leaf, &text(STS), "");
    Nginx::start(&dir.join("nginx"), &[host], &[web])
}

/// An address of loopback where this port is free: some ports are given, addresses are many.
/// Each call begins elsewhere, for another test may be about to bind what is free now.
pub fn address(port: u16) -> SocketAddr {
    static CALLS: AtomicU8 = AtomicU8::new(0);
    let begin = CALLS.fetch_add(1, Ordering::Relaxed);
    let start = u8::try_from(std::process::id() % 200).expect("small");
    let numbers = (0..50).map(|n| 1 + start + (begin % 50 + n) % 50);
    let mut some = numbers.map(|number| SocketAddr::from(([127, 0, 42, number], port)));
    let free = |at: &SocketAddr| TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok();
    some.find(free).expect("that port of some address")
}

/// Hands questions on from port 53, the only one that `resolv.conf` knows.
#[derive(Debug)]
pub struct Port53 {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Port53 {
    pub fn start(resolver: SocketAddr) -> Self {
        let address = address(53);
        let socket = UdpSocket::bind(address).expect("free");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("set");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                if let Ok(answer) = ask(resolver, &buffer[..length]) {
                    drop(socket.send_to(&answer, from));
                }
            }
        });
        Self { address, stop, thread: Some(thread) }
    }
}

fn ask(resolver: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.send_to(question, resolver)?;
    let mut answer = vec![0; 4096];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

impl Drop for Port53 {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
