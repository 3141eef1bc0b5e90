//! Laws of the layout, as tests of the source: where things stand, who may import whom. Each law may
//! have a short list of exceptions, here, each with its reason; a list only shrinks, and one that
//! holds nothing any more fails. What reads the source has tests of its own, `tests::source`.
//!
//! Not held yet: law 3 (only `dir` spells a path of the pool: commands, brain and worker still hand
//! its `Layout` on) and law 6 (every event is said somewhere and can be read back).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use tests::source::{Import, ModulePath, Target, Workspace, circles};

static WORKSPACE: LazyLock<Workspace> = LazyLock::new(|| {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Workspace::read(here.parent().expect("the workspace is above its tests"))
});

/// The product's libraries and programs.
const CRATES: [&str; 7] =
    ["shared", "queue", "queue:queue", "brain", "brain:brain", "worker", "worker:worker"];

/// What decides, explains, or says how things are written down. `why` joins it when it is told of the
/// pool instead of looking itself.
const PURE: [&str; 4] = ["brain::core", "queue::eligible", "queue::wire", "queue::store"];

/// What that may build on beside itself: values, and shapes of values.
const BELOW: [&str; 18] = [
    "queue::error",
    "queue::Error",
    "shared",
    // A pause before the next try is drawn.
    "fastrand",
    "serde",
    "serde_json",
    "thiserror",
    "std::borrow",
    "std::cmp",
    "std::collections",
    "std::fmt",
    "std::ptr",
    "std::slice",
    "std::str",
    "std::sync",
    "std::time::Duration",
    // Types of the language, and names of lints.
    "str",
    "clippy",
];

/// What there looks at the world or speaks to it.
const IMPURE: [&str; 5] = [
    "shared::emit",
    "shared::log",
    "shared::settings::Settings::read",
    "shared::settings::file",
    "shared::time::Moment::now",
];

/// An exception, and why there is one.
type Exception = (&'static str, &'static str);

/// Names what offends, and exceptions that are none any more, all at once.
#[track_caller]
fn hold(law: &str, offenders: BTreeSet<String>, exceptions: &[Exception]) {
    let allowed = |offender: &String| exceptions.iter().any(|(known, _why)| known == offender);
    let astray: Vec<_> = offenders.iter().filter(|offender| !allowed(offender)).collect();
    let stale: Vec<_> =
        exceptions.iter().filter(|(known, _why)| !offenders.contains(*known)).collect();
    let list = |all: &[&String]| all.iter().map(|one| format!("\n  {one}")).collect::<String>();
    assert!(astray.is_empty(), "{law}:{}", list(&astray));
    assert!(stale.is_empty(), "{law}: no exceptions any more: {stale:?}");
}

fn words(path: &[String]) -> String {
    path.join("::")
}

/// Law 1: In the product and in the test programs. Parent and child do not count: a module is there
/// for what is in it. Nor do a product crate's own tests, which import what they like.
#[test]
fn no_modules_import_each_other_in_a_circle() {
    let mut found = BTreeSet::new();
    for circle in WORKSPACE.targets.iter().flat_map(circles) {
        let members = circle.members.join(", ");
        let because =
            circle.because.iter().map(|arrow| format!("\n      {arrow}")).collect::<String>();
        found.insert(format!("{}: {members}{because}", words(&circle.parent)));
    }
    hold("siblings in a circle", found, &[]);
}

