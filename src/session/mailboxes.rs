//! Where the peer of a session reads what is left for it.

use outlive_core::limits::MAILBOXES;
use outlive_core::record::{Key, MailboxesRecord, Record};
use outlive_core::{Mailbox, is_relay_address};
use tokio::sync::oneshot;

use super::Session;
use crate::error::Error;
use crate::task::Command;

impl Session {
    /// Tells at which relays the peer reads, the best first, as its contact names them, if
    /// [foreign relays](crate::NodeBuilder::foreign_relays) are reached. Messages are left there as long as
    /// the peer has not said itself where it reads, and where those that it has said can't be reached. If
    /// none can, messages wait, unless the peer is at a relay of this node's at the moment; when those that may
    /// be dialed have failed for ten minutes, messages are left at this node's too. A contact may be so old that nobody fetches what is left where it says. In
    /// place of what was told before; kept on disk. At most
    /// [`MAILBOXES`](outlive_core::limits::MAILBOXES), the first of these.
    ///
    /// Dropped half-way, it may or may not be kept: call it again.
    ///
    /// # Errors
    /// [`Error::RelayAddress`] if one of them can be no address, [`Error::Store`], [`Error::Shutdown`],
    /// [`Error::Closed`] or [`Error::Blocked`].
    pub async fn mailboxes_at<R: Into<String>>(
        &self,
        relays: impl IntoIterator<Item = R>,
    ) -> Result<(), Error> {
        let relays: Vec<String> = relays.into_iter().take(MAILBOXES).map(Into::into).collect();
        if let Some(wrong) = relays.iter().find(|relay| !is_relay_address(relay)) {
            return Err(Error::RelayAddress(wrong.clone()));
        }
        let (reply, answer) = oneshot::channel();
        self.route.send(Command::ReadsAt { relays, reply }).await?;
        answer.await.map_err(|_| self.route.gone())?
    }

    /// At which relays the peer reads, the best first: where it says so itself, or else where the app has
    /// [told](Self::mailboxes_at). None: nobody has said. Cancellation-safe: it only reads.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Record`] or [`Error::Shutdown`].
    pub async fn mailboxes(&self) -> Result<Vec<String>, Error> {
        let key = Key::Mailboxes(self.hub.peer).to_bytes();
        let value = self.route.inner().store.get(key).await;
        let value = value.map_err(|error| self.route.or_gone(error.into()))?;
        let record = value
            .as_deref()
            .map(MailboxesRecord::from_bytes)
            .transpose()?;
        let MailboxesRecord { said, named, .. } = record.unwrap_or_default();
        if said.is_empty() {
            return Ok(named);
        }
        Ok(said
            .into_iter()
            .map(|Mailbox { relay, .. }| relay)
            .collect())
    }
}
