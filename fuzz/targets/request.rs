//! Any bytes as a message on the requests channel.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use outlive_core::wire::request::{Message, peek};

fuzz_target!(|data: &[u8]| {
    let peeked = peek(data);
    if let Ok(message) = Message::decode(&Bytes::copy_from_slice(data)) {
        assert!(peeked.is_ok());
        assert_eq!(Message::decode(&message.to_bytes()), Ok(message));
    }
});
