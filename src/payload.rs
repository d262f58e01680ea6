//! The payload of a message in an inbox.

use bytes::{Bytes, BytesMut};
use outlive_core::record::{InboxBody, InboxRecord, Key, Record, SegmentRecord};
use outlive_core::store::{ReadLimit, StoreError};
use outlive_core::{ChannelId, Seq};

use crate::error::Error;
use crate::route::Route;

/// Segments of one message read at once.
const SEGMENTS: ReadLimit = ReadLimit {
    records: 1_024,
    bytes: usize::MAX,
};

/// The payload of a message, as far as it is in the inbox.
#[derive(Default)]
pub(crate) struct Payload {
    pub(crate) bytes: Bytes,
    /// What is in the file already that the message is a part of.
    pub(crate) placed: Vec<Placed>,
}

impl Payload {
    /// Bytes of all that was sent.
    pub(crate) fn length(&self) -> u64 {
        let here = self.bytes.len() as u64;
        let placed = self.placed.iter();
        placed.fold(here, |bytes, placed| bytes.saturating_add(placed.length))
    }
}

/// Bytes of a payload that are elsewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    /// Where they belong among the bytes that are here.
    pub(crate) at: usize,
    pub(crate) length: u64,
}

/// The payload of a message in the inbox.
pub(crate) async fn payload(
    route: &Route,
    channel: ChannelId,
    record: &InboxRecord,
) -> Result<Payload, Error> {
    let count = match &record.body {
        InboxBody::Inline(payload) => {
            return Ok(Payload {
                bytes: payload.clone(),
                ..Payload::default()
            });
        }
        InboxBody::Segments(count) => u64::from(*count),
    };
    let first = Seq(record.last.next().0.saturating_sub(count));
    let end = record.last.next();
    let range = Key::segments(route.hub().peer, record.epoch, channel, first, end);
    let rows = route.inner().store.range(range, SEGMENTS).await?;
    if rows.len() as u64 != count {
        return Err(lost_segment(record));
    }
    let (mut whole, mut elsewhere) = (BytesMut::new(), Vec::new());
    for (_, value) in rows {
        match SegmentRecord::from_bytes(&value)? {
            SegmentRecord::Data { payload, .. } => whole.extend_from_slice(&payload),
            SegmentRecord::Placed {
                beginning, placed, ..
            } => {
                whole.extend_from_slice(&beginning);
                elsewhere.push(Placed {
                    at: whole.len(),
                    length: placed.into(),
                });
            }
            SegmentRecord::Skip { .. } => return Err(lost_segment(record)),
        }
    }
    Ok(Payload {
        bytes: whole.freeze(),
        placed: elsewhere,
    })
}

pub(crate) fn lost_segment(record: &InboxRecord) -> Error {
    let what = format!("message {} has lost a segment", record.id);
    StoreError::Damaged { what }.into()
}

pub(crate) fn without_payload(record: InboxRecord) -> InboxRecord {
    let body = match record.body {
        InboxBody::Inline(_) => InboxBody::Inline(Bytes::new()),
        segments @ InboxBody::Segments(_) => segments,
    };
    InboxRecord { body, ..record }
}
