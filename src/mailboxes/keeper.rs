//! Keeps account of this node's mailboxes: on disk, towards its sessions, and of those that it has left.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use outlive_core::limits::LEFT_MAILBOX_TIME;
use outlive_core::record::{Key, MailboxesRecord, OwnMailboxesRecord, Record};
use outlive_core::store::{Batch, ReadLimit, Store, StoreError};
use outlive_core::{Mailbox, PeerId};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::own::updated;
use super::{Elsewhere, Here};
use crate::alarm::Alarm;
use crate::error::Error;
use crate::node::Inner;
use crate::task::{Command, Input, STORE_RETRY};

/// Where our mailboxes are kept.
const OWN_KEY: &[u8] = b"n/mailboxes";

/// Peers looked at in one step, when others are to be told of our mailboxes.
const PAGE: usize = 256;

pub(crate) struct Keeper {
    own: OwnMailboxesRecord,
    /// Those of them that were left, and that can be read.
    left: BTreeMap<String, Arc<Elsewhere>>,
}

impl Keeper {
    /// With the mailboxes that there were before this start.
    pub(crate) async fn load(store: &dyn Store) -> Result<Self, Error> {
        let value = store.get(Bytes::from_static(OWN_KEY)).await?;
        let own = value.as_deref().map(OwnMailboxesRecord::from_bytes);
        Ok(Self {
            own: own.transpose()?.unwrap_or_default(),
            left: BTreeMap::new(),
        })
    }

    pub(crate) async fn run(self, inner: Arc<Inner>) {
        let ends = inner.cancel.clone();
        tokio::select! {
            () = ends.cancelled() => {}
            () = self.keep(inner) => {}
        }
    }

    async fn keep(mut self, inner: Arc<Inner>) {
        self.remember(&inner);
        // They may be with peers whose relays are not ours.
        inner.wake_sessions_with_work();
        let (mut alarm, mut told) = (Alarm::default(), None);
        loop {
            if let Err(error) = self.update(&inner).await {
                warn!(%error, "where our mailboxes are can't be written");
                tokio::time::sleep(STORE_RETRY).await;
                continue;
            }
            self.publish(&inner);
            self.read_those_left(&inner);
            let mailboxes = inner.mailboxes.here.borrow().mailboxes();
            if !mailboxes.is_empty() && told.as_ref() != Some(&mailboxes) {
                if let Err(error) = tell_all(&inner, &mailboxes).await {
                    debug!(%error, "not all peers are told of our mailboxes");
                }
                told = Some(mailboxes);
            }
            let ends = self.next_end(&inner);
            tokio::select! {
                () = inner.mailboxes.changed.notified() => {}
                () = alarm.at(ends) => {}
            }
        }
    }

    /// What relays said before this start counts until they say something else.
    fn remember(&self, inner: &Inner) {
        for of in &self.own.mailboxes {
            let Mailbox { store, relay } = &of.mailbox;
            inner.mailboxes.signed_in(relay, *store);
        }
    }

    async fn update(&mut self, inner: &Inner) -> Result<(), StoreError> {
        let (relays, stores) = (inner.relay_addresses(), inner.mailboxes.stores());
        let own = updated(&self.own, &relays, &stores, inner.clock.now().wall);
        if own == self.own {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.put(Bytes::from_static(OWN_KEY), own.to_bytes());
        inner.store.commit(batch).await?;
        self.own = own;
        Ok(())
    }

    fn publish(&self, inner: &Inner) {
        let (relays, stores) = (inner.relay_addresses(), inner.mailboxes.stores());
        let here = Here::new(relays, &stores);
        inner.mailboxes.here.send_if_modified(|known| {
            let changed = *known != here;
            *known = here;
            changed
        });
    }

    fn read_those_left(&mut self, inner: &Arc<Inner>) {
        let mailboxes = self.own.mailboxes.iter();
        let left: Vec<_> = mailboxes.filter(|of| of.left.is_some()).collect();
        let is_left = |address: &String| left.iter().any(|of| of.mailbox.relay == *address);
        self.left.retain(|address, _| is_left(address));
        for of in left {
            let address = &of.mailbox.relay;
            let here = inner.mailboxes.here.borrow().has((&of.mailbox).into());
            if !here
                && !self.left.contains_key(address)
                && let Some(relay) = inner.reach(address)
            {
                self.left.insert(address.clone(), relay);
            }
        }
    }

    /// When nothing can wait any more in one of those that were left.
    fn next_end(&self, inner: &Inner) -> Option<Instant> {
        let now = inner.clock.now();
        let left = self.own.mailboxes.iter().filter_map(|of| of.left).min()?;
        let after = now.wall.until(left.plus(LEFT_MAILBOX_TIME));
        Some(inner.clock.at(now.elapsed + after))
    }
}

/// Wakes the sessions whose peers believe that we read elsewhere: they tell them.
async fn tell_all(inner: &Arc<Inner>, mailboxes: &[Mailbox]) -> Result<(), Error> {
    let mut range = Key::all_mailboxes();
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
            let Ok(Key::Mailboxes(peer)) = Key::from_bytes(key) else {
                continue;
            };
            let told = MailboxesRecord::from_bytes(value)?.told;
            if told.is_some_and(|told| told.mailboxes != mailboxes) {
                wake(inner, peer).await?;
            }
        }
    }
}

async fn wake(inner: &Arc<Inner>, peer: PeerId) -> Result<(), Error> {
    let inputs = match inner.inputs(peer) {
        Ok(inputs) => inputs,
        Err(Error::Blocked(_)) => return Ok(()),
        Err(error) => return Err(error),
    };
    let (reply, _) = oneshot::channel();
    // A session that just went to sleep tells it when it is awake again.
    let _ = inputs.send(Input::Command(Command::Wake { reply })).await;
    Ok(())
}
