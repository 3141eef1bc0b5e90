//! Carrying out what the core decided. What comes of it goes back to the core.

use queue::Error;
use queue::dir::signal::control::{self, ControlVerb, Message as Control};
use shared::emit;
use shared::event::Event as Said;

use super::Brain;
use crate::core::words::command::Command;
use crate::core::words::event::Event;
use crate::core::words::placement::ModelRequest;
use crate::effects::load_requests;

impl Brain {
    /// Tells the core, and does what follows.
    pub(crate) fn tell(&mut self, event: Event) {
        let mut todo = self.core.on(self.at(), event);
        while !todo.is_empty() {
            let mut more = Vec::new();
            for command in todo {
                more.extend(self.act(command));
            }
            todo = more;
        }
    }

    fn act(&mut self, command: Command) -> Vec<Command> {
        match command {
            Command::Say(event) => emit!(event),
            Command::Spawn(place) => {
                let worker = place.worker.clone();
                let event = match self.children.spawn(&place) {
                    Ok(pid) => Event::Spawned { worker, pid },
                    Err(error) => Event::SpawnFailed { worker, error },
                };
                return self.core.on(self.at(), event);
            }
            Command::Stall { worker, name, seconds } => {
                let why = Some(format!("no progress for {seconds:.0}s"));
                let message = Control { why, ..Control::new(ControlVerb::Stall, "brain") };
                self.say_failed(
                    &format!("Asking {worker} to end {}", name.id.short()),
                    control::ask_about(self.pool.layout(), &worker, name, message),
                );
            }
            Command::Drain(worker) => {
                let message = Control::new(ControlVerb::Drain, "brain");
                let sent = control::send(self.pool.layout(), &worker, &message);
                self.say_failed(&format!("Asking {worker} to drain"), sent);
            }
            Command::Undrain(worker) => {
                let withdrawn = control::withdraw(self.pool.layout(), &worker, ControlVerb::Drain);
                self.say_failed(&format!("Withdrawing the drain of {worker}"), withdrawn);
            }
            Command::Record(decision) => {
                let written = self.publisher.decided(&decision);
                self.say_failed("Writing down a decision", written);
            }
            Command::RecordPlacement(decision) => {
                let written = self.publisher.decided(&decision);
                self.say_failed("Writing down a decision", written);
            }
            Command::Request(request) => {
                let asked = load_requests::ask(&self.pool, &request);
                let ModelRequest { worker, verb, model, .. } = request;
                self.say_failed(&format!("Asking {worker} to {verb} {model}"), asked);
            }
            Command::Withdraw(name) => {
                let withdrawn = load_requests::withdraw(&self.pool, &self.ledger, name);
                self.say_failed(&format!("Withdrawing {}", name.id.short()), withdrawn);
            }
            Command::Terminate(worker) => self.children.terminate(&worker),
            Command::Kill(worker) => self.children.kill(&worker),
            Command::Finish => self.finish(),
        }
        Vec::new()
    }

    fn say_failed<T>(&self, doing: &str, result: Result<T, Error>) {
        if let Err(err) = result {
            emit!(Said::ProcessFailed { doing: doing.to_owned(), error: err.to_string() });
        }
    }
}
