//! Laws of the layout, as tests of the source: where things stand, who may import whom. Each law may
//! have a short list of exceptions, here, each with its reason; a list only shrinks, and one that
//! holds nothing any more fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use tests::source::{Import, ModulePath, Target, Workspace, circles};

static WORKSPACE: LazyLock<Workspace> = LazyLock::new(|| {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Workspace::read(here.parent().expect("the workspace is above its tests"))
});

/// The crates whose layout the laws are about; tests have rooms and no circles, too.
const CRATES: [&str; 4] = ["shared", "queue", "brain", "worker"];

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

/// Law 1: Parent and child do not count: a module is there for what is in it.
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
    const PURE: [&str; 4] = ["brain::core", "queue::eligible", "queue::wire", "queue::store"];
    const IMPURE: [&str; 9] = [
        "std::fs",
        "std::thread",
        "std::process",
        "std::env",
        "std::net",
        "Instant::now",
        "SystemTime::now",
        "Moment::now",
        "rustix::",
    ];
    let mut found = BTreeSet::new();
    for target in ["brain", "queue"] {
        for (path, module) in WORKSPACE.target(target).product() {
            let name = words(path);
            let inside = |root: &&str| name == **root || name.starts_with(&format!("{root}::"));
            if !PURE.iter().any(inside) {
                continue;
            }
            for import in &module.imports {
                let of = words(&import.module);
                if of == "queue::dir" || of.starts_with("queue::dir::") || of == "queue::fence" {
                    found.insert(format!("{name} imports {of}"));
                }
            }
            let text = code_of(&module.file);
            let named = IMPURE.iter().filter(|word| text.contains(**word));
            found.extend(named.map(|word| format!("{name} names {word}")));
        }
    }
    hold(
        "not pure",
        found,
        &[(
            "queue::store::memory names Moment::now",
            "the memory store is a store, with a clock of its own",
        )],
    );
}

/// A file's lines up to its tests, without comments.
fn code_of(file: &Path) -> String {
    let text = fs::read_to_string(WORKSPACE.root.join(file)).expect("it was read before");
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
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

/// Law 5: One word for one thing: a reader who meets a type's name knows which one it is.
#[test]
fn no_two_public_types_of_a_crate_have_the_same_name() {
    let mut found = BTreeSet::new();
    for name in CRATES {
        let mut types: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for (path, module) in WORKSPACE.target(name).product() {
            for public in &module.types {
                types.entry(&public.name).or_default().insert(words(path));
            }
        }
        for (name, places) in types.into_iter().filter(|(_name, places)| places.len() > 1) {
            found.insert(format!("{name}: {}", places.into_iter().collect::<Vec<_>>().join(", ")));
        }
    }
    hold("types of one name", found, &[]);
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

/// Whether a file is in another one's folder, or below it.
fn is_beside(file: &Path, home: &Path) -> bool {
    file.starts_with(home.parent().expect("it is in a folder"))
}

/// The file in which a type or a trait of this crate is defined.
fn home_of<'a>(target: &'a Target, of: &Import) -> Option<&'a Path> {
    let module: &ModulePath = &of.module;
    (module.first()? == &target.name).then(|| target.modules.get(module))?.map(|m| &*m.file)
}

/// Law 8: parts of a parameter have names.
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
