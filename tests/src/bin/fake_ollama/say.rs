//! What a model says, and how a request ends: the same for Ollama's own paths and for OpenAI's.

use std::io;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::models::{Keep, Models, NoTurn, Turn, Want};
use crate::settings::{Model, Settings};
use crate::wire::Call;

/// A request to a model, whatever words it came in.
#[derive(Debug)]
pub(crate) struct Prompt {
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) options: Map<String, Value>,
    pub(crate) keep: Option<Keep>,
    /// Whether a prompt that is too long is an error.
    pub(crate) is_strict: bool,
    pub(crate) limit: Option<u64>,
}

/// A refusal, before anything of an answer went out.
#[derive(Debug)]
pub(crate) enum Refused {
    Status(u16, String),
    Io(io::Error),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What came of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Stop,
    Length,
    /// The model's process died.
    Died,
}

/// `name:latest`, as lists have it.
pub(crate) fn full_name(name: &str) -> String {
    if name.contains(':') { name.to_owned() } else { format!("{name}:latest") }
}

pub(crate) fn model(settings: &Settings, name: &str) -> Result<Model, Refused> {
    if name.contains(char::is_whitespace) {
        return Err(Refused::Status(400, "invalid model name".to_owned()));
    }
    settings.model(name).ok_or_else(|| Refused::Status(404, format!("model '{name}' not found")))
}

/// A turn with the model of a prompt. `busy` and `wedge` come in here.
pub(crate) fn turn<'a>(
    models: &'a Models,
    settings: &Settings,
    prompt: &Prompt,
    call: &Call,
) -> Result<Turn<'a>, Refused> {
    let model = model(settings, &prompt.name)?;
    check_options(&prompt.options)?;
    let want = Want {
        name: full_name(&prompt.name),
        model,
        options: prompt.options.clone(),
        keep: prompt.keep,
        settings,
    };
    if settings.fault() == Some("busy") {
        let text = "server busy, please try again.  maximum pending requests exceeded";
        return Err(Refused::Status(503, text.to_owned()));
    }
    let turn = models.turn(&want, || call.is_gone()).map_err(|no_turn| match no_turn {
        NoTurn::Refused(status, text) => Refused::Status(status, text),
        NoTurn::Gone => Refused::Io(io::Error::other("nobody listens")),
    })?;
    if settings.fault() == Some("wedge") && !prompt.text.is_empty() {
        while turn.pass(Duration::from_secs(1), || call.is_gone()) {}
        return Err(Refused::Io(io::Error::other("nobody listens")));
    }
    if !prompt.text.is_empty() {
        hold(&turn, settings, prompt, call)?;
    }
    let tokens = tokens_in(&prompt.text);
    if prompt.is_strict && tokens > turn.context() {
        return Err(too_long(tokens, turn.context()));
    }
    Ok(turn)
}

/// What `hold` does: a test sees how many stand here at once, and lets them go.
fn hold(turn: &Turn<'_>, settings: &Settings, prompt: &Prompt, call: &Call) -> Result<(), Refused> {
    if settings.fault() != Some("hold") {
        return Ok(());
    }
    settings.note(&json!({ "method": "HELD", "path": call.path, "body": prompt.text }));
    while Settings::read().fault() == Some("hold") {
        if !turn.pass(Duration::from_millis(20), || call.is_gone()) {
            return Err(Refused::Io(io::Error::other("nobody listens")));
        }
    }
    Ok(())
}

pub(crate) fn tokens_in(text: &str) -> u64 {
    text.len() as u64 / 4 + 1
}

fn too_long(tokens: u64, context: u64) -> Refused {
    let message = format!(
        "request ({tokens} tokens) exceeds the available context size ({context} tokens), try \
         increasing it"
    );
    let inner = json!({ "error": {
        "code": 400, "message": message, "type": "exceed_context_size_error",
        "n_prompt_tokens": tokens, "n_ctx": context,
    } });
    Refused::Status(400, inner.to_string())
}

