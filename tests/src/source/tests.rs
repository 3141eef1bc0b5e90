//! The laws of the source are as good as what reads it: small workspaces in which something is wrong,
//! and whether it is seen.

use std::fs;

use super::{Target, Workspace, circles};

/// A workspace of these files; the first one must be a crate's root.
struct Written {
    _dir: tempfile::TempDir,
    workspace: Workspace,
}

fn written(files: &[(&str, &str)]) -> Written {
    let dir = tempfile::tempdir().unwrap();
    for (file, text) in files {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let workspace = Workspace::read(dir.path());
    Written { _dir: dir, workspace }
}

impl Written {
    fn queue(&self) -> &Target {
        self.workspace.target("queue")
    }

    fn module(&self, path: &str) -> &super::Module {
        &self.queue().modules[&path.split("::").map(str::to_owned).collect::<Vec<_>>()]
    }
}

fn members(target: &Target) -> Vec<Vec<String>> {
    circles(target).into_iter().map(|circle| circle.members).collect()
}

#[test]
fn siblings_in_a_circle_are_found_also_by_way_of_their_children_and_of_re_exports() {
    let found = written(&[
        ("queue/src/lib.rs", "mod a; mod b; mod c; pub use c::deep::Thing;"),
        ("queue/src/a.rs", "use crate::b::B; pub struct A;"),
        ("queue/src/b.rs", "pub struct B; fn f() { crate::Thing::new(); }"),
        ("queue/src/c/mod.rs", "pub mod deep;"),
        ("queue/src/c/deep.rs", "pub struct Thing; say!(crate::a::A);"),
    ]);
    assert_eq!(members(found.queue()), [["a", "b", "c"]]);
}

#[test]
fn a_circle_by_way_of_the_parents_own_imports_is_one() {
    let through = [
        "use crate::a::room::B; fn f() {}",
        "use super::B; fn f() {}",
        "use super::*; fn f() { room::g(); }",
        "use super::{self as up}; fn f() { up::room::g(); }",
        "fn f() { let all = Y { ..super::room::g() }; }",
        "fn f() { return ::queue::a::room::g(); }",
        "fn f() { use super::room::{B as C}; }",
    ];
    for text in through {
        for parent in ["use room::B;", "pub use room::*;"] {
            let found = written(&[
                ("queue/src/lib.rs", "pub mod a;"),
                ("queue/src/a/mod.rs", &format!("mod room; mod user; {parent}")),
                ("queue/src/a/room.rs", "pub struct B; pub fn g() { super::user::f(); }"),
                ("queue/src/a/user.rs", text),
            ]);
            assert_eq!(members(found.queue()), [["room", "user"]], "{text} {parent}");
        }
    }
}

#[test]
fn parent_and_child_make_no_circle_and_tests_of_a_module_do_not_count() {
    let found = written(&[
        ("queue/src/lib.rs", "mod a; mod b;"),
        ("queue/src/a.rs", "use crate::b::B; mod child { use super::A; } pub struct A(child::C);"),
        ("queue/src/b.rs", "pub struct B; #[cfg(test)] mod tests { use crate::a::A; }"),
    ]);
    assert!(members(found.queue()).is_empty());
}

#[test]
fn a_test_program_has_no_circles_either() {
    let found = written(&[
        ("tests/it/main.rs", "mod a; mod b;"),
        ("tests/it/a.rs", "use crate::b::B;"),
        ("tests/it/b.rs", "use crate::a::A;"),
    ]);
    assert_eq!(members(found.workspace.target("tests:it")), [["a", "b"]]);
}

#[test]
fn paths_into_other_crates_are_known_whole_however_they_are_named() {
    let text = "use std::{fs, time::{self, Instant as Now}};
        use rustix::process as sys;
        fn inner() { use std::{net as n}; return ::std::thread::park(0..std::io::stdin()); }
        fn f() { fs::read(x); time::SystemTime::now(); Now::now(); std::env::var(y); }
        #[cfg(test)] mod tests { fn g() { std::process::exit(1); } }
        fn after_the_tests() { sys::getpid(); std::thread::spawn(f); }";
    let found = written(&[("queue/src/lib.rs", text)]);
    let names = &found.module("queue").names;
    for name in [
        "std::fs::read",
        "std::time::SystemTime::now",
        "std::time::Instant::now",
        "std::env::var",
        "rustix::process::getpid",
        "std::net",
        "std::thread::park",
        "std::io::stdin",
        "std::thread::spawn",
    ] {
        assert!(names.iter().any(|known| known == name), "{name} is missing: {names:?}");
    }
    assert!(!names.iter().any(|name| name.starts_with("std::process")), "{names:?}");
}

#[test]
fn nameless_parts_are_found_under_an_alias_in_a_pattern_and_inside_of_other_types() {
    let text = "mod other { pub type Pair = (u8, u8); pub type Triples = Vec<(u8, u8, u8)>; }
        use other::{Pair, Triples};
        fn plain(of: (u8, u8)) {}
        fn by_reference(of: &(u8, u8)) {}
        fn under_an_alias(of: &Pair) {}
        fn taken_apart((a, b): Pair) {}
        fn in_a_list(of: &[(u8, u8, u8)]) {}
        fn in_a_list_of_an_alias(of: Triples) {}
        fn by_a_path(of: other::Pair) {}
        fn in_a_list_by_a_path(of: Vec<crate::other::Triples>) {}
        fn borrowed<'a>(of: Option<&'a (u8, u8, u8)>, more: Vec<&mut (u8, u8)>) {}
        fn borrowed_mutably(of: Vec<&mut (u8, u8, u8)>) {}
        fn with_an_arrow(of: Vec<(fn() -> u8, u8, u8)>) {}
        fn nested(of: Option<((u8, u8), u8)>) {}
        fn in_a_bound<T: Iterator<Item = (u8, u8, u8)>>(of: T) {}
        impl T { fn in_a_method(&self, of: (u8, u8)) {} }
        trait U { fn in_a_trait(of: (u8, u8)); }
        fn named(of: Named) {}
        fn unit(of: ()) {}
        fn two_in_a_list(of: &[(u8, Map<u8, u8>)], more: &[Pair]) {}
        fn called(of: impl Fn(u8, u8, u8), more: fn(u8, u8, u8)) {}";
    let found = written(&[("queue/src/lib.rs", text)]);
    let expected = [
        "plain",
        "by_reference",
        "under_an_alias",
        "taken_apart",
        "in_a_list",
        "in_a_list_of_an_alias",
        "by_a_path",
        "in_a_list_by_a_path",
        "borrowed",
        "borrowed_mutably",
        "with_an_arrow",
        "nested",
        "in_a_bound",
        "in_a_method",
        "in_a_trait",
    ];
    assert_eq!(found.module("queue").tuples, expected);
}

#[test]
fn types_that_a_crate_may_name_and_blocks_far_from_their_type_are_known() {
    let found = written(&[
        (
            "queue/src/lib.rs",
            "pub struct A; pub(crate) enum B {} struct Own; pub(super) struct Room;
            words! { /// One.
            Word { Yes = \"yes\" } }
            #[cfg(test)] pub struct Fixture;
            mod far;",
        ),
        ("queue/src/far.rs", "use crate::A; impl A {} pub trait T {} impl T for A {}"),
    ]);
    let types: Vec<_> = found.module("queue").types.iter().map(|of| of.name.as_str()).collect();
    assert_eq!(types, ["A", "B", "Word"]);
    let [plain, of_trait] = found.module("queue::far").blocks.as_slice() else { panic!("two") };
    assert_eq!(plain.of.module, ["queue"]);
    assert_eq!(plain.of.item.as_deref(), Some("A"));
    assert!(plain.of_trait.is_none());
    assert_eq!(of_trait.of_trait.as_ref().map(|of| of.module.join("::")).unwrap(), "queue::far");
}
