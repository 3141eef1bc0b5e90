//! What a task asks, in Ollama's words. Requests in OpenAI's words are translated, because only
//! Ollama's own paths take the options that a model was loaded with, and `keep_alive`.
//!
//! A prompt that is too long is an error here (`truncate: false`), not silently cut.

use serde_json::{Map, Value, json};
use shared::llm::Request;
use shared::task::{Message, Payload, Prompt, Spec};

use super::STAY;
use crate::server::Options;

/// What the answer will be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A message, from `/api/chat`.
    Chat,
    /// A text, from `/api/generate`.
    Text,
    /// Embeddings, from `/api/embed`: never streamed.
    Vectors,
}

/// A request to Ollama.
#[derive(Debug, PartialEq)]
pub(super) struct Asked {
    pub(super) path: &'static str,
    pub(super) shape: Shape,
    pub(super) body: Value,
}

/// `loaded`: the options that the model was loaded with. What the task says itself holds.
pub(super) fn asked(spec: &Spec, loaded: &Options) -> Result<Asked, String> {
    let Ok(Payload::Llm { model, prompt }) = spec.payload() else {
        return Err("the task asks no model anything".to_owned());
    };
    let (shape, mut fields) = match prompt {
        Prompt::Text(text) => (Shape::Text, text_fields(spec, text)),
        Prompt::Messages(messages) => (Shape::Chat, chat_fields(spec, messages)),
        Prompt::Request(request) => translated(request)?,
    };
    let mut options = loaded.clone();
    if let Some(Value::Object(own)) = fields.remove("options") {
        options.extend(own);
    }
    options.extend(spec.options.clone().unwrap_or_default());
    fields.insert("model".to_owned(), json!(model));
    fields.insert("options".to_owned(), Value::Object(options));
    fields.insert("keep_alive".to_owned(), json!(STAY));
    fields.insert("truncate".to_owned(), json!(false));
    let path = match shape {
        Shape::Chat => "/api/chat",
        Shape::Text => "/api/generate",
        Shape::Vectors => "/api/embed",
    };
    if shape != Shape::Vectors {
        fields.insert("stream".to_owned(), json!(true));
    }
    Ok(Asked { path, shape, body: Value::Object(fields) })
}

fn text_fields(spec: &Spec, text: &str) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("prompt".to_owned(), json!(text));
    if let Some(system) = &spec.system {
        fields.insert("system".to_owned(), json!(system));
    }
    fields.extend(spec.format.clone().map(|format| ("format".to_owned(), format)));
    fields
}

fn chat_fields(spec: &Spec, messages: &[Message]) -> Map<String, Value> {
    let system = spec.system.iter().map(|text| json!({ "role": "system", "content": text }));
    let messages = messages.iter().map(|message| json!(message));
    let mut fields = Map::new();
    fields.insert("messages".to_owned(), system.chain(messages).collect());
    fields.extend(spec.format.clone().map(|format| ("format".to_owned(), format)));
    fields
}

/// OpenAI's names of options, and Ollama's.
const OPTIONS: [(&str, &str); 8] = [
    ("max_tokens", "num_predict"),
    ("max_completion_tokens", "num_predict"),
    ("temperature", "temperature"),
    ("top_p", "top_p"),
    ("seed", "seed"),
    ("stop", "stop"),
    ("frequency_penalty", "frequency_penalty"),
    ("presence_penalty", "presence_penalty"),
];
/// Fields that both have.
const COMMON: [&str; 4] = ["tools", "logprobs", "top_logprobs", "suffix"];

fn translated(request: &Request) -> Result<(Shape, Map<String, Value>), String> {
    let body = &request.body;
    let mut fields = Map::new();
    let shape = match request.url.as_str() {
        "/v1/chat/completions" => {
            let messages = body.get("messages").and_then(Value::as_array);
            let messages = messages.ok_or("the request has no list of `messages`")?;
            let messages: Result<Value, String> = messages.iter().map(message).collect();
            fields.insert("messages".to_owned(), messages?);
            Shape::Chat
        }
        "/v1/completions" => {
            fields.insert("prompt".to_owned(), json!(one_prompt(body.get("prompt"))?));
            Shape::Text
        }
        "/v1/embeddings" => return Ok((Shape::Vectors, embed_fields(body)?)),
        other => return Err(format!("Ollama has nothing like `{other}`")),
    };
    if body.get("n").and_then(Value::as_u64).is_some_and(|n| n != 1) {
        return Err("Ollama gives one answer at a time; submit the request `n` times".to_owned());
    }
    let mut options = Map::new();
    for (theirs, ours) in OPTIONS {
        if let Some(value) = body.get(theirs).filter(|value| !value.is_null()) {
            // A single word that ends the answer may stand alone there, and not here.
            let stands_alone = ours == "stop" && value.is_string();
            let value = if stands_alone { json!([value]) } else { value.clone() };
            options.insert(ours.to_owned(), value);
        }
    }
    fields.insert("options".to_owned(), Value::Object(options));
    for name in COMMON {
        if let Some(value) = body.get(name).filter(|value| !value.is_null()) {
            fields.insert(name.to_owned(), value.clone());
        }
    }
    if let Some(format) = format(body.get("response_format"))? {
        fields.insert("format".to_owned(), format);
    }
    if let Some(effort) = body.get("reasoning_effort").filter(|effort| !effort.is_null()) {
        let think = if effort == "none" { json!(false) } else { effort.clone() };
        fields.insert("think".to_owned(), think);
    }
    Ok((shape, fields))
}

