//! `queue doctor`: is this place fit to be a pool? Everything is tried where the pool is: locks,
//! renames and notices that work elsewhere may not work there.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use crossbeam_channel::bounded;
use notify::{RecursiveMode, Watcher as _};
use queue::cli::{Failure, Resolved};
use queue::dir::disk::lock::{Holder, Lock};
use queue::dir::disk::network::network_of;
use queue::dir::disk::reserve;
use queue::dir::find::counts::Counter;
use queue::dir::ledger::follow::Follower;
use queue::dir::{Pool, Rules};
use queue::wire::counts::Unlisted;
use rustix::fs::{CWD, RenameFlags};
use serde::Serialize;
use serde_json::json;
use shared::exit;
use shared::gpu::Gpus;
use shared::id::Incarnation;
use shared::quantity::{Bytes, counted};
use shared::settings::{self, Flags, Settings};

use super::config::warn_of_variables;
use crate::cmd::out::Tone;
use crate::cmd::{App, Stop};

/// Check that locks, renames, notices, disk, clock and GPUs work where the pool is
#[derive(Args, Debug)]
pub(crate) struct Doctor {}

/// One thing that was tried.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    detail: String,
    fix: Option<String>,
}

/// What came of it: what was seen, or what is wrong and what would help.
type Tried = Result<String, (String, Option<String>)>;

impl Check {
    fn of(name: &'static str, tried: Tried) -> Self {
        match tried {
            Ok(detail) => Self { name, ok: true, detail, fix: None },
            Err((detail, fix)) => Self { name, ok: false, detail, fix },
        }
    }
}

impl Doctor {
    pub(in crate::cmd) fn run(self, app: &mut App) -> Result<u8, Stop> {
        let flag = app.shared.common.pool.as_deref();
        let (root, _origin) = settings::pool_dir(flag, |name| std::env::var(name).ok())
            .map_err(|err| Failure::new(exit::NO_POOL, err.to_string()))?;
        let resolved = app.shared.common.resolve(&Flags::new());
        resolved.iter().for_each(|resolved| warn_of_variables(&resolved.settings));
        let place = nearest_directory(&root);
        let room = Room::new(&place);
        let needed =
            resolved.as_ref().map_or(Settings::default().disk_low, |r| r.settings.disk_low);
        let mut checks = vec![
            Check::of(
                "settings",
                resolved.as_ref().map(settings).map_err(|err| (err.to_string(), None)),
            ),
            Check::of("pool", pool(&root)),
            Check::of("tasks", tasks(&root)),
            Check::of("history", history(&root)),
            Check::of("permissions", permissions(&place, room.as_ref().err())),
            Check::of("disk", disk(&place, needed)),
        ];
        if let Ok(room) = &room {
            checks.push(Check::of("locks", room.locks()));
            checks.push(Check::of("rename", room.rename()));
            checks.push(Check::of("notification", room.notification()));
            checks.push(Check::of("clock", room.clock()));
        }
        checks.push(Check::of("gpu", gpu()));
        say(app, &checks)?;
        let fit = checks.iter().all(|check| check.ok);
        Ok(if fit { exit::OK } else { exit::UNEXPECTED })
    }
}

fn say(app: &mut App, checks: &[Check]) -> Result<(), Stop> {
    if app.json() {
        return app.out.json("doctor", &json!({ "checks": checks }));
    }
    for check in checks {
        let word = match check.ok {
            true => app.out.paint(Tone::Good, "ok  "),
            false => app.out.paint(Tone::Bad, "FAIL"),
        };
        app.out.line(format!("{word} {:<13} {}", check.name, check.detail))?;
        if let Some(fix) = &check.fix {
            app.out.line(format!("{:19}{fix}", ""))?;
        }
    }
    Ok(())
}

/// The pool, or the directory in which it would be made.
fn nearest_directory(root: &Path) -> PathBuf {
    let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
    let there = |path: &&Path| fs::metadata(path).is_ok_and(|meta| meta.is_dir());
    root.ancestors().find(there).unwrap_or(Path::new("/")).to_owned()
}

fn settings(resolved: &Resolved) -> String {
    let rows = resolved.settings.explain();
    let set = rows.iter().filter(|row| row.origin != settings::Origin::Default).count();
    format!("{set} of {} set, the others have their defaults", rows.len())
}

fn pool(root: &Path) -> Tried {
    match Pool::open(root, Rules::default()) {
        Ok(pool) => Ok(format!("{}", pool.root().display())),
        // The place is asked about; a pool can be made there.
        Err(queue::Error::NoPool(root)) => Ok(format!("there is none yet at {}", root.display())),
        Err(err) => Err((err.to_string(), None)),
    }
}

/// Whether all tasks can be looked at.
fn tasks(root: &Path) -> Tried {
    let Ok(pool) = Pool::open(root, Rules::default()) else { return Ok("there are none".into()) };
    let counts = Counter::default().take(pool.layout()).map_err(|err| (err.to_string(), None))?;
    let told = |dir: &Unlisted| format!("`{}` ({}, {})", dir.path, dir.state, dir.problem);
    let Some(first) = counts.unlisted.first() else {
        return Ok("all places can be listed".to_owned());
    };
    let all: Vec<_> = counts.unlisted.iter().map(told).collect();
    let text = format!("what is in these is unknown, and nobody takes it: {}", all.join(", "));
    Err((text, Some(format!("chmod u+rwx '{}'", first.path))))
}

