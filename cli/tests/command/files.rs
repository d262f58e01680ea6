//! Files between two processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use outlive::TransferId;
use outlive::record::Key;

use crate::process::{Running, feed, id, outlive, relay};
use crate::records;

/// Longer than anything here takes; only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn files_go_from_one_process_to_another_with_their_hashes_and_go_on_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let (_relay, address) = relay(&dir.path().join("relay"), "127.0.0.1:0");
    let url = format!("ws://{address}");
    let (alice, bob) = (dir.path().join("alice"), dir.path().join("bob"));
    let to = id(&bob);
    let into = dir.path().join("into");
    fs::create_dir(&into).unwrap();
    let large: Vec<u8> = (0..8_000_000_u32).map(|n| (n / 3 % 251) as u8).collect();
    for (name, content) in [("large.bin", &large[..]), ("empty", b""), ("small", b"hi")] {
        fs::write(dir.path().join(name), content).unwrap();
    }

    let sending = || {
        let mut command = outlive();
        command.args(["--json", "send-file", "--relay", &url, "--to", &to]);
        command.args(["--timeout", "60", "--data"]).arg(&alice);
        command
    };
    let receiving = |count: &str| {
        let mut command = outlive();
        command.args(["--json", "receive-files", "--relay", &url]);
        command.args(["--timeout", "60", "--count", count, "--data"]);
        command.arg(&bob).arg("--into").arg(&into);
        command
    };
    // The first to send is killed once it has taken the file.
    let mut first = Running::start(sending().arg(dir.path().join("large.bin")));
    let line = first.lines.next().unwrap().unwrap();
    assert!(line.contains("\"sending\""), "{line}");
    first.kill();
    let mut files = sending();
    files.args(["empty", "small"].map(|name| dir.path().join(name)));
    let sending = Running::start(&mut files);

    let output = receiving("3").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let received = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let received: Vec<_> = received
        .filter(|line| line["event"] == "received")
        .collect();
    assert_eq!(received.len(), 3, "{text}");
    let mut sending = sending;
    let mut sent = Vec::new();
    for line in sending.lines.by_ref() {
        let line: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        if line["event"] == "sent" {
            sent.push(line["hash"].clone());
        }
    }
    assert!(sending.child.wait().unwrap().success());
    for line in &received {
        assert!(sent.contains(&line["hash"]), "{line}");
        let name = line["name"].as_str().unwrap();
        let (here, there) = (dir.path().join(name), into.join(name));
        assert!(
            fs::read(here).unwrap() == fs::read(there).unwrap(),
            "{name}"
        );
    }
}

/// The part of a file that is coming into a directory, once so many bytes of it are there.
fn part_of(bytes: u64, into: &Path) -> PathBuf {
    let began = Instant::now();
    loop {
        let entries = fs::read_dir(into).unwrap().map(Result::unwrap);
        let mut parts = entries.filter(|entry| entry.path().extension() == Some("part".as_ref()));
        // It may get its name meanwhile.
        let found = parts.find(|entry| entry.metadata().is_ok_and(|of| of.len() >= bytes));
        if let Some(part) = found {
            return part.path();
        }
        assert!(began.elapsed() < PATIENCE, "{bytes} bytes do not come");
        std::thread::yield_now();
    }
}

#[test]
fn a_file_goes_on_in_the_same_part_after_either_process_was_killed_amid_it() {
    let dir = tempfile::tempdir().unwrap();
    let (_relay, address) = relay(&dir.path().join("relay"), "127.0.0.1:0");
    let url = format!("ws://{address}");
    let (alice, bob) = (dir.path().join("alice"), dir.path().join("bob"));
    let to = id(&bob);
    let into = dir.path().join("into");
    fs::create_dir(&into).unwrap();
    let path = dir.path().join("large.bin");
    let large: Vec<u8> = (0..64_000_000_u32).map(|n| (n / 3 % 251) as u8).collect();
    fs::write(&path, &large).unwrap();
    let mut sender = Running::start(&mut sending(&url, &to, &alice, &path));
    let mut receiver = receiving(&url, &bob, &into);
    let part = part_of(4_000_000, &into);
    receiver.kill();
    let there = fs::metadata(&part).unwrap().len();
    assert!(there < 64_000_000, "it was whole before");
    receiver = receiving(&url, &bob, &into);
    assert_eq!(part_of(there + 4_000_000, &into), part);
    sender.kill();
    // What is sent next brings the rest with it.
    let small = dir.path().join("small");
    fs::write(&small, b"hi").unwrap();
    sender = Running::start(&mut sending(&url, &to, &alice, &small));
    for name in ["large.bin", "small"] {
        assert_eq!(next(&mut receiver, "received")["name"], name);
    }
    assert!(sender.child.wait().unwrap().success());
    assert!(fs::read(into.join("large.bin")).unwrap() == large);
    assert!(!part.exists());
}

