//! The mailboxes: one task writes them all, so that quotas and slots have one owner, and what many
//! connections bring at the same time costs one durable write.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use outlive_core::store::{Batch, ReadLimit, Store, StoreError};
use outlive_core::transport::{Class, Refusal};
use outlive_core::{EnvelopeId, PeerId, StoreId, WallTime};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::config::RelayConfig;
use crate::directory::Directory;
use crate::error::RelayError;
use crate::records::{self, Envelope, Usage};

/// Requests that may wait for the writer. When they do, connections read no further.
const REQUESTS: usize = 256;

/// Numbers taken from the store at once: a crash skips as many.
const NUMBER_BLOCK: u64 = 65_536;

/// Mailboxes whose usage is kept in memory. One more, and all are read anew when needed.
const USAGES: usize = 65_536;

/// Envelopes removed in one step because their time is over.
const SWEEP: usize = 1_024;

/// An envelope to keep.
pub(crate) struct Put {
    pub(crate) to: PeerId,
    pub(crate) class: Class,
    pub(crate) ttl: u32,
    pub(crate) packet: Bytes,
}

pub(crate) enum Request {
    /// Keep these; answer each, in order, when that is durable.
    Put {
        from: PeerId,
        puts: Vec<Put>,
        reply: oneshot::Sender<Vec<Result<(), Refusal>>>,
    },
    /// The recipient has these.
    Acknowledge {
        recipient: PeerId,
        sender: PeerId,
        numbers: Vec<EnvelopeId>,
    },
}

/// Where connections bring their requests.
pub(crate) type Mailboxes = mpsc::Sender<Request>;

pub(crate) fn now() -> WallTime {
    let wall = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    WallTime(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX))
}

/// The one writer of the mailboxes.
pub(crate) struct Writer {
    store: Arc<dyn Store>,
    config: RelayConfig,
    directory: Arc<Directory>,
    requests: mpsc::Receiver<Request>,
    next: u64,
    leased: u64,
    usages: HashMap<PeerId, Usage>,
}

type Answers = Vec<(
    oneshot::Sender<Vec<Result<(), Refusal>>>,
    Vec<Result<(), Refusal>>,
)>;

/// One batch under construction, and what follows from it.
#[derive(Default)]
struct Step {
    batch: Batch,
    answers: Answers,
    woken: BTreeSet<(PeerId, PeerId)>,
    touched: BTreeSet<PeerId>,
    /// Newest-only envelopes put in this step, which no read shows yet.
    newest: HashMap<(PeerId, PeerId), EnvelopeId>,
}

