//! `outlive demo`: a relay and two peers as processes of their own, links through the relay and to
//! the peer itself that are cut again and again, and a verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use outlive::{ChannelId, LinkClass, SessionEvent};
use outlive_transports::Quic;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::args::{Demo, DemoPeer, Direct};
use crate::identity::Secrets;
use crate::proxy::Proxy;
use crate::road::Road;

/// Time between two cuts: long enough for both peers to be back most of the time.
const BETWEEN_CUTS: Duration = Duration::from_millis(200);

/// How long the roads between the peers stay open, and then closed: long enough for the session to
/// move to the direct link, and for it to go on over the relay.
const ROADS_OPEN: Duration = Duration::from_millis(2_500);
const ROADS_CLOSED: Duration = Duration::from_millis(1_000);

/// How often a peer tells what went over which links.
const TELL_TRAFFIC: Duration = Duration::from_millis(250);

/// Messages a peer sends in one go.
const BURST: u64 = 50;

/// What a peer of the demo reports.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Report {
    /// A message came.
    Received { number: u64, redelivered: bool },
    /// A link through the relay was back after this time.
    Rebound { micros: u64 },
    /// Packets that came so far, by what makes the links they came over.
    Traffic { packets: BTreeMap<String, u64> },
    /// Everything was sent and delivered.
    Delivered,
}

/// What the demo found out.
#[derive(Debug, Default, Serialize)]
struct Verdict {
    event: &'static str,
    sent: u64,
    received: u64,
    lost: u64,
    duplicated: u64,
    out_of_order: u64,
    cuts: u64,
    direct_cuts: u64,
    reconnects: u64,
    rebind_median_ms: f64,
    rebind_max_ms: f64,
    seconds: f64,
    /// Packets that came, by what makes the links they came over.
    packets: BTreeMap<String, u64>,
}

/// What came from one peer to the other.
#[derive(Default)]
struct Tally {
    times: BTreeMap<u64, u64>,
    highest: u64,
    out_of_order: u64,
    delivered: bool,
    packets: BTreeMap<String, u64>,
}

fn program() -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // The demo's directories are in the clear.
        .env_remove(crate::passphrase::CURRENT)
        .kill_on_drop(true);
    Ok(command)
}

fn lines(child: &mut Child) -> Result<Lines<BufReader<ChildStdout>>> {
    Ok(BufReader::new(child.stdout.take().context("no stdout")?).lines())
}

#[derive(Deserialize)]
struct Listening {
    addr: SocketAddr,
}

/// A directory that is removed in the end.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let mut name = [0; 8];
        getrandom::fill(&mut name).context("no random numbers")?;
        let name = data_encoding::HEXLOWER.encode(&name);
        let path = std::env::temp_dir().join(format!("outlive-demo-{name}"));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is in the system's directory for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Where a peer's socket for direct links is, and where the other finds it.
struct Place {
    socket: SocketAddr,
    found_at: SocketAddr,
}

/// A free port. Somebody else may take it before the peer does; then the peer does without.
fn free_socket() -> Result<SocketAddr> {
    Ok(std::net::UdpSocket::bind(("127.0.0.1", 0))?.local_addr()?)
}

fn peer_process(
    dir: &Path,
    address: SocketAddr,
    place: Option<&Place>,
    to: outlive::PeerId,
    args: &Demo,
) -> Result<Child> {
    let spread = BETWEEN_CUTS.as_millis() as u64 * args.cuts;
    let mut command = program()?;
    command.arg("demo-peer").arg("--data").arg(dir);
    command
        .arg("--relay")
        .arg(format!("ws://{address}"))
        .arg("--to")
        .arg(to.to_string());
    command
        .arg("--messages")
        .arg((args.messages.div_ceil(2)).to_string());
    command.arg("--spread").arg(spread.to_string());
    if let Some(Place { socket, found_at }) = place {
        command.arg("--socket").arg(socket.to_string());
        command.arg("--found-at").arg(found_at.to_string());
    }
    Ok(command.spawn()?)
}

pub(crate) async fn run(args: Demo, json: bool) -> Result<()> {
    let timeout = Duration::from_secs(args.timeout);
    match tokio::time::timeout(timeout, play(&args, json)).await {
        Ok(result) => result,
        Err(_) => bail!("the demo did not end within {} s", args.timeout),
    }
}

