//! What goes wrong, in virtual time.

use shared::task::TaskName;

use super::Fault;
use super::sim::{Doing, Next, Open, Sim};

/// How long a worker that died is gone.
const GONE: u64 = 2_000;

impl Sim<'_> {
    pub(super) fn fail(&mut self, fault: Fault) {
        match fault {
            Fault::Kill { worker, .. } => self.kill(worker),
            Fault::Brain { gap, .. } => self.restart(gap),
            Fault::Refuse { .. } => {}
        }
    }

    /// What it had claimed is put back, as settling does; its server loses its models.
    fn kill(&mut self, index: usize) {
        let worker = &mut self.workers[index];
        worker.turn += 1;
        worker.held.clear();
        match std::mem::replace(&mut worker.doing, Doing::Dead) {
            Doing::Prompt { prompt, .. } => {
                let model = self.set_up.prompts[prompt].model;
                self.waiting[model].push_front(prompt);
            }
            Doing::Request { request: Open { name, what }, .. } => {
                let name = TaskName { attempt: name.attempt + 1, deaths: 1, ..name };
                self.open.push(Open { name, what });
            }
            Doing::Nothing | Doing::Dead => {}
        }
        self.later(GONE, Next::Back(index));
        self.ring();
    }

    pub(super) fn come_back(&mut self, index: usize) {
        let now = self.now;
        let worker = &mut self.workers[index];
        worker.life += 1;
        (worker.doing, worker.changed) = (Doing::Nothing, now);
        self.ring();
    }
}
