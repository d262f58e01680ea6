//! `outlive sessions`.

use anyhow::{Result, bail};
use outlive::{Error, PeerId, Store, list_sessions, queued_for, store_owner};

use crate::args::Data;
use crate::data::Directory;
use crate::row::{PAGE, Row};

/// Refuses the store of another peer, as a node does. One that names nobody was never used by any.
async fn refuse_other(store: &dyn Store, given: PeerId) -> Result<()> {
    match store_owner(store).await? {
        Some(store) if store != given => bail!(Error::OtherIdentity { store, given }),
        Some(_) | None => Ok(()),
    }
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
            let queued = queued_for(&store, info.peer).await;
            Row::new(info, queued, None)?.print(json)?;
        }
    }
    store.close().await?;
    Ok(())
}
