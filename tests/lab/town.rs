//! Two peers and a relay around a router.
//!
//! ```text
//!   peer 0 ─[gate]─ roads[0] ─┐
//!                             router ── roads[2] ── relay
//!   peer 1 ─[gate]─ roads[1] ─┘
//! ```

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use outlive::{Connectivity, NetworkMonitor, Padding, SessionState};
use outlive_relay::Relay;
use outlive_storage::MemoryStore;
use outlive_transports::{Quic, WebRtc};
use tokio::net::TcpStream;

use crate::family::Family;
use crate::gate::{Nat, guard, hide, no_wall, wall};
use crate::host::Host;
use crate::lab::{Lab, say};
use crate::peer::{Direct, Peer, Talk, soon};
use crate::turn::{self, Turn};
use crate::weather::Weather;
use crate::wire::Wire;

/// Where the peers, or the gates before them, are.
const STREETS: [u8; 2] = [1, 2];

/// Whether the peers ask the relay where they are seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stun {
    None,
    Asked,
}

/// What makes the peers' direct links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Quic,
    WebRtc,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::WebRtc => "webrtc",
        }
    }
}

/// What a town is to be like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// That of the peers' roads.
    pub(crate) weather: Weather,
    pub(crate) family: Family,
    /// What the peers are behind.
    pub(crate) gates: [Option<Nat>; 2],
    /// Which home is behind each of the gates.
    pub(crate) homes: [u8; 2],
    pub(crate) stun: Stun,
    pub(crate) kind: Kind,
    /// There is a TURN server beside the relay.
    pub(crate) turn: bool,
    /// What tells the peers of their networks.
    pub(crate) network: fn() -> NetworkMonitor,
    pub(crate) padding: Padding,
}

impl Plan {
    /// Both peers with an address that everybody can reach.
    pub(crate) const fn new(seed: u64, weather: Weather, kind: Kind) -> Self {
        Self {
            seed,
            weather,
            family: Family::V4,
            gates: [None; 2],
            homes: [1, 2],
            stun: Stun::None,
            kind,
            turn: false,
            network: NetworkMonitor::new,
            padding: Padding::Relayed,
        }
    }
}

pub(crate) struct Town {
    /// When the peers were started.
    pub(crate) began: Instant,
    pub(crate) peers: [Peer; 2],
    /// The wires to the router: of the peers, and of the relay.
    pub(crate) roads: [Wire; 3],
    pub(crate) router: Host,
    pub(crate) kind: Kind,
    relay: (Host, Relay),
    pub(crate) lab: Lab,
    _turn: Option<Turn>,
    _gates: Vec<Host>,
}

impl Town {
    /// Both peers with an address that everybody can reach.
    pub(crate) async fn open(seed: u64, weather: Weather) -> Option<Self> {
        Self::of(Plan::new(seed, weather, Kind::Quic)).await
    }

    /// Both peers with an address, and nobody who tells them when it changes.
    pub(crate) async fn watchful(seed: u64, weather: Weather) -> Option<Self> {
        let network = NetworkMonitor::system;
        let plan = Plan::new(seed, weather, Kind::Quic);
        Self::of(Plan { network, ..plan }).await
    }

    /// `None` where there can't be such a town.
    pub(crate) async fn of(plan: Plan) -> Option<Self> {
        let Plan {
            seed,
            weather,
            family,
            gates,
            homes,
            stun,
            kind,
            turn,
            network,
            padding,
        } = plan;
        let lab = Lab::open(seed)?;
        if turn && !Turn::is_installed() {
            return None;
        }
        let join = |near: (&Host, IpAddr), far: (&Host, IpAddr)| {
            let [one, other] = [near, far].map(|(host, ip)| (host, family.in_network(ip)));
            let road = lab.wire((one.0, &one.1), (other.0, &other.1));
            far.0.ip(&format!("route add default via {}", near.1));
            road
        };
        let router = Host::new("router");
        router.route();
        let mut hosts = ["peer0", "peer1"].map(Host::new);
        let mut behind = Vec::new();
        let mut roads = Vec::new();
        for (n, (host, nat)) in hosts.iter_mut().zip(gates).enumerate() {
            let [near, far] = [1, 2].map(|of| family.public(STREETS[n], of));
            let road = match nat {
                None => join((&router, near), (host, far)),
                Some(nat) => {
                    let gate = Host::new(["gate0", "gate1"][n]);
                    let road = join((&router, near), (&gate, far));
                    let [inside, home] = [1, 2].map(|of| family.home(homes[n], of));
                    join((&gate, inside), (host, home));
                    match family {
                        Family::V4 => hide(&gate, &road, nat),
                        Family::V6 => {
                            router.ip(&format!("route add {home} via {far}"));
                            guard(&gate, &road);
                        }
                    }
                    behind.push(gate);
                    road
                }
            };
            road.set(weather);
            roads.push(road);
        }
        let host = Host::new("relay");
        let [near, far] = [1, 2].map(|of| family.public(9, of));
        roads.push(join((&router, near), (&host, far)));
        let asked = SocketAddr::new(far, 3_478);
        let relay = host.run(async move {
            let relay = Relay::builder()
                .store(Arc::new(MemoryStore::new()))
                .stun(asked);
            relay.bind((far, 0).into()).await
        });
        let relay = relay.await.expect("a free port");
        let address = format!("ws://{}", relay.local_addr());
        let turn = match turn {
            true => Some(Turn::start(&host, &far.to_string()).await),
            false => None,
        };
        let stun = (stun == Stun::Asked).then_some(asked);
        let way = || direct(kind, stun, turn.as_ref());
        let [one, other] = hosts;
        let began = Instant::now();
        let peers = [
            Peer::start(one, 1, address.clone(), way(), network(), padding).await,
            Peer::start(other, 2, address, way(), network(), padding).await,
        ];
        Some(Self {
            began,
            peers,
            roads: roads.try_into().ok().expect("three of them"),
            router,
            kind,
            relay: (host, relay),
            lab,
            _turn: turn,
            _gates: behind,
        })
    }

