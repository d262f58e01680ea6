//! A session, as `outlive sessions` shows it.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::Result;
use outlive::{Error, LinkState, Queued, SessionInfo, SessionState, StoreError, WallTime};
use serde::{Deserialize, Serialize};

/// Sessions read at once.
pub(crate) const PAGE: usize = 1_024;

/// A session, as it is shown.
#[derive(Serialize, Deserialize)]
pub(crate) struct Row {
    peer: String,
    epoch: String,
    peer_epoch: Option<String>,
    /// Unknown, as the three below, where what is on disk of that can't be read.
    queued: Option<u64>,
    queued_bytes: Option<u64>,
    files: Option<u64>,
    file_bytes: Option<u64>,
    /// There is more than was counted in the four above.
    #[serde(default)]
    more: bool,
    waiting: u64,
    last_seen: Option<u64>,
    trust: String,
    /// Those of a session that a process has open; none of one at rest.
    links: Vec<Link>,
}

#[derive(Serialize, Deserialize)]
struct Link {
    transport: String,
    address: String,
    /// Whether the other end answers over it.
    #[serde(default)]
    state: String,
    /// Whether it carries what is sent.
    carries: bool,
}

impl Row {
    /// What is on disk, and how it is now if a process has it open.
    pub(crate) fn new(
        info: &SessionInfo,
        queued: Result<Queued, Error>,
        state: Option<SessionState>,
    ) -> Result<Self> {
        let queued = match queued {
            Ok(queued) => Some(queued),
            // Other sessions are none the worse for it.
            Err(error) if is_unreadable(&error) => None,
            Err(error) => return Err(error.into()),
        };
        let SessionInfo { record, .. } = info;
        let state = state.unwrap_or_default();
        let link = |link: &outlive::LinkInfo| Link {
            transport: link.transport.to_owned(),
            address: link.address.clone(),
            state: link.state.to_string(),
            carries: Some(link.generation) == state.carrier,
        };
        Ok(Self {
            peer: info.peer.to_string(),
            epoch: record.epoch.to_string(),
            peer_epoch: record.peer_epoch.map(|epoch| epoch.to_string()),
            queued: queued.map(|queued| queued.messages),
            queued_bytes: queued.map(|queued| queued.bytes),
            files: queued.map(|queued| queued.files),
            file_bytes: queued.map(|queued| queued.file_bytes),
            more: queued.is_some_and(|queued| queued.more),
            waiting: record.inboxes.values().map(|inbox| inbox.messages).sum(),
            last_seen: record.last_seen.map(|at| at.0),
            trust: crate::trust::name(info.trust).to_owned(),
            links: state.links.iter().map(link).collect(),
        })
    }

    pub(crate) fn print(&self, json: bool) -> Result<()> {
        if json {
            return crate::output::json(self);
        }
        let seen = self.last_seen.map(WallTime);
        let seen = seen.map_or_else(|| "never".to_owned(), ago);
        let over = if self.more { "more than " } else { "" };
        let mut text = format!(
            "{}  {}  queued {over}{} ({} bytes)",
            self.peer,
            self.trust,
            shown(self.queued),
            shown(self.queued_bytes)
        );
        if self.files != Some(0) {
            let (files, bytes) = (shown(self.files), shown(self.file_bytes));
            text += &format!("  files {files} ({over}{bytes} bytes)");
        }
        text += &format!(
            "  waiting {}  epoch {}  last seen {seen}",
            self.waiting, self.epoch
        );
        for link in &self.links {
            let does = if link.carries { "carried by" } else { "beside" };
            text += &format!("  {does} {} {}", link.transport, link.address);
            if !link.state.is_empty() && link.state != LinkState::Connected.to_string() {
                text += &format!(" ({})", link.state);
            }
        }
        crate::output::line(text.as_bytes())
    }
}

/// Whether the bytes on disk are the reason, and not that the disk or the store is out of reach.
const fn is_unreadable(error: &Error) -> bool {
    matches!(
        error,
        Error::Record(_) | Error::Store(StoreError::Damaged { .. })
    )
}

fn shown(count: Option<u64>) -> String {
    count.map_or_else(|| "?".to_owned(), |count| count.to_string())
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
