//! A panic is an event too, with its backtrace, before the process ends.

use std::any::Any;
use std::backtrace::Backtrace;
use std::panic::PanicHookInfo;

use super::{Handle, StderrForm, context};
use crate::event::Event;
use crate::log::Place;

/// Every panic of this process is said from now on, instead of printed.
pub(super) fn install(handle: Handle) {
    std::panic::set_hook(Box::new(move |info| tell(&handle, info)));
}

fn tell(handle: &Handle, info: &PanicHookInfo<'_>) {
    // The file writer's own panics are caught and counted as lost lines.
    let Some(idle) = context::Busy::enter() else { return };
    drop(idle);
    let backtrace = Backtrace::force_capture().to_string();
    let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
    let location = info.location();
    let at = location.map_or_else(String::new, |location| format!(" at {location}"));
    let message = format!("{}{at}", panic_text(info.payload()));
    let place = Place {
        file: "(panic)",
        line: location.map_or(0, std::panic::Location::line),
        module: module_path!(),
    };
    match handle.shared.config.stderr {
        StderrForm::Text => handle.shared.stderr.write(backtrace.as_bytes()),
        StderrForm::Json | StderrForm::Off => {}
    }
    handle.emit(&Event::Panicked { message, thread, backtrace }, place);
}

/// What a panic said: `panic!` leaves a `&str` or a `String`, others what they like.
#[must_use]
pub fn panic_text(payload: &dyn Any) -> &str {
    let plain = payload.downcast_ref::<&str>().copied();
    plain.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no text)")
}
