//! How deep a task may be nested. Whoever reads JSON stops at a depth of 128, and a task is read
//! inside of other things: a ledger line, an answer to `--json`, a request to a server. So what a
//! task may hold ends well before that, and what an answer may hold, too.

use serde_json::{Map, Value};

use super::bad_spec::BadSpec;

/// How many objects and lists may be one inside another in a task object, itself counted, and in
/// what a model server answers: 27 less than readers bear, for all that wraps it.
pub const MAX_DEPTH: usize = 100;

/// How many objects and lists are one inside another in this value; 0 where it is neither.
#[must_use]
pub fn depth_of(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
        Value::Array(list) => 1 + list.iter().map(depth_of).max().unwrap_or(0),
        Value::Object(fields) => depth_of_fields(fields),
    }
}

/// The same for an object that is taken apart.
fn depth_of_fields(fields: &Map<String, Value>) -> usize {
    1 + fields.values().map(depth_of).max().unwrap_or(0)
}

/// The same for a text that should be JSON; also where it is too deep to be read, or broken.
#[must_use]
pub fn depth_of_text(text: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            (true | false, _) => {}
        }
    }
    deepest
}

/// What is wrong with a text that could not be read because it is too deep. `None` where it is not.
#[must_use]
pub fn too_deep(text: &[u8]) -> Option<String> {
    problem(depth_of_text(text))
}

/// What is wrong with something that is nested `levels` deep. `None` where it may be.
fn problem(levels: usize) -> Option<String> {
    let text =
        || format!("is nested {levels} levels deep; {MAX_DEPTH} are the most that is carried");
    (levels > MAX_DEPTH).then(text)
}

/// Refuses a field that is nested too deep. `outside` counts the objects that it is in, in a task.
pub(super) fn check(field: &str, outside: usize, value: &Value) -> Result<(), BadSpec> {
    refuse(field, outside + depth_of(value))
}

/// The same for a field that is an object.
pub(super) fn check_fields(
    field: &str,
    outside: usize,
    fields: &Map<String, Value>,
) -> Result<(), BadSpec> {
    refuse(field, outside + depth_of_fields(fields))
}

fn refuse(field: &str, levels: usize) -> Result<(), BadSpec> {
    problem(levels).map_or(Ok(()), |problem| Err(BadSpec::field(field, problem)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Task, parse_line, parse_spec};

    fn nested(levels: usize) -> String {
        "{\"a\":".repeat(levels - 1) + "{}" + &"}".repeat(levels - 1)
    }

    #[test]
    fn depth_is_counted_in_values_and_in_texts_whatever_they_hold() {
        for (text, depth) in
            [("7", 0), ("{}", 1), (r#"{"a": [[], {"b": [1]}]}"#, 4), (r#"["{[\"{"]"#, 1)]
        {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(
                (depth_of(&value), depth_of_text(text.as_bytes())),
                (depth, depth),
                "{text}"
            );
        }
        assert_eq!(depth_of_text(b"]]}{\"a\": [["), 3, "broken as it is");
    }

    #[test]
    fn every_field_that_can_be_deep_is_refused_by_its_name_where_it_is_too_deep() {
        let ask = |field: &str, levels: usize| {
            let body = nested(levels);
            let request = format!(
                r#"{{"model": "m", "request": {{"url": "/v1/completions",
                     "body": {{"model": "m", "prompt": "p", "x": {body}}}}}}}"#
            );
            let openai = format!(
                r#"{{"custom_id": "a", "method": "POST", "url": "/v1/completions",
                     "body": {{"model": "m", "prompt": "p", "x": {body}}}}}"#
            );
            match field {
                "request.body" => parse_spec(request.as_bytes()),
                "body" => parse_line(openai.as_bytes(), None),
                _ => {
                    let task = format!(r#"{{"model": "m", "prompt": "p", "{field}": {body}}}"#);
                    parse_spec(task.as_bytes())
                }
            }
        };
        for (field, outside) in [("format", 1), ("options", 1), ("request.body", 3), ("body", 3)] {
            ask(field, MAX_DEPTH - outside).unwrap();
            let bad = ask(field, MAX_DEPTH - outside + 1).unwrap_err();
            assert_eq!(bad.field.as_deref(), Some(field));
            assert!(bad.problem.starts_with("is nested 101 levels deep; 100 are"), "{bad}");
        }
    }

    /// Also where no reader of JSON goes that far.
    #[test]
    fn what_cannot_even_be_read_is_refused_with_its_line_and_its_depth() {
        let text =
            format!("{{\"model\": \"m\", \"prompt\": \"p\",\n \"format\": {}}}", nested(9999));
        for bad in [
            parse_spec(text.as_bytes()).unwrap_err(),
            parse_line(text.as_bytes(), None).unwrap_err(),
            Task::parse(text.as_bytes()).unwrap_err(),
        ] {
            assert_eq!(
                bad.to_string(),
                "line 2: is nested 10000 levels deep; 100 are the most that is carried"
            );
        }
    }
}
