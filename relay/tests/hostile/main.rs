//! Clients that break the rules, and stores that fail, against a relay over real sockets: nothing
//! it accepted is lost, nobody else is disturbed, and everything it holds has a bound.

mod client;
mod health;
mod limits;
mod mailbox;
mod metrics;
mod protocol;
mod renewal;
mod stores;
mod stun;
mod tls;
mod unidentified;
