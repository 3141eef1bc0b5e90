//! From files to modules: follows `mod` declarations from the root of each target.

use std::fs;
use std::path::{Path, PathBuf};

use syn::{Item, ItemMod};

use super::imports::{self, Exports, Scope};
use super::raw::{Raw, RawModules};
use super::tuples::{Aliases, Known, tuple_parameters};
use super::{Module, ModulePath, Target, Workspace, items};

/// The folders with sources.
const PARTS: [&str; 5] = ["shared", "queue", "brain", "worker", "tests"];

pub(super) fn workspace(root: &Path) -> Workspace {
    let found = roots(root);
    let mut all = RawModules::new();
    for (name, file) in &found {
        read_file(root, &mut all, vec![name.clone()], file.clone(), false);
    }
    let (exports, aliases) = (Exports::of(&all), Aliases::of(&all));
    let targets = found.into_iter().map(|(name, file)| {
        let own = all.iter().filter(|(path, _raw)| path[0] == name);
        let modules =
            own.map(|(path, raw)| (path.clone(), module(&all, &exports, &aliases, path, raw)));
        let dir = file.parent().unwrap_or(Path::new("")).to_owned();
        Target { name: name.clone(), dir, modules: modules.collect() }
    });
    Workspace { root: root.to_owned(), targets: targets.collect() }
}

fn module(
    all: &RawModules,
    exports: &Exports<'_>,
    aliases: &Aliases,
    path: &ModulePath,
    raw: &Raw,
) -> Module {
    let scope = Scope::of(all, path, &raw.items);
    Module {
        file: raw.file.clone(),
        is_test: raw.is_test,
        imports: imports::imports(&scope, exports, &raw.items),
        names: imports::names(&scope, &raw.items),
        types: items::public_types(&raw.items),
        blocks: items::blocks(&scope, exports, &raw.items),
        tuples: tuple_parameters(&Known { aliases, scope: &scope, exports }, &raw.items),
    }
}

/// The targets' names and root files. A program of its package's name is `package:program`.
fn roots(root: &Path) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    let mut add = |name: String, file: String| {
        if fs::metadata(root.join(&file)).is_ok_and(|meta| meta.is_file()) {
            found.push((name, file.into()));
        }
    };
    for part in PARTS {
        add(part.to_owned(), format!("{part}/src/lib.rs"));
        add(format!("{part}:{part}"), format!("{part}/src/main.rs"));
    }
    add("fake_nvml".to_owned(), "tests/fake-nvml/src/lib.rs".to_owned());
    add("tests:it".to_owned(), "tests/it/main.rs".to_owned());
    for (dir, inner) in [("tests/src/bin", "main.rs"), ("tests/bin", "main.rs")] {
        let Ok(entries) = fs::read_dir(root.join(dir)) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            match name.strip_suffix(".rs") {
                Some(stem) => add(format!("tests:{stem}"), format!("{dir}/{name}")),
                None => add(format!("tests:{name}"), format!("{dir}/{name}/{inner}")),
            }
        }
    }
    found.sort();
    found
}

fn read_file(root: &Path, all: &mut RawModules, path: ModulePath, file: PathBuf, is_test: bool) {
    let text = fs::read_to_string(root.join(&file))
        .unwrap_or_else(|err| panic!("read {}: {err}", file.display()));
    let parsed =
        syn::parse_file(&text).unwrap_or_else(|err| panic!("parse {}: {err}", file.display()));
    let base = match file.file_name().and_then(|name| name.to_str()) {
        Some("mod.rs" | "lib.rs" | "main.rs") => file.parent().unwrap_or(Path::new("")).to_owned(),
        _ => file.with_extension(""),
    };
    // A program of one file in `bin/` has no folder of its own.
    add_module(root, all, path, &base, Raw { file, is_test, items: parsed.items });
}

fn add_module(root: &Path, all: &mut RawModules, path: ModulePath, base: &Path, raw: Raw) {
    for item in &raw.items {
        let Item::Mod(inner) = item else { continue };
        let name = inner.ident.to_string();
        let child: ModulePath = path.iter().cloned().chain([name.clone()]).collect();
        let is_test = raw.is_test || items::is_for_tests(&inner.attrs);
        match &inner.content {
            Some((_brace, items)) => {
                let block = Raw { file: raw.file.clone(), is_test, items: items.clone() };
                add_module(root, all, child, &base.join(&name), block);
            }
            None => read_file(root, all, child, file_of(root, base, inner), is_test),
        }
    }
    all.insert(path, raw);
}

fn file_of(root: &Path, base: &Path, inner: &ItemMod) -> PathBuf {
    let name = inner.ident.to_string();
    if let Some(file) = items::named_file(&inner.attrs) {
        return base.parent().unwrap_or(base).join(file);
    }
    let flat = base.join(format!("{name}.rs"));
    match fs::metadata(root.join(&flat)) {
        Ok(_file) => flat,
        Err(_none) => base.join(name).join("mod.rs"),
    }
}

/// Every `.rs` file of the workspace, in order.
pub(super) fn source_files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for part in PARTS {
        collect(root, &root.join(part), &mut found);
    }
    found.sort();
    found
}

fn collect(root: &Path, dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            collect(root, &path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path.strip_prefix(root).unwrap_or(&path).to_owned());
        }
    }
}