fn one_prompt(prompt: Option<&Value>) -> Result<&str, String> {
    let only = match prompt {
        Some(Value::Array(several)) if several.len() == 1 => several.first(),
        other => other,
    };
    only.and_then(Value::as_str).ok_or_else(|| "`prompt` must be one text".to_owned())
}

/// What `encoding_format` says for embeddings in bytes: the official clients ask for that by
/// themselves. Ollama gives numbers only, so we write them so.
const BASE64: &str = "base64";

/// Whether the embeddings of this request are wanted in bytes.
pub(super) fn wants_base64(spec: &Spec) -> bool {
    let body = spec.request.as_ref().map(|request| &request.body);
    body.and_then(|body| body.get("encoding_format")).is_some_and(|form| form == BASE64)
}

fn embed_fields(body: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    let input = body.get("input");
    let is_texts = |list: &Vec<Value>| list.iter().all(Value::is_string);
    let input = input.filter(|input| input.is_string() || input.as_array().is_some_and(is_texts));
    let input = input.ok_or("`input` must be a text or a list of texts")?;
    let form = body.get("encoding_format").filter(|form| !form.is_null());
    if form.is_some_and(|form| form != "float" && form != BASE64) {
        return Err("`encoding_format` must be float or base64".to_owned());
    }
    let mut fields = Map::new();
    fields.insert("input".to_owned(), input.clone());
    let dimensions = body.get("dimensions").filter(|number| !number.is_null());
    fields.extend(dimensions.map(|number| ("dimensions".to_owned(), number.clone())));
    Ok(fields)
}

fn format(asked: Option<&Value>) -> Result<Option<Value>, String> {
    let Some(asked) = asked.filter(|asked| !asked.is_null()) else { return Ok(None) };
    match asked.get("type").and_then(Value::as_str) {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(json!("json"))),
        Some("json_schema") => match asked.pointer("/json_schema/schema") {
            Some(schema) => Ok(Some(schema.clone())),
            None => Err("`response_format` has no `json_schema.schema`".to_owned()),
        },
        Some(_) | None => Err("`response_format` is none of text, json_object, json_schema".into()),
    }
}

/// A message in OpenAI's words: its content may be in parts, pictures among them, and the arguments
/// of calls are JSON inside a text.
fn message(message: &Value) -> Result<Value, String> {
    let Some(theirs) = message.as_object() else {
        return Err("a message is no object".to_owned());
    };
    let mut ours = theirs.clone();
    if theirs.get("role").and_then(Value::as_str) == Some("developer") {
        ours.insert("role".to_owned(), json!("system"));
    }
    if let Some(Value::Array(parts)) = theirs.get("content") {
        let (text, images) = content(parts)?;
        ours.insert("content".to_owned(), json!(text));
        if !images.is_empty() {
            ours.insert("images".to_owned(), json!(images));
        }
    }
    if let Some(Value::Array(calls)) = theirs.get("tool_calls") {
        let calls: Result<Value, String> = calls.iter().map(tool_call).collect();
        ours.insert("tool_calls".to_owned(), calls?);
    }
    Ok(Value::Object(ours))
}

fn content(parts: &[Value]) -> Result<(String, Vec<&str>), String> {
    let mut texts = Vec::new();
    let mut images = Vec::new();
    for part in parts {
        let text = part.get("text").and_then(Value::as_str);
        let url = part.pointer("/image_url/url").and_then(Value::as_str);
        let data = url.and_then(|url| url.strip_prefix("data:")?.split_once(";base64,"));
        match (text, url, data) {
            (Some(text), ..) => texts.push(text),
            (None, _, Some((_kind, data))) => images.push(data),
            (None, Some(_), None) => {
                return Err("pictures must be in the request itself (data:…;base64,…)".to_owned());
            }
            (None, None, None) => {
                return Err("a part of a message is neither text nor picture".into());
            }
        }
    }
    Ok((texts.join("\n"), images))
}

