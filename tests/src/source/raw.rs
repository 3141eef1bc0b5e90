//! Modules as they were parsed, before anything in them is resolved.
#![expect(clippy::wildcard_enum_match_arm, reason = "syn's enums list all of Rust, and grow")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use syn::Item;

use super::ModulePath;

/// A module's file and its own items.
pub(super) struct Raw {
    pub(super) file: PathBuf,
    pub(super) is_test: bool,
    pub(super) items: Vec<Item>,
}

/// All modules of all targets, by their paths.
pub(super) type RawModules = BTreeMap<ModulePath, Raw>;

/// Whether an item defines this name.
pub(super) fn is_called(item: &Item, name: &str) -> bool {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return false,
    };
    ident == name
}
