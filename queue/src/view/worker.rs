//! Workers as they are seen from outside: the lease says who lives, the heartbeat how they fare,
//! and of those whose heartbeat stands still the kernel is asked.

use serde_json::{Map, Value, json};
use shared::llm::ModelServer;
use shared::name::Name;
use shared::quantity::counted;
use shared::reason::{Code, Reason};
use shared::settings::Settings;
use shared::task::TaskName;
use shared::time::Moment;

use crate::dir::Pool;
use crate::dir::disk::listing::{self, PassedOver};
use crate::dir::disk::lock::Holder;
use crate::dir::find::recent_ends;
use crate::dir::presence::{heartbeats, lease};
use crate::wire::fate::Kept;
use crate::wire::heartbeat::gpu_state::Fitness;
use crate::wire::heartbeat::{Heartbeat, Run, Status};
use crate::wire::lease_record::{Record, Role};
use crate::{Error, eligible, fence};

/// How long a dead worker stays listed after its affairs were settled.
const LISTED_SECONDS: f64 = 600.0;

/// Whether a worker lives.
#[derive(Clone, Debug, PartialEq)]
pub enum Life {
    /// It holds its lease.
    Alive,
    /// It holds its lease, and its heartbeat stands still.
    Hung {
        /// How old the last heartbeat is, in seconds.
        seconds: f64,
        /// What the kernel says about the process.
        evidence: Map<String, Value>,
    },
    /// Its heartbeat is fresh, but the file that would prove its life is gone.
    Unproven,
    /// Its lease is free, or somebody settles its affairs.
    Dead {
        /// Who does, if somebody does now.
        settling: Option<String>,
    },
    /// It is dead, and nothing is left to settle.
    Over {
        /// When its lease or, without one, its heartbeat was last written.
        since: Moment,
    },
}

/// One worker, living or not, by its lease, its heartbeat and its directory.
#[derive(Clone, Debug)]
pub struct Worker {
    /// Its name.
    pub name: Name,
    /// Whether it lives.
    pub life: Life,
    /// What its lease says.
    pub record: Option<Record>,
    /// The last heartbeat of this life (of the last one, if it is dead), without what has ended
    /// since.
    pub heartbeat: Option<Heartbeat>,
    /// Tasks in its hands.
    pub held: Vec<TaskName>,
}

impl Worker {
    /// Whether it holds its lease.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        match self.life {
            Life::Alive | Life::Hung { .. } => true,
            Life::Unproven | Life::Dead { .. } | Life::Over { .. } => false,
        }
    }

    /// What keeps an attempt of which something may still run: of a dead worker when somebody last
    /// tried to put its task back, of a living one since its job ended.
    #[must_use]
    pub fn kept(&self, name: TaskName) -> Option<Kept> {
        let settled = self.record.iter().flat_map(|record| record.kept.clone());
        let own = self.current().filter_map(|run| {
            let (task, attempt) = (run.task_id, run.attempt);
            run.kept.clone().map(|obstacle| Kept { task, attempt, obstacle })
        });
        let mut kept = settled.chain(own);
        kept.find(|kept| (kept.task, kept.attempt) == (name.id, name.attempt))
    }

    /// Its state in one word.
    #[must_use]
    pub fn status(&self) -> &'static str {
        match (&self.life, &self.heartbeat) {
            (Life::Alive, Some(heartbeat)) => match &heartbeat.ability.gpu_state.fitness {
                Fitness::Quarantined(_) if heartbeat.status == Status::Idle => "quarantined",
                Fitness::Hot(_) if heartbeat.status == Status::Idle => "hot",
                Fitness::Fit | Fitness::Quarantined(_) | Fitness::Hot(_) => {
                    heartbeat.status.as_str()
                }
            },
            (Life::Alive, None) => "starting",
            (Life::Hung { .. }, _) => "hung",
            (Life::Unproven, _) => "unknown",
            (Life::Dead { settling: Some(_) }, _) => "settling",
            (Life::Dead { settling: None }, _) => "dead",
            (Life::Over { .. }, _) if self.said_goodbye() => "stopped",
            (Life::Over { .. }, _) => "dead",
        }
    }

    /// Whether it ended by itself: nobody had to settle its affairs.
    #[must_use]
    pub fn said_goodbye(&self) -> bool {
        match self.record.as_ref().map(|record| &record.role) {
            Some(Role::Over) | None => true,
            Some(Role::Working | Role::Settling(_) | Role::Settled(_)) => false,
        }
    }

    /// What runs there.
    pub fn current(&self) -> impl Iterator<Item = &Run> {
        self.heartbeat.iter().flat_map(|heartbeat| &heartbeat.current)
    }

    /// Seconds since its last heartbeat.
    #[must_use]
    pub fn heartbeat_age(&self, now: Moment) -> Option<f64> {
        self.heartbeat.as_ref().map(|heartbeat| heartbeats::age(heartbeat, now))
    }

    /// As `queue workers --json` shows it.
    #[must_use]
    pub fn to_json(&self, now: Moment) -> Value {
        let beat = self.heartbeat.as_ref();
        let process = self.record.as_ref().map(|r| &r.process).or(beat.map(|b| &b.process));
        let ability = beat.map(|beat| &beat.ability);
        let idle = beat.filter(|_| self.is_alive()).and_then(|b| b.idle_since);
        let alive = match self.life {
            Life::Unproven => None,
            Life::Alive | Life::Hung { .. } | Life::Dead { .. } | Life::Over { .. } => {
                Some(self.is_alive())
            }
        };
        let server = ability.and_then(|a| a.server.as_ref());
        let gpu = ability.and_then(|a| a.gpu).or(self.record.as_ref().and_then(|r| r.gpu));
        json!({
            "name": self.name,
            "host": process.map(|p| &p.host),
            "pid": process.map(|p| p.pid),
            "gpu": gpu,
            "gpu_uuid": ability.and_then(|a| a.gpu_uuid.as_ref()),
            "gpu_state": ability.filter(|a| a.gpu.is_some()).map(|a| &a.gpu_state),
            "alive": alive,
            "status": self.status(),
            "classes": ability.map(|a| &a.classes),
            "started_at": beat.map(|b| b.started_at),
            "heartbeat_age_seconds": self.heartbeat_age(now),
            "idle_seconds": idle.map(|since| now.seconds_since(since)),
            "current": self.current_json(now),
            "models": server.map(|server| &server.models).into_iter().flatten().collect::<Vec<_>>(),
            "server": server.map(server_json),
            "completed": beat.map(|b| b.completed),
            "failed": beat.map(|b| b.failed),
            "lost_races": beat.map(|b| b.lost_races),
            "claim": beat.map(|b| &b.claim),
        })
    }

    fn current_json(&self, now: Moment) -> Vec<Value> {
        let stale = self.heartbeat_age(now).unwrap_or(0.0);
        let shown = |run: &Run| {
            json!({
                "task_id": run.task_id,
                "attempt": run.attempt,
                "class": run.class,
                "name": run.name,
                "started_at": run.started_at,
                "last_output_age_seconds": run.last_output_age_seconds.map(|age| age + stale),
            })
        };
        self.current().map(shown).collect()
    }
}

