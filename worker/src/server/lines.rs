//! Lines of a stream, one after the other, however they come in pieces; and the two ways in which
//! servers put JSON into lines.
//!
//! A line is never longer in memory than its limit and a stream never longer than its own, whatever
//! the other side sends. Bytes that are no UTF-8 become U+FFFD: inside a text of a model that is
//! what servers write themselves, and anywhere else it is no JSON any more.

use std::io::{self, Read};

use serde_json::Value;
use shared::task::{MAX_DEPTH, depth_of, too_deep};

/// How much is asked for at once.
const PIECE: usize = 16 * 1024;
/// How much of what cannot be understood is shown.
const SHOWN: usize = 120;

/// Why there is no next line.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    #[error("sent a line of more than {limit} bytes, which begins {begins}")]
    TooLong { limit: usize, begins: String },
    #[error("sent more than {limit} bytes and was still going on")]
    TooMuch { limit: u64 },
    #[error("sent what is not JSON: {0}")]
    NotJson(String),
    #[error("sent what {0}")]
    TooDeep(String),
    #[error("stopped in the middle of a line: {0}")]
    HalfALine(String),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The lines of a stream.
#[derive(Debug)]
pub(super) struct Lines<R> {
    source: R,
    /// What has come; lines before `start` were handed out.
    came: Vec<u8>,
    start: usize,
    is_over: bool,
    total: u64,
    max_line: usize,
    max_total: u64,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(source: R, max_line: usize, max_total: u64) -> Self {
        let came = Vec::with_capacity(PIECE);
        Self { source, came, start: 0, is_over: false, total: 0, max_line, max_total }
    }

    /// The next line without its end; `None` when the stream is over.
    fn next(&mut self) -> Result<Option<&[u8]>, LineError> {
        let mut searched = self.start;
        let end = loop {
            if let Some(at) = self.came.get(searched..).and_then(|rest| position(rest, b'\n')) {
                break searched + at;
            }
            searched = self.came.len();
            if self.is_over && self.start == self.came.len() {
                return Ok(None);
            }
            if self.is_over {
                break self.came.len();
            }
            if self.came.len() - self.start > self.max_line {
                break self.came.len();
            }
            searched -= self.start;
            self.came.drain(..self.start);
            self.start = 0;
            self.read()?;
        };
        let line = self.start..end;
        if line.len() > self.max_line {
            let begins = shown(&self.came[line]);
            return Err(LineError::TooLong { limit: self.max_line, begins });
        }
        self.start = (end + 1).min(self.came.len());
        let line = &self.came[line];
        Ok(Some(line.strip_suffix(b"\r").unwrap_or(line)))
    }

    fn read(&mut self) -> Result<(), LineError> {
        let had = self.came.len();
        self.came.resize(had + PIECE, 0);
        let read = loop {
            match self.source.read(&mut self.came[had..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        self.came.truncate(had + *read.as_ref().unwrap_or(&0));
        let read = read?;
        self.is_over = read == 0;
        self.total += read as u64;
        if self.total > self.max_total {
            return Err(LineError::TooMuch { limit: self.max_total });
        }
        Ok(())
    }

    /// The next line that holds something, as JSON.
    pub(super) fn next_json(&mut self) -> Result<Option<Value>, LineError> {
        loop {
            let Some(line) = self.next()? else { return Ok(None) };
            if line.trim_ascii().is_empty() {
                continue;
            }
            return match read_object(line) {
                Ok(value) => Ok(Some(value)),
                Err(wrong) => Err(self.not_json(wrong)),
            };
        }
    }

    /// The next event of a stream of server-sent events.
    pub(super) fn next_event(&mut self) -> Result<Sent, LineError> {
        loop {
            let Some(line) = self.next()? else { return Ok(Sent::Ended) };
            // Comments (pings), names and numbers of events, and the empty lines between them.
            let Some((field, data)) = split(line) else { continue };
            if !matches!(field, b"data" | b"error") {
                continue;
            }
            if data == b"[DONE]" {
                return Ok(Sent::Done);
            }
            let is_error = field == b"error";
            return match read_object(data) {
                Ok(value) if is_error => Ok(Sent::Json(serde_json::json!({ "error": value }))),
                Ok(value) => Ok(Sent::Json(value)),
                Err(wrong) => Err(self.not_json(wrong)),
            };
        }
    }

    /// Where the lines come from, and what comes after the last one.
    pub(super) fn into_source(self) -> R {
        self.source
    }

    fn not_json(&self, wrong: Wrong) -> LineError {
        let is_last = self.is_over && self.start == self.came.len();
        match wrong {
            Wrong::TooDeep(problem) => LineError::TooDeep(problem),
            Wrong::NotJson(begins) if is_last && !self.came.ends_with(b"\n") => {
                LineError::HalfALine(begins)
            }
            Wrong::NotJson(begins) => LineError::NotJson(begins),
        }
    }
}

/// What a line of server-sent events holds.
#[derive(Debug, PartialEq)]
pub(super) enum Sent {
    /// The object of an event; one of an error under the key `error`.
    Json(Value),
    /// The final marker, `[DONE]`.
    Done,
    /// Nothing: the stream ended.
    Ended,
}

fn position(bytes: &[u8], wanted: u8) -> Option<usize> {
    bytes.iter().position(|byte| *byte == wanted)
}

/// `data: {…}`; a line that is no field at all counts as data, so that it is complained about.
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    if line.is_empty() || line.starts_with(b":") {
        return None;
    }
    let at = position(line, b':');
    let field = at.map(|at| &line[..at]).filter(|name| name.iter().all(u8::is_ascii_lowercase));
    match (field, at) {
        (Some(field), Some(at)) => Some((field, line[at + 1..].trim_ascii())),
        _ => Some((b"data", line)),
    }
}

/// Why a text cannot be taken for an answer.
#[derive(Debug, PartialEq)]
pub(super) enum Wrong {
    /// How it begins.
    NotJson(String),
    /// How deep it is nested, and how it begins. It may be JSON, but would be recorded in a ledger
    /// line that nobody can read.
    TooDeep(String),
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotJson(begins) => write!(f, "what is not JSON: {begins}"),
            Self::TooDeep(problem) => write!(f, "what {problem}"),
        }
    }
}

