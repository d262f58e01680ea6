//! Files between two processes.

use std::fs;

use crate::process::{Running, id, outlive, relay};

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
