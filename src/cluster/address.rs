//! [`Reach`]: which addresses a function may have. Must never let a function's name lead to this Pod, its node's
//! loopback or a cloud's metadata service: whoever may write an EndpointSlice would reach them with our identity.

use ipnet::IpNet;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

/// Metadata and control services of clouds that lie outside the link-local range: Azure, Alibaba, Oracle.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];
/// The same over IPv6: AWS, Google.
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

/// Addresses that may be called. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    guarded: bool,
    forbidden: Arc<[IpNet]>,
}

impl Reach {
    /// Every address: manifests of a folder are as trusted as the configuration.
    pub fn anywhere() -> Self {
        Self::default()
    }

    /// What a Pod can have, without the networks of `forbidden` (nodes, say).
    pub fn pods(forbidden: impl Into<Arc<[IpNet]>>) -> Self {
        Self { guarded: true, forbidden: forbidden.into() }
    }

    /// Whether `address` may be called.
    pub fn allows(&self, address: IpAddr) -> bool {
        if !self.guarded {
            return true;
        }
        // `::ffff:127.0.0.1` is the loopback too.
        let address = address.to_canonical();
        let special = match address {
            IpAddr::V4(ip) => is_special_v4(ip),
            IpAddr::V6(ip) => is_special_v6(ip),
        };
        !special && !self.forbidden.iter().any(|network| network.contains(&address))
    }
}

fn is_special_v4(ip: Ipv4Addr) -> bool {
    ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_broadcast()
        || ip.octets()[0] == 0
        || METADATA_V4.contains(&ip)
}

fn is_special_v6(ip: Ipv6Addr) -> bool {
    // `::a.b.c.d`, 6to4 and NAT64 carry an IPv4 address to wherever their gateway leads.
    let carried = matches!(ip.segments(), [0, 0, 0, 0, 0, 0, _, _] | [0x64, 0xff9b, ..] | [0x2002, ..]);
    carried || ip.is_unicast_link_local() || ip.is_multicast() || METADATA_V6.contains(&ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_in_every_spelling_are_refused() {
        let reach = Reach::pods(["10.1.0.0/16".parse().expect("a network")]);
        let refused = [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "169.254.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "10.1.2.3",
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:10.1.2.3",
            "::127.0.0.1",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
        ];
        for text in refused {
            let ip: IpAddr = text.parse().expect("an address");
            assert!(!reach.allows(ip), "{text}");
            assert!(Reach::anywhere().allows(ip), "{text}");
        }
        for text in
            ["10.244.1.7", "192.168.0.9", "172.16.0.1", "100.64.0.1", "8.8.8.8", "fd12::1", "2001:db8::1"]
        {
            assert!(reach.allows(text.parse().expect("an address")), "{text}");
        }
    }
}
