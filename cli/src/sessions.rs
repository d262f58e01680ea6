//! `outlive sessions`.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::Result;
use outlive::{Store, WallTime, list_sessions};
use serde::Serialize;

use crate::args::Data;
use crate::data::Directory;

/// Sessions read at once.
const PAGE: usize = 1_024;

#[derive(Serialize)]
struct Row {
    peer: String,
    epoch: String,
    peer_epoch: Option<String>,
    queued: u64,
    queued_bytes: u64,
    waiting: u64,
    last_seen: Option<u64>,
    trust: &'static str,
}

/// How long ago something was, by the clock of this host.
fn ago(at: WallTime) -> String {
    let since = UNIX_EPOCH + Duration::from_millis(at.0);
    let seconds = since.elapsed().unwrap_or_default().as_secs();
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3_600 => format!("{} min ago", seconds / 60),
        3_600..172_800 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

pub(crate) async fn run(data: &Data, json: bool) -> Result<()> {
    let store = Directory::existing(data)?.store().await?;
    let mut after = None;
    loop {
        let page = list_sessions(&store, after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.peer);
        for info in &page {
            let record = &info.record;
            let row = Row {
                peer: info.peer.to_string(),
                epoch: record.epoch.to_string(),
                peer_epoch: record.peer_epoch.map(|epoch| epoch.to_string()),
                queued: record.out.values().map(|out| out.next.since(out.low)).sum(),
                queued_bytes: record
                    .out
                    .values()
                    .map(outlive::record::OutChannel::bytes)
                    .sum(),
                waiting: record.inboxes.values().map(|inbox| inbox.messages).sum(),
                last_seen: record.last_seen.map(|at| at.0),
                trust: crate::trust::name(info.trust),
            };
            if json {
                crate::output::json(&row)?;
            } else {
                let seen = record.last_seen.map_or_else(|| "never".to_owned(), ago);
                let text = format!(
                    "{}  {}  queued {} ({} bytes)  waiting {}  epoch {}  last seen {seen}",
                    row.peer, row.trust, row.queued, row.queued_bytes, row.waiting, row.epoch
                );
                crate::output::line(text.as_bytes())?;
            }
        }
    }
    store.close().await?;
    Ok(())
}
