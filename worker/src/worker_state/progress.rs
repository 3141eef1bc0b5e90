//! Does a job get on? New output, processor time, GPU use, a touched progress file: any of these
//! counts. Ages are measured on this worker's monotonic clock since it first saw the figure.

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Map, Value};

/// What a job had done when it was last looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Bytes in its log.
    pub output: Option<u64>,
    /// When its progress file was last touched.
    pub progress_file: Option<SystemTime>,
    /// Processor time of its processes.
    pub cpu_ticks: Option<u64>,
    /// Whether any of its processes is stopped.
    pub stopped: bool,
    /// Whether its GPU is at work for it.
    pub gpu_busy: bool,
    /// It is a request to a model server: what comes of it is all that can be seen.
    pub request: bool,
}

/// Progress, as far as it was seen.
#[derive(Clone, Debug)]
pub struct Progress {
    last: Sample,
    last_output: Instant,
    last_any: Instant,
    /// Whether quiet can be told at all from the last look.
    told: bool,
}

impl Progress {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { last: Sample::default(), last_output: now, last_any: now, told: false }
    }

    /// Takes in what was seen at `now`.
    pub fn see(&mut self, sample: Sample, now: Instant) {
        if sample.output != self.last.output {
            self.last_output = now;
        }
        let moved = sample.output != self.last.output
            || sample.progress_file != self.last.progress_file
            || sample.cpu_ticks != self.last.cpu_ticks
            || sample.gpu_busy;
        // A stopped job is somebody's wish, and what cannot be read tells nothing: neither counts
        // as quiet, and the clock starts again when the job can be seen to go on.
        self.told = !sample.stopped && (sample.cpu_ticks.is_some() || sample.request);
        if moved || !self.told {
            self.last_any = now;
        }
        self.last = sample;
    }

    /// How long there was no progress of any kind; `None` where that cannot be told.
    #[must_use]
    pub fn quiet(&self, now: Instant) -> Option<Duration> {
        self.told.then(|| now.saturating_duration_since(self.last_any))
    }

    /// How long there was no output.
    #[must_use]
    pub fn output_age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_output)
    }

    /// What was looked at.
    #[must_use]
    pub fn evidence(&self, now: Instant) -> Map<String, Value> {
        let mut evidence = Map::new();
        evidence.insert("output_bytes".into(), self.last.output.into());
        evidence.insert("output_age_seconds".into(), self.output_age(now).as_secs().into());
        evidence.insert("cpu_ticks".into(), self.last.cpu_ticks.into());
        evidence.insert("stopped".into(), self.last.stopped.into());
        evidence.insert("gpu_busy".into(), self.last.gpu_busy.into());
        evidence.insert("progress_file".into(), self.last.progress_file.is_some().into());
        evidence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(output: u64, cpu_ticks: u64) -> Sample {
        Sample { output: Some(output), cpu_ticks: Some(cpu_ticks), ..Sample::default() }
    }

    fn quiet(samples: &[Sample]) -> Option<u64> {
        let start = Instant::now();
        let at = |second: usize| start + Duration::from_secs(second as u64);
        let mut progress = Progress::new(start);
        for (second, sample) in samples.iter().enumerate() {
            progress.see(sample.clone(), at(second));
        }
        progress.quiet(at(samples.len() - 1)).map(|quiet| quiet.as_secs())
    }

    #[test]
    fn output_or_processor_time_is_progress() {
        assert_eq!(quiet(&[sample(0, 1), sample(0, 1), sample(0, 1)]), Some(2));
        assert_eq!(quiet(&[sample(0, 1), sample(5, 1), sample(5, 1)]), Some(1));
        assert_eq!(quiet(&[sample(0, 1), sample(0, 1), sample(0, 2)]), Some(0));
    }

    #[test]
    fn a_stopped_job_and_an_unreadable_one_are_not_quiet() {
        let stopped = Sample { stopped: true, ..sample(0, 1) };
        assert_eq!(quiet(&[sample(0, 1), stopped.clone(), stopped.clone()]), None);
        assert_eq!(quiet(&[sample(0, 1), stopped.clone(), stopped, sample(0, 1)]), Some(1));
        let unreadable = Sample { cpu_ticks: None, ..sample(0, 1) };
        assert_eq!(quiet(&[unreadable.clone(), unreadable]), None);
    }

    #[test]
    fn of_a_request_its_output_tells_all() {
        let request = |output| Sample { output: Some(output), request: true, ..Sample::default() };
        assert_eq!(quiet(&[request(0), request(0), request(0)]), Some(2));
        assert_eq!(quiet(&[request(0), request(0), request(3)]), Some(0));
    }
}