/// A worker's model server, without what has fields of its own.
fn server_json(server: &ModelServer) -> Value {
    json!({
        "address": server.address,
        "kind": server.kind,
        "health": server.health,
        "health_since": server.health_since,
        "error": server.error,
        "canary": server.canary,
    })
}

/// Everybody who works, or did so lately.
pub fn workers(pool: &Pool, settings: &Settings, now: Moment) -> Result<Vec<Worker>, Error> {
    let mut names = lease::workers(pool.layout())?;
    names.extend(heartbeats::workers(pool)?);
    names.extend(listing::holders(pool.layout())?);
    names.sort();
    names.dedup();
    let mut found = Vec::new();
    for name in names {
        let worker = worker(pool, settings, now, name)?;
        found.extend(worker.filter(|worker| is_listed(worker, now)));
    }
    Ok(found)
}

fn is_listed(worker: &Worker, now: Moment) -> bool {
    match &worker.life {
        Life::Over { since } => {
            !worker.held.is_empty() || now.seconds_since(*since) < LISTED_SECONDS
        }
        Life::Alive | Life::Hung { .. } | Life::Unproven | Life::Dead { .. } => true,
    }
}

/// One worker. `None` where there never was one of this name.
pub fn worker(
    pool: &Pool,
    settings: &Settings,
    now: Moment,
    name: Name,
) -> Result<Option<Worker>, Error> {
    let holder = lease::probe(pool.layout(), &name)?;
    let record = lease::read(pool.layout(), &name)?;
    // A heartbeat that cannot be read says nothing; the worker writes the next one soon.
    let heartbeat = heartbeats::read(pool, &name).ok().flatten();
    // What it holds is unknown where that cannot be listed; whoever counts the tasks says so.
    let held = listing::tasks_in(&pool.layout().processing_of(&name));
    let held = PassedOver::default().or_pass_over(held)?.unwrap_or_default().tasks;
    if record.is_none() && heartbeat.is_none() && held.is_empty() && holder == Holder::NoFile {
        return Ok(None);
    }
    let works = record.as_ref().is_some_and(|record| record.role == Role::Working);
    let ours = |beat: &Heartbeat| record.as_ref().is_none_or(|record| record.life == beat.life);
    let heartbeat = heartbeat.filter(|beat| !works || ours(beat));
    let ends = recent_ends::ends_of(pool.layout(), &name, &held)?;
    let runs = |run: &Run| {
        !ends.contains_key(&run.task_id)
            && held.iter().any(|name| (name.id, name.attempt) == (run.task_id, run.attempt))
    };
    let heartbeat = heartbeat.map(|beat| up_to_date(beat, runs));
    let seen = Seen { holder, record: record.as_ref(), beat: heartbeat.as_ref(), held: &held };
    let life = life(seen, settings, now);
    Ok(Some(Worker { name, life, record, heartbeat, held }))
}

