//! Packets: several frames in one run of bytes.
//!
//! ```text
//! packet (opened) = version frame*
//! frame           = kind length body        kind: u8, length: varint, body: postcard
//! ```
//!
//! A frame of an unknown kind from [`FIRST_OPTIONAL_KIND`] on is skipped by its length; one below
//! is an error. So a later version can add what earlier ones may ignore.

use bytes::Bytes;
use postcard::ser_flavors::Size;
use serde::{Deserialize, Serialize};

use super::WireError;
use super::frame::{Data, FIRST_OPTIONAL_KIND, Frame};
use crate::Seq;
use crate::limits::{
    ACK_RANGES, CHANNELS, HANDSHAKE_BYTES, MESSAGE_SEGMENTS, PACKET_BYTES, SEGMENT_BYTES,
    VOLATILE_BYTES,
};

/// The version of the frames in a packet.
pub const VERSION: u8 = 1;

/// Bytes that a frame's kind and length take at most.
const FRAME_HEADER: usize = 6;

/// Collects frames until a packet is full.
#[derive(Debug)]
pub struct PacketBuilder {
    bytes: Vec<u8>,
    limit: usize,
}

impl Default for PacketBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl PacketBuilder {
    /// An empty packet, with room for the frames that fit however it is sealed.
    #[must_use]
    pub fn new() -> Self {
        Self {
            // Of most packets nothing comes: there is nothing to say.
            bytes: Vec::new(),
            limit: PACKET_BYTES - crate::seal::OVERHEAD,
        }
    }

    /// Adds a frame. Returns false, and changes nothing, if it does not fit any more.
    #[must_use]
    pub fn push(&mut self, frame: &Frame) -> bool {
        match frame {
            Frame::Resume(f) => self.push_body(frame.kind(), f),
            Frame::Data(f) => self.push_body(frame.kind(), f),
            Frame::Ack(f) => self.push_body(frame.kind(), f),
            Frame::Skip(f) => self.push_body(frame.kind(), f),
            Frame::Volatile(f) => self.push_body(frame.kind(), f),
            Frame::Subscribe(f) | Frame::Unsubscribe(f) => self.push_body(frame.kind(), f),
            Frame::Ping(f) | Frame::Pong(f) => self.push_body(frame.kind(), f),
            Frame::PathChallenge(f) | Frame::PathResponse(f) => self.push_body(frame.kind(), f),
            Frame::Close(f) => self.push_body(frame.kind(), f),
            Frame::Initiation(f) | Frame::Response(f) => self.push_body(frame.kind(), f),
        }
    }

    fn push_body<T: Serialize>(&mut self, kind: u8, body: &T) -> bool {
        let Ok(size) = postcard::serialize_with_flavor(body, Size::default()) else {
            return false;
        };
        let begin = self.bytes.len();
        if begin.max(1) + FRAME_HEADER + size > self.limit {
            return false;
        }
        if size > SEGMENT_BYTES / 2 {
            // Others like it follow.
            self.bytes.reserve_exact(self.limit - begin);
        }
        if self.bytes.is_empty() {
            self.bytes.push(VERSION);
        }
        self.bytes.push(kind);
        let length = u32::try_from(size).unwrap_or(u32::MAX);
        let pushed = self.append(&length, FRAME_HEADER) && self.append(body, size);
        if !pushed {
            self.bytes.truncate(begin);
        }
        pushed
    }

    /// Writes a value that has at most so many bytes.
    fn append<T: Serialize>(&mut self, value: &T, size: usize) -> bool {
        let begin = self.bytes.len();
        self.bytes.resize(begin + size, 0);
        let place = self.bytes.get_mut(begin..).unwrap_or_default();
        let written = postcard::to_slice(value, place).map(|written| written.len());
        self.bytes
            .truncate(begin + written.as_ref().copied().unwrap_or(0));
        written.is_ok()
    }

    /// Makes the packet longer, so that its length tells little of what is in it: for one that somebody
    /// else carries. Nothing fits behind it.
    pub fn pad(&mut self) {
        if self.bytes.is_empty() {
            self.bytes.push(VERSION);
        }
        super::padding::pad(&mut self.bytes, self.limit);
    }

    /// Whether there is no frame in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes, ready to be sealed.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        if self.bytes.is_empty() {
            self.bytes.push(VERSION);
        }
        self.bytes
    }
}

/// Reads the frames of an opened packet. Optional frames of unknown kind are left out.
///
/// # Errors
/// [`WireError`] if the bytes are no packet of this version; then no frame of it counts.
pub fn decode(packet: &Bytes) -> Result<Vec<Frame>, WireError> {
    if packet.len() > PACKET_BYTES {
        return Err(WireError::TooLarge {
            what: "a packet",
            size: packet.len(),
            limit: PACKET_BYTES,
        });
    }
    let mut rest: &[u8] = packet;
    let Some((&version, tail)) = rest.split_first() else {
        return Err(WireError::Length("a packet"));
    };
    if version != VERSION {
        return Err(WireError::Invalid("the packet is of another version"));
    }
    rest = tail;
    let mut frames = Vec::new();
    while let Some((&kind, tail)) = rest.split_first() {
        let (length, tail) = postcard::take_from_bytes::<u32>(tail)
            .map_err(WireError::malformed("a frame's length"))?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some((body, tail)) = tail.split_at_checked(length) else {
            return Err(WireError::Length("a frame"));
        };
        if let Some(frame) = decode_frame(kind, body, packet)? {
            check(&frame)?;
            frames.push(frame);
        }
        rest = tail;
    }
    Ok(frames)
}

