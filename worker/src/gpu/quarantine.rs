//! Whether the worker's GPU is kept out of use: what is found against it begins a quarantine; it
//! ends when its time is over and two looks in a row found nothing. Each relapse doubles that time.
//! No clock and no driver in here: every look says when it was.

use std::time::Duration;

use queue::wire::heartbeat::gpu_state::Quarantine;
use shared::gpu::{GpuFault, Sensors};
use shared::time::Moment;

/// So many looks in a row that find nothing end a quarantine.
const GOOD_LOOKS: u32 = 2;
/// A GPU that was fit for so long begins anew: its next quarantine is as short as the first.
const FORGOTTEN: Duration = Duration::from_secs(3_600);

/// How long quarantines last at least.
#[derive(Clone, Copy, Debug)]
pub struct QuarantineRules {
    /// The first one.
    pub first: Duration,
    /// None lasts longer, but for its GPU's sake.
    pub longest: Duration,
}

/// When something was looked at.
#[derive(Clone, Copy, Debug)]
pub struct LookedAt {
    /// On a clock that nobody can set, from any fixed point.
    pub now: Duration,
    /// By the wall clock, for people.
    pub wall: Moment,
}

/// Whether a GPU is kept out of use, and what is remembered of it.
#[derive(Clone, Debug)]
pub struct GpuHealth {
    rules: QuarantineRules,
    /// Sensors that have answered in this life of the worker.
    ever: Sensors,
    /// Quarantines so far that are not forgotten.
    times: u32,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    /// Nothing is held against it. Since when, if it was ever otherwise.
    Fit { since: Option<Duration> },
    /// It is out of use.
    Quarantined {
        began: Duration,
        /// Not before this it is fit again.
        until: Duration,
        /// Looks in a row that found nothing.
        good: u32,
        told: Quarantine,
    },
}

/// What a look changed.
#[derive(Clone, Debug, PartialEq)]
pub enum HealthChange {
    /// A quarantine began.
    Began,
    /// Another fault was found in the midst of one.
    OtherFault,
    /// It ended, after so long.
    Ended(Duration),
}

impl GpuHealth {
    /// Of a GPU that nobody has looked at.
    #[must_use]
    pub fn new(rules: QuarantineRules) -> Self {
        let state = State::Fit { since: None };
        Self { rules, ever: Sensors::default(), times: 0, state }
    }

    /// Takes in a look: what the driver says against the GPU, and which sensors answered. That none
    /// answers is a fault where any ever did.
    pub fn see(
        &mut self,
        at: LookedAt,
        said: Option<GpuFault>,
        sensors: Sensors,
    ) -> Option<HealthChange> {
        let silenced = sensors.is_none() && !self.ever.is_none();
        self.ever = self.ever.or(sensors);
        match said.or(silenced.then_some(GpuFault::Unreadable)) {
            Some(fault) => self.found(at, fault),
            None => self.found_nothing(at),
        }
    }

    /// The quarantine, where there is one.
    #[must_use]
    pub fn quarantine(&self) -> Option<&Quarantine> {
        match &self.state {
            State::Fit { .. } => None,
            State::Quarantined { told, .. } => Some(told),
        }
    }

    fn found(&mut self, at: LookedAt, fault: GpuFault) -> Option<HealthChange> {
        match &mut self.state {
            State::Quarantined { good, told, .. } => {
                *good = 0;
                let other = told.fault != fault;
                told.fault = fault;
                other.then_some(HealthChange::OtherFault)
            }
            State::Fit { since } => {
                let forgotten = since.is_some_and(|since| at.now >= since + FORGOTTEN);
                self.times = if forgotten { 1 } else { self.times + 1 };
                let wait = self.wait();
                let millis = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
                let until = at.wall.plus_millis(millis);
                let told = Quarantine { fault, since: at.wall, until, times: self.times };
                let (began, until) = (at.now, at.now + wait);
                self.state = State::Quarantined { began, until, good: 0, told };
                Some(HealthChange::Began)
            }
        }
    }

    fn found_nothing(&mut self, at: LookedAt) -> Option<HealthChange> {
        let State::Quarantined { began, until, good, .. } = &mut self.state else { return None };
        *good += 1;
        if *good < GOOD_LOOKS || at.now < *until {
            return None;
        }
        let lasted = at.now.saturating_sub(*began);
        self.state = State::Fit { since: Some(at.now) };
        Some(HealthChange::Ended(lasted))
    }

    fn wait(&self) -> Duration {
        let doublings = self.times.saturating_sub(1).min(16);
        self.rules.first.saturating_mul(1 << doublings).min(self.rules.longest)
    }
}

