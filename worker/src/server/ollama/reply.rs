//! Puts Ollama's answer, which comes line by line, into the shape that OpenAI's has.

use std::io::Write;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};
use shared::llm::{Answer, Flaw};
use shared::time::Moment;

use super::ask::Shape;
use crate::server::Failure;
use crate::server::error::{Refusal, unwritten, words_in};

/// An answer that is being put together.
#[derive(Debug)]
pub(super) struct Gathering {
    shape: Shape,
    start: Instant,
    first: Option<Duration>,
    text: String,
    thinking: String,
    calls: Vec<Value>,
    logprobs: Vec<Value>,
}

impl Gathering {
    pub(super) fn new(shape: Shape) -> Self {
        Self {
            shape,
            start: Instant::now(),
            first: None,
            text: String::new(),
            thinking: String::new(),
            calls: Vec::new(),
            logprobs: Vec::new(),
        }
    }

    /// Takes in the next line; the answer, when it was the last one.
    pub(super) fn take(
        &mut self,
        mut line: Value,
        what: &str,
        sink: &mut dyn Write,
    ) -> Result<Option<Answer>, Failure> {
        if let Some(error) = line.get("error") {
            return Err(refused(what, error));
        }
        let calls = line.pointer_mut("/message/tool_calls").map(Value::take);
        if let Some(Value::Array(calls)) = calls {
            self.calls.extend(calls);
        }
        if let Some(Value::Array(logprobs)) = line.get_mut("logprobs").map(Value::take) {
            self.logprobs.extend(logprobs);
        }
        let (said, name) = match self.shape {
            Shape::Chat => (line.get("message").unwrap_or(&Value::Null), "content"),
            Shape::Text | Shape::Vectors => (&line, "response"),
        };
        let field = |name: &str| said.get(name).and_then(Value::as_str).unwrap_or_default();
        let text = field(name);
        self.text.push_str(text);
        self.thinking.push_str(field("thinking"));
        sink.write_all(text.as_bytes()).map_err(|error| unwritten(&error))?;
        let has_begun =
            !(self.text.is_empty() && self.thinking.is_empty() && self.calls.is_empty());
        if self.first.is_none() && has_begun {
            self.first = Some(self.start.elapsed());
        }
        if line.get("done") == Some(&Value::Bool(true)) {
            return Ok(Some(self.end(&line)));
        }
        Ok(None)
    }

    fn end(&mut self, last: &Value) -> Answer {
        let text = std::mem::take(&mut self.text);
        let finish = match last.get("done_reason").and_then(Value::as_str) {
            _ if !self.calls.is_empty() => "tool_calls",
            Some("length") => "length",
            Some(_) | None => "stop",
        };
        let logprobs = std::mem::take(&mut self.logprobs);
        let logprobs =
            if logprobs.is_empty() { Value::Null } else { json!({ "content": logprobs }) };
        let (object, prefix, choice) = match self.shape {
            Shape::Chat => (
                "chat.completion",
                "chatcmpl",
                json!({ "index": 0, "message": self.message(text), "finish_reason": finish,
                        "logprobs": logprobs }),
            ),
            Shape::Text | Shape::Vectors => (
                "text_completion",
                "cmpl",
                json!({ "index": 0, "text": text, "finish_reason": finish, "logprobs": logprobs }),
            ),
        };
        let numbers = Numbers::of(last);
        let body = json!({
            "id": format!("{prefix}-{:016x}", fastrand::u64(..)),
            "object": object,
            "created": Moment::now().unix_seconds(),
            "model": model(last),
            "choices": [choice],
            "usage": numbers.usage(),
        });
        numbers.answer(model(last), body, self.first, self.start.elapsed())
    }

    fn message(&mut self, text: String) -> Value {
        let calls: Vec<Value> = {
            let calls = self.calls.drain(..).enumerate();
            calls.map(|(index, call)| tool_call(index, &call)).collect()
        };
        let content = if text.is_empty() && !calls.is_empty() { Value::Null } else { json!(text) };
        let mut message = Map::new();
        message.insert("role".to_owned(), json!("assistant"));
        message.insert("content".to_owned(), content);
        if !self.thinking.is_empty() {
            message.insert("reasoning".to_owned(), json!(std::mem::take(&mut self.thinking)));
        }
        if !calls.is_empty() {
            message.insert("tool_calls".to_owned(), json!(calls));
        }
        Value::Object(message)
    }
}

