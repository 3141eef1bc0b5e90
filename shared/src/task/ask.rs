//! What may be asked of a model: the checks of prompts, conversations, answer formats and requests
//! in OpenAI's words. What a server would take for something else (an empty prompt loads a model
//! and answers nothing) is refused here, where it can be said.

use serde_json::{Map, Value};

use super::bad_spec::BadSpec;
use super::depth;
use super::prompt::{Message, Prompt};
use super::spec::{Payload, Spec};
use crate::llm::{Request, is_same_model};
use crate::name::nearest;

/// Where requests in OpenAI's words may go.
pub const REQUEST_URLS: [&str; 3] = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"];

/// Who may speak in a conversation.
pub const ROLES: [&str; 3] = ["system", "user", "assistant"];

/// The objects around the body of a request: the request, and the task.
const IN_A_REQUEST: usize = 2;

/// The words that a JSON schema's `type` may be.
const TYPES: [&str; 7] = ["object", "array", "string", "number", "integer", "boolean", "null"];

impl Spec {
    /// Whether what it asks of a model can be meant; and that only who asks one says how.
    pub(super) fn check_asking(&self, payload: &Payload<'_>) -> Result<(), BadSpec> {
        match payload {
            Payload::Llm { model, prompt } => {
                check_model(model)?;
                self.check_prompt(prompt, model)
            }
            Payload::Model { model, .. } => {
                check_model(model)?;
                self.refuse_asking("a task that loads or unloads a model")
            }
            Payload::Command(_) | Payload::Shell(_) => {
                if self.options.is_some() {
                    return Err(BadSpec::field("options", "are for prompts; this is a command"));
                }
                self.refuse_asking("a command")
            }
        }?;
        if self.verb.is_some() && !matches!(payload, Payload::Model { .. }) {
            return Err(BadSpec::field("verb", "is for tasks that the brain makes"));
        }
        Ok(())
    }

    fn check_prompt(&self, prompt: &Prompt<'_>, model: &str) -> Result<(), BadSpec> {
        match prompt {
            Prompt::Text(text) if text.trim().is_empty() => {
                Err(BadSpec::field("prompt", "is empty"))
            }
            Prompt::Text(_) => Ok(()),
            Prompt::Messages(messages) => check_messages(messages),
            Prompt::Request(request) => {
                let inside = |bad: BadSpec| BadSpec {
                    field: bad.field.map(|field| format!("request.{field}")),
                    ..bad
                };
                check_request(request, model).map_err(inside)?;
                let said = [
                    ("system", self.system.is_some()),
                    ("options", self.options.is_some()),
                    ("format", self.format.is_some()),
                ];
                match said.into_iter().find(|(_field, said)| *said) {
                    Some((field, _)) => {
                        Err(BadSpec::field(field, "belongs into the body of the request"))
                    }
                    None => Ok(()),
                }
            }
        }?;
        self.format.as_ref().map_or(Ok(()), check_format)
    }

    /// What only a prompt has.
    fn refuse_asking(&self, what: &str) -> Result<(), BadSpec> {
        let said = [
            ("system", self.system.is_some()),
            ("format", self.format.is_some()),
            ("max_wait", self.max_wait.is_some()),
        ];
        match said.into_iter().find(|(_field, said)| *said) {
            Some((field, _)) => {
                Err(BadSpec::field(field, format!("is for prompts; this is {what}")))
            }
            None => Ok(()),
        }
    }

    /// The words that it asks a model with, as far as one can read them.
    pub(super) fn asked_words(&self) -> Option<&str> {
        if let Some(messages) = &self.messages {
            return messages.last().map(|message| message.content.as_str());
        }
        let body = &self.request.as_ref()?.body;
        let last = body.get("messages").and_then(Value::as_array).and_then(|list| list.last());
        let content = last.and_then(|message| message.get("content"));
        let asked = content.or_else(|| body.get("prompt")).or_else(|| body.get("input"))?;
        asked.as_str().or_else(|| asked.get(0)?.as_str())
    }
}

fn check_model(model: &str) -> Result<(), BadSpec> {
    if model.is_empty() {
        return Err(BadSpec::field("model", "is empty"));
    }
    if model.chars().any(|c| c.is_control() || c.is_whitespace()) {
        let model = model.escape_default();
        return Err(BadSpec::field("model", format!("`{model}` is no name of a model")));
    }
    Ok(())
}

fn check_messages(messages: &[Message]) -> Result<(), BadSpec> {
    if messages.is_empty() {
        return Err(BadSpec::field("messages", "is empty"));
    }
    for (number, message) in (1..).zip(messages) {
        if !ROLES.contains(&message.role.as_str()) {
            let role = message.role.escape_default();
            let problem =
                format!("message {number}: `{role}` is none of the roles {}", ROLES.join(", "));
            return Err(BadSpec::field("messages", problem));
        }
    }
    Ok(())
}

