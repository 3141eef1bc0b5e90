//! From the command line to the main loop, and back to an exit code.

pub mod cli;
pub mod rights;
pub mod server_setup;

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Instant;

use clap::Parser as _;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use queue::cli::servers::ServerSetup;
use queue::cli::{Failure, Resolved, size_limit};
use queue::dir::Pool;
use queue::dir::disk::{listing, publish, reject};
use queue::dir::ledger::append::Ledger;
use queue::dir::presence::lease::{Lease, this_process};
use queue::dir::recover::settle::{Patience, Settler};
use queue::dir::signal::control::{self, ControlVerb};
use queue::dir::signal::doorbell::{Bells, Listener};
use queue::wire::brain_state::started_by;
use queue::wire::heartbeat::Ability;
use queue::wire::heartbeat::gpu_state::GpuState;
use queue::wire::lease_record::{Process, Record, Role};
use queue::wire::ledger_line::Writer;
use shared::event::Event;
use shared::log::{Handle, LogConfig, Rotation};
use shared::settings::{Flags, Settings};
use shared::time::Moment;
use shared::{emit, exit};

use crate::attempt::context::AttemptContext;
use crate::attempt::environment::{Surroundings, passed_on};
use crate::gpu::{FirstLook, GpuWatch};
use crate::heartbeat_thread::HeartbeatThread;
use crate::job;
use crate::main_loop::{MainLoop, Tools};
use crate::oom_kills::OomKills;
use crate::worker_state::WorkerState;
use cli::{Args, Plan};
use rights::{Beginning, Rights, gpu_lock_file};

/// From KILL until the processes of a predecessor's job are called unkillable.
const GIVE_UP: std::time::Duration = std::time::Duration::from_secs(60);

/// The program `worker`, from its command line to its exit code.
#[must_use]
pub fn main() -> ExitCode {
    leave_session_of_brain();
    size_limit::survive();
    let args = Args::parse();
    let failure = match args.plan().and_then(|plan| live(&plan)) {
        Ok(Next::End) => return ExitCode::from(exit::OK),
        Ok(Next::BeginAnew) => begin_anew(),
        Err(failure) => failure,
    };
    // The last word; if stderr is closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "error: {failure}");
    ExitCode::from(failure.code)
}

/// What follows when the worker has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The process ends.
    End,
    /// The GPU that was not there when it started has come: what a worker makes for its GPU when it
    /// starts is made anew.
    BeginAnew,
}

/// The same program with the same words in the same process, so that whoever started it need not do
/// that again. All locks are free until it has them again; nothing runs that they would protect.
fn begin_anew() -> Failure {
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_else(|| "worker".into());
    let error = match std::env::current_exe() {
        Ok(program) => Command::new(program).arg0(name).args(words).exec(),
        Err(error) => error,
    };
    Failure::new(
        exit::UNEXPECTED,
        format!("could not begin anew, now that its GPU is there: {error}"),
    )
}

/// Whoever was started by the brain leaves its session, and with it the reach of its terminal:
/// before anything else, for until then a Ctrl-C meant for the brain ends the worker too.
fn leave_session_of_brain() {
    if std::env::var(started_by::VARIABLE).is_ok_and(|by| by == started_by::BRAIN) {
        // Refused only to who leads a process group already, as where a shell has started it.
        let _session = rustix::process::setsid();
    }
}

/// Who this process is, and how it speaks.
struct Me {
    writer: Writer,
    process: Process,
    started_at: Moment,
    log: Handle,
}

