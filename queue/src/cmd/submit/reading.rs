//! Reading a batch file line by line: how a line becomes a task, and what the first reading, which
//! checks everything, finds out.

use std::collections::{BTreeMap, HashMap};

use queue::dir::batch::members::LineKey;
use shared::id::{BatchId, TaskId};
use shared::task::{BadSpec, Spec, parse_line, too_deep};

use super::around::Around;
use super::plan::{self, Links};
use super::resume::Twins;
use super::source::{Go, Source};
use super::template::{self, Template};
use super::{Submitter, check_size};
use crate::cmd::Stop;

/// So many mistakes are told at once.
const TOLD: usize = 10;

/// How a line of the file becomes a task.
pub(super) enum Maker {
    /// It is a task object, or a request in OpenAI's format.
    Lines {
        /// The model for prompts that name none.
        model: Option<String>,
    },
    /// It is a row that a template asks about.
    Rows {
        /// The prompt, into which the row's values are filled.
        template: Template,
        /// All that is the same for every row.
        base: Box<Spec>,
    },
}

impl Maker {
    pub(super) fn spec(&self, line: &[u8]) -> Result<Spec, BadSpec> {
        match self {
            Self::Lines { model } => parse_line(line, model.as_deref()),
            Self::Rows { template, base } => {
                let row = serde_json::from_slice(line).map_err(|err| {
                    let no_object = || format!("not a JSON object: {err}");
                    super::bad("row", &too_deep(line).unwrap_or_else(no_object))
                })?;
                Ok(Spec {
                    prompt: Some(template.fill(&row)?),
                    custom_id: template::custom_id(&row),
                    ..Spec::clone(base)
                })
            }
        }
    }
}

/// A file, and how it is read.
pub(super) struct Reading {
    pub(super) source: Source,
    pub(super) maker: Maker,
    pub(super) me: Submitter,
}

/// What the first reading found out.
#[derive(Default)]
pub(super) struct Checked {
    /// The line of each task.
    pub(super) lines: Vec<u32>,
    pub(super) links: Links,
    pub(super) keys: Vec<(usize, String)>,
    /// What each task is known by, where the batch has a key.
    pub(super) line_keys: Vec<LineKey>,
    /// How many tasks ask which model.
    pub(super) models: BTreeMap<String, u64>,
    /// What the tasks need of the machine, as far as it is missing here.
    pub(super) around: Around,
    /// The first prompt that a template made.
    pub(super) first: Option<String>,
}

pub(super) fn check(reading: &mut Reading, batch_key: Option<&str>) -> Result<Checked, Stop> {
    let Reading { source, maker, me } = reading;
    let mut checked = Checked::default();
    let mut wrong: Vec<(u32, BadSpec)> = Vec::new();
    let (mut named, mut twins) = (HashMap::new(), Twins::default());
    let any = Ids { task: TaskId::new(), batch: BatchId::new() };
    source.each("checking", |number, line| {
        let read = maker.spec(line).and_then(|spec| {
            let line_key = batch_key.map(|_key| twins.key_of(&spec));
            refuse_twice(&mut named, number, &spec)?;
            complete(me, any, spec).map(|spec| (spec, line_key))
        });
        match read {
            Ok((spec, line_key)) => checked.add(number, spec, line_key, maker),
            Err(bad) => wrong.push((number, bad)),
        }
        Ok(if wrong.len() < TOLD { Go::On } else { Go::Stop })
    })?;
    if !wrong.is_empty() {
        let mut lines: Vec<_> =
            wrong.iter().map(|(number, bad)| source.place(*number, bad)).collect();
        lines.push("nothing was submitted".to_owned());
        return Err(Stop::usage(lines.join("\n")));
    }
    if checked.lines.is_empty() {
        return Err(Stop::usage(format!("{}: holds no task", source.name)));
    }
    Ok(checked)
}

/// Two answers of one name could not be told apart. Kept as hashes: there may be a million.
fn refuse_twice(
    named: &mut HashMap<LineKey, u32>,
    number: u32,
    spec: &Spec,
) -> Result<(), BadSpec> {
    let Some(custom_id) = &spec.custom_id else { return Ok(()) };
    match named.insert(LineKey::of(&[custom_id.as_bytes()]), number) {
        None => Ok(()),
        Some(first) => {
            let custom_id = custom_id.escape_default();
            Err(super::bad("custom_id", &format!("`{custom_id}` is that of line {first} too")))
        }
    }
}

/// The ids of a task of a batch. To check a line, any will do: all are equally long.
#[derive(Clone, Copy)]
pub(super) struct Ids {
    pub(super) task: TaskId,
    pub(super) batch: BatchId,
}

pub(super) fn complete(me: &Submitter, ids: Ids, mut spec: Spec) -> Result<Spec, BadSpec> {
    me.complete(&mut spec)?;
    let task = me.task(ids.task, Some(ids.batch), spec);
    check_size(&task)?;
    Ok(task.spec)
}

impl Checked {
    fn add(&mut self, number: u32, mut spec: Spec, line_key: Option<LineKey>, maker: &Maker) {
        let index = self.lines.len();
        self.lines.push(number);
        self.around.look(&spec);
        self.line_keys.extend(line_key);
        if spec.asks_a_model()
            && let Some(model) = spec.model.take()
        {
            *self.models.entry(model).or_default() += 1;
        }
        if self.first.is_none() && matches!(maker, Maker::Rows { .. }) {
            self.first = spec.prompt.take();
        }
        if !spec.after.is_empty() {
            self.links.push((index, std::mem::take(&mut spec.after)));
        }
        self.keys.extend(spec.key.map(|key| (index, key)));
    }
}

/// The tasks whose names are waited for.
pub(super) fn names(
    reading: &mut Reading,
    links: &Links,
) -> Result<HashMap<String, Vec<usize>>, Stop> {
    let wanted = plan::wanted(links);
    let (mut names, mut index) = (HashMap::<String, Vec<usize>>::new(), 0);
    let Reading { source, maker, .. } = reading;
    source.each("naming", |_number, line| {
        let name = maker.spec(line).ok().and_then(|spec| spec.name);
        if let Some(name) = name.filter(|name| wanted.contains(name)) {
            names.entry(name).or_default().push(index);
        }
        index += 1;
        Ok(Go::On)
    })?;
    Ok(names)
}
