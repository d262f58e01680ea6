//! `outlive sessions`.

use anyhow::{Context, Result, bail};
use outlive::{Bytes, Error, PeerId, Store, list_sessions};

use crate::args::Data;
use crate::data::Directory;
use crate::queue::Queue;
use crate::row::{PAGE, Row};

/// Where a store names the peer whose it is; a test of this command fails if a node writes that elsewhere.
const PEER_KEY: &[u8] = b"n/peer";

/// Refuses the store of another peer, as a node does. One that names nobody was never used by any.
async fn refuse_other(store: &dyn Store, given: PeerId) -> Result<()> {
    let Some(named) = store.get(Bytes::from_static(PEER_KEY)).await? else {
        return Ok(());
    };
    let named = <[u8; 32]>::try_from(&named[..]);
    let named = named.ok().and_then(|bytes| PeerId::from_bytes(bytes).ok());
    let store =
        named.context("the store is damaged (whose it is); restore its directory from a backup")?;
    if store != given {
        bail!(Error::OtherIdentity { store, given });
    }
    Ok(())
}

pub(crate) async fn run(data: &Data, json: bool) -> Result<()> {
    let directory = Directory::existing(data)?;
    if crate::status::ask(&data.dir, |row| row.print(json)).await? {
        return Ok(());
    }
    let store = directory.store().await?;
    refuse_other(&*store, directory.identity().peer_id()).await?;
    let mut after = None;
    loop {
        let page = list_sessions(&store, after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.peer);
        for info in &page {
            let queue = Queue::of(&store, info).await?;
            Row::new(info, queue.as_ref(), None).print(json)?;
        }
    }
    store.close().await?;
    Ok(())
}