/// A heartbeat may be a moment old; what is in the worker's hands, and history, is not.
fn up_to_date(mut beat: Heartbeat, runs: impl Fn(&Run) -> bool) -> Heartbeat {
    let ran = beat.current.len();
    beat.current.retain(runs);
    if ran > 0 && beat.current.is_empty() && beat.status == Status::Processing {
        beat.status = Status::Idle;
    }
    beat
}

/// What says whether a worker lives.
struct Seen<'a> {
    holder: Holder,
    record: Option<&'a Record>,
    beat: Option<&'a Heartbeat>,
    held: &'a [TaskName],
}

fn life(seen: Seen<'_>, settings: &Settings, now: Moment) -> Life {
    let Seen { holder, record, beat, held } = seen;
    let warn = settings.heartbeat_warn.0.as_secs_f64();
    let age = beat.map(|beat| heartbeats::age(beat, now));
    let last_seen = beat.map(|beat| beat.at).or(record.map(|record| record.since));
    match (holder, record.map(|record| &record.role)) {
        (Holder::Somebody, Some(Role::Working)) => match (age, beat) {
            (Some(seconds), Some(beat)) if seconds > warn => {
                Life::Hung { seconds, evidence: evidence(beat) }
            }
            (_, _) => Life::Alive,
        },
        (Holder::Somebody, Some(Role::Settling(by))) => Life::Dead { settling: Some(by.clone()) },
        // It has the lock and has not said who it is: a worker in its first moments.
        (Holder::Somebody, Some(Role::Over | Role::Settled(_)) | None) => Life::Alive,
        (Holder::Nobody, Some(Role::Over | Role::Settled(_))) if held.is_empty() => {
            Life::Over { since: record.map_or(now, |record| record.since) }
        }
        (Holder::NoFile, _) if age.is_some_and(|age| age < warn) && held.is_empty() => {
            Life::Unproven
        }
        (Holder::NoFile, _) if held.is_empty() => Life::Over { since: last_seen.unwrap_or(now) },
        (Holder::Nobody | Holder::NoFile, _) => Life::Dead { settling: None },
    }
}

/// What the kernel says about a process whose heartbeat stands still.
fn evidence(beat: &Heartbeat) -> Map<String, Value> {
    let mut evidence = Map::new();
    let process = &beat.process;
    evidence.insert("pid".into(), process.pid.into());
    evidence.insert("last_status".into(), beat.status.as_str().into());
    evidence.insert("last_claim_at".into(), json!(beat.claim.at));
    let here = process.is_visible_from(&lease::this_process());
    let same = here.then(|| fence::stat(process.pid)).flatten();
    let same = same.filter(|stat| process.start.is_none_or(|start| start == stat.start_time));
    let state = same.map(|stat| stat.state);
    evidence.insert("process_state".into(), json!(state.map(String::from)));
    let said = match state {
        Some('T' | 't') => Some("stopped by a signal; `kill -CONT` lets it go on"),
        Some('D') => Some("waits inside the kernel, for a disk or a device"),
        Some('Z') => Some("its main thread has ended"),
        Some(_) | None => None,
    };
    evidence.insert("process".into(), json!(said));
    evidence
}

/// What is wrong with a living worker's GPU, if something is.
#[must_use]
pub fn gpu_warning(worker: &Worker) -> Option<Reason> {
    let beat = worker.heartbeat.as_ref().filter(|_beat| worker.is_alive())?;
    Some(eligible::unfit(&worker.name, &beat.ability)?.worker(&worker.name))
}

/// What is wrong with a worker, if something is.
#[must_use]
pub fn worker_warning(worker: &Worker) -> Option<Reason> {
    let name = &worker.name;
    let reason = match &worker.life {
        Life::Alive | Life::Over { .. } => return None,
        Life::Hung { seconds, evidence } => {
            let text = format!("{name} lives, but its last heartbeat is {seconds:.0}s old");
            let mut reason = Reason::new(Code::WorkerHung, text);
            reason.evidence = evidence.clone();
            reason.since = worker.heartbeat.as_ref().map(|beat| beat.at);
            reason
        }
        Life::Unproven => {
            let text = format!("{name} sends heartbeats, but its lock file is gone");
            Reason::new(Code::WorkerDead, text)
        }
        Life::Dead { settling } => {
            let settled = match settling {
                Some(by) => format!("{by} settles its affairs"),
                None => "its affairs are not settled".to_owned(),
            };
            let held = worker.held.len();
            let tasks = counted(held, "task");
            let text = format!("{name} is dead with {tasks} in its hands; {settled}");
            Reason::new(Code::WorkerDead, text).count(held as u64)
        }
    };
    Some(reason.worker(name))
}
