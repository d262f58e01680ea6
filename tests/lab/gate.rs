//! What stands between networks: hosts that translate addresses, and walls.

use crate::host::Host;
use crate::wire::Wire;

/// How a host translates the addresses of those behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nat {
    /// A socket behind it is seen at one port, whoever it speaks to.
    Plain,
    /// Seen at another port by everybody: what a server sees is of no use to a peer.
    Symmetric,
}

/// Hides those behind `host` from those at the far end of `outside`, who can't begin anything.
pub(crate) fn hide(host: &Host, outside: &Wire, nat: Nat) {
    let out = outside.name();
    let how = match nat {
        Nat::Plain => "masquerade",
        Nat::Symmetric => "masquerade fully-random",
    };
    host.route();
    host.nft(&format!(
        "table ip gate {{
            chain here {{
                type filter hook input priority 0;
                iifname {out} ct state new drop
            }}
            chain through {{
                type filter hook forward priority 0;
                iifname {out} ct state new drop
            }}
            chain away {{
                type nat hook postrouting priority 100;
                oifname {out} {how}
            }}
        }}"
    ));
}

/// Keeps those at the far end of `outside` from beginning anything with those behind `host`, whose
/// addresses of IPv6 it leaves as they are.
pub(crate) fn guard(host: &Host, outside: &Wire) {
    let out = outside.name();
    host.route();
    host.nft(&format!(
        "table ip6 gate {{
            chain here {{
                type filter hook input priority 0;
                iifname {out} ct state new drop
            }}
            chain through {{
                type filter hook forward priority 0;
                iifname {out} ct state new drop
            }}
        }}"
    ));
}

/// Lets `host` pass on nothing between these two networks, in either direction. Nobody is told.
pub(crate) fn wall(host: &Host, one: &str, other: &str) {
    host.nft(&format!(
        "table ip wall {{
            chain through {{
                type filter hook forward priority 0;
                ip saddr {one} ip daddr {other} drop
                ip saddr {other} ip daddr {one} drop
            }}
        }}"
    ));
}

/// Lets `host` pass on nothing more to and from these ports, as a gate that has forgotten who is
/// behind them.
pub(crate) fn forget(host: &Host, ports: [u16; 2]) {
    let [one, other] = ports;
    host.nft(&format!(
        "table ip forgotten {{
            chain through {{
                type filter hook forward priority 0;
                udp sport {{ {one}, {other} }} drop
                udp dport {{ {one}, {other} }} drop
            }}
        }}"
    ));
}

/// Takes the walls down.
pub(crate) fn no_wall(host: &Host) {
    host.nft("delete table ip wall");
}
