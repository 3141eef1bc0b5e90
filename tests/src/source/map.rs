//! The map of the sources: per target its rooms, with files, lines, imports between them, layers
//! and circles. A room is a folder; a layer is the longest way down through other rooms.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::circles::{Siblings, circles, levels};
use super::{Target, Workspace};

/// The figures of one target.
#[derive(Debug)]
struct Plan {
    name: String,
    folders: Vec<Folder>,
    /// Imports between the children of a module, summed over all modules.
    arrows: usize,
    layers: usize,
    circles: usize,
}

/// One folder with sources.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    files: usize,
    lines: usize,
}

/// The whole map; its `Display` draws it.
#[derive(Debug)]
pub struct Map {
    plans: Vec<Plan>,
}

impl Map {
    /// Measures a workspace.
    #[must_use]
    pub fn of(workspace: &Workspace) -> Self {
        Self { plans: workspace.targets.iter().map(|target| plan(workspace, target)).collect() }
    }
}

fn plan(workspace: &Workspace, target: &Target) -> Plan {
    let levels = levels(target);
    let arrows = levels.values().flat_map(BTreeMap::values).map(BTreeMap::len).sum();
    Plan {
        name: target.name.clone(),
        folders: folders(workspace, target),
        arrows,
        layers: levels.values().map(layers).max().unwrap_or(1),
        circles: circles(target).len(),
    }
}

fn folders(workspace: &Workspace, target: &Target) -> Vec<Folder> {
    let files: BTreeSet<&Path> = target.modules.values().map(|module| &*module.file).collect();
    let mut folders: BTreeMap<PathBuf, Folder> = BTreeMap::new();
    for file in files {
        let path = file.parent().unwrap_or(Path::new("")).to_owned();
        let text = fs::read_to_string(workspace.root.join(file)).unwrap_or_default();
        let folder = folders.entry(path.clone()).or_insert(Folder { path, files: 0, lines: 0 });
        folder.files += 1;
        folder.lines += text.lines().count();
    }
    folders.into_values().collect()
}

/// How many siblings stand above each other; those in a circle count once.
fn layers(siblings: &Siblings<'_>) -> usize {
    fn height<'a>(siblings: &Siblings<'a>, of: &'a str, above: &mut Vec<&'a str>) -> usize {
        above.push(of);
        let below = siblings.get(of).into_iter().flat_map(BTreeMap::keys).copied();
        let below: Vec<&str> = below.filter(|name| !above.contains(name)).collect();
        let highest = below.into_iter().map(|name| height(siblings, name, above)).max();
        above.pop();
        1 + highest.unwrap_or(0)
    }
    siblings.keys().map(|name| height(siblings, name, &mut Vec::new())).max().unwrap_or(1)
}

impl fmt::Display for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for plan in &self.plans {
            writeln!(
                f,
                "{}: {} folders, {} imports between siblings, {} layers, {} circles",
                plan.name,
                plan.folders.len(),
                plan.arrows,
                plan.layers,
                plan.circles,
            )?;
            for Folder { path, files, lines } in &plan.folders {
                writeln!(f, "  {:<40} {files:>3} files {lines:>6} lines", path.display())?;
            }
        }
        let largest = self.plans.iter().flat_map(|plan| &plan.folders);
        if let Some(largest) = largest.max_by_key(|folder| folder.files) {
            writeln!(f, "largest folder: {} with {} files", largest.path.display(), largest.files)?;
        }
        let circles: usize = self.plans.iter().map(|plan| plan.circles).sum();
        writeln!(f, "circles: {circles}")
    }
}