/// Reads what may become a part of an answer.
pub(super) fn read_json(text: &[u8]) -> Result<Value, Wrong> {
    match serde_json::from_str(&String::from_utf8_lossy(text)) {
        Ok(value) if depth_of(&value) <= MAX_DEPTH => Ok(value),
        Ok(_) | Err(_) => Err(match too_deep(text) {
            Some(deep) => Wrong::TooDeep(format!("{deep}: {}", shown(text))),
            None => Wrong::NotJson(shown(text)),
        }),
    }
}

/// The same where only an object will do.
fn read_object(line: &[u8]) -> Result<Value, Wrong> {
    let value = read_json(line)?;
    if value.is_object() { Ok(value) } else { Err(Wrong::NotJson(shown(line))) }
}

/// The first bytes, in quotes, fit to be shown to a person.
pub(super) fn shown(bytes: &[u8]) -> String {
    let looked_at = &bytes[..bytes.len().min(4 * SHOWN)];
    let text = String::from_utf8_lossy(looked_at);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut cut: String = text.chars().take(SHOWN).filter(|c| !c.is_control()).collect();
    if looked_at.len() < bytes.len() || text.chars().nth(SHOWN).is_some() {
        cut.push('…');
    }
    format!("`{cut}`")
}

/// All of it on one line, fit to be shown to a person.
pub(super) fn shown_whole(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text: String = text.chars().filter(|c| !c.is_control() || c.is_whitespace()).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Gives one piece at each read.
    struct Pieces(Vec<&'static [u8]>);

    impl Read for Pieces {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let piece = self.0.remove(0);
            into[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    fn lines(pieces: &[&'static [u8]]) -> Lines<Pieces> {
        Lines::new(Pieces(pieces.to_vec()), 40, 200)
    }

    #[test]
    fn lines_are_whole_however_they_come() {
        let mut lines = lines(&[b"{\"a\":", b"1}\r\n\n{\"b\":2}", b"\n{\"c\":3}"]);
        for wanted in [json!({"a": 1}), json!({"b": 2}), json!({"c": 3})] {
            assert_eq!(lines.next_json().unwrap(), Some(wanted));
        }
        assert_eq!(lines.next_json().unwrap(), None);
    }

    #[test]
    fn bytes_that_are_no_utf8_become_the_replacement_character() {
        let mut lines = lines(&[b"{\"a\":\"x\xff\xfey\"}\n"]);
        assert_eq!(lines.next_json().unwrap(), Some(json!({"a": "x\u{fffd}\u{fffd}y"})));
    }

    #[test]
    fn what_is_too_deep_to_be_recorded_is_no_answer() {
        for levels in [MAX_DEPTH, MAX_DEPTH + 1, 500] {
            let text = "{\"a\":".repeat(levels - 1) + "{}" + &"}".repeat(levels - 1);
            let mut lines = Lines::new(text.as_bytes(), 10_000, 10_000);
            match lines.next_json() {
                Ok(_) => assert_eq!(levels, MAX_DEPTH),
                Err(err) => {
                    let words = format!("sent what is nested {levels} levels deep; 100 are");
                    assert!(levels > MAX_DEPTH && err.to_string().starts_with(&words), "{err}");
                }
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_what_came() {
        let error = |pieces: &[&'static [u8]]| lines(pieces).next_json().unwrap_err().to_string();
        assert_eq!(error(&[b"{\"a\":"]), "stopped in the middle of a line: `{\"a\":`");
        assert_eq!(error(&[b"<html>\n</html>"]), "sent what is not JSON: `<html>`");
        assert_eq!(error(&[b"7\n"]), "sent what is not JSON: `7`");
        let long: &'static [u8] = b"{\"a\": \"0123456789012345678901234567890123456789\"}\n";
        assert!(error(&[long]).starts_with("sent a line of more than 40 bytes"));
        let endless: Vec<&'static [u8]> = vec![b"\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n"; 20];
        assert!(error(&endless).starts_with("sent more than 200 bytes"));
    }

    #[test]
    fn events_are_told_from_what_stands_between_them() {
        let mut lines = lines(&[
            b": ping\n\nevent: x\nid: 7\ndata: {\"a\":1}\n\n",
            b"error: {\"m\":2}\n\ndata: [DO",
            b"NE]\n\n",
        ]);
        assert_eq!(lines.next_event().unwrap(), Sent::Json(json!({"a": 1})));
        assert_eq!(lines.next_event().unwrap(), Sent::Json(json!({"error": {"m": 2}})));
        assert_eq!(lines.next_event().unwrap(), Sent::Done);
        assert_eq!(lines.next_event().unwrap(), Sent::Ended);
    }

    #[test]
    fn what_is_no_event_is_complained_about() {
        let error = |piece| lines(&[piece]).next_event().unwrap_err().to_string();
        assert_eq!(error(b"data: {\"a\n"), "sent what is not JSON: `{\"a`");
        assert_eq!(error(b"data: {\"a"), "stopped in the middle of a line: `{\"a`");
        assert_eq!(error(b"<html>\n"), "sent what is not JSON: `<html>`");
    }
}
