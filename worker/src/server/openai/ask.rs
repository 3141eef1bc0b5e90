//! What a task asks, in OpenAI's words. Requests that are in them already go as they came; they are
//! only made to stream, because some servers notice only then that nobody listens any more.

use serde_json::{Map, Value, json};
use shared::task::{Payload, Prompt, Spec};

/// A request to an OpenAI-compatible server.
#[derive(Debug, PartialEq)]
pub(super) struct Asked {
    pub(super) path: String,
    pub(super) body: Value,
    /// Whether the answer comes in pieces; embeddings do not.
    pub(super) comes: Comes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comes {
    InPieces,
    Whole,
}

/// Ollama's names of options, and OpenAI's.
const OPTIONS: [(&str, &str); 1] = [("num_predict", "max_tokens")];
/// What Ollama takes when it loads a model; elsewhere the server was started with it.
const OF_THE_LOAD: [&str; 7] =
    ["num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "num_keep"];

pub(super) fn asked(spec: &Spec) -> Result<Asked, String> {
    let Ok(Payload::Llm { model, prompt }) = spec.payload() else {
        return Err("the task asks no model anything".to_owned());
    };
    let messages = match prompt {
        Prompt::Text(text) => vec![json!({ "role": "user", "content": text })],
        Prompt::Messages(messages) => messages.iter().map(|message| json!(message)).collect(),
        Prompt::Request(request) => {
            let mut body = request.body.clone();
            body.entry("model").or_insert_with(|| json!(model));
            return Ok(passed_on(request.url.clone(), body));
        }
    };
    let system = spec.system.iter().map(|text| json!({ "role": "system", "content": text }));
    let mut body = Map::new();
    body.insert("model".to_owned(), json!(model));
    body.insert("messages".to_owned(), system.chain(messages).collect());
    for (name, value) in spec.options.iter().flatten() {
        if !OF_THE_LOAD.contains(&name.as_str()) {
            let theirs = OPTIONS.iter().find(|(ours, _)| ours == name);
            body.insert(
                theirs.map_or(name.as_str(), |(_, theirs)| theirs).to_owned(),
                value.clone(),
            );
        }
    }
    if let Some(format) = &spec.format {
        body.insert("response_format".to_owned(), response_format(format));
    }
    Ok(passed_on("/v1/chat/completions".to_owned(), body))
}

fn passed_on(path: String, mut body: Map<String, Value>) -> Asked {
    if path.ends_with("/embeddings") {
        return Asked { path, body: Value::Object(body), comes: Comes::Whole };
    }
    body.insert("stream".to_owned(), json!(true));
    body.insert("stream_options".to_owned(), json!({ "include_usage": true }));
    Asked { path, body: Value::Object(body), comes: Comes::InPieces }
}

fn response_format(format: &Value) -> Value {
    if format == "json" {
        return json!({ "type": "json_object" });
    }
    let schema = json!({ "name": "answer", "strict": true, "schema": format });
    json!({ "type": "json_schema", "json_schema": schema })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(spec: &Value) -> Asked {
        // As it is, also what a submitter would refuse.
        asked(&serde_json::from_value(spec.clone()).unwrap()).unwrap()
    }

    #[test]
    fn a_text_is_asked_as_a_chat() {
        let asked = ask(&json!({
            "model": "tiny", "prompt": "hi", "system": "s", "format": {"type": "object"},
            "options": {"num_predict": 3, "num_ctx": 512, "seed": 1},
        }));
        let wanted = json!({
            "model": "tiny",
            "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}],
            "max_tokens": 3, "seed": 1,
            "response_format": {"type": "json_schema", "json_schema": {
                "name": "answer", "strict": true, "schema": {"type": "object"}}},
            "stream": true, "stream_options": {"include_usage": true},
        });
        assert_eq!((asked.path.as_str(), asked.body), ("/v1/chat/completions", wanted));
    }

    #[test]
    fn a_request_goes_as_it_came_but_streams() {
        let body = json!({"model": "other", "prompt": [1, 2], "n": 2, "stream": false});
        let request = json!({"url": "/v1/completions", "body": body});
        let asked = ask(&json!({"model": "tiny", "request": request}));
        let wanted = json!({
            "model": "other", "prompt": [1, 2], "n": 2, "stream": true,
            "stream_options": {"include_usage": true},
        });
        assert_eq!((asked.body, asked.comes), (wanted, Comes::InPieces));
    }

    #[test]
    fn embeddings_do_not_stream() {
        let request = json!({"url": "/v1/embeddings", "body": {"input": "hi"}});
        let asked = ask(&json!({"model": "tiny", "request": request}));
        assert_eq!(asked.body, json!({"model": "tiny", "input": "hi"}));
        assert_eq!(asked.comes, Comes::Whole);
    }
}