/// Whether all that happened can be read.
fn history(root: &Path) -> Tried {
    let Ok(pool) = Pool::open(root, Rules::default()) else { return Ok("there is none".into()) };
    let (mut follower, mut lines) = (Follower::from_start(), 0_u64);
    let read = follower.follow(pool.layout(), |_brief| lines += 1);
    read.map_err(|err| (err.to_string(), None))?;
    let damaged = follower.take_damaged();
    let Some(first) = damaged.first() else {
        return Ok(format!("{} can be read", counted(lines, "line")));
    };
    let count = counted(damaged.len(), "line");
    let text = format!(
        "{count} cannot be understood, so what they say is unknown; the first: {first} of `{}`",
        first.path.display()
    );
    Err((text, Some("mend them in an editor, or take them out".to_owned())))
}

fn permissions(place: &Path, problem: Option<&std::io::Error>) -> Tried {
    if let Some(err) = problem {
        let text = format!("could not make a directory in `{}`: {err}", place.display());
        return Err((text, None));
    }
    let meta = fs::metadata(place).map_err(|err| (err.to_string(), None))?;
    let mode = meta.mode() & 0o7777;
    if mode & 0o002 != 0 && mode & 0o1000 == 0 {
        let fix = format!("chmod o-w {}", place.display());
        return Err((format!("everybody may write in `{}`", place.display()), Some(fix)));
    }
    Ok(format!("mode {mode:04o}, owner {}", meta.uid()))
}

fn disk(place: &Path, needed: Bytes) -> Tried {
    let free = reserve::free_space(place).map_err(|err| (err.to_string(), None))?;
    if free < needed {
        let text = format!("{free} free; below {needed} submissions are refused");
        return Err((text, Some("make room, or lower disk_low in pool.toml".to_owned())));
    }
    Ok(format!("{free} free"))
}

fn gpu() -> Tried {
    match Gpus::open(None) {
        Ok(gpus) => Ok(format!("{} GPUs can be read", gpus.list().len())),
        // A machine without GPUs runs cpu tasks.
        Err(err) => Ok(format!("no GPU can be read here: {err}")),
    }
}

/// A directory to try things in.
struct Room(PathBuf);

impl Drop for Room {
    fn drop(&mut self) {
        // Hidden and empty of tasks: what stays of it disturbs nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Room {
    fn new(place: &Path) -> std::io::Result<Self> {
        let dir = place.join(format!(".doctor-{}", Incarnation::new()));
        fs::DirBuilder::new().mode(0o700).create(&dir)?;
        Ok(Self(dir))
    }

    fn locks(&self) -> Tried {
        let path = self.0.join("lock");
        let failed = |text: String| {
            let fix = "put the pool on a local file system, or on NFSv4 with locks";
            (text, Some(fix.to_owned()))
        };
        let error = |err: queue::Error| failed(err.to_string());
        let lock = Lock::try_take(&path).map_err(error)?;
        let Some(lock) = lock else {
            return Err(failed("a new lock file counts as locked".to_owned()));
        };
        if Lock::probe(&path).map_err(error)? != Holder::Somebody {
            return Err(failed("two processes can hold the same lock".to_owned()));
        }
        drop(lock);
        if Lock::probe(&path).map_err(error)? != Holder::Nobody {
            return Err(failed("a lock stays held after its holder let go".to_owned()));
        }
        Ok("taken, seen by others, freed".to_owned())
    }

    fn rename(&self) -> Tried {
        let (from, to) = (self.0.join("from"), self.0.join("to"));
        let error = |err: std::io::Error| (format!("could not rename: {err}"), None);
        File::create(&from).map_err(error)?;
        File::create(&to).map_err(error)?;
        match rustix::fs::renameat_with(CWD, &from, CWD, &to, RenameFlags::NOREPLACE) {
            Err(rustix::io::Errno::EXIST) => Ok("atomic, and never replaces".to_owned()),
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                Ok("works, but cannot be told not to replace (as on NFS): it is looked first"
                    .to_owned())
            }
            Err(err) => Err((format!("could not rename: {err}"), None)),
            Ok(()) => Err(("a rename replaced a file it was told not to".to_owned(), None)),
        }
    }

    fn notification(&self) -> Tried {
        let slow = |err: String| {
            let text =
                format!("changes are not noticed ({err}): workers look every second instead");
            let fix = "raise fs.inotify.max_user_instances and max_user_watches with sysctl";
            (text, Some(fix.to_owned()))
        };
        let (ring, rung) = bounded(1);
        let heard = move |_event: notify::Result<notify::Event>| {
            // One is enough.
            let _ = ring.try_send(());
        };
        let watch = notify::recommended_watcher(heard).and_then(|mut watcher| {
            watcher.watch(&self.0, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        let watcher = watch.map_err(|err| slow(err.to_string()))?;
        File::create(self.0.join("bell")).map_err(|err| slow(err.to_string()))?;
        let heard = rung.recv_timeout(Duration::from_secs(2));
        drop(watcher);
        heard.map_err(|_timeout| slow("no notice within 2 s".to_owned()))?;
        Ok(match network_of(&self.0) {
            None => "a change is noticed at once".to_owned(),
            Some(kind) => format!(
                "a change made on this machine is noticed at once; this is {kind}, where those made \
                 on others are not: workers look every second instead"
            ),
        })
    }

    fn clock(&self) -> Tried {
        let path = self.0.join("clock");
        let error = |err: std::io::Error| (format!("could not compare clocks: {err}"), None);
        let file = File::create(&path).map_err(error)?;
        let made = file.metadata().and_then(|meta| meta.modified()).map_err(error)?;
        let now = SystemTime::now();
        let apart = now.duration_since(made).or_else(|_| made.duration_since(now));
        let apart = apart.unwrap_or_default();
        if apart > Duration::from_secs(5) {
            let text = format!("the file system's clock is {} s off", apart.as_secs());
            return Err((text, Some("set the clocks of both machines (ntp)".to_owned())));
        }
        Ok(format!("{} ms apart from the file system's", apart.as_millis()))
    }
}
