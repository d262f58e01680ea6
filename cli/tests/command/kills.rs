//! Sender, relay and listener are killed with SIGKILL at random moments. Every line arrives, in
//! order; what comes twice is marked, and is the one line whose commit a kill cut off.

use std::collections::BTreeSet;
use std::io::Read;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::process::{Running, id, outlive, relay};

const LINES: u64 = 3_000;
const KILLS: u64 = 60;

/// Longer than this takes; only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(180);

/// A moment between two kills. Random, so that they come at all stages of start and work.
fn moment(random: &mut u64) -> Duration {
    *random = random
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    Duration::from_millis(40 + (*random >> 33) % 260)
}

/// What came out of the listeners, one after the other. Each but the last was killed.
#[derive(Default)]
struct Heard {
    lines: BTreeSet<u64>,
    highest: u64,
    /// The last line of the last listener that said something: its commit may have been cut off.
    cut_off: Option<u64>,
    wrong: Vec<String>,
}

impl Heard {
    /// Notes what one listener said, from its start to its end.
    fn note(&mut self, said: &str, first: bool) {
        let mut before = None;
        // What had come before the listener was started, and is marked: the app may have had it.
        let mut waited = !first;
        for line in said.lines() {
            // A listener that is killed may leave half a line.
            let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else {
                continue;
            };
            let number = message["text"]
                .as_str()
                .expect("text")
                .parse()
                .expect("a number");
            let redelivered = message["redelivered"].as_bool().expect("a mark");
            if redelivered && !waited {
                self.wrong
                    .push(format!("{number} is marked, and no kill was before it"));
            }
            waited &= redelivered;
            if self.lines.insert(number) {
                if number < self.highest {
                    self.wrong
                        .push(format!("{number} is behind {}", self.highest));
                }
            } else if !redelivered {
                self.wrong
                    .push(format!("{number} is there twice and not marked"));
            } else if before.is_some() || self.cut_off != Some(number) {
                self.wrong
                    .push(format!("{number} came again after its commit"));
            }
            self.highest = self.highest.max(number);
            before = Some(number);
        }
        self.cut_off = before.or(self.cut_off);
    }
}

#[test]
fn every_line_arrives_in_order_whoever_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let (alice, bob, data) = (
        dir.path().join("alice"),
        dir.path().join("bob"),
        dir.path().join("relay"),
    );
    let file = dir.path().join("lines");
    let text: String = (1..=LINES).map(|n| format!("{n}\n")).collect();
    std::fs::write(&file, text).unwrap();
    let to = id(&bob);
    let (first, address) = relay(&data, "127.0.0.1:0");
    let url = format!("ws://{address}");
    let kills = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let heard = Arc::new(Mutex::new(Heard::default()));
    let sent = Arc::new(AtomicBool::new(false));
    let killing = |kills: &AtomicU64| kills.load(Ordering::SeqCst) < KILLS;

    std::thread::scope(|scope| {
        let (kills, over, sent, heard) = (&*kills, &*over, &*sent, &*heard);
        let (url, to, alice, bob, data, file, address) =
            (&url, &to, &alice, &bob, &data, &file, &address);
        // The sender sends the same file again and again; each line goes once.
        scope.spawn(move || {
            let mut random = 11;
            loop {
                let mut command = outlive();
                command.args(["send", "--relay", url, "--to", to, "--once", "file"]);
                command
                    .arg("--data")
                    .arg(alice)
                    .arg(file)
                    .stdout(Stdio::null());
                let mut child = command.spawn().unwrap();
                let until = Instant::now() + moment(&mut random);
                loop {
                    if let Some(status) = child.try_wait().unwrap() {
                        if status.success() && !killing(kills) {
                            sent.store(true, Ordering::SeqCst);
                            return;
                        }
                        break;
                    }
                    if over.load(Ordering::SeqCst) {
                        // It waits for what was lost: the verdict is elsewhere.
                        child.kill().unwrap();
                        child.wait().unwrap();
                        return;
                    }
                    if killing(kills) && Instant::now() >= until {
                        child.kill().unwrap();
                        child.wait().unwrap();
                        kills.fetch_add(1, Ordering::SeqCst);
                        break;
                    }
                    std::thread::park_timeout(Duration::from_millis(5));
                }
            }
        });
        scope.spawn(move || {
            let (mut random, mut first) = (23, true);
            while !over.load(Ordering::SeqCst) {
                let mut command = outlive();
                command
                    .args(["--json", "listen", "--relay", url, "--data"])
                    .arg(bob);
                let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
                let mut stdout = child.stdout.take().unwrap();
                let reading = std::thread::spawn(move || {
                    let mut text = Vec::new();
                    stdout.read_to_end(&mut text).map(|_| text)
                });
                let until = Instant::now() + moment(&mut random) * 4;
                // Killed at the end too, so that its last words are read.
                while Instant::now() < until && !over.load(Ordering::SeqCst) {
                    std::thread::park_timeout(Duration::from_millis(5));
                }
                child.kill().unwrap();
                child.wait().unwrap();
                kills.fetch_add(1, Ordering::SeqCst);
                let text = reading.join().unwrap().unwrap();
                let text = String::from_utf8_lossy(&text);
                heard.lock().unwrap().note(&text, first);
                first = false;
            }
        });
        scope.spawn(move || {
            let mut random = 47;
            let mut running: Option<Running> = Some(first);
            while !over.load(Ordering::SeqCst) {
                std::thread::park_timeout(moment(&mut random) * 3);
                if killing(kills) {
                    if let Some(relay) = running.take() {
                        relay.kill();
                        kills.fetch_add(1, Ordering::SeqCst);
                    }
                    running = Some(relay(data, address).0);
                }
            }
        });
        let started = Instant::now();
        loop {
            let complete = heard.lock().unwrap().lines.len() as u64 == LINES;
            let done = complete && sent.load(Ordering::SeqCst);
            if done || started.elapsed() > PATIENCE {
                over.store(true, Ordering::SeqCst);
                break;
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
    });
    let heard = heard.lock().unwrap();
    let missing: Vec<u64> = (1..=LINES)
        .filter(|n| !heard.lines.contains(n))
        .take(10)
        .collect();
    assert!(missing.is_empty(), "lost, the first of them: {missing:?}");
    assert!(heard.wrong.is_empty(), "{:?}", heard.wrong);
    assert!(
        sent.load(Ordering::SeqCst),
        "the sender was never told that all is delivered"
    );
    let kills = kills.load(Ordering::SeqCst);
    assert!(kills >= 50, "{kills} kills are too few to tell");
    println!("{kills} kills, {LINES} lines");
}
