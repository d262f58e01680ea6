//! A message on the requests channel, as it lies in the inbox.

use bytes::Bytes;
use outlive_core::limits::SEGMENT_BYTES;
use outlive_core::record::{InboxBody, InboxRecord, Key, Record, SegmentRecord};
use outlive_core::{ChannelId, Position, Seq};

use crate::error::Error;
use crate::payload::{lost_segment, payload};
use crate::route::Route;
use crate::task::InHand;

/// A message and where it lies.
pub(super) struct Letter {
    pub(super) in_hand: InHand,
    pub(super) payload: Bytes,
}

impl Letter {
    /// The message of a record, with all of its payload.
    pub(super) async fn open(
        route: &Route,
        position: Position,
        record: InboxRecord,
    ) -> Result<Self, Error> {
        let channel = ChannelId::REQUESTS;
        let payload = payload(route, channel, &record).await?;
        let in_hand = InHand::new(channel, position, record, &payload);
        let payload = payload.bytes;
        Ok(Self { in_hand, payload })
    }
}

/// The record at a position, if it is still there.
pub(super) async fn record(
    route: &Route,
    position: Position,
) -> Result<Option<InboxRecord>, Error> {
    let key = Key::Inbox(route.hub().peer, ChannelId::REQUESTS, position);
    match route.inner().store.get(key.to_bytes()).await? {
        None => Ok(None),
        Some(value) => Ok(Some(InboxRecord::from_bytes(&value)?)),
    }
}

/// Bytes that a message takes in memory, at most.
pub(super) fn weight(record: &InboxRecord) -> usize {
    match &record.body {
        InboxBody::Inline(payload) => payload.len(),
        InboxBody::Segments(count) => {
            SEGMENT_BYTES.saturating_mul(usize::try_from(*count).unwrap_or(usize::MAX))
        }
    }
}

/// The first part of a message: its head is in it.
pub(super) async fn first_part(route: &Route, record: &InboxRecord) -> Result<Bytes, Error> {
    let count = match &record.body {
        InboxBody::Inline(payload) => return Ok(payload.clone()),
        InboxBody::Segments(count) => u64::from(*count),
    };
    let first = Seq(record.last.next().0.saturating_sub(count));
    let key = Key::Segment(route.hub().peer, record.epoch, ChannelId::REQUESTS, first);
    let value = route.inner().store.get(key.to_bytes()).await?;
    match value.map(|value| SegmentRecord::from_bytes(&value)) {
        Some(Ok(SegmentRecord::Data { payload, .. })) => Ok(payload),
        Some(Err(error)) => Err(error.into()),
        Some(Ok(SegmentRecord::Skip { .. } | SegmentRecord::Placed { .. })) | None => {
            Err(lost_segment(record))
        }
    }
}