/// OpenAI has the arguments of a call as a text.
fn tool_call(index: usize, call: &Value) -> Value {
    let function = call.get("function");
    let name = function.and_then(|function| function.get("name"));
    let arguments = function.and_then(|function| function.get("arguments"));
    let arguments = arguments.map_or_else(|| "{}".to_owned(), Value::to_string);
    json!({
        "index": index,
        "id": format!("call_{:016x}", fastrand::u64(..)),
        "type": "function",
        "function": { "name": name, "arguments": arguments },
    })
}

/// The answer of `/api/embed`.
pub(super) fn vectors(said: &Value, seconds: Duration, what: &str) -> Result<Answer, Failure> {
    let Some(vectors) = said.get("embeddings").and_then(Value::as_array) else {
        return Err(Failure::transport(what, "the answer has no `embeddings`"));
    };
    let data: Vec<Value> = vectors
        .iter()
        .enumerate()
        .map(
            |(index, vector)| json!({ "object": "embedding", "index": index, "embedding": vector }),
        )
        .collect();
    let numbers = Numbers { written: None, ..Numbers::of(said) };
    let body = json!({
        "object": "list",
        "data": data,
        "model": model(said),
        "usage": { "prompt_tokens": numbers.read, "total_tokens": numbers.read },
    });
    Ok(numbers.answer(model(said), body, None, seconds))
}

/// Writes embeddings as OpenAI does where bytes are asked for: 32 bits each, little end first.
pub(super) fn in_base64(body: &mut Value) {
    let data = body.get_mut("data").and_then(Value::as_array_mut);
    for item in data.into_iter().flatten() {
        let Some(vector) = item.get("embedding").and_then(Value::as_array) else { continue };
        #[expect(clippy::cast_possible_truncation, reason = "the form has no more bits")]
        let numbers = vector.iter().filter_map(Value::as_f64).map(|number| number as f32);
        let bytes: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
        item["embedding"] = BASE64_STANDARD.encode(bytes).into();
    }
}

fn model(said: &Value) -> &str {
    said.get("model").and_then(Value::as_str).unwrap_or_default()
}

/// What the last line says in numbers.
struct Numbers {
    read: Option<u64>,
    written: Option<u64>,
    load_seconds: Option<f64>,
    writing_seconds: Option<f64>,
}

impl Numbers {
    fn of(last: &Value) -> Self {
        let number = |field: &str| last.get(field).and_then(Value::as_u64);
        #[expect(clippy::cast_precision_loss, reason = "nanoseconds, shown to a person")]
        let seconds = |field: &str| number(field).map(|nanoseconds| nanoseconds as f64 / 1e9);
        Self {
            read: number("prompt_eval_count"),
            written: number("eval_count"),
            load_seconds: seconds("load_duration"),
            writing_seconds: seconds("eval_duration").filter(|seconds| *seconds > 0.0),
        }
    }

    fn usage(&self) -> Value {
        // Left out by Ollama when all of the prompt was still in its memory: not known, not 0.
        let total = self.read.zip(self.written).map(|(read, written)| read + written);
        json!({
            "prompt_tokens": self.read,
            "completion_tokens": self.written,
            "total_tokens": total,
        })
    }

    fn answer(&self, model: &str, body: Value, first: Option<Duration>, all: Duration) -> Answer {
        let flaw = Flaw::of(&body);
        Answer {
            model: model.to_owned(),
            body,
            prompt_tokens: self.read,
            completion_tokens: self.written,
            load_seconds: self.load_seconds,
            first_token_seconds: first.map(|first| first.as_secs_f64()),
            seconds: all.as_secs_f64(),
            writing_seconds: self.writing_seconds,
            flaw,
        }
    }
}

