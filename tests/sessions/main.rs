//! The public API over real sockets: the four scenarios of the bug that started the project, every
//! test recommended with it, and what users of other systems reported.

mod callbacks;
mod delivery;
mod dialing;
mod many;
mod once;
mod paper;
mod receipts;
mod secrecy;
mod shutdown;
mod strangers;
mod watched;
mod world;
