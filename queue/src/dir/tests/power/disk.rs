//! What may be on a disk after the power went: from what was written down of changes and flushes,
//! every state that a file system may leave which promises no more than POSIX does.
//!
//! In the model:
//! - A change is on the disk when it was flushed: the content of a file by the file's own flush,
//!   a name by the flush of its directory, all by `syncfs`. Flushing a file does not flush its
//!   name, and flushing a directory does not flush the directory's own name.
//! - What was not flushed may be there or missing, change by change, in any combination: a later
//!   change may be there without an earlier one. Of unflushed content all, none, half, or only the
//!   length (with zeros) may be there.
//! - A rename is one change: both names or neither. If an earlier rename of the same file is
//!   missing, though, the name that it took away is there too: the file is in two places.
//! - A directory is removed only when its removal and all that emptied it are there.
//!
//! Not in the model: single disk blocks that go bad, a disk that says "flushed" and lies, a file
//! system that loses a file whose rename was half written (ext2: its checker puts it into
//! `lost+found`), permissions, times, doorbells, and what jobs write.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Component, Path};

use super::tree::{Change, Content, Entry, Ino, Paths, ROOT, Tree, is_outside};
use crate::dir::fault::Done;

#[derive(Clone, Debug)]
enum Event {
    Change(Change),
    FlushFile(Ino),
    FlushDir(Ino),
    FlushAll,
    Mark(usize),
}

/// Flushes that a test takes out, to see that somebody notices.
pub(super) type Ignored<'a> = &'a dyn Fn(&Done) -> bool;

/// What was there, and what happened to it.
pub(super) struct Trace {
    /// What was there, and, empty and without names, all that ever came.
    blank: Tree,
    events: Vec<Event>,
    /// What is there in the end.
    pub(super) after: Tree,
}

/// A state in which the disk may be.
pub(super) struct State {
    pub(super) paths: Paths,
    /// The last mark before the power went.
    pub(super) mark: Option<usize>,
    pub(super) how: String,
}

impl Trace {
    pub(super) fn new(root: &Path, before: Tree, done: &[Done], ignored: Ignored<'_>) -> Self {
        let mut builder = Builder { root, tree: before.clone(), events: Vec::new() };
        for what in done.iter().filter(|what| !ignored(what)) {
            builder.add(what);
        }
        let Builder { tree: after, events, .. } = builder;
        let mut blank = before;
        for ino in after.dirs.keys() {
            blank.dirs.entry(*ino).or_default();
        }
        for ino in after.files.keys() {
            blank.files.entry(*ino).or_default();
        }
        Self { blank, events, after }
    }

    /// Every state in which the disk may be after a power cut at any time, each once, with the
    /// latest mark that it may have.
    pub(super) fn states(&self) -> Vec<State> {
        let mut found: HashMap<Paths, (Option<usize>, String)> = HashMap::new();
        let mut mark = None;
        for cut in 0..=self.events.len() {
            if let Some(Event::Mark(number)) = cut.checked_sub(1).map(|last| &self.events[last]) {
                mark = Some(*number);
            }
            for (missing, content) in self.losses(cut) {
                let paths = self.state(cut, &missing, content).paths();
                let how = || format!("cut at {cut}, missing {missing:?}, {content:?}");
                let known = found.entry(paths).or_insert_with(|| (mark, how()));
                if known.0 < mark {
                    *known = (mark, how());
                }
            }
        }
        let states = found.into_iter().map(|(paths, (mark, how))| State { paths, mark, how });
        states.collect()
    }

    /// What happened, for messages.
    pub(super) fn story(&self) -> String {
        let line = |(index, event)| format!("{index}: {event:?}\n").chars().take(300).collect();
        self.events.iter().enumerate().map(line).collect::<Vec<String>>().join("")
    }

    fn state(&self, cut: usize, missing: &BTreeSet<usize>, content: Torn) -> Tree {
        let mut tree = self.blank.clone();
        for (index, event) in self.events[..cut].iter().enumerate() {
            let Event::Change(change) = event else { continue };
            if !missing.contains(&index) {
                let torn = content.filter(|(torn, _how)| *torn == index);
                tree.apply(change, torn.map_or(Content::All, |(_index, how)| how));
            }
        }
        tree
    }

    /// The changes before the cut that no flush put on the disk.
    fn unflushed(&self, cut: usize) -> Vec<usize> {
        let mut open: Vec<usize> = Vec::new();
        let change = |index: usize| match &self.events[index] {
            Event::Change(change) => change,
            Event::FlushFile(_) | Event::FlushDir(_) | Event::FlushAll | Event::Mark(_) => {
                panic!("only changes are open")
            }
        };
        for index in 0..cut {
            match &self.events[index] {
                Event::Change(_) => open.push(index),
                Event::FlushFile(ino) => {
                    open.retain(|open| change(*open).content_of() != Some(*ino));
                }
                Event::FlushDir(dir) => open.retain(|open| !change(*open).dirs().contains(dir)),
                Event::FlushAll => open.clear(),
                Event::Mark(_) => {}
            }
        }
        open
    }

