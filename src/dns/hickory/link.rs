//! The link to a name server. With `dns.dnssec = "trust-ad"` it asks for the AD bit (RFC 6840 §5.7)
//! and writes what the bit says onto each record, so that whatever reads records finds their proof
//! in the same place, whoever proved it.

use futures_util::{StreamExt, future::BoxFuture, stream::BoxStream};
use hickory_resolver::{
    ConnectionProvider, PoolContext,
    config::ConnectionConfig,
    net::{
        NetError,
        runtime::TokioRuntimeProvider,
        xfer::{DnsExchange, DnsHandle},
    },
    proto::{
        dnssec::Proof,
        op::{DnsRequest, DnsResponse},
    },
};
use std::net::IpAddr;

/// Makes the links.
#[derive(Clone)]
pub(super) struct Links {
    runtime: TokioRuntimeProvider,
    ad: bool,
}

impl Links {
    /// With `ad`, the AD bit is asked for and believed of a name server on this host.
    pub(super) fn new(ad: bool) -> Self {
        Self { runtime: TokioRuntimeProvider::default(), ad }
    }
}

/// One link.
#[derive(Clone)]
pub(super) struct Link {
    exchange: DnsExchange<TokioRuntimeProvider>,
    ad: bool,
}

/// True if nobody stands between us and that address, who could set the bit.
pub(super) fn is_here(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

impl ConnectionProvider for Links {
    type Conn = Link;
    type FutureConn = BoxFuture<'static, Result<Link, NetError>>;
    type RuntimeProvider = TokioRuntimeProvider;

    fn new_connection(
        &self,
        ip: IpAddr,
        config: &ConnectionConfig,
        cx: &PoolContext,
    ) -> Result<Self::FutureConn, NetError> {
        let exchange = self.runtime.new_connection(ip, config, cx)?;
        let ad = self.ad && is_here(ip);
        Ok(Box::pin(async move { Ok(Link { exchange: exchange.await?, ad }) }))
    }

    fn runtime_provider(&self) -> &Self::RuntimeProvider {
        &self.runtime
    }
}

impl DnsHandle for Link {
    type Response = BoxStream<'static, Result<DnsResponse, NetError>>;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, mut request: DnsRequest) -> Self::Response {
        if !self.ad {
            return Box::pin(self.exchange.send(request));
        }
        request.metadata.authentic_data = true;
        let marked = self.exchange.send(request).map(move |answer| {
            answer.map(|mut answer| {
                mark(&mut answer);
                answer
            })
        });
        Box::pin(marked)
    }
}

/// RFC 4035 §3.2.3: AD speaks of the answer and authority sections alone.
fn mark(answer: &mut DnsResponse) {
    let proof = if answer.metadata.authentic_data { Proof::Secure } else { Proof::Insecure };
    let message = &mut **answer;
    for record in message.answers.iter_mut().chain(&mut message.authorities) {
        record.proof = proof;
    }
    for record in &mut message.additionals {
        record.proof = Proof::Indeterminate;
    }
}
