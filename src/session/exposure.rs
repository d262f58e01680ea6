//! What of a session others get to see: its name, the relay; the addresses of this host, the peer. Both
//! are kept on disk, and hold until they are changed.

use bytes::Bytes;
use outlive_core::record::{Key, Record, UnidentifiedRecord};
use outlive_core::store::Batch;
use outlive_core::transport::DeliveryToken;
use tokio::sync::oneshot;

use super::Session;
use crate::direct::Asked;
use crate::error::Error;
use crate::task::Command;

impl Session {
    /// Sends without being named to the relay from now on: everything this session hands to a relay
    /// goes over a second connection that does not say who we are, with the token that the peer gave
    /// out ([`Node::delivery_token`](crate::Node::delivery_token)), in a wrapping that the peer alone
    /// sees through. Kept on disk until `None` ends it. What was handed over before is not called
    /// back. There is no way around: a relay that takes no such connection refuses each message, and
    /// while it does not know the token, since the peer has not signed in there yet or takes it no more,
    /// messages wait and their receipts say [`Refusal::Token`](crate::Refusal::Token). What waits goes
    /// with another token, or under our name, as soon as that is said here; it can't be taken back, and
    /// ends with its time to live.
    ///
    /// At a [foreign relay](crate::NodeBuilder::foreign_relays) this hides little: there this node is signed in
    /// under its name for no other reason than to write to somebody.
    ///
    /// While it holds, the relay is not asked whether the peer is there, and
    /// [`SessionState::peer_online`](crate::SessionState::peer_online) stays unknown once the link is
    /// bound anew. What the relay sees all the same is in `docs/SECURITY.md`.
    ///
    /// Dropped half-way, it may or may not hold: call it again.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Entropy`], [`Error::Shutdown`], [`Error::Closed`] or
    /// [`Error::Blocked`].
    pub async fn send_unidentified(&self, token: Option<DeliveryToken>) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Unidentified { token, reply };
        self.route.send(command).await?;
        answer.await.map_err(|_| self.route.gone())?
    }

    /// The token of the peer's with which this session [sends unidentified](Self::send_unidentified), as it
    /// is kept on disk; `None` if it sends under our name. Cancellation-safe: it only reads.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Record`] or [`Error::Shutdown`].
    pub async fn sends_unidentified(&self) -> Result<Option<DeliveryToken>, Error> {
        let key = Key::Unidentified(self.hub.peer).to_bytes();
        let value = self.route.inner().store.get(key).await;
        let value = value.map_err(|error| self.route.or_gone(error.into()))?;
        let record = value.as_deref().map(UnidentifiedRecord::from_bytes);
        Ok(record.transpose()?.map(|record| record.token))
    }

    /// Whether this session may have links to the peer itself, as [`allow_direct`](Self::allow_direct)
    /// left it on disk; true, if nothing was said. Cancellation-safe: it only reads.
    ///
    /// # Errors
    /// [`Error::Store`] or [`Error::Shutdown`].
    pub async fn allows_direct(&self) -> Result<bool, Error> {
        let key = Key::RelayOnly(self.hub.peer).to_bytes();
        let value = self.route.inner().store.get(key).await;
        let value = value.map_err(|error| self.route.or_gone(error.into()))?;
        Ok(value.is_none())
    }

    /// Whether this session may have links to the peer itself, which show the peer the addresses of
    /// this host and let the network see that the two speak. They may, if not said and the node can
    /// [make them](crate::NodeBuilder::direct). Kept on disk; when this returns with `false`, none
    /// is left and none is made. Nor is a relay dialed then only because the peer says that it reads there.
    ///
    /// Dropped half-way, it may or may not be on disk, and links may be left as they are: call it
    /// again.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Shutdown`] or [`Error::Blocked`].
    pub async fn allow_direct(&self, allowed: bool) -> Result<(), Error> {
        let key = Key::RelayOnly(self.hub.peer).to_bytes();
        let mut batch = Batch::new();
        if allowed {
            batch.delete(key);
        } else {
            batch.put(key, Bytes::new());
        }
        let _turn = self.hub.exposing.lock().await;
        let inner = self.route.inner();
        let committed = inner.store.commit(batch).await;
        committed.map_err(|error| self.route.or_gone(error.into()))?;
        // One that was closed reads it from the store when it is there again.
        let _ = self.route.send(Command::Exposed(allowed)).await;
        let Some(upgrade) = inner.upgrade(self.hub.peer)? else {
            return Ok(());
        };
        let (reply, done) = oneshot::channel();
        // One that ended meanwhile reads it from the store when it is there again.
        if upgrade.send(Asked::Allow(allowed, reply)).await.is_ok() {
            let _ = done.await;
        }
        Ok(())
    }
}