#[cfg(test)]
mod tests {
    use shared::gpu::{GpuReading, Reading};

    use super::*;

    const RULES: QuarantineRules =
        QuarantineRules { first: Duration::from_secs(30), longest: Duration::from_secs(600) };

    /// A GPU on a clock of its own.
    struct Gpu {
        health: GpuHealth,
        second: u64,
    }

    impl Gpu {
        fn new() -> Self {
            Self { health: GpuHealth::new(RULES), second: 0 }
        }

        fn look(&mut self, said: Option<GpuFault>, sensors: Sensors) -> Option<HealthChange> {
            self.second += 1;
            let wall = Moment::from_unix_millis(i64::try_from(self.second).unwrap() * 1_000);
            let at = LookedAt { now: Duration::from_secs(self.second), wall };
            self.health.see(at, said, sensors)
        }

        fn well(&mut self) -> Option<HealthChange> {
            self.look(None, some())
        }

        fn lost(&mut self) -> Option<HealthChange> {
            self.look(Some(GpuFault::Lost), Sensors::default())
        }

        /// Looks that find nothing, until it is fit again: how many seconds it was not.
        fn until_fit(&mut self) -> u64 {
            for _second in 0..10_000 {
                if let Some(HealthChange::Ended(lasted)) = self.well() {
                    return lasted.as_secs();
                }
            }
            panic!("it stays in quarantine");
        }

        fn fault(&self) -> Option<GpuFault> {
            self.health.quarantine().map(|quarantine| quarantine.fault)
        }
    }

    /// Of a GPU that tells its temperature and nothing else.
    fn some() -> Sensors {
        let mut reading = GpuReading::failed(0, None);
        reading.temperature = Reading::Known(40);
        reading.sensors()
    }

    #[test]
    fn what_the_driver_says_begins_a_quarantine_and_two_good_looks_end_it_when_its_time_is_over() {
        let mut gpu = Gpu::new();
        assert_eq!(gpu.well(), None);
        assert_eq!(gpu.lost(), Some(HealthChange::Began));
        let told = gpu.health.quarantine().unwrap();
        assert_eq!((told.since, told.until), (moment(2), moment(32)));
        assert_eq!(gpu.until_fit(), 30);
        assert_eq!(gpu.fault(), None);
    }

    fn moment(second: i64) -> Moment {
        Moment::from_unix_millis(second * 1_000)
    }

    #[test]
    fn one_good_look_is_not_enough_however_much_time_has_passed() {
        let mut gpu = Gpu::new();
        for _second in 0..100 {
            gpu.lost();
        }
        assert_eq!(gpu.well(), None);
        assert_eq!(gpu.lost(), None, "it is in quarantine already");
        assert_eq!(gpu.well(), None, "the count began anew");
        assert_eq!(gpu.well(), Some(HealthChange::Ended(Duration::from_secs(103))));
    }

    #[test]
    fn each_relapse_doubles_the_wait_up_to_the_longest() {
        let mut gpu = Gpu::new();
        let waits = [30, 60, 120, 240, 480, 600, 600];
        for (times, wait) in (1..).zip(waits) {
            assert_eq!(gpu.lost(), Some(HealthChange::Began));
            assert_eq!(gpu.health.quarantine().unwrap().times, times);
            assert_eq!(gpu.until_fit(), wait);
        }
        for _second in 0..3_600 {
            gpu.well();
        }
        gpu.lost();
        assert_eq!(gpu.until_fit(), 30, "what was long ago is forgotten");
    }

    #[test]
    fn sensors_that_fell_silent_are_a_fault_and_those_that_never_spoke_are_none() {
        let mut gpu = Gpu::new();
        assert_eq!(gpu.look(None, Sensors::default()), None, "unknown speaks against nobody");
        assert_eq!(gpu.well(), None);
        assert_eq!(gpu.look(None, Sensors::default()), Some(HealthChange::Began));
        assert_eq!(gpu.fault(), Some(GpuFault::Unreadable));
        assert_eq!(gpu.lost(), Some(HealthChange::OtherFault));
        assert_eq!(gpu.fault(), Some(GpuFault::Lost));
    }

    #[test]
    fn a_gpu_that_was_missing_from_the_start_comes_when_it_is_there() {
        let mut gpu = Gpu::new();
        let missing = gpu.look(Some(GpuFault::Missing), Sensors::default());
        assert_eq!(missing, Some(HealthChange::Began));
        assert_eq!(gpu.until_fit(), 30);
    }
}