    /// Joins the peers by a wire of their own, over which all goes that is not for the relay.
    pub(crate) fn shortcut(&self) -> Wire {
        let [one, other] = &self.peers;
        let wire = self
            .lab
            .wire((&one.host, "198.18.5.1/24"), (&other.host, "198.18.5.2/24"));
        one.host.ip("route add 198.18.2.2 via 198.18.5.2");
        other.host.ip("route add 198.18.1.2 via 198.18.5.1");
        wire
    }

    /// From now on both say messages, all the time.
    pub(crate) fn talk(&mut self, talk: Talk) {
        let [one, other] = &mut self.peers;
        one.talk(talk, other.count());
        other.talk(talk, one.count());
    }

    /// Ends that, and sees that both hear all that was said.
    pub(crate) async fn hush(&mut self) {
        let [one, other] = &mut self.peers;
        let said = [one.hush().await, other.hush().await];
        one.until_heard(said[1]).await;
        other.until_heard(said[0]).await;
    }

    /// Until both have heard so many more than they have now.
    pub(crate) async fn hear_more(&mut self, many: u64) {
        let [one, other] = &mut self.peers;
        let heard = [one, other].map(|peer| (*peer.count().borrow(), peer));
        for (now, peer) in heard {
            peer.until_heard(now + many).await;
        }
    }

    /// The longest time since then in which one of them heard nothing.
    pub(crate) fn silence_since(&self, since: Instant) -> Duration {
        let silences = self.peers.iter().map(|peer| peer.silence_since(since));
        silences.max().unwrap_or_default()
    }

    /// How long the road from peer to peer over the relay is, one way: half of the round trips of both,
    /// which is what connecting takes.
    pub(crate) async fn road_over_relay(&self) -> Duration {
        let mut both = Duration::ZERO;
        for peer in &self.peers {
            let connecting = TcpStream::connect(self.relay.1.local_addr());
            let began = Instant::now();
            let connected = peer.host.run(connecting).await;
            both += began.elapsed();
            drop(connected.expect("a relay that listens"));
        }
        both / 2
    }

    /// Parts the peers from each other, and not from the relay. Nobody is told.
    pub(crate) fn part(&self) {
        let [one, other] = STREETS.map(|street| {
            let family = Family::V4;
            family.in_network(family.public(street, 0))
        });
        wall(&self.router, &one, &other);
    }

    pub(crate) fn join(&self) {
        no_wall(&self.router);
    }

    pub(crate) async fn until_linked(&self) {
        for peer in &self.peers {
            peer.until("a link", |state| !state.links.is_empty()).await;
        }
    }

    pub(crate) async fn until_direct(&self) {
        for peer in &self.peers {
            peer.until("one direct link that carries", |state| {
                direct_links(state) == 1 && carried_by(state) == Some(self.kind.name())
            })
            .await;
        }
    }

    /// Until each has one direct link, whether it carries or not.
    pub(crate) async fn until_up(&self) {
        for peer in &self.peers {
            peer.until("one direct link", |state| direct_links(state) == 1)
                .await;
        }
    }

    /// Until a link of this kind carries what both say.
    pub(crate) async fn until_carried_by(&self, transport: &str) {
        for peer in &self.peers {
            peer.until(transport, |state| carried_by(state) == Some(transport))
                .await;
        }
    }

    pub(crate) async fn until_relayed(&self) {
        for peer in &self.peers {
            peer.until("the relay alone", |state| {
                state.connectivity() == Connectivity::Relayed
            })
            .await;
        }
    }

    pub(crate) async fn end(self) {
        let [one, other] = self.peers;
        one.stop().await;
        other.stop().await;
        let (host, relay) = self.relay;
        let stopped = host.run(async move { relay.shutdown().await });
        soon("the relay to stop", stopped).await.expect("it stops");
    }
}

fn direct(kind: Kind, stun: Option<SocketAddr>, turn: Option<&Turn>) -> Direct {
    match kind {
        Kind::Quic => Direct::Quic(match stun {
            Some(server) => Quic::new().ask_stun(server.to_string()),
            None => Quic::new(),
        }),
        Kind::WebRtc => {
            let mut webrtc = WebRtc::new();
            if let Some(server) = stun {
                webrtc = webrtc.with_stun(format!("stun:{server}"));
            }
            if let Some(turn) = turn {
                webrtc = webrtc.with_turn(turn.url(), turn::USER, turn::PASSWORD);
            }
            Direct::WebRtc(webrtc)
        }
    }
}

/// A figure of a test that passes too.
pub(crate) fn figure(test: &str, what: &str, took: Duration) {
    say(&format!("{test}: {what} {} ms", took.as_millis()));
}

pub(crate) fn direct_links(state: &SessionState) -> usize {
    let direct = state.links.iter().filter(|link| link.transport != "relay");
    direct.count()
}

/// What makes the link that carries.
pub(crate) fn carried_by(state: &SessionState) -> Option<&'static str> {
    let carrier = state.carrier?;
    let link = state.links.iter().find(|link| link.generation == carrier)?;
    Some(link.transport)
}
