//! The mailboxes: one task writes them all, so that quotas and slots have one owner, and what many
//! connections bring at the same time costs one durable write.

mod envelopes;
mod request;
mod step;
mod sweep;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use outlive_core::store::{Batch, Store, StoreError};
use outlive_core::transport::{Refusal, TokenHash};
use outlive_core::{PeerId, StoreId};
use outlive_storage::StoreClock;
use tokio::sync::mpsc;
use tracing::warn;

use self::request::Puts;
pub(crate) use self::request::{Bringing, Change, Put, Request, What, WriterGone};
use self::step::{STEP_ENVELOPES, Step};
use crate::config::RelayConfig;
use crate::counts::Counts;
use crate::directory::Directory;
use crate::error::RelayError;
use crate::health::Health;
use crate::records::{self, Usage};
use crate::refusals::{RefusalLog, Refused};

/// Requests that may wait for the writer. When they do, connections read no further.
const REQUESTS: usize = 256;

/// Mailboxes whose usage is kept in memory. One more, and all are read anew when needed.
const USAGES: usize = 65_536;

/// Changes that are kept for when the store works again, of no more envelopes than one step takes: it
/// is at most twice as long with them. Whoever brings one more is let go, and brings it over its next
/// connection.
const AGAIN: usize = REQUESTS;

/// Whether a change was put off already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tried {
    Never,
    Before,
}

/// Where connections bring their requests.
pub(crate) type Mailboxes = mpsc::Sender<Request>;

/// The one writer of the mailboxes.
pub(crate) struct Writer {
    store: Arc<dyn Store>,
    clock: Arc<StoreClock>,
    config: RelayConfig,
    directory: Arc<Directory>,
    health: Arc<Health>,
    refusals: Arc<RefusalLog>,
    counts: Arc<Counts>,
    requests: mpsc::Receiver<Request>,
    /// What was taken from there and is not done yet, in order.
    waiting: VecDeque<Request>,
    /// What the store did not take, for the next step.
    again: Vec<Change>,
    next: u64,
    leased: u64,
    usages: HashMap<PeerId, Usage>,
    /// Up to where the sweep that goes on has come, in each kind of expiries.
    swept: [Bytes; 2],
}

impl Writer {
    pub(crate) async fn open(
        store: Arc<dyn Store>,
        clock: Arc<StoreClock>,
        config: RelayConfig,
        directory: Arc<Directory>,
        health: Arc<Health>,
        refusals: Arc<RefusalLog>,
        counts: Arc<Counts>,
    ) -> Result<(Self, Mailboxes, StoreId), RelayError> {
        let id = store_id(&*store, &clock).await?;
        let key = Bytes::from_static(records::NUMBERS);
        let next = match store.get(key).await? {
            Some(value) => records::from_value(&value).ok_or_else(|| StoreError::Damaged {
                what: "the relay's envelope numbers".to_owned(),
            })?,
            None => 1,
        };
        let (mailboxes, requests) = mpsc::channel(REQUESTS);
        let usages = HashMap::new();
        let writer = Self {
            store,
            clock,
            config,
            directory,
            health,
            refusals,
            counts,
            requests,
            waiting: VecDeque::new(),
            again: Vec::new(),
            next,
            leased: next,
            usages,
            swept: <[Bytes; 2]>::default(),
        };
        Ok((writer, mailboxes, id))
    }

    /// Runs until every connection is gone.
    pub(crate) async fn run(mut self) {
        let mut requests = Vec::with_capacity(REQUESTS);
        let mut tick = tokio::time::interval(self.config.sweep_every);
        // Whether it is time to sweep, or the last sweep left something.
        let mut sweeping = false;
        loop {
            // What waits has its turn between two sweeps, and a sweep between two turns: neither
            // senders nor what expires can hold up the other.
            tokio::select! {
                biased;
                _ = tick.tick(), if !sweeping => {
                    sweeping = true;
                    self.step().await;
                }
                count = self.requests.recv_many(&mut requests, REQUESTS), if self.waiting.is_empty() => {
                    if count == 0 {
                        return self.step().await;
                    }
                    self.waiting.extend(requests.drain(..));
                    self.step().await;
                }
                // What the last step had no room for.
                () = tokio::task::yield_now(), if sweeping || !self.waiting.is_empty() => {
                    if !self.waiting.is_empty() {
                        self.step().await;
                    }
                }
            }
            if sweeping {
                sweeping = self.sweep().await;
                // However long it took: the next begins later, not in place of requests.
                tick.reset();
            }
        }
    }

    /// Does what was put off, and as much of what waits as one step takes.
    async fn step(&mut self) {
        let mut step = Step::default();
        for change in std::mem::take(&mut self.again) {
            self.change(&mut step, change, Tried::Before).await;
        }
        while step.room() > 0
            && let Some(request) = self.waiting.pop_front()
        {
            match request {
                Request::Put(puts) => self.keep(&mut step, puts).await,
                Request::Change(mut change) => {
                    let rest = change.split_off(step.room()).map(Request::Change);
                    if let Some(rest) = rest {
                        self.waiting.push_front(rest);
                    }
                    step.count(change.size(), 0);
                    self.change(&mut step, change, Tried::Never).await;
                }
            }
        }
        self.commit(step).await;
    }

