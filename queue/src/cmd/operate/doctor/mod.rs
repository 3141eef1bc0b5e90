//! `queue doctor`: is this place fit to be a pool? Everything is tried where the pool is: locks,
//! renames and notices that work elsewhere may not work there.

mod contents;
mod owners;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use crossbeam_channel::bounded;
use notify::RecursiveMode;
use queue::cli::{Failure, Resolved, variable};
use queue::dir::disk::lock::{Holder, Lock};
use queue::dir::disk::network::network_of;
use queue::dir::disk::owner;
use queue::dir::disk::reserve;
use queue::dir::layout::Layout;
use queue::dir::pool::audit;
use queue::dir::runs::largest::largest;
use queue::dir::signal::notice;
use queue::dir::{Pool, Rules};
use queue::error::help;
use queue::view;
use rustix::fs::{CWD, RenameFlags};
use serde::Serialize;
use serde_json::json;
use shared::exit;
use shared::gpu::Gpus;
use shared::id::Incarnation;
use shared::quantity::{Bytes, counted};
use shared::settings::{self, Flags, Settings};
use shared::time::Moment;

use crate::cmd::operate::config::warn_of_variables;
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
        let (root, _origin) = settings::pool_dir(flag, variable)
            .map_err(|err| Failure::new(exit::NO_POOL, err.to_string()))?;
        let resolved = app.shared.common.resolve(&Flags::new());
        resolved.iter().for_each(|resolved| warn_of_variables(&resolved.settings));
        let place = nearest_directory(&root);
        let opened = Pool::open(&root, Rules::default());
        let needed =
            resolved.as_ref().map_or(Settings::default().disk_low, |r| r.settings.disk_low);
        let mut checks = vec![
            Check::of(
                "settings",
                resolved.as_ref().map(settings).map_err(|err| (err.to_string(), None)),
            ),
            Check::of("pool", pool(&opened)),
        ];
        if let Ok(pool) = &opened {
            checks.push(Check::of("owners", owners_of(pool)));
            checks.push(Check::of("tasks", contents::tasks(pool)));
            checks.push(Check::of("history", contents::history(pool)));
        }
        match owner::require(&root) {
            Ok(()) => {
                let room = Room::new(&place);
                let permitted = permissions(&place, room.as_ref().err());
                checks.push(Check::of("permissions", permitted));
                checks.extend(room.iter().flat_map(Room::all));
            }
            Err(not_ours) => checks.push(Check::of("permissions", Ok(left_out(not_ours)))),
        }
        checks.push(Check::of("disk", disk(&root, &place, needed)));
        let settings = resolved.as_ref().map(|r| r.settings.clone()).unwrap_or_default();
        checks.push(Check::of("gpu", gpu(&root, &settings)));
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

fn pool(opened: &Result<Pool, queue::Error>) -> Tried {
    match opened {
        Ok(pool) => Ok(format!("{}", pool.root().display())),
        // The place is asked about; a pool can be made there.
        Err(queue::Error::NoPool(root)) => Ok(format!("there is none yet at {}", root.display())),
        Err(err) => Err((err.to_string(), None)),
    }
}

fn owners_of(pool: &Pool) -> Tried {
    let audit = audit::audit(pool.layout()).map_err(|err| (err.to_string(), None))?;
    owners::judge(pool.root(), &audit)
}

/// Whoever may not change the pool may look at it.
fn left_out(not_ours: queue::Error) -> String {
    let all = "locks, rename, notification and clock, which are tried by writing";
    format!("left out: {all}. {}", Failure::from(not_ours))
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

fn disk(root: &Path, place: &Path, needed: Bytes) -> Tried {
    let free = reserve::free_space(place).map_err(|err| (err.to_string(), None))?;
    if free < needed {
        let text = format!("{free} free; below {needed} submissions are refused");
        let logs = largest(&Layout::new(root), 3).unwrap_or_default();
        let logs: Vec<_> =
            logs.iter().map(|log| format!("{} ({})", log.path.display(), log.kept)).collect();
        let largest = match logs.is_empty() {
            true => String::new(),
            false => format!(" (the largest run logs: {})", logs.join(", ")),
        };
        let fix = format!("make room{largest}, or lower disk_low in pool.toml");
        return Err((text, Some(fix)));
    }
    Ok(format!("{free} free"))
}

fn gpu(root: &Path, settings: &Settings) -> Tried {
    let read = match Gpus::open(None) {
        Ok(gpus) => format!("{} can be read", counted(gpus.list().len(), "GPU")),
        // A machine without GPUs runs cpu tasks.
        Err(err) => format!("no GPU can be read here: {err}"),
    };
    // What is wrong with a pool, or with none being there, is told elsewhere.
    let pool = Pool::open(root, Rules::default()).ok();
    let workers = pool.and_then(|pool| view::workers(&pool, settings, Moment::now()).ok());
    let unfit: Vec<_> =
        workers.into_iter().flatten().filter_map(|worker| view::gpu_warning(&worker)).collect();
    match unfit.first() {
        None => Ok(read),
        Some(first) => {
            let texts: Vec<_> = unfit.iter().map(|reason| reason.text.as_str()).collect();
            Err((format!("{read}; {}", texts.join("; ")), first.fix.clone()))
        }
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

    /// All that is tried in it.
    fn all(&self) -> [Check; 4] {
        [
            Check::of("locks", self.locks()),
            Check::of("rename", self.rename()),
            Check::of("notification", self.notification()),
            Check::of("clock", self.clock()),
        ]
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
        let slow_for = |err: String, fix: &str| {
            let text =
                format!("changes are not noticed ({err}): workers look every second instead");
            (text, Some(fix.to_owned()))
        };
        let watches = "raise fs.inotify.max_user_instances and max_user_watches with sysctl";
        let slow = |err: String| slow_for(err, watches);
        let (ring, rung) = bounded(1);
        let heard = move |_event: notify::Result<notify::Event>| {
            // One is enough.
            let _ = ring.try_send(());
        };
        let watcher = notice::watch(&[&self.0], RecursiveMode::NonRecursive, heard);
        let watcher = watcher.map_err(|err| {
            if let notify::ErrorKind::Io(io) = &err.kind
                && io.kind() == ErrorKind::WouldBlock
            {
                // A thread could not be had.
                return slow_for(io.to_string(), help(io).trim_start_matches("; "));
            }
            slow(err.to_string())
        })?;
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
