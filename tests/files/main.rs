//! Files over the public API: whole or not at all, whatever happens to links, processes and disks.

mod arriving;
mod asking;
mod disks;
mod endings;
mod hostile;
mod names;
mod offers;
mod sources;
mod stories;
mod trouble;
mod world;
