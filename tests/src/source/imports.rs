//! What a module names of others: `use` declarations, and paths in its code, its macros included.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::{Item, UseTree, Visibility};

use super::raw::RawModules;
use super::{Import, ModulePath};

/// The names that a module's own `use` declarations bring in, and where those lead.
pub(super) struct Scope<'a> {
    all: &'a RawModules,
    here: &'a ModulePath,
    names: BTreeMap<String, ModulePath>,
    /// Those of other crates, which this workspace does not hold.
    outside: BTreeMap<String, ModulePath>,
}

/// Names that modules pass on: `pub use`, by the full path under which others know them.
pub(super) struct Exports<'a> {
    all: &'a RawModules,
    passed_on: BTreeMap<ModulePath, ModulePath>,
}

/// One name at the end of a `use` declaration.
struct Leaf {
    words: Vec<String>,
    name: String,
}

fn leaves(tree: &UseTree, before: &[String], found: &mut Vec<Leaf>) {
    let with = |word: String| before.iter().cloned().chain([word]).collect::<Vec<_>>();
    match tree {
        UseTree::Path(path) => leaves(&path.tree, &with(path.ident.to_string()), found),
        UseTree::Group(group) => {
            group.items.iter().for_each(|inner| leaves(inner, before, found));
        }
        UseTree::Name(name) if name.ident == "self" => {
            let name = before.last().cloned().unwrap_or_default();
            found.push(Leaf { words: before.to_owned(), name });
        }
        UseTree::Name(name) => {
            found.push(Leaf { words: with(name.ident.to_string()), name: name.ident.to_string() });
        }
        UseTree::Rename(rename) => {
            let words = with(rename.ident.to_string());
            found.push(Leaf { words, name: rename.rename.to_string() });
        }
        UseTree::Glob(_) => found.push(Leaf { words: before.to_owned(), name: "*".to_owned() }),
    }
}

fn uses(items: &[Item]) -> impl Iterator<Item = (&Visibility, Vec<Leaf>)> {
    items.iter().filter_map(|item| {
        let Item::Use(declaration) = item else { return None };
        let mut found = Vec::new();
        leaves(&declaration.tree, &[], &mut found);
        Some((&declaration.vis, found))
    })
}

impl<'a> Scope<'a> {
    pub(super) fn of(all: &'a RawModules, here: &'a ModulePath, items: &[Item]) -> Self {
        let mut scope = Self { all, here, names: BTreeMap::new(), outside: BTreeMap::new() };
        let (mut names, mut outside) = (BTreeMap::new(), BTreeMap::new());
        for leaf in uses(items).flat_map(|(_vis, leaves)| leaves) {
            match scope.resolve(&leaf.words) {
                Some(path) => names.insert(leaf.name, path),
                None => outside.insert(leaf.name, leaf.words),
            };
        }
        (scope.names, scope.outside) = (names, outside);
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
                    return None;
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
        let mut passed_on = BTreeMap::new();
        for (here, raw) in all {
            let scope = Scope::of(all, here, &[]);
            for (vis, leaves) in uses(&raw.items) {
                if matches!(vis, Visibility::Inherited) {
                    continue;
                }
                for leaf in leaves {
                    let known = here.iter().cloned().chain([leaf.name]).collect::<ModulePath>();
                    passed_on.extend(scope.resolve(&leaf.words).map(|path| (known, path)));
                }
            }
        }
        Self { all, passed_on }
    }

    /// Where what a full path names is defined, and what it is called there.
    pub(super) fn definition(&self, path: &[String]) -> Import {
        let mut path = path.to_vec();
        // Re-exports of re-exports, but no endless ones.
        for _ in 0..8 {
            let known = (1..=path.len()).rev().find_map(|length| {
                let target = self.passed_on.get(&path[..length])?;
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
    for leaf in uses(items).flat_map(|(_vis, leaves)| leaves) {
        see(&leaf.words);
    }
    for item in items.iter().filter(|item| !matches!(item, Item::Use(_) | Item::Mod(_))) {
        paths(item.to_token_stream(), see);
    }
}

/// Shows each path of two words or more in some code.
fn paths(code: TokenStream, see: &mut impl FnMut(&[String])) {
    let mut words: Vec<String> = Vec::new();
    let (mut colons, mut after_dot) = (0, false);
    for token in code {
        match token {
            TokenTree::Ident(ident) => {
                if colons != 2 {
                    end_path(&mut words, see);
                }
                if !after_dot {
                    words.push(ident.to_string());
                }
                (colons, after_dot) = (0, false);
            }
            TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
            TokenTree::Punct(punct) => {
                end_path(&mut words, see);
                (colons, after_dot) = (0, punct.as_char() == '.');
            }
            TokenTree::Group(group) => {
                end_path(&mut words, see);
                (colons, after_dot) = (0, false);
                paths(group.stream(), see);
            }
            TokenTree::Literal(_) => {
                end_path(&mut words, see);
                (colons, after_dot) = (0, false);
            }
        }
    }
    end_path(&mut words, see);
}

fn end_path(words: &mut Vec<String>, see: &mut impl FnMut(&[String])) {
    if words.len() > 1 {
        see(words);
    }
    words.clear();
}
