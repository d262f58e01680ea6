//! `outlive send-file` and `outlive receive-files`.

mod receiving;
mod sending;

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use data_encoding::HEXLOWER;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use outlive::{FileInfo, Node, Store, TransferId};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::output::shown;

pub(crate) use self::receiving::receive;
pub(crate) use self::sending::send;

/// What a file came to.
#[derive(Serialize)]
struct Event<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    transfer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl<'a> Event<'a> {
    fn new(event: &'static str, transfer: impl Into<Option<TransferId>>) -> Self {
        Self {
            event,
            transfer: transfer.into().map(|transfer| transfer.to_string()),
            from: None,
            name: None,
            path: None,
            size: None,
            hash: None,
            reason: None,
        }
    }

    fn of(self, info: &'a FileInfo) -> Self {
        Self {
            name: Some(&info.name),
            size: Some(info.size),
            hash: Some(HEXLOWER.encode(&info.hash)),
            ..self
        }
    }
}

/// Bars on a terminal, nothing elsewhere.
fn bars(json: bool) -> Option<MultiProgress> {
    (!json && std::io::stderr().is_terminal()).then(MultiProgress::new)
}

fn bar(bars: Option<&MultiProgress>, name: &str, size: u64) -> ProgressBar {
    let Some(bars) = bars else {
        return ProgressBar::hidden();
    };
    let style = "{msg:30!} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let style = ProgressStyle::with_template(style).map(|style| style.progress_chars("=> "));
    let bar = bars.add(ProgressBar::new(size));
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.with_message(shown(name))
}

/// Why the work with files ended.
enum End {
    Done,
    TimeOver,
    Stopped,
}

impl End {
    /// What to say, if there are files that `go_on` or none.
    fn conclude(self, go_on: bool) -> Result<()> {
        let what = match self {
            Self::Done => return Ok(()),
            Self::TimeOver => "the time is over",
            Self::Stopped => "stopped",
        };
        if go_on {
            bail!("{what}; what is on its way goes on at the next start");
        }
        bail!("{what}");
    }
}

/// Runs until it is done, the time is over, or somebody ends it; what is on its way goes on at the
/// next start.
async fn run(
    node: &Node,
    store: &dyn Store,
    dir: &Path,
    timeout: Option<u64>,
    work: impl Future<Output = Result<()>>,
) -> Result<End> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let timeout = async {
        match timeout {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        result = work => result.map(|()| End::Done),
        () = crate::data::complain(node) => Ok(End::Done),
        () = crate::status::serve(node, store, dir) => Ok(End::Done),
        () = timeout => Ok(End::TimeOver),
        _ = terminate.recv() => Ok(End::Stopped),
        _ = interrupt.recv() => Ok(End::Stopped),
    }
}
