//! Sessions that move between a relay and links to the peer itself, over real sockets.

mod files;
mod found;
mod given;
mod links;
mod negotiated;
mod privacy;
mod quiet;
mod road;
mod secrecy;
mod tap;
mod world;