fn check_options(options: &Map<String, Value>) -> Result<(), Refused> {
    for name in ["num_predict", "num_ctx", "seed", "top_k"] {
        if options.get(name).is_some_and(|value| !value.is_i64()) {
            return Err(Refused::Status(500, format!("option \"{name}\" must be of type integer")));
        }
    }
    Ok(())
}

/// Says one token after the other; the same ones for the same prompt.
pub(crate) fn say(
    turn: &Turn<'_>,
    settings: &Settings,
    prompt: &Prompt,
    mut out: impl FnMut(&str) -> io::Result<()>,
    gone: impl Fn() -> bool,
) -> io::Result<(Said, u64)> {
    let Some(model) = settings.model(&prompt.name) else { return Ok((Said::Died, 0)) };
    let natural = model.tokens();
    let limit = prompt.limit.unwrap_or(natural);
    let seed = prompt.text.bytes().fold(7_u64, |sum, byte| sum * 31 % 9973 + u64::from(byte));
    for n in 0..limit.min(natural) {
        if settings.fault() == Some("kill_runner") && n == 2 {
            turn.kill_runner();
        }
        if !turn.pass(model.token(), &gone) {
            return Err(io::Error::other("nobody listens"));
        }
        if !turn.is_alive() {
            return Ok((Said::Died, n));
        }
        let letter = char::from(b'a' + u8::try_from((seed + 7 * n) % 26).unwrap_or(0));
        out(&format!("{letter} "))?;
    }
    let said = if limit <= natural && prompt.limit.is_some() { Said::Length } else { Said::Stop };
    Ok((said, limit.min(natural)))
}

/// Answers that are none: what a broken server or a proxy in between sends. `None`: no such fault.
pub(crate) fn misbehave(call: &Call, fault: Option<&str>) -> Option<io::Result<()>> {
    let line = br#"{"model":"tiny","response":"x","message":{"content":"x"},"done":false}"#;
    let whole = [line.as_slice(), b"\n"].concat();
    match fault? {
        "html" => Some(call.send(200, "text/html", b"<html><body>It works!</body></html>\n")),
        "half_line" => Some(begin(call).and_then(|()| call.piece(&line[..30])).and_then(|()| call.end())),
        "cut" => Some(begin(call).and_then(|()| call.piece(&whole)).and_then(|()| Err(call.cut()))),
        "no_done" => Some(begin(call).and_then(|()| call.piece(&whole)).and_then(|()| call.end())),
        "long_line" => Some(begin(call).and_then(|()| {
            let piece = vec![b'x'; 1024 * 1024];
            call.piece(b"{\"response\":\"")?;
            (0..10).try_for_each(|_| call.piece(&piece))?;
            call.piece(b"\",\"done\":true}\n")?;
            call.end()
        })),
        "bad_utf8" => Some(begin(call).and_then(|()| {
            let odd = b"{\"model\":\"tiny\",\"response\":\"a\xff\xfeb\",\"message\":{\"content\":\"a\xff\xfeb\"},\"done\":false}\n";
            call.piece(odd)?;
            call.piece(b"{\"model\":\"tiny\",\"response\":\"\",\"message\":{\"content\":\"\"},\"done\":true,\"done_reason\":\"stop\"}\n")?;
            call.end()
        })),
        "endless" => Some(begin(call).and_then(|()| {
            let many = whole.repeat(1000);
            loop {
                call.piece(&many)?;
            }
        })),
        _ => None,
    }
}

fn begin(call: &Call) -> io::Result<()> {
    call.begin("application/x-ndjson")
}

/// The embedding of a text: the same for the same text.
pub(crate) fn vector(text: &str) -> Value {
    let sum: u32 = text.bytes().map(u32::from).sum();
    json!([0.5, f64::from(sum) / 1000.0, -0.25, 0.125])
}
