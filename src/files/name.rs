//! Names that a peer gives to files, made safe to have on this disk.
//!
//! A name may hold anything. What comes out is one component of a path: without separators, not
//! hidden, not special to any common system, and short enough that something can be put behind it.

/// Bytes of a safe name. File systems take 255; a number, the name of a transfer and an ending go
/// behind it, in 46 bytes at most.
const NAME_BYTES: usize = 200;

/// Bytes of an ending that is kept when a name is cut.
const ENDING_BYTES: usize = 16;

/// Names that are devices on Windows, with whatever ending.
const DEVICES: [&str; 6] = ["con", "prn", "aux", "nul", "conin$", "conout$"];

/// A safe name, as much like `name` as can be.
pub(super) fn safe(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let kept: String = last.chars().filter(|c| is_harmless(*c)).collect();
    // Windows drops dots and spaces at the end; a dot at the beginning hides a file.
    let edge = |c: char| c == '.' || c.is_whitespace();
    let mut name = cut(kept.trim_matches(edge))
        .trim_end_matches(edge)
        .to_owned();
    if name.is_empty() {
        name.push_str("file");
    }
    if is_device(&name) {
        name.insert(0, '_');
    }
    name
}

/// The `n`-th name to try, from 1: `name`, `name (2)`, and so on, before the ending.
pub(super) fn numbered(name: &str, n: u32) -> String {
    if n <= 1 {
        return name.to_owned();
    }
    match name.rsplit_once('.') {
        Some((stem, ending)) if !stem.is_empty() => format!("{stem} ({n}).{ending}"),
        _ => format!("{name} ({n})"),
    }
}

const fn is_harmless(c: char) -> bool {
    !matches!(
        c,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}'
        | '<' | '>' | ':' | '"' | '|' | '?' | '*'
        // What is not seen, or turns what is seen around.
        | '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffd}'
    )
}

fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end();
    let stem = stem.to_lowercase();
    let numbered = stem
        .strip_prefix("com")
        .or_else(|| stem.strip_prefix("lpt"));
    let port = numbered.is_some_and(|n| {
        let mut chars = n.chars();
        matches!(
            (chars.next(), chars.next()),
            (Some('0'..='9' | '¹' | '²' | '³'), None)
        )
    });
    port || DEVICES.contains(&stem.as_str())
}

/// As much of a name as is allowed, with its ending if that is short.
fn cut(name: &str) -> String {
    if name.len() <= NAME_BYTES {
        return name.to_owned();
    }
    let ending = name
        .rfind('.')
        .and_then(|dot| name.get(dot..))
        .filter(|ending| ending.len() <= ENDING_BYTES)
        .unwrap_or_default();
    let mut end = NAME_BYTES.saturating_sub(ending.len());
    while !name.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    format!("{}{ending}", name.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_name_stays_as_it_is() {
        for name in [
            "a.txt",
            "Ferien am Meer (2).jpeg",
            "日本.tar.gz",
            "no-ending",
        ] {
            assert_eq!(safe(name), name);
        }
    }

    #[test]
    fn a_name_leads_nowhere() {
        for (name, expected) in [
            ("../x", "x"),
            ("/etc/passwd", "passwd"),
            ("..\\..\\boot.ini", "boot.ini"),
            ("C:\\x.txt", "x.txt"),
            ("c:x.txt", "cx.txt"),
            ("x/", "file"),
            ("..", "file"),
            ("", "file"),
            ("a\0b", "ab"),
            (".bashrc", "bashrc"),
            (" . ", "file"),
            ("x.exe. ", "x.exe"),
            ("CON", "_CON"),
            ("con.txt", "_con.txt"),
            ("Lpt1.pdf", "_Lpt1.pdf"),
            ("com10", "com10"),
            ("gpj\u{202e}.exe", "gpj.exe"),
        ] {
            assert_eq!(safe(name), expected, "{name:?}");
        }
    }

    #[test]
    fn a_long_name_is_cut_between_characters_and_keeps_its_ending() {
        let name = safe(&format!("{}.jpeg", "ü".repeat(300)));
        assert!(name.len() <= NAME_BYTES && name.ends_with("ü.jpeg"));
        assert!(safe(&"x".repeat(300)).len() <= NAME_BYTES);
        assert!(safe(&format!("a.{}", "x".repeat(300))).len() <= NAME_BYTES);
    }

    #[test]
    fn a_number_goes_before_the_ending() {
        assert_eq!(numbered("a.txt", 1), "a.txt");
        assert_eq!(numbered("a.txt", 2), "a (2).txt");
        assert_eq!(numbered("a", 3), "a (3)");
    }
}