/// Law 2: What decides or explains is told everything: it looks nowhere. Words that others write are
/// shapes and rules.
#[test]
fn what_is_pure_touches_no_disk_clock_thread_or_process() {
    let inside = |name: &str, root: &str| {
        name.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    let is_pure = |name: &str| PURE.iter().any(|root| inside(name, root));
    let mut found = BTreeSet::new();
    for (path, module) in ["brain", "queue"]
        .map(|name| WORKSPACE.target(name))
        .iter()
        .flat_map(|target| target.product())
    {
        let name = words(path);
        if !is_pure(&name) {
            continue;
        }
        let is_below = |of: &str| BELOW.iter().any(|root| inside(of, root));
        let imported = module.imports.iter().map(|import| words(&import.module));
        let imported = imported.filter(|of| !is_pure(of) && !is_below(of));
        found.extend(imported.map(|of| format!("{name} imports {of}")));
        let named = module.names.iter().filter(|of| {
            let is_impure = IMPURE.iter().any(|root| inside(of, root));
            is_impure || starts_with_a_crate(of) && !is_pure(of) && !is_below(of)
        });
        found.extend(named.map(|of| format!("{name} names {of}")));
    }
    let store = (
        "queue::store::memory names shared::time::Moment::now",
        "the memory store is a store, with a clock of its own",
    );
    hold("not pure", found, &[store]);
}

/// Whether a path begins with a crate's name, not with that of a type or of a number.
fn starts_with_a_crate(path: &str) -> bool {
    let first = path.split("::").next().unwrap_or_default();
    first.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_')
}

/// Law 4: A folder is looked through at one glance.
#[test]
fn no_folder_has_more_than_twelve_files() {
    let mut folders: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for file in WORKSPACE.files() {
        *folders.entry(file.parent().expect("it is in a folder").to_owned()).or_default() += 1;
    }
    let crowded = folders.into_iter().filter(|(_folder, files)| *files > 12);
    let crowded = crowded.map(|(folder, files)| format!("{} has {files}", folder.display()));
    hold("folders with more than 12 files", crowded.collect(), &[]);
}

/// Every file is compiled: one that nothing declares would be forgotten.
#[test]
fn every_file_is_a_module_of_some_target() {
    let modules = WORKSPACE.targets.iter().flat_map(|target| target.modules.values());
    let known: BTreeSet<_> = modules.map(|module| module.file.clone()).collect();
    let forgotten = WORKSPACE.files().into_iter().filter(|file| !known.contains(file));
    hold("no module", forgotten.map(|file| file.display().to_string()).collect(), &[]);
}

/// Law 5: One word for one thing: a reader who meets a type's name knows which one it is. Types that
/// only their own room can name (`pub(super)`, `pub(in …)`) are that room's affair.
#[test]
fn no_two_public_types_of_a_crate_have_the_same_name() {
    let mut found = BTreeSet::new();
    let mut types: BTreeMap<Named<'_>, BTreeSet<String>> = BTreeMap::new();
    for target in CRATES.map(|name| WORKSPACE.target(name)) {
        // A program of a crate is part of it.
        let of = target.name.split(':').next().unwrap_or_default();
        for (path, module) in target.product() {
            for public in &module.types {
                let places = types.entry(Named { of, name: &public.name }).or_default();
                places.insert(words(path));
            }
        }
    }
    for (Named { name, .. }, places) in types.into_iter().filter(|(_, places)| places.len() > 1) {
        found.insert(format!("{name}: {}", places.into_iter().collect::<Vec<_>>().join(", ")));
    }
    hold("types of one name", found, &[]);
}

/// A type's name, and the crate that it is of.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Named<'a> {
    of: &'a str,
    name: &'a str,
}

/// Law 7: What a type can do stands where the type stands; what a trait means for it, there or where the
/// trait stands.
#[test]
fn blocks_stand_in_the_file_or_folder_of_their_type() {
    let mut found = BTreeSet::new();
    for name in CRATES {
        let target = WORKSPACE.target(name);
        for (path, module) in target.product() {
            for block in &module.blocks {
                let Some(home) = home_of(target, &block.of) else { continue };
                let at_trait = block.of_trait.as_ref().and_then(|of| home_of(target, of));
                if !is_beside(&module.file, home)
                    && !at_trait.is_some_and(|home| is_beside(&module.file, home))
                {
                    let of = block.of.item.as_deref().unwrap_or_default();
                    found.insert(format!("{} has an impl of {of}", words(path)));
                }
            }
        }
    }
    hold("blocks far from their type", found, &[]);
}

/// Whether a file is in another one's folder, or below what that one is the head of.
fn is_beside(file: &Path, home: &Path) -> bool {
    let (folder, room) = (home.parent(), home.with_extension(""));
    let heads_its_folder = home.file_name().is_some_and(|name| name == "mod.rs");
    file.parent() == folder
        || file.starts_with(room)
        || heads_its_folder && folder.is_some_and(|folder| file.starts_with(folder))
}

/// The file in which a type or a trait of this crate is defined.
fn home_of<'a>(target: &'a Target, of: &Import) -> Option<&'a Path> {
    let module: &ModulePath = &of.module;
    (module.first()? == &target.name).then(|| target.modules.get(module))?.map(|m| &*m.file)
}

/// Law 8: Parts of a parameter have names. Inside of other types, as in a list of pairs, two may go
/// without.
#[test]
fn no_parameter_is_a_tuple() {
    let mut found = BTreeSet::new();
    for target in &WORKSPACE.targets {
        for (path, module) in &target.modules {
            found.extend(module.tuples.iter().map(|of| format!("{}::{of}", words(path))));
        }
    }
    hold("parameters with nameless parts", found, &[]);
}
