//! Text as other people's programs write it: what stands before it, and what is none.

use std::fmt;

/// What editors put before a text to say that it is UTF-8.
const BOM: &[u8] = b"\xef\xbb\xbf";
/// As much of a text is looked at to see whether it is UTF-16.
const HEAD: usize = 64;

/// Why a text cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoText {
    /// It is UTF-16, as programs on Windows write it; in the words of iconv.
    Utf16(&'static str),
    /// It is not UTF-8, from this byte on.
    NotUtf8(usize),
}

impl NoText {
    /// The same, with the command that would help, for a file of this name.
    #[must_use]
    pub fn of_file(&self, name: &str) -> String {
        match self {
            Self::Utf16(form) => {
                format!("{self}: `iconv -f {form} -t UTF-8 '{name}' > '{name}.utf8'` converts it")
            }
            Self::NotUtf8(_) => self.to_string(),
        }
    }
}

impl fmt::Display for NoText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Utf16(_) => f.write_str("is UTF-16, not UTF-8"),
            Self::NotUtf8(at) => write!(f, "is not UTF-8 text (from byte {at} on)"),
        }
    }
}

/// Without what stands before it.
#[must_use]
pub fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BOM).unwrap_or(bytes)
}

/// An error where bytes begin as UTF-16 does: with its mark, or with ASCII of which every other
/// byte is zero.
pub fn refuse_utf16(bytes: &[u8]) -> Result<(), NoText> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(NoText::Utf16("UTF-16"));
    }
    let head = &bytes[..bytes.len().min(HEAD) & !1];
    let zeros = |at: usize| head.iter().skip(at).step_by(2).filter(|byte| **byte == 0).count();
    let pairs = head.len() / 2;
    match (zeros(0), zeros(1)) {
        (0, low) if low > 0 && low * 4 >= pairs * 3 => Err(NoText::Utf16("UTF-16LE")),
        (high, 0) if high > 0 && high * 4 >= pairs * 3 => Err(NoText::Utf16("UTF-16BE")),
        (_, _) => Ok(()),
    }
}

/// The text that these bytes are.
pub fn of(bytes: &[u8]) -> Result<&str, NoText> {
    refuse_utf16(bytes)?;
    let before = bytes.len() - without_bom(bytes).len();
    std::str::from_utf8(without_bom(bytes))
        .map_err(|err| NoText::NotUtf8(before + err.valid_up_to()))
}

/// A word as a shell reads it back.
#[must_use]
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_passed_over_and_utf16_is_named() {
        let utf16 = |text: &str, swap: bool| -> Vec<u8> {
            let bytes = |unit: u16| if swap { unit.to_be_bytes() } else { unit.to_le_bytes() };
            text.encode_utf16().flat_map(bytes).collect()
        };
        assert_eq!(of(b"\xef\xbb\xbf{}"), Ok("{}"));
        assert_eq!(of("grün".as_bytes()), Ok("grün"));
        assert_eq!(of(b""), Ok(""));
        for (swap, form) in [(false, "UTF-16LE"), (true, "UTF-16BE")] {
            let text = utf16("{\"shell\": \"echo\"}", swap);
            assert_eq!(of(&text), Err(NoText::Utf16(form)));
            let marked = utf16("\u{feff}{\"shell\": \"echo\"}", swap);
            assert_eq!(of(&marked), Err(NoText::Utf16("UTF-16")));
        }
        assert_eq!(of(b"ab\xff"), Err(NoText::NotUtf8(2)));
        // Zeros alone, and text with a zero in it, are something else.
        assert_eq!(refuse_utf16(&[0; 64]), Ok(()));
        assert_eq!(refuse_utf16(b"a\0bcdefg"), Ok(()));
        let told = NoText::Utf16("UTF-16LE").of_file("a.jsonl");
        assert!(told.contains("`iconv -f UTF-16LE -t UTF-8 'a.jsonl' > 'a.jsonl.utf8'`"), "{told}");
    }
}
