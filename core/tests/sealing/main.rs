//! A hostile relay between two peers, and crashes at every point: nobody but the two reads, forges,
//! replays, redirects or impersonates; at most a link is lost, never a message.

#[path = "../simulation/peer.rs"]
#[allow(dead_code, reason = "the simulation uses the rest")]
mod peer;

mod age;
mod hostile;
mod keys;
mod lengths;
mod recovery;
mod stories;
mod world;
