//! The document: its blocks of bytes and its table of limits, and how a block is compared with what
//! the code makes of the value it describes.

use std::collections::BTreeMap;

use bytes::Bytes;
use outlive_core::Digest;
use outlive_core::wire::frame::Frame;
use outlive_core::wire::packet::{self, PacketBuilder};
use outlive_core::wire::relay::{self, Checked};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) const DOCUMENT: &str = include_str!("../../../docs/PROTOCOL.md");

/// The fenced blocks of one kind: name and lines.
pub(crate) fn blocks(kind: &str) -> BTreeMap<&'static str, Vec<&'static str>> {
    let mut blocks = BTreeMap::new();
    let mut lines = DOCUMENT.lines();
    while let Some(line) = lines.next() {
        let Some((found, name)) = line
            .strip_prefix("```")
            .and_then(|info| info.split_once(' '))
        else {
            continue;
        };
        let body: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
        if found == kind {
            assert!(blocks.insert(name, body).is_none(), "{name} stands twice");
        }
    }
    blocks
}

/// The bytes of hex with comments.
pub(crate) fn bytes(lines: &[&str]) -> Vec<u8> {
    let hex: String = lines
        .iter()
        .flat_map(|line| line.split('#').next())
        .flat_map(|hex| hex.chars().filter(|c| !c.is_whitespace()))
        .collect();
    data_encoding::HEXLOWER
        .decode(hex.as_bytes())
        .expect("lower-case hex")
}

/// The blocks of a kind that no test has asked for yet.
pub(crate) struct Vectors {
    pub(crate) blocks: BTreeMap<&'static str, Vec<&'static str>>,
}

impl Vectors {
    pub(crate) fn read() -> Self {
        Self {
            blocks: blocks("vector"),
        }
    }

    pub(crate) fn take(&mut self, name: &str) -> Vec<u8> {
        let lines = self.blocks.remove(name);
        bytes(&lines.unwrap_or_else(|| panic!("the document lacks the vector {name}")))
    }

    /// A frame: kind, length, body.
    pub(crate) fn frame(&mut self, name: &str, frame: Frame) {
        let expected = [&[packet::VERSION], &self.take(name)[..]].concat();
        let mut builder = PacketBuilder::new();
        assert!(builder.push(&frame), "{name} fits no packet");
        assert_eq!(hex(&builder.finish()), hex(&expected), "{name}, encoded");
        let decoded = packet::decode(&Bytes::from(expected));
        assert_eq!(decoded, Ok(vec![frame]), "{name}, decoded");
    }

    pub(crate) fn message<M>(&mut self, name: &str, message: M)
    where
        M: Serialize + DeserializeOwned + Checked + PartialEq + std::fmt::Debug,
    {
        self.messages(name, vec![message]);
    }

    /// A WebSocket message of one or more relay messages.
    pub(crate) fn messages<M>(&mut self, name: &str, messages: Vec<M>)
    where
        M: Serialize + DeserializeOwned + Checked + PartialEq + std::fmt::Debug,
    {
        let expected = self.take(name);
        let mut encoded = Vec::new();
        for message in &messages {
            relay::encode(message, &mut encoded);
        }
        assert_eq!(hex(&encoded), hex(&expected), "{name}, encoded");
        let decoded = relay::decode::<M>(&expected);
        assert_eq!(decoded, Ok(messages), "{name}, decoded");
    }

    pub(crate) fn number(&mut self, name: &str, digest: Digest) {
        let expected = self.take(name);
        let encoded = postcard::to_allocvec(&digest).expect("a digest encodes");
        assert_eq!(hex(&encoded), hex(&expected), "{name}, encoded");
        assert_eq!(
            postcard::from_bytes(&expected),
            Ok(digest),
            "{name}, decoded"
        );
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// The value and name of each row of the table of limits.
pub(crate) fn limits_of_the_document() -> BTreeMap<&'static str, u128> {
    let number = |cell: &str| {
        let digits: String = cell.chars().filter(char::is_ascii_digit).collect();
        digits.parse::<u128>().expect("a number")
    };
    DOCUMENT
        .lines()
        .skip_while(|line| *line != "## 4 Limits")
        .take_while(|line| !line.starts_with("## 5"))
        .filter_map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let name = cells.get(3)?.strip_prefix('`')?.strip_suffix('`')?;
            let unit = if cells[2].ends_with(" ms") { 1 } else { 1_000 };
            let time = cells[2].ends_with("s") && !cells[2].ends_with("bytes");
            Some((name, number(cells[2]) * if time { unit } else { 1 }))
        })
        .collect()
}
