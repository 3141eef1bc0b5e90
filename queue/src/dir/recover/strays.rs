//! What lies where only directories of the pool belong: a file that somebody put straight into
//! `pending/`, into a lane or into a priority, into `delayed/` or onto a shelf. Nobody meets it
//! there as a task, and in the place of a directory it stops whoever needs that one; so it is
//! looked for now and then, and put aside with a reason, as every other file that is no task.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::Error;
use crate::dir::disk::listing::{self, PassedOver};
use crate::dir::disk::reject;
use crate::dir::layout::{Layout, Segment, Shelf, parse_priority};
use crate::error::{At as _, OrGone as _};
use crate::wire::lane::LaneName;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(10);

/// Something that is put aside.
#[derive(Debug, PartialEq, Eq)]
pub struct Stray {
    /// Where it was.
    pub path: PathBuf,
    /// Why it does not belong there, and what to do instead.
    pub reason: String,
}

/// Whoever looks after the pool: the brain, or a worker where there is none.
#[derive(Debug)]
pub struct Strays {
    layout: Layout,
    last: Option<Instant>,
}

impl Strays {
    /// Nothing looked at yet.
    #[must_use]
    pub fn new(layout: &Layout) -> Self {
        Self { layout: layout.clone(), last: None }
    }

    /// Looks, where the last look is a while ago.
    pub fn step(&mut self) -> Result<Vec<Stray>, Error> {
        if self.last.is_some_and(|last| last.elapsed() < EVERY) {
            return Ok(Vec::new());
        }
        self.last = Some(Instant::now());
        put_aside(&self.layout)
    }
}

/// Puts aside whatever is in the upper three levels of `pending/`, or in the first one of `delayed/`
/// and of the shelves, and is no directory of ours.
///
/// A directory that cannot be listed is passed over: whoever counts the tasks says so.
pub fn put_aside(layout: &Layout) -> Result<Vec<Stray>, Error> {
    let mut strays = Findings::default();
    let lane = |name: &str| name.parse::<LaneName>().ok();
    strays.look(&layout.pending(), "lanes", lane, |strays, lane| {
        let dir = layout.pending().join(lane.as_str());
        strays.look(&dir, "priorities", parse_priority, |strays, priority| {
            let dir = layout.pending_priority(&lane, priority);
            strays.look(&dir, "directories of tasks", Segment::parse, nothing_below)
        })
    })?;
    let due = |name: &str| name.parse::<i64>().ok();
    strays.look(&layout.delayed(), "times", due, nothing_below)?;
    for shelf in [Shelf::Waiting, Shelf::Held, Shelf::Failed] {
        let dir = layout.shelf(shelf);
        strays.look(&dir, "directories of tasks", Segment::parse, nothing_below)?;
    }
    let mut aside = Vec::new();
    for stray in strays.strays {
        if reject::reject(layout, &stray.path, &stray.reason)?.is_some() {
            aside.push(stray);
        }
    }
    Ok(aside)
}

/// Strays that were found.
#[derive(Default)]
struct Findings {
    strays: Vec<Stray>,
    passed_over: PassedOver,
}

impl Findings {
    /// Looks at what is in `dir`, where only `what` belong, and goes on below each that is one.
    fn look<T>(
        &mut self,
        dir: &Path,
        what: &str,
        parse: impl Fn(&str) -> Option<T>,
        mut below: impl FnMut(&mut Self, T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let looked = listing::each_entry(dir, |name| {
            let path = dir.join(&name);
            let Some(meta) = fs::symlink_metadata(&path).at("look at", &path).or_gone()? else {
                return Ok(());
            };
            match name.to_str().and_then(&parse).filter(|_ours| meta.is_dir()) {
                Some(ours) => below(self, ours),
                None => {
                    let reason =
                        format!("only {what} belong there; submit tasks with `queue submit`");
                    self.strays.push(Stray { path, reason });
                    Ok(())
                }
            }
        });
        self.passed_over.or_pass_over(looked).map(drop)
    }
}

fn nothing_below<T>(_strays: &mut Findings, _ours: T) -> Result<(), Error> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::{Pool, Privacy, Rules};

    #[test]
    fn seed_001_b1_whatever_lies_among_the_lanes_is_put_aside_with_a_reason() {
        let house = tempfile::tempdir().unwrap();
        let pool =
            Pool::create(&house.path().join("pool"), Rules::default(), Privacy::Owner).unwrap();
        let layout = pool.layout();
        let segment = "cpu-0123456789ab/05/0194c3f2a.0";
        fs::create_dir_all(layout.pending().join(segment)).unwrap();
        fs::create_dir_all(layout.pending().join("notes/of/mine")).unwrap();
        for file in ["task.json", "cpu-0123456789ab/x.json", "cpu-0123456789ab/05/y.json"] {
            fs::write(layout.pending().join(file), file).unwrap();
        }
        fs::write(layout.pending().join(".hidden"), "").unwrap();
        // A file in place of a directory is no directory, whatever its name.
        fs::write(layout.pending().join("script-0123456789ab"), "").unwrap();
        let aside = put_aside(layout).unwrap();
        assert_eq!(aside.len(), 5, "{aside:?}");
        for name in ["task.json", "x.json", "y.json", "notes", "script-0123456789ab"] {
            assert!(fs::symlink_metadata(layout.rejected().join(name)).is_ok(), "{name} is kept");
            let reason = layout.rejected().join(format!("{name}.reason"));
            assert!(fs::read_to_string(reason).unwrap().contains("queue submit"), "{name}");
        }
        assert!(layout.pending().join(segment).is_dir());
        assert!(layout.pending().join(".hidden").is_file());
        assert_eq!(put_aside(layout).unwrap(), []);
    }
}
