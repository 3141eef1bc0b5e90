//! Circles of imports between sibling modules: at each level of the tree, the imports between all
//! that lies below one sibling and all that lies below another.

use std::collections::{BTreeMap, BTreeSet};

use super::{Arrow, ModulePath, Target};

/// Siblings that import each other, directly or by way of others.
#[derive(Clone, Debug)]
pub struct Circle {
    /// Whose children they are.
    pub parent: ModulePath,
    /// Their names.
    pub members: Vec<String>,
    /// The imports between them, in words.
    pub because: Vec<String>,
}

/// Who imports whom among the children of one module, and by which arrows.
pub(super) type Siblings<'a> = BTreeMap<&'a str, BTreeMap<&'a str, Vec<Arrow<'a>>>>;

/// The imports of a target, level by level.
pub(super) fn levels(target: &Target) -> BTreeMap<&[String], Siblings<'_>> {
    let mut levels: BTreeMap<&[String], Siblings<'_>> = BTreeMap::new();
    for arrow in target.arrows() {
        let shared = arrow.from.iter().zip(arrow.to).take_while(|(one, other)| one == other);
        let depth = shared.count();
        // One is above the other: parent and child make no circle.
        let (Some(from), Some(to)) = (arrow.from.get(depth), arrow.to.get(depth)) else { continue };
        let siblings = levels.entry(&arrow.from[..depth]).or_default();
        siblings.entry(from).or_default().entry(to).or_default().push(arrow);
    }
    levels
}

/// All circles of a target.
#[must_use]
pub fn circles(target: &Target) -> Vec<Circle> {
    let mut found = Vec::new();
    for (parent, siblings) in levels(target) {
        for members in in_circles(&siblings) {
            let inside = |name: &str| members.contains(name);
            let arrows =
                siblings.iter().filter(|(from, _to)| inside(from)).flat_map(|(_from, to)| {
                    to.iter().filter(|(to, _arrows)| inside(to)).flat_map(|(_to, arrows)| arrows)
                });
            found.push(Circle {
                parent: parent.to_vec(),
                because: arrows.map(ToString::to_string).collect(),
                members: members.iter().map(|name| (*name).to_owned()).collect(),
            });
        }
    }
    found
}

/// Groups of siblings each of which can be reached from each other one.
fn in_circles<'a>(siblings: &Siblings<'a>) -> Vec<BTreeSet<&'a str>> {
    let mut groups: Vec<BTreeSet<&str>> = Vec::new();
    for start in siblings.keys() {
        if groups.iter().any(|group| group.contains(start)) {
            continue;
        }
        let back = |other: &&str| reachable(siblings, other).contains(start);
        let group: BTreeSet<&str> = reachable(siblings, start).into_iter().filter(back).collect();
        if group.len() > 1 {
            groups.push(group);
        }
    }
    groups
}

fn reachable<'a>(siblings: &Siblings<'a>, start: &str) -> BTreeSet<&'a str> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![start]);
    while let Some(next) = open.pop() {
        for to in siblings.get(next).into_iter().flat_map(BTreeMap::keys) {
            if seen.insert(*to) {
                open.push(to);
            }
        }
    }
    seen
}
