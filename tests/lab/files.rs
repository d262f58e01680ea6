//! Nobody who talks waits behind a file.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use outlive::{FileEvent, SendingFile};
use tempfile::TempDir;

use crate::moves::{BACK, CALM, LINES, move_host};
use crate::peer::{CHATTER, soon};
use crate::town::{Kind, Plan, Town, figure};
use crate::weather::Weather;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A file that one peer has, and a place for it at the other.
pub(crate) struct Disk {
    path: PathBuf,
    content: Vec<u8>,
    into: PathBuf,
    _dir: TempDir,
}

impl Disk {
    pub(crate) fn with(bytes: u32) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, into) = (dir.path().join("a"), dir.path().join("into"));
        let content: Vec<u8> = (0..bytes).map(|n| (n / 5 % 251) as u8).collect();
        std::fs::write(&path, &content).expect("room on the disk");
        std::fs::create_dir(&into).expect("room on the disk");
        Self {
            path,
            content,
            into,
            _dir: dir,
        }
    }

    fn is_whole(&self, copy: &Path) -> bool {
        std::fs::read(copy).expect("it is there") == self.content
    }
}

/// Has the first peer send the file to the other. `when` is called once, when that much is there.
/// Returns when it was, and when the whole file was.
pub(crate) async fn send(town: &Town, disk: &Disk, much: u64, when: impl FnOnce()) -> [Instant; 2] {
    let sending = town.peers[0].session.send_file(&disk.path).await;
    let sending = sending.expect("it is taken");
    let mut files = town.peers[1].session.files().await.expect("its inbox");
    let (mut when, mut then) = (Some(when), None);
    let file = loop {
        match soon("a part", files.next()).await.expect("it comes") {
            FileEvent::Offered(mut offer) => offer.accept(&disk.into).await.expect("room"),
            FileEvent::Progress(_, progress) if progress.done >= much => {
                if let Some(when) = when.take() {
                    is_in_the_middle(&sending);
                    then = Some(Instant::now());
                    when();
                }
            }
            FileEvent::Progress(..) => {}
            FileEvent::Received(file) => break file,
            FileEvent::Failed(_, reason) => panic!("{reason}"),
        }
    };
    let whole = Instant::now();
    assert!(disk.is_whole(file.path()));
    soon("the word of it", sending.done())
        .await
        .expect("it is there");
    [then.expect("it was in the middle"), whole]
}

fn is_in_the_middle(sending: &SendingFile) {
    let there = sending.progress();
    assert!(there.done < there.size, "{there:?}");
}

#[tokio::test]
async fn a_host_gets_another_address_in_the_middle_of_a_file() {
    let Some(mut town) = Town::open(27, CALM).await else {
        return;
    };
    let disk = Disk::with(48 << 20);
    town.talk(LINES);
    town.until_direct().await;
    town.hear_more(20).await;
    let [moved, whole] = send(&town, &disk, 4 << 20, || move_host(&town, 2, 3)).await;
    let silence = town.silence_since(moved);
    figure("new address, file", "whole after", whole - moved);
    figure("new address, file", "silent for", silence);
    town.until_direct().await;
    town.hush().await;
    town.end().await;
    assert!(silence <= BACK, "{silence:?}");
}

/// How long a message may take beside a file over roads on which a packet of the file takes 65 ms. What
/// a relay is handed at most would take two seconds.
const BESIDE_A_FILE: Duration = ms(1_000);

#[tokio::test]
async fn nobody_waits_behind_a_file_that_goes_over_the_relay() {
    let weather = Weather {
        rate: Some(8_000_000),
        ..Weather::delayed(ms(10))
    };
    let Some(mut town) = Town::open(29, weather).await else {
        return;
    };
    town.part();
    let disk = Disk::with(8 << 20);
    town.talk(LINES);
    town.until_relayed().await;
    town.hear_more(20).await;
    let [began, whole] = send(&town, &disk, 1 << 20, || ()).await;
    figure("file over the relay", "7 MiB after", whole - began);
    // What was still on its way then has arrived.
    town.hush().await;
    let way = town.peers[0].longest_way(&town.peers[1], began);
    figure("file over the relay", "a message took at most", way);
    town.end().await;
    assert!(way <= BESIDE_A_FILE, "{way:?}");
}

/// How long a message may take beside a file over WebRTC, over a road of 200 ms. Before it are the 96 KiB
/// that get there in that time, and a packet; 256 KiB and a packet took 1.15 s.
const BESIDE_A_FILE_OVER_WEBRTC: Duration = ms(800);

#[tokio::test]
async fn nobody_waits_long_behind_a_file_that_goes_over_webrtc() {
    let plan = Plan::new(30, Weather::delayed(ms(50)), Kind::WebRtc);
    let Some(mut town) = Town::of(plan).await else {
        return;
    };
    let disk = Disk::with(2 << 20);
    town.talk(CHATTER);
    town.until_direct().await;
    // No better way than the link.
    town.roads[2].set(Weather::delayed(ms(500)));
    town.hear_more(20).await;
    let [began, whole] = send(&town, &disk, 1 << 20, || ()).await;
    figure("file over webrtc", "1 MiB after", whole - began);
    town.until_direct().await;
    town.hush().await;
    let way = town.peers[0].longest_way(&town.peers[1], began);
    figure("file over webrtc", "a message took at most", way);
    town.end().await;
    assert!(way <= BESIDE_A_FILE_OVER_WEBRTC, "{way:?}");
}
