//! Templates for prompts: text with `{column}` in it. Pure: no file, no pool.

use serde_json::{Map, Value};
use shared::name::nearest;
use shared::task::BadSpec;

/// A template that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Column(String),
}

impl Template {
    /// Reads a template. `{{` and `}}` stand for braces.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (mut parts, mut plain) = (Vec::new(), String::new());
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            let after = &rest[at + 1..];
            if let Some(after) = after.strip_prefix(brace) {
                plain.push_str(brace);
                rest = after;
                continue;
            }
            if brace == "}" {
                return Err("a `}` without `{`; write `}}` for a brace".to_owned());
            }
            let Some(end) = after.find(['{', '}']).filter(|end| after[*end..].starts_with('}'))
            else {
                return Err("a `{` without `}`; write `{{` for a brace".to_owned());
            };
            let column = after[..end].trim();
            if column.is_empty() {
                return Err("`{}` names no column".to_owned());
            }
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Column(column.to_owned()));
            rest = &after[end + 1..];
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self(parts))
    }

    /// Whether these columns are all that it names.
    pub(super) fn check(&self, columns: &[String]) -> Result<(), String> {
        let named = self.0.iter().filter_map(|part| match part {
            Part::Column(name) => Some(name),
            Part::Text(_) => None,
        });
        for name in named {
            if !columns.contains(name) {
                return Err(unknown(name, columns.iter().map(String::as_str)));
            }
        }
        Ok(())
    }

    /// The text for one row.
    pub(super) fn fill(&self, row: &Map<String, Value>) -> Result<String, BadSpec> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Column(name) => {
                    let missing =
                        || super::bad(name, &unknown(name, row.keys().map(String::as_str)));
                    text.push_str(&text_of(row.get(name).ok_or_else(missing)?));
                }
            }
        }
        Ok(text)
    }
}

/// What identifies a row's answer, if the row says so.
pub(super) fn custom_id(row: &Map<String, Value>) -> Option<String> {
    let value = row.get("custom_id").or_else(|| row.get("id"))?;
    Some(text_of(value)).filter(|text| !text.is_empty())
}

/// A value as it stands in a sentence.
fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

fn unknown<'a>(name: &str, columns: impl Iterator<Item = &'a str>) -> String {
    let columns: Vec<&str> = columns.collect();
    let hint = nearest(name, &columns).map(|near| format!("did you mean `{near}`? "));
    let (name, hint) = (name.escape_default(), hint.unwrap_or_default());
    format!("there is no column `{name}`; {hint}there are {}", columns.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fill(template: &str, row: &Value) -> Result<String, String> {
        let row = row.as_object().unwrap();
        Template::parse(template)?.fill(row).map_err(|bad| bad.to_string())
    }

    #[test]
    fn columns_are_filled_in_and_doubled_braces_are_braces() {
        let row = json!({"title": "Rust", "n": 3, "tags": ["a"], "no": null});
        assert_eq!(fill("{title}: {n}", &row), Ok("Rust: 3".into()));
        assert_eq!(fill("{{\"a\": \"{ title }\"}}", &row), Ok("{\"a\": \"Rust\"}".into()));
        assert_eq!(fill("{tags}{no}.", &row), Ok("[\"a\"].".into()));
        assert_eq!(fill("plain", &row), Ok("plain".into()));
        // What is filled in is not read as a template again.
        assert_eq!(fill("{a}", &json!({"a": "{b}"})), Ok("{b}".into()));
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for (template, wrong) in [
            ("a { b", "a `{` without `}`"),
            ("a } b", "a `}` without `{`"),
            ("{}", "names no column"),
            ("{a{b}}", "a `{` without `}`"),
        ] {
            let told = Template::parse(template).unwrap_err();
            assert!(told.contains(wrong), "{told}");
        }
    }

    #[test]
    fn an_unknown_column_is_named_with_those_that_there_are() {
        let columns = ["title".to_owned(), "text".to_owned()];
        let told = Template::parse("{titel}").unwrap().check(&columns).unwrap_err();
        assert_eq!(told, "there is no column `titel`; did you mean `title`? there are title, text");
        assert!(
            fill("{x}", &json!({"y": 1})).unwrap_err().contains("field `x`: there is no column")
        );
    }

    #[test]
    fn rows_name_their_answers() {
        let id = |row: Value| custom_id(row.as_object().unwrap());
        assert_eq!(id(json!({"custom_id": "a", "id": "b"})).as_deref(), Some("a"));
        assert_eq!(id(json!({"id": 7})).as_deref(), Some("7"));
        assert_eq!(id(json!({"id": "", "x": 1})), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,60}") {
            let _ = Template::parse(&text);
        }
    }
}