fn decode_frame(kind: u8, body: &[u8], packet: &Bytes) -> Result<Option<Frame>, WireError> {
    fn whole<'a, T: Deserialize<'a>>(what: &'static str, body: &'a [u8]) -> Result<T, WireError> {
        match postcard::take_from_bytes(body).map_err(WireError::malformed(what))? {
            (value, []) => Ok(value),
            _ => Err(WireError::Length(what)),
        }
    }
    Ok(Some(match kind {
        1 => Frame::Resume(whole("a Resume", body)?),
        2 => Frame::Data(whole::<Data<&[u8]>>("a Data frame", body)?.within(packet)),
        3 => Frame::Ack(whole("an Ack", body)?),
        4 => Frame::Skip(whole("a Skip", body)?),
        5 => Frame::Close(whole("a Close", body)?),
        6 => Frame::Volatile(whole("a Volatile", body)?),
        7 => Frame::Subscribe(whole("a Subscribe", body)?),
        8 => Frame::Unsubscribe(whole("an Unsubscribe", body)?),
        9 => Frame::Ping(whole("a Ping", body)?),
        10 => Frame::Pong(whole("a Pong", body)?),
        11 => Frame::PathChallenge(whole("a PathChallenge", body)?),
        12 => Frame::PathResponse(whole("a PathResponse", body)?),
        13 => Frame::Initiation(whole("an Initiation", body)?),
        14 => Frame::Response(whole("a Response", body)?),
        FIRST_OPTIONAL_KIND.. => return Ok(None),
        _ => return Err(WireError::UnknownFrame(kind)),
    }))
}

/// What a type cannot say: lengths, order, sense.
fn check(frame: &Frame) -> Result<(), WireError> {
    let at_most = |what, size, limit| {
        if size > limit {
            Err(WireError::TooLarge { what, size, limit })
        } else {
            Ok(())
        }
    };
    match frame {
        Frame::Resume(resume) => {
            at_most("a Resume's list", resume.received.len(), CHANNELS)?;
            at_most("a Resume's list", resume.offered.len(), CHANNELS)?;
            for offered in &resume.offered {
                if offered.lowest.0 == 0 || offered.end < offered.lowest {
                    return Err(WireError::Invalid("a Resume offers a range that is none"));
                }
            }
            resume.received.iter().try_for_each(check_received)
        }
        Frame::Ack(ack) => {
            at_most("an Ack's list", ack.received.len(), CHANNELS)?;
            ack.received.iter().try_for_each(check_received)
        }
        Frame::Data(data) => {
            at_most("a segment", data.payload.len(), SEGMENT_BYTES)?;
            if data.seq.0 == 0 || data.again.is_some_and(|first| first.seq.0 == 0) {
                return Err(WireError::Invalid("seqs begin with 1"));
            }
            if data.count == 0 || data.count > MESSAGE_SEGMENTS || data.index >= data.count {
                return Err(WireError::Invalid("a segment is not one of its message's"));
            }
            // Or a message of none would cost as many records as one of 16 MiB, and count for nothing.
            let size = data.payload.len();
            let last = data.index.saturating_add(1) == data.count;
            if (!last && size != SEGMENT_BYTES) || (last && data.count > 1 && size == 0) {
                return Err(WireError::Invalid(
                    "a segment is not as long as it has to be",
                ));
            }
            check_end(data.seq)?;
            if u64::from(data.index) >= data.seq.0 {
                return Err(WireError::Invalid("a message begins before its stream"));
            }
            Ok(())
        }
        Frame::Skip(skip) => {
            if skip.first.0 == 0 || skip.last < skip.first {
                return Err(WireError::Invalid("a Skip names a range that is none"));
            }
            check_end(skip.last)
        }
        Frame::Volatile(volatile) => {
            at_most("a volatile message", volatile.payload.len(), VOLATILE_BYTES)
        }
        Frame::Subscribe(list) | Frame::Unsubscribe(list) => {
            at_most("a list of channels", list.channels.len(), CHANNELS)
        }
        Frame::Initiation(handshake) | Frame::Response(handshake) => {
            at_most("a handshake", handshake.message.len(), HANDSHAKE_BYTES)
        }
        Frame::Ping(_)
        | Frame::Pong(_)
        | Frame::PathChallenge(_)
        | Frame::PathResponse(_)
        | Frame::Close(_) => Ok(()),
    }
}

/// There has to be one behind the last seq: the next that is missing. A copy would never be known else.
fn check_end(last: Seq) -> Result<(), WireError> {
    if last.0 == u64::MAX {
        return Err(WireError::Invalid("there is no seq behind its last"));
    }
    Ok(())
}

fn check_received(received: &super::frame::Received) -> Result<(), WireError> {
    if received.ranges.len() > ACK_RANGES {
        return Err(WireError::TooLarge {
            what: "an Ack's ranges",
            size: received.ranges.len(),
            limit: ACK_RANGES,
        });
    }
    if received.next.0 == 0 || received.consumed > received.next {
        return Err(WireError::Invalid(
            "an Ack's positions contradict each other",
        ));
    }
    let mut end = received.next.0;
    for run in &received.ranges {
        if run.first.0 <= end || run.count == 0 {
            return Err(WireError::Invalid("an Ack's ranges are not in order"));
        }
        end = run
            .first
            .0
            .checked_add(run.count)
            .ok_or(WireError::Invalid("an Ack's range has no end"))?;
    }
    Ok(())
}