async fn play(args: &Demo, json: bool) -> Result<()> {
    let started = Instant::now();
    let scratch = Scratch::new()?;
    let mut command = program()?;
    command.arg("relay").arg("--listen").arg("127.0.0.1:0");
    let mut relay = command.arg("--data").arg(scratch.0.join("relay")).spawn()?;
    let mut relay_lines = lines(&mut relay)?;
    let first = relay_lines
        .next_line()
        .await?
        .context("the relay did not start")?;
    let Listening { addr } = serde_json::from_str(&first)?;

    let dirs = [scratch.0.join("one"), scratch.0.join("two")];
    let secrets = [Secrets::of(&dirs[0], None)?, Secrets::of(&dirs[1], None)?];
    let ids = secrets.map(|secrets| secrets.identity().peer_id());
    let mut background = JoinSet::new();
    let mut cutters = Vec::new();
    let mut peers = Vec::new();
    let (reports, mut reported) = mpsc::channel(1_024);
    let roads = watch::Sender::new(true);
    for (me, dir) in dirs.iter().enumerate() {
        let (proxy, address) = Proxy::bind(addr).await?;
        let (cutter, cuts) = mpsc::channel(1);
        background.spawn(proxy.run(cuts));
        cutters.push(cutter);
        let mut place = None;
        if args.direct == Direct::Quic {
            let socket = free_socket()?;
            let (road, found_at) = Road::to(socket).await?;
            background.spawn(road.run(roads.subscribe()));
            place = Some(Place { socket, found_at });
        }
        let mut child = peer_process(dir, address, place.as_ref(), ids[1 - me], args)?;
        let mut lines = lines(&mut child)?;
        let reports = reports.clone();
        background.spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let Ok(report) = serde_json::from_str::<Report>(&line) else {
                    continue;
                };
                if reports.send((me, report)).await.is_err() {
                    return;
                }
            }
        });
        peers.push(child);
    }

    let bar = progress(args, json);
    let each = args.messages.div_ceil(2);
    let mut verdict = Verdict {
        event: "verdict",
        sent: each * 2,
        ..Verdict::default()
    };
    let mut tallies = [Tally::default(), Tally::default()];
    let mut rebinds = Vec::new();
    let mut cut = tokio::time::interval(BETWEEN_CUTS);
    cut.reset();
    let mut change_roads = Instant::now() + ROADS_OPEN;
    let mut turn = 0;
    let mut said = Instant::now();
    loop {
        let done = tallies
            .iter()
            .all(|tally| tally.delivered && tally.times.len() as u64 >= each);
        if done && verdict.cuts >= args.cuts {
            break;
        }
        tokio::select! {
            Some((me, report)) = reported.recv() => match report {
                Report::Received { number, redelivered } => {
                    let tally = &mut tallies[me];
                    verdict.received += 1;
                    *tally.times.entry(number).or_default() += 1;
                    if number < tally.highest && !redelivered {
                        tally.out_of_order += 1;
                    }
                    tally.highest = tally.highest.max(number);
                }
                Report::Rebound { micros } => rebinds.push(micros),
                Report::Traffic { packets } => tallies[me].packets = packets,
                Report::Delivered => tallies[me].delivered = true,
            },
            () = tokio::time::sleep_until(change_roads.into()), if args.direct != Direct::Never => {
                let open = !*roads.borrow();
                roads.send_replace(open);
                verdict.direct_cuts += u64::from(!open);
                change_roads += if open { ROADS_OPEN } else { ROADS_CLOSED };
            }
            _ = cut.tick(), if verdict.cuts < args.cuts => {
                let (reply, ended) = oneshot::channel();
                if cutters[turn].send(reply).await.is_ok() {
                    verdict.cuts += ended.await.unwrap_or_default();
                }
                turn = 1 - turn;
            }
        }
        bar.set_position(verdict.received);
        bar.set_message(format!(
            "{} cuts, {}",
            verdict.cuts,
            shares(&packets(&tallies))
        ));
        if bar.is_hidden() && !json && said.elapsed() >= Duration::from_secs(2) {
            said = Instant::now();
            let text = format!(
                "{} of {} messages, {} cuts",
                verdict.received, verdict.sent, verdict.cuts
            );
            crate::output::line(text.as_bytes())?;
        }
    }
    bar.finish_and_clear();
    for child in &mut peers {
        // It may be on its way out by itself.
        let _ = child.start_kill();
        child.wait().await?;
    }
    relay.start_kill()?;
    relay.wait().await?;

    verdict.packets = packets(&tallies);
    for tally in &tallies {
        verdict.lost += (1..=each)
            .filter(|number| !tally.times.contains_key(number))
            .count() as u64;
        verdict.duplicated += tally.times.values().map(|times| times - 1).sum::<u64>();
        verdict.out_of_order += tally.out_of_order;
    }
    rebinds.sort_unstable();
    let ms = |micros: Option<&u64>| micros.map_or(0.0, |micros| *micros as f64 / 1_000.0);
    verdict.reconnects = rebinds.len() as u64;
    verdict.rebind_median_ms = ms(rebinds.get(rebinds.len() / 2));
    verdict.rebind_max_ms = ms(rebinds.last());
    verdict.seconds = started.elapsed().as_secs_f64();
    tell(&verdict, json)?;
    let Verdict {
        lost: 0,
        duplicated: 0,
        out_of_order: 0,
        ..
    } = verdict
    else {
        bail!("the session did not keep its promise");
    };
    Ok(())
}

