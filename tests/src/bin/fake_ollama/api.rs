//! Ollama's own paths.

use std::io;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::compat;
use crate::models::{Keep, Listed, Models};
use crate::say::{
    Prompt, Refused, Said, full_name, misbehave, model, say, tokens_in, turn, vector,
};
use crate::settings::Settings;
use crate::wire::Call;

/// Answers one request.
pub(crate) fn answer(call: &Call, models: &Models) -> io::Result<()> {
    let settings = Settings::read();
    note(call, &settings);
    if !is_local(&call.host) {
        return call.send(403, "text/plain", b"");
    }
    let path = call.path.split('?').next().unwrap_or_default().to_owned();
    let refused = match (call.method.as_str(), path.as_str()) {
        ("GET" | "HEAD", "/") => {
            return call.send(200, "text/plain; charset=utf-8", b"Ollama is running");
        }
        ("GET", "/api/version") => return call.json(200, &json!({ "version": "0.33.0-rc2" })),
        ("GET", "/api/tags") => return call.json(200, &tags(&settings)),
        ("GET", "/api/ps") => return call.json(200, &ps(models)),
        ("POST", "/api/show") => show(call, &settings),
        ("POST", "/api/generate") => ask(call, models, &settings, Kind::Generate),
        ("POST", "/api/chat") => ask(call, models, &settings, Kind::Chat),
        ("POST", "/api/embed") => embed(call, models, &settings),
        ("POST", "/api/pull") => pull(call),
        (_, path) if path.starts_with("/v1/") => return compat::answer(call, models, &settings),
        _ => return call.send(404, "text/plain", b"404 page not found"),
    };
    match refused {
        Ok(()) => Ok(()),
        Err(Refused::Status(status, text)) => call.json(status, &json!({ "error": text })),
        Err(Refused::Io(error)) => Err(error),
    }
}

fn note(call: &Call, settings: &Settings) {
    let body: Value = serde_json::from_slice(&call.body).unwrap_or_default();
    settings.note(&json!({ "method": call.method, "path": call.path, "body": body }));
}

fn is_local(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost"
        || name.parse::<std::net::Ipv4Addr>().is_ok()
        || [".local", ".internal", "]"].iter().any(|end| name.ends_with(end))
}

fn details() -> Value {
    json!({
        "parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"],
        "parameter_size": "128K", "quantization_level": "unknown", "context_length": 2048,
        "embedding_length": 64,
    })
}

fn tags(settings: &Settings) -> Value {
    let one = |name: &String| {
        let size = settings.model(name).map(|model| model.size());
        json!({
            "name": full_name(name), "model": full_name(name), "modified_at": Timestamp::now(),
            "size": size, "digest": digest(name), "details": details(),
            "capabilities": ["completion"],
        })
    };
    json!({ "models": settings.models().keys().map(one).collect::<Vec<_>>() })
}

fn digest(name: &str) -> String {
    let seed = name.bytes().fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    format!("{seed:064x}")
}

fn ps(models: &Models) -> Value {
    let one = |listed: Listed| {
        let now = Timestamp::now();
        let expires = match listed.left {
            None => "2319-03-04T12:00:00.123456789Z".to_owned(),
            Some(Duration::ZERO) => "0001-01-01T00:00:00Z".to_owned(),
            Some(left) => now.checked_add(left).unwrap_or(now).to_string(),
        };
        json!({
            "name": listed.name, "model": listed.name, "size": listed.model.size(),
            "digest": digest(&listed.name), "details": details(), "expires_at": expires,
            "size_vram": listed.model.vram(), "context_length": listed.context,
        })
    };
    json!({ "models": models.list().into_iter().map(one).collect::<Vec<_>>() })
}

fn body_of(call: &Call) -> Result<Map<String, Value>, Refused> {
    let bad = |text: &str| Refused::Status(400, text.to_owned());
    if call.body.is_empty() {
        return Err(bad("missing request body"));
    }
    match serde_json::from_slice(&call.body) {
        Ok(Value::Object(body)) => Ok(body),
        Ok(_) | Err(_) => Err(bad("unexpected EOF")),
    }
}