fn live(plan: &Plan) -> Result<Next, Failure> {
    let resolved = plan.common.resolve(&Flags::new())?;
    let pool = resolved.create()?;
    let signals = listen_for_signals()?;
    let me = introduce(plan, &resolved.settings)?;
    let gpu = plan.gpu.and_then(FirstLook::at);
    let uuid = gpu.as_ref().and_then(|look| look.gpu.uuid.clone());
    job::become_subreaper().map_err(|err| {
        Failure::new(exit::UNEXPECTED, format!("could not become a subreaper: {err}"))
    })?;
    let ledger = Ledger::new(pool.layout().clone(), me.writer.clone());
    let grace = resolved.settings.grace_period.0;
    let patience = Patience { grace, give_up: GIVE_UP };
    let settler = Settler::new(&pool, &ledger, patience);
    let lock = plan.gpu.map(|index| gpu_lock_file(&pool, index, uuid.as_deref())).transpose()?;
    let beginning = Beginning { settler, name: &plan.name, signals: &signals.received };
    let Rights { lease, gpu: _gpu_lock } = beginning.rights(lock.as_deref())?;
    take_up(&pool, plan, &lease, &me)?;
    attach_log(&me.log, &pool, plan, &resolved.settings);
    for unknown in resolved.settings.unknown_variables_here() {
        emit!(Event::UnknownVariable { unknown });
    }
    // A worker can do without; who looks after the pool tries again.
    if let Err(err) = pool.keep_reserve() {
        emit!(Event::ProcessFailed { doing: "keeping the reserve".into(), error: err.to_string() });
    }
    let place = server_setup::Place {
        pool: &pool,
        worker: &plan.name,
        gpu: visible(plan, uuid.as_ref()),
        settings: &resolved.settings,
    };
    let models = plan.server_setup.as_ref().map(|e| server_setup::start(e, &place)).transpose()?;
    let models = models.map(|models| models.expecting(plan.expected));
    let (hurry, hurried) = bounded(0);
    let context = Arc::new(AttemptContext {
        worker_state: WorkerState::new(plan.name.clone(), ability(plan, gpu.as_ref())),
        ledger: ledger.into(),
        surroundings: surroundings(&pool, plan, uuid.as_ref()),
        gpu_uuid: uuid,
        grace,
        stop_signal: signals.told.clone(),
        hurry: hurried,
        oom_kills: OomKills::here(),
        models,
    });
    if let Some(models) = &context.models {
        context.worker_state.note(|state| state.ability.server = Some(models.known()));
    }
    emit!(Event::WorkerInitialized {
        worker: plan.name.clone(),
        gpu: plan.gpu,
        port: plan.server_setup.as_ref().and_then(ServerSetup::ollama_port),
        cpu_slots: plan.cpu_slots,
    });
    let lease = Arc::new(lease);
    let signals = signals.received;
    work(&context, &resolved, Body { lease, me, gpu, signals, hurry })?;
    // Told to stop, it stops, whatever has come meanwhile.
    let told = context.is_told_to_stop();
    let begins_anew = context.worker_state.look(|state| state.begins_anew);
    Ok(if begins_anew && !told { Next::BeginAnew } else { Next::End })
}

/// What the main loop and the heartbeat thread are made of.
struct Body {
    lease: Arc<Lease>,
    me: Me,
    gpu: Option<FirstLook>,
    signals: Receiver<i32>,
    hurry: Sender<()>,
}

fn work(context: &Arc<AttemptContext>, resolved: &Resolved, body: Body) -> Result<(), Failure> {
    let Body { lease, me, gpu, signals, hurry } = body;
    let settings = resolved.settings.clone();
    let (worker, pool) = (context.worker_state.name().clone(), context.surroundings.pool.clone());
    let listener = listener(context, &settings);
    let heartbeat_thread = HeartbeatThread {
        context: context.clone(),
        lease: lease.clone(),
        process: me.process.clone(),
        life: me.writer.life.clone(),
        started_at: me.started_at,
        interval: settings.heartbeat_interval.0,
        stuck_after: settings.stuck_after.0,
        log: me.log.clone(),
        begun: Instant::now(),
    };
    let (end, ended) = bounded::<()>(0);
    let no_thread = |err| Failure::at_start("start a thread", &err);
    let thread = |name: &str| std::thread::Builder::new().name(name.into());
    // Judged before anything is claimed, or said.
    let gpu_news = GpuWatch::start(context, &settings, gpu, &ended).map_err(no_thread)?;
    let beating = {
        let ended = ended.clone();
        thread("heartbeat").spawn(move || heartbeat_thread.beat(&ended)).map_err(no_thread)?
    };
    let keeping = {
        let context = context.clone();
        let keep =
            move || context.models.iter().for_each(|m| m.keep(&context.worker_state, &ended));
        thread("models").spawn(keep).map_err(no_thread)?
    };
    emit!(Event::WorkerStarting { worker: worker.clone() });
    let main_loop = MainLoop::new(Tools {
        context: context.clone(),
        settings,
        listener,
        signals,
        hurry,
        lease: lease.clone(),
        gpu_news,
    });
    let main_loop = main_loop.map_err(no_thread)?;
    let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| main_loop.work()));
    if let Err(panic) = &worked {
        let error = shared::log::panic_text(&**panic).to_owned();
        emit!(Event::WorkerCrashed { worker: worker.clone(), error });
    }
    let completed = context.worker_state.look(|state| state.completed);
    emit!(Event::WorkerStopped { worker, completed });
    drop(end);
    // A look at the server may hang in it; the worker does not wait for that.
    drop(keeping);
    context.models.iter().for_each(|models| models.server().end());
    // A panic there was told; the lease is held here.
    let _told = beating.join();
    if worked.is_err() {
        return Err(Failure::new(exit::UNEXPECTED, "crashed in its main loop"));
    }
    say_goodbye(&pool, &lease, &me)
}

/// Rings for messages to the worker, and for tasks of its classes.
fn listener(context: &AttemptContext, settings: &Settings) -> Listener {
    let worker = context.worker_state.name().clone();
    let classes = context.worker_state.look(|state| state.ability.classes.clone());
    let bells = Bells::Worker(worker.clone(), classes);
    let listener = Listener::new(context.surroundings.pool.layout(), &bells);
    if !listener.hears() {
        let seconds = settings.poll_without_notify.0.as_secs_f64();
        let error = "no notification can be had here".to_owned();
        emit!(Event::WorkerPolling { worker, seconds, error });
    }
    listener
}