pub(super) fn refused(what: &str, error: &Value) -> Failure {
    Refusal { what, status: None, words: &words_in(error) }.failure()
}

#[cfg(test)]
mod tests {
    use shared::outcome::Cause;

    use super::*;
    use crate::server::Again;

    #[test]
    fn embeddings_in_bytes_are_as_openai_writes_them() {
        let mut body = json!({"data": [{"embedding": [1.0, -0.5]}, {"embedding": []}]});
        in_base64(&mut body);
        assert_eq!(body["data"][0]["embedding"], "AACAPwAAAL8=");
        assert_eq!(body["data"][1]["embedding"], "");
    }

    fn gather(shape: Shape, lines: &[Value]) -> (Result<Option<Answer>, Failure>, String) {
        let mut gathering = Gathering::new(shape);
        let mut sink = Vec::new();
        let mut last = Ok(None);
        for line in lines {
            last = gathering.take(line.clone(), "here", &mut sink);
        }
        (last, String::from_utf8(sink).unwrap())
    }

    #[test]
    fn a_chat_becomes_a_chat_completion() {
        let said = |text: &str| json!({"model": "tiny", "message": {"role": "assistant", "content": text}, "done": false});
        let end = json!({
            "model": "tiny", "message": {"role": "assistant", "content": ""}, "done": true,
            "done_reason": "length", "prompt_eval_count": 5, "eval_count": 2,
            "load_duration": 250_000_000_u64,
        });
        let (answer, sink) = gather(Shape::Chat, &[said("he"), said("llo"), end]);
        let answer = answer.unwrap().unwrap();
        assert_eq!((answer.text(), sink.as_str()), (Some("hello"), "hello"));
        assert_eq!(answer.body["object"], "chat.completion");
        assert_eq!(answer.body["choices"][0]["finish_reason"], "length");
        assert_eq!(answer.body["usage"]["total_tokens"], 7);
        assert_eq!((answer.prompt_tokens, answer.completion_tokens), (Some(5), Some(2)));
        assert_eq!(answer.load_seconds, Some(0.25));
        assert!(answer.first_token_seconds.unwrap() <= answer.seconds);
    }

    #[test]
    fn thoughts_and_calls_have_their_own_places() {
        let lines = [
            json!({"message": {"thinking": "hm"}, "done": false}),
            json!({"message": {"content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}, "done": false}),
            json!({"model": "m", "message": {"content": ""}, "done": true, "done_reason": "stop"}),
        ];
        let (answer, sink) = gather(Shape::Chat, &lines);
        let answer = answer.unwrap().unwrap();
        let message = &answer.body["choices"][0]["message"];
        assert_eq!((&message["reasoning"], &message["content"]), (&json!("hm"), &Value::Null));
        assert_eq!(message["tool_calls"][0]["function"]["arguments"], "{\"a\":1}");
        assert_eq!(answer.body["choices"][0]["finish_reason"], "tool_calls");
        // What is not known is null, not 0.
        assert_eq!(answer.body["usage"]["prompt_tokens"], Value::Null);
        assert_eq!(sink, "");
    }

    #[test]
    fn a_line_with_an_error_fails_whatever_came_before() {
        let lines = [
            json!({"response": "he", "done": false}),
            json!({"error": "an error was encountered while running the model: unexpected EOF"}),
        ];
        let failure = gather(Shape::Text, &lines).0.unwrap_err();
        assert_eq!((failure.cause, failure.again), (Cause::ServerError, Again::Maybe));
        assert!(failure.message.contains("unexpected EOF"), "{failure}");
    }

    #[test]
    fn embeddings_become_a_list() {
        let said = json!({"model": "m", "embeddings": [[0.5], [1.5]], "prompt_eval_count": 4});
        let answer = vectors(&said, Duration::from_secs(1), "here").unwrap();
        assert_eq!(
            answer.body["data"][1],
            json!({"object": "embedding", "index": 1, "embedding": [1.5]})
        );
        assert_eq!((answer.prompt_tokens, answer.text()), (Some(4), None));
        assert!(vectors(&json!({}), Duration::ZERO, "here").is_err());
    }
}