fn name_in(body: &Map<String, Value>) -> Result<String, Refused> {
    match body.get("model").or_else(|| body.get("name")) {
        None => Ok(String::new()),
        Some(Value::String(name)) => Ok(name.clone()),
        Some(_) => Err(Refused::Status(
            400,
            "json: cannot unmarshal number into Go struct field GenerateRequest.model of type string"
                .to_owned(),
        )),
    }
}

fn keep_in(body: &Map<String, Value>) -> Result<Option<Keep>, Refused> {
    let bad = |text: &str| Refused::Status(400, format!("time: invalid duration \"{text}\""));
    let seconds = match body.get("keep_alive") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => {
            let (number, unit) = text.split_at(text.len() - usize::from(!text.is_empty()));
            let factor = match unit {
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(bad(text)),
            };
            number.parse::<f64>().map_err(|_error| bad(text))? * factor
        }
        Some(value) => value.as_f64().unwrap_or(0.0),
    };
    Ok(Some(if seconds < 0.0 { Keep::Ever } else { Keep::For(Duration::from_secs_f64(seconds)) }))
}

fn show(call: &Call, settings: &Settings) -> Result<(), Refused> {
    let name = name_in(&body_of(call)?)?;
    if settings.model(&name).is_none() {
        return Err(Refused::Status(404, format!("model '{}' not found", full_name(&name))));
    }
    let body = json!({
        "modelfile": "", "parameters": "", "template": "{{ .Prompt }}", "details": details(),
        "model_info": {}, "tensors": [], "capabilities": ["completion"],
        "modified_at": Timestamp::now(),
    });
    Ok(call.json(200, &body)?)
}

fn pull(call: &Call) -> Result<(), Refused> {
    let body = body_of(call)?;
    let name = name_in(&body)?;
    let error = json!({ "error": "pull model manifest: file does not exist" });
    if body.get("stream") == Some(&Value::Bool(false)) {
        return Err(Refused::Status(500, format!("pull model manifest: {name}")));
    }
    call.begin("application/x-ndjson")?;
    call.piece(b"{\"status\":\"pulling manifest\"}\n")?;
    call.piece(format!("{error}\n").as_bytes())?;
    Ok(call.end()?)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Generate,
    Chat,
}

impl Kind {
    fn text_in(self, body: &Map<String, Value>) -> String {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or("").to_owned();
        match self {
            Self::Generate => text(body.get("system")) + &text(body.get("prompt")),
            Self::Chat => {
                let messages = body.get("messages").and_then(Value::as_array).into_iter().flatten();
                messages.map(|message| text(message.get("content"))).collect()
            }
        }
    }

    /// One line of an answer.
    fn line(self, name: &str, text: &str, more: Value) -> Value {
        let mut line = json!({ "model": name, "created_at": Timestamp::now() });
        let (field, value) = match self {
            Self::Generate => ("response", json!(text)),
            Self::Chat => ("message", json!({ "role": "assistant", "content": text })),
        };
        line[field] = value;
        if let (Some(line), Value::Object(more)) = (line.as_object_mut(), more) {
            line.extend(more);
        }
        line
    }
}

fn prompt_in(body: &Map<String, Value>, kind: Kind) -> Result<Prompt, Refused> {
    let options = body.get("options").and_then(Value::as_object).cloned().unwrap_or_default();
    Ok(Prompt {
        name: name_in(body)?,
        text: kind.text_in(body),
        limit: options.get("num_predict").and_then(Value::as_u64),
        options,
        keep: keep_in(body)?,
        is_strict: body.get("truncate") == Some(&Value::Bool(false)),
    })
}