impl Writer {
    pub(crate) async fn open(
        store: Arc<dyn Store>,
        config: RelayConfig,
        directory: Arc<Directory>,
    ) -> Result<(Self, Mailboxes, StoreId), RelayError> {
        let id = store_id(&*store).await?;
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
            config,
            directory,
            requests,
            next,
            leased: next,
            usages,
        };
        Ok((writer, mailboxes, id))
    }

    /// Runs until every connection is gone.
    pub(crate) async fn run(mut self) {
        let mut requests = Vec::with_capacity(REQUESTS);
        let mut sweep = tokio::time::interval(self.config.sweep_every);
        loop {
            tokio::select! {
                count = self.requests.recv_many(&mut requests, REQUESTS) => {
                    if count == 0 {
                        return;
                    }
                    let taken = std::mem::take(&mut requests);
                    self.step(taken).await;
                }
                _ = sweep.tick() => self.sweep().await,
            }
        }
    }

    async fn step(&mut self, requests: Vec<Request>) {
        let mut step = Step::default();
        let mut failed = None;
        for request in requests {
            let done = match request {
                Request::Put { from, puts, reply } => {
                    let mut answers = Vec::with_capacity(puts.len());
                    let mut result = Ok(());
                    for put in puts {
                        match self.put(&mut step, from, put).await {
                            Ok(answer) => answers.push(answer),
                            Err(error) => {
                                answers.push(Err(Refusal::Unavailable));
                                result = Err(error);
                            }
                        }
                    }
                    step.answers.push((reply, answers));
                    result
                }
                Request::Acknowledge {
                    recipient,
                    sender,
                    numbers,
                } => {
                    let mut result = Ok(());
                    for number in numbers {
                        if let Err(error) = self.remove(&mut step, recipient, sender, number).await
                        {
                            result = Err(error);
                        }
                    }
                    result
                }
            };
            failed = failed.or_else(|| done.err());
        }
        self.commit(step, failed).await;
    }

    async fn commit(&mut self, mut step: Step, failed: Option<StoreError>) {
        for recipient in &step.touched {
            let usage = self.usages.get(recipient).copied().unwrap_or_default();
            let key = records::usage(recipient);
            if usage == Usage::default() {
                step.batch.delete(key);
            } else {
                step.batch.put(key, records::to_value(&usage));
            }
        }
        let result = match failed {
            Some(error) => Err(error),
            None if step.batch.is_empty() => Ok(()),
            None => self.store.commit(step.batch).await,
        };
        if let Err(error) = &result {
            warn!(%error, "the store failed; nothing is accepted until it works");
            // What was counted was not written.
            self.usages.clear();
        }
        for (reply, answers) in step.answers {
            let answers = match &result {
                Ok(()) => answers,
                Err(_) => answers
                    .into_iter()
                    .map(|answer| answer.and(Err(Refusal::Unavailable)))
                    .collect(),
            };
            // The connection may be gone: then its client asks again over the next one.
            let _ = reply.send(answers);
        }
        if result.is_ok() {
            for (recipient, sender) in step.woken {
                self.directory.wake(&recipient, sender);
            }
        }
        if self.usages.len() > USAGES {
            self.usages.clear();
        }
    }

    async fn usage(&mut self, recipient: PeerId) -> Result<&mut Usage, StoreError> {
        if !self.usages.contains_key(&recipient) {
            let value = self.store.get(records::usage(&recipient)).await?;
            let usage = value
                .and_then(|value| records::from_value(&value))
                .unwrap_or_default();
            self.usages.insert(recipient, usage);
        }
        Ok(self.usages.entry(recipient).or_default())
    }

    async fn number(&mut self, step: &mut Step) -> EnvelopeId {
        let number = self.next;
        self.next = self.next.saturating_add(1);
        if number >= self.leased {
            self.leased = number.saturating_add(NUMBER_BLOCK);
            let key = Bytes::from_static(records::NUMBERS);
            step.batch.put(key, records::to_value(&self.leased));
        }
        EnvelopeId(number)
    }

    async fn put(
        &mut self,
        step: &mut Step,
        from: PeerId,
        put: Put,
    ) -> Result<Result<(), Refusal>, StoreError> {
        let Put {
            to,
            class,
            ttl,
            packet,
        } = put;
        let bytes = packet.len() as u64;
        let (most, most_bytes) = (self.config.mailbox_envelopes, self.config.mailbox_bytes);
        let usage = *self.usage(to).await?;
        // Of control frames there is one for each sender: a full mailbox lets them pass, or the
        // acknowledgements that would empty it could not.
        if class == Class::Keep
            && (usage.envelopes >= most || usage.bytes.saturating_add(bytes) > most_bytes)
        {
            return Ok(Err(Refusal::MailboxFull));
        }
        if class == Class::NewestOnly {
            let slot = records::newest(&to, &from);
            let old = match step.newest.get(&(to, from)) {
                Some(number) => Some(*number),
                None => self
                    .store
                    .get(slot.clone())
                    .await?
                    .and_then(|value| records::from_value::<EnvelopeId>(&value)),
            };
            if let Some(old) = old {
                // Of this very step: it is in the batch and was not counted as read.
                step.batch.delete(records::envelope(&to, &from, old));
            }
        }
        let number = self.number(step).await;
        let ttl = std::time::Duration::from_secs(u64::from(ttl)).min(self.config.max_ttl);
        let expires = now().plus(ttl);
        if class == Class::NewestOnly {
            step.newest.insert((to, from), number);
            step.batch
                .put(records::newest(&to, &from), records::to_value(&number));
        } else {
            let usage = self.usage(to).await?;
            usage.envelopes = usage.envelopes.saturating_add(1);
            usage.bytes = usage.bytes.saturating_add(bytes);
            step.touched.insert(to);
        }
        let envelope = Envelope {
            class,
            expires,
            packet,
        };
        step.batch.put(
            records::envelope(&to, &from, number),
            records::to_value(&envelope),
        );
        step.batch
            .put(records::expiry(expires, &to, &from, number), Bytes::new());
        step.woken.insert((to, from));
        Ok(Ok(()))
    }

    async fn remove(
        &mut self,
        step: &mut Step,
        recipient: PeerId,
        sender: PeerId,
        number: EnvelopeId,
    ) -> Result<(), StoreError> {
        let key = records::envelope(&recipient, &sender, number);
        let Some(value) = self.store.get(key.clone()).await? else {
            return Ok(());
        };
        let Some(envelope) = records::from_value::<Envelope>(&value) else {
            return Ok(());
        };
        step.batch.delete(key);
        step.batch.delete(records::expiry(
            envelope.expires,
            &recipient,
            &sender,
            number,
        ));
        if envelope.class == Class::Keep {
            let usage = self.usage(recipient).await?;
            usage.envelopes = usage.envelopes.saturating_sub(1);
            usage.bytes = usage.bytes.saturating_sub(envelope.packet.len() as u64);
            step.touched.insert(recipient);
        }
        Ok(())
    }

    /// Removes a bounded part of what has expired.
    async fn sweep(&mut self) {
        let limit = ReadLimit {
            records: SWEEP,
            bytes: usize::MAX,
        };
        let rows = match self.store.range(records::expired(now()), limit).await {
            Ok(rows) => rows,
            Err(error) => return warn!(%error, "the store can't be searched for what has expired"),
        };
        let mut step = Step::default();
        let mut failed = None;
        for (key, _) in rows {
            if let Some((recipient, sender, number)) = records::expiring(&key)
                && let Err(error) = self.remove(&mut step, recipient, sender, number).await
            {
                failed = Some(error);
            }
            step.batch.delete(key);
        }
        self.commit(step, failed).await;
    }
}

async fn store_id(store: &dyn Store) -> Result<StoreId, RelayError> {
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
    store.commit(batch).await?;
    Ok(id)
}