fn tool_call(call: &Value) -> Result<Value, String> {
    let function = call.get("function");
    let name = function.and_then(|function| function.get("name")).cloned();
    let arguments = function.and_then(|function| function.get("arguments"));
    let arguments = match arguments {
        Some(Value::String(text)) => serde_json::from_str(text)
            .map_err(|error| format!("the arguments of a tool call are not JSON: {error}"))?,
        Some(object) => object.clone(),
        None => json!({}),
    };
    Ok(json!({ "function": { "name": name, "arguments": arguments } }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(spec: Value, loaded: Value) -> Result<Asked, String> {
        // As it is, also what a submitter would refuse.
        let spec = serde_json::from_value(spec).unwrap();
        asked(&spec, loaded.as_object().unwrap())
    }

    #[test]
    fn a_text_is_generated_from_with_the_options_of_the_load() {
        let spec = json!({
            "model": "tiny", "prompt": "hi", "system": "be short", "format": "json",
            "options": {"temperature": 0},
        });
        let asked = ask(spec, json!({"num_ctx": 512})).unwrap();
        assert_eq!((asked.path, asked.shape), ("/api/generate", Shape::Text));
        let wanted = json!({
            "model": "tiny", "prompt": "hi", "system": "be short", "format": "json",
            "options": {"num_ctx": 512, "temperature": 0},
            "keep_alive": -1, "truncate": false, "stream": true,
        });
        assert_eq!(asked.body, wanted);
    }

    #[test]
    fn messages_are_a_chat_that_the_system_text_begins() {
        let spec = json!({
            "model": "tiny", "system": "s", "messages": [{"role": "user", "content": "hi"}],
        });
        let asked = ask(spec, json!({})).unwrap();
        assert_eq!((asked.path, asked.shape), ("/api/chat", Shape::Chat));
        let messages = json!([
            {"role": "system", "content": "s"}, {"role": "user", "content": "hi"},
        ]);
        assert_eq!(asked.body["messages"], messages);
    }

    fn request(url: &str, body: Value) -> Result<Asked, String> {
        let request = json!({"url": url, "body": body});
        ask(json!({"model": "tiny", "request": request}), json!({"num_ctx": 512}))
    }

    #[test]
    fn a_chat_in_openais_words_is_translated() {
        let body = json!({
            "model": "tiny",
            "messages": [
                {"role": "user", "content": [
                    {"type": "text", "text": "what is it?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                ]},
                {"role": "assistant", "tool_calls": [
                    {"id": "c1", "function": {"name": "f", "arguments": "{\"a\":1}"}},
                ]},
            ],
            "max_tokens": 3, "temperature": 0.5, "stop": "x", "seed": null,
            "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
            "tools": [{"type": "function"}],
        });
        let asked = request("/v1/chat/completions", body).unwrap();
        assert_eq!(asked.path, "/api/chat");
        let options = json!({"num_ctx": 512, "num_predict": 3, "temperature": 0.5, "stop": ["x"]});
        assert_eq!(asked.body["options"], options);
        assert_eq!(asked.body["format"], json!({"type": "object"}));
        assert_eq!(asked.body["tools"], json!([{"type": "function"}]));
        let first = &asked.body["messages"][0];
        assert_eq!(
            (&first["content"], &first["images"]),
            (&json!("what is it?"), &json!(["AAAA"]))
        );
        let call = &asked.body["messages"][1]["tool_calls"][0]["function"];
        assert_eq!(call, &json!({"name": "f", "arguments": {"a": 1}}));
    }

    #[test]
    fn completions_and_embeddings_are_translated() {
        let asked = request("/v1/completions", json!({"prompt": ["hi"]})).unwrap();
        assert_eq!((asked.path, &asked.body["prompt"]), ("/api/generate", &json!("hi")));
        let asked = request("/v1/embeddings", json!({"input": ["a", "b"], "dimensions": 8}));
        let asked = asked.unwrap();
        assert_eq!((asked.path, &asked.body["input"]), ("/api/embed", &json!(["a", "b"])));
        assert_eq!(asked.body["dimensions"], 8);
    }

    #[test]
    fn what_ollama_cannot_do_is_said() {
        let chat = |body: Value| request("/v1/chat/completions", body).unwrap_err();
        assert!(chat(json!({})).contains("messages"));
        assert!(chat(json!({"messages": [], "n": 2})).contains("one answer"));
        let picture =
            json!([{"role": "user", "content": [{"image_url": {"url": "http://x/y.png"}}]}]);
        assert!(chat(json!({"messages": picture})).contains("in the request itself"));
        let odd = json!({"messages": [], "response_format": {"type": "xml"}});
        assert!(chat(odd).contains("response_format"));
        assert!(
            request("/v1/completions", json!({"prompt": [1, 2]})).unwrap_err().contains("prompt")
        );
        assert!(request("/v1/embeddings", json!({"input": [1]})).unwrap_err().contains("input"));
        assert!(request("/v1/responses", json!({})).unwrap_err().contains("/v1/responses"));
    }
}
