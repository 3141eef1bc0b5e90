//! What was found: rows, as a table for people and as JSON for programs.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use serde_json::{Value, json};

use crate::args::Args;
use crate::measure::{self, Pair};
use crate::plot;

/// What a row is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    /// At least this part of the limit.
    Ratio(f64),
    /// At most so many times the limit.
    Factor(f64),
    /// Less than this.
    Under(f64),
    /// It is only said.
    None,
}

#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) limit: Option<f64>,
    pub(crate) ratio: Option<f64>,
    pub(crate) goal: Goal,
}

impl Row {
    /// A figure by itself.
    pub(crate) fn alone(
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        goal: Goal,
    ) -> Self {
        Self { name: name.into(), value, unit, limit: None, ratio: None, goal }
    }

    /// A figure beside its limit.
    pub(crate) fn beside(
        name: impl Into<String>,
        pair: &Pair,
        unit: &'static str,
        goal: Goal,
    ) -> Self {
        let (limit, ratio) = (Some(pair.raw), Some(pair.ratio));
        Self { name: name.into(), value: pair.ours, unit, limit, ratio, goal }
    }

    /// `None` where there is no goal.
    fn met(&self) -> Option<bool> {
        match self.goal {
            Goal::Ratio(least) => Some(self.ratio? >= least),
            Goal::Factor(most) => Some(self.ratio? <= most),
            Goal::Under(bound) => Some(self.value < bound),
            Goal::None => None,
        }
    }

    fn goal_text(&self) -> Option<String> {
        match self.goal {
            Goal::Ratio(least) => Some(format!("ratio >= {least}")),
            Goal::Factor(most) => Some(format!("ratio <= {most}")),
            Goal::Under(bound) => Some(format!("< {bound} {}", self.unit)),
            Goal::None => None,
        }
    }

    fn to_json(&self) -> Value {
        let Self { name, value, unit, limit, ratio, .. } = self;
        let (goal, met) = (self.goal_text(), self.met());
        json!({ "name": name, "value": value, "unit": unit, "limit": limit, "ratio": ratio,
                "goal": goal, "met": met })
    }
}

#[derive(Debug)]
pub(crate) struct Report {
    rows: Vec<Row>,
    pub(crate) curves: Vec<plot::Curve>,
    begun: Instant,
    load: String,
    place: String,
}

impl Report {
    pub(crate) fn begin(root: &Path) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let load = measure::load();
        let place = root.display().to_string();
        say(&format!("{cores} cores, load {load} at the start, pools below {place}"));
        say(&line(["", "value", "unit", "limit", "ratio", "goal", "met"]));
        Self { rows: Vec::new(), curves: Vec::new(), begun: Instant::now(), load, place }
    }

    /// What the rows that follow mean.
    pub(crate) fn caption(&self, text: &str) {
        say(text);
    }

    /// Shown at once: a long run should show that it gets on.
    pub(crate) fn add(&mut self, row: Row) {
        let number = |value: Option<f64>| value.map_or_else(String::new, figure);
        let met = match row.met() {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "",
        };
        say(&line([
            &row.name,
            &figure(row.value),
            row.unit,
            &number(row.limit),
            &row.ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            &row.goal_text().unwrap_or_default(),
            met,
        ]));
        self.rows.push(row);
    }

    /// Writes what was asked for. A goal that was missed is no failure of the measurement.
    pub(crate) fn end(self, args: &Args) -> ExitCode {
        let (load, took) = (measure::load(), self.begun.elapsed().as_secs());
        let missed = self.rows.iter().filter(|row| row.met() == Some(false)).count();
        say(&format!("{missed} goals missed; {took} s, load {load} at the end"));
        let rows: Vec<Value> = self.rows.iter().map(Row::to_json).collect();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let whole = json!({ "schema": "brainstem.bench/1", "cores": cores, "pools": self.place,
            "load": { "before": self.load, "after": load }, "seconds": took, "rows": rows });
        let mut failed = false;
        let mut write = |path: &std::path::Path, text: String| {
            if let Err(error) = std::fs::write(path, text) {
                eprintln!("bench: could not write `{}`: {error}", path.display());
                failed = true;
            }
        };
        if let Some(path) = &args.json {
            write(path, format!("{whole:#}\n"));
        }
        if let (Some(path), false) = (args.plot_file(), self.curves.is_empty()) {
            write(&path, plot::svg(&self.curves));
            say(&format!("curves: {}", path.display()));
        }
        if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

fn line(cells: [&str; 7]) -> String {
    let [name, value, unit, limit, ratio, goal, met] = cells;
    format!("{name:<52} {value:>9} {unit:<8} {limit:>9} {ratio:>6}  {goal:<14} {met}")
}

#[expect(clippy::print_stdout, reason = "the one place that answers a person")]
fn say(text: &str) {
    println!("{}", text.trim_end());
}
