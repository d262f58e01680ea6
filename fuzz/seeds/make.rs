//! Makes the seeds: what two engines really say to each other, a relay's messages around it, and
//! what a store holds meanwhile. Run it again when a format changes:
//!
//! ```sh
//! cargo run --manifest-path fuzz/Cargo.toml --example seeds
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use outlive_core::engine::{Engine, Event, Output, SendOptions, Stored};
use outlive_core::link::LinkClass;
use outlive_core::record::{InboxRecord, Key, Record};
use outlive_core::transport::{Class, Refusal};
use outlive_core::wire::frame::CloseReason;
use outlive_core::wire::packet::decode;
use outlive_core::wire::relay::{
    Binding, FromRelay, GoodbyeReason, ToRelay, VERSION, encode, prove,
};
use outlive_core::wire::request::Message;
use outlive_core::wire::signal::{
    Addresses, Answer, Candidate, Decline, Mailboxes, Offer, Signal, Withdraw,
};
use outlive_core::{
    ChannelId, Contact, Entropy, EnvelopeId, Generation, Identity, Mailbox, Negotiation, Now,
    PeerId, Position, RequestId, Round, SafetyNumber, StoreId,
};

const LINK: Generation = Generation::nth(1, 1);
const STORE: StoreId = StoreId([3; 16]);
const VOLATILE: ChannelId = ChannelId(20);

struct Side {
    engine: Engine,
    other: PeerId,
    store: BTreeMap<Bytes, Bytes>,
    /// Every record there ever was.
    written: BTreeMap<Bytes, Bytes>,
    said: Vec<Bytes>,
    out: Vec<Bytes>,
    now: Now,
}

impl Side {
    /// Of the two, 2 is as the target makes it: what is said to it here makes sense there too.
    fn new(me: u8, other: u8, sealed: bool, class: LinkClass) -> Self {
        let now = Now::default();
        let other = Identity::from_seed([other; 32]).peer_id();
        let identity = Identity::from_seed([me; 32]);
        let entropy = Entropy::from_seed([me; 32]);
        let stored = Stored::default();
        let mut engine = Engine::open(&identity, other, 1, stored, entropy, now);
        if !sealed {
            engine.seal_nothing();
        }
        engine.bind(LINK, class, 0, now);
        Self {
            engine,
            other,
            store: BTreeMap::new(),
            written: BTreeMap::new(),
            said: Vec::new(),
            out: Vec::new(),
            now,
        }
    }

    fn send(&mut self, channel: ChannelId, payload: &'static [u8], ttl: Option<Duration>) {
        let options = SendOptions {
            ttl,
            once: (channel == ChannelId(16)).then_some([9; 32]),
        };
        let payload = Bytes::from_static(payload);
        let sent = self.engine.send(channel, &payload, &options, self.now);
        sent.expect("room in the outbox");
    }

    fn run(&mut self) {
        while let Some(output) = self.engine.poll() {
            match output {
                Output::Transmit(transmit) => {
                    self.said.push(transmit.packet.clone());
                    self.out.push(transmit.packet);
                    self.engine.accepted(LINK, transmit.envelope, self.now);
                }
                Output::Write(batch) => {
                    for (key, value) in batch {
                        match value {
                            Some(value) => {
                                self.written.insert(key.clone(), value.clone());
                                self.store.insert(key, value);
                            }
                            None => drop(self.store.remove(&key)),
                        }
                    }
                    self.engine.written(self.now);
                }
                Output::Read { range, .. } => {
                    let rows: Vec<_> = self.store.range(range).collect();
                    let rows: Vec<_> = rows
                        .into_iter()
                        .map(|(k, v)| (k.clone(), v.clone()))
                        .collect();
                    self.engine.read(&rows, self.now).expect("own records");
                }
                Output::Event(Event::Inbox { channel, end }) => self.take(channel, end),
                _ => {}
            }
        }
    }

    fn take(&mut self, channel: ChannelId, end: Position) {
        let range = Key::inbox(self.other, channel, Position(0), end);
        let rows: Vec<_> = self.store.range(range).collect();
        let rows: Vec<_> = rows
            .into_iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        for (key, value) in rows {
            let Ok(Key::Inbox(_, _, position)) = Key::from_bytes(&key) else {
                continue;
            };
            let record = InboxRecord::from_bytes(&value).expect("own record");
            self.engine.hand(channel, position, &record);
            self.engine.commit(channel, position, &record, 0, self.now);
        }
    }

