//! Processes of the command under test.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

pub(crate) fn outlive() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlive"));
    command.stdin(Stdio::null());
    command
}

/// The same as a user who owns nothing, which only root can have run. `None` where that can't be done.
/// It lies in a directory into which everybody may look: where it was built others may not.
#[cfg(unix)]
pub(crate) fn outlive_as_nobody(dir: &Path) -> Option<Command> {
    const NOBODY: [&str; 6] = [
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        "--",
    ];
    let (built, here) = (env!("CARGO_BIN_EXE_outlive"), dir.join("outlive"));
    if std::fs::hard_link(built, &here).is_err() {
        std::fs::copy(built, &here).expect("room for a copy");
    }
    let mut command = Command::new("setpriv");
    command.stdin(Stdio::null()).args(NOBODY).arg(here);
    let works = Command::new("setpriv").args(NOBODY).arg("true").status();
    works
        .is_ok_and(|status| status.success())
        .then_some(command)
}

/// A process that is killed when it goes out of scope.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let stdout = child.stdout.take().expect("a stdout");
        Self {
            child,
            lines: BufReader::new(stdout).lines(),
        }
    }

    /// Asks it to end, as a service manager does.
    pub(crate) fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Asks it to read its files again, as a service manager does.
    pub(crate) fn reload(&self) {
        self.signal("-HUP");
    }

    fn signal(&self, signal: &str) {
        let process = self.child.id().to_string();
        let asked = Command::new("kill").args([signal, &process]).status();
        assert!(asked.expect("kill is there").success());
    }

    pub(crate) fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a relay, and returns it with its address.
pub(crate) fn relay(data: &Path, listen: &str) -> (Running, String) {
    relay_with(data, listen, &[])
}

/// Starts a relay with these flags too.
pub(crate) fn relay_with(data: &Path, listen: &str, flags: &[&Path]) -> (Running, String) {
    let mut running = Running::start(
        outlive()
            .args(["relay", "--listen", listen, "--data"])
            .arg(data)
            .args(flags),
    );
    let line = running.lines.next().expect("a line").expect("text");
    let listening: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(listening["event"], "listening");
    let address = listening["addr"].as_str().expect("an address").to_owned();
    (running, address)
}

pub(crate) fn id(data: &Path) -> String {
    let output = outlive()
        .args(["id", "--data"])
        .arg(data)
        .output()
        .expect("it runs");
    assert!(output.status.success());
    String::from_utf8(output.stdout)
        .expect("text")
        .trim()
        .to_owned()
}

/// Runs a command with this input.
pub(crate) fn feed(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stdin = child.stdin.take().expect("a stdin");
    let input = input.to_vec();
    let feeding = std::thread::spawn(move || {
        // A command that fails early reads no further.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().expect("it ends");
    feeding.join().expect("fed");
    output
}

/// A command on a data directory.
pub(crate) fn on(data: &Path, args: &[&str]) -> Command {
    let mut command = outlive();
    command.args(args).arg("--data").arg(data);
    command
}

/// What it printed, if it did what it was to.
pub(crate) fn done(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout.clone()).unwrap()
}
