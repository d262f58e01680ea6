//! The addresses that the hosts of a town have.

use std::net::{IpAddr, Ipv6Addr};

/// Those of IPv4, or those of IPv6 alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// A host in a street. Everybody can reach it.
    pub(crate) fn public(self, street: u8, host: u8) -> IpAddr {
        match self {
            Self::V4 => [198, 18, street, host].into(),
            Self::V6 => v6(street.into(), host),
        }
    }

    /// A host behind a gate. With IPv4 its address says nothing to those outside.
    pub(crate) fn home(self, home: u8, host: u8) -> IpAddr {
        match self {
            Self::V4 => [192, 168, home, host].into(),
            Self::V6 => v6(0x100 + u16::from(home), host),
        }
    }

    /// An address, with the length of its network.
    pub(crate) fn in_network(self, ip: IpAddr) -> String {
        match self {
            Self::V4 => format!("{ip}/24"),
            Self::V6 => format!("{ip}/64"),
        }
    }
}

fn v6(network: u16, host: u8) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, network, 0, 0, 0, 0, host.into()).into()
}
