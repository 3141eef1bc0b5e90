//! A batch's line as it is known by: in the words that the first version wrote, whatever the order
//! of the names in it. They must never change, or what was submitted under a key runs again.

use serde_json::{Map, Number, Value};
use shared::task::Spec;

/// The text that stands for a line.
pub(super) fn of(spec: &Spec) -> Vec<u8> {
    let mut spec = spec.clone();
    spec.options.iter_mut().for_each(canonical_map);
    spec.format.iter_mut().for_each(canonical);
    spec.request.iter_mut().for_each(|request| canonical_map(&mut request.body));
    serde_json::to_vec(&spec).expect("a task has only string keys")
}

fn canonical_map(map: &mut Map<String, Value>) {
    map.sort_keys();
    map.values_mut().for_each(canonical);
}

/// Names in their order, numbers as the first version read them.
fn canonical(value: &mut Value) {
    match value {
        Value::Object(map) => canonical_map(map),
        Value::Array(values) => values.iter_mut().for_each(canonical),
        Value::Number(number) => {
            let read = number.is_f64().then(|| as_first_read(&number.to_string())).flatten();
            *number = read.and_then(Number::from_f64).unwrap_or_else(|| number.clone());
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// A number with a fraction or an exponent, as it was read before numbers kept their last digit:
/// the digits as one whole number, times or by a power of ten, each step rounded. `None` where that
/// is none.
fn as_first_read(text: &str) -> Option<f64> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let mut exponent: i32 = exponent.parse().ok()?;
    let (mut whole, mut after_point, mut full) = (0_u64, false, false);
    for letter in digits.chars() {
        let Some(digit) = letter.to_digit(10) else {
            after_point = true;
            continue;
        };
        let longer = whole.checked_mul(10).and_then(|whole| whole.checked_add(digit.into()));
        match longer.filter(|_longer| !full) {
            Some(longer) => {
                whole = longer;
                exponent -= i32::from(after_point);
            }
            // What does not fit any more only counts for how large the number is.
            None => {
                full = true;
                exponent += i32::from(!after_point);
            }
        }
    }
    let size = scale(whole, exponent)?;
    Some(if negative { -size } else { size })
}

/// `whole` times ten to the power of `exponent`, by at most 308 powers at once.
#[expect(clippy::cast_precision_loss, reason = "that is how it was read")]
fn scale(whole: u64, mut exponent: i32) -> Option<f64> {
    const MOST: i32 = 308;
    let mut number = whole as f64;
    while exponent < -MOST && number != 0.0 {
        number /= 1e308;
        exponent += MOST;
    }
    let power: f64 = format!("1e{}", exponent.unsigned_abs()).parse().ok()?;
    number = if exponent < 0 { number / power } else { number * power };
    number.is_finite().then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::submit::resume::Twins;
    use shared::task::parse_line;

    /// What these lines are known by since the first version.
    #[test]
    fn what_a_line_is_known_by_never_changes_whatever_the_order_of_its_names() {
        for (line, reordered, key) in [
            (
                r#"{"shell": "a", "env": {"Z": "1", "A": "2"}, "labels": {"z": "1", "a": "2"}, "class": "cpu"}"#,
                r#"{"class": "cpu", "labels": {"a": "2", "z": "1"}, "env": {"A": "2", "Z": "1"}, "shell": "a"}"#,
                269_267_240_524_336_910_646_847_259_893_812_049_405_u128,
            ),
            (
                r#"{"prompt": "hi", "options": {"temperature": 0.30000000000000004, "seed": 9007199254740993, "num_ctx": 4096}, "format": {"type": "object", "properties": {"reasoning": {"type": "string"}, "answer": {"type": "number"}}}}"#,
                r#"{"options": {"seed": 9007199254740993, "num_ctx": 4096, "temperature": 0.30000000000000004}, "format": {"properties": {"answer": {"type": "number"}, "reasoning": {"type": "string"}}, "type": "object"}, "prompt": "hi"}"#,
                94_821_963_552_815_745_658_771_524_923_992_867_542,
            ),
            (
                r#"{"prompt": "hi", "options": {"top_p": 1.7976931348623157e308, "min_p": 5e-324, "x": 0.1234567890123456789, "y": 1e5, "z": 2.5}}"#,
                r#"{"prompt": "hi", "options": {"z": 2.5, "top_p": 1.7976931348623157e308, "min_p": 5e-324, "x": 0.1234567890123456789, "y": 1e5}}"#,
                175_639_480_102_257_320_726_511_869_905_802_616_828,
            ),
            (
                r#"{"request": {"url": "/v1/embeddings", "body": {"input": ["b", "a"], "dimensions": 7, "user": "u"}}, "model": "e"}"#,
                r#"{"model": "e", "request": {"body": {"user": "u", "dimensions": 7, "input": ["b", "a"]}, "url": "/v1/embeddings"}}"#,
                123_514_875_914_939_042_406_334_505_937_517_219_410,
            ),
        ] {
            for text in [line, reordered] {
                let spec = parse_line(text.as_bytes(), Some("m0")).unwrap();
                let known = Twins::default().key_of(&spec).to_string();
                assert_eq!(known, format!("{key:032x}"), "{text}");
            }
        }
    }

    #[test]
    fn a_number_is_read_as_it_was_before_it_kept_its_last_digit() {
        // Read exactly, and as the first version read it.
        for (text, first) in [
            ("0.7", 0.7),
            ("-2.5", -2.5),
            ("100000.0", 100_000.0),
            ("1e300", 1e300),
            ("5e-324", 5e-324),
            ("123456789012345678901234.5", 1.234_567_890_123_456_7e23),
        ] {
            assert_eq!(as_first_read(text), Some(first), "{text}");
        }
        assert_eq!(as_first_read("1e999"), None);
    }
}
