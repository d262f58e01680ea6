//! A device that refuses what the operating system took: a file system with more room than what is
//! below it, as on a thin volume. The pages stay in memory as if they had been written, until they are
//! evicted, or the power goes.
#![cfg(all(feature = "sled", target_os = "linux"))]

mod support;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use outlive_core::store::Store;
use outlive_storage::{Durability, SledOptions, SledStore};
use outlive_testing::comes_true;

use support::{found, numbered};

struct ThinDisk {
    below: tempfile::TempDir,
    above: tempfile::TempDir,
}

fn run(program: &str, args: &[&str], on: &[&Path]) -> bool {
    let mut command = Command::new(program);
    command.args(args).args(on).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

impl ThinDisk {
    /// Mounts both file systems. Where that can't be done the test is skipped, and says so: loop devices
    /// are missing in many containers.
    fn mount() -> Option<Self> {
        let [below, above] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let tmpfs = ["-t", "tmpfs", "-o", "size=48m", "tmpfs"];
        let mounted = run("mount", &tmpfs, &[below.path()]);
        let disk = Self { below, above };
        let image = disk.image();
        let made = mounted
            && File::create(&image).unwrap().set_len(256 << 20).is_ok()
            && run("mkfs.ext4", &["-q", "-O", "^has_journal"], &[&image]);
        if made && disk.mount_above() {
            return Some(disk);
        }
        println!("SKIPPED: a thin disk takes root, mkfs.ext4 and a loop device");
        None
    }

    fn image(&self) -> std::path::PathBuf {
        self.below.path().join("image")
    }

    fn mount_above(&self) -> bool {
        run(
            "mount",
            &["-o", "loop"],
            &[&self.image(), self.above.path()],
        )
    }

    /// From now on only what reached the device is there.
    async fn forget_memory(&self) {
        // sled's threads let go of its files a little after it.
        comes_true("the store to let go of its files", async || {
            run("umount", &[], &[self.above.path()])
        })
        .await;
        assert!(self.mount_above());
    }

    /// Takes all room below.
    fn exhaust(&self) {
        let mut file = File::create(self.below.path().join("ballast")).unwrap();
        while file.write_all(&[1; 4 << 10]).is_ok() {}
    }

    fn relieve(&self) {
        fs::remove_file(self.below.path().join("ballast")).unwrap();
    }
}

impl Drop for ThinDisk {
    fn drop(&mut self) {
        for dir in [&self.above, &self.below] {
            run("umount", &["-l"], &[dir.path()]);
        }
    }
}

async fn loses_nothing_that_it_acknowledged(durability: Durability) {
    /// The next number, if it was committed.
    async fn commit(store: &SledStore, at: &mut u64) -> Option<u64> {
        *at += 1;
        let committed = store.commit(numbered(*at, 3_000)).await;
        committed.is_ok().then_some(*at)
    }
    let Some(disk) = ThinDisk::mount() else {
        return;
    };
    let dir = disk.above.path().join("store");
    let store = SledOptions::new(&dir)
        .durability(durability)
        .open()
        .unwrap();
    let (mut acknowledged, mut at) = (Vec::new(), 0);
    for _ in 0..20 {
        acknowledged.push(commit(&store, &mut at).await.unwrap());
    }
    disk.exhaust();
    for _ in 0..2_000 {
        let Some(at) = commit(&store, &mut at).await else {
            break;
        };
        acknowledged.push(at);
    }
    let refused = at;
    for _ in 0..3 {
        acknowledged.extend(commit(&store, &mut at).await);
    }
    assert_ne!(acknowledged.last(), Some(&at), "there always was room");
    disk.relieve();
    for _ in 0..20 {
        acknowledged.push(commit(&store, &mut at).await.expect("there is room"));
    }
    println!(
        "refused number {refused}, acknowledged {}",
        acknowledged.len()
    );
    store.close().await.unwrap();
    disk.forget_memory().await;
    let store = SledStore::open(&dir).unwrap();
    // What was refused while the device failed twice may be there too.
    let found = found(&store).await;
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|at| !found.contains(at))
        .collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_is_acknowledged_behind_a_failed_sync_is_on_the_device() {
    loses_nothing_that_it_acknowledged(Durability::Sync).await;
}

#[tokio::test]
async fn what_is_buffered_behind_a_failed_sync_is_on_the_device_in_the_end() {
    let flush_every = Duration::from_millis(20);
    loses_nothing_that_it_acknowledged(Durability::Buffered { flush_every }).await;
}
