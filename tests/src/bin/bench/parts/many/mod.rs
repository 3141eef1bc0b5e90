//! What many tasks or many lanes cost: commands about 20,000 tasks, questions and memory with 3,000
//! lanes.

mod commands;
mod lanes;

use crate::args::Args;
use crate::parts::daemon::Place;
use crate::report::Report;

pub(crate) fn measure(args: &Args, place: &Place, report: &mut Report) {
    commands::measure(args, place, report);
    lanes::measure(args, place, report);
}