/// Nothing left in `processing/`: others need not settle anything.
fn say_goodbye(pool: &Pool, lease: &Lease, me: &Me) -> Result<(), Failure> {
    let left = listing::tasks_in(&pool.layout().processing_of(lease.worker()))?.tasks;
    if left.is_empty() {
        lease.write(&Record {
            role: Role::Over,
            writers: Vec::new(),
            since: Moment::now(),
            ..record(lease, me, None)
        })?;
    }
    Ok(())
}

fn record(lease: &Lease, me: &Me, gpu: Option<u32>) -> Record {
    let (worker, life) = (lease.worker().clone(), me.writer.life.clone());
    let writers = vec![me.writer.clone()];
    Record { gpu, writers, ..Record::of(worker, me.process.clone(), life, me.started_at) }
}

/// From here on the lease, the place in `processing/` and the messages are this life's.
fn take_up(pool: &Pool, plan: &Plan, lease: &Lease, me: &Me) -> Result<(), Failure> {
    let has_own = matches!(plan.server_setup, Some(ServerSetup::Own(_)));
    let server = has_own.then(|| queue::fence::server_mark(pool.root(), &plan.name));
    lease.write(&Record { server, ..record(lease, me, plan.gpu) })?;
    make_place(pool, &pool.layout().processing_of(&plan.name))?;
    // What was asked of the life before was not asked of this one.
    for verb in [ControlVerb::Drain, ControlVerb::Stop] {
        control::withdraw(pool.layout(), &plan.name, verb)?;
    }
    control::clear_tasks(pool.layout(), &plan.name)?;
    Ok(())
}

/// What stands where the directory should be is put aside: nothing could be claimed.
fn make_place(pool: &Pool, place: &Path) -> Result<(), Failure> {
    let is_dir = std::fs::metadata(place).is_ok_and(|meta| meta.is_dir());
    if !is_dir && std::fs::symlink_metadata(place).is_ok() {
        let reason = "it is where the directory of a worker should be".to_owned();
        if let Some(file) = reject::reject(pool.layout(), place, &reason)? {
            emit!(Event::TaskRejected { file, reason });
        }
    }
    publish::make_dirs_flushed(place)?;
    Ok(())
}

fn introduce(plan: &Plan, settings: &Settings) -> Result<Me, Failure> {
    let writer = Writer::new(plan.name.clone());
    let config = LogConfig {
        process: plan.name.to_string(),
        worker_id: Some(plan.name.clone()),
        incarnation: writer.life.clone(),
        stderr: plan.common.log_format.into(),
        level: plan.common.level(settings),
    };
    let log =
        shared::log::init(config).map_err(|err| Failure::new(exit::UNEXPECTED, err.to_string()))?;
    Ok(Me { writer, process: this_process(), started_at: Moment::now(), log })
}

fn attach_log(log: &Handle, pool: &Pool, plan: &Plan, settings: &Settings) {
    let rotation = Rotation::of(settings);
    let (dir, name) = (pool.layout().logs(), format!("worker-{}", plan.name));
    if let Err(err) = log.attach_file(&dir, &name, rotation) {
        let path = dir.join(format!("{name}.jsonl"));
        emit!(Event::LogSinkFailed { path, error: err.to_string() });
    }
}

/// Its GPU, as CUDA should see it: the identity where known, else the index.
fn visible(plan: &Plan, uuid: Option<&String>) -> Option<String> {
    uuid.cloned().or(plan.gpu.map(|index| index.to_string()))
}

fn ability(plan: &Plan, gpu: Option<&FirstLook>) -> Ability {
    Ability {
        classes: plan.classes.clone(),
        gpu: plan.gpu,
        gpu_uuid: gpu.and_then(|look| look.gpu.uuid.clone()),
        gpu_memory: gpu.and_then(FirstLook::memory),
        gpu_state: GpuState::default(),
        gpu_slots: plan.gpu_slots,
        cpu_slots: plan.cpu_slots,
        paused: None,
        draining: None,
        starved: None,
        backs_off: Vec::new(),
        server: None,
    }
}

fn surroundings(pool: &Pool, plan: &Plan, uuid: Option<&String>) -> Surroundings {
    Surroundings {
        pool: pool.clone(),
        worker: plan.name.clone(),
        gpu: visible(plan, uuid),
        own: passed_on(std::env::vars_os()),
    }
}

/// What tells the worker to stop.
struct StopSignals {
    /// Each of them.
    received: Receiver<i32>,
    /// Closed at the first.
    told: Receiver<()>,
}

fn listen_for_signals() -> Result<StopSignals, Failure> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let failed = |err| Failure::at_start("listen for signals", &err);
    let mut signals =
        signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(failed)?;
    let (send, received) = unbounded();
    let (first, told) = bounded(0);
    let forward = move || {
        let mut first = Some(first);
        for signal in signals.forever() {
            drop(first.take());
            if send.send(signal).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(forward).map_err(failed)?;
    Ok(StopSignals { received, told })
}
