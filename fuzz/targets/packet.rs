//! Any packets from a peer, given to an engine: it never panics, and never ceases to rest.
//!
//! The input is a run of packets, each behind its length in two bytes, so that one can build on
//! the other.
#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use outlive_core::engine::{Engine, Output, SendOptions, Stored};
use outlive_core::link::LinkClass;
use outlive_core::{ChannelId, Entropy, EnvelopeId, Generation, Identity, Now, PeerId, StoreId};

const LINK: Generation = Generation::nth(1, 1);

/// Made once: it costs more than all else.
static PEER: LazyLock<PeerId> = LazyLock::new(|| Identity::from_seed([1; 32]).peer_id());
static SELF: LazyLock<Identity> = LazyLock::new(|| Identity::from_seed([2; 32]));

/// Packets of one input that count.
const PACKETS: u64 = 16;

type Disk = BTreeMap<Bytes, Bytes>;

fn rest(engine: &mut Engine, disk: &mut Disk, now: Now) {
    for _ in 0..10_000 {
        match engine.poll() {
            Some(Output::Write(batch)) => {
                for (key, value) in batch {
                    match value {
                        Some(value) => disk.insert(key, value),
                        None => disk.remove(&key),
                    };
                }
                engine.written(now);
            }
            Some(Output::Read { range, limit }) => {
                let rows = disk.range(range).take(limit.records);
                let rows: Vec<_> = rows.map(|(k, v)| (k.clone(), v.clone())).collect();
                engine.read(&rows, now).expect("own records");
            }
            Some(_) => {}
            None => return,
        }
    }
    panic!("an engine that never rests");
}

fuzz_target!(|data: &[u8]| {
    let Some((&how, mut data)) = data.split_first() else {
        return;
    };
    let (stored, entropy) = (Stored::default(), Entropy::from_seed([2; 32]));
    let (mut disk, mut now) = (Disk::new(), Now::default());
    let mut engine = Engine::open(&SELF, *PEER, 1, stored, entropy, now);
    // What is inside of a packet comes from the peer too; sealed, the fuzzer would never get there.
    if how & 2 == 0 {
        engine.seal_nothing();
    }
    let class = if how & 1 == 0 {
        LinkClass::Relayed(StoreId([3; 16]))
    } else {
        LinkClass::Direct
    };
    engine.bind(LINK, class, 0, now);
    // Something to acknowledge.
    for (channel, payload) in [
        (ChannelId::MESSAGES, "hello"),
        (ChannelId(16), "are you there"),
    ] {
        let (payload, options) = (
            Bytes::from_static(payload.as_bytes()),
            SendOptions::default(),
        );
        drop(engine.send(channel, &payload, &options, now));
    }
    engine.listen(ChannelId(20), now);
    rest(&mut engine, &mut disk, now);
    for number in 1..=PACKETS {
        let Some((length, tail)) = data.split_first_chunk::<2>() else {
            break;
        };
        let length = usize::from(u16::from_le_bytes(*length)).min(tail.len());
        let (packet, tail) = tail.split_at(length);
        data = tail;
        let packet = Bytes::copy_from_slice(packet);
        engine.receive(LINK, Some(EnvelopeId(number)), packet, now);
        rest(&mut engine, &mut disk, now);
        now = now.after(Duration::from_secs(1));
        engine.tick(now);
        rest(&mut engine, &mut disk, now);
    }
});
