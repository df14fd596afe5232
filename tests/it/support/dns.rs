//! A name server with an own codec: the resolver under test is hickory's, so this one speaks
//! through the old, separate `trust-dns-proto`.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    str::FromStr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use trust_dns_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata},
    serialize::binary::{BinDecodable, BinEncodable},
};

/// What a name answers.
#[derive(Debug, Clone, Default)]
pub struct Records {
    pub mx: Vec<(u16, String)>,
    pub a: Vec<Ipv4Addr>,
    pub cname: Option<String>,
    /// TXT records, each in its strings.
    pub txt: Vec<Vec<String>>,
    /// Answers SERVFAIL to everything.
    pub broken: bool,
}

/// A running name server.
#[derive(Debug)]
pub struct Zone {
    pub address: SocketAddr,
    names: Arc<Mutex<BTreeMap<String, Records>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Zone {
    /// Starts one on a free port of loopback.
    pub fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("set");
        let address = socket.local_addr().expect("bound");
        let names = Arc::new(Mutex::new(BTreeMap::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (names, stop) = (Arc::clone(&names), Arc::clone(&stop));
            std::thread::spawn(move || serve(&socket, &names, &stop))
        };
        Self { address, names, stop, thread: Some(thread) }
    }

    /// A mail domain with its exchangers and their addresses.
    pub fn mail(&self, domain: &str, hosts: &[(u16, &str, &str)]) {
        let mx = hosts.iter().map(|(preference, host, _)| (*preference, (*host).to_owned()));
        self.set(domain, Records { mx: mx.collect(), ..Records::default() });
        for (_, host, address) in hosts {
            let a = vec![address.parse().expect("an IPv4 address")];
            self.set(host, Records { a, ..Records::default() });
        }
    }

    /// A name with one TXT record of one string.
    pub fn text(&self, name: &str, text: &str) {
        let txt = vec![vec![text.to_owned()]];
        self.set(name, Records { txt, ..Records::default() });
    }

    pub fn set(&self, name: &str, records: Records) {
        self.names.lock().expect("lock").insert(name.to_owned(), records);
    }
}

impl Drop for Zone {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn serve(socket: &UdpSocket, names: &Mutex<BTreeMap<String, Records>>, stop: &AtomicBool) {
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        let Ok(query) = Message::from_bytes(&buffer[..length]) else { continue };
        let reply = answer(&query, &names.lock().expect("lock"));
        if let Ok(bytes) = reply.to_bytes() {
            drop(socket.send_to(&bytes, from));
        }
    }
}

fn answer(query: &Message, names: &BTreeMap<String, Records>) -> Message {
    let mut reply = Message::new();
    reply.set_id(query.id());
    reply.set_message_type(MessageType::Response);
    reply.set_recursion_desired(query.recursion_desired());
    reply.set_recursion_available(true);
    reply.set_authoritative(true);
    let Some(question) = query.queries().first() else { return reply };
    reply.add_query(question.clone());
    let name = question.name().to_lowercase();
    let text = name.to_ascii();
    let Some(records) = names.get(text.trim_end_matches('.')) else {
        reply.set_response_code(ResponseCode::NXDomain);
        reply.add_name_server(soa());
        return reply;
    };
    if records.broken {
        reply.set_response_code(ResponseCode::ServFail);
        return reply;
    }
    for data in data_of(records, question.query_type()) {
        reply.add_answer(Record::from_rdata(name.clone(), 5, data));
    }
    if reply.answers().is_empty() {
        reply.add_name_server(soa());
    }
    reply
}

fn data_of(records: &Records, asked: RecordType) -> Vec<RData> {
    if let Some(target) = &records.cname {
        return vec![RData::CNAME(rdata::CNAME(fqdn(target)))];
    }
    if asked == RecordType::MX {
        let mx =
            |(preference, host): &(u16, String)| RData::MX(rdata::MX::new(*preference, fqdn(host)));
        records.mx.iter().map(mx).collect()
    } else if asked == RecordType::A {
        records.a.iter().map(|&a| RData::A(rdata::A(a))).collect()
    } else if asked == RecordType::TXT {
        records.txt.iter().map(|strings| RData::TXT(rdata::TXT::new(strings.clone()))).collect()
    } else {
        Vec::new()
    }
}

fn fqdn(name: &str) -> Name {
    Name::from_str(&format!("{}.", name.trim_end_matches('.'))).expect("a name")
}

fn soa() -> Record {
    let soa = rdata::SOA::new(fqdn("ns.test"), fqdn("hostmaster.test"), 1, 5, 5, 5, 5);
    Record::from_rdata(fqdn("test"), 5, RData::SOA(soa))
}
