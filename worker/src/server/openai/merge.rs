//! Puts the pieces of a streamed answer together, to what the server would have sent in one piece.
//!
//! The pieces are merged by their shape and not by a list of fields, so that what a server adds of
//! its own (`reasoning_content`, `timings`, …) arrives too: texts are joined, lists are continued,
//! parts of lists that carry an `index` go where it says, and of the rest the last one holds.

use serde_json::{Map, Value, json};

/// Texts that each piece repeats, and that are not to be joined.
const REPEATED: [&str; 9] = [
    "id",
    "object",
    "model",
    "created",
    "role",
    "type",
    "finish_reason",
    "system_fingerprint",
    "service_tier",
];

/// An answer that is being put together.
#[derive(Debug, Default)]
pub(super) struct Merged(Map<String, Value>);

impl Merged {
    /// Takes in the next piece.
    pub(super) fn take(&mut self, piece: Value) {
        let Value::Object(mut piece) = piece else { return };
        if let Some(Value::Array(choices)) = piece.get_mut("choices") {
            for choice in choices.iter_mut().filter_map(Value::as_object_mut) {
                let delta = choice.remove("delta");
                delta.and_then(|delta| choice.insert("message".to_owned(), delta));
            }
        }
        merge_fields(&mut self.0, piece);
    }

    /// The whole answer. `None` when there was no piece of one.
    pub(super) fn into_body(mut self) -> Option<Value> {
        let choices = self.0.get_mut("choices")?.as_array_mut()?;
        choices.sort_by_key(index_of);
        if choices.is_empty() {
            return None;
        }
        let object = self.0.get("object").and_then(Value::as_str).unwrap_or_default();
        if let Some(whole) = object.strip_suffix(".chunk") {
            let whole = json!(whole);
            self.0.insert("object".to_owned(), whole);
        }
        Some(Value::Object(self.0))
    }
}

fn merge_fields(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        match into.get_mut(&key) {
            None => {
                // What comes first may itself be a list of pieces.
                let value = if value.is_array() { merged_list(Vec::new(), value) } else { value };
                into.insert(key, value);
            }
            Some(_) if value.is_null() => {}
            Some(had) => merge(&key, had, value),
        }
    }
}

fn merge(key: &str, had: &mut Value, value: Value) {
    match (had, value) {
        (Value::String(had), Value::String(more)) if !REPEATED.contains(&key) => {
            had.push_str(&more)
        }
        (Value::Object(had), Value::Object(more)) => merge_fields(had, more),
        (Value::Array(had), more @ Value::Array(_)) => {
            if let Value::Array(list) = merged_list(std::mem::take(had), more) {
                *had = list;
            }
        }
        // Some repeat the role as an empty text.
        (Value::String(had), Value::String(more)) if !had.is_empty() && more.is_empty() => {}
        (had, value) => *had = value,
    }
}

fn merged_list(mut list: Vec<Value>, more: Value) -> Value {
    let Value::Array(more) = more else { return Value::Array(list) };
    for part in more {
        let index = index_of(&part);
        let twin = index.and_then(|_| list.iter_mut().find(|had| index_of(had) == index));
        match (twin, part) {
            (Some(Value::Object(twin)), Value::Object(part)) => merge_fields(twin, part),
            (_, part) => list.push(part),
        }
    }
    Value::Array(list)
}

fn index_of(part: &Value) -> Option<u64> {
    part.get("index").and_then(Value::as_u64)
}

/// The text of a piece, of its first choice.
pub(super) fn text_of(piece: &Value) -> &str {
    let choices = piece.get("choices").and_then(Value::as_array).into_iter().flatten();
    let mut first = choices.filter(|choice| index_of(choice).unwrap_or(0) == 0);
    let Some(choice) = first.next() else { return "" };
    let delta = choice.get("delta").or_else(|| choice.get("message"));
    let text = delta.and_then(|delta| delta.get("content")).or_else(|| choice.get("text"));
    text.and_then(Value::as_str).unwrap_or_default()
}

