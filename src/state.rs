//! The present of a session, for whoever asks late.

use std::collections::BTreeSet;

use outlive_core::link::{LinkClass, LinkState};
use outlive_core::record::Gap;
use outlive_core::{ChannelId, Generation};

use crate::trust::Trust;

/// A session as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionState {
    /// The links bound to it.
    pub links: Vec<LinkInfo>,
    /// Which of them carries what is sent.
    pub carrier: Option<Generation>,
    /// Whether the peer is signed in at a relay of ours, or one where it reads; `None` if that is not known.
    pub peer_online: Option<bool>,
    /// Whether something waits for the peer's acknowledgement.
    pub outstanding: bool,
    /// What is missing of the peer's messages, with no message behind it yet whose delivery tells
    /// of it.
    pub gaps: Vec<(ChannelId, Gap)>,
    /// What was decided about the peer.
    pub trust: Trust,
    /// The volatile channels that the peer listens to, as it said last: what it said before a restart stands
    /// until it is heard again.
    pub peer_listens: BTreeSet<ChannelId>,
}

/// A link bound to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// Its number.
    pub generation: Generation,
    /// What kind of way it is.
    pub class: LinkClass,
    /// [`Connecting`](LinkState::Connecting) until the other end has answered over it, then
    /// [`Connected`](LinkState::Connected), and [`Disconnected`](LinkState::Disconnected) from when this
    /// host may have moved until it answers again. One that has failed or was closed is not bound any more.
    pub state: LinkState,
    /// What makes it: `relay`, or the name of a transport for direct links, such as `quic`.
    pub transport: &'static str,
    /// The address of what it goes through.
    pub address: String,
}

impl SessionState {
    /// The link that carries what is sent.
    #[must_use]
    pub fn carrier(&self) -> Option<&LinkInfo> {
        let carrier = self.carrier?;
        self.links.iter().find(|link| link.generation == carrier)
    }

    /// How the session is connected: [`Direct`](Connectivity::Direct) as soon as a link to the peer
    /// itself is bound, even while a relay carries what is sent. Which link does,
    /// [`carrier`](Self::carrier()) tells.
    #[must_use]
    pub fn connectivity(&self) -> Connectivity {
        if self
            .links
            .iter()
            .any(|link| link.class == LinkClass::Direct)
        {
            Connectivity::Direct
        } else if self.links.is_empty() {
            Connectivity::Offline
        } else {
            Connectivity::Relayed
        }
    }
}

/// How a session is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connectivity {
    /// No link. Messages wait on disk.
    Offline,
    /// Through a relay, whether the peer is there or not.
    Relayed,
    /// To the peer itself, whichever link carries.
    Direct,
}
