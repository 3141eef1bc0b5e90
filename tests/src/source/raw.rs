//! Modules as they were parsed, before anything in them is resolved.

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
