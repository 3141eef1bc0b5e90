//! What the kernel says about one process: the few fields of `/proc` that are needed here.
//!
//! A process may vanish between any two reads, so each read answers `None` rather than failing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

use crate::error::is_shortage;

/// A process, told apart from a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessIdentity {
    /// Its number.
    pub pid: u32,
    /// Clock ticks between boot and its start.
    pub start_time: u64,
}

/// Fields of `/proc/PID/stat`. Times are in clock ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// R, S, D, T (stopped), t (traced), Z (zombie), …
    pub state: char,
    /// The parent's number.
    pub parent: u32,
    /// The process group, by its leader's number.
    pub group: u32,
    /// The session, by its leader's number.
    pub session: u32,
    /// Time in its own code.
    pub user: u64,
    /// Time in the kernel.
    pub system: u64,
    /// Time in their own code of the children that it waited for.
    pub children_user: u64,
    /// Time in the kernel of the children that it waited for.
    pub children_system: u64,
    /// How many threads live, itself included.
    pub threads: u64,
    /// Clock ticks between boot and its start.
    pub start_time: u64,
    /// Bytes of address space; none for kernel threads and zombies.
    pub memory: u64,
    /// Address of its program: 0 until that is loaded, between two programs (`execve`); 1 where it
    /// may not be looked into.
    pub program: u64,
    /// Where its environment is, as soon as its program is loaded.
    pub environ: MemoryRange,
}

/// A piece of a process's memory, by its addresses; empty where it may not be looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// Its first byte.
    pub start: u64,
    /// The first one after it.
    pub end: u64,
}

impl MemoryRange {
    /// How many bytes it has.
    #[must_use]
    pub const fn len(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name is in brackets and may hold anything, brackets and blanks too.
        let (_name, fields) = text.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        // `man proc` counts from 1 and the first two are before the bracket.
        let number = |field: usize| -> Option<u64> { fields.get(field - 3)?.parse().ok() };
        let signed = |field: usize| -> Option<u64> {
            let value: i64 = fields.get(field - 3)?.parse().ok()?;
            Some(u64::try_from(value).unwrap_or(0))
        };
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: u32::try_from(number(4)?).ok()?,
            group: u32::try_from(number(5)?).ok()?,
            session: u32::try_from(number(6)?).ok()?,
            user: number(14)?,
            system: number(15)?,
            children_user: signed(16)?,
            children_system: signed(17)?,
            threads: signed(20)?,
            start_time: number(22)?,
            memory: number(23)?,
            program: number(26)?,
            environ: MemoryRange { start: number(50)?, end: number(51)? },
        })
    }

    /// Whether nothing of it runs any more: a zombie whose threads have all ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x') && self.threads <= 1
    }

    /// Whether its first thread has ended; others may go on.
    #[must_use]
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }

    pub(super) fn is_kernel_thread(&self) -> bool {
        self.memory == 0 && !self.is_zombie()
    }
}

/// What the kernel says about a process; `None` if it is gone or hidden.
#[must_use]
pub fn stat(pid: u32) -> Option<Stat> {
    stat_at(&process(pid))
}

/// The same of a process or thread by its place in `/proc`.
pub(super) fn stat_at(base: &Path) -> Option<Stat> {
    look_at(base).ok().flatten()
}

/// The same, where gone or hidden must not be mistaken for what could not be looked at.
///
/// # Errors
/// When there is no descriptor, or no memory, to look with.
pub(super) fn look_at(base: &Path) -> io::Result<Option<Stat>> {
    // The name need not be UTF-8.
    let bytes = unless_short(fs::read(base.join("stat")))?;
    Ok(bytes.and_then(|bytes| Stat::parse(&String::from_utf8_lossy(&bytes))))
}

/// What was read; `None` where the process is gone or hidden. *Found nothing* would be a lie where
/// nothing can be opened: that is an error.
pub(super) fn unless_short<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if is_shortage(&error) => Err(error),
        Err(_gone_or_hidden) => Ok(None),
    }
}

/// The process's place in `/proc`.
pub(super) fn process(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}

/// The same; where the first thread has ended but others go on, a living
/// thread's, because the first one's has nothing left to read.
pub(super) fn base(pid: u32) -> io::Result<Option<PathBuf>> {
    let process = process(pid);
    if !look_at(&process)?.is_some_and(|stat| stat.is_zombie()) {
        return Ok(Some(process));
    }
    let Some(threads) = unless_short(fs::read_dir(process.join("task")))? else { return Ok(None) };
    Ok(threads
        .filter_map(Result::ok)
        .find(|thread| thread.file_name().to_str() != Some(&pid.to_string()))
        .map(|thread| thread.path()))
}

