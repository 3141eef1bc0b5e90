//! Did the kernel end a job for want of memory? It counts that per cgroup, and jobs are in their worker's
//! unless somebody moved them: where that count has risen since a job began, and a KILL ended it that we
//! did not send, it was the kernel's.
//!
//! The count is read with every heartbeat, which there is one of whenever a job begins or ends, and once
//! when a job was killed; so nothing is read for a job that ends otherwise. What this cannot tell:
//! whether it was another job of this worker that was ended for memory, while this one was killed by
//! somebody else in the same moment.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use shared::quantity::Bytes;

/// How many changes of the count are remembered.
const REMEMBERED: usize = 64;

/// What the kernel has ended for want of memory where this worker is.
#[derive(Debug)]
pub struct OomKills {
    /// Where it counts; `None` where it does not say.
    counter: Option<Counter>,
    /// Each count that was seen, and when first; the oldest first.
    seen: Mutex<Vec<Seen>>,
}

#[derive(Debug)]
struct Counter {
    file: File,
    group: Group,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    count: u64,
    at: Instant,
}

/// The cgroup whose memory jobs of this worker share.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    /// Its directory.
    dir: PathBuf,
    /// The mount that it is in: what is above it is above that.
    root: PathBuf,
    kind: Kind,
}

/// How it is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    First,
    Second,
}

impl Kind {
    const fn events(self) -> &'static str {
        match self {
            Self::First => "memory.oom_control",
            Self::Second => "memory.events",
        }
    }

    const fn limit(self) -> &'static str {
        match self {
            Self::First => "memory.limit_in_bytes",
            Self::Second => "memory.max",
        }
    }

    const fn peak(self) -> &'static str {
        match self {
            Self::First => "memory.max_usage_in_bytes",
            Self::Second => "memory.peak",
        }
    }
}

/// The limit that a job met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Of a cgroup.
    Group {
        /// The file that says so.
        path: PathBuf,
        /// How much all in it may have.
        limit: Bytes,
        /// The most that they had, where that is known.
        peak: Option<Bytes>,
    },
    /// The machine has no more: so much, where that is known.
    Machine(Option<Bytes>),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group { path, limit, peak: Some(peak) } => {
                write!(f, "its cgroup had {peak} of {limit} ({})", path.display())
            }
            Self::Group { path, limit, peak: None } => {
                write!(f, "its cgroup may have {limit} ({})", path.display())
            }
            Self::Machine(Some(all)) => write!(f, "the machine has {all}"),
            Self::Machine(None) => f.write_str("the machine has no more"),
        }
    }
}

impl OomKills {
    /// Of the cgroup that this process is in.
    #[must_use]
    pub fn here() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let groups = groups(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
        Self::of(groups)
    }

    /// Of the first of these that counts.
    fn of(groups: Vec<Group>) -> Self {
        let counter = groups.into_iter().find_map(|group| {
            let file = File::open(group.dir.join(group.kind.events())).ok()?;
            let counter = Counter { file, group };
            counter.count().is_some().then_some(counter)
        });
        let kills = Self { counter, seen: Mutex::default() };
        kills.look();
        kills
    }

    /// Remembers the count as it is now.
    pub fn look(&self) {
        let Some(count) = self.counter.as_ref().and_then(Counter::count) else { return };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.last().is_some_and(|last| last.count == count) {
            return;
        }
        if seen.len() == REMEMBERED {
            seen.remove(0);
        }
        seen.push(Seen { count, at: Instant::now() });
    }

    /// The limit that something met here since `begun`; `None` where nothing did, or nobody can tell.
    #[must_use]
    pub fn since(&self, begun: Instant) -> Option<Limit> {
        self.look();
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let rose = seen.last()?.count > before(&seen, begun)?;
        self.counter.as_ref().filter(|_| rose).map(|counter| counter.group.limit())
    }
}

/// The count when something began. Pure.
fn before(seen: &[Seen], begun: Instant) -> Option<u64> {
    let known = seen.iter().rev().find(|seen| seen.at <= begun);
    known.or_else(|| seen.first()).map(|seen| seen.count)
}

impl Counter {
    fn count(&self) -> Option<u64> {
        let mut text = [0; 512];
        let length = self.file.read_at(&mut text, 0).ok()?;
        let text = std::str::from_utf8(&text[..length]).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
    }
}

impl Group {
    /// The tightest limit of it and of what it is in.
    fn limit(&self) -> Limit {
        let above = self.dir.ancestors().take_while(|dir| dir.starts_with(&self.root));
        let limits = above.filter_map(|dir| {
            let path = dir.join(self.kind.limit());
            // `max`, in the second kind, is none.
            let limit = number(&path)?;
            Some(Limit::Group { path, limit, peak: number(&dir.join(self.kind.peak())) })
        });
        let all = memory_of_machine();
        let is_limit = |limit: &Limit| match (limit, all) {
            (Limit::Group { limit, .. }, Some(all)) => *limit < all,
            (Limit::Group { .. }, None) | (Limit::Machine(_), _) => true,
        };
        let amount = |limit: &Limit| match limit {
            Limit::Group { limit, .. } => limit.0,
            Limit::Machine(_) => u64::MAX,
        };
        limits.filter(is_limit).min_by_key(amount).unwrap_or(Limit::Machine(all))
    }
}

