//! Reading a task object, so that every error says in plain words which field is wrong and how.

use std::fmt;

use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::bad_spec::BadSpec;
use super::depth::too_deep;
use super::parse;
use super::spec::{SPEC_FIELDS, Spec};
use crate::name::nearest;
use crate::text::without_bom;

/// Reads an object whose fields are those of a [`Spec`] and `more`.
pub(super) fn parse_fields<T: DeserializeOwned>(bytes: &[u8], more: &[&str]) -> Result<T, BadSpec> {
    let bytes = without_bom(bytes);
    // What is wrong is only looked for where something is: a worker reads a task for each claim.
    let quickly = || {
        let names: Names<'_> = serde_json::from_slice(bytes).ok()?;
        if !names.are_fields(more) {
            return None;
        }
        serde_json::from_slice(bytes).ok()
    };
    quickly().map_or_else(|| from_fields(object(bytes)?, more), Ok)
}

/// The same for an object that was read.
pub(super) fn from_fields<T: DeserializeOwned>(
    fields: Map<String, Value>,
    more: &[&str],
) -> Result<T, BadSpec> {
    if let Some(key) = fields.keys().find(|key| !is_field(key, more)) {
        return Err(unknown_field(key));
    }
    let whole = Value::Object(fields);
    T::deserialize(&whole).map_err(|err| {
        guilty_field(&whole, more).unwrap_or_else(|| BadSpec {
            line: None,
            field: None,
            problem: plain(&err),
        })
    })
}

fn is_field(name: &str, more: &[&str]) -> bool {
    SPEC_FIELDS.contains(&name) || more.contains(&name)
}

/// Which field is wrong, and how: found by reading them one by one, which is only worth its time
/// where something is.
fn guilty_field(fields: &Value, more: &[&str]) -> Option<BadSpec> {
    let own = fields.as_object()?.iter().filter(|(key, _value)| !more.contains(&key.as_str()));
    let mut errors = own.filter_map(|(key, value)| {
        let one = Map::from_iter([(key.clone(), value.clone())]);
        let err = serde_json::from_value::<Spec>(Value::Object(one)).err()?;
        Some(BadSpec::field(key, plain(&err)))
    });
    errors.next()
}

/// Reads a JSON object, in which no name is there twice.
pub(super) fn object(bytes: &[u8]) -> Result<Map<String, Value>, BadSpec> {
    let bytes = without_bom(bytes);
    // The end of a text is where its last word ends, not the line behind it.
    let fields: Fields = serde_json::from_slice(bytes.trim_ascii_end()).map_err(|err| {
        if err.is_data() {
            return BadSpec { line: None, field: None, problem: "not a JSON object".into() };
        }
        let not_json = || format!("not JSON: {} (column {})", plain(&err), err.column());
        let problem = too_deep(bytes).unwrap_or_else(not_json);
        BadSpec { line: Some(err.line()), field: None, problem }
    })?;
    let mut object = Map::new();
    for (key, value) in fields.0 {
        if object.contains_key(&key) {
            return Err(BadSpec::field(&key, "is given twice"));
        }
        object.insert(key, value);
    }
    Ok(object)
}

/// The fields as they are written: a name that is there twice is seen twice.
struct Fields(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct All;

        impl<'de> Visitor<'de> for All {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        from.deserialize_map(All)
    }
}

/// The names in an object, as they are written; an error where one holds an escape.
struct Names<'a>(Vec<&'a str>);

impl Names<'_> {
    /// Whether each is that of a field, and there once.
    fn are_fields(&self, more: &[&str]) -> bool {
        let Self(names) = self;
        let once = |(index, name): (usize, &&str)| !names[..index].contains(name);
        names.iter().all(|name| is_field(name, more)) && names.iter().enumerate().all(once)
    }
}

impl<'de> Deserialize<'de> for Names<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct All;

        impl<'de> Visitor<'de> for All {
            type Value = Names<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names<'de>, A::Error> {
                let mut names = Vec::new();
                while let Some((name, _value)) = map.next_entry::<&str, IgnoredAny>()? {
                    names.push(name);
                }
                Ok(Names(names))
            }
        }
        from.deserialize_map(All)
    }
}

fn unknown_field(key: &str) -> BadSpec {
    let known: Vec<&str> = SPEC_FIELDS.to_vec();
    let hint = nearest(key, &known).map(|near| format!("; did you mean `{near}`?"));
    BadSpec::field(key, format!("there is no such field{}", hint.unwrap_or_default()))
}

/// The words of serde and of this language, and those of the people who write task files.
const WORDS: &[(&str, &str)] = &[
    ("invalid type: ", ""),
    ("invalid value: ", ""),
    ("expected u8", "expected a small whole number"),
    ("expected u32", "expected a whole number"),
    ("expected a sequence", "expected a list"),
    ("expected a map", "expected an object"),
    ("expected a boolean", "expected true or false"),
    (
        "data did not match any variant of untagged enum After",
        "expected an id or a name, or {\"id\": …, \"on\": …}",
    ),
];

/// What is wrong, without the place, which is told apart.
fn plain(err: &serde_json::Error) -> String {
    let mut text = err.to_string();
    let place = format!(" at line {} column {}", err.line(), err.column());
    if let Some(cut) = text.strip_suffix(&place) {
        text.truncate(cut.len());
    }
    for (theirs, ours) in WORDS {
        text = text.replace(theirs, ours);
    }
    text
}

/// Reads one task object (a line of `--batch`).
pub fn parse_spec(bytes: &[u8]) -> Result<Spec, BadSpec> {
    let spec: Spec = parse::parse_fields(bytes, &[])?;
    spec.check()?;
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use crate::task::parse_spec;

    fn error(text: &str) -> String {
        parse_spec(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn the_place_of_broken_json_is_told_once_and_is_where_the_text_ends() {
        let words = "line 1: not JSON: EOF while parsing an object (column 16)";
        assert_eq!(error("{\"shell\": \"true\""), words);
        assert_eq!(error("{\"shell\": \"true\"\n"), words, "as a line of a file");
        assert_eq!(
            error("{\"shell\": true,\n 7}"),
            "line 2: not JSON: key must be a string (column 2)"
        );
    }

    #[test]
    fn a_field_given_twice_is_not_silently_the_last_one() {
        assert_eq!(
            error(r#"{"shell": "true", "shell": "rm -r work"}"#),
            "field `shell`: is given twice"
        );
    }

    #[test]
    fn types_are_named_in_the_words_of_people() {
        for (text, words) in [
            (
                r#""priority": "high""#,
                "field `priority`: string \"high\", expected a small whole number",
            ),
            (
                r#""priority": 300"#,
                "field `priority`: integer `300`, expected a small whole number",
            ),
            (r#""command": "ls -l""#, "field `command`: string \"ls -l\", expected a list"),
            (r#""env": ["A=b"]"#, "field `env`: sequence, expected an object"),
            (r#""hold": 1"#, "field `hold`: integer `1`, expected true or false"),
            (
                r#""after": [7]"#,
                "field `after`: expected an id or a name, or {\"id\": …, \"on\": …}",
            ),
        ] {
            assert_eq!(error(&format!("{{{text}}}")), words);
        }
    }
}
