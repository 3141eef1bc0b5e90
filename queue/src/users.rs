//! Names of users and groups, as the machine's lists (`/etc/passwd`, `/etc/group`) have them.

use rustix::process::{Gid, Uid, getegid, geteuid, getgroups};

/// The name of a user; its number where the list does not have it.
#[must_use]
pub fn name_of(user: u32) -> String {
    listed_name("/etc/passwd", user).unwrap_or_else(|| user.to_string())
}

/// The name of a user that the machine's list has.
#[must_use]
pub fn known_name_of(user: u32) -> Option<String> {
    listed_name("/etc/passwd", user)
}

/// The name of a group; its number where the list does not have it.
#[must_use]
pub fn group_name_of(group: u32) -> String {
    listed_name("/etc/group", group).unwrap_or_else(|| group.to_string())
}

/// As whom this process makes files.
#[must_use]
pub fn me() -> u32 {
    geteuid().as_raw()
}

/// Whether this process is in a group.
#[must_use]
pub fn am_in(group: u32) -> bool {
    let listed = || getgroups().is_ok_and(|groups| groups.contains(&Gid::from_raw(group)));
    getegid().as_raw() == group || listed()
}

/// Whether this process may do what it likes with anybody's files.
#[must_use]
pub fn am_root() -> bool {
    geteuid() == Uid::ROOT
}

fn listed_name(list: &str, number: u32) -> Option<String> {
    name_in(&std::fs::read_to_string(list).ok()?, number)
}

/// The name that a list (`name:x:number:…` lines) gives to a number.
fn name_in(list: &str, number: u32) -> Option<String> {
    let number = number.to_string();
    list.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, owner) = (fields.next()?, fields.nth(1)?);
        (owner == number).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_without_a_variable_have_a_name_too() {
        let list = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n";
        assert_eq!(name_in(list, 1000).as_deref(), Some("ann"));
        assert_eq!(name_in(list, 10), None);
    }
}
