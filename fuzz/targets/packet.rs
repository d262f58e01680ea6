//! Any packet from a peer, given to an engine: it never panics, and never stops to answer.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use outlive_core::engine::{Engine, Output, Stored};
use outlive_core::link::LinkClass;
use outlive_core::{Entropy, EnvelopeId, Generation, Identity, Now, StoreId};

fuzz_target!(|data: &[u8]| {
    let peer = Identity::from_seed([1; 32]).peer_id();
    let (stored, entropy) = (Stored::default(), Entropy::from_seed([2; 32]));
    let now = Now::default();
    let identity = Identity::from_seed([4; 32]);
    let Ok(mut engine) = Engine::open(&identity, peer, 1, &stored, entropy, now) else {
        return;
    };
    // What is inside of a packet comes from the peer too; sealed, the fuzzer would never get there.
    engine.seal_nothing();
    let generation = Generation::nth(1, 1);
    engine.bind(generation, LinkClass::Relayed(StoreId([3; 16])), 0, now);
    // Two packets, so that one can build on the other.
    let (first, second) = data.split_at(data.len() / 2);
    for (number, body) in [(1, first), (2, second)] {
        let packet = [&[1, 1][..], body].concat();
        engine.receive(
            generation,
            Some(EnvelopeId(number)),
            Bytes::from(packet),
            now,
        );
        for _ in 0..10_000 {
            match engine.poll() {
                Some(Output::Write(_)) => engine.written(now),
                Some(Output::Read { .. }) => drop(engine.read(&[], now)),
                Some(_) => {}
                None => break,
            }
        }
        assert!(engine.poll().is_none(), "an engine that never rests");
    }
});