    fn hear(&mut self, packets: &[Bytes]) {
        for packet in packets {
            self.engine
                .receive(LINK, Some(EnvelopeId(1)), packet.clone(), self.now);
            self.run();
        }
    }

    fn tick(&mut self, by: Duration) {
        self.now = self.now.after(by);
        self.engine.tick(self.now);
        self.run();
    }
}

fn settle(one: &mut Side, other: &mut Side) {
    loop {
        one.run();
        other.run();
        let (to_other, to_one) = (std::mem::take(&mut one.out), std::mem::take(&mut other.out));
        if to_other.is_empty() && to_one.is_empty() {
            return;
        }
        other.hear(&to_other);
        one.hear(&to_one);
    }
}

/// Both sides of a talk over a link of this class.
fn talk(sealed: bool, class: LinkClass) -> (Side, Side) {
    let (mut one, mut two) = (
        Side::new(1, 2, sealed, class),
        Side::new(2, 1, sealed, class),
    );
    two.send(ChannelId::MESSAGES, b"hello", None);
    two.send(ChannelId(16), b"are you there", None);
    two.engine.listen(VOLATILE, two.now);
    one.send(ChannelId::MESSAGES, b"yes", None);
    one.send(ChannelId(16), b"once", None);
    one.send(ChannelId::FILES, b"", Some(Duration::from_millis(1)));
    one.tick(Duration::from_millis(5));
    settle(&mut one, &mut two);
    let volatile = Bytes::from_static(b"typing");
    let sent = one.engine.send_volatile(VOLATILE, volatile, one.now);
    sent.expect("small enough");
    settle(&mut one, &mut two);
    for seconds in [1, 20] {
        one.tick(Duration::from_secs(seconds));
        two.tick(Duration::from_secs(seconds));
        settle(&mut one, &mut two);
    }
    // Asked for and never answered: a Resume that asks again.
    one.send(ChannelId::SIGNALING, b"offer", None);
    one.run();
    one.tick(Duration::from_secs(3));
    one.engine.close(CloseReason::Closed, one.now);
    one.run();
    (one, two)
}

struct Seeds {
    dir: PathBuf,
}

impl Seeds {
    fn put(&self, target: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
        let dir = self.dir.join(target);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(name), bytes)
    }

    /// Packets as the target reads them: how they come, then each behind its length.
    fn packets(
        &self,
        name: &str,
        sealed: bool,
        class: LinkClass,
        packets: &[Bytes],
    ) -> io::Result<()> {
        let direct = u8::from(class == LinkClass::Direct);
        let mut all = vec![u8::from(sealed) << 1 | direct];
        for packet in packets {
            all.extend(
                u16::try_from(packet.len())
                    .unwrap_or(u16::MAX)
                    .to_le_bytes(),
            );
            all.extend_from_slice(packet);
        }
        self.put("packet", name, &all)
    }
}

fn to_relay(identity: &Identity, to: PeerId, packet: &Bytes) -> Vec<ToRelay> {
    let peer = identity.peer_id();
    vec![
        ToRelay::Hello {
            version: VERSION,
            peer,
        },
        prove(identity, &[5; 32], STORE, None),
        ToRelay::Watch { peers: vec![to] },
        ToRelay::Submit {
            envelope: EnvelopeId(1),
            to,
            class: Class::Keep,
            ttl: 60,
            packet: packet.clone(),
        },
        ToRelay::Acknowledge {
            from: to.into(),
            envelopes: vec![EnvelopeId(7), EnvelopeId(8)],
        },
        ToRelay::Redeliver { from: to.into() },
    ]
}

fn from_relay(peer: PeerId, packet: &Bytes) -> Vec<FromRelay> {
    vec![
        FromRelay::Challenge {
            nonce: [5; 32],
            store: STORE,
            binding: Binding::None,
        },
        FromRelay::Accepted {
            envelope: EnvelopeId(1),
        },
        FromRelay::Refused {
            envelope: EnvelopeId(2),
            reason: Refusal::MailboxFull,
        },
        FromRelay::Deliver {
            from: peer.into(),
            envelope: Some(EnvelopeId(300)),
            packet: packet.clone(),
        },
        FromRelay::Presence { peer, online: true },
        FromRelay::Goodbye {
            reason: GoodbyeReason::Draining,
        },
    ]
}

