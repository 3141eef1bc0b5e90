//! A line of a batch file: a task object, or a request in the format of OpenAI's Batch API
//! (`custom_id`, `method`, `url`, `body`). Told apart by their fields, line by line.

use serde_json::{Map, Value};

use super::ask::check_request;
use super::bad_spec::BadSpec;
use super::spec::Spec;
use super::{Class, parse};
use crate::llm::Request;
use crate::name::nearest;

/// The fields of a request in OpenAI's format. The last three are what tells it apart.
const OPENAI_FIELDS: [&str; 4] = ["custom_id", "method", "url", "body"];

/// Reads one line. `model` is the one for prompts that name none.
pub fn parse_line(bytes: &[u8], model: Option<&str>) -> Result<Spec, BadSpec> {
    let fields = parse::object(bytes)?;
    if OPENAI_FIELDS[1..].iter().any(|field| fields.contains_key(*field)) {
        let spec = openai(fields, model)?;
        spec.check()?;
        return Ok(spec);
    }
    let mut spec: Spec = parse::from_fields(fields, &[])?;
    if spec.model.is_none() && spec.asks_a_model() {
        spec.model = model.map(str::to_owned);
    }
    if let (Some(model), Some(request)) = (&spec.model, &mut spec.request) {
        request.body.entry("model").or_insert_with(|| model.clone().into());
    }
    spec.check()?;
    Ok(spec)
}

fn openai(mut fields: Map<String, Value>, model: Option<&str>) -> Result<Spec, BadSpec> {
    if let Some(strange) = fields.keys().find(|key| !OPENAI_FIELDS.contains(&key.as_str())) {
        let hint = nearest(strange, &OPENAI_FIELDS).map(|near| format!("; did you mean `{near}`?"));
        let problem = "there is no such field in OpenAI's batch format";
        return Err(BadSpec::field(strange, problem.to_owned() + &hint.unwrap_or_default()));
    }
    let custom_id = text(&mut fields, "custom_id")?;
    let method = text(&mut fields, "method")?;
    if method != "POST" {
        let method = method.escape_default();
        return Err(BadSpec::field("method", format!("`{method}` is not `POST`")));
    }
    let url = text(&mut fields, "url")?;
    let mut body = match fields.remove("body") {
        Some(Value::Object(body)) => body,
        Some(_) => return Err(BadSpec::field("body", "must be an object")),
        None => return Err(BadSpec::field("body", "is missing")),
    };
    if let Some(model) = model {
        body.entry("model").or_insert_with(|| model.into());
    }
    let own = body.get("model").and_then(Value::as_str).map(str::to_owned);
    let request = Request { url, body };
    // Said here, the fields are named as they stand in the line.
    check_request(&request, own.as_deref().unwrap_or_default())?;
    Ok(Spec {
        class: Some(Class::Llm),
        model: own,
        request: Some(request),
        custom_id: Some(custom_id),
        ..Spec::default()
    })
}

fn text(fields: &mut Map<String, Value>, field: &str) -> Result<String, BadSpec> {
    match fields.remove(field) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        Some(Value::String(_)) => Err(BadSpec::field(field, "is empty")),
        Some(_) => Err(BadSpec::field(field, "must be a text")),
        None => Err(BadSpec::field(field, "is missing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"custom_id": "a-1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": [{"role": "user", "content": "hi there"}], "top_p": 0.5}}"#;

    fn error(text: &str, model: Option<&str>) -> String {
        parse_line(text.as_bytes(), model).unwrap_err().to_string()
    }

    #[test]
    fn a_line_in_openais_format_is_a_request_passed_on_as_it_came() {
        let spec = parse_line(GOOD.as_bytes(), Some("other")).unwrap();
        let request = spec.request.as_ref().unwrap();
        assert_eq!((spec.model.as_deref(), spec.custom_id.as_deref()), (Some("m"), Some("a-1")));
        assert_eq!((request.body["top_p"].as_f64(), spec.class), (Some(0.5), Some(Class::Llm)));
        assert_eq!(spec.default_name(), "hi there");
    }

    #[test]
    fn a_model_for_lines_without_one() {
        let bare = GOOD.replace(r#""model": "m", "#, "");
        assert_eq!(error(&bare, None), "field `body.model`: is missing");
        let spec = parse_line(bare.as_bytes(), Some("tiny")).unwrap();
        assert_eq!(spec.model.as_deref(), Some("tiny"));
        assert_eq!(spec.request.unwrap().body["model"], "tiny");
        let spec = parse_line(br#"{"prompt": "hi"}"#, Some("tiny")).unwrap();
        assert_eq!(spec.model.as_deref(), Some("tiny"));
        let spec = parse_line(br#"{"shell": "x"}"#, Some("tiny")).unwrap();
        assert_eq!(spec.model, None);
    }

    #[test]
    fn what_is_wrong_is_named_as_it_stands_in_the_line() {
        for (from, to, wrong) in [
            ("POST", "GET", "field `method`: `GET` is not `POST`"),
            ("/v1/chat/", "/v2/chat/", "field `url`: `/v2/chat/completions` is none of"),
            (r#""custom_id": "a-1", "#, "", "field `custom_id`: is missing"),
            (r#""a-1""#, "7", "field `custom_id`: must be a text"),
            (
                r#""method""#,
                r#""metod""#,
                "`metod`: there is no such field in OpenAI's batch format; did you mean `method`?",
            ),
            (r#""messages""#, r#""message""#, "field `body.messages`: is missing"),
            (r#""role": "user", "#, "", "message 1 has no role"),
        ] {
            let told = error(&GOOD.replacen(from, to, 1), None);
            assert!(told.contains(wrong), "{told}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = parse_line(&bytes, Some("m"));
        }
    }
}