fn progress(args: &Demo, json: bool) -> ProgressBar {
    if json {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(args.messages);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} messages, {msg}") {
        bar.set_style(style);
    }
    bar
}

/// What came over which links at both peers.
fn packets(tallies: &[Tally]) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for (transport, count) in tallies.iter().flat_map(|tally| &tally.packets) {
        *all.entry(transport.clone()).or_default() += count;
    }
    all
}

fn shares(packets: &BTreeMap<String, u64>) -> String {
    let all = packets.values().sum::<u64>().max(1) as f64;
    let share = |(transport, count): (&String, &u64)| {
        format!("{:.0} % over {transport}", *count as f64 * 100.0 / all)
    };
    packets.iter().map(share).collect::<Vec<_>>().join(", ")
}

fn tell(verdict: &Verdict, json: bool) -> Result<()> {
    if json {
        crate::output::json(verdict)?;
        return Ok(());
    }
    let text = format!(
        "sent {}\nreceived {}\nlost {}\nduplicated {}\nout of order {}\nlinks to the relay cut {}\n\
         direct links cut {}\nreconnects {}\ntime to rebind {:.1} ms (median), {:.1} ms (longest), back-off included\n\
         packets {}\ntook {:.1} s",
        verdict.sent,
        verdict.received,
        verdict.lost,
        verdict.duplicated,
        verdict.out_of_order,
        verdict.cuts,
        verdict.direct_cuts,
        verdict.reconnects,
        verdict.rebind_median_ms,
        verdict.rebind_max_ms,
        shares(&verdict.packets),
        verdict.seconds
    );
    Ok(crate::output::line(text.as_bytes())?)
}

/// One peer: sends its share in bursts, and reports what comes.
pub(crate) async fn peer(args: DemoPeer) -> Result<()> {
    let quic = match (args.socket, args.found_at) {
        (Some(socket), Some(found_at)) => Some(Quic::new().bind_to(socket).found_at(found_at)),
        _ => None,
    };
    let node = crate::data::peer(&args.data, &args.relay, quic).await?;
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
                    let _ = crate::output::json(&Report::Rebound { micros });
                }
            }
            _ => {}
        }
    });
    let receiving = async {
        let mut inbox = session.inbox(ChannelId::MESSAGES)?;
        loop {
            let delivery = inbox.next().await?;
            let text = String::from_utf8_lossy(delivery.payload()).into_owned();
            let number = text.parse().context("not a message of the demo")?;
            let redelivered = delivery.redelivered();
            crate::output::json(&Report::Received {
                number,
                redelivered,
            })?;
            delivery.commit().await?;
        }
    };
    let sending = async {
        let bursts = args.messages.div_ceil(BURST).max(1);
        let pause = Duration::from_millis((args.spread / bursts).max(1));
        let mut pace = tokio::time::interval(pause);
        let mut last = None;
        for number in 1..=args.messages {
            if number % BURST == 1 {
                pace.tick().await;
            }
            last = Some(
                session
                    .send(ChannelId::MESSAGES, number.to_string())
                    .await?,
            );
        }
        if let Some(last) = last {
            last.delivered().await?;
        }
        crate::output::json(&Report::Delivered)?;
        std::future::pending::<Result<()>>().await
    };
    let telling = async {
        let mut time = tokio::time::interval(TELL_TRAFFIC);
        loop {
            time.tick().await;
            let traffic = session.traffic().into_iter();
            let packets = traffic.map(|(name, of)| (name.to_owned(), of.packets_received));
            crate::output::json(&Report::Traffic {
                packets: packets.collect(),
            })?;
        }
    };
    let result: Result<()> = tokio::select! {
        result = receiving => result,
        result = sending => result,
        result = telling => result,
    };
    result
}
