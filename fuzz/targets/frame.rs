//! Frames that decode encode to what decodes to the same frames.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use outlive_core::wire::packet::{PacketBuilder, decode};

fuzz_target!(|data: &[u8]| {
    let Ok(frames) = decode(&Bytes::copy_from_slice(data)) else {
        return;
    };
    let mut builder = PacketBuilder::new();
    for frame in &frames {
        if !builder.push(frame) {
            // Its encoding may be shorter than ours, near the limit.
            return;
        }
    }
    let again = decode(&Bytes::from(builder.finish()));
    assert_eq!(again.as_deref(), Ok(&frames[..]));
});
