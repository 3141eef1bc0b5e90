//! A job that does as it is told, word by word, so that no test depends on `sleep`.
//!
//! | word | does |
//! |---|---|
//! | `say=TEXT`, `err=TEXT`, `bytes=N` | prints a line on stdout, on stderr; N bytes on stdout |
//! | `env=NAME`, `cwd`, `cat` | prints a variable, the working folder, its stdin |
//! | `exit=N`, `signal=N` | ends with a code, by a signal |
//! | `touch=FILE`, `progress` | makes a file new, `$BRAINSTEM_PROGRESS_FILE` |
//! | `mark=FILE` | appends `start TASK ATTEMPT PID NANOSECONDS`, and `end …` when it ends |
//! | `alone=DIR` | holds the lock `DIR/TASK`, as does all that it starts; appends to `DIR/overlaps` where somebody else holds it |
//! | `fifo=FILE` | blocks until somebody opened and closed the FIFO's other end |
//! | `spin=SECONDS` | uses that much CPU time |
//! | `rest=SECONDS` | waits so long |
//! | `hang` | waits for ever |
//! | `ignore-term` | lives on at SIGTERM |
//! | `child` | leaves a hanging process in its process group |
//! | `daemon`, `daemon=closed`, `daemon=noenv` | leaves one in a session of its own: that holds the log; that does not; that holds it and has no environment |
//! | `exit75-until=FILE:N` | ends with 75 the first N times (the file counts) |

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};
use std::{env, mem, thread};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Signal, getpid, kill_process, setsid};
use rustix::time::{ClockId, Timespec, clock_gettime};

fn main() -> ExitCode {
    let mut marked = Vec::new();
    let code = match obey(&mut marked) {
        Ok(code) => code,
        Err(error) => {
            // A job whose stderr is closed can say nothing more.
            let _ = writeln!(io::stderr(), "fake-job: {error}");
            98
        }
    };
    for file in marked {
        if mark(Path::new(&file), "end").is_err() {
            return ExitCode::from(97);
        }
    }
    ExitCode::from(code)
}

fn obey(marked: &mut Vec<String>) -> io::Result<u8> {
    for word in env::args().skip(1) {
        let (verb, rest) = word.split_once('=').unwrap_or((&word, ""));
        match verb {
            "exit" => return number(rest),
            "exit75-until" => {
                if not_yet(rest)? {
                    return Ok(shared::exit::TRY_LATER);
                }
            }
            "mark" => {
                mark(Path::new(rest), "start")?;
                marked.push(rest.to_owned());
            }
            _ => act(verb, rest)?,
        }
    }
    Ok(0)
}

fn act(verb: &str, rest: &str) -> io::Result<()> {
    match verb {
        "say" => writeln!(io::stdout(), "{rest}"),
        "err" => writeln!(io::stderr(), "{rest}"),
        "bytes" => print(number(rest)?),
        "env" => writeln!(io::stdout(), "{rest}={}", variable(rest)),
        "cwd" => writeln!(io::stdout(), "{}", env::current_dir()?.display()),
        "cat" => io::copy(&mut io::stdin(), &mut io::stdout()).map(drop),
        "signal" => kill(number(rest)?),
        "touch" => touch(rest),
        "progress" => touch(&variable("BRAINSTEM_PROGRESS_FILE")),
        // Opening a FIFO for reading blocks until the test opens the other end.
        "fifo" => fs::read(rest).map(drop),
        "spin" => spin(number(rest)?),
        "rest" => rest_for(Duration::try_from_secs_f64(number(rest)?).map_err(io::Error::other)?),
        "alone" => alone(Path::new(rest)),
        "hang" => hang(),
        "ignore-term" => ignore_term(),
        "child" => spawn(&["hang"], |_same_everything| {}).map(drop),
        "daemon" => daemon(rest),
        "setsid" => setsid().map(drop).map_err(Into::into),
        unknown => Err(io::Error::other(format!("unknown word {unknown}"))),
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_missing| "-".into())
}