#[test]
fn a_file_that_is_too_large_is_declined_and_its_sender_fails() {
    let dir = tempfile::tempdir().unwrap();
    let (_relay, address) = relay(&dir.path().join("relay"), "127.0.0.1:0");
    let url = format!("ws://{address}");
    let (alice, bob) = (dir.path().join("alice"), dir.path().join("bob"));
    let to = id(&bob);
    let into = dir.path().join("into");
    fs::create_dir(&into).unwrap();
    let path = dir.path().join("a");
    fs::write(&path, b"four").unwrap();
    let mut receiving = outlive();
    receiving.args([
        "receive-files",
        "--relay",
        &url,
        "--max-size",
        "3",
        "--data",
    ]);
    let receiving = Running::start(receiving.arg(&bob).arg("--into").arg(&into));
    let mut sending = outlive();
    sending.args([
        "send-file",
        "--relay",
        &url,
        "--to",
        &to,
        "--timeout",
        "60",
        "--data",
    ]);
    let output = sending.arg(&alice).arg(&path).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("does not want it"), "{said}");
    assert_eq!(fs::read_dir(&into).unwrap().count(), 0);
    drop(receiving);
}

fn receiving(url: &str, data: &Path, into: &Path) -> Running {
    let mut command = outlive();
    command.args(["--json", "receive-files", "--relay", url, "--timeout", "60"]);
    command.arg("--data").arg(data).arg("--into").arg(into);
    Running::start(&mut command)
}

fn sending(url: &str, to: &str, data: &Path, file: &Path) -> Command {
    let mut command = outlive();
    command.args(["send-file", "--relay", url, "--to", to, "--timeout", "60"]);
    command.arg("--data").arg(data).arg(file);
    command
}

/// The next event of this kind.
fn next(running: &mut Running, event: &str) -> serde_json::Value {
    let lines = running.lines.by_ref();
    let mut events = lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap());
    let found = events.find(|line: &serde_json::Value| line["event"] == event);
    found.unwrap_or_else(|| panic!("it ended before {event:?}"))
}

#[test]
fn a_file_without_a_name_waits_for_one_and_no_other_peer_waits_for_it() {
    const NAMES: u32 = 10_000;
    let dir = tempfile::tempdir().unwrap();
    let (_relay, address) = relay(&dir.path().join("relay"), "127.0.0.1:0");
    let url = format!("ws://{address}");
    let [alice, bob, carol, into] =
        ["alice", "bob", "carol", "into"].map(|name| dir.path().join(name));
    let to = id(&bob);
    fs::create_dir(&into).unwrap();
    fs::write(into.join("a"), b"").unwrap();
    for n in 2..=NAMES {
        fs::write(into.join(format!("a ({n})")), b"").unwrap();
    }
    let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
    fs::write(&a, b"a").unwrap();
    fs::write(&b, b"b").unwrap();
    let mut receiving = receiving(&url, &bob, &into);
    let waiting_sender = Running::start(&mut sending(&url, &to, &alice, &a));
    let waits = next(&mut receiving, "waiting");
    assert_eq!(waits["from"].as_str().unwrap(), id(&alice), "{waits}");
    assert!(sending(&url, &to, &carol, &b).status().unwrap().success());
    assert_eq!(next(&mut receiving, "received")["name"], "b");
    fs::remove_file(into.join("a (77)")).unwrap();
    assert_eq!(next(&mut receiving, "received")["name"], "a");
    assert_eq!(fs::read(into.join("a (77)")).unwrap(), b"a");
    drop(waiting_sender);
}

