//! `outlive send`.

use std::collections::VecDeque;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use outlive::record::{self, Key, Record};
use outlive::{
    ChannelId, Ending, Error, PeerId, Queuing, Receipt, ReceiptState, Sending, Session, Store,
    limits,
};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

use crate::args::{CHUNK, NO_RELAY, Send, Wait, wrong_usage};
use crate::data::Directory;

/// Messages on their way to the disk at once.
const QUEUING: usize = 256;

/// Messages whose receipts are awaited at once.
const AWAITED: usize = 4_096;

#[derive(Serialize)]
struct Event<'a> {
    event: &'static str,
    number: u64,
    id: &'a str,
    state: &'a str,
}

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

fn name(state: ReceiptState) -> String {
    match state {
        ReceiptState::Reached(stage) => format!("{stage:?}").to_lowercase(),
        ReceiptState::Waiting(waiting) if waiting.refusal().is_some() => "refused".to_owned(),
        ReceiptState::Waiting(_) => "queued".to_owned(),
        ReceiptState::Ended(how) => how.to_string(),
    }
}

fn print(json: bool, number: u64, receipt: &Receipt, state: &str) -> Result<()> {
    let id = receipt.id().to_string();
    if json {
        crate::output::json(&Event {
            event: "receipt",
            number,
            id: &id,
            state,
        })?;
    } else {
        crate::output::line(format!("{number} {id} {state}").as_bytes())?;
    }
    Ok(())
}

/// Waits until a message got as far as it has to. Returns how it ended if it never will.
async fn reach(receipt: &Receipt, wait: Wait, json: bool, number: u64) -> Result<Option<Ending>> {
    let reached = async {
        match wait {
            Wait::Queued => Ok(()),
            Wait::Custody => receipt.custody().await,
            Wait::Delivered => receipt.delivered().await,
            Wait::Consumed => receipt.consumed().await,
        }
    };
    let mut reached = std::pin::pin!(reached);
    let mut told = false;
    let mut seen = receipt.state();
    loop {
        if let ReceiptState::Waiting(waiting) = seen
            && let Some(reason) = waiting.refusal()
            && !told
        {
            told = true;
            crate::output::say(format_args!("message {number} waits: {reason}; trying on"));
            print(json, number, receipt, "refused")?;
        }
        tokio::select! {
            result = &mut reached => return match result {
                Err(Error::Ended(how)) => Ok(Some(how)),
                result => Ok(result.map(|()| None)?),
            },
            changed = receipt.changed(seen) => seen = changed?,
        }
    }
}

async fn durable(
    queuing: &mut VecDeque<(u64, Queuing)>,
    awaited: &mut VecDeque<(u64, Receipt)>,
    json: bool,
) -> Result<()> {
    if let Some((number, queued)) = queuing.pop_front() {
        let receipt = queued.durable().await?;
        print(json, number, &receipt, "queued")?;
        awaited.push_back((number, receipt));
    }
    Ok(())
}

/// Waits for the first of these and prints what became of it. Returns what to say in the end if it
/// never gets as far as it has to: those behind it may.
async fn settle(
    awaited: &mut VecDeque<(u64, Receipt)>,
    args: &Send,
    json: bool,
) -> Result<Option<anyhow::Error>> {
    let Some((number, receipt)) = awaited.pop_front() else {
        return Ok(None);
    };
    if args.wait == Wait::Queued {
        return Ok(None);
    }
    let ended = reach(&receipt, args.wait, json, number).await?;
    let state = ended.map_or_else(|| receipt.state(), ReceiptState::Ended);
    print(json, number, &receipt, &name(state))?;
    Ok(ended.map(|how| anyhow!("message {number} was not delivered: {how}")))
}

async fn send_all(session: &Session, args: &Send, json: bool) -> Result<()> {
    let mut source = Source::open(&args.file, args.binary).await?;
    let mut queuing = VecDeque::new();
    let mut awaited = VecDeque::new();
    let channel = ChannelId(args.channel);
    let (mut ended, mut failed) = (None, None);
    loop {
        let message = match source.next().await {
            Ok(Some(message)) => message,
            Ok(None) => break,
            // What was read before is sent all the same.
            Err(error) => {
                failed = Some(error);
                break;
            }
        };
        let key = args
            .once
            .as_ref()
            .map(|key| format!("{key}/{}", source.number));
        let sending = Sending {
            once: key.as_ref().map(String::as_bytes),
            ..Sending::default()
        };
        let queued = session.start_send(channel, message, sending).await?;
        queuing.push_back((source.number, queued));
        if queuing.len() >= QUEUING {
            durable(&mut queuing, &mut awaited, json).await?;
        }
        if awaited.len() >= AWAITED {
            ended = ended.or(settle(&mut awaited, args, json).await?);
        }
    }
    while !queuing.is_empty() {
        durable(&mut queuing, &mut awaited, json).await?;
    }
    while !awaited.is_empty() {
        ended = ended.or(settle(&mut awaited, args, json).await?);
    }
    failed.or(ended).map_or(Ok(()), Err)
}

/// Whether anything of a peer ever came.
async fn heard_of(store: &dyn Store, peer: PeerId) -> Result<bool> {
    let record = store.get(Key::Session(peer).to_bytes()).await?;
    let session = record
        .map(|bytes| record::Session::from_bytes(&bytes))
        .transpose()?;
    Ok(session.is_some_and(|session| session.last_seen.is_some()))
}

pub(crate) async fn run(args: Send, json: bool) -> Result<()> {
    args.ways.check();
    let relays = args.ways.relays(Some(&args.to));
    if relays.is_empty() && args.wait != Wait::Queued {
        wrong_usage(NO_RELAY);
    }
    let directory = Directory::open(&args.data)?;
    let store = directory.store().await?;
    if !heard_of(&store, args.to.peer()).await? {
        crate::output::say(format_args!(
            "nothing was ever heard of {}; check the id: one with a typo may be that of \
             nobody",
            args.to.peer()
        ));
    }
    let node = crate::data::node_over(&directory, store, &relays, &args.ways).await?;
    let session = crate::data::session(&node, &args.to).await?;
    let timeout = async {
        match args.timeout {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    let result = tokio::select! {
        result = send_all(&session, &args, json) => result,
        () = crate::data::complain(&node) => Ok(()),
        () = crate::status::serve(&node, &args.data.dir) => Ok(()),
        () = timeout => {
            let over = crate::data::time_is_over(&node);
            Err(anyhow!("{over}; what is queued stays queued and is sent later"))
        }
    };
    drop(session);
    node.shutdown().await?;
    result
}
