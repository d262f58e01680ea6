//! What a process did to its files, as `record.c` wrote it down.

use std::path::{Path, PathBuf};
use std::process::Command;

/// One thing that a process did to a file.
pub(crate) enum Call {
    /// Another process was started.
    Start,
    Change {
        path: PathBuf,
        change: Change,
    },
    /// It was on the device before the call returned.
    WrittenThrough {
        path: PathBuf,
        change: Change,
    },
    Sync {
        path: PathBuf,
        /// `fdatasync`, not `fsync`.
        of_data: bool,
    },
    /// Made, or emptied.
    Create {
        path: PathBuf,
    },
    CreateDirectory {
        path: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
}

#[derive(Clone)]
pub(crate) enum Change {
    Write { at: u64, data: Vec<u8> },
    Truncate { len: u64 },
}

/// Runs commands to their ends, one after the other. All they did to the files below `below`, in this order.
pub(crate) fn recorded(commands: Vec<Command>, below: &Path, scratch: &Path) -> Vec<Call> {
    let (recorder, to) = (scratch.join("record.so"), scratch.join("record"));
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-o"])
        .arg(&recorder)
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/power_cuts/record.c"
        ))
        .arg("-lpthread")
        .status();
    assert!(compiled.unwrap().success());
    let mut calls = Vec::new();
    for mut command in commands {
        let ended = command
            .env("LD_PRELOAD", &recorder)
            .env("RECORD_BELOW", below)
            .env("RECORD_TO", &to)
            .status();
        assert!(ended.unwrap().success());
        calls.push(Call::Start);
        read(&std::fs::read(&to).unwrap(), &mut calls);
        std::fs::remove_file(&to).unwrap();
    }
    calls
}

fn read(mut record: &[u8], calls: &mut Vec<Call>) {
    while let Some((op, rest)) = record.split_first() {
        let (path_len, rest) = rest.split_first_chunk().unwrap();
        let (offset, rest) = rest.split_first_chunk().unwrap();
        let (data_len, rest) = rest.split_first_chunk().unwrap();
        let (path, rest) = rest.split_at(u32::from_le_bytes(*path_len) as usize);
        let (data, rest) = rest.split_at(u32::from_le_bytes(*data_len) as usize);
        record = rest;
        calls.push(call(*op, path, u64::from_le_bytes(*offset), data));
    }
}

fn call(op: u8, path: &[u8], offset: u64, data: &[u8]) -> Call {
    let text = |bytes| PathBuf::from(std::str::from_utf8(bytes).unwrap());
    let path = text(path);
    let write = || Change::Write {
        at: offset,
        data: data.to_vec(),
    };
    match op {
        b'w' => Call::Change {
            path,
            change: write(),
        },
        b'v' => Call::WrittenThrough {
            path,
            change: write(),
        },
        b't' => Call::Change {
            path,
            change: Change::Truncate { len: offset },
        },
        b'c' => Call::Create { path },
        b'm' => Call::CreateDirectory { path },
        b's' | b'd' => Call::Sync {
            path,
            of_data: op == b'd',
        },
        b'u' => Call::Remove { path },
        b'r' => Call::Rename {
            from: path,
            to: text(data),
        },
        op => panic!("{op} is no call"),
    }
}