fn number(path: &Path) -> Option<Bytes> {
    fs::read_to_string(path).ok()?.trim().parse().ok().map(Bytes)
}

fn memory_of_machine() -> Option<Bytes> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kibibytes = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = kibibytes.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(Bytes(kibibytes << 10))
}

/// The cgroups with memory that a process is in, by its `mountinfo` and `cgroup`. Pure.
fn groups(mounts: &str, groups: &str) -> Vec<Group> {
    mounts.lines().filter_map(|mount| group(mount, groups)).collect()
}

fn group(mount: &str, groups: &str) -> Option<Group> {
    let (mount, system) = mount.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let (inside, root) = (mount.next()?, PathBuf::from(mount.next()?));
    let mut system = system.split(' ');
    let (kind, options) = (system.next()?, system.nth(1)?);
    let kind = match kind {
        "cgroup" if options.split(',').any(|option| option == "memory") => Kind::First,
        "cgroup2" => Kind::Second,
        _ => return None,
    };
    let path = groups.lines().find_map(|line| {
        let (_number, line) = line.split_once(':')?;
        let (controllers, path) = line.split_once(':')?;
        let is_it = match kind {
            Kind::First => controllers.split(',').any(|controller| controller == "memory"),
            Kind::Second => controllers.is_empty(),
        };
        is_it.then_some(path)
    })?;
    // In a container, only what is below its own group may be mounted.
    let below = Path::new(path).strip_prefix(inside).unwrap_or(Path::new(""));
    Some(Group { dir: root.join(below), root, kind })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const MOUNTS: &str = "\
25 1 0:22 / /proc rw - proc proc rw
31 30 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
32 30 0:28 / /sys/fs/cgroup/cpu rw,relatime shared:3 - cgroup cgroup rw,cpu
33 30 0:29 /box /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
";

    #[test]
    fn the_cgroups_of_both_kinds_are_found() {
        let found = groups(MOUNTS, "4:memory:/a/b\n1:cpu:/\n0::/box/c\n");
        let dirs: Vec<_> =
            found.iter().map(|group| (group.dir.to_str().unwrap(), group.kind)).collect();
        assert_eq!(
            dirs,
            [
                ("/sys/fs/cgroup/memory/a/b", Kind::First),
                ("/sys/fs/cgroup/unified/c", Kind::Second)
            ]
        );
        let outside = groups(MOUNTS, "0::/elsewhere\n");
        assert_eq!(outside[0].dir, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(groups("nonsense\n - \n", "0::/"), []);
    }

    fn second(dir: &Path, root: &Path) -> Group {
        Group { dir: dir.to_owned(), root: root.to_owned(), kind: Kind::Second }
    }

    #[test]
    fn a_rise_since_a_job_began_names_the_tightest_limit() {
        let home = tempfile::tempdir().unwrap();
        let (root, dir) = (home.path(), home.path().join("a/b"));
        fs::create_dir_all(&dir).unwrap();
        let events = |count| {
            fs::write(dir.join("memory.events"), format!("low 0\noom 9\noom_kill {count}\n"))
                .unwrap();
        };
        events(3);
        fs::write(dir.join("memory.max"), "max\n").unwrap();
        fs::write(dir.parent().unwrap().join("memory.max"), "1048576\n").unwrap();
        fs::write(dir.parent().unwrap().join("memory.peak"), "1040000\n").unwrap();
        let kills = OomKills::of(vec![second(root, root), second(&dir, root)]);
        let begun = Instant::now();
        assert_eq!(kills.since(begun), None, "those were others");
        events(4);
        kills.look();
        let said = kills.since(begun).unwrap().to_string();
        assert!(said.contains("1016 KiB of 1 MiB (") && said.contains("a/memory.max)"), "{said}");
        assert_eq!(kills.since(Instant::now()), None, "it was before");
        fs::write(dir.parent().unwrap().join("memory.max"), "max\n").unwrap();
        assert!(matches!(kills.since(begun), Some(Limit::Machine(Some(_)))));
    }

    #[test]
    fn where_nothing_counts_nothing_is_known() {
        let home = tempfile::tempdir().unwrap();
        let kills = OomKills::of(vec![second(home.path(), home.path())]);
        assert_eq!(kills.since(Instant::now()), None);
    }

    #[test]
    fn of_the_counts_that_were_seen_the_last_one_before_a_job_counts() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let seen = [Seen { count: 1, at: at(10) }, Seen { count: 5, at: at(20) }];
        for (begun, count) in [(5, 1), (10, 1), (19, 1), (20, 5), (99, 5)] {
            assert_eq!(before(&seen, at(begun)), Some(count), "{begun}");
        }
        assert_eq!(before(&[], start), None);
    }
}
