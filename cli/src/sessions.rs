//! `outlive sessions`.

use anyhow::Result;
use outlive::{Store, list_sessions};

use crate::args::Data;
use crate::data::Directory;
use crate::queue::Queue;
use crate::row::{PAGE, Row};

pub(crate) async fn run(data: &Data, json: bool) -> Result<()> {
    let directory = Directory::existing(data)?;
    if crate::status::ask(&data.dir, |row| row.print(json)).await? {
        return Ok(());
    }
    let store = directory.store().await?;
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
