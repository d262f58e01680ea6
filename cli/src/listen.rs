//! `outlive listen`.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use data_encoding::BASE64;
use outlive::{ChannelId, Delivery, Node, PeerId};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::args::Listen;
use crate::news::News;

#[derive(Serialize)]
struct Message<'a> {
    from: String,
    channel: u16,
    seq: u64,
    id: String,
    redelivered: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

/// Characters of a peer id that tell those who write apart. None is sure of a peer by them.
const SHORT: usize = 8;

fn print(delivery: &Delivery, args: &Listen, json: bool) -> Result<()> {
    let payload = delivery.payload();
    if args.binary {
        return crate::output::bytes(payload);
    }
    if !json && crate::output::is_shown() {
        let mut text = crate::output::shown(&String::from_utf8_lossy(payload));
        if args.from.is_none() {
            let from = delivery.from().to_string();
            text = format!("{}  {text}", from.get(..SHORT).unwrap_or(&from));
        }
        return crate::output::line(text.as_bytes());
    }
    if !json {
        return crate::output::line(payload);
    }
    let text = std::str::from_utf8(payload).ok();
    crate::output::json(&Message {
        from: delivery.from().to_string(),
        channel: delivery.channel().0,
        seq: delivery.seq().0,
        id: delivery.id().to_string(),
        redelivered: delivery.redelivered(),
        text,
        base64: text.is_none().then(|| BASE64.encode(payload)),
    })?;
    Ok(())
}

/// Hands over the messages of one peer.
async fn follow(
    node: Node,
    peer: PeerId,
    channel: ChannelId,
    out: mpsc::Sender<Delivery>,
) -> Result<()> {
    let session = node.session(peer).await?;
    let mut news = News::of(&session, channel);
    let mut inbox = session.inbox(channel)?;
    loop {
        let delivery = tokio::select! {
            delivery = inbox.next() => delivery?,
            () = news.tell() => inbox.next().await?,
        };
        news.before(&delivery);
        if out.send(delivery).await.is_err() {
            return Ok(());
        }
    }
}

async fn listen(node: &Node, args: &Listen, json: bool) -> Result<()> {
    let channel = ChannelId(args.channel);
    let (sender, mut deliveries) = mpsc::channel(1);
    let mut followed = BTreeSet::new();
    let mut following = JoinSet::new();
    if let Some(contact) = &args.from {
        let peer = contact.peer();
        followed.insert(peer);
        following.spawn(follow(node.clone(), peer, channel, sender.clone()));
    }
    let mut left = args.count;
    while left != Some(0) {
        tokio::select! {
            Some(delivery) = deliveries.recv() => {
                print(&delivery, args, json)?;
                delivery.commit().await?;
                left = left.map(|left| left - 1);
            }
            peer = node.next_arrival(), if args.from.is_none() => {
                let peer = peer?;
                if followed.insert(peer) {
                    following.spawn(follow(node.clone(), peer, channel, sender.clone()));
                }
            }
            Some(ended) = following.join_next() => ended??,
        }
    }
    Ok(())
}

/// What it is to be stopped: the end if nobody said how many messages there have to be.
fn stopped(args: &Listen) -> Result<()> {
    let Some(count) = args.count else {
        return Ok(());
    };
    bail!(
        "stopped before there were {count} messages; what was not printed is there for the next start"
    )
}

pub(crate) async fn run(args: Listen, json: bool) -> Result<()> {
    args.ways.check()?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let relays = args.ways.some_relays(args.from.as_ref())?;
    let (node, store) =
        crate::data::node(&args.data, &relays, &args.ways, args.from.as_ref()).await?;
    let timeout = async {
        match args.timeout {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    let result = tokio::select! {
        result = listen(&node, &args, json) => result,
        () = crate::data::complain(&node) => Ok(()),
        () = crate::status::serve(&node, &*store, &args.data.dir) => Ok(()),
        () = timeout => Err(anyhow!(crate::data::time_is_over(&node))),
        _ = terminate.recv() => stopped(&args),
        _ = interrupt.recv() => stopped(&args),
    };
    if let Err(error) = node.shutdown().await {
        bail!("{error}");
    }
    result
}
