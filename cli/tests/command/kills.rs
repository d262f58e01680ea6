//! Sender, relay and listener are killed with SIGKILL at random moments. Every line arrives, in
//! order; what comes twice is marked.

use std::collections::BTreeSet;
use std::io::Read;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::process::{Running, id, outlive, relay};

const LINES: u64 = 3_000;
const KILLS: u64 = 60;

/// A moment between two kills. Random, so that they come at all stages of start and work.
fn moment(random: &mut u64) -> Duration {
    *random = random
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    Duration::from_millis(40 + (*random >> 33) % 260)
}

#[derive(Default)]
struct Heard {
    lines: BTreeSet<u64>,
    highest: u64,
    unmarked: Vec<u64>,
    reordered: Vec<u64>,
}

impl Heard {
    fn note(&mut self, line: &str) {
        // A listener that is killed may leave half a line.
        let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else {
            return;
        };
        let number = message["text"]
            .as_str()
            .expect("text")
            .parse()
            .expect("a number");
        let redelivered = message["redelivered"].as_bool().expect("a mark");
        if !self.lines.insert(number) {
            if !redelivered {
                self.unmarked.push(number);
            }
        } else if number < self.highest {
            self.reordered.push(number);
        }
        self.highest = self.highest.max(number);
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
    let killing = |kills: &AtomicU64| kills.load(Ordering::SeqCst) < KILLS;

    std::thread::scope(|scope| {
        let (kills, over, heard) = (&*kills, &*over, &*heard);
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
                            return;
                        }
                        break;
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
            let mut random = 23;
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
                let mut heard = heard.lock().unwrap();
                String::from_utf8_lossy(&text)
                    .lines()
                    .for_each(|line| heard.note(line));
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
            let late = started.elapsed() > Duration::from_secs(180);
            if (complete && !killing(kills)) || late {
                over.store(true, Ordering::SeqCst);
                // A sender that hangs must not hide the verdict.
                kills.fetch_max(if late { 0 } else { KILLS }, Ordering::SeqCst);
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
    assert!(
        heard.unmarked.is_empty(),
        "twice and not marked: {:?}",
        heard.unmarked
    );
    assert!(
        heard.reordered.is_empty(),
        "out of order: {:?}",
        heard.reordered
    );
    let kills = kills.load(Ordering::SeqCst);
    assert!(kills >= 50, "{kills} kills are too few to tell");
    println!("{kills} kills, {LINES} lines");
}
