//! What a server's refusal means: one table, from status and words to a cause and to whether
//! another try could end differently.
//!
//! Servers are not consistent (Ollama answers 500 to an option of the wrong type, which will be
//! wrong for ever), so the words are looked at before the status.

use std::io::ErrorKind;
use std::time::Duration;

use serde_json::Value;
use shared::outcome::Cause;

use super::lines::shown;
use super::{Again, Failure};

/// What Ollama itself takes for a lack of memory, and what its versions before 0.30 said.
const NO_MEMORY: [&str; 11] = [
    "out of memory",
    "out of device memory",
    "cudamalloc failed",
    "hipmalloc failed",
    "failed to allocate",
    "allocation failed",
    "not enough memory",
    "insufficient memory",
    "vk_error_out_of_device_memory",
    "erroroutofmemory",
    "requires more system memory",
];
const NO_MODEL: [&str; 3] = ["try pulling it first", "invalid model name", "no such model"];
const BROKEN_GPU: [&str; 6] = [
    "cuda error",
    "rocm error",
    "no cuda-capable device",
    "gpu is lost",
    "uncorrectable ecc",
    "illegal memory access",
];
/// Will be as wrong the next time, whatever the status says.
const WRONG: [&str; 6] = [
    "must be of type",
    "exceeds the available context size",
    "exceed_context_size",
    "maximum context length",
    "does not support",
    "invalid_request_error",
];

/// A request that a server refused, or gave up, in its own words.
pub(super) struct Refusal<'a> {
    /// What was being done, with the address: `http://127.0.0.1:11434: POST /api/chat`.
    pub(super) what: &'a str,
    /// `None`: it had begun to answer.
    pub(super) status: Option<u16>,
    pub(super) words: &'a str,
}

impl Refusal<'_> {
    pub(super) fn failure(&self) -> Failure {
        let (cause, again) = classify(self.status, self.words);
        let status = self.status.map_or("error".to_owned(), |status| format!("status {status}"));
        let words = match (self.words, self.status) {
            ("", Some(403)) => {
                "it refuses the host name it is called by; use 127.0.0.1, or set \
                                OLLAMA_HOST=0.0.0.0 where it runs"
            }
            ("", _) => "no more words",
            (words, _) => words,
        };
        Failure {
            cause,
            again,
            message: format!("{}: {status}: {words}", self.what),
            refused: None,
        }
    }
}

/// What it was, and whether another try could end differently.
pub(super) fn classify(status: Option<u16>, words: &str) -> (Cause, Again) {
    let words = words.to_lowercase();
    let says = |list: &[&str]| list.iter().any(|part| words.contains(part));
    if status == Some(401) {
        return (Cause::Unauthorized, Again::Never);
    }
    let names_no_model =
        says(&NO_MODEL) || (words.contains("model") && words.contains("not found"));
    if matches!(status, Some(400 | 404)) && names_no_model {
        return (Cause::ModelMissing, Again::Never);
    }
    if says(&WRONG) {
        return (Cause::ServerError, Again::Never);
    }
    if status == Some(429) || (status == Some(503) && !words.contains("dead")) {
        return (Cause::ServerError, Again::Later);
    }
    if says(&NO_MEMORY) {
        return (Cause::Oom, Again::Maybe);
    }
    if says(&BROKEN_GPU) {
        return (Cause::GpuError, Again::Maybe);
    }
    if words.contains("timed out waiting for") {
        return (Cause::Timeout, Again::Maybe);
    }
    match status {
        Some(408 | 504) => (Cause::Timeout, Again::Maybe),
        // A path that is not there: another program answers, or one that is still starting.
        Some(404) | None => (Cause::ServerError, Again::Maybe),
        Some(501) => (Cause::ServerError, Again::Never),
        Some(400..=499) => (Cause::ServerError, Again::Never),
        Some(_) => (Cause::ServerError, Again::Maybe),
    }
}

/// The words in a refusal's body: in JSON as Ollama or as OpenAI has them, one inside the other
/// too; else how it begins.
pub(super) fn words_of(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    match serde_json::from_str::<Value>(&text) {
        Ok(value) => words_in(value.get("error").unwrap_or(&value)),
        Err(_) if body.trim_ascii().is_empty() => String::new(),
        Err(_) => shown(body),
    }
}

/// The words of the value of `error`.
pub(super) fn words_in(error: &Value) -> String {
    let Some(text) = error.as_str() else {
        let message = error.get("message").and_then(Value::as_str);
        let kind = error.get("type").and_then(Value::as_str);
        return match (message, kind) {
            (Some(message), Some(kind)) => format!("{message} ({kind})"),
            (Some(message), None) => message.to_owned(),
            (None, _) => shown(error.to_string().as_bytes()),
        };
    };
    match serde_json::from_str::<Value>(text) {
        Ok(inner @ Value::Object(_)) => words_in(inner.get("error").unwrap_or(&inner)),
        Ok(_) | Err(_) => text.trim().to_owned(),
    }
}

impl Failure {
    /// Nothing came, or not all: the connection failed, or what came was no answer.
    pub(super) fn transport(what: &str, problem: &str) -> Self {
        let message = format!("{what}: {problem}");
        Self { cause: Cause::ServerError, again: Again::Maybe, message, refused: None }
    }