/// A format is the word `json`, or a JSON schema.
fn check_format(format: &Value) -> Result<(), BadSpec> {
    let bad = |problem: String| Err(BadSpec::field("format", problem));
    match format {
        Value::String(word) if word == "json" => Ok(()),
        Value::Object(schema) => check_schema(schema, "").or_else(bad),
        Value::String(word) => {
            bad(format!("`{}` is neither `json` nor a JSON schema", word.escape_default()))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
            bad("must be `json` or a JSON schema (an object)".to_owned())
        }
    }
}

/// What a server would refuse, or take for something else. A whole validator is the server's part.
fn check_schema(schema: &Map<String, Value>, at: &str) -> Result<(), String> {
    let place = || if at.is_empty() { String::new() } else { format!("{at}: ") };
    match schema.get("type") {
        None => {}
        Some(Value::String(word)) => check_type(word).map_err(|text| place() + &text)?,
        Some(Value::Array(words)) if !words.is_empty() => {
            for word in words {
                let word = word.as_str().unwrap_or_default();
                check_type(word).map_err(|text| place() + &text)?;
            }
        }
        Some(_) => return Err(place() + "`type` must be a word or a list of words"),
    }
    if let Some(required) = schema.get("required") {
        let words = required.as_array().is_some_and(|list| list.iter().all(Value::is_string));
        if !words {
            return Err(place() + "`required` must be a list of names");
        }
    }
    if let Some(properties) = schema.get("properties") {
        let Value::Object(properties) = properties else {
            return Err(place() + "`properties` must be an object");
        };
        for (name, inner) in properties {
            check_inner(inner, &format!("{at}/{name}"))?;
        }
    }
    schema.get("items").map_or(Ok(()), |inner| check_inner(inner, &format!("{at}/items")))
}

/// A schema inside a schema may be `true` or `false`, too.
fn check_inner(value: &Value, at: &str) -> Result<(), String> {
    match value {
        Value::Object(schema) => check_schema(schema, at),
        Value::Bool(_) => Ok(()),
        Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(format!("{at}: must be a JSON schema"))
        }
    }
}

fn check_type(word: &str) -> Result<(), String> {
    if TYPES.contains(&word) {
        return Ok(());
    }
    let hint = nearest(word, &TYPES).map(|near| format!("; did you mean `{near}`?"));
    let word = word.escape_default();
    Err(format!("`{word}` is no type of a JSON schema{}", hint.unwrap_or_default()))
}

/// Whether a request in OpenAI's words can be passed on. Fields are named as seen from it.
pub(super) fn check_request(request: &Request, model: &str) -> Result<(), BadSpec> {
    if !REQUEST_URLS.contains(&request.url.as_str()) {
        let url = request.url.escape_default();
        let problem = format!("`{url}` is none of {}", REQUEST_URLS.join(", "));
        return Err(BadSpec::field("url", problem));
    }
    let body = &request.body;
    match body.get("model") {
        None => return Err(BadSpec::field("body.model", "is missing")),
        Some(Value::String(own)) if own.is_empty() => {
            return Err(BadSpec::field("body.model", "is empty"));
        }
        Some(Value::String(own)) if is_same_model(own, model) => {}
        Some(Value::String(own)) => {
            let own = own.escape_default();
            return Err(BadSpec::field("body.model", format!("`{own}` is not the task's model")));
        }
        Some(_) => return Err(BadSpec::field("body.model", "must be a text")),
    }
    depth::check_fields("body", IN_A_REQUEST, body)?;
    match request.url.as_str() {
        "/v1/chat/completions" => check_body_messages(body),
        "/v1/completions" => check_text_of(body, "prompt"),
        _ => check_text_of(body, "input"),
    }
}

fn check_body_messages(body: &Map<String, Value>) -> Result<(), BadSpec> {
    const FIELD: &str = "body.messages";
    let Some(messages) = body.get("messages") else {
        return Err(BadSpec::field(FIELD, "is missing"));
    };
    let messages = messages.as_array().filter(|messages| !messages.is_empty());
    let Some(messages) = messages else {
        return Err(BadSpec::field(FIELD, "must be a list of messages"));
    };
    for (number, message) in (1..).zip(messages) {
        if message.get("role").and_then(Value::as_str).is_none_or(str::is_empty) {
            return Err(BadSpec::field(FIELD, format!("message {number} has no role")));
        }
    }
    Ok(())
}

