//! The demo's own name server: a handful of names, asked over UDP on loopback.

use super::tell::{Failure, Told};
use hickory_resolver::proto::{
    op::{Message, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, MX, SOA},
    },
};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    str::FromStr,
    sync::Arc,
};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

/// Seconds that an answer is good for.
const TTL: u32 = 60;
/// The longest question that is read (RFC 6891 §6.2.5).
const LARGEST: usize = 4096;

/// Mail domains with their exchanger, and hosts with their address. Names are lower case, with the
/// final dot.
#[derive(Debug, Default)]
pub(super) struct Zone {
    exchangers: BTreeMap<Name, Name>,
    hosts: BTreeMap<Name, Ipv4Addr>,
}

impl Zone {
    /// Mail for `domain` goes to `host`, which has this address.
    pub(super) fn add(&mut self, domain: &str, host: &str, address: Ipv4Addr) -> Told {
        let host = name(host)?;
        self.exchangers.insert(name(domain)?, host.clone());
        self.hosts.insert(host, address);
        Ok(())
    }

    /// Answers on a free port until `stop`; returns where.
    pub(super) async fn serve(self, stop: CancellationToken) -> Told<SocketAddr> {
        let wrong = |error| Failure::new(format!("the demo's name server: {error}"));
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(wrong)?;
        let address = socket.local_addr().map_err(wrong)?;
        let soa = Arc::new(soa()?);
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            let mut question = [0; LARGEST];
            loop {
                let Ok((length, from)) = socket.recv_from(&mut question).await else { continue };
                if let Some(answer) = self.answer(question.get(..length).unwrap_or_default(), &soa)
                {
                    // The asker asks again if this is lost.
                    drop(socket.send_to(&answer, from).await);
                }
            }
        }));
        Ok(address)
    }

    /// What is no question gets no answer.
    fn answer(&self, question: &[u8], soa: &Record) -> Option<Vec<u8>> {
        let question = Message::from_vec(question).ok()?;
        let query = question.queries.first()?.clone();
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        answer.metadata.authoritative = true;
        answer.metadata.recursion_desired = question.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        match self.find(&query) {
            Found::Record(data) => {
                answer.add_answer(Record::from_rdata(query.name().clone(), TTL, data));
            }
            // RFC 2308 §2: the SOA record makes "nothing here" an answer that may be believed.
            Found::NoData => {
                answer.add_authority(soa.clone());
            }
            Found::NoName => {
                answer.metadata.response_code = ResponseCode::NXDomain;
                answer.add_authority(soa.clone());
            }
        }
        answer.add_query(query);
        answer.to_vec().ok()
    }

    fn find(&self, query: &Query) -> Found {
        let name = query.name().to_lowercase();
        let (exchanger, host) = (self.exchangers.get(&name), self.hosts.get(&name));
        let wanted = |kind| query.query_type() == kind;
        match (exchanger, host) {
            (Some(exchanger), _) if wanted(RecordType::MX) => {
                Found::Record(RData::MX(MX::new(10, exchanger.clone())))
            }
            (_, Some(address)) if wanted(RecordType::A) => Found::Record(RData::A(A(*address))),
            (None, None) => Found::NoName,
            (Some(_), _) | (_, Some(_)) => Found::NoData,
        }
    }
}

enum Found {
    Record(RData),
    NoData,
    NoName,
}

fn name(text: &str) -> Told<Name> {
    Name::from_str(&format!("{text}.")).map_err(Failure::at(text))
}

fn soa() -> Told<Record> {
    let (server, owner) = (name("ns.example")?, name("hostmaster.example")?);
    let ttl = TTL.cast_signed();
    let soa = SOA::new(server, owner, 1, ttl, ttl, ttl, TTL);
    Ok(Record::from_rdata(name("example")?, TTL, RData::SOA(soa)))
}
