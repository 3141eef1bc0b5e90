//! How one result is written. Pure: a ledger line becomes bytes.

use clap::ValueEnum;
use queue::dir::lookup::ended_state;
use queue::wire::ledger_line::Line;
use serde_json::{Value, json};
use shared::name::printable;

use crate::cmd::out::{cut, with_schema};

/// The formats.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Lines of OpenAI's batch output.
    Openai,
    /// A JSON object per task.
    Jsonl,
    /// A table.
    Csv,
    /// The answers' text; of commands, exit code and log file.
    Text,
}

/// The columns of the table, and fields of the JSON objects.
const COLUMNS: [&str; 14] = [
    "custom_id",
    "id",
    "name",
    "state",
    "cause",
    "error",
    "model",
    "text",
    "prompt_tokens",
    "completion_tokens",
    "seconds",
    "exit_code",
    "log_path",
    "flaw",
];

impl Form {
    /// The one that shows all there is to a task of this kind.
    pub(super) fn for_task(line: &Line) -> Self {
        if line.task.spec.asks_a_model() { Self::Openai } else { Self::Jsonl }
    }

    /// Whether what failed stands beside what succeeded.
    pub(super) const fn shows_failures(self) -> bool {
        match self {
            Self::Jsonl | Self::Csv => true,
            Self::Openai | Self::Text => false,
        }
    }

    /// The bytes for one task. `None` where this format cannot show it.
    pub(super) fn bytes(self, line: &Line, first: bool) -> Option<Vec<u8>> {
        match self {
            Self::Openai => openai(line),
            Self::Jsonl => Some(jsonl(line)),
            Self::Csv => Some(csv(line, first)),
            Self::Text => Some(text(line)),
        }
    }
}

fn with_newline(value: &Value) -> Vec<u8> {
    let mut bytes = value.to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}

/// What the submitter calls it; the task's id where that is nothing.
fn custom_id(line: &Line) -> String {
    line.task.spec.custom_id.clone().unwrap_or_else(|| line.id.to_string())
}

fn request_id(line: &Line) -> String {
    format!("batch_req_{}", line.id.to_string().replace('-', ""))
}

fn openai(line: &Line) -> Option<Vec<u8>> {
    let answer = line.answer.as_ref()?;
    Some(with_newline(&json!({
        "id": request_id(line),
        "custom_id": custom_id(line),
        "response": {
            "status_code": 200,
            // Leads to the run's log.
            "request_id": format!("{}.a{}", line.id, line.attempt),
            "body": answer.body,
        },
        "error": null,
    })))
}

/// A line of OpenAI's error file.
pub(super) fn openai_error(line: &Line) -> Vec<u8> {
    let state = ended_state(line.outcome);
    let code = line.cause.map_or_else(|| state.to_owned(), |cause| cause.to_string());
    with_newline(&json!({
        "id": request_id(line),
        "custom_id": custom_id(line),
        // As it came, where a server refused; null where none was reached.
        "response": line.refused.as_ref().map(|refused| json!({
            "status_code": refused.status,
            "request_id": format!("{}.a{}", line.id, line.attempt),
            "body": refused.body,
        })),
        "error": {"code": code, "message": message(line)},
    }))
}

fn message(line: &Line) -> String {
    line.error_message.clone().unwrap_or_else(|| {
        let cause = line.cause.map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("{}{cause}", ended_state(line.outcome))
    })
}

/// A failure, for people.
pub(super) fn failure(line: &Line) -> String {
    let custom_id = line.task.spec.custom_id.as_ref();
    let custom_id = custom_id.map(|text| format!(" {}", printable(text))).unwrap_or_default();
    let cause = line.cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
    let state = ended_state(line.outcome);
    let message = line.error_message.as_ref().map(|text| format!(": {}", cut(text, 200)));
    format!("{}{custom_id} {state}{cause}{}", line.id.short(), message.unwrap_or_default())
}

fn fields(line: &Line) -> Value {
    let answer = line.answer.as_ref();
    let ran = line.started_at.map(|started| line.ended_at.seconds_since(started));
    json!({
        "custom_id": line.task.spec.custom_id,
        "id": line.id,
        "name": line.task.name(),
        "state": ended_state(line.outcome),
        "cause": line.cause,
        "error": line.error_message,
        "model": answer.map(|answer| &answer.model).or(line.task.spec.model.as_ref()),
        "text": answer.and_then(|answer| answer.text()),
        "prompt_tokens": answer.and_then(|answer| answer.prompt_tokens),
        "completion_tokens": answer.and_then(|answer| answer.completion_tokens),
        "seconds": answer.map(|answer| answer.seconds).or(ran),
        "exit_code": line.exit_code,
        "log_path": line.log_path,
        "flaw": answer.and_then(|answer| answer.flaw),
    })
}

fn jsonl(line: &Line) -> Vec<u8> {
    let mut value = with_schema("result", &fields(line));
    // What is no text is shown as it is: embeddings.
    let answer = line.answer.as_ref().filter(|answer| answer.text().is_none());
    if let Some(answer) = answer {
        value["body"] = answer.body.clone();
    }
    with_newline(&value)
}

fn csv(line: &Line, first: bool) -> Vec<u8> {
    let fields = fields(line);
    let values = COLUMNS.map(|column| match &fields[column] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            other.to_string()
        }
    });
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    let head = if first { writer.write_record(COLUMNS) } else { Ok(()) };
    let written = head.and_then(|()| writer.write_record(values));
    written.expect("records of one length are written into memory");
    writer.into_inner().expect("memory is written whole")
}

