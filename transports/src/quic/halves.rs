//! The two halves of a link, each owned by whoever uses it.
//!
//! Each direction has a stream for each lane. A stream begins with a byte that names its lane; then
//! come packets, each after its length.

use std::time::Duration;

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use outlive_core::PeerId;
use outlive_core::limits::PACKET_BYTES;
use outlive_core::transport::{DirectLink, DirectReceiver, DirectSender, Lane, TransportError};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::sync::Mutex;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use super::{SEND_WINDOW, errors, peer_address};

/// Streams of a direction: one a lane. The peer may open no more.
pub(super) const LANES: u32 = 2;

/// Bytes of the length before each packet.
const LENGTH_BYTES: usize = 4;

/// Bytes of bulk that may wait here beside what the path takes at once, at the least: a packet. What
/// waits here can't be sent over another link, and on a slow path it would wait for long.
const BULK_BUFFER: u64 = PACKET_BYTES as u64;

/// How long handing over what was sent may take when a link is closed. The other end may be gone.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a connection is closed with when nothing is wrong.
pub(super) const DONE: VarInt = VarInt::from_u32(0);

/// What a connection is closed with when the other end broke the protocol.
const VIOLATION: VarInt = VarInt::from_u32(1);

const fn byte_of(lane: Lane) -> u8 {
    match lane {
        Lane::Interactive => 0,
        Lane::Bulk => 1,
    }
}

/// What waits of a lane goes before what waits of those with a smaller number.
const fn priority(lane: Lane) -> i32 {
    match lane {
        Lane::Interactive => 1,
        Lane::Bulk => 0,
    }
}

/// Makes a link of a connection that was dialed. Its first stream tells the other end that of all
/// connections that were tried this is the one. Cancellation-safe: dropped half-way, it is closed.
pub(super) async fn dialed(
    connection: Connection,
    peer: PeerId,
) -> Result<DirectLink, TransportError> {
    let sender = Sender::open(connection.clone()).await?;
    let receiver = Receiver::new(connection);
    Ok(link(peer, sender, receiver))
}

/// Makes a link of a connection that was accepted, once the one who dialed has settled on it.
/// Cancellation-safe: dropped half-way, it is closed.
pub(super) async fn accepted(
    connection: Connection,
    peer: PeerId,
) -> Result<DirectLink, TransportError> {
    let mut receiver = Receiver::new(connection.clone());
    receiver.open_lane().await?;
    let sender = Sender::open(connection).await?;
    Ok(link(peer, sender, receiver))
}

fn link(peer: PeerId, sender: Sender, receiver: Receiver) -> DirectLink {
    DirectLink {
        peer,
        address: peer_address(&sender.connection),
        sender: Box::new(sender),
        receiver: Box::new(receiver),
    }
}

struct Sender {
    connection: Connection,
    interactive: Mutex<SendStream>,
    bulk: Mutex<SendStream>,
}

/// What both lanes together may have unacknowledged before a packet of `lane` has to wait: of bulk,
/// as much as the path takes and half of it again, so that it never runs dry.
fn window(connection: &Connection, lane: Lane) -> u64 {
    match lane {
        Lane::Interactive => SEND_WINDOW,
        Lane::Bulk => {
            let path = connection.stats().path.cwnd;
            path.saturating_add(BULK_BUFFER.max(path / 2))
                .min(SEND_WINDOW / 2)
        }
    }
}

impl Sender {
    async fn open(connection: Connection) -> Result<Self, TransportError> {
        Ok(Self {
            interactive: Mutex::new(open_lane(&connection, Lane::Interactive).await?),
            bulk: Mutex::new(open_lane(&connection, Lane::Bulk).await?),
            connection,
        })
    }
}

async fn open_lane(connection: &Connection, lane: Lane) -> Result<SendStream, TransportError> {
    let opened = connection.open_uni().await;
    let mut stream = opened.map_err(|error| errors::ended(&error))?;
    // It can't be closed already, and a stream without a priority works as well.
    let _ = stream.set_priority(priority(lane));
    let written = stream.write_all(&[byte_of(lane)]).await;
    written.map_err(|error| errors::writing(&error))?;
    Ok(stream)
}

#[async_trait]
impl DirectSender for Sender {
    async fn send(&self, lane: Lane, packets: Vec<Bytes>) -> Result<(), TransportError> {
        let mut lengths = BytesMut::with_capacity(LENGTH_BYTES * packets.len());
        for packet in &packets {
            match u32::try_from(packet.len()) {
                Ok(length) if (1..=PACKET_BYTES).contains(&packet.len()) => {
                    lengths.put_u32_le(length);
                }
                _ => {
                    return Err(TransportError::Broken(format!(
                        "a packet has 1 to {PACKET_BYTES} bytes, this one has {}",
                        packet.len()
                    )));
                }
            }
        }
        let mut lengths = lengths.freeze();
        let mut stream = match lane {
            Lane::Interactive => self.interactive.lock().await,
            Lane::Bulk => self.bulk.lock().await,
        };
        for packet in packets {
            self.connection
                .set_send_window(window(&self.connection, lane));
            let mut chunks = [lengths.split_to(LENGTH_BYTES), packet];
            let written = stream.write_all_chunks(&mut chunks).await;
            written.map_err(|error| errors::writing(&error))?;
        }
        if lane == Lane::Interactive && self.bulk.try_lock().is_err() {
            // Bulk that waits meanwhile waits for no more room than before.
            let bulk = window(&self.connection, Lane::Bulk);
            self.connection.set_send_window(bulk);
        }
        Ok(())
    }

