//! `outlive send-file`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;
use outlive::{FileError, FileProgress, Node, SendingFile, limits};
use tokio::task::JoinSet;

use super::{Event, bar, bars, run};
use crate::args::SendFile;
use crate::output::{Closed, shown};

async fn follow_sending(file: SendingFile, bar: ProgressBar, json: bool) -> Result<()> {
    let mut seen = FileProgress {
        done: 0,
        size: file.info().size,
    };
    let ended = loop {
        match file.changed(seen).await {
            Ok(Some(progress)) => {
                bar.set_position(progress.done);
                seen = progress;
            }
            Ok(None) => break Ok(()),
            Err(FileError::Stopped(reason)) => break Err(reason),
            Err(error) => return Err(error.into()),
        }
    };
    bar.finish_and_clear();
    let info = file.info();
    match ended {
        Ok(()) if json => {
            crate::output::json(&Event::new("sent", file.transfer()).of(info))?;
        }
        Ok(()) => {
            let line = format!("{}: sent, {} bytes", shown(&info.name), info.size);
            crate::output::line(line.as_bytes())?;
        }
        Err(reason) => {
            if json {
                let failed = Event {
                    reason: Some(reason.to_string()),
                    ..Event::new("failed", file.transfer()).of(info)
                };
                crate::output::json(&failed)?;
            }
            bail!("{}: {reason}", shown(&info.name));
        }
    }
    Ok(())
}

/// Looks at all files before one is queued: who corrects a name and runs this again is not to send the
/// others a second time.
fn check(files: &[PathBuf]) -> Result<()> {
    let mut wrong = 0;
    for path in files {
        if let Err(error) = can_be_sent(path) {
            crate::output::say(format_args!("{error:#}"));
            wrong += 1;
        }
    }
    if wrong > 0 {
        bail!(
            "{wrong} of the files can't be sent, so nothing is queued; run this again with files that can"
        );
    }
    Ok(())
}

fn can_be_sent(path: &Path) -> Result<()> {
    let can_t_find = || format!("can't find {}", path.display());
    let path = &fs::canonicalize(path).with_context(can_t_find)?;
    let found = fs::metadata(path).with_context(can_t_find)?;
    if !found.is_file() {
        bail!(FileError::NotAFile(path.clone()));
    }
    let name = path.file_name().unwrap_or_default();
    if path.to_str().is_none() || name.len() > limits::FILE_NAME_BYTES {
        bail!(FileError::Name(path.clone()));
    }
    if found.len() > limits::FILE_BYTES {
        let error = FileError::TooLarge(found.len());
        bail!("{} can't be sent: {error}", path.display());
    }
    File::open(path).with_context(|| format!("can't read {}", path.display()))?;
    Ok(())
}

async fn send_all(node: &Node, args: &SendFile, json: bool) -> Result<()> {
    let session = crate::data::session(node, &args.to, &args.ways).await?;
    let bars = bars(json);
    let mut following = JoinSet::new();
    // What an earlier run has not brought to its end goes on with these.
    let mut sending = session.sending_files().await?;
    for path in &args.files {
        let file = session.send_file(path).await;
        sending.push(file.with_context(|| {
            format!(
                "{} is not sent, nor what is named behind it; what is named before it is queued, leave \
                 that out the next time",
                path.display()
            )
        })?);
    }
    for file in sending {
        if json {
            crate::output::json(&Event::new("sending", file.transfer()).of(file.info()))?;
        }
        let bar = bar(bars.as_ref(), &file.info().name, file.info().size);
        following.spawn(follow_sending(file, bar, json));
    }
    let mut failed = 0;
    while let Some(ended) = following.join_next().await {
        if let Err(error) = ended? {
            if error.is::<Closed>() {
                return Err(error);
            }
            crate::output::say(format_args!("{error:#}"));
            failed += 1;
        }
    }
    if failed > 0 {
        bail!("{failed} of the files did not arrive");
    }
    Ok(())
}

pub(crate) async fn send(args: SendFile, json: bool) -> Result<()> {
    args.ways.check()?;
    let relays = args.ways.some_relays(Some(&args.to))?;
    check(&args.files)?;
    let (node, store) = crate::data::node(&args.data, &relays, &args.ways, Some(&args.to)).await?;
    let work = send_all(&node, &args, json);
    let end = run(&node, &*store, &args.data.dir, args.timeout, work).await;
    node.shutdown().await?;
    end?.conclude(true)
}
