//! The command line that does as a pool's owner what this process may not do: this one, given as
//! that user.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use shared::text::shell_word;

use crate::users;

/// This process's own command line, for the owner of the pool at `pool`, as it can be typed.
#[must_use]
pub fn command(pool: &Path, owner: u32) -> String {
    let group = std::fs::metadata(pool).map_or(owner, |meta| meta.gid());
    let mut words = become_user(owner, group);
    words.extend(["env".to_owned(), format!("BRAINSTEM_POOL={}", pool.display())]);
    let mut given = std::env::args_os();
    let name = given.next().unwrap_or_default();
    // Another user's PATH may not have it.
    let program = std::env::current_exe().unwrap_or_else(|_| name.into());
    words.push(program.to_string_lossy().into_owned());
    words.extend(given.map(|word| word.to_string_lossy().into_owned()));
    let words: Vec<String> = words.iter().map(|word| shell_word(word)).collect();
    words.join(" ")
}

/// With sudo; where root has none (containers), or the user no name, with what util-linux has.
fn become_user(user: u32, group: u32) -> Vec<String> {
    let name = users::known_name_of(user);
    let has_sudo = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|dir| std::fs::metadata(dir.join("sudo")).is_ok())
    });
    if !users::am_root() || has_sudo && name.is_some() {
        let name = name.unwrap_or_else(|| format!("#{user}"));
        return vec!["sudo".to_owned(), "-u".to_owned(), name];
    }
    let groups = if name.is_some() { "--init-groups" } else { "--clear-groups" };
    let (user, group) = (user.to_string(), group.to_string());
    ["setpriv", "--reuid", &user, "--regid", &group, groups].map(str::to_owned).into()
}
