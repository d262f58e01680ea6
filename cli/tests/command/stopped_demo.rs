//! A demo that is stopped.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Stdio;

use crate::process::{Running, outlive};

/// The processes that have this directory on their command line.
fn processes_in(dir: &Path) -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    let named = lines.filter(|line| {
        let name = dir.as_os_str().as_bytes();
        line.windows(name.len()).any(|part| part == name)
    });
    named
        .map(|line| String::from_utf8_lossy(&line).into_owned())
        .collect()
}

#[test]
fn a_demo_that_is_stopped_leaves_nothing_behind() {
    for signal in ["-TERM", "-INT"] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = outlive();
        command.args(["demo", "--messages", "10000000", "--direct", "never"]);
        command.env("TMPDIR", dir.path()).stderr(Stdio::piped());
        let mut running = Running::start(&mut command);
        // All of them are there.
        running
            .lines
            .next()
            .expect("it tells how far it is")
            .unwrap();
        let process = running.child.id().to_string();
        let told = std::process::Command::new("kill")
            .args([signal, &process])
            .status();
        assert!(told.unwrap().success());
        assert_eq!(running.child.wait().unwrap().code(), Some(1), "{signal}");
        assert_eq!(processes_in(dir.path()), Vec::<String>::new(), "{signal}");
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