/// A text, or a list (of texts, or of tokens).
fn check_text_of(body: &Map<String, Value>, name: &str) -> Result<(), BadSpec> {
    let field = format!("body.{name}");
    match body.get(name) {
        None => Err(BadSpec::field(&field, "is missing")),
        Some(Value::String(text)) if !text.is_empty() => Ok(()),
        Some(Value::Array(list)) if !list.is_empty() => Ok(()),
        Some(Value::String(_) | Value::Array(_)) => Err(BadSpec::field(&field, "is empty")),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {
            Err(BadSpec::field(&field, "must be a text or a list"))
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::task::parse_spec;

    fn error(text: &str) -> String {
        parse_spec(text.as_bytes()).unwrap_err().to_string()
    }

    fn asks(more: &str) -> String {
        format!(r#"{{"model": "m", "prompt": "hi"{more}}}"#)
    }

    #[test]
    fn a_prompt_is_understood() {
        assert!(parse_spec(asks(r#", "format": "json", "max_wait": "5m""#).as_bytes()).is_ok());
        let schema = r#", "format": {"type": "object", "properties": {"a": {"type": "string"}}}"#;
        assert!(parse_spec(asks(schema).as_bytes()).is_ok());
    }

    #[test]
    fn what_loads_a_model_and_answers_nothing_is_refused() {
        assert_eq!(error(r#"{"model": "m", "prompt": " "}"#), "field `prompt`: is empty");
        assert_eq!(error(r#"{"model": "m", "messages": []}"#), "field `messages`: is empty");
        assert_eq!(error(r#"{"model": "", "prompt": "hi"}"#), "field `model`: is empty");
        let role = error(r#"{"model": "m", "messages": [{"role": "robot", "content": "x"}]}"#);
        assert_eq!(
            role,
            "field `messages`: message 1: `robot` is none of the roles system, user, assistant"
        );
    }

    #[test]
    fn a_format_is_json_or_a_schema() {
        assert!(error(&asks(r#", "format": "yaml""#)).contains("neither `json` nor"));
        assert!(error(&asks(r#", "format": 3"#)).contains("must be `json`"));
        let bad = r#", "format": {"properties": {"age": {"type": "integr"}}}"#;
        assert_eq!(
            error(&asks(bad)),
            "field `format`: /age: `integr` is no type of a JSON schema; did you mean `integer`?"
        );
        assert!(error(&asks(r#", "format": {"required": "a"}"#)).contains("list of names"));
        assert!(error(&asks(r#", "format": {"items": 3}"#)).contains("/items: must be"));
    }

    #[test]
    fn who_asks_no_model_says_nothing_about_asking() {
        assert!(
            error(r#"{"shell": "x", "max_wait": "5m"}"#).contains("`max_wait`: is for prompts")
        );
        assert!(error(r#"{"shell": "x", "options": {}}"#).contains("`options`: are for prompts"));
        assert!(error(&asks(r#", "options": [1]"#)).starts_with("field `options`: "));
        assert!(error(&asks(r#", "verb": "load_llm""#)).contains("`verb`"));
        let load = r#"{"class": "resource", "verb": "load_llm", "model": "m", "options": {"num_ctx": 512}}"#;
        assert!(parse_spec(load.as_bytes()).is_ok());
    }

    #[test]
    fn a_request_says_all_and_goes_to_a_known_place() {
        let request = |url: &str, body: &str| {
            format!(r#"{{"model": "m", "request": {{"url": "{url}", "body": {body}}}}}"#)
        };
        let chat = "/v1/chat/completions";
        let good = r#"{"model": "m", "messages": [{"role": "user", "content": "hi"}]}"#;
        let spec = parse_spec(request(chat, good).as_bytes()).unwrap();
        assert_eq!(spec.default_name(), "hi");
        for (url, body, wrong) in [
            ("/v1/images", good, "field `request.url`: `/v1/images` is none of"),
            (chat, r#"{"messages": []}"#, "field `request.body.model`: is missing"),
            (chat, r#"{"model": "n"}"#, "field `request.body.model`: `n` is not the task's model"),
            (chat, r#"{"model": "m"}"#, "field `request.body.messages`: is missing"),
            (chat, r#"{"model": "m", "messages": [{}]}"#, "message 1 has no role"),
            ("/v1/completions", r#"{"model": "m"}"#, "field `request.body.prompt`: is missing"),
            ("/v1/embeddings", r#"{"model": "m", "input": ""}"#, "`request.body.input`: is empty"),
        ] {
            let told = error(&request(url, body));
            assert!(told.contains(wrong), "{told}");
        }
        let both = request(chat, good).replacen('{', r#"{"system": "x", "#, 1);
        assert!(error(&both).contains("belongs into the body"));
    }
}
