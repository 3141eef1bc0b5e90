//! How many workers there should be: enough for what could run now and what runs, within limits.

use std::time::Duration;

use shared::event::{Event, Scaling, Step};
use shared::settings::Settings;
use shared::task::Class;

use super::{Adjusted, Fleet, Wanted};
use crate::core::detect::activity::Activity;
use crate::core::detect::count_jump;
use crate::core::words::at::At;
use crate::core::words::command::Command;
use crate::core::words::scaling::ScalingDecision;
use crate::core::words::snapshot::{Lane, Paused, Snapshot};

/// The figures of the sum alone changed: said no more often than this.
const SUM_INTERVAL: Duration = Duration::from_secs(30);

/// The rule, and what was decided last.
#[derive(Clone, Debug)]
pub struct Scale {
    multiplier: f64,
    min: u64,
    max: u64,
    last: Option<(Duration, Scaling)>,
    /// Whether there were as many as `min` since this brain started.
    filled: bool,
}

impl Scale {
    /// With the limits of the settings; by default one worker for each place.
    #[must_use]
    pub fn new(settings: &Settings, fleet: &Fleet) -> Self {
        let places = fleet.len() as u64;
        let max = settings.max_workers.map_or(places, u64::from).min(places);
        let min = settings.min_workers.map_or(max, u64::from).min(max);
        Self { multiplier: settings.scale_up_multiplier, min, max, last: None, filled: false }
    }

    /// Decides, and has the fleet do it.
    pub fn decide(
        &mut self,
        at: At,
        seen: &Snapshot,
        fleet: &mut Fleet,
        activity: &Activity,
    ) -> Vec<Command> {
        let mut out = Vec::new();
        if fleet.is_empty() {
            return out;
        }
        let queued = claimable(seen, fleet);
        let active = seen.counts.as_ref().map(|counts| counts.processing);
        let desired = self.desired(queued, active);
        let counts = fleet.count(seen);
        let adjusted = fleet.adjust(at, seen, Wanted { desired, activity }, &mut out);
        if fleet.is_stopping() {
            return out;
        }
        let scaling = Scaling {
            cycle: seen.cycle,
            active_workers: counts.active,
            spawning: counts.spawning,
            desired,
            step: step(&adjusted),
            queued,
            active,
            max: self.max,
        };
        let up = adjusted.up.len() as u64;
        let before = counts.active + counts.spawning;
        // The least there should be is filled up at the start: that is no anomaly.
        let is_start = !self.filled && before + up <= self.min;
        self.filled |= before + up >= self.min;
        self.tell(at, scaling, adjusted, &mut out);
        if !is_start {
            out.extend(count_jump::rapid_scale_up(up, before, queued).map(Command::Say));
        }
        out
    }

    /// An unknown count is not 0: what was wanted last stays wanted.
    fn desired(&self, queued: Option<u64>, active: Option<u64>) -> u64 {
        let (Some(queued), Some(active)) = (queued, active) else {
            return self.last.map_or(self.min, |(_when, last)| last.desired);
        };
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a backlog that is not exact any more wants all workers anyway"
        )]
        let wanted = ((queued + active) as f64 * self.multiplier).ceil() as u64;
        wanted.clamp(self.min, self.max)
    }

    fn tell(&mut self, at: At, scaling: Scaling, adjusted: Adjusted, out: &mut Vec<Command>) {
        let due = match self.last {
            None => true,
            Some((when, last)) => {
                let decided = !adjusted.up.is_empty() || !adjusted.down.is_empty();
                let figures = |s: Scaling| (s.active_workers, s.spawning, s.desired, s.step);
                let sum = |s: Scaling| (s.queued, s.active);
                let passed = at.now.saturating_sub(when) >= SUM_INTERVAL;
                decided || figures(last) != figures(scaling) || sum(last) != sum(scaling) && passed
            }
        };
        if !due {
            return;
        }
        self.last = Some((at.now, scaling));
        let (min, multiplier) = (self.min, self.multiplier);
        let Adjusted { up: spawn, down: retire, .. } = adjusted;
        let decision =
            ScalingDecision { timestamp: at.wall, scaling, min, multiplier, spawn, retire };
        let told = [Command::Say(Event::ScalingDecision { scaling }), Command::Record(decision)];
        // First why, then what.
        out.splice(0..0, told);
    }
}

fn step(adjusted: &Adjusted) -> Step {
    match (adjusted.up.len(), adjusted.down.len()) {
        (0, 0) if adjusted.blocked > 0 => Step::Blocked,
        (0, 0) => Step::Maintain,
        (0, down) => Step::Down(down as u64),
        (up, _) => Step::Up(up as u64),
    }
}

/// Pending tasks that a worker at one of the places could take now.
fn claimable(seen: &Snapshot, fleet: &Fleet) -> Option<u64> {
    seen.counts.as_ref()?;
    if seen.pool == Paused::Pool {
        return Some(0);
    }
    let fits = |lane: &&Lane| {
        let place = lane.count.class == Class::Cpu || fleet.has_gpus();
        let addressed = lane.needs.as_ref().and_then(|needs| needs.worker.as_ref());
        place && lane.limited.is_none() && addressed.is_none_or(|worker| fleet.knows(worker))
    };
    Some(seen.lanes.iter().filter(fits).map(|lane| lane.count.pending).sum())
}