    async fn keep(&mut self, step: &mut Step, mut puts: Puts) {
        if puts.reply.is_closed() {
            // Its connection is gone, and did not wait for it to the end. Its client brings it again over
            // the next one: what a store that stood still had piled up would be kept twice.
            return;
        }
        let mut answers = Vec::new();
        while step.room() > 0
            && let Some(put) = puts.left.next()
        {
            let (class, bytes) = (put.class, put.packet.len());
            step.count(1, bytes);
            // Nothing was changed if it fails: the others of the step go on.
            let answer = self.put(step, puts.from, put).await;
            match &answer {
                Ok(Ok(())) => step.accepted.push((class, bytes)),
                Ok(Err(Refusal::MailboxFull)) => self.refusals.count(Refused::MailboxFull),
                Ok(Err(_)) | Err(_) => {}
            }
            answers.push(answer.unwrap_or_else(|error| {
                step.unread = Some(error);
                Err(Refusal::Unavailable)
            }));
        }
        step.answers.push((puts, answers));
    }

    async fn change(&mut self, step: &mut Step, change: Change, tried: Tried) {
        let recipient = change.recipient;
        let mut again = false;
        match &change.what {
            What::Acknowledge { sender, numbers } => {
                for number in numbers {
                    if let Err(error) = self.remove(step, recipient, *sender, *number).await {
                        // What is damaged and was before is no better the next time, and stays.
                        let damaged = matches!(error, StoreError::Damaged { .. });
                        again |= !damaged || tried == Tried::Never;
                        step.unread = Some(error);
                    }
                }
            }
            What::Tokens(tokens) => {
                let key = records::tokens(&recipient);
                if tokens.is_empty() {
                    step.batch.delete(key);
                } else {
                    step.batch.put(key, records::to_value(tokens));
                }
            }
        }
        if again {
            self.put_off(change);
        } else {
            step.changes.push(change);
        }
    }

    /// Keeps a change for the next step.
    fn put_off(&mut self, change: Change) {
        let envelopes = self.again.iter().map(Change::size).sum::<usize>();
        if self.again.len() < AGAIN && envelopes.saturating_add(change.size()) <= STEP_ENVELOPES {
            self.again.push(change);
        } else {
            self.directory.let_go(&change.recipient);
        }
    }

    /// Writes a step, and answers who waits for it. Says whether the store took it.
    async fn commit(&mut self, mut step: Step) -> bool {
        for recipient in &step.touched {
            let usage = self.usages.get(recipient).copied().unwrap_or_default();
            let key = records::usage(recipient);
            if usage == Usage::default() {
                step.batch.delete(key);
            } else {
                step.batch.put(key, records::to_value(&usage));
            }
        }
        if let Some(error) = &step.unread {
            warn!(%error, "a record can't be read; what needs it is refused, or stays");
        }
        let result = if step.batch.is_empty() {
            Ok(())
        } else {
            let result = self.store.commit(step.batch).await;
            self.health.written(&result);
            result
        };
        if let Err(error) = &result {
            warn!(%error, "the store failed; nothing is accepted until it works");
            // What was counted was not written, nor that numbers were taken.
            self.usages.clear();
            self.leased = self.next;
            for change in step.changes {
                self.put_off(change);
            }
        }
        if result.is_ok() {
            for (class, bytes) in step.accepted {
                self.counts.accepted(class, bytes);
            }
        }
        for (mut puts, answers) in step.answers {
            for answer in answers {
                let answer = match result {
                    Ok(()) => answer,
                    Err(_) => answer.and(Err(Refusal::Unavailable)),
                };
                if let Err(reason) = answer {
                    self.counts.refused(reason);
                }
                puts.answers.push(answer);
            }
            if puts.left.len() == 0 {
                // The connection may be gone: then its client asks again over the next one.
                let _ = puts.reply.send(puts.answers);
            } else {
                // The last of a step that was full.
                self.waiting.push_front(Request::Put(puts));
            }
        }
        if result.is_ok() {
            for (recipient, sender) in step.woken {
                self.directory.wake(&recipient, sender);
            }
        }
        if self.usages.len() > USAGES {
            self.usages.clear();
        }
        result.is_ok()
    }
}

/// Whether a token opens a mailbox.
pub(crate) async fn opens(
    store: &dyn Store,
    recipient: &PeerId,
    token: TokenHash,
) -> Result<bool, StoreError> {
    let value = store.get(records::tokens(recipient)).await?;
    let tokens = value.and_then(|value| records::from_value::<Vec<TokenHash>>(&value));
    Ok(tokens.is_some_and(|tokens| tokens.contains(&token)))
}

/// The clock by which mail grows old, from where it stood.
pub(crate) async fn clock(store: &dyn Store) -> Result<StoreClock, RelayError> {
    let value = store.get(Bytes::from_static(records::CLOCK)).await?;
    let Some(value) = value else {
        return Ok(StoreClock::resume(None));
    };
    let record = records::from_value(&value).ok_or_else(|| StoreError::Damaged {
        what: "the relay's clock".to_owned(),
    })?;
    Ok(StoreClock::resume(Some(record)))
}

/// The store's id. A new one gets it, and its clock with it.
async fn store_id(store: &dyn Store, clock: &StoreClock) -> Result<StoreId, RelayError> {
    let key = Bytes::from_static(records::STORE_ID);
    if let Some(value) = store.get(key.clone()).await? {
        let damaged = || StoreError::Damaged {
            what: "the relay's store id".to_owned(),
        };
        return Ok(records::from_value(&value).ok_or_else(damaged)?);
    }
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| RelayError::Entropy)?;
    let id = StoreId(bytes);
    let mut batch = Batch::new();
    batch.put(key, records::to_value(&id));
    let stands = clock.record();
    batch.put(
        Bytes::from_static(records::CLOCK),
        records::to_value(&stands),
    );
    store.commit(batch).await?;
    clock.written(&stands);
    Ok(id)
}

#[cfg(test)]
mod tests;
