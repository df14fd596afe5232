//! Which of our addresses a host sees.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// The address that the system would use towards that one. Nothing is sent: a datagram socket that
/// is connected only looks its route up.
pub fn source_address(towards: IpAddr) -> Option<IpAddr> {
    let any = match towards {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    socket.connect(SocketAddr::new(towards, 25)).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_met_from_loopback() {
        let towards = IpAddr::V4(Ipv4Addr::new(127, 0, 20, 11));
        assert!(source_address(towards).is_some_and(|ip| ip.is_loopback()));
    }
}