    /// What may be missing at this cut: all, none, any one, all up to or from some point on; any
    /// two, unless there are many; where there are few, every combination. And content that is
    /// half there, with all the rest, and without.
    fn losses(&self, cut: usize) -> BTreeSet<(BTreeSet<usize>, Torn)> {
        let open = self.unflushed(cut);
        let mut losses: BTreeSet<(BTreeSet<usize>, Torn)> = BTreeSet::new();
        let mut lose = |missing: &[usize], torn: Torn| {
            losses.insert((self.with_what_needs(missing, cut), torn));
        };
        for (n, one) in open.iter().enumerate() {
            lose(&open[..n], None);
            lose(&open[n..], None);
            lose(&[*one], None);
            if open.len() <= EVERY_PAIR {
                open[n..].iter().for_each(|other| lose(&[*one, *other], None));
            }
        }
        if open.len() <= EVERY_COMBINATION {
            for bits in 0..1_usize << open.len() {
                let chosen = open.iter().enumerate().filter(|(n, _)| bits >> n & 1 == 1);
                lose(&chosen.map(|(_, index)| *index).collect::<Vec<_>>(), None);
            }
        }
        lose(&[], None);
        for written in &open {
            let Event::Change(change) = &self.events[*written] else { continue };
            if change.content_of().is_some() {
                let others: Vec<_> = open.iter().copied().filter(|o| o != written).collect();
                for how in [Content::Half, Content::Zeros] {
                    lose(&[], Some((*written, how)));
                    lose(&others, Some((*written, how)));
                }
            }
        }
        losses
    }

    /// A directory that was not emptied is not removed either.
    fn with_what_needs(&self, missing: &[usize], cut: usize) -> BTreeSet<usize> {
        let mut all: BTreeSet<usize> = missing.iter().copied().collect();
        for index in 0..cut {
            let Event::Change(Change::Leave(_, ino)) = &self.events[index] else { continue };
            let emptied = |lost: &usize| match &self.events[*lost] {
                Event::Change(change) => *lost < index && change.empties() == Some(*ino),
                Event::FlushFile(_) | Event::FlushDir(_) | Event::FlushAll | Event::Mark(_) => {
                    false
                }
            };
            if all.iter().any(emptied) {
                all.insert(index);
            }
        }
        all
    }
}

/// Up to so many unflushed changes, every combination of them is tried.
const EVERY_COMBINATION: usize = 7;
/// Up to so many, every two of them.
const EVERY_PAIR: usize = 14;

type Torn = Option<(usize, Content)>;

/// Turns paths into files and directories.
struct Builder<'a> {
    root: &'a Path,
    tree: Tree,
    events: Vec<Event>,
}

impl Builder<'_> {
    fn add(&mut self, done: &Done) {
        let event = match done {
            Done::Mark(number) => Event::Mark(*number),
            Done::FlushedAll => Event::FlushAll,
            Done::FlushedFile(path) => match self.find(path) {
                Some(ino) => Event::FlushFile(ino),
                None => return,
            },
            Done::FlushedDir(path) => match self.find(path) {
                Some(ino) => Event::FlushDir(ino),
                None => return,
            },
            Done::MadeDir(path) => {
                return self.make(path, &mut |tree, ino| {
                    tree.dirs.insert(ino, BTreeMap::new());
                });
            }
            Done::Made(path) => {
                if self.find(path).is_none() {
                    self.make(path, &mut |tree, ino| drop(tree.files.insert(ino, Vec::new())));
                }
                return;
            }
            Done::Appended(path, bytes) => {
                let Some(ino) = self.find(path) else { return };
                let length = self.tree.files[&ino].len();
                return self.change(Change::Append(ino, length, bytes.clone()));
            }
            Done::Rewrote(path, bytes) => {
                let Some(ino) = self.find(path) else { return };
                return self.change(Change::Rewrite(ino, bytes.clone()));
            }
            Done::Moved(from, to) => {
                let ino = self.find(from).expect("what is moved is there");
                let (from, to) = (self.entry(from).unwrap(), self.entry(to).unwrap());
                return self.change(Change::Move { from, to, ino });
            }
            Done::Removed(path) => {
                let Some(ino) = self.find(path) else { return };
                let entry = self.entry(path).unwrap();
                return self.change(Change::Leave(entry, ino));
            }
            Done::RemovedTree(path) => return self.remove_tree(path),
        };
        self.events.push(event);
    }

    fn change(&mut self, change: Change) {
        self.tree.apply(&change, Content::All);
        self.events.push(Event::Change(change));
    }

    fn make(&mut self, path: &Path, blank: &mut dyn FnMut(&mut Tree, Ino)) {
        let Some(entry) = self.entry(path) else { return };
        let ino = self.tree.next();
        blank(&mut self.tree, ino);
        self.change(Change::Enter(entry, ino));
    }

    fn remove_tree(&mut self, path: &Path) {
        let Some(ino) = self.find(path) else { return };
        let inside: Vec<_> = self.tree.dirs.get(&ino).into_iter().flatten().collect();
        let names: Vec<String> = inside.into_iter().map(|(name, _ino)| name.clone()).collect();
        names.iter().for_each(|name| self.remove_tree(&path.join(name)));
        self.add(&Done::Removed(path.to_owned()));
    }

    /// `None` for what is not followed.
    fn entry(&self, path: &Path) -> Option<Entry> {
        let dir = self.find(path.parent()?)?;
        let name = path.file_name()?.to_str()?;
        (!is_outside(name)).then(|| Entry { dir, name: name.to_owned() })
    }

    fn find(&self, path: &Path) -> Option<Ino> {
        let mut at = ROOT;
        for part in path.strip_prefix(self.root).ok()?.components() {
            let Component::Normal(name) = part else { return None };
            at = *self.tree.dirs.get(&at)?.get(name.to_str()?)?;
        }
        Some(at)
    }
}