    async fn close(&mut self) {
        // Whether it is heard or not, the connection ends.
        let (interactive, bulk) = (self.interactive.get_mut(), self.bulk.get_mut());
        let _ = interactive.finish();
        let _ = bulk.finish();
        let heard = futures_util::future::join(interactive.stopped(), bulk.stopped());
        let _ = tokio::time::timeout(FAREWELL, heard).await;
        self.connection.close(DONE, b"");
    }
}

type Packets = FramedRead<RecvStream, LengthDelimitedCodec>;

/// A lane as it is read.
enum Reading {
    /// The peer has not opened it yet.
    Missing,
    Open(Packets),
    /// The peer has said all there was.
    Finished,
}

struct Receiver {
    connection: Connection,
    interactive: Reading,
    bulk: Reading,
    /// A stream that has not said yet which lane it is.
    opening: Option<RecvStream>,
}

impl Receiver {
    fn new(connection: Connection) -> Self {
        Self {
            connection,
            interactive: Reading::Missing,
            bulk: Reading::Missing,
            opening: None,
        }
    }

    /// Takes one more stream and puts it into its lane. Cancellation-safe.
    async fn open_lane(&mut self) -> Result<(), TransportError> {
        let lane = named(&self.connection, &mut self.opening).await?;
        self.put(lane)
    }

    fn put(&mut self, lane: Lane) -> Result<(), TransportError> {
        let place = match lane {
            Lane::Interactive => &mut self.interactive,
            Lane::Bulk => &mut self.bulk,
        };
        match (&place, self.opening.take()) {
            (Reading::Missing, Some(stream)) => *place = Reading::Open(packets(stream)),
            _ => return Err(protocol("it opened a lane twice")),
        }
        Ok(())
    }

    /// The next packet. Cancellation-safe.
    async fn next(&mut self) -> Result<Bytes, TransportError> {
        loop {
            let misses_a_lane = match (&self.interactive, &self.bulk) {
                (Reading::Finished, Reading::Finished) => {
                    return Err(TransportError::Finished);
                }
                (Reading::Missing, _) | (_, Reading::Missing) => true,
                (Reading::Open(_) | Reading::Finished, Reading::Open(_) | Reading::Finished) => {
                    false
                }
            };
            let lane = tokio::select! {
                // What somebody waits for comes first here too.
                biased;
                packet = next(&mut self.interactive) => match packet? {
                    Some(packet) => return Ok(packet),
                    None => continue,
                },
                packet = next(&mut self.bulk) => match packet? {
                    Some(packet) => return Ok(packet),
                    None => continue,
                },
                lane = named(&self.connection, &mut self.opening), if misses_a_lane => lane?,
            };
            self.put(lane)?;
        }
    }
}

/// Waits for a stream and for what it says about its lane. Cancellation-safe: what was there stays
/// in `opening`.
async fn named(
    connection: &Connection,
    opening: &mut Option<RecvStream>,
) -> Result<Lane, TransportError> {
    let stream = match opening {
        Some(stream) => stream,
        none => {
            let accepted = connection.accept_uni().await;
            none.insert(accepted.map_err(|error| errors::ended(&error))?)
        }
    };
    let mut byte = [0];
    let read = stream.read(&mut byte).await;
    match (read.map_err(|error| errors::reading(&error))?, byte) {
        (Some(_), [0]) => Ok(Lane::Interactive),
        (Some(_), [1]) => Ok(Lane::Bulk),
        _ => Err(protocol("it opened a stream that is no lane")),
    }
}

fn protocol(what: &str) -> TransportError {
    TransportError::Protocol(what.to_owned())
}

/// Reads packets off a stream. A length that is too large is an error before a byte is allocated.
fn packets(stream: RecvStream) -> Packets {
    LengthDelimitedCodec::builder()
        .length_field_type::<u32>()
        .little_endian()
        .max_frame_length(PACKET_BYTES)
        .new_read(stream)
}

/// The next packet of a lane, or that there are no more; nothing at all while it is not open.
/// Cancellation-safe.
async fn next(lane: &mut Reading) -> Result<Option<Bytes>, TransportError> {
    let Reading::Open(packets) = lane else {
        return std::future::pending().await;
    };
    match packets.next().await {
        Some(Ok(packet)) if packet.is_empty() => Err(protocol("it sent an empty packet")),
        Some(Ok(packet)) => Ok(Some(packet.freeze())),
        Some(Err(error)) => Err(errors::unframing(&error)),
        None => {
            *lane = Reading::Finished;
            Ok(None)
        }
    }
}

#[async_trait]
impl DirectReceiver for Receiver {
    async fn receive(&mut self) -> Result<Bytes, TransportError> {
        let received = self.next().await;
        if let Err(TransportError::Protocol(_)) = received {
            self.connection.close(VIOLATION, b"");
        }
        received
    }
}
