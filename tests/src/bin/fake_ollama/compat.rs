//! The paths in OpenAI's words that Ollama has too. Models are loaded by them, but there are no
//! words for it, nor for how long they stay.

use std::io;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::models::Models;
use crate::say::{Prompt, Refused, Said, full_name, model, say, tokens_in, turn, vector};
use crate::settings::Settings;
use crate::wire::Call;

pub(crate) fn answer(call: &Call, models: &Models, settings: &Settings) -> io::Result<()> {
    let body: Map<String, Value> = serde_json::from_slice(&call.body).unwrap_or_default();
    let done = match (call.method.as_str(), call.path.as_str()) {
        ("GET", "/v1/models") => Ok(call.json(200, &list(settings))?),
        ("POST", "/v1/chat/completions") => ask(call, models, settings, &body, Kind::Chat),
        ("POST", "/v1/completions") => ask(call, models, settings, &body, Kind::Text),
        ("POST", "/v1/embeddings") => embed(call, models, settings, &body),
        _ => return call.send(404, "text/plain", b"404 page not found"),
    };
    match done {
        Ok(()) => Ok(()),
        Err(Refused::Io(error)) => Err(error),
        Err(Refused::Status(status, message)) => {
            let kind = match status {
                404 => "not_found_error",
                400 => "invalid_request_error",
                _ => "api_error",
            };
            let error = json!({ "message": message, "type": kind, "param": null, "code": null });
            call.json(status, &json!({ "error": error }))
        }
    }
}

fn list(settings: &Settings) -> Value {
    let one = |name: &String| {
        json!({ "id": full_name(name), "object": "model", "created": 1_700_000_000,
                "owned_by": "library" })
    };
    json!({ "object": "list", "data": settings.models().keys().map(one).collect::<Vec<_>>() })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Chat,
    Text,
}

fn prompt_in(body: &Map<String, Value>, text: String) -> Prompt {
    let limit = body.get("max_tokens").or_else(|| body.get("max_completion_tokens"));
    Prompt {
        name: body.get("model").and_then(Value::as_str).unwrap_or_default().to_owned(),
        text,
        options: Map::new(),
        keep: None,
        is_strict: false,
        limit: limit.and_then(Value::as_u64),
    }
}

fn text_in(body: &Map<String, Value>, kind: Kind) -> String {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or("").to_owned();
    match kind {
        Kind::Text => text(body.get("prompt")),
        Kind::Chat => {
            let messages = body.get("messages").and_then(Value::as_array).into_iter().flatten();
            messages.map(|message| text(message.get("content"))).collect()
        }
    }
}

fn ask(
    call: &Call,
    models: &Models,
    settings: &Settings,
    body: &Map<String, Value>,
    kind: Kind,
) -> Result<(), Refused> {
    let prompt = prompt_in(body, text_in(body, kind));
    model(settings, &prompt.name)?;
    let turn = turn(models, settings, &prompt, call)?;
    let streams = body.get("stream") == Some(&Value::Bool(true));
    if streams {
        call.begin("text/event-stream")?;
    }
    let mut whole = String::new();
    let token_out = |token: &str| {
        whole.push_str(token);
        if streams {
            event(call, &Piece::new(kind, Some(token), None).chunk(&prompt.name))
        } else {
            Ok(())
        }
    };
    let (said, tokens) = say(&turn, settings, &prompt, token_out, || call.is_gone())?;
    let finish = match said {
        Said::Stop => "stop",
        Said::Length => "length",
        Said::Died if streams => return Err(Refused::Io(call.cut())),
        Said::Died => return Err(Refused::Status(500, "unexpected EOF".to_owned())),
    };
    let read = tokens_in(&prompt.text);
    let usage = json!({ "prompt_tokens": read, "completion_tokens": tokens,
                        "total_tokens": read + tokens });
    if !streams {
        let mut body = Piece::new(kind, Some(&whole), Some(finish)).whole(&prompt.name);
        body["usage"] = usage;
        return Ok(call.json(200, &body)?);
    }
    event(call, &Piece::new(kind, None, Some(finish)).chunk(&prompt.name))?;
    if body.get("stream_options").is_some() {
        let mut last = Piece::new(kind, None, None).chunk(&prompt.name);
        last["choices"] = json!([]);
        last["usage"] = usage;
        event(call, &last)?;
    }
    call.piece(b"data: [DONE]\n\n")?;
    Ok(call.end()?)
}

fn event(call: &Call, value: &Value) -> io::Result<()> {
    call.piece(format!("data: {value}\n\n").as_bytes())
}

struct Piece<'a> {
    kind: Kind,
    text: Option<&'a str>,
    finish: Option<&'a str>,
}

impl<'a> Piece<'a> {
    fn new(kind: Kind, text: Option<&'a str>, finish: Option<&'a str>) -> Self {
        Self { kind, text, finish }
    }

    fn chunk(&self, name: &str) -> Value {
        let text = self.text.unwrap_or_default();
        let (object, choice) = match self.kind {
            Kind::Chat => {
                let delta = json!({ "role": "assistant", "content": text });
                (
                    "chat.completion.chunk",
                    json!({ "index": 0, "delta": delta, "finish_reason": self.finish }),
                )
            }
            Kind::Text => (
                "text_completion",
                json!({ "index": 0, "text": text, "finish_reason": self.finish }),
            ),
        };
        head(object, name, choice)
    }

    fn whole(&self, name: &str) -> Value {
        let text = self.text.unwrap_or_default();
        let (object, choice) = match self.kind {
            Kind::Chat => {
                let message = json!({ "role": "assistant", "content": text });
                (
                    "chat.completion",
                    json!({ "index": 0, "message": message, "finish_reason": self.finish }),
                )
            }
            Kind::Text => (
                "text_completion",
                json!({ "index": 0, "text": text, "finish_reason": self.finish }),
            ),
        };
        head(object, name, choice)
    }
}

fn head(object: &str, name: &str, choice: Value) -> Value {
    json!({
        "id": "chatcmpl-1", "object": object, "created": Timestamp::now().as_second(),
        "model": name, "system_fingerprint": "fp_ollama", "choices": [choice],
    })
}

fn embed(
    call: &Call,
    models: &Models,
    settings: &Settings,
    body: &Map<String, Value>,
) -> Result<(), Refused> {
    let input: Vec<&str> = match body.get("input") {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        Some(_) | None => Vec::new(),
    };
    let prompt = prompt_in(body, input.concat());
    if !model(settings, &prompt.name)?.embeds() {
        let text = "This server does not support embeddings. Start it with `--embeddings`";
        return Err(Refused::Status(501, text.to_owned()));
    }
    let _turn = turn(models, settings, &prompt, call)?;
    let one = |(index, text): (usize, &&str)| json!({ "object": "embedding", "index": index, "embedding": vector(text) });
    let data: Vec<Value> = input.iter().enumerate().map(one).collect();
    let read = tokens_in(&prompt.text);
    let usage = json!({ "prompt_tokens": read, "total_tokens": read });
    let body = json!({ "object": "list", "data": data, "model": prompt.name, "usage": usage });
    Ok(call.json(200, &body)?)
}
