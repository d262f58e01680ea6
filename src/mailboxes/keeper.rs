//! Keeps account of this node's mailboxes: on disk, of those that it has left, and of whom is to be told.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use outlive_core::limits::LEFT_MAILBOX_TIME;
use outlive_core::record::{
    Key, MailboxesRecord, OwnMailboxesRecord, Record, Session as SessionRecord,
};
use outlive_core::store::{Batch, ReadLimit, Store, StoreError};
use outlive_core::{Mailbox, PeerId};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::warn;

use super::Elsewhere;
use super::own::updated;
use crate::alarm::Alarm;
use crate::error::Error;
use crate::lock::lock;
use crate::node::Inner;
use crate::task::{Command, Input, STORE_RETRY};

/// Where our mailboxes are kept.
const OWN_KEY: &[u8] = b"n/mailboxes";

/// How long relays have to stay as they are to be what is told: one may be added just behind another.
const SETTLED: Duration = Duration::from_secs(3);

/// Sessions looked at in one step when peers are to be told, and the time between two steps.
const PAGE: usize = 256;
const PAGE_TIME: Duration = Duration::from_secs(1);

pub(crate) struct Keeper {
    own: OwnMailboxesRecord,
    /// Those of them that were left, and that can be read.
    left: Vec<Arc<Elsewhere>>,
}

impl Keeper {
    /// With the mailboxes that there were before this start.
    pub(crate) async fn load(store: &dyn Store) -> Result<Self, Error> {
        let value = store.get(Bytes::from_static(OWN_KEY)).await?;
        let own = value.as_deref().map(OwnMailboxesRecord::from_bytes);
        Ok(Self {
            own: own.transpose()?.unwrap_or_default(),
            left: Vec::new(),
        })
    }

    /// What relays have said before this start counts until they say something else.
    pub(crate) fn remember(&self, inner: &Inner) {
        let mut known = lock(&inner.mailboxes.known);
        for of in &self.own.mailboxes {
            known.stores.remember(&of.mailbox.relay, of.mailbox.store);
        }
    }

    pub(crate) async fn run(mut self, inner: Arc<Inner>) {
        let ends = inner.cancel.clone();
        tokio::select! {
            () = ends.cancelled() => {}
            () = self.keep(&inner) => {}
        }
    }

    async fn keep(&mut self, inner: &Arc<Inner>) {
        // They may be with peers whose relays are not ours.
        inner.wake_sessions_with_work();
        let (mut alarm, mut settled) = (Alarm::default(), None);
        loop {
            let mut again = None;
            if let Err(error) = self.settle(inner, &mut settled).await {
                warn!(%error, "where our mailboxes are can't be written, or not be told to all");
                again = Some(Instant::now() + STORE_RETRY);
            }
            let next = again.or_else(|| self.next_end(inner).into_iter().chain(settled).min());
            tokio::select! {
                () = inner.mailboxes.changed.notified() => {
                    settled.get_or_insert_with(|| Instant::now() + SETTLED);
                }
                () = alarm.at(next) => {}
            }
        }
    }

    /// Goes by the relays that are in use now, and tells of them once they have `settled`.
    async fn settle(
        &mut self,
        inner: &Arc<Inner>,
        settled: &mut Option<Instant>,
    ) -> Result<(), Error> {
        self.note(inner).await?;
        self.forget_stores(inner);
        self.read_those_left(inner);
        if settled.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        self.tell(inner).await?;
        *settled = None;
        Ok(())
    }

    /// Writes down which mailboxes there are, and which were left: by who starts next with another relay too.
    async fn note(&mut self, inner: &Inner) -> Result<(), StoreError> {
        let relays = inner.relay_addresses();
        let stores = lock(&inner.mailboxes.known).stores.home().clone();
        let own = updated(&self.own, &relays, &stores, inner.clock.now().store);
        self.write(inner, own).await
    }

    /// Tells the peers that do not know it where we read.
    async fn tell(&mut self, inner: &Arc<Inner>) -> Result<(), Error> {
        let mut mailboxes = addresses(&inner.mailboxes.here.borrow().mailboxes());
        mailboxes.sort();
        if mailboxes.is_empty() || mailboxes == self.own.announced {
            return Ok(());
        }
        if !self.own.announced.is_empty() {
            let changed = inner.mailboxes.changed.notified();
            tokio::select! {
                told = tell_all(inner, &mailboxes) => told?,
                () = changed => {
                    // First of all, what it is that changed.
                    inner.mailboxes.changed.notify_one();
                    return Ok(());
                }
            }
        }
        let announced = OwnMailboxesRecord {
            announced: mailboxes,
            ..self.own.clone()
        };
        Ok(self.write(inner, announced).await?)
    }

