//! What receivers say of our files: a channel of its own, read as soon as something comes.

use outlive_core::ChannelId;
use outlive_core::wire::file::FileMessage;
use tokio::sync::oneshot;
use tracing::{Instrument, debug, warn};

use crate::delivery::Delivery;
use crate::error::Error;
use crate::inbox::Inbox;
use crate::route::Route;
use crate::task::{Command, STORE_RETRY};

/// Has the channel read until nothing is left on it, unless that is under way.
pub(crate) fn read_replies(route: Route) {
    if !route.hub().inboxes.take(ChannelId::FILE_REPLIES) {
        return;
    }
    let span = tracing::info_span!("files", peer = %route.hub().peer.short());
    let tasks = route.inner().tasks.clone();
    tasks.spawn(read_all(route).instrument(span));
}

async fn read_all(route: Route) {
    let channel = ChannelId::FILE_REPLIES;
    loop {
        let mut inbox = Inbox::new(route.hub().clone(), route.clone(), channel);
        let end = route.hub().inboxes.point(channel).end;
        let read = tokio::select! {
            read = read_some(&route, &mut inbox) => read,
            () = route.ended() => return,
        };
        if let Err(error) = &read {
            warn!(%error, "what was said of files can't be read");
            tokio::select! {
                () = tokio::time::sleep(STORE_RETRY) => {}
                () = route.ended() => return,
            }
        }
        drop(inbox);
        // Who came meanwhile found the inbox taken; who takes it from here on reads all of it.
        let is_read = read.is_ok() && route.hub().inboxes.point(channel).end == end;
        if is_read || !route.hub().inboxes.take(channel) {
            return;
        }
    }
}

async fn read_some(route: &Route, inbox: &mut Inbox) -> Result<(), Error> {
    loop {
        match inbox.try_next().await {
            Ok(Some(delivery)) => {
                heed(route, &delivery).await?;
                delivery.commit().await?;
            }
            Ok(None) => return Ok(()),
            // It stays where it is; the others must not wait for it.
            Err(error) if error.is_damage() => warn!(%error, "a reply is unreadable"),
            Err(error) => return Err(error),
        }
    }
}

async fn heed(route: &Route, delivery: &Delivery) -> Result<(), Error> {
    let (transfer, outcome) = match FileMessage::decode(delivery.payload()) {
        Ok(Some(FileMessage::Done(transfer))) => (transfer, Ok(())),
        Ok(Some(FileMessage::Stop(transfer, reason))) => (transfer, Err(reason)),
        Ok(other) => {
            debug!(?other, "not a reply");
            return Ok(());
        }
        Err(error) => {
            warn!(%error, "a malformed message about a file");
            return Ok(());
        }
    };
    let (reply, heard) = oneshot::channel();
    let command = Command::FileReply {
        transfer,
        outcome,
        reply,
    };
    route.send(command).await?;
    heard.await.map_err(|_| route.gone())?
}

#[cfg(test)]
mod tests {
    use outlive_core::store::StoreError;
    use outlive_core::{Identity, Position};
    use outlive_storage::MemoryStore;

    use super::*;
    use crate::Node;

    #[tokio::test(start_paused = true)]
    async fn replies_are_read_by_one_reader_while_the_store_fails_and_are_let_go_of_after() {
        let store = MemoryStore::new();
        let alice = Identity::from_seed([1; 32]);
        let node = Node::builder().identity(alice).store(store.clone());
        let node = node.start().await.unwrap();
        let bob = Identity::from_seed([2; 32]).peer_id();
        let session = node.session(bob).await.unwrap();
        let route = session.route().clone();
        let (hub, channel) = (route.hub(), ChannelId::FILE_REPLIES);
        store.faults().fail_reads(12, &StoreError::Full);
        hub.inboxes.grew(channel, Position(1));
        read_replies(route.clone());
        for _ in 0..3 {
            assert!(!hub.inboxes.take(channel), "a second reader");
            tokio::time::sleep(STORE_RETRY).await;
        }
        tokio::time::sleep(STORE_RETRY * 20).await;
        assert!(hub.inboxes.take(channel));
        hub.inboxes.leave(channel);
        drop(session);
        node.shutdown().await.unwrap();
    }
}
