//! A sealed session over a direct link against that link alone: two hosts of the network lab, a wire
//! with a weather between them, and on it first the bare transport, then a session that has moved
//! to a link of the same transport.
//!
//! ```text
//! cargo bench -p outlive --bench links                    all rows, medians of three rounds
//! cargo bench -p outlive --bench links -- quic loss       those with these words in their names
//! cargo bench -p outlive --bench links -- --rounds=11     medians of eleven
//! ```
//!
//! The bare link sends packets of 16 KiB for 16 seconds, or until it has sent so many bytes; the file
//! has as many bytes as came. Its time is the whole of it: from `send_file`, which reads and hashes it,
//! until it is whole, checked and has its name. The messages are durable at both ends, in `Buffered`;
//! beside them stands what one sled takes of the same payloads. Beside the round trip of the bare link stands
//! that of the same link with the writes that durable messages take at the least. It takes root, on Linux.

#[cfg(target_os = "linux")]
#[path = "links/bare.rs"]
mod bare;
#[cfg(target_os = "linux")]
#[path = "../tests/lab/host.rs"]
#[expect(dead_code, reason = "no host here routes or hides another")]
mod host;
#[cfg(target_os = "linux")]
#[path = "../tests/lab/lab.rs"]
mod lab;
#[cfg(target_os = "linux")]
#[path = "links/rows.rs"]
mod rows;
#[cfg(target_os = "linux")]
#[path = "links/session.rs"]
mod session;
#[cfg(target_os = "linux")]
#[path = "../tests/lab/weather.rs"]
mod weather;
#[cfg(target_os = "linux")]
#[path = "../tests/lab/wire.rs"]
#[expect(dead_code, reason = "no wire here is cut")]
mod wire;

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<()> {
    rows::measure()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("SKIPPED: the network lab is for Linux");
}