/// Whether anything was said in a piece: a text, a thought, a part of a call.
pub(super) fn says_something(piece: &Value) -> bool {
    let choices = piece.get("choices").and_then(Value::as_array).into_iter().flatten();
    let texts = |choice: &Value| {
        let delta = choice.get("delta").and_then(Value::as_object).into_iter().flatten();
        let said = |value: &Value| value.as_str().map_or(!value.is_null(), |text| !text.is_empty());
        let in_delta = delta.filter(|(key, _)| *key != "role").any(|(_, value)| said(value));
        in_delta || choice.get("text").is_some_and(said)
    };
    choices.into_iter().any(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(pieces: Vec<Value>) -> Option<Value> {
        let mut merged = Merged::default();
        pieces.into_iter().for_each(|piece| merged.take(piece));
        merged.into_body()
    }

    #[test]
    fn a_chat_in_pieces_becomes_one_answer() {
        let piece = |choice: Value| {
            json!({"id": "c1", "object": "chat.completion.chunk", "created": 7, "model": "tiny",
                   "choices": [choice]})
        };
        let logprob = |token: &str| json!({"content": [{"token": token}]});
        let body = merged(vec![
            piece(
                json!({"index": 0, "delta": {"role": "assistant", "content": null}, "finish_reason": null}),
            ),
            piece(
                json!({"index": 0, "delta": {"content": "he"}, "logprobs": logprob("he"), "finish_reason": null}),
            ),
            piece(
                json!({"index": 0, "delta": {"content": "y"}, "logprobs": logprob("y"), "finish_reason": null}),
            ),
            piece(json!({"index": 0, "delta": {}, "finish_reason": "stop"})),
            json!({"id": "c1", "object": "chat.completion.chunk", "choices": [],
                   "usage": {"prompt_tokens": 2, "completion_tokens": 2}, "timings": {"prompt_n": 2}}),
        ]);
        let wanted = json!({
            "id": "c1", "object": "chat.completion", "created": 7, "model": "tiny",
            "choices": [{
                "index": 0, "message": {"role": "assistant", "content": "hey"},
                "logprobs": {"content": [{"token": "he"}, {"token": "y"}]}, "finish_reason": "stop",
            }],
            "usage": {"prompt_tokens": 2, "completion_tokens": 2}, "timings": {"prompt_n": 2},
        });
        assert_eq!(body, Some(wanted));
    }

    #[test]
    fn calls_come_together_by_their_index() {
        let piece =
            |calls: Value| json!({"choices": [{"index": 0, "delta": {"tool_calls": calls}}]});
        let body = merged(vec![
            piece(
                json!([{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}]),
            ),
            piece(json!([{"index": 0, "function": {"arguments": "{\"x\""}}])),
            piece(
                json!([{"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
                         {"index": 0, "function": {"arguments": ":1}"}}]),
            ),
        ]);
        let calls = &body.unwrap()["choices"][0]["message"]["tool_calls"];
        assert_eq!(calls[0]["function"], json!({"name": "f", "arguments": "{\"x\":1}"}));
        assert_eq!((&calls[1]["id"], &calls[1]["function"]["name"]), (&json!("b"), &json!("g")));
    }

    #[test]
    fn several_choices_are_kept_apart_and_in_order() {
        let piece = |index: u64, text: &str| json!({"object": "text_completion", "choices": [{"index": index, "text": text}]});
        let body = merged(vec![piece(1, "b"), piece(0, "a"), piece(1, "B")]).unwrap();
        assert_eq!(body["choices"][0]["text"], "a");
        assert_eq!(body["choices"][1]["text"], "bB");
        assert_eq!(body["object"], "text_completion");
    }

    #[test]
    fn without_a_choice_there_is_no_answer() {
        assert_eq!(merged(vec![]), None);
        assert_eq!(merged(vec![json!({"choices": []})]), None);
    }
}
