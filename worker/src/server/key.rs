//! The key that a server may ask for. It comes from a variable or a file that is the worker's
//! alone, goes into requests, and is shown nowhere: not in messages, not when it is debugged.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use serde_json::Value;
use shared::llm::Refused;
use shared::settings::Settings;

/// What stands where the key stood.
const HIDDEN: &str = "[the key]";
/// What stands where a text of the server's was cut, or ended: see [`super::lines::shown`].
const ENDS: [char; 2] = ['…', '`'];
/// Fewer letters of a key that was cut say nothing yet.
const BEGINNING: usize = 4;
/// A longer file is no key.
const LONGEST: u64 = 16 * 1024;

/// A key: one word of ASCII letters, digits and signs.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// The key that the settings name, where they name one that is there.
    ///
    /// # Errors
    /// When it cannot be read, others can read it, or it is no key; never with the key itself.
    pub fn find(
        settings: &Settings,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, String> {
        if let Some(path) = &settings.api_key_file {
            return read(path)
                .and_then(|text| Self::parse(&text))
                .map(Some)
                .map_err(|problem| format!("api_key_file {}: {problem}", path.display()));
        }
        let variable = &settings.api_key_variable;
        match environment(variable).filter(|text| !text.trim().is_empty()) {
            None => Ok(None),
            Some(text) => {
                Self::parse(&text).map(Some).map_err(|problem| format!("${variable}: {problem}"))
            }
        }
    }

    /// A key as somebody wrote it down.
    ///
    /// # Errors
    /// When it cannot stand in a request.
    pub fn parse(text: &str) -> Result<Self, String> {
        let key = text.trim();
        if key.is_empty() {
            return Err("it holds no key".to_owned());
        }
        if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("it holds more than a key: one word of ASCII letters is one".to_owned());
        }
        Ok(Self(key.to_owned()))
    }

    /// What a request carries.
    pub(super) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// A text that may repeat what a server said, without the key; nor with the beginning of one,
    /// where what it said was cut or ended.
    /// The same in what a server answered.
    pub(super) fn hide_in(&self, mut refused: Refused) -> Refused {
        self.hide_within(&mut refused.body);
        refused
    }

    fn hide_within(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.hide(text),
            Value::Array(values) => values.iter_mut().for_each(|value| self.hide_within(value)),
            Value::Object(map) => map.values_mut().for_each(|value| self.hide_within(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    pub(super) fn hide(&self, text: &str) -> String {
        let whole = text.replace(&self.0, HIDDEN);
        let mut hidden = String::with_capacity(whole.len());
        for piece in whole.split_inclusive(ENDS) {
            let said = piece.trim_end_matches(ENDS);
            let mut lengths = (BEGINNING..self.0.len()).rev();
            match lengths.find_map(|length| said.strip_suffix(self.0.get(..length)?)) {
                Some(before) => hidden.extend([before, HIDDEN, &piece[said.len()..]]),
                None => hidden.push_str(piece),
            }
        }
        hidden
    }
}

fn read(path: &Path) -> Result<String, String> {
    let mut options = File::options();
    // A FIFO would make whoever opens it wait.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let opened = options.read(true).custom_flags(flags).open(path);
    let file = opened.map_err(|error| format!("cannot be opened: {error}"))?;
    let meta = file.metadata().map_err(|error| format!("cannot be looked at: {error}"))?;
    if !meta.is_file() {
        return Err("is no file".to_owned());
    }
    if meta.mode() & 0o077 != 0 {
        return Err("others may read it; `chmod 600` it".to_owned());
    }
    let mut text = String::new();
    let read = file.take(LONGEST).read_to_string(&mut text);
    read.map_err(|error| format!("cannot be read: {error}"))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_comes_from_the_file_that_is_named_else_from_the_variable() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let write = |text: &str, mode| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        };
        let environment = |name: &str| (name == "MY_KEY").then(|| "from-variable".to_owned());
        let find = |settings: &Settings| Key::find(settings, environment);
        let mut settings = Settings::default();
        assert_eq!(find(&settings), Ok(None));
        settings.api_key_variable = "MY_KEY".to_owned();
        assert_eq!(find(&settings), Key::parse("from-variable").map(Some));
        settings.api_key_file = Some(path.clone());
        write("from-file\n", 0o600);
        assert_eq!(find(&settings), Key::parse("from-file").map(Some));
        for (text, mode, told) in [
            ("secret", 0o640, "chmod 600"),
            ("", 0o600, "holds no key"),
            ("secret words", 0o600, "more than a key"),
        ] {
            write(text, mode);
            let error = find(&settings).unwrap_err();
            let path = path.display().to_string();
            assert!(error.contains(told) && error.contains(&path), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        settings.api_key_file = Some(dir.path().to_owned());
        assert!(find(&settings).unwrap_err().contains("is no file"));
    }

    #[test]
    fn a_key_is_not_shown() {
        let key = Key::parse(" abc-123 ").unwrap();
        assert_eq!(key.header(), "Bearer abc-123");
        assert_eq!(format!("{key:?} {:?}", Some(&key)), "Key Some(Key)");
        for (said, hidden) in [
            ("Incorrect key: abc-123.", "Incorrect key: [the key]."),
            ("not JSON: `key abc-123`", "not JSON: `key [the key]`"),
            ("not JSON: `key abc-1…`, abc-1 x", "not JSON: `key [the key]…`, abc-1 x"),
            ("in the middle of a line: `abc-12`", "in the middle of a line: `[the key]`"),
            ("it is `abc`, not ab…", "it is `abc`, not ab…"),
        ] {
            assert_eq!(key.hide(said), hidden);
        }
    }
}