#[test]
fn an_offer_that_can_not_be_placed_stands_also_after_a_restart_and_no_other_peer_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (_relay, address) = relay(&dir.path().join("relay"), "127.0.0.1:0");
    let url = format!("ws://{address}");
    let [alice, bob, carol, into] =
        ["alice", "bob", "carol", "into"].map(|name| dir.path().join(name));
    let to = id(&bob);
    let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
    fs::write(&a, b"a").unwrap();
    fs::write(&b, b"b").unwrap();
    fs::create_dir(&into).unwrap();
    let mut first = receiving(&url, &bob, &into);
    // The directory goes when it was looked for already.
    assert!(sending(&url, &to, &carol, &b).status().unwrap().success());
    assert_eq!(next(&mut first, "received")["name"], "b");
    fs::remove_dir_all(&into).unwrap();
    let mut sender = Running::start(&mut sending(&url, &to, &alice, &a));
    let waits = next(&mut first, "waiting");
    assert_eq!(waits["name"], "a", "{waits}");
    first.terminate();
    first.child.wait().unwrap();
    fs::create_dir(&into).unwrap();
    let mut second = receiving(&url, &bob, &into);
    assert_eq!(next(&mut second, "received")["name"], "a");
    // One command at a time has a data directory open.
    assert!(sender.child.wait().unwrap().success());
    fs::remove_dir_all(&into).unwrap();
    let _sender = Running::start(&mut sending(&url, &to, &alice, &b));
    assert_eq!(next(&mut second, "waiting")["name"], "b");
    let mut other = sending(&url, &to, &carol, &a);
    fs::create_dir(&into).unwrap();
    assert!(other.status().unwrap().success());
    let mut names = ["received"; 2].map(|event| next(&mut second, event)["name"].to_string());
    names.sort();
    assert_eq!(names, ["\"a\"", "\"b\""]);
}

#[test]
fn a_receiver_that_is_stopped_says_that_files_go_on_only_if_some_do() {
    const HINT: &str = "what is on its way";
    let dir = tempfile::tempdir().unwrap();
    let (_relay, address) = relay(&dir.path().join("relay"), "127.0.0.1:0");
    let url = format!("ws://{address}");
    let (alice, bob) = (dir.path().join("alice"), dir.path().join("bob"));
    let into = dir.path().join("into");
    fs::create_dir(&into).unwrap();
    let (small, large) = (dir.path().join("small"), dir.path().join("large"));
    fs::write(&small, b"hi").unwrap();
    fs::write(&large, vec![7; 64_000_000]).unwrap();
    let receive = |of: &[&str]| {
        let mut command = outlive();
        command.args(["--json", "receive-files", "--relay", &url, "--data"]);
        command.arg(&bob).arg("--into").arg(&into).args(of);
        Running::start(command.stderr(std::process::Stdio::piped()))
    };
    let stopped = |mut receiver: Running| {
        receiver.terminate();
        let code = receiver.child.wait().unwrap().code();
        let stderr = receiver.child.stderr.take().unwrap();
        (code, std::io::read_to_string(stderr).unwrap())
    };
    let to = id(&bob);
    let mut receiver = receive(&[]);
    let mut sent = sending(&url, &to, &alice, &small);
    assert!(sent.status().unwrap().success());
    next(&mut receiver, "received");
    let (code, said) = stopped(receiver);
    assert!(!said.contains(HINT), "{said}");
    assert_eq!(
        code,
        Some(0),
        "nobody said how many there have to be: {said}"
    );

    let sender = Running::start(&mut sending(&url, &to, &alice, &large));
    let mut receiver = receive(&[]);
    next(&mut receiver, "accepted");
    let (code, said) = stopped(receiver);
    assert!(said.contains(HINT), "{said}");
    assert_eq!(code, Some(1));

    // It goes on, and nobody who receives of another peer waits for it.
    sender.kill();
    let carol = dir.path().join("carol");
    let mut receiver = receive(&["--from", &id(&carol)]);
    assert!(
        sending(&url, &to, &carol, &small)
            .status()
            .unwrap()
            .success()
    );
    next(&mut receiver, "received");
    let (code, said) = stopped(receiver);
    assert!(!said.contains(HINT), "{said}");
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_record_that_can_not_be_read_fails_no_receiver_that_has_all_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let (_relay, address) = relay(&dir.path().join("relay"), "127.0.0.1:0");
    let url = format!("ws://{address}");
    let [alice, bob, carol, into] =
        ["alice", "bob", "carol", "into"].map(|name| dir.path().join(name));
    fs::create_dir(&into).unwrap();
    let small = dir.path().join("small");
    fs::write(&small, b"hi").unwrap();
    let mut waiting = outlive();
    waiting.args(["send", "--wait", "queued", "--to", &id(&carol), "--data"]);
    assert!(feed(waiting.arg(&bob), b"hello\n").status.success());
    let damaged = Key::ReceivingFile(id(&carol).parse().unwrap(), TransferId([7; 16]));
    records::put(&bob, damaged, b"\x01");
    let _sender = Running::start(&mut sending(&url, &id(&bob), &alice, &small));
    let mut command = outlive();
    command.args(["receive-files", "--relay", &url, "--timeout", "60"]);
    command.args(["--count", "1", "--data"]).arg(&bob);
    let received = command.arg("--into").arg(&into).output().unwrap();
    let said = String::from_utf8_lossy(&received.stderr);
    assert!(received.status.success(), "{said}");
}