    async fn write(&mut self, inner: &Inner, own: OwnMailboxesRecord) -> Result<(), StoreError> {
        if own != self.own {
            let mut batch = Batch::new();
            batch.put(Bytes::from_static(OWN_KEY), own.to_bytes());
            inner.store.commit(batch).await?;
            self.own = own;
        }
        Ok(())
    }

    fn forget_stores(&self, inner: &Inner) {
        let mailboxes = &self.own.mailboxes;
        let mut known = lock(&inner.mailboxes.known);
        // Others may be in use by now.
        let relays = inner.relay_addresses();
        known.stores.keep(|relay| {
            relays.contains(relay) || mailboxes.iter().any(|of| of.mailbox.relay == *relay)
        });
    }

    fn read_those_left(&mut self, inner: &Arc<Inner>) {
        let here = inner.mailboxes.here.borrow().clone();
        let left = self.own.mailboxes.iter().filter(|of| of.left.is_some());
        let mut left: Vec<_> = left.filter(|of| !here.has((&of.mailbox).into())).collect();
        // The last one first: there most have met us.
        left.sort_by_key(|of| Reverse(of.left));
        let reached = left
            .iter()
            .filter_map(|of| inner.reach((&of.mailbox).into()));
        self.left = reached.collect();
        let left = self.left.iter().map(|relay| relay.address.clone());
        lock(&inner.mailboxes.known).left = left.collect();
        inner.publish_here();
    }

    /// When nothing can wait any more in one of those that were left.
    fn next_end(&self, inner: &Inner) -> Option<Instant> {
        let now = inner.clock.now();
        let left = self.own.mailboxes.iter().filter_map(|of| of.left).min()?;
        let after = now.store.until(left.plus(LEFT_MAILBOX_TIME));
        Some(inner.clock.at(now.elapsed + after))
    }
}

fn addresses(mailboxes: &[Mailbox]) -> Vec<String> {
    mailboxes.iter().map(|of| of.relay.clone()).collect()
}

/// Wakes the sessions whose peers may believe that we read elsewhere: they tell them. Not those with peers
/// that are gone for so long that nothing can be left for us by them: who comes back is told then.
async fn tell_all(inner: &Arc<Inner>, mailboxes: &[String]) -> Result<(), Error> {
    let mut range = Key::sessions();
    let limit = ReadLimit {
        records: PAGE,
        bytes: usize::MAX,
    };
    loop {
        let rows = inner.store.range(range.clone(), limit).await?;
        let Some((last, _)) = rows.last() else {
            return Ok(());
        };
        range.start = [last, &[0][..]].concat().into();
        for (key, value) in &rows {
            let (Ok(Key::Session(peer)), Ok(session)) =
                (Key::from_bytes(key), SessionRecord::from_bytes(value))
            else {
                // It is found out by whoever opens it.
                continue;
            };
            let now = inner.clock.now().wall;
            let is_there = |seen: outlive_core::WallTime| now < seen.plus(LEFT_MAILBOX_TIME);
            if session.last_seen.is_some_and(is_there) && !is_told(inner, peer, mailboxes).await? {
                wake(inner, peer).await?;
            }
        }
        tokio::time::sleep(PAGE_TIME).await;
    }
}

async fn is_told(inner: &Inner, peer: PeerId, mailboxes: &[String]) -> Result<bool, Error> {
    let value = inner.store.get(Key::Mailboxes(peer).to_bytes()).await?;
    let record = value.as_deref().map(MailboxesRecord::from_bytes);
    let told = record.and_then(Result::ok).and_then(|record| record.told);
    let told = told.map(|told| {
        let mut told = addresses(&told.mailboxes);
        told.sort();
        told
    });
    Ok(told.is_some_and(|told| told == mailboxes))
}

async fn wake(inner: &Arc<Inner>, peer: PeerId) -> Result<(), Error> {
    loop {
        let inputs = match inner.inputs(peer) {
            Ok(inputs) => inputs,
            Err(Error::Blocked(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let (reply, _) = oneshot::channel();
        let wake = Input::Command(Command::Wake { reply });
        // One that ends between the two is woken anew.
        let Err(mpsc::error::SendError(_)) = inputs.send(wake).await else {
            return Ok(());
        };
    }
}
