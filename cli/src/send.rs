//! `outlive send`.

use std::cell::Cell;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use outlive::record::{self, Key, Record};
use outlive::{ChannelId, PeerId, Queuing, Sending, Session, Stage, Store, limits};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::args::{CHUNK, Send, Wait};
use crate::data::Directory;
use crate::receipts::{AWAITED, Receipts};

/// Messages on their way to the disk at once.
const QUEUING: usize = 256;

/// How long nothing may come of a peer that is waited for before that is told.
const SILENCE: Duration = Duration::from_secs(5);

/// Where messages are cut from.
struct Source {
    name: String,
    input: BufReader<Pin<Box<dyn AsyncRead + std::marker::Send>>>,
    binary: bool,
    number: u64,
}

impl Source {
    async fn open(file: &Path, binary: bool) -> Result<Self> {
        let (name, input) = if file == Path::new("-") {
            let stdin: Pin<Box<dyn AsyncRead + std::marker::Send>> = Box::pin(tokio::io::stdin());
            ("the input".to_owned(), stdin)
        } else {
            let name = file.display().to_string();
            let can_t_open = || format!("can't open {name}");
            let opened = tokio::fs::File::open(file).await;
            let opened = opened.with_context(can_t_open)?;
            if opened.metadata().await.with_context(can_t_open)?.is_dir() {
                bail!("{name} is a directory; send the files in it, one at a time");
            }
            (name, Box::pin(opened) as _)
        };
        Ok(Self {
            name,
            input: BufReader::new(input),
            binary,
            number: 0,
        })
    }

    /// The next message: a line without its line feed, or a chunk.
    async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        self.number += 1;
        let mut bytes = Vec::new();
        let read = if self.binary {
            let mut chunk = (&mut self.input).take(CHUNK as u64);
            chunk.read_to_end(&mut bytes).await
        } else {
            let mut line = (&mut self.input).take(limits::MESSAGE_BYTES as u64 + 1);
            line.read_until(b'\n', &mut bytes).await
        };
        read.map_err(|error| {
            let what = if self.binary { "message" } else { "line" };
            anyhow!(
                "can't read {} from {what} {} on: {error}; what comes before is sent, send the rest \
                 once it can be read",
                self.name,
                self.number
            )
        })?;
        if self.binary {
            return Ok((!bytes.is_empty()).then_some(bytes));
        }
        match bytes.pop() {
            None => return Ok(None),
            Some(b'\n') => {}
            Some(last) => {
                bytes.push(last);
                if bytes.len() > limits::MESSAGE_BYTES {
                    bail!(
                        "line {} is longer than a message may be ({} bytes); use --binary",
                        self.number,
                        limits::MESSAGE_BYTES
                    );
                }
                crate::output::say(format_args!(
                    "the input ends within line {}; sent as it is",
                    self.number
                ));
            }
        }
        if std::str::from_utf8(&bytes).is_err() {
            bail!(
                "line {} is not UTF-8 text; use --binary for such bytes",
                self.number
            );
        }
        Ok(Some(bytes))
    }
}

/// Under what a message is sent once: the key of the command, the number of the line, and what it says.
/// Of the same input nothing is sent twice, and other input is not taken for it.
fn once(key: &str, number: u64, message: &[u8]) -> String {
    format!("{key}/{number}/{}", blake3::hash(message))
}

/// Sends what the input has, as it comes, and tells meanwhile how far what was sent gets.
async fn send_all(session: &Session, args: &Send, receipts: &Receipts) -> Result<()> {
    let mut source = Source::open(&args.file, args.binary).await?;
    let (handed_over, mut queuing) = mpsc::channel(QUEUING);
    let (durable, queued) = mpsc::channel(AWAITED);
    let reading = async move {
        loop {
            let room = receipts.room().await?;
            let message = match source.next().await {
                Ok(Some(message)) => message,
                Ok(None) => {
                    receipts.end_of_input();
                    return Ok(None);
                }
                // What was read before is sent all the same, which may take long, or be stopped.
                Err(error) => {
                    crate::output::say(format_args!("{error:#}"));
                    return Ok(Some(anyhow!(receipts.read_up_to())));
                }
            };
            let number = source.number;
            let key = args.once.as_ref();
            let key = key.map(|key| once(key, number, &message));
            let sending = Sending {
                once: key.as_ref().map(String::as_bytes),
                ..Sending::default()
            };
            let channel = ChannelId(args.channel);
            let queued = session.start_send(channel, message, sending).await?;
            let place = receipts.place(number, room);
            if handed_over.send((place, queued)).await.is_err() {
                return Ok(None);
            }
        }
    };
    let queuing = async move {
        while let Some((place, queuing)) = queuing.recv().await {
            let receipt = Queuing::durable(queuing).await?;
            // Nobody may wait for more than that.
            let _ = durable.send(receipts.queued(place, receipt)?).await;
        }
        anyhow::Ok(())
    };
    let (failed, (), ended) = tokio::try_join!(reading, queuing, receipts.follow(queued))?;
    // Why the input failed was said.
    ended.or(failed).map_or(Ok(()), Err)
}

/// Says so if nothing of a peer that is waited for ever came.
async fn warn_of(store: &dyn Store, peer: PeerId) -> Result<()> {
    let record = store.get(Key::Session(peer).to_bytes()).await?;
    let session = record
        .map(|bytes| record::Session::from_bytes(&bytes))
        .transpose()?;
    let heard = session.is_some_and(|session| session.last_seen.is_some());
    if !heard {
        crate::output::say(format_args!(
            "nothing was ever heard of {peer}; check the id: one with a typo may be that of nobody"
        ));
    }
    Ok(())
}

pub(crate) async fn run(args: Send, json: bool) -> Result<()> {
    args.ways.check()?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let relays = match args.wait {
        Wait::Queued => args.ways.relays(Some(&args.to)),
        Wait::Custody | Wait::Delivered | Wait::Consumed => {
            args.ways.some_relays(Some(&args.to))?
        }
    };
    let directory = Directory::open(&args.data)?;
    let store = directory.store().await?;
    let node = crate::data::node_over(
        &directory,
        store.clone(),
        &relays,
        &args.ways,
        Some(&args.to),
    )
    .await?;
    let session = crate::data::session(&node, &args.to, &args.ways).await?;
    let timeout = async {
        match args.timeout {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    let receipts = Receipts::new(args.wait.stage(), json);
    // Who does not wait for the peer need not have heard of it.
    let to_warn = Cell::new(args.wait.stage() >= Stage::Delivered);
    let warning = async {
        tokio::time::sleep(SILENCE).await;
        if to_warn.replace(false) {
            warn_of(&*store, args.to.peer()).await?;
        }
        std::future::pending().await
    };
    let stopped = tokio::select! {
        result = send_all(&session, &args, &receipts) => result.map(|()| None),
        result = warning => result,
        () = crate::data::complain(&node) => Ok(None),
        () = crate::status::serve(&node, &*store, &args.data.dir) => Ok(None),
        () = timeout => Ok(Some(crate::data::time_is_over(&node))),
        _ = terminate.recv() => Ok(Some("stopped".to_owned())),
        _ = interrupt.recv() => Ok(Some("stopped".to_owned())),
    };
    let result = match stopped {
        Ok(Some(why)) => {
            if to_warn.get() {
                warn_of(&*store, args.to.peer()).await?;
            }
            Err(anyhow!("{why}; {}", receipts.left()))
        }
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    drop(session);
    node.shutdown().await?;
    result
}
