//! Writing a limit into `pool.toml`, which people edit too: their comments, their order and what
//! they wrote of other settings stay as they are.

use std::fs;
use std::path::Path;

use shared::settings::{Flags, Settings};
use toml_edit::{DocumentMut, Item, Table, TableLike, Value, value};

use crate::Error;
use crate::dir::disk::lock::Lock;
use crate::dir::disk::publish::{self, Durability};
use crate::dir::layout::Layout;
use crate::error::{At as _, OrGone as _};

/// Sets a limit, or takes it out. Returns what the file said of it before. Those who change it at
/// once take turns.
pub fn set_limit(layout: &Layout, key: &str, allowed: Option<u32>) -> Result<Option<u32>, Error> {
    // No key's directory: that has a `=` in its name.
    let _turn = Lock::wait(&layout.limit_locks().join("pool.toml.lock"))?;
    let named = layout.root().join("pool.toml");
    // Where it is a link the file that it names is written, and the link stays.
    let path = fs::canonicalize(&named).at("find", &named).or_gone()?.unwrap_or(named);
    let text = fs::read_to_string(&path).at("read", &path).or_gone()?.unwrap_or_default();
    let garbled = |problem| Error::Garbled { path: path.clone(), problem };
    let before = read(&path, &text).map_err(garbled)?.limits.0.get(key).copied();
    if before == allowed {
        return Ok(before);
    }
    let text = edited(&text, key, allowed).map_err(garbled)?;
    // What it says now must be what was meant, or nobody could start anything any more.
    if read(&path, &text).map_err(garbled)?.limits.0.get(key).copied() != allowed {
        return Err(garbled(format!("`{key}` cannot be set there; write it by hand")));
    }
    publish::replace(&path, text.as_bytes(), Durability::Flushed)?;
    Ok(before)
}

fn read(path: &Path, text: &str) -> Result<Settings, String> {
    Settings::read(path, text, |_variable| None, &Flags::new()).map_err(|err| err.to_string())
}

/// The text with another limit.
fn edited(text: &str, key: &str, allowed: Option<u32>) -> Result<String, String> {
    let mut toml: DocumentMut =
        text.parse().map_err(|err: toml_edit::TomlError| err.to_string())?;
    let limits = toml.entry("limits").or_insert_with(toml_edit::table);
    let limits = limits.as_table_like_mut().ok_or("`limits` is no table there")?;
    match allowed {
        Some(allowed) => put(limits, key, i64::from(allowed)),
        None => {
            if let Some(comments) = take_out(limits, key) {
                keep_below(&mut toml, &comments);
            }
        }
    }
    Ok(toml.to_string())
}

/// What stands behind the number in its line stays there.
fn put(limits: &mut dyn TableLike, key: &str, allowed: i64) {
    match limits.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            let decor = old.decor().clone();
            *old = Value::from(allowed);
            *old.decor_mut() = decor;
        }
        None => drop(limits.insert(key, value(allowed))),
    }
}

/// Takes a line out. Comments above it may be about the lines below: they go to the next line, or,
/// where this was the last one, are returned.
fn take_out(limits: &mut dyn TableLike, key: &str) -> Option<String> {
    let comments = limits.key(key)?.leaf_decor().prefix()?.as_str()?.to_owned();
    let below = limits.iter().map(|(name, _item)| name.to_owned()).skip_while(|name| name != key);
    let next = below.skip(1).find(|_any| true);
    limits.remove(key);
    if !comments.contains('#') {
        return None;
    }
    let Some(mut next) = next.and_then(|next| limits.key_mut(&next)) else { return Some(comments) };
    let own = next.leaf_decor().prefix().and_then(|own| own.as_str()).unwrap_or_default();
    let both = format!("{comments}{own}");
    next.leaf_decor_mut().set_prefix(both);
    None
}

/// Puts comments behind the table of limits: above the next table, or at the end.
fn keep_below(toml: &mut DocumentMut, comments: &str) {
    let position = |item: &Item| item.as_table().and_then(Table::position);
    let own = toml.get("limits").and_then(position);
    let tables = toml.iter_mut().filter_map(|(_name, item)| item.as_table_mut());
    let below = tables.filter(|table| table.position() > own);
    match below.min_by_key(|table| table.position()) {
        Some(next) => {
            let own = next.decor().prefix().and_then(|own| own.as_str()).unwrap_or_default();
            let both = format!("{comments}{own}");
            next.decor_mut().set_prefix(both);
        }
        None => {
            let end = toml.trailing().as_str().unwrap_or_default();
            let both = format!("{comments}{end}");
            toml.set_trailing(both);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: &str = "\
# The lab's pool.
disk_low = \"1GiB\" # as agreed

[limits] # ask Ann first
# people
\"user=ann\" = 2 # until June
\"user=bob\" = 1
# the big one
\"model=qwen2.5:7b\" = 1

# classes
[stall_timeout]
cpu = \"15m\"
# the end
";

    #[test]
    fn only_the_line_of_the_limit_changes() {
        let set = |key, n| edited(WRITTEN, key, Some(n)).unwrap();
        assert_eq!(set("user=ann", 3), WRITTEN.replace("ann\" = 2", "ann\" = 3"));
        let new = "\"model=qwen2.5:7b\" = 1\n\"label=room:1\" = 4\n";
        assert_eq!(set("label=room:1", 4), WRITTEN.replace("\"model=qwen2.5:7b\" = 1\n", new));
    }

    #[test]
    fn comments_survive_the_line_below_them() {
        let off = |key| edited(WRITTEN, key, None).unwrap();
        let without = |line: &str| WRITTEN.replace(line, "");
        assert_eq!(off("user=ann"), without("\"user=ann\" = 2 # until June\n"));
        assert_eq!(off("user=bob"), without("\"user=bob\" = 1\n"));
        assert_eq!(off("model=qwen2.5:7b"), without("\"model=qwen2.5:7b\" = 1\n"));
        let last = "# people\n[limits]\n# a\n\"user=ann\" = 1\n# end\n";
        let expected = "# people\n[limits]\n# a\n# end\n";
        assert_eq!(edited(last, "user=ann", None).unwrap(), expected);
    }

    #[test]
    fn every_way_to_write_the_table_can_be_edited() {
        let set = |text| edited(text, "user=ann", Some(3)).unwrap();
        assert_eq!(set(""), "[limits]\n\"user=ann\" = 3\n");
        let more = "idle_poll = \"1s\"\n";
        assert_eq!(set(more), format!("{more}\n[limits]\n\"user=ann\" = 3\n"));
        let inline = "limits = { \"user=ann\" = 2, \"user=bob\" = 1 }\n";
        assert_eq!(set(inline), inline.replace('2', "3"));
        assert_eq!(edited(inline, "user=ann", None).unwrap(), "limits = { \"user=bob\" = 1 }\n");
        let dotted = "limits.\"user=ann\" = 2 # x\n";
        assert_eq!(set(dotted), dotted.replace('2', "3"));
        assert!(edited("limits = 3", "user=ann", Some(1)).is_err());
    }
}