fn number<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse().map_err(|_error| io::Error::other(format!("no number: {text}")))
}

fn print(mut bytes: usize) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let line = [[b'x'; 79].as_slice(), b"\n"].concat();
    while bytes > 0 {
        let now = bytes.min(line.len());
        out.write_all(&line[line.len() - now..])?;
        bytes -= now;
    }
    out.flush()
}

fn touch(file: &str) -> io::Result<()> {
    let file = OpenOptions::new().create(true).append(true).open(file)?;
    file.set_modified(SystemTime::now())
}

/// One write in append mode, so that the lines of many jobs never mix.
fn mark(file: &Path, moment: &str) -> io::Result<()> {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Monotonic);
    let (task, attempt) = (variable("BRAINSTEM_TASK_ID"), variable("BRAINSTEM_ATTEMPT"));
    let at = i128::from(tv_sec) * 1_000_000_000 + i128::from(tv_nsec);
    let line = format!("{moment} {task} {attempt} {} {at}\n", std::process::id());
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    file.write_all(line.as_bytes())
}

fn not_yet(file_and_times: &str) -> io::Result<bool> {
    let (file, times) = file_and_times
        .rsplit_once(':')
        .ok_or_else(|| io::Error::other("exit75-until wants FILE:N"))?;
    let mut file: File = OpenOptions::new().create(true).append(true).open(file)?;
    file.write_all(b".")?;
    Ok(file.metadata()?.len() <= number(times)?)
}

fn spin(seconds: f64) -> io::Result<()> {
    let used = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        #[expect(clippy::cast_precision_loss, reason = "a test's CPU time is small")]
        let seconds = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
        seconds
    };
    let end = used() + seconds;
    while used() < end {
        std::hint::spin_loop();
    }
    Ok(())
}

fn kill(signal: i32) -> io::Result<()> {
    let signal = Signal::from_named_raw(signal).ok_or_else(|| io::Error::other("no signal"))?;
    // Rust's own handler of SIGSEGV and SIGBUS only steps aside the first time.
    loop {
        kill_process(getpid(), signal)?;
        thread::yield_now();
    }
}

/// Handled, not blocked or ignored: whatever it starts dies of SIGTERM as usual.
fn ignore_term() -> io::Result<()> {
    let unread = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, unread).map(drop)
}

fn rest_for(time: Duration) -> io::Result<()> {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        thread::park_timeout(left);
    }
    Ok(())
}

/// The kernel frees the lock when the last process of the job is gone, and not before; so it
/// proves, without any record of ours, that no two attempts of a task ran at the same time.
fn alone(dir: &Path) -> io::Result<()> {
    let task = dir.join(variable("BRAINSTEM_TASK_ID"));
    let file = OpenOptions::new().create(true).append(true).open(task)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => mark(&dir.join("overlaps"), "overlap")?,
        Err(TryLockError::Error(error)) => return Err(error),
    }
    fcntl_setfd(&file, FdFlags::empty())?;
    // Open until the process ends.
    mem::forget(file);
    Ok(())
}

fn hang() -> ! {
    loop {
        thread::park();
    }
}

fn spawn(words: &[&str], change: impl FnOnce(&mut Command)) -> io::Result<u32> {
    let mut command = Command::new(env::current_exe()?);
    command.args(words).stdin(Stdio::null());
    change(&mut command);
    // Never waited for: that is the point of it.
    command.spawn().map(|child| child.id())
}

/// Returns when the daemon has left the session, so that what the test does next finds it there.
fn daemon(how: &str) -> io::Result<()> {
    let pid = spawn(&["setsid", "hang"], |command| match how {
        "closed" => {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        "noenv" => {
            command.env_clear();
        }
        _ => {}
    })?;
    // Not by `getsid`: it says 0 where our session was made outside our PID namespace, as under a
    // container's `exec`. A session's leader leads its process group, too.
    while queue::fence::stat(pid).ok_or_else(|| io::Error::other("the daemon ended"))?.group != pid
    {
        thread::yield_now();
    }
    Ok(())
}