    pub(super) fn silent(what: &str, patience: Duration) -> Self {
        let message = format!("{what}: nothing came for {} s", patience.as_secs_f64());
        Self { cause: Cause::Timeout, again: Again::Maybe, message, refused: None }
    }

    pub(super) fn given_up(what: &str) -> Self {
        let message = format!("{what}: given up");
        Self { cause: Cause::Cancelled, again: Again::GivenUp, message, refused: None }
    }

    /// What was asked for cannot be asked of this server.
    pub(super) fn unaskable(what: &str, problem: &str) -> Self {
        let message = format!("{what}: {problem}");
        Self { cause: Cause::ServerError, again: Again::Never, message, refused: None }
    }
}

/// The run's log could not take the text.
pub(super) fn unwritten(error: &std::io::Error) -> Failure {
    let is_full = matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
    );
    let cause = if is_full { Cause::DiskFull } else { Cause::ServerError };
    let message = format!("could not write the answer to the run's log: {error}");
    Failure { cause, again: Again::Maybe, message, refused: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    use Again::{Later, Maybe, Never};
    use Cause::{GpuError, ModelMissing, Oom, ServerError, Timeout, Unauthorized};

    type Known = (Option<u16>, &'static str, Cause, Again);

    const KNOWN: &[Known] = &[
        (Some(404), "model 'nope' not found", ModelMissing, Never),
        (Some(404), "model 'nope:latest' not found", ModelMissing, Never),
        (Some(404), "model \"nope\" not found, try pulling it first", ModelMissing, Never),
        (Some(404), "model '' not found", ModelMissing, Never),
        (Some(400), "invalid model name", ModelMissing, Never),
        (Some(400), "model 'nope' not found", ModelMissing, Never),
        (Some(404), "The model `x` not found. (NotFoundError)", ModelMissing, Never),
        (Some(400), "missing request body", ServerError, Never),
        (Some(400), "unexpected EOF", ServerError, Never),
        (Some(400), "json: cannot unmarshal number into Go struct field", ServerError, Never),
        (Some(400), "time: invalid duration \"abc\"", ServerError, Never),
        (Some(500), "option \"num_predict\" must be of type integer", ServerError, Never),
        (
            Some(400),
            "request (3019 tokens) exceeds the available context size (512 tokens)",
            ServerError,
            Never,
        ),
        (
            Some(503),
            "server busy, please try again.  maximum pending requests exceeded",
            ServerError,
            Later,
        ),
        (Some(503), "Loading model (unavailable_error)", ServerError, Later),
        (Some(429), "too many requests", ServerError, Later),
        (Some(503), "EngineDeadError", ServerError, Maybe),
        (
            Some(500),
            "llama-server process has terminated: exit status 1: cudaMalloc failed: out of \
             memory\nerror loading model: unable to allocate CUDA0 buffer",
            Oom,
            Maybe,
        ),
        (Some(500), "llama-server process has terminated: exit status 1", ServerError, Maybe),
        (Some(500), "llama runner process has terminated: signal: killed", ServerError, Maybe),
        (
            Some(500),
            "model requires more system memory (9 GiB) than is available (7 GiB)",
            Oom,
            Maybe,
        ),
        (Some(500), "timed out waiting for llama-server to start - ", Timeout, Maybe),
        (
            Some(500),
            "timed out waiting for llama runner to start - progress 0.42 - ",
            Timeout,
            Maybe,
        ),
        (
            None,
            "an error was encountered while running the model: unexpected EOF",
            ServerError,
            Maybe,
        ),
        (None, "CUDA error: an illegal memory access was encountered", GpuError, Maybe),
        (None, "CUDA error: out of memory", Oom, Maybe),
        (Some(403), "", ServerError, Never),
        (Some(401), "Invalid API Key (authentication_error)", Unauthorized, Never),
        (Some(401), "Unauthorized: invalid_request_error", Unauthorized, Never),
        (
            Some(501),
            "This server does not support embeddings. Start it with `--embeddings`",
            ServerError,
            Never,
        ),
        (Some(400), "\"tiny\" does not support chat", ServerError, Never),
        (Some(404), "File Not Found (not_found_error)", ServerError, Maybe),
        (Some(500), "EngineCore encountered an issue", ServerError, Maybe),
        (Some(504), "upstream timed out", Timeout, Maybe),
    ];

    #[test]
    fn each_known_error_has_its_cause() {
        for (status, words, cause, again) in KNOWN.iter().copied() {
            assert_eq!(classify(status, words), (cause, again), "{status:?} {words}");
        }
    }

    #[test]
    fn the_words_are_found_wherever_they_are() {
        for (body, words) in [
            (r#"{"error":"model 'nope' not found"}"#, "model 'nope' not found"),
            (
                r#"{"error":{"message":"too long","type":"exceed_context_size_error"}}"#,
                "too long (exceed_context_size_error)",
            ),
            (r#"{"error":"{\"error\":{\"code\":400,\"message\":\"too long\"}}"}"#, "too long"),
            (r#"{"object":"error","message":"no"}"#, "no"),
            ("404 page not found\n", "`404 page not found`"),
            ("", ""),
            ("<html>\n <body>Bad Gateway", "`<html> <body>Bad Gateway`"),
        ] {
            assert_eq!(words_of(body.as_bytes()), words);
        }
    }
}
