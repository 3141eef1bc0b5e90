//! The one mouth of the program towards stdout: whole lines, tables, JSON. Whoever closed the pipe
//! has seen enough (`queue ls | head`): the program ends quietly.

use std::io::{self, BufWriter, IsTerminal as _, StdoutLock, Write as _};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::{Map, Value};
use shared::name::printable;
use shared::time::Moment;

use super::Stop;

/// When to colour what people read.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What a word wants to say by its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// All is well.
    Good,
    /// Somebody should look.
    Warn,
    /// It did not work.
    Bad,
    /// Of less interest.
    Faint,
    /// A heading.
    Head,
}

/// Stdout, locked and buffered; dropping this flushes it.
pub(crate) struct Out {
    stdout: BufWriter<StdoutLock<'static>>,
    colored: bool,
}

impl Out {
    pub(crate) fn new(color: Color) -> Self {
        let colored = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                io::stdout().is_terminal() && !refused
            }
        };
        Self { stdout: BufWriter::with_capacity(1 << 16, io::stdout().lock()), colored }
    }

    /// Writes the text and a newline.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) -> Result<(), Stop> {
        self.raw(text.as_ref().as_bytes())?;
        self.raw(b"\n")
    }

    /// One JSON object in one line, that names its schema.
    pub(crate) fn json(&mut self, name: &str, fields: &impl Serialize) -> Result<(), Stop> {
        let object = with_schema(name, fields);
        self.line(object.to_string())
    }

    /// Bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.stdout.write_all(bytes).map_err(Stop::stdout)
    }

    /// What was said so far goes out now.
    pub(crate) fn flush(&mut self) -> Result<(), Stop> {
        self.stdout.flush().map_err(Stop::stdout)
    }

    /// A table without lines, as wide as its content.
    pub(crate) fn table(&mut self, head: &[&str], rows: Vec<Vec<String>>) -> Result<(), Stop> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(head.iter().map(|text| self.paint(Tone::Head, text)));
        table.add_rows(rows);
        for line in table.to_string().lines() {
            self.line(line.trim_end().strip_prefix(' ').unwrap_or(line.trim_end()))?;
        }
        Ok(())
    }

    /// A word in its colour, where there are colours.
    pub(crate) fn paint(&self, tone: Tone, text: &str) -> String {
        if !self.colored || text.is_empty() {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31",
            Tone::Faint => "2",
            Tone::Head => "1",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// A task's state in its colour.
    pub(crate) fn state(&self, state: &str) -> String {
        let tone = match state {
            "succeeded" | "processing" => Tone::Good,
            "failed" => Tone::Bad,
            "held" | "cancelled" | "delayed" | "waiting" => Tone::Warn,
            _ => return state.to_owned(),
        };
        self.paint(tone, state)
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        // The program ends; who should be told that nobody reads?
        let _ = self.stdout.flush();
    }
}

/// An object that names its schema.
pub(crate) fn with_schema(name: &str, fields: &impl Serialize) -> Value {
    let mut object = Map::new();
    object.insert("schema".to_owned(), format!("brainstem.{name}/1").into());
    match serde_json::to_value(fields) {
        Ok(Value::Object(fields)) => object.extend(fields),
        Ok(value) => {
            object.insert("value".to_owned(), value);
        }
        Err(err) => {
            object.insert("error".to_owned(), err.to_string().into());
        }
    }
    Value::Object(object)
}

/// Text for a table: no control characters, and no longer than `width`.
pub(crate) fn cut(text: &str, width: usize) -> String {
    let text = printable(text);
    if text.chars().count() <= width {
        return text;
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// A length of time for people: `4s`, `2m 5s`, `3h 10m`.
pub(crate) fn span(seconds: f64) -> String {
    let whole = std::time::Duration::from_secs_f64(seconds.clamp(0.0, 1e9)).as_secs();
    shared::quantity::Span::seconds(whole).to_string()
}

/// How long ago, as [`span`] says it; a dash where that is unknown.
pub(crate) fn ago(then: Option<Moment>, now: Moment) -> String {
    then.map_or_else(|| "-".to_owned(), |then| span(now.seconds_since(then)))
}

/// A value, or a dash where it is unknown.
pub(crate) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut_and_control_characters_shown() {
        assert_eq!(cut("short", 10), "short");
        assert_eq!(cut("a rather long name", 8), "a rathe…");
        assert_eq!(cut("red\u{1b}[31m", 40), "red\\u{1b}[31m");
    }

    #[test]
    fn every_answer_names_its_schema() {
        let object = with_schema("wait", &serde_json::json!({"a": 1}));
        assert_eq!(object, serde_json::json!({"schema": "brainstem.wait/1", "a": 1}));
    }
}
