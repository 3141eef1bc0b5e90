//! Can what is in the pool be read? What cannot is unknown, which looks like nothing to whoever only
//! counts.

use queue::Pool;
use queue::dir::find::counts::Counter;
use queue::dir::ledger::follow::Follower;
use queue::wire::counts::Unlisted;
use shared::quantity::counted;

use super::Tried;

/// Whether all tasks can be looked at.
pub(super) fn tasks(pool: &Pool) -> Tried {
    let counts = Counter::default().take(pool).map_err(|err| (err.to_string(), None))?;
    let told = |dir: &Unlisted| format!("`{}` ({}, {})", dir.path, dir.state, dir.problem);
    let Some(first) = counts.unlisted.first() else {
        return Ok("all places can be listed".to_owned());
    };
    let all: Vec<_> = counts.unlisted.iter().map(told).collect();
    let text = format!("what is in these is unknown, and nobody takes it: {}", all.join(", "));
    Err((text, Some(first.fix())))
}

/// Whether all that happened can be read.
pub(super) fn history(pool: &Pool) -> Tried {
    let (mut follower, mut lines) = (Follower::from_start(), 0_u64);
    let read = follower.follow(pool.layout(), |_brief| lines += 1);
    read.map_err(|err| (err.to_string(), None))?;
    let damaged = follower.take_damaged();
    let Some(first) = damaged.first() else {
        let broken = match follower.torn {
            0 => String::new(),
            torn => format!(
                "; {} more broke off, as after a power cut, and say nothing",
                counted(torn, "line")
            ),
        };
        return Ok(format!("{} can be read{broken}", counted(lines, "line")));
    };
    let count = counted(follower.unreadable, "line");
    let text = format!(
        "{count} cannot be understood, so what they say is unknown; the first: {first} of `{}`",
        first.path.display()
    );
    Err((text, Some("mend them in an editor, or take them out".to_owned())))
}
