//! One peer of the demo, a process of its own: sends its share in bursts, and reports what comes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use outlive::{ChannelId, LinkClass, NetworkMonitor, Node, Session, SessionEvent};
use outlive_transports::{Quic, WebSocketRelay};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::watch;

use super::over_road::{OverRoad, Roads};
use super::report::{Came, Order, Report};
use crate::args::DemoPeer;
use crate::data::Directory;
use crate::output;

/// How often a peer tells what went over which links.
const TELL_TRAFFIC: Duration = Duration::from_millis(250);

/// Messages a peer sends in one go.
const BURST: u64 = 50;

pub(crate) async fn run(args: DemoPeer) -> Result<()> {
    let network = NetworkMonitor::new();
    let roads = watch::Sender::new(Roads {
        open: true,
        moved: 0,
    });
    let node = start(&args, network.clone(), &roads).await?;
    let session = node.session(args.to).await?;
    let mut relayed = BTreeSet::new();
    let mut lost: Option<Instant> = None;
    let _watching = session.on_event(move |event, state| {
        match event {
            SessionEvent::LinkDown { generation } if relayed.remove(generation) => {
                lost = Some(Instant::now());
            }
            SessionEvent::LinkUp { generation } => {
                let link = state.links.iter().find(|of| of.generation == *generation);
                if link.is_none_or(|link| link.class == LinkClass::Direct) {
                    return;
                }
                relayed.insert(*generation);
                if let Some(since) = lost.take() {
                    let micros = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
                    // The parent may be gone; then so are we.
                    let _ = output::json(&Report::Rebound { micros });
                }
            }
            _ => {}
        }
    });
    tokio::select! {
        result = receive(&session) => result,
        result = send(&session, &args) => result,
        result = tell(&session) => result,
        result = obey(&network, &roads) => result,
    }
}

async fn start(
    args: &DemoPeer,
    network: NetworkMonitor,
    roads: &watch::Sender<Roads>,
) -> Result<Node> {
    let directory = Directory::open(&args.data)?;
    let mut builder = Node::builder()
        .identity(directory.identity())
        .transport(WebSocketRelay::new(&args.relay)?)
        .network(network);
    if let (Some(socket), Some(found_at)) = (args.socket, args.found_at) {
        builder = builder.direct(Quic::new().bind_to(socket).found_at(found_at));
    }
    if args.webrtc {
        builder = builder.negotiated(OverRoad::new(roads.subscribe()));
    }
    Ok(builder.store(directory.store().await?).start().await?)
}

async fn receive(session: &Session) -> Result<()> {
    let mut inbox = session.inbox(ChannelId::MESSAGES)?;
    loop {
        let delivery = inbox.next().await?;
        let text = String::from_utf8_lossy(delivery.payload()).into_owned();
        let number = text.parse().context("not a message of the demo")?;
        let redelivered = delivery.redelivered();
        output::json(&Report::Received {
            number,
            redelivered,
        })?;
        delivery.commit().await?;
    }
}

async fn send(session: &Session, args: &DemoPeer) -> Result<()> {
    let bursts = args.messages.div_ceil(BURST).max(1);
    let pause = Duration::from_millis((args.spread / bursts).max(1));
    let mut pace = tokio::time::interval(pause);
    let mut last = None;
    for number in 1..=args.messages {
        if number % BURST == 1 {
            pace.tick().await;
        }
        let text = number.to_string();
        last = Some(session.send(ChannelId::MESSAGES, text).await?);
    }
    if let Some(last) = last {
        last.delivered().await?;
    }
    output::json(&Report::Delivered)?;
    std::future::pending().await
}

/// Tells what carries, and now and then what came.
async fn tell(session: &Session) -> Result<()> {
    let mut time = tokio::time::interval(TELL_TRAFFIC);
    let mut state = session.state();
    let mut told = None;
    loop {
        let carrier = state
            .borrow_and_update()
            .carrier()
            .map(|link| link.transport);
        if told != carrier {
            told = carrier;
            let transport = carrier.map(str::to_owned);
            output::json(&Report::Carrier { transport })?;
        }
        tokio::select! {
            changed = state.changed() => changed?,
            _ = time.tick() => {
                let traffic = session.traffic().into_iter();
                let came = traffic.map(|(name, of)| {
                    let came = Came {
                        packets: of.packets_received,
                        messages: of.messages_received,
                    };
                    (name.to_owned(), came)
                });
                let links = came.collect();
                output::json(&Report::Traffic { links })?;
            }
        }
    }
}

/// Does what the parent says. When it says no more, it is gone, and so are we.
async fn obey(network: &NetworkMonitor, roads: &watch::Sender<Roads>) -> Result<()> {
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    while let Some(order) = orders.next_line().await? {
        match serde_json::from_str(&order)? {
            Order::Roads { open } => roads.send_modify(|roads| roads.open = open),
            Order::Move => roads.send_modify(|roads| roads.moved += 1),
            Order::NetworkChanged => network.up(),
        }
    }
    Ok(())
}
