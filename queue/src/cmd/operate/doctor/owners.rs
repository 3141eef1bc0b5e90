//! What `queue doctor` says of owners and modes in the pool, and the command that puts them right.

use std::path::Path;

use queue::dir::Privacy;
use queue::dir::pool::audit::{Audit, Wrong};
use queue::users;

use shared::text::shell_word;

use super::Tried;

pub(super) fn judge(root: &Path, audit: &Audit) -> Tried {
    let of_all = if audit.is_whole { "" } else { " (there are more)" };
    let looked = format!("{} files and directories{of_all}", audit.looked);
    if audit.wrong == 0 {
        return Ok(match audit.privacy {
            Privacy::Owner => format!("all of {looked} are {}'s", users::name_of(audit.owner)),
            Privacy::Group => {
                let group = users::group_name_of(audit.group);
                format!("all of {looked} can be used by the group {group}")
            }
        });
    }
    let named: Vec<String> = audit.first.iter().map(describe).collect();
    let more = audit.wrong - named.len() as u64;
    let more = if more == 0 { String::new() } else { format!(", and {more} more") };
    let who = match audit.privacy {
        Privacy::Owner => users::name_of(audit.owner),
        Privacy::Group => format!("the group {}", users::group_name_of(audit.group)),
    };
    let text = format!(
        "{} of {looked} have an owner, a group or a mode that is wrong for a pool of {who}: {}{more}",
        audit.wrong,
        named.join(", ")
    );
    Err((text, Some(repair(root, audit))))
}

fn describe(wrong: &Wrong) -> String {
    let Wrong { path, owner, group, mode } = wrong;
    let (owner, group) = (users::name_of(*owner), users::group_name_of(*group));
    format!("`{}` ({owner}:{group}, {mode:04o})", path.display())
}

/// One command line. It changes only what must change, and may be given while the pool is at work.
fn repair(root: &Path, audit: &Audit) -> String {
    let root = shell_word(&root.to_string_lossy());
    let mut commands = Vec::new();
    if audit.needed.owner {
        commands.push(format!("chown -R {} {root}", audit.owner));
    }
    if audit.needed.group {
        commands.push(format!("chgrp -R {} {root}", audit.group));
    }
    if audit.needed.mode {
        match audit.privacy {
            Privacy::Owner => commands.push(format!("chmod -R u+rwX {root}")),
            Privacy::Group => {
                commands.push(format!("chmod -R u+rwX,g+rwX {root}"));
                commands.push(format!("find {root} -type d -exec chmod g+s {{}} +"));
            }
        }
    }
    if audit.needed.not_everybody {
        commands.push(format!("chmod -R o-w {root}"));
    }
    let commands = commands.join(" && ");
    if users::am_root() || !audit.needed.root {
        return commands;
    }
    format!("sudo sh -c {}", shell_word(&commands))
}
