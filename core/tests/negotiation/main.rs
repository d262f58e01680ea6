//! Two negotiators and everything the channel between them allows itself. A small world is searched
//! through, a large one at random; in each story nothing stale is applied, and when the trouble is
//! over, both peers end up with one connection.

mod connection;
mod exhaustive;
mod hostile;
mod random;
mod world;
