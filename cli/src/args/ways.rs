//! Over which ways peers are to be reached.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::given::{Unrepeated, WrongUsage, relay};

/// The ways to peers.
#[derive(Debug, clap::Args)]
pub(crate) struct Ways {
    /// The relay, as wss://host or ws://host:port. Not needed where the contact of the peer names
    /// one.
    #[arg(long, value_name = "URL", value_parser = Unrepeated(relay))]
    pub(crate) relay: Option<String>,
    /// A certificate authority to trust too, for a relay with a certificate of its own.
    #[arg(long, value_name = "PEM")]
    pub(crate) relay_ca: Option<PathBuf>,
    /// Which relays to use beside the one named with --relay, where peers read at others. Who runs them
    /// learns the address of this host.
    #[arg(long, value_enum, default_value = "named")]
    pub(crate) foreign_relays: Foreign,
    /// Links to the peer itself to use beside the relay, where both ends have them. They show the
    /// peer the addresses of this host.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "never")]
    pub(crate) direct: Vec<Direct>,
    /// A STUN server to ask where this host is seen from outside, as host:port; relays can be one.
    #[arg(long, value_name = "HOST:PORT", value_parser = server)]
    pub(crate) stun: Vec<String>,
    /// A TURN server for links over WebRTC to go through where there is no other way, as host:port.
    #[arg(long, value_name = "HOST:PORT", value_parser = server, requires = "turn_user")]
    pub(crate) turn: Option<String>,
    /// The name to give to the TURN server.
    #[arg(long, value_name = "NAME", requires = "turn")]
    pub(crate) turn_user: Option<String>,
    /// A file whose first line is the password to give to it. If not given, the variable
    /// OUTLIVE_TURN_PASSWORD is used.
    #[arg(long, value_name = "FILE", requires = "turn")]
    pub(crate) turn_password_file: Option<PathBuf>,
}

/// A kind of link to the peer itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Direct {
    /// None: all goes through the relay.
    Never,
    /// QUIC, over UDP.
    Quic,
    /// WebRTC data channels, where QUIC does not come through within seconds or is not asked for.
    Webrtc,
}

/// Relays at which peers may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Foreign {
    /// None: peers have to use the same relay.
    Never,
    /// Those that a contact names which is given to this command.
    Named,
    /// Those too that peers name themselves, if they are reached over TLS.
    Tls,
    /// Whatever peers name.
    Any,
}

impl Foreign {
    /// Whether a relay may be used that a peer has named.
    pub(crate) fn allows(self, address: &str) -> bool {
        match self {
            Self::Never | Self::Named => false,
            Self::Tls => address.starts_with("wss://"),
            Self::Any => true,
        }
    }
}

impl Ways {
    /// The relays that a contact names, if they may be used beside the one of this node.
    pub(crate) fn foreign<'a>(&self, contact: Option<&'a outlive::Contact>) -> &'a [String] {
        let used = self.relay.is_some() && self.foreign_relays >= Foreign::Named;
        contact
            .filter(|_| used)
            .map_or(&[], outlive::Contact::relays)
    }

    /// Whether links of this kind may be.
    pub(crate) fn allow(&self, kind: Direct) -> bool {
        self.direct.contains(&kind)
    }

    /// Refuses what contradicts itself in ways that clap does not see.
    pub(crate) fn check(&self) -> Result<(), WrongUsage> {
        if self.allow(Direct::Never) && self.direct.len() > 1 {
            return Err(WrongUsage::new(
                "--direct is either never, or the kinds of links that may be",
            ));
        }
        if self.turn.is_some() && !self.allow(Direct::Webrtc) {
            return Err(WrongUsage::new(
                "--turn is for links over WebRTC; allow them with --direct webrtc",
            ));
        }
        Ok(())
    }

    /// The relays to use: the one that was named, or else those of the contact.
    pub(crate) fn relays(&self, contact: Option<&outlive::Contact>) -> Vec<String> {
        match &self.relay {
            Some(named) => vec![named.clone()],
            None => contact.map_or_else(Vec::new, |contact| contact.relays().to_vec()),
        }
    }

    /// The same where there has to be one.
    pub(crate) fn some_relays(
        &self,
        contact: Option<&outlive::Contact>,
    ) -> Result<Vec<String>, WrongUsage> {
        let relays = self.relays(contact);
        if relays.is_empty() {
            return Err(WrongUsage::new(
                "no relay is known; name one with --relay URL, or give a contact that does",
            ));
        }
        Ok(relays)
    }
}

/// A server at a host that may have a name.
fn server(text: &str) -> Result<String, String> {
    let parts = text.rsplit_once(':');
    let makes_sense = parts.is_some_and(|(host, port)| {
        let bare = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
        bare && !host.is_empty() && port.parse::<u16>().is_ok()
    });
    if makes_sense {
        return Ok(text.to_owned());
    }
    Err("write a host and a port, as relay.example:3478 or [2001:db8::1]:3478".to_owned())
}
