//! What goes beside a file, and behind it.

use std::time::Duration;

use outlive_core::{ChannelId, Generation};

use crate::pair::{MUCH, Pair};

/// Messages of 16 KiB on the channel of files.
const PARTS: usize = 1_200;

#[test]
fn a_file_on_a_slow_link_is_sent_once_however_long_it_takes() {
    let mut pair = Pair::sealed();
    pair.bind(Generation::nth(1, 1));
    pair.part_takes = Some(Duration::from_millis(300));
    for _ in 0..PARTS {
        pair.send_on(0, ChannelId::FILES, MUCH);
    }
    let began = pair.now.elapsed;
    while !pair.delivered() {
        pair.pass(Duration::from_secs(1));
    }
    let took = pair.now.elapsed - began;
    assert!(took > Duration::from_secs(100), "{took:?}");
    let least = PARTS * MUCH.len();
    assert!(
        pair.part_bytes < least + least / 20,
        "{} bytes in place of {least}",
        pair.part_bytes
    );
}
