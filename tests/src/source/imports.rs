//! What a module names of others: `use` declarations, and paths in its code, its macros included.

use std::collections::{BTreeMap, BTreeSet};

use quote::ToTokens as _;
use syn::Item;

use super::paths::paths;
use super::raw::{RawModules, is_called};
use super::uses::uses;
use super::{Import, ModulePath};

/// The names that a module's own `use` declarations bring in, and where those lead.
pub(super) struct Scope<'a> {
    all: &'a RawModules,
    here: &'a ModulePath,
    names: BTreeMap<String, ModulePath>,
    /// Those of other crates, which this workspace does not hold.
    outside: BTreeMap<String, ModulePath>,
    /// The modules of which it brings in everything.
    globs: Vec<ModulePath>,
}

/// Names that modules pass on, by the full path under which others know them. A private `use` passes
/// on, too: to the modules below.
pub(super) struct Exports<'a> {
    all: &'a RawModules,
    passed_on: BTreeMap<ModulePath, ModulePath>,
    /// The modules of which a module passes on everything.
    globs: BTreeMap<ModulePath, Vec<ModulePath>>,
}

/// Whether a module has a child or an item of this name itself.
fn defines(all: &RawModules, module: &[String], name: &str) -> bool {
    let child: ModulePath = module.iter().cloned().chain([name.to_owned()]).collect();
    all.contains_key(&child)
        || all.get(module).is_some_and(|raw| raw.items.iter().any(|item| is_called(item, name)))
}

impl<'a> Scope<'a> {
    pub(super) fn of(all: &'a RawModules, here: &'a ModulePath, items: &[Item]) -> Self {
        let mut scope =
            Self { all, here, names: BTreeMap::new(), outside: BTreeMap::new(), globs: Vec::new() };
        let (mut names, mut outside, mut globs) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for leaf in uses(items) {
            match scope.resolve(&leaf.words) {
                Some(path) if leaf.name == "*" => globs.push(path),
                Some(path) => drop(names.insert(leaf.name, path)),
                None => drop(outside.insert(leaf.name, leaf.words)),
            }
        }
        (scope.names, scope.outside, scope.globs) = (names, outside, globs);
        scope
    }

    /// What is defined in this module itself.
    pub(super) fn own(&self, name: &str) -> Import {
        Import { module: self.here.clone(), item: Some(name.to_owned()) }
    }

    /// The full path that a path in this module means. `None` where it is nothing of the workspace.
    pub(super) fn resolve(&self, words: &[String]) -> Option<ModulePath> {
        let (first, rest) = words.split_first()?;
        let mut path = match first.as_str() {
            "crate" => vec![self.here[0].clone()],
            "self" => self.here.clone(),
            "super" => self.here[..self.here.len() - 1].to_vec(),
            name => {
                let child: ModulePath = self.here.iter().cloned().chain([name.into()]).collect();
                if self.all.contains_key(&child) {
                    child
                } else if let Some(known) = self.names.get(name) {
                    known.clone()
                } else if self.all.contains_key(std::slice::from_ref(first)) {
                    vec![name.to_owned()]
                } else {
                    let from = self.globs.iter().find(|from| defines(self.all, from, name))?;
                    from.iter().cloned().chain([name.to_owned()]).collect()
                }
            }
        };
        for word in rest {
            if word == "super" {
                path.pop();
            } else {
                path.push(word.clone());
            }
        }
        Some(path)
    }
}

impl Scope<'_> {
    /// The full path that a path in this module means, in whichever crate.
    fn full(&self, words: &[String]) -> ModulePath {
        let outside = || {
            let (first, rest) = words.split_first()?;
            Some(self.outside.get(first)?.iter().chain(rest).cloned().collect())
        };
        self.resolve(words).or_else(outside).unwrap_or_else(|| words.to_owned())
    }
}

impl<'a> Exports<'a> {
    pub(super) fn of(all: &'a RawModules) -> Self {
        let (mut passed_on, mut globs) = (BTreeMap::new(), BTreeMap::<_, Vec<_>>::new());
        for (here, raw) in all {
            let scope = Scope::of(all, here, &[]);
            for leaf in uses(&raw.items) {
                let Some(path) = scope.resolve(&leaf.words) else { continue };
                if leaf.name == "*" {
                    globs.entry(here.clone()).or_default().push(path);
                } else {
                    passed_on.insert(here.iter().cloned().chain([leaf.name]).collect(), path);
                }
            }
        }
        Self { all, passed_on, globs }
    }

    /// What a name stands for that its module passes on.
    fn target(&self, known: &[String]) -> Option<ModulePath> {
        if let Some(target) = self.passed_on.get(known) {
            return Some(target.clone());
        }
        let (name, module) = known.split_last()?;
        if defines(self.all, module, name) {
            return None;
        }
        let from = self.globs.get(module)?.iter().find(|from| defines(self.all, from, name))?;
        Some(from.iter().cloned().chain([name.clone()]).collect())
    }

    /// Where what a full path names is defined, and what it is called there.
    pub(super) fn definition(&self, path: &[String]) -> Import {
        let mut path = path.to_vec();
        // Re-exports of re-exports, but no endless ones.
        for _ in 0..8 {
            let known = (1..=path.len()).rev().find_map(|length| {
                let target = self.target(&path[..length])?;
                (!self.all.contains_key(&path[..length])).then_some((length, target))
            });
            let Some((length, target)) = known else { break };
            path = target.iter().chain(&path[length..]).cloned().collect();
        }
        let length = (1..=path.len()).rev().find(|length| self.all.contains_key(&path[..*length]));
        let length = length.unwrap_or(0);
        Import { module: path[..length].to_vec(), item: path.get(length).cloned() }
    }
}

/// Everything that a module names of the workspace, each once.
pub(super) fn imports(scope: &Scope<'_>, exports: &Exports<'_>, items: &[Item]) -> Vec<Import> {
    let mut named = BTreeSet::new();
    all_paths(items, &mut |words| named.extend(scope.resolve(words)));
    let all = named.into_iter().map(|path| exports.definition(&path));
    let others = all.filter(|import| !import.module.is_empty() && import.module != *scope.here);
    others.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Every full path that a module names, of whichever crate, each once.
pub(super) fn names(scope: &Scope<'_>, items: &[Item]) -> Vec<String> {
    let mut named = BTreeSet::new();
    all_paths(items, &mut |words| {
        named.insert(scope.full(words).join("::"));
    });
    named.into_iter().collect()
}

/// Shows each path in a module's `use` declarations, and each of two words or more in its code.
fn all_paths(items: &[Item], see: &mut impl FnMut(&[String])) {
    for leaf in uses(items) {
        match leaf.words.as_slice() {
            // All of it.
            words if leaf.name == "*" => see(&[words, &["*".to_owned()]].concat()),
            words => see(words),
        }
    }
    for item in items.iter().filter(|item| !matches!(item, Item::Use(_) | Item::Mod(_))) {
        paths(item.to_token_stream(), see);
    }
}
