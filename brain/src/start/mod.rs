//! From the command line to the running brain: one per pool, the others stand by.

pub(super) mod cli;
pub(crate) mod standby;

use crossbeam_channel::unbounded;
use queue::Pool;
use queue::cli::Failure;
use queue::dir::ledger::append::Ledger;
use queue::dir::presence::lease::this_process;
use queue::wire::brain_state::BrainRecord;
use queue::wire::ledger_line::Writer;
use shared::emit;
use shared::event::Event;
use shared::log::{self, LogConfig, Rotation};
use shared::settings::Settings;
use shared::time::Moment;

use crate::effects::children::Spawning;
use crate::effects::model_servers::Servers;
use crate::main_loop::{Brain, Parts, signals};
use cli::Args;
use standby::take_lock;

/// Runs until a signal ends it.
pub(crate) fn start(args: Args) -> Result<(), Failure> {
    let resolved = args.common.resolve(&args.flags())?;
    let settings = resolved.settings.clone();
    let fleet = args.fleet(&settings)?;
    let servers = Servers::new(&args.servers, &settings, args.gpu_list())?;
    let writer = Writer::new("brain".parse().expect("`brain` is a name"));
    let log = log::init(LogConfig {
        process: "brain".into(),
        worker_id: None,
        incarnation: writer.life.clone(),
        stderr: args.common.log_format.into(),
        level: args.common.level(&settings),
    });
    let log = log.map_err(|err| Failure::new(shared::exit::UNEXPECTED, err.to_string()))?;
    let (tell, signals) = unbounded();
    signals::listen(tell)?;
    let pool = resolved.create()?;
    let record =
        BrainRecord { process: this_process(), life: writer.life.clone(), since: Moment::now() };
    let Some(held) = take_lock(&pool, &signals, &record)? else { return Ok(()) };
    let record = BrainRecord { since: Moment::now(), ..record };
    held.lock.write_record(&record)?;
    attach_log(&log, &pool, &settings);
    let gpus = args.gpu_list().to_vec();
    emit!(Event::BrainStarted { pid: record.process.pid, gpus: gpus.clone() });
    for unknown in settings.unknown_variables_here() {
        emit!(Event::UnknownVariable { unknown });
    }
    if let Some(waited) = held.waited {
        emit!(Event::BrainTookOver { waited_seconds: waited.as_secs_f64() });
    }
    let ledger = Ledger::new(pool.layout().clone(), writer);
    let (lock, spawning) = (held.lock, Spawning { common: args.common, servers });
    let parts = Parts { pool, ledger, settings, fleet, gpus, record, lock, log, signals, spawning };
    Brain::new(parts)?.run()
}

fn attach_log(log: &log::Handle, pool: &Pool, settings: &Settings) {
    let rotation = Rotation::of(settings);
    let dir = pool.layout().logs();
    if let Err(err) = log.attach_file(&dir, "brain", rotation) {
        let (path, error) = (dir.join("brain.jsonl"), err.to_string());
        emit!(Event::LogSinkFailed { path, error });
    }
}
