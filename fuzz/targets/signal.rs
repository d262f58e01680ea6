//! Any bytes as signals, which two state machines then have to bear.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use outlive_core::negotiator::{Negotiator, Rendezvous};
use outlive_core::wire::signal::Signal;
use outlive_core::{Entropy, Identity, Now, Round};

/// Outputs of one input. A peer that could cause more could fill memory.
const OUTPUTS: usize = 1_024;

fuzz_target!(|data: &[u8]| {
    let [me, peer] = [1, 2].map(|seed| Identity::from_seed([seed; 32]).peer_id());
    let mut negotiator = Negotiator::new(me, peer, Round::at_start(1), Entropy::from_seed([1; 32]));
    let mut rendezvous = Rendezvous::new(Round::at_start(1), Entropy::from_seed([2; 32]));
    let mut now = Now::default();
    negotiator.want(now);
    rendezvous.want(now);
    // Each signal is behind its length.
    let mut rest = data;
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(behind.len());
        let (bytes, behind) = behind.split_at(length);
        rest = behind;
        now = now.after(Duration::from_secs(1));
        let Ok(Some(signal)) = Signal::decode(bytes) else {
            continue;
        };
        assert_eq!(Signal::decode(&signal.to_bytes()), Ok(Some(signal.clone())));
        match signal {
            Signal::Addresses(addresses) => rendezvous.receive(addresses, now),
            other => negotiator.receive(other, now),
        }
        rendezvous.tick(now);
        negotiator.tick(now);
        let said = std::iter::from_fn(|| rendezvous.poll()).count();
        let done = std::iter::from_fn(|| negotiator.poll()).count();
        assert!(said + done < OUTPUTS, "{said} and {done}");
    }
});
