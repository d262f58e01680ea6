//! A data directory with a passphrase: who gets in, and what its files show to who does not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::process::{done, feed, id, on, relay};

const PASSPHRASE: &str = "correct horse battery staple";
const LINE: &str = "the quick brown fox jumps over the lazy dog";
const SEED: [u8; 32] = *b"a seed that is easy to recognise";

/// A file that holds a passphrase.
fn file(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path
}

/// The same with an option that names a file.
fn with(mut command: Command, option: &str, file: &Path) -> Command {
    command.arg(option).arg(file);
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn failed(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", said(output));
    said(output)
}

fn queue(data: &Path, with: Option<&Path>, lines: &str) -> Output {
    let to = id(&data.with_extension("recipient"));
    let mut sending = on(data, &["send", "--wait", "queued", "--to", &to]);
    if let Some(file) = with {
        sending.arg("--passphrase-file").arg(file);
    }
    feed(&mut sending, lines.as_bytes())
}

/// The files of a directory that hold these bytes.
fn found(dir: &Path, bytes: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(self::found(&path, bytes));
        } else {
            let text = fs::read(&path).unwrap();
            if text.windows(bytes.len()).any(|part| part == bytes) {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn two_encrypted_directories_talk_like_any_others() {
    let dir = tempfile::tempdir().unwrap();
    let (_relay, address) = relay(&dir.path().join("relay"), "127.0.0.1:0");
    let url = format!("ws://{address}");
    let (alice, bob) = (dir.path().join("alice"), dir.path().join("bob"));
    let passphrase = file(
        dir.path(),
        "passphrase",
        &format!("{PASSPHRASE}\r\nnot this\n"),
    );
    let bobs = with(on(&bob, &["id"]), "--passphrase-file", &passphrase).output();
    let to = done(&bobs.unwrap());
    let mut sending = on(&alice, &["send", "--wait", "custody", "--timeout", "60"]);
    sending.args(["--relay", &url, "--to", to.trim()]);
    done(&feed(
        sending.env("OUTLIVE_PASSPHRASE", "another one"),
        format!("{LINE}\n").as_bytes(),
    ));
    let mut listening = on(&bob, &["listen", "--count", "1", "--timeout", "60"]);
    listening.args(["--relay", &url]);
    let heard = listening.env("OUTLIVE_PASSPHRASE", PASSPHRASE).output();
    assert_eq!(done(&heard.unwrap()).trim(), LINE);
}

#[test]
fn the_files_show_neither_lines_nor_the_secret() {
    let dir = tempfile::tempdir().unwrap();
    let passphrase = file(dir.path(), "passphrase", PASSPHRASE);
    let hex = data_encoding::HEXLOWER.encode(&SEED);
    let lines = format!("{LINE}\n").repeat(500);
    let make = |name: &str| {
        let data = dir.path().join(name);
        fs::create_dir(&data).unwrap();
        fs::write(data.join("identity"), &hex).unwrap();
        data
    };
    let plain = make("plain");
    done(&queue(&plain, None, &lines));
    assert!(!found(&plain, LINE.as_bytes()).is_empty(), "we can look");
    assert!(!found(&plain, hex.as_bytes()).is_empty());

    let sealed = make("sealed");
    let peer = id(&sealed);
    let set = with(
        on(&sealed, &["passphrase"]),
        "--new-passphrase-file",
        &passphrase,
    )
    .output();
    done(&set.unwrap());
    done(&queue(&sealed, Some(&passphrase), &lines));
    for secret in [
        LINE.as_bytes(),
        hex.as_bytes(),
        &SEED,
        PASSPHRASE.as_bytes(),
    ] {
        assert_eq!(found(&sealed, secret), Vec::<PathBuf>::new());
    }
    let mode = fs::metadata(sealed.join("identity"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let same = with(on(&sealed, &["id"]), "--passphrase-file", &passphrase).output();
    assert_eq!(done(&same.unwrap()).trim(), peer, "the same peer as before");
}

#[test]
fn without_the_right_passphrase_there_is_no_way_in() {
    let dir = tempfile::tempdir().unwrap();
    let right = file(dir.path(), "right", PASSPHRASE);
    let alice = dir.path().join("alice");
    done(&queue(&alice, Some(&right), "kept\n"));
    let before = fs::read(alice.join("identity")).unwrap();

    let none = failed(&on(&alice, &["sessions"]).output().unwrap());
    assert!(none.contains("--passphrase-file"), "{none}");
    let none = failed(&queue(&alice, None, "lost\n"));
    assert!(none.contains("is encrypted"), "{none}");
    for wrong in [
        "correct horse battery stapler",
        " correct horse battery staple",
    ] {
        let mut command = on(&alice, &["sessions"]);
        let output = command.env("OUTLIVE_PASSPHRASE", wrong).output().unwrap();
        let said = failed(&output);
        assert!(said.contains("not the passphrase"), "{said}");
        assert!(!said.contains("damaged"), "{said}");
        assert!(!said.contains("battery"), "it is not repeated: {said}");
    }
    assert_eq!(fs::read(alice.join("identity")).unwrap(), before);

    let mut command = with(
        on(&alice, &["--json", "sessions"]),
        "--passphrase-file",
        &right,
    );
    let listed = done(&command.output().unwrap());
    let session: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(session["queued"], 1);
}

#[test]
fn a_new_passphrase_takes_the_place_of_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (
        file(dir.path(), "old", PASSPHRASE),
        file(dir.path(), "new", "a new one"),
    );
    let alice = dir.path().join("alice");
    done(&queue(&alice, Some(&old), "kept\n"));
    let change = |from: &Path| {
        let mut command = with(on(&alice, &["passphrase"]), "--passphrase-file", from);
        command.arg("--new-passphrase-file").arg(&new);
        command.output().unwrap()
    };
    let wrong = failed(&change(&new));
    assert!(wrong.contains("not the passphrase"), "{wrong}");
    done(&change(&old));
    let sessions = |file: &Path| {
        let mut command = with(on(&alice, &["sessions"]), "--passphrase-file", file);
        command.output().unwrap()
    };
    failed(&sessions(&old));
    assert!(done(&sessions(&new)).contains("queued 1"));
}

#[test]
fn a_directory_in_the_clear_stays_so_once_it_holds_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let passphrase = file(dir.path(), "passphrase", PASSPHRASE);
    let alice = dir.path().join("alice");
    done(&queue(&alice, None, "in the clear\n"));
    let given = failed(&queue(&alice, Some(&passphrase), "more\n"));
    assert!(given.contains("is not encrypted"), "{given}");
    let mut command = with(
        on(&alice, &["passphrase"]),
        "--new-passphrase-file",
        &passphrase,
    );
    let set = failed(&command.output().unwrap());
    assert!(set.contains("can't be converted"), "{set}");
    let listed = done(&on(&alice, &["sessions"]).output().unwrap());
    assert!(listed.contains("queued 1"), "{listed}");
}

#[test]
fn a_damaged_identity_is_told_from_a_wrong_passphrase() {
    let dir = tempfile::tempdir().unwrap();
    let passphrase = file(dir.path(), "passphrase", PASSPHRASE);
    let alice = dir.path().join("alice");
    done(&queue(&alice, Some(&passphrase), "kept\n"));
    let path = alice.join("identity");
    let good = fs::read_to_string(&path).unwrap();
    let open = |text: &str| {
        fs::write(&path, text).unwrap();
        let mut command = with(on(&alice, &["id"]), "--passphrase-file", &passphrase);
        command.output().unwrap()
    };
    let at = good.len() / 2;
    let other = if &good[at..=at] == "0" { "1" } else { "0" };
    let mut changed = good.clone();
    changed.replace_range(at..=at, other);
    for text in [&changed, &good[..at], "outlive identity 1", "", "garbage"] {
        let said = failed(&open(text));
        assert!(said.contains("is damaged"), "{text}: {said}");
    }
    let newer = good.replacen("identity 1", "identity 2", 1);
    let said = failed(&open(&newer));
    assert!(said.contains("newer version"), "{said}");
    done(&open(&good));
}

#[test]
fn a_passphrase_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let alice = dir.path().join("alice");
    for text in ["", "\n", &"x".repeat(5_000)] {
        let bad = file(dir.path(), "bad", text);
        let mut command = with(on(&alice, &["id"]), "--passphrase-file", &bad);
        let said = failed(&command.output().unwrap());
        assert!(said.contains("the passphrase in"), "{said}");
    }
    let mut command = on(&alice, &["id", "--passphrase-file", "missing"]);
    let said = failed(&command.output().unwrap());
    assert!(said.contains("can't read missing"), "{said}");
    assert!(!alice.exists(), "nothing was made in the clear");
    let mut command = on(&alice, &["passphrase"]);
    assert_eq!(command.output().unwrap().status.code(), Some(2));
}

#[test]
fn a_store_whose_identity_is_gone_is_no_other_peers() {
    let dir = tempfile::tempdir().unwrap();
    let alice = dir.path().join("alice");
    done(&queue(&alice, None, "hello\n"));
    fs::remove_file(alice.join("identity")).unwrap();
    for args in [&["id"][..], &["sessions"], &["contact"]] {
        let said = failed(&on(&alice, args).output().unwrap());
        assert!(said.contains("bring back the file"), "{said}");
        assert!(said.contains(&*alice.to_string_lossy()), "{said}");
        assert!(!alice.join("identity").exists());
    }
}
