//! The table of all events: per part of the system its name, level, fields and sentence.
//!
//! A field `task` and a field `attempt` go to their own places in a log line, all others to
//! `extra`. Sentences that requirements fix word by word are tested word by word.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::events;
use super::parts::{
    Ending, Monitor, Scaling, Statistics, StuckTask, Why, after_silence, aside, idle, known,
    name_list, place, share, span, stuck_list, tenths, within,
};
use super::placement::{LoadOutlook, Placement, again, deferred, each};
use crate::id::{BatchId, TaskId};
use crate::llm::ModelVerb;
use crate::name::Name;
use crate::outcome::Cause;
use crate::quantity::{Bytes, counted};
use crate::reason::Reason;
use crate::task::Class;
use crate::time::Moment;

events! {
    "worker.main" {
        "worker.initialized" Info WorkerInitialized { worker: Name, gpu: Option<u32>, port: Option<u16>, cpu_slots: u32 }
            => ("Worker initialized: {worker} {}", place(*gpu, *port, *cpu_slots));
        "worker.starting" Info WorkerStarting { worker: Name }
            => ("Worker {worker} starting main loop");
        "worker.signal" Info WorkerSignal { worker: Name, signal: String }
            => ("Worker {worker} received shutdown signal");
        "worker.crashed" Critical WorkerCrashed { worker: Name, error: String }
            => ("Worker {worker} crashed in main loop: {error}");
        "worker.stopped" Info WorkerStopped { worker: Name, completed: u64 }
            => ("Worker {worker} shutting down - completed {completed} tasks");
        "worker.draining" Info WorkerDraining { worker: Name, running: u64 }
            => ("Worker {worker} draining: takes nothing new, running: {running}");
        "worker.heartbeat" Debug WorkerHeartbeat { worker: Name, status: &'static str, idle_seconds: Option<f64> }
            => ("Heartbeat sent - status: {status}{}", idle(*idle_seconds));
        "worker.heartbeat_failed" Warning WorkerHeartbeatFailed { worker: Name, error: String, count: u64 }
            => ("Heartbeat of {worker} could not be written: {error}");
        "worker.heartbeat_restored" Info WorkerHeartbeatRestored { worker: Name, seconds: f64 }
            => ("Heartbeat of {worker} can be written again after {}", span(*seconds));
        "worker.lock_wait" Info WorkerLockWait { worker: Name, holder: String }
            => ("Worker {worker} waits for its lock: held by {holder}");
        "worker.lock_held" Error WorkerLockHeld { worker: Name, holder: String }
            => ("Worker {worker} cannot start: its lock is held by {holder}");
        "worker.lock_lost" Critical WorkerLockLost { worker: Name, path: PathBuf }
            => ("Worker {worker} stops claiming: its lock file {} is not the one it locked", path.display());
        "worker.polling" Warning WorkerPolling { worker: Name, seconds: f64, error: String }
            => ("Worker {worker} looks every {} because it cannot be notified: {error}", span(*seconds));
    }
    "worker.claim" {
        "claim.attempt" Debug ClaimAttempt { task: TaskId, attempt: u32 }
            => ("Attempting claim: {}", task.short());
        "claim.lost_race" Debug ClaimLostRace { task: TaskId, attempt: u32 }
            => ("Lost race: {} (claimed by another worker)", task.short());
        "claim.lock_timeout" Debug ClaimLockTimeout { limit: String, used: u64, allowed: u64 }
            => ("Lock timeout: limit {limit} ({used} of {allowed} in use)");
        "claim.won" Info ClaimWon { task: TaskId, attempt: u32, class: Class, task_name: String, lane: String, waited_seconds: Option<f64> }
            => ("Claimed {class} task: {} ({task_name})", task.short());
        "claim.report" Info ClaimReport { text: String, reasons: Vec<Reason> }
            => ("{text}");
        "claim.report_again" Debug ClaimReportAgain { text: String, reasons: Vec<Reason> }
            => ("{text}");
        "claim.failed" Error ClaimFailed { error: String, count: u64 }
            => ("Claim pass failed: {error}");
    }
    "queue.task" {
        "task.submitted" Info TaskSubmitted { task: TaskId, class: Class, task_name: String, lane: String, user: String }
            => ("Submitted {class} task: {} ({task_name})", task.short());
        "task.batch_submitted" Info BatchSubmitted { batch: BatchId, tasks: u64, user: String }
            => ("Submitted batch {}: {}", batch.short(), counted(tasks, "task"));
        "task.started" Info TaskStarted { task: TaskId, attempt: u32, what: String, pid: u32, log: PathBuf }
            => ("Started {what}, attempt {attempt}, pid {pid}");
        "task.completed" Info TaskCompleted { task: TaskId, attempt: u32, what: String, ending: Ending }
            => ("Completed {what} in {}", tenths(ending.seconds.unwrap_or(0.0)));
        "task.failed" Warning TaskFailed { task: TaskId, attempt: u32, what: String, ending: Ending }
            => ("Failed {what}, attempt {attempt}: {ending}");
        "task.cancelled" Info TaskCancelled { task: TaskId, attempt: u32, what: String, ending: Ending }
            => ("Cancelled {what}: {ending}");
        "task.returned" Info TaskReturned { task: TaskId, attempt: u32, what: String, ending: Ending }
            => ("Returned {what}: {ending}");
        "task.retried" Info TaskRetried { task: TaskId, attempt: u32, by: String }
            => ("Retried task: {} by {by}, attempt {attempt} comes next", task.short());
        "task.held" Info TaskHeld { task: TaskId, by: String }
            => ("Held task: {} by {by}", task.short());
        "task.released" Info TaskReleased { task: TaskId, by: String }
            => ("Released task: {} by {by}", task.short());
        "task.promoted" Info TaskPromoted { task: TaskId, after: Vec<TaskId> }
            => ("Released task: {} (all it waited for has ended: {})", task.short(), after.len());
        "task.due" Info TaskDue { task: TaskId, attempt: u32 }
            => ("Delay over for task: {}, attempt {attempt} is in the queue", task.short());
        "task.dependency_failed" Warning TaskDependencyFailed { task: TaskId, needed: TaskId }
            => ("Cancelled task: {} because {}, which it waited for, did not end as needed", task.short(), needed.short());
        "task.rejected" Warning TaskRejected { file: PathBuf, reason: String }
            => ("Rejected {}: {reason}", file.display());
        "task.requeued" Warning TaskRequeued { task: TaskId, attempt: u32, worker: Name, deaths: u32 }
            => ("Requeued task: {} after the death of {worker} (deaths: {deaths})", task.short());
        "task.dropped" Warning TaskDropped { task: TaskId, attempt: u32, worker: Name }
            => ("Attempt {attempt} of {} was claimed by {worker} and in nobody's hand: given back", task.short());
        "task.abandoned" Warning TaskAbandoned { task: TaskId, attempt: u32, worker: Name, by: String }
            => ("{by} says that attempt {attempt} of {}, which {worker} left, is over", task.short());
        "task.poison" Error TaskPoison { task: TaskId, attempt: u32, worker: Name, deaths: u32 }
            => ("Task {} was running at {deaths} worker deaths, last of {worker}: moved to failed", task.short());
        "brake.held" Warning BrakeHeld { batch: Option<BatchId>, what: String, tasks: Vec<TaskId>, advice: String }
            => ("Held {what}; {advice}");
        "brake.probe" Info BrakeProbe { task: TaskId, attempt: u32 }
            => ("Trying {}, attempt {attempt}, while the others like it are held", task.short());
        "brake.released" Info BrakeReleased { batch: Option<BatchId>, what: String, by: String }
            => ("Released {what}: {by}");
        "task.cancel_asked" Info TaskCancelAsked { task: TaskId, attempt: u32, worker: Name, by: String }
            => ("Cancel of running task: {} asked of {worker} by {by}", task.short());
    }
    "worker.job" {
        "job.spawn_failed" Error JobSpawnFailed { task: TaskId, attempt: u32, error: String }
            => ("Job of {} could not be started: {error}", task.short());
        "job.terminated" Warning JobTerminated { task: TaskId, attempt: u32, why: Why, seconds: f64, grace_seconds: f64 }
            => ("Sent TERM to job of {} after {} ({why}); KILL follows in {}", task.short(), span(*seconds), span(*grace_seconds));
        "job.killed" Warning JobKilled { task: TaskId, attempt: u32, why: Why }
            => ("Sent KILL to job of {} ({why}): it did not end in its grace period", task.short());
        "job.leaked" Warning JobLeaked { task: TaskId, attempt: u32, pids: Vec<u32> }
            => ("Job of {} left {} behind: ended", task.short(), processes(pids.len()));
        "job.unkillable" Error JobUnkillable { task: TaskId, attempt: u32, pids: Vec<u32>, seconds: f64, count: u64 }
            => ("Job of {} cannot be ended for {}: pids {pids:?} ignore KILL, the task stays where it is", task.short(), span(*seconds));
        "job.may_run" Warning JobMayRun { task: TaskId, attempt: u32, why: String, count: u64 }
            => ("Attempt {attempt} of {} may still run, so it waits: {why}", task.short());
        "job.log_held" Warning JobLogHeld { task: TaskId, attempt: u32, path: PathBuf }
            => ("Job of {} has ended, but somebody who cannot be found can still write to its run log {}", task.short(), path.display());
        "job.log_cut" Warning JobLogCut { task: TaskId, attempt: u32, path: PathBuf, cap: String, missing: Bytes }
            => ("Log of {} grew beyond its cap of {cap}: {missing} are cut out of {}", task.short(), path.display());
        "job.log_uncut" Warning JobLogUncut { task: TaskId, attempt: u32, path: PathBuf, cap: String, bytes: Bytes }
            => ("Log of {} grew beyond its cap of {cap}, and no file can be cut on this file system: {} has {bytes}", task.short(), path.display());
        "job.log_failed" Warning JobLogFailed { task: TaskId, attempt: u32, path: PathBuf, error: String }
            => ("Run log {} of {}: {error}", path.display(), task.short());
    }
    "worker.gpu" {
        "gpu.quarantined" Error GpuQuarantined { worker: Name, gpu: String, fault: String, times: u32, seconds: f64, count: u64 }
            => ("GPU {gpu} of {worker} is out of use: {fault}; it is rechecked, and back in {} at the earliest", span(*seconds));
        "gpu.fit_again" Info GpuFitAgain { worker: Name, gpu: String, seconds: f64 }
            => ("GPU {gpu} of {worker} is in use again after {}", span(*seconds));
        "gpu.hot" Warning GpuHot { worker: Name, gpu: String, celsius: u32, resume: u32, count: u64 }
            => ("GPU {gpu} of {worker} is at {celsius} °C: it is given nothing new until it is down to {resume} °C");
        "gpu.too_hot" Critical GpuTooHot { worker: Name, gpu: String, celsius: u32, resume: u32, count: u64 }
            => ("GPU {gpu} of {worker} is at {celsius} °C, above its hard limit: look after its cooling; it is given nothing new until it is down to {resume} °C");
        "gpu.cooled" Info GpuCooled { worker: Name, gpu: String, seconds: f64 }
            => ("GPU {gpu} of {worker} is cool again after {}", span(*seconds));
    }
    "worker.model" {
        "model.asked" Debug ModelAsked { task: TaskId, attempt: u32, what: String, model: String, server: String, log: PathBuf }
            => ("Asked {model} at {server}: {what}, attempt {attempt}");
        "model.loading" Info ModelLoading { worker: Name, model: String, server: String }
            => ("Loading {model} on {worker} ({server})");
        "model.loaded" Info ModelLoaded { worker: Name, model: String, seconds: Option<f64>, canary_seconds: f64, size: Option<Bytes>, vram: Option<Bytes> }
            => ("Loaded {model} on {worker}{}: it answers ({})", within(*seconds), share(*size, *vram));
        "model.unloaded" Info ModelUnloaded { worker: Name, model: String, asked: bool }
            => ("Unloaded {model} on {worker}{}", if *asked { "" } else { ": the server no longer holds it" });
        "model.load_failed" Warning ModelLoadFailed { worker: Name, model: String, cause: Cause, error: String }
            => ("Loading {model} on {worker} failed ({cause}): {error}");
        "model.on_cpu" Warning ModelOnCpu { worker: Name, model: String, size: Bytes, vram: Bytes }
            => ("Model {model} on {worker} is {} on the processor: {vram} of {size} are in GPU memory", if vram.0 == 0 { "wholly" } else { "partly" });
        "model.slow" Warning ModelSlow { worker: Name, model: String, tokens_per_second: f64, usual: f64 }
            => ("Model {model} on {worker} writes {tokens_per_second:.1} tokens/s, usually {usual:.1}: has it fallen back to the processor?");
        "model.quick_again" Info ModelQuickAgain { worker: Name, model: String, tokens_per_second: f64 }
            => ("Model {model} on {worker} writes {tokens_per_second:.1} tokens/s again");
        "model.silent" Warning ModelSilent { worker: Name, model: String, error: String }
            => ("Model {model} on {worker} does not answer: {error}");
        "model.answers_again" Info ModelAnswersAgain { worker: Name, model: String, seconds: f64 }
            => ("Model {model} on {worker} answers again after {}", span(*seconds));
        "server.up" Info ServerUp { worker: Name, server: String, seconds: Option<f64> }
            => ("Model server {server} of {worker} answers{}", after_silence(*seconds));
        "server.absent" Info ServerAbsent { worker: Name, server: String }
            => ("No model server at {server}: {worker} runs scripts, and prompts once there is one");
        "server.down" Warning ServerDown { worker: Name, server: String, error: String }
            => ("Model server {server} of {worker} does not answer: {error}");
        "server.down_again" Debug ServerDownAgain { worker: Name, server: String, error: String }
            => ("Model server {server} of {worker} still does not answer: {error}");
        "server.busy" Warning ServerBusy { worker: Name, server: String, model: String, error: String, seconds: f64 }
            => ("Model server {server} of {worker} is busy, {model} is asked for again in {}: {error}", span(*seconds));
        "server.busy_cleared" Info ServerNotBusy { worker: Name, server: String, model: String, seconds: f64 }
            => ("Model server {server} of {worker} has time for {model} again after {}", span(*seconds));
        "server.wedged" Error ServerWedged { worker: Name, server: String, model: String, error: String }
            => ("Model server {server} of {worker} is wedged: it answers pings, but {model} does not answer: {error}");
        "worker.loads_alone" Info WorkerLoadsAlone { worker: Name, model: String, verb: ModelVerb, waiting: u64, seconds: f64 }
            => ("No brain for {}: {worker} asks itself to {verb} {model}, tasks waiting for it: {waiting}", span(*seconds));
    }
    "brain.main" {
        "brain.started" Info BrainStarted { pid: u32, gpus: Vec<u32> }
            => ("Brain started: pid {pid}, GPUs {gpus:?}");
        "brain.standby" Info BrainStandby { holder: String }
            => ("Standing by: the brain's lock is held by {holder}");
        "brain.took_over" Info BrainTookOver { waited_seconds: f64 }
            => ("Brain took over after {} of standing by", span(*waited_seconds));
        "brain.stopping" Info BrainStopping { reason: String, workers: u64 }
            => ("Brain stopping ({reason}): draining {}", counted(workers, "worker"));
        "brain.stopped" Info BrainStopped { cycles: u64 }
            => ("Brain stopped after {cycles} cycles");
        "brain.hung" Error BrainHung { pid: Option<u32>, seconds: f64, count: u64 }
            => ("Brain holds its lock but its state has not moved for {}", span(*seconds));
        "brain.step_failed" Error BrainStepFailed { step: String, error: String, count: u64 }
            => ("Step {step} failed, the others go on: {error}");
        "brain.boot_reconciled" Info BootReconciled { lines: u64, moved: u64 }
            => ("Reconciled after a restart of the machine: {lines} ledger lines looked at, {moved} tasks put right");
        "brain.monitor" Info MonitorLine { monitor: Monitor, statistics: Statistics }
            => ("MONITOR: {monitor}");
        "brain.statistics" Debug QueueStatistics { statistics: Statistics }
            => ("Queue statistics: {statistics}");
    }
    "brain.workers" {
        "spawn.started" Info WorkerSpawned { worker: Name, pid: u32, number: u64, of: u64 }
            => ("Worker {worker} spawned ({number} of {of}): pid {pid}");
        "spawn.failed" Error WorkerSpawnFailed { worker: Name, error: String }
            => ("Failed to spawn worker {worker}: {error}");
        "spawn.exited" Warning WorkerExited { worker: Name, pid: u32, exit_code: Option<i32>, signal: Option<i32>, seconds: f64 }
            => ("Worker {worker} (pid {pid}) exited after {}: {}", span(*seconds), exit_text(*exit_code, *signal));
        "spawn.back_off" Info SpawnBackOff { worker: Name, failures: u32, seconds: f64 }
            => ("Worker {worker} will be restarted in {} (failures in a row: {failures})", tenths(*seconds));
        "spawn.breaker_open" Error BreakerOpen { worker: Name, failures: u32, window_seconds: f64 }
            => ("Worker {worker} is not restarted: {failures} failures within {}", span(*window_seconds));
        "spawn.breaker_closed" Info BreakerClosed { worker: Name }
            => ("Worker {worker} may be restarted again");
        "spawn.retired" Info WorkerRetired { worker: Name, idle_seconds: f64 }
            => ("Worker {worker} retired after {} idle", span(*idle_seconds));
        "worker.backs_off" Warning WorkerBacksOff { worker: Name, class: Class, error: String, seconds: f64 }
            => ("Worker {worker} leaves such {class} tasks to others for {}: several in a row failed here: {error}", span(*seconds));
        "worker.takes_again" Info WorkerTakesAgain { worker: Name, class: Class }
            => ("Worker {worker} takes such {class} tasks again: one went well");
        "worker.starved" Warning WorkerStarved { worker: Name, error: String, seconds: f64 }
            => ("Worker {worker} cannot start jobs: {error}; it takes nothing for {}", span(*seconds));
        "worker.died" Error WorkerDied { worker: Name, pid: Option<u32>, completed: Option<u64>, tasks: u64, last_status: Option<String> }
            => ("Worker {worker} died{} - completed {} tasks, tasks to settle: {tasks}", aside(last_status.as_deref()), known(*completed));
        "worker.settling" Info WorkerSettling { worker: Name, tasks: u64 }
            => ("Settling the affairs of {worker}: {}", counted(tasks, "task"));
        "worker.settled" Info WorkerSettled { worker: Name, requeued: u64, ended: u64, seconds: f64 }
            => ("Settled the affairs of {worker} in {}: {requeued} requeued, {ended} ended", tenths(*seconds));
        "worker.settling_failed" Error WorkerSettlingFailed { worker: Name, error: String, count: u64 }
            => ("The affairs of {worker} cannot be settled yet: {error}");
        "worker.hung" Warning WorkerHung { worker: Name, seconds: f64, threshold_seconds: f64, count: u64, evidence: Map<String, Value> }
            => ("Worker {worker} last heartbeat {seconds:.0}s ago (threshold: {threshold_seconds:.0}s)");
        "worker.hung_cleared" Info WorkerHungCleared { worker: Name, seconds: f64 }
            => ("Worker {worker} sends heartbeats again after {seconds:.0}s");
        "worker.lock_missing" Warning WorkerLockMissing { worker: Name, path: PathBuf, count: u64 }
            => ("Worker {worker} has a fresh heartbeat but no lock file at {}", path.display());
    }
    "brain.detect" {
        "detect.stuck" Warning StuckTasks { tasks: Vec<StuckTask>, count: u64 }
            => ("Stuck tasks detected: {}", stuck_list(tasks));
        "detect.stuck_cleared" Info StuckCleared { task: TaskId, attempt: u32, seconds: f64 }
            => ("Task {} makes progress again after {}", task.short(), span(*seconds));
        "detect.stuck_over" Info StuckOver { task: TaskId, attempt: u32, seconds: f64 }
            => ("Task {} was stuck for {}, and this attempt is over", task.short(), span(*seconds));
        "detect.progress_unknown" Info ProgressUnknown { task: TaskId, attempt: u32, worker: Name, error: String }
            => ("Whether {} on {worker}, which is silent, makes progress is unknown: {error}", task.short());
        "detect.stall_stop" Warning StallStop { task: TaskId, attempt: u32, worker: Name, seconds: f64 }
            => ("Asked {worker} to end stalled task: {} (no progress for {})", task.short(), span(*seconds));
        "detect.slow" Info SlowTask { task: TaskId, attempt: u32, worker: Name, seconds: f64, evidence: Map<String, Value> }
            => ("Slow task: {} on {worker} runs for {} and makes progress", task.short(), span(*seconds));
        "detect.unclaimed" Warning Unclaimed { task: TaskId, class: Class, seconds: f64, workers: Vec<Name>, count: u64 }
            => ("Unclaimed {class} task: {} is available for {seconds:.0}s but workers {} do not take it", task.short(), name_list(workers));
        "detect.unclaimed_cleared" Info UnclaimedCleared { task: TaskId, seconds: f64 }
            => ("Task {} is no longer unclaimed after {}", task.short(), span(*seconds));
        "detect.imbalance" Warning Imbalance { lane: String, worker: Name, taken: u64, total: u64, idle: Vec<Name>, count: u64 }
            => ("Imbalance: {worker} took {taken} of the last {total} tasks of lane {lane} while {} are idle", name_list(idle));
        "detect.anomaly" Warning Anomaly { kind: String, figures: Map<String, Value> }
            => ("ANOMALY DETECTED: {kind}");
        "scaling.decision" Info ScalingDecision { scaling: Scaling }
            => ("SCALING DECISION {scaling}");
    }
    "brain.models" {
        "models.load_inserted" Info LoadInserted { placement: Placement }
            => ("{placement}");
        "models.unload_inserted" Info UnloadInserted { placement: Placement }
            => ("{placement}");
        "models.withdrawn" Info RequestWithdrawn { task: TaskId, worker: Name, verb: ModelVerb, model: String, why: String }
            => ("Withdrew {verb} task: {} of {model} for {worker} ({why})", task.short());
        "models.load_failed" Warning LoadFailed { worker: Name, model: String, cause: Cause, failures: u32, again_seconds: Option<f64> }
            => ("Load of {model} on {worker} failed ({cause}), {}", again(*again_seconds));
        "models.unconsumed" Warning LoadUnconsumed { model: String, seconds: f64, workers: Vec<Name>, states: BTreeMap<Name, String>, count: u64 }
            => ("load_llm task available for {seconds:.0}s but workers {} still have no model", name_list(workers));
        "models.wanted" Warning ModelWanted { model: String, seconds: f64, workers: Vec<Name>, states: BTreeMap<Name, String>, count: u64 }
            => ("{model} wanted for {seconds:.0}s but workers {} still have no model: {}", name_list(workers), each(states));
        "models.unconsumed_cleared" Info LoadConsumed { model: String, seconds: f64 }
            => ("{model} is no longer waited for after {}: those who should have it do, or cannot help any more, or no task needs it", span(*seconds));
        "models.deferred" Info LoadDeferred { model: String, waiting: u64, llm_waiting: u64, loaded: u64, outlook: LoadOutlook }
            => ("{}", deferred(model, *waiting, *llm_waiting, *loaded, outlook));
        "models.no_load" Debug NoLoad { why: String }
            => ("No load asked for: {why}");
        "models.load_stuck" Warning LoadStuck { worker: Name, verb: ModelVerb, model: String, seconds: f64, limit: f64, count: u64, evidence: Map<String, Value> }
            => ("{worker} has been {} {model} for {seconds:.0}s (limit {limit:.0}s) and is not done: its server is asked for nothing else", verb.doing());
        "models.load_stuck_cleared" Info LoadUnstuck { worker: Name, verb: ModelVerb, model: String, seconds: f64 }
            => ("{worker} is no longer stuck in {} {model} after {}", verb.doing(), span(*seconds));
        "models.no_place" Warning NoPlaceForModel { model: String, waiting: u64, why: String, count: u64 }
            => ("LLM tasks waiting ({waiting}) for {model}, and no server can load it now: {why}");
        "models.no_place_cleared" Info PlaceForModel { model: String, seconds: f64 }
            => ("{model} has a server again, or nothing waits for it any more, after {}", span(*seconds));
    }
    "brain.health" {
        "gpu.no_library" Info NoGpuLibrary { error: String }
            => ("No GPU library here, so GPU figures are unknown: {error}");
        "gpu.reading_lost" Warning GpuReadingLost { gpu: String, error: String, count: u64 }
            => ("GPU {gpu} cannot be read: {error}");
        "gpu.reading_back" Info GpuReadingBack { gpu: String, seconds: f64 }
            => ("GPU {gpu} can be read again after {}", span(*seconds));
        "disk.low" Error DiskLow { path: PathBuf, free: Bytes, needed: Bytes, growing: Option<String>, count: u64 }
            => ("Disk low at {}: {free} free, submissions are refused below {needed}{}", path.display(), aside(growing.as_deref()));
        "disk.reserve_used" Error DiskReserveUsed { path: PathBuf, freed: Bytes }
            => ("Disk full: gave up the reserve {} ({freed})", path.display());
        "disk.resumed" Info DiskResumed { path: PathBuf, free: Bytes, seconds: f64 }
            => ("Disk has room again at {}: {free} free after {}", path.display(), span(*seconds));
        "health.summary" Info HealthSummary { figures: Map<String, Value> }
            => ("Health: {}", Value::Object(figures.clone()));
    }
    "queue.pool" {
        "directory.unlisted" Warning DirectoryUnlisted { path: String, error: String, count: u64 }
            => ("What is in {path} is unknown, and the tasks there wait: it cannot be listed: {error}");
        "directory.listed" Info DirectoryListed { path: String, seconds: f64 }
            => ("{path} can be listed again, after {}", span(*seconds));
        "ledger.damaged" Warning LedgerDamaged { path: PathBuf, offset: u64, problem: String }
            => ("Passed over a damaged line of history, so what it says is unknown: {} at byte {offset}: {problem}", path.display());
        "pool.created" Info PoolCreated { path: PathBuf }
            => ("Created the pool {}", path.display());
        "pool.paused" Info PoolPaused { by: String, scope: String, until: Option<Moment> }
            => ("Paused {scope} by {by}");
        "pool.resumed" Info PoolResumed { by: String, scope: String }
            => ("Resumed {scope} by {by}");
        "pool.limited" Info PoolLimited { by: String, limit: String, allowed: Option<u32> }
            => ("Limit {limit}: {} by {by}", allowed.map_or_else(|| "off".to_owned(), |allowed| allowed.to_string()));
        "pool.drain_asked" Info DrainAsked { worker: Name, by: String }
            => ("Drain of {worker} asked by {by}");
        "control.received" Info ControlReceived { verb: String, by: String, about: Option<TaskId>, cause: Option<Cause> }
            => ("Control received: {verb} from {by}{}", aside(about.map(|id| id.short()).as_deref()));
        "control.unreadable" Warning ControlUnreadable { path: PathBuf, error: String }
            => ("Ignored the control file {}: {error}", path.display());
        "pool.cleaned" Info Cleaned { what: String, count: u64 }
            => ("Cleaned up {count} {what}");
    }
    "process.main" {
        "process.panic" Critical Panicked { message: String, thread: String, backtrace: String }
            => ("Panic in thread {thread}: {message}");
        "process.unknown_variable" Warning UnknownVariable { unknown: super::parts::UnknownVariable }
            => ("{unknown}");
        "process.failed" Error ProcessFailed { doing: String, error: String }
            => ("{doing}: {error}");
    }
    "process.log" {
        "log.gap" Warning LogGap { stream: String, missing: u64, after: u64 }
            => ("Log of {stream} lacks {missing} lines after seq {after}");
        "log.dropped" Error LogDropped { lines: u64, error: String }
            => ("{lines} log lines could not be written: {error}");
        "log.sink_failed" Error LogSinkFailed { path: PathBuf, error: String }
            => ("Log {} cannot be opened: {error}", path.display());
    }
}

fn processes(number: usize) -> String {
    if number == 1 { "1 process".to_owned() } else { format!("{number} processes") }
}

/// How a process ended.
fn exit_text(exit_code: Option<i32>, signal: Option<i32>) -> String {
    match (exit_code, signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown status".to_owned(),
    }
}
