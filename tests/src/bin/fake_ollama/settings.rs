//! What the stand-in serves, from the JSON file `$FAKE_OLLAMA`. All of it may be left out:
//!
//! ```json
//! {"models": {"tiny": {"size": 520008, "vram": 520008, "load_seconds": 0.0, "token_seconds": 0.0,
//!                      "tokens": 8, "context": 2048, "embeds": true, "load_fault": "die"}},
//!  "max_loaded": 3, "max_queue": 512, "parallel": 1, "fault": "html", "requests": "/a/file"}
//! ```
//!
//! `load_fault` is one of `die` (the model is corrupt), `oom`, `stall`. `fault` is about what models
//! are asked: `busy`, `wedge` (answers pings only), `html`, `half_line`, `cut` (no end), `long_line`
//! (10 MB), `bad_utf8`, `endless`, `kill_runner` (after the second token), `hold` (has its turn, and
//! answers when that is no longer set). Every request is appended to the file `requests` as a line
//! `{"method", "path", "body"}`; one that is held, once more with the method `HELD`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;
use std::{env, fs};

use serde_json::{Map, Value, json};

/// All of it, as it is now.
#[derive(Clone, Debug)]
pub(crate) struct Settings(Value);

/// A model that could be loaded.
#[derive(Clone, Debug)]
pub(crate) struct Model(Value);

impl Settings {
    pub(crate) fn read() -> Self {
        let text = env::var_os("FAKE_OLLAMA").and_then(|file| fs::read(file).ok());
        let value = text.and_then(|text| serde_json::from_slice(&text).ok());
        Self(value.unwrap_or_else(|| json!({ "models": { "tiny": {} } })))
    }

    fn number(&self, name: &str, default: usize) -> usize {
        let number = self.0.get(name).and_then(Value::as_u64);
        number.and_then(|number| usize::try_from(number).ok()).unwrap_or(default)
    }

    pub(crate) fn max_loaded(&self) -> usize {
        self.number("max_loaded", 3)
    }

    pub(crate) fn max_queue(&self) -> usize {
        self.number("max_queue", 512)
    }

    pub(crate) fn parallel(&self) -> usize {
        self.number("parallel", 1)
    }

    pub(crate) fn fault(&self) -> Option<&str> {
        self.0.get("fault")?.as_str()
    }

    fn requests(&self) -> Option<&str> {
        self.0.get("requests")?.as_str()
    }

    /// Appends a line to the file of requests.
    pub(crate) fn note(&self, line: &Value) {
        let Some(file) = self.requests() else { return };
        if let Ok(mut file) = OpenOptions::new().create(true).append(true).open(file) {
            let _ = file.write_all(format!("{line}\n").as_bytes()); // a test that looks will notice
        }
    }

    pub(crate) fn models(&self) -> Map<String, Value> {
        self.0.get("models").and_then(Value::as_object).cloned().unwrap_or_default()
    }

    /// By its name, with or without the tag `latest`.
    pub(crate) fn model(&self, name: &str) -> Option<Model> {
        let models = self.models();
        let bare = name.strip_suffix(":latest").unwrap_or(name);
        let found = models.get(bare).or_else(|| models.get(&format!("{bare}:latest")));
        found.cloned().map(Model)
    }
}

impl Model {
    fn bytes(&self, name: &str) -> Option<u64> {
        self.0.get(name).and_then(Value::as_u64)
    }

    fn seconds(&self, name: &str) -> Duration {
        Duration::from_secs_f64(self.0.get(name).and_then(Value::as_f64).unwrap_or(0.0))
    }

    pub(crate) fn size(&self) -> u64 {
        self.bytes("size").unwrap_or(520_008)
    }

    pub(crate) fn vram(&self) -> u64 {
        self.bytes("vram").unwrap_or_else(|| self.size())
    }

    pub(crate) fn load(&self) -> Duration {
        self.seconds("load_seconds")
    }

    pub(crate) fn token(&self) -> Duration {
        self.seconds("token_seconds")
    }

    pub(crate) fn tokens(&self) -> u64 {
        self.bytes("tokens").unwrap_or(8)
    }

    pub(crate) fn context(&self) -> u64 {
        self.bytes("context").unwrap_or(2048)
    }

    pub(crate) fn embeds(&self) -> bool {
        self.0.get("embeds") == Some(&Value::Bool(true))
    }

    pub(crate) fn load_fault(&self) -> Option<&str> {
        self.0.get("load_fault")?.as_str()
    }
}