/// Which process has this number now.
#[must_use]
pub fn process_identity(pid: u32) -> Option<ProcessIdentity> {
    stat(pid).map(|stat| ProcessIdentity { pid, start_time: stat.start_time })
}

/// The letter for what a process is doing: R, S, D, T, Z, …
#[must_use]
pub fn state_of(pid: u32) -> Option<char> {
    stat(pid).map(|stat| stat.state)
}

impl Stat {
    /// Seconds between boot and its start.
    #[must_use]
    pub fn started(&self) -> f64 {
        self.start_time as f64 / rustix::param::clock_ticks_per_second() as f64
    }
}

/// Which process numbers ours are among: the PID namespace, by its inode. `None` where the kernel
/// does not say.
#[must_use]
pub fn pid_namespace() -> Option<u64> {
    let link = fs::read_link("/proc/self/ns/pid").ok()?;
    let inode = link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?;
    inode.parse().ok()
}

/// Whether all processes of this namespace can be seen here: with `hidepid` only our own can.
#[must_use]
pub fn sees_all() -> bool {
    // The first process is nobody's own but root's.
    stat(1).is_some()
}

/// Changes with every boot: numbers and start times from before mean nothing afterwards.
///
/// # Errors
/// When `/proc` is not there.
pub fn boot_id() -> io::Result<String> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .map_err(|error| super::at("read", path, &error))
}

/// The numbers of all processes that can be seen.
///
/// # Errors
/// When `/proc` cannot be listed.
pub(super) fn all() -> io::Result<impl Iterator<Item = u32>> {
    let path = Path::new("/proc");
    let entries = fs::read_dir(path).map_err(|error| super::at("list", path, &error))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()))
}

/// The processes of a group that are alive. Costs a look at every process of the machine.
///
/// # Errors
/// When `/proc` cannot be listed.
pub fn members_of_group(group: u32) -> io::Result<Vec<u32>> {
    let alive = |pid: &u32| stat(*pid).is_some_and(|s| s.group == group && !s.is_over());
    Ok(all()?.filter(alive).collect())
}

/// A process's command line for people: at most 120 characters, in one line.
#[must_use]
pub fn command_line(pid: u32) -> String {
    const LONGEST: usize = 120;
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = String::from_utf8_lossy(&words);
    let line = words.trim_end_matches('\0').replace('\0', " ");
    if line.is_empty() {
        let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        return format!("[{}]", String::from_utf8_lossy(&name).trim_end());
    }
    let mut short: String = line
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .take(LONGEST)
        .collect();
    if line.chars().nth(LONGEST).is_some() {
        short.push('…');
    }
    short
}

/// The kernel's form of a number that was read in `/proc`.
pub(super) fn raw(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_shift_the_fields() {
        let text = "77 (a) b (c) T 1 76 75 0 -1 0 0 0 0 0 5 6 7 8 20 0 3 0 4242 9999 12 0 66 \
                    0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 80 87 0 \n";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.state, stat.parent, stat.group, stat.session), ('T', 1, 76, 75));
        assert_eq!(
            (stat.user, stat.system, stat.children_user, stat.children_system),
            (5, 6, 7, 8)
        );
        assert_eq!((stat.threads, stat.start_time, stat.memory), (3, 4242, 9999));
        assert_eq!((stat.program, stat.environ.len()), (66, 7));
    }

    #[test]
    fn what_cannot_be_looked_at_for_want_of_descriptors_is_not_gone() {
        for (errno, unknown) in [
            (Errno::NOENT, false),
            (Errno::ACCESS, false),
            (Errno::MFILE, true),
            (Errno::NFILE, true),
        ] {
            let looked: io::Result<Option<()>> = unless_short(Err(errno.into()));
            assert_eq!(looked.is_err(), unknown, "{errno}");
        }
    }

    #[test]
    fn we_ourselves_can_be_read() {
        let own = std::process::id();
        assert_eq!(process_identity(own), process_identity(own));
        assert!(matches!(state_of(own), Some('R' | 'S')));
        assert_eq!(boot_id().unwrap().len(), 36);
        assert!(!command_line(own).is_empty());
        assert_eq!(stat(u32::MAX), None);
    }
}
