//! `use` declarations, name by name.

use syn::{Item, UseTree};

/// One name at the end of a `use` declaration.
pub(super) struct Leaf {
    /// The path, without the `*` of one that brings in everything.
    pub(super) words: Vec<String>,
    /// What it is called from there on; `*` for everything.
    pub(super) name: String,
}

/// Collects the names of a tree that stands behind the words `before`.
pub(super) fn leaves(tree: &UseTree, before: &[String], found: &mut Vec<Leaf>) {
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
            let words = match rename.ident == "self" {
                true => before.to_owned(),
                false => with(rename.ident.to_string()),
            };
            found.push(Leaf { words, name: rename.rename.to_string() });
        }
        UseTree::Glob(_) => found.push(Leaf { words: before.to_owned(), name: "*".to_owned() }),
    }
}

/// The names of all `use` declarations among some items.
pub(super) fn uses(items: &[Item]) -> impl Iterator<Item = Leaf> {
    items.iter().flat_map(|item| {
        let mut found = Vec::new();
        if let Item::Use(declaration) = item {
            leaves(&declaration.tree, &[], &mut found);
        }
        found
    })
}
