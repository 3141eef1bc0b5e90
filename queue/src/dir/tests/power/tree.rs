//! Files and directories as the model has them: what one change does to them, and how they are made
//! real.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

pub(super) type Ino = usize;

/// A name in a directory.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) dir: Ino,
    pub(super) name: String,
}

/// One change that is there or not.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// A new file or directory gets a name.
    Enter(Entry, Ino),
    Move {
        from: Entry,
        to: Entry,
        ino: Ino,
    },
    Leave(Entry, Ino),
    /// At this offset.
    Append(Ino, usize, Vec<u8>),
    Rewrite(Ino, Vec<u8>),
}

impl Change {
    /// The directories whose flush puts it on the disk; else it is content.
    pub(super) fn dirs(&self) -> Vec<Ino> {
        match self {
            Self::Enter(at, _) | Self::Leave(at, _) => vec![at.dir],
            Self::Move { from, to, .. } => vec![from.dir, to.dir],
            Self::Append(..) | Self::Rewrite(..) => Vec::new(),
        }
    }

    pub(super) fn content_of(&self) -> Option<Ino> {
        match self {
            Self::Append(ino, ..) | Self::Rewrite(ino, _) => Some(*ino),
            Self::Enter(..) | Self::Move { .. } | Self::Leave(..) => None,
        }
    }

    /// The directory that gets emptier by it.
    pub(super) fn empties(&self) -> Option<Ino> {
        match self {
            Self::Move { from, .. } => Some(from.dir),
            Self::Leave(at, _) => Some(at.dir),
            Self::Enter(..) | Self::Append(..) | Self::Rewrite(..) => None,
        }
    }
}

/// Files and directories, with content.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub(super) dirs: BTreeMap<Ino, BTreeMap<String, Ino>>,
    pub(super) files: BTreeMap<Ino, Vec<u8>>,
}

pub(super) const ROOT: Ino = 0;

/// Everything below the root, by path: `None` is a directory.
pub(super) type Paths = BTreeMap<String, Option<Vec<u8>>>;

impl Tree {
    fn empty() -> Self {
        Self { dirs: BTreeMap::from([(ROOT, BTreeMap::new())]), files: BTreeMap::new() }
    }

    pub(super) fn next(&self) -> Ino {
        self.dirs.len() + self.files.len()
    }

    /// What is there now, all of it on the disk.
    pub(super) fn read(root: &Path) -> Self {
        let mut tree = Self::empty();
        tree.load(root, ROOT);
        tree
    }

    fn load(&mut self, path: &Path, dir: Ino) {
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if is_outside(&name) {
                continue;
            }
            let ino = self.next();
            self.dirs.get_mut(&dir).unwrap().insert(name, ino);
            if entry.file_type().unwrap().is_dir() {
                self.dirs.insert(ino, BTreeMap::new());
                self.load(&entry.path(), ino);
            } else {
                self.files.insert(ino, fs::read(entry.path()).unwrap());
            }
        }
    }

    pub(super) fn apply(&mut self, change: &Change, content: Content) {
        match change {
            Change::Enter(entry, ino) => self.enter(entry, *ino),
            Change::Move { from, to, ino } => {
                self.leave(from, *ino);
                self.enter(to, *ino);
            }
            Change::Leave(entry, ino) => self.leave(entry, *ino),
            Change::Append(ino, at, bytes) => {
                let file = self.files.get_mut(ino).unwrap();
                file.resize((*at).max(file.len()), 0);
                file.truncate(*at);
                file.extend(content.of(bytes));
            }
            Change::Rewrite(ino, bytes) => {
                *self.files.get_mut(ino).unwrap() = content.of(bytes);
            }
        }
    }

    fn enter(&mut self, at: &Entry, ino: Ino) {
        self.dirs.get_mut(&at.dir).unwrap().insert(at.name.clone(), ino);
    }

    fn leave(&mut self, at: &Entry, ino: Ino) {
        let names = self.dirs.get_mut(&at.dir).unwrap();
        if names.get(&at.name) == Some(&ino) {
            names.remove(&at.name);
        }
    }

    /// All that can be reached from the root.
    pub(super) fn paths(&self) -> Paths {
        let mut paths = Paths::new();
        self.walk(ROOT, "", &mut paths);
        paths
    }

    fn walk(&self, dir: Ino, at: &str, paths: &mut Paths) {
        for (name, ino) in &self.dirs[&dir] {
            let path = format!("{at}/{name}");
            match self.files.get(ino) {
                Some(bytes) => drop(paths.insert(path, Some(bytes.clone()))),
                None => {
                    self.walk(*ino, &path, paths);
                    paths.insert(path, None);
                }
            }
        }
    }
}

/// Bells and logs are not followed: nothing depends on what they hold.
pub(super) fn is_outside(name: &str) -> bool {
    name == "doorbells" || name == "logs"
}

/// How much of unflushed content is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Content {
    All,
    Half,
    /// Its length, with zeros in place of it.
    Zeros,
}

impl Content {
    fn of(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::All => bytes.to_vec(),
            Self::Half => bytes[..bytes.len() / 2].to_vec(),
            Self::Zeros => vec![0; bytes.len()],
        }
    }
}

/// Makes this state real, in an empty directory, as another start of the machine left it.
pub(super) fn materialise(paths: &Paths, root: &Path, boot: &str) {
    fs::create_dir(root).unwrap();
    let other: String = boot.chars().rev().collect();
    for (path, content) in paths {
        let path = root.join(&path[1..]);
        match content {
            None => fs::create_dir_all(path).unwrap(),
            Some(bytes) => {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, replaced(bytes, boot.as_bytes(), other.as_bytes())).unwrap();
            }
        }
    }
}

fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    while let Some(at) = memchr::memmem::find(&bytes, old).filter(|_| !old.is_empty()) {
        bytes[at..at + old.len()].copy_from_slice(new);
    }
    bytes
}
