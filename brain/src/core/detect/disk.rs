//! Room on the pool's disk: below the limit new tasks are refused, and somebody should know why.

use queue::wire::brain_state::Warning;
use queue::wire::heartbeat::hog;
use shared::event::Event;
use shared::quantity::Bytes;
use shared::settings::Settings;

use super::condition::Conditions;
use crate::core::words::at::At;
use crate::core::words::command::{Command, say};
use crate::core::words::snapshot::Snapshot;

/// Watches what is free.
#[derive(Clone, Debug)]
pub struct DiskSpace {
    needed: Bytes,
    low: Conditions<()>,
    /// What seems to fill it.
    growing: Option<String>,
}

impl DiskSpace {
    /// With the limit of the settings.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self { needed: settings.disk_low, low: Conditions::default(), growing: None }
    }

    /// Takes in a look.
    pub fn look(&mut self, at: At, seen: &Snapshot, out: &mut Vec<Command>) {
        let Some(free) = seen.free else { return };
        let path = || "the pool's disk".into();
        if free < self.needed {
            let beats = seen.alive().filter_map(|(_name, worker)| worker.own_heartbeat());
            self.growing = hog(beats.flat_map(|beat| &beat.current)).map(|hog| hog.to_string());
            if let Some(count) = self.low.holds(at, &()) {
                let (needed, growing) = (self.needed, self.growing.clone());
                say(out, Event::DiskLow { path: path(), free, needed, growing, count });
            }
        } else if let Some(seconds) = self.low.ended(at, &()) {
            say(out, Event::DiskResumed { path: path(), free, seconds });
        }
    }

    /// What somebody should know.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        let mut text = format!("the pool's disk has less than {} free", self.needed);
        text.extend(self.growing.iter().flat_map(|log| ["; ", log]));
        let each = self.low.all();
        each.map(|((), since)| Warning { code: "disk.full".into(), text: text.clone(), since })
            .collect()
    }
}
