//! The worker's GPU: whether it may be given work, and what is in its memory. `reader` asks the
//! driver, `quarantine` and `heat` judge (pure), `memory` tells whose memory it is; what comes of it
//! is part of the worker's ability, by which the worker claims, and which its heartbeat says.

pub mod heat;
pub mod memory;
pub mod quarantine;
pub mod reader;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, never, select};
use queue::wire::heartbeat::gpu_state::{Fitness, GpuState, Heat, HeatLimit, Quarantine};
use shared::emit;
use shared::event::{Event, Repeater, Say};
use shared::gpu::{Examined, GpuFault, Gpus, NoGpus, Reading, Which};
use shared::name::Name;
use shared::quantity::Bytes;
use shared::settings::Settings;
use shared::time::Moment;

use crate::attempt::context::AttemptContext;
use heat::{HeatRules, HeatWatch};
use memory::{OwnRun, look_up, memory_use};
use quarantine::{GpuHealth, HealthChange, LookedAt, QuarantineRules};
use reader::{GpuName, Reader};

/// A driver that has not answered for so long does not.
const SILENT: Duration = Duration::from_secs(30);
/// A GPU that is ill is looked at so often in its first quarantine, …
const LOOKS: u32 = 6;
/// … and never more rarely than this.
const RAREST: Duration = Duration::from_secs(5);

/// A GPU as the worker finds it when it starts.
#[derive(Debug)]
pub struct FirstLook {
    /// The library, open.
    pub gpus: Gpus,
    /// Which it is.
    pub gpu: GpuName,
    /// What was seen of it.
    pub look: Examined,
}

impl FirstLook {
    /// Of the GPU with this number, where the machine can say something about GPUs. One that is not
    /// there is no error: its worker says so, and waits for it.
    #[must_use]
    pub fn at(index: u32) -> Option<Self> {
        match Gpus::open(None) {
            Ok(gpus) => {
                let look = gpus.examine(Which::Index(index));
                let gpu = GpuName { index, uuid: gpus.uuid_of(index) };
                Some(Self { gpus, gpu, look })
            }
            // A machine without the library is told of once, by the brain and by `queue doctor`.
            Err(NoGpus::NoLibrary { .. }) => None,
            Err(err @ (NoGpus::NoDriver { .. } | NoGpus::Broken { .. })) => {
                emit!(Event::NoGpuLibrary { error: err.to_string() });
                None
            }
        }
    }

    /// All its memory, where that can be read.
    #[must_use]
    pub fn memory(&self) -> Option<Bytes> {
        self.look.reading.as_ref()?.memory_total.known().map(Bytes)
    }
}

/// Judges what is read of the GPU.
pub struct GpuWatch {
    context: Arc<AttemptContext>,
    gpu: GpuName,
    health: GpuHealth,
    heat: HeatWatch,
    ill: Repeater,
    hot: Repeater,
    /// Tells the main loop that something else may be claimed now.
    news: Sender<()>,
    begun: Instant,
}

