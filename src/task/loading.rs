//! Loading a session: its engine, as the store has it, and what this process knows beside it.

use outlive_core::engine::{Engine, Stored};
use outlive_core::record::{InboxRecord, Key, Record};
use outlive_core::store::ReadLimit;

use super::Task;
use crate::entropy::fresh_entropy;
use crate::error::Error;
use crate::payload::without_payload;
use crate::trust::trust_of;

/// Segments read at once.
const SEGMENTS: ReadLimit = ReadLimit {
    records: 256,
    bytes: 4 << 20,
};

impl Task {
    pub(super) async fn load(&mut self) -> Result<Engine, Error> {
        self.load_naming().await?;
        self.load_mailboxes().await?;
        // What was not written comes again.
        self.course = None;
        let store = &self.inner.store;
        let session = store.get(Key::Session(self.peer).to_bytes()).await?;
        let mut stored = Stored::new(session.as_deref())?;
        for mut range in stored.segments(self.peer) {
            loop {
                let rows = store.range(range.clone(), SEGMENTS).await?;
                let Some((last, _)) = rows.last() else { break };
                range.start = [last, &[0][..]].concat().into();
                stored.read(self.peer, &rows)?;
            }
        }
        let now = self.inner.clock.now();
        let mut engine = Engine::open(
            &self.inner.identity,
            self.peer,
            self.inner.start,
            stored,
            fresh_entropy()?,
            now,
        );
        engine.set_inbox_limits(self.inner.inbox_limits);
        engine.set_padding(self.inner.padding);
        let trust = trust_of(&**store, self.peer).await?;
        self.hub
            .change(|state| std::mem::replace(&mut state.trust, trust) != trust);
        self.allowance = self.inner.admission.allowance(self.peer, engine.session());
        self.hub.progress.loaded(engine.session());
        for (&channel, inbox) in &engine.session().inboxes {
            if inbox.messages > 0 {
                self.arrived(channel, inbox.next);
            }
        }
        for channel in self.hub.listening() {
            engine.listen(channel, now);
        }
        for (channel, weight) in self.hub.weights() {
            engine.set_weight(channel, weight);
        }
        engine.peer_listened(self.hub.peer_listens());
        for (channel, position) in self.hub.progress.awaited() {
            engine.await_consumed(channel, position, now);
        }
        self.load_files(&mut engine).await?;
        // What was not committed counts as in hand until it comes again: it is not among what lies before
        // a later message that is. Its write may have failed, or a panic ended the task that knew of it.
        let leaving = self.hub.inboxes.leaving();
        for &(channel, position) in &leaving {
            let key = Key::Inbox(self.peer, channel, position).to_bytes();
            if let Some(value) = self.inner.store.get(key).await? {
                let record = without_payload(InboxRecord::from_bytes(&value)?);
                self.hub.inboxes.put_in_hand((channel, position), record);
            }
        }
        for ((channel, position), record) in self.hub.inboxes.in_hand() {
            engine.hand(channel, position, &record);
        }
        for (channel, position) in leaving {
            self.hub.inboxes.end_leaving((channel, position));
            self.hub.inboxes.not_committed(channel, position);
        }
        for (&generation, bound) in &self.links {
            engine.bind(generation, bound.class, bound.rank, now);
        }
        Ok(engine)
    }
}
