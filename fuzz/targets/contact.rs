//! Any text as a contact, alone and behind a good peer id; and as a safety number.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outlive_core::{Contact, Identity, SafetyNumber};

fn same(text: &str) {
    if let Ok(contact) = text.parse::<Contact>() {
        assert_eq!(contact.to_string().parse(), Ok(contact));
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    same(text);
    let peer = Identity::from_seed([1; 32]).peer_id();
    same(&format!("outlive:{peer}{text}"));
    if let Ok(number) = text.parse::<SafetyNumber>() {
        assert_eq!(number.to_string().parse(), Ok(number));
    }
});