impl GpuWatch {
    /// Judges the first look, and goes on looking until `end` is closed; without one, nobody looks.
    /// Returns what receives a message when something has changed by which tasks are claimed.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        context: &Arc<AttemptContext>,
        settings: &Settings,
        first: Option<FirstLook>,
        end: &Receiver<()>,
    ) -> io::Result<Receiver<()>> {
        let Some(FirstLook { gpus, gpu, look }) = first else { return Ok(never()) };
        let (news, told) = bounded(1);
        let rules = QuarantineRules {
            first: settings.gpu_quarantine_first.0,
            longest: settings.gpu_quarantine_max.0,
        };
        let mut watch = Self {
            context: context.clone(),
            gpu: gpu.clone(),
            health: GpuHealth::new(rules),
            heat: HeatWatch::new(HeatRules::new(settings)),
            ill: Repeater::default(),
            hot: Repeater::default(),
            news,
            begun: Instant::now(),
        };
        watch.see(look);
        let (tell, looks) = bounded(1);
        let recheck = (rules.first / LOOKS).min(RAREST);
        let reader = Reader { gpus, gpu, recheck, tell, end: end.clone() };
        let thread = |name: &str| std::thread::Builder::new().name(name.into());
        // Neither is waited for at the end: the driver may never answer.
        thread("gpu-reader").spawn(move || reader.run())?;
        let end = end.clone();
        thread("gpu").spawn(move || watch.run(&looks, &end))?;
        Ok(told)
    }

    fn run(mut self, looks: &Receiver<Examined>, end: &Receiver<()>) {
        loop {
            let look = select! {
                recv(looks) -> look => look.ok(),
                recv(end) -> _closed => return,
                default(SILENT) => {
                    Some(Examined { reading: None, fault: Some(GpuFault::Silent) })
                }
            };
            let Some(look) = look else { return };
            self.see(look);
        }
    }

    fn see(&mut self, look: Examined) {
        let Examined { reading, fault } = look;
        let at = LookedAt { now: self.begun.elapsed(), wall: Moment::now() };
        let sensors = reading.as_ref().map(|gpu| gpu.sensors()).unwrap_or_default();
        let change = self.health.see(at, fault, sensors);
        let celsius = reading.as_ref().map_or(Reading::Failed, |gpu| gpu.temperature);
        let heat = self.heat.see(at.wall, celsius).cloned();
        self.say(at, change.as_ref(), heat.as_ref());
        let fitness = match (self.health.quarantine(), heat) {
            (Some(quarantine), _) => Fitness::Quarantined(quarantine.clone()),
            (None, Some(heat)) => Fitness::Hot(heat),
            (None, None) => Fitness::Fit,
        };
        let runs: Vec<OwnRun> = self.context.worker_state.look(|state| {
            let run = |job: &crate::worker_state::Job| OwnRun {
                task: job.run.task_id,
                group: job.run.pgid,
            };
            state.jobs.iter().map(run).collect()
        });
        let memory = reading.as_ref().and_then(|gpu| memory_use(gpu, &runs, look_up));
        let now = GpuState { fitness, memory };
        let has_come = self.gpu.uuid.is_none()
            && reading.as_ref().is_some_and(|gpu| gpu.uuid.is_some())
            && now.is_fit();
        let total = reading.as_ref().and_then(|gpu| gpu.memory_total.known()).map(Bytes);
        let changed = self.context.worker_state.note(|state| {
            state.ability.gpu_memory = total.or(state.ability.gpu_memory);
            state.gpu_reading = reading.map(Arc::new);
            let changed = state.ability.gpu_state != now || has_come;
            state.ability.gpu_state = now;
            if has_come {
                // Its lock, its name for jobs and a server of its own are made at the start.
                state.begins_anew = true;
                state.stopping = true;
            }
            changed
        });
        if changed {
            self.context.worker_state.change(|_state| ());
            // Full means that the main loop will look anyway.
            let _ = self.news.try_send(());
        }
    }

    /// Says what has changed, and what lasts at growing intervals.
    fn say(&mut self, at: LookedAt, change: Option<&HealthChange>, heat: Option<&Heat>) {
        let (worker, gpu) = (self.context.worker_state.name().clone(), self.name());
        if let Some(quarantine) = self.health.quarantine() {
            if change == Some(&HealthChange::OtherFault) {
                self.ill = Repeater::default();
            }
            if let Some(count) = counted(self.ill.seen(at.now)) {
                emit!(quarantined(worker.clone(), gpu.clone(), quarantine, count));
            }
        } else if let Some(HealthChange::Ended(lasted)) = change {
            self.ill.cleared(at.now);
            let seconds = lasted.as_secs_f64();
            emit!(Event::GpuFitAgain { worker: worker.clone(), gpu: gpu.clone(), seconds });
        }
        match heat {
            Some(heat) => {
                // What was said of the lower limit says nothing of the higher one.
                let known = self
                    .context
                    .worker_state
                    .look(|state| limit_of(&state.ability.gpu_state.fitness));
                if known < Some(heat.limit) {
                    self.hot = Repeater::default();
                }
                if let Some(count) = counted(self.hot.seen(at.now)) {
                    emit!(hot(worker, gpu, heat, count));
                }
            }
            None => {
                if let Some(Say::Cleared { lasted, .. }) = self.hot.cleared(at.now) {
                    emit!(Event::GpuCooled { worker, gpu, seconds: lasted.as_secs_f64() });
                }
            }
        }
    }

    fn name(&self) -> String {
        match &self.gpu.uuid {
            Some(uuid) => format!("{} ({uuid})", self.gpu.index),
            None => self.gpu.index.to_string(),
        }
    }
}

fn limit_of(fitness: &Fitness) -> Option<HeatLimit> {
    match fitness {
        Fitness::Hot(heat) => Some(heat.limit),
        Fitness::Fit | Fitness::Quarantined(_) => None,
    }
}

/// How often it was seen, where that is to be said.
fn counted(say: Option<Say>) -> Option<u64> {
    match say? {
        Say::First => Some(1),
        Say::Again { count, .. } => Some(count),
        Say::Cleared { .. } => None,
    }
}

fn quarantined(worker: Name, gpu: String, quarantine: &Quarantine, count: u64) -> Event {
    let Quarantine { fault, since, until, times } = quarantine;
    let (fault, times, seconds) = (fault.to_string(), *times, until.seconds_since(*since));
    Event::GpuQuarantined { worker, gpu, fault, times, seconds, count }
}

fn hot(worker: Name, gpu: String, heat: &Heat, count: u64) -> Event {
    let (celsius, resume) = (heat.celsius, heat.resume);
    match heat.limit {
        HeatLimit::Soft => Event::GpuHot { worker, gpu, celsius, resume, count },
        HeatLimit::Hard => Event::GpuTooHot { worker, gpu, celsius, resume, count },
    }
}
