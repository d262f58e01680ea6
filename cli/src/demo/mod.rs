//! `outlive demo`: a relay and two peers as processes of their own, links through the relay and to
//! the peer itself that are cut again and again, and a verdict.

mod over_road;
mod peer;
mod phases;
mod proxy;
mod report;
mod road;
mod verdict;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use self::phases::{Phase, Phases};
use self::proxy::Proxy;
use self::report::{Order, Report};
use self::road::Road;
use self::verdict::{Tally, Verdict, messages, shares};
use crate::args::{Demo, Direct};
use crate::identity::Secrets;

pub(crate) use self::peer::run as peer;

/// Time between two cuts: long enough for both peers to be back most of the time.
const BETWEEN_CUTS: Duration = Duration::from_millis(200);

/// How often it is looked whether the direct links have been as they are for long enough.
const LOOK: Duration = Duration::from_millis(50);

fn program() -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // The demo's directories are in the clear.
        .env_remove(crate::passphrase::CURRENT)
        .kill_on_drop(true);
    if std::env::var_os(crate::LOG).is_none() {
        // That links break is what is staged here, and no news.
        command.env(crate::LOG, "error");
    }
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
    if args.direct.contains(&Direct::Webrtc) {
        command.arg("--webrtc");
    }
    Ok(command.stdin(Stdio::piped()).spawn()?)
}

/// Tells a peer to do something. One that is gone shows it otherwise.
async fn tell(peer: &mut ChildStdin, order: Order) -> Result<()> {
    let mut line = serde_json::to_vec(&order)?;
    line.push(b'\n');
    // It is gone.
    let _ = peer.write_all(&line).await;
    Ok(())
}

/// Has the links that go to the peers themselves do what belongs to a phase.
async fn begin(
    phase: Phase,
    quic: &watch::Sender<bool>,
    peers: &mut [ChildStdin],
    verdict: &mut Verdict,
) -> Result<()> {
    let (dialed, orders): (bool, &[Order]) = match phase {
        // So that they try at once.
        Phase::Dialed => (true, &[Order::Roads { open: true }, Order::NetworkChanged]),
        Phase::Negotiated => (false, &[Order::Roads { open: true }, Order::NetworkChanged]),
        Phase::Restarted => (false, &[Order::Move]),
        Phase::Relayed => (false, &[Order::Roads { open: false }]),
    };
    let was_dialed = quic.send_replace(dialed);
    for peer in peers.iter_mut() {
        for order in orders {
            tell(peer, *order).await?;
        }
    }
    match phase {
        Phase::Dialed => {}
        Phase::Negotiated => verdict.direct_cuts += u64::from(was_dialed),
        Phase::Relayed => verdict.direct_cuts += 1,
        Phase::Restarted => {
            verdict.ice_restarts += 1;
            if let Some(moved) = peers.first_mut() {
                tell(moved, Order::NetworkChanged).await?;
            }
        }
    }
    Ok(())
}

pub(crate) async fn run(args: Demo, json: bool) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let scratch = Scratch::new()?;
    let mut processes = Vec::new();
    let ended = tokio::select! {
        played = play(&args, json, &scratch.0, &mut processes) => played,
        () = tokio::time::sleep(Duration::from_secs(args.timeout)) => {
            Err(anyhow!("the demo did not end within {} s", args.timeout))
        }
        _ = terminate.recv() => Err(anyhow!("stopped before there was a verdict")),
        _ = hangup.recv() => Err(anyhow!("stopped before there was a verdict")),
        _ = interrupt.recv() => Err(anyhow!("stopped before there was a verdict")),
    };
    // The relay last: nobody is to miss it. And none of them writes to the directory when that goes.
    for process in processes.iter_mut().rev() {
        // It may be gone by itself.
        let _ = process.kill().await;
    }
    ended
}

/// Has the relay and the peers talk until there is a verdict. Who calls it ends the processes.
async fn play(args: &Demo, json: bool, dir: &Path, processes: &mut Vec<Child>) -> Result<()> {
    let started = Instant::now();
    let mut command = program()?;
    command.arg("relay").arg("--listen").arg("127.0.0.1:0");
    let mut relay = command.arg("--data").arg(dir.join("relay")).spawn()?;
    let relay_lines = lines(&mut relay);
    processes.push(relay);
    let mut relay_lines = relay_lines?;
    let first = relay_lines
        .next_line()
        .await?
        .context("the relay did not start")?;
    let Listening { addr } = serde_json::from_str(&first)?;

    let dirs = [dir.join("one"), dir.join("two")];
    let secrets = [Secrets::of(&dirs[0], None)?, Secrets::of(&dirs[1], None)?];
    let ids = secrets.map(|secrets| secrets.identity().peer_id());
    let mut background = JoinSet::new();
    let mut cutters = Vec::new();
    let mut orders = Vec::new();
    let (reports, mut reported) = mpsc::channel(1_024);
    let quic = watch::Sender::new(true);
    for (me, dir) in dirs.iter().enumerate() {
        let (proxy, address) = Proxy::bind(addr).await?;
        let (cutter, cuts) = mpsc::channel(1);
        background.spawn(proxy.run(cuts));
        cutters.push(cutter);
        let mut place = None;
        if args.direct.contains(&Direct::Quic) {
            let socket = free_socket()?;
            let (road, found_at) = Road::to(socket).await?;
            background.spawn(road.run(quic.subscribe(), |open| *open));
            place = Some(Place { socket, found_at });
        }
        let mut child = peer_process(dir, address, place.as_ref(), ids[1 - me], args)?;
        let (stdin, lines) = (child.stdin.take(), lines(&mut child));
        processes.push(child);
        orders.push(stdin.context("no stdin")?);
        let mut lines = lines?;
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
    let mut phases = Phases::of(&args.direct);
    let mut look = tokio::time::interval(LOOK);
    let mut turn = 0;
    let mut said = Instant::now();
    loop {
        let done = tallies
            .iter()
            .all(|tally| tally.delivered && tally.count() >= each && tally.told() >= each);
        if done && verdict.cuts >= args.cuts && phases.seen {
            break;
        }
        tokio::select! {
            Some((me, report)) = reported.recv() => match report {
                Report::Received { number, redelivered } => {
                    verdict.received += 1;
                    tallies[me].received(number, redelivered);
                }
                Report::Rebound { micros } => rebinds.push(micros),
                Report::Traffic { links } => tallies[me].came = links,
                Report::Carrier { transport } => tallies[me].carrier = transport,
                Report::Delivered => tallies[me].delivered = true,
            },
            _ = look.tick() => {
                let carriers = [0, 1].map(|me| tallies[me].carrier.as_deref());
                if let Some(phase) = phases.look(carriers) {
                    begin(phase, &quic, &mut orders, &mut verdict).await?;
                }
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
            shares(&messages(&tallies))
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
    verdict.conclude(&tallies, each, rebinds);
    verdict.seconds = started.elapsed().as_secs_f64();
    verdict.tell(json)?;
    if !verdict.is_clean() {
        bail!("the session did not keep its promise");
    }
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
