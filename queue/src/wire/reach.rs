//! What can be known from here of the processes that another process left when it died.
//!
//! A host's name decides nothing: containers of one machine have several, and machines may share
//! one. What counts is which start of which kernel it was, and whose process numbers.

use super::lease_record::Process;

/// What can be known from here of what a dead process left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The same kernel and the same process numbers: its processes can be found and ended.
    Processes,
    /// The same kernel, but not its numbers: only locks tell whether anything of it still runs.
    Locks,
    /// The kernel that ran it has stopped: nothing of it is left.
    Gone,
    /// It may run on another machine, of which nothing can be known here.
    Nothing,
}

/// Whether other machines may have the pool's directory too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// It is on a local file system.
    Local,
    /// It is on a network file system.
    Network,
}

impl Process {
    /// Whether its number means the same process there: the same kernel, and the same namespace.
    #[must_use]
    pub fn is_visible_from(&self, here: &Self) -> bool {
        !self.boot.is_empty()
            && self.boot == here.boot
            && self.pid_namespace.is_some()
            && self.pid_namespace == here.pid_namespace
    }

    /// What `here` can know of what this process left, in a pool on such a disk.
    ///
    /// Another start of a machine is this machine's own last one where the disk is its own, or
    /// where both name the same machine. Where no start is known, nothing is.
    #[must_use]
    pub fn reach(&self, here: &Self, disk: Disk) -> Reach {
        if self.boot.is_empty() || here.boot.is_empty() {
            return Reach::Nothing;
        }
        if self.boot == here.boot {
            return if self.is_visible_from(here) { Reach::Processes } else { Reach::Locks };
        }
        let same_machine = !self.machine.is_empty() && self.machine == here.machine;
        match disk {
            Disk::Local => Reach::Gone,
            Disk::Network if same_machine => Reach::Gone,
            Disk::Network => Reach::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(boot: &str, namespace: Option<u64>, machine: &str) -> Process {
        Process {
            pid: 7,
            start: Some(1),
            boot: boot.to_owned(),
            host: "any".to_owned(),
            pid_namespace: namespace,
            machine: machine.to_owned(),
        }
    }

    #[test]
    fn what_is_left_of_the_dead_is_judged_by_kernel_numbers_and_machine() {
        let here = process("boot", Some(1), "machine");
        for (other, local, network) in [
            (process("boot", Some(1), "machine"), Reach::Processes, Reach::Processes),
            (process("boot", Some(2), "machine"), Reach::Locks, Reach::Locks),
            (process("boot", None, "machine"), Reach::Locks, Reach::Locks),
            (process("before", Some(1), "machine"), Reach::Gone, Reach::Gone),
            (process("before", Some(1), "another"), Reach::Gone, Reach::Nothing),
            (process("before", Some(1), ""), Reach::Gone, Reach::Nothing),
            (process("", Some(1), "machine"), Reach::Nothing, Reach::Nothing),
        ] {
            assert_eq!(other.reach(&here, Disk::Local), local, "{other:?}");
            assert_eq!(other.reach(&here, Disk::Network), network, "{other:?}");
        }
    }

    #[test]
    fn a_hosts_name_decides_nothing() {
        let here = process("boot", Some(1), "machine");
        let renamed = Process { host: "renamed".to_owned(), ..here.clone() };
        assert_eq!(renamed.reach(&here, Disk::Local), Reach::Processes);
        let alike = process("before", Some(1), "another");
        assert_eq!(alike.reach(&here, Disk::Network), Reach::Nothing);
    }

    #[test]
    fn where_no_namespace_is_known_none_is_the_same() {
        let unknown = process("boot", None, "");
        assert_eq!(unknown.reach(&unknown, Disk::Local), Reach::Locks);
    }
}
