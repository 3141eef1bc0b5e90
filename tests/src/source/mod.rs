//! The workspace's sources as modules, imports and items: what the tests of the source, and the map
//! of it, are made from. Reads the text only; macros are not expanded, but paths in them count.

mod circles;
mod imports;
mod items;
mod load;
mod map;
mod paths;
mod raw;
#[cfg(test)]
mod tests;
mod tuples;
mod uses;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use circles::{Circle, circles};
pub use items::{Block, PublicType};
pub use map::Map;

/// A module's place: the target's name, then one word per level, as `queue`, `dir`, `claim`.
pub type ModulePath = Vec<String>;

/// All targets of the workspace.
#[derive(Debug)]
pub struct Workspace {
    /// Where it is.
    pub root: PathBuf,
    /// Libraries and programs, each with a tree of modules of its own.
    pub targets: Vec<Target>,
}

/// One library, program or test program.
#[derive(Debug)]
pub struct Target {
    /// A library's name as others import it; a program's is `package:program`.
    pub name: String,
    /// The folder that its sources are in, from the workspace's root on.
    pub dir: PathBuf,
    /// Its modules.
    pub modules: BTreeMap<ModulePath, Module>,
}

/// One module: a file, or a block inside one.
#[derive(Debug)]
pub struct Module {
    /// The file, from the workspace's root on.
    pub file: PathBuf,
    /// Whether it is compiled for tests only.
    pub is_test: bool,
    /// What it names of its own crate and of the other crates of the workspace.
    pub imports: Vec<Import>,
    /// Every full path that it names, other crates' too, as `std::fs::read`.
    pub names: Vec<String>,
    /// The types that others may name.
    pub types: Vec<PublicType>,
    /// Its `impl` blocks.
    pub blocks: Vec<Block>,
    /// Its functions that have a parameter with nameless parts.
    pub tuples: Vec<String>,
}

/// Something that a module names of another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    /// Where it is defined: re-exports are followed.
    pub module: ModulePath,
    /// What is named of it, where that is not the module itself.
    pub item: Option<String>,
}

impl Workspace {
    /// Reads the workspace at `root`.
    ///
    /// # Panics
    /// When a file cannot be read or is no Rust: a test of the source has nothing to go on then.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        load::workspace(root)
    }

    /// One target.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    pub fn target(&self, name: &str) -> &Target {
        let found = self.targets.iter().find(|target| target.name == name);
        found.unwrap_or_else(|| panic!("there is no target `{name}`"))
    }

    /// Every source file, from the root on.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        load::source_files(&self.root)
    }
}

impl Target {
    /// The modules that are compiled into the product.
    pub fn product(&self) -> impl Iterator<Item = (&ModulePath, &Module)> {
        self.modules.iter().filter(|(_path, module)| !module.is_test)
    }

    /// Who imports whom inside this target, outside its tests.
    pub fn arrows(&self) -> impl Iterator<Item = Arrow<'_>> {
        self.product().flat_map(|(from, module)| {
            let own = module.imports.iter().filter(|import| import.module.first() == from.first());
            own.map(move |import| Arrow { from, to: &import.module, item: import.item.as_deref() })
        })
    }
}

/// One import inside a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrow<'a> {
    /// Who imports.
    pub from: &'a [String],
    /// Whom.
    pub to: &'a [String],
    /// What of it.
    pub item: Option<&'a str>,
}

impl std::fmt::Display for Arrow<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = |path: &[String]| path.get(1..).unwrap_or_default().join("::");
        write!(f, "{} imports {}", path(self.from), path(self.to))?;
        self.item.map_or(Ok(()), |item| write!(f, "::{item}"))
    }
}