fn text(line: &Line) -> Vec<u8> {
    let mut text = match (&line.answer, line.task.spec.asks_a_model()) {
        (Some(answer), _) => match answer.text() {
            Some(text) => text.to_owned(),
            None => answer.body.to_string(),
        },
        (None, true) => String::new(),
        (None, false) => {
            let code = line.exit_code.map_or_else(|| "-".to_owned(), |code| code.to_string());
            let log = line.log_path.as_deref().unwrap_or("-");
            let name = line.task.spec.custom_id.clone().unwrap_or_else(|| line.task.name());
            format!("{} exit {code} {log} {}", line.id.short(), printable(&name))
        }
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use queue::wire::retry::AttemptEnd;
    use queue::wire::retry::Verdict;
    use shared::id::TaskId;
    use shared::llm::Answer;
    use shared::outcome::Cause;
    use shared::task::{Task, TaskName, parse_spec};
    use shared::time::Moment;

    fn line(spec: &str, verdict: Verdict) -> Line {
        let task = Task {
            id: TaskId::new(),
            batch_id: None,
            submitted_at: Moment::now(),
            submitted_by: "ann@host".into(),
            correlation_id: "c".into(),
            spec: parse_spec(spec.as_bytes()).unwrap(),
        };
        let name = TaskName::first(task.id);
        Line::new(task, name, verdict, AttemptEnd::for_good(name, Moment::now()))
    }

    fn answered() -> Line {
        let mut line =
            line(r#"{"model": "m", "prompt": "hi", "custom_id": "q-1"}"#, Verdict::Succeeded);
        line.answer = Some(Answer {
            model: "m:latest".into(),
            body: json!({"choices": [{"message": {"role": "assistant", "content": "a, \"b\""}}]}),
            prompt_tokens: Some(3),
            completion_tokens: None,
            load_seconds: None,
            first_token_seconds: None,
            seconds: 1.5,
            writing_seconds: None,
            flaw: None,
        });
        line
    }

    fn value(bytes: &[u8]) -> Value {
        assert_eq!(bytes.last(), Some(&b'\n'));
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn an_answer_is_a_line_of_openais_output() {
        let line = answered();
        let read = value(&Form::Openai.bytes(&line, true).unwrap());
        assert!(read["id"].as_str().unwrap().starts_with("batch_req_0"), "{read}");
        assert_eq!((&read["custom_id"], &read["error"]), (&json!("q-1"), &Value::Null));
        assert_eq!(read["response"]["status_code"], 200);
        assert_eq!(read["response"]["body"], line.answer.unwrap().body);
    }

    #[test]
    fn a_table_begins_with_its_columns_and_quotes_what_must_be() {
        let line = answered();
        let text = String::from_utf8(Form::Csv.bytes(&line, true).unwrap()).unwrap();
        let (head, row) = text.split_once('\n').unwrap();
        assert_eq!(head, COLUMNS.join(","));
        assert!(row.contains(r#","a, ""b""",3,,1.5,"#), "{row}");
        let next = Form::Csv.bytes(&line, false).unwrap();
        assert_eq!(String::from_utf8(next).unwrap(), row);
    }

    #[test]
    fn the_fields_of_objects_are_the_columns_of_the_table() {
        let fields = fields(&answered());
        let named: Vec<_> = fields.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(named, COLUMNS);
    }

    #[test]
    fn what_is_no_text_is_shown_as_it_is() {
        let mut line = answered();
        line.answer.as_mut().unwrap().body = json!({"data": [{"embedding": [0.5]}]});
        let read = value(&Form::Jsonl.bytes(&line, true).unwrap());
        assert_eq!(read["body"]["data"][0]["embedding"][0], 0.5);
        assert!(Form::Text.bytes(&line, true).unwrap().starts_with(b"{\"data\""));
    }

    #[test]
    fn commands_show_their_exit_code_and_log_and_are_no_answers() {
        let mut line = line(r#"{"shell": "x", "name": "part 1"}"#, Verdict::Succeeded);
        (line.exit_code, line.log_path) = (Some(0), Some("/runs/x.log".into()));
        assert_eq!(Form::for_task(&line), Form::Jsonl);
        assert!(Form::Openai.bytes(&line, true).is_none());
        let text = String::from_utf8(Form::Text.bytes(&line, true).unwrap()).unwrap();
        assert_eq!(text, format!("{} exit 0 /runs/x.log part 1\n", line.id.short()));
        let read = value(&Form::Jsonl.bytes(&line, true).unwrap());
        assert_eq!((&read["exit_code"], &read["state"]), (&json!(0), &json!("succeeded")));
    }

    #[test]
    fn a_failure_has_its_cause_as_code() {
        let mut line = line(
            r#"{"model": "m", "prompt": "hi", "custom_id": "q-2"}"#,
            Verdict::Refused(Cause::ModelMissing),
        );
        line.error_message = Some("model 'm' not found".into());
        let read = value(&openai_error(&line));
        assert_eq!(read["response"], Value::Null);
        assert_eq!(
            read["error"],
            json!({"code": "model_missing", "message": "model 'm' not found"})
        );
        assert!(failure(&line).ends_with(" q-2 failed (model_missing): model 'm' not found"));
    }
}
