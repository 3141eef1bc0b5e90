//! One line, in its two forms: JSON for machines, text for people.

use std::io;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Context, LogConfig};
use crate::event::{Event, Level};
use crate::id::TaskId;
use crate::name::printable;
use crate::time::Moment;

/// The place in the source that says something.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Its path, as `file!()` gives it.
    pub file: &'static str,
    /// The line in it.
    pub line: u32,
    /// Its path, as in `worker::job`: `source.function` of a log line.
    pub module: &'static str,
}

/// What a line holds. The order of the fields is the order on the wire.
#[derive(Serialize)]
pub(super) struct Line {
    timestamp: Moment,
    level: Level,
    logger: String,
    message: String,
    event: Option<&'static str>,
    correlation_id: Option<String>,
    worker_id: Option<String>,
    task_id: Option<TaskId>,
    attempt: Option<u32>,
    source: Source,
    incarnation: String,
    pub(super) seq: u64,
    extra: Map<String, Value>,
}

#[derive(Serialize)]
pub(super) struct Source {
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
    pub(super) function: Option<String>,
}

/// What a line says, and which part of the program says it.
pub(super) struct Said {
    pub(super) logger: String,
    pub(super) message: String,
}

impl Line {
    pub(super) fn of(event: &Event, place: Place, context: Context, config: &LogConfig) -> Self {
        let context = context.about(event.task());
        let source = Source {
            file: Some(place.file.to_owned()),
            line: Some(place.line),
            function: Some(place.module.to_owned()),
        };
        let said = Said { logger: event.logger().to_owned(), message: event.message() };
        let line = Self::bare(event.level(), said, source, config);
        Self { event: Some(event.name()), extra: event.extra(), ..line }.with(context)
    }

    /// A line that no event stands behind: other people's code said it.
    pub(super) fn foreign(level: Level, said: Said, source: Source, config: &LogConfig) -> Self {
        let said = Said { message: printable(&said.message), ..said };
        Self::bare(level, said, source, config).with(super::current())
    }

    fn bare(level: Level, said: Said, source: Source, config: &LogConfig) -> Self {
        let Said { logger, message } = said;
        Self {
            timestamp: super::now(),
            level,
            logger,
            message,
            event: None,
            correlation_id: None,
            worker_id: config.worker_id.as_ref().map(ToString::to_string),
            task_id: None,
            attempt: None,
            source,
            incarnation: config.incarnation.to_string(),
            seq: 0,
            extra: Map::new(),
        }
    }

    fn with(mut self, context: Context) -> Self {
        self.task_id = context.task;
        self.attempt = context.attempt;
        self.correlation_id = context.correlation_id;
        if let Some(worker) = context.worker {
            self.worker_id = Some(worker.into());
        }
        if let Some(step) = context.step {
            self.extra.insert("step".to_owned(), step.into());
        }
        self
    }

    pub(super) fn extra(mut self, extra: Map<String, Value>) -> Self {
        self.extra.extend(extra);
        self
    }

    /// `{"timestamp": "2026-02-07T20:45:30.123Z", …}` and a newline.
    pub(super) fn json(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Spaced);
        // A vector takes every byte, and all keys are strings.
        self.serialize(&mut serializer).expect("a line can be written to memory");
        bytes.push(b'\n');
        bytes
    }

    /// `[2026-02-07 21:45:30.123] [worker-1] Claimed …` and a newline, in local time.
    pub(super) fn text(&self, process: &str) -> Vec<u8> {
        format!("[{}] [{process}] {}\n", self.timestamp.local(), self.message).into_bytes()
    }
}

/// JSON with a space after each colon and comma, because documented searches look for
/// `"correlation_id": "abc"`.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { w.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        w.write_all(b": ")
    }

    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { w.write_all(b", ") }
    }
}
