//! Draws the map of the sources: `./run.sh map [DIR]`, of this workspace or of another checkout.
#![expect(clippy::print_stdout, reason = "it answers a person")]

use std::path::PathBuf;

use tests::source::{Map, Workspace, circles};

fn main() {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let root = std::env::args_os().nth(1).map_or_else(|| here.join(".."), PathBuf::from);
    let workspace = Workspace::read(&root);
    print!("{}", Map::of(&workspace));
    for circle in workspace.targets.iter().flat_map(circles) {
        println!("  in {}: {}", circle.parent.join("::"), circle.members.join(", "));
    }
}
