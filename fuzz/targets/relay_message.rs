//! Any bytes between a peer and a relay.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outlive_core::wire::relay::{FromRelay, ToRelay, decode, encode};

fuzz_target!(|data: &[u8]| {
    if let Ok(messages) = decode::<ToRelay>(data) {
        let mut bytes = Vec::new();
        messages
            .iter()
            .for_each(|message| encode(message, &mut bytes));
        assert_eq!(decode::<ToRelay>(&bytes), Ok(messages));
    }
    if let Ok(messages) = decode::<FromRelay>(data) {
        let mut bytes = Vec::new();
        messages
            .iter()
            .for_each(|message| encode(message, &mut bytes));
        assert_eq!(decode::<FromRelay>(&bytes), Ok(messages));
    }
});
