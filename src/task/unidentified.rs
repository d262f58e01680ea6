//! A session that is not named to the relay as the sender of what it sends.

use outlive_core::engine::Engine;
use outlive_core::link::LinkClass;
use outlive_core::record::{Key, Record, UnidentifiedRecord};
use outlive_core::seal;
use outlive_core::transport::{Class, DeliveryToken, Outgoing, Slot};
use outlive_core::{Entropy, EnvelopeId, PeerId};

use super::Task;
use crate::entropy::{fresh_entropy, random};
use crate::error::Error;

/// Whether the peer's relay is told who sends.
pub(super) enum Naming {
    /// It was not read from the store yet, or what the store holds is in doubt.
    Unknown,
    Named,
    Unidentified(Unidentified),
}

impl Naming {
    /// How to send without being named, if that is so. An engine is driven only once it is known.
    pub(super) const fn unidentified(&mut self) -> Option<&mut Unidentified> {
        match self {
            Self::Unidentified(unidentified) => Some(unidentified),
            Self::Unknown | Self::Named => None,
        }
    }
}

/// How a session sends that is not named.
pub(super) struct Unidentified {
    record: UnidentifiedRecord,
    entropy: Entropy,
}

impl Unidentified {
    fn new(record: UnidentifiedRecord) -> Result<Self, Error> {
        let entropy = fresh_entropy()?;
        Ok(Self { record, entropy })
    }

    /// The envelope for a packet; `None` for one of a size that no packet has.
    pub(super) fn submit(
        &mut self,
        from: &PeerId,
        to: PeerId,
        envelope: EnvelopeId,
        class: Class,
        ttl: u32,
        packet: &[u8],
    ) -> Option<Outgoing> {
        let packet = seal::wrap(from, &to, packet, &mut self.entropy).ok()?;
        Some(Outgoing::SubmitUnidentified {
            envelope,
            to,
            token: self.record.token.clone(),
            slot: self.record.slot,
            class,
            ttl,
            packet,
        })
    }
}

impl Task {
    pub(super) async fn load_naming(&mut self) -> Result<(), Error> {
        let key = Key::Unidentified(self.peer).to_bytes();
        let value = self.inner.store.get(key).await?;
        self.naming = match value {
            Some(value) => {
                let record = UnidentifiedRecord::from_bytes(&value)?;
                Naming::Unidentified(Unidentified::new(record)?)
            }
            None => Naming::Named,
        };
        self.watch();
        Ok(())
    }

    /// Has the relays say when the peer comes and goes, if they may be told that we have to do with it.
    pub(super) fn watch(&mut self) {
        if !matches!(self.naming, Naming::Named) {
            return;
        }
        let mail = &self.mail;
        let unasked: Vec<_> = self
            .links
            .iter_mut()
            .filter(|(_, bound)| !bound.watches && bound.class != LinkClass::Direct)
            .filter(|(_, bound)| mail.may_watch(bound))
            .map(|(generation, bound)| {
                bound.watches = true;
                *generation
            })
            .collect();
        for generation in unasked {
            let peers = vec![self.peer];
            self.push(generation, Outgoing::Watch { peers });
        }
    }

    /// Sends with this token from when that is durable on, or under our name again.
    pub(super) fn send_unidentified(
        &mut self,
        engine: &mut Engine,
        token: Option<DeliveryToken>,
    ) -> Result<(), Error> {
        let on_its_way = [&self.next, &self.flight];
        let on_its_way = on_its_way.into_iter().find_map(|of| of.naming.as_ref());
        let before = on_its_way.unwrap_or(&self.naming);
        let (naming, record) = match token {
            Some(token) => {
                let slot = match before {
                    Naming::Unidentified(before) => before.record.slot,
                    Naming::Named | Naming::Unknown => Slot(random()?),
                };
                let unidentified = Unidentified::new(UnidentifiedRecord { token, slot })?;
                let record = unidentified.record.to_bytes();
                (Naming::Unidentified(unidentified), Some(record))
            }
            None => (Naming::Named, None),
        };
        engine.note(Key::Unidentified(self.peer), record);
        self.next.naming = Some(naming);
        Ok(())
    }
}