fn requests(seeds: &Seeds) -> io::Result<()> {
    let id = RequestId::new(1, 7, 300);
    let payload = Bytes::from_static(b"what is the time");
    let messages = [
        (
            "request",
            Message::Request {
                id,
                ttl: Duration::from_secs(30),
                payload: payload.clone(),
            },
        ),
        ("response", Message::Response { id, payload }),
        (
            "failure",
            Message::Failure {
                id,
                text: "nobody knows".to_owned(),
            },
        ),
    ];
    for (name, message) in messages {
        seeds.put("request", name, &message.to_bytes())?;
    }
    Ok(())
}

fn signals(seeds: &Seeds) -> io::Result<()> {
    let named = |round| Negotiation {
        round: Round(round),
        run: 7,
    };
    let sdp = "v=0".to_owned();
    let candidate = "candidate:1 1 udp 1 192.0.2.7 9 typ host".to_owned();
    let signals = [
        Signal::Addresses(Addresses {
            round: Round(1),
            heard: None,
            addresses: vec![([192, 0, 2, 7], 4433).into()],
            reply: true,
        }),
        Signal::Mailboxes(Mailboxes {
            mailboxes: vec![Mailbox {
                store: StoreId([7; 16]),
                relay: "wss://relay.example".to_owned(),
            }],
        }),
        Signal::Offer(Offer {
            negotiation: named(300),
            restarts: None,
            sdp: sdp.clone(),
        }),
        Signal::Answer(Answer {
            negotiation: named(1 << 32 | 1),
            own: Round(7),
            run: 7,
            sdp,
        }),
        Signal::Candidate(Candidate {
            negotiation: named(300),
            run: 7,
            candidate,
        }),
        Signal::Decline(Decline {
            negotiation: named(3),
            above: Round(300),
        }),
        Signal::Withdraw(Withdraw {
            round: Round(9),
            declines: None,
        }),
    ];
    let mut all = Vec::new();
    for signal in signals {
        let bytes = signal.to_bytes();
        let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
        let one = [&length.to_le_bytes()[..], &bytes].concat();
        seeds.put("signal", &format!("kind-{}", signal.kind()), &one)?;
        all.extend(one);
    }
    seeds.put("signal", "all", &all)
}

fn contacts(seeds: &Seeds, one: PeerId, other: PeerId) -> io::Result<()> {
    let relays = ["wss://relay.example", "ws://127.0.0.1:4400"];
    let contact = Contact::new(other, relays).map_err(io::Error::other)?;
    let text = contact.to_string();
    // The target puts a good peer id before what it is given, too.
    let behind = text.trim_start_matches(&format!("outlive:{other}"));
    let number = SafetyNumber::of(one, other).to_string();
    for (name, text) in [
        ("contact", &text[..]),
        ("relays", behind),
        ("number", &number),
    ] {
        seeds.put("contact", name, text.as_bytes())?;
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let seeds = Seeds {
        dir: Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds"),
    };
    requests(&seeds)?;
    signals(&seeds)?;
    let [one, two] = [1, 2].map(|seed| Identity::from_seed([seed; 32]).peer_id());
    contacts(&seeds, one, two)?;
    let relayed = LinkClass::Relayed(STORE);
    for (name, sealed, class) in [
        ("sealed-relayed", true, relayed),
        ("sealed-direct", true, LinkClass::Direct),
        ("relayed", false, relayed),
        ("direct", false, LinkClass::Direct),
    ] {
        let (one, two) = talk(sealed, class);
        seeds.packets(name, sealed, class, &one.said)?;
        if sealed {
            continue;
        }
        for packet in one.said.iter().chain(&two.said) {
            // One for each set of frames there is.
            let frames = packet.slice(1..);
            let decoded = decode(&frames).unwrap_or_default();
            let kinds: Vec<_> = decoded.iter().map(|f| f.kind().to_string()).collect();
            seeds.put("frame", &format!("kinds-{}", kinds.join("-")), &frames)?;
        }
        if class == LinkClass::Direct {
            continue;
        }
        let identity = Identity::from_seed([1; 32]);
        let packet = one.said.first().cloned().unwrap_or_default();
        let (mut to, mut from) = (Vec::new(), Vec::new());
        for message in to_relay(&identity, one.other, &packet) {
            encode(&message, &mut to);
        }
        for message in from_relay(one.other, &packet) {
            encode(&message, &mut from);
        }
        seeds.put("relay_message", "to-relay", &to)?;
        seeds.put("relay_message", "from-relay", &from)?;
        for (key, value) in one.written.iter().chain(&two.written) {
            // One for each kind of key.
            let kind = key.first().copied().map_or('-', char::from);
            seeds.put("store_record", &format!("key-{kind}"), key)?;
            seeds.put("store_record", &format!("value-{kind}"), value)?;
        }
    }
    Ok(())
}