fn ask(call: &Call, models: &Models, settings: &Settings, kind: Kind) -> Result<(), Refused> {
    let body = body_of(call)?;
    let prompt = prompt_in(&body, kind)?;
    if prompt.text.is_empty() && prompt.keep == Some(Keep::For(Duration::ZERO)) {
        model(settings, &prompt.name)?;
        models.unload(&full_name(&prompt.name));
        let more = json!({ "done": true, "done_reason": "unload" });
        return Ok(call.json(200, &kind.line(&prompt.name, "", more))?);
    }
    let is_embedder = model(settings, &prompt.name)?.embeds();
    if is_embedder {
        let verb = if kind == Kind::Generate { "generate" } else { "chat" };
        let text = format!("\"{}\" does not support {verb}", prompt.name);
        return Err(Refused::Status(400, text));
    }
    let start = Instant::now();
    let turn = turn(models, settings, &prompt, call)?;
    if prompt.text.is_empty() {
        let more = json!({ "done": true, "done_reason": "load" });
        return Ok(call.json(200, &kind.line(&prompt.name, "", more))?);
    }
    if let Some(done) = misbehave(call, settings.fault()) {
        return Ok(done?);
    }
    let how =
        if body.get("stream") == Some(&Value::Bool(false)) { How::Whole } else { How::Streams };
    if how == How::Streams {
        call.begin("application/x-ndjson")?;
    }
    let mut text = String::new();
    let token_out = |token: &str| {
        text.push_str(token);
        match how {
            How::Whole => Ok(()),
            How::Streams => {
                line_out(call, &kind.line(&prompt.name, token, json!({ "done": false })))
            }
        }
    };
    let (said, tokens) = say(&turn, settings, &prompt, token_out, || call.is_gone())?;
    let ended = Ended {
        said,
        tokens,
        read: tokens_in(&prompt.text),
        loaded_in: turn.loaded_in,
        all: start.elapsed(),
    };
    drop(turn);
    match how {
        How::Whole if ended.said == Said::Died => Err(Refused::Status(500, DIED.to_owned())),
        How::Whole => Ok(call.json(200, &kind.line(&prompt.name, &text, ended.fields(kind)))?),
        How::Streams => {
            let last = match ended.said {
                Said::Died => json!({ "error": DIED }),
                Said::Stop | Said::Length => kind.line(&prompt.name, "", ended.fields(kind)),
            };
            line_out(call, &last)?;
            Ok(call.end()?)
        }
    }
}

const DIED: &str = "an error was encountered while running the model: unexpected EOF";

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Streams,
    Whole,
}

fn line_out(call: &Call, line: &Value) -> io::Result<()> {
    call.piece(format!("{line}\n").as_bytes())
}

/// The numbers at the end of an answer.
struct Ended {
    said: Said,
    tokens: u64,
    read: u64,
    loaded_in: Duration,
    all: Duration,
}

impl Ended {
    fn fields(&self, kind: Kind) -> Value {
        let nanoseconds = |length: Duration| u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        let reason = if self.said == Said::Length { "length" } else { "stop" };
        let mut fields = json!({
            "done": true, "done_reason": reason,
            "total_duration": nanoseconds(self.all), "load_duration": nanoseconds(self.loaded_in),
            "prompt_eval_count": self.read, "prompt_eval_duration": 1_000_000,
            "eval_count": self.tokens, "eval_duration": nanoseconds(self.all),
        });
        if kind == Kind::Generate {
            fields["context"] = json!([1, 2, 3]);
        }
        fields
    }
}

fn embed(call: &Call, models: &Models, settings: &Settings) -> Result<(), Refused> {
    let body = body_of(call)?;
    let input: Vec<String> = match body.get("input") {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(list)) => {
            list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        Some(_) | None => Vec::new(),
    };
    let prompt = Prompt { text: input.concat(), ..prompt_in(&body, Kind::Generate)? };
    if settings.model(&prompt.name).is_none() {
        let text = format!("model \"{}\" not found, try pulling it first", prompt.name);
        return Err(Refused::Status(404, text));
    }
    if input.is_empty() && prompt.keep == Some(Keep::For(Duration::ZERO)) {
        models.unload(&full_name(&prompt.name));
        return Ok(call.json(200, &json!({ "model": prompt.name, "embeddings": [] }))?);
    }
    let turn = turn(models, settings, &prompt, call)?;
    if !input.is_empty() && !model(settings, &prompt.name)?.embeds() {
        let text = "This server does not support embeddings. Start it with `--embeddings`";
        return Err(Refused::Status(501, text.to_owned()));
    }
    let vectors: Vec<Value> = input.iter().map(|text| vector(text)).collect();
    let loaded_in = u64::try_from(turn.loaded_in.as_nanos()).unwrap_or(u64::MAX);
    let body = json!({
        "model": prompt.name, "embeddings": vectors, "total_duration": 1_000_000,
        "load_duration": loaded_in, "prompt_eval_count": tokens_in(&prompt.text),
    });
    Ok(call.json(200, &body)?)
}
