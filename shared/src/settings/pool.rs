//! Where the pool is: the one setting that cannot stand in `pool.toml`.

use std::path::{Path, PathBuf};

use super::Origin;

/// Nothing says where the pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no pool: give --pool DIR or set BRAINSTEM_POOL (neither XDG_STATE_HOME nor HOME is set, so \
     there is no default)"
)]
pub struct NoPoolDir;

/// The pool's directory and what says so: `--pool`, else `$BRAINSTEM_POOL`, else
/// `$XDG_STATE_HOME/brainstem`, else `~/.local/state/brainstem`.
pub fn pool_dir(
    flag: Option<&Path>,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<(PathBuf, Origin), NoPoolDir> {
    let set = |name: &str| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(dir) = flag {
        return Ok((dir.to_owned(), Origin::Flag));
    }
    if let Some(dir) = set("BRAINSTEM_POOL") {
        return Ok((dir, Origin::Environment("BRAINSTEM_POOL")));
    }
    // The standard says that a relative path here is to be ignored.
    let state = set("XDG_STATE_HOME").filter(|dir| dir.is_absolute());
    let state = state.or_else(|| set("HOME").map(|home| home.join(".local/state")));
    state.map(|state| (state.join("brainstem"), Origin::Default)).ok_or(NoPoolDir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(flag: Option<&str>, set: &[(&str, &str)]) -> Result<(PathBuf, Origin), NoPoolDir> {
        let environment = |name: &str| {
            set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        pool_dir(flag.map(Path::new), environment)
    }

    #[test]
    fn the_nearest_word_on_where_the_pool_is_counts() {
        let all = [("HOME", "/h"), ("XDG_STATE_HOME", "/x"), ("BRAINSTEM_POOL", "p")];
        let dir = |flag, set| found(flag, set).map(|(dir, _)| dir.display().to_string());
        assert_eq!(dir(Some("f"), &all), Ok("f".into()));
        assert_eq!(found(None, &all).unwrap().1, Origin::Environment("BRAINSTEM_POOL"));
        assert_eq!(dir(None, &all[..2]), Ok("/x/brainstem".into()));
        assert_eq!(dir(None, &all[..1]), Ok("/h/.local/state/brainstem".into()));
        let relative = [("HOME", "/h"), ("XDG_STATE_HOME", "x"), ("BRAINSTEM_POOL", "")];
        assert_eq!(dir(None, &relative), Ok("/h/.local/state/brainstem".into()));
        assert_eq!(dir(None, &[]), Err(NoPoolDir));
    }
}
