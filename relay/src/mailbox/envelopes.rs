//! What is in a mailbox: envelopes come in within its quota, and go.

use bytes::Bytes;
use outlive_core::store::StoreError;
use outlive_core::transport::{Class, Refusal, Sender};
use outlive_core::{EnvelopeId, PeerId};

use super::{Put, Step, Writer};
use crate::records::{self, Amount, Envelope, Newest, Usage};

/// Numbers taken from the store at once: a crash skips as many.
const NUMBER_BLOCK: u64 = 65_536;

/// Newest-only envelopes one mailbox holds, beside its quota: a full mailbox takes them, or the
/// acknowledgements that would empty it could not pass. There is one for each sender, but anybody
/// can be any number of senders; one more is refused.
const NEWEST: Amount = Amount {
    envelopes: 65_536,
    bytes: 1024 * 1024 * 1024,
};

/// Where in a mailbox an envelope goes.
struct Place {
    usage: Usage,
    /// The part of that in which the envelope counts, without the one whose place it takes.
    amount: Amount,
    replaced: Option<Newest>,
    most: Amount,
}

impl Writer {
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

    fn count(&mut self, step: &mut Step, recipient: PeerId, usage: Usage) {
        self.usages.insert(recipient, usage);
        step.touched.insert(recipient);
    }

    /// The newest-only envelope of a sender, as the step leaves it.
    async fn newest(
        &self,
        step: &Step,
        to: PeerId,
        from: Sender,
    ) -> Result<Option<Newest>, StoreError> {
        if let Some(newest) = step.newest.get(&(to, from)) {
            return Ok(*newest);
        }
        let value = self.store.get(records::newest(&to, &from)).await?;
        Ok(value.and_then(|value| records::from_value(&value)))
    }

    fn number(&mut self, step: &mut Step) -> EnvelopeId {
        let number = self.next;
        self.next = self.next.saturating_add(1);
        if number >= self.leased {
            self.leased = number.saturating_add(NUMBER_BLOCK);
            self.renumber(step);
        }
        EnvelopeId(number)
    }

    /// Writes down which numbers are taken, which changes nothing.
    pub(super) fn renumber(&self, step: &mut Step) {
        let key = Bytes::from_static(records::NUMBERS);
        step.batch.put(key, records::to_value(&self.leased));
    }

    async fn place(
        &mut self,
        step: &Step,
        to: PeerId,
        from: Sender,
        class: Class,
    ) -> Result<Place, StoreError> {
        let usage = *self.usage(to).await?;
        let (amount, replaced, most) = match class {
            Class::NewestOnly => {
                let replaced = self.newest(step, to, from).await?;
                let without = |old: Newest| usage.newest.minus(old.bytes);
                (replaced.map_or(usage.newest, without), replaced, NEWEST)
            }
            Class::Keep | Class::NowOrNever => {
                let quota = Amount {
                    envelopes: self.config.mailbox_envelopes,
                    bytes: self.config.mailbox_bytes,
                };
                (usage.kept, None, quota)
            }
        };
        Ok(Place {
            usage,
            amount,
            replaced,
            most,
        })
    }

    pub(super) async fn put(
        &mut self,
        step: &mut Step,
        from: Sender,
        put: Put,
    ) -> Result<Result<(), Refusal>, StoreError> {
        let Put {
            to,
            class,
            ttl,
            packet,
        } = put;
        let bytes = packet.len() as u64;
        let asked = std::time::Duration::from_secs(u64::from(ttl));
        let ttl = asked.min(self.config.max_ttl);
        let expires = self.clock.now().0.plus(ttl);
        let mut place = self.place(step, to, from, class).await?;
        if ttl.is_zero() {
            if class == Class::Keep && !asked.is_zero() {
                // No mailbox of this relay holds anything. To say it is kept would be a lie.
                return Ok(Err(Refusal::MailboxFull));
            }
            // Its time is over: all it can do is to take the place of an older one.
            if let Some(old) = place.replaced {
                place.usage.newest = place.amount;
                step.remove(to, from, old.number, old.expires);
                step.newest.insert((to, from), None);
                step.batch.delete(records::newest(&to, &from));
                self.count(step, to, place.usage);
            }
            return Ok(Ok(()));
        }
        let mut more = place.amount.plus(bytes, place.most);
        if more.is_none() && self.sweep_early(step).await {
            place = self.place(step, to, from, class).await?;
            more = place.amount.plus(bytes, place.most);
        }
        let Some(more) = more else {
            return Ok(Err(Refusal::MailboxFull));
        };
        let Place {
            mut usage,
            replaced,
            ..
        } = place;
        let number = self.number(step);
        match class {
            Class::NewestOnly => {
                usage.newest = more;
                if let Some(old) = replaced {
                    step.remove(to, from, old.number, old.expires);
                }
                let newest = Newest {
                    number,
                    expires,
                    bytes,
                };
                step.newest.insert((to, from), Some(newest));
                let slot = records::newest(&to, &from);
                step.batch.put(slot, records::to_value(&newest));
            }
            Class::Keep | Class::NowOrNever => usage.kept = more,
        }
        self.count(step, to, usage);
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

    pub(super) async fn remove(
        &mut self,
        step: &mut Step,
        recipient: PeerId,
        sender: Sender,
        number: EnvelopeId,
    ) -> Result<(), StoreError> {
        let key = records::envelope(&recipient, &sender, number);
        if step.removed.contains(&key) {
            return Ok(());
        }
        let Some(value) = self.store.get(key).await? else {
            return Ok(());
        };
        let Some(envelope) = records::from_value::<Envelope>(&value) else {
            return Ok(());
        };
        let bytes = envelope.packet.len() as u64;
        let mut usage = *self.usage(recipient).await?;
        match envelope.class {
            Class::NewestOnly => {
                usage.newest = usage.newest.minus(bytes);
                step.newest.insert((recipient, sender), None);
                step.batch.delete(records::newest(&recipient, &sender));
            }
            Class::Keep | Class::NowOrNever => usage.kept = usage.kept.minus(bytes),
        }
        step.remove(recipient, sender, number, envelope.expires);
        self.count(step, recipient, usage);
        Ok(())
    }
}
