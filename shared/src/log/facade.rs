//! What other people's crates say through the `log` facade: warnings and errors come out as
//! lines like any other, with `event` null.

use ::log::kv::{Error, Key, Value, VisitSource};
use ::log::{LevelFilter, Log, Metadata, Record};
use serde_json::Map;

use super::Handle;
use super::line::{Line, Said, Source};
use crate::event::Level;

/// Crates of this project: they speak in events, and what they say otherwise keeps its level.
const OURS: &[&str] = &["shared", "queue", "worker", "brain", "tests"];

struct Facade(Handle);

/// Takes over the facade, unless something else has: then that keeps it.
pub(super) fn install(handle: Handle) {
    if ::log::set_boxed_logger(Box::new(Facade(handle))).is_ok() {
        ::log::set_max_level(LevelFilter::Debug);
    }
}

fn level(level: ::log::Level) -> Level {
    match level {
        ::log::Level::Error => Level::Error,
        ::log::Level::Warn => Level::Warning,
        ::log::Level::Info => Level::Info,
        ::log::Level::Debug | ::log::Level::Trace => Level::Debug,
    }
}

fn is_ours(target: &str) -> bool {
    let root = target.split("::").next().unwrap_or(target);
    OURS.contains(&root)
}

impl Log for Facade {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let level = level(metadata.level());
        self.0.says(level) && (is_ours(metadata.target()) || level >= Level::Warning)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let source = Source {
            file: record.file().map(str::to_owned),
            line: record.line(),
            function: record.module_path().map(str::to_owned),
        };
        let mut fields = Fields(Map::new());
        // The visitor never fails; a source that does has given what it could.
        let _ = record.key_values().visit(&mut fields);
        let logger = record.target().replace("::", ".");
        let said = Said { logger, message: record.args().to_string() };
        let line = Line::foreign(level(record.level()), said, source, &self.0.shared.config);
        self.0.say(line.extra(fields.0));
    }

    fn flush(&self) {}
}

struct Fields(Map<String, serde_json::Value>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        self.0.insert(key.to_string(), value.to_string().into());
        Ok(())
    }
}
