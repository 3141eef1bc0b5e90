//! All that the system can say about itself.
//!
//! `list.rs` is the one table: name, level, fields and sentence of every event. Log
//! lines, metrics, live updates and explanations come from these values and from nothing else.

mod list;
mod parts;
mod placement;
mod repeat;

use std::any::Any;

use crate::id::TaskId;

pub use list::Event;
pub use parts::{
    AnswerFigures, Ending, Monitor, Scaling, Statistics, Step, StuckTask, Throughput,
    UnknownVariable, Why,
};
pub use placement::{LoadOutlook, Placement, Purpose};
pub use repeat::{Repeater, Repeaters, Say};

crate::outcome::words! {
    /// How much an event matters, least first. The words are those on the wire.
    Level {
        /// Only of use when looking for a fault.
        Debug = "DEBUG",
        /// Life goes on: started, claimed, completed, decided.
        Info = "INFO",
        /// Somebody should look when there is time.
        Warning = "WARNING",
        /// Something did not work.
        Error = "ERROR",
        /// A process ends, or data is in danger.
        Critical = "CRITICAL",
    }
}

/// The task that an event is about, found among its fields.
#[derive(Default)]
struct Subject {
    task: Option<TaskId>,
    attempt: Option<u32>,
}

impl Subject {
    fn note(&mut self, field: &str, value: &dyn Any) {
        match field {
            "task" => self.task = value.downcast_ref().copied(),
            "attempt" => self.attempt = value.downcast_ref().copied(),
            _ => {}
        }
    }

    fn found(self) -> Option<(TaskId, Option<u32>)> {
        self.task.map(|task| (task, self.attempt))
    }
}

/// Makes the enum and its views from the table.
macro_rules! events {
    ($($logger:literal { $(
        $name:literal $level:ident $variant:ident { $($field:ident: $type:ty),* $(,)? }
            => $say:tt;
    )+ })+) => {
        /// One thing that happened.
        #[derive(Clone, Debug, PartialEq)]
        #[expect(missing_docs, reason = "the sentence of each says what it is")]
        pub enum Event { $($( $variant { $($field: $type),* }, )+)+ }

        impl Event {
            /// The names of all events, in the order of the table.
            pub const NAMES: &'static [&'static str] = &[$($($name),+),+];

            /// Its name, as in `claim.won`.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self { $($(Self::$variant { .. } => $name),+),+ }
            }

            /// How much it matters.
            #[must_use]
            pub const fn level(&self) -> $crate::event::Level {
                match self { $($(Self::$variant { .. } => $crate::event::Level::$level),+),+ }
            }

            /// The part of the system that says it, as in `worker.claim`.
            #[must_use]
            pub const fn logger(&self) -> &'static str {
                match self { $($(Self::$variant { .. } => $logger),+),+ }
            }

            /// The sentence for people: one line, whatever its fields hold.
            #[must_use]
            pub fn message(&self) -> String {
                let text = match self { $($(Self::$variant { $($field),* } => {
                    let _fields_a_sentence_leaves_out = ($($field,)*);
                    format! $say
                })+)+ };
                $crate::name::printable(&text)
            }

            /// The task, and the attempt where there is one, that it is about.
            #[must_use]
            pub fn task(&self) -> Option<($crate::id::TaskId, Option<u32>)> {
                let mut subject = $crate::event::Subject::default();
                match self { $($(Self::$variant { $($field),* } => {
                    $(subject.note(stringify!($field), $field);)*
                })+)+ }
                subject.found()
            }

            /// All fields but `task`, `attempt` and `text`, some laid open: `extra` of a log line.
            #[must_use]
            pub fn extra(&self) -> serde_json::Map<String, serde_json::Value> {
                let mut extra = serde_json::Map::new();
                match self { $($(Self::$variant { $($field),* } => {
                    $($crate::event::parts::add(&mut extra, stringify!($field), $field);)*
                })+)+ }
                extra
            }
        }
    };
}
pub(crate) use events;

impl Event {
    /// The event for how an attempt ended: each outcome has one of its own.
    #[must_use]
    pub fn ended(task: TaskId, attempt: u32, what: String, ending: Ending) -> Self {
        use crate::outcome::Outcome;
        match ending.outcome {
            Outcome::Succeeded => Self::TaskCompleted { task, attempt, what, ending },
            Outcome::Failed => Self::TaskFailed { task, attempt, what, ending },
            Outcome::Cancelled => Self::TaskCancelled { task, attempt, what, ending },
            Outcome::Returned => Self::TaskReturned { task, attempt, what, ending },
        }
    }
}

#[cfg(test)]
mod tests;
