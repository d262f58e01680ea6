//! The command line.

mod relay;
mod ways;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use outlive::{ChannelId, PeerId, Stage, limits};

pub(crate) use self::relay::Relay;
pub(crate) use self::ways::{Direct, Foreign, Ways};
use crate::given::{Unrepeated, contact, relay};

/// Messaging sessions that outlive their connections.
#[derive(Debug, Parser)]
#[command(name = "outlive", version)]
pub(crate) struct Args {
    /// Print one JSON object a line.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the peer id of a data directory, making both if they are new.
    Id(Data),
    /// Serve as a relay until SIGTERM, then drain.
    Relay(Relay),
    /// Send the lines of a file, one message each.
    ///
    /// The line feed that ends a line is not sent; `listen` prints one behind each message. So a
    /// file whose last line has none arrives with one, a byte longer. Use --binary on both ends
    /// where each byte counts, and where a line is longer than 16 MiB.
    Send(Send),
    /// Print messages as they come, and commit each once it is printed.
    ///
    /// Without --from a terminal shows the first characters of the sender's peer id before each; use
    /// --json to have it as a whole.
    Listen(Listen),
    /// Send files.
    ///
    /// What is not there when this ends goes on with the next command that connects this data
    /// directory to a relay, as listen, chat or send do, for as long as that runs. A file that is named
    /// again is sent once more, as another file.
    SendFile(SendFile),
    /// Receive the files that peers send, into a directory.
    ReceiveFiles(ReceiveFiles),
    /// Talk with a peer.
    Chat(Chat),
    /// List the sessions of a data directory.
    Sessions(Data),
    /// Encrypt a data directory with a passphrase, or change its passphrase.
    ///
    /// The directory must be new, encrypted, or without sessions: one that holds sessions in the
    /// clear can't be converted, nor can an encrypted one be made readable again.
    Passphrase(Passphrase),
    /// Print the number to compare with a peer, to know that nobody stands in between.
    Verify(Verify),
    /// Refuse what a peer sends, and send it nothing.
    Block(Decide),
    /// Take a peer's messages again.
    Unblock(Decide),
    /// Print what to give to somebody who wants to write to this peer.
    Contact(Contact),
    /// Watch two peers talk through a relay while their links are cut again and again.
    Demo(Demo),
    /// One of the two peers of the demo.
    #[command(hide = true)]
    DemoPeer(DemoPeer),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Data {
    /// The directory that holds identity and store. One command at a time can have it open; `sessions`
    /// and `id` work beside it.
    #[arg(long = "data", value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// A file whose first line is the passphrase of the directory; a new directory is encrypted
    /// with it. If not given, the variable OUTLIVE_PASSPHRASE is used, if it is set.
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Passphrase {
    #[command(flatten)]
    pub(crate) data: Data,
    /// A file whose first line is the new passphrase. If not given, the variable
    /// OUTLIVE_NEW_PASSPHRASE is used.
    #[arg(long, value_name = "FILE")]
    pub(crate) new_passphrase_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) data: Data,
    /// Mark the peer as verified: the other person sees the same number.
    #[arg(long)]
    pub(crate) confirm: bool,
    /// The peer, as its peer id, contact, or `@FILE` that holds one.
    #[arg(value_name = "PEER", value_parser = Unrepeated(contact))]
    pub(crate) peer: outlive::Contact,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Decide {
    #[command(flatten)]
    pub(crate) data: Data,
    /// The peer, as its peer id, contact, or `@FILE` that holds one.
    #[arg(value_name = "PEER", value_parser = Unrepeated(contact))]
    pub(crate) peer: outlive::Contact,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Contact {
    #[command(flatten)]
    pub(crate) data: Data,
    /// A relay where this peer can be reached, as wss://host or ws://host:port; the best first.
    #[arg(long, value_name = "URL", value_parser = Unrepeated(relay))]
    pub(crate) relay: Vec<String>,
    /// Put this peer's delivery token into it: whoever has the contact sends without the relay being
    /// told who it is.
    #[arg(long)]
    pub(crate) token: bool,
    /// Print it as a QR code too.
    #[arg(long, conflicts_with = "json")]
    pub(crate) qr: bool,
}

/// How far a message has to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wait {
    /// Durable here.
    Queued,
    /// Durable at a relay.
    Custody,
    /// Durable at the peer.
    Delivered,
    /// Committed by the peer's app.
    Consumed,
}

impl Wait {
    pub(crate) const fn stage(self) -> Stage {
        match self {
            Self::Queued => Stage::Queued,
            Self::Custody => Stage::Custody,
            Self::Delivered => Stage::Delivered,
            Self::Consumed => Stage::Consumed,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Send {
    #[command(flatten)]
    pub(crate) data: Data,
    #[command(flatten)]
    pub(crate) ways: Ways,
    /// The peer to send to, as `outlive id` or `outlive contact` prints it there; `@FILE` is the first
    /// line of a file, for a contact with a token.
    #[arg(long, value_name = "PEER", value_parser = Unrepeated(contact))]
    pub(crate) to: outlive::Contact,
    /// The channel: 1, 2, or 16 to 65535.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = channel)]
    pub(crate) channel: u16,
    /// How far each message has to get before this ends. `queued` needs no relay; `delivered` and
    /// `consumed` wait as long as the peer is away, unless --timeout is given.
    #[arg(long, value_enum, default_value = "delivered")]
    pub(crate) wait: Wait,
    /// Give up after this many seconds. What is queued stays queued.
    #[arg(long, value_name = "SECS")]
    pub(crate) timeout: Option<u64>,
    /// Send each line once, however often this is run with the same key. A line is the same if its
    /// number and its text are: what was changed or put in between is sent, and what follows that.
    #[arg(long, value_name = "KEY")]
    pub(crate) once: Option<String>,
    /// Send the bytes as they are, in messages of 1 MiB, instead of lines of text.
    #[arg(long)]
    pub(crate) binary: bool,
    /// The file to send; `-` is stdin.
    #[arg(default_value = "-", value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Listen {
    #[command(flatten)]
    pub(crate) data: Data,
    #[command(flatten)]
    pub(crate) ways: Ways,
    /// Only messages of this peer, given as its peer id, contact, or `@FILE` that
    /// holds one; of anyone if not said.
    #[arg(long, value_name = "PEER", value_parser = Unrepeated(contact))]
    pub(crate) from: Option<outlive::Contact>,
    /// The channel: 1, 2, or 16 to 65535.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = channel)]
    pub(crate) channel: u16,
    /// End after this many messages.
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Fail after this many seconds.
    #[arg(long, value_name = "SECS")]
    pub(crate) timeout: Option<u64>,
    /// Print the bytes as they are, with nothing between messages.
    #[arg(long, conflicts_with = "json")]
    pub(crate) binary: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SendFile {
    #[command(flatten)]
    pub(crate) data: Data,
    #[command(flatten)]
    pub(crate) ways: Ways,
    /// The peer to send to, as `outlive id` or `outlive contact` prints it there; `@FILE` is the first
    /// line of a file, for a contact with a token.
    #[arg(long, value_name = "PEER", value_parser = Unrepeated(contact))]
    pub(crate) to: outlive::Contact,
    /// Give up waiting after this many seconds.
    #[arg(long, value_name = "SECS")]
    pub(crate) timeout: Option<u64>,
    /// The files. They must not change until they are there.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ReceiveFiles {
    #[command(flatten)]
    pub(crate) data: Data,
    #[command(flatten)]
    pub(crate) ways: Ways,
    /// The directory for them, which has to exist. Nothing in it is overwritten.
    #[arg(long, value_name = "DIR")]
    pub(crate) into: PathBuf,
    /// Only files of this peer, given as its peer id, contact, or `@FILE` that
    /// holds one; of anyone if not said.
    #[arg(long, value_name = "PEER", value_parser = Unrepeated(contact))]
    pub(crate) from: Option<outlive::Contact>,
    /// End after this many files.
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Decline files of more bytes.
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_size: Option<u64>,
    /// Fail after this many seconds.
    #[arg(long, value_name = "SECS")]
    pub(crate) timeout: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Chat {
    #[command(flatten)]
    pub(crate) data: Data,
    #[command(flatten)]
    pub(crate) ways: Ways,
    /// The peer to talk with, as its peer id, contact, or `@FILE` that holds one.
    #[arg(long, value_name = "PEER", value_parser = Unrepeated(contact))]
    pub(crate) with: outlive::Contact,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// Messages in both directions together.
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub(crate) messages: u64,
    /// Links to cut while they talk.
    #[arg(long, default_value_t = 120, value_name = "N")]
    pub(crate) cuts: u64,
    /// Links to the peer itself that come up beside the relay, and are cut too.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "quic,webrtc")]
    pub(crate) direct: Vec<Direct>,
    /// Fail after this many seconds.
    #[arg(long, default_value_t = 300, value_name = "SECS")]
    pub(crate) timeout: u64,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DemoPeer {
    #[command(flatten)]
    pub(crate) data: Data,
    #[arg(long)]
    pub(crate) relay: String,
    #[arg(long)]
    pub(crate) to: PeerId,
    #[arg(long)]
    pub(crate) messages: u64,
    /// Milliseconds the sending is spread over.
    #[arg(long)]
    pub(crate) spread: u64,
    /// Where the socket for links over QUIC is to be.
    #[arg(long, requires = "found_at")]
    pub(crate) socket: Option<SocketAddr>,
    /// Where the other peer is to find it.
    #[arg(long)]
    pub(crate) found_at: Option<SocketAddr>,
    /// Have links over WebRTC too.
    #[arg(long)]
    pub(crate) webrtc: bool,
}

/// Bytes of one message of `send --binary`.
pub(crate) const CHUNK: usize = 1024 * 1024;

const _: () = assert!(CHUNK <= limits::MESSAGE_BYTES, "a chunk is one message");

/// A channel that apps may use.
fn channel(text: &str) -> Result<u16, String> {
    const CHANNELS: &str = "use 1, 2, or 16 to 65535";
    let number = text.parse::<u16>();
    let number = number.map_err(|_| format!("there is no such channel; {CHANNELS}"))?;
    if ChannelId(number).is_for_apps() {
        Ok(number)
    } else {
        Err(format!("it is the library's own; {CHANNELS}"))
    }
}
